/*
 * number.c: the one strict reader of numbers, and fixed-width decimal for files.
 *
 * Everything that comes from outside as a number (a command's words, an option, a file's
 * header) goes through number_parse, so that "12x", "-1", "+1", " 1" and what overflows
 * are refused everywhere alike.
 */
#include "number.h"

#include <string.h>

int
number_parse(const char *s, size_t len, uint64_t max, uint64_t *value)
{
	uint64_t v = 0;

	if (len == 0)
		return -1;
	for (size_t i = 0; i < len; i++) {
		if (s[i] < '0' || s[i] > '9')
			return -1;
		uint64_t digit = (uint64_t)(s[i] - '0');
		if (digit > max || v > (max - digit) / 10)
			return -1;
		v = v * 10 + digit;
	}
	*value = v;
	return 0;
}

int
number_parse_size(const char *s, uint64_t max, uint64_t *value)
{
	size_t len = strlen(s);
	unsigned shift = 0;

	if (len > 0) {
		switch (s[len - 1]) {
		case 'g':
		case 'G':
			shift = 30;
			break;
		case 'm':
		case 'M':
			shift = 20;
			break;
		case 'k':
		case 'K':
			shift = 10;
			break;
		default:
			break;
		}
	}
	if (number_parse(s, len - (shift != 0), max >> shift, value) == -1)
		return -1;
	*value <<= shift;
	return 0;
}

void
number_write(char *s, size_t width, uint64_t value)
{
	while (width > 0) {
		s[--width] = (char)('0' + value % 10);
		value /= 10;
	}
}
