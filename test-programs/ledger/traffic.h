/* What the threads do to the heap: the deterministic filling at the start, growth and shrinkage on demand, churn. */
#ifndef LEDGER_TRAFFIC_H
#define LEDGER_TRAFFIC_H

#include "workers.h"

#include <stddef.h>

/* Fills the heap from all threads: some forty-five sizes from 1 B to 5 MB, of which each thread then frees about a
 * third at random, half of that third from the record of its neighbour. */
void traffic_fill(void);

/* An order to one thread: so many blocks of this size. `done` says how many it came to, `last` where the last is. */
struct order {
    size_t count;
    size_t size;
    size_t done;
    void *last;
};

/* Errands: keep `count` more blocks of `size`; free up to `count` blocks of `size` that the thread has recorded. */
void traffic_grow(struct worker *worker, void *order);
void traffic_shrink(struct worker *worker, void *order);
/* Errand: write one word past the end of up to `count` blocks of `size`, the newest first, as a faulty program may. */
void traffic_overflow(struct worker *worker, void *order);
/* Errand: give the blocks that this thread's cache holds back to the arenas. */
void traffic_flush(struct worker *worker, void *unused);

/* One round of churn: a few hundred blocks allocated and freed, some of them from other threads. */
void traffic_churn(struct worker *worker);
/* Frees everything that the churn still holds and returns the number of its operations since the last time. */
unsigned long traffic_drain(void);

#endif
