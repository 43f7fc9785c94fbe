/*-------------------------------------------------------------------------
 *
 * connect.c
 *		Makes one connection without waiting for it.
 *
 * Every parameter comes to libpq the way psql hands it over: -h, -p and -U
 * first, then the value of -d, which may be a name, a URI or keywords with
 * values and wins over them, so PG* variables, service files and password files
 * work as everywhere else.
 *
 * The event loop drives PQconnectPoll.  libpq leaves connect_timeout to whoever
 * does that, so it is kept here; it covers all hosts of a connection string
 * together, as libpq's interface has no way to give up on just one of them.
 *
 *-------------------------------------------------------------------------
 */
#include <stdlib.h>
#include <string.h>

#include "cli.h"

/* A password that was typed in, or refused (NULL), and the server that it is for. */
typedef struct Known
{
	char	   *server;
	char	   *password;
} Known;

static List known_passwords;

/*
 * What tells servers and roles apart in a connection string.  A password is
 * asked for once for each, and never sent to another.
 */
static char *
server_of(const Target *target)
{
	Buffer		key;
	PQconninfoOption *options;
	PQconninfoOption *option;
	char	   *result;

	options = target->conninfo == NULL ? NULL : PQconninfoParse(target->conninfo, NULL);
	buffer_init(&key);
	for (option = options; option != NULL && option->keyword != NULL; option++)
	{
		if (option->val != NULL && strcmp(option->keyword, "dbname") != 0 &&
			strcmp(option->keyword, "password") != 0)
			buffer_format(&key, "%s=%s\n", option->keyword, option->val);
	}
	PQconninfoFree(options);
	result = xstrdup(key.data);
	buffer_free(&key);
	return result;
}

/* Sets the target's password to a known one, or asks; false if none is given. */
static bool
find_password(Target *target)
{
	char	   *server = server_of(target);
	char	   *prompt;
	Known	   *known;
	int			i;

	for (i = 0; i < known_passwords.count; i++)
	{
		known = known_passwords.items[i];
		if (strcmp(known->server, server) == 0)
		{
			free(server);
			target->password = xstrdup(known->password);
			return target->password != NULL;
		}
	}
	prompt = target->user == NULL ?
		xformat("Password for database \"%s\": ", target->name) :
		xformat("Password for user %s, database \"%s\": ", target->user, target->name);
	target->password = ask_password(prompt);
	free(prompt);
	known = xmalloc(sizeof(Known));
	known->server = server;
	known->password = xstrdup(target->password);
	list_add(&known_passwords, known);
	return target->password != NULL;
}

/* connect_timeout of a connection that has been started, in seconds, or 0 */
static int
connect_timeout(PGconn *conn)
{
	PQconninfoOption *options = PQconninfo(conn);
	PQconninfoOption *option;
	int			seconds = 0;

	for (option = options; option != NULL && option->keyword != NULL; option++)
	{
		if (strcmp(option->keyword, "connect_timeout") == 0 && option->val != NULL)
			seconds = atoi(option->val);
	}
	PQconninfoFree(options);
	/* as libpq: less than two seconds is two */
	return seconds == 1 ? 2 : seconds < 0 ? 0 : seconds;
}

static void
remember(char **where, const char *value)
{
	if (value == NULL || value[0] == '\0')
		return;
	free(*where);
	*where = xstrdup(value);
}

static PGconn *
start(const Target *target)
{
	const Options *options = target->options;
	const char *keywords[12];
	const char *values[12];
	const char *encoding = options->json || getenv("PGCLIENTENCODING") == NULL ? "UTF8" : NULL;
	int			n = 0;

#define PARAMETER(keyword, value) (keywords[n] = (keyword), values[n++] = (value))
	PARAMETER("fallback_application_name", PROGRAM_NAME);
	PARAMETER("host", options->host);
	PARAMETER("port", options->port);
	PARAMETER("user", options->user);
	if (!options->json)
		PARAMETER("client_encoding", encoding);
	if (target->conninfo != NULL)
		PARAMETER("dbname", target->conninfo);
	if (options->json)
		PARAMETER("client_encoding", encoding);
	if (target->dbname != NULL)
		PARAMETER("dbname", target->dbname);
	if (target->password != NULL)
		PARAMETER("password", target->password);
	PARAMETER(NULL, NULL);
#undef PARAMETER
	/* only the first dbname is taken apart, and a name alone is a name */
	return PQconnectStartParams(keywords, values, target->conninfo != NULL);
}

void
start_connection(Target *target)
{
	int			timeout;

	if (target->started == 0)
		target->started = now_us();
	if (target->options->ask_password && target->password == NULL && !find_password(target))
	{
		if (interrupted())
			target->state = TARGET_CANCELLED;
		else
			fail_connection(target, "no password was given");
		return;
	}
	target->conn = start(target);
	if (target->conn == NULL)
	{
		fail_connection(target, "out of memory");
		return;
	}
	remember(&target->database, PQdb(target->conn));
	remember(&target->host, PQhost(target->conn));
	remember(&target->port, PQport(target->conn));
	remember(&target->user, PQuser(target->conn));
	if (target->name_guessed)
		remember(&target->name, target->database);
	if (PQstatus(target->conn) == CONNECTION_BAD)
	{
		fail_connection(target, PQerrorMessage(target->conn));
		close_connection(target);
		return;
	}
	PQsetNoticeReceiver(target->conn, notice_receiver, target);
	timeout = connect_timeout(target->conn);
	target->connect_by = timeout > 0 ? now_us() + (int64_t) timeout * 1000000 : 0;
	target->polling = PGRES_POLLING_WRITING;
	target->state = TARGET_CONNECTING;
}

/* The socket is ready.  True if the connection now stands. */
bool
connection_step(Target *target)
{
	target->polling = PQconnectPoll(target->conn);
	if (target->polling == PGRES_POLLING_OK)
		return true;
	if (target->polling != PGRES_POLLING_FAILED)
		return false;
	if (PQconnectionNeedsPassword(target->conn) && !target->options->no_password &&
		target->password == NULL && find_password(target))
	{
		close_connection(target);
		start_connection(target);
		return false;
	}
	if (interrupted())
		target->state = TARGET_CANCELLED;
	else
		fail_connection(target, PQerrorMessage(target->conn));
	close_connection(target);
	return false;
}

void
close_connection(Target *target)
{
	if (target->conn != NULL)
		PQfinish(target->conn);
	target->conn = NULL;
}
