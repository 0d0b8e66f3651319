/* json.h: write one JSON document, piece by piece. */
#ifndef MQ_JSON_H
#define MQ_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#define JSON_DEPTH 8

/* A document on its way out. To be treated as opaque. Errors of the stream are for its owner to find,
 * with ferror. */
struct json {
	FILE *out;
	unsigned depth;
	bool empty; /* what was opened last holds nothing yet */
	char ends[JSON_DEPTH];
};

/*
 * A document is one object: json_begin opens it, json_end closes all that is open, and adds a
 * newline. Of the functions between, `key` is a C string, or NULL in an array.
 */
void json_begin(struct json *j, FILE *out);
void json_end(struct json *j);

/* Open an object or an array; json_close closes the one that was opened last. */
void json_object(struct json *j, const char *key);
void json_array(struct json *j, const char *key);
void json_close(struct json *j);

void json_number(struct json *j, const char *key, uint64_t n);
void json_bool(struct json *j, const char *key, bool b);
void json_null(struct json *j, const char *key);

/*
 * Bytes: a string if they are valid UTF-8, else an object {"base64": "..."}. Control characters of
 * all kinds are escaped, and so are '<' and what ends a line in JavaScript: whatever the bytes are,
 * they do nothing to a terminal that the document is shown on, nor to a page that it is part of.
 */
void json_bytes(struct json *j, const char *key, const void *data, size_t len);
void json_string(struct json *j, const char *key, const char *s);

/* The same of bytes that are too many to have in memory: `read` is as pread(2) of them, and is asked
 * for all of them twice. 0; -1 if not all could be read, and the document is cut short. */
typedef ssize_t json_reader(const void *arg, void *buf, size_t len, uint64_t offset);
int json_stream(struct json *j, const char *key, json_reader *read, const void *arg,
                uint64_t length);

/* A queue's name from its encoded one: "name" and "encoded". */
void json_queue(struct json *j, const char *queue);

#endif
