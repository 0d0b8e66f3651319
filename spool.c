/*
 * spool.c: queues and their messages, kept as files below one directory; here those that come
 * in, in claim.c those that go out.
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
 *     <spool>/.journal, .sync            the log, see journal.c
 *     <spool>/.stats                     counters of all connections, see stats.c
 *     <spool>/.trash/<pid>.<n>           a deleted queue whose files are being unlinked
 *     <spool>/.import/...                what mqctl is bringing in from elsewhere, see stage.c
 *
 * push:     write a file that has no name yet, or .tmp/x; lock; write its header, link or rename it
 *           to the next number; unlock; sync.
 *           A small one: lock; write it all into a spent file, rename that; unlock; sync.
 *           What the limits of the queue do not let in is refused under the lock, or the oldest
 *           messages make room for it once it is in place.
 *           A delayed one goes into .delay instead, and comes into the queue, with the number that
 *           is next, by the claim that finds it due.
 * claim:    lock; find the head, flock it, rename it into .claim; unlock; check its checksum.
 * finish:   mark it as spent, so that a push may write over it; or unlink it; sync.
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
 * To sync is to append a record to the log with the lock held, and later to flush that, once for all
 * processes that wait for it; a message too large for the log is flushed by itself (journal.c).
 *
 * Renames never replace anything: if the lock were broken, or the state wrong, a push would
 * find its number taken and go on to the next, and a claim would find its message gone.
 */
#include "spool.h"

#include <errno.h>
#include <fcntl.h>
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
#define SPARE_TRIES 4            /* looks for one of them, by one push */

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
		int looked = owned == 1 ? fstat(p->fd, &st) : 0;
		if (owned == 1 && looked == 0 && st.st_nlink > 0)
			break;
		int e = errno;
		close_fd(&p->fd);
		if (owned == -1 || looked == -1) { /* a file system without locks, say */
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

int
push_staged(struct push *p, struct spool *sp, const char *queue, int dirfd, const char *name,
            uint64_t length, uint32_t crc)
{
	struct queue *q;

	push_begin(p, sp, queue);
	if (queue_find(sp, queue, true, &q) == -1)
		return -1;
	p->fd = openat(dirfd, name, write_flags);
	if (p->fd == -1)
		return -1;
	snprintf(p->name, sizeof p->name, "%s", name);
	p->staged = true;
	p->length = length;
	p->crc = crc;
	return begin_file(p, q, dirfd);
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
	if (file_write(p->fd, data, len, MESSAGE_HEADER_LEN + p->length) == -1)
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

	if (p->fd != -1 && p->dirfd != -1 && !p->staged)
		unlinkat(p->dirfd, p->name, 0);
	errno = e;
	push_end(p);
}

/* With the lock held: what was put in place is not to be stored after all, and is about to be
 * removed. A staged one is the only copy there is: where it cannot be put back it must stay. */
static bool
restage(const struct push *p, int dirfd, const char *name)
{
	return !p->staged || linkat(dirfd, name, p->dirfd, p->name, 0) == 0;
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
		if (n <= 0 || file_write(p->fd, buf, (size_t)n, MESSAGE_HEADER_LEN + at) == -1) {
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
		return file_write(p->fd, p->line, MESSAGE_HEADER_LEN, 0);
	n = pwritev(p->fd, iov, 2, 0);
	if (n == (ssize_t)(MESSAGE_HEADER_LEN + p->length))
		return 0;
	if (n >= 0)
		errno = ENOSPC;
	return -1;
}

/* Something stands at the number that is next: go on behind it. */
static void
adopt_name(struct queue *q, const char *name)
{
	struct stat st;

	if (fstatat(q->dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode))
		state_adopt(&q->state, body_bytes(&st));
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
	int r = queue_lock(sp, queue, false, &q);
	if (r == -1)
		return true; /* whoever pushes will say why not */
	if (r == 1)
		queue_unlock(q);
	const struct config *c = spool_config(sp, queue);
	return (r == 1 && queue_config_known(q) == -1) || fits_alone(c, length);
}

/* Messages that were removed by hand at the head count until somebody comes past. 0 or -1. */
static int
pass_missing(struct queue *q)
{
	struct state *s = &q->state;
	char name[MESSAGE_NAME_LEN + 1];
	struct stat st;
	unsigned holes = 0;

	for (uint64_t n; (n = state_candidate(s, 0)) < state_next(s);) {
		message_name(name, n);
		if (fstatat(q->dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 || is_damage(errno))
			break;
		if (errno != ENOENT)
			return -1;
		state_take(s, n);
		s->stale = true;
		if (++holes % HOLES_MAX == 0 && queue_skip_holes(q, n + 1) == -1)
			return -1;
	}
	return s->stale ? queue_recount(q) : 0;
}

/* With the lock held: do the limits let a message of that length in? 1, 0, or -1. */
static int
may_enter(struct queue *q, uint64_t length)
{
	const struct config *c = &q->config;
	struct state *s = &q->state;

	if (c->max_items == 0 && c->max_bytes == 0 && c->max_item_size == 0)
		return 1;
	if (!fits_alone(c, length))
		return 0;
	if (s->stale &&
	    queue_recount(q) == -1) /* as long as it may take: it is rare, and they are exact */
		return -1;
	if (has_room_for(q, 1, length))
		return 1;
	if (c->discard_old) /* only what waits can make room */
		return has_room(c, s->delayed + 1, s->delayed_bytes + length);
	return pass_missing(q) == -1 ? -1 : has_room_for(q, 1, length);
}

/* With the lock held, after message `newest` came in: let the oldest make room for it. Not before,
 * for then each push that fails would cost a message. What cannot be removed now is tried again
 * by the next push. */
static void
discard_oldest(struct queue *q, uint64_t newest)
{
	struct state *s = &q->state;

	while (q->config.discard_old && !s->stale && !has_room_for(q, 0, 0)) {
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
			r = pass_missing(q);
			queue_store(q);
			if (r == -1)
				break;
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
		if (restage(p, delayed ? place->fd : q->dirfd, name))
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
		if (q != p->queue && p->dirfd != -1 && !p->staged && move_to_queue(p, q) == -1)
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
			int room = may_enter(q, p->length);
			if (room != 1)
				return room == 0 ? ENTER_FULL : ENTER_ERROR;
		} else if ((errno == ENOENT || errno == EOPNOTSUPP) && !moved && !p->staged) {
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
		bool delayed = out->place.fd != -1;
		bool back = restage(p, delayed ? out->place.fd : q->dirfd, name);
		if (back && delayed)
			delay_remove(q, &out->place, name, p->length);
		else if (back)
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
	if (fsync(p->fd) == -1)
		return -1;
	if ((out->place.fd != -1 || !out->durable) && os_loses_new_entries(q->dirfd)) {
		if (os_syncfs(q->dirfd) == -1)
			return -1;
	} else if ((out->place.fd != -1 && delay_sync(&out->place) == -1) ||
	           fsync(q->dirfd) == -1 || (!out->durable && fsync(p->spool->rootfd) == -1)) {
		return -1;
	}
	if (out->durable)
		return 0;
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

	if (!q->configured)
		queue_config(q); /* the handle is a new one since push_commit looked */
	if (queue_config_known(q) == -1)
		return ENTER_ERROR;
	int room = may_enter(q, p->length);
	if (room == -1)
		return ENTER_ERROR;
	if (room == 1) {
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
