/*
 * floor-syscalls: the bare system calls of a push and a pop, in a loop, with no network, no lock
 * and no check: what a queue of one file per message cannot beat on this file system, unless it
 * does less.
 *
 *     push   create and write a file, rename it to its number
 *     pop    open it, rename it aside, read it, unlink it
 *
 * With --sync each push and each pop is on the disk before the next: the file, and the directory
 * after each change. (Not a floor for many connections, which can share a flush.)
 *
 * Reports as `load` does: one line of key=value, with ops_s, the pushes and pops per second; with
 * --churn a line for each interval before it.
 */
#include "../number.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { NAME = 32, BODY_MAX = 2 << 20 };

static const char usage_text[] =
    "usage: floor-syscalls [--sync] [--body N] --ms N directory      push and pop in turn\n"
    "       floor-syscalls [--sync] [--body N] --burst N directory   push only, N times\n"
    "       floor-syscalls [--body N] --churn N --interval MS --ms N directory\n"
    "                                   push N times, pop N times, and so on\n";

static bool synced;
static size_t body_length = 100;
static char body[BODY_MAX];
static int dir;

static void
check(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "floor-syscalls: %s: %s\n", what, strerror(errno));
	exit(111);
}

static void
sync_directory(void)
{
	if (synced)
		check(fsync(dir) == 0, "fsync of the directory");
}

static void
push(uint64_t n)
{
	char name[NAME];

	snprintf(name, sizeof name, "%016" PRIu64, n);
	int fd = openat(dir, ".new", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	check(fd != -1, "create");
	check(write(fd, body, body_length) == (ssize_t)body_length, "write");
	if (synced)
		check(fdatasync(fd) == 0, "fdatasync");
	check(close(fd) == 0, "close");
	check(renameat(dir, ".new", dir, name) == 0, "rename");
	sync_directory();
}

static void
pop(uint64_t n)
{
	char name[NAME];

	snprintf(name, sizeof name, "%016" PRIu64, n);
	int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
	check(fd != -1, "open");
	check(renameat(dir, name, dir, ".claimed") == 0, "rename");
	check(read(fd, body, body_length) == (ssize_t)body_length, "read");
	check(unlinkat(dir, ".claimed", 0) == 0, "unlink");
	check(close(fd) == 0, "close");
	sync_directory();
}

static double
seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static uint64_t
number(const char *text, uint64_t max)
{
	uint64_t value;

	if (number_parse(text, strlen(text), max, &value) == -1 || value == 0) {
		fprintf(stderr, "floor-syscalls: not a number from 1 to %" PRIu64 ": %s\n", max,
		        text);
		exit(100);
	}
	return value;
}

/* Bursts of pushes, then as many pops, and the rate of each interval. */
static void
churn(uint64_t burst, double interval, double duration)
{
	uint64_t n[2] = {0, 0}, pushes = 0, pops = 0, all = 0;
	double time[2] = {0, 0}, slowest = 0, fastest = 0;
	double start = seconds(), begin = start, now = start, mark = start;

	while (now < start + duration) {
		bool pops_now = pops < pushes && pushes % burst == 0;
		if (pops_now)
			pop(++pops);
		else
			push(++pushes);
		now = seconds();
		n[pops_now]++;
		time[pops_now] += now - mark;
		mark = now;
		if (now < begin + interval)
			continue;
		double rate = (double)(n[0] + n[1]) / (now - begin);
		printf("interval from=%.0f to=%.0f ops_s=%.0f push_s=%.0f pop_s=%.0f\n",
		       begin - start, now - start, rate, time[0] > 0 ? (double)n[0] / time[0] : 0,
		       time[1] > 0 ? (double)n[1] / time[1] : 0);
		slowest = slowest == 0 || rate < slowest ? rate : slowest;
		fastest = rate > fastest ? rate : fastest;
		all += n[0] + n[1];
		n[0] = n[1] = 0;
		time[0] = time[1] = 0;
		begin = now;
	}
	printf("workload=churn ops_s=%.0f ops=%" PRIu64 " seconds=%.3f slowest_percent=%.0f\n",
	       (double)all / (now - start), all, now - start,
	       fastest > 0 ? slowest * 100 / fastest : 0);
}

int
main(int argc, char *argv[])
{
	static const struct option options[] = {
	    {"sync", no_argument, NULL, 's'},
	    {"body", required_argument, NULL, 'b'},
	    {"ms", required_argument, NULL, 'm'},
	    {"burst", required_argument, NULL, 'n'},
	    {"churn", required_argument, NULL, 'c'},
	    {"interval", required_argument, NULL, 'i'},
	    {NULL, 0, NULL, 0},
	};
	uint64_t ms = 0, burst = 0, churned = 0, interval = 0, pushes = 0, pops = 0;
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == 's')
			synced = true;
		else if (option == 'b')
			body_length = (size_t)number(optarg, BODY_MAX);
		else if (option == 'm')
			ms = number(optarg, 1000000000);
		else if (option == 'n')
			burst = number(optarg, 1000000000);
		else if (option == 'c')
			churned = number(optarg, 1000000000);
		else if (option == 'i')
			interval = number(optarg, 1000000000);
		else
			argc = 0;
	}
	if (argc - optind != 1 || (ms == 0) == (burst == 0) || (churned == 0) != (interval == 0)) {
		fputs(usage_text, stderr);
		return 100;
	}
	dir = open(argv[optind], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	check(dir != -1, argv[optind]);

	if (churned > 0 && ms > 0) {
		churn(churned, (double)interval / 1e3, (double)ms / 1e3);
		return 0;
	}
	double start = seconds(), now = start;
	while (burst > 0 ? pushes < burst : now < start + (double)ms / 1e3) {
		push(++pushes);
		if (burst == 0)
			pop(++pops);
		now = seconds();
	}
	printf("workload=%s body=%zu ops_s=%.0f ops=%" PRIu64 " seconds=%.3f\n",
	       burst > 0 ? "burst" : "alternate", body_length,
	       (double)(pushes + pops) / (now - start), pushes + pops, now - start);
	return 0;
}
