/* A small server for the demonstration: it has no clients, it makes up its requests.
 *
 *     demo-server [SECONDS]
 *
 * Four threads answer requests: each visits a session, reads a request into a buffer, looks pages up in a cache and ranks
 * advertisements. Everything is bounded but one list (results.c). The server prints `ready pid=PID` once everything
 * that is bounded has reached its bound, and ends with its input or after so many seconds (600). On the input line
 * `truth` it prints how much it has lost: `truth lost_blocks=N block_bytes=96`.
 */
#include "cache.h"
#include "results.h"
#include "sessions.h"

#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { THREADS = 4, REQUESTS_AT_ONCE = 12, PAUSE_NS = 8000000, SECONDS_DEFAULT = 600 };

static uint64_t random_next(uint64_t *state)
{
    uint64_t bits = *state;
    bits ^= bits >> 12;
    bits ^= bits << 25;
    bits ^= bits >> 27;
    *state = bits;
    return bits * UINT64_C(2685821657736338717) >> 16;
}

static void rank_advertisements(struct top_results *results, uint64_t *random)
{
    uint64_t candidates = RESULTS_KEPT - 1 + random_next(random) % 3;
    for (uint64_t candidate = 0; candidate < candidates; candidate++) {
        uint64_t advertisement = random_next(random) % 100000;
        top_results_offer(results, advertisement, (double)(random_next(random) % 1000));
    }
    top_results_clear(results);
}

static char *read_request(uint64_t *random)
{
    size_t size = 512 + random_next(random) % 7000;
    char *request = malloc(size);
    if (request == NULL)
        abort();
    memset(request, 0, size);
    snprintf(request, size, "GET /page/%llu", (unsigned long long)(random_next(random) % 4000));
    return request;
}

static void handle_request(struct top_results *results, uint64_t *random)
{
    char *request = read_request(random);
    sessions_visit(random_next(random) % 20000);
    cache_page(strtoull(request + strlen("GET /page/"), NULL, 10));
    rank_advertisements(results, random);
    free(request);
}

static void *serve(void *number)
{
    const struct timespec pause = {0, PAUSE_NS};
    uint64_t random = ((uint64_t)(uintptr_t)number + 1) * UINT64_C(0x9e3779b97f4a7c15);
    struct top_results results = {0};
    for (;;) {
        for (int request = 0; request < REQUESTS_AT_ONCE; request++)
            handle_request(&results, &random);
        nanosleep(&pause, NULL);
    }
    return NULL;
}

static void print_truth(void)
{
    printf("truth lost_blocks=%zu block_bytes=%zu\n", results_lost(), sizeof(struct result));
    fflush(stdout);
}

static long now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (long)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Answers questions until the input or the time ends. */
static void answer(long end_ms)
{
    char line[64];
    size_t length = 0;
    for (long left_ms = end_ms - now_ms(); left_ms > 0; left_ms = end_ms - now_ms()) {
        struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
        char byte;
        if (poll(&input, 1, (int)left_ms) <= 0)
            continue;
        if (read(STDIN_FILENO, &byte, 1) != 1)
            return;
        if (byte == '\n') {
            line[length] = '\0';
            length = 0;
            if (strcmp(line, "truth") == 0)
                print_truth();
        } else if (length < sizeof line - 1) {
            line[length++] = byte;
        }
    }
}

int main(int count, char **arguments)
{
    long seconds = count > 1 ? strtol(arguments[1], NULL, 10) : SECONDS_DEFAULT;
    sessions_open();
    cache_open();
    for (uintptr_t number = 0; number < THREADS; number++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, serve, (void *)number) != 0)
            return 1;
    }
    printf("ready pid=%ld\n", (long)getpid());
    fflush(stdout);
    answer(now_ms() + seconds * 1000);
    return 0;
}
