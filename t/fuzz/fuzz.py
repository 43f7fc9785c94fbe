#!/usr/bin/python3
"""Fuzzer of testenv: random work, a restore, and a look at everything.

  fuzz.py --host DIR --port P --user U --rounds N --seed S

Each round lets 1 to 4 sessions work at random over every kind of table and
index, calls testenv_restore() in one of many ways and compares the database with
what it was after testenv_snapshot().  See world.py for what there is, work.py for
what is done to it, scene.py for how a restore is called, compare.py for what is
compared.  Needs a superuser on a running server of which it knows the socket.

The seed decides everything but the timing of threads.  Each round and session has
random numbers of its own, so --start K replays round K without those before it.
A failing round prints its differences and every statement; the database is kept.
"""
import argparse
import os
import random
import shutil
import sys
import threading
import time

# a run leaves no trace in the checkout
sys.dont_write_bytecode = True

import selftest
import world
from compare import Checker
from engine import must
from scene import Scene
from session import Differences, Failure, SqlError
from state import State
from work import Worker


def arguments():
    parser = argparse.ArgumentParser(description="random work, a restore, a look at everything")
    parser.add_argument("--host", default=os.environ.get("PGHOST", "/tmp"), help="socket directory or host")
    parser.add_argument("--port", type=int, default=int(os.environ.get("PGPORT", "5432")))
    parser.add_argument("--user", default=os.environ.get("PGUSER", "postgres"), help="a superuser")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--start", type=int, default=1, help="number of the first round")
    parser.add_argument("--seed", type=int, default=None, help="default: a random one")
    parser.add_argument("--ops", type=int, default=14, help="most operations of a session in a round; 0: no work")
    parser.add_argument("--sessions", type=int, default=4, help="most sessions at work")
    parser.add_argument("--db", default=None, help="name of the database to create; must contain test")
    parser.add_argument("--keep-going", action="store_true", help="go on after a failing round, with a new database")
    parser.add_argument("--no-check", action="store_true", help="leave testenv.check_detector off")
    parser.add_argument("--pg-dump", default=None, help="default: the one beside the server, else on the PATH")
    parser.add_argument("--tablespace-dir", default=None, help="empty directory that the server may write to")
    parser.add_argument("--engine", choices=["testenv", "template", "nothing"], default="testenv",
                        help="template and nothing try the fuzzer itself, see engine.py")
    parser.add_argument("--self-test", action="store_true", help="make a difference of every kind and see that it is found")
    args = parser.parse_args()
    if args.seed is None:
        args.seed = random.SystemRandom().randrange(1, 2 ** 31)
    if args.self_test:
        args.engine = "template"
    args.db = args.db or f"fuzz_test_{os.getpid()}"
    if "test" not in args.db or not args.db.replace("_", "").isalnum() or args.db != args.db.lower():
        parser.error("--db: lower-case letters, digits and _, and test among them")
    return args


class Fuzzer:
    def __init__(self, args):
        self.args = args
        self.state = None
        self.refs = {}
        self.current = "default"
        self.pg_dump = None
        self.disturbed = 0      # checks repeated because of autovacuum

    # -- setting up ---------------------------------------------------------

    def find_pg_dump(self, state):
        if self.args.pg_dump:
            return self.args.pg_dump
        admin = state.admin()
        beside = os.path.join(admin.value("SELECT setting FROM pg_config WHERE name = 'BINDIR'"), "pg_dump")
        admin.close()
        found = beside if os.access(beside, os.X_OK) else shutil.which("pg_dump")
        if not found:
            raise Failure("there is no pg_dump: name one by --pg-dump")
        return found

    def build(self):
        """A new database with its first snapshot and what belongs to it."""
        rng = random.Random(f"{self.args.seed}/build")
        self.state = state = State(self.args, self.args.db)
        self.pg_dump = self.pg_dump or self.find_pg_dump(state)
        missing = state.create()
        self.checker = Checker(state.where, self.pg_dump, state.tables, state.probes)
        self.refs = {}
        self.current = "default"
        inside = rng.random() < 0.4
        state.seed(rng, inside)
        session = state.session("plans")
        found = self.checker.check_plans(session, rng)
        session.close()
        if found:
            raise Failure("\n".join(found))
        self.refer("default", rng)
        ref = self.refs["default"]
        print(f"database {state.dbname}: {len(ref.tables)} tables, {len(ref.sizes)} files, "
              f"{sum(int(size.split()[0]) for size in ref.sizes.values()) / 1e6:.1f} MB, "
              f"snapshot {'in the' if inside else 'after the'} seeding transaction"
              + (f", without {', '.join(missing)}" if missing else "")
              + ("" if state.prepared_allowed else ", without prepared transactions"), flush=True)

    def refer(self, name, rng):
        """Read the reference of the snapshot just taken; measuring the placement takes a restore."""
        session = self.state.session("reader")
        engine = self.state.engine
        self.current = name
        for attempt in range(5):
            ref = self.refs[name] = self.checker.read_reference(session)
            if not engine.restores:
                break
            # autovacuum is no respecter of the moment: read again where it came in between
            ref.placement = self.checker.read_placement(session)
            disturbed = engine.since and self.checker.autovacuumed(session, ref, engine.since)
            self.restore_quietly()
            session.close()
            session = self.state.session("reader")
            if not disturbed and self.checker.read_sizes(session) == ref.sizes:
                break
        session.close()
        self.compare(rng, everything=True)

    def restore_quietly(self):
        session = self.state.session("restorer")
        must(self.state.engine.restore, session)
        session.close()

    # -- comparing ----------------------------------------------------------

    def steady(self, check, *arguments, **named):
        """A check of the database right after a restore.

        Autovacuum may have come by since: where it has, and only there, a difference
        is looked into after one more restore.
        """
        for attempt in range(4):
            try:
                return check(*arguments, **named)
            except Differences:
                if attempt == 3 or not self.autovacuumed():
                    raise
                self.disturbed += 1
                self.restore_quietly()

    def autovacuumed(self):
        if not self.state.engine.since:
            return False
        session = self.state.session("witness")
        found = self.checker.autovacuumed(session, self.refs[self.current], self.state.engine.since)
        session.close()
        return found

    def compare(self, rng, **named):
        self.steady(self.compare_once, rng, **named)

    def compare_once(self, rng, everything=False, light=False, rnd=0):
        """Raise Differences that lists all of them."""
        checker, ref, found = self.checker, self.refs[self.current], []
        idle = [session for session in self.state.everyone() if not session.in_transaction()]
        fresh = not idle or rng.random() < 0.5
        session = self.state.session("compare") if fresh else rng.choice(idle)
        session.label = "(comparing)"

        def look(check, *arguments, **named):
            try:
                found.extend(check(*arguments, **named))
            except (SqlError, Failure) as error:
                if not session.alive():
                    raise
                session.settle()
                found.append(f"{check.__name__}: {error}")

        look(checker.check_tables, session, ref)
        look(checker.check_sequences, session, ref)
        look(checker.check_indexes, session, rng)
        if not light:
            look(checker.check_large_objects, session, ref)
            look(checker.check_sizes, session, ref)
            look(checker.check_summaries, session, ref)
            look(checker.check_visibility, session, ref)
            look(checker.check_btrees, session, "user", parent=everything or rnd % 2 == 0)
            look(checker.check_gins, session)
        if everything or rnd % 5 == 0:
            look(checker.check_heaps, session)
            look(checker.check_analyze, session)
        if everything or rnd % 10 == 0:
            look(checker.check_btrees, session, "catalog", parent=False)
            # what the snapshot does not know would be in the dump
            self.state.drop_new_objects(session, rng)
            look(checker.check_dump, session, ref)
        if self.state.engine.sessions_stay and not must(self.state.engine.is_clean, session):
            found.append("testenv_is_clean() is false though nothing has been written")
        session.label = None
        if fresh:
            session.close()
        if found:
            raise Differences(f"differences to snapshot {self.current}:\n" + "\n".join("  " + line for line in found))

    def check_idle(self, rng):
        """Sessions that stayed connected go on: their temporary tables, cursors and index searches."""
        for session in self.state.everyone():
            if session.temp_rows is not None:
                rows = session.value(f"SELECT count(*) FROM mine_{session.sid}")
                if rows != session.temp_rows:
                    raise Failure(f"{session.sid}: its temporary table has {rows} rows, not {session.temp_rows}")
            if session.held_cursor and rng.random() < 0.5:
                session.run(f"FETCH 3 FROM {session.held_cursor}")
            if rng.random() < 0.4:
                session.label = "(comparing indexes)"
                found = self.checker.check_indexes(session, rng)
                session.label = None
                if found:
                    raise Failure(f"{session.sid}, connected over the restore:\n" + "\n".join(found))

    # -- rounds -------------------------------------------------------------

    def work(self, rnd, rng):
        """Let sessions work at the same time; returns how many did."""
        if not self.args.ops:
            return 0
        sessions = self.state.take(rng.randint(1, self.args.sessions))
        workers = [Worker(session, self.state, self.args.seed, rnd, rng.randint(2, self.args.ops)) for session in sessions]
        threads = [threading.Thread(target=worker.work, name=worker.s.sid, daemon=True) for worker in workers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(300)
            if thread.is_alive():
                raise Failure(f"{thread.name} hangs at work")
        for worker in workers:
            if worker.failure:
                raise worker.failure
        self.state.settle()
        return len(sessions)

    def small_change(self, rng):
        """One change: the database is not clean; one restore: it is."""
        change = rng.choice(["UPDATE fz.filled SET hits = hits + 1 WHERE id = 5 OR id = 6", "DELETE FROM fz.acc WHERE id < 4",
                             "INSERT INTO fz.heap (id, v) VALUES (1, 'one')", "INSERT INTO fz.plain (k, v) VALUES (1, 'one')",
                             "UPDATE fz.wide SET x = x || 'y' WHERE id < 9", "TRUNCATE fz.dropped", "INSERT INTO fz.unl (k) VALUES (1)",
                             "SELECT nextval('fz.free1')", "SELECT lo_put(900001, 3, convert_to(clock_timestamp()::text, 'UTF8'))", "INSERT INTO fz.nothing VALUES (1)",
                             "INSERT INTO fz.nothing_ix (id, arr) VALUES (1, '{1}')", "SELECT nextval('fz.unused')",
                             "UPDATE fz.geo SET t = t || 'x' WHERE id < 30", "REFRESH MATERIALIZED VIEW fz.mv WITH NO DATA",
                             "SELECT lo_unlink(900002)", "UPDATE fz.doc SET arr = arr || 99 WHERE id % 90 = 1"])
        session = self.state.session("small")
        # a snapshot of random contents may have no such rows or objects, or have them already
        rows = {name: count for name, (count, _) in self.refs[self.current].tables.items()}
        empty = (change.startswith("TRUNCATE") and not rows["fz.dropped"]) or (change.startswith("REFRESH") and not rows["fz.mv"])
        if session.attempt(change) and session.rowcount and not empty and must(self.state.engine.is_clean, session):
            raise Failure(f"testenv_is_clean() is true after: {change}")
        must(self.state.engine.restore, session)
        self.compare(rng, light=True)
        session.close()

    def traceless_change(self, rng):
        """A change that the heap shows nothing of, and nothing else."""
        session = self.state.session("traceless")
        worker = Worker(session, self.state, self.args.seed, f"traceless{rng.random()}", 0)
        for _ in range(rng.randint(1, 3)):
            try:
                worker.op_traceless()
            except SqlError:
                session.settle()
        session.close()
        self.restore_quietly()
        self.compare(rng)

    def check_placement(self, rng):
        """Where the next rows go, seen by a new session or one that stayed connected."""
        self.steady(self.check_placement_once, rng)
        self.restore_quietly()
        self.compare(rng, light=True)

    def check_placement_once(self, rng):
        idle = [session for session in self.state.everyone() if not session.in_transaction()]
        fresh = not idle or rng.random() < 0.5
        session = self.state.session("placer") if fresh else rng.choice(idle)
        found = self.checker.check_placement(session, self.refs[self.current], rng)
        if fresh:
            session.close()
        if found:
            raise Differences(f"{session.sid}{'' if fresh else ', connected over the restore'}:\n" + "\n".join(found))

    def another_snapshot(self, rnd, rng):
        """Take a snapshot of a changed database: a second one, a new second one, or the first anew."""
        state, engine = self.state, self.state.engine
        name = "second" if rng.random() < 0.8 else "default"
        session = state.session("taker")
        state.drop_new_objects(session, rng)
        # a table that one snapshot knows and the other does not
        session.run("CREATE TABLE IF NOT EXISTS fz.between (id int PRIMARY KEY, v text)")
        session.run("INSERT INTO fz.between SELECT g, fz.noise(g, 90) FROM generate_series(1, 150) g ON CONFLICT (id) DO NOTHING")
        worker = Worker(session, state, self.args.seed, f"snapshot{rnd}", 0)
        inside = rng.random() < 0.5 and engine.sessions_stay
        if inside:
            # a snapshot is refused while deferred triggers wait for the end of the transaction
            session.run("BEGIN; SET CONSTRAINTS ALL IMMEDIATE")
        for _ in range(12):
            session.run("SAVEPOINT a" if inside else "SELECT 1")
            if not session.attempt(worker.statement()) and inside:
                session.run("ROLLBACK TO a")
        if engine.sessions_stay and rng.random() < 0.2 and name in self.refs and name == "second" and not inside:
            must(engine.drop, session, name)
            del self.refs[name]
        if inside and rng.random() < 0.2:
            must(engine.snapshot, session, "never_was")
            session.run("ROLLBACK")
            must(engine.restore, session)
            self.compare(rng, light=True)
            session.close()
            return "snapshot rolled back"
        must(engine.snapshot, session, name)
        if inside:
            session.run("COMMIT")
        session.close()
        self.refer(name, rng)
        return f"new {name}{' in a transaction' if inside else ''}"

    def extras(self, scene, rng):
        """Looks that change something and take a restore of their own."""
        if self.state.engine.sessions_stay and rng.random() < 0.25:
            scene.tags.append("small")
            self.small_change(rng)
        if self.state.engine.sessions_stay and rng.random() < 0.1:
            scene.tags.append("traceless")
            self.traceless_change(rng)
        if rng.random() < 0.3:
            scene.tags.append("placement")
            self.check_placement(rng)

    def round(self, rnd):
        rng = random.Random(f"{self.args.seed}/{rnd}")
        state = self.state
        began = time.monotonic()
        state.log.clear()
        workers = self.work(rnd, rng)
        operations = len(state.log.entries)
        others = [name for name in self.refs if name != self.current]
        scene = Scene(state, self.checker, rng, self.args.seed, rnd, self.current, others)
        result = self.steady(scene.play)
        self.current = scene.current
        self.compare(rng, rnd=rnd)
        self.check_idle(rng)
        if state.engine.restores:
            self.extras(scene, rng)
        session = state.session("drop")
        if rng.random() < 0.7:
            state.drop_new_objects(session, rng, 0.8)
        session.close()
        if self.args.ops and state.engine.restores and rng.random() < 0.07:
            scene.tags.append(self.another_snapshot(rnd, rng))
        state.leave(rng, 0.25)
        name, tables, sequences, pages, took = scene.most or result
        print(f"round {rnd}: {workers} sessions, {operations} statements, restored {name}: {tables} tables, {sequences} sequences, "
              f"{pages} pages in {took:.1f} ms{' [' + ', '.join(scene.tags) + ']' if scene.tags else ''}, "
              f"{time.monotonic() - began:.1f} s", flush=True)

    def report(self, rnd, error):
        print(f"\nFAILED: seed {self.args.seed}, round {rnd}\n{error}\n\nstatements of round {rnd} (ms session: statement -- outcome):", flush=True)
        if self.state:
            print("\n".join(self.state.log.lines()))

    def rounds(self):
        failed = []
        last = self.args.start + self.args.rounds - 1
        rnd = 0
        try:
            self.build()
            for rnd in range(self.args.start, last + 1):
                try:
                    self.round(rnd)
                except (Failure, SqlError) as error:
                    if not self.args.keep_going:
                        raise
                    failed.append(rnd)
                    self.report(rnd, error)
                    self.state.destroy()
                    self.build()
        except (Failure, SqlError) as error:
            failed.append(rnd)
            self.report(rnd, error)
            print(f"\ndatabase {self.args.db} is kept")
        else:
            self.state.destroy()
        if self.state:
            print(self.state.log.summary() + (f"; {self.disturbed} checks repeated after autovacuum" if self.disturbed else ""))
        if failed:
            print(f"fuzz: seed {self.args.seed}: FAILED in round {', '.join(map(str, failed))}", flush=True)
            return 1
        print(f"fuzz: seed {self.args.seed}: {self.args.rounds} rounds, ok", flush=True)
        return 0


def main():
    args = arguments()
    print(f"fuzz: seed {args.seed}", flush=True)
    fuzzer = Fuzzer(args)
    return selftest.run(fuzzer) if args.self_test else fuzzer.rounds()


if __name__ == "__main__":
    sys.exit(main())
