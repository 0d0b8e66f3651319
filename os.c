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
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#if defined(__linux__) && !defined(MQ_PORTABLE)
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
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

#if defined(F_SETLEASE) && !defined(MQ_PORTABLE)
bool
os_lease_possible(void)
{
	return true;
}

bool
os_lease(int fd)
{
	static bool ignored;

	if (!ignored)
		signal(SIGIO, SIG_IGN);
	ignored = true;
	return fcntl(fd, F_SETLEASE, F_WRLCK) == 0;
}

void
os_unlease(int fd)
{
	fcntl(fd, F_SETLEASE, F_UNLCK);
}
#else
bool
os_lease_possible(void)
{
	return false;
}

bool
os_lease(int fd)
{
	(void)fd;
	return false;
}

void
os_unlease(int fd)
{
	(void)fd;
}
#endif

uint64_t
os_monotonic_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

ssize_t
os_sendfile(int out, int file, uint64_t offset, size_t len)
{
#if defined(__linux__) && !defined(MQ_PORTABLE)
	off_t at = (off_t)offset;

	return sendfile(out, file, &at, len);
#else
	(void)out, (void)file, (void)offset, (void)len;
	errno = ENOSYS;
	return -1;
#endif
}

#if defined(EPOLLEXCLUSIVE) && !defined(MQ_PORTABLE)
/* With a set of its own in each process, the first of those that wait, in the order in which
 * they began their sets, is woken: few are kept busy, and the others can rest. */
static int
wait_set(int set, int *ready, int timeout_ms)
{
	struct epoll_event events[OS_WAIT_MAX + 1];
	int n = epoll_wait(set, events, OS_WAIT_MAX + 1, timeout_ms);

	*ready = 0;
	for (int i = 0; i < n; i++)
		*ready |= 1 << events[i].data.u32;
	return n;
}

static int
make_set(const int *sockets, unsigned n, int other)
{
	int set = epoll_create1(EPOLL_CLOEXEC), r = set == -1 ? -1 : 0;

	for (unsigned i = 0; i <= n && r == 0; i++) {
		struct epoll_event e = {.events = i < n ? EPOLLIN | EPOLLEXCLUSIVE : EPOLLIN,
		                        .data.u32 = i};
		r = epoll_ctl(set, EPOLL_CTL_ADD, i < n ? sockets[i] : other, &e);
	}
	if (r == 0)
		return set;
	if (set != -1)
		close(set);
	return -1;
}
#else
static int
wait_set(int set, int *ready, int timeout_ms)
{
	(void)set, (void)timeout_ms;
	*ready = 0;
	return -1;
}

static int
make_set(const int *sockets, unsigned n, int other)
{
	(void)sockets, (void)n, (void)other;
	return -1;
}
#endif

int
os_wait_accept(int *set, const int *sockets, unsigned n, int other, int timeout_ms)
{
	struct pollfd polled[OS_WAIT_MAX + 1];
	int ready = 0;

	if (*set == -1)
		*set = make_set(sockets, n, other);
	if (*set != -1)
		return wait_set(*set, &ready, timeout_ms) == -1 ? -1 : ready;
	for (unsigned i = 0; i <= n; i++)
		polled[i] = (struct pollfd){.fd = i < n ? sockets[i] : other, .events = POLLIN};
	if (poll(polled, n + 1, timeout_ms) == -1)
		return -1;
	for (unsigned i = 0; i <= n; i++)
		ready |= polled[i].revents != 0 ? 1 << i : 0;
	return ready;
}

void
os_signal_when_orphaned(int sig, pid_t parent)
{
#if defined(__linux__) && !defined(MQ_PORTABLE)
	prctl(PR_SET_PDEATHSIG, sig);
	if (getppid() != parent)
		raise(sig);
#else
	(void)sig, (void)parent;
#endif
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
