# Other people's programs that reset a database, each with its own code as its
# registry has it.
#
# Each runs in a process of its own, as its versions of drivers and settings are
# its own, and is told "reset" on its standard input; the pipe adds some tens of
# microseconds.  One that did not install, or does not start, has no figure: it
# is listed with the reason.
import os
import subprocess
import sys

from cluster import Session
from measure import LeftOut
from methods import Method, transaction
from schema import chunks, copy_out

HERE = os.path.dirname(os.path.abspath(__file__))
MOST_DJANGO_ROWS = 20000


class Helper:
    """A process that says "ready VERSION" and answers "ok" or "error: why" to each reset."""

    def __init__(self, command):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        text=True, bufsize=1)
        first = self.process.stdout.readline().strip()
        if not first.startswith("ready "):
            raise LeftOut(f"did not start: {self.last_words(first)}")
        self.version = first[len("ready "):]

    def last_words(self, line):
        self.process.kill()
        words = line or (self.process.stderr.read().strip().splitlines() or ["no message"])[-1]
        return words.removeprefix("error: ")

    def reset(self):
        self.process.stdin.write("reset\n")
        answer = self.process.stdout.readline().strip()
        if answer != "ok":
            raise LeftOut(f"failed: {self.last_words(answer)}")

    def close(self):
        self.process.stdin.close()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.process.stderr.close()


class Peer(Method):
    package = ""        # as run.sh calls it
    reconnects = True
    peers_dir = ""      # where run.sh noted what is missing
    versions = {}       # what was found, for the report

    helper = None
    database = None

    def command(self):
        raise NotImplementedError

    @classmethod
    def missing(cls):
        try:
            with open(os.path.join(cls.peers_dir, f"{cls.package}.missing"), encoding="utf-8") as file:
                return file.read().strip() or "it did not install"
        except FileNotFoundError:
            return None

    def prepare(self):
        if self.missing():
            raise LeftOut(f"not there: {self.missing()}")
        self.database = f"{self.package}_{self.bed.shape.seed}"
        self.bed.cluster.clone(self.bed.shape.seed, self.database)
        self.helper = Helper(self.command())
        self.versions[self.package] = self.helper.version
        self.session = Session(self.database)

    def reset(self):
        if self.reconnects:
            self.session.close()
        self.helper.reset()
        if self.reconnects:
            self.session = Session(self.database)

    def close(self):
        super().close()
        if self.helper:
            self.helper.close()
        if self.database:
            self.bed.cluster.drop(self.database)


class PytestPostgresql(Peer):
    key = "pytest_postgresql"
    title = "pytest-postgresql"
    package = "pytest_postgresql"

    def command(self):
        return [sys.executable, f"{HERE}/peers/pytest_postgresql_peer.py", self.database, self.bed.shape.seed]


class Testcontainers(Peer):
    key = "testcontainers"
    title = "testcontainers-go Restore"
    package = "testcontainers"

    def command(self):
        return [f"{self.peers_dir}/testcontainers", self.database]

    def close(self):
        super().close()
        # the template that its own Snapshot made
        admin = self.bed.cluster.admin
        admin.run("UPDATE pg_database SET datistemplate = false WHERE datname = 'migrated_template'")
        admin.run("DROP DATABASE IF EXISTS migrated_template")


class Django(Peer):
    package = "django"
    reconnects = False
    way = ""

    def prepare(self):
        shape = self.bed.shape
        rows = shape.rows * len(shape.seeded())
        if rows > MOST_DJANGO_ROWS and self.way == "seed":
            raise LeftOut(f"not asked to keep {rows} rows in memory")
        super().prepare()

    def command(self):
        return [sys.executable, f"{HERE}/peers/django_peer.py", self.database, str(self.bed.shape.tables), self.way]


class DjangoSeed(Django):
    key = "django"
    title = "Django flush + serialized seed"
    way = "seed"


class DjangoFlush(Django):
    key = "django_flush"
    title = "Django flush (leaves it empty)"
    way = "flush"
    gives_seed_back = False

    def prepare(self):
        super().prepare()
        shape = self.bed.shape
        directory = copy_out(self.bed.cluster, self.session, shape)
        self.refill = "; ".join(transaction(f"COPY {name} FROM '{directory}/{name}'" for name in names) for names in chunks(shape.seeded()))

    def work(self, number):
        # the next test needs the rows that this reset does not bring back
        if number:
            self.session.run(self.refill)
        super().work(number)

    def first_answer(self):
        return self.session.rows("SELECT 1 FROM t_00001 LIMIT 1")


PEERS = [PytestPostgresql, Testcontainers, DjangoSeed, DjangoFlush]
