/* A program that knows the truth about its own heap.
 *
 *     ledger [--threads N] [--seed N] [--empty]
 *
 * N threads (4) fill the heap in a way that depends on the seed (1) alone, unless --empty is given; then the program
 * obeys the commands that come on its standard input (commands.h, README.md). Between commands it is at rest: all
 * threads wait, and nothing that a command answered has changed the heap since. Whatever the program needs for its
 * record, its files and its answers lies outside the heap, so that the record is the whole truth.
 */
#include "commands.h"
#include "heap.h"
#include "text.h"
#include "traffic.h"
#include "workers.h"

#include <string.h>
#include <unistd.h>

struct options {
    uint64_t threads;
    uint64_t seed;
    bool empty;
};

static bool options_parse(int count, char **arguments, struct options *options)
{
    for (int index = 1; index < count; index++) {
        const char *value = index + 1 < count ? arguments[index + 1] : "";
        if (strcmp(arguments[index], "--empty") == 0)
            options->empty = true;
        else if (strcmp(arguments[index], "--threads") == 0 && text_parse_unsigned(value, &options->threads))
            index++;
        else if (strcmp(arguments[index], "--seed") == 0 && text_parse_unsigned(value, &options->seed))
            index++;
        else
            return false;
    }
    return true;
}

/* Lets the main thread's cache and the allocator's control interface come into being now, not in the middle of a
 * question. */
static void warm_up(void)
{
    uint64_t epoch = 1;
    size_t length = sizeof epoch;
    size_t size = 64;
    heap_release(heap_allocate(HEAP_MALLOC, &size));
    heap_control("epoch", &epoch, &length, &epoch, sizeof epoch);
}

int main(int count, char **arguments)
{
    static const char usage[] = "usage: ledger [--threads N] [--seed N] [--empty]\n";
    struct options options = {.threads = 4, .seed = 1};
    if (!options_parse(count, arguments, &options)) {
        ssize_t ignored = write(STDERR_FILENO, usage, sizeof usage - 1);
        (void)ignored;
        return 64;
    }
    warm_up();
    workers_begin(options.seed);
    if (!workers_add((unsigned)options.threads))
        return 71;
    if (!options.empty)
        traffic_fill();
    commands_obey(arguments);
    _exit(0);
}
