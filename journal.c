/*
 * journal.c: one log per spool, so that what is pushed and taken shares one flush.
 *
 * Making a new file durable costs two flushes and a commit of the file system, for each message.
 * Instead the message is appended to `.journal`, a file whose blocks are allocated beforehand, and
 * one fdatasync of that makes durable what all processes have appended to all queues until then.
 * The messages' own files and directories reach the disk whenever the kernel writes them; what it
 * had not written when the power failed is made anew from the log.
 *
 *     .journal   a header of 4 KiB, and a ring of records: push, stored, take, drop
 *     .sync      where the ring ends and up to where it is flushed; itself never flushed
 *
 * append      under a lock: write the record behind the last, then its end to .sync. So records
 *             have no gap between them, and one that is flushed has all earlier ones flushed.
 * flush       whoever gets the lock notes where the log ends, calls fdatasync and writes the end
 *             down; all who wait for the lock meanwhile then find that they are covered, or not.
 * checkpoint  the older half of the records: what was pushed and not taken is flushed where it
 *             lies, and the directories; then the header's `tail` goes behind them.
 * replay      after a reboot, before anything else: read records from `tail` on as long as they
 *             are whole. The last about a message counts: it is there, or it is not.
 *
 * Positions in the log count bytes and only grow; the place is the position modulo the ring's
 * size. A record holds its own position and the log's random id, so that neither an older one at
 * the same place nor what a client put into a body is taken for one.
 *
 * Queues are told apart by their directory's inode, since an operator may rename them. A queue's
 * first message does not go through the log, but makes its directory durable (spool.c,
 * sync_message); so an inode that is gone after a power loss was removed on purpose.
 *
 * The locks, an flock for appending and fcntl locks on bytes of .journal for the rest, end with the
 * process. A process that was killed in an append left `end` where it was, and the next overwrites
 * what it wrote; one that was killed in a flush has changed nothing yet, and in a checkpoint nothing
 * but the header's `tail`, once that was right.
 *
 * Nothing is believed of a disk that has failed once. After an error the kernel takes the pages for
 * clean, and tells nobody a second time; so the next flush succeeds, whatever became of them. A log
 * one of whose flushes or checkpoints failed, that could not be told of a take, or whose .sync is
 * gone while there is something in it, is used no more: everybody flushes by itself what it cannot
 * log, and a new log begins once all messages of the old one have been made dirty again, restored
 * from it where they are torn by now, and flushed.
 *
 * A file system may also go and come back without a reboot: a device that was pulled, a forced
 * unmount. Then what the kernel had not written is lost as in a power cut. The log's inode is marked
 * in memory alone, and open files keep it there: so one without a mark is perhaps of another mount,
 * and is replayed as after a reboot.
 *
 * Both files may be removed or spoiled at any time. The flush looks whether the file it flushed is
 * still the spool's log, else everybody falls back to flushing each message by itself, and a new
 * log is made. What was acknowledged before lies in the spool as ever, but what of it the kernel
 * had not written yet is not safe from a power loss until it has. .sync is made anew by reading
 * the log.
 */
#include "journal.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "crc32c.h"
#include "os.h"
#include "replay.h"
#include "spool_queue.h"

#define HEADER_SIZE 4096
#define RING_SIZE (UINT64_C(4) << 20)
#define FILE_SIZE (HEADER_SIZE + RING_SIZE)
#define PUSH_LIMIT (RING_SIZE / 4 * 3) /* the rest is for takes, which must not fail */
#define RETRY_MS 1000
#define LEADER_MS 10 /* a leader may have been killed; else its end wakes those who wait */

static const char magic[16] = "mqd journal 1\n";

/* At the start of .journal. In the machine's byte order, as all of it. */
struct header {
	char magic[16];
	char boot[OS_BOOT_ID_LEN]; /* of the kernel under which the log was written */
	uint32_t crc;              /* of what follows */
	uint64_t id;
	uint64_t tail; /* replay begins here */
	/* Of the spool and of this file. In a copy they differ, and so do those of the queues. */
	uint64_t root_ino, ino;
};

/*
 * In .sync, which belongs to one log for its life. `tail` and `end` are changed under the lock for
 * appending, `synced` under LOCK_FLUSH; they are read without.
 */
struct shared_ends {
	_Atomic uint64_t id; /* of the log; written last */
	_Atomic uint64_t tail, end;
	_Atomic uint64_t synced;  /* the log is flushed up to here */
	_Atomic uint32_t flushes; /* counts them, for those who wait */
	_Atomic uint32_t failed;  /* a flush failed: nobody knows what of it is on the disk */
	_Atomic uint64_t mount; /* where the log was last written to, as os_mount_id; 0: unknown */
};

_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "positions are shared between processes");

struct record {
	uint64_t id, at;
	uint64_t ino, number;
	uint32_t type;
	uint32_t length;   /* of the message's file, which follows after a push */
	uint32_t reserved; /* 0 */
	uint32_t crc;      /* of the above, with 0 here, and the message */
};

#define RECORD_MAX (sizeof(struct record) + MESSAGE_HEADER_LEN + JOURNAL_BODY_MAX + 15)

/* A position that others get has in its highest byte which of the logs this process used it is in:
 * in the next one it would stand for something else. */
#define TURN_SHIFT 56

static uint64_t
to_position(const struct journal *j, uint64_t at)
{
	return (uint64_t)j->turn << TURN_SHIFT | at;
}

/* Records are padded, so that one begins where the header of one fits. */
static uint64_t
record_size(uint32_t length)
{
	return (sizeof(struct record) + length + 15) / 16 * 16;
}

/*
 * Locks of .journal: that for appending is an flock, which costs less, the others are on a byte.
 * All end with the process.
 */
enum lock { LOCK_FLUSH, LOCK_CHECKPOINT };

static int
lock_byte(struct journal *j, enum lock byte, short type, int how)
{
	struct flock l = {.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
	int r;

	while ((r = fcntl(j->fd, how, &l)) == -1 && errno == EINTR)
		;
	return r;
}

static bool
try_lock(struct journal *j, enum lock byte)
{
	return lock_byte(j, byte, F_WRLCK, F_SETLK) == 0;
}

static void
unlock(struct journal *j, enum lock byte)
{
	int e = errno;

	lock_byte(j, byte, F_UNLCK, F_SETLK);
	errno = e;
}

static int
lock_append(struct journal *j)
{
	return flock_wait(j->fd);
}

static void
unlock_append(struct journal *j)
{
	int e = errno;

	flock(j->fd, LOCK_UN);
	errno = e;
}

static int
read_at(int fd, void *buf, size_t len, uint64_t at)
{
	ssize_t n = pread(fd, buf, len, (off_t)at);

	if (n >= 0 && n != (ssize_t)len)
		errno = EINVAL; /* it was cut short */
	return n == (ssize_t)len ? 0 : -1;
}

static int
write_at(int fd, const void *buf, size_t len, uint64_t at)
{
	ssize_t n = pwrite(fd, buf, len, (off_t)at);

	if (n >= 0 && n != (ssize_t)len)
		errno = ENOSPC;
	return n == (ssize_t)len ? 0 : -1;
}

static int
write_zeros(int fd, uint64_t len)
{
	static const char zeros[65536];
	uint64_t n = 0;

	for (uint64_t at = 0; at < len; at += n) {
		n = len - at < sizeof zeros ? len - at : sizeof zeros;
		if (write_at(fd, zeros, (size_t)n, at) == -1)
			return -1;
	}
	return 0;
}

/*
 * The header
 */

static uint32_t
header_crc(const struct header *h)
{
	return crc32c(0, &h->id, sizeof *h - offsetof(struct header, id));
}

/* Read the header of a file that is the spool's log, and no other's. 0 or -1. */
static int
read_header(struct spool *sp, int fd, struct header *h)
{
	struct stat st, root;

	if (fstat(fd, &st) == -1 || fstat(sp->rootfd, &root) == -1 ||
	    read_at(fd, h, sizeof *h, 0) == -1)
		return -1;
	if (st.st_nlink > 0 && (uint64_t)st.st_size == FILE_SIZE &&
	    memcmp(h->magic, magic, sizeof magic) == 0 && h->crc == header_crc(h) &&
	    h->root_ino == root.st_ino && h->ino == st.st_ino)
		return 0;
	errno = EINVAL;
	return -1;
}

static int
write_header(struct spool *sp, uint64_t id, uint64_t tail)
{
	struct header h = {.id = id, .tail = tail};
	struct stat st, root;

	if (fstat(sp->journal.fd, &st) == -1 || fstat(sp->rootfd, &root) == -1)
		return -1;
	memcpy(h.magic, magic, sizeof magic);
	memcpy(h.boot, sp->boot, sizeof h.boot);
	h.root_ino = root.st_ino;
	h.ino = st.st_ino;
	h.crc = header_crc(&h);
	if (write_at(sp->journal.fd, &h, sizeof h, 0) == -1)
		return -1;
	return fdatasync(sp->journal.fd);
}

static void
close_ends(struct journal *j)
{
	if (j->ends != NULL)
		os_unmap_shared(j->ends, sizeof *j->ends);
	j->ends = NULL;
	close_fd(&j->sync_fd);
}

/* Forget the log: it is not the spool's any more, or cannot be used. */
static void
forget(struct journal *j)
{
	int e = errno;

	close_fd(&j->fd); /* and its locks */
	close_ends(j);
	j->turn++;
	if (j->unsynced > 0)
		j->unsynced = JOURNAL_NEVER;
	errno = e;
}

/*
 * Reading the log
 */

/* The ring in memory; a record that goes over its end goes on behind it. */
static char *
load_ring(struct journal *j)
{
	os_free_returns();
	char *ring = malloc(RING_SIZE + RECORD_MAX);

	if (ring != NULL && read_at(j->fd, ring, RING_SIZE, HEADER_SIZE) == -1) {
		free(ring);
		return NULL;
	}
	if (ring != NULL)
		memcpy(ring + RING_SIZE, ring, RECORD_MAX);
	return ring;
}

/* The record at a position, or false if there is none that is whole. */
static bool
get_record(const char *ring, uint64_t id, uint64_t at, struct record *r)
{
	const char *p = ring + at % RING_SIZE;
	uint32_t crc;

	memcpy(r, p, sizeof *r);
	if (r->id != id || r->at != at || r->length > MESSAGE_HEADER_LEN + JOURNAL_BODY_MAX)
		return false;
	crc = r->crc;
	r->crc = 0;
	return crc == crc32c(crc32c(0, r, sizeof *r), p + sizeof *r, r->length);
}

static int
by_message(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;

	if (x->ino != y->ino)
		return x->ino < y->ino ? -1 : 1;
	if (x->number != y->number)
		return x->number < y->number ? -1 : 1;
	return x->at < y->at ? -1 : x->at > y->at;
}

/* Keep the last entry of each message, and none of what was dropped. Returns how many. */
static size_t
keep_last(struct entry *e, size_t n)
{
	size_t kept = 0;
	uint64_t ino = 0, from = 0; /* what lies in front of `from` was dropped */

	if (n == 0)
		return 0; /* e may be NULL, which qsort may not */
	qsort(e, n, sizeof *e, by_message);
	for (size_t i = 0; i < n; i++) {
		if (e[i].ino != ino) {
			ino = e[i].ino;
			from = 0;
		}
		if (e[i].type == RECORD_DROP) /* its number is 0: it comes first */
			from = e[i].at + 1;
		else if (e[i].at >= from &&
		         (i + 1 == n || e[i + 1].ino != ino || e[i + 1].number != e[i].number))
			e[kept++] = e[i];
	}
	return kept;
}

static void
free_log(struct log *l)
{
	free(l->ring);
	free(l->entries);
}

/* Read the log from `tail` to its end, but not beyond `limit`. 0 or -1. */
static int
read_log(struct journal *j, uint64_t id, uint64_t tail, uint64_t limit, struct log *l)
{
	struct record r;
	size_t room = 0;

	*l = (struct log){.dev = j->dev, .ring = load_ring(j), .end = tail};
	if (l->ring == NULL)
		return -1;
	while (l->end < limit && get_record(l->ring, id, l->end, &r)) {
		if (l->n == room) {
			room = room == 0 ? 1024 : 2 * room;
			struct entry *more = realloc(l->entries, room * sizeof *more);
			if (more == NULL) {
				free_log(l);
				return -1;
			}
			l->entries = more;
		}
		l->entries[l->n++] = (struct entry){
		    .ino = r.ino,
		    .number = r.number,
		    .at = r.at,
		    .type = r.type,
		    .length = r.length,
		    .file = l->ring + l->end % RING_SIZE + sizeof r,
		};
		if (r.at < tail + RING_SIZE / 4)
			l->mid = r.at + record_size(r.length);
		l->end += record_size(r.length);
	}
	l->n = keep_last(l->entries, l->n);
	return 0;
}

/*
 * .sync
 */

/* Open .sync: 1; 0 if it is missing, or not this log's; -1 if that cannot be told now. */
static int
open_ends(struct spool *sp, int flags)
{
	struct journal *j = &sp->journal;
	struct stat st;

	close_ends(j);
	j->sync_fd =
	    openat(sp->rootfd, ".sync", O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | flags, 0600);
	if (j->sync_fd == -1)
		return errno == ENOENT || is_foreign(errno) ? 0 : -1;
	if ((flags != 0 && write_zeros(j->sync_fd, HEADER_SIZE) == -1) ||
	    fstat(j->sync_fd, &st) == -1)
		return -1;
	if (st.st_size < HEADER_SIZE)
		return 0;
	j->ends = os_map_shared(j->sync_fd, sizeof *j->ends);
	return j->ends == NULL ? -1 : j->ends->id == j->id;
}

/* With the append lock held: make .sync from the log. A new file, never another log's: of that
 * somebody may still be about to write to it. Whether a flush of what is in the log has failed only
 * the old one knew. */
static int
make_ends(struct spool *sp)
{
	struct journal *j = &sp->journal;
	struct header h;
	struct log l;

	if (read_header(sp, j->fd, &h) == -1)
		return -1;
	if (h.id != j->id) {
		errno = EINVAL;
		return -1;
	}
	unlinkat(sp->rootfd, ".sync", 0);
	open_ends(sp, O_CREAT | O_EXCL);
	if (j->ends == NULL || read_log(j, h.id, h.tail, UINT64_MAX, &l) == -1)
		return -1;
	free_log(&l);
	j->ends->tail = j->ends->synced = h.tail;
	j->ends->end = l.end;
	j->ends->failed = l.end != h.tail;
	j->ends->mount = os_mount_id(sp->rootfd);
	j->ends->id = h.id;
	return 0;
}

static bool
is_linked(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && st.st_nlink > 0;
}

/* With the append lock held: see to it that `ends` is mapped and the log's. If two had different files
 * for it, they would write to the same place of the log. 0; or -1, with EINVAL if it is the log that is
 * of no use any more. */
static int
see_ends(struct spool *sp)
{
	struct journal *j = &sp->journal;
	int r = 1;

	if (j->ends == NULL || j->ends->id != j->id || !is_linked(j->sync_fd))
		r = open_ends(sp, 0);
	if (r == -1 || (r == 0 && make_ends(sp) == -1))
		return -1;
	j->has_failed = j->ends->failed;
	if (j->has_failed)
		errno = EINVAL;
	return j->has_failed ? -1 : 0;
}

/* Nobody shall trust this log any more. Who notices does his work in another way then: tell the
 * operator, once. */
static void
give_up(struct spool *sp)
{
	char detail[160];

	snprintf(detail, sizeof detail,
	         "it cannot be relied upon: %s; all it holds is flushed anew", strerror(errno));
	if (atomic_exchange(&sp->journal.ends->failed, 1) == 0 && sp->on_mistake != NULL)
		sp->on_mistake("failed", ".journal", detail);
}

/*
 * Finding and making the log
 */

/* On overlayfs with layers on several file systems a directory has another inode number at each
 * mount, perhaps that of another queue. There files are on another device than directories. */
static bool
keeps_inodes(const struct spool *sp, const struct stat *st)
{
	return st->st_dev == sp->dev;
}

static int
open_file(struct spool *sp, int flags)
{
	struct journal *j = &sp->journal;
	struct stat st, plain;

	j->fd = openat(sp->rootfd, ".journal", O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | flags,
	               0600);
	if (j->fd == -1)
		return -1;
	bool looked = os_stat(j->fd, "", &st) == 0 && fstat(j->fd, &plain) == 0;
	if (looked && S_ISREG(st.st_mode) && keeps_inodes(sp, &plain)) {
		j->dev = st.st_dev;
		return j->fd;
	}
	if (looked)
		errno = ENXIO;
	forget(j);
	return -1;
}

static bool
is_usable(struct spool *sp)
{
	return sp->boot[0] != '-'; /* else a reboot would go unnoticed */
}

/* What the open file is. */
enum kind {
	KIND_UNKNOWN, /* see errno */
	KIND_NO_LOG,  /* not one of this spool's */
	KIND_LOG,     /* of this boot and mount */
	KIND_OLD_LOG, /* of another: what is in it may be missing in the spool */
};

/* Use the open file, if it is KIND_LOG. Fills *h, but for the first two. */
static enum kind
adopt(struct spool *sp, struct header *h)
{
	if (read_header(sp, sp->journal.fd, h) == -1)
		return errno == EINVAL ? KIND_NO_LOG : KIND_UNKNOWN;
	if (memcmp(h->boot, sp->boot, sizeof h->boot) != 0 || !os_is_marked(sp->journal.fd))
		return KIND_OLD_LOG;
	sp->journal.id = h->id;
	return KIND_LOG;
}

/* With LOCK_CHECKPOINT held: the same of a log that may only look as if it were another mount's. Its
 * inode was not in use for a while, and the kernel has forgotten it; or it cannot be marked. */
static enum kind
recognise(struct spool *sp, struct header *h)
{
	struct journal *j = &sp->journal;
	enum kind kind = adopt(sp, h);
	uint64_t mount;

	if (kind != KIND_OLD_LOG || memcmp(h->boot, sp->boot, sizeof h->boot) != 0)
		return kind;
	j->id = h->id;
	if (!os_can_mark(j->fd))
		return KIND_LOG;
	mount = os_mount_id(sp->rootfd);
	int r = mount == 0 ? 0 : open_ends(sp, 0);
	if (r != 1)
		return r == 0 ? KIND_OLD_LOG : KIND_UNKNOWN;
	if (j->ends->mount != mount)
		return KIND_OLD_LOG;
	os_mark(j->fd);
	return KIND_LOG;
}

/*
 * Is there a log? 1; 0; or -1 if there is one that cannot be used now. If somebody makes one it must
 * be found before the next message is taken, which may be in it. Who promises nothing after a power
 * loss looks but once a second.
 */
static int
find(struct spool *sp)
{
	struct journal *j = &sp->journal;
	struct header h;
	uint64_t now;

	if (j->fd != -1)
		return 1;
	if (!is_usable(sp))
		return 0;
	if (sp->sync == SPOOL_SYNC_NONE) {
		if ((now = os_monotonic_ms()) < j->look_ms)
			return 0;
		j->look_ms = now + RETRY_MS;
	}
	if (open_file(sp, 0) == -1)
		return errno == ENOENT || is_foreign(errno) ? 0 : -1;
	enum kind kind = adopt(sp, &h);
	if (kind == KIND_LOG)
		return 1;
	forget(j);
	return kind == KIND_NO_LOG ? 0 : -1;
}

/* With LOCK_CHECKPOINT held: a new log in the open file. All blocks are written, because the first
 * write to one that is merely allocated would cost a commit of the file system. */
static int
begin_anew(struct spool *sp)
{
	struct journal *j = &sp->journal;
	uint64_t id;

	if (os_random(&id, sizeof id) == -1 || ftruncate(j->fd, (off_t)FILE_SIZE) == -1)
		return -1;
	if (write_zeros(j->fd, FILE_SIZE) == -1 || fsync(j->fd) == -1 || fsync(sp->rootfd) == -1 ||
	    write_header(sp, id, 0) == -1) {
		(void)!ftruncate(j->fd, 0); /* the disk is full: give it back */
		return -1;
	}
	os_mark(j->fd);
	j->id = id;
	return 0;
}

/*
 * Append
 */

static int
write_ring(struct journal *j, const char *data, size_t len, uint64_t at)
{
	uint64_t place = at % RING_SIZE;
	size_t first = RING_SIZE - place < len ? (size_t)(RING_SIZE - place) : len;

	if (write_at(j->fd, data, first, HEADER_SIZE + place) == -1)
		return -1;
	return first == len ? 0 : write_at(j->fd, data + first, len - first, HEADER_SIZE);
}

/* Append the record at `buf`. Returns the position behind it, or 0; *full says that there is no
 * room for it. */
static uint64_t
append_locked(struct spool *sp, char *buf, struct record *r, bool *full)
{
	struct journal *j = &sp->journal;
	uint64_t size = record_size(r->length), used;

	if (see_ends(sp) == -1) {
		if (errno == EINVAL)
			forget(j);
		return 0;
	}
	r->id = j->id;
	r->at = j->ends->end;
	used = r->at - j->ends->tail;
	if (j->ends->id != j->id)
		return 0; /* the page is another, of zeros: see os_map_shared */
	j->is_long = used > RING_SIZE / 2;
	*full = used + size > (r->type == RECORD_PUSH ? PUSH_LIMIT : RING_SIZE);
	if (*full)
		return 0;
	r->crc = 0;
	r->crc = crc32c(crc32c(0, r, sizeof *r), buf + sizeof *r, r->length);
	memcpy(buf, r, sizeof *r);
	if (write_ring(j, buf, size, r->at) == -1)
		return 0;
	j->ends->end = r->at + size;
	return to_position(j, r->at + size);
}

/* Inodes tell the queues of one file system apart, and a checkpoint flushes no other. */
static bool
is_logged(struct spool *sp, dev_t dev)
{
	return find(sp) == 1 && dev == sp->journal.dev;
}

static uint64_t
append_for(struct spool *sp, uint64_t ino, char *buf, enum record_type type, uint64_t number,
           uint32_t length)
{
	struct record r = {.ino = ino, .number = number, .type = type, .length = length};
	struct journal *j = &sp->journal;
	bool full = false;
	uint64_t at = 0;

	for (int tries = 0; tries < 2 && at == 0; tries++) {
		if (full)
			journal_checkpoint(sp);
		if (lock_append(j) == -1)
			continue;
		at = append_locked(sp, buf, &r, &full);
		if (j->fd == -1)
			return 0; /* the lock has gone with it */
		unlock_append(j);
		if (type == RECORD_PUSH)
			return at;
	}
	/* The log still has this message's push, and was not told that it was taken. */
	if (at == 0 && !full && j->ends != NULL)
		give_up(sp);
	return at;
}

uint64_t
journal_push(struct queue *q, uint64_t number, const char *line, const char *body, int fd,
             uint64_t length)
{
	static char buf[RECORD_MAX];
	uint32_t len = (uint32_t)(MESSAGE_HEADER_LEN + length);
	char *at = buf + sizeof(struct record);

	if (length > JOURNAL_BODY_MAX || !is_logged(q->spool, q->dev))
		return 0;
	memcpy(at, line, MESSAGE_HEADER_LEN);
	at += MESSAGE_HEADER_LEN;
	if (body != NULL)
		memcpy(at, body, (size_t)length);
	else if (read_at(fd, at, (size_t)length, MESSAGE_HEADER_LEN) == -1)
		return 0;
	return append_for(q->spool, q->dir_ino, buf, RECORD_PUSH, number, len);
}

static uint64_t
append_short(struct queue *q, enum record_type type, uint64_t number)
{
	char buf[sizeof(struct record)];

	return is_logged(q->spool, q->dev) ? append_for(q->spool, q->dir_ino, buf, type, number, 0)
	                                   : 0;
}

uint64_t
journal_stored(struct queue *q, uint64_t number)
{
	return append_short(q, RECORD_STORED, number);
}

uint64_t
journal_take(struct queue *q, uint64_t number)
{
	return append_short(q, RECORD_TAKE, number);
}

int
journal_drop(struct spool *sp, dev_t dev, uint64_t ino)
{
	char buf[sizeof(struct record)];
	uint64_t at;

	sp->journal.look_ms = 0;
	int r = find(sp);
	if (r != 1 || dev != sp->journal.dev)
		return r == -1 ? -1 : 0;
	at = append_for(sp, ino, buf, RECORD_DROP, 0, 0);
	if (at == 0)
		return -1;
	return sp->sync == SPOOL_SYNC_NONE ? 0 : journal_flush(sp, at);
}

/*
 * Flush
 */

/* Is the file that we flushed the spool's log? */
static bool
is_current(struct journal *j)
{
	struct header h;
	struct stat st;

	return fstat(j->fd, &st) == 0 && st.st_nlink > 0 && (uint64_t)st.st_size == FILE_SIZE &&
	       read_at(j->fd, &h, sizeof h, 0) == 0 && h.id == j->id;
}

/* With LOCK_FLUSH held: flush all that is in the log now. Others that could run may be about to
 * append: that they go first made an eighth more of 50 connections, and costs one nothing. */
static int
lead(struct spool *sp)
{
	struct journal *j = &sp->journal;

	sched_yield();
	uint64_t end = j->ends->end; /* what is in front of it was written before */

	/* After a flush that failed the kernel may take the pages for clean, and the next would
	 * succeed: so nobody trusts this log any more. */
	if (j->ends->failed || j->ends->id != j->id)
		return -1;
	if (fdatasync(j->fd) == -1) {
		give_up(sp);
		return -1;
	}
	if (!is_current(j))
		return -1;
	j->ends->synced = end;
	return 0;
}

/*
 * Whoever gets the lock flushes for all; the others sleep until that flush has ended, and whom it
 * did not cover tries the lock again. The count is read before the lock is tried, and changed
 * after it is released, so nobody sleeps who could have it. If the leader is killed the kernel
 * ends his lock, and the sleep ends by itself.
 */
int
journal_flush(struct spool *sp, uint64_t at)
{
	struct journal *j = &sp->journal;

	if (at == JOURNAL_NEVER || j->ends == NULL || at >> TURN_SHIFT != j->turn)
		return -1;
	at -= to_position(j, 0);
	while (j->ends->synced < at) {
		uint32_t flushes = j->ends->flushes;
		if (try_lock(j, LOCK_FLUSH)) {
			int r = j->ends->synced < at ? lead(sp) : 0;
			unlock(j, LOCK_FLUSH);
			j->ends->flushes++;
			os_wake(&j->ends->flushes);
			if (r == -1) {
				j->has_failed = j->ends->failed;
				forget(j);
				return -1;
			}
		} else if (errno == EAGAIN || errno == EACCES) {
			os_wait(&j->ends->flushes, flushes, LEADER_MS);
		} else {
			return -1;
		}
	}
	return 0;
}

/*
 * Checkpoint
 */

/* With LOCK_CHECKPOINT held. */
static int
checkpoint(struct spool *sp)
{
	struct journal *j = &sp->journal;
	uint64_t tail = 0, end = 0;
	struct log l;

	/* It may have failed meanwhile, or be another process's new one. */
	if (lock_append(j) == -1)
		return -1;
	int r = see_ends(sp);
	if (r == 0)
		tail = j->ends->tail, end = j->ends->end;
	unlock_append(j);
	if (r == -1 || !is_current(j))
		return -1;
	if (end - tail <= RING_SIZE / 2)
		return 0;
	if (read_log(j, j->id, tail, end, &l) == -1)
		return -1;
	if (l.end == end) {
		r = sync_log(sp, &l);
	} else {
		l.mid = end; /* it was spoiled; then it is of no use any more */
		r = os_syncfs(sp->rootfd);
	}
	free_log(&l);
	/* The header first: replay must not begin at a place that is overwritten. If either fails,
	 * another try may succeed without anything being on the disk: see the head. */
	if (r == -1 || write_header(sp, j->id, l.mid) == -1) {
		give_up(sp);
		return -1;
	}
	if (lock_append(j) == -1)
		return -1;
	r = see_ends(sp);
	if (r == 0)
		j->ends->tail = l.mid;
	unlock_append(j);
	return r;
}

void
journal_checkpoint(struct spool *sp)
{
	struct journal *j = &sp->journal;

	if (j->ends == NULL || !j->is_long)
		return;
	j->is_long = false;
	if (!try_lock(j, LOCK_CHECKPOINT))
		return;
	checkpoint(sp);
	unlock(j, LOCK_CHECKPOINT);
}

/*
 * Replay
 */

/* With LOCK_CHECKPOINT held, so that it is done once. If it is cut short the next begins again:
 * nothing in the log has changed. */
static int
replay(struct spool *sp, const struct header *h)
{
	struct log l;
	/* Is there a .state that was made without the log? */
	bool distrust = sp->journal.passed_over || memcmp(h->boot, sp->boot, sizeof h->boot) == 0;
	uint64_t id;

	if (os_random(&id, sizeof id) == -1 ||
	    read_log(&sp->journal, h->id, h->tail, UINT64_MAX, &l) == -1)
		return -1;
	int r = replay_log(sp, &l, distrust);
	free_log(&l);
	/* With another id all old records are void. */
	if (r == -1 || os_syncfs(sp->rootfd) == -1 || write_header(sp, id, 0) == -1)
		return -1;
	os_mark(sp->journal.fd);
	sp->journal.id = id;
	return 0;
}

int
journal_open(struct spool *sp)
{
	struct journal *j = &sp->journal;
	struct header h;

	if (!is_usable(sp) || j->fd != -1)
		return 0;
	if (open_file(sp, 0) == -1) {
		/* There is none; or an operator has done something to it. */
		if (errno == ENOENT || is_foreign(errno)) {
			j->passed_over = false;
			return 0;
		}
		/* Nothing can be pushed or taken here until it is writable again. */
		j->passed_over = errno == EROFS;
		return j->passed_over ? 0 : -1;
	}
	enum kind kind = adopt(sp, &h);
	if (kind == KIND_OLD_LOG) {
		kind = KIND_UNKNOWN;
		if (lock_byte(j, LOCK_CHECKPOINT, F_WRLCK, F_SETLKW) == 0)
			kind = recognise(sp, &h);
		if (kind == KIND_OLD_LOG)
			kind = replay(sp, &h) == 0 ? KIND_LOG : KIND_UNKNOWN;
		unlock(j, LOCK_CHECKPOINT);
	}
	if (kind != KIND_LOG)
		forget(j);
	j->passed_over = j->passed_over && kind == KIND_UNKNOWN;
	return kind == KIND_UNKNOWN ? -1 : 0;
}

/* The ends of the log `id` as .sync has them. Returns 1; 0 if that is of no use; or -1. */
static int
read_ends(struct spool *sp, uint64_t id, struct shared_ends *ends)
{
	int fd = openat(sp->rootfd, ".sync", read_flags), r;

	if (fd == -1)
		return errno == ENOENT ? 0 : -1;
	r = read_at(fd, ends, sizeof *ends, 0);
	close_fd(&fd);
	if (r == -1)
		return errno == EINVAL ? 0 : -1;
	return ends->id == id;
}

int
journal_glance(struct spool *sp, struct journal_glance *g)
{
	int fd = openat(sp->rootfd, ".journal", read_flags), r;
	struct shared_ends ends;
	struct header h;
	struct stat st;

	if (fd == -1)
		return errno == ENOENT ? 0 : -1;
	r = read_header(sp, fd, &h) == -1 || fstat(fd, &st) == -1 ? -1 : 1;
	close_fd(&fd);
	if (r == -1)
		return errno == EINVAL ? 0 : -1;
	if (memcmp(h.boot, sp->boot, sizeof h.boot) != 0)
		return 0;
	r = read_ends(sp, h.id, &ends);
	if (r != 1)
		return r;
	/* What was flushed, or given up, since `end` was read does not count. */
	uint64_t end = ends.end, synced = ends.synced, tail = ends.tail;
	*g = (struct journal_glance){.size = RING_SIZE,
	                             .unflushed = end < synced ? 0 : end - synced,
	                             .waiting = end < tail ? 0 : end - tail,
	                             .flushes = ends.flushes,
	                             .failed = ends.failed != 0,
	                             .appended = st.st_mtim};
	return 1;
}

/*
 * After a failure
 */

/* With LOCK_CHECKPOINT held: see to it that the next os_syncfs speaks of all messages in the log that
 * has failed, and of nothing that was before. */
static int
rescue(struct spool *sp)
{
	struct header h;
	struct log l;

	if (read_header(sp, sp->journal.fd, &h) == -1 ||
	    read_log(&sp->journal, h.id, h.tail, UINT64_MAX, &l) == -1)
		return -1;
	os_syncfs(sp->rootfd);
	int r = rescue_log(sp, &l);
	free_log(&l);
	return r;
}

/* With LOCK_CHECKPOINT held: make the open file a log that can be used. 0 or -1. */
static int
make_log(struct spool *sp)
{
	struct journal *j = &sp->journal;
	struct header h;
	struct stat st;
	int r;

	switch (recognise(sp, &h)) {
	case KIND_LOG:
		r = open_ends(sp, 0);
		if (r != 1 || !j->ends->failed)
			return r == -1 ? -1 : 0;
		if (rescue(sp) == -1)
			return -1;
		break;
	case KIND_OLD_LOG: /* it was hidden when we opened the spool */
		j->passed_over = true;
		return -1;
	case KIND_NO_LOG:
		/* What has a second name was put there, and is somebody's. */
		if (fstat(j->fd, &st) == -1 || st.st_nlink != 1)
			return -1;
		if (st.st_size == 0)
			return begin_anew(sp);
		break;
	case KIND_UNKNOWN:
		return -1;
	}
	/* Messages may depend on what was in it. */
	return os_syncfs(sp->rootfd) == -1 ? -1 : begin_anew(sp);
}

void
journal_make(struct spool *sp)
{
	struct journal *j = &sp->journal;
	struct header h;

	if (j->fd != -1 || !is_usable(sp) || os_monotonic_ms() < j->make_ms)
		return;
	j->make_ms = os_monotonic_ms() + RETRY_MS;
	if (open_file(sp, O_CREAT) == -1)
		return;
	if (try_lock(j, LOCK_CHECKPOINT)) {
		if (make_log(sp) == 0)
			unlock(j, LOCK_CHECKPOINT);
		else
			forget(j);
	} else if (adopt(sp, &h) != KIND_LOG) {
		forget(j); /* somebody is making it */
	}
	j->has_failed = j->has_failed && j->fd == -1;
}

void
journal_close(struct spool *sp)
{
	journal_checkpoint(sp);
	forget(&sp->journal);
}
