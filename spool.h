/* spool.h: queues and their messages, kept as files below one directory. */
#ifndef MQ_SPOOL_H
#define MQ_SPOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "config.h"
#include "counters.h"
#include "message.h"
#include "queue_name.h"

/* What an acknowledged push, and a delivered message, survive. mqspool(5) has the table.
 */
enum spool_sync {
	SPOOL_SYNC_FULL, /* both: power loss */
	SPOOL_SYNC_PUSH, /* a push: power loss; a delivery: kill -9 */
	SPOOL_SYNC_NONE, /* both: kill -9 */
};

#define SPOOL_DEAD ".dead" /* behind a queue's name: the queue of its dead letters */

struct spool;
struct queue;

/*
 * Every function below that takes a queue's name takes it encoded (queue_name_encode).
 * Those that return int return -1 with errno for an error of the system: ENOSPC, EROFS,
 * EACCES, ...
 */

/*
 * The spool in directory `dir`, which must outlive it: a process has one at a time. Nothing is
 * opened yet: a spool that is missing shows at the first use, and a later use tries again.
 */
#define SPOOL_DEFAULT "/var/spool/mqd"

struct spool *spool_at(const char *dir, enum spool_sync sync);
void spool_close(struct spool *sp);

/* What to say of an errno of the functions below: as strerror, or better. */
const char *spool_strerror(int error);

/* Something was found in the spool that an operator should know of: `what` is one word, `path` is
 * relative to the spool. */
typedef void spool_report(const char *what, const char *path, const char *detail);

/*
 * The settings in force for a queue, or, if there is none of that name or `queue` is NULL, for a
 * queue without any of its own. Valid until the next call. A change of the files is seen after a
 * second at the latest; a mistake in them is told to whoever asked by spool_on_mistake, once.
 */
const struct config *spool_config(struct spool *sp, const char *queue);

/* Is it what the files say? 0; or -1 with errno: one of them could not be read, and never was. */
int spool_config_known(struct spool *sp, const char *queue);
void spool_on_mistake(struct spool *sp, spool_report *report);

/* Tell whoever asks how far a call is that takes long, which are spool_flush and spool_check: `done`
 * messages of `total`, as far as is known. NULL: nobody asks. */
typedef void spool_progress(uint64_t done, uint64_t total);
void spool_on_progress(struct spool *sp, spool_progress *progress);

/* Could a push of that length ever be accepted, by the settings of the queue or of a child of it? */
bool spool_accepts(struct spool *sp, const char *queue, uint64_t length);

/*
 * The spool's directory, for those who keep files of their own in it; -1 with errno. EPERM comes where
 * the directory, or that of a queue, must not be used because of what it is (place.c), which is told
 * once to whoever asked by spool_on_mistake. spool_is_refused: is that why it failed?
 */
int spool_dirfd(struct spool *sp);
bool spool_is_refused(const struct spool *sp);

#define SPOOL_SMALL (4096 - MESSAGE_HEADER_LEN) /* bytes of a body whose file is one block */

/* Where messages lie that are due at the same second: see delay.c. */
struct delayed {
	int parent, fd; /* .delay, and the directory in it */
	uint64_t due;   /* CLOCK_MONOTONIC, s */
	time_t date;    /* the same by the calendar, for the file's time of modification */
	bool is_next;   /* no other is due before */
	bool stale;     /* as the state was */
};

/* A message on its way in. To be treated as opaque. */
struct push {
	struct spool *spool;
	struct queue *queue;
	char queue_name[QUEUE_NAME_MAX + 1];
	char line[MESSAGE_HEADER_LEN];
	const char *body; /* of a small message, in memory */
	int fd, dirfd;    /* the file, and the directory that it lies in: .tmp, .claim, or -1 */
	char name[24];    /* its name there */
	bool staged;      /* the name is the caller's: see push_staged */
	uint64_t length;
	uint32_t crc;
	/* The caller may set these between push_begin and push_commit. */
	int64_t exptime; /* as memcached's: see proto.h */
	uint64_t expiry; /* or what message.h has, if it is known */
	uint32_t tries;
	int64_t delay; /* seconds; -1, and so at first: as the settings of the queue say */
	/* Between push_publish and push_settle. */
	struct published {
		struct queue *queue;
		struct delayed place; /* where it waits, if it is delayed */
		uint64_t number, logged;
		bool durable, unsynced;
	} out;
};

/*
 * Begin a message for a queue, which is made if it is missing; give it its body, in pieces with
 * push_write, or whole with push_body, if it has at most SPOOL_SMALL bytes and stays where it is
 * until the push ends; publish it. push_write: 0 or -1. push_commit: 0 once the
 * message is in the queue and as durable as the spool's sync says; 1 if the queue's limits do not
 * let it in, and nothing is stored; or -1. It ends the push in all cases. push_abort ends it with
 * nothing stored.
 */
void push_begin(struct push *p, struct spool *sp, const char *queue);
void push_body(struct push *p, const void *data, size_t len);
int push_write(struct push *p, const void *data, size_t len);
int push_commit(struct push *p, uint32_t flags);
void push_abort(struct push *p);

/*
 * Instead of push_begin: the body lies in a file of the spool's file system already, `name` (of at
 * most 23 bytes) in `dirfd`, behind MESSAGE_HEADER_LEN bytes of anything; `crc` is the crc32c of it.
 * One rename takes the file from there and makes it the message: wherever this process is killed
 * it is either the one or the other. What is not stored is there still, or again; only then, if it
 * is killed while it takes the message back, both may be, and if it cannot take it back the message
 * stays in the queue after all. Returns 0, or -1 and no push was begun.
 */
int push_staged(struct push *p, struct spool *sp, const char *queue, int dirfd, const char *name,
                uint64_t length, uint32_t crc);

/*
 * push_commit in two steps: push_publish makes the message visible, returns as push_commit does, and
 * with 0 push_settle makes it durable, and ends the push: 0; or -1, and it was not stored. Several
 * that are published before the first is settled share one flush, if the last is settled first.
 */
int push_publish(struct push *p, uint32_t flags);
int push_settle(struct push *p);

/*
 * Commit a push to its queue and to all its children, which get a copy of what is pushed to it; or,
 * if `fanout_only` says so, to these alone. Ends the push.
 */
struct spread {
	unsigned wanted, stored, full;   /* queues; what is neither stored nor full has failed */
	char failed[QUEUE_NAME_MAX + 1]; /* one that it could not be stored in; "": none */
	int error;                       /* why, or 0: it was full, as are all that failed */
};
void push_spread(struct push *p, uint32_t flags, struct spread *s);

/* Make a queue, if it is missing. 0 or -1. */
int spool_make(struct spool *sp, const char *queue);

/* How many bytes push_write should be given next, where more than that are to come: at most
 * PUSH_PIECE. The kernel caches a file that is written in such pieces in larger units. */
#define PUSH_PIECE 65536
size_t push_piece(const struct push *p);

/* A message on its way out, owned by this process. */
struct claim {
	struct message message;
	const char *body;    /* all of it, valid until the next call; NULL if it is too large */
	struct queue *queue; /* the rest is private */
	int fd;
	bool reusable; /* the file is small and may be written to */
	bool opened;   /* CLAIM_TO_OPEN */
	bool passed;   /* it was not for whom it was claimed: not opened after all */
};

enum claim_result {
	CLAIM_ERROR = -1,
	CLAIM_EMPTY,   /* no message waits, or there is no such queue */
	CLAIM_GOT,     /* *c is yours; end it with claims_finish or claim_release */
	CLAIM_DAMAGED, /* c->message.number was not fit to be sent and is in .bad now;
	                  call again */
};

/* Take the oldest message of a queue out of it. One that has expired is removed instead, or goes
 * where `expire_to` says; if there is no room for it, CLAIM_ERROR with ENOBUFS, and it stays the
 * oldest. One that has had its `max_tries` goes to the queue of dead letters, if there is room. */
enum claim_how {
	CLAIM_PLAINLY,
	CLAIM_TO_OPEN, /* it will be counted as opened, and as aborted if it is released */
	CLAIM_ANYHOW,  /* for an operator: from a queue that is paused, too */
};
enum claim_result spool_claim(struct spool *sp, const char *queue, enum claim_how how,
                              struct claim *c);

/* Look at the oldest message, which stays where it is. CLAIM_GOT: end it with look_end. What is not
 * fit to be sent, or has expired, is passed over. */
enum claim_result spool_peek(struct spool *sp, const char *queue, struct claim *c);

/* Take this one out, wherever it stands. CLAIM_EMPTY: it does not wait. */
enum claim_result spool_claim_number(struct spool *sp, const char *queue, uint64_t number,
                                     struct claim *c);

/* Read up to `len` bytes of the body from `offset`. As pread(2). */
ssize_t claim_read(const struct claim *c, void *buf, size_t len, uint64_t offset);

/* Have up to `len` bytes of the body from `offset` go to descriptor `out` without a copy. As
 * write(2); 0 if the file was truncated; ENOSYS or EINVAL where only claim_read will do. */
ssize_t claim_send(const struct claim *c, int out, size_t len, uint64_t offset);

/* The messages were delivered: remove them. Returns 0; -1 if one could not be removed,
 * which then comes again. All claims are ended in both cases. That they are removed may not
 * survive a power loss until spool_settle. */
int claims_finish(struct claim *claims, size_t n);

/*
 * Move a claimed message to the end of another queue, which is made if it is missing, with all that
 * its header says but what is to be forgotten. Returns 0 with the message as durable there as a push
 * is, and the claim is ended; 1 if that queue is full, and nothing has happened; or -1 with errno,
 * and it is back at its place. If this process dies at the wrong moment the message is in both.
 */
enum claim_forget { FORGET_NOTHING, FORGET_TRIES, FORGET_EXPIRY };
int claim_move(struct claim *c, const char *queue, enum claim_forget forget);

/*
 * Removals are flushed together with what else is, and off the client's path. So that no more
 * than one reply's messages can come again after a power loss, call spool_settle before anything
 * further is written to the client, and when nothing comes from it for a moment. It costs nothing
 * if spool_is_settled, or if a push of this process was flushed since. Returns 0; -1 with errno if
 * they may come again.
 */
bool spool_is_settled(const struct spool *sp);
int spool_settle(struct spool *sp);

/* Do what is due in the spool and takes long, at a time when nobody waits for this process. */
void spool_tidy(struct spool *sp);

/* It was not delivered: back to its old place, with one more try counted if it `failed`, rather than
 * we did. Ends the claim; returns 0, or -1 and then it comes back as an orphan does. */
int claim_release(struct claim *c, bool failed);

/* Drop a queue with all in it. Returns 1, 0 if there is none, or -1. Its files wait in .trash. */
int spool_delete(struct spool *sp, const char *queue);

/* Unlink what lies in .trash, without a lock, until all is gone or `interrupted` (asked now and
 * then; NULL: never) returns true. Returns whether it came to the end. */
bool spool_empty_trash(struct spool *sp, bool (*interrupted)(void));

/* The encoded names of all queues, sorted; a NULL ends them. NULL with errno on error. */
char **spool_list(struct spool *sp);
void spool_list_free(char **names);

struct queue_stat {
	uint64_t waiting;   /* messages */
	uint64_t in_flight; /* messages claimed now */
	uint64_t put;       /* messages that ever came in */
	uint64_t taken;     /* messages that ever went out, on whatever way */
	uint64_t bytes;     /* of body, in the waiting ones */
	uint64_t delayed;   /* messages that may not be delivered yet */
	uint64_t waiters;   /* processes that wait for a message */
	uint64_t
	    paused_ms; /* for how much longer nothing is delivered; UINT64_MAX: until it is ended */
#define COUNTER(name) uint64_t name; /* ever */
	QUEUE_COUNTERS(COUNTER)
#undef COUNTER
	int64_t oldest;  /* when the head came in, seconds since 1970; 0 if none waits */
	uint64_t age_ms; /* since then; 0 if none waits */
};

/* How a queue stands. Orphans are put back first. Returns 1, 0 if there is none, or -1.
 */
int spool_stat(struct spool *sp, const char *queue, struct queue_stat *st);

/* Put the messages back whose owners have died, in all queues. Returns how many. */
uint64_t spool_sweep(struct spool *sp);

/* The `max` lowest numbers that wait, in order, into `numbers`. Returns how many, or -1.
 */
ssize_t spool_first(struct spool *sp, const char *queue, uint64_t *numbers, size_t max);

struct stat;
/*
 * Call `visit` for each message of a queue that is on its way to a client, in no order, with the
 * state of its file; `orphan`: nobody owns it any more. Nothing is changed, but the queue's lock is
 * held meanwhile. Returns 1, 0 if there is no such queue, or -1.
 */
typedef void spool_open_visitor(void *arg, uint64_t number, const struct stat *st, bool orphan);
int spool_each_open(struct spool *sp, const char *queue, spool_open_visitor *visit, void *arg);

/* Open a waiting message to read it, without taking it; end with look_end.
 * As spool_claim, but what is damaged stays where it is. */
enum claim_result spool_look(struct spool *sp, const char *queue, uint64_t number, struct claim *c);
void look_end(struct claim *c);

/* Remove one waiting message. Returns 1, 0 if it does not wait, or -1. */
int spool_remove(struct spool *sp, const char *queue, uint64_t number);

/* Remove all messages that wait now. Returns how many, 0 also if there is no such queue,
 * or -1. */
int64_t spool_flush(struct spool *sp, const char *queue);

/*
 * Deliver nothing from a queue, which is made if it is missing, for so many milliseconds; 0: from
 * now on again; SPOOL_FOREVER: until it is told so. What has an end ends at the next reboot, too.
 * Returns 0 or -1.
 */
#define SPOOL_FOREVER UINT64_MAX
int spool_pause(struct spool *sp, const char *queue, uint64_t ms);

/* Remove the messages that have expired, or move them where `expire_to` says. Returns how many, 0 also if there is no such queue, or -1. */
int64_t spool_flush_expired(struct spool *sp, const char *queue);

/*
 * The settings: spool_settings calls `visit` for each key with the value in force, and the file,
 * relative to the spool, and the line that it comes from; 0: it is the default. Mistakes in the
 * files are reported before. Returns 1, 0 if there is no such queue, or -1.
 * spool_configure changes the .config of a queue, which is made if it is missing, as config_edit
 * does. Returns 0, 1 if a setting was refused and reported, or -1.
 * Of both: `queue` NULL is the spool's own.
 */
typedef void spool_setting(const char *key, const char *value, const char *file, unsigned line);
int spool_settings(struct spool *sp, const char *queue, spool_setting *visit, spool_report *report);
int spool_configure(struct spool *sp, const char *queue, char *const *settings, size_t n,
                    spool_report *report);

/*
 * Read everything in the spool and report what is not as it should be. With `repair`, put
 * orphans back, move damaged messages to .bad, remove what dead processes left in .tmp
 * and .trash, and count anew. Returns the number of reports, or -1.
 */
int64_t spool_check(struct spool *sp, bool repair, spool_report *report);

#endif
