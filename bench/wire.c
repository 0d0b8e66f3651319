/*
 * wire.c: the protocols that the load generator speaks: memcache (mqd, memcacheq;
 * memcached as a cache; null, for a server that stores nothing), beanstalk, and RESP with
 * redis lists.
 *
 * A request is one text in front of the body; a reply is lines, at most one of which
 * announces a body. The table at the end is all that the rest of the program sees.
 */
#include "wire.h"

#include "../number.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static size_t
print(char *out, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	int n = vsnprintf(out, WIRE_LINE, format, args);
	va_end(args);
	return (size_t)n;
}

static bool
is(const char *line, const char *expected)
{
	return strcmp(line, expected) == 0;
}

static bool
begins(const char *line, const char *expected)
{
	return strncmp(line, expected, strlen(expected)) == 0;
}

/* Cut `line` at each space into exactly `n` words. */
static bool
split(char *line, char *words[], size_t n)
{
	for (size_t i = 0; i < n; i++) {
		char *space = strchr(line, ' ');
		words[i] = line;
		if ((space == NULL) != (i == n - 1))
			return false;
		if (space != NULL) {
			*space = '\0';
			line = space + 1;
		}
	}
	return true;
}

static bool
number(const char *word, uint64_t max, uint64_t *value)
{
	return number_parse(word, strlen(word), max, value) == 0;
}

static size_t
memcache_hello(char *out, const char *queue)
{
	(void)queue;
	return print(out, "version\r\n");
}

static size_t
memcache_push(char *out, const char *queue, uint32_t flags, size_t length)
{
	return print(out, "set %s %" PRIu32 " 0 %zu\r\n", queue, flags, length);
}

static size_t
memcache_pop(char *out, const char *queue)
{
	return print(out, "get %s\r\n", queue);
}

static enum verdict
memcache_line(struct reply *r, char *line)
{
	char *words[4];

	switch (r->op) {
	case OP_HELLO:
		return begins(line, "VERSION ") ? REPLY_DONE : REPLY_BAD;
	case OP_PUSH:
		return is(line, "STORED") ? REPLY_DONE : REPLY_BAD;
	case OP_POP:
		break;
	}
	if (is(line, "END"))
		return r->step == 0 ? REPLY_MISS : REPLY_HIT;
	if (r->step == 0 && begins(line, "VALUE ") && split(line, words, 4) &&
	    is(words[1], r->queue) && number(words[2], UINT32_MAX, &r->flags) &&
	    number(words[3], UINT32_MAX, &r->length))
		return REPLY_BODY;
	return REPLY_BAD;
}

/* From a server that stores nothing the right answer is that there is nothing. */
static enum verdict
null_line(struct reply *r, char *line)
{
	if (r->op != OP_POP)
		return memcache_line(r, line);
	return is(line, "END") ? REPLY_HIT : REPLY_BAD;
}

/* "default" is used and watched by every new connection. */
static size_t
beanstalk_hello(char *out, const char *queue)
{
	if (is(queue, "default"))
		return print(out, "use default\r\nwatch default\r\n");
	return print(out, "use %s\r\nwatch %s\r\nignore default\r\n", queue, queue);
}

static size_t
beanstalk_push(char *out, const char *queue, uint32_t flags, size_t length)
{
	(void)queue;
	(void)flags;
	return print(out, "put 0 0 600 %zu\r\n", length);
}

static size_t
beanstalk_pop(char *out, const char *queue)
{
	(void)queue;
	return print(out, "reserve-with-timeout 0\r\n");
}

static size_t
beanstalk_finish(char *out, const struct reply *r)
{
	return print(out, "delete %" PRIu64 "\r\n", r->id);
}

static enum verdict
beanstalk_line(struct reply *r, char *line)
{
	char *words[3];

	switch (r->op) {
	case OP_HELLO:
		if (r->step == 0)
			return begins(line, "USING ") ? REPLY_MORE : REPLY_BAD;
		if (!begins(line, "WATCHING "))
			return REPLY_BAD;
		return r->step == 2 || is(r->queue, "default") ? REPLY_DONE : REPLY_MORE;
	case OP_PUSH:
		return begins(line, "INSERTED ") ? REPLY_DONE : REPLY_BAD;
	case OP_POP:
		break;
	}
	if (r->step > 0)
		return is(line, "DELETED") ? REPLY_HIT : REPLY_BAD;
	if (is(line, "TIMED_OUT"))
		return REPLY_MISS;
	if (begins(line, "RESERVED ") && split(line, words, 3) &&
	    number(words[1], UINT64_MAX, &r->id) && number(words[2], UINT32_MAX, &r->length))
		return REPLY_BODY;
	return REPLY_BAD;
}

static size_t
resp_hello(char *out, const char *queue)
{
	(void)queue;
	return print(out, "*1\r\n$4\r\nPING\r\n");
}

static size_t
resp_push(char *out, const char *queue, uint32_t flags, size_t length)
{
	(void)flags;
	return print(out, "*3\r\n$5\r\nRPUSH\r\n$%zu\r\n%s\r\n$%zu\r\n", strlen(queue), queue,
	             length);
}

static size_t
resp_pop(char *out, const char *queue)
{
	return print(out, "*2\r\n$4\r\nLPOP\r\n$%zu\r\n%s\r\n", strlen(queue), queue);
}

static enum verdict
resp_line(struct reply *r, char *line)
{
	uint64_t length_of_list;

	switch (r->op) {
	case OP_HELLO:
		return is(line, "+PONG") ? REPLY_DONE : REPLY_BAD;
	case OP_PUSH:
		return line[0] == ':' && number(line + 1, UINT64_MAX, &length_of_list) ? REPLY_DONE
		                                                                       : REPLY_BAD;
	case OP_POP:
		break;
	}
	if (is(line, "$-1"))
		return REPLY_MISS;
	return line[0] == '$' && number(line + 1, UINT32_MAX, &r->length) ? REPLY_BODY : REPLY_BAD;
}

const char wire_names[] = "memcache, memcached, beanstalk, redis, null";

const struct protocol wire_protocols[WIRE_PROTOCOLS] = {
    {
        .name = "memcache",
        .queue = "load",
        .flags = true,
        .line_follows = true,
        .hello = memcache_hello,
        .push = memcache_push,
        .pop = memcache_pop,
        .line = memcache_line,
    },
    {
        .name = "memcached",
        .queue = "load",
        .keeps = true,
        .flags = true,
        .line_follows = true,
        .hello = memcache_hello,
        .push = memcache_push,
        .pop = memcache_pop,
        .line = memcache_line,
    },
    {
        .name = "beanstalk",
        .queue = "default",
        .line_follows = true,
        .hello_needed = true,
        .hello = beanstalk_hello,
        .push = beanstalk_push,
        .pop = beanstalk_pop,
        .finish = beanstalk_finish,
        .line = beanstalk_line,
    },
    {
        .name = "redis",
        .queue = "load",
        .hello = resp_hello,
        .push = resp_push,
        .pop = resp_pop,
        .line = resp_line,
    },
    {
        .name = "null",
        .queue = "load",
        .keeps = true, /* as a cache: nothing of a pop can be judged by the pushes */
        .hello = memcache_hello,
        .push = memcache_push,
        .pop = memcache_pop,
        .line = null_line,
    },
};

const struct protocol *
wire_find(const char *name)
{
	for (size_t i = 0; i < WIRE_PROTOCOLS; i++)
		if (strcmp(wire_protocols[i].name, name) == 0)
			return &wire_protocols[i];
	return NULL;
}
