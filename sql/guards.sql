-- Every refusal: the guards, names, and what the session itself must not be
-- doing.  Each is one ERROR with SQLSTATE, DETAIL and HINT, and changes nothing.
CREATE EXTENSION testenv;
CREATE TABLE t (id int PRIMARY KEY, v text);
INSERT INTO t SELECT g, 'seed' FROM generate_series(1, 5) g;
SELECT name, tables FROM testenv_snapshot();
UPDATE t SET v = 'work' WHERE id = 1;

-- testing_mode off
SET testenv.testing_mode = off;
SELECT testenv_restore();
\echo :SQLSTATE
SELECT testenv_snapshot();
\echo :SQLSTATE
SELECT testenv_snapshot('other');
\echo :SQLSTATE
SELECT testenv_drop('default');
\echo :SQLSTATE
-- looking is allowed
SELECT testenv_is_clean();
SELECT name, tables, is_current, restores FROM testenv_snapshots();
SET testenv.testing_mode = on;

-- only a superuser sets it, or check_detector; the other settings are free
CREATE ROLE regress_testenv_user;
SET SESSION AUTHORIZATION regress_testenv_user;
SET testenv.testing_mode = on;
\echo :SQLSTATE
SET testenv.check_detector = off;
\echo :SQLSTATE
SELECT set_config('testenv.testing_mode', 'on', false);
\echo :SQLSTATE
SET testenv.lock_timeout = '1s';
SET testenv.new_tables = 'keep';
-- no EXECUTE
SELECT testenv_restore();
\echo :SQLSTATE
SELECT testenv_snapshot();
\echo :SQLSTATE
SELECT testenv_drop('default');
\echo :SQLSTATE
SELECT testenv_snapshots();
\echo :SQLSTATE
SELECT testenv_is_clean();
\echo :SQLSTATE
RESET SESSION AUTHORIZATION;
RESET testenv.lock_timeout;
RESET testenv.new_tables;

-- a user who sets testing_mode before the library is loaded gains nothing: the
-- value is thrown away when the setting is defined
ALTER DATABASE testenv_regression_test SET testenv.testing_mode = off;
\c -
SET SESSION AUTHORIZATION regress_testenv_user;
ALTER ROLE regress_testenv_user SET testenv.testing_mode = on;
\echo :SQLSTATE
SET testenv.testing_mode = on;
RESET SESSION AUTHORIZATION;
SELECT testenv_restore();
\echo :SQLSTATE
SHOW testenv.testing_mode;
ALTER DATABASE testenv_regression_test RESET testenv.testing_mode;
\c -
LOAD 'testenv';

-- the settings: defaults, bad values, and nobody else's names
SELECT name, setting, unit, context, vartype, enumvals, boot_val, min_val
FROM pg_settings WHERE name LIKE 'testenv.%' ORDER BY name COLLATE "C";
SET testenv.new_tables = 'drop';
\echo :SQLSTATE
\set VERBOSITY sqlstate
SET testenv.lock_timeout = -1;
\set VERBOSITY default
SET testenv.testing_mood = on;
\echo :SQLSTATE

-- names and labels; at most 54 and 255 bytes
SELECT testenv_snapshot(NULL);
\echo :SQLSTATE
SELECT testenv_snapshot('');
\echo :SQLSTATE
SELECT testenv_snapshot(repeat('x', 55));
\echo :SQLSTATE
SELECT testenv_snapshot(repeat('ü', 28));
\echo :SQLSTATE
SELECT testenv_snapshot('other', repeat('x', 256));
\echo :SQLSTATE
SELECT testenv_restore('');
\echo :SQLSTATE
SELECT testenv_restore('other');
\echo :SQLSTATE
SELECT testenv_restore('Default');
\echo :SQLSTATE
SELECT testenv_restore(repeat('x', 55));
\echo :SQLSTATE
SELECT testenv_is_clean('');
\echo :SQLSTATE
SELECT testenv_is_clean('other');
\echo :SQLSTATE
SELECT testenv_is_clean(repeat('x', 55));
\echo :SQLSTATE
SELECT testenv_drop(NULL);
\echo :SQLSTATE
SELECT testenv_drop('');
\echo :SQLSTATE
SELECT testenv_drop('other');
\echo :SQLSTATE
SELECT testenv_drop(repeat('x', 55));
\echo :SQLSTATE
-- the longest that fit
CREATE DATABASE regress_testenv_names_test;
\c regress_testenv_names_test
CREATE EXTENSION testenv;
SELECT name = repeat('x', 54) AS whole FROM testenv_snapshot(repeat('x', 54), repeat('y', 255));
SELECT name = repeat('ü', 27) AS whole FROM testenv_snapshot(repeat('ü', 27));
SELECT length(name), length(label), octet_length(name) FROM testenv_snapshots() ORDER BY 1;
SELECT name = repeat('x', 54) AS whole FROM testenv_restore(repeat('x', 54));
\c testenv_regression_test
DROP DATABASE regress_testenv_names_test;

-- a read-only transaction
BEGIN READ ONLY;
SELECT testenv_restore();
\echo :SQLSTATE
ROLLBACK;
BEGIN READ ONLY;
SELECT testenv_snapshot();
\echo :SQLSTATE
ROLLBACK;
BEGIN READ ONLY;
SELECT testenv_drop('default');
\echo :SQLSTATE
ROLLBACK;

-- a transaction that has already written
BEGIN;
INSERT INTO t VALUES (100, 'mine');
SELECT testenv_restore();
\echo :SQLSTATE
COMMIT;
BEGIN;
SAVEPOINT inner_one;
CREATE TEMPORARY TABLE mine ();
ROLLBACK TO inner_one;
SELECT testenv_restore();
\echo :SQLSTATE
COMMIT;
-- one that has only read has not
BEGIN;
SELECT count(*) FROM t;
SAVEPOINT inner_one;
SELECT testenv_restore('unknown');
\echo :SQLSTATE
ROLLBACK TO inner_one;
COMMIT;

-- a cursor of the own session
SELECT id, v FROM t ORDER BY id;
BEGIN;
DECLARE c CURSOR FOR TABLE t;
FETCH c;
SELECT testenv_restore();
\echo :SQLSTATE
ROLLBACK;
SELECT testenv_restore() FROM t;
\echo :SQLSTATE
DO $$
DECLARE
  r record;
BEGIN
  FOR r IN SELECT id FROM t LOOP
    PERFORM testenv_restore();
  END LOOP;
END $$;
\echo :SQLSTATE
SELECT id, v FROM t ORDER BY id;
-- a cursor when a snapshot has to freeze
BEGIN;
DECLARE c CURSOR FOR TABLE t;
FETCH c;
SELECT testenv_snapshot();
\echo :SQLSTATE
ROLLBACK;
-- a cursor on a table that did not change, or is closed, is in nobody's way
SELECT name, tables FROM testenv_restore();
CREATE TABLE quiet (id int);
INSERT INTO quiet VALUES (1), (2);
SELECT name FROM testenv_snapshot('quiet');
INSERT INTO t VALUES (6, 'work');
BEGIN;
DECLARE c CURSOR FOR TABLE quiet;
FETCH c;
DECLARE d CURSOR FOR TABLE t;
FETCH d;
CLOSE d;
SELECT name, tables FROM testenv_restore();
FETCH c;
COMMIT;

-- a cursor on a table that is new: refused before the first page, too
CREATE TABLE new_one (id int);
INSERT INTO new_one VALUES (1), (2);
UPDATE t SET v = 'work' WHERE id = 1;
BEGIN;
DECLARE c CURSOR FOR TABLE new_one;
FETCH c;
SELECT testenv_restore();
\echo :SQLSTATE
ROLLBACK;
SELECT id, v FROM t ORDER BY id;
TABLE new_one;
DROP TABLE new_one;
SELECT name, tables FROM testenv_restore();

-- a deferred trigger that is pending, when a snapshot has to freeze (before a
-- restore, such a transaction has written)
CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES t DEFERRABLE INITIALLY DEFERRED);
BEGIN;
INSERT INTO child VALUES (1, 1);
SELECT testenv_snapshot('other');
\echo :SQLSTATE
ROLLBACK;
BEGIN;
INSERT INTO child VALUES (1, 1);
SET CONSTRAINTS ALL IMMEDIATE;
SELECT name FROM testenv_snapshot('other');
COMMIT;
SELECT testenv_drop('other');
DROP TABLE child;

-- a query that runs in parallel mode never calls the functions in a worker
SELECT proname, proparallel FROM pg_proc WHERE proname LIKE 'testenv%' AND proparallel <> 'u';
-- but one that is called by a function that lies about it is refused
CREATE FUNCTION lies() RETURNS text LANGUAGE sql PARALLEL SAFE
AS $$ SELECT name FROM testenv_restore() $$;
CREATE FUNCTION lies_too() RETURNS text LANGUAGE sql PARALLEL SAFE
AS $$ SELECT name FROM testenv_snapshot() $$;
CREATE TABLE many AS SELECT g FROM generate_series(1, 10) g;
ALTER TABLE many SET (parallel_workers = 2);
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SET parallel_leader_participation = on;
-- (the context says who ran it, the leader or a worker)
\set SHOW_CONTEXT never
SELECT count(*) FROM many WHERE lies() IS NULL AND g > 0;
\echo :SQLSTATE
SELECT count(*) FROM many WHERE lies_too() IS NULL AND g > 0;
\echo :SQLSTATE
\set SHOW_CONTEXT errors
RESET parallel_setup_cost;
RESET parallel_tuple_cost;
RESET min_parallel_table_scan_size;
RESET parallel_leader_participation;
DROP FUNCTION lies, lies_too;
DROP TABLE many;

-- a superuser's rights do not replace the name of the database
CREATE DATABASE regress_plain_db;
\c regress_plain_db
CREATE EXTENSION testenv;
CREATE TABLE t (id int);
INSERT INTO t VALUES (1);
SELECT testenv_snapshot();
\echo :SQLSTATE
SELECT testenv_restore();
\echo :SQLSTATE
SELECT testenv_drop('default');
\echo :SQLSTATE
SELECT testenv_is_clean();
\echo :SQLSTATE
SELECT relname FROM pg_class WHERE relnamespace = 'testenv_store'::regnamespace;
\c testenv_regression_test
-- in any case, anywhere in the name
ALTER DATABASE regress_plain_db RENAME TO "regress_GreaTESTever";
\c regress_GreaTESTever
SELECT name, tables FROM testenv_snapshot();
DELETE FROM t;
SELECT name, tables FROM testenv_restore();
-- a template database
ALTER DATABASE "regress_GreaTESTever" IS_TEMPLATE true;
SELECT testenv_snapshot();
\echo :SQLSTATE
SELECT testenv_restore();
\echo :SQLSTATE
SELECT testenv_drop('default');
\echo :SQLSTATE
ALTER DATABASE "regress_GreaTESTever" IS_TEMPLATE false;
SELECT testenv_is_clean();
-- a snapshot taken under another name stays guarded
\c testenv_regression_test
ALTER DATABASE "regress_GreaTESTever" RENAME TO regress_plain_db;
\c regress_plain_db
INSERT INTO t VALUES (2);
SELECT testenv_restore();
\echo :SQLSTATE
TABLE t;
\c testenv_regression_test
DROP DATABASE regress_plain_db;

-- after all of that
SELECT name FROM testenv_snapshots() ORDER BY name COLLATE "C";
SELECT testenv_is_clean();
SELECT id, v FROM t ORDER BY id;
TABLE quiet;

DROP TABLE t, quiet;
DROP EXTENSION testenv;
DROP ROLE regress_testenv_user;
