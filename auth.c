/*
 * auth.c: who may speak to us: the file of -Y, and the check of a name and a password.
 *
 * Each line of the file is a user, a colon and the hash of the password (shacrypt.c); there is no
 * other way to write one. The file is read once, when mqd starts, with the rights that it starts with, and
 * stays in memory: workers of a pool have it from their parent.
 *
 * A check must not tell by its time who is in the file, or how near a password was. So it makes one
 * hash whatever it was given, with the first user's salt for somebody who is not there; it looks at
 * every user, and at every byte of a name and of a hash; and all the hashes of a file must cost the
 * same: one number of rounds, salts of one length.
 */
#include "auth.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "number.h"
#include "shacrypt.h"

#define FILE_SIZE_MAX 65536
#define USERS_MAX 256
#define USER_MAX 128     /* bytes of a name */
#define PASSWORD_MAX 255 /* bytes; longer ones are nobody's */
#define ROUNDS_MAX 999999

static struct user {
	const char *name, *salt, *hash;
	size_t salt_len;
	uint64_t rounds;
} users[USERS_MAX];
static size_t nusers;

/* Take `$6$[rounds=n$]salt$hash` apart. */
static bool
read_password(const char *p, struct user *user)
{
	if (strncmp(p, "$6$", 3) != 0)
		return false;
	p += 3;
	user->rounds = SHACRYPT_ROUNDS;
	if (strncmp(p, "rounds=", 7) == 0) {
		p += 7;
		size_t n = strspn(p, "0123456789");
		if (p[n] != '$' || number_parse(p, n, ROUNDS_MAX, &user->rounds) == -1 ||
		    user->rounds < SHACRYPT_ROUNDS_MIN)
			return false;
		p += n + 1;
	}
	user->salt = p;
	user->salt_len = strspn(p, SHACRYPT_DIGITS);
	if (user->salt_len == 0 || user->salt_len > SHACRYPT_SALT_MAX || p[user->salt_len] != '$')
		return false;
	user->hash = p + user->salt_len + 1;
	return strspn(user->hash, SHACRYPT_DIGITS) == SHACRYPT_LEN &&
	       user->hash[SHACRYPT_LEN] == '\0';
}

static bool
is_name(const char *s)
{
	size_t len = strlen(s);

	for (const char *p = s; *p != '\0'; p++)
		if ((unsigned char)*p <= ' ' || *p == 0x7f)
			return false;
	return len > 0 && len <= USER_MAX;
}

/* One line, without its end. */
static const char *
read_line(char *line)
{
	char *colon = strchr(line, ':');
	struct user *user = &users[nusers];

	if (*line == '\0' || *line == '#')
		return NULL;
	if (colon == NULL)
		return "must be user:hash";
	*colon = '\0';
	if (!is_name(line))
		return "the user's name is empty, too long, or has a space or a control character";
	for (size_t i = 0; i < nusers; i++)
		if (strcmp(users[i].name, line) == 0)
			return "the user was named before";
	if (nusers == USERS_MAX)
		return "too many users";
	user->name = line;
	if (!read_password(colon + 1, user))
		return "the password must be a hash, as `openssl passwd -6` prints it";
	if (user->rounds != users[0].rounds || user->salt_len != users[0].salt_len)
		return "the hash differs from the first one in its rounds or the length of its "
		       "salt";
	nusers++;
	return NULL;
}

/* All of the file, with a NUL behind it; users point into it from now on. */
static const char *
read_text(char *text, size_t len, unsigned *line)
{
	const char *fault = NULL;

	*line = 0;
	if (memchr(text, '\0', len) != NULL)
		return "is no text";
	for (char *p = text, *next; fault == NULL && p != NULL; p = next) {
		++*line;
		next = strchr(p, '\n');
		if (next != NULL)
			*next++ = '\0';
		fault = read_line(p);
	}
	if (fault == NULL && nusers == 0) {
		*line = 0;
		fault = "names no user";
	}
	return fault;
}

/* Why what the file says cannot be trusted, or is no secret. */
static const char *
file_fault(const struct stat *st)
{
	if (!S_ISREG(st->st_mode))
		return "is no regular file";
	if (st->st_uid != 0 && st->st_uid != geteuid())
		return "must belong to root or to the user that mqd is started as";
	if ((st->st_mode & (S_IWGRP | S_IRWXO)) != 0)
		return "others may read it, or its group may write to it: chmod 600 or 640";
	if (st->st_size > FILE_SIZE_MAX)
		return "is too large";
	return NULL;
}

static const char *
read_all(int fd, char *text, size_t *len)
{
	ssize_t n = 1;

	for (*len = 0; n > 0 && *len <= FILE_SIZE_MAX; *len += (size_t)n) {
		n = read(fd, text + *len, FILE_SIZE_MAX + 1 - *len);
		if (n == -1)
			return strerror(errno);
	}
	return *len > FILE_SIZE_MAX ? "is too large" : NULL;
}

const char *
auth_load(const char *path, unsigned *line)
{
	static char text[FILE_SIZE_MAX + 1];
	const char *fault;
	struct stat st;
	size_t len = 0;
	int fd;

	*line = 0;
	fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd == -1 || fstat(fd, &st) == -1)
		return strerror(errno);
	fault = file_fault(&st);
	if (fault == NULL)
		fault = read_all(fd, text, &len);
	close(fd);
	if (fault != NULL)
		return fault;
	text[len] = '\0';
	return read_text(text, len, line);
}

/* In a time that depends on the user's name alone. */
static bool
is_named(const struct user *user, const char *name, size_t len)
{
	size_t n = strlen(user->name);
	unsigned differ = n != len;

	for (size_t i = 0; i < n; i++)
		differ |= (unsigned char)(user->name[i] ^ name[i < len ? i : 0]);
	return differ == 0;
}

static bool
is_same(const char *a, const char *b, size_t len)
{
	unsigned differ = 0;

	for (size_t i = 0; i < len; i++)
		differ |= (unsigned char)(a[i] ^ b[i]);
	return differ == 0;
}

enum auth_result
auth_check(const char *token, size_t len)
{
	const char *space = memchr(token, ' ', len), *password;
	const struct user *user = &users[0];
	char made[SHACRYPT_LEN];
	bool known = false, possible;
	size_t name_len, password_len;

	if (space == NULL)
		return AUTH_MALFORMED;
	name_len = (size_t)(space - token);
	password = space + 1;
	password_len = len - name_len - 1;
	for (size_t i = 0; i < nusers; i++)
		if (is_named(&users[i], token, name_len)) {
			user = &users[i];
			known = true;
		}
	/* The first steps of a hash take the square of the length. */
	possible = password_len <= PASSWORD_MAX;
	shacrypt(password, possible ? password_len : 0, user->salt, user->salt_len, user->rounds,
	         made);
	return is_same(made, user->hash, SHACRYPT_LEN) && known && possible ? AUTH_GOOD
	                                                                    : AUTH_WRONG;
}
