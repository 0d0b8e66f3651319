/* wait.h: processes that wait for a message stand in line, one line for each queue. */
#ifndef MQ_WAIT_H
#define MQ_WAIT_H

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>

#include "queue_name.h"
#include "spool.h"

/* A place in the line of a queue. To be treated as opaque. */
struct waiter {
	struct spool *spool;
	struct queue *queue;
	char queue_name[QUEUE_NAME_MAX + 1];
	uint64_t ticket;  /* our number in the line, a fifo in .wait */
	int dirfd;        /* .wait */
	int own;          /* our fifo: as long as it is open we are there */
	int before;       /* the fifo of who is before us, or -1: we are the first */
	bool watching;    /* of the first: it will be told when something comes into the queue */
	uint64_t look_ms; /* when to look for a dead process's message, if not 0 */
};

/* Join the line of a queue, which is made if it is missing. 0, or -1 with errno; then there is
 * nothing to end. */
int waiter_begin(struct waiter *w, struct spool *sp, const char *queue);

/* Whether it is our turn: nobody waits longer than we do. Only then should the queue be looked at,
 * and it must be before each waiter_sleep. */
bool waiter_is_first(const struct waiter *w);

/*
 * Sleep until a message may be there for us, at most until `deadline` (os_monotonic_ms), or until
 * something happens on `client`, whose events and revents are those of poll(2). 0, also when a
 * signal came; -1 with errno, and the place in the line may be lost.
 */
int waiter_sleep(struct waiter *w, struct pollfd *client, uint64_t deadline);

/* Leave the line: it moves up. */
void waiter_end(struct waiter *w);

/* Give back what is kept from one wait for the next, when nobody waits for this process. */
void waiter_tidy(void);

#endif
