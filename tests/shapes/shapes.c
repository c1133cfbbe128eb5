/* Structures of every kind that debug information describes. The program prints what the compiler made of them:
 * structure, member, offset, size; a structure itself is the member "-". */
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>

typedef struct inner_s inner_t;
struct inner_s {
    char a;
    long b;
};

typedef inner_t inner_array_t[6];

struct plain_s {
    char first;
    inner_t inner;
    short last;
};

union choice_u {
    char letter;
    inner_t inner;
    long words[9];
};

struct nameless_s {
    int before;
    union {
        struct {
            char x;
            double y;
        };
        long z[4];
    };
    struct {
        inner_t deep;
        int more;
    } named;
    volatile const inner_t qualified;
};

struct arrays_s {
    inner_t few[7];
    int grid[3][5];
    _Atomic long counter;
    inner_array_t aliased;
    inner_array_t twice[2];
    inner_t *pointers[5];
    inner_t none[0];
    char open[];
};

struct bits_s {
    unsigned low : 3;
    unsigned high : 13;
    unsigned long wide : 40;
    int after;
};

typedef struct {
    int one;
    long other;
} tagless_t;

struct recursive_s {
    struct recursive_s *next;
    struct {
        struct recursive_s *head;
    } list;
};

struct aligned_s {
    char before;
    _Alignas(64) inner_t inner;
};

#define SIZE(type, name) printf("%s - 0 %zu\n", name, sizeof(type))
#define MEMBER(type, name, path) \
    printf("%s %s %zu %zu\n", name, #path, offsetof(type, path), sizeof(((type *)0)->path))
/* An array on the way stands for its first element. */
#define ELEMENT(type, name, array, path) \
    printf("%s %s.%s %zu %zu\n", name, #array, #path, offsetof(type, array[0].path), sizeof(((type *)0)->array[0].path))

int main(void) {
    SIZE(struct plain_s, "plain_s");
    MEMBER(struct plain_s, "plain_s", first);
    MEMBER(struct plain_s, "plain_s", inner);
    MEMBER(struct plain_s, "plain_s", inner.b);
    MEMBER(struct plain_s, "plain_s", last);
    SIZE(inner_t, "inner_t");
    SIZE(inner_array_t, "inner_array_t");
    SIZE(union choice_u, "choice_u");
    MEMBER(union choice_u, "choice_u", inner.b);
    MEMBER(union choice_u, "choice_u", words);
    SIZE(struct nameless_s, "nameless_s");
    MEMBER(struct nameless_s, "nameless_s", x);
    MEMBER(struct nameless_s, "nameless_s", y);
    MEMBER(struct nameless_s, "nameless_s", z);
    MEMBER(struct nameless_s, "nameless_s", named.deep.b);
    MEMBER(struct nameless_s, "nameless_s", named.more);
    MEMBER(struct nameless_s, "nameless_s", qualified.b);
    SIZE(struct arrays_s, "arrays_s");
    MEMBER(struct arrays_s, "arrays_s", few);
    ELEMENT(struct arrays_s, "arrays_s", few, b);
    MEMBER(struct arrays_s, "arrays_s", grid);
    MEMBER(struct arrays_s, "arrays_s", counter);
    MEMBER(struct arrays_s, "arrays_s", aliased);
    ELEMENT(struct arrays_s, "arrays_s", aliased, b);
    MEMBER(struct arrays_s, "arrays_s", twice);
    MEMBER(struct arrays_s, "arrays_s", pointers);
    MEMBER(struct arrays_s, "arrays_s", none);
    SIZE(struct bits_s, "bits_s");
    MEMBER(struct bits_s, "bits_s", after);
    SIZE(tagless_t, "tagless_t");
    MEMBER(tagless_t, "tagless_t", other);
    SIZE(struct recursive_s, "recursive_s");
    MEMBER(struct recursive_s, "recursive_s", list.head);
    SIZE(struct aligned_s, "aligned_s");
    MEMBER(struct aligned_s, "aligned_s", inner.b);
    return 0;
}
