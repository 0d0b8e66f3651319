/* Every line that a client can send: proto_parse and what takes its keys apart. */
#include "../proto.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "../queue_name.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
within(struct word w, const char *line, size_t len)
{
	assert(w.s == NULL || (w.s >= line && w.s + w.len <= line + len));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char dir[QUEUE_NAME_MAX + 1], name[QUEUE_NAME_MAX + 1], reply[64];
	struct get_options options;
	struct command c;
	struct word queue;
	int64_t delay;
	char *line = malloc(size + 1); /* of its own length, so that a byte too far is found */

	if (size == 0 || memchr(data, '\n', size) != NULL) {
		free(line);
		return 0;
	}
	memcpy(line, data, size);
	proto_too_long(line, size);
	assert(proto_refuse_binary(line, size, reply) <= sizeof reply);
	proto_parse(line, size, &c);
	assert(c.end == line + size);
	within(c.key, line, size);
	for (struct word w = c.key; w.s != NULL; proto_next_word(c.end, &w)) {
		within(w, line, size);
		assert(w.len > 0 && memchr(w.s, ' ', w.len) == NULL);
		if (proto_get_options(w, &queue, &options) == NULL) {
			within(queue, line, size);
			assert(queue.len > 0 && queue.len <= PROTO_KEY_MAX);
		}
		if (proto_set_options(w, &queue, &delay) == NULL)
			assert(delay >= -1 && delay <= PROTO_DELAY_MAX);
		if (proto_key_error(w, dir) == NULL) {
			/* A file name in the spool, and nothing else; and the way back. */
			assert(dir[0] != '\0' && dir[0] != '.' && strchr(dir, '/') == NULL);
			assert((size_t)queue_name_decode(dir, name) == w.len &&
			       memcmp(name, w.s, w.len) == 0);
		}
	}
	free(line);
	return 0;
}
