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
	[ ! -d "$BATS_TEST_TMPDIR/full" ] || umount "$BATS_TEST_TMPDIR/full"
}

# powercut COUNT BODY [option...]: see the head of tests/powercut.
powercut() {
	[ "$EUID" -eq 0 ] || skip "mounting needs root"
	truncate -s 4m "$BATS_TEST_TMPDIR/try"
	mke2fs -q -F "$BATS_TEST_TMPDIR/try"
	mkdir -p "$BATS_TEST_TMPDIR/cut/mnt"
	mount -o loop "$BATS_TEST_TMPDIR/try" "$BATS_TEST_TMPDIR/cut/mnt" 2>"$BATS_TEST_TMPDIR/why" ||
		skip "mounting is not allowed here: $(cat "$BATS_TEST_TMPDIR/why")"
	umount "$BATS_TEST_TMPDIR/cut/mnt"
	run "$BATS_TEST_DIRNAME/powercut" "$MQD" "$BATS_TEST_TMPDIR/cut" "$@"
	echo "$output"
	[ "$status" -eq 0 ]
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
	powercut 500 100
}

@test "power cut, ext4 without a journal" {
	powercut 500 100 -O ^has_journal
}

@test "power cut after the log was filled several times" {
	powercut 2500 6000
}

@test "power cut after the log was filled several times, with a backlog" {
	powercut 2500 6000 --keep 1500
}

@test "power cut, and flushes that do nothing: messages are missing, thus the tests above see it" {
	powercut 300 100 --no-flush
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
	"$MQCTL" -H "$SPOOL" put q <<<lost
	"$MQCTL" -H "$SPOOL" drop q
	local inode i
	inode=$(stat -c %i "$SPOOL/.journal")
	for i in 1 2 3; do echo -n "new$i" | "$MQCTL" -H "$SPOOL" put q; done
	reboot
	[ "$(drain q)" = $'new1\nnew2\nnew3' ]
	[ "$inode" = "$(stat -c %i "$SPOOL/.journal")" ]
}

@test "a queue renamed by hand keeps its messages, and they do not appear twice" {
	for i in 3 4; do echo -n "$i" | "$MQCTL" -H "$SPOOL" put q; done
	mv "$SPOOL/q" "$SPOOL/r"
	[ "$("$MQCTL" -H "$SPOOL" get r)" = 1 ]
	rm "$SPOOL/r/0000000000000004"
	reboot
	[ "$(drain r)" = $'2\n3\n4' ]
	[ "$(drain q)" = "" ]
}

@test "a copy of a spool is no spool after a reboot: its log says nothing of it" {
	for i in 3 4; do echo -n "$i" | "$MQCTL" -H "$SPOOL" put q; done
	cp -Rp "$SPOOL" "$BATS_TEST_TMPDIR/copy"
	SPOOL=$BATS_TEST_TMPDIR/copy
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

@test "leaders killed in a flush: those who wait are answered within a second, nothing is lost" {
	start_mqd
	strace -f -qq -o /dev/null -e trace=fdatasync -e inject=fdatasync:signal=KILL:when=5 -p "$MQD_PID" &
	local tracer=$!
	traced() { grep -q '^TracerPid:[[:space:]]*[1-9]' "/proc/$MQD_PID/status"; }
	wait_for traced
	"$PYTHON" - "$PORT" "$BATS_TEST_TMPDIR/stored" <<-'END'
		import socket, sys, threading, time
		slowest, killed, stored = [0.0], [0], []
		def connect():
		    s = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 10)
		    return s, s.makefile("rb")
		def client(number):
		    s, r = connect()
		    for n in range(40):
		        body = b"%d.%d" % (number, n)
		        begin = time.monotonic()
		        try:
		            s.sendall(b"set p 0 0 %d\r\n%s\r\n" % (len(body), body))
		            line = r.readline()
		        except ConnectionError:
		            line = b""
		        if line == b"STORED\r\n":
		            stored.append(body)
		            slowest[0] = max(slowest[0], time.monotonic() - begin)
		        else:
		            assert line == b"", line
		            killed[0] += 1
		            s, r = connect()
		threads = [threading.Thread(target=client, args=(i,)) for i in range(8)]
		for t in threads: t.start()
		for t in threads: t.join()
		open(sys.argv[2], "wb").write(b"".join(b + b"\n" for b in stored))
		print(len(stored), "stored", killed[0], "killed, the slowest took", slowest[0])
		assert killed[0] >= 8 and len(stored) > 100 and slowest[0] < 1
	END
	kill "$tracer"
	wait "$tracer" || :
	drain p | sort >"$BATS_TEST_TMPDIR/got"
	[ -z "$(uniq -d "$BATS_TEST_TMPDIR/got")" ]
	[ -z "$(sort "$BATS_TEST_TMPDIR/stored" | comm -23 - "$BATS_TEST_TMPDIR/got")" ]
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
	[ "$EUID" -eq 0 ] || skip "mounting needs root"
	mkdir "$BATS_TEST_TMPDIR/full"
	mount -t tmpfs -o size=1m none "$BATS_TEST_TMPDIR/full" || {
		rmdir "$BATS_TEST_TMPDIR/full"
		skip "mounting is not allowed here"
	}
	local out
	out=$("$MQD" -H "$BATS_TEST_TMPDIR/full" <<<$'set q 0 0 1\r\n1\r\nset q 0 0 1\r\n2\r\nset q 0 0 1\r\n3\r\nget q\r')
	[ "$out" = $'STORED\r\nSTORED\r\nSTORED\r\nVALUE q 0 1\r\n1\r\nEND\r' ]
	[ "$(stat -c %b "$BATS_TEST_TMPDIR/full/.journal")" = 0 ]
	"$MQCTL" -H "$BATS_TEST_TMPDIR/full" check
}
