/* Memory in which few pages or none have ever been touched: what a reader from outside must leave as it is. */
#ifndef LEDGER_AREAS_H
#define LEDGER_AREAS_H

#include "blocks.h"

#include <stdbool.h>
#include <stddef.h>

/* Maps some areas beside the heap, AREA_BYTES each. In half of them every sixteenth page has been written. From then on
 * the kernel makes no huge pages of this process's pages. False, with errno set, if there is no room. */
bool areas_map(void);

enum { AREA_BYTES = 16 << 20 };

/* Allocates a block and makes the pages that lie in it whole unreadable. It must never be freed. */
bool areas_protect(struct blocks *blocks, size_t size);

#endif
