-- Every index access method of the core: after work that leaves dead items,
-- pending lists, new summaries and new storage, a restore brings back indexes
-- that find exactly the rows that their tables hold.
CREATE EXTENSION testenv;
-- VACUUM cannot freeze rows of a commit that is not on disk yet, and then the
-- snapshot's own would empty the list below
SET synchronous_commit = on;

CREATE TABLE bt (id int, a int, b text, c int, d int);
INSERT INTO bt SELECT g, g % 97, 'b' || g % 211, g, g % 3 FROM generate_series(1, 3000) g;
CREATE UNIQUE INDEX bt_unique ON bt (id);
CREATE INDEX bt_dedup ON bt (d);
CREATE INDEX bt_nodedup ON bt (a, b) WITH (deduplicate_items = off);
CREATE INDEX bt_partial ON bt (c) WHERE c % 10 = 0;
CREATE INDEX bt_expression ON bt ((upper(b)));
CREATE INDEX bt_include ON bt (a DESC NULLS LAST) INCLUDE (b);
CREATE TABLE ha (id int, v text);
INSERT INTO ha SELECT g, 'v' || g % 500 FROM generate_series(1, 3000) g;
CREATE INDEX ha_hash ON ha USING hash (v);
CREATE TABLE gi (id int, p point, r int4range);
INSERT INTO gi SELECT g, point(g % 50, g / 50), int4range(g, g + 10) FROM generate_series(1, 3000) g;
CREATE INDEX gi_gist ON gi USING gist (p);
CREATE INDEX gi_range ON gi USING gist (r);
CREATE INDEX gi_spgist ON gi USING spgist (p);
CREATE TABLE sp (id int, t text);
INSERT INTO sp SELECT g, md5(g::text) FROM generate_series(1, 3000) g;
CREATE INDEX sp_text ON sp USING spgist (t);
CREATE TABLE gn (id int, v int[]);
INSERT INTO gn SELECT g, ARRAY[g % 20, g % 31, g] FROM generate_series(1, 3000) g;
CREATE INDEX gn_fast ON gn USING gin (v) WITH (fastupdate = on, gin_pending_list_limit = 64);
CREATE INDEX gn_slow ON gn USING gin (v) WITH (fastupdate = off);
CREATE TABLE br (id int, v int, pad text);
INSERT INTO br SELECT g, g, repeat('x', 400) FROM generate_series(1, 3000) g;
CREATE INDEX br_minmax ON br USING brin (v) WITH (pages_per_range = 8);
CREATE INDEX br_bloom ON br USING brin (v int4_bloom_ops) WITH (pages_per_range = 16, autosummarize = off);
CREATE TABLE ex (id int, during int4range, EXCLUDE USING gist (during WITH &&));
INSERT INTO ex SELECT g, int4range(g * 10, g * 10 + 10) FROM generate_series(1, 500) g;
-- some of the list pending at the snapshot, and some of the range not summarized
INSERT INTO gn SELECT g, ARRAY[g % 20, g % 31, g] FROM generate_series(3001, 3020) g;
INSERT INTO br SELECT g, g, repeat('x', 400) FROM generate_series(3001, 3500) g;
VACUUM (FREEZE, INDEX_CLEANUP off) gn, br;
SELECT name, tables FROM testenv_snapshot();

-- What one index finds, without the help of the table's others; with '', what a
-- sequential scan does.  What had to be dropped for that comes back.
CREATE FUNCTION look(via text, query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  line text;
  used boolean := via = '';
  result text;
BEGIN
  PERFORM set_config('enable_seqscan', (via = '')::text, true),
          set_config('enable_indexscan', (via <> '')::text, true),
          set_config('enable_indexonlyscan', (via <> '')::text, true),
          set_config('enable_bitmapscan', (via <> '')::text, true);
  FOR line IN
    SELECT format('DROP INDEX %s', o.indexrelid::regclass)
    FROM pg_index i JOIN pg_index o ON o.indrelid = i.indrelid AND o.indexrelid <> i.indexrelid
    WHERE i.indexrelid = to_regclass(nullif(via, '')) ORDER BY 1
  LOOP
    EXECUTE line;
  END LOOP;
  FOR line IN EXECUTE 'EXPLAIN (COSTS OFF) ' || query LOOP
    used := used OR line ~ ('(using|on) ' || via || '($| )');
  END LOOP;
  IF NOT used THEN
    RAISE EXCEPTION 'query does not use %: %', via, query;
  END IF;
  EXECUTE query INTO result;
  RAISE EXCEPTION USING message = result, errcode = 'TE000';
EXCEPTION WHEN SQLSTATE 'TE000' THEN
  RETURN sqlerrm;
END $$;

CREATE TABLE queries (via text, query text);
INSERT INTO queries VALUES
  ('bt_unique', 'SELECT count(*) || '' '' || sum(id) FROM bt WHERE id > 0'),
  ('bt_dedup', 'SELECT count(*) || '' '' || sum(id) FROM bt WHERE d = 1'),
  ('bt_nodedup', 'SELECT count(*) || '' '' || sum(id) FROM bt WHERE a = 5 AND b >= '''''),
  ('bt_partial', 'SELECT count(*) || '' '' || sum(id) FROM bt WHERE c % 10 = 0 AND c > 0'),
  ('bt_expression', 'SELECT count(*) || '' '' || sum(id) FROM bt WHERE upper(b) > ''B'''),
  ('bt_include', 'SELECT count(*) || '' '' || max(b) FROM bt WHERE a > 40'),
  ('ha_hash', 'SELECT count(*) || '' '' || sum(id) FROM ha WHERE v = ''v42'''),
  ('gi_gist', 'SELECT count(*) || '' '' || sum(id) FROM gi WHERE p <@ box(point(0, 0), point(20, 20))'),
  ('gi_spgist', 'SELECT count(*) || '' '' || sum(id) FROM gi WHERE p <@ box(point(0, 0), point(20, 20))'),
  ('gi_range', 'SELECT count(*) || '' '' || sum(id) FROM gi WHERE r && int4range(100, 2000)'),
  ('sp_text', 'SELECT count(*) || '' '' || sum(id) FROM sp WHERE t >= ''8'''),
  ('gn_fast', 'SELECT count(*) || '' '' || sum(id) FROM gn WHERE v @> ARRAY[7]'),
  ('gn_slow', 'SELECT count(*) || '' '' || sum(id) FROM gn WHERE v @> ARRAY[7]'),
  ('br_minmax', 'SELECT count(*) || '' '' || sum(id) FROM br WHERE v BETWEEN 100 AND 2000'),
  ('br_bloom', 'SELECT count(*) || '' '' || sum(id) FROM br WHERE v = 77'),
  ('ex_during_excl', 'SELECT count(*) || '' '' || sum(id) FROM ex WHERE during && int4range(100, 2000)');
-- this table is new to the snapshot and is to keep its rows
SET testenv.new_tables = keep;

CREATE FUNCTION compare(OUT via text, OUT found text, OUT there text) RETURNS SETOF record LANGUAGE sql AS $$
  SELECT q.via, look(q.via, q.query), look('', q.query) FROM queries q
$$;
SELECT * FROM compare() ORDER BY via COLLATE "C";
CREATE TABLE seeded AS SELECT * FROM compare();
SET testenv.check_detector = on;

-- after each kind of work: restore, which compares every page; then both ways
CREATE PROCEDURE work_on_rows() LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM bt WHERE id % 7 < 3;
  UPDATE bt SET a = a + 1, b = b || 'x', c = -c WHERE id % 7 = 3;
  INSERT INTO bt SELECT g, g, 'new', g, 1 FROM generate_series(5000, 9000) g;
  DELETE FROM ha WHERE id % 7 < 3;
  INSERT INTO ha SELECT g, 'v42' FROM generate_series(5000, 9000) g;
  DELETE FROM gi WHERE id % 7 < 3;
  INSERT INTO gi SELECT g, point(g % 7, g % 11), int4range(g, g + 1000) FROM generate_series(5000, 7000) g;
  DELETE FROM sp WHERE id % 7 < 3;
  INSERT INTO sp SELECT g, md5(g::text) FROM generate_series(5000, 9000) g;
  DELETE FROM gn WHERE id % 7 < 3;
  INSERT INTO gn SELECT g, ARRAY[7, g] FROM generate_series(5000, 9000) g;
  DELETE FROM br WHERE id % 7 < 3;
  UPDATE br SET v = 77 WHERE id > 2900;
  INSERT INTO br SELECT g, 77, 'new' FROM generate_series(5000, 9000) g;
  DELETE FROM ex WHERE id % 7 < 3;
  INSERT INTO ex SELECT g, int4range(-g * 10, -g * 10 + 10) FROM generate_series(1, 500) g;
END $$;

-- rows deleted, and index scans that mark their entries as dead
CALL work_on_rows();
SELECT count(*) FROM compare() WHERE found <> there;
SELECT count(*) FROM seeded NATURAL JOIN compare();
SELECT name, tables FROM testenv_restore();
TABLE seeded EXCEPT SELECT * FROM compare();
-- only deleted, only marked: one row of a unique index, found again by key
DELETE FROM bt WHERE id = 1234;
SELECT look('bt_unique', 'SELECT count(*) FROM bt WHERE id = 1234');
SELECT look('bt_unique', 'SELECT count(*) FROM bt WHERE id = 1234');
SELECT name, tables FROM testenv_restore();
SELECT look('bt_unique', 'SELECT count(*) FROM bt WHERE id = 1234');
INSERT INTO bt VALUES (1234);
\echo :SQLSTATE
-- aborted
BEGIN;
CALL work_on_rows();
SELECT count(*) FROM compare() WHERE found <> there;
ROLLBACK;
SELECT count(*) FROM compare() WHERE found <> there;
SELECT name, tables FROM testenv_restore();
TABLE seeded EXCEPT SELECT * FROM compare();
-- VACUUM
CALL work_on_rows();
VACUUM bt, ha, gi, sp, gn, br, ex;
SELECT count(*) FROM compare() WHERE found <> there;
SELECT name, tables FROM testenv_restore();
TABLE seeded EXCEPT SELECT * FROM compare();
CALL work_on_rows();
VACUUM (FREEZE, INDEX_CLEANUP on) bt, ha, gi, sp, gn, br, ex;
SELECT name, tables FROM testenv_restore();
TABLE seeded EXCEPT SELECT * FROM compare();
-- VACUUM alone, where nobody wrote a row: the pending list, ranges not summarized
VACUUM bt, ha, gi, sp, gn, br, ex;
SELECT testenv_is_clean();
SELECT name FROM testenv_restore();
TABLE seeded EXCEPT SELECT * FROM compare();
SELECT testenv_is_clean();
SELECT gin_clean_pending_list('gn_fast') > 0 AS cleaned;
SELECT testenv_is_clean();
SELECT name FROM testenv_restore();
TABLE seeded EXCEPT SELECT * FROM compare();
SELECT gin_clean_pending_list('gn_fast') > 0 AS cleaned;
SELECT name FROM testenv_restore();
SELECT brin_summarize_new_values('br_minmax') > 0 AS summarized, brin_desummarize_range('br_bloom', 0);
SELECT testenv_is_clean();
SELECT name FROM testenv_restore();
TABLE seeded EXCEPT SELECT * FROM compare();
SELECT brin_summarize_new_values('br_minmax') > 0 AS summarized;
SELECT name FROM testenv_restore();
-- REINDEX: other storage; CONCURRENTLY: other indexes
CALL work_on_rows();
REINDEX TABLE bt;
REINDEX TABLE gn;
REINDEX TABLE CONCURRENTLY ha;
REINDEX TABLE CONCURRENTLY gi;
REINDEX TABLE CONCURRENTLY sp;
REINDEX INDEX CONCURRENTLY br_minmax;
SELECT name, tables FROM testenv_restore();
TABLE seeded EXCEPT SELECT * FROM compare();
REINDEX TABLE CONCURRENTLY bt;
SELECT name FROM testenv_restore();
TABLE seeded EXCEPT SELECT * FROM compare();
SELECT testenv_is_clean();
-- VACUUM FULL, CLUSTER, TRUNCATE
CALL work_on_rows();
VACUUM FULL gn, br, ha, gi, sp, ex;
CLUSTER bt USING bt_nodedup;
SELECT name, tables FROM testenv_restore();
TABLE seeded EXCEPT SELECT * FROM compare();
TRUNCATE bt, gn, br, ha, gi, sp, ex;
SELECT name, tables FROM testenv_restore();
TABLE seeded EXCEPT SELECT * FROM compare();
TRUNCATE bt, gn, br, ha, gi, sp, ex;
CALL work_on_rows();
SELECT name, tables FROM testenv_restore();
TABLE seeded EXCEPT SELECT * FROM compare();

-- uniqueness and exclusion hold as before
INSERT INTO bt VALUES (3000);
\echo :SQLSTATE
INSERT INTO ex VALUES (0, int4range(100, 101));
\echo :SQLSTATE
SELECT name FROM testenv_restore();

-- an index that is gone is named, until the snapshot is taken again
DROP INDEX bt_partial, ha_hash;
DELETE FROM bt WHERE id < 100;
SELECT name, tables FROM testenv_restore();
SELECT count(*) FROM bt;
SELECT testenv_is_clean();
-- made again just so, it is the same index
CREATE INDEX ha_hash ON ha USING hash (v);
CREATE INDEX bt_partial ON bt (c) WHERE c % 10 = 0;
SELECT name FROM testenv_restore();
TABLE seeded EXCEPT SELECT * FROM compare();
SELECT testenv_is_clean();

-- an index that is new is kept, and holds the rows of the snapshot
DELETE FROM bt WHERE id < 100;
CREATE INDEX bt_new ON bt (a, id);
CREATE INDEX gn_new ON gn USING gin (v) WHERE id > 10;
DELETE FROM gn WHERE id < 100;
SELECT name, tables FROM testenv_restore();
SELECT testenv_is_clean();
SELECT look('bt_new', 'SELECT count(*) || '' '' || sum(id) FROM bt WHERE a = 5 AND id > 0') AS found,
       look('', 'SELECT count(*) || '' '' || sum(id) FROM bt WHERE a = 5 AND id > 0') AS there;
DROP INDEX bt_new, gn_new;

-- a new index that the rows of the snapshot violate: the rows come back, the
-- index is disabled and a WARNING says so; the next restore has nothing to do
DELETE FROM bt WHERE id % 3000 > 2;
CREATE UNIQUE INDEX bt_wrong ON bt (d);
\set VERBOSITY terse
SELECT name, tables FROM testenv_restore();
TABLE seeded EXCEPT SELECT * FROM compare();
SELECT indisvalid, indisready FROM pg_index WHERE indexrelid = 'bt_wrong'::regclass;
SELECT testenv_is_clean();
SELECT name, tables FROM testenv_restore();
INSERT INTO bt (id, d) SELECT 90001, d FROM bt WHERE id = 1;
SELECT name, tables FROM testenv_restore();
DROP INDEX bt_wrong;
SELECT name, tables FROM testenv_restore();
TABLE seeded EXCEPT SELECT * FROM compare();
-- the same in a transaction that is rolled back, which takes back that the
-- index is disabled: the next restore finds it
DELETE FROM bt WHERE id % 3000 > 2;
CREATE UNIQUE INDEX bt_wrong ON bt (d);
BEGIN;
SELECT name, tables FROM testenv_restore();
ROLLBACK;
SELECT testenv_is_clean();
SELECT name FROM testenv_restore();
SELECT count(*), count(DISTINCT d) FROM bt;
SELECT testenv_is_clean();
DROP INDEX bt_wrong;
SELECT name, tables FROM testenv_restore();
TABLE seeded EXCEPT SELECT * FROM compare();
-- and one whose expression fails for them
CREATE FUNCTION fails(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1 / ($1 - 7)';
DELETE FROM bt WHERE id = 7;
CREATE INDEX bt_fails ON bt (fails(id));
SELECT name, tables FROM testenv_restore();
\set VERBOSITY default
SELECT count(*) FROM bt WHERE id = 7;
SELECT testenv_is_clean();
DROP INDEX bt_fails;
DROP FUNCTION fails;
SELECT name, tables FROM testenv_restore();
TABLE seeded EXCEPT SELECT * FROM compare();
SELECT testenv_is_clean();

DROP PROCEDURE work_on_rows;
DROP FUNCTION compare, look;
DROP TABLE seeded, queries, bt, ha, gi, sp, gn, br, ex;
DROP EXTENSION testenv;
