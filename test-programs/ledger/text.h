/* Text written without stdio and without the heap: bounded buffers, raw write(2), own number formatting. */
#ifndef LEDGER_TEXT_H
#define LEDGER_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* An output stream on a file descriptor. `failed` stays set after the first write that failed. */
struct text {
    int descriptor;
    bool failed;
    size_t used;
    char bytes[1 << 16];
};

/* Attaches the buffer to a descriptor. */
void text_open(struct text *text, int descriptor);
/* Creates or truncates the file. False, with errno set, if it cannot be written. */
bool text_create(struct text *text, const char *path);
/* Writes out what is buffered. False if this or an earlier write failed. */
bool text_flush(struct text *text);
/* Flushes and closes the descriptor. False if anything failed. */
bool text_close(struct text *text);

void text_string(struct text *text, const char *string);
void text_unsigned(struct text *text, uint64_t value);
void text_signed(struct text *text, int64_t value);
/* With the prefix 0x. */
void text_hex(struct text *text, uint64_t value);

/* Reads a decimal number that fills the whole word. False if it is something else. */
bool text_parse_unsigned(const char *word, uint64_t *value);

#endif
