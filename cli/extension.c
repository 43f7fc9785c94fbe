/*-------------------------------------------------------------------------
 *
 * extension.c
 *		The extension in a database: is it there, where, in which version.
 *
 * Every command's first step.  The extension's schema is the owner's choice, so
 * its functions are called by their full names, and the caller's search_path is
 * left alone: functions in indexes that a restore rebuilds may depend on it.
 * Questions to the catalogs run under an empty search_path instead, for that
 * one statement, so that no object in the database can come between.
 *
 *-------------------------------------------------------------------------
 */
#include <stdlib.h>
#include <string.h>

#include "cli.h"

/*
 * libpq's quoting knows the connection's encoding.  What is no text in it is
 * nobody's name: the call cannot go on.
 */
static char *
copy_quoted(PGconn *conn, char *quoted)
{
	char	   *copy;

	if (quoted == NULL)
	{
		error_general(NULL, "%s", PQerrorMessage(conn));
		leave(EXIT_SOME_FAILED);
	}
	copy = xstrdup(quoted);
	PQfreemem(quoted);
	return copy;
}

char *
quote_name(PGconn *conn, const char *name)
{
	return copy_quoted(conn, PQescapeIdentifier(conn, name, strlen(name)));
}

char *
quote_text(PGconn *conn, const char *text)
{
	return copy_quoted(conn, PQescapeLiteral(conn, text, strlen(text)));
}

/*
 * A query in the session's own search_path.  %s in the format is the quoted
 * schema of the extension.
 */
bool
send_plain(Target *target, const char *format, int nparams, const char *const *params)
{
	Buffer		sql;
	int			sent;

	buffer_init(&sql);
	buffer_format(&sql, format, target->schema);
	sent = PQsendQueryParams(target->conn, sql.data, nparams, NULL, params, NULL, NULL, 0);
	buffer_free(&sql);
	return sent == 1;
}

/* One message is one transaction, so the setting goes with the query. */
bool
send_secure(Target *target, const char *sql)
{
	char	   *text = xformat("SELECT pg_catalog.set_config('search_path', '', true); %s", sql);
	int			sent = PQsendQuery(target->conn, text);

	free(text);
	return sent == 1;
}

/*
 * This is asked before every restore, in a session that is new, so it costs what
 * the server has to load for it: one catalog, and no change of a setting.
 */
static bool
send_find(Target *target)
{
	return PQsendQuery(target->conn,
					   "SELECT extversion, extnamespace::pg_catalog.regnamespace AS schema "
					   "FROM pg_catalog.pg_extension WHERE extname OPERATOR(pg_catalog.=) 'testenv'") == 1;
}

/* -1, 0, 1, by the numbers between the dots */
static int
compare_versions(const char *a, const char *b)
{
	while (*a != '\0' || *b != '\0')
	{
		char	   *end_a;
		char	   *end_b;
		long		number_a = strtol(a, &end_a, 10);
		long		number_b = strtol(b, &end_b, 10);

		if (number_a != number_b)
			return number_a < number_b ? -1 : 1;
		if (end_a == a && end_b == b)
			return strcmp(a, b) < 0 ? -1 : strcmp(a, b) > 0;
		a = end_a + (*end_a == '.');
		b = end_b + (*end_b == '.');
	}
	return 0;
}

static bool
check_find(Target *target, PGresult *answer)
{
	const char *version = cell(answer, 0, "extversion");
	int			order;

	if (version == NULL)
	{
		if (target->optional)
		{
			detail("database \"%s\" does not have the extension, left out", target->name);
			target->state = TARGET_SKIPPED;
		}
		else
			fail_own(target, "42704", "As a superuser, run CREATE EXTENSION testenv in this database.",
					 "extension \"testenv\" is not installed in database \"%s\"", PQdb(target->conn));
		return false;
	}
	free(target->extversion);
	free(target->schema);
	target->extversion = xstrdup(version);
	target->schema = xstrdup(cell(answer, 0, "schema"));
	detail("database \"%s\": server %s, testenv %s in schema %s", target->name,
		   PQparameterStatus(target->conn, "server_version"), target->extversion, target->schema);

	order = compare_versions(target->extversion, TESTENV_VERSION);
	if (order != 0 && target->warnings.count == 0)
		warn_target(target, order < 0 ?
					"As a superuser, run ALTER EXTENSION testenv UPDATE in this database." :
					"Use the program that was installed with this version of the extension.",
					"extension \"testenv\" has version %s, this program has version " TESTENV_VERSION,
					target->extversion);
	return true;
}

const Step	find_extension = {send_find, check_find, false};

/* The snapshots, the columns that later versions add included. */
static bool
send_snapshots(Target *target)
{
	return send_plain(target,
					  "SELECT *, pg_catalog.to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') AS created_utc, "
					  "pg_catalog.to_char(last_restored_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') AS restored_utc, "
					  "extract(epoch FROM pg_catalog.now()) OPERATOR(pg_catalog.-) extract(epoch FROM created_at) AS age, "
					  "extract(epoch FROM pg_catalog.now()) OPERATOR(pg_catalog.-) extract(epoch FROM last_restored_at) AS restored_ago "
					  "FROM %s.testenv_snapshots() ORDER BY is_current DESC, name", 0, NULL);
}

const Step	read_snapshots = {send_snapshots, NULL, false};
