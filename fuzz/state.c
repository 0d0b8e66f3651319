/*
 * `.state`, which anybody may have written: two texts, one after the other, as a process sees
 * them that holds on to the first. Reading and writing only what differs must do the same as
 * reading and writing all.
 */
#include "../state.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
change(struct state *s, uint8_t op, uint64_t n)
{
	switch (op % 6) {
	case 0:
		state_give(s, state_next(s));
		break;
	case 1:
		state_give(s, 1 + n % (state_next(s) < 2 ? 1 : state_next(s) - 1));
		break;
	case 2:
		state_take(s, state_candidate(s, n));
		break;
	case 3:
		state_skip(s, n, n + 10);
		break;
	case 4:
		state_count_in(s, n);
		break;
	default:
		state_count_out(s, n);
		break;
	}
}

static void
check_ranges(const struct state *s)
{
	assert(s->nranges >= 1 && s->nranges <= STATE_RANGES);
	for (unsigned i = 0; i < s->nranges; i++) {
		assert(s->ranges[i].from <= s->ranges[i].to);
		assert(i == 0 || s->ranges[i].from > s->ranges[i - 1].to);
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char text[STATE_LEN], full[STATE_LEN];
	struct state a, b, c;

	if (size < STATE_LEN || state_read((const char *)data, STATE_LEN, &a, NULL) == -1)
		return 0;
	check_ranges(&a);
	memcpy(text, data, STATE_LEN);
	b = a;
	/* Changes, as of a process under the lock; the rest of the input says which. */
	for (size_t i = STATE_LEN; i + 1 < size && i < STATE_LEN + 64; i += 2)
		if (state_next(&b) < MESSAGE_NUMBER_MAX - 100)
			change(&b, data[i], data[i + 1]);
	check_ranges(&b);
	state_write(text, &a, NULL); /* the padding may have been other */
	state_write(text, &b, &a);
	state_write(full, &b, NULL);
	assert(memcmp(text, full, STATE_LEN) == 0);
	/* The second text: this, or another from the input. */
	if (size >= 2 * STATE_LEN)
		memcpy(full, data + size - STATE_LEN, STATE_LEN);
	c = a;
	state_write(text, &a, NULL);
	int partly = state_read(full, STATE_LEN, &c, text);
	assert(partly == state_read(full, STATE_LEN, &b, NULL));
	if (partly == 0) {
		char other[STATE_LEN];
		state_write(text, &c, NULL);
		state_write(other, &b, NULL);
		assert(memcmp(text, other, STATE_LEN) == 0);
	}
	return 0;
}
