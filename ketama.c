/*
 * ketama.c: which of several servers a key belongs to, as libmemcached's clients have it.
 *
 * Each server stands at many points of a ring of 32 bits, which are hashes of its name and a number;
 * a key belongs to the server whose point is the first at or behind the key's own hash. So a server
 * more takes over a part of the keys of each other one, and no key moves between these.
 *
 * A server's name is "host:port-number", without the port if that is memcached's own. Weighted, the
 * MD5 of it makes four points, and a server gets its share of 160 for each; else it is Jenkins's
 * one-at-a-time, and 100 points each. twemproxy's ketama with its hash md5 is the weighted one.
 */
#include "ketama.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "md5.h"

#define POINTS 100
#define POINTS_WEIGHTED 160
#define POINTS_PER_HASH 4
#define MEMCACHED_PORT 11211

struct point {
	uint32_t at;
	uint32_t server;
};

struct ketama {
	bool weighted;
	size_t n;
	struct point points[];
};

static uint32_t
one_at_a_time(const char *s, size_t len)
{
	uint32_t h = 0;

	for (size_t i = 0; i < len; i++) {
		uint32_t c = (unsigned char)s[i];
		h += c < 128 ? c : c - 256; /* libmemcached adds a char, which has a sign */
		h += h << 10;
		h ^= h >> 6;
	}
	h += h << 3;
	h ^= h >> 11;
	h += h << 15;
	return h;
}

/* Word `i` of the MD5. */
static uint32_t
md5_word(const char *s, size_t len, unsigned i)
{
	unsigned char d[MD5_LEN], *p = d + 4 * (size_t)i;
	struct md5 m;

	md5_begin(&m);
	md5_add(&m, s, len);
	md5_end(&m, d);
	return (uint32_t)p[3] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[1] << 8 | p[0];
}

static int
by_place(const void *a, const void *b)
{
	const struct point *x = a, *y = b;

	return (x->at > y->at) - (x->at < y->at);
}

/* In libmemcached's own arithmetic, which is that of float: another would round otherwise. */
static unsigned
count_points(uint32_t weight, uint64_t total, size_t n)
{
	float share = (float)weight / (float)total;
	double hashes =
	    (double)(share * POINTS_WEIGHTED / POINTS_PER_HASH * (float)n + 0.0000000001);

	return (unsigned)(float)hashes * POINTS_PER_HASH;
}

static void
add_points(struct ketama *k, const struct ketama_server *s, uint32_t index, unsigned count)
{
	char name[sizeof s->host + 32];
	unsigned each = k->weighted ? POINTS_PER_HASH : 1;

	for (unsigned i = 0; i < count / each; i++) {
		int len = s->port == MEMCACHED_PORT
		              ? snprintf(name, sizeof name, "%s-%u", s->host, i)
		              : snprintf(name, sizeof name, "%s:%u-%u", s->host, s->port, i);
		for (unsigned word = 0; word < each; word++)
			k->points[k->n++] = (struct point){
			    .at = k->weighted ? md5_word(name, (size_t)len, word)
			                      : one_at_a_time(name, (size_t)len),
			    .server = index,
			};
	}
}

struct ketama *
ketama_make(const struct ketama_server *servers, size_t n, bool weighted)
{
	size_t room = n * (POINTS_WEIGHTED + POINTS_PER_HASH);
	struct ketama *k = calloc(1, sizeof *k + room * sizeof *k->points);
	uint64_t total = 0;

	if (k == NULL)
		return NULL;
	k->weighted = weighted;
	for (size_t i = 0; i < n; i++)
		total += servers[i].weight;
	for (size_t i = 0; i < n; i++) {
		unsigned count =
		    weighted ? count_points(servers[i].weight, total, n) : (unsigned)POINTS;
		if (k->n + count <= room)
			add_points(k, &servers[i], (uint32_t)i, count);
	}
	if (k->n == 0) {
		free(k);
		errno = EINVAL;
		return NULL;
	}
	qsort(k->points, k->n, sizeof *k->points, by_place);
	return k;
}

void
ketama_free(struct ketama *k)
{
	free(k);
}

size_t
ketama_home(const struct ketama *k, const char *key, size_t len)
{
	uint32_t hash = k->weighted ? md5_word(key, len, 0) : one_at_a_time(key, len);
	size_t low = 0, high = k->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (k->points[middle].at < hash)
			low = middle + 1;
		else
			high = middle;
	}
	return k->points[low == k->n ? 0 : low].server;
}
