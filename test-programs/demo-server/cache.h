/* Rendered pages, a bounded number of them: a new page takes the place of an old one. */
#ifndef DEMO_CACHE_H
#define DEMO_CACHE_H

#include <stdint.h>

/* Fills all places. */
void cache_open(void);
/* Looks the page up and renders it if it is not there. */
void cache_page(uint64_t page);

#endif
