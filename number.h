/* number.h: the one strict reader of numbers, and fixed-width decimal for files. */
#ifndef MQ_NUMBER_H
#define MQ_NUMBER_H

#include <stddef.h>
#include <stdint.h>

/*
 * Read `len` bytes at `s` as an unsigned decimal number of at most `max`.
 * Digits only: no sign, no space, nothing before or behind.
 * Returns 0 and sets *value; -1 if it is anything else (*value is then untouched).
 */
int number_parse(const char *s, size_t len, uint64_t max, uint64_t *value);

/* As number_parse on a string, which may end in k, m or g (1,024 each step). */
int number_parse_size(const char *s, uint64_t max, uint64_t *value);

/* Write `value` as exactly `width` digits with leading zeros at `s`; no NUL is added.
 * A value that needs more digits loses the upper ones. */
void number_write(char *s, size_t width, uint64_t value);

#endif
