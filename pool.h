/* pool.h: processes that wait for connections and serve them. */
#ifndef MQ_POOL_H
#define MQ_POOL_H

#include <stdint.h>

#include "listen.h"
#include "serve.h"
#include "spool.h"

struct pool_options {
	uint64_t spares;  /* how many workers shall wait for a connection */
	int idle_timeout; /* seconds without a connection until the pool ends, 0 = never */
	/* Called with the argument when a signal ends the pool in order; -1 with errno, and it does
	 * not begin. */
	int (*ready)(const void *argument);
	const void *argument;
};

/*
 * Serve the connections that come in on the sockets, each in a process of its own, at most
 * serve->max_connections at a time. Returns 0 after SIGTERM or SIGINT, when those that are
 * served have ended, or when nobody was connected for idle_timeout (what connects from then
 * on stays in the sockets' queues); -1 with errno if it cannot begin.
 */
int pool_serve(const struct listeners *l, const char *spool_dir, enum spool_sync sync,
               const struct serve_options *serve, const struct pool_options *options);

#endif
