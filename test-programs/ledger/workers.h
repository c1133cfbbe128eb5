/* The threads of the ledger. Thread 0 is the main one; the others are parked in a condition wait unless they have an
 * errand or churn is on. Each has its own record of blocks. */
#ifndef LEDGER_WORKERS_H
#define LEDGER_WORKERS_H

#include "blocks.h"
#include "thread.h"

#include <stdbool.h>
#include <stdint.h>

enum { WORKERS_MAX = 1024, WORKER_CHURN_SLOTS = 1024 };

struct worker {
    unsigned number;
    uint64_t random;
    struct blocks *blocks;
    struct thread thread;
    pthread_cond_t wake;
    bool parked;
    bool leaving;
    void (*errand)(struct worker *worker, void *argument);
    void *argument;
    /* Working set of the churn; empty while churn is off. */
    struct block *churned;
    uint64_t churn_operations;
};

/* Makes thread 0 out of the calling thread. */
void workers_begin(uint64_t seed);
/* Starts `count` threads and waits until all are parked. False if there is no room for so many. */
bool workers_add(unsigned count);
/* Lets the last `count` threads exit; thread 0 inherits their blocks. False if there are not so many. */
bool workers_retire(unsigned count);
/* Thread 0 included; retired ones not. */
unsigned workers_count(void);
struct worker *worker_at(unsigned number);

/* Has one thread run the errand and waits for it. Thread 0 runs it on the spot. */
void worker_run(unsigned number, void (*errand)(struct worker *, void *), void *argument);
/* Has all threads but thread 0 run the errand at the same time and waits for all. */
void workers_run(void (*errand)(struct worker *, void *), void *argument);

/* Churn: all threads but thread 0 run `step` over and over between errands. */
void workers_churn(void (*step)(struct worker *));
/* Ends the churn and returns when all threads are parked again. */
void workers_settle(void);
bool workers_churning(void);

/* In the child of a fork: the other threads are gone, their records stay. */
void workers_forget_threads(void);
/* All records, those of threads lost in a fork included. */
struct blocks *workers_blocks(unsigned number);
unsigned workers_records(void);

/* xorshift64*: the next number of a sequence that depends on its seed alone. */
uint64_t random_next(uint64_t *state);

#endif
