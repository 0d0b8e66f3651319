/* ketama.h: which of several servers a key belongs to, as libmemcached's clients have it. */
#ifndef MQ_KETAMA_H
#define MQ_KETAMA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ketama_server {
	char host[256]; /* as the clients name it: another name for it makes another ring */
	unsigned port;
	uint32_t weight; /* from 1 */
};

struct ketama;

/*
 * The ring of `n` servers, to be freed with ketama_free; NULL with errno. `weighted`: as libmemcached
 * has it with MEMCACHED_BEHAVIOR_KETAMA_WEIGHTED, with MD5 for the keys; else as with
 * MEMCACHED_BEHAVIOR_KETAMA and its default hash.
 */
struct ketama *ketama_make(const struct ketama_server *servers, size_t n, bool weighted);
void ketama_free(struct ketama *k);

/* The index of the server of a key. */
size_t ketama_home(const struct ketama *k, const char *key, size_t len);

#endif
