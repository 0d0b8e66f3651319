/*
 * state.c: what `.state` of a queue says, and which numbers may still hold a message.
 *
 * The file is text for the operator's eyes and of a fixed length, so that it is read and
 * written by one system call each, and of a text only what has changed since the last one need be
 * read or written. Every field that a message depends on can be made anew from a listing of the
 * directory (queue.c, rebuild), whatever a power loss has left of the file; the counters are lost
 * with it.
 *
 * Messages leave at the head, so one range of numbers [head, next) nearly says where they
 * are. But a message whose delivery failed goes back to its old place, which the head may
 * have left long ago. Setting the head back would make the next reader walk over every
 * number used in between; hence a few further ranges, kept in order and apart.
 */
#include "state.h"

#include <string.h>

#include "message.h"
#include "number.h"

#define DIGITS MESSAGE_NAME_LEN

static const char magic[] = "mqd state 3\nboot ";
static const char range_label[] = "\nrange ";
static const char stale_label[] = "\nstale ";
static const char durable_label[] = "\ndurable ";
static const char graveyard_label[] = "\ngraveyard ";

/* The plain numbers, in the order of the file. */
/* clang-format off */
static const struct {
	const char *label;
	size_t at;
} fields[] = {
    {"\nput ", offsetof(struct state, put)},
    {"\nwaiting ", offsetof(struct state, waiting)},
    {"\nbytes ", offsetof(struct state, bytes)},
    {"\ndelayed ", offsetof(struct state, delayed)},
    {"\ndelayed_bytes ", offsetof(struct state, delayed_bytes)},
    {"\ndue ", offsetof(struct state, due)},
    {"\npaused ", offsetof(struct state, paused)},
#define COUNTER(name) {"\n" #name " ", offsetof(struct state, name)},
    QUEUE_COUNTERS(COUNTER)
#undef COUNTER
    {"\nswept ", offsetof(struct state, swept)},
    {"\nspare ", offsetof(struct state, spare)},
};
/* clang-format on */
#define NFIELDS (sizeof fields / sizeof fields[0])

void
state_init(struct state *s, const char *boot)
{
	memset(s, 0, sizeof *s);
	memcpy(s->boot, boot, STATE_BOOT_LEN);
	s->nranges = 1;
	s->ranges[0] = (struct range){1, 1};
	s->spare = 1;
}

static uint64_t
field(const struct state *s, size_t i)
{
	uint64_t value;

	memcpy(&value, (const char *)s + fields[i].at, sizeof value);
	return value;
}

static char *
write_text(char *p, const char *text)
{
	size_t len = strlen(text);

	memcpy(p, text, len);
	return p + len;
}

static char *
write_number(char *p, uint64_t value)
{
	number_write(p, DIGITS, value);
	return p + DIGITS;
}

void
state_write(char *buf, const struct state *s, const struct state *was)
{
	char *p = buf;

	if (was == NULL)
		memcpy(write_text(p, magic), s->boot, STATE_BOOT_LEN);
	p += strlen(magic) + STATE_BOOT_LEN;
	for (size_t i = 0; i < NFIELDS; i++) {
		uint64_t value = field(s, i);
		if (was == NULL || value != field(was, i))
			write_number(write_text(p, fields[i].label), value);
		p += strlen(fields[i].label) + DIGITS;
	}
	p = write_text(write_text(p, stale_label), s->stale ? "1" : "0");
	p = write_text(write_text(p, durable_label), s->durable ? "1" : "0");
	p = write_text(write_text(p, graveyard_label), s->graveyard ? "1" : "0");
	for (unsigned i = 0; i < s->nranges; i++) {
		p = write_number(write_text(p, range_label), s->ranges[i].from);
		p = write_number(write_text(p, " "), s->ranges[i].to);
	}
	if (was != NULL && was->nranges == s->nranges)
		return;
	*p++ = '\n';
	memset(p, ' ', STATE_LEN - (size_t)(p - buf));
	buf[STATE_LEN - 1] = '\n';
}

static bool
read_text(const char **p, const char *end, const char *text)
{
	size_t len = strlen(text);

	if ((size_t)(end - *p) < len || memcmp(*p, text, len) != 0)
		return false;
	*p += len;
	return true;
}

static bool
read_number(const char **p, const char *end, uint64_t *value)
{
	if (end - *p < DIGITS || number_parse(*p, DIGITS, MESSAGE_NUMBER_MAX, value) == -1)
		return false;
	*p += DIGITS;
	return true;
}

static bool
read_flag(const char **p, const char *end, const char *label, bool *value)
{
	if (!read_text(p, end, label) || end - *p < 1 || (**p != '0' && **p != '1'))
		return false;
	*value = *(*p)++ == '1';
	return true;
}

int
state_read(const char *buf, size_t len, struct state *s, const char *known)
{
	const char *p = buf, *end = buf + len;

	if (len != STATE_LEN || !read_text(&p, end, magic))
		return -1;
	memcpy(s->boot, p, STATE_BOOT_LEN);
	p += STATE_BOOT_LEN;
	for (size_t i = 0; i < NFIELDS; i++) {
		uint64_t value;
		if (!read_text(&p, end, fields[i].label))
			return -1;
		if (known != NULL && memcmp(p, known + (p - buf), DIGITS) == 0) {
			p += DIGITS;
			continue;
		}
		if (!read_number(&p, end, &value))
			return -1;
		memcpy((char *)s + fields[i].at, &value, sizeof value);
	}
	if (!read_flag(&p, end, stale_label, &s->stale) ||
	    !read_flag(&p, end, durable_label, &s->durable) ||
	    !read_flag(&p, end, graveyard_label, &s->graveyard))
		return -1;

	uint64_t last = 0;
	s->nranges = 0;
	while (s->nranges < STATE_RANGES && read_text(&p, end, range_label)) {
		struct range *r = &s->ranges[s->nranges++];
		if (!read_number(&p, end, &r->from) || !read_text(&p, end, " ") ||
		    !read_number(&p, end, &r->to) || r->from <= last || r->to < r->from)
			return -1;
		last = r->to;
	}
	if (s->nranges == 0)
		return -1;
	return 0; /* the rest is padding */
}

struct range *
state_main(struct state *s)
{
	return &s->ranges[s->nranges - 1];
}

uint64_t
state_next(const struct state *s)
{
	return s->ranges[s->nranges - 1].to;
}

bool
state_has(const struct state *s, uint64_t n)
{
	for (unsigned i = 0; i < s->nranges; i++)
		if (n >= s->ranges[i].from && n < s->ranges[i].to)
			return true;
	return false;
}

static void
remove_range(struct state *s, unsigned i)
{
	s->nranges--;
	memmove(&s->ranges[i], &s->ranges[i + 1], (s->nranges - i) * sizeof s->ranges[0]);
}

/* Make of ranges i and i + 1 one. */
static void
join_ranges(struct state *s, unsigned i)
{
	s->ranges[i].to = s->ranges[i + 1].to;
	remove_range(s, i + 1);
}

/* Room for one more range: join the two with the smallest gap. Returns the first's index.
 */
static unsigned
make_room(struct state *s)
{
	unsigned best = 0;

	for (unsigned i = 0; i + 1 < s->nranges; i++)
		if (s->ranges[i + 1].from - s->ranges[i].to <
		    s->ranges[best + 1].from - s->ranges[best].to)
			best = i;
	join_ranges(s, best);
	return best;
}

void
state_give(struct state *s, uint64_t n)
{
	unsigned i = 0;

	if (state_has(s, n))
		return;
	if (n >= state_next(s)) {
		state_main(s)->to = n + 1;
		return;
	}
	while (n >= s->ranges[i].to && i + 1 < s->nranges)
		i++;
	/* Here n lies before range i; an empty main range at n + 1 just moves down. */
	if (n + 1 == s->ranges[i].from) {
		s->ranges[i].from = n;
	} else if (i > 0 && n == s->ranges[i - 1].to) {
		s->ranges[i - 1].to = n + 1;
	} else if (s->nranges < STATE_RANGES) {
		memmove(&s->ranges[i + 1], &s->ranges[i], (s->nranges - i) * sizeof s->ranges[0]);
		s->nranges++;
		s->ranges[i] = (struct range){n, n + 1};
	} else {
		make_room(s);
		state_give(s, n);
		return;
	}
	if (i > 0 && s->ranges[i - 1].to == s->ranges[i].from)
		join_ranges(s, i - 1);
}

void
state_adopt(struct state *s, uint64_t bytes)
{
	state_give(s, state_next(s));
	s->put++;
	state_count_in(s, bytes);
}

void
state_take(struct state *s, uint64_t n)
{
	for (unsigned i = 0; i < s->nranges; i++) {
		struct range *r = &s->ranges[i];
		bool proper = i + 1 == s->nranges;

		if (n < r->from || n >= r->to)
			continue;
		if (n == r->from) {
			r->from++;
			if (r->from == r->to && !proper)
				remove_range(s, i);
		} else if (n + 1 == r->to && !proper) {
			r->to--;
		} else if (s->nranges < STATE_RANGES) {
			memmove(r + 1, r, (s->nranges - i) * sizeof *r);
			s->nranges++;
			r[0].to = n;
			r[1].from = n + 1;
		}
		return;
	}
}

void
state_skip(struct state *s, uint64_t from, uint64_t to)
{
	for (unsigned i = s->nranges; i-- > 0;) {
		struct range *r = &s->ranges[i];
		if (r->from < from || r->from >= to)
			continue;
		r->from = to < r->to ? to : r->to;
		if (r->from == r->to && i + 1 < s->nranges)
			remove_range(s, i);
	}
}

uint64_t
state_candidate(const struct state *s, uint64_t n)
{
	for (unsigned i = 0; i < s->nranges; i++)
		if (n < s->ranges[i].to)
			return n > s->ranges[i].from ? n : s->ranges[i].from;
	return state_next(s);
}

void
state_count_in(struct state *s, uint64_t bytes)
{
	s->waiting++;
	s->bytes += bytes;
}

void
state_count_out(struct state *s, uint64_t bytes)
{
	if (s->waiting == 0 || s->bytes < bytes)
		s->stale = true;
	s->waiting -= s->waiting > 0;
	s->bytes -= s->bytes < bytes ? s->bytes : bytes;
}
