/*
 * escape [accept]: try what a worker that was taken over would try, for tests/systemd.bats.
 *
 * Prints a line for each: what it is, and whether that was refused or allowed. It prints to the
 * connection that is its standard input, or with `accept` to the first one on the socket that it
 * was passed, or without either to standard output. Linked statically, as mqd is, so that it runs
 * in the sandbox of mqd's units in its place.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define MODE_UNTRIED 0600
#define MODE_SETUID 04700

static int out = STDOUT_FILENO;

static void
tell(const char *what, int failed)
{
	dprintf(out, "%s %s\r\n", failed ? "refused" : "allowed", what);
}

static void
try_to_read(const char *path)
{
	int fd = open(path, O_RDONLY);

	tell(path, fd == -1);
	if (fd != -1)
		close(fd);
}

static void
try_to_create(const char *path, mode_t mode)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, mode);

	tell(path, fd == -1);
	if (fd != -1) {
		close(fd);
		unlink(path);
	}
}

static void
try_a_socket(const char *what, int family, int type)
{
	int fd = socket(family, type, 0);

	tell(what, fd == -1);
	if (fd != -1)
		close(fd);
}

/* To whoever listens on the port that mqd is reached at. */
static void
try_to_connect(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(22201)};
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	tell("connect", connect(fd, (struct sockaddr *)&a, sizeof a) == -1);
	if (fd != -1)
		close(fd);
}

int
main(int argc, char *argv[])
{
	struct stat st;

	if (argc > 1 && strcmp(argv[1], "accept") == 0)
		out = accept(3, NULL, NULL); /* sd_listen_fds(3) */
	else if (fstat(STDIN_FILENO, &st) == 0 && S_ISSOCK(st.st_mode))
		out = STDIN_FILENO;

	/* What it may, or all that is refused below would tell nothing. */
	try_to_create("/var/spool/mqd/own", MODE_UNTRIED);

	try_to_connect();
	try_a_socket("netlink", AF_NETLINK, SOCK_RAW);
	try_a_socket("packet", AF_PACKET, SOCK_RAW);
	try_to_read("/etc/shadow");
	try_to_read("/proc/1/stat");
	try_to_create("/usr/planted", MODE_UNTRIED);
	try_to_create("/var/spool/planted", MODE_UNTRIED);
	try_to_create("/dev/shm/planted", MODE_UNTRIED);
	try_to_create("/run/lock/planted", MODE_UNTRIED);
	try_to_create("/var/spool/mqd/setuid", MODE_SETUID);
	tell("ptrace", ptrace(PTRACE_TRACEME, 0, NULL, NULL) == -1);
	/* On nothing, so that it does no harm where it may: there the error is another. */
	tell("mount", mount("none", "/nowhere", "tmpfs", 0, NULL) == -1 && errno == EPERM);
	tell("unshare", unshare(CLONE_NEWUTS) == -1);
	tell("chroot", chroot("/var/spool/mqd/") == -1);
	tell("personality", personality(PER_LINUX32) == -1);
	tell("write-execute", mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
	                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED);
	tell("kill", kill(1, 0) == -1);
	tell("setuid", setuid(0) == -1);
	return 0;
}
