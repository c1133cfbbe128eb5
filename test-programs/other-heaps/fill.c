/* Keeps 62 MiB in the heap of whatever malloc it is linked with, says so, and waits for the end of its input. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SMALL = 400000, LARGE = 24 };

static char *small[SMALL], *large[LARGE];

int main(void)
{
    for (int at = 0; at < SMALL; at++) {
        small[at] = malloc(100);
        memset(small[at], 1, 100);
    }
    for (int at = 0; at < LARGE; at++) {
        large[at] = malloc(1 << 20);
        memset(large[at], 1, 1 << 20);
    }
    puts("ready");
    fflush(stdout);
    while (getchar() != EOF) {}
    /* A static musl program that frees nothing gets another malloc. */
    free(small[0]);
    free(large[0]);
    return small[SMALL - 1] == NULL || large[LARGE - 1] == NULL;
}
