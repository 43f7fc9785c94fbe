"""The random work of one session in one round.

A Worker has its own random numbers, derived from seed, round and session, so
that the statements it sends do not depend on what other sessions do.  It ends in
no transaction; transactions it has prepared are left to the round's end, like
the tables and indexes it has made, because other sessions should meet them.

Each operation is a method op_*; OPERATIONS says how often it is taken.  An
operation that dies of a deadlock, a timeout or a constraint is rolled back and the
next one is taken: that is part of the work.
"""
import io
import random

import world
from session import SqlError

LOCK_TIMEOUT = "150ms"


class Worker:
    def __init__(self, session, state, seed, rnd, count):
        self.s = session
        self.state = state
        self.rng = random.Random(f"{seed}/{rnd}/{session.sid}")
        self.tag = f"{rnd}_{session.sid}"
        self.count = count
        self.made = 0
        self.may_prepare = state.prepared_allowed
        self.failure = None

    def work(self):
        """Thread body; a failure is kept for the driver to raise."""
        try:
            self.s.run(f"SET lock_timeout = '{LOCK_TIMEOUT}'")
            names = list(OPERATIONS)
            weights = [OPERATIONS[name] for name in names]
            for _ in range(self.count):
                operation = getattr(self, self.rng.choices(names, weights)[0])
                try:
                    operation()
                except SqlError:
                    pass
                if not self.s.alive():
                    return
                self.s.settle()
            self.s.run("RESET lock_timeout")
        except Exception as error:  # noqa: whatever ends a worker has to reach the driver
            self.failure = error

    # -- pieces -------------------------------------------------------------

    def name(self, what):
        self.made += 1
        return f"{what}_{self.tag}_{self.made}"

    def table(self, want=lambda table: True):
        return self.rng.choice([table for table in self.state.tables if want(table)])

    def storage(self):
        """Any table that VACUUM, CLUSTER or REINDEX can be told to work on."""
        return self.rng.choice([table.name for table in self.state.tables] + world.VIEWS + ["fz.audit", "fz.pr_1", "fz.ph_1", "pg_largeobject"])

    def where(self, table):
        """A condition that takes one row, a few, many, or a pattern over all pages."""
        key, rng = table.key, self.rng
        top = max(table.rows, 40)
        start = rng.randint(1, top)
        if table.fresh and rng.random() < 0.2:
            start += table.fresh
        kind = rng.random()
        if kind < 0.35:
            return f"{key} = {start}"
        if kind < 0.65:
            return f"{key} BETWEEN {start} AND {start + rng.choice([2, 8, 40])}"
        if kind < 0.85:
            modulus = rng.choice([2, 3, 5, 10, 40])
            return f"{key} % {modulus} = {rng.randrange(modulus)}"
        if kind < 0.97:
            return f"{key} BETWEEN {start} AND {start + top // 2}"
        return "true"

    def salt(self):
        return self.rng.randint(1, 90)

    def insert(self, table, conflict=False):
        rng = self.rng
        size = rng.choice([1, 1, 1, 3, 20, rng.randint(1, table.bulk)])
        first = table.fresh + rng.randint(0, 3000)
        tail = ""
        if conflict and table.arbiter:
            first = rng.choice([first, rng.randint(1, max(table.rows, 2))])
            tail = f" ON CONFLICT {table.arbiter} DO NOTHING"
            if rng.random() < 0.7:
                tail = f" ON CONFLICT {table.arbiter} DO UPDATE SET {table.conflict}"
        return world.insert_sql(table, first, first + size - 1, self.salt(), tail)

    def update(self, table):
        return f"UPDATE {table.name} SET {world.salted(self.rng.choice(table.updates), self.salt())} WHERE {self.where(table)}"

    def merge(self, table):
        source = f"SELECT {self.rng.randint(1, max(table.rows, 5))} + g * 3 AS g FROM generate_series(1, {self.rng.randint(1, 50)}) g"
        values = world.salted(table.vals, self.salt())
        action = self.rng.choice(["DELETE", f"UPDATE SET {world.salted(self.rng.choice(table.updates), self.salt())}", "DO NOTHING"])
        return (f"MERGE INTO {table.name} USING ({source}) src ON {table.name}.{table.key} = src.g "
                f"WHEN MATCHED AND src.g % 2 = 0 THEN {action} WHEN NOT MATCHED THEN INSERT ({table.cols}) VALUES ({values})")

    def statement(self):
        """One statement that changes rows."""
        rng = self.rng
        table = self.table()
        kind = rng.random()
        if kind < 0.28:
            return self.insert(table)
        if kind < 0.38:
            return self.insert(table, conflict=True)
        if kind < 0.68:
            return self.update(table)
        if kind < 0.84:
            return f"DELETE FROM {table.name} WHERE {self.where(table)}"
        if kind < 0.88:
            return self.merge(self.table(lambda t: t.fresh and "{s}" in t.vals and t.name != "fz.acc"))
        if kind < 0.93:
            return self.large_object()
        if kind < 0.97:
            return self.sequence()
        return f"SELECT count(*) FROM {table.name} WHERE {self.where(table)}"

    def large_object(self):
        rng = self.rng
        known = rng.choice(world.LARGE_OBJECTS)
        return rng.choice([
            f"SELECT lo_put({known}, {rng.randint(0, 9000)}, convert_to(fz.noise({self.salt()}, {rng.randint(1, 6000)}), 'UTF8'))",
            f"SELECT lo_unlink({known})",
            f"SELECT lo_from_bytea(0, convert_to(fz.noise({self.salt()}, {rng.randint(1, 20000)}), 'UTF8'))",
            f"SELECT lo_create({known + 100})",
            f"SELECT lo_truncate(lo_open({known}, 131072), {rng.randint(0, 4000)})",
            f"SELECT length(lo_get({known}))"])

    def sequence(self):
        rng = self.rng
        name = rng.choice(world.SEQUENCES)
        return rng.choice([f"SELECT nextval('{name}')", f"SELECT nextval('{name}')",
                           f"SELECT count(nextval('{name}')) FROM generate_series(1, {rng.randint(2, 70)})",
                           f"SELECT setval('{name}', {rng.randint(1, 900)}, {rng.choice(['true', 'false'])})"])

    def begin(self):
        level = self.rng.choices(["", " ISOLATION LEVEL REPEATABLE READ", " ISOLATION LEVEL SERIALIZABLE"], [8, 1, 1])[0]
        self.s.run(f"BEGIN{level}")

    def end(self):
        """Finish a transaction one way or another."""
        kind = self.rng.random()
        if kind < 0.12 and self.may_prepare:
            gid = f"fuzz_{self.state.dbname}_{self.name('p')}"
            commit, later = self.rng.random() < 0.6, self.rng.random() < 0.5
            self.s.run(f"PREPARE TRANSACTION '{gid}'")
            if later or not self.s.attempt(f"{'COMMIT' if commit else 'ROLLBACK'} PREPARED '{gid}'"):
                self.state.add_prepared(gid, commit)
        elif kind < 0.34:
            self.s.run("ROLLBACK")
        else:
            self.s.run("COMMIT")

    # -- operations ---------------------------------------------------------

    def op_statement(self):
        self.s.run(self.statement())

    def op_transaction(self):
        self.begin()
        for _ in range(self.rng.randint(1, 4)):
            self.s.run(self.statement())
        self.end()

    def op_savepoints(self):
        """Nested subtransactions; an error goes back to the last savepoint."""
        self.begin()
        depth = 0
        for _ in range(self.rng.randint(2, 6)):
            if self.rng.random() < 0.5:
                depth += 1
                self.s.run(f"SAVEPOINT s{depth}")
            if not self.s.attempt(self.statement()):
                if not depth or not self.s.alive():
                    return
                self.s.run(f"ROLLBACK TO s{depth}")
            elif depth and self.rng.random() < 0.4:
                self.s.run(f"{self.rng.choice(['ROLLBACK TO', 'ROLLBACK TO', 'RELEASE'])} s{depth}")
                depth -= 1
        self.end()

    def op_dead_items(self):
        """Delete or update, then search by index so that entries of the old rows are marked dead.

        The mark is written without WAL and without a new page LSN.
        """
        table = self.table(lambda t: t.rows)
        if self.rng.random() < 0.6:
            self.s.run(f"DELETE FROM {table.name} WHERE {self.where(table)}")
        else:
            self.s.run(self.update(table))
        self.search_by_index(table.name)

    def search_by_index(self, name):
        self.s.run("SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off")
        for probe in self.state.probes:
            if f"{name} t" in probe.source or f"{name}_" in probe.source:
                source = probe.source.replace("{a}", str(self.rng.randint(0, 2500)))
                for _ in range(2):
                    self.s.attempt(f"SELECT count({probe.expr or 't.ctid'}) FROM {source}")
        self.s.run("RESET enable_seqscan; RESET enable_bitmapscan; RESET enable_hashjoin; RESET enable_mergejoin")

    def op_aborted_bulk(self):
        """Rows and pages of a transaction that never was."""
        table = self.table()
        self.begin()
        size = table.bulk * self.rng.randint(1, 2)
        first = table.fresh + 5000
        self.s.run(world.insert_sql(table, first, first + size, self.salt()))
        self.s.attempt(f"DELETE FROM {table.name} WHERE {self.where(table)}")
        self.s.run("ROLLBACK")

    def op_traceless(self):
        """Work after which the heap is as it was, but not its indexes or its TOAST table."""
        table = self.table(lambda t: t.storage)
        self.s.run("BEGIN")
        first = table.fresh + 5000
        rows = self.rng.choice([3, 15, 60, table.bulk * 2])
        self.s.run(world.insert_sql(table, first, first + rows, self.salt()))
        self.s.run("ROLLBACK")
        options = self.rng.choice(["FREEZE, PROCESS_TOAST false", "FREEZE", "FREEZE, INDEX_CLEANUP on"])
        for _ in range(self.rng.randint(1, 2)):
            self.s.run(f"VACUUM ({options}) {table.name}")

    def op_copy(self):
        target, columns, line = self.rng.choice([
            ("fz.plain", "(k, m, v, dup, h)", "{i}\t{i}\tcopied {i}\t1\t{i}"), ("fz.heap", "(id, v)", "{i}\t" + "copied " * 60 + "{i}"),
            ("fz.ph", "(id, k, v)", "{i}\t{i}\tc"), ("fz.line", "(acc, other, amount)", "7\t8\t{i}"),
            ("fz.unl", "(k, h, v)", "{i}\t{i}\tu"), ("fz.dropped", "(a, c, late)", "{i}\t{i}\tlate"), ("fz.nothing", "(id, v)", "{i}\t\\N")])
        rows = "".join(line.replace("{i}", str(i)) + "\n" for i in range(self.rng.randint(1, 120)))
        if target in ("fz.heap", "fz.nothing", "fz.unl") and self.rng.random() < 0.3:
            self.s.run("BEGIN")
            self.s.run(f"TRUNCATE {target}")
            self.s.run(f"COPY {target} {columns} FROM STDIN WITH (FREEZE)", io.StringIO(rows))
            self.end()
        else:
            self.s.run(f"COPY {target} {columns} FROM STDIN", io.StringIO(rows))

    def op_truncate(self):
        tables = {self.table().name for _ in range(self.rng.choice([1, 1, 3]))}
        options = self.rng.choice(["", " RESTART IDENTITY", " RESTART IDENTITY CASCADE", " CASCADE"])
        self.begin()
        self.s.run(f"TRUNCATE {', '.join(sorted(tables))}{options}")
        if self.rng.random() < 0.6:
            self.s.attempt(self.insert(self.table()))
        if self.s.usable():
            self.end()

    def op_vacuum(self):
        options = self.rng.choice(["", "(FREEZE)", "(ANALYZE)", "(INDEX_CLEANUP on)", "(INDEX_CLEANUP off, TRUNCATE off)",
                                   "(FREEZE, DISABLE_PAGE_SKIPPING)", "(PARALLEL 2)", "(FULL)"])
        self.s.run(f"VACUUM {options} {self.storage()}")

    def op_vacuum_all(self):
        self.s.run(self.rng.choice(["VACUUM", "VACUUM (FREEZE)", "ANALYZE", "CHECKPOINT"]))

    def op_cluster(self):
        table = self.table(lambda t: t.cluster)
        self.s.run(f"CLUSTER {table.name} USING {table.cluster}")

    def op_reindex(self):
        rng = self.rng
        concurrently = "CONCURRENTLY " if rng.random() < 0.4 else ""
        index = rng.choice(self.state.probes).index
        if rng.random() < 0.4 and "%" not in index and " " not in index and index != "from_pkey":
            home = "public" if index == "pub_v" else "fz"
            self.s.run(f"REINDEX INDEX {concurrently}{home}.{index}")
        elif rng.random() < 0.9 or concurrently:
            self.s.run(f"REINDEX TABLE {concurrently}{self.storage()}")
        else:
            self.s.run("REINDEX SCHEMA fz")

    def op_refresh(self):
        how = self.rng.choice(["{}", "CONCURRENTLY {}", "{} WITH NO DATA"])
        self.s.run(f"REFRESH MATERIALIZED VIEW {how.format(self.rng.choice(world.VIEWS))}")

    def op_analyze(self):
        self.s.run(f"ANALYZE {self.storage()}")

    def op_row_locks(self):
        """Two sessions on the same rows: multixacts, with and without an update."""
        table = self.table(lambda t: t.rows and t.storage)
        modes = ["FOR KEY SHARE", "FOR SHARE", "FOR NO KEY UPDATE", "FOR UPDATE"]
        rows = f"SELECT count(*) FROM (SELECT 1 FROM ONLY {table.name} WHERE {self.where(table)}"
        self.begin()
        self.s.run(f"{rows} {self.rng.choice(modes[:2])}) x")
        helper = self.state.helper(self.s)
        try:
            helper.run("BEGIN")
            helper.attempt(f"{rows} {self.rng.choice(modes)} NOWAIT) x")
            if self.rng.random() < 0.4:
                self.s.run("SAVEPOINT a")
                self.s.attempt(self.update(table))
                if self.s.broken():
                    self.s.run("ROLLBACK TO a")
            if helper.usable():
                helper.run(self.rng.choice(["COMMIT", "ROLLBACK"]))
        finally:
            helper.settle()
        self.end()

    def op_cursor(self):
        table = self.table(lambda t: t.rows)
        self.s.run("BEGIN")
        self.s.run(f"DECLARE c CURSOR FOR SELECT * FROM {table.name} WHERE {self.where(table)} FOR UPDATE")
        self.s.run("FETCH 1 FROM c")
        if table.storage and "PARTITION" not in table.create[0]:
            self.s.attempt(f"DELETE FROM {table.name} WHERE CURRENT OF c")
        if self.s.usable():
            self.end()

    def op_held_cursor(self):
        """A cursor that outlives its transaction, and perhaps the restore."""
        if self.s.held_cursor:
            self.s.run(f"FETCH 5 FROM {self.s.held_cursor}")
            self.s.run(f"CLOSE {self.s.held_cursor}")
            self.s.held_cursor = None
        else:
            name = self.name("held")
            self.s.run("BEGIN")
            self.s.run(f"DECLARE {name} CURSOR WITH HOLD FOR SELECT * FROM {self.table(lambda t: t.rows).name}")
            self.s.run(f"FETCH 2 FROM {name}")
            self.s.run("COMMIT")
            self.s.held_cursor = name

    def op_large_objects(self):
        self.begin()
        for _ in range(self.rng.randint(1, 3)):
            self.s.run(self.large_object())
        self.end()

    def op_sequences(self):
        if self.rng.random() < 0.1:
            self.s.run(f"ALTER SEQUENCE {self.rng.choice(world.SEQUENCES)} RESTART WITH {self.rng.randint(1, 500)}")
        else:
            self.s.run(self.sequence())
            self.s.run(self.sequence())

    def op_index_upkeep(self):
        name = self.rng.choice(["doc_tsv", "doc_arr", "unl_arr"])
        self.s.run(self.rng.choice([f"SELECT gin_clean_pending_list('fz.{name}')", "SELECT brin_summarize_new_values('fz.ev_ts')",
                                    "SELECT brin_summarize_new_values('fz.ev_n')", f"SELECT brin_desummarize_range('fz.ev_ts', {self.rng.randint(0, 30)})"]))

    def op_new_table(self):
        """A table that the snapshot does not know: a restore empties it."""
        rng = self.rng
        name = f"{world.NEW_SCHEMA}.{self.name('t')}"
        rows = rng.choice([0, 5, 800])
        fill = f"INSERT INTO {name} (v) SELECT fz.noise(g, CASE g % 9 WHEN 0 THEN 9000 ELSE 20 END) FROM generate_series(1, {rows}) g"
        low = 100000 + rng.randint(0, 500) * 100
        create, fill = rng.choice([
            (f"CREATE TABLE {name} AS SELECT g AS id, fz.noise(g, 100) AS v FROM generate_series(1, {rows}) g", fill),
            (f"CREATE UNLOGGED TABLE {name} (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text)", fill),
            (f"CREATE TABLE {name} (id serial PRIMARY KEY, v text UNIQUE, a int[])", fill.replace("9000", "2000")),
            (f"CREATE TABLE {name} PARTITION OF fz.pr FOR VALUES FROM ({low}) TO ({low + 100})",
             f"INSERT INTO fz.pr SELECT {low} + g, g, fz.noise(g, 30) FROM generate_series(1, least({rows}, 99)) g"),
            (f"CREATE MATERIALIZED VIEW {name} AS SELECT id, v FROM fz.filled WHERE id < {rows}", "SELECT 1"),
            (f"CREATE TABLE {name} (LIKE fz.unl INCLUDING ALL)", fill)])
        self.s.run("BEGIN")
        self.s.run(create)
        self.s.run(fill)
        self.end()
        if rng.random() < 0.3:
            self.s.attempt(f"CREATE INDEX ON {name} (v)")
        if rng.random() < 0.3:
            self.s.attempt(f"DROP TABLE {name}")

    def op_new_index(self):
        """An index that the snapshot does not know: a restore rebuilds it."""
        rng = self.rng
        definition = rng.choice(["fz.plain (n)", "fz.plain USING brin (n)", "fz.filled (hits)", "fz.geo USING hash (id)", "fz.doc (lower(body))",
                                 "fz.ev (n) WHERE n % 2 = 0", "fz.unl (md5(v))", "fz.wide (md5(c))", "fz.heap (id)", "fz.heap USING gin (to_tsvector('simple', v))",
                                 "fz.acc (interest)", "fz.line USING hash (amount)", "fz.pr_1 USING spgist (v)", "fz.nothing (id)", "fz.ph (k)"])
        concurrently = "CONCURRENTLY " if rng.random() < 0.25 and not definition.startswith("fz.ph ") else ""
        self.s.run(f"CREATE INDEX {concurrently}{self.name('fznew')} ON {definition}")

    def op_temp_table(self):
        if self.s.temp_rows is None:
            self.s.run(f"CREATE TEMP TABLE mine_{self.s.sid} (id int PRIMARY KEY, v text)")
            self.s.temp_rows = 0
        rows = self.rng.randint(1, 200)
        self.s.run(f"INSERT INTO mine_{self.s.sid} SELECT g + {self.s.temp_rows}, fz.noise(g, 50) FROM generate_series(1, {rows}) g")
        self.s.temp_rows += rows

    def op_discard(self):
        self.s.run("DISCARD ALL")
        self.s.temp_rows = self.s.held_cursor = None
        self.s.run(f"SET lock_timeout = '{LOCK_TIMEOUT}'")

    def op_settings(self):
        self.s.run(self.rng.choice(["SET synchronous_commit = off", "RESET synchronous_commit", "SET enable_seqscan = off", "RESET enable_seqscan",
                                    "SET plan_cache_mode = force_generic_plan", "SET gin_pending_list_limit = '64kB'"]))

    def op_prepared_statement(self):
        name = self.name("st")
        table = self.table(lambda t: t.rows)
        self.s.run(f"PREPARE {name} AS SELECT count(*) FROM {table.name} WHERE {table.key} > $1")
        for _ in range(6):
            self.s.run(f"EXECUTE {name} ({self.rng.randint(1, 500)})")

    def op_readers(self):
        table = self.table()
        self.s.run(f"SELECT count(*), count({table.key}) FROM {table.name} WHERE {self.where(table)}")
        self.search_by_index(table.name)


OPERATIONS = {
    "op_statement": 22, "op_transaction": 22, "op_savepoints": 9, "op_dead_items": 10, "op_aborted_bulk": 5, "op_traceless": 3, "op_copy": 5, "op_truncate": 4,
    "op_vacuum": 6, "op_vacuum_all": 1, "op_cluster": 2, "op_reindex": 4, "op_refresh": 2, "op_analyze": 1, "op_row_locks": 6, "op_cursor": 3,
    "op_held_cursor": 1, "op_large_objects": 4, "op_sequences": 4, "op_index_upkeep": 3, "op_new_table": 2, "op_new_index": 2,
    "op_temp_table": 1, "op_discard": 1, "op_settings": 3, "op_prepared_statement": 2, "op_readers": 3,
}
