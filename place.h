/* place.h: whether a directory can be a spool, or a queue in one. */
#ifndef MQ_PLACE_H
#define MQ_PLACE_H

#include <sys/stat.h>
#include <sys/types.h>

/*
 * Why the directory that is open as `fd`, and that fstat tells `st` of, cannot be a spool, and what
 * mends it; or NULL, it can. place_owner_fault: the same of a directory in it, which has to be
 * `owner`'s. The text does not begin with the path, and is valid until the next call.
 */
const char *place_fault(int fd, const struct stat *st, const char *path);
const char *place_owner_fault(const struct stat *st, uid_t owner, const char *path);

/* What an operator has decided that place_fault shall not ask from now on. */
enum place_question {
	PLACE_NOTHING,
	PLACE_FILESYSTEM, /* on which file system it lies */
	PLACE_ALL,        /* that, and whose it is */
};
void place_ignore(enum place_question question);

#endif
