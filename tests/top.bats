#!/usr/bin/env bats
# What mqctl shows while it runs: top and tail, in a real terminal (tmux) and without one, and how far
# long work is.

load helper

setup() {
	mkdir -p "$SPOOL"
	TMUX_SOCKET=$BATS_TEST_TMPDIR/tmux
}

teardown() {
	close_terminal
	[[ -z ${TAIL:-} ]] || kill "$TAIL" 2>/dev/null || :
	stop_mqd
}

# terminal COMMAND...: tmux, with a server of the test's own.
terminal() {
	env -u TMUX LC_ALL=C.UTF-8 tmux -S "$TMUX_SOCKET" -f /dev/null "$@"
}

# close_terminal: it is gone, with whoever opens another one.
close_terminal() {
	local server
	server=$(terminal display-message -p '#{pid}' 2>/dev/null) || return 0
	terminal kill-server
	wait_for gone "$server"
}

# in_terminal COLUMNS ROWS COMMAND: what is run there is not root's own shell with all its settings.
in_terminal() {
	terminal new-session -d -x "$1" -y "$2" "exec env -u NO_COLOR LC_ALL=C.UTF-8 PS1='\$ ' $3"
	terminal set-option -g status off
	terminal resize-window -x "$1" -y "$2"
	PANE=$(terminal display-message -p '#{pane_pid}')
}

# top_in COLUMNS ROWS [VARIABLE=value...]: mqctl top, four times a second.
top_in() {
	local columns=$1 rows=$2
	shift 2
	in_terminal "$columns" "$rows" "$* '$MQCTL' -H '$SPOOL' top -d 250ms"
}

screen() {
	terminal capture-pane -p
}

# sees REGEX: a line of the screen matches; sees_not: none does.
sees() {
	screen | grep -Eq -- "$1"
}

sees_not() {
	! sees "$1"
}

# shows REGEX: sooner or later. The screen is printed if it never does.
shows() {
	wait_for sees "$1" || { screen; false; }
}

shows_not() {
	wait_for sees_not "$1" || { screen; false; }
}

keys() {
	terminal send-keys "$@"
}

# line N: of the screen, from 1 on.
line() {
	screen | sed -n "$1p"
}

# is_line N REGEX
is_line() {
	[[ $(line "$1") =~ $2 ]]
}

put_many() {
	local i
	for ((i = 0; i < $2; i++)); do printf '%s' "$i" | ctl put "$1"; done
}

# fill QUEUE N: N small messages, by one mqd.
fill() {
	"$PYTHON" -c 'import sys; sys.stdout.write("set %s 0 0 5\r\nhello\r\n" % sys.argv[1] * int(sys.argv[2]) + "quit\r\n")' "$1" "$2" |
		"$MQD" -H "$SPOOL" -o sync=none >/dev/null
}

@test "top: depth, what comes and goes each second, ages, getters, open messages, totals" {
	native "a screen takes longer than its second"
	local out
	start_mqd
	put_many jobs 3
	put_many mail 1
	top_in 100 12
	shows '^jobs +3 '
	is_line 1 '^4 waiting in 2 queues  in 0/s  out 0/s  0 open  0 getters .*[0-9]{2}:[0-9]{2}:[0-9]{2}$'
	is_line 2 '^QUEUE +WAITING +IN/s +OUT/s +OLDEST +OPEN +GETTERS  DEPTH$'
	is_line 3 '^jobs .* [0-9]+s +0 +0 .*█$'
	is_line 4 '^mail +1 '
	is_line 12 '^q quit'
	# A queue that comes, grows, and is emptied: the bars fall with it.
	fill late 64
	shows '^late +64 .*█$'
	is_line 3 '^late'
	"$PYTHON" - "$PORT" <<-'END' &
		import socket, sys, time
		s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
		s.sendall(b"get jobs/open\r\n")
		s.recv(4096)
		s.sendall(b"get nothing/t=60000\r\n")
		s.recv(4096)
	END
	CLIENT=$!
	shows '^jobs +2 .* 1 +0  '
	shows '^nothing +0 .* - +0 +1$'
	shows '^67 waiting in 4 queues .* 1 open  1 getter '
	kill "$CLIENT"
	shows '^nothing +0 .* - +0 +0$'
	ctl flush late
	shows '^late +0 .*█+$'
	# Rates: of a constant stream, until they are seen.
	while :; do
		fill jobs 5
		ctl get jobs
	done >/dev/null 2>&1 &
	CLIENT=$!
	wait_for sees '^jobs +[0-9]+ +[1-9][0-9.]* +[1-9]' || { kill "$CLIENT"; screen; false; }
	stop "$CLIENT"
	shows '^jobs +[0-9]+ +0 +0 '
	ctl drop late
	shows_not '^late'
}

@test "top: the keys sort, turn round, filter, freeze and explain" {
	put_many aaa 1
	put_many bbb 3
	put_many ccc 2
	top_in 80 10
	shows '^bbb +3'
	is_line 3 '^bbb' && is_line 4 '^ccc' && is_line 5 '^aaa'
	keys r
	wait_for is_line 3 '^aaa'
	is_line 4 '^ccc' && is_line 5 '^bbb'
	keys r '<' # by name
	wait_for is_line 3 '^aaa'
	is_line 4 '^bbb' && is_line 5 '^ccc'
	keys Right
	wait_for is_line 3 '^bbb'
	keys /
	shows '^filter:$'
	keys -l cx
	shows '^No queue matches'
	shows '^filter: cx'
	keys BSpace
	shows '^ccc'
	sees_not '^aaa'
	keys Enter
	shows '^filter: c  q quit'
	keys Escape
	shows '^aaa'
	keys '?'
	shows '^Any key leads back|select a queue'
	sees_not '^aaa'
	keys x
	shows '^aaa'
	keys Space
	shows FROZEN
	put_many aaa 4
	# It is seen by another that is not frozen, and so by this one later.
	[[ $(ctl top -n 1) == *$'\naaa '*' 5 '* ]]
	sees '^aaa +1 '
	keys Space
	shows '^aaa +5 '
	is_line 3 '^aaa'
}

@test "top: p pauses the queue that was selected, wherever it is by then, and asks before" {
	put_many aaa 1
	put_many bbb 2
	top_in 80 10
	shows '^bbb +2'
	keys p
	shows '^Select a queue'
	keys Down Down
	keys p
	shows '^ y/n  deliver nothing from aaa'
	put_many aaa 3
	shows '^aaa +4'
	is_line 3 '^aaa'
	keys n
	shows_not 'y/n'
	[[ $(ctl ls aaa) != *paused* ]]
	keys p
	shows '^ y/n  deliver nothing from aaa'
	keys y
	shows '^aaa .*paused'
	[[ $(ctl ls aaa) == *paused ]]
	[[ $(ctl ls bbb) != *paused* ]]
	keys p
	shows '^ y/n  deliver again from aaa'
	keys y
	shows_not '^aaa .*paused'
	[[ $(ctl ls aaa) != *paused* ]]
	# One that is gone by then is not made again.
	keys p
	shows 'y/n'
	ctl drop aaa
	shows_not '^aaa'
	keys y
	shows 'aaa: no such queue'
	[ ! -e "$SPOOL/aaa" ]
}

@test "top: from 200 columns to a single character, and names of any length and bytes" {
	local long size
	printf -v long '%0250d' 7
	put_many "$long" 2
	put_many '<script>alert(1)<%2Fscript>' 1
	put_many $'\033[31mred' 1
	put_many plain 9
	top_in 200 50
	shows '^0+…0+7 +2'
	sees '^%3Cscript%3Ealert%281%29%3C%252Fscript%3E +1'
	sees '^%1B%5B31mred +1'
	for size in '20 5' '80 24' '10 3' '9 2' '1 1' '3 40' '61 4' '200 2'; do
		# shellcheck disable=SC2086
		terminal resize-window -x ${size% *} -y ${size#* }
		case $size in
		'20 5')
			wait_for is_line 1 '^13 waiting in 4 queu$' && wait_for is_line 3 '^plain +9$' &&
				is_line 4 '^000000…00007 +2$' && is_line 5 '^q quit  < > sort  r'
			;;
		'10 3') wait_for is_line 2 '^plain$' ;;
		'1 1') wait_for is_line 1 '^p$' ;;
		'80 24') wait_for is_line 5 '^%1B%5B31mred +1 .*█$' ;;
		'200 2') wait_for is_line 2 '^plain +9 ' ;;
		esac || { screen; false; }
		[ "$(screen | wc -l)" -le "${size#* }" ]
	done
	keys q
	wait_for gone "$PANE"
}

# No line of the list is in reverse: those that are end in it, or else only the headings are.
none_selected() {
	! terminal capture-pane -pe | grep '^[^Q]*q1[0-9] ' | grep -q '7m'
}

@test "top: more queues than lines, and the keys that lead through them" {
	local i
	for i in {10..39}; do mkdir -m 700 "$SPOOL/q$i"; done
	top_in 80 13
	shows '^q10 '
	is_line 12 '^q19 '
	keys NPage
	keys NPage
	wait_for is_line 12 '^q20 '
	keys End
	wait_for is_line 12 '^q39 '
	is_line 3 '^q30 '
	keys PPage
	wait_for is_line 3 '^q29 '
	keys Home
	wait_for is_line 3 '^q10 '
	keys k j j j
	keys p
	shows 'y/n  deliver nothing from q13$'
	keys n
	keys Escape
	wait_for none_selected
	keys p
	shows '^Select a queue'
}

# The terminal as it was: settings, page, cursor.
restored() {
	[[ $(terminal display-message -p '#{alternate_on} #{cursor_flag} #{wrap_flag}') == '0 1 1' ]]
}

in_full_screen() {
	[[ $(terminal display-message -p '#{alternate_on} #{cursor_flag} #{wrap_flag}') == '1 0 0' ]]
}

@test "top: the terminal is as it was after q, ^C, and each signal that ends it" {
	local how code
	put_many q 1
	cat >"$BATS_TEST_TMPDIR/once" <<-END
		trap : INT
		stty -g >"$BATS_TEST_TMPDIR/before"
		sh -c 'echo \$\$ >"$BATS_TEST_TMPDIR/pid"; exec $MQCTL -H $SPOOL top -d 250ms'
		echo "ended with \$?"
		stty -g >"$BATS_TEST_TMPDIR/after"
	END
	in_terminal 80 12 "bash --norc --noprofile -i"
	for how in q:0 C-c:130 TERM:143 HUP:129 QUIT:131; do
		keys -l "clear; . $BATS_TEST_TMPDIR/once"
		keys Enter
		shows '^q +1'
		in_full_screen
		code=${how#*:} how=${how%:*}
		case $how in
		q | C-c) keys "$how" ;;
		*) kill -"$how" "$(<"$BATS_TEST_TMPDIR/pid")" ;;
		esac
		shows "^ended with $code"
		restored
		wait_for cmp "$BATS_TEST_TMPDIR/before" "$BATS_TEST_TMPDIR/after"
		sees_not '^q +1'
	done
	# An error that ends it is seen on the page that stays.
	keys -l "clear; . $BATS_TEST_TMPDIR/once"
	keys Enter
	shows '^q +1'
	mv "$SPOOL" "$SPOOL.away"
	rm -rf "$SPOOL.away"
	shows '^mqctl: .*No such file|^There are no queues'
}

@test "top: ^Z gives the terminal back, fg takes it again; a SIGSTOP likewise" {
	native "it stops by itself alone"
	put_many q 1
	in_terminal 80 12 "bash --norc --noprofile -i"
	keys -l "$MQCTL -H $SPOOL top -d 250ms"
	keys Enter
	shows '^q +1'
	keys C-z
	shows 'Stopped'
	restored
	put_many q 1
	keys -l "echo it  goes; stty -a | grep -o ' icanon'"
	keys Enter
	shows '^it goes$'
	shows '^ icanon$'
	keys -l fg
	keys Enter
	shows '^q +2'
	in_full_screen
	pid=$(pgrep -P "$PANE")
	kill -STOP "$pid"
	shows 'Stopped'
	keys -l fg
	keys Enter
	shows '^QUEUE +WAITING'
	keys q
	shows '^\$$'
	wait_for restored
}

@test "top: ends when its terminal has gone" {
	put_many q 1
	top_in 80 12
	shows '^q +1'
	close_terminal
	wait_for gone "$PANE"
	# Who ignores SIGHUP finds out as well.
	top_in 80 12 "sh -c 'trap \"\" HUP; exec \"\$@\"' sh"
	shows '^q +1'
	close_terminal
	wait_for gone "$PANE"
}

@test "top: colours, but not with NO_COLOR; blocks, but not without UTF-8; plain on a dumb terminal" {
	put_many q 2
	ctl pause q
	top_in 80 12
	shows '^q +2 .*paused .*█'
	[[ $(terminal capture-pane -pe) == *$'\033[33m'* ]]
	close_terminal
	top_in 80 12 NO_COLOR=1 LC_ALL=C
	shows '^q +2 .*paused .*#$'
	[[ $(terminal capture-pane -pe) != *$'\033[3'[1-7]* ]]

	[[ $(terminal capture-pane -pe) == *7m*QUEUE* ]]
	close_terminal
	top_in 80 12 TERM=dumb
	shows '^q +2 +(-|0) +(-|0) +[0-9]+s +0 +0  paused$'
	restored
	close_terminal
	in_terminal 80 12 "sh -c \"'$MQCTL' -H '$SPOOL' top -b -n 2 -d 100ms; cat\""
	shows '^q +2 +0 +0 +[0-9]+s +0 +0  paused$'
	restored
}

@test "top without a terminal: frames until the count, or until nobody reads" {
	local out
	put_many q 2
	put_many other 3
	run ctl top -n 2 -d 100ms
	[ "$status" -eq 0 ]
	[ "$(grep -c '^QUEUE' <<<"$output")" -eq 2 ]
	[ "$(grep -c '^$' <<<"$output")" -eq 1 ]
	[[ ${lines[0]} =~ ^[0-9]{4}-[0-9-]+\ [0-9:]{8}\ \ 5\ waiting\ in\ 2\ queues\ \ in\ 0/s\ \ out\ 0/s\ \ 0\ open\ \ 0\ getters$ ]]
	[[ ${lines[2]} =~ ^other\ +3\ +-\ +-\ +[0-9]+s\ +0\ +0$ ]]
	[[ ${lines[3]} =~ ^q\ +2\  ]]
	[[ $output != *$'\033'* ]]
	# The first frame is there at once, the others are not waited for by whoever has gone.
	[[ $(ctl top -d 1h | head -n 1) == *" 5 waiting "* ]]
	run bash -c 'trap "" PIPE; "$MQCTL" -H "$SPOOL" top -d 100ms | head -n 1'
	[[ $output == *" 5 waiting "* ]]
	run bash -c '"$MQCTL" -H "$SPOOL" top -n 1 2>&1 >/dev/full'
	[ "$status" -eq 111 ]
	for args in '-x' '-n' '-n x' '-d 0' '-d x' '-d 10ms' 'q'; do
		# shellcheck disable=SC2086
		run ctl top $args
		[ "$status" -eq 100 ] || { echo "$args: $status"; false; }
	done
	run "$MQCTL" -H "$SPOOL/missing" top -n 1
	[ "$status" -eq 111 ]
}

@test "top looks at queues that stand still by their times alone" {
	native "its own system calls would count"
	local i first
	for i in {100..399}; do mkdir -m 700 "$SPOOL/q$i"; done
	ctl ls >/dev/null
	for i in 1 6; do
		strace -o "$BATS_TEST_TMPDIR/trace$i" -e trace=flock \
			"$MQCTL" -H "$SPOOL" top -n $i -d 100ms >"$BATS_TEST_TMPDIR/out$i"
	done
	[ "$(grep -c '^QUEUE' "$BATS_TEST_TMPDIR/out6")" -eq 6 ]
	first=$(wc -l <"$BATS_TEST_TMPDIR/trace1")
	[ "$first" -ge 600 ] # a lock and an unlock each
	# Five frames more look at fifty each, not at three hundred.
	[ "$(wc -l <"$BATS_TEST_TMPDIR/trace6")" -le $((first + 5 * 2 * 60)) ]
	# One that changes among them is seen in the next frame.
	top_in 80 12
	shows '^q100 '
	put_many q399 5
	wait_for is_line 3 '^q399 +5 '
}

# start_tail ARGUMENT...: mqctl tail, into the file `tail`.
start_tail() {
	"$MQCTL" -H "$SPOOL" tail "$@" >"$BATS_TEST_TMPDIR/tail" 2>&1 3>&- &
	TAIL=$!
}

tailed() {
	grep -Eq "$1" "$BATS_TEST_TMPDIR/tail"
}

@test "tail: the last that wait, then what comes in; nothing is taken" {
	put_many q 15
	start_tail q
	wait_for tailed ': 14$'
	[ "$(wc -l <"$BATS_TEST_TMPDIR/tail")" -eq 10 ]
	[[ $(head -n 1 "$BATS_TEST_TMPDIR/tail") == '0000000000000006          1 bytes, flags 0: 5' ]]
	printf 'now\033[2J' | ctl put q
	wait_for tailed '^0000000000000016          7 bytes, flags 0: now.\[2J$'
	put_many q 3
	wait_for tailed '^0000000000000019 .*: 2$'
	[ "$(wc -l <"$BATS_TEST_TMPDIR/tail")" -eq 14 ]
	[ "$(count_messages q)" -eq 19 ]
	[[ $(ctl ls q) =~ q\ +19\ +0\ +0\ +0\  ]] # no getter
	kill "$TAIL"
	wait "$TAIL" || [ $? -eq 143 ]
	start_tail -n 2 q
	wait_for tailed ': 2$'
	[ "$(wc -l <"$BATS_TEST_TMPDIR/tail")" -eq 2 ]
}

@test "tail: messages that were taken before they could be shown are counted" {
	printf x | ctl put q
	start_tail q -n 1
	wait_for tailed ': x$' # from now on nothing that comes in was there before
	printf first | ctl put q
	wait_for tailed ': first$'
	kill -STOP "$TAIL"
	wait_for grep -q '^State:.T' "/proc/$TAIL/status"
	put_many q 4
	ctl flush q >/dev/null
	printf seen | ctl put q
	kill -CONT "$TAIL"
	wait_for tailed ': seen$'
	tailed '^(…|\.\.\.) 4 taken unseen$'
	[ "$(wc -l <"$BATS_TEST_TMPDIR/tail")" -eq 4 ]
}

@test "tail: what was delayed comes when it is due; a queue that is removed ends it, and is another when made again" {
	printf x | ctl put q
	start_tail -n 1 q
	wait_for tailed ': x$'
	ctl set q delay=1s
	printf later | ctl put q
	ctl set q delay=
	wait_for tailed ': later$'
	ctl drop q
	wait_for gone "$TAIL"
	tailed '^mqctl: q: no such queue$'
	run wait "$TAIL"
	run ctl tail nothing
	[ "$status" -eq 1 ]
	for args in '' 'q -n' 'q -n x' 'q q' '-n 10001 q'; do
		# shellcheck disable=SC2086
		run ctl tail $args
		[ "$status" -eq 100 ] || { echo "$args: $status"; false; }
	done
}

@test "tail ends when nobody reads any more, although nothing comes" {
	printf x | ctl put q
	mkfifo "$BATS_TEST_TMPDIR/fifo"
	"$MQCTL" -H "$SPOOL" tail q >"$BATS_TEST_TMPDIR/fifo" 3>&- &
	TAIL=$!
	read -r got <"$BATS_TEST_TMPDIR/fifo"
	[[ $got == *': x' ]]
	wait_for gone "$TAIL"
}

# on_terminal VARIABLE=value COMMAND...: its standard error is a terminal, standard output is not. Prints
# what the terminal got, as Python has it, and the exit code.
on_terminal() {
	"$PYTHON" - "$@" <<-'END'
		import os, pty, sys
		name, value = sys.argv[1].split("=", 1)
		pid, fd = pty.fork()
		if pid == 0:
		    os.environ["TERM"] = "xterm"
		    os.environ[name] = value
		    os.dup2(os.open("/dev/null", os.O_WRONLY), 1)
		    os.execv(sys.argv[2], sys.argv[2:])
		got = b""
		while True:
		    try:
		        part = os.read(fd, 65536)
		    except OSError:
		        break
		    if not part:
		        break
		    got += part
		print(repr(got), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
	END
}

# slowly CALL COMMAND...: on_terminal, with two milliseconds more for each such system call.
slowly() {
	on_terminal ASAN_OPTIONS=detect_leaks=0 /usr/bin/strace -o /dev/null -e trace="$1" -e inject="$1":delay_exit=2000 \
		"$MQCTL" -H "$SPOOL" "${@:2}"
}

@test "long work shows how far it is on a terminal, and nothing of it stays there" {
	native "its own system calls would be slow, too"
	fill q 100
	printf garbage >"$SPOOL/q/0000000000000999"
	run slowly openat check
	echo "$output"
	[[ $output == *'\rcheck  ['*'] '*'% '*' of 100 '*'/s'*'\r\x1b[K'"' 1" ]]
	run on_terminal TERM=dumb "$MQCTL" -H "$SPOOL" check
	[[ $output == "b'' 1" ]]
	run ctl check
	[[ $output == 'damaged q/0000000000000999: '* && $output != *$'\r'* ]]
	rm "$SPOOL/q/0000000000000999"
	run slowly openat mv q all other
	echo "$output"
	[[ $output == *'\rmv  ['*' of 100 '*'\r\x1b[K'"' 0" ]]
	fill other 200 # it is told of each 64
	run slowly unlinkat flush other
	echo "$output"
	[[ $output == *'\rflush  ['*' of 300 '*'\r\x1b[K'"' 0" ]]
	# What is short is not worth a line.
	run on_terminal A=b "$MQCTL" -H "$SPOOL" flush other
	[[ $output == "b'' 0" ]]
}
