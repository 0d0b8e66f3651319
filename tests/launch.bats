#!/usr/bin/env bats
# Options, the ways of being started by hand, and what a bad spool is answered with.

load helper

setup() {
	mkdir -p "$SPOOL"
}

as_nobody() {
	[ "$EUID" -eq 0 ] || skip "only root can become another user"
	cp "$MQD_BINARY" "$BATS_TEST_TMPDIR/mqd"
	local d=$BATS_TEST_TMPDIR
	while [ "$d" != / ]; do
		chmod o+x "$d"
		d=$(dirname "$d")
	done
}

@test "usage errors exit with 100 and one line, and say what was wrong" {
	local args
	for args in '-x' '-c 9m' '-p 9m' '-o idle_timeout=9g' '-p' '-p 65536' '-p x' '-c 0' '-c x' '-B 0' '-B 1t' '-B 10g' '-a 999' '-a x' \
		'-o nonsense' '-o sync' '-o sync=half' '-o idle_timeout=x' '-t 0' '-t x' '-o pool_idle=x' '-u root -p 1 -o pool_idle=1' 'extra' '-p 0 -u root'; do
		# shellcheck disable=SC2086
		run "$MQD" -H "$SPOOL" $args </dev/null
		[ "$status" -eq 100 ] || { echo "$args: $status"; false; }
		[ "${#lines[@]}" -eq 1 ]
		[[ $output == mqd\[* ]]
	done
	run "$MQD" -V
	[[ $status -eq 0 && $output =~ ^mqd\ [1-9][0-9]*\.[0-9]+\.[0-9]+$ ]]
	run "$MQD" -h
	[[ $status -eq 0 && $output == usage:* ]]
}

@test "root is refused without -u when mqd itself listens, and only then" {
	[ "$EUID" -eq 0 ] || skip "is not root"
	run "$MQD" -H "$SPOOL" -p "$(free_port)" -l 127.0.0.1 </dev/null
	[ "$status" -eq 100 ]
	[[ $output == *"-u"* ]]
	run "$MQD" -H "$SPOOL" -p "$(free_port)" -l 127.0.0.1 -u nosuchuser </dev/null
	[ "$status" -eq 100 ]
	[ "$("$MQD" -H "$SPOOL" <<<version)" = $'VERSION 1.0.0\r' ]
}

@test "-u: binds first, then serves as that user" {
	as_nobody
	chown nobody "$SPOOL"
	PORT=$(free_port)
	"$BATS_TEST_TMPDIR/mqd" -H "$SPOOL" -p "$PORT" -l 127.0.0.1 -u nobody 3>&- &
	MQD_PID=$!
	wait_for listening "$PORT"
	talk_tcp <<-'END'
		> set a 0 0 1
		> x
		< STORED
	END
	[ "$(stat -c %U "$SPOOL/a/0000000000000001")" = nobody ]
	[ "$(ps -o user= -p "$MQD_PID")" = nobody ]
	[ "$(awk '/^Groups:/ {print NF - 1}' "/proc/$MQD_PID/status")" -le 1 ]
}

@test "several addresses, IPv6, and a port in the address" {
	local p1 p2
	p1=$(free_port)
	p2=$(free_port)
	LAUNCH=pool start_mqd -l "127.0.0.2:$p1,127.0.0.3" -l "[::1]:$p2"
	local target
	for target in "127.0.0.1 $PORT" "127.0.0.2 $p1" "127.0.0.3 $PORT" "::1 $p2"; do
		# shellcheck disable=SC2086
		"$BATS_TEST_DIRNAME/transcript" tcp $target <<-'END'
			> version
			<~ VERSION .*
		END
	done
	run "$MQD" -H "$SPOOL" -p "$PORT" -l 127.0.0.1 -u root </dev/null
	[ "$status" -eq 111 ]
	[[ $output == *"in use"* ]] # the C libraries word it differently
	local bad
	for bad in 256.0.0.1 '[::1' '127.0.0.1:0' '127.0.0.1:99999' nonsense; do
		run "$MQD" -H "$SPOOL" -p "$PORT" -l "$bad" -u root </dev/null
		[ "$status" -eq 111 ]
	done
}

@test "a Unix socket with its mode; a dead one is replaced, a living one is not" {
	local path=$BATS_TEST_TMPDIR/s user=()
	[ "$EUID" -eq 0 ] && user=(-u root)
	"$MQD" -H "$SPOOL" -s "$path" -a 0660 "${user[@]}" 3>&- &
	MQD_PID=$!
	wait_for test -S "$path"
	answers() { "$BATS_TEST_DIRNAME/transcript" unix "$path" <<<$'> version\n<~ VERSION .*'; }
	wait_for answers
	[ "$(stat -c %a "$path")" = 660 ]
	run "$MQD" -H "$SPOOL" -s "$path" "${user[@]}" </dev/null
	[ "$status" -eq 111 ]
	kill -9 "$MQD_PID"
	wait "$MQD_PID" || :
	no_answer() { ! answers; }
	wait_for no_answer # its workers see that it is gone
	[ -S "$path" ]
	"$MQD" -H "$SPOOL" -s "$path" "${user[@]}" 3>&- &
	MQD_PID=$!
	wait_for answers
	[ "$(stat -c %a "$path")" = 700 ]
	stop_mqd
	[ ! -e "$path" ]
}

@test "a Unix socket: at its end it leaves another's alone" {
	local path=$BATS_TEST_TMPDIR/s user=() first
	[ "$EUID" -eq 0 ] && user=(-u root)
	"$MQD" -H "$SPOOL" -s "$path" "${user[@]}" 3>&- &
	MQD_PID=$!
	wait_for test -S "$path"
	rm "$path"
	first=$MQD_PID
	"$MQD" -H "$SPOOL" -s "$path" "${user[@]}" 3>&- &
	MQD_PID=$!
	wait_for test -S "$path"
	kill "$first"
	wait "$first"
	[ -S "$path" ]
	rm "$path"
	stop_mqd
}

@test "-c: the connection too many waits until one leaves" {
	LAUNCH=pool start_mqd -c 2
	"$PYTHON" - "$PORT" <<-'END'
		import select, socket, sys
		def connect():
		    s = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 10)
		    s.sendall(b"version\r\n")
		    return s
		a, b = connect(), connect()
		assert a.recv(100).startswith(b"VERSION") and b.recv(100).startswith(b"VERSION")
		c = connect()
		assert not select.select([c], [], [], 0.2)[0], "a third was served"
		a.close()
		assert c.recv(100).startswith(b"VERSION")
	END
}

@test "-o idle_timeout leaves a silent client, on a socket and on a pipe" {
	start_mqd -o idle_timeout=1
	talk_tcp <<-'END'
		> version
		<~ VERSION .*
		<eof
	END
	coproc SILENT { exec "$MQD" -H "$SPOOL" -o idle_timeout=1; }
	wait "$SILENT_PID"
}

@test "standard input and output: pipes, files, /dev/null" {
	printf 'set a 0 0 1\r\nx\r\n' >"$BATS_TEST_TMPDIR/in"
	"$MQD" -H "$SPOOL" <"$BATS_TEST_TMPDIR/in" >"$BATS_TEST_TMPDIR/out"
	[ "$(cat "$BATS_TEST_TMPDIR/out")" = $'STORED\r' ]
	"$MQD" -H "$SPOOL" </dev/null >/dev/null
	# Nobody reads the replies: what was sent counts, what was asked for stays.
	"$PYTHON" - "$MQD" "$SPOOL" <<-'END'
		import os, subprocess, sys
		r, w = os.pipe()
		os.close(r)
		subprocess.run([sys.argv[1], "-H", sys.argv[2]], stdout=w, timeout=20,
		    input=b"set a 0 0 1\r\ny\r\nversion\r\n" * 100 + b"get a\r\n" * 50, check=True)
	END
	[ "$(count_messages a)" = 101 ]
}

@test "nothing but replies reaches a client whose socket is descriptor 2 as well" {
	"$PYTHON" - "$MQD" "$SPOOL" <<-'END'
		import socket, subprocess, sys
		a, b = socket.socketpair()
		p = subprocess.Popen([sys.argv[1], "-v", "-H", sys.argv[2] + "/missing"], stdin=b, stdout=b, stderr=b)
		b.close()
		a.sendall(b"set a 0 0 1\r\nx\r\nget a\r\n\x80")
		data = b""
		while chunk := a.recv(1000):
		    data += chunk
		assert p.wait(10) == 0
		lines = data.split(b"\r\n")
		assert lines[0].startswith(b"SERVER_ERROR ") and lines[1].startswith(b"SERVER_ERROR "), data
		assert lines[2].startswith(b"\x81") and len(lines) == 3, data
	END
}

@test "a spool that is missing, a file, or forbidden: SERVER_ERROR, the connection lives" {
	start_mqd
	rm -r "$SPOOL"
	local reason
	for reason in "No such file or directory" "Not a directory"; do
		talk_tcp <<-END
			> set a 0 0 9
			> delete a 
			< SERVER_ERROR $reason
			> get a
			< SERVER_ERROR $reason
			> delete a
			< SERVER_ERROR $reason
			> stats
			< SERVER_ERROR $reason
			> stats queue
			< SERVER_ERROR $reason
			> set a 0 0 1 noreply
			> x
			> version
			<~ VERSION .*
		END
		touch "$SPOOL"
	done
	rm "$SPOOL"
	# One connection, from the missing spool to the one that is there again.
	coproc ONE { exec "$MQD" -H "$SPOOL" 2>/dev/null; }
	local pid=$ONE_PID in=${ONE[1]} out=${ONE[0]} line
	printf 'set a 0 0 1\r\nx\r\n' >&"$in"
	read -r -t 10 line <&"$out"
	[[ $line == SERVER_ERROR* ]]
	mkdir "$SPOOL"
	printf 'set a 0 0 1\r\nx\r\n' >&"$in"
	read -r -t 10 line <&"$out"
	[ "$line" = $'STORED\r' ]
	eval "exec $in>&-"
	wait "$pid"
}

@test "a spool that its user may not write" {
	as_nobody
	"$MQD" -H "$SPOOL" <<<$'set a 0 0 1\r\nx\r' >/dev/null
	chown -R nobody "$SPOOL"
	chmod 500 "$SPOOL/a"
	run "$PYTHON" - "$BATS_TEST_TMPDIR/mqd" "$SPOOL" <<-'END'
		import pwd, subprocess, sys
		p = subprocess.run([sys.argv[1], "-H", sys.argv[2]], user="nobody", group="nogroup", extra_groups=[],
		    input=b"set a 0 0 1\r\nx\r\nget a\r\nset b 0 0 1\r\nx\r\n", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
		print(p.stdout.decode().replace("\r", ""), end="")
	END
	[ "${lines[0]}" = "SERVER_ERROR Permission denied" ]
	[ "${lines[1]}" = "SERVER_ERROR Permission denied" ]
	[ "${lines[2]}" = STORED ]
	[ "$(count_messages a)" = 1 ]
}

@test "an error of the spool is logged once, not once a command" {
	run bash -c 'for i in {1..500}; do printf "set a 0 0 1\r\nx\r\n"; done | "$MQD" -H "$SPOOL/missing" 2>&1 >/dev/null'
	[ "${#lines[@]}" -eq 1 ]
}

@test "the counters' file cut off under a process that has it mapped: the queue goes on" {
	coproc ONE { exec "$MQD" -H "$SPOOL" 2>/dev/null; }
	local pid=$ONE_PID in=${ONE[1]} out=${ONE[0]} line
	printf 'version\r\n' >&"$in"
	read -r -t 10 line <&"$out"
	[[ $line == VERSION* ]]
	: >"$SPOOL/.stats"
	printf 'set a 0 0 1\r\nx\r\n' >&"$in"
	read -r -t 10 line <&"$out"
	[ "$line" = $'STORED\r' ]
	eval "exec $in>&-"
	wait "$pid"
	[ "$(printf 'get a\r\nstats\r\n' | "$MQD" -H "$SPOOL" | grep -c $'^x\r\|^STAT cmd_get 1\r')" = 2 ]
}

@test "a socket that was left non-blocking is waited for, with an idle_timeout too" {
	mkdir -p "$SPOOL"
	"$PYTHON" - "$MQD" "$SPOOL" <<-'END'
		import select, socket, subprocess, sys, time
		for timeout in "0", "30":
		    ours, theirs = socket.socketpair()
		    theirs.setblocking(False)
		    p = subprocess.Popen([sys.argv[1], "-H", sys.argv[2], "-o", "idle_timeout=" + timeout],
		                         stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL)
		    theirs.close()
		    ours.settimeout(10)
		    for _ in range(3):
		        # It has nothing to say meanwhile, and has not left.
		        assert select.select([ours], [], [], .1) == ([], [], [])
		        ours.sendall(b"version\r\n")
		        assert ours.recv(100).startswith(b"VERSION"), timeout
		    ours.close()
		    assert p.wait(10) == 0, timeout
	END
}
