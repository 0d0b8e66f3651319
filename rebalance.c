/*
 * rebalance.c: mqctl rebalance: move queues to the servers where their clients look for them now.
 *
 * Servers do not know of each other; the clients hash a queue's name to find its server (ketama.c).
 * Once the list of servers is another one, some queues are at home elsewhere: this pushes what waits
 * in them to that server, as any client would, and removes it here.
 *
 *     claim the oldest; set <queue>; STORED; remove it; the next
 *
 * One message at a time, so they arrive in their order. A message is here until the other has said
 * that it has it: none can be lost. Who dies between the answer and the removal leaves one that is at
 * both; whoever runs it again goes on, and pushes that one once more. What comes in meanwhile is
 * moved, too: it is over when a look at all queues finds nothing; or after some, lest a wrong --self
 * has us push to ourselves for ever.
 *
 * Queues that belong together stay so: a child (fanout.c) and a queue of dead letters go where
 * the queue is at home that they are of, for there they are filled.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client.h"
#include "ketama.h"
#include "mqctl.h"
#include "number.h"
#include "progress.h"
#include "queue_name.h"
#include "stage.h"
#include "transfer.h"

#define PASSES 10
#define LOCK_NAME "rebalance" /* an empty folder of stage.c's, for its lock */

struct rebalance {
	struct spool *spool;
	struct ketama *ring;
	struct ketama_server *servers;
	char **addresses;
	size_t n, self;
	struct client client;
	size_t connected; /* to which of the servers, or n */
	uint64_t moved;
	int code;
};

/* host:port or host:port:weight. */
static void
read_server(char *text, struct ketama_server *s)
{
	char *first = strchr(text, ':'), *last = strrchr(text, ':');
	uint64_t weight = 1;

	if (first != NULL && last != first && text[0] != '[') {
		if (number_parse(last + 1, strlen(last + 1), UINT16_MAX, &weight) == -1 ||
		    weight == 0)
			die(EXIT_USAGE, "%s: not host:port:weight", text);
		*last = '\0';
	}
	if (client_address(text, s->host, sizeof s->host, &s->port) == -1 || s->port == 0)
		die(EXIT_USAGE, "%s: not host:port", text);
	s->weight = (uint32_t)weight;
}

static void
read_servers(struct rebalance *rb, char *list)
{
	size_t room = 1;

	for (char *p = list; *p != '\0'; p++)
		room += *p == ',';
	rb->servers = calloc(room, sizeof *rb->servers);
	rb->addresses = calloc(room, sizeof *rb->addresses);
	if (rb->servers == NULL || rb->addresses == NULL)
		die_system("the list of servers");
	for (char *p = list; p != NULL; rb->n++) {
		char *comma = strchr(p, ',');
		if (comma != NULL)
			*comma++ = '\0';
		rb->addresses[rb->n] = p;
		read_server(p, &rb->servers[rb->n]);
		p = comma;
	}
}

static size_t
find_server(const struct rebalance *rb, const char *address)
{
	for (size_t i = 0; i < rb->n; i++)
		if (strcmp(rb->addresses[i], address) == 0)
			return i;
	die(EXIT_USAGE, "%s: --self must be one of the servers in --to", address);
}

/* Where a queue's name leads clients, by that of the queue that it belongs to. */
static size_t
home_of(const struct rebalance *rb, const char *queue, char *key)
{
	int len = queue_name_decode(queue, key);
	size_t n = len == -1 ? 0 : strcspn(key, "+"), tail = strlen(SPOOL_DEAD);

	if (n == 0)
		n = (size_t)len;
	while (n > tail && memcmp(key + n - tail, SPOOL_DEAD, tail) == 0)
		n -= tail;
	return ketama_home(rb->ring, key, n);
}

/* The message is back at its place, and the other server perhaps has it nonetheless. */
_Noreturn static void
give_up(struct rebalance *rb, struct claim *c, const char *address, const char *why)
{
	char text[512];

	snprintf(text, sizeof text, "%s", why);
	if (c != NULL)
		claim_release(c, false);
	die(EXIT_SYSTEM, "%s: %s; %" PRIu64 " were moved, run it again to go on", address, text,
	    rb->moved);
}

static void
connect_to(struct rebalance *rb, size_t server)
{
	if (rb->connected == server)
		return;
	if (rb->connected != rb->n)
		client_close(&rb->client);
	rb->connected = rb->n;
	if (client_open(&rb->client, rb->addresses[server]) == -1 ||
	    client_hello(&rb->client) == -1)
		give_up(rb, NULL, rb->addresses[server], client_error(&rb->client));
	rb->connected = server;
}

static int
send_message(struct client *client, const char *key, const struct claim *c)
{
	char line[CLIENT_LINE_MAX], buf[65536];
	const struct message *m = &c->message;
	ssize_t n;

	/* Up to 30 days an exptime is so many seconds from now, and no date is as long ago. */
	int len = snprintf(line, sizeof line, "set %s %" PRIu32 " %" PRIu64 " %" PRIu64 "\r\n", key,
	                   m->flags, m->expiry, m->length);
	if (client_send(client, line, (size_t)len) == -1)
		return -1;
	for (uint64_t at = 0; at < m->length; at += (uint64_t)n) {
		n = claim_read(c, buf, sizeof buf, at);
		if (n == 0)
			errno = EIO;
		if (n <= 0 || client_send(client, buf, (size_t)n) == -1)
			return -1;
	}
	return client_send(client, "\r\n", 2);
}

/* Move one message that is ours. */
static void
move_message(struct rebalance *rb, const char *key, size_t home, struct claim *c)
{
	const char *address = rb->addresses[home];
	char line[CLIENT_LINE_MAX];

	if (send_message(&rb->client, key, c) == -1 ||
	    client_line(&rb->client, line, sizeof line) == -1)
		give_up(rb, c, address, client_error(&rb->client));
	if (strcmp(line, "STORED") != 0) {
		make_printable(line);
		give_up(rb, c, address, line);
	}
	if (claims_finish(c, 1) == -1 || spool_settle(rb->spool) == -1)
		die_system("removing a message that was moved");
	rb->moved++;
	progress_step(1);
}

/* Move up to `max` messages. Returns how many were moved. */
static uint64_t
move_queue(struct rebalance *rb, const char *queue, const char *key, size_t home, uint64_t max)
{
	uint64_t before = rb->moved;
	enum claim_result r;
	struct claim c;

	while (!transfer_interrupted() && rb->moved - before < max &&
	       (r = spool_claim(rb->spool, queue, CLAIM_ANYHOW, &c)) != CLAIM_EMPTY) {
		if (r == CLAIM_ERROR)
			die_system(queue);
		if (r == CLAIM_GOT)
			move_message(rb, key, home, &c);
	}
	return rb->moved - before;
}

static void
begin_queue(struct rebalance *rb, const char *queue, size_t home, uint64_t waiting)
{
	char text[QUEUE_NAME_MAX + 32];

	connect_to(rb, home);
	snprintf(text, sizeof text, "moving %s", queue);
	progress_begin(text, waiting);
}

/* A queue that cannot be looked at, or is not there: the others are moved nonetheless. */
static void
complain(struct rebalance *rb, const char *queue, int code, const char *why)
{
	fprintf(stderr, "mqctl: %s: %s\n", queue, why);
	if (code > rb->code)
		rb->code = code;
}

/* One look at all queues; if they were `named` each must be there. Returns how many messages were
 * moved. */
static uint64_t
pass(struct rebalance *rb, char **queues, bool named, bool last)
{
	char key[QUEUE_NAME_MAX + 1];
	struct queue_stat st;
	uint64_t moved = 0;

	for (size_t i = 0; queues[i] != NULL && !transfer_interrupted(); i++) {
		size_t home = home_of(rb, queues[i], key);
		int r = spool_stat(rb->spool, queues[i], &st);
		if (r == -1 && last)
			complain(rb, queues[i], EXIT_SYSTEM, spool_strerror(errno));
		if (r == 0 && named && last)
			complain(rb, queues[i], EXIT_NOTHING, "no such queue");
		if (r != 1 || home == rb->self)
			continue;
		if (!client_is_key(key)) {
			if (last)
				fprintf(stderr, "mqctl: %s: no client can name it; it stays\n",
				        queues[i]);
			continue;
		}
		if (st.waiting > 0) {
			begin_queue(rb, queues[i], home, st.waiting);
			moved += move_queue(rb, queues[i], key, home, st.waiting);
			progress_end();
		}
		if (last && st.delayed + st.in_flight > 0)
			fprintf(stderr,
			        "mqctl: %s: %" PRIu64 " delayed and %" PRIu64
			        " on their way to clients stay for now; run it again later\n",
			        queues[i], st.delayed, st.in_flight);
	}
	return moved;
}

int
cmd_rebalance(struct spool *sp, int argc, char *argv[])
{
	static struct rebalance rb;
	const char *self = NULL;
	char none[] = "", *to = none;
	bool weighted = true;
	int i = 0, passes = 0;

	rb = (struct rebalance){.spool = sp};
	for (; i < argc && strncmp(argv[i], "--", 2) == 0; i++) {
		if (strcmp(argv[i], "--unweighted") == 0)
			weighted = false;
		else if (strcmp(argv[i], "--to") == 0 && i + 1 < argc)
			to = argv[++i];
		else if (strcmp(argv[i], "--self") == 0 && i + 1 < argc)
			self = argv[++i];
		else
			die(EXIT_USAGE, "rebalance: %s: no such option, or nothing behind it",
			    argv[i]);
	}
	if (*to == '\0' || self == NULL)
		die(EXIT_USAGE, "rebalance: --to host:port,... and --self host:port are needed");
	read_servers(&rb, to);
	rb.self = find_server(&rb, self);
	rb.connected = rb.n;
	rb.ring = ketama_make(rb.servers, rb.n, weighted);
	if (rb.ring == NULL)
		die_system("the ring of servers");
	/* Two at once would not keep the order. No more than that is lost where it cannot be made. */
	int lock = stage_open(sp, LOCK_NAME, NULL);
	if (lock == -1 && errno == EWOULDBLOCK)
		die(EXIT_SYSTEM, "rebalance: another mqctl is moving queues");
	transfer_mind_signals();
	spool_sweep(sp); /* what we had claimed when we were killed is the first again */
	for (bool last = false;;) {
		char **queues = queues_arg(sp, argc - i, argv + i);
		uint64_t moved = pass(&rb, queues, i < argc, last);
		spool_list_free(queues);
		if (transfer_interrupted() || last)
			break;
		last = moved == 0 || ++passes == PASSES;
	}
	stage_remove(sp, LOCK_NAME, NULL);
	if (lock != -1)
		close(lock);
	if (rb.connected != rb.n)
		client_close(&rb.client);
	ketama_free(rb.ring);
	free(rb.servers);
	free(rb.addresses);
	printf("%" PRIu64 "\n", rb.moved);
	if (transfer_interrupted())
		die(EXIT_SYSTEM, "interrupted; run it again to go on");
	return rb.code;
}
