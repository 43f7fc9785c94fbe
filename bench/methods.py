# The ways to reset a database that need nothing but the server.
#
# A method owns a session in which the tests run.  What is measured is
# reset() and the first answer after it, from the moment the test's work is
# done: a method that throws the session out pays for the new one.
#
# Methods that bring rows back from files bring the sequences back as well and
# leave foreign keys unchecked (session_replication_role = replica): each is
# written as its best user would write it.
import subprocess

from cluster import Session
from measure import LeftOut
from schema import chunks, copy_out, fingerprint

FIRST_QUESTION = "SELECT name FROM t_00001 WHERE id = 1"


class Bed:
    """A seeded database of one shape, and the tests that run against it."""

    def __init__(self, cluster, shape, test):
        self.cluster = cluster
        self.shape = shape
        self.test = test
        self.plain = f"plain_{shape.seed}"      # shared by the methods that keep the database
        self.seed_print = None

    def want_plain(self):
        if self.plain not in self.cluster.made:
            self.cluster.clone(self.shape.seed, self.plain)
        return self.plain

    def seeded_print(self):
        if self.seed_print is None:
            session = Session(self.shape.seed)
            self.seed_print = fingerprint(session, self.test.dirty)
            session.close()
        return self.seed_print

    def close(self):
        self.cluster.drop(self.plain)


class Method:
    key = title = ""
    gives_seed_back = True

    def __init__(self, bed):
        self.bed = bed
        self.session = None
        self.detectors = set()

    def prepare(self):
        self.session = Session(self.bed.want_plain())

    def work(self, number):
        self.session.run(f"BEGIN; {self.bed.test.sql(number)}; COMMIT")

    def reset(self):
        raise NotImplementedError

    def first_answer(self):
        return self.session.rows(FIRST_QUESTION)

    def is_seed(self):
        return fingerprint(self.session, self.bed.test.dirty) == self.bed.seeded_print()

    def close(self):
        if self.session:
            self.session.close()


class Select1(Method):
    key = "select1"
    title = "SELECT 1 (resets nothing)"
    gives_seed_back = False

    def work(self, number):
        pass

    def reset(self):
        self.session.rows("SELECT 1")


class Rollback(Method):
    key = "rollback"
    title = "ROLLBACK"

    def work(self, number):
        self.session.run(f"BEGIN; {self.bed.test.sql(number)}")

    def reset(self):
        self.session.run("ROLLBACK")


class Restore(Method):
    key = "restore"
    title = "testenv_restore()"

    def prepare(self):
        self.database = f"restore_{self.bed.shape.seed}"
        if self.database not in self.bed.cluster.made:
            self.bed.cluster.clone(self.bed.shape.seed, self.database)
            session = Session(self.database)
            session.run("CREATE EXTENSION testenv")
            session.rows("SELECT * FROM testenv_snapshot()")
            session.close()
        self.session = Session(self.database)

    def reset(self):
        self.session.run("SELECT * FROM testenv_restore()")
        self.note()

    def note(self):
        """Which detector was at work, where the build says so."""
        columns = [column.name for column in self.session.cursor.description]
        if "detector" in columns:
            self.detectors.add(self.session.cursor.fetchone()[columns.index("detector")])

    def close(self):
        super().close()
        self.bed.cluster.drop(self.database)


def transaction(statements):
    """One message with all of them, without checks of foreign keys."""
    return "; ".join(["BEGIN", "SET LOCAL session_replication_role = replica", *statements, "COMMIT"])


class CopyBack(Method):
    """What the methods with TRUNCATE, DELETE and COPY have in common."""

    def prepare(self):
        super().prepare()
        shape = self.bed.shape
        self.directory = copy_out(self.bed.cluster, self.session, shape)
        self.seeded = set(shape.seeded())
        self.script = self.make_script()

    def fill(self, names):
        """COPY and the sequences of some tables."""
        statements = [f"COPY {name} FROM '{self.directory}/{name}'" for name in names if name in self.seeded]
        values = ", ".join(
            f"setval('{name}_id_seq', {self.bed.shape.rows if name in self.seeded else 1}, {str(name in self.seeded).lower()})"
            for name in names)
        return [*statements, f"SELECT {values}"]

    def reset(self):
        self.session.run(self.script)


class TruncateCopy(CopyBack):
    key = "truncate"
    title = "TRUNCATE all + COPY"

    def make_script(self):
        return "; ".join(
            transaction([f"TRUNCATE {', '.join(names)}", *self.fill(names)]) for names in chunks(self.bed.shape.names()))


class DirtyOnly(CopyBack):
    key = "dirty"
    title = "only the dirty tables, by hand"

    def make_script(self):
        dirty = self.bed.test.dirty
        return transaction([*(f"DELETE FROM {name}" for name in reversed(dirty)), *self.fill(dirty)])


class DeleteCopy(CopyBack):
    key = "delete"
    title = "DELETE of the non-empty + COPY"

    def make_script(self):
        """One function for each chunk of tables, so that its plans are made once for the session."""
        calls = []
        for number, names in enumerate(chunks(self.bed.shape.names())):
            body = " ".join(f"IF EXISTS (SELECT FROM {name}) THEN DELETE FROM {name}; END IF;" for name in reversed(names))
            self.session.run(f"CREATE OR REPLACE FUNCTION empty_{number}() RETURNS void LANGUAGE plpgsql AS $$BEGIN {body} END$$")
            calls.append(transaction([f"SELECT empty_{number}()", *self.fill(names)]))
        return "; ".join(calls)


class Template(Method):
    """DROP DATABASE, CREATE DATABASE ... TEMPLATE, and a new connection."""

    strategy = ""

    def prepare(self):
        self.database = f"template_{self.bed.shape.seed}"
        self.bed.cluster.clone(self.bed.shape.seed, self.database)
        self.session = Session(self.database)

    def reset(self):
        admin = self.bed.cluster.admin
        self.session.close()
        # DROP DATABASE sleeps 100 ms when it still finds the session on its way out
        while admin.value(f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{self.database}' AND backend_type = 'client backend'"):
            pass
        admin.run(f"DROP DATABASE {self.database} WITH (FORCE)")
        admin.run(f"CREATE DATABASE {self.database} TEMPLATE {self.bed.shape.seed} STRATEGY {self.strategy}")
        self.session = Session(self.database)

    def close(self):
        super().close()
        self.bed.cluster.drop(self.database)


class TemplateFileCopy(Template):
    key = "file_copy"
    title = "template database, FILE_COPY"
    strategy = "file_copy"


class TemplateWalLog(Template):
    key = "wal_log"
    title = "template database, WAL_LOG"
    strategy = "wal_log"


class PgRestore(Method):
    key = "pg_restore"
    title = "pg_restore --clean -j2"

    def prepare(self):
        super().prepare()
        self.dump = f"{self.bed.cluster.copy_dir}/dump_{self.bed.shape.seed}"
        self.call(["pg_dump", "-Fd", "-Z0", "-f", self.dump, self.bed.shape.seed])

    def call(self, command):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise LeftOut(f"failed: {(done.stderr.strip().splitlines() or ['no message'])[0]}")

    def reset(self):
        self.call(["pg_restore", "--clean", "--if-exists", "-j2", "-d", self.bed.plain, self.dump])

    def close(self):
        super().close()
        subprocess.run(["rm", "-rf", self.dump], check=False)


# The order matters: those that share a database come in the order in which one
# leaves it fit for the next.
OWN = [Restore, Select1, Rollback, TruncateCopy, DirtyOnly, DeleteCopy, PgRestore, TemplateFileCopy, TemplateWalLog]
