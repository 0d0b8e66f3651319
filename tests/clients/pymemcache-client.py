"""pymemcache as a queue client: pymemcache-client.py HOST PORT SCENARIO"""
import os
import signal
import sys

from check import check, check_raises, done, numbers
from pymemcache import serde
from pymemcache.client.base import Client
from pymemcache.exceptions import MemcacheClientError

HOST, PORT, SCENARIO = sys.argv[1], int(sys.argv[2]), sys.argv[3]


def client(timeout=5, **options):
    return Client((HOST, PORT), connect_timeout=5, timeout=timeout, **options)


def everyday():
    queue = client(serde=serde.pickle_serde, default_noreply=False)
    values = ["hello", "", 42, b"bytes", {"a": [1, 2.5, None]}, ["größe", True],
              os.urandom(102400), b"END\r\nVALUE jobs 0 5\r\n"]
    for value in values:
        check(f"set of {value!r:.40}", queue.set("jobs", value), True)
    for value in values:
        check(f"get of {value!r:.40}", queue.get("jobs"), value)
    check("get of an empty queue", queue.get("jobs"), None)
    check("get of a missing queue", queue.get("nothing"), None)
    check("a last set", queue.set("jobs", "dropped"), True)
    check("delete", queue.delete("jobs"), True)
    check("get after delete", queue.get("jobs"), None)
    check("delete of a missing queue", queue.delete("jobs"), False)


def noreply():
    """What pymemcache does unless told otherwise: no write has a reply."""
    queue = client(timeout=30)  # for 2,000 flushes of a disk that has other work
    for i in range(100):
        check("set", queue.set("jobs", b"%d" % i), True)
        check("get", queue.get("jobs"), b"%d" % i)
    for i in range(2000):
        queue.set("jobs", b"%d" % i)
    check("a first get behind 2,000 sets", queue.get("jobs"), b"0")
    check("messages left", len(numbers("jobs")), 1999)
    check("set_many", queue.set_many({"a": b"1", "b": b"2"}), [])
    check("add, refused in silence", queue.add("a", b"x"), True)
    check("delete", queue.delete("jobs"), True)
    check("get after delete", queue.get("jobs"), None)
    check("get after set_many", queue.get_many(["a", "b"]), {"a": b"1", "b": b"2"})


def impatient():
    """A server that is held up until the client has lost its patience: the sets are with it by then,
    and the replies go to a connection that is closed."""
    queue = client(default_noreply=False)
    queue.timeout = 0.2  # seconds
    worker = queue.stats()[b"pid"]
    os.kill(worker, signal.SIGSTOP)
    try:
        sets = {f"q{i}": b"%d" % i for i in range(1, 501)}
        check_raises("set_many", TimeoutError, queue.set_many, sets)
    finally:
        os.kill(worker, signal.SIGCONT)


def cas():
    queue = client(default_noreply=False)
    queue.set("jobs", b"one")
    number = numbers("jobs")[0]
    check("gets", queue.gets("jobs"), (b"one", b"%d" % number))
    check("gets of an empty queue", queue.gets("jobs"), (None, None))
    queue.set("jobs", b"two")
    check("cas", queue.cas("jobs", b"three", number), False)
    check("the queue after cas", queue.get("jobs"), b"two")
    check("the queue after that", queue.get("jobs"), None)


def multi():
    queue = client(default_noreply=False)
    check("set_many", queue.set_many({"a": b"1", "b": b"2", "c": b"3"}), [])
    queue.set("b", b"second")
    check("get_many", queue.get_many(["a", "b", "none", "c"]), {"a": b"1", "b": b"2", "c": b"3"})
    check("get_many again", queue.get_many(["a", "b", "none"]), {"b": b"second"})
    queue.set_many({"a": b"1", "b": b"2"})
    check("gets_many", sorted(queue.gets_many(["a", "b"])), ["a", "b"])
    check("get_many of nothing", queue.get_many(["a", "b"]), {})


def keys():
    """pymemcache looks the key of a reply up: one that is not what it asked for is a KeyError."""
    queue = client(default_noreply=False, allow_unicode_keys=True)
    for key in ["größe", "日本語", "a%41", ".hidden", "{q}", "x" * 250]:
        check("set " + key, queue.set(key, key.encode()), True)
        check("get " + key, queue.get(key), key.encode())


def stats():
    queue = client(default_noreply=False)
    queue.set("jobs", b"one")
    queue.set("jobs", b"two")
    queue.get("jobs")
    queue.get("none")
    got = queue.stats()
    wanted = {b"version": queue.version(), b"cmd_set": 2, b"cmd_get": 2, b"get_hits": 1,
              b"get_misses": 1, b"curr_items": 1, b"total_items": 2, b"threads": 1}
    for name, value in wanted.items():
        check(name.decode(), got.get(name), value)
    for name in (b"pid", b"uptime", b"time", b"pointer_size", b"bytes", b"bytes_read",
                 b"bytes_written", b"curr_connections", b"total_connections"):
        check(name.decode(), type(got.get(name)), int)
    for name in (b"rusage_user", b"rusage_system"):
        check(name.decode(), type(got.get(name)), float)
    check("stats queue", queue.stats("queue"), {b"jobs": b"2/1"})
    check("stats settings", type(queue.stats("settings")), dict)
    check("in step", queue.version(), wanted[b"version"])


def refused():
    queue = client(default_noreply=False)
    queue.set("jobs", b"one")
    for method in ("add", "replace", "append", "prepend"):
        check(method, getattr(queue, method)("jobs", b"delete jobs\r\n"), False)
    check("incr", queue.incr("jobs", 1), None)
    check("decr", queue.decr("jobs", 1), None)
    check("touch", queue.touch("jobs", 10), False)
    check("cache_memlimit", queue.cache_memlimit(64), True)
    check_raises("a slash in the key", MemcacheClientError, queue.set, "a/b", b"delete jobs\r\n")
    check("get", queue.get("jobs"), b"one")
    check("get again", queue.get("jobs"), None)


def reliable():
    """A job that is done, one that is given up, and one whose worker loses its connection."""
    queue = client(default_noreply=False)
    for job in (b"one", b"two"):
        queue.set("jobs", job)
    check("get with open", queue.get("jobs/open"), b"one")
    check("abort", queue.get("jobs/abort"), None)
    check("get with t and open", queue.get("jobs/t=500/open"), b"one")
    check("close/open", queue.get("jobs/t=500/close/open"), b"two")
    queue.close()
    check("peek", queue.get("jobs/t=5000/peek"), b"two")  # it is noticed in a moment that we had left
    check("gets with open", queue.gets("jobs/t=500/open")[0], b"two")
    check("close", queue.get("jobs/close"), None)
    check("t", queue.get("jobs/t=50"), None)
    check("messages left", numbers("jobs"), [])


{f.__name__: f for f in (everyday, noreply, impatient, cas, multi, keys, stats, refused,
                         reliable)}[SCENARIO]()
done()
