/*
 * terminal.c: what a terminal can show, and how much of it.
 *
 * No library knows the terminals for us, and none needs to: what is written here every terminal
 * understands that is not called dumb.
 */
#include "terminal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

bool
terminal_can_draw(int fd)
{
	const char *term = getenv("TERM");

	return isatty(fd) && term != NULL && term[0] != '\0' && strcmp(term, "dumb") != 0;
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
