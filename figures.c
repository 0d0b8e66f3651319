/*
 * figures.c: what is told of a queue, with each of its names.
 *
 * One row for each figure, in the order in which Kestrel's users know them. stats and dump_stats
 * (report.c), Prometheus (metrics.c) and programs (list.c) are told what stands here.
 */
#include "figures.h"

#include <string.h>

#define AT(member) offsetof(struct queue_stat, member)

const struct figure figures[FIGURES] = {
    {"waiting", "items", "waiting_messages", "gauge", AT(waiting), FIGURE_COUNT,
     "Messages that can be delivered."},
    {"bytes", "bytes", "waiting_bytes", "gauge", AT(bytes), FIGURE_COUNT,
     "Bytes of body in the waiting messages."},
    {"put", "total_items", "put_messages_total", "counter", AT(put), FIGURE_COUNT,
     "Messages that came in."},
    {"delayed", "delayed", "delayed_messages", "gauge", AT(delayed), FIGURE_COUNT,
     "Messages that were delayed, and that no client has asked for since they were due."},
    {"expired", "expired_items", "expired_messages_total", "counter", AT(expired), FIGURE_COUNT,
     "Messages that were removed, or moved elsewhere, because of their age."},
    {"discarded", "discarded", "discarded_messages_total", "counter", AT(discarded), FIGURE_COUNT,
     "Messages that were removed to make room for younger ones."},
    {"age_ms", "age", "oldest_age_seconds", "gauge", AT(age_ms), FIGURE_MS,
     "Age of the oldest waiting message; 0 if none waits."},
    {"getters", "waiters", "getters", "gauge", AT(waiters), FIGURE_COUNT,
     "Clients that wait for a message."},
    {"in_flight", "open_transactions", "in_flight_messages", "gauge", AT(in_flight), FIGURE_COUNT,
     "Messages on their way to a client, or left by one that died and about to come back."},
    {"opened", "transactions", "opened_messages_total", "counter", AT(opened), FIGURE_COUNT,
     "Messages that were delivered to be closed by the client."},
    {"aborted", "canceled_transactions", "aborted_messages_total", "counter", AT(aborted),
     FIGURE_COUNT, "Opened messages that were given back, by the client or for it."},
    {"redelivered", "redelivered", "redelivered_messages_total", "counter", AT(redelivered),
     FIGURE_COUNT, "Messages that came back with a failed delivery counted."},
    {"dead", "dead", "dead_messages_total", "counter", AT(dead), FIGURE_COUNT,
     "Messages that were moved to the dead letters."},
    {"flushes", "total_flushes", "flushes_total", "counter", AT(flushes), FIGURE_COUNT,
     "Times that all messages were removed."},
    {"taken", NULL, "taken_messages", "gauge", AT(taken), FIGURE_COUNT,
     "Messages that ever left the queue, on whatever way, less those that came back: use delta, "
     "not rate."},
    {"bad", NULL, "bad_files_total", "counter", AT(bad), FIGURE_COUNT,
     "Files that failed their check and were moved to .bad."},
    {"paused", NULL, "paused", "gauge", AT(paused_ms), FIGURE_PAUSE,
     "1: the queue is paused, and nothing is delivered from it."},
};

uint64_t
figure_value(const struct queue_stat *qs, const struct figure *f)
{
	uint64_t value;

	memcpy(&value, (const char *)qs + f->at, sizeof value);
	return value;
}
