/* stats.h: counters shared by all processes of a spool, and who is connected. */
#ifndef MQ_STATS_H
#define MQ_STATS_H

#include <stdint.h>

enum stats_counter {
	STATS_CONNECTIONS,
	STATS_CMD_GET,
	STATS_CMD_SET,
	STATS_GET_HITS,
	STATS_GET_MISSES,
	STATS_BYTES_READ,
	STATS_BYTES_WRITTEN,
	STATS_ITEMS, /* messages ever stored */
	STATS_COUNTERS
};

/*
 * Share the counters kept in directory `dirfd`, made at first use. Returns 0; -1 with
 * errno, and then this process counts for itself alone.
 */
int stats_open(int dirfd);

/* Read the counters once, and count who is connected, without changing the file, which need not be
 * there: 0, or -1 with errno. */
int stats_glance(int dirfd);

void stats_add(enum stats_counter counter, uint64_t n);
uint64_t stats_get(enum stats_counter counter);

/* Set all counters to 0; the time of creation stays. */
void stats_reset(void);

/* Seconds since the spool's counters were first made; and when that was, in seconds since 1970. */
uint64_t stats_uptime(void);
uint64_t stats_created(void);

/* From now until stats_leave, or the process's death, this process serves a connection.
 */
void stats_enter(void);
void stats_leave(void);

/* How many processes serve a connection now. */
uint64_t stats_connections(void);

#endif
