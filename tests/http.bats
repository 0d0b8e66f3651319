#!/usr/bin/env bats
# mqctl http: what it answers to every kind of request, and that it changes nothing.

load helper

setup() {
	mkdir -m 700 "$SPOOL"
}

teardown() {
	stop_mqd
	[[ -z ${MANY:-} ]] || rm -rf "$MANY"
}

# http [option...] < request: the answer.
http() {
	"$MQCTL" -H "$SPOOL" http "$@"
}

# ask REQUEST [option...]: a request as for printf; sets STATUS, HEAD and BODY.
ask() {
	local answer
	# shellcheck disable=SC2059
	printf "$1" | http "${@:2}" >"$BATS_TEST_TMPDIR/answer"
	answer=$(tr -d '\r\0' <"$BATS_TEST_TMPDIR/answer")
	HEAD=${answer%%$'\n\n'*}
	BODY=${answer:${#HEAD}}
	BODY=${BODY#$'\n\n'}
	STATUS=${HEAD#HTTP/1.1 }
	STATUS=${STATUS%% *}
}

# get PATH [option...]
get() {
	ask "GET ${1//%/%%} HTTP/1.1\r\nHost: localhost\r\n\r\n" "${@:2}"
}

# is STATUS REQUEST: is it answered so?
is() {
	ask "$2"
	[[ $STATUS == "$1" ]] || { echo "$2: $STATUS, not $1" && false; }
}

# Does somebody wait for a message?
waited_for() {
	ctl metrics | grep -q '^mqd_queue_getters{queue="w"} 1$'
}

# serve [option...]: on a port, as a super-server starts it.
serve() {
	PORT=$(free_port)
	tcpserver -HRDl0 127.0.0.1 "$PORT" "$MQCTL" -H "$SPOOL" http "$@" 2>>"$BATS_TEST_TMPDIR/log" 3>&- &
	MQD_PID=$!
	wait_for listening "$PORT"
}

# A number of bytes.
many() {
	head -c "$1" /dev/zero | tr '\0' "${2:-a}"
}

@test "the answer has its length, is not kept, and lets nothing else in" {
	get /healthz
	[ "$STATUS" = 200 ]
	[ "$BODY" = "ok, status up" ]
	[[ $HEAD == *$'\nContent-Length: 14\n'* ]]
	[[ $HEAD == *$'\nConnection: close\n'* ]]
	[[ $HEAD == *$'\nCache-Control: no-store\n'* ]]
	[[ $HEAD == *$'\nX-Content-Type-Options: nosniff\n'* ]]
	[[ $HEAD == *$'\nContent-Security-Policy: default-src \'none\';'* ]]
	[[ $HEAD =~ $'\n'Date:\ (Mon|Tue|Wed|Thu|Fri|Sat|Sun),\ [0-9]{2}\ [A-Z][a-z]{2}\ [0-9]{4}\ [0-9:]{8}\ GMT$'\n' ]]
	get /
	local nonce
	nonce=$(sed -n "s/.*script-src 'nonce-\([0-9a-f]*\)'.*/\1/p" <<<"$HEAD")
	[ "${#nonce}" -eq 32 ]
	[ "$(grep -c "nonce=\"$nonce\"" <<<"$BODY")" -eq 2 ]
	[[ $HEAD != *unsafe* ]]
	get /
	[[ $HEAD != *"$nonce"* ]]
}

@test "HEAD is GET without a body; HTTP/1.0 needs no Host; absolute, encoded and with a query it is the same" {
	local length
	get /queues.json
	length=$(grep ^Content-Length <<<"$HEAD")
	ask 'HEAD /queues.json HTTP/1.1\r\nHost: localhost\r\n\r\n'
	[ "$STATUS" = 200 ]
	[ -z "$BODY" ]
	[ "$(grep ^Content-Length <<<"$HEAD")" = "$length" ]
	ask 'HEAD /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n'
	[ "$STATUS" = 404 ]
	[ -z "$BODY" ]
	is 200 'GET /healthz HTTP/1.0\r\n\r\n'
	is 200 'GET /healthz HTTP/1.0\n\n'
	is 200 '\r\n\r\nGET /healthz HTTP/1.1\r\nhOST: [::1]:22202\r\n\r\n'
	is 200 'GET http://127.0.0.1:22202/healthz HTTP/1.1\r\nHost: elsewhere\r\n\r\n'
	is 200 'GET http://localhost HTTP/1.1\r\nHost: localhost\r\n\r\n'
	is 200 'GET /%%68ealth%%7A HTTP/1.1\r\nHost: localhost\r\n\r\n'
	is 200 'GET /healthz?a=/b%%zz HTTP/1.1\r\nHost: localhost:80\r\nX-A: \xe9\tb\r\n\r\n'
}

@test "what is no request is refused" {
	is 400 'GET /healthz HTTP/1.1\r\n\r\n'
	is 400 'GET /healthz HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n'
	is 400 'GET /healthz HTTP/1.1\r\nHost: a b\r\n\r\n'
	is 400 'GET /healthz HTTP/1.1\r\nHost: a:b\r\n\r\n'
	is 400 'GET /healthz HTTP/1.1\r\nHost : a\r\n\r\n'
	is 400 'GET /healthz HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n'
	is 400 'GET /healthz HTTP/1.1\r\nno colon\r\n\r\n'
	is 400 'GET /healthz HTTP/1.1\r\nHost: a\rb\r\n\r\n'
	is 400 'GET /healthz HTTP/1.1\r\nHost: a\0\r\n\r\n'
	is 400 'GET /healthz\r\n'
	is 400 'GET /healthz HTTP/1.1 \r\nHost: a\r\n\r\n'
	is 400 'GET  /healthz HTTP/1.1\r\nHost: a\r\n\r\n'
	is 400 'GET healthz HTTP/1.1\r\nHost: a\r\n\r\n'
	is 400 'GET * HTTP/1.1\r\nHost: a\r\n\r\n'
	is 400 'GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n'
	is 400 'GET /%%0 HTTP/1.1\r\nHost: a\r\n\r\n'
	is 400 'GET /%%00 HTTP/1.1\r\nHost: a\r\n\r\n'
	is 400 'GET /%%zz HTTP/1.1\r\nHost: a\r\n\r\n'
	is 400 'GET http:///healthz HTTP/1.1\r\nHost: a\r\n\r\n'
	is 400 'GET http://u@localhost/healthz HTTP/1.1\r\nHost: a\r\n\r\n'
	is 400 'GET /healthz http/1.1\r\nHost: a\r\n\r\n'
	is 505 'GET /healthz HTTP/2.0\r\nHost: a\r\n\r\n'
	is 505 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'
	is 400 'set q 0 0 1\r\nx\r\n'
	is 400 '\x16\x03\x01'
	is 400 '\x80\x0a'
	is 400 'GET /healthz HT'
}

@test "a request that is too long is refused before it has ended" {
	local line
	line=$(many 3000)
	is 414 "GET /$line"
	is 414 "$line"
	is 431 "GET / HTTP/1.1\r\nHost: localhost\r\nX: $line"
	is 431 "GET / HTTP/1.1\r\nHost: localhost\r\n$(for i in {1..50}; do printf '%s' "X-$i: $(many 200)\\r\\n"; done)"
	is 404 "GET /$(many 2000) HTTP/1.1\r\nHost: localhost\r\n\r\n"
}

@test "what would change something is no method of it, and nothing outside is a path of it" {
	local method path
	printf x | ctl put q
	for method in POST PUT DELETE PATCH OPTIONS TRACE CONNECT get FOO; do
		ask "$method /messages/q HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc" --bodies
		[ "$STATUS" = 405 ]
		[[ $HEAD == *$'\nAllow: GET, HEAD\n'* ]]
	done
	for path in /../../etc/passwd /%2e%2e/%2e%2e/etc/passwd //etc/passwd /q /q/0000000000000001 /messages /messages/ \
		/messages/../q /messages/q/ /messages/%2e%2e%2fspool /messages/.. /messages/nothing /healthz/ /METRICS; do
		get "$path" --bodies
		[ "$STATUS" = 404 ] || { echo "$path: $STATUS"; false; }
	done
}

@test "bodies are shown with --bodies alone, the oldest messages first, a damaged one as such" {
	local i
	for i in {1..12}; do
		printf 'body %d <b>' "$i" | ctl put 'a b%'
	done
	printf '\xff' | ctl put bytes
	{ many 199 && printf 'é tail'; } | ctl put long
	get /messages/a%20b%25
	[ "$STATUS" = 404 ]
	get /messages/a%20b%25 --bodies
	[ "$STATUS" = 200 ]
	[ "$(grep -c '"number"' <<<"$BODY")" -eq 10 ]
	[[ $BODY == *'"body": "body 1 \u003cb>"'*'"body": "body 10 \u003cb>"'* ]]
	[[ $BODY != *"<"* ]]
	get /messages/a%2520b%2525 --bodies # as mqctl ls shows it
	[ "$STATUS" = 200 ]
	get /messages/bytes --bodies
	[[ $BODY == *'"body": {"base64": "/w=="}'* ]]
	get /messages/long --bodies # cut in the middle of a character
	[[ $BODY == *'"bytes": 206, '*"\"body\": \"$(many 199)\", \"cut\": true"* ]]
	printf y >>"$SPOOL/bytes/0000000000000001"
	get /messages/bytes --bodies
	[[ $BODY == *'"damaged": true'* ]]
	[[ $BODY != *'"body"'* ]]
	get /queues.json
	[[ $BODY == *'"bodies": false'* ]]
}

@test "a name of somebody else's that leads here is refused, unless it was given" {
	ask 'GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n'
	[ "$STATUS" = 421 ]
	ask 'GET / HTTP/1.1\r\nHost: MQ1.example:22202\r\n\r\n' --host mq2.example --host Mq1.example
	[ "$STATUS" = 200 ]
	is 200 'GET / HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n'
	is 421 'GET / HTTP/1.1\r\nHost: 192.0.2.1.evil.example\r\n\r\n'
	run http --nonsense </dev/null
	[ "$status" -eq 100 ]
	run http --host </dev/null
	[ "$status" -eq 100 ]
}

@test "what is in the way of messages is bad health" {
	chmod 770 "$SPOOL"
	get /healthz
	[ "$STATUS" = 503 ]
	[[ $BODY == "the spool: "* ]]
	chmod 700 "$SPOOL"
	ctl status quiescent
	get /healthz
	[ "$BODY" = "ok, status quiescent" ]
	rm -r "$SPOOL"
	get /healthz
	[ "$STATUS" = 503 ]
	[[ $BODY == "the spool: No such file or directory" ]]
	get /metrics
	[ "$STATUS" = 503 ]
	get /
	[ "$STATUS" = 200 ]
}

@test "nothing in the spool changes, and no lock is waited for or taken" {
	local before i trace=$BATS_TEST_TMPDIR/trace
	native "valgrind opens files, too"
	for i in 1 2 3; do
		printf '%d' "$i" | ctl put q
	done
	ctl get q >/dev/null
	mkdir "$SPOOL/made-by-hand" # there is no .state in it, nor will there be
	before=$(find "$SPOOL" -printf '%p %i %s %m %T@ %C@\n' | sort)
	for i in / /metrics /healthz /queues.json /messages/q; do
		strace -f -o "$trace" -e trace=%file,%desc "$MQCTL" -H "$SPOOL" http --bodies \
			<<<"GET $i HTTP/1.0"$'\n' >"$BATS_TEST_TMPDIR/answer"
		[[ $(head -n 1 "$BATS_TEST_TMPDIR/answer") == "HTTP/1.1 200"* ]]
		if grep -E 'O_CREAT|O_RDWR|O_WRONLY|flock\(|F_SETLK|mkdir|unlink|rename|truncate' "$trace"; then false; fi
	done
	[ "$(find "$SPOOL" -printf '%p %i %s %m %T@ %C@\n' | sort)" = "$before" ]
	# Somebody holds the lock of the queue: whoever looks does not wait.
	flock "$SPOOL/q/.state" timeout 5 "$MQCTL" -H "$SPOOL" http <<<$'GET /queues.json HTTP/1.0\n' >"$BATS_TEST_TMPDIR/answer"
	grep -q '"encoded": "q", "waiting": 2,' "$BATS_TEST_TMPDIR/answer"
}

@test "it looks at a spool that is mounted read-only, and knows that from a read-only file system" {
	[[ $EUID -eq 0 ]] || skip "needs root"
	printf x | ctl put q
	start_mqd
	exec 8<>"/dev/tcp/127.0.0.1/$PORT"
	printf 'get w/t=60000\r\n' >&8
	wait_for waited_for
	# shellcheck disable=SC2016
	run unshare --mount bash -c 'mount --bind -o ro "$1" "$1" && mount -o remount,bind,ro "$1" && ! : 2>/dev/null >"$1/x" &&
		printf "GET /queues.json HTTP/1.0\n\n" | "$0" -H "$1" http && printf "GET /healthz HTTP/1.0\n\n" | "$0" -H "$1" http' "$MQCTL" "$SPOOL"
	echo "$output"
	[ "$status" -eq 0 ]
	[[ $output == *'"encoded": "q", "waiting": 1,'*'"encoded": "w", '*'"getters": 1,'*"ok, status up"* ]]
	# shellcheck disable=SC2016
	run unshare --mount bash -c 'mount -t tmpfs -o mode=700 none "$1" && mount -o remount,ro "$1" &&
		printf "GET /healthz HTTP/1.0\n\n" | "$0" -H "$1" http' "$MQCTL" "$SPOOL"
	echo "$output"
	[[ $output == *"503 Service"*"the spool: the file system is read-only" ]]
}

@test "on a socket: the answer comes whole though more was sent, the second request is not answered" {
	printf x | ctl put q
	serve
	"$PYTHON" - "$PORT" <<'END'
import socket, sys

def ask(data, close=False):
    s = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 20)
    s.sendall(data)
    if close:
        s.shutdown(socket.SHUT_WR)
    answer = b""
    while piece := s.recv(65536):
        answer += piece
    return answer

get = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
assert ask(get).endswith(b"ok, status up\n")
assert ask(get * 2).count(b"HTTP/1.1 200") == 1
assert ask(get + b"x" * 60000).endswith(b"ok, status up\n")
assert ask(b"POST /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n" + b"x" * 60000).startswith(b"HTTP/1.1 405")
# Byte by byte.
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 20)
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
for i in range(len(get)):
    s.sendall(get[i:i + 1])
assert s.makefile("rb").read().endswith(b"ok, status up\n")
assert ask(b"", close=True) == b""
assert ask(b"GET /", close=True).startswith(b"HTTP/1.1 400")
END
}

@test "who sends nothing more is not waited for: 408 after ten seconds" {
	native "it is about time"
	mkfifo "$BATS_TEST_TMPDIR/client"
	exec 8<>"$BATS_TEST_TMPDIR/client"
	printf 'GET / HTTP/1.1\r\n' >&8
	SECONDS=0
	http <"$BATS_TEST_TMPDIR/client" >"$BATS_TEST_TMPDIR/answer" 8>&-
	((SECONDS >= 9 && SECONDS < 20))
	grep -q '^HTTP/1.1 408' "$BATS_TEST_TMPDIR/answer"
}

@test "standard error that is the client's socket sees nothing but the answer" {
	rm -r "$SPOOL"
	"$PYTHON" - "$MQCTL" "$SPOOL" <<'END'
import socket, subprocess, sys
ours, theirs = socket.socketpair()
p = subprocess.Popen([sys.argv[1], "-H", sys.argv[2], "http"], stdin=theirs, stdout=theirs, stderr=theirs)
theirs.close()
ours.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
answer = ours.makefile("rb").read()
assert answer.startswith(b"HTTP/1.1 503") and b"mqctl:" not in answer, answer
ours.close()
assert p.wait() == 0
END
}

@test "under xinetd, with the file as it ships but for paths and port" {
	[[ $EUID -eq 0 ]] || skip "xinetd needs root"
	printf x | ctl put q
	PORT=$(free_port)
	sed -e "s|22202|$PORT|; s|/usr/local/bin/mqctl|$MQCTL|; s|/var/spool/mqd|$SPOOL|; s|= mqd$|= root|" \
		"$TOP/etc/mqd-http.xinetd" >"$BATS_TEST_TMPDIR/mqd-http"
	echo "includedir $BATS_TEST_TMPDIR/conf" >"$BATS_TEST_TMPDIR/xinetd.conf"
	mkdir "$BATS_TEST_TMPDIR/conf"
	mv "$BATS_TEST_TMPDIR/mqd-http" "$BATS_TEST_TMPDIR/conf/"
	xinetd -dontfork -inetd_ipv6 -f "$BATS_TEST_TMPDIR/xinetd.conf" -pidfile "$BATS_TEST_TMPDIR/pid" \
		</dev/null >>"$BATS_TEST_TMPDIR/log" 2>&1 3>&- &
	MQD_PID=$!
	wait_for listening "$PORT"
	exec 8<>"/dev/tcp/127.0.0.1/$PORT"
	printf 'GET /queues.json HTTP/1.0\n\n' >&8
	grep -q '"encoded": "q", "waiting": 1,' <&8
}

@test "under systemd, with the units as they ship: looked at, nothing written, judged safe" {
	[[ $EUID -eq 0 ]] || skip "a private systemd needs root"
	native "the machine has no valgrind"
	local machine=$BATS_TEST_TMPDIR/machine why boot
	mkdir "$machine"
	why=$("$BATS_TEST_DIRNAME/systemd-root" can "$machine" 2>&1) || skip "no private systemd here: $why"
	inside() {
		"$BATS_TEST_DIRNAME/systemd-root" run "$machine" "$@"
	}
	"$BATS_TEST_DIRNAME/systemd-root" boot "$machine" </dev/null >"$BATS_TEST_TMPDIR/log" 2>&1 3>&- &
	boot=$!
	MQD_PID=$boot # for teardown
	wait_for inside systemctl --quiet is-active basic.target
	inside systemd-sysusers mqd.conf
	inside systemd-tmpfiles --create mqd.conf
	inside systemctl daemon-reload
	inside systemctl --quiet enable --now mqd-http.socket
	printf x | inside mqctl put q
	inside rm /var/spool/mqd/q/.state # which it may not make anew
	# shellcheck disable=SC2016
	run inside bash -c 'for path in /queues.json /metrics /healthz /; do
		exec 8<>/dev/tcp/127.0.0.1/22202; printf "GET $path HTTP/1.1\r\nHost: localhost:22202\r\n\r\n" >&8; cat <&8; done'
	echo "$output"
	[ "$(grep -c '^HTTP/1.1 200 OK' <<<"$output")" -eq 4 ]
	[[ $output == *'"encoded": "q", "waiting": 1,'* ]]
	[[ $output == *'mqd_queue_waiting_messages{queue="q"} 1'* ]]
	[[ $output == *"ok, status up"* ]]
	inside test ! -e /var/spool/mqd/q/.state
	inside journalctl --sync
	[ -z "$(inside journalctl --quiet --output cat --unit 'mqd-http@*')" ]
	run inside systemd-analyze security --offline=true --threshold=10 /usr/local/lib/systemd/system/mqd-http@.service
	[ "$status" -eq 0 ]
	# What it could leave behind, were it another program.
	inside mkdir -p /etc/systemd/system/mqd-http@.service.d
	# shellcheck disable=SC2016
	inside tee /etc/systemd/system/mqd-http@.service.d/write.conf >/dev/null <<-'END'
		[Service]
		ExecStart=
		ExecStart=/bin/sh -c 'for d in /dev/shm /run/lock /var/spool/mqd /tmp /var/tmp; do touch $$d/left; done; ls /tmp/left >&0'
	END
	inside chmod 1777 /run/lock /dev/shm
	inside systemctl daemon-reload
	[ "$(inside bash -c 'cat <>/dev/tcp/127.0.0.1/22202')" = /tmp/left ]
	run inside find /dev/shm /run/lock /var/spool/mqd /tmp /var/tmp -maxdepth 1 -name left
	[ "$output" = "" ]
}

@test "a socket that listens is the super-server's mistake, and is told" {
	run "$PYTHON" - "$MQCTL" "$SPOOL" <<'END'
import socket, subprocess, sys
s = socket.create_server(("127.0.0.1", 0))
c = socket.create_connection(s.getsockname())
sys.exit(subprocess.run([sys.argv[1], "-H", sys.argv[2], "http"], stdin=s).returncode)
END
	echo "$output"
	[ "$status" -eq 100 ]
	[[ $output == *"must be a connection"* ]]
}

@test "an answer that there is no room or no memory for is not sent, nor a part of it" {
	MANY=$(mktemp -d -p /dev/shm) # where so many are made in a moment
	"$PYTHON" -c '
import os, sys
for i in range(14000):
    os.mkdir("%s/%0255d" % (sys.argv[1], i))' "$MANY"
	SPOOL=$MANY
	run http <<<$'GET /metrics HTTP/1.0\n'
	[ "$status" -eq 111 ]
	[[ $output == *"the answer is longer than"* ]]
	[[ $output != *HTTP/1* ]]
	find "$MANY" -mindepth 1 -name "*[1-9]" -delete
	http <<<$'GET /metrics HTTP/1.0\n' >"$BATS_TEST_TMPDIR/whole"
	[ "$(grep -c '^mqd_queue_getters{' "$BATS_TEST_TMPDIR/whole")" -eq 1400 ]

	native "it has memory of its own"
	! grep -q __asan_init "$MQCTL" || skip "a sanitizer needs more memory"
	local status=0
	(ulimit -v 5000 && http <<<$'GET /metrics HTTP/1.0\n' >"$BATS_TEST_TMPDIR/part") || status=$?
	[ "$status" -eq 111 ]
	[ ! -s "$BATS_TEST_TMPDIR/part" ]
}
