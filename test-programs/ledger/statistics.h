/* The allocator's own statistics, as a text file of `KEY VALUE` lines. The keys are the names that mallctl gives them,
 * as in `stats.arenas.0.bins.3.curregs 12`; names that this version or build lacks are left out. Without
 * mallctl they are the properties of MallocExtension, without that the fields of mallinfo2. The last line is
 * `end LINES`. */
#ifndef LEDGER_STATISTICS_H
#define LEDGER_STATISTICS_H

#include <stdbool.h>
#include <stddef.h>

/* Refreshes the epoch and writes the file. Allocates nothing. False, with errno set, if the file cannot be written;
 * *lines is 0 if the allocator tells nothing. */
bool statistics_write(const char *path, size_t *lines);

#endif
