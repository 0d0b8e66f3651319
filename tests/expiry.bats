#!/usr/bin/env bats
# Messages that expire, and those that fail too often.

load helper

setup() {
	mkdir -p "$SPOOL"
}

settings() {
	"$MQCTL" -H "$SPOOL" set "$@"
}

# expiry QUEUE NUMBER: what the header of a waiting message says, without zeros.
expiry() {
	local field
	field=$(cut -c 44-53 "$SPOOL/$1/$(printf %016d "$2")" | head -n 1)
	echo $((10#$field))
}

is_empty() {
	[ "$(printf 'get %s\r\n' "$1" | "$MQD" -H "$SPOOL")" = $'END\r' ]
}

@test "exptime means nothing unless the queue says so" {
	talk <<-'END'
		> set q 0 -1 1
		> a
		< STORED
		> set q 0 1 1
		> b
		< STORED
		> get q/peek
		< VALUE q/peek 0 1
		< a
		< END
	END
	[ "$(expiry q 1)/$(expiry q 2)" = 0/0 ]
}

@test "flush_expired ends when its queue is deleted meanwhile" {
	local i
	settings q expire=yes
	for ((i = 0; i < 3000; i++)); do
		printf 'set q 0 -1 1\r\nx\r\n'
	done | "$MQD" -H "$SPOOL" -N >/dev/null
	start_mqd -N
	{ printf 'flush_expired q\r\n' >&4 && head -1 <&4; } 4<>"/dev/tcp/127.0.0.1/$PORT" >"$BATS_TEST_TMPDIR/reply" 3>&- &
	local client=$!
	has_begun() { [[ $(find "$SPOOL/q" -maxdepth 1 -name '0*' | wc -l) -lt 3000 ]]; }
	wait_for has_begun
	talk_tcp <<-'END'
		> delete q
		< DELETED
	END
	answered() { [ -s "$BATS_TEST_TMPDIR/reply" ]; }
	wait_for answered
	wait "$client"
	wait_for "$MQCTL" -H "$SPOOL" check # the other connection empties .trash after its answer
}

@test "expire: never, in seconds, as a date, and at once" {
	local now
	settings q expire=yes
	now=$(date +%s)
	talk <<-END
		> set q 0 0 1
		> a
		< STORED
		> set q 0 1000 1
		> b
		< STORED
		> set q 0 2592000 1
		> c
		< STORED
		> set q 0 $((now + 5000)) 1
		> d
		< STORED
		> set q 0 -1 1
		> e
		< STORED
		> set q 0 2592001 1
		> f
		< STORED
		> set q 0 9223372036854775807 1
		> g
		< STORED
		> set q 0 9223372036854775808 1
		> h
		< CLIENT_ERROR bad command line format
	END
	[ "$(expiry q 1)" = 0 ]
	(($(expiry q 2) - now - 1000 <= 2 && $(expiry q 2) - now - 1000 >= 0))
	(($(expiry q 3) - now - 2592000 <= 2 && $(expiry q 3) - now - 2592000 >= 0))
	[ "$(expiry q 4)" = $((now + 5000)) ]
	[ "$(expiry q 6)/$(expiry q 7)" = 2592001/9999999999 ]
	printf 'get q\r\n%.0s' {1..6} | "$MQD" -H "$SPOOL" | tr -d '\r' | grep -A1 VALUE >"$BATS_TEST_TMPDIR/out"
	[ "$(grep -x . "$BATS_TEST_TMPDIR/out" | tr -d '\n')" = abcdg ]
	[ "$(count_messages q)" = 0 ]
	"$MQCTL" -H "$SPOOL" check
}

@test "a message expires while it waits, and neither get, peek, gets nor a get that waits shows it" {
	settings q expire=yes
	talk <<-'END'
		> set q 0 3 1
		> a
		< STORED
		> get q/peek
		< VALUE q/peek 0 1
		< a
		< END
	END
	past() { (($(date +%s) >= $(expiry q 1))); }
	wait_for past
	talk <<-'END'
		> get q/peek
		< END
		> get q/t=10
		< END
		> set q 0 0 1
		> b
		< STORED
		> get q/peek
		< VALUE q/peek 0 1
		< b
		< END
		> gets q
		<~ VALUE q 0 1 \d+
		< b
		< END
	END
	[ "$(count_messages q)" = 0 ]
	# Switched off again, it is a message like any other.
	printf 'set q 0 -1 1\r\nc\r\n' | "$MQD" -H "$SPOOL"
	settings q expire=no
	talk <<-'END'
		> get q
		< VALUE q 0 1
		< c
		< END
	END
}

@test "max_age bounds what the client says" {
	local now
	settings q expire=yes max_age=10s
	now=$(date +%s)
	printf 'set q 0 %s 1\r\na\r\n' 0 5 1000 $((now + 100000)) -1 | "$MQD" -H "$SPOOL" >/dev/null
	for i in 1 3 4; do
		(($(expiry q $i) - now - 10 <= 2 && $(expiry q $i) - now - 10 >= 0))
	done
	(($(expiry q 2) - now - 5 <= 2 && $(expiry q 2) - now - 5 >= 0))
	[ "$(expiry q 5)" = 1 ]
}

@test "max_tries: then it is a dead letter, with all that it says, and the next one is served" {
	settings q max_tries=2 expire=yes
	talk <<-'END'
		> set q 77 1000000 5
		> poison
		< CLIENT_ERROR bad data chunk
		> set q 77 1000000 6
		> poison
		< STORED
		> set q 0 0 4
		> food
		< STORED
		> get q/open
		< VALUE q/open 77 6
		< poison
		< END
		> get q/abort
		< END
		> get q/open
		< VALUE q/open 77 6
		< poison
		< END
		> get q/abort
		< END
		> get q/open
		< VALUE q/open 0 4
		< food
		< END
		> get q/close
		< END
		> get q
		< END
	END
	[ "$(count_messages q.dead)" = 1 ]
	[ "$(cut -c 55-59 "$SPOOL/q.dead/0000000000000001" | head -n 1)" = 00002 ]
	[ "$(expiry q.dead 1)" -gt "$(date +%s)" ]
	# Dead letters do not die again.
	echo 'max_tries = 1' >"$SPOOL/.config"
	talk <<-'END'
		> get q.dead/open
		< VALUE q.dead/open 77 6
		< poison
		< END
		> get q.dead/abort
		< END
		> get q.dead
		< VALUE q.dead 77 6
		< poison
		< END
	END
	[ ! -e "$SPOOL/q.dead.dead" ]
	"$MQCTL" -H "$SPOOL" check
}

@test "a consumer that dies of its message each time: two deaths, then it is out of the way" {
	settings q max_tries=2
	printf 'set q 0 0 6\r\npoison\r\n' | "$MQD" -H "$SPOOL"
	die_of_it() {
		printf 'get q\r\n' | strace -qq -o /dev/null -e inject=writev:signal=KILL "$MQD" -H "$SPOOL" || :
	}
	die_of_it
	back() { "$MQCTL" -H "$SPOOL" ls && [ -e "$SPOOL/q/0000000000000001" ]; }
	wait_for back
	die_of_it
	wait_for back
	is_empty q
	[ "$("$MQCTL" -H "$SPOOL" get q.dead)" = poison ]
}

@test "the dead letters have no room: it is delivered again, and nothing behind it is held up" {
	settings q max_tries=1
	settings q.dead max_items=1
	"$MQCTL" -H "$SPOOL" put q.dead <<<x
	talk <<-'END'
		> set q 0 0 6
		> poison
		< STORED
		> set q 0 0 4
		> good
		< STORED
		> get q/open
		< VALUE q/open 0 6
		< poison
		< END
		> get q/abort
		< END
		> get q/open
		< VALUE q/open 0 6
		< poison
		< END
		> get q
		< VALUE q 0 4
		< good
		< END
		> get q/abort
		< END
	END
	[ "$(count_messages q)" = 1 ]
	"$MQCTL" -H "$SPOOL" get q.dead >/dev/null
	is_empty q
	[ "$("$MQCTL" -H "$SPOOL" get q.dead)" = poison ]
	# A body that is read from its file, and one that came through a buffer.
	head -c 200000 /dev/zero | "$MQCTL" -H "$SPOOL" put q
	"$MQCTL" -H "$SPOOL" put q.dead <<<x
	printf 'get q/open\r\nget q/abort\r\n' | "$MQD" -H "$SPOOL" >/dev/null
	[ "$(printf 'get q\r\n' | "$MQD" -H "$SPOOL" 2>/dev/null | wc -c)" = $((200000 + 25)) ]
}

@test "dead letters do not die again, whatever their queue is called" {
	settings / max_tries=1
	settings a dead_letter=b
	settings b dead_letter=a
	printf 'set a 0 0 1\r\nx\r\nget a/open\r\nget a/abort\r\nget a\r\n' | "$MQD" -H "$SPOOL" | tail -n 1 | grep -q END
	[ "$(count_messages b)" = 1 ]
	[ "$(printf 'get b/open\r\nget b/abort\r\nget b\r\n' | "$MQD" -H "$SPOOL" | grep -c VALUE)" = 2 ]
	settings a dead_letter=
	settings / dead_letter=grave
	printf 'set a 0 0 1\r\ny\r\nget a/open\r\nget a/abort\r\nget a\r\n' | "$MQD" -H "$SPOOL" >/dev/null
	[ "$(printf 'get grave/open\r\nget grave/abort\r\nget grave/open\r\n' | "$MQD" -H "$SPOOL" | grep -c VALUE)" = 2 ]
	# The way back from there.
	run "$MQCTL" -H "$SPOOL" retry grave
	[ "$status" -eq 100 ]
	[ "$("$MQCTL" -H "$SPOOL" retry grave a)" = 1 ]
	[ "$(printf 'get a\r\n' | "$MQD" -H "$SPOOL" | grep -c VALUE)" = 1 ]
}

@test "open_timeout: back in the queue while its consumer lives, whose close is too late" {
	settings q open_timeout=200ms
	start_mqd
	talk_tcp <<-'END'
		> set q 0 0 1
		> a
		< STORED
		> get q/open
		< VALUE q/open 0 1
		< a
		< END
		connect other
		> get q/t=5000
		< VALUE q/t=5000 0 1
		< a
		< END
		use first
		> get q/close
		< CLIENT_ERROR item was open too long
		> get q/close
		< END
		> set q 0 0 1
		> b
		< STORED
		> get q/open
		< VALUE q/open 0 1
		< b
		< END
		> get r/t=400
		< END
		> get q/close/open
		< CLIENT_ERROR item was open too long
		> get q/open
		< VALUE q/open 0 1
		< b
		< END
		> get r/t=300
		< END
		> get q/open
		< CLIENT_ERROR item was open too long
		> get q/open
		< VALUE q/open 0 1
		< b
		< END
		> get q/close
		< END
	END
	[ "$(count_messages q)" = 0 ]
	"$MQCTL" -H "$SPOOL" check
}

@test "flush_expired: what has expired, wherever it stands, of one queue and of all" {
	settings q expire=yes
	settings r expire=yes
	printf 'set %s 0 %s 1\r\nx\r\n' q 0 q -1 q 1000 q -1 r -1 s -1 | "$MQD" -H "$SPOOL" >/dev/null
	talk <<-'END'
		> flush_expired q
		< 2
		> flush_expired nothing
		< 0
		> flush_expired s
		< 0
		> flush_expired
		< 1
		> flush_expired q r
		< ERROR
		> flush_expired a/b
		< CLIENT_ERROR queue name may not contain a slash
		> reload
		< Reloaded config.
	END
	[ "$(ls "$SPOOL/q" | tr '\n' ' ')" = "0000000000000001 0000000000000003 " ]
	[ "$(count_messages s)" = 1 ]
	"$MQCTL" -H "$SPOOL" check
}

# field QUEUE NAME: of that queue, in stats.
field() {
	printf 'stats\r\n' | "$MQD" -H "$SPOOL" | tr -d '\r' | sed -n "s/^STAT queue_$1_$2 //p"
}

# message QUEUE NUMBER: its flags, tries and body; without zeros.
message() {
	local file
	file=$SPOOL/$1/$(printf %016d "$2")
	echo "$((10#$(cut -c 33-42 "$file" | head -n 1))) $((10#$(cut -c 55-59 "$file" | head -n 1))) $(tail -n +2 "$file")"
}

@test "expire_to: what has expired goes there, by get and by flush_expired, and expires no more" {
	settings q expire=yes 'expire_to=too late'
	settings 'too late' expire=yes
	talk <<-'END'
		> set q 7 1000 1
		> a
		< STORED
		> get q/open
		< VALUE q/open 7 1
		< a
		< END
		> get q/abort
		< END
		> get q
		< VALUE q 7 1
		< a
		< END
		> set q 7 -1 1
		> b
		< STORED
		> set q 0 -1 0
		>> \r\n
		< STORED
		> set q 0 0 1
		> c
		< STORED
		> set q 9 -1 1
		> d
		< STORED
		> get q
		< VALUE q 0 1
		< c
		< END
		> flush_expired q
		< 1
		> get q
		< END
	END
	[ "$(field q expired_items)/$(field too%20late expired_items)" = 3/0 ]
	[ "$(field q items)/$(field too%20late items)" = 0/3 ]
	[ "$(message too%20late 1)|$(message too%20late 2)|$(message too%20late 3)" = "7 0 b|0 0 |9 0 d" ]
	for i in 1 2 3; do
		[ "$(expiry too%20late $i)" = 0 ]
	done
	[ "$(printf 'flush_expired\r\n' | "$MQD" -H "$SPOOL")" = $'0\r' ]
	"$MQCTL" -H "$SPOOL" check
	# Where there is a max_age it begins anew, and where it comes to the next queue it is forgotten again.
	settings 'too late' expire_to=end max_age=1h
	printf 'set q 0 -1 1\r\ne\r\nget q\r\n' | "$MQD" -H "$SPOOL" >/dev/null
	(($(expiry too%20late 4) > $(date +%s) + 3500 && $(expiry too%20late 4) <= $(date +%s) + 3600))
	"$MQCTL" -H "$SPOOL" check
}

@test "expire_to: a large message, and one whose tries say something" {
	settings q expire=yes expire_to=late
	head -c 300000 /dev/urandom >"$BATS_TEST_TMPDIR/body"
	{
		printf 'set q 5 2 300000\r\n'
		cat "$BATS_TEST_TMPDIR/body"
		printf '\r\nget q/open\r\nget q/abort\r\n'
	} | "$MQD" -H "$SPOOL" >/dev/null
	past() { (($(date +%s) >= $(expiry q 1))); }
	wait_for past
	is_empty q
	[ "$(head -n 1 "$SPOOL/late/0000000000000001" | cut -c 33-59)" = "0000000005 0000000000 00001" ]
	"$MQCTL" -H "$SPOOL" get late | cmp - "$BATS_TEST_TMPDIR/body"
	"$MQCTL" -H "$SPOOL" check
}

@test "expire_to names the queue itself: dropped and counted, as without it" {
	settings q expire=yes expire_to=q
	printf 'set q 0 -1 1\r\na\r\nset q 0 -1 1\r\nb\r\n' | "$MQD" -H "$SPOOL" >/dev/null
	is_empty q
	printf 'set q 0 -1 1\r\nc\r\n' | "$MQD" -H "$SPOOL" >/dev/null
	[ "$(printf 'flush_expired\r\n' | "$MQD" -H "$SPOOL")" = $'1\r' ]
	[ "$(field q expired_items)/$(field q items)/$(count_messages q)" = 3/0/0 ]
	"$MQCTL" -H "$SPOOL" check
}

@test "the queue that expire_to names is full: an error, and nothing is lost" {
	settings q expire=yes expire_to=late
	settings late max_items=1
	talk <<-'END'
		> set q 0 -1 1
		> a
		< STORED
		> set q 3 -1 1
		> b
		< STORED
		> set q 0 0 1
		> c
		< STORED
		> get q
		<~ SERVER_ERROR .*
		> get q
		<~ SERVER_ERROR .*
		> flush_expired q
		<~ SERVER_ERROR .*
		> flush_expired
		<~ SERVER_ERROR .*
		> get q/peek
		< VALUE q/peek 0 1
		< c
		< END
		> get late
		< VALUE late 0 1
		< a
		< END
		> get late
		< END
	END
	[ "$(field q expired_items)/$(field q items)/$(count_messages q)" = 1/2/2 ]
	[ "$(message q 2)" = "3 0 b" ]
	"$MQCTL" -H "$SPOOL" check
	talk <<-'END'
		> get q
		< VALUE q 0 1
		< c
		< END
	END
	[ "$(message late 2)" = "3 0 b" ]
	[ "$(field q expired_items)" = 2 ]
}

@test "the queue that expire_to names cannot be: an error for a get that waits, too, and nothing is lost" {
	settings q expire=yes expire_to=late
	: >"$SPOOL/late"
	talk <<-'END'
		> set q 0 -1 1
		> a
		< STORED
		> get q/t=5000
		<~ SERVER_ERROR .*
		> flush_expired
		<~ SERVER_ERROR .*
	END
	[ "$(count_messages q)" = 1 ]
	rm "$SPOOL/late"
	is_empty q
	[ "$("$MQCTL" -H "$SPOOL" get late)" = a ]
}

@test "dead_letter in the spool's .config: one graveyard for all queues, in which nothing dies" {
	local queue
	printf 'max_tries = 1\ndead_letter = grave\n' >"$SPOOL/.config"
	for queue in a b+c x.dead grave; do
		printf 'set %s 3 0 1\r\nx\r\nget %s/open\r\nget %s/abort\r\n' "$queue" "$queue" "$queue" |
			"$MQD" -H "$SPOOL" >/dev/null
		[ "$queue" = grave ] || is_empty "$queue"
	done
	[ "$(field a dead)/$(field b+c dead)/$(field x.dead dead)/$(field grave dead)" = 1/1/1/0 ]
	[ "$(count_messages grave)" = 4 ]
	[ "$(ls "$SPOOL")" = $'a\nb+c\ngrave\nx.dead' ]
	# The first one has been opened there once, and now twice more.
	talk <<-'END'
		> get grave/open
		< VALUE grave/open 3 1
		< x
		< END
		> get grave/abort
		< END
		> get grave/open
		< VALUE grave/open 3 1
		< x
		< END
		> get grave/abort
		< END
	END
	[ "$(message grave 1)" = "3 4 x" ]
	[ "$(field grave items)/$(field grave dead)" = 4/0 ]
	"$MQCTL" -H "$SPOOL" check
}

@test "dead_letter of a queue wins over the spool's; a full one: it is delivered, and may fail again" {
	printf 'max_tries = 2\ndead_letter = grave\n' >"$SPOOL/.config"
	settings q dead_letter=own
	settings own max_items=1
	printf 'set own 0 0 1\r\nx\r\nset q 9 0 6\r\npoison\r\n' | "$MQD" -H "$SPOOL" >/dev/null
	for _ in 1 2; do
		printf 'get q/open\r\nget q/abort\r\n' | "$MQD" -H "$SPOOL" | grep -q poison
	done
	printf 'get q/open\r\n' | strace -qq -o /dev/null -e inject=writev:error=EPIPE "$MQD_BINARY" -H "$SPOOL" || :
	[ "$(message q 1)" = "9 3 poison" ]
	[ "$(field q dead)" = 0 ]
	"$MQCTL" -H "$SPOOL" check
	"$MQCTL" -H "$SPOOL" get own >/dev/null
	is_empty q
	[ "$(message own 2)" = "9 3 poison" ]
	[ "$(field q dead)" = 1 ]
	[ ! -e "$SPOOL/grave" ]
}

@test "confirm of several that went back: an error for each, and none is closed" {
	settings q open_timeout=300ms
	"$MQCTL" -H "$SPOOL" put q <<<a
	"$MQCTL" -H "$SPOOL" put q <<<b
	start_mqd
	talk_tcp <<-'END'
		> monitor q 0
		< VALUE q 0 2
		<< a\n\r\nEND\r\n
		< VALUE q 0 2
		<< b\n\r\nEND\r\n
		< END
		> get r/t=600
		< END
		> confirm q 2
		< CLIENT_ERROR item was open too long
		> confirm q 2
		< CLIENT_ERROR fewer items are open
		> confirm q 1
		< CLIENT_ERROR item was open too long
		> confirm q 1
		< CLIENT_ERROR fewer items are open
	END
	[ "$(count_messages q)" = 2 ]
}

@test "idle_timeout holds while a message is open, also one that may be for long" {
	settings q open_timeout=1h
	"$MQCTL" -H "$SPOOL" put q <<<x
	start_mqd -o idle_timeout=1
	talk_tcp <<-'END'
		> get q/open
		< VALUE q/open 0 2
		<< x\n\r\nEND\r\n
		<eof
	END
	wait_for test -e "$SPOOL/q/0000000000000001"
}
