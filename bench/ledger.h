/* ledger.h: what became of every message of this run. */
#ifndef BENCH_LEDGER_H
#define BENCH_LEDGER_H

#include <stdbool.h>
#include <stdint.h>

struct tally {
	uint64_t acknowledged;
	uint64_t unacknowledged; /* pushes whose reply never came */
	uint64_t unacknowledged_delivered;
	uint64_t lost;                 /* acknowledged, never delivered */
	uint64_t duplicates_permitted; /* further deliveries that a cut excuses */
	uint64_t duplicates_forbidden; /* further deliveries that nothing excuses */
};

/* A push begins. Returns its sequence number, from 1 for each producer; 0 if there are no
 * more numbers or no memory. */
uint32_t ledger_push(uint32_t producer);

/* The push was acknowledged. */
void ledger_acknowledge(uint32_t producer, uint32_t seq);

enum delivery {
	DELIVERY_FIRST,
	DELIVERY_AGAIN,
	DELIVERY_UNKNOWN /* nobody in this run pushed it; recorded all the same */
};

/* The complete body was received. Returns -1 if there is no memory. */
int ledger_deliver(uint32_t producer, uint32_t seq);

/* The connection was cut so soon after (or in) this delivery that it may come once more.
 */
void ledger_excuse(uint32_t producer, uint32_t seq);

/* How many acknowledged messages have not been delivered yet. */
uint64_t ledger_missing(void);

void ledger_tally(struct tally *t);

#endif
