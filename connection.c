/*
 * connection.c: the bytes of the one connection that this process serves.
 *
 * Bytes are read into one buffer and answered from another; both are fixed, and a body
 * that is larger passes through in pieces. Replies are written when the buffer is full or
 * when all commands that have arrived are answered, so commands that come together are
 * answered together. A message leaves the spool in three steps: it is claimed (serve.c),
 * its bytes go into the output (conn_send_message), and once these have been written
 * (conn_flush) the claim is finished, which conn_deliver asked for; if the write fails the
 * claim is released, and the message is back at its place.
 *
 * A client that cannot be written to any more may still have sent commands that count:
 * they are carried out to the end of what it sent, except that nothing is taken out for
 * it.
 */
#include "connection.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <unistd.h>

#include "log.h"
#include "os.h"
#include "stats.h"

#ifndef POLLRDHUP
#define POLLRDHUP 0 /* then who sends more behind a waiting get, and leaves, is found out later */
#endif
#define IN_SIZE (PROTO_GET_MAX + 1) /* one byte more than any line may have */
#define OUT_SIZE 16384
_Static_assert(PUSH_PIECE <= IN_SIZE, "a piece is gathered before it is written");
#define SEND_MAX (1 << 20) /* at one call: signals are seen between two */
#define TRICKLE 1024       /* bytes of a command that must come within idle_timeout */
#define SETTLE_MS 1        /* for the next command, before removals are flushed without it */
#define CLAIMS_MAX 16      /* delivered but not yet written; see OPEN_MAX in serve.c */
/* How long a reply may wait for those of the commands behind it. libmemcached with buffered
 * writes allows 50 ms for each, and one slow flush of the disk may come on top. */
#define DELAY_MS 10
#define GRACE_SECONDS 5        /* for the command at hand after a request to terminate */
#define FIRST_MS 1000          /* for the first command of a client that has just come */
#define LINGER_MS 1000         /* for the client to read our last words */
#define LINGER_BYTES (1 << 20) /* read and dropped meanwhile */

struct connection conn;

/* What is of no concern to the commands. */
static struct {
	int in, out;
	int idle_timeout;      /* see conn_begin */
	uint64_t (*due)(void); /* see conn_begin */
	bool is_socket, is_tcp;
	bool peer_left;    /* it closed; otherwise we do */
	bool input_ends;   /* nothing further is read, but what was read is carried out */
	bool has_spoken;   /* the client has sent something */
	bool owes_ack;     /* something was read since we last wrote */
	uint64_t waits_ms; /* since when a reply waits for those behind it, if not 0 */
	uint64_t since_ms; /* since when the rest of a command is waited for, if not 0 */
	size_t came;       /* of it since then */
	size_t start, end; /* what is unread in in_buf */
	size_t out_len;
	struct claim claims[CLAIMS_MAX]; /* whose messages lie complete in out_buf */
	size_t nclaims;
	char in_buf[IN_SIZE];
	char out_buf[OUT_SIZE];
} io;

volatile sig_atomic_t conn_terminating;

void
conn_terminate(int sig)
{
	/* The alarm makes sure that no call blocks for ever, also one that begins just after
	 * this. Where one goes on all the same (a lock that somebody else holds), everything that
	 * is left is the kernel's to release. Who is asked twice has no less time. */
	if (conn_terminating > 0 && sig != SIGALRM)
		return;
	if (++conn_terminating > GRACE_SECONDS + 2)
		_exit(0);
	alarm(1);
}

static bool
out_of_grace(void)
{
	return conn_terminating > GRACE_SECONDS;
}

/*
 * Output
 */

/* Wait until a descriptor that does not block is ready. */
static bool
wait_for(int fd, short events)
{
	struct pollfd p = {.fd = fd, .events = events};
	int timeout = io.idle_timeout;

	return poll(&p, 1, timeout > 0 ? timeout * 1000 : -1) != 0 && !out_of_grace();
}

/* Does the kernel give up on a silent peer for us, and say EAGAIN? */
static bool
times_out(void)
{
	return io.is_socket && io.idle_timeout > 0;
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
	io.input_ends = error != EPIPE && error != ECONNRESET;
}

/* Before anything further is written, what was delivered must not come again. */
static void
settle(void)
{
	if (spool_settle(conn.spool) == -1)
		log_often("after a power loss a delivered message may come again: %s",
		          strerror(errno));
}

static void
was_written(uint64_t bytes)
{
	stats_add(STATS_BYTES_WRITTEN, bytes);
	io.owes_ack = false;
	io.waits_ms = 0;
}

/* Write everything in out_buf, and `len` bytes of a body behind it. */
static void
write_out(const char *body, size_t len)
{
	struct iovec piece[] = {{.iov_base = io.out_buf, .iov_len = io.out_len},
	                        {.iov_base = (char *)body, .iov_len = len}};
	uint64_t done = 0;

	settle();
	while (done < io.out_len + len && !conn.reader_gone) {
		ssize_t n = writev(io.out, piece, 2);
		if (n > 0) {
			done += (uint64_t)n;
			for (size_t i = 0, rest = (size_t)n; i < 2; i++) {
				size_t part = rest < piece[i].iov_len ? rest : piece[i].iov_len;
				piece[i].iov_base = (char *)piece[i].iov_base + part;
				piece[i].iov_len -= part;
				rest -= part;
			}
		} else if (!may_go_on(io.out, POLLOUT)) {
			reader_is_gone(errno);
		}
	}
	was_written(done);
	io.out_len = 0;
}

void
conn_log_error(const char *what, int error)
{
	uint64_t *word = &conn.logged[(unsigned)error / 64 % 2], bit = UINT64_C(1)
	                                                               << (unsigned)error % 64;

	if ((*word & bit) == 0)
		log_often("%s: %s", what, spool_strerror(error));
	*word |= bit;
}

void
conn_worked(void)
{
	conn.logged[0] = conn.logged[1] = 0;
}

/* Write the replies, and a body that follows them at once, from where it lies; its message is
 * delivered when its end is written. */
static void
flush_with(const char *body, size_t len)
{
	if (io.out_len + len > 0)
		write_out(body, len);
	conn.flushes += !conn.reader_gone;
	if (io.nclaims == 0)
		return;
	if (!conn.reader_gone) {
		if (claims_finish(io.claims, io.nclaims) == -1)
			conn_log_error("a delivered message may come again", errno);
	} else {
		for (size_t i = 0; i < io.nclaims; i++)
			if (claim_release(&io.claims[i], !conn_terminating) == -1)
				conn_log_error("putting a message back", errno);
	}
	io.nclaims = 0;
}

void
conn_flush(void)
{
	flush_with("", 0);
}

static void
put_bytes(const char *data, size_t len)
{
	while (len > 0) {
		if (io.out_len == OUT_SIZE)
			conn_flush();
		size_t n = OUT_SIZE - io.out_len < len ? OUT_SIZE - io.out_len : len;
		memcpy(io.out_buf + io.out_len, data, n);
		io.out_len += n;
		data += n;
		len -= n;
	}
}

void
conn_put_line(const char *format, ...)
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

void
conn_reply(const struct command *c, const char *line)
{
	if (!c->noreply)
		conn_put_line("%s", line);
}

void
conn_reply_error(const struct command *c, const char *queue, int error)
{
	conn_log_error(queue, error);
	if (c->noreply)
		return;
	if (c->verb == VERB_SET && (error == ENOSPC || error == EDQUOT))
		conn_put_line("SERVER_ERROR out of memory storing object (%s)", strerror(error));
	else
		conn_put_line("SERVER_ERROR %s", spool_strerror(error));
}

/*
 * Messages to the client
 */

/* Send as much of a body as can go without a copy. Whatever the reason why it was not all (the
 * descriptor or the file system cannot do it, the file cannot be read), whoever copies the rest
 * does without it or finds it out. Returns where the rest begins. */
static uint64_t
send_file(const struct claim *claim)
{
	uint64_t at = 0;

	conn_flush();
	settle();
	while (at < claim->message.length && !conn.reader_gone) {
		ssize_t n = claim_send(claim, io.out, SEND_MAX, at);
		if (n > 0)
			at += (uint64_t)n;
		else if (n == 0 || (errno != EINTR && errno != EAGAIN))
			break;
		else if (!may_go_on(io.out, POLLOUT))
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
		if (io.out_len == OUT_SIZE)
			conn_flush();
		if (conn.reader_gone)
			return;
		ssize_t n = claim_read(claim, io.out_buf + io.out_len, OUT_SIZE - io.out_len, at);
		if (n <= 0) {
			/* It was read without an error a moment ago, and its length is
			 * announced: only closing tells the client. */
			log_error("reading a message that is being sent: %s",
			          n == 0 ? "truncated" : strerror(errno));
			io.out_len = 0;
			conn.reader_gone = conn.closing = true;
			return;
		}
		io.out_len += (size_t)n;
		at += (uint64_t)n;
	}
}

void
conn_send_message(struct word key, bool with_cas, const struct claim *claim)
{
	const struct message *m = &claim->message;

	if (io.nclaims == CLAIMS_MAX || OUT_SIZE - io.out_len < PROTO_KEY_MAX + 64)
		conn_flush();
	if (with_cas)
		conn_put_line("VALUE %.*s %" PRIu32 " %" PRIu64 " %" PRIu64, (int)key.len, key.s,
		              m->flags, m->length, m->number);
	else
		conn_put_line("VALUE %.*s %" PRIu32 " %" PRIu64, (int)key.len, key.s, m->flags,
		              m->length);
	if (claim->body != NULL && m->length <= OUT_SIZE - io.out_len)
		put_bytes(claim->body, (size_t)m->length);
	else if (claim->body != NULL)
		flush_with(claim->body, (size_t)m->length);
	else
		stream_body(claim);
	put_bytes("\r\n", 2);
	conn.sent++;
}

void
conn_deliver(const struct claim *claim)
{
	io.claims[io.nclaims++] = *claim; /* conn_send_message saw to it that there is room */
}

/*
 * Input
 */

/* Is there something more urgent to do than to unlink the files of a deleted queue? */
static bool
is_needed(void)
{
	struct pollfd p = {.fd = io.in, .events = POLLIN};

	return conn_terminating || (!io.peer_left && poll(&p, 1, 0) != 0);
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
	struct pollfd p = {.fd = io.in, .events = POLLIN};
	uint64_t now, end = 0;
	int r = 0;

	if (!io.is_socket || io.has_spoken)
		return false;
	do { /* signals do not shorten its time */
		now = os_monotonic_ms();
		end = end == 0 ? now + FIRST_MS : end;
		r = poll(&p, 1, now < end ? (int)(end - now) : 0);
	} while (r == -1 && errno == EINTR && !out_of_grace());
	return r == 1;
}

/* While something is due at a time: wait for input, and do that. `*begin` is since when that has been
 * so, or 0. False: the client has been silent for too long. */
static bool
await_input(uint64_t *begin)
{
	struct pollfd p = {.fd = io.in, .events = POLLIN};
	uint64_t idle_ms = (uint64_t)io.idle_timeout * 1000, next;

	while (!conn_terminating && ((next = io.due()) != 0 || (*begin != 0 && idle_ms > 0))) {
		uint64_t now = os_monotonic_ms();
		if (*begin == 0)
			*begin = now;
		if (idle_ms > 0 && now >= *begin + idle_ms)
			return false;
		if (next == 0 || (idle_ms > 0 && *begin + idle_ms < next))
			next = *begin + idle_ms;
		uint64_t ms = next > now ? next - now : 0;
		int r = poll(&p, 1, ms > INT_MAX ? INT_MAX : (int)ms);
		if (r > 0 || (r == -1 && errno != EINTR))
			break;
	}
	return true;
}

/* Before a wait: has the rest of a command been coming for so long that its client is as good as
 * silent? Else one byte now and then would keep a process for ever. */
static bool
trickles(bool between)
{
	uint64_t now;

	if (io.idle_timeout == 0 || (between && io.start == io.end))
		return false;
	now = os_monotonic_ms();
	if (io.since_ms == 0 || io.came >= TRICKLE) {
		io.since_ms = now;
		io.came = 0;
	}
	return now - io.since_ms >= (uint64_t)io.idle_timeout * 1000;
}

/* Read more, waiting for it. Before that everything is answered: the client may be
 * waiting as well. `between` says that no command is at hand. Returns false if nothing
 * more comes. */
static bool
fill(bool between)
{
	struct pollfd p = {.fd = io.in, .events = POLLIN};
	uint64_t begin = 0;
	ssize_t n;

	conn_flush();
	if (!spool_is_settled(conn.spool) && poll(&p, 1, SETTLE_MS) <= 0)
		settle();
	if (between)
		empty_trash();
	spool_tidy(conn.spool);
	if (io.input_ends || trickles(between))
		return false;
	if (io.owes_ack && io.is_tcp)
		os_quick_ack(io.in); /* it may hold its next segment back until then */
	if (io.start == io.end) {
		io.start = io.end = 0;
	} else if (io.end == IN_SIZE) {
		memmove(io.in_buf, io.in_buf + io.start, io.end - io.start);
		io.end -= io.start;
		io.start = 0;
	}
	if (!await_input(&begin) ||
	    (!io.is_socket && io.idle_timeout > 0 && !wait_for(io.in, POLLIN)))
		return false;
	for (;;) {
		if (!await_input(&begin) || (between && conn_terminating && !is_beginning()))
			return false;
		n = read(io.in, io.in_buf + io.end, IN_SIZE - io.end);
		if (n > 0)
			break;
		io.peer_left = n == 0 || errno == ECONNRESET;
		if (n == 0 || !may_go_on(io.in, POLLIN))
			return false;
	}
	io.end += (size_t)n;
	io.came += (size_t)n;
	io.owes_ack = io.has_spoken = true;
	stats_add(STATS_BYTES_READ, (uint64_t)n);
	return true;
}

static void
refuse_binary(void)
{
	char packet[64];
	size_t len = proto_refuse_binary(io.in_buf + io.start, io.end - io.start, packet);

	put_bytes(packet, len);
	log_often("a client speaks the binary protocol: refused");
	conn.closing = true;
}

/* Behind a command, with another one there already: is it time for the replies? */
static bool
has_waited(void)
{
	uint64_t now = os_monotonic_ms();

	if (io.waits_ms == 0)
		io.waits_ms = now;
	return now - io.waits_ms > DELAY_MS;
}

bool
conn_next_line(const char **line, size_t *len)
{
	size_t seen = 0;

	io.since_ms = 0;
	if (io.out_len > 0 && io.start < io.end && has_waited())
		conn_flush();
	for (;;) {
		const char *p = io.in_buf + io.start, *newline;
		size_t here = io.end - io.start;

		if (here > 0 && (unsigned char)p[0] == PROTO_BINARY) {
			refuse_binary();
			return false;
		}
		newline = memchr(p + seen, '\n', here - seen);
		seen = newline != NULL ? (size_t)(newline - p) + 1 : here;
		if (proto_too_long(p, seen)) {
			conn_put_line("CLIENT_ERROR line too long");
			conn.closing = true;
			return false;
		}
		if (newline != NULL) {
			io.start += seen;
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
	if (io.start == io.end && !fill(false)) {
		conn.closing = true;
		return 0;
	}
	return io.end - io.start < max ? io.end - io.start : (size_t)max;
}

/* Read the CRLF behind a data block. Where there is something else the block was longer
 * than announced, or shorter: the stream is in step again behind the next newline. */
static enum block_end
end_block(void)
{
	bool good = true;

	for (int at = 0;; at++) {
		if (available(1) == 0)
			return BLOCK_CUT;
		char ch = io.in_buf[io.start++];
		if (at > 1 || ch != "\r\n"[at])
			good = false;
		if (ch == '\n')
			return good ? BLOCK_GOOD : BLOCK_BAD;
	}
}

bool
conn_swallow(uint64_t bytes)
{
	while (bytes > 0) {
		size_t n = available(bytes);
		if (n == 0)
			return false;
		io.start += n;
		bytes -= n;
	}
	return end_block() != BLOCK_CUT;
}

bool
conn_gather(uint64_t bytes)
{
	if (bytes > IN_SIZE)
		return true;
	if (IN_SIZE - io.start < bytes) {
		memmove(io.in_buf, io.in_buf + io.start, io.end - io.start);
		io.end -= io.start;
		io.start = 0;
	}
	while (io.end - io.start < bytes)
		if (!fill(false)) {
			conn.closing = true;
			return false;
		}
	io.since_ms = 0; /* how long it takes to store is not the client's fault */
	return true;
}

/*
 * Messages from the client
 */

/* Take a small body, which lies in the buffer with a byte behind it, and is left there until the
 * push is committed. */
static enum block_end
take_body(struct push *push, uint64_t bytes)
{
	if (io.in_buf[io.start + bytes] == '\r' && !conn_gather(bytes + 2))
		return BLOCK_CUT;
	push_body(push, io.in_buf + io.start, (size_t)bytes);
	io.start += bytes;
	return end_block();
}

enum block_end
conn_take_block(size_t bytes, char **block)
{
	if (!conn_gather(bytes + 1) ||
	    (io.in_buf[io.start + bytes] == '\r' && !conn_gather(bytes + 2)))
		return BLOCK_CUT;
	*block = io.in_buf + io.start;
	io.start += bytes;
	return end_block();
}

/* Take a larger one, and write it to the spool as it comes. */
static enum block_end
receive_pieces(struct push *push, uint64_t bytes, int *error)
{
	enum block_end end = BLOCK_CUT;

	while (bytes > 0) {
		size_t n = push_piece(push);
		if (n > bytes)
			n = (size_t)bytes;
		if (!conn_gather(n))
			break;
		if (*error == 0 && push_write(push, io.in_buf + io.start, n) == -1) {
			*error = errno;
			push_abort(push);
		}
		io.start += n;
		bytes -= n;
	}
	if (bytes == 0)
		end = end_block();
	if (end != BLOCK_GOOD && *error == 0)
		push_abort(push);
	return end;
}

enum block_end
conn_receive_body(struct push *push, uint64_t bytes, int *error)
{
	return bytes <= SPOOL_SMALL ? take_body(push, bytes) : receive_pieces(push, bytes, error);
}

/*
 * A client comes, stays and leaves
 */

struct pollfd
conn_watch(void)
{
	/* The client waits for what was before, too. */
	conn_flush();
	settle();
	/* Of a pipe the end that we write to tells; what we read from may have ended long ago. */
	return (struct pollfd){.fd = io.is_socket ? io.in : io.out,
	                       .events = io.is_socket ? POLLIN | POLLRDHUP : 0};
}

bool
conn_has_left(struct pollfd *client)
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

static bool
is_tcp(const struct sockaddr_storage *address)
{
	return address->ss_family == AF_INET || address->ss_family == AF_INET6;
}

/* For short requests and short replies. */
static void
prepare_tcp(int fd, int keepalive)
{
	int on = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	os_keepalive(fd, keepalive);
}

static bool expected; /* by conn_expect: connections are prepared by their listener */

void
conn_expect(int listener, int keepalive)
{
	struct sockaddr_storage address = {0};
	socklen_t len = sizeof address;

	if (!OS_ACCEPTED_INHERITS)
		return;
	expected = true;
	if (getsockname(listener, (struct sockaddr *)&address, &len) == 0 && is_tcp(&address))
		prepare_tcp(listener, keepalive);
}

/* Learn what we talk over, and set it up. */
static void
prepare_socket(int keepalive)
{
	struct sockaddr_storage address = {0};
	socklen_t len = sizeof address;

	io.is_socket = getsockname(io.in, (struct sockaddr *)&address, &len) == 0;
	if (!io.is_socket)
		return;
	if (io.idle_timeout > 0) {
		struct timeval tv = {.tv_sec = io.idle_timeout};
		int flags = fcntl(io.in, F_GETFL); /* it is the system that waits so long */
		if (flags != -1 && (flags & O_NONBLOCK) != 0)
			fcntl(io.in, F_SETFL, flags & ~O_NONBLOCK);
		setsockopt(io.in, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
		setsockopt(io.in, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv);
	}
	io.is_tcp = is_tcp(&address);
	if (io.is_tcp && !expected)
		prepare_tcp(io.in, keepalive);
}

void
conn_begin(struct spool *sp, int idle_timeout, int keepalive, int in, int out,
           uint64_t (*due)(void))
{
	conn.spool = sp;
	conn.closing = conn.reader_gone = conn.has_trash = false;
	conn_worked();
	io.in = in;
	io.out = out;
	io.idle_timeout = idle_timeout;
	io.due = due;
	io.peer_left = io.input_ends = io.has_spoken = io.owes_ack = io.is_tcp = false;
	io.start = io.end = io.out_len = io.nclaims = 0;
	prepare_socket(keepalive);
}

/* Closing a socket with unread input resets the connection, and the client may never see our
 * last words. So say that we are done, and read on for a moment. */
static void
linger(void)
{
	struct pollfd p = {.fd = io.in, .events = POLLIN};
	uint64_t now = os_monotonic_ms(), end = now + LINGER_MS;
	ssize_t n = 1;

	if (!io.is_socket || shutdown(io.out, SHUT_WR) == -1)
		return;
	for (size_t got = 0; n > 0 && got < LINGER_BYTES && now < end; got += (size_t)n) {
		n = poll(&p, 1, (int)(end - now)) == 1 ? read(io.in, io.in_buf, IN_SIZE) : 0;
		now = os_monotonic_ms();
	}
}

void
conn_end(void)
{
	settle();
	if (!io.peer_left)
		linger();
	else if (io.is_socket)
		shutdown(io.out,
		         SHUT_WR); /* it may have closed its side alone, and wait for ours */
	io.peer_left = true;       /* or we did */
	empty_trash();
}
