/* The visitors: as many sessions as there are places. A newcomer takes the place of whoever had it. */
#ifndef DEMO_SESSIONS_H
#define DEMO_SESSIONS_H

#include <stdint.h>

/* Fills all places. */
void sessions_open(void);
/* Counts a visit of the visitor; a stranger gets a new session. */
void sessions_visit(uint64_t visitor);

#endif
