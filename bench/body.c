/*
 * body.c: bodies that tell where they come from and can be checked byte for byte.
 *
 * A body begins with 24 hexadecimal digits: run (4), producer (4), sequence number (8)
 * and a check of these three (8). Filler follows, cut from a fixed pool of pseudo-random
 * bytes at an offset that depends on the three as well, so that neither side has to keep
 * any body: the one who pops finds from the head what every other byte must be. The pool
 * holds all byte values, CR and LF among them.
 */
#include "body.h"

#include <string.h>

enum { POOL = 1 << 18 };

static char pool[POOL];
static size_t shortest, longest;

/* splitmix64's finaliser: spreads small differences over all bits. */
static uint64_t
mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
	x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
	return x ^ (x >> 31);
}

static uint64_t
hash(struct body_id id)
{
	return mix(mix((uint64_t)id.run << 32 | id.producer) + id.seq);
}

void
body_setup(size_t min, size_t max)
{
	for (size_t i = 0; i < POOL; i += sizeof(uint64_t)) {
		uint64_t word = mix(i);
		memcpy(pool + i, &word, sizeof word);
	}
	shortest = min;
	longest = max;
}

size_t
body_length(struct body_id id)
{
	return shortest + (hash(id) >> 16) % (longest - shortest + 1);
}

uint32_t
body_flags(struct body_id id)
{
	return (uint32_t)(hash(id) >> 32);
}

void
body_head(struct body_id id, char head[BODY_HEAD])
{
	static const char digits[] = "0123456789abcdef";
	uint64_t words[] = {(uint64_t)id.run << 48 | (uint64_t)id.producer << 32 | id.seq,
	                    hash(id) << 32};

	/* by hand: snprintf would be a tenth of a request's time */
	for (unsigned i = 0; i < BODY_HEAD; i++)
		head[i] = digits[words[i / 16] >> (60 - i % 16 * 4) & 15];
}

unsigned
body_tail(struct body_id id, size_t from, struct iovec *iov)
{
	size_t left = body_length(id) - BODY_HEAD - from;
	size_t at = (hash(id) + from) % POOL;
	unsigned n = 0;

	for (; left > 0 && n < BODY_PIECES; n++) {
		size_t piece = left < POOL - at ? left : POOL - at;
		iov[n] = (struct iovec){.iov_base = pool + at, .iov_len = piece};
		left -= piece;
		at = 0;
	}
	return n;
}

/* Digits that are none give some number, too: the comparison with a head made anew tells.
 */
static uint32_t
hexadecimal(const char *text, size_t n)
{
	uint32_t value = 0;

	for (size_t i = 0; i < n; i++)
		value =
		    value << 4 | (uint32_t)(text[i] <= '9' ? text[i] - '0' : text[i] - 'a' + 10);
	return value;
}

/* The head is complete: whose message is it? */
static const char *
check_head(struct body_check *c)
{
	char expected[BODY_HEAD];

	c->id = (struct body_id){
	    .run = hexadecimal(c->head, 4),
	    .producer = hexadecimal(c->head + 4, 4),
	    .seq = hexadecimal(c->head + 8, 8),
	};
	body_head(c->id, expected);
	if (memcmp(expected, c->head, BODY_HEAD) != 0 || c->id.producer >= PRODUCERS ||
	    c->id.seq == 0)
		return "a body whose head is damaged, or not of this program";
	if (c->length != body_length(c->id))
		return "a body of another length than was pushed";
	return NULL;
}

const char *
body_check(struct body_check *c, const char *data, size_t n)
{
	if (c->got < BODY_HEAD) {
		size_t part = BODY_HEAD - c->got < n ? BODY_HEAD - c->got : n;
		memcpy(c->head + c->got, data, part);
		c->got += part;
		data += part;
		n -= part;
		if (c->got < BODY_HEAD)
			return NULL;
		const char *wrong = check_head(c);
		if (wrong != NULL)
			return wrong;
	}
	while (n > 0) {
		struct iovec iov[BODY_PIECES];
		unsigned pieces = body_tail(c->id, c->got - BODY_HEAD, iov);
		for (unsigned i = 0; i < pieces && n > 0; i++) {
			size_t part = iov[i].iov_len < n ? iov[i].iov_len : n;
			if (memcmp(iov[i].iov_base, data, part) != 0)
				return "a body with bytes that were not pushed";
			c->got += part;
			data += part;
			n -= part;
		}
	}
	return NULL;
}
