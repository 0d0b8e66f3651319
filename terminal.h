/* terminal.h: what a terminal can show, and a program that has all of its screen. */
#ifndef MQ_TERMINAL_H
#define MQ_TERMINAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Is the descriptor a terminal that knows the escape sequences of ECMA-48, by what TERM says? */
bool terminal_can_draw(int fd);

/* Does whoever reads what we print expect UTF-8, by what the locale is called? */
bool terminal_is_utf8(void);

/* Are we in the foreground of that terminal? */
bool terminal_is_ours(int fd);

/* Its size, 80 by 24 where the system does not tell. */
void terminal_size(int fd, unsigned *columns, unsigned *rows);

/*
 * The whole screen, of the terminal that is standard input and output. terminal_enter: another page
 * of it, keys as they are typed. terminal_leave: the page and the settings that were there before;
 * nothing if that is so already. It is called on every end that this process can see: exit, the
 * signals that end it, and ^Z, after which the screen is entered again. 0; or -1 with errno.
 */
int terminal_enter(void);
void terminal_leave(void);

enum terminal_key {
	KEY_NONE,   /* it is `until` */
	KEY_GONE,   /* the terminal is */
	KEY_REDRAW, /* the screen has another size, or was somebody else's meanwhile */
	KEY_ESCAPE = 27,
	KEY_UP = 256, /* below that a key is the byte that it sends */
	KEY_DOWN,
	KEY_LEFT,
	KEY_RIGHT,
	KEY_HOME,
	KEY_END,
	KEY_PAGE_UP,
	KEY_PAGE_DOWN,
	KEY_OTHER,
};

/* The next key, waited for until then (os_monotonic_ms). A signal that ends this process does it
 * here. */
int terminal_key(uint64_t until);

/* Write all of that to the screen. 0; -1 if the terminal has gone or a signal came that ends us, which
 * terminal_key then tells, or serves. */
int terminal_write(const char *text, size_t len);

#endif
