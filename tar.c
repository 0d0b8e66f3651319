/*
 * tar.c: the members of a tar archive, as POSIX has them.
 *
 * A member is a block of 512 bytes that says what it is, and its content in whole blocks. Where a
 * name has no room in that block, or the size, a member of type x comes before, the content of
 * which are lines "<length> path=<name>\n" that count instead. Of what tar knows nothing else is
 * needed here, and what else comes is refused by those who read.
 */
#include "tar.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "number.h"

#define LINES_MAX ((size_t)2 * TAR_NAME_MAX)
#define PAX_MAX 8192 /* bytes of such lines */
#define SIZE_MAX_OCTAL UINT64_C(077777777777)

static const struct part {
	size_t at, len;
} name_at = {0, 100}, mode_at = {100, 8}, uid_at = {108, 8}, gid_at = {116, 8}, size_at = {124, 12},
  mtime_at = {136, 12}, sum_at = {148, 8}, magic_at = {257, 8}, prefix_at = {345, 155};
#define TYPE_AT 156

static const char magic[8] = {'u', 's', 't', 'a', 'r', '\0', '0', '0'};

static void
put_octal(char *block, struct part p, uint64_t value)
{
	block[p.at + p.len - 1] = '\0';
	for (size_t i = p.len - 1; i-- > 0; value >>= 3)
		block[p.at + i] = (char)('0' + (value & 7));
}

unsigned
tar_sum(const char *block)
{
	unsigned s = 0;

	for (size_t i = 0; i < TAR_BLOCK; i++)
		s += i >= sum_at.at && i < sum_at.at + sum_at.len ? ' ' : (unsigned char)block[i];
	return s;
}

static void
write_block(char *block, char type, const char *name, size_t prefix, uint64_t size, int64_t mtime)
{
	memset(block, 0, TAR_BLOCK);
	memcpy(block + prefix_at.at, name, prefix);
	name += prefix + (prefix > 0);
	memcpy(block + name_at.at, name, strnlen(name, name_at.len));
	put_octal(block, mode_at, type == '5' ? 0700 : 0600);
	put_octal(block, uid_at, 0);
	put_octal(block, gid_at, 0);
	put_octal(block, size_at, size > SIZE_MAX_OCTAL ? 0 : size);
	put_octal(block, mtime_at, mtime < 0 ? 0 : (uint64_t)mtime);
	memcpy(block + magic_at.at, magic, sizeof magic);
	block[TYPE_AT] = type;
	put_octal(block, (struct part){sum_at.at, 7}, tar_sum(block));
	block[sum_at.at + 7] = ' ';
}

/* Where the name can be cut so that both parts have room: the length of the first, 0 if it need not
 * be cut; -1 if there is no such place. */
static int
cut_name(const char *name)
{
	size_t len = strlen(name);

	if (len <= name_at.len)
		return 0;
	for (size_t i = len - name_at.len - 1; i <= prefix_at.len && i < len - 1; i++)
		if (i > 0 && name[i] == '/')
			return (int)i;
	return -1;
}

/* The length of such a line counts itself. */
static size_t
add_line(char *to, size_t at, const char *key, const char *value)
{
	size_t len = strlen(key) + strlen(value) + 3, digits = 1;

	while (snprintf(NULL, 0, "%zu", len + digits) > (int)digits)
		digits++;
	return at +
	       (size_t)snprintf(to + at, LINES_MAX - at, "%zu %s=%s\n", len + digits, key, value);
}

size_t
tar_padding(uint64_t size)
{
	return (size_t)((TAR_BLOCK - size % TAR_BLOCK) % TAR_BLOCK);
}

size_t
tar_write(char *buf, const struct tar_member *m)
{
	int prefix = cut_name(m->name);
	char lines[LINES_MAX], size[24];
	size_t n = 0, at = 0;

	if (prefix == -1)
		n = add_line(lines, n, "path", m->name);
	if (m->size > SIZE_MAX_OCTAL) {
		snprintf(size, sizeof size, "%" PRIu64, m->size);
		n = add_line(lines, n, "size", size);
	}
	if (n > 0) {
		write_block(buf, 'x', "pax", 0, n, m->mtime);
		memset(buf + TAR_BLOCK, 0, n + tar_padding(n));
		memcpy(buf + TAR_BLOCK, lines, n);
		at = TAR_BLOCK + n + tar_padding(n);
	}
	write_block(buf + at, m->type, m->name, prefix == -1 ? 0 : (size_t)prefix, m->size,
	            m->mtime);
	return at + TAR_BLOCK;
}

/* Digits, between spaces and up to a NUL or a space. */
static bool
get_octal(const char *block, struct part p, uint64_t *value)
{
	size_t i = p.at, end = p.at + p.len;

	*value = 0;
	while (i < end && block[i] == ' ')
		i++;
	size_t first = i;
	for (; i < end && block[i] >= '0' && block[i] <= '7'; i++)
		*value = *value << 3 | (uint64_t)(block[i] - '0');
	return i > first && (i == end || block[i] == ' ' || block[i] == '\0');
}

static bool
is_zero(const char *block)
{
	for (size_t i = 0; i < TAR_BLOCK; i++)
		if (block[i] != 0)
			return false;
	return true;
}

/* What a pax header changes of the member behind it. */
struct pax {
	char path[TAR_NAME_MAX];
	uint64_t size;
	bool has_size;
};

static bool
read_line(const char *key, size_t key_len, const char *value, size_t len, struct pax *p)
{
	if (key_len == 4 && memcmp(key, "path", 4) == 0) {
		if (len >= sizeof p->path || memchr(value, '\0', len) != NULL)
			return false;
		memcpy(p->path, value, len);
		p->path[len] = '\0';
	} else if (key_len == 4 && memcmp(key, "size", 4) == 0) {
		p->has_size = true;
		return number_parse(value, len, INT64_MAX, &p->size) == 0;
	}
	return true; /* of times and owners nothing is wanted */
}

static bool
read_lines(const char *s, size_t n, struct pax *p)
{
	while (n > 0) {
		const char *space = memchr(s, ' ', n);
		uint64_t len;
		if (space == NULL || number_parse(s, (size_t)(space - s), n, &len) == -1 ||
		    len < (size_t)(space - s) + 3 || s[len - 1] != '\n')
			return false;
		const char *key = space + 1, *end = s + len - 1;
		const char *equals = memchr(key, '=', (size_t)(end - key));
		if (equals == NULL || !read_line(key, (size_t)(equals - key), equals + 1,
		                                 (size_t)(end - equals - 1), p))
			return false;
		s += len;
		n -= (size_t)len;
	}
	return true;
}

/* Read the lines of a pax header of that size. As tar_read. */
static int
read_pax(tar_reader *read, void *arg, uint64_t size, struct pax *p, const char **why)
{
	char lines[PAX_MAX];

	*why = "its pax header is not understood";
	if (size == 0 || size > sizeof lines)
		return 1;
	if (read(arg, lines, (size_t)size + tar_padding(size)) == -1)
		return -1;
	return read_lines(lines, (size_t)size, p) ? 0 : 1;
}

static void
join_name(const char *block, char *name)
{
	size_t n = strnlen(block + prefix_at.at, prefix_at.len);
	size_t len = strnlen(block + name_at.at, name_at.len);

	memcpy(name, block + prefix_at.at, n);
	if (n > 0)
		name[n++] = '/';
	memcpy(name + n, block + name_at.at, len);
	name[n + len] = '\0';
}

int
tar_read(tar_reader *read, void *arg, struct tar_member *m, const char **why)
{
	char block[TAR_BLOCK];
	struct pax pax = {.path = ""};
	uint64_t wanted;
	bool had_pax = false;

	for (;;) {
		if (read(arg, block, sizeof block) == -1)
			return -1;
		if (is_zero(block) && !had_pax) {
			m->type = '\0';
			return 0;
		}
		*why = "it is no tar archive";
		if (!get_octal(block, sum_at, &wanted) || wanted != tar_sum(block))
			return 1;
		*why = "its size is not a number";
		if (!get_octal(block, size_at, &m->size))
			return 1;
		if (block[TYPE_AT] != 'x')
			break;
		int r = had_pax ? 1 : read_pax(read, arg, m->size, &pax, why);
		if (r != 0)
			return r;
		had_pax = true;
	}
	m->type = block[TYPE_AT] == '\0' ? '0' : block[TYPE_AT];
	if (memcmp(block + magic_at.at, magic, 5) != 0)
		block[prefix_at.at] = '\0'; /* an older tar has no such field */
	join_name(block, m->name);
	if (pax.path[0] != '\0')
		strcpy(m->name, pax.path);
	if (pax.has_size)
		m->size = pax.size;
	return 0;
}
