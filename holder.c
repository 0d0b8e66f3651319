/*
 * holder.c: which process holds a lock on a file, and who is at the other end of its connection.
 *
 * Linux tells of both in text files, each of which is read once for all files in question:
 *
 *     /proc/locks                each flock with its pid, and the device and inode of its file
 *     /proc/<pid>/fd/            "socket:[inode]" for those of its descriptors that are sockets
 *     /proc/<pid>/net/tcp, ...   the sockets of its network by their inodes, with their peers
 *
 * A network is ours, most often; or that of a process in a container, and is read for it too.
 *
 * Of an mqd's sockets its connection is the one that is neither listening nor without a name: the
 * pair that leads to the parent of a pool and the one that leads to syslog have none. Only on
 * descriptor 0 may a connection be a Unix socket without a name.
 *
 * Nothing here is atomic. A process may end, or close its connection, between two of these files:
 * then nothing is found of it. And from one page of /proc/locks to the next a lock is passed over if
 * another one before it was released: so it is read again for those that were not seen.
 */
#include "holder.h"

#if defined(__linux__) && !defined(MQ_PORTABLE)

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "number.h"

#define LINE_MAX_LEN 512
#define FIELDS_MAX 11
#define LOOKS 5        /* at /proc/locks, for a lock that is not in it */
#define NO_NAME "unix" /* the peer of a Unix socket without a path */

/* What the kernel calls them in these files, in hexadecimal. */
#define TCP_IS_LISTENING 0x0a
#define UNIX_IS_STREAM 0x01
#define UNIX_IS_CONNECTED 0x03

/* A connection, by the inode of its socket on this side. */
struct peer_socket {
	uint64_t inode;
	char peer[HOLDER_PEER_LEN];
};

struct search {
	struct holder *holders;
	size_t n;
	struct peer_socket *connections;
	size_t nconnections, room;
	ino_t namespace; /* the network whose connections were read last */
};

/*
 * The kernel's tables
 */

/* Call `visit` with the fields of each line of a file that has `n` of them. Blanks part them; the
 * last is the rest of the line. */
static void
each_line(const char *path, size_t n, struct search *s,
          void (*visit)(struct search *s, char *const fields[]))
{
	char line[LINE_MAX_LEN], *fields[FIELDS_MAX];
	FILE *f = fopen(path, "re");

	while (f != NULL && fgets(line, sizeof line, f) != NULL) {
		char *p = line;
		size_t i = 0;
		line[strcspn(line, "\n")] = '\0';
		for (p += strspn(p, " "); i < n; i++) {
			fields[i] = p;
			if (i + 1 == n)
				continue;
			p += strcspn(p, " ");
			if (*p != '\0')
				*p++ = '\0';
			p += strspn(p, " ");
		}
		visit(s, fields);
	}
	if (f != NULL)
		fclose(f);
}

/* `digits` hexadecimal ones, or up to the first character that is none. */
static uint32_t
hex(const char *text, size_t digits)
{
	char number[9] = "";

	memcpy(number, text, strnlen(text, digits < 8 ? digits : 8));
	return (uint32_t)strtoul(number, NULL, 16);
}

/* Call `visit` with the name of each descriptor of a process, in /proc/<pid>/fd, until it returns
 * true. Returns whether it did. */
static bool
each_descriptor(pid_t pid, bool (*visit)(void *arg, int dirfd, const char *name), void *arg)
{
	char path[64];
	bool found = false;
	struct dirent *e;

	snprintf(path, sizeof path, "/proc/%ld/fd", (long)pid);
	DIR *dir = opendir(path);
	while (dir != NULL && !found && (e = readdir(dir)) != NULL)
		found = e->d_name[0] != '.' && visit(arg, dirfd(dir), e->d_name);
	if (dir != NULL)
		closedir(dir);
	return found;
}

/*
 * Locks
 */

static bool
is_file(void *arg, int dirfd, const char *name)
{
	const struct holder *h = arg;
	struct stat st;

	return fstatat(dirfd, name, &st, 0) == 0 && st.st_dev == h->dev && st.st_ino == h->ino;
}

/* "1: FLOCK  ADVISORY  WRITE 7879 fe:00:11504570 0 EOF". Who waits for a lock has "->" for the second
 * word. On some file systems (btrfs, overlayfs) the device is another one than stat(2) has; then the
 * process is asked for the file itself. */
static void
see_lock(struct search *s, char *const fields[])
{
	uint32_t device[2];
	uint64_t pid, inode;
	const char *p = fields[5];

	for (int i = 0; i < 2; i++) {
		device[i] = hex(p, 8);
		p += strcspn(p, ":");
		p += *p == ':';
	}
	if (strcmp(fields[1], "FLOCK") != 0 ||
	    number_parse(fields[4], strlen(fields[4]), INT32_MAX, &pid) == -1 ||
	    number_parse(p, strlen(p), UINT64_MAX, &inode) == -1)
		return;
	for (size_t i = 0; i < s->n; i++) {
		struct holder *h = &s->holders[i];
		if (h->pid != 0 || h->ino != inode)
			continue;
		if ((major(h->dev) == device[0] && minor(h->dev) == device[1]) ||
		    each_descriptor((pid_t)pid, is_file, h))
			h->pid = (pid_t)pid;
	}
}

static bool
is_incomplete(const struct search *s)
{
	for (size_t i = 0; i < s->n; i++)
		if (s->holders[i].pid == 0)
			return true;
	return false;
}

/*
 * Connections
 */

static struct peer_socket *
add_connection(struct search *s, const char *inode)
{
	struct peer_socket *c;
	uint64_t number;

	if (number_parse(inode, strlen(inode), UINT64_MAX, &number) == -1 || number == 0)
		return NULL;
	if (s->nconnections == s->room) {
		size_t room = s->room == 0 ? 256 : s->room * 2;
		c = realloc(s->connections, room * sizeof *c);
		if (c == NULL)
			return NULL;
		s->connections = c;
		s->room = room;
	}
	c = &s->connections[s->nconnections++];
	*c = (struct peer_socket){.inode = number};
	return c;
}

/* "0100007F:1F90", or four such words for IPv6: each as a number of this machine, in the order of
 * the network in its memory. */
static void
print_address(char *peer, const char *address)
{
	size_t digits = strcspn(address, ":");
	uint32_t words[4] = {0};
	char text[INET6_ADDRSTRLEN] = "?";
	unsigned port = hex(address + digits + (address[digits] == ':'), 4);

	for (size_t i = 0; i < 4 && 8 * i < digits; i++)
		words[i] = hex(address + 8 * i, 8);
	/* A client of IPv4 on a socket of both. */
	bool mapped = words[0] == 0 && words[1] == 0 && words[2] == htonl(0xffff);
	bool v4 = mapped || digits == 8;
	inet_ntop(v4 ? AF_INET : AF_INET6, mapped ? &words[3] : words, text, sizeof text);
	snprintf(peer, HOLDER_PEER_LEN, v4 ? "%s:%u" : "[%s]:%u", text, port);
}

/* "0: 0100007F:5919 0100007F:C6D2 01 00000000:00000000 00:00000000 00000000 0 0 4711 ...": number,
 * own address, the peer's, state, ..., and the inode as the tenth. */
static void
see_tcp(struct search *s, char *const fields[])
{
	bool listening = hex(fields[3], 2) == TCP_IS_LISTENING;
	struct peer_socket *c = listening ? NULL : add_connection(s, fields[9]);

	if (c != NULL)
		print_address(c->peer, fields[2]);
}

/* "00000000bc5f7510: 00000003 00000000 00000000 0001 03 4711 /run/mqd": type, state, inode and path
 * as the fifth to the eighth. An accepted connection has the path that was listened on. */
static void
see_unix(struct search *s, char *const fields[])
{
	struct peer_socket *c = NULL;

	if (hex(fields[4], 4) == UNIX_IS_STREAM && hex(fields[5], 2) == UNIX_IS_CONNECTED)
		c = add_connection(s, fields[6]);
	if (c == NULL)
		return;
	snprintf(c->peer, sizeof c->peer, "%s", fields[7][0] != '\0' ? fields[7] : NO_NAME);
	for (char *p = c->peer; *p != '\0'; p++)
		if (*p <= ' ' || *p > '~')
			*p = '?'; /* a path may be anything, and goes to a terminal */
}

/* Read the connections of a process's network namespace, most often that of all. Returns false if
 * they were read just before, or may not be. */
static bool
read_connections(struct search *s, pid_t pid)
{
	static const struct table {
		const char *name;
		size_t fields;
		void (*see)(struct search *s, char *const fields[]);
	} tables[] = {{"tcp", 11, see_tcp}, {"tcp6", 11, see_tcp}, {"unix", 8, see_unix}};
	char path[64];
	struct stat st;

	snprintf(path, sizeof path, "/proc/%ld/ns/net", (long)pid);
	if (stat(path, &st) == -1 || st.st_ino == s->namespace)
		return false;
	s->namespace = st.st_ino;
	for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
		snprintf(path, sizeof path, "/proc/%ld/net/%s", (long)pid, tables[i].name);
		each_line(path, tables[i].fields, s, tables[i].see);
	}
	return true;
}

struct descriptors {
	const struct search *search;
	char *peer;
};

/* The last one counts: what a process was started with lies below what it accepted. */
static bool
see_descriptor(void *arg, int dirfd, const char *name)
{
	static const char prefix[] = "socket:[";
	struct descriptors *d = arg;
	char target[64];
	uint64_t inode;
	ssize_t len = readlinkat(dirfd, name, target, sizeof target);

	if (len <= (ssize_t)strlen(prefix) || memcmp(target, prefix, strlen(prefix)) != 0 ||
	    number_parse(target + strlen(prefix), (size_t)len - strlen(prefix) - 1, UINT64_MAX,
	                 &inode) == -1)
		return false;
	for (size_t i = 0; i < d->search->nconnections; i++) {
		const struct peer_socket *c = &d->search->connections[i];
		if (c->inode == inode && (strcmp(c->peer, NO_NAME) != 0 || strcmp(name, "0") == 0))
			strcpy(d->peer, c->peer);
	}
	return false;
}

static void
find_peer(struct search *s, struct holder *h)
{
	struct descriptors d = {.search = s, .peer = h->peer};

	each_descriptor(h->pid, see_descriptor, &d);
	if (h->peer[0] == '\0' && read_connections(s, h->pid))
		each_descriptor(h->pid, see_descriptor, &d);
}

void
holders_find(struct holder *holders, size_t n)
{
	struct search s = {.holders = holders, .n = n};

	for (size_t i = 0; i < n; i++) {
		holders[i].pid = 0;
		holders[i].peer[0] = '\0';
	}
	for (int i = 0; i < LOOKS && is_incomplete(&s); i++)
		each_line("/proc/locks", 7, &s, see_lock);
	read_connections(&s, getpid());
	for (size_t i = 0; i < n; i++) {
		size_t same = 0;
		while (holders[same].pid != holders[i].pid)
			same++;
		if (same < i) /* it has more than one of them */
			strcpy(holders[i].peer, holders[same].peer);
		else if (holders[i].pid != 0)
			find_peer(&s, &holders[i]);
	}
	free(s.connections);
}

#else
void
holders_find(struct holder *holders, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		holders[i].pid = 0;
		holders[i].peer[0] = '\0';
	}
}
#endif
