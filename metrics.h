/* metrics.h: the spool in figures, for who watches it. */
#ifndef MQ_METRICS_H
#define MQ_METRICS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "journal.h"
#include "spool.h"

/* A spool at one time, or nearly so. */
struct metrics {
	char **queues; /* encoded, sorted: those that could be looked at */
	struct queue_stat *stats;
	size_t n, unreadable; /* of these; and how many others there are */
	uint64_t status;      /* enum config_status */
	/* Of the file system, in bytes; 0 inodes: it does not count them. */
	uint64_t size, available, inodes, free_inodes;
	bool counted; /* there is a .stats, and stats.h has the counters of it */
	bool logged;  /* there is a log */
	struct journal_glance log;
};

/* Look at all of a spool that glance_open opened. 0, and metrics_end is to be called; or -1 with
 * errno. */
int metrics_begin(struct metrics *m, struct spool *sp);
void metrics_end(struct metrics *m);

/* In the text format of Prometheus, version 0.0.4. */
void metrics_print(FILE *out, const struct metrics *m);

#endif
