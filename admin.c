/*
 * admin.c: what operators and counters want of a spool, off the path of set and get.
 *
 * Deleting, flushing, pausing, settings, listing, statistics, looking without taking; check.c has the
 * check of everything. All of it works beside running traffic. Who looks at a queue locks it for a
 * moment, and mends what it finds; what looks without a lock is in glance.c.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "spool.h"
#include "spool_queue.h"

#define TRASH_STEP 100        /* files unlinked between two questions whether to go on */
#define TRASH_DEPTH 16        /* directories in each other, the one of the queue first */
#define TRASH_TRIES 3         /* for a directory in which somebody still makes a file */
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
	close_fd(&trash);
	return renamed;
}

int
spool_delete(struct spool *sp, const char *queue)
{
	struct queue *q;
	int renamed, r = queue_lock(sp, queue, false, &q);

	if (r != 1)
		return r;
	renamed = move_to_trash(sp, sp->rootfd, queue);
	queue_unlock(q);
	if (renamed == -1)
		return -1;
	queue_detach(q);
	queue_strike(sp, queue);
	return sp->sync == SPOOL_SYNC_NONE || fsync(sp->rootfd) == 0 ? 1 : -1;
}

/* A walk through .trash that may be broken off. */
struct removal {
	struct spool *spool;
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

/* Has the log forgotten the queue whose directory this was? */
static bool
is_forgotten(struct spool *sp, int parent, const char *name)
{
	struct stat st;

	return os_stat(parent, name, &st) == 0 && journal_drop(sp, st.st_dev, st.st_ino) == 0;
}

/* Unlink a file, or a tree at most `depth` levels deep, without following anything out of it. */
static void
remove_tree(int parent, const char *name, int depth, struct removal *rm)
{
	if (rm->interrupted != NULL && rm->steps++ % TRASH_STEP == 0 && rm->interrupted())
		rm->stopped = true;
	if (rm->stopped || unlinkat(parent, name, 0) == 0 || depth == 0)
		return;
	for (int tries = 0; tries < TRASH_TRIES && !rm->stopped; tries++) {
		remove_contents(parent, name, depth - 1, rm);
		if (rm->stopped ||
		    (depth == TRASH_DEPTH && !is_forgotten(rm->spool, parent, name)) ||
		    unlinkat(parent, name, AT_REMOVEDIR) == 0 ||
		    (errno != ENOTEMPTY && errno != EEXIST))
			return; /* else a process was at work in the queue, and made a .state before it saw */
	}
}

/* .trash itself stays: somebody may be about to move a queue into it. */
bool
spool_empty_trash(struct spool *sp, bool (*interrupted)(void))
{
	struct removal rm = {.spool = sp, .interrupted = interrupted};

	if (spool_dirfd(sp) != -1)
		remove_contents(sp->rootfd, ".trash", TRASH_DEPTH, &rm);
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

static int
is_queue(struct spool *sp, int fd, const struct dirent *e)
{
	char name[QUEUE_NAME_MAX + 1];
	struct stat st;

	if (queue_name_decode(e->d_name, name) == -1 || is_lost_and_found(sp, e->d_name))
		return 0;
	if (e->d_type != DT_UNKNOWN)
		return e->d_type == DT_DIR;
	if (fstatat(fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) == -1)
		return errno == ENOENT ? 0 : -1;
	return S_ISDIR(st.st_mode);
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
		int found = 0;
		while (found == 0 && (errno = 0, e = readdir(dir)) != NULL)
			found = is_queue(sp, fd, e);
		if (found == -1 || (e == NULL && errno != 0))
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

static int
count_claim(void *arg, int dirfd, uint64_t number, const char *name)
{
	int fd = openat(dirfd, name, read_flags);
	uint64_t other;

	if (fd == -1)
		return may_pass(errno) ? -1 : 0;
	enum claim_file kind = claim_file(fd, number, &other);
	close_fd(&fd);
	*(uint64_t *)arg += kind == CLAIM_FILE_MESSAGE;
	return kind == CLAIM_FILE_UNREADABLE ? -1 : 0;
}

int
queue_in_flight(int dirfd, uint64_t *n)
{
	int fd = openat(dirfd, ".claim", dir_flags);

	*n = 0;
	if (fd == -1)
		return may_pass(errno) ? -1 : 0;
	int r = dir_each_number(fd, count_claim, n);
	close_fd(&fd);
	return r;
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

void
spool_tell_progress(const struct spool *sp, uint64_t done, uint64_t total)
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
		queue_sweep(q);
	delay_promote(q);
	if (s->stale && s->waiting <= RECOUNT_MAX && queue_recount(q) == -1) {
		queue_unlock(q);
		return -1;
	}
	queue_store(q);
	queue_figures(s, qs);
	message_name(name, state_candidate(s, 0));
	if (fstatat(q->dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
		qs->oldest = st.st_mtime;
		clock_gettime(CLOCK_REALTIME, &now);
		qs->age_ms = ms_between(st.st_mtim, now);
	}
	q->refs++;
	queue_unlock(q);
	r = queue_in_flight(q->dirfd, &qs->in_flight) == -1 ||
	            queue_waiters(q->dirfd, &qs->waiters) == -1
	        ? -1
	        : 1;
	queue_unref(q);
	return r;
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
		returned += queue_sweep(q);
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

int
queue_use(struct spool *sp, const char *queue, struct queue **qp)
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
	int r = queue_use(sp, queue, &q);

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
	int r = queue_use(sp, queue, &c->queue);

	if (r != 1)
		return r == 0 ? CLAIM_EMPTY : CLAIM_ERROR;
	message_name(name, number);
	c->fd = openat(c->queue->dirfd, name, read_flags);
	if (c->fd == -1) {
		queue_unref(c->queue);
		return errno == ENOENT ? CLAIM_EMPTY : CLAIM_ERROR;
	}
	enum claim_result result = claim_check(sp, c, number);
	if (result != CLAIM_GOT)
		look_end(c);
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
	spool_tell_progress(sp, (uint64_t)f->removed, f->total);
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
	ssize_t n = fd == -1 ? -1 : pread(fd, line, sizeof line, 0);

	close_fd(&fd);
	if (n == -1)
		return errno == ENOENT || is_foreign(errno) || is_damage(errno) ? 0 : -1;
	if (n != (ssize_t)sizeof line || message_read_header(line, &m, &crc) == -1 ||
	    m.number != number || !queue_has_expired(&m, &x->queue->config))
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
	int r = queue_use(sp, queue, &x.queue);

	if (r != 1)
		return r;
	queue_config(x.queue);
	if (queue_config_known(x.queue) == -1) {
		queue_unref(x.queue);
		return -1;
	}
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
		result = queue_use(sp, queue, &q);
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
	close_fd(&fd);
	queue_unlock(q);
	return r;
}
