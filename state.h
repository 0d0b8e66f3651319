/* state.h: what `.state` of a queue says, and which numbers may still hold a message. */
#ifndef MQ_STATE_H
#define MQ_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "counters.h"
#include "message.h"

#define STATE_BOOT_LEN 36 /* a boot id is a UUID */
#define STATE_LEN 1023    /* bytes of the file, always */
#define STATE_RANGES 7

/* Numbers from <= n < to. */
struct range {
	uint64_t from, to;
};

struct state {
	char boot[STATE_BOOT_LEN]; /* of the kernel under which this was written */
	uint64_t put;              /* messages that ever came in */
	uint64_t waiting;          /* messages that wait */
	uint64_t bytes;            /* of body in them */
	uint64_t swept;            /* CLOCK_MONOTONIC, ms: the last look for orphans */
	uint64_t spare;            /* the lowest number whose file in .claim may be spent */
	uint64_t delayed;          /* messages in .delay */
	uint64_t delayed_bytes;    /* of body in them */
	uint64_t due;              /* CLOCK_MONOTONIC, s: the next of them may be so; 0: none is */
	uint64_t paused;           /* CLOCK_MONOTONIC, ms: nothing is delivered before */
#define COUNTER(name) uint64_t name;
	QUEUE_COUNTERS(COUNTER)
#undef COUNTER
	bool durable;   /* the queue's own entry in the spool survives a power loss */
	bool graveyard; /* dead letters were moved into it */
	bool stale;     /* waiting and bytes are to be counted anew */
	/*
	 * Where messages may wait, in order; outside of these there are none. The last is
	 * the queue proper, [head, next): its end is the number of the next push. Those
	 * before it hold what came back after the head had passed it. There is always at
	 * least one.
	 */
	unsigned nranges;
	struct range ranges[STATE_RANGES];
};

/* A queue that never held anything. */
void state_init(struct state *s, const char *boot);

#define STATE_FOREVER MESSAGE_NUMBER_MAX /* of `paused`: until somebody ends it, reboots included */

/* Write `s` as STATE_LEN bytes of text at `buf`, without a NUL. What stands there already is the
 * text of `was`, and only what differs is written; NULL: all is. */
void state_write(char *buf, const struct state *s, const struct state *was);

/* Read `len` bytes of text back. What *s holds is the text `known`, of STATE_LEN bytes, and only
 * what differs is read; NULL: all is. Returns 0, or -1, with *s as it may be, if it is not as
 * state_write writes it. */
int state_read(const char *buf, size_t len, struct state *s, const char *known);

/* The queue proper, and the number that the next push gets. */
struct range *state_main(struct state *s);
uint64_t state_next(const struct state *s);

/* May number n wait, by what the ranges say? */
bool state_has(const struct state *s, uint64_t n);

/* Number n waits again: make a range cover it. With all ranges in use the two that are
 * nearest to each other become one, which costs a few look-ups, never a message. */
void state_give(struct state *s, uint64_t n);

/* A message stands at the number that is next: whoever put it there died before it could count it. */
void state_adopt(struct state *s, uint64_t bytes);

/* Number n does not wait any more: no range covers it afterwards, unless it lies in the
 * middle of one and all ranges are in use. */
void state_take(struct state *s, uint64_t n);

/* A message of so many bytes waits more, or less. A state that this cannot be true of is stale. */
void state_count_in(struct state *s, uint64_t bytes);
void state_count_out(struct state *s, uint64_t bytes);

/* No message waits at from <= n < to: every range that begins there begins at `to`. */
void state_skip(struct state *s, uint64_t from, uint64_t to);

/* The lowest number from n on at which a message may wait; state_next() if there is none.
 */
uint64_t state_candidate(const struct state *s, uint64_t n);

#endif
