/* load.h: what load.c (options, report), drive.c (connections) and workload.c share. */
#ifndef BENCH_LOAD_H
#define BENCH_LOAD_H

#include "body.h"
#include "wire.h"

#include <stdio.h>
#include <sys/socket.h>

enum {
	EXIT_CHECK = 1,    /* the server answered something it must not */
	EXIT_USAGE = 100,  /* the caller's mistake */
	EXIT_SYSTEM = 111, /* the system's */
	CONNECTIONS = PRODUCERS,
	QUEUE_NAME = 256
};

#define SECOND UINT64_C(1000000000) /* all times are in nanoseconds */

struct options {
	const struct protocol *protocol;
	const struct workload *workload;
	struct sockaddr_storage address;
	socklen_t address_length;
	unsigned connections;
	unsigned knocking; /* of them, at the start, not served yet at a time */
	unsigned queues;
	const char *queue;
	uint64_t shortest, longest; /* bodies */
	uint64_t count;             /* 0: until `duration` has passed */
	uint64_t duration;
	uint64_t burst;
	uint64_t interval; /* of churn's report */
	uint64_t timeout;
	uint32_t run;
	bool foreign;        /* messages of other runs are welcome */
	bool unordered;      /* the peer does not promise an order */
	bool allow_miss;     /* the peer may overlook a message that is there */
	bool tolerate_drops; /* somebody kills the workers */
	bool expect_empty;
	bool human;
	FILE *record;
};

/* Latencies, in buckets of 1.6 % and finer. */
struct histogram {
	uint64_t n;
	uint32_t buckets[64 * 64];
};

struct results {
	uint64_t begin;      /* of connecting; at `start` somebody serves each connection */
	uint64_t start, end; /* end: of the last operation that succeeded */
	uint64_t progress;   /* the same, or when there was reason to wait */
	uint64_t pushes, pops, misses, foreign, reordered;
	struct histogram push_latency, pop_latency;
	uint64_t cuts;         /* connections that were closed under us, and of these: */
	uint64_t cut_idle;     /* ... with no request on its way */
	uint64_t cut_push;     /* ... waiting for the reply of a push */
	uint64_t cut_pop;      /* ... waiting for the reply of a pop */
	uint64_t cut_pop_body; /* ... in the middle of a body */
	uint64_t cut_pop_end;  /* ... after the body, before the end of the reply */
	uint64_t lapses;       /* cuts right behind a delivery, which may come again */
	uint64_t slowest_interval, fastest_interval; /* churn: operations */
};

enum state {
	CLOSED,
	CONNECTING,
	BUSY,   /* a request is on its way */
	PARKED, /* until all are and the workload lets them go on */
	FINISHED
};

enum expecting { A_LINE, A_BODY, BODY_END };

struct conn {
	int fd;
	uint32_t index;
	enum state state;
	enum op next;  /* once it is connected */
	bool writable; /* epoll watches for that, too */

	/* the request: a text, then (push) a body and CR LF */
	struct body_id sent;
	char text[WIRE_LINE + BODY_HEAD];
	size_t text_length, out_length, out;
	uint64_t began;

	/* the reply */
	struct reply reply;
	enum expecting expecting;
	bool replying; /* its first byte has come */
	char line[WIRE_LINE];
	size_t line_length;
	unsigned end_length; /* how much of CR LF behind the body has come */
	struct body_check body;

	/* the last delivery, while the worker may not have removed the message yet */
	struct body_id last;
	bool last_unsettled;

	/* workload.c's */
	bool owes_pop;
	bool missed;                  /* the last pop */
	uint32_t last_seq[PRODUCERS]; /* the newest that this one popped, by producer */
	uint64_t random;
	char queue_name[QUEUE_NAME];
};

extern struct options opt;
extern struct results res;
extern struct conn *conns;
extern uint64_t now;

/* load.c: one line on standard error, then exit with that code. */
_Noreturn void die(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* ... with EXIT_CHECK, naming the connection and what it was doing. */
_Noreturn void conn_die(const struct conn *c, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
uint64_t clock_now(void);
void histogram_add(struct histogram *h, uint64_t latency);

/* drive.c: open all connections and let the workload have them until all are FINISHED. */
void drive(void);

/* workload.c */
enum step { STEP_PUSH, STEP_POP, STEP_PARK, STEP_FINISH };

struct workload {
	const char *name;
	enum step (*next)(struct conn *c);
	/* Nobody has anything to do. Returns how many ms to wait before all are asked
	 * again. */
	int (*parked)(void);
	bool one_shot;     /* a new connection for each operation */
	bool miss;         /* an empty queue is a valid answer */
	bool for_cache;    /* makes sense with a cache */
	bool timed;        /* --seconds only, no --count */
	bool counted;      /* --count is needed */
	bool until_miss;   /* ends without either */
	bool exactly_once; /* the report says what became of each message */
};

const struct workload *workload_find(const char *name);
extern const char workload_names[];
extern const struct workload expect_empty;
void workload_setup(void);
void workload_start(void);
struct body_id workload_message(struct conn *c);    /* the message to push now */
void workload_delivered(struct conn *c);            /* a complete body has come */
void workload_done(struct conn *c, enum verdict v); /* a complete reply has come */
void workload_cut(struct conn *c);

#endif
