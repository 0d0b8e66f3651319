#!/usr/bin/env bats
# Access from other hosts: etc/stunnel*.conf with certificates, and the permissions of a Unix socket.

load helper

setup() {
	mkdir -p "$SPOOL"
	PIDS=()
	TLS=$BATS_TEST_TMPDIR/tls DIR=''
}

teardown() {
	stop "${PIDS[@]}"
	[[ -z $DIR ]] || rm -r "$DIR"
}

# certificate NAME CA: a key and a certificate for NAME by that CA.
certificate() {
	openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" \
		-keyout "$TLS/$1.key" -out "$TLS/$1.csr" 2>/dev/null
	openssl x509 -req -in "$TLS/$1.csr" -CA "$TLS/$2.crt" -CAkey "$TLS/$2.key" -CAcreateserial -days 2 \
		-extfile <(echo subjectAltName=DNS:mq.example.org) -out "$TLS/$1.crt" 2>/dev/null
}

authority() {
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "/CN=$1" \
		-keyout "$TLS/$1.key" -out "$TLS/$1.crt" 2>/dev/null
}

# configure FILE [sed expression...]: etc/FILE with the places of the test in it.
configure() {
	local file=$1
	shift
	sed -e "s,/etc/mqd/tls/,$TLS/," -e "s,^exec = .*,exec = $MQD," -e "s,^execArgs = .*,execArgs = mqd -H $SPOOL," \
		"$@" "$TOP/etc/$file" >"$BATS_TEST_TMPDIR/$file"
}

# serve_tls [sed expression...]: a stunnel with an mqd for each connection, as mqd-tls.socket starts it; on port TLSPORT.
serve_tls() {
	TLSPORT=$(free_port)
	configure stunnel-mqd.conf -e "s,^syslog.*,syslog = no," "$@"
	tcpserver -HRDl0 127.0.0.1 "$TLSPORT" stunnel4 "$BATS_TEST_TMPDIR/stunnel-mqd.conf" 2>/dev/null 3>&- &
	PIDS+=("$!")
	wait_for listening "$TLSPORT"
}

# connect_tls: the client's stunnel on port PORT.
connect_tls() {
	PORT=$(free_port)
	configure stunnel-client.conf -e "s,127.0.0.1:22201,127.0.0.1:$PORT," -e "s,mq.example.org:22443,127.0.0.1:$TLSPORT," "$@"
	stunnel4 "$BATS_TEST_TMPDIR/stunnel-client.conf" 2>"$BATS_TEST_TMPDIR/stunnel.log" 3>&- &
	PIDS+=("$!")
	wait_for listening "$PORT"
}

@test "stunnel: a client with a certificate is served, one without or with another's is not" {
	[[ -x /usr/bin/stunnel4 ]] || skip "no stunnel4 here"
	mkdir "$TLS"
	authority ca
	authority stranger-ca
	certificate server ca
	certificate client ca
	certificate stranger stranger-ca
	serve_tls
	connect_tls
	talk_tcp <<-'END'
		> set q 5 0 5
		> hello
		< STORED
		> get q/t=100/open
		< VALUE q/t=100/open 5 5
		< hello
		< END
		> get q/close
		< END
		> get q/t=200
		< END
	END
	head -c 300000 /dev/urandom >"$BATS_TEST_TMPDIR/big"
	{
		printf 'set big 0 0 300000\r\n'
		cat "$BATS_TEST_TMPDIR/big"
		printf '\r\nquit\r\n'
	} | timeout 20 openssl s_client -quiet -connect "127.0.0.1:$TLSPORT" -CAfile "$TLS/ca.crt" -verify_return_error \
		-cert "$TLS/client.crt" -key "$TLS/client.key" 2>/dev/null | grep -q STORED
	ctl cat big 1 | cmp - "$BATS_TEST_TMPDIR/big"

	local options
	for options in '' "-cert $TLS/stranger.crt -key $TLS/stranger.key" "-cert $TLS/client.crt -key $TLS/client.key -tls1_1"; do
		# shellcheck disable=SC2086
		run timeout 20 openssl s_client -quiet -connect "127.0.0.1:$TLSPORT" $options \
			< <(printf 'set intruder 0 0 1\r\nx\r\nquit\r\n')
		[[ $output != *STORED* ]]
	done
	# Plain text is no handshake.
	run timeout 20 bash -c 'exec 3<>"/dev/tcp/127.0.0.1/$0"; printf "set intruder 0 0 1\r\nx\r\n" >&3; cat <&3' "$TLSPORT"
	[[ $output != *STORED* ]]
	[ ! -e "$SPOOL/intruder" ]
}

@test "stunnel: a client does not talk to a server that is another" {
	[[ -x /usr/bin/stunnel4 ]] || skip "no stunnel4 here"
	mkdir "$TLS"
	authority ca
	certificate server ca
	certificate client ca
	serve_tls
	connect_tls -e 's,^checkHost = .*,checkHost = other.example.org,'
	run timeout 20 bash -c 'exec 3<>"/dev/tcp/127.0.0.1/$0"; printf "set q 0 0 1\r\nx\r\n" >&3; cat <&3' "$PORT"
	[[ $output != *STORED* ]]
	[ ! -e "$SPOOL/q" ]
}

@test "stunnel: who comes and says nothing does not stay" {
	[[ -x /usr/bin/stunnel4 ]] || skip "no stunnel4 here"
	mkdir "$TLS"
	authority ca
	certificate server ca
	serve_tls -e 's,^TIMEOUTbusy = .*,TIMEOUTbusy = 1,'
	PORT=$TLSPORT
	talk_tcp <<<'<eof'
}

@test "a Unix socket has the permissions of -a, and they hold" {
	[[ $EUID -eq 0 ]] || skip "other users are needed"
	local mode
	DIR=$(mktemp -d) # others cannot get to the test's own
	chmod 755 "$DIR"
	for mode in 700 770 777; do
		"$MQD" -H "$SPOOL" -s "$DIR/s$mode" -a "0$mode" -u root 3>&- &
		PIDS+=("$!")
		wait_for test -S "$DIR/s$mode"
		[ "$(stat -c %a "$DIR/s$mode")" = "$mode" ]
	done
	chgrp daemon "$DIR/s770"
	reach() { # USER GROUP MODE
		setpriv --reuid "$1" --regid "$2" --clear-groups "$PYTHON" -c '
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.sendall(b"version\r\n")
assert s.recv(100).startswith(b"VERSION")' "$DIR/s$3" 2>/dev/null
	}
	reach root root 700
	run reach nobody nogroup 700
	[ "$status" -ne 0 ]
	run reach nobody nogroup 770
	[ "$status" -ne 0 ]
	reach nobody daemon 770
	reach nobody nogroup 777
}
