/*
 * A log that anybody may have written, replayed after a reboot over a spool with two messages. The
 * header is right, so that it is read at all; the input says what records follow, and where one is
 * spoiled. Whatever it is: the spool can be used afterwards, and every message that comes out of it
 * is whole. Then `.sync` is spoiled, too, while the log is in use, and no message is lost by that.
 */
#include "../journal.c"

#include <assert.h>
#include <ftw.h>
#include <stdio.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char dir[] = "/dev/shm/mqd-fuzz.XXXXXX";

static int
remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type;
	return ftw->level == 0 ? 0 : remove(path);
}

static void
push(struct spool *sp, const char *body)
{
	struct push p;

	push_begin(&p, sp, "q");
	push_body(&p, body, strlen(body));
	assert(push_commit(&p, 7) == 0);
}

/* What a process of this program would have appended; or nearly so, as the input says. */
static size_t
add_record(char *ring, size_t at, const uint8_t *in, uint64_t ino)
{
	static const char text[] = "the body of a message that is in the log alone";
	struct record r = {.id = 7,
	                   .at = at,
	                   .ino = in[0] & 1 ? ino : in[1],
	                   .number = in[2] % 8u,
	                   .type = in[0] >> 1 & 7};
	struct message m = {.number = r.number, .length = in[3] % sizeof text, .flags = in[1]};
	char *message = ring + at + sizeof r;

	if (r.type == RECORD_PUSH && m.number > 0) {
		message_write_header(message, &m, crc32c(0, text, m.length));
		memcpy(message + MESSAGE_HEADER_LEN, text, m.length);
		r.length = (uint32_t)(MESSAGE_HEADER_LEN + m.length);
	}
	memcpy(ring + at, &r, sizeof r);
	r.crc = crc32c(0, ring + at, sizeof r + r.length);
	memcpy(ring + at, &r, sizeof r);
	if (in[0] & 128) /* spoiled, with a checksum that is right or not */
		ring[at + in[4] % (sizeof r + r.length)] ^= (char)in[5];
	return record_size(r.length);
}

/* Whatever the input says, but the log's id, without which it is not looked at. */
static void
spoil_ends(struct spool *sp, const uint8_t *data, size_t size)
{
	int fd = openat(sp->rootfd, ".sync", O_RDWR);
	size_t at = offsetof(struct shared_ends, tail), room = sizeof(struct shared_ends) - at;

	if (fd == -1)
		return;
	assert(pwrite(fd, data, size < room ? size : room, (off_t)at) > 0);
	close(fd);
}

static void
take(struct spool *sp)
{
	struct claim c;

	assert(spool_claim(sp, "q", CLAIM_PLAINLY, &c) == CLAIM_GOT && claims_finish(&c, 1) == 0);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char ring[1 << 16];
	struct spool *sp;
	struct claim c;
	struct stat root, st;
	struct header h = {.id = 7};
	enum claim_result r;

	if (strcmp(dir + strlen(dir) - 6, "XXXXXX") == 0)
		assert(mkdtemp(dir) != NULL);
	nftw(dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
	sp = spool_at(dir, SPOOL_SYNC_NONE);
	push(sp, "one");
	push(sp, "two");
	spool_close(sp);

	char path[sizeof dir + 16];
	snprintf(path, sizeof path, "%s/q", dir);
	assert(stat(dir, &root) == 0 && stat(path, &st) == 0);
	uint64_t ino = st.st_ino;
	snprintf(path, sizeof path, "%s/.journal", dir);
	int fd = open(path, O_RDWR | O_CREAT, 0600);
	assert(fd != -1 && ftruncate(fd, (off_t)FILE_SIZE) == 0 && fstat(fd, &st) == 0);
	size_t at = 0;
	memset(ring, 0, sizeof ring);
	for (size_t i = 0; i + 6 <= size && at < sizeof ring - 1024; i += 6)
		at += add_record(ring, at, data + i, ino);
	memcpy(h.magic, magic, sizeof magic);
	memset(h.boot, '0', sizeof h.boot);
	h.root_ino = root.st_ino;
	h.ino = st.st_ino;
	h.crc = header_crc(&h);
	assert(write_at(fd, &h, sizeof h, 0) == 0 && write_at(fd, ring, at, HEADER_SIZE) == 0);
	close(fd);
	/* As the boot before this one left it. */
	snprintf(path, sizeof path, "%s/q/.state", dir);
	if (size > 0 && data[size - 1] & 1)
		unlink(path);

	sp = spool_at(dir, SPOOL_SYNC_FULL);
	assert(spool_dirfd(sp) != -1);
	for (int n = 0; (r = spool_claim(sp, "q", CLAIM_PLAINLY, &c)) != CLAIM_EMPTY; n++) {
		assert(r != CLAIM_ERROR && n < 64);
		if (r == CLAIM_GOT)
			assert(claims_finish(&c, 1) == 0);
	}
	push(sp, "three");
	push(sp, "four"); /* through the log, which the first may have made */
	if (size > 0)
		spoil_ends(sp, data, size);
	push(sp, "five");
	take(sp);
	spool_settle(sp);
	spool_close(sp);
	sp = spool_at(dir, SPOOL_SYNC_FULL);
	take(sp);
	take(sp);
	spool_close(sp);
	return 0;
}
