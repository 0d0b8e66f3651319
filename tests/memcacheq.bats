#!/usr/bin/env bats
# The command line that memcacheq's init scripts have: mqd in the background, its pid file, core
# files, the options that mean nothing here.

load helper

setup() {
	WORK=$BATS_TEST_TMPDIR
	mkdir -p "$SPOOL"
	PORT=$(free_port)
	USER_OPTION=() # root must say who it wants to be
	[[ $EUID -ne 0 ]] || USER_OPTION=(-u root)
	DAEMON_PID=
	STOPPED_PID=
}

# What -d leaves behind is nobody's child.
teardown() {
	stop_mqd
	[[ -z $STOPPED_PID ]] || kill -KILL "$STOPPED_PID" 2>/dev/null || :
	[[ -z $DAEMON_PID ]] || end_daemon
}

# start_daemon OPTION...: mqd -d with its pid in $WORK/pid, its output in $output.
start_daemon() {
	run "$MQD" -d -P "$WORK/pid" -l 127.0.0.1 -p "$PORT" "${USER_OPTION[@]}" -H "$SPOOL" "$@" 3>&-
	[ "$status" -eq 0 ] || { echo "$output"; false; }
	DAEMON_PID=$(<"$WORK/pid")
}

end_daemon() {
	kill "${1:--TERM}" "$DAEMON_PID"
	wait_for gone "$DAEMON_PID"
	DAEMON_PID=
}

# refused STATUS TEXT COMMAND...: exits so, with one line that has the text.
refused() {
	run "${@:3}" 3>&-
	[[ $status -eq $1 && ${#lines[@]} -eq 1 && $output == "mqd["*"$2"* ]] ||
		{ echo "${*:3}: $status: $output"; false; }
}

# quiet: nothing was said, but where there is no boot id.
quiet() {
	[[ -z $output || ($MQD_BINARY == *portable* && $output == *"no boot id"*) ]]
}

# prepare_user: a copy of mqd where nobody may run it, and a spool that is theirs.
prepare_user() {
	[ "$EUID" -eq 0 ] || skip "only root can become another user"
	cp "$MQD_BINARY" "$WORK/mqd"
	local d=$WORK
	while [ "$d" != / ]; do
		chmod o+x "$d"
		d=$(dirname "$d")
	done
	chown nobody "$SPOOL"
}

fds_of() {
	readlink "/proc/$1/fd/0" "/proc/$1/fd/1" "/proc/$1/fd/2"
}

@test "the command line of an old init script: -d -r -u user -pport -H dir -N -v -L 1024 -B 1024" {
	native "the process has valgrind's name and limits"
	prepare_user
	mkdir "$WORK/run"
	chown nobody "$WORK/run"
	cd "$WORK"
	run bash -c "ulimit -S -c 0; exec '$WORK/mqd' -d -r -u nobody -p$PORT -H '$SPOOL' -N -v -L 1024 -B 1024 -P '$WORK/run/pid'" 3>&-
	[ "$status" -eq 0 ]
	quiet
	# When that has returned all is ready, without a wait.
	DAEMON_PID=$(<"$WORK/run/pid")
	talk_tcp <<-'END'
		> set q4 0 0 1024
		>>*1024 x
		>> \r\n
		< STORED
		> set q4 0 0 1025
		>>*1025 x
		>> \r\n
		< SERVER_ERROR object too large for cache
		> db_archive
		< OK
		> db_checkpoint
		< OK
		> db_archive now
		< ERROR
	END
	[ "$(ps -o user= -p "$DAEMON_PID")" = nobody ]
	[ "$(ps -o tty= -p "$DAEMON_PID")" = "?" ]
	[ "$(ps -o sid= -p "$DAEMON_PID")" -eq "$DAEMON_PID" ]
	[ "$(fds_of "$DAEMON_PID" | sort -u)" = /dev/null ]
	# A core file can be as large as it likes, and the kernel writes one although the user has changed.
	awk '/^Max core file size/ {exit $5 != $6 || $5 == 0}' "/proc/$DAEMON_PID/limits"
	[[ $MQD_BINARY == *portable* ]] || [ "$(stat -c %U "/proc/$DAEMON_PID/limits")" = nobody ]
	[ "$(stat -c %a "$WORK/run/pid")" = 644 ]
	end_daemon
	[ ! -e "$WORK/run/pid" ]
}

@test "every option of memcacheq's is taken; what is Berkeley DB's is named in the log" {
	start_mqd -m 64 -A 4096 -L 32 -C 300 -T 30 -S 30 -e 60 -D 100 -E 16384 -R -U 0 -c 10 -t 2 -a 0700 -vv -L 64
	talk_tcp <<-'END'
		> version
		<~ VERSION .*
	END
	if [[ ${LAUNCH:-pool} == pool ]]; then
		grep -c 'options of Berkeley DB, which do nothing here: -m -A -L -C -T -S -e -D -E -R$' "$WORK/log" | grep -qx 1
	fi
	stop_mqd
	refused 100 '-U 11211: there is no UDP here' "$MQD" -H "$SPOOL" -U 11211
	refused 100 '-L lacks its value' "$MQD" -L
	refused 100 '-P goes with' "$MQD" -H "$SPOOL" -P "$WORK/pid"
	[ ! -e "$WORK/pid" ]
	run "$MQD" -i
	[[ $status -eq 0 && ${#lines[@]} -eq 1 ]]
}

@test "-h and mqd(8) name every option" {
	local letters letter
	letters=$(sed -n 's/.*getopt(argc, argv, "+:\([^"]*\)").*/\1/p' "$TOP/mqd.c" | tr -d :)
	[ "${#letters}" -gt 25 ]
	for ((i = 0; i < ${#letters}; i++)); do
		letter=${letters:i:1}
		"$MQD" -h | grep -q -e "-$letter\([ ,)]\|\$\)" -e "\[-[a-zA-Z]*${letter}[a-zA-Z]*\]" || { echo "-h: $letter"; false; }
		grep -q "^\.It Fl \([A-Za-z] , \)*$letter\b" "$TOP/man/mqd.8" || { echo "mqd.8: $letter"; false; }
	done
}

@test "without -p, -l and -s, -d listens on memcacheq's port" {
	[ "$EUID" -eq 0 ] || skip "only root can have a network of its own"
	run unshare -n bash -c "'$MQD' -d -P '$WORK/pid' -u root -H '$SPOOL' && cat /proc/net/tcp" 3>&-
	DAEMON_PID=$(<"$WORK/pid")
	# 22201, on all addresses.
	[[ $status -eq 0 && $output == *": 00000000:$(printf %X 22201) 00000000:0000 0A "* ]]
}

@test "-d: what fails is told on standard error, with the status, and nothing is left" {
	local holder
	start_mqd
	holder=$PORT
	refused 111 '127.0.0.1: Address' "$MQD" -d -P "$WORK/pid" -l 127.0.0.1 -p "$holder" "${USER_OPTION[@]}" -H "$SPOOL"
	refused 111 "$WORK/missing: No such file or directory" "$MQD" -d -P "$WORK/pid" -s "$WORK/socket" "${USER_OPTION[@]}" -H "$WORK/missing"
	refused 111 "$WORK/no/pid: No such file or directory" "$MQD" -d -P "$WORK/no/pid" -s "$WORK/socket" "${USER_OPTION[@]}" -H "$SPOOL"
	chmod 777 "$SPOOL"
	refused 111 "$SPOOL: " "$MQD" -d -P "$WORK/pid" -s "$WORK/socket" "${USER_OPTION[@]}" -H "$SPOOL"
	chmod 700 "$SPOOL"
	refused 100 'no such user' "$MQD" -d -P "$WORK/pid" -s "$WORK/socket" -u nosuchuser -H "$SPOOL"
	refused 100 'too many addresses' "$MQD" -d -l "$(printf '127.0.0.1,%.0s' {1..17})" -H "$SPOOL"
	[ ! -e "$WORK/pid" ]
	[ ! -e "$WORK/socket" ]
	! pgrep -f -- "-d -P $WORK/pid"
}

@test "-d: a failure at the last moment is told as well" {
	native "strace does not see it start"
	run strace -f -o "$WORK/trace" -e inject=chdir:error=EACCES \
		"$MQD" -d -P "$WORK/pid" -s "$WORK/socket" "${USER_OPTION[@]}" -H "$SPOOL" 3>&-
	[[ $status -eq 111 && $output == *"starting to accept: Permission denied" ]]
	[[ ! -e $WORK/pid && ! -e $WORK/socket ]]
}

@test "-d: without its starter it does not stay" {
	native "strace does not see it start"
	local starter
	strace -f -o "$WORK/trace" -e trace=setsid -e inject=setsid:signal=SIGSTOP \
		"$MQD" -d -P "$WORK/pid" -s "$WORK/socket" "${USER_OPTION[@]}" -H "$SPOOL" 3>&- &
	wait_for grep -q 'stopped by SIGSTOP' "$WORK/trace"
	STOPPED_PID=$(awk '/stopped by/ {print $1; exit}' "$WORK/trace")
	starter=$(ps -o ppid= -p "$STOPPED_PID")
	kill -KILL "$starter"
	wait_for gone "$starter"
	kill -CONT "$STOPPED_PID"
	wait_for gone "$STOPPED_PID"
	[[ ! -e $WORK/pid && ! -e $WORK/socket ]]
}

@test "-d: told to stop as soon as it is ready, it leaves nothing behind" {
	for _ in {1..20}; do
		run "$MQD" -d -P "$WORK/pid" -s "$WORK/socket" "${USER_OPTION[@]}" -H "$SPOOL" 3>&-
		[ "$status" -eq 0 ]
		DAEMON_PID=$(<"$WORK/pid")
		end_daemon
		[[ ! -e $WORK/pid && ! -e $WORK/socket ]]
	done
}

@test "-d: memcacheq's own database is no spool" {
	echo data >"$SPOOL/queue.list"
	refused 111 "$SPOOL: memcacheq's database lies here" "$MQD" -d -s "$WORK/socket" "${USER_OPTION[@]}" -H "$SPOOL"
	[ "$(ls -A "$SPOOL")" = queue.list ]
	# A queue may have that name.
	rm "$SPOOL/queue.list"
	start_mqd
	talk_tcp <<-'END'
		> set queue.list 0 0 1
		> x
		< STORED
	END
	stop_mqd
	start_daemon
}

@test "-d: relative paths mean what they meant where it was started" {
	cd "$WORK"
	run "$MQD" -d -P pid -s socket "${USER_OPTION[@]}" -H spool 3>&-
	[ "$status" -eq 0 ]
	DAEMON_PID=$(<pid)
	[ "$(readlink "/proc/$DAEMON_PID/cwd")" = / ]
	"$BATS_TEST_DIRNAME/transcript" unix "$WORK/socket" <<-'END'
		> set q4 0 0 5
		> hello
		< STORED
	END
	[ "$(count_messages q4)" -eq 1 ]
	end_daemon
	[ ! -e pid ]
	[ ! -e socket ]
}

@test "-d: the log goes to syslog" {
	[ "$EUID" -eq 0 ] || skip "only root can have a /dev of its own"
	native "it logs there itself"
	local dev=$WORK/dev
	mkdir "$dev"
	: >"$dev/null"
	mount --bind /dev/null "$dev/null"
	"$PYTHON" - "$dev/log" >"$WORK/syslog" 3>&- <<-'END' &
		import socket, sys
		s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
		s.bind(sys.argv[1])
		while True:
		    data = s.recv(4096)
		    print(data.decode(), flush=True)
	END
	local logger=$!
	wait_for test -S "$dev/log"
	run unshare -m bash -c "mount --rbind '$dev' /dev && exec '$MQD' -d -R -P '$WORK/pid' -l 127.0.0.1 -p $PORT -u root -H '$SPOOL'" 3>&-
	DAEMON_PID=$(cat "$WORK/pid" || :)
	[ "$status" -eq 0 ] && quiet || { umount "$dev/null"; kill "$logger"; echo "$output"; false; }
	wait_for grep -q "mqd\[$DAEMON_PID\]: options of Berkeley DB, which do nothing here: -R" "$WORK/syslog" || { umount "$dev/null"; kill "$logger"; false; }
	end_daemon
	kill "$logger"
	umount "$dev/null"
}

@test "-P: a living process's file is refused, a dead one's is replaced" {
	start_daemon
	[ "$(<"$WORK/pid")" = "$DAEMON_PID" ]
	refused 111 "$WORK/pid: process $DAEMON_PID holds it" \
		"$MQD" -d -P "$WORK/pid" -s "$WORK/socket" "${USER_OPTION[@]}" -H "$SPOOL"
	refused 111 "$WORK/pid: process $DAEMON_PID holds it" \
		"$MQD" -P "$WORK/pid" -s "$WORK/socket" "${USER_OPTION[@]}" -H "$SPOOL"
	[ ! -e "$WORK/socket" ]
	[ "$(<"$WORK/pid")" = "$DAEMON_PID" ]
	end_daemon -KILL
	[ -s "$WORK/pid" ]
	echo 12345678901234567890 >"$WORK/pid"
	start_daemon
	kill -0 "$DAEMON_PID"
	end_daemon
	[ ! -e "$WORK/pid" ]
}

@test "-P: a busy worker that outlives its parent does not hold the file" {
	local answer
	start_daemon
	exec 5<>"/dev/tcp/127.0.0.1/$PORT"
	printf 'get q4/t=60000\r\n' >&5
	wait_for test -d "$SPOOL/q4"
	end_daemon -KILL
	PORT=$(free_port)
	start_daemon
	talk_tcp <<-'END'
		> set q4 0 0 5
		> hello
		< STORED
	END
	# It is the old one that waits for this.
	read -rt 10 -u 5 answer
	[ "$answer" = $'VALUE q4/t=60000 0 5\r' ]
	exec 5>&-
}

@test "-P: what is no file of its own is not written to" {
	echo precious >"$WORK/other"
	ln -s other "$WORK/pid"
	refused 111 "$WORK/pid: " "$MQD" -P "$WORK/pid" -s "$WORK/socket" "${USER_OPTION[@]}" -H "$SPOOL"
	rm "$WORK/pid"
	ln "$WORK/other" "$WORK/pid"
	refused 111 "second name" "$MQD" -P "$WORK/pid" -s "$WORK/socket" "${USER_OPTION[@]}" -H "$SPOOL"
	rm "$WORK/pid"
	mkfifo "$WORK/pid"
	refused 111 "no regular file" "$MQD" -P "$WORK/pid" -s "$WORK/socket" "${USER_OPTION[@]}" -H "$SPOOL"
	[ "$(<"$WORK/other")" = precious ]
}

@test "-P: at its end it leaves another's file alone" {
	start_daemon
	rm "$WORK/pid"
	echo another >"$WORK/pid"
	end_daemon
	[ "$(<"$WORK/pid")" = another ]
}

@test "-P: at its end it empties a file that its user may not remove" {
	prepare_user
	USER_OPTION=(-u nobody)
	start_daemon
	end_daemon
	[ -e "$WORK/pid" ]
	[ ! -s "$WORK/pid" ]
	start_daemon
}

@test "-s: the socket is the user's of -u, or root's where they can make none" {
	prepare_user
	mkdir "$WORK/theirs"
	chown nobody "$WORK/theirs"
	USER_OPTION=(-u nobody)
	start_daemon -s "$WORK/theirs/s" -a 0770
	[ "$(stat -c '%U:%G %a' "$WORK/theirs/s")" = "nobody:$(id -gn nobody) 770" ]
	end_daemon
	[ ! -e "$WORK/theirs/s" ]

	start_daemon -s "$WORK/s"
	[ "$(stat -c '%U:%G %a' "$WORK/s")" = "root:root 700" ]
	# It is held, and not replaced; dead, it is.
	refused 111 "$WORK/s: " "$MQD" -s "$WORK/s" -u nobody -H "$SPOOL"
	end_daemon -KILL
	no_answer() { ! "$BATS_TEST_DIRNAME/transcript" unix "$WORK/s" <<<$'> version\n<~ VERSION .*'; }
	wait_for no_answer
	[ -S "$WORK/s" ]
	start_daemon -s "$WORK/s"
	run no_answer
	[ "$status" -eq 1 ]
}

@test "one connection tells of the options of Berkeley DB with -v alone" {
	mkdir -p "$SPOOL"
	[ -z "$("$MQD" -m 64 -H "$SPOOL" </dev/null 2>&1)" ]
	"$MQD" -v -m 64 -H "$SPOOL" </dev/null 2>&1 | grep -q 'options of Berkeley DB, which do nothing here: -m$'
}
