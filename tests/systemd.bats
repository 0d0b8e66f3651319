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
	[[ -z ${TLS_PID:-} ]] || kill "$TLS_PID" || :
	[[ -n ${BOOT_PID:-} ]] || return 0
	stop "$BOOT_PID"
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

# A get that waits until somebody pushes, on other connections.
serves_who_waits() {
	talk_to_machine <<'END'
> get q5/t=9000
<silence
connect other
> set q5 0 0 4
> wake
< STORED
use first
< VALUE q5/t=9000 0 4
< wake
< END
END
}

# mqctl finds the client of a message, although who serves it has another network.
knows_who_holds() {
	client bash -c 'exec 3<>"/dev/tcp/127.0.0.1/$1"
		printf "set q6 0 0 1\r\nx\r\nget q6/open\r\n" >&3
		read -r <&3 && read -r <&3
		echo served
		cat <&3' client "$PORT" >"$BATS_TEST_TMPDIR/holder" 3>&- &
	local client_pid=$!
	wait_for grep served "$BATS_TEST_TMPDIR/holder"
	inside /usr/local/bin/mqctl open q6 | tee "$BATS_TEST_TMPDIR/open"
	grep -q '^q6 .* 127\.0\.0\.1:[0-9]*$' "$BATS_TEST_TMPDIR/open"
	stop "$client_pid"
}

# replace_by_escape UNIT [ARG]: tests/escape runs in place of mqd, in the same sandbox.
replace_by_escape() {
	"${CC:-cc}" -D_GNU_SOURCE -static -o "$BATS_TEST_TMPDIR/escape" "$BATS_TEST_DIRNAME/escape.c"
	inside sh -c 'cat >/usr/local/sbin/escape && chmod 755 /usr/local/sbin/escape' <"$BATS_TEST_TMPDIR/escape"
	inside mkdir -p "/etc/systemd/system/$1.d"
	inside tee "/etc/systemd/system/$1.d/escape.conf" >/dev/null <<-END
		[Service]
		ExecStart=
		ExecStart=/usr/local/sbin/escape ${2:-}
	END
	inside systemctl daemon-reload
}

# All that escape tries is refused, but for a file in the spool; and all is allowed without a sandbox.
refuses_escape() {
	local tried
	client bash -c 'exec 3<>"/dev/tcp/127.0.0.1/$1" && cat <&3' client "$PORT" | tr -d '\r' >"$BATS_TEST_TMPDIR/tries"
	diff <(echo allowed /var/spool/mqd/own) <(grep allowed "$BATS_TEST_TMPDIR/tries")
	tried=$(grep -c refused "$BATS_TEST_TMPDIR/tries")
	inside /usr/local/sbin/escape </dev/null | tr -d '\r' >"$BATS_TEST_TMPDIR/control"
	diff <(cut -d ' ' -f 2 "$BATS_TEST_TMPDIR/tries") <(sed -n 's/^allowed //p' "$BATS_TEST_TMPDIR/control")
	echo "# refused, in the sandbox of $1: $tried of $tried" >&3
}

# refuses_none ROW COUNT [OPTION...]: so many in a row, then so many at once.
refuses_none() {
	local figures
	figures=$(client "$PYTHON" "$BATS_TEST_DIRNAME/connections.py" 127.0.0.1 "$PORT" "$1" --at-once "${@:2}")
	echo "# ${BATS_TEST_DESCRIPTION%%:*}: $figures" >&3
}

# certificates DIR: a CA, a server's certificate and a client's, as stunnel-mqd.conf says how.
certificates() {
	local commands
	commands=$(sed -n 's/^;     //p' "$TOP/etc/stunnel-mqd.conf")
	mkdir "$1"
	(cd "$1" && bash -e <<<"$commands" && sed -e 1,2d -e s/server/client/g <<<"$commands" | bash -e) 2>/dev/null
}

# use_tls: mqd-tls.socket instead, as it says itself; and a stunnel for the clients on their own side
# of it, on the port that they know.
use_tls() {
	local file tls=$BATS_TEST_TMPDIR/tls
	certificates "$tls"
	inside systemctl disable --quiet --now mqd.socket
	inside install -D -m 644 /usr/local/share/doc/mqd/examples/stunnel-mqd.conf /etc/mqd/stunnel-mqd.conf
	for file in ca.crt server.crt server.key; do
		inside install -D -o mqd -m 400 /dev/stdin "/etc/mqd/tls/$file" <"$tls/$file"
	done
	inside systemctl --quiet enable --now mqd-tls.socket

	sed -e "s,/etc/mqd/tls,$tls,; s,mq.example.org:,127.0.0.1:," "$TOP/etc/stunnel-client.conf" >"$BATS_TEST_TMPDIR/client.conf"
	"$BATS_TEST_DIRNAME/systemd-root" net "$MACHINE" stunnel4 "$BATS_TEST_TMPDIR/client.conf" \
		>"$BATS_TEST_TMPDIR/client.log" 2>&1 3>&- &
	TLS_PID=$!
	wait_for machine_listens
}

# unsealed TEXT: all that comes back when TEXT is sent to the port of TLS as it is.
unsealed() {
	client timeout 20 bash -c 'exec 3<>/dev/tcp/127.0.0.1/22443 && printf "$0" >&3 && cat <&3' "$1" | od -An -v -tx1
}

# refused TEXT OPTION...: a push by a client with these options of s_client is answered by TLS alone, and
# the journal has TEXT.
refused() {
	local text=$1
	shift
	printf 'set intruder 0 0 1\r\nx\r\nquit\r\n' | client timeout 20 openssl s_client -quiet -connect 127.0.0.1:22443 "$@" \
		>"$BATS_TEST_TMPDIR/answer" 2>"$BATS_TEST_TMPDIR/why" || :
	grep alert "$BATS_TEST_TMPDIR/why"
	diff /dev/null "$BATS_TEST_TMPDIR/answer"
	wait_for stunnel_logged "$text"
}

# By its name: who has ended before journald looks is of no unit any more.
stunnel_logged() {
	inside journalctl --quiet --output cat --identifier stunnel --identifier mqd-tls | grep "$1"
}

@test "systemd: it knows every setting in the units" {
	run inside systemd-analyze verify --man=no mqd.socket mqd@.service mqd-pool.socket mqd-pool.service \
		mqd-tls.socket mqd-tls@.service mqd-http.socket mqd-http@.service
	# The one that versions before 255 do not know.
	diff /dev/null <(grep -v "Unknown key.* 'PollLimitIntervalSec'" <<<"$output")
}

@test "systemd: a set and a get, one that waits; the log goes to the journal, only replies to the client" {
	serves
	serves_who_waits
	knows_who_holds
}

@test "systemd: what a worker could do is little: systemd-analyze's exposure is 1.0 at most" {
	local unit output
	for unit in "$TOP"/etc/*.service; do
		output=$(systemd-analyze security --no-pager --offline=true --threshold=10 "$unit" 2>&1) || {
			echo "$output"
			return 1
		}
		grep -o 'Overall.*[0-9]' <<<"$output" | sed 's/^/# /' >&3
	done
}

@test "systemd: a worker that tries something else is refused it" {
	replace_by_escape mqd@.service
	refuses_escape mqd@.service
}

@test "systemd, a pool: a worker that tries something else is refused it" {
	replace_by_escape mqd-pool.service accept
	use_pool
	refuses_escape mqd-pool.service
}

@test "systemd: 100 connections in a row, then 100 at once, none refused" {
	refuses_none 100 100
	[[ -z $(complaints) ]]
}

# With the sandbox systemd is too slow to come near the limits of the socket on this or that machine.
@test "systemd, no sandbox: 500 connections in a row, then 300 at once, none refused" {
	inside sed -i '/^NoNewPrivileges=/,$d' /usr/local/lib/systemd/system/mqd@.service
	inside systemctl daemon-reload
	refuses_none 500 300
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
	serves_who_waits
	knows_who_holds
	refuses_none 1000 1000
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

# As the comment in mqd-pool.service says.
@test "systemd, a pool: with -Y a client gives a password first; while the file cannot be read, it waits" {
	inside mkdir -p /etc/mqd /etc/systemd/system/mqd-pool.service.d
	inside tee /etc/systemd/system/mqd-pool.service.d/override.conf >/dev/null <<-'END'
		[Service]
		ExecStart=
		ExecStart=/usr/local/sbin/mqd -H /var/spool/mqd -o pool_idle=300 -Y /etc/mqd/passwords
	END
	inside systemctl daemon-reload
	printf 'joe:%s\n' "$(openssl passwd -6 secret)" | inside install -g mqd -m 640 /dev/stdin /etc/mqd/passwords
	use_pool

	talk_to_machine <<-'END'
		> get q4
		< CLIENT_ERROR unauthenticated
		> set any 0 0 10
		> joe secre?
		< CLIENT_ERROR authentication failure
		> set any 0 0 10
		> joe secret
		< STORED
		> set q4 0 0 5
		> hello
		< STORED
		> get q4
		< VALUE q4 0 5
		< hello
		< END
	END

	# Started as mqd, it cannot read this: who comes waits until that is mended, and is served.
	inside systemctl stop mqd-pool.service 2>/dev/null
	inside chmod 600 /etc/mqd/passwords
	client bash -c 'exec 3<>"/dev/tcp/127.0.0.1/$1"
		printf "set any 0 0 10\r\njoe secret\r\n" >&3
		read -r <&3
		echo "$REPLY"' client "$PORT" >"$BATS_TEST_TMPDIR/client" 3>&- &
	local client_pid=$!
	wait_for logged '/etc/mqd/passwords: Permission denied'
	wait_for pool_is activating # and not in a circle
	inside chmod 640 /etc/mqd/passwords
	wait_for gone "$client_pid"
	grep STORED "$BATS_TEST_TMPDIR/client"
}

@test "systemd, TLS: a client with a certificate is served, in silence; others are refused, and are told nothing" {
	use_tls
	serves
	serves_who_waits
	inside journalctl --sync
	diff /dev/null <(stunnel_logged '')
	diff /dev/null <(inside journalctl --quiet --output cat --unit 'mqd-tls@*' | grep -v 'binary protocol')

	local tls=$BATS_TEST_TMPDIR/tls stranger=$BATS_TEST_TMPDIR/stranger
	certificates "$stranger"
	refused 'peer did not return a certificate'
	refused 'Rejected by CERT' -cert "$stranger/client.crt" -key "$stranger/client.key"
	refused 'unsupported protocol' -cert "$tls/client.crt" -key "$tls/client.key" -tls1_1 -cipher DEFAULT:@SECLEVEL=0
	# An alert: 15, the version, its length and two bytes of what it is about.
	[[ $(unsealed 'set intruder 0 0 1\r\nx\r\n') =~ ^(\ 15\ 03\ ..\ 00\ 02\ ..\ ..)?$ ]]
	inside test ! -e /var/spool/mqd/intruder

	# A mistake of ours is for the journal as well.
	inside chown root /etc/mqd/tls/server.key
	[[ -z $(unsealed 'version\r\n') ]]
	wait_for stunnel_logged server.key
	inside chown mqd /etc/mqd/tls/server.key
	serves
}

@test "systemd, TLS: a stunnel that tries something else is refused it" {
	use_tls
	replace_by_escape mqd-tls@.service
	PORT=22443 refuses_escape mqd-tls@.service
}

@test "systemd, TLS: without a configuration the socket does not open" {
	run inside systemctl start mqd-tls.socket
	[[ $status -ne 0 ]]
	[[ $(inside systemctl show --value --property ActiveState mqd-tls.socket) == inactive ]]
}

@test "xinetd, the file unchanged: a set and a get, 1,000 connections, 300 at once" {
	inside systemctl disable --quiet --now mqd.socket
	inside tee /etc/xinetd.d/mqd <"$TOP/etc/mqd.xinetd" >/dev/null
	inside systemctl start xinetd
	wait_for machine_listens
	serves
	refuses_none 1000 300 --knocking 50 # its listen queue holds 64, compiled in
}

@test "tcpserver, the file unchanged: a set and a get, 1,000 connections, 300 at once" {
	inside systemctl disable --quiet --now mqd.socket
	inside install -D /dev/stdin /etc/sv/mqd/run <"$TOP/etc/tcpserver-run"
	inside systemd-run --quiet --unit tcpserver /etc/sv/mqd/run
	wait_for machine_listens
	serves
	refuses_none 1000 300
}
