/*
 * mqctl: look at the queues of a spool, and mend them.
 *
 * It works on the files alone, through spool.c and admin.c as mqd does: beside running
 * mqds, or with nothing running. But who holds a message the system tells, see holder.c, and what
 * moves messages between servers speaks the protocol, see drain.c and rebalance.c.
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
#include <unistd.h>

#include "mqctl.h"
#include "number.h"
#include "os.h"
#include "place.h"
#include "progress.h"
#include "queue_name.h"
#include "spool.h"
#include "terminal.h"

#define USAGE_WIDTH 23

const char *spool_path;

void
die(int code, const char *format, ...)
{
	va_list args;

	progress_end();
	terminal_leave();
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

void
make_printable(char *text)
{
	for (char *p = text; *p != '\0'; p++)
		if (*p < ' ' || *p > '~')
			*p = '?';
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

static struct {
	const char *what;
	uint64_t done;
} work;

static void
step_work(uint64_t done, uint64_t total)
{
	if (work.what != NULL)
		progress_begin(work.what, total);
	work.what = NULL;
	progress_step(done - work.done);
	work.done = done;
}

void
show_progress(struct spool *sp, const char *what)
{
	work.what = what;
	work.done = 0;
	spool_on_progress(sp, terminal_can_draw(STDERR_FILENO) ? step_work : NULL);
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
	max = st.waiting;
	progress_begin(forget == FORGET_TRIES ? "retry" : "mv", max);
	for (; n < max; n++, progress_step(1)) {
		while ((r = spool_claim(sp, from, CLAIM_ANYHOW, &c)) == CLAIM_DAMAGED)
			;
		if (r == CLAIM_ERROR)
			die_system(from);
		if (r == CLAIM_EMPTY)
			break;
		move(sp, &c, to, forget);
	}
	progress_end();
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
	int64_t n;

	(void)argc;
	show_progress(sp, "flush");
	n = spool_flush(sp, queue);
	progress_end();
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

const char *
config_arg(const char *arg)
{
	return strcmp(arg, "/") == 0 ? NULL : queue_arg(arg);
}

void
print_mistake(const char *what, const char *path, const char *detail)
{
	(void)what;
	progress_hide();
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
    {"top", cmd_top, 0, 5, "[-b] [-n count] [-d time]",
     "how the queues stand, on a screen drawn again each second"},
    {"peek", cmd_peek, 1, 2, "queue [n]", "show the first n messages (1), taking none"},
    {"tail", cmd_tail, 1, 3, "[-n n] queue",
     "show the last messages, and what comes in, taking none"},
    {"cat", cmd_cat, 2, 2, "queue number", "print the body of a message"},
    {"put", cmd_put, 1, 1, "queue", "append standard input as a message"},
    {"get", cmd_get, 1, 1, "queue", "take the oldest message and print it"},
    {"rm", cmd_rm, 2, 2, "queue number", "remove a message"},
    {"mv", cmd_mv, 3, 3, "queue number|all queue2",
     "move a message, or all, to the end of another queue"},
    {"retry", cmd_retry, 1, 2, "queue" SPOOL_DEAD " [queue2]",
     "move all back to the end of queue, or of queue2"},
    {"flush", cmd_flush, 1, 1, "queue", "remove all messages"},
    {"drop", cmd_drop, 1, 1, "queue", "remove the queue with all in it"},
    {"pause", cmd_pause, 1, 2, "queue [time]",
     "deliver nothing from it for 30s, 5m, ...; or until resume"},
    {"resume", cmd_resume, 1, 1, "queue", "deliver again"},
    {"status", cmd_status, 0, 1, "[up|readonly|quiescent]",
     "what clients may do in the spool: show it, or set it"},
    {"set", cmd_set, 2, 1000, "queue key=value ...",
     "change its .config; of the whole spool, if queue is /"},
    {"config", cmd_config, 0, 1, "[queue]", "the settings in force, and where each comes from"},
    {"export", cmd_export, 0, ANY, "[queue...]",
     "write queues to standard output, as a tar archive"},
    {"import", cmd_import, 0, ANY, "[--strip-padding] [memcacheq://host:port [queue...]]",
     "take a server's messages, or read what export wrote"},
    {"rebalance", cmd_rebalance, 4, ANY,
     "[--unweighted] --to host:port,... --self host:port [queue...]",
     "move queues to where ketama's clients look for them"},
    {"check", cmd_check, 0, 1, "[--repair]", "list what is wrong in the spool; --repair mends it"},
    {"metrics", cmd_metrics, 0, 0, "", "all figures, as Prometheus reads them"},
    {"http", cmd_http, 0, ANY, "[--bodies] [--host name]...",
     "answer one HTTP request: a page, /metrics, /healthz"},
};

/* Those that know --json. */
static int (*const listings[])(struct spool *sp, int argc, char *argv[]) = {
    cmd_ls, cmd_open, cmd_peek, cmd_status, cmd_config, cmd_check};

static bool
can_json(const struct command *cmd)
{
	for (size_t i = 0; i < sizeof listings / sizeof listings[0]; i++)
		if (listings[i] == cmd->run)
			return true;
	return false;
}

static void
print_usage(void)
{
	printf("usage: mqctl [-H spool] [--json] command\n\n");
	for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
		const struct command *c = &commands[i];
		int len = printf("  %s %s", c->name, c->args);
		/* What leaves no room for the text has it on a line of its own. */
		if (len >= USAGE_WIDTH)
			len = printf("\n") - 1;
		printf("%*s%s\n", USAGE_WIDTH - len, "", c->what);
	}
	printf("\nThe spool is " SPOOL_DEFAULT " unless -H says otherwise. With --json ls, open,\n"
	       "peek, status, config and check print a document for programs. A queue's name is\n"
	       "as ls shows it, or as clients have it.\n");
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

/* What opens the spool itself, and may not be allowed to write to it. */
static bool
only_looks(const struct command *cmd)
{
	return cmd->run == cmd_metrics || cmd->run == cmd_http;
}

static int
run(const struct command *cmd, const char *dir, int argc, char *argv[])
{
	struct spool *sp;
	int code;

	if (cmd->run == cmd_http)
		http_keep_quiet();
	become_owner(dir, cmd->run != cmd_open); /* see find_holders */
	if (!only_looks(cmd))
		warn_of_place(dir);
	spool_path = dir;
	sp = spool_at(dir, SPOOL_SYNC_FULL);
	spool_on_mistake(sp, print_refusal);
	if (!only_looks(cmd) && spool_dirfd(sp) == -1)
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
	/* A long option is '-' with an argument, to those who know only short ones. */
	while ((c = getopt(argc, argv, "+H:h-:")) != -1) {
		if (c == 'h') {
			print_usage();
			return 0;
		}
		if (c == '-' && strcmp(optarg, "json") == 0)
			want_json = true;
		else if (c == 'H')
			dir = optarg;
		else
			die(EXIT_USAGE, "mqctl -h tells how to use it");
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
		if (want_json && !can_json(cmd))
			die(EXIT_USAGE, "%s: has no --json", cmd->name);
		return run(cmd, dir, argc - 1, argv + 1);
	}
	die(EXIT_USAGE, "%s: no such command; mqctl -h tells", argc > 0 ? argv[0] : "(none)");
}
