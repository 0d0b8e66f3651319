#!/usr/bin/env bats
# mqctl rebalance: the same homes as libmemcached's clients have, and queues moved there.

load helper

setup() {
	mkdir -p "$SPOOL"
	PIDS=() PORTS=() SERVERS=
}

teardown() {
	stop "${PIDS[@]}"
}

# start_node I: mqd number I, with a spool of its own; its port stays the same.
start_node() {
	mkdir -p "$SPOOL/n$1"
	PORTS[$1]=${PORTS[$1]:-$(free_port)}
	"$MQD" -N -H "$SPOOL/n$1" -l 127.0.0.1 -p "${PORTS[$1]}" -u root 3>&- &
	PIDS[$1]=$!
	wait_for listening "${PORTS[$1]}"
}

# start_nodes N: and SERVERS, as mqctl wants them.
start_nodes() {
	local i
	for ((i = 0; i < $1; i++)); do
		start_node "$i"
	done
	SERVERS=$(printf '127.0.0.1:%d,' "${PORTS[@]}")
	SERVERS=${SERVERS%,}
}

# node I ARG...: mqctl on its spool.
node() {
	local i=$1
	shift
	"$MQCTL" -H "$SPOOL/n$i" "$@"
}

# rebalance I [option...]: all that is in node I goes home.
rebalance() {
	local i=$1
	shift
	node "$i" rebalance --to "$SERVERS" --self "127.0.0.1:${PORTS[$i]}" "$@"
}

# nothing_moves [option...]: every queue is at home, by mqctl.
nothing_moves() {
	local i
	for i in "${!PORTS[@]}"; do
		[ "$(rebalance "$i" "$@")" = 0 ]
	done
}

@test "homes are those of php-memcached with OPT_LIBKETAMA_COMPATIBLE" {
	php -m | grep -qx memcached || skip "no php-memcached here"
	start_nodes 3
	php -r '
		$m = new Memcached;
		$m->setOption(Memcached::OPT_LIBKETAMA_COMPATIBLE, true);
		foreach (array_slice($argv, 1) as $port) $m->addServer("127.0.0.1", (int)$port, 1);
		for ($i = 0; $i < 300; $i++) $m->set("queue-$i", "x") or exit(1);
	' "${PORTS[@]}"
	local i
	for i in 0 1 2; do
		[ "$(node "$i" ls | wc -l)" -gt 50 ]
	done
	nothing_moves
	# With another hash it is not so: the test can fail.
	[ "$(rebalance 0 --unweighted)" -gt 20 ]
}

@test "homes are those of pylibmc, with ketama, and with weights" {
	"$PYTHON" -c 'import pylibmc' || skip "no pylibmc here"
	start_nodes 3
	"$PYTHON" - "${PORTS[@]}" <<-'END'
		import pylibmc, sys
		m = pylibmc.Client(["127.0.0.1:" + p for p in sys.argv[1:]], behaviors={"ketama": True})
		for i in range(300):
		    assert m.set("queue-%d" % i, "x")
	END
	nothing_moves --unweighted
	for i in 0 1 2; do
		[ "$(node "$i" ls | wc -l)" -gt 30 ]
		for q in $(node "$i" ls | awk 'NR > 1 {print $1}'); do rm -r "$SPOOL/n$i/$q"; done
	done
	"$PYTHON" - "${PORTS[@]}" <<-'END'
		import pylibmc, sys
		m = pylibmc.Client(["127.0.0.1:%s:%d" % (p, 1 + 2 * i) for i, p in enumerate(sys.argv[1:])],
		                   behaviors={"ketama_weighted": True})
		for i in range(300):
		    assert m.set("queue-%d" % i, "x")
	END
	SERVERS="127.0.0.1:${PORTS[0]}:1,127.0.0.1:${PORTS[1]}:3,127.0.0.1:${PORTS[2]}:5"
	nothing_moves
	[ "$(node 0 ls | wc -l)" -lt "$(node 2 ls | wc -l)" ]
}

@test "a fourth node: its queues move to it in order, while others push and take" {
	"$PYTHON" -c 'import pylibmc' || skip "no pylibmc here"
	start_nodes 4
	"$PYTHON" - "$BATS_TEST_TMPDIR" "${PORTS[@]}" <<-'END' &
		# 20 queues, each with a producer that goes on to 60 messages and changes to the four nodes in
		# the middle, after which consumers of the four read too; all is noted.
		import os, pylibmc, sys, time
		base, ports = sys.argv[1], sys.argv[2:]
		client = lambda n: pylibmc.Client(["127.0.0.1:" + p for p in ports[:n]], behaviors={"ketama_weighted": True})
		old, new = client(3), client(4)
		for i in range(30):
		    for q in range(20):
		        assert old.set("q%d" % q, "%d" % i)
		open(base + "/half", "w")
		while not os.path.exists(base + "/begun"):
		    time.sleep(0.01)
		with open(base + "/got", "w") as got:
		    for i in range(30, 60):
		        for q in range(20):
		            assert new.set("q%d" % q, "%d" % i)
		            if i % 3 == 0:
		                m = new.get("q%d" % q)
		                if m is not None:
		                    got.write("q%d %s\n" % (q, m))
		                    got.flush()
	END
	local traffic=$! i
	wait_for test -e "$BATS_TEST_TMPDIR/half"
	touch "$BATS_TEST_TMPDIR/begun"
	for i in 0 1 2; do rebalance "$i" >>"$BATS_TEST_TMPDIR/moved"; done
	wait "$traffic"
	for i in 0 1 2; do rebalance "$i" >>"$BATS_TEST_TMPDIR/moved"; done
	[ "$(awk '{n += $1} END {print n}' "$BATS_TEST_TMPDIR/moved")" -ge 60 ]
	"$PYTHON" - "$BATS_TEST_TMPDIR" "$SPOOL" <<-'END'
		import collections, os, sys
		base, spool = sys.argv[1:]
		found, homes = collections.defaultdict(list), collections.defaultdict(set)
		for line in open(base + "/got"):
		    q, n = line.split()
		    found[q].append(int(n))
		for node in range(4):
		    for q in os.listdir("%s/n%d" % (spool, node)):
		        for name in sorted(os.listdir("%s/n%d/%s" % (spool, node, q))) if q[0] == "q" else ():
		            if name[0] == "0":
		                found[q].append(int(open("%s/n%d/%s/%s" % (spool, node, q, name), "rb").read()[69:]))
		                homes[q].add(node)
		for q in range(20):
		    numbers = found["q%d" % q]
		    assert sorted(numbers) == list(range(60)), (q, numbers)
		    for half in (range(30), range(30, 60)):  # each producer's, in its order
		        part = [n for n in numbers if n in half]
		        assert part == sorted(part), (q, numbers)
		    assert len(homes["q%d" % q]) == 1, homes
		assert any(3 in h for h in homes.values())
	END
	nothing_moves
	for i in 0 1 2 3; do node "$i" check; done
}

@test "dead letters and children go with their queue; flags, expiry and large bodies are kept" {
	local i q home
	start_nodes 3
	head -c 300000 /dev/urandom >"$BATS_TEST_TMPDIR/big"
	for q in one two three; do
		printf 'set %s 9 4000000000 2\r\nab\r\n' "$q" | "$MQD" -H "$SPOOL/n0" >/dev/null
		printf x | node 0 put "$q.dead"
		printf x | node 0 put "$q+c"
		printf x | node 0 put "$q+c.dead"
		node 0 put "$q" <"$BATS_TEST_TMPDIR/big"
	done
	node 0 put 'o d' <"$BATS_TEST_TMPDIR/big"
	for i in 0 1 2; do node "$i" set / expire=yes; done
	node 0 rebalance --to "$SERVERS" --self "127.0.0.1:${PORTS[0]}" one two three one.dead two.dead three.dead one+c two+c three+c one+c.dead two+c.dead three+c.dead
	for q in one two three; do
		home=$(for i in 0 1 2; do [[ ! -e $SPOOL/n$i/$q/0000000000000001 ]] || echo "$i"; done)
		[ "${#home}" = 1 ]
		for i in "$q.dead" "$q+c" "$q+c.dead"; do
			[ -e "$SPOOL/n$home/$i/0000000000000001" ]
		done
		[ "$(head -c 42 "$SPOOL/n$home/$q/0000000000000001" | cut -c 32-)" = " 0000000009" ]
		node "$home" cat "$q" 2 | cmp - "$BATS_TEST_TMPDIR/big"
	done
	[ "$(find "$SPOOL" -name 0000000000000001 -path '*/o%20d/*')" = "$SPOOL/n0/o%20d/0000000000000001" ]
}

@test "a home that is down, or full: what was not stored is here still, and goes when it can" {
	local i total
	start_nodes 2
	for i in {1..20}; do printf '%d' "$i" | node 0 put "q$i"; done
	node 1 set / max_items=0 max_item_size=1
	run rebalance 0
	[ "$status" -eq 111 ]
	[[ $output == *"127.0.0.1:${PORTS[1]}: "*", run it again to go on"* ]]
	stop "${PIDS[1]}"
	run rebalance 0
	[ "$status" -eq 111 ]
	[[ $output == *"127.0.0.1:${PORTS[1]}: "*"0 were moved"* ]]
	node 1 set / max_item_size=
	start_node 1
	rebalance 0
	total=$(find "$SPOOL" -name '0*' -path '*/n?/q*/0*' | wc -l)
	[ "$total" = 20 ]
	[ "$(rebalance 0)" = 0 ]
	for i in '' '--to' '--to x --self y' '--to 127.0.0.1:1 --self 127.0.0.1:2' '--to 127.0.0.1:1:0 --self 127.0.0.1:1' '--what' '--to ,, --self x'; do
		# shellcheck disable=SC2086
		run node 0 rebalance $i
		[ "$status" -eq 100 ] || { echo "$i: $status"; false; }
	done
}

@test "one that is not there, or cannot be looked at, is told, and the others move" {
	start_nodes 1
	mkdir "$SPOOL/n9"
	local to=(rebalance --to "127.0.0.1:${PORTS[0]}:60000,nowhere:1:1" --self nowhere:1)
	printf x | node 9 put q
	run node 9 "${to[@]}" nothing q
	[ "$status" -eq 1 ]
	[[ $output == *"nothing: no such queue"*1 ]]
	printf x | node 9 put q
	mkdir -p "$SPOOL/n9/a/.state"
	run node 9 "${to[@]}"
	echo "$output"
	[ "$status" -eq 111 ]
	[[ $output == *"mqctl: a: "*1 ]]
	[ "$(node 0 get q; node 0 get q)" = xx ]
}

@test "a home that wants a password is given none, and no message for one" {
	local i user='joe secret'
	start_nodes 2
	stop "${PIDS[1]}"
	printf 'joe:%s\n' "$(openssl passwd -6 -salt abcdefgh secret)" >"$BATS_TEST_TMPDIR/passwords"
	chmod 600 "$BATS_TEST_TMPDIR/passwords"
	"$MQD" -N -H "$SPOOL/n1" -l 127.0.0.1 -p "${PORTS[1]}" -u root -Y "$BATS_TEST_TMPDIR/passwords" 3>&- &
	PIDS[1]=$!
	wait_for listening "${PORTS[1]}"
	for ((i = 0; i < 20; i++)); do
		printf '%s' "$user" | node 0 put "q$i"
	done
	run rebalance 0
	[ "$status" -eq 111 ]
	[[ $output == *"127.0.0.1:${PORTS[1]}: the server wants a password, and mqctl can give none"* ]]
	[ "$(node 0 ls | awk 'NR > 1 { n += $2 } END { print n }')" = 20 ]
	node 0 check
}

@test "two at once would mix up the order: the second is refused" {
	local port pid
	port=$(free_port)
	mkdir "$SPOOL/n9"
	"$BATS_TEST_DIRNAME/stand-in" "$port" 3>&- &
	PIDS=("$!")
	wait_for listening "$port"
	local to=(rebalance --to "127.0.0.1:$port:60000,nowhere:1:1" --self nowhere:1)
	printf x | node 9 put q
	kill -STOP "${PIDS[0]}"
	"$MQCTL" -H "$SPOOL/n9" "${to[@]}" >"$BATS_TEST_TMPDIR/moved" 3>&- &
	pid=$!
	has_begun() { [ -d "$SPOOL/n9/.import/rebalance" ] && ! flock --nonblock "$SPOOL/n9/.import/rebalance" true; }
	wait_for has_begun
	run node 9 "${to[@]}"
	kill -CONT "${PIDS[0]}"
	[ "$status" -eq 111 ]
	[[ $output == *"another mqctl is moving queues" ]]
	wait "$pid"
	[ "$(<"$BATS_TEST_TMPDIR/moved")" = 1 ]
	[ ! -e "$SPOOL/n9/.import" ]
	[ "$(node 9 "${to[@]}")" = 0 ]
}

@test "killed at system calls: nothing is lost, one message may be there twice" {
	native "strace cannot be nested"
	"$BATS_TEST_DIRNAME/kill-transfer" "$BATS_TEST_TMPDIR" rebalance "${KILL_EVERY:-19}"
}
