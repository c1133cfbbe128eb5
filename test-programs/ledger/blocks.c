#include "blocks.h"

#include <sys/mman.h>
#include <unistd.h>

static void give_up(void)
{
    static const char complaint[] = "ledger: no room for the record of blocks\n";
    ssize_t ignored = write(STDERR_FILENO, complaint, sizeof complaint - 1);
    (void)ignored;
    _exit(70);
}

void *pages_map(size_t size)
{
    void *pages = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED)
        give_up();
    return pages;
}

struct block *blocks_at(struct blocks *blocks, size_t position)
{
    return &blocks->chunks[position / BLOCKS_PER_CHUNK][position % BLOCKS_PER_CHUNK];
}

void blocks_add(struct blocks *blocks, struct block block)
{
    if (blocks->count == (size_t)BLOCKS_PER_CHUNK * BLOCKS_CHUNKS)
        give_up();
    struct block **chunk = &blocks->chunks[blocks->count / BLOCKS_PER_CHUNK];
    if (*chunk == NULL)
        *chunk = pages_map(BLOCKS_PER_CHUNK * sizeof(struct block));
    *blocks_at(blocks, blocks->count) = block;
    blocks->count++;
}

struct block blocks_take(struct blocks *blocks, size_t position)
{
    struct block taken = *blocks_at(blocks, position);
    blocks->count--;
    *blocks_at(blocks, position) = *blocks_at(blocks, blocks->count);
    return taken;
}
