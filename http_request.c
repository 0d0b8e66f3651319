/*
 * http_request.c: the head of an HTTP/1.x request, from bytes.
 *
 * All of what was received is read anew each time that more has come: it is short, and so nothing
 * has to be remembered in between. RFC 9112 says what a request is; where it lets a server choose,
 * this refuses: but a line may end without CR, and empty lines may come first.
 *
 * What is wrong is told as soon as it is seen, so that who sends something else (TLS, say) does not
 * wait for the end of a line that never comes.
 */
#include "http_request.h"

#include <string.h>
#include <strings.h>

struct text {
	const char *s;
	size_t len;
};

static bool
is(struct text t, const char *word)
{
	return t.len == strlen(word) && memcmp(t.s, word, t.len) == 0;
}

static bool
begins(struct text t, const char *word)
{
	return t.len >= strlen(word) && strncasecmp(t.s, word, strlen(word)) == 0;
}

static struct text
from(struct text t, size_t n)
{
	return (struct text){t.s + n, t.len - n};
}

/* How many bytes of `t` are in front of the first of `stop`. */
static size_t
until(struct text t, const char *stop)
{
	size_t n = 0;

	while (n < t.len && (t.s[n] == '\0' || strchr(stop, t.s[n]) == NULL))
		n++;
	return n;
}

static bool
is_token(struct text t)
{
	static const char letters[] =
	    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	    "!#$%&'*+-.^_`|~";

	for (size_t i = 0; i < t.len; i++)
		if (t.s[i] == '\0' || strchr(letters, t.s[i]) == NULL)
			return false;
	return t.len > 0;
}

/* Bytes that a line of a request can have; the first one has ASCII alone. */
static bool
is_clean(struct text line, bool first)
{
	for (size_t i = 0; i < line.len; i++) {
		unsigned char c = (unsigned char)line.s[i];
		if ((c < ' ' && (c != '\t' || first)) || c == 0x7f || (c >= 0x80 && first))
			return false;
	}
	return true;
}

static int
hex_digit(char c)
{
	const char *digits = "0123456789abcdef", *p = strchr(digits, c | 0x20);

	return c != '\0' && ((c >= '0' && c <= '9') || (c | 0x20) >= 'a') && p != NULL
	           ? (int)(p - digits)
	           : -1;
}

/* Decode a path, up to its query. False if it cannot be one. */
static bool
read_path(struct text t, char *path)
{
	size_t n = 0;

	t.len = until(t, "?");
	if (t.len == 0 || t.s[0] != '/')
		return false;
	for (size_t i = 0; i < t.len; i++) {
		char c = t.s[i];
		if (c == '%') {
			int hi = i + 2 < t.len ? hex_digit(t.s[i + 1]) : -1;
			int lo = hi == -1 ? -1 : hex_digit(t.s[i + 2]);
			if (lo == -1 || hi + lo == 0)
				return false;
			c = (char)(hi << 4 | lo);
			i += 2;
		}
		path[n++] = c;
	}
	path[n] = '\0';
	return true;
}

/* A host and perhaps a port, "[::1]:80" or "name:80". False if it can be none. */
static bool
read_host(struct text t, char *host)
{
	size_t n = t.len > 0 && t.s[0] == '[' ? until(t, "]") + 1 : until(t, ":");

	if (n > t.len || n > HTTP_HOST_MAX || (n < t.len && t.s[n] != ':'))
		return false;
	for (size_t i = n + 1; i < t.len; i++)
		if (t.s[i] < '0' || t.s[i] > '9')
			return false;
	for (size_t i = 0; i < n; i++) {
		char c = t.s[i];
		if (c <= ' ' || c >= 0x7f || strchr("/?#@\\<>\"", c) != NULL)
			return false;
		host[i] = c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
	}
	host[n] = '\0';
	return true;
}

/* "/path", or "http://host/path", whose host counts, whatever the field Host says. */
static bool
read_target(struct text t, struct http_request *r)
{
	if (until(t, "#") < t.len)
		return false;
	if (!begins(t, "http://"))
		return read_path(t, r->path);
	t = from(t, strlen("http://"));
	size_t n = until(t, "/?");
	if (n == 0 || !read_host((struct text){t.s, n}, r->host) || r->host[0] == '\0')
		return false;
	t = from(t, n);
	if (t.len > 0 && t.s[0] == '/')
		return read_path(t, r->path);
	strcpy(r->path, "/");
	return true;
}

static int
read_version(struct text t, unsigned *minor)
{
	if (t.len != strlen("HTTP/1.1") || memcmp(t.s, "HTTP/", 5) != 0 || t.s[6] != '.' ||
	    t.s[5] < '0' || t.s[5] > '9' || t.s[7] < '0' || t.s[7] > '9')
		return 400;
	*minor = (unsigned)(t.s[7] - '0');
	return t.s[5] == '1' ? 200 : 505;
}

/* The first line: method, target, version, with one blank between. */
static int
read_first(struct text line, struct http_request *r, unsigned *minor)
{
	struct text method = {line.s, until(line, " ")}, target;
	int status;

	if (!is_token(method) || method.len == line.len)
		return 400;
	line = from(line, method.len + 1);
	target = (struct text){line.s, until(line, " ")};
	if (target.len == 0 || target.len == line.len)
		return 400;
	status = read_version(from(line, target.len + 1), minor);
	if (status != 200)
		return status;
	r->head = is(method, "HEAD");
	if (!r->head && !is(method, "GET"))
		return 405;
	return read_target(target, r) ? 200 : 400;
}

/* Of a field only Host matters, which is sent once. */
static int
read_field(struct text line, struct http_request *r, unsigned *hosts)
{
	struct text name = {line.s, until(line, ":")}, value;
	char host[HTTP_HOST_MAX + 1];

	if (!is_token(name) || name.len == line.len)
		return 400;
	if (name.len != strlen("Host") || !begins(name, "Host"))
		return 200;
	value = from(line, name.len + 1);
	while (value.len > 0 && (value.s[0] == ' ' || value.s[0] == '\t'))
		value = from(value, 1);
	while (value.len > 0 && strchr(" \t", value.s[value.len - 1]) != NULL)
		value.len--;
	if (++*hosts > 1 || !read_host(value, host))
		return 400;
	if (r->host[0] == '\0')
		strcpy(r->host, host);
	return 200;
}

int
http_request_read(const char *buf, size_t len, struct http_request *r)
{
	struct text rest = {buf, len}, line;
	unsigned minor = 0, hosts = 0;
	bool first = true;
	int status;

	*r = (struct http_request){0};
	for (; rest.len > 0; rest = from(rest, line.len + 1)) {
		size_t n = until(rest, "\n");
		bool whole = n < rest.len;
		line = (struct text){rest.s, n};
		struct text text = line;
		if (text.len > 0 && text.s[text.len - 1] == '\r')
			text.len--;
		if (!is_clean(text, first))
			return 400;
		if (text.len > HTTP_LINE_MAX)
			return first ? 414 : 431;
		if (!whole)
			break;
		if (text.len == 0 && !first)
			return minor > 0 && hosts == 0 ? 400 : 200;
		if (text.len == 0)
			continue;
		status = first ? read_first(text, r, &minor) : read_field(text, r, &hosts);
		if (status != 200)
			return status;
		first = false;
	}
	return len >= HTTP_HEAD_MAX ? 431 : 0;
}
