-- The schema changed since the snapshot: what cannot be put back is refused
-- before anything is touched, and named; what is new is handled as
-- testenv.new_tables says; what makes no difference to the pages is let pass.
CREATE EXTENSION testenv;
CREATE TABLE witness (id int PRIMARY KEY, v text);
INSERT INTO witness VALUES (1, 'seed');
CREATE TABLE a (id int PRIMARY KEY, v varchar(10), n int);
INSERT INTO a VALUES (1, 'one', 1), (2, 'two', 2);
CREATE TABLE b (id int PRIMARY KEY, v text);
INSERT INTO b VALUES (1, 'one');
CREATE TABLE narrow (id int);
INSERT INTO narrow VALUES (1);
CREATE TABLE parted (id int, v int) PARTITION BY RANGE (id);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (1) TO (10);
INSERT INTO parted VALUES (1, 1);
CREATE MATERIALIZED VIEW mv AS SELECT id FROM a;
SELECT name, tables FROM testenv_snapshot();
UPDATE witness SET v = 'work';

-- dropped, and one of the same name made again
DROP TABLE b;
SELECT testenv_restore();
\echo :SQLSTATE
SELECT testenv_is_clean();
CREATE TABLE b (id int PRIMARY KEY, v text);
SELECT testenv_restore();
\echo :SQLSTATE
SELECT * FROM witness;

-- several at once: each is listed
ALTER TABLE a ADD COLUMN added int;
DROP MATERIALIZED VIEW mv;
ALTER TABLE narrow ALTER COLUMN id TYPE bigint;
SELECT testenv_restore();
\echo :SQLSTATE
SELECT testenv_is_clean();
SELECT * FROM witness;
-- the way out: take it again
SELECT name, tables FROM testenv_snapshot();
SELECT testenv_is_clean();

-- each kind of change by itself: was it refused, and the witness left alone?
CREATE PROCEDURE attempt(statement text, undo text) LANGUAGE plpgsql AS $$
DECLARE
  state text;
  detail text;
BEGIN
  RAISE INFO '%', statement;
  EXECUTE statement;
  UPDATE witness SET v = 'attempt';
  COMMIT;
  BEGIN
    PERFORM testenv_restore();
    RAISE INFO '  put back, witness: %', (SELECT v FROM witness);
  EXCEPTION WHEN others THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, detail = PG_EXCEPTION_DETAIL;
    RAISE INFO '  % %: %', state, detail, (SELECT v FROM witness);
  END;
  COMMIT;
  EXECUTE undo;
END $$;
CREATE PROCEDURE take_again() LANGUAGE plpgsql AS $$
BEGIN
  UPDATE witness SET v = 'seed';
  PERFORM testenv_snapshot();
END $$;
CALL take_again();
CALL attempt('ALTER TABLE a DROP COLUMN n', 'SELECT 1');
CALL take_again();
CALL attempt('ALTER TABLE a ADD COLUMN m int DEFAULT 7', 'SELECT 1');
CALL take_again();
CALL attempt('ALTER TABLE a ALTER COLUMN v TYPE text', 'ALTER TABLE a ALTER COLUMN v TYPE varchar(10)');
CALL attempt('ALTER TABLE a ALTER COLUMN m TYPE oid USING m::oid', 'SELECT 1');
CALL take_again();
CALL attempt('ALTER TABLE a SET UNLOGGED', 'ALTER TABLE a SET LOGGED');
CALL attempt('ALTER TABLE narrow ADD COLUMN wide text', 'SELECT 1');
CALL take_again();
CALL attempt('DROP TABLE parted_1', 'SELECT 1');
CALL take_again();
CREATE ACCESS METHOD regress_heap TYPE TABLE HANDLER heap_tableam_handler;
CALL attempt('ALTER TABLE a SET ACCESS METHOD regress_heap', 'ALTER TABLE a SET ACCESS METHOD heap');
CALL attempt('ALTER TABLE a SET WITHOUT CLUSTER', 'SELECT 1');
DROP ACCESS METHOD regress_heap;

-- no difference to the pages: names, defaults, constraints, storage, comments
CALL attempt('ALTER TABLE a RENAME COLUMN v TO w', 'ALTER TABLE a RENAME COLUMN w TO v');
CALL attempt('ALTER TABLE a RENAME TO renamed', 'ALTER TABLE renamed RENAME TO a');
CREATE SCHEMA elsewhere;
CALL attempt('ALTER TABLE a SET SCHEMA elsewhere', 'ALTER TABLE elsewhere.a SET SCHEMA public');
DROP SCHEMA elsewhere;
CALL attempt('ALTER TABLE a ALTER COLUMN v SET DEFAULT 9', 'ALTER TABLE a ALTER COLUMN v DROP DEFAULT');
CALL attempt('ALTER TABLE a ADD CONSTRAINT positive CHECK (id > 0)', 'ALTER TABLE a DROP CONSTRAINT positive');
CALL attempt('ALTER TABLE a ALTER COLUMN v SET NOT NULL', 'ALTER TABLE a ALTER COLUMN v DROP NOT NULL');
CALL attempt('ALTER TABLE a SET (fillfactor = 50)', 'ALTER TABLE a RESET (fillfactor)');
CALL attempt('ALTER TABLE a REPLICA IDENTITY FULL', 'ALTER TABLE a REPLICA IDENTITY DEFAULT');
CALL attempt('COMMENT ON TABLE a IS ''comment''', 'COMMENT ON TABLE a IS NULL');
CALL attempt('CREATE STATISTICS a_stats ON id, v FROM a', 'DROP STATISTICS a_stats');
CALL attempt('ANALYZE', 'SELECT 1');
SELECT testenv_is_clean();

-- a new table: emptied, kept or an error, with its sequences left alone
CREATE TABLE new_one (id serial PRIMARY KEY, v text);
INSERT INTO new_one (v) VALUES ('x'), (repeat('toast', 5000));
CREATE TABLE "New two" AS SELECT 1 AS id;
CREATE UNLOGGED TABLE new_unlogged AS SELECT 1 AS id;
CREATE TABLE new_empty (id int);
CREATE TABLE new_parted (id int) PARTITION BY LIST (id);
CREATE TABLE new_parted_1 PARTITION OF new_parted FOR VALUES IN (1);
CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM (10) TO (20);
INSERT INTO new_parted VALUES (1);
INSERT INTO parted VALUES (11, 11);
CREATE MATERIALIZED VIEW new_mv AS SELECT id FROM a;
SELECT testenv_is_clean();
UPDATE witness SET v = 'work';
SET testenv.new_tables = error;
SELECT testenv_restore();
\echo :SQLSTATE
SELECT v FROM witness;
SET testenv.new_tables = keep;
SELECT testenv_is_clean();
SELECT name, tables FROM testenv_restore();
SELECT testenv_is_clean();
SELECT v FROM witness;
SELECT (SELECT count(*) FROM new_one) AS new_one, (SELECT count(*) FROM "New two") AS new_two, (SELECT count(*) FROM parted) AS parted;
RESET testenv.new_tables;
SELECT testenv_is_clean();
SELECT name, tables FROM testenv_restore();
SELECT testenv_is_clean();
SELECT (SELECT count(*) FROM new_one) AS new_one, (SELECT count(*) FROM "New two") AS new_two,
       (SELECT count(*) FROM new_unlogged) AS unlogged, (SELECT count(*) FROM parted) AS parted,
       (SELECT count(*) FROM new_parted) AS new_parted, (SELECT count(*) FROM new_mv) AS new_mv;
-- empty now: not worth a word; and it works as a table does
SELECT name, tables FROM testenv_restore();
SET enable_seqscan = off;
SELECT id FROM new_one WHERE id > 0;
INSERT INTO new_one (v) VALUES (repeat('again', 5000)) RETURNING ctid, id;
SELECT id, length(v) FROM new_one WHERE id > 0;
RESET enable_seqscan;
-- also when the restore is rolled back
BEGIN;
SELECT name, tables FROM testenv_restore();
ROLLBACK;
SELECT count(*) FROM new_one;
-- dropped again
DROP TABLE new_one, "New two", new_unlogged, new_empty, new_parted, parted_2;
DROP MATERIALIZED VIEW new_mv;
SELECT name, tables FROM testenv_restore();
SELECT testenv_is_clean();

-- referenced by a foreign key of a new table: emptied all the same
CREATE TABLE refers (id int REFERENCES a);
INSERT INTO refers VALUES (1);
SELECT name, tables FROM testenv_restore();
TABLE refers;
DROP TABLE refers;

-- a table that is attached, detached
CREATE TABLE parted_3 PARTITION OF parted FOR VALUES FROM (30) TO (40);
INSERT INTO parted VALUES (31, 31);
SELECT name, tables FROM testenv_snapshot();
ALTER TABLE parted DETACH PARTITION parted_3;
DELETE FROM parted_3;
SELECT name, tables FROM testenv_restore();
TABLE parted_3;
ALTER TABLE parted ATTACH PARTITION parted_3 FOR VALUES FROM (30) TO (40);
SELECT testenv_is_clean();

DROP PROCEDURE attempt, take_again;
DROP TABLE witness, a, b, narrow, parted;
DROP EXTENSION testenv;
