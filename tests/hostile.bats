#!/usr/bin/env bats
# A slice of tests/hostile, which says what each of these is; and where mqd shows somebody the door.

load helper

# assail ATTACK...: each with an mqd of its own, which others use meanwhile.
assail() {
	"$BATS_TEST_DIRNAME/hostile" --fast "$@"
}

@test "reset at each byte of a push and of a pop; hundreds of waiters and holders that vanish" {
	assail rst waiters holders
}

@test "gigabytes announced and not sent; replies that nobody reads" {
	assail announced slow_huge getter
}

@test "names of all bytes, and 20,000 of them with max_queues=1000" {
	assail names queues
}

@test "the binary protocol, TLS, HTTP and noise; a million mistakes are a hundred lines of the log" {
	assail protocols bad by_turns
}

@test "xinetd's per_source keeps one address from taking all connections" {
	native "its connections are let in too late"
	assail per_source
}

@test "a byte now and then is silence to idle_timeout: in a line, a body and one that is dropped" {
	start_mqd -o idle_timeout=1
	"$PYTHON" - "$PORT" <<-'END'
		import select, socket, sys, time
		def connect():
		    s = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 10)
		    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
		    return s
		slow = [b"get ", b"set q 0 0 500\r\n", b"set q 0 0 100000\r\n", b"set q 0 0 99999999\r\n"]
		slow = [(connect(), text) for text in slow]
		for s, text in slow:
		    s.sendall(text)
		# 20 KiB in a second is slow, and not silent; and between commands each may think for a while.
		steady, thinker = connect(), connect()
		steady.sendall(b"set q 0 0 100000\r\n")
		begin, left, sent = time.monotonic(), dict(slow), 0
		while left:
		    assert time.monotonic() - begin < 8, "a byte a tenth of a second keeps %d" % len(left)
		    for s in select.select(list(left), [], [], .1)[0]:
		        assert s.recv(100) == b""
		        assert time.monotonic() - begin > .9, "left at once"
		        del left[s]
		    for s in left:
		        try:
		            s.sendall(b"x")
		        except OSError:
		            pass # its end is to be read yet
		    sent += steady.send(b"x" * min(2000, 100000 - sent))
		    thinker.sendall(b"mn\r\n")
		    assert thinker.recv(100) == b"MN\r\n"
		steady.sendall(b"x" * (100000 - sent) + b"\r\n")
		assert steady.recv(100) == b"STORED\r\n"
	END
	[ "$(count_messages q)" = 1 ]
}

@test "HTTP is answered by nothing, and what comes with it is not run" {
	start_mqd
	talk_tcp <<-'END'
		> POST / HTTP/1.1
		> set q 0 0 5
		> hello
		<eof
		connect
		> GET /q HTTP/1.0
		<eof
		connect
		> delete q HTTP/1.1
		<eof
		connect
		# What only looks alike.
		> HTTP/1.1
		< ERROR
		> get HTTP/
		< CLIENT_ERROR unknown option
		> set q 0 0 14
		> POST / HTTP/1.
		< STORED
		> set q 0 0 15
		>> POST / HTTP/1.1
		>
		< STORED
		> quit
		<eof
	END
	[ "$(count_messages q)" = 2 ]
}

@test "a hundred lines in a minute from all connections together, and one that says so" {
	LAUNCH=pool start_mqd
	"$PYTHON" - "$PORT" <<-'END'
		import socket, sys
		for _ in range(300):
		    s = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 10)
		    s.sendall(b"\x80" + b"\0" * 23)
		    while s.recv(100):
		        pass
	END
	# The minute may end meanwhile.
	[ "$(grep -c 'binary protocol: refused' "$BATS_TEST_TMPDIR/log")" -ge 100 ]
	[ "$(grep -c 'binary protocol: refused' "$BATS_TEST_TMPDIR/log")" -le 200 ]
	[ "$(grep -c 'more lines like these are left out' "$BATS_TEST_TMPDIR/log")" -ge 1 ]
	[ "$(wc -l <"$BATS_TEST_TMPDIR/log")" -le 202 ]
}
