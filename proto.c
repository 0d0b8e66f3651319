/*
 * proto.c: bytes of the memcache text protocol to commands.
 *
 * A line is split at spaces, its first word looked up in a table, and the rest checked
 * against the table's row: how many words, where the length of a data block stands, where
 * `noreply` may. Most memcache commands mean nothing to a queue and need no more than
 * their row, which has the fixed answer that keeps a client content and in step.
 *
 * The one rule behind the details: a data block is never run as commands. When a line
 * that announces one is refused, its length is still believed if there is one at all. For the same
 * reason HTTP means `quit`: a page in somebody's browser, or a server that fetches what it is told
 * to, can be made to send commands in the body of a request.
 */
#include "proto.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

#include "number.h"
#include "queue_name.h"

#define BAD_FORMAT "CLIENT_ERROR bad command line format"
#define WORDS_MAX 8 /* a well-formed line of those that end has no more */
#define MANY SIZE_MAX

static const struct row {
	const char *name;
	enum verb verb;
	size_t min, max;   /* words, the name included */
	size_t block;      /* the word that is the length of a data block; 0: there is none */
	size_t noreply;    /* the first word that may be `noreply`; 0: none may */
	const char *reply; /* of VERB_FIXED */
} table[] = {
    {"set", VERB_SET, 5, 6, 4, 5, NULL},
    {"get", VERB_GET, 2, MANY, 0, 0, NULL},
    {"gets", VERB_GETS, 2, MANY, 0, 0, NULL},
    {"flush_expired", VERB_FLUSH_EXPIRED, 1, 2, 0, 0, NULL},
    {"reload", VERB_FIXED, 1, 1, 0, 0, "Reloaded config."},
    {"monitor", VERB_MONITOR, 3, 4, 0, 0, NULL},
    {"confirm", VERB_CONFIRM, 3, 3, 0, 0, NULL},
    {"delete", VERB_DELETE, 2, 4, 0, 2, NULL},
    {"flush_all_expired", VERB_FLUSH_EXPIRED, 1, 1, 0, 0, NULL},
    {"flush", VERB_FLUSH, 2, 2, 0, 0, NULL},
    {"pause", VERB_PAUSE, 3, 3, 0, 0, NULL},
    {"status", VERB_STATUS, 1, 2, 0, 0, NULL},
    {"stats", VERB_STATS, 1, MANY, 0, 0, NULL},
    {"dump_stats", VERB_DUMP_STATS, 1, MANY, 0, 0, NULL},
    {"version", VERB_VERSION, 1, 1, 0, 0, NULL},
    {"quit", VERB_QUIT, 1, 1, 0, 0, NULL},
    {"verbosity", VERB_FIXED, 2, 3, 0, 2, "OK"},
    {"db_archive", VERB_FIXED, 1, 1, 0, 0, "OK"}, /* memcacheq's operators send these two */
    {"db_checkpoint", VERB_FIXED, 1, 1, 0, 0, "OK"},
    {"flush_all", VERB_FLUSH_ALL, 1, 3, 0, 1, NULL},
    {"add", VERB_FIXED, 5, 6, 4, 5, "NOT_STORED"},
    {"replace", VERB_FIXED, 5, 6, 4, 5, "NOT_STORED"},
    {"append", VERB_FIXED, 5, 6, 4, 5, "NOT_STORED"},
    {"prepend", VERB_FIXED, 5, 6, 4, 5, "NOT_STORED"},
    {"cas", VERB_FIXED, 6, 7, 4, 6, "EXISTS"},
    {"incr", VERB_FIXED, 3, 4, 0, 3, "NOT_FOUND"},
    {"decr", VERB_FIXED, 3, 4, 0, 3, "NOT_FOUND"},
    {"touch", VERB_FIXED, 3, 4, 0, 3, "NOT_FOUND"},
    {"gat", VERB_FIXED, 3, MANY, 0, 0, "END"},
    {"gats", VERB_FIXED, 3, MANY, 0, 0, "END"},
    {"cache_memlimit", VERB_FIXED, 2, 3, 0, 2, "OK"},
    {"ms", VERB_FIXED, 3, MANY, 2, 0, "CLIENT_ERROR meta commands are not supported"},
    {"mn", VERB_FIXED, 1, 1, 0, 0, "MN"},
};

void
proto_next_word(const char *end, struct word *word)
{
	const char *p = word->s + word->len;

	while (p < end && *p == ' ')
		p++;
	word->s = p < end ? p : NULL;
	word->len = 0;
	while (p < end && *p != ' ')
		p++, word->len++;
}

bool
proto_word_is(struct word w, const char *s)
{
	return w.s != NULL && w.len == strlen(s) && strncasecmp(w.s, s, w.len) == 0;
}

static const struct row *
find_row(struct word name)
{
	for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
		if (proto_word_is(name, table[i].name))
			return &table[i];
	return NULL;
}

bool
proto_too_long(const char *line, size_t len)
{
	if (len <= PROTO_LINE_MAX)
		return false;
	return len > PROTO_GET_MAX ||
	       (strncasecmp(line, "get ", 4) != 0 && strncasecmp(line, "gets ", 5) != 0);
}

/* A line taken apart: all words counted, the first and the last ones kept. */
struct words {
	size_t n;
	struct word first[WORDS_MAX];
	struct word last[3]; /* last[0] is the last of all */
};

static void
split(struct words *w, const char *line, const char *end, size_t enough)
{
	struct word word = {line, 0};

	*w = (struct words){0};
	for (proto_next_word(end, &word); word.s != NULL; proto_next_word(end, &word)) {
		if (w->n < WORDS_MAX)
			w->first[w->n] = word;
		w->last[2] = w->last[1];
		w->last[1] = w->last[0];
		w->last[0] = word;
		if (++w->n == enough)
			break;
	}
}

/* The number in the word, if it is one, is the length of the data block. */
static bool
set_block(struct word w, struct command *c)
{
	if (w.s == NULL || number_parse(w.s, w.len, INT64_MAX, &c->bytes) == -1)
		return false;
	c->has_block = true;
	return true;
}

/*
 * A command with a data block has more words than it should, because of a space in its key, or
 * one less, because its key is empty. Counted from the end of the line, a `noreply` apart, the
 * length of what follows is where it belongs; if no number is there, perhaps the end of the
 * line is wrong and not the key.
 */
static void
parse_misshaped_block(const struct row *row, const struct words *w, struct command *c)
{
	size_t from_end = row->min - 1 - row->block;

	c->noreply = proto_word_is(w->last[0], "noreply");
	if (c->noreply)
		from_end++;
	c->reply = BAD_FORMAT;
	if (!set_block(w->last[from_end], c) && !set_block(w->first[row->block], c))
		c->reply = "ERROR";
}

/* The numbers of a storage command: flags, exptime, bytes. */
static void
parse_storage(const struct word *words, struct command *c)
{
	struct word exptime = words[3];
	bool negative = exptime.len > 1 && exptime.s[0] == '-';
	uint64_t flags, seconds;

	if (negative)
		exptime.s++, exptime.len--;
	if (number_parse(words[2].s, words[2].len, UINT32_MAX, &flags) == -1 ||
	    number_parse(exptime.s, exptime.len, INT64_MAX, &seconds) == -1) {
		c->reply = BAD_FORMAT;
		return;
	}
	c->flags = (uint32_t)flags;
	c->exptime = negative ? -(int64_t)seconds : (int64_t)seconds;
}

static void
parse_delete(const struct words *w, size_t n, struct command *c)
{
	uint64_t ignored;

	if (n > 3)
		c->reply = "ERROR";
	else if (n == 3 && number_parse(w->first[2].s, w->first[2].len, UINT32_MAX, &ignored) == -1)
		c->reply = BAD_FORMAT;
}

/* The numbers behind a key: all that are there must be numbers. */
static void
parse_numbers(const struct words *w, struct command *c)
{
	for (size_t i = 2; i < w->n; i++)
		if (number_parse(w->first[i].s, w->first[i].len, INT32_MAX, &c->number[i - 2]) ==
		    -1)
			c->reply = BAD_FORMAT;
}

/* The first line of a request, as of "POST /q HTTP/1.1". No command ends so: names have no slash. */
static bool
is_http(const char *line, size_t len)
{
	return len >= 9 && memcmp(line + len - 9, " HTTP/", 6) == 0;
}

void
proto_parse(const char *line, size_t len, struct command *c)
{
	struct word name = {line, 0};
	const struct row *row;
	struct words w;

	*c = (struct command){.verb = VERB_FIXED, .end = line + len};
	if (is_http(line, len)) {
		c->verb = VERB_QUIT;
		return;
	}
	proto_next_word(c->end, &name);
	row = name.s != NULL ? find_row(name) : NULL;
	if (row == NULL) {
		c->reply = "ERROR";
		return;
	}
	c->verb = row->verb;
	c->reply = row->reply;
	/* Where any number of words may come the handler walks on from the key. */
	split(&w, line, c->end, row->max == MANY ? row->min + 1 : 0);
	c->key = w.first[1];

	size_t n = w.n;
	if (row->noreply != 0 && n > row->noreply && proto_word_is(w.last[0], "noreply")) {
		c->noreply = true;
		n--;
	}
	bool shaped = n >= row->min && w.n <= row->max;
	if (row->block != 0 && row->max != MANY) {
		const char *behind = name.s + name.len;
		bool empty_key = c->end - behind > 1 && behind[1] == ' ';
		if (empty_key || n > row->min) {
			parse_misshaped_block(row, &w, c);
			return;
		}
	}
	if (!shaped) {
		c->reply = "ERROR";
		return;
	}
	if (row->block != 0 && !set_block(w.first[row->block], c)) {
		c->reply = BAD_FORMAT;
		return;
	}
	if (row->verb == VERB_SET)
		parse_storage(w.first, c);
	else if (row->verb == VERB_DELETE)
		parse_delete(&w, n, c);
	else if (row->verb == VERB_MONITOR || row->verb == VERB_CONFIRM || row->verb == VERB_PAUSE)
		parse_numbers(&w, c);
}

const char *
proto_key_error(struct word key, char *dir)
{
	if (key.s == NULL)
		return "ERROR";
	if (key.len > PROTO_KEY_MAX)
		return "CLIENT_ERROR key too long";
	if (queue_name_encode(key.s, key.len, dir) == 0)
		return NULL;
	if (errno == ENAMETOOLONG)
		return "CLIENT_ERROR queue name too long";
	if (memchr(key.s, '/', key.len) != NULL)
		return "CLIENT_ERROR queue name may not contain a slash";
	return "CLIENT_ERROR queue name may not contain NUL";
}

/* As part of a key it keeps its case. */
static bool
set_option(struct word w, struct get_options *o)
{
	static const struct {
		const char *name;
		size_t at;
	} flags[] = {{"open", offsetof(struct get_options, open)},
	             {"close", offsetof(struct get_options, close)},
	             {"abort", offsetof(struct get_options, abort)},
	             {"peek", offsetof(struct get_options, peek)}};
	uint64_t ms;

	for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++)
		if (w.len == strlen(flags[i].name) && memcmp(w.s, flags[i].name, w.len) == 0) {
			*(bool *)((char *)o + flags[i].at) = true;
			return true;
		}
	if (w.len < 2 || memcmp(w.s, "t=", 2) != 0 ||
	    number_parse(w.s + 2, w.len - 2, INT32_MAX, &ms) == -1)
		return false;
	o->wait_ms = (uint32_t)ms;
	return true;
}

/* The option behind the last one, which ends at *p (NULL: there is none); the first, if *p is where
 * the queue's name ends. */
static bool
next_option(struct word key, const char **p, struct word *option)
{
	const char *end = key.s + key.len, *from;

	if (*p == NULL)
		return false;
	from = *p + 1;
	*p = memchr(from, '/', (size_t)(end - from));
	*option = (struct word){from, (size_t)((*p != NULL ? *p : end) - from)};
	return true;
}

/* The queue's name, and *p is where it ends if there are options. */
static const char *
split_key(struct word key, struct word *queue, const char **p)
{
	*p = memchr(key.s, '/', key.len);
	*queue = (struct word){key.s, *p != NULL ? (size_t)(*p - key.s) : key.len};
	if (key.len > PROTO_KEY_MAX)
		return "CLIENT_ERROR key too long";
	if (queue->len == 0)
		return "CLIENT_ERROR queue name missing";
	return NULL;
}

const char *
proto_get_options(struct word key, struct word *queue, struct get_options *o)
{
	const char *p, *refusal = split_key(key, queue, &p);
	struct word option;
	unsigned n = 0;

	*o = (struct get_options){0};
	for (; refusal == NULL && next_option(key, &p, &option); n++)
		if (!set_option(option, o))
			refusal = "CLIENT_ERROR unknown option";
	if (refusal == NULL && o->abort && n > 1)
		refusal = "CLIENT_ERROR abort goes with no other option";
	if (refusal == NULL && o->peek && (o->open || o->close))
		refusal = "CLIENT_ERROR peek does not go with open or close";
	return refusal;
}

const char *
proto_set_options(struct word key, struct word *queue, int64_t *delay)
{
	static const char name[] = "delay=";
	const char *p, *refusal = split_key(key, queue, &p);
	size_t len = sizeof name - 1;
	struct word option;
	uint64_t seconds;

	*delay = -1;
	while (refusal == NULL && next_option(key, &p, &option)) {
		if (option.len < len || memcmp(option.s, name, len) != 0)
			refusal = "CLIENT_ERROR unknown option";
		else if (number_parse(option.s + len, option.len - len, PROTO_DELAY_MAX,
		                      &seconds) == -1)
			refusal = "CLIENT_ERROR bad delay";
		else
			*delay = (int64_t)seconds;
	}
	return refusal;
}

size_t
proto_refuse_binary(const char *request, size_t len, char *reply)
{
	static const char text[] = "text protocol only";
	size_t text_len = sizeof text - 1;

	memset(reply, 0, PROTO_BINARY_HEADER);
	reply[0] = (char)0x81; /* magic: response */
	if (len > 1)
		reply[1] = request[1]; /* opcode */
	reply[7] = (char)0x81;         /* status 0x0081: unknown command */
	reply[11] = (char)text_len;
	if (len >= 16)
		memcpy(reply + 12, request + 12, 4); /* opaque */
	memcpy(reply + PROTO_BINARY_HEADER, text, text_len);
	return PROTO_BINARY_HEADER + text_len;
}
