/*-------------------------------------------------------------------------
 *
 * message.c
 *		What people read while the program works: errors, warnings, notices and
 *		the progress line, all on stderr.
 *
 * stdout carries data only, so that it can be piped.  A message is written with
 * one call, because several databases report at the same time, and the
 * progress line is wiped out before anything else appears.
 *
 *-------------------------------------------------------------------------
 */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

static bool quiet;
static bool verbose;
static bool progress_shown;
static List errors;

/*
 * PostgreSQL's programs know PG_COLOR, everybody else NO_COLOR.  A terminal that
 * calls itself dumb shows escape sequences as they are.
 */
bool
colours_on(FILE *stream)
{
	const char *no_color = getenv("NO_COLOR");
	const char *pg_color = getenv("PG_COLOR");
	const char *term = getenv("TERM");

	if (!isatty(fileno(stream)))
		return false;
	if (no_color != NULL && no_color[0] != '\0')
		return false;
	if (pg_color != NULL && strcmp(pg_color, "never") == 0)
		return false;
	return term != NULL && strcmp(term, "dumb") != 0;
}

void
message_init(const Options *options)
{
	quiet = options->quiet;
	verbose = options->verbose;
}

/* Writes one message at once, its first word coloured on a terminal. */
static void
write_message(const char *word, const char *colour, const char *text)
{
	bool		colours = word[0] != '\0' && colours_on(stderr);
	size_t		length = strlen(text);
	char	   *line;

	while (length > 0 && text[length - 1] == '\n')
		length--;
	progress_clear();
	line = xformat("%s: %s%s%s%.*s\n", PROGRAM_NAME, colours ? colour : "", word,
				   colours ? "\033[0m" : "", (int) length, text);
	fputs(line, stderr);
	free(line);
}

/* An error of the whole call, and what to do about it. */
void
error_general(const char *hint, const char *format,...)
{
	va_list		args;
	Failure    *failure = xmalloc(sizeof(Failure));

	va_start(args, format);
	failure->message = xvformat(format, args);
	va_end(args);
	failure->hint = xstrdup(hint);
	write_message("error: ", "\033[1;31m", failure->message);
	if (hint != NULL)
		write_message("hint: ", "\033[1;36m", hint);
	list_add(&errors, failure);
}

/* Those errors, for the report. */
const List *
general_errors(void)
{
	return &errors;
}

static void write_plain(const char *format, va_list args) __attribute__((format(printf, 1, 0)));

static void
write_plain(const char *format, va_list args)
{
	char	   *text = xvformat(format, args);

	write_message("", "", text);
	free(text);
}

/* Something that a user wants to know unless quiet. */
void
say(const char *format,...)
{
	va_list		args;

	va_start(args, format);
	if (!quiet)
		write_plain(format, args);
	va_end(args);
}

/* Something that only --verbose shows. */
void
detail(const char *format,...)
{
	va_list		args;

	va_start(args, format);
	if (verbose)
		write_plain(format, args);
	va_end(args);
}

/* A text of or about one database, as it is, the database named first. */
void
show_target(const Target *target, const char *text)
{
	char	   *line = xformat("database \"%s\": %s", target->name, text);

	write_message("", "", line);
	free(line);
}

/* A warning of the program's own about one database. */
void
warn_target(Target *target, const char *hint, const char *format,...)
{
	va_list		args;
	char	   *text;
	char	   *whole;

	va_start(args, format);
	text = xvformat(format, args);
	va_end(args);
	whole = hint == NULL ? xformat("WARNING:  %s", text) :
		xformat("WARNING:  %s\nHINT:  %s", text, hint);
	list_add(&target->warnings, whole);
	show_target(target, whole);
	free(text);
}

/* libpq hands over what the server says beside its answers. */
void
notice_receiver(void *argument, const PGresult *notice)
{
	Target	   *target = argument;
	const char *severity = PQresultErrorField(notice, PG_DIAG_SEVERITY_NONLOCALIZED);
	char	   *text = xstrdup(PQresultErrorMessage(notice));
	bool		warning = severity != NULL && strcmp(severity, "WARNING") == 0;
	size_t		length = strlen(text);

	while (length > 0 && text[length - 1] == '\n')
		text[--length] = '\0';
	list_add(warning ? &target->warnings : &target->notices, text);
	if (warning || !quiet)
		show_target(target, text);
}

bool
progress_wanted(void)
{
	const char *term = getenv("TERM");

	return !quiet && isatty(STDERR_FILENO) && term != NULL && strcmp(term, "dumb") != 0;
}

/* One line that is written over again and again; cut, as it must not wrap. */
void
progress(const char *text)
{
	if (!progress_wanted())
		return;
	fprintf(stderr, "\r%.79s\033[K", text);
	fflush(stderr);
	progress_shown = true;
}

void
progress_clear(void)
{
	if (progress_shown)
	{
		fputs("\r\033[K", stderr);
		progress_shown = false;
	}
}
