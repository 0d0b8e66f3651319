#!/usr/bin/env bats
# A hostile file system: what is full, gone, read-only, short of everything, elsewhere, or planted.
# See also disk.bats, and faults.bats for errors of single system calls.

load helper

MNT=
OTHER=()

mount_image() { # TYPE SIZE [mkfs option...]
	[ "$EUID" -eq 0 ] || skip "mounting needs root"
	local type=$1 mkfs=(mkfs."$1" -q)
	[[ $type == ext4 ]] && mkfs=(mke2fs -q -t ext4 -m 0)
	type "${mkfs[0]}" >/dev/null || skip "no ${mkfs[0]} here"
	truncate -s "$2" "$BATS_TEST_TMPDIR/image"
	shift 2
	"${mkfs[@]}" "$@" "$BATS_TEST_TMPDIR/image" || return
	MNT=$BATS_TEST_TMPDIR/mnt
	mkdir -p "$MNT"
	mount -o loop "$BATS_TEST_TMPDIR/image" "$MNT" || skip "mounting is not allowed here"
	SPOOL=$MNT/spool
	mkdir "$SPOOL"
}

# mount_tmpfs DIR [options]: a file system of its own there.
mount_tmpfs() {
	[ "$EUID" -eq 0 ] || skip "mounting needs root"
	mkdir -p "$1"
	mount -t tmpfs -o "mode=700${2:+,$2}" hostilefs "$1" || skip "mounting is not allowed here"
	OTHER+=("$1")
}

teardown() {
	stop_mqd
	local i
	for ((i = ${#OTHER[@]} - 1; i >= 0; i--)); do # the last one may lie in those before it
		umount "${OTHER[i]}" || umount -l "${OTHER[i]}"
	done
	[ -z "$MNT" ] || umount "$MNT" || umount -l "$MNT"
}

# Only the log tells one mount from another.
needs_log() {
	[[ $MQD_BINARY != *portable* ]] || skip "no log here"
}

say() {
	printf '%s\r\n' "$@" | "$MQD" -H "$SPOOL" 2>>"$BATS_TEST_TMPDIR/log" | tr -d '\r'
}

@test "something foreign at every place of the spool: told, passed over, and not followed out of it" {
	[ "$EUID" -ne 0 ] || mount_tmpfs "$BATS_TEST_TMPDIR/plant"
	mkdir -p "$BATS_TEST_TMPDIR/plant"
	run "$BATS_TEST_DIRNAME/plant" "$MQD_BINARY" "$MQCTL" "$BATS_TEST_TMPDIR/plant"
	echo "$output"
	[ "$status" -eq 0 ]
}

@test "a log with a second name is used if it is the spool's, and else left as it is" {
	local log=$SPOOL/.journal
	mkdir "$SPOOL"
	say 'set q 0 0 1' a 'set q 0 0 1' b
	[ -e "$log" ] || skip "no log here"
	ln "$log" "$BATS_TEST_TMPDIR/kept"
	ln "$SPOOL/q/.state" "$BATS_TEST_TMPDIR/state"
	[ "$(say 'set q 0 0 1' c 'get q')" = $'STORED\nVALUE q 0 1\na\nEND' ]
	[ "$(grep -c 'waiting 0*2$' "$BATS_TEST_TMPDIR/state")" = 1 ]
	head -c 5000 /dev/zero | tr '\0' x >"$BATS_TEST_TMPDIR/letter"
	cp "$BATS_TEST_TMPDIR/letter" "$BATS_TEST_TMPDIR/copy"
	ln -f "$BATS_TEST_TMPDIR/letter" "$log"
	[ "$(say 'set q 0 0 1' d 'get q' 'get q')" = $'STORED\nVALUE q 0 1\nb\nEND\nVALUE q 0 1\nc\nEND' ]
	cmp "$BATS_TEST_TMPDIR/letter" "$BATS_TEST_TMPDIR/copy"
}

@test "files at most so large: SERVER_ERROR, not the end of the process" {
	mkdir "$SPOOL"
	say version >/dev/null
	# A write that crosses the limit is a short one, and the next an error.
	run bash -c 'ulimit -f 40; { printf "set q 0 0 100000\r\n"; head -c 100000 /dev/zero; printf "\r\nset q 0 0 1\r\nx\r\nget q\r\n"; } |
		"$MQD" -H "$SPOOL" -o sync=none 2>/dev/null | tr -d "\r"'
	[ "$output" = $'SERVER_ERROR File too large\nSTORED\nVALUE q 0 1\nx\nEND' ]
	"$MQCTL" -H "$SPOOL" check
}

@test "few descriptors: each number is enough, or the reply says so; nothing is lost" {
	# The program itself: a script in between would need some, too.
	mkdir "$SPOOL"
	"$PYTHON" - "$MQD_BINARY" "$SPOOL" "$MQCTL" <<-'END'
		import resource, subprocess, sys
		mqd, spool, mqctl = sys.argv[1:4]
		commands = b"".join(b"set %s 0 0 1\r\nx\r\nget %s\r\n" % (q, q) for q in (b"q", b"r", b"s", b"t+c", b"t", b"u"))
		commands += b"".join(b"set v%d 0 0 1\r\nx\r\n" % i for i in range(20)) + b"get q/t=1\r\nstats\r\nversion\r\n"
		served = set()
		for n in list(range(4, 12, 3)) + list(range(12, 42, 2)) + [50, 59]:
		    p = subprocess.run([mqd, "-H", spool], input=commands, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
		                       preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (n, n)), timeout=20)
		    replies = p.stdout.splitlines()
		    lines = p.stderr.decode().splitlines()
		    if p.returncode == 0:
		        bad = [l for l in replies if l.startswith(b"SERVER_ERROR") and l != b"SERVER_ERROR No file descriptors available"
		               and l != b"SERVER_ERROR Too many open files in system" and l != b"SERVER_ERROR Too many open files" and l[:22] != b"SERVER_ERROR stored in"]
		        assert not bad, (n, bad)
		        assert b"VERSION" in replies[-1], (n, replies[-3:])
		        served.add(b"SERVER_ERROR" not in p.stdout)
		    else:
		        assert p.returncode == 111 and len(lines) == 1, (n, p)
		    assert len(lines) < 12, (n, lines)
		    # What was stored is all there.
		    stored, taken = p.stdout.count(b"STORED"), p.stdout.count(b"VALUE")
		    out = subprocess.run([mqctl, "-H", spool, "check"], stdout=subprocess.PIPE).stdout
		    assert out == b"", (n, out)
		    drain = b"".join(b"get %s\r\n" % q * 60 for q in (b"q", b"r", b"s", b"t", b"t+c", b"u")) + \
		        b"".join(b"get v%d\r\n" % i * 2 for i in range(20))
		    left = subprocess.run([mqd, "-H", spool], input=drain, stdout=subprocess.PIPE).stdout.count(b"VALUE")
		    assert left >= stored - taken, (n, stored, taken, left)
		assert served == {True, False}, served
	END
}

@test "little memory: each amount is enough, or one line says so" {
	native "valgrind itself needs more"
	unsanitized "they take terabytes of addresses"
	mkdir "$SPOOL"
	"$PYTHON" - "$MQD" "$SPOOL" <<-'END'
		import resource, subprocess, sys
		mqd, spool = sys.argv[1:3]
		commands = b"set q 0 0 1\r\nx\r\nset q 0 0 300000\r\n" + b"y" * 300000 + b"\r\nget q\r\nget q\r\nstats\r\ndump_stats\r\nversion\r\n"
		served = 0
		for kib in list(range(64, 4096, 64)) + [4096, 8192, 16384, 65536]:
		    limit = kib << 10
		    try:
		        p = subprocess.run([mqd, "-H", spool], input=commands, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=20,
		                           preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)))
		    except subprocess.SubprocessError:
		        continue  # not even enough to begin
		    # The kernel ends a program that it cannot load, before its first instruction.
		    if p.returncode < 0 or p.returncode == 127:
		        assert not served and p.stdout == b"", (kib, p)
		        continue
		    served += 1
		    assert p.returncode == 0 and b"VERSION" in p.stdout.splitlines()[-1], (kib, p.returncode, p.stdout[-200:], p.stderr)
		    replies = [l for l in p.stdout.splitlines() if l.startswith(b"SERVER_ERROR")]
		    assert all(l.endswith(b"ut of memory") or b"allocate memory" in l for l in replies), (kib, replies)
		    assert len(p.stderr.splitlines()) < 6, (kib, p.stderr)
		    full = replies == []
		    assert not full or p.stdout.count(b"STORED") == p.stdout.count(b"VALUE") == 2, (kib, p.stdout[-100:])
		assert served > 10 and full, (served, replies)
	END
}

@test "no inodes left, on tmpfs: refused, on again when there are, nothing lost" {
	mount_tmpfs "$BATS_TEST_TMPDIR/mnt" nr_inodes=40
	SPOOL=$BATS_TEST_TMPDIR/mnt/spool
	mkdir "$SPOOL"
	local i
	for i in 1 2 3 4; do : >"$BATS_TEST_TMPDIR/mnt/ballast$i"; done
	"$PYTHON" - "$MQD" "$SPOOL" <<-'END'
		import glob, os, subprocess, sys
		mqd, spool = sys.argv[1:3]
		p = subprocess.Popen([mqd, "-H", spool], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
		r = os.fdopen(p.stdout.fileno(), "rb", closefd=False)
		def ask(data):
		    p.stdin.write(data)
		    return r.readline()
		stored = 0
		while (reply := ask(b"set q 0 0 1\r\nx\r\n")) == b"STORED\r\n":
		    stored += 1
		assert stored > 10 and reply == b"SERVER_ERROR out of memory storing object (No space left on device)\r\n", reply
		assert ask(b"set r 0 0 1\r\nx\r\n") == reply
		for f in glob.glob(os.path.dirname(spool) + "/ballast*"):
		    os.unlink(f)
		assert ask(b"set q 0 0 1\r\nx\r\n") == b"STORED\r\n"
		out = subprocess.run([mqd, "-H", spool], input=b"get q\r\n" * (stored + 2), stdout=subprocess.PIPE).stdout
		assert out.count(b"VALUE") == stored + 1, out
	END
	"$MQCTL" -H "$SPOOL" check
}

@test "quota used up, on btrfs: refused with its own reason, on again when there is room, nothing lost" {
	mount_image btrfs 150m -m single
	btrfs -q quota enable "$MNT" 2>/dev/null || btrfs quota enable "$MNT" || skip "no quota here"
	rm -r "$SPOOL"
	btrfs subvolume create "$SPOOL" >/dev/null
	btrfs qgroup limit 12M "$SPOOL"
	"$PYTHON" - "$MQD" "$SPOOL" <<-'END'
		import os, re, subprocess, sys
		mqd, spool = sys.argv[1:3]
		size = 300000
		push = b"set q 0 0 %d\r\n" % size + b"x" * size + b"\r\n"
		out = subprocess.run([mqd, "-H", spool], input=push * 60, stdout=subprocess.PIPE).stdout.splitlines()
		stored = out.count(b"STORED")
		reasons = set(out) - {b"STORED"}
		assert 3 < stored < 60 and len(out) == 60, out
		assert all(re.match(rb"SERVER_ERROR out of memory storing object \((Disk q|Q)uota exceeded\)", l) for l in reasons), reasons
		subprocess.run(["btrfs", "qgroup", "limit", "100M", spool], check=True)
		out = subprocess.run([mqd, "-H", spool], input=push + b"get q\r\n" * (stored + 2), stdout=subprocess.PIPE).stdout
		assert out.startswith(b"STORED\r\n") and out.count(b"VALUE q 0 %d" % size) == stored + 1, out[:100]
	END
	"$MQCTL" -H "$SPOOL" check
}

@test "a part of the queue on another device: an error that says so, nothing lost, and on again" {
	mount_tmpfs "$BATS_TEST_TMPDIR/mnt"
	SPOOL=$BATS_TEST_TMPDIR/mnt/spool
	mkdir "$SPOOL"
	local part
	for part in .claim .tmp .bad .delay .wait; do
		say 'set q 0 0 1' a 'set q/delay=100 0 0 1' d >/dev/null
		mount_tmpfs "$SPOOL/q/$part"
		run say 'set q 0 0 1' b 'get q' 'set q/delay=9 0 0 1' c 'get q/peek' 'get q/t=1' 'flush_expired q' version
		[[ $output == *VERSION* ]]
		[[ $part != .claim && $part != .delay ]] ||
			[[ $output =~ SERVER_ERROR\ (Cross-device\ link|Invalid\ cross-device\ link) ]]
		umount "$SPOOL/q/$part"
		unset 'OTHER[-1]'
		"$MQCTL" -H "$SPOOL" check --repair || :
		# Each that was stored is there, or was delivered.
		local stored got
		stored=$((1 + $(head -1 <<<"$output" | grep -c ^STORED || :)))
		got=$(($(grep -c '^VALUE q' <<<"$output" || :) + $(say 'get q' 'get q' 'get q' | grep -c ^VALUE || :)))
		[ "$got" -ge "$stored" ]
		say 'delete q'
		[ ! -e "$SPOOL/q" ]
	done
}

@test "a queue that is a mount of its own: no other queue gets its messages, whatever its inode" {
	mount_tmpfs "$BATS_TEST_TMPDIR/mnt"
	SPOOL=$BATS_TEST_TMPDIR/mnt/spool
	mkdir "$SPOOL"
	mount_tmpfs "$SPOOL/a"
	mount_tmpfs "$SPOOL/b"
	[ "$(stat -c %i "$SPOOL/a")" = "$(stat -c %i "$SPOOL/b")" ]
	# In front of a flush, so that the log alone has them.
	[ "$(say 'set a 0 0 1' 1 'set b 0 0 1' x 'set a 0 0 1' 2 'set b 0 0 1' y 'set a 0 0 1' 3)" = \
		$'STORED\nSTORED\nSTORED\nSTORED\nSTORED' ]
	[ -e "$SPOOL/.journal" ] || skip "no log here"
	printf '%036d' 0 | dd of="$SPOOL/.journal" bs=1 seek=16 conv=notrunc status=none # another boot
	rm "$SPOOL/b/0000000000000001"
	[ "$(say 'get a' 'get a' 'get a' 'get a' 'get b' 'get b')" = \
		$'VALUE a 0 1\n1\nEND\nVALUE a 0 1\n2\nEND\nVALUE a 0 1\n3\nEND\nEND\nVALUE b 0 1\ny\nEND\nEND' ]
}

# traffic SECONDS: two clients push and pop; whatever they were told by the end is in told.
traffic() {
	"$PYTHON" - "$PORT" "$BATS_TEST_TMPDIR" <<-'END' &
		import json, os, socket, sys, time
		port, tmp = int(sys.argv[1]), sys.argv[2]
		stored, taken, unsure, errors, n = [], [], [], {}, 0
		def connect():
		    s = socket.create_connection(("127.0.0.1", port), 10)
		    return s, s.makefile("rb")
		s, r = connect()
		while not os.path.exists(tmp + "/stop"):
		    n += 1
		    try:
		        body = b"%d" % n
		        s.sendall(b"set q 0 0 %d\r\n%s\r\n" % (len(body), body))
		        line = r.readline()
		        if line == b"STORED\r\n":
		            stored.append(n)
		        elif line:
		            errors[line.decode()] = errors.get(line.decode(), 0) + 1
		        if not line:
		            raise OSError
		        if n % 2:
		            s.sendall(b"get q\r\n")
		            line = r.readline()
		            if line.startswith(b"VALUE"):
		                taken.append(int(r.readline()))
		                line = r.readline()
		            elif line and line != b"END\r\n":
		                errors[line.decode()] = errors.get(line.decode(), 0) + 1
		            if not line:
		                raise OSError
		    except OSError:
		        errors["closed"] = errors.get("closed", 0) + 1
		        try:
		            s, r = connect()
		        except OSError:
		            time.sleep(0.01)
		    if n % 16 == 0 or os.path.exists(tmp + "/tell"):
		        with open(tmp + "/told.new", "w") as f:
		            json.dump([stored, taken, errors], f)
		        os.rename(tmp + "/told.new", tmp + "/told")
		with open(tmp + "/told", "w") as f:
		    json.dump([stored, taken, errors], f)
	END
	TRAFFIC=$!
}

told() { # EXPRESSION of stored, taken, errors: is it true by now?
	"$PYTHON" - "$BATS_TEST_TMPDIR/told" "$1" <<-'END'
		import json, sys
		stored, taken, errors = json.load(open(sys.argv[1]))
		sys.exit(not eval(sys.argv[2]))
	END
}

end_traffic() {
	: >"$BATS_TEST_TMPDIR/stop"
	wait "$TRAFFIC"
}

# What was told is true: all of it is there, once. One that was being delivered at a failure may
# come again.
nothing_lost() {
	"$MQD_BINARY" -H "$SPOOL" -o sync=none <<<$'version\r' >/dev/null
	"$PYTHON" - "$MQD_BINARY" "$SPOOL" "$BATS_TEST_TMPDIR/told" "$1" <<-'END'
		import json, re, subprocess, sys
		mqd, spool, told, again = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
		stored, taken, errors = json.load(open(told))
		p = subprocess.run([mqd, "-H", spool], input=b"get q\r\n" * (len(stored) + 100), stdout=subprocess.PIPE)
		there = [int(n) for n in re.findall(rb"VALUE q 0 \d+\r\n(\d+)\r\nEND", p.stdout)]
		missing = sorted(set(stored) - set(taken) - set(there))
		twice = [n for n in there if n in taken or there.count(n) > 1]
		print(len(stored), "stored,", len(taken), "taken,", len(there), "there; missing", missing[:5], "twice", twice, errors)
		assert len(stored) > 60 and not missing and len(twice) <= again
	END
}

@test "ext4 has found an error and is read-only, in the middle of traffic: errors, and nothing lost or doubled" {
	needs_log
	mount_image ext4 32m -e remount-ro
	local trigger
	trigger=/sys/fs/ext4/$(basename "$(findmnt -no SOURCE "$MNT")")/trigger_fs_error
	[ -w "$trigger" ] || skip "no $trigger here"
	start_mqd -o sync=full
	traffic
	wait_for told 'len(stored) > 60'
	: >"$BATS_TEST_TMPDIR/tell"
	echo test >"$trigger"
	wait_for told 'sum(errors.values()) > 30'
	end_traffic
	told 'set(errors) <= {"SERVER_ERROR Read-only file system\r\n", "SERVER_ERROR I/O error\r\n",
		"SERVER_ERROR Input/output error\r\n", "closed"}'
	few_lines
	stop_mqd
	umount -l "$MNT"
	cp --sparse=always "$BATS_TEST_TMPDIR/image" "$BATS_TEST_TMPDIR/copy"
	e2fsck -fp "$BATS_TEST_TMPDIR/copy" || [ $? -lt 4 ]
	mount -o loop "$BATS_TEST_TMPDIR/copy" "$MNT"
	run nothing_lost 1
	echo "$output"
	[ "$status" -eq 0 ]
	"$MQCTL" -H "$SPOOL" check --repair >/dev/null || :
	"$MQCTL" -H "$SPOOL" check
}

# Each process has told of what it met, once for each kind.
few_lines() {
	local lines
	lines=$(sed 's/[0-9]\+/N/g' "$BATS_TEST_TMPDIR/log" | sort | uniq -c | sort -rn)
	echo "$lines"
	if [[ ${LAUNCH:-pool} == pool ]]; then
		[ "$(wc -l <"$BATS_TEST_TMPDIR/log")" -lt 12 ]
	else
		[ "$(wc -l <<<"$lines")" -lt 12 ]
	fi
}

pulled() { # [,option...]: as if the device was pulled: what is not on it is lost, and each use an error
	start_mqd -o sync=full
	traffic
	wait_for told 'len(stored) > 100'
	: >"$BATS_TEST_TMPDIR/tell"
	"$PYTHON" -c 'import fcntl, os, struct, sys # FS_IOC_SHUTDOWN, without a flush
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack("I", 2))' "$MNT"
	wait_for told 'sum(errors.values()) > 30'
	end_traffic
	stop_mqd
	few_lines
	# What the device holds by now, and nothing of what the kernel knows: somebody's mount namespace
	# may have the old one yet.
	umount -l "$MNT"
	cp --sparse=always "$BATS_TEST_TMPDIR/image" "$BATS_TEST_TMPDIR/copy"
	mount -o "loop$1" "$BATS_TEST_TMPDIR/copy" "$MNT"
	run nothing_lost 1
	echo "$output"
	[ "$status" -eq 0 ]
	"$MQCTL" -H "$SPOOL" check --repair >/dev/null || :
	"$MQCTL" -H "$SPOOL" check
}

@test "ext4: the device is pulled, and mounted again without a reboot: nothing acknowledged is lost" {
	needs_log
	mount_image ext4 64m
	pulled
}

@test "xfs: the same" {
	needs_log
	mount_image xfs 320m
	pulled ,nouuid
}

@test "a disk that failed for a moment is not believed: what a later flush says is not enough" {
	[ "$EUID" -eq 0 ] || skip "mounting needs root"
	[ -c /dev/fuse ] || skip "no FUSE here"
	needs_log
	# The others of these in `make soak`.
	run "$BATS_TEST_DIRNAME/baddisk" "$MQD_BINARY" "$BATS_TEST_TMPDIR/disk" 0 "ext4 log one" "ext4 message one"
	echo "$output"
	[ "$status" -eq 0 ]
}
