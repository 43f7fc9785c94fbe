# make bench, the part in Python: run.sh has made the cluster and calls this.
#
#   bench.py --mode quick|bars|full|default --copy DIR --out DIR --peers DIR --revision TEXT
#
# The server is found by PGHOST, PGPORT and PGUSER.  Each part's results are
# written as soon as it is through.
import argparse
import os

import bars
import plots
import report
import scenarios
from cluster import Cluster
from peers import Peer
from progress import Progress


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--mode", choices=("quick", "bars", "full", "default"), required=True)
    parser.add_argument("--copy", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--peers", required=True)
    parser.add_argument("--revision", required=True)
    return parser.parse_args()


def compare(cluster, mode, options, progress, scenario_list, keep):
    head = report.head(cluster, options.revision, mode)
    results = scenarios.run(cluster, scenario_list, scenarios.EFFORT[mode], progress, keep)
    drawn = plots.draw_all(results, head["server"], options.out)
    report.write_results(os.path.join(options.out, "results"), head, results, drawn, mode)
    print(report.summary(results))


def hold_to_bars(cluster, mode, options, progress, groups):
    head = report.head(cluster, options.revision, mode)
    rows = bars.run(cluster, groups, progress)
    report.write_bars(os.path.join(options.out, "bars"), head, rows)
    print(report.bars_summary(rows))


def main():
    options = arguments()
    Peer.peers_dir = options.peers
    cluster = Cluster(options.copy)
    mode = options.mode
    scenario_list = [] if mode == "bars" else scenarios.plan(mode)
    groups = [] if mode == "quick" else bars.GROUPS
    progress = Progress([s.weight for s in scenario_list] + [group.weight for group in groups])
    if scenario_list:
        compare(cluster, mode, options, progress, scenario_list, {shape for group in groups for shape in group.shapes})
    if groups:
        hold_to_bars(cluster, mode, options, progress, groups)
    cluster.drop_all()
    progress.finish()


if __name__ == "__main__":
    main()
