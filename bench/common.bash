# What the measuring scripts share: where things are, a port and a spool of their own, waiting
# on conditions, and stopping exactly the processes that were started.

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
MQD=${MQD:-$TOP/mqd}
LOAD=${LOAD:-$TOP/build/load}
PYTHON=/usr/bin/python3
WORK= # a directory of the script's own, below build/: on the machine's own disk
MQD_PID=
LOAD_PID=

die() {
	echo "${0##*/}: $*" >&2
	exit 1
}

# setup: check what is needed, make WORK, clean up at the end, however that comes about. A script
# may define more to clean up as cleanup_more.
setup() {
	local program
	for program in "$MQD" "$LOAD" "$PYTHON"; do
		[[ -x $program ]] || die "$program is missing: run make all build/load"
	done
	mkdir -p "$TOP/build"
	WORK=$(mktemp -d "$TOP/build/${0##*/}.XXXXXX") || exit
	trap cleanup EXIT
	trap 'exit 1' INT TERM HUP
}

cleanup() {
	[[ -z $LOAD_PID ]] || kill "$LOAD_PID" 2>/dev/null || :
	stop_mqd
	if declare -F cleanup_more >/dev/null; then
		cleanup_more
	fi
	rm -rf "$WORK"
}

free_port() {
	"$PYTHON" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# wait_for CMD...: until CMD succeeds; fails after ten seconds.
wait_for() {
	local end=$((SECONDS + 10))
	until "$@" >/dev/null 2>&1; do
		((SECONDS <= end)) || die "gave up waiting for: $*"
		read -rt 0.02 <> <(:) || :
	done
}

listening() {
	(exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

listening_or_gone() {
	listening "$1" || ! kill -0 "$MQD_PID"
}

# start_mqd SPOOL [option...]: mqd on a port of its own; sets ADDRESS and MQD_PID; its log is WORK/log.
# shellcheck disable=SC2034 # ADDRESS is for the script
start_mqd() {
	local spool=$1 port user=()
	shift
	[[ $EUID -ne 0 ]] || user=(-u root)
	mkdir -p "$spool"
	port=$(free_port)
	"$MQD" -H "$spool" -p "$port" -l 127.0.0.1 "${user[@]}" "$@" 2>"$WORK/log" &
	MQD_PID=$!
	wait_for listening_or_gone "$port"
	kill -0 "$MQD_PID" 2>/dev/null || die "mqd: $(<"$WORK/log")"
	ADDRESS=127.0.0.1:$port
}

# Workers end when their connections do, which `load` has closed by then.
no_workers() {
	! pgrep -P "$MQD_PID"
}

stop_mqd() {
	[[ -n $MQD_PID ]] || return 0
	kill "$MQD_PID" 2>/dev/null || :
	wait "$MQD_PID" 2>/dev/null || :
	MQD_PID=
}

# run_load [option...]: returns its status. In the background, for only then does a signal to the
# script end it at once.
run_load() {
	local status=0
	"$LOAD" "$@" &
	LOAD_PID=$!
	wait "$LOAD_PID" || status=$?
	LOAD_PID=
	return "$status"
}

# describe_fs DIR: what file system that is, and for ext4 whether it has a journal.
describe_fs() {
	local type device
	read -r type device < <(findmnt -nro FSTYPE,SOURCE -T "$1")
	if [[ $type == ext4 ]]; then
		# jbd2 has a directory for each journal in use, named after the device
		if compgen -G "/proc/fs/jbd2/${device##*/}-*" >/dev/null; then
			type="ext4 with a journal"
		else
			type="ext4 without a journal"
		fi
	fi
	echo "$type on $device"
}
