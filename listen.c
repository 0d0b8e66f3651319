/*
 * listen.c: sockets to accept on, and the processes that serve what is accepted.
 *
 * One parent accepts and forks a worker for each connection. The parent never opens a
 * queue while it may fork: a flock belongs to the open file, which a child would share.
 * When a worker is killed the parent puts back at once what the worker had claimed.
 */
#include "listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "log.h"
#include "number.h"

static int
listen_on(struct listeners *l, int fd, const struct sockaddr *address, socklen_t len)
{
	int on = 1;

	if (l->n == LISTEN_MAX) {
		close(fd);
		errno = ENFILE;
		return -1;
	}
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (address->sa_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
	if (bind(fd, address, len) == -1 || listen(fd, LISTEN_BACKLOG) == -1) {
		int e = errno;
		close(fd);
		errno = e;
		return -1;
	}
	l->fds[l->n++] = fd;
	return 0;
}

/* Split `address` into host and port: "1.2.3.4", "1.2.3.4:5", "::1", "[::1]:5". */
static int
split_address(const char *address, char *host, size_t size, uint16_t *port)
{
	const char *colon = strrchr(address, ':'), *end = address + strlen(address);
	bool brackets = address[0] == '[';
	uint64_t n;

	if (brackets) {
		const char *close_bracket = strchr(address++, ']');
		if (close_bracket == NULL || (close_bracket[1] != '\0' && close_bracket[1] != ':'))
			return -1;
		end = close_bracket;
		colon = close_bracket[1] == ':' ? close_bracket + 1 : NULL;
	} else if (colon != NULL && strchr(address, ':') != colon) {
		colon = NULL; /* a bare IPv6 address */
	} else if (colon != NULL) {
		end = colon;
	}
	if (colon != NULL) {
		if (number_parse(colon + 1, strlen(colon + 1), UINT16_MAX, &n) == -1 || n == 0)
			return -1;
		*port = (uint16_t)n;
	}
	if (end == address || (size_t)(end - address) >= size)
		return -1;
	memcpy(host, address, (size_t)(end - address));
	host[end - address] = '\0';
	return 0;
}

int
listen_tcp(struct listeners *l, const char *address, uint16_t port)
{
	char host[64];
	struct sockaddr_in in4 = {.sin_family = AF_INET};
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
	int fd;

	if (split_address(address, host, sizeof host, &port) == -1) {
		errno = EINVAL;
		return -1;
	}
	in4.sin_port = in6.sin6_port = htons(port);
	if (strcmp(host, "localhost") == 0)
		strcpy(host, "127.0.0.1");
	if (strcmp(host, "*") == 0) {
		/* Both families; a system without IPv6 has the first. */
		in4.sin_addr.s_addr = htonl(INADDR_ANY);
		fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (fd == -1 || listen_on(l, fd, (struct sockaddr *)&in4, sizeof in4) == -1)
			return -1;
		fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
		return fd == -1 ? 0 : listen_on(l, fd, (struct sockaddr *)&in6, sizeof in6);
	}
	if (inet_pton(AF_INET, host, &in4.sin_addr) == 1) {
		fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		return fd == -1 ? -1 : listen_on(l, fd, (struct sockaddr *)&in4, sizeof in4);
	}
	if (inet_pton(AF_INET6, host, &in6.sin6_addr) == 1) {
		fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
		return fd == -1 ? -1 : listen_on(l, fd, (struct sockaddr *)&in6, sizeof in6);
	}
	errno = EINVAL;
	return -1;
}

int
listen_unix(struct listeners *l, const char *path, mode_t mode)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	struct stat st;
	int fd;

	if (strlen(path) >= sizeof un.sun_path) {
		errno = ENAMETOOLONG;
		return -1;
	}
	strcpy(un.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd == -1)
		return -1;
	if (lstat(path, &st) == 0 && S_ISSOCK(st.st_mode) &&
	    connect(fd, (struct sockaddr *)&un, sizeof un) == -1 && errno == ECONNREFUSED)
		unlink(path);
	close(fd);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd == -1)
		return -1;
	/* The umask is 077, so nobody else gets in between bind and chmod. */
	if (listen_on(l, fd, (struct sockaddr *)&un, sizeof un) == -1)
		return -1;
	return chmod(path, mode);
}

static volatile sig_atomic_t stopping;

static void
on_stop(int sig)
{
	(void)sig;
	stopping = 1;
}

static void
on_child(int sig)
{
	(void)sig; /* it interrupts ppoll */
}

static void
on_worker_stop(int sig)
{
	(void)sig;
	serve_terminate();
}

/* Set handlers that interrupt system calls. */
static void
handle(int sig, void (*handler)(int))
{
	struct sigaction sa = {.sa_handler = handler};

	sigemptyset(&sa.sa_mask);
	sigaction(sig, &sa, NULL);
}

struct workers {
	pid_t *pids;
	uint64_t n, max;
};

/* Messages that a killed worker had claimed go back now rather than with the next get. */
static void
sweep_for_killed(const char *spool_dir, enum spool_sync sync)
{
	/* In a process of its own, because a queue may be locked for long. */
	if (fork() != 0)
		return;
	struct spool *sp = spool_new(spool_dir, sync);
	uint64_t n = sp == NULL ? 0 : spool_sweep(sp);
	if (n > 0)
		log_error("%llu messages of killed workers put back", (unsigned long long)n);
	_exit(0);
}

static void
reap(struct workers *w, const char *spool_dir, enum spool_sync sync)
{
	bool killed = false;
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		for (uint64_t i = 0; i < w->n; i++)
			if (w->pids[i] == pid) {
				w->pids[i] = w->pids[--w->n];
				break;
			}
		if (WIFSIGNALED(status)) {
			log_error("worker %ld was killed by signal %d", (long)pid,
			          WTERMSIG(status));
			killed = true;
		}
	}
	if (killed)
		sweep_for_killed(spool_dir, sync);
}

/* The child's whole life. */
_Noreturn static void
work(const struct listeners *l, int fd, const char *spool_dir, enum spool_sync sync,
     const struct serve_options *options, const sigset_t *mask)
{
	struct spool *sp = spool_new(spool_dir, sync);

	for (unsigned i = 0; i < l->n; i++)
		close(l->fds[i]);
	handle(SIGTERM, on_worker_stop);
	handle(SIGINT, on_worker_stop);
	handle(SIGALRM, on_worker_stop);
	handle(SIGCHLD, SIG_DFL);
	sigprocmask(SIG_SETMASK, mask, NULL);
	if (sp == NULL) {
		log_error("no memory to serve a connection");
		_exit(111);
	}
	serve(sp, options, fd, fd);
	_exit(0);
}

/* Mostly the client left, or a process that shares the socket took it. But without
 * descriptors or memory the connection stays where it is: wait, for a worker to end or a
 * second. */
static void
accept_failed(const sigset_t *unblocked)
{
	static bool logged;
	struct timespec second = {.tv_sec = 1};

	if (errno != EMFILE && errno != ENFILE && errno != ENOBUFS && errno != ENOMEM)
		return;
	if (!logged)
		log_error("accept: %s", strerror(errno));
	logged = true;
	ppoll(NULL, 0, &second, unblocked);
}

int
listen_serve(const struct listeners *l, const char *spool_dir, enum spool_sync sync,
             const struct serve_options *options)
{
	struct workers w = {.max = options->max_connections};
	struct pollfd polled[LISTEN_MAX];
	sigset_t blocked, unblocked;
	int r = 0;

	/* Another process may accept what poll told us of; never wait for the next. */
	for (unsigned i = 0; i < l->n; i++) {
		int flags = fcntl(l->fds[i], F_GETFL);
		if (flags == -1 || fcntl(l->fds[i], F_SETFL, flags | O_NONBLOCK) == -1)
			return -1;
	}
	w.pids = calloc(w.max, sizeof *w.pids);
	if (w.pids == NULL)
		return -1;
	handle(SIGTERM, on_stop);
	handle(SIGINT, on_stop);
	handle(SIGCHLD, on_child);
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGTERM);
	sigaddset(&blocked, SIGINT);
	sigaddset(&blocked, SIGCHLD);
	/* Signals arrive in ppoll alone, so none is missed between a look and a wait. */
	sigprocmask(SIG_BLOCK, &blocked, &unblocked);
	for (unsigned i = 0; i < l->n; i++)
		polled[i] = (struct pollfd){.fd = l->fds[i], .events = POLLIN};
	while (!stopping) {
		reap(&w, spool_dir, sync);
		/* With all workers busy the next connection waits in the kernel's queue.
		 */
		if (ppoll(polled, w.n < w.max ? l->n : 0, NULL, &unblocked) == -1) {
			if (errno == EINTR)
				continue;
			r = -1;
			break;
		}
		for (unsigned i = 0; i < l->n && w.n < w.max; i++) {
			if (polled[i].revents == 0)
				continue;
			int fd = accept(l->fds[i], NULL, NULL);
			if (fd == -1) {
				accept_failed(&unblocked);
				continue;
			}
			pid_t pid = fork();
			if (pid == 0)
				work(l, fd, spool_dir, sync, options, &unblocked);
			if (pid == -1)
				log_error("fork: %s", strerror(errno));
			else
				w.pids[w.n++] = pid;
			close(fd);
		}
	}
	for (uint64_t i = 0; i < w.n; i++)
		kill(w.pids[i], SIGTERM);
	while (w.n > 0) {
		reap(&w, spool_dir, sync);
		if (w.n > 0)
			ppoll(NULL, 0, NULL, &unblocked);
	}
	free(w.pids);
	return r;
}
