/* Every request that a browser, or somebody else, can send to mqctl http. */
#include "../http_request.c"

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
check_request(const struct http_request *r)
{
	assert(r->path[0] == '/' && strlen(r->path) <= HTTP_LINE_MAX);
	for (const char *p = r->host; *p != '\0'; p++)
		assert(*p > ' ' && strchr("/?#@\\<>\"", *p) == NULL && !(*p >= 'A' && *p <= 'Z'));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct http_request whole, part;
	int status, before = 0;
	char *buf;

	if (size > HTTP_HEAD_MAX)
		size = HTTP_HEAD_MAX;
	buf = malloc(size + (size == 0)); /* of its own length, so that a byte too far is found */
	memcpy(buf, data, size);
	status = http_request_read(buf, size, &whole);
	assert(status == 0 || status == 200 || status == 400 || status == 405 || status == 414 ||
	       status == 431 || status == 505);
	if (status == 200)
		check_request(&whole);
	/* What is decided when a part is there stays so when more comes, however it is cut. */
	for (size_t n = 0, step = 1 + size / 37; n < size && before == 0; n += step) {
		char *piece = malloc(n + (n == 0));
		memcpy(piece, buf, n);
		before = http_request_read(piece, n, &part);
		free(piece);
	}
	if (before != 0)
		assert(before == status && part.head == whole.head &&
		       strcmp(part.path, whole.path) == 0 && strcmp(part.host, whole.host) == 0);
	free(buf);
	return 0;
}
