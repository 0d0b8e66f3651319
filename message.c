/*
 * message.c: the line at the head of every message file.
 *
 *     mq1 <number:16> <length:10> <flags:10> <expiry:10> <tries:5> <crc32c:8 hex>\n
 *
 * All fields are zero-filled to their width, so that the body begins at the same place in
 * every file and the line can be written last, when the number is known, and rewritten
 * where it stands. The checksum runs over the body first and then over the line up to the
 * checksum itself: the number is known only under the queue's lock, and thus the body,
 * however large, has been summed before the lock is taken.
 */
#include "message.h"

#include <string.h>

#include "crc32c.h"
#include "number.h"

#define CRC_AT (MESSAGE_HEADER_LEN - 9)

static const struct field {
	size_t at, width;
} number_field = {4, 16}, length_field = {21, 10}, flags_field = {32, 10}, expiry_field = {43, 10},
  tries_field = {54, 5};

uint32_t
message_crc(const char *line, uint32_t body_crc)
{
	return crc32c(body_crc, line, CRC_AT);
}

static void
write_crc(char *line, uint32_t crc)
{
	for (int i = 0; i < 8; i++)
		line[CRC_AT + i] = "0123456789abcdef"[crc >> (28 - 4 * i) & 15];
}

void
message_write_header(char *line, const struct message *m, uint32_t body_crc)
{
	memset(line, ' ', CRC_AT);
	memcpy(line, "mq1", 3);
	number_write(line + number_field.at, number_field.width, m->number);
	number_write(line + length_field.at, length_field.width, m->length);
	number_write(line + flags_field.at, flags_field.width, m->flags);
	number_write(line + expiry_field.at, expiry_field.width, m->expiry);
	number_write(line + tries_field.at, tries_field.width, m->tries);

	write_crc(line, message_crc(line, body_crc));
	line[MESSAGE_HEADER_LEN - 1] = '\n';
}

static int
read_crc(const char *s, uint32_t *crc)
{
	uint32_t v = 0;

	for (int i = 0; i < 8; i++) {
		char c = s[i];
		if (c >= '0' && c <= '9')
			v = v << 4 | (uint32_t)(c - '0');
		else if (c >= 'a' && c <= 'f')
			v = v << 4 | (uint32_t)(c - 'a' + 10);
		else
			return -1;
	}
	*crc = v;
	return 0;
}

int
message_read_header(const char *line, struct message *m, uint32_t *crc)
{
	uint64_t flags = 0, tries = 0;

	if (memcmp(line, "mq1 ", 4) != 0 || line[length_field.at - 1] != ' ' ||
	    line[flags_field.at - 1] != ' ' || line[expiry_field.at - 1] != ' ' ||
	    line[tries_field.at - 1] != ' ' || line[CRC_AT - 1] != ' ' ||
	    line[MESSAGE_HEADER_LEN - 1] != '\n')
		return -1;
	if (number_parse(line + number_field.at, number_field.width, MESSAGE_NUMBER_MAX,
	                 &m->number) == -1 ||
	    number_parse(line + length_field.at, length_field.width, MESSAGE_LENGTH_MAX,
	                 &m->length) == -1 ||
	    number_parse(line + flags_field.at, flags_field.width, UINT32_MAX, &flags) == -1 ||
	    number_parse(line + expiry_field.at, expiry_field.width, UINT64_MAX, &m->expiry) ==
	        -1 ||
	    number_parse(line + tries_field.at, tries_field.width, UINT32_MAX, &tries) == -1 ||
	    read_crc(line + CRC_AT, crc) == -1)
		return -1;
	m->flags = (uint32_t)flags;
	m->tries = (uint32_t)tries;
	return 0;
}

/* A CRC is linear: where two lines differ the checksums of everything differ by the same bits, with
 * any body before them. */
static void
change(char *line, const struct field *f, uint64_t value, uint32_t crc)
{
	uint32_t before = message_crc(line, 0);

	number_write(line + f->at, f->width, value);
	write_crc(line, crc ^ before ^ message_crc(line, 0));
}

bool
message_add_try(char *line)
{
	struct message m;
	uint32_t crc;

	if (message_read_header(line, &m, &crc) == -1 || m.tries >= MESSAGE_TRIES_MAX)
		return false;
	change(line, &tries_field, m.tries + 1, crc);
	return true;
}

bool
message_renumber(char *line, uint64_t number)
{
	struct message m;
	uint32_t crc;

	if (message_read_header(line, &m, &crc) == -1)
		return false;
	change(line, &number_field, number, crc);
	return true;
}

bool
message_same(const char *line, const char *other)
{
	struct message m;
	uint32_t a, b;

	return message_read_header(line, &m, &a) == 0 && message_read_header(other, &m, &b) == 0 &&
	       memcmp(line, other, tries_field.at) == 0 &&
	       (a ^ message_crc(line, 0)) == (b ^ message_crc(other, 0));
}

bool
message_is_spent(const char *line)
{
	return memcmp(line, MESSAGE_SPENT, strlen(MESSAGE_SPENT)) == 0;
}

void
message_name(char *name, uint64_t number)
{
	number_write(name, MESSAGE_NAME_LEN, number);
	name[MESSAGE_NAME_LEN] = '\0';
}

int
message_name_parse(const char *name, uint64_t *number)
{
	uint64_t n;

	if (strlen(name) != MESSAGE_NAME_LEN ||
	    number_parse(name, MESSAGE_NAME_LEN, MESSAGE_NUMBER_MAX - 1, &n) == -1 || n == 0)
		return -1;
	*number = n;
	return 0;
}
