/*
 * queue_name.c: the directory name of a queue.
 *
 * Any bytes but NUL and slash can be a queue's name on the wire. On disk a name must be
 * one that a shell and a pair of eyes can take, must not hide (a leading dot is
 * machinery), and must lead back to exactly one name; so everything unusual is
 * percent-encoded.
 */
#include "queue_name.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

int
queue_name_encode(const char *name, size_t len, char *dir)
{
	size_t n = 0;

	if (len == 0) {
		errno = EINVAL;
		return -1;
	}
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)name[i];
		bool plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') ||
		             (c >= 'a' && c <= 'z') ||
		             (c != '\0' && strchr("_-.:@=,~+{}", c) != NULL);

		if (c == '\0' || c == '/') {
			errno = EINVAL;
			return -1;
		}
		if (n + (plain ? 1 : 3) > QUEUE_NAME_MAX) {
			errno = ENAMETOOLONG;
			return -1;
		}
		if (plain && !(c == '.' && i == 0)) {
			dir[n++] = (char)c;
		} else {
			dir[n++] = '%';
			dir[n++] = "0123456789ABCDEF"[c >> 4];
			dir[n++] = "0123456789ABCDEF"[c & 15];
		}
	}
	dir[n] = '\0';
	return 0;
}

static int
hex_digit(char c)
{
	const char *digits = "0123456789ABCDEF", *p = c == '\0' ? NULL : strchr(digits, c);

	return p == NULL ? -1 : (int)(p - digits);
}

int
queue_name_decode(const char *dir, char *name)
{
	char again[QUEUE_NAME_MAX + 1];
	size_t n = 0;

	for (const char *p = dir; *p != '\0' && n < QUEUE_NAME_MAX; p++) {
		if (*p == '%') {
			int hi = hex_digit(p[1]), lo = hi == -1 ? -1 : hex_digit(p[2]);
			if (lo == -1)
				return -1;
			name[n++] = (char)(hi << 4 | lo);
			p += 2;
		} else {
			name[n++] = *p;
		}
	}
	name[n] = '\0';
	if (queue_name_encode(name, n, again) == -1 || strcmp(again, dir) != 0)
		return -1;
	return (int)n;
}

int
queue_name_read(const char *text, char *dir)
{
	char name[QUEUE_NAME_MAX + 1];

	if (queue_name_decode(text, name) == -1)
		return queue_name_encode(text, strlen(text), dir);
	strcpy(dir, text);
	return 0;
}
