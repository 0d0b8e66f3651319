/*
 * crc32c.c: CRC-32C, with the CPU's instruction where there is one and in portable C.
 *
 * The instruction takes eight bytes a cycle, but each must wait three cycles for the one
 * before. So long pieces are summed as three streams side by side, and these joined:
 * behind a stream that follows it a checksum is what it was times x^(8 * STREAM), modulo
 * the polynomial.
 *
 * To ask the CPU for the instruction traps in a virtual machine, which is a good part of what
 * a process costs that serves one message. So the first bytes of a process are summed four bits
 * at a time, from a table of one cache line; it asks when that has cost as much as asking.
 *
 * In portable C, table[0] is the classic byte-wise table; table[k][b] is the effect of
 * byte b followed by k zero bytes, so that eight look-ups replace eight dependent steps
 * ("slicing by eight", Kounavis and Berry, 2005). The tables are made at the first call:
 * 8 KiB that would otherwise be read from the binary by each of a thousand short-lived
 * processes.
 *
 * Within this file a checksum is kept as the register holds it, not inverted.
 */
#include "crc32c.h"

#include <stdbool.h>
#include <string.h>

#define POLYNOMIAL 0x82f63b78u /* bit 31 is x^0 */

static uint32_t table[8][256];

static void
make_tables(void)
{
	for (uint32_t b = 0; b < 256; b++) {
		uint32_t c = b;
		for (int bit = 0; bit < 8; bit++)
			c = (c >> 1) ^ ((c & 1) != 0 ? POLYNOMIAL : 0);
		table[0][b] = c;
	}
	for (uint32_t b = 0; b < 256; b++)
		for (int k = 1; k < 8; k++)
			table[k][b] = (table[k - 1][b] >> 8) ^ table[0][table[k - 1][b] & 0xff];
}

static uint32_t
little_endian32(const unsigned char *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint32_t
add_portably(uint32_t crc, const unsigned char *p, size_t len)
{
	if (table[0][1] == 0)
		make_tables();
	for (; len >= 8; len -= 8, p += 8) {
		uint32_t lo = crc ^ little_endian32(p), hi = little_endian32(p + 4);
		crc = table[7][lo & 0xff] ^ table[6][lo >> 8 & 0xff] ^ table[5][lo >> 16 & 0xff] ^
		      table[4][lo >> 24] ^ table[3][hi & 0xff] ^ table[2][hi >> 8 & 0xff] ^
		      table[1][hi >> 16 & 0xff] ^ table[0][hi >> 24];
	}
	for (; len > 0; len--, p++)
		crc = (crc >> 8) ^ table[0][(crc ^ *p) & 0xff];
	return crc;
}

#if !defined(MQ_PORTABLE) && defined(__GNUC__) && defined(__x86_64__)
#include <cpuid.h>
#define HAS_INSTRUCTION

static bool
cpu_has_instruction(void)
{
	unsigned a, b, c, d;

	/* Not __builtin_cpu_supports: it asks for everything at the start of every process, and
	 * each question is a trap in a virtual machine. */
	__cpuid(1, a, b, c, d);
	return (c & bit_SSE4_2) != 0;
}

static inline uint64_t
add_word(uint64_t crc, uint64_t word)
{
	__asm__("crc32q %1, %0" : "+r"(crc) : "r"(word));
	return crc;
}

static inline uint64_t
add_byte(uint64_t crc, unsigned char byte)
{
	__asm__("crc32b %1, %0" : "+r"(crc) : "r"(byte));
	return crc;
}
#elif !defined(MQ_PORTABLE) && defined(__linux__) && defined(__AARCH64EL__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#define HAS_INSTRUCTION

static bool
cpu_has_instruction(void)
{
	return (getauxval(AT_HWCAP) & HWCAP_CRC32) != 0;
}

static inline uint64_t
add_word(uint64_t crc, uint64_t word)
{
	__asm__(".arch_extension crc\n\tcrc32cx %w0, %w0, %x1" : "+r"(crc) : "r"(word));
	return crc;
}

static inline uint64_t
add_byte(uint64_t crc, unsigned char byte)
{
	__asm__(".arch_extension crc\n\tcrc32cb %w0, %w0, %w1" : "+r"(crc) : "r"(byte));
	return crc;
}
#endif

#ifdef HAS_INSTRUCTION
#define STREAM ((size_t)4096) /* bytes; to join is 200 cycles, to sum three of these 1,536 */
#define BEHIND_IT 0x35d73a62u /* x^(8 * STREAM) modulo the polynomial */

static inline uint64_t
word_at(const unsigned char *p)
{
	uint64_t word;

	memcpy(&word, p, sizeof word);
	return word;
}

/* The product of two polynomials, modulo ours. */
static uint32_t
multiply(uint32_t a, uint32_t b)
{
	uint32_t product = 0;

	for (; a != 0; a <<= 1) {
		product ^= b & (0 - (a >> 31));
		b = (b >> 1) ^ (POLYNOMIAL & (0 - (b & 1)));
	}
	return product;
}

static uint32_t
add_with_instruction(uint32_t crc, const unsigned char *p, size_t len)
{
	uint64_t first = crc;

	for (; len >= 3 * STREAM; len -= 3 * STREAM, p += 3 * STREAM) {
		uint64_t second = 0, third = 0;
		for (size_t i = 0; i < STREAM; i += 8) {
			first = add_word(first, word_at(p + i));
			second = add_word(second, word_at(p + STREAM + i));
			third = add_word(third, word_at(p + 2 * STREAM + i));
		}
		second ^= multiply(BEHIND_IT, (uint32_t)first);
		first = third ^ multiply(BEHIND_IT, (uint32_t)second);
	}
	for (; len >= 8; len -= 8, p += 8)
		first = add_word(first, word_at(p));
	for (; len > 0; len--, p++)
		first = add_byte(first, *p);
	return (uint32_t)first;
}
#endif

#define BY_NIBBLES ((size_t)4096) /* bytes; 5 ns each, where to ask is some 20 us */

static uint32_t
add_by_nibbles(uint32_t crc, const unsigned char *p, size_t len)
{
	static const uint32_t of_nibble[16] = {
	    0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3,
	    0x61c69362, 0x7198540d, 0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9,
	    0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
	};

	for (; len > 0; len--, p++) {
		crc ^= *p;
		crc = (crc >> 4) ^ of_nibble[crc & 15];
		crc = (crc >> 4) ^ of_nibble[crc & 15];
	}
	return crc;
}

static uint32_t choose(uint32_t crc, const unsigned char *p, size_t len);
static uint32_t (*add)(uint32_t crc, const unsigned char *p, size_t len) = choose;

static uint32_t
choose(uint32_t crc, const unsigned char *p, size_t len)
{
	static size_t left = BY_NIBBLES;

	if (len <= left) {
		left -= len;
		return add_by_nibbles(crc, p, len);
	}
	add = add_portably;
#ifdef HAS_INSTRUCTION
	if (cpu_has_instruction())
		add = add_with_instruction;
#endif
	return add(crc, p, len);
}

uint32_t
crc32c(uint32_t crc, const void *data, size_t len)
{
	return ~add(~crc, data, len);
}
