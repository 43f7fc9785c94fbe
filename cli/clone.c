/*-------------------------------------------------------------------------
 *
 * clone.c
 *		testenv clone: copies of a database for parallel workers.
 *
 * CREATE DATABASE ... TEMPLATE copies the snapshots with the rest.  What it does
 * not copy are settings and grants of the database itself, testenv.testing_mode
 * among them; clone_copy.c carries them over.
 *
 * Each clone carries a mark, its comment: whose clone it is, and of which
 * snapshots.  A clone whose mark still fits is kept, so that every worker of a
 * build may ask for the clones and the first one makes them.  Only a database
 * with a mark is ever dropped.  The mark is complete only when the clone is; one
 * that a crash cut short counts as stale.
 *
 * Calls are serialised by an advisory lock in the maintenance database, which
 * ends with its session.  The original is looked at under the lock, and over a
 * connection that is closed again, as a template must not be in use.
 *
 *-------------------------------------------------------------------------
 */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "clone.h"

/* longest name of a database, in bytes */
#define MAX_NAME 63

/* "test", "env", as two numbers: no other program is likely to use them */
#define LOCK_KEYS "1952805748, 1701737984"

/* What a template loses, and what tells the fastest way to copy it. */
static bool
send_source(Target *target)
{
	return send_secure(target,
					   "SELECT d.oid, d.datname, r.rolname AS owner, r.rolname = current_user AS mine, d.datconnlimit, "
					   "pg_catalog.pg_database_size(d.oid) AS size, pg_catalog.current_setting('fsync')::bool AS fsync "
					   "FROM pg_catalog.pg_database d JOIN pg_catalog.pg_roles r ON r.oid = d.datdba "
					   "WHERE d.datname = pg_catalog.current_database()");
}

static bool
send_digest(Target *target)
{
	return send_plain(target,
					  "SELECT pg_catalog.md5(pg_catalog.string_agg(pg_catalog.concat_ws(' ', name, extract(epoch FROM created_at)), ',' ORDER BY name)) AS digest "
					  "FROM %s.testenv_snapshots()", 0, NULL);
}

static bool
check_digest(Target *target, PGresult *answer)
{
	if (cell(answer, 0, "digest") != NULL)
		return true;
	fail_own(target, "42704", "Seed the database and run \"testenv snapshot\" first.",
			 "database \"%s\" has no snapshot that its clones could be restored to", PQdb(target->conn));
	return false;
}

static const Step source_step = {send_source, NULL, false};
static const Step digest_step = {send_digest, check_digest, false};
static const Step *const source_steps[] = {&find_extension, &source_step, &digest_step};
static const Work source_work = {"reading the original", source_steps, lengthof(source_steps), 0, false};
static const Work connect_work = {"connecting", NULL, 0, 0, false};

static void
run_one(Target *target, const Work *work)
{
	List		one = {0, NULL};

	list_add(&one, target);
	run_work(&one, work);
	free(one.items);
}

/* A query to the maintenance database that must succeed, or NULL. */
PGresult *
clone_query(Cloning *cloning, const char *sql)
{
	PGresult   *answer = run_query(cloning->admin, cloning->doing, sql, false);
	ExecStatusType status = PQresultStatus(answer);

	if (answer != NULL && (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK))
		return answer;
	if (!interrupted() && answer != NULL)
	{
		fail_server(cloning->admin, answer);
		show_target(cloning->admin, cloning->admin->failure.whole);
	}
	PQclear(answer);
	return NULL;
}

/* Connect, wait for the turn, look at the original. */
static bool
prepare(Cloning *cloning)
{
	Target	   *admin = cloning->admin;
	Target	   *source = cloning->source;
	PGresult   *answer;

	cloning->doing = "waiting for another clone";
	run_one(admin, &connect_work);
	if (admin->state != TARGET_DONE)
		return false;
	PQclear(clone_query(cloning, "SELECT pg_catalog.set_config('search_path', '', false)"));
	answer = clone_query(cloning, "SELECT pg_catalog.pg_advisory_lock(" LOCK_KEYS ")");
	if (answer == NULL)
		return false;
	PQclear(answer);

	run_one(source, &source_work);
	if (source->state != TARGET_DONE)
		return false;
	cloning->original = xstrdup(cell(source->answers[1], 0, "datname"));
	cloning->mark = xformat(CLONE_MARK "\"%s\" (%s), snapshots %s", cloning->original,
							cell(source->answers[1], 0, "oid"), cell(source->answers[2], 0, "digest"));
	return true;
}

static bool
contains_test(const char *name)
{
	for (; *name != '\0'; name++)
	{
		if (strncasecmp(name, "test", 4) == 0)
			return true;
	}
	return false;
}

/* The clones' names, each as long as it may be, each with "test" in it. */
static bool
make_clones(Cloning *cloning)
{
	const Options *options = cloning->options;
	const char *prefix = options->prefix != NULL ? options->prefix : cloning->original;
	int			i;

	if (!contains_test(prefix))
	{
		error_general("Use --prefix to give the clones a name that does.",
					  "names of clones must contain \"test\", \"%s\" does not", prefix);
		return false;
	}
	if (strlen(prefix) + strlen(xformat("_%d", options->count)) > MAX_NAME)
	{
		error_general("Use --prefix to give the clones a shorter name.",
					  "name of clone \"%s_%d\" is too long: it has %d bytes, %d fit", prefix, options->count,
					  (int) strlen(xformat("%s_%d", prefix, options->count)), MAX_NAME);
		return false;
	}
	cloning->prefix = xstrdup(prefix);
	cloning->clones = xmalloc(sizeof(Clone) * (size_t) options->count);
	for (i = 0; i < options->count; i++)
	{
		char	   *name = xformat("%s_%d", prefix, i + 1);

		cloning->clones[i].target = make_target(options, cloning->source->conninfo, name);
		cloning->clones[i].target->password = xstrdup(cloning->source->password);
		list_add(&cloning->targets, cloning->clones[i].target);
	}
	return true;
}

/* What is there already under the clones' names, and under higher numbers. */
static PGresult *
existing(Cloning *cloning)
{
	char	   *prefix = quote_text(cloning->admin->conn, cloning->prefix);
	char	   *sql = xformat("SELECT d.datname, pg_catalog.shobj_description(d.oid, 'pg_database') AS mark "
							  "FROM pg_catalog.pg_database d "
							  "WHERE pg_catalog.starts_with(d.datname::text, %s || '_') "
							  "AND pg_catalog.substr(d.datname::text, pg_catalog.length(%s) + 2) ~ '^[1-9][0-9]*$' ORDER BY 1",
							  prefix, prefix);
	PGresult   *answer = clone_query(cloning, sql);

	free(sql);
	free(prefix);
	return answer;
}

static Clone *
find_clone(const Cloning *cloning, const char *name)
{
	int			i;

	for (i = 0; i < cloning->options->count; i++)
	{
		if (strcmp(cloning->clones[i].target->dbname, name) == 0)
			return &cloning->clones[i];
	}
	return NULL;
}

static void
fail_clone(Clone *clone)
{
	show_target(clone->target, clone->target->failure.whole);
	clone->result = CLONE_FAILED;
}

/* Drop one that is stale, if that was asked for. */
static void
handle_stale(Cloning *cloning, Clone *clone, const char *name)
{
	const Options *options = cloning->options;
	char	   *quoted;
	char	   *sql;
	PGresult   *answer;

	if (!options->drop_stale)
	{
		if (clone != NULL)
		{
			fail_own(clone->target, "42P04", "Use --drop-stale to have it made anew.",
					 "database \"%s\" is a stale clone: the original has other snapshots now", name);
			fail_clone(clone);
		}
		return;
	}
	quoted = quote_name(cloning->admin->conn, name);
	sql = xformat("DROP DATABASE %s%s", quoted, options->terminate ? " WITH (FORCE)" : "");
	answer = run_query(cloning->admin, xformat("dropping %s", name), sql, false);
	if (PQresultStatus(answer) == PGRES_COMMAND_OK)
	{
		say("dropped stale clone \"%s\"", name);
		list_add(&cloning->dropped, xstrdup(name));
	}
	else if (answer != NULL && !interrupted())
	{
		/* one beyond the count has no row of its own */
		Target	   *target = clone != NULL ? clone->target : make_target(options, cloning->source->conninfo, xstrdup(name));

		fail_server(target, answer);
		if (clone == NULL)
			list_add(&cloning->targets, target);
		if (clone != NULL)
			fail_clone(clone);
		else
			show_target(target, target->failure.whole);
	}
	PQclear(answer);
	free(sql);
	free(quoted);
}

/* Keep what fits, refuse what is nobody's clone. */
static bool
look_at_existing(Cloning *cloning)
{
	PGresult   *answer = existing(cloning);
	int			row;

	if (answer == NULL)
		return false;
	for (row = 0; row < PQntuples(answer) && !interrupted(); row++)
	{
		const char *name = cell(answer, row, "datname");
		const char *mark = cell(answer, row, "mark");
		Clone	   *clone = find_clone(cloning, name);

		if (mark != NULL && strcmp(mark, cloning->mark) == 0)
		{
			if (clone != NULL)
				clone->result = CLONE_KEPT;
		}
		else if (mark != NULL && strncmp(mark, CLONE_MARK, strlen(CLONE_MARK)) == 0)
			handle_stale(cloning, clone, name);
		else if (clone != NULL)
		{
			fail_own(clone->target, "42P04", "Drop or rename it, or use --prefix to give the clones another name.",
					 "database \"%s\" exists and was not made by testenv clone", name);
			fail_clone(clone);
		}
	}
	PQclear(answer);
	return true;
}

/* One restore in each new clone, all at the same time. */
static void
restore_clones(Cloning *cloning)
{
	List		targets = {0, NULL};
	int			i;

	for (i = 0; i < cloning->options->count; i++)
	{
		Clone	   *clone = &cloning->clones[i];

		if (clone->result == CLONE_CREATED && !cloning->options->no_restore)
			list_add(&targets, clone->target);
		else if (clone->result == CLONE_CREATED || clone->result == CLONE_KEPT)
			clone->target->state = TARGET_DONE;
		else if (clone->result != CLONE_FAILED)
			clone->target->state = TARGET_CANCELLED;
	}
	if (targets.count > 0)
		run_work(&targets, &restore_work);
	for (i = 0; i < cloning->options->count; i++)
		cloning->clones[i].restored = !cloning->options->no_restore &&
			cloning->clones[i].result == CLONE_CREATED && cloning->clones[i].target->state == TARGET_DONE;
}

static const char *
word_of(const Clone *clone)
{
	if (clone->result == CLONE_CREATED)
		return clone->target->state == TARGET_FAILED ? "not restored" : "created";
	return clone->result == CLONE_KEPT ? "kept" : clone->result == CLONE_FAILED ? "failed" : "not started";
}

static void
print_table(const Cloning *cloning)
{
	static const char *const headers[] = {"database", "result", "strategy", "ms"};
	Table	   *table = table_new(lengthof(headers), headers, "lllr");
	int			i;

	for (i = 0; i < cloning->options->count; i++)
	{
		const Clone *clone = &cloning->clones[i];

		table_cell(table, clone->target->name, COLOUR_NONE);
		table_cell(table, word_of(clone), clone->result == CLONE_FAILED ? COLOUR_BAD :
				   clone->result == CLONE_NOT_STARTED ? COLOUR_DOUBTFUL : state_colour(clone->target));
		table_cell(table, clone->strategy, COLOUR_NONE);
		table_cell(table, clone->result == CLONE_CREATED ? xformat("%.1f", clone->ms) : NULL, COLOUR_NONE);
	}
	table_print(table);
}

static void
print_document(const Cloning *cloning, const List *others, int code)
{
	Buffer		out;
	int			i;

	json_begin(&out, code);
	for (i = 0; i < others->count; i++)
	{
		json_target(&out, others->items[i]);
		json_close(&out, '}');
	}
	for (i = 0; cloning->clones != NULL && i < cloning->options->count; i++)
	{
		const Clone *clone = &cloning->clones[i];

		json_target(&out, clone->target);
		json_text(&out, "clone", word_of(clone));
		json_text(&out, "strategy", clone->strategy);
		if (clone->result == CLONE_CREATED)
			json_number(&out, "clone_ms", clone->ms);
		if (clone->restored)
			json_restored(&out, clone->target);
		json_close(&out, '}');
	}
	json_close(&out, ']');
	json_text(&out, "original", cloning->original);
	json_open(&out, "dropped", '[');
	for (i = 0; i < cloning->dropped.count; i++)
		json_text(&out, NULL, cloning->dropped.items[i]);
	json_close(&out, ']');
	print_json(&out);
}

/* Everything that happens under the lock. */
static void
make_all(Cloning *cloning)
{
	int			i;

	if (!prepare(cloning) || !make_clones(cloning) || !look_at_existing(cloning))
		return;
	for (i = 0; i < cloning->options->count && !interrupted(); i++)
	{
		Clone	   *clone = &cloning->clones[i];

		if (clone->result != CLONE_NOT_STARTED)
			continue;
		cloning->doing = xformat("cloning %s (%d of %d)", clone->target->name, i + 1, cloning->options->count);
		clone_create(cloning, clone);
		if (clone->result == CLONE_FAILED)
			show_target(clone->target, clone->target->failure.whole);
	}
}

int
command_clone(Options *options)
{
	Cloning		cloning;
	List		sources = {0, NULL};
	List		others = {0, NULL};
	int			code;

	memset(&cloning, 0, sizeof(cloning));
	cloning.options = options;
	find_targets(options, &sources, 0);
	if (sources.count > 1)
	{
		error_general("Name it with -d.", "\"clone\" works on one database, TESTENV_DATABASES has %d", sources.count);
		leave(EXIT_USAGE);
	}
	cloning.source = sources.items[0];
	cloning.admin = make_target(options, cloning.source->conninfo,
								options->maintenance_db != NULL ? options->maintenance_db : "postgres");
	cloning.admin->keep_open = true;
	make_all(&cloning);
	close_connection(cloning.admin);
	if (cloning.clones != NULL)
		restore_clones(&cloning);

	/* what kept the clones from being made belongs into the report */
	if (cloning.admin->state != TARGET_DONE)
		list_add(&others, cloning.admin);
	else if (cloning.source->state != TARGET_DONE)
		list_add(&others, cloning.source);
	if (cloning.clones == NULL)
		list_add(&cloning.targets, cloning.source);
	interrupt_hold(true);
	report_interrupt(&cloning.targets);
	code = outcome(&cloning.targets);
	if (code == EXIT_ALL_DONE && others.count > 0)
		code = outcome(&others);
	if (options->json)
		print_document(&cloning, &others, code);
	else if (!options->quiet && cloning.clones != NULL)
		print_table(&cloning);
	return code;
}
