/* client.h: a connection to a server that speaks the memcache text protocol. */
#ifndef MQ_CLIENT_H
#define MQ_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CLIENT_KEY_MAX 250   /* bytes */
#define CLIENT_LINE_MAX 2048 /* of a line, with the NUL: what is longer is none of the protocol's */

/* Can a command name this key? */
bool client_is_key(const char *key);

struct client {
	int fd;          /* -1: not connected */
	const char *why; /* more exact than errno, if not NULL */
	size_t from, to; /* of what was received and is not read yet */
	char buf[65536];
};

/* Split "host:port", "[ip6]:port" or, with port 0, "/path/of/a/socket" into `host` of `size` bytes
 * and a port. 0, or -1 if it is none of these. */
int client_address(const char *address, char *host, size_t size, unsigned *port);

/*
 * All return -1 with errno where the connection cannot be used any more: EPROTO if what came is not the
 * protocol, ECONNRESET if the server has gone, ETIMEDOUT if it said nothing for a minute. A signal
 * ends no wait but that for the connection. client_error says what to tell of it.
 */
int client_open(struct client *c, const char *address);
void client_close(struct client *c);
const char *client_error(const struct client *c);

/* Send all of it. 0. */
int client_send(struct client *c, const void *data, size_t len);

/* Ask for the server's version. 0, or -1 also if it answers something else: one that waits for a
 * password takes the data of the first `set` for that, and answers STORED to it. */
int client_hello(struct client *c);

/* Read one line, without its CRLF, which may be a bare LF, and with a NUL behind; it has no NUL in
 * it. One of `size` bytes or more is none of the protocol's. Returns its length. */
int client_line(struct client *c, char *line, size_t size);

/* The next bytes, at least one and at most `max`: *data is valid until the next call. Returns how
 * many. */
int64_t client_take(struct client *c, const char **data, uint64_t max);

/* The line of a reply that tells of a value: `VALUE key flags bytes`, perhaps with a number behind.
 * Returns the key's length, and key points into the line; or -1 if it is something else. */
struct client_value {
	const char *key;
	size_t key_len;
	uint32_t flags;
	uint64_t bytes; /* at most MESSAGE_LENGTH_MAX */
};
bool client_value(const char *line, struct client_value *v);

#endif
