/*
 * The kernel's tables of locks and sockets, as holder.c reads them. A kernel can be trusted; but the
 * paths of Unix sockets in them are anybody's, and the formats differ from version to version.
 */
#include "../holder.c"

#include <assert.h>
#include <sys/mman.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
write_all(int fd, const uint8_t *data, size_t size)
{
	assert(ftruncate(fd, 0) == 0 && pwrite(fd, data, size, 0) == (ssize_t)size);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static int fd = -1;
	struct holder holders[2] = {{.dev = makedev(0xfe, 0), .ino = 4711},
	                            {.dev = makedev(0, 0x2a), .ino = 1}};
	struct search s = {.holders = holders, .n = 2};
	char path[32];

	if (size < 1)
		return 0;
	if (fd == -1)
		fd = memfd_create("table", 0);
	write_all(fd, data + 1, size - 1);
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	switch (data[0] % 3) {
	case 0:
		each_line(path, 7, &s, see_lock);
		break;
	case 1:
		each_line(path, 11, &s, see_tcp);
		break;
	default:
		each_line(path, 8, &s, see_unix);
		break;
	}
	for (size_t i = 0; i < s.n; i++)
		assert(holders[i].pid >= 0 && holders[i].peer[0] == '\0');
	assert(s.nconnections <= size);
	for (size_t i = 0; i < s.nconnections; i++) {
		const char *peer = s.connections[i].peer;
		assert(s.connections[i].inode > 0 && peer[0] != '\0');
		assert(strnlen(peer, HOLDER_PEER_LEN) < HOLDER_PEER_LEN);
		for (; *peer != '\0'; peer++)
			assert(*peer > ' ' && *peer <= '~');
	}
	free(s.connections);
	return 0;
}
