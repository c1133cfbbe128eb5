#include "heartbeat.h"

#include "thread.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { PERIOD_NS = 100000 };

static struct heartbeat idle;
static struct heartbeat *heartbeat = &idle;
static struct block runtime_block = {.kind = BLOCK_RUNTIME};

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static void *beat(void *unused)
{
    const struct timespec period = {0, PERIOD_NS};
    uint64_t last = now_ns();
    (void)unused;
    void *address;
    size_t size;
    if (thread_runtime_block(&address, &size)) {
        runtime_block.address = address;
        runtime_block.size = size;
    }
    for (;;) {
        clock_nanosleep(CLOCK_MONOTONIC, 0, &period, NULL);
        uint64_t now = now_ns();
        uint64_t longest = atomic_load(&heartbeat->gap_ns_max);
        while (longest < now - last &&
               !atomic_compare_exchange_weak(&heartbeat->gap_ns_max, &longest, now - last)) {
        }
        last = now;
        atomic_store(&heartbeat->stamp_ns, now);
        atomic_fetch_add(&heartbeat->beats, 1);
    }
    return NULL;
}

static bool map(const char *path)
{
    int file = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (file < 0)
        return false;
    void *shared = MAP_FAILED;
    if (ftruncate(file, sizeof(struct heartbeat)) == 0)
        shared = mmap(NULL, sizeof(struct heartbeat), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (shared != MAP_FAILED)
        heartbeat = shared;
    return shared != MAP_FAILED;
}

bool heartbeat_begin(struct blocks *blocks, const char *path, bool fifo)
{
    static struct thread thread;
    const struct sched_param priority = {.sched_priority = 1};
    if (heartbeat != &idle) {
        errno = EALREADY;
        return false;
    }
    if (!map(path))
        return false;
    if (!thread_begin(&thread, beat, NULL))
        return false;
    while (atomic_load(&heartbeat->beats) == 0)
        sched_yield();
    if (runtime_block.address != NULL)
        blocks_add(blocks, runtime_block);
    errno = fifo ? pthread_setschedparam(thread.handle, SCHED_FIFO, &priority) : 0;
    return errno == 0;
}

uint64_t heartbeat_take(uint64_t *beats)
{
    *beats = atomic_load(&heartbeat->beats);
    return atomic_exchange(&heartbeat->gap_ns_max, 0);
}
