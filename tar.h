/* tar.h: the members of a tar archive, as POSIX has them (ustar, with pax headers where they must be). */
#ifndef MQ_TAR_H
#define MQ_TAR_H

#include <stddef.h>
#include <stdint.h>

#define TAR_BLOCK 512
#define TAR_NAME_MAX 512 /* bytes, with the NUL */

struct tar_member {
	char type; /* '0' a file, '5' a directory, '\0' the end of the archive; anything else */
	char name[TAR_NAME_MAX];
	uint64_t size;
	int64_t mtime; /* written, but not read */
};

/* The headers of a member into `buf`. Returns their length, a multiple of TAR_BLOCK. Its content
 * follows, and zeros up to the next block. The archive ends with two blocks of zeros. */
#define TAR_HEADERS_MAX (3 * TAR_BLOCK + 2 * TAR_NAME_MAX)
size_t tar_write(char *buf, const struct tar_member *m);

/* The checksum that belongs into the first block of a member's headers. */
unsigned tar_sum(const char *block);

/* How many zeros follow a content of that size. */
size_t tar_padding(uint64_t size);

/*
 * Read the headers of the next member. `read` fills all of a buffer, and returns 0, or -1. Returns
 * 0; -1 if it does; 1 if it is no tar, or one that is not understood, and *why says what.
 */
typedef int tar_reader(void *arg, void *buf, size_t len);
int tar_read(tar_reader *read, void *arg, struct tar_member *m, const char **why);

#endif
