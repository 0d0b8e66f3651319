/* report.h: what is told of the spool. */
#ifndef MQ_REPORT_H
#define MQ_REPORT_H

#include "proto.h"
#include "serve.h"

/* Carry out `stats`, of the kind that the command names: in general, queue, settings, reset. */
void report_stats(const struct command *c, const struct serve_options *options);

/* Carry out `dump_stats`, of all queues or of those that the command names. */
void report_dump_stats(const struct command *c);

#endif
