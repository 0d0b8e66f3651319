#!/usr/bin/env bats
# What an operator is told when something does not work, and what is left of it: nothing, or all.

load helper

setup() {
	mkdir -p "$SPOOL"
}

# say LINE...: what mqd answers to these lines, without its carriage returns.
say() {
	printf '%s\r\n' "$@" | "$MQD" -H "$SPOOL" 2>/dev/null | tr -d '\r'
}

# put QUEUE BODY...: these messages.
put() {
	local body
	for body in "${@:2}"; do
		printf '%s' "$body" | ctl put "$1"
	done
}

# faulty FAULT PATH LINE...: as say, and what strace calls a fault at each system call on that file.
faulty() {
	printf '%s\r\n' "${@:3}" | strace -qq -o /dev/null -P "$SPOOL/$2" -e inject="$1" "$MQD_BINARY" -H "$SPOOL" 2>/dev/null | tr -d '\r'
}

@test "mqctl: each command says why it does nothing in a queue that is a file, and exits with 111" {
	local args
	: >"$SPOOL/f"
	put q x
	head -c 300000 /dev/zero >"$BATS_TEST_TMPDIR/large"
	for args in 'ls f' 'open f' 'cat f 1' 'rm f 1' 'peek f' 'get f' 'mv f all r' 'mv f 1 r' 'mv q 1 f' 'retry f q' 'flush f' \
		'pause f' 'resume f' 'set f max_items=1' 'put f'; do
		# shellcheck disable=SC2086
		run ctl $args <"$BATS_TEST_TMPDIR/large"
		[ "$status" -eq 111 ] || { echo "$args: $status"; false; }
		[[ $output == *"mqctl: f: Not a directory"* ]] || { echo "$args: $output"; false; }
	done
	[ "$(ls -A "$SPOOL" | grep -v '^\.' | tr '\n' ' ')" = "f q " ]
	[ "$(ctl get q)" = x ]
}

@test "mqctl: a full standard output is an error, and takes nothing" {
	[ -e /dev/full ] || skip "no /dev/full here"
	local args
	put q x
	head -c 100000 /dev/zero | ctl put q
	for args in 'ls' 'peek q' 'cat q 1' 'cat q 2' 'config'; do
		# shellcheck disable=SC2086
		run bash -c '"$MQCTL" -H "$SPOOL" '"$args"' >/dev/full'
		[ "$status" -eq 111 ] || { echo "$args: $status"; false; }
		[[ $output == mqctl:*"No space left on device" || $output == mqctl:*"not all of it could be written" ]]
	done
	run bash -c '"$MQCTL" -H "$SPOOL" get q >/dev/full'
	[ "$status" -eq 111 ]
	[ "$(ctl get q)" = x ]
	run bash -c '"$MQCTL" -H "$SPOOL" get q >/dev/full'
	[ "$status" -eq 111 ]
	[ "$(count_messages q)" = 1 ]
}

@test "mqctl: -h, an option that there is not, a spool that cannot be listed" {
	run "$MQCTL" -h
	[[ $status -eq 0 && $output == usage:* ]]
	run "$MQCTL" -x
	[ "$status" -eq 100 ]
	[[ ${lines[-1]} == *"mqctl -h tells how to use it" ]]
	run "$MQCTL" -H "$SPOOL" peek q 99999
	[[ $status -eq 100 && $output == *"must be from 1 to 10000" ]]
}

@test "mqctl ls: the age of the oldest in seconds, minutes, hours, days; of the future: none" {
	local queue
	for queue in s m h d f; do
		put "$queue" x
	done
	touch -d '70 seconds ago' "$SPOOL/s/0000000000000001"
	touch -d '10 minutes ago' "$SPOOL/m/0000000000000001"
	touch -d '5 hours ago' "$SPOOL/h/0000000000000001"
	touch -d '3 days ago' "$SPOOL/d/0000000000000001"
	touch -d '1 hour' "$SPOOL/f/0000000000000001"
	run ctl ls
	[ "$(awk 'NR > 1 {print $1, $NF}' <<<"$output" | tr '\n' ' ')" = "d 3d f 0s h 5h m 10m s 70s " ] ||
		[ "$(awk 'NR > 1 {print $1, $NF}' <<<"$output" | tr '\n' ' ')" = "d 3d f 0s h 5h m 10m s 71s " ]
}

@test "mqctl peek and cat: what cannot be read is said, and the next is shown" {
	put q a b c
	printf X | dd of="$SPOOL/q/0000000000000001" bs=1 seek=69 conv=notrunc status=none
	run strace -qq -o /dev/null -P "$SPOOL/q/0000000000000002" -e inject=pread64:error=ENOMEM "$MQCTL" -H "$SPOOL" peek q 3
	[ "$status" -eq 0 ]
	[ "${lines[0]}" = "0000000000000001 damaged" ]
	[[ ${lines[1]} == "0000000000000002 "*emory ]]
	[[ ${lines[2]} == *"flags 0: c" ]]
	run ctl cat q 1
	[[ $status -eq 1 && $output == "mqctl: q/0000000000000001 is damaged" ]]
	run ctl get q
	[[ $status -eq 0 && $output == "mqctl: q/0000000000000001 is damaged: moved to .bad"$'\nb' ]]
	[ "$(ls "$SPOOL/q/.bad")" = 0000000000000001 ]
}

@test "a message on a bad sector is set aside, and the next is delivered; any other error passes" {
	# By a link and an unlink, for want of a rename that replaces nothing.
	[[ $MQD_BINARY != */portable/* ]] || skip "strace knows the file by the name that is gone"
	put q a b
	[ "$(faulty pread64:error=EIO q/.claim/0000000000000001 'get q')" = $'VALUE q 0 1\nb\nEND' ]
	[ "$(ls "$SPOOL/q/.bad")" = 0000000000000001 ]
	put r a b
	[[ $(faulty pread64:error=ENOMEM r/.claim/0000000000000001 'get r') =~ ^"SERVER_ERROR "[^$'\n']*emory$ ]]
	[ "$(say 'get r' 'get r')" = $'VALUE r 0 1\na\nEND\nVALUE r 0 1\nb\nEND' ]
	# Where it is read in pieces, in the second.
	head -c 300000 /dev/zero | ctl put l
	put l z
	[ "$(faulty pread64:error=EIO:when=2+ l/.claim/0000000000000001 'get l')" = $'VALUE l 0 1\nz\nEND' ]
	[ "$(ls "$SPOOL/l/.bad")" = 0000000000000001 ]
}

@test "what could not be flushed is not acknowledged, and is gone" {
	"$MQD" -N -H "$SPOOL" <<<$'set q 0 0 1\r\na\r' >/dev/null
	run strace -qq -o /dev/null -e inject=fsync,fdatasync:error=EIO "$MQD_BINARY" -H "$SPOOL" -o sync=push \
		<<<$'set q 0 0 1\r\nb\r\nset q/delay=100 0 0 1\r\nc\r\nset new 0 0 1\r\nd\r'
	[[ $(grep -v '^mqd\[' <<<"$output" | tr -d '\r' | sort -u) =~ ^"SERVER_ERROR "(I/O|Input/output)" error"$ ]]
	[ "$(grep -c ^SERVER_ERROR <<<"$output")" = 3 ]
	[ "$(say 'get q' 'get q' 'get new')" = $'VALUE q 0 1\na\nEND\nEND\nEND' ]
	[ -z "$(find "$SPOOL/q/.delay" -type f)" ]
	ctl check
}

@test "where no number is left a push is refused, also after the last was removed" {
	put q a
	mv "$SPOOL/q/0000000000000001" "$SPOOL/q/9999999999999998"
	rm "$SPOOL/q/.state"
	[[ $(say 'set q 0 0 1' x) == "SERVER_ERROR Value too large"* ]]
	[[ $(say 'set q 0 0 1' x 'get q' 'set q 0 0 1' x) == "SERVER_ERROR Value too large"*"SERVER_ERROR Value too large"* ]]
	ctl drop q
	[ "$(say 'set q 0 0 1' x 'get q')" = $'STORED\nVALUE q 0 1\nx\nEND' ]
}

# A Linux before 6.10 lets root alone give a name to a file without one; then files have one in .tmp.
@test "files that cannot be named later: bodies lie in .tmp, also where that is removed, or the queue is" {
	local in out pid line body faulty=(env ASAN_OPTIONS=detect_leaks=0 strace -qq -o /dev/null -e inject=linkat:error=ENOENT)
	[[ $MQD_BINARY != */portable/* ]] || faulty=() # which never does otherwise
	body=$(printf '%080000d' 0)
	coproc ONE { exec "${faulty[@]}" "$MQD_BINARY" -H "$SPOOL" 2>/dev/null; }
	in=${ONE[1]} out=${ONE[0]} pid=$ONE_PID
	answer() { # COMMAND... that is answered with STORED
		printf '%s\r\n' "$@" >&"$in"
		read -r -t 10 line <&"$out"
		[ "$line" = $'STORED\r' ]
	}
	answer 'set q 0 0 1' a
	answer 'set q 0 0 80000' "$body"
	answer 'set q/delay=1 0 0 1' d
	rmdir "$SPOOL/q/.tmp"
	answer 'set q 0 0 1' b
	answer 'set q 0 0 80000' "$body"
	# The queue is deleted when half of a body is there.
	printf 'set q 0 0 160000\r\n%s' "$body" >&"$in"
	has_tmp() { [ -n "$(ls "$SPOOL/q/.tmp")" ]; }
	wait_for has_tmp
	ctl drop q
	answer "$body"
	[ "$(say 'get q' | wc -c)" = "$((160000 + 22))" ]
	# The client leaves in the middle of one.
	printf 'set q 0 0 160000\r\n%s' "$body" >&"$in"
	wait_for has_tmp
	eval "exec $in>&-"
	wait "$pid"
	[ -z "$(ls "$SPOOL/q/.tmp")" ]
	[ "$(count_messages q)" = 0 ]
	ctl check
}

@test "mqd: 17 addresses, an empty mode, all addresses of a port in use; a user by its number" {
	run "$MQD" -H "$SPOOL" -l "$(printf '127.0.0.%d,' {1..17})" </dev/null
	[[ $status -eq 100 && $output == *"127.0.0.17: too many addresses"* ]]
	run "$MQD" -H "$SPOOL" -a '' </dev/null
	[[ $status -eq 100 && $output == *"not an octal mode"* ]]
	LAUNCH=pool start_mqd
	run "$MQD" -H "$SPOOL" -p "$PORT" -u root </dev/null
	[[ $status -eq 111 && $output == *"listening on all addresses: Address"*"in use" ]]
	[ "$("$MQD" -H "$SPOOL" -u "$EUID" <<<version)" = $'VERSION 1.0.0\r' ]
}

@test "a set with too many words, none of which can be a length, is one error, and no block follows" {
	[ "$(say 'set a b c d e f' version)" = $'ERROR\nVERSION 1.0.0' ]
}

@test "a message that is another user's file, which mqd can only read, is delivered all the same" {
	[ "$EUID" -eq 0 ] || skip "only root can become another user"
	[[ $MQD_BINARY != */portable/* ]] || skip "by a link, which the system allows the file's owner alone"
	local d=$BATS_TEST_TMPDIR
	put q a b
	chown -R nobody "$SPOOL"
	chown root "$SPOOL/q/0000000000000001"
	chmod 444 "$SPOOL/q/0000000000000001"
	cp "$MQD_BINARY" "$d/mqd"
	for (( ; ${#d} > 1; )); do
		chmod go+x "$d"
		d=$(dirname "$d")
	done
	run "$PYTHON" -c '
import subprocess, sys
p = subprocess.run([sys.argv[1], "-H", sys.argv[2]], user="nobody", group="nogroup", extra_groups=[],
                   input=b"get q\r\nget q\r\n", stdout=subprocess.PIPE, check=True)
sys.stdout.write(p.stdout.decode().replace("\r", ""))' "$BATS_TEST_TMPDIR/mqd" "$SPOOL"
	[ "$output" = $'VALUE q 0 1\na\nEND\nVALUE q 0 1\nb\nEND' ]
	ctl check
}

@test "mqctl: what a queue does not take is said, and stays where it was" {
	put q a b c
	ctl set r max_items=1
	run ctl mv q all r
	[[ $status -eq 1 && $output == "mqctl: r: full" ]]
	[ "$(ctl cat q 2)$(ctl cat q 3)$(ctl cat r 1)" = bca ]
	run ctl mv q 2 r
	[[ $status -eq 1 && $output == "mqctl: r: full" ]]
	run ctl put r <<<x
	[[ $status -eq 1 && $output == "mqctl: r: not stored, in 1 of 1 queues: its limits do not let it in" ]]
	[ "$(ctl get q)$(ctl get q)$(ctl get r)" = bca ]
	ctl check
}

# As whoever died between the two leaves it.
@test "counters that may be wrong are put right before a limit is kept by them" {
	put q a
	ctl set q max_items=2
	sed -i 's/^waiting .*/waiting 0000000000000009/; s/^stale 0/stale 1/' "$SPOOL/q/.state"
	[ "$(say 'set q 0 0 1' b 'set q 0 0 1' c)" = $'STORED\nNOT_STORED' ]
	sed -i 's/^waiting .*/waiting 0000000000000000/; s/^stale 0/stale 1/' "$SPOOL/q/.state"
	[ "$(say 'set q 0 0 1' c 'get q' 'set q 0 0 1' c)" = $'NOT_STORED\nVALUE q 0 1\na\nEND\nSTORED' ]
	ctl check
}

@test "closed standard descriptors: no file of the spool becomes one of them" {
	local before
	mkdir -p "$SPOOL"
	printf 'set q 0 0 1\r\na\r\nset q 0 0 1\r\nb\r\n' | "$MQD" -H "$SPOOL" >/dev/null
	before=$(cd "$SPOOL" && find . -type f ! -name .stats -exec md5sum {} + | sort)
	run bash -c '"$1" -H "$2" ls nosuch >&- 2>&-' - "$MQCTL" "$SPOOL"
	[ "$status" -eq 1 ]
	timeout 10 bash -c '"$1" -H "$2" <&- >&- 2>&-' - "$MQD" "$SPOOL"
	[ "$(cd "$SPOOL" && find . -type f ! -name .stats -exec md5sum {} + | sort)" = "$before" ]
}

@test "options that say nothing, or too much, are refused" {
	mkdir -p "$SPOOL"
	run "$MQD" -H "$SPOOL" -l ""
	[ "$status" -eq 100 ]
	[[ $output == *"-l lacks its address"* ]]
	run "$MQD" -H "$SPOOL" -p 23991 -l ,
	[ "$status" -eq 100 ]
	run "$MQD" -H "$SPOOL" -p 30k
	[ "$status" -eq 100 ]
	run bash -c 'LISTEN_PID=$$ LISTEN_FDS=17 exec "$1" -H "$2"' - "$MQD" "$SPOOL"
	[ "$status" -eq 100 ]
	[[ $output == *"LISTEN_FDS=17"* ]]
}

@test "an error that comes again after a success is logged again" {
	mkdir -p "$SPOOL"
	touch "$SPOOL/x" "$SPOOL/y"
	printf 'get x\r\nget x\r\nget q\r\nget y\r\n' | "$MQD" -H "$SPOOL" 2>"$BATS_TEST_TMPDIR/log"
	[ "$(grep -c ': [xy]: ' "$BATS_TEST_TMPDIR/log")" = 2 ]
}

@test "a look at a file fails, whichever, in a queue whose .state was removed: the next command works" {
	unsanitized "they look at files themselves"
	native "it looks at files itself"
	"$PYTHON" - "$MQD_BINARY" "$MQCTL" "$SPOOL" "$BATS_TEST_TMPDIR/trace" <<-'END'
		import os, subprocess, sys
		mqd, mqctl, spool, trace = sys.argv[1:5]
		failed = 0
		for call in "fstat", "newfstatat", "fstatat64", "statx":
		    for n in range(1, 25):
		        p = subprocess.Popen(["strace", "-qq", "-Z", "-o", trace, "-e", f"inject=?{call}:error=EIO:when={n}",
		                              mqd, "-H", spool, "-o", "sync=none"],
		                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0)
		        r = os.fdopen(p.stdout.fileno(), "rb", closefd=False)
		        def ask(line):
		            p.stdin.write(line + b"\r\n")
		            replies = [r.readline()]
		            while replies[-1].startswith((b"VALUE", b"a")):
		                replies.append(r.readline())
		            return replies
		        replies = ask(b"set q 0 0 1\r\na") + ask(b"get q/open")
		        try:
		            os.unlink(spool + "/q/.state")
		        except FileNotFoundError:
		            pass
		        for command in b"get q/abort", b"get q/open", b"get q/close", b"set q 0 0 1\r\na", b"get q":
		            replies += ask(command)
		        p.stdin.close()
		        assert p.wait() == 0, (call, n, p.returncode, replies)
		        errors = [l for l in replies if b"ERROR" in l]
		        assert all(b"nput/output error" in l or b"I/O error" in l for l in errors), (call, n, replies)
		        seen = open(trace).read()
		        if "INJECTED" not in seen:
		            break
		        assert "EBADF" not in seen, (call, n, replies)
		        failed += errors != []
		        # What was stored and not delivered is there, and nothing was set aside.
		        left = subprocess.run([mqctl, "-H", spool, "flush", "q"], capture_output=True)
		        assert left.returncode == 0 and not os.path.exists(spool + "/q/.bad"), (call, n, replies, left)
		assert failed > 2, failed
	END
}

@test "check --repair: what cannot be opened, looked at or read just now is told, and stays where it is" {
	native "it is traced"
	local fault file looks='?fstat,?newfstatat,?fstatat64,?statx'
	put q a
	printf 'set q/delay=1000 0 0 1\r\nb\r\n' | "$MQD" -H "$SPOOL" >/dev/null
	for file in "$SPOOL/q/0000000000000001" "$(find "$SPOOL/q/.delay" -type f)"; do
		for fault in openat:error=EMFILE openat:error=EIO "$looks:error=EIO" pread64:error=ENOMEM pread64:error=EIO; do
			# What is opened it knows by its whole path; what is to be, by the name that is given.
			run strace -qq -o /dev/null -P "$file" -P "${file##*/}" -e inject="$fault" "$MQCTL" -H "$SPOOL" check --repair
			[[ $status -eq 1 && $output == "unreadable q/"*"${file##*/}: "* ]] || { echo "$fault: $status $output"; false; }
		done
	done
	[ ! -e "$SPOOL/q/.bad" ]
	ctl check
	[ "$(ctl get q)" = a ]
}

@test "a reboot, and a message that cannot be looked at just then: it is delivered later" {
	native "it is traced"
	local trace looks='?newfstatat,?fstatat64,?statx'
	for trace in "pread64:error=ENOMEM:when=1 $SPOOL/q/.claim/0000000000000001" \
		"pread64:error=ENOMEM:when=2 $SPOOL/q/.claim/0000000000000001" \
		"$looks:error=ENOMEM 0000000000000002" "openat:error=EMFILE 0000000000000001"; do
		# The second is written over the first, and its new name does not reach the disk.
		printf '%s\r\n' 'set q 0 0 1' a 'get q' 'set q 0 0 1' b | "$MQD" -H "$SPOOL" -o sync=none >/dev/null
		mv "$SPOOL/q/0000000000000002" "$SPOOL/q/.claim/0000000000000001"
		sed -i "s/^boot .*/boot $(printf '%036d' 0)/" "$SPOOL/q/.state"
		run strace -qq -o /dev/null -P "${trace#* }" -e inject="${trace% *}" "$MQD_BINARY" -H "$SPOOL" -o sync=none <<<$'get q\r'
		[[ $output == *"SERVER_ERROR "* ]] || { echo "$trace: $output"; false; }
		[ "$(say 'get q')" = $'VALUE q 0 1\nb\nEND' ] || { echo "$trace"; ls -AR "$SPOOL/q"; false; }
		ctl drop q
	done
}

@test "a delayed message that cannot be read when it is due comes later" {
	native "it is traced"
	printf 'set q/delay=1 0 0 1\r\nb\r\n' | "$MQD" -H "$SPOOL" >/dev/null
	local file
	file=$(find "$SPOOL/q/.delay" -type f)
	due() { printf 'get q\r\n' | strace -qq -o "$BATS_TEST_TMPDIR/trace" -P "$file" -e inject=pread64:error=ENOMEM "$MQD_BINARY" -H "$SPOOL"; grep INJECTED "$BATS_TEST_TMPDIR/trace"; }
	wait_for due
	[ ! -e "$SPOOL/q/.bad" ]
	[ "$(say 'get q')" = $'VALUE q 0 1\nb\nEND' ]
}
