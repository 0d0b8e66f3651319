/*
 * transfer.c: mqctl export and mqctl import: queues as a stream, which is a tar archive.
 *
 *     mqd-export                         what this is: "mqd export 1", its id, how many messages
 *     .config                            settings of all queues, if no queue was named
 *     q4/                                a queue
 *     q4/.config                         its settings
 *     q4/0000000000000042                a waiting message, its file as it stands in the spool
 *     q4/.delay/0000001790000000/...43   a delayed one; due at that second since 1970
 *
 * export: first look at all queues, each under its lock: which messages are there now; then copy them
 * without a lock. One that has been delivered meanwhile is left out; one that is just being
 * delivered, or has become due, is looked for where it is now. The id is a digest of what was seen
 * then: as long as nothing changes in the queues each export is the same, byte by byte.
 *
 * import: message n of a stream is written to the folder .import/<id> as file n, and the rename that
 * makes it a message takes it out of there (stage.c). Before that an empty file n + 1 is made: so the
 * lowest number in the folder is that of the first message which is not in its queue yet, at every
 * instruction; and whoever is run again with the same stream goes on from there. The last such
 * file stays, and tells that the stream was imported.
 *
 * A stream is foreign bytes: nothing in it is ever used as a path. A name has to be one that export
 * writes, and a message has to be whole before it is pushed.
 */
#include "transfer.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "crc32c.h"
#include "md5.h"
#include "mqctl.h"
#include "number.h"
#include "progress.h"
#include "queue_name.h"
#include "spool_queue.h"
#include "stage.h"
#include "tar.h"

#define EXPORT_VERSION 1
#define EXPORT_NAME "mqd-export"
#define EXPORT_TEXT_MAX 1024
#define CONFIG_MAX 65536
#define ID_LEN ((size_t)2 * MD5_LEN)
#define DELAY_FORMAT ".delay/%016" PRId64 "/%016" PRIu64

/*
 * Export: what is there
 */

struct item {
	uint64_t number;
	uint64_t second; /* the name of the directory in .delay; 0: it waits */
	int64_t mtime;   /* s; of a delayed one it is when it is due */
	uint64_t mark;   /* what else changes if the file does */
};

struct list {
	const char *queue;
	struct item *items;
	size_t n, room;
	uint64_t next;   /* the number that a later one gets */
	uint64_t second; /* while listing */
	int64_t newest;
};

static int
add_item(void *arg, int dirfd, uint64_t number, const char *name)
{
	struct list *l = arg;
	struct stat st;

	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == -1)
		return errno == ENOENT ? 0 : -1;
	if (!S_ISREG(st.st_mode))
		return 0;
	if (l->n == l->room) {
		l->room = l->room == 0 ? 256 : 2 * l->room;
		struct item *more = realloc(l->items, l->room * sizeof *more);
		if (more == NULL)
			return -1;
		l->items = more;
	}
	if (l->second == 0 && st.st_mtime > l->newest)
		l->newest = st.st_mtime;
	l->items[l->n++] =
	    (struct item){.number = number,
	                  .second = l->second,
	                  .mtime = st.st_mtime,
	                  .mark = (uint64_t)st.st_ino << 32 ^ (uint64_t)st.st_size << 30 ^
	                          (uint64_t)st.st_mtim.tv_nsec};
	return 0;
}

static int
add_second(void *arg, int dirfd, uint64_t second, const char *name)
{
	struct list *l = arg;
	int fd = openat(dirfd, name, dir_flags), r;

	if (fd == -1)
		return errno == ENOENT || errno == ENOTDIR || errno == ELOOP ? 0 : -1;
	l->second = second;
	r = dir_each_number(fd, add_item, l);
	l->second = 0;
	close_fd(&fd);
	return r;
}

static int
by_place(const void *a, const void *b)
{
	const struct item *x = a, *y = b;

	if (x->second != y->second)
		return x->second < y->second ? -1 : 1;
	return (x->number > y->number) - (x->number < y->number);
}

/* With the lock held: all that waits, or is delayed. */
static int
list_locked(struct queue *q, struct list *l)
{
	int r, delay;

	queue_sweep(q);
	delay_promote(q);
	queue_store(q);
	l->next = state_next(&q->state);
	r = dir_each_number(q->dirfd, add_item, l);
	delay = r == 0 ? openat(q->dirfd, ".delay", dir_flags) : -1;
	if (delay != -1)
		r = dir_each_number(delay, add_second, l);
	else if (r == 0 && errno != ENOENT && errno != ENOTDIR && errno != ELOOP)
		r = -1;
	close_fd(&delay);
	return r;
}

/* Returns 1, 0 if there is no such queue, or -1. */
static int
list_queue(struct spool *sp, const char *queue, struct list *l)
{
	struct queue *q;
	int r = queue_lock(sp, queue, false, &q);

	*l = (struct list){.queue = queue};
	if (r != 1)
		return r;
	r = list_locked(q, l) == 0 ? 1 : -1;
	queue_unlock(q);
	if (l->n > 1)
		qsort(l->items, l->n, sizeof *l->items, by_place);
	return r;
}

static void
name_export(const struct list *lists, size_t n, char *id)
{
	unsigned char digest[MD5_LEN];
	struct md5 m;

	md5_begin(&m);
	for (size_t i = 0; i < n; i++) {
		md5_add(&m, lists[i].queue, strlen(lists[i].queue) + 1);
		md5_add(&m, &lists[i].n, sizeof lists[i].n);
		if (lists[i].n > 0)
			md5_add(&m, lists[i].items, lists[i].n * sizeof *lists[i].items);
	}
	md5_end(&m, digest);
	for (size_t i = 0; i < MD5_LEN; i++)
		snprintf(id + 2 * i, 3, "%02x", digest[i]);
}

/*
 * Export: writing
 */

struct export
{
	struct spool *spool;
	int code;
};

static void
put(const void *data, size_t len)
{
	if (len > 0 && fwrite(data, 1, len, stdout) != len)
		die_system("standard output");
}

static void
put_member(char type, uint64_t size, int64_t mtime, const char *name)
{
	struct tar_member m = {.type = type, .size = size, .mtime = mtime};
	char headers[TAR_HEADERS_MAX];

	snprintf(m.name, sizeof m.name, "%s", name);
	size_t len = tar_write(headers, &m);
	put(headers, len);
}

static void
put_zeros(size_t len)
{
	static const char zeros[2 * TAR_BLOCK];

	put(zeros, len);
}

static void
put_text(const char *name, const char *text, size_t len, int64_t mtime)
{
	put_member('0', len, mtime, name);
	put(text, len);
	put_zeros(tar_padding(len));
}

/* The .config in a directory, if there is one: `queue` "" for the spool's. */
static void
put_config(struct export *x, int dirfd, const char *queue)
{
	static char text[CONFIG_MAX];
	char name[TAR_NAME_MAX];
	struct stat st;
	int fd = openat(dirfd, ".config", read_flags);
	ssize_t n = fd == -1 ? -1 : read(fd, text, sizeof text);

	if (n != -1 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size <= CONFIG_MAX) {
		snprintf(name, sizeof name, "%s%s.config", queue, *queue == '\0' ? "" : "/");
		put_text(name, text, (size_t)n, st.st_mtime);
	} else if (fd != -1 || errno != ENOENT) {
		progress_hide();
		fprintf(stderr, "mqctl: %s/.config: cannot be read, and is left out\n",
		        *queue == '\0' ? "." : queue);
		x->code = EXIT_NOTHING;
	}
	close_fd(&fd);
}

/* Where the file of a message is now: among those that wait, or on its way to a client, from where
 * it may be back before we look. -1 with ENOENT: it has been delivered. */
static int
open_waiting(struct queue *q, uint64_t number)
{
	char name[MESSAGE_NAME_LEN + 1];
	uint64_t other;
	int fd;

	message_name(name, number);
	for (int tries = 0; tries < 3; tries++) {
		fd = openat(q->dirfd, name, read_flags);
		if (fd != -1 || errno != ENOENT)
			return fd;
		if (queue_claim_dir(q) == -1)
			return -1;
		fd = openat(q->claimfd, name, read_flags);
		if (fd == -1 && errno != ENOENT && errno != EAGAIN) /* under its owner's lease */
			return -1;
		enum claim_file kind = CLAIM_FILE_SPENT;
		if (fd != -1)
			kind = claim_file(fd, number, &other);
		if (kind == CLAIM_FILE_MESSAGE)
			return fd;
		close_fd(&fd);
		if (kind == CLAIM_FILE_UNREADABLE)
			return -1;
	}
	errno = ENOENT;
	return -1;
}

static int
open_delayed(struct queue *q, const struct item *item)
{
	char path[64];

	snprintf(path, sizeof path, ".delay/%016" PRIu64 "/%016" PRIu64, item->second,
	         item->number);
	return openat(q->dirfd, path, read_flags);
}

/* The whole file, as it has been checked. */
static void
put_file(const struct claim *c, const char *name, int64_t mtime)
{
	uint64_t size = MESSAGE_HEADER_LEN + c->message.length;
	char buf[65536];
	ssize_t n;

	put_member('0', size, mtime, name);
	for (uint64_t at = 0; at < size; at += (uint64_t)n) {
		size_t len = size - at < sizeof buf ? (size_t)(size - at) : sizeof buf;
		n = pread(c->fd, buf, len, (off_t)at);
		if (n == 0)
			errno = EIO;
		if (n <= 0)
			die_system(name); /* and the stream ends too early for those who read it */
		put(buf, (size_t)n);
	}
	put_zeros(tar_padding(size));
}

/* Returns false if it is not where it was. */
static bool
put_item(struct export *x, struct queue *q, const char *queue, const struct item *item)
{
	struct claim c = {.fd = item->second != 0 ? open_delayed(q, item)
	                                          : open_waiting(q, item->number)};
	char name[TAR_NAME_MAX];
	int n = snprintf(name, sizeof name, "%s/", queue);

	if (item->second != 0)
		snprintf(name + n, sizeof name - (size_t)n, DELAY_FORMAT, item->mtime,
		         item->number);
	else
		snprintf(name + n, sizeof name - (size_t)n, "%016" PRIu64, item->number);
	if (c.fd == -1 && errno == ENOENT)
		return false;
	enum claim_result r = CLAIM_ERROR;
	if (c.fd != -1)
		r = claim_check(x->spool, &c, item->second != 0 ? CLAIM_ANY_NUMBER : item->number);
	if (r == CLAIM_GOT) {
		put_file(&c, name, item->mtime);
	} else {
		const char *why = r == CLAIM_DAMAGED ? "damaged" : strerror(errno);
		progress_hide();
		fprintf(stderr, "mqctl: %s: %s: left out\n", name, why);
		x->code = EXIT_NOTHING;
	}
	close_fd(&c.fd);
	progress_step(1);
	return true;
}

/* What was delayed may have become due: it has a number behind all that we know then, as has what
 * came in meanwhile. */
static void
put_later(struct export *x, struct queue *q, const struct list *known)
{
	struct list l;

	if (list_queue(x->spool, known->queue, &l) == -1)
		die_system(known->queue);
	for (size_t i = 0; i < l.n; i++)
		if (l.items[i].second == 0 && l.items[i].number >= known->next)
			put_item(x, q, known->queue, &l.items[i]);
	free(l.items);
}

static void
put_queue(struct export *x, const struct list *l)
{
	char name[QUEUE_NAME_MAX + 2];
	bool all = true;
	struct queue *q;
	int r = queue_find(x->spool, l->queue, false, &q);

	if (r == -1)
		die_system(l->queue);
	if (r == 0)
		return; /* dropped meanwhile */
	q->refs++;
	snprintf(name, sizeof name, "%s/", l->queue);
	put_member('5', 0, l->newest, name);
	put_config(x, q->dirfd, l->queue);
	for (size_t i = 0; i < l->n; i++)
		if (!put_item(x, q, l->queue, &l->items[i]) && l->items[i].second != 0)
			all = false;
	if (!all)
		put_later(x, q, l);
	queue_unref(q);
}

int
cmd_export(struct spool *sp, int argc, char *argv[])
{
	char **queues = queues_arg(sp, argc, argv), id[ID_LEN + 1], text[EXPORT_TEXT_MAX];
	struct export x = {.spool = sp};
	uint64_t messages = 0;
	int64_t newest = 0;
	size_t n = 0;

	if (isatty(STDOUT_FILENO))
		die(EXIT_USAGE, "export: it is a tar archive, which no terminal can show");
	while (queues[n] != NULL)
		n++;
	struct list *lists = calloc(n + 1, sizeof *lists);
	if (lists == NULL)
		die_system("listing queues");
	for (size_t i = 0; i < n; i++) {
		int r = list_queue(sp, queues[i], &lists[i]);
		if (r == -1)
			die_system(queues[i]);
		if (r == 0 && argc > 0)
			die(EXIT_NOTHING, "%s: no such queue", argv[i]);
		messages += lists[i].n;
		if (lists[i].newest > newest)
			newest = lists[i].newest;
	}
	name_export(lists, n, id);
	progress_begin("export", messages);
	int len = snprintf(text, sizeof text, "mqd export %d\nid %s\nmessages %" PRIu64 "\n",
	                   EXPORT_VERSION, id, messages);
	put_text(EXPORT_NAME, text, (size_t)len, newest);
	if (argc == 0)
		put_config(&x, spool_dirfd(sp), "");
	for (size_t i = 0; i < n; i++) {
		put_queue(&x, &lists[i]);
		free(lists[i].items);
	}
	put_zeros((size_t)2 * TAR_BLOCK);
	progress_end();
	free(lists);
	spool_list_free(queues);
	return x.code;
}

/*
 * Import of a stream
 */

struct import {
	struct spool *spool;
	int dirfd;      /* .import/<id> */
	uint64_t first; /* the first message that was not in its queue when we began */
	uint64_t index; /* of the last message that was read */
	uint64_t pushed;
	size_t from, to; /* of what was read from standard input */
	char buf[65536];
};

__attribute__((format(printf, 1, 2))) _Noreturn static void
refuse(const char *format, ...)
{
	char text[TAR_NAME_MAX + 256];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	make_printable(text);
	die(EXIT_SYSTEM, "import: %s", text);
}

static int
read_stream(void *arg, void *data, size_t len)
{
	struct import *im = arg;
	char *p = data;

	while (len > 0) {
		if (im->from == im->to) {
			ssize_t n = read(STDIN_FILENO, im->buf, sizeof im->buf);
			if (n == -1 && errno == EINTR && !transfer_interrupted())
				continue;
			if (n <= 0) {
				errno = n == 0 ? ENODATA : errno;
				return -1;
			}
			im->from = 0;
			im->to = (size_t)n;
		}
		size_t n = im->to - im->from < len ? im->to - im->from : len;
		memcpy(p, im->buf + im->from, n);
		im->from += n;
		p += n;
		len -= n;
	}
	return 0;
}

_Noreturn static void
die_reading(void)
{
	if (transfer_interrupted())
		die(EXIT_SYSTEM, "import: interrupted; run it again with the same stream to go on");
	if (errno == ENODATA)
		die(EXIT_SYSTEM,
		    "import: the stream ends too early; run it again with all of it to go on");
	die_system("standard input");
}

static void
must_read(struct import *im, void *data, size_t len)
{
	if (transfer_interrupted())
		errno = EINTR;
	if (transfer_interrupted() || read_stream(im, data, len) == -1)
		die_reading();
}

static void
skip(struct import *im, uint64_t len)
{
	char waste[16384];

	for (size_t n; len > 0; len -= n) {
		n = len < sizeof waste ? (size_t)len : sizeof waste;
		must_read(im, waste, n);
	}
}

/* A member of a known size at the most, with a NUL behind it. */
static void
read_text(struct import *im, const struct tar_member *m, char *text, size_t max)
{
	char padding[TAR_BLOCK];

	if (m->type != '0' || m->size > max)
		refuse("%s: is not what mqctl export writes", m->name);
	must_read(im, text, (size_t)m->size);
	text[m->size] = '\0';
	must_read(im, padding, tar_padding(m->size));
}

static bool
next_member(struct import *im, struct tar_member *m)
{
	const char *why;
	int r = tar_read(read_stream, im, m, &why);

	if (r == -1)
		die_reading();
	if (r == 1)
		refuse("%s", why);
	return m->type != '\0';
}

static int
keep_lowest(void *arg, int dirfd, uint64_t number, const char *name)
{
	uint64_t *lowest = arg;

	(void)dirfd, (void)name;
	if (*lowest == 0 || number < *lowest)
		*lowest = number;
	return 0;
}

/* What a line "key value" of a text says. */
static const char *
value_of(const char *text, const char *key, size_t *len)
{
	size_t n = strlen(key);

	for (; *text != '\0'; text += *text == '\n') {
		if (strncmp(text, key, n) == 0 && text[n] == ' ') {
			*len = strcspn(text + n + 1, "\n");
			return text + n + 1;
		}
		text += strcspn(text, "\n");
	}
	return NULL;
}

/* The first member says what this is. Returns how many messages it has. */
static uint64_t
begin_import(struct import *im)
{
	char text[EXPORT_TEXT_MAX + 1], id[ID_LEN + 1];
	struct tar_member m;
	uint64_t version, messages;
	const char *value;
	size_t len;

	if (!next_member(im, &m) || strcmp(m.name, EXPORT_NAME) != 0)
		refuse("this is not what mqctl export writes");
	read_text(im, &m, text, EXPORT_TEXT_MAX);
	value = value_of(text, "mqd export", &len);
	if (value == NULL || value != text + strlen("mqd export ") ||
	    number_parse(value, len, UINT32_MAX, &version) == -1)
		refuse("this is not what mqctl export writes");
	if (version != EXPORT_VERSION)
		refuse("the stream has format %" PRIu64 "; this mqctl knows format %d", version,
		       EXPORT_VERSION);
	value = value_of(text, "messages", &len);
	if (value == NULL || number_parse(value, len, MESSAGE_NUMBER_MAX, &messages) == -1)
		refuse("%s: is not what mqctl export writes", m.name);
	value = value_of(text, "id", &len);
	snprintf(id, sizeof id, "%.*s", (int)ID_LEN, value == NULL ? "" : value);
	if (value == NULL || len != ID_LEN || strspn(id, "0123456789abcdef") != ID_LEN)
		refuse("%s: is not what mqctl export writes", m.name);
	im->dirfd = stage_open(im->spool, id, NULL);
	if (im->dirfd == -1 && errno == EWOULDBLOCK)
		refuse("another mqctl is importing this stream");
	if (im->dirfd == -1 || dir_each_number(im->dirfd, keep_lowest, &im->first) == -1)
		die_system("the folder .import");
	stage_clear(im->dirfd);
	return messages;
}

/* From now on it is known that no message before this one is missing. */
static void
make_mark(struct import *im, uint64_t index)
{
	char name[MESSAGE_NAME_LEN + 1];

	message_name(name, index);
	int fd = openat(im->dirfd, name, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd == -1)
		die_system("the folder .import");
	close(fd);
}

/* Make the next message, which is staged, one of its queue. */
static void
push(struct import *im, const struct stage *s, const char *queue, int64_t due)
{
	char name[MESSAGE_NAME_LEN + 1];
	int64_t delay = due == 0 ? 0 : due - (int64_t)time(NULL);

	if (delay < 0)
		delay = 0;
	if (delay > CONFIG_DELAY_MAX)
		delay = CONFIG_DELAY_MAX;
	make_mark(im, im->index + 2);
	message_name(name, ++im->index);
	int r = stage_push(im->spool, queue, im->dirfd, name, &s->message, s->crc, delay);
	if (r != 0)
		refuse("%s: %s; run it again with the same stream to go on", queue,
		       r == 1 ? "full" : spool_strerror(errno));
	im->pushed++;
}

/* Have the message of a member in the stage, and then in its queue. */
static void
import_message(struct import *im, const struct tar_member *m, const char *queue, uint64_t number,
               int64_t due)
{
	char line[MESSAGE_HEADER_LEN], buf[65536], name[MESSAGE_NAME_LEN + 1], padding[TAR_BLOCK];
	struct message said;
	struct stage s;
	uint32_t crc;
	size_t n;

	if (m->size < sizeof line)
		refuse("%s: is too short for a message", m->name);
	must_read(im, line, sizeof line);
	if (memcmp(line, "mq", 2) == 0 && memcmp(line + 2, "1 ", 2) != 0)
		refuse("%s: has format %.3s; this mqctl knows mq1", m->name, line);
	if (message_read_header(line, &said, &crc) == -1 || said.length != m->size - sizeof line ||
	    (number != 0 && said.number != number))
		refuse("%s: is not a message", m->name);
	message_name(name, im->index + 1);
	int pushed =
	    im->index + 1 != im->first ? 0 : stage_is_pushed(im->spool, queue, im->dirfd, name);
	if (pushed == -1)
		die_system("what an earlier run has left");
	if (pushed == 1) {
		im->index++;
		skip(im, said.length + tar_padding(m->size));
		return;
	}
	if (stage_begin(&s, im->dirfd) == -1)
		die_system("staging a message");
	for (uint64_t left = said.length; left > 0; left -= n) {
		n = left < sizeof buf ? (size_t)left : sizeof buf;
		must_read(im, buf, n);
		if (stage_write(&s, buf, n) == -1) {
			stage_abort(&s);
			die_system("staging a message");
		}
	}
	must_read(im, padding, tar_padding(m->size));
	if (message_crc(line, s.crc) != crc) {
		stage_abort(&s);
		refuse("%s: is damaged", m->name);
	}
	s.message.flags = said.flags;
	s.message.expiry = said.expiry;
	s.message.tries = said.tries;
	if (stage_end(&s, name) == -1)
		die_system("staging a message");
	push(im, &s, queue, due);
}

/* Settings are brought into a place that has none, and as a whole. */
static void
import_config(struct import *im, const struct tar_member *m, const char *queue)
{
	static char text[CONFIG_MAX + 1];
	int root = spool_dirfd(im->spool), e;

	read_text(im, m, text, CONFIG_MAX);
	int dirfd = queue == NULL ? openat(root, ".", dir_flags) : openat(root, queue, dir_flags);
	if (dirfd == -1)
		die_system(m->name);
	int fd = openat(dirfd, CONFIG_TEMPORARY,
	                O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	int r = fd == -1 || write(fd, text, (size_t)m->size) != (ssize_t)m->size || fsync(fd) == -1
	            ? -1
	            : os_rename_noreplace(dirfd, CONFIG_TEMPORARY, dirfd, ".config");
	e = errno;
	if (r == -1 && fd != -1)
		unlinkat(dirfd, CONFIG_TEMPORARY, 0);
	close_fd(&fd);
	close_fd(&dirfd);
	errno = e;
	if (r == -1 && errno != EEXIST)
		die_system(m->name);
	if (r == -1 && im->first == 0) {
		progress_hide();
		fprintf(stderr, "mqctl: %s: there is one already, which stays as it is\n", m->name);
	}
}

/* The queue whose directory a name begins with; *rest is what stands behind the slash. */
static bool
queue_of(const char *name, char *queue, const char **rest)
{
	char decoded[QUEUE_NAME_MAX + 1];
	const char *slash = strchr(name, '/');

	if (slash == NULL || slash == name || slash - name > QUEUE_NAME_MAX)
		return false;
	memcpy(queue, name, (size_t)(slash - name));
	queue[slash - name] = '\0';
	*rest = slash + 1;
	return queue_name_decode(queue, decoded) != -1;
}

/* What stands behind the queue in the name of a message: its number; of a delayed one when it is due. */
static bool
message_of(const char *rest, uint64_t *number, int64_t *due)
{
	uint64_t second, ignored;

	*due = 0;
	if (message_name_parse(rest, number) == 0)
		return true;
	if (strncmp(rest, ".delay/", 7) != 0 || strlen(rest) != 7 + 2 * MESSAGE_NAME_LEN + 1 ||
	    rest[7 + MESSAGE_NAME_LEN] != '/' ||
	    number_parse(rest + 7, MESSAGE_NAME_LEN, INT64_MAX, &second) == -1 ||
	    message_name_parse(rest + 8 + MESSAGE_NAME_LEN, &ignored) == -1)
		return false;
	*number = 0;
	*due = (int64_t)second;
	return true;
}

static void
import_member(struct import *im, const struct tar_member *m)
{
	char queue[QUEUE_NAME_MAX + 1];
	const char *rest;
	uint64_t number;
	int64_t due;

	if (strcmp(m->name, ".config") == 0) {
		import_config(im, m, NULL);
		return;
	}
	bool ours = queue_of(m->name, queue, &rest);
	if (ours && m->type == '5' && m->size == 0 &&
	    (*rest == '\0' || strncmp(rest, ".delay/", 7) == 0)) {
		if (spool_make(im->spool, queue) == -1)
			die_system(queue);
	} else if (ours && m->type == '0' && strcmp(rest, ".config") == 0) {
		if (spool_make(im->spool, queue) == -1)
			die_system(queue);
		import_config(im, m, queue);
	} else if (ours && m->type == '0' && message_of(rest, &number, &due)) {
		if (im->index + 1 < im->first) {
			im->index++;
			skip(im, m->size + tar_padding(m->size));
		} else {
			import_message(im, m, queue, number, due);
		}
		progress_step(1);
	} else {
		refuse("%s: is not what mqctl export writes", m->name);
	}
}

int
import_stream(struct spool *sp)
{
	static struct import im;
	struct tar_member m;

	im = (struct import){.spool = sp, .dirfd = -1};
	if (isatty(STDIN_FILENO))
		die(EXIT_USAGE,
		    "import: standard input is a terminal; mqctl export writes what it reads");
	transfer_mind_signals();
	uint64_t messages = begin_import(&im);
	progress_begin("import", messages);
	while (next_member(&im, &m))
		import_member(&im, &m);
	make_mark(&im, im.index + 1); /* of a stream without messages */
	/* Whoever writes it may not be done with what follows the end. */
	while (read(STDIN_FILENO, im.buf, sizeof im.buf) > 0)
		;
	progress_end();
	close_fd(&im.dirfd);
	if (im.pushed == 0 && im.index > 0) {
		fprintf(stderr, "mqctl: this stream was imported before\n");
		return EXIT_NOTHING;
	}
	printf("%" PRIu64 "\n", im.pushed);
	return 0;
}

/* mqctl import [--strip-padding] [scheme://address [queue...]], or of standard input. */
int
cmd_import(struct spool *sp, int argc, char *argv[])
{
	static const struct {
		const char *scheme;
		bool reliable, plain;
	} schemes[] = {{"memcacheq://", false, true},
	               {"memcache://", false, false},
	               {"mqd://", true, false},
	               {"kestrel://", true, false}};
	struct drain_options o = {0};

	if (argc > 0 && strcmp(argv[0], "--strip-padding") == 0) {
		o.strip_padding = true;
		argc--;
		argv++;
	}
	for (size_t i = 0; argc > 0 && i < sizeof schemes / sizeof schemes[0]; i++) {
		size_t len = strlen(schemes[i].scheme);
		if (strncmp(argv[0], schemes[i].scheme, len) != 0)
			continue;
		o.reliable = schemes[i].reliable;
		o.plain = schemes[i].plain;
		return drain(sp, argv[0] + len, &o, argc - 1, argv + 1);
	}
	if (o.strip_padding || argc > 1 || (argc == 1 && strcmp(argv[0], "-") != 0))
		die(EXIT_USAGE,
		    "import: from memcacheq://host:port, memcache://..., mqd://..., or -");
	return import_stream(sp);
}
