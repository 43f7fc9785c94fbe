/*-------------------------------------------------------------------------
 *
 * snapshot.c
 *		The commands that call one function in each database: snapshot, restore
 *		and drop.
 *
 * The columns of the functions' rows are looked up by name, as later versions of
 * the extension have more of them: those are shown in JSON where they are there.
 *
 *-------------------------------------------------------------------------
 */
#include <stdlib.h>
#include <string.h>

#include "cli.h"

/* OIDs of types, which never change; their header needs the server's others */
#define INT8_TYPE 20
#define INT4_TYPE 23
#define FLOAT8_TYPE 701
#define VOID_TYPE 2278

static bool
send_snapshot(Target *target)
{
	const char *params[2];

	params[0] = target->options->name != NULL ? target->options->name : "default";
	params[1] = target->options->label;
	return send_plain(target, "SELECT * FROM %s.testenv_snapshot($1::pg_catalog.text, $2::pg_catalog.text)", 2, params);
}

static bool
send_restore(Target *target)
{
	const char *params[2];

	params[0] = target->options->name;
	params[1] = target->options->terminate ? "true" : "false";
	return send_plain(target, "SELECT * FROM %s.testenv_restore($1::pg_catalog.text, $2::pg_catalog.bool)", 2, params);
}

static bool
send_drop(Target *target)
{
	const char *params[1];

	params[0] = target->options->name;
	return send_plain(target, "SELECT %s.testenv_drop($1::pg_catalog.text)", 1, params);
}

static const Step snapshot_step = {send_snapshot, NULL, false};
static const Step restore_step = {send_restore, NULL, false};
static const Step drop_step = {send_drop, NULL, false};
static const Step *const snapshot_steps[] = {&find_extension, &snapshot_step};
static const Step *const restore_steps[] = {&find_extension, &restore_step};
static const Step *const drop_steps[] = {&find_extension, &drop_step};

static const Work snapshot_work = {"taking snapshots", snapshot_steps, lengthof(snapshot_steps), 0, false};
static const Work drop_work = {"dropping", drop_steps, lengthof(drop_steps), 0, false};
const Work	restore_work = {"restoring", restore_steps, lengthof(restore_steps), 0, false};

/* The row that the function has given, or NULL. */
static const PGresult *
row_of(const Target *target)
{
	return target->state == TARGET_DONE ? target->answers[1] : NULL;
}

static void
print_table(const List *targets, bool sizes)
{
	static const char *const headers[] = {"database", "result", "snapshot", "tables", "sequences", "pages", "ms", "size"};
	Table	   *table = table_new(sizes ? 8 : 7, headers, "lllrrrrr");
	int			i;

	for (i = 0; i < targets->count; i++)
	{
		const Target *target = targets->items[i];
		const PGresult *row = row_of(target);
		const char *ms = cell(row, 0, "elapsed_ms");
		const char *bytes = cell(row, 0, "bytes");

		if (target->state == TARGET_SKIPPED)
			continue;
		table_cell(table, target->name, COLOUR_NONE);
		table_cell(table, state_word(target), state_colour(target));
		table_cell(table, cell(row, 0, "name"), COLOUR_NONE);
		table_cell(table, cell(row, 0, "tables"), COLOUR_NONE);
		table_cell(table, cell(row, 0, "sequences"), COLOUR_NONE);
		table_cell(table, cell(row, 0, "pages"), COLOUR_NONE);
		table_cell(table, ms == NULL ? NULL : xformat("%.3f", strtod(ms, NULL)), COLOUR_NONE);
		if (sizes)
			table_cell(table, bytes == NULL ? NULL : format_bytes(strtod(bytes, NULL)), COLOUR_NONE);
	}
	table_print(table);
}

/* Every column of the row, those of later versions too. */
void
json_restored(Buffer *out, const Target *target)
{
	const PGresult *row = row_of(target);
	int			column;

	if (row == NULL || PQresultStatus(row) != PGRES_TUPLES_OK || PQntuples(row) == 0)
		return;
	for (column = 0; column < PQnfields(row); column++)
	{
		const char *key = PQfname(row, column);
		const char *value = PQgetisnull(row, 0, column) ? NULL : PQgetvalue(row, 0, column);
		Oid			type = PQftype(row, column);
		bool		number = type == INT4_TYPE || type == INT8_TYPE || type == FLOAT8_TYPE;

		/* what testenv_drop() returns says nothing */
		if (type == VOID_TYPE)
			continue;
		if (strcmp(key, "name") == 0)
			key = "snapshot";
		if (number)
			json_raw(out, key, value);
		else
			json_text(out, key, value);
	}
}

/* The list of databases of a document, each with its row where it has one. */
void
json_restored_list(Buffer *out, const List *targets)
{
	int			i;

	for (i = 0; i < targets->count; i++)
	{
		const Target *target = targets->items[i];

		if (target->state == TARGET_SKIPPED)
			continue;
		json_target(out, target);
		json_restored(out, target);
		json_close(out, '}');
	}
	json_close(out, ']');
}

static void
print_drop(const List *targets)
{
	static const char *const headers[] = {"database", "result", "snapshot"};
	Table	   *table = table_new(lengthof(headers), headers, "lll");
	int			i;

	for (i = 0; i < targets->count; i++)
	{
		const Target *target = targets->items[i];

		if (target->state == TARGET_SKIPPED)
			continue;
		table_cell(table, target->name, COLOUR_NONE);
		table_cell(table, target->state == TARGET_DONE ? "dropped" : state_word(target), state_colour(target));
		table_cell(table, target->options->name, COLOUR_NONE);
	}
	table_print(table);
}

static int
call_everywhere(Options *options, const Work *work)
{
	List		targets = {0, NULL};
	Buffer		document;
	int			code;

	if (find_targets(options, &targets, 0))
		run_work(&targets, work);
	refuse_nothing(options, &targets);
	interrupt_hold(true);
	report_interrupt(&targets);
	code = outcome(&targets);
	if (options->json)
	{
		json_begin(&document, code);
		json_restored_list(&document, &targets);
		print_json(&document);
	}
	else if (!options->quiet && work == &drop_work)
		print_drop(&targets);
	else if (!options->quiet)
		print_table(&targets, work == &snapshot_work);
	return code;
}

int
command_snapshot(Options *options)
{
	return call_everywhere(options, &snapshot_work);
}

int
command_restore(Options *options)
{
	return call_everywhere(options, &restore_work);
}

int
command_drop(Options *options)
{
	return call_everywhere(options, &drop_work);
}
