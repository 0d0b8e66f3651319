/* os.h: what one system does better than POSIX can say, each with a portable fallback. */
#ifndef MQ_OS_H
#define MQ_OS_H

#include <stdbool.h>
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

/*
 * Keep everybody else from having the file `fd` open, which must be open for writing: a lease.
 * Returns false if somebody has, or if the system cannot tell. While it lasts who opens the file
 * waits in open; the signal that tells of it, SIGIO, is ignored from the first call on.
 * os_lease_possible: whether os_lease can ever return true.
 */
bool os_lease_possible(void);
bool os_lease(int fd);
void os_unlease(int fd);

/* CLOCK_MONOTONIC in milliseconds. */
uint64_t os_monotonic_ms(void);

/* Acknowledge what was received on socket `fd` now, not in the hope of data to send
 * along. */
void os_quick_ack(int fd);

#endif
