# The results as Markdown and CSV, and the few lines that close a run.
import csv
import datetime
import os
import platform

from peers import PEERS, Peer
from scenarios import EFFORT

GROUP_TITLES = {
    "schema": "32 small tables",
    "tables": "Against the number of tables",
    "size": "Against the size of the database",
    "rows": "Against the rows that the test changed",
}
GROUP_TEXTS = {
    "schema": "50 rows in each table. A test changes 5 tables: in each 2 rows inserted, 1 updated, 1 deleted.",
    "tables": "50 rows in a table, every second group of 5 tables empty. The same test.",
    "size": "20 tables of equal size. The same test.",
    "rows": "20 tables, {size} together. A test updates so many rows, at even distances and spread over all tables.",
}


def processor():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def head(cluster, revision, mode):
    admin = cluster.admin
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    version = admin.value("SELECT version()")
    extension = admin.value("SELECT default_version FROM pg_available_extensions WHERE name = 'testenv'")
    return {
        "server": " ".join(version.split()[:2]),
        "lines": [
            ("date", datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")),
            ("testenv", f"{extension}, commit {revision}"),
            ("server", version.split(" on ")[0] + (", with assertions: no time here is that of a release"
                                                   if admin.value("SHOW debug_assertions") == "on" else "")),
            ("processor", f"{processor()}, {os.cpu_count()} cores; {memory / 1024**3:.0f} GB of memory"),
            ("system", f"{platform.system()} {platform.release()}"),
            ("load before", f"{os.getloadavg()[0]:.2f}"),
            ("settings", ", ".join(f"{name} = {value}" for name, value in cluster.settings())),
            ("mode", f"BENCH={mode}" if mode != "default" else "BENCH not set"),
        ],
    }


def head_markdown(information):
    return ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in information["lines"]), ""]


def number(nanoseconds):
    value = nanoseconds / 1e6
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def groups_of(results):
    found = {}
    for result in results:
        found.setdefault(result.scenario.group, {}).setdefault(result.scenario, []).append(result)
    return found


def full_table(scenario_results):
    """One scenario: a line for each method, the fastest first."""
    lines = ["| method | median ms | 95th percentile ms | runs | |", "|---|---:|---:|---:|---|"]
    measured = sorted((r for r in scenario_results if r.sample), key=lambda r: r.sample.median)
    for result in measured:
        remark = "; ".join(filter(None, [result.note, "detector: " + ", ".join(result.detectors) if result.detectors else ""]))
        name = f"**{result.method.title}**" if result.method.key == "restore" else result.method.title
        lines.append(f"| {name} | {number(result.sample.median)} | {number(result.sample.p95)} | {result.sample.runs} | {remark} |")
    for result in scenario_results:
        if not result.sample:
            lines.append(f"| {result.method.title} | | | | {result.note} |")
    return [*lines, ""]


def cell(result):
    if result is None:
        return ""
    if result.sample is None:
        return "-"
    few = f" ({result.sample.runs})" if result.sample.runs < 20 else ""
    return f"{number(result.sample.median)} / {number(result.sample.p95)}{few}"


def axis_table(scenarios):
    """Several scenarios: a line for each method, a column for each place on the axis."""
    columns = list(scenarios)
    methods = []
    for results in scenarios.values():
        methods.extend(r.method for r in results if r.method not in methods)
    lines = ["| method | " + " | ".join(s.title for s in columns) + " |", "|---|" + "---:|" * len(columns)]
    notes = []
    for method in methods:
        found = [next((r for r in scenarios[s] if r.method is method), None) for s in columns]
        name = f"**{method.title}**" if method.key == "restore" else method.title
        lines.append(f"| {name} | " + " | ".join(cell(result) for result in found) + " |")
        notes.extend(f"- {method.title}, {r.scenario.title}: {r.note}" for r in found if r and r.note)
    return [*lines, "", "Median / 95th percentile in milliseconds; in brackets the number of runs where they were fewer than 20.", "",
            *(notes + [""] if notes else [])]


def peer_lines():
    lines = []
    for package in dict.fromkeys(peer.package for peer in PEERS):
        peer = next(p for p in PEERS if p.package == package)
        if package in Peer.versions:
            lines.append(f"- {package.replace('_', '-')} {Peer.versions[package]}")
        else:
            lines.append(f"- {package.replace('_', '-')}: not measured; {peer.missing() or 'it did not start'}")
    return [*lines, ""]


def manual(mode):
    """The way there from the folder of the results."""
    return ("../" if mode == "quick" else "") + "../../doc/performance.md"


def write_results(path, information, results, drawn, mode):
    effort = EFFORT[mode]
    lines = ["# Resets side by side", "", "Written by `make bench`; how each figure is measured, and what each method loses, is in "
             f"[doc/performance.md]({manual(mode)}).", "", *head_markdown(information),
             f"Each method has {effort.seconds:g} seconds, at least 5 runs and at most {effort.most_runs}. One whose single run takes more "
             f"than {effort.slowest:g} s, less where the whole would take too long, is left out and named.", "", "Peers, each with its own code:", "", *peer_lines()]
    for group, scenarios in groups_of(results).items():
        shape = next(iter(scenarios)).shape
        size = f"some {shape.rows * 545 * shape.tables / 1048576:.0f} MB"
        lines += [f"## {GROUP_TITLES[group]}", "", GROUP_TEXTS[group].format(size=size), ""]
        if group in drawn:
            lines += [f"![{GROUP_TITLES[group]}]({drawn[group]})", ""]
        if group == "schema":
            for scenario, found in scenarios.items():
                lines += [f"### {scenario.title}", "", *full_table(found)]
        else:
            lines += ["fsync off.", "", *axis_table(scenarios)]
    write_lines(f"{path}.md", lines)
    write_csv(f"{path}.csv", information, results)


def write_csv(path, information, results):
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["server", "group", "x", "database", "fsync", "method", "runs", "median_ms", "p95_ms", "min_ms", "detectors", "note"])
        for r in results:
            figures = [r.sample.runs, *(f"{v / 1e6:.4f}" for v in (r.sample.median, r.sample.p95, r.sample.fastest))] if r.sample else [0, "", "", ""]
            writer.writerow([information["server"], r.scenario.group, f"{r.scenario.x:g}", r.scenario.title,
                             "on" if r.scenario.fsync else "off", r.method.key, *figures, " ".join(r.detectors), r.note])


def write_lines(path, lines):
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(lines).rstrip("\n") + "\n")


def write_bars(path, information, rows):
    lines = ["# The bars", "", "Written by `make bench`. Medians of one run on one machine; how each is measured is in "
             "[doc/performance.md](../../doc/performance.md).", "", *head_markdown(information)]
    for fsync in (True, False):
        lines += [f"## fsync {'on' if fsync else 'off'}", "", "| case | bar | measured | | |", "|---|---|---|---|---|"]
        for row in rows:
            if row.fsync == fsync:
                verdict = {True: "met", False: "**missed**", None: ""}[row.met]
                lines.append(f"| {row.case} | {row.bar} | {row.measured} | {verdict} | {row.note.strip('; ')} |")
        lines.append("")
    write_lines(f"{path}.md", lines)
    with open(f"{path}.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["server", "case", "bar", "fsync", "measured", "verdict", "note"])
        for row in rows:
            writer.writerow([information["server"], row.case, row.bar, "on" if row.fsync else "off", row.measured,
                             {True: "met", False: "missed", None: ""}[row.met], row.note.strip("; ")])


def summary(results):
    """What a reader in a hurry wants: the first database, fastest first."""
    first = next(iter(groups_of(results).values()))
    lines = []
    for scenario, found in first.items():
        lines += ["", f"  {scenario.title}: from the end of a test to the first answer in the next, ms", f"  {'':<34}{'median':>10}{'p95':>10}"]
        for r in sorted((r for r in found if r.sample), key=lambda r: r.sample.median):
            lines.append(f"  {r.method.title:<34}{number(r.sample.median):>10}{number(r.sample.p95):>10}  {r.note}")
        lines += [f"  {r.method.title:<34}{r.note}" for r in found if not r.sample]
    return "\n".join([*lines, ""])


def bars_summary(rows):
    met, missed = (sum(row.met is verdict for row in rows) for verdict in (True, False))
    return f"\n  bars: {met} met, {missed} missed, {len(rows) - met - missed} not decided\n"
