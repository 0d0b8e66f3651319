/*
 * fanout.c: which queues get a copy of what is pushed to another.
 *
 * `orders+audit` is a child of `orders`, because of its name. So that a push need not list
 * all queues, whoever first opens a child leaves an empty file of its name in `.fanout/orders`. That
 * is a hint: whoever deletes the queue removes it, and the directory if it was the last; one whose
 * queue went otherwise is removed by the next push, or by `mqctl check --repair`; and a queue that was
 * made by hand gets its own when it is used.
 *
 * A message is published in all of them, some at a time, before the first is flushed, so that one
 * flush is for all. The parent's own is settled first: it is the last in the log.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "spool_queue.h"

#define PARENTS_MAX 8 /* queues that one is a child of */
#define SPREAD_MAX 8  /* messages that share a flush; each is a handle of the spool */

static char **children; /* what find_children found last; NULL ends them */

static int
enrol(int fanoutfd, const char *parent, const char *name)
{
	int flags = O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;
	int dirfd, fd;

	do {
		dirfd = dir_open_or_make(fanoutfd, parent);
		if (dirfd == -1)
			return -1;
		fd = openat(dirfd, name, flags, 0600);
		close_fd(&dirfd);
	} while (fd == -1 && errno == ENOENT); /* it was removed between the two */
	if (fd == -1)
		return -1;
	close(fd);
	return 0;
}

static bool
may_be_child(const char *name)
{
	size_t len = strlen(name), tail = strlen(SPOOL_DEAD);

	return strchr(name + 1, '+') != NULL &&
	       (len <= tail || strcmp(name + len - tail, SPOOL_DEAD) != 0);
}

/* The next parent of the child `name`: copies it to `parent`, and advances *at, which begins as
 * `name`. False if there is none. */
static bool
next_parent(const char *name, const char **at, char parent[QUEUE_NAME_MAX + 1])
{
	*at = strchr(*at + 1, '+');
	if (*at == NULL)
		return false;
	memcpy(parent, name, (size_t)(*at - name));
	parent[*at - name] = '\0';
	return true;
}

/* Each + may be the one: a+b+c is a child of a+b, and of a; but not more than the first few, for each
 * is a directory. Dead letters are nobody's children. */
int
queue_enrol(struct spool *sp, const char *name)
{
	char parent[QUEUE_NAME_MAX + 1];
	const char *at = name;
	int fd, r = 0;

	if (!may_be_child(name))
		return 0;
	fd = dir_open_or_make(sp->rootfd, ".fanout");
	if (fd == -1)
		return -1;
	for (int i = 0; i < PARENTS_MAX && r == 0 && next_parent(name, &at, parent); i++)
		r = enrol(fd, parent, name);
	close_fd(&fd);
	return r;
}

void
queue_strike(struct spool *sp, const char *name)
{
	char parent[QUEUE_NAME_MAX + 1];
	const char *at = name;
	struct stat st;
	int fanoutfd = may_be_child(name) ? openat(sp->rootfd, ".fanout", dir_flags) : -1;

	if (fanoutfd == -1)
		return;
	while (next_parent(name, &at, parent)) {
		int fd = openat(fanoutfd, parent, dir_flags);
		if (fd == -1)
			continue;
		unlinkat(fd, name, 0);
		close(fd);
		unlinkat(fanoutfd, parent, AT_REMOVEDIR); /* unless others are in it */
	}
	close(fanoutfd);
	/* Who makes it now may have left its name before we removed that. */
	if (fstatat(sp->rootfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
		queue_enrol(sp, name);
}

static int
add_child(size_t *n, const char *name)
{
	char **more = realloc(children, (*n + 2) * sizeof *more);

	if (more == NULL)
		return -1;
	children = more;
	children[*n] = strdup(name);
	if (children[*n] == NULL)
		return -1;
	children[++*n] = NULL;
	return 0;
}

/* The names of the queues that get a copy of what is pushed to this one, into `children`. */
static int
find_children(struct spool *sp, const char *queue, size_t *n)
{
	struct dirent *e;
	struct stat st;
	int r = 0;

	*n = 0;
	if (spool_dirfd(sp) == -1)
		return -1;
	/* One after the other: of a path a link in the middle would be followed. */
	int fanoutfd = openat(sp->rootfd, ".fanout", dir_flags);
	int fd = fanoutfd == -1 ? -1 : openat(fanoutfd, queue, dir_flags);
	DIR *dir = fd == -1 ? NULL : fdopendir(fd);
	int saved = errno;
	if (dir == NULL) {
		close_fd(&fd);
		close_fd(&fanoutfd);
		errno = saved;
		return errno == ENOENT ? 0 : -1;
	}
	spool_list_free(children);
	children = NULL;
	while (r == 0 && (errno = 0, e = readdir(dir)) != NULL) {
		if (e->d_name[0] == '.')
			continue;
		bool there = fstatat(sp->rootfd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0;
		if (!there && errno == ENOENT) {
			unlinkat(fd, e->d_name, 0);
			/* Who makes it now may have left its name before we removed that. */
			there = fstatat(sp->rootfd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0;
			if (there && queue_enrol(sp, e->d_name) == -1)
				r = -1;
		}
		if (there)
			r = r == 0 ? add_child(n, e->d_name) : r;
		else if (errno != ENOENT)
			r = -1;
	}
	if (errno != 0)
		r = -1;
	if (r == 0 && *n == 0)
		unlinkat(fanoutfd, queue, AT_REMOVEDIR);
	saved = errno;
	close(fanoutfd);
	closedir(dir);
	errno = saved;
	return r;
}

/* Give a push the body of another, which has all of it and was not committed yet. */
static int
copy_body(struct push *to, const struct push *from)
{
	char *buf = to->spool->buf;
	uint64_t at = 0;

	if (from->fd == -1) {
		push_body(to, from->body, (size_t)from->length);
		return 0;
	}
	while (at < from->length) {
		ssize_t n = pread(from->fd, buf, push_piece(to), (off_t)(MESSAGE_HEADER_LEN + at));
		if (n <= 0) {
			errno = n == 0 ? EIO : errno;
			return -1;
		}
		if (push_write(to, buf, (size_t)n) == -1)
			return -1;
		at += (uint64_t)n;
	}
	return 0;
}

static void
count(struct spread *s, const char *queue, int result)
{
	int e = errno;

	s->stored += result == 0;
	s->full += result == 1;
	if (result != 0 && (s->failed[0] == '\0' || (s->error == 0 && result == -1))) {
		strcpy(s->failed, queue);
		s->error = result == 1 ? 0 : e;
	}
}

/* Settle what is published: the last first, whose flush is then that of all. */
static void
settle(struct push *published, size_t *n, struct spread *s)
{
	for (; *n > 0; --*n) {
		struct push *p = &published[*n - 1];
		count(s, p->queue_name, push_settle(p));
	}
}

static void
publish_copy(struct push *copy, const struct push *p, const char *child, uint32_t flags,
             struct spread *s, size_t *n)
{
	int r;

	push_begin(copy, p->spool, child);
	copy->exptime = p->exptime;
	copy->delay = p->delay;
	r = copy_body(copy, p);
	if (r == -1) {
		int e = errno;
		push_abort(copy);
		errno = e;
	} else {
		r = push_publish(copy, flags);
	}
	if (r == 0)
		++*n;
	else
		count(s, child, r);
}

void
fanout_tidy(struct spool *sp, const char *parent)
{
	size_t n;

	find_children(sp, parent, &n); /* which removes what leads nowhere */
}

bool
spool_accepts(struct spool *sp, const char *queue, uint64_t length)
{
	bool accepted = false;
	size_t n;

	if (find_children(sp, queue, &n) == -1)
		return true; /* push_spread will say why not */
	for (size_t i = 0; i < n && !accepted; i++)
		accepted = queue_accepts(sp, children[i], length);
	if (n == 0 || !spool_config(sp, queue)->fanout_only)
		accepted = accepted || queue_accepts(sp, queue, length);
	return accepted;
}

/* Does a queue with children get what is pushed to it, too? 0; or -1 if that cannot be told now. */
static int
gets_its_own(struct spool *sp, const char *queue, bool *to_parent)
{
	struct queue *q;
	int r = queue_find(sp, queue, false, &q);

	if (r == 1) {
		*to_parent = !queue_config(q)->fanout_only;
		return queue_config_known(q);
	}
	*to_parent = !spool_config(sp, NULL)->fanout_only;
	return r == -1 ? -1 : spool_config_known(sp, NULL);
}

void
push_spread(struct push *p, uint32_t flags, struct spread *s)
{
	struct push published[SPREAD_MAX];
	size_t n, npublished = 0;
	bool to_parent = true;

	*s = (struct spread){.wanted = 1};
	if (find_children(p->spool, p->queue_name, &n) == -1 ||
	    (n > 0 && gets_its_own(p->spool, p->queue_name, &to_parent) == -1)) {
		count(s, p->queue_name, -1);
		push_abort(p);
		return;
	}
	if (n == 0) {
		count(s, p->queue_name, push_commit(p, flags));
		return;
	}
	for (size_t i = 0; i < n; i++) {
		if (npublished == SPREAD_MAX)
			settle(published, &npublished, s);
		publish_copy(&published[npublished], p, children[i], flags, s, &npublished);
	}
	s->wanted = (unsigned)n;
	if (!to_parent) {
		push_abort(p);
	} else {
		s->wanted++;
		int r = push_publish(p, flags);
		count(s, p->queue_name, r == 0 ? push_settle(p) : r);
	}
	settle(published, &npublished, s);
}
