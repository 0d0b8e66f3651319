/* queue_name.h: the directory name of a queue. */
#ifndef MQ_QUEUE_NAME_H
#define MQ_QUEUE_NAME_H

#include <stddef.h>

#define QUEUE_NAME_MAX 255 /* bytes of an encoded name: a file name's limit */

/*
 * The directory name for a queue's name of `len` bytes: letters, digits and _-.:@=,~+{}
 * stand for themselves except a leading dot, every other byte is %XX. `dir` has
 * QUEUE_NAME_MAX + 1 bytes. Returns 0; -1 with ENAMETOOLONG, or EINVAL if it is empty or
 * has a NUL or a slash.
 */
int queue_name_encode(const char *name, size_t len, char *dir);

/* The reverse, into `name` of QUEUE_NAME_MAX + 1 bytes, with a NUL behind. Returns the
 * length, or -1 if `dir` is not what queue_name_encode makes of any name, thus no queue.
 */
int queue_name_decode(const char *dir, char *name);

/* The directory name for a queue that an operator names as `ls` shows it, or as a client does. As
 * queue_name_encode. */
int queue_name_read(const char *text, char *dir);

#endif
