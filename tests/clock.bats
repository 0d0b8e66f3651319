#!/usr/bin/env bats
# What a clock that is set while mqd runs changes, and what it does not.
#
# mqd waits by CLOCK_MONOTONIC. The wall clock tells when a message expires, which is a date, as
# memcached has it; how old one is; and after a reboot, when what was delayed is due.

load helper

# An mqd that is linked dynamically, with tests/clock.c as its clock.
setup_file() {
	local portable=() b=dynamic
	[[ $MQD_BINARY == *portable* ]] && portable=(PORTABLE=1) b=dynamic-portable
	make -s -C "$TOP" CC=cc STATIC= VARIANT="$b" "${portable[@]}" all >&2
	cc -std=c11 -D_GNU_SOURCE -Wall -Wextra -Werror -shared -fPIC -O2 -o "$BATS_FILE_TMPDIR/clock.so" \
		"$TOP/tests/clock.c"
	local program
	for program in mqd mqctl; do
		cat >"$BATS_FILE_TMPDIR/$program" <<-END
			#!/bin/sh
			LD_PRELOAD=$BATS_FILE_TMPDIR/clock.so exec "$TOP/build/$b/$program" "\$@"
		END
		chmod +x "$BATS_FILE_TMPDIR/$program"
	done
	[[ -z ${SYNC:-} ]] || sed -i "s/\"\$@\"/-o sync=$SYNC &/" "$BATS_FILE_TMPDIR/mqd"
}

setup() {
	mkdir -p "$SPOOL"
	export CLOCK_FILE=$BATS_TEST_TMPDIR/clock
	MQD=$BATS_FILE_TMPDIR/mqd MQCTL=$BATS_FILE_TMPDIR/mqctl
	set_clock 0
}

# set_clock SECONDS: so far is mqd's clock ahead of the system's.
set_clock() {
	echo "$1" >"$CLOCK_FILE.new"
	mv "$CLOCK_FILE.new" "$CLOCK_FILE"
}

# say LINE...: what mqd answers to these lines, without its carriage returns.
say() {
	printf '%s\r\n' "$@" | "$MQD" -H "$SPOOL" | tr -d '\r'
}

# wait_through_steps AHEAD...: what is to come after two seconds comes then, though the clock is set
# to the one after the other meanwhile, again and again.
wait_through_steps() {
	ctl set opened open_timeout=2s
	ctl set configured delay=2s
	start_mqd -o idle_timeout=20
	"$PYTHON" - "$PORT" "$CLOCK_FILE" "$@" <<-'END'
		import itertools, os, select, socket, sys, time
		port, clock, steps = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
		def connect():
		    s = socket.create_connection(("127.0.0.1", port), timeout=10)
		    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
		    return s
		def ask(s, line):
		    s.sendall(line + b"\r\n")
		    got = b""
		    while not (got.endswith((b"END\r\n", b"STORED\r\n", b"OK\r\n")) or b"ERROR" in got):
		        part = s.recv(65536)
		        assert part, got
		        got += part
		    return got
		def tick(steps=itertools.cycle(steps)):
		    with open(clock + ".new", "w") as f:
		        f.write(next(steps))
		    os.rename(clock + ".new", clock)

		c, holder = connect(), connect()
		def stat(field):
		    return ask(c, b"stats").split(b"STAT " + field + b" ")[1].split(b"\r")[0]
		today = int(stat(b"time"))
		assert ask(c, b"set paused 0 0 1\r\nx") == b"STORED\r\n"
		assert ask(c, b"set opened 0 0 1\r\nx") == b"STORED\r\n"
		assert ask(c, b"pause paused 2") == b"OK\r\n"
		began = time.monotonic()
		assert ask(c, b"set configured 0 0 1\r\nx") == b"STORED\r\n"
		assert ask(c, b"set delayed/delay=2 0 0 1\r\nx") == b"STORED\r\n"
		assert ask(holder, b"get opened/open").startswith(b"VALUE")
		begun = time.monotonic()
		queues = [b"paused", b"opened", b"configured", b"delayed", b"empty", b"monitored"]
		waiters = {connect(): q for q in queues}
		for s, q in waiters.items():
		    s.sendall(b"get %s/t=%d\r\n" % (q, 2000 if q == b"empty" else 9000) if q != b"monitored"
		              else b"monitor monitored 2\r\n")
		took = {}
		while len(took) < len(queues) and time.monotonic() < began + 8:
		    tick()
		    # Who waits in no line looks at the clock at each get.
		    for q in queues[:4]:
		        if time.monotonic() < began + 1.7:
		            assert ask(c, b"get " + q) == b"END\r\n", q
		    for s in select.select(list(set(waiters) - set(took)), [], [], 0.05)[0]:
		        got = s.recv(1000)
		        assert got.startswith(b"VALUE" if waiters[s] in queues[:4] else b"END"), got
		        took[s] = time.monotonic()
		took = {waiters[s]: t for s, t in took.items()}
		for q in queues:
		    assert q in took and 1.9 < took[q] - began and took[q] - begun < 6, (q, took, began)
		# It was another clock, and not the one of a process that none of it has reached.
		assert abs(int(stat(b"time")) - today) > 3000 or "0" in steps
	END
}

@test "the clock is set forward by an hour: nobody waits less" {
	wait_through_steps 3600
}

@test "the clock is set back by an hour: nobody waits longer" {
	wait_through_steps -3600
}

@test "the clock goes to and fro" {
	wait_through_steps 0 3600 0 -3600
}

@test "a process that starts after the clock was set: what is delayed is due when it was, as is a pause" {
	[ "$(say 'set q/delay=1000 0 0 1' x 'set p 0 0 1' y 'pause p 1000')" = $'STORED\nSTORED\nOK' ]
	set_clock 3600
	[ "$(say 'get q' 'get p')" = $'END\nEND' ]
	[ "$(ctl check)" = "" ]
	set_clock -3600
	[ "$(say 'set q/delay=1 0 0 1' z 'get q/t=5000')" = $'STORED\nVALUE q/t=5000 0 1\nz\nEND' ]
	[ "$(ctl check)" = "" ]
}

@test "after a reboot what was delayed is due by its date: there is nothing else to go by" {
	set_clock 3600
	[ "$(say 'set q/delay=1800 0 0 1' x)" = STORED ]
	rebooted() { sed -i 's/^boot .*/boot 00000000-0000-0000-0000-000000000000/' "$SPOOL/q/.state"; }
	rebooted
	[ "$(say 'get q')" = END ]
	set_clock 0
	rebooted
	[ "$(say 'get q')" = END ]
	set_clock 5500
	[ "$(say 'get q')" = END ]
	rebooted
	[ "$(say 'get q')" = $'VALUE q 0 1\nx\nEND' ]
}

@test "a message expires at a date: set forward, the clock is past it, set back, it is not" {
	ctl set q expire=yes
	ctl set aged expire=yes max_age=30m
	[ "$(say 'set q 0 1800 1' a 'set q 0 7200 1' b 'set aged 0 0 1' c)" = $'STORED\nSTORED\nSTORED' ]
	set_clock -3600
	[ "$(say 'get q/peek' 'flush_expired')" = $'VALUE q/peek 0 1\na\nEND\n0' ]
	set_clock 1700
	[ "$(say 'get q/peek' 'flush_expired')" = $'VALUE q/peek 0 1\na\nEND\n0' ]
	set_clock 3600
	[ "$(say 'get aged' 'get q/peek' 'get q')" = $'END\nVALUE q/peek 0 1\nb\nEND\nVALUE q 0 1\nb\nEND' ]
	# A date stays as it was told, also by a clock that was wrong: this one lives for an hour more.
	[ "$(say 'set q 0 100 1' d)" = STORED ]
	set_clock 0
	[ "$(say 'get q')" = $'VALUE q 0 1\nd\nEND' ]
	[ "$(ctl check)" = "" ]
}

@test "ages are never less than nothing" {
	local field
	[ "$(say 'set q 0 0 1' x)" = STORED ]
	set_clock -3600
	say stats >"$BATS_TEST_TMPDIR/stats"
	grep -qx 'STAT queue_q_age 0' "$BATS_TEST_TMPDIR/stats"
	grep -qx 'STAT uptime 0' "$BATS_TEST_TMPDIR/stats"
	ctl ls | grep -q ' 0s$'
	set_clock 3600
	field=$(say stats | sed -n 's/^STAT queue_q_age //p')
	((field >= 3600000 && field < 3700000))
	ctl ls | grep -q ' 60m$'
}
