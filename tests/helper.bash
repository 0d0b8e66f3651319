# What every test file loads: the binaries under test, a spool and a port of the test's own,
# waiting on conditions, and stopping exactly the processes that the test started.
#
# All tests also run with LAUNCH=connection, where start_mqd has tcpserver start an mqd for each
# connection, and with SYNC=full, push or none, which every mqd gets before its own options (MQD is
# a script then, and MQD_BINARY the program: see tests/run). A test that is about one of these
# says so: LAUNCH=pool start_mqd, or -o sync=full.

TOP=$(cd "$BATS_TEST_DIRNAME/.." && pwd)
export MQD=${MQD:-$TOP/mqd}
export MQD_BINARY=${MQD_BINARY:-$MQD}
export MQCTL=${MQCTL:-$TOP/mqctl}
export PYTHONDONTWRITEBYTECODE=1
PYTHON=/usr/bin/python3

# A spool below the test's own temporary folder, which bats removes.
export SPOOL=$BATS_TEST_TMPDIR/spool

# free_port: a loopback port that nobody listens on now.
free_port() {
	"$PYTHON" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# wait_for CMD...: until CMD succeeds; fails after ten seconds, or a minute under valgrind.
wait_for() {
	local end=$((SECONDS + (${MEMCHECK:-0} ? 60 : 10)))
	until "$@" >/dev/null 2>&1; do
		if ((SECONDS > end)); then
			echo "gave up waiting for: $*" >&2
			return 1
		fi
		read -rt 0.02 <> <(:) || :
	done
}

# ctl ARG...: mqctl on the test's spool.
ctl() {
	"$MQCTL" -H "$SPOOL" "$@"
}

# What a test file that has more to undo defines again.
teardown() {
	stop_mqd
}

# listening PORT: does somebody accept on that loopback port?
listening() {
	(exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# gone PID: has the process ended (a zombie counts)?
gone() {
	! kill -0 "$1" 2>/dev/null || [[ $(ps -o stat= -p "$1") == Z* ]]
}

# start_mqd [option...]: mqd listening on its own port; sets PORT and MQD_PID.
start_mqd() {
	local user=() command
	mkdir -p "$SPOOL"
	PORT=$(free_port)
	if [[ ${LAUNCH:-pool} == pool ]]; then
		[[ $EUID -eq 0 ]] && user=(-u root)
		command=("$MQD" -H "$SPOOL" -p "$PORT" -l 127.0.0.1 "${user[@]}" "$@")
	else
		command=(tcpserver -HRDl0 -c 1000 -b 1024 127.0.0.1 "$PORT" "$MQD" -H "$SPOOL" "$@")
	fi
	"${command[@]}" 2>>"$BATS_TEST_TMPDIR/log" 3>&- &
	MQD_PID=$!
	wait_for listening "$PORT"
}

# stop PID...: ends these, which the test has started and perhaps stopped, if they have not ended yet.
stop() {
	local pid
	for pid in "$@"; do
		kill "$pid" 2>/dev/null && kill -CONT "$pid" 2>/dev/null || :
		wait "$pid" 2>/dev/null || :
	done
}

# stop_mqd: ends what start_mqd started; to be called from teardown.
stop_mqd() {
	[[ -z ${MQD_PID:-} ]] || stop "$MQD_PID"
	MQD_PID=
}

# talk [option...] < script: a dialogue (see tests/transcript) with mqd on standard input.
talk() {
	mkdir -p "$SPOOL"
	"$BATS_TEST_DIRNAME/transcript" exec "$MQD" -H "$SPOOL" "$@"
}

# talk_tcp < script: a dialogue with the mqd that start_mqd started.
talk_tcp() {
	"$BATS_TEST_DIRNAME/transcript" tcp 127.0.0.1 "$PORT"
}

# native REASON: this test is left out of those under valgrind (tests/memcheck).
native() {
	[[ -z ${MEMCHECK:-} ]] || skip "not under valgrind: $1"
}

# unsanitized REASON: this test is left out of those with sanitizers, or counters (make SAN=1, COV=1).
unsanitized() {
	[[ $MQD_BINARY != */san/* && $MQD_BINARY != */cov/* ]] || skip "not with sanitizers or counters: $1"
}

# strace, for a program that may have the leak sanitizer in it, which cannot be traced; and no valgrind,
# whose own system calls would count.
strace() {
	[[ -z ${MEMCHECK:-} ]] || set -- "${@/#$MQD/$MQD_BINARY}"
	ASAN_OPTIONS=detect_leaks=0 command strace "$@"
}

# in_flight QUEUE: the files in .claim that are no spent ones.
in_flight() {
	find "$SPOOL/$1/.claim" -type f -exec grep -L ^mq0 {} +
}

# count_messages QUEUE: how many messages wait, as `ls` shows them.
count_messages() {
	ls "$SPOOL/$1" | wc -l
}
