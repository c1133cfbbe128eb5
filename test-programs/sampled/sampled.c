/* See README.md. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

__attribute__((weak)) int mallctl(const char *name, void *old, size_t *old_length, void *new_value, size_t length);

#define THREADS_MAX 16
#define DEPTH 24

struct worker {
    pthread_t thread;
    uint64_t bits;
    void **kept;
    size_t count;
};

static struct worker workers[THREADS_MAX];
static unsigned thread_count = 3;
static size_t block_count = 20000;
static pthread_barrier_t rest;

static uint64_t next(struct worker *worker)
{
    worker->bits ^= worker->bits >> 12;
    worker->bits ^= worker->bits << 25;
    worker->bits ^= worker->bits >> 27;
    return worker->bits * UINT64_C(2685821657736338717);
}

/* Mostly small, now and then up to 300 KiB. */
static size_t a_size(struct worker *worker)
{
    uint64_t draw = next(worker) >> 20;
    return draw % 200 == 0 ? 20000 + draw % 280000 : draw % 16 == 0 ? 1000 + draw % 14000 : 1 + draw % 900;
}

__attribute__((noinline)) static void *at_the_bottom(struct worker *worker)
{
    void *block = malloc(a_size(worker));
    asm volatile("" ::: "memory");
    return block;
}

/* Each depth is another stack, and each of two ways down at each level. */
__attribute__((noinline)) static void *deeper(struct worker *worker, unsigned depth, unsigned way)
{
    void *block;
    if (depth == 0)
        block = at_the_bottom(worker);
    else if (way & 1)
        block = deeper(worker, depth - 1, way >> 1);
    else
        block = deeper(worker, depth - 1, way >> 2);
    asm volatile("" ::: "memory");
    return block;
}

static void work(struct worker *worker)
{
    size_t end = worker->count + block_count;
    for (; worker->count < end; worker->count++) {
        uint64_t draw = next(worker) >> 30;
        worker->kept[worker->count] = deeper(worker, (unsigned)(draw % DEPTH), (unsigned)(draw >> 8));
        if (draw % 2 == 0) {
            size_t victim = (size_t)(next(worker) >> 20) % (worker->count + 1);
            free(worker->kept[victim]);
            worker->kept[victim] = NULL;
        }
    }
}

/* What this thread frees, the one before it has allocated. */
static void free_others(struct worker *worker)
{
    struct worker *other = &workers[(size_t)(worker - workers + 1) % thread_count];
    for (size_t index = 0; index < other->count; index += 10) {
        free(other->kept[index]);
        other->kept[index] = NULL;
    }
}

static void *run(void *argument)
{
    struct worker *worker = argument;
    for (;;) {
        work(worker);
        pthread_barrier_wait(&rest);
        free_others(worker);
        pthread_barrier_wait(&rest);
        /* At rest until the main thread comes to the barrier again. */
        pthread_barrier_wait(&rest);
    }
    return NULL;
}

static void wait_for_rest(void)
{
    pthread_barrier_wait(&rest);
    pthread_barrier_wait(&rest);
}

static int dump(const char *path)
{
    return mallctl == NULL ? -1 : mallctl("prof.dump", NULL, NULL, (void *)&path, sizeof path);
}

int main(int argc, char **argv)
{
    static char line[4200];
    if (argc > 1)
        thread_count = (unsigned)atoi(argv[1]) % (THREADS_MAX + 1);
    if (argc > 2)
        block_count = (size_t)atol(argv[2]);
    pthread_barrier_init(&rest, NULL, thread_count + 1);
    for (unsigned index = 0; index < thread_count; index++) {
        workers[index].bits = (index + 1) * UINT64_C(0x9e3779b97f4a7c15);
        workers[index].kept = calloc(block_count * 8, sizeof(void *));
        pthread_create(&workers[index].thread, NULL, run, &workers[index]);
    }
    wait_for_rest();
    puts("ready");
    fflush(stdout);
    for (unsigned rounds = 1; fgets(line, sizeof line, stdin) != NULL;) {
        line[strcspn(line, "\n")] = 0;
        if (strncmp(line, "dump ", 5) == 0) {
            int error = dump(line + 5);
            printf(error == 0 ? "ok\n" : "error %d\n", error);
        } else if (strcmp(line, "more") == 0 && rounds++ < 8) {
            pthread_barrier_wait(&rest);
            wait_for_rest();
            puts("ok");
        } else {
            puts("error no such command");
        }
        fflush(stdout);
    }
    return 0;
}
