/*
 * mqctl.h: what the files of mqctl share.
 *
 * A command is a function cmd_<name> that gets the arguments behind its name, as many as its line
 * in mqctl.c's table allows, and returns the exit code. The spool is open, and the process is the
 * spool's owner.
 */
#ifndef MQ_MQCTL_H
#define MQ_MQCTL_H

#include <stdint.h>

#include "spool.h"

enum {
	EXIT_NOTHING = 1,  /* no such queue or message; check found something */
	EXIT_USAGE = 100,  /* the arguments are wrong */
	EXIT_SYSTEM = 111, /* what was asked for did not work */
};

/* Say why on standard error, and exit. */
__attribute__((format(printf, 2, 3))) _Noreturn void die(int code, const char *format, ...);

/* Likewise, with what errno says of it, and EXIT_SYSTEM. */
_Noreturn void die_system(const char *what);

/* The encoded name of the queue that an argument means, which is as `ls` shows it (encoded) or as a
 * client does. Of two calls both results stay. */
const char *queue_arg(const char *arg);

/* The number of a message. */
uint64_t number_arg(const char *arg);

/* The queues that were named, encoded, or all of them. To be freed with spool_list_free. */
char **queues_arg(struct spool *sp, int argc, char *argv[]);

/* transfer.c, rebalance.c */
int cmd_export(struct spool *sp, int argc, char *argv[]);
int cmd_import(struct spool *sp, int argc, char *argv[]);
int cmd_rebalance(struct spool *sp, int argc, char *argv[]);

#endif
