/*
 * json.c: write one JSON document, piece by piece.
 *
 * Nothing is kept but what is open. Bytes are read twice: whether they are UTF-8 must be known
 * before the first of them is written.
 */
#include "json.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "queue_name.h"
#include "utf8.h"

#define PIECE 12288 /* bytes read at once: a multiple of three, as base64 needs */

static void
write_character(FILE *out, const struct utf8 *u)
{
	uint32_t c = u->character;

	if (c == '"' || c == '\\')
		fprintf(out, "\\%c", (char)c);
	else if (c == '\n')
		fputs("\\n", out);
	else if (c == '\t')
		fputs("\\t", out);
	else if (c == '\r')
		fputs("\\r", out);
	else if (utf8_is_control(c) || c == '<' || c == 0x2028 || c == 0x2029)
		fprintf(out, "\\u%04" PRIx32, c);
	else if (c < 0x80)
		putc((int)c, out);
	else {
		static const unsigned char first[] = {0, 0, 0xC0, 0xE0, 0xF0};
		putc((int)(first[u->len] | c >> 6 * (u->len - 1)), out);
		for (unsigned i = u->len - 1; i-- > 0;)
			putc((int)(0x80 | (c >> 6 * i & 0x3F)), out);
	}
}

/*
 * Bytes, from wherever they come
 */

struct source {
	json_reader *read;
	const void *arg;
	uint64_t length, at;
};

/* The next bytes: PIECE of them, or all that are left; 0 at the end, -1 with errno. */
static ssize_t
next_piece(struct source *s, unsigned char *buf)
{
	uint64_t left = s->length - s->at;
	size_t want = left < PIECE ? (size_t)left : PIECE, have = 0;

	while (have < want) {
		ssize_t n = s->read(s->arg, buf + have, want - have, s->at + have);
		if (n <= 0)
			return -1;
		have += (size_t)n;
	}
	s->at += have;
	return (ssize_t)have;
}

/* Whether they are UTF-8: 1, 0 or -1. Goes back to the beginning. */
static int
is_utf8(struct source *s)
{
	unsigned char buf[PIECE];
	struct utf8 u = {0};
	ssize_t n;

	while ((n = next_piece(s, buf)) > 0)
		for (ssize_t i = 0; i < n; i++)
			if (utf8_add(&u, buf[i]) == UTF8_BAD) {
				s->at = 0;
				return 0;
			}
	s->at = 0;
	return n == -1 ? -1 : u.left == 0;
}

static int
write_text(FILE *out, struct source *s)
{
	unsigned char buf[PIECE];
	struct utf8 u = {0};
	ssize_t n;

	while ((n = next_piece(s, buf)) > 0)
		for (ssize_t i = 0; i < n; i++)
			/* It was UTF-8 a moment ago. */
			if (utf8_add(&u, buf[i]) == UTF8_WHOLE)
				write_character(out, &u);
	return (int)n;
}

static int
write_base64(FILE *out, struct source *s)
{
	static const char digits[] =
	    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	unsigned char buf[PIECE + 2];
	ssize_t n;

	while ((n = next_piece(s, buf)) > 0) {
		buf[n] = buf[n + 1] = 0; /* only the last piece is not a multiple of three */
		for (ssize_t i = 0; i < n; i += 3) {
			putc(digits[buf[i] >> 2], out);
			putc(digits[(buf[i] & 3) << 4 | buf[i + 1] >> 4], out);
			putc(i + 1 < n ? digits[(buf[i + 1] & 15) << 2 | buf[i + 2] >> 6] : '=',
			     out);
			putc(i + 2 < n ? digits[buf[i + 2] & 63] : '=', out);
		}
	}
	return (int)n;
}

/*
 * The document
 */

/* What stands before a value: a comma, a new line for what people look for there, the key. */
static void
lead(struct json *j, const char *key)
{
	if (!j->empty)
		putc(',', j->out);
	if (j->depth <= 2)
		fprintf(j->out, "\n%*s", (int)j->depth * 2, "");
	else if (!j->empty)
		putc(' ', j->out);
	j->empty = false;
	if (key != NULL)
		fprintf(j->out, "\"%s\": ", key);
}

static void
open_one(struct json *j, char begin, char end)
{
	assert(j->depth < JSON_DEPTH);
	putc(begin, j->out);
	j->ends[j->depth++] = end;
	j->empty = true;
}

void
json_begin(struct json *j, FILE *out)
{
	*j = (struct json){.out = out};
	open_one(j, '{', '}');
}

void
json_object(struct json *j, const char *key)
{
	lead(j, key);
	open_one(j, '{', '}');
}

void
json_array(struct json *j, const char *key)
{
	lead(j, key);
	open_one(j, '[', ']');
}

void
json_close(struct json *j)
{
	j->depth--;
	if (!j->empty && j->depth < 2)
		fprintf(j->out, "\n%*s", (int)j->depth * 2, "");
	putc(j->ends[j->depth], j->out);
	j->empty = false;
}

void
json_end(struct json *j)
{
	while (j->depth > 0)
		json_close(j);
	putc('\n', j->out);
}

void
json_number(struct json *j, const char *key, uint64_t n)
{
	lead(j, key);
	fprintf(j->out, "%" PRIu64, n);
}

void
json_bool(struct json *j, const char *key, bool b)
{
	lead(j, key);
	fputs(b ? "true" : "false", j->out);
}

void
json_null(struct json *j, const char *key)
{
	lead(j, key);
	fputs("null", j->out);
}

int
json_stream(struct json *j, const char *key, json_reader *read, const void *arg, uint64_t length)
{
	struct source s = {.read = read, .arg = arg, .length = length};
	int text = is_utf8(&s), r;

	if (text == -1)
		return -1;
	lead(j, key);
	fputs(text ? "\"" : "{\"base64\": \"", j->out);
	r = text ? write_text(j->out, &s) : write_base64(j->out, &s);
	fputs(text ? "\"" : "\"}", j->out);
	return r;
}

static ssize_t
read_memory(const void *arg, void *buf, size_t len, uint64_t offset)
{
	memcpy(buf, (const char *)arg + offset, len);
	return (ssize_t)len;
}

void
json_bytes(struct json *j, const char *key, const void *data, size_t len)
{
	json_stream(j, key, read_memory, data, len);
}

void
json_string(struct json *j, const char *key, const char *s)
{
	json_bytes(j, key, s, strlen(s));
}

void
json_queue(struct json *j, const char *queue)
{
	char name[QUEUE_NAME_MAX + 1];
	int len = queue_name_decode(queue, name);

	if (len == -1)
		json_null(j, "name");
	else
		json_bytes(j, "name", name, (size_t)len);
	json_string(j, "encoded", queue);
}
