/*
 * tail.c: mqctl tail: show what comes into a queue, taking none of it.
 *
 * A message gets the queue's next number when it comes in, so what came since the last look are
 * the numbers between: each is shown if it is still there, else counted. One that comes back at its
 * old number has been there before, and is not shown again; one that was delayed gets its number
 * when it is due. The directory is watched as by those who wait for a message (wait.c), but without a
 * place in their line.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "list.h"
#include "mqctl.h"
#include "number.h"
#include "os.h"
#include "spool_queue.h"
#include "terminal.h"

#define LAST 10        /* messages that are shown first */
#define LAST_MAX 10000 /* of these */
#define LOOK_MS 100    /* between two looks, where nothing can tell of what came */
#define DUE_MS 1000    /* between two looks for what was delayed, and for a queue that has gone */

struct tail {
	struct spool *spool;
	const char *name;
	struct queue *queue;
	uint64_t next;   /* the first number that was not looked at */
	uint64_t unseen; /* taken since the last message that was shown */
};

struct highest {
	uint64_t *numbers;
	size_t n, max;
};

/* Keep the highest numbers seen so far, in order. */
static int
keep_highest(void *arg, int dirfd, uint64_t number, const char *name)
{
	struct highest *h = arg;
	size_t at = 0;

	(void)dirfd, (void)name;
	if (h->n == h->max) {
		if (number < h->numbers[0])
			return 0;
		for (; at + 1 < h->n && h->numbers[at + 1] < number; at++)
			h->numbers[at] = h->numbers[at + 1];
	} else {
		for (at = h->n++; at > 0 && h->numbers[at - 1] > number; at--)
			h->numbers[at] = h->numbers[at - 1];
	}
	h->numbers[at] = number;
	return 0;
}

/* Tell of those that could not be shown, before one that can, or when nothing more is to come. */
static void
show_unseen(struct tail *t)
{
	if (t->unseen > 0)
		printf("%s %" PRIu64 " taken unseen\n", terminal_is_utf8() ? "…" : "...",
		       t->unseen);
	t->unseen = 0;
}

static void
show(struct tail *t, uint64_t number)
{
	struct claim c;

	switch (spool_look(t->spool, t->name, number, &c)) {
	case CLAIM_GOT:
		show_unseen(t);
		list_message(&c);
		look_end(&c);
		break;
	case CLAIM_DAMAGED:
		show_unseen(t);
		printf("%016" PRIu64 " damaged\n", number);
		break;
	case CLAIM_EMPTY:
		t->unseen++;
		break;
	case CLAIM_ERROR:
		show_unseen(t);
		printf("%016" PRIu64 " %s\n", number, strerror(errno));
		break;
	}
}

/* The number of the next message to come in; the queue is open then. */
static uint64_t
look(struct tail *t)
{
	struct queue *q;
	uint64_t next;
	int r = queue_lock(t->spool, t->name, false, &q);

	if (r == -1)
		die_system(t->name);
	if (r == 0)
		die(EXIT_NOTHING, "%s: no such queue", t->name);
	/* What is due comes in when somebody looks. */
	delay_promote(q);
	queue_store(q);
	next = state_next(&q->state);
	if (t->queue == NULL || q != t->queue) {
		if (t->queue != NULL)
			queue_unref(t->queue);
		t->queue = q;
		q->refs++;
	}
	queue_unlock(q);
	return next;
}

/* What waits already: the last `max`. */
static void
show_last(struct tail *t, size_t max)
{
	struct highest h = {.numbers = calloc(max + 1, sizeof *h.numbers), .max = max};

	if (h.numbers == NULL ||
	    (max > 0 && dir_each_number(t->queue->dirfd, keep_highest, &h) == -1))
		die_system(t->name);
	for (size_t i = 0; i < h.n; i++)
		if (h.numbers[i] < t->next)
			show(t, h.numbers[i]);
	t->unseen = 0; /* they were not to be taken for what came in */
	free(h.numbers);
}

/* Sleep until there may be something to show. Returns false when nobody reads any more. */
static bool
wait_for_more(const struct os_watch *w, bool watching)
{
	/* A pipe that nobody reads says so although nothing is asked of it. */
	struct pollfd fds[] = {{.fd = STDOUT_FILENO},
	                       {.fd = watching ? w->fd : -1, .events = POLLIN}};

	if (poll(fds, 2, watching ? DUE_MS : LOOK_MS) == -1 && errno != EINTR)
		die_system("waiting");
	if (watching)
		os_watch_read(w);
	return (fds[0].revents & (POLLERR | POLLNVAL | POLLHUP)) == 0;
}

static void
follow(struct tail *t)
{
	struct os_watch w = {.fd = -1};
	const struct queue *watched = NULL;
	bool watching = false;

	do {
		if (t->queue != watched) {
			os_watch_close(&w);
			watching = queue_claim_dir(t->queue) != -1 &&
			           os_watch_begin(&w, t->queue->dirfd, t->queue->claimfd) == 0;
		}
		watched = t->queue;
		/* After the watch began: what came before has told nobody. */
		uint64_t next = look(t);
		if (t->queue != watched)
			t->next = 1; /* another queue of that name: all of it is new */
		for (; t->next < next; t->next++)
			show(t, t->next);
		show_unseen(t);
	} while (fflush(stdout) != EOF && (t->queue != watched || wait_for_more(&w, watching)));
	os_watch_close(&w);
}

int
cmd_tail(struct spool *sp, int argc, char *argv[])
{
	struct tail t = {.spool = sp};
	uint64_t last = LAST;

	for (int i = 0; i < argc; i++) {
		if (strcmp(argv[i], "-n") == 0 && i + 1 < argc)
			last = number_arg(argv[++i]);
		else if (t.name == NULL)
			t.name = queue_arg(argv[i]);
		else
			die(EXIT_USAGE, "tail: one queue");
	}
	if (t.name == NULL)
		die(EXIT_USAGE, "tail: which queue?");
	if (last > LAST_MAX)
		die(EXIT_USAGE, "tail: at most %d messages first", LAST_MAX);
	t.next = look(&t);
	show_last(&t, last);
	follow(&t);
	queue_unref(t.queue);
	return 0;
}
