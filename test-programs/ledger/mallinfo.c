#include "mallinfo.h"

#include <malloc.h>

/* Weak, so that a static program does not take the C library's malloc in for the sake of this question. */
#if defined __GLIBC__ && (__GLIBC__ > 2 || __GLIBC_MINOR__ >= 33)
#define FIGURES struct mallinfo2
#define TAKE mallinfo2
#pragma weak mallinfo2
#elif defined __GLIBC__
#define FIGURES struct mallinfo
#define TAKE mallinfo
#pragma weak mallinfo
#endif

#ifdef TAKE
static void write_field(struct text *text, const char *name, size_t value)
{
    text_string(text, "mallinfo2.");
    text_string(text, name);
    text_string(text, " ");
    text_unsigned(text, value);
    text_string(text, "\n");
}
#endif

size_t mallinfo_write(struct text *text)
{
#ifdef TAKE
    if (TAKE == NULL)
        return 0;
    FIGURES figures = TAKE();
    write_field(text, "arena", (size_t)figures.arena);
    write_field(text, "ordblks", (size_t)figures.ordblks);
    write_field(text, "smblks", (size_t)figures.smblks);
    write_field(text, "hblks", (size_t)figures.hblks);
    write_field(text, "hblkhd", (size_t)figures.hblkhd);
    write_field(text, "fsmblks", (size_t)figures.fsmblks);
    write_field(text, "uordblks", (size_t)figures.uordblks);
    write_field(text, "fordblks", (size_t)figures.fordblks);
    write_field(text, "keepcost", (size_t)figures.keepcost);
    return 9;
#else
    (void)text;
    return 0;
#endif
}
