#!/usr/bin/env bats
# Three mqd that know nothing of each other, each in a network namespace of the test's own, and a
# fourth namespace in which the clients are, and nutcracker: all on 10.0.0.0/24, which no other can
# reach. Queues are spread over them by the clients.

load helper

setup() {
	local i
	[[ $EUID -eq 0 ]] || skip "network namespaces need root"
	NET=mqd$$
	HUB=$NET-hub
	PIDS=() PROXY_PID='' NETS=()
	mkdir -p "$SPOOL"
	ip netns add "$HUB" 2>/dev/null || skip "no network namespaces here"
	NETS=("$HUB")
	ip -n "$HUB" link set lo up
	ip -n "$HUB" link add name hub0 type bridge 2>/dev/null || skip "no bridges here"
	ip -n "$HUB" addr add 10.0.0.254/24 dev hub0
	ip -n "$HUB" link set hub0 up
	for i in 1 2 3; do
		ip netns add "$NET-$i"
		NETS+=("$NET-$i")
		ip -n "$HUB" link add "v$i" type veth peer name eth0 netns "$NET-$i"
		ip -n "$HUB" link set "v$i" master hub0 up
		ip -n "$NET-$i" addr add "10.0.0.$i/24" dev eth0
		ip -n "$NET-$i" link set eth0 up
		start_node "$i"
	done
}

teardown() {
	local net
	stop "${PIDS[@]}" $PROXY_PID
	for net in "${NETS[@]}"; do
		ip netns delete "$net"
	done
}

# at_hub CMD...: where the clients are.
at_hub() {
	ip netns exec "$HUB" "$@"
}

reachable() {
	at_hub bash -c "exec 3<>/dev/tcp/$1/$2" 2>/dev/null
}

start_node() {
	mkdir -p "$SPOOL/n$1"
	ip netns exec "$NET-$1" "$MQD" -N -H "$SPOOL/n$1" -l "10.0.0.$1" -p 22201 -u root 3>&- &
	PIDS[$1]=$!
	wait_for reachable "10.0.0.$1" 22201
}

stop_node() {
	stop "${PIDS[$1]}"
}

node() {
	local i=$1
	shift
	"$MQCTL" -H "$SPOOL/n$i" "$@"
}

# client php|python SCRIPT: a client library's, with the three nodes in $m or m.
client() {
	if [[ $1 == php ]]; then
		at_hub php -r '
			function client() {
				$m = new Memcached;
				$m->setOption(Memcached::OPT_LIBKETAMA_COMPATIBLE, true);
				foreach ([1, 2, 3] as $i) $m->addServer("10.0.0.$i", 22201, 1);
				return $m;
			}
			$m = client();'"$2"
	else
		at_hub "$PYTHON" -c '
import pylibmc, sys
m = pylibmc.Client(["10.0.0.%d:22201" % i for i in (1, 2, 3)], behaviors={"ketama_weighted": True})
'"$2"
	fi
}

# waiting: how many messages are in all nodes; waiting I: in that.
waiting() {
	find "$SPOOL" -type f -name '0*' -path "$SPOOL/n${1:-*}/*/0*" -not -path '*/.claim/*' | wc -l
}

@test "php-memcached and pylibmc find the same homes; a node that is stopped fails its own queues alone" {
	php -m | grep -qx memcached || skip "no php-memcached here"
	local i down
	# Each pushes 90, and all arrive.
	client php 'for ($i = 0; $i < 90; $i++) $m->set("q$i", "php $i") or exit(1);'
	client python 'for i in range(90): assert m.set("q%d" % i, "python %d" % i)'
	[ "$(waiting)" = 180 ]
	for i in 1 2 3; do [ "$(waiting "$i")" -gt 20 ]; done
	[ "$(node 1 ls | awk 'NR > 1 && $2 != 2')" = "" ] # both went to the same one

	down=$(waiting 2)
	stop_node 2
	# Each set of its queues is an error that the client is told of; all others work.
	client php '
		$failed = 0;
		for ($i = 0; $i < 90; $i++)
			if (!$m->set("q$i", "late $i")) {
				$failed++;
				if ($m->getResultCode() == Memcached::RES_SUCCESS) exit(1);
			}
		echo $failed;' >"$BATS_TEST_TMPDIR/failed"
	[ "$(<"$BATS_TEST_TMPDIR/failed")" -eq $((down / 2)) ]
	[ "$(waiting)" -eq $((180 + 90 - down / 2)) ]
}

@test "what waited in a node that was stopped is there when it is back: every message accounted for" {
	client python '
for i in range(90):
    for n in range(3):
        assert m.set("q%d" % i, "%d" % n)
'
	[ "$(waiting)" = 270 ]
	local before
	before=$(waiting 2)
	stop_node 2
	client python '
import json
failed, stored, got = [], [], []
for i in range(90):
    try:
        (stored if m.set("q%d" % i, "3") else failed).append(i)
    except pylibmc.Error:
        failed.append(i)
for i in range(90):
    try:
        v = m.get("q%d" % i)
        assert v == "0", v
        got.append(i)
    except pylibmc.Error:
        assert i in failed
assert sorted(stored + failed) == list(range(90)) and got == stored and len(failed) > 20, failed
print(len(failed), len(stored))
' >"$BATS_TEST_TMPDIR/out"
	read -r failed stored <"$BATS_TEST_TMPDIR/out"
	[ "$before" -eq $((3 * failed)) ]
	start_node 2
	client python '
left = 0
for i in range(90):
    first = m.get("q%d" % i)
    values = [first]
    while values[-1] is not None:
        values.append(m.get("q%d" % i))
    assert values in (["1", "2", "3", None], ["0", "1", "2", None]), values
    left += len(values) - 1
print(left)
' >"$BATS_TEST_TMPDIR/out"
	[ "$(<"$BATS_TEST_TMPDIR/out")" = 270 ]
	[ "$(waiting)" = 0 ]
}

@test "pushes through nutcracker with etc/nutcracker.yml, pops from the nodes" {
	[[ -x /usr/sbin/nutcracker ]] || skip "no nutcracker here"
	at_hub nutcracker --test-conf -c "$TOP/etc/nutcracker.yml"
	# Not by at_hub: what has the process id shall be nutcracker, and no shell that waits for it.
	ip netns exec "$HUB" nutcracker -c "$TOP/etc/nutcracker.yml" -a 127.0.0.1 -s 22222 -o "$BATS_TEST_TMPDIR/nutcracker.log" 3>&- &
	PROXY_PID=$!
	wait_for reachable 127.0.0.1 22121
	cat >"$BATS_TEST_TMPDIR/push" <<-'END'
		import socket, sys
		s = socket.create_connection(("127.0.0.1", 22121), 10)
		f = s.makefile("rb")
		stored = failed = 0
		for i in range(int(sys.argv[1]), int(sys.argv[2])):
		    s.sendall(b"set q%d 0 0 5\r\n%05d\r\n" % (i % 60, i))
		    line = f.readline()
		    assert line == b"STORED\r\n" or line.startswith(b"SERVER_ERROR "), line
		    stored, failed = stored + (line[:6] == b"STORED"), failed + (line[:6] != b"STORED")
		print(stored, failed)
	END
	[ "$(at_hub "$PYTHON" "$BATS_TEST_TMPDIR/push" 0 300)" = "300 0" ]
	[ "$(waiting)" = 300 ]
	# With its own hash tag a queue keeps its home when an option stands behind it.
	printf 'set {tag} 0 0 1\r\na\r\nset {tag}/delay=300 0 0 1\r\nb\r\n' | at_hub timeout 1 bash -c 'exec 3<>/dev/tcp/127.0.0.1/22121; cat >&3; head -n 2 <&3'
	[ "$(find "$SPOOL" -type d -name '{tag}' | wc -l)" = 1 ]
	# These are the homes that mqctl knows, too.
	local i
	for i in 1 2 3; do
		[ "$(waiting "$i")" -gt 30 ]
		rm -r "$SPOOL/n$i/"*tag* 2>/dev/null || :
		[ "$(at_hub "$MQCTL" -H "$SPOOL/n$i" rebalance --to 10.0.0.1:22201,10.0.0.2:22201,10.0.0.3:22201 --self "10.0.0.$i:22201")" = 0 ]
	done
	# A node that is down: an error for each of its pushes, and no second home for them.
	local down stored failed
	down=$(waiting 3)
	stop_node 3
	read -r stored failed < <(at_hub "$PYTHON" "$BATS_TEST_TMPDIR/push" 300 600)
	[ "$failed" -eq "$down" ]
	[ "$(waiting)" -eq $((300 + stored)) ]
	start_node 3
	wait_for proxied
	# Consumers at the nodes themselves: each queue in its order, and all of them.
	at_hub "$PYTHON" - <<-'END' >"$BATS_TEST_TMPDIR/out"
		import collections, socket
		got = collections.defaultdict(list)
		for node in (1, 2, 3):
		    s = socket.create_connection(("10.0.0.%d" % node, 22201), 10)
		    f = s.makefile("rb")
		    for q in range(60):
		        while True:
		            s.sendall(b"get q%d\r\n" % q)
		            if f.readline() == b"END\r\n":
		                break
		            got[q].append(f.readline()[:-2])
		            f.readline()
		assert all(v == sorted(v) for v in got.values()), got
		print(sum(map(len, got.values())))
	END
	[ "$(<"$BATS_TEST_TMPDIR/out")" -eq $((300 + stored + 1)) ]
	[ "$(waiting)" = 0 ]
}

# proxied: nutcracker stores in node 3 again, one message of a queue that is at home there.
proxied() {
	local q
	q=$(find "$SPOOL/n3" -name 0000000000000001 -path '*/q*' -print -quit)
	q=$(basename "$(dirname "$q")")
	printf 'set %s 0 0 5\r\n99999\r\n' "$q" | at_hub timeout 5 bash -c 'exec 3<>/dev/tcp/127.0.0.1/22121; cat >&3; head -n 1 <&3' | grep -q STORED
}

@test "one hot queue over all nodes: pushed to any, read from all, each message once" {
	at_hub "$PYTHON" - <<-'END'
		import collections, random, socket
		nodes = [socket.create_connection(("10.0.0.%d" % i, 22201), 10) for i in (1, 2, 3)]
		files = [s.makefile("rb") for s in nodes]
		for i in range(300):
		    n = random.randrange(3)
		    nodes[n].sendall(b"set hot 0 0 3\r\n%03d\r\n" % i)
		    assert files[n].readline() == b"STORED\r\n"
		got, empty = [], set()
		while len(empty) < 3:
		    n = random.choice([i for i in range(3) if i not in empty])
		    nodes[n].sendall(b"get hot\r\n")
		    if files[n].readline() == b"END\r\n":
		        empty.add(n)
		        continue
		    got.append((n, files[n].readline()[:-2]))
		    files[n].readline()
		assert sorted(v for _, v in got) == [b"%03d" % i for i in range(300)]
		for n in range(3):  # in order where it was pushed, and in none together
		    part = [v for m, v in got if m == n]
		    assert part == sorted(part)
		assert [v for _, v in got] != sorted(v for _, v in got)
	END
}
