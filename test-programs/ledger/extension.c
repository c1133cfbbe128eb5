#include "extension.h"

/* Weak, so that the program needs no tcmalloc. */
__attribute__((weak)) int MallocExtension_GetNumericProperty(const char *property, size_t *value);

static const char *const properties[] = {
    "generic.current_allocated_bytes",
    "generic.heap_size",
    "tcmalloc.central_cache_free_bytes",
    "tcmalloc.transfer_cache_free_bytes",
    "tcmalloc.thread_cache_free_bytes",
    "tcmalloc.current_total_thread_cache_bytes",
    "tcmalloc.pageheap_free_bytes",
    "tcmalloc.pageheap_unmapped_bytes",
    "tcmalloc.pageheap_committed_bytes",
    "tcmalloc.slack_bytes",
};

size_t extension_write(struct text *text)
{
    size_t lines = 0;
    if (MallocExtension_GetNumericProperty == NULL)
        return 0;
    for (size_t index = 0; index < sizeof properties / sizeof properties[0]; index++) {
        size_t value;
        if (!MallocExtension_GetNumericProperty(properties[index], &value))
            continue;
        text_string(text, properties[index]);
        text_string(text, " ");
        text_unsigned(text, value);
        text_string(text, "\n");
        lines++;
    }
    return lines;
}
