/* Writes to one of two words when told: lines of a word's number and a count. Answers each with `done`. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static volatile uint64_t words[2];

__attribute__((noinline)) static void write_word(int word, uint64_t value)
{
    words[word] = value;
    __asm__ volatile("" : : "r"(value) : "memory");
}

/* The text must be the caller's: what a function without calls keeps may lie below its stack pointer. */
__attribute__((noinline)) static void write_with_marker(int word, uint64_t value)
{
    char text[64];
    strcpy(text, "STACK MARKER");
    __asm__ volatile("" : : "r"(text) : "memory");
    write_word(word, value);
    __asm__ volatile("" : : "r"(text) : "memory");
}

int main(void)
{
    uint64_t value = 0;
    unsigned word, count;
    printf("%llx %llx\n", (unsigned long long)(uintptr_t)&words[0], (unsigned long long)(uintptr_t)&words[1]);
    fflush(stdout);
    while (scanf("%u %u", &word, &count) == 2) {
        value = 0x5eed0000;
        while (count-- > 0)
            write_with_marker(word & 1, ++value);
        printf("done\n");
        fflush(stdout);
    }
    return 0;
}
