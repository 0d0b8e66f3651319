#!/usr/bin/env bats
# mqctl --json: each listing is one document that Python and jq read alike, whatever lies in the spool.

load helper

setup() {
	mkdir -p "$SPOOL"
}

# json ARGUMENT...: mqctl --json; both readers must take what it prints, and agree on it. Sets STATUS.
json() {
	STATUS=0
	"$MQCTL" -H "$SPOOL" --json "$@" >"$BATS_TEST_TMPDIR/json" 2>"$BATS_TEST_TMPDIR/stderr" || STATUS=$?
	jq . "$BATS_TEST_TMPDIR/json" >"$BATS_TEST_TMPDIR/by-jq"
	"$PYTHON" - "$BATS_TEST_TMPDIR/json" "$BATS_TEST_TMPDIR/by-jq" <<-'END'
		import json, sys
		a, b = (json.load(open(f, encoding="utf-8")) for f in sys.argv[1:])
		assert a == b, (a, b)
	END
}

# is FILTER: jq's filter of the document is true.
is() {
	jq -e "$1" "$BATS_TEST_TMPDIR/json" >/dev/null || {
		cat "$BATS_TEST_TMPDIR/json"
		false
	}
}

@test "--json ls: numbers are numbers, names are decoded, and the exit codes are as ever" {
	json ls
	[ "$STATUS" -eq 0 ]
	is '. == {queues: []}'
	printf hello | ctl put q
	printf x | ctl put $'gr\xc3\xbc\xc3\x9fe <script>alert("1")'
	printf x | ctl put $'bin\xff\x01'
	ctl pause q 1h
	json ls
	is '[.queues[].encoded] == ["bin%FF%01", "gr%C3%BC%C3%9Fe%20%3Cscript%3Ealert%28%221%22%29", "q"]'
	is '.queues[0].name == {base64: "Ymlu/wE="}'
	is '.queues[1].name == "grüße <script>alert(\"1\")"'
	is '.queues[2] | .waiting == 1 and .put == 1 and .taken == 0 and .bytes == 5 and .getters == 0 and
	    .in_flight == 0 and .delayed == 0 and .dead == 0 and .bad == 0 and .redelivered == 0'
	is ".queues[2] | .oldest <= $(date +%s) and .oldest > $(date +%s) - 600 and .age_ms < 600000"
	is '.queues[2] | .paused and .paused_ms > 3500000 and .paused_ms <= 3600000'
	is '.queues[0] | .paused == false and .paused_ms == null'
	[ "$(grep -c '<script' "$BATS_TEST_TMPDIR/json")" = 0 ]
	ctl pause q
	ctl flush q
	json ls q
	is '.queues[0] | .paused and .paused_ms == null and .oldest == null and .age_ms == null and .flushes == 1'
	is '.queues | length == 1'
	json ls nothing q
	[ "$STATUS" -eq 1 ]
	is '[.queues[].name] == ["q"]'
	[[ $(<"$BATS_TEST_TMPDIR/stderr") == 'mqctl: nothing: no such queue' ]]
}

@test "--json peek: a body is a string if it is UTF-8, else base64, and whole" {
	local body
	"$PYTHON" - <<-'END'
		import base64, json, os, subprocess
		mqctl, spool = os.environ["MQCTL"], os.environ["SPOOL"]
		ctl = [mqctl, "-H", spool]
		utf8 = [b"", b"plain", "ü€😀".encode(), b'"\\\b\f\n\r\t/', bytes(range(128)), b"\0",
		        "\x7f\x80\x9f\u2028\u2029\ud7ff\ue000\ufffd\uffff\U0010ffff".encode(),
		        b"a" * 12287 + "ü".encode() + b"b" * 12288, "€".encode() * 100000]
		other = [b"\xff", b"\x80", b"a\xc3", b"\xc3", b"\xc0\x80", b"\xc1\xbf", b"\xe0\x9f\xbf", b"\xed\xa0\x80",
		         b"\xf0\x8f\xbf\xbf", b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\xf8\x88\x80\x80\x80",
		         b"\xe2\x82", b"\xe2\x28\xa1", b"a" * 12288 + b"\xff", os.urandom(50001), os.urandom(12288 * 2),
		         b"\xff" * 12289, b"\xff" * 12290]
		for b in other:
		    try:
		        b.decode()
		        assert False, b
		    except UnicodeDecodeError:
		        pass
		for b in utf8 + other:
		    subprocess.run(ctl + ["put", "q"], input=b, check=True)
		out = subprocess.run(ctl + ["--json", "peek", "q", "1000"], check=True, capture_output=True).stdout
		open(os.environ["BATS_TEST_TMPDIR"] + "/json", "wb").write(out)
		messages = json.loads(out)["messages"]
		assert len(messages) == len(utf8 + other)
		for n, (m, b) in enumerate(zip(messages, utf8 + other)):
		    assert m["number"] == n + 1 and m["length"] == len(b) and m["flags"] == 0, m
		    assert m["tries"] == 0 and m["expires"] is None
		    if b in utf8:
		        assert m["body"] == b.decode(), (n, b)
		    else:
		        assert base64.b64decode(m["body"]["base64"], validate=True) == b, (n, b)
		# What does something to a terminal is escaped.
		text = out.decode()
		assert all(c == "\n" or (c >= " " and not "\x7f" <= c <= "\x9f") for c in text)
	END
	jq -e '.messages | length == 28' "$BATS_TEST_TMPDIR/json" >/dev/null
	json peek q
	is '.messages | length == 1'
	printf garbage >"$SPOOL/q/0000000000000001"
	rm "$SPOOL/q/0000000000000002"
	mkdir "$SPOOL/q/0000000000000002"
	json peek q 2
	[ "$STATUS" -eq 0 ]
	is '.messages[0] == {number: 1, damaged: true}'
	is '.messages[1].number == 2 and (.messages[1] | has("damaged") or has("error"))'
	json peek nothing
	[ "$STATUS" -eq 1 ]
	is '. == {messages: []}'
}

@test "--json peek: flags, tries and expiry" {
	local now
	now=$(date +%s)
	ctl set q expire=yes
	talk <<-'END'
		> set q 4294967295 1000 5
		> hello
		< STORED
		> get q/open
		<~ VALUE q(/open)? 4294967295 5
		< hello
		< END
		> get q/abort
		< END
	END
	json peek q
	is ".messages[0] | .flags == 4294967295 and .tries == 1 and .expires >= $now + 1000 and .expires < $now + 1600"
}

@test "--json open: who holds what" {
	start_mqd
	printf x | ctl put a
	printf y | ctl put b
	"$PYTHON" - "$PORT" <<-'END'
		import json, os, socket, subprocess, sys
		s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
		s.sendall(b"get a/open\r\n")
		s.recv(4096)
		me = "%s:%d" % s.getsockname()
		out = subprocess.run([os.environ["MQCTL"], "-H", os.environ["SPOOL"], "--json", "open"],
		                     check=True, capture_output=True).stdout
		(m,) = json.loads(out)["messages"]
		assert m["name"] == m["encoded"] == "a" and m["number"] == 1 and m["orphan"] is False, m
		assert m["since"] > 1700000000, m
		portable = "/portable/" in os.environ["MQCTL"]
		assert m["peer"] == (None if portable else me), m
		assert m["pid"] is None if portable else m["pid"] > 1, m
	END
	json open b
	is '. == {messages: []}'
	json open nothing
	[ "$STATUS" -eq 1 ]
}

@test "--json config, status, check" {
	ctl set q max_items=5 max_bytes=2k max_age=5m discard_old=yes dead_letter=123 expire_to=yes
	json config q
	is '[.settings[] | select(.key == "max_items")][0] | .value == 5 and (.file | endswith("/q/.config")) and .line == 1'
	is '[.settings[] | select(.key == "max_bytes")][0] | .value == 2048 and .unit == "bytes"'
	is '[.settings[] | select(.key == "max_age")][0] | .value == 300000 and .unit == "ms"'
	is '[.settings[] | select(.key == "discard_old")][0].value == true'
	is '[.settings[] | select(.key == "dead_letter")][0].value == "123"'
	is '[.settings[] | select(.key == "expire_to")][0].value == "yes"'
	is '[.settings[] | select(.key == "expire")][0] | .value == false and .file == null'
	is '[.settings[] | select(.key == "status")][0].value == "up"'
	is '.settings | length == '"$(ctl config q | wc -l)"
	json config
	is '[.settings[] | select(.key == "dead_letter")][0] | .value == null and .file == null'
	json config nothing
	[ "$STATUS" -eq 1 ]
	json status
	is '. == {status: "up"}'
	ctl status readonly
	json status
	is '.status == "readonly"'
	run ctl --json status up
	[ "$status" -eq 100 ]
	[[ $(ctl status) == readonly ]]
	json check
	[ "$STATUS" -eq 0 ]
	is '. == {findings: []}'
	touch "$SPOOL/q/"$'no\xffname"\n'
	printf garbage >"$SPOOL/q/0000000000000001"
	json check
	[ "$STATUS" -eq 1 ]
	is '[.findings[] | select(.what == "damaged")][0] | .path == "q/0000000000000001" and (.detail | length > 0)'
	is '.findings | length == '"$(ctl check | tr -d '\n' | grep -ao 'foreign\|damaged\|miscounted\|stranded' | wc -l)"
	is '[.findings[] | select(.what == "foreign")] | length == 1'
}

@test "--json is for what lists, and comes before the command" {
	local args
	for args in 'put q' 'get q' 'cat q 1' 'rm q 1' 'flush q' 'top' 'tail q' 'pause q'; do
		# shellcheck disable=SC2086
		run ctl --json $args </dev/null
		[ "$status" -eq 100 ] || { echo "$args: $status"; false; }
	done
	[ -z "$(ls "$SPOOL")" ]
	for args in '--jsonx ls' '--js ls' '-json ls' '-- --json ls' '--json'; do
		# shellcheck disable=SC2086
		run ctl $args
		[ "$status" -eq 100 ] || { echo "$args: $status"; false; }
	done
	# Behind it, it is a queue's name.
	run ctl ls --json
	[ "$status" -eq 1 ]
	run "$MQCTL" --json -H "$SPOOL" ls
	[[ $status -eq 0 && $output == '{'* ]]
	run bash -c '"$MQCTL" -H "$SPOOL" --json ls 2>&1 >/dev/full'
	[ "$status" -eq 111 ]
	run "$MQCTL" -H "$SPOOL/missing" --json ls
	[ "$status" -eq 111 ]
}

@test "check: the name of a foreign file does nothing to a terminal" {
	mkdir -p "$SPOOL"
	touch "$SPOOL"/$'a\033[31m\302\233b'
	run ctl check
	[ "$status" -eq 1 ]
	[ "$output" = 'foreign a?[31m??b: no queue has this name; left alone' ]
}
