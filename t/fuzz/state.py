"""The fuzzer's database and the sessions on it.

Sessions are pooled: most of them stay connected from round to round, idle
over the restores, with whatever their backends have cached; that is how an
application's connection pool meets a restore.  Objects that random work makes
are found by their names here, so that no bookkeeping of the work's is needed.
"""
import threading

import world
from engine import ENGINES
from session import Failure, OpLog, Session, SqlError

WANTED = ["amcheck", "pg_visibility", "pageinspect"]
OPTIONAL = ["btree_gist", "pg_trgm"]
OPTIONS = "-c deadlock_timeout=50ms -c statement_timeout=60s -c client_min_messages=warning"


class State:
    def __init__(self, args, dbname):
        self.dbname = dbname
        self.where = {"host": args.host, "port": args.port, "user": args.user, "dbname": dbname, "options": OPTIONS}
        self.tablespace_dir = args.tablespace_dir
        self.tablespace = f"{dbname}_ts" if args.tablespace_dir else ""
        self.log = OpLog()
        self.engine = ENGINES[args.engine](self, not args.no_check)
        self.pool = {}          # session id -> Session
        self.helpers = {}
        self.prepared = []
        self.lock = threading.Lock()

    def session(self, sid):
        return Session(self.where, sid, self.log)

    def admin(self):
        return Session({**self.where, "dbname": "postgres"}, "admin", self.log)

    # -- the database -------------------------------------------------------

    def create(self):
        admin = self.admin()
        if admin.run(f"SELECT 1 FROM pg_database WHERE datname = '{self.dbname}'"):
            admin.close()
            raise Failure(f"database {self.dbname} exists already")
        self.prepared_allowed = admin.value("SHOW max_prepared_transactions") != "0"
        if self.tablespace:
            admin.run(f"CREATE TABLESPACE {self.tablespace} LOCATION '{self.tablespace_dir}'")
        admin.run(f"CREATE DATABASE {self.dbname} TEMPLATE template0")
        session = self.session("setup")
        for name in WANTED:
            session.run(f"CREATE EXTENSION {name}")
        available = {name for (name,) in session.run("SELECT name FROM pg_available_extensions")}
        for name in OPTIONAL:
            if name in available:
                session.run(f"CREATE EXTENSION {name}")
        self.engine.prepare(session)
        session.close()
        admin.close()
        self.tables = world.tables("btree_gist" in available, "pg_trgm" in available, self.tablespace)
        self.probes = world.probes("pg_trgm" in available, self.tablespace)
        return [name for name in OPTIONAL if name not in available]

    def seed(self, rng, in_transaction):
        """Schema and rows, and the first snapshot; all of it in one transaction, or the snapshot after it."""
        session = self.session("setup")
        session.run("BEGIN")
        for statement in world.seed_sql(self.tables, rng):
            try:
                session.run(statement)
            except SqlError as error:
                raise Failure(f"seeding: {error}: {statement}") from error
        if not in_transaction:
            session.run("COMMIT")
            session.run("ANALYZE")
        else:
            # pending events of deferred constraints name rows by their ctid
            session.run("SET CONSTRAINTS ALL IMMEDIATE")
        try:
            self.engine.snapshot(session, "default")
        except SqlError as error:
            raise Failure(f"testenv_snapshot: {error}") from error
        if session.alive() and session.in_transaction():
            session.run("COMMIT")
            session.run("ANALYZE")
        session.close()

    def destroy(self):
        self.disconnect()
        admin = self.admin()
        for (gid,) in admin.run(f"SELECT gid FROM pg_prepared_xacts WHERE database = '{self.dbname}'"):
            session = self.session("setup")
            session.run(f"ROLLBACK PREPARED '{gid}'")
            session.close()
        admin.run(f"DROP DATABASE IF EXISTS {self.dbname} WITH (FORCE)")
        self.engine.close()
        if self.tablespace:
            admin.run(f"DROP TABLESPACE IF EXISTS {self.tablespace}")
        admin.close()

    # -- sessions -----------------------------------------------------------

    def take(self, count):
        """The first sessions of the pool, connected."""
        for number in range(1, count + 1):
            sid = f"s{number}"
            if sid not in self.pool or not self.pool[sid].alive():
                self.pool[sid] = self.session(sid)
        return [self.pool[f"s{number}"] for number in range(1, count + 1)]

    def helper(self, session):
        """A second session for work that takes two."""
        with self.lock:
            helper = self.helpers.get(session.sid)
            if helper is None or not helper.alive():
                helper = self.helpers[session.sid] = self.session(session.sid + "h")
                helper.run("SET lock_timeout = '150ms'")
            return helper

    def everyone(self):
        return [session for session in list(self.pool.values()) + list(self.helpers.values()) if session.alive()]

    def leave(self, rng, chance):
        """Some sessions end."""
        for sid, session in list(self.pool.items()):
            if rng.random() < chance or not session.alive():
                session.close()
                del self.pool[sid]

    def disconnect(self):
        for session in self.everyone():
            session.close()
        self.pool.clear()
        self.helpers.clear()

    def add_prepared(self, gid, commit):
        with self.lock:
            self.prepared.append((gid, commit))

    def settle(self):
        """No session in a transaction, no transaction prepared."""
        for session in self.everyone():
            session.settle()
        if self.prepared:
            session = self.session("finish")
            for gid, commit in self.prepared:
                session.run(f"{'COMMIT' if commit else 'ROLLBACK'} PREPARED '{gid}'")
            self.prepared.clear()
            session.close()

    # -- what the work has made ---------------------------------------------

    def new_objects(self, session):
        """Statements that drop what the snapshots do not know."""
        indexes = session.run("""SELECT i.indexrelid::regclass::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
            WHERE NOT c.relispartition AND (c.relname ~ '^fznew_' OR (NOT i.indisvalid AND c.relname ~ '_cc(new|old)[0-9]*$')
               OR (NOT i.indisvalid AND c.relnamespace = 'pg_toast'::regnamespace))
              AND c.relpersistence <> 't' ORDER BY 1""")
        tables = session.run(f"""SELECT c.oid::regclass::text, c.relkind FROM pg_class c WHERE c.relnamespace = '{world.NEW_SCHEMA}'::regnamespace
            AND c.relkind IN ('r', 'p', 'm') ORDER BY 1""")
        return ([f"DROP INDEX {name}" for (name,) in indexes] +
                [f"DROP {'MATERIALIZED VIEW' if kind == 'm' else 'TABLE'} {name}" for name, kind in tables])

    def drop_new_objects(self, session, rng, chance=1.0):
        statements = [statement for statement in self.new_objects(session) if rng.random() < chance]
        for statement in statements:
            session.run(statement)
        return len(statements)
