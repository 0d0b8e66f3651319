/*
 * mqctl: look at the queues of a spool, and mend them.
 *
 * It works on the files alone, through spool.c and admin.c as mqd does: beside running
 * mqds, or with nothing running. But who holds a message the system tells, see holder.c.
 * Started by root it becomes the owner of the spool first, so that it leaves no file there
 * that mqd cannot open.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "holder.h"
#include "mqctl.h"
#include "number.h"
#include "os.h"
#include "place.h"
#include "queue_name.h"
#include "spool.h"

#define PEEK_MAX 10000 /* messages */
#define PREVIEW 60     /* bytes of body that peek shows */
#define USAGE_WIDTH 23
#define NAME_WIDTH 10 /* of the names of queues in a list, at the least */

void
die(int code, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fprintf(stderr, "mqctl: ");
	vfprintf(stderr, format, args);
	fprintf(stderr, "\n");
	va_end(args);
	exit(code);
}

void
die_system(const char *what)
{
	die(EXIT_SYSTEM, "%s: %s", what, spool_strerror(errno));
}

const char *
queue_arg(const char *arg)
{
	static char dirs[2][QUEUE_NAME_MAX + 1]; /* no command has more */
	static unsigned turn;
	char *dir = dirs[turn++ % 2];

	if (queue_name_read(arg, dir) == -1)
		die(EXIT_USAGE, "%s: cannot be the name of a queue", arg);
	return dir;
}

uint64_t
number_arg(const char *arg)
{
	uint64_t n;

	if (number_parse(arg, strlen(arg), MESSAGE_NUMBER_MAX, &n) == -1)
		die(EXIT_USAGE, "%s: not a number", arg);
	return n;
}

static void
print_age(int64_t since)
{
	int64_t age = (int64_t)time(NULL) - since;
	char text[32];

	if (since == 0)
		strcpy(text, "-");
	else if (age < 120)
		snprintf(text, sizeof text, "%" PRId64 "s", age < 0 ? 0 : age);
	else if (age < 7200)
		snprintf(text, sizeof text, "%" PRId64 "m", age / 60);
	else if (age < 172800)
		snprintf(text, sizeof text, "%" PRId64 "h", age / 3600);
	else
		snprintf(text, sizeof text, "%" PRId64 "d", age / 86400);
	printf(" %6s", text);
}

/* What is known of a queue but needs no column. */
static void
print_notes(const struct queue_stat *st)
{
	const char *between = "  ";

	if (st->bad > 0) {
		printf("%s%" PRIu64 " bad", between, st->bad);
		between = ", ";
	}
	if (st->paused_ms == SPOOL_FOREVER)
		printf("%spaused", between);
	else if (st->paused_ms > 0)
		printf("%spaused %" PRIu64 "s", between, (st->paused_ms + 999) / 1000);
}

/* See each_queue. */
static int
ls_queue(struct spool *sp, const char *queue, int width)
{
	struct queue_stat st;
	int r = spool_stat(sp, queue, &st);

	if (r != 1)
		return r;
	printf("%-*s %8" PRIu64 " %7" PRIu64 " %6" PRIu64 " %7" PRIu64 " %9" PRIu64 " %9" PRIu64
	       " %6" PRIu64 " %11" PRIu64,
	       width, queue, st.waiting, st.delayed, st.in_flight, st.waiters, st.put, st.taken,
	       st.dead, st.bytes);
	print_age(st.oldest);
	print_notes(&st);
	putchar('\n');
	return 1;
}

char **
queues_arg(struct spool *sp, int argc, char *argv[])
{
	char **queues = argc == 0 ? spool_list(sp) : calloc((size_t)argc + 1, sizeof *queues);

	if (queues == NULL)
		die_system("the spool");
	for (int i = 0; i < argc; i++)
		if ((queues[i] = strdup(queue_arg(argv[i]))) == NULL)
			die_system(argv[i]);
	return queues;
}

static int
longest(char *const *queues)
{
	int width = NAME_WIDTH;

	for (size_t i = 0; queues[i] != NULL; i++)
		if ((int)strlen(queues[i]) > width)
			width = (int)strlen(queues[i]);
	return width;
}

/* Print a heading, and what there is to say of each queue. `print` returns 1; 0: there is no such
 * queue, which is no error of one that was not named; or -1. */
static int
each_queue(struct spool *sp, int argc, char *argv[], const char *heading,
           int (*print)(struct spool *sp, const char *queue, int width))
{
	char **queues = queues_arg(sp, argc, argv);
	int code = 0, width = longest(queues);

	printf("%-*s %s\n", width, "QUEUE", heading);
	for (size_t i = 0; queues[i] != NULL; i++) {
		int r = print(sp, queues[i], width);
		if (r == -1)
			fprintf(stderr, "mqctl: %s: %s\n", queues[i], strerror(errno));
		else if (r == 0 && argc > 0)
			fprintf(stderr, "mqctl: %s: no such queue\n", argv[i]);
		if (r == -1)
			code = EXIT_SYSTEM;
		else if (r == 0 && argc > 0 && code == 0)
			code = EXIT_NOTHING;
	}
	spool_list_free(queues);
	return code;
}

static int
cmd_ls(struct spool *sp, int argc, char *argv[])
{
	return each_queue(sp, argc, argv,
	                  " WAITING DELAYED FLIGHT GETTERS       PUT     TAKEN   DEAD       BYTES "
	                  "OLDEST",
	                  ls_queue);
}

struct open_message {
	uint64_t number;
	int64_t since; /* seconds since 1970 */
	dev_t dev;
	ino_t ino;
	bool orphan;
};

struct open_messages {
	struct open_message *all;
	size_t n, room;
};

static void
add_open(void *arg, uint64_t number, const struct stat *st, bool orphan)
{
	struct open_messages *o = arg;

	if (o->n == o->room) {
		o->room = o->room == 0 ? 64 : o->room * 2;
		o->all = realloc(o->all, o->room * sizeof *o->all);
		if (o->all == NULL)
			die_system("listing open messages");
	}
	/* The rename into .claim changed the file last, or its owner did who counts a try. */
	o->all[o->n++] = (struct open_message){.number = number,
	                                       .since = st->st_ctime,
	                                       .dev = st->st_dev,
	                                       .ino = st->st_ino,
	                                       .orphan = orphan};
}

static int
by_number(const void *a, const void *b)
{
	const struct open_message *x = a, *y = b;

	return (x->number > y->number) - (x->number < y->number);
}

/* Who holds these messages. What a process has open the system tells root alone, if mqd was
 * started with -u: so for that we are root again, if we were. */
static struct holder *
find_holders(const struct open_messages *o)
{
	struct holder *holders = calloc(o->n, sizeof *holders);
	uid_t owner = geteuid();

	if (holders == NULL)
		die_system("listing open messages");
	for (size_t i = 0; i < o->n; i++) {
		holders[i].dev = o->all[i].dev;
		holders[i].ino = o->all[i].ino;
	}
	if (seteuid(getuid()) == -1)
		die_system("becoming root");
	holders_find(holders, o->n);
	if (seteuid(owner) == -1)
		die_system("becoming the owner of the spool");
	return holders;
}

static void
print_open(const char *queue, int width, const struct open_message *m, const struct holder *h)
{
	char pid[24];

	snprintf(pid, sizeof pid, "%ld", (long)h->pid);
	printf("%-*s %016" PRIu64 " %7s", width, queue, m->number,
	       m->orphan     ? "orphan"
	       : h->pid == 0 ? "-"
	                     : pid);
	print_age(m->since);
	printf(" %s\n", m->orphan || h->peer[0] == '\0' ? "-" : h->peer);
}

/* See each_queue. */
static int
open_queue(struct spool *sp, const char *queue, int width)
{
	struct open_messages o = {0};
	int r = spool_each_open(sp, queue, add_open, &o);
	int e = errno;

	if (o.n > 0) {
		qsort(o.all, o.n, sizeof *o.all, by_number);
		struct holder *holders = find_holders(&o);
		for (size_t i = 0; i < o.n; i++)
			print_open(queue, width, &o.all[i], &holders[i]);
		free(holders);
	}
	free(o.all);
	errno = e;
	return r;
}

static int
cmd_open(struct spool *sp, int argc, char *argv[])
{
	return each_queue(sp, argc, argv, "NUMBER               PID    AGE PEER", open_queue);
}

/* A body is anything: show what is printable of its beginning. */
static void
print_preview(const struct claim *c)
{
	char body[PREVIEW];
	ssize_t n = claim_read(c, body, sizeof body, 0);

	putchar(' ');
	for (ssize_t i = 0; i < n; i++)
		putchar(body[i] >= ' ' && body[i] <= '~' ? body[i] : '.');
	puts(c->message.length > sizeof body ? "..." : "");
}

static int
cmd_peek(struct spool *sp, int argc, char *argv[])
{
	const char *queue = queue_arg(argv[0]);
	uint64_t max = argc > 1 ? number_arg(argv[1]) : 1;
	uint64_t *numbers;
	struct claim c;
	ssize_t n;

	if (max == 0 || max > PEEK_MAX)
		die(EXIT_USAGE, "%s: must be from 1 to %d", argv[1], PEEK_MAX);
	numbers = calloc(max, sizeof *numbers);
	if (numbers == NULL || (n = spool_first(sp, queue, numbers, max)) == -1)
		die_system(queue);
	for (ssize_t i = 0; i < n; i++) {
		switch (spool_look(sp, queue, numbers[i], &c)) {
		case CLAIM_GOT:
			printf("%016" PRIu64 " %10" PRIu64 " bytes, flags %" PRIu32 ":", numbers[i],
			       c.message.length, c.message.flags);
			print_preview(&c);
			look_end(&c);
			break;
		case CLAIM_DAMAGED:
			printf("%016" PRIu64 " damaged\n", numbers[i]);
			break;
		case CLAIM_EMPTY: /* taken meanwhile */
			break;
		case CLAIM_ERROR:
			printf("%016" PRIu64 " %s\n", numbers[i], strerror(errno));
			break;
		}
	}
	free(numbers);
	return n == 0 ? EXIT_NOTHING : 0;
}

/* Write a whole body to standard output. Returns 0; -1 if not all of it went out. */
static int
print_body(const struct claim *c)
{
	char buf[16384];
	ssize_t n;

	for (uint64_t at = 0; at < c->message.length; at += (uint64_t)n) {
		n = claim_read(c, buf, sizeof buf, at);
		if (n <= 0 || fwrite(buf, 1, (size_t)n, stdout) != (size_t)n)
			return -1;
	}
	return fflush(stdout) == EOF ? -1 : 0;
}

static int
cmd_cat(struct spool *sp, int argc, char *argv[])
{
	uint64_t number = number_arg(argv[1]);
	const char *queue = queue_arg(argv[0]);
	struct claim c;

	(void)argc;
	switch (spool_look(sp, queue, number, &c)) {
	case CLAIM_GOT:
		if (print_body(&c) == -1)
			die_system("printing a message");
		look_end(&c);
		return 0;
	case CLAIM_DAMAGED:
		die(EXIT_NOTHING, "%s/%016" PRIu64 " is damaged", queue, number);
	case CLAIM_EMPTY:
		die(EXIT_NOTHING, "%s/%016" PRIu64 " does not wait", queue, number);
	case CLAIM_ERROR:
		break;
	}
	die_system(queue);
}

static int
cmd_put(struct spool *sp, int argc, char *argv[])
{
	const char *queue = queue_arg(argv[0]);
	char buf[16384];
	struct push push;
	ssize_t n;

	(void)argc;
	push_begin(&push, sp, queue);
	while ((n = read(STDIN_FILENO, buf, sizeof buf)) > 0 || (n == -1 && errno == EINTR))
		if (n > 0 && push_write(&push, buf, (size_t)n) == -1)
			break;
	if (n != 0) {
		int e = errno;
		push_abort(&push);
		errno = e;
		die_system(queue);
	}
	struct spread spread;
	push_spread(&push, 0, &spread);
	if (spread.failed[0] == '\0')
		return 0;
	if (spread.error == 0)
		die(EXIT_NOTHING, "%s: not stored, in %u of %u queues: its limits do not let it in",
		    spread.failed, spread.wanted - spread.stored, spread.wanted);
	die(EXIT_SYSTEM, "%s: not stored, in %u of %u queues: %s", spread.failed,
	    spread.wanted - spread.stored, spread.wanted, spool_strerror(spread.error));
}

static int
cmd_get(struct spool *sp, int argc, char *argv[])
{
	const char *queue = queue_arg(argv[0]);
	enum claim_result r;
	struct claim c;

	(void)argc;
	while ((r = spool_claim(sp, queue, CLAIM_PLAINLY, &c)) == CLAIM_DAMAGED)
		fprintf(stderr, "mqctl: %s/%016" PRIu64 " is damaged: moved to .bad\n", queue,
		        c.message.number);
	if (r == CLAIM_ERROR)
		die_system(queue);
	if (r == CLAIM_EMPTY)
		return EXIT_NOTHING;
	if (print_body(&c) == -1) {
		int e = errno;
		claim_release(&c, false);
		errno = e;
		die_system("printing a message; it is back in the queue");
	}
	if (claims_finish(&c, 1) == -1 || spool_settle(sp) == -1)
		die_system("removing a printed message");
	return 0;
}

static int
cmd_rm(struct spool *sp, int argc, char *argv[])
{
	uint64_t number = number_arg(argv[1]);
	const char *queue = queue_arg(argv[0]);
	int r = spool_remove(sp, queue, number);

	(void)argc;
	if (r == -1)
		die_system(queue);
	if (r == 0)
		die(EXIT_NOTHING, "%s/%016" PRIu64 " does not wait", queue, number);
	return 0;
}

/* What could not be moved is back at its place. */
static void
move(struct spool *sp, struct claim *c, const char *to, enum claim_forget forget)
{
	int r = claim_move(c, to, forget);

	if (r == 1) {
		claim_release(c, false);
		die(EXIT_NOTHING, "%s: full", to);
	}
	if (r == -1 || spool_settle(sp) == -1)
		die_system(to);
}

/* Move all that waits now; what comes in meanwhile stays. */
static int
move_all(struct spool *sp, const char *from, const char *to, enum claim_forget forget)
{
	struct queue_stat st;
	struct claim c;
	uint64_t n = 0, max;
	enum claim_result r = CLAIM_GOT;

	if (strcmp(from, to) == 0)
		die(EXIT_USAGE, "%s: from a queue to itself", from);
	int known = spool_stat(sp, from, &st);
	if (known == -1)
		die_system(from);
	if (known == 0)
		die(EXIT_NOTHING, "%s: no such queue", from);
	for (max = st.waiting; n < max; n++) {
		while ((r = spool_claim(sp, from, CLAIM_ANYHOW, &c)) == CLAIM_DAMAGED)
			;
		if (r == CLAIM_ERROR)
			die_system(from);
		if (r == CLAIM_EMPTY)
			break;
		move(sp, &c, to, forget);
	}
	printf("%" PRIu64 "\n", n);
	return 0;
}

static int
cmd_mv(struct spool *sp, int argc, char *argv[])
{
	const char *from = queue_arg(argv[0]), *to = queue_arg(argv[2]);
	struct claim c;
	enum claim_result r;

	(void)argc;
	if (strcmp(argv[1], "all") == 0)
		return move_all(sp, from, to, FORGET_NOTHING);
	uint64_t number = number_arg(argv[1]);
	r = spool_claim_number(sp, from, number, &c);
	if (r == CLAIM_ERROR)
		die_system(from);
	if (r != CLAIM_GOT)
		die(EXIT_NOTHING, "%s/%016" PRIu64 " does not wait", from, number);
	move(sp, &c, to, FORGET_NOTHING);
	return 0;
}

/* From a queue of dead letters back to where they came from, or to another. */
static int
cmd_retry(struct spool *sp, int argc, char *argv[])
{
	const char *from = queue_arg(argv[0]);
	size_t len = strlen(from), tail = strlen(SPOOL_DEAD);
	char to[QUEUE_NAME_MAX + 1];

	if (argc == 2) {
		strcpy(to, queue_arg(argv[1]));
	} else if (len > tail && strcmp(from + len - tail, SPOOL_DEAD) == 0) {
		memcpy(to, from, len - tail);
		to[len - tail] = '\0';
	} else {
		die(EXIT_USAGE, "%s: its name does not end in " SPOOL_DEAD ": back to which queue?",
		    argv[0]);
	}
	return move_all(sp, from, to, FORGET_TRIES);
}

static int
cmd_flush(struct spool *sp, int argc, char *argv[])
{
	const char *queue = queue_arg(argv[0]);
	int64_t n = spool_flush(sp, queue);

	(void)argc;
	if (n == -1)
		die_system(queue);
	printf("%" PRId64 "\n", n);
	return 0;
}

static int
cmd_drop(struct spool *sp, int argc, char *argv[])
{
	const char *queue = queue_arg(argv[0]);
	int r = spool_delete(sp, queue);

	(void)argc;
	if (r == -1)
		die_system(queue);
	if (r == 0)
		die(EXIT_NOTHING, "%s: no such queue", queue);
	spool_empty_trash(sp, NULL);
	return 0;
}

/* As queue_arg, but a slash, which is in no queue's name, is the spool itself: NULL. */
static const char *
config_arg(const char *arg)
{
	return strcmp(arg, "/") == 0 ? NULL : queue_arg(arg);
}

static void
print_mistake(const char *what, const char *path, const char *detail)
{
	(void)what;
	fprintf(stderr, "mqctl: %s: %s\n", path, detail);
}

static int
cmd_set(struct spool *sp, int argc, char *argv[])
{
	const char *queue = config_arg(argv[0]);
	int r = spool_configure(sp, queue, argv + 1, (size_t)(argc - 1), print_mistake);

	if (r == -1)
		die_system(argv[0]);
	return r == 0 ? 0 : EXIT_USAGE;
}

static const char *spool_path;

static void
print_setting(const char *key, const char *value, const char *file, unsigned line)
{
	printf("%-16s %-16s ", key, value);
	if (line == 0)
		puts("default");
	else
		printf("%s/%s:%u\n", spool_path, file, line);
}

static int
cmd_config(struct spool *sp, int argc, char *argv[])
{
	int r =
	    spool_settings(sp, argc > 0 ? config_arg(argv[0]) : NULL, print_setting, print_mistake);

	if (r == -1)
		die_system(argc > 0 ? argv[0] : "the spool");
	if (r == 0)
		die(EXIT_NOTHING, "%s: no such queue", argv[0]);
	return 0;
}

/* Of a time as in .config, in milliseconds. */
static uint64_t
time_arg(const char *arg)
{
	uint64_t ms;

	if (config_value(CONFIG_TIME, arg, &ms) == -1 || ms == 0 ||
	    ms > UINT64_C(1000) * CONFIG_DELAY_MAX)
		die(EXIT_USAGE, "%s: not a time such as 30s, 5m, 2h, at most %dd", arg,
		    CONFIG_DELAY_MAX / 86400);
	return ms;
}

static int
cmd_pause(struct spool *sp, int argc, char *argv[])
{
	const char *queue = queue_arg(argv[0]);
	uint64_t ms = argc > 1 ? time_arg(argv[1]) : SPOOL_FOREVER;

	if (spool_pause(sp, queue, ms) == -1)
		die_system(queue);
	return 0;
}

static int
cmd_resume(struct spool *sp, int argc, char *argv[])
{
	const char *queue = queue_arg(argv[0]);
	struct queue_stat st;
	int r = spool_stat(sp, queue, &st);

	(void)argc;
	if (r == 0)
		die(EXIT_NOTHING, "%s: no such queue", queue);
	if (r == -1 || spool_pause(sp, queue, 0) == -1)
		die_system(queue);
	return 0;
}

static int
cmd_status(struct spool *sp, int argc, char *argv[])
{
	char setting[32];
	char *settings[] = {setting};

	if (argc == 0) {
		spool_on_mistake(sp, print_mistake);
		puts(config_status_name(spool_config(sp, NULL)->status));
		return 0;
	}
	/* "status=" would take it out of the file, and what is longer is no status. */
	int len = snprintf(setting, sizeof setting, "status=%s", argv[0]);
	if (argv[0][0] == '\0' || len < 0 || (size_t)len >= sizeof setting)
		die(EXIT_USAGE, "%s: must be up, readonly or quiescent", argv[0]);
	int r = spool_configure(sp, NULL, settings, 1, print_mistake);
	if (r == -1)
		die_system("the spool");
	return r == 0 ? 0 : EXIT_USAGE;
}

static void
report(const char *what, const char *path, const char *detail)
{
	printf("%s %s: %s\n", what, path, detail);
}

static int
cmd_check(struct spool *sp, int argc, char *argv[])
{
	bool repair = argc == 1 && strcmp(argv[0], "--repair") == 0;
	int64_t n;

	if (argc == 1 && !repair)
		die(EXIT_USAGE, "check %s: did you mean --repair?", argv[0]);
	n = spool_check(sp, repair, report);
	if (n == -1)
		die_system("the spool");
	return n == 0 ? 0 : EXIT_NOTHING;
}

#define ANY 1000000

/* In the order of `mqctl -h`. */
static const struct command {
	const char *name;
	int (*run)(struct spool *sp, int argc, char *argv[]); /* the exit code */
	int min, max;                                         /* arguments */
	const char *args, *what;
} commands[] = {
    {"ls", cmd_ls, 0, ANY, "[queue...]", "how the queues stand"},
    {"open", cmd_open, 0, ANY, "[queue...]",
     "the messages on their way to a client, and who holds them"},
    {"peek", cmd_peek, 1, 2, "queue [n]", "show the first n messages (1), taking none"},
    {"cat", cmd_cat, 2, 2, "queue number", "print the body of a message"},
    {"put", cmd_put, 1, 1, "queue", "append standard input as a message"},
    {"get", cmd_get, 1, 1, "queue", "take the oldest message and print it"},
    {"rm", cmd_rm, 2, 2, "queue number", "remove a message"},
    {"mv", cmd_mv, 3, 3, "queue number|all queue2",
     "move a message, or all, to the end of another queue"},
    {"retry", cmd_retry, 1, 2, "queue" SPOOL_DEAD " [queue2]",
     "move all back to the end of queue, or of queue2, with their tries forgotten"},
    {"flush", cmd_flush, 1, 1, "queue", "remove all messages"},
    {"drop", cmd_drop, 1, 1, "queue", "remove the queue with all in it"},
    {"pause", cmd_pause, 1, 2, "queue [time]",
     "deliver nothing from it, for 30s, 5m, ...; or until"},
    {"resume", cmd_resume, 1, 1, "queue", "deliver again"},
    {"status", cmd_status, 0, 1, "[up|readonly|quiescent]",
     "what clients may do in the spool: show it, or set it"},
    {"set", cmd_set, 2, 1000, "queue key=value ...",
     "change its .config; of the whole spool, if queue is /"},
    {"config", cmd_config, 0, 1, "[queue]", "the settings in force, and where each comes from"},
    {"export", cmd_export, 0, ANY, "[queue...]",
     "write the queues to standard output, as a tar archive"},
    {"import", cmd_import, 0, ANY, "[--strip-padding] [memcacheq://host:port [queue...]]",
     "take the messages of a server, or read what export wrote from standard input"},
    {"rebalance", cmd_rebalance, 4, ANY, "--to host:port,... --self host:port [queue...]",
     "move queues to the servers where ketama's clients look for them"},
    {"check", cmd_check, 0, 1, "[--repair]", "read everything, list what is wrong, mend it"},
};

static void
print_usage(void)
{
	printf("usage: mqctl [-H spool] command\n\n");
	for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
		const struct command *c = &commands[i];
		int len = printf("  %s %s", c->name, c->args);
		/* What leaves no room for the text has it on a line of its own. */
		if (len >= USAGE_WIDTH)
			len = printf("\n") - 1;
		printf("%*s%s\n", USAGE_WIDTH - len, "", c->what);
	}
}

/* What root leaves behind in the spool, mqd could not open. Not `for_good`: so that seteuid leads
 * back. */
static void
become_owner(const char *dir, bool for_good)
{
	struct stat st;

	if (geteuid() != 0 || stat(dir, &st) == -1 || st.st_uid == 0)
		return;
	if (setgroups(1, &st.st_gid) == -1 || setgid(st.st_gid) == -1 ||
	    (for_good ? setuid(st.st_uid) : seteuid(st.st_uid)) == -1)
		die(EXIT_SYSTEM, "%s: becoming user %lu, who owns it: %s", dir,
		    (unsigned long)st.st_uid,
		    errno == EINVAL ? "unknown in this user namespace" : strerror(errno));
}

static void
print_refusal(const char *what, const char *path, const char *detail)
{
	if (strcmp(what, "refused") == 0)
		print_mistake(what, path, detail);
}

/* What mqd would refuse an operator may look at, and mend. */
static void
warn_of_place(const char *dir)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	const char *fault = NULL;
	struct stat st;

	if (fd != -1 && fstat(fd, &st) == 0)
		fault = st.st_uid != geteuid() ? "belongs to another user: be that user, or root"
		                               : place_fault(fd, &st, dir);
	if (fault != NULL)
		fprintf(stderr, "mqctl: %s: %s\n", dir, fault);
	if (fd != -1)
		close(fd);
	place_ignore(PLACE_ALL);
}

static int
run(const struct command *cmd, const char *dir, int argc, char *argv[])
{
	struct spool *sp;
	int code;

	become_owner(dir, cmd->run != cmd_open); /* see find_holders */
	warn_of_place(dir);
	spool_path = dir;
	sp = spool_at(dir, SPOOL_SYNC_FULL);
	spool_on_mistake(sp, print_refusal);
	if (spool_dirfd(sp) == -1)
		die_system(dir);
	code = cmd->run(sp, argc, argv);
	if (fflush(stdout) == EOF)
		die_system("standard output");
	if (ferror(stdout)) /* what failed earlier has left nothing to flush */
		die(EXIT_SYSTEM, "standard output: not all of it could be written");
	spool_close(sp);
	return code;
}

int
main(int argc, char *argv[])
{
	const char *dir = SPOOL_DEFAULT;
	int c;

	os_open_standard();
	while ((c = getopt(argc, argv, "+H:h")) != -1) {
		if (c == 'h') {
			print_usage();
			return 0;
		}
		if (c != 'H')
			die(EXIT_USAGE, "mqctl -h tells how to use it");
		dir = optarg;
	}
	argc -= optind;
	argv += optind;
	umask(077);
	for (size_t i = 0; argc > 0 && i < sizeof commands / sizeof commands[0]; i++) {
		const struct command *cmd = &commands[i];
		if (strcmp(argv[0], cmd->name) != 0)
			continue;
		if (argc - 1 < cmd->min || argc - 1 > cmd->max)
			die(EXIT_USAGE, "%s: wrong number of arguments; mqctl -h tells", cmd->name);
		return run(cmd, dir, argc - 1, argv + 1);
	}
	die(EXIT_USAGE, "%s: no such command; mqctl -h tells", argc > 0 ? argv[0] : "(none)");
}
