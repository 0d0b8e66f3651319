#!/usr/bin/env bats
# Full disks, on a small real file system in a file: 3 a.m., and what mqd makes of it.

load helper

MNT=

mount_small() {
	[ "$EUID" -eq 0 ] || skip "mounting needs root"
	truncate -s "$1" "$BATS_TEST_TMPDIR/image"
	shift
	mke2fs -q -t ext4 -m 0 "$@" "$BATS_TEST_TMPDIR/image" || return
	mkdir "$BATS_TEST_TMPDIR/mnt"
	mount -o loop "$BATS_TEST_TMPDIR/image" "$BATS_TEST_TMPDIR/mnt" 2>"$BATS_TEST_TMPDIR/why" ||
		skip "mounting is not allowed here: $(cat "$BATS_TEST_TMPDIR/why")"
	MNT=$BATS_TEST_TMPDIR/mnt
	SPOOL=$MNT/spool
	mkdir "$SPOOL"
}

teardown() {
	stop_mqd
	[ -z "$MNT" ] || umount "$MNT" || umount -l "$MNT"
}

# conversation LOG: pushes until refused, and what follows, on one connection.
fill_and_mend() {
	"$PYTHON" - "$MQD" "$SPOOL" "$1" "$2" <<-'END'
		import glob, os, subprocess, sys
		mqd, spool, size, want = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4].encode()
		p = subprocess.Popen([mqd, "-H", spool, "-B", "64m"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
		r = os.fdopen(p.stdout.fileno(), "rb", closefd=False)
		def set_(n, size):
		    p.stdin.write(b"set q 0 0 %d\r\n" % size + b"%08d" % n + b"x" * (size - 8) + b"\r\n")
		    return r.readline()
		def get():
		    p.stdin.write(b"get q\r\n")
		    line = r.readline()
		    if line == b"END\r\n":
		        return None
		    size = int(line.split()[3])
		    body = r.read(size + 2)[:-2]
		    assert r.readline() == b"END\r\n"
		    assert body[8:] == b"x" * (size - 8)
		    return int(body[:8])
		p.stdin.write(b"set other 0 0 1\r\nx\r\n")
		assert r.readline() == b"STORED\r\n"
		stored, n = [], 0
		while True:
		    reply = set_(n, size)
		    if reply != b"STORED\r\n":
		        break
		    stored.append(n)
		    n += 1
		print("stored", len(stored), "then", reply)
		assert reply == want + b"\r\n", reply
		for i in range(20):  # it stays so, and leaves nothing behind
		    assert set_(n, size) == want + b"\r\n"
		assert set_(n, 5000000) == want + b"\r\n"  # one that streams
		assert not [f for f in os.listdir(spool + "/.trash")]
		assert len([f for f in os.listdir(spool + "/q") if f[0] == "0"]) == len(stored)
		assert glob.glob(spool + "/q/.tmp/*") == []
		p.stdin.write(b"delete other\r\n")  # nor those who make room
		assert r.readline() == b"DELETED\r\n"
		assert get() == 0 and get() == 1  # a full disk does not stop those who take
		for i in range(2):
		    for f in glob.glob(os.path.dirname(spool) + "/ballast*")[:3]:
		        os.unlink(f)
		assert set_(n, size) == b"STORED\r\n"  # room again
		stored.append(n)
		got = []
		while (m := get()) is not None:
		    got.append(m)
		assert got == stored[2:], (got, stored)
		p.stdin.close()
		assert p.wait(10) == 0
	END
}

@test "disk full: refused with SERVER_ERROR out of memory, nothing half-written, and on again" {
	mount_small 16m -O ^has_journal
	local i
	for i in 1 2 3 4 5 6; do head -c 1m /dev/zero >"$MNT/ballast$i"; done
	run fill_and_mend 100000 "SERVER_ERROR out of memory storing object (No space left on device)"
	echo "$output"
	[ "$status" -eq 0 ]
	"$MQCTL" -H "$SPOOL" check
}

@test "disk full, with a journal and small messages" {
	mount_small 12m -J size=4
	local i
	for i in 1 2 3 4; do head -c 500k /dev/zero >"$MNT/ballast$i"; done
	run fill_and_mend 3000 "SERVER_ERROR out of memory storing object (No space left on device)"
	echo "$output"
	[ "$status" -eq 0 ]
	"$MQCTL" -H "$SPOOL" check
}

@test "inodes used up: the same" {
	mount_small 16m -O ^has_journal -N 200
	local i
	for i in 1 2 3 4 5 6 7 8; do : >"$MNT/ballast$i"; done
	run fill_and_mend 100 "SERVER_ERROR out of memory storing object (No space left on device)"
	echo "$output"
	[ "$status" -eq 0 ]
	"$MQCTL" -H "$SPOOL" check
}

@test "quota used up: the same, with its own reason" {
	# Injected, because many kernels are built without quota.
	mkdir -p "$SPOOL"
	"$MQD" -H "$SPOOL" <<<version # makes the counters, which are written too
	run strace -qq -o /dev/null -e inject=pwritev:error=EDQUOT:when=1 \
		"$MQD" -H "$SPOOL" <<<$'set q 0 0 1\r\nx\r\nset q 0 0 1\r\ny\r\nget q\r'
	local replies
	replies=$(grep -v '^mqd\[' <<<"$output" | tr -d '\r')
	[[ ${replies%%$'\n'*} =~ ^SERVER_ERROR\ out\ of\ memory\ storing\ object\ \((Disk\ q|Q)uota\ exceeded\)$ ]]
	[ "${replies#*$'\n'}" = $'STORED\nVALUE q 0 1\ny\nEND' ]
}

@test "a read-only file system: SERVER_ERROR, the connection lives, and works again" {
	mount_small 16m -O ^has_journal
	"$MQD" -H "$SPOOL" <<<$'set q 0 0 1\r\na\r' >/dev/null
	mount -o remount,ro "$MNT"
	run "$MQD" -H "$SPOOL" <<<$'set q 0 0 1\r\nx\r\nget q\r\nset r 0 0 1\r\nx\r\ndelete q\r\nversion\r'
	local replies
	replies=$(grep -v '^mqd\[' <<<"$output" | tr -d '\r')
	[ "$replies" = "$(printf 'SERVER_ERROR Read-only file system\n%.0s' 1 2 3 4)"$'\nVERSION 1.0.0' ]
	mount -o remount,rw "$MNT"
	run "$MQD" -H "$SPOOL" <<<$'get q\r'
	[[ $output == *$'\na\r'* ]]
}

@test "a full disk: a get that waits for what cannot line up waits all the same, and gets what comes back" {
	mount_small 3M -O ^has_journal -N 64
	printf 'set q 0 0 1\r\nx\r\nget q+c\r\n' | "$MQD" -H "$SPOOL" >/dev/null
	dd if=/dev/zero of="$MNT/fill" bs=1k 2>/dev/null || :
	local i
	for i in {1..64}; do
		: >"$MNT/$i" || break
	done 2>/dev/null
	start_mqd
	talk_tcp <<-'END'
		> set q 0 0 1
		> y
		< SERVER_ERROR out of memory storing object (No space left on device)
		> get q/open
		< VALUE q/open 0 1
		< x
		< END
		connect other
		> get q/t=300
		<silence 200
		<within 500 END
		> get missing/t=100
		<within 500 END
		> get q/t=5000
		<silence 100
		use first
		> get q/abort
		< END
		use other
		<within 1000 VALUE q/t=5000 0 1
		< x
		< END
	END
}
