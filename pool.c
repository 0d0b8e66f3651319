/*
 * pool.c: processes that wait for connections and serve them.
 *
 * The parent forks workers and accepts nothing itself. Workers wait on the listening sockets; one
 * is woken for each connection, serves it to its end, with what it has opened for those before,
 * and waits again. In memory that all share each has a byte that says whether it is idle. A
 * worker that takes a connection counts the idle ones, and wakes the parent if fewer are left
 * than shall be: the parent forks until there are enough, or as many workers as there may be. Then
 * connections wait in the kernel. While enough are idle the parent sleeps.
 *
 * A worker that has served and then has had nothing to do for REST_MS ends. Thus the pool shrinks
 * after a burst, and nothing that a worker has open, like a queue that was deleted meanwhile, is
 * held for ever. One that has served nobody has nothing open, and stays unless it is one too many.
 *
 * A pair of sockets leads from the parent to all workers. They write to it to wake the parent; its
 * end tells them to take no further connection, also when the parent was killed. Busy ones are told
 * of that by a signal, where the system has one, and close the listening sockets.
 *
 * A worker may be killed at any instruction. Nothing is kept that this could make wrong: idle
 * workers are counted, not remembered, and the parent clears the byte of one that has died. The
 * kernel wakes one worker for a connection: one that dies before it has accepted, or does not want
 * to, is always replaced, because a worker that begins to wait finds what is waiting already.
 *
 * The parent never opens a queue: a flock belongs to the open file, which a child would share.
 * When a worker was killed it forks a process that puts back at once what that had claimed.
 */
#include "pool.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "connection.h"
#include "log.h"
#include "os.h"

_Static_assert(LISTEN_MAX <= OS_WAIT_MAX, "all sockets can be waited on");

#define REST_MS 5000 /* idle after a connection, until a worker ends */
#define BACKLOG_MAX 65535
#define RETRY_MS 1000 /* until something is tried again that the system had no room for */

enum { RESTED, REPLACE };                    /* exit status of a worker */
enum worker_state { NONE, NEW, IDLE, BUSY }; /* NEW: idle, and has served nobody yet */

struct shared {
	_Atomic uint64_t left_ms; /* when a connection ended last */
	_Atomic size_t slots;     /* the states from here on are NONE */
	atomic_bool asked;        /* the parent has been woken for more workers */
	atomic_bool full;         /* there are as many as there may be */
	atomic_bool told;         /* and it was logged that all are busy */
	_Atomic unsigned char states[];
};

struct pool {
	const struct listeners *listeners;
	const char *spool_dir;
	enum spool_sync sync;
	const struct serve_options *serve;
	size_t spares, max, n;
	uint64_t idle_timeout_ms;
	pid_t *pids;         /* by slot, 0 = none */
	size_t owed;         /* workers that must be replaced */
	uint64_t rest_until; /* none is started before that */
	pid_t parent;
	int parent_end, worker_end;
	sigset_t unblocked; /* the signal mask that we were started with */
	struct shared *shared;
};

static volatile sig_atomic_t stopping;
static const struct listeners *volatile orphaned_from; /* what on_orphaned closes, once */

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
close_all(const struct listeners *l)
{
	for (unsigned i = 0; i < l->n; i++)
		close(l->fds[i]);
}

/* The parent was killed. This process may be busy for long: nobody shall wait in vain for it to
 * accept, nor find the address in use. */
static void
on_orphaned(int sig)
{
	const struct listeners *l = orphaned_from;

	(void)sig;
	orphaned_from = NULL; /* who adopted us may die, too, when these are other files */
	if (l != NULL)
		close_all(l);
}

static void
on_worker_stop(int sig)
{
	stopping = 1;
	serve_terminate(sig);
}

/* Set a handler; SA_RESTART in `flags`, or it interrupts system calls. */
static void
handle(int sig, void (*handler)(int), int flags)
{
	struct sigaction sa = {.sa_handler = handler, .sa_flags = flags};

	sigemptyset(&sa.sa_mask);
	sigaction(sig, &sa, NULL);
}

/* How many workers are idle; no more than `enough` are counted. */
static size_t
count_idle(struct shared *s, size_t enough)
{
	size_t n = 0, slots = s->slots;

	for (size_t i = 0; i < slots && n < enough; i++)
		n += s->states[i] == NEW || s->states[i] == IDLE;
	return n;
}

static void
tell_all_busy(const struct pool *p)
{
	if (!atomic_exchange(&p->shared->told, true))
		log_error("all %zu workers are busy: further connections wait", p->max);
}

/*
 * A worker
 */

/* Its slot says BUSY. Are enough others idle? */
static void
ask_for_more(const struct pool *p)
{
	struct shared *s = p->shared;
	size_t idle = count_idle(s, p->spares);

	if (s->full) {
		if (idle == 0)
			tell_all_busy(p);
	} else if (idle < p->spares && !atomic_exchange(&s->asked, true) &&
	           send(p->worker_end, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL) == -1 &&
	           getppid() == p->parent) {
		kill(p->parent, SIGCHLD); /* without memory; this wakes it, too */
	}
}

struct worker {
	const struct pool *pool;
	bool served;        /* somebody, ever */
	uint64_t rest_at;   /* when it ends if nobody comes; 0: never */
	struct stat opened; /* the spool that it uses; st_ino 0: none yet */
	int set;            /* of os_wait_accept */
};

/* Has another directory taken the place of the spool that this process has opened? */
static bool
spool_was_replaced(const struct worker *w)
{
	struct stat st;

	return w->opened.st_ino != 0 &&
	       (stat(w->pool->spool_dir, &st) == -1 || st.st_ino != w->opened.st_ino ||
	        st.st_dev != w->opened.st_dev);
}

/* Mostly the client left, or another worker took it. But without descriptors or memory the
 * connection stays where it is: wait, for somebody to give some back. */
static void
accept_failed(const struct worker *w)
{
	static bool logged;
	struct pollfd end = {.fd = w->pool->worker_end, .events = POLLIN};

	if (errno != EMFILE && errno != ENFILE && errno != ENOBUFS && errno != ENOMEM)
		return;
	if (!logged)
		log_error("accept: %s", strerror(errno));
	logged = true;
	if (w->served)
		_exit(REPLACE); /* and close what was kept open for the next one */
	poll(&end, 1, RETRY_MS);
}

/* Accept from the sockets that are ready, as the bits say; from each in turn. */
static int
accept_one(const struct listeners *l, int ready)
{
	static unsigned turn;
	int fd = -1;

	errno = EAGAIN;
	for (unsigned i = 0; i < l->n && fd == -1; i++) {
		turn = (turn + 1) % l->n;
		if (ready & 1 << turn)
			fd = accept(l->fds[turn], NULL, NULL);
	}
	return fd;
}

/* Wait until rest_at. Returns what is ready, as os_wait_accept does. */
static int
wait_ready(struct worker *w)
{
	const struct listeners *l = w->pool->listeners;
	uint64_t now = w->rest_at == 0 ? 0 : os_monotonic_ms();
	int wait_ms = w->rest_at == 0 ? -1 : now < w->rest_at ? (int)(w->rest_at - now) : 0;
	int ready = os_wait_accept(&w->set, l->fds, l->n, w->pool->worker_end, wait_ms);

	if (ready == -1 && errno != EINTR) {
		log_error("waiting for connections: %s", strerror(errno));
		poll(NULL, 0, RETRY_MS);
		_exit(REPLACE);
	}
	return ready;
}

/* The next connection, or this process ends. */
static int
next_connection(struct worker *w)
{
	const struct pool *p = w->pool;

	while (!stopping) {
		int ready = wait_ready(w);
		if (ready == -1)
			continue;
		if (ready == 0) {
			if (w->served || count_idle(p->shared, p->spares + 1) > p->spares)
				_exit(RESTED);
			w->rest_at = 0;
			continue;
		}
		if (ready & 1 << p->listeners->n || spool_was_replaced(w))
			break;
		int fd = accept_one(p->listeners, ready);
		if (fd != -1)
			return fd;
		accept_failed(w);
	}
	_exit(REPLACE);
}

/* The child's whole life. */
_Noreturn static void
work(const struct pool *p, size_t slot)
{
	struct worker w = {.pool = p, .rest_at = os_monotonic_ms() + REST_MS, .set = -1};
	struct spool *sp;

	close(p->parent_end);
	free(p->pids); /* the parent's business */
	orphaned_from = p->listeners;
	handle(SIGUSR1, on_orphaned, SA_RESTART);
	os_signal_when_orphaned(SIGUSR1, p->parent);
	handle(SIGTERM, on_worker_stop, 0);
	handle(SIGINT, on_worker_stop, 0);
	handle(SIGALRM, on_worker_stop, 0);
	handle(SIGCHLD, SIG_DFL, 0);
	sigprocmask(SIG_SETMASK, &p->unblocked, NULL);
	sp = spool_at(p->spool_dir, p->sync);
	for (;;) {
		int fd = next_connection(&w);
		p->shared->states[slot] = BUSY;
		ask_for_more(p);
		bool let_in = serve(sp, p->serve, fd, fd);
		close(fd);
		if (let_in && w.opened.st_ino == 0)
			fstat(spool_dirfd(sp), &w.opened);
		w.served = true;
		p->shared->left_ms = os_monotonic_ms();
		w.rest_at = p->shared->left_ms + REST_MS;
		p->shared->states[slot] = IDLE;
	}
}

/*
 * The parent
 */

static bool
start_worker(struct pool *p)
{
	static bool logged;
	struct shared *s = p->shared;
	size_t slot = 0;

	while (p->pids[slot] != 0)
		slot++;
	if (slot >= s->slots)
		s->slots = slot + 1;
	s->states[slot] = NEW;
	pid_t pid = fork();
	if (pid == 0)
		work(p, slot);
	if (pid == -1) {
		s->states[slot] = NONE;
		if (!logged)
			log_error("fork: %s", strerror(errno));
		logged = true;
		return false;
	}
	logged = false;
	p->pids[slot] = pid;
	p->n++;
	if (p->owed > 0)
		p->owed--;
	return true;
}

/* Have enough idle workers. Returns false if some could not be started. */
static bool
keep_spares(struct pool *p)
{
	struct shared *s = p->shared;
	bool ok = p->rest_until == 0 || os_monotonic_ms() >= p->rest_until;

	/* Before the idle are counted: a worker that is not counted any more asks for another, unless
	 * it is told that there may be no more. */
	s->asked = false;
	s->full = p->n == p->max;
	while (ok && p->n < p->max && (p->owed > 0 || count_idle(s, p->spares) < p->spares))
		ok = start_worker(p);
	s->full = p->n == p->max;
	if (s->full && count_idle(s, 1) == 0)
		tell_all_busy(p);
	return ok;
}

/* Messages that a killed worker had claimed go back now rather than with the next get. */
static void
sweep_for_killed(const struct pool *p)
{
	/* In a process of its own, because a queue may be locked for long. */
	if (fork() != 0)
		return;
	os_signal_when_orphaned(SIGTERM, p->parent);
	handle(SIGTERM, SIG_DFL, 0); /* it holds nothing that its death would not release */
	sigprocmask(SIG_SETMASK, &p->unblocked, NULL);
	close(p->parent_end);
	close_all(p->listeners);
	uint64_t n = spool_sweep(spool_at(p->spool_dir, p->sync));
	if (n > 0)
		log_error("%llu messages of killed workers put back", (unsigned long long)n);
	_exit(0);
}

static void
reap(struct pool *p)
{
	struct shared *s = p->shared;
	bool killed = false;
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		size_t slot = 0;
		while (slot < s->slots && p->pids[slot] != pid)
			slot++;
		if (slot == s->slots)
			continue; /* it swept, or was not ours */
		bool served = s->states[slot] != NEW;
		p->pids[slot] = 0;
		s->states[slot] = NONE;
		while (s->slots > 0 && p->pids[s->slots - 1] == 0)
			s->slots--;
		p->n--;
		if (!WIFEXITED(status) || WEXITSTATUS(status) != RESTED)
			p->owed++;
		else
			s->told = false;
		if (WIFSIGNALED(status)) {
			log_often("worker %ld was killed by signal %d", (long)pid,
			          WTERMSIG(status));
			killed = true;
			if (!served) /* perhaps none can live here */
				p->rest_until = os_monotonic_ms() + RETRY_MS;
		}
	}
	if (killed)
		sweep_for_killed(p);
}

/* Sleep until a worker asks or ends, a signal comes, or `timeout_ms` (-1: never) is over. */
static void
sleep_until_needed(const struct pool *p, int64_t timeout_ms)
{
	struct pollfd polled = {.fd = p->parent_end, .events = POLLIN};
	struct timespec ts = {.tv_sec = timeout_ms / 1000, .tv_nsec = timeout_ms % 1000 * 1000000};
	char asked[64];

	/* Signals arrive here alone, so none is missed between a look and the wait. */
	if (ppoll(&polled, 1, timeout_ms < 0 ? NULL : &ts, &p->unblocked) == 1)
		while (recv(p->parent_end, asked, sizeof asked, MSG_DONTWAIT) > 0)
			;
}

static bool
is_any_busy(const struct pool *p)
{
	for (size_t i = 0; i < p->shared->slots; i++)
		if (p->shared->states[i] == BUSY)
			return true;
	return false;
}

static int
make_pair(struct pool *p)
{
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == -1)
		return -1;
	p->parent_end = ends[0];
	p->worker_end = ends[1];
	return 0;
}

/* No worker takes a connection from now on; idle ones end. */
static void
accept_no_more(const struct pool *p)
{
	shutdown(p->parent_end, SHUT_WR);
}

/*
 * Let idle workers go and see whether a connection came in meanwhile. Returns true if
 * there is none: then nobody can have accepted one since. Else its worker ends with it, and
 * others are to be started.
 */
static bool
everybody_left(struct pool *p)
{
	struct pool old = *p;

	accept_no_more(p);
	while (!stopping && count_idle(p->shared, 1) > 0) {
		sleep_until_needed(p, RETRY_MS);
		reap(p);
	}
	p->owed = 0;
	if (p->n == 0 || stopping)
		return true;
	if (make_pair(p) == -1)
		return true;
	close(old.parent_end);
	close(old.worker_end);
	return false;
}

/* When it is too long that somebody was connected, in milliseconds from now; -1 = never. */
static int64_t
time_left(const struct pool *p)
{
	uint64_t now = os_monotonic_ms(), end = p->shared->left_ms + p->idle_timeout_ms;

	if (p->idle_timeout_ms == 0)
		return -1;
	if (is_any_busy(p))
		return (int64_t)p->idle_timeout_ms; /* that one cannot leave before now */
	return end > now ? (int64_t)(end - now) : 0;
}

static void
run(struct pool *p)
{
	while (!stopping) {
		bool ok = keep_spares(p);
		int64_t left = time_left(p);
		if (left == 0 && everybody_left(p))
			break;
		if (left != 0)
			sleep_until_needed(p, ok ? left : RETRY_MS);
		reap(p);
	}
	accept_no_more(p);
	for (size_t i = 0; i < p->shared->slots; i++)
		if (p->pids[i] != 0)
			kill(p->pids[i], SIGTERM);
	while (p->n > 0) {
		sleep_until_needed(p, -1);
		reap(p);
	}
}

static int
prepare(struct pool *p)
{
	size_t size = sizeof *p->shared + p->max;
	void *shared;

	/* Another worker may accept what one was told of; it must not wait for the next. And
	 * xinetd has room for 64 connections that nobody has accepted yet; the system allows
	 * more, and knows how many. */
	for (unsigned i = 0; i < p->listeners->n; i++) {
		listen(p->listeners->fds[i], BACKLOG_MAX);
		conn_expect(p->listeners->fds[i], p->serve->keepalive);
		int flags = fcntl(p->listeners->fds[i], F_GETFL);
		if (flags == -1 || fcntl(p->listeners->fds[i], F_SETFL, flags | O_NONBLOCK) == -1)
			return -1;
	}
	shared = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		return -1;
	p->shared = shared;
	p->shared->left_ms = os_monotonic_ms();
	if (make_pair(p) == -1)
		return -1;
	p->pids = calloc(p->max, sizeof *p->pids);
	return p->pids == NULL ? -1 : 0;
}

int
pool_serve(const struct listeners *l, const char *spool_dir, enum spool_sync sync,
           const struct serve_options *serve, const struct pool_options *options)
{
	struct pool p = {.listeners = l,
	                 .spool_dir = spool_dir,
	                 .sync = sync,
	                 .serve = serve,
	                 .spares = options->spares,
	                 .parent = getpid(),
	                 .max = serve->max_connections,
	                 .idle_timeout_ms = (uint64_t)options->idle_timeout * 1000};
	sigset_t blocked;

	if (prepare(&p) == -1)
		return -1;
	log_share();
	os_sched_batch(); /* for all workers */
	handle(SIGTERM, on_stop, 0);
	handle(SIGINT, on_stop, 0);
	handle(SIGCHLD, on_child, 0);
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGTERM);
	sigaddset(&blocked, SIGINT);
	sigaddset(&blocked, SIGCHLD);
	sigprocmask(SIG_BLOCK, &blocked, &p.unblocked);
	if (options->ready(options->argument) == -1)
		return -1;
	run(&p);
	close(p.parent_end);
	close(p.worker_end);
	free(p.pids);
	return 0;
}
