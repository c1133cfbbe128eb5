#include "heap.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WEAK __attribute__((weak))
#define JOIN_(prefix, name) prefix##name
#define JOIN(prefix, name) JOIN_(prefix, name)

#ifdef LEDGER_PREFIX
#define NAMED(name) JOIN(LEDGER_PREFIX, name)
void *NAMED(malloc)(size_t size);
void *NAMED(calloc)(size_t count, size_t size);
void *NAMED(realloc)(void *address, size_t size);
void *NAMED(aligned_alloc)(size_t alignment, size_t size);
void NAMED(free)(void *address);
#else
#define NAMED(name) name
#endif

WEAK size_t NAMED(malloc_usable_size)(void *address);

/* Declares a function of jemalloc under its three usual names and defines NAME_found, the one that is there. */
#define ANY_NAME(type, name, parameters)                                                                               \
    WEAK type name parameters;                                                                                         \
    WEAK type je_##name parameters;                                                                                    \
    WEAK type _rjem_##name parameters;                                                                                 \
    static type(*name##_found(void)) parameters                                                                        \
    {                                                                                                                  \
        return name != NULL ? name : je_##name != NULL ? je_##name : _rjem_##name;                                     \
    }

ANY_NAME(int, mallctl, (const char *name, void *old_value, size_t *old_length, void *new_value, size_t new_length))
ANY_NAME(void *, mallocx, (size_t size, int flags))
ANY_NAME(void, dallocx, (void *address, int flags))

static void stamp(void *address, size_t size)
{
    size_t length = sizeof HEAP_STAMP - 1;
    memcpy(address, HEAP_STAMP, size < length ? size : length);
}

static void *must(void *address, size_t size)
{
    static const char complaint[] = "ledger: the heap is exhausted\n";
    if (address == NULL) {
        ssize_t ignored = write(STDERR_FILENO, complaint, sizeof complaint - 1);
        (void)ignored;
        _exit(70);
    }
    stamp(address, size);
    return address;
}

void *heap_allocate(enum heap_way way, size_t *size)
{
    const size_t alignment = 64;
    void *first;
    switch (way) {
    case HEAP_CALLOC:
        return must(NAMED(calloc)(1, *size), *size);
    case HEAP_REALLOC:
        first = NAMED(malloc)(*size / 2 + 1);
        return must(first == NULL ? NULL : NAMED(realloc)(first, *size), *size);
    case HEAP_ALIGNED:
        *size = (*size + alignment - 1) & ~(alignment - 1);
        return must(NAMED(aligned_alloc)(alignment, *size), *size);
    case HEAP_MALLOC:
    default:
        return must(NAMED(malloc)(*size), *size);
    }
}

void heap_release(void *address)
{
    NAMED(free)(address);
}

size_t heap_usable_size(void *address)
{
    return NAMED(malloc_usable_size) != NULL ? NAMED(malloc_usable_size)(address) : 0;
}

bool heap_has_control(void)
{
    return mallctl_found() != NULL;
}

int heap_control(const char *name, void *old_value, size_t *old_length, void *new_value, size_t new_length)
{
    return heap_has_control() ? mallctl_found()(name, old_value, old_length, new_value, new_length) : ENOENT;
}

void *heap_allocate_flagged(size_t size, int flags)
{
    return mallocx_found() != NULL ? must(mallocx_found()(size, flags), size) : NULL;
}

void heap_release_flagged(void *address, int flags)
{
    dallocx_found()(address, flags);
}

int heap_flags_arena(unsigned arena)
{
    return (int)((arena + 1) << 20);
}

int heap_flags_tcache(unsigned tcache)
{
    return (int)((tcache + 2) << 8);
}

int heap_flags_no_tcache(void)
{
    return 1 << 8;
}
