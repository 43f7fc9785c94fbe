-- The detector that reads the WAL: what it finds, and what it leaves alone.
-- Every restore here is checked page by page, and against the other detector.
CREATE EXTENSION testenv;
SET testenv.check_detector = on;
CREATE TABLE many (id int PRIMARY KEY, k int, v text) WITH (autovacuum_enabled = off);
CREATE INDEX many_k ON many (k);
CREATE INDEX many_v ON many (v);
CREATE INDEX many_both ON many (k, v) INCLUDE (id) WHERE id % 2 = 0;
CREATE INDEX many_expr ON many ((k + 1));
CREATE INDEX many_hash ON many USING hash (k);
INSERT INTO many SELECT g, g % 1000, md5(g::text) FROM generate_series(1, 20000) g;
CREATE TABLE other (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text) WITH (autovacuum_enabled = off);
INSERT INTO other (v) SELECT repeat('o', 100) FROM generate_series(1, 100);
CREATE TABLE points (p point) WITH (autovacuum_enabled = off);
CREATE INDEX points_p ON points USING spgist (p);
INSERT INTO points SELECT point(g, g % 17) FROM generate_series(1, 2000) g;
CREATE UNLOGGED TABLE unlogged (id int PRIMARY KEY);
INSERT INTO unlogged SELECT generate_series(1, 50);
CREATE TABLE wide (id int PRIMARY KEY, v text) WITH (autovacuum_enabled = off);
ALTER TABLE wide ALTER v SET STORAGE EXTERNAL;
INSERT INTO wide SELECT g, repeat('w', 5000) FROM generate_series(1, 20) g;
SELECT tables, sequences FROM testenv_snapshot();

-- says how it was done
CREATE FUNCTION put_back(OUT tables int, OUT sequences int, OUT detector text, OUT wal boolean) LANGUAGE sql AS
  'SELECT tables, sequences, detector, wal_bytes > 0 FROM testenv_restore()';
SET testenv.detector = look;
SELECT * FROM put_back();
SET testenv.detector = wal;
SELECT * FROM put_back();
INSERT INTO other (v) VALUES ('new');
SELECT * FROM put_back();
SET testenv.detector = sideways;
SET testenv.detector = look;
INSERT INTO other (v) VALUES ('new');
SELECT * FROM put_back();
SET testenv.detector = wal;

-- a restore that has nothing to do writes no WAL, and the next reads none; others
-- in the server write now and then, so it is tried more than once
DO $$
DECLARE
  before pg_lsn;
  quiet boolean := false;
BEGIN
  FOR i IN 1 .. 100 LOOP
    PERFORM put_back();
    COMMIT;
    before := pg_current_wal_insert_lsn();
    IF (SELECT wal_bytes FROM testenv_restore()) = 0 AND pg_current_wal_insert_lsn() = before THEN
      quiet := true;
      EXIT;
    END IF;
    COMMIT;
    PERFORM pg_sleep(0.01);
  END LOOP;
  RAISE NOTICE 'quiet: %', quiet;
END $$;

-- one row of many: its entries were marked as dead, which no WAL says
CREATE PROCEDURE lose(which text) LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format('DELETE FROM many WHERE %s', which);
  COMMIT;
  -- whoever finds the rows dead marks the entries
  SET LOCAL enable_seqscan = off;
  SET LOCAL enable_bitmapscan = off;
  FOR i IN 1 .. 2 LOOP
    EXECUTE format('SELECT count(*) FROM many WHERE id BETWEEN 1 AND 20000 AND %s', which);
    PERFORM count(k) FROM many WHERE k >= 0;
    PERFORM count(v) FROM many WHERE v >= '';
    PERFORM count(id) FROM many WHERE k >= 0 AND id % 2 = 0;
    PERFORM count(*) FROM many WHERE k + 1 >= 0;
    PERFORM count(*) FROM many WHERE k = 77;
  END LOOP;
  COMMIT;
END $$;
CALL lose('id = 77');
SELECT * FROM put_back();
CALL lose('id IN (1, 5000, 19999)');
SELECT * FROM put_back();
CALL lose('id % 7 = 0');
SELECT * FROM put_back();
UPDATE many SET k = k + 1 WHERE id = 300;
CALL lose('id = 300');
SELECT * FROM put_back();
SET enable_seqscan = off;
SELECT id FROM many WHERE k = 77 ORDER BY id LIMIT 3;
SELECT id FROM many WHERE k + 1 = 78 ORDER BY id LIMIT 3;
SELECT id, k FROM many WHERE v = md5('300');
RESET enable_seqscan;

-- new storage, of all and of a part
TRUNCATE other RESTART IDENTITY;
SELECT * FROM put_back();
REINDEX INDEX many_v;
SELECT * FROM put_back();
INSERT INTO other (v) VALUES ('after the rewrite of another');
SELECT * FROM put_back();
VACUUM FULL wide;
SELECT * FROM put_back();
BEGIN;
TRUNCATE many;
ROLLBACK;
SELECT * FROM put_back();
CLUSTER many USING many_k;
SELECT * FROM put_back();

-- only TOAST changes, and comes back
UPDATE wide SET v = repeat('x', 5000) WHERE id = 3;
SELECT * FROM put_back();

-- what is in no WAL
DELETE FROM unlogged WHERE id > 10;
SELECT * FROM put_back();
INSERT INTO points VALUES ('(0.5, 0.5)');
SELECT * FROM put_back();
VACUUM points;
SELECT * FROM put_back();

-- what was rolled back has left its traces
BEGIN;
UPDATE other SET v = 'changed';
ROLLBACK;
SELECT * FROM put_back();
SELECT testenv_is_clean();
UPDATE other SET v = v;
SELECT testenv_is_clean();
SELECT * FROM put_back();
SELECT testenv_is_clean();

-- what a restore has logged, of pages and of cuts, the next one does not read
DO $$
DECLARE
  before pg_lsn;
  logged bigint;
  passed_over boolean := false;
BEGIN
  FOR i IN 1 .. 10 LOOP
    UPDATE many SET v = v || 'longer';
    COMMIT;
    before := pg_current_wal_insert_lsn();
    PERFORM put_back();
    COMMIT;
    logged := pg_current_wal_insert_lsn() - before;
    passed_over := logged > 1000000 AND (SELECT wal_bytes < 10000 FROM testenv_restore());
    COMMIT;
    EXIT WHEN passed_over;
  END LOOP;
  RAISE NOTICE 'passed over: %', passed_over;
END $$;

-- only a superuser chooses the detector
CREATE ROLE testenv_regress_chooser;
SET SESSION AUTHORIZATION testenv_regress_chooser;
SET testenv.detector = look;
RESET SESSION AUTHORIZATION;
DROP ROLE testenv_regress_chooser;

DROP FUNCTION put_back;
DROP PROCEDURE lose;
DROP TABLE many, other, points, unlogged, wide;
DROP EXTENSION testenv;
