# Repetition and statistics.
#
# A method is run until its share of time is used up, but at least five times,
# so that a slow one does not cost an hour and a fast one still gets a sound
# median.  How often it ran stands beside each figure.
import dataclasses
import math
import statistics
import time

MIN_RUNS = 5


class LeftOut(Exception):
    """A method that has no figure here; the message says why."""


@dataclasses.dataclass
class Sample:
    """Durations in nanoseconds."""

    values: list

    @property
    def runs(self):
        return len(self.values)

    @property
    def median(self):
        return statistics.median(self.values)

    @property
    def p95(self):
        """Nearest rank: with fewer than 20 values this is the slowest."""
        ordered = sorted(self.values)
        return ordered[math.ceil(0.95 * len(ordered)) - 1]

    @property
    def fastest(self):
        return min(self.values)


@dataclasses.dataclass(frozen=True)
class Effort:
    """How much time one measurement may take."""

    seconds: float      # share of one method, with the work of the tests
    most_runs: int
    slowest: float      # a method whose one run takes longer is left out, seconds
    limit: float        # for all methods together, seconds


def repeat(once, effort, tick=lambda done: None):
    """once(number) -> nanoseconds.  A first run that fills caches is not counted,
    unless the method is so slow that no cache matters."""
    begin = time.monotonic()
    values = []
    first = once(0)
    if first > effort.slowest * 1e9:
        raise LeftOut(f"left out: one run took {first / 1e9:.0f} s")
    if first > 2e9:
        values.append(first)
    number = 1
    while len(values) < MIN_RUNS or (len(values) < effort.most_runs and time.monotonic() - begin < effort.seconds):
        values.append(once(number))
        number += 1
        tick(min(1.0, max(len(values) / effort.most_runs,
                          min(len(values) / MIN_RUNS, (time.monotonic() - begin) / effort.seconds))))
    return Sample(values)
