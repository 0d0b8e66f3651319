/*
 * mqd: a message queue that speaks the memcache protocol and has no daemon of its own.
 *
 * A super-server starts one mqd for each connection. It reads memcache commands: `set`
 * appends a message to a queue, `get` takes the oldest out of it. Each message is a file,
 * each queue a directory below the spool; processes know of each other through these
 * files alone.
 *
 * To know the system, read the heads of these files, in this order:
 *
 *     mqd.c         this: options, and finding out how we were started
 *     serve.c       the commands of one connection
 *     spool.c       messages as files: push, claim, finish, release; the rules
 *     queue.c       a queue's directory: the lock, .state, what dead processes left
 *
 * These four are the system. What they rest on, each for one thing:
 *
 *     claim.c       messages that leave: claim, finish, release, move
 *     connection.c  the bytes of the connection, in and out
 *     proto.c       bytes to commands and what is answered to those that mean nothing here
 *     journal.c     the log by which pushes and removals share a flush; replay.c: what it says,
 *                   done to the queues
 *     wait.c        processes that wait for a message stand in line
 *     delay.c       messages that are not to be delivered yet
 *     fanout.c      queues that get a copy of what another gets
 *     config.c      .config: settings
 *     report.c      what is told of the spool: stats; figures.c: under which names
 *     auth.c        who may speak to us; shacrypt.c hashes the passwords
 *     daemon.c      in the background, for old init scripts
 *     admin.c       operators' work: delete, flush, list, statistics
 *     check.c       what is wrong in it
 *     place.c       where a spool may lie, and whose it must be
 *
 * and, below them, state.c (`.state`), message.c (a message's first line), queue_name.c,
 * stats.c (counters), utf8.c, listen.c (sockets to listen on), pool.c (the processes that accept
 * on them), os.c, log.c, number.c, crc32c.c.
 *
 * The operator's command is another program on the same spool:
 *
 *     mqctl.c       its commands; those that have a file of their own:
 *     list.c        what it lists; holder.c: who holds a message; json.c: for programs
 *     top.c         the same on a screen (terminal.c); tail.c: messages as they come in
 *     metrics.c     figures for Prometheus; http.c: a page, with http_request.c; what they
 *                   look at without a lock: glance.c
 *     transfer.c    export and import, as a tar archive (tar.c)
 *     drain.c       import from a server (client.c); rebalance.c: to the servers where
 *                   ketama.c says (md5.c); stage.c: where messages lie meanwhile
 *     progress.c    how far long work is
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <limits.h>
#include <pwd.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "auth.h"
#include "connection.h"
#include "daemon.h"
#include "listen.h"
#include "log.h"
#include "number.h"
#include "os.h"
#include "place.h"
#include "pool.h"
#include "serve.h"
#include "spool.h"

enum { EXIT_USAGE = 100, EXIT_SYSTEM = 111 };

#define FIRST_PASSED_FD 3 /* sd_listen_fds(3) */
#define LICENCE "no licence has been chosen yet"

static const char usage_text[] =
    "usage: mqd [-dhiNrVv] [-a mode] [-B max-body] [-c max-connections] [-H spool]\n"
    "           [-l address] [-o option[,option]] [-P pid-file] [-p port] [-s socket]\n"
    "           [-t spares] [-u user] [-Y password-file]\n"
    "\n"
    "  -H dir      the spool (" SPOOL_DEFAULT ")\n"
    "  -p port     listen on this TCP port (22201 if -l is given)\n"
    "  -l address  listen on this address, may be given more than once (all)\n"
    "  -s path     listen on a Unix socket\n"
    "  -a mode     access mode of the Unix socket, octal (0700)\n"
    "  -c number   serve that many connections at a time (1024)\n"
    "  -t number   keep that many processes waiting for connections (4)\n"
    "  -B size     largest message, with k, m or g (1m)\n"
    "  -u user     run as this user\n"
    "  -Y file     ask each client for a password, see mqd(8)\n"
    "  -N          never wait for the disk, as -o sync=none\n"
    "  -o sync=full|push|none\n"
    "              what survives a power loss: all, pushes, nothing (full)\n"
    "  -o filesystem=local|any\n"
    "              which kinds the spool may lie on: those of this machine alone (local)\n"
    "  -o idle_timeout=seconds\n"
    "              leave a client that has been silent that long (0: never)\n"
    "  -o keepalive=seconds\n"
    "              when a client has been silent that long ask its host whether it is\n"
    "              there (60; 0: never)\n"
    "  -o pool_idle=seconds\n"
    "              on a super-server's listening socket: end when nobody was connected\n"
    "              for so long (0: never)\n"
    "  -d          go into the background, and listen (on port 22201 if nothing is given)\n"
    "  -P file     write the process id there, as long as it listens\n"
    "  -r          allow core files\n"
    "  -v          log more\n"
    "  -V          print the version\n"
    "  -i          print the licence\n"
    "  -h          print this\n"
    "\n"
    "memcacheq's -U 0 and its options for Berkeley DB (-A, -C, -D, -E, -e, -L, -m, -S\n"
    "and -T with a value, -R) are accepted and do nothing.\n"
    "\n"
    "Without -p, -l and -s mqd serves what it was started on: a connection or a\n"
    "listening socket from a super-server, else standard input and output.\n";

struct options {
	const char *spool, *socket_path, *user;
	const char *pid_path, *password_path;
	bool background, core;
	char ignored[3 * 10 + 1]; /* options of Berkeley DB, each as " -L" */
	const char *addresses[LISTEN_MAX];
	unsigned naddresses;
	int port; /* -1: not given, 0: no TCP */
	mode_t mode;
	enum spool_sync sync;
	struct serve_options serve;
	struct pool_options pool;
};

__attribute__((format(printf, 1, 2))) _Noreturn static void
die_usage(const char *format, ...)
{
	char complaint[512];
	va_list args;

	va_start(args, format);
	vsnprintf(complaint, sizeof complaint, format, args);
	va_end(args);
	log_error("%s; mqd -h tells more", complaint);
	exit(EXIT_USAGE);
}

_Noreturn static void
die_system(const char *what)
{
	log_error("%s: %s", what, strerror(errno));
	exit(EXIT_SYSTEM);
}

static uint64_t
parse_number(const char *option, const char *s, uint64_t min, uint64_t max)
{
	uint64_t n;

	bool size = strcmp(option, "-B") == 0;

	if ((size ? number_parse_size(s, max, &n) : number_parse(s, strlen(s), max, &n)) == -1 ||
	    n < min)
		die_usage("%s %s: must be a number from %" PRIu64 " to %" PRIu64, option, s, min,
		          max);
	return n;
}

static void
parse_suboptions(struct options *o, char *s)
{
	enum { SYNC, FILESYSTEM, IDLE_TIMEOUT, KEEPALIVE, POOL_IDLE };
	char *const names[] = {
	    [SYNC] = "sync",           [FILESYSTEM] = "filesystem", [IDLE_TIMEOUT] = "idle_timeout",
	    [KEEPALIVE] = "keepalive", [POOL_IDLE] = "pool_idle",   NULL};
	static const char *const syncs[] = {
	    [SPOOL_SYNC_FULL] = "full", [SPOOL_SYNC_PUSH] = "push", [SPOOL_SYNC_NONE] = "none"};
	char *value;

	while (*s != '\0') {
		char *whole = s;
		int name = getsubopt(&s, names, &value);
		if (name == -1 || value == NULL)
			die_usage("-o %s: no such option, or it lacks its value", whole);
		if (name == IDLE_TIMEOUT) {
			o->serve.idle_timeout =
			    (int)parse_number("-o idle_timeout", value, 0, 1000000);
			continue;
		}
		if (name == KEEPALIVE) {
			o->serve.keepalive =
			    (int)parse_number("-o keepalive", value, 0, OS_KEEPALIVE_MAX);
			continue;
		}
		if (name == POOL_IDLE) {
			o->pool.idle_timeout = (int)parse_number("-o pool_idle", value, 0, 1000000);
			continue;
		}
		if (name == FILESYSTEM) {
			bool any = strcmp(value, "any") == 0;
			if (!any && strcmp(value, "local") != 0)
				die_usage("-o filesystem=%s: must be local or any", value);
			place_ignore(any ? PLACE_FILESYSTEM : PLACE_NOTHING);
			continue;
		}
		unsigned i = 0;
		while (i < 3 && strcmp(value, syncs[i]) != 0)
			i++;
		if (i == 3)
			die_usage("-o sync=%s: must be full, push or none", value);
		o->sync = (enum spool_sync)i;
	}
}

static mode_t
parse_mode(const char *s)
{
	mode_t mode = 0;

	if (*s == '\0' || strlen(s) > 4)
		die_usage("-a %s: not an octal mode", s);
	for (const char *p = s; *p != '\0'; p++) {
		if (*p < '0' || *p > '7')
			die_usage("-a %s: not an octal mode", s);
		mode = mode << 3 | (mode_t)(*p - '0');
	}
	return mode;
}

/* memcached takes several addresses in one -l. */
static void
add_addresses(struct options *o, char *s)
{
	if (s[strspn(s, ",")] == '\0')
		die_usage("-l lacks its address");
	for (char *a = strtok(s, ","); a != NULL; a = strtok(NULL, ",")) {
		if (o->naddresses == LISTEN_MAX)
			die_usage("-l %s: too many addresses", a);
		o->addresses[o->naddresses++] = a;
	}
}

/* Command lines that were written for memcacheq are full of these. */
static void
ignore_option(struct options *o, int letter)
{
	size_t len = strlen(o->ignored);

	if (strchr(o->ignored, letter) == NULL)
		snprintf(o->ignored + len, sizeof o->ignored - len, " -%c", letter);
}

static void
parse_options(struct options *o, int argc, char *argv[])
{
	int c;

	while ((c = getopt(argc, argv, "+:A:a:B:C:c:D:dE:e:H:hiL:l:m:No:P:p:RrS:s:T:t:U:u:VvY:")) !=
	       -1) {
		switch (c) {
		case 'a':
			o->mode = parse_mode(optarg);
			break;
		case 'B':
			o->serve.max_body = parse_number("-B", optarg, 1, MESSAGE_LENGTH_MAX);
			break;
		case 'c':
			o->serve.max_connections = parse_number("-c", optarg, 1, 1 << 20);
			break;
		case 'd':
			o->background = true;
			break;
		case 'H':
			o->spool = optarg;
			break;
		case 'i':
			puts("mqd " MQD_VERSION ": " LICENCE);
			exit(0);
		case 'l':
			add_addresses(o, optarg);
			break;
		case 'N':
			o->sync = SPOOL_SYNC_NONE;
			break;
		case 'o':
			parse_suboptions(o, optarg);
			break;
		case 'P':
			o->pid_path = optarg;
			break;
		case 'p':
			o->port = (int)parse_number("-p", optarg, 0, UINT16_MAX);
			break;
		case 'r':
			o->core = true;
			break;
		case 's':
			o->socket_path = optarg;
			break;
		case 't':
			o->pool.spares = parse_number("-t", optarg, 1, 1 << 20);
			break;
		case 'U':
			if (parse_number("-U", optarg, 0, UINT16_MAX) != 0)
				die_usage("-U %s: there is no UDP here", optarg);
			break;
		case 'u':
			o->user = optarg;
			break;
		case 'v':
			log_verbose();
			break;
		case 'V':
			puts("mqd " MQD_VERSION);
			exit(0);
		case 'Y':
			o->password_path = optarg;
			break;
		case 'A':
		case 'C':
		case 'D':
		case 'E':
		case 'e':
		case 'L':
		case 'm':
		case 'R':
		case 'S':
		case 'T':
			ignore_option(o, c);
			break;
		case 'h':
			fputs(usage_text, stdout);
			exit(0);
		default: {
			char letter[2] = {(char)optopt, '\0'};
			die_usage(c == ':' ? "-%s lacks its value" : "-%s: no such option", letter);
		}
		}
	}
	if (optind < argc)
		die_usage("%s: mqd takes options alone", argv[optind]);
	if (o->background && o->port == -1 && o->naddresses == 0 && o->socket_path == NULL)
		o->port = LISTEN_PORT;
}

static bool
listens(const struct options *o)
{
	return o->port != -1 || o->naddresses > 0 || o->socket_path != NULL;
}

/* Under a super-server standard error is often the client's socket, which nothing but
 * replies may reach. */
static void
choose_log(void)
{
	struct stat st;

	bool unfit = fstat(STDERR_FILENO, &st) == -1 || S_ISSOCK(st.st_mode);
	os_open_standard(); /* before syslog's socket takes the place of one */
	if (unfit)
		log_to_syslog();
}

struct identity {
	const char *name; /* NULL: stay who we are */
	uid_t uid;
	gid_t gid;
};

/* Who -u says. /etc/passwd is read directly: a static program cannot ask the name services of the
 * system; a number works for users that are not in the file. */
static struct identity
find_user(const char *user)
{
	struct identity who = {.name = user};
	uint64_t id;
	struct passwd *pw = NULL;

	if (user == NULL)
		return who;
	if (number_parse(user, strlen(user), UINT32_MAX - 1, &id) == 0) {
		who.uid = (uid_t)id;
		who.gid = (gid_t)id;
		return who;
	}
	FILE *f = fopen("/etc/passwd", "re");
	while (f != NULL && (pw = fgetpwent(f)) != NULL && strcmp(pw->pw_name, user) != 0)
		;
	if (pw == NULL)
		die_usage("-u %s: no such user in /etc/passwd", user);
	who.uid = pw->pw_uid;
	who.gid = pw->pw_gid;
	fclose(f);
	return who;
}

/* Become that user for good. Returns whether that worked. */
static bool
become(const struct identity *who)
{
	if (who->name == NULL || who->uid == geteuid())
		return true;
	if (setgroups(1, &who->gid) == 0 && setgid(who->gid) == 0 && setuid(who->uid) == 0)
		return true;
	log_error("%s: %s", who->name, strerror(errno));
	return false;
}

/* The socket is the user's of -u, so that its mode means them, as with memcacheq; where they can make
 * none it is ours. Not by chown: in a directory of theirs it could be given another file. */
static void
bind_unix(struct listeners *l, const struct options *o, const struct identity *who)
{
	uid_t uid = geteuid();
	gid_t gid = getegid();
	bool other = who->name != NULL && who->uid != uid;
	int r;

	if (other && (setegid(who->gid) == -1 || seteuid(who->uid) == -1))
		die_system(who->name);
	r = listen_unix(l, o->socket_path, o->mode);
	if (other) {
		if (seteuid(uid) == -1 || setegid(gid) == -1)
			die_system("becoming root again");
		if (r == -1)
			r = listen_unix(l, o->socket_path, o->mode);
	}
	if (r == -1)
		die_system(o->socket_path);
}

static void
bind_all(struct listeners *l, const struct options *o, const struct identity *who)
{
	uint16_t port = (uint16_t)(o->port > 0 ? o->port : LISTEN_PORT);

	if (geteuid() == 0 && o->user == NULL)
		die_usage("as root it listens only with -u: the user to run as, or -u root");
	if (o->pool.idle_timeout > 0)
		die_usage("-o pool_idle is for a socket that somebody else listens on meanwhile");
	for (unsigned i = 0; i < o->naddresses && o->port != 0; i++)
		if (listen_tcp(l, o->addresses[i], port) == -1)
			die_system(o->addresses[i]);
	if (o->port > 0 && o->naddresses == 0 && listen_tcp(l, "*", port) == -1)
		die_system("listening on all addresses");
	if (l->n == 0 && o->socket_path == NULL)
		die_usage("-p 0 leaves nothing to listen on");
	if (o->socket_path != NULL)
		bind_unix(l, o, who);
}

enum socket_kind { NO_SOCKET, CONNECTED, LISTENING };

static enum socket_kind
kind_of(int fd)
{
	int listening = 0;
	socklen_t len = sizeof listening;

	if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) == -1)
		return NO_SOCKET;
	return listening ? LISTENING : CONNECTED;
}

/* How many descriptors were passed as sd_listen_fds(3) says. */
static int
passed_fds(void)
{
	const char *pid = getenv("LISTEN_PID"), *fds = getenv("LISTEN_FDS");
	uint64_t n;

	if (pid == NULL || number_parse(pid, strlen(pid), INT32_MAX, &n) == -1 ||
	    n != (uint64_t)getpid() || fds == NULL)
		return 0;
	if (number_parse(fds, strlen(fds), LISTEN_MAX, &n) == -1)
		die_usage("LISTEN_FDS=%s: must be a number of sockets, %d at most", fds,
		          LISTEN_MAX);
	return (int)n;
}

/*
 * Find out how we were started. Fills *l with sockets to accept on, or returns the
 * descriptor of the one connection to serve; -1 with no listener means standard input and
 * output.
 */
static int
find_socket(struct listeners *l)
{
	enum socket_kind kind = kind_of(STDIN_FILENO);
	int n = passed_fds();

	if (kind == CONNECTED)
		return STDIN_FILENO;
	if (kind == LISTENING) {
		l->fds[l->n++] = STDIN_FILENO;
		return -1;
	}
	for (int fd = FIRST_PASSED_FD; fd < FIRST_PASSED_FD + n; fd++) {
		kind = kind_of(fd);
		if (kind == CONNECTED)
			return fd;
		if (kind == LISTENING)
			l->fds[l->n++] = fd;
	}
	return -1;
}

static void
on_stop(int sig)
{
	serve_terminate(sig);
}

static void
log_refusal(const char *what, const char *path, const char *detail)
{
	(void)what;
	log_error("%s: %s", path, detail);
}

/* The spool is refused. Clients need not know why. */
_Noreturn static void
turn_away(struct spool *sp, int in, int out)
{
	conn_begin(sp, 0, 0, in, out, NULL);
	conn_put_line("SERVER_ERROR spool refused");
	conn_flush();
	conn_end();
	exit(EXIT_SYSTEM);
}

/* Serve the one connection there is, between a reader and a writer. */
static void
serve_one(const struct options *o, int in, int out)
{
	struct sigaction sa = {.sa_handler = on_stop};
	struct spool *sp = spool_at(o->spool, o->sync);

	sigemptyset(&sa.sa_mask);
	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGALRM, &sa, NULL);
	spool_on_mistake(sp, log_refusal);
	/* Who has to give a password is told when that was right. */
	if (!o->serve.ask_password && spool_dirfd(sp) == -1 && spool_is_refused(sp))
		turn_away(sp, in, out);
	serve(sp, &o->serve, in, out);
	spool_close(sp);
}

static void
warn_of_boot_id(void)
{
	char id[OS_BOOT_ID_LEN];

	os_boot_id(id);
	if (id[0] == '-')
		log_error("no boot id (is /proc mounted?): a reboot will not be noticed");
}

static void
load_passwords(const char *path)
{
	unsigned line;
	const char *fault = auth_load(path, &line);

	if (fault != NULL && line > 0)
		log_error("%s:%u: %s", path, line, fault);
	else if (fault != NULL)
		log_error("%s: %s", path, fault);
	if (fault != NULL)
		exit(EXIT_SYSTEM);
}

/* Why the spool is none, or NULL. If there is none yet it may come; but not when an init script, which
 * was told that all is well, would be the last to hear of a mistyped path. */
static const char *
spool_fault(const struct options *o)
{
	int fd = open(o->spool, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	const char *fault = NULL;
	struct stat st;

	if (fd == -1)
		return o->background ? strerror(errno) : NULL;
	if (fstat(fd, &st) == 0)
		fault = place_fault(fd, &st, o->spool);
	/* A queue's directory would have the name of a file of its. */
	if (fault == NULL && fstatat(fd, "queue.list", &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	    S_ISREG(st.st_mode))
		fault = "memcacheq's database lies here (queue.list): move it away, or give mqd "
		        "another directory";
	close(fd);
	return fault;
}

/* The pool is about to serve. A core file goes to the current directory. */
static int
now_ready(const void *options)
{
	const struct options *o = options;

	if (o->background) {
		if (daemon_ready(o->core) == -1)
			return -1;
		log_to_syslog();
	}
	if (o->ignored[0] != '\0')
		log_error("options of Berkeley DB, which do nothing here:%s", o->ignored);
	return 0;
}

/* Have a pool serve, on a spool that is not refused. Returns the status to exit with. */
static int
serve_many(struct options *o, const struct listeners *l)
{
	const char *fault = spool_fault(o);

	if (fault != NULL) {
		log_refusal("refused", o->spool, fault);
		return EXIT_SYSTEM;
	}
	warn_of_boot_id();
	if (o->core)
		core_allow();
	o->pool.ready = now_ready;
	o->pool.argument = o;
	if (pool_serve(l, o->spool, o->sync, &o->serve, &o->pool) == -1) {
		log_error("starting to accept: %s", strerror(errno));
		return EXIT_SYSTEM;
	}
	return 0;
}

static bool
write_pid_file(const char *path)
{
	pid_t holder;

	if (pidfile_write(path, &holder) == 0)
		return true;
	if (errno == EEXIST)
		log_error("%s: process %ld holds it", path, (long)holder);
	else if (errno == EINVAL)
		log_error("%s: is no regular file, or has a second name", path);
	else
		log_error("%s: %s", path, strerror(errno));
	return false;
}

#define WHOLE_MAX (2 * (size_t)PATH_MAX)

/* A path that means the same in another directory; in `whole`, if need be, of WHOLE_MAX. */
static const char *
absolute(const char *path, char *whole)
{
	if (path == NULL || path[0] == '/')
		return path;
	if (getcwd(whole, PATH_MAX) == NULL)
		die_system(path);
	size_t n = strlen(whole);
	snprintf(whole + n, WHOLE_MAX - n, "/%s", path);
	return whole;
}

/* Bind, serve, and leave nothing behind. Returns the status to exit with. */
static int
listen_and_serve(struct options *o)
{
	struct identity who = find_user(o->user);
	struct listeners l = {.n = 0};
	int status = EXIT_SYSTEM;

	if (o->background && daemon_begin() == -1)
		die_system("going into the background");
	bind_all(&l, o, &who);
	if (o->background) {
		/* Not before: an address of a Unix socket may be too long when it is absolute. */
		static char paths[3][WHOLE_MAX];
		o->socket_path = absolute(o->socket_path, paths[0]);
		o->spool = absolute(o->spool, paths[1]);
		o->pid_path = absolute(o->pid_path, paths[2]);
	}
	if ((o->pid_path == NULL || write_pid_file(o->pid_path)) && become(&who))
		status = serve_many(o, &l);
	if (o->socket_path != NULL && listen_remove(&l, o->socket_path) == -1)
		log_error("%s: removing it: %s", o->socket_path, strerror(errno));
	if (pidfile_remove() == -1)
		log_error("%s: removing it: %s", o->pid_path, strerror(errno));
	return status;
}

/* Serve what we were started on. Returns the status to exit with. */
static int
serve_what_is_there(struct options *o)
{
	struct identity who = find_user(o->user);
	struct listeners l = {.n = 0};
	int fd;

	if (o->pid_path != NULL)
		die_usage("-P goes with -d, -p, -l or -s");
	fd = find_socket(&l);
	if (!become(&who))
		return EXIT_SYSTEM;
	if (l.n > 0)
		return serve_many(o, &l);
	if (o->ignored[0] != '\0')
		log_info("options of Berkeley DB, which do nothing here:%s", o->ignored);
	serve_one(o, fd != -1 ? fd : STDIN_FILENO, fd != -1 ? fd : STDOUT_FILENO);
	return 0;
}

int
main(int argc, char *argv[])
{
	struct options o = {
	    .spool = SPOOL_DEFAULT,
	    .port = -1,
	    .mode = 0700,
	    .sync = SPOOL_SYNC_FULL,
	    .serve = {.max_body = 1 << 20, .max_connections = 1024, .keepalive = 60},
	    .pool = {.spares = 4}};
	sigset_t none;

	choose_log();
	parse_options(&o, argc, argv);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL); /* what we were started with need not be ours */
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN); /* EFBIG is answered like any other */
	umask(077);
	if (o.core && core_raise_limit() == -1)
		die_system("-r: allowing core files");
	if (o.password_path != NULL) {
		load_passwords(o.password_path);
		o.serve.ask_password = true;
	}
	return listens(&o) ? listen_and_serve(&o) : serve_what_is_there(&o);
}
