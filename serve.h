/* serve.h: one connection, from its first byte to its last. */
#ifndef MQ_SERVE_H
#define MQ_SERVE_H

#include <stdbool.h>
#include <stdint.h>

#include "spool.h"

#define MQD_VERSION "1.0.0"

struct serve_options {
	uint64_t max_body;        /* bytes; a larger one is refused */
	uint64_t max_connections; /* what `stats settings` tells */
	int idle_timeout;         /* seconds until a silent client is left, 0 = never */
	bool ask_password;        /* of auth_load's, before anything else */
	int keepalive;            /* seconds until its host is asked, see os_keepalive */
};

/* Serve the client that is read from `in` and answered on `out` (the same for a socket)
 * until it quits, leaves, or serve_terminate was called. Returns false if it had to give a password
 * and did not: then the spool was not looked at. */
bool serve(struct spool *sp, const struct serve_options *options, int in, int out);

/* To be called from the handler of the signals that ask the process to end, and of SIGALRM: serve
 * returns after the command at hand, or the process exits when that takes too long. */
void serve_terminate(int sig);

#endif
