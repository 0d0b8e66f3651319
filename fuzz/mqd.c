/*
 * mqd as a whole for AFL++: each input is what one client sends on standard input, to a new spool.
 *
 * A process takes many inputs, one after the other, as a worker of a pool does, but each with a new
 * spool. That has settings, so that limits, expiry, dead letters and delays are in reach. A wait takes no time:
 * poll returns at once, and the clocks go on by what it would have waited. Nothing may be named
 * outside of the spool: whatever is opened, made, renamed or removed by a name that leads up or
 * begins at the root, but for the few files that mqd reads, ends the process as a crash does; and so
 * does, at the end, an entry of the spool that is neither machinery nor a queue's name.
 *
 * MQD_SYNC=full|push|none is its -o sync, and MQD_FUZZ_DIR where its folder is made (/dev/shm).
 */
int mqd_main(int argc, char *argv[]);
#define main mqd_main
#include "../mqd.c"
#undef main

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <stdarg.h>
#include <sys/syscall.h>
#include <time.h>

#include "../queue_name.h"

int __wrap_open(const char *name, int flags, ...);
int __real_open(const char *name, int flags, ...);
int __wrap_openat(int dir, const char *name, int flags, ...);
int __real_openat(int dir, const char *name, int flags, ...);
int __wrap_mkdirat(int dir, const char *name, mode_t mode);
int __real_mkdirat(int dir, const char *name, mode_t mode);
int __wrap_mkfifoat(int dir, const char *name, mode_t mode);
int __real_mkfifoat(int dir, const char *name, mode_t mode);
int __wrap_unlinkat(int dir, const char *name, int flags);
int __real_unlinkat(int dir, const char *name, int flags);
int __wrap_linkat(int from, const char *a, int to, const char *b, int flags);
int __real_linkat(int from, const char *a, int to, const char *b, int flags);
int __wrap_renameat(int from, const char *a, int to, const char *b);
int __real_renameat(int from, const char *a, int to, const char *b);
long __wrap_syscall(long number, long a, long b, long c, long d, long e, long f);
long __real_syscall(long number, ...);
int __wrap_poll(struct pollfd *fds, nfds_t n, int timeout_ms);
int __real_poll(struct pollfd *fds, nfds_t n, int timeout_ms);
int __wrap_clock_gettime(clockid_t clock, struct timespec *ts);
int __real_clock_gettime(clockid_t clock, struct timespec *ts);
time_t __wrap_time(time_t *t);
time_t __real_time(time_t *t);

#define INPUTS 200 /* of one process */
/* A wait of years looks at the queue, or at the settings, once in a while. That many looks are
 * enough: then its end has come. */
#define WAITS_MAX 500
#define FOREVER_MS (1000 * (long)INT32_MAX)

static char spool[64];
static bool checking;   /* AFL's own runtime has begun, and is left alone */
static long skipped_ms; /* by waits that took no time */
static unsigned waits;

static void
must(bool holds)
{
	if (checking && !holds)
		abort();
}

/* A name below the directory that it is given with. */
static void
check_name(const char *name)
{
	must(name[0] != '/');
	for (const char *p = name; p != NULL; p = strchr(p, '/')) {
		p += *p == '/';
		must(strncmp(p, "..", 2) != 0 || (p[2] != '/' && p[2] != '\0'));
	}
}

int
__wrap_open(const char *name, int flags, ...)
{
	must(strcmp(name, spool) == 0 || strncmp(name, "/proc/", 6) == 0 ||
	     strcmp(name, "/dev/urandom") == 0);
	must((flags & O_CREAT) == 0);
	return __real_open(name, flags, 0600);
}

int
__wrap_openat(int dir, const char *name, int flags, ...)
{
	va_list args;

	va_start(args, flags);
	mode_t mode =
	    (flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(args, mode_t) : 0;
	va_end(args);
	check_name(name);
	return __real_openat(dir, name, flags, mode);
}

int
__wrap_mkdirat(int dir, const char *name, mode_t mode)
{
	check_name(name);
	return __real_mkdirat(dir, name, mode);
}

int
__wrap_mkfifoat(int dir, const char *name, mode_t mode)
{
	check_name(name);
	return __real_mkfifoat(dir, name, mode);
}

int
__wrap_unlinkat(int dir, const char *name, int flags)
{
	check_name(name);
	return __real_unlinkat(dir, name, flags);
}

int
__wrap_linkat(int from, const char *a, int to, const char *b, int flags)
{
	check_name(a);
	check_name(b);
	return __real_linkat(from, a, to, b, flags);
}

int
__wrap_renameat(int from, const char *a, int to, const char *b)
{
	check_name(a);
	check_name(b);
	return __real_renameat(from, a, to, b);
}

long
__wrap_syscall(long number, long a, long b, long c, long d, long e, long f)
{
	if (number == SYS_renameat2) {
		check_name((const char *)b);
		check_name((const char *)d);
	}
	return __real_syscall(number, a, b, c, d, e, f);
}

int
__wrap_poll(struct pollfd *fds, nfds_t n, int timeout_ms)
{
	int r = __real_poll(fds, n, 0);

	if (r == 0 && timeout_ms != 0)
		skipped_ms += ++waits % WAITS_MAX == 0 ? FOREVER_MS
		              : timeout_ms < 0         ? 0
		                                       : timeout_ms;
	return r;
}

int
__wrap_clock_gettime(clockid_t clock, struct timespec *ts)
{
	int r = __real_clock_gettime(clock, ts);

	ts->tv_sec += skipped_ms / 1000;
	ts->tv_nsec += skipped_ms % 1000 * 1000000;
	if (ts->tv_nsec >= 1000000000) {
		ts->tv_sec++;
		ts->tv_nsec -= 1000000000;
	}
	return r;
}

time_t
__wrap_time(time_t *t)
{
	(void)t;
	return __real_time(NULL) + skipped_ms / 1000;
}

static int
remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

static void
write_file(const char *queue, const char *text)
{
	char path[128];

	snprintf(path, sizeof path, "%s%s", spool, queue);
	must(mkdir(path, 0700) == 0);
	strcat(path, "/.config");
	FILE *f = fopen(path, "we");
	must(f != NULL && fputs(text, f) >= 0 && fclose(f) == 0);
}

/* What the one before has left is removed first. */
static void
make_spool(void)
{
	nftw(spool, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
	write_file("", "allow_flush_all = yes\nexpire = yes\nmax_tries = 2\nmax_open = 3\n");
	write_file("/l", "max_items = 2\nmax_item_size = 100\nmax_bytes = 150\n");
	write_file("/d", "max_items = 2\ndiscard_old = yes\ndelay = 1s\ndead_letter = l\n");
	write_file("/e", "max_age = 2s\nexpire_to = q\nopen_timeout = 1s\nfanout_only = yes\n");
}

static void
check_spool(void)
{
	static const char *const machinery[] = {".",       "..",       ".config", ".stats", ".sync",
	                                        ".fanout", ".journal", ".trash",  NULL};
	char name[QUEUE_NAME_MAX + 1];
	DIR *dir = opendir(spool);
	struct dirent *e;

	must(dir != NULL);
	while ((e = readdir(dir)) != NULL) {
		size_t i = 0;
		while (machinery[i] != NULL && strcmp(machinery[i], e->d_name) != 0)
			i++;
		must(machinery[i] != NULL || queue_name_decode(e->d_name, name) > 0);
	}
	closedir(dir);
}

static void
serve_input(void)
{
	const char *sync = getenv("MQD_SYNC");
	char options[16];

	snprintf(options, sizeof options, "sync=%s", sync != NULL ? sync : "none");
	char *args[] = {"mqd", "-B", "64k", "-o", options, "-H", spool, NULL};
	optind = 1;
	skipped_ms = 0;
	waits = 0;
	make_spool();
	mqd_main(7, args);
	check_spool();
}

int
main(void)
{
	const char *parent = getenv("MQD_FUZZ_DIR");

	snprintf(spool, sizeof spool, "%s/mqd-afl.%ld", parent != NULL ? parent : "/dev/shm",
	         (long)getpid());
#ifdef __AFL_HAVE_MANUAL_CONTROL
	while (__AFL_LOOP(INPUTS)) {
		lseek(STDIN_FILENO, 0, SEEK_SET);
		checking = true;
		serve_input();
		checking = false;
	}
#else
	checking = true;
	serve_input();
#endif
	return 0;
}
