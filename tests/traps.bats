# The traps that real memcache clients set a server (trap 4 belongs to blocking gets).

load helper

sockets() {
	timeout 60 "$PYTHON" "$BATS_TEST_DIRNAME/clients/sockets.py" "$PORT" "$@"
}

has_messages() {
	[[ $(count_messages "$1") -eq $2 ]]
}

# holds_burst QUEUE: the messages 1 to 2,000, each once and in order, and nothing else.
holds_burst() {
	wait_for has_messages "$1" 2000
	tail -qn +2 "$SPOOL/$1"/* | cmp - <(seq 2000)
}

# Trap 1. A client that buffers its sets closes without reading a reply.

# bursts HOW: four times without sync, for speed; then as shipped. (With the four ways that is 20
# bursts. Where a reset was answered by an end, each single one of them lost messages.)
bursts() {
	start_mqd -N
	for round in {1..4}; do
		sockets burst "$1" "fast$round"
		holds_burst "fast$round"
	done
	stop_mqd
	start_mqd
	sockets burst "$1" safe
	holds_burst safe
}

@test "2,000 sets in one send, then close: none is lost" {
	bursts one
}

@test "2,000 sets in 2,000 sends, then close: none is lost" {
	bursts many
}

@test "2,000 sets, then close with replies unread, which resets: none is lost" {
	bursts unread
}

@test "2,000 sets, then a reset at once: none is lost" {
	bursts abort
}

# Trap 2. The second of two small sends waits for the acknowledgement of the first, and where the
# first has no reply that acknowledgement is delayed by 40 ms.

needs_quick_ack() {
	[[ $MQD_BINARY != */portable/* ]] || skip "TCP_QUICKACK is Linux's alone, and compiled out here"
}

@test "a command after noreply is answered without delay" {
	needs_quick_ack
	start_mqd
	for what in get-after-noreply version-after-noreply; do
		run sockets latency "$what"
		echo "# $output" >&3
		[ "$status" -eq 0 ]
	done
}

@test "a body that comes after its line is stored without delay" {
	needs_quick_ack
	start_mqd
	run sockets latency body-after-line
	echo "# $output" >&3
	[ "$status" -eq 0 ]
}

@test "a message of several packets is served without delay" {
	needs_quick_ack
	start_mqd
	run sockets latency get-20k
	echo "# $output" >&3
	[ "$status" -eq 0 ]
}

# libmemcached with buffered writes sends 16 KiB of sets and then gives each reply 50 ms to come;
# after that it closes, and version 1.1 aborts the whole program. So replies must not be kept
# together until everything that has arrived is done.
@test "a reply is not held back until the commands behind it are done" {
	native "replies have 50 ms"
	start_mqd
	run sockets silence
	echo "# $output" >&3
	[ "$status" -eq 0 ]
}

# Trap 3. A client keeps one value per key.

@test "a name given twice in a get is served once" {
	talk <<-'END'
		>>*2 set q 0 0 3\r\none\r\n
		<<*2 STORED\r\n
		> set q 7 0 5
		> three
		< STORED
		> set r 0 0 3
		> two
		< STORED
		> get q q
		< VALUE q 0 3
		< one
		< END
		> get q r q r none q
		< VALUE q 0 3
		< one
		< VALUE r 0 3
		< two
		< END
		> gets q q q
		<~ VALUE q 7 5 \d+
		< three
		< END
		> get q r
		< END
	END
}

@test "a name given 30,000 times in a get is served once" {
	talk <<-'END'
		>>*2 set q 0 0 3\r\none\r\n
		<<*2 STORED\r\n
		>> get
		>>*30000 \x20q
		> 
		< VALUE q 0 3
		< one
		< END
		> get q
		< VALUE q 0 3
		< one
		< END
	END
}

# Trap 5. A key with a space goes out as it is: the line makes no sense, and its body follows.

@test "the body behind a key with spaces never runs as commands" {
	start_mqd
	talk_tcp <<-'END'
		> set victim 0 0 5
		> alive
		< STORED
	END
	run sockets spaces
	echo "# $output" >&3
	[ "$status" -eq 0 ]
	has_messages victim 1
	[ "$(ls "$SPOOL")" = victim ]
}

@test "set with a key of two words: refused once, then in step or closed" {
	talk <<-'END'
		> set victim 0 0 5
		> alive
		< STORED
		> set a b 0 0 13
		> delete victim
		<~ (CLIENT_ERROR .+|ERROR)
		close
		<eof
		connect
		> set a b 0 0 13 noreply
		> delete victim
		close
		<eof
		connect
		> get victim
		< VALUE victim 0 5
		< alive
		< END
	END
}

# Trap 6. Most clients cannot cope with a connection that was closed behind their back.

@test "an idle connection stays open" {
	start_mqd
	talk_tcp <<-'END'
		> version
		<~ VERSION .*
		<silence 2000
		> version
		<~ VERSION .*
	END
}

@test "-o idle_timeout=1 closes an idle connection after a second, no busy one" {
	start_mqd -o idle_timeout=1
	talk_tcp <<-'END'
		> version
		<~ VERSION .*
		<silence 600
		> version
		<~ VERSION .*
		<silence 600
		> set q 0 0 5
		<silence 600
		> hello
		< STORED
		<silence 600
		<eof
		connect
		<silence 600
		<eof
	END
	has_messages q 1
}

# Trap 7. Keys are bytes: whatever memcached takes arrives, and must come back as it was asked for.

@test "UTF-8 and control bytes in keys are kept exactly" {
	talk <<-'END'
		> set größe 1 0 5
		> utf-8
		< STORED
		> set \x01\x1b\x7f 2 0 7
		> control
		< STORED
		> set a\tb 3 0 3
		> tab
		< STORED
		> set \xff\xfe 4 0 7
		> no utf8
		< STORED
		> set . 5 0 3
		> dot
		< STORED
		> set .. 6 0 4
		> dots
		< STORED
		> set .tmp 7 0 3
		> tmp
		< STORED
		> set a%41 8 0 7
		> percent
		< STORED
		> set aA 9 0 6
		> letter
		< STORED
	END
	[ "$(LC_ALL=C ls "$SPOOL")" = "$(printf '%s\n' %01%1B%7F %2E %2E. %2Etmp %FF%FE a%09b \
		a%2541 aA gr%C3%B6%C3%9Fe)" ]
	talk <<-'END'
		> get größe \x01\x1b\x7f a\tb
		< VALUE größe 1 5
		< utf-8
		< VALUE \x01\x1b\x7f 2 7
		< control
		< VALUE a\tb 3 3
		< tab
		< END
		> get \xff\xfe . .. .tmp a%41 aA
		< VALUE \xff\xfe 4 7
		< no utf8
		< VALUE . 5 3
		< dot
		< VALUE .. 6 4
		< dots
		< VALUE .tmp 7 3
		< tmp
		< VALUE a%41 8 7
		< percent
		< VALUE aA 9 6
		< letter
		< END
		> delete größe
		< DELETED
		> delete a\tb
		< DELETED
		> delete \x01
		< NOT_FOUND
	END
	[ ! -e "$SPOOL/gr%C3%B6%C3%9Fe" ]
	[ -d "$SPOOL/%01%1B%7F" ]
}
