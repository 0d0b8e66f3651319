#!/usr/bin/env bats
# What must hold when a process dies, or a system call fails, at the worst moment.

load helper

# inject MODE [binary's folder]: see the head of tests/inject.
inject() {
	mkdir -p "$BATS_TEST_TMPDIR/inject"
	"$BATS_TEST_DIRNAME/inject" "$1" "${2:-$MQD_BINARY}" "${3:-$MQCTL}" "$BATS_TEST_TMPDIR/inject"
}

# All of them, in each of these, in `make soak`.
@test "SIGKILL at every fourth system call: nothing lost, nothing doubled but what was being sent" {
	native "strace starts it"
	EVERY=4 run inject kill
	echo "$output"
	[ "$status" -eq 0 ]
}

@test "SIGTERM at every ninth system call: the command is finished, nothing is left to recover" {
	native "strace starts it"
	EVERY=9 run inject term
	echo "$output"
	[ "$status" -eq 0 ]
}

@test "an error from every sixth system call: answered in step, nothing lost, nothing half-written" {
	native "strace starts it"
	EVERY=6 run inject error
	echo "$output"
	[ "$status" -eq 0 ]
}

@test "every kind of error at every fortieth system call: answered in step, nothing lost, nothing half-written" {
	EVERY=40 run inject errors
	echo "$output"
	[ "$status" -eq 0 ]
}

@test "the portable paths: SIGKILL at every sixteenth system call" {
	native "strace starts it"
	make -s -C "$TOP" PORTABLE=1 >/dev/null
	EVERY=16 run inject kill "$TOP/build/portable/mqd" "$TOP/build/portable/mqctl"
	echo "$output"
	[ "$status" -eq 0 ]
	[[ $output == *linkat* ]]
}

@test "a client gone in the middle of a body leaves nothing" {
	start_mqd
	talk_tcp <<-'END'
		>> set a 0 0 10\r\nhello
		reset
		connect
		>> set a 0 0 200000\r\n
		>>*1000 0123456789
		reset
		connect
		>> set a 0 0 200000\r\n
		>>*1000 0123456789
		close
		connect
		>> set a 0 0 5\r\nhello
		close
		connect
		> get a
		< END
	END
	empty() { [ -z "$(ls "$SPOOL/a" 2>/dev/null; ls -A "$SPOOL/a/.tmp" 2>/dev/null)" ]; }
	wait_for empty
}

@test "a client gone while its reply is being sent: the message is back at once, in its place" {
	start_mqd -B 64m
	"$PYTHON" - "$PORT" <<-'END'
		import socket, struct, sys, time
		def connect():
		    s = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 10)
		    return s, s.makefile("rb")
		s, r = connect()
		body = b"x" * 30000000
		s.sendall(b"set a 0 0 %d\r\n" % len(body) + body + b"\r\nset a 0 0 1\r\ny\r\n")
		assert r.readline() == b"STORED\r\n" and r.readline() == b"STORED\r\n"
		t = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 10)
		t.sendall(b"get a\r\n")
		assert t.recv(100).startswith(b"VALUE a 0 30000000\r\n")
		s.sendall(b"stats queue\r\n")
		assert r.readline() == b"STAT a 2/1\r\n" and r.readline() == b"END\r\n"
		t.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
		t.close()
		left, end = None, time.monotonic() + 5
		while left != b"STAT a 2/0\r\n":
		    assert time.monotonic() < end, left
		    s.sendall(b"stats queue\r\n")
		    left = r.readline()
		    assert r.readline() == b"END\r\n"
		s.sendall(b"gets a\r\ngets a\r\n")
		assert r.readline() == b"VALUE a 0 30000000 1\r\n"
		assert r.read(len(body) + 2) == body + b"\r\n"
		assert r.readline() == b"END\r\n" and r.readline() == b"VALUE a 0 1 2\r\n"
	END
}

@test "a worker killed while it sends: the parent puts its message back within a second" {
	LAUNCH=pool start_mqd -B 64m
	"$PYTHON" - "$PORT" "$MQD_PID" "$SPOOL" <<-'END'
		import os, signal, socket, subprocess, sys, time
		port, parent, spool = int(sys.argv[1]), sys.argv[2], sys.argv[3]
		s = socket.create_connection(("127.0.0.1", port), 10)
		r = s.makefile("rb")
		body = b"x" * 30000000
		s.sendall(b"set a 0 0 %d\r\n" % len(body) + body + b"\r\n")
		assert r.readline() == b"STORED\r\n"
		s.sendall(b"get a\r\n")
		assert s.recv(100).startswith(b"VALUE a")
		workers = subprocess.run(["pgrep", "-P", parent], stdout=subprocess.PIPE, text=True).stdout.split()
		def holds_claim(pid):
		    fds = "/proc/%s/fd/" % pid
		    return any("/0000000000000001" in os.readlink(fds + fd) for fd in os.listdir(fds))
		workers = [pid for pid in workers if holds_claim(pid)]
		assert len(workers) == 1, workers
		assert os.listdir(spool + "/a/.claim") == ["0000000000000001"]
		os.kill(int(workers[0]), signal.SIGKILL)
		end = time.monotonic() + 1
		while not os.path.exists(spool + "/a/0000000000000001"):
		    assert time.monotonic() < end, "not back after a second"
	END
	grep -q 'killed by signal 9' "$BATS_TEST_TMPDIR/log"
}

@test "SIGTERM to a listening mqd: what is being sent is sent, what is idle ends, exit 0" {
	LAUNCH=pool start_mqd -B 64m
	"$PYTHON" - "$PORT" "$MQD_PID" <<-'END'
		import os, signal, socket, sys
		def connect():
		    s = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 10)
		    return s, s.makefile("rb")
		idle, ri = connect()
		idle.sendall(b"version\r\n")
		assert ri.readline().startswith(b"VERSION")
		s, r = connect()
		body = b"x" * 20000000
		s.sendall(b"set a 0 0 %d\r\n" % len(body) + body + b"\r\nget a\r\n")
		assert r.readline() == b"STORED\r\n"
		assert r.readline() == b"VALUE a 0 20000000\r\n"
		os.kill(int(sys.argv[2]), signal.SIGTERM)
		assert ri.readline() == b""
		assert r.read(len(body) + 2) == body + b"\r\n"
		assert r.readline() == b"END\r\n" and r.readline() == b""
	END
	wait "$MQD_PID"
	MQD_PID=
	[ "$(count_messages a)" = 0 ]
}

@test "SIGTERM while a client does not read: given up after the grace, the message is back" {
	LAUNCH=pool start_mqd -B 64m
	"$PYTHON" - "$PORT" "$MQD_PID" <<-'END'
		import os, signal, socket, sys
		s = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 10)
		body = b"x" * 30000000
		s.sendall(b"set a 0 0 %d noreply\r\n" % len(body) + body + b"\r\nget a\r\n")
		assert s.recv(10) == b"VALUE a 0 "
		os.kill(int(sys.argv[2]), signal.SIGTERM)
		pid = os.pidfd_open(int(sys.argv[2]))
		import select
		assert select.select([pid], [], [], 10)[0], "still there after 10 s"
	END
	wait "$MQD_PID"
	MQD_PID=
	[ "$(ls "$SPOOL/a")" = 0000000000000001 ]
	"$MQCTL" -H "$SPOOL" check
}
