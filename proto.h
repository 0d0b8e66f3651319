/* proto.h: bytes of the memcache text protocol to commands. */
#ifndef MQ_PROTO_H
#define MQ_PROTO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PROTO_LINE_MAX 2048       /* bytes of a command line with its end */
#define PROTO_GET_MAX 65536       /* the same for get and gets, which may name many queues */
#define PROTO_KEY_MAX 250         /* bytes of a key, as in memcached */
#define PROTO_DELAY_MAX 315360000 /* seconds: ten years */
#define PROTO_BINARY 0x80         /* first byte of a request in the binary protocol */
#define PROTO_BINARY_HEADER 24

enum verb {
	VERB_FIXED, /* answered by `reply` alone */
	VERB_SET,
	VERB_GET,
	VERB_GETS,
	VERB_FLUSH_ALL,
	VERB_FLUSH_EXPIRED,
	VERB_MONITOR,
	VERB_CONFIRM,
	VERB_DELETE,
	VERB_FLUSH,
	VERB_PAUSE,
	VERB_STATUS,
	VERB_STATS,
	VERB_DUMP_STATS,
	VERB_VERSION,
	VERB_QUIT,
};

struct word {
	const char *s;
	size_t len;
};

struct command {
	enum verb verb;
	const char *reply; /* if not NULL: the one line to answer, whatever the verb */
	bool noreply;      /* the client reads no answer */
	bool has_block;    /* a data block of `bytes` and CRLF follows the line */
	uint64_t bytes;
	struct word key;    /* the first key; s is NULL if there is none */
	uint64_t number[2]; /* of monitor, confirm and pause: what stands behind the key */
	const char *end;    /* of the line, for proto_next_word */
	uint32_t flags;
	int64_t exptime; /* of set: 0 never; up to 30 days in seconds from now; else a date */
};

/*
 * Read the command line of `len` bytes, without its line end. Always fills *c, whose
 * words point into the line; a line that is no command or is malformed has its reply in
 * c->reply. Specification: memcached's doc/protocol.txt, and what clients were seen to do
 * beyond it.
 */
void proto_parse(const char *line, size_t len, struct command *c);

/* Is a line of this length (line end included) too long, given how it begins? */
bool proto_too_long(const char *line, size_t len);

/* Step to the next word of the line behind `word`; s becomes NULL at the end. */
void proto_next_word(const char *end, struct word *word);

/* Is the word there, and this one? Kestrel's clients write the words of the protocol in capitals,
 * so their case does not count. For words that name a queue it does. */
bool proto_word_is(struct word w, const char *s);

/* Why a key cannot name a queue: the reply, or NULL if it can. Writes the queue's
 * directory name to `dir`, of QUEUE_NAME_MAX + 1 bytes. */
const char *proto_key_error(struct word key, char *dir);

/* What a get asks for behind the name of a queue. */
struct get_options {
	bool open;        /* take it, but keep it until close */
	bool close;       /* what was opened is done */
	bool abort;       /* ... goes back */
	bool peek;        /* look, and take nothing */
	uint32_t wait_ms; /* how long to wait for a message */
};

/*
 * Take the key of a get apart: a queue's name, and options behind slashes. Returns NULL, or the
 * reply if an option is unknown, or does not go with another. Specification: Kestrel's
 * docs/guide.md; but what Kestrel ignores is refused here.
 */
const char *proto_get_options(struct word key, struct word *queue, struct get_options *o);

/* The same for the key of a set: *delay is the number of seconds of delay=<n>, -1 without it. */
const char *proto_set_options(struct word key, struct word *queue, int64_t *delay);

/*
 * The answer to a request in the binary protocol, of which `len` bytes are here. Writes
 * at most 64 bytes to `reply` and returns how many. Specification: memcached's
 * doc/protocol-binary.txt.
 */
size_t proto_refuse_binary(const char *request, size_t len, char *reply);

#endif
