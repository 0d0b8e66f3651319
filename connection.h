/* connection.h: the bytes of the one connection that this process serves. */
#ifndef MQ_CONNECTION_H
#define MQ_CONNECTION_H

#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto.h"
#include "spool.h"

/* What the commands know of it, and may set. */
extern struct connection {
	struct spool *spool;
	bool closing;     /* nothing further is to be read */
	bool reader_gone; /* nothing can be written any more */
	bool has_trash;   /* files of a deleted queue are to be unlinked */
	uint64_t
	    logged[2]; /* a bit for each errno that was logged since something worked: a full disk
	                          is told once, not a million times */
	unsigned long sent;    /* messages, ever */
	unsigned long flushes; /* with which all was written that had been put, ever */
} conn;

/* Seconds since the process was asked to end, from 1; or 0. */
extern volatile sig_atomic_t conn_terminating;

/* Something worked: the next error is news, whatever it is. */
void conn_worked(void);

/* Ask it to end. For serve_terminate, which see. */
void conn_terminate(int sig);

/* Connections will be accepted on `listener`: have it give them what it can, so that this need not be
 * done for each. */
void conn_expect(int listener, int keepalive);

/*
 * Begin with a client that is read from `in` and answered on `out`, and is left when it is silent
 * for idle_timeout seconds, or takes that long for a kilobyte of a command, unless that is 0; for `keepalive` see os_keepalive. `due` is called
 * before each wait for input: it does what it is time for, and returns when it is to be called again
 * (os_monotonic_ms), or 0.
 */
void conn_begin(struct spool *sp, int idle_timeout, int keepalive, int in, int out,
                uint64_t (*due)(void));

/* Take leave of the client, which has all its answers. */
void conn_end(void);

/*
 * Input. Whatever waits for some writes all answers before.
 */

/* The next command line, without its end; it is overwritten when more is read. False: there is none
 * any more. */
bool conn_next_line(const char **line, size_t *len);

/* Read a data block of so many bytes, and its end, that is not wanted. False: the client left in
 * it. */
bool conn_swallow(uint64_t bytes);

/* Have so many bytes of a data block in the buffer, if they fit. Lines that were read before are
 * overwritten. False: the client left. */
bool conn_gather(uint64_t bytes);

/* Where a data block ended. */
enum block_end {
	BLOCK_CUT, /* before its end: the client left */
	BLOCK_BAD, /* elsewhere than was announced; what follows is in step again */
	BLOCK_GOOD,
};

/*
 * Read a data block as the body of a push, once it was gathered with one byte more. On return it is
 * read to its end, whatever happened to the push: *error, 0 before, is why that failed if it did. A
 * push that failed, or whose block is not good, is ended. A small body stays in the buffer: commit
 * before anything more is read.
 */
enum block_end conn_receive_body(struct push *push, uint64_t bytes, int *error);

/* Read a data block that is no message, of PROTO_LINE_MAX bytes at the most. It may be written to, if
 * its end is good, until more is read. */
enum block_end conn_take_block(size_t bytes, char **block);

/* What poll(2) shall watch while something else than input is waited for; all is answered before. */
struct pollfd conn_watch(void);

/* After such a poll, or without one: has the client left by now? What it sends meanwhile is looked
 * at when the wait is over. */
bool conn_has_left(struct pollfd *client);

/*
 * Output: into the buffer, which is written when it is full, when input is waited for, and when
 * answers have waited for too long.
 */

/* printf-like, without the line end; what is too long for a reply is cut. */
void conn_put_line(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* One line, if the client reads an answer to the command. */
void conn_reply(const struct command *c, const char *line);

/* Answer, and log, that something failed with a queue. */
void conn_reply_error(const struct command *c, const char *queue, int error);

/* Log that something failed with the spool, if that is news. */
void conn_log_error(const char *what, int error);

/*
 * The message of a claim: its VALUE line and its body. The claim stays the caller's, to be ended in
 * one of three ways: handed on to conn_deliver; kept, for a client that will say what becomes of it
 * (it was not delivered until conn.flushes has grown); or at once, if it was only looked at.
 */
void conn_send_message(struct word key, bool with_cas, const struct claim *claim);

/* Finish the claim of the message that was sent last as soon as it is written; or release it, if it
 * cannot be. */
void conn_deliver(const struct claim *claim);

/* Write the answers; with them written, the messages in them are delivered. */
void conn_flush(void);

#endif
