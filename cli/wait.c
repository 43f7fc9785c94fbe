/*-------------------------------------------------------------------------
 *
 * wait.c
 *		testenv wait: until every database answers and has its snapshot.
 *
 * For the start of a test environment, where servers, databases, roles, the
 * extension and the snapshot come into being one after the other.  So nothing
 * is taken as final but the end of the time: even a wrong password may be right
 * once the role has been made.
 *
 *-------------------------------------------------------------------------
 */
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

static bool check_snapshots(Target *target, PGresult *answer);

static Step snapshot_step;
static const Step *const wait_steps[] = {&find_extension, &snapshot_step};

/* The one asked for, or any, and readable. */
static bool
check_snapshots(Target *target, PGresult *answer)
{
	const char *name = target->options->name;
	int			row;

	for (row = 0; row < PQntuples(answer); row++)
	{
		if (cell(answer, row, "created_at") != NULL &&
			(name == NULL ? cell_is_true(answer, row, "is_current") : strcmp(cell(answer, row, "name"), name) == 0))
			return true;
	}
	if (name != NULL)
		fail_own(target, "42704", NULL, "database \"%s\" has no snapshot \"%s\"", PQdb(target->conn), name);
	else
		fail_own(target, "42704", NULL, "database \"%s\" has no snapshot", PQdb(target->conn));
	return false;
}

/* One object or row a database. */
static void
report(const Options *options, const List *targets, int code)
{
	static const char *const headers[] = {"database", "result", "ms"};
	Table	   *table = table_new(lengthof(headers), headers, "llr");
	Buffer		out;
	int			i;

	json_begin(&out, code);
	for (i = 0; i < targets->count; i++)
	{
		const Target *target = targets->items[i];
		bool		ready = target->state == TARGET_DONE;

		if (target->state == TARGET_SKIPPED)
			continue;
		json_target(&out, target);
		json_bool(&out, "ready", ready);
		json_close(&out, '}');
		table_cell(table, target->name, COLOUR_NONE);
		table_cell(table, ready ? "ready" : target->state == TARGET_FAILED ? "not ready" : state_word(target), state_colour(target));
		table_cell(table, xformat("%.1f", target_ms(target)), COLOUR_NONE);
	}
	json_close(&out, ']');
	if (options->json)
		print_json(&out);
	else if (!options->quiet)
		table_print(table);
}

/* Is there a database that --all is about? */
static bool
found_one(const List *targets)
{
	int			i;

	for (i = 0; i < targets->count; i++)
	{
		const Target *target = targets->items[i];

		if (target->state != TARGET_SKIPPED)
			return true;
	}
	return false;
}

int
command_wait(Options *options)
{
	List		targets = {0, NULL};
	int64_t		until = options->timeout > 0 ? now_us() + (int64_t) (options->timeout * 1000000) : INT64_MAX;
	Work		work;
	int			code;

	memset(&work, 0, sizeof(work));
	snapshot_step = read_snapshots;
	snapshot_step.check = check_snapshots;
	work.doing = "waiting";
	work.steps = wait_steps;
	work.nsteps = lengthof(wait_steps);
	work.retry_until = until;
	for (;;)
	{
		memset(&targets, 0, sizeof(targets));
		if (find_targets(options, &targets, until))
			run_work(&targets, &work);
		if (found_one(&targets) || interrupted() || now_us() >= until)
			break;
		/* the extension may still come to one of the databases */
		poll(NULL, 0, 100);
	}
	refuse_nothing(options, &targets);
	interrupt_hold(true);
	report_interrupt(&targets);
	code = outcome(&targets);
	if (code == EXIT_SOME_FAILED && now_us() >= until)
		code = EXIT_TIMED_OUT;
	report(options, &targets, code);
	return code;
}
