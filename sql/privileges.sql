-- Who may do what: EXECUTE is all that is needed, and it gives nothing else.
CREATE EXTENSION testenv;
CREATE ROLE regress_testenv_owner;
CREATE ROLE regress_testenv_tester;
CREATE SCHEMA hidden AUTHORIZATION regress_testenv_owner;
CREATE TABLE hidden.secret (id int PRIMARY KEY, v text);
INSERT INTO hidden.secret VALUES (1, 'seed'), (2, 'seed');
ALTER TABLE hidden.secret OWNER TO regress_testenv_owner;
CREATE TABLE guarded (id int, owner name DEFAULT current_user);
INSERT INTO guarded VALUES (1, 'regress_testenv_tester'), (2, 'regress_testenv_owner');
ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
ALTER TABLE guarded FORCE ROW LEVEL SECURITY;
CREATE POLICY mine ON guarded USING (owner = current_user);
GRANT SELECT, DELETE ON guarded TO regress_testenv_tester;
CREATE SEQUENCE hidden.counter;

-- one function at a time
GRANT EXECUTE ON FUNCTION testenv_snapshot TO regress_testenv_tester;
SET ROLE regress_testenv_tester;
SELECT name, tables, sequences FROM testenv_snapshot('by tester');
SELECT testenv_restore();
\echo :SQLSTATE
RESET ROLE;
GRANT EXECUTE ON FUNCTION testenv_restore, testenv_drop, testenv_snapshots, testenv_is_clean TO regress_testenv_tester;
REVOKE EXECUTE ON FUNCTION testenv_snapshot FROM regress_testenv_tester;

UPDATE hidden.secret SET v = 'work';
DELETE FROM guarded;
SELECT nextval('hidden.counter');
SET ROLE regress_testenv_tester;
SELECT testenv_snapshot('by tester');
\echo :SQLSTATE
SELECT name, tables, is_current FROM testenv_snapshots();
SELECT testenv_is_clean();
SELECT name, tables, sequences FROM testenv_restore();
SELECT testenv_is_clean();
TABLE guarded;
TABLE hidden.secret;
\echo :SQLSTATE
SELECT testenv_drop('by tester');
SELECT count(*) FROM testenv_snapshots();
RESET ROLE;
TABLE hidden.secret;
SELECT id FROM guarded ORDER BY id;
SELECT nextval('hidden.counter');

-- the store is nobody's: not to be read, listed, dropped or written
GRANT EXECUTE ON FUNCTION testenv_snapshot TO regress_testenv_tester;
SET ROLE regress_testenv_tester;
SELECT name FROM testenv_snapshot();
SELECT has_schema_privilege('testenv_store', 'USAGE') AS usage, has_schema_privilege('testenv_store', 'CREATE') AS "create";
SELECT * FROM testenv_store.snapshot_default;
\echo :SQLSTATE
SELECT * FROM testenv_store.state;
\echo :SQLSTATE
DROP TABLE testenv_store.snapshot_default;
\echo :SQLSTATE
CREATE TABLE testenv_store.mine ();
\echo :SQLSTATE
CREATE TABLE mine () USING testenv_image;
\echo :SQLSTATE
SELECT testenv_store.testenv_image_handler(NULL);
\echo :SQLSTATE
RESET ROLE;
SELECT relname, relowner = 10 AS bootstrap, relacl FROM pg_class
WHERE relnamespace = 'testenv_store'::regnamespace ORDER BY relname COLLATE "C";
-- with USAGE given by mistake there is still no right on the relations
GRANT USAGE ON SCHEMA testenv_store TO regress_testenv_tester;
SET ROLE regress_testenv_tester;
SELECT * FROM testenv_store.snapshot_default;
\echo :SQLSTATE
TRUNCATE testenv_store.state;
\echo :SQLSTATE
RESET ROLE;
REVOKE USAGE ON SCHEMA testenv_store FROM regress_testenv_tester;

-- code that belongs to a table is run as the table's owner, not as the caller:
-- a new index whose expression asks who it is
CREATE TABLE hidden.seen (who name);
CREATE FUNCTION hidden.who(int) RETURNS name LANGUAGE sql IMMUTABLE AS 'SELECT current_user';
SELECT name, tables FROM testenv_snapshot();
DELETE FROM hidden.secret;
CREATE INDEX secret_who ON hidden.secret (hidden.who(id));
SET ROLE regress_testenv_tester;
SELECT name, tables FROM testenv_restore();
RESET ROLE;
SET enable_seqscan = off;
SELECT id FROM hidden.secret WHERE hidden.who(id) = current_user;
SELECT count(*) AS as_owner FROM hidden.secret WHERE hidden.who(id) = 'regress_testenv_owner';
SELECT count(*) AS as_tester FROM hidden.secret WHERE hidden.who(id) = 'regress_testenv_tester';
RESET enable_seqscan;
SELECT current_user = session_user AS same_user;

-- triggers, rules and policies do not run in a restore
CREATE FUNCTION hidden.shout() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'trigger'; END $$;
DROP INDEX hidden.secret_who;
UPDATE hidden.secret SET v = 'work';
CREATE TRIGGER shout BEFORE INSERT OR UPDATE OR DELETE ON hidden.secret FOR EACH ROW EXECUTE FUNCTION hidden.shout();
ALTER TABLE hidden.secret ENABLE ALWAYS TRIGGER shout;
SELECT name, tables FROM testenv_restore();
TABLE hidden.secret;

-- a table whose owner is gone from under it by REASSIGN is the same table
CREATE ROLE regress_testenv_heir;
REASSIGN OWNED BY regress_testenv_owner TO regress_testenv_heir;
ALTER TABLE hidden.secret DISABLE TRIGGER shout;
DELETE FROM hidden.secret;
SELECT name, tables FROM testenv_restore();
SELECT count(*), pg_get_userbyid(relowner) FROM hidden.secret, pg_class
WHERE pg_class.oid = 'hidden.secret'::regclass GROUP BY relowner;

-- a grant goes with the extension
DROP EXTENSION testenv;
CREATE EXTENSION testenv;
SET ROLE regress_testenv_tester;
SELECT testenv_restore();
\echo :SQLSTATE
RESET ROLE;

DROP TABLE guarded;
DROP SCHEMA hidden CASCADE;
DROP EXTENSION testenv;
DROP ROLE regress_testenv_owner;
DROP ROLE regress_testenv_heir;
DROP ROLE regress_testenv_tester;
