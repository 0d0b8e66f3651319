/*
 * report.c: what is told of the spool: stats and dump_stats.
 *
 * Nothing is kept for it. The counters of commands and connections are those that all processes
 * share (stats.c); what a queue holds is asked of its state (spool_stat), one queue after the
 * other. So each figure was right when it was read, but a total over all queues may never have
 * been true at one moment.
 */
#include "report.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "connection.h"
#include "figures.h"
#include "queue_name.h"
#include "stats.h"

/*
 * Queues
 */

/* A queue's name as clients know it, into `name` of QUEUE_NAME_MAX + 1 bytes. What mqctl made with a
 * name that cannot be sent is told as in the spool. Returns the length. */
static int
name_on_wire(const char *queue, char *name)
{
	int len = queue_name_decode(queue, name);

	if (len != -1 &&
	    (memchr(name, ' ', (size_t)len) != NULL || memchr(name, '\n', (size_t)len) != NULL))
		len = snprintf(name, QUEUE_NAME_MAX + 1, "%s", queue);
	return len;
}

/* All queues at one time, or nearly so. */
struct survey {
	char **queues; /* as spool_list has them */
	struct queue_stat *stats;
	bool *there; /* those that could not be looked at, or are gone by now, are not */
};

static void
end_survey(struct survey *s)
{
	spool_list_free(s->queues);
	free(s->stats);
	free(s->there);
}

/* Of memory or descriptors: then figures without this queue would be wrong. Else it is no queue of ours,
 * or on a disk that fails, and the others are told. */
static bool
is_shortage(int error)
{
	return error == EMFILE || error == ENFILE || error == ENOMEM;
}

/* Returns 0, and then end_survey is to be called; or -1 with errno. */
static int
survey(struct survey *s)
{
	size_t n = 0;

	*s = (struct survey){.queues = spool_list(conn.spool)};
	if (s->queues == NULL)
		return -1;
	while (s->queues[n] != NULL)
		n++;
	s->stats = calloc(n + 1, sizeof *s->stats);
	s->there = calloc(n + 1, sizeof *s->there);
	if (s->stats == NULL || s->there == NULL) {
		end_survey(s);
		errno = ENOMEM;
		return -1;
	}
	for (size_t i = 0; i < n; i++) {
		int r = spool_stat(conn.spool, s->queues[i], &s->stats[i]);
		s->there[i] = r == 1;
		if (r == -1 && is_shortage(errno)) {
			int e = errno;
			end_survey(s);
			errno = e;
			return -1;
		}
	}
	return 0;
}

/*
 * stats
 */

static void
stat_number(const char *name, uint64_t value)
{
	conn_put_line("STAT %s %" PRIu64, name, value);
}

static void
stat_time(const char *name, struct timeval tv)
{
	conn_put_line("STAT %s %ld.%06ld", name, (long)tv.tv_sec, (long)tv.tv_usec);
}

static void
stat_queue(const char *queue, const struct queue_stat *qs)
{
	char name[QUEUE_NAME_MAX + 1];
	int len = name_on_wire(queue, name);

	for (size_t i = 0; i < FIGURES; i++)
		if (figures[i].kestrel != NULL)
			conn_put_line("STAT queue_%.*s_%s %" PRIu64, len, name, figures[i].kestrel,
			              figure_value(qs, &figures[i]));
}

static void
stats_general(const struct command *c)
{
	struct rusage usage;
	struct survey all;
	uint64_t items = 0, bytes = 0;

	if (survey(&all) == -1) {
		conn_reply_error(c, "stats", errno);
		return;
	}
	for (size_t i = 0; all.queues[i] != NULL; i++) {
		items += all.stats[i].waiting;
		bytes += all.stats[i].bytes;
	}
	getrusage(RUSAGE_SELF, &usage);
	stat_number("pid", (uint64_t)getpid());
	stat_number("uptime", stats_uptime());
	stat_number("time", (uint64_t)time(NULL));
	conn_put_line("STAT version " MQD_VERSION);
	stat_number("pointer_size", sizeof(void *) * 8);
	stat_time("rusage_user", usage.ru_utime);
	stat_time("rusage_system", usage.ru_stime);
	stat_number("curr_items", items);
	stat_number("total_items", stats_get(STATS_ITEMS));
	stat_number("bytes", bytes);
	stat_number("curr_connections", stats_connections());
	stat_number("total_connections", stats_get(STATS_CONNECTIONS));
	stat_number("cmd_get", stats_get(STATS_CMD_GET));
	stat_number("cmd_set", stats_get(STATS_CMD_SET));
	stat_number("get_hits", stats_get(STATS_GET_HITS));
	stat_number("get_misses", stats_get(STATS_GET_MISSES));
	stat_number("bytes_read", stats_get(STATS_BYTES_READ));
	stat_number("bytes_written", stats_get(STATS_BYTES_WRITTEN));
	stat_number("threads", 1);
	for (size_t i = 0; all.queues[i] != NULL; i++)
		if (all.there[i])
			stat_queue(all.queues[i], &all.stats[i]);
	end_survey(&all);
	conn_put_line("END");
}

static void
stats_queue(const struct command *c)
{
	struct queue_stat qs;
	char name[QUEUE_NAME_MAX + 1];
	char **queues = spool_list(conn.spool);
	int error = 0;

	if (queues == NULL) {
		conn_reply_error(c, "stats queue", errno);
		return;
	}
	for (size_t i = 0; queues[i] != NULL; i++) {
		int len = name_on_wire(queues[i], name), r = spool_stat(conn.spool, queues[i], &qs);
		if (r == 1)
			conn_put_line("STAT %.*s %" PRIu64 "/%" PRIu64, len, name, qs.put,
			              qs.taken);
		else if (r == -1 && is_shortage(errno))
			error = errno;
	}
	spool_list_free(queues);
	if (error != 0)
		conn_reply_error(c, "stats queue", error);
	else
		conn_put_line("END");
}

static void
stats_settings(const struct serve_options *options)
{
	stat_number("maxconns", options->max_connections);
	stat_number("item_size_max", options->max_body);
	conn_put_line("STAT evictions off");
	conn_put_line("STAT cas_enabled yes");
	stat_number("idle_timeout", (uint64_t)options->idle_timeout);
	conn_put_line("END");
}

void
report_stats(const struct command *c, const struct serve_options *options)
{
	if (c->key.s == NULL) {
		stats_general(c);
	} else if (proto_word_is(c->key, "queue")) {
		stats_queue(c);
	} else if (proto_word_is(c->key, "settings")) {
		stats_settings(options);
	} else if (proto_word_is(c->key, "reset")) {
		stats_reset();
		conn_put_line("RESET");
	} else {
		conn_put_line("END"); /* slabs, items, sizes, ...: there is nothing of the kind
		                    here */
	}
}

/*
 * dump_stats
 */

/* One that is not there has no fields. Returns 0; or an error, of a shortage. */
static int
dump_queue(const char *queue, int len, const char *name)
{
	struct queue_stat qs;
	int r = spool_stat(conn.spool, queue, &qs), error = r == -1 ? errno : 0;

	if (r == -1)
		conn_log_error(queue, error);
	conn_put_line("queue '%.*s' {", len, name);
	for (size_t i = 0; r == 1 && i < FIGURES; i++)
		if (figures[i].kestrel != NULL)
			conn_put_line("  %s=%" PRIu64, figures[i].kestrel,
			              figure_value(&qs, &figures[i]));
	conn_put_line("}");
	return is_shortage(error) ? error : 0;
}

/* The last line, after all queues. */
static void
end_dump(const struct command *c, int error)
{
	if (error != 0)
		conn_reply_error(c, "dump_stats", error);
	else
		conn_put_line("END");
}

static void
dump_all(const struct command *c)
{
	char name[QUEUE_NAME_MAX + 1];
	char **queues = spool_list(conn.spool);
	int error = 0;

	if (queues == NULL) {
		conn_reply_error(c, "dump_stats", errno);
		return;
	}
	for (size_t i = 0; queues[i] != NULL; i++) {
		int e = dump_queue(queues[i], name_on_wire(queues[i], name), name);
		error = e != 0 ? e : error;
	}
	spool_list_free(queues);
	end_dump(c, error);
}

void
report_dump_stats(const struct command *c)
{
	char queue[QUEUE_NAME_MAX + 1];
	int error = 0;

	if (c->key.s == NULL) {
		dump_all(c);
		return;
	}
	for (struct word w = c->key; w.s != NULL; proto_next_word(c->end, &w)) {
		const char *refusal = proto_key_error(w, queue);
		if (refusal != NULL) {
			conn_reply(c, refusal);
			return;
		}
	}
	for (struct word w = c->key; w.s != NULL; proto_next_word(c->end, &w))
		if (proto_key_error(w, queue) == NULL) {
			int e = dump_queue(queue, (int)w.len, w.s);
			error = e != 0 ? e : error;
		}
	end_dump(c, error);
}
