#!/usr/bin/env bats
# mqctl import from servers, and export and import as a stream.

load helper

setup() {
	mkdir -p "$SPOOL"
	OTHER=$BATS_TEST_TMPDIR/other
	mkdir -p "$OTHER"
	STANDIN_PID='' FROM='' MEMORY=''
}

teardown() {
	stop_mqd
	! mountpoint -q "$SPOOL" || umount -l "$SPOOL"
	[[ -z $MEMORY ]] || rm -r "$MEMORY"
	if [[ -n $STANDIN_PID ]]; then
		stop "$STANDIN_PID"
	fi
}

# stand_in [option...] [queue=count...]: a server with memcacheq's protocol on port FROM.
stand_in() {
	local options=()
	while [[ ${1:-} == --* ]]; do
		options+=("$1" "$2")
		shift 2
	done
	FROM=${FROM:-$(free_port)}
	"$BATS_TEST_DIRNAME/stand-in" "${options[@]}" "$FROM" "$@" 3>&- &
	STANDIN_PID=$!
	wait_for listening "$FROM"
}

# end_stand_in: and its port may be another's.
end_stand_in() {
	stop "$STANDIN_PID"
	STANDIN_PID=
}

# in_memory: MEMORY is a folder where a flush costs nothing, if there is such. Thousands of them on a disk
# that others flush, too, can take minutes.
in_memory() {
	[[ -w /dev/shm ]] && MEMORY=$(mktemp -d /dev/shm/mqd-transfer.XXXXXX) || MEMORY=$(mktemp -d)
}

# other ARG...: mqctl on the other spool.
other() {
	"$MQCTL" -H "$OTHER" "$@"
}

# at_least N: so many messages are in the spool.
at_least() {
	[[ $(find "$SPOOL" -name '0*' -path "$SPOOL/[a-e]/0*" | wc -l) -ge $1 ]]
}

# seeds COUNT: the queues a to e hold each of the stand-in's messages once, in order.
seeds() {
	"$PYTHON" - "$SPOOL" "$1" "$BATS_TEST_DIRNAME/stand-in" <<-'END'
		import os, sys
		spool, count = sys.argv[1], int(sys.argv[2])
		source = open(sys.argv[3]).read()
		exec(source[source.index("def body"):source.index("class Handler")])
		for queue in "abcde":
		    names = sorted(n for n in os.listdir(spool + "/" + queue) if not n.startswith("."))
		    assert len(names) == count, (queue, len(names))
		    for i, name in enumerate(names):
		        data = open("%s/%s/%s" % (spool, queue, name), "rb").read()
		        assert data[69:] == body(queue, i, 0), (queue, name, data[:100])
		        assert int(data[32:42]) == i, (queue, name, data[:69])
	END
}

@test "10,000 messages of a memcacheq in 5 queues, interrupted twice" {
	in_memory
	SPOOL=$MEMORY/spool
	mkdir -m 700 "$SPOOL"
	if [[ -n ${MEMCACHEQ:-} ]]; then
		FROM=$(free_port)
		mkdir "$BATS_TEST_TMPDIR/bdb"
		"$MEMCACHEQ" -u "$(id -un)" -l 127.0.0.1 -p "$FROM" -H "$BATS_TEST_TMPDIR/bdb" -N -B 80000 3>&- &
		STANDIN_PID=$!
		wait_for listening "$FROM"
		"$PYTHON" - "$FROM" "$BATS_TEST_DIRNAME/stand-in" <<-'END'
			import socket, sys
			source = open(sys.argv[2]).read()
			exec(source[source.index("def body"):source.index("class Handler")])
			s = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 10)
			f = s.makefile("rb")
			for n in range(2000):
			    for q in "abcde":
			        data = body(q, n, 0)
			        s.sendall(b"set %s %d 0 %d\r\n%s\r\n" % (q.encode(), n, len(data), data))
			        assert f.readline() == b"STORED\r\n"
		END
	else
		stand_in a=2000 b=2000 c=2000 d=2000 e=2000
	fi
	local stop pid
	for stop in 1000 3000; do
		"$MQCTL" -H "$SPOOL" import "memcacheq://127.0.0.1:$FROM" >"$BATS_TEST_TMPDIR/out" 2>&1 3>&- &
		pid=$!
		until wait_for at_least "$stop"; do # a disk that others flush, too, may be slow
			kill -0 "$pid"
		done
		kill -INT "$pid"
		status=0
		wait "$pid" || status=$?
		[ "$status" -eq 111 ]
		grep -q 'interrupted; [0-9]* were taken, run it again' "$BATS_TEST_TMPDIR/out"
	done
	run ctl import "memcacheq://127.0.0.1:$FROM"
	[ "$status" -eq 0 ]
	[[ $output =~ ^[0-9]+$ ]] # no progress where nobody looks
	seeds 2000
	[ ! -e "$SPOOL/.import" ]
	ctl check
	[ "$(ctl import "memcacheq://127.0.0.1:$FROM")" = 0 ]
}

@test "on a terminal it shows how far it is, and takes that away" {
	in_memory
	SPOOL=$MEMORY/spool
	mkdir -m 700 "$SPOOL"
	stand_in a=5000
	TERM=xterm script -qec "'$MQCTL' -H '$SPOOL' import memcacheq://127.0.0.1:$FROM" /dev/null >"$BATS_TEST_TMPDIR/screen" </dev/null
	grep -q 'taking a' "$BATS_TEST_TMPDIR/screen"
	[[ $(tail -c 20 "$BATS_TEST_TMPDIR/screen") == *5000* ]]
}

@test "flags are kept, padding only if it is not to be stripped; some queues alone" {
	stand_in --pad 80 a=9 b=3
	[ "$(ctl import "memcacheq://127.0.0.1:$FROM" a)" = 9 ]
	[ ! -e "$SPOOL/b" ]
	[ "$(ctl cat a 2 | wc -c)" = 80 ]
	[[ $(head -c 42 "$SPOOL/a/0000000000000003") == *0000000002 ]]
	[ "$(ctl import --strip-padding "memcache://127.0.0.1:$FROM")" = 3 ]
	[ "$(ctl cat b 2)" = "b 1" ]
	[ "$(ctl cat b 2 | wc -c)" = 3 ]
	[ "$(stat -c %s "$SPOOL/b/0000000000000002")" = 72 ]
	ctl check
}

@test "another mqd's messages: none is lost, and what is open or delayed stays there" {
	SPOOL=$OTHER start_mqd
	talk_tcp <<-'END'
		> set q 7 0 1
		> a
		< STORED
		> set q 8 0 3
		> b
		>
		< STORED
		> set x+y/delay=600 0 0 1
		> d
		< STORED
	END
	head -c 300000 /dev/urandom >"$BATS_TEST_TMPDIR/big"
	other put %2Ehidden <"$BATS_TEST_TMPDIR/big"
	[ "$(ctl import "memcache://127.0.0.1:$PORT")" = 3 ]
	ctl cat .hidden 1 | cmp - "$BATS_TEST_TMPDIR/big"
	[ "$(ctl get q)" = a ]
	[ "$(ctl get q)" = $'b\r' ]
	# It was opened and closed there, not just taken.
	[ "$(printf 'stats\r\n' | "$MQD" -H "$OTHER" | tr -d '\r' | awk '$2 == "queue_q_transactions" {print $3}')" = 2 ]
	[[ $(other ls x+y) =~ x\+y\ +0\ +1\  ]]
	ctl check
	other check
}

@test "a server that lies: told, nothing foreign stored, nothing waited for" {
	unsanitized "its memory is limited"
	local lie
	native "address space is limited"
	for lie in cut length huge toolong line key words endless; do
		stand_in --lie "$lie" a=5
		run timeout 20 bash -c 'ulimit -v 100000; exec "$MQCTL" -H "$SPOOL" import "memcacheq://127.0.0.1:$1"' - "$FROM"
		echo "$lie: $output"
		[ "$status" -eq 111 ]
		[[ $output == *"not the protocol"* || $output == *"closed the connection"* ]]
		end_stand_in
	done
	[ "$(count_messages a)" = 2 ] # of cut
	[ ! -e "$SPOOL/q" ]           # of endless
	[ "$(ctl get a)" = "a 0" ]
	# What the last but one left is no hindrance.
	stand_in --lie huge a=5
	run ctl import "memcacheq://127.0.0.1:$FROM"
	[ "$status" -eq 111 ]
	end_stand_in
	stand_in a=5
	run ctl import "memcacheq://127.0.0.1:$FROM"
	[ "$status" -eq 0 ]
	[[ $output == *"a: if a message was coming in when this was killed it is lost"*"3 bytes of it were here"* ]]
	[ "$(count_messages a)" = 6 ]
	[ ! -e "$SPOOL/.import" ]
	ctl check
}

@test "names that cannot be here stay there, and are told; a server that is not there" {
	stand_in --lie names a=2
	run ctl import "memcacheq://127.0.0.1:$FROM"
	[ "$status" -eq 1 ]
	[[ $output == *"a/b: cannot be a queue here"*"c d: cannot be a queue here"* ]]
	[ "$(ctl get "$(printf '\303\251%.0s' {1..25})" || :)" = "" ]
	[ "$(count_messages a)" = 2 ]
	[ "$(find "$SPOOL" -maxdepth 1 -type d -not -name '.*' | wc -l)" = 2 ]
	run ctl import "memcacheq://127.0.0.1:$(free_port)"
	[ "$status" -eq 111 ]
	local args
	for args in memcacheq://nonsense http://127.0.0.1:1 memcacheq://127.0.0.1:0 'a b' --strip-padding memcacheq://::1:5; do
		# shellcheck disable=SC2086
		run ctl import $args
		[ "$status" -eq 100 ] || { echo "$args: $status"; false; }
	done
}

@test "a full queue: what was taken waits in .import, and goes first" {
	ctl set a max_items=2
	stand_in a=5
	run ctl import "memcacheq://127.0.0.1:$FROM"
	[ "$status" -eq 111 ]
	[[ $output == *"a: full; one message waits in .import/from,127.0.0.1,$FROM/a"* ]]
	run ctl check
	[ "$status" -eq 1 ]
	[ "$output" = "unfinished .import/from,127.0.0.1,$FROM/a/1: taken from a server; run the import again" ]
	# Not while an import has it.
	flock "$SPOOL/.import/from,127.0.0.1,$FROM/a" "$MQCTL" -H "$SPOOL" check
	ctl set a max_items=
	[ "$(ctl import "memcacheq://127.0.0.1:$FROM")" = 2 ]
	[ "$(count_messages a)" = 5 ]
	[ "$(for i in 1 2 3 4 5; do ctl get a; done)" = $'a 0a 1a 2a 3a 4' ] || [ "$(count_messages a)" = 0 ]
	[ ! -e "$SPOOL/.import" ]
}

@test "what was taken from a server that forgets is not lost where another stands in its place" {
	ctl set a max_items=1
	stand_in a=2
	run ctl import "memcacheq://127.0.0.1:$FROM"
	[ "$status" -eq 111 ]
	end_stand_in
	printf there | other put a
	"$MQD" -H "$OTHER" -l 127.0.0.1 -p "$FROM" -u root 3>&- &
	MQD_PID=$!
	wait_for listening "$FROM"
	# The other way round: what the server has still is not told to wait here.
	run ctl import "mqd://127.0.0.1:$FROM"
	[ "$status" -eq 111 ]
	[[ $output == *"a: full; one message waits in .import/"* ]]
	ctl set a max_items=2
	run ctl import "mqd://127.0.0.1:$FROM"
	[ "$status" -eq 111 ]
	[[ $output == *"a: full; 0 were taken, run it again"* ]]
	[ ! -e "$SPOOL/.import" ]
	ctl set a max_items=
	wait_for eval '[ "$(ctl import "mqd://127.0.0.1:$FROM")" = 1 ]' # once the server has noticed
	[ "$(ctl get a; ctl get a; ctl get a)" = "a 0a 1there" ]
}

@test "a server that accepts no connection is waited for a minute" {
	native "strace cannot be nested"
	run strace -qq -o "$BATS_TEST_TMPDIR/trace" -e trace=connect,setsockopt -e inject=connect:error=EINPROGRESS "$MQCTL" -H "$SPOOL" import memcacheq://127.0.0.1:1
	[ "$status" -eq 111 ]
	[[ $output == *"the server does not answer"* ]]
	[[ $(head -n 1 "$BATS_TEST_TMPDIR/trace") == *SO_SNDTIMEO* ]]
	[[ $(sed -n 2p "$BATS_TEST_TMPDIR/trace") == connect* ]]
}

@test "what a server says does nothing to a terminal" {
	stand_in --lie error
	run ctl import "memcacheq://127.0.0.1:$FROM"
	[ "$status" -eq 111 ]
	[[ $output == *"a%C2%9B31m: it says: SERVER_ERROR ??31m no"* ]]
	[[ $output != *$'\302\233'* ]]
	# Nor what it said to one that was killed.
	mkdir -p "$SPOOL/.import/from,127.0.0.1,$FROM/a%C2%9B31m"
	touch "$SPOOL/.import/from,127.0.0.1,$FROM/a%C2%9B31m/new"
	run ctl import "memcacheq://127.0.0.1:$FROM"
	[[ $output == *"a%C2%9B31m: if a message was coming in"* ]]
	[[ $output != *$'\302\233'* ]]
}

# a_spool: in OTHER, with something of everything.
a_spool() {
	printf one | other put q
	printf 'two\nlines' | other put q
	printf 'set q/delay=600 5 0 3\r\nlat\r\nset e 4294967295 4000000000 1\r\nx\r\n' | "$MQD" -H "$OTHER" >/dev/null
	head -c 200000 /dev/urandom | other put big
	printf dead | other put q.dead
	printf long | other put "$(printf 'x%.0s' {1..255})"
	printf odd | other put 'o d%d'
	other set q max_items=7
	other set / max_tries=3
	other set e expire=yes
	printf 'set e 3 4000000000 1\r\ny\r\n' | "$MQD" -H "$OTHER" >/dev/null
	mkdir "$OTHER/empty"
}

# same_spools: the same messages with the same headers, but for their numbers, and settings.
same_spools() {
	"$PYTHON" - "$OTHER" "$SPOOL" <<-'END'
		import os, sys
		def look(spool):
		    found = {}
		    for top, dirs, files in os.walk(spool):
		        where = os.path.relpath(top, spool)
		        if "/.claim" in where or where.startswith((".import", ".trash", ".fanout")):
		            continue
		        found[where if ".delay" not in where else where.split("/")[0] + "/late"] = sorted(
		            (f if f == ".config" else "", open(top + "/" + f, "rb").read()[20:60 if f != ".config" else None],
		             open(top + "/" + f, "rb").read()[69:]) for f in files if f == ".config" or f.startswith("0"))
		    return {k: v for k, v in found.items() if v or "/" not in k}
		a, b = map(look, sys.argv[1:])
		assert len(a) > 6 and a == b, (a, b)
	END
}

@test "export and import: everything is there again, once, with flags, expiry, delay and settings" {
	a_spool
	other export >"$BATS_TEST_TMPDIR/tar"
	other export | cmp - "$BATS_TEST_TMPDIR/tar"
	[ "$(ctl import <"$BATS_TEST_TMPDIR/tar")" = 9 ]
	same_spools
	ctl check
	other check
	run ctl import - <"$BATS_TEST_TMPDIR/tar"
	[ "$status" -eq 1 ]
	[[ $output == *"imported before"* ]]
	same_spools
	# The settings of a queue that has some stay.
	other export q | ctl import 2>"$BATS_TEST_TMPDIR/err"
	grep -q 'q/.config: there is one already' "$BATS_TEST_TMPDIR/err"
	[[ $(ctl ls q) =~ q\ +4\ +2\  ]]
}

@test "an export is a tar archive, which others read and write" {
	a_spool
	other export >"$BATS_TEST_TMPDIR/tar"
	mkdir "$BATS_TEST_TMPDIR/x"
	tar xf "$BATS_TEST_TMPDIR/tar" -C "$BATS_TEST_TMPDIR/x" 2>/dev/null
	cmp "$BATS_TEST_TMPDIR/x/q/0000000000000002" "$OTHER/q/0000000000000002"
	cmp "$BATS_TEST_TMPDIR/x/big/0000000000000001" "$OTHER/big/0000000000000001"
	cmp "$BATS_TEST_TMPDIR/x/$(printf 'x%.0s' {1..255})/0000000000000001" "$OTHER/$(printf 'x%.0s' {1..255})/0000000000000001"
	"$PYTHON" -c 'import sys, tarfile; assert len(tarfile.open(sys.argv[1]).getnames()) == 20' "$BATS_TEST_TMPDIR/tar"
	tar cf - --format=pax -C "$BATS_TEST_TMPDIR/x" mqd-export q big | ctl import
	ctl cat big 1 | cmp - <(other cat big 1)
	[ "$(ctl cat q 2)" = $'two\nlines' ]
}

@test "export beside traffic: what waited and was not delivered is in it, once" {
	local i
	for i in {1..300}; do printf 'set q 0 0 3\r\n%03d\r\n' "$i"; done | "$MQD" -N -H "$OTHER" >/dev/null
	SPOOL=$OTHER start_mqd -N
	for i in {1..5}; do
		for _ in {1..30}; do printf 'get q\r\n'; done | "$MQD" -N -H "$OTHER" >"$BATS_TEST_TMPDIR/got$i" &
		other export >"$BATS_TEST_TMPDIR/tar$i"
		wait "$!"
		tar xOf "$BATS_TEST_TMPDIR/tar$i" --wildcards 'q/0*' | grep -ao '^[0-9]\{3\}mq1\|^[0-9]\{3\}$' | sort | uniq -d >"$BATS_TEST_TMPDIR/twice"
		[ ! -s "$BATS_TEST_TMPDIR/twice" ]
		# All that still wait are in it.
		tar tf "$BATS_TEST_TMPDIR/tar$i" | grep '^q/0' | sed 's,q/,,' | sort >"$BATS_TEST_TMPDIR/in"
		[ -z "$(ls "$OTHER/q" | sort | comm -23 - "$BATS_TEST_TMPDIR/in")" ]
	done
	other check
}

@test "a full disk: a message of memcacheq's waits until there is room" {
	[[ $EUID -eq 0 ]] || skip "mount needs root"
	mount -t tmpfs -o size=300k none "$SPOOL" || skip "no tmpfs here"
	chmod 700 "$SPOOL"
	head -c 230000 /dev/zero >"$BATS_TEST_TMPDIR/zeros"
	cp "$BATS_TEST_TMPDIR/zeros" "$SPOOL/.filler"
	stand_in a=20
	"$MQCTL" -H "$SPOOL" import "memcacheq://127.0.0.1:$FROM" >"$BATS_TEST_TMPDIR/out" 2>&1 3>&- &
	local pid=$!
	wait_for grep -q 'the disk is full, and a message is on its way' "$BATS_TEST_TMPDIR/out" || cat "$BATS_TEST_TMPDIR/out"
	rm "$SPOOL/.filler"
	wait "$pid"
	[ "$(count_messages a)" = 20 ]
	[ "$(ctl cat a 8 | wc -c)" -gt 70000 ]
	umount "$SPOOL"
}

@test "a stream that is none, or damaged, or of a newer format, is refused" {
	local n
	a_spool
	other export q e >"$BATS_TEST_TMPDIR/tar"
	"$PYTHON" - "$BATS_TEST_TMPDIR" <<-'END'
		import io, sys, tarfile
		base = sys.argv[1]
		with tarfile.open(base + "/tar") as t:
		    members = [(m, t.extractfile(m).read() if m.isfile() else None) for m in t]
		def write(name, change):
		    with tarfile.open(base + "/" + name, "w", format=tarfile.USTAR_FORMAT) as t:
		        for m, data in members:
		            m, data = change(m, data)
		            m.size = len(data or b"")
		            t.addfile(m, data and io.BytesIO(data))
		def one(name):
		    def change(m, data):
		        m = tarfile.TarInfo(name) if m.name.endswith("/0000000000000002") else m
		        return m, data
		    return change
		def text(old, new):
		    return lambda m, data: (m, data and data.replace(old, new))
		for i, name in enumerate(("../x/0000000000000001", "/etc/0000000000000001", "q/../../0000000000000001", "q/1",
		                          ".state", "q/.state", ".claim/0000000000000001", "a%41/0000000000000001",
		                          "q/.delay/1/0000000000000001", "q/0000000000000009")):
		    write("name%d" % i, one(name))
		write("crc", text(b"two", b"tow"))
		write("short", lambda m, data: (m, data[:-1] if m.name.endswith("/0000000000000002") else data))
		write("new-message", text(b"mq1 0000000000000002", b"mq2 0000000000000002"))
		write("new-stream", text(b"mqd export 1", b"mqd export 2"))
		write("no-id", text(b"\nid ", b"\nno "))
		def link(m, data):
		    if m.name.endswith("/0000000000000002"):
		        m = tarfile.TarInfo(m.name)
		        m.type, m.linkname, data = tarfile.SYMTYPE, "/etc/passwd", None
		    return m, data
		write("link", link)
	END
	for n in name{0..9} crc short new-message new-stream no-id link; do
		rm -rf "$SPOOL"
		mkdir "$SPOOL"
		run ctl import <"$BATS_TEST_TMPDIR/$n"
		echo "$n: $output"
		[ "$status" -eq 111 ]
		[[ $output == mqctl:\ import:* ]]
		[[ $n != new-message || $output == *"format mq2; this mqctl knows mq1" ]]
		[[ $n != new-stream || $output == *"format 2; this mqctl knows format 1" ]]
		[ ! -e "$SPOOL/q/0000000000000002" ]
		[ -z "$(find "$SPOOL" -mindepth 1 -maxdepth 1 -regextype posix-extended -not -regex '.*/(q|e|\.(import|trash|journal|sync))')" ]
		ctl check
	done
	[ "$(find "$BATS_TEST_TMPDIR" -maxdepth 1 -name x)" = "" ]
	# Cut off anywhere, and then whole.
	rm -rf "$SPOOL"
	mkdir "$SPOOL"
	for n in 0 100 512 1024 1536 2100 3000 4000 5000 6000; do
		run ctl import < <(head -c "$n" "$BATS_TEST_TMPDIR/tar")
		[ "$status" -eq 111 ]
	done
	run ctl import <<<"nonsense"
	[ "$status" -eq 111 ]
	ctl import <"$BATS_TEST_TMPDIR/tar"
	[[ $(ctl ls q) =~ q\ +2\ +1\  ]]
	[[ $(ctl ls e) =~ e\ +2\ +0\  ]]
	ctl check
}

@test "import of a stream goes on after a full queue, ^C and another one at work" {
	local i
	for i in {1..50}; do printf 'set q 0 0 2\r\n%02d\r\n' "$i"; done | "$MQD" -N -H "$OTHER" >/dev/null
	other export >"$BATS_TEST_TMPDIR/tar"
	ctl set q max_items=20
	run ctl import <"$BATS_TEST_TMPDIR/tar"
	[ "$status" -eq 111 ]
	[[ $output == *"q: full; run it again"* ]]
	[ "$(count_messages q)" = 20 ]
	ctl set q max_items=
	# One that gets a half of it, and waits.
	mkfifo "$BATS_TEST_TMPDIR/fifo"
	"$MQCTL" -H "$SPOOL" import <"$BATS_TEST_TMPDIR/fifo" 2>"$BATS_TEST_TMPDIR/err" 3>&- &
	local pid=$!
	exec 7>"$BATS_TEST_TMPDIR/fifo"
	head -c 34000 "$BATS_TEST_TMPDIR/tar" >&7
	wait_for test -e "$SPOOL/q/0000000000000030"
	run ctl import <"$BATS_TEST_TMPDIR/tar"
	[ "$status" -eq 111 ]
	[[ $output == *"another mqctl"* ]]
	kill -INT "$pid"
	status=0
	wait "$pid" || status=$?
	[ "$status" -eq 111 ]
	exec 7>&-
	grep -q 'interrupted; run it again' "$BATS_TEST_TMPDIR/err"
	ctl import <"$BATS_TEST_TMPDIR/tar"
	[ "$(for i in {1..50}; do ctl get q; done)" = "$(printf '%02d' {1..50})" ]
	run ctl get q
	[ "$status" -eq 1 ]
}

@test "a message that is in its queue already, by a rename that was a link, comes no second time" {
	native "strace cannot be nested"
	local i
	for i in 1 2 3; do printf '%d' "$i" | other put q; done
	other export >"$BATS_TEST_TMPDIR/tar"
	for i in 1 2; do
		run strace -qq -o /dev/null -e inject=renameat2:error=EINVAL -e inject=unlinkat:signal=KILL:when="$i" "$MQCTL" -H "$SPOOL" import <"$BATS_TEST_TMPDIR/tar"
		[ "$status" -eq 137 ]
	done
	[ "$(stat -c %h "$SPOOL/q/0000000000000002")" = 2 ]
	ctl import <"$BATS_TEST_TMPDIR/tar"
	[ "$(ctl get q; ctl get q; ctl get q)" = 123 ]
	run ctl get q
	[ "$status" -eq 1 ]
	# Nor of a server's; and what has another link of an operator's is a message as any.
	stand_in a=2
	run strace -qq -o /dev/null -e inject=renameat2:error=EINVAL -e inject=unlinkat:signal=KILL:when=2 "$MQCTL" -H "$SPOOL" import "memcacheq://127.0.0.1:$FROM"
	[ "$status" -eq 137 ]
	[ "$(stat -c %h "$SPOOL/a/0000000000000001")" = 2 ]
	[ "$(ctl import "memcacheq://127.0.0.1:$FROM")" = 1 ]
	[ "$(ctl get a; ctl get a)" = "a 0a 1" ]
	ctl set a max_items=1
	ctl put a </dev/null
	"$PYTHON" - "$FROM" <<-'END'
		import socket, sys
		s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
		s.sendall(b"set a 0 0 1\r\nx\r\n")
		assert s.recv(100) == b"STORED\r\n"
	END
	run ctl import "memcacheq://127.0.0.1:$FROM"
	[ "$status" -eq 111 ]
	ln "$SPOOL/.import/from,127.0.0.1,$FROM/a/1" "$BATS_TEST_TMPDIR/kept"
	ctl set a max_items=
	ctl import "memcacheq://127.0.0.1:$FROM"
	[ "$(ctl get a; ctl get a)" = x ]
}

@test "a message that cannot be stored for good, nor taken back, is not lost" {
	native "strace cannot be nested"
	printf 1 | other put q
	other export >"$BATS_TEST_TMPDIR/tar"
	run strace -qq -o /dev/null -e inject=fsync,fdatasync,syncfs:error=EIO -e inject=linkat:error=ENOSPC "$MQCTL" -H "$SPOOL" import <"$BATS_TEST_TMPDIR/tar"
	[ "$status" -eq 111 ]
	run ctl import <"$BATS_TEST_TMPDIR/tar"
	[ "$(ctl get q)" = 1 ]
	run ctl get q
	[ "$status" -eq 1 ]
	ctl check
}

@test "export that cannot be written, or of what is not there" {
	[ -e /dev/full ] || skip "no /dev/full here"
	a_spool
	run bash -c '"$MQCTL" -H "$1" export >/dev/full' - "$OTHER"
	[ "$status" -eq 111 ]
	run other export nothing
	[ "$status" -eq 1 ]
	dd if=/dev/zero bs=1 count=1 seek=75 conv=notrunc of="$OTHER/q/0000000000000002" 2>/dev/null
	run bash -c '"$MQCTL" -H "$1" export q >"$2"' - "$OTHER" "$BATS_TEST_TMPDIR/tar"
	[ "$status" -eq 1 ]
	[[ $output == *"q/0000000000000002: damaged: left out"* ]]
	[ "$(ctl import <"$BATS_TEST_TMPDIR/tar")" = 2 ]
}

@test "killed at system calls: a stream" {
	native "strace cannot be nested"
	in_memory
	"$BATS_TEST_DIRNAME/kill-transfer" "$MEMORY" stream "${KILL_EVERY:-12}"
}

@test "killed at system calls: from memcacheq" {
	native "strace cannot be nested"
	in_memory
	"$BATS_TEST_DIRNAME/kill-transfer" "$MEMORY" plain "${KILL_EVERY:-31}"
}

@test "killed at system calls: from another mqd" {
	native "strace cannot be nested"
	in_memory
	"$BATS_TEST_DIRNAME/kill-transfer" "$MEMORY" reliable "${KILL_EVERY:-37}"
}
