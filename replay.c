/*
 * replay.c: what the log says of the messages, done to their queues: after a reboot, at a checkpoint,
 * and after a flush has failed.
 */
#include "replay.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "os.h"
#include "spool_queue.h"

#define SYNC_EACH 64 /* files; for more a flush of the file system is cheaper */
#define PAGE 4096    /* bytes; no page is smaller */

/* The entries of one queue. */
static const struct entry *
of_queue(const struct log *l, uint64_t ino, size_t *n)
{
	size_t from = 0, to;

	while (from < l->n && l->entries[from].ino != ino)
		from++;
	for (to = from; to < l->n && l->entries[to].ino == ino; to++)
		;
	*n = to - from;
	return l->n == 0 ? NULL : l->entries + from;
}

/*
 * Checkpoint
 */

/* Open a message where it is now. It may move between two looks, from its number to .claim, and
 * back. A descriptor, or -1. */
static int
open_number(int dirfd, int claimfd, uint64_t number, int flags)
{
	char name[MESSAGE_NAME_LEN + 1];
	int fd;

	message_name(name, number);
	fd = openat(dirfd, name, flags);
	if (fd == -1 && errno == ENOENT)
		fd = openat(claimfd, name, flags);
	if (fd == -1 && errno == ENOENT)
		fd = openat(dirfd, name, flags);
	return fd;
}

/* Make durable what the log says of one queue in front of `mid`; or, if the whole file system was
 * `flushed` just now, see whether that was true of it: whoever flushed it before may have been told
 * of an error, and then we were not. 0, or -1 if a flush failed; what was not found stays in *alive. */
static int
sync_queue(int dirfd, const struct log *l, bool flushed, size_t *alive)
{
	struct stat st;
	size_t n = 0;
	int r = os_stat(dirfd, "", &st), claimfd = openat(dirfd, ".claim", dir_flags);
	const struct entry *e = of_queue(l, r == 0 && st.st_dev == l->dev ? st.st_ino : 0, &n);

	if (claimfd == -1 && errno != ENOENT)
		++*alive; /* so that all is flushed */
	for (size_t i = 0; r == 0 && i < n; i++) {
		if (e[i].type != RECORD_PUSH || e[i].at >= l->mid)
			continue;
		int fd = open_number(dirfd, claimfd, e[i].number, read_flags);
		if (fd == -1) {
			if (flushed && errno != ENOENT && errno != EBADF && errno != EAGAIN &&
			    !is_foreign(errno))
				r = -1;
			continue;
		}
		r = flushed ? os_was_written(fd) : fsync(fd);
		close(fd);
		--*alive;
	}
	if (r == 0 && n > 0 && !flushed)
		r = sync_removals(dirfd, claimfd);
	close_fd(&claimfd);
	return r;
}

int
sync_log(struct spool *sp, const struct log *l)
{
	size_t alive = 0;
	bool flushed, all = true;
	char **names;
	int r = 0;

	for (size_t i = 0; i < l->n; i++)
		alive += l->entries[i].type == RECORD_PUSH && l->entries[i].at < l->mid;
	flushed = alive > SYNC_EACH;
	if ((flushed && os_syncfs(sp->rootfd) == -1) || (names = spool_list(sp)) == NULL)
		return -1;
	for (size_t i = 0; r == 0 && names[i] != NULL; i++) {
		int fd = openat(sp->rootfd, names[i], dir_flags);
		if (fd != -1)
			r = sync_queue(fd, l, flushed, &alive);
		else
			all = all && errno == ENOENT;
		close_fd(&fd);
	}
	spool_list_free(names);
	/* What is not where it was looked for was removed by hand, or moved. */
	return r == 0 && !flushed && (alive > 0 || !all) ? os_syncfs(sp->rootfd) : r;
}

/*
 * Replay
 */

enum found { FOUND_ERROR, FOUND_NOTHING, FOUND_SAME, FOUND_TORN, FOUND_OTHER };

/* What stands at a message's place? */
static enum found
look_at(struct spool *sp, int dirfd, const char *name, const struct entry *e)
{
	struct claim c = {.fd = openat(dirfd, name, read_flags)};
	char line[MESSAGE_HEADER_LEN];
	enum found f = FOUND_OTHER;
	struct stat st;

	if (c.fd == -1 && errno == ENOENT)
		return FOUND_NOTHING;
	if (c.fd == -1)
		return is_foreign(errno) ? FOUND_OTHER : FOUND_ERROR;
	if (fstat(c.fd, &st) == -1)
		f = FOUND_ERROR;
	else if (S_ISREG(st.st_mode))
		switch (claim_check(sp, &c, e->number)) {
		case CLAIM_GOT:
			errno = EIO; /* if it was cut short since */
			if (pread(c.fd, line, sizeof line, 0) != (ssize_t)sizeof line)
				f = FOUND_ERROR;
			else if (message_same(line, e->file))
				f = FOUND_SAME;
			break;
		case CLAIM_DAMAGED:
			f = FOUND_TORN;
			break;
		default:
			f = FOUND_ERROR;
		}
	close_fd(&c.fd);
	return f;
}

/* Unlink what is no message's only copy; anything else goes to .bad. */
static int
clear_place(struct queue *q, int dirfd, const char *name, enum found f)
{
	if (f == FOUND_NOTHING)
		return 0;
	if (f == FOUND_OTHER)
		return queue_set_aside(q, dirfd, name);
	return unlinkat(dirfd, name, 0);
}

static int
restore(struct queue *q, const struct entry *e)
{
	static const char tmp[] = "replay";
	char name[MESSAGE_NAME_LEN + 1];
	enum found waiting, claimed;
	int fd, r;

	message_name(name, e->number);
	waiting = look_at(q->spool, q->dirfd, name, e);
	claimed = look_at(q->spool, q->claimfd, name, e);
	if (waiting == FOUND_ERROR || claimed == FOUND_ERROR)
		return -1;
	if (claimed == FOUND_SAME && waiting != FOUND_SAME)
		return clear_place(q, q->dirfd, name, waiting); /* an orphan, which comes back */
	if (waiting == FOUND_SAME)
		return clear_place(q, q->claimfd, name, claimed);
	/* The old files stay until the new one is complete, so that another replay begins again. */
	unlinkat(q->tmpfd, tmp, 0);
	fd = openat(q->tmpfd, tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd == -1)
		return -1;
	r = file_write(fd, e->file, e->length, 0);
	if (r == 0)
		r = fsync(fd);
	close(fd);
	if (r == -1 || clear_place(q, q->claimfd, name, claimed) == -1)
		return -1;
	if (waiting == FOUND_TORN)
		return renameat(q->tmpfd, tmp, q->dirfd, name);
	if (clear_place(q, q->dirfd, name, waiting) == -1)
		return -1;
	return os_rename_noreplace(q->tmpfd, tmp, q->dirfd, name);
}

static int
remove_taken(struct queue *q, uint64_t number)
{
	char name[MESSAGE_NAME_LEN + 1];

	message_name(name, number);
	if (unlinkat(q->dirfd, name, 0) == -1 && errno != ENOENT && errno != EISDIR)
		return -1;
	if (unlinkat(q->claimfd, name, 0) == -1 && errno != ENOENT && errno != EISDIR)
		return -1;
	return 0;
}

struct taken {
	const struct entry *entries; /* of the queue, in the order of their numbers */
	size_t n;
};

static int
by_number(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;

	return x->number < y->number ? -1 : x->number > y->number;
}

/* A file in .claim may have been written over by a message that was taken since, and its new name
 * and end not have reached the disk: it must not come again under that name. */
static int
remove_overwritten(void *arg, int dirfd, uint64_t number, const char *name)
{
	const struct taken *t = arg;
	struct entry key = {0}, *e;
	enum claim_file kind;
	int fd = openat(dirfd, name, read_flags);

	if (fd == -1)
		return errno == ENOENT || is_foreign(errno) ? 0 : -1;
	kind = claim_file(fd, number, &key.number);
	close(fd);
	if (kind != CLAIM_FILE_OVERWRITTEN)
		return kind == CLAIM_FILE_UNREADABLE ? -1 : 0;
	e = bsearch(&key, t->entries, t->n, sizeof key, by_number);
	return e != NULL && e->type == RECORD_TAKE ? unlinkat(dirfd, name, 0) : 0;
}

/* As queue_find. What is not ours and has nothing in the log must not keep all others from being
 * used. */
static int
find_queue(struct spool *sp, const char *name, const struct log *l, struct queue **q)
{
	struct stat st;
	size_t n;
	int r = queue_find(sp, name, false, q);

	if (r != -1 || !is_foreign(errno))
		return r;
	int e = errno;
	bool ours = fstatat(sp->rootfd, name, &st, AT_SYMLINK_NOFOLLOW) == -1 ||
	            (of_queue(l, st.st_ino, &n), n > 0);
	errno = e;
	return ours ? -1 : 0;
}

static int
replay_queue(struct spool *sp, const char *name, const struct log *l, bool distrust)
{
	struct queue *q;
	size_t n;
	int r = find_queue(sp, name, l, &q);

	if (r != 1)
		return r;
	if (distrust && queue_distrust(q) == -1)
		return -1;
	const struct entry *e = of_queue(l, q->dev == l->dev ? q->dir_ino : 0, &n);
	if (n == 0)
		return 0;
	if (queue_claim_dir(q) == -1 || queue_tmp_dir(q) == -1)
		return -1;
	r = 0;
	for (size_t i = 0; r == 0 && i < n; i++)
		if (e[i].type == RECORD_PUSH)
			r = restore(q, &e[i]);
		else if (e[i].type == RECORD_TAKE)
			r = remove_taken(q, e[i].number);
	struct taken taken = {.entries = e, .n = n};
	return r == 0 ? dir_each_number(q->claimfd, remove_overwritten, &taken) : -1;
}

int
replay_log(struct spool *sp, const struct log *l, bool distrust)
{
	char **names = spool_list(sp);
	int r = names == NULL ? -1 : 0;

	for (size_t i = 0; r == 0 && names[i] != NULL; i++)
		r = replay_queue(sp, names[i], l, distrust);
	spool_list_free(names);
	return r;
}

/*
 * After a failure
 */

/* Have the pages of a message's file written once more, with what is in them. Its owner may write to
 * it meanwhile, so nothing is written but by an atomic change of nothing. */
static int
make_dirty(int fd)
{
	struct stat st;
	volatile _Atomic unsigned char *p;

	if (fstat(fd, &st) == -1)
		return -1;
	if (!S_ISREG(st.st_mode) || st.st_size == 0)
		return 0; /* no message of ours */
	p = os_map_shared(fd, (size_t)st.st_size);
	if (p == NULL)
		return -1;
	for (off_t at = 0; at < st.st_size; at += PAGE)
		atomic_fetch_or(&p[at], 0);
	os_unmap_shared((void *)p, (size_t)st.st_size);
	/* It is as old as it was. */
	const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, st.st_mtim};
	futimens(fd, times);
	return 0;
}

/* With the lock of q held: what was torn while it waited is in the log yet; what is not there was
 * taken. */
static int
rescue_message(struct queue *q, const struct entry *e)
{
	char name[MESSAGE_NAME_LEN + 1];
	enum found f;
	int fd, r;

	message_name(name, e->number);
	f = look_at(q->spool, q->dirfd, name, e);
	if (f == FOUND_ERROR)
		return -1;
	if (f == FOUND_TORN)
		return restore(q, e);
	fd = open_number(q->dirfd, q->claimfd, e->number, write_flags);
	if (fd == -1)
		return errno == ENOENT || is_foreign(errno) ? 0 : -1;
	r = make_dirty(fd);
	close(fd);
	return r;
}

static int
rescue_queue(struct spool *sp, const char *name, const struct log *l)
{
	const struct entry *e;
	struct queue *q;
	size_t n;
	int r = find_queue(sp, name, l, &q);

	if (r != 1)
		return r;
	e = of_queue(l, q->dev == l->dev ? q->dir_ino : 0, &n);
	if (n == 0)
		return 0;
	if (queue_relock(q) == -1)
		return -1;
	r = queue_claim_dir(q) == -1 || queue_tmp_dir(q) == -1 ? -1 : 0;
	for (size_t i = 0; r == 0 && i < n; i++)
		if (e[i].type == RECORD_PUSH)
			r = rescue_message(q, &e[i]);
	queue_unlock(q);
	return r;
}

int
rescue_log(struct spool *sp, const struct log *l)
{
	char **names = spool_list(sp);
	int r = names == NULL ? -1 : 0;

	for (size_t i = 0; r == 0 && names[i] != NULL; i++)
		r = rescue_queue(sp, names[i], l);
	spool_list_free(names);
	return r;
}
