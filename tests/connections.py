#!/usr/bin/python3
"""connections.py HOST PORT N [--at-once M [--knocking K]] - N connections in a row, none refused.

Each of the N sends one command.

The first half push, and close as soon as they have read the reply, as a web page's client does;
the second half pop what was pushed, and read on to the end, so that a byte too many is seen.
Then M more, all begun before the first is waited for; each pushes, and stays until all are served.
With --knocking at most K of these wait for their reply at a time: no more than the listen queue of
a super-server holds. What does not fit there depends on the kernel's retries, not on who serves.
Prints what it counted; or, at the first odd reply, what that was, with status 1.
"""
import argparse
import select
import socket
import sys
import time


def connect(where):
    sock = socket.create_connection(where, timeout=10)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def ask(sock, request, want):
    """Sends the request and reads as many bytes as are wanted: they must be these."""
    sock.sendall(request)
    got = b""
    while len(got) < len(want):
        part = sock.recv(len(want) - len(got))
        if not part:
            break
        got += part
    if got != want:
        raise ValueError(f"{request!r}: wanted {want!r}, got {got!r}")


def push(where, number):
    with connect(where) as sock:
        ask(sock, b"set row 0 0 6\r\n%06d\r\n" % number, b"STORED\r\n")


def pop(where, number):
    with connect(where) as sock:
        ask(sock, b"get row\r\n", b"VALUE row 0 6\r\n%06d\r\nEND\r\n" % number)
        sock.shutdown(socket.SHUT_WR)
        rest = sock.recv(100)
        if rest:
            raise ValueError(f"after the reply: {rest!r}")


def at_once(where, count, knocking):
    """Returns how long each had to wait for its reply from when the first began, in ms, sorted."""
    poll, pending, held, took = select.epoll(), {}, [], []
    begin = time.monotonic()
    while len(held) < count:
        while len(pending) < knocking and len(pending) + len(held) < count:
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(where)
            poll.register(sock, select.EPOLLOUT)
            pending[sock.fileno()] = sock
        ready = poll.poll(90)
        if not ready:
            raise ValueError(f"{len(pending)} of {count} at once are not served")
        for fd, what in ready:
            sock = pending[fd]
            error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                raise OSError(error, "at once")
            if what & select.EPOLLOUT:
                sock.sendall(b"set burst 0 0 1\r\nx\r\n")
                poll.modify(fd, select.EPOLLIN)
                continue
            got = sock.recv(100)
            if got != b"STORED\r\n":
                raise ValueError(f"at once: got {got!r}")
            took.append((time.monotonic() - begin) * 1000)
            poll.unregister(fd)
            held.append(pending.pop(fd))
    for sock in held:
        sock.close()
    return took


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("n", type=int)
    parser.add_argument("--at-once", type=int, default=0)
    parser.add_argument("--knocking", type=int, default=sys.maxsize)
    args = parser.parse_args()
    where = (args.host, args.port)
    half = args.n // 2
    done = {"pushed": 0, "popped": 0}
    begin = time.monotonic()
    try:
        for number in range(half):
            push(where, number)
            done["pushed"] += 1
        for number in range(half):
            pop(where, number)
            done["popped"] += 1
        took = time.monotonic() - begin
        took_at_once = at_once(where, args.at_once, args.knocking)
    except (OSError, ValueError) as error:
        print(f"connections.py: {error}, after {done}", file=sys.stderr)
        return 1
    figures = []
    if half:
        figures.append("%d pushed, %d popped, %.2f ms each" % (
            done["pushed"], done["popped"], took / (2 * half) * 1000))
    if took_at_once:
        figures.append("%d at once, the median after %.0f ms, the last after %.0f ms" % (
            len(took_at_once), took_at_once[len(took_at_once) // 2], took_at_once[-1]))
    print("; ".join(figures))
    return 0


sys.exit(main())
