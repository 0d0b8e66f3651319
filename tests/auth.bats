#!/usr/bin/env bats
# -Y: a client gives a password before anything else, as with memcached.

load helper

setup() {
	WORK=$BATS_TEST_TMPDIR
	FILE=$WORK/passwords
	mkdir -p "$SPOOL"
	umask 077
	# Made by another implementation than ours.
	SECRET=$(openssl passwd -6 -salt abcdefgh secret)
	printf 'joe:%s\nann:%s\n' "$SECRET" "$(openssl passwd -6 -salt hgfedcba twowords)" >"$FILE"
	printf 'tim:%s\n' "$(openssl passwd -6 -salt 12345678 ' two words')" >>"$FILE"
	MEMCACHED_PID=
}

teardown() {
	stop_mqd
	[[ -z $MEMCACHED_PID ]] || stop "$MEMCACHED_PID"
}

# said TEXT: has mqd logged it?
said() {
	grep -qF -- "$1" "$WORK/log"
}

# What memcached and we answer with the same bytes.
both_answer() {
	cat <<'END'
> get q4
< CLIENT_ERROR unauthenticated
> version
< CLIENT_ERROR unauthenticated
> stats
< CLIENT_ERROR unauthenticated
> set
< CLIENT_ERROR unauthenticated
> set q4 0 0
< CLIENT_ERROR unauthenticated
> nonsense
< CLIENT_ERROR unauthenticated
> delete q4
< CLIENT_ERROR unauthenticated
> set any 0 0 9
> joe wrong
< CLIENT_ERROR authentication failure
> set any 0 0 6
> secret
< CLIENT_ERROR bad authentication token format
> set any 7 30 10
> joe secret
< STORED
> set q4 0 0 5
> hello
< STORED
> version
<~ VERSION .*
connect
> set any x y 12
> ann twowords
< STORED
> version
<~ VERSION .*
connect
> set any 0 0 10
> ann secret
< CLIENT_ERROR authentication failure
> set any 0 0 10
> bob secret
< CLIENT_ERROR authentication failure
> version
< CLIENT_ERROR unauthenticated
connect
>> set any 0 0 10\r\njoe secret\r\nset q4 0 0 5\r\nhello\r\n
< STORED
< STORED
END
}

@test "what memcached -Y answers, mqd answers" {
	printf 'joe:secret\nann:twowords\n' >"$WORK/clear"
	PORT=$(free_port)
	memcached -u "$(id -un)" -U 0 -l 127.0.0.1 -p "$PORT" -Y "$WORK/clear" 3>&- &
	MEMCACHED_PID=$!
	wait_for listening "$PORT"
	both_answer | talk_tcp
	start_mqd -Y "$FILE"
	both_answer | talk_tcp
	both_answer | sed '/^connect/,$d' | talk -Y "$FILE"
	[ "$(count_messages q4)" -eq 3 ]
}

@test "where memcached would run a block as commands, or answer in spite of noreply, mqd does not" {
	start_mqd -Y "$FILE"
	talk_tcp <<-'END'
		> add q4 0 0 30
		> set any 0 0 10\r\njoe secret\r\nxy
		< CLIENT_ERROR unauthenticated
		> cas any 0 0 10 1
		> joe secret
		< CLIENT_ERROR unauthenticated
		> version
		< CLIENT_ERROR unauthenticated
		> set any 0 0 10 noreply
		> joe secret
		> version
		<~ VERSION .*
		connect
		> set any 0 0 10 noreply
		> joe secreT
		> version
		< CLIENT_ERROR unauthenticated
		connect
		> set any 0 0 10
		> joe secret, and more
		< CLIENT_ERROR bad command line termination
		> version
		< CLIENT_ERROR unauthenticated
		> set any 0 0 12
		> joe secret
		>
		< CLIENT_ERROR authentication failure
		connect
		> quit
		<eof
		connect
		> POST / HTTP/1.1
		<eof
		connect
		> set any 0 0 1025
		< CLIENT_ERROR auth token too long
		<eof
		connect
		> set any 0 0 99999999999999999999999
		< CLIENT_ERROR unauthenticated
		connect
		>> set any 0 0 1024\r\njoe 
		>>*1020 x
		>> \r\n
		< CLIENT_ERROR authentication failure
		connect
		>> set any 0 0 17\r\njoe secret\0secret\r\n
		< CLIENT_ERROR authentication failure
		>> set any 0 0 14\r\njoe\0joe secret\r\n
		< CLIENT_ERROR authentication failure
		# Each space counts but the first; versions of memcached differ in that.
		connect
		>> set any 0 0 11\r\njoe secret \r\n
		< CLIENT_ERROR authentication failure
		>> set any 0 0 11\r\njoe  secret\r\n
		< CLIENT_ERROR authentication failure
		connect
		>> set any 0 0 4\r\njoe \r\n
		< CLIENT_ERROR authentication failure
		>> set any 0 0 7\r\n secret\r\n
		< CLIENT_ERROR authentication failure
		connect
		> set any 0 0 14
		> tim  two words
		< STORED
		connect
		> set any 0 0 10
		>> joe
		close
		<eof
	END
	[ -z "$(ls "$SPOOL")" ]
}

@test "after three wrong passwords the connection is closed, also without replies" {
	start_mqd -Y "$FILE"
	talk_tcp <<-'END'
		> set any 0 0 9
		> joe wrong
		< CLIENT_ERROR authentication failure
		> set any 0 0 5
		> wrong
		< CLIENT_ERROR bad authentication token format
		> version
		< CLIENT_ERROR unauthenticated
		>> set any 0 0 9\r\njoe wrong\r\nset any 0 0 10\r\njoe secret\r\nversion\r\n
		< CLIENT_ERROR authentication failure
		<eof
		connect
		>> set any 0 0 9 noreply\r\njoe wrong\r\n
		>> set any 0 0 9 noreply\r\njoe wrong\r\n
		>> set any 0 0 9 noreply\r\njoe wrong\r\n
		>> set any 0 0 10\r\njoe secret\r\n
		<eof
		connect
		> set any 0 0 9
		> joe wrong
		< CLIENT_ERROR authentication failure
		> set any 0 0 9
		> joe wrong
		< CLIENT_ERROR authentication failure
		> set any 0 0 10
		> joe secret
		< STORED
		# Now it is a message.
		> set q4 0 0 9
		> joe wrong
		< STORED
		connect
		>> \x80\x01\x00\x00
		<< \x81\x01\0\0\0\0\0\x81\0\0\0\x12\0\0\0\0\0\0\0\0\0\0\0\0text protocol only
		<eof
	END
	[ "$(grep -c 'a client gave 3 wrong passwords: left' "$WORK/log")" -eq 2 ]
	! grep -q secret "$WORK/log"
}

@test "until the password was right the spool is not looked at" {
	start_mqd -Y "$FILE"
	for _ in 1 2; do
		talk_tcp <<-'END'
			> set q4 0 0 5
			> hello
			< CLIENT_ERROR bad authentication token format
			> get q4/open
			< CLIENT_ERROR unauthenticated
			> flush_all
			< CLIENT_ERROR unauthenticated
		END
	done
	stop_mqd
	[ -z "$(ls -A "$SPOOL")" ]
	strace -f -o "$WORK/trace" "$MQD" -H "$SPOOL" -Y "$FILE" <<<$'get q4\r' >"$WORK/out"
	[ "$(<"$WORK/out")" = $'CLIENT_ERROR unauthenticated\r' ]
	grep -q "$FILE" "$WORK/trace"
	! grep -v execve "$WORK/trace" | grep -F "$SPOOL"
	# That would have shown it.
	strace -f -o "$WORK/trace" "$MQD" -H "$SPOOL" -Y "$FILE" <<<$'set any 0 0 10\r\njoe secret\r\nget q4\r' >"$WORK/out"
	grep -v execve "$WORK/trace" | grep -qF "$SPOOL"
	# Not whether it is fit either, which others are told at once.
	chmod 777 "$SPOOL"
	run "$MQD" -H "$SPOOL" -Y "$FILE" <<<$'version\r'
	[ "$output" = $'CLIENT_ERROR unauthenticated\r' ]
	talk -Y "$FILE" <<-'END'
		> set any 0 0 10
		> joe secret
		< STORED
		> set q4 0 0 5
		> hello
		<~ SERVER_ERROR .*
	END
}

@test "before the password the limits of lines and of silence hold" {
	start_mqd -Y "$FILE" -o idle_timeout=1
	talk_tcp <<-'END'
		>>*3000 x
		< CLIENT_ERROR line too long
		<eof
		connect
		<eof
		connect
		> set any 0 0 10
		>> joe
		<eof
	END
}

@test "a user that is not there takes as long as a wrong password" {
	native "it is about time"
	local hash
	hash=$("$PYTHON" -c 'import random; print("".join(random.choice("abc") for _ in range(86)))')
	printf 'joe:$6$rounds=50000$abcdefgh$%s\nann:$6$rounds=50000$hgfedcba$%s\n' "$hash" "$hash" >"$FILE"
	"$PYTHON" - "$FILE" <<-'END'
		import os, resource, subprocess, sys
		def used():
		    # The kernel divides the sum by guess.
		    r = resource.getrusage(resource.RUSAGE_CHILDREN)
		    return r.ru_utime + r.ru_stime
		def once(user):
		    begin = used()
		    token = user + b" some password"
		    r = subprocess.run([os.environ["MQD"], "-H", os.environ["SPOOL"], "-Y", sys.argv[1]], stdout=subprocess.PIPE,
		                       input=b"set any 0 0 %d\r\n%s\r\n" % (len(token), token))
		    assert r.stdout == b"CLIENT_ERROR authentication failure\r\n"
		    return used() - begin
		times = {user: 9 for user in (b"joe", b"ann", b"nobody", b"j")}
		for _ in range(12):
		    for user in times:
		        times[user] = min(times[user], once(user))
		print(times)
		# Without a hash it would be a twentieth.
		assert min(times.values()) > 0.004 and max(times.values()) < 1.5 * min(times.values())
	END
}

# refused TEXT: mqd does not start with the file as it is, and says so.
refused() {
	run "$MQD" -H "$SPOOL" -Y "$FILE" </dev/null
	[[ $status -eq 111 && ${#lines[@]} -eq 1 && $output == *"$FILE"$1* ]] || { echo "$1: $status: $output"; false; }
}

@test "a file of passwords with a mistake is refused, with the line" {
	local sum=${SECRET##*$} line bad='the password must be a hash'
	rm "$FILE"
	refused ': No such file'
	for line in 'joe:secret' 'joe:' "joe:${SECRET%?}" "joe:${SECRET}x" "joe:$SECRET " "joe:${SECRET/6/5}" "joe:${SECRET/6/1}" \
		"joe:\$6\$\$$sum" "joe:\$6\$01234567890123456\$$sum" "joe:\$6\$a!b\$$sum" "joe:\$6\$rounds=999\$abc\$$sum" "joe:\$6\$rounds=1000000\$abc\$$sum" \
		"joe:\$6\$rounds=\$abc\$$sum" "joe:\$6\$rounds=5000abc\$$sum" "joe:$(openssl passwd -5 secret)" "joe:$(openssl passwd -1 secret)" \
		"joe:joe:$SECRET" "joe:*" "joe:$SECRET"$'\r'; do
		printf '# a comment\n\n%s\n' "$line" >"$FILE"
		refused ":3: $bad"
	done
	for line in "joe" ":$SECRET" "jo e:$SECRET" $'j\toe:'"$SECRET" "$(printf '%0129d' 0):$SECRET"; do
		printf 'ann:%s\n%s\n' "$SECRET" "$line" >"$FILE"
		refused ':2: '
		[[ $output != *"$bad"* ]]
	done
	printf 'joe:%s\nann:%s\njoe:%s' "$SECRET" "$SECRET" "$SECRET" >"$FILE"
	refused ':3: the user was named before'
	printf 'joe:%s\nann:$6$rounds=6000$abcdefgh$%s\n' "$SECRET" "$sum" >"$FILE"
	refused ':2: the hash differs'
	printf 'joe:%s\nann:%s\n' "$SECRET" "$(openssl passwd -6 -salt abcdefghi secret)" >"$FILE"
	refused ':2: the hash differs'
	for i in {1..257}; do echo "user$i:$SECRET"; done >"$FILE"
	refused ':257: too many users'
	: >"$FILE"
	refused ': names no user'
	printf '#\n' >"$FILE"
	refused ': names no user'
	printf 'joe:%s\n\0' "$SECRET" >"$FILE"
	refused ': is no text'
	head -c 65537 /dev/zero | tr '\0' '#' >"$FILE"
	refused ': is too large'
	# The last line needs no end, and the others are fine as they are.
	printf 'joe:%s' "$SECRET" >"$FILE"
	talk -Y "$FILE" <<-'END'
		> set any 0 0 10
		> joe secret
		< STORED
	END
	printf '%0128d:%s\n# end\n' 0 "$SECRET" >"$FILE"
	"$MQD" -H "$SPOOL" -Y "$FILE" </dev/null
}

@test "a file of passwords that is no secret, or not the operator's, is refused" {
	local mode
	for mode in 604 644 602 601 620 660; do
		chmod "$mode" "$FILE"
		refused ': others may read it, or its group may write to it'
	done
	for mode in 600 400 440 640; do
		chmod "$mode" "$FILE"
		"$MQD" -H "$SPOOL" -Y "$FILE" </dev/null
	done
	mv "$FILE" "$FILE.real"
	ln -s "$FILE.real" "$FILE"
	"$MQD" -H "$SPOOL" -Y "$FILE" </dev/null
	rm "$FILE"
	mkdir "$FILE"
	refused ': is no regular file'
	rmdir "$FILE"
	mkfifo "$FILE"
	refused ': is no regular file'
	rm "$FILE"
	[ "$EUID" -eq 0 ] || skip "only root can give a file away"
	mv "$FILE.real" "$FILE"
	chown nobody "$FILE"
	refused ': must belong to root or to the user that mqd is started as'
}

@test "passwords of all lengths and bytes, and other numbers of rounds, as crypt(3) hashes them" {
	local rounds
	for rounds in '' 'rounds=1000$' 'rounds=1003$'; do
		# Perl asks the system's crypt.
		perl -e '
			srand(7); open(my $file, ">", $ARGV[0]); open(my $list, ">:raw", $ARGV[1]);
			for my $n (0 .. 40, 63 .. 65, 127 .. 129, 191, 255) {
				my $password = join "", map { chr(1 + int rand 255) } 1 .. $n;
				$password =~ tr/\n/x/;
				my $salt = join "", map { ("a" .. "z", ".", "/", 0 .. 9)[rand 38] } 1 .. 16;
				print $file "user$n:" . crypt($password, "\$6\$$ARGV[2]$salt\$") . "\n";
				print $list pack("n/a*", "user$n $password");
			}' "$FILE" "$WORK/list" "$rounds"
		start_mqd -Y "$FILE"
		"$PYTHON" - "$PORT" "$WORK/list" <<-'END'
			import socket, struct, sys
			data, n = open(sys.argv[2], "rb").read(), 0
			def give(s, token):
			    s.sendall(b"set any 0 0 %d\r\n%s\r\n" % (len(token), token))
			    return s.recv(100)
			while data:
			    size = struct.unpack(">H", data[:2])[0]
			    token, data, n = data[2:2 + size], data[2 + size:], n + 1
			    s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
			    assert give(s, token + b"x") == b"CLIENT_ERROR authentication failure\r\n", token
			    assert give(s, token) == b"STORED\r\n", token
			assert n == 49, n
		END
		stop_mqd
	done
}

@test "the file is read before -u, and again by each process for one connection" {
	start_mqd -Y "$FILE"
	sed -i s/joe/tom/ "$FILE"
	local joe='STORED' tom='CLIENT_ERROR authentication failure'
	[[ ${LAUNCH:-pool} == pool ]] || { tom=$joe && joe='CLIENT_ERROR authentication failure'; }
	talk_tcp <<-END
		> set any 0 0 10
		> joe secret
		< $joe
		connect
		> set any 0 0 10
		> tom secret
		< $tom
	END
	stop_mqd
	[ "$EUID" -eq 0 ] || skip "only root can become another user"
	chown nobody "$SPOOL"
	local d=$WORK
	while [ "$d" != / ]; do
		chmod o+x "$d"
		d=$(dirname "$d")
	done
	PORT=$(free_port)
	"$MQD" -H "$SPOOL" -p "$PORT" -l 127.0.0.1 -u nobody -Y "$FILE" 2>>"$WORK/log" 3>&- &
	MQD_PID=$!
	wait_for listening "$PORT"
	[ "$(stat -c %U:%a "$FILE")" = root:600 ]
	talk_tcp <<-'END'
		> set any 0 0 10
		> tom secret
		< STORED
		> set q4 0 0 5
		> hello
		< STORED
	END
}

@test "pymemcache gives a password, and works from then on" {
	start_mqd -Y "$FILE"
	timeout 20 "$PYTHON" - "$PORT" <<-'END'
		import sys
		from pymemcache.client.base import Client
		from pymemcache.exceptions import MemcacheClientError, MemcacheError
		def client(**options):
		    return Client(("127.0.0.1", int(sys.argv[1])), connect_timeout=5, timeout=5, **options)
		for noreply in (False, True):
		    c = client(default_noreply=noreply)
		    assert c.set("any", b"joe secret") is True
		    assert c.set("jobs", b"hello", noreply=False) is True
		    assert c.get("jobs") == b"hello"
		    assert c.get("jobs") is None
		for what in (lambda c: c.get("jobs"), lambda c: c.set("any", b"joe wrong", noreply=False), lambda c: c.set("jobs", b"hello", noreply=False)):
		    try:
		        what(client())
		    except MemcacheClientError as e:
		        print(e)
		    else:
		        raise SystemExit("was let in")
	END
	timeout 20 "$PYTHON" - "$PORT" <<-'END'
		import sys, pylibmc
		c = pylibmc.Client(["127.0.0.1:" + sys.argv[1]])
		assert c.set("any", b"joe secret") is True
		assert c.set("jobs", b"hello") is True
		assert c.get("jobs") == b"hello"
	END
	[ -z "$(ls "$SPOOL/jobs")" ]
}

@test "php-memcached gives a password, and works from then on" {
	start_mqd -Y "$FILE"
	cat >"$WORK/client.php" <<-'END'
		<?php
		$client = new Memcached();
		$client->addServer('127.0.0.1', (int)$argv[1]);
		$tests = [$client->set('jobs', 'hello') === false,
		    $client->get('jobs') === false,
		    $client->set('any', 'joe secret'),
		    $client->set('jobs', ['id' => 7]),
		    $client->get('jobs') === ['id' => 7],
		    $client->get('jobs') === false && $client->getResultCode() === Memcached::RES_NOTFOUND];
		echo json_encode($tests), "\n";
		exit(in_array(false, $tests, true) ? 1 : 0);
	END
	timeout 20 php "$WORK/client.php" "$PORT"
}
