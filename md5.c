/*
 * md5.c: MD5, as RFC 1321 has it.
 *
 * libmemcached's consistent hashing is made of it, and an export stream gets its name from it. The
 * input is cut into blocks of 64 bytes, the last of which ends with the length in bits; each block
 * is mixed into four words in 64 steps.
 */
#include "md5.h"

#include <string.h>

/* The integer part of 2^32 times abs(sin(i + 1)). */
static const uint32_t sines[64] = {
    0xd76aa478, 0xe8c7b756, 0x242070db, 0xc1bdceee, 0xf57c0faf, 0x4787c62a, 0xa8304613, 0xfd469501,
    0x698098d8, 0x8b44f7af, 0xffff5bb1, 0x895cd7be, 0x6b901122, 0xfd987193, 0xa679438e, 0x49b40821,
    0xf61e2562, 0xc040b340, 0x265e5a51, 0xe9b6c7aa, 0xd62f105d, 0x02441453, 0xd8a1e681, 0xe7d3fbc8,
    0x21e1cde6, 0xc33707d6, 0xf4d50d87, 0x455a14ed, 0xa9e3e905, 0xfcefa3f8, 0x676f02d9, 0x8d2a4c8a,
    0xfffa3942, 0x8771f681, 0x6d9d6122, 0xfde5380c, 0xa4beea44, 0x4bdecfa9, 0xf6bb4b60, 0xbebfbc70,
    0x289b7ec6, 0xeaa127fa, 0xd4ef3085, 0x04881d05, 0xd9d4d039, 0xe6db99e5, 0x1fa27cf8, 0xc4ac5665,
    0xf4292244, 0x432aff97, 0xab9423a7, 0xfc93a039, 0x655b59c3, 0x8f0ccc92, 0xffeff47d, 0x85845dd1,
    0x6fa87e4f, 0xfe2ce6e0, 0xa3014314, 0x4e0811a1, 0xf7537e82, 0xbd3af235, 0x2ad7d2bb, 0xeb86d391,
};

static const unsigned char turns[4][4] = {
    {7, 12, 17, 22}, {5, 9, 14, 20}, {4, 11, 16, 23}, {6, 10, 15, 21}};

static uint32_t
get_word(const unsigned char *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void
put_word(unsigned char *p, uint32_t w)
{
	for (int i = 0; i < 4; i++)
		p[i] = (unsigned char)(w >> 8 * i);
}

static void
mix_block(uint32_t state[4], const unsigned char *block)
{
	uint32_t a = state[0], b = state[1], c = state[2], d = state[3], f;
	unsigned word;

	for (unsigned i = 0; i < 64; i++) {
		if (i < 16)
			f = (b & c) | (~b & d), word = i;
		else if (i < 32)
			f = (d & b) | (~d & c), word = (5 * i + 1) % 16;
		else if (i < 48)
			f = b ^ c ^ d, word = (3 * i + 5) % 16;
		else
			f = c ^ (b | ~d), word = 7 * i % 16;
		unsigned turn = turns[i / 16][i % 4];
		f += a + sines[i] + get_word(block + 4 * (size_t)word);
		a = d;
		d = c;
		c = b;
		b += f << turn | f >> (32 - turn);
	}
	state[0] += a;
	state[1] += b;
	state[2] += c;
	state[3] += d;
}

void
md5_begin(struct md5 *m)
{
	*m = (struct md5){.state = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476}};
}

void
md5_add(struct md5 *m, const void *data, size_t len)
{
	const unsigned char *p = data;

	while (len > 0) {
		size_t at = m->length % 64, n = 64 - at < len ? 64 - at : len;
		memcpy(m->block + at, p, n);
		m->length += n;
		p += n;
		len -= n;
		if (at + n == 64)
			mix_block(m->state, m->block);
	}
}

void
md5_end(struct md5 *m, unsigned char digest[MD5_LEN])
{
	static const unsigned char padding[64] = {0x80};
	unsigned char bits[8];
	uint64_t length = 8 * m->length;

	put_word(bits, (uint32_t)length);
	put_word(bits + 4, (uint32_t)(length >> 32));
	md5_add(m, padding, 1 + (119 - m->length % 64) % 64);
	md5_add(m, bits, sizeof bits);
	for (int i = 0; i < 4; i++)
		put_word(digest + 4 * (size_t)i, m->state[i]);
}
