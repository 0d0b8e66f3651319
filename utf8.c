/*
 * utf8.c: is it UTF-8, and which characters are it? Byte by byte, so that what is too long for memory can
 * be looked at as it comes. Specification: RFC 3629.
 */
#include "utf8.h"

enum utf8_is
utf8_add(struct utf8 *u, unsigned char c)
{
	static const uint32_t lowest[] = {0, 0, 0x80, 0x800, 0x10000};

	if (u->left == 0) {
		u->len = c < 0x80 ? 1 : c >= 0xC2 && c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
		if ((c >= 0x80 && c < 0xC2) || c > 0xF4)
			return UTF8_BAD;
		u->left = u->len - 1;
		u->character = u->len == 1 ? c : c & (0x7Fu >> u->len);
	} else {
		if ((c & 0xC0) != 0x80)
			return UTF8_BAD;
		u->left--;
		u->character = u->character << 6 | (c & 0x3F);
	}
	if (u->left > 0)
		return UTF8_PART;
	/* A form that is longer than need be, half of a UTF-16 pair, beyond Unicode. */
	if (u->character < lowest[u->len] || (u->character >> 11) == 0x1B ||
	    u->character > 0x10FFFF)
		return UTF8_BAD;
	return UTF8_WHOLE;
}

bool
utf8_is_control(uint32_t character)
{
	return character < ' ' || (character >= 0x7F && character < 0xA0);
}
