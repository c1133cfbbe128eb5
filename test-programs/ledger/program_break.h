/* What others may do to the end of the heap that brk grows, against the C library's malloc. */
#ifndef LEDGER_PROGRAM_BREAK_H
#define LEDGER_PROGRAM_BREAK_H

#include <stdbool.h>
#include <stddef.h>

/* Takes so many bytes off the break for itself, as a program with an allocator of its own may. */
bool break_take(size_t bytes);

/* Maps an inaccessible page where the break would grow next: from then on malloc must go elsewhere. */
bool break_block(void);

#endif
