/* shacrypt.h: the hash of a password, as it stands in /etc/shadow behind $6$. */
#ifndef MQ_SHACRYPT_H
#define MQ_SHACRYPT_H

#include <stddef.h>
#include <stdint.h>

#define SHACRYPT_LEN 86          /* characters of a hash */
#define SHACRYPT_SALT_MAX 16     /* and of a salt */
#define SHACRYPT_ROUNDS 5000     /* where a password does not say how many */
#define SHACRYPT_ROUNDS_MIN 1000 /* of which it may say no less */
#define SHACRYPT_DIGITS "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

/*
 * Write SHACRYPT_LEN characters, and no NUL: what crypt(3) makes of a password with that salt by
 * SHA-512. Each round takes about a microsecond; the time depends on the lengths alone.
 */
void shacrypt(const char *password, size_t len, const char *salt, size_t salt_len, uint64_t rounds,
              char *out);

#endif
