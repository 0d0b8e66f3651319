#!/usr/bin/env bats
# The files of a spool: what operators, crashes and strangers may do to them.

load helper

setup() {
	mkdir -p "$SPOOL"
}

# put QUEUE TEXT...: one message for each text.
put() {
	local queue=$1 text
	shift
	for text; do printf '%s' "$text" | "$MQCTL" -H "$SPOOL" put "$queue" || return; done
}

# drain QUEUE: all bodies, a line each.
drain() {
	local line
	while line=$("$MQCTL" -H "$SPOOL" get "$1"); do echo "$line"; done
}

name() {
	printf '%016d' "$1"
}

@test "a message file is one line of fixed width and the body" {
	put q hello
	run head -n 1 "$SPOOL/q/$(name 1)"
	[[ $output =~ ^mq1\ 0000000000000001\ 0000000005\ 0000000000\ 0000000000\ 00000\ [0-9a-f]{8}$ ]]
	[ "$(tail -n +2 "$SPOOL/q/$(name 1)")" = hello ]
	[ "$(stat -c %a "$SPOOL/q/$(name 1)")" = 600 ]
	[ "$(stat -c %a "$SPOOL/q")" = 700 ]
}

@test "the checksum is CRC-32C over the body and then the line before it" {
	put q 123456789
	"$PYTHON" - "$SPOOL/q/$(name 1)" <<-'END'
		import sys
		def crc32c(data):
		    crc = 0xffffffff
		    for b in data:
		        crc ^= b
		        for _ in range(8):
		            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
		    return crc ^ 0xffffffff
		assert crc32c(b"123456789") == 0xe3069283  # the published check value
		line, body = open(sys.argv[1], "rb").read().split(b"\n", 1)
		assert int(line[-8:], 16) == crc32c(body + line[:-8]), line
	END
}

@test "an operator removes messages by hand: the rest goes on, the counts mend themselves" {
	put q a b c d e
	rm "$SPOOL/q/$(name 1)" "$SPOOL/q/$(name 3)"
	[ "$(drain q)" = $'b\nd\ne' ]
	put q f g
	rm "$SPOOL/q/$(name 6)" "$SPOOL/q/$(name 7)"
	[ -z "$(drain q)" ]
	put q h
	[ "$(drain q)" = h ]
	printf 'stats queue\r\n' | "$MQD" -H "$SPOOL" | grep -q '^STAT q 8/8'
	"$MQCTL" -H "$SPOOL" check
}

@test "thousands of messages removed from the head by hand cost one listing" {
	"$PYTHON" -c 'print("set q 0 0 1 noreply\r\nx\r\n" * 3000 + "set q 0 0 4\r\nlast\r")' |
		"$MQD" -N -H "$SPOOL" >/dev/null
	find "$SPOOL/q" -maxdepth 1 -name '0*' ! -name "$(name 3001)" -delete
	[ "$(strace -c -e trace=openat -o "$BATS_TEST_TMPDIR/calls" "$MQD" -N -H "$SPOOL" <<<'get q' | tr -d '\r')" = $'VALUE q 0 4\nlast\nEND' ]
	[ "$(awk '$NF == "openat" {print $4}' "$BATS_TEST_TMPDIR/calls")" -lt 400 ]
}

@test ".state removed or filled with rubbish is made anew" {
	put q a b
	[ "$("$MQCTL" -H "$SPOOL" get q)" = a ]
	rm "$SPOOL/q/.state"
	put q c
	[ "$(drain q)" = $'b\nc' ]
	put q d e
	for rubbish in '' x "$(printf 'y%.0s' {1..511})" "$(sed 's/put 0/put x/' "$SPOOL/q/.state")"; do
		printf '%s' "$rubbish" >"$SPOOL/q/.state"
		put q f
	done
	[ "$(drain q)" = $'d\ne\nf\nf\nf\nf' ]
	"$MQCTL" -H "$SPOOL" check
}

@test "a whole queue made by hand of messages is a queue" {
	put q a b c
	mkdir "$SPOOL/r"
	cp "$SPOOL/q/0"* "$SPOOL/r"
	[ "$(drain r)" = $'a\nb\nc' ]
	mv "$SPOOL/q" "$SPOOL/s"
	[ "$(drain s)" = $'a\nb\nc' ]
}

@test "after a reboot the counters come from the directory, and no number is used again" {
	put q a b c
	[ "$("$MQCTL" -H "$SPOOL" get q)" = a ]
	# As a crash may leave it: an old state, with the newest message unknown to it.
	sed -i -e 's/^boot .*/boot 00000000-0000-0000-0000-000000000000/' -e 's/^waiting .*/waiting 0000000000000099/' "$SPOOL/q/.state"
	cp "$SPOOL/q/.state" "$BATS_TEST_TMPDIR/old"
	put q d
	cp "$BATS_TEST_TMPDIR/old" "$SPOOL/q/.state"
	mkdir -p "$SPOOL/q/.tmp"
	touch "$SPOOL/q/.tmp/123.4"
	mv "$SPOOL/q/$(name 2)" "$SPOOL/q/.claim/"
	run "$MQCTL" -H "$SPOOL" ls q
	[[ ${lines[1]} =~ ^q\ +3\ +0\ +0\ +0\ +3\ +0\  ]]
	[ -z "$(ls "$SPOOL/q/.tmp")" ]
	grep -Eq "^boot ($(cat /proc/sys/kernel/random/boot_id)|-{36})$" "$SPOOL/q/.state"
	[ "$(drain q)" = $'b\nc\nd' ]
	printf 'set q 0 0 1\r\nx\r\ngets q\r\n' | "$MQD" -H "$SPOOL" | grep -q '^VALUE q 0 1 5'
}

@test "damaged messages are never sent: moved to .bad, counted, logged, reported" {
	put q a b c d e f g h
	local f="$SPOOL/q"
	: >"$f/$(name 1)"                            # empty
	truncate -s -1 "$f/$(name 2)"                # torn
	printf x >>"$f/$(name 3)"                    # too long
	printf X | dd of="$f/$(name 4)" bs=1 seek=69 conv=notrunc status=none  # a flipped body
	printf 9 | dd of="$f/$(name 5)" bs=1 seek=41 conv=notrunc status=none  # flipped flags
	cp "$f/$(name 8)" "$f/$(name 6)"             # another's number
	head -c 300 /dev/zero >"$f/$(name 7)"        # never reached the disk
	run "$MQCTL" -H "$SPOOL" check
	[ "$status" -eq 1 ]
	[ "$(grep -c '^damaged q/' <<<"$output")" = 7 ]
	run "$MQD" -H "$SPOOL" <<<$'get q\r\nget q\r'
	[ "$(grep -c 'is damaged' <<<"$output")" = 7 ]
	[ "$(grep -v damaged <<<"$output" | tr -d '\r')" = $'VALUE q 0 1\nh\nEND\nEND' ]
	[ "$(ls "$f/.bad" | wc -l)" = 7 ]
	[ -z "$(ls "$f")" ]
	run "$MQCTL" -H "$SPOOL" check
	[ "$status" -eq 1 ]
	[ "$(grep -c '^bad q/.bad/' <<<"$output")" = 7 ]
	"$MQCTL" -H "$SPOOL" ls q | grep -q '7 bad'
	grep -q '^bad 0000000000000007' "$f/.state"
}

@test "a large message with one flipped bit at its end is not sent either" {
	"$PYTHON" -c 'print("x" * 300000, end="")' | "$MQCTL" -H "$SPOOL" put q
	printf y | dd of="$SPOOL/q/$(name 1)" bs=1 seek=300068 conv=notrunc status=none
	put q good
	[ "$(drain q)" = good ]
	[ "$(ls "$SPOOL/q/.bad")" = "$(name 1)" ]
}

@test "a symlink, directory, fifo or socket named like a message is never followed or sent" {
	echo secret >"$BATS_TEST_TMPDIR/secret"
	put q a
	ln -s "$BATS_TEST_TMPDIR/secret" "$SPOOL/q/$(name 2)"
	mkdir "$SPOOL/q/$(name 3)"
	touch "$SPOOL/q/$(name 3)/inside"
	mkfifo "$SPOOL/q/$(name 4)"
	"$PYTHON" -c 'import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])' "$SPOOL/q/$(name 5)"
	ln -s /nowhere "$SPOOL/q/$(name 6)"
	put q b # its number is taken: it gets the next one that is free
	[ -f "$SPOOL/q/$(name 7)" ]
	run "$MQCTL" -H "$SPOOL" check
	[ "$(grep -c '^foreign q/' <<<"$output")" = 5 ]
	[ "$(drain q)" = $'a\nb' ]
	[ "$(cat "$BATS_TEST_TMPDIR/secret")" = secret ]
	[ -f "$SPOOL/q/.bad/$(name 3)/inside" ]
	[ -z "$(ls "$SPOOL/q")" ]
}

@test "symlinks in the place of queues, .claim and .tmp lead nowhere" {
	mkdir "$BATS_TEST_TMPDIR/outside"
	ln -s "$BATS_TEST_TMPDIR/outside" "$SPOOL/q"
	talk <<-'END'
		> set q 0 0 1
		> x
		<~ SERVER_ERROR .*
		> get q
		<~ SERVER_ERROR .*
		> version
		<~ VERSION .*
	END
	rm "$SPOOL/q"
	put q a
	rm -rf "$SPOOL/q/.claim" "$SPOOL/q/.tmp"
	ln -s "$BATS_TEST_TMPDIR/outside" "$SPOOL/q/.claim"
	ln -s "$BATS_TEST_TMPDIR/outside" "$SPOOL/q/.tmp"
	# Where files can be made without a name nobody needs .tmp.
	talk <<-'END'
		> set q 0 0 1
		> x
		<~ SERVER_ERROR .*|STORED
		> get q
		<~ SERVER_ERROR .*
	END
	rm "$SPOOL/q/.claim" "$SPOOL/q/.tmp"
	[[ $(drain q) =~ ^a($'\n'x)?$ ]]
	[ -z "$(ls -A "$BATS_TEST_TMPDIR/outside")" ]
}

@test "files that mqd did not write are left alone and reported" {
	put q a
	echo note >"$SPOOL/q/README"
	echo note >"$SPOOL/notes.txt"
	mkdir "$SPOOL/not a queue"
	run "$MQCTL" -H "$SPOOL" check
	[ "$status" -eq 1 ]
	[ "$(sort <<<"$output" | cut -d: -f1)" = $'foreign not a queue\nforeign notes.txt\nforeign q/README' ]
	[ "$(drain q)" = a ]
	[ -f "$SPOOL/q/README" ]
	printf 'stats queue\r\n' | "$MQD" -H "$SPOOL" | tr -d '\r' >"$BATS_TEST_TMPDIR/out"
	[ "$(cat "$BATS_TEST_TMPDIR/out")" = $'STAT q 1/1\nEND' ]
}

@test "a returned message goes before the head, whatever the head has passed" {
	native "each step has half a second"
	put q 1 2 3 4 5 6 7 8 9
	local i
	"$MQD" -H "$SPOOL" </dev/null # so that .stats is there: the system calls are counted below
	# 2, 5 and 8 are claimed by processes that die; the others are delivered.
	for i in 1 2 3 4 5 6 7 8; do
		# No sweep yet: the head must have passed them first.
		sed -i "s/^swept .*/swept $("$PYTHON" -c 'import time; print("%016d" % (time.monotonic_ns() // 1000000))')/" "$SPOOL/q/.state"
		case $i in
		2 | 5 | 8) run strace -qq -o /dev/null -e inject=unlinkat:signal=KILL:when=2 -e inject=pwrite64:signal=KILL:when=2 "$MQD" -N -H "$SPOOL" <<<'get q' ;;
		*) run "$MQCTL" -H "$SPOOL" get q ;;
		esac
		[[ $output == *"$i"* ]]
	done
	[ "$(in_flight q | wc -l)" = 3 ]
	swept() {
		"$MQCTL" -H "$SPOOL" ls q >/dev/null
		[ -z "$(in_flight q)" ]
	}
	wait_for swept
	[ "$(grep -c ^range "$SPOOL/q/.state")" -ge 1 ]
	[ "$(drain q)" = $'2\n5\n8\n9' ]
	"$MQCTL" -H "$SPOOL" check
}

@test "a program of the operator's that locks a message does not stop the queue" {
	put q a b c
	exec 5<"$SPOOL/q/$(name 1)"
	flock 5
	[ "$("$MQCTL" -H "$SPOOL" get q)" = b ]
	exec 5<&-
	[ "$(drain q)" = $'a\nc' ]
	"$MQCTL" -H "$SPOOL" check
}

@test "mqctl as root leaves files that the spool's owner can use" {
	[ "$EUID" -eq 0 ] || skip "only root can become another user"
	chown nobody "$SPOOL"
	chmod 711 "$BATS_TEST_TMPDIR" "${BATS_TEST_TMPDIR%/*}" "${BATS_TEST_TMPDIR%/*/*}" "$BATS_RUN_TMPDIR" 2>/dev/null || :
	put q a
	[ "$(stat -c %U "$SPOOL/q/$(name 1)")" = nobody ]
	[ "$(stat -c %U "$SPOOL/q/.state")" = nobody ]
}

@test ".claim and .tmp removed under a live connection are made again, and nothing is lost" {
	coproc ONE { exec "$MQD" -N -H "$SPOOL" 2>/dev/null; }
	local pid=$ONE_PID in=${ONE[1]} out=${ONE[0]} line
	ask() { # LINE COMMAND...: send, expect the first line of the reply
		printf '%s\r\n' "${@:2}" >&"$in"
		read -r -t 10 line <&"$out"
		[ "$line" = "$1"$'\r' ]
	}
	local rest
	ask STORED 'set q 0 0 1' a
	ask STORED 'set q 0 0 1' b
	ask 'VALUE q 0 1' 'get q'
	read -r -t 10 rest <&"$out"
	read -r -t 10 rest <&"$out"
	rm -rf "$SPOOL/q/.claim" "$SPOOL/q/.tmp"
	ask 'VALUE q 0 1' 'get q'
	read -r -t 10 rest <&"$out"
	[ "$rest" = $'b\r' ]
	read -r -t 10 rest <&"$out"
	ask STORED 'set q 0 0 1' c
	eval "exec $in>&-"
	wait "$pid"
	[ "$(drain q)" = c ]
	"$MQCTL" -H "$SPOOL" check
}

@test "an error in one queue of a get does not cost the messages of the others" {
	ln -s /nowhere "$SPOOL/errq"
	put small s
	"$PYTHON" -c 'print("b" * 40000, end="")' | "$MQCTL" -H "$SPOOL" put big
	printf 'get small\r\nget big errq\r\nget errq\r\n' | "$MQD" -H "$SPOOL" 2>/dev/null | tr -d '\r' >"$BATS_TEST_TMPDIR/out"
	[ "$(cut -c 1-12 "$BATS_TEST_TMPDIR/out")" = $'VALUE small \ns\nEND\nVALUE big 0 \nbbbbbbbbbbbb\nEND\nSERVER_ERROR' ]
}

@test ".state removed while a push holds its lock: the message is known all the same" {
	put q a b c
	[ "$(drain q)" = $'a\nb\nc' ]
	printf 'set q 0 0 1\r\nd\r\n' | strace -qq -o /dev/null -e inject=renameat2,linkat:delay_enter=1500000 \
		"$MQD" -N -H "$SPOOL" >"$BATS_TEST_TMPDIR/out" &
	local pusher=$!
	locked() { ! flock -n "$SPOOL/q/.state" true; }
	wait_for locked
	rm "$SPOOL/q/.state"
	[ -z "$(drain q)" ] # made anew, from an empty listing
	wait "$pusher"
	[ "$(cat "$BATS_TEST_TMPDIR/out")" = $'STORED\r' ]
	[ "$(drain q)" = d ]
	"$MQCTL" -H "$SPOOL" check
}

@test "while .state cannot be written nothing is acknowledged, and nothing is lost" {
	put q a
	run strace -qq -o /dev/null -P "$SPOOL/q/.state" -e inject=pwrite64:error=EIO "$MQD" -N -H "$SPOOL" \
		<<<$'set q 0 0 1\r\nb\r\nget q\r\nset q 0 0 1\r\nc\r'
	[ "$(grep -v '^mqd\[' <<<"$output" | tr -d '\r')" = $'SERVER_ERROR I/O error\nVALUE q 0 1\na\nEND\nSERVER_ERROR I/O error' ] ||
		[ "$(grep -v '^mqd\[' <<<"$output" | tr -d '\r')" = $'SERVER_ERROR Input/output error\nVALUE q 0 1\na\nEND\nSERVER_ERROR Input/output error' ]
	put q d
	[ "$(drain q)" = d ]
	"$MQCTL" -H "$SPOOL" check
}

@test "files named 0 and with the highest number are no messages" {
	put q a b
	cp "$SPOOL/q/$(name 1)" "$SPOOL/q/$(name 0)"
	cp "$SPOOL/q/$(name 1)" "$SPOOL/q/9999999999999999"
	rm "$SPOOL/q/.state"
	[ "$(drain q)" = $'a\nb' ]
	put q c
	[ "$(drain q)" = c ]
	run "$MQCTL" -H "$SPOOL" check
	[ "$(grep -c '^foreign q/' <<<"$output")" = 2 ]
}

@test "the counters' lock held by somebody else: SIGTERM still ends the worker" {
	put q a
	exec 5<"$SPOOL/q/.state"
	flock 5
	"$MQD" -H "$SPOOL" <<<$'get q\r' >/dev/null 5<&- &
	local worker=$!
	blocked() { grep -q flock "/proc/$worker/wchan" "/proc/$worker/stack" 2>/dev/null; }
	wait_for blocked || wait_for grep -q S "/proc/$worker/stat"
	kill "$worker"
	wait_for gone "$worker"
	wait "$worker"
	exec 5<&-
	[ "$(drain q)" = a ]
}

@test "spent files stay few, also where each connection is a process of its own" {
	"$PYTHON" -c 'print("set q 0 0 1\r\nx\r\n" * 400, end="")' | "$MQD" -N -H "$SPOOL" >/dev/null
	local i
	for i in {1..300}; do
		"$MQD" -N -H "$SPOOL" <<<'get q' >/dev/null
	done
	swept() {
		"$MQCTL" -H "$SPOOL" ls q >/dev/null
		[ "$(ls "$SPOOL/q/.claim" | wc -l)" -le 70 ]
	}
	wait_for swept
	[ "$(drain q | wc -l)" = 100 ]
}

@test "a message under a wrong number goes to .bad, also when that fails at first" {
	local fault
	for fault in signal=KILL error=ENOSPC; do
		rm -rf "$SPOOL/q"
		put q a b
		rm "$SPOOL/q/$(name 2)" "$SPOOL/q/.state"
		mv "$SPOOL/q/$(name 1)" "$SPOOL/q/$(name 2)"
		"$MQD" -N -H "$SPOOL" </dev/null
		run strace -qq -o /dev/null -P "$SPOOL/q/.bad" -P .bad -e inject=mkdirat:"$fault":when=1 "$MQD" -N -H "$SPOOL" <<<'get q'
		given_up() {
			[ -z "$(drain q)" ]
			[ -e "$SPOOL/q/.bad/$(name 2)" ]
		}
		wait_for given_up
		[ "$(tail -n +2 "$SPOOL/q/.bad/$(name 2)")" = a ]
	done
}

@test "a message that was taken and put back by hand is served, though its number has a spent file" {
	put q a b
	cp -p "$SPOOL/q/$(name 1)" "$BATS_TEST_TMPDIR/kept"
	printf 'get q\r\nget q\r\n' | "$MQD" -N -H "$SPOOL" >/dev/null
	mv "$BATS_TEST_TMPDIR/kept" "$SPOOL/q/$(name 1)"
	"$MQCTL" -H "$SPOOL" check --repair || :
	[ "$(drain q)" = a ]
	"$MQCTL" -H "$SPOOL" check
}

@test "a message that an operator keeps by a second name, or has open, is never written over" {
	put q a b
	ln "$SPOOL/q/$(name 1)" "$BATS_TEST_TMPDIR/kept"
	cp "$SPOOL/q/$(name 1)" "$BATS_TEST_TMPDIR/copy"
	cp "$SPOOL/q/$(name 2)" "$BATS_TEST_TMPDIR/copy2"
	exec 5<"$SPOOL/q/$(name 2)"
	printf 'get q\r\nget q\r\nset q 0 0 1\r\nc\r\nset q 0 0 1\r\nd\r\n' | "$MQD" -N -H "$SPOOL" >/dev/null
	cmp "$BATS_TEST_TMPDIR/kept" "$BATS_TEST_TMPDIR/copy"
	cmp - "$BATS_TEST_TMPDIR/copy2" <&5
	exec 5<&-
	[ "$(drain q)" = $'c\nd' ]
}
