/* The line protocol: one command a line on standard input, one answer a line on standard output.
 * README.md in this folder is its manual. */
#ifndef LEDGER_COMMANDS_H
#define LEDGER_COMMANDS_H

/* Prints the ready line, then obeys until `exit` or the end of the input. `arguments` are those of the process, for
 * `exec`. */
void commands_obey(char *const *arguments);

#endif
