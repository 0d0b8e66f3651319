/*
 * spool.c: queues and their messages, kept as files below one directory.
 *
 *     <spool>/<queue>/0000000000000042   a waiting message
 *     <spool>/<queue>/.state             counters; its flock orders everything in the queue
 *     <spool>/<queue>/.claim/<number>    a message on its way to a client, or a spent file
 *     <spool>/<queue>/.tmp/<pid>.<n>     a message being received, where it needs a name
 *     <spool>/<queue>/.bad/<number>      a file that failed its check
 *     <spool>/<queue>/.delay/...         a message that is not to be delivered yet, see delay.c
 *     <spool>/<queue>/.wait/<number>     a fifo of a process that waits for a message, see wait.c
 *     <spool>/<queue>/.config            settings, see config.c; <spool>/.config for all queues
 *     <spool>/.fanout/<queue>/<child>    who gets copies, see fanout.c
 *     <spool>/.trash/<pid>.<n>           a deleted queue whose files are being unlinked
 *
 * push:     write a file that has no name yet, or .tmp/x; lock; write its header, link or rename it
 *           to the next number; unlock; sync.
 *           A small one: lock; write it all into a spent file, rename that; unlock; sync.
 *           What the limits of the queue do not let in is refused under the lock, or the oldest
 *           messages make room for it once it is in place.
 *           A delayed one goes into .delay instead, and comes into the queue, with the number that
 *           is next, by the claim that finds it due.
 * claim:    lock; find the head, flock it, rename it into .claim; unlock; check its checksum.
 * finish:   mark it as spent, so that a push may write over it; or unlink it.
 * release:  lock; rename it back to its number; unlock.
 * move:     what has expired or failed too often is pushed to another queue once it is claimed, and
 *           finished then: who dies in between leaves it in both, never in none.
 *
 * A file in .tmp or .claim belongs to the process that holds a flock on it, which ends with the
 * process, however that dies. Whoever finds one unlocked removes it (.tmp) or puts it back
 * (.claim). Under the lock, .state is written after a rename that takes a message out of what
 * it knows, or that adds a new one, and before a rename that brings one back, so that a kill
 * between the two leaves a state that the next process reads correctly:
 *
 *     died in push, before the rename     a spent file bears another number than its name: removed
 *     died in push, after the rename      a message stands at `next`: it is counted then
 *     died in claim, after the rename     it still counts as waiting, and so does the orphan
 *     died in release, before the rename  the same
 *
 * Renames never replace anything: if the lock were broken, or the state wrong, a push would
 * find its number taken and go on to the next, and a claim would find its message gone.
 */
#include "spool.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "crc32c.h"
#include "os.h"
#include "spool_queue.h"

#define EXPTIME_RELATIVE 2592000 /* 30 days in seconds; above it is a date */
#define HOLES_MAX 256            /* look-ups of missing numbers before the directory is listed */
#define SPARE_TRIES 4            /* looks for one of them, by one push */

/*
 * Push
 */

/* The push has its file, and uses the queue. */
static int
begin_file(struct push *p, struct queue *q, int dirfd)
{
	p->dirfd = dirfd;
	p->queue = q;
	q->refs++;
	return 0;
}

/* Make a file in .tmp. Without the lock a sweeper may come by, so it has to be owned. */
static int
make_tmp(struct push *p, struct queue *q, bool locked)
{
	struct stat st;

	for (bool again = false;;) {
		if (queue_tmp_dir(q) == -1)
			return -1;
		snprintf(p->name, sizeof p->name, "%ld.%lu", (long)p->spool->pid,
		         p->spool->tmp_count++);
		p->fd = openat(q->tmpfd, p->name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		if (p->fd == -1 && errno == EEXIST)
			continue; /* a process of another pid namespace */
		if (p->fd == -1 && errno == ENOENT && !again) {
			again = true; /* .tmp was removed by hand: make it again */
			close_fd(&q->tmpfd);
			continue;
		}
		if (p->fd == -1)
			return -1;
		if (locked)
			break;
		/* A sweeper may have found it before it was owned. */
		int owned = file_own(p->fd);
		if (owned == 1 && fstat(p->fd, &st) == 0 && st.st_nlink > 0)
			break;
		int e = errno;
		close_fd(&p->fd);
		if (owned == -1) { /* a file system without locks */
			unlinkat(q->tmpfd, p->name, 0);
			errno = e;
			return -1;
		}
	}
	return begin_file(p, q, q->tmpfd);
}

/* Make a file for a new message: without a name where that can be, which costs less, and leaves
 * nothing when we die. */
static int
make_file(struct push *p, struct queue *q, bool locked)
{
	p->fd = os_open_unnamed(q->dirfd, 0600);
	if (p->fd != -1)
		return begin_file(p, q, -1);
	return errno == EOPNOTSUPP ? make_tmp(p, q, locked) : -1;
}

/* With the lock held: write over spent file `number`, unless an operator removed it or keeps it.
 * The descriptor is closed if that is not to be. */
static bool
use_spare(struct push *p, struct queue *q, int fd, uint64_t number)
{
	off_t size = (off_t)(MESSAGE_HEADER_LEN + p->length);
	struct stat st;

	if (os_stat(fd, "", &st) == -1 || st.st_nlink != 1 ||
	    (st.st_size > size && ftruncate(fd, size) == -1)) {
		close(fd);
		return false;
	}
	message_name(p->name, number);
	p->fd = fd;
	return begin_file(p, q, q->claimfd) == 0;
}

/* With the lock held: find a spent file, our own or one that another process has left. A message
 * that is still on its way to a slow client is waited for, within reason. */
static bool
take_spare(struct push *p, struct queue *q)
{
	struct state *s = &q->state;
	char name[MESSAGE_NAME_LEN + 1];
	uint64_t head = state_main(s)->from, other;

	if (q->sparefd != -1) {
		int fd = q->sparefd;
		q->sparefd = -1;
		if (use_spare(p, q, fd, q->spare))
			return true;
	}
	for (int tries = 0; tries < SPARE_TRIES && s->spare < head; tries++) {
		if (queue_claim_dir(q) == -1)
			return false;
		message_name(name, s->spare);
		int fd = os_openat_noatime(q->claimfd, name, write_flags, 0);
		if (fd == -1) {
			/* Removed when it was spent, as were those that followed. */
			s->spare = head - s->spare > SPARES ? head - SPARES : s->spare + 1;
			continue;
		}
		if (file_own(fd) == 1 && claim_file(fd, s->spare, &other) == CLAIM_FILE_SPENT)
			return use_spare(p, q, fd, s->spare++);
		close(fd);
		if (head - s->spare <= SPARES / 2)
			return false;
		s->spare++;
	}
	return false;
}

/* Will there be a spent file, by what was last seen of the queue? */
static bool
has_spares(struct push *p)
{
	struct queue *q;

	if (p->length > SPOOL_SMALL || queue_find(p->spool, p->queue_name, true, &q) != 1)
		return false;
	if (q->sparefd != -1)
		return true;
	queue_glance(q);
	return q->state.nranges > 0 && q->state.spare < state_main(&q->state)->from;
}

void
push_begin(struct push *p, struct spool *sp, const char *queue)
{
	*p = (struct push){.spool = sp, .fd = -1, .delay = -1};
	strcpy(p->queue_name, queue);
}

/* Have a file for the body, before the lock is taken. */
static int
open_file(struct push *p)
{
	struct queue *q;

	for (int tries = 0; tries < 8; tries++) {
		if (queue_find(p->spool, p->queue_name, true, &q) == -1)
			return -1;
		if (make_file(p, q, false) == 0)
			return 0;
		if (errno != ENOENT)
			return -1;
		queue_detach(q); /* the queue was deleted under its handle */
	}
	return -1;
}

static int
write_all(int fd, const char *data, size_t len, uint64_t offset)
{
	while (len > 0) {
		ssize_t n = pwrite(fd, data, len, (off_t)offset);
		if (n == -1 && errno == EINTR)
			continue;
		if (n == -1)
			return -1;
		data += n;
		len -= (size_t)n;
		offset += (uint64_t)n;
	}
	return 0;
}

void
push_body(struct push *p, const void *data, size_t len)
{
	p->body = data;
	p->length = len;
	p->crc = crc32c(0, data, len);
}

int
push_write(struct push *p, const void *data, size_t len)
{
	if (len > MESSAGE_LENGTH_MAX - p->length) {
		errno = EFBIG;
		return -1;
	}
	if (p->fd == -1 && open_file(p) == -1)
		return -1;
	if (write_all(p->fd, data, len, MESSAGE_HEADER_LEN + p->length) == -1)
		return -1;
	p->crc = crc32c(p->crc, data, len);
	p->length += len;
	return 0;
}

size_t
push_piece(const struct push *p)
{
	return PUSH_PIECE - (size_t)((MESSAGE_HEADER_LEN + p->length) % PUSH_PIECE);
}

/* Forget the file, which is a message now, or nothing. */
static void
push_end(struct push *p)
{
	int e = errno;

	if (p->fd != -1)
		queue_unref(p->queue);
	close_fd(&p->fd);
	errno = e;
}

void
push_abort(struct push *p)
{
	int e = errno;

	if (p->fd != -1 && p->dirfd != -1)
		unlinkat(p->dirfd, p->name, 0);
	errno = e;
	push_end(p);
}

/* The file in .tmp is gone: the queue was deleted while the body came in, or somebody emptied
 * .tmp. Or it has no name and cannot get one. The body is still open: copy it into the queue that
 * bears the name now. */
static int
move_to_queue(struct push *p, struct queue *q)
{
	struct push old = *p;
	char buf[8192];
	ssize_t n = 0;

	if (make_tmp(p, q, true) == -1) {
		*p = old;
		return -1;
	}
	for (uint64_t at = 0; p->body == NULL && at < old.length; at += (uint64_t)n) {
		n = pread(old.fd, buf, sizeof buf, (off_t)(MESSAGE_HEADER_LEN + at));
		if (n <= 0 || write_all(p->fd, buf, (size_t)n, MESSAGE_HEADER_LEN + at) == -1) {
			if (n == 0)
				errno = EIO;
			push_abort(p);
			*p = old;
			return -1;
		}
	}
	push_abort(&old);
	return 0;
}

/* Write the header, and with it the body if it is not in the file yet. */
static int
write_message(struct push *p)
{
	struct iovec iov[2] = {{.iov_base = p->line, .iov_len = MESSAGE_HEADER_LEN},
	                       {.iov_base = (char *)p->body, .iov_len = (size_t)p->length}};
	ssize_t n = 0;

	if (p->body == NULL)
		return write_all(p->fd, p->line, MESSAGE_HEADER_LEN, 0);
	n = pwritev(p->fd, iov, 2, 0);
	if (n == (ssize_t)(MESSAGE_HEADER_LEN + p->length))
		return 0;
	if (n >= 0)
		errno = ENOSPC;
	return -1;
}

/* A message stands at the number that is next: whoever put it there died before it could
 * count it. */
static void
adopt(struct state *s, uint64_t bytes)
{
	state_give(s, state_next(s));
	s->put++;
	state_count_in(s, bytes);
}

/* Something stands at the number that is next: go on behind it. */
static void
adopt_name(struct queue *q, const char *name)
{
	struct stat st;

	if (fstatat(q->dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode))
		adopt(&q->state, body_bytes(&st));
	else
		state_give(&q->state, state_next(&q->state));
}

static int
put_in_place(struct push *p, int dirfd, const char *name)
{
	if (p->dirfd == -1)
		return os_name(p->fd, dirfd, name);
	if (os_rename_noreplace(p->dirfd, p->name, dirfd, name) == -1)
		return -1;
	/* From here it belongs to nobody, as a waiting message does. Not before: somebody may have
	 * removed .state, and sweep while we believe that we hold the lock. */
	flock(p->fd, LOCK_UN);
	return 0;
}

static int
list_lowest(void *arg, int dirfd, uint64_t number, const char *name)
{
	struct listing *l = arg;

	(void)dirfd, (void)name;
	if (number >= l->from && (l->lowest == 0 || number < l->lowest))
		l->lowest = number;
	return 0;
}

/* After HOLES_MAX missing numbers in a row: list the directory for the next that is
 * there. */
static int
skip_holes(struct queue *q, uint64_t n)
{
	struct listing l = {.from = n};

	if (dir_each_number(q->dirfd, list_lowest, &l) == -1)
		return -1;
	state_skip(&q->state, n, l.lowest != 0 ? l.lowest : state_next(&q->state));
	return 0;
}

/*
 * Limits: exact, because they are checked and kept under the lock.
 */

static bool
has_room(const struct config *c, uint64_t items, uint64_t bytes)
{
	return (c->max_items == 0 || items <= c->max_items) &&
	       (c->max_bytes == 0 || bytes <= c->max_bytes);
}

/* Is there room in a queue for what is there, and so much more? */
static bool
has_room_for(const struct queue *q, uint64_t items, uint64_t bytes)
{
	const struct state *s = &q->state;

	return has_room(&q->config, s->waiting + s->delayed + items,
	                s->bytes + s->delayed_bytes + bytes);
}

/* Would it go into the queue if that were empty? */
static bool
fits_alone(const struct config *c, uint64_t length)
{
	return (c->max_item_size == 0 || length <= c->max_item_size) && has_room(c, 1, length);
}

bool
queue_accepts(struct spool *sp, const char *queue, uint64_t length)
{
	struct queue *q;

	if (fits_alone(spool_config(sp, queue), length))
		return true;
	/* The handle may be that of a queue which was deleted, and had another limit. */
	if (queue_lock(sp, queue, false, &q) == 1)
		queue_unlock(q);
	return fits_alone(spool_config(sp, queue), length);
}

/* Messages that were removed by hand at the head count until somebody comes past. */
static void
pass_missing(struct queue *q)
{
	struct state *s = &q->state;
	char name[MESSAGE_NAME_LEN + 1];
	struct stat st;
	unsigned holes = 0;

	for (uint64_t n; (n = state_candidate(s, 0)) < state_next(s);) {
		message_name(name, n);
		if (fstatat(q->dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 || errno != ENOENT)
			break;
		state_take(s, n);
		s->stale = true;
		if (++holes % HOLES_MAX == 0 && skip_holes(q, n + 1) == -1)
			break;
	}
	if (s->stale)
		queue_recount(q);
}

/* With the lock held: do the limits let a message of that length in? */
static bool
may_enter(struct queue *q, uint64_t length)
{
	const struct config *c = &q->config;
	struct state *s = &q->state;

	if (!q->configured)
		queue_config(q); /* the handle is a new one since push_commit looked */
	if (c->max_items == 0 && c->max_bytes == 0 && c->max_item_size == 0)
		return true;
	if (!fits_alone(c, length))
		return false;
	if (s->stale)
		queue_recount(q); /* as long as that may take: it is rare, and they are exact */
	if (has_room_for(q, 1, length))
		return true;
	if (c->discard_old) /* only what waits can make room */
		return has_room(c, s->delayed + 1, s->delayed_bytes + length);
	pass_missing(q);
	return has_room_for(q, 1, length);
}

/* With the lock held, after message `newest` came in: let the oldest make room for it. Not before,
 * for then each push that fails would cost a message. What cannot be removed now is tried again
 * by the next push. */
static void
discard_oldest(struct queue *q, uint64_t newest)
{
	struct state *s = &q->state;

	while (q->config.discard_old && !has_room_for(q, 0, 0)) {
		uint64_t n = state_candidate(s, 0);
		if (n >= newest)
			break;
		s->discarded++;
		int r = queue_remove_number(q, n);
		if (r != 1)
			s->discarded--;
		if (r == -1)
			break;
		if (r == 0) {
			pass_missing(q);
			queue_store(q);
		}
	}
}

enum entered {
	ENTER_ERROR,
	ENTER_DONE,
	ENTER_FULL,  /* the limits do not let it in */
	ENTER_TAKEN, /* it has been taken already, which somebody can who removes .state */
};

/* When a message expires, as memcached counts: see its doc/protocol.txt, "Expiration times". */
static uint64_t
expiry_of(const struct push *p, const struct config *c, uint64_t delay)
{
	uint64_t expiry = p->expiry, now, last;

	if (!c->expire || (p->exptime == 0 && c->max_age == 0))
		return expiry;
	now = (uint64_t)time(NULL);
	if (p->exptime < 0)
		expiry = 1;
	else if (p->exptime > 0)
		expiry = (uint64_t)p->exptime + (p->exptime <= EXPTIME_RELATIVE ? now : 0);
	last = now + delay + (c->max_age + 999) / 1000;
	if (c->max_age > 0 && (expiry == 0 || expiry > last))
		expiry = last;
	return expiry < MESSAGE_EXPIRY_MAX ? expiry : MESSAGE_EXPIRY_MAX;
}

/* How long the message is not to be delivered, in seconds. */
static uint64_t
delay_of(const struct push *p, const struct config *c)
{
	return p->delay >= 0 ? (uint64_t)p->delay : (c->delay + 999) / 1000;
}

/* With the lock of q held: the message stands in its place. What the state does not know is not
 * acknowledged: where it cannot be written, a row of such messages would end at the first one that
 * is taken. */
static enum entered
make_known(struct push *p, struct queue *q, const char *name)
{
	struct delayed *place = &p->out.place;
	uint64_t number = p->out.number;
	bool delayed = place->fd != -1;
	int known;

	q->state.put++;
	if (delayed) {
		known = delay_store(q, place, p->length);
	} else {
		state_give(&q->state, number);
		state_count_in(&q->state, p->length);
		known = queue_store(q) == -1 ? -1 : queue_make_known(q, number, p->length);
	}
	if (known == -1) {
		int e = errno;
		unlinkat(delayed ? place->fd : q->dirfd, name, 0);
		errno = e;
		return ENTER_ERROR;
	}
	return known == 0 ? ENTER_DONE : ENTER_TAKEN;
}

/* With the lock of q held: number the message and make it visible, or put it where it is delayed. */
static enum entered
publish(struct push *p, struct queue *q, uint32_t flags, uint64_t delay)
{
	char name[MESSAGE_NAME_LEN + 1];
	struct delayed *place = &p->out.place;
	bool moved = false, delayed = place->fd != -1;
	struct message m = {.number = q->state.put,
	                    .length = p->length,
	                    .flags = flags,
	                    .expiry = expiry_of(p, &q->config, delay),
	                    .tries = p->tries};
	const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = place->date}};

	/* A spent file may be in .claim yet after a power loss, with what is delayed in it. */
	if (p->fd == -1 && !(p->length <= SPOOL_SMALL && !delayed && take_spare(p, q)) &&
	    make_file(p, q, true) == -1)
		return ENTER_ERROR;
	for (;;) {
		m.number = delayed ? m.number + 1 : state_next(&q->state);
		if (m.number >= MESSAGE_NUMBER_MAX) {
			errno = EOVERFLOW;
			return ENTER_ERROR;
		}
		if (q != p->queue && p->dirfd != -1 && move_to_queue(p, q) == -1)
			return ENTER_ERROR;
		message_name(name, m.number);
		message_write_header(p->line, &m, p->crc);
		if (write_message(p) == -1 || (delayed && futimens(p->fd, times) == -1))
			return ENTER_ERROR;
		if (put_in_place(p, delayed ? place->fd : q->dirfd, name) == 0)
			break;
		if (errno == EEXIST && delayed)
			continue;
		if (errno == EEXIST) {
			adopt_name(q, name);
			if (!may_enter(q, p->length))
				return ENTER_FULL;
		} else if ((errno == ENOENT || errno == EOPNOTSUPP) && !moved) {
			moved = true; /* an operator emptied .tmp, or see os_name */
			if (move_to_queue(p, q) == -1)
				return ENTER_ERROR;
		} else {
			return ENTER_ERROR;
		}
	}
	p->out.number = m.number;
	return make_known(p, q, name);
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
	log_removal(q, number);
	if (unlinkat(q->dirfd, name, 0) == -1)
		return -1;
	state_take(&q->state, number);
	state_count_out(&q->state, bytes);
	queue_store(q);
	return 0;
}

/* It could not be made durable, so it was not accepted. A consumer may have it already. */
static void
withdraw(struct push *p)
{
	struct published *out = &p->out;
	struct queue *q = out->queue;
	char name[MESSAGE_NAME_LEN + 1];
	int e = errno;

	if (queue_relock(q) == 0) {
		message_name(name, out->number);
		if (out->place.fd != -1)
			delay_remove(q, &out->place, name, p->length);
		else
			queue_remove(q, out->number, p->length);
		queue_unlock(q);
	}
	errno = e;
}

/* Make a published message survive a power loss without the log, and the directory that it lies
 * in: once for each queue, which may have been made by a process that does not sync. */
static int
sync_message(struct push *p)
{
	struct published *out = &p->out;
	struct queue *q = out->queue;

	if (out->durable && p->length <= JOURNAL_BODY_MAX)
		journal_make(p->spool); /* for the next one */
	if (fsync(p->fd) == -1 || (out->place.fd != -1 && delay_sync(&out->place) == -1) ||
	    fsync(q->dirfd) == -1)
		return -1;
	if (out->durable)
		return 0;
	if (fsync(p->spool->rootfd) == -1)
		return -1;
	if (queue_relock(q) == 0) {
		q->state.durable = true;
		queue_store(q);
		queue_unlock(q);
	}
	return 0;
}

/* With the lock of q held: publish it if the limits let it in, and tell the log. */
static enum entered
enter(struct push *p, struct queue *q, uint32_t flags)
{
	struct published *out = &p->out;
	enum entered done = ENTER_FULL;
	uint64_t delay;

	if (may_enter(q, p->length)) {
		delay = delay_of(p, &q->config);
		if (delay > 0 && delay_open(q, delay, &out->place) == -1)
			return ENTER_ERROR;
		done = publish(p, q, flags, delay);
	}
	bool delayed = out->place.fd != -1;
	if (done == ENTER_DONE)
		discard_oldest(q, delayed ? state_next(&q->state) : out->number);
	/* The log knows messages by their places in the queue. */
	if (done == ENTER_DONE && !delayed && p->spool->sync != SPOOL_SYNC_NONE) {
		if (out->durable)
			out->logged =
			    journal_push(q, out->number, p->line, p->body, p->fd, p->length);
		if (out->logged == 0)
			journal_stored(q, out->number);
	}
	if (done == ENTER_FULL)
		queue_store(q); /* what was learnt of messages that are missing */
	return done;
}

int
push_publish(struct push *p, uint32_t flags)
{
	struct queue *q;

	/* This looks at the settings, too, and tells of mistakes while no lock is held. And a queue
	 * that can take nothing is not made. */
	if (!queue_accepts(p->spool, p->queue_name, p->length)) {
		push_abort(p);
		return 1;
	}
	/* A file that must be made is made before the lock is taken. */
	if ((p->fd == -1 && !has_spares(p) && open_file(p) == -1) ||
	    queue_lock(p->spool, p->queue_name, true, &q) != 1) {
		push_abort(p);
		return -1;
	}
	struct published *out = &p->out;
	*out = (struct published){
	    .queue = q, .place = {.fd = -1, .parent = -1}, .durable = q->state.durable};
	enum entered done = enter(p, q, flags);
	if (done == ENTER_ERROR || done == ENTER_FULL) {
		delay_close(&out->place);
		push_abort(p);
	}
	queue_unlock(q);
	if (done == ENTER_ERROR || done == ENTER_FULL)
		return done == ENTER_FULL ? 1 : -1;
	out->unsynced = done == ENTER_DONE && p->spool->sync != SPOOL_SYNC_NONE;
	q->refs++;
	return 0;
}

int
push_settle(struct push *p)
{
	struct published *out = &p->out;
	int r = 0;

	if (out->unsynced && (out->logged == 0 || journal_flush(p->spool, out->logged) == -1) &&
	    sync_message(p) == -1) {
		withdraw(p);
		r = -1;
	}
	int e = errno;
	delay_close(&out->place);
	queue_unref(out->queue);
	push_end(p);
	errno = e;
	return r;
}

int
push_commit(struct push *p, uint32_t flags)
{
	int r = push_publish(p, flags);

	return r == 0 ? push_settle(p) : r;
}

/*
 * Claim
 */

/* A read failed. A bad sector is damage, and must not block the queue behind it;
 * everything else may pass. */
static enum claim_result
unreadable(void)
{
	return errno == EIO ? CLAIM_DAMAGED : CLAIM_ERROR;
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
	    c->message.number != number)
		return CLAIM_DAMAGED;
	memcpy(line, sp->buf, sizeof line);
	at = (uint64_t)n - MESSAGE_HEADER_LEN;
	if (at > c->message.length)
		return CLAIM_DAMAGED;
	body_crc = crc32c(0, sp->buf + MESSAGE_HEADER_LEN, (size_t)at);
	c->body = NULL;
	if (n < (ssize_t)sizeof sp->buf && at == c->message.length)
		c->body = sp->buf + MESSAGE_HEADER_LEN;
	else if (fstat(c->fd, &st) == -1)
		return CLAIM_ERROR;
	else if (body_bytes(&st) != c->message.length)
		return CLAIM_DAMAGED;
	for (; at < c->message.length; at += (uint64_t)n) {
		n = claim_read(c, sp->buf, sizeof sp->buf, at);
		if (n <= 0)
			return n == 0 ? CLAIM_DAMAGED : unreadable();
		body_crc = crc32c(body_crc, sp->buf, (size_t)n);
	}
	return message_crc(line, body_crc) == crc ? CLAIM_GOT : CLAIM_DAMAGED;
}

bool
is_foreign(int error)
{
	return error == ELOOP || error == ENXIO || error == EACCES || error == EPERM ||
	       error == EISDIR || error == ENODEV;
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

/* Something stands in .claim in the place of message n, which an operator has put back. If it is a
 * spent file it goes: returns 1; 0 if its owner still keeps it; -1 if it is something else. */
static int
clear_spent(struct queue *q, uint64_t n)
{
	char name[MESSAGE_NAME_LEN + 1];
	uint64_t other;
	int fd, r = -1;

	message_name(name, n);
	fd = openat(q->claimfd, name, read_flags);
	if (fd == -1)
		return -1;
	if (claim_file(fd, n, &other) == CLAIM_FILE_SPENT)
		r = file_own(fd) == 1 && unlinkat(q->claimfd, name, 0) == 0;
	close(fd);
	return r;
}

/* Own message n and move it into .claim. Sets c->fd if it is got, and *bytes if it is
 * there. */
static enum attempt
take_number(struct queue *q, uint64_t n, struct claim *c, uint64_t *bytes)
{
	char name[MESSAGE_NAME_LEN + 1];
	enum attempt result = ATTEMPT_ERROR;
	struct stat st;
	int owned, moved;

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
	if (os_stat(c->fd, "", &st) == -1 || !S_ISREG(st.st_mode)) {
		close_fd(&c->fd);
		return ATTEMPT_UNFIT;
	}
	*bytes = body_bytes(&st);
	c->reusable = c->reusable && *bytes <= SPOOL_SMALL && os_lease_possible();
	owned = file_own(c->fd);
	moved = owned == 1 ? move_to_claim(q, name) : -1;
	if (owned == 1 && moved == -1 && errno == EEXIST) {
		int cleared = clear_spent(q, n);
		moved = cleared == 1 ? move_to_claim(q, name) : -1;
		owned = cleared != 0;
		if (cleared == -1)
			errno = EEXIST;
	}
	if (moved == 0) {
		if (os_stat(c->fd, "", &st) == 0 && st.st_nlink > 0)
			return ATTEMPT_GOT;
		/* The lock was broken, and this is another message than the one we opened. */
		os_rename_noreplace(q->claimfd, name, q->dirfd, name);
		owned = 0;
	}
	if (owned == 0)
		result = ATTEMPT_LOCKED;
	else if (owned == 1 && errno == EEXIST)
		result = ATTEMPT_UNFIT;
	else if (owned == 1 && errno == ENOENT)
		result = ATTEMPT_HOLE;
	int e = errno;
	close_fd(&c->fd);
	errno = e;
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
				adopt(s, bytes);
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
			if (++holes % HOLES_MAX == 0 && skip_holes(q, n + 1) == -1)
				return CLAIM_ERROR;
			break;
		case ATTEMPT_LOCKED:
			if (!known)
				adopt(s, bytes);
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
	if (queue_sweep_is_due(s))
		queue_sweep(q, true);
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
	int e = errno;
	queue_unlock(q);
	errno = e;
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
		if (c->fd != -1 && fstat(c->fd, &st) == 0 && S_ISREG(st.st_mode))
			return CLAIM_GOT;
		if (c->fd == -1 && errno != ENOENT && !is_foreign(errno))
			return CLAIM_ERROR;
		close_fd(&c->fd);
		if (n >= state_next(s))
			return CLAIM_EMPTY;
		if (c->fd == -1 && errno == ENOENT && n == state_candidate(s, 0)) {
			state_take(s, n); /* removed by hand */
			s->stale = true;
		}
		if (++holes % HOLES_MAX == 0 && skip_holes(q, n + 1) == -1)
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
			queue_sweep(q, true);
		delay_promote(q);
		*c = (struct claim){.queue = q, .fd = -1};
		result = open_from(q, from, c);
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
		if (result != CLAIM_GOT) {
			int e = errno;
			look_end(c);
			errno = e;
		}
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
	return r;
}

void
spool_tidy(struct spool *sp)
{
	journal_checkpoint(sp);
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
	c->body = NULL; /* it was where the push may have read */
	if (r == 0)
		return claims_finish(c, 1);
	if (r == 1)
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
	int e = errno;
	close_fd(&c->fd);
	queue_unref(c->queue);
	errno = e;
	return r;
}
