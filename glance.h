/* glance.h: look at a spool without a lock, and without changing anything in it. */
#ifndef MQ_GLANCE_H
#define MQ_GLANCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "message.h"
#include "spool.h"

/*
 * Open a spool that spool_at gave, to be looked at: its log is not replayed, whoever owns it. 0; -1
 * with errno. Of what spool.h has only spool_list, spool_config without a queue, and spool_close may
 * be used then.
 */
int glance_open(struct spool *sp);

/* Why mqd cannot use an open spool, as far as can be told without writing to it; or NULL. Valid until
 * the next call. */
const char *glance_fault(struct spool *sp);

/*
 * How a queue stands, as spool_stat tells it: but orphans count as in flight, and what is delayed
 * and due as delayed, until a process that uses the queue sees to them. Returns 1, 0 if there is no
 * such queue, or -1.
 */
int glance_queue(struct spool *sp, const char *queue, struct queue_stat *qs);

/* One waiting message. */
struct glance_message {
	uint64_t number;
	bool damaged; /* by its first line and its length; the checksum is not looked at */
	struct message message;
	int64_t age_ms;
	size_t len; /* bytes of `body`, which are the first of it */
	char body[200];
};

/* The oldest messages of a queue, *n of them, `max` at the most. As glance_queue. */
int glance_messages(struct spool *sp, const char *queue, unsigned max,
                    struct glance_message *messages, unsigned *n);

/*
 * A queue's name for people, into `label` of QUEUE_NAME_MAX + 1 bytes: as clients have it, if that is
 * UTF-8 without control characters and without `%`; else as in the spool, where it is ASCII and has
 * a `%`. So no two queues look the same, and mqctl takes both.
 */
void glance_label(const char *queue, char *label);

#endif
