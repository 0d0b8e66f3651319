#!/usr/bin/env bats
# Every command and every refusal, as transcripts: what a client sends, what it must get.

load helper

@test "the session of the README, byte for byte, and the files it leaves" {
	start_mqd
	talk_tcp <<-'END'
		> set q4 0 0 5
		> hello
		< STORED
		> set q4 0 0 5
		> world
		< STORED
	END
	[ "$(ls "$SPOOL/q4")" = $'0000000000000001\n0000000000000002' ]
	[ "$(tail -n +2 "$SPOOL/q4/0000000000000001")" = hello ]
	talk_tcp <<-'END'
		> stats queue
		< STAT q4 2/0
		< END
		> get q4
		< VALUE q4 0 5
		< hello
		< END
		> stats queue
		< STAT q4 2/1
		< END
	END
	[ "$(ls "$SPOOL/q4")" = 0000000000000002 ]
}

@test "set and get keep order, flags, empty and binary bodies" {
	talk <<-'END'
		> set a 4294967295 0 3
		> one
		< STORED
		> set a 1 -1 0
		>
		< STORED
		> set a 2 2592001 6
		>> \0\r\n\xff\0 \r\n
		< STORED
		> get a
		< VALUE a 4294967295 3
		< one
		< END
		> get a
		< VALUE a 1 0
		<
		< END
		> get a
		<< VALUE a 2 6\r\n\0\r\n\xff\0 \r\nEND\r\n
		> get a
		< END
	END
}

@test "gets tells the message number as the cas value" {
	talk <<-'END'
		> set a 0 0 1
		> x
		< STORED
		> set a 0 0 1
		> y
		< STORED
		> gets a
		< VALUE a 0 1 1
		< x
		< END
		> gets a b
		< VALUE a 0 1 2
		< y
		< END
	END
}

@test "get of several queues, of missing ones, of one named twice" {
	talk <<-'END'
		> get nothing
		< END
		> set a 0 0 2
		> a1
		< STORED
		> set a 0 0 2
		> a2
		< STORED
		> set b 0 0 2
		> b1
		< STORED
		> get a missing b a  a
		< VALUE a 0 2
		< a1
		< VALUE b 0 2
		< b1
		< END
		> get a b
		< VALUE a 0 2
		< a2
		< END
		> get
		< ERROR
	END
	[ ! -e "$SPOOL/nothing" ]
	[ ! -e "$SPOOL/missing" ]
}

@test "a get may name queues to 64 KiB of line" {
	"$PYTHON" - >"$BATS_TEST_TMPDIR/in" <<-'END'
		import sys
		names = ["n%06d" % i for i in range(8000)]
		line = "get " + " ".join(names)
		assert 64000 < len(line) < 65534
		out = ["set n000000 0 0 1", "a", "set n007999 0 0 1", "b", line, line]
		sys.stdout.write("\r\n".join(out) + "\r\n")
	END
	mkdir -p "$SPOOL"
	run "$MQD" -H "$SPOOL" <"$BATS_TEST_TMPDIR/in"
	[ "$output" = $'STORED\r\nSTORED\r\nVALUE n000000 0 1\r\na\r\nVALUE n007999 0 1\r\nb\r\nEND\r\nEND\r' ]
}

@test "delete in all its forms" {
	talk <<-'END'
		> delete a
		< NOT_FOUND
		> set a 0 0 1
		> x
		< STORED
		> delete a
		< DELETED
		> get a
		< END
		> set a 0 0 1
		> x
		< STORED
		> delete a 0
		< DELETED
		> set a 0 0 1
		> x
		< STORED
		> delete a 5
		< DELETED
		> delete a noreply
		> delete a 0 noreply
		> set a 0 0 1 noreply
		> x
		> delete a noreply
		> get a
		< END
		> delete
		< ERROR
		> delete a 0 x y
		< ERROR
		> delete a 0 x
		< ERROR
		> delete a soon
		< CLIENT_ERROR bad command line format
	END
	[ ! -e "$SPOOL/a" ]
	[ -z "$(ls -A "$SPOOL/.trash" 2>/dev/null)" ]
}

@test "a deleted queue begins anew, for those too who had it open" {
	start_mqd
	talk_tcp <<-'END'
		> set a 0 0 3
		> old
		< STORED
		connect
		> set a 0 0 3
		> old
		< STORED
		> delete a
		< DELETED
		> set a 0 0 3
		> new
		< STORED
		connect
		> gets a
		< VALUE a 0 3 1
		< new
		< END
	END
	# One connection, whose handle another one makes stale.
	coproc CLIENT { exec "$MQD" -H "$SPOOL"; }
	local client_pid=$CLIENT_PID in=${CLIENT[1]} out=${CLIENT[0]} line
	printf 'set a 0 0 3\r\nold\r\n' >&"$in"
	read -r -t 10 line <&"$out"
	[ "$line" = $'STORED\r' ]
	talk_tcp <<-'END'
		> delete a
		< DELETED
	END
	printf 'get a\r\nset a 0 0 3\r\nnew\r\n' >&"$in"
	read -r -t 10 line <&"$out"
	[ "$line" = $'END\r' ]
	read -r -t 10 line <&"$out"
	[ "$line" = $'STORED\r' ]
	eval "exec $in>&-"
	wait "$client_pid"
	[ "$(count_messages a)" = 1 ]
}

@test "a queue deleted while a large body is on its way into it gets the message anew" {
	start_mqd
	"$PYTHON" - "$PORT" <<-'END'
		import socket, sys
		def connect():
		    s = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 10)
		    return s, s.makefile("rb")
		a, ra = connect()
		b, rb = connect()
		body = bytes(range(256)) * 2000
		a.sendall(b"set q 7 0 %d\r\n" % len(body) + body[:300000])
		b.sendall(b"set q 0 0 3\r\nold\r\n")
		assert rb.readline() == b"STORED\r\n"
		b.sendall(b"delete q\r\n")
		assert rb.readline() == b"DELETED\r\n"
		a.sendall(body[300000:] + b"\r\n")
		assert ra.readline() == b"STORED\r\n"
		b.sendall(b"get q\r\n")
		assert rb.readline() == b"VALUE q 7 512000\r\n"
		assert rb.read(512002) == body + b"\r\n"
		assert rb.readline() == b"END\r\n"
	END
	[ "$(count_messages q)" = 0 ]
	[ -z "$(ls -A "$SPOOL/q/.tmp")" ]
}

@test "version, verbosity, quit, and their wrong forms" {
	talk <<-'END'
		> version
		<~ VERSION [1-9][0-9]*\.[0-9]+\.[0-9]+
		> verbosity 1
		< OK
		> verbosity 1 noreply
		> verbosity
		< ERROR
		> verbosity 1 2 3
		< ERROR
		>
		< ERROR
		> nonsense
		< ERROR
		> geta a
		< ERROR
		> setx a 0 0 1
		< ERROR
		>> version\n
		<~ VERSION .*
		> quit
		<eof
	END
}

@test "commands that mean nothing to a queue keep the client in step" {
	talk <<-'END'
		> add k 0 2678400 5
		> delet
		< NOT_STORED
		> replace k 0 0 3
		> get
		< NOT_STORED
		> append k 0 0 1
		> x
		< NOT_STORED
		> prepend k 0 0 1
		> x
		< NOT_STORED
		> cas k 0 0 1 99
		> x
		< EXISTS
		> add k 0 0 1 noreply
		> x
		> cas k 0 0 1 99 noreply
		> x
		> ms k 2 T0
		> hi
		<~ CLIENT_ERROR .*
		> incr k 1
		< NOT_FOUND
		> decr k 1
		< NOT_FOUND
		> incr k 1 noreply
		> touch k 10
		< NOT_FOUND
		> touch k 10 noreply
		> gat 10 k
		< END
		> gats 10 k k2
		< END
		> cache_memlimit 64
		< OK
		> cache_memlimit 64 noreply
		> mg k v
		< ERROR
		> md k
		< ERROR
		> ma k
		< ERROR
		> mn
		< MN
		> flush_all
		< CLIENT_ERROR flush_all not allowed
		> flush_all 
		< CLIENT_ERROR flush_all not allowed
		> flush_all 0
		< CLIENT_ERROR flush_all not allowed
		> flush_all noreply
		> flush_all 0 noreply
		> version
		<~ VERSION .*
	END
	[ ! -e "$SPOOL/k" ]
}

@test "stats: every field, and whatever clients ask of it" {
	talk <<-'END'
		> set a 0 0 5
		> hello
		< STORED
		> get a
		< VALUE a 0 5
		< hello
		< END
		> get a
		< END
		> set b 0 0 2
		> hi
		< STORED
		> stats
		<~ STAT pid [0-9]+
		<~ STAT uptime [0-9]+
		<~ STAT time [0-9]{10}
		<~ STAT version 1\..*
		<~ STAT pointer_size (32|64)
		<~ STAT rusage_user [0-9]+\.[0-9]{6}
		<~ STAT rusage_system [0-9]+\.[0-9]{6}
		< STAT curr_items 1
		< STAT total_items 2
		< STAT bytes 2
		< STAT curr_connections 1
		< STAT total_connections 1
		< STAT cmd_get 2
		< STAT cmd_set 2
		< STAT get_hits 1
		< STAT get_misses 1
		<~ STAT bytes_read [1-9][0-9]*
		<~ STAT bytes_written [1-9][0-9]*
		< STAT threads 1
		< STAT queue_a_items 0
		< STAT queue_a_bytes 0
		< STAT queue_a_total_items 1
		< STAT queue_a_delayed 0
		< STAT queue_a_expired_items 0
		< STAT queue_a_discarded 0
		< STAT queue_a_age 0
		< STAT queue_a_waiters 0
		< STAT queue_a_open_transactions 0
		< STAT queue_a_transactions 0
		< STAT queue_a_canceled_transactions 0
		< STAT queue_a_redelivered 0
		< STAT queue_a_dead 0
		< STAT queue_a_total_flushes 0
		< STAT queue_b_items 1
		< STAT queue_b_bytes 2
		< STAT queue_b_total_items 1
		< STAT queue_b_delayed 0
		< STAT queue_b_expired_items 0
		< STAT queue_b_discarded 0
		<~ STAT queue_b_age [0-9]{1,5}
		< STAT queue_b_waiters 0
		< STAT queue_b_open_transactions 0
		< STAT queue_b_transactions 0
		< STAT queue_b_canceled_transactions 0
		< STAT queue_b_redelivered 0
		< STAT queue_b_dead 0
		< STAT queue_b_total_flushes 0
		< END
		> stats queue
		< STAT a 1/1
		< STAT b 1/0
		< END
		> stats items
		< END
		> stats slabs
		< END
		> stats sizes
		< END
		> stats malloc
		< END
		> stats cachedump 1 10
		< END
		> stats settings
		<~ STAT maxconns .*
		< STAT item_size_max 1048576
		<~ STAT .*
		<~ STAT .*
		<~ STAT .*
		< END
		> stats reset
		< RESET
		> stats queue
		< STAT a 1/1
		< STAT b 1/0
		< END
	END
}

@test "stats count for the whole spool, survive processes, and know who is connected" {
	start_mqd
	talk_tcp <<-'END'
		> set a 0 0 1
		> x
		< STORED
	END
	stop_mqd
	start_mqd
	connections() {
		printf 'stats\r\nquit\r\n' | "$MQD" -H "$SPOOL" | grep -q "^STAT curr_connections $1"
	}
	wait_for connections 1
	local fds=() i fd
	for i in {1..20}; do
		exec {fd}<>"/dev/tcp/127.0.0.1/$PORT"
		fds+=("$fd")
	done
	wait_for connections 21
	for fd in "${fds[@]}"; do exec {fd}>&-; done
	wait_for connections 1
	printf 'stats\r\n' | "$MQD" -H "$SPOOL" | grep -q $'^STAT cmd_set 1\r'
}

@test "stats queue is complete and sorted with 3,000 queues" {
	"$PYTHON" -c '
for i in range(3000): print("set queue%04d 0 0 1\r\nx\r" % ((i * 7) % 3000))' >"$BATS_TEST_TMPDIR/in"
	mkdir -p "$SPOOL"
	[ "$("$MQD" -N -H "$SPOOL" <"$BATS_TEST_TMPDIR/in" | grep -c STORED)" = 3000 ]
	printf 'stats queue\r\n' | "$MQD" -H "$SPOOL" >"$BATS_TEST_TMPDIR/out"
	"$PYTHON" -c '
for i in range(3000): print("STAT queue%04d 1/0\r" % i)
print("END\r")' | cmp - "$BATS_TEST_TMPDIR/out"
}

@test "names: refused ones swallow their block, unusual ones are kept and encoded" {
	talk <<-'END'
		> set ../x 0 0 9
		> delete v 
		<~ CLIENT_ERROR .*
		> set /etc 0 0 1
		> x
		<~ CLIENT_ERROR .*
		>> set a\0b 0 0 1\r\nx\r\n
		<~ CLIENT_ERROR .*
		> set  0 0 5
		> hello
		<~ CLIENT_ERROR .*
		> get a/b
		<~ CLIENT_ERROR .*
		> get ok a/b
		<~ CLIENT_ERROR .*
		> delete ../x
		<~ CLIENT_ERROR .*
		> set .hidden 0 0 1
		> 1
		< STORED
		> set . 0 0 1
		> 2
		< STORED
		> set .. 0 0 1
		> 3
		< STORED
		> set 100% 0 0 1
		> 4
		< STORED
		>> set k\xc3\xb6\x01 0 0 1\r\n5\r\n
		< STORED
		> set <script> 0 0 1
		> 6
		< STORED
		> get .. . .hidden 100%
		< VALUE .. 0 1
		< 3
		< VALUE . 0 1
		< 2
		< VALUE .hidden 0 1
		< 1
		< VALUE 100% 0 1
		< 4
		< END
		>> get k\xc3\xb6\x01\r\n
		<< VALUE k\xc3\xb6\x01 0 1\r\n5\r\nEND\r\n
		> stats queue
		< STAT . 1/1
		< STAT .. 1/1
		< STAT .hidden 1/1
		< STAT <script> 1/0
		< STAT 100% 1/1
		<~ STAT k.* 1/1
		< END
	END
	[ "$(LC_ALL=C ls "$SPOOL")" = $'%2E\n%2E.\n%2Ehidden\n%3Cscript%3E\n100%25\nk%C3%B6%01' ]
	[ ! -e "$BATS_TEST_TMPDIR/x" ]
}

@test "keys of 250 bytes are taken, of 251 refused; an encoded name fits in 255" {
	local k250 k251 c85 c86
	k250=$(printf 'k%.0s' {1..250})
	k251=${k250}k
	c85=$(printf '%%%.0s' {1..85})
	c86=$(printf '%%%.0s' {1..86})
	talk <<-END
		> set $k250 0 0 1
		> x
		< STORED
		> set $k251 0 0 9
		> delete x 
		< CLIENT_ERROR key too long
		> get $k251
		< CLIENT_ERROR key too long
		> set $c85 0 0 1
		> x
		< STORED
		> set $c86 0 0 1
		> x
		< CLIENT_ERROR queue name too long
		> get $c86
		< CLIENT_ERROR queue name too long
		> get $c85
		< VALUE $c85 0 1
		< x
		< END
	END
}

@test "numbers are strict, and the next line is a command again" {
	local bad
	for bad in x -1 +1 1x 4294967296 '0x10' 1.5; do
		talk <<-END
			> set a $bad 0 1
			> x
			< CLIENT_ERROR bad command line format
			> version
			<~ VERSION .*
		END
	done
	for bad in x -1 +1 1x 18446744073709551616 99999999999999999999999 9223372036854775808; do
		talk <<-END
			> set a 0 0 $bad
			< CLIENT_ERROR bad command line format
			> version
			<~ VERSION .*
		END
	done
	[ ! -e "$SPOOL/a" ]
}

@test "a body never runs as commands, however its line is misshaped" {
	talk <<-'END'
		> set victim 0 0 1
		> x
		< STORED
		> set  0 0 13
		> delete victim
		<~ CLIENT_ERROR .*
		> set  0 0 13 noreply
		> delete victim
		> cas  0 0 13 99 noreply
		> delete victim
		> cas a b 0 0 13 99
		> delete victim
		<~ CLIENT_ERROR .*
		> set q 0 0 13 norepli
		> delete victim
		<~ CLIENT_ERROR .*
		> set q 0 0 13 noreply noreply
		> delete victim
		> set q x 0 13
		> delete victim
		<~ CLIENT_ERROR .*
		> set a b c d e f g h i j 0 0 13
		> delete victim
		<~ CLIENT_ERROR .*
		> ms victim 13
		> delete victim
		<~ CLIENT_ERROR .*
		> stats queue
		< STAT victim 1/0
		< END
	END
}

@test "wrong number of words" {
	talk <<-'END'
		> set
		< ERROR
		> set a
		< ERROR
		> set a 0 0
		< ERROR
		> set a b c
		< ERROR
		> incr a
		< ERROR
		> touch a
		< ERROR
		> gat 0
		< ERROR
		> version x
		< ERROR
		> version
		<~ VERSION .*
	END
}

@test "a body without its CRLF stores nothing and the stream is in step again" {
	talk <<-'END'
		> set a 0 0 4
		> too long
		< CLIENT_ERROR bad data chunk
		> set a 0 0 9
		> short
		> get a
		< CLIENT_ERROR bad data chunk
		>> set a 0 0 2\r\nhi\n
		< CLIENT_ERROR bad data chunk
		>> set a 0 0 2\r\nhi\rx\r\n
		< CLIENT_ERROR bad data chunk
		> get a
		< END
		> version
		<~ VERSION .*
	END
	[ "$(count_messages a)" = 0 ]
	[ -z "$(ls -A "$SPOOL/a/.tmp")" ]
}

@test "a body over -B is swallowed, and stored is only what fits" {
	"$PYTHON" - >"$BATS_TEST_TMPDIR/in" <<-'END'
		import sys
		w = sys.stdout.buffer.write
		for n in (1024, 1025, 3000000):
		    w(b"set a 0 0 %d\r\n" % n + b"get a\r\n" * (n // 7) + b"x" * (n % 7) + b"\r\n")
		w(b"stats queue\r\nset a 0 0 9223372036854775807\r\n" + b"x" * 100000)
	END
	mkdir -p "$SPOOL"
	run "$MQD" -B 1k -H "$SPOOL" <"$BATS_TEST_TMPDIR/in"
	[ "$output" = $'STORED\r\nSERVER_ERROR object too large for cache\r\nSERVER_ERROR object too large for cache\r\nSTAT a 1/0\r\nEND\r' ]
}

@test "bodies around the sizes of the buffers come back as they were" {
	start_mqd -B 4m
	"$PYTHON" - "$PORT" <<-'END'
		import hashlib, socket, sys
		s = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 10)
		r = s.makefile("rb")
		sizes = [1, 16313, 16314, 16315, 16316, 16382, 16383, 16384, 16385, 32768, 65533, 65534,
		    65535, 65536, 65537, 65538, 100000, 131072, 1048576, 4194304]
		bodies = [hashlib.sha256(b"%d" % n).digest() * (n // 32 + 1) for n in sizes]
		bodies = [b[:n] for b, n in zip(bodies, sizes)]
		for b in bodies:
		    s.sendall(b"set a 0 0 %d\r\n" % len(b) + b + b"\r\n")
		    assert r.readline() == b"STORED\r\n", len(b)
		for b in bodies:
		    s.sendall(b"get a\r\n")
		    assert r.readline() == b"VALUE a 0 %d\r\n" % len(b), len(b)
		    assert r.read(len(b) + 2) == b + b"\r\n", len(b)
		    assert r.readline() == b"END\r\n"
		# The same pipelined, and taken in one go from as many queues.
		for i, b in enumerate(bodies):
		    s.sendall(b"set m%d 0 0 %d noreply\r\n" % (i, len(b)) + b + b"\r\n")
		s.sendall(b"get " + b" ".join(b"m%d" % i for i in range(len(bodies))) + b"\r\n")
		for i, b in enumerate(bodies):
		    assert r.readline() == b"VALUE m%d 0 %d\r\n" % (i, len(b))
		    assert r.read(len(b) + 2) == b + b"\r\n"
		assert r.readline() == b"END\r\n"
	END
}

@test "a line that is too long is refused and the connection closed" {
	start_mqd
	talk_tcp <<-'END'
		>>*300 xxxxxxxxxx
		< CLIENT_ERROR line too long
		<eof
	END
	talk_tcp <<-'END'
		>> get
		>>*7000  xxxxxxxxx
		< CLIENT_ERROR line too long
		<eof
	END
	local filler
	filler=$(printf 'y%.0s' {1..2060})
	talk_tcp <<-END
		> version
		<~ VERSION .*
		> delete $filler
		< CLIENT_ERROR line too long
		<eof
	END
}

@test "the binary protocol is refused in its own form, at once, and logged" {
	start_mqd
	talk_tcp <<-'END'
		>> \x80\x0a\0\0\0\0\0\0\0\0\0\0\xde\xad\xbe\xef\0\0\0\0\0\0\0\0
		<< \x81\x0a\0\0\0\0\0\x81\0\0\0\x12\xde\xad\xbe\xef\0\0\0\0\0\0\0\0text protocol only
		<eof
	END
	talk_tcp <<-'END'
		>> \x80
		<< \x81\0\0\0\0\0\0\x81\0\0\0\x12\0\0\0\0\0\0\0\0\0\0\0\0text protocol only
		<eof
	END
	[ "$(grep -c 'binary protocol' "$BATS_TEST_TMPDIR/log")" = 2 ]
}

@test "noreply is silent whatever happens" {
	talk <<-'END'
		> set a 0 0 1 noreply
		> x
		> set a/b 0 0 1 noreply
		> x
		> set a 0 0 9999999 noreply
		>>*1428571 1234567
		>> 89\r\n
		> set a b 0 0 9 noreply
		> delete a 
		> incr x 1 noreply
		> stats queue
		< STAT a 1/0
		< END
	END
}

@test "pipelined commands are all answered, in order" {
	"$PYTHON" -c '
for i in range(2000): print("set a 0 0 4\r\n%04d\r\nget a\r\nversion\r" % i)' >"$BATS_TEST_TMPDIR/in"
	mkdir -p "$SPOOL"
	"$MQD" -N -H "$SPOOL" <"$BATS_TEST_TMPDIR/in" >"$BATS_TEST_TMPDIR/out"
	"$PYTHON" -c '
for i in range(2000): print("STORED\r\nVALUE a 0 4\r\n%04d\r\nEND\r\nVERSION 1.0.0\r" % i)' |
		cmp - "$BATS_TEST_TMPDIR/out"
}
