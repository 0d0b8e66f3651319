/*
 * drive.c: the connections. One thread, epoll, one request at a time on each connection.
 *
 * A connection is opened, says hello (so that somebody is known to serve it before the
 * clock starts), and then asks the workload for its next step whenever a reply is
 * complete. Replies are parsed as they come, bodies are verified as they come and never
 * kept, so memory does not depend on the size of bodies. Whatever is not exactly the
 * reply expected ends the program. With --tolerate-drops a connection that is cut is
 * opened again; workload.c and ledger.c know what that means for the request that was on
 * its way.
 */
#include "load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { SOURCES = 100 };

static int epoll_fd;
static unsigned in_state[FINISHED + 1];
static bool started;
static char input[1 << 18];

static void advance(struct conn *c);
static void connect_to_server(struct conn *c);

static void
set_state(struct conn *c, enum state state)
{
	in_state[c->state]--;
	in_state[state]++;
	c->state = state;
}

static void
watch(struct conn *c, bool writable, int operation)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};

	if (writable)
		event.events |= EPOLLOUT;
	if (epoll_ctl(epoll_fd, operation, c->fd, &event) == -1)
		die(EXIT_SYSTEM, "epoll_ctl: %s", strerror(errno));
	c->writable = writable;
}

static void
hang_up(struct conn *c)
{
	close(c->fd);
	c->fd = -1;
	set_state(c, CLOSED);
}

/* What of the request has not been sent yet; at most BODY_PIECES + 2 pieces of it. */
static int
rest_of_request(const struct conn *c, struct iovec *iov)
{
	static char crlf[] = "\r\n";
	int n = 0;
	size_t at = c->out;

	if (at < c->text_length) {
		iov[n++] = (struct iovec){
		    .iov_base = (char *)c->text + at,
		    .iov_len = c->text_length - at,
		};
		at = c->text_length;
	}
	if (c->reply.op != OP_PUSH)
		return n;
	size_t end = c->out_length - 2;
	if (at < end) {
		unsigned pieces = body_tail(c->sent, at - c->text_length, iov + n);
		while (pieces-- > 0)
			at += iov[n++].iov_len;
	}
	if (at >= end)
		iov[n++] = (struct iovec){
		    .iov_base = crlf + (at - end),
		    .iov_len = c->out_length - at,
		};
	return n;
}

static void
send_request(struct conn *c)
{
	while (c->out < c->out_length) {
		struct iovec iov[BODY_PIECES + 2];
		ssize_t n = writev(c->fd, iov, rest_of_request(c, iov));
		if (n == -1 && errno == EINTR)
			continue;
		if (n == -1 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
			if (!c->writable)
				watch(c, true, EPOLL_CTL_MOD);
			return;
		}
		/* A connection that is cut may still hold replies: whoever reads finds
		 * out. */
		if (n == -1 && (errno == EPIPE || errno == ECONNRESET))
			break;
		if (n == -1)
			die(EXIT_SYSTEM, "writev: %s", strerror(errno));
		c->out += (size_t)n;
	}
	if (c->writable)
		watch(c, false, EPOLL_CTL_MOD);
}

/* Send c->next on the open connection. */
static void
request(struct conn *c)
{
	const struct protocol *p = opt.protocol;

	c->reply = (struct reply){.op = c->next, .queue = c->queue_name};
	c->expecting = A_LINE;
	c->replying = false;
	c->line_length = 0;
	c->out = 0;
	switch (c->next) {
	case OP_HELLO:
		c->out_length = c->text_length = p->hello(c->text, c->queue_name);
		break;
	case OP_POP:
		c->out_length = c->text_length = p->pop(c->text, c->queue_name);
		break;
	case OP_PUSH:
		c->sent = workload_message(c);
		size_t length = body_length(c->sent);
		size_t n = p->push(c->text, c->queue_name, body_flags(c->sent), length);
		body_head(c->sent, c->text + n);
		c->text_length = n + BODY_HEAD;
		c->out_length = n + length + 2;
		break;
	}
	set_state(c, BUSY);
	send_request(c);
}

/* A reply is complete. */
static void
complete(struct conn *c, enum verdict verdict)
{
	now = clock_now();
	set_state(c, PARKED);
	if (c->reply.op == OP_HELLO) {
		if (started)
			advance(c);
		return;
	}
	workload_done(c, verdict);
	if (opt.workload->one_shot)
		hang_up(c);
	advance(c);
}

static void
body_ended(struct conn *c)
{
	if (opt.protocol->flags && c->reply.flags != body_flags(c->body.id))
		conn_die(c, "flags %llu where %u were pushed", (unsigned long long)c->reply.flags,
		         body_flags(c->body.id));
	workload_delivered(c);
	c->reply.step++;
	c->expecting = A_LINE;
	if (opt.protocol->finish != NULL) {
		c->out = 0;
		c->out_length = c->text_length = opt.protocol->finish(c->text, &c->reply);
		send_request(c);
	}
}

/* A line has come, without its end. Returns what it makes of the reply. */
static enum verdict
line_ended(struct conn *c)
{
	char shown[WIRE_LINE];

	memcpy(shown, c->line, c->line_length + 1);
	enum verdict verdict = opt.protocol->line(&c->reply, c->line);
	switch (verdict) {
	case REPLY_BAD:
		conn_die(c, "unexpected reply \"%s\"", shown);
	case REPLY_BODY:
		if (c->reply.length < BODY_HEAD)
			conn_die(c, "a body that this program did not make: \"%s\"", shown);
		c->body = (struct body_check){.length = c->reply.length};
		c->expecting = A_BODY;
		c->end_length = 0;
		break;
	case REPLY_MORE:
		c->reply.step++;
		break;
	default:
		break;
	}
	c->line_length = 0;
	return verdict;
}

/* Each of these takes what it can of the n bytes at `data` and returns how much it took;
 * *v is set to a final verdict when the reply is complete. */
static size_t
take_line(struct conn *c, const char *data, size_t n, enum verdict *v)
{
	const char *end = memchr(data, '\n', n);
	size_t part = end == NULL ? n : (size_t)(end - data) + 1;

	if (c->line_length + part >= sizeof c->line)
		conn_die(c, "a line without an end: \"%.*s...\"", (int)(n < 60 ? n : 60), data);
	memcpy(c->line + c->line_length, data, part);
	c->line_length += part;
	if (end == NULL)
		return part;
	if (c->line_length < 2 || c->line[c->line_length - 2] != '\r')
		conn_die(c, "a line that does not end in CR LF");
	c->line_length -= 2;
	c->line[c->line_length] = '\0';
	if (strlen(c->line) != c->line_length)
		conn_die(c, "a line with a NUL in it");
	*v = line_ended(c);
	return part;
}

static size_t
take_body(struct conn *c, const char *data, size_t n)
{
	uint64_t missing = c->body.length - c->body.got;
	size_t part = n < missing ? n : (size_t)missing;
	const char *wrong = body_check(&c->body, data, part);

	if (wrong != NULL)
		conn_die(c, "%s (within %zu bytes from byte %llu on)", wrong, part,
		         (unsigned long long)(c->body.got));
	if (c->body.got == c->body.length)
		c->expecting = BODY_END;
	return part;
}

static size_t
take_body_end(struct conn *c, const char *data, enum verdict *v)
{
	if (*data != "\r\n"[c->end_length++])
		conn_die(c, "no CR LF behind a body of %llu bytes",
		         (unsigned long long)c->reply.length);
	if (c->end_length == 2) {
		body_ended(c);
		if (!opt.protocol->line_follows)
			*v = REPLY_HIT;
	}
	return 1;
}

static void
feed(struct conn *c, const char *data, size_t n)
{
	enum verdict v = REPLY_MORE;

	if (c->state != BUSY)
		conn_die(c, "%zu bytes that nobody asked for", n);
	if (!c->replying) {
		c->replying = true;
		c->last_unsettled = false;
	}
	while (n > 0 && (v == REPLY_MORE || v == REPLY_BODY)) {
		size_t part = 0;
		switch (c->expecting) {
		case A_LINE:
			part = take_line(c, data, n, &v);
			break;
		case A_BODY:
			part = take_body(c, data, n);
			break;
		case BODY_END:
			part = take_body_end(c, data, &v);
			break;
		}
		data += part;
		n -= part;
	}
	if (v == REPLY_MORE || v == REPLY_BODY)
		return;
	if (n > 0)
		conn_die(c, "%zu bytes behind the end of the reply", n);
	if (c->out < c->out_length)
		conn_die(c, "a reply before the request was complete");
	complete(c, v);
}

/* The server's side is gone. */
static void
cut(struct conn *c)
{
	if (!opt.tolerate_drops)
		conn_die(c, "the server closed the connection");
	res.cuts++;
	if (c->state != BUSY || c->reply.op == OP_HELLO)
		res.cut_idle++;
	else if (c->reply.op == OP_PUSH)
		res.cut_push++;
	else if (c->expecting == A_LINE && c->reply.step == 0)
		res.cut_pop++;
	else if (c->expecting == A_LINE)
		res.cut_pop_end++;
	else
		res.cut_pop_body++;
	now = clock_now();
	workload_cut(c);
	bool finished = c->state == FINISHED;
	hang_up(c);
	c->next = OP_HELLO;
	if (finished)
		set_state(c, FINISHED);
	else
		connect_to_server(c);
}

static void
receive(struct conn *c)
{
	ssize_t n = recv(c->fd, input, sizeof input, 0);

	if (n > 0)
		feed(c, input, (size_t)n);
	else if (n == 0 || errno == ECONNRESET || errno == EPIPE)
		cut(c);
	else if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
		die(EXIT_SYSTEM, "recv: %s", strerror(errno));
}

/* connect() or its completion failed with `error`: some of that passes. */
static void
connect_failed(struct conn *c, int error)
{
	bool full = error == EAGAIN; /* a unix socket's backlog */
	bool dropped = opt.tolerate_drops && (error == ECONNREFUSED || error == ECONNRESET);

	if (!full && !dropped)
		die(EXIT_SYSTEM, "connect: %s", strerror(error));
	hang_up(c); /* loop() tries again, until nothing has come for opt.timeout */
}

/*
 * A connection for each operation uses up the 28,000 ports of one address within seconds,
 * for they stay in TIME_WAIT. To a server on loopback, come from many addresses of it.
 */
static void
spread_source(struct conn *c)
{
	static uint32_t turn;
	struct sockaddr_in to, from = {.sin_family = AF_INET};
	int on = 1;

	memcpy(&to, &opt.address, sizeof to);
	if (to.sin_family != AF_INET || ntohl(to.sin_addr.s_addr) >> 24 != IN_LOOPBACKNET)
		return;
	from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + turn++ % SOURCES);
	if (setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on) == -1 ||
	    bind(c->fd, (struct sockaddr *)&from, sizeof from) == -1)
		die(EXIT_SYSTEM, "bind to a loopback address: %s", strerror(errno));
}

static void
connect_to_server(struct conn *c)
{
	int on = 1;

	c->fd = socket(opt.address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (c->fd == -1)
		die(EXIT_SYSTEM, "socket: %s", strerror(errno));
	if (opt.address.ss_family != AF_UNIX &&
	    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == -1)
		die(EXIT_SYSTEM, "TCP_NODELAY: %s", strerror(errno));
	if (opt.workload->one_shot)
		spread_source(c);
	set_state(c, CONNECTING);
	if (connect(c->fd, (struct sockaddr *)&opt.address, opt.address_length) == 0) {
		watch(c, false, EPOLL_CTL_ADD);
		request(c);
	} else if (errno == EINPROGRESS) {
		watch(c, true, EPOLL_CTL_ADD);
	} else {
		connect_failed(c, errno);
	}
}

static void
connected(struct conn *c)
{
	int error = 0;
	socklen_t length = sizeof error;

	if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &length) == -1)
		error = errno;
	if (error != 0)
		connect_failed(c, error);
	else
		request(c); /* which leaves EPOLLOUT as it needs it */
}

/* Ask the workload what to do and begin it. */
static void
advance(struct conn *c)
{
	switch (opt.workload->next(c)) {
	case STEP_PUSH:
		c->next = OP_PUSH;
		break;
	case STEP_POP:
		c->next = OP_POP;
		break;
	case STEP_PARK:
		set_state(c, PARKED);
		return;
	case STEP_FINISH:
		set_state(c, FINISHED);
		return;
	}
	c->began = now;
	if (c->fd == -1)
		connect_to_server(c);
	else
		request(c);
}

/* Ask every connection that is now in `state` for its next step. */
static void
kick(enum state state)
{
	for (unsigned i = 0; i < opt.connections; i++) {
		if (conns[i].state == state) {
			now = clock_now();
			advance(&conns[i]);
		}
	}
}

static void
handle(struct conn *c, uint32_t events)
{
	if (c->fd == -1)
		return;
	if (c->state == CONNECTING) {
		connected(c);
		return;
	}
	if (events & EPOLLOUT)
		send_request(c);
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		receive(c);
}

static void
check_progress(void)
{
	now = clock_now();
	if (now - res.progress < opt.timeout)
		return;
	for (unsigned i = 0; i < opt.connections; i++)
		if (conns[i].state != PARKED && conns[i].state != FINISHED)
			conn_die(&conns[i], "nothing has come for %llu s",
			         (unsigned long long)(opt.timeout / SECOND));
	die(EXIT_CHECK, "nothing has come for %llu s", (unsigned long long)(opt.timeout / SECOND));
}

/* Open what is closed; at the start no more at a time than --knocking. */
static void
open_closed(void)
{
	for (unsigned i = 0; i < opt.connections && in_state[CLOSED] > 0; i++) {
		if (!started && in_state[CONNECTING] + in_state[BUSY] >= opt.knocking)
			return;
		if (conns[i].state == CLOSED)
			connect_to_server(&conns[i]);
	}
}

/* Until every connection is FINISHED. */
static void
loop(void)
{
	struct epoll_event events[256];

	while (in_state[FINISHED] < opt.connections) {
		bool parked = in_state[PARKED] + in_state[FINISHED] == opt.connections;
		int wait = in_state[CLOSED] > 0 ? 1 : 1000; /* ms */
		if (parked)
			wait = started ? opt.workload->parked() : 0;
		int n = epoll_wait(epoll_fd, events, 256, wait);
		if (n == -1 && errno != EINTR)
			die(EXIT_SYSTEM, "epoll_wait: %s", strerror(errno));
		for (int i = 0; i < n; i++)
			handle(events[i].data.ptr, events[i].events);
		open_closed();
		if (parked && !started) {
			started = true;
			workload_start();
		}
		if (parked)
			kick(PARKED);
		if (n == 0)
			check_progress();
	}
}

void
drive(void)
{
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (epoll_fd == -1)
		die(EXIT_SYSTEM, "epoll_create1: %s", strerror(errno));
	in_state[CLOSED] = opt.connections;
	res.begin = res.progress = clock_now();
	for (unsigned i = 0; i < opt.connections; i++) {
		conns[i].fd = -1;
		if (opt.workload->one_shot)
			set_state(&conns[i], PARKED);
	}
	open_closed();
	loop();
	if (opt.expect_empty) {
		const struct workload *workload = opt.workload;
		opt.workload = &expect_empty;
		kick(FINISHED);
		loop();
		opt.workload = workload;
	}
}
