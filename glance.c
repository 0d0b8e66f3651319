/*
 * glance.c: look at a spool without a lock, and without changing anything in it.
 *
 * For who watches (mqctl metrics, mqctl http): it works where the spool is mounted read-only, it
 * cannot make a client wait, and it is not stopped by one that holds a lock. Everything else that
 * looks at a queue locks it, and mends what it finds (spool_stat).
 *
 * A queue's counters are its .state, which is written in place. Without the lock a reader may see
 * half of a write, so it reads until two readings are the same. A state that is of another boot, missing
 * or malformed will be made anew by the next process that uses the queue; here the directory is
 * listed instead. All figures are of one moment only as far as they come from .state.
 */
#include "glance.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "place.h"
#include "queue_name.h"
#include "spool_queue.h"
#include "utf8.h"

#define READINGS 16         /* of a .state, until two in a row agree */
#define RECOUNT_MAX 100000  /* messages that are counted where .state is not to be believed */
#define MESSAGES_MISSED 256 /* numbers without a message, before the search for one ends */

int
glance_open(struct spool *sp)
{
	struct stat st;

	sp->rootfd = open(sp->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (sp->rootfd == -1 || fstat(sp->rootfd, &st) == -1)
		return -1;
	sp->owner = st.st_uid;
	sp->dev = st.st_dev;
	return 0;
}

/*
 * Is it the file system that is read-only, rather than our view of it, as in a service that has the
 * spool mounted so? The kernel tells the two apart in /proc/self/mountinfo, where the file system's own
 * options stand last. False if it does not say.
 */
static bool
is_read_only(const struct spool *sp)
{
	char line[4096], device[48];
	bool read_only = false;
	FILE *f = fopen("/proc/self/mountinfo", "re");

	if (f == NULL)
		return false;
	snprintf(device, sizeof device, " %u:%u ", major(sp->dev), minor(sp->dev));
	while (fgets(line, sizeof line, f) != NULL) {
		const char *found = strstr(line, device), *options = strrchr(line, ' ');
		/* The two fields in front of it are numbers. */
		if (found == NULL || strspn(line, "0123456789 ") < (size_t)(found - line))
			continue;
		read_only =
		    strncmp(options, " ro", 3) == 0 && (options[3] == ',' || options[3] == '\n');
		break;
	}
	fclose(f);
	return read_only;
}

const char *
glance_fault(struct spool *sp)
{
	const char *fault;
	struct statvfs vfs;
	struct stat st;

	if (fstat(sp->rootfd, &st) == -1 || fstatvfs(sp->rootfd, &vfs) == -1)
		return strerror(errno);
	fault = place_fault(sp->rootfd, &st, sp->dir);
	if (fault == NULL && st.st_nlink == 0)
		fault = "the directory was removed";
	if (fault == NULL && (vfs.f_flag & ST_RDONLY) != 0 && is_read_only(sp))
		fault = "the file system is read-only";
	return fault;
}

/* Returns 1; 0 if there is no state that can be read; or -1. */
static int
read_state(int dirfd, struct state *s)
{
	char buf[2][STATE_LEN + 1];
	ssize_t n = 0, last = -1;
	int fd = os_openat_noatime(dirfd, ".state", read_flags, 0);

	if (fd == -1)
		return errno == ENOENT ? 0 : -1;
	for (int i = 0; i < READINGS; i++, last = n) {
		n = pread(fd, buf[i % 2], sizeof buf[0], 0);
		if (n == -1 || (n == last && memcmp(buf[0], buf[1], (size_t)n) == 0))
			break;
	}
	close_fd(&fd);
	if (n == -1)
		return errno == EISDIR ? 0 : -1;
	return state_read(buf[0], (size_t)n, s, NULL) == 0;
}

/* What waits, by a listing. */
static int
count(int dirfd, struct state *s)
{
	struct listing l = {0};

	if (dir_each_number(dirfd, list_number, &l) == -1)
		return -1;
	s->ranges[0] =
	    l.lowest == 0 ? (struct range){1, 1} : (struct range){l.lowest, l.highest + 1};
	s->nranges = 1;
	s->waiting = l.waiting;
	s->bytes = l.bytes;
	if (s->put == 0)
		s->put = l.highest; /* as it will be made anew */
	return 0;
}

/* The state of an open queue, as good as it is to be had. 0 or -1. */
static int
load_state(const struct spool *sp, int dirfd, struct state *s)
{
	int r = read_state(dirfd, s);

	if (r == -1)
		return -1;
	if (r == 0)
		state_init(s, sp->boot);
	bool current = r == 1 && memcmp(s->boot, sp->boot, STATE_BOOT_LEN) == 0;
	if (!current && s->paused != STATE_FOREVER)
		s->paused = 0; /* a pause with an end ends with the boot */
	if ((current && !s->stale) || s->waiting > RECOUNT_MAX)
		return 0;
	return count(dirfd, s);
}

/* What waits from number *n on: its file's state, and *n is its number. Returns 1; 0 if there is none;
 * or -1. */
static int
next_message(int dirfd, const struct state *s, uint64_t *n, struct stat *st)
{
	char name[MESSAGE_NAME_LEN + 1];

	for (int missed = 0; missed < MESSAGES_MISSED; missed++, ++*n) {
		*n = state_candidate(s, *n);
		if (*n >= state_next(s))
			return 0;
		message_name(name, *n);
		int r = fstatat(dirfd, name, st, AT_SYMLINK_NOFOLLOW);
		if (r == 0 && S_ISREG(st->st_mode))
			return 1;
		if (r == -1 && may_pass(errno))
			return -1;
	}
	return 0;
}

static int64_t
age_ms(const struct stat *st)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	int64_t ms = ((int64_t)now.tv_sec - st->st_mtim.tv_sec) * 1000 +
	             (now.tv_nsec - st->st_mtim.tv_nsec) / 1000000;
	return ms < 0 ? 0 : ms; /* the clock was set back */
}

/* Open a queue and read its state. Returns 1, 0 or -1. */
static int
open_queue(struct spool *sp, const char *queue, struct state *s, int *fd)
{
	*fd = openat(sp->rootfd, queue, dir_flags);
	if (*fd == -1)
		return errno == ENOENT || errno == ENOTDIR ? 0 : -1;
	if (load_state(sp, *fd, s) == 0)
		return 1;
	close_fd(fd);
	return -1;
}

int
glance_queue(struct spool *sp, const char *queue, struct queue_stat *qs)
{
	struct state s;
	struct stat st;
	uint64_t n = 0;
	int fd, r = open_queue(sp, queue, &s, &fd);

	if (r != 1)
		return r;
	queue_figures(&s, qs);
	int oldest = next_message(fd, &s, &n, &st);
	if (oldest == 1) {
		qs->oldest = st.st_mtime;
		qs->age_ms = (uint64_t)age_ms(&st);
	}
	if (oldest == -1 || queue_in_flight(fd, &qs->in_flight) == -1 ||
	    queue_waiters(fd, &qs->waiters) == -1)
		r = -1;
	close_fd(&fd);
	return r;
}

/* Returns 1; 0 if it is gone by now, or cannot be looked at by us; or -1. */
static int
read_message(int dirfd, uint64_t number, const struct stat *st, struct glance_message *m)
{
	char name[MESSAGE_NAME_LEN + 1], buf[MESSAGE_HEADER_LEN + sizeof m->body];
	uint32_t crc;

	message_name(name, number);
	int fd = os_openat_noatime(dirfd, name, read_flags, 0);
	if (fd == -1)
		return may_pass(errno) ? -1 : 0;
	ssize_t n = pread(fd, buf, sizeof buf, 0);
	close_fd(&fd);
	if (n == -1 && !is_damage(errno))
		return -1;
	*m = (struct glance_message){.number = number, .age_ms = age_ms(st), .damaged = true};
	if (n < MESSAGE_HEADER_LEN || message_read_header(buf, &m->message, &crc) == -1)
		return 1;
	m->damaged = m->message.number != number || m->message.length != body_bytes(st);
	m->len = (size_t)n - MESSAGE_HEADER_LEN;
	memcpy(m->body, buf + MESSAGE_HEADER_LEN, m->len);
	return 1;
}

int
glance_messages(struct spool *sp, const char *queue, unsigned max, struct glance_message *messages,
                unsigned *n)
{
	struct state s;
	struct stat st;
	int fd, r = open_queue(sp, queue, &s, &fd);

	*n = 0;
	if (r != 1)
		return r;
	for (uint64_t number = 0; *n < max; number++) {
		int next = next_message(fd, &s, &number, &st);
		r = next == 1 ? read_message(fd, number, &st, &messages[*n]) : next;
		if (next == 0 || r == -1)
			break;
		*n += (unsigned)r;
	}
	close_fd(&fd);
	return r == -1 ? -1 : 1;
}

/* Can people read all of it, and is none of it what names in the spool have? */
static bool
is_plain(const char *s)
{
	struct utf8 u = {0};

	for (; *s != '\0'; s++)
		switch (utf8_add(&u, (unsigned char)*s)) {
		case UTF8_BAD:
			return false;
		case UTF8_PART:
			break;
		case UTF8_WHOLE:
			if (u.character == '%' || utf8_is_control(u.character))
				return false;
		}
	return u.left == 0;
}

void
glance_label(const char *queue, char *label)
{
	if (queue_name_decode(queue, label) == -1 || !is_plain(label))
		strcpy(label, queue);
}
