# What is compared with what: the databases, the tests, and how much time each
# comparison may take.
import dataclasses
import time
from time import perf_counter_ns as time_ns

import schema
from cluster import Session
from measure import Effort, LeftOut, repeat
from methods import OWN, Bed
from peers import PEERS


@dataclasses.dataclass(frozen=True)
class Scenario:
    group: str          # which plot and table it belongs to
    x: float            # its place on the axis
    title: str
    shape: schema.Shape
    test: object
    fsync: bool
    methods: tuple
    weight: float       # seconds that it is expected to take, for the progress line


@dataclasses.dataclass
class Result:
    scenario: Scenario
    method: type
    sample: object = None
    note: str = ""
    detectors: tuple = ()


EFFORT = {
    "quick": Effort(seconds=0.5, most_runs=50, slowest=8, limit=100),
    "default": Effort(seconds=2, most_runs=200, slowest=12, limit=720),
    "full": Effort(seconds=10, most_runs=500, slowest=400, limit=6 * 3600),
}

# seconds that a scenario took on two cores, by mode: for the progress line only
WEIGHTS = {
    "quick": {"schema": 12, "tables": {20: 12, 100: 18}, "size": {10: 12, 40: 20}, "rows": 8},
    "default": {"schema": 35, "tables": {20: 30, 200: 50, 1000: 90, 5000: 220}, "size": {10: 20, 100: 40, 1024: 220}, "rows": 30},
    "full": {"schema": 200, "tables": {20: 150, 200: 200, 1000: 400, 5000: 3000}, "size": {10: 100, 100: 200, 1024: 600, 5120: 3000},
             "rows": 200},
}


def plan(mode):
    """The scenarios of a mode, those with the same database after each other."""
    weights = WEIGHTS[mode]
    quick = mode == "quick"
    everything = (*OWN, *PEERS)
    found = []

    def add(group, x, title, shape, test, methods, weight, fsync=False):
        found.append(Scenario(group, x, title, shape, test, fsync, tuple(methods), weight))

    shape = schema.small(32)
    for fsync in (False,) if quick else (False, True):
        add("schema", 32, f"32 small tables, fsync {'on' if fsync else 'off'}", shape, schema.SmallTest(shape), everything,
            weights["schema"], fsync)
    for count in weights["tables"]:
        shape = schema.small(count, sparse=True)
        add("tables", count, f"{count} tables", shape, schema.SmallTest(shape), everything, weights["tables"][count])
    for megabytes in weights["size"]:
        shape = schema.sized(megabytes)
        add("size", megabytes, f"{megabytes} MB" if megabytes < 1024 else f"{megabytes // 1024} GB", shape, schema.SmallTest(shape),
            [*OWN, *PEERS[:2]], weights["size"][megabytes])
    shape = schema.sized(10 if quick else 100)
    for rows in (1, 1000) if quick else (1, 10, 1000, 100_000):
        add("rows", rows, f"{rows:,} changed {'row' if rows == 1 else 'rows'}", shape, schema.ScatteredTest(shape, rows), OWN,
            weights["rows"])
    # the same database twice: keep it between the two
    return sorted(found, key=lambda s: (s.fsync, ["schema", "tables", "size", "rows"].index(s.group), s.x))


def measure_method(method, effort, progress):
    """A method's sample, and what is to be said about it."""
    method.bed.cluster.settle()

    def once(number):
        method.work(number)
        start = time_ns()
        method.reset()
        method.first_answer()
        return time_ns() - start

    sample = repeat(once, effort, progress)
    note = ""
    if method.gives_seed_back and not method.is_seed():
        note = "did not give the seed back"
    return sample, note


def at_pace(effort, elapsed, weight, weights_left):
    """On a slow machine methods are left out earlier, so that the run still ends
    in time: of what is left, a scenario has the share of its weight, and of that
    one run of one method may take a twentieth."""
    share = max(0.0, effort.limit - elapsed) * weight / weights_left
    return dataclasses.replace(effort, slowest=max(1.0, min(effort.slowest, share / 20)))


def run(cluster, scenarios, effort, progress, keep=()):
    """keep: shapes whose seeded database is wanted later."""
    results = []
    begin = time.monotonic()
    for place, scenario in enumerate(scenarios):
        pace = at_pace(effort, time.monotonic() - begin, scenario.weight, sum(later.weight for later in scenarios[place:]))
        progress.part(scenario.title, scenario.weight)
        if (cluster.admin.value("SHOW fsync") == "on") != scenario.fsync:
            cluster.set_fsync(scenario.fsync)
        if scenario.shape.seed not in cluster.made:
            progress.say(f"seeding {scenario.shape.seed}")
            schema.create_seed(cluster, scenario.shape, Session)
        bed = Bed(cluster, scenario.shape, scenario.test)
        for number, kind in enumerate(scenario.methods):
            def tick(done, number=number, kind=kind):
                progress.tick((number + done) / len(scenario.methods), f"| {kind.title}")
            tick(0.0)
            results.append(one(kind, bed, scenario, pace, tick))
            progress.say(line(results[-1]))
        bed.close()
        if scenario.shape not in keep and not any(later.shape == scenario.shape for later in scenarios[place + 1:]):
            cluster.drop(scenario.shape.seed)
    return results


def one(kind, bed, scenario, effort, tick):
    """One method in one scenario.  What goes wrong in it is its result, not the
    end of the run: the reason stands in the table where its figure would."""
    method = kind(bed)
    result = Result(scenario, kind)
    try:
        method.prepare()
        result.sample, result.note = measure_method(method, effort, tick)
        result.detectors = tuple(sorted(method.detectors))
    except LeftOut as why:
        result.note = str(why)
    except Exception as problem:
        result.note = f"failed: {first_line(problem)}"
    try:
        method.close()
    except Exception as problem:
        result.note = result.note or f"failed at the end: {first_line(problem)}"
    return result


def first_line(problem):
    return (str(problem).splitlines() or [repr(problem)])[0]


def line(result):
    if result.sample is None:
        return f"{result.method.title:<34} {result.note}"
    return (f"{result.method.title:<34} {result.sample.median / 1e6:10.3f} ms   p95 {result.sample.p95 / 1e6:10.3f} ms   "
            f"{result.sample.runs} runs {result.note}")
