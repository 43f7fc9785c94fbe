/*-------------------------------------------------------------------------
 *
 * failure.c
 *		What went wrong at one database, remembered and shown.
 *
 * A failure is shown at once, whole, with its DETAIL and HINT and the name of
 * the database, and kept in parts for --json.  Failures that the program finds
 * itself look like the server's, so that a reader meets one shape only.
 *
 *-------------------------------------------------------------------------
 */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

void
clear_failure(Failure *failure)
{
	free(failure->whole);
	free(failure->severity);
	free(failure->sqlstate);
	free(failure->message);
	free(failure->detail);
	free(failure->hint);
	memset(failure, 0, sizeof(*failure));
}

/* Ends the target.  The event loop shows the failure, or tries again. */
static void
finish_failure(Target *target)
{
	size_t		length = strlen(target->failure.whole);

	while (length > 0 && target->failure.whole[length - 1] == '\n')
		target->failure.whole[--length] = '\0';
	target->state = TARGET_FAILED;
}

/* A failure that the program itself has found. */
void
fail_own(Target *target, const char *sqlstate, const char *hint, const char *format,...)
{
	va_list		args;
	char	   *text;

	va_start(args, format);
	text = xvformat(format, args);
	va_end(args);
	clear_failure(&target->failure);
	target->failure.severity = xstrdup("ERROR");
	target->failure.sqlstate = xstrdup(sqlstate);
	target->failure.message = text;
	target->failure.hint = xstrdup(hint);
	target->failure.whole = hint == NULL ? xformat("ERROR:  %s", text) :
		xformat("ERROR:  %s\nHINT:  %s", text, hint);
	finish_failure(target);
}

/* libpq's words about a connection that was not made, or was lost. */
void
fail_connection(Target *target, const char *text)
{
	clear_failure(&target->failure);
	target->failure.whole = xstrdup(text[0] == '\0' ? "the connection was lost" : text);
	finish_failure(target);
	target->failure.message = xstrdup(target->failure.whole);
}

/* The server's words about a query. */
void
fail_server(Target *target, const PGresult *answer)
{
	Failure    *failure = &target->failure;

	/* a connection that broke has no fields */
	if (PQresultErrorField(answer, PG_DIAG_MESSAGE_PRIMARY) == NULL)
	{
		fail_connection(target, PQresultErrorMessage(answer));
		return;
	}
	clear_failure(failure);
	failure->severity = xstrdup(PQresultErrorField(answer, PG_DIAG_SEVERITY));
	failure->sqlstate = xstrdup(PQresultErrorField(answer, PG_DIAG_SQLSTATE));
	failure->message = xstrdup(PQresultErrorField(answer, PG_DIAG_MESSAGE_PRIMARY));
	failure->detail = xstrdup(PQresultErrorField(answer, PG_DIAG_MESSAGE_DETAIL));
	failure->hint = xstrdup(PQresultErrorField(answer, PG_DIAG_MESSAGE_HINT));
	failure->whole = target->options->verbose ?
		PQresultVerboseErrorMessage(answer, PQERRORS_VERBOSE, PQSHOW_CONTEXT_ERRORS) :
		xstrdup(PQresultErrorMessage(answer));
	finish_failure(target);
}

/* The first line, for a table. */
const char *
failure_line(const Target *target)
{
	static char line[512];
	const char *text = target->failure.message;

	if (text == NULL)
		return "";
	snprintf(line, sizeof(line), "%.*s", (int) strcspn(text, "\n"), text);
	return line;
}
