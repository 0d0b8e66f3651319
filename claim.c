/*
 * claim.c: messages that leave their queue: claim, finish, release, move. See spool.c for the files
 * and the rules.
 *
 * A claim takes the oldest message there is: under the lock it tries the numbers that .state says
 * may wait, from the head on. It flocks the file, which makes the message this process's own, and
 * renames it into .claim, which takes it from everybody else; then it counts it out, unlocks, and
 * checks what it has got. What fails the check goes to .bad, what has expired or failed too often
 * away or to another queue, and the next one is tried.
 *
 * The reply has left when a claim is finished, so nobody waits for that: the file becomes a spent
 * one, for a push to write over, or is unlinked; durably, if that is asked for, by one flush for
 * all that were finished together.
 */
#include "spool.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "crc32c.h"
#include "os.h"
#include "spool_queue.h"

bool
is_damage(int error)
{
	return error == EIO || error == EISDIR || error == ESPIPE;
}

/* A read failed. */
static enum claim_result
unreadable(void)
{
	return is_damage(errno) ? CLAIM_DAMAGED : CLAIM_ERROR;
}

static enum claim_result
damaged(void)
{
	errno = EBADMSG;
	return CLAIM_DAMAGED;
}

enum claim_result
claim_check(struct spool *sp, struct claim *c, uint64_t number)
{
	char line[MESSAGE_HEADER_LEN];
	uint64_t at;
	uint32_t crc, body_crc;
	struct stat st;
	ssize_t n = pread(c->fd, sp->buf, sizeof sp->buf, 0);

	if (n == -1)
		return unreadable();
	if (n < MESSAGE_HEADER_LEN || message_read_header(sp->buf, &c->message, &crc) == -1 ||
	    (number != CLAIM_ANY_NUMBER && c->message.number != number))
		return damaged();
	memcpy(line, sp->buf, sizeof line);
	at = (uint64_t)n - MESSAGE_HEADER_LEN;
	if (at > c->message.length)
		return damaged();
	body_crc = crc32c(0, sp->buf + MESSAGE_HEADER_LEN, (size_t)at);
	c->body = NULL;
	if (n < (ssize_t)sizeof sp->buf && at == c->message.length)
		c->body = sp->buf + MESSAGE_HEADER_LEN;
	else if (fstat(c->fd, &st) == -1)
		return CLAIM_ERROR;
	else if (body_bytes(&st) != c->message.length)
		return damaged();
	for (; at < c->message.length; at += (uint64_t)n) {
		n = claim_read(c, sp->buf, sizeof sp->buf, at);
		if (n <= 0)
			return n == 0 ? damaged() : unreadable();
		body_crc = crc32c(body_crc, sp->buf, (size_t)n);
	}
	return message_crc(line, body_crc) == crc ? CLAIM_GOT : damaged();
}

bool
is_foreign(int error)
{
	return error == ELOOP || error == ENXIO || error == EACCES || error == EPERM ||
	       error == EISDIR || error == ENODEV;
}

bool
may_pass(int error)
{
	return error != ENOENT && error != ENOTDIR && error != EAGAIN && !is_damage(error) &&
	       !is_foreign(error);
}

enum attempt {
	ATTEMPT_GOT,
	ATTEMPT_HOLE,   /* there is no such message */
	ATTEMPT_LOCKED, /* a program of the operator's holds a lock on it */
	ATTEMPT_UNFIT,  /* it is no message file, or its number is claimed already */
	ATTEMPT_ERROR,
};

static int
move_to_claim(struct queue *q, const char *name)
{
	struct stat st;
	int r = os_rename_noreplace(q->dirfd, name, q->claimfd, name);

	if (r == -1 && errno == ENOENT && fstat(q->claimfd, &st) == 0 && st.st_nlink == 0) {
		close_fd(&q->claimfd); /* .claim was removed by hand: make it again */
		if (queue_claim_dir(q) != -1)
			r = os_rename_noreplace(q->dirfd, name, q->claimfd, name);
	}
	return r;
}

static enum attempt
remove_spent(struct queue *q, const char *name, int fd)
{
	int owned = file_own(fd);

	if (owned == 0)
		return ATTEMPT_LOCKED;
	return owned == 1 && unlinkat(q->claimfd, name, 0) == 0 ? ATTEMPT_HOLE : ATTEMPT_ERROR;
}

/* Something stands in .claim in the place of message n, which an operator has put back. If it is a
 * spent file it goes, and ATTEMPT_HOLE is left; else why not: ATTEMPT_LOCKED if its owner still keeps
 * it, ATTEMPT_UNFIT if it is something else, ATTEMPT_ERROR. */
static enum attempt
clear_spent(struct queue *q, uint64_t n)
{
	char name[MESSAGE_NAME_LEN + 1];
	enum attempt result = ATTEMPT_UNFIT;
	uint64_t other;
	int fd;

	message_name(name, n);
	fd = openat(q->claimfd, name, read_flags);
	if (fd == -1 && errno == ENOENT)
		return ATTEMPT_HOLE;
	if (fd == -1 && errno == EAGAIN) /* under its owner's lease */
		return ATTEMPT_LOCKED;
	if (fd == -1)
		return is_foreign(errno) ? ATTEMPT_UNFIT : ATTEMPT_ERROR;
	enum claim_file kind = claim_file(fd, n, &other);
	if (kind == CLAIM_FILE_UNREADABLE)
		result = ATTEMPT_ERROR;
	else if (kind == CLAIM_FILE_SPENT)
		result = remove_spent(q, name, fd);
	close_fd(&fd);
	return result;
}

/* Own message n, which `fd` leads to, and move it into .claim. */
static enum attempt
move_owned(struct queue *q, uint64_t n, const char *name, int fd)
{
	int owned = file_own(fd), moved;
	struct stat st;

	if (owned != 1)
		return owned == 0 ? ATTEMPT_LOCKED : ATTEMPT_ERROR;
	moved = move_to_claim(q, name);
	if (moved == -1 && errno == EEXIST) {
		enum attempt cleared = clear_spent(q, n);
		if (cleared != ATTEMPT_HOLE)
			return cleared;
		moved = move_to_claim(q, name);
	}
	if (moved == -1 && errno == EEXIST)
		return ATTEMPT_UNFIT;
	if (moved == -1)
		return errno == ENOENT ? ATTEMPT_HOLE : ATTEMPT_ERROR;
	bool looked = os_stat(fd, "", &st) == 0;
	if (looked && st.st_nlink > 0)
		return ATTEMPT_GOT;
	/* The lock was broken, and this is another message than the one we opened; or we cannot tell. */
	int e = errno;
	os_rename_noreplace(q->claimfd, name, q->dirfd, name);
	errno = e;
	return looked ? ATTEMPT_LOCKED : ATTEMPT_ERROR;
}

/* Own message n and move it into .claim. Sets c->fd if it is got, and *bytes if it is
 * there. */
static enum attempt
take_number(struct queue *q, uint64_t n, struct claim *c, uint64_t *bytes)
{
	char name[MESSAGE_NAME_LEN + 1];
	enum attempt result;
	struct stat st;

	message_name(name, n);
	c->message.number = n;
	c->fd = os_openat_noatime(q->dirfd, name, write_flags, 0);
	c->reusable = c->fd != -1;
	if (c->fd == -1 && (errno == EACCES || errno == EPERM)) /* an operator's */
		c->fd = openat(q->dirfd, name, read_flags);
	if (c->fd == -1 && errno == ENOENT)
		return ATTEMPT_HOLE;
	if (c->fd == -1)
		return is_foreign(errno) ? ATTEMPT_UNFIT : ATTEMPT_ERROR;
	bool looked = os_stat(c->fd, "", &st) == 0;
	if (!looked || !S_ISREG(st.st_mode)) {
		close_fd(&c->fd);
		return looked ? ATTEMPT_UNFIT : ATTEMPT_ERROR;
	}
	*bytes = body_bytes(&st);
	c->reusable = c->reusable && *bytes <= SPOOL_SMALL && os_lease_possible();
	result = move_owned(q, n, name, c->fd);
	if (result != ATTEMPT_GOT)
		close_fd(&c->fd);
	return result;
}

/* With the lock held: take the oldest message there is. What the state knows is tried in
 * order, and then the number that is next: whoever put a message there died before he
 * could count it. */
static enum claim_result
take_head(struct queue *q, struct claim *c)
{
	struct state *s = &q->state;
	char name[MESSAGE_NAME_LEN + 1];
	unsigned holes = 0;
	bool skipped = false;

	if (queue_claim_dir(q) == -1)
		return CLAIM_ERROR;
	for (uint64_t n = state_candidate(s, 0);; n = state_candidate(s, n + 1)) {
		bool known = n < state_next(s);
		uint64_t bytes = 0;

		switch (take_number(q, n, c, &bytes)) {
		case ATTEMPT_GOT:
			if (!known)
				state_adopt(s, bytes);
			state_take(s, n);
			state_count_out(s, bytes);
			return CLAIM_GOT;
		case ATTEMPT_HOLE:
			if (!known) {
				if (!skipped) {
					s->waiting = s->bytes = 0;
					s->stale = s->stale && s->due != 0; /* the delayed */
				}
				return CLAIM_EMPTY;
			}
			/* Removed by hand, or two ranges had to be joined. */
			state_take(s, n);
			s->stale = true;
			if (++holes % HOLES_MAX == 0 && queue_skip_holes(q, n + 1) == -1)
				return CLAIM_ERROR;
			break;
		case ATTEMPT_LOCKED:
			if (!known)
				state_adopt(s, bytes);
			skipped = true;
			break;
		case ATTEMPT_UNFIT:
			message_name(name, n);
			if (queue_set_aside(q, q->dirfd, name) == -1)
				return CLAIM_ERROR;
			state_take(s, n);
			s->stale = true;
			return CLAIM_DAMAGED;
		case ATTEMPT_ERROR:
			return CLAIM_ERROR;
		}
	}
}

/* A claimed message failed its check: out of the way, but never silently gone. */
static enum claim_result
claim_set_aside(struct claim *c, uint64_t number)
{
	char name[MESSAGE_NAME_LEN + 1];
	int r;

	message_name(name, number);
	if (queue_relock(c->queue) == -1) {
		close_fd(&c->fd); /* an orphan now: it comes back, and fails its check again */
		return CLAIM_ERROR;
	}
	r = queue_set_aside(c->queue, c->queue->claimfd, name);
	c->queue->state.opened -= c->opened && c->queue->state.opened > 0;
	queue_store(c->queue);
	close_fd(&c->fd);
	queue_unlock(c->queue);
	c->message.number = number;
	return r == 0 ? CLAIM_DAMAGED : CLAIM_ERROR;
}

/* The file of a message is in .claim, and its queue not locked any more: is it whole? */
static enum claim_result
check_taken(struct spool *sp, struct claim *c)
{
	struct queue *q = c->queue;
	uint64_t number = c->message.number;
	enum claim_result result;

	q->refs++;
	result = claim_check(sp, c, number);
	if (result == CLAIM_DAMAGED) {
		result = claim_set_aside(c, number);
		queue_unref(q);
	} else if (result == CLAIM_ERROR) {
		int e = errno;
		c->message.number = number;
		claim_release(c, false);
		errno = e;
	}
	return result;
}

bool
queue_has_expired(const struct message *m, const struct config *c)
{
	return m->expiry != 0 && c->expire && m->expiry <= (uint64_t)time(NULL);
}

static void
tell_operator(struct spool *sp, const char *queue, uint64_t number, const char *what)
{
	char path[QUEUE_NAME_MAX + 32];

	snprintf(path, sizeof path, "%s/%016" PRIu64, queue, number);
	if (sp->on_mistake != NULL)
		sp->on_mistake("moved", path, what);
}

/* Move a message to the dead letters' queue, which is known as one from then on. */
static int
move_to_grave(struct claim *c, const char *dead)
{
	struct spool *sp = c->queue->spool;
	struct queue *q;
	int r = claim_move(c, dead, FORGET_NOTHING);

	if (r == 0 && queue_lock(sp, dead, false, &q) == 1) {
		q->state.graveyard = true;
		queue_store(q);
		queue_unlock(q);
	}
	return r;
}

/* A message that was taken and has failed too often: to the dead letters, which do not die again.
 * Returns 1; 0 if it is to be delivered all the same; or -1 and then it is back. */
static int
bury(struct claim *c, const struct config *config)
{
	struct spool *sp = c->queue->spool;
	char queue[QUEUE_NAME_MAX + 1], dead[QUEUE_NAME_MAX + 1];
	size_t len = strlen(c->queue->name), tail = strlen(SPOOL_DEAD);
	uint64_t number = c->message.number;

	strcpy(queue, c->queue->name);
	bool is_dead = len > tail && strcmp(queue + len - tail, SPOOL_DEAD) == 0;
	if (len == 0 || c->queue->state.graveyard)
		return 0;
	if (config->dead_letter[0] != '\0') {
		strcpy(dead, config->dead_letter);
	} else if (!is_dead && len + tail <= QUEUE_NAME_MAX) {
		memcpy(dead, queue, len);
		strcpy(dead + len, SPOOL_DEAD);
	} else {
		return 0;
	}
	if (strcmp(queue, dead) == 0)
		return 0;
	int r = move_to_grave(c, dead);
	if (r == -1)
		return -1;
	tell_operator(sp, queue, number,
	              r == 0 ? "has failed too often: moved to the dead letters"
	                     : "has failed too often: delivered, for its dead letters are full");
	return r == 0;
}

/* Away, or to another queue, where its age counts anew. 0, or -1 and it is back. */
static int
expire(struct claim *c, const struct config *config)
{
	struct spool *sp = c->queue->spool;
	char queue[QUEUE_NAME_MAX + 1], to[QUEUE_NAME_MAX + 1];
	uint64_t number = c->message.number;

	strcpy(queue, c->queue->name);
	strcpy(to, config->expire_to);
	if (to[0] == '\0' || strcmp(queue, to) == 0)
		return claims_finish(c, 1);
	int r = claim_move(c, to, FORGET_EXPIRY);
	if (r == 0)
		tell_operator(sp, queue, number, "has expired: moved");
	if (r != 1)
		return r;
	c->passed = true;
	claim_release(c, false);
	errno = ENOBUFS;
	return -1;
}

int
claim_expired(struct claim *c)
{
	const struct config *config = queue_config(c->queue);

	if (queue_config_known(c->queue) == -1) {
		int e = errno;
		c->passed = true;
		claim_release(c, false);
		errno = e;
		return -1;
	}
	return queue_has_expired(&c->message, config) ? (expire(c, config) == -1 ? -1 : 1) : 0;
}

/* What became of messages that were passed on the way to the one that is delivered. It is counted
 * under the lock that is taken for the next. */
struct passed {
	uint64_t expired, dead, opened;
};

static bool
is_paused(struct state *s)
{
	if (s->paused != 0 && s->paused != STATE_FOREVER && s->paused <= os_monotonic_ms())
		s->paused = 0;
	return s->paused != 0;
}

static enum claim_result
claim_head(struct spool *sp, const char *queue, enum claim_how how, struct passed *passed,
           struct claim *c)
{
	struct queue *q;
	enum claim_result result = CLAIM_EMPTY;
	int r = queue_lock(sp, queue, false, &q);

	if (r != 1)
		return r == 0 ? CLAIM_EMPTY : CLAIM_ERROR;
	struct state *s = &q->state;
	*c = (struct claim){.queue = q, .fd = -1, .opened = how == CLAIM_TO_OPEN};
	s->expired += passed->expired;
	s->dead += passed->dead;
	s->opened -= passed->opened < s->opened ? passed->opened : s->opened;
	*passed = (struct passed){0};
	if (c->opened && (queue_config(q), queue_config_known(q) == -1)) { /* for how long? */
		int e = errno;
		queue_store(q);
		queue_unlock(q);
		errno = e;
		return CLAIM_ERROR;
	}
	if (queue_sweep_is_due(s))
		queue_sweep(q);
	if (how == CLAIM_ANYHOW || !is_paused(s)) {
		int promoted = delay_promote(q), e = errno;
		result = take_head(q, c);
		if (result == CLAIM_EMPTY && promoted == -1) {
			result = CLAIM_ERROR;
			errno = e;
		}
	}
	if (result == CLAIM_GOT && c->opened)
		s->opened++;
	queue_store(q); /* if that fails, the next process finds a hole */
	queue_unlock(q);
	return result == CLAIM_GOT ? check_taken(sp, c) : result;
}

enum claim_result
spool_claim(struct spool *sp, const char *queue, enum claim_how how, struct claim *c)
{
	struct passed passed = {0};

	for (;;) {
		enum claim_result result = claim_head(sp, queue, how, &passed, c);
		const struct message *m = &c->message;
		if (result != CLAIM_GOT || (m->expiry == 0 && m->tries == 0))
			return result;
		int r = claim_expired(c);
		if (r == -1)
			return CLAIM_ERROR;
		if (r == 1) {
			passed.opened += how == CLAIM_TO_OPEN;
			passed.expired++;
			continue;
		}
		const struct config *config = queue_config(c->queue);
		if (config->max_tries == 0 || m->tries < config->max_tries)
			return result;
		r = bury(c, config);
		if (r != 1)
			return r == 0 ? result : CLAIM_ERROR;
		passed.opened += how == CLAIM_TO_OPEN;
		passed.dead++;
	}
}

enum claim_result
spool_claim_number(struct spool *sp, const char *queue, uint64_t number, struct claim *c)
{
	struct queue *q;
	enum attempt attempt = ATTEMPT_ERROR;
	uint64_t bytes = 0;
	int r = queue_lock(sp, queue, false, &q);

	if (r != 1)
		return r == 0 ? CLAIM_EMPTY : CLAIM_ERROR;
	*c = (struct claim){.queue = q, .fd = -1};
	if (queue_claim_dir(q) != -1)
		attempt = take_number(q, number, c, &bytes);
	if (attempt == ATTEMPT_GOT) {
		if (state_has(&q->state, number)) {
			state_take(&q->state, number);
			state_count_out(&q->state, bytes);
		}
		queue_store(q);
	}
	queue_unlock(q);
	if (attempt == ATTEMPT_GOT)
		return check_taken(sp, c);
	return attempt == ATTEMPT_ERROR ? CLAIM_ERROR : CLAIM_EMPTY;
}

/* With the lock held: the first message from number n on, opened. */
static enum claim_result
open_from(struct queue *q, uint64_t n, struct claim *c)
{
	struct state *s = &q->state;
	char name[MESSAGE_NAME_LEN + 1];
	unsigned holes = 0;
	struct stat st;

	for (n = state_candidate(s, n);; n = state_candidate(s, n + 1)) {
		message_name(name, n);
		c->fd = openat(q->dirfd, name, read_flags);
		c->message.number = n;
		bool hole = c->fd == -1 && errno == ENOENT;
		if (c->fd == -1 && !hole && !is_foreign(errno))
			return CLAIM_ERROR;
		if (c->fd != -1 && fstat(c->fd, &st) == -1) {
			close_fd(&c->fd);
			return CLAIM_ERROR;
		}
		if (c->fd != -1 && S_ISREG(st.st_mode))
			return CLAIM_GOT;
		close_fd(&c->fd);
		if (n >= state_next(s))
			return CLAIM_EMPTY;
		if (hole && n == state_candidate(s, 0)) {
			state_take(s, n); /* removed by hand */
			s->stale = true;
		}
		if (++holes % HOLES_MAX == 0 && queue_skip_holes(q, n + 1) == -1)
			return CLAIM_ERROR;
	}
}

enum claim_result
spool_peek(struct spool *sp, const char *queue, struct claim *c)
{
	enum claim_result result = CLAIM_DAMAGED;
	struct queue *q;

	for (uint64_t from = 0; result == CLAIM_DAMAGED;) {
		int r = queue_lock(sp, queue, false, &q);
		if (r != 1)
			return r == 0 ? CLAIM_EMPTY : CLAIM_ERROR;
		if (queue_sweep_is_due(&q->state))
			queue_sweep(q);
		int promoted = delay_promote(q), why = errno;
		*c = (struct claim){.queue = q, .fd = -1};
		result = open_from(q, from, c);
		if (result == CLAIM_EMPTY && promoted == -1) {
			result = CLAIM_ERROR;
			errno = why;
		}
		queue_store(q);
		queue_unlock(q);
		if (result != CLAIM_GOT)
			return result;
		uint64_t number = c->message.number;
		q->refs++;
		result = claim_check(sp, c, number);
		if (result == CLAIM_GOT && c->message.expiry != 0 &&
		    queue_has_expired(&c->message, queue_config(q)))
			result = CLAIM_DAMAGED;
		if (result != CLAIM_GOT)
			look_end(c);
		from = number + 1;
	}
	return result;
}

ssize_t
claim_read(const struct claim *c, void *buf, size_t len, uint64_t offset)
{
	uint64_t left = c->message.length - offset;

	return pread(c->fd, buf, left < len ? (size_t)left : len,
	             (off_t)(MESSAGE_HEADER_LEN + offset));
}

/* The pages of the file itself are on their way then: claims_finish may unlink it, but nobody may
 * write to a file that holds a message. */
ssize_t
claim_send(const struct claim *c, int out, size_t len, uint64_t offset)
{
	uint64_t left = c->message.length - offset;

	return os_sendfile(out, c->fd, MESSAGE_HEADER_LEN + offset,
	                   left < len ? (size_t)left : len);
}

/* Flush the directories that messages were removed from. */
static int
sync_queues(struct spool *sp)
{
	int r = 0;

	for (size_t i = 0; i < sp->nqueues; i++) {
		struct queue *q = &sp->queues[i];
		if (q->open && q->unsettled && sync_removals(q->dirfd, q->claimfd) == -1)
			r = -1;
	}
	return r;
}

bool
spool_is_settled(const struct spool *sp)
{
	return sp->journal.unsynced == 0;
}

int
spool_settle(struct spool *sp)
{
	int r = 0;

	if (sp->journal.unsynced == 0)
		return 0;
	if (journal_flush(sp, sp->journal.unsynced) == -1)
		r = sync_queues(sp);
	sp->journal.unsynced = 0;
	for (size_t i = 0; i < sp->nqueues; i++)
		sp->queues[i].unsettled = false;
	/* Not to be left to a push: until then what the failed log says was not taken. */
	if (sp->journal.has_failed) {
		int e = errno;
		journal_make(sp);
		errno = e;
	}
	return r;
}

void
spool_tidy(struct spool *sp)
{
	journal_checkpoint(sp);
	if (!sp->journal.passed_over)
		return;
	/* There is a log that could not be replayed when the spool was opened: open it once more. */
	for (size_t i = 0; i < sp->nqueues; i++)
		if (sp->queues[i].open && sp->queues[i].name[0] != '\0')
			queue_detach(&sp->queues[i]);
	close_fd(&sp->rootfd);
}

/* A message is about to be removed: tell the log, or the next replay brings it back. Returns
 * whether it was told, or need not be. */
static bool
log_removal(struct queue *q, uint64_t number)
{
	struct spool *sp = q->spool;
	uint64_t at = journal_take(q, number);

	if (sp->sync != SPOOL_SYNC_FULL)
		return true;
	q->unsettled = true;
	if (at == 0 || sp->journal.unsynced == JOURNAL_NEVER)
		sp->journal.unsynced = JOURNAL_NEVER;
	else
		sp->journal.unsynced = at;
	return at != 0;
}

/* With the lock of q held: take a waiting message out of the queue for good. */
int
queue_remove(struct queue *q, uint64_t number, uint64_t bytes)
{
	char name[MESSAGE_NAME_LEN + 1];

	message_name(name, number);
	/* Logged afterwards: what cannot be removed must not be by a replay. */
	if (unlinkat(q->dirfd, name, 0) == -1)
		return -1;
	log_removal(q, number);
	state_take(&q->state, number);
	state_count_out(&q->state, bytes);
	queue_store(q);
	return 0;
}

/*
 * The file of a delivered message can be written over by a push, which saves the file system half
 * of its work. But not while somebody reads it, who opened it when it waited; nor if it has a
 * second name, by which an operator keeps it. We keep one for ourselves, and leave the others to
 * whoever pushes, unless there are many such already by what was last seen of the state.
 */
static bool
keep_spare(struct claim *c)
{
	struct queue *q = c->queue;
	uint64_t n = c->message.number, first = q->state.spare;
	bool own = q->sparefd == -1, marked;
	struct stat st;

	if (!c->reusable || (!own && (n < first || n - first >= SPARES)) ||
	    os_stat(c->fd, "", &st) == -1 || st.st_nlink != 1 || !os_lease(c->fd))
		return false;
	marked = pwrite(c->fd, MESSAGE_SPENT, strlen(MESSAGE_SPENT), 0) ==
	         (ssize_t)strlen(MESSAGE_SPENT);
	os_unlease(c->fd);
	if (marked && own) {
		q->sparefd = c->fd;
		q->spare = n;
		c->fd = -1;
	}
	return marked;
}

int
claims_finish(struct claim *claims, size_t n)
{
	char name[MESSAGE_NAME_LEN + 1];
	int r = 0, e = 0;

	for (size_t i = 0; i < n; i++) {
		message_name(name, claims[i].message.number);
		bool logged = log_removal(claims[i].queue, claims[i].message.number);
		/* ENOENT: the queue was deleted meanwhile. */
		if (!(logged && keep_spare(&claims[i])) &&
		    unlinkat(claims[i].queue->claimfd, name, 0) == -1 && errno != ENOENT) {
			r = -1;
			e = errno;
		}
		close_fd(&claims[i].fd);
	}
	for (size_t i = 0; i < n; i++)
		queue_unref(claims[i].queue);
	errno = e;
	return r;
}

/* Give a push the body of a claim; a small one through `small`. */
static int
copy_body(struct push *p, const struct claim *c, char *small)
{
	char *buf = p->spool->buf; /* it held what claim_check has read */
	uint64_t at = 0;

	if (c->message.length <= SPOOL_SMALL) {
		size_t len = (size_t)c->message.length;
		if (len > 0 && claim_read(c, small, len, 0) != (ssize_t)len)
			return -1;
		push_body(p, small, len);
		return 0;
	}
	while (at < c->message.length) {
		ssize_t n = claim_read(c, buf, push_piece(p), at);
		if (n <= 0 || push_write(p, buf, (size_t)n) == -1)
			return -1;
		at += (uint64_t)n;
	}
	return 0;
}

int
claim_move(struct claim *c, const char *queue, enum claim_forget forget)
{
	char small[SPOOL_SMALL];
	struct push p;
	int r;

	push_begin(&p, c->queue->spool, queue);
	p.expiry = forget == FORGET_EXPIRY ? 0 : c->message.expiry;
	p.tries = forget == FORGET_TRIES ? 0 : c->message.tries;
	p.delay = 0;
	errno = EIO;
	r = copy_body(&p, c, small);
	if (r == -1) {
		int e = errno;
		push_abort(&p);
		errno = e;
	} else {
		r = push_commit(&p, c->message.flags);
	}
	/* Where it lay the push may have read; and what goes out from the file itself is not out of it
	 * when it is written, so no push may write over that. */
	c->body = NULL;
	c->reusable = false;
	if (r == 0)
		return claims_finish(c, 1);
	/* Where that queue may not be made (max_queues) it is as full as one that is there. */
	if (r == 1 || errno == EMLINK)
		return 1;
	int e = errno;
	c->passed = true;
	claim_release(c, false);
	errno = e;
	return -1;
}

int
claim_release(struct claim *c, bool failed)
{
	struct stat st;
	int r = fstat(c->fd, &st);

	if (failed)
		file_count_try(c->fd);
	if (r == 0)
		r = queue_relock(c->queue);
	if (r == 0) {
		struct state *s = &c->queue->state;
		s->redelivered += failed;
		if (!c->passed)
			s->aborted += c->opened;
		else if (c->opened && s->opened > 0)
			s->opened--;
		r = queue_put_back(c->queue, c->message.number, body_bytes(&st));
		close_fd(&c->fd); /* nobody's, before anybody can look for it */
		queue_unlock(c->queue);
	}
	close_fd(&c->fd);
	queue_unref(c->queue);
	return r;
}
