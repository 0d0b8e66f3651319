/* utf8.h: is it UTF-8, and which characters are it? */
#ifndef MQ_UTF8_H
#define MQ_UTF8_H

#include <stdbool.h>
#include <stdint.h>

/* A character of which bytes come one by one; {0} before the first. */
struct utf8 {
	uint32_t character;
	unsigned len, left; /* bytes of it, and those still to come */
};

enum utf8_is { UTF8_BAD, UTF8_PART, UTF8_WHOLE };

/* Add a byte. After UTF8_WHOLE u->character is one, and the next begins; after UTF8_BAD it is no UTF-8. */
enum utf8_is utf8_add(struct utf8 *u, unsigned char c);

/* One of ASCII or of Latin 1, which terminals may obey. */
bool utf8_is_control(uint32_t character);

#endif
