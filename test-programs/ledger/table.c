#include "table.h"

#include "heap.h"
#include "text.h"
#include "workers.h"

static struct text text;

static void write_kind(const struct block *block)
{
    switch ((enum block_kind)block->kind) {
    case BLOCK_HEAP:
        text_string(&text, " heap ");
        return;
    case BLOCK_RUNTIME:
        text_string(&text, " runtime ");
        return;
    case BLOCK_ARENA:
        text_string(&text, " arena:");
        break;
    case BLOCK_TCACHE:
        text_string(&text, " tcache:");
        break;
    }
    text_unsigned(&text, block->index);
    text_string(&text, " ");
}

static void write_block(const struct block *block, unsigned thread, struct table_totals *totals)
{
    size_t usable = heap_usable_size(block->address);
    text_hex(&text, (uintptr_t)block->address);
    text_string(&text, " ");
    text_unsigned(&text, block->size);
    text_string(&text, " ");
    text_unsigned(&text, usable);
    write_kind(block);
    text_unsigned(&text, thread);
    text_string(&text, "\n");
    totals->blocks++;
    totals->requested_bytes += block->size;
    totals->usable_bytes += usable;
    totals->runtime_blocks += block->kind == BLOCK_RUNTIME;
}

bool table_write(const char *path, struct table_totals *totals)
{
    *totals = (struct table_totals){0};
    if (!text_create(&text, path))
        return false;
    text_string(&text, "table 1\n");
    for (unsigned thread = 0; thread < workers_records(); thread++) {
        struct blocks *blocks = workers_blocks(thread);
        for (size_t position = 0; position < blocks->count; position++)
            write_block(blocks_at(blocks, position), thread, totals);
    }
    text_string(&text, "end ");
    text_unsigned(&text, totals->blocks);
    text_string(&text, " ");
    text_unsigned(&text, totals->requested_bytes);
    text_string(&text, " ");
    text_unsigned(&text, totals->usable_bytes);
    text_string(&text, "\n");
    return text_close(&text);
}
