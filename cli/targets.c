/*-------------------------------------------------------------------------
 *
 * targets.c
 *		Which databases a command is about.
 *
 * In this order: --all, -d, TESTENV_DATABASES, and if none of them is given the
 * one database that libpq would connect to.  With --all, each -d names a server
 * to look at; a server's databases that may have the extension are those whose
 * name contains "test", the same rule as that of the extension's own guard.
 * Whether they have it is seen when they are connected to, so --all costs one
 * connection more, not one round more.
 *
 *-------------------------------------------------------------------------
 */
#include <stdlib.h>
#include <string.h>

#include "cli.h"

#define BLANKS " \t\r"

static bool
is_uri(const char *text)
{
	return strncmp(text, "postgres://", 11) == 0 || strncmp(text, "postgresql://", 13) == 0;
}

/* As libpq tells a connection string from a name. */
static bool
is_connection_string(const char *text)
{
	return is_uri(text) || strchr(text, '=') != NULL;
}

/* The database that a connection string names; NULL if it names none. */
static char *
database_of(const char *conninfo)
{
	PQconninfoOption *options;
	PQconninfoOption *option;
	char	   *name = NULL;

	if (conninfo[0] == '\0')
		return NULL;
	if (!is_connection_string(conninfo))
		return xstrdup(conninfo);
	options = PQconninfoParse(conninfo, NULL);
	for (option = options; option != NULL && option->keyword != NULL; option++)
	{
		if (strcmp(option->keyword, "dbname") == 0 && option->val != NULL)
			name = xstrdup(option->val);
	}
	PQconninfoFree(options);
	return name;
}

static bool
is_malformed(const char *conninfo)
{
	PQconninfoOption *options;

	if (!is_connection_string(conninfo))
		return false;
	options = PQconninfoParse(conninfo, NULL);
	PQconninfoFree(options);
	return options == NULL;
}

Target *
make_target(const Options *options, const char *conninfo, const char *dbname)
{
	Target	   *target = xmalloc(sizeof(Target));

	target->options = options;
	target->conninfo = conninfo;
	target->dbname = dbname;
	if (dbname != NULL)
		target->database = xstrdup(dbname);
	else if (conninfo != NULL)
		target->database = database_of(conninfo);
	if (conninfo != NULL && dbname == NULL && is_malformed(conninfo))
	{
		/* not shown as it is: there may be a password in it */
		target->name = xstrdup("(malformed connection string)");
	}
	else if (target->database == NULL)
	{
		/* libpq's own default, as far as it can be told before it is asked */
		const char *name = getenv("PGDATABASE");

		if (name == NULL)
			name = options->user != NULL ? options->user : getenv("PGUSER");
		target->name = xstrdup(name != NULL ? name : "default");
		target->name_guessed = true;
	}
	else
		target->name = xstrdup(target->database);
	return target;
}

/* Ready to begin again from the connection on; the last failure is kept. */
void
restart_target(Target *target)
{
	int			i;

	close_connection(target);
	PQclear(target->pending);
	target->pending = NULL;
	for (i = 0; i < MAX_STEPS; i++)
	{
		PQclear(target->answers[i]);
		target->answers[i] = NULL;
	}
	target->step = 0;
	target->canceled = false;
	target->state = TARGET_NEW;
}

/* What stands between two names of TESTENV_DATABASES within one part of it. */
static bool
is_keyword_string(const char *part)
{
	const char *word = part + strspn(part, BLANKS);

	while (*word != '\0')
	{
		size_t		length = strcspn(word, BLANKS);

		if (!is_uri(word) && memchr(word, '=', length) != NULL)
			return true;
		word += length;
		word += strspn(word, BLANKS);
	}
	return false;
}

/*
 * TESTENV_DATABASES: parts are separated by semicolons or line ends.  A part
 * with keywords and values is one connection string; in any other blanks
 * separate names and URIs, which contain none.
 */
static void
split_environment(const char *value, List *dbnames)
{
	char	   *copy = xstrdup(value);
	char	   *part_state = NULL;
	char	   *word_state = NULL;
	char	   *part;
	char	   *word;

	for (part = strtok_r(copy, ";\n", &part_state); part != NULL; part = strtok_r(NULL, ";\n", &part_state))
	{
		if (is_keyword_string(part))
			list_add(dbnames, part);
		else
			for (word = strtok_r(part, BLANKS, &word_state); word != NULL; word = strtok_r(NULL, BLANKS, &word_state))
				list_add(dbnames, word);
	}
}

/* Where a database is, as far as it can be told before libpq is asked. */
static char *
server_of(const Target *target)
{
	PQconninfoOption *options = target->conninfo == NULL ? NULL : PQconninfoParse(target->conninfo, NULL);
	PQconninfoOption *option;
	const char *host = target->options->host != NULL ? target->options->host : getenv("PGHOST");
	const char *port = target->options->port != NULL ? target->options->port : getenv("PGPORT");
	const char *service = NULL;
	char	   *name;

	for (option = options; option != NULL && option->keyword != NULL; option++)
	{
		if (option->val == NULL)
			continue;
		if (strcmp(option->keyword, "host") == 0 || strcmp(option->keyword, "hostaddr") == 0)
			host = option->val;
		else if (strcmp(option->keyword, "port") == 0)
			port = option->val;
		else if (strcmp(option->keyword, "service") == 0)
			service = option->val;
	}
	name = service != NULL ? xstrdup(service) :
		xformat("%s:%s", host != NULL ? host : "local", port != NULL ? port : "5432");
	PQconninfoFree(options);
	return name;
}

/*
 * Two databases of one name, on different servers, are told apart by server.
 */
static void
name_targets(List *targets)
{
	int			i;
	int			j;

	for (i = 0; i < targets->count; i++)
	{
		Target	   *target = targets->items[i];
		bool		twice = false;

		for (j = 0; j < targets->count; j++)
		{
			const Target *other = targets->items[j];

			twice = twice || (i != j && target->database != NULL && other->database != NULL &&
							  strcmp(target->database, other->database) == 0);
		}
		if (twice)
		{
			char	   *server = server_of(target);

			free(target->name);
			target->name = xformat("%s@%s", target->database, server);
			free(server);
		}
	}
}

static bool
send_databases(Target *target)
{
	/* a database whose creation or removal was cut short has the limit -2 */
	return send_secure(target,
					   "SELECT datname FROM pg_catalog.pg_database "
					   "WHERE datallowconn AND NOT datistemplate AND datconnlimit <> -2 "
					   "AND datname ~* 'test' ORDER BY datname");
}

static bool
check_databases(Target *target, PGresult *answer)
{
	if (PQntuples(answer) == 0)
	{
		fail_own(target, "3D000", "Create a test database and run CREATE EXTENSION testenv in it, or name one with -d.",
				 "this server has no database whose name contains \"test\"");
		return false;
	}
	return true;
}

static const Step discovery = {send_databases, check_databases, false};
static const Step *const discovery_steps[] = {&discovery};

/* One target for each server: the database that lists the others. */
static void
add_servers(const Options *options, List *servers)
{
	const char *database = options->maintenance_db;
	int			i;

	if (options->dbnames.count == 0)
		list_add(servers, make_target(options, NULL, database != NULL ? database : "postgres"));
	for (i = 0; i < options->dbnames.count; i++)
	{
		const char *conninfo = options->dbnames.items[i];
		const char *named = database_of(conninfo);

		list_add(servers, make_target(options, conninfo, database != NULL ? database : named != NULL ? NULL : "postgres"));
	}
}

/* --all.  A server that cannot be asked stays among the targets, failed. */
static bool
discover(const Options *options, List *targets, int64_t retry_until)
{
	Work		work;
	List		servers = {0, NULL};
	int			i;
	int			row;

	memset(&work, 0, sizeof(work));
	work.doing = "looking for databases";
	work.steps = discovery_steps;
	work.nsteps = 1;
	work.retry_until = retry_until;
	add_servers(options, &servers);
	name_targets(&servers);
	run_work(&servers, &work);
	for (i = 0; i < servers.count; i++)
	{
		Target	   *server = servers.items[i];

		if (server->state != TARGET_DONE)
		{
			list_add(targets, server);
			continue;
		}
		for (row = 0; row < PQntuples(server->answers[0]); row++)
		{
			Target	   *target = make_target(options, server->conninfo, PQgetvalue(server->answers[0], row, 0));

			target->optional = true;
			target->password = xstrdup(server->password);
			list_add(targets, target);
		}
	}
	return !interrupted();
}

/* Fills the list.  False: nothing is to be begun any more. */
bool
find_targets(const Options *options, List *targets, int64_t retry_until)
{
	const char *environment = getenv("TESTENV_DATABASES");
	List		dbnames = {0, NULL};
	int			i;

	if (options->all)
	{
		bool		go_on = discover(options, targets, retry_until);

		name_targets(targets);
		return go_on;
	}
	if (options->dbnames.count > 0)
		dbnames = options->dbnames;
	else if (environment != NULL)
		split_environment(environment, &dbnames);
	for (i = 0; i < dbnames.count; i++)
		list_add(targets, make_target(options, dbnames.items[i], NULL));
	if (targets->count == 0)
		list_add(targets, make_target(options, NULL, NULL));
	name_targets(targets);
	return true;
}

/* --all that finds nothing is no success. */
void
refuse_nothing(const Options *options, const List *targets)
{
	int			i;

	if (!options->all || interrupted())
		return;
	for (i = 0; i < targets->count; i++)
	{
		const Target *target = targets->items[i];

		if (target->state != TARGET_SKIPPED)
			return;
	}
	error_general("As a superuser, run CREATE EXTENSION testenv in a test database, or name one with -d.",
				  "no database whose name contains \"test\" has the extension");
}
