/*
 * admin.c: what operators and counters want of a spool, off the path of set and get.
 *
 * Deleting, listing, statistics, looking without taking, and the check of everything. All
 * of it works beside running traffic: what changes a queue holds its lock, what reads
 * does not.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "spool.h"
#include "spool_queue.h"

#define TRASH_STEP 100        /* files unlinked between two questions whether to go on */
#define FLUSH_STEP 64         /* numbers that a flush looks at under one lock */
#define FLUSH_PAUSE_NS 100000 /* and how long it leaves the lock to others then */
#define RECOUNT_MAX 100000    /* messages that are counted anew while others wait for the lock */

/* Move a directory to where it is unlinked later. 0 or -1. */
static int
move_to_trash(struct spool *sp, int dirfd, const char *dir)
{
	char name[48];
	int trash = dir_open_or_make(sp->rootfd, ".trash"), renamed;

	if (trash == -1)
		return -1;
	do {
		snprintf(name, sizeof name, "%ld.%lu", (long)sp->pid, sp->tmp_count++);
		renamed = renameat(dirfd, dir, trash, name);
	} while (renamed == -1 && (errno == ENOTEMPTY || errno == EEXIST));
	int e = errno;
	close_fd(&trash);
	errno = e;
	return renamed;
}

int
spool_delete(struct spool *sp, const char *queue)
{
	struct queue *q;
	uint64_t dropped = 0;
	int renamed, r = queue_lock(sp, queue, false, &q);

	if (r != 1)
		return r;
	renamed = move_to_trash(sp, sp->rootfd, queue);
	int e = errno;
	if (renamed == -1) {
		queue_unlock(q);
		errno = e;
		return -1;
	}
	/* Behind the rename: until then it has messages. Once the inode may be another queue's,
	 * replay must not give it these. */
	dropped = journal_drop(q);
	queue_unlock(q);
	queue_detach(q);
	queue_strike(sp, queue);
	if (sp->sync == SPOOL_SYNC_NONE)
		return 1;
	r = fsync(sp->rootfd), e = errno;
	if (dropped > 0)
		journal_flush(sp, dropped); /* else it is as with rm -r */
	errno = e;
	return r == 0 ? 1 : -1;
}

/* A walk through .trash that may be broken off. */
struct removal {
	bool (*interrupted)(void); /* NULL: never */
	unsigned long steps;
	bool stopped;
};

static void remove_tree(int parent, const char *name, int depth, struct removal *rm);

static void
remove_contents(int parent, const char *name, int depth, struct removal *rm)
{
	struct dirent *e;
	int fd = openat(parent, name, dir_flags);
	DIR *dir = fd == -1 ? NULL : fdopendir(fd);

	if (dir == NULL) {
		close_fd(&fd);
		return;
	}
	while (!rm->stopped && (e = readdir(dir)) != NULL)
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			remove_tree(fd, e->d_name, depth, rm);
	closedir(dir);
}

/* Unlink a file, or a tree at most `depth` levels deep, without following anything out of it. */
static void
remove_tree(int parent, const char *name, int depth, struct removal *rm)
{
	if (rm->interrupted != NULL && rm->steps++ % TRASH_STEP == 0 && rm->interrupted())
		rm->stopped = true;
	if (rm->stopped || unlinkat(parent, name, 0) == 0 || depth == 0)
		return;
	remove_contents(parent, name, depth - 1, rm);
	if (!rm->stopped)
		unlinkat(parent, name, AT_REMOVEDIR);
}

/* .trash itself stays: somebody may be about to move a queue into it. */
bool
spool_empty_trash(struct spool *sp, bool (*interrupted)(void))
{
	struct removal rm = {.interrupted = interrupted};

	if (spool_dirfd(sp) != -1)
		remove_contents(sp->rootfd, ".trash", 16, &rm);
	return !rm.stopped;
}

static int
by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The directory that a file system keeps in its root is no queue until it is used as one.
 */
static bool
is_lost_and_found(struct spool *sp, const char *name)
{
	return strcmp(name, "lost+found") == 0 &&
	       faccessat(sp->rootfd, "lost+found/.state", F_OK, 0) == -1;
}

static bool
is_queue(struct spool *sp, int fd, const struct dirent *e)
{
	char name[QUEUE_NAME_MAX + 1];
	struct stat st;

	if (queue_name_decode(e->d_name, name) == -1 || is_lost_and_found(sp, e->d_name))
		return false;
	if (e->d_type != DT_UNKNOWN)
		return e->d_type == DT_DIR;
	return fstatat(fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode);
}

char **
spool_list(struct spool *sp)
{
	char **names = NULL;
	size_t n = 0, room = 0;
	int e_saved;
	struct dirent *e;
	int fd = spool_dirfd(sp) == -1 ? -1 : openat(sp->rootfd, ".", dir_flags);
	DIR *dir = fd == -1 ? NULL : fdopendir(fd);

	if (dir == NULL) {
		close_fd(&fd);
		return NULL;
	}
	do {
		if (n + 1 >= room) {
			room = room == 0 ? 64 : room * 2;
			char **more = realloc(names, room * sizeof *names);
			if (more == NULL)
				goto fail;
			names = more;
		}
		names[n] = NULL;
		while ((errno = 0, e = readdir(dir)) != NULL && !is_queue(sp, fd, e))
			;
		if (e == NULL && errno != 0)
			goto fail;
		if (e != NULL && (names[n] = strdup(e->d_name)) == NULL)
			goto fail;
	} while (names[n] != NULL && ++n > 0);
	closedir(dir);
	qsort(names, n, sizeof *names, by_name);
	return names;
fail:
	e_saved = errno != 0 ? errno : ENOMEM;
	closedir(dir);
	if (names != NULL)
		names[n] = NULL;
	spool_list_free(names);
	errno = e_saved;
	return NULL;
}

void
spool_list_free(char **names)
{
	for (size_t i = 0; names != NULL && names[i] != NULL; i++)
		free(names[i]);
	free(names);
}

int
count_claim(void *arg, int dirfd, uint64_t number, const char *name)
{
	int fd = openat(dirfd, name, read_flags);
	uint64_t other;

	if (fd != -1 && claim_file(fd, number, &other) == CLAIM_FILE_MESSAGE)
		++*(uint64_t *)arg;
	close_fd(&fd);
	return 0;
}

int
queue_recount(struct queue *q)
{
	struct listing l = {0};

	if (dir_each_number(q->dirfd, list_number, &l) == -1)
		return -1;
	q->state.waiting = l.waiting;
	q->state.bytes = l.bytes;
	if (delay_count(q) == -1)
		return -1;
	q->state.stale = false;
	return 0;
}

void
spool_on_progress(struct spool *sp, spool_progress *progress)
{
	sp->on_progress = progress;
}

static void
tell_progress(const struct spool *sp, uint64_t done, uint64_t total)
{
	if (sp->on_progress != NULL)
		sp->on_progress(done, total);
}

static uint64_t
ms_between(struct timespec from, struct timespec to)
{
	int64_t ms =
	    ((int64_t)to.tv_sec - from.tv_sec) * 1000 + (to.tv_nsec - from.tv_nsec) / 1000000;

	return ms < 0 ? 0 : (uint64_t)ms; /* the clock was set back */
}

static uint64_t
paused_ms(const struct state *s)
{
	uint64_t now = os_monotonic_ms();

	if (s->paused == STATE_FOREVER)
		return SPOOL_FOREVER;
	return s->paused > now ? s->paused - now : 0;
}

int
spool_pause(struct spool *sp, const char *queue, uint64_t ms)
{
	struct queue *q;
	int r = queue_lock(sp, queue, true, &q);

	if (r != 1)
		return -1;
	q->state.paused = ms == 0 ? 0 : STATE_FOREVER;
	if (ms > 0 && ms < STATE_FOREVER)
		q->state.paused = os_monotonic_ms() + ms;
	r = queue_store(q);
	int e = errno;
	queue_wake(q);
	queue_unlock(q);
	errno = e;
	return r;
}

void
queue_figures(const struct state *s, struct queue_stat *qs)
{
	uint64_t there = s->waiting + s->delayed;

	*qs = (struct queue_stat){.waiting = s->waiting,
	                          .put = s->put,
	                          .taken = s->put < there ? 0 : s->put - there,
	                          .bytes = s->bytes,
	                          .delayed = s->delayed,
	                          .paused_ms = paused_ms(s)};
#define COUNTER(name) qs->name = s->name;
	QUEUE_COUNTERS(COUNTER)
#undef COUNTER
}

int
spool_stat(struct spool *sp, const char *queue, struct queue_stat *qs)
{
	struct queue *q;
	struct state *s;
	struct stat st;
	struct timespec now;
	char name[MESSAGE_NAME_LEN + 1];
	int r = queue_lock(sp, queue, false, &q);

	if (r != 1)
		return r;
	s = &q->state;
	if (queue_sweep_is_due(s))
		queue_sweep(q, true);
	delay_promote(q);
	if (s->stale && s->waiting <= RECOUNT_MAX)
		queue_recount(q);
	queue_store(q);
	queue_figures(s, qs);
	message_name(name, state_candidate(s, 0));
	if (fstatat(q->dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
		qs->oldest = st.st_mtime;
		clock_gettime(CLOCK_REALTIME, &now);
		qs->age_ms = ms_between(st.st_mtim, now);
	}
	queue_unlock(q);
	if (queue_claim_dir(q) != -1)
		dir_each_number(q->claimfd, count_claim, &qs->in_flight);
	qs->waiters = queue_waiters(q);
	return 1;
}

uint64_t
spool_sweep(struct spool *sp)
{
	struct queue *q;
	uint64_t returned = 0;
	char **names = spool_list(sp);

	for (size_t i = 0; names != NULL && names[i] != NULL; i++) {
		if (queue_lock(sp, names[i], false, &q) != 1)
			continue;
		returned += queue_sweep(q, true);
		queue_store(q);
		queue_unlock(q);
	}
	spool_list_free(names);
	return returned;
}

struct lowest {
	uint64_t *numbers;
	size_t n, max;
};

/* Keep the lowest numbers seen so far, in order. */
static int
keep_lowest(void *arg, int dirfd, uint64_t number, const char *name)
{
	struct lowest *l = arg;
	size_t at;

	(void)dirfd, (void)name;
	if (l->n == l->max && number > l->numbers[l->n - 1])
		return 0;
	if (l->n < l->max)
		l->n++;
	for (at = l->n - 1; at > 0 && l->numbers[at - 1] > number; at--)
		l->numbers[at] = l->numbers[at - 1];
	l->numbers[at] = number;
	return 0;
}

/* A use of a queue that needs its directory, not its lock. As queue_lock; ends with
 * queue_unref. */
static int
use_queue(struct spool *sp, const char *queue, struct queue **qp)
{
	int r = queue_lock(sp, queue, false, qp);

	if (r == 1) {
		queue_unlock(*qp);
		(*qp)->refs++;
	}
	return r;
}

ssize_t
spool_first(struct spool *sp, const char *queue, uint64_t *numbers, size_t max)
{
	struct lowest l = {.numbers = numbers, .max = max};
	struct queue *q;
	int r = use_queue(sp, queue, &q);

	if (r != 1)
		return r;
	r = dir_each_number(q->dirfd, keep_lowest, &l);
	queue_unref(q);
	return r == -1 ? -1 : (ssize_t)l.n;
}

enum claim_result
spool_look(struct spool *sp, const char *queue, uint64_t number, struct claim *c)
{
	char name[MESSAGE_NAME_LEN + 1];
	int r = use_queue(sp, queue, &c->queue);

	if (r != 1)
		return r == 0 ? CLAIM_EMPTY : CLAIM_ERROR;
	message_name(name, number);
	c->fd = openat(c->queue->dirfd, name, read_flags);
	if (c->fd == -1) {
		int e = errno;
		queue_unref(c->queue);
		errno = e;
		return e == ENOENT ? CLAIM_EMPTY : CLAIM_ERROR;
	}
	enum claim_result result = claim_check(sp, c, number);
	if (result != CLAIM_GOT) {
		int e = errno;
		look_end(c);
		errno = e;
	}
	return result;
}

void
look_end(struct claim *c)
{
	close_fd(&c->fd);
	queue_unref(c->queue);
}

int
queue_remove_number(struct queue *q, uint64_t number)
{
	char name[MESSAGE_NAME_LEN + 1];
	struct stat st;

	message_name(name, number);
	if (fstatat(q->dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == -1)
		return errno == ENOENT ? 0 : -1;
	if (S_ISDIR(st.st_mode)) {
		q->state.stale = true;
		return queue_set_aside(q, q->dirfd, name) == 0 ? 1 : -1;
	}
	return queue_remove(q, number, body_bytes(&st)) == 0 ? 1 : -1;
}

int
spool_remove(struct spool *sp, const char *queue, uint64_t number)
{
	struct queue *q;
	int r = queue_lock(sp, queue, false, &q);

	if (r == 1) {
		r = queue_remove_number(q, number);
		q->refs++;
		queue_unlock(q);
		if (r == 1 && spool_settle(sp) == -1)
			r = -1;
		queue_unref(q);
	}
	return r;
}

/*
 * Flush: message after message, so that what is removed is counted and logged like any other, and
 * whoever dies leaves a shorter queue. In the order of the numbers, so that the head is always where
 * the state says, for those who take messages meanwhile. The lock is held for a few at a time.
 */

struct flusher {
	struct queue *queue;
	const char *name;
	uint64_t next, below; /* numbers that are left */
	int64_t removed;
	uint64_t total; /* messages, when it began */
};

/* Look at the next numbers, under one lock. Returns how many were removed, or -1. */
static int
flush_step(struct spool *sp, struct flusher *f)
{
	struct queue *q;
	int removed = 0, r = queue_lock(sp, f->name, false, &q);

	/* It was deleted; another of its name is not the one that was to be flushed. */
	if (r == 1 && q->dir_ino != f->queue->dir_ino)
		queue_unlock(q), r = 0;
	if (r != 1) {
		f->next = f->below;
		return r;
	}
	for (int i = 0; i < FLUSH_STEP && f->next < f->below && r != -1; i++, f->next++) {
		r = queue_remove_number(q, f->next);
		removed += r == 1;
		if (r == 0 && state_has(&q->state, f->next)) {
			state_take(&q->state, f->next); /* removed by hand, as take_head has it */
			q->state.stale = true;
		}
	}
	queue_store(q);
	queue_unlock(q);
	f->removed += removed;
	tell_progress(sp, (uint64_t)f->removed, f->total);
	return r == -1 ? -1 : removed;
}

/* A lock that is taken again at once leaves nobody the time to wake up for it. */
static void
let_others_in(void)
{
	nanosleep(&(struct timespec){.tv_nsec = FLUSH_PAUSE_NS}, NULL);
}

/* Numbers are looked at one after the other while there are messages at them; where there is none
 * for a while a listing tells the next, and at the end that there is none. */
static int
flush_queue(struct spool *sp, struct flusher *f)
{
	for (int r = 0; f->next < f->below;) {
		struct lowest l = {.numbers = &f->next, .max = 1};
		if (dir_each_number(f->queue->dirfd, keep_lowest, &l) == -1)
			return -1;
		if (l.n == 0)
			return 0;
		while (f->next < f->below && (r = flush_step(sp, f)) > 0) {
			let_others_in();
			spool_tidy(sp);
		}
		if (r == -1)
			return -1;
	}
	return 0;
}

/* With the lock held: what is delayed goes all at once. */
static int
flush_delayed(struct flusher *f)
{
	struct queue *q = f->queue;
	struct state *s = &q->state;

	if (s->stale)
		queue_recount(q);
	s->stale = true; /* until it is counted */
	if (queue_store(q) == -1)
		return -1;
	int r = move_to_trash(q->spool, q->dirfd, ".delay") == 0 ? 1 : errno == ENOENT ? 0 : -1;
	if (r == 1)
		f->removed = (int64_t)s->delayed;
	if (r != -1)
		s->delayed = s->delayed_bytes = s->due = s->stale = 0;
	return r;
}

int64_t
spool_flush(struct spool *sp, const char *queue)
{
	struct flusher f = {.name = queue};
	int trash, r = queue_lock(sp, queue, false, &f.queue);

	if (r != 1)
		return r;
	f.below = state_next(&f.queue->state);
	f.total = f.queue->state.waiting + f.queue->state.delayed;
	f.queue->state.flushes++;
	trash = flush_delayed(&f);
	int e = errno;
	queue_store(f.queue);
	f.queue->refs++;
	queue_unlock(f.queue);
	errno = e;
	if (trash == 1 && sp->sync == SPOOL_SYNC_FULL && fsync(f.queue->dirfd) == -1)
		trash = -1;
	r = trash == -1 ? -1 : flush_queue(sp, &f);
	if (r == 0)
		r = spool_settle(sp);
	e = errno;
	if (trash == 1)
		spool_empty_trash(sp, NULL);
	queue_unref(f.queue);
	errno = e;
	return r == -1 ? -1 : f.removed;
}

struct expirer {
	struct spool *spool;
	const char *name; /* not the handle's, which loses it when the queue is deleted */
	struct queue *queue;
	int64_t removed;
};

/* A waiting message is not changed, so it can be looked at without the lock. */
static int
expire_number(void *arg, int dirfd, uint64_t number, const char *name)
{
	struct expirer *x = arg;
	char line[MESSAGE_HEADER_LEN];
	struct message m;
	uint32_t crc;
	struct claim c;
	int fd = openat(dirfd, name, read_flags);
	bool whole = fd != -1 && pread(fd, line, sizeof line, 0) == (ssize_t)sizeof line &&
	             message_read_header(line, &m, &crc) == 0;

	close_fd(&fd);
	if (!whole || m.number != number || !queue_has_expired(&m, &x->queue->config))
		return 0;
	enum claim_result result = spool_claim_number(x->spool, x->name, number, &c);
	if (result != CLAIM_GOT)
		return result == CLAIM_ERROR ? -1 : 0;
	int r = claim_expired(&c);
	if (r == 0)
		return claim_release(&c, false);
	x->removed += r == 1;
	return r == -1 ? -1 : 0;
}

/* What was removed is counted in the end, at once. */
static int
count_expired(struct expirer *x)
{
	if (x->removed == 0)
		return 0;
	if (queue_relock(x->queue) == -1)
		return -1;
	x->queue->state.expired += (uint64_t)x->removed;
	int r = queue_store(x->queue);
	queue_unlock(x->queue);
	return r;
}

int64_t
spool_flush_expired(struct spool *sp, const char *queue)
{
	struct expirer x = {.spool = sp, .name = queue};
	int r = use_queue(sp, queue, &x.queue);

	if (r != 1)
		return r;
	queue_config(x.queue);
	r = dir_each_number(x.queue->dirfd, expire_number, &x);
	if (count_expired(&x) == -1 || spool_settle(sp) == -1)
		r = -1;
	queue_unref(x.queue);
	return r == -1 ? -1 : x.removed;
}

/*
 * Settings
 */

struct config_reporter {
	const char *queue;
	spool_report *report;
};

static void
report_mistake(void *arg, unsigned line, const char *detail)
{
	struct config_reporter *r = arg;
	char path[QUEUE_NAME_MAX + 32];

	config_place(path, sizeof path, r->queue, line);
	r->report("misconfigured", path, detail);
}

int
spool_settings(struct spool *sp, const char *queue, spool_setting *visit, spool_report *report)
{
	struct config_file of_spool = {0}, of_queue = {0};
	struct config_reporter r = {.report = report};
	struct config config;
	struct queue *q;
	char value[CONFIG_VALUE_LEN], file[QUEUE_NAME_MAX + 16];
	int result;

	if (spool_dirfd(sp) == -1)
		return -1;
	config_look(&of_spool, sp->rootfd, CONFIG_SPOOL, report_mistake, &r);
	if (queue != NULL) {
		result = use_queue(sp, queue, &q);
		if (result != 1)
			return result;
		r.queue = queue;
		config_look(&of_queue, q->dirfd, CONFIG_QUEUE, report_mistake, &r);
		queue_unref(q);
	}
	config_merge(&config, &of_spool, &of_queue);
	for (unsigned k = 0; k < CONFIG_KEYS; k++) {
		unsigned line = of_queue.line[k] != 0 ? of_queue.line[k] : of_spool.line[k];
		config_place(file, sizeof file, of_queue.line[k] != 0 ? queue : NULL, 0);
		config_show(&config, k, value);
		visit(config_key(k), value, file, line);
	}
	return 1;
}

int
spool_configure(struct spool *sp, const char *queue, char *const *settings, size_t n,
                spool_report *report)
{
	struct config_reporter r = {.queue = queue, .report = report};
	enum config_scope scope = queue != NULL ? CONFIG_QUEUE : CONFIG_SPOOL;
	struct queue *q;
	int result;

	if (spool_dirfd(sp) == -1)
		return -1;
	if (config_check(scope, settings, n, report_mistake, &r) > 0)
		return 1;
	if (queue == NULL) {
		sp->configured = false; /* look at once */
		return config_edit(sp->rootfd, scope, settings, n, report_mistake, &r);
	}
	if (queue_lock(sp, queue, true, &q) != 1)
		return -1;
	queue_unlock(q);
	q->refs++;
	result = config_edit(q->dirfd, scope, settings, n, report_mistake, &r);
	queue_unref(q);
	return result;
}

/*
 * Check
 */

struct checker {
	struct spool *spool;
	struct queue *queue;
	const char *queue_name;
	bool repair;
	spool_report *report;
	int64_t found;
	uint64_t looked, total; /* messages */
};

__attribute__((format(printf, 4, 5))) static void
found(struct checker *ck, const char *what, const char *detail, const char *format, ...)
{
	char path[3 * QUEUE_NAME_MAX];
	va_list args;

	va_start(args, format);
	vsnprintf(path, sizeof path, format, args);
	va_end(args);
	ck->found++;
	ck->report(what, path, detail);
}

/* With the lock held: a message that is no message. */
static void
check_set_aside(struct checker *ck, const char *name)
{
	struct queue *q;

	if (queue_lock(ck->spool, ck->queue_name, false, &q) != 1)
		return;
	if (queue_set_aside(q, q->dirfd, name) == 0) {
		queue_recount(q); /* it was counted, and is no fault of the state's now */
		queue_store(q);
	}
	queue_unlock(q);
}

static int
check_number(void *arg, int dirfd, uint64_t number, const char *name)
{
	struct checker *ck = arg;
	struct claim c = {.fd = openat(dirfd, name, read_flags)};

	tell_progress(ck->spool, ++ck->looked, ck->total);
	struct stat st;
	const char *what = NULL, *detail = "";

	if (c.fd == -1 && errno == ENOENT)
		return 0; /* taken meanwhile */
	if (c.fd == -1)
		what = "foreign", detail = strerror(errno);
	else if (fstat(c.fd, &st) == -1 || !S_ISREG(st.st_mode))
		what = "foreign", detail = "not a regular file";
	else if (claim_check(ck->spool, &c, number) == CLAIM_DAMAGED)
		what = "damaged", detail = "header, length or checksum is wrong";
	close_fd(&c.fd);
	if (what == NULL)
		return 0;
	found(ck, what, detail, "%s/%s", ck->queue_name, name);
	if (ck->repair)
		check_set_aside(ck, name);
	return 0;
}

/* What cannot be looked at has not been found to be right. */
static void
check_listed(struct checker *ck, int r, const char *subdir)
{
	if (r == -1)
		found(ck, "unreadable", strerror(errno), "%s/%s", ck->queue_name, subdir);
}

/* Call `visit` for each entry of a subdirectory, "." and ".." apart. */
static void
each_entry(struct checker *ck, int parent, const char *subdir,
           void (*visit)(struct checker *ck, int fd, const char *subdir, struct dirent *e))
{
	struct dirent *e;
	int fd = openat(parent, subdir, dir_flags);
	DIR *dir = fd == -1 ? NULL : fdopendir(fd);

	if (dir == NULL) {
		check_listed(ck, errno == ENOENT ? 0 : -1, subdir);
		close_fd(&fd);
		return;
	}
	while ((errno = 0, e = readdir(dir)) != NULL)
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			visit(ck, fd, subdir, e);
	check_listed(ck, errno == 0 ? 0 : -1, subdir);
	closedir(dir);
}

/* A file in .claim or .tmp: whose? The lock is held, so no sweeper and no push is at work on it;
 * one that was just made may not be owned yet, and one just unlinked not be closed. */
static void
check_owned(struct checker *ck, int fd, const char *subdir, struct dirent *e)
{
	bool claim = strcmp(subdir, ".claim") == 0;
	int file = openat(fd, e->d_name, read_flags);
	uint64_t number, other;
	struct stat st;

	if (file == -1 && (errno == ENOENT || errno == EAGAIN)) /* gone, or under a lease */
		return;
	if (file == -1)
		found(ck, "foreign", strerror(errno), "%s/%s/%s", ck->queue_name, subdir,
		      e->d_name);
	else if (fstat(file, &st) == -1 || !S_ISREG(st.st_mode))
		found(ck, "foreign", "not a regular file", "%s/%s/%s", ck->queue_name, subdir,
		      e->d_name);
	else if (claim && message_name_parse(e->d_name, &number) == 0 &&
	         claim_file(file, number, &other) == CLAIM_FILE_SPENT)
		; /* kept for a push */
	else if (file_own(file) == 1 && fstat(file, &st) == 0 && st.st_nlink > 0 &&
	         (claim || time(NULL) - st.st_mtime > 1))
		found(ck, claim ? "orphan" : "leftover", "its owner has died", "%s/%s/%s",
		      ck->queue_name, subdir, e->d_name);
	close_fd(&file);
}

static void
check_bad(struct checker *ck, int fd, const char *subdir, struct dirent *e)
{
	(void)fd;
	found(ck, "bad", "moved aside earlier; look at it and remove it", "%s/%s/%s",
	      ck->queue_name, subdir, e->d_name);
}

/* What is ours has one name and is of one kind. Somebody else's is never written to, nor followed. */
struct known {
	const char *name;
	mode_t kind;
	bool may_be_linked; /* what is only read */
};

/* Is the entry one of those? Then tell what is wrong with it. */
static bool
check_known(struct checker *ck, int fd, const char *name, const struct known *known)
{
	struct stat st;

	while (known->name != NULL && strcmp(known->name, name) != 0)
		known++;
	if (known->name == NULL)
		return false;
	if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) == -1)
		return true;
	if ((st.st_mode & S_IFMT) != known->kind)
		found(ck, "foreign",
		      known->kind == S_IFDIR ? "not a directory" : "not a regular file", "%s/%s",
		      ck->queue_name, name);
	else if (S_ISREG(st.st_mode) && st.st_nlink > 1 && !known->may_be_linked)
		found(ck, "foreign", "it has a second name", "%s/%s", ck->queue_name, name);
	return true;
}

static void
check_entry(struct checker *ck, int fd, const char *subdir, struct dirent *e)
{
	static const struct known known[] = {{".state", S_IFREG, false},
	                                     {".config", S_IFREG, true},
	                                     {CONFIG_TEMPORARY, S_IFREG, true},
	                                     {".claim", S_IFDIR, false},
	                                     {".tmp", S_IFDIR, false},
	                                     {".bad", S_IFDIR, false},
	                                     {".delay", S_IFDIR, false},
	                                     {".wait", S_IFDIR, false},
	                                     {NULL, 0, false}};
	uint64_t number;

	(void)subdir;
	if (!check_known(ck, fd, e->d_name, known) && message_name_parse(e->d_name, &number) == -1)
		found(ck, "foreign", "not named like a message; left alone", "%s/%s",
		      ck->queue_name, e->d_name);
}

/* What is in a directory that has but entries of one kind: seconds, and fifos. */
static void
check_kind(struct checker *ck, int fd, const char *subdir, struct dirent *e)
{
	bool delay = strcmp(subdir, ".delay") == 0;
	struct stat st;
	uint64_t number;

	if (fstatat(fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	    (message_name_parse(e->d_name, &number) == -1 ||
	     !(delay ? S_ISDIR(st.st_mode) : S_ISFIFO(st.st_mode))))
		found(ck, "foreign", delay ? "not a second's directory" : "not a fifo of mqd's",
		      "%s/%s/%s", ck->queue_name, subdir, e->d_name);
}

/* Messages that no range covers would never be found. */
static int
check_range(void *arg, int dirfd, uint64_t number, const char *name)
{
	struct checker *ck = arg;

	(void)dirfd;
	if (state_has(&ck->queue->state, number))
		return 0;
	found(ck, "stranded", "outside of what .state knows", "%s/%s", ck->queue_name, name);
	if (ck->repair) {
		state_give(&ck->queue->state, number);
		ck->queue->state.stale = true;
	}
	return 0;
}

/* A delayed message bears any number. */
static int
check_delayed(void *arg, int dirfd, uint64_t number, const char *name)
{
	struct checker *ck = arg;
	struct claim c = {.fd = openat(dirfd, name, read_flags)};
	char line[MESSAGE_HEADER_LEN];
	struct message m;
	uint32_t crc;

	(void)number;
	if (c.fd == -1 || pread(c.fd, line, sizeof line, 0) != (ssize_t)sizeof line ||
	    message_read_header(line, &m, &crc) == -1 ||
	    claim_check(ck->spool, &c, m.number) == CLAIM_DAMAGED) {
		found(ck, "damaged", "header, length or checksum is wrong", "%s/.delay/*/%s",
		      ck->queue_name, name);
		if (ck->repair) /* they are counted anew after that */
			queue_set_aside(ck->queue, dirfd, name);
	}
	close_fd(&c.fd);
	return 0;
}

static void
check_count(struct checker *ck, const char *what, uint64_t messages, uint64_t bytes,
            const struct listing *l)
{
	char detail[160];

	if (l->waiting == messages && l->bytes == bytes)
		return;
	snprintf(detail, sizeof detail,
	         "%s: %llu messages, %llu bytes, where there are %llu and %llu", what,
	         (unsigned long long)messages, (unsigned long long)bytes,
	         (unsigned long long)l->waiting, (unsigned long long)l->bytes);
	found(ck, "miscounted", detail, "%s/.state", ck->queue_name);
}

/* The state against a listing, both under the lock. */
static void
check_state(struct checker *ck)
{
	struct listing l = {0}, delayed = {0};
	struct queue *q;
	int r = queue_lock(ck->spool, ck->queue_name, false, &q);

	check_listed(ck, r, ".state");
	if (r != 1)
		return;
	ck->queue = q;
	struct state *s = &q->state;
	each_entry(ck, q->dirfd, ".claim", check_owned);
	each_entry(ck, q->dirfd, ".tmp", check_owned);
	each_entry(ck, q->dirfd, ".delay", check_kind);
	each_entry(ck, q->dirfd, ".wait", check_kind);
	check_listed(ck, dir_each_number(q->dirfd, check_range, ck), ".");
	check_listed(ck, r = dir_each_number(q->dirfd, list_number, &l), ".");
	if (r == 0)
		check_count(ck, "waiting", s->waiting, s->bytes, &l);
	check_listed(ck, delay_each(q, check_delayed, ck), ".delay");
	check_listed(ck, r = delay_each(q, list_number, &delayed), ".delay");
	if (r == 0)
		check_count(ck, "delayed", s->delayed, s->delayed_bytes, &delayed);
	if (delayed.waiting > 0 && s->due == 0)
		found(ck, "stranded", ".state does not know when they are due", "%s/.delay",
		      ck->queue_name);
	if (ck->repair) {
		delay_rebuild(q, false);
		queue_sweep(q, true);
		queue_recount(q);
		queue_store(q);
	}
	queue_unlock(q);
}

static void
check_setting(void *arg, unsigned line, const char *detail)
{
	struct checker *ck = arg;
	char path[QUEUE_NAME_MAX + 32];

	config_place(path, sizeof path, ck->queue != NULL ? ck->queue_name : NULL, line);
	found(ck, "misconfigured", detail, "%s", path);
}

/* The .config of a queue, or of the spool if ck->queue is NULL. One that is just being written may
 * have its temporary name yet. */
static void
check_config(struct checker *ck)
{
	enum config_scope scope = ck->queue != NULL ? CONFIG_QUEUE : CONFIG_SPOOL;
	int fd = ck->queue != NULL ? ck->queue->dirfd : ck->spool->rootfd;
	struct config_file file = {0};
	struct stat st;

	config_look(&file, fd, scope, check_setting, ck);
	if (fstatat(fd, CONFIG_TEMPORARY, &st, AT_SYMLINK_NOFOLLOW) == -1 ||
	    time(NULL) - st.st_mtime <= 1)
		return;
	found(ck, "leftover", "whoever wrote it has died", "%s/%s", ck->queue_name,
	      CONFIG_TEMPORARY);
	if (ck->repair)
		unlinkat(fd, CONFIG_TEMPORARY, 0);
}

static void
check_queue(struct checker *ck)
{
	struct queue *q;
	int r = use_queue(ck->spool, ck->queue_name, &q);

	if (r == -1) {
		bool is_queue = errno != ENOTDIR;
		found(ck, "unreadable", strerror(errno), "%s", ck->queue_name);
		if (is_queue) /* what of it is the reason? */
			each_entry(ck, ck->spool->rootfd, ck->queue_name, check_entry);
	}
	if (r != 1)
		return;
	ck->queue = q;
	check_config(ck);
	each_entry(ck, q->dirfd, ".", check_entry);
	check_listed(ck, dir_each_number(q->dirfd, check_number, ck), ".");
	each_entry(ck, q->dirfd, ".bad", check_bad);
	check_state(ck);
	queue_unref(q);
}

static void
check_root_entry(struct checker *ck, int fd, const char *subdir, struct dirent *e)
{
	static const struct known known[] = {
	    {".stats", S_IFREG, false},        {".journal", S_IFREG, false},
	    {".sync", S_IFREG, false},         {".config", S_IFREG, true},
	    {".trash", S_IFDIR, false},        {".fanout", S_IFDIR, false},
	    {".import", S_IFDIR, false},       {"lost+found", S_IFDIR, false},
	    {CONFIG_TEMPORARY, S_IFREG, true}, {NULL, 0, false}};
	char name[QUEUE_NAME_MAX + 1];
	struct stat st;

	(void)subdir;
	if (check_known(ck, fd, e->d_name, known))
		return;
	if (queue_name_decode(e->d_name, name) == -1)
		found(ck, "foreign", "no queue has this name; left alone", "%s", e->d_name);
	else if (fstatat(fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && !S_ISDIR(st.st_mode))
		found(ck, "foreign", "not a directory; left alone", "%s", e->d_name);
}

static void
check_trash(struct checker *ck, int fd, const char *subdir, struct dirent *e)
{
	(void)fd;
	found(ck, "leftover", "of a deleted queue", "%s/%s", subdir, e->d_name);
}

/* A queue's folder in .import/from,...: what was taken from a server is there alone (drain.c). Not while
 * an import has it, which finds a place for it. */
static void
check_part(struct checker *ck, int fd, const char *subdir, struct dirent *e)
{
	int part = openat(fd, e->d_name, dir_flags);
	struct stat st;

	if (part != -1 && flock(part, LOCK_SH | LOCK_NB) == 0) {
		if (fstatat(part, "1", &st, AT_SYMLINK_NOFOLLOW) == 0)
			found(ck, "unfinished", "taken from a server; run the import again",
			      ".import/%s/%s/1", subdir, e->d_name);
		if (fstatat(part, "torn", &st, AT_SYMLINK_NOFOLLOW) == 0)
			found(ck, "damaged", "taken from a server; moved aside earlier",
			      ".import/%s/%s/torn", subdir, e->d_name);
	}
	close_fd(&part);
}

static void
check_source(struct checker *ck, int fd, const char *subdir, struct dirent *e)
{
	(void)subdir;
	if (strncmp(e->d_name, "from,", 5) == 0)
		each_entry(ck, fd, e->d_name, check_part);
}

/* A hint that leads nowhere is no mistake: the next push removes it, if there is one. */
static void
check_fanout(struct checker *ck, int fd, const char *subdir, struct dirent *e)
{
	(void)fd, (void)subdir;
	if (ck->repair)
		fanout_tidy(ck->spool, e->d_name);
}

/* Messages that wait, by the counters of their queues: for progress alone. */
static uint64_t
count_all(struct spool *sp, char *const *queues)
{
	struct queue *q;
	uint64_t n = 0;

	for (size_t i = 0; queues[i] != NULL && sp->on_progress != NULL; i++)
		if (use_queue(sp, queues[i], &q) == 1) {
			n += q->state.waiting;
			queue_unref(q);
		}
	return n;
}

int64_t
spool_check(struct spool *sp, bool repair, spool_report *report)
{
	struct checker ck = {.spool = sp, .repair = repair, .report = report, .queue_name = "."};
	char **queues = spool_list(sp);

	if (queues == NULL)
		return -1;
	ck.total = count_all(sp, queues);
	check_config(&ck);
	each_entry(&ck, sp->rootfd, ".", check_root_entry);
	each_entry(&ck, sp->rootfd, ".trash", check_trash);
	each_entry(&ck, sp->rootfd, ".import", check_source);
	each_entry(&ck, sp->rootfd, ".fanout", check_fanout);
	if (repair)
		spool_empty_trash(sp, NULL);
	for (size_t i = 0; queues[i] != NULL; i++) {
		ck.queue_name = queues[i];
		check_queue(&ck);
	}
	spool_list_free(queues);
	return ck.found;
}

/*
 * Open messages
 */

struct open_visit {
	spool_open_visitor *visit;
	void *arg;
};

/* The flock is tried before the file is read: what is nobody's then stays what it is. */
static int
visit_open(void *arg, int dirfd, uint64_t number, const char *name)
{
	struct open_visit *v = arg;
	int fd = openat(dirfd, name, read_flags);
	bool orphan = fd != -1 && file_own(fd) == 1;
	struct stat st;
	uint64_t other;

	if (fd != -1 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_nlink > 0 &&
	    claim_file(fd, number, &other) == CLAIM_FILE_MESSAGE)
		v->visit(v->arg, number, &st, orphan);
	close_fd(&fd);
	return 0;
}

int
spool_each_open(struct spool *sp, const char *queue, spool_open_visitor *visit, void *arg)
{
	struct open_visit v = {.visit = visit, .arg = arg};
	struct queue *q;
	int fd, r = queue_lock(sp, queue, false, &q);

	if (r != 1)
		return r;
	fd = openat(q->dirfd, ".claim", dir_flags);
	if (fd == -1 || dir_each_number(fd, visit_open, &v) == -1)
		r = fd == -1 && errno == ENOENT ? 1 : -1;
	int e = errno;
	close_fd(&fd);
	queue_unlock(q);
	errno = e;
	return r;
}
