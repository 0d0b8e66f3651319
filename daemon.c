/*
 * daemon.c: a daemon of the old kind: in the background, with a pid file and with core files. It is
 * for init scripts that were written for such; a super-server needs none of it.
 *
 * The process that was started forks and waits on a pipe. Its child does what can fail, and says so
 * on the standard error that both share; when all is done it writes a byte to the pipe. An end of the
 * pipe without a byte means that the child has failed, and its status is what the other exits with.
 *
 * The pid file is locked by the process whose id is in it, so that its death unlocks it. The lock is
 * a record lock and no flock, which the workers of a pool would share: a busy one may outlive its
 * parent, and must not keep another mqd from starting.
 */
#include "daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#if defined(__linux__) && !defined(MQ_PORTABLE)
#include <sys/prctl.h>
#endif

#define FAILED 111 /* when the child cannot say it */

static int starter = -1; /* the end of the pipe that is written to */

static struct {
	const char *path;
	int fd;
} pidfile = {NULL, -1};

/* What the process does that was started. */
_Noreturn static void
wait_for_child(int fd, pid_t child)
{
	char byte;
	ssize_t n;
	int status;

	do
		n = read(fd, &byte, 1);
	while (n == -1 && errno == EINTR);
	if (n == 1)
		_exit(0);
	while (waitpid(child, &status, 0) == -1)
		if (errno != EINTR)
			_exit(FAILED);
	_exit(WIFEXITED(status) ? WEXITSTATUS(status) : FAILED);
}

int
daemon_begin(void)
{
	int ends[2];
	pid_t child;

	if (pipe(ends) == -1)
		return -1;
	child = fork();
	if (child > 0) {
		close(ends[1]);
		wait_for_child(ends[0], child);
	}
	close(ends[0]);
	starter = ends[1];
	return child == -1 || setsid() == -1 ? -1 : 0;
}

int
daemon_ready(bool stay)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null == -1 || (!stay && chdir("/") == -1))
		return -1;
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		if (dup2(null, fd) == -1)
			return -1;
	close(null);
	if (write(starter, "", 1) != 1)
		return -1;
	close(starter);
	starter = -1;
	return 0;
}

static bool
is_same_file(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* Open and lock it. Another process may remove it, having held it, while this one waits for neither:
 * then it is made again. */
static int
open_locked(const char *path, pid_t *holder)
{
	int flags = O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
	struct stat opened, named;

	for (;;) {
		struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
		mode_t mask = umask(022); /* anybody may know who it is */
		int fd = open(path, flags, 0644);
		umask(mask);
		if (fd == -1)
			return -1;
		if (fcntl(fd, F_SETLK, &l) == -1) {
			int e = errno;
			*holder = 0;
			if ((e == EACCES || e == EAGAIN) && fcntl(fd, F_GETLK, &l) == 0) {
				*holder = l.l_type == F_UNLCK ? 0 : l.l_pid;
				e = EEXIST;
			}
			close(fd);
			errno = e;
			return -1;
		}
		if (fstat(fd, &opened) == 0 && lstat(path, &named) == 0 &&
		    is_same_file(&opened, &named)) {
			/* By a second name root could be made to overwrite anything. */
			if (S_ISREG(opened.st_mode) && opened.st_nlink == 1)
				return fd;
			close(fd);
			errno = EINVAL;
			return -1;
		}
		close(fd);
	}
}

int
pidfile_write(const char *path, pid_t *holder)
{
	int fd = open_locked(path, holder);

	if (fd == -1)
		return -1;
	pidfile.path = path;
	pidfile.fd = fd;
	if (ftruncate(fd, 0) == -1 || dprintf(fd, "%ld\n", (long)getpid()) < 0) {
		int e = errno;
		pidfile_remove();
		errno = e;
		return -1;
	}
	return 0;
}

int
pidfile_remove(void)
{
	struct stat opened, named;
	int r = 0;

	if (pidfile.fd == -1)
		return 0;
	/* Somebody may have removed it by hand, and another mqd have made its own. */
	if (fstat(pidfile.fd, &opened) == 0 && lstat(pidfile.path, &named) == 0 &&
	    is_same_file(&opened, &named) && unlink(pidfile.path) == -1)
		r = ftruncate(pidfile.fd, 0);
	int e = errno;
	close(pidfile.fd);
	pidfile.fd = -1;
	errno = e;
	return r;
}

int
core_raise_limit(void)
{
	struct rlimit limit = {.rlim_cur = RLIM_INFINITY, .rlim_max = RLIM_INFINITY};

	/* root may have more than it was given. */
	if (setrlimit(RLIMIT_CORE, &limit) == 0)
		return 0;
	if (getrlimit(RLIMIT_CORE, &limit) == -1)
		return -1;
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_CORE, &limit) == -1)
		return -1;
	if (limit.rlim_cur == 0) {
		errno = EPERM;
		return -1;
	}
	return 0;
}

void
core_allow(void)
{
#if defined(__linux__) && !defined(MQ_PORTABLE)
	prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
#endif
}
