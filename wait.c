/*
 * wait.c: processes that wait for a message stand in line, one line for each queue.
 *
 * Each takes a ticket, the next number, by making a fifo of that name in `.wait`, and keeps it
 * open. Who is before us is watched by having his fifo open as well: when he leaves, or dies, the
 * last end that can write to it is closed, and poll says so. Only the first in the line watches
 * the queue, and he alone wakes when a message comes; when he has it he leaves, and the next is the
 * first, and looks. So a push wakes one process and its successor, however many wait; a process
 * that dies, whenever that is, is noticed by the one that has to go on; and who pushes
 * need not know that anybody waits. Where a message comes without a push the first looks by himself:
 * when one that is delayed is due, when a pause ends, and shortly after a claimed file was closed,
 * whose owner may have died.
 *
 * Who joins the line or moves up holds the queue's lock; who leaves need not. A fifo that a dead process left is removed by
 * whoever finds it before himself. Nothing in `.wait` matters to a message.
 */
#include "wait.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "os.h"
#include "spool_queue.h"

#define LOOK_MS 20     /* between two looks at the queue, where nothing can tell of a change */
#define NO_ROOM_MS 200 /* the same, of those who have no place in the line */
#define ORPHAN_MS 600  /* from when a claimed file was closed until its message has come back */

/* A process waits for one queue at a time. Kept from one wait to the next, for a consumer that is
 * alone: see os_watch_close. */
static struct os_watch watch = {.fd = -1};

struct line {
	uint64_t below, last; /* the last ticket there is that is lower than that */
};

static int
see_ticket(void *arg, int dirfd, uint64_t number, const char *name)
{
	struct line *l = arg;

	(void)dirfd, (void)name;
	if (number < l->below && number > l->last)
		l->last = number;
	return 0;
}

/* Watch whoever has this ticket: 1 and w->before is set; 0 if he is not there any more; -1. */
static int
watch_ticket(struct waiter *w, const char *name)
{
	int flags = O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC;
	int fd = openat(w->dirfd, name, O_RDONLY | flags);
	struct pollfd p = {.fd = fd};
	struct stat st;

	if (fd == -1)
		return errno == ENOENT || errno == ELOOP ? 0 : -1;
	int looked = fstat(fd, &st);
	if (looked == -1 || !S_ISFIFO(st.st_mode)) {
		close_fd(&fd);
		return looked;
	}
	/* A fifo that nobody has had open for writing since we opened it does not say that
	 * nobody has. */
	int writer = openat(w->dirfd, name, O_WRONLY | flags);
	if (writer == -1 && errno != ENOENT) {
		close_fd(&fd);
		return -1;
	}
	close_fd(&writer);
	if (poll(&p, 1, 0) == 1) {
		close(fd);
		return 0;
	}
	w->before = fd;
	return 1;
}

struct count {
	struct waiter w; /* of which only dirfd is used */
	uint64_t n;
};

static int
count_ticket(void *arg, int dirfd, uint64_t number, const char *name)
{
	struct count *c = arg;

	(void)dirfd, (void)number;
	int r = watch_ticket(&c->w, name);
	c->n += r == 1;
	close_fd(&c->w.before);
	return r == -1 && may_pass(errno) ? -1 : 0;
}

int
queue_waiters(int dirfd, uint64_t *n)
{
	struct count c = {.w = {.before = -1}};

	*n = 0;
	c.w.dirfd = openat(dirfd, ".wait", dir_flags);
	if (c.w.dirfd == -1)
		return may_pass(errno) ? -1 : 0;
	int r = dir_each_number(c.w.dirfd, count_ticket, &c);
	close_fd(&c.w.dirfd);
	*n = c.n;
	return r;
}

/* With the lock held: find out who is before us. */
static int
find_place(struct waiter *w)
{
	char name[MESSAGE_NAME_LEN + 1];

	close_fd(&w->before);
	for (uint64_t below = w->ticket;;) {
		struct line l = {.below = below};
		if (dir_each_number(w->dirfd, see_ticket, &l) == -1)
			return -1;
		if (l.last == 0)
			break;
		message_name(name, l.last);
		int r = watch_ticket(w, name);
		if (r != 0)
			return r == 1 ? 0 : -1;
		unlinkat(w->dirfd, name, 0);
		below = l.last;
	}
	/* Who died before we watched has told nobody. */
	w->look_ms = os_monotonic_ms() + ORPHAN_MS;
	w->watching = queue_claim_dir(w->queue) != -1 &&
	              os_watch_begin(&watch, w->queue->dirfd, w->queue->claimfd) == 0;
	return 0;
}

/* With the lock held: make a fifo with the next number. */
static int
take_ticket(struct waiter *w)
{
	char name[MESSAGE_NAME_LEN + 1];
	struct line l = {.below = MESSAGE_NUMBER_MAX};
	int flags = O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC, reader;

	w->dirfd = dir_open_or_make(w->queue->dirfd, ".wait");
	if (w->dirfd == -1 || dir_each_number(w->dirfd, see_ticket, &l) == -1)
		return -1;
	w->ticket = l.last + 1;
	message_name(name, w->ticket);
	if (mkfifoat(w->dirfd, name, 0600) == -1)
		return -1;
	reader = openat(w->dirfd, name, O_RDONLY | flags); /* or the next open fails */
	w->own = openat(w->dirfd, name, O_WRONLY | flags);
	int e = errno;
	close_fd(&reader);
	if (w->own == -1)
		unlinkat(w->dirfd, name, 0);
	errno = e;
	return w->own == -1 ? -1 : 0;
}

static void
forget(struct waiter *w)
{
	close_fd(&w->own);
	close_fd(&w->before);
	if (w->watching)
		os_watch_end(&watch);
	w->watching = false;
	close_fd(&w->dirfd);
	if (w->queue != NULL)
		queue_unref(w->queue);
	w->queue = NULL;
}

/* Join the line of what bears the queue's name now. */
static int
join(struct waiter *w)
{
	struct queue *q;

	if (queue_lock(w->spool, w->queue_name, true, &q) != 1)
		return -1;
	w->queue = q;
	q->refs++;
	int r = take_ticket(w) == -1 || find_place(w) == -1 ? -1 : 0;
	int e = errno;
	queue_unlock(q);
	if (r == -1)
		waiter_end(w);
	errno = e;
	return r;
}

/* A full disk has no room for a fifo, but may have a message that comes back: then there is no
 * place, and who waits looks now and then. */
static int
line_up(struct waiter *w)
{
	int r = join(w);

	return r == -1 && (errno == ENOSPC || errno == EDQUOT || errno == EROFS) ? 0 : r;
}

int
waiter_begin(struct waiter *w, struct spool *sp, const char *queue)
{
	*w = (struct waiter){.spool = sp, .dirfd = -1, .own = -1, .before = -1};
	snprintf(w->queue_name, sizeof w->queue_name, "%s", queue);
	return line_up(w);
}

bool
waiter_is_first(const struct waiter *w)
{
	return w->before == -1;
}

/* Who was before us has gone. */
static int
move_up(struct waiter *w)
{
	struct queue *q;

	if (queue_lock(w->spool, w->queue_name, true, &q) != 1)
		return -1;
	int r = q == w->queue ? find_place(w) : 0;
	queue_unlock(q);
	return r;
}

/* When the queue is worth another look although nothing happens in it: os_monotonic_ms, 0: never. */
static uint64_t
next_look(const struct waiter *w)
{
	const struct state *s = &w->queue->state;
	uint64_t next = s->due * 1000;

	if (s->paused == STATE_FOREVER)
		return 0;
	if (w->look_ms != 0 && (next == 0 || w->look_ms < next))
		next = w->look_ms;
	return next == 0 || next < s->paused ? s->paused : next;
}

int
waiter_sleep(struct waiter *w, struct pollfd *client, uint64_t deadline)
{
	bool first = waiter_is_first(w);
	struct pollfd fds[] = {{.fd = w->before, .events = 0}, *client};

	if (w->queue != NULL && w->queue->name[0] == '\0') {
		waiter_end(w); /* deleted, or moved away: line up in the new one */
		return line_up(w);
	}
	if (first)
		fds[0] = (struct pollfd){.fd = w->watching ? watch.fd : -1, .events = POLLIN};
	else
		os_watch_close(&watch); /* there are others before us, who need one, and time */
	for (;;) {
		uint64_t now = os_monotonic_ms(), until = deadline;
		uint64_t look = now + (w->queue == NULL ? NO_ROOM_MS : LOOK_MS);
		if (first && !w->watching && look < until)
			until = look;
		if (first && w->queue != NULL && (look = next_look(w)) != 0 && look < until)
			until = look;
		uint64_t ms = until > now ? until - now : 0;
		int n = poll(fds, 2, ms > INT_MAX ? INT_MAX : (int)ms);
		if (n == -1)
			return errno == EINTR ? 0 : -1;
		client->revents = fds[1].revents;
		if (n == 0)
			w->look_ms = 0;
		if (!first && fds[0].revents != 0)
			return move_up(w);
		if (n == 0 || fds[1].revents != 0 || w->queue == NULL)
			return 0;
		if (os_watch_read(&watch)) {
			/* Whoever put it there holds the lock yet, and is about to let it go: sleep
			 * until then, rather than try. */
			if (flock(w->queue->statefd, LOCK_EX) == 0)
				flock(w->queue->statefd, LOCK_UN);
			return 0;
		}
		/* Something was closed in .claim: by one whose message was delivered, or who died
		 * with it. One look, somewhat later, for all of them. */
		w->look_ms = now + ORPHAN_MS;
	}
}

void
waiter_end(struct waiter *w)
{
	char name[MESSAGE_NAME_LEN + 1];

	if (w->own != -1) {
		message_name(name, w->ticket);
		unlinkat(w->dirfd, name, 0);
	}
	forget(w);
}

void
waiter_tidy(void)
{
	os_watch_close(&watch);
}
