/*
 * serve.c: one connection, from its first byte to its last.
 *
 * Bytes are read into one buffer and answered from another; both are fixed, and a body
 * that is larger passes through in pieces. Replies are written when the buffer is full or
 * when all commands that have arrived are answered, so commands that come together are
 * answered together. A message leaves the spool in three steps: it is claimed, its bytes
 * go into the output, and once these have been written (`flush`) the claim is finished;
 * if the write fails the claim is released, and the message is back at its place.
 *
 * A client that cannot be written to any more may still have sent commands that count:
 * they are carried out to the end of what it sent, except that nothing is taken out for
 * it.
 */
#include "serve.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "log.h"
#include "os.h"
#include "proto.h"
#include "queue_name.h"
#include "stats.h"
#include "wait.h"

#ifndef POLLRDHUP
#define POLLRDHUP 0 /* then who sends more behind a waiting get, and leaves, is found out later */
#endif
#define IN_SIZE (PROTO_GET_MAX + 1) /* one byte more than any line may have */
#define OUT_SIZE 16384
_Static_assert(PUSH_PIECE <= IN_SIZE, "a piece is gathered before it is written");
#define SEND_MAX (1 << 20) /* at one call: signals are seen between two */
#define SETTLE_MS 1        /* for the next command, before removals are flushed without it */
#define CLAIMS_MAX 16 /* delivered but not yet written; with OPEN_MAX and one more fewer than */
#define OPEN_MAX 32   /* the spool's handles; opened and not yet closed */
/* How long a reply may wait for those of the commands behind it. libmemcached with buffered
 * writes allows 50 ms for each, and one slow flush of the disk may come on top. */
#define DELAY_MS 10
#define GRACE_SECONDS 5        /* for the command at hand after a request to terminate */
#define FIRST_MS 1000          /* for the first command of a client that has just come */
#define LINGER_MS 1000         /* for the client to read our last words */
#define LINGER_BYTES (1 << 20) /* read and dropped meanwhile */

static struct connection {
	struct spool *spool;
	const struct serve_options *options;
	int in, out;
	bool is_socket, is_tcp;
	bool closing;      /* nothing further is to be read */
	bool peer_left;    /* it closed; otherwise we do */
	bool has_trash;    /* files of a deleted queue are to be unlinked */
	bool reader_gone;  /* nothing can be written any more */
	bool input_ends;   /* nothing further is read, but what was read is carried out */
	bool has_spoken;   /* the client has sent something */
	bool owes_ack;     /* something was read since we last wrote */
	int logged_error;  /* the errno last logged: a full disk is told once, not a
	                     million times */
	uint64_t waits_ms; /* since when a reply waits for those behind it, if not 0 */
	size_t start, end; /* what is unread in in_buf */
	size_t out_len;
	struct claim claims[CLAIMS_MAX]; /* whose messages lie complete in out_buf */
	size_t nclaims;
	struct opened {
		char queue[QUEUE_NAME_MAX + 1];
		struct claim claim;
		uint64_t until; /* when it goes back (os_monotonic_ms); 0: whenever it is closed */
		bool unsent;    /* it lies in out_buf, in part at least */
		bool late;      /* it has gone back, with its claim; the client will be told */
	} opened[OPEN_MAX];     /* delivered to be closed later, the oldest first */
	size_t nopened;
	unsigned long sent; /* messages, ever */
	char in_buf[IN_SIZE];
	char out_buf[OUT_SIZE];
} conn;

static volatile sig_atomic_t terminating; /* seconds since the request, from 1 */

void
serve_terminate(void)
{
	/* The alarm makes sure that no call blocks for ever, also one that begins just after
	 * this. Where one goes on all the same (a lock that somebody else holds), everything that
	 * is left is the kernel's to release. */
	if (++terminating > GRACE_SECONDS + 2)
		_exit(0);
	alarm(1);
}

static bool
out_of_grace(void)
{
	return terminating > GRACE_SECONDS;
}

/*
 * Output
 */

/* Wait until a descriptor that does not block is ready. */
static bool
wait_for(int fd, short events)
{
	struct pollfd p = {.fd = fd, .events = events};
	int timeout = conn.options->idle_timeout;

	return poll(&p, 1, timeout > 0 ? timeout * 1000 : -1) != 0 && !out_of_grace();
}

/* Does the kernel give up on a silent peer for us, and say EAGAIN? */
static bool
times_out(void)
{
	return conn.is_socket && conn.options->idle_timeout > 0;
}

/* After a read or write that failed: shall it be tried again? */
static bool
may_go_on(int fd, short events)
{
	if (errno == EINTR)
		return !out_of_grace();
	return errno == EAGAIN && !times_out() && wait_for(fd, events);
}

/* What a client sent before it left still counts. But one that is there and cannot be
 * written to would wait for its replies for ever. */
static void
reader_is_gone(int error)
{
	conn.reader_gone = true;
	conn.input_ends = error != EPIPE && error != ECONNRESET;
}

/* Before anything further is written, what was delivered must not come again. */
static void
settle(void)
{
	if (spool_settle(conn.spool) == -1)
		log_error("after a power loss a delivered message may come again: %s",
		          strerror(errno));
}

static void
was_written(uint64_t bytes)
{
	stats_add(STATS_BYTES_WRITTEN, bytes);
	conn.owes_ack = false;
	conn.waits_ms = 0;
}

/* Write everything in out_buf, and `len` bytes of a body behind it. */
static void
write_out(const char *body, size_t len)
{
	struct iovec piece[] = {{.iov_base = conn.out_buf, .iov_len = conn.out_len},
	                        {.iov_base = (char *)body, .iov_len = len}};
	uint64_t done = 0;

	settle();
	while (done < conn.out_len + len && !conn.reader_gone) {
		ssize_t n = writev(conn.out, piece, 2);
		if (n > 0) {
			done += (uint64_t)n;
			for (size_t i = 0, rest = (size_t)n; i < 2; i++) {
				size_t part = rest < piece[i].iov_len ? rest : piece[i].iov_len;
				piece[i].iov_base = (char *)piece[i].iov_base + part;
				piece[i].iov_len -= part;
				rest -= part;
			}
		} else if (!may_go_on(conn.out, POLLOUT)) {
			reader_is_gone(errno);
		}
	}
	was_written(done);
	conn.out_len = 0;
}

static void
log_spool_error(const char *what, int error)
{
	if (error != conn.logged_error)
		log_error("%s: %s", what, strerror(error));
	conn.logged_error = error;
}

/* Write the replies; with them written, the messages in them are delivered. A body that follows
 * them is written at once, from where it lies; its message is delivered when its end is. */
static void
flush_with(const char *body, size_t len)
{
	if (conn.out_len + len > 0)
		write_out(body, len);
	for (size_t i = 0; i < conn.nopened && !conn.reader_gone; i++)
		conn.opened[i].unsent = false;
	if (conn.nclaims == 0)
		return;
	if (!conn.reader_gone) {
		if (claims_finish(conn.claims, conn.nclaims) == -1)
			log_spool_error("a delivered message may come again", errno);
	} else {
		for (size_t i = 0; i < conn.nclaims; i++)
			if (claim_release(&conn.claims[i], !terminating) == -1)
				log_spool_error("putting a message back", errno);
	}
	conn.nclaims = 0;
}

static void
flush(void)
{
	flush_with(NULL, 0);
}

static void
put_bytes(const char *data, size_t len)
{
	while (len > 0) {
		if (conn.out_len == OUT_SIZE)
			flush();
		size_t n = OUT_SIZE - conn.out_len < len ? OUT_SIZE - conn.out_len : len;
		memcpy(conn.out_buf + conn.out_len, data, n);
		conn.out_len += n;
		data += n;
		len -= n;
	}
}

__attribute__((format(printf, 1, 2))) static void
put_line(const char *format, ...)
{
	char line[PROTO_KEY_MAX + 256];
	va_list args;

	va_start(args, format);
	int n = vsnprintf(line, sizeof line - 2, format, args);
	va_end(args);
	if (n > (int)sizeof line - 3)
		n = (int)sizeof line - 3;
	memcpy(line + n, "\r\n", 2);
	put_bytes(line, (size_t)n + 2);
}

static void
reply(const struct command *c, const char *line)
{
	if (!c->noreply)
		put_line("%s", line);
}

static void
reply_error(const struct command *c, const char *queue, int error)
{
	log_spool_error(queue, error);
	if (c->noreply)
		return;
	if (error == ENOSPC || error == EDQUOT)
		put_line("SERVER_ERROR out of memory storing object (%s)", strerror(error));
	else
		put_line("SERVER_ERROR %s", strerror(error));
}

/*
 * Input
 */

/* Is there something more urgent to do than to unlink the files of a deleted queue? */
static bool
is_needed(void)
{
	struct pollfd p = {.fd = conn.in, .events = POLLIN};

	return terminating || (!conn.peer_left && poll(&p, 1, 0) != 0);
}

static void
empty_trash(void)
{
	if (conn.has_trash && spool_empty_trash(conn.spool, is_needed))
		conn.has_trash = false;
}

/* A client that was accepted just before we were told to end has not had its turn yet: is its
 * first command here, or comes at once? */
static bool
is_beginning(void)
{
	struct pollfd p = {.fd = conn.in, .events = POLLIN};

	return conn.is_socket && !conn.has_spoken && poll(&p, 1, FIRST_MS) == 1;
}

/* What was open for too long goes back. Returns when the next one will have been, or 0. */
static uint64_t
release_late(void)
{
	uint64_t now = 0, next = 0;

	for (size_t i = 0; i < conn.nopened; i++) {
		struct opened *o = &conn.opened[i];
		if (o->until == 0 || o->late)
			continue;
		if (now == 0)
			now = os_monotonic_ms();
		if (now >= o->until) {
			o->late = true;
			if (claim_release(&o->claim, true) == -1)
				log_spool_error("putting a message back", errno);
		} else if (next == 0 || o->until < next) {
			next = o->until;
		}
	}
	return next;
}

/* While messages are open that may be so for some time alone: wait for input, or for their end.
 * False: the client has been silent for too long. */
static bool
await_input(void)
{
	struct pollfd p = {.fd = conn.in, .events = POLLIN};
	uint64_t idle_ms = (uint64_t)conn.options->idle_timeout * 1000, begin = 0;

	for (uint64_t next; (next = release_late()) != 0;) {
		uint64_t now = os_monotonic_ms();
		if (begin == 0)
			begin = now;
		if (idle_ms > 0 && now >= begin + idle_ms)
			return false;
		if (idle_ms > 0 && begin + idle_ms < next)
			next = begin + idle_ms;
		uint64_t ms = next > now ? next - now : 0;
		if (poll(&p, 1, ms > INT_MAX ? INT_MAX : (int)ms) != 0)
			break;
	}
	return true;
}

/* Read more, waiting for it. Before that everything is answered: the client may be
 * waiting as well. `between` says that no command is at hand. Returns false if nothing
 * more comes. */
static bool
fill(bool between)
{
	struct pollfd p = {.fd = conn.in, .events = POLLIN};
	ssize_t n;

	flush();
	if (between)
		empty_trash();
	if (!spool_is_settled(conn.spool) && poll(&p, 1, SETTLE_MS) <= 0)
		settle();
	spool_tidy(conn.spool);
	if (conn.input_ends)
		return false;
	if (conn.owes_ack && conn.is_tcp)
		os_quick_ack(conn.in); /* it may hold its next segment back until then */
	if (conn.start == conn.end) {
		conn.start = conn.end = 0;
	} else if (conn.end == IN_SIZE) {
		memmove(conn.in_buf, conn.in_buf + conn.start, conn.end - conn.start);
		conn.end -= conn.start;
		conn.start = 0;
	}
	if (!await_input() ||
	    (!conn.is_socket && conn.options->idle_timeout > 0 && !wait_for(conn.in, POLLIN)))
		return false;
	for (;;) {
		if (between && terminating && !is_beginning())
			return false;
		if (!await_input())
			return false;
		n = read(conn.in, conn.in_buf + conn.end, IN_SIZE - conn.end);
		if (n > 0)
			break;
		conn.peer_left = n == 0 || errno == ECONNRESET;
		if (n == 0 || !may_go_on(conn.in, POLLIN))
			return false;
	}
	conn.end += (size_t)n;
	conn.owes_ack = conn.has_spoken = true;
	stats_add(STATS_BYTES_READ, (uint64_t)n);
	return true;
}

static void
refuse_binary(void)
{
	char packet[64];
	size_t len = proto_refuse_binary(conn.in_buf + conn.start, conn.end - conn.start, packet);

	put_bytes(packet, len);
	log_error("a client speaks the binary protocol: refused");
	conn.closing = true;
}

/* The next command line, without its end. Returns false if there is none any more. */
static bool
next_line(const char **line, size_t *len)
{
	size_t seen = 0;

	for (;;) {
		const char *p = conn.in_buf + conn.start, *newline;
		size_t here = conn.end - conn.start;

		if (here > 0 && (unsigned char)p[0] == PROTO_BINARY) {
			refuse_binary();
			return false;
		}
		newline = memchr(p + seen, '\n', here - seen);
		seen = newline != NULL ? (size_t)(newline - p) + 1 : here;
		if (proto_too_long(p, seen)) {
			put_line("CLIENT_ERROR line too long");
			conn.closing = true;
			return false;
		}
		if (newline != NULL) {
			conn.start += seen;
			*line = p;
			*len = seen - 1 - (seen > 1 && newline[-1] == '\r');
			return true;
		}
		if (!fill(true))
			return false;
	}
}

/* Bytes that are here, `max` at the most; waits for the first. 0 if nothing more comes.
 */
static size_t
available(uint64_t max)
{
	if (conn.start == conn.end && !fill(false)) {
		conn.closing = true;
		return 0;
	}
	return conn.end - conn.start < max ? conn.end - conn.start : (size_t)max;
}

enum block_end { BLOCK_CUT, BLOCK_BAD, BLOCK_GOOD };

/* Read the CRLF behind a data block. Where there is something else the block was longer
 * than announced, or shorter: the stream is in step again behind the next newline. */
static enum block_end
end_block(void)
{
	bool good = true;

	for (int at = 0;; at++) {
		if (available(1) == 0)
			return BLOCK_CUT;
		char ch = conn.in_buf[conn.start++];
		if (at > 1 || ch != "\r\n"[at])
			good = false;
		if (ch == '\n')
			return good ? BLOCK_GOOD : BLOCK_BAD;
	}
}

/* Read a data block that is not wanted. Returns false if the client left in it. */
static bool
swallow(uint64_t bytes)
{
	while (bytes > 0) {
		size_t n = available(bytes);
		if (n == 0)
			return false;
		conn.start += n;
		bytes -= n;
	}
	return end_block() != BLOCK_CUT;
}

/*
 * Commands
 */

/* Have `bytes` of a data block in the buffer, if they fit. False: the client left. */
static bool
gather(uint64_t bytes)
{
	if (bytes > IN_SIZE)
		return true;
	if (IN_SIZE - conn.start < bytes) {
		memmove(conn.in_buf, conn.in_buf + conn.start, conn.end - conn.start);
		conn.end -= conn.start;
		conn.start = 0;
	}
	while (conn.end - conn.start < bytes)
		if (!fill(false)) {
			conn.closing = true;
			return false;
		}
	return true;
}

/* Take a small body, which lies in the buffer with a byte behind it, and is left there until the
 * push is committed. */
static enum block_end
take_body(struct push *push, uint64_t bytes)
{
	if (conn.in_buf[conn.start + bytes] == '\r' && !gather(bytes + 2))
		return BLOCK_CUT;
	push_body(push, conn.in_buf + conn.start, (size_t)bytes);
	conn.start += bytes;
	return end_block();
}

/* Receive a body into a push. On return the data block is read to its end, whatever
 * happened to the push: *error is 0, or why it failed, and then it is aborted. */
static enum block_end
receive_body(struct push *push, uint64_t bytes, int *error)
{
	enum block_end end = BLOCK_CUT;

	while (bytes > 0) {
		size_t n = push_piece(push);
		if (n > bytes)
			n = (size_t)bytes;
		if (!gather(n))
			break;
		if (*error == 0 && push_write(push, conn.in_buf + conn.start, n) == -1) {
			*error = errno;
			push_abort(push);
		}
		conn.start += n;
		bytes -= n;
	}
	if (bytes == 0)
		end = end_block();
	if (end != BLOCK_GOOD && *error == 0)
		push_abort(push);
	return end;
}

/* How far a push has come that goes to several queues. */
struct fan {
	unsigned wanted, stored, full;
	char failed[QUEUE_NAME_MAX + 1]; /* the first queue that it could not be stored in */
	int error;
};

static void
count_push(struct fan *f, const char *queue, int result)
{
	int e = errno;

	f->wanted++;
	f->stored += result == 0;
	f->full += result == 1;
	if (result == 0)
		stats_add(STATS_ITEMS, 1);
	if (result != 0 && f->failed[0] == '\0') {
		snprintf(f->failed, sizeof f->failed, "%s", queue);
		f->error = result == 1 ? 0 : e;
	}
}

/* Store a message whose body is complete in its queue, and in that one's children. */
static void
fan_out(const struct command *c, struct push *push, const char *queue, char *const *children,
        size_t n)
{
	struct fan f = {0};
	struct push copy;

	for (size_t i = 0; i < n; i++) {
		push_begin(&copy, conn.spool, children[i]);
		copy.exptime = c->exptime;
		int r = push_copy(&copy, push);
		if (r == -1) {
			int e = errno;
			push_abort(&copy);
			errno = e;
		} else {
			r = push_commit(&copy, c->flags);
		}
		count_push(&f, children[i], r);
	}
	if (spool_config(conn.spool, queue)->fanout_only)
		push_abort(push);
	else
		count_push(&f, queue, push_commit(push, c->flags));
	if (f.stored == f.wanted && f.wanted > 0) {
		conn.logged_error = 0;
		reply(c, "STORED");
	} else if (f.full == f.wanted) {
		reply(c, "NOT_STORED");
	} else if (f.stored == 0 && f.error != 0) {
		reply_error(c, f.failed, f.error);
	} else {
		const char *why = f.error == 0 ? "full" : strerror(f.error);
		log_spool_error(f.failed, f.error);
		if (!c->noreply)
			put_line("SERVER_ERROR stored in %u of %u queues, not in %s: %s", f.stored,
			         f.wanted, f.failed, why);
	}
}

static void
do_set(const struct command *c)
{
	char *const *children;
	size_t n;
	char queue[QUEUE_NAME_MAX + 1];
	struct push push;
	int error = 0, stored = 0;
	const char *refusal = proto_key_error(c->key, queue);

	if (refusal == NULL && c->bytes > conn.options->max_body)
		refusal = "SERVER_ERROR object too large for cache";
	/* A small one is not in the way, and push_commit asks the same. */
	if (refusal == NULL && c->bytes > SPOOL_SMALL &&
	    !spool_accepts(conn.spool, queue, c->bytes))
		refusal = "NOT_STORED";
	if (refusal != NULL) {
		if (swallow(c->bytes))
			reply(c, refusal);
		return;
	}
	/* From here on c->key is overwritten. */
	if (!gather(c->bytes + 1))
		return;
	stats_add(STATS_CMD_SET, 1);
	push_begin(&push, conn.spool, queue);
	push.exptime = c->exptime;
	switch (c->bytes <= SPOOL_SMALL ? take_body(&push, c->bytes)
	                                : receive_body(&push, c->bytes, &error)) {
	case BLOCK_CUT:
		return;
	case BLOCK_BAD:
		reply(c, "CLIENT_ERROR bad data chunk");
		return;
	case BLOCK_GOOD:
		break;
	}
	if (error == 0 && spool_children(conn.spool, queue, &children, &n) == -1) {
		error = errno;
		push_abort(&push);
	}
	if (error == 0 && n > 0) {
		fan_out(c, &push, queue, children, n);
		return;
	}
	if (error == 0 && (stored = push_commit(&push, c->flags)) == -1)
		error = errno;
	if (error != 0) {
		reply_error(c, queue, error);
		return;
	}
	conn.logged_error = 0;
	if (stored == 1) {
		reply(c, "NOT_STORED");
		return;
	}
	stats_add(STATS_ITEMS, 1);
	reply(c, "STORED");
}

/* Send as much of a body as can go without a copy. Whatever the reason why it was not all (the
 * descriptor or the file system cannot do it, the file cannot be read), whoever copies the rest
 * does without it or finds it out. Returns where the rest begins. */
static uint64_t
send_file(const struct claim *claim)
{
	uint64_t at = 0;

	flush();
	while (at < claim->message.length && !conn.reader_gone) {
		ssize_t n = claim_send(claim, conn.out, SEND_MAX, at);
		if (n > 0)
			at += (uint64_t)n;
		else if (n == 0 || (errno != EINTR && errno != EAGAIN))
			break;
		else if (!may_go_on(conn.out, POLLOUT))
			reader_is_gone(errno);
	}
	was_written(at);
	return at;
}

/* Send the body of a claim that the spool does not hold in memory. */
static void
stream_body(const struct claim *claim)
{
	for (uint64_t at = send_file(claim); at < claim->message.length;) {
		if (conn.out_len == OUT_SIZE)
			flush();
		if (conn.reader_gone)
			return;
		ssize_t n =
		    claim_read(claim, conn.out_buf + conn.out_len, OUT_SIZE - conn.out_len, at);
		if (n <= 0) {
			/* It was read without an error a moment ago, and its length is
			 * announced: only closing tells the client. */
			log_error("reading a message that is being sent: %s",
			          n == 0 ? "truncated" : strerror(errno));
			conn.out_len = 0;
			conn.reader_gone = conn.closing = true;
			return;
		}
		conn.out_len += (size_t)n;
		at += (uint64_t)n;
	}
}

/* Returns the claim to the caller, who decides when it ends: not before flush, and if that finds
 * that the reader is gone the message was not delivered. */
static void
send_message(struct word key, bool with_cas, const struct claim *claim)
{
	const struct message *m = &claim->message;

	if (conn.nclaims == CLAIMS_MAX || OUT_SIZE - conn.out_len < PROTO_KEY_MAX + 64)
		flush();
	if (with_cas)
		put_line("VALUE %.*s %" PRIu32 " %" PRIu64 " %" PRIu64, (int)key.len, key.s,
		         m->flags, m->length, m->number);
	else
		put_line("VALUE %.*s %" PRIu32 " %" PRIu64, (int)key.len, key.s, m->flags,
		         m->length);
	if (claim->body != NULL && m->length <= OUT_SIZE - conn.out_len)
		put_bytes(claim->body, (size_t)m->length);
	else if (claim->body != NULL)
		flush_with(claim->body, (size_t)m->length);
	else
		stream_body(claim);
	put_bytes("\r\n", 2);
	conn.sent++;
}

/* What is open, of a queue: the place of the oldest, or nopened; and how many. */
static size_t
find_opened(const char *queue, size_t *count)
{
	size_t first = conn.nopened;

	*count = 0;
	for (size_t i = conn.nopened; i > 0; i--)
		if (strcmp(conn.opened[i - 1].queue, queue) == 0) {
			first = i - 1;
			++*count;
		}
	return first;
}

static void
keep_open(const char *queue, const struct claim *claim)
{
	uint64_t ms = spool_config(conn.spool, queue)->open_timeout;
	struct opened *o = &conn.opened[conn.nopened++];

	*o = (struct opened){
	    .claim = *claim, .until = ms > 0 ? os_monotonic_ms() + ms : 0, .unsent = true};
	strcpy(o->queue, queue);
}

/* End what is open at place i, as done or undone. That we are to end is no fault of the message. */
static void
end_opened(size_t i, bool done)
{
	struct claim *c = &conn.opened[i].claim;
	bool late = conn.opened[i].late;

	/* What could not be written was not delivered, whatever the client has sent in advance. */
	if (done && conn.opened[i].unsent) {
		flush();
		done = !conn.opened[i].unsent;
	}
	if (!late && done && claims_finish(c, 1) == -1)
		log_spool_error("a message that was closed may come again", errno);
	if (!late && !done && claim_release(c, !terminating) == -1)
		log_spool_error("putting a message back", errno);
	conn.nopened--;
	memmove(conn.opened + i, conn.opened + i + 1, (conn.nopened - i) * sizeof conn.opened[0]);
}

/* Has the client of a waiting get left by now? What it sends meanwhile is looked at when the get is
 * over. */
static bool
has_left(struct pollfd *client)
{
	char byte;
	ssize_t n;

	if (poll(client, 1, 0) != 1)
		return false;
	if ((client->revents & (POLLERR | POLLHUP | POLLNVAL | POLLRDHUP)) != 0)
		return true;
	if ((client->revents & POLLIN) == 0)
		return false;
	n = recv(client->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
	if (n > 0)
		client->events = POLLRDHUP;
	return n == 0 || (n == -1 && errno != EAGAIN && errno != EINTR);
}

/* Take the head of a queue out, or look at it. */
static enum claim_result
take(const char *queue, const struct get_options *o, struct claim *claim)
{
	enum claim_result r;

	if (o->peek)
		return spool_peek(conn.spool, queue, claim);
	while ((r = spool_claim(conn.spool, queue, CLAIM_PLAINLY, claim)) == CLAIM_DAMAGED)
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
		log_spool_error("putting a message back", errno);
}

/* The queue is empty: wait for a message, as long as the client waits. */
static enum claim_result
wait_and_take(const char *queue, const struct get_options *o, uint64_t deadline,
              struct claim *claim)
{
	/* Of a pipe the end that we write to tells; what we read from may have ended long ago. */
	struct pollfd client = {.fd = conn.is_socket ? conn.in : conn.out,
	                        .events = conn.is_socket ? POLLIN | POLLRDHUP : 0};
	enum claim_result r = CLAIM_EMPTY;
	struct waiter w;

	flush(); /* the client waits for what was before, too */
	settle();
	if (waiter_begin(&w, conn.spool, queue) == -1)
		return CLAIM_ERROR;
	while (!terminating && !conn.reader_gone) {
		if (waiter_is_first(&w))
			r = take(queue, o, claim);
		/* The lock may have been waited for, too. */
		if (r == CLAIM_GOT && has_left(&client)) {
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
		if (has_left(&client))
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
		log_spool_error(queue, e);
		return e;
	}
	if (r == CLAIM_EMPTY) {
		stats_add(STATS_GET_MISSES, 1);
		return 0;
	}
	stats_add(STATS_GET_HITS, 1);
	send_message(key, with_cas, &claim);
	if (o->peek) {
		look_end(&claim);
	} else if (o->open) {
		keep_open(queue, &claim);
	} else {
		conn.claims[conn.nclaims++] = claim;
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
	if ((o->close || o->open) && open > 0 && conn.opened[first].late) {
		end_opened(first, true);
		*refusal = "CLIENT_ERROR item was open too long";
		return 0;
	}
	if (o->open && open - (o->close && open > 0) >= spool_config(conn.spool, queue)->max_open) {
		*refusal = "CLIENT_ERROR close current item first";
		return 0;
	}
	if (o->open && conn.nopened == OPEN_MAX && !(o->close && open > 0)) {
		*refusal = "CLIENT_ERROR too many open items";
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
	if (refusal == NULL && nwords == 1)
		error = get_with_options(c, queue, &options, &refusal);
	if (refusal != NULL) {
		reply(c, refusal);
		return;
	}
	if (nwords > 1) {
		for (set.size = 4; set.size < 2 * nwords; set.size *= 2)
			;
		set.words = calloc(set.size, sizeof *set.words);
		if (set.words == NULL) {
			reply(c, "SERVER_ERROR out of memory");
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
		reply_error(c, queue, error);
	else
		put_line("END");
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

	if (refusal == NULL && conn.nopened == OPEN_MAX)
		refusal = "CLIENT_ERROR too many open items";
	if (refusal != NULL) {
		reply(c, refusal);
		return;
	}
	stats_add(STATS_CMD_GET, 1);
	for (; max > 0 && conn.nopened < OPEN_MAX && !conn.reader_gone && !terminating; max--) {
		r = take(queue, &open, &claim);
		if (r == CLAIM_EMPTY)
			r = wait_and_take(queue, &open, deadline, &claim);
		if (r != CLAIM_GOT)
			break;
		stats_add(STATS_GET_HITS, 1);
		send_message(c->key, false, &claim);
		put_line("END");
		keep_open(queue, &claim);
	}
	if (r == CLAIM_ERROR)
		reply_error(c, queue, errno);
	else
		put_line("END");
}

/* Is one of the n oldest that are open of a queue late? The first such is forgotten: it is told. */
static bool
forget_late(const char *queue, uint64_t n)
{
	for (size_t i = 0; i < conn.nopened && n > 0; i++) {
		if (strcmp(conn.opened[i].queue, queue) != 0)
			continue;
		n--;
		if (conn.opened[i].late) {
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
		reply(c, refusal);
		return;
	}
	for (uint64_t n = c->number[0]; n > 0; n--)
		end_opened(find_opened(queue, &open), true);
	put_line("END");
}

static void
do_delete(const struct command *c)
{
	char queue[QUEUE_NAME_MAX + 1];
	const char *refusal = proto_key_error(c->key, queue);
	int r;

	if (refusal != NULL) {
		reply(c, refusal);
		return;
	}
	r = spool_delete(conn.spool, queue);
	if (r == -1) {
		reply_error(c, queue, errno);
		return;
	}
	reply(c, r == 1 ? "DELETED" : "NOT_FOUND");
	if (r == 1)
		conn.has_trash = true; /* a million files take longer than a client waits */
}

static void
do_flush(const struct command *c)
{
	char queue[QUEUE_NAME_MAX + 1];
	const char *refusal = proto_key_error(c->key, queue);

	if (refusal != NULL) {
		reply(c, refusal);
		return;
	}
	flush(); /* a million messages take longer than the replies before it may wait */
	if (spool_flush(conn.spool, queue) == -1)
		reply_error(c, queue, errno);
	else
		reply(c, "END");
}

/*
 * Statistics
 */

/* What is told of each queue, under the names that Kestrel has for it. */
static const struct queue_field {
	const char *name;
	size_t at; /* of a uint64_t */
} queue_fields[] = {
    {"items", offsetof(struct queue_stat, waiting)},
    {"bytes", offsetof(struct queue_stat, bytes)},
    {"total_items", offsetof(struct queue_stat, put)},
    {"age", offsetof(struct queue_stat, age_ms)},
    {"open_transactions", offsetof(struct queue_stat, in_flight)},
};
#define QUEUE_FIELDS (sizeof queue_fields / sizeof queue_fields[0])

static uint64_t
field_value(const struct queue_stat *qs, const struct queue_field *field)
{
	uint64_t value;

	memcpy(&value, (const char *)qs + field->at, sizeof value);
	return value;
}

/* A queue's name as clients know it, into `name` of QUEUE_NAME_MAX + 1 bytes. What mqctl made with a
 * name that cannot be sent is told as in the spool. Returns the length. */
static int
name_on_wire(const char *queue, char *name)
{
	int len = queue_name_decode(queue, name);

	if (len != -1 &&
	    (memchr(name, ' ', (size_t)len) != NULL || memchr(name, '\n', (size_t)len) != NULL))
		len = snprintf(name, QUEUE_NAME_MAX + 1, "%s", queue);
	return len;
}

/* All queues at one time, or nearly so. */
struct survey {
	char **queues; /* as spool_list has them */
	struct queue_stat *stats;
	bool *there; /* those that could not be looked at, or are gone by now, are not */
};

static void
end_survey(struct survey *s)
{
	spool_list_free(s->queues);
	free(s->stats);
	free(s->there);
}

/* Returns 0, and then end_survey is to be called; or -1 with errno. */
static int
survey(struct survey *s)
{
	size_t n = 0;

	*s = (struct survey){.queues = spool_list(conn.spool)};
	if (s->queues == NULL)
		return -1;
	while (s->queues[n] != NULL)
		n++;
	s->stats = calloc(n + 1, sizeof *s->stats);
	s->there = calloc(n + 1, sizeof *s->there);
	if (s->stats == NULL || s->there == NULL) {
		end_survey(s);
		errno = ENOMEM;
		return -1;
	}
	for (size_t i = 0; i < n; i++)
		s->there[i] = spool_stat(conn.spool, s->queues[i], &s->stats[i]) == 1;
	return 0;
}

/* Some client libraries send this when they say good-bye, and it is data: so only where an operator
 * has allowed it. */
static void
do_flush_all(const struct command *c)
{
	char **queues;
	int r = 0;

	if (!spool_config(conn.spool, NULL)->allow_flush_all) {
		reply(c, "CLIENT_ERROR flush_all not allowed");
		return;
	}
	queues = spool_list(conn.spool);
	for (size_t i = 0; queues != NULL && queues[i] != NULL && r != -1; i++)
		r = spool_flush(conn.spool, queues[i]) == -1 ? -1 : 0;
	int e = errno;
	if (queues == NULL || r == -1)
		reply_error(c, "flush_all", e);
	else
		reply(c, "OK");
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

	if (refusal != NULL) {
		reply(c, refusal);
		return;
	}
	flush();
	if (queues == NULL && (queues = spool_list(conn.spool)) == NULL)
		n = -1;
	for (size_t i = 0; n != -1 && queues[i] != NULL; i++) {
		n = spool_flush_expired(conn.spool, queues[i]);
		removed += n;
	}
	int e = errno;
	if (n == -1)
		reply_error(c, "flush_expired", e);
	else
		put_line("%" PRId64, removed);
	if (queues != one)
		spool_list_free(queues);
}

static void
stat_number(const char *name, uint64_t value)
{
	put_line("STAT %s %" PRIu64, name, value);
}

static void
stat_time(const char *name, struct timeval tv)
{
	put_line("STAT %s %ld.%06ld", name, (long)tv.tv_sec, (long)tv.tv_usec);
}

static void
stat_queue(const char *queue, const struct queue_stat *qs)
{
	char name[QUEUE_NAME_MAX + 1];
	int len = name_on_wire(queue, name);

	for (size_t i = 0; i < QUEUE_FIELDS; i++)
		put_line("STAT queue_%.*s_%s %" PRIu64, len, name, queue_fields[i].name,
		         field_value(qs, &queue_fields[i]));
}

static void
stats_general(const struct command *c)
{
	struct rusage usage;
	struct survey all;
	uint64_t items = 0, bytes = 0;

	if (survey(&all) == -1) {
		reply_error(c, "stats", errno);
		return;
	}
	for (size_t i = 0; all.queues[i] != NULL; i++) {
		items += all.stats[i].waiting;
		bytes += all.stats[i].bytes;
	}
	getrusage(RUSAGE_SELF, &usage);
	stat_number("pid", (uint64_t)getpid());
	stat_number("uptime", stats_uptime());
	stat_number("time", (uint64_t)time(NULL));
	put_line("STAT version " MQD_VERSION);
	stat_number("pointer_size", sizeof(void *) * 8);
	stat_time("rusage_user", usage.ru_utime);
	stat_time("rusage_system", usage.ru_stime);
	stat_number("curr_items", items);
	stat_number("total_items", stats_get(STATS_ITEMS));
	stat_number("bytes", bytes);
	stat_number("curr_connections", stats_connections());
	stat_number("total_connections", stats_get(STATS_CONNECTIONS));
	stat_number("cmd_get", stats_get(STATS_CMD_GET));
	stat_number("cmd_set", stats_get(STATS_CMD_SET));
	stat_number("get_hits", stats_get(STATS_GET_HITS));
	stat_number("get_misses", stats_get(STATS_GET_MISSES));
	stat_number("bytes_read", stats_get(STATS_BYTES_READ));
	stat_number("bytes_written", stats_get(STATS_BYTES_WRITTEN));
	stat_number("threads", 1);
	for (size_t i = 0; all.queues[i] != NULL; i++)
		if (all.there[i])
			stat_queue(all.queues[i], &all.stats[i]);
	end_survey(&all);
	put_line("END");
}

static void
stats_queue(const struct command *c)
{
	struct queue_stat qs;
	char name[QUEUE_NAME_MAX + 1];
	char **queues = spool_list(conn.spool);

	if (queues == NULL) {
		reply_error(c, "stats queue", errno);
		return;
	}
	for (size_t i = 0; queues[i] != NULL; i++) {
		int len = name_on_wire(queues[i], name);
		if (spool_stat(conn.spool, queues[i], &qs) == 1)
			put_line("STAT %.*s %" PRIu64 "/%" PRIu64, len, name, qs.put, qs.taken);
	}
	spool_list_free(queues);
	put_line("END");
}

static void
stats_settings(void)
{
	stat_number("maxconns", conn.options->max_connections);
	stat_number("item_size_max", conn.options->max_body);
	put_line("STAT evictions off");
	put_line("STAT cas_enabled yes");
	stat_number("idle_timeout", (uint64_t)conn.options->idle_timeout);
	put_line("END");
}

static void
do_stats(const struct command *c)
{
	if (c->key.s == NULL) {
		stats_general(c);
	} else if (proto_word_is(c->key, "queue")) {
		stats_queue(c);
	} else if (proto_word_is(c->key, "settings")) {
		stats_settings();
	} else if (proto_word_is(c->key, "reset")) {
		stats_reset();
		put_line("RESET");
	} else {
		put_line("END"); /* slabs, items, sizes, ...: there is nothing of the kind
		                    here */
	}
}

/* One that is not there has no fields. */
static void
dump_queue(const char *queue, int len, const char *name)
{
	struct queue_stat qs;
	int r = spool_stat(conn.spool, queue, &qs);

	if (r == -1)
		log_spool_error(queue, errno);
	put_line("queue '%.*s' {", len, name);
	for (size_t i = 0; r == 1 && i < QUEUE_FIELDS; i++)
		put_line("  %s=%" PRIu64, queue_fields[i].name, field_value(&qs, &queue_fields[i]));
	put_line("}");
}

static void
dump_all(const struct command *c)
{
	char name[QUEUE_NAME_MAX + 1];
	char **queues = spool_list(conn.spool);

	if (queues == NULL) {
		reply_error(c, "dump_stats", errno);
		return;
	}
	for (size_t i = 0; queues[i] != NULL; i++)
		dump_queue(queues[i], name_on_wire(queues[i], name), name);
	spool_list_free(queues);
	put_line("END");
}

static void
do_dump_stats(const struct command *c)
{
	char queue[QUEUE_NAME_MAX + 1];

	if (c->key.s == NULL) {
		dump_all(c);
		return;
	}
	for (struct word w = c->key; w.s != NULL; proto_next_word(c->end, &w)) {
		const char *refusal = proto_key_error(w, queue);
		if (refusal != NULL) {
			reply(c, refusal);
			return;
		}
	}
	for (struct word w = c->key; w.s != NULL; proto_next_word(c->end, &w))
		if (proto_key_error(w, queue) == NULL)
			dump_queue(queue, (int)w.len, w.s);
	put_line("END");
}

static void
run(const struct command *c)
{
	if (c->reply != NULL) {
		if (!c->has_block || swallow(c->bytes))
			reply(c, c->reply);
		return;
	}
	switch (c->verb) {
	case VERB_SET:
		do_set(c);
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
	case VERB_STATS:
		do_stats(c);
		break;
	case VERB_DUMP_STATS:
		do_dump_stats(c);
		break;
	case VERB_VERSION:
		put_line("VERSION " MQD_VERSION);
		break;
	case VERB_QUIT:
		conn.closing = true;
		break;
	case VERB_FIXED:
		break; /* has a reply */
	}
}

/* Learn what we talk over, and set it up for short requests and short replies. */
static void
prepare_socket(void)
{
	struct sockaddr_storage address = {0};
	socklen_t len = sizeof address;
	int on = 1;

	conn.is_socket = getsockname(conn.in, (struct sockaddr *)&address, &len) == 0;
	if (!conn.is_socket)
		return;
	if (conn.options->idle_timeout > 0) {
		struct timeval tv = {.tv_sec = conn.options->idle_timeout};
		setsockopt(conn.in, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
		setsockopt(conn.in, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv);
	}
	conn.is_tcp = address.ss_family == AF_INET || address.ss_family == AF_INET6;
	if (conn.is_tcp) {
		setsockopt(conn.in, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
		setsockopt(conn.in, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
	}
}

/* Closing a socket with unread input resets the connection, and the client may never see our
 * last words. So say that we are done, and read on for a moment. */
static void
linger(void)
{
	struct pollfd p = {.fd = conn.in, .events = POLLIN};
	uint64_t now = os_monotonic_ms(), end = now + LINGER_MS;
	ssize_t n = 1;

	if (!conn.is_socket || shutdown(conn.out, SHUT_WR) == -1)
		return;
	for (size_t got = 0; n > 0 && got < LINGER_BYTES && now < end; got += (size_t)n) {
		n = poll(&p, 1, (int)(end - now)) == 1 ? read(conn.in, conn.in_buf, IN_SIZE) : 0;
		now = os_monotonic_ms();
	}
}

/* Behind a command, with another one there already: is it time for the replies? */
static bool
has_waited(void)
{
	uint64_t now = os_monotonic_ms();

	if (conn.waits_ms == 0)
		conn.waits_ms = now;
	return now - conn.waits_ms > DELAY_MS;
}

static void
log_mistake(const char *what, const char *path, const char *detail)
{
	(void)what;
	log_error("%s: %s", path, detail);
}

void
serve(struct spool *sp, const struct serve_options *options, int in, int out)
{
	struct command c;
	const char *line;
	size_t len;
	int dirfd = spool_dirfd(sp);

	conn.spool = sp;
	conn.options = options;
	conn.in = in;
	conn.out = out;
	conn.closing = conn.peer_left = conn.reader_gone = conn.input_ends = false;
	conn.owes_ack = conn.has_trash = conn.is_tcp = conn.has_spoken = false;
	conn.logged_error = 0;
	conn.start = conn.end = conn.out_len = conn.nclaims = conn.nopened = 0;
	spool_on_mistake(sp, log_mistake);
	prepare_socket();
	if (dirfd != -1 && stats_open(dirfd) == -1)
		log_error("counting for this connection alone: %s", strerror(errno));
	stats_enter();
	stats_add(STATS_CONNECTIONS, 1);
	log_info("a connection begins");
	while (!conn.closing && next_line(&line, &len)) {
		proto_parse(line, len, &c);
		run(&c);
		if (conn.out_len > 0 && conn.start < conn.end && has_waited())
			flush();
	}
	flush();
	while (conn.nopened > 0)
		end_opened(0, false);
	settle();
	if (!conn.peer_left)
		linger();
	conn.peer_left = true; /* or we did */
	empty_trash();
	log_info("the connection ends");
	stats_leave();
	waiter_tidy();
}
