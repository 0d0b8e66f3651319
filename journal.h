/* journal.h: one log per spool, so that what is pushed and taken shares one flush. */
#ifndef MQ_JOURNAL_H
#define MQ_JOURNAL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#define JOURNAL_BODY_MAX 16384 /* bytes; a larger message is flushed by itself */

#define JOURNAL_NEVER UINT64_MAX /* a position that no flush reaches */

struct spool;
struct queue;
struct shared_ends;

/* A process's handle on the log; part of struct spool, and private to journal.c. */
struct journal {
	int fd, sync_fd; /* .journal and .sync; both -1 while there is none that can be used */
	struct shared_ends *ends; /* sync_fd, mapped */
	uint64_t id;              /* of the log that fd leads to */
	dev_t dev;                /* that it lies on, as os_stat says */
	uint64_t unsynced;        /* its position behind our last removal that matters; 0: none */
	uint64_t look_ms;         /* not to be looked for before */
	uint64_t make_ms;         /* not to be made before */
	bool is_long;             /* it is time for a checkpoint */
	bool passed_over;         /* there is one that was not replayed: journal_open again */
	uint8_t turn;             /* counts the logs that were used */
	bool has_failed;          /* it is time for journal_make: nothing is logged until then */
};

/*
 * Of an opened spool: look for the log, and if the system was rebooted, or the file system mounted
 * again, since it was written replay it first. Returns 0; -1 with errno if that failed: then messages
 * may be missing that were acknowledged, and the spool must not be used. To be called before anything
 * else, once, and again while `passed_over` is set.
 */
int journal_open(struct spool *sp);
void journal_close(struct spool *sp);

/* Make the log if there is none, or if it has failed. Where that fails there is none, and it is tried again after a
 * second. To be called without a lock. */
void journal_make(struct spool *sp);

/*
 * Append. All return the position behind what was appended, for journal_flush, or 0 if it could
 * not be logged: what is not in the log must be flushed by itself.
 *
 * journal_push: message `number` with a body of `length` bytes, whose file begins with `line`. The
 * body is at `body`, or, if that is NULL, in the file `fd`. With the
 * queue's lock held, after the message got its number: so the log's order is that of the queue.
 * journal_stored: the same for a message that is flushed by itself.
 * journal_take: the message is about to be unlinked, or was just now.
 */
uint64_t journal_push(struct queue *q, uint64_t number, const char *line, const char *body, int fd,
                      uint64_t length);
uint64_t journal_stored(struct queue *q, uint64_t number);
uint64_t journal_take(struct queue *q, uint64_t number);

/* Return 0 once all in front of position `at` would survive a power loss, or -1. */
int journal_flush(struct spool *sp, uint64_t at);

/* The directory of a deleted queue, inode `ino` on device `dev` as os_stat says, is about to be removed,
 * and its inode to be another queue's: which must not get from the log what was in this one. Returns 0
 * once that would survive a power loss, where the spool promises it; or -1: it must not be removed now. */
int journal_drop(struct spool *sp, dev_t dev, uint64_t ino);

/* If the log is half full make room in it, unless somebody is at it. This may take long; to be
 * called without a lock, when nobody waits. */
void journal_checkpoint(struct spool *sp);

/* The log of an opened spool as its files have it, without using it. Returns 1; 0 if there is none
 * that was in use since the last reboot; or -1. */
struct journal_glance {
	uint64_t size;            /* bytes that fit */
	uint64_t unflushed;       /* appended, and not on the disk yet */
	uint64_t waiting;         /* not given up by a checkpoint: replay would read them */
	uint64_t flushes;         /* since .sync was made, modulo 2^32 */
	bool failed;              /* a flush was, and it will be made anew */
	struct timespec appended; /* when something was, last */
};
int journal_glance(struct spool *sp, struct journal_glance *g);

#endif
