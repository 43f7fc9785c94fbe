/*-------------------------------------------------------------------------
 *
 * status.c
 *		testenv status: is each database fit for tests, and if not, why?
 *
 * Unhealthy is a database in which a restore would be refused, or that does not
 * answer.  Degraded is one in which a restore may take long or fail, or that a
 * crash may have torn.  Everything is asked for, also after something was found
 * wrong: who repairs an environment wants to see all of it at once.
 *
 * The facts come from the extension's functions and from the system views.  They
 * are a picture of one moment: a session that holds locks for milliseconds can
 * be in it.  So only one that rests in a transaction, or has held its locks for
 * longer than a restore would wait, makes a database degraded.
 *
 *-------------------------------------------------------------------------
 */
#include <stdlib.h>
#include <string.h>

#include "status.h"

/* functions that a user of the extension calls */
#define FUNCTIONS "('testenv_snapshot', 'testenv_restore', 'testenv_drop', 'testenv_snapshots', 'testenv_is_clean')"

/*
 * The last crash shows in the views of the cumulative statistics: recovery
 * throws them all away and gives all kinds the same time of reset, to the
 * microsecond; nothing else does.  A first start does so, too, and then nobody
 * has taken a snapshot yet.
 */
static bool
send_facts(Target *target)
{
	return send_secure(target,
					   "SELECT d.datname ~* 'test' AS name_ok, d.datistemplate AS template, "
					   "pg_catalog.pg_is_in_recovery() AS recovery, "
					   "pg_catalog.current_setting('default_transaction_read_only') AS read_only, "
					   "(SELECT default_version FROM pg_catalog.pg_available_extensions WHERE name = 'testenv') AS available, "
					   "(SELECT pg_catalog.string_agg(p.proname, ', ' ORDER BY p.proname) "
					   " FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_depend x ON x.refclassid = 'pg_extension'::regclass "
					   "  AND x.refobjid = e.oid AND x.deptype = 'e' AND x.classid = 'pg_proc'::regclass "
					   " JOIN pg_catalog.pg_proc p ON p.oid = x.objid "
					   " WHERE e.extname = 'testenv' AND p.proname IN " FUNCTIONS
					   "  AND NOT pg_catalog.has_function_privilege(p.oid, 'EXECUTE')) AS not_granted, "
					   "extract(epoch FROM pg_catalog.now() - (SELECT b.stats_reset FROM pg_catalog.pg_stat_bgwriter b, pg_catalog.pg_stat_archiver a "
					   " WHERE b.stats_reset = a.stats_reset)) AS crash_ago "
					   "FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()");
}

static bool
granted(const Target *target, const char *function)
{
	const char *not_granted = cell(target->answers[STEP_FACTS], 0, "not_granted");
	const char *found = not_granted == NULL ? NULL : strstr(not_granted, function);

	/* testenv_snapshot is a part of testenv_snapshots */
	while (found != NULL && found[strlen(function)] != '\0' && found[strlen(function)] != ',')
		found = strstr(found + 1, function);
	return found == NULL;
}

static bool
send_snapshots(Target *target)
{
	return granted(target, "testenv_snapshots") && read_snapshots.send(target);
}

static bool
send_clean(Target *target)
{
	const PGresult *snapshots = target->answers[STEP_SNAPSHOTS];

	/* without a snapshot, or with one that cannot be read, it is an error */
	if (!granted(target, "testenv_is_clean") || !cell_is_true(snapshots, 0, "is_current") ||
		cell(snapshots, 0, "created_at") == NULL)
		return false;
	return send_plain(target, "SELECT %s.testenv_is_clean() AS clean", 0, NULL);
}

/* Only now, as the functions have loaded the library and its settings are real. */
static bool
send_settings(Target *target)
{
	return send_secure(target,
					   "SELECT pg_catalog.current_setting('server_version') AS server, "
					   "pg_catalog.current_setting('testenv.testing_mode', true) AS testing_mode, "
					   "pg_catalog.current_setting('testenv.new_tables', true) AS new_tables, "
					   "pg_catalog.current_setting('testenv.check_detector', true) AS check_detector, "
					   "pg_catalog.current_setting('testenv.lock_timeout', true) AS lock_timeout, "
					   "(SELECT setting FROM pg_catalog.pg_settings WHERE name = 'testenv.lock_timeout') AS lock_timeout_ms");
}

/*
 * Sessions and prepared transactions that hold a lock which a restore of the
 * locked relation would wait for: any lock on a table, or on a sequence with
 * cached values.  autovacuum is no obstacle: a restore cancels it.
 */
static bool
send_sessions(Target *target)
{
	return send_secure(target,
					   "WITH held AS (SELECT l.pid, l.virtualtransaction, "
					   "  pg_catalog.string_agg(DISTINCT pg_catalog.format('%I.%I', n.nspname, c.relname), ', ') AS relations "
					   " FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_class c ON c.oid = l.relation "
					   " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
					   " LEFT JOIN pg_catalog.pg_sequence s ON s.seqrelid = c.oid "
					   " WHERE l.locktype = 'relation' AND l.granted "
					   "  AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) "
					   "  AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid() "
					   "  AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND c.relpersistence <> 't' "
					   "  AND (c.relkind IN ('r', 'm', 't') OR (c.relkind = 'S' AND s.seqcache > 1)) "
					   " GROUP BY l.pid, l.virtualtransaction) "
					   "SELECT h.pid, h.relations, a.usename, a.application_name, a.state, a.query, p.gid, "
					   " extract(epoch FROM pg_catalog.clock_timestamp() - coalesce(a.xact_start, p.prepared)) AS seconds "
					   "FROM held h LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = h.pid "
					   "LEFT JOIN pg_catalog.pg_prepared_xacts p ON h.pid IS NULL "
					   " AND p.transaction IN (SELECT x.transactionid FROM pg_catalog.pg_locks x "
					   "  WHERE x.pid IS NULL AND x.virtualtransaction = h.virtualtransaction) "
					   "WHERE a.backend_type IS DISTINCT FROM 'autovacuum worker' ORDER BY seconds DESC NULLS LAST");
}

static const Step facts_step = {send_facts, NULL, false};
static const Step snapshots_step = {send_snapshots, NULL, true};
static const Step clean_step = {send_clean, NULL, true};
static const Step settings_step = {send_settings, NULL, false};
static const Step sessions_step = {send_sessions, NULL, false};

static const Step *const status_steps[STEP_COUNT] = {
	&find_extension, &facts_step, &snapshots_step, &clean_step, &settings_step, &sessions_step
};

static const Work status_work = {"looking", status_steps, STEP_COUNT, 0, false};

static void
judge(Judgement *judgement, Health health, char *reason)
{
	if (health > judgement->health)
		judgement->health = health;
	list_add(&judgement->reasons, reason);
}

/* What the guards of the extension would say. */
static void
judge_guards(const Target *target, Judgement *judgement)
{
	const PGresult *facts = target->answers[STEP_FACTS];
	const char *mode = cell(target->answers[STEP_SETTINGS], 0, "testing_mode");
	const char *not_granted = cell(facts, 0, "not_granted");
	const char *read_only = cell(facts, 0, "read_only");

	if (!cell_is_true(facts, 0, "name_ok"))
		judge(judgement, UNHEALTHY, xstrdup("its name does not contain \"test\""));
	if (cell_is_true(facts, 0, "template"))
		judge(judgement, UNHEALTHY, xstrdup("it is a template database"));
	if (mode == NULL || strcmp(mode, "on") != 0)
		judge(judgement, UNHEALTHY, xformat("testenv.testing_mode is off: as a superuser, run ALTER DATABASE \"%s\" SET testenv.testing_mode = on",
											target->database));
	if (cell_is_true(facts, 0, "recovery"))
		judge(judgement, UNHEALTHY, xstrdup("the server is in recovery: a standby cannot be restored"));
	if (read_only != NULL && strcmp(read_only, "on") == 0)
		judge(judgement, UNHEALTHY, xstrdup("default_transaction_read_only is on"));
	if (not_granted != NULL)
		judge(judgement, UNHEALTHY, xformat("user \"%s\" may not execute %s", target->user, not_granted));
	judgement->guards_met = judgement->health == HEALTHY;
}

/* The message of an answer that is an ERROR; NULL if it is none. */
static char *
error_of(const PGresult *answer)
{
	const char *message = PQresultErrorField(answer, PG_DIAG_MESSAGE_PRIMARY);

	return message == NULL ? NULL : xstrdup(message);
}

static void
judge_snapshot(const Target *target, Judgement *judgement)
{
	const PGresult *snapshots = target->answers[STEP_SNAPSHOTS];
	const PGresult *clean = target->answers[STEP_CLEAN];
	const char *crash_ago = cell(target->answers[STEP_FACTS], 0, "crash_ago");
	const char *since = cell(snapshots, 0, "restored_ago");
	char	   *error;

	judgement->current = -1;
	if (snapshots == NULL)
		return;
	error = error_of(snapshots);
	if (error != NULL)
		judge(judgement, UNHEALTHY, error);
	else if (PQntuples(snapshots) == 0)
		judge(judgement, UNHEALTHY, xstrdup("there is no snapshot: run testenv snapshot"));
	else if (!cell_is_true(snapshots, 0, "is_current"))
		judge(judgement, UNHEALTHY, xstrdup("no snapshot is the current one: restore one by name"));
	else if (cell(snapshots, 0, "created_at") == NULL)
		judge(judgement, UNHEALTHY, xformat("snapshot \"%s\" was written by another version, or is damaged: take it again",
											cell(snapshots, 0, "name")));
	else
		judgement->current = 0;
	if (judgement->current < 0 || clean == NULL)
		return;

	error = error_of(clean);
	if (error != NULL)
		judge(judgement, DEGRADED, xformat("whether it has changed cannot be told: %s", error));
	else
		judgement->changed = cell_is_true(clean, 0, "clean") ? "clean" : "changed";
	if (since == NULL)
		since = cell(snapshots, 0, "age");
	if (crash_ago != NULL && since != NULL && strtod(crash_ago, NULL) < strtod(since, NULL) &&
		judgement->changed != NULL && strcmp(judgement->changed, "changed") == 0)
		judge(judgement, DEGRADED, xstrdup("the server crashed after the last restore, tables may be torn: restore before anything reads them"));
}

static void
judge_versions(const Target *target, Judgement *judgement)
{
	const char *available = cell(target->answers[STEP_FACTS], 0, "available");

	if (strcmp(target->extversion, TESTENV_VERSION) != 0)
		judge(judgement, DEGRADED, xformat("the extension has version %s, this program " TESTENV_VERSION, target->extversion));
	if (available != NULL && strcmp(available, target->extversion) != 0)
		judge(judgement, DEGRADED, xformat("the extension has version %s, the server's files have %s: run ALTER EXTENSION testenv UPDATE",
										   target->extversion, available));
}

/* Would a restore have to wait for this session for too long? */
static bool
is_in_the_way(const Target *target, int row)
{
	const PGresult *sessions = target->answers[STEP_SESSIONS];
	const char *timeout = cell(target->answers[STEP_SETTINGS], 0, "lock_timeout_ms");
	const char *state = cell(sessions, row, "state");
	const char *seconds = cell(sessions, row, "seconds");
	double		limit = timeout == NULL ? 5 : strtod(timeout, NULL) / 1000;

	if (cell(sessions, row, "gid") != NULL)
		return true;
	if (state != NULL && strncmp(state, "idle", 4) == 0)
		return true;
	return seconds != NULL && strtod(seconds, NULL) >= limit;
}

static void
judge_sessions(const Target *target, Judgement *judgement)
{
	const PGresult *sessions = target->answers[STEP_SESSIONS];
	int			row;

	for (row = 0; row < PQntuples(sessions); row++)
	{
		const char *gid = cell(sessions, row, "gid");
		const char *seconds = cell(sessions, row, "seconds");
		const char *state = cell(sessions, row, "state");
		const char *query = cell(sessions, row, "query");
		char	   *duration = seconds == NULL ? xstrdup("an unknown time") : format_duration(strtod(seconds, NULL));

		if (!is_in_the_way(target, row))
			continue;
		if (gid != NULL)
			judge(judgement, DEGRADED, xformat("prepared transaction \"%s\" has held a lock on %s for %s",
											   gid, cell(sessions, row, "relations"), duration));
		else
			judge(judgement, DEGRADED, xformat("session %s (user \"%s\", application \"%s\", %s) has held a lock on %s for %s: %s",
											   cell(sessions, row, "pid"), cell(sessions, row, "usename"),
											   cell(sessions, row, "application_name"), state == NULL ? "state unknown" : state,
											   cell(sessions, row, "relations"), duration, query == NULL ? "" : query));
	}
}

/* How long restores took, as the extension counts. */
static void
judge_times(const Target *target, Judgement *judgement)
{
	const PGresult *snapshots = target->answers[STEP_SNAPSHOTS];
	const char *slowest = cell(snapshots, 0, "slowest_restore_ms");
	const char *last = cell(snapshots, 0, "last_restore_ms");

	judgement->slowest_ms = slowest == NULL ? -1 : strtod(slowest, NULL);
	judgement->last_ms = last == NULL ? -1 : strtod(last, NULL);
}

int
command_status(Options *options)
{
	List		targets = {0, NULL};
	Judgement  *judgements;
	Health		worst = HEALTHY;
	int			code;
	int			i;

	if (find_targets(options, &targets, 0))
		run_work(&targets, &status_work);
	refuse_nothing(options, &targets);
	judgements = xmalloc(sizeof(Judgement) * (size_t) (targets.count + 1));
	for (i = 0; i < targets.count; i++)
	{
		const Target *target = targets.items[i];
		Judgement  *judgement = &judgements[i];

		judgement->current = -1;
		judgement->slowest_ms = -1;
		judgement->last_ms = -1;
		if (target->state == TARGET_SKIPPED)
			continue;
		if (target->state == TARGET_DONE)
		{
			judge_guards(target, judgement);
			judge_snapshot(target, judgement);
			judge_versions(target, judgement);
			judge_sessions(target, judgement);
			judge_times(target, judgement);
		}
		else
			judge(judgement, UNHEALTHY, xstrdup(target->state == TARGET_FAILED ? failure_line(target) : state_word(target)));
		if (judgement->health > worst)
			worst = judgement->health;
	}
	interrupt_hold(true);
	report_interrupt(&targets);
	code = outcome(&targets);
	if (code == EXIT_ALL_DONE && worst != HEALTHY)
		code = worst == DEGRADED ? EXIT_DEGRADED : EXIT_SOME_FAILED;
	return status_report(options, &targets, judgements, code);
}
