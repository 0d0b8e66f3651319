#!/usr/bin/env bats
# The page of mqctl http in a real browser. What it looks like stays in build/see.

load helper

setup() {
	native "the browser waits for the page"
	command -v chromium >/dev/null || skip "no chromium: tests/install-deps see"
	mkdir "$SPOOL"
	PORT=$(free_port)
}

@test "the page shows what strangers wrote as text: sorted, filtered, dark and light, on a phone" {
	local i
	for i in 1 2 3 4 5; do
		printf '{"id": %d, "note": "<b>bold</b> </script>"}' "$i" | ctl put orders
	done
	printf x | ctl put '<img src=x onerror=alert(1)>'
	printf '<script>alert(2)</script>' | ctl put '<script>alert(1)<script>'
	printf 'привет' | ctl put 'заказы'
	printf '\xff\0' | ctl put orders.dead
	mkdir -m 700 "$SPOOL/%FF" # no UTF-8
	tcpserver -HRDl0 127.0.0.1 "$PORT" "$MQCTL" -H "$SPOOL" http --bodies 3>&- &
	MQD_PID=$!
	wait_for listening "$PORT"
	run timeout 60 "$BATS_TEST_DIRNAME/page" "http://127.0.0.1:$PORT/" "$TOP/build/see"
	echo "$output"
	[ "$status" -eq 0 ]
	[ -z "$output" ]
	[ -s "$TOP/build/see/page-phone-dark.png" ]
}
