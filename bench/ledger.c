/*
 * ledger.c: what became of every message of this run, one byte for each.
 *
 * Exactly once means: each acknowledged push is delivered, and none is delivered twice.
 * When workers are killed two exceptions exist, and only these:
 *
 * - A push whose reply never came may or may not have happened. It is no loss if it is
 * never seen and no fault if it is.
 * - A message whose reply had reached the client when its connection was cut may come
 * again: the worker may have died between sending and removing. Such a cut is an excuse
 * for one further delivery. There is no excuse once the worker has answered anything
 * later on the same connection, for it removes a message before it reads the next
 * command.
 *
 * The second delivery may be read from another connection before the cut of the first is,
 * so excuses and deliveries are only counted here and compared at the end.
 */
#include "ledger.h"

#include "body.h"

#include <stdlib.h>
#include <string.h>

enum {
	PUSHED = 1,
	ACKNOWLEDGED = 2,
	DELIVERED = 4, /* bits 2 to 4: how many times, at most 7 */
	EXCUSED = 32,  /* bits 5 to 7: how many times, at most 7 */
	MOST = 7
};

static struct {
	uint8_t *state; /* by sequence number */
	uint64_t room;
	uint32_t last;
} producers[PRODUCERS];

static uint64_t missing;

static unsigned
deliveries(uint8_t state)
{
	return state / DELIVERED & MOST;
}

static unsigned
excuses(uint8_t state)
{
	return state / EXCUSED & MOST;
}

/* The byte of a message; NULL if there is no memory. */
static uint8_t *
state_of(uint32_t producer, uint32_t seq)
{
	if (seq >= producers[producer].room) {
		uint64_t room = (uint64_t)seq + seq / 2 + 1024;
		uint8_t *larger = realloc(producers[producer].state, room);
		if (larger == NULL)
			return NULL;
		memset(larger + producers[producer].room, 0, room - producers[producer].room);
		producers[producer].state = larger;
		producers[producer].room = room;
	}
	return producers[producer].state + seq;
}

uint32_t
ledger_push(uint32_t producer)
{
	uint32_t seq = producers[producer].last + 1;
	uint8_t *state = seq == 0 ? NULL : state_of(producer, seq);

	if (state == NULL)
		return 0;
	producers[producer].last = seq;
	*state |= PUSHED;
	return seq;
}

void
ledger_acknowledge(uint32_t producer, uint32_t seq)
{
	uint8_t *state = producers[producer].state + seq;

	*state |= ACKNOWLEDGED;
	missing += deliveries(*state) == 0;
}

int
ledger_deliver(uint32_t producer, uint32_t seq)
{
	uint8_t *state = state_of(producer, seq);

	if (state == NULL)
		return -1;
	unsigned before = deliveries(*state);
	if (before < MOST)
		*state = (uint8_t)(*state + DELIVERED);
	if (before == 0 && (*state & ACKNOWLEDGED))
		missing--;
	if (!(*state & PUSHED) && before == 0)
		return DELIVERY_UNKNOWN;
	return before == 0 ? DELIVERY_FIRST : DELIVERY_AGAIN;
}

void
ledger_excuse(uint32_t producer, uint32_t seq)
{
	uint8_t *state = producers[producer].state + seq;

	if (excuses(*state) < MOST)
		*state = (uint8_t)(*state + EXCUSED);
}

uint64_t
ledger_missing(void)
{
	return missing;
}

void
ledger_tally(struct tally *t)
{
	*t = (struct tally){0};
	for (uint32_t p = 0; p < PRODUCERS; p++) {
		for (uint64_t i = 1; i < producers[p].room; i++) {
			uint8_t state = producers[p].state[i];
			unsigned times = deliveries(state);
			unsigned again = times > 1 ? times - 1 : 0;
			unsigned excused = again < excuses(state) ? again : excuses(state);
			if (state & ACKNOWLEDGED) {
				t->acknowledged++;
				t->lost += times == 0;
			} else if (state & PUSHED) {
				t->unacknowledged++;
				t->unacknowledged_delivered += times > 0;
			}
			t->duplicates_permitted += excused;
			t->duplicates_forbidden += again - excused;
		}
	}
}
