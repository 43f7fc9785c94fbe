# The bars: what a restore may cost, case by case, each measured with fsync on
# and with fsync off.
#
# What is compared runs in turns within one part, so that a busy moment of the
# machine falls on both sides; the first run of each turn is not counted, as it
# reads what the other side wrote to the WAL, which has a bar of its own.  A
# restore is timed as a statement of its own, from sending it to its row.
import dataclasses
import itertools
import statistics
import time

import schema
from bars_clients import Database, others_wal, workers
from cluster import Session, timed
from measure import Sample

TURN = 20
TURN_SECONDS = 0.5
NOISE = 1.1     # what "as fast as" allows two medians of one run to differ by


@dataclasses.dataclass
class Row:
    case: str
    bar: str
    fsync: bool
    measured: str
    met: bool = None    # None: not decided, the note says why
    note: str = ""


def us(nanoseconds):
    if nanoseconds >= 9.995e6:
        return f"{nanoseconds / 1e6:.1f} ms"
    if nanoseconds >= 999_500:
        return f"{nanoseconds / 1e6:.2f} ms"
    return f"{nanoseconds / 1e3:.0f} us"


def in_turns(sides, turns=10, each=TURN, tick=lambda done: None):
    """sides: {name: once(number) -> nanoseconds}.  Returns {name: Sample}.
    A side that is slow gets shorter turns, of two at least."""
    values = {name: [] for name in sides}
    for turn in range(turns):
        for name, once in sides.items():
            once(turn * each)
            begin = time.monotonic()
            for number in range(1, each):
                values[name].append(once(turn * each + number))
                if number > 1 and time.monotonic() - begin > TURN_SECONDS:
                    break
        tick((turn + 1) / turns)
    return {name: Sample(found) for name, found in values.items()}


def runs_note(*samples):
    fewest = min(sample.runs for sample in samples)
    return f"{fewest} runs; " if fewest < 100 else ""


class Group:
    """Bars that share their databases."""

    title = ""
    weight = 10         # seconds, for the progress line

    def __init__(self, cluster, tick, say):
        self.cluster = cluster
        self.tick = tick
        self.say = say
        self.databases = []
        self.detectors = cluster.has_detector_setting()

    def seed(self, shape):
        if shape.seed not in self.cluster.made:
            schema.create_seed(self.cluster, shape, Session)
        return shape.seed

    def database(self, name, shape):
        """A clone of a seeded database, with a snapshot."""
        self.cluster.clone(self.seed(shape), name)
        self.databases.append(Database(name, shape))
        return self.databases[-1]

    def setup(self):
        raise NotImplementedError

    def measure(self, fsync):
        raise NotImplementedError

    def close(self):
        for database in self.databases:
            database.close()
            self.cluster.drop(database.name)


class SmallTests(Group):
    title = "bars: 20 and 5000 tables"
    weight = 150
    few = schema.small(20)
    many = schema.small(5000, sparse=True)
    shapes = (few, many)

    def setup(self):
        self.few_db = self.database("bar_few_test", self.few)
        self.many_db = self.database("bar_many_test", self.many)
        self.cluster.clone(self.few.seed, "bar_plain_test")
        self.plain = Session("bar_plain_test")

    def close(self):
        self.plain.close()
        self.cluster.drop("bar_plain_test")
        super().close()

    def measure(self, fsync):
        yield self.nothing(fsync)
        yield from self.five_tables(fsync)
        yield self.in_a_row(fsync)

    def nothing(self, fsync):
        database = self.few_db
        wal = []

        def restore(number):
            if number % TURN:
                return database.restore()
            begin = database.session.value("SELECT pg_current_wal_insert_lsn()")
            taken = database.restore()
            wal.append(database.session.value(f"SELECT pg_current_wal_insert_lsn() - '{begin}'::pg_lsn"))
            return taken

        database.restore()
        database.detectors.clear()
        found = in_turns({"select": lambda number: timed(database.session, "SELECT 1"), "restore": restore}, tick=self.tick)
        restored, select, written = found["restore"].median, found["select"].median, statistics.median(wal)
        return Row("nothing changed", "<= 1.5 x SELECT 1 + 20 us; no WAL written", fsync,
                   f"{us(restored)}; SELECT 1: {us(select)}, so the bar is {us(1.5 * select + 20000)}; {written:.0f} bytes of WAL",
                   restored <= 1.5 * select + 20000 and written == 0, database.detector_note())

    def five_tables(self, fsync):
        few, many, plain = self.few_db, self.many_db, self.plain
        test, test_many, growing = schema.SmallTest(self.few), schema.SmallTest(self.many), schema.GrowingTest(self.few, 150)

        def rollback(number):
            plain.run(f"BEGIN; {test.sql(number)}")
            return timed(plain, "ROLLBACK")

        few.detectors.clear()
        many.detectors.clear()
        found = in_turns({
            "five": lambda number: few.after(test.sql(number)),
            "rollback": rollback,
            "many": lambda number: many.after(test_many.sql(number)),
            "grown": lambda number: few.after(growing.sql(number)),
        }, tick=self.tick)
        five, rolled, among, grown = (found[name].median for name in ("five", "rollback", "many", "grown"))
        yield Row("5 tables of 20, 2 inserts + 1 update + 1 delete each, 3 indexes, sequence, foreign key",
                  "<= 3 x the ROLLBACK of the same work", fsync, f"{us(five)}; ROLLBACK: {us(rolled)}; {five / rolled:.2f} x",
                  five <= 3 * rolled, few.detector_note())
        yield Row("the same among 5000 tables", "<= 1.3 x the 20-table case", fsync, f"{us(among)}; {among / five:.2f} x",
                  among <= 1.3 * five, many.detector_note() + runs_note(found["many"]))
        yield Row("5 tables grown by 150 rows each (files must be cut)", "<= 2 x the 5-table case", fsync,
                  f"{us(grown)}; {grown / five:.2f} x", grown <= 2 * five, few.detector_note())

    def in_a_row(self, fsync):
        test, database = schema.SmallTest(self.few), self.few_db
        database.detectors.clear()
        values = []
        for number in range(10_020):
            values.append(database.after(test.sql(number)))
            self.tick(number / 10_020)
        # the first 20 fill the caches
        values = values[20:]
        first, last = statistics.median(values[:100]), statistics.median(values[-100:])
        return Row("10,000 restores in a row", "the last 100 as fast as the first 100", fsync,
                   f"first 100: {us(first)}, last 100: {us(last)}; {last / first:.2f} x", last <= NOISE * first, database.detector_note())


class OthersWal(Group):
    title = "bars: WAL of other databases"
    weight = 300
    shapes = SmallTests.shapes
    # megabytes and how often
    amounts = ((0, 50), (1, 20), (10, 10), (50, 6), (200, 5))

    def setup(self):
        self.tested = {20: self.database("bar_few_test", SmallTests.few), 5000: self.database("bar_many_test", SmallTests.many)}
        self.cluster.create("bar_other_test")
        self.other = Session("bar_other_test")
        self.other.run("CREATE TABLE noise (id int, body text)")

    def close(self):
        self.other.close()
        self.cluster.drop("bar_other_test")
        super().close()

    def measure(self, fsync):
        found = {}
        ways = ("auto", "wal", "look") if self.detectors else ("auto",)
        orders = list(itertools.permutations(ways))
        most = max(runs for _, runs in self.amounts)
        for number in range(-1, most):
            for megabytes in (amount for amount, runs in self.amounts if number < runs):
                # one database after the other, and in every order: 5000 tables
                # that were looked at leave shared buffers full of them
                for count, database in self.tested.items():
                    test = schema.SmallTest(database.shape).sql(number + 1)
                    database.after(test, "auto" if self.detectors else None)
                    for way in orders[number % len(orders)]:
                        others_wal(self.other, megabytes)
                        taken = database.after(test, way if self.detectors else None)
                        if number >= 0:
                            found.setdefault((count, megabytes, way), []).append(taken)
            # the large amounts come first, and take most of the time
            self.tick(min(1.0, (number + 2) / 12))
        for count in self.tested:
            yield from self.judge(fsync, count, {key[1:]: statistics.median(values) for key, values in found.items() if key[0] == count})

    def judge(self, fsync, count, medians):
        bar = "<= 1.2 x the faster of the two detectors"
        for megabytes, runs in self.amounts[1:]:
            case = f"WAL that other databases wrote in between: {megabytes} MB; {count} tables"
            auto = medians[megabytes, "auto"]
            if not self.detectors:
                yield Row(case, bar, fsync, us(auto), None, "this build has no second detector to compare with")
                continue
            wal, look = medians[megabytes, "wal"], medians[megabytes, "look"]
            yield Row(case, bar, fsync, f"{us(auto)}; by WAL {us(wal)}, by looking {us(look)}; {auto / min(wal, look):.2f} x",
                      auto <= 1.2 * min(wal, look), f"{runs} runs each")
        more = medians[1, "auto"] - medians[0, "auto"]
        yield Row(f"WAL that other databases wrote in between: 1 MB; {count} tables", "<= 0.2 ms more than without", fsync,
                  f"{us(medians[1, 'auto'])}; without {us(medians[0, 'auto'])}; {more / 1e6:+.3f} ms", more <= 200_000)


class OneRow(Group):
    title = "bars: one row in 5 GB"
    weight = 240
    shapes = ()
    big = schema.sized(5 * 1024, tables=1)
    little = schema.sized(10, tables=1)

    def setup(self):
        for name, shape in (("bar_5gb_test", self.big), ("bar_10mb_test", self.little)):
            self.cluster.create(name)
            session = Session(name)
            self.say(f"seeding {name}")
            schema.fill(session, shape)
            session.close()
            self.databases.append(Database(name, shape))
        self.size = self.databases[0].session.value("SELECT pg_size_pretty(pg_total_relation_size('t_00001'))")

    def measure(self, fsync):
        big, little = self.databases
        for place, kind in enumerate(("update", "delete", "insert")):
            tests = {database: schema.OneRowTest(database.shape, kind) for database in (big, little)}
            big.detectors.clear()
            found = in_turns({
                "big": lambda number: big.after(tests[big].sql(number)),
                "little": lambda number: little.after(tests[little].sql(number)),
            }, turns=5, tick=lambda done, place=place: self.tick((place + done) / 3))
            large, small = found["big"].median, found["little"].median
            yield Row(f"one row changed in 5 GB: {kind}", "<= 1.5 x the same in 10 MB", fsync,
                      f"{us(large)} ({self.size}); in 10 MB: {us(small)}; {large / small:.2f} x", large <= 1.5 * small,
                      big.detector_note() + runs_note(*found.values()))


class OneGigabyte(Group):
    title = "bars: 1 GB"
    weight = 150
    large = schema.sized(1024)
    shapes = (large,)

    def setup(self):
        self.gigabyte = self.database("bar_1gb_test", self.large)
        self.hundred = self.database("bar_100mb_test", schema.sized(100))

    def measure(self, fsync):
        for database, rows, runs, bar, place in ((self.gigabyte, 1000, 30, 8.0, "1 GB"), (self.gigabyte, 100_000, 7, 1.2, "1 GB"),
                                                 (self.hundred, 100_000, 7, 1.2, "100 MB")):
            test = schema.ScatteredTest(database.shape, rows)
            database.detectors.clear()
            taken = []
            for number in range(runs):
                taken.append(database.after(test.sql(number)))
                self.tick(number / runs)
            median = statistics.median(taken)
            each = median / rows / 1000
            yield Row(f"{rows:,} scattered rows in {place}", f"<= {bar:g} us a row", fsync,
                      f"{us(median)}; {each:.2f} us a row; {database.last['pages']} pages", each <= bar,
                      f"{database.detector_note()}{runs} runs")
        yield self.snapshot(fsync)

    def snapshot(self, fsync):
        session, speeds = self.gigabyte.session, []
        for number in range(5):
            start = time.perf_counter_ns()
            taken = session.record("SELECT * FROM testenv_snapshot()")
            speeds.append(taken["pages"] * 8192 / (time.perf_counter_ns() - start) * 1e3)
            self.tick(number / 5)
        speed = statistics.median(speeds)
        return Row("snapshot of 1 GB, already frozen", ">= 500 MB/s with fsync=off", fsync, f"{speed:.0f} MB/s",
                   None if fsync else speed >= 500, "5 runs" + ("; the bar is for fsync=off" if fsync else ""))


class Truncated(Group):
    title = "bars: a truncated table"
    weight = 25
    shapes = ()
    shape = schema.sized(164, tables=1)

    def setup(self):
        self.tested = self.database("bar_truncate_test", self.shape)
        self.bytes = self.tested.session.value("SELECT pg_total_relation_size('t_00001')")

    def measure(self, fsync):
        taken = []
        for number in range(9):
            taken.append(self.tested.after("TRUNCATE t_00001"))
            self.tick(number / 9)
        median = statistics.median(taken[1:])
        speed = self.bytes / median
        yield Row("a 164 MB table TRUNCATEd", ">= 1 GB/s with fsync=off", fsync,
                  f"{us(median)}; {speed:.2f} GB/s; {self.bytes / 1048576:.0f} MB with its indexes", None if fsync else speed >= 1.0,
                  "8 runs" + ("; the bar is for fsync=off" if fsync else ""))


class Workers(Group):
    title = "bars: 8 workers"
    weight = 60
    shapes = ()
    count = 8
    seconds = 3.0

    def setup(self):
        shape = schema.small(20)
        for number in range(self.count):
            self.database(f"bar_worker{number}_test", shape)

    def measure(self, fsync):
        ways = ("auto", "wal", "look") if self.detectors else (None,)
        medians = {way: [] for way in ways}
        for turn in range(2):
            for way in ways:
                medians[way].append(statistics.median(workers(self.databases, way, self.seconds)))
                self.tick((turn + 0.5) / 2)
        found = {way: statistics.mean(values) for way, values in medians.items()}
        case, bar = f"{self.count} workers, a database of 20 tables each, one cluster", "never slower than looking at every table"
        if not self.detectors:
            yield Row(case, bar, fsync, us(found[None]), None, "this build has no second detector to compare with")
            return
        auto, look = found["auto"], found["look"]
        yield Row(case, bar, fsync, f"{us(auto)}; by looking {us(look)}, by WAL {us(found['wal'])}; {auto / look:.2f} x of looking",
                  auto <= NOISE * look)


GROUPS = [SmallTests, OthersWal, OneGigabyte, Truncated, Workers, OneRow]


def run(cluster, kinds, progress):
    rows = []
    for place, kind in enumerate(kinds):
        progress.part(kind.title, kind.weight)
        cluster.set_fsync(False)
        group = kind(cluster, lambda done: None, progress.say)
        need = 14 * 1024**3 if kind is OneRow else 5 * 1024**3
        if cluster.free_bytes() < need:
            rows.append(Row(kind.title, "", False, "not measured", None, f"less than {need // 1024**3} GB are free"))
            continue
        group.setup()
        for half, fsync in enumerate((False, True)):
            cluster.set_fsync(fsync)
            group.tick = lambda done, half=half: progress.tick((half + done) / 2, f"| fsync {'on' if fsync else 'off'}")
            for row in group.measure(fsync):
                rows.append(row)
                progress.say(line(row))
        group.close()
        kept = {shape for later in kinds[place + 1:] for shape in later.shapes}
        for name in [name for name in sorted(cluster.made) if name.startswith("seed_")]:
            if name not in {shape.seed for shape in kept}:
                cluster.drop(name)
    cluster.set_fsync(False)
    return rows


def verdict(row):
    return {True: "met", False: "missed", None: "-"}[row.met]


def line(row):
    return f"{verdict(row):<6}  fsync {'on ' if row.fsync else 'off'}  {row.case}: {row.measured} {row.note}"
