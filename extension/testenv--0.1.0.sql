/* extension/testenv--0.1.0.sql */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION testenv" to load this file. \quit

-- The relations of the extension itself: nobody has anything to look for here.
CREATE SCHEMA testenv_store;
REVOKE ALL ON SCHEMA testenv_store FROM PUBLIC;
COMMENT ON SCHEMA testenv_store IS 'page images and state of testenv; managed by testenv_snapshot() and testenv_drop()';

CREATE FUNCTION testenv_store.testenv_image_handler(pg_catalog.internal)
RETURNS pg_catalog.table_am_handler
AS 'MODULE_PATHNAME', 'testenv_image_handler'
LANGUAGE C;
REVOKE ALL ON FUNCTION testenv_store.testenv_image_handler(pg_catalog.internal) FROM PUBLIC;
COMMENT ON FUNCTION testenv_store.testenv_image_handler(pg_catalog.internal) IS 'handler of the table access method testenv_image';

CREATE ACCESS METHOD testenv_image TYPE TABLE HANDLER testenv_store.testenv_image_handler;
COMMENT ON ACCESS METHOD testenv_image IS 'relations whose blocks are page images of testenv';

CREATE FUNCTION testenv_snapshot(
	INOUT name pg_catalog.text DEFAULT 'default',
	IN label pg_catalog.text DEFAULT NULL,
	OUT tables pg_catalog.int4,
	OUT sequences pg_catalog.int4,
	OUT pages pg_catalog.int8,
	OUT bytes pg_catalog.int8,
	OUT elapsed_ms pg_catalog.float8)
RETURNS pg_catalog.record
AS 'MODULE_PATHNAME', 'testenv_snapshot'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION testenv_snapshot(pg_catalog.text, pg_catalog.text) FROM PUBLIC;
COMMENT ON FUNCTION testenv_snapshot(pg_catalog.text, pg_catalog.text) IS 'take a snapshot of every table and sequence of this test database';

CREATE FUNCTION testenv_restore(
	INOUT name pg_catalog.text DEFAULT NULL,
	IN terminate pg_catalog.bool DEFAULT false,
	OUT tables pg_catalog.int4,
	OUT sequences pg_catalog.int4,
	OUT pages pg_catalog.int8,
	OUT elapsed_ms pg_catalog.float8,
	OUT detector pg_catalog.text,
	OUT wal_bytes pg_catalog.int8)
RETURNS pg_catalog.record
AS 'MODULE_PATHNAME', 'testenv_restore'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION testenv_restore(pg_catalog.text, pg_catalog.bool) FROM PUBLIC;
COMMENT ON FUNCTION testenv_restore(pg_catalog.text, pg_catalog.bool) IS 'put every table and sequence back to a snapshot; overwrites data, at once';

CREATE FUNCTION testenv_drop(name pg_catalog.text)
RETURNS pg_catalog.void
AS 'MODULE_PATHNAME', 'testenv_drop'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION testenv_drop(pg_catalog.text) FROM PUBLIC;
COMMENT ON FUNCTION testenv_drop(pg_catalog.text) IS 'remove a snapshot';

CREATE FUNCTION testenv_snapshots(
	OUT name pg_catalog.text,
	OUT label pg_catalog.text,
	OUT created_at pg_catalog.timestamptz,
	OUT tables pg_catalog.int4,
	OUT sequences pg_catalog.int4,
	OUT pages pg_catalog.int8,
	OUT bytes pg_catalog.int8,
	OUT is_current pg_catalog.bool,
	OUT restores pg_catalog.int8,
	OUT last_restored_at pg_catalog.timestamptz,
	OUT last_restore_ms pg_catalog.float8,
	OUT slowest_restore_ms pg_catalog.float8)
RETURNS SETOF pg_catalog.record
AS 'MODULE_PATHNAME', 'testenv_snapshots'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION testenv_snapshots() FROM PUBLIC;
COMMENT ON FUNCTION testenv_snapshots() IS 'the snapshots of this database';

CREATE FUNCTION testenv_is_clean(name pg_catalog.text DEFAULT NULL)
RETURNS pg_catalog.bool
AS 'MODULE_PATHNAME', 'testenv_is_clean'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION testenv_is_clean(pg_catalog.text) FROM PUBLIC;
COMMENT ON FUNCTION testenv_is_clean(pg_catalog.text) IS 'is the database equal to a snapshot?';
