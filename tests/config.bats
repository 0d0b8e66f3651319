#!/usr/bin/env bats
# .config and the limits in it: every key and unit, precedence, changes, mistakes; and a queue
# never holds more than it may.

load helper

setup() {
	mkdir -p "$SPOOL"
}

# setting KEY [QUEUE]: the value in force and where it comes from, relative to the spool.
setting() {
	ctl config ${2:+"$2"} 2>/dev/null | sed -n "s,^$1  *,,p" | sed "s,$SPOOL/,,; s/  */ /"
}

# bodies QUEUE: of all messages that wait, in order, on one line.
bodies() {
	local f
	for f in "$SPOOL/$1"/0*; do
		[ -e "$f" ] && tail -n +2 "$f" && echo -n ' '
	done
}

# push QUEUE WORD...: a message for each word; prints the replies on one line.
push() {
	local queue=$1 word
	shift
	for word; do
		printf 'set %s 0 0 %d\r\n%s\r\n' "$queue" "${#word}" "$word"
	done | "$MQD" -H "$SPOOL" | tr -d '\r' | paste -sd ' '
}

# A client on one connection, for python: ask(line...) sends and returns the first line of the
# answer; push(word) the answer to a set of queue q.
CLIENT='
import os, socket, sys, time
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 20)
r = s.makefile("rb")
def ask(*lines):
    s.sendall(b"".join(l + b"\r\n" for l in lines))
    return r.readline().rstrip().decode()
def push(word):
    return ask(b"set q 0 0 %d" % len(word), word)
spool = sys.argv[2]
def write(text, file="q/.config"):
    with open(f"{spool}/new", "w") as f:
        f.write(text)
    os.rename(f"{spool}/new", f"{spool}/{file}")
    return time.monotonic()
# Everything that is sent more than a second after the change must be answered by it.
def seen(since, answer):
    while True:
        sent = time.monotonic()
        got = push(b"x")
        if got == answer:
            return
        assert sent - since < 1.0, f"{got} after {sent - since} s"
'

@test "values: every kind and unit, and what is none" {
	local kind text value
	make -s -C "$TOP" build/default/test-config
	while read -r kind text value; do
		run "$TOP/build/default/test-config" "$kind" "$text"
		[ "$output" = "$value" ] || { echo "$kind $text: $output, not $value"; false; }
	done <<-'END'
		count 0 0
		count 12 12
		count 9999999999999999 9999999999999999
		count 10000000000000000 wrong
		count 1k wrong
		count -1 wrong
		count +1 wrong
		count 0x10 wrong
		count 1.5 wrong
		size 0 0
		size 1000 1000
		size 3k 3072
		size 3K 3072
		size 2m 2097152
		size 2M 2097152
		size 1g 1073741824
		size 1G 1073741824
		size 1t wrong
		size k wrong
		size 1kb wrong
		size 9999999999999999g wrong
		time 0 0
		time 0s 0
		time 1500ms 1500
		time 30s 30000
		time 5m 300000
		time 2h 7200000
		time 7d 604800000
		time 5 wrong
		time 5w wrong
		time 5S wrong
		time ms wrong
		time 5sm wrong
		time 9999999999999999d wrong
		yes-no yes 1
		yes-no no 0
		yes-no Yes wrong
		yes-no 1 wrong
		yes-no true wrong
	END
	for kind in count size time yes-no; do
		[ "$("$TOP/build/default/test-config" "$kind" '')" = wrong ]
	done
}

@test "every key: its default, what it may be, and where" {
	[ "$(ctl config | wc -l)" = 16 ]
	[ "$(setting max_queues)" = "10000 default" ]
	[ "$(setting expire)/$(setting fanout_only)" = "no default/no default" ]
	[ "$(setting max_age)/$(setting open_timeout)" = "0ms default/0ms default" ]
	[ "$(setting max_tries)" = "0 default" ]
	[ "$(setting delay)/$(setting status)" = "0ms default/up default" ]
	[ "$(setting expire_to)/$(setting dead_letter)" = "- default/- default" ]
	[ "$(setting max_items)" = "0 default" ]
	[ "$(setting max_bytes)" = "0 default" ]
	[ "$(setting max_item_size)" = "0 default" ]
	[ "$(setting discard_old)" = "no default" ]
	[ "$(setting max_open)" = "1 default" ]
	[ "$(setting allow_flush_all)" = "no default" ]
	ctl set / max_items=1 max_bytes=2k max_item_size=1m discard_old=yes max_open=32 allow_flush_all=yes
	[ "$(setting max_items)" = "1 .config:1" ]
	[ "$(setting max_bytes)" = "2048 .config:2" ]
	[ "$(setting max_item_size)" = "1048576 .config:3" ]
	[ "$(setting discard_old)" = "yes .config:4" ]
	[ "$(setting max_open)" = "32 .config:5" ]
	[ "$(setting allow_flush_all)" = "yes .config:6" ]
	ctl set / delay=1m status=quiescent expire_to='old jobs' dead_letter=grave%20yard
	[ "$(setting delay)" = "60000ms .config:7" ]
	[ "$(setting status)" = "quiescent .config:8" ]
	[ "$(setting expire_to)" = "old%20jobs .config:9" ]
	[ "$(setting dead_letter)" = "grave%20yard .config:10" ]
	ctl set / dead_letter="$(printf 'x%.0s' {1..255})"
	[ "$(setting dead_letter)" = "$(printf 'x%.0s' {1..255}) .config:10" ]
	local wrong
	for wrong in max_items=x max_items=1k max_bytes=1t max_item_size=-1 discard_old=1 max_open=0 max_open=33 allow_flush_all=y nothing=1 max_items =1 \
		delay=30 delay=3651d status=down status=Up dead_letter=a/b expire_to="$(printf 'x%.0s' {1..256})"; do
		run ctl set / "$wrong"
		[ "$status" -eq 100 ] || { echo "$wrong: $status"; false; }
		[[ $output == "mqctl: .config: "* ]]
	done
	run ctl set q allow_flush_all=yes
	[ "$status" -eq 100 ]
	[[ $output == *"allow_flush_all: only in the spool's own .config" ]]
	[ ! -e "$SPOOL/q" ]
	[ "$(setting max_items)" = "1 .config:1" ]
}

@test "the queue's setting wins over the spool's, and that over the default" {
	printf 'max_items = 5\nmax_bytes=1k\n' >"$SPOOL/.config"
	push q x
	printf '\n # a comment\n\tmax_items = 2 # two\r\n' >"$SPOOL/q/.config"
	[ "$(setting max_items)" = "5 .config:1" ]
	[ "$(setting max_items q)" = "2 q/.config:3" ]
	[ "$(setting max_bytes q)" = "1024 .config:2" ]
	[ "$(setting max_item_size q)" = "0 default" ]
	[ "$(push q a b c)" = "STORED NOT_STORED NOT_STORED" ]
	[ "$(push r a b c d e f)" = "STORED STORED STORED STORED STORED NOT_STORED" ]
	ctl set q max_items=0
	[ "$(push q a b c d e f)" = "STORED STORED STORED STORED STORED STORED" ]
	run ctl config nothing
	[ "$status" -eq 1 ]
	ctl check
}

@test "a change is seen within a second by a connection that stays open" {
	start_mqd
	"$PYTHON" - "$PORT" "$SPOOL" <<-END
		$CLIENT
		assert push(b"x") == "STORED"
		seen(write("max_items = 1\n"), "NOT_STORED")
		seen(write("max_items = 100000\n"), "STORED")
		with open(spool + "/q/.config", "r+") as f:
		    f.write("max_items = 1     #\n")
		seen(time.monotonic(), "NOT_STORED")
		os.unlink(spool + "/q/.config")
		seen(time.monotonic(), "STORED")
		seen(write("max_items = 1\n", ".config"), "NOT_STORED")
		os.unlink(spool + "/.config")
		seen(time.monotonic(), "STORED")
	END
}

@test "the files are looked at twice, and then not more than once in a second" {
	local begin=$SECONDS looks
	for _ in {1..500}; do
		printf 'set q 0 0 1\r\nx\r\nget q\r\n'
	done >"$BATS_TEST_TMPDIR/in"
	strace -o "$BATS_TEST_TMPDIR/trace" -e trace=file "$MQD_BINARY" -N -H "$SPOOL" <"$BATS_TEST_TMPDIR/in" >"$BATS_TEST_TMPDIR/out"
	[ "$(grep -c STORED "$BATS_TEST_TMPDIR/out")" = 500 ]
	looks=$(grep -c '"\.config"' "$BATS_TEST_TMPDIR/trace")
	echo "$looks looks"
	[ "$looks" -ge 4 ]
	[ "$looks" -le $((2 * (3 + SECONDS - begin))) ]
	printf 'set q 0 0 1\r\nx\r\n' | strace -o "$BATS_TEST_TMPDIR/trace" -e trace=file "$MQD_BINARY" -N -H "$SPOOL"
	[ "$(grep -c '"\.config"' "$BATS_TEST_TMPDIR/trace")" = 2 ]
	printf 'get q\r\n' | strace -o "$BATS_TEST_TMPDIR/trace" -e trace=file "$MQD_BINARY" -N -H "$SPOOL"
	[ "$(grep -c '"\.config"' "$BATS_TEST_TMPDIR/trace")" = 1 ]
}

@test "mistakes: the old settings stay, check tells of all, the log of one and once" {
	start_mqd
	"$PYTHON" - "$PORT" "$SPOOL" <<-END
		$CLIENT
		assert push(b"x") == "STORED"
		seen(write("max_items = 1\n"), "NOT_STORED")
		begin = write("max_items = 9\nmax_itmes = 10\n")
		while time.monotonic() - begin < 1.5:
		    assert push(b"x") == "NOT_STORED"
		seen(write("max_items = 9\n"), "STORED")
	END
	[ "$(grep -c 'q/.config' "$BATS_TEST_TMPDIR/log")" = 1 ]
	grep -q 'mqd\[[0-9]*\]: q/\.config:2: max_itmes: no such key$' "$BATS_TEST_TMPDIR/log"
	printf '%s\n' '# fine' 'max_items' 'max_items = ' '= 5' 'max_items = 3' 'max_bytes = 5 k' 'max_items = 4' 'discard_old = maybe' 'max_open = 0' $'\e[31m = 1' 'allow_flush_all = yes' >"$SPOOL/q/.config"
	printf 'allow_flush_all = 1\nx' >"$SPOOL/.config"
	run ctl check
	[ "$status" -eq 1 ]
	diff - <(echo "$output") <<-'END'
		misconfigured .config:1: allow_flush_all: must be yes or no
		misconfigured .config:2: must be key = value
		misconfigured q/.config:2: must be key = value
		misconfigured q/.config:3: must be key = value
		misconfigured q/.config:4: must be key = value
		misconfigured q/.config:6: max_bytes: must be a size: digits, and k, m or g
		misconfigured q/.config:7: max_items: stands in line 5 already
		misconfigured q/.config:8: discard_old: must be yes or no
		misconfigured q/.config:9: max_open: must be from 1 to 32
		misconfigured q/.config:10: ?[31m: no such key
		misconfigured q/.config:11: allow_flush_all: only in the spool's own .config
	END
	# Who begins with such a file goes by the lines without a mistake.
	[ "$(setting max_items q)" = "3 q/.config:5" ]
	ctl flush q
	[ "$(push q a b c d 2>/dev/null)" = "STORED STORED STORED NOT_STORED" ]
	run ctl check --repair
	[ "$status" -eq 1 ]
	[ -s "$SPOOL/q/.config" ]
}

@test "no .config that is not a small regular file is opened, followed or waited for" {
	local odd what
	start_mqd
	"$PYTHON" - "$PORT" "$SPOOL" <<-END
		$CLIENT
		queues = ("directory", "fifo", "symlink", "dangling", "large", "nul")
		def push_to(q):
		    return ask(b"set %s 0 0 1" % q.encode(), b"x")
		for q in queues:
		    assert push_to(q) == "STORED"
		    write("max_items = 1\n", q + "/.config")
		for q in queues:
		    while push_to(q) == "STORED":
		        pass
		write("max_items = 5\n", "target")
		for q in queues:
		    name = f"{spool}/{q}/.config"
		    os.unlink(name)
		    if q == "directory":
		        os.mkdir(name)
		    elif q == "fifo":
		        os.mkfifo(name)
		    elif q == "large":
		        write("#" + "x" * 65535 + "\n", q + "/.config")
		    elif q == "nul":
		        write("max_items = 5\0\n", q + "/.config")
		    else:
		        os.symlink("../target" if q == "symlink" else "nowhere", name)
		begin = time.monotonic()
		while time.monotonic() - begin < 1.3:
		    for q in queues:
		        assert push_to(q) == "NOT_STORED"
	END
	run ctl check
	for odd in directory fifo symlink dangling large nul; do
		case $odd in
		large) what='.config: larger than 64 KiB' ;;
		nul) what='.config:1: max_items: must be a number' ;;
		*) what='.config: not a regular file' ;;
		esac
		[[ $output == *"misconfigured $odd/$what"* ]] || { echo "$odd: $output"; false; }
		[ "$(grep -c " $odd/$what\$" "$BATS_TEST_TMPDIR/log")" = 1 ]
		if [ "$odd" != nul ] && ctl set "$odd" max_items=7; then false; fi
	done
	ctl set nul max_items=7
	printf '#%65534s\n' '' >"$SPOOL/.config"
	[ "$(stat -c %s "$SPOOL/.config")" = 65536 ]
	run ctl check
	[[ $output != *"misconfigured .config"* ]]
}

# producers QUEUE N COUNT: N connections push COUNT messages of ten bytes each, all at once; prints
# how many were stored, and fails if one was neither stored nor refused.
producers() {
	"$PYTHON" - "$PORT" "$@" <<-'END'
		import socket, sys, threading
		port, q, n, count = int(sys.argv[1]), sys.argv[2].encode(), int(sys.argv[3]), int(sys.argv[4])
		start, stored, wrong = threading.Barrier(n), [0] * n, []
		def work(me):
		    s = socket.create_connection(("127.0.0.1", port), 60)
		    r = s.makefile("rb")
		    start.wait()
		    for i in range(count):
		        s.sendall(b"set %s 0 0 10\r\n%04d.%05d\r\n" % (q, me, i))
		        line = r.readline()
		        stored[me] += line == b"STORED\r\n"
		        if line not in (b"STORED\r\n", b"NOT_STORED\r\n"):
		            wrong.append(line)
		threads = [threading.Thread(target=work, args=(i,)) for i in range(n)]
		[t.start() for t in threads]
		[t.join() for t in threads]
		assert not wrong, wrong
		print(sum(stored))
	END
}

@test "50 producers at once: exactly as many as the limits allow" {
	start_mqd -N
	ctl set items max_items=777
	[ "$(producers items 50 40)" = 777 ]
	[ "$(count_messages items)" = 777 ]
	ctl set bytes max_bytes=5559
	[ "$(producers bytes 50 40)" = 555 ]
	[ "$(count_messages bytes)" = 555 ]
	ctl check
	[ -z "$(find "$SPOOL" -path '*/.tmp/*')" ]
}

@test "50 producers and discard_old: the newest stay, as many as may, and all count" {
	start_mqd -N
	ctl set q max_items=333 discard_old=yes
	[ "$(producers q 50 40)" = 2000 ]
	[ "$(count_messages q)" = 333 ]
	"$PYTHON" - "$SPOOL/q" <<-'END'
		import os, sys
		last, left = {}, [n for n in sorted(os.listdir(sys.argv[1])) if n[0] == "0"]
		assert [int(n) for n in left] == list(range(1668, 2001)), left
		for n in left:
		    who, i = map(int, open(os.path.join(sys.argv[1], n)).read()[69:].split("."))
		    assert last.get(who, i - 1) == i - 1, (who, i, last)
		    last[who] = i
		assert set(last.values()) == {39}, last
	END
	[[ $(ctl ls q | tail -n 1) =~ ^q\ +333\ +0\ +0\ +0\ +2000\ +1667\ +0\ +3330\  ]]
	ctl check
}

@test "max_item_size and max_bytes: too large a body is not even written" {
	ctl set / max_item_size=10k max_bytes=30k
	"$PYTHON" - >"$BATS_TEST_TMPDIR/in" <<-'END'
		import sys
		for n in (10240, 10241, 40000, 300000, 10240, 10240, 10240):
		    sys.stdout.write(f"set q 0 0 {n}\r\n" + "x" * n + "\r\n")
		sys.stdout.write("set new 0 0 300000 noreply\r\n" + "x" * 300000 + "\r\nversion\r\n")
	END
	strace -o "$BATS_TEST_TMPDIR/trace" "$MQD_BINARY" -H "$SPOOL" <"$BATS_TEST_TMPDIR/in" >"$BATS_TEST_TMPDIR/out"
	[ "$(tr -d '\r' <"$BATS_TEST_TMPDIR/out" | paste -sd ' ')" = "STORED NOT_STORED NOT_STORED NOT_STORED STORED STORED NOT_STORED VERSION 1.0.0" ]
	# Four bodies of 10,240 bytes came in, the last of which found the queue full.
	[ "$(grep -c 'pwrite.*xxxx.* = 10240$' "$BATS_TEST_TMPDIR/trace")" = 4 ]
	[ "$(count_messages q)" = 3 ]
	[ ! -e "$SPOOL/new" ]
	# The same for one that is small, and for mqctl.
	ctl set / max_item_size=4
	[ "$(push q abcd abcde)" = "NOT_STORED NOT_STORED" ]
	[ "$(push new abcde)" = NOT_STORED ]
	[ ! -e "$SPOOL/new" ]
	[ "$(push new abcd abcde)" = "STORED NOT_STORED" ]
	run ctl put new <<<abcdefg
	[ "$status" -eq 1 ]
	[[ $output == "mqctl: new: not stored, in 1 of 1 queues: "* ]]
	[ "$(bodies new)" = "abcd " ]
	ctl check
	[ -z "$(find "$SPOOL" -path '*/.tmp/*' -o -path '*/.claim/*')" ]
}

@test "a queue that was deleted takes its limits along, also for a connection that knew them" {
	start_mqd
	ctl set q max_item_size=5000
	"$PYTHON" - "$PORT" "$SPOOL" "$MQCTL" <<-END
		$CLIENT
		import subprocess
		assert push(b"x" * 5000) == "STORED"
		assert push(b"x" * 5001) == "NOT_STORED"
		subprocess.run([sys.argv[3], "-H", spool, "drop", "q"], check=True)
		assert push(b"x" * 5001) == "STORED"
	END
}

@test "discard_old drops the oldest until the new one fits, and nothing for one that cannot" {
	ctl set q max_bytes=10 max_items=4 discard_old=yes
	[ "$(push q 11 22 33 44 55)" = "STORED STORED STORED STORED STORED" ]
	[ "$(bodies q)" = "22 33 44 55 " ]
	push q seven77
	[ "$(bodies q)" = "55 seven77 " ]
	[ "$(push q eleven-11--)" = NOT_STORED ]
	[ "$(bodies q)" = "55 seven77 " ]
	[ "$(push q ten-ten-10)" = STORED ]
	[ "$(bodies q)" = "ten-ten-10 " ]
	[[ $(ctl ls q | tail -n 1) =~ ^q\ +1\ +0\ +0\ +0\ +7\ +6\ +0\ +10\  ]]
	ctl check
}

@test "a push that fails discards nothing" {
	ctl set q max_items=3 discard_old=yes
	push q 1 2 3
	printf 'set q 0 0 1\r\n4\r\n' | strace -o /dev/null -e inject=pwritev:error=ENOSPC "$MQD_BINARY" -H "$SPOOL" >"$BATS_TEST_TMPDIR/out" 2>/dev/null
	[[ $(<"$BATS_TEST_TMPDIR/out") == "SERVER_ERROR out of memory"* ]]
	[ "$(bodies q)" = "1 2 3 " ]
	push q 4
	[ "$(bodies q)" = "2 3 4 " ]
}

@test "killed at every system call of a push that discards: the newest are there, one more at most" {
	local call n left seen= template=$BATS_TEST_TMPDIR/template
	ctl set q max_items=3 discard_old=yes
	push q 1 2 3
	mv "$SPOOL" "$template"
	for call in linkat renameat renameat2 pwritev pwrite64 unlinkat fdatasync; do
		for n in {1..40}; do
			rm -rf "$SPOOL"
			cp -a "$template" "$SPOOL"
			printf 'set q 0 0 1\r\n4\r\n' | strace -o "$BATS_TEST_TMPDIR/trace" -e "inject=?$call:signal=KILL:when=$n" "$MQD_BINARY" -H "$SPOOL" >/dev/null 2>&1 || :
			grep -q 'killed by SIGKILL' "$BATS_TEST_TMPDIR/trace" || break
			left=$(bodies q)
			seen+="$left;"
			[[ $left == "1 2 3 " || $left == "1 2 3 4 " || $left == "2 3 4 " ]] || { echo "$call $n: $left"; false; }
			[ "$(push q 5)" = STORED ]
			left=$(bodies q)
			[[ $left == "2 3 5 " || $left == "3 4 5 " ]] || { echo "$call $n, then: $left"; false; }
			ctl check >/dev/null || ctl check --repair >/dev/null || ctl check
		done
	done
	# All three were seen, so the kills hit before, between and behind.
	[[ $seen == *"1 2 3 ;"* && $seen == *"1 2 3 4 ;"* && $seen == *";2 3 4 ;"* ]]
}

@test "a limit lowered below what waits: pushes are refused, and nothing else happens" {
	push q 1 2 3 4 5
	ctl set q max_items=2
	[ "$(push q 6)" = NOT_STORED ]
	[ "$(bodies q)" = "1 2 3 4 5 " ]
	[ "$(ctl get q)$(ctl get q)$(ctl get q)" = 123 ]
	[ "$(push q 6)" = NOT_STORED ]
	[ "$(ctl get q)" = 4 ]
	[ "$(push q 6 7)" = "STORED NOT_STORED" ]
	ctl set q max_items=0
	push q 7 8 9
	ctl set q max_items=2 discard_old=yes
	[ "$(bodies q)" = "5 6 7 8 9 " ]
	[ "$(push q 10)" = STORED ]
	[ "$(bodies q)" = "9 10 " ]
	ctl check
}

@test "max_queues: none is made beyond, by whatever would make one; the others go on" {
	ctl set / max_queues=3
	ctl set b max_items=9
	talk <<-'END'
		> set a 0 0 1
		> x
		< STORED
		> set b 0 0 1
		> x
		< STORED
		> set c 0 0 1
		> x
		< STORED
		> set d 0 0 1
		> x
		< SERVER_ERROR too many queues
		> set d 0 0 1 noreply
		> x
		> set d 0 0 100000
		>>*100000 x
		>
		< SERVER_ERROR too many queues
		> set d/delay=1 0 0 1
		> x
		< SERVER_ERROR too many queues
		> get d
		< END
		> get d/t=60000
		< SERVER_ERROR too many queues
		> get a+x
		< SERVER_ERROR too many queues
		> get a d b+x
		< VALUE a 0 1
		< x
		< END
		> monitor d 60
		< SERVER_ERROR too many queues
		> pause d 60
		< SERVER_ERROR too many queues
		> set a 0 0 1
		> y
		< STORED
		> delete b
		< DELETED
		> get d/t=1
		< END
		> set b 0 0 1
		> x
		< SERVER_ERROR too many queues
		> set d 0 0 1
		> x
		< STORED
		> get a c d
		< VALUE a 0 1
		< y
		< VALUE c 0 1
		< x
		< VALUE d 0 1
		< x
		< END
	END
	[ "$(cd "$SPOOL" && echo *)" = "a c d" ]
	[ ! -e "$SPOOL/.fanout" ]
	run ctl put e <<<x
	[ "$status" -eq 111 ]
	run ctl set e max_items=1
	[ "$status" -eq 111 ]
	[ "$(cd "$SPOOL" && echo *)" = "a c d" ]
	ctl set / max_queues=4
	[ "$(push e x)/$(push f x)" = "STORED/SERVER_ERROR too many queues" ]
	ctl set / max_queues=0
	[ "$(push f x)" = STORED ]
	# Lowered below what there is: all of them go on.
	ctl set / max_queues=1
	[ "$(push c x)/$(push g x)" = "STORED/SERVER_ERROR too many queues" ]
	run ctl set a max_queues=1
	[ "$status" -eq 100 ]
	ctl check
}

@test "max_queues: a queue whose dead letters, or expired ones, may not be made goes on" {
	ctl set q max_tries=1
	ctl set old expire=yes expire_to=gone
	ctl set / max_queues=2
	talk <<-'END'
		> set q 0 0 1
		> x
		< STORED
		> get q/open
		< VALUE q/open 0 1
		< x
		< END
		> get q/abort
		< END
		> get q
		< VALUE q 0 1
		< x
		< END
		> get q
		< END
		> set old 0 -1 1
		> x
		< STORED
		> get old
		< SERVER_ERROR no room where expired messages go
	END
	[ "$(cd "$SPOOL" && echo *)" = "old q" ]
	ctl set / max_queues=3
	[ "$(printf 'get old\r\n' | "$MQD" -H "$SPOOL")" = $'END\r' ]
	[ "$(bodies gone)" = "x " ]
	ctl check
}

@test "max_queues: seen within a second; just as many with 50 makers at once, and 500 refusals are one listing" {
	local listings
	start_mqd
	"$PYTHON" - "$PORT" "$SPOOL" <<-END
		$CLIENT
		def seen_for(since, answer):
		    n = 0
		    while True:
		        sent, n = time.monotonic(), n + 1
		        got = ask(b"set %d.%d 0 0 1" % (since * 1000, n), b"x")
		        if got == answer:
		            return
		        assert sent - since < 1.0, f"{got} after {sent - since} s"
		assert push(b"x") == "STORED"
		seen_for(write("max_queues = 1\n", ".config"), "SERVER_ERROR too many queues")
		seen_for(write("max_queues = 100000\n", ".config"), "STORED")
	END
	rm -r "$SPOOL"/* "$SPOOL/.config"
	ctl set / max_queues=77
	"$PYTHON" - "$PORT" <<-'END'
		import socket, sys, threading
		start, stored, wrong = threading.Barrier(50), [], []
		def work(me):
		    s = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 60)
		    r = s.makefile("rb")
		    start.wait()
		    for i in range(100):
		        # Half of the names are those of another, too.
		        name = b"n%d.%d" % (me // 2 if i % 2 else me, i)
		        s.sendall(b"set %s 0 0 1\r\nx\r\n" % name)
		        line = r.readline()
		        if line == b"STORED\r\n":
		            stored.append(name)
		        elif line != b"SERVER_ERROR too many queues\r\n":
		            wrong.append(line)
		threads = [threading.Thread(target=work, args=(i,)) for i in range(50)]
		[t.start() for t in threads]
		[t.join() for t in threads]
		assert not wrong, wrong
		assert len(set(stored)) == 77, len(set(stored))
	END
	[ "$(ls "$SPOOL" | wc -l)" = 77 ]
	ctl check
	local begin=$SECONDS
	for i in {1..500}; do
		printf 'set m%d 0 0 1\r\nx\r\n' "$i"
	done >"$BATS_TEST_TMPDIR/in"
	strace -o "$BATS_TEST_TMPDIR/trace" -e trace=getdents64 "$MQD_BINARY" -N -H "$SPOOL" <"$BATS_TEST_TMPDIR/in" >"$BATS_TEST_TMPDIR/out" 2>/dev/null
	[ "$(grep -c '^SERVER_ERROR too many queues' "$BATS_TEST_TMPDIR/out")" = 500 ]
	listings=$(grep -c ' = 0$' "$BATS_TEST_TMPDIR/trace")
	[ "$listings" -ge 1 ]
	[ "$listings" -le $((2 * (2 + SECONDS - begin))) ]
}

@test "messages removed by hand make room" {
	ctl set q max_items=4
	push q 1 2 3 4
	[ "$(push q 5)" = NOT_STORED ]
	rm "$SPOOL"/q/000000000000000[12]
	[ "$(push q 5 6 7)" = "STORED STORED NOT_STORED" ]
	[ "$(bodies q)" = "3 4 5 6 " ]
	rm "$SPOOL"/q/0*
	[ "$(push q 1 2 3 4 5)" = "STORED STORED STORED STORED NOT_STORED" ]
	ctl set q discard_old=yes
	rm "$SPOOL/q/$(ls "$SPOOL/q" | head -n 1)"
	push q 6
	[ "$(bodies q)" = "2 3 4 6 " ]
	ctl check
}

@test "mqctl set keeps what it does not change, and refuses what would be wrong" {
	ctl set q max_items=5
	cat >"$SPOOL/q/.config" <<-'END'
		# limits, see ticket 12
		max_items=5   # per hour

		  max_bytes = 1k
		discard_old = no
	END
	printf 'max_open = 2' >>"$SPOOL/q/.config"
	ctl set q max_items=70 max_bytes= max_open=3 max_item_size=9m
	diff - "$SPOOL/q/.config" <<-'END'
		# limits, see ticket 12
		max_items=70   # per hour

		discard_old = no
		max_open = 3
		max_item_size = 9m
	END
	[ "$(stat -c %a "$SPOOL/q/.config")" = 600 ]
	cp "$SPOOL/q/.config" "$BATS_TEST_TMPDIR/before"
	local wrong
	for wrong in max_items=x max_items nothing= nothing=1 =5 'max_items=5 # x' $'max_items=5\n'; do
		run ctl set q max_open=9 "$wrong"
		[ "$status" -eq 100 ] || { echo "$wrong: $status"; false; }
		cmp "$SPOOL/q/.config" "$BATS_TEST_TMPDIR/before"
	done
	run ctl set q
	[ "$status" -eq 100 ]
	# A file with a mistake is not written to, unless that mends it.
	printf 'max_itmes = 3\nmax_open = 0\n' >"$SPOOL/q/.config"
	run ctl set q max_items=3
	[ "$status" -eq 100 ]
	[[ ${lines[0]} == "mqctl: q/.config:1: max_itmes: no such key" ]]
	ctl set q max_items=3 max_itmes= max_open=1
	diff - "$SPOOL/q/.config" <<-'END'
		max_open = 1
		max_items = 3
	END
	ctl check
}

@test "mqctl set at the same time and killed: one whole file, no change lost" {
	local i call n
	for i in {1..10}; do
		ctl set q max_items="$i" &
		ctl set q max_bytes="$i" &
		ctl set q max_open="$i"
		wait
		[ "$(setting max_items q)" = "$i q/.config:$(grep -n max_items "$SPOOL/q/.config" | cut -d: -f1)" ]
		[[ $(setting max_bytes q) == "$i "* && $(setting max_open q) == "$i "* ]]
	done
	[ "$(wc -l <"$SPOOL/q/.config")" = 3 ]
	for call in write fsync rename renameat; do
		for n in 1 2; do
			ctl set q max_items=1
			strace -o "$BATS_TEST_TMPDIR/trace" -e "inject=?$call:signal=KILL:when=$n" "$MQCTL" -H "$SPOOL" set q max_items=2 >/dev/null 2>&1 || :
			[[ $(setting max_items q) == [12]" q/"* ]]
			[ "$(wc -l <"$SPOOL/q/.config")" = 3 ]
		done
	done
	touch -d '1 minute ago' "$SPOOL/.config.new" "$SPOOL/q/.config.new"
	run ctl check --repair
	[ "$(sort <<<"$output")" = "$(printf 'leftover %s: whoever wrote it has died\n' ./.config.new q/.config.new)" ]
	ctl check
}
