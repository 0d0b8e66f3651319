/* replay.h: what the log says of the messages, done to their queues. All with LOCK_CHECKPOINT held. */
#ifndef MQ_REPLAY_H
#define MQ_REPLAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct spool;

enum record_type { RECORD_PUSH = 1, RECORD_STORED, RECORD_TAKE, RECORD_DROP };

/* What the log says last about a message. */
struct entry {
	uint64_t ino, number; /* of the queue's directory, of the message in it */
	uint64_t at;          /* where the record stands */
	uint32_t type, length;
	const char *file; /* of a push: all `length` bytes of it */
};

struct log {
	dev_t dev; /* as os_stat says, of all queues in it */
	char *ring;
	struct entry *entries; /* one of each message, by queue and number */
	size_t n;
	uint64_t end; /* where the last whole record ends */
	uint64_t mid; /* where the first in the second half begins */
};

/* After a reboot: have each message be there, whole, or not, as the log says. With `distrust` no .state
 * is believed: it may have been made without the log. Returns 0; or -1 with errno: then it can be done
 * again, and is not done until that succeeds. */
int replay_log(struct spool *sp, const struct log *l, bool distrust);

/* Make durable what the log says in front of `mid`. Returns 0; -1 if a flush failed. */
int sync_log(struct spool *sp, const struct log *l);

/* After a flush has failed: have the next os_syncfs write all messages of the log once more. What is
 * torn by now is restored. Returns 0, or -1 with errno. */
int rescue_log(struct spool *sp, const struct log *l);

#endif
