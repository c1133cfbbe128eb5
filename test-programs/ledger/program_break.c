#define _GNU_SOURCE
#include "program_break.h"

#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

bool break_take(size_t bytes)
{
    return sbrk((intptr_t)bytes) != (void *)-1;
}

bool break_block(void)
{
    enum { PAGE_BYTES = 4096 };
    uintptr_t page = ((uintptr_t)sbrk(0) + PAGE_BYTES - 1) & ~(uintptr_t)(PAGE_BYTES - 1);
    return mmap((void *)page, PAGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0)
        != MAP_FAILED;
}
