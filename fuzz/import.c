/*
 * A stream of mqctl import: the whole reader on a spool of its own, which must be whole afterwards, and
 * nothing be anywhere else. A mutation gets the checksums of tar right again, else it would never
 * come further than to these.
 */
#include <assert.h>
#include <ftw.h>
#include <setjmp.h>
#include <sys/mman.h>

#include "../transfer.c"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed);

static jmp_buf over;
static char base[64];

/* What mqctl has besides. */
void
die(int code, const char *format, ...)
{
	assert(code == EXIT_NOTHING || code == EXIT_SYSTEM);
	(void)format;
	longjmp(over, 1);
}

void
die_system(const char *what)
{
	(void)what;
	longjmp(over, 1);
}

void
make_printable(char *text)
{
	(void)text;
}

char **
queues_arg(struct spool *sp, int argc, char *argv[])
{
	(void)sp, (void)argc, (void)argv;
	return NULL;
}

int
drain(struct spool *sp, const char *address, const struct drain_options *o, int argc, char *argv[])
{
	(void)sp, (void)address, (void)o, (void)argc, (void)argv;
	return 0;
}

void
transfer_mind_signals(void)
{
}

bool
transfer_interrupted(void)
{
	return false;
}

static void
report(const char *what, const char *path, const char *detail)
{
	if (strcmp(what, "misconfigured") == 0) /* settings are taken over as they are */
		return;
	fprintf(stderr, "%s %s: %s\n", what, path, detail);
	abort();
}

static int
remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type;
	return ftw->level == 0 ? 0 : remove(path);
}

static void
clean(void)
{
	assert(nftw(base, remove_entry, 16, FTW_DEPTH | FTW_PHYS) == 0);
}

static void
end(void)
{
	rmdir(base);
}

static void
begin(void)
{
	snprintf(base, sizeof base, "/dev/shm/fuzz-import.%ld", (long)getpid());
	assert(mkdir(base, 0700) == 0);
	assert(freopen("/dev/null", "w", stdout) != NULL);
	atexit(end);
}

size_t
LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed)
{
	(void)seed;
	size = LLVMFuzzerMutate(data, size, max);
	for (size_t at = 0; at + TAR_BLOCK <= size; at += TAR_BLOCK) {
		char *block = (char *)data + at;
		if (memcmp(block + 257, "ustar", 5) == 0)
			snprintf(block + 148, 8, "%06o", tar_sum(block));
	}
	return size;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct spool *sp;

	if (base[0] == '\0')
		begin();
	int fd = memfd_create("stream", MFD_CLOEXEC);
	assert(fd != -1 && write(fd, data, size) == (ssize_t)size);
	/* Twice, for what an import leaves is what the next begins with. */
	for (int i = 0; i < 2; i++) {
		assert(lseek(fd, 0, SEEK_SET) == 0 && dup2(fd, STDIN_FILENO) == STDIN_FILENO);
		sp = spool_at(base, SPOOL_SYNC_NONE);
		assert(spool_dirfd(sp) != -1);
		if (setjmp(over) == 0)
			import_stream(sp);
		assert(spool_check(sp, false, report) >= 0);
		spool_close(sp);
		for (int left = fd + 1; left < fd + 24; left++) /* what an exit closes */
			close(left);
	}
	close(fd);
	clean();
	return 0;
}
