#include "workers.h"

#include <stdatomic.h>

static struct worker workers[WORKERS_MAX];
static unsigned workers_live = 1;
static unsigned records = 1;
static uint64_t first_seed;

/* Guards everything in `workers` that two threads touch. */
static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t settled = PTHREAD_COND_INITIALIZER;
static void (*_Atomic churn_step)(struct worker *);

uint64_t random_next(uint64_t *state)
{
    uint64_t bits = *state;
    bits ^= bits >> 12;
    bits ^= bits << 25;
    bits ^= bits >> 27;
    *state = bits;
    return bits * UINT64_C(2685821657736338717);
}

static void worker_prepare(unsigned number)
{
    struct worker *worker = &workers[number];
    struct blocks *kept = worker->blocks;
    struct block *churned = worker->churned;
    *worker = (struct worker){.number = number, .blocks = kept, .churned = churned};
    worker->random = (first_seed + number + 1) * UINT64_C(0x9e3779b97f4a7c15) | 1;
    if (kept == NULL) {
        worker->blocks = pages_map(sizeof(struct blocks));
        worker->churned = pages_map(WORKER_CHURN_SLOTS * sizeof(struct block));
    }
    pthread_cond_init(&worker->wake, NULL);
}

void workers_begin(uint64_t seed)
{
    first_seed = seed;
    worker_prepare(0);
}

unsigned workers_count(void)
{
    return workers_live;
}

unsigned workers_records(void)
{
    return records;
}

struct worker *worker_at(unsigned number)
{
    return &workers[number];
}

struct blocks *workers_blocks(unsigned number)
{
    return workers[number].blocks;
}

static void record_runtime_block(struct worker *worker)
{
    void *address;
    size_t size;
    if (thread_runtime_block(&address, &size))
        blocks_add(worker->blocks, (struct block){.address = address, .size = size, .kind = BLOCK_RUNTIME});
}

static void forget_runtime_block(struct blocks *blocks)
{
    for (size_t position = blocks->count; position-- > 0;)
        if (blocks_at(blocks, position)->kind == BLOCK_RUNTIME)
            blocks_take(blocks, position);
}

/* Waits at the gate, which the caller holds, until there is something to do. */
static void worker_park(struct worker *worker)
{
    while (worker->errand == NULL && !worker->leaving && atomic_load(&churn_step) == NULL) {
        worker->parked = true;
        pthread_cond_broadcast(&settled);
        pthread_cond_wait(&worker->wake, &gate);
    }
    worker->parked = false;
}

static void *worker_live(void *argument)
{
    struct worker *worker = argument;
    record_runtime_block(worker);
    pthread_mutex_lock(&gate);
    for (;;) {
        worker_park(worker);
        void (*errand)(struct worker *, void *) = worker->errand;
        void (*step)(struct worker *) = atomic_load(&churn_step);
        if (errand == NULL && worker->leaving)
            break;
        pthread_mutex_unlock(&gate);
        if (errand != NULL)
            errand(worker, worker->argument);
        else if (step != NULL)
            step(worker);
        pthread_mutex_lock(&gate);
        if (errand != NULL) {
            worker->errand = NULL;
            pthread_cond_broadcast(&settled);
        }
    }
    pthread_mutex_unlock(&gate);
    return NULL;
}

static bool worker_start(unsigned number)
{
    worker_prepare(number);
    return thread_begin(&workers[number].thread, worker_live, &workers[number]);
}

static void wait_until_parked(unsigned number)
{
    pthread_mutex_lock(&gate);
    while (!workers[number].parked)
        pthread_cond_wait(&settled, &gate);
    pthread_mutex_unlock(&gate);
}

bool workers_add(unsigned count)
{
    for (; count > 0; count--) {
        if (workers_live == WORKERS_MAX || !worker_start(workers_live))
            return false;
        if (!workers_churning())
            wait_until_parked(workers_live);
        workers_live++;
        if (records < workers_live)
            records = workers_live;
    }
    return true;
}

bool workers_retire(unsigned count)
{
    if (count >= workers_live)
        return false;
    for (; count > 0; count--) {
        struct worker *worker = &workers[--workers_live];
        pthread_mutex_lock(&gate);
        worker->leaving = true;
        pthread_cond_signal(&worker->wake);
        pthread_mutex_unlock(&gate);
        thread_join(&worker->thread);
        forget_runtime_block(worker->blocks);
        while (worker->blocks->count > 0)
            blocks_add(workers[0].blocks, blocks_take(worker->blocks, worker->blocks->count - 1));
    }
    return true;
}

static void errand_give(struct worker *worker, void (*errand)(struct worker *, void *), void *argument)
{
    pthread_mutex_lock(&gate);
    worker->argument = argument;
    worker->errand = errand;
    pthread_cond_signal(&worker->wake);
    pthread_mutex_unlock(&gate);
}

/* The errand is done and, unless there is churn, the thread is parked again: only then is the heap at rest. */
static void errand_await(struct worker *worker)
{
    pthread_mutex_lock(&gate);
    while (worker->errand != NULL || (!worker->parked && !workers_churning()))
        pthread_cond_wait(&settled, &gate);
    pthread_mutex_unlock(&gate);
}

void worker_run(unsigned number, void (*errand)(struct worker *, void *), void *argument)
{
    if (number == 0) {
        errand(&workers[0], argument);
        return;
    }
    errand_give(&workers[number], errand, argument);
    errand_await(&workers[number]);
}

void workers_run(void (*errand)(struct worker *, void *), void *argument)
{
    for (unsigned number = 1; number < workers_live; number++)
        errand_give(&workers[number], errand, argument);
    for (unsigned number = 1; number < workers_live; number++)
        errand_await(&workers[number]);
}

bool workers_churning(void)
{
    return atomic_load(&churn_step) != NULL;
}

void workers_churn(void (*step)(struct worker *))
{
    pthread_mutex_lock(&gate);
    atomic_store(&churn_step, step);
    for (unsigned number = 1; number < workers_live; number++)
        pthread_cond_signal(&workers[number].wake);
    pthread_mutex_unlock(&gate);
}

void workers_settle(void)
{
    pthread_mutex_lock(&gate);
    atomic_store(&churn_step, NULL);
    pthread_mutex_unlock(&gate);
    for (unsigned number = 1; number < workers_live; number++)
        wait_until_parked(number);
}

void workers_forget_threads(void)
{
    workers_live = 1;
    atomic_store(&churn_step, NULL);
}
