-- The SQL interface on an ordinary day: what each function returns, names side
-- by side, which snapshot NULL means, transactions.  Columns that hold a time,
-- or a size that depends on the release, are left out or turned into a boolean.
CREATE EXTENSION testenv;

-- what the extension brought along
SELECT p.oid::regprocedure AS function, p.prorettype::regtype AS returns,
       obj_description(p.oid, 'pg_proc') IS NOT NULL AS has_comment,
       EXISTS (SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
               WHERE a.grantee = 0) AS public_may,
       p.provolatile AS volatile, p.proparallel AS parallel, p.prosecdef AS definer
FROM pg_depend d JOIN pg_proc p ON p.oid = d.objid
JOIN pg_extension e ON e.oid = d.refobjid
WHERE d.classid = 'pg_proc'::regclass AND d.refclassid = 'pg_extension'::regclass
  AND d.deptype = 'e' AND e.extname = 'testenv'
ORDER BY p.oid::regprocedure::text COLLATE "C";

CREATE TABLE customer (id int PRIMARY KEY, name text);
INSERT INTO customer VALUES (1, 'Ada'), (2, 'Grace');
CREATE TABLE invoice (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
                      customer int REFERENCES customer, total numeric);
INSERT INTO invoice (customer, total) VALUES (1, 10), (1, 20), (2, 30);

-- before there is a snapshot
SELECT * FROM testenv_snapshots();
SELECT testenv_restore();
\echo :SQLSTATE
SELECT testenv_is_clean();
\echo :SQLSTATE
SELECT testenv_drop('default');
\echo :SQLSTATE

-- the shape of the results
SELECT * FROM testenv_snapshot() \gdesc
SELECT * FROM testenv_restore() \gdesc
SELECT * FROM testenv_snapshots() \gdesc
SELECT * FROM testenv_drop('default') \gdesc
SELECT * FROM testenv_is_clean() \gdesc

-- a snapshot, some work, a restore.  Pages: two heaps of 1, their indexes of 2,
-- a sequence of 1; the indexes of two empty TOAST tables and of the two empty
-- catalogs of large objects, 1 each.
SELECT name, tables, sequences, pages, bytes > pages * 8192 AS has_bytes, elapsed_ms > 0 AS took_time
FROM testenv_snapshot();
SELECT testenv_is_clean();
UPDATE customer SET name = 'Eve' WHERE id = 1;
INSERT INTO invoice (customer, total) VALUES (1, 99);
SELECT testenv_is_clean();
SELECT name, tables, sequences, pages > 0 AS has_pages, elapsed_ms > 0 AS took_time FROM testenv_restore();
SELECT testenv_is_clean();
SELECT ctid, * FROM customer;
SELECT ctid, * FROM invoice;
INSERT INTO invoice (customer, total) VALUES (1, 99) RETURNING ctid, id;

-- only what was changed is put back
SELECT name, tables, sequences FROM testenv_restore();
SELECT name, tables, sequences, pages FROM testenv_restore();
UPDATE customer SET name = 'Eve' WHERE id = 1;
SELECT name, tables, sequences FROM testenv_restore();
SELECT nextval('invoice_id_seq');
SELECT name, tables, sequences, pages FROM testenv_restore();

-- in the schema public there are functions only
SELECT 'pg_class'::regclass AS catalog, relname AS name FROM pg_class c
  JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
  WHERE relnamespace <> 'testenv_store'::regnamespace
UNION ALL
SELECT 'pg_type'::regclass, typname FROM pg_type t
  JOIN pg_depend d ON d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e'
  WHERE typnamespace <> 'testenv_store'::regnamespace;
SELECT relname, relkind FROM pg_class
WHERE relnamespace = 'public'::regnamespace ORDER BY relname COLLATE "C";
SELECT relname, amname, relnatts FROM pg_class c JOIN pg_am a ON a.oid = c.relam
WHERE relnamespace = 'testenv_store'::regnamespace ORDER BY relname COLLATE "C";

-- named snapshots side by side
INSERT INTO customer VALUES (3, 'Mary');
SELECT name, tables, sequences FROM testenv_snapshot('three', 'with Mary');
INSERT INTO customer VALUES (4, 'Joan');
SELECT name, tables, sequences FROM testenv_snapshot('It''s "four" %s \ ünïcode');
SELECT name, label, tables, sequences, pages > 0 AS has_pages, bytes > 0 AS has_bytes,
       created_at BETWEEN now() - interval '1 hour' AND now() + interval '1 hour' AS created,
       is_current, restores, last_restored_at IS NOT NULL AS restored
FROM testenv_snapshots() ORDER BY name COLLATE "C";

SELECT name FROM testenv_restore('default');
TABLE customer;
SELECT testenv_is_clean('default') AS "default", testenv_is_clean('three') AS three,
       testenv_is_clean() AS "current";
SELECT name FROM testenv_restore('three');
TABLE customer;
SELECT testenv_is_clean('default') AS "default", testenv_is_clean('three') AS three,
       testenv_is_clean() AS "current";

-- NULL is the one last taken or restored
DELETE FROM customer WHERE id = 3;
SELECT name FROM testenv_restore();
SELECT name FROM testenv_restore('It''s "four" %s \ ünïcode');
DELETE FROM customer WHERE id = 3;
SELECT name FROM testenv_restore(NULL);
TABLE customer;
SELECT name, is_current, restores, last_restored_at IS NOT NULL AS restored
FROM testenv_snapshots() ORDER BY name COLLATE "C";

-- arguments by name; terminate => NULL is false
SELECT name FROM testenv_restore(name => 'three', terminate => true);
SELECT name FROM testenv_restore(terminate => NULL);
SELECT name FROM testenv_snapshot(label => 'by name', name => 'named');
SELECT name, label, is_current FROM testenv_snapshots() ORDER BY name COLLATE "C";

-- the current one is dropped: NULL is the newest of those that are left
SELECT testenv_drop('named');
SELECT name FROM testenv_restore();
SELECT testenv_drop('It''s "four" %s \ ünïcode');
SELECT testenv_restore('It''s "four" %s \ ünïcode');
\echo :SQLSTATE

-- the same name again replaces that snapshot, counts and label included
SELECT name FROM testenv_restore('default');
INSERT INTO customer VALUES (5, 'Five');
SELECT name FROM testenv_snapshot('three');
SELECT name, label, is_current, restores FROM testenv_snapshots() ORDER BY name COLLATE "C";
DELETE FROM customer;
\echo :SQLSTATE
TRUNCATE customer, invoice;
SELECT name, tables FROM testenv_restore('three');
TABLE customer;
SELECT count(*) FROM pg_class WHERE relnamespace = 'testenv_store'::regnamespace;

-- a snapshot that is rolled back leaves the old one
BEGIN;
DELETE FROM invoice;
DELETE FROM customer;
SELECT name FROM testenv_snapshot('three', 'to be rolled back');
SELECT name FROM testenv_snapshot('four');
ROLLBACK;
SELECT name, label, is_current FROM testenv_snapshots() ORDER BY name COLLATE "C";
SELECT testenv_is_clean('three');
TRUNCATE customer, invoice;
SELECT name FROM testenv_restore('three');
TABLE customer;

-- as does one that fails in the end
BEGIN;
SAVEPOINT before;
SELECT name FROM testenv_snapshot('three', 'to be rolled back');
SELECT 1 / 0;
ROLLBACK TO before;
SELECT name, label FROM testenv_snapshots() ORDER BY name COLLATE "C";
COMMIT;
BEGIN;
SELECT testenv_drop('three');
ROLLBACK;
SELECT name FROM testenv_restore();
SELECT testenv_is_clean();

-- in the transaction that seeds: rows that it wrote itself, a table and an
-- index that it made, one that it truncated
BEGIN;
INSERT INTO customer SELECT g, 'seeded' FROM generate_series(10, 400) g;
UPDATE customer SET name = 'seeded twice' WHERE id > 300;
DELETE FROM customer WHERE id BETWEEN 100 AND 200;
CREATE TABLE made_here (id serial PRIMARY KEY, v text);
INSERT INTO made_here (v) VALUES ('a'), ('b');
TRUNCATE invoice RESTART IDENTITY;
INSERT INTO invoice (customer, total) VALUES (5, 1);
SELECT name, tables, sequences FROM testenv_snapshot('seeded');
COMMIT;
SELECT testenv_is_clean();
SELECT md5(string_agg(ctid || name, ',')) AS customers FROM customer \gset before_
DELETE FROM customer WHERE id > 9;
INSERT INTO made_here (v) VALUES ('c');
INSERT INTO invoice (customer, total) VALUES (5, 2);
SELECT name, tables, sequences FROM testenv_restore();
SELECT md5(string_agg(ctid || name, ',')) = :'before_customers' AS same, count(*) FROM customer;
TABLE made_here;
TABLE invoice;
SELECT nextval('made_here_id_seq'), nextval('invoice_id_seq');
SELECT name, tables, sequences FROM testenv_restore();

-- a restore in an explicit transaction, with reads before and writes after it
UPDATE made_here SET v = 'changed';
BEGIN;
TABLE made_here;
SELECT name, tables FROM testenv_restore();
TABLE made_here;
SELECT testenv_is_clean();
INSERT INTO made_here (v) VALUES ('after the restore');
SELECT testenv_is_clean();
COMMIT;
TABLE made_here;
SELECT name, tables, sequences FROM testenv_restore();
TABLE made_here;

-- ROLLBACK does not undo a restore, but undoes what came after it
UPDATE made_here SET v = 'changed';
BEGIN;
SELECT name, tables FROM testenv_restore();
DELETE FROM made_here;
ROLLBACK;
TABLE made_here;
SELECT name, tables FROM testenv_restore();
SELECT testenv_is_clean();
UPDATE made_here SET v = 'changed';
BEGIN;
SAVEPOINT inner_one;
SELECT name, tables FROM testenv_restore();
ROLLBACK TO inner_one;
TABLE made_here;
COMMIT;
SELECT testenv_is_clean();

-- twice in a transaction, where there is nothing to do; and in one that reads
-- with an older snapshot, which sees the restored rows at once
BEGIN;
SELECT name, tables FROM testenv_restore();
SELECT name, tables FROM testenv_restore();
COMMIT;
UPDATE made_here SET v = 'changed';
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) FROM made_here WHERE v = 'changed';
SELECT name, tables FROM testenv_restore();
TABLE made_here;
COMMIT;

-- is_clean tells of open transactions too, and works where nothing may be written
BEGIN;
INSERT INTO made_here (v) VALUES ('open');
SELECT testenv_is_clean();
ROLLBACK;
SELECT testenv_is_clean();
SELECT name FROM testenv_restore();
BEGIN READ ONLY;
SELECT testenv_is_clean();
SELECT name, is_current FROM testenv_snapshots() ORDER BY name COLLATE "C";
COMMIT;

-- drop is undone by ROLLBACK, and leaves no relation behind
SELECT testenv_drop('seeded'), testenv_drop('three'), testenv_drop('default');
SELECT count(*) FROM testenv_snapshots();
SELECT relname FROM pg_class WHERE relnamespace = 'testenv_store'::regnamespace;
SELECT testenv_restore();
\echo :SQLSTATE

DROP TABLE made_here, invoice, customer;
DROP EXTENSION testenv;
