-- Large objects: contents, owners and grants come back; so does what the shared
-- catalog knows of them, which is what DROP ROLE looks at.
CREATE EXTENSION testenv;
CREATE ROLE regress_testenv_owner;
CREATE ROLE regress_testenv_reader;
CREATE ROLE regress_testenv_late;

SELECT lo_from_bytea(4001, convert_to(repeat('first ', 2000), 'UTF8'));
SELECT lo_from_bytea(4002, '\x0102');
SELECT lo_create(4003);
SELECT lo_from_bytea(4004, '\x04');
ALTER LARGE OBJECT 4002 OWNER TO regress_testenv_owner;
GRANT SELECT ON LARGE OBJECT 4001 TO regress_testenv_reader;
COMMENT ON LARGE OBJECT 4001 IS 'seeded';
SELECT name, tables, sequences FROM testenv_snapshot();

CREATE FUNCTION objects(OUT loid oid, OUT owner name, OUT grantees text, OUT bytes int, OUT digest text, OUT comment text)
RETURNS SETOF record LANGUAGE sql AS $$
  SELECT m.oid, o.rolname,
         (SELECT string_agg(a.grantee::regrole || ':' || a.privilege_type, ' ' ORDER BY 1)
          FROM aclexplode(m.lomacl) a WHERE a.grantee <> m.lomowner),
         length(lo_get(m.oid)), left(md5(lo_get(m.oid)), 6), obj_description(m.oid, 'pg_largeobject')
  FROM pg_largeobject_metadata m JOIN pg_roles o ON o.oid = m.lomowner ORDER BY m.oid
$$;
CREATE FUNCTION depends(OUT loid oid, OUT role text, OUT kind "char") RETURNS SETOF record LANGUAGE sql AS $$
  SELECT objid, refobjid::regrole::text, deptype FROM pg_shdepend
  WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND classid = 'pg_largeobject'::regclass
  ORDER BY objid, refobjid::regrole::text COLLATE "C", deptype
$$;
SELECT loid, replace(owner, current_user, 'superuser') AS owner, grantees, bytes, digest, comment FROM objects();
SELECT * FROM depends();
CREATE TEMPORARY TABLE seeded AS SELECT * FROM objects();
CREATE TEMPORARY TABLE seeded_depends AS SELECT * FROM depends();

-- contents only
SELECT lo_put(4001, 5000, '\xffff'), lo_put(4003, 10000, '\x33');
SELECT loid FROM (SELECT * FROM objects() EXCEPT TABLE seeded) x ORDER BY 1;
SELECT testenv_is_clean();
SELECT name, tables, pages > 0 AS has_pages FROM testenv_restore();
SELECT loid FROM (SELECT * FROM objects() EXCEPT TABLE seeded) x ORDER BY 1;
SELECT testenv_is_clean();

-- new ones, owned by a role that comes late; removed ones; other rights
SELECT lo_create(4010), lo_from_bytea(4011, '\x11');
ALTER LARGE OBJECT 4010 OWNER TO regress_testenv_late;
GRANT ALL ON LARGE OBJECT 4004 TO regress_testenv_late;
COMMENT ON LARGE OBJECT 4010 IS 'goes with it';
SELECT lo_unlink(4002), lo_unlink(4003);
REVOKE SELECT ON LARGE OBJECT 4001 FROM regress_testenv_reader;
-- now only the late one cannot go
DROP ROLE regress_testenv_late;
\echo :SQLSTATE
SELECT name FROM testenv_restore();
TABLE seeded EXCEPT SELECT * FROM objects();
SELECT * FROM objects() EXCEPT TABLE seeded;
TABLE seeded_depends EXCEPT SELECT * FROM depends();
SELECT * FROM depends() EXCEPT TABLE seeded_depends;
SELECT count(*) FROM pg_description WHERE classoid = 'pg_largeobject'::regclass AND objoid = 4010;
SELECT testenv_is_clean();
-- now the others cannot go, and the late one can
DROP ROLE regress_testenv_owner;
\echo :SQLSTATE
DROP ROLE regress_testenv_reader;
\echo :SQLSTATE
DROP ROLE regress_testenv_late;

-- the same where the restore is rolled back: whether a role can go depends on
-- what is there, at the latest after the next restore
CREATE ROLE regress_testenv_late;
SELECT lo_unlink(4002);
ALTER LARGE OBJECT 4004 OWNER TO regress_testenv_late;
BEGIN;
SELECT name FROM testenv_restore();
ROLLBACK;
SELECT name FROM testenv_restore();
TABLE seeded EXCEPT SELECT * FROM objects();
TABLE seeded_depends EXCEPT SELECT * FROM depends();
SELECT * FROM depends() EXCEPT TABLE seeded_depends;
DROP ROLE regress_testenv_owner;
\echo :SQLSTATE
DROP ROLE regress_testenv_late;

-- an object that somebody has open is the caller's own affair
BEGIN;
SELECT lo_open(4001, x'40000'::int) >= 0 AS opened;
SELECT name FROM testenv_restore();
COMMIT;

-- all of them
SELECT count(lo_unlink(oid)) FROM pg_largeobject_metadata;
SELECT count(*) FROM depends();
VACUUM pg_largeobject, pg_largeobject_metadata;
SELECT name FROM testenv_restore();
-- (comments are not part of a snapshot: this one went with its object)
SELECT loid, owner, grantees, bytes, digest FROM seeded
EXCEPT SELECT loid, owner, grantees, bytes, digest FROM objects();
TABLE seeded_depends EXCEPT SELECT * FROM depends();

SELECT count(lo_unlink(oid)) FROM pg_largeobject_metadata;
DROP ROLE regress_testenv_owner;
DROP ROLE regress_testenv_reader;
DROP TABLE seeded, seeded_depends;
DROP FUNCTION objects, depends;
DROP EXTENSION testenv;
