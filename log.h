/* log.h: one line for each thing that an operator should know. */
#ifndef MQ_LOG_H
#define MQ_LOG_H

/* Log to syslog(3) rather than to standard error, which may be the client's socket. */
void log_to_syslog(void);

/* Log what happens, not just what goes wrong. */
void log_verbose(void);

/* printf-like, without a newline. */
void log_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_info(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
