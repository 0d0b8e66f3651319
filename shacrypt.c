/*
 * shacrypt.c: the hash of a password, as it stands in /etc/shadow behind $6$.
 *
 * It is what crypt(3) makes; but not every libc has that (Debian's musl has none, and mqd is linked
 * with it), and where there is one it may not know the method. Specifications: FIPS 180-4 for SHA-512,
 * and Ulrich Drepper's "Unix crypt using SHA-256 and SHA-512" for what is done with it: digests of the
 * password, the salt and the digest before, in an order that differs from round to round, as many
 * rounds as it shall cost.
 */
#include "shacrypt.h"

#include <stdint.h>
#include <string.h>

#define BLOCK 128
#define DIGEST 64

struct sha512 {
	uint64_t state[8], len; /* bytes so far */
	unsigned char block[BLOCK];
};

/* The first 64 bits of the fractions of the cube roots of the first 80 primes. */
static const uint64_t constants[80] = {
    0x428a2f98d728ae22, 0x7137449123ef65cd, 0xb5c0fbcfec4d3b2f, 0xe9b5dba58189dbbc,
    0x3956c25bf348b538, 0x59f111f1b605d019, 0x923f82a4af194f9b, 0xab1c5ed5da6d8118,
    0xd807aa98a3030242, 0x12835b0145706fbe, 0x243185be4ee4b28c, 0x550c7dc3d5ffb4e2,
    0x72be5d74f27b896f, 0x80deb1fe3b1696b1, 0x9bdc06a725c71235, 0xc19bf174cf692694,
    0xe49b69c19ef14ad2, 0xefbe4786384f25e3, 0x0fc19dc68b8cd5b5, 0x240ca1cc77ac9c65,
    0x2de92c6f592b0275, 0x4a7484aa6ea6e483, 0x5cb0a9dcbd41fbd4, 0x76f988da831153b5,
    0x983e5152ee66dfab, 0xa831c66d2db43210, 0xb00327c898fb213f, 0xbf597fc7beef0ee4,
    0xc6e00bf33da88fc2, 0xd5a79147930aa725, 0x06ca6351e003826f, 0x142929670a0e6e70,
    0x27b70a8546d22ffc, 0x2e1b21385c26c926, 0x4d2c6dfc5ac42aed, 0x53380d139d95b3df,
    0x650a73548baf63de, 0x766a0abb3c77b2a8, 0x81c2c92e47edaee6, 0x92722c851482353b,
    0xa2bfe8a14cf10364, 0xa81a664bbc423001, 0xc24b8b70d0f89791, 0xc76c51a30654be30,
    0xd192e819d6ef5218, 0xd69906245565a910, 0xf40e35855771202a, 0x106aa07032bbd1b8,
    0x19a4c116b8d2d0c8, 0x1e376c085141ab53, 0x2748774cdf8eeb99, 0x34b0bcb5e19b48a8,
    0x391c0cb3c5c95a63, 0x4ed8aa4ae3418acb, 0x5b9cca4f7763e373, 0x682e6ff3d6b2b8a3,
    0x748f82ee5defb2fc, 0x78a5636f43172f60, 0x84c87814a1f0ab72, 0x8cc702081a6439ec,
    0x90befffa23631e28, 0xa4506cebde82bde9, 0xbef9a3f7b2c67915, 0xc67178f2e372532b,
    0xca273eceea26619c, 0xd186b8c721c0c207, 0xeada7dd6cde0eb1e, 0xf57d4f7fee6ed178,
    0x06f067aa72176fba, 0x0a637dc5a2c898a6, 0x113f9804bef90dae, 0x1b710b35131c471b,
    0x28db77f523047d84, 0x32caab7b40c72493, 0x3c9ebe0a15c9bebc, 0x431d67c49c100d4c,
    0x4cc5d4becb3e42b6, 0x597f299cfc657e2a, 0x5fcb6fab3ad6faec, 0x6c44198c4a475817};

static uint64_t
rotate(uint64_t x, unsigned n)
{
	return x >> n | x << (64 - n);
}

static uint64_t
read_word(const unsigned char *p)
{
	uint64_t x = 0;

	for (int i = 0; i < 8; i++)
		x = x << 8 | p[i];
	return x;
}

static void
write_word(unsigned char *p, uint64_t x)
{
	for (int i = 8; i-- > 0; x >>= 8)
		p[i] = (unsigned char)x;
}

/* FIPS 180-4, 6.4.2, as are the names: one turn of its third step, in which *d and *h change. What is
 * named so moves on by one with each turn, and is back where it was after eight. */
static inline void
turn(uint64_t a, uint64_t b, uint64_t c, uint64_t *d, uint64_t e, uint64_t f, uint64_t g,
     uint64_t *h, uint64_t kw)
{
	uint64_t choice = (e & f) ^ (~e & g), majority = (a & b) ^ (a & c) ^ (b & c);
	uint64_t t1 = *h + (rotate(e, 14) ^ rotate(e, 18) ^ rotate(e, 41)) + choice + kw;

	*d += t1;
	*h = t1 + (rotate(a, 28) ^ rotate(a, 34) ^ rotate(a, 39)) + majority;
}

static void
compress(uint64_t state[8], const unsigned char *block)
{
	uint64_t w[80];
	uint64_t a = state[0], b = state[1], c = state[2], d = state[3];
	uint64_t e = state[4], f = state[5], g = state[6], h = state[7];

	for (size_t t = 0; t < 16; t++)
		w[t] = read_word(block + 8 * t);
	for (int t = 16; t < 80; t++) {
		uint64_t x = w[t - 15], y = w[t - 2];
		w[t] = w[t - 16] + (rotate(x, 1) ^ rotate(x, 8) ^ x >> 7) + w[t - 7] +
		       (rotate(y, 19) ^ rotate(y, 61) ^ y >> 6);
	}
	for (int t = 0; t < 80; t += 8) {
		turn(a, b, c, &d, e, f, g, &h, constants[t] + w[t]);
		turn(h, a, b, &c, d, e, f, &g, constants[t + 1] + w[t + 1]);
		turn(g, h, a, &b, c, d, e, &f, constants[t + 2] + w[t + 2]);
		turn(f, g, h, &a, b, c, d, &e, constants[t + 3] + w[t + 3]);
		turn(e, f, g, &h, a, b, c, &d, constants[t + 4] + w[t + 4]);
		turn(d, e, f, &g, h, a, b, &c, constants[t + 5] + w[t + 5]);
		turn(c, d, e, &f, g, h, a, &b, constants[t + 6] + w[t + 6]);
		turn(b, c, d, &e, f, g, h, &a, constants[t + 7] + w[t + 7]);
	}
	const uint64_t s[8] = {a, b, c, d, e, f, g, h};
	for (int i = 0; i < 8; i++)
		state[i] += s[i];
}

static void
begin(struct sha512 *h)
{
	/* Likewise of the square roots of the first eight. */
	static const uint64_t state[8] = {
	    0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
	    0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179};

	memcpy(h->state, state, sizeof state);
	h->len = 0;
}

static void
add(struct sha512 *h, const void *data, size_t len)
{
	const unsigned char *p = data;

	while (len > 0) {
		size_t at = h->len % BLOCK, n = BLOCK - at < len ? BLOCK - at : len;
		memcpy(h->block + at, p, n);
		h->len += n;
		p += n;
		len -= n;
		if (h->len % BLOCK == 0)
			compress(h->state, h->block);
	}
}

static void
end(struct sha512 *h, unsigned char *digest)
{
	static const unsigned char padding[BLOCK] = {0x80};
	unsigned char bits[16] = {0};
	uint64_t used = h->len % BLOCK;

	write_word(bits + 8, h->len * 8);
	add(h, padding, (size_t)((used < 112 ? 112 : 240) - used));
	add(h, bits, sizeof bits);
	for (size_t i = 0; i < 8; i++)
		write_word(digest + 8 * i, h->state[i]);
}

/* The first `len` bytes of a digest that is repeated without end. */
static void
add_repeated(struct sha512 *h, const unsigned char *digest, size_t len)
{
	for (; len > DIGEST; len -= DIGEST)
		add(h, digest, DIGEST);
	add(h, digest, len);
}

/* The digest of something that is repeated so many times. */
static void
digest_repeated(const char *s, size_t len, size_t times, unsigned char *digest)
{
	struct sha512 h;

	begin(&h);
	while (times-- > 0)
		add(&h, s, len);
	end(&h, digest);
}

/* 64 bytes as 86 digits: three bytes give four, the lowest six bits first; which three was decided by
 * turns of three thirds of the digest. */
static void
write_digits(const unsigned char *digest, char *out)
{
	size_t i = 0, j = 21, k = 42;

	for (int group = 0; group < 21; group++) {
		uint32_t bits =
		    (uint32_t)digest[i] << 16 | (uint32_t)digest[j] << 8 | (uint32_t)digest[k];
		for (int n = 0; n < 4; n++, bits >>= 6)
			*out++ = SHACRYPT_DIGITS[bits & 0x3f];
		size_t next = j + 1;
		j = k + 1;
		k = i + 1;
		i = next;
	}
	*out++ = SHACRYPT_DIGITS[digest[63] & 0x3f];
	*out = SHACRYPT_DIGITS[digest[63] >> 6];
}

void
shacrypt(const char *password, size_t len, const char *salt, size_t salt_len, uint64_t rounds,
         char *out)
{
	unsigned char a[DIGEST], of_password[DIGEST], of_salt[DIGEST];
	struct sha512 h;

	begin(&h);
	add(&h, password, len);
	add(&h, salt, salt_len);
	add(&h, password, len);
	end(&h, a);

	begin(&h);
	add(&h, password, len);
	add(&h, salt, salt_len);
	add_repeated(&h, a, len);
	for (size_t bits = len; bits > 0; bits >>= 1)
		if ((bits & 1) != 0)
			add(&h, a, DIGEST);
		else
			add(&h, password, len);
	end(&h, a);

	digest_repeated(password, len, len, of_password);
	digest_repeated(salt, salt_len, 16u + a[0], of_salt);
	for (uint64_t round = 0; round < rounds; round++) {
		begin(&h);
		if (round % 2 == 1)
			add_repeated(&h, of_password, len);
		else
			add(&h, a, DIGEST);
		if (round % 3 != 0)
			add_repeated(&h, of_salt, salt_len);
		if (round % 7 != 0)
			add_repeated(&h, of_password, len);
		if (round % 2 == 1)
			add(&h, a, DIGEST);
		else
			add_repeated(&h, of_password, len);
		end(&h, a);
	}
	write_digits(a, out);
}
