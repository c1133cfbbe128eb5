#include "results.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

static atomic_size_t lost;

static struct result *result_new(uint64_t advertisement, double score)
{
    struct result *result = malloc(sizeof *result);
    if (result == NULL)
        abort();
    result->advertisement = advertisement;
    result->score = score;
    snprintf(result->title, sizeof result->title, "advertisement %llu", (unsigned long long)advertisement);
    return result;
}

static void insert_after(struct top_results *results, struct result *better, struct result *result)
{
    result->previous = better;
    result->next = better != NULL ? better->next : results->best;
    if (result->next != NULL)
        result->next->previous = result;
    else
        results->last = result;
    if (better != NULL)
        better->next = result;
    else
        results->best = result;
    results->count++;
}

/* The leak: the result leaves the list, and only results in the list are freed. */
static void cut_off_last(struct top_results *results)
{
    results->last = results->last->previous;
    results->last->next = NULL;
    results->count--;
    atomic_fetch_add(&lost, 1);
}

void top_results_offer(struct top_results *results, uint64_t advertisement, double score)
{
    struct result *better = results->last;
    while (better != NULL && better->score < score)
        better = better->previous;
    insert_after(results, better, result_new(advertisement, score));
    if (results->count > RESULTS_KEPT)
        cut_off_last(results);
}

void top_results_clear(struct top_results *results)
{
    struct result *result = results->best;
    while (result != NULL) {
        struct result *next = result->next;
        free(result);
        result = next;
    }
    *results = (struct top_results){0};
}

size_t results_lost(void)
{
    return atomic_load(&lost);
}
