/* daemon.h: a daemon of the old kind: in the background, with a pid file and with core files. */
#ifndef MQ_DAEMON_H
#define MQ_DAEMON_H

#include <stdbool.h>
#include <sys/types.h>

/*
 * Go on in the background: returns 0 in a new process, in a session of its own, or -1 with errno. The
 * one that was started waits for daemon_ready and exits with 0 then; or with the status of the new
 * one, which has its standard error until then.
 */
int daemon_begin(void);

/*
 * Everything that could fail at the start has not, and signals are handled: let go of the standard descriptors and, unless
 * `stay`, of the current directory. Returns 0; -1 with errno, EPIPE if whoever waited has gone.
 */
int daemon_ready(bool stay);

/*
 * Write this process's id to a file, and hold a lock on it: a file that nobody holds is replaced.
 * Returns 0; -1 with errno, EEXIST if process *holder holds it, and EINVAL if it is something that
 * cannot be a pid file.
 */
int pidfile_write(const char *path, pid_t *holder);

/* Remove the file that pidfile_write wrote, if it did; where that is not allowed any more, empty it.
 * Returns 0; -1 with errno if neither can be done. */
int pidfile_remove(void);

/* Let the process leave core files as large as the system allows. Returns 0; -1 with errno, EPERM if
 * it allows none. core_allow is to be called again when the process has become another user. */
int core_raise_limit(void);
void core_allow(void);

#endif
