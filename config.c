/*
 * config.c: the files `.config`: what they may say, and how they are read and written.
 *
 *     # a comment
 *     max_items = 100000      # another
 *     max_bytes = 2g
 *
 * One file in the spool is for all queues, one in a queue for that queue; for each key the
 * queue's wins over the spool's, and that over the default. A further key is a row in `keys` and a
 * member of struct config.
 *
 * A file is looked at by name (config_look) and read only if it is another than last time, by
 * device, inode, size and times: so whoever keeps a struct config_file pays one fstatat. What is
 * not a regular file is never opened. A file with a mistake in it changes nothing, for half of
 * what an operator meant may be worse than what he had.
 *
 * It is written (config_edit) beside the old one and renamed over it, so that nobody reads half of
 * it. A lock on the directory keeps two writers apart; who makes a queue takes the spool's, too.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "number.h"

#define FILE_MAX 65536 /* bytes */
#define VALUE_MAX UINT64_C(9999999999999999)
#define DELAY_MAX_MS (UINT64_C(1000) * CONFIG_DELAY_MAX)
#define AT(member) offsetof(struct config, member)

static const struct key {
	const char *name;
	enum config_kind kind;
	enum config_scope scope; /* CONFIG_SPOOL: not in a queue's own file */
	size_t at;               /* in struct config */
	uint64_t initial, min, max;
} keys[] = {
    {"max_items", CONFIG_COUNT, CONFIG_QUEUE, AT(max_items), 0, 0, VALUE_MAX},
    {"max_bytes", CONFIG_SIZE, CONFIG_QUEUE, AT(max_bytes), 0, 0, VALUE_MAX},
    {"max_item_size", CONFIG_SIZE, CONFIG_QUEUE, AT(max_item_size), 0, 0, VALUE_MAX},
    {"discard_old", CONFIG_YES_NO, CONFIG_QUEUE, AT(discard_old), 0, 0, 1},
    {"max_open", CONFIG_COUNT, CONFIG_QUEUE, AT(max_open), 1, 1, CONFIG_OPEN_MAX},
    {"expire", CONFIG_YES_NO, CONFIG_QUEUE, AT(expire), 0, 0, 1},
    {"max_age", CONFIG_TIME, CONFIG_QUEUE, AT(max_age), 0, 0, VALUE_MAX},
    {"max_tries", CONFIG_COUNT, CONFIG_QUEUE, AT(max_tries), 0, 0, 99999},
    {"open_timeout", CONFIG_TIME, CONFIG_QUEUE, AT(open_timeout), 0, 0, VALUE_MAX},
    {"fanout_only", CONFIG_YES_NO, CONFIG_QUEUE, AT(fanout_only), 0, 0, 1},
    {"delay", CONFIG_TIME, CONFIG_QUEUE, AT(delay), 0, 0, DELAY_MAX_MS},
    {"expire_to", CONFIG_QUEUE_NAME, CONFIG_QUEUE, AT(expire_to), 0, 0, 0},
    {"dead_letter", CONFIG_QUEUE_NAME, CONFIG_QUEUE, AT(dead_letter), 0, 0, 0},
    {"status", CONFIG_STATUS, CONFIG_SPOOL, AT(status), STATUS_UP, STATUS_UP, STATUS_QUIESCENT},
    {"allow_flush_all", CONFIG_YES_NO, CONFIG_SPOOL, AT(allow_flush_all), 0, 0, 1},
    {"max_queues", CONFIG_COUNT, CONFIG_SPOOL, AT(max_queues), CONFIG_QUEUES, 0, VALUE_MAX},
};
_Static_assert(sizeof keys / sizeof keys[0] == CONFIG_KEYS, "config.h says how many there are");

/*
 * Values
 */

static int
parse_time(const char *text, uint64_t *ms)
{
	static const struct {
		const char *name;
		uint64_t ms;
	} units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}};
	size_t digits = strspn(text, "0123456789");

	for (size_t i = 0; i < sizeof units / sizeof units[0]; i++)
		if (strcmp(text + digits, units[i].name) == 0) {
			if (number_parse(text, digits, VALUE_MAX / units[i].ms, ms) == -1)
				return -1;
			*ms *= units[i].ms;
			return 0;
		}
	/* Seconds or milliseconds? Only of none it does not matter. */
	return number_parse(text, strlen(text), 0, ms);
}

static const char *const statuses[] = {
    [STATUS_UP] = "up", [STATUS_READONLY] = "readonly", [STATUS_QUIESCENT] = "quiescent"};

const char *
config_status_name(uint64_t status)
{
	return statuses[status];
}

static int
parse_status(const char *text, uint64_t *value)
{
	for (size_t i = 0; i < sizeof statuses / sizeof statuses[0]; i++)
		if (strcmp(text, statuses[i]) == 0) {
			*value = i;
			return 0;
		}
	return -1;
}

int
config_value(enum config_kind kind, const char *text, uint64_t *value)
{
	switch (kind) {
	case CONFIG_COUNT:
		return number_parse(text, strlen(text), VALUE_MAX, value);
	case CONFIG_SIZE:
		return number_parse_size(text, VALUE_MAX, value);
	case CONFIG_TIME:
		return parse_time(text, value);
	case CONFIG_YES_NO:
		*value = strcmp(text, "yes") == 0;
		return *value == 1 || strcmp(text, "no") == 0 ? 0 : -1;
	case CONFIG_STATUS:
		return parse_status(text, value);
	case CONFIG_QUEUE_NAME:
		break;
	}
	return -1;
}

static const char *const kind_names[] = {
    [CONFIG_COUNT] = "a number",
    [CONFIG_SIZE] = "a size: digits, and k, m or g",
    [CONFIG_TIME] = "a time: digits and ms, s, m, h or d",
    [CONFIG_YES_NO] = "yes or no",
    [CONFIG_STATUS] = "up, readonly or quiescent",
    [CONFIG_QUEUE_NAME] = "the name of a queue",
};

/* Of any kind: the larger of the two is unused. */
struct value {
	uint64_t number;
	char name[QUEUE_NAME_MAX + 1]; /* CONFIG_QUEUE_NAME */
};

static struct value
get(const struct config *c, unsigned k)
{
	const char *at = (const char *)c + keys[k].at;
	struct value v = {0};

	if (keys[k].kind == CONFIG_QUEUE_NAME)
		strcpy(v.name, at);
	else
		memcpy(&v.number, at, sizeof v.number);
	return v;
}

static void
put(struct config *c, unsigned k, const struct value *v)
{
	char *at = (char *)c + keys[k].at;

	if (keys[k].kind == CONFIG_QUEUE_NAME)
		strcpy(at, v->name);
	else
		memcpy(at, &v->number, sizeof v->number);
}

const char *
config_key(unsigned k)
{
	return k < CONFIG_KEYS ? keys[k].name : NULL;
}

enum config_kind
config_kind(unsigned k)
{
	return keys[k].kind;
}

void
config_show(const struct config *c, unsigned k, char *text)
{
	struct value v = get(c, k);

	switch (keys[k].kind) {
	case CONFIG_COUNT:
	case CONFIG_SIZE:
	case CONFIG_TIME:
		snprintf(text, CONFIG_VALUE_LEN, "%" PRIu64 "%s", v.number,
		         keys[k].kind == CONFIG_TIME ? "ms" : "");
		break;
	case CONFIG_YES_NO:
		strcpy(text, v.number == 1 ? "yes" : "no");
		break;
	case CONFIG_STATUS:
		strcpy(text, config_status_name(v.number));
		break;
	case CONFIG_QUEUE_NAME:
		strcpy(text, v.name[0] != '\0' ? v.name : "-");
		break;
	}
}

void
config_merge(struct config *c, const struct config_file *spool, const struct config_file *queue)
{
	for (unsigned k = 0; k < CONFIG_KEYS; k++) {
		const struct config_file *f = queue != NULL && queue->line[k] != 0 ? queue : spool;
		bool name = keys[k].kind == CONFIG_QUEUE_NAME;
		const char *from = (const char *)&keys[k].initial; /* 0: as a name it is "" */
		if (f->line[k] != 0)
			from = (const char *)&f->values + keys[k].at;
		memcpy((char *)c + keys[k].at, from, name ? strlen(from) + 1 : sizeof(uint64_t));
	}
}

/*
 * Mistakes
 */

struct reporter {
	config_report *report;
	void *arg;
	unsigned mistakes;
};

__attribute__((format(printf, 3, 4))) static void
mistake(struct reporter *r, unsigned line, const char *format, ...)
{
	char detail[160];
	va_list args;

	va_start(args, format);
	vsnprintf(detail, sizeof detail, format, args);
	va_end(args);
	for (char *p = detail; *p != '\0'; p++)
		if (*p < ' ' || *p > '~')
			*p = '?'; /* it may be anything, and goes to a terminal */
	r->mistakes++;
	r->report(r->arg, line, detail);
}

void
config_place(char *buf, size_t size, const char *queue, unsigned line)
{
	bool in_queue = queue != NULL && queue[0] != '\0';
	int n = snprintf(buf, size, "%s%s.config", in_queue ? queue : "", in_queue ? "/" : "");

	if (line != 0 && n > 0 && (size_t)n < size)
		snprintf(buf + n, size - (size_t)n, ":%u", line);
}

/*
 * Lines
 */

struct span {
	const char *s;
	size_t len;
};

/* The next line of `text`, without its end. */
static bool
next_line(struct span *text, struct span *line)
{
	const char *newline;

	if (text->len == 0)
		return false;
	newline = memchr(text->s, '\n', text->len);
	line->s = text->s;
	line->len = newline != NULL ? (size_t)(newline - text->s) : text->len;
	text->s += line->len + (newline != NULL);
	text->len -= line->len + (newline != NULL);
	return true;
}

static bool
is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

static struct span
trim(const char *from, const char *to)
{
	while (from < to && is_blank(*from))
		from++;
	while (from < to && is_blank(to[-1]))
		to--;
	return (struct span){from, (size_t)(to - from)};
}

/* Take a line apart. Returns 1 if it is `key = value`, 0 if nothing is on it, -1. */
static int
split_line(struct span line, struct span *key, struct span *value)
{
	const char *comment = memchr(line.s, '#', line.len);
	const char *end = comment != NULL ? comment : line.s + line.len;
	const char *equals = memchr(line.s, '=', (size_t)(end - line.s));

	if (trim(line.s, end).len == 0)
		return 0;
	*key = trim(line.s, equals != NULL ? equals : end);
	*value = trim(equals != NULL ? equals + 1 : end, end);
	return key->len > 0 && value->len > 0 ? 1 : -1;
}

static bool
span_is(struct span a, const char *s)
{
	return a.len == strlen(s) && memcmp(a.s, s, a.len) == 0;
}

/* CONFIG_KEYS if there is none of that name. */
static unsigned
find_key(struct span name)
{
	unsigned k = 0;

	while (k < CONFIG_KEYS && !span_is(name, keys[k].name))
		k++;
	return k;
}

/* Read the text of a value. */
static int
read_value(enum config_kind kind, struct span value, struct value *v)
{
	char text[3 * CONFIG_VALUE_LEN]; /* before it is encoded it is shorter, not longer */
	int n = snprintf(text, sizeof text, "%.*s", (int)value.len, value.s);

	/* A NUL in it, or more than there is room for, makes it another. */
	if (value.len >= sizeof text || n < 0 || (size_t)n != value.len)
		return -1;
	if (kind == CONFIG_QUEUE_NAME)
		return queue_name_read(text, v->name);
	return config_value(kind, text, &v->number);
}

/* Check `key = value`, from line `line`. Returns whether it is right; then *k and *v are set. */
static bool
check_setting(struct span key, struct span value, enum config_scope scope, struct reporter *r,
              unsigned line, unsigned *k, struct value *v)
{
	const struct key *row;

	*k = find_key(key);
	if (*k == CONFIG_KEYS) {
		mistake(r, line, "%.*s: no such key", (int)(key.len < 40 ? key.len : 40), key.s);
		return false;
	}
	row = &keys[*k];
	*v = (struct value){0};
	if (row->scope == CONFIG_SPOOL && scope != CONFIG_SPOOL)
		mistake(r, line, "%s: only in the spool's own .config", row->name);
	else if (read_value(row->kind, value, v) == -1)
		mistake(r, line, "%s: must be %s", row->name, kind_names[row->kind]);
	else if (v->number < row->min || v->number > row->max)
		mistake(r, line, "%s: must be from %" PRIu64 " to %" PRIu64, row->name, row->min,
		        row->max);
	else
		return true;
	return false;
}

static void
parse(struct config_file *f, struct span text, enum config_scope scope, struct reporter *r)
{
	struct span line, key, value;
	unsigned k;
	struct value v;

	for (unsigned n = 1; next_line(&text, &line); n++) {
		int kind = split_line(line, &key, &value);
		if (kind == -1)
			mistake(r, n, "must be key = value");
		if (kind != 1 || !check_setting(key, value, scope, r, n, &k, &v))
			continue;
		if (f->line[k] != 0) {
			mistake(r, n, "%s: stands in line %u already", keys[k].name, f->line[k]);
			continue;
		}
		f->line[k] = n;
		put(&f->values, k, &v);
	}
}

/*
 * Files
 */

struct text {
	size_t len;
	char s[FILE_MAX + 1]; /* one byte more shows that there is more */
};

/* The file was found with this status: is it one to be opened? */
static bool
is_readable(const struct stat *st, struct reporter *r)
{
	if (!S_ISREG(st->st_mode))
		mistake(r, 0, "not a regular file");
	else if (st->st_size > FILE_MAX)
		mistake(r, 0, "larger than 64 KiB");
	else
		return true;
	return false;
}

/* Returns 0, or -1 with errno. */
static int
read_text(int dirfd, struct text *t)
{
	struct stat st;
	ssize_t n = 0;
	int fd = openat(dirfd, ".config", O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

	t->len = 0;
	if (fd == -1)
		return -1;
	if (fstat(fd, &st) == -1 || !S_ISREG(st.st_mode)) {
		close(fd);
		errno = EAGAIN; /* it was one when we last looked */
		return -1;
	}
	while (t->len < sizeof t->s && (n = read(fd, t->s + t->len, sizeof t->s - t->len)) != 0) {
		if (n == -1 && errno == EINTR)
			continue;
		if (n == -1)
			break;
		t->len += (size_t)n;
	}
	int e = n == -1 ? errno : EFBIG;
	close(fd);
	errno = e;
	return n == -1 || t->len > FILE_MAX ? -1 : 0;
}

static bool
same_time(struct timespec a, struct timespec b)
{
	return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

static bool
is_unchanged(const struct config_file *f, const struct stat *st)
{
	return f->exists && f->dev == st->st_dev && f->ino == st->st_ino &&
	       f->size == st->st_size && same_time(f->mtime, st->st_mtim) &&
	       same_time(f->ctime, st->st_ctim);
}

unsigned
config_look(struct config_file *f, int dirfd, enum config_scope scope, config_report *report,
            void *arg)
{
	static struct text text;
	struct reporter r = {.report = report, .arg = arg};
	struct config_file new = {.looked = true, .exists = true};
	struct stat st;

	if (fstatat(dirfd, ".config", &st, AT_SYMLINK_NOFOLLOW) == -1) {
		if (errno == ENOENT)
			*f = (struct config_file){.looked = true};
		else if (!f->looked)
			f->error = errno;
		return 0;
	}
	if (is_unchanged(f, &st))
		return 0;
	if (is_readable(&st, &r)) {
		if (read_text(dirfd, &text) == 0) {
			parse(&new, (struct span){text.s, text.len}, scope, &r);
		} else {
			/* What may pass is tried again; and known it is not until then. */
			new.exists = errno == EACCES;
			if (!f->looked && errno != EACCES && errno != EIO && errno != EFBIG &&
			    errno != ELOOP)
				new.looked = false, new.error = errno;
			mistake(&r, 0, "%s", strerror(errno));
		}
	}
	if (r.mistakes > 0 && f->looked) {
		new.values = f->values;
		memcpy(new.line, f->line, sizeof new.line);
	}
	new.dev = st.st_dev;
	new.ino = st.st_ino;
	new.size = st.st_size;
	new.mtime = st.st_mtim;
	new.ctime = st.st_ctim;
	*f = new;
	return r.mistakes;
}

/*
 * Editing
 */

/* Append, or let the text be too long. */
static void
add(struct text *t, const char *s, size_t len)
{
	size_t room = sizeof t->s - t->len;

	if (len > room)
		len = room;
	memcpy(t->s + t->len, s, len);
	t->len += len;
}

/* Give `key` that value, an empty one takes it out: from text `from` to text `to`. Returns whether
 * a line had it. */
static bool
edit(struct text *to, const struct text *from, struct span key, struct span new)
{
	struct span rest = {from->s, from->len}, line, name, value;
	bool found = false;

	to->len = 0;
	while (next_line(&rest, &line)) {
		const char *end = line.s + line.len;
		if (split_line(line, &name, &value) == 1 && name.len == key.len &&
		    memcmp(name.s, key.s, key.len) == 0) {
			bool keep = !found && new.len > 0;
			found = true;
			if (!keep)
				continue;
			add(to, line.s, (size_t)(value.s - line.s));
			add(to, new.s, new.len);
			add(to, value.s + value.len, (size_t)(end - value.s) - value.len);
		} else {
			add(to, line.s, line.len);
		}
		add(to, "\n", 1);
	}
	if (!found && new.len > 0) {
		add(to, key.s, key.len);
		add(to, " = ", 3);
		add(to, new.s, new.len);
		add(to, "\n", 1);
	}
	return found;
}

static struct span
key_of(const char *setting)
{
	return (struct span){setting, strcspn(setting, "=")};
}

unsigned
config_check(enum config_scope scope, char *const *settings, size_t n, config_report *report,
             void *arg)
{
	struct reporter r = {.report = report, .arg = arg};
	unsigned k;
	struct value v;

	for (size_t i = 0; i < n; i++) {
		struct span key = key_of(settings[i]);
		const char *equals = strchr(settings[i], '=');
		if (equals == NULL)
			mistake(&r, 0, "%s: must be key=value", settings[i]);
		else if (strpbrk(equals + 1, "#\n") != NULL)
			mistake(&r, 0,
			        "%.*s: a value has no # and no line's end; %%23 is # in a name",
			        (int)key.len, key.s);
		else if (equals[1] != '\0')
			check_setting(key, (struct span){equals + 1, strlen(equals + 1)}, scope, &r,
			              0, &k, &v);
	}
	return r.mistakes;
}

/* With the directory locked: put a new file in the place of the old one. */
static int
replace(int dirfd, const struct text *t)
{
	int fd, e;

	if (unlinkat(dirfd, CONFIG_TEMPORARY, 0) == -1 && errno != ENOENT)
		return -1;
	fd = openat(dirfd, CONFIG_TEMPORARY, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd == -1)
		return -1;
	for (size_t done = 0; done < t->len;) {
		ssize_t n = write(fd, t->s + done, t->len - done);
		if (n == -1 && errno != EINTR)
			goto fail;
		done += n > 0 ? (size_t)n : 0;
	}
	if (fsync(fd) == -1 || renameat(dirfd, CONFIG_TEMPORARY, dirfd, ".config") == -1)
		goto fail;
	close(fd);
	return fsync(dirfd);
fail:
	e = errno;
	close(fd);
	unlinkat(dirfd, CONFIG_TEMPORARY, 0);
	errno = e;
	return -1;
}

static int
edit_locked(int dirfd, enum config_scope scope, char *const *settings, size_t n, struct reporter *r)
{
	static struct text texts[2]; /* by turns */
	struct config_file result = {0};
	struct stat st;
	size_t at = 0;

	texts[0].len = 0;
	if (fstatat(dirfd, ".config", &st, AT_SYMLINK_NOFOLLOW) == 0) {
		if (!is_readable(&st, r))
			return 1;
		if (read_text(dirfd, &texts[0]) == -1)
			return -1;
	} else if (errno != ENOENT) {
		return -1;
	}
	for (; at < n; at++) {
		struct span key = key_of(settings[at]);
		const char *value = settings[at] + key.len + 1;
		if (!edit(&texts[(at + 1) % 2], &texts[at % 2], key,
		          (struct span){value, strlen(value)}) &&
		    find_key(key) == CONFIG_KEYS)
			mistake(r, 0, "%.*s: no such key", (int)key.len, key.s);
	}
	if (r->mistakes > 0)
		return 1;
	const struct text *t = &texts[n % 2];
	if (t->len > FILE_MAX)
		mistake(r, 0, "larger than 64 KiB");
	else
		parse(&result, (struct span){t->s, t->len}, scope, r);
	return r->mistakes > 0 ? 1 : replace(dirfd, t);
}

int
config_edit(int dirfd, enum config_scope scope, char *const *settings, size_t n,
            config_report *report, void *arg)
{
	struct reporter r = {.report = report, .arg = arg};
	/* A descriptor of its own, for a lock of its own. */
	int lock = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), result, e;

	if (lock == -1)
		return -1;
	while ((result = flock(lock, LOCK_EX)) == -1 && errno == EINTR)
		;
	if (result == 0)
		result = edit_locked(lock, scope, settings, n, &r);
	e = errno;
	close(lock);
	errno = e;
	return result;
}
