/*
 * client.c: a connection to a server that speaks the memcache text protocol.
 *
 * Nothing that the server says is believed: a line has an end, a number is one, and of a body no more
 * is kept here than one buffer, whatever length was announced. What breaks a rule ends the
 * connection, for nobody knows where the next reply would begin.
 */
#include "client.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "message.h"
#include "number.h"

#define WAIT_MS 60000

int
client_address(const char *address, char *host, size_t size, unsigned *port)
{
	const char *colon = strrchr(address, ':'), *end = colon;
	uint64_t n;

	*port = 0;
	if (address[0] == '/') {
		if (strlen(address) >= size)
			return -1;
		strcpy(host, address);
		return 0;
	}
	if (colon == NULL || number_parse(colon + 1, strlen(colon + 1), 65535, &n) == -1 || n == 0)
		return -1;
	if (address[0] == '[' && end[-1] == ']') {
		address++;
		end--;
	} else if (strchr(address, ':') != colon) {
		return -1; /* an IPv6 address needs its brackets */
	}
	if (end <= address || (size_t)(end - address) >= size)
		return -1;
	memcpy(host, address, (size_t)(end - address));
	host[end - address] = '\0';
	*port = (unsigned)n;
	return 0;
}

/* A socket that is connected, or -1. Linux waits for a connection no longer than SO_SNDTIMEO says. */
static int
connect_to(int family, const struct sockaddr *sa, socklen_t len)
{
	const struct timeval timeout = {.tv_sec = WAIT_MS / 1000};
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd == -1)
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
	if (connect(fd, sa, len) == 0)
		return fd;
	int e = errno;
	close(fd);
	errno = e == EAGAIN || e == EINPROGRESS ? ETIMEDOUT : e;
	return -1;
}

static int
connect_unix(const char *path)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};

	if (strlen(path) >= sizeof un.sun_path) {
		errno = ENAMETOOLONG;
		return -1;
	}
	strcpy(un.sun_path, path);
	return connect_to(AF_UNIX, (struct sockaddr *)&un, sizeof un);
}

static int
connect_tcp(struct client *c, const char *host, unsigned port)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
	struct addrinfo *list = NULL;
	char service[16];
	int fd = -1;

	snprintf(service, sizeof service, "%u", port);
	int r = getaddrinfo(host, service, &hints, &list);
	if (r != 0) {
		c->why = gai_strerror(r);
		errno = EADDRNOTAVAIL;
		return -1;
	}
	for (struct addrinfo *a = list; a != NULL && fd == -1; a = a->ai_next)
		fd = connect_to(a->ai_family, a->ai_addr, a->ai_addrlen);
	int e = errno;
	freeaddrinfo(list);
	errno = e;
	return fd;
}

bool
client_is_key(const char *key)
{
	size_t n = 0;

	for (; n <= CLIENT_KEY_MAX && key[n] != '\0'; n++)
		if ((unsigned char)key[n] <= ' ' || key[n] == '\x7f')
			return false;
	return n > 0 && n <= CLIENT_KEY_MAX;
}

int
client_open(struct client *c, const char *address)
{
	char host[256];
	unsigned port;

	c->from = c->to = 0;
	c->why = NULL;
	c->fd = -1;
	if (client_address(address, host, sizeof host, &port) == -1) {
		errno = EINVAL;
		return -1;
	}
	c->fd = port == 0 ? connect_unix(host) : connect_tcp(c, host, port);
	return c->fd == -1 ? -1 : 0;
}

void
client_close(struct client *c)
{
	if (c->fd != -1)
		close(c->fd);
	c->fd = -1;
}

const char *
client_error(const struct client *c)
{
	if (c->why != NULL)
		return c->why;
	if (errno == EPROTO)
		return "what the server says is not the protocol";
	if (errno == ECONNRESET)
		return "the server has closed the connection";
	if (errno == ETIMEDOUT)
		return "the server does not answer";
	return strerror(errno);
}

static int
wait_for(int fd, short events)
{
	struct pollfd p = {.fd = fd, .events = events};
	int r;

	while ((r = poll(&p, 1, WAIT_MS)) == -1 && errno == EINTR)
		;
	if (r == 0)
		errno = ETIMEDOUT;
	return r == 1 ? 0 : -1;
}

int
client_send(struct client *c, const void *data, size_t len)
{
	const char *p = data;

	while (len > 0) {
		if (wait_for(c->fd, POLLOUT) == -1)
			return -1;
		ssize_t n = send(c->fd, p, len, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n == -1 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (n == -1) {
			errno = errno == EPIPE ? ECONNRESET : errno;
			return -1;
		}
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

/* Receive more behind what is there. */
static int
receive(struct client *c)
{
	ssize_t n;

	if (c->from == c->to)
		c->from = c->to = 0;
	if (c->from > 0 && c->to == sizeof c->buf) {
		memmove(c->buf, c->buf + c->from, c->to - c->from);
		c->to -= c->from;
		c->from = 0;
	}
	do {
		if (wait_for(c->fd, POLLIN) == -1)
			return -1;
		n = recv(c->fd, c->buf + c->to, sizeof c->buf - c->to, MSG_DONTWAIT);
	} while (n == -1 && (errno == EINTR || errno == EAGAIN));
	if (n == 0)
		errno = ECONNRESET;
	if (n <= 0)
		return -1;
	c->to += (size_t)n;
	return 0;
}

int
client_line(struct client *c, char *line, size_t size)
{
	for (size_t seen = 0;;) {
		char *begin = c->buf + c->from;
		char *end = memchr(begin + seen, '\n', c->to - c->from - seen);
		size_t len = end == NULL ? c->to - c->from : (size_t)(end - begin);
		if (len >= size || memchr(begin, '\0', len) != NULL) {
			errno = EPROTO;
			return -1;
		}
		if (end != NULL) {
			c->from += len + 1;
			if (len > 0 && begin[len - 1] == '\r')
				len--;
			memcpy(line, begin, len);
			line[len] = '\0';
			return (int)len;
		}
		seen = len;
		if (receive(c) == -1)
			return -1;
	}
}

int
client_hello(struct client *c)
{
	static const char question[] = "version\r\n";
	char line[CLIENT_LINE_MAX];

	if (client_send(c, question, strlen(question)) == -1 ||
	    client_line(c, line, sizeof line) == -1)
		return -1;
	if (strncmp(line, "VERSION ", 8) == 0)
		return 0;
	if (strcmp(line, "CLIENT_ERROR unauthenticated") == 0)
		c->why = "the server wants a password, and mqctl can give none";
	errno = EPROTO;
	return -1;
}

int64_t
client_take(struct client *c, const char **data, uint64_t max)
{
	if (c->from == c->to && receive(c) == -1)
		return -1;
	size_t n = c->to - c->from;
	if (n > max)
		n = (size_t)max;
	*data = c->buf + c->from;
	c->from += n;
	return (int64_t)n;
}

/* The next word of a line; its length, 0 if there is none. */
static size_t
next_word(const char **p)
{
	*p += strspn(*p, " ");
	return strcspn(*p, " ");
}

bool
client_value(const char *line, struct client_value *v)
{
	uint64_t flags;
	size_t len;

	if (strncmp(line, "VALUE ", 6) != 0)
		return false;
	line += 6;
	v->key = line;
	v->key_len = len = next_word(&v->key);
	line = v->key + len;
	len = next_word(&line);
	if (v->key_len == 0 || number_parse(line, len, UINT32_MAX, &flags) == -1)
		return false;
	v->flags = (uint32_t)flags;
	line += len;
	len = next_word(&line);
	return number_parse(line, len, MESSAGE_LENGTH_MAX, &v->bytes) == 0;
}
