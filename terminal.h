/* terminal.h: what a terminal can show, and how much of it. */
#ifndef MQ_TERMINAL_H
#define MQ_TERMINAL_H

#include <stdbool.h>

/* Is the descriptor a terminal that knows the escape sequences of ECMA-48, by what TERM says? */
bool terminal_can_draw(int fd);

/* Does whoever reads what we print expect UTF-8, by what the locale is called? */
bool terminal_is_utf8(void);

/* Are we in the foreground of that terminal? */
bool terminal_is_ours(int fd);

/* Its size, 80 by 24 where the system does not tell. */
void terminal_size(int fd, unsigned *columns, unsigned *rows);

#endif
