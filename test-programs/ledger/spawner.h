/* A coming and going of short-lived threads, each of which uses the heap. */
#ifndef LEDGER_SPAWNER_H
#define LEDGER_SPAWNER_H

#include <stdbool.h>

/* False, with errno set, if there is no room for a thread, or if it runs already. */
bool spawner_begin(void);
/* Ends it and returns how many threads have come and gone. */
unsigned long spawner_end(void);
bool spawner_running(void);

#endif
