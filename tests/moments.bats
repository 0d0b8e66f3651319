#!/usr/bin/env bats
# System calls that fail once, for want of memory or descriptors: the one command fails, and what was
# stored comes, once and in order.

load helper

setup() {
	native "it is traced"
	unsanitized "they make system calls themselves"
}

# python < script: with a spool that is made anew for each fault.
python() {
	{
		cat <<-'END'
			import itertools, os, re, shutil, signal, socket, subprocess, sys, time
			mqd, mqctl, spool, trace = sys.argv[1:5]
			base, q = spool + ".base", spool + "/q/"
			LOOKS = ["?fstat", "?newfstatat", "?statx"]
			CALLS = ["?open", "openat", *LOOKS, "pread64", "getdents64", "flock", "?renameat2", "?linkat"]
			injected = 0
			def put(body, queue="q"):
			    return f"set {queue} 0 0 {len(body)}\r\n{body}"
			def command(fault=None, at=()):
			    strace = ["strace", "-qq", "-o", trace, "-e", f"inject={fault}"] + [x for p in at for x in ("-P", p)]
			    return (strace if fault else []) + [mqd, "-H", spool, "-o", "sync=none"]
			def say(*lines, fault=None, at=()):
			    """What mqd answers, with a fault as strace calls it, at these paths or wherever."""
			    global injected
			    p = subprocess.Popen(command(fault, at), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
			                         stderr=subprocess.DEVNULL, start_new_session=True)
			    try:
			        out = p.communicate("".join(l + "\r\n" for l in lines).encode(), 5)[0]
			    except subprocess.TimeoutExpired:
			        os.killpg(p.pid, signal.SIGKILL)
			        p.wait()
			        raise AssertionError(f"no answer to {lines}, {fault}")
			    injected = open(trace).read().count("INJECTED") if fault else 0
			    return answers(out.decode().replace("\r", ""))
			def answers(text):
			    """The body, or the line, that each command was answered with."""
			    lines, a = text.split("\n")[:-1], []
			    while lines:
			        a.append(lines.pop(0))
			        if a[-1].startswith("VALUE "):
			            a[-1] = lines.pop(0)
			            assert lines.pop(0) == "END", text
			    return a
			def ctl(*args):
			    return subprocess.run([mqctl, "-H", spool, *args], check=True, capture_output=True).stdout.decode()
			def name(n):
			    return "%016d" % n
			def files(path, there=os.path.lexists):
			    return sorted(f for f in os.listdir(q + path) if f[0] != ".") if there(q + path) else []
			def state(**fields):
			    """Read .state; or write it, as if by hand."""
			    text = open(q + ".state").read()
			    for key, value in fields.items():
			        text, n = re.subn(rf"^{key} [-\w]+( \d+)?$", f"{key} {value}", text, flags=re.M)
			        assert n == 1, key
			    if fields:
			        open(q + ".state", "r+").write(text)
			    return dict(l.split(" ", 1) for l in text.strip().split("\n"))
			def new(*lines):
			    shutil.rmtree(spool, ignore_errors=True)
			    os.mkdir(spool, 0o700)
			    assert not any("ERROR" in a for a in say(*lines))
			def keep():
			    shutil.rmtree(base, ignore_errors=True)
			    os.rename(spool, base)
			def fresh():
			    shutil.rmtree(spool, ignore_errors=True)
			    shutil.copytree(base, spool, symlinks=True)
			def each(*lines, calls=CALLS, errors=(None,), at=(), when="{}"):
			    """Each call fails once, upon what is kept: where, and the answers."""
			    seen = 0
			    for call, error in itertools.product(calls, errors):
			        error = error or ("EMFILE" if "open" in call else "ENOMEM")
			        for n in range(1, 200):
			            fresh()
			            fault = f"{call}:error={error}:when={when.format(n)}"
			            a = say(*lines, fault=fault, at=at)
			            if injected == 0:
			                break
			            seen += 1
			            assert sum("ERROR" in l for l in a) <= 1 or when != "{}", (fault, a)
			            yield fault, a
			    assert seen > 0
			def failed(a):
			    return "SERVER_ERROR" in a
			def rest(queue="q"):
			    """All that comes now; also what a process that has ended had taken."""
			    if queue == "q" and os.path.exists(q + ".state") and os.path.getsize(q + ".state") > 0:
			        state(swept=name(0))
			    a = say(*[f"get {queue}"] * 9)
			    assert a[-1] == "END" and not any(map(failed, a)), a
			    return [l for l in a if l != "END"]
			def wait_for(condition, what):
			    end = time.monotonic() + 10
			    while not condition():
			        assert time.monotonic() < end, "gave up waiting: " + what
			        time.sleep(0.01)
		END
		cat
	} >"$BATS_TEST_TMPDIR/script.py"
	timeout 60 "$PYTHON" "$BATS_TEST_TMPDIR/script.py" "$MQD_BINARY" "$MQCTL" "$SPOOL" "$BATS_TEST_TMPDIR/trace"
}

@test "discard_old: for a count that may be wrong nothing is discarded" {
	python <<-'END'
		new(*map(put, "12345"))
		ctl("set", "q", "max_items=5", "discard_old=yes")
		os.unlink(q + name(1))
		os.unlink(q + name(2))
		keep()
		for where, a in each(put("6"), put("7")):
		    for x in range(2):
		        assert a[x] == "STORED" or failed(a[x]), (where, a)
		    stored = [b for b, l in zip("67", a) if l == "STORED"]
		    assert rest() == [*"345", *stored], (where, a)
		    assert files(".bad") == [], where
	END
}

@test "max_items: where there is room no push is told that there is none" {
	python <<-'END'
		new(*map(put, "12345"))
		ctl("set", "q", "max_items=5")
		os.unlink(q + name(1))
		os.unlink(q + name(2))
		keep()
		for where, a in each(put("6"), put("7")):
		    assert "NOT_STORED" not in a, (where, a)
		    stored = [b for b, l in zip("67", a) if l == "STORED"]
		    assert rest() == [*"345", *stored], (where, a)
	END
}

@test "max_items: no message comes in above it, in a queue whose .state was removed" {
	python <<-'END'
		new(*map(put, "123"))
		ctl("set", "q", "max_items=3")
		os.unlink(q + ".state")
		keep()
		for where, a in each(put("4"), put("5")):
		    assert "STORED" not in a and "NOT_STORED" in a, (where, a)
		    assert rest() == [*"123"], (where, a)
	END
}

@test "the common limits are not those of a queue that cannot be opened just then" {
	python <<-'END'
		new(put("1"))
		open(spool + "/.config", "w").write("max_item_size = 2\n")
		ctl("set", "q", "max_item_size=100")
		assert say(put("12345", "other")) == ["NOT_STORED"]
		keep()
		for where, a in each(put("12345"), put("67890"), when="{}+"):
		    assert "NOT_STORED" not in a, (where, a)
		    stored = [b for b, l in zip(["12345", "67890"], a) if l == "STORED"]
		    assert rest() == ["1", *stored], (where, a)
	END
}

@test "a fan-out that is told of as STORED has come to the queue itself, if that gets its own" {
	python <<-'END'
		new("get q+child", put("1"))
		assert rest("q+child") == ["1"]
		open(spool + "/.config", "w").write("fanout_only = yes\n")
		ctl("set", "q", "fanout_only=no")
		keep()
		for where, a in each(put("2"), put("3")):
		    own, copies = rest(), rest("q+child")
		    stored = [b for b, l in zip("23", a) if l == "STORED"]
		    assert own[0] == "1" and [b for b in own if b in stored] == stored, (where, a, own)
		    assert [b for b in copies if b in stored] == stored, (where, a, copies)
		    assert len(set(own)) == len(own) and len(set(copies)) == len(copies), (where, a, own, copies)
	END
}

@test "whatever fails in a get: the next one has what that would have had" {
	python <<-'END'
		new(*map(put, "123"))
		keep()
		for where, a in each("get q", "get q", "get q", errors=(None, "EIO")):
		    got, bad = [l for l in a if not failed(l) and l != "END"], files(".bad")
		    assert bad == [] or "pread64:error=EIO" in where and len(bad) == 1, (where, a, bad)
		    assert "END" not in a or bad != [], (where, a)
		    come = got + rest()
		    assert come == [m for m in "123" if name(int(m)) not in bad], (where, a, come)
	END
}

@test "whatever fails in a peek: it does not say that there is nothing" {
	python <<-'END'
		def check():
		    keep()
		    for where, a in each("get q/peek", "get q"):
		        assert all(l == "1" or failed(l) for l in a), (where, a)
		        assert [l for l in a[1:] if not failed(l)] + rest() == ["1"], (where, a)
		        assert files(".bad") == [], where
		new(put("1"))
		check()
		# One that was delayed, and is due.
		new(put("1", "q/delay=1000"))
		os.rename(q + ".delay/" + files(".delay")[0], q + ".delay/" + name(1))
		state(due=name(1))
		check()
	END
}

@test "a message that was put back by hand comes, also where its spent file cannot be opened, read or locked" {
	[[ $MQD_BINARY != */portable/* ]] || skip "it keeps no spent files"
	python <<-'END'
		new(put("1"))
		shutil.copy2(q + name(1), spool + ".copy")
		assert say("get q") == ["1"] and files(".claim") == [name(1)]
		os.rename(spool + ".copy", q + name(1))
		subprocess.run([mqctl, "-H", spool, "check", "--repair"], capture_output=True) # says what it has repaired
		keep()
		for where, a in each("get q", "get q"):
		    got = [l for l in a if not failed(l) and l != "END"]
		    assert a[0] != "END" and files(".bad") == [], (where, a, files(".bad"))
		    assert got + rest() == ["1"], (where, a)
	END
}

@test "what is no message and has the name of one in .claim keeps no queue from being used" {
	python <<-'END'
		def a_socket(path):
		    os.chdir(q + ".claim") # its path may be no longer than 107 bytes
		    socket.socket(socket.AF_UNIX).bind(os.path.basename(path))
		makers = [os.mkdir, os.mkfifo, a_socket, lambda p: os.symlink("nowhere", p), lambda p: os.symlink(q, p)]
		for maker in makers:
		    for before in ({}, {"swept": name(0)}, {"boot": "0" * 36}):
		        new(put("1"), "get q", put("2"))
		        maker(q + ".claim/" + name(7))
		        state(**before) if before else os.unlink(q + ".state")
		        assert say("get q", put("3"), "get q", "get q") == ["2", "STORED", "3", "END"], (makers.index(maker), before)
	END
}

@test "what is no message and has the name of one that waits, in .claim, keeps no other from coming" {
	python <<-'END'
		for maker in os.mkdir, os.mkfifo, lambda p: os.symlink("nowhere", p), lambda p: os.symlink(q, p):
		    new(put("1"), "get q", put("2"), put("3"))
		    maker(q + ".claim/" + name(2))
		    a = say("get q", "get q", put("4"), "get q")
		    assert not any(map(failed, a)), a
		    come = [l for l in a if l not in ("STORED", "END")]
		    assert come == [*"234"] or come == [*"34"] and files(".bad") == [name(2)], (a, files(".bad"))
	END
}

@test "what is no second, or no message, in .delay keeps nothing from coming" {
	python <<-'END'
		# The first of what is overdue gets the lowest second; and what bears its name cannot be replaced.
		for maker in lambda p: open(p, "w"), os.mkfifo, lambda p: os.symlink("nowhere", p), lambda p: os.symlink(q, p):
		    new(put("1"), put("2", "q/delay=1000"))
		    [second] = files(".delay")
		    for f in files(".delay/" + second):
		        os.utime(f"{q}.delay/{second}/{f}", (1, 1))
		    os.rename(q + ".delay/" + second, q + ".delay/" + name(99999999))
		    maker(q + ".delay/" + name(1))
		    os.unlink(q + ".state")
		    assert say("get q")[0] == "1"
		    assert say(put("3"), "get q")[0] == "STORED"
		for maker in os.mkdir, os.mkfifo, lambda p: os.symlink("nowhere", p):
		    new(put("1"), put("2", "q/delay=1000"))
		    os.rename(q + ".delay/" + files(".delay")[0], q + ".delay/" + name(2))
		    os.mkdir(q + ".delay/" + name(1))
		    maker(q + ".delay/" + name(1) + "/" + name(1))
		    state(due=name(1))
		    a = say("get q", "get q", "get q")
		    assert a == ["1", "2", "END"], (maker, a)
	END
}

@test "a file in .claim on a bad sector, after a reboot: its message comes, or is set aside" {
	python <<-'END'
		# The second is written over the first, and its new name does not reach the disk.
		for known in {}, {"range": name(2) + " " + name(2)}:
		    for fault in "openat:error=EIO", "openat:error=EIO:when=1", "pread64:error=EIO", "pread64:error=EIO:when=2":
		        new(put("1"), "get q", put("2"))
		        os.rename(q + name(2), q + ".claim/" + name(1))
		        state(boot="0" * 36, **known)
		        a = say("get q", fault=fault, at=[name(1), q + ".claim/" + name(1)])
		        assert injected > 0 and len(a) == 1, (known, fault, a)
		        got = [l for l in a if l != "END" and not failed(l)] + rest()
		        assert len(got) + len(files(".bad")) == 1, (known, fault, a, got, files(".bad"))
	END
}

@test "a delayed message does not come before its time, whatever fails as .state is made anew" {
	python <<-'END'
		new(put("1", "q/delay=1000"))
		os.unlink(q + ".state")
		keep()
		for where, a in each("get q", "get q"):
		    assert all(l == "END" or failed(l) for l in a), (where, a)
		    assert say("get q") == ["END"], where
		    now, [second] = time.monotonic(), files(".delay")
		    assert now + 900 < int(second) < now + 1010, (where, second)
		    s = state()
		    assert s["due"] == second and int(s["delayed"]) == 1, (where, a, s)
	END
}

@test "a delayed message does not come late, whatever fails at the first look after a reboot" {
	python <<-'END'
		new(put("1", "q/delay=1000"))
		os.rename(q + ".delay/" + files(".delay")[0], q + ".delay/" + name(10000000))
		state(boot="0" * 36, due=name(10000000))
		keep()
		for where, a in each("get q", "get q", calls=[*CALLS, "?rename", "?renameat"]):
		    assert all(l == "END" or failed(l) for l in a), (where, a)
		    assert say("get q") == ["END"], where
		    now, [second] = time.monotonic(), files(".delay")
		    assert now + 900 < int(second) < now + 1010, (where, second)
		    s = state()
		    assert s["due"] == second and int(s["delayed"]) == 1, (where, a, s)
	END
}

@test "seconds that become one: all their messages come, also where two bear one number" {
	python <<-'END'
		new(*(put(b, "q/delay=1000") for b in "123456"))
		made = sorted(f"{q}.delay/{d}/{f}" for d in files(".delay") for f in files(".delay/" + d))
		for second in 20000000, 20000001:
		    os.mkdir(q + ".delay/" + name(second))
		    for n in 1, 2, 3:
		        os.rename(made.pop(0), f"{q}.delay/{name(second)}/{name(n)}")
		for d in files(".delay"):
		    if int(d) < 20000000:
		        os.rmdir(q + ".delay/" + d)
		def date(at):
		    for d in files(".delay"):
		        for f in files(".delay/" + d):
		            os.utime(f"{q}.delay/{d}/{f}", (at, at))
		date(time.time() + 1000)
		os.unlink(q + ".state")
		keep()
		def all_come(where):
		    assert say("get q") == ["END"], where
		    now, seconds = time.monotonic(), files(".delay")
		    assert all(now + 900 < int(d) < now + 1010 for d in seconds), (where, seconds)
		    assert sum(len(files(".delay/" + d)) for d in seconds) == 6, where
		    assert int(state()["delayed"]) == 6, where
		    date(time.time() - 10)
		    os.unlink(q + ".state")
		    assert sorted(rest()) == [*"123456"] and files(".bad") == [], where
		fresh()
		all_come("no fault")
		for where, a in each("get q", calls=["openat", *LOOKS, "getdents64", "?rename", "?renameat", "?renameat2", "?linkat"]):
		    assert a == ["END"] or failed(a[0]), (where, a)
		    all_come(where)
	END
}

@test "a delayed message that is refused does not count" {
	python <<-'END'
		new(put("1"), "get q")
		ctl("set", "q", "max_items=1")
		keep()
		for where, a in each(put("2", "q/delay=1000")):
		    delayed = [f for d in files(".delay") for f in files(".delay/" + d)]
		    assert len(delayed) == (a == ["STORED"]), (where, a, delayed)
		    assert say(put("3"), "get q") == (["NOT_STORED", "END"] if delayed else ["STORED", "3"]), (where, a)
	END
}

@test "who waits behind a process that died is served by the next push" {
	python <<-'END'
		new(put("1"), "get q")
		def begin(line, *strace):
		    p = subprocess.Popen([*strace, *command()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
		    os.set_blocking(p.stdout.fileno(), False)
		    p.stdin.write(line + b"\r\n")
		    p.stdin.flush()
		    return p
		dead = begin(b"get q/t=60000")
		wait_for(lambda: files(".wait"), "a place in the line")
		dead.kill()
		dead.wait()
		assert files(".wait") == [name(1)]
		keep()
		seen = 0
		for call in "openat", *LOOKS, "getdents64":
		    for n in range(1, 60):
		        shutil.rmtree(spool, ignore_errors=True)
		        shutil.copytree(base, spool, ignore=lambda *_: [".wait"])
		        os.mkdir(q + ".wait", 0o700)
		        os.mkfifo(q + ".wait/" + name(1))
		        open(trace, "w").close()
		        p = begin(b"get q/t=60000", "strace", "-qq", "-o", trace, "-e", f"inject={call}:error=EMFILE:when={n}")
		        # strace writes of a call as it begins.
		        answer = b""
		        def settled():
		            global answer
		            answer = p.stdout.read() or b""
		            return answer or re.search(r"^(\w*poll\w*)\([^\n]*\Z", open(trace).read(), re.M)
		        wait_for(settled, "the reply or a poll")
		        done = "INJECTED" not in open(trace).read()
		        assert say(put("2")) == ["STORED"]
		        def replied():
		            global answer
		            answer += p.stdout.read() or b""
		            return answer
		        wait_for(replied, f"a reply, {call} {n}")
		        assert answer.startswith((b"VALUE q", b"SERVER_ERROR")), (call, n, answer)
		        p.stdin.close()
		        p.wait()
		        assert rest() == ([] if answer.startswith(b"VALUE") else ["2"]), (call, n, answer)
		        if done:
		            break
		        seen += 1
		assert seen > 0
	END
}

@test "where the lock can never be checked there is an error at once" {
	python <<-'END'
		looks = ",".join(LOOKS)
		new(put("1"))
		keep()
		for line in "get q", "get q/open", "get q/peek", put("2"), put("2", "q/delay=1"), "flush q":
		    fresh()
		    a = say(line, fault=f"{looks}:error=ENOMEM", at=["q/.state"])
		    assert injected > 0 and len(a) == 1 and failed(a[0]), (line, a)
		    assert rest() == ["1"], (line, a)
		# Where it is taken a second time.
		new(put("1"), put("2"))
		open(q + name(1), "a").write("more")
		a = say("get q", fault=f"{looks}:error=ENOMEM", at=[".state"])
		assert injected > 0 and len(a) == 1 and failed(a[0]), a
		assert rest() == ["2"] and files(".bad") == [name(1)]
	END
}

@test "a file in .tmp that cannot be looked at is not followed by another one, and goes" {
	python <<-'END'
		new(put("1"), put("2"))
		keep()
		# Files without a name cannot get one; which the portable ones never can.
		strace = ["strace", "-qq", "-o", trace]
		if "/portable/" not in mqd:
		    strace += ["-e", "inject=linkat:error=EPERM"]
		seen = 0
		for call in LOOKS:
		    for n in range(1, 60):
		        fresh()
		        p = subprocess.Popen([*strace, "-e", f"inject={call}:error=ENOMEM:when={n}+", *command()],
		                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
		        try:
		            out = p.communicate(f"{put('3')}\r\n{put('4')}\r\n".encode(), 3)[0]
		        except subprocess.TimeoutExpired:
		            os.killpg(p.pid, signal.SIGKILL)
		            p.wait()
		            raise AssertionError(f"{call} {n}: no end, with {len(files('.tmp'))} files in .tmp")
		        a = answers(out.decode().replace("\r", ""))
		        if not any("INJECTED" in l and "linkat" not in l for l in open(trace)):
		            break
		        seen += 1
		        assert files(".tmp") == [], (call, n, files(".tmp"))
		        assert rest() == [*"12", *(b for b, l in zip("34", a) if l == "STORED")], (call, n, a)
		assert seen > 0
	END
}

@test "which boot it is cannot be told: an error, and a pause lasts" {
	[[ $MQD_BINARY != */portable/* ]] || skip "it does not ask"
	python <<-'END'
		boot = "/proc/sys/kernel/random/boot_id"
		new(put("1"), put("2", "q/delay=1000"))
		ctl("pause", "q", "100s")
		keep()
		for call in "?open,?openat", "read":
		    for when in "", ":when=1":
		        fresh()
		        a = say("get q", fault=f"{call}:error=EMFILE{when}", at=[boot])
		        assert injected > 0 and (failed(a[0]) or (when and a == ["END"])), (call, when, a)
		        assert say("get q") == ["END"], (call, when, a)
		        ctl("resume", "q")
		        assert rest() == ["1"], (call, when, a)
		        assert int(state()["delayed"]) == 1
	END
}

# Of each of the next: three messages that wait, one that was delayed and is due, and the orphan of a
# process that was killed.
sweep() {
	{
		cat <<-'END'
			new(*map(put, "oabc"), put("d", "q/delay=1000"))
			os.makedirs(q + ".claim", 0o700, exist_ok=True)
			os.rename(q + name(1), q + ".claim/" + name(1))
			os.rename(q + ".delay/" + files(".delay")[0], q + ".delay/" + name(1))
			state(due=name(1), swept=name(0))
			keep()
			fresh()
			assert rest() == [*"oabcd"]
			def all_come(where, a, come, more=""):
			    """The orphan, and what was delayed, at any place."""
			    assert sorted(come) == sorted("abcdo" + more), (where, a, come)
			    proper = [b for b in come if b not in "od"]
			    assert proper == sorted(proper) and files(".bad") == [], (where, a, come, files(".bad"))
		END
		cat
	} | python
}

@test "any call of a get fails: all messages come, in order, once" {
	sweep <<-'END'
		for where, a in each("get q/peek", "get q/open", "get q/close", "get q"):
		    peeked, opened, closed, got = a
		    assert "END" not in (peeked, opened, got), (where, a)
		    come = rest()
		    taken = [] if failed(opened) or failed(closed) and opened in come else [opened]
		    all_come(where, a, taken + ([] if failed(got) else [got]) + come)
	END
}

@test "any call of a set, or of stats queue, fails: it is refused, or its message comes; and all others" {
	sweep <<-'END'
		for where, a in each("stats queue", put("x"), put("y")):
		    *figures, x, y = a
		    assert failed(figures[0]) or figures[-1] == "END", (where, a)
		    stored = [b for b, l in (("x", x), ("y", y)) if l == "STORED"]
		    assert len(stored) + failed(x) + failed(y) == 2, (where, a)
		    all_come(where, a, rest(), "".join(stored))
		for where, a in each(put("x", "q/delay=1000"), "get q"):
		    assert a[1] != "END", (where, a)
		    all_come(where, a, [l for l in a[1:] if not failed(l)] + rest())
		    delayed = [f for d in files(".delay") for f in files(".delay/" + d)]
		    s = state()
		    assert len(delayed) == (a[0] == "STORED"), (where, a, delayed)
		    assert int(s["delayed"]) == len(delayed) or s["stale"] == "1", (where, a, s)
	END
}

@test "any call of a delete or a flush fails: who is told that it is done is told the truth" {
	sweep <<-'END'
		for where, a in each("delete q", put("x")):
		    come = rest()
		    if failed(a[0]):
		        all_come(where, a, come, "x")
		    else:
		        assert a[0] == "DELETED" and come == (["x"] if a[1] == "STORED" else []), (where, a, come)
		for where, a in each("flush q", put("x")):
		    come = rest()
		    # What somebody had taken does not wait.
		    assert failed(a[0]) or a[0] == "END" and come == ["o", *(["x"] if a[1] == "STORED" else [])], (where, a, come)
		    proper = [b for b in come if b not in "od"]
		    assert proper == sorted(proper) and len(set(come)) == len(come), (where, a, come)
	END
}

@test "any call of flush_expired fails: who is told how many went is told of all that should" {
	python <<-'END'
		new()
		ctl("set", "q", "expire=yes")
		a = say("set q 0 -1 1\r\nx", put("1"), "set q 0 -1 1\r\ny", put("2"))
		assert a == ["STORED"] * 4, a
		keep()
		for where, a in each("flush_expired q"):
		    assert failed(a[0]) or a[0] == "2" and files("") == [name(2), name(4)], (where, a, files(""))
		    assert rest() == [*"12"], (where, a)
	END
}

@test "a file system that cannot be told is not taken for a good one" {
	[[ $MQD_BINARY != */portable/* ]] || skip "it does not ask"
	python <<-'END'
		new(put("1"))
		keep()
		for where, a in each("get q", calls=["?fstatfs,?fstatfs64"]):
		    assert a == ["SERVER_ERROR spool refused"] and rest() == ["1"], (where, a)
	END
}

@test "any look of a check fails: it says so" {
	python <<-'END'
		new(put("1"), put("2", "q/delay=1000"))
		ctl("set", "q", "expire=yes")
		os.makedirs(spool + "/.import/from,x/q/1")
		os.makedirs(q + ".claim", 0o700, exist_ok=True)
		keep()
		sound = subprocess.run([mqctl, "-H", base, "check"], capture_output=True, text=True).stdout
		assert sound.startswith("unfinished .import") and sound.count("\n") == 1, sound
		for call, error in ("?newfstatat,?fstatat64,?statx", "ENOMEM"), ("openat", "EMFILE"), ("getdents64", "ENOMEM"):
		    for n in itertools.count(1):
		        fresh()
		        p = subprocess.run(["strace", "-qq", "-o", trace, "-e", f"inject={call}:error={error}:when={n}",
		                            mqctl, "-H", spool, "check"], capture_output=True, text=True)
		        if "INJECTED" not in open(trace).read():
		            break
		        told = re.search("^(unreadable|misconfigured) ", p.stdout, re.M)
		        assert (p.returncode == 1 and told) or p.returncode == 111, (call, n, p)
		    assert n > 1 and p.stdout == sound, (call, p)
	END
}

@test "the spool cannot be opened for a while: it is not served as if it had no settings" {
	python <<-'END'
		new(put("1"))
		open(spool + "/.config", "w").write("status = quiescent\n")
		for call, n in itertools.product(("?open", "openat"), range(1, 8)):
		    a = say("get q/peek", fault=f"{call}:error=EMFILE:when=1..{n}", at=[spool])
		    assert a != ["1"] and a != ["END"], (call, n, a)
	END
}

@test "any look of the page at a queue's messages fails: it says so, or has them" {
	python <<-'END'
		new(put("1"), put("2"))
		request = b"GET /messages/q HTTP/1.0\r\nHost: localhost\r\n\r\n"
		for call, error in ("?newfstatat,?fstatat64,?statx", "ENOMEM"), ("openat", "EMFILE"), ("pread64", "ENOMEM"), ("getdents64", "ENOMEM"):
		    for n in itertools.count(1):
		        p = subprocess.run(["strace", "-qq", "-o", trace, "-e", f"inject={call}:error={error}:when={n}",
		                            mqctl, "-H", spool, "http", "--bodies"], input=request, capture_output=True)
		        right = p.stdout.count(b'"damaged": false') == 2
		        if "INJECTED" not in open(trace).read():
		            break
		        assert right or p.stdout.startswith(b"HTTP/1.1 503") or p.returncode == 111, (call, n, p)
		    assert n > 1 and right, (call, p)
	END
}
