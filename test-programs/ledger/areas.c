#define _GNU_SOURCE
#include "areas.h"

#include "heap.h"

#include <stdint.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

enum { PAGE_BYTES = 4096, TOUCHED_STRIDE_BYTES = 16 * PAGE_BYTES };

static bool map(int protection, int flags, int descriptor, bool touched)
{
    int writable = PROT_READ | PROT_WRITE;
    char *area = mmap(NULL, AREA_BYTES, touched ? writable : protection, flags, descriptor, 0);
    if (area == MAP_FAILED)
        return false;
    if (!touched)
        return true;
    for (size_t at = 0; at < AREA_BYTES; at += TOUCHED_STRIDE_BYTES)
        area[at] = 1;
    return mprotect(area, AREA_BYTES, protection) == 0;
}

bool areas_map(void)
{
    static const int protections[] = {PROT_READ | PROT_WRITE, PROT_READ, PROT_NONE};
    static const int flags[] = {MAP_PRIVATE | MAP_ANONYMOUS, MAP_SHARED | MAP_ANONYMOUS, MAP_PRIVATE, MAP_SHARED};
    /* The kernel's own daemon would otherwise touch what nobody else does. */
    if (prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) != 0)
        return false;
    /* All pages of the file are in memory, and none of them in the process: a read would bring them in. */
    int file = memfd_create("area", 0);
    if (file < 0 || ftruncate(file, AREA_BYTES) != 0)
        return false;
    for (off_t at = 0; at < AREA_BYTES; at += PAGE_BYTES) {
        if (pwrite(file, "file", 4, at) != 4)
            return false;
    }
    for (size_t way = 0; way < sizeof flags / sizeof flags[0]; way++) {
        int descriptor = flags[way] & MAP_ANONYMOUS ? -1 : file;
        for (size_t index = 0; index < sizeof protections / sizeof protections[0]; index++) {
            if (!map(protections[index], flags[way], descriptor, false))
                return false;
            if (!map(protections[index], flags[way], descriptor, true))
                return false;
        }
    }
    return true;
}

bool areas_protect(struct blocks *blocks, size_t size)
{
    void *address = heap_allocate(HEAP_MALLOC, &size);
    blocks_add(blocks, (struct block){.address = address, .size = size, .kind = BLOCK_HEAP});
    uintptr_t first = ((uintptr_t)address + PAGE_BYTES - 1) & ~(uintptr_t)(PAGE_BYTES - 1);
    uintptr_t end = ((uintptr_t)address + size) & ~(uintptr_t)(PAGE_BYTES - 1);
    return first >= end || mprotect((void *)first, end - first, PROT_NONE) == 0;
}
