#!/usr/bin/env bats
# mqctl, beside a busy mqd and with nothing running.

load helper

setup() {
	mkdir -p "$SPOOL"
}

@test "put, ls, peek, cat, rm, get, flush, drop" {
	printf one | ctl put q
	printf 'two\nlines' | ctl put q
	printf '' | ctl put q
	head -c 100000 /dev/zero | ctl put q
	run ctl ls
	[ "$status" -eq 0 ]
	[[ ${lines[0]} =~ ^QUEUE\ +WAITING\ +DELAYED\ +FLIGHT\ +GETTERS\ +PUT\ +TAKEN\ +DEAD\ +BYTES\ +OLDEST$ ]]
	[[ ${lines[1]} =~ ^q\ +4\ +0\ +0\ +0\ +4\ +0\ +0\ +100012\ +[0-9]+s$ ]]
	run ctl peek q 3
	[ "${#lines[@]}" -eq 3 ]
	[[ ${lines[0]} =~ ^0000000000000001\ +3\ bytes,\ flags\ 0:\ one$ ]]
	[[ ${lines[1]} == *"two.lines" ]]
	run ctl peek q
	[ "${#lines[@]}" -eq 1 ]
	[ "$(ctl cat q 2)" = $'two\nlines' ]
	[ "$(ctl cat q 0000000000000004 | wc -c)" = 100000 ]
	ctl rm q 2
	[ "$(ctl get q)" = one ]
	[ -z "$(ctl get q)" ]
	[ "$(ctl get q | wc -c)" = 100000 ]
	run ctl get q
	[ "$status" -eq 1 ]
	printf x | ctl put q
	printf y | ctl put q
	[ "$(ctl flush q)" = 2 ]
	run ctl ls q
	[[ ${lines[1]} =~ ^q\ +0\ +0\ +0\ +0\ +6\ +6\ +0\ +0\ +-$ ]]
	ctl drop q
	[ ! -e "$SPOOL/q" ]
	[ -z "$(ls -A "$SPOOL/.trash")" ]
	ctl check
}

@test "what is not there exits with 1, nonsense with 100, a bad spool with 111" {
	local args
	printf x | ctl put q
	for args in 'get nothing' 'cat q 7' 'rm q 7' 'rm nothing 1' 'peek nothing' 'drop nothing' 'ls nothing' 'open nothing' 'resume nothing'; do
		# shellcheck disable=SC2086
		run ctl $args
		[ "$status" -eq 1 ] || { echo "$args: $status"; false; }
	done
	for args in '' 'nonsense' 'cat q' 'cat q x' 'cat q -1' 'rm q 99999999999999999' 'peek q 0' 'peek q x' 'get' 'get q r' 'check --nonsense' 'put a/b' \
		'open a/b' 'pause q x' 'status x'; do
		# shellcheck disable=SC2086
		run ctl $args </dev/null
		[ "$status" -eq 100 ] || { echo "$args: $status"; false; }
		[[ $output == mqctl:* ]]
	done
	run "$MQCTL" -H "$SPOOL/missing" ls
	[ "$status" -eq 111 ]
	[ ! -e "$SPOOL/nothing" ]
	[ "$(count_messages q)" = 1 ]
}

@test "queues are named as ls shows them or as a client does" {
	printf 'set .a%% 0 0 1\r\nx\r\n' | "$MQD" -H "$SPOOL"
	ctl ls | grep -q '^%2Ea%25 '
	[ "$(ctl cat '%2Ea%25' 1)" = x ]
	[ "$(ctl get '.a%')" = x ]
}

@test "output that cannot be written keeps the message" {
	[ -e /dev/full ] || skip "no /dev/full here"
	printf x | ctl put q
	run bash -c '"$MQCTL" -H "$SPOOL" get q >/dev/full'
	[ "$status" -eq 111 ]
	[ "$(ctl get q)" = x ]
}

@test "check finds what is wrong, --repair mends it, and then there is nothing" {
	printf a | ctl put q
	printf b | ctl put q
	printf c | ctl put q
	ctl check
	truncate -s 71 "$SPOOL/q/0000000000000002"
	truncate -s 72 "$SPOOL/q/0000000000000002"
	mv "$SPOOL/q/0000000000000001" "$SPOOL/q/.claim/"
	mkdir -p "$SPOOL/q/.tmp"
	touch -d '1 minute ago' "$SPOOL/q/.tmp/1.1"
	mkdir -p "$SPOOL/.trash/1.1/x"
	sed -i 's/^range 0000000000000001/range 0000000000000004/' "$SPOOL/q/.state"
	run ctl check
	[ "$status" -eq 1 ]
	[ "$(cut -d: -f1 <<<"$output" | sort)" = "$(sort <<-'END'
		damaged q/0000000000000002
		leftover .trash/1.1
		leftover q/.tmp/1.1
		miscounted q/.state
		orphan q/.claim/0000000000000001
		stranded q/0000000000000002
		stranded q/0000000000000003
	END
	)" ]
	run ctl check --repair
	[ "$status" -eq 1 ]
	run ctl check
	[ "$output" = "bad q/.bad/0000000000000002: moved aside earlier; look at it and remove it" ]
	rm "$SPOOL/q/.bad/0000000000000002"
	ctl check
	[ "$(ctl get q)$(ctl get q)" = ac ]
}

@test "all of it works beside a busy queue" {
	start_mqd -N
	"$PYTHON" - "$PORT" <<-'END' &
		import socket, sys
		s = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 10)
		r = s.makefile("rb")
		i = 0
		while True:
		    i += 1
		    s.sendall(b"set q 0 0 5\r\nhello\r\n")
		    assert r.readline() == b"STORED\r\n"
		    if i % 10:
		        s.sendall(b"get q\r\n")
		        while r.readline() != b"END\r\n":
		            pass
	END
	local busy=$! i
	wait_for test -d "$SPOOL/q"
	for i in {1..20}; do
		ctl ls >/dev/null
		ctl peek q 5 >/dev/null || :
		[ -z "$(ctl open q | awk 'NR > 1 && ($2 !~ /^[0-9]+$/ || NF != 5)')" ]
		ctl get q >/dev/null || :
		printf x | ctl put q
		ctl rm q "$(ls "$SPOOL/q" | tail -n 1)" || :
		kill -0 "$busy"
	done
	stop "$busy"
	ctl check
	ctl flush q
	[ "$(count_messages q)" = 0 ]
}

@test "mv: one message or all, to the end of another queue, with what their headers say" {
	talk <<-'END'
		> set q 7 0 1
		> a
		< STORED
		> set q 8 0 1
		> b
		< STORED
		> set q 9 0 1
		> c
		< STORED
		> get q/open
		< VALUE q/open 7 1
		< a
		< END
		> get q/abort
		< END
	END
	head -c 300000 /dev/urandom >"$BATS_TEST_TMPDIR/large"
	ctl put q <"$BATS_TEST_TMPDIR/large"
	[ -z "$(ctl mv q 2 'r s')" ]
	[ "$(ctl mv q all 'r s')" = 3 ]
	[ "$(ctl ls q | awk 'END { print $2 "/" $4 }')" = 0/0 ]
	[ "$(cut -c 55-59 "$SPOOL/r%20s/0000000000000002" | head -n 1)" = 00001 ]
	[ "$(ctl get 'r s')$(ctl get r%20s)$(ctl get 'r s')" = bac ]
	ctl get 'r s' | cmp - "$BATS_TEST_TMPDIR/large"
	ctl check

	run ctl mv q 2 r
	[ "$status" -eq 1 ]
	run ctl mv nothing all r
	[ "$status" -eq 1 ]
	run ctl mv q all q
	[ "$status" -eq 100 ]
	[ ! -e "$SPOOL/r" ]
}

@test "mv: a message that cannot be stored there is back at its place" {
	printf x | ctl put q
	: >"$SPOOL/r"
	run ctl mv q all r
	[ "$status" -eq 111 ]
	run ctl mv q 1 r
	[ "$status" -eq 111 ]
	[ "$(ctl get q)" = x ]
}

@test "retry: dead letters go back, and their tries are forgotten" {
	printf 'set q.dead 5 0 1\r\nx\r\nget q.dead/open\r\nget q.dead/abort\r\n' | "$MQD" -H "$SPOOL" >/dev/null
	[ "$(cut -c 55-59 "$SPOOL/q.dead/0000000000000001" | head -n 1)" = 00001 ]
	[ "$(ctl retry q.dead)" = 1 ]
	[ "$(cut -c 55-59 "$SPOOL/q/0000000000000001" | head -n 1)" = 00000 ]
	[ "$(ctl get q)" = x ]
	run ctl retry q
	[ "$status" -eq 100 ]
}

@test "check: what could not be looked at was not found to be right" {
	local n
	printf a | ctl put q
	"$MQD" -H "$SPOOL" <<<$'set q/delay=100 0 0 1\r\nb\r\nversion\r' >/dev/null
	ctl check
	for ((n = 1; ; n++)); do
		run strace -qq -o "$BATS_TEST_TMPDIR/trace" -e "inject=getdents64:error=EIO:when=$n" \
			"$MQCTL" -H "$SPOOL" check
		grep -q INJECTED "$BATS_TEST_TMPDIR/trace" || break
		[ "$status" -ne 0 ] || { echo "getdents64 $n: $output"; false; }
	done
	[ "$n" -gt 10 ] # it was there to fail
	run strace -qq -o "$BATS_TEST_TMPDIR/trace" -e inject=flock:error=EIO:when=3+ "$MQCTL" -H "$SPOOL" check
	[ "$status" -eq 1 ]
	[[ $output == *"unreadable q"* ]]
	ctl check
}

@test "check --repair: a damaged delayed message goes to .bad" {
	printf 'set q/delay=100 0 0 4\r\nbody\r\nversion\r\n' | "$MQD" -H "$SPOOL" >/dev/null
	printf X | dd of="$(echo "$SPOOL"/q/.delay/*/*)" bs=1 seek=70 conv=notrunc status=none
	run ctl check --repair
	[ "$status" -eq 1 ]
	[[ $output == *"damaged q/.delay/"* ]]
	[ "$(find "$SPOOL/q/.bad" -type f | wc -l)" = 1 ]
	run ctl check
	[[ $output == "bad q/.bad/"* ]] || { echo "$output"; false; }
	rm "$SPOOL"/q/.bad/*
	ctl check
	[[ $(ctl ls q) == *$'\n'"q "*" 0 "*" 0 "* ]]
}

@test "what is no directory is no queue" {
	printf a | ctl put b
	mkfifo "$SPOOL/a"
	[ "$(ctl ls | awk 'NR > 1 {print $1}')" = b ]
	ctl set / allow_flush_all=yes
	talk <<-'END'
		> flush_all
		< OK
		> get b
		< END
	END
	run ctl check
	[ "$status" -eq 1 ]
	[ "$output" = "foreign a: not a directory; left alone" ]
}

@test "set: what is checked is what is written" {
	local value
	for value in 'dead_letter=a#b' $'dead_letter=a\nmax_items = 5' $'max_items=5\n'; do
		run ctl set q "$value"
		[ "$status" -ne 0 ]
		[[ $output == *"a value has no # and no line's end"* ]]
	done
	[ ! -e "$SPOOL/q/.config" ]
	ctl set q dead_letter=a%23b
	[[ $(ctl config q) == *"dead_letter      a%23b "* ]]
}

@test "drop: a .state that is made while the queue is being removed goes as well" {
	native "it is traced"
	printf x | ctl put q
	strace -qq -o /dev/null -e inject=unlinkat:delay_enter=300000 "$MQCTL" -H "$SPOOL" drop q 3>&- &
	local drop=$!
	emptied() { [[ -d $SPOOL/.trash && -n $(ls "$SPOOL/.trash") && -z $(find "$SPOOL/.trash" -type f) ]]; }
	wait_for emptied
	touch "$(echo "$SPOOL"/.trash/*)/.state"
	wait "$drop"
	[ -z "$(ls "$SPOOL/.trash")" ]
}
