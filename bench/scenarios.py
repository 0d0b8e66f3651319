"""scenarios: what is measured, in which order, and what is expected of it.

A Scenario is some entries that are run in turn, round after round. An Entry is a label, the
contender it drives and what `load` is told. Scenarios of one group share their servers, which
start before the first of them and stop after the last.

The order matters: what waits for the disk comes first, before others have given the disk much
to do.
"""

import dataclasses
import os

import servers

LONG = os.environ.get("BENCH") == "long"
BURST = 200_000
# Messages waiting, beside 1,000. A million takes a minute or more to push, and as long to remove.
DEPTHS = (BURST, 1_000_000, 10_000_000) if LONG else (BURST,)
CONNECTIONS = (1, 10, 50, 200, 1000)
FEW, MANY = "few", "many"  # queues of the backlog


@dataclasses.dataclass(frozen=True)
class Entry:
    label: str
    contender: str   # in servers.ALL; or a program that measures alone: floor-syscalls
    load: tuple = ()  # what load is told, beside the scenario's


@dataclasses.dataclass(frozen=True)
class Scenario:
    name: str
    title: str
    entries: tuple
    group: str
    load: tuple = ()         # options and workload
    place: str = "disk"
    reference: str = None    # the label of the entry that others are compared with
    floor: str = None        # ... and of the one that is the floor
    kind: str = "rate"       # or: crowd (as rate), part (of a burst), pss, churn
    fill: tuple = ()         # (entry's label, queue, how many messages at least) before it


def entries(*contenders):
    return tuple(Entry(name, name) for name in contenders
                 if name in servers.ALL or name.startswith("system calls"))


def count(n):
    return "%s connection%s" % (format(n, ","), "" if n == 1 else "s")


SYSCALLS = "system calls"
SYSCALLS_SYNC = "system calls, synced"
NOT_DURABLE = ("mqd -N", "memcached", "beanstalkd -F", "redis everysec", "memcacheq -N", "siberite",
               "floor: fork", "floor: files", "floor: ordered")
DURABLE = ("mqd", "beanstalkd -f0", "redis always", "memcacheq")


def backlog():
    """A burst beside the bare loop, a deep queue beside a shallow one, a drain."""
    part = BURST // 5
    yield Scenario(
        "burst", "a burst of %s pushes, in parts of %s that alternate; 10 connections, 100 B, "
        "not durable" % (format(BURST, ","), format(part, ",")),
        (Entry("mqd -N", "mqd -N", ("-Q", MANY)), Entry(SYSCALLS, SYSCALLS, ("--burst", str(part))),
         *entries("beanstalkd -F", "redis everysec")),
        "backlog", ("-c", "10", "-n", str(part), "push"), kind="part", reference=SYSCALLS)
    for depth in DEPTHS:
        deep = "%s waiting" % format(depth, ",")
        yield Scenario(
            "waiting-%d" % depth, "push and pop in turn with 1,000 and with %s messages waiting; "
            "10 connections, 100 B, not durable" % format(depth, ","),
            (Entry(deep, "mqd -N", ("-Q", MANY, "-f")),
             Entry("1,000 waiting", "mqd -N", ("-Q", FEW, "-f"))),
            "backlog", ("-c", "10", "alternate"), reference="1,000 waiting",
            fill=(("1,000 waiting", FEW, 1000), (deep, MANY, depth)))
    peers = ("beanstalkd -F", "redis everysec")
    yield Scenario(
        "drain", "a drain of %s, in parts of %s that alternate; 10 connections, 100 B, "
        "not durable" % (format(BURST, ","), format(part, ",")),
        (Entry("mqd -N", "mqd -N", ("-Q", MANY, "-f")),
         *(Entry(name, name, ("-f",)) for name in peers)),
        "backlog", ("-c", "10", "-n", str(part), "drain"), kind="part",
        fill=(("mqd -N", MANY, BURST), *((name, None, BURST) for name in peers)))


def durable_burst():
    part = BURST // 5
    for name, load in (("burst", ("push",)), ("drain", ("-f", "drain"))):
        yield Scenario(
            name + "-durable", "a %s of %s, in parts of %s that alternate; 50 connections, 100 B, "
            "durable" % (name, format(BURST, ","), format(part, ",")),
            entries("mqd", "beanstalkd -f0", "redis always"), "backlog-durable",
            ("-c", "50", "-n", str(part), *load), kind="part", reference="beanstalkd -f0")


def durable(place):
    for n in CONNECTIONS if LONG else CONNECTIONS[:3]:
        yield Scenario(
            "durable-%d-%s" % (n, place), "push and pop in turn, durable, %s, 100 B" % count(n),
            entries(*DURABLE, *([SYSCALLS_SYNC] if n == 1 else [])), "durable-" + place,
            ("-c", str(n), "alternate"), place, reference="beanstalkd -f0",
            floor=SYSCALLS_SYNC if n == 1 else None)


def not_durable(place):
    for n in CONNECTIONS if place == "disk" or LONG else (10,):
        yield Scenario(
            "alternate-%d-%s" % (n, place),
            "push and pop in turn, not durable, %s, 100 B" % count(n),
            entries(*NOT_DURABLE, *([SYSCALLS] if n == 1 else [])), "alternate-" + place,
            ("-c", str(n), "alternate"), place, reference="memcached", floor="floor: fork")


def sizes():
    for text, size in (("1 KB", 1000), ("64 KB", 64000), ("1 MiB", 1 << 20)):
        yield Scenario(
            "size-%d" % size, "push and pop in turn, not durable, 1 connection, %s" % text,
            entries("mqd -N", "memcached", "beanstalkd -F", "redis everysec", "floor: fork"),
            "sizes", ("-c", "1", "-b", str(size), "alternate"), reference="memcached",
            floor="floor: fork")


def starts():
    yield Scenario(
        "perrequest", "a connection for each request, not durable, 10 at a time, 100 B",
        entries("mqd -N", "memcached", "beanstalkd -F", "redis everysec", "floor: pool",
                "mqd -N, xinetd", "floor: xinetd", "floor: ordered, xinetd", "mqd -N, tcpserver", "floor: tcpserver"),
        "starts", ("-c", "10", "perrequest"), reference="memcached")
    yield Scenario(
        "thousand", "1,000 connections at once, each must be served; not durable, 100 B",
        # The listen queue of xinetd holds 64: what does not fit is up to the kernel's retries.
        (*entries("mqd -N"), Entry("mqd -N, xinetd", "mqd -N, xinetd", ("--knocking", "50")),
         Entry("floor: xinetd", "floor: xinetd", ("--knocking", "50", "-P", "memcached")),
         *entries("mqd -N, tcpserver", "memcached", "floor: fork")),
        "starts",
        ("-c", "1000", "-t", "120", "alternate"), reference="memcached", kind="crowd")


def queues():
    for name, contender in (("", "mqd -N"), ("-durable", "mqd")):
        yield Scenario(
            "queues" + name, "one hot queue and 100 queues; 100 connections, 100 B, %s"
            % ("durable" if name else "not durable"),
            (Entry("100 queues", contender, ("-q", "100")), Entry("1 queue", contender)),
            "queues", ("-c", "100", "alternate"), reference="1 queue")


def memory():
    yield Scenario(
        "memory", "memory of an idle connection: proportional set size, KiB, mean of 100 after a "
        "set and a get", entries("mqd -N", "mqd -N, xinetd", "memcached", "floor: fork",
                                 "floor: xinetd"), "memory", kind="pss")


def churn(place):
    seconds, interval, burst = (300, 30, 20000) if LONG else (20, 4, 5000)
    yield Scenario(
        "churn-" + place, "bursts of %s pushes, then as many pops, for %d s in intervals of %d s; "
        "10 connections, 100 B, not durable" % (format(burst, ","), seconds, interval),
        (*entries("mqd -N"),
         Entry(SYSCALLS, SYSCALLS, ("--churn", str(burst), "--interval", str(interval * 1000),
                                    "--ms", str(seconds * 1000)))), "churn-" + place,
        ("-c", "10", "-B", str(burst), "-s", str(seconds), "-i", str(interval), "churn"), place,
        kind="churn")


def all_scenarios():
    found = [*memory(), *durable("disk"), *durable("journal"), *backlog(), *sizes(), *starts(),
             *queues(), *not_durable("disk"), *not_durable("journal")]
    if LONG:
        for place in ("xfs", "btrfs"):
            found += [*durable(place), *not_durable(place)]
        found += [*churn("journal"), *durable_burst()]
    return found + [*churn("disk")]


@dataclasses.dataclass(frozen=True)
class Ratio:
    """Of two entries of a scenario, or of one metric of an entry alone (reference None)."""

    scenario: str
    entry: str
    reference: str = None
    key: str = "ops_s"


@dataclasses.dataclass(frozen=True)
class Target:
    workload: str
    prototype: str
    at_least: float
    hope: float
    measured: Ratio
    floor: Ratio = None  # what is known to be out of reach
    lower: bool = False  # ... is better
    note: str = ""


def targets():
    fork, ordered = "floor: fork", "floor: ordered"
    for n, prototype, at_least, hope in ((1, "0.79", 0.85, 0.95), (10, "0.49", 0.60, 0.75),
                                         (50, "0.36", 0.55, 0.75)):
        name = "alternate-%d-disk" % n
        yield Target("not durable, %s, of memcached" % count(n), prototype, at_least, hope,
                     Ratio(name, "mqd -N", "memcached"), Ratio(name, ordered, "memcached"))
    yield Target("p99 at 50 connections, of memcached's p99", "3.2", 2.0, 1.0,
                 Ratio("alternate-50-disk", "mqd -N", "memcached", "all_p99"),
                 Ratio("alternate-50-disk", ordered, "memcached", "all_p99"), lower=True)
    for n, prototype, at_least, hope in ((1, "0.87", 1.0, 1.2), (10, "1.75", 2.0, 3),
                                         (50, "2.0", 3.0, 6)):
        name = "durable-%d-disk" % n
        yield Target("durable (full), %s, of beanstalkd -f0" % count(n), prototype, at_least, hope,
                     Ratio(name, "mqd", "beanstalkd -f0"),
                     Ratio(name, SYSCALLS_SYNC, "beanstalkd -f0") if n == 1 else None)
    yield Target("durable (full), 50 connections, of redis appendfsync always", "0.22", 0.35, 0.7,
                 Ratio("durable-50-disk", "mqd", "redis always"))
    yield Target("a connection per request, pool, of memcached's", "-", 1.0, 1.2,
                 Ratio("perrequest", "mqd -N", "memcached"),
                 Ratio("perrequest", "floor: pool", "memcached"))
    yield Target("a connection per request, xinetd, of an empty static program under xinetd", "-",
                 0.85, 0.95, Ratio("perrequest", "mqd -N, xinetd", "floor: xinetd"),
                 Ratio("perrequest", "floor: ordered, xinetd", "floor: xinetd"))
    depth = 1_000_000 if LONG else BURST
    yield Target("1,000,000 waiting, push and pop, of the rate at 1,000 waiting", "-", 0.8, 0.95,
                 Ratio("waiting-%d" % depth, "%s waiting" % format(depth, ","), "1,000 waiting"),
                 note="" if LONG else "here %s; 1,000,000 with BENCH=long" % format(BURST, ","))
    yield Target("push burst of 200,000, of a bare create+write+rename loop", "-", 0.7, 1.5,
                 Ratio("burst", "mqd -N", SYSCALLS))
    yield Target("1 MiB messages, bytes/s, of memcached -I 2m", "-", 0.5, 1.0,
                 Ratio("size-1048576", "mqd -N", "memcached"),
                 Ratio("size-1048576", fork, "memcached"))
    yield Target("5 minutes of bursts and drains, worst half minute of the best", "-", 0.8, 0.95,
                 Ratio("churn-disk", "mqd -N", key="worst_of_best"),
                 Ratio("churn-disk", SYSCALLS, key="worst_of_best"),
                 note="" if LONG else "here 20 s, in 4 s; 5 minutes with BENCH=long")
    for n, prototype, at_least, hope in ((1, "0.58", 0.8, 1.0), (10, "2.1", 2.5, 4),
                                         (50, "3.9", 5, 8)):
        name = "durable-%d-journal" % n
        yield Target("ext4 image with a journal: durable, %s, of beanstalkd -f0" % count(n),
                     prototype, at_least, hope, Ratio(name, "mqd", "beanstalkd -f0"),
                     Ratio(name, SYSCALLS_SYNC, "beanstalkd -f0") if n == 1 else None)
    yield Target("PSS of an idle connection, KiB, per-connection", "-", 150, 60,
                 Ratio("memory", "mqd -N, xinetd", key="pss"),
                 Ratio("memory", "floor: xinetd", key="pss"), lower=True)
    yield Target("PSS of an idle connection, KiB, pool", "-", 100, 40,
                 Ratio("memory", "mqd -N", key="pss"),
                 Ratio("memory", "floor: fork", key="pss"), lower=True)
