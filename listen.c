/*
 * listen.c: sockets to accept on. Who accepts is in pool.c.
 */
#include "listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "number.h"

static int
listen_on(struct listeners *l, int fd, const struct sockaddr *address, socklen_t len)
{
	int on = 1;

	if (l->n == LISTEN_MAX) {
		close(fd);
		errno = ENFILE;
		return -1;
	}
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (address->sa_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
	if (bind(fd, address, len) == -1 || listen(fd, LISTEN_BACKLOG) == -1) {
		int e = errno;
		close(fd);
		errno = e;
		return -1;
	}
	l->fds[l->n++] = fd;
	return 0;
}

/* Split `address` into host and port: "1.2.3.4", "1.2.3.4:5", "::1", "[::1]:5". */
static int
split_address(const char *address, char *host, size_t size, uint16_t *port)
{
	const char *colon = strrchr(address, ':'), *end = address + strlen(address);
	bool brackets = address[0] == '[';
	uint64_t n;

	if (brackets) {
		const char *close_bracket = strchr(address++, ']');
		if (close_bracket == NULL || (close_bracket[1] != '\0' && close_bracket[1] != ':'))
			return -1;
		end = close_bracket;
		colon = close_bracket[1] == ':' ? close_bracket + 1 : NULL;
	} else if (colon != NULL && strchr(address, ':') != colon) {
		colon = NULL; /* a bare IPv6 address */
	} else if (colon != NULL) {
		end = colon;
	}
	if (colon != NULL) {
		if (number_parse(colon + 1, strlen(colon + 1), UINT16_MAX, &n) == -1 || n == 0)
			return -1;
		*port = (uint16_t)n;
	}
	if (end == address || (size_t)(end - address) >= size)
		return -1;
	memcpy(host, address, (size_t)(end - address));
	host[end - address] = '\0';
	return 0;
}

int
listen_tcp(struct listeners *l, const char *address, uint16_t port)
{
	char host[64];
	struct sockaddr_in in4 = {.sin_family = AF_INET};
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
	int fd;

	if (split_address(address, host, sizeof host, &port) == -1) {
		errno = EINVAL;
		return -1;
	}
	in4.sin_port = in6.sin6_port = htons(port);
	if (strcmp(host, "localhost") == 0)
		strcpy(host, "127.0.0.1");
	if (strcmp(host, "*") == 0) {
		/* Both families; a system without IPv6 has the first. */
		in4.sin_addr.s_addr = htonl(INADDR_ANY);
		fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (fd == -1 || listen_on(l, fd, (struct sockaddr *)&in4, sizeof in4) == -1)
			return -1;
		fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
		return fd == -1 ? 0 : listen_on(l, fd, (struct sockaddr *)&in6, sizeof in6);
	}
	if (inet_pton(AF_INET, host, &in4.sin_addr) == 1) {
		fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		return fd == -1 ? -1 : listen_on(l, fd, (struct sockaddr *)&in4, sizeof in4);
	}
	if (inet_pton(AF_INET6, host, &in6.sin6_addr) == 1) {
		fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
		return fd == -1 ? -1 : listen_on(l, fd, (struct sockaddr *)&in6, sizeof in6);
	}
	errno = EINVAL;
	return -1;
}

int
listen_unix(struct listeners *l, const char *path, mode_t mode)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	struct stat st;
	int fd, r;

	if (strlen(path) >= sizeof un.sun_path) {
		errno = ENAMETOOLONG;
		return -1;
	}
	strcpy(un.sun_path, path);
	/* One that has no room for us has somebody behind it; but we do not wait for that. */
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd == -1)
		return -1;
	if (lstat(path, &st) == 0 && S_ISSOCK(st.st_mode) &&
	    connect(fd, (struct sockaddr *)&un, sizeof un) == -1 && errno == ECONNREFUSED)
		unlink(path);
	close(fd);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd == -1)
		return -1;
	/* Not chmod, which would follow a link that somebody has put in its place meanwhile. */
	mode_t mask = umask(0777 & ~mode);
	r = listen_on(l, fd, (struct sockaddr *)&un, sizeof un);
	umask(mask);
	if (r == 0 && lstat(path, &st) == 0) {
		l->dev = st.st_dev;
		l->ino = st.st_ino;
	}
	return r;
}

int
listen_remove(const struct listeners *l, const char *path)
{
	struct stat st;

	if (lstat(path, &st) == -1 || st.st_dev != l->dev || st.st_ino != l->ino)
		return 0;
	return unlink(path);
}
