-- The free space map that a snapshot and a restore leave is the one that VACUUM
-- leaves, so that VACUUM of an unchanged table changes nothing that decides
-- where the next row goes.
CREATE EXTENSION testenv;
SET testenv.check_detector = on;

-- the map as it lies on the disk: page, and what it holds behind its header; a
-- page of zeros says the same as none
CREATE FUNCTION map(rel regclass) RETURNS TABLE (page int, digest text) LANGUAGE sql AS $$
  SELECT i, md5(substring(bytes FROM i * size + 25 FOR size - 24))
  FROM (SELECT pg_read_binary_file(pg_relation_filepath(rel) || '_fsm', 0, 1000000000, true) AS bytes,
               current_setting('block_size')::int AS size) f, generate_series(0, length(bytes) / size - 1) i
  WHERE substring(bytes FROM i * size + 25 FOR size - 24) <> decode(repeat('00', size - 24), 'hex')
$$;
CREATE FUNCTION toast(rel regclass) RETURNS regclass LANGUAGE sql AS 'SELECT reltoastrelid FROM pg_class WHERE oid = $1';

-- one table of each sort; autovacuum is kept out
CREATE TABLE full_pages (id int, v text) WITH (autovacuum_enabled = off);
CREATE TABLE room (id int, v text) WITH (autovacuum_enabled = off, fillfactor = 40);
CREATE TABLE holes (id int, v text) WITH (autovacuum_enabled = off);
CREATE TABLE emptied (id int, v text) WITH (autovacuum_enabled = off);
-- as many rows on a page as there can be line pointers
CREATE TABLE narrow () WITH (autovacuum_enabled = off);
CREATE TABLE freed () WITH (autovacuum_enabled = off);
-- and with room for more, but no pointer to give
CREATE TABLE pointers (v bool) WITH (autovacuum_enabled = off, fillfactor = 45);
CREATE TABLE nothing (id int, v text) WITH (autovacuum_enabled = off);
CREATE TABLE wide (id int, v text) WITH (autovacuum_enabled = off, toast.autovacuum_enabled = off);
ALTER TABLE wide ALTER v SET STORAGE EXTERNAL;
-- two leaf pages, of 4069 blocks each; and one that ends with a leaf page
CREATE TABLE large (id int PRIMARY KEY, v text) WITH (autovacuum_enabled = off, fillfactor = 10);
CREATE TABLE exact (id int PRIMARY KEY, v text) WITH (autovacuum_enabled = off, fillfactor = 10);
INSERT INTO full_pages SELECT g, repeat('f', 94) FROM generate_series(1, 640) g;
INSERT INTO room SELECT g, repeat('r', g % 200) FROM generate_series(1, 500) g;
INSERT INTO holes SELECT g, repeat('h', 100 + g % 50) FROM generate_series(1, 1000) g;
INSERT INTO emptied SELECT g, repeat('e', 100) FROM generate_series(1, 1000) g;
INSERT INTO narrow SELECT FROM generate_series(1, 2000);
INSERT INTO freed SELECT FROM generate_series(1, 2000);
INSERT INTO pointers SELECT true FROM generate_series(1, 100);
UPDATE pointers SET v = false;
VACUUM pointers;
ALTER TABLE pointers SET (fillfactor = 100);
INSERT INTO pointers SELECT true FROM generate_series(1, 200);
INSERT INTO wide SELECT g, repeat('w', 2000 + g * 37) FROM generate_series(1, 200) g;
INSERT INTO large SELECT g, repeat('l', 700 + g % 50) FROM generate_series(1, 5000) g;
INSERT INTO exact SELECT g, repeat('x', 750) FROM generate_series(1, 4069) g;
DELETE FROM holes WHERE id % 5 = 0 OR id % 7 < 2;
DELETE FROM emptied WHERE id BETWEEN 100 AND 700;
DELETE FROM freed WHERE ctid::text LIKE '(%,7)';
DELETE FROM wide WHERE id % 4 = 0;
DELETE FROM large WHERE id % 3 = 0 AND id > 4200;
-- frozen, but never vacuumed: the server has made no map
BEGIN;
CREATE TABLE copied (id int, v text) WITH (autovacuum_enabled = off, fillfactor = 70);
COPY copied FROM PROGRAM 'seq -f "%.0f	copied" 1 900' WITH (FREEZE);
COMMIT;

SELECT name, tables FROM testenv_snapshot();
SELECT rel, pg_relation_size(rel) / current_setting('block_size')::int AS blocks,
  pg_relation_size(rel, 'fsm') / current_setting('block_size')::int AS map
FROM unnest('{full_pages,room,holes,emptied,narrow,freed,pointers,nothing,large,exact,copied}'::regclass[]) rel ORDER BY rel::text COLLATE "C";

-- what remembers the maps is kept, in a schema of its own
CREATE SCHEMA kept;
SET testenv.new_tables = keep;
CREATE VIEW kept.now AS SELECT rel::regclass::text AS rel, m.* FROM (
    SELECT oid AS rel FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
    UNION ALL SELECT toast('wide')) r, map(rel) m;
CHECKPOINT;
CREATE TABLE kept.map AS TABLE kept.now;
SELECT CASE WHEN rel LIKE '%toast%' THEN 'TOAST' ELSE rel END COLLATE "C" AS rel, count(*) AS pages FROM kept.map GROUP BY 1 ORDER BY 1;
CREATE VIEW kept.wrong AS SELECT coalesce(string_agg(DISTINCT rel, ', '), 'none') AS differing FROM (
    (TABLE kept.map EXCEPT TABLE kept.now) UNION ALL (TABLE kept.now EXCEPT TABLE kept.map)) x;
-- VACUUM looks at every page, and writes each value that is another
VACUUM (DISABLE_PAGE_SKIPPING) full_pages, room, holes, emptied, narrow, freed, pointers, nothing, wide, large, exact, copied;
CHECKPOINT;
TABLE kept.wrong;
SELECT name, tables FROM testenv_restore();
-- a second snapshot finds them so
SELECT name, tables FROM testenv_snapshot('second');
CHECKPOINT;
TABLE kept.wrong;
SELECT testenv_drop('second');
SELECT name, tables FROM testenv_restore('default');
-- a check that cannot fail is none
DELETE FROM holes WHERE id < 500;
DELETE FROM large WHERE id = 77;
VACUUM holes, large;
CHECKPOINT;
TABLE kept.wrong;
SELECT name, tables FROM testenv_restore();

-- Put a change back.  A restore looks at those parts of the maps only that can
-- have changed; the checkpoint brings the maps to the disk, where they are read.
CREATE PROCEDURE step(VARIADIC work text[]) LANGUAGE plpgsql AS $$
DECLARE
  statement text;
  wrong text;
BEGIN
  FOREACH statement IN ARRAY work LOOP
    EXECUTE statement;
    COMMIT;
  END LOOP;
  PERFORM testenv_restore();
  COMMIT;
  CHECKPOINT;
  SELECT differing INTO wrong FROM kept.wrong WHERE differing <> 'none';
  IF FOUND THEN
    RAISE EXCEPTION 'after "%": maps differ: %', work[1], wrong;
  END IF;
END $$;
-- on the first leaf page, on the second, on both
CALL step('UPDATE large SET v = ''short'' WHERE id = 7');
CALL step('UPDATE large SET v = ''short'' WHERE id = 4500');
CALL step('UPDATE large SET v = v WHERE id IN (7, 4500)');
-- found through the map: where there is room
CALL step('INSERT INTO large SELECT g, repeat(''n'', 700) FROM generate_series(10001, 10200) g');
CALL step('INSERT INTO holes SELECT g, repeat(''n'', g % 100) FROM generate_series(1, 100) g');
CALL step('INSERT INTO emptied SELECT g, repeat(''n'', 2000) FROM generate_series(1, 20) g');
-- appended, to the next leaf page too
CALL step('INSERT INTO large SELECT g, repeat(''n'', 700) FROM generate_series(10001, 15000) g');
CALL step('INSERT INTO exact VALUES (0, repeat(''n'', 700)), (-1, repeat(''n'', 700))');
CALL step('INSERT INTO full_pages VALUES (0, ''n'')', 'INSERT INTO nothing VALUES (0, ''n'')');
CALL step('INSERT INTO nothing SELECT g, repeat(''n'', 700) FROM generate_series(1, 100) g');
CALL step('INSERT INTO wide SELECT g, repeat(''n'', 3000) FROM generate_series(1, 50) g', 'DELETE FROM wide WHERE id < 20');
CALL step('INSERT INTO narrow SELECT FROM generate_series(1, 700)', 'INSERT INTO freed SELECT FROM generate_series(1, 50)');
-- another file
CALL step('TRUNCATE large, holes, wide', 'INSERT INTO large SELECT g, ''t'' FROM generate_series(1, 100) g');
CALL step('DELETE FROM large WHERE id < 100', 'CLUSTER large USING large_pkey');
CALL step('TRUNCATE exact');

-- what VACUUM makes of a change: new space, a cut
CREATE PROCEDURE check_maps() LANGUAGE plpgsql AS $$
BEGIN
  PERFORM testenv_restore();
  COMMIT;
  CHECKPOINT;
  IF EXISTS (SELECT FROM kept.wrong WHERE differing <> 'none') THEN
    RAISE EXCEPTION 'maps differ: %', (SELECT differing FROM kept.wrong);
  END IF;
END $$;
DELETE FROM large WHERE id BETWEEN 4000 AND 4300;
DELETE FROM holes WHERE id < 500;
DELETE FROM wide WHERE id < 100;
VACUUM large, holes, wide;
CALL check_maps();
DELETE FROM large WHERE id > 4000;
DELETE FROM holes;
DELETE FROM wide WHERE id > 20;
VACUUM (TRUNCATE on) large, holes, wide;
CALL check_maps();
-- cut away, and grown again to the length that it had
DELETE FROM large WHERE id > 4000;
VACUUM (TRUNCATE on) large;
INSERT INTO large SELECT g, repeat('n', 750) FROM generate_series(4001, 5000) g;
SELECT pg_relation_size('large') / current_setting('block_size')::int AS blocks;
CALL check_maps();
VACUUM FULL large, exact, emptied;
CALL check_maps();

-- where the next row goes: the same after VACUUM of a table that did not change
CREATE TABLE kept.placed (n int, rel text, place tid);
CREATE PROCEDURE place(n int) LANGUAGE plpgsql AS $$
BEGIN
  WITH h AS (INSERT INTO holes SELECT 2000 + g, repeat('p', g * 3) FROM generate_series(1, 30) g RETURNING ctid),
    e AS (INSERT INTO emptied SELECT 2000 + g, repeat('p', g * 30) FROM generate_series(1, 30) g RETURNING ctid),
    l AS (INSERT INTO large SELECT 20000 + g, repeat('p', 700) FROM generate_series(1, 30) g RETURNING ctid)
  INSERT INTO kept.placed SELECT n, 'holes', ctid FROM h UNION ALL SELECT n, 'emptied', ctid FROM e UNION ALL SELECT n, 'large', ctid FROM l;
  COMMIT;
  PERFORM testenv_restore();
END $$;
CALL place(1);
CALL place(2);
VACUUM (DISABLE_PAGE_SKIPPING) holes, emptied, large;
SELECT name, tables FROM testenv_restore();
CALL place(3);
SELECT rel, count(*), min(place), max(place) FROM kept.placed WHERE n = 1 GROUP BY rel ORDER BY rel;
SELECT count(*) AS placed_elsewhere FROM kept.placed a WHERE n > 1
  AND NOT EXISTS (SELECT FROM kept.placed b WHERE b.n = 1 AND b.rel = a.rel AND b.place = a.place);

DROP PROCEDURE step, check_maps, place;
DROP SCHEMA kept CASCADE;
DROP TABLE full_pages, room, holes, emptied, narrow, freed, pointers, nothing, wide, large, exact, copied;
DROP FUNCTION map, toast;
DROP EXTENSION testenv;
