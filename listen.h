/* listen.h: sockets to accept on. */
#ifndef MQ_LISTEN_H
#define MQ_LISTEN_H

#include <stdint.h>
#include <sys/types.h>

#define LISTEN_MAX 16     /* sockets */
#define LISTEN_PORT 22201 /* memcacheq's, and Kestrel's */
#define LISTEN_BACKLOG 1024

struct listeners {
	int fds[LISTEN_MAX];
	unsigned n;
	dev_t dev; /* of the Unix socket's file */
	ino_t ino;
};

/*
 * Listen on a TCP address: numeric IPv4 or IPv6 (in brackets if a port follows),
 * `localhost`,
 * `*` for all, each with `:port` or else `port`. Returns 0; -1 with errno, EINVAL if the
 * address is malformed.
 */
int listen_tcp(struct listeners *l, const char *address, uint16_t port);

/* Listen on a Unix socket at `path`, which gets the file mode `mode`. A socket that
 * nobody listens on any more is replaced. Returns 0; -1 with errno. */
int listen_unix(struct listeners *l, const char *path, mode_t mode);

/* Remove that socket, unless it is gone, or somebody else's is in its place. Returns 0; -1 with errno. */
int listen_remove(const struct listeners *l, const char *path);

#endif
