/* holder.h: which process holds a lock on a file, and who is at the other end of its connection. */
#ifndef MQ_HOLDER_H
#define MQ_HOLDER_H

#include <stddef.h>
#include <sys/types.h>

#define HOLDER_PEER_LEN 128 /* with the NUL */

struct holder {
	dev_t dev; /* the file: these two are for the caller to set */
	ino_t ino;
	pid_t pid; /* of the process that has a flock on it; 0: it cannot be found */
	/* "ip:port", "[ip6]:port", the path of a Unix socket, "unix" if it has none, or "": it
	 * cannot be found. Without blanks and control characters. */
	char peer[HOLDER_PEER_LEN];
};

/*
 * Find the holders of `n` files. The pid is for all to see. Of the descriptors of a process the
 * system tells its owner, but root alone if the process was once another user's (mqd -u).
 * Where the system says nothing of all this, nothing is found.
 */
void holders_find(struct holder *holders, size_t n);

#endif
