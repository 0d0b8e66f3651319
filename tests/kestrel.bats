#!/usr/bin/env bats
# What Kestrel's clients send beside set and get, as transcripts: words in capitals, flush,
# dump_stats, and the statistics of each queue. Many messages, and many queues.

load helper

# fill QUEUE N: N messages of five bytes, quickly.
fill() {
	mkdir -p "$SPOOL"
	"$PYTHON" -c 'import sys
print("set %s 0 0 5 noreply\r\nhello\r\n" % sys.argv[1] * int(sys.argv[2]), end="")' "$1" "$2" |
		"$MQD" -N -H "$SPOOL"
}

@test "words are matched without regard to case, queue names with it" {
	talk <<-'END'
		> SET q 7 0 5
		> hello
		< STORED
		> Set Q 0 0 5
		> other
		< STORED
		> sEt q 0 0 1 NOREPLY
		> x
		> GET q
		< VALUE q 7 5
		< hello
		< END
		> GETS Q q
		< VALUE Q 0 5 1
		< other
		< VALUE q 0 1 2
		< x
		< END
		> ADD q 0 0 5
		> GET q
		< NOT_STORED
		> DELETE Q NoReply
		> DELETE Q
		< NOT_FOUND
		> VERSION
		<~ VERSION .*
		> STATS QUEUE
		< STAT q 2/2
		< END
		> GETX q
		< ERROR
		> GE q
		< ERROR
		> QUIT
		<eof
	END
	[ "$(ls "$SPOOL")" = q ]
}

@test "a long line of names may begin with GET as well, and no other" {
	talk <<-'END'
		>> GET a
		>>*3000  aaa
		>> \r\n
		< END
		>> GeTs a
		>>*3000  aaa
		>> \r\n
		< END
		>> DUMP_STATS a
		>>*3000  aaa
		>> \r\n
		< CLIENT_ERROR line too long
		<eof
	END
}

@test "flush removes what waits, and the queue goes on" {
	talk <<-'END'
		> flush q
		< END
		> set q 0 0 1
		> a
		< STORED
		> set q 0 0 1
		> b
		< STORED
		> set other 0 0 1
		> o
		< STORED
		> FLUSH q
		< END
		> get q
		< END
		> stats queue
		< STAT other 1/0
		< STAT q 2/2
		< END
		> flush q
		< END
		> set q 0 0 1
		> c
		< STORED
		> gets q other
		< VALUE q 0 1 3
		< c
		< VALUE other 0 1 1
		< o
		< END
	END
	[ "$(count_messages q)" = 0 ]
	[ ! -e "$SPOOL/.trash" ] || [ -z "$(ls -A "$SPOOL/.trash")" ]
	[ -z "$("$MQCTL" -H "$SPOOL" check)" ]
}

@test "flush: what is refused removes nothing" {
	talk <<-'END'
		> set q 0 0 1
		> a
		< STORED
		> flush
		< ERROR
		> flush q x
		< ERROR
		> flush q noreply
		< ERROR
		> flush q/open
		<~ CLIENT_ERROR .*
		> flush_all
		< CLIENT_ERROR flush_all not allowed
		> FLUSH_ALL
		< CLIENT_ERROR flush_all not allowed
		> get q
		< VALUE q 0 1
		< a
		< END
	END
	[ ! -e "$SPOOL/x" ]
}

@test "flush of a queue that cannot be read is an error, of the system and not of the client" {
	mkdir -p "$SPOOL"
	echo >"$SPOOL/q"
	talk <<-'END'
		> flush q
		<~ SERVER_ERROR .*
		> dump_stats q
		< queue 'q' {
		< }
		< END
	END
}

@test "flush leaves holes, strangers and a state made anew as they should be" {
	fill q 1000
	# Removed by hand: a gap larger than what is looked through, at the head and behind it.
	rm "$SPOOL"/q/00000000000000{01..99} "$SPOOL"/q/0000000000000{300..600}
	printf 'set q 0 0 1\r\nx\r\nflush q\r\nget q\r\n' | "$MQD" -H "$SPOOL" >"$BATS_TEST_TMPDIR/out"
	[ "$(tr -d '\r' <"$BATS_TEST_TMPDIR/out")" = $'STORED\nEND\nEND' ]
	[ "$(count_messages q)" = 0 ]
	[ -z "$("$MQCTL" -H "$SPOOL" check)" ]
	fill q 200
	rm "$SPOOL/q/.state"
	[ "$("$MQCTL" -H "$SPOOL" flush q)" = 200 ]
	[ "$(count_messages q)" = 0 ]
	[ -z "$("$MQCTL" -H "$SPOOL" check)" ]
}

@test "a message that is being delivered is not flushed: it comes back" {
	mkdir -p "$SPOOL"
	# A reader that takes no more than a few bytes holds its message claimed.
	"$PYTHON" - "$MQD" "$SPOOL" <<-'END'
		import os, socket, subprocess, sys, time
		mqd, spool = sys.argv[1:]
		def run(text):
		    return subprocess.run([mqd, "-H", spool], input=text, stdout=subprocess.PIPE, check=True).stdout
		run(b"set q 0 0 1000000\r\n" + b"x" * 1000000 + b"\r\nset q 0 0 1\r\ny\r\n")
		ours, its = socket.socketpair()
		slow = subprocess.Popen([mqd, "-H", spool], stdin=its, stdout=its)
		its.close()
		ours.sendall(b"get q\r\n")
		assert ours.recv(5) == b"VALUE"
		dump = run(b"dump_stats q\r\n")
		assert b"  items=1\r\n" in dump and b"  open_transactions=1\r\n" in dump, dump
		assert run(b"flush q\r\n") == b"END\r\n"
		dump = run(b"dump_stats q\r\n")
		assert b"  items=0\r\n" in dump and b"  open_transactions=1\r\n" in dump, dump
		assert os.listdir(spool + "/q/.claim") == ["%016d" % 1]
		ours.close()
		slow.wait()
		end = time.monotonic() + 10
		while run(b"dump_stats q\r\n").find(b"  items=1\r\n") == -1:
		    assert time.monotonic() < end
		assert run(b"gets q\r\n").startswith(b"VALUE q 0 1000000 1\r\n")
	END
}

@test "messages pushed while a flush is at work stay, whoever takes meanwhile" {
	fill q 20000
	"$PYTHON" - "$MQD" "$SPOOL" <<-'END'
		import os, socket, subprocess, sys, time
		mqd, spool = sys.argv[1:]
		def connect():
		    ours, its = socket.socketpair()
		    process = subprocess.Popen([mqd, "-N", "-H", spool], stdin=its, stdout=its)
		    its.close()
		    return ours, ours.makefile("rb"), process
		flusher, replies, _ = connect()
		pusher, stored, _ = connect()
		flusher.sendall(b"flush q\r\n")
		flusher.setblocking(False)
		# What is pushed before it has begun is not spared.
		while os.path.exists(spool + "/q/%016d" % 1):
		    time.sleep(0.001)
		pushed, taken, done = 0, [], False
		while not done:
		    pusher.sendall(b"set q 0 0 3\r\nnew\r\nget q\r\n")
		    assert stored.readline() == b"STORED\r\n"
		    pushed += 1
		    line = stored.readline()
		    if line != b"END\r\n":
		        taken.append(stored.readline())
		        assert stored.readline() == b"END\r\n"
		    try:
		        done = flusher.recv(100) == b"END\r\n"
		        assert done
		    except BlockingIOError:
		        pass
		assert pushed > 1, "the flush let nobody in"
		# What was taken is old or new; of the new ones none but those is missing.
		pusher.sendall(b"get q\r\n" * (pushed + 1) + b"quit\r\n")
		left = stored.read().count(b"new\r\n")
		assert left + taken.count(b"new\r\n") == pushed, (left, len(taken), pushed)
	END
	[ "$(count_messages q)" = 0 ]
	[ -z "$("$MQCTL" -H "$SPOOL" check)" ]
}

@test "a queue deleted while it is flushed ends the flush; its successor is not touched" {
	fill q 3000
	# The flush is held up between two of its steps.
	printf 'flush q\r\n' | strace -qq -o /dev/null -e inject=nanosleep,clock_nanosleep:delay_enter=1s:when=1 \
		"$MQD_BINARY" -H "$SPOOL" >"$BATS_TEST_TMPDIR/out" 3>&- &
	local pid=$!
	flushing() { [ ! -e "$SPOOL/q/0000000000000001" ]; }
	wait_for flushing
	[ "$(printf 'delete q\r\n' | "$MQD" -H "$SPOOL")" = $'DELETED\r' ]
	fill q 500
	wait "$pid"
	[ "$(tr -d '\r' <"$BATS_TEST_TMPDIR/out")" = END ]
	[ "$(count_messages q)" = 500 ]
}

@test "dump_stats and the statistics of each queue, as Kestrel writes them" {
	talk <<-'END'
		> dump_stats
		< END
		> dump_stats q
		< queue 'q' {
		< }
		< END
		> set q 0 0 5
		> hello
		< STORED
		> set q 0 0 2
		> hi
		< STORED
		> set a'b 0 0 1
		> x
		< STORED
		> get q
		< VALUE q 0 5
		< hello
		< END
		> dump_stats
		< queue 'a'b' {
		<   items=1
		<   bytes=1
		<   total_items=1
		<   delayed=0
		<   expired_items=0
		<   discarded=0
		<~   age=[0-9]{1,5}
		<   waiters=0
		<   open_transactions=0
		<   transactions=0
		<   canceled_transactions=0
		<   redelivered=0
		<   dead=0
		<   total_flushes=0
		< }
		< queue 'q' {
		<   items=1
		<   bytes=2
		<   total_items=2
		<   delayed=0
		<   expired_items=0
		<   discarded=0
		<~   age=[0-9]{1,5}
		<   waiters=0
		<   open_transactions=0
		<   transactions=0
		<   canceled_transactions=0
		<   redelivered=0
		<   dead=0
		<   total_flushes=0
		< }
		< END
		> DUMP_STATS q nothing q
		< queue 'q' {
		<   items=1
		<   bytes=2
		<   total_items=2
		<   delayed=0
		<   expired_items=0
		<   discarded=0
		<~   age=[0-9]{1,5}
		<   waiters=0
		<   open_transactions=0
		<   transactions=0
		<   canceled_transactions=0
		<   redelivered=0
		<   dead=0
		<   total_flushes=0
		< }
		< queue 'nothing' {
		< }
		< queue 'q' {
		<   items=1
		<   bytes=2
		<   total_items=2
		<   delayed=0
		<   expired_items=0
		<   discarded=0
		<~   age=[0-9]{1,5}
		<   waiters=0
		<   open_transactions=0
		<   transactions=0
		<   canceled_transactions=0
		<   redelivered=0
		<   dead=0
		<   total_flushes=0
		< }
		< END
		> dump_stats q a/b
		< CLIENT_ERROR queue name may not contain a slash
	END
	[ ! -e "$SPOOL/nothing" ]
	# The age is that of the oldest message, in milliseconds.
	touch -d '2 hours ago' "$SPOOL/q/0000000000000002"
	touch -d 'next week' "$SPOOL/"a*b/0000000000000001
	printf 'stats\r\n' | "$MQD" -H "$SPOOL" | tr -d '\r' | grep ^STAT.queue_ >"$BATS_TEST_TMPDIR/stats"
	local age
	age=$(sed -n 's/^STAT queue_q_age //p' "$BATS_TEST_TMPDIR/stats")
	((age >= 7200000 && age < 7260000))
	[ "$(grep -E "_(items|bytes|open_transactions) |'b_age" "$BATS_TEST_TMPDIR/stats" | grep -v expired)" = "STAT queue_a'b_items 1
STAT queue_a'b_bytes 1
STAT queue_a'b_total_items 1
STAT queue_a'b_age 0
STAT queue_a'b_open_transactions 0
STAT queue_q_items 1
STAT queue_q_bytes 2
STAT queue_q_total_items 2
STAT queue_q_open_transactions 0" ]
}

@test "a queue with a name that cannot be sent is told as the spool has it" {
	mkdir -p "$SPOOL"
	printf x | "$MQCTL" -H "$SPOOL" put 'a b'
	talk <<-'END'
		> dump_stats
		< queue 'a%20b' {
		<   items=1
		<~ .*
		<~ .*
		<~ .*
		<~ .*
		<~ .*
		<~ .*
		<~ .*
		<~ .*
		<~ .*
		<~ .*
		<~ .*
		<~ .*
		<~ .*
		< }
		< END
	END
}

@test "pymemcache reads the statistics of each queue, pylibmc passes over them" {
	start_mqd
	"$PYTHON" - "$PORT" <<-'END'
		import sys
		import pylibmc
		from pymemcache.client.base import Client
		port = sys.argv[1]
		mq = Client(("127.0.0.1", int(port)), default_noreply=False, timeout=10)
		assert mq.set("q", b"hello") and mq.set("q", b"hi")
		stats = mq.stats()
		assert int(stats[b"queue_q_items"]) == 2 and int(stats[b"queue_q_bytes"]) == 7, stats
		other = pylibmc.Client(["127.0.0.1:" + port])
		stats = other.get_stats()[0][1]
		assert int({str(k).strip("b'"): v for k, v in stats.items()}["curr_items"]) == 2, stats
		assert other.get("q") == b"hello"
	END
}

@test "flush_all: refused, unless the spool's settings allow it" {
	talk <<-'END'
		> set q 0 0 1
		> a
		< STORED
		> set r 0 0 1
		> b
		< STORED
		> flush_all
		< CLIENT_ERROR flush_all not allowed
	END
	"$MQCTL" -H "$SPOOL" set / allow_flush_all=yes
	talk <<-'END'
		> flush_all 0
		< OK
		> get q r
		< END
		> set q 0 0 1
		> a
		< STORED
		> FLUSH_ALL noreply
		> get q
		< END
	END
}

# quickly LINE CMD...: run it with that line as its input, its output goes to the file `out`. It takes
# a third of a second here; this finds what takes seconds, whatever else the machine does meanwhile.
quickly() {
	"$PYTHON" - "$BATS_TEST_TMPDIR/out" "$@" <<-'END'
		import resource, subprocess, sys
		with open(sys.argv[1], "wb") as out:
		    subprocess.run(sys.argv[3:], input=sys.argv[2].encode() + b"\n", stdout=out, check=True)
		used = resource.getrusage(resource.RUSAGE_CHILDREN)
		assert used.ru_utime + used.ru_stime < 2, used
	END
}

@test "10,000 queues: statistics take little time, and few system calls for each" {
	native "figures of time"
	mkdir -p "$SPOOL"
	printf 'set q 0 0 1\r\nx\r\nget q\r\nset q 0 0 2\r\nyy\r\n' | "$MQD" -N -H "$SPOOL" | grep -c STORED
	"$PYTHON" - "$SPOOL" <<-'END'
		import os, sys
		spool = sys.argv[1]
		state = open(spool + "/q/.state", "rb").read()
		body = open(spool + "/q/" + "%016d" % 2, "rb").read()
		for i in range(9999):
		    name = spool + "/q%05d" % i
		    os.mkdir(name)
		    os.mkdir(name + "/.claim")
		    open(name + "/.state", "wb").write(state)
		    if i % 10 == 0:
		        open(name + "/" + "%016d" % 2, "wb").write(body)
	END
	local command calls
	for command in stats 'stats queue' dump_stats; do
		quickly "$command" "$MQD" -H "$SPOOL"
		tr -d '\r' <"$BATS_TEST_TMPDIR/out" >"$BATS_TEST_TMPDIR/${command/ /_}"
	done
	[ "$(grep -c '^STAT queue_q[0-9]*_total_items 2$' "$BATS_TEST_TMPDIR/stats")" = 10000 ]
	grep -qx 'STAT curr_items 10000' "$BATS_TEST_TMPDIR/stats"
	[ "$(grep -c '^STAT q[0-9]* 2/1$' "$BATS_TEST_TMPDIR/stats_queue")" = 10000 ]
	[ "$(grep -c '^  total_items=2$' "$BATS_TEST_TMPDIR/dump_stats")" = 10000 ]
	quickly '' "$MQCTL" -H "$SPOOL" ls
	[ "$(grep -c '^q' "$BATS_TEST_TMPDIR/out")" = 10000 ]
	# A tenth of them, for strace takes its time.
	mkdir "$SPOOL.few"
	mv "$SPOOL"/q00* "$SPOOL.few"
	for command in "$MQD_BINARY stats" "$MQCTL ls"; do
		set -- $command
		printf '%s\r\n' stats | strace -c -o "$BATS_TEST_TMPDIR/calls" "$1" -H "$SPOOL.few" \
			$([[ $2 == ls ]] && echo ls) >/dev/null
		calls=$(awk '$NF == "total" { print $4 }' "$BATS_TEST_TMPDIR/calls")
		echo "$command: $calls"
		((calls > 1000 && calls < 45 * 1000))
	done
}
