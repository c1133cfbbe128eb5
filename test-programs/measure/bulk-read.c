/* Stops all threads of a process, reads ranges of its memory in large pieces, lets go: the least that must be done to
 * have those bytes of one moment. It is what the pause of a snapshot is measured against.
 *
 *     bulk-read PID < RANGES        a range is a line of two hexadecimal numbers: first address, bytes
 *
 * prints `stop_us pause_us bytes`: from the first thread asked to stop until all stood still, and until the last was let
 * go, by the monotonic clock. */
#include <dirent.h>
#include <inttypes.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>

enum { THREADS_MAX = 4096, RANGES_MAX = 1 << 16, RANGES_PER_CALL = 1024, BYTES_PER_CALL = 8 << 20 };

static pid_t threads[THREADS_MAX];
static struct iovec ranges[RANGES_MAX];

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static size_t list_threads(pid_t pid)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task", pid);
    DIR *folder = opendir(path);
    size_t count = 0;
    if (folder == NULL)
        fail(path);
    for (struct dirent *entry; (entry = readdir(folder)) != NULL && count < THREADS_MAX;)
        if (entry->d_name[0] != '.')
            threads[count++] = atoi(entry->d_name);
    closedir(folder);
    return count;
}

static void stop(size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (ptrace(PTRACE_INTERRUPT, threads[i], NULL, NULL) != 0)
            fail("PTRACE_INTERRUPT");
    for (size_t i = 0; i < count; i++) {
        int status;
        if (waitpid(threads[i], &status, __WALL) != threads[i] || !WIFSTOPPED(status))
            fail("waitpid");
    }
}

/* Ranges are no longer than a call may be, so a call takes as many whole ones as fit. */
static size_t read_all(pid_t pid, size_t count, char *buffer)
{
    size_t done = 0;
    for (size_t first = 0; first < count;) {
        struct iovec local = {.iov_base = buffer + done, .iov_len = 0};
        size_t end = first;
        while (end < count && end - first < RANGES_PER_CALL &&
               local.iov_len + ranges[end].iov_len <= BYTES_PER_CALL)
            local.iov_len += ranges[end++].iov_len;
        if (process_vm_readv(pid, &local, 1, ranges + first, end - first, 0) != (ssize_t)local.iov_len)
            fail("process_vm_readv");
        done += local.iov_len;
        first = end;
    }
    return done;
}

static size_t take_ranges(size_t *bytes)
{
    size_t count = 0, address, length;
    while (scanf("%zx %zx", &address, &length) == 2)
        for (size_t part; length > 0; address += part, length -= part) {
            part = length < BYTES_PER_CALL ? length : BYTES_PER_CALL;
            if (count == RANGES_MAX)
                exit(1);
            ranges[count++] = (struct iovec){.iov_base = (void *)address, .iov_len = part};
            *bytes += part;
        }
    return count;
}

int main(int argc, char **argv)
{
    const struct sched_param priority = {.sched_priority = 1};
    size_t bytes = 0, range_count = take_ranges(&bytes);
    pid_t pid = argc == 2 ? atoi(argv[1]) : 0;
    char *buffer = malloc(bytes + 1);
    if (pid <= 0 || buffer == NULL)
        return 2;
    memset(buffer, 1, bytes + 1);
    sched_setscheduler(0, SCHED_FIFO, &priority);
    size_t thread_count = list_threads(pid);
    for (size_t i = 0; i < thread_count; i++)
        if (ptrace(PTRACE_SEIZE, threads[i], NULL, NULL) != 0)
            fail("PTRACE_SEIZE");
    int64_t began = now_ns();
    stop(thread_count);
    int64_t stopped = now_ns();
    size_t read = read_all(pid, range_count, buffer);
    for (size_t i = 0; i < thread_count; i++)
        ptrace(PTRACE_DETACH, threads[i], NULL, NULL);
    int64_t ended = now_ns();
    printf("%" PRId64 " %" PRId64 " %zu\n", (stopped - began) / 1000, (ended - began) / 1000, read);
    return 0;
}
