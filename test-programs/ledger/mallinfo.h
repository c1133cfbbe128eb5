/* What the C library's malloc says of itself, in place of jemalloc's statistics. */
#ifndef LEDGER_MALLINFO_H
#define LEDGER_MALLINFO_H

#include "text.h"

#include <stddef.h>

/* Writes a line `mallinfo2.FIELD VALUE` for each field; returns how many. Allocates nothing. 0 where the C library has
 * neither mallinfo2 nor mallinfo. Asking wakes the C library's malloc up: only for programs that use it. */
size_t mallinfo_write(struct text *text);

#endif
