-- Everything a table can be: what a snapshot covers comes back whole, what it
-- does not cover is named.
CREATE EXTENSION testenv;

-- The rows of every table below, in physical order, as one line each.
CREATE FUNCTION contents(OUT relation text, OUT nrows bigint, OUT digest text) RETURNS SETOF record
LANGUAGE plpgsql AS $$
BEGIN
  FOR relation IN
    SELECT c.oid::regclass::text AS name FROM pg_class c
    WHERE c.relkind IN ('r', 'm') AND c.relispopulated AND c.relpersistence <> 't'
      AND c.relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace,
                                 'testenv_store'::regnamespace)
      AND c.relam IN (SELECT oid FROM pg_am WHERE amhandler = 'heap_tableam_handler'::regproc)
    ORDER BY c.oid::regclass::text COLLATE "C"
  LOOP
    EXECUTE format('SELECT count(*), md5(string_agg(ctid || x::text, chr(10))) FROM %s x', relation)
      INTO nrows, digest;
    RETURN NEXT;
  END LOOP;
END $$;

CREATE TABLE plain (id int PRIMARY KEY, v text);
INSERT INTO plain SELECT g, repeat('p', g % 50) FROM generate_series(1, 1000) g;
CREATE TABLE empty (id int);
CREATE TABLE no_columns ();
INSERT INTO no_columns DEFAULT VALUES;
CREATE TABLE dropped_column (a int, b text, c int DEFAULT 7);
INSERT INTO dropped_column VALUES (1, 'gone'), (2, 'too');
ALTER TABLE dropped_column DROP COLUMN b;
ALTER TABLE dropped_column ADD COLUMN d int DEFAULT 42;
INSERT INTO dropped_column VALUES (3, 3, 3);
CREATE TABLE generated (a int, b int GENERATED ALWAYS AS (a * 2) STORED);
INSERT INTO generated VALUES (1), (2);

-- partitions of all kinds, two levels, a default
CREATE TABLE parted (id int, region text, v text) PARTITION BY LIST (region);
CREATE TABLE parted_eu PARTITION OF parted FOR VALUES IN ('eu') PARTITION BY RANGE (id);
CREATE TABLE parted_eu_1 PARTITION OF parted_eu FOR VALUES FROM (1) TO (100);
CREATE TABLE parted_eu_2 PARTITION OF parted_eu FOR VALUES FROM (100) TO (1000);
CREATE TABLE parted_rest PARTITION OF parted DEFAULT PARTITION BY HASH (id);
CREATE TABLE parted_rest_0 PARTITION OF parted_rest FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE parted_rest_1 PARTITION OF parted_rest FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE INDEX ON parted (id);
INSERT INTO parted SELECT g, CASE g % 3 WHEN 0 THEN 'eu' ELSE 'us' END, 'v' || g FROM generate_series(1, 300) g;

-- inheritance
CREATE TABLE parent (id int, v text);
CREATE TABLE child (extra int) INHERITS (parent);
INSERT INTO parent VALUES (1, 'parent');
INSERT INTO child VALUES (2, 'child', 3);

-- TOAST: compressed in line, compressed outside, plain outside, several chunks
CREATE TABLE toasted (id int PRIMARY KEY, a text, b text, c text, d bytea);
ALTER TABLE toasted ALTER b SET STORAGE EXTERNAL, ALTER c SET STORAGE MAIN;
INSERT INTO toasted SELECT g, repeat('abcdefgh', 2000 * g), repeat('x', 5000 * g), repeat('m', 9000),
  convert_to((SELECT string_agg(md5((g * 1000 + i)::text), '') FROM generate_series(1, 300) i), 'UTF8')
FROM generate_series(1, 8) g;

-- materialized views
CREATE MATERIALIZED VIEW seen AS SELECT id, v FROM plain WHERE id <= 500;
CREATE UNIQUE INDEX ON seen (id);
CREATE MATERIALIZED VIEW unseen AS SELECT id FROM plain WITH NO DATA;
CREATE MATERIALIZED VIEW seen_empty AS SELECT id FROM plain WHERE id < 0;
CREATE MATERIALIZED VIEW unseen_empty AS SELECT id FROM plain WHERE id < 0 WITH NO DATA;

-- unlogged, in tablespaces, of an access method that is the heap by another name
CREATE UNLOGGED TABLE unlogged (id int PRIMARY KEY, v text);
INSERT INTO unlogged SELECT g, repeat('u', 3000) FROM generate_series(1, 10) g;
CREATE UNLOGGED TABLE unlogged_empty (id int PRIMARY KEY);
SET allow_in_place_tablespaces = on;
CREATE TABLESPACE regress_testenv_space LOCATION '';
CREATE TABLE spaced (id int PRIMARY KEY USING INDEX TABLESPACE regress_testenv_space, v text)
  TABLESPACE regress_testenv_space;
INSERT INTO spaced SELECT g, repeat('s', 3000) FROM generate_series(1, 10) g;
CREATE TABLE mixed (id int PRIMARY KEY USING INDEX TABLESPACE regress_testenv_space, v text);
INSERT INTO mixed VALUES (1, 'mixed');
CREATE ACCESS METHOD regress_heap TYPE TABLE HANDLER heap_tableam_handler;
CREATE TABLE other_heap (id int PRIMARY KEY, v text) USING regress_heap;
INSERT INTO other_heap SELECT g, repeat('o', 3000) FROM generate_series(1, 10) g;

-- odd names, other schemas
CREATE SCHEMA "Odd ""schema""";
CREATE TABLE "Odd ""schema"""."select; -- ünïcode" ("a ""b""" int PRIMARY KEY);
INSERT INTO "Odd ""schema"""."select; -- ünïcode" VALUES (1), (2);
CREATE SCHEMA other;
CREATE TABLE other.plain (id int);
INSERT INTO other.plain VALUES (1);

-- a table of more pages than one record holds, and rows locked and updated
-- before the snapshot
CREATE TABLE paged (id int PRIMARY KEY, v text) WITH (fillfactor = 50);
INSERT INTO paged SELECT g, repeat('g', 1000) FROM generate_series(1, 500) g;
UPDATE paged SET v = repeat('h', 1000) WHERE id % 3 = 0;
DELETE FROM paged WHERE id % 5 = 0;
BEGIN;
SELECT count(*) FROM (SELECT FROM paged FOR UPDATE) x;
COMMIT;

-- not covered: one NOTICE names them all
CREATE FOREIGN DATA WRAPPER regress_wrapper;
CREATE SERVER regress_server FOREIGN DATA WRAPPER regress_wrapper;
CREATE FOREIGN TABLE "a foreign table" (id int) SERVER regress_server;
CREATE FOREIGN TABLE other.foreign_too (id int) SERVER regress_server;
SELECT name, tables, sequences FROM testenv_snapshot();
DROP FOREIGN TABLE "a foreign table", other.foreign_too;
-- the schema of a temporary table has the number of the session in its name
CREATE TEMPORARY TABLE passing (id int);
\set VERBOSITY terse
SELECT name, tables, sequences FROM testenv_snapshot();
\set VERBOSITY default
DROP TABLE passing;
DROP SERVER regress_server;
DROP FOREIGN DATA WRAPPER regress_wrapper;
SELECT name, tables, sequences FROM testenv_snapshot();

SELECT relation, nrows FROM contents();
CREATE TEMPORARY TABLE seeded AS SELECT * FROM contents();
-- what differs from the seed
CREATE FUNCTION changed() RETURNS SETOF text LANGUAGE sql AS $$
  SELECT relation FROM (SELECT * FROM contents() EXCEPT SELECT * FROM seeded) x
  UNION
  SELECT relation FROM (SELECT * FROM seeded EXCEPT SELECT * FROM contents()) x
  ORDER BY 1
$$;
SELECT * FROM changed();

-- change every one of them
UPDATE plain SET v = 'changed' WHERE id > 900;
DELETE FROM plain WHERE id < 100;
INSERT INTO empty SELECT generate_series(1, 1000);
INSERT INTO no_columns DEFAULT VALUES;
UPDATE dropped_column SET c = 0;
UPDATE generated SET a = a + 1;
UPDATE parted SET v = 'changed';
DELETE FROM parted WHERE id > 200;
UPDATE parted SET region = 'eu' WHERE id < 10;
UPDATE parent SET v = 'changed';
UPDATE toasted SET a = repeat('new', 20000), b = NULL, d = d || d WHERE id > 2;
DELETE FROM toasted WHERE id = 1;
UPDATE unlogged SET v = 'changed';
INSERT INTO unlogged_empty SELECT generate_series(1, 1000);
UPDATE spaced SET v = 'changed';
DELETE FROM mixed;
UPDATE other_heap SET v = 'changed';
DELETE FROM "Odd ""schema"""."select; -- ünïcode";
INSERT INTO other.plain VALUES (2);
UPDATE paged SET v = 'changed';
REFRESH MATERIALIZED VIEW seen;
REFRESH MATERIALIZED VIEW unseen;
-- these have no page before and after
REFRESH MATERIALIZED VIEW seen_empty WITH NO DATA;
REFRESH MATERIALIZED VIEW unseen_empty;
SELECT * FROM changed();
SELECT name, tables >= 22 AS all_tables, sequences FROM testenv_restore();
SELECT * FROM changed();
SELECT testenv_is_clean();
SELECT relname, relispopulated FROM pg_class WHERE relkind = 'm' ORDER BY relname COLLATE "C";
TABLE unseen;
\echo :SQLSTATE

-- truncated, rewritten, moved
TRUNCATE plain, parted, parent, toasted, unlogged, spaced, mixed, other_heap, paged,
  "Odd ""schema"""."select; -- ünïcode", other.plain, dropped_column, generated, no_columns;
REFRESH MATERIALIZED VIEW seen WITH NO DATA;
SELECT * FROM changed();
SELECT name, tables, sequences FROM testenv_restore();
SELECT * FROM changed();
SELECT testenv_is_clean();
UPDATE plain SET v = 'changed' WHERE id % 2 = 0;
REFRESH MATERIALIZED VIEW CONCURRENTLY seen;
VACUUM FULL toasted, unlogged, spaced, other_heap, paged, "Odd ""schema"""."select; -- ünïcode", parted;
CLUSTER mixed USING mixed_pkey;
ALTER TABLE plain SET TABLESPACE regress_testenv_space;
ALTER TABLE spaced SET TABLESPACE pg_default;
SELECT * FROM changed();
SELECT name FROM testenv_restore();
SELECT * FROM changed();
SELECT testenv_is_clean();

-- ROLLBACK does not leave a view that is full and says that it is not, or the
-- other way round
REFRESH MATERIALIZED VIEW seen WITH NO DATA;
REFRESH MATERIALIZED VIEW unseen;
BEGIN;
SELECT name, tables FROM testenv_restore();
ROLLBACK;
SELECT name FROM testenv_restore();
SELECT * FROM changed();
TABLE unseen;
\echo :SQLSTATE
SELECT testenv_is_clean();

-- indexes agree with their tables
SET enable_seqscan = off;
SELECT count(*), min(id), max(id) FROM plain WHERE id > 0;
SELECT count(*), min(id), max(id) FROM parted WHERE id > 0;
SELECT count(*), min(id), max(id) FROM paged WHERE id > 0;
SELECT count(*), sum(length(a)), sum(length(b)), sum(length(d)) FROM toasted WHERE id > 0;
SELECT count(*) FROM seen WHERE id > 0;
SELECT count(*) FROM unlogged WHERE id > 0;
SELECT count(*) FROM unlogged_empty WHERE id > 0;
SELECT count(*) FROM spaced WHERE id > 0;
RESET enable_seqscan;

DROP MATERIALIZED VIEW seen, unseen, seen_empty, unseen_empty;
DROP TABLE plain, empty, no_columns, dropped_column, generated, parted, parent, child, toasted, unlogged,
  unlogged_empty, spaced, mixed, other_heap, paged, seeded;
DROP SCHEMA "Odd ""schema""" CASCADE;
DROP SCHEMA other CASCADE;
DROP ACCESS METHOD regress_heap;
DROP TABLESPACE regress_testenv_space;
DROP FUNCTION changed, contents;
-- VACUUM FULL drops a TOAST table that no column needs any more
CREATE TABLE no_longer (id int, v text);
ALTER TABLE no_longer DROP v;
INSERT INTO no_longer SELECT generate_series(1, 100);
SELECT name, tables FROM testenv_snapshot();
DELETE FROM no_longer WHERE id < 50;
VACUUM FULL no_longer;
SELECT name, tables FROM testenv_restore();
SELECT count(*) FROM no_longer;
DROP TABLE no_longer;
DROP EXTENSION testenv;
