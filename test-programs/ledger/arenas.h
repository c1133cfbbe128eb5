/* Manual arenas and explicit thread caches: what only jemalloc has, through mallctl and mallocx. */
#ifndef LEDGER_ARENAS_H
#define LEDGER_ARENAS_H

#include "blocks.h"

#include <stdbool.h>
#include <stddef.h>

/* Creates an arena and allocates `count` blocks of `size` into it. False if this allocator cannot. */
bool arena_create(struct blocks *blocks, size_t count, size_t size, unsigned *arena);
/* Destroys an arena made by arena_create with all its blocks. */
bool arena_destroy(struct blocks *blocks, unsigned arena);
/* Gives the free pages of all arenas back to the system. */
bool arenas_purge(void);
/* Creates an explicit thread cache, allocates 2 * `count` blocks of `size` through it and frees every other one into
 * it, so that it holds blocks that are free for the program. */
bool tcache_create(struct blocks *blocks, size_t count, size_t size, unsigned *tcache);

#endif
