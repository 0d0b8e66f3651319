/* log.c: one line for each thing that an operator should know. */
#include "log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <syslog.h>
#include <unistd.h>

#include "os.h"

#define OFTEN_MAX 100 /* lines of log_often in OFTEN_MS */
#define OFTEN_MS 60000

static bool to_syslog, verbose;

/* Which OFTEN_MS it is, and in the low 16 bits how many lines there were in it. */
static _Atomic uint64_t own_count, *count = &own_count;

void
log_to_syslog(void)
{
	to_syslog = true;
	openlog("mqd", LOG_PID | LOG_NDELAY, LOG_DAEMON);
}

void
log_verbose(void)
{
	verbose = true;
}

/* A queue's name may hold control bytes: they must not reach a terminal or split a line.
 */
static void
make_printable(char *s)
{
	for (; *s != '\0'; s++)
		if ((unsigned char)*s < ' ' || *s == 0x7f)
			*s = '?';
}

static void
log_line(int priority, const char *format, va_list args)
{
	char line[1024];
	int e = errno;

	vsnprintf(line, sizeof line, format, args);
	make_printable(line);
	if (to_syslog)
		syslog(priority, "%s", line);
	else
		dprintf(STDERR_FILENO, "mqd[%ld]: %s\n", (long)getpid(), line);
	errno = e;
}

void
log_error(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	log_line(LOG_ERR, format, args);
	va_end(args);
}

void
log_info(const char *format, ...)
{
	va_list args;

	if (!verbose)
		return;
	va_start(args, format);
	log_line(LOG_INFO, format, args);
	va_end(args);
}

void
log_share(void)
{
	void *shared =
	    mmap(NULL, sizeof *count, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (shared != MAP_FAILED) /* else each counts for itself */
		count = shared;
}

/* The number of one more line, up to OFTEN_MAX + 2, at which counting ends. */
static unsigned
count_line(void)
{
	uint64_t now = os_monotonic_ms() / OFTEN_MS << 16, old = atomic_load(count), next;

	do {
		next = old >> 16 == now >> 16 ? old + 1 : now + 1;
		if ((next & 0xffff) > OFTEN_MAX + 1)
			break;
	} while (!atomic_compare_exchange_weak(count, &old, next));
	return (unsigned)(next & 0xffff);
}

void
log_often(const char *format, ...)
{
	unsigned n = count_line();
	va_list args;

	if (n > OFTEN_MAX) {
		if (n == OFTEN_MAX + 1)
			log_error("more lines like these are left out, for a minute at most");
		return;
	}
	va_start(args, format);
	log_line(LOG_ERR, format, args);
	va_end(args);
}
