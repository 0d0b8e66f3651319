/*
 * load: drives a message queue with N connections, checks every reply and every body, and
 * reports the rate and the latencies.
 *
 * The same program, in the same way, for mqd, memcacheq and (as a cache: the ceiling)
 * memcached, for beanstalkd and for redis lists. Nothing but a complete and correct
 * operation is counted; the first wrong reply ends the program with status 1 and one line
 * that says what was wrong.
 *
 * Reading order: wire.c (protocols), body.c (messages), ledger.c (exactly once),
 * workload.c (what is done), drive.c (how), this file (options and report).
 */
#include "load.h"

#include "ledger.h"

#include "../number.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/un.h>
#include <time.h>

static const char usage_text[] =
    "usage: load [option...] workload address\n"
    "  address: 127.0.0.1:port, ::1:port, or the path of a unix socket (with a slash in "
    "it)\n"
    "  workload:\n"
    "    alternate   each connection pushes one message, pops one, and so on\n"
    "    push        only pushes\n"
    "    drain       only pops, until every connection has got a miss\n"
    "    churn       a burst of pushes, then all popped, and so on; the rate of each "
    "interval\n"
    "    perrequest  as alternate, with a new connection for each operation\n"
    "    exchange    pushes and pops at random until --count messages are acknowledged, "
    "pops\n"
    "                the rest, and checks that each came exactly once\n"
    "  -P, --protocol NAME     memcache (default: mqd, memcacheq), memcached (a cache: "
    "each\n"
    "                          connection gets the value it has set), beanstalk, redis,\n"
    "                          null (stores nothing: every get must find nothing)\n"
    "  -c, --connections N     1 to 1000 (default 1)\n"
    "      --knocking N        at the start, at most N that nobody serves yet at a time\n"
    "  -n, --count N           messages; stop after so many\n"
    "  -s, --seconds S         stop after so long (default 5, unless --count is given); "
    "0.5\n"
    "                          is half a second\n"
    "  -b, --body N[:M]        bytes of a body, or a range (default 100, at least 24)\n"
    "  -q, --queues N          connections use N queues in turn (default 1)\n"
    "  -Q, --queue NAME        (default load; beanstalk: default) -I is added to "
    "several\n"
    "  -B, --burst N           churn: messages of one burst (default 20000)\n"
    "  -i, --interval S        churn: (default 30)\n"
    "  -r, --run N             number of this run, part of each body (default 0)\n"
    "  -f, --foreign           messages of other runs are welcome (a backlog)\n"
    "  -t, --timeout S         give up when nothing has come for so long (default 30)\n"
    "      --expect-empty      afterwards every queue must be empty\n"
    "      --tolerate-drops    exchange: somebody kills the server's workers\n"
    "      --allow-miss        a peer that may say \"empty\" when it is not\n"
    "      --unordered         a peer that does not keep the order\n"
    "      --record FILE       a line for each push acknowledged and each body "
    "received:\n"
    "                          push|pop RUN PRODUCER SEQUENCE\n"
    "  -H, --human             a report to read, rather than one line of key=value\n"
    "status: 0; 1 a wrong reply, or a message lost or doubled; 100 usage; 111 system\n";

struct options opt = {
    .protocol = wire_protocols,
    .connections = 1,
    .knocking = CONNECTIONS,
    .queues = 1,
    .shortest = 100,
    .longest = 100,
    .burst = 20000,
    .interval = 30 * SECOND,
    .timeout = 30 * SECOND,
};
struct results res;
struct conn *conns;
uint64_t now;

void
die(int code, const char *format, ...)
{
	va_list args;

	fputs("load: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(code);
}

void
conn_die(const struct conn *c, const char *format, ...)
{
	static const char *const ops[] = {"hello", "push", "pop"};
	char what[2 * WIRE_LINE];
	va_list args;

	va_start(args, format);
	vsnprintf(what, sizeof what, format, args);
	va_end(args);
	die(EXIT_CHECK, "connection %u, %s %s, after %" PRIu64 " pushes and %" PRIu64 " pops: %s",
	    c->index, c->state == BUSY ? ops[c->reply.op] : "idle", c->queue_name, res.pushes,
	    res.pops, what);
}

uint64_t
clock_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

/* Values below 64 have a bucket each; above, every power of two is cut into 64. */
void
histogram_add(struct histogram *h, uint64_t latency)
{
	unsigned shift = 0;

	while (latency >> shift >= 128)
		shift++;
	h->buckets[(uint64_t)shift * 64 + (latency >> shift)]++;
	h->n++;
}

/* The latency, in µs, within which the given part of the operations were done. */
static double
percentile(const struct histogram *a, const struct histogram *b, double part)
{
	uint64_t seen = 0;
	double wanted = part * (double)(a->n + b->n);

	for (unsigned i = 0; i < sizeof a->buckets / sizeof a->buckets[0]; i++) {
		seen += a->buckets[i] + b->buckets[i];
		if (seen > 0 && (double)seen >= wanted) {
			unsigned shift = i < 128 ? 0 : i / 64 - 1;
			return (double)((uint64_t)(i - shift * 64) << shift) / 1e3;
		}
	}
	return 0;
}

static void
report_latency(const char *name, const struct histogram *a, const struct histogram *b)
{
	double p50 = percentile(a, b, 0.5), p99 = percentile(a, b, 0.99),
	       p999 = percentile(a, b, 0.999);

	if (a->n + b->n == 0)
		return;
	if (opt.human)
		printf("  %-6s p50 %.0f, p99 %.0f, p99.9 %.0f us\n", name, p50, p99, p999);
	else
		printf(" %s_p50=%.0f %s_p99=%.0f %s_p999=%.0f", name, p50, name, p99, name, p999);
}

/* One number of the report. */
static void
report(const char *key, const char *explained, uint64_t value)
{
	if (opt.human)
		printf("  %10" PRIu64 "  %s\n", value, explained);
	else
		printf(" %s=%" PRIu64, key, value);
}

/* Returns the exit status: whether anything was lost or doubled. */
static int
report_exchange(void)
{
	struct tally t;

	ledger_tally(&t);
	report("acknowledged", "messages acknowledged", t.acknowledged);
	report("unack_delivered", "pushes without a reply, message delivered",
	       t.unacknowledged_delivered);
	report("unack_absent", "pushes without a reply, message never seen",
	       t.unacknowledged - t.unacknowledged_delivered);
	report("cuts", "connections cut", res.cuts);
	report("cut_idle", "... with no request on its way", res.cut_idle);
	report("cut_push", "... waiting for the reply of a push", res.cut_push);
	report("cut_pop", "... waiting for the reply of a pop", res.cut_pop);
	report("cut_pop_body", "... within a body (must come again)", res.cut_pop_body);
	report("cut_pop_end", "... between a body and the end of its reply", res.cut_pop_end);
	report("lapses", "cuts right behind a delivery, which may come again", res.lapses);
	report("dup_permitted", "of these came again (permitted)", t.duplicates_permitted);
	report("dup_forbidden", "DUPLICATES without such a cut (forbidden)",
	       t.duplicates_forbidden);
	report("lost", "acknowledged messages LOST (forbidden)", t.lost);
	return t.lost + t.duplicates_forbidden > 0 ? EXIT_CHECK : 0;
}

static int
report_all(const struct workload *workload)
{
	static const struct histogram none;
	double seconds = (double)(res.end - res.start) / (double)SECOND;
	uint64_t ops = res.pushes + res.pops;
	int status = 0;

	printf(opt.human ? "%s, %s: %u connections, %u queues, bodies of %" PRIu64 " to %" PRIu64
	                   " bytes\n"
	                 : "workload=%s protocol=%s connections=%u queues=%u body=%" PRIu64
	                   ":%" PRIu64,
	       workload->name, opt.protocol->name, opt.connections, opt.queues, opt.shortest,
	       opt.longest);
	printf(opt.human ? "  %.0f operations/s (%" PRIu64 " in %.3f s)\n"
	                 : " ops_s=%.0f ops=%" PRIu64 " seconds=%.3f",
	       seconds > 0 ? (double)ops / seconds : 0, ops, seconds);
	report_latency("all", &res.push_latency, &res.pop_latency);
	report_latency("push", &res.push_latency, &none);
	report_latency("pop", &res.pop_latency, &none);
	if (!workload->one_shot)
		report("ready_ms", "ms until each connection was served",
		       (res.start - res.begin) / 1000000);
	report("pushes", "pushes", res.pushes);
	report("pops", "pops", res.pops);
	report("misses", "misses", res.misses);
	if (res.foreign > 0)
		report("foreign", "of the pops were of other runs", res.foreign);
	if (res.reordered > 0)
		report("reordered", "of the pops were out of order", res.reordered);
	if (res.fastest_interval > 0)
		report("slowest_percent", "% of the best interval's rate in the worst",
		       res.slowest_interval * 100 / res.fastest_interval);
	if (workload->exactly_once)
		status = report_exchange();
	if (!opt.human)
		putchar('\n');
	return status;
}

static uint64_t
number(const char *option, const char *text, uint64_t min, uint64_t max)
{
	uint64_t value;

	if (number_parse_size(text, max, &value) == -1 || value < min)
		die(EXIT_USAGE, "%s: a number from %" PRIu64 " to %" PRIu64 ", not \"%s\"", option,
		    min, max, text);
	return value;
}

/* Seconds with up to three decimals, in nanoseconds. */
static uint64_t
duration(const char *option, char *text)
{
	static const uint64_t unit[] = {0, SECOND / 10, SECOND / 100, SECOND / 1000};
	char *point = strchr(text, '.');
	uint64_t parts = 0;

	if (point != NULL) {
		size_t digits = strlen(point + 1);
		if (digits < 1 || digits > 3)
			die(EXIT_USAGE, "%s: one to three decimals, not \"%s\"", option, text);
		parts = number(option, point + 1, 0, 999) * unit[digits];
		*point = '\0';
	}
	parts += number(option, text, 0, 1000000) * SECOND;
	if (parts == 0)
		die(EXIT_USAGE, "%s: more than nothing", option);
	return parts;
}

static void
body_option(char *text)
{
	char *colon = strchr(text, ':');

	if (colon != NULL)
		*colon = '\0';
	opt.shortest = opt.longest = number("--body", text, BODY_HEAD, UINT32_MAX);
	if (colon != NULL)
		opt.longest = number("--body", colon + 1, opt.shortest, UINT32_MAX);
}

/* Numeric addresses only: a resolver would make the static binary depend on shared
 * libraries. */
static void
address(char *text)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	struct sockaddr_in in4 = {.sin_family = AF_INET};
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
	char *colon = strrchr(text, ':');

	if (strchr(text, '/') != NULL) {
		if (strlen(text) >= sizeof un.sun_path)
			die(EXIT_USAGE, "%s: too long for a socket", text);
		strcpy(un.sun_path, text);
		memcpy(&opt.address, &un, opt.address_length = sizeof un);
		return;
	}
	if (colon == NULL)
		die(EXIT_USAGE, "%s: neither address:port nor a path", text);
	*colon = '\0';
	in4.sin_port = in6.sin6_port = htons((uint16_t)number("port", colon + 1, 1, UINT16_MAX));
	if (inet_pton(AF_INET, text, &in4.sin_addr) == 1)
		memcpy(&opt.address, &in4, opt.address_length = sizeof in4);
	else if (inet_pton(AF_INET6, text, &in6.sin6_addr) == 1)
		memcpy(&opt.address, &in6, opt.address_length = sizeof in6);
	else
		die(EXIT_USAGE, "%s: not a numeric address", text);
}

enum { KNOCKING = 256, EXPECT_EMPTY, TOLERATE_DROPS, ALLOW_MISS, UNORDERED, RECORD };

static const struct option long_options[] = {
    {"protocol", required_argument, NULL, 'P'},
    {"connections", required_argument, NULL, 'c'},
    {"knocking", required_argument, NULL, KNOCKING},
    {"count", required_argument, NULL, 'n'},
    {"seconds", required_argument, NULL, 's'},
    {"body", required_argument, NULL, 'b'},
    {"queues", required_argument, NULL, 'q'},
    {"queue", required_argument, NULL, 'Q'},
    {"burst", required_argument, NULL, 'B'},
    {"interval", required_argument, NULL, 'i'},
    {"run", required_argument, NULL, 'r'},
    {"foreign", no_argument, NULL, 'f'},
    {"timeout", required_argument, NULL, 't'},
    {"expect-empty", no_argument, NULL, EXPECT_EMPTY},
    {"tolerate-drops", no_argument, NULL, TOLERATE_DROPS},
    {"allow-miss", no_argument, NULL, ALLOW_MISS},
    {"unordered", no_argument, NULL, UNORDERED},
    {"record", required_argument, NULL, RECORD},
    {"human", no_argument, NULL, 'H'},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

static void
option(int letter)
{
	switch (letter) {
	case 'P':
		opt.protocol = wire_find(optarg);
		if (opt.protocol == NULL)
			die(EXIT_USAGE, "--protocol: one of %s", wire_names);
		break;
	case 'c':
		opt.connections = (unsigned)number("--connections", optarg, 1, CONNECTIONS);
		break;
	case KNOCKING:
		opt.knocking = (unsigned)number("--knocking", optarg, 1, CONNECTIONS);
		break;
	case 'n':
		opt.count = number("--count", optarg, 1, UINT32_MAX);
		break;
	case 's':
		opt.duration = duration("--seconds", optarg);
		break;
	case 'b':
		body_option(optarg);
		break;
	case 'q':
		opt.queues = (unsigned)number("--queues", optarg, 1, CONNECTIONS);
		break;
	case 'Q':
		opt.queue = optarg;
		break;
	case 'B':
		opt.burst = number("--burst", optarg, 1, UINT32_MAX);
		break;
	case 'i':
		opt.interval = duration("--interval", optarg);
		break;
	case 'r':
		opt.run = (uint32_t)number("--run", optarg, 0, UINT16_MAX);
		break;
	case 'f':
		opt.foreign = true;
		break;
	case 't':
		opt.timeout = number("--timeout", optarg, 1, 1000000) * SECOND;
		break;
	case EXPECT_EMPTY:
		opt.expect_empty = true;
		break;
	case TOLERATE_DROPS:
		opt.tolerate_drops = true;
		break;
	case ALLOW_MISS:
		opt.allow_miss = true;
		break;
	case UNORDERED:
		opt.unordered = true;
		break;
	case RECORD:
		opt.record = fopen(optarg, "w");
		if (opt.record == NULL)
			die(EXIT_SYSTEM, "%s: %s", optarg, strerror(errno));
		break;
	case 'H':
		opt.human = true;
		break;
	case 'h':
		fputs(usage_text, stdout);
		exit(0);
	default:
		fputs(usage_text, stderr);
		exit(EXIT_USAGE);
	}
}

/* What does not go together, and what follows from what was given. */
static void
check_options(const struct workload *w)
{
	const struct protocol *p = opt.protocol;

	if (opt.queue == NULL)
		opt.queue = p->queue;
	if (strlen(opt.queue) > QUEUE_NAME - sizeof "-1000")
		die(EXIT_USAGE, "--queue: at most %zu bytes", QUEUE_NAME - sizeof "-1000");
	if (opt.queues > opt.connections)
		die(EXIT_USAGE, "more queues than connections");
	if (p->keeps && !w->for_cache)
		die(EXIT_USAGE, "%s is no workload for a cache", w->name);
	if (p->keeps && opt.expect_empty)
		die(EXIT_USAGE, "a cache is never empty");
	if (p->hello_needed && w->one_shot && (opt.queues > 1 || strcmp(opt.queue, p->queue) != 0))
		die(EXIT_USAGE, "%s with %s: only the queue \"%s\"", w->name, p->name, p->queue);
	if (w->timed && opt.count != 0)
		die(EXIT_USAGE, "%s goes by --seconds", w->name);
	if (w->counted && (opt.count == 0 || opt.duration != 0))
		die(EXIT_USAGE, "%s goes by --count", w->name);
	if (opt.tolerate_drops && !w->exactly_once)
		die(EXIT_USAGE, "--tolerate-drops does not go with %s", w->name);
	if (opt.foreign && w->exactly_once)
		die(EXIT_USAGE, "%s begins with empty queues", w->name);
	if (opt.duration == 0 && opt.count == 0 && !w->until_miss)
		opt.duration = 5 * SECOND;
	if (opt.interval > opt.duration)
		opt.interval = opt.duration;
}

static const struct workload *
options(int argc, char *argv[])
{
	int letter;

	while ((letter =
	            getopt_long(argc, argv, "P:c:n:s:b:q:Q:B:i:r:ft:Hh", long_options, NULL)) != -1)
		option(letter);
	if (argc - optind != 2)
		option('?');
	const struct workload *workload = workload_find(argv[optind]);
	if (workload == NULL)
		die(EXIT_USAGE, "%s: not one of %s", argv[optind], workload_names);
	opt.workload = workload;
	address(argv[optind + 1]);
	check_options(workload);
	return workload;
}

/* As many descriptors as the system lets us have; 1,000 connections need more than the
 * usual. */
static void
raise_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == -1)
		die(EXIT_SYSTEM, "getrlimit: %s", strerror(errno));
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit) == -1)
		die(EXIT_SYSTEM, "setrlimit: %s", strerror(errno));
}

int
main(int argc, char *argv[])
{
	const struct workload *workload = options(argc, argv);

	raise_limit();
	signal(SIGPIPE, SIG_IGN); /* drive.c sees EPIPE */
	body_setup(opt.shortest, opt.longest);
	workload_setup();
	drive();
	int status = report_all(workload);
	if (opt.record != NULL && fclose(opt.record) != 0)
		die(EXIT_SYSTEM, "--record: %s", strerror(errno));
	if (fflush(stdout) != 0)
		die(EXIT_SYSTEM, "standard output: %s", strerror(errno));
	return status;
}
