#include "text.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

void text_open(struct text *text, int descriptor)
{
    text->descriptor = descriptor;
    text->failed = descriptor < 0;
    text->used = 0;
}

bool text_create(struct text *text, const char *path)
{
    text_open(text, open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
    return !text->failed;
}

bool text_flush(struct text *text)
{
    size_t done = 0;
    while (!text->failed && done < text->used) {
        ssize_t written = write(text->descriptor, text->bytes + done, text->used - done);
        if (written >= 0)
            done += (size_t)written;
        else if (errno != EINTR)
            text->failed = true;
    }
    text->used = 0;
    return !text->failed;
}

bool text_close(struct text *text)
{
    bool flushed = text_flush(text);
    return close(text->descriptor) == 0 && flushed;
}

static void text_bytes(struct text *text, const char *bytes, size_t length)
{
    if (length > sizeof text->bytes - text->used)
        text_flush(text);
    if (length > sizeof text->bytes) {
        text->failed = true;
        return;
    }
    memcpy(text->bytes + text->used, bytes, length);
    text->used += length;
}

void text_string(struct text *text, const char *string)
{
    text_bytes(text, string, strlen(string));
}

static void text_digits(struct text *text, uint64_t value, unsigned base)
{
    char digits[24];
    size_t start = sizeof digits;
    do {
        digits[--start] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value != 0);
    text_bytes(text, digits + start, sizeof digits - start);
}

void text_unsigned(struct text *text, uint64_t value)
{
    text_digits(text, value, 10);
}

void text_signed(struct text *text, int64_t value)
{
    if (value < 0)
        text_string(text, "-");
    text_digits(text, value < 0 ? 0 - (uint64_t)value : (uint64_t)value, 10);
}

void text_hex(struct text *text, uint64_t value)
{
    text_string(text, "0x");
    text_digits(text, value, 16);
}

bool text_parse_unsigned(const char *word, uint64_t *value)
{
    uint64_t total = 0;
    if (*word == '\0')
        return false;
    for (; *word != '\0'; word++) {
        if (*word < '0' || *word > '9' || total > UINT64_MAX / 10 - 1)
            return false;
        total = total * 10 + (uint64_t)(*word - '0');
    }
    *value = total;
    return true;
}
