#!/usr/bin/env bats
# Bodies around and beyond every buffer's size, on every way out, and what may happen meanwhile.

load helper

# client WAY < script: a Python script about the connection `s`, its reader `r`, and body(n), n bytes
# that are the same for the same n. WAY is tcp, unix (of start_mqd -s "$BATS_TEST_TMPDIR/s") or pipe.
client() {
	"$PYTHON" - "$1" "${PORT:-}" "$BATS_TEST_TMPDIR/s" "$MQD" "$SPOOL" <(cat) <<-'END'
		import glob, os, random, socket, subprocess, sys, time
		way, port, path, mqd, spool, script = sys.argv[1:]
		def body(n):
		    return random.Random(n).randbytes(n)
		def connect(receive_buffer=None):
		    s = socket.socket(socket.AF_UNIX if way == "unix" else socket.AF_INET)
		    s.settimeout(20)
		    if receive_buffer:
		        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
		    s.connect(path if way == "unix" else ("127.0.0.1", int(port)))
		    return s, s.makefile("rb")
		def wait_for(condition):
		    end = time.monotonic() + 10
		    while not condition():
		        assert time.monotonic() < end, "waited in vain"
		        time.sleep(0.01)
		def push(s, r, queue, n):
		    s.sendall(b"set %s 7 0 %d\r\n" % (queue, n) + body(n) + b"\r\n")
		    assert r.readline() == b"STORED\r\n"
		def take_value(r, queue, n):
		    line = r.readline()
		    assert line == b"VALUE %s 7 %d\r\n" % (queue, n), line
		    got = r.read(n + 2)
		    assert got == body(n) + b"\r\n", (n, len(got))
		def pop(s, r, queue, n):
		    s.sendall(b"get %s\r\n" % queue)
		    take_value(r, queue, n)
		    assert r.readline() == b"END\r\n"
		class Pipes:
		    """A process of its own, on two pipes."""
		    def __init__(self):
		        self.p = subprocess.Popen([mqd, "-H", spool, "-B", "8m"], stdin=subprocess.PIPE,
		                                  stdout=subprocess.PIPE)
		        self.reader = self.p.stdout
		    def sendall(self, data):
		        self.p.stdin.write(data)
		        self.p.stdin.flush()
		    def close(self):
		        self.p.stdin.close()
		        assert self.reader.read() == b"" and self.p.wait() == 0
		if way == "pipe":
		    s = Pipes()
		    r = s.reader
		else:
		    s, r = connect()
		exec(compile(open(script).read(), "script", "exec"))
	END
}

all_sizes() {
	client "$1" <<-'END'
		sizes = [0, 1, 16383, 16384, 16385, 65466, 65467, 65468, 65535, 65536, 65537,
		         131002, 131003, 131004, 1 << 20, (1 << 20) + 1, 5 << 20]
		for n in sizes:
		    push(s, r, b"q", n)
		    pop(s, r, b"q", n)
		for n in sizes:
		    push(s, r, b"q", n)
		for n in sizes:
		    pop(s, r, b"q", n)
		s.sendall(b"get q\r\n")
		assert r.readline() == b"END\r\n"
		s.close()
	END
	"$MQCTL" -H "$SPOOL" check
}

@test "bodies of 0 bytes to 5 MiB come back byte for byte, over TCP" {
	start_mqd -B 8m
	all_sizes tcp
}

@test "bodies of 0 bytes to 5 MiB come back byte for byte, over a unix socket" {
	LAUNCH=pool start_mqd -B 8m -s "$BATS_TEST_TMPDIR/s"
	all_sizes unix
}

@test "bodies of 0 bytes to 5 MiB come back byte for byte, over pipes" {
	mkdir -p "$SPOOL"
	all_sizes pipe
}

@test "a body that comes in pieces of any size" {
	start_mqd -B 8m
	client tcp <<-'END'
		rnd = random.Random(1)
		s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
		for n in (65536, 200000, 1 << 20):
		    data = b"set q 7 0 %d\r\n" % n + body(n) + b"\r\n"
		    while data:
		        k = rnd.choice((1, 69, 1000, 65467, 65536, 65537))
		        s.sendall(data[:k])
		        data = data[k:]
		    assert r.readline() == b"STORED\r\n"
		    pop(s, r, b"q", n)
	END
}

@test "pipelined: several large messages of several queues, small ones between" {
	start_mqd -B 8m
	client tcp <<-'END'
		queues = [(b"a", 3000000), (b"b", 10), (b"c", 100000), (b"d", 70000), (b"e", 0), (b"f", 1 << 20)]
		batch = b"".join(b"set %s 7 0 %d\r\n" % q + body(q[1]) + b"\r\n" for q in queues) * 2
		s.settimeout(None)
		if os.fork() == 0:
		    s.sendall(batch + b"get a b none c d e f\r\nget f e d c b a\r\nget a f\r\n")
		    os._exit(0)
		for _ in range(12):
		    assert r.readline() == b"STORED\r\n"
		for q in queues:
		    take_value(r, *q)
		assert r.readline() == b"END\r\n"
		for q in reversed(queues):
		    take_value(r, *q)
		assert r.readline() == b"END\r\n"
		assert r.readline() == b"END\r\n"
		assert os.wait()[1] == 0
	END
}

@test "a client that reads slowly gets all of it, and others are served meanwhile" {
	LAUNCH=pool start_mqd -B 64m -s "$BATS_TEST_TMPDIR/s"
	client unix <<-'END'
		push(s, r, b"q", 5 << 20)
		push(s, r, b"q", 200000)
		t, _ = connect(4096)
		t.sendall(b"get q\r\n")
		got = t.recv(100)
		pop(s, r, b"q", 200000)
		want = b"VALUE q 7 %d\r\n" % (5 << 20) + body(5 << 20) + b"\r\nEND\r\n"
		while len(got) < len(want):
		    piece = t.recv(4096)
		    assert piece, len(got)
		    got += piece
		assert got == want
	END
}

@test "a client that closes in the middle of a 1 MiB reply: the message is back, whole" {
	LAUNCH=pool start_mqd -B 8m -s "$BATS_TEST_TMPDIR/s"
	client unix <<-'END'
		push(s, r, b"q", 1 << 20)
		push(s, r, b"q", 5)
		t, reader = connect()
		t.sendall(b"get q\r\n")
		assert t.recv(1000).startswith(b"VALUE q 7 1048576\r\n")
		assert os.listdir(spool + "/q/.claim") == ["0000000000000001"]
		reader.close()
		t.close()
		wait_for(lambda: not os.listdir(spool + "/q/.claim"))
		pop(s, r, b"q", 1 << 20)
		pop(s, r, b"q", 5)
	END
}

@test "a file truncated while it is being sent: the connection closes, the file is set aside" {
	start_mqd -B 64m
	client tcp <<-'END'
		push(s, r, b"q", 30000000)
		push(s, r, b"q", 5)
		t, _ = connect(4096)
		t.sendall(b"get q\r\n")
		assert t.recv(1000).startswith(b"VALUE q 7 30000000\r\n")
		os.truncate(spool + "/q/.claim/0000000000000001", 20000000)
		n = 0
		while True:
		    piece = t.recv(1 << 20)
		    if not piece:
		        break
		    n += len(piece)
		assert 1000 < n < 20000000, n
		pop(s, r, b"q", 5)
		assert os.listdir(spool + "/q/.bad") == ["0000000000000001"]
	END
	grep -q 'reading a message that is being sent: truncated' "$BATS_TEST_TMPDIR/log"
}

# trace_pop [strace option...]: pops a message of 3,000,000 bytes on pipes and looks at the reply. The
# calls are in $BATS_TEST_TMPDIR/trace.
trace_pop() {
	mkdir -p "$SPOOL"
	head -c 3000000 /dev/urandom >"$BATS_TEST_TMPDIR/body"
	{
		printf 'set q 0 0 3000000\r\n'
		cat "$BATS_TEST_TMPDIR/body"
		printf '\r\n'
	} | "$MQD" -H "$SPOOL" -B 8m
	printf 'get q\r\n' | strace -qq -o "$BATS_TEST_TMPDIR/trace" "$@" "$MQD" -H "$SPOOL" >"$BATS_TEST_TMPDIR/reply"
	{
		printf 'VALUE q 0 3000000\r\n'
		cat "$BATS_TEST_TMPDIR/body"
		printf '\r\nEND\r\n'
	} | cmp - "$BATS_TEST_TMPDIR/reply"
	[ "$(count_messages q)" = 0 ]
}

portable() {
	[[ $MQD == */portable/* ]]
}

@test "a large body goes out without a copy; portably, with one" {
	trace_pop -e trace=sendfile,sendfile64,writev
	if portable; then
		[ "$(grep -c sendfile "$BATS_TEST_TMPDIR/trace")" -eq 0 ]
		[ "$(grep -c writev "$BATS_TEST_TMPDIR/trace")" -gt 5 ]
	else
		grep -q 'sendfile.* = 1048576$' "$BATS_TEST_TMPDIR/trace"
		[ "$(grep -c writev "$BATS_TEST_TMPDIR/trace")" -eq 2 ]
	fi
}

@test "a large body is copied where sendfile fails, at its beginning or later" {
	! portable || skip "there is no sendfile in it"
	for fault in EINVAL ENOSYS EIO EIO:when=2 EINTR:when=1 EINTR:when=2; do
		trace_pop -e inject=sendfile,sendfile64:error=$fault
		grep -q "${fault%:*}.*(INJECTED)" "$BATS_TEST_TMPDIR/trace"
	done
}
