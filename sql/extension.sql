-- The extension itself: versions and the way between them, another schema, what
-- it leaves behind (nothing), and the privileges to create it.
SELECT name, version, superuser, trusted, relocatable, schema, requires
FROM pg_available_extension_versions WHERE name = 'testenv' AND version =
  (SELECT default_version FROM pg_available_extensions WHERE name = 'testenv');
-- from every version there is a path to the one that is the default, and no
-- version is known by an update script only
SELECT source, target, path FROM pg_extension_update_paths('testenv')
WHERE path IS NULL AND target = (SELECT default_version FROM pg_available_extensions WHERE name = 'testenv')
ORDER BY source, target;
SELECT source FROM pg_extension_update_paths('testenv')
UNION SELECT target FROM pg_extension_update_paths('testenv')
EXCEPT SELECT version FROM pg_available_extension_versions WHERE name = 'testenv';

-- (the temporary table below is named by every snapshot; not the point here)
SET client_min_messages = warning;
-- What there is in a database besides the system's own, as text: catalogs whose
-- rows come and go with objects.
CREATE FUNCTION inventory() RETURNS SETOF text LANGUAGE sql AS $$
  SELECT 'class ' || oid::regclass FROM pg_class WHERE oid >= 16384
  UNION ALL SELECT 'type ' || oid::regtype FROM pg_type WHERE oid >= 16384
  UNION ALL SELECT 'proc ' || oid::regprocedure FROM pg_proc WHERE oid >= 16384
  UNION ALL SELECT 'namespace ' || nspname FROM pg_namespace WHERE oid >= 16384
  UNION ALL SELECT 'am ' || amname FROM pg_am WHERE oid >= 16384
  UNION ALL SELECT 'extension ' || extname FROM pg_extension WHERE oid >= 16384
  UNION ALL SELECT 'depend ' || pg_describe_object(classid, objid, objsubid) FROM pg_depend WHERE objid >= 16384
  UNION ALL SELECT 'comment ' || description FROM pg_description WHERE objoid >= 16384
  UNION ALL SELECT 'rights ' || objoid FROM pg_init_privs WHERE objoid >= 16384
  UNION ALL SELECT 'statistics ' || starelid FROM pg_statistic WHERE starelid >= 16384
$$;
CREATE TEMPORARY TABLE before AS SELECT * FROM inventory();
INSERT INTO before SELECT * FROM inventory() EXCEPT TABLE before;

-- in a schema of the user's choice, with an odd name, not on the search path
CREATE SCHEMA "Test tools";
CREATE TABLE t (id serial PRIMARY KEY, v text);
INSERT INTO t (v) VALUES ('seed');
CREATE EXTENSION testenv SCHEMA "Test tools";
SELECT extname, extnamespace::regnamespace, extrelocatable, extconfig FROM pg_extension WHERE extname = 'testenv';
SELECT extversion = (SELECT default_version FROM pg_available_extensions WHERE name = 'testenv') AS is_default
FROM pg_extension WHERE extname = 'testenv';
ALTER EXTENSION testenv UPDATE;
SELECT testenv_restore();
\echo :SQLSTATE
SELECT name, tables, sequences FROM "Test tools".testenv_snapshot();
SELECT name, tables, sequences FROM "Test tools".testenv_snapshot('two');
UPDATE t SET v = 'work';
SELECT "Test tools".testenv_is_clean();
SELECT name, tables, sequences FROM "Test tools".testenv_restore('default');
SELECT "Test tools".testenv_is_clean();
TABLE t;
SELECT "Test tools".testenv_drop('two');
SELECT name FROM "Test tools".testenv_snapshots();
-- nothing depends on the search path of the caller
CREATE SCHEMA trap;
CREATE FUNCTION trap.int4eq(int, int) RETURNS boolean LANGUAGE sql AS 'SELECT 1 / 0 = 1';
CREATE TABLE trap.pg_class (oid int);
SET search_path = trap, pg_catalog;
UPDATE public.t SET v = 'work';
SELECT name, tables FROM "Test tools".testenv_restore();
SET search_path = '';
SELECT name FROM "Test tools".testenv_snapshot('no path');
SELECT "Test tools".testenv_is_clean();
RESET search_path;
DROP SCHEMA trap CASCADE;
-- where it is, it stays
ALTER EXTENSION testenv SET SCHEMA public;
\echo :SQLSTATE
SELECT objid::regprocedure AS function FROM pg_depend
WHERE deptype = 'e' AND classid = 'pg_proc'::regclass
  AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'testenv')
ORDER BY objid::regprocedure::text COLLATE "C";

-- DROP EXTENSION takes everything with it, stores included
SELECT count(*) > 1 AS has_stores FROM pg_class WHERE relnamespace = 'testenv_store'::regnamespace;
SELECT pg_relation_filepath(oid) AS store FROM pg_class WHERE relname = 'snapshot_default' \gset
BEGIN;
DROP EXTENSION testenv;
ROLLBACK;
UPDATE t SET v = 'work';
SELECT name, tables FROM "Test tools".testenv_restore('default');
DROP EXTENSION testenv;
SELECT pg_stat_file(:'store', true) IS NULL OR (pg_stat_file(:'store', true)).size = 0 AS file_is_gone;
SELECT "Test tools".testenv_restore();
\echo :SQLSTATE
DROP TABLE t;
DROP SCHEMA "Test tools";
SELECT * FROM inventory() EXCEPT TABLE before ORDER BY 1;
TABLE before EXCEPT SELECT * FROM inventory() ORDER BY 1;

-- again, in the same session, which has the library and its caches still
CREATE EXTENSION testenv;
CREATE TABLE t (id serial PRIMARY KEY, v text);
INSERT INTO t (v) VALUES ('second seed');
SELECT * FROM testenv_snapshots();
SELECT testenv_restore();
\echo :SQLSTATE
SELECT name, tables, sequences FROM testenv_snapshot();
DELETE FROM t;
SELECT name, tables, sequences FROM testenv_restore();
TABLE t;
-- made, used and dropped in one transaction
DROP EXTENSION testenv;
DROP TABLE t;
SELECT * FROM inventory() EXCEPT TABLE before ORDER BY 1;
CREATE TABLE t (id int);
INSERT INTO t VALUES (1);
BEGIN;
CREATE EXTENSION testenv;
SELECT name, tables FROM testenv_snapshot();
SELECT testenv_is_clean();
DROP EXTENSION testenv;
COMMIT;
BEGIN;
CREATE EXTENSION testenv;
SELECT name, tables FROM testenv_snapshot();
ROLLBACK;
TABLE t;
DROP TABLE t;
SELECT * FROM inventory() EXCEPT TABLE before ORDER BY 1;
-- a schema of that name that is somebody else's is not taken over
CREATE SCHEMA testenv_store;
\set VERBOSITY terse
CREATE EXTENSION testenv;
\set VERBOSITY default
\echo :SQLSTATE
DROP SCHEMA testenv_store;
-- superusers only
CREATE ROLE regress_testenv_creator;
GRANT CREATE ON SCHEMA public TO regress_testenv_creator;
GRANT CREATE ON DATABASE testenv_regression_test TO regress_testenv_creator;
SET ROLE regress_testenv_creator;
CREATE EXTENSION testenv;
\echo :SQLSTATE
RESET ROLE;
DROP OWNED BY regress_testenv_creator;
DROP ROLE regress_testenv_creator;
SELECT * FROM inventory() EXCEPT TABLE before ORDER BY 1;

DROP TABLE before;
DROP FUNCTION inventory;
