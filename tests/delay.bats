#!/usr/bin/env bats
# Messages that are not delivered yet, queues that deliver nothing for a while, and a spool that
# refuses.

load helper

setup() {
	mkdir -p "$SPOOL"
}

# say LINE...: what mqd answers to these lines, without its carriage returns.
say() {
	printf '%s\r\n' "$@" | "$MQD" -H "$SPOOL" | tr -d '\r'
}

# delayed [QUEUE]: the files that wait in .delay.
delayed() {
	find "$SPOOL/${1:-q}/.delay" -type f
}

# make_due SECONDS: as if so many seconds had passed since the messages of q were delayed.
make_due() {
	local second due
	for second in "$SPOOL"/q/.delay/[0-9]*; do
		printf -v due %016d $((10#${second##*/} - $1))
		mv "$second" "${second%/*}/$due"
	done
	due=$(ls "$SPOOL/q/.delay" | grep -m 1 ^0)
	sed -i.old "s/^due .*/due $due/" "$SPOOL/q/.state"
	cat "$SPOOL/q/.state" >"$SPOOL/q/.state.old" # the same file, for those who have it open
	rm "$SPOOL/q/.state.old"
}

# field NAME: of q, in stats.
field() {
	say stats | sed -n "s/^STAT queue_q_$1 //p"
}

@test "a delayed message comes when it is due, and not before" {
	start_mqd
	"$PYTHON" - "$PORT" <<-'END'
		import socket, sys, time
		s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
		f = s.makefile("rb")
		def ask(data, n=1):
		    s.sendall(data)
		    return [f.readline() for _ in range(n)]
		began = time.monotonic()
		assert ask(b"set q/delay=1 0 0 4\r\nlate\r\n") == [b"STORED\r\n"]
		assert ask(b"set q 0 0 3\r\nnow\r\n") == [b"STORED\r\n"]
		assert ask(b"get q\r\n", 3) == [b"VALUE q 0 3\r\n", b"now\r\n", b"END\r\n"]
		assert ask(b"get q\r\n") == [b"END\r\n"]
		assert ask(b"get q/peek\r\n") == [b"END\r\n"]
		# A waiting get is woken when it is due; it may be up to a second late.
		assert ask(b"get q/t=5000\r\n", 3)[1] == b"late\r\n"
		assert 1 <= time.monotonic() - began < 2.5, time.monotonic() - began
		# Also by a message that is due before the one it knows of.
		other = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
		other.sendall(b"set q/delay=60 0 0 1\r\na\r\n")
		assert other.recv(100) == b"STORED\r\n"
		s.sendall(b"get q/t=10000\r\n")
		while b"queue_q_waiters 1\r\n" not in (data := other.sendall(b"stats\r\n") or other.recv(65536)):
		    pass
		other.sendall(b"set q/delay=1 0 0 1\r\nb\r\n")
		began = time.monotonic()
		assert [f.readline() for _ in range(3)][1] == b"b\r\n"
		assert 0.9 <= time.monotonic() - began < 2.5, time.monotonic() - began
	END
	[ "$(field delayed)/$(field items)/$(field total_items)" = 1/0/4 ]
	[ "$(say 'stats queue' | grep '^STAT q ')" = "STAT q 4/3" ]
}

@test "what set/delay takes, and what it refuses without losing step" {
	talk <<-'END'
		> set q/delay=0 0 0 1
		> a
		< STORED
		> set q/delay=315360000 7 0 1
		> b
		< STORED
		> set q/delay=315360001 0 0 1
		> c
		< CLIENT_ERROR bad delay
		> set q/delay= 0 0 1
		> c
		< CLIENT_ERROR bad delay
		> set q/delay=-1 0 0 1
		> c
		< CLIENT_ERROR bad delay
		> set q/delay=1s 0 0 1
		> c
		< CLIENT_ERROR bad delay
		> set q/dealy=1 0 0 1
		> c
		< CLIENT_ERROR unknown option
		> set q/open 0 0 1
		> c
		< CLIENT_ERROR unknown option
		> set q/ 0 0 1
		> c
		< CLIENT_ERROR unknown option
		> set /delay=1 0 0 1
		> c
		< CLIENT_ERROR queue name missing
		> set ../delay=1 0 0 1
		> c
		< STORED
		> get q/delay=1
		< CLIENT_ERROR unknown option
		> delete q/delay=1
		< CLIENT_ERROR queue name may not contain a slash
		> get q
		< VALUE q 0 1
		< a
		< END
		> get q
		< END
	END
	[ "$(delayed | wc -l)" = 1 ]
	[ "$(delayed '%2E.' | wc -l)" = 1 ]
	[ "$(ls "$SPOOL")" = $'%2E.\nq' ]
}

@test "real clients can delay a message" {
	start_mqd
	"$PYTHON" - "$PORT" <<-'END'
		import sys, pylibmc
		from pymemcache.client.base import Client
		port = sys.argv[1]
		assert Client(("127.0.0.1", int(port)), timeout=10).set("q/delay=60", b"x", noreply=False)
		assert pylibmc.Client(["127.0.0.1:" + port]).set("q/delay=60", "y")
	END
	php -r '$m = new Memcached(); $m->addServer("127.0.0.1", '"$PORT"'); exit($m->set("q/delay=60", "z") ? 0 : 1);'
	[ "$(delayed | wc -l)" = 3 ]
}

@test "ls shows what is delayed, until when, and it survives processes and a reboot" {
	local file date
	date=$(($(date +%s) + 100))
	[ "$(say 'set q/delay=100 0 0 2' ab)" = STORED ]
	file=$(delayed)
	[ "$(tail -n +2 "$file")" = ab ]
	(($(stat -c %Y "$file") >= date && $(stat -c %Y "$file") <= date + 5))
	[ "$(say 'get q')" = END ]
	# Another boot, whose clock began later: 100 s are left as before.
	mv "$SPOOL"/q/.delay/* "$SPOOL/q/.delay/0000999999999999"
	sed -i 's/^boot .*/boot 00000000-0000-0000-0000-000000000000/; s/^due .*/due 0000999999999999/' "$SPOOL/q/.state"
	[ "$(say 'get q')" = END ]
	local second now
	second=$((10#$(ls "$SPOOL/q/.delay"))) now=$(cut -d. -f1 /proc/uptime)
	((second >= now + 95 && second <= now + 103))
	[ "$(ctl check)" = "" ]
	# One in which it was due while nobody was there.
	touch -d '1 hour ago' "$SPOOL"/q/.delay/*/*
	sed -i 's/^boot .*/boot 00000000-0000-0000-0000-000000000000/' "$SPOOL/q/.state"
	[ "$(say 'get q')" = $'VALUE q 0 2\nab\nEND' ]
	[ "$(ctl check)" = "" ]
	[ "$(ls "$SPOOL/q/.delay")" = "" ]
}

@test "a thousand seconds that were overdue at a reboot come at once, and in order" {
	local i
	for i in {0..1000}; do printf 'set q/delay=100 0 0 4\r\n%04d\r\n' "$i"; done | "$MQD" -N -H "$SPOOL" >/dev/null
	"$PYTHON" - "$SPOOL/q/.delay" <<-'END'
		import glob, os, sys, time
		for file in glob.glob(sys.argv[1] + "/*/*"):
		    second = "%s/%016d" % (sys.argv[1], 9000000 + int(os.path.basename(file)))
		    os.mkdir(second)
		    os.utime(file, (0, time.time() - 3600))
		    os.rename(file, second + "/" + os.path.basename(file))
	END
	sed -i 's/^boot .*/boot 00000000-0000-0000-0000-000000000000/; s/^due .*/due 0000000009000001/' "$SPOOL/q/.state"
	SECONDS=0
	for ((i = 0; i <= 1000; i++)); do printf 'get q\r\n'; done | "$MQD" -N -H "$SPOOL" | grep -a '^[0-9]' | tr -d '\r' >"$BATS_TEST_TMPDIR/out"
	seq -w 0 1000 | cmp - "$BATS_TEST_TMPDIR/out"
	((SECONDS < 5))
	[ "$(ctl check)" = "" ]
}

@test "max_age counts from when a message is due" {
	ctl set q expire=yes max_age=10s
	say 'set q/delay=100 0 0 1' a >/dev/null
	make_due 105
	[ "$(say 'get q')" = $'VALUE q 0 1\na\nEND' ]
}

@test ".state removed: the delayed are found again, and wait on" {
	[ "$(say 'set q/delay=100 0 0 2' ab 'set q/delay=200 0 0 2' cd)" = $'STORED\nSTORED' ]
	rm "$SPOOL/q/.state"
	[ "$(say 'get q')" = END ]
	[ "$(field delayed)" = 2 ]
	[ "$(ctl check)" = "" ]
	make_due 105
	[ "$(say 'get q' 'get q')" = $'VALUE q 0 2\nab\nEND\nEND' ]
	[ "$(field delayed)" = 1 ]
}

@test "many that are due come in their order, by the second and by their arrival" {
	local i
	for i in {1..600}; do printf 'set q/delay=50 0 0 3\r\n%03d\r\n' $((i - 1)); done >"$BATS_TEST_TMPDIR/in"
	for i in 1 2 3; do printf 'set q/delay=10 0 0 1\r\n%d\r\n' "$i"; done >>"$BATS_TEST_TMPDIR/in"
	printf 'set q 0 0 1\r\n0\r\n' >>"$BATS_TEST_TMPDIR/in"
	"$MQD" -N -H "$SPOOL" <"$BATS_TEST_TMPDIR/in" >/dev/null
	make_due 20
	[ "$(say 'get q' 'get q' 'get q' 'get q' 'get q' | grep -c VALUE)" = 4 ]
	make_due 35
	for ((i = 0; i < 600; i++)); do printf 'get q\r\n'; done | "$MQD" -N -H "$SPOOL" | grep -a '^[0-9]' | tr -d '\r' >"$BATS_TEST_TMPDIR/out"
	seq -w 0 599 | cmp - "$BATS_TEST_TMPDIR/out"
	[ "$(ctl check)" = "" ]
	[ "$(field total_items)/$(field items)/$(field delayed)" = 604/0/0 ]
}

@test "killed while what is due is moved, where that takes two calls: it comes once, and in order" {
	native "for a valgrind the log has no mark, and others take it for another mount's"
	local n=0 linked=0 status
	# strace takes renameat2 away, as an older file system has none, and kills at an unlink.
	for ((n = 1; ; n++)); do
		say 'delete q' 'set q/delay=50 0 0 1' a 'set q/delay=50 0 0 1' b 'set q/delay=50 0 0 1' c >/dev/null
		make_due 60
		status=0
		printf 'get q\r\n' | strace -qq -o /dev/null -e trace=unlinkat,?renameat2 -e inject=?renameat2:error=EINVAL \
			-e inject=unlinkat:signal=KILL:when=$n "$MQD" -N -H "$SPOOL" >"$BATS_TEST_TMPDIR/out" || status=$?
		[ "$status" -eq 137 ] || break
		((linked += $(find "$SPOOL/q" -type f -links +1 -path '*/.delay/*' | wc -l))) || :
		[ "$(say 'get q' 'get q' 'get q' 'get q' | grep '^.$')" = $'a\nb\nc' ]
		[ ! -d "$SPOOL/q/.bad" ]
		[ "$(ctl check)" = "" ]
		[ "$(field items)/$(field delayed)" = 0/0 ]
	done
	[ "$status" -eq 0 ]
	((linked > 0))
}

@test "delay of a queue, of its children, and of what is moved" {
	ctl set q delay=1h
	talk <<-'END'
		> get q+c
		< END
		> set q 0 0 1
		> a
		< STORED
		> get q
		< END
		> get q+c
		< VALUE q+c 0 1
		< a
		< END
		> set q/delay=0 0 0 1
		> b
		< STORED
		> get q
		< VALUE q 0 1
		< b
		< END
		> set q/delay=100 0 0 1
		> c
		< STORED
	END
	[ "$(delayed q+c | wc -l)/$(delayed q | wc -l)" = 1/2 ]
	printf d | ctl put q
	[ "$(delayed q | wc -l)" = 3 ]
	# What was delivered and comes back does not wait again.
	printf 'set r 0 0 1\r\nx\r\n' | "$MQD" -H "$SPOOL" >/dev/null
	ctl mv r all q
	[ "$(say 'get q')" = $'VALUE q 0 1\nx\nEND' ]
}

@test "limits count what is delayed; discard_old drops what waits alone" {
	ctl set q max_items=2
	[ "$(say 'set q/delay=100 0 0 1' a 'set q/delay=100 0 0 1' b 'set q 0 0 1' c)" = $'STORED\nSTORED\nNOT_STORED' ]
	ctl set q discard_old=yes
	[ "$(say 'set q 0 0 1' c)" = NOT_STORED ]
	ctl set q max_items=3
	[ "$(say 'set q 0 0 1' c 'set q 0 0 1' d 'set q/delay=100 0 0 1' e 'set q 0 0 1' f)" = $'STORED\nSTORED\nSTORED\nNOT_STORED' ]
	[ "$(field discarded)/$(field delayed)/$(field items)" = 2/3/0 ]
	ctl set q max_items= max_bytes=10
	[ "$(say 'set q 0 0 8' 12345678 'set q 0 0 7' 1234567)" = $'NOT_STORED\nSTORED' ]
	[ "$(ctl check)" = "" ]
}

@test "flush and delete take what is delayed, and it does not come later" {
	[ "$(say 'set q/delay=1 0 0 1' a 'set q 0 0 1' b 'flush q')" = $'STORED\nSTORED\nEND' ]
	[ "$(field delayed)/$(field items)/$(field total_flushes)" = 0/0/1 ]
	[ ! -e "$SPOOL/q/.delay" ]
	[ "$(find "$SPOOL/.trash" -type f | wc -l)" = 0 ]
	[ "$(say 'set q/delay=1 0 0 1' a 'delete q' 'get q/t=2100')" = $'STORED\nDELETED\nEND' ]
	[ "$(say 'set q/delay=100 0 0 1' a 'set q/delay=100 0 0 1' b)" = $'STORED\nSTORED' ]
	[ "$(ctl flush q)" = 2 ]
}

@test "a damaged message in .delay goes to .bad, a foreign file stays, others come" {
	[ "$(say 'set q/delay=100 0 0 1' a 'set q/delay=100 0 0 1' b)" = $'STORED\nSTORED' ]
	local dir
	dir=$(ls -d "$SPOOL"/q/.delay/*)
	printf junk >"$dir/0000000000000001"
	printf junk >"$dir/note"
	mkdir "$SPOOL/q/.delay/junk"
	run ctl check
	[ "$output" = "foreign q/.delay/junk: not a second's directory
damaged q/.delay/*/0000000000000001: header, length or checksum is wrong
miscounted q/.state: delayed: 2 messages, 2 bytes, where there are 2 and 1" ]
	make_due 105
	[ "$(say 'get q' 'get q')" = $'VALUE q 0 1\nb\nEND\nEND' ]
	[ "$(cat "$SPOOL/q/.bad/"*)" = junk ]
	[ "$(find "$SPOOL/q/.delay" -type f -name note | wc -l)" = 1 ]
	[ "$(field delayed)/$(field items)" = 0/0 ]
}

@test "a full disk, or a .delay that is no directory: refused, in step, nothing is left" {
	say 'set q 0 0 1' x >/dev/null
	touch "$SPOOL/q/.delay"
	talk <<-'END'
		> set q/delay=100 0 0 1
		> a
		< SERVER_ERROR Not a directory
		> set q 0 0 1
		> b
		< STORED
		> get q
		< VALUE q 0 1
		< x
		< END
	END
	rm "$SPOOL/q/.delay"
	printf 'set q/delay=100 0 0 1\r\na\r\n' | strace -qq -o /dev/null -e inject=mkdirat:error=ENOSPC \
		"$MQD_BINARY" -H "$SPOOL" >"$BATS_TEST_TMPDIR/out" 2>/dev/null
	[ "$(cat "$BATS_TEST_TMPDIR/out")" = $'SERVER_ERROR out of memory storing object (No space left on device)\r' ]
	[ "$(ctl check)" = "" ]
}

@test "pause: nothing is delivered, pushes go on; it ends by itself, or by pause 0" {
	start_mqd
	talk_tcp <<-'END'
		> set q 0 0 1
		> a
		< STORED
		> pause q 100
		< OK
		> get q
		< END
		> get q/open
		< END
		> get q/t=20
		< END
		> get q/peek
		< VALUE q/peek 0 1
		< a
		< END
		> set q 0 0 1
		> b
		< STORED
		> PAUSE q 0
		< OK
		> get q
		< VALUE q 0 1
		< a
		< END
		> pause q 1
		< OK
		> get q/t=5000
		< VALUE q/t=5000 0 1
		< b
		< END
		> pause q
		< ERROR
		> pause q x
		< CLIENT_ERROR bad command line format
		> pause q -1
		< CLIENT_ERROR bad command line format
		> pause a/b 1
		< CLIENT_ERROR queue name may not contain a slash
		> pause q 2147483647
		< OK
		> set q 0 0 1
		> c
		< STORED
		> get q
		< END
	END
	# Who waits is woken when it ends.
	"$PYTHON" - "$PORT" <<-'END'
		import socket, sys, time
		a, b = (socket.create_connection(("127.0.0.1", int(sys.argv[1]))) for _ in range(2))
		a.sendall(b"get q/t=20000\r\n")
		while b"queue_q_waiters 1\r\n" not in (data := b.sendall(b"stats\r\n") or b.recv(65536)):
		    pass
		began = time.monotonic()
		b.sendall(b"pause q 0\r\n")
		assert b.recv(100) == b"OK\r\n"
		f = a.makefile("rb")
		assert [f.readline() for _ in range(3)][0] == b"VALUE q/t=20000 0 1\r\n"
		assert time.monotonic() - began < 5
		# Also when it was shortened.
		b.sendall(b"pause q 15\r\nset q 0 0 1\r\nx\r\n")
		a.sendall(b"get q/t=20000\r\n")
		while b"queue_q_waiters 1\r\n" not in (data := b.sendall(b"stats\r\n") or b.recv(65536)):
		    pass
		began = time.monotonic()
		b.sendall(b"pause q 1\r\n")
		assert [f.readline() for _ in range(3)][0] == b"VALUE q/t=20000 0 1\r\n"
		assert time.monotonic() - began < 5
	END
}

@test "a pause without an end outlives a reboot, one with an end does not" {
	"$MQCTL" -H "$SPOOL" set q max_open=2
	say 'set q 0 0 1' a 'pause q 100' >/dev/null
	sed -i 's/^boot .*/boot 00000000-0000-0000-0000-000000000000/' "$SPOOL/q/.state"
	[ "$(say 'get q')" = $'VALUE q 0 1\na\nEND' ]
	say 'set q 0 0 1' b >/dev/null
	sed -i 's/^boot .*/boot 00000000-0000-0000-0000-000000000000/; s/^paused .*/paused 9999999999999999/' "$SPOOL/q/.state"
	[ "$(say 'get q')" = END ]
	[ "$(say 'pause q 0' 'get q')" = $'OK\nVALUE q 0 1\nb\nEND' ]
}

@test "status: readonly refuses what changes a queue, quiescent all but the end of what is open" {
	talk <<-'END'
		> set q 0 0 1
		> a
		< STORED
		> set q 0 0 1
		> b
		< STORED
		> status
		< UP
		> get q/open
		< VALUE q/open 0 1
		< a
		< END
		> status readonly
		< END
		> status
		< READONLY
		> set q 0 0 1
		> c
		< SERVER_ERROR readonly
		> set q 0 0 1 noreply
		> c
		> delete q
		< SERVER_ERROR readonly
		> flush q
		< SERVER_ERROR readonly
		> flush_expired
		< SERVER_ERROR readonly
		> flush_all_expired
		< SERVER_ERROR readonly
		> get q/peek
		< VALUE q/peek 0 1
		< b
		< END
		> get q/close
		< END
		> get q/open
		< VALUE q/open 0 1
		< b
		< END
		> STATUS Quiescent
		< END
		> get q
		< SERVER_ERROR quiescent
		> get q r
		< SERVER_ERROR quiescent
		> get q/close/open
		< SERVER_ERROR quiescent
		> monitor q 1
		< SERVER_ERROR quiescent
		> set q 0 0 1
		> c
		< SERVER_ERROR quiescent
		> version
		<~ VERSION .*
		> confirm q 1
		< END
		> status down
		< CLIENT_ERROR status must be up, readonly or quiescent
		> status up up
		< ERROR
		> status
		< QUIESCENT
		> status up
		< END
		> get q
		< END
	END
	[ "$(cat "$SPOOL/.config")" = "status = up" ]
}

@test "status is kept, seen by all within a second, and needs a .config without mistakes" {
	start_mqd
	"$PYTHON" - "$PORT" <<-'END'
		import socket, sys, time
		a, b = (socket.create_connection(("127.0.0.1", int(sys.argv[1]))) for _ in range(2))
		def ask(s, line):
		    s.sendall(line)
		    return s.recv(1000)
		assert ask(a, b"get q\r\n") == b"END\r\n"
		assert ask(b, b"status quiescent\r\n") == b"END\r\n"
		end = time.monotonic() + 1.5
		while ask(a, b"get q\r\n") != b"SERVER_ERROR quiescent\r\n":
		    assert time.monotonic() < end
	END
	stop_mqd
	[ "$(say status)" = QUIESCENT ]
	echo 'nonsense' >>"$SPOOL/.config"
	[ "$(say 'status up' status)" = $'SERVER_ERROR mistake in .config\nQUIESCENT' ]
	sed -i /nonsense/d "$SPOOL/.config"
	[ "$(say 'status up' status)" = $'END\nUP' ]
}

@test "readonly: a push that was refused leaves nothing, and a queue is not made" {
	[ "$(say 'status readonly' 'set q 0 0 1' a 'set q/delay=1 0 0 5000' "$(printf %05000d 0)")" = $'END\nSERVER_ERROR readonly\nSERVER_ERROR readonly' ]
	[ ! -e "$SPOOL/q" ]
}

@test "how old a message is: since it came, whatever failed since" {
	say 'set q 0 0 1' a >/dev/null
	touch -d '1 hour ago' "$SPOOL/q/0000000000000001"
	say 'get q/open' 'get q/abort' >/dev/null
	(($(field age) > 3500000))
	[ "$(field redelivered)/$(field transactions)/$(field canceled_transactions)" = 1/1/1 ]
	say 'get q/open' >/dev/null
	(($(field age) > 3500000))
	[ "$(field redelivered)/$(field transactions)/$(field canceled_transactions)" = 2/2/2 ]
	say 'get q/open' 'get q/close' >/dev/null
	[ "$(field redelivered)/$(field transactions)/$(field canceled_transactions)" = 2/3/2 ]
}

@test "what was opened is counted, not what was passed on the way to it" {
	ctl set q expire=yes max_tries=1
	say 'set q 0 -1 1' a 'set q 0 0 1' b 'set q 0 0 1' c >/dev/null
	say 'get q/open' 'get q/abort' >/dev/null
	[ "$(say 'get q/open' 'get q/close')" = $'VALUE q/open 0 1\nc\nEND\nEND' ]
	[ "$(field transactions)/$(field expired_items)/$(field dead)" = 2/1/1 ]
	# No room for the expired: the message stays, and is not counted as one that was opened.
	ctl set q.old max_items=1
	printf x | ctl put q.old
	ctl set q expire_to=q.old
	say 'set q 0 -1 1' d >/dev/null
	[ "$(say 'get q/open')" = 'SERVER_ERROR no room where expired messages go' ]
	[ "$(field items)/$(field transactions)/$(field canceled_transactions)/$(field expired_items)" = 1/2/1/1 ]
}

@test "a large body is refused when neither the queue nor its children can take it" {
	say 'get q+c' >/dev/null
	ctl set q max_item_size=4999
	printf 'set q 0 0 5000\r\n%05000d\r\n' 0 >"$BATS_TEST_TMPDIR/in"
	[ "$("$MQD" -H "$SPOOL" <"$BATS_TEST_TMPDIR/in" 2>/dev/null)" = $'SERVER_ERROR stored in 1 of 2 queues, not in q: full\r' ]
	ctl set q fanout_only=yes
	[ "$("$MQD" -H "$SPOOL" <"$BATS_TEST_TMPDIR/in")" = $'STORED\r' ]
	ctl set q+c max_item_size=10
	[ "$("$MQD" -H "$SPOOL" <"$BATS_TEST_TMPDIR/in")" = $'NOT_STORED\r' ]
	[ "$(count_messages q+c)/$(count_messages q)" = 2/0 ]
}
