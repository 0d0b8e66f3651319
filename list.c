/*
 * list.c: what mqctl lists: ls, open, peek, config, status, check.
 *
 * Each is written for people, in columns, or with --json as one document for programs, whose only
 * difference is that a number is a number and a body is whole. What cannot be listed is told on
 * standard error, and by the exit code, in both cases.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "config.h"
#include "figures.h"
#include "holder.h"
#include "json.h"
#include "list.h"
#include "mqctl.h"
#include "progress.h"
#include "spool.h"
#include "terminal.h"

#define PEEK_MAX 10000 /* messages */
#define PREVIEW 60     /* bytes of body that peek shows */
#define PATH_LEN 4096
#define NAME_WIDTH 10 /* of the names of queues in a list, at the least */

bool want_json;
static struct json document; /* if want_json; a process writes one */

/* Begin what is listed: a document with one array in it. */
static void
begin_array(const char *key)
{
	json_begin(&document, stdout);
	json_array(&document, key);
}

static void
end_array(void)
{
	if (want_json)
		json_end(&document);
}

void
list_age(char *text, int64_t since)
{
	int64_t age = (int64_t)time(NULL) - since;

	if (since == 0)
		strcpy(text, "-");
	else if (age < 120)
		snprintf(text, LIST_AGE_LEN, "%" PRId64 "s", age < 0 ? 0 : age);
	else if (age < 7200)
		snprintf(text, LIST_AGE_LEN, "%" PRId64 "m", age / 60);
	else if (age < 172800)
		snprintf(text, LIST_AGE_LEN, "%" PRId64 "h", age / 3600);
	else
		snprintf(text, LIST_AGE_LEN, "%" PRId64 "d", age / 86400);
}

static void
print_age(int64_t since)
{
	char text[LIST_AGE_LEN];

	list_age(text, since);
	printf(" %6s", text);
}

void
list_notes(char *text, const struct queue_stat *st)
{
	char bad[32] = "", paused[40] = "";

	if (st->bad > 0)
		snprintf(bad, sizeof bad, "%" PRIu64 " bad", st->bad);
	if (st->paused_ms == SPOOL_FOREVER)
		strcpy(paused, "paused");
	else if (st->paused_ms > 0)
		snprintf(paused, sizeof paused, "paused %" PRIu64 "s",
		         (st->paused_ms + 999) / 1000);
	snprintf(text, LIST_NOTES_LEN, "%s%s%s", bad,
	         bad[0] != '\0' && paused[0] != '\0' ? ", " : "", paused);
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

/* Print a heading, and what there is to say of each queue; in JSON it is an array called `array`.
 * `print` returns 1; 0: there is no such queue, which is no error of one that was not named; or
 * -1. */
static int
each_queue(struct spool *sp, int argc, char *argv[], const char *array, const char *heading,
           int (*print)(struct spool *sp, const char *queue, int width))
{
	char **queues = queues_arg(sp, argc, argv);
	int code = 0, width = longest(queues);

	if (want_json)
		begin_array(array);
	else
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
	end_array();
	spool_list_free(queues);
	return code;
}

void
list_queue_json(struct json *j, const char *queue, const struct queue_stat *st)
{
	json_object(j, NULL);
	json_queue(j, queue);
	for (const struct figure *f = figures; f < figures + FIGURES; f++) {
		uint64_t value = figure_value(st, f);
		if (f->unit == FIGURE_PAUSE)
			json_bool(j, f->json, value > 0);
		else if (f->unit == FIGURE_MS && st->oldest == 0)
			json_null(j, f->json);
		else
			json_number(j, f->json, value);
	}
	if (st->oldest > 0)
		json_number(j, "oldest", (uint64_t)st->oldest);
	else
		json_null(j, "oldest");
	if (st->paused_ms > 0 && st->paused_ms != SPOOL_FOREVER)
		json_number(j, "paused_ms", st->paused_ms);
	else
		json_null(j, "paused_ms");
	json_close(j);
}

/* See each_queue. */
static int
ls_queue(struct spool *sp, const char *queue, int width)
{
	struct queue_stat st;
	char notes[LIST_NOTES_LEN];
	int r = spool_stat(sp, queue, &st);

	if (r != 1)
		return r;
	if (want_json) {
		list_queue_json(&document, queue, &st);
		return 1;
	}
	printf("%-*s %8" PRIu64 " %7" PRIu64 " %6" PRIu64 " %7" PRIu64 " %9" PRIu64 " %9" PRIu64
	       " %6" PRIu64 " %11" PRIu64,
	       width, queue, st.waiting, st.delayed, st.in_flight, st.waiters, st.put, st.taken,
	       st.dead, st.bytes);
	print_age(st.oldest);
	list_notes(notes, &st);
	printf("%s%s\n", notes[0] != '\0' ? "  " : "", notes);
	return 1;
}

int
cmd_ls(struct spool *sp, int argc, char *argv[])
{
	return each_queue(sp, argc, argv, "queues",
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

static void
print_open_json(const char *queue, const struct open_message *m, const struct holder *h)
{
	json_object(&document, NULL);
	json_queue(&document, queue);
	json_number(&document, "number", m->number);
	json_bool(&document, "orphan", m->orphan);
	if (m->orphan || h->pid == 0)
		json_null(&document, "pid");
	else
		json_number(&document, "pid", (uint64_t)h->pid);
	json_number(&document, "since", m->since < 0 ? 0 : (uint64_t)m->since);
	if (m->orphan || h->peer[0] == '\0')
		json_null(&document, "peer");
	else
		json_string(&document, "peer", h->peer);
	json_close(&document);
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
			if (want_json)
				print_open_json(queue, &o.all[i], &holders[i]);
			else
				print_open(queue, width, &o.all[i], &holders[i]);
		free(holders);
	}
	free(o.all);
	errno = e;
	return r;
}

int
cmd_open(struct spool *sp, int argc, char *argv[])
{
	return each_queue(sp, argc, argv, "messages", "NUMBER               PID    AGE PEER",
	                  open_queue);
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

void
list_message(const struct claim *c)
{
	printf("%016" PRIu64 " %10" PRIu64 " bytes, flags %" PRIu32 ":", c->message.number,
	       c->message.length, c->message.flags);
	print_preview(c);
}

static ssize_t
read_body(const void *arg, void *buf, size_t len, uint64_t offset)
{
	return claim_read(arg, buf, len, offset);
}

static void
print_message_json(const struct claim *c)
{
	const struct message *m = &c->message;

	json_object(&document, NULL);
	json_number(&document, "number", m->number);
	json_number(&document, "length", m->length);
	json_number(&document, "flags", m->flags);
	json_number(&document, "tries", m->tries);
	if (m->expiry == 0)
		json_null(&document, "expires");
	else
		json_number(&document, "expires", m->expiry);
	if (json_stream(&document, "body", read_body, c, m->length) == -1)
		die_system("reading a message");
	json_close(&document);
}

/* Of one that cannot be shown: why not. */
static void
print_no_message(uint64_t number, bool damaged, const char *why)
{
	if (!want_json) {
		printf("%016" PRIu64 " %s\n", number, why);
		return;
	}
	json_object(&document, NULL);
	json_number(&document, "number", number);
	if (damaged)
		json_bool(&document, "damaged", true);
	else
		json_string(&document, "error", why);
	json_close(&document);
}

int
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
	if (want_json)
		begin_array("messages");
	for (ssize_t i = 0; i < n; i++) {
		switch (spool_look(sp, queue, numbers[i], &c)) {
		case CLAIM_GOT:
			if (want_json)
				print_message_json(&c);
			else
				list_message(&c);
			look_end(&c);
			break;
		case CLAIM_DAMAGED:
			print_no_message(numbers[i], true, "damaged");
			break;
		case CLAIM_EMPTY: /* taken meanwhile */
			break;
		case CLAIM_ERROR:
			print_no_message(numbers[i], false, strerror(errno));
			break;
		}
	}
	end_array();
	free(numbers);
	return n == 0 ? EXIT_NOTHING : 0;
}

/* A setting as what it is: a number, true or false, a queue, a word. */
static void
print_value_json(const char *key, const char *value)
{
	unsigned k = 0;
	uint64_t n;

	while (config_key(k) != NULL && strcmp(config_key(k), key) != 0)
		k++;
	enum config_kind kind = config_key(k) == NULL ? CONFIG_STATUS : config_kind(k);
	if (kind == CONFIG_QUEUE_NAME || kind == CONFIG_STATUS ||
	    config_value(kind, value, &n) == -1) {
		if (kind == CONFIG_QUEUE_NAME && strcmp(value, "-") == 0)
			json_null(&document, "value");
		else
			json_string(&document, "value", value);
	} else if (kind == CONFIG_YES_NO) {
		json_bool(&document, "value", n == 1);
	} else {
		json_number(&document, "value", n);
	}
	if (kind == CONFIG_TIME)
		json_string(&document, "unit", "ms");
	else if (kind == CONFIG_SIZE)
		json_string(&document, "unit", "bytes");
}

static void
print_setting(const char *key, const char *value, const char *file, unsigned line)
{
	if (want_json) {
		char path[PATH_LEN];
		json_object(&document, NULL);
		json_string(&document, "key", key);
		print_value_json(key, value);
		if (line == 0) {
			json_null(&document, "file");
		} else {
			snprintf(path, sizeof path, "%s/%s", spool_path, file);
			json_string(&document, "file", path);
			json_number(&document, "line", line);
		}
		json_close(&document);
		return;
	}
	printf("%-16s %-16s ", key, value);
	if (line == 0)
		puts("default");
	else
		printf("%s/%s:%u\n", spool_path, file, line);
}

int
cmd_config(struct spool *sp, int argc, char *argv[])
{
	const char *queue = argc > 0 ? config_arg(argv[0]) : NULL;

	if (want_json)
		begin_array("settings");
	int r = spool_settings(sp, queue, print_setting, print_mistake);
	if (r == -1)
		die_system(argc > 0 ? argv[0] : "the spool");
	end_array();
	if (r == 0)
		die(EXIT_NOTHING, "%s: no such queue", argv[0]);
	return 0;
}

int
cmd_status(struct spool *sp, int argc, char *argv[])
{
	char setting[32];
	char *settings[] = {setting};

	if (argc == 0) {
		spool_on_mistake(sp, print_mistake);
		const char *name = config_status_name(spool_config(sp, NULL)->status);
		if (spool_config_known(sp, NULL) == -1)
			die_system(".config");
		if (want_json) {
			json_begin(&document, stdout);
			json_string(&document, "status", name);
			json_end(&document);
		} else {
			puts(name);
		}
		return 0;
	}
	if (want_json)
		die(EXIT_USAGE, "status %s: there is nothing to list", argv[0]);
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
	progress_hide();
	if (want_json) {
		json_object(&document, NULL);
		json_string(&document, "what", what);
		json_string(&document, "path", path);
		json_string(&document, "detail", detail);
		json_close(&document);
	} else {
		/* The name of a foreign file may be anything. */
		char shown[PATH_LEN];
		snprintf(shown, sizeof shown, "%s", path);
		make_printable(shown);
		printf("%s %s: %s\n", what, shown, detail);
	}
}

int
cmd_check(struct spool *sp, int argc, char *argv[])
{
	bool repair = argc == 1 && strcmp(argv[0], "--repair") == 0;
	int64_t n;

	if (argc == 1 && !repair)
		die(EXIT_USAGE, "check %s: did you mean --repair?", argv[0]);
	if (want_json)
		begin_array("findings");
	show_progress(sp, "check");
	n = spool_check(sp, repair, report);
	progress_end();
	if (n == -1)
		die_system("the spool");
	end_array();
	return n == 0 ? 0 : EXIT_NOTHING;
}
