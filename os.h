/* os.h: what one system does better than POSIX can say, each with a portable fallback. */
#ifndef MQ_OS_H
#define MQ_OS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define OS_BOOT_ID_LEN 36

/*
 * Rename within one file system; never replaces what stands at the new name.
 * Returns 0; -1 with errno, EEXIST if something else stands there. If both names already
 * are the same file (a portable rename was cut short by a kill) it is finished: returns
 * 0.
 */
int os_rename_noreplace(int fromdir, const char *from, int todir, const char *to);

/* The identity of this boot of the kernel, OS_BOOT_ID_LEN characters without a NUL; all
 * '-' where the system has none, and then a reboot goes unnoticed. */
void os_boot_id(char *id);

/* Flush all that was written to the file system of an open file. 0 or -1; ENOSYS where the system
 * cannot do that, or cannot say when it is done. */
int os_syncfs(int fd);

/* Fill `buf` with random bytes that nobody can guess. 0 or -1. */
int os_random(void *buf, size_t len);

/*
 * Map the beginning of a file that processes share. Where its page cannot be had when it is
 * touched (the file was cut short by hand; the disk is full and the file system copies on write)
 * one of the process's own takes its place, with zeros in it. NULL with errno.
 */
void *os_map_shared(int fd, size_t len);
void os_unmap_shared(void *p, size_t len);

/* Sleep until os_wake is called on the word, in any process; not if it is not `value` any more,
 * nor much longer than `ms`. May wake early. */
void os_wait(_Atomic uint32_t *word, uint32_t value, unsigned ms);
void os_wake(_Atomic uint32_t *word);

/* CLOCK_MONOTONIC in milliseconds. */
uint64_t os_monotonic_ms(void);

/* Acknowledge what was received on socket `fd` now, not in the hope of data to send
 * along. */
void os_quick_ack(int fd);

#endif
