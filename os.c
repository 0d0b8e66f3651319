/*
 * os.c: what one system does better than POSIX can say, each with a portable fallback.
 *
 * `make PORTABLE=1` compiles the Linux halves out, and the tests are run on that too.
 */
#include "os.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#if defined(__linux__) && !defined(MQ_PORTABLE)
#include <sys/syscall.h>
#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE 1
#endif

static int
rename_exclusively(int fromdir, const char *from, int todir, const char *to)
{
	return (int)syscall(SYS_renameat2, fromdir, from, todir, to, RENAME_NOREPLACE);
}
#else
static int
rename_exclusively(int fromdir, const char *from, int todir, const char *to)
{
	(void)fromdir, (void)from, (void)todir, (void)to;
	errno = ENOSYS;
	return -1;
}
#endif

/* Something stands at the new name: finish if it is the same file, else it is EEXIST. */
static int
resolve_existing(int fromdir, const char *from, int todir, const char *to)
{
	struct stat a, b;

	if (fstatat(fromdir, from, &a, AT_SYMLINK_NOFOLLOW) == 0 &&
	    fstatat(todir, to, &b, AT_SYMLINK_NOFOLLOW) == 0 && a.st_dev == b.st_dev &&
	    a.st_ino == b.st_ino)
		return unlinkat(fromdir, from, 0);
	errno = EEXIST;
	return -1;
}

int
os_rename_noreplace(int fromdir, const char *from, int todir, const char *to)
{
	struct stat st;

	if (rename_exclusively(fromdir, from, todir, to) == 0)
		return 0;
	if (errno == EEXIST)
		return resolve_existing(fromdir, from, todir, to);
	if (errno != EINVAL && errno != ENOSYS)
		return -1;
	/* The system or this file system has no such rename. A directory cannot be
	 * linked, and is only ever moved aside, where a lost race costs nothing. */
	if (fstatat(fromdir, from, &st, AT_SYMLINK_NOFOLLOW) == -1)
		return -1;
	if (S_ISDIR(st.st_mode))
		return renameat(fromdir, from, todir, to);
	if (linkat(fromdir, from, todir, to, 0) == 0)
		return unlinkat(fromdir, from, 0);
	return errno == EEXIST ? resolve_existing(fromdir, from, todir, to) : -1;
}

void
os_boot_id(char *id)
{
	memset(id, '-', OS_BOOT_ID_LEN);
#if defined(__linux__) && !defined(MQ_PORTABLE)
	char text[OS_BOOT_ID_LEN];
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	if (fd == -1)
		return;
	if (read(fd, text, sizeof text) == (ssize_t)sizeof text)
		memcpy(id, text, sizeof text);
	close(fd);
#endif
}

int
os_syncfs(int fd)
{
#if defined(__linux__) && !defined(MQ_PORTABLE)
	return syncfs(fd);
#else
	(void)fd;
	errno = ENOSYS;
	return -1;
#endif
}

int
os_random(void *buf, size_t len)
{
	int fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
	ssize_t n;

#if defined(__linux__) && !defined(MQ_PORTABLE)
	if (fd == -1) /* a chroot without devices */
		return syscall(SYS_getrandom, buf, len, 0) == (long)len ? 0 : -1;
#endif
	if (fd == -1)
		return -1;
	n = read(fd, buf, len);
	close(fd);
	return n == (ssize_t)len ? 0 : -1;
}

uint64_t
os_monotonic_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

void
os_quick_ack(int fd)
{
#if defined(TCP_QUICKACK) && !defined(MQ_PORTABLE)
	int on = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof on);
#else
	(void)fd;
#endif
}
