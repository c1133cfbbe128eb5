/* The record of live blocks: which the program owns, and nothing else. Kept in mappings of its own, so that keeping
 * the record never changes the heap that it describes. */
#ifndef LEDGER_BLOCKS_H
#define LEDGER_BLOCKS_H

#include <stddef.h>
#include <stdint.h>

enum block_kind {
    BLOCK_HEAP,    /* malloc and its kin */
    BLOCK_ARENA,   /* mallocx into the manual arena `index` */
    BLOCK_TCACHE,  /* mallocx through the explicit tcache `index` */
    BLOCK_RUNTIME, /* allocated by the C library on behalf of a thread */
};

struct block {
    void *address;
    uint64_t size : 40;
    uint64_t kind : 8;
    uint64_t index : 16;
};

enum { BLOCKS_PER_CHUNK = 1 << 12, BLOCKS_CHUNKS = 1 << 14 };

/* The record of one thread. Not locked: one thread at a time may touch it. */
struct blocks {
    size_t count;
    struct block *chunks[BLOCKS_CHUNKS];
};

void blocks_add(struct blocks *blocks, struct block block);
struct block *blocks_at(struct blocks *blocks, size_t position);
/* Removes the block at the position; the last one takes its place. */
struct block blocks_take(struct blocks *blocks, size_t position);

/* Zeroed pages straight from the kernel. Ends the program if there are none. */
void *pages_map(size_t size);

#endif
