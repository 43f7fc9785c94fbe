-- A table that was cut below the length that it had, and grew again.  COPY adds
-- pages that it does not come to use; no record names them.
CREATE EXTENSION testenv;
SET testenv.check_detector = on;
SET testenv.detector = wal;

-- cut in place: the transaction has made the table
BEGIN;
CREATE TABLE cut (id int, v text) WITH (autovacuum_enabled = off);
INSERT INTO cut SELECT g, repeat('c', 1700) FROM generate_series(1, 400) g;
SELECT name, tables FROM testenv_snapshot();
TRUNCATE cut;
COPY cut FROM PROGRAM 'seq -f "%.0f	copied" 1 9800';
COMMIT;
SELECT name, tables, detector FROM testenv_restore();
SELECT count(*), max(id), count(DISTINCT v) FROM cut;
DROP TABLE cut;

-- by VACUUM: pages that were empty in the snapshot go without a record of them
CREATE TABLE cut (id int, v text) WITH (autovacuum_enabled = off);
INSERT INTO cut SELECT g, repeat('c', 1700) FROM generate_series(1, 400) g;
DELETE FROM cut WHERE id BETWEEN 120 AND 380;
SELECT name, tables FROM testenv_snapshot();
DELETE FROM cut WHERE id >= 120;
VACUUM (TRUNCATE on) cut;
COPY cut FROM PROGRAM 'seq -f "%.0f	copied" 1 7000';
SELECT name, tables, detector FROM testenv_restore();
SELECT count(*), max(id), count(DISTINCT v) FROM cut;

DROP TABLE cut;
DROP EXTENSION testenv;
