/*-------------------------------------------------------------------------
 *
 * clone_copy.c
 *		Makes one clone: the database, and what a template does not hand on.
 *
 * The fastest way depends.  Through the WAL each page costs more, while copying
 * files costs two checkpoints: so a small database goes through the WAL and a
 * large one by files, and from 18 on a file system that can share blocks is
 * asked to.  The border was measured; see doc/cli.md.  Checkpoints are cheap
 * where nothing waits for the disk, as on many a test server.
 *
 * The clone gets the owner, the connection limit, the settings of the database
 * and of roles in it, and the grants.  One that lacks any of them would work
 * differently from the original, so a failure removes it again.
 *
 *-------------------------------------------------------------------------
 */
#include <stdlib.h>
#include <string.h>

#include "clone.h"

/* from this size on, copying files is faster */
#define FILE_COPY_BYTES (100 * 1024 * 1024)
#define FILE_COPY_BYTES_NO_FSYNC (16 * 1024 * 1024)

/* A statement about the clone; false if it failed, with the words kept. */
static bool
execute(Cloning *cloning, Clone *clone, const char *sql)
{
	PGresult   *answer = run_query(cloning->admin, cloning->doing, sql, false);
	bool		good = PQresultStatus(answer) == PGRES_COMMAND_OK || PQresultStatus(answer) == PGRES_TUPLES_OK;

	if (good)
		detail("%s", sql);
	else if (answer != NULL)
		fail_server(clone->target, answer);
	else
		fail_connection(clone->target, cloning->admin->failure.message != NULL ? cloning->admin->failure.message : "interrupted");
	PQclear(answer);
	return good;
}

/* Can the server have the file system share blocks?  Then it is told to. */
static bool
set_method(Cloning *cloning)
{
	PGresult   *answer;

	if (cloning->method_known)
		return cloning->can_clone;
	cloning->method_known = true;
	answer = clone_query(cloning,
						 "SELECT pg_catalog.set_config('file_copy_method', 'clone', false) FROM pg_catalog.pg_settings "
						 "WHERE name = 'file_copy_method' AND 'clone' = ANY (enumvals)");
	cloning->can_clone = answer != NULL && PQntuples(answer) == 1;
	PQclear(answer);
	return cloning->can_clone;
}

static bool
create(Cloning *cloning, Clone *clone, const char *strategy)
{
	PGconn	   *conn = cloning->admin->conn;
	const PGresult *facts = cloning->source->answers[1];
	const char *limit = cell(facts, 0, "datconnlimit");
	Buffer		sql;
	bool		good;

	buffer_init(&sql);
	buffer_format(&sql, "CREATE DATABASE %s TEMPLATE %s STRATEGY %s", quote_name(conn, clone->target->dbname),
					  quote_name(conn, cloning->original), strategy);
	if (!cell_is_true(facts, 0, "mine"))
		buffer_format(&sql, " OWNER %s", quote_name(conn, cell(facts, 0, "owner")));
	if (strcmp(limit, "-1") != 0)
		buffer_format(&sql, " CONNECTION LIMIT %s", limit);
	good = execute(cloning, clone, sql.data);
	buffer_free(&sql);
	return good;
}

/*
 * The database itself.  Whether a file system shares blocks shows only when it
 * is asked to: an error of the operating system then means "copy".
 */
static bool
create_fastest(Cloning *cloning, Clone *clone)
{
	const char *asked = cloning->options->strategy;
	const PGresult *facts = cloning->source->answers[1];
	double		border = cell_is_true(facts, 0, "fsync") ? FILE_COPY_BYTES : FILE_COPY_BYTES_NO_FSYNC;
	bool		large = strtod(cell(facts, 0, "size"), NULL) >= border;
	bool		by_files = strcmp(asked, "file_copy") == 0 || (strcmp(asked, "auto") == 0 && large);
	const char *sqlstate;

	if (by_files && set_method(cloning))
	{
		clone->strategy = "file_copy, clone";
		if (create(cloning, clone, "file_copy"))
			return true;
		sqlstate = clone->target->failure.sqlstate;
		if (interrupted() || sqlstate == NULL || (strncmp(sqlstate, "58", 2) != 0 && strcmp(sqlstate, "0A000") != 0 && strncmp(sqlstate, "XX", 2) != 0))
			return false;
		detail("this file system cannot clone: %s", failure_line(clone->target));
		clear_failure(&clone->target->failure);
		clone->target->state = TARGET_NEW;
		cloning->can_clone = false;
		PQclear(clone_query(cloning, "SELECT pg_catalog.set_config('file_copy_method', 'copy', false)"));
	}
	clone->strategy = by_files ? "file_copy" : "wal_log";
	return create(cloning, clone, clone->strategy);
}

/*
 * The statements that give the clone the original's settings and grants.  A
 * setting that is a list is stored with its elements quoted as identifiers, and
 * has to be given as a list again, or it would become one element.
 */
static PGresult *
read_statements(Cloning *cloning, const Clone *clone)
{
	char	   *name = quote_text(cloning->admin->conn, clone->target->dbname);
	const char *oid = cell(cloning->source->answers[1], 0, "oid");
	char	   *sql = xformat(
							  "WITH setting AS ("
							  " SELECT x.setrole, r.rolname, pg_catalog.split_part(c.entry, '=', 1) AS name, "
							  "  pg_catalog.substr(c.entry, pg_catalog.strpos(c.entry, '=') + 1) AS value "
							  " FROM pg_catalog.pg_db_role_setting x CROSS JOIN pg_catalog.unnest(x.setconfig) AS c(entry) "
							  " LEFT JOIN pg_catalog.pg_roles r ON r.oid = x.setrole WHERE x.setdatabase = %s) "
							  "SELECT 1 AS place, pg_catalog.format('ALTER %%s SET %%I TO %%s', "
							  "  CASE WHEN s.setrole = 0 THEN pg_catalog.format('DATABASE %%I', %s) "
							  "   ELSE pg_catalog.format('ROLE %%I IN DATABASE %%I', s.rolname, %s) END, s.name, "
							  "  coalesce((SELECT pg_catalog.string_agg(pg_catalog.quote_literal("
							  "     CASE WHEN m.part[1] LIKE '\"%%' THEN pg_catalog.replace(pg_catalog.substr(m.part[1], 2, pg_catalog.length(m.part[1]) - 2), '\"\"', '\"') ELSE m.part[1] END), "
							  "     ', ' ORDER BY m.n) "
							  "    FROM pg_catalog.regexp_matches(s.value, '\"(?:[^\"]|\"\")*\"|[^\",[:space:]]+', 'g') WITH ORDINALITY AS m(part, n) "
							  "    WHERE pg_catalog.lower(s.name) IN ('local_preload_libraries', 'search_path', 'session_preload_libraries', "
							  "     'shared_preload_libraries', 'temp_tablespaces', 'unix_socket_directories')), "
							  "   pg_catalog.quote_literal(s.value))) AS statement "
							  "FROM setting s "
							  "UNION ALL SELECT 2, pg_catalog.format('REVOKE ALL ON DATABASE %%I FROM PUBLIC, %%I', %s, r.rolname) "
							  " FROM pg_catalog.pg_database d JOIN pg_catalog.pg_roles r ON r.oid = d.datdba WHERE d.oid = %s AND d.datacl IS NOT NULL "
							  "UNION ALL SELECT 3, pg_catalog.format('GRANT %%s ON DATABASE %%I TO %%s%%s', a.privilege_type, %s, "
							  "  CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(r.rolname) END, "
							  "  CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END) "
							  " FROM pg_catalog.pg_database d CROSS JOIN pg_catalog.aclexplode(d.datacl) a "
							  " LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.grantee WHERE d.oid = %s "
							  "ORDER BY 1, 2",
							  oid, name, name, name, oid, name, oid);
	PGresult   *answer = clone_query(cloning, sql);

	free(sql);
	free(name);
	return answer;
}

static bool
set_mark(Cloning *cloning, Clone *clone, const char *mark)
{
	PGconn	   *conn = cloning->admin->conn;
	char	   *sql = xformat("COMMENT ON DATABASE %s IS %s", quote_name(conn, clone->target->dbname), quote_text(conn, mark));
	bool		good = execute(cloning, clone, sql);

	free(sql);
	return good;
}

static bool
hand_on(Cloning *cloning, Clone *clone)
{
	PGresult   *statements;
	bool		good = true;
	int			row;

	if (!set_mark(cloning, clone, xformat(CLONE_MARK "\"%s\", unfinished", cloning->original)))
		return false;
	statements = read_statements(cloning, clone);
	if (statements == NULL)
	{
		fail_connection(clone->target, cloning->admin->failure.message != NULL ? cloning->admin->failure.message : "interrupted");
		return false;
	}
	for (row = 0; good && row < PQntuples(statements); row++)
		good = execute(cloning, clone, cell(statements, row, "statement"));
	PQclear(statements);
	return good && set_mark(cloning, clone, cloning->mark);
}

/* Sessions in the template keep it from being copied. */
static void
end_sessions(Cloning *cloning)
{
	char	   *name = quote_text(cloning->admin->conn, cloning->original);
	char	   *sql = xformat("SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity "
							  "WHERE datname = %s AND pid <> pg_catalog.pg_backend_pid()", name);

	PQclear(clone_query(cloning, sql));
	free(sql);
	free(name);
}

/* Sets the clone's result; where it failed, the failure is the target's. */
void
clone_create(Cloning *cloning, Clone *clone)
{
	int64_t		start = now_us();
	char	   *sql;

	if (cloning->options->terminate)
		end_sessions(cloning);
	if (!create_fastest(cloning, clone))
		clone->result = CLONE_FAILED;
	else if (hand_on(cloning, clone))
	{
		clone->result = CLONE_CREATED;
		clone->target->state = TARGET_NEW;
	}
	else
	{
		sql = xformat("DROP DATABASE %s", quote_name(cloning->admin->conn, clone->target->dbname));
		PQclear(run_query(cloning->admin, cloning->doing, sql, true));
		free(sql);
		clone->result = CLONE_FAILED;
	}
	if (clone->result == CLONE_FAILED && interrupted())
		clone->result = CLONE_NOT_STARTED;
	clone->ms = (double) (now_us() - start) / 1000;
}
