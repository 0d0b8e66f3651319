/*
 * metrics.c: the spool in figures, for who watches it: mqctl metrics.
 *
 * One look at everything (glance.c: no lock, nothing changed), then the text format of Prometheus
 * from tables: a line here is a metric there. Base units, counters end in _total, and what can fall
 * is no counter: of a counter that fell Prometheus thinks that it began anew, and adds all of it. So
 * `taken` is a gauge, since a message that comes back counts as not taken.
 *
 * A queue is twenty series or so, told apart by the label `queue`; see glance_label for its name.
 */
#include "metrics.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/statvfs.h>

#include "figures.h"
#include "glance.h"
#include "mqctl.h"
#include "serve.h"
#include "stats.h"

int
metrics_begin(struct metrics *m, struct spool *sp)
{
	struct statvfs vfs;
	size_t n = 0;

	*m = (struct metrics){.queues = spool_list(sp)};
	if (m->queues == NULL)
		return -1;
	while (m->queues[n] != NULL)
		n++;
	m->status = spool_config(sp, NULL)->status;
	m->stats = calloc(n + 1, sizeof *m->stats);
	if (m->stats == NULL || spool_config_known(sp, NULL) == -1 ||
	    fstatvfs(spool_dirfd(sp), &vfs) == -1) {
		int e = errno;
		metrics_end(m);
		errno = e;
		return -1;
	}
	for (size_t i = 0; i < n; i++) {
		char *name = m->queues[i];
		int r = glance_queue(sp, name, &m->stats[m->n]);
		m->unreadable += r == -1;
		m->queues[i] = NULL;
		if (r == 1)
			m->queues[m->n++] = name;
		else
			free(name);
	}
	m->size = (uint64_t)vfs.f_blocks * vfs.f_frsize;
	m->available = (uint64_t)vfs.f_bavail * vfs.f_frsize;
	m->inodes = vfs.f_files;
	m->free_inodes = vfs.f_favail;
	m->counted = stats_glance(spool_dirfd(sp)) == 0;
	m->logged = journal_glance(sp, &m->log) == 1;
	return 0;
}

void
metrics_end(struct metrics *m)
{
	spool_list_free(m->queues);
	free(m->stats);
}

/*
 * The text format
 */

static const struct counter_metric {
	const char *name, *type;
	enum stats_counter counter;
	const char *help;
} counter_metrics[] = {
    {"connections_total", "counter", STATS_CONNECTIONS, "Connections that were served."},
    {"stored_messages_total", "counter", STATS_ITEMS, "Messages that clients stored."},
    {"set_commands_total", "counter", STATS_CMD_SET, "Commands that store a message."},
    {"get_commands_total", "counter", STATS_CMD_GET, "Keys in commands that get a message."},
    {"get_hits_total", "counter", STATS_GET_HITS, "Of these, answered with a message."},
    {"get_misses_total", "counter", STATS_GET_MISSES, "Of these, answered without."},
    {"received_bytes_total", "counter", STATS_BYTES_READ, "Bytes that clients sent."},
    {"sent_bytes_total", "counter", STATS_BYTES_WRITTEN, "Bytes that were sent to clients."},
};

static void
head(FILE *out, const char *name, const char *type, const char *help)
{
	fprintf(out, "# HELP mqd_%s %s\n# TYPE mqd_%s %s\n", name, help, name, type);
}

static void
one(FILE *out, const char *name, const char *type, uint64_t value, const char *help)
{
	head(out, name, type, help);
	fprintf(out, "mqd_%s %" PRIu64 "\n", name, value);
}

/* A label's value, with what the format wants escaped. */
static void
put_label(FILE *out, const char *s)
{
	for (; *s != '\0'; s++) {
		if (*s == '\\' || *s == '"')
			putc('\\', out);
		putc(*s, out); /* there are no control characters in it */
	}
}

static void
put_value(FILE *out, const struct figure *f, const struct queue_stat *qs)
{
	uint64_t value = figure_value(qs, f);

	if (f->unit == FIGURE_MS)
		fprintf(out, "%" PRIu64 ".%03" PRIu64 "\n", value / 1000, value % 1000);
	else
		fprintf(out, "%" PRIu64 "\n", f->unit == FIGURE_PAUSE ? value > 0 : value);
}

static void
print_queues(FILE *out, const struct metrics *m)
{
	char label[QUEUE_NAME_MAX + 1], name[64];

	for (const struct figure *f = figures; f < figures + FIGURES; f++) {
		snprintf(name, sizeof name, "queue_%s", f->metric);
		head(out, name, f->type, f->help);
		for (size_t i = 0; i < m->n; i++) {
			glance_label(m->queues[i], label);
			fprintf(out, "mqd_%s{queue=\"", name);
			put_label(out, label);
			fprintf(out, "\"} ");
			put_value(out, f, &m->stats[i]);
		}
	}
}

static void
print_log(FILE *out, const struct journal_glance *log)
{
	one(out, "log_size_bytes", "gauge", log->size, "Bytes that fit into the log.");
	one(out, "log_unflushed_bytes", "gauge", log->unflushed,
	    "Bytes of the log that are not on the disk yet: pushes not acknowledged yet, and "
	    "removals "
	    "that a power loss would undo.");
	one(out, "log_waiting_bytes", "gauge", log->waiting,
	    "Bytes of the log whose messages may be in it alone, until a checkpoint flushes them "
	    "where "
	    "they lie.");
	one(out, "log_flushes_total", "counter", log->flushes, "Flushes of the log.");
	one(out, "log_failed", "gauge", log->failed,
	    "1: a flush has failed, or a removal was not written to it; a new log is to be made.");
	head(out, "log_appended_timestamp_seconds", "gauge",
	     "When something was appended to the log last.");
	fprintf(out, "mqd_log_appended_timestamp_seconds %lld.%03ld\n",
	        (long long)log->appended.tv_sec, log->appended.tv_nsec / 1000000);
}

static void
print_counters(FILE *out)
{
	one(out, "connections", "gauge", stats_connections(), "Connections that are served now.");
	for (size_t i = 0; i < sizeof counter_metrics / sizeof counter_metrics[0]; i++) {
		const struct counter_metric *cm = &counter_metrics[i];
		one(out, cm->name, cm->type, stats_get(cm->counter), cm->help);
	}
	one(out, "counters_created_timestamp_seconds", "gauge", stats_created(),
	    "When the spool's counters were made.");
}

static void
print_status(FILE *out, uint64_t status)
{
	head(out, "spool_status", "gauge",
	     "1 for what clients may do in the spool, 0 for the others.");
	for (uint64_t s = STATUS_UP; s <= STATUS_QUIESCENT; s++)
		fprintf(out, "mqd_spool_status{status=\"%s\"} %d\n", config_status_name(s),
		        s == status);
}

void
metrics_print(FILE *out, const struct metrics *m)
{
	head(out, "build_info", "gauge", "1, with the version that says this.");
	fprintf(out, "mqd_build_info{version=\"" MQD_VERSION "\"} 1\n");
	print_queues(out, m);
	one(out, "spool_queues", "gauge", m->n + m->unreadable, "Queues in the spool.");
	one(out, "spool_unreadable_queues", "gauge", m->unreadable,
	    "Queues that could not be looked at, and have no figures here.");
	print_status(out, m->status);
	one(out, "spool_size_bytes", "gauge", m->size, "Size of the spool's file system.");
	one(out, "spool_available_bytes", "gauge", m->available,
	    "Bytes of it that mqd can still use.");
	if (m->inodes > 0) {
		one(out, "spool_inodes", "gauge", m->inodes, "Inodes of the spool's file system.");
		one(out, "spool_free_inodes", "gauge", m->free_inodes,
		    "Inodes of it that mqd can still use; a message needs one.");
	}
	if (m->logged)
		print_log(out, &m->log);
	if (m->counted)
		print_counters(out);
}

int
cmd_metrics(struct spool *sp, int argc, char *argv[])
{
	struct metrics m;

	(void)argc, (void)argv;
	if (glance_open(sp) == -1 || metrics_begin(&m, sp) == -1)
		die_system("the spool");
	metrics_print(stdout, &m);
	metrics_end(&m);
	return 0;
}
