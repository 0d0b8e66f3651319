/*
 * Text that ends with a NUL, as an operator types it and as a directory shows it: names of queues
 * and of messages, numbers with a unit, and the settings of a command line.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "../config.h"
#include "../message.h"
#include "../number.h"
#include "../queue_name.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
report(void *arg, unsigned line, const char *detail)
{
	assert(line == 0);
	for (const char *p = detail; *p != '\0'; p++)
		assert(*p >= ' ' && *p <= '~');
	++*(unsigned *)arg;
}

static void
check_queue_name(const char *text)
{
	char name[QUEUE_NAME_MAX + 1], dir[QUEUE_NAME_MAX + 1], again[QUEUE_NAME_MAX + 1];
	int len = queue_name_decode(text, name);

	/* What is decoded is encoded to the same. */
	if (len >= 0)
		assert(queue_name_encode(name, (size_t)len, dir) == 0 && strcmp(dir, text) == 0);
	if (queue_name_read(text, dir) == -1)
		return;
	/* A file name in the spool that nothing hides, and of one queue. */
	assert(dir[0] != '\0' && dir[0] != '.' && strchr(dir, '/') == NULL);
	assert(strlen(dir) <= QUEUE_NAME_MAX && queue_name_decode(dir, name) > 0);
	assert(queue_name_read(dir, again) == 0 && strcmp(dir, again) == 0);
}

static void
check_numbers(const char *text)
{
	char name[MESSAGE_NAME_LEN + 1];
	uint64_t n;

	if (message_name_parse(text, &n) == 0) {
		message_name(name, n);
		assert(n > 0 && n < MESSAGE_NUMBER_MAX && strcmp(name, text) == 0);
	}
	if (number_parse(text, strlen(text), UINT64_MAX, &n) == 0)
		assert(strtoull(text, NULL, 10) == n);
	if (number_parse_size(text, 1 << 20, &n) == 0)
		assert(n <= 1 << 20);
	for (int kind = CONFIG_COUNT; kind <= CONFIG_QUEUE_NAME; kind++)
		if (config_value((enum config_kind)kind, text, &n) == 0)
			assert(n <= UINT64_C(9999999999999999));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1); /* of its own length, so that a byte too far is found */
	unsigned reported = 0;

	memcpy(text, data, size);
	text[size] = '\0';
	check_queue_name(text);
	check_numbers(text);
	assert(config_check(CONFIG_QUEUE, &text, 1, report, &reported) == reported);
	free(text);
	return 0;
}
