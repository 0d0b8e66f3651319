#!/usr/bin/env bats
# Where a spool may lie and whose it must be; and several containers on one spool.

load helper

setup() {
	[ "$EUID" -eq 0 ] || skip "only root can change owners, mount, and make namespaces"
	mkdir "$SPOOL"
	CONTAINERS=()
}

# unshare lets SIGTERM pass by what it started.
end_containers() {
	local pid
	for pid in "${CONTAINERS[@]}"; do
		pkill -P "$pid" || :
		wait "$pid" || :
	done
	CONTAINERS=()
}

teardown() {
	stop_mqd
	end_containers
	local m
	for m in mnt base; do
		! mountpoint -q "$BATS_TEST_TMPDIR/$m" || umount "$BATS_TEST_TMPDIR/$m"
	done
}

portable() {
	[[ $MQD_BINARY == */portable/* ]]
}

# Copies of mqd and mqctl, and a way to the spool, that other users can use.
open_to_others() {
	local d=$BATS_TEST_TMPDIR
	cp "$MQD_BINARY" "$d/mqd"
	cp "$MQCTL" "$d/mqctl"
	while [ "$d" != / ]; do
		chmod go+x "$d"
		d=$(dirname "$d")
	done
	export ASAN_OPTIONS=detect_leaks=0
}

# Before a program: run it as another user; in a container, as process 1 of a pid namespace and root of
# a user namespace; where fstatfs says that type, as the eight digits of its bytes; and where a
# directory has the flag by which upper and lower case are the same.
OTHER=4711
as_other=(setpriv --reuid "$OTHER" --regid "$OTHER" --clear-groups)
in_container=(unshare --user --map-root-user --pid --fork --kill-child --mount-proc)
on_type() {
	on_type=(env ASAN_OPTIONS=detect_leaks=0 strace -qq -f -o /dev/null -e trace=fstatfs -e "inject=fstatfs:poke_exit=@arg2=$1")
}
folding=(env ASAN_OPTIONS=detect_leaks=0 strace -qq -f -o /dev/null -e trace=ioctl -e inject=ioctl:retval=0:poke_exit=@arg3=00000040:when=1)

# push_one QUEUE PROGRAM...: what mqd answers to a set.
push_one() {
	printf 'set %s 0 0 1\r\nx\r\n' "$1" | "${@:2}" -H "$SPOOL" 2>"$BATS_TEST_TMPDIR/log" | tr -d '\r'
}

# is_refused PATTERN [PROGRAM...]: a connection gets one line and the end; who listens ends; nothing
# was made in the spool; and the log says why, once. PROGRAM is how mqd is run, by user RUN_AS (0).
is_refused() {
	local mqd=("${@:2}") status=0
	[ $# -gt 1 ] || mqd=("$MQD")
	printf 'set q 0 0 1\r\nx\r\nversion\r\n' | "${mqd[@]}" -H "$SPOOL" \
		2>"$BATS_TEST_TMPDIR/log" >"$BATS_TEST_TMPDIR/out" || status=$?
	[ "$status" -eq 111 ]
	[ "$(cat "$BATS_TEST_TMPDIR/out")" = $'SERVER_ERROR spool refused\r' ]
	[ "$(wc -l <"$BATS_TEST_TMPDIR/log")" -eq 1 ]
	# shellcheck disable=SC2053
	[[ "$(cat "$BATS_TEST_TMPDIR/log")" == mqd\[*\]:\ $SPOOL:\ $1 ]]
	run timeout 10 "${mqd[@]}" -H "$SPOOL" -p "$(free_port)" -l 127.0.0.1 -s "$BATS_TEST_TMPDIR/s" \
		-u "${RUN_AS:-0}"
	[ "$status" -eq 111 ]
	[ "${#lines[@]}" -eq 1 ]
	[ ! -e "$BATS_TEST_TMPDIR/s" ]
	# shellcheck disable=SC2053
	[[ $output == mqd\[*\]:\ $SPOOL:\ $1 ]]
	[ -z "$(ls -A "$SPOOL" 2>/dev/null)" ]
}

# mend: carry out the command that the log ends with.
mend() {
	local command
	command=$(sed 's/.*: //' "$BATS_TEST_TMPDIR/log")
	[[ $command == ch* ]]
	eval "$command"
}

@test "a spool of another user: refused, and the command that the log says mends it" {
	open_to_others
	chown $OTHER "$SPOOL"
	is_refused "belongs to user $OTHER, and root runs mqd: use -u $OTHER"
	echo y | "$MQCTL" -H "$SPOOL" put q # which becomes that user
	rm -r "$SPOOL"
	mkdir -m 755 "$SPOOL"
	chmod 777 "$BATS_TEST_TMPDIR" # where the socket goes
	RUN_AS=$OTHER is_refused "belongs to user 0, and not to $OTHER: chown -R $OTHER $SPOOL" \
		"${as_other[@]}" "$BATS_TEST_TMPDIR/mqd"
	mend
	[ "$(push_one q "${as_other[@]}" "$BATS_TEST_TMPDIR/mqd")" = STORED ]
	[ "$(stat -c %u "$SPOOL" "$SPOOL/q" | uniq)" = "$OTHER" ]
	run "${as_other[@]}" "$BATS_TEST_TMPDIR/mqctl" -H "$SPOOL" get q
	[ "$output" = x ]
}

@test "a spool that others may write to: refused; that they may read, or not" {
	local mode
	for mode in 770 707 1777 720 2775; do
		chmod "$mode" "$SPOOL"
		is_refused "can be written to by other users: chmod go-w $SPOOL"
		mend
		[ "$(push_one q "$MQD")" = STORED ]
		rm -r "$SPOOL"
		mkdir "$SPOOL"
	done
	for mode in 700 750 755 711 2750; do
		rm -rf "$SPOOL/q"
		chmod "$mode" "$SPOOL"
		[ "$(push_one q "$MQD")" = STORED ]
		[ "$(stat -c %a "$SPOOL/q" "$SPOOL/q/.state" | tr '\n' ' ')" = "$([ $mode = 2750 ] && echo 2700 || echo 700) 600 " ]
	done
}

@test "the spool's path may be a symlink, and a directory that others may write to may hold it" {
	mkdir -m 777 "$BATS_TEST_TMPDIR/common"
	mv "$SPOOL" "$BATS_TEST_TMPDIR/common/spool"
	ln -s common/spool "$SPOOL"
	[ "$(push_one q "$MQD")" = STORED ]
	# What somebody else puts in its place is his.
	rm "$SPOOL"
	mkdir -m 700 "$BATS_TEST_TMPDIR/his"
	chown $OTHER "$BATS_TEST_TMPDIR/his"
	ln -s his "$SPOOL"
	is_refused "belongs to user $OTHER, and root runs mqd: *"
}

@test "the client of a super-server is told, and let go" {
	command -v tcpserver >/dev/null
	LAUNCH=connection start_mqd
	chmod 777 "$SPOOL"
	talk_tcp <<-'END'
		> set q 0 0 1
		> x
		< SERVER_ERROR spool refused
		<eof
		connect
		< SERVER_ERROR spool refused
		<eof
	END
	chmod 700 "$SPOOL"
	talk_tcp <<-'END'
		> set q 0 0 1
		> x
		< STORED
	END
}

@test "a pool whose spool goes bad: refused to new processes, with the reason, until it is mended" {
	LAUNCH=pool start_mqd -t 1
	# A worker opens the spool with its first connection.
	mv "$SPOOL" "$SPOOL.old"
	mkdir -m 777 "$SPOOL"
	talk_tcp <<-'END'
		> get q
		< SERVER_ERROR Operation not permitted
		> get q
		< SERVER_ERROR Operation not permitted
	END
	[ "$(grep -c "$SPOOL: can be written to by other users: chmod go-w $SPOOL" "$BATS_TEST_TMPDIR/log")" -eq 1 ]
	chmod go-w "$SPOOL"
	talk_tcp <<-'END'
		> get q
		< END
	END
}

@test "a queue's directory that is another user's, or that others may write to: that queue is refused" {
	local how
	put() { push_one "$1" "$MQD"; }
	for how in "chown $OTHER" "chmod 770" "chmod 702"; do
		mkdir "$SPOOL/bad"
		$how "$SPOOL/bad"
		[ "$(printf 'set bad 0 0 1\r\nx\r\nget bad\r\nset good 0 0 1\r\ny\r\nget good\r\n' |
			"$MQD" -H "$SPOOL" 2>"$BATS_TEST_TMPDIR/log" | tr -d '\r')" = "SERVER_ERROR Operation not permitted
SERVER_ERROR Operation not permitted
STORED
VALUE good 0 1
y
END" ]
		[ -z "$(ls -A "$SPOOL/bad")" ]
		[ "$(grep -c "bad: .*: ch.* $SPOOL/bad\$" "$BATS_TEST_TMPDIR/log")" -eq 1 ]
		[ "$(wc -l <"$BATS_TEST_TMPDIR/log")" -le 2 ]
		run "$MQCTL" -H "$SPOOL" ls bad
		[ "$status" -eq 111 ]
		[[ $output == *"mqctl: bad: "*": ch"*" $SPOOL/bad"* ]]
		sed -i '/: ch/!d' "$BATS_TEST_TMPDIR/log"
		mend
		[ "$(put bad)" = STORED ]
		rm -r "$SPOOL/bad"
	done
}

@test "file systems: what is not known to be this machine's alone is refused, unless the operator says so" {
	local type name
	if portable; then # it cannot tell one from another
		on_type 69690000
		[ "$(push_one q "${on_type[@]}" "$MQD")" = STORED ]
		return
	fi
	while read -r type name; do
		on_type "$type"
		is_refused "lies on $name*: move it to a local one *" "${on_type[@]}" "$MQD"
		[ "$(push_one q "${on_type[@]}" "$MQD" -o filesystem=any)" = STORED ]
		run "${on_type[@]}" "$MQCTL" -H "$SPOOL" get q
		[ "$status" -eq 0 ]
		[[ "${lines[0]}" == "mqctl: $SPOOL: lies on $name"* && "${lines[1]}" == x ]]
		rm -r "$SPOOL"
		mkdir "$SPOOL"
	done <<-'END'
		69690000 NFS
		46557365 FUSE
		424d53ff CIFS
		97190201 9p
		0064c300 Ceph
		444d0000 FAT
		78563412 a file system that mqd does not know (type 0x12345678)
	END
	for type in 53ef0000 42534658 3e682391 94190201 30764c79 c12fc12f; do
		on_type "$type"
		[ "$(push_one q "${on_type[@]}" "$MQD")" = STORED ]
	done
}

@test "what the operator says of the file system is not said of the owner" {
	chmod 777 "$SPOOL"
	is_refused "can be written to by other users: *" "$MQD" -o filesystem=any
	run "$MQD" -H "$SPOOL" -o filesystem=nfs </dev/null
	[ "$status" -eq 100 ]
	[[ $output == *"-o filesystem=nfs: must be local or any"* ]]
	chmod 700 "$SPOOL"
	[ "$(push_one q "$MQD" -o filesystem=local,sync=none)" = STORED ]
}

@test "a directory in which Q and q are one is refused" {
	if portable; then # it cannot tell
		[ "$(push_one q "${folding[@]}" "$MQD")" = STORED ]
		return
	fi
	is_refused "takes upper and lower case for the same, *" "${folding[@]}" "$MQD"
}

@test "what it costs: a call each for the file system and the directory's flags" {
	local calls
	"$MQD" -H "$SPOOL" <<<version >/dev/null
	strace -qq -f -o "$BATS_TEST_TMPDIR/trace" -e trace=fstatfs,ioctl "$MQD" -H "$SPOOL" <<<version >/dev/null
	calls=$(grep -c 'fstatfs\|FS_IOC_GETFLAGS' "$BATS_TEST_TMPDIR/trace" || :)
	[ "$calls" -eq "$(portable && echo 0 || echo 2)" ]
}

# mount_or_skip ARGUMENT...: mount something on mnt, and put the spool there.
mount_or_skip() {
	mkdir -p "$BATS_TEST_TMPDIR/mnt"
	mount "$@" "$BATS_TEST_TMPDIR/mnt" 2>"$BATS_TEST_TMPDIR/why" ||
		skip "mounting is not allowed here: $(cat "$BATS_TEST_TMPDIR/why")"
	SPOOL=$BATS_TEST_TMPDIR/mnt/spool
}

@test "tmpfs and a bind mount: taken" {
	local real=$SPOOL
	mount_or_skip -t tmpfs none
	mkdir "$SPOOL"
	[ "$(push_one q "$MQD")" = STORED ]
	umount "$BATS_TEST_TMPDIR/mnt"
	mount_or_skip --bind "$real"
	SPOOL=$BATS_TEST_TMPDIR/mnt
	[ "$(push_one q "$MQD")" = STORED ]
	SPOOL=$real
	[ "$(push_one q "$MQD")" = STORED ]
	[ "$(count_messages q)" = 2 ]
}

@test "overlayfs: a spool from an image is copied up as it is used, and nothing is lost or doubled" {
	local d=$BATS_TEST_TMPDIR i
	mkdir "$d/base"
	mount -t tmpfs none "$d/base" 2>/dev/null || skip "mounting is not allowed here" # as it is no upper of its kind
	mkdir "$d"/base/{upper,work} "$d/lower"
	mv "$SPOOL" "$d/lower/spool"
	SPOOL=$d/lower/spool
	for i in 1 2 3 4; do echo -n "$i" | "$MQCTL" -H "$SPOOL" put q; done
	mount_or_skip -t overlay -o "lowerdir=$d/lower,upperdir=$d/base/upper,workdir=$d/base/work" none
	# One process has the queue open from before another copies anything up.
	coproc ONE { exec "$MQD" -H "$SPOOL"; }
	local in=${ONE[1]} out=${ONE[0]} pid=$ONE_PID line
	ask() { # REQUEST LINE...: and what is answered
		printf '%s\r\n' "$1" >&"$in"
		for line in "${@:2}"; do
			read -r -t 10 <&"$out"
			[ "$REPLY" = "$line"$'\r' ]
		done
	}
	ask 'get q/peek' 'VALUE q/peek 0 1' 1 END
	[ "$("$MQCTL" -H "$SPOOL" get q)" = 1 ]
	ask 'get q/open' 'VALUE q/open 0 1' 2 END
	[ "$("$MQCTL" -H "$SPOOL" get q)" = 3 ]
	ask 'get q/abort' END
	[ "$("$MQCTL" -H "$SPOOL" get q)" = 2 ]
	ask $'set q 0 0 1\r\n5' STORED
	ask 'get q' 'VALUE q 0 1' 4 END
	ask 'get q' 'VALUE q 0 1' 5 END
	ask 'get q' END
	eval "exec $in>&-"
	wait "$pid"
	"$MQCTL" -H "$SPOOL" check
	[ "$(ls "$d/lower/spool/q" | wc -l)" = 4 ] # where nothing has changed
}

@test "overlayfs of two file systems, where directories change their inodes: no queue gets another's messages" {
	local d=$BATS_TEST_TMPDIR q
	mkdir "$d/base"
	mount -t tmpfs none "$d/base" 2>/dev/null || skip "mounting is not allowed here"
	mkdir "$d"/base/{upper,work} "$d/lower"
	mv "$SPOOL" "$d/lower/spool"
	remount() {
		! mountpoint -q "$d/mnt" || umount "$d/mnt"
		mount_or_skip -t overlay -o "lowerdir=$d/lower,upperdir=$d/base/upper,workdir=$d/base/work" none
	}
	remount
	printf 'set %s 0 0 2\r\n%s\r\n' a a1 b b1 a a2 a a3 | "$MQD" -o sync=full -H "$SPOOL" >/dev/null
	# After a reboot, in which another queue is the first that is looked at.
	remount
	[ ! -s "$SPOOL/.journal" ] || printf '%036d' 0 | dd of="$SPOOL/.journal" bs=1 seek=16 conv=notrunc status=none
	sed -i "s/^boot .*/boot $(printf '%036d' 0)/" "$SPOOL/b/.state" "$SPOOL/a/.state"
	remount
	stat "$SPOOL/b" "$SPOOL/a" >/dev/null
	for q in b b a a a a; do "$MQCTL" -H "$SPOOL" get $q && echo || echo none; done >"$d/out"
	[ "$(tr '\n' ' ' <"$d/out")" = "b1 none a1 a2 a3 none " ]
}

@test "FUSE, a real one: refused, where the system can tell" {
	[ -w /dev/fuse ] || skip "there is no FUSE"
	mkdir "$BATS_TEST_TMPDIR/fuse"
	"$PYTHON" - "$BATS_TEST_TMPDIR/fuse" "$MQD" "$(portable && echo portable)" <<-'END'
		import ctypes, os, struct, subprocess, sys, threading
		target, mqd, portable = sys.argv[1:]
		libc = ctypes.CDLL(None, use_errno=True)
		fuse = os.open("/dev/fuse", os.O_RDWR)
		options = "fd=%d,rootmode=40700,user_id=0,group_id=0" % fuse
		assert libc.mount(b"none", target.encode(), b"fuse", 0, options.encode()) == 0, os.strerror(ctypes.get_errno())
		INIT, GETATTR, STATFS = 26, 3, 17
		def serve():  # an empty directory
		    while True:
		        try:
		            request = os.read(fuse, 1 << 20)
		        except OSError:
		            return  # unmounted
		        _, opcode, unique = struct.unpack_from("<IIQ", request)
		        error, reply = 0, b""
		        if opcode == INIT:
		            reply = struct.pack("<IIIIHHIIHHI7I", 7, 31, 0, 0, 16, 12, 131072, 1, 32, 0, 0, *[0] * 7)
		        elif opcode == GETATTR:
		            reply = struct.pack("<QII", 0, 0, 0) + struct.pack("<6Q10I", 1, 0, 0, 0, 0, 0, 0, 0, 0, 0o40700, 2, 0, 0, 0, 4096, 0)
		        elif opcode == STATFS:
		            reply = bytes(80)
		        else:
		            error = -38  # ENOSYS
		        os.write(fuse, struct.pack("<IiQ", 16 + len(reply), error, unique) + reply)
		threading.Thread(target=serve, daemon=True).start()
		try:
		    p = subprocess.run([mqd, "-H", target], input=b"version\r\n", capture_output=True, timeout=10)
		finally:
		    libc.umount2(target.encode(), 2)
		refused = p.returncode == 111 and p.stdout == b"SERVER_ERROR spool refused\r\n" and b"lies on FUSE" in p.stderr
		assert refused != bool(portable), p
	END
}

can_contain() {
	"${in_container[@]}" true 2>"$BATS_TEST_TMPDIR/why" || skip "no namespaces here: $(cat "$BATS_TEST_TMPDIR/why")"
}

@test "two containers on one spool, both with the process id 1, do not disturb each other" {
	can_contain
	"$PYTHON" - "$MQD" "$MQCTL" "$SPOOL" "$(portable && echo portable)" <<-'END'
		import os, re, signal, subprocess, sys, time
		mqd, mqctl, spool, portable = sys.argv[1:]
		container = "unshare --user --map-root-user --pid --fork --kill-child --mount-proc".split()
		class Side:
		    def __init__(self):
		        self.p = subprocess.Popen(container + [mqd, "-H", spool], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
		    def send(self, data):
		        self.p.stdin.write(data), self.p.stdin.flush()
		    def line(self):
		        return self.p.stdout.readline().decode().rstrip("\r\n")
		    def ask(self, data, *lines):
		        self.send(data)
		        for line in lines:
		            got = self.line()
		            assert got == line, (data[:20], got, line)
		    def stats(self):
		        self.send(b"stats\r\n")
		        rows = {}
		        while (line := self.line()) != "END":
		            rows[line.split()[1]] = line.split()[2]
		        return rows
		    def end(self):
		        self.p.stdin.close()
		        assert self.p.wait(10) == 0
		a, b = Side(), Side()
		assert a.stats()["pid"] == b.stats()["pid"] == "1"
		# Who is connected: a lock at the byte of the process id.
		assert a.stats()["curr_connections"] == b.stats()["curr_connections"] == "2"
		# Messages that are being received, in .tmp/<pid>.<n> where files need names.
		for s, byte in ((a, b"a"), (b, b"b")):
		    s.send(b"set q 0 0 200000\r\n" + byte * 100000)
		def received():
		    try:
		        return [os.path.getsize(os.path.join(spool, "q/.tmp", n)) for n in os.listdir(spool + "/q/.tmp")]
		    except FileNotFoundError:
		        return []
		end = time.monotonic() + 10
		while portable and (len(received()) < 2 or min(received()) < 32768):
		    assert time.monotonic() < end, received()
		b.ask(b"b" * 100000 + b"\r\n", "STORED")
		a.ask(b"a" * 100000 + b"\r\n", "STORED")
		b.ask(b"get q\r\n", "VALUE q 0 200000", "b" * 200000, "END")
		b.ask(b"get q\r\n", "VALUE q 0 200000", "a" * 200000, "END")
		# The queues that both delete are .trash/<pid>.<n> then.
		os.makedirs(spool + "/.trash/1.0/kept")
		a.ask(b"set d 0 0 1\r\nx\r\ndelete d\r\n", "STORED", "DELETED")
		b.ask(b"set d 0 0 1\r\ny\r\ndelete d\r\n", "STORED", "DELETED")
		# What each has open is its own, whatever the other does, and comes back when it is killed.
		a.ask(b"set q 0 0 1\r\nx\r\nset q 0 0 1\r\ny\r\n", "STORED", "STORED")
		a.ask(b"get q/open\r\n", "VALUE q/open 0 1", "x", "END")
		b.ask(b"get q/open\r\n", "VALUE q/open 0 1", "y", "END")
		b.ask(b"get q\r\nget q/abort\r\nget q\r\n", "END", "END", "VALUE q 0 1", "y", "END")
		def held(prefix=[]):
		    out = subprocess.run(prefix + [mqctl, "-H", spool, "open"], stdout=subprocess.PIPE, text=True, check=True).stdout
		    return [l.split()[2] for l in out.splitlines()[1:]]
		inside = subprocess.run(["pgrep", "-P", str(a.p.pid)], stdout=subprocess.PIPE, text=True).stdout.split()
		assert held() == (["-"] if portable else inside), (held(), inside)
		assert held(container) == ["-"]  # a third one, to which the system does not name it
		# b waits for what a has open.
		b.send(b"get q/t=20000\r\n")
		a.p.send_signal(signal.SIGKILL)
		a.p.wait()
		b.ask(b"", "VALUE q/t=20000 0 1", "x", "END")
		assert b.stats()["curr_connections"] == "1"
		b.end()
		subprocess.run([mqctl, "-H", spool, "check"], check=True)
	END
}

@test "two pools in containers, pushing and popping at once: nothing lost, nothing twice" {
	can_contain
	local side ports=()
	for side in 0 1; do
		ports+=("$(free_port)")
		"${in_container[@]}" "$MQD" -H "$SPOOL" -l 127.0.0.1 -p "${ports[side]}" -u 0 3>&- &
		CONTAINERS+=($!)
		wait_for listening "${ports[side]}"
	done
	"$PYTHON" - "${ports[@]}" <<-'END'
		import socket, sys, threading
		ports = [int(p) for p in sys.argv[1:]]
		pushed, popped = [], []
		def client(n):
		    f = socket.create_connection(("127.0.0.1", ports[n % 2]), 20).makefile("rwb")
		    def pop():
		        f.write(b"get q\r\n"), f.flush()
		        if f.readline() != b"END\r\n":
		            popped.append(f.readline())
		            assert f.readline() == b"END\r\n"
		            return True
		    for i in range(100):
		        body = b"%d.%d" % (n, i)
		        f.write(b"set q 0 0 %d\r\n%s\r\n" % (len(body), body)), f.flush()
		        assert f.readline() == b"STORED\r\n"
		        pushed.append(body + b"\r\n")
		        pop()
		    while pop():
		        pass
		threads = [threading.Thread(target=client, args=(n,)) for n in range(10)]
		for t in threads: t.start()
		for t in threads: t.join()
		assert len(pushed) == 1000 and sorted(pushed) == sorted(popped), (len(pushed), len(popped), len(set(popped)))
	END
	end_containers
	"$MQCTL" -H "$SPOOL" check
}

@test "a user namespace that does not know the spool's owner: refused, and said" {
	can_contain
	chown 4711 "$SPOOL"
	is_refused "belongs to user 65534 (or one that this user namespace does not know), and root*" "${in_container[@]}" "$MQD"
	run "${in_container[@]}" "$MQCTL" -H "$SPOOL" ls
	[ "$status" -eq 111 ]
	[[ $output == "mqctl: $SPOOL: becoming user 65534, who owns it: "* ]]
}

@test "without /proc a pool says that it will not notice a reboot, and serves" {
	native "it needs /proc"
	PORT=$(free_port)
	unshare --mount sh -c 'mount -t tmpfs none /proc && exec "$@"' sh "$MQD" -H "$SPOOL" -p "$PORT" \
		-l 127.0.0.1 -u 0 2>"$BATS_TEST_TMPDIR/log" 3>&- &
	MQD_PID=$!
	wait_for listening "$PORT"
	talk_tcp <<-'END'
		> set q 0 0 1
		> x
		< STORED
	END
	[ "$(grep -c "no boot id" "$BATS_TEST_TMPDIR/log")" -eq 1 ]
}
