/*-------------------------------------------------------------------------
 *
 * report.c
 *		What every command's report has in common: the words for an outcome, the
 *		frame of the JSON document, the exit code.
 *
 * The document is built as a whole and written with one call while signals
 * wait, so that it is whole or not there.  A document that says "interrupted"
 * lies ready for a second Ctrl-C.
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

static bool json;
static const char *command_name;

/* The exit code that the states of the targets make. */
int
outcome(const List *targets)
{
	int			i;
	int			code = general_errors()->count > 0 ? EXIT_SOME_FAILED : EXIT_ALL_DONE;

	for (i = 0; i < targets->count; i++)
	{
		const Target *target = targets->items[i];

		if (target->state != TARGET_DONE && target->state != TARGET_SKIPPED)
			code = EXIT_SOME_FAILED;
	}
	return interrupted() ? EXIT_INTERRUPTED : code;
}

const char *
state_word(const Target *target)
{
	if (target->state == TARGET_DONE)
		return "done";
	if (target->state == TARGET_FAILED)
		return "failed";
	if (target->state == TARGET_CANCELLED && target->canceled)
		return "cancelled";
	return "not started";
}

Colour
state_colour(const Target *target)
{
	return target->state == TARGET_DONE ? COLOUR_GOOD : target->state == TARGET_FAILED ? COLOUR_BAD : COLOUR_DOUBTFUL;
}

/* From the first attempt to connect to the last answer. */
double
target_ms(const Target *target)
{
	return target->ended > target->started ? (double) (target->ended - target->started) / 1000 : 0;
}

/* Opens the document and, in it, the list of databases. */
void
json_begin(Buffer *out, int code)
{
	const List *errors = general_errors();
	int			i;

	buffer_init(out);
	json_open(out, NULL, '{');
	json_text(out, "program", PROGRAM_NAME);
	json_text(out, "version", TESTENV_VERSION);
	json_text(out, "command", command_name);
	json_bool(out, "ok", code == EXIT_ALL_DONE);
	json_integer(out, "exit_code", code);
	json_open(out, "errors", '[');
	for (i = 0; i < errors->count; i++)
	{
		const Failure *failure = errors->items[i];

		json_open(out, NULL, '{');
		json_text(out, "message", failure->message);
		json_text(out, "hint", failure->hint);
		json_close(out, '}');
	}
	json_close(out, ']');
	json_open(out, "databases", '[');
}

static void
json_list(Buffer *out, const char *key, const List *list)
{
	int			i;

	json_open(out, key, '[');
	for (i = 0; i < list->count; i++)
		json_text(out, NULL, list->items[i]);
	json_close(out, ']');
}

/* What is said of each database.  The caller adds its own, and closes. */
void
json_target(Buffer *out, const Target *target)
{
	const Failure *failure = &target->failure;

	json_open(out, NULL, '{');
	json_text(out, "name", target->name);
	json_text(out, "database", target->database);
	json_text(out, "host", target->host);
	json_text(out, "port", target->port);
	json_text(out, "user", target->user);
	json_text(out, "result", state_word(target));
	json_number(out, "total_ms", target_ms(target));
	json_list(out, "warnings", &target->warnings);
	json_list(out, "notices", &target->notices);
	if (failure->whole == NULL)
	{
		json_text(out, "error", NULL);
		return;
	}
	json_open(out, "error", '{');
	json_text(out, "severity", failure->severity);
	json_text(out, "sqlstate", failure->sqlstate);
	json_text(out, "message", failure->message);
	json_text(out, "detail", failure->detail);
	json_text(out, "hint", failure->hint);
	json_close(out, '}');
}

/* Closes the document; its lists are closed. */
static void
json_end(Buffer *out)
{
	json_close(out, '}');
	buffer_char(out, '\n');
}

void
print_json(Buffer *out)
{
	json_end(out);
	fputs(out->data, stdout);
	buffer_free(out);
}

/* A whole document without any database. */
static char *
empty_document(int code)
{
	Buffer		out;

	json_begin(&out, code);
	json_close(&out, ']');
	json_end(&out);
	return out.data;
}

/* Known as early as possible: even wrong usage is reported as JSON on request. */
void
report_init(const Options *options)
{
	json = options->json;
	command_name = options->command == NULL ? NULL : options->command->name;
	if (json)
		interrupt_set_last_words(empty_document(EXIT_INTERRUPTED));
}

/* After Ctrl-C: which databases are done, and which are not. */
void
report_interrupt(const List *targets)
{
	static const char *const words[] = {"done", "failed", "cancelled", "not started"};
	Buffer		text;
	int			word;
	int			i;

	if (!interrupted())
		return;
	buffer_init(&text);
	for (word = 0; word < lengthof(words); word++)
	{
		bool		first = true;

		for (i = 0; i < targets->count; i++)
		{
			const Target *target = targets->items[i];

			if (target->state == TARGET_SKIPPED || strcmp(state_word(target), words[word]) != 0)
				continue;
			buffer_format(&text, "%s%s", first ? (text.length > 0 ? "; " : "") : ", ", first ? words[word] : "");
			buffer_format(&text, "%s%s", first ? ": " : "", target->name);
			first = false;
		}
	}
	error_general(NULL, "interrupted%s%s", text.length > 0 ? "; " : "", text.data);
	buffer_free(&text);
}

/* Output that could not be written is a failure like any other. */
int
finish_output(int code)
{
	bool		bad = ferror(stdout) != 0;

	if (fflush(stdout) != 0)
		bad = true;
	if (bad && (code == EXIT_ALL_DONE || code == EXIT_DEGRADED))
	{
		error_general(NULL, "could not write to standard output: %s", strerror(errno));
		code = EXIT_SOME_FAILED;
	}
	return code;
}

/* Ends the program before there is a report, but not without one. */
void
leave(int code)
{
	if (json)
	{
		interrupt_hold(true);
		fputs(empty_document(code), stdout);
	}
	exit(finish_output(code));
}
