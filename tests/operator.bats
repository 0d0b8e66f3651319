#!/usr/bin/env bats
# What an operator asks at night: how the queues stand, who holds what; and what he stops: one queue
# (pause) or what all clients may do (status).

load helper

setup() {
	mkdir -p "$SPOOL"
}

# python [argument...] < script: with the helpers below. PORT and SPOOL are the test's.
python() {
	{
		cat <<-'END'
			import os, re, socket, subprocess, sys, time
			spool, mqctl, mqd = (os.environ[n] for n in ("SPOOL", "MQCTL", "MQD"))
			tmp = os.environ["BATS_TEST_TMPDIR"]
			linux = "/portable/" not in mqctl  # else mqctl knows of no process
			def connect(address=None):
			    if isinstance(address, str):
			        s = socket.socket(socket.AF_UNIX)
			    else:
			        address = address or ("127.0.0.1", int(os.environ["PORT"]))
			        s = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
			    s.settimeout(10)
			    s.connect(address)
			    return s
			def ask(s, line):
			    s.sendall(line + b"\r\n")
			    got = b""
			    while not got.endswith((b"END\r\n", b"STORED\r\n")):
			        part = s.recv(65536)
			        assert part, got
			        got += part
			    return got
			def take(s, queue=b"q"):
			    """Open the oldest message; the process that has it."""
			    assert ask(s, b"get %s/open" % queue).startswith(b"VALUE ")
			    return int(ask(s, b"stats").split(b"STAT pid ")[1].split()[0])
			def put(n, queue="q"):
			    for _ in range(n):
			        subprocess.run([mqctl, "-H", spool, "put", queue], input=b"x", check=True)
			def wait_for(condition, what):
			    end = time.monotonic() + 10
			    while not condition():
			        assert time.monotonic() < end, "gave up waiting: " + what
			        time.sleep(0.01)
			def ctl(*args, prefix=()):
			    r = subprocess.run([*prefix, mqctl, "-H", spool, *args], stdout=subprocess.PIPE, text=True, check=True)
			    return r.stdout
			def opened(*queues, **how):
			    """What mqctl open says of each message, its age apart, which has to be a few seconds."""
			    heading, *lines = ctl("open", *queues, **how).splitlines()
			    assert heading.split() == "QUEUE NUMBER PID AGE PEER".split(), heading
			    found = []
			    for line in lines:
			        queue, number, pid, age, peer = line.split()
			        assert re.fullmatch(r"\d{16}", number) and re.fullmatch(r"\d\ds?|\ds", age), line
			        found.append((queue, int(number), pid, peer))
			    return found
			def held(queue, number, pid, peer):
			    return (queue, number, str(pid), peer) if linux else (queue, number, "-", "-")
			def everything():
			    """All that is known of all files; the order of a directory does not matter."""
			    return sorted((path, os.lstat(path)[:7], os.lstat(path).st_mtime_ns, os.lstat(path).st_ctime_ns)
			                  for d, dirs, files in os.walk(spool) for path in [os.path.join(d, n) for n in dirs + files])
		END
		cat
	} >"$BATS_TEST_TMPDIR/script.py"
	PORT=${PORT:-} timeout 120 "$PYTHON" "$BATS_TEST_TMPDIR/script.py" "$@"
}

# for_nobody: mqd and mqctl where the user nobody can run them, and a spool that is his.
for_nobody() {
	[ "$EUID" -eq 0 ] || skip "only root can become another user"
	local d=$BATS_TEST_TMPDIR
	mkdir "$d/portable" "$d/linux" # by which the script below tells the variant
	[[ $MQCTL == */portable/* ]] && d+=/portable || d+=/linux
	cp "$MQD_BINARY" "$d/mqd"
	cp "$MQCTL" "$d/mqctl"
	MQD=$d/mqd MQCTL=$d/mqctl
	while [ "$d" != / ]; do
		chmod o+x "$d"
		d=$(dirname "$d")
	done
	chown nobody: "$SPOOL"
	export ASAN_OPTIONS=detect_leaks=0 # which cannot be done by who was another user
}

@test "ls: a column for each number, aligned, and what is unusual behind them" {
	start_mqd
	ctl set q max_tries=1
	ctl set later delay=1h
	python <<-'END'
		put(4)
		put(3, "later")
		a, b, w = connect(), connect(), connect()
		take(a), ask(a, b"get q/abort"), take(a)  # the first is a dead letter, the second open
		take(b)
		w.sendall(b"get none/t=9000\r\n")
		def none():
		    return [l.split() for l in ctl("ls").splitlines() if l.startswith("none ")]
		wait_for(lambda: none() and none()[0][4] == "1", "a getter")
		ctl("pause", "later")
		ctl("pause", "none", "25s")
		open(os.path.join(spool, "q", "0000000000000004"), "w").close()
		subprocess.run([mqctl, "-H", spool, "get", "q"], check=False)  # it goes to .bad
		out = ctl("ls").splitlines()
		heading = "QUEUE WAITING DELAYED FLIGHT GETTERS PUT TAKEN DEAD BYTES OLDEST".split()
		assert out[0].split() == heading, out
		rows = {l.split()[0]: l for l in out[1:]}
		def is_row(queue, row):
		    assert re.fullmatch(row.replace(" ", " +"), rows[queue]), rows[queue]
		is_row("later", r"later 0 3 0 0 3 0 0 0 -  paused")
		is_row("none", r"none 0 0 0 1 0 0 0 0 -  paused 2[345]s")
		is_row("q", r"q 0 0 2 0 4 4 1 0 -  1 bad")
		is_row("q.dead", r"q.dead 1 0 0 0 1 0 0 1 \d+s")
		assert max(map(len, out)) <= 100, out
		ends = {len(l[:len(out[0])].rstrip()) for l in out}
		assert ends == {len(out[0])}, out
		# One name that is long moves the columns of all.
		put(1, "a.name.of.forty.bytes.that.is.not.short.")
		out = ctl("ls").splitlines()
		assert {len(l[:len(out[0])].rstrip()) for l in out} == {len(out[0])}, out
		assert out[0].index("WAITING") > 40, out
	END
}

@test "open: the process and the client of each message, and nothing is changed" {
	start_mqd
	ctl set q max_open=2
	python <<-'END'
		put(6)
		put(1, "other")
		a, b, c = connect(), connect(), connect()
		name = ["%s:%d" % s.getsockname() for s in (a, b, c)]
		assert opened() == []
		pid = [take(a), take(b), take(c, b"other")]
		assert take(a) == pid[0]
		before = everything()
		others = [held("other", 1, pid[2], name[2])]
		ones = [held("q", 1, pid[0], name[0]), held("q", 2, pid[1], name[1]), held("q", 3, pid[0], name[0])]
		assert opened() == others + ones, (opened(), others, ones)
		assert opened("q") == ones, opened("q")
		assert opened("other", "q") == others + ones, opened("other", "q")
		assert everything() == before
		# A delivered one may leave its file there, which is none of them.
		ask(a, b"get q/close")
		assert ask(b, b"get q/close") == b"END\r\n"
		assert ask(b, b"get q").startswith(b"VALUE ")
		ask(a, b"get q/abort")
		assert opened() == others, opened()
	END
	# One that is being sent, to a client that does not read.
	head -c 40000000 /dev/zero | ctl put large
	python <<-'END'
		s = connect()
		s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
		pid = int(ask(s, b"stats").split(b"STAT pid ")[1].split()[0])
		s.sendall(b"get large\r\n")
		one = [held("large", 1, pid, "%s:%d" % s.getsockname())]
		wait_for(lambda: opened("large") == one, "a message on its way")
	END
	run ctl open q nothing
	[ "$status" -eq 1 ]
	[[ $output == *"mqctl: nothing: no such queue"* ]]
	[ ! -e "$SPOOL/nothing" ]
}

@test "open: clients of IPv6 and of a Unix socket, and one of IPv4 on a socket for both" {
	local port
	port=$(free_port)
	export V6=$port UNIX="$BATS_TEST_TMPDIR/so ck"
	LAUNCH=pool start_mqd -l "[::1]:$port" -s "$UNIX"
	python <<-'END'
		put(4)
		six = connect(("::1", int(os.environ["V6"])))
		unix = connect(os.environ["UNIX"])
		pids = [take(six), take(unix)]
		ones = [held("q", 1, pids[0], "[::1]:%d" % six.getsockname()[1]),
		        held("q", 2, pids[1], os.environ["UNIX"].replace(" ", "?"))]
		assert opened() == ones, opened()
		# As a super-server does: the listening socket as descriptor 0.
		with socket.socket(socket.AF_INET6) as listening:
		    listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
		    listening.bind(("::ffff:127.0.0.1", 0))
		    listening.listen()
		    pool = subprocess.Popen([mqd, "-H", spool], stdin=listening)
		    try:
		        four = connect(("127.0.0.1", listening.getsockname()[1]))
		        pid = take(four)
		        ones.append(held("q", 3, pid, "127.0.0.1:%d" % four.getsockname()[1]))
		        assert opened() == ones, opened()
		    finally:
		        pool.terminate()
		        pool.wait()
	END
}

@test "open: a connection without a name on descriptor 0, and none at all" {
	python <<-'END'
		put(2)
		ours, its = socket.socketpair()
		with its:
		    one = subprocess.Popen([mqd, "-H", spool], stdin=its, stdout=its)
		ours.settimeout(10)
		pid = take(ours)
		assert opened() == [held("q", 1, pid, "unix")], opened()
		# What it was started with is no connection of its client's.
		pair, listening = socket.socketpair(), socket.create_server(("127.0.0.1", 0))
		inherited = [pair[0].fileno(), listening.fileno()]
		two = subprocess.Popen([mqd, "-H", spool], stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=inherited)
		two.stdin.write(b"get q/open\r\n")
		two.stdin.flush()
		while two.stdout.readline() != b"END\r\n":
		    pass
		# Where MQD is a script the shell has become mqd.
		assert opened() == [held("q", 1, pid, "unix"), held("q", 2, two.pid, "-")], opened()
		ours.close()
		two.communicate()
		one.wait()
		assert opened() == []
	END
}

@test "open: an orphan is called one, and stays one until somebody uses the queue" {
	python <<-'END'
		put(8)
		p = subprocess.Popen([mqd, "-H", spool], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
		p.stdin.write(b"get q/open\r\n")
		p.stdin.flush()
		while p.stdout.readline() != b"END\r\n":
		    pass
		p.kill()
		p.wait()
		for n in range(8, 1, -1):  # enough that no directory has them in order by chance
		    os.rename(f"{spool}/q/{n:016}", f"{spool}/q/.claim/{n:016}")
		before = everything()
		for _ in range(2):
		    assert opened() == [("q", n, "orphan", "-") for n in range(1, 9)], opened()
		assert everything() == before
		wait_for(lambda: ctl("ls", "q").split()[11] == "8", "they are back")
		assert opened() == []
	END
}

@test "open: root sees the clients of an mqd that has become another user, who sees the processes" {
	for_nobody
	PORT=$(free_port)
	"$MQD" -H "$SPOOL" -p "$PORT" -l 127.0.0.1 -u nobody 3>&- &
	MQD_PID=$!
	wait_for listening "$PORT"
	python <<-'END'
		put(2)
		s = connect()
		pid = take(s)
		assert opened() == [held("q", 1, pid, "%s:%d" % s.getsockname())], opened()
		nobody = ["setpriv", "--reuid=nobody", "--regid=%d" % os.stat(spool).st_gid, "--clear-groups"]
		assert opened(prefix=nobody) == [held("q", 1, pid, "-")], opened(prefix=nobody)
		# He sees the clients of those that he has started.
		ours, its = socket.socketpair()
		with its:
		    p = subprocess.Popen([*nobody, mqd, "-H", spool], stdin=its, stdout=its)
		ours.settimeout(10)
		assert take(ours) == p.pid
		assert opened(prefix=nobody)[1] == held("q", 2, p.pid, "unix"), opened(prefix=nobody)
		ours.close()
		p.wait()
	END
	[ -z "$(find "$SPOOL" ! -user nobody)" ]
}

@test "pause: clients find nothing until resume, operators do" {
	start_mqd
	python <<-'END'
		put(3)
		ctl("pause", "q")
		s = connect()
		assert ask(s, b"get q") == b"END\r\n"
		assert ask(s, b"set q 0 0 1\r\nx") == b"STORED\r\n"
		assert subprocess.run([mqctl, "-H", spool, "get", "q"]).returncode == 1
		assert ctl("cat", "q", "1") == "x"
		assert ctl("mv", "q", "1", "r") == ""
		assert ctl("peek", "q").startswith("0000000000000002 ")
		ctl("rm", "q", "2")
		assert ctl("ls", "q").splitlines()[1].endswith("  paused")
		s.sendall(b"get q/t=9000\r\n")
		wait_for(lambda: ctl("ls", "q").split()[14] == "1", "a getter")
		ctl("resume", "q")
		assert s.recv(100).startswith(b"VALUE q/t=9000 0 1\r\n")
		assert "paused" not in ctl("ls", "q")
		ctl("pause", "q")
		assert ctl("mv", "q", "all", "r") == "1\n"
		assert ctl("ls", "r").split()[11] == "2"
		put(2)
		assert ctl("flush", "q") == "2\n"
		put(1, "held")
		take(s, b"held")
		ctl("pause", "held")
		assert ask(s, b"get held/close") == b"END\r\n"
		assert opened("held") == [] and ctl("ls", "held").split()[11] == "0"
		# Dead letters go back while their queue is paused, too.
		put(1, "q.dead")
		ctl("pause", "q.dead")
		assert ctl("retry", "q.dead") == "1\n"
	END
	ctl check
}

@test "pause for a time: it ends by itself, and the last one counts" {
	printf x | ctl put q
	ctl pause q 2h
	[[ $(ctl ls q) =~ \ paused\ (7200|719[0-9])s$ ]]
	run ctl get q
	[ "$status" -eq 1 ]
	ctl pause q 100ms
	taken() { [ "$(ctl get q)" = x ]; }
	wait_for taken
	[[ $(ctl ls q) != *paused* ]]
	ctl pause new 1m # before anybody has used it
	[[ $(ctl ls new) =~ \ paused\ [56][0-9]s$ ]]
}

@test "pause, resume and status: what makes no sense changes nothing" {
	local args
	printf x | ctl put q
	for args in 'pause' 'pause q 0' 'pause q 0s' 'pause q 5' 'pause q x' 'pause q -1s' 'pause q 3651d' 'pause q 1s 1s' \
		'pause a/b' 'resume' 'resume q q' 'status x' 'status up up' 'status upupupupupupupupupupupupupupupupupupup'; do
		# shellcheck disable=SC2086
		run ctl $args
		[ "$status" -eq 100 ] || { echo "$args: $status"; false; }
		[[ $output == mqctl:* ]]
	done
	run ctl status ''
	[ "$status" -eq 100 ]
	run ctl resume nothing
	[ "$status" -eq 1 ]
	[ ! -e "$SPOOL/nothing" ]
	[ ! -e "$SPOOL/.config" ]
	[ "$(ctl get q)" = x ]
	ctl resume q # it is not paused: nothing to be done
	ctl pause q 3650d
	[[ $(ctl ls q) =~ \ paused\ 315[0-9]{6}s$ ]]
}

@test "status: shown and set, in the file of the spool" {
	[ "$(ctl status)" = up ]
	local s
	for s in readonly quiescent up; do
		[ -z "$(ctl status "$s")" ]
		[ "$(ctl status)" = "$s" ]
		[ "$(cat "$SPOOL/.config")" = "status = $s" ]
	done
	ctl set / max_age=1h status=quiescent
	ctl status readonly
	[ "$(ctl status)" = readonly ]
	ctl config | grep -q '^max_age  *3600000ms '
	echo nonsense >>"$SPOOL/.config"
	run ctl status
	[ "$status" -eq 0 ]
	[ "${#lines[@]}" -eq 2 ]
	[[ $output == *"mqctl: .config:"* && $output == *readonly* ]]
	run ctl status up
	[ "$status" -eq 100 ]
	grep -q readonly "$SPOOL/.config"
}

@test "on a terminal a long flush shows how far it is, and takes that away" {
	native "it is traced"
	mkdir -p "$SPOOL"
	for i in {1..500}; do printf 'set q 0 0 1\r\nx\r\n'; done | "$MQD" -N -H "$SPOOL" >/dev/null
	TERM=xterm script -qec "ASAN_OPTIONS=detect_leaks=0 strace -qq -o /dev/null -e trace=unlinkat \
		-e inject=unlinkat:delay_enter=2000 '$MQCTL' -H '$SPOOL' flush q" /dev/null >"$BATS_TEST_TMPDIR/screen" </dev/null
	grep -q 'flush .*of 500' "$BATS_TEST_TMPDIR/screen"
	[[ $(tail -c 20 "$BATS_TEST_TMPDIR/screen") == *500* ]]
}
