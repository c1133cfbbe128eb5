/* What a visitor must not disturb: a timer, signals, a child process. */
#ifndef LEDGER_SIGNALS_H
#define LEDGER_SIGNALS_H

#include "text.h"

#include <stdbool.h>
#include <stdint.h>

/* Installs counting handlers for SIGALRM, SIGUSR1, SIGCHLD and SIGCONT, starts a timer of 5 ms and a child process
 * that waits. False, with errno set, if it cannot. */
bool signals_begin(void);
/* Writes ` alarms=N usr1=N chld=N cont=N child=none|running|stopped|gone`. */
void signals_report(struct text *text);
/* Returns when so many alarms in all, or so many SIGUSR1, have come. */
void signals_await_alarms(uint64_t count);
void signals_await_usr1(uint64_t count);

#endif
