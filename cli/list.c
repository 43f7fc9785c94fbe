/*-------------------------------------------------------------------------
 *
 * list.c
 *		testenv list: the snapshots of each database.
 *
 * Ages instead of times in the table, because nobody should have to think about
 * time zones to see what is old; JSON has the times, in UTC.
 *
 *-------------------------------------------------------------------------
 */
#include <stdlib.h>
#include <string.h>

#include "cli.h"

static const Step *const list_steps[] = {&find_extension, &read_snapshots};
static const Work list_work = {"listing", list_steps, lengthof(list_steps), 0, false};

static char *
ago(const char *seconds)
{
	char	   *duration;

	if (seconds == NULL)
		return NULL;
	duration = format_duration(strtod(seconds, NULL));
	return xformat("%s ago", duration);
}

static void
add_row(Table *table, const Target *target, const PGresult *snapshots, int row)
{
	const char *bytes = cell(snapshots, row, "bytes");
	bool		current = cell_is_true(snapshots, row, "is_current");

	table_cell(table, target->name, COLOUR_NONE);
	table_cell(table, cell(snapshots, row, "name"), COLOUR_NONE);
	table_cell(table, current ? "yes" : "", current ? COLOUR_GOOD : COLOUR_NONE);
	table_cell(table, ago(cell(snapshots, row, "age")), COLOUR_NONE);
	table_cell(table, cell(snapshots, row, "tables"), COLOUR_NONE);
	table_cell(table, bytes == NULL ? NULL : format_bytes(strtod(bytes, NULL)), COLOUR_NONE);
	table_cell(table, cell(snapshots, row, "restores"), COLOUR_NONE);
	table_cell(table, ago(cell(snapshots, row, "restored_ago")), COLOUR_NONE);
	table_cell(table, cell(snapshots, row, "label"), COLOUR_NONE);
}

static void
print_table(const List *targets)
{
	static const char *const headers[] = {"database", "snapshot", "current", "taken", "tables", "size", "restores", "last restore", "label"};
	Table	   *table = table_new(lengthof(headers), headers, "llllrrrll");
	int			i;
	int			row;

	for (i = 0; i < targets->count; i++)
	{
		const Target *target = targets->items[i];

		if (target->state != TARGET_DONE)
			continue;
		for (row = 0; row < PQntuples(target->answers[1]); row++)
			add_row(table, target, target->answers[1], row);
	}
	table_print(table);
}

/* One snapshot as an object; status has it, too. */
void
json_snapshot(Buffer *out, const char *key, const PGresult *snapshots, int row)
{
	json_open(out, key, '{');
	json_text(out, "name", cell(snapshots, row, "name"));
	json_text(out, "label", cell(snapshots, row, "label"));
	json_text(out, "created_at", cell(snapshots, row, "created_utc"));
	json_raw(out, "age_seconds", cell(snapshots, row, "age"));
	json_raw(out, "tables", cell(snapshots, row, "tables"));
	json_raw(out, "sequences", cell(snapshots, row, "sequences"));
	json_raw(out, "pages", cell(snapshots, row, "pages"));
	json_raw(out, "bytes", cell(snapshots, row, "bytes"));
	json_bool(out, "is_current", cell_is_true(snapshots, row, "is_current"));
	json_raw(out, "restores", cell(snapshots, row, "restores"));
	json_text(out, "last_restored_at", cell(snapshots, row, "restored_utc"));
	json_close(out, '}');
}

static void
print_document(const List *targets, int code)
{
	Buffer		out;
	int			i;
	int			row;

	json_begin(&out, code);
	for (i = 0; i < targets->count; i++)
	{
		const Target *target = targets->items[i];
		const PGresult *snapshots = target->state == TARGET_DONE ? target->answers[1] : NULL;

		if (target->state == TARGET_SKIPPED)
			continue;
		json_target(&out, target);
		json_open(&out, "snapshots", '[');
		for (row = 0; snapshots != NULL && row < PQntuples(snapshots); row++)
			json_snapshot(&out, NULL, snapshots, row);
		json_close(&out, ']');
		json_close(&out, '}');
	}
	json_close(&out, ']');
	print_json(&out);
}

int
command_list(Options *options)
{
	List		targets = {0, NULL};
	int			code;

	if (find_targets(options, &targets, 0))
		run_work(&targets, &list_work);
	refuse_nothing(options, &targets);
	interrupt_hold(true);
	report_interrupt(&targets);
	code = outcome(&targets);
	if (options->json)
		print_document(&targets, code);
	else
		print_table(&targets);
	return code;
}
