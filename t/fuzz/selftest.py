"""Does the fuzzer notice?  A difference of every kind, made on purpose.

A check that cannot fail proves nothing, so each kind of difference is made in
a database that equals its snapshot, and the check responsible for it has to
report it, and name it.  Then the database is cloned anew (engine Template) and
the whole comparison has to be content again: a check that always reports
something would pass the first half.

An index that has lost entries is made by telling PostgreSQL for one INSERT that
the index does not exist yet (pg_index.indisready): the only way to a wrong index
that needs neither a damaged file nor an extension.
"""
import random

from engine import Nothing
from session import Failure, SqlError


def blind_insert(index, insert):
    """Rows that the index never hears of."""
    ready = f"UPDATE pg_index SET indisready = {{}} WHERE indexrelid = '{index}'::regclass"
    return [ready.format("false"), insert, ready.format("true")]


PLAIN = "INSERT INTO fz.plain (id, k, m, v, n, dup, p, e, h) SELECT 90000 + g, 4, 5, 'v', 6, 2, 3, 4, 5 FROM generate_series(1, 9) g"
GEO = """INSERT INTO fz.geo SELECT 90000 + g, '[5,9)', '(3,4)', '(3,4)', '(3,4)', 'abc' FROM generate_series(1, 9) g"""
UNL = "INSERT INTO fz.unl (k, h, v, r, arr) SELECT 4, 5, 'v', '[5,9)', '{3}' FROM generate_series(1, 9) g"
DOC = """INSERT INTO fz.doc (id, body, arr, j, tri) SELECT 90000 + g, 'w3', '{3}', '{"k": 1}', 'abcdef' FROM generate_series(1, 9) g"""

# what is done, the check that has to notice, what its report has to say
DIFFERENCES = [
    ("a changed row", ["UPDATE fz.plain SET v = 'other' WHERE id IN (4, 5)"], "check_tables", "rows of fz.plain"),
    ("a missing row", ["DELETE FROM fz.unl WHERE id IN (3, 4)"], "check_tables", "rows of fz.unl"),
    ("a row more, in a partition", ["INSERT INTO fz.pr VALUES (2500, 1, 'x')"], "check_tables", "rows of fz.pr_3"),
    ("the same row in another place", ["BEGIN", "CREATE TEMP TABLE kept ON COMMIT DROP AS SELECT * FROM fz.heap WHERE id IN (5, 6)",
        "DELETE FROM fz.heap WHERE id IN (5, 6)", "INSERT INTO fz.heap SELECT * FROM kept", "COMMIT"], "check_tables", "rows of fz.heap"),
    ("rows in another order", ["CLUSTER fz.plain USING plain_k"], "check_tables", "rows of fz.plain"),
    ("a row lock left behind", ["BEGIN", "SELECT * FROM fz.filled WHERE id IN (4, 5) FOR SHARE", "COMMIT"], "check_tables", "rows of fz.filled"),
    ("one byte in a TOAST value", ["UPDATE fz.wide SET e = overlay(e placing 'X' from 2500) WHERE id IN (9, 10)"], "check_tables", "rows of fz.wide"),
    ("a value of the column added late", ["UPDATE fz.fast SET x = 41 WHERE id IN (8, 9)"], "check_tables", "rows of fz.fast"),
    ("a row in an empty table", ["INSERT INTO fz.nothing VALUES (1)"], "check_tables", "rows of fz.nothing"),
    ("a materialized view refreshed", ["UPDATE fz.plain SET m = 1", "REFRESH MATERIALIZED VIEW fz.mv"], "check_tables", "rows of fz.mv"),
    ("a row in the oddly named table", ["""DELETE FROM "odd ""S"" ünï"."Tab'le ""q"" ☃" WHERE "Ke y" IN (5, 6)"""], "check_tables", "Tab'le"),
    ("a table that is gone", ["DROP TABLE fz.nothing"], "check_tables", "fz.nothing is gone"),
    ("a new table with rows", ["CREATE TABLE fz_new.t AS SELECT 1 AS a"], "check_tables", "fz_new.t was made since"),
    ("a sequence's value", ["SELECT nextval('fz.free1')"], "check_sequences", "fz.free1"),
    ("a sequence's is_called", ["SELECT setval('fz.unused', 7, true)"], "check_sequences", "fz.unused"),
    ("an identity sequence restarted", ["ALTER SEQUENCE fz.plain_id_seq RESTART"], "check_sequences", "fz.plain_id_seq"),
    ("a sequence with values logged ahead", ["SELECT setval('fz.free1', 1)", "SELECT nextval('fz.free1')"], "check_sequences", "log_cnt is not 0"),
    ("a changed large object", ["SELECT lo_put(900003, 2100, 'x')"], "check_large_objects", "page 900003"),
    ("a large object more", ["SELECT lo_create(5)"], "check_large_objects", "object 5"),
    ("a large object less", ["SELECT lo_unlink(900001)"], "check_large_objects", "object 900001"),
    ("a heap that grew", ["BEGIN", "INSERT INTO fz.heap SELECT g, repeat('x', 500) FROM generate_series(1, 300) g", "ROLLBACK"], "check_sizes", "fz.heap"),
    ("an index that grew", ["BEGIN", PLAIN.replace("(1, 9)", "(1, 3000)"), "ROLLBACK"], "check_sizes", "plain_pkey"),
    ("a TOAST table that grew", ["BEGIN", "INSERT INTO fz.wide SELECT 900, fz.noise(1, 90000)", "ROLLBACK"], "check_sizes", "toast of fz.wide"),
    ("a heap that shrank", ["TRUNCATE fz.heap"], "check_sizes", "fz.heap"),
    ("an index that is gone", ["DROP INDEX fz.plain_e"], "check_sizes", "plain_e"),
    ("a page not all-frozen", ["BEGIN", "DELETE FROM fz.heap WHERE id IN (5, 6)", "ROLLBACK"], "check_visibility", "fz.heap"),
    ("a TOAST page not all-frozen", ["BEGIN", "DELETE FROM fz.wide WHERE id IN (5, 6)", "ROLLBACK"], "check_visibility", "toast of fz.wide"),
    ("a large object page not all-frozen", ["BEGIN", "SELECT lo_unlink(900001)", "ROLLBACK"], "check_visibility", "pg_largeobject"),
    ("entries missing in a btree", blind_insert("fz.plain_k", PLAIN), "check_indexes", "plain_k"),
    ("entries missing in a primary key", blind_insert("fz.plain_pkey", PLAIN), "check_indexes", "plain_pkey"),
    ("entries missing in a partial index", blind_insert("fz.plain_p", PLAIN), "check_indexes", "plain_p"),
    ("entries missing in an expression index", blind_insert("fz.plain_e", PLAIN), "check_indexes", "plain_e"),
    ("entries missing in an INCLUDE index", blind_insert("fz.plain_mv", PLAIN), "check_indexes", "plain_mv"),
    ("entries missing in a hash index", blind_insert("fz.plain_h", PLAIN), "check_indexes", "plain_h"),
    ("entries missing in a GiST index", blind_insert("fz.geo_r", GEO), "check_indexes", "geo_r"),
    ("entries missing in a GiST index of points", blind_insert("fz.geo_p", GEO), "check_indexes", "geo_p"),
    ("entries missing in an SP-GiST quadtree", blind_insert("fz.geo_q", GEO), "check_indexes", "geo_q"),
    ("entries missing in an SP-GiST kd tree", blind_insert("fz.geo_q2", GEO), "check_indexes", "geo_q2"),
    ("entries missing in an SP-GiST radix tree", blind_insert("fz.geo_t", GEO), "check_indexes", "geo_t"),
    ("entries missing in a GIN index of arrays", blind_insert("fz.doc_arr", DOC), "check_indexes", "doc_arr"),
    ("entries missing in a GIN index of texts", blind_insert("fz.doc_tsv", DOC), "check_indexes", "doc_tsv"),
    ("a BRIN range without a summary", ["SELECT brin_desummarize_range('fz.ev_b', 0)"], "check_summaries", "fz.ev_b"),
    ("a BRIN range too narrow", blind_insert("fz.ev_ts", "UPDATE fz.ev SET ts = ts + interval '9 years' WHERE id < 40"), "check_indexes", "ev_ts"),
    ("entries missing in an unlogged hash index", blind_insert("fz.unl_h", UNL), "check_indexes", "unl_h"),
    ("entries missing, seen by amcheck", blind_insert("fz.plain_k", PLAIN), "amcheck user", "plain_k"),
    ("entries missing in a TOAST index, seen by amcheck", None, "amcheck user", "pg_toast"),
    ("entries missing in a catalog index", blind_insert("pg_description_o_c_o_index", "COMMENT ON TABLE fz.plain IS 'new'"), "amcheck catalog",
        "pg_description_o_c_o_index"),
    ("a heap older than its freeze limit", ["DELETE FROM fz.heap WHERE id IN (5, 6)",
        "UPDATE pg_class SET relfrozenxid = pg_current_xact_id()::xid WHERE oid = 'fz.heap'::regclass"], "check_heaps", "fz.heap"),
    ("a row that the dump has not had", ["INSERT INTO fz.nothing VALUES (77, 'dumped')"], "check_dump", "dumped"),
    ("a sequence's value in the dump", ["SELECT setval('fz.free1', 787)"], "check_dump", "787"),
    ("rows that go elsewhere", ["DELETE FROM fz.heap WHERE id BETWEEN 20 AND 90", "VACUUM fz.heap"], "check_placement", "fz.heap"),
    ("a session's cached sequence values", ["SELECT nextval('fz.free10')"], "check_placement same session", "fz.free10 nextval"),
]


def toast_blind(session):
    """The TOAST index has no fixed name."""
    name = session.value("SELECT indexrelid::regclass FROM pg_index WHERE indrelid = (SELECT reltoastrelid FROM pg_class WHERE oid = 'fz.wide'::regclass)")
    return blind_insert(name, "INSERT INTO fz.wide VALUES (901, 'a', fz.noise(1, 20000), 'b')")


def run_check(fuzzer, check, session, ref, rng):
    checker = fuzzer.checker
    if check == "check_indexes":
        return checker.check_indexes(session, rng)
    if check == "amcheck user":
        return checker.check_btrees(session, "user", parent=False) and checker.check_btrees(session, "user", parent=True)
    if check == "amcheck catalog":
        return checker.check_btrees(session, "catalog", parent=False)
    if check == "check_heaps":
        return checker.check_heaps(session)
    if check.startswith("check_placement"):
        return checker.check_placement(session, ref, rng)
    return getattr(checker, check)(session, ref)


def difference(fuzzer, rng, what, statements, check, says):
    """Make it, see it reported, take it back, see nothing reported."""
    session = fuzzer.state.session("mischief")
    session.run("SET allow_system_table_mods = on")
    for statement in statements or toast_blind(session):
        session.run(statement)
    other = session if "same session" in check else fuzzer.state.session("compare")
    found = run_check(fuzzer, check, other, fuzzer.refs["default"], rng)
    session.close()
    other.close()
    report = "\n".join(found)
    fuzzer.restore_quietly()
    fuzzer.compare(rng, everything=True)
    if says not in report:
        return f"not noticed: {what}" + (f"; said instead: {report[:500]}" if found else "")
    return None


class Liar(Nothing):
    """An engine that answers wrongly, to see the answer doubted."""

    restores = True

    def __init__(self, state, clean):
        super().__init__(state, False)
        self.clean = clean

    def is_clean(self, session, name=None):
        return self.clean


def expect_failure(what, says, call):
    try:
        call()
    except (Failure, SqlError) as error:
        if isinstance(error, Failure) and says in str(error):
            return None
        return f"{what}: said instead: {error}"
    return f"not noticed: {what}"


def raises(session, code):
    session.run(f"DO $$ BEGIN RAISE EXCEPTION 'on purpose' USING ERRCODE = '{code}'; END $$")


def answers(fuzzer, rng):
    """Wrong answers of testenv_is_clean(), errors that must not be, a lost session."""
    state, honest = fuzzer.state, fuzzer.state.engine
    state.engine = Liar(state, True)
    yield expect_failure("clean after a change", "testenv_is_clean() is true after", lambda: fuzzer.small_change(rng))
    state.engine = honest
    fuzzer.restore_quietly()
    state.engine = Liar(state, False)
    yield expect_failure("not clean after a restore", "testenv_is_clean() is false", lambda: fuzzer.compare(rng))
    state.engine = honest
    session = state.session("victim")
    for code in ("XX000", "XX001", "XX002", "58P01", "53100"):
        yield expect_failure(f"an error of class {code}", code, lambda code=code: raises(session, code))
    try:
        raises(session, "23505")
        yield "an error raised on purpose got lost"
    except SqlError:
        yield None
    other = state.session("killer")
    other.run(f"SELECT pg_terminate_backend({session.pid})")
    yield expect_failure("a lost connection", "connection lost", lambda: session.run("SELECT 1"))
    other.close()


def run(fuzzer):
    rng = random.Random(fuzzer.args.seed)
    problems, done = [], 0
    fuzzer.build()
    for entry in DIFFERENCES:
        problems.append(difference(fuzzer, rng, *entry))
        done += 1
        print(f"{'noticed' if problems[-1] is None else 'NOT NOTICED'}: {entry[0]}", flush=True)
    for answer in answers(fuzzer, rng):
        problems.append(answer)
        done += 1
    fuzzer.state.destroy()
    problems = [problem for problem in problems if problem]
    print("\n".join(problems) or f"all {done} differences were noticed")
    print(f"fuzz: seed {fuzzer.args.seed}: self-test, {'FAILED' if problems else 'ok'}")
    return 1 if problems else 0
