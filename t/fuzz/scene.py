"""How a restore is called, and what goes on around it.

A Scene plays one restore: from a connected session or a new one, alone or in
a transaction block, of this snapshot or the other, and at times with company: a
reader or a writer that goes on meanwhile, a session idle in transaction that must
not be in the way or, where it must be, is named and ended, a cancel or a kill
in the middle.  Whatever the company did to it, the scene closes with an
undisturbed restore, after which everything has to compare equal.
"""
import random
import threading

from engine import must
from session import Differences, Failure, SqlError
from work import Worker

# What a restore may die of while others write: it is then called again
RACED = ("40P01", "55P03")


class Loop(threading.Thread):
    """A session that repeats something until it is told to stop."""

    def __init__(self, session, step):
        super().__init__(name=session.sid, daemon=True)
        self.session = session
        self.step = step
        self.over = threading.Event()
        self.failure = None
        self.done = 0

    def run(self):
        try:
            while not self.over.is_set():
                try:
                    self.step()
                except SqlError:
                    self.session.settle()
                self.done += 1
            self.session.settle()
        except Exception as error:  # noqa: whatever ends the thread has to reach the driver
            self.failure = error

    def stop(self):
        self.over.set()
        self.join(90)
        if self.is_alive():
            raise Failure(f"{self.session.sid} hangs")
        self.session.close()
        if self.failure:
            raise self.failure


class Scene:
    def __init__(self, state, checker, rng, seed, rnd, current, others):
        self.state = state
        self.checker = checker
        self.engine = state.engine
        self.rng = rng
        self.seed = seed
        self.rnd = rnd
        self.current = current      # the snapshot last taken or restored
        self.others = others        # the other snapshots
        self.tags = []
        self.most = None            # the restore that put back the most pages

    # -- the call -----------------------------------------------------------

    def caller(self):
        """A connected session, or a new one."""
        idle = [session for session in self.state.everyone() if not session.in_transaction()]
        if idle and self.rng.random() < 0.6:
            self.tags.append("connected")
            return self.rng.choice(idle), False
        return self.state.session("restorer"), True

    def target(self):
        chance = self.rng.random()
        if self.others and chance < 0.25:
            self.current = self.rng.choice(self.others)
            self.tags.append(f"to {self.current}")
            return self.current
        return self.current if chance < 0.45 else None

    def call(self, session, name=None, terminate=False, as_text=False):
        result = self.engine.restore(session, name, terminate, as_text)
        if self.most is None or result[3] > self.most[3]:
            self.most = result
        return result

    def restore(self, session, name=None, terminate=False):
        """One restore, alone or inside a transaction block; ROLLBACK does not undo it."""
        rng = self.rng
        block = rng.choices([None, ("BEGIN", "COMMIT"), ("BEGIN", "ROLLBACK"), ("BEGIN ISOLATION LEVEL REPEATABLE READ", "COMMIT"),
                             ("BEGIN ISOLATION LEVEL SERIALIZABLE", "ROLLBACK")], [55, 15, 15, 8, 7])[0]
        as_text = rng.random() < 0.2
        if block is None:
            return self.call(session, name, terminate, as_text)
        self.tags.append("block" if block[1] == "COMMIT" else "rolled back")
        session.run(block[0])
        if rng.random() < 0.4:
            session.run("SELECT count(*) FROM fz.filled WHERE id > 3")
        result = self.call(session, name, terminate, as_text)
        if rng.random() < 0.4:
            session.run("SELECT count(*), max(v) FROM fz.filled")
        session.run(block[1])
        return result

    def play(self):
        """Returns the row that the last restore gave."""
        if not (self.engine.sessions_stay and self.engine.restores):
            return self.engine.restore(None, self.target())
        company = self.rng.choices(["", "reader", "writer", "idle", "nextval", "blocked", "terminate", "cancel", "kill"],
                                   [47, 9, 10, 9, 4, 3, 3, 8, 7])[0]
        name = self.target()
        if company:
            self.tags.append(company)
            getattr(self, "with_" + company)(name)
            # of a restore that may have failed the current snapshot is not known
            name = self.current
        session, new = self.caller()
        if not new:
            session.run("SET lock_timeout = 0")
        result = must(self.restore, session, name)
        if result[0] != self.current:
            raise Failure(f"testenv_restore says it restored {result[0]}, not {self.current}")
        if "rolled back" in self.tags:
            # what a restore does in catalogs goes with a ROLLBACK, and comes with the next one
            must(self.engine.restore, session)
        if self.rng.random() < 0.15:
            again = must(self.engine.restore, session)
            if again[1] or again[3]:
                raise Differences(f"a second restore right after the first put back {again[1]} tables, {again[3]} pages")
            self.tags.append("twice")
        if new:
            session.close()
        else:
            session.run("RESET lock_timeout")
        return result

    # -- company ------------------------------------------------------------

    def racing_restore(self, name):
        """A restore that others may make fail, as long as they do it in a known way."""
        session = self.state.session("racer")
        # the check reads tables while others write to them
        session.run("SET testenv.check_detector = off; SET testenv.lock_timeout = '400ms'")
        try:
            self.restore(session, name)
        except SqlError as error:
            if error.code not in RACED:
                raise Failure(f"testenv_restore: {error}") from error
            self.tags.append(error.code)
        session.settle()
        session.close()

    def with_reader(self, name):
        session = self.state.session("reader")
        rng = random.Random(f"{self.seed}/{self.rnd}/reader")
        session.run("SET enable_seqscan = off")

        def step():
            probe = rng.choice(self.state.probes)
            source = probe.source.replace("{a}", str(rng.randint(0, 2500)))
            if rng.random() < 0.25:
                session.run("BEGIN ISOLATION LEVEL REPEATABLE READ")
                session.run(f"SELECT count(*) FROM {source}")
            session.run(f"SELECT count({probe.expr or 't.ctid'}) FROM {source}")
            session.settle()

        readers = [Loop(session, step)]
        readers[0].start()
        try:
            self.racing_restore(name)
            self.racing_restore(name)
        finally:
            readers[0].stop()

    def with_writer(self, name):
        """Two sessions that write all the time, mostly single statements."""
        loops = []
        for number in (1, 2):
            session = self.state.session(f"writer{number}")
            session.run("SET lock_timeout = '150ms'")
            worker = Worker(session, self.state, self.seed, self.rnd, 0)
            # nobody would finish them, and every restore would wait for them in vain
            worker.may_prepare = False
            steps = [worker.op_statement] * 6 + [worker.op_transaction]
            loops.append(Loop(session, lambda worker=worker, steps=steps: worker.rng.choice(steps)()))
        for loop in loops:
            loop.start()
        try:
            for _ in range(4):
                self.racing_restore(name)
        finally:
            for loop in loops:
                loop.stop()
            self.state.settle()

    def with_idle(self, name):
        """A session that has read a table which nobody has changed is in nobody's way."""
        session = self.state.session("idle")
        session.run(self.rng.choice(["BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ"]))
        session.run("SELECT count(*) FROM public.quiet")
        if self.rng.random() < 0.3:
            session.run("SELECT txid_current()")
        other = self.state.session("restorer")
        must(self.call, other, name)
        other.close()
        # its snapshot is older than the restore: it sees restored rows, and no error
        session.run("SELECT count(*), max(v) FROM fz.filled WHERE v >= ''")
        session.run(self.rng.choice(["COMMIT", "ROLLBACK"]))
        session.close()

    def with_nextval(self, name):
        """A transaction that idles after nextval is in nobody's way either."""
        session = self.state.session("idle")
        session.run("BEGIN")
        session.run("SELECT nextval('fz.free1'), nextval('fz.plain_id_seq')")
        other = self.state.session("restorer")
        must(self.call, other, name)
        other.close()
        session.run(self.rng.choice(["COMMIT", "ROLLBACK"]))
        session.close()

    def blocker(self):
        """A session idle in transaction on a table that has been changed."""
        session = self.state.session("blocker")
        session.run("UPDATE fz.filled SET hits = hits + 1 WHERE id % 50 = 7")
        session.run("INSERT INTO fz.heap (id, v) SELECT g, 'blocker' FROM generate_series(1, 30) g")
        session.run("BEGIN")
        session.run("SELECT count(*) FROM fz.heap")
        return session

    def with_blocked(self, name):
        blocker = self.blocker()
        session = self.state.session("restorer")
        session.run("SET testenv.lock_timeout = '200ms'")
        try:
            self.call(session, name)
        except SqlError as error:
            if str(blocker.pid) not in error.text:
                raise Failure(f"the blocker {blocker.pid} is not named: {error.text}") from error
        else:
            raise Failure("a restore went past a session that holds a lock on a changed table")
        blocker.run("SELECT count(*) FROM fz.heap")
        blocker.run("COMMIT")
        blocker.close()
        session.close()

    def with_terminate(self, name):
        blocker = self.blocker()
        blocker.doomed = True
        session = self.state.session("restorer")
        session.run("SET testenv.lock_timeout = '200ms'")
        must(self.call, session, name, terminate=True)
        session.close()
        if blocker.attempt("SELECT 1"):
            raise Failure("terminate => true left the session in the way connected")
        blocker.close()

    def must_be_consistent(self):
        """A restore that an interrupt ended has put back nothing or everything: indexes agree with tables."""
        session = self.state.session("consistent")
        # but for a new SP-GiST index, which cannot be rebuilt without serving interrupts
        if session.value("SELECT count(*) FROM pg_class c JOIN pg_am a ON a.oid = c.relam WHERE a.amname = 'spgist' AND c.relname LIKE 'fznew%'"):
            session.close()
            return
        found = self.checker.check_btrees(session, "user", parent=False)
        try:
            found += self.checker.check_indexes(session, self.rng)
        except SqlError as error:
            # the work before may have left a materialized view without data
            if error.code != "55000":
                raise
        session.close()
        if found:
            raise Failure("after a restore that was cut short:\n" + "\n".join(found))

    def with_cancel(self, name):
        """Cut short at random moments; the next restore makes good for it."""
        for _ in range(4):
            session = self.state.session("restorer")
            timer = threading.Timer(self.rng.uniform(0, 0.03), session.conn.cancel)
            timer.start()
            try:
                self.call(session, name)
                done = True
            except SqlError as error:
                if error.code != "57014":
                    raise Failure(f"testenv_restore: {error}") from error
                self.tags.append("cut")
                done = False
            timer.join()
            session.close()
            if done:
                break
            self.must_be_consistent()

    def with_kill(self, name):
        session = self.state.session("restorer")
        session.doomed = True
        assassin = self.state.session("assassin")
        timer = threading.Timer(self.rng.uniform(0, 0.03), lambda: assassin.attempt(f"SELECT pg_terminate_backend({session.pid})"))
        timer.start()
        try:
            self.call(session, name)
        except SqlError:
            self.tags.append("cut")
        timer.join()
        session.close()
        assassin.close()
        self.must_be_consistent()
