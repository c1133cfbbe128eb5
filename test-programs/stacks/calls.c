/* Stacks of C: recursion, a callback from the C library, a signal handler, variable arrays. */
#define _GNU_SOURCE
#include "rest.h"
#include <signal.h>

static volatile int sink;

static __attribute__((noinline)) int recurse(int depth) {
    volatile char room[24];
    room[0] = (char)depth;
    int below = depth ? recurse(depth - 1) : rest();
    return below + room[0];
}

static int compare(const void *left, const void *right) {
    sink += rest();
    return *(const int *)left - *(const int *)right;
}

static __attribute__((noinline)) int sort(int count) {
    int numbers[4] = {count, 2, 1, 0};
    qsort(numbers, 4, sizeof *numbers, compare);
    return numbers[0];
}

static __attribute__((noinline)) int variable(int count) {
    volatile char room[count];
    memset((void *)room, 1, (size_t)count);
    return recurse(3) + room[count - 1];
}

static void on_signal(int number) { sink += number + recurse(2); }

static __attribute__((noinline)) int interrupted(int number) {
    raise(number);
    return sink + 1;
}

static void *thread(void *which) {
    switch ((int)(long)which) {
    case 0: sink += recurse(50); break;
    case 1: sink += sort(3); break;
    case 2: sink += variable(1000); break;
    default: sink += interrupted(SIGUSR1); break;
    }
    return 0;
}

int main(void) {
    enum { THREADS = 4 };
    if (pipe(rest_pipe)) return 1;
    signal(SIGUSR1, on_signal);
    pthread_t ids[THREADS];
    for (long i = 0; i < THREADS; i++)
        if (pthread_create(&ids[i], 0, thread, (void *)i)) return 1;
    await_rest(THREADS);
    announce();
    return recurse(5);
}
