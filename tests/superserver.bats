#!/usr/bin/env bats
# mqd under the super-servers that are no init: xinetd, systemd-socket-activate, tcpserver, each
# with the file from etc/ as it ships. (tests/systemd.bats is the real systemd.)

load helper

setup() {
	ETC=$TOP/etc
	mkdir "$SPOOL"
	PORT=$(free_port)
}

# All of it has to end at SIGTERM. xinetd leaves alone what it started with `wait = yes`.
teardown() {
	[[ -n ${SERVER_PID:-} ]] || return 0
	local pids pid
	mapfile -t pids < <(echo "$SERVER_PID" && pgrep -P "$SERVER_PID")
	kill "${pids[@]}" 2>/dev/null || : # one may just have ended
	for pid in "${pids[@]}"; do
		wait_for gone "$pid"
	done
}

# shipped FILE EXPR...: the file from etc/ with the sed expressions applied; each must change it.
shipped() {
	local text new expr
	text=$(<"$ETC/$1")
	for expr in "${@:2}"; do
		new=$(sed "$expr" <<<"$text")
		if [[ $new == "$text" ]]; then
			echo "etc/$1: nothing changed by $expr" >&2
			return 1
		fi
		text=$new
	done
	echo "$text"
}

# serve CMD...: the super-server in the background, and ready.
serve() {
	"$@" </dev/null >>"$BATS_TEST_TMPDIR/log" 2>&1 3>&- &
	SERVER_PID=$!
	wait_for listening "$PORT"
}

# serves_everyone OPTION...: what each super-server is put through, with how many at once.
serves_everyone() {
	local figures

	talk_tcp <<'END'
> set q4 7 0 5
> hello
< STORED
> quit
<eof
connect
> get q4
< VALUE q4 7 5
< hello
< END
> quit
<eof
# mqd logs this one; its descriptor 2 can be the connection too, and nothing may follow the reply.
connect
>> \x80\x0a\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0
<< \x81\x0a\0\0\0\0\0\x81\0\0\0\x12\0\0\0\0\0\0\0\0\0\0\0\0text protocol only
<eof
END

	# More in a second, and more at a time, than these servers allow by default.
	figures=$("$PYTHON" "$BATS_TEST_DIRNAME/connections.py" 127.0.0.1 "$PORT" 1000 "$@")
	echo "# ${BATS_TEST_DESCRIPTION%%:*}: $figures" >&3
}

# xinetd_conf FILE: the stanza as it ships, but for the port, the paths and the user.
xinetd_conf() {
	shipped "$1" \
		"/^\tport/s|22201|$PORT|" \
		"/^\tserver /s|/usr/local/sbin/mqd|$MQD|" \
		"/^\tserver_args/s|/var/spool/mqd|$SPOOL|" \
		"/^\tuser/s|mqd|$(id -un)|" \
		"/^\tgroup/s|mqd|$(id -gn)|"
}

# activate SOCKET SERVICE OPTION...: systemd-socket-activate with what these units name.
activate() {
	local listen command
	listen=$(shipped "$1" "s|^ListenStream=127.0.0.1:22201$|ListenStream=127.0.0.1:$PORT|")
	listen=$(sed -n 's/^ListenStream=//p' <<<"$listen")
	command=$(shipped "$2" \
		"/^ExecStart=/s|/usr/local/sbin/mqd|$MQD|" \
		"/^ExecStart=/s|/var/spool/mqd|$SPOOL|")
	read -ra command < <(sed -n 's/^ExecStart=//p' <<<"$command")
	serve systemd-socket-activate -l "$listen" "${@:3}" -- "${command[@]}"
}

@test "xinetd: etc/mqd.xinetd as it ships" {
	xinetd_conf mqd.xinetd >"$BATS_TEST_TMPDIR/conf"
	serve xinetd -dontfork -f "$BATS_TEST_TMPDIR/conf" -filelog "$BATS_TEST_TMPDIR/xinetd.log" \
		-pidfile "$BATS_TEST_TMPDIR/pid"
	serves_everyone --at-once 1000 --knocking 50 # its listen queue holds 64, compiled in
}

@test "xinetd, wait = yes: etc/mqd-pool.xinetd as it ships" {
	xinetd_conf mqd-pool.xinetd >"$BATS_TEST_TMPDIR/conf"
	serve xinetd -dontfork -f "$BATS_TEST_TMPDIR/conf" -filelog "$BATS_TEST_TMPDIR/xinetd.log" \
		-pidfile "$BATS_TEST_TMPDIR/pid"
	serves_everyone --at-once 1000
}

@test "systemd-socket-activate: the listening socket is descriptor 3" {
	activate mqd-pool.socket mqd-pool.service
	serves_everyone --at-once 1000
}

@test "systemd-socket-activate --inetd: the listening socket is descriptor 0" {
	activate mqd-pool.socket mqd-pool.service --inetd
	serves_everyone --at-once 300
}

@test "systemd-socket-activate -a: the connection is descriptor 3" {
	activate mqd.socket mqd@.service -a
	serves_everyone --at-once 300
}

@test "systemd-socket-activate -a --inetd: the connection is descriptor 0" {
	activate mqd.socket mqd@.service -a --inetd
	serves_everyone --at-once 300
}

@test "tcpserver: etc/tcpserver-run as it ships" {
	[[ $EUID -eq 0 ]] || skip "tcpserver -g needs root"
	shipped tcpserver-run \
		"/^\t127/s|22201|$PORT|" \
		"/^\t127/s|/usr/local/sbin/mqd|$MQD|" \
		"/^\t127/s|/var/spool/mqd|$SPOOL|" \
		's|id -u mqd|id -u|' \
		's|id -g mqd|id -g|' >"$BATS_TEST_TMPDIR/run"
	chmod +x "$BATS_TEST_TMPDIR/run"
	serve "$BATS_TEST_TMPDIR/run"
	serves_everyone --at-once 300
}
