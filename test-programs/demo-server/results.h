/* The best results of one request. This is where the server leaks. */
#ifndef DEMO_RESULTS_H
#define DEMO_RESULTS_H

#include <stddef.h>
#include <stdint.h>

enum { RESULTS_KEPT = 10 };

struct result {
    struct result *next;
    struct result *previous;
    uint64_t advertisement;
    double score;
    char title[64];
};

/* Best first. */
struct top_results {
    struct result *best;
    struct result *last;
    size_t count;
};

/* Adds a result in its place. When there are more than RESULTS_KEPT, the last is cut off. */
void top_results_offer(struct top_results *results, uint64_t advertisement, double score);
/* Frees all results. */
void top_results_clear(struct top_results *results);

/* The truth: results that were cut off, and that nobody has freed or ever will. */
size_t results_lost(void);

#endif
