/* figures.h: what is told of a queue, with each of its names. */
#ifndef MQ_FIGURES_H
#define MQ_FIGURES_H

#include <stddef.h>
#include <stdint.h>

#include "spool.h"

enum figure_unit {
	FIGURE_COUNT,
	FIGURE_MS,    /* of an age, which is none if no message waits */
	FIGURE_PAUSE, /* ms; told is whether it is one */
};

struct figure {
	const char *json;    /* for programs: mqctl --json */
	const char *kestrel; /* in stats and dump_stats; NULL: not there */
	const char *metric;  /* behind mqd_queue_, for Prometheus */
	const char *type;    /* of that: what can fall is no counter */
	size_t at;           /* of a uint64_t in struct queue_stat */
	enum figure_unit unit;
	const char *help;
};

#define FIGURES 17
extern const struct figure figures[FIGURES];

uint64_t figure_value(const struct queue_stat *qs, const struct figure *f);

#endif
