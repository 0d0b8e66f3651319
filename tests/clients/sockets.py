"""A client of bare sockets, for what the libraries do only now and then: sockets.py PORT WHAT...

  burst HOW QUEUE    2,000 sets, and not one reply read:
                     one     one big send, then close
                     many    2,000 sends with TCP_NODELAY, then close
                     unread  one big send, then close with replies unread, which resets
                     abort   one big send, then a reset before anything else
  latency WHAT       the median of 50 rounds in milliseconds, which must be below STALL
  silence            750 sets in one send, as libmemcached sends them: the longest wait for a reply
  spaces             lines whose key has spaces, before bodies that look like commands
"""
import fcntl
import itertools
import re
import select
import socket
import statistics
import struct
import sys
import termios
import time

PORT = int(sys.argv[1])
STALL = 20.0  # half of the 40 ms for which Linux delays an acknowledgement
PATIENCE = 50.0  # ms without a reply after which libmemcached, with buffered writes, gives up
VERSION = b"version\r\n"


def connect():
    return socket.create_connection(("127.0.0.1", PORT), 10)


def wait_until_received(sock):
    """until the server's kernel has it all: what has not left the client by then is no server's to
    lose, because a reset drops it"""
    deadline = time.monotonic() + 10
    unsent = b"\0\0\0\1"
    while unsent != b"\0\0\0\0":
        if time.monotonic() > deadline:
            sys.exit("the server does not take what is sent")
        unsent = fcntl.ioctl(sock, termios.TIOCOUTQ, b"\0\0\0\0")


def burst(how, queue):
    bodies = [b"%d\n" % i for i in range(1, 2001)]
    sets = [b"set %s 0 0 %d\r\n%s\r\n" % (queue.encode(), len(body), body) for body in bodies]
    sock = connect()
    if how == "many":
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for one in sets:
            sock.sendall(one)
    else:
        sock.sendall(b"".join(sets))
    wait_until_received(sock)
    if how == "unread" and not select.select([sock], [], [], 10)[0]:
        sys.exit("no reply came that could stay unread")
    if how == "abort":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def latency(what):
    """Nagle's algorithm stays on, as in a client that knows nothing of it: the second of two small
    sends waits until the first is acknowledged."""
    size, first, second, reply = {
        "get-after-noreply": (5, b"set q 0 0 5 noreply\r\nhello\r\n", b"get q\r\n",
                              b"VALUE q 0 5\r\nhello\r\nEND\r\n"),
        "version-after-noreply": (0, b"delete none noreply\r\n", VERSION, None),
        "body-after-line": (5, b"set q 0 0 5\r\n", b"hello\r\n", b"STORED\r\n"),
        "get-20k": (20000, b"set q 0 0 20000 noreply\r\n" + b"x" * 20000 + b"\r\n", b"get q\r\n",
                    b"VALUE q 0 20000\r\n" + b"x" * 20000 + b"\r\nEND\r\n"),
    }[what]
    sock = connect()
    rounds = []
    for _ in range(50):
        sock.sendall(first)
        start = time.monotonic()
        sock.sendall(second)
        got = b""
        while len(got) < len(reply) if reply else not got.endswith(b"\r\n"):
            data = sock.recv(1 << 20)
            if not data:
                sys.exit(f"closed after {got!r:.100}")
            got += data
        rounds.append((time.monotonic() - start) * 1000)
        if got != reply if reply else not got.startswith(b"VERSION "):
            sys.exit(f"wanted {reply!r:.100}, got {got!r:.100}")
    median = statistics.median(rounds)
    print(f"{what}: median {median:.2f} ms, longest {max(rounds):.2f} ms of 50 rounds")
    if median >= STALL:
        sys.exit(1)


def silence():
    """A busy disk can hold up any one set, but hardly one in each of six rounds."""
    sock = connect()
    replies = b"STORED\r\n" * 750
    longest = []
    for _ in range(6):
        waits, got = [], b""
        before = time.monotonic()
        sock.sendall(b"set q 0 0 5\r\nhello\r\n" * 750)
        while len(got) < len(replies):
            data = sock.recv(65536)
            if not data:
                sys.exit("closed")
            now = time.monotonic()
            waits.append((now - before) * 1000)
            got, before = got + data, now
        if got != replies:
            sys.exit(f"not what was wanted: {got!r:.100}")
        longest.append(max(waits))
    print(f"750 sets: longest wait for a reply {min(longest):.1f} to {max(longest):.1f} ms")
    if min(longest) >= PATIENCE:
        sys.exit(1)


def spaces():
    """Refused once (not at all under noreply); then in step again, or closed. What must not be is
    that the body runs: the caller looks at the queue "victim" afterwards."""
    bodies = [b"delete victim", b"get victim", b"delete victim\r\nset evil 0 0 1\r\nx",
              b"\r\ndelete victim\r\nversion", b"quit\r\nversion"]
    # The number of cas comes last on its line and is not the length.
    verbs = [(b"set", b""), (b"add", b""), (b"replace", b""), (b"append", b""), (b"prepend", b""),
             (b"cas", b" 5"), (b"cas", b" 77")]
    tried = closed = 0
    for (verb, unique), key, body, noreply, split in itertools.product(
            verbs, (b"a b", b"a b c", b"a b c d e", b"victim x"), bodies, (b"", b" noreply"),
            (False, True)):
        line = b"%s %s 0 0 %d%s%s\r\n" % (verb, key, len(body), unique, noreply)
        sock = connect()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        got = b""
        try:
            for part in (line, body + b"\r\n" + VERSION) if split else (line + body + b"\r\n" + VERSION,):
                sock.sendall(part)
                if split:
                    wait_until_received(sock)
            sock.shutdown(socket.SHUT_WR)
            while data := sock.recv(65536):
                got += data
        except (BrokenPipeError, ConnectionResetError):
            pass  # answered, and closed before it had read the rest
        sock.close()
        refusal = rb"" if noreply else rb"(ERROR|CLIENT_ERROR [^\r\n]+)\r\n"
        if not re.fullmatch(refusal + rb"(VERSION [^\r\n]+\r\n)?", got):
            sys.exit(f"{line!r} {body!r}: got {got!r}")
        tried += 1
        closed += b"VERSION" not in got
    print(f"{tried} lines tried, {closed} of them cost the connection")


{f.__name__: f for f in (burst, latency, silence, spaces)}[sys.argv[2]](*sys.argv[3:])
