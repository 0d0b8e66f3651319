/* A `.config`, as an operator, or whoever may write in the spool, leaves it; and changes of it. */
#include <assert.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int dir = -1;
static unsigned reported;

static void
report(void *arg, unsigned line, const char *detail)
{
	(void)arg, (void)line;
	reported++;
	for (const char *p = detail; *p != '\0'; p++)
		assert(*p >= ' ' && *p <= '~');
}

static void
store(const uint8_t *data, size_t size)
{
	int fd = openat(dir, ".config", O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert(fd != -1 && write(fd, data, size) == (ssize_t)size);
	close(fd);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const keys[] = {"max_items", "discard_old", "delay", "dead_letter"};
	char path[] = "/dev/shm/mqd-fuzz.XXXXXX", setting[64], text[CONFIG_VALUE_LEN];
	char *settings[] = {setting};
	struct config_file f = {0};
	struct config c;

	if (dir == -1)
		dir = open(mkdtemp(path), O_RDONLY | O_DIRECTORY);
	if (size < 1)
		return 0;
	store(data + 1, size - 1);
	reported = 0;
	unsigned mistakes = config_look(&f, dir, CONFIG_QUEUE, report, NULL);
	assert(mistakes == reported);
	config_merge(&c, &f, &f);
	for (unsigned k = 0; k < CONFIG_KEYS; k++)
		config_show(&c, k, text);
	/* A file that is right stays right when a key of it is set, or taken out, and says so. */
	strcpy(setting, keys[data[0] % 4]);
	strcat(setting, data[0] & 4        ? "="
	                : data[0] % 4 == 1 ? "=yes"
	                : data[0] % 4 == 2 ? "=7s"
	                                   : "=7");
	int r = config_edit(dir, CONFIG_QUEUE, settings, 1, report, NULL);
	struct config_file after = {0};
	if (mistakes == 0 && size < 60000) {
		assert(r == 0);
		assert(config_look(&after, dir, CONFIG_QUEUE, report, NULL) == 0);
	}
	if (r == 0 && data[0] % 4 == 0 && !(data[0] & 4)) {
		config_look(&after, dir, CONFIG_QUEUE, report, NULL);
		assert(after.values.max_items == 7);
	}
	return 0;
}
