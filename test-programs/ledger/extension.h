/* What gperftools tcmalloc says of itself, by the names of MallocExtension. */
#ifndef LEDGER_EXTENSION_H
#define LEDGER_EXTENSION_H

#include "text.h"

#include <stddef.h>

/* Writes all properties that there are, one a line; returns how many. Allocates nothing. 0 without tcmalloc. */
size_t extension_write(struct text *text);

#endif
