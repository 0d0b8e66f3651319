/*
 * drain.c: mqctl import memcacheq://host:port: take the messages of a running server into the spool.
 *
 *     stats, stats queue     what the server is, and which queues it has
 *     get q                  a message, which the server has forgotten then: staged, pushed, next
 *     get q/open, q/close    likewise; but it is the server's until it is ours
 *
 * One connection, one message at a time: the next is asked for when the last is as durable here as a
 * push is. A server that knows Kestrel's reliable get loses nothing, whoever dies: who is killed
 * between our push and the close finds that one message again at the server, and takes it a second
 * time. memcacheq has no such thing. There the message is written to a file with a name while it
 * comes in (stage.c), so that a killed import is gone on with: what a kill -9 can lose is the one
 * message of which not all had been read from the connection yet.
 *
 * ^C is none of that: the message on its way is brought home first.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "client.h"
#include "mqctl.h"
#include "number.h"
#include "progress.h"
#include "queue_name.h"
#include "stage.h"
#include "transfer.h"

/* The one message of a folder: nobody else has it, or the server does until it is told. */
#define TAKEN "1"
#define OPENED "opened"
#define QUEUES_MAX 200000 /* of a server that never stops to tell of them */
#define FULL_WAIT_NS 500000000

static volatile sig_atomic_t interrupted;

static void
on_signal(int sig)
{
	(void)sig;
	interrupted = 1;
}

void
transfer_mind_signals(void)
{
	struct sigaction sa = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};

	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
}

bool
transfer_interrupted(void)
{
	return interrupted != 0;
}

/* A queue of the server's. */
struct remote {
	char name[CLIENT_KEY_MAX + 1]; /* its key */
	uint64_t waiting;              /* by what the server says; for the eyes */
};

struct drain {
	struct spool *spool;
	struct client client;
	const char *address;
	char source[QUEUE_NAME_MAX + 1]; /* the folder of what comes from there */
	struct drain_options options;
	struct remote *queues;
	size_t n, room;
	uint64_t taken;
	int code;
};

__attribute__((format(printf, 3, 4))) static void
complain(struct drain *d, int code, const char *format, ...)
{
	va_list args;

	progress_hide();
	fprintf(stderr, "mqctl: ");
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, "\n");
	if (code > d->code)
		d->code = code;
}

_Noreturn static void
die_client(struct drain *d)
{
	const char *why = client_error(&d->client);

	die(EXIT_SYSTEM, "%s: %s; %" PRIu64 " were taken, run it again to go on", d->address, why,
	    d->taken);
}

static void
add_queue(struct drain *d, const char *name, size_t len, uint64_t waiting)
{
	if (len == 0 || len > CLIENT_KEY_MAX) {
		complain(d, EXIT_NOTHING, "a queue with a name of %zu bytes was left there", len);
		return;
	}
	if (d->n == QUEUES_MAX) {
		errno = EPROTO;
		die_client(d);
	}
	if (d->n == d->room) {
		d->room = d->room == 0 ? 64 : 2 * d->room;
		d->queues = realloc(d->queues, d->room * sizeof *d->queues);
		if (d->queues == NULL)
			die_system("listing queues");
	}
	struct remote *r = &d->queues[d->n++];
	memcpy(r->name, name, len);
	r->name[len] = '\0';
	r->waiting = waiting;
}

/* STAT name put/taken, of `stats queue`. The name may be anything, so it is read from behind. */
static bool
is_count(const char *stat, size_t *len, uint64_t *waiting)
{
	const char *space = strrchr(stat, ' '), *slash = space == NULL ? NULL : strchr(space, '/');
	uint64_t put, taken;

	if (slash == NULL ||
	    number_parse(space + 1, (size_t)(slash - space - 1), UINT64_MAX, &put) == -1 ||
	    number_parse(slash + 1, strlen(slash + 1), UINT64_MAX, &taken) == -1)
		return false;
	*len = (size_t)(space - stat);
	*waiting = put > taken ? put - taken : 0;
	return true;
}

/* STAT queue_name_open_transactions n, which Kestrel has for each queue, and mqd. */
static bool
is_kestrel(const char *stat, const char **name, size_t *len)
{
	const char *space = strchr(stat, ' '), *head = "queue_", *tail = "_open_transactions";
	size_t n = space == NULL ? 0 : (size_t)(space - stat);

	if (n <= strlen(head) + strlen(tail) || strncmp(stat, head, strlen(head)) != 0 ||
	    memcmp(space - strlen(tail), tail, strlen(tail)) != 0)
		return false;
	*name = stat + strlen(head);
	*len = n - strlen(head) - strlen(tail);
	return true;
}

static void
ask(struct drain *d, const char *command, bool want_queues)
{
	char line[CLIENT_LINE_MAX];
	const char *name;
	uint64_t waiting;
	size_t len;

	if (client_send(&d->client, command, strlen(command)) == -1)
		die_client(d);
	for (;;) {
		if (client_line(&d->client, line, sizeof line) == -1)
			die_client(d);
		if (strcmp(line, "END") == 0 || strcmp(line, "ERROR") == 0)
			return;
		if (strncmp(line, "STAT ", 5) != 0) {
			errno = EPROTO;
			die_client(d);
		}
		if (want_queues && is_count(line + 5, &len, &waiting))
			add_queue(d, line + 5, len, waiting);
		else if (!want_queues && is_kestrel(line + 5, &name, &len))
			d->options.reliable = !d->options.plain;
	}
}

static int
by_queue_name(const void *a, const void *b)
{
	const struct remote *x = a, *y = b;

	return strcmp(x->name, y->name);
}

static uint64_t
known_waiting(const struct drain *d, const char *name)
{
	for (size_t i = 0; i < d->n; i++)
		if (strcmp(d->queues[i].name, name) == 0)
			return d->queues[i].waiting;
	return 0;
}

/* What to drain: the queues that are named, as the server has them, or all that it tells of. */
static void
choose_queues(struct drain *d, int argc, char *argv[])
{
	struct drain asked = {0};

	if (!d->options.reliable && !d->options.plain)
		ask(d, "stats\r\n", false);
	ask(d, "stats queue\r\n", true);
	if (d->n > 0)
		qsort(d->queues, d->n, sizeof *d->queues, by_queue_name);
	for (int i = 0; i < argc; i++)
		add_queue(&asked, argv[i], strlen(argv[i]), known_waiting(d, argv[i]));
	if (argc == 0)
		return;
	free(d->queues);
	d->queues = asked.queues;
	d->n = asked.n;
}

/* Nobody else has the message any more. Where there is no room for it we wait, for somebody to make
 * some, or to tell us twice that he does not want it. Returns false if that is no help. */
static bool
wait_for_room(struct drain *d, bool *told)
{
	if (d->options.reliable || (errno != ENOSPC && errno != EDQUOT))
		return false;
	if (!*told)
		complain(d, 0, "the disk is full, and a message is on its way: make room");
	*told = true;
	nanosleep(&(struct timespec){.tv_nsec = FULL_WAIT_NS}, NULL);
	return true;
}

static int
write_body(struct drain *d, struct stage *s, const void *data, size_t len)
{
	bool told = false;

	while (stage_write(s, data, len) == -1)
		if (!wait_for_room(d, &told))
			return -1;
	return 0;
}

/* Write a body to the stage while it comes in. Of spaces at the end nobody knows that they are it
 * until something else comes, or nothing. */
static int
receive_body(struct drain *d, struct stage *s, uint64_t bytes)
{
	char spaces[4096];
	uint64_t held = 0;
	const char *data;

	memset(spaces, ' ', sizeof spaces);
	for (uint64_t left = bytes; left > 0;) {
		int64_t n = client_take(&d->client, &data, left);
		if (n == -1)
			die_client(d);
		left -= (uint64_t)n;
		size_t keep = (size_t)n;
		while (d->options.strip_padding && keep > 0 && data[keep - 1] == ' ')
			keep--;
		for (uint64_t m; keep > 0 && held > 0; held -= m) {
			m = held < sizeof spaces ? held : sizeof spaces;
			if (write_body(d, s, spaces, (size_t)m) == -1)
				return -1;
		}
		if (write_body(d, s, data, keep) == -1)
			return -1;
		held += (uint64_t)n - keep;
	}
	return 0;
}

_Noreturn static void
die_writing(const struct drain *d)
{
	die_system(d->options.reliable ? "writing a message, which the server has still"
	                               : "writing a message that was taken, which is lost");
}

static void
expect(struct drain *d, const char *what)
{
	char line[64];

	if (client_line(&d->client, line, sizeof line) == -1)
		die_client(d);
	if (strcmp(line, what) != 0) {
		errno = EPROTO;
		die_client(d);
	}
}

static const char *
staged_name(const struct drain *d)
{
	return d->options.reliable ? OPENED : TAKEN;
}

enum got { GOT_ONE, GOT_NONE, GOT_REFUSAL };

/* Ask for a message, and have it under its name in the stage. */
static enum got
fetch(struct drain *d, const struct remote *q, const char *queue, int dirfd)
{
	char line[CLIENT_LINE_MAX], key[CLIENT_KEY_MAX + 16];
	struct client_value v;
	struct stage s;
	int len;

	len = snprintf(key, sizeof key, "%s%s", q->name, d->options.reliable ? "/open" : "");
	snprintf(line, sizeof line, "get %s\r\n", key);
	if (stage_begin(&s, dirfd) == -1) /* before it is ours to lose */
		die_system("staging a message");
	if (client_send(&d->client, line, strlen(line)) == -1 ||
	    client_line(&d->client, line, sizeof line) == -1)
		die_client(d);
	if (strcmp(line, "END") == 0) {
		stage_abort(&s);
		return GOT_NONE;
	}
	if (strncmp(line, "VALUE ", 6) != 0 && strstr(line, "ERROR") != NULL) {
		make_printable(line);
		complain(d, EXIT_SYSTEM, "%s: it says: %s", queue, line);
		stage_abort(&s);
		return GOT_REFUSAL;
	}
	/* Kestrel leaves the option out of the key. */
	if (!client_value(line, &v) || strncmp(v.key, key, v.key_len) != 0 ||
	    (v.key_len != (size_t)len && v.key_len != strlen(q->name))) {
		errno = EPROTO;
		die_client(d);
	}
	s.message.flags = v.flags;
	if (receive_body(d, &s, v.bytes) == -1)
		die_writing(d);
	char end[2];
	const char *data;
	for (int64_t at = 0, n; at < 2; at += n) {
		if ((n = client_take(&d->client, &data, (uint64_t)(2 - at))) == -1)
			die_client(d);
		memcpy(end + at, data, (size_t)n);
	}
	if (memcmp(end, "\r\n", 2) != 0) {
		errno = EPROTO;
		die_client(d);
	}
	for (bool told = false; stage_end(&s, staged_name(d)) == -1;)
		if (!wait_for_room(d, &told))
			die_system(d->options.reliable
			               ? "staging a message, which the server has still"
			               : "staging a message that was taken; run it again");
	return GOT_ONE;
}

/* A staged message into its queue. */
static void
push(struct drain *d, const char *queue, int dirfd, const char *name)
{
	struct message m;
	uint32_t crc;
	int r = stage_read(dirfd, name, &m, &crc);

	if (r == 1)
		r = stage_push(d->spool, queue, dirfd, name, &m, crc, 0);
	if (r == 0)
		return;
	const char *why = r == 1 ? "full" : spool_strerror(errno);
	if (strcmp(name, OPENED) == 0) {
		unlinkat(dirfd, OPENED, 0);
		stage_remove(d->spool, d->source, queue);
		die(EXIT_SYSTEM, "%s: %s; %" PRIu64 " were taken, run it again to go on", queue,
		    why, d->taken);
	}
	die(EXIT_SYSTEM,
	    "%s: %s; one message waits in .import/%s/%s, and goes first when you run it again",
	    queue, why, d->source, queue);
}

/* What a killed one has left, whatever server there was then: what that has still comes again. */
static void
resume(struct drain *d, const char *queue, int dirfd)
{
	struct message m;
	uint32_t crc;

	unlinkat(dirfd, OPENED, 0);
	if (stage_is_pushed(d->spool, queue, dirfd, TAKEN) == -1 ||
	    (!d->options.reliable && stage_adopt(dirfd, TAKEN) == -1))
		die_system("what an earlier run has left");
	int64_t torn = stage_clear(dirfd);
	/* After a power loss. */
	if (stage_read(dirfd, TAKEN, &m, &crc) == -1 && errno == EILSEQ) {
		complain(d, 0, "%s: the last message is damaged: .import/%s/%s/torn", queue,
		         d->source, queue);
		renameat(dirfd, TAKEN, dirfd, "torn");
	}
	if (torn >= 0 && !d->options.reliable)
		complain(
		    d, 0,
		    "%s: if a message was coming in when this was killed it is lost, unless the "
		    "server has it; %" PRId64 " bytes of it were here",
		    queue, torn);
	push(d, queue, dirfd, TAKEN);
}

static void
drain_queue(struct drain *d, const struct remote *q)
{
	char queue[QUEUE_NAME_MAX + 1], text[QUEUE_NAME_MAX + 32];
	char close_command[CLIENT_KEY_MAX + 16];

	/* It goes into a command as it is; and what stands behind a slash is no part of a name here. */
	if (!client_is_key(q->name) || queue_name_encode(q->name, strlen(q->name), queue) == -1) {
		strcpy(text, q->name);
		make_printable(text);
		complain(d, EXIT_NOTHING, "%s: cannot be a queue here, and is left there", text);
		return;
	}
	int dirfd = stage_open(d->spool, d->source, queue);
	if (dirfd == -1 && errno == EWOULDBLOCK)
		die(EXIT_SYSTEM, "%s: another mqctl is taking it", queue);
	if (dirfd == -1)
		die_system(queue);
	resume(d, queue, dirfd);
	snprintf(close_command, sizeof close_command, "get %s/close\r\n", q->name);
	snprintf(text, sizeof text, "taking %s", queue);
	progress_begin(text, q->waiting);
	while (!transfer_interrupted() && fetch(d, q, queue, dirfd) == GOT_ONE) {
		push(d, queue, dirfd, staged_name(d));
		expect(d, "END");
		if (d->options.reliable) {
			if (client_send(&d->client, close_command, strlen(close_command)) == -1)
				die_client(d);
			expect(d, "END");
		}
		d->taken++;
		progress_step(1);
	}
	progress_end();
	stage_remove(d->spool, d->source, queue); /* while it is locked */
	close(dirfd);
}

int
drain(struct spool *sp, const char *address, const struct drain_options *o, int argc, char *argv[])
{
	static struct drain d;
	char host[256];
	unsigned port;

	d = (struct drain){.spool = sp, .address = address, .options = *o};
	if (client_address(address, host, sizeof host, &port) == -1)
		die(EXIT_USAGE, "%s: not host:port, [ip6]:port or /path", address);
	for (char *p = host; *p != '\0'; p++)
		*p = *p == '/' ? ',' : *p;
	snprintf(d.source, sizeof d.source, "from,%.200s,%u", host, port);
	transfer_mind_signals();
	if (client_open(&d.client, address) == -1)
		die_client(&d);
	choose_queues(&d, argc, argv);
	for (size_t i = 0; i < d.n && !transfer_interrupted(); i++)
		drain_queue(&d, &d.queues[i]);
	client_close(&d.client);
	free(d.queues);
	printf("%" PRIu64 "\n", d.taken);
	if (transfer_interrupted())
		die(EXIT_SYSTEM, "interrupted; %" PRIu64 " were taken, run it again to go on",
		    d.taken);
	return d.code;
}
