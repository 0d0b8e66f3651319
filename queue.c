/*
 * queue.c: a queue's directory: handles, the lock, .state, and what dead processes left.
 *
 * A queue is used through a handle, which keeps its directories open. Taking the lock checks
 * that the handle still leads where its name does, and loads the state; one that is missing or
 * malformed, or from before the last reboot or mount, is made anew from a listing. See spool.c for
 * how messages move, and why nothing is lost when a process dies in between.
 *
 * The sweep (queue_sweep) puts back what dead processes had claimed, and removes what they were
 * writing. Who takes a message, peeks or asks for figures does it first, with the lock held, if
 * nobody has for half a second; a push never does.
 */
#include "spool_queue.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "os.h"
#include "place.h"

#define LOCK_TRIES 5   /* before sleeping: none gave a sixth less at 10 and at 50 connections */
#define CONFIG_MS 900  /* between two looks at the settings of a queue that is in use */
#define OTHER_FILES 24 /* that a process has open beside its handles on queues */
#define FRESH_MS 50    /* those of the spool need not be looked at again with them */
#define SWEEP_MS 500   /* between two looks for orphans in a queue that is in use */

/* Not from malloc: its first two calls would cost a process for one connection a tenth of its
 * time. */
static struct spool the_spool;

struct spool *
spool_at(const char *dir, enum spool_sync sync)
{
	struct spool *sp = &the_spool;

	sp->dir = dir;
	sp->sync = sync;
	sp->rootfd = -1;
	sp->refused = false;
	sp->refusal = 0;
	sp->journal.fd = sp->journal.sync_fd = -1;
	sp->configured = false;
	config_merge(&sp->config, &sp->config_file, NULL);
	sp->pid = getpid();
	sp->knows_boot = os_boot_id(sp->boot) == 0;
	return sp;
}

/* A directory is not to be used; `fault` says why, or is NULL. */
static int
refuse(struct spool *sp, const char *path, ino_t ino, const char *fault)
{
	if (fault == NULL)
		return 0;
	if (sp->on_mistake != NULL && sp->refusal != ino) {
		sp->on_mistake("refused", path, fault);
		sp->refusal = ino;
	}
	errno = EPERM;
	return -1;
}

static int
check_place(struct spool *sp)
{
	struct stat st;

	if (fstat(sp->rootfd, &st) == -1)
		return -1;
	sp->owner = st.st_uid;
	sp->dev = st.st_dev;
	sp->refused = refuse(sp, sp->dir, st.st_ino, place_fault(sp->rootfd, &st, sp->dir)) == -1;
	return sp->refused ? -1 : 0;
}

static int
check_queue_place(const struct queue *q, const struct stat *st)
{
	const struct spool *sp = q->spool;
	char name[QUEUE_NAME_MAX + 1], path[PATH_MAX];

	if (st->st_uid == sp->owner && (st->st_mode & (S_IWGRP | S_IWOTH)) == 0)
		return 0;
	snprintf(name, sizeof name, "%.*s", (int)strcspn(q->state_path, "/"), q->state_path);
	snprintf(path, sizeof path, "%s/%s", sp->dir, name);
	return refuse(q->spool, name, st->st_ino, place_owner_fault(st, sp->owner, path));
}

bool
spool_is_refused(const struct spool *sp)
{
	return sp->refused;
}

int
spool_dirfd(struct spool *sp)
{
	if (sp->rootfd != -1)
		return sp->rootfd;
	sp->refused = false;
	sp->knows_boot = sp->knows_boot || os_boot_id(sp->boot) == 0;
	if (!sp->knows_boot) /* there may have been a reboot */
		return -1;
	sp->rootfd = open(sp->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (sp->rootfd != -1 && (check_place(sp) == -1 || journal_open(sp) == -1))
		close_fd(&sp->rootfd);
	return sp->rootfd;
}

/*
 * Handles on queues: directories stay open, because a connection mostly uses one queue.
 */

void
close_fd(int *fd)
{
	int e = errno;
	if (*fd != -1)
		close(*fd);
	*fd = -1;
	errno = e;
}

static void
close_queue(struct queue *q)
{
	close_fd(&q->dirfd);
	close_fd(&q->statefd);
	close_fd(&q->claimfd);
	close_fd(&q->tmpfd);
	close_fd(&q->sparefd);
	q->name[0] = '\0';
	q->open = false;
}

void
queue_detach(struct queue *q)
{
	if (q->unsettled)
		spool_settle(q->spool); /* while its directories are open */
	q->name[0] = '\0';
	if (q->refs == 0)
		close_queue(q);
}

void
queue_unref(struct queue *q)
{
	q->refs--;
	if (q->refs == 0 && q->name[0] == '\0')
		close_queue(q);
}

void
spool_close(struct spool *sp)
{
	spool_settle(sp);
	journal_close(sp);
	for (size_t i = 0; i < sp->nqueues; i++)
		if (sp->queues[i].open)
			close_queue(&sp->queues[i]);
	sp->nqueues = 0;
	close_fd(&sp->rootfd);
}

const char *
spool_strerror(int error)
{
	switch (error) {
	case EMLINK:
		return "too many queues"; /* by max_queues, or for the file system */
	case ENOBUFS:
		return "no room where expired messages go"; /* of spool_claim and spool_flush_expired */
	default:
		return strerror(error);
	}
}

int
file_write(int fd, const void *data, size_t len, uint64_t offset)
{
	const char *p = data;

	while (len > 0) {
		ssize_t n = pwrite(fd, p, len, (off_t)offset);
		if (n == -1 && errno == EINTR)
			continue;
		if (n == -1)
			return -1;
		p += n;
		len -= (size_t)n;
		offset += (uint64_t)n;
	}
	return 0;
}

int
dir_open_or_make(int parent, const char *name)
{
	int fd;

	while ((fd = openat(parent, name, dir_flags)) == -1 && errno == ENOENT)
		if (mkdirat(parent, name, 0700) == -1 && errno != EEXIST)
			return -1;
	return fd;
}

static int
subdir(struct queue *q, int *fd, const char *name)
{
	if (*fd == -1)
		*fd = dir_open_or_make(q->dirfd, name);
	return *fd;
}

int
queue_claim_dir(struct queue *q)
{
	return subdir(q, &q->claimfd, ".claim");
}

int
queue_tmp_dir(struct queue *q)
{
	return subdir(q, &q->tmpfd, ".tmp");
}

static int
open_state(struct queue *q)
{
	struct stat st;
	int flags = O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;

	if (fstat(q->dirfd, &st) == -1 || check_queue_place(q, &st) == -1)
		return -1;
	q->dir_ino = st.st_ino;
	q->statefd = os_openat_noatime(q->dirfd, ".state", flags, 0);
	if (q->statefd == -1 && errno == ENOENT) {
		/* So that the queue can be deleted when the disk is full. */
		mkdirat(q->spool->rootfd, ".trash", 0700);
		q->statefd = os_openat_noatime(q->dirfd, ".state", flags | O_CREAT, 0600);
	}
	if (q->statefd == -1 || os_stat(q->statefd, "", &st) == -1)
		return -1;
	if (!S_ISREG(st.st_mode)) {
		errno = ENXIO; /* as for a socket */
		return -1;
	}
	q->dev = st.st_dev;
	q->ino = st.st_ino;
	q->raw_len = 0;
	return 0;
}

static const struct config *common_config(struct spool *sp);

/* How many handles may be open, each with five descriptors, without leaving none for the rest. */
static size_t
slots(void)
{
	static size_t n;
	struct rlimit l;

	if (n == 0) {
		n = SPOOL_QUEUES;
		if (getrlimit(RLIMIT_NOFILE, &l) == 0 && l.rlim_cur < OTHER_FILES + 5 * n)
			n = l.rlim_cur < OTHER_FILES + 10 ? 2 : (l.rlim_cur - OTHER_FILES) / 5;
	}
	return n;
}

/* A free slot: a new one while there is room, else the one longest unused. Claims that a connection
 * holds at a time are fewer than slots, so there always is one. */
static struct queue *
free_slot(struct spool *sp)
{
	struct queue *best = NULL;

	for (size_t i = 0; i < sp->nqueues; i++) {
		struct queue *q = &sp->queues[i];
		if (!q->open)
			return q;
		if (q->refs == 0 && (best == NULL || q->last_use < best->last_use))
			best = q;
	}
	if (sp->nqueues < slots())
		return &sp->queues[sp->nqueues++];
	if (best != NULL) {
		if (best->unsettled)
			spool_settle(sp); /* while its directories are open */
		close_queue(best);
	}
	return best;
}

static bool
same_change(const struct stat *a, const struct stat *b)
{
	return a->st_nlink == b->st_nlink && a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
	       a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

/* Returns -1 if they cannot be listed. */
static int64_t
count_queues(struct spool *sp)
{
	char **names = spool_list(sp);
	int64_t n = 0;

	if (names == NULL)
		return -1;
	while (names[n] != NULL)
		n++;
	spool_list_free(names);
	return n;
}

/*
 * With the spool locked: are there fewer queues than that? Most file systems count the directories
 * in one as links to it, with two of its own, and the spool's hidden ones are few; where they do
 * not, or when it is close, a listing tells. A client that asks for a million shall not be worth a
 * million listings: of a spool that was full, and has not changed since, none is made for a second.
 * Returns 1, 0 or -1.
 */
static int
has_room(struct spool *sp, uint64_t max)
{
	static struct stat full; /* as it was when it was; of one spool, as a process has one */
	static uint64_t full_until;
	struct stat st;
	int64_t n;

	if (fstat(sp->rootfd, &st) == -1)
		return -1;
	if (st.st_nlink > 2 && st.st_nlink - 2 < max)
		return 1;
	uint64_t now = os_monotonic_ms();
	if (now < full_until && same_change(&st, &full))
		return 0;
	n = count_queues(sp);
	if (n == -1 || (uint64_t)n < max)
		return n == -1 ? -1 : 1;
	full = st;
	full_until = now + CONFIG_MS;
	return 0;
}

/* EMLINK is what a file system says that has too many directories in one. */
static int
make_queue(struct spool *sp, const char *name)
{
	uint64_t max = common_config(sp)->max_queues;
	struct stat st;
	int r;

	if (max == 0)
		return mkdirat(sp->rootfd, name, 0700);
	if (flock_wait(sp->rootfd) == -1)
		return -1;
	r = has_room(sp, max);
	if (r == 1) {
		r = mkdirat(sp->rootfd, name, 0700);
	} else if (r == 0) {
		/* Who came at the same moment may have made it. */
		errno = fstatat(sp->rootfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 ? EEXIST : EMLINK;
		r = -1;
	}
	int e = errno;
	flock(sp->rootfd, LOCK_UN);
	errno = e;
	return r;
}

/* A descriptor, or -1. */
static int
open_or_make_queue(struct spool *sp, const char *name)
{
	int fd;

	while ((fd = openat(sp->rootfd, name, dir_flags)) == -1 && errno == ENOENT)
		if (make_queue(sp, name) == -1 && errno != EEXIST)
			return -1;
	return fd;
}

/* The handle of a queue. Returns 1 and sets *qp, 0 if there is no such queue, -1. */
int
queue_find(struct spool *sp, const char *name, bool create, struct queue **qp)
{
	int fd;

	for (size_t i = 0; i < sp->nqueues; i++) {
		struct queue *q = &sp->queues[i];
		/* A handle without a name leads nowhere any more. */
		if (q->open && *name != '\0' && strcmp(q->name, name) == 0) {
			q->last_use = ++sp->uses;
			*qp = q;
			return 1;
		}
	}
	if (spool_dirfd(sp) == -1)
		return -1;
	fd = create ? open_or_make_queue(sp, name) : openat(sp->rootfd, name, dir_flags);
	if (fd == -1)
		return errno == ENOENT && !create ? 0 : -1;

	struct queue *q = free_slot(sp);
	if (q == NULL) {
		close(fd);
		errno = ENFILE;
		return -1;
	}
	*q = (struct queue){.spool = sp,
	                    .open = true,
	                    .dirfd = fd,
	                    .statefd = -1,
	                    .claimfd = -1,
	                    .tmpfd = -1,
	                    .sparefd = -1};
	snprintf(q->state_path, sizeof q->state_path, "%s/.state", name);
	if (open_state(q) == -1) {
		int e = errno;
		close_queue(q);
		/* Deleted between the two opens: look again, or there is none. */
		if (e == ENOENT)
			return create ? queue_find(sp, name, create, qp) : 0;
		errno = e;
		return -1;
	}
	if (queue_enrol(sp, name) == -1) {
		int e = errno;
		close_queue(q);
		errno = e;
		return -1;
	}
	strcpy(q->name, name);
	q->last_use = ++sp->uses;
	*qp = q;
	return 1;
}

int
spool_make(struct spool *sp, const char *queue)
{
	struct queue *q;

	if (queue_lock(sp, queue, true, &q) != 1)
		return -1;
	queue_unlock(q);
	return 0;
}

/*
 * Settings
 */

void
spool_on_mistake(struct spool *sp, spool_report *report)
{
	sp->on_mistake = report;
}

/* Of a file with many mistakes the first is told; `mqctl check` lists them all. */
struct telling {
	spool_report *report;
	const char *queue;
};

static void
tell(void *arg, unsigned line, const char *detail)
{
	struct telling *t = arg;
	char path[QUEUE_NAME_MAX + 32];

	if (t->report == NULL)
		return;
	config_place(path, sizeof path, t->queue, line);
	t->report("misconfigured", path, detail);
	t->report = NULL;
}

/* Is it time for a look? A process that serves one command looks once, and pays for no clock. */
static bool
look_is_due(bool *configured, uint64_t *looked)
{
	uint64_t now = *configured ? os_monotonic_ms() : 0;

	if (*configured && *looked != 0 && now - *looked < CONFIG_MS)
		return false;
	*configured = true;
	*looked = now;
	return true;
}

static void
look_at_spool(struct spool *sp)
{
	struct telling t = {.report = sp->on_mistake};

	config_look(&sp->config_file, sp->rootfd, CONFIG_SPOOL, tell, &t);
	config_merge(&sp->config, &sp->config_file, NULL);
}

/* What is in force for a queue that has no settings of its own. */
static const struct config *
common_config(struct spool *sp)
{
	if (sp->config_file.error != 0)
		sp->configured = false;
	if (spool_dirfd(sp) == -1) {
		bool passes = errno != ENOENT && errno != ENOTDIR && !is_foreign(errno);
		if (passes && !sp->config_file.looked)
			sp->config_file.error = errno;
	} else if (look_is_due(&sp->configured, &sp->looked)) {
		look_at_spool(sp);
	}
	return &sp->config;
}

const struct config *
queue_config(struct queue *q)
{
	struct spool *sp = q->spool;
	struct telling t = {.report = sp->on_mistake, .queue = q->name};
	/* The very first command has looked at that already, if it looks at it at all. */
	bool just_looked = !q->configured && sp->configured && sp->looked == 0;

	if (sp->config_file.error != 0 || q->config_file.error != 0)
		q->configured = just_looked = false;
	if (look_is_due(&q->configured, &q->looked)) {
		bool fresh = sp->looked != 0 && q->looked - sp->looked < FRESH_MS;
		if (!just_looked && !fresh) {
			sp->configured = true;
			sp->looked = q->looked;
			look_at_spool(sp);
		}
		config_look(&q->config_file, q->dirfd, CONFIG_QUEUE, tell, &t);
		config_merge(&q->config, &sp->config_file, &q->config_file);
	}
	return &q->config;
}

int
queue_config_known(const struct queue *q)
{
	errno = q->spool->config_file.error;
	if (errno == 0)
		errno =
		    q->configured ? q->config_file.error : EAGAIN; /* another handle was asked */
	return errno == 0 ? 0 : -1;
}

int
spool_config_known(struct spool *sp, const char *queue)
{
	struct queue *q;
	int r = queue == NULL ? 0 : queue_find(sp, queue, false, &q);

	if (r == 1 && !q->configured)
		queue_config(q); /* somebody has just made it */
	if (r != 0)
		return r == -1 ? -1 : queue_config_known(q);
	errno = sp->config_file.error;
	return errno == 0 ? 0 : -1;
}

const struct config *
spool_config(struct spool *sp, const char *queue)
{
	struct queue *q;

	if (queue != NULL && queue_find(sp, queue, false, &q) == 1)
		return queue_config(q);
	return common_config(sp);
}

/*
 * The lock and the state
 */

/*
 * Wait for the lock. To sleep in flock and be woken costs more than a holder takes. So try a few
 * times first, and let others run in between.
 */
int
flock_wait(int fd)
{
	int r;

	for (int i = 0; i < LOCK_TRIES; i++) {
		if (flock(fd, LOCK_EX | LOCK_NB) == 0)
			return 0;
		if (errno != EWOULDBLOCK)
			break;
		os_sched_batch();
		sched_yield();
	}
	while ((r = flock(fd, LOCK_EX)) == -1 && errno == EINTR)
		;
	return r;
}

int
file_own(int fd)
{
	if (flock(fd, LOCK_EX | LOCK_NB) == 0)
		return 1;
	return errno == EWOULDBLOCK ? 0 : -1;
}

void
queue_unlock(struct queue *q)
{
	int e = errno;

	flock(q->statefd, LOCK_UN);
	errno = e;
}

uint64_t
body_bytes(const struct stat *st)
{
	return st->st_size > MESSAGE_HEADER_LEN ? (uint64_t)st->st_size - MESSAGE_HEADER_LEN : 0;
}

int
dir_each_number(int fd, number_visitor *visit, void *arg)
{
	/* A descriptor of its own: readdir moves the offset that a shared one would
	 * share. */
	int own_fd = openat(fd, ".", dir_flags), r = 0;
	DIR *dir = own_fd == -1 ? NULL : fdopendir(own_fd);
	struct dirent *e;
	uint64_t number;

	if (dir == NULL) {
		close_fd(&own_fd);
		return -1;
	}
	while (r == 0 && (errno = 0, e = readdir(dir)) != NULL)
		if (message_name_parse(e->d_name, &number) == 0)
			r = visit(arg, fd, number, e->d_name);
	if (r == 0 && errno != 0)
		r = -1;
	int saved = errno;
	closedir(dir);
	errno = saved;
	return r;
}

int
list_number(void *arg, int dirfd, uint64_t number, const char *name)
{
	struct listing *l = arg;
	struct stat st;

	if (number < l->from)
		return 0;
	if (l->lowest == 0 || number < l->lowest)
		l->lowest = number;
	if (number > l->highest)
		l->highest = number;
	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == -1)
		return errno == ENOENT || is_damage(errno) ? 0 : -1;
	if (S_ISREG(st.st_mode)) {
		l->waiting++;
		l->bytes += body_bytes(&st);
	}
	return 0;
}

static int
list_highest(void *arg, int dirfd, uint64_t number, const char *name)
{
	(void)dirfd, (void)name;
	if (number > *(uint64_t *)arg)
		*(uint64_t *)arg = number;
	return 0;
}

/* The file holds this text, which says what q->state does. */
static void
is_stored(struct queue *q, const char *text)
{
	memcpy(q->raw, text, STATE_LEN);
	q->stored = q->state;
	q->raw_len = STATE_LEN;
}

/* Write the state if it changed. On failure the file keeps the old one: a push is refused then,
 * and what else has changed looks to the next process as if this one had been killed. */
int
queue_store(struct queue *q)
{
	char buf[STATE_LEN];
	bool known = q->raw_len == STATE_LEN;

	memcpy(buf, q->raw, STATE_LEN);
	state_write(buf, &q->state, known ? &q->stored : NULL);
	if (known && memcmp(buf, q->raw, STATE_LEN) == 0)
		return 0;
	ssize_t n = pwrite(q->statefd, buf, STATE_LEN, 0);
	if (n != STATE_LEN) {
		q->raw_len = 0;
		if (n >= 0)
			errno = ENOSPC;
		return -1;
	}
	is_stored(q, buf);
	return 0;
}

struct sweeper {
	struct queue *queue;
	uint64_t returned;
	bool mend_ranges; /* false while the ranges are about to be made anew */
	int error;        /* errno if there is one that must be looked at again, or 0 */
};

/*
 * With the lock held, after a message came to stand at its number: .state may have been removed
 * by hand since it was locked, and made anew by somebody who did not see the message yet. Then
 * tell the new one of it.
 */
int
queue_make_known(struct queue *q, uint64_t number, uint64_t bytes)
{
	char name[MESSAGE_NAME_LEN + 1];
	struct stat st;

	if (os_stat(q->statefd, "", &st) == 0 && st.st_nlink > 0)
		return 0;
	queue_unlock(q);
	if (queue_relock(q) == -1)
		return -1;
	message_name(name, number);
	if (fstatat(q->dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == -1)
		return errno == ENOENT ? 1 : 0;
	if (state_has(&q->state, number))
		return 0;
	state_give(&q->state, number);
	state_count_in(&q->state, bytes);
	return queue_store(q);
}

void
file_count_try(int fd)
{
	char line[MESSAGE_HEADER_LEN];
	struct stat st;

	/* As much as can be done where it is the disk that fails. */
	if (fstat(fd, &st) == 0 && pread(fd, line, sizeof line, 0) == sizeof line &&
	    message_add_try(line) && pwrite(fd, line, sizeof line, 0) == sizeof line) {
		/* It is as old as it was. */
		const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, st.st_mtim};
		futimens(fd, times);
	}
}

/* Put message `number`, which this process owns, back from .claim to its place. The state
 * is written first: see the head of spool.c. */
int
queue_put_back(struct queue *q, uint64_t number, uint64_t bytes)
{
	char name[MESSAGE_NAME_LEN + 1];

	message_name(name, number);
	if (state_has(&q->state, number)) {
		q->state.stale = true; /* counted already, unless ranges were joined over it */
	} else {
		state_give(&q->state, number);
		state_count_in(&q->state, bytes);
	}
	/* A message below the head that no range covers would be lost from sight; in .claim it
	 * stays an orphan, and is tried again. */
	if (queue_store(q) == -1 || os_rename_noreplace(q->claimfd, name, q->dirfd, name) == -1)
		return -1;
	return queue_make_known(q, number, bytes) == -1 ? -1 : 0;
}

/* Move an entry of `dirfd` aside to .bad, under its own name or name.1, name.2, ... */
int
queue_set_aside(struct queue *q, int dirfd, const char *name)
{
	char target[MESSAGE_NAME_LEN + 16];
	int fd = dir_open_or_make(q->dirfd, ".bad"), r = -1;

	if (fd == -1)
		return -1;
	snprintf(target, sizeof target, "%s", name);
	for (int i = 1; i < 1000; i++) {
		r = os_rename_noreplace(dirfd, name, fd, target);
		if (r == 0 || errno != EEXIST)
			break;
		snprintf(target, sizeof target, "%s.%d", name, i);
	}
	close_fd(&fd);
	if (r == 0)
		q->state.bad++;
	return r;
}

static int
sync_file(void *arg, int dirfd, uint64_t number, const char *name)
{
	int fd = openat(dirfd, name, read_flags), r;

	(void)arg, (void)number;
	/* EAGAIN: it is under the lease of whoever marks it (keep_spare), and will flush it. */
	if (fd == -1)
		return errno == ENOENT || errno == EAGAIN || is_foreign(errno) ? 0 : -1;
	r = fsync(fd);
	close(fd);
	return r == -1 && errno == EINVAL ? 0 : r; /* a fifo, say */
}

int
sync_removals(int dirfd, int claimfd)
{
	if (claimfd != -1 &&
	    (dir_each_number(claimfd, sync_file, NULL) == -1 || fsync(claimfd) == -1))
		return -1;
	return fsync(dirfd);
}

enum claim_file
claim_file(int fd, uint64_t number, uint64_t *other)
{
	char line[MESSAGE_HEADER_LEN];
	struct message m;
	uint32_t crc;

	ssize_t n = pread(fd, line, sizeof line, 0);
	if (n == -1 && !is_damage(errno))
		return CLAIM_FILE_UNREADABLE;
	if (n != sizeof line)
		return CLAIM_FILE_MESSAGE;
	if (message_is_spent(line))
		return CLAIM_FILE_SPENT;
	if (message_read_header(line, &m, &crc) == -1 || m.number == number)
		return CLAIM_FILE_MESSAGE;
	*other = m.number;
	return CLAIM_FILE_OVERWRITTEN;
}

/*
 * A file in .claim bears number `other`: a push wrote it, and died before it could rename it. It was
 * not acknowledged, and goes; unless that number is long past and nothing has it, for then it may be
 * a damaged message. What stands there before a reboot may have been acknowledged and not be
 * written back: a whole message gets its place.
 */
static void
sweep_overwritten(struct sweeper *sw, int fd, int dirfd, const char *name, uint64_t other)
{
	struct queue *q = sw->queue;
	struct claim c = {.fd = fd};
	char place[MESSAGE_NAME_LEN + 1];
	struct stat st;

	message_name(place, other);
	bool there = fstatat(q->dirfd, place, &st, AT_SYMLINK_NOFOLLOW) == 0;
	if (!there && errno != ENOENT) {
		sw->error = errno;
		return;
	}
	if (there || (sw->mend_ranges && other >= state_next(&q->state))) {
		unlinkat(dirfd, name, 0);
		return;
	}
	enum claim_result r = sw->mend_ranges ? CLAIM_DAMAGED : claim_check(q->spool, &c, other);
	int done = -1;
	if (r == CLAIM_DAMAGED)
		done = queue_set_aside(q, dirfd, name);
	else if (r == CLAIM_GOT)
		done = os_rename_noreplace(dirfd, name, q->dirfd, place);
	if (done == -1)
		sw->error = errno;
	else if (r == CLAIM_GOT)
		sw->returned++;
}

static int
sweep_claim(void *arg, int dirfd, uint64_t number, const char *name)
{
	struct sweeper *sw = arg;
	struct stat st;
	int fd = openat(dirfd, name, write_flags);

	if (fd == -1)
		fd = openat(dirfd, name, read_flags); /* a file of an operator's */
	if (fd == -1) {
		/* What cannot be opened for good would keep all others from being used. */
		if (may_pass(errno) || (!sw->mend_ranges && is_damage(errno) &&
		                        queue_set_aside(sw->queue, dirfd, name) == -1))
			sw->error = errno;
		return 0;
	}
	/* With the flock held, a link that is still there stays: only its owner unlinks
	 * it. */
	int owned = file_own(fd), looked = fstat(fd, &st);
	if (owned == -1 || looked == -1)
		sw->error = errno;
	if (owned != 1 || looked == -1 || st.st_nlink == 0 || !S_ISREG(st.st_mode)) {
		close(fd);
		return 0;
	}
	struct state *s = &sw->queue->state;
	uint64_t other = 0;
	enum claim_file kind = claim_file(fd, number, &other);
	if (kind == CLAIM_FILE_UNREADABLE) {
		sw->error = errno;
	} else if (kind == CLAIM_FILE_OVERWRITTEN) {
		sweep_overwritten(sw, fd, dirfd, name, other);
	} else if (kind == CLAIM_FILE_SPENT) {
		/* Some stay for the next pushes. */
		if (!sw->mend_ranges || number < s->spare || number + SPARES < state_main(s)->from)
			unlinkat(dirfd, name, 0);
	} else {
		file_count_try(fd);
		s->redelivered++;
		int r = sw->mend_ranges ? queue_put_back(sw->queue, number, body_bytes(&st))
		                        : os_rename_noreplace(dirfd, name, sw->queue->dirfd, name);
		if (r == 0)
			sw->returned++;
		else if (errno == EEXIST) /* somebody copied it to its old place by hand */
			queue_set_aside(sw->queue, dirfd, name);
	}
	close(fd);
	return 0;
}

/* Remove what dead processes left in .tmp. */
static void
sweep_tmp(struct queue *q)
{
	DIR *dir;
	struct dirent *e;
	int fd = openat(q->dirfd, ".tmp", dir_flags);

	if (fd == -1 || (dir = fdopendir(fd)) == NULL) {
		close_fd(&fd);
		return;
	}
	while ((e = readdir(dir)) != NULL) {
		if (e->d_name[0] == '.')
			continue;
		int tmp = openat(fd, e->d_name, read_flags);
		if (tmp != -1 && file_own(tmp) == 1)
			unlinkat(fd, e->d_name, 0);
		close_fd(&tmp);
	}
	closedir(dir);
}

static void
sweep(struct sweeper *sw)
{
	struct queue *q = sw->queue;

	if (queue_claim_dir(q) == -1 || dir_each_number(q->claimfd, sweep_claim, sw) == -1)
		sw->error = errno;
	sweep_tmp(q);
	q->state.swept = os_monotonic_ms();
}

uint64_t
queue_sweep(struct queue *q)
{
	struct sweeper sw = {.queue = q, .mend_ranges = true};

	sweep(&sw);
	return sw.returned;
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

int
queue_skip_holes(struct queue *q, uint64_t n)
{
	struct listing l = {.from = n};

	if (dir_each_number(q->dirfd, list_lowest, &l) == -1)
		return -1;
	state_skip(&q->state, n, l.lowest != 0 ? l.lowest : state_next(&q->state));
	return 0;
}

/* What no listing tells. */
static void
keep_counters(struct state *s, const struct state *old)
{
#define COUNTER(name) s->name = old->name;
	QUEUE_COUNTERS(COUNTER)
#undef COUNTER
	s->paused = old->paused == STATE_FOREVER ? STATE_FOREVER : 0;
	s->graveyard = old->graveyard;
}

/*
 * With the lock held: make the state anew from the directory. `old` is what is left of
 * it: after a reboot counters may be older than the files, but a number once used is not
 * used again, and put goes on from there.
 */
static int
rebuild(struct queue *q, const struct state *old)
{
	struct sweeper sw = {.queue = q};
	struct listing l = {0};
	uint64_t highest = 0;
	struct state *s = &q->state;

	state_init(s, q->spool->boot);
	if (old != NULL)
		keep_counters(s, old);
	sweep(&sw); /* of what it passes over a later one would think otherwise */
	if (sw.error != 0) {
		errno = sw.error;
		return -1;
	}
	if (dir_each_number(q->dirfd, list_number, &l) == -1)
		return -1;
	highest = l.highest;
	if (queue_claim_dir(q) == -1 || dir_each_number(q->claimfd, list_highest, &highest) == -1)
		return -1;
	if (old != NULL && state_next(old) > highest + 1)
		highest = state_next(old) - 1;
	s->ranges[0].from = l.lowest != 0 ? l.lowest : highest + 1;
	s->ranges[0].to = highest + 1;
	s->spare = s->ranges[0].from; /* the sweep has left none */
	s->waiting = l.waiting;
	s->bytes = l.bytes;
	if (delay_rebuild(q, true) == -1)
		return -1;
	s->put = old != NULL ? old->put : highest + s->delayed;
	if (s->put < l.waiting + s->delayed)
		s->put = l.waiting + s->delayed;
	queue_store(q);
	return 0;
}

/* Where the system does not tell one boot from another its clock may. */
static bool
is_of_other_boot(const struct queue *q)
{
	const struct state *s = &q->state;

	return memcmp(s->boot, q->spool->boot, STATE_BOOT_LEN) != 0 ||
	       (s->boot[0] == '-' && os_monotonic_ms() < s->swept);
}

static int
queue_load(struct queue *q)
{
	char buf[STATE_LEN + 1];
	struct state *s = &q->state;
	struct stat st;
	ssize_t n = pread(q->statefd, buf, sizeof buf, 0);

	if (n == -1)
		return -1;
	bool known = q->raw_len == STATE_LEN;
	if (known)
		*s = q->stored;
	if (known && n == STATE_LEN && memcmp(buf, q->raw, STATE_LEN) == 0)
		return 0;
	q->raw_len = 0;
	bool readable = state_read(buf, (size_t)n, s, known ? q->raw : NULL) == 0;
	if (!readable && fstat(q->statefd, &st) == -1)
		return -1;
	if (!readable && st.st_nlink > 1) {
		errno = EPERM; /* it was never one, but somebody's file with a second name here */
		return -1;
	}
	if (n > STATE_LEN && ftruncate(q->statefd, STATE_LEN) == -1)
		return -1; /* or it would be made anew each time */
	if (!readable)
		return rebuild(q, NULL);
	if (is_of_other_boot(q)) {
		struct state old = *s;
		return rebuild(q, &old);
	}
	is_stored(q, buf);
	return 0;
}

void
queue_wake(struct queue *q)
{
	futimens(q->statefd, NULL); /* which those see who watch the directory, and no push does */
}

void
queue_glance(struct queue *q)
{
	char buf[STATE_LEN + 1];
	ssize_t n;

	if (q->raw_len != 0)
		return;
	n = pread(q->statefd, buf, sizeof buf, 0);
	if (n == -1 || state_read(buf, (size_t)n, &q->state, NULL) == -1)
		q->state.nranges = 0;
}

int
queue_lock(struct spool *sp, const char *name, bool create, struct queue **qp)
{
	struct queue *q;
	struct stat st;
	int r;

	while ((r = queue_find(sp, name, create, &q)) == 1) {
		if (flock_wait(q->statefd) == -1)
			return -1;
		bool looked = os_stat(sp->rootfd, q->state_path, &st) == 0;
		if (!looked && errno != ENOENT && errno != ENOTDIR && errno != ELOOP) {
			queue_unlock(q);
			return -1;
		}
		if (looked && st.st_ino == q->ino && st.st_dev == q->dev) {
			if (queue_load(q) == 0) {
				*qp = q;
				return 1;
			}
			queue_unlock(q);
			return -1;
		}
		queue_unlock(q);
		queue_detach(q);
	}
	return r;
}

int
queue_relock(struct queue *q)
{
	struct stat st;

	for (;;) {
		if (flock_wait(q->statefd) == -1)
			return -1;
		bool looked = os_stat(q->dirfd, ".state", &st) == 0;
		if (looked && st.st_ino == q->ino && st.st_dev == q->dev)
			break;
		if (!looked && errno != ENOENT) {
			queue_unlock(q);
			return -1;
		}
		int old = q->statefd;
		q->statefd = -1; /* open_state may fail before it has another */
		if (open_state(q) == -1) {
			int e = errno;
			close_fd(&q->statefd);
			q->statefd = old;
			queue_unlock(q);
			errno = e;
			return -1;
		}
		close(old);
	}
	if (queue_load(q) == 0)
		return 0;
	queue_unlock(q);
	return -1;
}

int
queue_distrust(struct queue *q)
{
	if (queue_relock(q) == -1)
		return -1;
	memset(q->state.boot, '-', STATE_BOOT_LEN);
	q->raw_len = 0; /* all is written, and then read: the boot else never changes */
	int r = queue_store(q);
	q->raw_len = 0;
	queue_unlock(q);
	return r;
}

bool
queue_sweep_is_due(const struct state *s)
{
	uint64_t now = os_monotonic_ms();

	return now < s->swept || now - s->swept >= SWEEP_MS;
}
