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

/* An error that a client can bring about as often as it likes: beyond a hundred such lines in a
 * minute they are left out, which is said. */
void log_often(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* From now on this process and those that it forks count these lines together. */
void log_share(void);

#endif
