#!/usr/bin/env bats
# Many processes on one queue: everything once, in order, and only whole messages in sight.

load helper

setup() {
	make -s -C "$TOP" build/load
	LOAD=$TOP/build/load
}

@test "50 processes push and pop one queue: every message exactly once" {
	start_mqd -N
	run "$BATS_TEST_DIRNAME/order" "$PORT" 25 25 400
	echo "$output"
	[ "$status" -eq 0 ]
	"$MQCTL" -H "$SPOOL" check
}

@test "50 producers, one consumer: in order for each producer" {
	start_mqd -N
	run "$BATS_TEST_DIRNAME/order" "$PORT" 50 1 100
	echo "$output"
	[ "$status" -eq 0 ]
	[[ $output == *"in order"* ]]
	printf 'stats queue\r\n' | "$MQD" -H "$SPOOL" | grep -q '^STAT q 5000/5000'
}

@test "the same synced, and with the portable paths" {
	make -s -C "$TOP" PORTABLE=1 >/dev/null
	start_mqd
	"$BATS_TEST_DIRNAME/order" "$PORT" 20 1 50
	stop_mqd
	MQD=$TOP/build/portable/mqd start_mqd -N
	"$BATS_TEST_DIRNAME/order" "$PORT" 25 25 200
	"$BATS_TEST_DIRNAME/order" "$PORT" 25 1 100
	"$MQCTL" -H "$SPOOL" check
}

@test "ls and cat of a busy queue show whole messages only" {
	start_mqd -N
	run "$BATS_TEST_DIRNAME/watch" "$PORT" "$SPOOL" "${WATCH_SECONDS:-8}"
	echo "$output"
	[ "$status" -eq 0 ]
}

@test "queues made and deleted by many at once" {
	start_mqd -N
	"$PYTHON" - "$PORT" <<-'END'
		import multiprocessing, random, socket, sys
		def work(seed):
		    rnd, s = random.Random(seed), socket.create_connection(("127.0.0.1", int(sys.argv[1])), 20)
		    r = s.makefile("rb")
		    for i in range(300):
		        q = b"q%d" % rnd.randrange(3)
		        c = rnd.randrange(4)
		        if c < 2:
		            s.sendall(b"set %s 0 0 4\r\nbody\r\n" % q)
		            assert r.readline() == b"STORED\r\n"
		        elif c == 2:
		            s.sendall(b"get %s\r\n" % q)
		            line = r.readline()
		            if line != b"END\r\n":
		                assert line == b"VALUE %s 0 4\r\n" % q, line
		                assert r.readline() == b"body\r\n" and r.readline() == b"END\r\n"
		        else:
		            s.sendall(b"delete %s\r\n" % q)
		            assert r.readline() in (b"DELETED\r\n", b"NOT_FOUND\r\n")
		with multiprocessing.Pool(12) as pool:
		    pool.map(work, range(12), 1)
	END
	"$MQCTL" -H "$SPOOL" check
}

@test "20 connections, many messages, workers killed at random: nothing acknowledged is lost" {
	run env MQD="$MQD" COUNT=20000 "$TOP/bench/kill"
	echo "$output"
	[ "$status" -eq 0 ]
}
