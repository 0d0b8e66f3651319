/*
 * stage.c: where messages from elsewhere lie until they are their queues' own.
 *
 *     <spool>/.import/<source>[/<part>]/new    being written
 *     <spool>/.import/<source>[/<part>]/<n>    whole, and to be pushed
 *
 * A message that was received from somewhere must not be lost when we are killed, nor come into its
 * queue twice when we are run again. So it is a file with a name first, and the rename that makes it
 * a message is the one that takes it from here (push_staged): wherever that stops, it is in one of
 * the two places. What lies in a folder therefore tells how far its import has come, and nothing
 * else needs to.
 *
 * A folder belongs to the process that has a flock on it. Whoever opens it next finds what a killed
 * one has left there, and goes on with it; mqd never looks.
 */
#include "stage.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "crc32c.h"
#include "spool_queue.h"

#define FOLDER ".import"
#define UNNAMED "new"

static int
open_folder(struct spool *sp, const char *source, const char *part)
{
	const char *path[] = {FOLDER, source, part};
	int fd = spool_dirfd(sp), e;

	for (size_t i = 0; i < 3 && path[i] != NULL && fd != -1; i++) {
		int parent = fd;
		fd = dir_open_or_make(parent, path[i]);
		e = errno;
		if (i > 0)
			close(parent);
		errno = e;
	}
	return fd;
}

int
stage_open(struct spool *sp, const char *source, const char *part)
{
	struct stat st;
	int fd;

	while ((fd = open_folder(sp, source, part)) != -1) {
		int r = flock(fd, LOCK_EX | LOCK_NB), e = errno;
		if (r == 0 && (fstat(fd, &st) == -1 || st.st_nlink > 0))
			break;
		close_fd(&fd);
		errno = e;
		if (r == -1)
			break;
		/* Whoever had it has removed it before it was ours. */
	}
	return fd;
}

void
stage_remove(struct spool *sp, const char *source, const char *part)
{
	int top = openat(spool_dirfd(sp), FOLDER, dir_flags);
	int fd = top == -1 ? -1 : openat(top, source, dir_flags);

	if (fd != -1 && part != NULL)
		unlinkat(fd, part, AT_REMOVEDIR);
	if (fd != -1)
		unlinkat(top, source, AT_REMOVEDIR);
	close_fd(&fd);
	close_fd(&top);
	unlinkat(spool_dirfd(sp), FOLDER, AT_REMOVEDIR);
}

void
stage_abort(struct stage *s)
{
	int e = errno;

	close_fd(&s->fd);
	unlinkat(s->dirfd, UNNAMED, 0);
	errno = e;
}

int
stage_begin(struct stage *s, int dirfd)
{
	static const char line[MESSAGE_HEADER_LEN];

	*s = (struct stage){.dirfd = dirfd, .message = {.number = 1}};
	s->fd = openat(dirfd, UNNAMED, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (s->fd != -1 && file_write(s->fd, line, sizeof line, 0) == 0)
		return 0;
	if (s->fd != -1)
		stage_abort(s);
	return -1;
}

int
stage_write(struct stage *s, const void *data, size_t len)
{
	if (len > MESSAGE_LENGTH_MAX - s->message.length) {
		errno = EFBIG;
		return -1;
	}
	if (file_write(s->fd, data, len, MESSAGE_HEADER_LEN + s->message.length) == -1)
		return -1;
	s->crc = crc32c(s->crc, data, len);
	s->message.length += len;
	return 0;
}

int
stage_end(struct stage *s, const char *name)
{
	char line[MESSAGE_HEADER_LEN];

	message_write_header(line, &s->message, s->crc);
	if (file_write(s->fd, line, sizeof line, 0) == -1 ||
	    renameat(s->dirfd, UNNAMED, s->dirfd, name) == -1)
		return -1;
	close_fd(&s->fd);
	return 0;
}

static int
read_staged(int fd, struct message *m, uint32_t *crc)
{
	char buf[16384], line[MESSAGE_HEADER_LEN];
	uint64_t length = 0;
	uint32_t whole;
	ssize_t n = pread(fd, line, sizeof line, 0);

	*crc = 0;
	if (n == (ssize_t)sizeof line && message_read_header(line, m, &whole) == 0) {
		for (off_t at = sizeof line; (n = pread(fd, buf, sizeof buf, at)) > 0; at += n) {
			*crc = crc32c(*crc, buf, (size_t)n);
			length += (uint64_t)n;
		}
		if (n == 0 && length == m->length && message_crc(line, *crc) == whole)
			return 1;
	}
	if (n != -1)
		errno = EILSEQ;
	return -1;
}

int
stage_read(int dirfd, const char *name, struct message *m, uint32_t *crc)
{
	int fd = openat(dirfd, name, read_flags);

	if (fd == -1)
		return errno == ENOENT ? 0 : -1;
	int r = read_staged(fd, m, crc), e = errno;
	close(fd);
	errno = e;
	return r;
}

int
stage_is_pushed(struct spool *sp, const char *queue, int dirfd, const char *name)
{
	char line[MESSAGE_HEADER_LEN], path[QUEUE_NAME_MAX + MESSAGE_NAME_LEN + 2];
	int fd = openat(dirfd, name, read_flags);
	struct stat here, there;
	struct message m;
	uint32_t crc;

	if (fd == -1)
		return errno == ENOENT ? 0 : -1;
	ssize_t n = fstat(fd, &here) == -1 ? -1 : pread(fd, line, sizeof line, 0);
	close_fd(&fd);
	if (n == -1)
		return -1;
	if (here.st_nlink == 1 || n != (ssize_t)sizeof line ||
	    message_read_header(line, &m, &crc) == -1)
		return 0;
	/* The header got its number before the link; other links are an operator's. */
	snprintf(path, sizeof path, "%s/%016" PRIu64, queue, m.number);
	if (fstatat(spool_dirfd(sp), path, &there, AT_SYMLINK_NOFOLLOW) == -1)
		return errno == ENOENT ? 0 : -1;
	if (here.st_dev != there.st_dev || here.st_ino != there.st_ino)
		return 0;
	return unlinkat(dirfd, name, 0) == 0 ? 1 : -1;
}

int
stage_adopt(int dirfd, const char *name)
{
	struct message m;
	struct stat st;
	uint32_t crc;

	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
		return 0;
	if (errno != ENOENT)
		return -1;
	int r = stage_read(dirfd, UNNAMED, &m, &crc);
	if (r == 1)
		return renameat(dirfd, UNNAMED, dirfd, name);
	return r == -1 && errno != EILSEQ ? -1 : 0;
}

int64_t
stage_clear(int dirfd)
{
	struct stat st;

	if (fstatat(dirfd, UNNAMED, &st, AT_SYMLINK_NOFOLLOW) == -1 ||
	    unlinkat(dirfd, UNNAMED, 0) == -1)
		return -1;
	return (int64_t)body_bytes(&st);
}

int
stage_push(struct spool *sp, const char *queue, int dirfd, const char *name,
           const struct message *m, uint32_t crc, int64_t delay)
{
	struct push p;

	if (push_staged(&p, sp, queue, dirfd, name, m->length, crc) == -1)
		return -1;
	p.expiry = m->expiry;
	p.tries = m->tries;
	p.delay = delay;
	return push_commit(&p, m->flags);
}
