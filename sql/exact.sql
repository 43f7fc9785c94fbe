-- A restore is exact: every row at its place, every next row at the place that
-- was next, whatever was done in between; and it costs nothing to do it often.
-- check_detector compares every page besides.
CREATE EXTENSION testenv;
SET testenv.check_detector = on;

-- autovacuum is kept out, so that each step is what it says it is
CREATE TABLE small (id int PRIMARY KEY, v text) WITH (autovacuum_enabled = off);
CREATE TABLE wide (id serial PRIMARY KEY, v text, w text, n numeric) WITH (autovacuum_enabled = off, toast.autovacuum_enabled = off);
CREATE TABLE holes (id int PRIMARY KEY, v text) WITH (autovacuum_enabled = off);
CREATE TABLE empty (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text) WITH (autovacuum_enabled = off);
CREATE TABLE refers (id int PRIMARY KEY, small int REFERENCES small) WITH (autovacuum_enabled = off);
CREATE INDEX wide_v ON wide (v);
CREATE INDEX holes_v ON holes (v);
INSERT INTO small SELECT g, 's' || g FROM generate_series(1, 20) g;
INSERT INTO wide (v, w, n) SELECT 'w' || g % 17, repeat(md5(g::text), 1 + g % 300), g FROM generate_series(1, 600) g;
-- pages with room, of which the free space map knows, and a page that is empty
INSERT INTO holes SELECT g, repeat('h', 100) FROM generate_series(1, 1000) g;
DELETE FROM holes WHERE id % 3 = 0 OR id BETWEEN 200 AND 400;
VACUUM holes;
INSERT INTO refers SELECT g, g FROM generate_series(1, 20) g;

-- every row with its place, in physical order; and whether an index agrees
CREATE FUNCTION fingerprint(OUT relation text, OUT nrows bigint, OUT digest text, OUT via_index text) RETURNS SETOF record
LANGUAGE plpgsql AS $$
BEGIN
  FOREACH relation IN ARRAY ARRAY['empty', 'holes', 'refers', 'small', 'wide'] LOOP
    PERFORM set_config('enable_seqscan', 'on', true), set_config('enable_indexscan', 'off', true),
            set_config('enable_bitmapscan', 'off', true);
    EXECUTE format('SELECT count(*), md5(string_agg(ctid || x::text, chr(10))) FROM %I x', relation) INTO nrows, digest;
    PERFORM set_config('enable_seqscan', 'off', true), set_config('enable_indexscan', 'on', true);
    EXECUTE format('SELECT md5(string_agg(ctid || x::text, chr(10) ORDER BY ctid)) FROM %I x WHERE id > -1000000', relation)
      INTO via_index;
    RETURN NEXT;
  END LOOP;
END $$;
-- where the next rows go: a batch into each table
CREATE FUNCTION placement(OUT relation text, OUT digest text, OUT pages bigint) RETURNS SETOF record LANGUAGE plpgsql AS $$
BEGIN
  relation := 'small';
  WITH i AS (INSERT INTO small SELECT g, repeat('n', g % 700) FROM generate_series(1001, 1200) g RETURNING ctid, id)
    SELECT md5(string_agg(ctid || ':' || id, ' ' ORDER BY id)), count(DISTINCT split_part(ctid::text, ',', 1)) INTO digest, pages FROM i;
  RETURN NEXT;
  relation := 'wide';
  WITH i AS (INSERT INTO wide (v, w, n) SELECT 'n', repeat(md5(g::text), 1 + g % 300), g FROM generate_series(1, 200) g RETURNING ctid, id)
    SELECT md5(string_agg(ctid || ':' || id, ' ' ORDER BY id)), count(DISTINCT split_part(ctid::text, ',', 1)) INTO digest, pages FROM i;
  RETURN NEXT;
  relation := 'holes';
  WITH i AS (INSERT INTO holes SELECT g, repeat('n', g % 200) FROM generate_series(2001, 2400) g RETURNING ctid, id)
    SELECT md5(string_agg(ctid || ':' || id, ' ' ORDER BY id)), count(DISTINCT split_part(ctid::text, ',', 1)) INTO digest, pages FROM i;
  RETURN NEXT;
  relation := 'empty';
  WITH i AS (INSERT INTO empty (v) SELECT repeat('n', g % 200) FROM generate_series(1, 300) g RETURNING ctid, id)
    SELECT md5(string_agg(ctid || ':' || id, ' ' ORDER BY id)), count(DISTINCT split_part(ctid::text, ',', 1)) INTO digest, pages FROM i;
  RETURN NEXT;
  -- an update goes where there is room, too
  relation := 'updated';
  UPDATE holes SET v = repeat('u', 300) WHERE id < 150;
  SELECT md5(string_agg(ctid || ':' || id, ' ' ORDER BY id)), count(DISTINCT split_part(ctid::text, ',', 1)) INTO digest, pages FROM holes;
  RETURN NEXT;
END $$;

SELECT name, tables, sequences FROM testenv_snapshot();
SELECT relation, nrows, digest IS NOT DISTINCT FROM via_index AS agrees FROM fingerprint();
-- the tables that remember are kept, in a schema of their own
CREATE SCHEMA kept;
SET testenv.new_tables = keep;
CREATE TABLE kept.rows AS SELECT * FROM fingerprint();
CREATE TABLE kept.placed AS SELECT * FROM placement();
SELECT relation, pages > 0 AS has_pages FROM kept.placed;
SELECT name, tables, sequences FROM testenv_restore();
CREATE TABLE kept.sizes AS SELECT c.oid::regclass::text AS relation, pg_relation_size(c.oid) AS bytes FROM pg_class c
  WHERE c.relkind IN ('r', 'i', 'S') AND c.relnamespace = 'public'::regnamespace;

-- One step: do the work, restore, and say what is not as it was; then place the
-- next rows, and restore that as well.
CREATE PROCEDURE step(work text, VARIADIC more text[] DEFAULT '{}') LANGUAGE plpgsql AS $$
DECLARE
  statement text;
  wrong text;
BEGIN
  FOREACH statement IN ARRAY array_prepend(work, more) LOOP
    EXECUTE statement;
  END LOOP;
  COMMIT;
  PERFORM testenv_restore();
  COMMIT;
  SELECT string_agg(relation, ', ' ORDER BY relation) INTO wrong
    FROM (TABLE kept.rows EXCEPT SELECT * FROM fingerprint()) x;
  IF wrong IS NOT NULL OR NOT testenv_is_clean() THEN
    RAISE EXCEPTION 'after "%": different: %', work, coalesce(wrong, 'not clean');
  END IF;
  COMMIT;
  SELECT string_agg(relation, ', ' ORDER BY relation) INTO wrong
    FROM (TABLE kept.placed EXCEPT SELECT * FROM placement()) x;
  IF wrong IS NOT NULL THEN
    RAISE EXCEPTION 'after "%": rows were placed elsewhere: %', work, wrong;
  END IF;
  COMMIT;
  PERFORM testenv_restore();
  COMMIT;
  SELECT string_agg(relation, ', ' ORDER BY relation) INTO wrong
    FROM (TABLE kept.sizes EXCEPT
          SELECT c.oid::regclass::text, pg_relation_size(c.oid) FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace) x;
  IF wrong IS NOT NULL THEN
    RAISE EXCEPTION 'after "%": size differs: %', work, wrong;
  END IF;
END $$;
-- A check that cannot fail is none: it does, when a row is at another place
DO $$
BEGIN
  UPDATE small SET v = v WHERE id = 1;
  RAISE NOTICE 'different: %', (SELECT string_agg(relation, ', ') FROM (TABLE kept.rows EXCEPT SELECT * FROM fingerprint()) x);
  RAISE EXCEPTION 'roll back' USING errcode = 'TE001';
EXCEPTION WHEN SQLSTATE 'TE001' THEN
  NULL;
END $$;

CALL step('SELECT 1');
CALL step('INSERT INTO small VALUES (0, ''zero'')');
CALL step('UPDATE small SET v = v || ''x'' WHERE id = 7');
CALL step('UPDATE small SET v = v');
CALL step('UPDATE small SET id = -id WHERE id > 10 AND id NOT IN (SELECT small FROM refers)', 'DELETE FROM refers');
CALL step('DELETE FROM wide WHERE id = 300');
CALL step('DELETE FROM wide');
CALL step('DELETE FROM wide WHERE id % 2 = 0', 'INSERT INTO wide (v) SELECT ''r'' FROM generate_series(1, 3000)');
CALL step('UPDATE wide SET w = w || ''tail''');
CALL step('UPDATE wide SET w = NULL WHERE id > 100', 'UPDATE wide SET w = repeat(md5(id::text), 400)');
CALL step('INSERT INTO holes SELECT g, repeat(''i'', 500) FROM generate_series(5000, 9000) g');
CALL step('DELETE FROM holes WHERE id > 500', 'INSERT INTO holes SELECT g, ''x'' FROM generate_series(5000, 5100) g');
CALL step('INSERT INTO empty (v) SELECT ''e'' FROM generate_series(1, 5000)');
CALL step('INSERT INTO small SELECT 50, ''c'' ON CONFLICT (id) DO NOTHING', 'INSERT INTO small SELECT 7, ''c'' ON CONFLICT (id) DO UPDATE SET v = ''conflict''');
CALL step('MERGE INTO small t USING generate_series(15, 25) g ON t.id = g WHEN MATCHED THEN UPDATE SET v = ''m'' WHEN NOT MATCHED THEN INSERT VALUES (g, ''m'')');
CALL step('TRUNCATE wide');
CALL step('TRUNCATE small, refers');
CALL step('TRUNCATE empty, wide RESTART IDENTITY', 'INSERT INTO wide (v) VALUES (''again'')');
CALL step('TRUNCATE holes', 'INSERT INTO holes SELECT g, ''t'' FROM generate_series(1, 3000) g');
CALL step('LOCK TABLE small', 'SELECT count(*) FROM wide');
-- row locks, of one transaction; a foreign key's
CALL step('SELECT id FROM wide FOR UPDATE');
CALL step('SELECT id FROM wide FOR KEY SHARE', 'UPDATE wide SET v = ''locked'' WHERE id < 5');
CALL step('INSERT INTO refers VALUES (100, 3), (101, 3)');
-- savepoints: several ids on one page, multixacts of one session
CALL step($$DO 'BEGIN
    FOR i IN 1 .. 20 LOOP
      BEGIN
        UPDATE small SET v = ''sub'' || i WHERE id = i;
        PERFORM FROM small WHERE id = i + 1 FOR SHARE;
        IF i % 3 = 0 THEN RAISE EXCEPTION ''back''; END IF;
      EXCEPTION WHEN raise_exception THEN NULL;
      END;
    END LOOP;
  END'$$);
CALL step('ANALYZE');
CALL step('CREATE INDEX kept_out ON small (v)', 'DROP INDEX kept_out');
CALL step('REINDEX TABLE wide');
CALL step('UPDATE wide SET v = ''r''', 'REINDEX TABLE wide');
CALL step('CLUSTER wide USING wide_v');
CALL step('DELETE FROM wide WHERE id < 300', 'CLUSTER wide USING wide_v');
CALL step('ALTER TABLE wide CLUSTER ON wide_v', 'CLUSTER wide', 'ALTER TABLE wide SET WITHOUT CLUSTER');

-- what cannot be called in a procedure goes first, step() restores
COPY small FROM stdin;
100	copied
101	copied too
\.
CALL step('SELECT 1');
BEGIN;
TRUNCATE small, refers;
COPY small FROM stdin WITH (FREEZE);
1	frozen
\.
COMMIT;
CALL step('SELECT 1');
VACUUM;
CALL step('SELECT 1');
VACUUM (FREEZE);
CALL step('SELECT 1');
VACUUM FULL;
CALL step('SELECT 1');
DELETE FROM wide WHERE id % 3 = 0;
DELETE FROM holes WHERE id > 500;
DELETE FROM refers;
VACUUM;
CALL step('SELECT 1');
DELETE FROM wide WHERE id % 3 = 0;
DELETE FROM holes WHERE id < 500;
VACUUM (FREEZE, INDEX_CLEANUP off) wide, holes;
CALL step('SELECT 1');
UPDATE wide SET v = 'full', w = w || 'x';
DELETE FROM small WHERE id NOT IN (SELECT small FROM refers);
VACUUM FULL wide, small, holes;
CALL step('SELECT 1');
VACUUM FULL;
INSERT INTO wide (v) SELECT 'after' FROM generate_series(1, 1000);
CALL step('SELECT 1');
DELETE FROM wide;
DELETE FROM holes;
VACUUM (TRUNCATE on) wide, holes;
CALL step('SELECT 1');
-- VACUUM leaves no page of the visibility map; a heap that grows back past its
-- old length has none yet
DELETE FROM holes;
VACUUM (TRUNCATE on) holes;
INSERT INTO holes SELECT g, repeat('g', 50) FROM generate_series(1, 9000) g;
SELECT pg_relation_size('holes', 'vm') AS map;
CALL step('SELECT 1');
REINDEX TABLE CONCURRENTLY wide;
CALL step('SELECT 1');
UPDATE wide SET v = 'c';
REINDEX TABLE CONCURRENTLY wide;
DELETE FROM wide WHERE id < 100;
VACUUM wide;
CALL step('SELECT 1');
REINDEX SCHEMA public;
CALL step('SELECT 1');

-- aborted: rows, storage, and a restore in the middle of it
BEGIN;
INSERT INTO wide (v, w) SELECT 'abort', repeat(md5(g::text), 300) FROM generate_series(1, 500) g;
DELETE FROM small WHERE id > 20;
UPDATE holes SET v = 'abort';
ROLLBACK;
CALL step('SELECT 1');
BEGIN;
TRUNCATE wide, holes RESTART IDENTITY;
INSERT INTO holes VALUES (1);
CLUSTER wide USING wide_v;
REINDEX TABLE small;
ROLLBACK;
CALL step('SELECT 1');
BEGIN;
SAVEPOINT a;
TRUNCATE wide;
INSERT INTO wide (v) VALUES ('lost');
ROLLBACK TO a;
UPDATE wide SET v = 'kept' WHERE id = 5;
RELEASE a;
COMMIT;
CALL step('SELECT 1');
UPDATE small SET v = 'x';
BEGIN;
SELECT name, tables FROM testenv_restore();
INSERT INTO small VALUES (77, 'abort');
UPDATE wide SET v = 'abort';
ROLLBACK;
CALL step('SELECT 1');

-- a hundred restores leave the files, and what the catalogs take, as they were
DO $$
BEGIN
  FOR i IN 1 .. 100 LOOP
    INSERT INTO wide (v, w) VALUES ('many', repeat(md5(i::text), 300));
    UPDATE small SET v = 'many' || i;
    DELETE FROM holes WHERE id % 10 = i % 10;
    INSERT INTO empty (v) SELECT 'many' FROM generate_series(1, 300);
    COMMIT;
    PERFORM testenv_restore();
    COMMIT;
    IF i = 1 THEN
      CREATE TABLE kept.catalogs AS SELECT oid::regclass AS relation, pg_relation_size(oid) AS bytes FROM pg_class
        WHERE relnamespace IN ('pg_catalog'::regnamespace, 'public'::regnamespace, 'testenv_store'::regnamespace)
          AND relkind IN ('r', 'i', 'S') AND relname NOT LIKE 'pg_statistic%';
      COMMIT;
      PERFORM testenv_restore();
      COMMIT;
    END IF;
  END LOOP;
END $$;
SELECT relation, bytes AS before, pg_relation_size(relation) AS after FROM kept.catalogs
WHERE pg_relation_size(relation) > bytes;
CALL step('SELECT 1');

-- the statistics say that the tables are fine, so that autovacuum lets them be
INSERT INTO empty (v) SELECT 'counted' FROM generate_series(1, 1000);
DELETE FROM holes;
UPDATE wide SET w = w || 'counted';
UPDATE refers SET small = 1;
UPDATE small SET v = 'counted';
SELECT pg_stat_force_next_flush();
SELECT relname, n_dead_tup > 0 AS dead, n_mod_since_analyze > 0 AS modified FROM pg_stat_user_tables
WHERE schemaname = 'public' ORDER BY relname COLLATE "C";
SELECT name, tables, sequences FROM testenv_restore();
SELECT pg_stat_force_next_flush();
SELECT relname, n_live_tup, n_dead_tup, n_mod_since_analyze, n_ins_since_vacuum FROM pg_stat_user_tables
WHERE schemaname = 'public' ORDER BY relname COLLATE "C";
SELECT sum(n_dead_tup) AS dead FROM pg_stat_all_tables
WHERE relid IN (SELECT reltoastrelid FROM pg_class WHERE relnamespace = 'public'::regnamespace);

DROP PROCEDURE step;
DROP FUNCTION fingerprint, placement;
DROP SCHEMA kept CASCADE;
DROP TABLE refers, small, wide, holes, empty;
DROP EXTENSION testenv;
