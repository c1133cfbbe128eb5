#include "commands.h"

#include "areas.h"
#include "arenas.h"
#include "family.h"
#include "heap.h"
#include "heartbeat.h"
#include "program_break.h"
#include "signals.h"
#include "spawner.h"
#include "statistics.h"
#include "table.h"
#include "text.h"
#include "traffic.h"
#include "workers.h"

#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LINE_MAX_LENGTH = 4096, WORDS_MAX = 6 };

/* A command line cut into words. Missing words are empty. */
struct line {
    unsigned count;
    const char *words[WORDS_MAX];
};

static struct text answer;
static char *const *process_arguments;
static bool over;

static void say_field(const char *name, uint64_t value)
{
    text_string(&answer, " ");
    text_string(&answer, name);
    text_string(&answer, "=");
    text_unsigned(&answer, value);
}

static void say_error(const char *reason)
{
    text_string(&answer, "error ");
    text_string(&answer, reason);
}

static void say_errno(const char *reason)
{
    int number = errno;
    say_error(reason);
    say_field("errno", (uint64_t)number);
}

/* The number in the word, or `otherwise` if the word is missing; words that are not numbers count as 0. */
static uint64_t number(const struct line *line, unsigned index, uint64_t otherwise)
{
    uint64_t value;
    if (line->count <= index)
        return otherwise;
    return text_parse_unsigned(line->words[index], &value) ? value : 0;
}

static void say_ready(void)
{
    text_string(&answer, "ready");
    say_field("pid", (uint64_t)getpid());
    say_field("threads", workers_count());
    text_string(&answer, "\n");
    text_flush(&answer);
}

static void obey_table(const struct line *line)
{
    struct table_totals totals;
    if (!table_write(line->words[1], &totals)) {
        say_errno("cannot write the table");
        return;
    }
    text_string(&answer, "ok");
    say_field("blocks", totals.blocks);
    say_field("requested", totals.requested_bytes);
    say_field("usable", totals.usable_bytes);
    say_field("runtime", totals.runtime_blocks);
}

static void obey_stats(const struct line *line)
{
    size_t lines;
    if (!statistics_write(line->words[1], &lines)) {
        say_errno("cannot write the statistics");
        return;
    }
    text_string(&answer, "ok");
    say_field("lines", lines);
    say_field("mallctl", heap_has_control());
}

static void order(const struct line *line, void (*errand)(struct worker *, void *))
{
    struct order order = {.count = number(line, 1, 0), .size = number(line, 2, 0)};
    uint64_t thread = number(line, 3, 0);
    if (order.size == 0 || thread >= workers_count()) {
        say_error("no such size or thread");
        return;
    }
    worker_run((unsigned)thread, errand, &order);
    text_string(&answer, "ok");
    say_field("blocks", order.done);
}

static void obey_grow(const struct line *line)
{
    order(line, traffic_grow);
}

static void obey_shrink(const struct line *line)
{
    order(line, traffic_shrink);
}

static void obey_overflow(const struct line *line)
{
    struct order order = {.count = number(line, 1, 0), .size = number(line, 2, 0)};
    uint64_t thread = number(line, 3, 0);
    if (thread >= workers_count()) {
        say_error("no such thread");
        return;
    }
    worker_run((unsigned)thread, traffic_overflow, &order);
    text_string(&answer, "ok");
    say_field("blocks", order.done);
    say_field("last", (uint64_t)(uintptr_t)order.last);
}

static void obey_start(const struct line *line)
{
    (void)line;
    workers_churn(traffic_churn);
    text_string(&answer, "ok");
}

static void obey_stop(const struct line *line)
{
    (void)line;
    workers_settle();
    text_string(&answer, "ok");
    say_field("operations", traffic_drain());
}

static void obey_churn(const struct line *line)
{
    uint64_t span_ms = number(line, 1, 0);
    struct timespec end;
    clock_gettime(CLOCK_MONOTONIC, &end);
    uint64_t end_ns = (uint64_t)end.tv_nsec + span_ms % 1000 * 1000000;
    end.tv_sec += (time_t)(span_ms / 1000 + end_ns / 1000000000);
    end.tv_nsec = (long)(end_ns % 1000000000);
    workers_churn(traffic_churn);
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &end, NULL) == EINTR) {
    }
    obey_stop(line);
}

/* Makes a new thread use the heap: it keeps some blocks and leaves others in its cache. */
static void settle_in(struct worker *worker, void *unused)
{
    struct order keep = {.count = 8, .size = 48};
    struct order more = {.count = 24, .size = 80};
    (void)unused;
    traffic_grow(worker, &keep);
    traffic_grow(worker, &more);
    traffic_shrink(worker, &more);
}

static void obey_threads(const struct line *line)
{
    unsigned first = workers_count();
    bool room = workers_add((unsigned)number(line, 1, 1));
    for (unsigned thread = first; thread < workers_count(); thread++)
        worker_run(thread, settle_in, NULL);
    text_string(&answer, room ? "ok" : "error no room for so many");
    say_field("threads", workers_count());
}

static void obey_retire(const struct line *line)
{
    text_string(&answer, workers_retire((unsigned)number(line, 1, 1)) ? "ok" : "error there are not so many");
    say_field("threads", workers_count());
}

static void obey_flush(const struct line *line)
{
    (void)line;
    worker_run(0, traffic_flush, NULL);
    workers_run(traffic_flush, NULL);
    text_string(&answer, "ok");
}

static void obey_arena(const struct line *line)
{
    unsigned arena;
    if (!arena_create(workers_blocks(0), number(line, 1, 100), number(line, 2, 160), &arena)) {
        say_error("this allocator has no manual arenas");
        return;
    }
    text_string(&answer, "ok");
    say_field("arena", arena);
}

static void obey_destroy(const struct line *line)
{
    bool done = arena_destroy(workers_blocks(0), (unsigned)number(line, 1, 0));
    text_string(&answer, done ? "ok" : "error cannot destroy this arena");
}

static void obey_tcache(const struct line *line)
{
    unsigned tcache;
    if (!tcache_create(workers_blocks(0), number(line, 1, 10), number(line, 2, 208), &tcache)) {
        say_error("this allocator has no explicit thread caches");
        return;
    }
    text_string(&answer, "ok");
    say_field("tcache", tcache);
}

static void obey_purge(const struct line *line)
{
    (void)line;
    text_string(&answer, arenas_purge() ? "ok" : "error this allocator cannot purge");
}

static void obey_break(const struct line *line)
{
    bool done = strcmp(line->words[1], "block") == 0 ? break_block() : break_take(number(line, 1, 0));
    if (done)
        text_string(&answer, "ok");
    else
        say_errno("the break stays");
}

static void obey_areas(const struct line *line)
{
    (void)line;
    if (areas_map())
        text_string(&answer, "ok");
    else
        say_errno("cannot map the areas");
}

static void obey_protect(const struct line *line)
{
    uint64_t size = number(line, 1, 0);
    if (size == 0)
        say_error("no such size");
    else if (areas_protect(workers_blocks(0), size))
        text_string(&answer, "ok");
    else
        say_errno("cannot protect the block");
}

static void obey_spawner(const struct line *line)
{
    if (strcmp(line->words[1], "stop") == 0) {
        text_string(&answer, "ok");
        say_field("threads", spawner_end());
    } else if (spawner_begin()) {
        text_string(&answer, "ok");
    } else {
        say_errno("cannot spawn");
    }
}

static void obey_fork(const struct line *line)
{
    pid_t child = family_fork(line->words[1], line->words[2]);
    if (child == 0) {
        say_ready();
    } else if (child < 0) {
        say_errno("cannot fork");
    } else {
        text_string(&answer, "ok");
        say_field("child", (uint64_t)child);
    }
}

static void obey_exec(const struct line *line)
{
    (void)line;
    family_exec(process_arguments);
    say_errno("cannot exec");
}

static void obey_signals(const struct line *line)
{
    (void)line;
    if (signals_begin())
        text_string(&answer, "ok");
    else
        say_errno("cannot set up the signals");
}

static void obey_check(const struct line *line)
{
    (void)line;
    text_string(&answer, "ok");
    signals_report(&answer);
    say_field("threads", workers_count());
}

static void obey_await(const struct line *line)
{
    if (strcmp(line->words[1], "alarms") == 0)
        signals_await_alarms(number(line, 2, 1));
    else
        signals_await_usr1(number(line, 2, 1));
    obey_check(line);
}

static void obey_heartbeat(const struct line *line)
{
    if (heartbeat_begin(workers_blocks(0), line->words[1], strcmp(line->words[2], "fifo") == 0))
        text_string(&answer, "ok");
    else
        say_errno("cannot start the heartbeat");
}

static void obey_gap(const struct line *line)
{
    uint64_t beats;
    uint64_t gap_ns = heartbeat_take(&beats);
    (void)line;
    text_string(&answer, "ok");
    say_field("gap_us", gap_ns / 1000);
    say_field("beats", beats);
}

static void obey_exit(const struct line *line)
{
    (void)line;
    over = true;
    text_string(&answer, "ok");
}

/* `at_rest`: the command makes sense only while no thread but the main one touches the heap. */
static const struct command {
    const char *word;
    unsigned words_min;
    bool at_rest;
    void (*obey)(const struct line *line);
} commands[] = {
    {"table", 2, true, obey_table},
    {"stats", 2, false, obey_stats},
    {"grow", 3, false, obey_grow},
    {"shrink", 3, false, obey_shrink},
    {"start", 1, true, obey_start},
    {"stop", 1, false, obey_stop},
    {"churn", 2, true, obey_churn},
    {"threads", 2, false, obey_threads},
    {"retire", 2, true, obey_retire},
    {"flush", 1, true, obey_flush},
    {"arena", 1, false, obey_arena},
    {"destroy", 2, false, obey_destroy},
    {"tcache", 1, false, obey_tcache},
    {"purge", 1, false, obey_purge},
    {"overflow", 3, true, obey_overflow},
    {"break", 2, false, obey_break},
    {"areas", 1, false, obey_areas},
    {"protect", 2, false, obey_protect},
    {"spawner", 2, false, obey_spawner},
    {"fork", 3, true, obey_fork},
    {"exec", 1, false, obey_exec},
    {"signals", 1, false, obey_signals},
    {"check", 1, false, obey_check},
    {"await", 3, false, obey_await},
    {"heartbeat", 2, false, obey_heartbeat},
    {"gap", 1, false, obey_gap},
    {"exit", 1, false, obey_exit},
};

static void obey(const struct line *line)
{
    for (size_t index = 0; index < sizeof commands / sizeof commands[0]; index++) {
        const struct command *command = &commands[index];
        if (strcmp(command->word, line->words[0]) != 0)
            continue;
        if (line->count < command->words_min)
            say_error("the command lacks a word");
        else if (command->at_rest && (workers_churning() || spawner_running()))
            say_error("the heap is not at rest: say stop, or spawner stop");
        else
            command->obey(line);
        return;
    }
    say_error("no such command");
}

static struct line cut(char *start)
{
    struct line line = {.count = 0, .words = {"", "", "", "", "", ""}};
    while (line.count < WORDS_MAX) {
        start += strspn(start, " ");
        if (*start == '\0')
            break;
        line.words[line.count++] = start;
        start += strcspn(start, " ");
        if (*start != '\0')
            *start++ = '\0';
    }
    return line;
}

/* Reads up to a newline, one byte at a time: nothing is read ahead that a successor by `exec` should get. */
static bool read_line(char *line)
{
    size_t length = 0;
    for (;;) {
        char byte;
        ssize_t got = read(STDIN_FILENO, &byte, 1);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        if (byte == '\n')
            break;
        if (length < LINE_MAX_LENGTH - 1)
            line[length++] = byte;
    }
    line[length] = '\0';
    return true;
}

void commands_obey(char *const *arguments)
{
    static char bytes[LINE_MAX_LENGTH];
    process_arguments = arguments;
    text_open(&answer, STDOUT_FILENO);
    say_ready();
    while (!over && read_line(bytes)) {
        struct line line = cut(bytes);
        if (line.count == 0)
            continue;
        obey(&line);
        if (answer.used > 0)
            text_string(&answer, "\n");
        text_flush(&answer);
    }
}
