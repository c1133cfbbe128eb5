/* Copies and successors of the process: fork and exec. */
#ifndef LEDGER_FAMILY_H
#define LEDGER_FAMILY_H

#include <stdbool.h>
#include <sys/types.h>

/* Forks. The child, which returns 0, takes its commands from the first FIFO and answers on the second; it waits until
 * both have been opened at their other ends. The parent gets the child's process number, or -1 with errno set. */
pid_t family_fork(const char *commands, const char *answers);
/* Starts the same program anew, with the same arguments, in the same process. Returns only if that fails. */
void family_exec(char *const *arguments);

#endif
