/*
 * admin.c: what operators and counters want of a spool, off the path of set and get.
 *
 * Deleting, listing, statistics, looking without taking, and the check of everything. All of
 * it works beside running traffic: what changes a queue holds its lock, what reads does not.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "spool.h"
#include "spool_queue.h"

#define RECOUNT_MAX 100000 /* messages that are counted anew while others wait for the lock */

int
spool_delete(struct spool *sp, const char *queue)
{
	struct queue *q;
	char name[48];
	int trash, renamed, r = queue_lock(sp, queue, false, &q);

	if (r != 1)
		return r;
	trash = dir_open_or_make(sp->rootfd, ".trash");
	do {
		snprintf(name, sizeof name, "%ld.%lu", (long)getpid(), sp->tmp_count++);
		renamed = renameat(sp->rootfd, queue, trash, name);
	} while (renamed == -1 && (errno == ENOTEMPTY || errno == EEXIST));
	int e = errno;
	close_fd(&trash);
	queue_unlock(q);
	queue_detach(q);
	if (renamed == 0 && sp->sync != SPOOL_SYNC_NONE)
		renamed = fsync(sp->rootfd), e = errno;
	errno = e;
	return renamed == 0 ? 1 : -1;
}

/* Unlink a tree, at most a few levels deep, without following anything out of it. */
static void
remove_tree(int parent, const char *name, int depth)
{
	struct dirent *e;
	int fd;
	DIR *dir;

	if (unlinkat(parent, name, 0) == 0 || depth == 0)
		return;
	fd = openat(parent, name, dir_flags);
	if (fd == -1 || (dir = fdopendir(fd)) == NULL) {
		close_fd(&fd);
		return;
	}
	while ((e = readdir(dir)) != NULL)
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			remove_tree(fd, e->d_name, depth - 1);
	closedir(dir);
	unlinkat(parent, name, AT_REMOVEDIR);
}

void
spool_empty_trash(struct spool *sp)
{
	if (spool_dirfd(sp) != -1)
		remove_tree(sp->rootfd, ".trash", 16);
}

static int
by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

char **
spool_list(struct spool *sp)
{
	char name[QUEUE_NAME_MAX + 1];
	char **names = NULL;
	size_t n = 0, room = 0;
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
		while ((errno = 0, e = readdir(dir)) != NULL &&
		    (queue_name_decode(e->d_name, name) == -1 || e->d_type == DT_REG ||
			e->d_type == DT_LNK))
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
	closedir(dir);
	if (names != NULL)
		names[n] = NULL;
	spool_list_free(names);
	errno = ENOMEM;
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
count_number(void *arg, int dirfd, uint64_t number, const char *name)
{
	(void)dirfd, (void)number, (void)name;
	++*(uint64_t *)arg;
	return 0;
}

/* With the lock held: waiting and bytes from a listing. */
static int
queue_recount(struct queue *q)
{
	struct listing l = {0};

	if (dir_each_number(q->dirfd, list_number, &l) == -1)
		return -1;
	q->state.waiting = l.waiting;
	q->state.bytes = l.bytes;
	q->state.stale = false;
	return 0;
}

int
spool_stat(struct spool *sp, const char *queue, struct queue_stat *qs)
{
	struct queue *q;
	struct state *s;
	struct stat st;
	char name[MESSAGE_NAME_LEN + 1];
	int r = queue_lock(sp, queue, false, &q);

	if (r != 1)
		return r;
	s = &q->state;
	if (queue_sweep_is_due(s))
		queue_sweep(q, true);
	if (s->stale && s->waiting <= RECOUNT_MAX)
		queue_recount(q);
	queue_store(q);
	*qs = (struct queue_stat){.waiting = s->waiting,
	    .put = s->put,
	    .taken = s->put < s->waiting ? 0 : s->put - s->waiting,
	    .bytes = s->bytes,
	    .bad = s->bad};
	message_name(name, state_candidate(s, 0));
	if (fstatat(q->dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
		qs->oldest = st.st_mtime;
	queue_unlock(q);
	if (queue_claim_dir(q) != -1)
		dir_each_number(q->claimfd, count_number, &qs->in_flight);
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
