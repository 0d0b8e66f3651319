/*
 * floor-server: what a server costs that stores nothing. It speaks just enough of the memcache
 * protocol for the load generator, and exists in the three ways in which mqd is started, so
 * that a figure of mqd can be read as a part of what its way of being started leaves:
 *
 *     floor-server                     the connection is standard input, from a super-server
 *     floor-server fork PORT           accepts on 127.0.0.1:PORT, forks for each connection
 *     floor-server pool PORT WORKERS   that many processes wait in accept, each serves one
 *                                      connection at a time
 *     floor-server files PORT DIR      as fork, and each value is a file for as long as it waits:
 *                                      written over and renamed into DIR by set, opened, renamed
 *                                      out of it and read by get. No number, no lock, no check:
 *                                      what no queue with a file for each message can beat, if
 *                                      renames are what moves them
 *     floor-server ordered PORT DIR    as files, but all connections share one queue, first in,
 *                                      first out: what waits is named by a number, which a
 *                                      counter in a file gives out under flock. What order
 *                                      costs a process for each connection, and nothing else
 *     floor-server ordered - DIR       the same for one connection, from a super-server
 *
 * But in `ordered`, a connection gets back the last value that it has set itself (as of a cache: the generator's
 * protocol "memcached"), and END before it has set one (its protocol "null").
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
	BACKLOG = 1024,
	LINE = 512, /* more than any line of the generator's */
	VALUE_MAX = (2 << 20) + 2
};

/* The last value that was set, with its CR LF. Memory that is not touched costs nothing. */
static char value[VALUE_MAX];
static size_t value_length;
static char flags[16]; /* 32 bits in decimal */

/* Of `files`: where a value waits, and where its file is before and after. */
static int waiting_dir = -1, claimed_dir = -1, file = -1;
static char file_name[32];

/* Of `ordered`: whose lock keeps the order; the numbers given out by set, and by get. */
static bool ordered;
static int counter_file = -1;
static struct {
	uint64_t set, got;
} counter;

static char input[1 << 16];
static size_t input_start, input_end;

_Noreturn static void
die(const char *what)
{
	fprintf(stderr, "floor-server: %s: %s\n", what, strerror(errno));
	exit(111);
}

/* Returns 0 at the end of the connection. */
static size_t
read_some(int fd, char *to, size_t n)
{
	ssize_t got = read(fd, to, n);

	return got > 0 ? (size_t)got : 0;
}

/* The next line, with its line feed replaced by a NUL; NULL at the end of the connection. */
static char *
read_line(int fd)
{
	for (;;) {
		char *start = input + input_start;
		char *end = memchr(start, '\n', input_end - input_start);
		if (end != NULL) {
			*end = '\0';
			input_start = (size_t)(end - input) + 1;
			return start;
		}
		memmove(input, start, input_end - input_start);
		input_end -= input_start;
		input_start = 0;
		size_t got = read_some(fd, input + input_end, sizeof input - input_end);
		if (got == 0)
			return NULL;
		input_end += got;
	}
}

static int
read_value(int fd, size_t length)
{
	size_t have = input_end - input_start;

	if (length > sizeof value)
		return -1;
	if (have > length)
		have = length;
	memcpy(value, input + input_start, have);
	input_start += have;
	while (have < length) {
		size_t got = read_some(fd, value + have, length - have);
		if (got == 0)
			return -1;
		have += got;
	}
	value_length = length;
	return 0;
}

/* All connections use the two directories, each with a file of its own. */
static int
store_value(void)
{
	if (file == -1)
		file = openat(claimed_dir, file_name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (file == -1 || pwrite(file, value, value_length, 0) != (ssize_t)value_length ||
	    renameat(claimed_dir, file_name, waiting_dir, file_name) == -1)
		return -1;
	close(file);
	file = -1;
	return 0;
}

static int
take_value(void)
{
	file = openat(waiting_dir, file_name, O_RDWR | O_CLOEXEC);
	if (file == -1 || renameat(waiting_dir, file_name, claimed_dir, file_name) == -1)
		return -1;
	return pread(file, value, value_length, 0) == (ssize_t)value_length ? 0 : -1;
}

static int
lock_counter(void)
{
	return flock(counter_file, LOCK_EX) == 0 &&
	               pread(counter_file, &counter, sizeof counter, 0) != -1
	           ? 0
	           : -1;
}

static int
unlock_counter(void)
{
	return pwrite(counter_file, &counter, sizeof counter, 0) == (ssize_t)sizeof counter &&
	               flock(counter_file, LOCK_UN) == 0
	           ? 0
	           : -1;
}

static int
append_value(void)
{
	char number[32];
	struct iovec iov[] = {
	    {.iov_base = flags, .iov_len = sizeof flags},
	    {.iov_base = value, .iov_len = value_length},
	};

	if (file == -1)
		file = openat(claimed_dir, file_name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (file == -1 || pwritev(file, iov, 2, 0) == -1 || lock_counter() == -1)
		return -1;
	snprintf(number, sizeof number, "%020ju", (uintmax_t)++counter.set);
	if (renameat(claimed_dir, file_name, waiting_dir, number) == -1 || unlock_counter() == -1)
		return -1;
	close(file);
	file = -1;
	return 0;
}

/* Leaves value_length 0 where nothing waits. */
static int
take_first(void)
{
	char number[32];
	struct iovec iov[] = {
	    {.iov_base = flags, .iov_len = sizeof flags},
	    {.iov_base = value, .iov_len = sizeof value},
	};

	value_length = 0;
	if (lock_counter() == -1)
		return -1;
	if (counter.got == counter.set)
		return flock(counter_file, LOCK_UN);
	snprintf(number, sizeof number, "%020ju", (uintmax_t)++counter.got);
	if (renameat(waiting_dir, number, claimed_dir, file_name) == -1 || unlock_counter() == -1)
		return -1;
	if (file != -1) /* of a get without a set after it */
		close(file);
	file = openat(claimed_dir, file_name, O_RDWR | O_CLOEXEC);
	ssize_t got = preadv(file, iov, 2, 0);
	if (got <= (ssize_t)sizeof flags)
		return -1;
	value_length = (size_t)got - sizeof flags;
	return 0;
}

static void
open_directories(const char *dir)
{
	waiting_dir = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (waiting_dir == -1 || (mkdirat(waiting_dir, ".claim", 0700) == -1 && errno != EEXIST))
		die(dir);
	claimed_dir = openat(waiting_dir, ".claim", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (claimed_dir == -1)
		die(dir);
}

/* Blocking sockets take all of it, but for a client that is gone. */
static int
answer(int fd, struct iovec *iov, int n)
{
	while (n > 0) {
		ssize_t sent = writev(fd, iov, n);
		if (sent == -1)
			return -1;
		for (; n > 0 && (size_t)sent >= iov->iov_len; iov++, n--)
			sent -= (ssize_t)iov->iov_len;
		if (n > 0) {
			iov->iov_base = (char *)iov->iov_base + sent;
			iov->iov_len -= (size_t)sent;
		}
	}
	return 0;
}

static int
answer_text(int fd, char *text)
{
	struct iovec iov = {.iov_base = text, .iov_len = strlen(text)};

	return answer(fd, &iov, 1);
}

static int
set(int in, int out)
{
	static char stored[] = "STORED\r\n";
	unsigned long length;
	char *words[5];
	unsigned n = 0;

	for (char *w = strtok(NULL, " \r"); w != NULL && n < 5; w = strtok(NULL, " \r"))
		words[n++] = w;
	if (n != 4 || strlen(words[1]) >= sizeof flags)
		return -1;
	length = strtoul(words[3], NULL, 10);
	strcpy(flags, words[1]);
	if (read_value(in, length + 2) == -1)
		return -1;
	if (waiting_dir != -1 && (ordered ? append_value() : store_value()) == -1)
		return -1;
	return answer_text(out, stored);
}

static int
get(int fd, const char *name)
{
	static char end[] = "END\r\n";
	char head[3 * LINE];

	if (ordered && take_first() == -1)
		return -1;
	if (value_length == 0)
		return answer_text(fd, end);
	if (waiting_dir != -1 && !ordered && take_value() == -1)
		return -1;
	int n = snprintf(head, sizeof head, "VALUE %s %s %zu\r\n", name, flags, value_length - 2);
	struct iovec iov[] = {
	    {.iov_base = head, .iov_len = (size_t)n},
	    {.iov_base = value, .iov_len = value_length},
	    {.iov_base = end, .iov_len = sizeof end - 1},
	};
	return answer(fd, iov, 3);
}

/* Returns -1 if the client is gone, or says what the generator never does. */
static int
dispatch(char *line, int in, int out)
{
	static char version[] = "VERSION floor\r\n";
	const char *command = strtok(line, " \r");

	if (command == NULL)
		return -1;
	if (strcmp(command, "set") == 0)
		return set(in, out);
	if (strcmp(command, "get") == 0)
		return get(out, strtok(NULL, " \r"));
	return strcmp(command, "version") == 0 ? answer_text(out, version) : -1;
}

static void
serve(int in, int out)
{
	char *line;

	input_start = input_end = value_length = 0;
	snprintf(file_name, sizeof file_name, "%ld", (long)getpid());
	if (ordered) { /* a lock belongs to what was opened: each opens its own */
		counter_file = openat(claimed_dir, "counter", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		if (counter_file == -1)
			die("counter");
	}
	while ((line = read_line(in)) != NULL && dispatch(line, in, out) == 0)
		;
	if (ordered && file != -1)
		unlinkat(claimed_dir, file_name, 0);
}

static int
listen_on(const char *port)
{
	struct sockaddr_in to = {.sin_family = AF_INET};
	int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);

	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	to.sin_port = htons((uint16_t)strtoul(port, NULL, 10));
	if (fd == -1 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == -1 ||
	    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == -1 ||
	    bind(fd, (struct sockaddr *)&to, sizeof to) == -1 || listen(fd, BACKLOG) == -1)
		die(port);
	return fd;
}

static int
accept_one(int listener)
{
	int fd;

	while ((fd = accept(listener, NULL, NULL)) == -1)
		if (errno != EINTR && errno != ECONNABORTED)
			die("accept");
	return fd;
}

_Noreturn static void
serve_forking(int listener)
{
	signal(SIGCHLD, SIG_IGN); /* nobody waits for the children */
	for (;;) {
		int fd = accept_one(listener);
		pid_t pid = fork();
		if (pid == -1)
			die("fork");
		if (pid == 0) {
			close(listener);
			serve(fd, fd);
			_exit(0);
		}
		close(fd);
	}
}

_Noreturn static void
serve_pool(int listener, unsigned long workers)
{
	pid_t parent = getpid();

	for (unsigned long i = 0; i < workers; i++) {
		pid_t pid = fork();
		if (pid == -1)
			die("fork");
		if (pid > 0)
			continue;
		prctl(PR_SET_PDEATHSIG, SIGTERM);
		while (getppid() == parent) {
			int fd = accept_one(listener);
			serve(fd, fd);
			close(fd);
		}
		_exit(0);
	}
	for (;;)
		pause();
}

int
main(int argc, char *argv[])
{
	signal(SIGPIPE, SIG_IGN); /* write says so, too */
	if (argc == 1)
		serve(STDIN_FILENO, STDOUT_FILENO);
	else if (argc == 3 && strcmp(argv[1], "fork") == 0)
		serve_forking(listen_on(argv[2]));
	else if (argc == 4 && strcmp(argv[1], "pool") == 0)
		serve_pool(listen_on(argv[2]), strtoul(argv[3], NULL, 10));
	else if (argc == 4 && (strcmp(argv[1], "files") == 0 || strcmp(argv[1], "ordered") == 0)) {
		open_directories(argv[3]);
		ordered = strcmp(argv[1], "ordered") == 0;
		if (strcmp(argv[2], "-") == 0)
			serve(STDIN_FILENO, STDOUT_FILENO);
		else
			serve_forking(listen_on(argv[2]));
	} else {
		fputs("usage: floor-server [fork port | pool port workers | files port dir | "
		      "ordered port dir | ordered - dir]\n",
		      stderr);
		return 100;
	}
	return 0;
}
