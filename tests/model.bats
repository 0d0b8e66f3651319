#!/usr/bin/env bats
# Random sequences against a model of the spool, and histories of concurrent clients: see the heads of
# tests/model and tests/history. `make soak` runs them for longer.

bats_require_minimum_version 1.5.0
load helper

model() {
	"$PYTHON" "$BATS_TEST_DIRNAME/model" --out "$BATS_TEST_TMPDIR" "$@"
}

# An mqd that takes smaller messages than the model was told.
odd_mqd() {
	printf '#!/bin/sh\nexec "%s" "$@" -B 100\n' "$MQD" >"$BATS_TEST_TMPDIR/odd"
	chmod +x "$BATS_TEST_TMPDIR/odd"
}

# say LINE...: what mqd answers to these lines, without its carriage returns.
say() {
	printf '%s\r\n' "$@" | "$MQD" -H "$SPOOL" | tr -d '\r'
}

@test "random sequences: every reply is one that the model allows" {
	model 1 --seconds 8 --jobs 2
}

@test "random sequences of today" {
	local seed
	seed=$(date +%Y%m%d)000
	echo "# tests/model $seed" >&3
	model "$seed" --count 50
}

@test "the model notices what is wrong, and leaves a short sequence that can be run again" {
	local file
	odd_mqd
	run -1 env MQD="$BATS_TEST_TMPDIR/odd" "$PYTHON" "$BATS_TEST_DIRNAME/model" 1 --count 50 --out "$BATS_TEST_TMPDIR"
	[[ $output == *"came:    b'SERVER_ERROR object too large for cache"* ]]
	file=$(echo "$BATS_TEST_TMPDIR"/model-*.json)
	[ "$(grep -c '^\["' "$file")" = 1 ] # the set alone
	run -1 env MQD="$BATS_TEST_TMPDIR/odd" "$PYTHON" "$BATS_TEST_DIRNAME/model" --replay "$file"
	model --replay "$file"
}

@test "histories of a pool, and of processes that are killed, are FIFO" {
	"$PYTHON" "$BATS_TEST_DIRNAME/history" --seconds 1.5 --launch pool
	"$PYTHON" "$BATS_TEST_DIRNAME/history" --seconds 1.5 --launch connection --kill
}
