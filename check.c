/*
 * check.c: what is wrong in a spool, for mqctl check, and what mends it.
 *
 * It works beside running traffic: the messages that wait are read without the queue's lock, and one
 * that is taken meanwhile is no finding; the lock is held for the counters, .claim, .tmp, .wait and what
 * is delayed, and for what is mended. All is told. With --repair, what has a message's name and is
 * damaged or none is set aside; nothing is deleted that may be a message.
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

/* What can be wrong with a file of ours. Having no descriptor left, or a disk that cannot read it, says
 * nothing against a message: it is told, and left where it is. */
enum fault { FAULT_NONE, FAULT_UNREADABLE, FAULT_FOREIGN, FAULT_DAMAGED };
static const char *const fault_names[] = {"", "unreadable", "foreign", "damaged"};

/* What of that is wrong with what was opened as `fd`, or not with errno? Unread as yet. */
static enum fault
look_at(int fd, struct stat *st, const char **detail)
{
	bool looked = fd != -1 && fstat(fd, st) == 0;

	if (looked && S_ISREG(st->st_mode))
		return FAULT_NONE;
	*detail = looked ? "not a regular file" : strerror(errno);
	return looked || is_foreign(errno) ? FAULT_FOREIGN : FAULT_UNREADABLE;
}

/* And with a message, read and checked? Tells it, with the path of its directory in the queue. */
static enum fault
look_at_message(struct checker *ck, int dirfd, const char *path, const char *name, uint64_t number)
{
	struct claim c = {.fd = openat(dirfd, name, read_flags)};
	const char *detail = "header, length or checksum is wrong";
	struct stat st;

	if (c.fd == -1 && errno == ENOENT)
		return FAULT_NONE; /* taken meanwhile */
	enum fault fault = look_at(c.fd, &st, &detail);
	enum claim_result r = fault == FAULT_NONE ? claim_check(ck->spool, &c, number) : CLAIM_GOT;
	if (r == CLAIM_DAMAGED && errno == EBADMSG)
		fault = FAULT_DAMAGED;
	else if (r != CLAIM_GOT)
		fault = FAULT_UNREADABLE, detail = strerror(errno);
	close_fd(&c.fd);
	if (fault != FAULT_NONE)
		found(ck, fault_names[fault], detail, "%s/%s%s", ck->queue_name, path, name);
	return fault;
}

static int
check_number(void *arg, int dirfd, uint64_t number, const char *name)
{
	struct checker *ck = arg;

	spool_tell_progress(ck->spool, ++ck->looked, ck->total);
	if (look_at_message(ck, dirfd, "", name, number) > FAULT_UNREADABLE && ck->repair)
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
	int file = openat(fd, e->d_name, read_flags), owned = 0;
	enum claim_file kind = CLAIM_FILE_MESSAGE;
	uint64_t number, other;
	const char *detail;
	struct stat st;

	if (file == -1 && (errno == ENOENT || errno == EAGAIN)) /* gone, or under a lease */
		return;
	enum fault fault = look_at(file, &st, &detail);
	if (fault != FAULT_NONE)
		found(ck, fault_names[fault], detail, "%s/%s/%s", ck->queue_name, subdir,
		      e->d_name);
	else if (claim && message_name_parse(e->d_name, &number) == 0 &&
	         (kind = claim_file(file, number, &other)) == CLAIM_FILE_SPENT)
		; /* kept for a push */
	else if (kind == CLAIM_FILE_UNREADABLE || (owned = file_own(file)) == -1 ||
	         (owned == 1 && fstat(file, &st) == -1))
		found(ck, "unreadable", strerror(errno), "%s/%s/%s", ck->queue_name, subdir,
		      e->d_name);
	else if (owned == 1 && st.st_nlink > 0 && (claim || time(NULL) - st.st_mtime > 1))
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

/* Returns 1; 0 if it is gone; or -1 if it cannot be looked at, which is told. */
static int
look_at_entry(struct checker *ck, int fd, const char *subdir, const char *name, struct stat *st)
{
	if (fstatat(fd, name, st, AT_SYMLINK_NOFOLLOW) == 0)
		return 1;
	if (errno == ENOENT)
		return 0;
	found(ck, "unreadable", strerror(errno), "%s/%s%s", ck->queue_name, subdir, name);
	return -1;
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
	if (look_at_entry(ck, fd, "", name, &st) != 1)
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

	if (look_at_entry(ck, fd, delay ? ".delay/" : ".wait/", e->d_name, &st) == 1 &&
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

static int
check_delayed(void *arg, int dirfd, uint64_t number, const char *name)
{
	struct checker *ck = arg;

	(void)number;
	if (look_at_message(ck, dirfd, ".delay/*/", name, CLAIM_ANY_NUMBER) > FAULT_UNREADABLE &&
	    ck->repair) /* they are counted anew after that */
		queue_set_aside(ck->queue, dirfd, name);
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
		queue_sweep(q);
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

	if (config_look(&file, fd, scope, check_setting, ck) == 0 && file.error != 0)
		found(ck, "unreadable", strerror(file.error), "%s/.config", ck->queue_name);
	if (look_at_entry(ck, fd, "", CONFIG_TEMPORARY, &st) != 1 || time(NULL) - st.st_mtime <= 1)
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
	int r = queue_use(ck->spool, ck->queue_name, &q);

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
	else if (look_at_entry(ck, fd, "", e->d_name, &st) == 1 && !S_ISDIR(st.st_mode))
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
	int part = openat(fd, e->d_name, dir_flags), message = 0, torn = 0;
	struct stat st;

	if (part == -1 && (errno == ENOENT || errno == ENOTDIR))
		return;
	if (part != -1 && flock(part, LOCK_SH | LOCK_NB) == 0) {
		message = fstatat(part, "1", &st, AT_SYMLINK_NOFOLLOW) == 0 ? 1
		          : errno == ENOENT                                 ? 0
		                                                            : -1;
		torn = fstatat(part, "torn", &st, AT_SYMLINK_NOFOLLOW) == 0 ? 1
		       : errno == ENOENT                                    ? 0
		                                                            : -1;
	} else if (part == -1 || errno != EWOULDBLOCK) {
		message = -1;
	}
	if (message == -1 || torn == -1)
		found(ck, "unreadable", strerror(errno), ".import/%s/%s", subdir, e->d_name);
	if (message == 1)
		found(ck, "unfinished", "taken from a server; run the import again",
		      ".import/%s/%s/1", subdir, e->d_name);
	if (torn == 1)
		found(ck, "damaged", "taken from a server; moved aside earlier",
		      ".import/%s/%s/torn", subdir, e->d_name);
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
		if (queue_use(sp, queues[i], &q) == 1) {
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
