#include "spawner.h"

#include "heap.h"
#include "thread.h"

#include <errno.h>
#include <stdatomic.h>

enum { ALIVE_AT_ONCE = 4, BLOCKS_EACH = 64 };

static struct thread spawner;
static atomic_bool wanted;
static bool running;
static unsigned long spawned;

static void *live_shortly(void *unused)
{
    void *held[BLOCKS_EACH];
    (void)unused;
    for (size_t index = 0; index < BLOCKS_EACH; index++) {
        size_t size = 16 + index * 24;
        held[index] = heap_allocate(HEAP_MALLOC, &size);
    }
    for (size_t index = 0; index < BLOCKS_EACH; index++)
        heap_release(held[index]);
    return NULL;
}

static void *spawn(void *unused)
{
    struct thread threads[ALIVE_AT_ONCE];
    (void)unused;
    do {
        unsigned alive = 0;
        while (alive < ALIVE_AT_ONCE && thread_begin(&threads[alive], live_shortly, NULL))
            alive++;
        spawned += alive;
        while (alive > 0)
            thread_join(&threads[--alive]);
    } while (atomic_load(&wanted));
    return NULL;
}

bool spawner_begin(void)
{
    if (running) {
        errno = EALREADY;
        return false;
    }
    atomic_store(&wanted, true);
    spawned = 0;
    running = thread_begin(&spawner, spawn, NULL);
    return running;
}

unsigned long spawner_end(void)
{
    atomic_store(&wanted, false);
    if (running)
        thread_join(&spawner);
    running = false;
    return spawned;
}

bool spawner_running(void)
{
    return running;
}
