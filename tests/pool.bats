#!/usr/bin/env bats
# The pool: how many workers there are, what it survives, when it ends, what it costs to accept.

load helper

# Each of these is about the pool; tests/helper.bash could start something else.
start_pool() {
	LAUNCH=pool start_mqd "$@"
}

teardown() {
	stop_mqd
	[[ -z ${XINETD_PID:-} ]] || {
		kill "$XINETD_PID"
		wait_for gone "$XINETD_PID"
	}
}

workers() {
	pgrep -P "$MQD_PID" || :
}

has_workers() { # [at least] N
	if [[ $1 == "at least" ]]; then
		(($(workers | wc -l) >= $2))
	else
		(($(workers | wc -l) == $1))
	fi
}

# Does the process sleep in a wait, where the next thing to happen is a connection?
sleeps_in_wait() {
	[[ $(<"/proc/$1/wchan") == *poll* ]]
}

all_wait() {
	local pid
	for pid in $(workers); do sleeps_in_wait "$pid" || return 1; done
}

logged() {
	grep -q "$1" "$BATS_TEST_TMPDIR/log"
}

# python [ARGUMENT...] < script: with a few helpers; argv[1] is the port, argv[2] the parent.
python() {
	{
		cat <<-'END'
			import os, re, select, signal, socket, struct, subprocess, sys, time
			port, parent = int(sys.argv[1]), int(sys.argv[2])
			def connect():
			    return socket.create_connection(("127.0.0.1", port), 20)
			def ask(s, line):
			    s.sendall(line + b"\r\n")
			    return s.recv(1000)
			def pid_of(s):
			    s.sendall(b"stats\r\n")
			    r = b""
			    while not r.endswith(b"END\r\n"):
			        r += s.recv(5000)
			    return int(re.search(rb"STAT pid (\d+)", r)[1])
			def workers():
			    return {int(w) for w in open(f"/proc/{parent}/task/{parent}/children").read().split()}
			def wait_for(condition, what):
			    end = time.monotonic() + 10
			    while not condition():
			        assert time.monotonic() < end, "gave up waiting: " + what
			        time.sleep(0.01)
			def ended(pid):
			    try:
			        return open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[0] == "Z"
			    except OSError:
			        return True
		END
		cat
	} >"$BATS_TEST_TMPDIR/script.py"
	timeout 60 "$PYTHON" "$BATS_TEST_TMPDIR/script.py" "$PORT" "$MQD_PID" "$@"
}

@test "-t workers wait before anybody comes, no more than -c, and four if nothing is said" {
	start_pool -t 7
	wait_for has_workers 7
	stop_mqd
	start_pool -t 7 -c 3
	wait_for has_workers 3
	stop_mqd
	start_pool
	wait_for has_workers 4
}

@test "400 held connections: each served at once, spares beside them; then the pool shrinks" {
	start_pool -t 5
	python <<-'END'
		held = [connect() for _ in range(400)]
		for s in held:
		    assert ask(s, b"version").startswith(b"VERSION")
		wait_for(lambda: len(workers()) == 405, "405 workers")
		before = workers()
		# A spare takes the next one: it was there before its client.
		s = connect()
		assert pid_of(s) in before
	END
	wait_for has_workers 5
}

@test "1,000 connections at once: all served, none refused" {
	start_pool
	run "$PYTHON" "$BATS_TEST_DIRNAME/connections.py" 127.0.0.1 "$PORT" 0 --at-once 1000
	echo "# $output" >&3
	[ "$status" -eq 0 ]
	[ "$(count_messages burst)" -eq 1000 ]
}

@test "-c: one too many waits, is served when one leaves, and it is logged once" {
	start_pool -c 3 -t 2
	python <<-'END'
		held = [connect() for _ in range(3)]
		for s in held:
		    assert ask(s, b"version").startswith(b"VERSION")
		for _ in range(2):
		    late = connect()
		    late.sendall(b"version\r\n")
		    assert not select.select([late], [], [], 0.2)[0], "a fourth was served"
		    assert len(workers()) == 3
		    held.pop(0).close()
		    assert late.recv(100).startswith(b"VERSION")
		    held.append(late)
	END
	[ "$(grep -c 'all 3 workers are busy' "$BATS_TEST_TMPDIR/log")" = 1 ]
}

@test "a worker killed while it serves: replaced, its claim is back at once, nobody else notices" {
	start_pool -B 64m -t 2
	python "$SPOOL" <<-'END'
		other = connect()
		assert ask(other, b"version").startswith(b"VERSION")
		s = connect()
		pid = pid_of(s)
		body = b"x" * 30000000
		s.sendall(b"set a 0 0 %d\r\n" % len(body) + body + b"\r\n")
		assert s.recv(100) == b"STORED\r\n"
		s.sendall(b"get a\r\n")
		assert s.recv(10) == b"VALUE a 0 "
		assert os.listdir(sys.argv[3] + "/a/.claim")
		os.kill(pid, signal.SIGKILL)
		wait_for(lambda: os.path.exists(sys.argv[3] + "/a/0000000000000001"), "the claim")
		wait_for(lambda: len(workers()) >= 3 and pid not in workers(), "a new worker")
		assert ask(other, b"version").startswith(b"VERSION")
		assert ask(connect(), b"version").startswith(b"VERSION")
	END
	logged 'killed by signal 9'
	logged '1 messages of killed workers put back'
}

@test "idle workers killed: replaced, and none counts as idle any more" {
	start_pool -t 3
	python <<-'END'
		for _ in range(10):
		    wait_for(lambda: len(workers()) >= 3, "three workers")
		    old = workers()
		    for pid in old:
		        try:
		            os.kill(pid, signal.SIGKILL)
		        except ProcessLookupError:
		            pass # the one that looked for what the dead had claimed
		    assert ask(connect(), b"version").startswith(b"VERSION")
		    wait_for(lambda: not workers() & old, "the dead to be reaped")
		wait_for(lambda: len(workers()) >= 3, "three workers")
	END
}

@test "SIGKILL at every system call of a worker: the next is there, nothing lost or doubled" {
	start_pool -t 1 -c 1
	run "$BATS_TEST_DIRNAME/pool-kill" "$PORT" "$MQD_PID"
	echo "$output"
	[ "$status" -eq 0 ]
	echo "# $output" >&3
	stop_mqd
	"$MQCTL" -H "$SPOOL" check
}

@test "a worker killed when it was woken, others idle beside it: the connection is served" {
	start_pool -t 1
	python <<-'END'
		held = [connect() for _ in range(3)]
		for s in held:
		    assert ask(s, b"version").startswith(b"VERSION")
		for s in held:
		    s.close()
		# More are idle now than there have to be. Whichever is woken dies before it accepts.
		old, tracers = workers(), []
		assert len(old) >= 3
		for pid in old:
		    tracers.append(subprocess.Popen(["strace", "-qqp", str(pid), "-e", "trace=accept",
		        "-e", "inject=accept:signal=KILL:when=1"], stderr=subprocess.DEVNULL))
		for pid in old:
		    wait_for(lambda: not re.search(r"TracerPid:\s*0\n", open(f"/proc/{pid}/status").read()), "strace")
		s = connect()
		s.settimeout(3)
		assert ask(s, b"version").startswith(b"VERSION")
		assert old & workers() != old, "none was killed"
		for tracer in tracers:
		    tracer.terminate()
		    tracer.wait()
	END
}

@test "SIGTERM drains: a set in its middle is stored, an idle client is left, the status is 0" {
	start_pool
	python <<-'END'
		idle, s, silent = connect(), connect(), connect()
		assert ask(idle, b"version").startswith(b"VERSION")
		assert ask(s, b"version").startswith(b"VERSION")
		s.sendall(b"set a 0 0 5\r\nhel")
		old = workers()
		pid = pid_of(idle)
		def all_are_served():
		    data = ask(idle, b"stats")
		    while not data.endswith(b"END\r\n"):
		        data += idle.recv(65536)
		    return b"STAT curr_connections 3\r\n" in data
		wait_for(all_are_served, "three clients to be accepted")
		os.kill(parent, signal.SIGTERM)
		assert idle.recv(100) == b"" and silent.recv(100) == b""
		wait_for(lambda: ended(pid), "the idle client's worker")
		s.sendall(b"lo\r\n")
		assert s.recv(100) == b"STORED\r\n" and s.recv(100) == b""
		wait_for(lambda: all(map(ended, old)), "the workers")
	END
	wait "$MQD_PID"
	MQD_PID=
	[ "$(count_messages a)" = 1 ]
}

@test "SIGTERM again and again under a client that connects for each command: no answer is missing" {
	mkdir "$SPOOL"
	# The socket is ours, as it would be systemd's: what nobody accepted waits for the next mqd.
	timeout 60 "$PYTHON" - "$MQD" "$SPOOL" <<-'END'
		import os, signal, socket, subprocess, sys, threading, time
		listener = socket.create_server(("127.0.0.1", 0), backlog=100)
		stop, failures, done = threading.Event(), [], [0]
		def client():
		    while not stop.is_set():
		        try:
		            with socket.create_connection(listener.getsockname(), 20) as s:
		                s.sendall(b"set q 0 0 1\r\nx\r\n")
		                reply = s.recv(100)
		        except OSError as error:
		            reply = error
		        if reply == b"STORED\r\n":
		            done[0] += 1
		        else:
		            failures.append(reply)
		threads = [threading.Thread(target=client) for _ in range(4)]
		for t in threads:
		    t.start()
		for _ in range(20):
		    p = subprocess.Popen([sys.argv[1], "-N", "-H", sys.argv[2]], stdin=listener)
		    seen = done[0]
		    while done[0] < seen + 50:
		        time.sleep(0.001)
		    p.terminate()
		    assert p.wait(20) == 0
		p = subprocess.Popen([sys.argv[1], "-N", "-H", sys.argv[2]], stdin=listener)
		stop.set()
		for t in threads:
		    t.join()
		p.terminate()
		assert p.wait(20) == 0
		assert not failures, failures
		waiting = [n for n in os.listdir(sys.argv[2] + "/q") if n[0] != "."]
		assert len(waiting) == done[0] >= 1000, (len(waiting), done[0])
	END
}

@test "the parent killed: idle workers end, busy ones serve their client to its end" {
	local variant=$(basename "$(dirname "$MQD_BINARY")")
	start_pool
	python "$variant" <<-'END'
		s = connect()
		busy = pid_of(s)
		old = workers()
		assert len(old) > 2
		os.kill(parent, signal.SIGKILL)
		wait_for(lambda: all(ended(pid) for pid in old - {busy}), "idle workers to end")
		assert ask(s, b"version").startswith(b"VERSION")
		if sys.argv[3] != "portable":
		    # The busy one does not keep the port, where nobody would accept any more.
		    try:
		        connect()
		        raise AssertionError("somebody listens")
		    except ConnectionRefusedError:
		        pass
		s.close()
		wait_for(lambda: ended(busy), "the last worker to end")
	END
	wait "$MQD_PID" || :
	MQD_PID=
}

@test "-o pool_idle: ends when nobody is connected, not before, and loses no connection" {
	timeout 60 "$PYTHON" - "$MQD" "$SPOOL" <<-'END'
		import os, socket, subprocess, sys, time
		os.mkdir(sys.argv[2])
		listener = socket.create_server(("127.0.0.1", 0))
		def start():
		    return subprocess.Popen([sys.argv[1], "-H", sys.argv[2], "-o", "pool_idle=1"], stdin=listener)
		def connect():
		    s = socket.create_connection(listener.getsockname(), 20)
		    s.sendall(b"version\r\n")
		    return s
		p, begin = start(), time.monotonic()
		assert p.wait(10) == 0 and time.monotonic() - begin >= 1
		waiting = connect()
		p = start()
		assert waiting.recv(100).startswith(b"VERSION")
		try:
		    p.wait(2.5)
		    raise AssertionError("it left a client")
		except subprocess.TimeoutExpired:
		    pass
		waiting.sendall(b"version\r\n")
		assert waiting.recv(100).startswith(b"VERSION")
		waiting.close()
		begin = time.monotonic()
		assert p.wait(10) == 0 and time.monotonic() - begin >= 0.9
		# Connections that come around the very moment.
		for i in range(12):
		    p, begin = start(), time.monotonic()
		    with connect() as s:
		        assert s.recv(100).startswith(b"VERSION")
		    left = time.monotonic()
		    while time.monotonic() < left + 0.994 + i * 0.001:
		        pass
		    s = connect()
		    try:
		        p.wait(0.5)
		        p = start()
		    except subprocess.TimeoutExpired:
		        pass
		    assert s.recv(100).startswith(b"VERSION")
		    s.close()
		    p.terminate()
		    assert p.wait(10) == 0
	END
}

@test "xinetd, wait = yes, pool_idle: it stops by itself, and the next connection starts it" {
	mkdir "$SPOOL"
	PORT=$(free_port)
	sed -e "s|22201|$PORT|; s|/usr/local/sbin/mqd|$MQD|; s|/var/spool/mqd|$SPOOL|" \
		-e "s|\(user *= \)mqd|\1$(id -un)|; s|\(group *= \)mqd|\1$(id -gn)|; s|pool_idle=[0-9]*|pool_idle=1|" \
		"$TOP/etc/mqd-pool.xinetd" >"$BATS_TEST_TMPDIR/conf"
	grep -q pool_idle=1 "$BATS_TEST_TMPDIR/conf"
	xinetd -dontfork -f "$BATS_TEST_TMPDIR/conf" -filelog "$BATS_TEST_TMPDIR/xinetd.log" \
		-pidfile "$BATS_TEST_TMPDIR/pid" </dev/null >/dev/null 2>&1 3>&- &
	XINETD_PID=$!
	wait_for listening "$PORT"
	no_pool() { ! pgrep -P "$XINETD_PID"; }
	local round
	for round in 1 2 3; do
		talk_tcp <<-'END'
			> set q 0 0 1
			> x
			< STORED
		END
		if no_pool; then false; fi
		wait_for no_pool
	done
	[ "$(count_messages q)" = 3 ]
}

@test "several sockets at once: TCP and Unix, and none is starved by another" {
	start_pool -s "$BATS_TEST_TMPDIR/s" -t 2 -c 2
	python "$BATS_TEST_TMPDIR/s" <<-'END'
		import threading
		stop = threading.Event()
		def hammer():
		    while not stop.is_set():
		        with connect() as s:
		            assert ask(s, b"version").startswith(b"VERSION")
		threads = [threading.Thread(target=hammer) for _ in range(8)]
		for t in threads:
		    t.start()
		for _ in range(50):
		    with socket.socket(socket.AF_UNIX) as s:
		        s.settimeout(10)
		        s.connect(sys.argv[3])
		        assert ask(s, b"version").startswith(b"VERSION")
		stop.set()
		for t in threads:
		    t.join()
	END
}

@test "no herd: with 50 idle workers a connection wakes one" {
	[[ $MQD_BINARY != */portable/* ]] || skip "EPOLLEXCLUSIVE is Linux's alone, and compiled out here"
	start_pool -t 50
	wait_for has_workers 'at least' 50
	wait_for all_wait
	python <<-'END'
		def sleeps():
		    n = {}
		    for pid in workers():
		        n[pid] = int(re.search(r"\nvoluntary_ctxt_switches:\s*(\d+)", open(f"/proc/{pid}/status").read())[1])
		    return n
		before = sleeps()
		for _ in range(100):
		    with connect() as s:
		        assert ask(s, b"version").startswith(b"VERSION")
		after = sleeps()
		stayed = before.keys() & after.keys()
		assert len(stayed) >= 49
		woken = sum(after[pid] - before[pid] for pid in stayed)
		# One sleep in accepting and up to two in serving for each; a herd would be 5,000.
		print(woken, "sleeps for 100 connections")
		assert woken <= 400, woken
		# Taken in turn it would be all of them; on a busy machine the last one is not back yet.
		assert sum(after[pid] > before[pid] for pid in stayed) <= 25
	END
}

@test "a connection finds nothing of the one before it in the same worker" {
	start_pool -t 1 -c 1
	talk_tcp <<-'END'
		>> set a 0 0 10\r\nhello
		close
		connect
		> get a
		< END
		>> get a
		close
		connect
		> version
		<~ VERSION .*
		>> set a 0 0 5 noreply\r\nhello\r\nget a\r\nget a\r\n
		reset
		connect
		>> \x80\x0a\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0
		<< \x81\x0a\0\0\0\0\0\x81\0\0\0\x12\0\0\0\0\0\0\0\0\0\0\0\0text protocol only
		<eof
		connect
		> version
		<~ VERSION .*
		> delete a
		<~ (DELETED|NOT_FOUND)
		> quit
		<eof
		connect
		> get a
		< END
	END
	python <<-'END'
		with connect() as s:
		    first = pid_of(s)
		with connect() as s:
		    assert pid_of(s) == first, "it was to be one worker"
	END
}

@test "a spool that is replaced under idle workers: the next connection uses the new one" {
	start_pool -t 1 -c 1
	local round
	for round in {1..5}; do
		talk_tcp <<-'END'
			> set a 0 0 1
			> x
			< STORED
		END
		rm -r "$SPOOL"
		mkdir "$SPOOL"
	done
	talk_tcp <<-'END'
		> get a
		< END
		> set a 0 0 1
		> y
		< STORED
	END
	[ "$(count_messages a)" = 1 ]
}

@test "what a worker has open after 2,000 connections is what it had after 20" {
	native "it has descriptors of its own"
	start_pool -t 1 -c 1 -N
	python <<-'END'
		def some(n):
		    for i in range(n):
		        with connect() as s:
		            s.sendall(b"set q%d 0 0 1\r\nx\r\n" % (i % 20))
		            assert s.recv(100) == b"STORED\r\n"
		def files():
		    with connect() as s:
		        pid = pid_of(s)
		        return pid, len(os.listdir(f"/proc/{pid}/fd"))
		some(20)
		before = files()
		some(2000)
		after = files()
		assert before == after, (before, after)
	END
	[ "$(ls "/proc/$MQD_PID/fd" | wc -l)" -le 10 ]
}

@test "an idle worker lets go of a deleted queue" {
	start_pool -t 1
	talk_tcp <<-'END'
		> set q 0 0 1
		> x
		< STORED
	END
	rm -r "$SPOOL/q"
	holds() {
		local pid
		for pid in $(workers); do
			if ls -l "/proc/$pid/fd" | grep -q "$SPOOL/.*(deleted)"; then return 0; fi
		done
		return 1
	}
	holds
	none_holds() { ! holds; }
	wait_for none_holds
}

@test "no descriptor left for accept: the connection waits, and is served when there is one" {
	start_pool -t 1 -c 1
	# A worker that has served somebody makes room by making way to a fresh one.
	local old
	wait_for all_wait
	old=$(workers)
	prlimit --pid "$old" --nofile=3:
	talk_tcp <<-'END'
		> version
		<~ VERSION .*
	END
	logged "\[$old\]: accept: "
	gone "$old"

	wait_for all_wait
	old=$(workers)
	kill -9 "$old"
	fresh() { [[ $(workers) != *"$old"* ]] && has_workers 1 && all_wait; }
	wait_for fresh
	local pid
	pid=$(workers)
	prlimit --pid "$pid" --nofile=3:
	python <<-'END' 3>&- &
		s = connect()
		assert ask(s, b"version").startswith(b"VERSION")
	END
	local client=$!
	wait_for logged "\[$pid\]: accept: "
	kill -0 "$client"
	prlimit --pid "$pid" --nofile=1000:
	wait "$client"
	[ "$(workers)" = "$pid" ]
}

# lone < script: mqd is started by the script itself, with `start`.
lone() {
	{
		cat <<-'END'
			import fcntl, os, signal, socket, subprocess, sys, termios, time
			mqd, spool, trace = sys.argv[1:]
			s = socket.socket()
			s.bind(("127.0.0.1", 0))
			port = s.getsockname()[1]
			s.close()
			os.environ["ASAN_OPTIONS"] = "detect_leaks=0"
			def children(pid):
			    return [int(w) for w in open(f"/proc/{pid}/task/{pid}/children").read().split()]
			def until(condition):
			    end = time.monotonic() + 10
			    while not condition():
			        assert time.monotonic() < end
			        time.sleep(0.01)
			def listens():
			    try:
			        socket.create_connection(("127.0.0.1", port)).close()
			        return True
			    except OSError:
			        return False
			def start(*options, strace=(), **more):
			    command = [mqd, "-H", spool, "-p", str(port), "-l", "127.0.0.1", *options]
			    if os.geteuid() == 0:
			        command += ["-u", "root"]
			    if strace:
			        command = ["strace", "-f", "-qq", "-o", trace, *strace] + command
			    p = subprocess.Popen(command, **more)
			    until(listens)
			    return p, children(p.pid)[0] if strace else p.pid
			def served(s):
			    s.settimeout(10)
			    s.sendall(b"version\r\n")
			    return s.recv(100).startswith(b"VERSION")
			def connect():
			    return socket.create_connection(("127.0.0.1", port), 10)
		END
		cat
	} >"$BATS_TEST_TMPDIR/script.py"
	mkdir -p "$SPOOL"
	timeout 60 "$PYTHON" "$BATS_TEST_TMPDIR/script.py" "$MQD_BINARY" "$SPOOL" "$BATS_TEST_TMPDIR/trace"
}

@test "a worker that cannot tell the parent that it is the last idle one: further connections are served" {
	native "it is traced"
	lone <<-'END'
		p, parent = start("-t", "1", "-c", "20", "-N", strace=("-e", "trace=sendto", "-e", "inject=sendto:error=ENOBUFS"))
		try:
		    held = [connect() for i in range(5)]
		    assert all(map(served, held))
		    assert "ENOBUFS" in open(trace).read()
		finally:
		    os.kill(parent, signal.SIGTERM)
		    p.wait()
	END
}

@test "started with its signals blocked: dead workers are replaced, and SIGTERM ends it" {
	native "it takes more signals"
	lone <<-'END'
		def block():
		    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, signal.SIGTERM, signal.SIGALRM})
		p, parent = start("-t", "2", "-N", preexec_fn=block)
		try:
		    for pid in children(parent):
		        os.kill(pid, signal.SIGKILL)
		    assert served(connect())
		    p.terminate()
		    assert p.wait(10) == 0
		finally:
		    p.kill()
		ours, its = socket.socketpair()
		p = subprocess.Popen([mqd, "-H", spool], stdin=its, preexec_fn=block)
		its.close()
		assert served(ours)
		p.terminate()
		assert p.wait(10) == 0
	END
}

@test "workers that die as soon as they live: a few a second, and not a line for each" {
	native "it is traced"
	[[ $MQD_BINARY != */portable/* ]] || skip "it has no epoll"
	lone <<-'END'
		with open(trace + ".log", "w+") as log:
		    p, parent = start("-t", "4", "-N", stderr=log,
		                      strace=("-e", "trace=epoll_create1", "-e", "inject=epoll_create1:signal=SIGSEGV"))
		    begin = time.monotonic()
		    until(lambda: open(log.name).read().count("was killed by signal 11") >= 12)
		    took = time.monotonic() - begin
		    os.kill(parent, signal.SIGTERM)
		    p.wait()
		    assert took > 1, took
	END
}

@test "asked to end again and again: no less time for the command at hand" {
	native "it takes longer"
	lone <<-'END'
		ours, its = socket.socketpair()
		p = subprocess.Popen([mqd, "-H", spool], stdin=its)
		its.close()
		assert served(ours)
		ours.sendall(b"set q 0 0 3\r\na")
		until(lambda: not any(fcntl.ioctl(ours, termios.TIOCOUTQ, bytes(4)))) # it has been read
		for n in range(12):
		    p.terminate()
		    time.sleep(0.02)
		ours.sendall(b"bc\r\n")
		assert ours.recv(100) == b"STORED\r\n"
		assert p.wait(10) == 0
	END
}

@test "asked to end twice: a client that was just accepted has its second all the same" {
	lone <<-'END'
		p, parent = start("-t", "1", "-N")
		ours = connect()
		def is_accepted():
		    ends = ":%04X" % port, ":%04X" % ours.getsockname()[1]
		    lines = [l.split() for l in open("/proc/net/tcp")]
		    return any(l[1].endswith(ends[0]) and l[2].endswith(ends[1]) and l[9] != "0" for l in lines)
		until(is_accepted)
		p.terminate()
		for n in range(2):
		    for pid in children(parent):
		        try:
		            os.kill(pid, signal.SIGTERM)
		        except ProcessLookupError:
		            pass # an idle one
		    time.sleep(0.1)
		assert served(ours)
		assert p.wait(10) == 0
	END
}

@test "a silent client with something open is left after idle_timeout, whenever that goes back" {
	native "it takes longer"
	lone <<-'END'
		for timeout in "0", "1s", "1900ms":
		    out = subprocess.run([mqd, "-H", spool], input=b"delete q\r\nset q 0 0 1\r\na\r\n", stdout=subprocess.PIPE).stdout
		    assert out.endswith(b"STORED\r\n"), out
		    open(spool + "/q/.config", "w").write("open_timeout = %s\n" % timeout)
		    ours, its = socket.socketpair()
		    p = subprocess.Popen([mqd, "-H", spool, "-o", "idle_timeout=2"], stdin=its)
		    its.close()
		    ours.sendall(b"get q/open\r\n")
		    assert ours.recv(100).startswith(b"VALUE")
		    begin = time.monotonic()
		    assert ours.recv(100) == b""
		    took = time.monotonic() - begin
		    assert 1.9 < took < 2.9, (timeout, took)
		    p.wait()
	END
}
