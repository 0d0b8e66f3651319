/* body.h: what a message of the load generator looks like. */
#ifndef BENCH_BODY_H
#define BENCH_BODY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

enum {
	BODY_HEAD = 24, /* bytes; no body is shorter */
	BODY_PIECES = 16,
	PRODUCERS = 1000
};

/* The name of a message: who pushed it, and as which of its pushes (from 1). */
struct body_id {
	uint32_t run;
	uint32_t producer;
	uint32_t seq;
};

/* To be called once: bodies have `min` to `max` bytes, depending on their id. */
void body_setup(size_t min, size_t max);

size_t body_length(struct body_id id);
uint32_t body_flags(struct body_id id);
void body_head(struct body_id id, char head[BODY_HEAD]);

/*
 * Point up to BODY_PIECES iovecs at the bytes [from, ...) behind the head of the body.
 * Returns how many; all of them together may be less than the rest of a very long body.
 */
unsigned body_tail(struct body_id id, size_t from, struct iovec *iov);

/* A body as it comes in. Set to zero, then `length`, then feed it. */
struct body_check {
	uint64_t length; /* as announced by the reply */
	uint64_t got;
	struct body_id id; /* valid once BODY_HEAD bytes have come */
	char head[BODY_HEAD];
};

/* Compare the next `n` bytes (no more than are missing). Returns NULL, or what is wrong.
 */
const char *body_check(struct body_check *c, const char *data, size_t n);

#endif
