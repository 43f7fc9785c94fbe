/*-------------------------------------------------------------------------
 *
 * status_report.c
 *		Shows what status.c has found: one row a database and the reasons below,
 *		or JSON with everything.
 *
 * Apart from the judging, so that what is found does not depend on what fits
 * into a table.
 *
 *-------------------------------------------------------------------------
 */
#include <stdlib.h>
#include <string.h>

#include "status.h"

static const char *const health_words[] = {"healthy", "degraded", "unhealthy"};
static const Colour health_colours[] = {COLOUR_GOOD, COLOUR_DOUBTFUL, COLOUR_BAD};

static char *
duration_of(const char *seconds, const char *after)
{
	return seconds == NULL ? NULL : xformat("%s%s", format_duration(strtod(seconds, NULL)), after);
}

static char *
milliseconds(double ms)
{
	return ms < 0 ? NULL : xformat("%.1f ms", ms);
}

static void
add_row(Table *table, const Target *target, const Judgement *judgement)
{
	const PGresult *snapshots = judgement->current < 0 ? NULL : target->answers[STEP_SNAPSHOTS];
	const char *bytes = cell(snapshots, 0, "bytes");
	char	   *server = xstrdup(cell(target->answers[STEP_SETTINGS], 0, "server"));
	bool		known = target->state == TARGET_DONE;

	/* a distributor adds words of its own */
	if (server != NULL)
		server[strcspn(server, " ")] = '\0';
	table_cell(table, target->name, COLOUR_NONE);
	table_cell(table, health_words[judgement->health], health_colours[judgement->health]);
	table_cell(table, server, COLOUR_NONE);
	table_cell(table, target->extversion, COLOUR_NONE);
	table_cell(table, !known ? NULL : judgement->guards_met ? "met" : "refuse", COLOUR_NONE);
	table_cell(table, cell(snapshots, 0, "name"), COLOUR_NONE);
	table_cell(table, duration_of(cell(snapshots, 0, "age"), ""), COLOUR_NONE);
	table_cell(table, bytes == NULL ? NULL : format_bytes(strtod(bytes, NULL)), COLOUR_NONE);
	table_cell(table, judgement->changed, COLOUR_NONE);
	table_cell(table, cell(snapshots, 0, "restores"), COLOUR_NONE);
	table_cell(table, duration_of(cell(snapshots, 0, "restored_ago"), " ago"), COLOUR_NONE);
	table_cell(table, milliseconds(judgement->slowest_ms), COLOUR_NONE);
	table_cell(table, cell(snapshots, 0, "label"), COLOUR_NONE);
}

static void
print_status(const List *targets, const Judgement *judgements)
{
	static const char *const headers[] = {"database", "health", "server", "testenv", "guards", "snapshot", "age", "size",
	"data", "restores", "last", "slowest", "label"};
	Table	   *table = table_new(lengthof(headers), headers, "lllllllrlrlrl");
	int			i;
	int			j;

	for (i = 0; i < targets->count; i++)
	{
		const Target *target = targets->items[i];

		if (target->state != TARGET_SKIPPED)
			add_row(table, target, &judgements[i]);
	}
	table_print(table);
	for (i = 0; i < targets->count; i++)
	{
		const Target *target = targets->items[i];

		for (j = 0; j < judgements[i].reasons.count; j++)
			printf("%s: %s\n", printable(target->name), printable(judgements[i].reasons.items[j]));
	}
}

static void
json_sessions(Buffer *out, const PGresult *sessions)
{
	int			row;

	json_open(out, "blocking_sessions", '[');
	for (row = 0; sessions != NULL && row < PQntuples(sessions); row++)
	{
		json_open(out, NULL, '{');
		json_raw(out, "pid", cell(sessions, row, "pid"));
		json_text(out, "gid", cell(sessions, row, "gid"));
		json_text(out, "user", cell(sessions, row, "usename"));
		json_text(out, "application_name", cell(sessions, row, "application_name"));
		json_text(out, "state", cell(sessions, row, "state"));
		json_text(out, "query", cell(sessions, row, "query"));
		json_text(out, "relations", cell(sessions, row, "relations"));
		json_raw(out, "seconds", cell(sessions, row, "seconds"));
		json_close(out, '}');
	}
	json_close(out, ']');
}

static void
json_guards(Buffer *out, const Target *target)
{
	const PGresult *facts = target->answers[STEP_FACTS];
	const PGresult *settings = target->answers[STEP_SETTINGS];
	const char *mode = cell(settings, 0, "testing_mode");

	json_open(out, "guards", '{');
	json_bool(out, "test_in_name", cell_is_true(facts, 0, "name_ok"));
	json_bool(out, "template", cell_is_true(facts, 0, "template"));
	json_bool(out, "testing_mode", mode != NULL && strcmp(mode, "on") == 0);
	json_bool(out, "in_recovery", cell_is_true(facts, 0, "recovery"));
	json_text(out, "execute_not_granted", cell(facts, 0, "not_granted"));
	json_close(out, '}');
	json_open(out, "settings", '{');
	json_text(out, "lock_timeout", cell(settings, 0, "lock_timeout"));
	json_text(out, "new_tables", cell(settings, 0, "new_tables"));
	json_text(out, "check_detector", cell(settings, 0, "check_detector"));
	json_close(out, '}');
}

/* Milliseconds, or null where they are not known. */
static void
json_ms(Buffer *out, const char *key, double ms)
{
	if (ms < 0)
		json_text(out, key, NULL);
	else
		json_number(out, key, ms);
}

static void
json_status(Buffer *out, const Target *target, const Judgement *judgement)
{
	int			i;

	json_target(out, target);
	json_text(out, "health", health_words[judgement->health]);
	json_open(out, "reasons", '[');
	for (i = 0; i < judgement->reasons.count; i++)
		json_text(out, NULL, judgement->reasons.items[i]);
	json_close(out, ']');
	json_text(out, "server_version", cell(target->answers[STEP_SETTINGS], 0, "server"));
	json_text(out, "extension_version", target->extversion);
	json_text(out, "available_version", cell(target->answers[STEP_FACTS], 0, "available"));
	if (target->state == TARGET_DONE)
	{
		json_guards(out, target);
		json_sessions(out, target->answers[STEP_SESSIONS]);
	}
	if (judgement->current >= 0)
		json_snapshot(out, "snapshot", target->answers[STEP_SNAPSHOTS], judgement->current);
	else
		json_text(out, "snapshot", NULL);
	if (judgement->changed != NULL)
		json_bool(out, "clean", strcmp(judgement->changed, "clean") == 0);
	else
		json_text(out, "clean", NULL);
	json_ms(out, "last_restore_ms", judgement->last_ms);
	json_ms(out, "slowest_restore_ms", judgement->slowest_ms);
	json_close(out, '}');
}

/* Returns the exit code that it was given. */
int
status_report(const Options *options, const List *targets, const Judgement *judgements, int code)
{
	Buffer		out;
	int			i;

	if (!options->json)
	{
		print_status(targets, judgements);
		return code;
	}
	json_begin(&out, code);
	for (i = 0; i < targets->count; i++)
	{
		const Target *target = targets->items[i];

		if (target->state != TARGET_SKIPPED)
			json_status(&out, target, &judgements[i]);
	}
	json_close(&out, ']');
	print_json(&out);
	return code;
}
