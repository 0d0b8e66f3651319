/*
 * mqctl.h: what the files of mqctl share.
 *
 * A command is a function cmd_<name> that gets the arguments behind its name, as many as its line
 * in mqctl.c's table allows, and returns the exit code. The spool is open, and the process is the
 * spool's owner.
 */
#ifndef MQ_MQCTL_H
#define MQ_MQCTL_H

#include <stdbool.h>
#include <stdint.h>

#include "spool.h"

enum {
	EXIT_NOTHING = 1,  /* no such queue or message; check found something */
	EXIT_USAGE = 100,  /* the arguments are wrong */
	EXIT_SYSTEM = 111, /* what was asked for did not work */
};

/* Say why on standard error, and exit. (Not _Noreturn: cppcheck does not know that.) */
__attribute__((noreturn, format(printf, 2, 3))) void die(int code, const char *format, ...);

/* Likewise, with what errno says of it, and EXIT_SYSTEM. */
__attribute__((noreturn)) void die_system(const char *what);

/* These get a spool that is not open yet: see glance.h. */
int cmd_metrics(struct spool *sp, int argc, char *argv[]);
int cmd_http(struct spool *sp, int argc, char *argv[]);

/* Under a super-server standard error can be the client's socket, which is to see replies alone. */
void http_keep_quiet(void);

/* The encoded name of the queue that an argument means, which is as `ls` shows it (encoded) or as a
 * client does. Of two calls both results stay. */
const char *queue_arg(const char *arg);

/* The number of a message. */
uint64_t number_arg(const char *arg);

/* The queues that were named, encoded, or all of them. To be freed with spool_list_free. */
char **queues_arg(struct spool *sp, int argc, char *argv[]);

/* The spool's directory, as it was named. */
extern const char *spool_path;

/* --json: a command that lists prints one document for programs (json.h), not columns. Only those
 * that can are started with it: see run in mqctl.c. */
extern bool want_json;

/* As queue_arg, but a slash, which is in no queue's name, is the spool itself: NULL. */
const char *config_arg(const char *arg);

/* A spool_report that says it on standard error. */
void print_mistake(const char *what, const char *path, const char *detail);

/* What somebody else wrote, and goes to a terminal: all that is not printable ASCII is '?' then. */
void make_printable(char *text);

/* Show how far the next call is that takes long, with progress.h. Ends with progress_end. */
void show_progress(struct spool *sp, const char *what);

/* list.c, top.c, tail.c */
int cmd_ls(struct spool *sp, int argc, char *argv[]);
int cmd_open(struct spool *sp, int argc, char *argv[]);
int cmd_peek(struct spool *sp, int argc, char *argv[]);
int cmd_config(struct spool *sp, int argc, char *argv[]);
int cmd_status(struct spool *sp, int argc, char *argv[]);
int cmd_check(struct spool *sp, int argc, char *argv[]);
int cmd_top(struct spool *sp, int argc, char *argv[]);
int cmd_tail(struct spool *sp, int argc, char *argv[]);

/* transfer.c, rebalance.c */
int cmd_export(struct spool *sp, int argc, char *argv[]);
int cmd_import(struct spool *sp, int argc, char *argv[]);
int cmd_rebalance(struct spool *sp, int argc, char *argv[]);

#endif
