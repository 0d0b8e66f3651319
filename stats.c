/*
 * stats.c: counters shared by all processes of a spool, and who is connected.
 *
 * `.stats` in the spool is an array of 64-bit numbers that every process maps and adds to
 * atomically: no lock, no system call, nothing to flush when a process is killed.
 * Each process that serves a connection holds a lock on the byte of that file at its process
 * id, which is nothing that is written; the kernel drops it when the process ends, however it
 * ends.
 *
 * Both are for people to look at. Nothing that a message depends on is kept here: where
 * the file cannot be mapped, or its page cannot be written when it is touched (the disk
 * is full and the file system copies on write), the process counts in memory of its own.
 */
#include "stats.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "os.h"

_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "counters are shared between processes");

struct shared {
	_Atomic uint64_t created; /* seconds since 1970 */
	_Atomic uint64_t counters[STATS_COUNTERS];
};

#define PAGE 4096 /* bytes of the file: more than is mapped, and no page of memory is smaller */
#define PID_RANGE 0x800000 /* above every process id: the second choice is a range further */
#define LOCKS_END (64 * (off_t)PID_RANGE)

static struct shared own;
static struct shared *shared = &own;
static int file = -1;
static off_t client_byte = -1;

/* Give a new file its page, once. */
static int
fill(void)
{
	static const char zeros[PAGE];
	struct stat st;
	ssize_t n = PAGE;

	if (fstat(file, &st) == -1)
		return -1;
	if (!S_ISREG(st.st_mode) || st.st_nlink > 1) { /* somebody's, with a second name here */
		errno = S_ISREG(st.st_mode) ? EPERM : ENXIO;
		return -1;
	}
	if (st.st_size >= PAGE)
		return 0;
	if (flock(file, LOCK_EX) == -1 || fstat(file, &st) == -1)
		return -1;
	if (st.st_size < PAGE)
		n = pwrite(file, zeros, PAGE, 0);
	flock(file, LOCK_UN);
	return n == PAGE ? 0 : -1;
}

int
stats_open(int dirfd)
{
	int flags = O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;
	struct shared *p;

	if (shared != &own)
		return 0;
	if (file == -1)
		file = os_openat_noatime(dirfd, ".stats", flags, 0600);
	if (file == -1 || fill() == -1 || (p = os_map_shared(file, sizeof *shared)) == NULL)
		return -1;
	shared = p;
	uint64_t none = 0;
	if (atomic_load(&shared->created) == 0)
		atomic_compare_exchange_strong(&shared->created, &none, (uint64_t)time(NULL));
	for (int i = 0; i < STATS_COUNTERS; i++)
		atomic_fetch_add(&shared->counters[i], own.counters[i]);
	return 0;
}

int
stats_glance(int dirfd)
{
	struct stat st;

	file =
	    os_openat_noatime(dirfd, ".stats", O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0);
	if (file == -1 || fstat(file, &st) == -1)
		return -1;
	if (!S_ISREG(st.st_mode) || pread(file, &own, sizeof own, 0) != sizeof own) {
		errno = EINVAL;
		return -1;
	}
	return 0;
}

void
stats_add(enum stats_counter counter, uint64_t n)
{
	atomic_fetch_add_explicit(&shared->counters[counter], n, memory_order_relaxed);
}

uint64_t
stats_get(enum stats_counter counter)
{
	return atomic_load_explicit(&shared->counters[counter], memory_order_relaxed);
}

void
stats_reset(void)
{
	for (int i = 0; i < STATS_COUNTERS; i++)
		atomic_store(&shared->counters[i], 0);
}

uint64_t
stats_uptime(void)
{
	uint64_t created = atomic_load(&shared->created), now = (uint64_t)time(NULL);

	return created == 0 || now < created ? 0 : now - created;
}

uint64_t
stats_created(void)
{
	return atomic_load(&shared->created);
}

static int
lock_byte(int command, struct flock *l, short type, off_t from, off_t len)
{
	*l = (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = from, .l_len = len};
	return fcntl(file, command, l);
}

void
stats_enter(void)
{
	struct flock l;

	/* Another process with the same id in another pid namespace may hold the byte. */
	for (off_t byte = getpid(); client_byte == -1 && byte < LOCKS_END; byte += PID_RANGE) {
		if (lock_byte(F_SETLK, &l, F_WRLCK, byte, 1) == 0)
			client_byte = byte;
		else if (errno != EACCES && errno != EAGAIN)
			return;
	}
}

void
stats_leave(void)
{
	struct flock l;

	if (client_byte != -1)
		lock_byte(F_SETLK, &l, F_UNLCK, client_byte, 1);
	client_byte = -1;
}

/* The locks of others on bytes from <= b < to. F_GETLK tells of one of them, in no order. */
static uint64_t
count_locks(off_t from, off_t to)
{
	struct flock l;

	if (from >= to || lock_byte(F_GETLK, &l, F_WRLCK, from, to - from) == -1 ||
	    l.l_type == F_UNLCK)
		return 0;
	/* A length of 0 is up to the end: none of ours. */
	return 1 + count_locks(from, l.l_start) +
	       (l.l_len == 0 ? 0 : count_locks(l.l_start + l.l_len, to));
}

uint64_t
stats_connections(void)
{
	/* F_GETLK does not tell of one's own. */
	return (client_byte != -1) + count_locks(0, LOCKS_END);
}
