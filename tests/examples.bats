#!/usr/bin/env bats
# What the documents show: the programs in EXAMPLES of mqd(8), as they are printed there, with the libraries
# that they name (what they call work() is in clients/work.*), and the recorded session.

load helper

LANGUAGES="php py pl rb go js"

setup() {
	cd "$BATS_TEST_TMPDIR"
	CONSUMER=
	mkfifo never
	exec 4<>never # where a program that hangs reads
	start_mqd 4>&-
}

teardown() {
	stop_consumer
	stop_mqd
	cat consumer.log 2>/dev/null || : # bats shows it if the test failed
}

# example NAME: a program of the manual, for this test's port, and with less patience: T milliseconds, in
# which a library that is not told to wait has given up.
example() {
	awk -v mark=".\\\\\" example: $1" '$0 == mark { found = 1 } found && /^\.Ed/ { exit } found > 1
		found && /^\.Bd/ { found = 2 }' "$TOP/man/mqd.8" |
		sed -e 's/\\e/\\/g' -e "s/22201/$PORT/" -e "s/t=30000/t=$T/"
}

# program LANGUAGE NAME: make it, as a command in the array `run_NAME`.
program() {
	local work=$BATS_TEST_DIRNAME/clients/work.$1 file=$2.$1
	local -n command=run_$2
	example "$file" >"$2.body"
	[[ -s $2.body ]]
	case $1 in
	php)
		cat "$work" "$2.body" >"$file"
		command=(php "$file")
		;;
	py)
		cat "$work" "$2.body" >"$file"
		command=("$PYTHON" "$file")
		;;
	pl)
		cat "$work" "$2.body" >"$file"
		command=(perl "$file")
		;;
	rb)
		cat "$work" "$2.body" >"$file"
		command=(ruby "$file")
		;;
	js)
		cat "$work" "$2.body" >"$file"
		command=(node "$file")
		;;
	go)
		mkdir "$2" && cp "$work" "$2" && mv "$2.body" "$2/main.go"
		(cd "$2" && go build -o ../"$2.exe" ./*.go)
		command=("./$2.exe")
		;;
	esac
}

produce() {
	timeout 20 "${run_producer[@]}" 4>&-
}

start_consumer() {
	"${run_consumer[@]}" <&4 >>consumer.log 2>&1 3>&- 4>&- &
	CONSUMER=$!
}

stop_consumer() {
	[[ -n $CONSUMER ]] || return 0
	kill -9 "$CONSUMER" 2>/dev/null || :
	wait "$CONSUMER" 2>/dev/null || :
	CONSUMER=
}

# worked N: has work begun on so many messages?
worked() {
	[[ -e worked && $(wc -l <worked) -eq $1 ]]
}

has_messages() {
	[[ $(count_messages jobs) -eq $1 ]]
}

# is_open N: so many are taken and not done.
is_open() {
	[[ $(in_flight jobs | wc -l) -eq $1 ]]
}

# misses N: so many times, or more, has nobody come with a message in time.
misses() {
	[[ $(printf 'stats\r\n' | "$MQD" -H "$SPOOL" | tr -d '\r' | sed -n 's/^STAT get_misses //p') -ge $1 ]]
}

# reliable LANGUAGE T: two messages are pushed, and the consumer is killed while it has the first. The next
# consumer gets it again, and the other; both are done then. It waits in vain, goes on to wait, and gets the
# message that comes later. It ends when mqd does.
reliable() {
	T=$2
	program "$1" producer
	program "$1" consumer
	produce
	produce
	has_messages 2

	touch hang
	start_consumer
	wait_for worked 1
	has_messages 1
	is_open 1
	stop_consumer
	wait_for has_messages 2

	rm hang
	start_consumer
	wait_for worked 3
	wait_for is_open 0
	has_messages 0
	wait_for misses 1
	produce
	wait_for worked 4
	wait_for is_open 0
	has_messages 0
	sort -u worked | cmp - <(echo hello)

	[[ ${LAUNCH:-pool} == pool ]] || return 0 # the end of tcpserver is no connection's
	stop_mqd
	if [[ $1 == pl ]]; then # goes on when there is an mqd again
		free_port() {
			echo "$PORT"
		}
		start_mqd 4>&-
		produce
		wait_for worked 5
	else
		wait_for gone "$CONSUMER"
	fi
}

@test "the manual has a producer and a consumer for each language, and no other example unasked" {
	diff <(sed -n 's/^\.\\" example: //p' "$TOP/man/mqd.8" | sort) \
		<(for l in $LANGUAGES; do echo "producer.$l" && echo "consumer.$l"; done | sort)
}

@test "PHP: php-memcached, which waits 5 s unless told otherwise" {
	reliable php 5500
}

@test "Python: pymemcache" {
	reliable py 1500
}

@test "Perl: Cache::Memcached::Fast" {
	reliable pl 1500
}

@test "Ruby: a socket" {
	reliable rb 1500
}

@test "Go: gomemcache, which waits 0.1 s unless told otherwise" {
	command -v go >/dev/null || skip "golang-go is not installed (half a gigabyte)"
	if [[ -d /usr/share/gocode/src/github.com/bradfitz/gomemcache ]]; then
		export GO111MODULE=off GOPATH=/usr/share/gocode GOFLAGS=
	else
		skip "golang-github-bradfitz-gomemcache-dev is not installed"
	fi
	export GOCACHE=$BATS_FILE_TMPDIR/go
	reliable go 1500
}

@test "Node: memcached, which closes an idle connection after 5 s unless told otherwise" {
	node -e 'require("memcached")' 2>/dev/null || skip "node, or memcached from npm, is not installed (see NODE_PATH)"
	reliable js 5500
}

@test "doc/session.txt is what doc/session records" {
	native "the recording is of a terminal's time"
	"$TOP/doc/session" "$MQD_BINARY" "$MQCTL" >now
	for f in "$TOP/doc/session.txt" now; do
		sed -E 's/[0-9]+/N/g; s/ +/ /g' "$f" >"${f##*/}.plain" # process ids, ages, the client's port
	done
	diff session.txt.plain now.plain
}
