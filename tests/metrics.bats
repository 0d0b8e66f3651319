#!/usr/bin/env bats
# mqctl metrics: the figures are those of the spool, and to look at them changes nothing.

load helper

setup() {
	mkdir -m 700 "$SPOOL"
}

# value METRIC: the value of one, as it is named with its labels.
value() {
	ctl metrics | awk -v name="$1" 'index($0, name " ") == 1 { print substr($0, length(name) + 2) }'
}

# of METRIC QUEUE
of() {
	value "mqd_queue_$1{queue=\"$2\"}"
}

# shows VALUE METRIC QUEUE
shows() {
	[[ $(of "$2" "$3") == "$1" ]]
}

# sends TEXT: to the client of descriptor 8.
sends() {
	printf '%s\r\n' "$@" >&8
}

@test "what waits, is delayed, in flight, waited for, came back and died is told as it is" {
	ctl set q max_tries=2
	ctl set d delay=1h
	start_mqd
	talk_tcp <<-'END'
		> set q 0 0 5
		> hello
		< STORED
		> set q 0 0 3
		> abc
		< STORED
		> set q 0 0 3
		> abc
		< STORED
		> set d 0 0 1
		> x
		< STORED
	END
	[ "$(of waiting_messages q)" = 3 ]
	[ "$(of waiting_bytes q)" = 11 ]
	[ "$(of put_messages_total q)" = 3 ]
	[ "$(of taken_messages q)" = 0 ]
	[ "$(of delayed_messages d)" = 1 ]
	[ "$(of waiting_messages d)" = 0 ]
	[ "$(of oldest_age_seconds d)" = 0.000 ]
	touch -d '1 hour ago' "$SPOOL/q/0000000000000001"
	[[ $(of oldest_age_seconds q) =~ ^360[0-9]\.[0-9]{3}$ ]]

	exec 8<>"/dev/tcp/127.0.0.1/$PORT"
	sends 'get q/open'
	wait_for shows 1 in_flight_messages q
	[ "$(of waiting_messages q)" = 2 ]
	[ "$(of taken_messages q)" = 1 ]
	[ "$(of opened_messages_total q)" = 1 ]
	[ "$(value mqd_connections)" = 1 ]
	sends 'get q/abort' 'get empty/t=60000'
	wait_for shows 1 getters empty
	wait_for shows 1 redelivered_messages_total q
	[ "$(of aborted_messages_total q)" = 1 ]
	[ "$(of in_flight_messages q)" = 0 ]
	[ "$(of taken_messages q)" = 0 ]
	exec 8>&-
	wait_for shows 0 getters empty

	talk_tcp <<-'END'
		> get q/open
		< VALUE q/open 0 5
		< hello
		< END
		> get q/abort
		< END
		> get q
		< VALUE q 0 3
		< abc
		< END
	END
	[ "$(of dead_messages_total q)" = 1 ]
	[ "$(of waiting_messages q.dead)" = 1 ]
	ctl pause q
	[ "$(of paused q)" = 1 ]
	[ "$(of paused d)" = 0 ]
	[ "$(ctl flush q)" = 1 ]
	[ "$(of flushes_total q)" = 1 ]
	[ "$(value mqd_spool_queues)" = 4 ]
	[ "$(value mqd_set_commands_total)" = 4 ]
	[ "$(value mqd_stored_messages_total)" = 4 ]
	[ "$(value mqd_get_hits_total)" = 3 ]
	[ "$(value 'mqd_spool_status{status="up"}')" = 1 ]
	ctl status readonly
	[ "$(value 'mqd_spool_status{status="up"}')" = 0 ]
	[ "$(value 'mqd_spool_status{status="readonly"}')" = 1 ]
	[ "$(value mqd_spool_size_bytes)" = "$(($(stat -f -c '%b * %S' "$SPOOL")))" ]
}

@test "the log: what is not flushed yet, what waits for a checkpoint, when it was appended to" {
	[[ $MQD_BINARY != *portable* ]] || skip "there is no log without a boot id"
	[ -z "$(value mqd_log_size_bytes)" ]
	start_mqd -o sync=push
	local flushes
	talk_tcp <<-'END'
		> set q 0 0 1
		> x
		< STORED
		> set q 0 0 1
		> x
		< STORED
		> set q 0 0 1
		> x
		< STORED
	END
	[ "$(value mqd_log_unflushed_bytes)" = 0 ]
	[ "$(value mqd_log_failed)" = 0 ]
	[ "$(value mqd_log_waiting_bytes)" -ge 128 ]
	flushes=$(value mqd_log_flushes_total)
	talk_tcp <<-'END'
		> set q 0 0 1
		> x
		< STORED
	END
	[ "$(value mqd_log_flushes_total)" -gt "$flushes" ]
	# With sync=push nobody flushes a removal until a push is.
	talk_tcp <<-'END'
		> get q
		< VALUE q 0 1
		< x
		< END
	END
	[ "$(value mqd_log_unflushed_bytes)" -gt 0 ]
	[[ $(value mqd_log_appended_timestamp_seconds) =~ ^$(stat -c %Y "$SPOOL/.journal")\.[0-9]{3}$ ]]
	rm "$SPOOL/.sync" # made anew by who appends next
	[ -z "$(value mqd_log_size_bytes)" ]
	: >"$SPOOL/.journal"
	[ -z "$(value mqd_log_size_bytes)" ]
}

@test "a name is as clients have it if that is text, else as in the spool; no two look the same" {
	local name
	for name in 'a"b\c' 'é' 'a b' '%' '%41'; do
		printf x | ctl put "$name"
	done
	mkdir -m 700 "$SPOOL/%FF" "$SPOOL/%C0%80" "$SPOOL/%ED%A0%80" "$SPOOL/a%0Ab" "$SPOOL/%C2%85" "$SPOOL/%F0%9F%93%AC" "$SPOOL/A"
	run ctl metrics
	[ "$status" -eq 0 ]
	[ "$(sed -n 's/^mqd_queue_getters{queue="\(.*\)"} 0$/\1/p' <<<"$output" | LC_ALL=C sort)" = "$(LC_ALL=C sort <<'END'
a\"b\\c
é
a b
%25
%2541
A
%FF
%C0%80
%ED%A0%80
a%0Ab
%C2%85
📬
END
	)" ]
}

@test "as ls has them, with traffic, and with a state that is gone, torn, or of another boot" {
	local i
	for i in {1..20}; do
		printf '%d' "$i" | ctl put q
	done
	ctl get q >/dev/null
	ctl rm q 5
	sed -i 's/^boot ......../boot 00000000/' "$SPOOL/q/.state"
	[ "$(of waiting_messages q)" = 18 ]
	[ "$(of put_messages_total q)" = 20 ]
	cp "$SPOOL/q/.state" "$BATS_TEST_TMPDIR/state"
	head -c 500 "$BATS_TEST_TMPDIR/state" >"$SPOOL/q/.state"
	[ "$(of waiting_messages q)" = 18 ]
	[ "$(of waiting_bytes q)" = "$(cat "$SPOOL"/q/0* | wc -c | awk '{print $1 - 18 * 69}')" ]
	rm "$SPOOL/q/.state"
	[ "$(of waiting_messages q)" = 18 ]
	[ ! -e "$SPOOL/q/.state" ]
	[[ $(ctl ls q) =~ q\ +18\  ]]
	[ "$(of waiting_messages q)" = 18 ]
}

@test "while clients push and pop no state is read that never was" {
	start_mqd -o sync=none
	"$PYTHON" - "$PORT" "$MQCTL" "$SPOOL" <<'END'
import re, socket, subprocess, sys, threading
done = False

def traffic():
    s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    f = s.makefile("rb")
    while not done:
        s.sendall(b"set q 0 0 1\r\nx\r\nset q 0 0 1\r\nx\r\nget q\r\nget q\r\n")
        for _ in range(8):
            f.readline()

threads = [threading.Thread(target=traffic) for _ in range(2)]
for t in threads:
    t.start()
last, looks = 0, 0
while looks < 150:
    out = subprocess.run([sys.argv[2], "-H", sys.argv[3], "metrics"], capture_output=True, check=True, text=True).stdout
    figures = dict(re.findall(r'^mqd_queue_(\w+)\{queue="q"\} (\d+)', out, re.M))
    if not figures:
        continue # the first push has yet to make it
    looks += 1
    put, waiting = int(figures["put_messages_total"]), int(figures["waiting_messages"])
    assert put >= last and waiting <= 4 and int(figures["waiting_bytes"]) == waiting, figures
    assert int(figures["taken_messages"]) == put - waiting, figures
    last = put
done = True
for t in threads:
    t.join()
assert last > 100, last
END
}

@test "a queue that cannot be read is counted, and the others are told" {
	[[ $EUID -eq 0 ]] || skip "needs root, to be somebody else"
	printf x | ctl put q
	printf x | ctl put r
	chown nobody "$SPOOL"/{.,q} "$SPOOL/q/.state" "$SPOOL/.trash"
	chmod a+rx "$BATS_TEST_TMPDIR" "$BATS_RUN_TMPDIR" "$BATS_RUN_TMPDIR/test"
	run ctl metrics # becomes nobody
	[ "$status" -eq 0 ]
	[[ $output == *$'\nmqd_queue_waiting_messages{queue="q"} 1\n'* ]]
	[[ $output != *'queue="r"'* ]]
	[[ $output == *$'\nmqd_spool_queues 2\n'* ]]
	[[ $output == *$'\nmqd_spool_unreadable_queues 1\n'* ]]
}

@test "no spool is 111, an argument is 100, and closed output is told" {
	run "$MQCTL" -H "$SPOOL/missing" metrics
	[ "$status" -eq 111 ]
	run ctl metrics nonsense
	[ "$status" -eq 100 ]
	run bash -c '"$0" -H "$1" metrics >/dev/full' "$MQCTL" "$SPOOL"
	[ "$status" -eq 111 ]
	[[ $output == "mqctl: standard output"* ]]
}

@test "a thousand queues" {
	local i
	for ((i = 0; i < 1000; i++)); do
		mkdir -m 700 "$SPOOL/q$i"
	done
	[ "$(ctl metrics | grep -c '^mqd_queue_waiting_messages{')" -eq 1000 ]
	[ "$(printf 'GET /queues.json HTTP/1.0\n\n' | ctl http | grep -c '"encoded"')" -eq 1000 ]
}
