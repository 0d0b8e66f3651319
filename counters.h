/*
 * counters.h: what is counted for each queue as long as it lives, for people to look at: messages,
 * unless said otherwise. struct state, `.state` and struct queue_stat have a number for each, in this
 * order.
 */
#ifndef MQ_COUNTERS_H
#define MQ_COUNTERS_H

#define QUEUE_COUNTERS(X)                                                                          \
	X(bad)         /* files that were moved to .bad */                                         \
	X(discarded)   /* made room for a younger one */                                           \
	X(expired)     /* were dropped, or moved to another queue, because of their age */         \
	X(redelivered) /* came back with a try counted */                                          \
	X(dead)        /* were moved to the dead letters */                                        \
	X(opened)      /* were delivered to be closed */                                           \
	X(aborted)     /* of these were given back, by the client or for it */                     \
	X(flushes)     /* of the queue */

#endif
