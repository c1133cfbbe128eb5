#include "arenas.h"

#include "heap.h"

#include <stdio.h>
#include <string.h>

static bool create(const char *name, unsigned *index)
{
    size_t length = sizeof *index;
    return heap_control(name, index, &length, NULL, 0) == 0;
}

bool arena_create(struct blocks *blocks, size_t count, size_t size, unsigned *arena)
{
    /* Up to 4.5 the name was arenas.extend. */
    if (!create("arenas.create", arena) && !create("arenas.extend", arena))
        return false;
    int flags = heap_flags_arena(*arena) | heap_flags_no_tcache();
    for (; count > 0; count--) {
        void *address = heap_allocate_flagged(size, flags);
        if (address == NULL)
            return false;
        blocks_add(blocks, (struct block){.address = address, .size = size, .kind = BLOCK_ARENA, .index = *arena});
    }
    return true;
}

bool arena_destroy(struct blocks *blocks, unsigned arena)
{
    char name[40];
    snprintf(name, sizeof name, "arena.%u.destroy", arena);
    if (heap_control(name, NULL, NULL, NULL, 0) != 0)
        return false;
    for (size_t position = blocks->count; position-- > 0;) {
        struct block *block = blocks_at(blocks, position);
        if (block->kind == BLOCK_ARENA && block->index == arena)
            blocks_take(blocks, position);
    }
    return true;
}

bool arenas_purge(void)
{
    /* MALLCTL_ARENAS_ALL of 5.x. */
    return heap_control("arena.4096.purge", NULL, NULL, NULL, 0) == 0;
}

bool tcache_create(struct blocks *blocks, size_t count, size_t size, unsigned *tcache)
{
    if (!create("tcache.create", tcache))
        return false;
    int flags = heap_flags_tcache(*tcache);
    void *given_back = NULL;
    for (size_t made = 0; made < 2 * count; made++) {
        void *address = heap_allocate_flagged(size, flags);
        if (address == NULL)
            return false;
        if (made % 2 == 0) {
            given_back = address;
            continue;
        }
        blocks_add(blocks, (struct block){.address = address, .size = size, .kind = BLOCK_TCACHE, .index = *tcache});
        heap_release_flagged(given_back, flags);
    }
    return true;
}
