/* The heap under test, under whatever names its functions have.
 *
 * Compiled as it is, the program uses malloc and so on: the C library's, or whatever was preloaded or linked in their
 * place. With -DLEDGER_PREFIX=_rjem_ it uses _rjem_malloc and so on, and leaves malloc to the C library.
 * The functions that only jemalloc has are weak references: a null pointer means that this allocator lacks them.
 */
#ifndef LEDGER_HEAP_H
#define LEDGER_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The ways of obtaining a block; heap_allocate rotates over them when asked to. */
enum heap_way { HEAP_MALLOC, HEAP_CALLOC, HEAP_REALLOC, HEAP_ALIGNED, HEAP_WAYS };

/* Obtains a block and stamps its beginning. HEAP_ALIGNED rounds *size up to its alignment. Ends the program if the
 * heap is exhausted: a ledger that lost a block would no longer be the truth. */
void *heap_allocate(enum heap_way way, size_t *size);
void heap_release(void *address);
/* malloc_usable_size, or 0 if this allocator has none. */
size_t heap_usable_size(void *address);

/* True if there is a mallctl under one of the names mallctl, je_mallctl, _rjem_mallctl. */
bool heap_has_control(void);
/* mallctl; ENOENT if there is none. */
int heap_control(const char *name, void *old_value, size_t *old_length, void *new_value, size_t new_length);

/* mallocx and dallocx with jemalloc's flags; a null pointer if this allocator has none. */
void *heap_allocate_flagged(size_t size, int flags);
void heap_release_flagged(void *address, int flags);

/* Flags of mallocx as jemalloc 4 and 5 define them (include/jemalloc/jemalloc_macros.h.in). */
int heap_flags_arena(unsigned arena);
int heap_flags_tcache(unsigned tcache);
int heap_flags_no_tcache(void);

/* What every block of the program begins with, as far as it fits: user data that no snapshot may contain. */
#define HEAP_STAMP "LEDGER USER DATA"

#endif
