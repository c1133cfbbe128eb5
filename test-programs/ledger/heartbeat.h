/* A thread that stamps the time every 100 us, and so feels every stop of the process. */
#ifndef LEDGER_HEARTBEAT_H
#define LEDGER_HEARTBEAT_H

#include "blocks.h"

#include <stdbool.h>
#include <stdint.h>

/* What the mapped file holds, in the machine's byte order. Times are of CLOCK_MONOTONIC. */
struct heartbeat {
    _Atomic uint64_t beats;
    _Atomic uint64_t stamp_ns;
    /* Longest time between two stamps since the last heartbeat_take. */
    _Atomic uint64_t gap_ns_max;
};

/* Starts the thread and maps the file, which an outsider may map too. With `fifo` the thread runs at SCHED_FIFO, so
 * that its gaps are stops and not the scheduler's; this needs the right to do so. What the C library allocates for the
 * thread is recorded. False, with errno set, on failure. */
bool heartbeat_begin(struct blocks *blocks, const char *path, bool fifo);
/* Longest gap in ns since the last call, and the number of beats so far; the gap starts anew. */
uint64_t heartbeat_take(uint64_t *beats);

#endif
