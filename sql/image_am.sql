-- The table access method of the image store: what maintenance of a whole
-- database does passes and leaves the images; everything else is refused.
CREATE EXTENSION testenv;
CREATE TABLE t (id int PRIMARY KEY, v text);
INSERT INTO t SELECT g, repeat('t', g % 100) FROM generate_series(1, 2000) g;
SELECT name, tables FROM testenv_snapshot();
SELECT md5(string_agg(ctid || v, ',')) AS seed FROM t \gset

-- Does a restore still bring everything back, and every page?
SET testenv.check_detector = on;
CREATE FUNCTION works(seed text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  result text;
BEGIN
  PERFORM testenv_restore();
  SELECT CASE WHEN md5(string_agg(ctid || v, ',')) = seed THEN 'works' ELSE 'DIFFERENT' END INTO result FROM t;
  RETURN result;
END $$;
DELETE FROM t WHERE id % 2 = 0;
SELECT works(:'seed');

-- it reads as a table without columns and rows
SELECT count(*) FROM testenv_store.snapshot_default;
SELECT * FROM testenv_store.state;
SELECT ctid, tableoid::regclass FROM testenv_store.snapshot_default;
SELECT * FROM testenv_store.snapshot_default TABLESAMPLE SYSTEM (100);
SELECT * FROM testenv_store.snapshot_default TABLESAMPLE BERNOULLI (100);
SELECT * FROM testenv_store.snapshot_default WHERE ctid = '(0,1)';
SELECT * FROM testenv_store.snapshot_default WHERE ctid BETWEEN '(0,1)' AND '(9,9)';
SELECT relname, relkind, relpersistence, relnatts, relfrozenxid, relminmxid, reltoastrelid, relhasindex
FROM pg_class WHERE relnamespace = 'testenv_store'::regnamespace ORDER BY relname COLLATE "C";
SELECT pg_relation_size('testenv_store.snapshot_default') > pg_relation_size('t') AS has_images;
COPY testenv_store.snapshot_default TO stdout;
BEGIN;
DECLARE c SCROLL CURSOR FOR SELECT FROM testenv_store.snapshot_default;
FETCH ALL FROM c;
FETCH BACKWARD FROM c;
COMMIT;

-- no rows go in, out, or are locked
INSERT INTO testenv_store.snapshot_default DEFAULT VALUES;
\echo :SQLSTATE
INSERT INTO testenv_store.snapshot_default DEFAULT VALUES ON CONFLICT DO NOTHING;
\echo :SQLSTATE
COPY testenv_store.snapshot_default FROM stdin;

\.
\echo :SQLSTATE
-- there is none to delete or to lock
DELETE FROM testenv_store.snapshot_default RETURNING ctid;
SELECT FROM testenv_store.snapshot_default FOR UPDATE;
TRUNCATE testenv_store.snapshot_default;
\echo :SQLSTATE
TRUNCATE testenv_store.state;
\echo :SQLSTATE
UPDATE t SET v = 'x';
SELECT works(:'seed');

-- no storage that testenv did not fill
CREATE TABLE mine (id int) USING testenv_image;
\echo :SQLSTATE
CREATE TABLE mine USING testenv_image AS SELECT 1 AS id;
\echo :SQLSTATE
CREATE TEMPORARY TABLE mine () USING testenv_image;
\echo :SQLSTATE
CREATE UNLOGGED TABLE mine () USING testenv_image;
\echo :SQLSTATE
CREATE MATERIALIZED VIEW mine USING testenv_image AS SELECT 1 AS id;
\echo :SQLSTATE
SET default_table_access_method = testenv_image;
CREATE TABLE mine ();
\echo :SQLSTATE
SELECT 1 AS id INTO mine;
\echo :SQLSTATE
RESET default_table_access_method;
\set VERBOSITY sqlstate
ALTER TABLE t SET ACCESS METHOD testenv_image;
\set VERBOSITY default
-- a name like that of the copy that VACUUM FULL makes is no way in
DO $$
DECLARE
  state text;
BEGIN
  EXECUTE format('CREATE TABLE pg_temp_%s () USING testenv_image', 't'::regclass::oid);
  RAISE EXCEPTION 'created' USING errcode = 'TE002';
EXCEPTION WHEN others THEN
  GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE;
  RAISE INFO '%', state;
END $$;
DO $$
DECLARE
  state text;
BEGIN
  EXECUTE format('CREATE TABLE pg_temp_%s (id int) USING testenv_image', 'testenv_store.snapshot_default'::regclass::oid);
  RAISE EXCEPTION 'created' USING errcode = 'TE002';
EXCEPTION WHEN others THEN
  GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE;
  RAISE INFO '%', state;
END $$;

-- no rewrite that would leave an empty store
\set VERBOSITY sqlstate
ALTER TABLE testenv_store.snapshot_default SET UNLOGGED;
ALTER TABLE testenv_store.state SET UNLOGGED;
\set VERBOSITY default
ALTER TABLE testenv_store.snapshot_default ADD COLUMN n int GENERATED ALWAYS AS IDENTITY;
\echo :SQLSTATE
ALTER TABLE testenv_store.snapshot_default ADD COLUMN n float DEFAULT random();
\echo :SQLSTATE
ALTER TABLE testenv_store.snapshot_default SET ACCESS METHOD heap;
\echo :SQLSTATE
UPDATE t SET v = 'x';
SELECT works(:'seed');

-- belongs to the extension
DROP TABLE testenv_store.snapshot_default;
\echo :SQLSTATE
DROP TABLE testenv_store.snapshot_default CASCADE;
\echo :SQLSTATE
DROP SCHEMA testenv_store CASCADE;
\echo :SQLSTATE
DROP ACCESS METHOD testenv_image CASCADE;
\echo :SQLSTATE
DROP FUNCTION testenv_restore;
\echo :SQLSTATE

-- maintenance passes, by name and of the whole database
VACUUM testenv_store.snapshot_default;
VACUUM (FREEZE, ANALYZE) testenv_store.snapshot_default, testenv_store.state;
ANALYZE testenv_store.snapshot_default;
UPDATE t SET v = 'x';
SELECT works(:'seed');
VACUUM FULL testenv_store.snapshot_default;
VACUUM FULL testenv_store.state;
UPDATE t SET v = 'x';
SELECT works(:'seed');
VACUUM;
VACUUM (ANALYZE, FREEZE);
ANALYZE;
VACUUM FULL;
UPDATE t SET v = 'x';
SELECT works(:'seed');
CLUSTER;
REINDEX TABLE testenv_store.snapshot_default;
REINDEX SCHEMA testenv_store;
REINDEX DATABASE testenv_regression_test;
SET client_min_messages = error;
REINDEX DATABASE CONCURRENTLY testenv_regression_test;
RESET client_min_messages;
UPDATE t SET v = 'x';
SELECT works(:'seed');
SELECT testenv_is_clean();
-- to another tablespace and back
SET allow_in_place_tablespaces = on;
CREATE TABLESPACE regress_testenv_images LOCATION '';
ALTER TABLE testenv_store.snapshot_default SET TABLESPACE regress_testenv_images;
UPDATE t SET v = 'x';
SELECT works(:'seed');
ALTER TABLE testenv_store.snapshot_default SET TABLESPACE pg_default;
-- no file stays behind
DROP TABLESPACE regress_testenv_images;
UPDATE t SET v = 'x';
SELECT works(:'seed');
SELECT relname, relfrozenxid, relminmxid, relpages >= 0 AS pages FROM pg_class
WHERE relnamespace = 'testenv_store'::regnamespace ORDER BY relname COLLATE "C";

-- a rewrite that is rolled back, and images that are gone with it
BEGIN;
SELECT testenv_drop('default');
SELECT name FROM testenv_snapshot('other');
ROLLBACK;
UPDATE t SET v = 'x';
SELECT works(:'seed');
-- a publication of everything is not in the way of a snapshot or a restore
SET client_min_messages = error;
CREATE PUBLICATION regress_testenv_all FOR ALL TABLES;
RESET client_min_messages;
SELECT name, tables FROM testenv_snapshot();
UPDATE t SET v = 'x';
SELECT works(:'seed');
DROP PUBLICATION regress_testenv_all;
-- a lock that a reader of the store has is not in the way
BEGIN;
LOCK TABLE testenv_store.snapshot_default IN ACCESS SHARE MODE;
SELECT works(:'seed');
COMMIT;

DROP FUNCTION works;
DROP TABLE t;
DROP EXTENSION testenv;
