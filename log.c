/* log.c: one line for each thing that an operator should know. */
#include "log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <syslog.h>
#include <unistd.h>

static bool to_syslog, verbose;

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
