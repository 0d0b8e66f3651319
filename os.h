/* os.h: what one system does better than POSIX can say, each with a portable fallback. */
#ifndef MQ_OS_H
#define MQ_OS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#define OS_BOOT_ID_LEN 36

/*
 * Rename within one file system; never replaces what stands at the new name.
 * Returns 0; -1 with errno, EEXIST if something else stands there. If both names already
 * are the same file (a portable rename was cut short by a kill) it is finished: returns
 * 0.
 */
int os_rename_noreplace(int fromdir, const char *from, int todir, const char *to);

/*
 * Make a file in directory `dirfd` that has no name yet, so that it goes when it is closed; and give
 * it one, in any directory of that file system. os_open_unnamed: a descriptor, or -1 with errno
 * ENOENT if the directory was removed, EOPNOTSUPP where the system or the file system cannot do
 * that. os_name: 0, or -1 with errno: EEXIST if something stands there, EOPNOTSUPP if the system
 * does not let us, after which os_open_unnamed does not try any more.
 */
int os_open_unnamed(int dirfd, mode_t mode);
int os_name(int fd, int dirfd, const char *name);

/*
 * As fstatat without following links, but of *st only st_dev, st_ino, st_nlink, st_mode and st_size
 * are set, and st_dev is to be compared with what this function said alone. `path` "": of the
 * descriptor itself. Linux gives a file whose times were asked for new ones at its next change, to
 * the nanosecond, where it else has the same for some milliseconds: and each is a change of the
 * inode.
 */
int os_stat(int dirfd, const char *path, struct stat *st);

/* As openat, but reading does not write when the file was last read, which else is a change of its
 * inode for each message. Where that is not allowed: as openat. */
int os_openat_noatime(int dirfd, const char *name, int flags, mode_t mode);

/* The identity of this boot of the kernel, OS_BOOT_ID_LEN characters without a NUL; all
 * '-' where the system has none, and then a reboot goes unnoticed. 0; or -1 if it cannot be told now. */
int os_boot_id(char *id);

/*
 * Keep everybody else from having the file `fd` open, which must be open for writing: a lease.
 * Returns false if somebody has, or if the system cannot tell. While it lasts who opens the file
 * waits in open; the signal that tells of it, SIGIO, is ignored from the first call on.
 * os_lease_possible: whether os_lease can ever return true.
 */
bool os_lease_possible(void);
bool os_lease(int fd);
void os_unlease(int fd);

/*
 * Tell the scheduler that this process should not interrupt others when it wakes, and that its turns
 * may be short: of many processes that share a lock, whoever holds it is less often stopped by
 * another that wants it too, and who lets others go first waits less long for that. Nothing
 * happens where an operator has chosen another policy, the system knows no such thing, or at a
 * second call.
 */
void os_sched_batch(void);

/* Flush all that was written to the file system of an open file. 0 or -1; ENOSYS where the system
 * cannot do that, or cannot say when it is done. */
int os_syncfs(int fd);

/* Can an entry of a new directory be lost although each directory on the way to it was flushed, on the
 * file system that `fd` lies on? Then only os_syncfs keeps it. */
bool os_loses_new_entries(int fd);

/* The type of the file system that an open file lies on, by the numbers of Linux; OS_FILESYSTEM_UNKNOWN
 * where the system does not tell. 0 or -1. */
#define OS_FILESYSTEM_UNKNOWN 0
int os_filesystem(int fd, uint32_t *type);

/* Are names in an open directory the same that differ in upper and lower case alone? False also where
 * the system does not tell. */
bool os_folds_case(int dirfd);

/* Wait for what is being written of an open file, and tell of an error that nobody was told of yet, of
 * this one or before: 0 or -1. What is still to be written is not. */
int os_was_written(int fd);

/*
 * Mark an open file in the kernel's memory alone: the mark goes when the kernel forgets the file,
 * which is when its file system is unmounted, or when nobody had it open for a while. Where the
 * system cannot do that any file is marked. os_can_mark: whether os_mark would work; it takes the
 * mark away.
 */
bool os_is_marked(int fd);
bool os_can_mark(int fd);
void os_mark(int fd);

/* A number for the mount that an open file lies on, which no other gets until the system is rebooted;
 * 0 if the system has none. */
uint64_t os_mount_id(int fd);

/* Open the standard descriptors that are closed: a file of ours must not become one of them. */
void os_open_standard(void);

/* Fill `buf` with random bytes that nobody can guess. 0 or -1. */
int os_random(void *buf, size_t len);

/* From now on memory of 128 KiB and more goes back to the system when it is freed: glibc else keeps
 * as much as was freed at once before, in each process of a pool. */
void os_free_returns(void);

/*
 * Map the beginning of a file that processes share. Where its page cannot be had when it is
 * touched (the file was cut short by hand; the disk is full and the file system copies on write)
 * one of the process's own takes its place, with zeros in it. NULL with errno.
 */
void *os_map_shared(int fd, size_t len);
void os_unmap_shared(void *p, size_t len);

/*
 * Watch a directory for what comes into it, for its own removal or renaming, and another one for
 * files in it that are closed after they could be written to: os_watch_begin. Returns 0, and
 * watch->fd is one that poll(2) finds readable then; or -1 where the system cannot do that, or not
 * once more. os_watch_read takes the news: returns whether there was any but of closed files.
 * os_watch_end stops, but keeps the descriptor for the next time. os_watch_close gives that back
 * too: it takes the kernel ten milliseconds or more, and by default a user can have but 128 of them.
 */
struct os_watch {
	int fd; /* -1 at first */
	int of[2];
};
int os_watch_begin(struct os_watch *w, int dirfd, int closedfd);
bool os_watch_read(const struct os_watch *w);
void os_watch_end(struct os_watch *w);
void os_watch_close(struct os_watch *w);

/* Sleep until os_wake is called on the word, in any process; not if it is not `value` any more,
 * nor much longer than `ms`. May wake early. */
void os_wait(_Atomic uint32_t *word, uint32_t value, unsigned ms);
void os_wake(_Atomic uint32_t *word);

/* CLOCK_MONOTONIC in milliseconds. */
uint64_t os_monotonic_ms(void);

/*
 * Have up to `len` bytes of file `file`, from `offset`, go to descriptor `out`, without a copy.
 * As write(2), but 0 at the end of the file; ENOSYS or EINVAL where that cannot be done. What
 * was sent may be read from the file as late as when the other end reads it: nothing of it may
 * be overwritten afterwards. To unlink the file is no harm.
 */
ssize_t os_sendfile(int out, int file, uint64_t offset, size_t len);

/*
 * Wait, for `timeout_ms` at the most (-1: for ever), until a connection waits on one of the `n`
 * listening sockets, or descriptor `other` can be read or has come to its end. Of several
 * processes that wait for the same connection the system wakes one, where it can; whoever is
 * ready to wait may be the one to accept it. *set is -1 at first, belongs to this function and
 * process, and goes with these descriptors. Returns a bit for each that is ready, 1 << n for
 * `other`; 0 when the time is over; -1 with errno, EINTR after a signal.
 */
int os_wait_accept(int *set, const int *sockets, unsigned n, int other, int timeout_ms);
#define OS_WAIT_MAX 16 /* sockets */

/* Have signal `sig` sent to this process when its parent, `parent`, has ended; at once if it
 * has. Where the system cannot, it is not sent. */
void os_signal_when_orphaned(int sig, pid_t parent);

/* Acknowledge what was received on socket `fd` now, not in the hope of data to send
 * along. */
void os_quick_ack(int fd);

/*
 * Have the system ask the other end of TCP socket `fd` whether it is there, once it has been silent
 * for `seconds`, and give it up when that has gone without an answer for half as long again (three
 * seconds at the least); also, where it can, when it has not acknowledged for so long what we sent.
 * One that answers, and just does not read, is not given up. 0: never ask. Where the system cannot
 * be told how long, it asks when it likes.
 */
void os_keepalive(int fd, int seconds);
#define OS_KEEPALIVE_MAX 32767 /* seconds */

/* Does an accepted socket begin with the TCP options of the one that it was accepted on? */
#if defined(__linux__) && !defined(MQ_PORTABLE)
#define OS_ACCEPTED_INHERITS true
#else
#define OS_ACCEPTED_INHERITS false
#endif

#endif
