/* message.h: the line at the head of every message file. */
#ifndef MQ_MESSAGE_H
#define MQ_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MESSAGE_NAME_LEN 16                 /* digits of a number, which is a file's name */
#define MESSAGE_NUMBER_MAX 9999999999999999 /* what fits in them: one more than the last */
#define MESSAGE_HEADER_LEN 69
#define MESSAGE_LENGTH_MAX 9999999999
#define MESSAGE_TRIES_MAX 99999
#define MESSAGE_EXPIRY_MAX 9999999999

struct message {
	uint64_t number; /* place in the queue, from 1 */
	uint64_t length; /* of the body, in bytes */
	uint32_t flags;  /* the client's, opaque */
	uint64_t expiry; /* seconds since 1970, 0 = never */
	uint32_t tries;  /* failed deliveries */
};

/*
 * Write the header line, newline included, MESSAGE_HEADER_LEN bytes without a NUL.
 * `body_crc` is the crc32c of the body; the line carries that of body and header
 * together.
 */
void message_write_header(char *line, const struct message *m, uint32_t body_crc);

/*
 * Read a header line. Returns 0 and fills *m and *crc, or -1 if a single byte of it is
 * not as message_write_header writes it.
 */
int message_read_header(const char *line, struct message *m, uint32_t *crc);

/* Count one more failed delivery in a header line, and keep its checksum right, whatever the body.
 * Returns false, with nothing changed, if it is no header line, or counts as many as it can. */
bool message_add_try(char *line);

/* Give a header line another number, in the same way. False, with nothing changed, if it is none. */
bool message_renumber(char *line, uint64_t number);

/* Are these the header lines of the same message, but for its tries? Both have been checked. */
bool message_same(const char *line, const char *other);

/* The checksum that belongs into a header `line` before a body with checksum `body_crc`.
 */
uint32_t message_crc(const char *line, uint32_t body_crc);

/* A delivered message's file that is kept to be written over begins with this instead. */
#define MESSAGE_SPENT "mq0"
bool message_is_spent(const char *line);

/* The file name of a number: MESSAGE_NAME_LEN digits and a NUL. */
void message_name(char *name, uint64_t number);

/* Returns 0 and sets *number if `name` is a message's file name, else -1. */
int message_name_parse(const char *name, uint64_t *number);

#endif
