/* auth.h: who may speak to us, where a file of passwords says so. */
#ifndef MQ_AUTH_H
#define MQ_AUTH_H

#include <stdbool.h>
#include <stddef.h>

#define AUTH_TOKEN_MAX 1024 /* bytes of a name, a space and a password */
#define AUTH_TRIES_MAX 3    /* wrong ones, until a client is left */

/* Read the users and their passwords' hashes, for auth_check; for the format see mqd(8). Returns NULL;
 * or why the file is refused, with *line where in it, or 0. */
const char *auth_load(const char *path, unsigned *line);

enum auth_result {
	AUTH_GOOD,
	AUTH_WRONG,     /* no such user, or not their password */
	AUTH_MALFORMED, /* it is no name, space and password */
};

/* Check `user password`. It takes some milliseconds, and as long whoever the user is; who guesses more
 * than AUTH_TRIES_MAX times on one connection is to be left. */
enum auth_result auth_check(const char *token, size_t len);

#endif
