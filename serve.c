/*
 * serve.c: the commands of one connection, from the first to the last.
 *
 * A line is read (connection.c), parsed (proto.c) and carried out, until the client quits or
 * leaves. set receives a body whole before it is pushed. get claims a message and sends it; how
 * the message then leaves the spool depends on what was asked for:
 *
 *     get q        its claim is finished as soon as the message is written (conn_deliver)
 *     get q/open   it is open: we keep the claim until the client closes it (finished) or aborts
 *     monitor q    it, or is gone, or until it was open for too long (released: the message is
 *                  back at its place)
 *     get q/peek   it was only looked at, and stays
 *
 * Where there are passwords (auth.c) the first command is a set whose block is one. Until then nothing
 * else is carried out, and the spool is not looked at.
 *
 * A command refuses with one line, before it has changed anything: because of its key, of what the
 * connection holds open, or of the status of the spool.
 *
 * What is told of the spool is in report.c.
 */
#include "serve.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "auth.h"
#include "connection.h"
#include "log.h"
#include "os.h"
#include "proto.h"
#include "queue_name.h"
#include "report.h"
#include "stats.h"
#include "wait.h"

/* Opened and not yet closed. Each has a handle of the spool, as have the claims that are not yet
 * written (CLAIMS_MAX in connection.c) and a push to many queues (SPREAD_MAX in fanout.c): together
 * fewer than there are. */
#define OPEN_MAX CONFIG_OPEN_MAX
_Static_assert(PROTO_DELAY_MAX == CONFIG_DELAY_MAX, "a delay is as long as the settings allow");

static struct opened {
	char queue[QUEUE_NAME_MAX + 1];
	struct claim claim;
	uint64_t until;        /* when it goes back (os_monotonic_ms); 0: whenever it is closed */
	unsigned long flushes; /* what conn.flushes was when it was sent */
	bool late;             /* it has gone back, with its claim; the client will be told */
} opened[OPEN_MAX];            /* delivered to be closed later, the oldest first */
static size_t nopened;

void
serve_terminate(int sig)
{
	conn_terminate(sig);
}

/* Why a command that this status, or a stricter one, does not allow is refused; NULL if it is not. */
static const char *
refused_now(enum config_status status)
{
	const struct config *config = spool_config(conn.spool, NULL);

	if (spool_config_known(conn.spool, NULL) == -1) {
		static char refusal[96];
		const char *what = ".config: ";
		int e = errno;
		if (spool_dirfd(conn.spool) == -1) /* then it is no fault of that */
			what = "", e = errno;
		conn_log_error(".config", e);
		snprintf(refusal, sizeof refusal, "SERVER_ERROR %s%s", what, spool_strerror(e));
		return refusal;
	}
	switch (config->status) {
	case STATUS_READONLY:
		return status <= STATUS_READONLY ? "SERVER_ERROR readonly" : NULL;
	case STATUS_QUIESCENT:
		return "SERVER_ERROR quiescent";
	default:
		return NULL;
	}
}

/*
 * Messages in
 */

/* What a client is told of a push, to one queue or to several. */
static void
answer_push(const struct command *c, const struct spread *s)
{
	stats_add(STATS_ITEMS, s->stored);
	if (s->failed[0] == '\0') {
		conn_worked();
		conn_reply(c, "STORED");
	} else if (s->full == s->wanted) {
		conn_reply(c, "NOT_STORED");
	} else if (s->stored == 0 && s->error != 0) {
		conn_reply_error(c, s->failed, s->error);
	} else {
		const char *why = s->error == 0 ? "full" : spool_strerror(s->error);
		if (s->error != 0)
			conn_log_error(s->failed, s->error);
		if (!c->noreply)
			conn_put_line("SERVER_ERROR stored in %u of %u queues, not in %s: %s",
			              s->stored, s->wanted, s->failed, why);
	}
}

static void
do_set(const struct command *c, uint64_t max_body)
{
	char queue[QUEUE_NAME_MAX + 1];
	struct word name;
	struct push push;
	struct spread spread;
	int64_t delay;
	int error = 0;
	const char *refusal = proto_set_options(c->key, &name, &delay);

	if (refusal == NULL)
		refusal = proto_key_error(name, queue);
	if (refusal == NULL && c->bytes > max_body)
		refusal = "SERVER_ERROR object too large for cache";
	if (refusal == NULL)
		refusal = refused_now(STATUS_READONLY);
	/* A small one is not in the way, and push_publish asks the same. */
	if (refusal == NULL && c->bytes > SPOOL_SMALL &&
	    !spool_accepts(conn.spool, queue, c->bytes))
		refusal = "NOT_STORED";
	if (refusal != NULL) {
		if (conn_swallow(c->bytes))
			conn_reply(c, refusal);
		return;
	}
	/* From here on c->key is overwritten. */
	if (!conn_gather(c->bytes + 1))
		return;
	stats_add(STATS_CMD_SET, 1);
	push_begin(&push, conn.spool, queue);
	push.exptime = c->exptime;
	push.delay = delay;
	switch (conn_receive_body(&push, c->bytes, &error)) {
	case BLOCK_CUT:
		return;
	case BLOCK_BAD:
		conn_reply(c, "CLIENT_ERROR bad data chunk");
		return;
	case BLOCK_GOOD:
		break;
	}
	if (error != 0) {
		conn_reply_error(c, queue, error);
		return;
	}
	push_spread(&push, c->flags, &spread);
	answer_push(c, &spread);
}

/*
 * Open messages
 */

/* What is open, of a queue: the place of the oldest, or nopened; and how many. */
static size_t
find_opened(const char *queue, size_t *count)
{
	size_t first = nopened;

	*count = 0;
	for (size_t i = nopened; i > 0; i--)
		if (strcmp(opened[i - 1].queue, queue) == 0) {
			first = i - 1;
			++*count;
		}
	return first;
}

static void
keep_open(const char *queue, const struct claim *claim)
{
	uint64_t ms = spool_config(conn.spool, queue)->open_timeout;
	struct opened *o = &opened[nopened++];

	*o = (struct opened){
	    .claim = *claim, .until = ms > 0 ? os_monotonic_ms() + ms : 0, .flushes = conn.flushes};
	strcpy(o->queue, queue);
}

/* End what is open at place i, as done or undone. That we are to end is no fault of the message. */
static void
end_opened(size_t i, bool done)
{
	struct claim *c = &opened[i].claim;
	bool late = opened[i].late;

	/* What could not be written was not delivered, whatever the client has sent in advance. */
	if (done && opened[i].flushes == conn.flushes) {
		conn_flush();
		done = opened[i].flushes != conn.flushes;
	}
	if (!late && done && claims_finish(c, 1) == -1)
		conn_log_error("a message that was closed may come again", errno);
	if (!late && !done && claim_release(c, !conn_terminating) == -1)
		conn_log_error("putting a message back", errno);
	nopened--;
	memmove(opened + i, opened + i + 1, (nopened - i) * sizeof opened[0]);
}

/* What was open for too long goes back. Returns when the next one will have been, or 0. */
static uint64_t
release_late(void)
{
	uint64_t now = 0, next = 0;

	for (size_t i = 0; i < nopened; i++) {
		struct opened *o = &opened[i];
		if (o->until == 0 || o->late)
			continue;
		if (now == 0)
			now = os_monotonic_ms();
		if (now >= o->until) {
			o->late = true;
			if (claim_release(&o->claim, true) == -1)
				conn_log_error("putting a message back", errno);
		} else if (next == 0 || o->until < next) {
			next = o->until;
		}
	}
	return next;
}

/*
 * Messages out
 */

/* Take the head of a queue out, or look at it. */
static enum claim_result
take(const char *queue, const struct get_options *o, struct claim *claim)
{
	enum claim_result r;

	if (o->peek)
		return spool_peek(conn.spool, queue, claim);
	while ((r = spool_claim(conn.spool, queue, o->open ? CLAIM_TO_OPEN : CLAIM_PLAINLY,
	                        claim)) == CLAIM_DAMAGED)
		log_error("%s/%016" PRIu64 " is damaged: moved to %s/.bad", queue,
		          claim->message.number, queue);
	return r;
}

/* It was taken for nobody. */
static void
give_back(const struct get_options *o, struct claim *claim)
{
	if (o->peek)
		look_end(claim);
	else if (claim_release(claim, false) == -1)
		conn_log_error("putting a message back", errno);
}

/* The queue is empty: wait for a message, as long as the client waits. */
static enum claim_result
wait_and_take(const char *queue, const struct get_options *o, uint64_t deadline,
              struct claim *claim)
{
	struct pollfd client = conn_watch();
	enum claim_result r = CLAIM_EMPTY;
	struct waiter w;

	if (waiter_begin(&w, conn.spool, queue) == -1)
		return CLAIM_ERROR;
	while (!conn_terminating && !conn.reader_gone && refused_now(STATUS_QUIESCENT) == NULL) {
		if (waiter_is_first(&w))
			r = take(queue, o, claim);
		/* The lock may have been waited for, too. */
		if (r == CLAIM_GOT && conn_has_left(&client)) {
			give_back(o, claim);
			r = CLAIM_EMPTY;
			break;
		}
		if (r != CLAIM_EMPTY || os_monotonic_ms() >= deadline)
			break;
		uint64_t next = release_late();
		if (waiter_sleep(&w, &client, next != 0 && next < deadline ? next : deadline) ==
		    -1) {
			r = CLAIM_ERROR;
			break;
		}
		if (conn_has_left(&client))
			break; /* before anything is taken for it */
	}
	int e = errno;
	waiter_end(&w);
	errno = e;
	return r;
}

/* Take and send the head of one queue. Returns 0, or an errno if there was one. */
static int
get_one(struct word key, const char *queue, const struct get_options *o, bool with_cas)
{
	struct claim claim;
	enum claim_result r;

	if (conn.reader_gone)
		return 0;
	stats_add(STATS_CMD_GET, 1);
	r = take(queue, o, &claim);
	/* A child of another queue, of which it will have all from now on. */
	if (r == CLAIM_EMPTY && strchr(queue, '+') != NULL && spool_make(conn.spool, queue) == -1)
		r = CLAIM_ERROR;
	if (r == CLAIM_EMPTY && o->wait_ms > 0)
		r = wait_and_take(queue, o, os_monotonic_ms() + o->wait_ms, &claim);
	if (r == CLAIM_ERROR) {
		int e = errno;
		conn_log_error(queue, e);
		return e;
	}
	if (r == CLAIM_EMPTY) {
		stats_add(STATS_GET_MISSES, 1);
		return 0;
	}
	stats_add(STATS_GET_HITS, 1);
	conn_send_message(key, with_cas, &claim);
	if (o->peek) {
		look_end(&claim);
	} else if (o->open) {
		keep_open(queue, &claim);
	} else {
		conn_deliver(&claim);
	}
	return 0;
}

/* A set of words of one line, by where they begin. */
struct word_set {
	struct word *words;
	size_t size; /* a power of two, more than twice the number of words */
};

/* Returns false if the word was there already. */
static bool
add_word(struct word_set *set, struct word w)
{
	uint64_t hash = 14695981039346656037u; /* FNV-1a */
	size_t i, mask = set->size - 1;

	for (i = 0; i < w.len; i++)
		hash = (hash ^ (unsigned char)w.s[i]) * 1099511628211u;
	for (i = (size_t)hash & mask; set->words[i].s != NULL; i = (i + 1) & mask)
		if (set->words[i].len == w.len && memcmp(set->words[i].s, w.s, w.len) == 0)
			return false;
	set->words[i] = w;
	return true;
}

/* A get of one queue: what it says of the message that is open first, then the next one. Returns 0
 * or an errno, or sets *refusal. */
static int
get_with_options(const struct command *c, const char *queue, const struct get_options *o,
                 const char **refusal)
{
	size_t open, first;

	release_late();
	first = find_opened(queue, &open);
	if ((o->close || o->open) && open > 0 && opened[first].late) {
		end_opened(first, true);
		*refusal = "CLIENT_ERROR item was open too long";
		return 0;
	}
	if (o->open) {
		uint64_t max = spool_config(conn.spool, queue)->max_open;
		if (spool_config_known(conn.spool, queue) == -1)
			return errno;
		if (open - (o->close && open > 0) >= max)
			*refusal = "CLIENT_ERROR close current item first";
		else if (nopened == OPEN_MAX && !(o->close && open > 0))
			*refusal = "CLIENT_ERROR too many open items";
		if (*refusal != NULL)
			return 0;
	}
	if ((o->close || o->abort) && open > 0)
		end_opened(first, o->close);
	if (o->abort || (o->close && !o->open))
		return 0;
	return get_one(c->key, queue, o, c->verb == VERB_GETS);
}

/*
 * All names are looked at before the first message is taken: a refused command takes
 * none. A name given twice is served once, because clients keep one value for a key.
 */
static void
do_get(const struct command *c)
{
	char queue[QUEUE_NAME_MAX + 1];
	struct get_options options = {0}, none = {0};
	struct word_set set;
	struct word name;
	size_t nwords = 0;
	bool with_cas = c->verb == VERB_GETS, plain = true;
	unsigned long before = conn.sent;
	const char *refusal = NULL;
	int error = 0;

	for (struct word w = c->key; w.s != NULL && refusal == NULL; proto_next_word(c->end, &w)) {
		refusal = proto_get_options(w, &name, &options);
		if (refusal == NULL)
			refusal = proto_key_error(name, queue);
		plain = plain && name.len == w.len;
		if (++nwords > 1 && !plain && refusal == NULL)
			refusal = "CLIENT_ERROR options go with a get of one queue";
	}
	/* What is open can be ended at any time. */
	if (refusal == NULL && (nwords > 1 || options.open || !(options.close || options.abort)))
		refusal = refused_now(STATUS_QUIESCENT);
	if (refusal == NULL && nwords == 1)
		error = get_with_options(c, queue, &options, &refusal);
	if (refusal != NULL) {
		conn_reply(c, refusal);
		return;
	}
	if (nwords > 1) {
		for (set.size = 4; set.size < 2 * nwords; set.size *= 2)
			;
		set.words = calloc(set.size, sizeof *set.words);
		if (set.words == NULL) {
			conn_reply(c, "SERVER_ERROR out of memory");
			return;
		}
		for (struct word w = c->key; w.s != NULL; proto_next_word(c->end, &w))
			if (add_word(&set, w)) {
				proto_key_error(w, queue);
				int e = get_one(w, queue, &none, with_cas);
				if (e != 0)
					error = e;
			}
		free(set.words);
	}
	/* What was taken must reach the application: an error line would make most
	 * clients throw it away. */
	if (error != 0 && conn.sent == before)
		conn_reply_error(c, queue, error);
	else
		conn_put_line("END");
	if (error == 0)
		conn_worked();
}

/* Messages as they come, for so many seconds, or until so many have come, or no more can be open. */
static void
do_monitor(const struct command *c)
{
	static const struct get_options open = {.open = true};
	char queue[QUEUE_NAME_MAX + 1];
	const char *refusal = proto_key_error(c->key, queue);
	uint64_t deadline = os_monotonic_ms() + c->number[0] * 1000;
	uint64_t max = c->number[1] > 0 ? c->number[1] : OPEN_MAX;
	enum claim_result r = CLAIM_GOT;
	struct claim claim;

	if (refusal == NULL && nopened == OPEN_MAX)
		refusal = "CLIENT_ERROR too many open items";
	if (refusal == NULL)
		refusal = refused_now(STATUS_QUIESCENT);
	if (refusal != NULL) {
		conn_reply(c, refusal);
		return;
	}
	stats_add(STATS_CMD_GET, 1);
	for (; max > 0 && nopened < OPEN_MAX && !conn.reader_gone && !conn_terminating; max--) {
		if (refused_now(STATUS_QUIESCENT) != NULL)
			break;
		r = take(queue, &open, &claim);
		if (r == CLAIM_EMPTY)
			r = wait_and_take(queue, &open, deadline, &claim);
		if (r != CLAIM_GOT)
			break;
		stats_add(STATS_GET_HITS, 1);
		conn_send_message(c->key, false, &claim);
		conn_put_line("END");
		keep_open(queue, &claim);
	}
	if (r == CLAIM_ERROR)
		conn_reply_error(c, queue, errno);
	else
		conn_put_line("END");
}

/* Is one of the n oldest that are open of a queue late? The first such is forgotten: it is told. */
static bool
forget_late(const char *queue, uint64_t n)
{
	for (size_t i = 0; i < nopened && n > 0; i++) {
		if (strcmp(opened[i].queue, queue) != 0)
			continue;
		n--;
		if (opened[i].late) {
			end_opened(i, true);
			return true;
		}
	}
	return false;
}

/* So many of the messages of a queue that are open are done, the oldest first. */
static void
do_confirm(const struct command *c)
{
	char queue[QUEUE_NAME_MAX + 1];
	const char *refusal = proto_key_error(c->key, queue);
	size_t open;

	if (refusal == NULL) {
		release_late();
		find_opened(queue, &open);
		if (c->number[0] > open)
			refusal = "CLIENT_ERROR fewer items are open";
		else if (forget_late(queue, c->number[0]))
			refusal = "CLIENT_ERROR item was open too long";
	}
	if (refusal != NULL) {
		conn_reply(c, refusal);
		return;
	}
	for (uint64_t n = c->number[0]; n > 0; n--)
		end_opened(find_opened(queue, &open), true);
	conn_put_line("END");
}

/*
 * Queues
 */

static void
do_delete(const struct command *c)
{
	char queue[QUEUE_NAME_MAX + 1];
	const char *refusal = proto_key_error(c->key, queue);
	int r;

	if (refusal == NULL)
		refusal = refused_now(STATUS_READONLY);
	if (refusal != NULL) {
		conn_reply(c, refusal);
		return;
	}
	r = spool_delete(conn.spool, queue);
	if (r == -1) {
		conn_reply_error(c, queue, errno);
		return;
	}
	conn_reply(c, r == 1 ? "DELETED" : "NOT_FOUND");
	if (r == 1)
		conn.has_trash = true; /* a million files take longer than a client waits */
}

static void
do_flush(const struct command *c)
{
	char queue[QUEUE_NAME_MAX + 1];
	const char *refusal = proto_key_error(c->key, queue);

	if (refusal == NULL)
		refusal = refused_now(STATUS_READONLY);
	if (refusal != NULL) {
		conn_reply(c, refusal);
		return;
	}
	conn_flush(); /* a million messages take longer than the replies before it may wait */
	if (spool_flush(conn.spool, queue) == -1)
		conn_reply_error(c, queue, errno);
	else
		conn_reply(c, "END");
}

/* Some client libraries send this when they say good-bye, and it is data: so only where an operator
 * has allowed it. */
static void
do_flush_all(const struct command *c)
{
	const char *refusal = refused_now(STATUS_READONLY);
	char **queues;
	int r = 0;

	if (!spool_config(conn.spool, NULL)->allow_flush_all &&
	    spool_config_known(conn.spool, NULL) == 0)
		refusal = "CLIENT_ERROR flush_all not allowed";
	if (refusal != NULL) {
		conn_reply(c, refusal);
		return;
	}
	queues = spool_list(conn.spool);
	for (size_t i = 0; queues != NULL && queues[i] != NULL && r != -1; i++)
		r = spool_flush(conn.spool, queues[i]) == -1 ? -1 : 0;
	int e = errno;
	if (queues == NULL || r == -1)
		conn_reply_error(c, "flush_all", e);
	else
		conn_reply(c, "OK");
	spool_list_free(queues);
}

/* Of one queue, or of all. */
static void
do_flush_expired(const struct command *c)
{
	char queue[QUEUE_NAME_MAX + 1];
	const char *refusal = c->key.s != NULL ? proto_key_error(c->key, queue) : NULL;
	char *one[] = {queue, NULL}, **queues = c->key.s != NULL ? one : NULL;
	int64_t removed = 0, n = 0;

	if (refusal == NULL)
		refusal = refused_now(STATUS_READONLY);
	if (refusal != NULL) {
		conn_reply(c, refusal);
		return;
	}
	conn_flush();
	if (queues == NULL && (queues = spool_list(conn.spool)) == NULL)
		n = -1;
	for (size_t i = 0; n != -1 && queues[i] != NULL; i++) {
		n = spool_flush_expired(conn.spool, queues[i]);
		removed += n;
	}
	int e = errno;
	if (n == -1)
		conn_reply_error(c, "flush_expired", e);
	else
		conn_put_line("%" PRId64, removed);
	if (queues != one)
		spool_list_free(queues);
}

/* For so many seconds nothing is delivered; 0: from now on again. */
static void
do_pause(const struct command *c)
{
	char queue[QUEUE_NAME_MAX + 1];
	const char *refusal = proto_key_error(c->key, queue);

	if (refusal != NULL)
		conn_reply(c, refusal);
	else if (spool_pause(conn.spool, queue, c->number[0] * 1000) == -1)
		conn_reply_error(c, queue, errno);
	else
		conn_reply(c, "OK");
}

static void
log_mistake(const char *what, const char *path, const char *detail)
{
	(void)what;
	log_often("%s: %s", path, detail);
}

/* Tell the status, or change it. */
static void
do_status(const struct command *c)
{
	static const char *const replies[] = {
	    [STATUS_UP] = "UP", [STATUS_READONLY] = "READONLY", [STATUS_QUIESCENT] = "QUIESCENT"};
	char setting[32];
	char *settings[] = {setting};
	uint64_t status = STATUS_UP;

	if (spool_dirfd(conn.spool) == -1) {
		conn_reply_error(c, "status", errno);
		return;
	}
	if (c->key.s == NULL) {
		const struct config *config = spool_config(conn.spool, NULL);
		if (spool_config_known(conn.spool, NULL) == -1)
			conn_reply_error(c, "status", errno);
		else
			conn_reply(c, replies[config->status]);
		return;
	}
	while (status <= STATUS_QUIESCENT && !proto_word_is(c->key, config_status_name(status)))
		status++;
	if (status > STATUS_QUIESCENT) {
		conn_reply(c, "CLIENT_ERROR status must be up, readonly or quiescent");
		return;
	}
	snprintf(setting, sizeof setting, "status=%s", config_status_name(status));
	int r = spool_configure(conn.spool, NULL, settings, 1, log_mistake);
	if (r == -1)
		conn_reply_error(c, "status", errno);
	else
		conn_reply(c, r == 0 ? "END" : "SERVER_ERROR mistake in .config");
}

/*
 * A client that has to give a password. Specification: memcached's doc/protocol.txt, and its answers;
 * but a block is never run as commands, `noreply` is obeyed, and a client that guesses is left.
 */

/* A set, whatever its key. Returns whether its block was a user's password; *wrong counts those that
 * were none. */
static bool
log_in(const struct command *c, unsigned *wrong)
{
	static const char *const replies[] = {[AUTH_GOOD] = "STORED",
	                                      [AUTH_WRONG] = "CLIENT_ERROR authentication failure",
	                                      [AUTH_MALFORMED] =
	                                          "CLIENT_ERROR bad authentication token format"};
	enum auth_result r;
	char *token;

	if (c->bytes > AUTH_TOKEN_MAX) {
		conn_reply(c, "CLIENT_ERROR auth token too long");
		conn.closing = true;
		return false;
	}
	switch (conn_take_block((size_t)c->bytes, &token)) {
	case BLOCK_CUT:
		return false;
	case BLOCK_BAD:
		conn_reply(c, "CLIENT_ERROR bad command line termination");
		return false;
	case BLOCK_GOOD:
		break;
	}
	r = auth_check(token, (size_t)c->bytes);
	memset(token, 0, (size_t)c->bytes);
	conn_reply(c, replies[r]);
	if (r != AUTH_GOOD && ++*wrong == AUTH_TRIES_MAX) {
		log_often("a client gave %u wrong passwords: left", *wrong);
		conn.closing = true;
	}
	return r == AUTH_GOOD;
}

/* Returns whether the client may go on. */
static bool
let_in(void)
{
	struct command c;
	const char *line;
	unsigned wrong = 0;
	size_t len;

	while (!conn.closing && conn_next_line(&line, &len)) {
		proto_parse(line, len, &c);
		if (c.verb == VERB_QUIT && c.reply == NULL)
			break;
		if (c.verb == VERB_SET && c.has_block) {
			if (log_in(&c, &wrong))
				return true;
		} else if (!c.has_block || conn_swallow(c.bytes)) {
			conn_reply(&c, "CLIENT_ERROR unauthenticated");
		}
	}
	return false;
}

/*
 * The loop
 */

static void
run(const struct command *c, const struct serve_options *options)
{
	if (c->reply != NULL) {
		if (!c->has_block || conn_swallow(c->bytes))
			conn_reply(c, c->reply);
		return;
	}
	switch (c->verb) {
	case VERB_SET:
		do_set(c, options->max_body);
		break;
	case VERB_GET:
	case VERB_GETS:
		do_get(c);
		break;
	case VERB_FLUSH_ALL:
		do_flush_all(c);
		break;
	case VERB_FLUSH_EXPIRED:
		do_flush_expired(c);
		break;
	case VERB_MONITOR:
		do_monitor(c);
		break;
	case VERB_CONFIRM:
		do_confirm(c);
		break;
	case VERB_DELETE:
		do_delete(c);
		break;
	case VERB_FLUSH:
		do_flush(c);
		break;
	case VERB_PAUSE:
		do_pause(c);
		break;
	case VERB_STATUS:
		do_status(c);
		break;
	case VERB_STATS:
		report_stats(c, options);
		break;
	case VERB_DUMP_STATS:
		report_dump_stats(c);
		break;
	case VERB_VERSION:
		conn_put_line("VERSION " MQD_VERSION);
		break;
	case VERB_QUIT:
		conn.closing = true;
		break;
	case VERB_FIXED:
		break; /* has a reply */
	}
}

bool
serve(struct spool *sp, const struct serve_options *options, int in, int out)
{
	struct command c;
	const char *line;
	size_t len;
	int dirfd;

	spool_on_mistake(sp, log_mistake);
	conn_begin(sp, options->idle_timeout, options->keepalive, in, out, release_late);
	if (options->ask_password && !let_in()) {
		conn_flush();
		conn_end();
		return false;
	}
	dirfd = spool_dirfd(sp);
	if (dirfd != -1 && stats_open(dirfd) == -1)
		log_often("counting for this connection alone: %s", strerror(errno));
	stats_enter();
	stats_add(STATS_CONNECTIONS, 1);
	log_info("a connection begins");
	while (!conn.closing && conn_next_line(&line, &len)) {
		proto_parse(line, len, &c);
		run(&c, options);
	}
	conn_flush();
	while (nopened > 0)
		end_opened(0, false);
	conn_end();
	log_info("the connection ends");
	stats_leave();
	waiter_tidy();
	return true;
}
