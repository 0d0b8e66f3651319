#!/usr/bin/env bats
# mqd under a real systemd, PID 1 of private namespaces (tests/systemd-root), installed by
# `make install` and turned on as the head of etc/mqd.socket says; and, since that machine has the
# user, the paths and the port that the files in etc/ name, under xinetd and tcpserver with those
# files unchanged. Each test boots a machine of its own.

load helper

MACHINE=$BATS_TEST_TMPDIR/machine
PORT=22201 # as shipped: the machine has a network of its own

setup() {
	local why
	[[ $EUID -eq 0 ]] || skip "a private systemd needs root"
	mkdir "$MACHINE"
	why=$("$BATS_TEST_DIRNAME/systemd-root" can "$MACHINE" 2>&1) || skip "no private systemd here: $why"

	"$BATS_TEST_DIRNAME/systemd-root" boot "$MACHINE" </dev/null >"$BATS_TEST_TMPDIR/log" 2>&1 3>&- &
	BOOT_PID=$!
	wait_for inside systemctl --quiet is-active basic.target

	inside systemd-sysusers mqd.conf
	inside systemd-tmpfiles --create mqd.conf
	inside systemctl daemon-reload
	inside systemctl --quiet enable --now mqd.socket
}

teardown() {
	[[ -n ${BOOT_PID:-} ]] || return 0
	kill "$BOOT_PID" 2>/dev/null || :
	wait "$BOOT_PID" || :
	cat "$BATS_TEST_TMPDIR/log"
}

inside() {
	"$BATS_TEST_DIRNAME/systemd-root" run "$MACHINE" "$@"
}

client() {
	"$BATS_TEST_DIRNAME/systemd-root" net "$MACHINE" "$@"
}

talk_to_machine() {
	client "$BATS_TEST_DIRNAME/transcript" tcp 127.0.0.1 "$PORT"
}

machine_listens() {
	talk_to_machine <<<$'> quit\n<eof'
}

no_instances() {
	[[ $(inside systemctl show --value --property NConnections mqd.socket) == 0 ]] &&
		[[ -z $(inside systemctl list-units --quiet --all 'mqd@*') ]]
}

# What systemd and the instances have to say about the instances; nothing, when all is well.
complaints() {
	inside journalctl --sync
	inside journalctl --quiet --output cat --unit 'mqd@*'
}

# use_pool [SED-EXPR]: the pool's units instead, the service changed.
use_pool() {
	inside systemctl disable --quiet --now mqd.socket
	if [[ $# -gt 0 ]]; then
		inside sed -i "$1" /usr/local/lib/systemd/system/mqd-pool.service
		inside systemctl daemon-reload
	fi
	inside systemctl --quiet enable --now mqd-pool.socket
}

pool_is() {
	[[ $(inside systemctl show --value --property ActiveState mqd-pool.service) == "$1" ]]
}

logged() {
	inside journalctl --quiet --output cat --identifier mqd | grep -i "$1"
}

# A set and a get, as the user mqd. What mqd logs goes to the journal, only replies to the client.
serves() {
	talk_to_machine <<'END'
> set q4 7 0 5
> hello
< STORED
> quit
<eof
connect
# Also what its sandbox must allow: a fifo, inotify, other scheduling.
> get q4/open
< VALUE q4/open 7 5
< hello
< END
> get q4/t=20
< END
> get q4/abort
< END
> get q4
< VALUE q4 7 5
< hello
< END
> quit
<eof
connect
>> \x80\x0a\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0
<< \x81\x0a\0\0\0\0\0\x81\0\0\0\x12\0\0\0\0\0\0\0\0\0\0\0\0text protocol only
<eof
END
	wait_for logged binary
	[[ $(inside stat -c '%U %G %a' /var/spool/mqd) == "mqd mqd 700" ]]
	[[ $(inside stat -c '%U %G %a' /var/spool/mqd/q4) == "mqd mqd 700" ]]
}

# refuses_none COUNT [OPTION...]: 1,000 in a row, then so many at once.
refuses_none() {
	local figures
	figures=$(client "$PYTHON" "$BATS_TEST_DIRNAME/connections.py" 127.0.0.1 "$PORT" 1000 --at-once "$@")
	echo "# ${BATS_TEST_DESCRIPTION%%:*}: $figures" >&3
}

@test "systemd: it knows every setting in the units" {
	run inside systemd-analyze verify --man=no mqd.socket mqd@.service mqd-pool.socket mqd-pool.service
	# The one that versions before 255 do not know.
	diff /dev/null <(grep -v "Unknown key.* 'PollLimitIntervalSec'" <<<"$output")
}

@test "systemd: a set and a get; the log goes to the journal, only replies to the client" {
	serves
}

@test "systemd: 1,000 connections in a row, then 300 at once, none refused" {
	refuses_none 300
	inside systemctl --quiet is-active mqd.socket
	[[ -z $(complaints) ]]
}

@test "systemd: an instance that failed is told, and is not kept" {
	inside mv /var/spool/mqd /var/spool/away
	talk_to_machine <<<'<eof'
	[[ -n $(complaints) ]]

	inside mv /var/spool/away /var/spool/mqd
	wait_for no_instances
	serves
}

@test "systemd: a connection that is open neither fails nor delays the shutdown" {
	client bash -c 'exec 3<>"/dev/tcp/127.0.0.1/$1"
		printf "version\r\n" >&3
		read -r <&3
		echo served
		cat <&3
		echo closed' client "$PORT" >"$BATS_TEST_TMPDIR/client" 3>&- &
	local client_pid=$!
	wait_for grep served "$BATS_TEST_TMPDIR/client"

	inside systemctl stop mqd.socket 'mqd@*'
	wait_for gone "$client_pid"
	wait "$client_pid"
	[[ $(<"$BATS_TEST_TMPDIR/client") == $'served\nclosed' ]]
	[[ -z $(complaints) ]]

	"$BATS_TEST_DIRNAME/systemd-root" halt "$MACHINE"
	wait_for gone "$BOOT_PID"
	wait "$BOOT_PID"
	BOOT_PID=
}

@test "systemd, a pool: a set and a get, 1,000 in a row, 1,000 at once, none refused" {
	use_pool
	serves
	refuses_none 1000
	pool_is active
	inside systemctl stop mqd-pool.service
	inside systemctl show --value --property Result mqd-pool.service | grep -qx success
}

@test "systemd, a pool that is idle stops, and the next connection starts it; again and again" {
	use_pool 's/pool_idle=[0-9]*/pool_idle=1/'
	local round
	for round in {1..7}; do
		machine_listens
		pool_is active
		wait_for pool_is inactive
	done
	inside systemctl --quiet is-active mqd-pool.socket
	inside systemctl show --value --property Result mqd-pool.service | grep -qx success
}

@test "xinetd, the file unchanged: a set and a get, 1,000 connections, 300 at once" {
	inside systemctl disable --quiet --now mqd.socket
	inside tee /etc/xinetd.d/mqd <"$TOP/etc/mqd.xinetd" >/dev/null
	inside systemctl start xinetd
	wait_for machine_listens
	serves
	refuses_none 300 --knocking 50 # its listen queue holds 64, compiled in
}

@test "tcpserver, the file unchanged: a set and a get, 1,000 connections, 300 at once" {
	inside systemctl disable --quiet --now mqd.socket
	inside install -D /dev/stdin /etc/sv/mqd/run <"$TOP/etc/tcpserver-run"
	inside systemd-run --quiet --unit tcpserver /etc/sv/mqd/run
	wait_for machine_listens
	serves
	refuses_none 300
}
