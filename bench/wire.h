/* wire.h: the protocols that the load generator speaks. */
#ifndef BENCH_WIRE_H
#define BENCH_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	WIRE_PROTOCOLS = 5,
	WIRE_LINE = 600 /* bytes that suffice for any request's or reply's line */
};

enum op {
	OP_HELLO, /* makes sure that somebody serves the connection, and selects the queue
	           */
	OP_PUSH,
	OP_POP
};

/* A reply as it comes in, and the request that it answers. */
struct reply {
	enum op op;
	unsigned step;     /* which line of the reply this is, from 0 */
	const char *queue; /* as it was sent */
	uint64_t length;   /* of the body that follows, once REPLY_BODY was said */
	uint64_t flags;
	uint64_t id; /* beanstalk's number of the job */
};

enum verdict {
	REPLY_BAD, /* not what the request asked for */
	REPLY_MORE,
	REPLY_BODY, /* reply.length bytes and CR LF follow */
	REPLY_DONE, /* of a push or hello */
	REPLY_HIT,
	REPLY_MISS
};

struct protocol {
	const char *name;
	const char *queue; /* the default */
	bool keeps;        /* a cache: a pop leaves the value where it is */
	bool flags;        /* a message has flags */
	bool line_follows; /* the reply of a pop goes on after the body */
	bool hello_needed; /* a queue other than the default must be selected */
	/* Each writes a request to `out` (WIRE_LINE bytes) and returns its length. */
	size_t (*hello)(char *out, const char *queue);
	size_t (*push)(char *out, const char *queue, uint32_t flags, size_t length);
	size_t (*pop)(char *out, const char *queue);
	size_t (*finish)(char *out, const struct reply *r); /* after the body; or NULL */
	/* Judges a line of the reply, which comes without its CR LF and may be cut up. */
	enum verdict (*line)(struct reply *r, char *line);
};

/* The first is the default. */
extern const struct protocol wire_protocols[WIRE_PROTOCOLS];

/* NULL if there is none of that name. */
const struct protocol *wire_find(const char *name);
extern const char wire_names[];

#endif
