/* md5.h: MD5, where a format that others have made asks for it. It protects against nobody. */
#ifndef MQ_MD5_H
#define MQ_MD5_H

#include <stddef.h>
#include <stdint.h>

#define MD5_LEN 16

struct md5 {
	uint32_t state[4];
	uint64_t length;
	unsigned char block[64];
};

void md5_begin(struct md5 *m);
void md5_add(struct md5 *m, const void *data, size_t len);
void md5_end(struct md5 *m, unsigned char digest[MD5_LEN]);

#endif
