/* The header line of a message, which anybody may have written into the spool. */
#include "../message.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char line[MESSAGE_HEADER_LEN], again[MESSAGE_HEADER_LEN], name[MESSAGE_NAME_LEN + 1];
	struct message m;
	uint64_t number;
	uint32_t crc, body_crc;

	if (size < sizeof line)
		return 0;
	memcpy(line, data, sizeof line);
	message_is_spent(line);
	if (message_read_header(line, &m, &crc) == -1) {
		assert(!message_add_try(line) && !message_renumber(line, 1));
		assert(memcmp(line, data, sizeof line) == 0);
		return 0;
	}
	/* What can be read is what would be written, byte for byte, its checksum apart. */
	message_write_header(again, &m, 0);
	assert(memcmp(line, again, sizeof line - 9) == 0);
	assert(message_same(line, line));
	if (size >= 2 * sizeof line)
		message_same(line, (const char *)data + sizeof line);
	if (m.number > 0 && m.number < MESSAGE_NUMBER_MAX) {
		message_name(name, m.number);
		assert(message_name_parse(name, &number) == 0 && number == m.number);
	}
	/* Whatever the body's checksum is, a changed header is right if it was before. */
	memcpy(&body_crc, data, sizeof body_crc);
	message_write_header(line, &m, body_crc);
	assert(message_renumber(line, 4711) && message_read_header(line, &m, &crc) == 0);
	assert(m.number == 4711 && message_crc(line, body_crc) == crc);
	if (message_add_try(line)) {
		uint32_t tries = m.tries;
		assert(message_read_header(line, &m, &crc) == 0 && m.tries == tries + 1);
		assert(message_crc(line, body_crc) == crc);
	}
	return 0;
}
