#include "traffic.h"

#include "heap.h"

#include <stdatomic.h>
#include <string.h>

static const size_t sizes[] = {
    1,     7,     8,     9,     15,    16,    17,    24,    32,     33,     48,     64,      65,      80,      96,
    100,   112,   128,   160,   200,   256,   320,   500,   512,    640,    1000,   1024,    1500,    2048,    3000,
    4096,  4097,  5000,  7000,  8192,  10000, 14336, 14337, 16384,  20000,  32768,  40000,   65536,   100000,  262144,
    1 << 20, 2097153, 5 << 20,
};

enum { SIZES = sizeof sizes / sizeof sizes[0], CHURN_STEPS = 256, EXCHANGE_SLOTS = 64 };

/* Blocks that a thread in the churn left for any other to free. */
static void *_Atomic exchange[EXCHANGE_SLOTS];

static size_t blocks_of(size_t size)
{
    size_t count = ((size_t)1 << 20) / size;
    return count > 250 ? 250 : count < 3 ? 3 : count;
}

static void record_new(struct worker *worker, enum heap_way way, size_t size)
{
    void *address = heap_allocate(way, &size);
    blocks_add(worker->blocks, (struct block){.address = address, .size = size, .kind = BLOCK_HEAP});
}

static void fill(struct worker *worker, void *unused)
{
    (void)unused;
    for (size_t index = 0; index < SIZES; index++)
        for (size_t made = 0; made < blocks_of(sizes[index]); made++)
            record_new(worker, (enum heap_way)(made % HEAP_WAYS), sizes[index]);
}

/* Frees about a sixth of the record, chosen by the random numbers of the thread that frees. */
static void thin(struct worker *worker, struct blocks *blocks)
{
    for (size_t position = blocks->count; position-- > 0;) {
        bool chosen = random_next(&worker->random) >> 32 < UINT32_MAX / 6;
        if (chosen && blocks_at(blocks, position)->kind == BLOCK_HEAP)
            heap_release(blocks_take(blocks, position).address);
    }
}

static void thin_own(struct worker *worker, void *unused)
{
    (void)unused;
    thin(worker, worker->blocks);
}

static void thin_neighbour(struct worker *worker, void *unused)
{
    (void)unused;
    unsigned next = worker->number + 1;
    thin(worker, workers_blocks(next < workers_count() ? next : 1));
}

void traffic_fill(void)
{
    workers_run(fill, NULL);
    workers_run(thin_own, NULL);
    workers_run(thin_neighbour, NULL);
}

void traffic_grow(struct worker *worker, void *argument)
{
    struct order *order = argument;
    for (order->done = 0; order->done < order->count; order->done++)
        record_new(worker, HEAP_MALLOC, order->size);
}

void traffic_shrink(struct worker *worker, void *argument)
{
    struct order *order = argument;
    order->done = 0;
    for (size_t position = worker->blocks->count; position-- > 0 && order->done < order->count;) {
        struct block *block = blocks_at(worker->blocks, position);
        if (block->kind != BLOCK_HEAP || block->size != order->size)
            continue;
        heap_release(blocks_take(worker->blocks, position).address);
        order->done++;
    }
}

void traffic_overflow(struct worker *worker, void *argument)
{
    struct order *order = argument;
    const uint64_t garbage = 0x4242424242424242;
    order->done = 0;
    for (size_t position = worker->blocks->count; position-- > 0 && order->done < order->count;) {
        struct block *block = blocks_at(worker->blocks, position);
        if (block->kind != BLOCK_HEAP || block->size != order->size)
            continue;
        size_t usable = heap_usable_size(block->address);
        memcpy((char *)block->address + usable, &garbage, sizeof garbage);
        order->done++;
        order->last = block->address;
    }
}

void traffic_flush(struct worker *worker, void *unused)
{
    (void)worker;
    (void)unused;
    heap_control("thread.tcache.flush", NULL, NULL, NULL, 0);
}

/* Mostly small blocks, as servers have; one in 64 is large. */
static size_t churn_size(uint64_t random)
{
    size_t limit = random % 64 == 0 ? 100000 : 1200;
    return 1 + (size_t)(random >> 8) % limit;
}

void traffic_churn(struct worker *worker)
{
    for (int step = 0; step < CHURN_STEPS; step++) {
        uint64_t random = random_next(&worker->random);
        struct block *slot = &worker->churned[random % WORKER_CHURN_SLOTS];
        void *leaving = slot->address;
        random = random_next(&worker->random);
        if (leaving != NULL && random % 8 == 0)
            leaving = atomic_exchange(&exchange[random / 8 % EXCHANGE_SLOTS], leaving);
        heap_release(leaving);
        size_t size = churn_size(random_next(&worker->random));
        *slot = (struct block){.address = heap_allocate(HEAP_MALLOC, &size), .size = size};
        worker->churn_operations++;
    }
}

static void drain_own(struct worker *worker, void *unused)
{
    (void)unused;
    for (size_t index = 0; index < WORKER_CHURN_SLOTS; index++) {
        heap_release(worker->churned[index].address);
        worker->churned[index] = (struct block){.address = NULL};
    }
}

unsigned long traffic_drain(void)
{
    unsigned long operations = 0;
    workers_run(drain_own, NULL);
    for (size_t index = 0; index < EXCHANGE_SLOTS; index++)
        heap_release(atomic_exchange(&exchange[index], NULL));
    for (unsigned number = 1; number < workers_count(); number++) {
        operations += worker_at(number)->churn_operations;
        worker_at(number)->churn_operations = 0;
    }
    return operations;
}
