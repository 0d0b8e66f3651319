/*
 * workload.c: what each connection does next, and whether what it got was right.
 *
 * A workload is a function that is asked after every reply: push, pop, park (until all
 * others are parked, too) or finish. What holds for every queue is checked for every
 * workload: a body comes whole, once, and for each consumer in the order in which its
 * producer pushed; a queue in which an acknowledged message waits for nobody else is not
 * empty.
 */
#include "load.h"

#include "ledger.h"

#include <stdlib.h>
#include <string.h>

enum {
	RETRY_MS = 10,
	/* How long messages may stay away: mqd puts a dead worker's message back within a
	   second. */
	SETTLE_S = 2,
	GIVE_UP_S = 5
};

static uint64_t deadline;
static uint64_t issued; /* pushes (drain: pops) begun */
static uint64_t acknowledged;
static uint64_t last_event; /* exchange: a hit, or a cut after which one may come */
static bool finishing;

/* churn */
static bool pushing;
static uint64_t issued_in_burst;
static uint64_t waiting[CONNECTIONS]; /* by queue: acknowledged, and no pop begun for it */
static struct {
	uint64_t begin, pushes, pops;
	uint64_t mark;    /* up to here time is booked */
	uint64_t time[2]; /* spent popping, pushing */
} slice;

static bool
may_issue(void)
{
	return (opt.count == 0 || issued < opt.count) && (opt.duration == 0 || now < deadline);
}

static enum step
push_next(struct conn *c)
{
	(void)c;
	if (!may_issue())
		return STEP_FINISH;
	issued++;
	return STEP_PUSH;
}

static enum step
alternate_next(struct conn *c)
{
	return c->owes_pop ? STEP_POP : push_next(c);
}

static enum step
drain_next(struct conn *c)
{
	if (c->missed || !may_issue())
		return STEP_FINISH;
	issued++;
	return STEP_POP;
}

static enum step
empty_next(struct conn *c)
{
	return c->index < opt.queues && !c->missed ? STEP_POP : STEP_FINISH;
}

/* Push and pop at random until `count` messages are acknowledged, then pop what is left.
 */
static enum step
exchange_next(struct conn *c)
{
	if (finishing)
		return STEP_FINISH;
	if (acknowledged < opt.count) {
		c->random = c->random * 6364136223846793005 + 1442695040888963407;
		if (issued == opt.count || c->random >> 63 == 0)
			return STEP_POP;
		issued++;
		return STEP_PUSH;
	}
	bool park = c->missed;
	c->missed = false;
	return park ? STEP_PARK : STEP_POP;
}

/* All queues are empty: finished, unless something may still come back. */
static int
exchange_parked(void)
{
	uint64_t patience = opt.tolerate_drops ? SETTLE_S * SECOND : 0;

	if (ledger_missing() > 0)
		patience = GIVE_UP_S * SECOND;
	now = clock_now();
	res.progress = now; /* waiting is right here */
	finishing = now - last_event >= patience;
	return finishing ? 0 : RETRY_MS;
}

static enum step
churn_next(struct conn *c)
{
	uint64_t *messages = &waiting[c->index % opt.queues];

	if (finishing)
		return STEP_FINISH;
	if (pushing && issued_in_burst < opt.burst) {
		issued_in_burst++;
		return STEP_PUSH;
	}
	if (pushing || *messages == 0)
		return STEP_PARK;
	--*messages;
	return STEP_POP;
}

static double
per_second(uint64_t n, uint64_t time)
{
	return time == 0 ? 0 : (double)n * (double)SECOND / (double)time;
}

/* Book the time up to now; print and begin anew at the end of each interval. */
static void
churn_tick(void)
{
	while (now >= slice.begin + opt.interval) {
		uint64_t end = slice.begin + opt.interval, ops = slice.pushes + slice.pops;
		slice.time[pushing] += end - slice.mark;
		if (end <= deadline) {
			printf("interval from=%.0f to=%.0f ops_s=%.0f push_s=%.0f "
			       "pop_s=%.0f\n",
			       (double)(slice.begin - res.start) / (double)SECOND,
			       (double)(end - res.start) / (double)SECOND,
			       per_second(ops, opt.interval),
			       per_second(slice.pushes, slice.time[1]),
			       per_second(slice.pops, slice.time[0]));
			fflush(stdout);
			if (res.slowest_interval == 0 || ops < res.slowest_interval)
				res.slowest_interval = ops;
			if (ops > res.fastest_interval)
				res.fastest_interval = ops;
		}
		slice.begin = slice.mark = end;
		slice.pushes = slice.pops = slice.time[0] = slice.time[1] = 0;
	}
}

/* All that was pushed is acknowledged, or all is popped: turn round. */
static int
churn_parked(void)
{
	now = clock_now();
	churn_tick();
	slice.time[pushing] += now - slice.mark;
	slice.mark = now;
	pushing = !pushing;
	issued_in_burst = 0;
	finishing = pushing && now >= deadline;
	return 0;
}

const char workload_names[] = "alternate, push, drain, churn, perrequest, exchange";

static const struct workload workloads[] = {
    {.name = "alternate", .next = alternate_next, .for_cache = true},
    {.name = "push", .next = push_next, .for_cache = true},
    {.name = "drain", .next = drain_next, .miss = true, .until_miss = true},
    {.name = "churn", .next = churn_next, .parked = churn_parked, .timed = true},
    {.name = "perrequest", .next = alternate_next, .one_shot = true, .for_cache = true},
    {
        .name = "exchange",
        .next = exchange_next,
        .parked = exchange_parked,
        .miss = true,
        .counted = true,
        .exactly_once = true,
    },
};

const struct workload expect_empty = {
    .name = "expect-empty",
    .next = empty_next,
    .miss = true,
};

const struct workload *
workload_find(const char *name)
{
	for (size_t i = 0; i < sizeof workloads / sizeof workloads[0]; i++)
		if (strcmp(workloads[i].name, name) == 0)
			return &workloads[i];
	return NULL;
}

void
workload_setup(void)
{
	conns = calloc(opt.connections, sizeof *conns);
	if (conns == NULL)
		die(EXIT_SYSTEM, "no memory for %u connections", opt.connections);
	for (uint32_t i = 0; i < opt.connections; i++) {
		struct conn *c = &conns[i];
		uint32_t queue = opt.protocol->keeps ? i : i % opt.queues;
		bool several = opt.protocol->keeps || opt.queues > 1;
		c->index = i;
		c->random = i;
		snprintf(c->queue_name, sizeof c->queue_name, several ? "%s-%u" : "%s", opt.queue,
		         queue);
	}
}

void
workload_start(void)
{
	now = clock_now();
	res.start = res.end = last_event = now;
	slice.begin = slice.mark = now;
	deadline = now + opt.duration;
	pushing = true;
}

struct body_id
workload_message(struct conn *c)
{
	uint32_t seq = ledger_push(c->index);

	if (seq == 0)
		die(EXIT_SYSTEM, "no room to remember more messages");
	return (struct body_id){.run = opt.run, .producer = c->index, .seq = seq};
}

static void
record(const char *what, struct body_id id)
{
	if (opt.record != NULL)
		fprintf(opt.record, "%s %u %u %u\n", what, id.run, id.producer, id.seq);
}

/* A consumer must see each producer's messages in order: one takes after another. */
static void
check_order(struct conn *c, struct body_id id)
{
	uint32_t *last = &c->last_seq[id.producer];

	if (id.seq < *last) {
		res.reordered++;
		if (!opt.unordered)
			conn_die(c, "message %u of producer %u after its message %u", id.seq,
			         id.producer, *last);
	}
	*last = id.seq;
}

void
workload_delivered(struct conn *c)
{
	struct body_id id = c->body.id;

	if (opt.workload == &expect_empty)
		conn_die(c, "message %u of producer %u is left", id.seq, id.producer);
	if (opt.protocol->keeps) {
		if (memcmp(&id, &c->sent, sizeof id) != 0)
			conn_die(c, "not the value that was set last");
		return;
	}
	if (id.run != opt.run) {
		if (!opt.foreign)
			conn_die(c, "a message of run %u", id.run);
		res.foreign++;
		return;
	}
	int delivery = ledger_deliver(id.producer, id.seq);
	if (delivery == -1)
		die(EXIT_SYSTEM, "no room to remember more messages");
	if (delivery == DELIVERY_UNKNOWN && opt.workload->next != drain_next)
		conn_die(c, "message %u of producer %u, never pushed", id.seq, id.producer);
	record("pop", id);
	c->last = id;
	c->last_unsettled = true;
	if (opt.tolerate_drops)
		return; /* a message that comes back comes late; ledger_tally judges the
		           rest */
	if (delivery == DELIVERY_AGAIN)
		conn_die(c, "message %u of producer %u a second time", id.seq, id.producer);
	check_order(c, id);
}

static void
missed(struct conn *c)
{
	res.misses++;
	c->missed = true;
	if (!opt.workload->miss && !opt.allow_miss)
		conn_die(c, "the queue is said to be empty, but a message waits in it");
	if (opt.workload->next == churn_next)
		waiting[c->index % opt.queues]++;
}

void
workload_done(struct conn *c, enum verdict v)
{
	if (opt.workload->next == churn_next)
		churn_tick();
	if (v == REPLY_MISS) {
		missed(c);
		return;
	}
	res.progress = res.end = now;
	if (c->reply.op == OP_PUSH) {
		ledger_acknowledge(c->sent.producer, c->sent.seq);
		record("push", c->sent);
		acknowledged++;
		waiting[c->index % opt.queues]++;
		res.pushes++;
		slice.pushes++;
		histogram_add(&res.push_latency, now - c->began);
	} else {
		last_event = now;
		c->missed = false;
		res.pops++;
		slice.pops++;
		histogram_add(&res.pop_latency, now - c->began);
	}
	c->owes_pop = c->reply.op == OP_PUSH;
}

/* Whether the push on its way happened is not known: another one must be issued for it.
 */
void
workload_cut(struct conn *c)
{
	if (c->state == BUSY && c->reply.op == OP_PUSH)
		issued--;
	if (c->last_unsettled) {
		last_event = now;
		ledger_excuse(c->last.producer, c->last.seq);
		c->last_unsettled = false;
		res.lapses++;
	}
}
