#include "statistics.h"

#include "extension.h"
#include "heap.h"
#include "mallinfo.h"
#include "text.h"

#include <stdint.h>
#include <string.h>

enum { NAME_MAX_LENGTH = 128 };

static struct text text;
static size_t lines_written;

static const char *const strings[] = {
    "version", "config.malloc_conf", "opt.metadata_thp", "opt.dss", "opt.percpu_arena", "opt.thp", "opt.zero_realloc",
};

static const char *const numbers[] = {
    "config.cache_oblivious", "config.debug", "config.fill", "config.prof", "config.stats", "config.opt_safety_checks",
    "opt.narenas", "opt.oversize_threshold", "opt.background_thread", "opt.max_background_threads",
    "opt.dirty_decay_ms", "opt.muzzy_decay_ms", "opt.lg_extent_max_active_fit", "opt.retain", "opt.tcache",
    "opt.tcache_max", "opt.lg_tcache_max", "opt.cache_oblivious", "opt.hpa", "opt.hpa_sec_nshards",
    "opt.disable_large_size_classes", "opt.prof", "opt.prof_active", "opt.lg_prof_sample",
    "arenas.narenas", "arenas.quantum", "arenas.page", "arenas.hugepage", "arenas.tcache_max", "arenas.nbins", "arenas.nhbins",
    "arenas.nlextents", "arenas.nlruns", "arenas.nhchunks",
    "stats.allocated", "stats.active", "stats.metadata", "stats.metadata_edata", "stats.metadata_rtree",
    "stats.metadata_thp", "stats.resident", "stats.mapped", "stats.retained", "stats.zero_reallocs",
    "stats.background_thread.num_threads",
};

static const char *const arena_numbers[] = {
    "nthreads", "pactive", "pdirty", "pmuzzy", "mapped", "retained", "extent_avail", "base", "internal", "rtree", "edata",
    "metadata_edata", "metadata_rtree", "metadata_thp", "tcache_bytes", "tcache_stashed_bytes", "resident", "abandoned_vm",
    "small.allocated", "small.nmalloc", "small.ndalloc", "large.allocated", "large.nmalloc", "large.ndalloc",
    "huge.allocated", "metadata.mapped", "metadata.allocated",
};

/* The parts of an arena that come in classes, each with the name that says how many classes there are. The second
 * entry for a class is its name up to 4.5. */
static const struct classes {
    const char *name;
    const char *count;
    const char *fields[10];
} classes[] = {
    {"bins", "arenas.nbins", {"curregs", "curslabs", "nonfull_slabs", "curruns", "nmalloc", "ndalloc", "nslabs"}},
    {"lextents", "arenas.nlextents", {"curlextents", "nmalloc", "ndalloc"}},
    {"lruns", "arenas.nlruns", {"curruns"}},
    {"hchunks", "arenas.nhchunks", {"curhchunks"}},
    {"extents",
     NULL,
     {"ndirty", "nmuzzy", "nretained", "npinned", "dirty_bytes", "muzzy_bytes", "retained_bytes", "pinned_bytes"}},
};

static const struct classes class_constants[] = {
    {"arenas.bin", "arenas.nbins", {"size", "nregs", "slab_size", "run_size", "nshards"}},
    {"arenas.lextent", "arenas.nlextents", {"size"}},
    {"arenas.lrun", "arenas.nlruns", {"size"}},
    {"arenas.hchunk", "arenas.nhchunks", {"size"}},
};

/* A mallctl name under construction. */
struct name {
    size_t length;
    char text[NAME_MAX_LENGTH];
};

static struct name name_of(const char *start)
{
    struct name name = {.length = strlen(start)};
    memcpy(name.text, start, name.length);
    return name;
}

static struct name name_with(struct name name, const char *part)
{
    size_t length = strlen(part);
    name.text[name.length++] = '.';
    memcpy(name.text + name.length, part, length);
    name.length += length;
    return name;
}

static struct name name_at(struct name name, unsigned index)
{
    char digits[12];
    size_t start = sizeof digits - 1;
    digits[start] = '\0';
    do {
        digits[--start] = (char)('0' + index % 10);
        index /= 10;
    } while (index != 0);
    return name_with(name, digits + start);
}

/* Reads a number of whatever width it has: mallctl refuses every width but the right one. */
static bool read_number(const struct name *name, int64_t *value)
{
    int32_t narrow;
    bool flag;
    size_t length = sizeof *value;
    if (heap_control(name->text, value, &length, NULL, 0) == 0)
        return true;
    length = sizeof narrow;
    if (heap_control(name->text, &narrow, &length, NULL, 0) == 0) {
        *value = narrow;
        return true;
    }
    length = sizeof flag;
    if (heap_control(name->text, &flag, &length, NULL, 0) == 0) {
        *value = flag;
        return true;
    }
    return false;
}

static int64_t number_or(const char *start, int64_t otherwise)
{
    struct name name = name_of(start);
    int64_t value;
    return read_number(&name, &value) ? value : otherwise;
}

static void write_number(struct name name)
{
    int64_t value;
    if (!read_number(&name, &value))
        return;
    text_string(&text, name.text);
    text_string(&text, " ");
    text_signed(&text, value);
    text_string(&text, "\n");
    lines_written++;
}

static void write_string(struct name name)
{
    const char *value;
    size_t length = sizeof value;
    if (heap_control(name.text, &value, &length, NULL, 0) != 0)
        return;
    text_string(&text, name.text);
    text_string(&text, " ");
    text_string(&text, value);
    text_string(&text, "\n");
    lines_written++;
}

/* Extents are counted by page size class up to the first for which there is no answer. */
static int64_t class_count(struct name class, const struct classes *kind)
{
    enum { PAGE_CLASSES_MAX = 256 };
    int64_t ignored;
    int64_t count = 0;
    if (kind->count != NULL)
        return number_or(kind->count, 0);
    while (count < PAGE_CLASSES_MAX) {
        struct name first = name_with(name_at(class, (unsigned)count), kind->fields[0]);
        if (!read_number(&first, &ignored))
            break;
        count++;
    }
    return count;
}

static void write_classes(struct name class, const struct classes *kind)
{
    int64_t count = class_count(class, kind);
    for (unsigned index = 0; index < count; index++)
        for (size_t field = 0; kind->fields[field] != NULL; field++)
            write_number(name_with(name_at(class, index), kind->fields[field]));
}

static bool arena_initialized(unsigned arena)
{
    struct name name = name_with(name_at(name_of("arena"), arena), "initialized");
    int64_t initialized;
    /* Up to 4.5 there is no such name, and asking an arena for its threads is the way to know. */
    if (!read_number(&name, &initialized)) {
        name = name_with(name_at(name_of("stats.arenas"), arena), "nthreads");
        return read_number(&name, &initialized);
    }
    return initialized != 0;
}

static void write_arena(unsigned arena)
{
    struct name name = name_at(name_of("stats.arenas"), arena);
    write_number(name_with(name_at(name_of("arena"), arena), "initialized"));
    for (size_t index = 0; index < sizeof arena_numbers / sizeof arena_numbers[0]; index++)
        write_number(name_with(name, arena_numbers[index]));
    for (size_t index = 0; index < sizeof classes / sizeof classes[0]; index++)
        write_classes(name_with(name, classes[index].name), &classes[index]);
}

static void write_everything(void)
{
    for (size_t index = 0; index < sizeof strings / sizeof strings[0]; index++)
        write_string(name_of(strings[index]));
    for (size_t index = 0; index < sizeof numbers / sizeof numbers[0]; index++)
        write_number(name_of(numbers[index]));
    for (size_t index = 0; index < sizeof class_constants / sizeof class_constants[0]; index++)
        write_classes(name_of(class_constants[index].name), &class_constants[index]);
    int64_t arenas = number_or("arenas.narenas", 0);
    for (unsigned arena = 0; arena < arenas; arena++)
        if (arena_initialized(arena))
            write_arena(arena);
}

bool statistics_write(const char *path, size_t *lines)
{
    uint64_t epoch = 1;
    size_t length = sizeof epoch;
    lines_written = 0;
    *lines = 0;
    if (!text_create(&text, path))
        return false;
    heap_control("epoch", &epoch, &length, &epoch, sizeof epoch);
    if (heap_has_control())
        write_everything();
    else {
        lines_written += extension_write(&text);
        if (lines_written == 0)
            lines_written += mallinfo_write(&text);
    }
    *lines = lines_written;
    text_string(&text, "end ");
    text_unsigned(&text, lines_written);
    text_string(&text, "\n");
    return text_close(&text);
}
