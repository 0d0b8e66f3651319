#!/usr/bin/env bats
# A queue and its children: what is pushed to the one comes to all.

load helper

setup() {
	mkdir -p "$SPOOL"
}

@test "each set to a queue goes to its children, from the first command on that names them" {
	talk <<-'END'
		> set orders 0 0 6
		> before
		< STORED
		> get orders+audit
		< END
		> set orders+mail 0 0 4
		> mine
		< STORED
		> set orders 7 0 3
		> one
		< STORED
		> get orders+audit
		< VALUE orders+audit 7 3
		< one
		< END
		> get orders+mail
		< VALUE orders+mail 0 4
		< mine
		< END
		> get orders+mail
		< VALUE orders+mail 7 3
		< one
		< END
		> get orders
		< VALUE orders 0 6
		< before
		< END
		> get orders
		< VALUE orders 7 3
		< one
		< END
		> set ordersx 0 0 1
		> x
		< STORED
		> get orders+audit
		< END
	END
	"$MQCTL" -H "$SPOOL" check
}

@test "large bodies, and a child of a child" {
	head -c 300000 /dev/urandom >"$BATS_TEST_TMPDIR/body"
	{
		printf 'get a+b+c\r\nget a+d\r\nset a 0 0 300000\r\n'
		cat "$BATS_TEST_TMPDIR/body"
		printf '\r\n'
	} | "$MQD" -H "$SPOOL" >"$BATS_TEST_TMPDIR/out"
	[ "$(tail -n 1 "$BATS_TEST_TMPDIR/out")" = $'STORED\r' ]
	for queue in a a+b+c a+d; do
		"$MQCTL" -H "$SPOOL" get $queue | cmp - "$BATS_TEST_TMPDIR/body"
	done
	"$MQCTL" -H "$SPOOL" check
}

@test "fanout_only: nothing in the queue itself, once it has a child" {
	"$MQCTL" -H "$SPOOL" set a fanout_only=yes
	talk <<-'END'
		> set a 0 0 1
		> x
		< STORED
		> get a+b
		< END
		> set a 0 0 1
		> y
		< STORED
		> get a+b
		< VALUE a+b 0 1
		< y
		< END
		> get a
		< VALUE a 0 1
		< x
		< END
		> get a
		< END
	END
}

@test "a child that was deleted, by mqd or by hand, gets nothing, and is not made again" {
	printf 'get a+b\r\nget a+c\r\n' | "$MQD" -H "$SPOOL" >/dev/null
	talk <<-'END'
		> delete a+b
		< DELETED
		> set a 0 0 1
		> x
		< STORED
	END
	rm -r "$SPOOL/a+c"
	printf 'set a 0 0 1\r\nx\r\n' | "$MQD" -H "$SPOOL"
	[ ! -e "$SPOOL/a+b" ]
	[ ! -e "$SPOOL/a+c" ]
	[ "$(count_messages a)" = 2 ]
	# One that an operator makes is known once it is used.
	mkdir "$SPOOL/a+d"
	printf 'get a+d\r\nset a 0 0 1\r\ny\r\nget a+d\r\n' | "$MQD" -H "$SPOOL" | grep -q y
}

@test "a connection that stays sees a child that another makes" {
	start_mqd
	talk_tcp <<-'END'
		> set a 0 0 1
		> x
		< STORED
		connect other
		> get a+b
		< END
		use first
		> set a 0 0 1
		> y
		< STORED
		use other
		> get a+b
		< VALUE a+b 0 1
		< y
		< END
	END
}

@test "one child is full, or no directory: a clear error, and what was stored is said" {
	printf 'get a+b\r\nget a+c\r\n' | "$MQD" -H "$SPOOL" >/dev/null
	"$MQCTL" -H "$SPOOL" set a+b max_items=1
	"$MQCTL" -H "$SPOOL" put a+b <<<x
	talk <<-'END'
		> set a 0 0 1
		> y
		< SERVER_ERROR stored in 2 of 3 queues, not in a+b: full
	END
	[ "$(count_messages a)/$(count_messages a+b)/$(count_messages a+c)" = 1/1/1 ]
	rm -r "$SPOOL/a+b"
	: >"$SPOOL/a+b"
	talk <<-'END'
		> set a 0 0 1
		> y
		<~ SERVER_ERROR stored in 2 of 3 queues, not in a\+b: .*
		> set a 0 0 1 noreply
		> z
		> get a
		< VALUE a 0 1
		< y
		< END
	END
	rm "$SPOOL/a+b"
	"$MQCTL" -H "$SPOOL" set a max_items=1
	"$MQCTL" -H "$SPOOL" set a+c max_items=1
	talk <<-'END'
		> set a 0 0 1
		> y
		< NOT_STORED
	END
	"$MQCTL" -H "$SPOOL" check
}

# as_nobody < commands: what an mqd that is not root answers.
as_nobody() {
	local d=$BATS_TEST_TMPDIR
	cp "$MQD_BINARY" "$d/mqd"
	for (( ; ${#d} > 1; )); do
		chmod go+x "$d"
		d=$(dirname "$d")
	done
	"$PYTHON" -c '
import subprocess, sys
p = subprocess.run([sys.argv[1], "-H", sys.argv[2]], user="nobody", group="nogroup", extra_groups=[],
                   stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
sys.stdout.write(p.stdout.decode().replace("\r", ""))' "$BATS_TEST_TMPDIR/mqd" "$SPOOL"
}

@test "one child may not be read or written: the others have it, and that is said; so with .fanout" {
	[ "$EUID" -eq 0 ] || skip "only root can become another user"
	local mode
	printf 'get a+b\r\nget a+c\r\nset a 0 0 1\r\nw\r\n' | "$MQD" -H "$SPOOL" >/dev/null
	chown -R nobody "$SPOOL"
	for mode in 000 500; do
		chmod $mode "$SPOOL/a+b"
		[ "$({
			printf 'set a 0 0 1\r\nx\r\nset a 0 0 1 noreply\r\ny\r\nset a/delay=100 0 0 1\r\nz\r\nset a 0 0 9000\r\n'
			printf '%09000d\r\nversion\r\n' 0
		} | as_nobody | sed 's/^VERSION .*/VERSION/')" = "SERVER_ERROR stored in 2 of 3 queues, not in a+b: Permission denied
SERVER_ERROR stored in 2 of 3 queues, not in a+b: Permission denied
SERVER_ERROR stored in 2 of 3 queues, not in a+b: Permission denied
VERSION" ]
	done
	chmod 700 "$SPOOL/a+b"
	"$MQCTL" -H "$SPOOL" check
	[ "$(count_messages a)/$(count_messages a+b)/$(count_messages a+c)" = 7/1/7 ]
	[ "$(find "$SPOOL"/a*/.delay -type f | sed 's,.*/\(a[^/]*\)/.*,\1,' | sort | tr '\n' ' ')" = "a a a+c a+c " ]
	# Who the children are cannot be known: then nothing is stored at all.
	chmod 000 "$SPOOL/.fanout/a"
	[ "$(printf 'set a 0 0 1\r\nx\r\nget b\r\n' | as_nobody)" = "SERVER_ERROR Permission denied
END" ]
	chmod 700 "$SPOOL/.fanout/a"
	[ "$(printf 'set a 0 0 1\r\nv\r\nget a+b\r\nget a+b\r\n' | as_nobody)" = "STORED
VALUE a+b 0 1
w
END
VALUE a+b 0 1
v
END" ]
	[ "$(count_messages a)/$(count_messages a+c)" = 8/8 ]
}

@test "dead letters of a child are not its parent's" {
	printf 'get a+b\r\nget a+b.dead\r\nset a 0 0 1\r\nx\r\nget a+b.dead\r\n' | "$MQD" -H "$SPOOL" >"$BATS_TEST_TMPDIR/out"
	[ "$(tr -d '\r' <"$BATS_TEST_TMPDIR/out")" = $'END\nEND\nSTORED\nEND' ]
}

@test "nothing is left in .fanout when the children are gone" {
	local many
	many=$(printf 'a+%.0s' {1..60})z
	printf 'get a+b\r\nget a+c\r\nget %s\r\n' "$many" | "$MQD" -H "$SPOOL" >/dev/null
	[ "$(find "$SPOOL/.fanout" -mindepth 1 -maxdepth 1 | wc -l)" = 8 ]
	printf 'delete %s\r\ndelete a+b\r\n' "$many" | "$MQD" -H "$SPOOL" >/dev/null
	[ "$(cd "$SPOOL/.fanout" && find . -mindepth 1)" = $'./a\n./a/a+c' ] ||
		[ "$(cd "$SPOOL/.fanout" && find . -mindepth 1 | sort | tr '\n' ' ')" = "./a ./a/a+c " ]
	rm -r "$SPOOL/a+c"
	"$MQCTL" -H "$SPOOL" check --repair
	[ -z "$(find "$SPOOL/.fanout" -mindepth 1)" ]
	# And it can begin anew.
	printf 'get a+c\r\nset a 0 0 1\r\nx\r\nget a+c\r\n' | "$MQD" -H "$SPOOL" | grep -q x
}
