/*
 * terminal.c: what a terminal can show, and how much of it.
 *
 * No library knows the terminals for us, and none needs to: what is written here every terminal
 * understands that is not called dumb.
 */
#include "terminal.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <unistd.h>

bool
terminal_can_draw(int fd)
{
	const char *term = getenv("TERM");

	return isatty(fd) && term != NULL && term[0] != '\0' && strcmp(term, "dumb") != 0;
}

/* setlocale would need the locale's files, which a static libc does not find. */
bool
terminal_is_utf8(void)
{
	static const char *const names[] = {"LC_ALL", "LC_CTYPE", "LANG"};

	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		const char *value = getenv(names[i]);
		const char *dot = value == NULL ? NULL : strchr(value, '.');
		if (value != NULL && value[0] != '\0')
			return dot != NULL && (strncasecmp(dot, ".utf-8", 6) == 0 ||
			                       strncasecmp(dot, ".utf8", 5) == 0);
	}
	return false;
}

bool
terminal_is_ours(int fd)
{
	return tcgetpgrp(fd) == getpgrp();
}

void
terminal_size(int fd, unsigned *columns, unsigned *rows)
{
	struct winsize size;

	*columns = 80;
	*rows = 24;
	if (ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 && size.ws_row > 0) {
		*columns = size.ws_col;
		*rows = size.ws_row;
	}
}
