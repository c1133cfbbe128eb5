#include "cache.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { PLACES = 1 << 11, PAGE_SIZE_MIN = 200, PAGE_SIZE_SPAN = 1900 };

struct cached {
    uint64_t page;
    char *text;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct cached places[PLACES];

static char *render(uint64_t page)
{
    size_t size = PAGE_SIZE_MIN + page * 7919 % PAGE_SIZE_SPAN;
    char *text = malloc(size);
    if (text == NULL)
        abort();
    memset(text, 'a' + (int)(page % 26), size);
    return text;
}

void cache_open(void)
{
    for (uint64_t page = 0; page < PLACES; page++)
        places[page] = (struct cached){page, render(page)};
}

void cache_page(uint64_t page)
{
    struct cached *place = &places[page % PLACES];
    char *leaving = NULL;
    pthread_mutex_lock(&lock);
    if (place->page != page) {
        leaving = place->text;
        *place = (struct cached){page, render(page)};
    }
    pthread_mutex_unlock(&lock);
    free(leaving);
}
