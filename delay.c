/*
 * delay.c: messages that are not to be delivered yet.
 *
 *     <queue>/.delay/<second>/<number>
 *
 * They lie in one directory for each second at which some of them are due, by CLOCK_MONOTONIC,
 * which nobody can set; a file's time of modification is the same moment by the calendar, for the
 * operator's eyes, and for the first look after a reboot. Their numbers only keep them in order.
 * `due` in .state is the earliest such second, so whoever takes a message before looks no further;
 * who takes one later gives those that are due (delay_promote) the numbers that are next in the
 * queue. So a message waits up to a second longer than it was told; and that some are delayed costs
 * nothing but, once for each second at which there are any, a listing of those seconds.
 *
 * All of it happens with the queue's lock held, and somebody may die at any point: .state is
 * written before a message comes (that they are to be counted anew, and when the first may be due),
 * and before it goes into the queue (it is a hole there until it is moved). Whatever number its
 * header bears, a file in .delay is a message that is delayed, unless it is the second name of one that
 * stands in the queue already (was_promoted). The log does not know of it: a push
 * flushes it by itself, and a flush of the queue moves .delay away as a whole.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "os.h"
#include "spool_queue.h"

#define PROMOTE_MAX 64 /* messages under one lock, each of which may be flushed */

struct numbers {
	uint64_t *n;
	size_t count, room;
};

static int
add_number(void *arg, int dirfd, uint64_t number, const char *name)
{
	struct numbers *l = arg;

	(void)dirfd, (void)name;
	if (l->count == l->room) {
		size_t room = l->room == 0 ? 64 : 2 * l->room;
		uint64_t *more = realloc(l->n, room * sizeof *more);
		if (more == NULL)
			return -1;
		l->n = more;
		l->room = room;
	}
	l->n[l->count++] = number;
	return 0;
}

static int
by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* The entries of a directory that are numbers, sorted, to be freed by the caller in any case. */
static int
list_sorted(int fd, struct numbers *l)
{
	*l = (struct numbers){0};
	if (dir_each_number(fd, add_number, l) == -1)
		return -1;
	if (l->count > 1)
		qsort(l->n, l->count, sizeof *l->n, by_value);
	return 0;
}

/* Open .delay and list the seconds in it. Its descriptor, or -1 also where there is none: then
 * errno is ENOENT. */
static int
open_delay(struct queue *q, struct numbers *seconds)
{
	int fd = openat(q->dirfd, ".delay", dir_flags);

	*seconds = (struct numbers){0};
	if (fd == -1 && (errno == ENOTDIR || errno == ELOOP))
		errno = ENOENT; /* something of an operator's */
	if (fd != -1 && list_sorted(fd, seconds) == -1)
		close_fd(&fd);
	return fd;
}

static int
open_second(int parent, uint64_t second)
{
	char name[MESSAGE_NAME_LEN + 1];

	message_name(name, second);
	return openat(parent, name, dir_flags);
}

/* Says this error of open_second that there is none of that name? */
static bool
is_no_second(int error)
{
	return error == ENOENT || error == ENOTDIR || is_foreign(error);
}

static void
expect(struct state *s, uint64_t second)
{
	if (s->due == 0 || second < s->due)
		s->due = second;
}

int
delay_open(struct queue *q, uint64_t seconds, struct delayed *d)
{
	char name[MESSAGE_NAME_LEN + 1];
	struct state *s = &q->state;
	uint64_t before = s->due;

	d->due = (os_monotonic_ms() + 999) / 1000 + seconds;
	d->date = time(NULL) + (time_t)seconds + 1;
	d->parent = dir_open_or_make(q->dirfd, ".delay");
	message_name(name, d->due);
	d->fd = d->parent == -1 ? -1 : dir_open_or_make(d->parent, name);
	if (d->fd == -1) {
		close_fd(&d->parent);
		return -1;
	}
	d->stale = s->stale;
	s->stale = true;
	expect(s, d->due);
	d->is_next = s->due != before;
	if (queue_store(q) == 0)
		return 0;
	delay_close(d);
	return -1;
}

void
delay_close(struct delayed *d)
{
	close_fd(&d->fd);
	close_fd(&d->parent);
}

int
delay_store(struct queue *q, const struct delayed *d, uint64_t bytes)
{
	struct stat st;

	q->state.stale = d->stale;
	q->state.delayed++;
	q->state.delayed_bytes += bytes;
	if (queue_store(q) == -1)
		return -1;
	if (fstat(q->statefd, &st) == -1) {
		int e = errno;
		q->state.stale = true; /* it was counted, and is about to go */
		queue_store(q);
		errno = e;
		return -1;
	}
	if (st.st_nlink == 0) { /* removed by hand, and perhaps made anew without this one */
		queue_unlock(q);
		if (queue_relock(q) == -1)
			return -1;
		q->state.stale = true;
		expect(&q->state, d->due);
		if (queue_store(q) == -1)
			return -1;
	}
	if (d->is_next)
		queue_wake(q);
	return 0;
}

static void
count_out(struct state *s, uint64_t bytes)
{
	s->delayed -= s->delayed > 0;
	s->delayed_bytes -= s->delayed_bytes < bytes ? s->delayed_bytes : bytes;
}

void
delay_remove(struct queue *q, const struct delayed *d, const char *name, uint64_t bytes)
{
	if (unlinkat(d->fd, name, 0) == 0) {
		count_out(&q->state, bytes);
		queue_store(q);
	}
}

int
delay_sync(const struct delayed *d)
{
	return fsync(d->fd) == -1 || fsync(d->parent) == -1 ? -1 : 0;
}

/* Write the number into a message that is to get it, durably if `sync`: it must not stand in the
 * queue with another one. Returns 0; 1 if that cannot be done now; -1 if it is no message. */
static int
renumber(int dirfd, const char *name, uint64_t number, bool sync)
{
	char line[MESSAGE_HEADER_LEN];
	int fd = openat(dirfd, name, write_flags), r = 1;

	if (fd == -1)
		return is_foreign(errno) ? -1 : 1;
	ssize_t n = pread(fd, line, sizeof line, 0);
	if (n == -1 && !is_damage(errno))
		r = 1;
	else if (n != sizeof line || !message_renumber(line, number))
		r = -1;
	else if (pwrite(fd, line, sizeof line, 0) == sizeof line && (!sync || fdatasync(fd) == 0))
		r = 0;
	close(fd);
	return r;
}

/* Where a rename is a link and an unlink (os_rename_noreplace), a kill between the two leaves both: then
 * the message stands at the number that it bears, and goes from here. */
static bool
was_promoted(struct queue *q, int dirfd, const char *name, const struct stat *st)
{
	char line[MESSAGE_HEADER_LEN], place[MESSAGE_NAME_LEN + 1];
	struct message m;
	struct stat there;
	uint32_t crc;

	if (st->st_nlink == 1 || !S_ISREG(st->st_mode))
		return false;
	int fd = openat(dirfd, name, read_flags);
	bool read = fd != -1 && pread(fd, line, sizeof line, 0) == (ssize_t)sizeof line &&
	            message_read_header(line, &m, &crc) == 0;
	close_fd(&fd);
	if (!read)
		return false;
	message_name(place, m.number);
	return fstatat(q->dirfd, place, &there, AT_SYMLINK_NOFOLLOW) == 0 &&
	       there.st_ino == st->st_ino && there.st_dev == st->st_dev &&
	       unlinkat(dirfd, name, 0) == 0;
}

/* Promote the `n` first messages of one second. Returns 0; -1 if some must stay for now. */
static int
promote_some(struct queue *q, int fd, uint64_t *numbers, size_t n)
{
	char name[MESSAGE_NAME_LEN + 1], place[MESSAGE_NAME_LEN + 1];
	uint64_t bytes[PROMOTE_MAX];
	struct state *s = &q->state;
	uint64_t first = state_next(s);
	bool stale = s->stale;
	struct stat st;
	int result = 0;
	size_t left = n;

	n = 0;
	for (size_t i = 0; i < left; i++) {
		message_name(name, numbers[i]);
		bytes[n] = 0;
		if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
			if (was_promoted(q, fd, name, &st))
				continue;
			bytes[n] = body_bytes(&st);
		}
		numbers[n++] = numbers[i];
	}
	for (size_t i = 0; i < n; i++) {
		state_give(s, first + i);
		state_count_in(s, bytes[i]);
		count_out(s, bytes[i]);
	}
	s->stale = true; /* until they are there */
	if (queue_store(q) == -1)
		return -1;
	for (size_t i = 0; i < n; i++) {
		message_name(name, numbers[i]);
		message_name(place, first + i);
		int r = renumber(fd, name, first + i, q->spool->sync != SPOOL_SYNC_NONE);
		if (r == 0 && os_rename_noreplace(fd, name, q->dirfd, place) == 0) {
			if (queue_make_known(q, first + i, bytes[i]) == -1)
				return -1;
			continue;
		}
		stale = true;
		if (r != -1 || queue_set_aside(q, fd, name) == -1)
			result = -1;
	}
	s->stale = stale;
	return result;
}

/* Promote up to `max` messages of one second; its directory goes when it is empty. Returns how many,
 * or -1 if some must stay for now. */
static int
promote_second(struct queue *q, int parent, uint64_t second, size_t max)
{
	char name[MESSAGE_NAME_LEN + 1];
	struct numbers l = {0};
	int fd = open_second(parent, second), r = -1;

	if (fd == -1)
		return is_no_second(errno) ? 0 : -1;
	if (list_sorted(fd, &l) == 0) {
		size_t n = l.count < max ? l.count : max;
		r = n == 0 ? 0 : promote_some(q, fd, l.n, n);
		/* Also what somebody renamed who died before he could flush it. */
		if (r == 0 && q->spool->sync != SPOOL_SYNC_NONE &&
		    (fsync(q->dirfd) == -1 || fsync(fd) == -1))
			r = -1;
		message_name(name, second);
		if (r == 0 && n == l.count)
			unlinkat(parent, name, AT_REMOVEDIR);
		if (r == 0)
			r = (int)n;
	}
	free(l.n);
	close_fd(&fd);
	return r;
}

int
delay_promote(struct queue *q)
{
	struct state *s = &q->state;
	uint64_t now = os_monotonic_ms() / 1000;
	struct numbers seconds;
	size_t i = 0, left = PROMOTE_MAX;
	int r = 0;

	if (s->due == 0 || now < s->due)
		return 0;
	int fd = open_delay(q, &seconds);
	if (fd == -1 && errno != ENOENT) {
		free(seconds.n);
		return -1;
	}
	while (i < seconds.count && seconds.n[i] <= now && left > 0) {
		r = promote_second(q, fd, seconds.n[i], left);
		if (r == -1)
			break;
		left -= (size_t)r;
		i += left > 0;
	}
	s->due = i < seconds.count ? seconds.n[i] : 0;
	if (s->due == 0)
		s->delayed = s->delayed_bytes = 0;
	free(seconds.n);
	close_fd(&fd);
	return r == -1 ? -1 : 0;
}

int
delay_each(struct queue *q, number_visitor *visit, void *arg)
{
	struct numbers seconds;
	int fd = open_delay(q, &seconds), r = fd == -1 && errno != ENOENT ? -1 : 0;

	for (size_t i = 0; r == 0 && i < seconds.count; i++) {
		int dir = open_second(fd, seconds.n[i]);
		if (dir == -1 && is_no_second(errno))
			continue;
		r = dir == -1 ? -1 : dir_each_number(dir, visit, arg);
		close_fd(&dir);
	}
	free(seconds.n);
	close_fd(&fd);
	return r;
}

int
delay_count(struct queue *q)
{
	struct listing l = {0};

	if (delay_each(q, list_number, &l) == -1)
		return -1;
	q->state.delayed = l.waiting;
	q->state.delayed_bytes = l.bytes;
	return 0;
}

static int
read_date(void *arg, int dirfd, uint64_t number, const char *name)
{
	struct stat st;

	(void)number;
	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == -1)
		return errno == ENOENT || is_damage(errno) ? 0 : -1;
	*(time_t *)arg = st.st_mtime;
	return 1;
}

/* The second that the messages in one directory are due by their dates. 0 or -1. */
static int
second_by_date(int parent, uint64_t second, uint64_t *right)
{
	uint64_t now = os_monotonic_ms() / 1000;
	time_t date = 0, today = time(NULL);
	int fd = open_second(parent, second), r;

	*right = second;
	if (fd == -1)
		return is_no_second(errno) ? 0 : -1;
	r = dir_each_number(fd, read_date, &date);
	close_fd(&fd);
	*right = date <= today ? now : now + (uint64_t)(date - today);
	return r == -1 ? -1 : 0;
}

/* Give a directory another name; or, if there is one of that, put its messages in there. */
static int
move_second(int parent, uint64_t from, uint64_t to)
{
	char old[MESSAGE_NAME_LEN + 1], new[MESSAGE_NAME_LEN + 1], name[MESSAGE_NAME_LEN + 1];
	struct numbers l = {0};

	message_name(old, from);
	message_name(new, to);
	if (renameat(parent, old, parent, new) == 0) /* it replaces an empty one */
		return 0;
	if (errno == ENOTDIR)
		return 0; /* somebody's file has the name: then it stays what it is */
	if (errno != ENOTEMPTY && errno != EEXIST)
		return -1;
	int fd = open_second(parent, from), into = open_second(parent, to);
	int r = fd == -1 || into == -1 || list_sorted(fd, &l) == -1 ? -1 : 0;
	for (size_t i = 0; r == 0 && i < l.count; i++) {
		uint64_t place = l.n[i]; /* if that is taken, any will do */
		message_name(name, l.n[i]);
		do {
			message_name(new, place);
			r = os_rename_noreplace(fd, name, into, new);
		} while (r == -1 && errno == EEXIST && ++place < MESSAGE_NUMBER_MAX);
		if (r == -1 && errno == ENOENT)
			r = 0; /* removed by hand */
	}
	int e = errno;
	free(l.n);
	close_fd(&fd);
	close_fd(&into);
	if (r == 0)
		unlinkat(parent, old, AT_REMOVEDIR);
	errno = e;
	return r;
}

/* By the dates. What is overdue gets the lowest seconds there are, in its order. One that is to be
 * later goes behind those that have not been moved yet: so these go first. */
static int
correct_seconds(int parent, const struct numbers *seconds)
{
	uint64_t now = os_monotonic_ms() / 1000, overdue = 0, right;
	int r = 0;

	for (size_t i = 0; r == 0 && i < seconds->count; i++) {
		r = second_by_date(parent, seconds->n[i], &right);
		if (r == 0 && right <= now && seconds->n[i] > now)
			r = move_second(parent, seconds->n[i], ++overdue);
		else if (r == 0 && right + 1 < seconds->n[i])
			r = move_second(parent, seconds->n[i], right);
	}
	for (size_t i = seconds->count; r == 0 && i-- > 0;) {
		r = second_by_date(parent, seconds->n[i], &right);
		if (r == 0 && right > now && right > seconds->n[i] + 1)
			r = move_second(parent, seconds->n[i], right);
	}
	return r;
}

int
delay_rebuild(struct queue *q, bool by_date)
{
	struct numbers seconds;
	int fd = open_delay(q, &seconds), r = fd == -1 && errno != ENOENT ? -1 : 0;

	if (fd != -1 && by_date) {
		r = correct_seconds(fd, &seconds);
		free(seconds.n);
		seconds.n = NULL;
		if (r == 0)
			r = list_sorted(fd, &seconds);
	}
	if (r == 0 && seconds.count > 0)
		expect(&q->state, seconds.n[0]);
	free(seconds.n);
	close_fd(&fd);
	return r == 0 ? delay_count(q) : -1;
}
