#!/usr/bin/env bats
# The log of a spool: power cuts, dead leaders, and what an operator may do to its files.

load helper

setup() {
	mkdir -p "$SPOOL"
	# The first message of a queue and the one that makes the log do not go through it.
	"$MQD" -H "$SPOOL" <<<$'set q 0 0 1\r\n1\r\nset q 0 0 1\r\n2\r' >/dev/null
	[ -e "$SPOOL/.journal" ] || skip "this variant keeps no log"
}

teardown() {
	stop_mqd
	[ ! -d "$BATS_TEST_TMPDIR/mnt" ] || umount "$BATS_TEST_TMPDIR/mnt" || umount -l "$BATS_TEST_TMPDIR/mnt"
}

# mount_image: put the spool on an ext4 of its own.
mount_image() {
	[ "$EUID" -eq 0 ] || skip "mounting needs root"
	truncate -s 32m "$BATS_TEST_TMPDIR/image"
	mke2fs -q -F -t ext4 "$BATS_TEST_TMPDIR/image"
	mkdir "$BATS_TEST_TMPDIR/mnt"
	mount -o loop "$BATS_TEST_TMPDIR/image" "$BATS_TEST_TMPDIR/mnt" 2>"$BATS_TEST_TMPDIR/why" || {
		rmdir "$BATS_TEST_TMPDIR/mnt"
		skip "mounting is not allowed here: $(cat "$BATS_TEST_TMPDIR/why")"
	}
	SPOOL=$BATS_TEST_TMPDIR/mnt/spool
	mkdir "$SPOOL"
}

# powercut [option...]: see the head of tests/powercut.
powercut() {
	[ "$EUID" -eq 0 ] || skip "mounting needs root"
	[ -w /dev/fuse ] || skip "there is no FUSE"
	unshare -m mount -t tmpfs none "$BATS_TEST_TMPDIR" 2>"$BATS_TEST_TMPDIR/why" ||
		skip "mounting is not allowed here: $(cat "$BATS_TEST_TMPDIR/why")"
	run "$BATS_TEST_DIRNAME/powercut" "$@" "$MQD" "$BATS_TEST_TMPDIR/cut"
	echo "$output"
	[ "$status" -eq 0 ]
}

# powercut_on FS [option...]: another than ext4, where the system has it.
powercut_on() {
	type "mkfs.$1" >/dev/null 2>&1 || skip "there is no mkfs.$1"
	grep -qw "$1" /proc/filesystems || skip "the kernel has no $1"
	powercut --fs "$@"
}

# push BODY...: into q, each by a process of its own.
push() {
	local body
	for body; do echo -n "$body" | "$MQCTL" -H "$SPOOL" put q; done
}

# Make the spool look as after a reboot.
reboot() {
	printf '%036d' 0 | dd of="$SPOOL/.journal" bs=1 seek=16 conv=notrunc status=none
	find "$SPOOL" -name .state -exec sed -i "s/^boot .*/boot $(printf '%036d' 0)/" {} +
}

drain() {
	while "$MQCTL" -H "$SPOOL" get "$1" 2>/dev/null; do echo; done
}

@test "power cut: nothing acknowledged is lost, nothing delivered comes again" {
	powercut --cuts 15 --pushes 600 --sync full,push
}

@test "power cut, all that was written is there" {
	powercut --cuts 10 --pushes 600 --how keep
}

@test "power cut, and another in the recovery" {
	powercut --cuts 6 --pushes 400 --how twice
}

@test "power cut, on xfs" {
	powercut_on xfs --cuts 10 --pushes 600
}

@test "power cut, on btrfs" {
	powercut_on btrfs --cuts 10 --pushes 600
}

@test "power cut after the log was filled several times" {
	powercut --cuts 8 --pushes 1500 --body 6000
}

@test "power cut after the log was filled several times, with a backlog" {
	powercut --cuts 4 --pushes 1500 --body 6000 --backlog 1000
}

@test "power cut, and flushes that do nothing: messages are missing, thus the tests above see it" {
	local call
	for call in fdatasync fsync; do
		# All cuts may fall where nothing is missing, by chance, but not again and again.
		powercut --cuts 3 --pushes 200 --no-flush "$call" || powercut --cuts 6 --pushes 300 --no-flush "$call" ||
			powercut --cuts 12 --pushes 400 --no-flush "$call"
	done
}

@test "what a reboot finds missing, torn or back is put right, once" {
	"$MQD" -H "$SPOOL" <<<$'set q 0 0 1\r\n3\r\nset q 0 0 1\r\n4\r\nset q 0 0 1\r\n5\r\nset q 0 0 1\r\n6\r' >/dev/null
	cp "$SPOOL/q/0000000000000003" "$BATS_TEST_TMPDIR/3"
	[ "$("$MQCTL" -H "$SPOOL" get q)" = 1 ]
	"$MQCTL" -H "$SPOOL" rm q 3
	cp "$BATS_TEST_TMPDIR/3" "$SPOOL/q/0000000000000003"
	rm "$SPOOL/q/0000000000000004"
	truncate -s 10 "$SPOOL/q/0000000000000005"
	reboot
	[ "$(drain q)" = $'2\n4\n5\n6' ]
	"$MQCTL" -H "$SPOOL" check
	rm "$SPOOL/q/.state"
	reboot
	[ "$(drain q)" = "" ]
}

@test "a queue that was dropped stays so, also where a new one has its inode" {
	mount_image # of a file system that gives an inode to the next who wants one
	local inode
	push 1 2 3 4 5 6
	inode=$(stat -c %i "$SPOOL/q")
	"$MQCTL" -H "$SPOOL" drop q
	push 7 8 9
	[ "$inode" = "$(stat -c %i "$SPOOL/q")" ]
	reboot
	[ "$(drain q)" = $'7\n8\n9' ]
}

@test "the directory of a deleted queue keeps its inode until the log says that it was" {
	native "it is traced"
	mount_image
	local inode fault
	for fault in error=EIO signal=KILL; do
		rm -rf "$SPOOL"
		mkdir -m 700 "$SPOOL"
		push 1 2 3 4 5 6
		inode=$(stat -c %i "$SPOOL/q")
		strace -qq -o /dev/null -P "$SPOOL/.journal" -e inject="?pwrite64,?pwritev:$fault" "$MQCTL" -H "$SPOOL" drop q || :
		[ "$inode" = "$(stat -c %i "$SPOOL"/.trash/*)" ]
		push 7 8 9
		reboot
		[ "$(drain q)" = $'7\n8\n9' ]
		ctl check --repair || : # which tells what it mends
		[ -z "$(ls "$SPOOL/.trash")" ]
		ctl check
	done
}

@test "a queue renamed by hand keeps its messages, and they do not appear twice" {
	push 3 4
	mv "$SPOOL/q" "$SPOOL/r"
	[ "$("$MQCTL" -H "$SPOOL" get r)" = 1 ]
	rm "$SPOOL/r/0000000000000004"
	reboot
	[ "$(drain r)" = $'2\n3\n4' ]
	[ "$(drain q)" = "" ]
}

@test "a copy of a log is not replayed: a copied spool has other inodes" {
	push 3 4
	cp -p "$SPOOL/.journal" "$SPOOL/copy"
	mv "$SPOOL/copy" "$SPOOL/.journal"
	rm "$SPOOL/q/0000000000000004"
	reboot
	[ "$(drain q)" = $'1\n2\n3' ]
}

@test "a record that a client sent as a body is no record" {
	"$PYTHON" - "$MQD" "$SPOOL" <<-'END'
		import os, struct, subprocess, sys
		mqd, spool = sys.argv[1:]
		def crc32c(data, crc=0):
		    crc ^= 0xffffffff
		    for b in data:
		        crc ^= b
		        for _ in range(8):
		            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
		    return crc ^ 0xffffffff
		journal = open(spool + "/.journal", "r+b")
		ident, = struct.unpack_from("8s", journal.read(4096), 56)
		# The log is empty yet, so the next record begins at 0 and its body at 48 + 69; the
		# forged one lies in it at the next multiple of 16: a take of number 1.
		ino = os.stat(spool + "/q").st_ino
		def take(at):
		    r = ident + struct.pack("=QQQIII", at, ino, 1, 3, 0, 0)
		    return r + struct.pack("=I", crc32c(r + bytes(4)))
		body = b"x" * 11 + take(128) + b"x" * 5
		p = subprocess.run([mqd, "-H", spool], stdout=subprocess.PIPE,
		                   input=b"set q 0 0 %d\r\n%s\r\n" % (len(body), body))
		assert p.stdout == b"STORED\r\n", p.stdout
		journal.seek(4096 + 128)
		assert journal.read(48) == take(128)  # it is where it would have to be
		journal.seek(4096 + 60)
		journal.write(b"torn")  # the record around it
		journal.close()
	END
	reboot
	[ "$("$MQCTL" -H "$SPOOL" get q)" = 1 ]
}

@test "a leader killed in its flush: those who wait are answered within a second, nothing is lost" {
	start_mqd
	"$PYTHON" - "$PORT" "$SPOOL" <<-'END'
		import os, signal, socket, subprocess, sys, time
		port, spool = int(sys.argv[1]), sys.argv[2]
		def until(condition):
		    end = time.monotonic() + 10
		    while not condition():
		        assert time.monotonic() < end
		        time.sleep(0.002)
		def connect():
		    s = socket.create_connection(("127.0.0.1", port), 10)
		    r = s.makefile("rb")
		    push(s, 0)
		    assert r.readline() == b"STORED\r\n"
		    return s, r
		def push(s, n):
		    s.sendall(b"set q 0 0 1\r\n%d\r\n" % n)
		leader, leads = connect()
		leader.sendall(b"stats\r\n")
		worker = leads.readline().split()[2].decode()
		while leads.readline() != b"END\r\n":
		    pass
		others = [connect() for _ in range(8)]
		# It is held in its flush until the others wait for that, and then killed.
		tracer = subprocess.Popen(["strace", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync",
		                           "-e", "inject=fdatasync:delay_enter=10s", "-p", worker])
		until(lambda: "TracerPid:\t%d\n" % tracer.pid in open("/proc/%s/status" % worker).read())
		push(leader, 1)
		lock = ":%d 0 0" % os.stat(spool + "/.journal").st_ino
		until(lambda: any(lock in l and " POSIX " in l and l.split()[4] == worker for l in open("/proc/locks")))
		for s, r in others:
		    push(s, 2)
		until(lambda: len([n for n in os.listdir(spool + "/q") if n[0] == "0"]) == 2 + 9 + 9)
		os.kill(int(worker), signal.SIGKILL)
		tracer.kill() # which would keep the dead one to the end of the delay
		begin = time.monotonic()
		for s, r in others:
		    assert r.readline() == b"STORED\r\n"
		assert time.monotonic() - begin < 1, time.monotonic() - begin
		assert leads.readline() == b""
		tracer.wait()
	END
	[ "$(drain q | sort | tr -d '\n')" = 00000000011222222222 ]
}

@test "the log removed, cut short, spoiled, made unreadable or another thing: on as before" {
	start_mqd
	"$PYTHON" - "$PORT" "$SPOOL" <<-'END'
		import os, shutil, socket, sys, time
		spool, size = sys.argv[2], 4096 + (4 << 20)
		clients = []
		for _ in range(3):
		    s = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 10)
		    clients.append((s, s.makefile("rb")))
		pushed, got = [], []
		def push():
		    for s, r in clients:
		        body = b"%d" % len(pushed)
		        s.sendall(b"set p 0 0 %d\r\n%s\r\n" % (len(body), body))
		        assert r.readline() == b"STORED\r\n"
		        pushed.append(body)
		def pop():
		    for s, r in clients:
		        s.sendall(b"get p\r\n")
		        line = r.readline()
		        if line != b"END\r\n":
		            got.append(r.readline().rstrip())
		            assert r.readline() == b"END\r\n"
		def spoil(name, how):
		    path = spool + "/" + name
		    if how == "remove": os.unlink(path)
		    if how == "cut": os.truncate(path, 0)
		    if how == "cut a little": os.truncate(path, os.stat(path).st_size - 1)
		    if how == "fill": open(path, "r+b").write(os.urandom(8192))
		    if how == "hide": os.chmod(path, 0)
		    if how == "directory": os.unlink(path); os.mkdir(path)
		    if how == "link": os.unlink(path); os.symlink("/dev/null", path)
		def mend(name):
		    path = spool + "/" + name
		    if os.path.islink(path): os.unlink(path)
		    elif os.path.isdir(path): os.rmdir(path)
		for name in ".journal", ".sync":
		    for how in "remove", "cut", "cut a little", "fill", "hide", "directory", "link":
		        if (name, how) == (".sync", "cut a little"): continue  # its page is still whole
		        for _ in range(3): push(); push(); pop()
		        spoil(name, how)
		        for _ in range(3): push(); push(); pop()
		        mend(name)
		        end = time.monotonic() + 5  # the log is made again within a second or so
		        def fresh():
		            try: return os.stat(spool + "/.journal").st_size == size and os.stat(spool + "/.sync").st_size == 4096
		            except OSError: return False
		        while not fresh():
		            assert time.monotonic() < end, (name, how)
		            push(); pop()
		while len(got) < len(pushed):
		    before = len(got)
		    pop()
		    assert len(got) > before, "lost"
		assert got == pushed
	END
	"$MQCTL" -H "$SPOOL" check
}

@test "no room for the log: each message is flushed by itself" {
	mount_image
	local out i=0
	while head -c 1m /dev/zero >"$SPOOL/../ballast$i" 2>/dev/null; do i=$((i + 1)); done
	[ "$i" -gt 5 ]
	rm "$SPOOL/../ballast0"
	out=$("$MQD" -H "$SPOOL" <<<$'set q 0 0 1\r\n1\r\nset q 0 0 1\r\n2\r\nset q 0 0 1\r\n3\r\nget q\r')
	[ "$out" = $'STORED\r\nSTORED\r\nSTORED\r\nVALUE q 0 1\r\n1\r\nEND\r' ]
	[ "$(stat -c %b "$SPOOL/.journal")" = 0 ]
	"$MQCTL" -H "$SPOOL" check
}

@test "a delivered message does not come back from a file that it was written over" {
	# 3 is written over a spent file, and then delivered.
	printf 'get q\r\nset q 0 0 1\r\n3\r\n' | "$MQD" -o sync=full -H "$SPOOL" >/dev/null
	cp "$SPOOL/q/0000000000000003" "$BATS_TEST_TMPDIR/3"
	[ "$(drain q)" = $'2\n3' ]
	# As the disk may have it when the power fails: what was written, but neither the file's new
	# name nor that it is spent. The log has nothing of the message that it was of before.
	cp "$BATS_TEST_TMPDIR/3" "$SPOOL/q/.claim/0000000000000050"
	reboot
	[ -z "$(drain q)" ]
	[ ! -e "$SPOOL/q/.bad" ]
	"$MQCTL" -H "$SPOOL" check
}

@test "after a reboot a message whose delivery has failed is the same one, with its tries" {
	printf 'set q 0 0 1\r\nx\r\nset q 0 0 1\r\ny\r\n' | "$MQD" -o sync=full -H "$SPOOL" >/dev/null
	printf 'get q\r\nget q\r\nget q/open\r\nget q/abort\r\n' | "$MQD" -o sync=full -H "$SPOOL" >/dev/null
	[ "$(cut -c 55-59 "$SPOOL/q/0000000000000003" | head -n 1)" = 00001 ]
	reboot
	printf 'get q/open\r\n' | "$MQD" -o sync=full -H "$SPOOL" >"$BATS_TEST_TMPDIR/out"
	[ "$(sed -n 2p "$BATS_TEST_TMPDIR/out")" = $'x\r' ]
	[ ! -e "$SPOOL/q/.bad" ]
	[ "$(cut -c 55-59 "$SPOOL/q/0000000000000003" | head -n 1)" = 00002 ]
	"$MQCTL" -H "$SPOOL" check
}

@test "a directory of somebody else's does not keep the log from being replayed" {
	[ "$EUID" -eq 0 ] || skip "needs a file of another user"
	local d=$BATS_TEST_TMPDIR
	mkdir -p "$SPOOL"
	chown -R nobody "$SPOOL"
	for (( ; ${#d} > 1; )); do
		chmod go+x "$d"
		d=$(dirname "$d")
	done
	printf 'set q 0 0 1\r\na\r\nset q 0 0 1\r\nb\r\nset q 0 0 1\r\nc\r\n' | "$MQD" -u nobody -H "$SPOOL" >/dev/null
	reboot
	chown -R nobody "$SPOOL"
	mkdir -m 700 "$SPOOL/backup"
	run bash -c 'printf "get q\r\nget backup\r\n" | "$1" -u nobody -H "$2"' - "$MQD" "$SPOOL"
	echo "$output"
	[[ $output == *"VALUE q 0 1"*"SERVER_ERROR "* ]]
}
