/*
 * A file of passwords, up to the first NUL of the input, and behind that what a client gives for one.
 * Hashing would take all the time: what stands for it lets an empty password be the one whose hash is
 * all dots.
 */
#include "../auth.c"

#include <assert.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

void
shacrypt(const char *password, size_t len, const char *salt, size_t salt_len, uint64_t rounds,
         char *out)
{
	assert(len <= PASSWORD_MAX && salt_len > 0 && salt_len <= SHACRYPT_SALT_MAX);
	assert(rounds >= SHACRYPT_ROUNDS_MIN && rounds <= ROUNDS_MAX && salt[salt_len] == '$');
	for (size_t i = 0; i < SHACRYPT_LEN; i++)
		out[i] = len == 0 ? '.' : SHACRYPT_DIGITS[password[i % len] & 0x3f];
}

static void
check_users(void)
{
	assert(nusers > 0 && nusers <= USERS_MAX);
	for (size_t i = 0; i < nusers; i++) {
		size_t len = strlen(users[i].name);
		assert(len > 0 && len <= USER_MAX && strpbrk(users[i].name, " :\n") == NULL);
		assert(strlen(users[i].hash) == SHACRYPT_LEN);
		assert(users[i].rounds == users[0].rounds);
		assert(users[i].salt_len == users[0].salt_len);
		for (size_t j = 0; j < i; j++)
			assert(strcmp(users[j].name, users[i].name) != 0);
	}
}

static void
check_token(const char *token, size_t len)
{
	enum auth_result r = auth_check(token, len);
	const char *space = memchr(token, ' ', len);
	bool known = false;

	assert((r == AUTH_MALFORMED) == (space == NULL));
	for (size_t i = 0; i < nusers && space != NULL; i++)
		known = known || (strlen(users[i].name) == (size_t)(space - token) &&
		                  memcmp(users[i].name, token, (size_t)(space - token)) == 0);
	assert(r != AUTH_GOOD || known);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t len = size == 0 ? 0 : strnlen((const char *)data, size);
	size_t token_len = len < size ? size - len - 1 : 0;
	char *text = malloc(len + 1), *token = malloc(token_len > 0 ? token_len : 1);
	unsigned line, lines = 1;

	/* Of their own lengths, so that a byte too far is found. */
	memcpy(text, data, len);
	text[len] = '\0';
	if (token_len > 0)
		memcpy(token, data + len + 1, token_len);
	for (size_t i = 0; i < len; i++)
		lines += text[i] == '\n';
	nusers = 0;
	const char *fault = read_text(text, len, &line);
	assert(line <= lines);
	if (fault == NULL) {
		check_users();
		check_token(token, token_len);
	}
	free(text);
	free(token);
	return 0;
}
