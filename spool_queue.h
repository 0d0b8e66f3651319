/* spool_queue.h: the inside of a spool, for what is part of it: spool.c, claim.c, queue.c and those
 * that they rest on. Who only uses a spool needs spool.h. */
#ifndef MQ_SPOOL_QUEUE_H
#define MQ_SPOOL_QUEUE_H

#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>

#include "config.h"
#include "journal.h"
#include "os.h"
#include "spool.h"
#include "state.h"

#define SPOOL_QUEUES 64 /* handles kept open; more than a connection uses at a time */
#define SPARES 64       /* files of delivered messages that a queue keeps for its next pushes */
#define SPOOL_BUFFER (1 << 17) /* a message up to this size is read once */

struct queue {
	struct spool *spool;
	bool open;
	char name[QUEUE_NAME_MAX + 1]; /* "" once the name leads elsewhere */
	char state_path[QUEUE_NAME_MAX + 8];
	int dirfd, statefd, claimfd, tmpfd; /* the last two are opened when needed */
	int sparefd;                        /* our own spent file in .claim, locked, or -1 */
	uint64_t spare;                     /* its number */
	dev_t dev;                          /* of .state */
	ino_t ino;
	uint64_t dir_ino; /* of the directory: the log's name for the queue */
	bool unsettled;   /* messages were removed from it since the last spool_settle */
	unsigned refs;    /* claims and pushes that use it */
	unsigned long last_use;
	struct state state; /* valid while the lock is held, later good for a guess */
	size_t raw_len;     /* STATE_LEN if raw is what the file held when we last saw it */
	char raw[STATE_LEN];
	struct state stored;  /* what raw says */
	bool configured;      /* the settings were looked at */
	uint64_t looked;      /* when they were, CLOCK_MONOTONIC, ms; 0: only when it was opened */
	struct config config; /* in force */
	struct config_file config_file;
};

struct spool {
	const char *dir;
	enum spool_sync sync;
	int rootfd;
	uid_t owner;   /* of the spool, and so of every queue */
	dev_t dev;     /* of its directory */
	bool refused;  /* it cannot be used because of what it is: see place.c */
	ino_t refusal; /* the directory of which that was told last */
	pid_t pid;     /* of the process that uses it: a spool is not to be taken across a fork */
	char boot[OS_BOOT_ID_LEN];
	bool knows_boot;
	unsigned long uses, tmp_count;
	size_t nqueues; /* handles that were ever used; pages of the others are not even touched */
	struct journal journal;
	bool configured; /* these as in struct queue */
	uint64_t looked;
	struct config config;
	struct config_file config_file;
	spool_report *on_mistake;
	spool_progress *on_progress;
	struct queue queues[SPOOL_QUEUES];
	char buf[SPOOL_BUFFER];
};

static const int dir_flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
/* Never follows a link, never waits for the other end of a fifo. */
static const int read_flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;
static const int write_flags = O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;

/* Close it, if it is open. Like each function that ends something here, it keeps errno. */
void close_fd(int *fd);

/* All of it, at that offset. 0 or -1. */
int file_write(int fd, const void *data, size_t len, uint64_t offset);

/* Open the directory `name` in `parent`, made if it is missing. A descriptor, or -1. */
int dir_open_or_make(int parent, const char *name);

/* Call `visit` for each entry of directory `fd` that is named like a message, in no
 * order, until it returns other than 0. Returns what it returned last, or -1. */
typedef int number_visitor(void *arg, int dirfd, uint64_t number, const char *name);
int dir_each_number(int fd, number_visitor *visit, void *arg);

/* What a listing of a queue's directory says; list_number is the visitor that fills it.
 */
struct listing {
	uint64_t waiting, bytes;
	uint64_t lowest, highest; /* 0 if there is none */
	uint64_t from;            /* numbers below are passed over */
};
number_visitor list_number;

/* How many messages are in .claim of an open queue, without the spent ones; and how many processes
 * wait for one. Return 0; or -1 with an error that may pass. */
int queue_in_flight(int dirfd, uint64_t *n);
int queue_waiters(int dirfd, uint64_t *n);

/* The length of the body in a message's file of this size. */
uint64_t body_bytes(const struct stat *st);

/* Lock an open file, waiting for it. 0 or -1. */
int flock_wait(int fd);

/* Try to become the owner of an open file: 1, 0 if somebody else is, -1. */
int file_own(int fd);

/* Count a failed delivery in the file of a message that this process owns, if it can be written. */
void file_count_try(int fd);

/*
 * Lock a queue by its name and load its state. The handle may have grown old (the queue
 * was deleted, moved, or lost its .state), so the name is looked up again under the lock.
 * Returns 1 and sets *qp, 0 if there is no such queue and `create` is not set, -1.
 */
int queue_lock(struct spool *sp, const char *name, bool create, struct queue **qp);
void queue_unlock(struct queue *q);

/* Could a message of that length ever be accepted, by the queue's settings? */
bool queue_accepts(struct spool *sp, const char *queue, uint64_t length);

/* Have whoever waits for a message of this queue look at it. */
void queue_wake(struct queue *q);

/* Without the lock: have something to guess by in q->state, if nothing was ever read. */
void queue_glance(struct queue *q);

/* The handle of a queue, not locked. As queue_lock. */
int queue_find(struct spool *sp, const char *name, bool create, struct queue **qp);

/* The settings of a queue, looked at again if that is more than a second ago; what is wrong in them
 * is told, so not with the lock held. q->config has what was found last. */
const struct config *queue_config(struct queue *q);
/* Is q->config what the files say? 0; or -1 with errno: they could not be read, and never were. */
int queue_config_known(const struct queue *q);

/* By the settings of its queue, and the wall clock. */
bool queue_has_expired(const struct message *m, const struct config *c);

/* A claimed message: if it has expired drop it, or move it where `expire_to` says. Returns 1 and the
 * claim is ended, 0 if it has not, or -1 and it is back. */
int claim_expired(struct claim *c);

/* What a state tells of its queue, as spool_stat has it. The rest of *qs is 0. */
void queue_figures(const struct state *s, struct queue_stat *qs);

/* Lock the queue that a handle stands for, wherever its directory is now. 0 or -1. */
int queue_relock(struct queue *q);

/* After a remount .state may be older than the directory: have it made anew by whoever uses the queue
 * next. 0 or -1. */
int queue_distrust(struct queue *q);

/* Forget the handle: the name leads elsewhere now. Those who still use it keep its files.
 */
void queue_detach(struct queue *q);
/* End a use that `refs` counts. */
void queue_unref(struct queue *q);

/* A queue is opened: if it is a child, leave word for the pushes to its parent. 0 or -1.
 * queue_strike: it is deleted: take that back. fanout_tidy: whatever leads to no queue any more. */
int queue_enrol(struct spool *sp, const char *name);
void queue_strike(struct spool *sp, const char *name);
void fanout_tidy(struct spool *sp, const char *parent);

/* The descriptor of .claim, of .tmp, or -1. */
int queue_claim_dir(struct queue *q);
int queue_tmp_dir(struct queue *q);

/*
 * All with the lock held.
 * queue_store: write the state if it changed; -1 and the file keeps the old one, which is
 * mended later as what a killed process left is.
 * queue_sweep: put orphans back and clear .tmp; returns how many came back.
 * queue_set_aside: move an entry of `dirfd` to .bad.
 * queue_remove: unlink a waiting message with `bytes` of body.
 * queue_remove_number: the same, 1; or 0 if it does not wait.
 * queue_recount: count the waiting messages and their bytes anew.
 * queue_use: a use of a queue that needs its directory, and not its lock. As queue_lock; ends with
 * queue_unref.
 * queue_skip_holes: after HOLES_MAX missing numbers in a row, before `from`: go on at the next that
 * is there, by a listing. 0 or -1.
 * queue_put_back: rename a message that this process owns from .claim back to its number.
 * queue_make_known: after a message came to stand at its number: .state may have been removed
 * by hand since it was locked, and made anew by somebody who did not see the message yet; then
 * tell the new one of it. Returns 1 if it has been taken already.
 */
int queue_put_back(struct queue *q, uint64_t number, uint64_t bytes);
int queue_make_known(struct queue *q, uint64_t number, uint64_t bytes);
int queue_store(struct queue *q);
uint64_t queue_sweep(struct queue *q);
bool queue_sweep_is_due(const struct state *s);
int queue_set_aside(struct queue *q, int dirfd, const char *name);
int queue_remove(struct queue *q, uint64_t number, uint64_t bytes);
int queue_remove_number(struct queue *q, uint64_t number);
int queue_recount(struct queue *q);
int queue_use(struct spool *sp, const char *queue, struct queue **qp);
int queue_skip_holes(struct queue *q, uint64_t from);
#define HOLES_MAX 256 /* look-ups of missing numbers before the directory is listed */

/* Tell who asked for it (spool_on_progress) how far long work is. */
void spool_tell_progress(const struct spool *sp, uint64_t done, uint64_t total);

/* Flush what says that messages were removed from a queue: its directory, .claim (-1: there is
 * none), and the files in it, which may be marked as spent. 0 or -1. */
int sync_removals(int dirfd, int claimfd);

/*
 * delay.c, all but delay_close and delay_sync with the lock held.
 * delay_open: a place for messages that are due in so many seconds. .state knows then that one may
 * be there. Ends with delay_close.
 * delay_store: there is one more in that place; write the state. delay_remove: and not any more.
 * delay_sync: make durable that it is there; but not the queue's own directory.
 * delay_promote: those that are due become waiting messages; the state is to be written. With -1
 * it is tried again by the next one.
 * delay_each: call `visit` as dir_each_number does. delay_count: count them anew.
 * delay_rebuild: fill the part of the state that is about them; `by_date`: after a reboot, perhaps.
 */
int delay_open(struct queue *q, uint64_t seconds, struct delayed *d);
void delay_close(struct delayed *d);
int delay_store(struct queue *q, const struct delayed *d, uint64_t bytes);
void delay_remove(struct queue *q, const struct delayed *d, const char *name, uint64_t bytes);
int delay_sync(const struct delayed *d);
int delay_promote(struct queue *q);
int delay_each(struct queue *q, number_visitor *visit, void *arg);
int delay_count(struct queue *q);
int delay_rebuild(struct queue *q, bool by_date);

/* What the file `fd` is that is named `number` in .claim. */
enum claim_file {
	CLAIM_FILE_MESSAGE,     /* on its way to a client, or an orphan */
	CLAIM_FILE_SPENT,       /* delivered, and kept for a push */
	CLAIM_FILE_OVERWRITTEN, /* by a push, which has not renamed it yet, or died before it could */
	CLAIM_FILE_UNREADABLE, /* now: see errno */
};
/* `other` is set for CLAIM_FILE_OVERWRITTEN: the number that the file bears. */
enum claim_file claim_file(int fd, uint64_t number, uint64_t *other);

/* Says this error of open that it is not a file of ours, but something that cannot be read? */
bool is_foreign(int error);

/* Says this error of read that the file is damaged, or is none? A bad sector must not block the queue
 * behind it; everything else may pass. */
bool is_damage(int error);

/* Does an error of open say nothing of a file, so that the next one may succeed? EAGAIN does: that a
 * push writes over it. */
bool may_pass(int error);

/* Read a whole message file and check it: that it bears `number` too, or, being delayed, any.
 * CLAIM_GOT fills c->message and c->body. CLAIM_DAMAGED, with errno: it is not what was once
 * acknowledged under that number, EBADMSG; or the disk cannot read it, as is_damage. CLAIM_ERROR. */
#define CLAIM_ANY_NUMBER UINT64_MAX
enum claim_result claim_check(struct spool *sp, struct claim *c, uint64_t number);

#endif
