"""report: what was measured, as text, as Markdown and as plots.

Everything here reads the dictionary that bench/run leaves in build/bench.json and nothing else.
"""

import os
import pathlib
import re
import statistics
import subprocess

import places
import scenarios
from places import TOP

HERE = TOP / "bench"


def machine():
    """What must be known of it to read the figures; nothing that tells which one it is."""
    cpuinfo = pathlib.Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*:\s*(.*)", cpuinfo, re.M)
    cores = len(re.findall(r"^processor", cpuinfo, re.M))
    memory = int(re.search(r"MemTotal:\s+(\d+)", pathlib.Path("/proc/meminfo").read_text())[1])
    release = pathlib.Path("/proc/sys/kernel/osrelease").read_text()
    release = re.match(r"[\d.]+", release)[0]
    system = re.search(r'PRETTY_NAME="(.*)"', pathlib.Path("/etc/os-release").read_text())
    return [("processor", model[1] if model else "unknown"), ("cores", str(cores)),
            ("memory", "%.0f GiB" % (memory / (1 << 20))), ("kernel", "Linux " + release),
            ("system", system[1] if system else "unknown"),
            ("load when this began", "%.2f" % os.getloadavg()[0])]


# Figures. Medians over the rounds, with the smallest and the largest.


class Figure:
    def __init__(self, values):
        self.median = statistics.median(values)
        self.least, self.most = min(values), max(values)

    def show(self, form):
        return "%s (%s-%s)" % tuple(form(x) for x in (self.median, self.least, self.most))


def values(scenario, label, key):
    return [run[key] for run in scenario["entries"].get(label, {"runs": []})["runs"]
            if key in run]


def figure(scenario, label, key):
    found = values(scenario, label, key)
    return Figure(found) if found else None


def ratio(scenario, label, reference, key="ops_s"):
    """Round by round, then as any figure."""
    pairs = list(zip(values(scenario, label, key), values(scenario, reference, key)))
    return Figure([a / b for a, b in pairs if b]) if pairs else None


def whole(x):
    return format(round(x), ",")


def part(x):
    return "%.2f" % x if x < 10 else "%.0f" % x


def option(load, name, default):
    return load[load.index(name) + 1] if name in load else default


# Tables, as lists of rows; the first is the head.


def rate_table(scenario):
    body = int(option(scenario["load"], "-b", "100"))
    head = ["", "ops/s", "least", "most", "p50 us", "p99", "p99.9"]
    if body >= 1000:
        head.insert(1, "MB/s")
    against = [name for name in (scenario["reference"], scenario["floor"]) if name]
    head += ["of " + name for name in against]
    rows = [head]
    for label in scenario["entries"]:
        rate = figure(scenario, label, "ops_s")
        if rate is None:
            continue
        row = [label, whole(rate.median), whole(rate.least), whole(rate.most)]
        if body >= 1000:
            row.insert(1, whole(rate.median * body / 1e6))
        for key in ("all_p50", "all_p99", "all_p999"):
            latency = figure(scenario, label, key)
            row.append(whole(latency.median) if latency else "-")
        for reference in against:
            of = ratio(scenario, label, reference)
            row.append(of.show(part) if of and label != reference else "-")
        rows.append(row)
    return rows


def crowd_table(scenario):
    """... with how long it took until somebody served each of the connections."""
    head, *rows = rate_table(scenario)
    ready = [figure(scenario, row[0], "ready_ms") for row in rows]
    return [[*head, "all served after ms"],
            *([*row, time.show(whole)] for row, time in zip(rows, ready))]


def pss_table(scenario):
    rows = [["", "KiB", "least", "most", "processes"]]
    for label in scenario["entries"]:
        size = figure(scenario, label, "pss")
        if size is not None:
            rows.append([label, *(part(x) for x in (size.median, size.least, size.most)),
                         whole(figure(scenario, label, "workers").median)])
    return rows


def churn_table(scenario):
    rows = [["seconds", "", "ops/s", "pushes/s, while pushing", "pops/s, while popping"]]
    for label, entry in scenario["entries"].items():
        for run in entry["runs"]:
            rows += [["%d-%d" % (i["from"], i["to"]), label, whole(i["ops_s"]),
                      whole(i["push_s"]), whole(i["pop_s"])] for i in run["intervals"]]
            rows.append(["worst of best", label, part(run["worst_of_best"]), "", ""])
    return rows


TABLES = {"rate": rate_table, "crowd": crowd_table, "part": rate_table, "pss": pss_table,
          "churn": churn_table}


def text_table(rows):
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
        lines.append("  " + "  ".join(cells).rstrip())
    return "\n".join(lines)


def markdown_table(rows):
    head, *rest = rows
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rest]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines)


def heading(scenario, kinds):
    return "%s; %s (%s)" % (scenario["title"], places.SHORT[scenario["place"]],
                            kinds[scenario["place"]])


def failures(scenario):
    return ["FAILED: %s: %s" % item for item in scenario["failures"].items()]


def text(scenario, kinds):
    """A scenario, to be printed."""
    return "\n".join(["", "%s: %s" % (scenario["name"], heading(scenario, kinds)),
                      text_table(TABLES[scenario["kind"]](scenario)), *failures(scenario)])


# Targets.


def look_up(results, wanted):
    """The Figure of a scenarios.Ratio; None if it was not measured."""
    for scenario in results["scenarios"]:
        if wanted and scenario["name"] == wanted.scenario:
            if wanted.reference is None:
                return figure(scenario, wanted.entry, wanted.key)
            return ratio(scenario, wanted.entry, wanted.reference, wanted.key)
    return None


def verdict(target, measured):
    if measured is None:
        return "not measured"
    sign = -1 if target.lower else 1
    if sign * measured.median >= sign * target.hope:
        return "holds, and the hope"
    return "holds" if sign * measured.median >= sign * target.at_least else "does not hold"


def targets_table(results):
    rows = [["workload, 100 B", "prototype", "at least", "hope", "measured", "floor", ""]]
    for target in scenarios.targets():
        measured, floor = look_up(results, target.measured), look_up(results, target.floor)
        limit = "at most " if target.lower else ""
        rows.append([target.workload + (" (%s)" % target.note if target.note else ""),
                     target.prototype, limit + part(target.at_least), part(target.hope),
                     measured.show(part) if measured else "-",
                     part(floor.median) if floor else "-", verdict(target, measured)])
    return rows


def targets_text(results):
    measured = targets_table(results)
    if len(measured) > 1:
        rows = [row for row in measured if row[-1] != "not measured"]
        absent = [row[0] for row in measured if row[-1] == "not measured"]
        lines = ["", "targets; medians over the rounds (least-most)", text_table(rows)]
        if absent:
            lines.append("  %d others were not measured" % len(absent))
        return "\n".join(lines)
    return ""


# Plots.


def quoted(words):
    return "'" + words.replace("'", "''") + "'"


def plot(name, title, settings, series, style):
    """series: (label, rows of numbers)."""
    script = ["set terminal svg size 760,440 dynamic background 'white' font 'sans-serif,12'",
              "set output " + quoted(str(HERE / "plots" / (name + ".svg"))),
              "set title %s noenhanced" % quoted(title), "set grid", "set key outside right",
              "set yrange [0:*]", *settings]
    curves = []
    for number, (label, rows) in enumerate(series):
        script += ["$data%d << END" % number, *(" ".join(map(str, row)) for row in rows), "END"]
        curves.append("$data%d %s title %s noenhanced" % (number, style, quoted(label)))
    script.append("plot " + ", ".join(curves))
    subprocess.run(["gnuplot"], input="\n".join(script) + "\n", text=True, check=True)
    return "![%s](plots/%s.svg)" % (title, name)


def over(results, prefix, suffix, key):
    """Scenarios of one series, by the number in their name: (label, [(n, median, least, most)])."""
    found = {}
    for scenario in results["scenarios"]:
        match = re.fullmatch(prefix + r"(\d+)" + suffix, scenario["name"])
        for label in scenario["entries"] if match else []:
            shown = figure(scenario, label, key)
            if shown:
                scale = int(match[1]) / 1e6 if key == "bytes" else 1
                found.setdefault(label, []).append(
                    (int(match[1]), *(x * scale for x in (shown.median, shown.least, shown.most))))
    return [(label, rows) for label, rows in found.items() if len(rows) > 1]


def plots(results):
    """Returns the Markdown that shows them."""
    lines = []
    by_connections = ["set logscale x", "set xlabel 'connections'"]
    lines_with_spread = "using 1:2:3:4 with yerrorlines pointtype 7 pointsize 0.5"
    for place, kind in results["places"].items():
        for prefix, what in (("alternate", "not durable"), ("durable", "durable")):
            for key, unit in (("ops_s", "operations/s"), ("all_p99", "p99, us")):
                series = over(results, prefix + "-", "-" + place, key)
                if series:
                    scale = ["set logscale y", "set yrange [*:*]"] if key == "all_p99" else []
                    lines.append(plot(
                        "%s-%s-%s" % (prefix, place, "rate" if key == "ops_s" else "p99"),
                        "%s: push and pop, %s, 100 B, on %s" % (unit, what, kind),
                        [*by_connections, *scale, "set ylabel %s" % quoted(unit)], series,
                        lines_with_spread))
    sizes = over(results, "size-", "", "ops_s")
    if sizes:
        sizes = [(label, [(n, *(x * n / 1e6 for x in rest)) for n, *rest in rows])
                 for label, rows in sizes]
        lines.append(plot("sizes", "MB/s by the size of a message, 1 connection, not durable",
                          ["set logscale xy", "set yrange [*:*]", "set xlabel 'bytes'",
                           "set ylabel 'MB/s'"], sizes, lines_with_spread))
    for scenario in results["scenarios"]:
        for label, entry in scenario["entries"].items():
            if scenario["kind"] == "churn" and entry["runs"]:
                rows = [(i["to"], i["push_s"], i["pop_s"])
                        for i in entry["runs"][0]["intervals"]]
                lines.append(plot(
                    scenario["name"], "bursts and drains, not durable, on %s"
                    % results["places"][scenario["place"]],
                    ["set xlabel 's'", "set ylabel 'operations/s'"],
                    [("pushes", [row[:2] for row in rows]), ("pops", [row[::2] for row in rows])],
                    "using 1:2 with linespoints pointtype 7 pointsize 0.5"))
    return lines


# RESULTS.md


def commands(results):
    """Each server's command once, then the generator's for each entry."""
    shown = []
    for scenario in results["scenarios"]:
        for entry in scenario["entries"].values():
            for command in entry["commands"] or []:
                if command and command not in shown:
                    shown.append(command)
    return shown


def write(results):
    """bench/RESULTS.md and bench/plots/."""
    (HERE / "plots").mkdir(exist_ok=True)
    kinds = results["places"]
    lines = [
        "# What was measured", "",
        "Written by `make bench%s` on %s, which took %d s. Every figure is the median of %d rounds "
        "of %s s, with the least and the most; the servers of a table ran in turn within each "
        "round, and a ratio is taken within a round. The same generator drove all of them, over "
        "loopback, on the same cores; it checked each reply and each body. Each server's directory "
        "is in an ext4 block group of its own, or else one would pay for what another deleted "
        "(bench/places.py)." % (
            " BENCH=long" if results["long"] else "", results["date"], results["took"],
            results["rounds"], results["seconds_each"]), "",
        markdown_table([["machine", ""], *map(list, results["machine"]),
                        *([places.SHORT[name], kind] for name, kind in kinds.items())]), "",
        markdown_table([["program", "version"], *map(list, results["versions"])]), "",
        "## Targets", "",
        "On the machine's own disk where nothing else is said. \"Not durable\" is `mqd -N`. The "
        "floor is what a program reaches in mqd's place that stores nothing (or does nothing but "
        "the system calls; where nothing is durable, \"ordered\": one that has a process for "
        "each connection, a file for each message and a counter under flock for their order, "
        "without check, limit or repair); a target that it misses itself is out of reach. "
        "\"files\" in the tables is the same without counter and lock.",
        "", markdown_table(targets_table(results)), "",
        "## Plots", "", "\n\n".join(plots(results)), "", "## Tables", "",
        "Latencies are in microseconds, of pushes and pops together.", ""]
    for scenario in results["scenarios"]:
        lines += ["**%s**: %s" % (scenario["name"], heading(scenario, kinds)), "",
                  markdown_table(TABLES[scenario["kind"]](scenario)), "", *failures(scenario)]
    lines += ["## Commands", "",
              "DIR is a new directory for each, PORT a free port; under xinetd the configuration "
              "is etc/mqd.xinetd with the command, the port and the user replaced.", "", "```",
              *commands(results), "```", ""]
    (HERE / "RESULTS.md").write_text("\n".join(lines))
