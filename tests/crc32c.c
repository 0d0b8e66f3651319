/*
 * crc32c: each implementation against the published vectors and against each other.
 *
 * Says which there are, one a line, and exits 1 with what was wrong at the first failure.
 */
#include "../crc32c.c"

#include <stdio.h>
#include <stdlib.h>

typedef uint32_t adder(uint32_t crc, const unsigned char *p, size_t len);

static unsigned char data[300000];

/* RFC 3720, B.4, and the check value of the catalogues. */
static const struct vector {
	uint32_t crc;
	size_t len;
	unsigned char bytes[48];
} vectors[] = {
    {0x00000000, 0, {0}},
    {0x8a9136aa, 32, {0}},
    {0x62a8ab43, 32, {255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
                      255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
                      255, 255, 255, 255, 255, 255, 255, 255, 255, 255}},
    {0x46dd794e, 32, {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
                      16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31}},
    {0x113fdb5c, 32, {31, 30, 29, 28, 27, 26, 25, 24, 23, 22, 21, 20, 19, 18, 17, 16,
                      15, 14, 13, 12, 11, 10, 9,  8,  7,  6,  5,  4,  3,  2,  1,  0}},
    {0xd9963a56, 48, {0x01, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,    0, 0, 0, 0,
                      0x14, 0,    0, 0, 0, 0, 4, 0, 0, 0, 0, 0x14, 0, 0, 0, 0x18,
                      0x28, 0,    0, 0, 0, 0, 0, 0, 2, 0, 0, 0,    0, 0, 0, 0}},
    {0xe3069283, 9, "123456789"},
};

static void
fail(const char *name, const char *what, size_t len, uint32_t got, uint32_t want)
{
	printf("%s: %s of %zu bytes: %08x, not %08x\n", name, what, len, got, want);
	exit(1);
}

/* One bit at a time, as the definition has it. */
static uint32_t
add_bitwise(uint32_t crc, const unsigned char *p, size_t len)
{
	for (; len > 0; len--, p++) {
		crc ^= *p;
		for (int bit = 0; bit < 8; bit++)
			crc = (crc >> 1) ^ ((crc & 1) != 0 ? POLYNOMIAL : 0);
	}
	return crc;
}

static void
check(const char *name, adder *one)
{
	for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
		const struct vector *v = &vectors[i];
		uint32_t got = ~one(~0u, v->bytes, v->len);
		if (got != v->crc)
			fail(name, "a vector", v->len, got, v->crc);
	}
	for (size_t len = 0; len < 100; len++)
		for (size_t at = 0; at < 16; at++)
			if (one(1, data + at, len) != add_bitwise(1, data + at, len))
				fail(name, "a short piece", len, one(1, data + at, len),
				     add_bitwise(1, data + at, len));
	/* Random length, alignment, start and split; around the length of three streams too. */
	for (int i = 0; i < 300; i++) {
		size_t at = (size_t)rand() % 64;
		size_t len = i % 3 == 0 ? 12288 - 20 + (size_t)rand() % 40
		                        : (size_t)rand() % (sizeof data - at);
		size_t split = (size_t)rand() % (len + 1);
		uint32_t from = (uint32_t)rand(), want = add_bitwise(from, data + at, len);
		uint32_t got = one(from, data + at, len);
		if (got != want)
			fail(name, "a piece", len, got, want);
		got = one(one(from, data + at, split), data + at + split, len - split);
		if (got != want)
			fail(name, "two pieces", len, got, want);
	}
	printf("%s: good\n", name);
}

static uint32_t
add_publicly(uint32_t crc, const unsigned char *p, size_t len)
{
	return ~crc32c(~crc, p, len);
}

int
main(void)
{
	for (size_t i = 0; i < sizeof data; i++)
		data[i] = (unsigned char)(rand() >> 7);
	check("nibbles", add_by_nibbles);
	/* The first call of all must not have to choose, and the last must have. */
	uint32_t first = crc32c(0, data, 100);
	if (add != choose || first != ~add_bitwise(~0u, data, 100))
		fail("crc32c", "the first call", 100, first, ~add_bitwise(~0u, data, 100));
	check("crc32c", add_publicly);
	check("portable", add_portably);
#ifdef HAS_INSTRUCTION
	if (cpu_has_instruction())
		check("instruction", add_with_instruction);
	printf("chosen: %s\n", add == add_with_instruction ? "instruction" : "portable");
#else
	printf("chosen: portable\n");
#endif
	return 0;
}
