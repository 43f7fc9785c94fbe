"""What a restore must give back, and how a difference is found.

A Reference holds what was read right after a snapshot.  Each check reads one
aspect again and returns the differences as lines of text, an empty list when
there is none; it never stops at the first one, because the pattern of several
differences usually names the cause.  Checks of one aspect are a single query over
all relations: a round compares some 40 tables and 90 indexes in well under a second.

Rows are compared with their ctid, xmin and xmax, in physical order: the promise
is the same bytes in the same place, and a row lock left behind is a difference too.
"""
import difflib
import os
import re
import subprocess

import world
from session import Failure, SqlError

# Relations that the snapshot covers.  What belongs to the extension itself is
# its own affair, temporary tables are other sessions' own.
USER_RELATIONS = """SELECT c.oid, c.relkind, format('%I.%I', n.nspname, c.relname) AS name, c.reltoastrelid
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                      AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e')"""

# The same and all that hangs from it, with names that survive a new TOAST table
ALL_STORAGE = f"""WITH u AS ({USER_RELATIONS}), h AS (
        SELECT oid, relkind, name FROM u WHERE relkind IN ('r', 'm', 'S')
        UNION ALL SELECT reltoastrelid, 't', 'toast of ' || name FROM u WHERE relkind IN ('r', 'm') AND reltoastrelid <> 0
        UNION ALL SELECT 'pg_largeobject'::regclass, 'r', 'pg_largeobject')
    SELECT oid, relkind, name FROM h
    UNION ALL SELECT i.indexrelid, 'i', CASE h.relkind WHEN 't' THEN 'index of ' || h.name
                                        ELSE 'index ' || i.indexrelid::regclass::text END
    FROM h JOIN pg_index i ON i.indrelid = h.oid WHERE i.indisvalid"""

SEQUENTIAL = {"enable_indexscan": "off", "enable_indexonlyscan": "off", "enable_bitmapscan": "off", "enable_seqscan": "on",
              "synchronize_seqscans": "off", "max_parallel_workers_per_gather": "0", "search_path": "pg_catalog, public"}
BY_INDEX = {"enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off", "enable_memoize": "off",
            "enable_indexscan": "on", "enable_indexonlyscan": "on", "enable_bitmapscan": "off",
            "max_parallel_workers_per_gather": "0", "search_path": "pg_catalog, public"}
BY_BITMAP = {**BY_INDEX, "enable_bitmapscan": "on"}
SHOWN = 6       # differing lines shown of each table


def literal(text):
    return "'" + text.replace("'", "''") + "'"


def first_differences(before, now, what):
    """The first lines in which two lists of lines differ."""
    found = []
    for at in range(max(len(before), len(now))):
        old = before[at] if at < len(before) else "(nothing)"
        new = now[at] if at < len(now) else "(nothing)"
        if old != new:
            found.append(f"    line {at + 1}: was {old}")
            found.append(f"    {' ' * len(str(at + 1))}      now {new}")
            if len(found) >= 2 * SHOWN:
                break
    return [f"{what}: {len(before)} lines were, {len(now)} are now"] + found


def changed_keys(before, now, what):
    """Differences of two dictionaries; keys that are only in the new one do not count."""
    return [f"{what} of {key}: was {value}, now {now.get(key, 'gone')}" for key, value in before.items() if now.get(key) != value]


class Reference:
    """The state of the database that a snapshot stands for."""

    def __init__(self):
        self.tables = {}        # name -> (rows, hash)
        self.lines = {}         # name -> its rows as text
        self.sequences = {}
        self.large_objects = []
        self.sizes = {}
        self.summaries = {}     # BRIN index -> ranges that have a summary
        self.placement = None   # measured once, by a fresh session
        self.dump = None


class Checker:
    def __init__(self, where, pg_dump, tables, probes):
        self.where = where
        self.pg_dump = pg_dump
        self.tables = tables
        self.probes = probes
        self.stale = []         # what the indexes showed beside the rows just placed

    # -- reading ------------------------------------------------------------

    @staticmethod
    def with_settings(session, settings, sql):
        """Run a query under settings that end with it, inside a transaction or not."""
        begin, end = ("SAVEPOINT look", "ROLLBACK TO look") if session.in_transaction() else ("BEGIN", "COMMIT")
        session.run(f"{begin}; " + "; ".join(f"SET LOCAL {name} = {value}" for name, value in settings.items()))
        try:
            rows = session.run(sql)
        except (SqlError, Failure):
            session.settle()
            raise
        session.run(end)
        return rows

    def names(self, session, kinds):
        return [name for (name,) in session.run(f"SELECT name FROM ({USER_RELATIONS}) u WHERE relkind = ANY ('{{{kinds}}}') ORDER BY 1")]

    def read_tables(self, session, names):
        parts = [f"""SELECT {literal(name)}, count(*), md5(string_agg(concat_ws(' ', ctid, xmin, xmax, md5(t::text)), ';'))
            FROM ONLY {name} t""" for name in names]
        return {name: (rows, digest) for name, rows, digest in self.with_settings(session, SEQUENTIAL, " UNION ALL ".join(parts))}

    def read_lines(self, session, name):
        sql = f"SELECT concat_ws(' ', ctid, xmin, xmax, md5(t::text), left(t::text, 100)) FROM ONLY {name} t"
        return [line for (line,) in self.with_settings(session, SEQUENTIAL, sql)]

    def read_sequences(self, session):
        parts = [f"SELECT {literal(name)}, last_value, is_called, log_cnt FROM {name}" for name in self.names(session, "S")]
        return {name: f"last_value {last}, is_called {called}, log_cnt {log}"
                for name, last, called, log in session.run(" UNION ALL ".join(parts))}

    def read_large_objects(self, session):
        rows = session.run("""SELECT concat_ws(' ', 'object', oid, lomowner, lomacl) AS line FROM pg_largeobject_metadata
            UNION ALL SELECT concat_ws(' ', 'page', loid, pageno, length(data), md5(data)) FROM pg_largeobject ORDER BY 1""")
        return [line for (line,) in rows]

    def read_sizes(self, session):
        rows = session.run(f"""SELECT name, pg_relation_size(oid, 'main'), pg_relation_size(oid, 'init') FROM ({ALL_STORAGE}) s""")
        return {name: f"{main} bytes, init fork {init}" for name, main, init in rows}

    def read_summaries(self, session):
        return {name: session.value(f"SELECT count(*) FROM brin_revmap_data(get_raw_page('{name}', 1)) r WHERE r::text NOT LIKE '%,0)'")
                for name in world.BRIN}

    def read_placement(self, session, rng=None):
        """Where the next rows and sequence values go; leaves dead rows behind.

        With the new rows in place the indexes are compared again: an entry that a
        restore forgot to take back points to nothing until its place is taken.
        """
        found = []
        session.run("BEGIN")
        for table in self.tables:
            rows = {"fz.filled": 40, "fz.wide": 2, "fz.heap": 15}.get(table.name, 3)
            first = 95000 if table.name == "fz.pr" else 150000
            sql = world.insert_sql(table, first, first + rows - 1, 77, f" RETURNING tableoid::regclass::text, ctid::text, {table.key}", placed=True)
            session.run("SAVEPOINT one")
            try:
                found += [" ".join(map(str, row)) for row in session.run(sql)]
            except SqlError as error:
                # a sequence that random work set back runs into rows there are: always at the same one
                found.append(f"{table.name}: {error}")
                session.run("ROLLBACK TO one")
        for name in world.SEQUENCES:
            found.append(f"{name} nextval {session.value(f'SELECT nextval({literal(name)})')}")
        if rng:
            self.stale = self.check_indexes(session, rng)
        session.run("ROLLBACK")
        return found

    def read_dump(self, unknown=()):
        """The data as pg_dump writes it, without the tables that a snapshot does not know."""
        command = [self.pg_dump, "--data-only", "--no-password", "-h", self.where["host"], "-p", str(self.where["port"]),
                   "-U", self.where["user"], *[f"--exclude-table={name}" for name in unknown], self.where["dbname"]]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PGCLIENTENCODING": "UTF8"}, encoding="utf-8")
        if done.returncode:
            raise Failure(f"pg_dump failed: {done.stderr.strip()}")
        if "COPY fz.plain " not in done.stdout:
            raise Failure(f"{self.pg_dump} gave no dump of fz.plain")
        # comments and the random key of \restrict say nothing about the data
        return [line for line in done.stdout.splitlines() if line and not re.match(r"--|\\(un)?restrict ", line)]

    def read_reference(self, session):
        ref = Reference()
        names = self.names(session, "r,m")
        ref.tables = self.read_tables(session, names)
        ref.lines = {name: self.read_lines(session, name) for name in names}
        ref.sequences = self.read_sequences(session)
        ref.large_objects = self.read_large_objects(session)
        ref.sizes = self.read_sizes(session)
        ref.summaries = self.read_summaries(session)
        if self.pg_dump:
            ref.dump = self.read_dump()
        return ref

    # -- comparing ----------------------------------------------------------

    def check_tables(self, session, ref):
        names = self.names(session, "r,m")
        found = [f"table {name} is gone" for name in ref.tables if name not in names]
        now = self.read_tables(session, names)
        for name in names:
            if name not in ref.tables:
                if now[name][0]:
                    found.append(f"table {name} was made since the snapshot and has {now[name][0]} rows")
            elif now[name] != ref.tables[name]:
                found += first_differences(ref.lines[name], self.read_lines(session, name), f"rows of {name}")
        return found

    def check_sequences(self, session, ref):
        now = self.read_sequences(session)
        odd = [f"sequence {name} {state}: log_cnt is not 0" for name, state in now.items()
               if name in ref.sequences and not state.endswith("log_cnt 0")]
        return changed_keys(ref.sequences, now, "sequence state") + odd

    def check_large_objects(self, session, ref):
        now = self.read_large_objects(session)
        return [] if now == ref.large_objects else first_differences(ref.large_objects, now, "large objects")

    def check_sizes(self, session, ref):
        return changed_keys(ref.sizes, self.read_sizes(session), "size")

    def check_summaries(self, session, ref):
        return changed_keys(ref.summaries, self.read_summaries(session), "summarized ranges")

    def check_visibility(self, session, ref):
        rows = session.run(f"""SELECT s.name, pg_relation_size(s.oid) / current_setting('block_size')::int, v.all_visible, v.all_frozen,
                (SELECT count(*) FROM pg_check_frozen(s.oid)), (SELECT count(*) FROM pg_check_visible(s.oid))
            FROM ({ALL_STORAGE}) s, pg_visibility_map_summary(s.oid) v WHERE s.relkind IN ('r', 'm', 't')""")
        return [f"visibility of {name}: {pages} pages, {visible} all-visible, {frozen} all-frozen, "
                f"{not_frozen} rows wrongly frozen, {not_visible} wrongly visible"
                for name, pages, visible, frozen, not_frozen, not_visible in rows
                if visible != pages or frozen != pages or not_frozen or not_visible]

    def probe_sql(self, rng):
        """A search by each probe: number -> query of one row."""
        found = {}
        for number, probe in enumerate(self.probes):
            source = probe.source.replace("{a}", str(rng.randint(0, 2500)))
            found[number] = (f"SELECT {number}, count(*), md5(string_agg(x, ',' ORDER BY x)) "
                             f"FROM (SELECT ({probe.expr or 't.ctid'})::text AS x FROM {source}) s")
        return found

    def check_indexes(self, session, rng):
        """Every index finds the rows that a sequential scan finds."""
        queries = self.probe_sql(rng)
        by_index = []
        for settings, bitmap in ((BY_INDEX, False), (BY_BITMAP, True)):
            some = [query for number, query in queries.items() if self.probes[number].bitmap == bitmap]
            by_index += self.with_settings(session, settings, " UNION ALL ".join(some))
        by_table = self.with_settings(session, SEQUENTIAL, " UNION ALL ".join(queries.values()))
        return [f"index {self.probes[index[0]].index}: {index[1]} rows by index, {seq[1]} by sequential scan: {queries[index[0]]}"
                for index, seq in zip(sorted(by_index), sorted(by_table)) if index != seq]

    def check_plans(self, session, rng):
        """Asked once: does each probe use the index it is meant for, and how?"""
        found = []
        for probe in self.probes:
            source = probe.source.replace("{a}", str(rng.randint(0, 2500)))
            query = f"EXPLAIN (COSTS off) SELECT ({probe.expr or 't.ctid'})::text FROM {source}"
            wanted = r"(using|on) \"?" + ".*".join(map(re.escape, probe.index.split("%"))) + r"\"?(\s|$)"
            for settings, bitmap in ((BY_INDEX, False), (BY_BITMAP, True)):
                plan = "\n".join(line for (line,) in self.with_settings(session, settings, query))
                probe.bitmap = bitmap
                if re.search(wanted, plan):
                    break
            else:
                found.append(f"the probe of {probe.index} is answered otherwise:\n{plan}")
            if probe.expr and "Index Only Scan" not in plan:
                found.append(f"the probe of {probe.index} is no index-only scan:\n{plan}")
        return found

    def check_btrees(self, session, which, parent):
        """amcheck: which is 'user' or 'catalog'."""
        version = session.conn.server_version
        unique = ", true" if version >= 170000 else ""
        call = f"bt_index_parent_check(c.oid, true, true{unique})" if parent else f"bt_index_check(c.oid, true{unique})"
        home = "c.oid < 16384 AND c.relnamespace = 'pg_catalog'::regnamespace"
        large = "i.indrelid = 'pg_largeobject'::regclass"
        picked = home if which == "catalog" else f"(NOT ({home}) OR {large})"
        return self.as_differences(session, f"amcheck of {which} indexes", f"""SELECT {call} FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
            JOIN pg_am a ON a.oid = c.relam WHERE a.amname = 'btree' AND c.relkind = 'i' AND c.relpersistence <> 't' AND i.indisvalid AND {picked}""")

    def check_gins(self, session):
        """PostgreSQL 18's amcheck knows GIN."""
        if session.conn.server_version < 180000:
            return []
        return self.as_differences(session, "amcheck of GIN indexes", """SELECT gin_index_check(c.oid) FROM pg_index i
            JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
            WHERE a.amname = 'gin' AND c.relkind = 'i' AND c.relpersistence <> 't' AND i.indisvalid""")

    def check_analyze(self, session):
        return self.as_differences(session, "ANALYZE", "ANALYZE")

    def check_heaps(self, session):
        rows = session.run(f"""SELECT s.name, v.blkno, v.offnum, v.attnum, v.msg
            FROM ({ALL_STORAGE}) s, verify_heapam(s.oid) v WHERE s.relkind IN ('r', 'm', 't')""")
        return [f"verify_heapam of {name}: block {block}, item {item}, attribute {attribute}: {message}"
                for name, block, item, attribute, message in rows[:SHOWN]]

    @staticmethod
    def as_differences(session, what, sql):
        """A check that says what is wrong by an error."""
        try:
            session.run(sql)
            return []
        except (SqlError, Failure) as error:
            if not session.alive():
                raise
            session.settle()
            return [f"{what}: {error}"]

    def check_dump(self, session, ref):
        now = self.read_dump([name for name in self.names(session, "r,m") if name not in ref.tables])
        if now == ref.dump:
            return []
        lines = [line[:200] for line in difflib.unified_diff(ref.dump, now, "dump before", "dump now", lineterm="", n=0)]
        return ["pg_dump differs:"] + ["    " + line for line in lines[:3 * SHOWN]]

    def autovacuumed(self, session, ref, since):
        """What autovacuum has done since a time: it does so to a database that equals its snapshot, too.

        Statistics of sessions that worked before the restore arrive after it, and ranges
        that were to be summarized are still in the queue.
        """
        rows = session.run(f"""SELECT schemaname || '.' || relname FROM pg_stat_all_tables
            WHERE (relid >= 16384 OR relname = 'pg_largeobject') AND greatest(last_autovacuum, last_autoanalyze) >= '{since}'""")
        return [name for (name,) in rows] + self.check_summaries(session, ref)

    def check_placement(self, session, ref, rng):
        now = self.read_placement(session, rng)
        return self.stale + ([] if now == ref.placement else first_differences(ref.placement, now, "placement of new rows"))
