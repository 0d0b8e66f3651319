#!/usr/bin/env bats
# What mqctl http says on /metrics, read by a real Prometheus from three nodes, and what is asked of it:
# every query of etc/grafana.json, and the rules in etc/alerts.yml.

load helper

setup() {
	command -v prometheus >/dev/null || skip "no prometheus: tests/install-deps see"
	PIDS=()
}

teardown() {
	stop "${PIDS[@]}"
}

@test "the alerts are fired by what they are about, and by no less" {
	promtool check rules "$TOP/etc/alerts.yml"
	promtool test rules "$TOP/tests/alerts.yml"
}

@test "promtool finds nothing to complain about in the metrics" {
	mkdir -m 700 "$SPOOL"
	printf x | ctl put 'a"b\c'
	printf x | ctl put 'é %'
	start_mqd -o sync=full
	PIDS+=("$MQD_PID")
	talk_tcp <<-'END'
		> set q 0 0 1
		> x
		< STORED
		> set q 0 0 1
		> x
		< STORED
		> set q 0 0 1
		> x
		< STORED
	END
	ctl metrics >"$BATS_TEST_TMPDIR/metrics"
	grep -q '^mqd_log_flushes_total [1-9]' "$BATS_TEST_TMPDIR/metrics"
	grep -q '^mqd_connections_total [1-9]' "$BATS_TEST_TMPDIR/metrics"
	run promtool check metrics <"$BATS_TEST_TMPDIR/metrics"
	echo "$output"
	[ "$status" -eq 0 ]
	[ -z "$output" ]
}

# asked URL QUERY: how many series the answer has.
asked() {
	"$PYTHON" - "$1" "$2" <<'END'
import json, sys, urllib.parse, urllib.request
answer = urllib.request.urlopen(f"{sys.argv[1]}/api/v1/query?" + urllib.parse.urlencode({"query": sys.argv[2]}))
print(len(json.load(answer)["data"]["result"]))
END
}

has() {
	[[ $(asked "$1" "$2") == "$3" ]]
}

@test "three nodes are scraped, and every query of the dashboard has an answer" {
	native "Prometheus does not wait"
	local i dir port targets='' url query n=0 unanswered=''
	for i in 1 2 3; do
		SPOOL=$BATS_TEST_TMPDIR/spool$i
		mkdir -m 700 "$SPOOL"
		start_mqd -o sync=full
		PIDS+=("$MQD_PID")
		talk_tcp <<-'END'
			> set q4 0 0 1
			> x
			< STORED
			> set q4 0 0 1
			> x
			< STORED
			> get q4
			< VALUE q4 0 1
			< x
			< END
		END
		port=$(free_port)
		tcpserver -HRDl0 127.0.0.1 "$port" "$MQCTL" -H "$SPOOL" http 3>&- &
		PIDS+=("$!")
		wait_for listening "$port"
		targets+="${targets:+, }'127.0.0.1:$port'"
	done
	dir=$BATS_TEST_TMPDIR/prometheus
	mkdir "$dir"
	cat >"$dir/prometheus.yml" <<-END
		global: {scrape_interval: 1s, evaluation_interval: 1s}
		rule_files: [$TOP/etc/alerts.yml]
		scrape_configs:
		- job_name: mqd
		  static_configs: [{targets: [$targets]}]
	END
	promtool check config "$dir/prometheus.yml"
	port=$(free_port)
	url=http://127.0.0.1:$port
	prometheus --config.file="$dir/prometheus.yml" --storage.tsdb.path="$dir/data" \
		--web.listen-address="127.0.0.1:$port" >"$dir/log" 2>&1 3>&- &
	PIDS+=("$!")
	wait_for has "$url" 'up{job="mqd"} == 1' 3
	wait_for has "$url" 'count_over_time(mqd_queue_waiting_messages{queue="q4"}[1m]) >= 4' 3
	has "$url" 'mqd_queue_waiting_messages{queue="q4"} == 1' 3
	while read -r query; do
		n=$((n + 1))
		[[ $(asked "$url" "$query") -gt 0 ]] || unanswered+="$query"$'\n'
	done < <("$PYTHON" -c '
import json, sys
for panel in json.load(open(sys.argv[1]))["panels"]:
    for target in panel["targets"]:
        print(target["expr"].replace("$__rate_interval", "1m").replace("$instance", ".*").replace("$queue", ".*"))
' "$TOP/etc/grafana.json")
	echo "unanswered: $unanswered"
	[ -z "$unanswered" ]
	[ "$n" -ge 20 ]
	# The rules are evaluated, and nothing is wrong here.
	[ "$(asked "$url" 'ALERTS{alertstate="firing"}')" = 0 ]
	if grep -E 'level=(warn|error)' "$dir/log"; then false; fi
}
