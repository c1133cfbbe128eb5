/* The table: every live block that the program knows of, as a text file.
 *
 *     table 1
 *     0x7f0c1a200000 100 112 heap 3
 *     0x7f0c1a2000c0 100 112 arena:9 0
 *     end BLOCKS REQUESTED USABLE
 *
 * Columns: address, requested size, usable size (0 where the allocator does not tell), kind (heap, arena:INDEX,
 * tcache:INDEX, runtime), thread in whose record the block is.
 */
#ifndef LEDGER_TABLE_H
#define LEDGER_TABLE_H

#include <stdbool.h>
#include <stddef.h>

struct table_totals {
    size_t blocks;
    size_t requested_bytes;
    size_t usable_bytes;
    /* Blocks of the C library among them. */
    size_t runtime_blocks;
};

/* False, with errno set, if the file cannot be written. */
bool table_write(const char *path, struct table_totals *totals);

#endif
