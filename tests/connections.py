#!/usr/bin/python3
"""connections.py HOST PORT N [--held M] - N connections in a row, one command each, none refused.

The first half push, and close as soon as they have read the reply, as a web page's client does;
the second half pop what was pushed, and read on to the end, so that a byte too many is seen.
Then M more, opened as fast as can be and all open before the first of them asks anything.
Prints what it counted; or, at the first odd reply, what that was, with status 1.
"""
import argparse
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


def hold(where, count):
    socks = [connect(where) for _ in range(count)]
    for sock in socks:
        ask(sock, b"version\r\n", b"VERSION ")
    for sock in socks:
        sock.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("n", type=int)
    parser.add_argument("--held", type=int, default=0)
    args = parser.parse_args()
    where = (args.host, args.port)
    half = args.n // 2
    done = {"pushed": 0, "popped": 0, "held": 0}
    begin = time.monotonic()
    try:
        for number in range(half):
            push(where, number)
            done["pushed"] += 1
        for number in range(half):
            pop(where, number)
            done["popped"] += 1
        took = time.monotonic() - begin
        hold(where, args.held)
        done["held"] = args.held
    except (OSError, ValueError) as error:
        print(f"connections.py: {error}, after {done}", file=sys.stderr)
        return 1
    each = took / max(1, 2 * half) * 1000
    print(f"{done['pushed']} pushed, {done['popped']} popped, {each:.2f} ms each, {done['held']} held at once")
    return 0


sys.exit(main())
