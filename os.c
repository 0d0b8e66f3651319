/*
 * os.c: what one system does better than POSIX can say, each with a portable fallback.
 *
 * `make PORTABLE=1` compiles the Linux halves out, and the tests are run on that too.
 */
#include "os.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#if defined(__linux__) && !defined(MQ_PORTABLE)
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE 1
#endif
/* Of linux/futex.h and linux/sched/types.h, which musl comes without. */
enum { FUTEX_WAIT_CALL = 0, FUTEX_WAKE_CALL = 1 };
enum { POLICY_NORMAL = 0, POLICY_BATCH = 3, SLICE_NS = 200000 };
struct sched_attributes {
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime, deadline, period; /* ns; runtime is the slice, since Linux 6.12 */
};
/* TCP_RTO_MAX_MS of linux/tcp.h, since Linux 6.15, and the least that it may be. */
enum { RTO_MAX_OPTION = 44, RTO_MAX_LOWEST = 1000 };

/* Of linux/fs.h, the same: what the request says is a long was always filled as an int. */
#define GET_FLAGS _IOR('f', 1, long)
#define FLAG_CASEFOLD 0x40000000

/* Of linux/stat.h, the same. */
enum { STAT_TYPE = 1, STAT_MODE = 2, STAT_NLINK = 4, STAT_INO = 0x100, STAT_SIZE = 0x200 };
enum { STAT_MOUNT_UNIQUE = 0x4000 }; /* since Linux 6.8; the number is the first of `rest` */
struct statx_result {
	uint32_t mask, blksize;
	uint64_t attributes;
	uint32_t nlink, uid, gid;
	uint16_t mode, spare;
	uint64_t ino, size, blocks, attributes_mask;
	uint64_t times[8];
	uint32_t rdev[2], dev_major, dev_minor;
	uint64_t rest[14];
};
_Static_assert(sizeof(struct statx_result) == 256, "the kernel fills as many");

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

	if (fstatat(fromdir, from, &a, AT_SYMLINK_NOFOLLOW) == -1 ||
	    fstatat(todir, to, &b, AT_SYMLINK_NOFOLLOW) == -1)
		return -1;
	if (a.st_dev == b.st_dev && a.st_ino == b.st_ino)
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
	if (linkat(fromdir, from, todir, to, 0) == 0) {
		if (unlinkat(fromdir, from, 0) == 0)
			return 0;
		int e = errno;
		unlinkat(todir, to, 0); /* as if nothing had happened */
		errno = e;
		return -1;
	}
	return errno == EEXIST ? resolve_existing(fromdir, from, todir, to) : -1;
}

#if defined(O_TMPFILE) && defined(AT_EMPTY_PATH) && !defined(MQ_PORTABLE)
static bool cannot_name; /* before Linux 6.10 that took a privilege */

int
os_open_unnamed(int dirfd, mode_t mode)
{
	struct stat st;
	int fd = -1;

	errno = EISDIR; /* what a kernel says that does not know the flag */
	if (!cannot_name)
		fd = openat(dirfd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, mode);
	if (fd == -1 && (errno == EISDIR || errno == EINVAL))
		errno = EOPNOTSUPP;
	/* ext4 says so of a directory that was removed. */
	if (fd == -1 && errno == EPERM && fstat(dirfd, &st) == 0)
		errno = st.st_nlink == 0 ? ENOENT : EPERM;
	return fd;
}

int
os_name(int fd, int dirfd, const char *name)
{
	if (linkat(fd, "", dirfd, name, AT_EMPTY_PATH) == 0)
		return 0;
	if (errno == ENOENT || errno == EPERM || errno == EACCES) {
		cannot_name = true;
		errno = EOPNOTSUPP;
	}
	return -1;
}
#else
int
os_open_unnamed(int dirfd, mode_t mode)
{
	(void)dirfd, (void)mode;
	errno = EOPNOTSUPP;
	return -1;
}

int
os_name(int fd, int dirfd, const char *name)
{
	(void)fd, (void)dirfd, (void)name;
	errno = EOPNOTSUPP;
	return -1;
}
#endif

int
os_stat(int dirfd, const char *path, struct stat *st)
{
#if defined(SYS_statx) && !defined(MQ_PORTABLE)
	const unsigned mask = STAT_TYPE | STAT_MODE | STAT_NLINK | STAT_INO | STAT_SIZE;
	static bool missing; /* before Linux 4.11, or where a sandbox forbids it */
	struct statx_result x;

	if (!missing &&
	    syscall(SYS_statx, dirfd, path, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW, mask, &x) == 0) {
		st->st_dev = (dev_t)x.dev_major << 32 | x.dev_minor;
		st->st_ino = x.ino;
		st->st_nlink = x.nlink;
		st->st_mode = x.mode;
		st->st_size = (off_t)x.size;
		return 0;
	}
	if (!missing && errno != ENOSYS && errno != EPERM)
		return -1;
	missing = true;
#endif
	return path[0] == '\0' ? fstat(dirfd, st) : fstatat(dirfd, path, st, AT_SYMLINK_NOFOLLOW);
}

int
os_openat_noatime(int dirfd, const char *name, int flags, mode_t mode)
{
#if defined(O_NOATIME) && !defined(MQ_PORTABLE)
	int fd = openat(dirfd, name, flags | O_NOATIME, mode);

	if (fd != -1 || errno != EPERM) /* the file is another user's */
		return fd;
#endif
	return openat(dirfd, name, flags, mode);
}

int
os_boot_id(char *id)
{
	int r = 0;

	memset(id, '-', OS_BOOT_ID_LEN);
#if defined(__linux__) && !defined(MQ_PORTABLE)
	char text[OS_BOOT_ID_LEN];
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	if (fd == -1)
		return errno == ENOENT || errno == EACCES || errno == EPERM ? 0 : -1;
	ssize_t n = read(fd, text, sizeof text);
	if (n == (ssize_t)sizeof text)
		memcpy(id, text, sizeof text);
	r = n == -1 ? -1 : 0;
	int e = errno;
	close(fd);
	errno = e;
#endif
	return r;
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

bool
os_loses_new_entries(int fd)
{
	/* btrfs, Linux 6.18: in one power cut of a hundred in the first moments of a queue's .delay, which
	 * many processes flush at once, it was not there (tests/powercut --fs btrfs --how drop). */
	uint32_t type;

	return os_filesystem(fd, &type) == -1 || type == 0x9123683e;
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
os_filesystem(int fd, uint32_t *type)
{
	*type = OS_FILESYSTEM_UNKNOWN;
#if defined(__linux__) && !defined(MQ_PORTABLE)
	struct statfs st;

	if (fstatfs(fd, &st) == -1)
		return errno == ENOSYS ? 0 : -1;
	*type = (uint32_t)st.f_type;
#else
	(void)fd;
#endif
	return 0;
}

bool
os_folds_case(int dirfd)
{
#if defined(__linux__) && !defined(MQ_PORTABLE)
	int flags[sizeof(long) / sizeof(int)] = {0};

	/* Not ioctl, of which libcs disagree on the type of the request. */
	return syscall(SYS_ioctl, dirfd, GET_FLAGS, flags) == 0 && (flags[0] & FLAG_CASEFOLD) != 0;
#else
	(void)dirfd;
	return false;
#endif
}

int
os_was_written(int fd)
{
#if defined(SYNC_FILE_RANGE_WAIT_BEFORE) && !defined(MQ_PORTABLE)
	/* This asks for no commit of the file system, which fsync does also where nothing is dirty. */
	return sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WAIT_BEFORE);
#else
	return fsync(fd);
#endif
}

/* The mark is a hint how long what is written to the file will live, which of all that a file has is
 * the one thing that no file system stores. And it is true of a log. */
#if defined(F_SET_RW_HINT) && !defined(MQ_PORTABLE)
enum { HINT_NONE = 1, HINT_SHORT = 2 };

static bool
set_hint(int fd, uint64_t hint)
{
	return fcntl(fd, F_SET_RW_HINT, &hint) == 0;
}

bool
os_is_marked(int fd)
{
	uint64_t hint;

	return fcntl(fd, F_GET_RW_HINT, &hint) == -1 || hint == HINT_SHORT;
}

bool
os_can_mark(int fd)
{
	return set_hint(fd, HINT_NONE);
}

void
os_mark(int fd)
{
	set_hint(fd, HINT_SHORT);
}
#else
bool
os_is_marked(int fd)
{
	(void)fd;
	return true;
}

bool
os_can_mark(int fd)
{
	(void)fd;
	return false;
}

void
os_mark(int fd)
{
	(void)fd;
}
#endif

uint64_t
os_mount_id(int fd)
{
#if defined(SYS_statx) && !defined(MQ_PORTABLE)
	struct statx_result x;

	if (syscall(SYS_statx, fd, "", AT_EMPTY_PATH, STAT_MOUNT_UNIQUE, &x) == 0 &&
	    (x.mask & STAT_MOUNT_UNIQUE) != 0)
		return x.rest[0];
#else
	(void)fd;
#endif
	return 0;
}

void
os_open_standard(void)
{
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		if (fcntl(fd, F_GETFD) == -1)
			open("/dev/null", O_RDWR); /* the lowest that is free: this one */
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

/* Few: the counters and the log's. */
static struct {
	void *volatile at;
	volatile size_t len;
} shared_maps[4];

void
os_free_returns(void)
{
#ifdef __GLIBC__
	mallopt(M_MMAP_THRESHOLD, 128 << 10);
#endif
}

static void
on_bus_error(int sig, siginfo_t *info, void *context)
{
	int protection = PROT_READ | PROT_WRITE;
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;

	(void)context;
	for (size_t i = 0; i < sizeof shared_maps / sizeof shared_maps[0]; i++) {
		char *at = shared_maps[i].at;
		size_t len = shared_maps[i].len;

		if (at == NULL || (char *)info->si_addr < at || (char *)info->si_addr >= at + len)
			continue;
		/* No more than a system call, thus safe here. */
		/* NOLINTNEXTLINE(bugprone-signal-handler,cert-sig30-c) */
		if (mmap(at, len, protection, flags, -1, 0) != MAP_FAILED)
			return;
	}
	signal(sig, SIG_DFL); /* not ours: die when the instruction is run again */
}

void *
os_map_shared(int fd, size_t len)
{
	struct sigaction sa = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO};
	void *p;

	for (size_t i = 0; i < sizeof shared_maps / sizeof shared_maps[0]; i++) {
		if (shared_maps[i].at != NULL)
			continue;
		p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (p == MAP_FAILED)
			return NULL;
		sigemptyset(&sa.sa_mask);
		sigaction(SIGBUS, &sa, NULL);
		shared_maps[i].len = len;
		shared_maps[i].at = p;
		return p;
	}
	errno = ENOMEM;
	return NULL;
}

void
os_unmap_shared(void *p, size_t len)
{
	for (size_t i = 0; i < sizeof shared_maps / sizeof shared_maps[0]; i++)
		if (shared_maps[i].at == p)
			shared_maps[i].at = NULL;
	munmap(p, len);
}

#if defined(__linux__) && !defined(MQ_PORTABLE)
static int
add_watch(int watch, int dirfd, uint32_t events)
{
	char path[32];

	snprintf(path, sizeof path, "/proc/self/fd/%d", dirfd);
	return inotify_add_watch(watch, path, events | IN_ONLYDIR);
}
#endif

int
os_watch_begin(struct os_watch *w, int dirfd, int closedfd)
{
#if defined(__linux__) && !defined(MQ_PORTABLE)
	uint32_t arrivals = IN_CREATE | IN_MOVED_TO | IN_ATTRIB | IN_MOVE_SELF | IN_DELETE_SELF;

	if (w->fd == -1)
		w->fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (w->fd == -1)
		return -1;
	os_watch_read(w); /* what is left of the last time */
	w->of[0] = add_watch(w->fd, dirfd, arrivals);
	w->of[1] = add_watch(w->fd, closedfd, IN_CLOSE_WRITE);
	if (w->of[0] != -1 && w->of[1] != -1)
		return 0;
	os_watch_close(w);
#else
	(void)w, (void)dirfd, (void)closedfd;
#endif
	return -1;
}

bool
os_watch_read(const struct os_watch *w)
{
	bool arrived = false;
#if defined(__linux__) && !defined(MQ_PORTABLE)
	_Alignas(struct inotify_event) char buf[4096];
	ssize_t n;

	while ((n = read(w->fd, buf, sizeof buf)) > 0)
		for (char *p = buf; p < buf + n;) {
			struct inotify_event e;
			memcpy(&e, p, sizeof e);
			arrived = arrived || (e.mask & IN_CLOSE_WRITE) == 0;
			p += sizeof e + e.len;
		}
#else
	(void)w;
#endif
	return arrived;
}

void
os_watch_end(struct os_watch *w)
{
#if defined(__linux__) && !defined(MQ_PORTABLE)
	for (int i = 0; i < 2 && w->fd != -1; i++)
		inotify_rm_watch(w->fd, w->of[i]);
#else
	(void)w;
#endif
}

void
os_watch_close(struct os_watch *w)
{
	if (w->fd != -1)
		close(w->fd);
	w->fd = -1;
}

void
os_sched_batch(void)
{
#if defined(__linux__) && !defined(MQ_PORTABLE)
	struct sched_attributes a;
	static bool done;

	if (done)
		return;
	done = true;
	if (syscall(SYS_sched_getattr, 0, &a, sizeof a, 0) == -1 || a.policy != POLICY_NORMAL)
		return;
	a.policy = POLICY_BATCH;
	a.runtime = SLICE_NS;
	syscall(SYS_sched_setattr, 0, &a, 0);
#endif
}

void
os_wait(_Atomic uint32_t *word, uint32_t value, unsigned ms)
{
	struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};

#if defined(__linux__) && !defined(MQ_PORTABLE)
	syscall(SYS_futex, word, FUTEX_WAIT_CALL, value, &ts, NULL, 0);
#else
	if (*word == value) {
		ts = (struct timespec){.tv_nsec = 100000};
		nanosleep(&ts, NULL);
	}
#endif
}

void
os_wake(_Atomic uint32_t *word)
{
#if defined(__linux__) && !defined(MQ_PORTABLE)
	syscall(SYS_futex, word, FUTEX_WAKE_CALL, INT_MAX, NULL, NULL, 0);
#else
	(void)word;
#endif
}

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

void
os_keepalive(int fd, int seconds)
{
	int on = seconds > 0;

#if defined(__linux__) && !defined(MQ_PORTABLE)
	if (on) {
		int probes = 3, interval = (seconds + 5) / 6;
		/* While something is unacknowledged nobody is asked, it is sent again: 15 times, after
		 * pauses that double up to two minutes, or up to this; 8 s come to 93 s in all. Not
		 * TCP_USER_TIMEOUT, which gives up on a client that is slow to read as well. */
		int pause_ms = seconds * 133 < RTO_MAX_LOWEST ? RTO_MAX_LOWEST : seconds * 133;
		setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &seconds, sizeof seconds);
		setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
		setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
		setsockopt(fd, IPPROTO_TCP, RTO_MAX_OPTION, &pause_ms, sizeof pause_ms);
	}
#endif
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
}
