# The clients of the bars: a database that is tested and restored over one
# session, another database that only writes WAL, and workers side by side.
import multiprocessing
import time

import schema
from cluster import Session


class Database:
    """A database with a snapshot, and a session in it."""

    def __init__(self, name, shape):
        self.name = name
        self.shape = shape
        self.session = Session(name)
        self.session.run("CREATE EXTENSION testenv")
        self.session.rows("SELECT * FROM testenv_snapshot()")
        self.detectors = set()
        self.last = {}
        self.way = None

    def restore(self):
        """Nanoseconds of one restore; what it said is kept in last."""
        cursor = self.session.cursor
        start = time.perf_counter_ns()
        cursor.execute("SELECT * FROM testenv_restore()")
        row = cursor.fetchone()
        taken = time.perf_counter_ns() - start
        self.last = dict(zip((column.name for column in cursor.description), row))
        if "detector" in self.last:
            self.detectors.add(self.last["detector"])
        return taken

    def after(self, sql, way=None):
        """Nanoseconds of the restore after a test, with a detector forced or not."""
        if way != self.way:
            self.session.run(f"SET testenv.detector = {way or 'auto'}")
            self.way = way
        self.session.run(f"BEGIN; {sql}; COMMIT")
        return self.restore()

    def detector_note(self):
        return f"detector: {', '.join(sorted(self.detectors))}; " if self.detectors else ""

    def close(self):
        self.session.close()


def others_wal(session, megabytes):
    """Writes so much WAL from another database: rows of a usual size, because a
    reader's time goes by records more than by bytes."""
    if not megabytes:
        return
    begin = session.value("SELECT pg_current_wal_insert_lsn()")
    while session.value(f"SELECT pg_current_wal_insert_lsn() - '{begin}'::pg_lsn") < megabytes * 1048576:
        session.run(f"INSERT INTO noise SELECT i, repeat('x', 100) FROM generate_series(1, {1000 * megabytes}) i")
    session.run("TRUNCATE noise")


def work(name, shape, way, seconds, start, results):
    session = Session(name)
    if way:
        session.run("LOAD 'testenv'")
        session.run(f"SET testenv.detector = {way}")
    test = schema.SmallTest(shape)
    values = []
    start.wait()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        session.run(f"BEGIN; {test.sql(len(values))}; COMMIT")
        begin = time.perf_counter_ns()
        session.rows("SELECT * FROM testenv_restore()")
        values.append(time.perf_counter_ns() - begin)
    session.close()
    # the first ones fill the caches
    results.put(values[len(values) // 10:])


def workers(databases, way, seconds):
    """A process for each database, all at the same time; their restores' nanoseconds."""
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(len(databases)), context.Queue()
    processes = [context.Process(target=work, args=(database.name, database.shape, way, seconds, start, results)) for database in databases]
    for process in processes:
        process.start()
    values = [value for _ in processes for value in results.get(timeout=seconds + 120)]
    for process in processes:
        process.join()
    return values
