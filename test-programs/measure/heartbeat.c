/* A library that gives the program it is preloaded into a thread that stamps the time every 100 us, at real-time
 * priority where it may: it feels every stop of the process. It stamps into the file named by HEARTBEAT_FILE, in the form
 * of ledger/heartbeat.h. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { PERIOD_NS = 100000 };

struct heartbeat {
    _Atomic uint64_t beats;
    _Atomic uint64_t stamp_ns;
    _Atomic uint64_t gap_ns_max;
};

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static void *beat(void *shared)
{
    const struct timespec period = {0, PERIOD_NS};
    struct heartbeat *heartbeat = shared;
    uint64_t last = now_ns();
    for (;;) {
        clock_nanosleep(CLOCK_MONOTONIC, 0, &period, NULL);
        uint64_t now = now_ns();
        /* Whoever starts the measurement anew writes 0 there; a gap that is lost to that was before it. */
        if (atomic_load(&heartbeat->gap_ns_max) < now - last)
            atomic_store(&heartbeat->gap_ns_max, now - last);
        last = now;
        atomic_store(&heartbeat->stamp_ns, now);
        atomic_fetch_add(&heartbeat->beats, 1);
    }
    return NULL;
}

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("HEARTBEAT_FILE");
    const struct sched_param priority = {.sched_priority = 1};
    pthread_t thread;
    int file = path == NULL ? -1 : open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (file < 0 || ftruncate(file, sizeof(struct heartbeat)) != 0)
        return;
    void *shared = mmap(NULL, sizeof(struct heartbeat), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (shared == MAP_FAILED || pthread_create(&thread, NULL, beat, shared) != 0)
        return;
    pthread_setschedparam(thread, SCHED_FIFO, &priority);
}
