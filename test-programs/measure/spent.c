/* Runs a command and writes what it cost to a file: `wall_us cpu_us peak_kib`. It is a program of its own because a
 * child's peak memory begins with that of whoever made it, and this one has next to none.
 *
 *     spent FILE COMMAND [ARGUMENT...] */
#define _GNU_SOURCE
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long long us(struct timeval time)
{
    return time.tv_sec * 1000000LL + time.tv_usec;
}

int main(int argc, char **argv)
{
    struct timespec began, ended;
    struct rusage usage;
    int status;
    if (argc < 3)
        return 125;
    clock_gettime(CLOCK_MONOTONIC, &began);
    pid_t child = fork();
    if (child == 0) {
        execvp(argv[2], argv + 2);
        _exit(127);
    }
    if (child < 0 || wait4(child, &status, 0, &usage) != child)
        return 125;
    clock_gettime(CLOCK_MONOTONIC, &ended);
    FILE *file = fopen(argv[1], "w");
    if (file == NULL)
        return 125;
    fprintf(file, "%lld %lld %ld\n",
            (ended.tv_sec - began.tv_sec) * 1000000LL + (ended.tv_nsec - began.tv_nsec) / 1000,
            us(usage.ru_utime) + us(usage.ru_stime), usage.ru_maxrss);
    fclose(file);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 126;
}
