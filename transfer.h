/* transfer.h: what mqctl's commands that move messages share. */
#ifndef MQ_TRANSFER_H
#define MQ_TRANSFER_H

#include <stdbool.h>

#include "spool.h"

/* From now on ^C and SIGTERM are no end but a wish, which transfer_interrupted tells: what was begun
 * with one message is brought to its end. A second one ends the process. */
void transfer_mind_signals(void);
bool transfer_interrupted(void);

/* Take all messages of a server, or those of the queues that are named, see drain.c; and of a stream
 * on standard input, see transfer.c. They return an exit code. */
struct drain_options {
	bool reliable;      /* get with open and close, else as the server tells */
	bool plain;         /* get alone, likewise */
	bool strip_padding; /* spaces at the end of a body */
};
int drain(struct spool *sp, const char *address, const struct drain_options *o, int argc,
          char *argv[]);
int import_stream(struct spool *sp);

#endif
