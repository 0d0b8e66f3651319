#!/usr/bin/env bats
# The options of get: messages that come back unless they are closed, and getters that wait.

load helper

# name NUMBER: the name of a message.
name() {
	printf %016d "$1"
}

# python [argument...] < script: with connect(), ask(), and the spool and the port as arguments.
python() {
	{
		cat <<-'END'
			import os, select, signal, socket, subprocess, sys, time
			spool, port = sys.argv[1], int(sys.argv[2])
			def connect():
			    s = socket.create_connection(("127.0.0.1", port), timeout=10)
			    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
			    return s
			def read_reply(s):
			    got = b""
			    while not (got.endswith(b"END\r\n") or got.endswith(b"STORED\r\n") or b"ERROR" in got):
			        part = s.recv(65536)
			        assert part, got
			        got += part
			    return got
			def ask(s, line):
			    s.sendall(line + b"\r\n")
			    return read_reply(s)
			def put(queue, body):
			    with connect() as s:
			        assert ask(s, b"set %s 0 0 %d\r\n%s" % (queue, len(body), body)) == b"STORED\r\n"
			def pid_of(s):
			    got = ask(s, b"stats")
			    return int(got.split(b"STAT pid ")[1].split()[0])
			def wait_for(condition, what, seconds=10):
			    end = time.monotonic() + seconds
			    while not condition():
			        assert time.monotonic() < end, "gave up waiting: " + what
			        time.sleep(0.01)
			def line(queue):
			    """How many stand in line."""
			    try:
			        return len(os.listdir(f"{spool}/{queue}/.wait"))
			    except FileNotFoundError:
			        return 0
			def waiting(queue, ms, n=1):
			    """n connections that wait, in this order."""
			    socks = []
			    for _ in range(n):
			        s, before = connect(), line(queue)
			        s.sendall(b"get %s/t=%d\r\n" % (queue.encode(), ms))
			        wait_for(lambda: line(queue) > before, "a place in the line")
			        socks.append(s)
			    return socks
			def has_reply(s, within=0):
			    return bool(select.select([s], [], [], within)[0])
		END
		cat
	} >"$BATS_TEST_TMPDIR/script.py"
	timeout 120 "$PYTHON" "$BATS_TEST_TMPDIR/script.py" "$SPOOL" "$PORT" "$@"
}

@test "open keeps a message until close; abort, and the end of the connection, put it back" {
	talk <<-'END'
		> set q 7 0 3
		> one
		< STORED
		> set q 0 0 3
		> two
		< STORED
		> get q/open
		< VALUE q/open 7 3
		< one
		< END
		> get q/abort
		< END
		> get q/open
		< VALUE q/open 7 3
		< one
		< END
		> get q/close
		< END
		> gets q/open
		<~ VALUE q/open 0 3 \d+
		< two
		< END
	END
	[ "$(count_messages q)" = 1 ]
	talk <<-'END'
		> get q
		< VALUE q 0 3
		< two
		< END
		> get q/open
		< END
	END
	"$MQCTL" -H "$SPOOL" check
}

@test "close/open in one go, in any order, with and without something open" {
	talk <<-'END'
		> set q 0 0 1
		> a
		< STORED
		> set q 0 0 1
		> b
		< STORED
		> get q/close/open
		< VALUE q/close/open 0 1
		< a
		< END
		> get q/t=10/open/close
		< VALUE q/t=10/open/close 0 1
		< b
		< END
		> get q/open/close
		< END
		> get q/close
		< END
		> get q/abort
		< END
	END
	[ "$(count_messages q)" = 0 ]
	[ -z "$(in_flight q)" ]
}

@test "one message of a queue can be open at a time; another queue has its own" {
	talk <<-'END'
		> set q 0 0 1
		> a
		< STORED
		> set q 0 0 1
		> b
		< STORED
		> set r 0 0 1
		> c
		< STORED
		> get q/open
		< VALUE q/open 0 1
		< a
		< END
		> get q/open
		< CLIENT_ERROR close current item first
		> get q
		< VALUE q 0 1
		< b
		< END
		> get r/open
		< VALUE r/open 0 1
		< c
		< END
		> get q/close
		< END
		> get r/abort
		< END
	END
	[ "$(count_messages q)/$(count_messages r)" = 0/1 ]
}

@test "32 messages can be open at a time, of as many queues" {
	local i
	for i in {1..33}; do
		printf 'set q%d 0 0 1\r\nx\r\nget q%d/open\r\n' "$i" "$i"
	done >"$BATS_TEST_TMPDIR/in"
	printf 'get q5/close\r\nget q33/open\r\n' >>"$BATS_TEST_TMPDIR/in"
	mkdir "$SPOOL"
	"$MQD" -H "$SPOOL" <"$BATS_TEST_TMPDIR/in" >"$BATS_TEST_TMPDIR/out"
	[ "$(grep -c ^VALUE "$BATS_TEST_TMPDIR/out")" = 33 ]
	[ "$(grep -c ^CLIENT "$BATS_TEST_TMPDIR/out")" = 1 ]
	grep -qx $'CLIENT_ERROR too many open items\r' "$BATS_TEST_TMPDIR/out"
	for i in {1..33}; do
		[ "$(count_messages "q$i")" = $((i != 5)) ]
	done
}

@test "peek takes nothing, and shows the oldest that is whole" {
	talk <<-'END'
		> get q/peek
		< END
		> set q 5 0 1
		> a
		< STORED
		> set q 0 0 1
		> b
		< STORED
		> get q/peek
		< VALUE q/peek 5 1
		< a
		< END
		> get q/t=10/peek
		< VALUE q/t=10/peek 5 1
		< a
		< END
	END
	[ "$(count_messages q)" = 2 ]
	rm "$SPOOL/q/0000000000000001"
	mkfifo "$SPOOL/q/0000000000000001"
	talk <<-'END'
		> get q/peek
		< VALUE q/peek 0 1
		< b
		< END
	END
	head -c 200000 /dev/zero | "$MQCTL" -H "$SPOOL" put large
	printf 'get large/peek\r\nget large\r\n' | "$MQD" -H "$SPOOL" >"$BATS_TEST_TMPDIR/out"
	[ "$(wc -c <"$BATS_TEST_TMPDIR/out")" = $((2 * (200000 + 2 + 5) + 27 + 22)) ]
}

@test "peek passes what was removed by hand, also at the head, and what waits is counted right" {
	mkdir -p "$SPOOL"
	printf 'set q 0 0 1\r\n%s\r\n' a b c | "$MQD" -H "$SPOOL" >/dev/null
	rm "$SPOOL/q/0000000000000001" "$SPOOL/q/0000000000000002"
	[ "$(printf 'get q/peek\r\n' | "$MQD" -H "$SPOOL" | tr -d '\r')" = $'VALUE q/peek 0 1\nc\nEND' ]
	printf 'stats\r\n' | "$MQD" -H "$SPOOL" | grep -q $'^STAT curr_items 1\r'
	[ "$(printf 'get q\r\n' | "$MQD" -H "$SPOOL" | tr -d '\r')" = $'VALUE q 0 1\nc\nEND' ]
}

@test "what is unknown, or goes with nothing, is refused and takes nothing" {
	talk <<-'END'
		> set q 0 0 1
		> a
		< STORED
		> get q/opne
		< CLIENT_ERROR unknown option
		> get q/
		< CLIENT_ERROR unknown option
		> get q/t=
		< CLIENT_ERROR unknown option
		> get q/t=1x
		< CLIENT_ERROR unknown option
		> get q/t=-1
		< CLIENT_ERROR unknown option
		> get q/t=99999999999
		< CLIENT_ERROR unknown option
		> get q/OPEN
		< CLIENT_ERROR unknown option
		> get q//open
		< CLIENT_ERROR unknown option
		> get q/peek/open
		< CLIENT_ERROR peek does not go with open or close
		> get q/close/peek
		< CLIENT_ERROR peek does not go with open or close
		> get q/abort/open
		< CLIENT_ERROR abort goes with no other option
		> get q/abort/t=1
		< CLIENT_ERROR abort goes with no other option
		> get /open
		< CLIENT_ERROR queue name missing
		> get r q/open
		< CLIENT_ERROR options go with a get of one queue
		> get q/open r
		< CLIENT_ERROR options go with a get of one queue
		> get q
		< VALUE q 0 1
		< a
		< END
	END
	[ -z "$(in_flight q)" ]
}

@test "a key with its options has at most 250 bytes" {
	local name
	name=$(printf 'q%.0s' {1..245})
	talk <<-END
		> get $name/open
		< END
		> get ${name}q/open
		< CLIENT_ERROR key too long
	END
}

@test "t=0 and an empty queue answer at once; t waits that long, and no longer" {
	native "an answer has 100 ms"
	mkdir "$SPOOL"
	talk <<-'END'
		> get q/t=0
		<within 100 END
		> get q/t=300
		<silence 200
		<within 500 END
		> get q/t=300/open
		<silence 200
		<within 500 END
		> get q/t=300/peek
		<silence 200
		<within 500 END
	END
	[ "$(ls -A "$SPOOL/q/.wait")" = "" ]
}

@test "a push wakes one of 500 that wait, in the order in which they came" {
	start_mqd -N
	python <<-'END'
		n = 500
		socks = waiting("q", 60000, n)
		for i in range(20):
		    began = time.monotonic()
		    put(b"q", b"%d" % i)
		    assert read_reply(socks[i]) == b"VALUE q/t=60000 0 %d\r\n%d\r\nEND\r\n" % (len(str(i)), i)
		    assert time.monotonic() - began < 2
		assert not any(has_reply(s) for s in socks[20:])
		wait_for(lambda: line("q") == n - 20, "a line of 480")
	END
}

@test "500 who wait cost nothing: none of their processes wakes, nor runs, for three seconds" {
	start_mqd -N
	python <<-'END'
		socks = [connect() for _ in range(500)]
		pids = [pid_of(s) for s in socks]
		for n, s in enumerate(socks):
		    s.sendall(b"get q/t=60000\r\n")
		    wait_for(lambda: line("q") == n + 1, "a place in the line")
		def wakes():
		    n = 0
		    for pid in pids:
		        with open(f"/proc/{pid}/status") as f:
		            n += int(f.read().split("\nvoluntary_ctxt_switches:\t")[1].split()[0])
		    return n
		def cpu_ms():
		    ns = 0
		    for pid in pids:
		        with open(f"/proc/{pid}/schedstat") as f:
		            ns += int(f.read().split()[0])
		    return ns / 1e6
		def asleep(pid):
		    with open(f"/proc/{pid}/stat") as f:
		        return f.read().rsplit(")", 1)[1].split()[0] == "S"
		wait_for(lambda: all(map(asleep, pids)), "all asleep")
		before, used = wakes(), cpu_ms()
		assert not select.select(socks, [], [], 3)[0]
		# The first looks once for what the dead have left. Without inotify it looks every 20 ms.
		limit, limit_ms = (160, 100) if "portable" in os.environ["MQD_BINARY"] else (1, 5)
		assert wakes() - before <= limit, (before, wakes())
		assert cpu_ms() - used <= limit_ms, (used, cpu_ms())
	END
}

@test "also what comes back wakes: aborted, or its consumer killed, with nothing else going on" {
	start_mqd
	python <<-'END'
		put(b"q", b"x")
		holder = connect()
		assert ask(holder, b"get q/open").startswith(b"VALUE")
		[s] = waiting("q", 20000)
		assert ask(holder, b"get q/abort") == b"END\r\n"
		assert read_reply(s).startswith(b"VALUE")

		put(b"q", b"y")
		pid = pid_of(holder)
		assert ask(holder, b"get q/open").startswith(b"VALUE")
		[s] = waiting("q", 20000)
		began = time.monotonic()
		os.kill(pid, signal.SIGKILL)
		assert read_reply(s).startswith(b"VALUE")
		assert time.monotonic() - began < 1.5, time.monotonic() - began
	END
}

@test "the first of the line is killed, and one in its middle: the others are served" {
	start_mqd
	python <<-'END'
		def start():
		    before = line("q")
		    s = connect()
		    pid = pid_of(s)
		    s.sendall(b"get q/t=20000\r\n")
		    wait_for(lambda: line("q") > before, "a place in the line")
		    return s, pid
		line_up = [start() for _ in range(5)]
		os.kill(line_up[0][1], signal.SIGKILL)
		os.kill(line_up[2][1], signal.SIGKILL)
		for i in (1, 3, 4):
		    put(b"q", b"%d" % i)
		    assert read_reply(line_up[i][0]) == b"VALUE q/t=20000 0 1\r\n%d\r\nEND\r\n" % i
	END
	[ "$(count_messages q)" = 0 ]
}

@test "for a client that left, also behind a further command, nothing is taken" {
	start_mqd
	python <<-'END'
		[a, b, c] = waiting("q", 60000, 3)
		a.close()
		b.sendall(b"version\r\n")
		b.close()
		wait_for(lambda: line("q") == 1, "one in the line")
		put(b"q", b"x")
		assert read_reply(c).startswith(b"VALUE")
	END
	[ "$(count_messages q)" = 0 ]
}

@test "a command behind a get that waits is answered after it" {
	start_mqd
	talk_tcp <<-'END'
		> get q/t=200
		> version
		<silence 100
		< END
		<~ VERSION .*
	END
}

@test "the queue is deleted while some wait and one has a message open: they go on with the new one" {
	start_mqd
	python <<-'END'
		put(b"q", b"old")
		holder = connect()
		assert ask(holder, b"get q/open").startswith(b"VALUE")
		socks = waiting("q", 20000, 3)
		other = connect()
		other.sendall(b"delete q\r\n")
		assert other.recv(100) == b"DELETED\r\n"
		for i, s in enumerate(socks):
		    put(b"q", b"new%d" % i)
		got = sorted(read_reply(s) for s in socks)
		assert got == [b"VALUE q/t=20000 0 4\r\nnew%d\r\nEND\r\n" % i for i in range(3)], got
		assert ask(holder, b"get q/close") == b"END\r\n"
		assert ask(holder, b"get q") == b"END\r\n"
	END
	"$MQCTL" -H "$SPOOL" check
}

@test "the queue is deleted while messages of it are open: however these end, none is in the new one" {
	mkdir "$SPOOL"
	"$MQCTL" -H "$SPOOL" set late open_timeout=300ms
	start_mqd
	python <<-'END'
		queues = [b"aborted", b"closed", b"lost", b"killed", b"late"]
		other, holders = connect(), {q: connect() for q in queues}
		pid = pid_of(holders[b"killed"])
		for q in queues:
		    put(q, b"old1")
		    put(q, b"old2")
		    assert ask(holders[q], b"get %s/open" % q).startswith(b"VALUE")
		    other.sendall(b"delete %s\r\n" % q)
		    assert other.recv(100) == b"DELETED\r\n"
		    put(q, b"new1") # under the number of the one that is open
		assert ask(holders[b"aborted"], b"get aborted/abort") == b"END\r\n"
		assert ask(holders[b"closed"], b"get closed/close") == b"END\r\n"
		holders[b"lost"].close()
		os.kill(pid, signal.SIGKILL)
		assert ask(holders[b"late"], b"get none/t=600") == b"END\r\n"
		assert ask(holders[b"late"], b"get late/close") == b"CLIENT_ERROR item was open too long\r\n"
		for q in queues:
		    assert ask(other, b"get " + q) == b"VALUE %s 0 4\r\nnew1\r\nEND\r\n" % q
		# Whoever waits looks for what the dead have left.
		for q in queues:
		    assert ask(other, b"get %s/t=1100" % q) == b"END\r\n", q
	END
	"$MQCTL" -H "$SPOOL" check
}

@test "the queue is deleted while delayed messages are on their way, and while they are waited for" {
	start_mqd
	python <<-'END'
		a, b = connect(), connect()
		body = b"x" * 300000
		a.sendall(b"set q/delay=1 0 0 %d\r\n" % len(body) + body[:200000])
		put(b"q/delay=1", b"old")
		s, monitor = waiting("q", 3000)[0], connect()
		monitor.sendall(b"monitor q 3\r\n")
		wait_for(lambda: line("q") == 2, "a place in the line")
		b.sendall(b"delete q\r\n")
		assert b.recv(100) == b"DELETED\r\n"
		began = time.monotonic()
		a.sendall(body[200000:] + b"\r\n")
		assert read_reply(a) == b"STORED\r\n"
		# The one whose place was asked for when the new queue was made is the one that gets it.
		ready = select.select([s, monitor], [], [], 10)[0]
		assert 1 <= time.monotonic() - began < 3 and len(ready) == 1, (began, ready)
		got = read_reply(ready[0])
		assert got.endswith(body + b"\r\nEND\r\n") and b"old" not in got, got[:100]
		assert read_reply(monitor if ready[0] is s else s) == b"END\r\n"
	END
	[ "$(count_messages q)" -le 1 ]
	[ -z "$(find "$SPOOL/q/.delay" -type f)" ]
	"$MQCTL" -H "$SPOOL" check
}

@test "SIGTERM ends a wait with END" {
	mkdir "$SPOOL"
	mkfifo "$BATS_TEST_TMPDIR/in"
	"$MQD" -H "$SPOOL" <"$BATS_TEST_TMPDIR/in" >"$BATS_TEST_TMPDIR/out" 3>&- &
	local pid=$!
	exec 4>"$BATS_TEST_TMPDIR/in"
	printf 'get q/t=60000\r\n' >&4
	in_line() { [ -n "$(ls "$SPOOL/q/.wait")" ]; }
	wait_for in_line
	kill "$pid"
	wait "$pid"
	exec 4>&-
	[ "$(cat "$BATS_TEST_TMPDIR/out")" = $'END\r' ]
}

@test "a line of dead fifos, and other things in .wait, stop nobody" {
	mkdir -p "$SPOOL/q/.wait/0000000000000004"
	mkfifo "$SPOOL/q/.wait/0000000000000001" "$SPOOL/q/.wait/0000000000000007"
	: >"$SPOOL/q/.wait/0000000000000009"
	: >"$SPOOL/q/.wait/x"
	start_mqd
	python <<-'END'
		s = connect()
		s.sendall(b"get q/t=20000\r\n")
		wait_for(lambda: os.path.exists(spool + "/q/.wait/0000000000000010"), "a place in the line")
		put(b"q", b"x")
		assert read_reply(s).startswith(b"VALUE")
	END
	[ "$(ls "$SPOOL/q/.wait")" = $'0000000000000004\nx' ]
}

# tries QUEUE NUMBER: what the header of a waiting message says.
tries() {
	cut -c 55-59 "$SPOOL/$1/$(printf %016d "$2")" | head -n 1
}

@test "each return counts one try in the message, whatever its size; an orderly end does not" {
	start_mqd
	python <<-'END'
		put(b"q", b"small")
		put(b"large", b"x" * 300000)
		for queue in (b"q", b"large"):
		    s = connect()
		    assert ask(s, b"get %s/open" % queue).startswith(b"VALUE")
		    assert ask(s, b"get %s/abort" % queue) == b"END\r\n"
		    assert ask(s, b"get %s/open" % queue).startswith(b"VALUE")
		    s.close()
		    name = f"{spool}/{queue.decode()}/{1:016d}"
		    wait_for(lambda: os.path.exists(name), "the message of a client that left")
		    s = connect()
		    pid = pid_of(s)
		    assert ask(s, b"get %s/open" % queue).startswith(b"VALUE")
		    os.kill(pid, signal.SIGKILL)
		    def is_back():
		        subprocess.run([os.environ["MQCTL"], "-H", spool, "ls"], stdout=subprocess.DEVNULL)
		        return os.path.exists(name)
		    wait_for(is_back, "the message of a killed process")
	END
	[ "$(tries q 1)/$(tries large 1)" = 00003/00003 ]
	python <<-'END'
		s = connect()
		pid = pid_of(s)
		assert ask(s, b"get q/open").startswith(b"VALUE")
		os.kill(pid, signal.SIGTERM)
		wait_for(lambda: os.path.exists(f"{spool}/q/{1:016d}"), "the message, put back")
	END
	[ "$(tries q 1)" = 00003 ]
	talk <<-'END'
		> get q
		< VALUE q 0 5
		< small
		< END
	END
	"$MQCTL" -H "$SPOOL" check
}

# Of a host that has lost its power nothing comes, nor from one whose socket has a filter that drops
# whatever comes to it. A socket that is closed under repair says nothing either; its kernel answers
# what comes later with a reset, as that of a host that was restarted.
@test "a consumer whose host has vanished: what it had is back, and who just does not read stays" {
	[[ $MQD_BINARY != *portable* ]] || skip "the system decides when to ask"
	start_mqd -o keepalive=1
	python <<-'END'
		import ctypes, struct
		TCP_REPAIR, SO_ATTACH_FILTER, TCP_RTO_MAX_MS = 19, 26, 44
		RETURN_0 = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0))
		def vanish(s):
		    filter = struct.pack("HL", 1, ctypes.addressof(RETURN_0))
		    s.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, filter)
		def is_back(queue):
		    return os.path.exists(f"{spool}/{queue}/{1:016d}")
		body = b"x" * 1000000
		slow = connect()
		for _ in range(10):
		    put(b"slow", body)
		slow.sendall(b"get slow\r\n" * 10)

		for queue in (b"restarted", b"off"):
		    put(queue, b"x")
		holder, receiver, [waiter] = connect(), connect(), waiting("line", 60000)
		assert ask(holder, b"get off/open").startswith(b"VALUE")
		receiver.sendall(b"get unacked/open/t=60000\r\n")
		wait_for(lambda: line("unacked") == 1, "a place in the line")
		for s in (holder, receiver, waiter):
		    vanish(s)
		put(b"unacked", b"x")
		began = time.monotonic()
		if os.geteuid() == 0:
		    restarted = connect()
		    assert ask(restarted, b"get restarted/open").startswith(b"VALUE")
		    restarted.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
		    restarted.close()
		    wait_for(lambda: is_back("restarted"), "the message of a host that was restarted", 4)
		wait_for(lambda: is_back("off"), "the message of a host that is off", 8)
		wait_for(lambda: line("line") == 0, "the place in the line", 2)
		assert time.monotonic() - began > 1, "nobody can know yet"
		try:
		    holder.setsockopt(socket.IPPROTO_TCP, TCP_RTO_MAX_MS, 1000)
		except OSError:
		    pass # before Linux 6.15: a quarter of an hour
		else:
		    wait_for(lambda: is_back("unacked"), "a message that was sent to nobody", 25)

		# Who is there was not given up, however long it did not read.
		for _ in range(10):
		    want = b"VALUE slow 0 1000000\r\n" + body + b"\r\nEND\r\n"
		    while want:
		        part = slow.recv(len(want))
		        assert part and want.startswith(part)
		        want = want[len(part):]
	END
	[ "$(tries off 1)" = 00001 ]
	[ "$EUID" -ne 0 ] || [ "$(tries restarted 1)" = 00001 ]
	"$MQCTL" -H "$SPOOL" check
}

@test "keepalive: after a minute if nothing is said, and never with 0" {
	local port option said
	mkdir "$SPOOL"
	run "$MQD" -o keepalive=32768
	[ "$status" -eq 100 ]
	[[ $output == *'from 0 to 32767'* ]]
	for option in sync=none keepalive=7 keepalive=0; do
		port=$(free_port)
		ASAN_OPTIONS=detect_leaks=0 tcpserver -HRDl0 127.0.0.1 "$port" strace -qq -e trace=setsockopt \
			-o "$BATS_TEST_TMPDIR/trace" "$MQD_BINARY" -H "$SPOOL" -o "$option" 3>&- &
		MQD_PID=$!
		wait_for listening "$port"
		"$BATS_TEST_DIRNAME/transcript" tcp 127.0.0.1 "$port" <<-'END'
			> get q
			< END
		END
		stop_mqd
		said+="$option $(sed -n 's/.*_\(KEEP[A-Z]*\), \[\([0-9]*\)\].*/\1=\2/p' "$BATS_TEST_TMPDIR/trace" | sort -u | tr '\n' ' ')"
	done
	if [[ $MQD_BINARY == *portable* ]]; then
		[ "$said" = "sync=none KEEPALIVE=1 keepalive=7 KEEPALIVE=1 keepalive=0 KEEPALIVE=0 " ]
	else
		[ "$said" = "sync=none KEEPALIVE=1 KEEPCNT=3 KEEPIDLE=60 KEEPINTVL=10 keepalive=7 KEEPALIVE=1 KEEPCNT=3 KEEPIDLE=7 KEEPINTVL=2 keepalive=0 KEEPALIVE=0 " ]
	fi
}

@test "what is set on a listening socket holds for the connections of its pool" {
	[ "$EUID" -eq 0 ] || skip "looks at a socket of another process, as root"
	start_mqd -o keepalive=7
	python <<-'END'
		import ctypes, glob, os, re, subprocess
		s = connect()
		s.sendall(b"version\r\n")
		assert s.recv(100).startswith(b"VERSION")
		local, remote = s.getsockname()[1], s.getpeername()[1]
		inodes = {l.split()[9] for l in open("/proc/net/tcp")
		          if l.split()[1].endswith(":%04X" % remote) and l.split()[2].endswith(":%04X" % local)}
		pids = subprocess.run(["pgrep", "-f", os.environ["SPOOL"]], capture_output=True,
		                      text=True).stdout.split()
		held = [f for pid in pids for f in glob.glob("/proc/%s/fd/*" % pid)
		        if os.path.lexists(f) and os.readlink(f) in {"socket:[%s]" % i for i in inodes}]
		assert held
		pid, fd = map(int, re.findall(r"\d+", held[0]))
		copy = ctypes.CDLL(None).syscall(438, os.pidfd_open(pid), fd, 0)  # pidfd_getfd(2)
		assert copy != -1
		with socket.socket(fileno=copy) as theirs:
		    assert theirs.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
		    assert theirs.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
		    if "portable" not in os.environ["MQD_BINARY"]:
		        assert theirs.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 7
		        assert theirs.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 2
		        assert theirs.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == 3
	END
}

@test "a dead letter for which there is no room is delivered again, and nothing is written over it" {
	mkdir "$SPOOL"
	"$MQCTL" -H "$SPOOL" set / max_tries=1
	"$MQCTL" -H "$SPOOL" set q.dead max_items=1
	start_mqd
	python <<-'END'
		def body(f):
		    line = f.readline()
		    if line == b"END\r\n":
		        return None
		    data = f.read(int(line.split()[3]) + 2)[:-2]
		    assert f.readline() == b"END\r\n"
		    return data
		a, b = connect(), connect()
		fa, fb = a.makefile("rb"), b.makefile("rb")
		def push(s, f, queue, data):
		    s.sendall(b"set %s 0 0 %d\r\n%s\r\n" % (queue, len(data), data))
		    assert f.readline() == b"STORED\r\n"
		push(a, fa, b"q.dead", b"x")
		for i in range(60):
		    push(a, fa, b"q", b"FIRST-%02d" % i * 100)
		for i in range(40):  # so that there are spent files enough
		    a.sendall(b"get q\r\n")
		    assert body(fa) == b"FIRST-%02d" % i * 100
		a.sendall(b"get q/open\r\n")
		assert body(fa) == b"FIRST-40" * 100
		a.sendall(b"get q/abort\r\n")
		assert body(fa) is None
		a.sendall(b"get q\r\nversion\r\n")  # dead, and no room for it; not read yet
		has_reply(a, 10)
		for i in range(60):
		    push(b, fb, b"q", b"OTHER--%d" % (i % 10) * 100)
		assert body(fa) == b"FIRST-40" * 100
	END
}

@test "monitor: messages as they come, open until they are confirmed, the oldest first" {
	start_mqd
	python <<-'END'
		for body in (b"1", b"2", b"3"):
		    put(b"q", body)
		s = connect()
		s.sendall(b"monitor q 20 5\r\n")
		want = b"".join(b"VALUE q 0 1\r\n%d\r\nEND\r\n" % i for i in (1, 2, 3))
		got = b""
		while len(got) < len(want):
		    got += s.recv(1000)
		assert got == want, got
		put(b"q", b"4")
		assert read_reply(s) == b"VALUE q 0 1\r\n4\r\nEND\r\n"
		put(b"q", b"5")
		got = b""
		while len(got) < 26:
		    got += s.recv(1000)
		assert got == b"VALUE q 0 1\r\n5\r\nEND\r\nEND\r\n", got
		assert ask(s, b"confirm q 6") == b"CLIENT_ERROR fewer items are open\r\n"
		assert ask(s, b"confirm r 1") == b"CLIENT_ERROR fewer items are open\r\n"
		assert ask(s, b"confirm q 2") == b"END\r\n"
		assert ask(s, b"get q/close") == b"END\r\n"
		assert ask(s, b"confirm q 0") == b"END\r\n"
		assert ask(s, b"get q/abort") == b"END\r\n"
		s.close()
		wait_for(lambda: os.path.exists(f"{spool}/q/{5:016d}"), "the last one")
	END
	[ "$(ls "$SPOOL/q")" = "$(name 4)"$'\n'"$(name 5)" ]
	talk <<-'END'
		> monitor q 0
		< VALUE q 0 1
		< 4
		< END
		< VALUE q 0 1
		< 5
		< END
		< END
		> confirm q 2
		< END
		> monitor q 0 1
		< END
		> monitor q
		< ERROR
		> monitor q 1 1 1
		< ERROR
		> monitor q x
		< CLIENT_ERROR bad command line format
		> monitor q 1 x
		< CLIENT_ERROR bad command line format
		> monitor q/open 1
		< CLIENT_ERROR queue name may not contain a slash
		> confirm q
		< ERROR
		> confirm q -1
		< CLIENT_ERROR bad command line format
	END
}

@test "20 producers, 20 reliable consumers, one killed every 100 ms: each message once" {
	run "$PYTHON" "$BATS_TEST_DIRNAME/soak" "$MQD" "$MQCTL" "$SPOOL" 5
	echo "# $output" >&3
	[ "$status" -eq 0 ]
}

@test "for a client that leaves while the lock is waited for nothing is taken either" {
	start_mqd
	python <<-'END'
		[s] = waiting("q", 60000)
		pusher = subprocess.Popen(["strace", "-qq", "-o", "/dev/null", "-P", spool + "/q/.state",
		                           "-e", "inject=pwrite64:delay_enter=1000000", os.environ["MQD_BINARY"],
		                           "-N", "-H", spool], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
		                          env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"})
		pusher.stdin.write(b"set q 0 0 1\r\nx\r\n")
		pusher.stdin.close()
		wait_for(lambda: os.path.exists(f"{spool}/q/{1:016d}"), "the message")
		s.close()
		pusher.wait()
		wait_for(lambda: line("q") == 0, "nobody in the line")
		c = connect()
		assert ask(c, b"get q").startswith(b"VALUE")
	END
}

@test "an orphan whose owner died before anybody watched comes within a second" {
	mkdir "$SPOOL"
	"$MQCTL" -H "$SPOOL" put q <<<x
	mkfifo "$BATS_TEST_TMPDIR/in"
	"$MQD" -N -H "$SPOOL" <"$BATS_TEST_TMPDIR/in" >"$BATS_TEST_TMPDIR/out" 3>&- &
	local pid=$!
	exec 4>"$BATS_TEST_TMPDIR/in"
	printf 'get q/open\r\n' >&4
	wait_for grep END "$BATS_TEST_TMPDIR/out"
	kill -9 "$pid"
	wait "$pid" || :
	exec 4>&-
	talk <<-'END'
		> get q/t=5000
		<within 1500 VALUE q/t=5000 0 2
		<< x\n\r\nEND\r\n
	END
}

@test "what was opened and closed in advance, and could not be written, is still there" {
	mkdir "$SPOOL"
	"$MQCTL" -H "$SPOOL" put q <<<x
	printf 'get q/open\r\nget q/close\r\n' >"$BATS_TEST_TMPDIR/in"
	"$PYTHON" - "$MQD" "$SPOOL" "$BATS_TEST_TMPDIR/in" <<-'END'
		import os, subprocess, sys
		r, w = os.pipe()
		os.close(r)
		p = subprocess.Popen([sys.argv[1], "-N", "-H", sys.argv[2]], stdin=open(sys.argv[3]), stdout=w)
		os.close(w)
		assert p.wait() == 0
	END
	[ "$("$MQCTL" -H "$SPOOL" get q)" = x ]
}

# follow [OPTION...] < script: mqd is on a socket, traced; `calls` are those that it has made, by name.
follow() {
	{
		cat <<-'END'
			import os, re, socket, subprocess, sys, time
			mqd, spool, trace = sys.argv[1:]
			os.environ["ASAN_OPTIONS"] = "detect_leaks=0"
			def push(*items):
			    text = b"".join(b"set %s 0 0 %d\r\n%s\r\n" % (queue, len(body), body) for queue, body in items)
			    out = subprocess.run([mqd, "-H", spool, "-B", "10m"], input=text, stdout=subprocess.PIPE).stdout
			    assert out == b"STORED\r\n" * len(items), out
			def start(*options):
			    ours, its = socket.socketpair()
			    p = subprocess.Popen(["strace", "-qq", "-o", trace, *options, mqd, "-H", spool], stdin=its)
			    its.close()
			    ours.settimeout(20)
			    return p, ours
			def calls():
			    return re.findall(r"^(\w+)\(", open(trace).read(), re.M) if os.path.exists(trace) else []
			def until(condition):
			    end = time.monotonic() + 20
			    while not condition():
			        assert time.monotonic() < end, calls()
			        time.sleep(0.01)
		END
		cat
	} >"$BATS_TEST_TMPDIR/script.py"
	mkdir -p "$SPOOL"
	timeout 60 "$PYTHON" "$BATS_TEST_TMPDIR/script.py" "$MQD_BINARY" "$SPOOL" "$BATS_TEST_TMPDIR/trace"
}

@test "what was delivered is durable before a large body is written behind it, however slowly it is read" {
	native "it is traced"
	follow <<-'END'
		push((b"a", b"1"), (b"a", b"2"), (b"big", bytes(4 << 20)))
		p, ours = start("-e", "trace=writev,sendfile,fsync,fdatasync,read")
		ours.sendall(b"get a big\r\n")
		# Of what is written then nobody has read a byte yet.
		until(lambda: len([c for c in calls() if c in ("writev", "sendfile")]) > 1)
		made = calls()
		first, then = [n for n, call in enumerate(made) if call in ("writev", "sendfile")][:2]
		assert {"fsync", "fdatasync"} & set(made[first:then]), made
		ours.close()
		p.wait()
	END
}

@test "what was delivered is durable before the files of a deleted queue are unlinked" {
	native "it is traced"
	follow <<-'END'
		push((b"a", b"1"), (b"a", b"2"), *[(b"d", b"x")] * 500)
		p, ours = start("-e", "trace=writev,unlinkat,fsync,fdatasync", "-e", "inject=unlinkat:delay_enter=2000")
		ours.sendall(b"get a\r\ndelete d\r\n")
		until(lambda: calls().count("unlinkat") > 20)
		made = calls()
		flushed = [n for n, call in enumerate(made) if call in ("fsync", "fdatasync") and n > made.index("writev")]
		assert flushed and made[:flushed[0]].count("unlinkat") < 5, made[:40]
		ours.close()
		p.wait()
	END
}

@test "a client that has closed its side need not wait for the files of a queue that it deleted" {
	native "it is traced"
	follow <<-'END'
		push(*[(b"d", b"x")] * 500)
		p, ours = start("-e", "trace=unlinkat,exit_group", "-e", "inject=unlinkat:delay_enter=4000")
		ours.sendall(b"delete d\r\n")
		ours.shutdown(socket.SHUT_WR)
		assert ours.recv(100) == b"DELETED\r\n" and ours.recv(100) == b""
		assert calls().count("unlinkat") < 250, len(calls())
		p.wait()
		assert calls().count("unlinkat") >= 500
	END
}

@test "open of a queue that is made at that moment: its message, or END" {
	native "it is traced"
	follow <<-'END'
		p, ours = start("-e", "trace=?statx,?newfstatat,?fstatat64,openat,?open",
		                "-e", "inject=?statx,?newfstatat,?fstatat64,openat,?open:delay_exit=3000")
		r = ours.makefile("rb")
		pusher = subprocess.Popen([mqd, "-N", "-H", spool], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
		for n in range(60):
		    ours.sendall(b"get q%d/open\r\n" % n)
		    time.sleep(n / 4000)
		    pusher.stdin.write(b"set q%d 0 0 1\r\nx\r\n" % n)
		    assert pusher.stdout.readline() == b"STORED\r\n"
		    reply = r.readline()
		    if reply.startswith(b"VALUE"):
		        assert r.readline() + r.readline() == b"x\r\nEND\r\n"
		        ours.sendall(b"get q%d/close\r\n" % n)
		        reply = r.readline()
		    assert reply == b"END\r\n", (n, reply)
		r.close()
		ours.close()
		pusher.stdin.close()
		assert pusher.wait() == 0
		p.wait()
	END
}
