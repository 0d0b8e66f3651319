"""pylibmc (libmemcached) as a queue client: pylibmc-client.py HOST PORT SCENARIO"""
import os
import signal
import sys

import pylibmc
from check import check, check_raises, done, numbers

HOST, PORT, SCENARIO = sys.argv[1:]


def client(**behaviors):
    return pylibmc.Client([f"{HOST}:{PORT}"], behaviors=behaviors)


def everyday():
    queue = client()
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


def cas():
    queue = client(cas=True)
    queue.set("jobs", "one")
    number = numbers("jobs")[0]
    check("gets", queue.gets("jobs"), ("one", number))
    check("gets of an empty queue", queue.gets("jobs"), (None, None))
    queue.set("jobs", "two")
    check("cas", queue.cas("jobs", "three", number), False)
    check("get", queue.get("jobs"), "two")  # which is gets, too, with this behaviour
    check("get again", queue.get("jobs"), None)


def compression():
    queue = client()
    text = b"all work and no play makes jack a dull boy. " * 2500
    check("set", queue.set("jobs", text, min_compress_len=1000), True)
    file = os.path.join(os.environ["SPOOL"], "jobs", f"{numbers('jobs')[0]:016d}")
    check("less than a tenth is stored", os.path.getsize(file) * 10 < len(text), True)
    check("get", queue.get("jobs"), text)


def fill_buffers(**behaviors):
    queue = client(buffer_requests=True, **behaviors)
    for i in range(1, 2001):
        # pylibmc takes libmemcached's MEMCACHED_BUFFERED, which is 32, for an error.
        check_raises("set", pylibmc.Error, queue.set, "jobs", b"%d\n" % i)
    queue.disconnect_all()


def buffered():
    fill_buffers()


def buffered_unread():
    """With these watermarks it reads nothing until all is sent, and closes at the first reply."""
    fill_buffers(_io_msg_watermark=1 << 20, _io_bytes_watermark=1 << 30)


def no_block():
    """Asynchronous: the client sends sets and reads replies whenever it suits it."""
    queue = client(no_block=True, tcp_nodelay=True)
    for i in range(1, 2001):
        check("set", queue.set("jobs", b"%d\n" % i), True)
    queue.disconnect_all()


def noreply():
    queue = client(_noreply=True)
    for i in range(100):
        check("set", queue.set("jobs", i), True)
        check("get", queue.get("jobs"), i)
    queue.delete("nothing")
    check("get after delete", queue.get("nothing"), None)


def multi():
    queue = client()
    check("set_multi", queue.set_multi({"a": 1, "b": ["x"], "c": "three"}), [])
    queue.set("b", "second")
    check("get_multi", queue.get_multi(["a", "b", "none", "c"]), {"a": 1, "b": ["x"], "c": "three"})
    check("get_multi again", queue.get_multi(["a", "b", "none"]), {"b": "second"})
    check("get_multi of nothing", queue.get_multi(["a", "none"]), {})


def spaces():
    """A key with a space goes out as it is; the body behind that line must not run."""
    queue = client()
    check("set victim", queue.set("victim", "alive"), True)
    for key in ("a b", "a b c", "a  b", "victim x"):
        for body in (b"delete victim", b"x\r\ndelete victim", b"delete victim\r\nget victim"):
            for name in ("set", "add", "replace", "append", "prepend"):
                # That a refusal is no success is all that can be said here: some come as False.
                try:
                    accepted = getattr(queue, name)(key, body)
                except pylibmc.Error:
                    accepted = False
                check(f"{name} {key!r}", accepted, False)
    check("messages of the victim", len(numbers("victim")), 1)
    queue.disconnect_all()
    check("the victim, on a new connection", client().get("victim"), "alive")


def space_in_step():
    queue = client()
    check_raises("set", pylibmc.Error, queue.set, "a b", b"delete victim")
    check("the next set", queue.set("jobs", "one"), True)
    check("the next get", queue.get("jobs"), "one")


def keys():
    queue = client()
    for key in ("größe", "日本語", "a%41", ".hidden", "{q}", "x" * 250):
        check("set " + key, queue.set(key, key), True)
        check("get " + key, queue.get(key), key)


def stats():
    queue = client()
    queue.set("jobs", "one")
    queue.set("jobs", "two")
    queue.get("jobs")
    queue.get("none")
    got = queue.get_stats()[0][1]
    wanted = {"cmd_set": b"2", "cmd_get": b"2", "get_hits": b"1", "get_misses": b"1",
              "curr_items": b"1", "total_items": b"2", "threads": b"1"}
    for name, value in wanted.items():
        check(name, got[name], value)
    check("stats queue", len(queue.get_stats("queue")), 1)
    check("in step", queue.get("jobs"), "two")


def refused():
    queue = client()
    queue.set("jobs", "one")
    check("add", queue.add("jobs", "x"), False)
    check("replace", queue.replace("jobs", "x"), False)
    check("append", queue.append("jobs", "x"), False)
    check_raises("incr", pylibmc.NotFound, queue.incr, "jobs")
    check_raises("decr", pylibmc.NotFound, queue.decr, "jobs")
    check("touch", queue.touch("jobs", 10), False)
    check_raises("a slash in the key", pylibmc.Error, queue.set, "a/b", b"delete jobs\r\n")
    check("get", queue.get("jobs"), "one")
    check("get again", queue.get("jobs"), None)


def reliable():
    """A job that is done, one that is given up, and one whose worker loses its connection."""
    queue = client()
    for job in (b"one", b"two"):
        queue.set("jobs", job)
    check("get with open", queue.get("jobs/open"), b"one")
    check("abort", queue.get("jobs/abort"), None)
    check("get with t and open", queue.get("jobs/t=500/open"), b"one")
    check("close/open", queue.get("jobs/t=500/close/open"), b"two")
    queue.disconnect_all()
    check("peek", queue.get("jobs/t=5000/peek"), b"two")  # it is noticed in a moment that we had left
    check("gets with open", queue.get("jobs/t=500/open"), b"two")
    check("close", queue.get("jobs/close"), None)
    check("t", queue.get("jobs/t=50"), None)
    check("messages left", numbers("jobs"), [])


{f.__name__: f for f in (everyday, cas, compression, buffered, buffered_unread, no_block, noreply,
                         multi, spaces, space_in_step, keys, stats, refused, reliable)}[SCENARIO]()
done()
