#!/usr/bin/env bats
# Errors that pass, for want of memory or descriptors: no answer, and nothing follows from them but that a
# command fails. Most tests have each call of a kind fail once, whichever it is, and ask for the same: what
# was acknowledged is delivered, once, and the command after it works.

load helper

setup() {
	native "it is traced"
	unsanitized "they make system calls themselves"
	# A flush of a disk that others flush, too, takes long, and there are thousands.
	MEMORY=
	[[ ! -w /dev/shm ]] || MEMORY=$(mktemp -d /dev/shm/mqd-passing.XXXXXX)
	SPOOL=${MEMORY:-$BATS_TEST_TMPDIR}/spool
	mkdir -p "$SPOOL"
}

teardown() {
	stop_mqd
	[[ -z ${MEMORY:-} ]] || rm -r "$MEMORY"
}

# keeps_log: this test is about the log.
keeps_log() {
	[[ $MQD_BINARY != */portable/* ]] || skip "this variant keeps no log"
}

# python < script: it has what most need, in front of it.
python() {
	{
		cat <<-'END'
			import os, shutil, signal, subprocess, sys, time
			mqd, mqctl, spool, trace = sys.argv[1:5]
			os.environ["ASAN_OPTIONS"] = "detect_leaks=0"  # which cannot be traced
			LOOKS, OPENS, READS = "?fstat,?newfstatat,?fstatat64,?statx:ENOMEM", "openat:EMFILE", "?read,?pread64:ENOMEM"
			def strace(*options):
			    # Which is faster, but sends no signals.
			    fast = [] if any("signal=" in o for o in options) else ["-f", "--seccomp-bpf"]
			    return ["strace", "-q", *fast, "-o", trace, *options]
			def output(*command, input=b""):
			    return subprocess.run(command, input=input, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
			class Mqd:
			    """One that is asked one command after the other."""
			    def __init__(self, *options):
			        self.p = subprocess.Popen((strace(*options) if options else []) + [mqd, "-H", spool], bufsize=0,
			                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
			        self.r = os.fdopen(os.dup(self.p.stdout.fileno()), "rb")
			    def ask(self, line):
			        """The last line of the reply, and the body of a message in it, if any."""
			        try:
			            self.p.stdin.write(line + b"\r\n")
			        except BrokenPipeError:
			            return b"", None
			        body, reply = None, self.r.readline()
			        while reply.startswith(b"VALUE"):
			            body = self.r.read(int(reply.split()[3]) + 2)[:-2]
			            reply = self.r.readline()
			        return reply.rstrip(b"\r\n"), body
			    def push(self, *bodies, queue=b"q"):
			        return [self.ask(b"set %s 0 0 %d\r\n%s" % (queue, len(b), b))[0] for b in bodies]
			    def end(self):
			        self.p.stdin.close()
			        self.r.close()
			        self.p.stdout.close()
			        return self.p.wait()
			def push(*bodies, queue=b"q"):
			    said = output(mqd, "-H", spool, input=b"".join(b"set %s 0 0 %d\r\n%s\r\n" % (queue, len(b), b) for b in bodies))
			    assert said == b"STORED\r\n" * len(bodies), said
			def fresh(*bodies):
			    """A spool with 1 and 2, and these, in q. The first of a queue and what makes the log do not go through it."""
			    shutil.rmtree(spool, ignore_errors=True)
			    os.mkdir(spool)
			    push(b"1", b"2", *bodies)
			def message(n, queue="q"):
			    return "%s/%s/%016d" % (spool, queue, n)
			def reboot():
			    """Make the spool look as after one."""
			    with open(spool + "/.journal", "r+b") as f:
			        f.seek(16)
			        f.write(b"0" * 36)
			    for name in os.listdir(spool):
			        path = "%s/%s/.state" % (spool, name)
			        if os.path.exists(path):
			            with open(path, "r+b") as f:
			                f.seek(f.read().index(b"boot ") + 5)
			                f.write(b"0" * 36)
			def drain(queue=b"q"):
			    m, bodies = Mqd(), []
			    while (reply := m.ask(b"get " + queue))[1] is not None:
			        bodies.append(reply[1])
			    assert reply[0] == b"END", reply
			    m.end()
			    return bodies
			def journal(at, n=8):
			    with open(spool + "/.journal", "rb") as f:
			        f.seek(at)
			        return f.read(n)
			def journal_id():
			    return journal(56)
			def injected():
			    with open(trace) as f:
			        text = f.read()
			    return "(INJECTED)" in text or "killed by SIGKILL" in text
			def each(*faults, path=()):
			    """Options for strace, with which the first of such calls fails; the second; until there is none."""
			    total = 0
			    for calls, error in (f.rsplit(":", 1) for f in faults):
			        error = ("signal=" if error == "KILL" else "error=") + error
			        for call in calls.split(","):
			            for n in range(1, 200):
			                yield [o for p in path for o in ("-P", p)] + ["-e", "trace=" + call,
			                                                              "-e", "inject=%s:%s:when=%d" % (call, error, n)]
			                if not injected():
			                    break
			                total += 1
			    assert total > 0
			def failed(value=None):
			    """What .sync says of the log: has a flush of it failed? It says so from now on, if that is asked for."""
			    with open(spool + "/.sync", "r+b") as f:
			        f.seek(36)
			        if value is not None:
			            f.write(bytes([value, 0, 0, 0]))
			            f.seek(36)
			        return f.read(4) != bytes(4)
			def torn():
			    """What a flush that failed may leave: message 3 is whole in the log alone."""
			    fresh(b"3", b"4")
			    os.truncate(message(3), 10)
			    failed(1)
			def bad():
			    try:
			        return os.listdir(spool + "/q/.bad")
			    except FileNotFoundError:
			        return []
		END
		cat
	} | "$PYTHON" - "$MQD_BINARY" "$MQCTL" "$SPOOL" "$BATS_TEST_TMPDIR/trace" "$@"
}

@test "settings that cannot be read at first: nothing is discarded by others" {
	python <<-'END'
		for options in each(LOOKS, OPENS, READS, path=(".config", spool + "/.config", spool + "/q/.config")):
		    fresh(*[b"%d" % i for i in range(3, 11)])
		    open(spool + "/.config", "w").write("max_items = 3\ndiscard_old = yes\n")
		    open(spool + "/q/.config", "w").write("max_items = 1000\n")
		    m = Mqd(*options)
		    first, second = m.push(b"a", b"b")
		    m.end()
		    assert first == b"STORED" or first.startswith(b"SERVER_ERROR"), (options, first)
		    assert second == b"STORED", (options, first, second)
		    got = drain()
		    want = [b"%d" % i for i in range(1, 11)] + [b"a"] * (first == b"STORED") + [b"b"]
		    assert got == want, (options, first, got)
	END
}

@test "settings that cannot be read at first: nothing expires by others" {
	python <<-'END'
		for options in each(LOOKS, OPENS, READS, path=(".config", spool + "/.config", spool + "/q/.config")):
		    fresh()
		    open(spool + "/.config", "w").write("expire = yes\n")
		    output(mqd, "-H", spool, input=b"get q\r\nget q\r\nset q 0 -1 1\r\n3\r\n")
		    open(spool + "/q/.config", "w").write("expire = no\n")
		    m = Mqd(*options)
		    first = m.ask(b"get q")
		    assert first == (b"END", b"3") or first[0].startswith(b"SERVER_ERROR"), (options, first)
		    second = m.ask(b"get q")
		    assert first[1] or second == (b"END", b"3"), (options, first, second)
		    m.end()
	END
}

@test "settings that cannot be read at first: nothing is stored in a spool that is read-only" {
	python <<-'END'
		for options in each(LOOKS, OPENS, READS, path=(".config", spool + "/.config")):
		    fresh()
		    open(spool + "/.config", "w").write("status = readonly\n")
		    m = Mqd(*options)
		    replies = m.push(b"a", b"b")
		    m.end()
		    assert replies[0].startswith(b"SERVER_ERROR") and replies[1] == b"SERVER_ERROR readonly", (options, replies)
	END
}

@test "settings that cannot be read at first: no command is answered by the defaults" {
	python <<-'END'
		for line, setting, right in ((b"status", "status = readonly", b"READONLY"), (b"flush_all", "allow_flush_all = yes", b"OK"),
		                             (b"get q/open", "max_open = 2", b"END")):
		    for file in ("/q/.config", "/.config") if line == b"get q/open" else ("/.config",):
		        for options in each(LOOKS, OPENS, READS, path=(".config", spool + file)):
		            fresh()
		            open(spool + file, "w").write(setting + "\n")
		            m = Mqd(*options)
		            first, second = m.ask(line)[0], m.ask(line)[0]
		            third = m.ask(line)[0]
		            m.end()
		            assert first == right or first.startswith(b"SERVER_ERROR"), (line, file, options, first)
		            assert second == right, (line, file, options, first, second)
		            limit = [right, b"CLIENT_ERROR close current item first"][line == b"get q/open" and first == right]
		            assert third == limit, (line, file, options, first, second, third)
	END
}

@test "settings that cannot be read at first: what is open for too long goes back all the same" {
	python <<-'END'
		for line in b"get q/open", b"monitor q 0 1":
		    for options in each(LOOKS, OPENS, READS, path=(".config", spool + "/q/.config")):
		        fresh()
		        open(spool + "/q/.config", "w").write("open_timeout = 50ms\n")
		        m = Mqd(*options)
		        reply, body = m.ask(line)
		        if body is None:
		            assert reply.startswith(b"SERVER_ERROR"), (options, reply)
		        else:
		            if line.startswith(b"monitor"):
		                assert m.r.readline() == b"END\r\n"
		            time.sleep(0.1)
		            reply = m.ask(b"get q/close")[0]
		            assert reply == b"CLIENT_ERROR item was open too long", (line, options, reply)
		        m.end()
		        assert sorted(drain()) == [b"1", b"2"], (line, options)
	END
}

@test "figures: none are told that leave a queue out for want of memory or descriptors" {
	python <<-'END'
		for line in b"stats", b"stats queue", b"dump_stats", b"dump_stats q r":
		    for options in each(LOOKS, OPENS, "?pread64:ENOMEM", "getdents64:ENOMEM"):
		        fresh(b"3")
		        push(b"4", queue=b"r")
		        m = Mqd()
		        assert m.ask(b"get q/open")[1] == b"1"
		        out = output(*strace(*options), mqd, "-H", spool, input=line + b"\r\n")
		        m.end()
		        right = {b"stats": [b"STAT curr_items 3\r", b"STAT queue_q_open_transactions 1\r"],
		                 b"stats queue": [b"STAT q 3/1\r", b"STAT r 1/0\r"]}
		        right = right.get(line, [b"  items=2\r", b"  items=1\r", b"  open_transactions=1\r"])
		        assert b"SERVER_ERROR" in out or all(part in out for part in right), (line, options, out)
	END
}

@test "settings that cannot be read at first: a queue with children gets nothing that is for them alone" {
	python <<-'END'
		for file, other in ("/q/.config", None), ("/.config", None), ("/.config", "/q/.config"):
		    for options in each(LOOKS, OPENS, READS, path=(".config", spool + "/.config", spool + "/q/.config")):
		        shutil.rmtree(spool, ignore_errors=True)
		        os.mkdir(spool)
		        push(b"1")
		        output(mqd, "-H", spool, input=b"get q+a\r\nget q\r\n")
		        open(spool + file, "w").write("fanout_only = %s\n" % ("no" if other else "yes"))
		        if other:
		            open(spool + other, "w").write("fanout_only = yes\n")
		        m = Mqd(*options)
		        replies = m.push(b"a", b"b")
		        m.end()
		        assert replies[1] == b"STORED", (options, replies)
		        assert drain() == [], (options, replies)
		        got = drain(b"q+a")
		        assert got == [b"a"] * (b"STORED" == replies[0]) + [b"b"], (options, replies, got)
	END
}

# What is asked for next without the log having been replayed is refused, or replays it.
after_reboot='
def after_reboot(options):
    for how in "one by one", "pipelined", "taken":
        fresh(b"3", b"4")
        os.unlink(message(4))
        if how != "taken":
            os.truncate(message(3), 10)
        reboot()
        m, replies, got = Mqd(*options), [], []
        if how == "taken":
            got = [body for _, body in (m.ask(b"get q") for _ in range(3)) if body is not None]
        elif how == "pipelined":
            m.p.stdin.write(b"set q 0 0 1\r\na\r\nset q 0 0 1\r\nb\r\n")
            replies = [m.r.readline().rstrip() for _ in range(2)]
        else:
            replies = m.push(b"a", b"b")
        replies += m.push(b"c") if replies else []
        m.end()
        push(b"d")
        stored = [b for b, r in zip((b"a", b"b", b"c"), replies) if r == b"STORED"]
        got += drain()
        assert sorted(got) == [b"1", b"2", b"3", b"4", *stored, b"d"], (options, how, replies, got)
        assert not bad(), (options, how, bad())
'

@test "after a reboot the log cannot be looked at, opened or read: nothing in it is lost" {
	keeps_log
	python <<-END
		$after_reboot
		for options in each(LOOKS, "?fstat:EIO", OPENS, "openat:EROFS", READS, path=(".journal", spool + "/.journal")):
		    after_reboot(options)
	END
}

@test "after a reboot the boot id cannot be read: nothing in the log is lost" {
	keeps_log
	python <<-END
		$after_reboot
		for options in each("?open,openat:EMFILE", READS, LOOKS, path=("/proc/sys/kernel/random/boot_id",)):
		    after_reboot(options)
	END
}

# The message that was torn is in the log alone until the rescue has ended.
@test "a flush of the log has failed, and then something else, whichever: torn messages come from the log" {
	keeps_log
	python <<-'END'
		for options in each(OPENS, "pread64,?mmap,?mmap2:ENOMEM", "fsync,?syncfs:EIO", "?renameat,?renameat2:EIO", "unlinkat:EIO",
		                    "pwrite64:ENOSPC"):
		    torn()
		    m = Mqd(*options)
		    replies = m.push(b"5", b"6")
		    m.end()
		    push(b"7")
		    stored = [b for b, r in zip((b"5", b"6"), replies) if r == b"STORED"]
		    got = drain()
		    assert got == [b"1", b"2", b"3", b"4", *stored, b"7"], (options, replies, got)
		    assert not bad(), (options, bad())
	END
}

@test "a flush of the log has failed, and a SIGKILL in what follows, wherever: torn messages come from the log" {
	keeps_log
	python <<-'END'
		for options in each("openat,pwrite64,fsync,?renameat,?renameat2,unlinkat:KILL"):
		    torn()
		    m = Mqd(*options)
		    reply, = m.push(b"5")
		    m.end()
		    push(b"6")
		    got = drain()
		    assert got in ([b"1", b"2", b"3", b"4", b"5", b"6"], [b"1", b"2", b"3", b"4", b"6"]), (options, reply, got)
		    assert reply != b"STORED" or b"5" in got, (options, reply, got)
	END
}

@test "a log that has failed stays so where .sync cannot be read, or is removed: or another one begins" {
	keeps_log
	python <<-'END'
		for options in each(LOOKS, OPENS, "?mmap,?mmap2:ENOMEM", path=(".sync", spool + "/.sync")):
		    torn()
		    before = journal_id()
		    m = Mqd(*options)
		    replies = m.push(b"5", b"6")
		    m.end()
		    assert replies[1] == b"STORED", (options, replies)
		    assert failed() or journal_id() != before, options
		torn()
		os.unlink(spool + "/.sync")
		push(b"5", b"6")
		assert drain() == [b"1", b"2", b"3", b"4", b"5", b"6"]
	END
}

@test ".sync is removed while there is something in the log: nothing is lost, what comes is stored" {
	keeps_log
	python <<-'END'
		for options in each(LOOKS, OPENS, "pread64:ENOMEM", path=(".sync", spool + "/.sync", spool + "/.journal")):
		    fresh(b"3", b"4")
		    os.unlink(spool + "/.sync")
		    m = Mqd(*options)
		    replies = m.push(b"5", b"6")
		    m.end()
		    assert replies[1] == b"STORED", (options, replies)
		    stored = [b for b, r in zip((b"5", b"6"), replies) if r == b"STORED"]
		    push(b"7")
		    reboot()
		    got = drain()
		    assert got == [b"1", b"2", b"3", b"4", *stored, b"7"], (options, replies, got)
	END
}

@test "a log that another process has seen fail is not checkpointed: replay begins where it did" {
	keeps_log
	python <<-'END'
		fresh()
		push(*[b"x" * 16000] * 131)
		# Y has pushed, and stops before it has told so; X sees the flush of its checkpoint fail.
		y = subprocess.Popen(["strace", "-o", trace, "-e", "trace=writev", "-e", "inject=writev:signal=STOP:when=1", mqd, "-H", spool],
		                     stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
		y.stdin.write(b"set q 0 0 1\r\nY\r\n")
		y.stdin.flush()
		def until(condition):
		    end = time.monotonic() + 10
		    while not condition():
		        assert time.monotonic() < end
		        time.sleep(0.01)
		until(lambda: os.path.exists(trace) and "stopped by SIGSTOP" in open(trace).read())
		before = journal_id(), journal(64)
		out = output("strace", "-qq", "-o", trace + "x", "-e", "trace=fsync,?syncfs", "-e", "inject=fsync,?syncfs:error=EIO:when=1",
		             mqd, "-H", spool, input=b"set q 0 0 1\r\nX\r\n")
		assert "INJECTED" in open(trace + "x").read() and failed(), out
		assert (journal_id(), journal(64)) == before
		pid = int(open("/proc/%d/task/%d/children" % (y.pid, y.pid)).read())
		os.kill(pid, signal.SIGCONT)
		y.stdin.close()
		assert y.stdout.read() == b"STORED\r\n"
		y.wait()
		assert journal_id() != before[0] or journal(64) == before[1], (before, journal(64))
		assert drain() == [b"1", b"2", *[b"x" * 16000] * 131, b"Y", b"X"]
	END
}

@test "rm of a message that cannot be removed: it is there, also after a reboot" {
	keeps_log
	python <<-'END'
		for options in each("unlinkat,?unlink:EIO"):
		    fresh(b"3", b"4")
		    p = subprocess.run(strace(*options) + [mqctl, "-H", spool, "rm", "q", "3"], stderr=subprocess.DEVNULL)
		    there = os.path.exists(message(3))
		    assert there == (p.returncode != 0), (options, p.returncode)
		    reboot()
		    got = drain()
		    assert got == ([b"1", b"2", b"3", b"4"] if there else [b"1", b"2", b"4"]), (options, p.returncode, got)
	END
}

@test "a log that has failed: no other is begun while a message on its way to a client was not written again" {
	keeps_log
	python <<-'END'
		renewed = 0
		for options in each(OPENS, "?mmap,?mmap2:ENOMEM"):
		    fresh(b"3", b"4")
		    holder = Mqd()
		    assert [holder.ask(l)[1] for l in (b"get q", b"get q", b"get q/open")] == [b"1", b"2", b"3"]
		    failed(1)
		    before, files = journal_id(), [spool + "/q/.claim/%016d" % 3, message(4)]
		    changed = [os.stat(f).st_ctime_ns for f in files]
		    time.sleep(0.005)
		    m = Mqd(*options)
		    m.push(b"5")
		    m.end()
		    if journal_id() != before:
		        renewed += 1
		        assert not {*changed} & {os.stat(f).st_ctime_ns for f in files}, options
		    holder.end()
		    got = drain()
		    assert got[:2] == [b"3", b"4"], (options, got)
		assert renewed
	END
}

@test "import from a server: a message whose rename fails, or is killed, is delivered by the next run" {
	local other=${SPOOL%/*}/other
	SPOOL=$other start_mqd
	python "$other" "$PORT" <<-'END'
		other, port = sys.argv[5:7]
		command = [mqctl, "-H", spool, "import", "memcacheq://127.0.0.1:" + port]
		for options in each("?renameat,?renameat2:EIO", "?renameat,?renameat2:KILL", OPENS):
		    shutil.rmtree(spool, ignore_errors=True)
		    os.mkdir(spool)
		    assert output(mqd, "-H", other, input=b"set q 0 0 1\r\nm\r\nset q 0 0 1\r\nn\r\n") == b"STORED\r\n" * 2
		    output(*strace(*options), *command)
		    p = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
		    assert p.returncode == 0, (options, p)
		    got = drain()
		    assert got == [b"m", b"n"], (options, got, p)
	END
}

@test "import of what a killed one has pushed: not twice, whatever fails then" {
	local other=${SPOOL%/*}/other
	SPOOL=$other start_mqd
	python "$other" "$PORT" <<-'END'
		other, port = sys.argv[5:7]
		command = [mqctl, "-H", spool, "import", "memcacheq://127.0.0.1:" + port]
		for options in each(OPENS, LOOKS, "pread64:ENOMEM", "unlinkat:EIO"):
		    shutil.rmtree(spool, ignore_errors=True)
		    os.mkdir(spool)
		    assert output(mqd, "-H", other, input=b"set q 0 0 1\r\nm\r\n") == b"STORED\r\n"
		    # By a link and an unlink, between which it is killed.
		    output("strace", "-qq", "-o", trace, "-e", "inject=?renameat2:error=EINVAL", "-e", "inject=unlinkat:signal=KILL:when=2", *command)
		    assert os.stat(message(1)).st_nlink == 2
		    push(b"n")
		    output(*strace(*options), *command)
		    p = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
		    assert p.returncode == 0, (options, p)
		    got = drain()
		    assert got == [b"m", b"n"] and not bad(), (options, got, bad(), p)
	END
}

@test "a log is made anew while a push to several queues waits for its flush: no flush without end" {
	keeps_log
	python <<-'END'
		for n in range(1, 30):
		    fresh()
		    output(mqd, "-H", spool, input=b"get q+a\r\nget q+b\r\n")
		    push(b"a", b"b", b"c", b"d")
		    p = subprocess.Popen(strace("-e", "trace=fdatasync,fsync", "-e", "inject=fdatasync:error=EIO:when=1", "-e",
		                                "inject=fsync:error=EIO:when=%d" % n) + [mqd, "-H", spool],
		                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
		    try:
		        out = p.communicate(b"set q 0 0 1\r\n5\r\n", timeout=5)[0]
		    finally:
		        for pid in open("/proc/%d/task/%d/children" % (p.pid, p.pid)).read().split() if p.poll() is None else []:
		            os.kill(int(pid), signal.SIGKILL)
		    flushes = open(trace).read()
		    assert flushes.count("sync(") < 100, (n, flushes.count("sync("))
		    if flushes.count("INJECTED") < 2:
		        break
		assert n > 2
	END
}

@test "a log that has failed begins anew beside a directory of another user's" {
	keeps_log
	[ "$EUID" -eq 0 ] || skip "needs a file of another user"
	local d=${MEMORY:-$BATS_TEST_TMPDIR}
	for (( ; ${#d} > 1; )); do
		chmod go+x "$d"
		d=$(dirname "$d")
	done
	python <<-'END'
		torn()
		before = journal_id()
		subprocess.run(["chown", "-R", "nobody", spool], check=True)
		os.mkdir(spool + "/backup", 0o700)
		out = output(mqd, "-u", "nobody", "-H", spool, input=b"set q 0 0 1\r\n5\r\n")
		assert out == b"STORED\r\n" and journal_id() != before
		out = output(mqd, "-u", "nobody", "-H", spool, input=b"get q\r\n" * 6)
		assert out.split()[4::6] == [b"1", b"2", b"3", b"4", b"5"], out
	END
}

@test "export: all messages are in it, or it says that they are not" {
	python <<-'END'
		fresh()
		output(mqd, "-H", spool, input=b"get q\r\nget q\r\n")
		push(b"x" * 300000, b"body-4", b"body-5")
		assert output(mqd, "-H", spool, input=b"set q/delay=1000 0 0 6\r\nbody-6\r\n") == b"STORED\r\n"
		for moves in False, True:
		    for options in each(*[OPENS] if moves else [OPENS, LOOKS, "pread64:ENOMEM", "?getdents64:ENOMEM"]):
		        p = subprocess.Popen(strace(*options) + [mqctl, "-H", spool, "export"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0)
		        out, holders = p.stdout.read(1), []
		        if moves and out:
		            # It knows what there is, and writes the first; two go to clients before it comes to them.
		            holders = Mqd(), Mqd(), Mqd()
		            assert [h.ask(b"get q/open")[1][-6:] for h in holders] == [b"xxxxxx", b"body-4", b"body-5"]
		        out += p.stdout.read() or b""
		        while part := p.stdout.read(1 << 20):
		            out += part
		        for h in holders:
		            h.end()
		        assert p.wait() != 0 or all(b in out for b in (b"x" * 300000, b"body-4", b"body-5", b"body-6")), (options, moves)
	END
}

@test "a checkpoint that cannot look into .claim flushes all" {
	keeps_log
	python <<-'END'
		def push_one(*options):
		    fresh()
		    # So many that a checkpoint is due, and so few that wait of them that it flushes each.
		    push(*[b"x" * 16000] * 70)
		    output(mqd, "-H", spool, input=b"get q\r\n" * 60)
		    push(*[b"x" * 16000] * 60)
		    before = journal(64)
		    m = Mqd(*options)
		    assert m.push(b"5") == [b"STORED"]
		    m.end()
		    assert journal(64) != before, "there was no checkpoint"
		    with open(trace) as f:
		        return [l for l in f if "(" in l]
		calls = push_one("-e", "trace=openat,?syncfs")
		assert not any("syncfs(" in l for l in calls), calls
		opens = [l for l in calls if "openat(" in l]
		tried = [n for n, l in enumerate(opens, 1) if '".claim"' in l]
		for n in tried[-1:]:
		    calls = push_one("-e", "trace=openat,?syncfs", "-e", "inject=openat:error=EMFILE:when=%d" % n)
		    assert any("syncfs(" in l for l in calls), calls
		assert tried, opens
	END
}

@test "what was delivered, or removed, does not come again after a reboot, whatever the log could not be told" {
	keeps_log
	python <<-'END'
		wrong = []
		for how in [mqctl, "-H", spool, "rm", "q", "3"], [mqd, "-H", spool]:
		    for options in each(OPENS, LOOKS, READS, "pwrite64:ENOSPC", "?mmap,?mmap2:ENOMEM", "fdatasync:EIO",
		                        path=(".sync", ".journal", spool + "/.sync", spool + "/.journal")):
		        fresh(b"3", b"4")
		        output(mqd, "-H", spool, input=b"get q\r\nget q\r\n")
		        p = subprocess.run(strace(*options) + how, input=b"get q\r\n", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
		        said = p.stdout == b"VALUE q 0 1\r\n3\r\nEND\r\n" if how[0] == mqd else p.returncode == 0
		        reboot()
		        got = drain()
		        if got != ([b"4"] if said else [b"3", b"4"]):
		            wrong.append((how[0], options, said, got))
		assert not wrong, "\n".join(map(str, wrong))
	END
}
