/*-------------------------------------------------------------------------
 *
 * functions.c
 *		The SQL functions.
 *
 * Arguments in, a row out, a line in the server's log; what they do is
 * elsewhere.  All are VOLATILE and PARALLEL UNSAFE, and EXECUTE is granted to
 * nobody.  Who has it needs no right on any table: testenv works below the
 * level at which those count.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "storage/lmgr.h"
#include "commands/dbcommands.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "testenv.h"

/* Columns of testenv_snapshots() */
#define SNAPSHOT_COLUMNS 12

PG_FUNCTION_INFO_V1(testenv_snapshot);
PG_FUNCTION_INFO_V1(testenv_restore);
PG_FUNCTION_INFO_V1(testenv_drop);
PG_FUNCTION_INFO_V1(testenv_snapshots);
PG_FUNCTION_INFO_V1(testenv_is_clean);

static double
milliseconds_since(instr_time start)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	INSTR_TIME_SUBTRACT(now, start);
	return INSTR_TIME_GET_MILLISEC(now);
}

static Datum
row(FunctionCallInfo fcinfo, Datum *values, bool *nulls)
{
	TupleDesc	desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}

/* Each thing that changes the database leaves a line in the server's log. */
static void
log_operation(const char *what, const char *name, int tables, int64 pages,
			  double ms)
{
	ereport(LOG_SERVER_ONLY,
			(errmsg("testenv: %s snapshot \"%s\" of database \"%s\" for user \"%s\": %d tables, %lld pages, %.3f ms",
					what, name, get_database_name(MyDatabaseId),
					GetUserNameFromId(GetUserId(), true), tables,
					(long long) pages, ms),
			 errhidestmt(true)));
}

/*
 * testenv_snapshot(name text DEFAULT 'default', label text DEFAULT NULL)
 *	-> (name, tables, sequences, pages, bytes, elapsed_ms)
 *
 * Takes a snapshot of every table and sequence of the database, replacing one
 * of the same name when the transaction commits.  "pages" are those copied,
 * "bytes" the size of the store.
 *
 * Locks: until the end of the transaction, ShareLock on each table, or
 * AccessExclusiveLock where it has to be frozen first; see snapshot.c.
 * Privileges: EXECUTE.
 * Errors: guards; name empty or too long; locks not to be had; a table cannot
 * be frozen; disk full.
 */
Datum
testenv_snapshot(PG_FUNCTION_ARGS)
{
	char	   *name;
	char	   *label = PG_ARGISNULL(1) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(1));
	instr_time	start;
	TestenvTaken taken;
	Datum		values[6];
	bool		nulls[6] = {0};
	double		ms;

	INSTR_TIME_SET_CURRENT(start);
	testenv_guard("take");
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("name of a snapshot must not be null"),
				 errdetail("NULL was given."),
				 errhint("Leave the argument out to use the default.")));
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	testenv_guard_name(name);
	if (label != NULL && strlen(label) > TESTENV_LABEL_LEN)
		ereport(ERROR,
				(errcode(ERRCODE_STRING_DATA_RIGHT_TRUNCATION),
				 errmsg("label of a snapshot is too long"),
				 errdetail("The label has %zu bytes; at most %d fit.",
						   strlen(label), TESTENV_LABEL_LEN),
				 errhint("Use a shorter label.")));

	testenv_take_snapshot(name, label, &taken);

	ms = milliseconds_since(start);
	log_operation("took", name, taken.ntables, taken.npages, ms);
	values[0] = CStringGetTextDatum(name);
	values[1] = Int32GetDatum(taken.ntables);
	values[2] = Int32GetDatum(taken.nsequences);
	values[3] = Int64GetDatum(taken.npages);
	values[4] = Int64GetDatum(taken.nbytes);
	values[5] = Float8GetDatum(ms);
	PG_RETURN_DATUM(row(fcinfo, values, nulls));
}

/*
 * testenv_restore(name text DEFAULT NULL, terminate boolean DEFAULT false)
 *	-> (name, tables, sequences, pages, elapsed_ms, detector, wal_bytes)
 *
 * What was put back; how the changes were found, "wal" or "look", and how many
 * bytes of WAL were read for it.
 *
 * Puts the database back to a snapshot; NULL is the one last taken or
 * restored.  Takes effect at once; ROLLBACK does not undo it.
 *
 * Locks: until the end of the transaction, AccessExclusiveLock on each table
 * that changed; see detect.c.
 * Privileges: EXECUTE.
 * Errors: guards; transaction that has written; unknown snapshot, or one of
 * another version; schema changed; table in use here; locks not to be had; disk
 * full.
 */
Datum
testenv_restore(PG_FUNCTION_ARGS)
{
	char	   *name = PG_ARGISNULL(0) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(0));
	bool		terminate = !PG_ARGISNULL(1) && PG_GETARG_BOOL(1);
	instr_time	start;
	TestenvRestore restore;
	Datum		values[7];
	bool		nulls[7] = {0};
	double		ms;

	INSTR_TIME_SET_CURRENT(start);
	testenv_run_restore(name, terminate, &restore);

	ms = milliseconds_since(start);
	log_operation("restored", restore.name, restore.ntables, restore.npages, ms);
	values[0] = CStringGetTextDatum(restore.name);
	values[1] = Int32GetDatum(restore.ntables);
	values[2] = Int32GetDatum(restore.nsequences);
	values[3] = Int64GetDatum(restore.npages);
	values[4] = Float8GetDatum(ms);
	values[5] = CStringGetTextDatum(restore.detector == TESTENV_DETECT_WAL ? "wal" : "look");
	values[6] = Int64GetDatum(restore.wal_bytes);
	PG_RETURN_DATUM(row(fcinfo, values, nulls));
}

/* What a store that is about to go held, as far as it can be read. */
static void
describe_for_log(Oid storeid, int *ntables, int64 *npages)
{
	Relation	store = relation_open(storeid, AccessShareLock);
	TestenvHeader header;
	bool		valid;

	testenv_store_header(store, &header);
	valid = testenv_store_header_valid(&header, RelationGetNumberOfBlocks(store));
	*ntables = valid ? (int) header.ntables : 0;
	*npages = valid ? (int64) header.npages : 0;
	relation_close(store, AccessShareLock);
}

/*
 * testenv_drop(name text) -> void
 *
 * Removes a snapshot when the transaction commits.
 *
 * Locks: AccessExclusiveLock on its store.  Privileges: EXECUTE.
 * Errors: guards; unknown snapshot.
 */
Datum
testenv_drop(PG_FUNCTION_ARGS)
{
	TestenvWait wait = {0};
	instr_time	start;
	char	   *name;
	Oid			storeid;
	int			ntables;
	int64		npages;
	double		ms;

	INSTR_TIME_SET_CURRENT(start);
	testenv_guard("drop");
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("name of a snapshot must not be null"),
				 errdetail("NULL was given."),
				 errhint("Name the snapshot to drop.")));
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	testenv_lock_extension(&wait, "drop");
	testenv_guard_name(name);
	storeid = testenv_store_required(name);
	describe_for_log(storeid, &ntables, &npages);
	testenv_store_drop(storeid, &wait, "drop");
	ms = milliseconds_since(start);
	log_operation("dropped", name, ntables, npages, ms);
	PG_RETURN_VOID();
}

/* One row of testenv_snapshots(); false if the store is not to be read. */
static bool
describe_store(Oid storeid, Oid current, Datum *values, bool *nulls)
{
	Relation	store = try_relation_open(storeid, AccessShareLock);
	TestenvHeader header;
	TestenvCounters counters = {0};
	bool		valid;

	if (store == NULL)
		return false;
	testenv_store_header(store, &header);
	valid = testenv_store_header_valid(&header, RelationGetNumberOfBlocks(store));
	if (valid)
		testenv_store_counters(store, &counters);

	memset(nulls, !valid, sizeof(bool) * SNAPSHOT_COLUMNS);
	nulls[0] = false;
	values[0] = CStringGetTextDatum(testenv_store_snapshot_name(storeid));
	if (valid)
	{
		values[1] = CStringGetTextDatum(header.label);
		nulls[1] = header.label[0] == '\0';
		values[2] = TimestampTzGetDatum(header.created_at);
		values[3] = Int32GetDatum(header.ntables);
		values[4] = Int32GetDatum(header.nsequences);
		values[5] = Int64GetDatum(header.npages);
		values[8] = Int64GetDatum(counters.restores);
		values[9] = TimestampTzGetDatum(counters.last_restored_at);
		values[10] = Float8GetDatum(counters.last_ms);
		values[11] = Float8GetDatum(counters.slowest_ms);
		nulls[9] = nulls[10] = nulls[11] = counters.last_restored_at == 0;
	}
	values[6] = Int64GetDatum((int64) RelationGetNumberOfBlocks(store) * BLCKSZ);
	nulls[6] = false;
	values[7] = BoolGetDatum(storeid == current);
	nulls[7] = false;
	relation_close(store, AccessShareLock);
	return true;
}

/*
 * testenv_snapshots() -> SETOF (name, label, created_at, tables, sequences,
 *	pages, bytes, is_current, restores, last_restored_at, last_restore_ms,
 *	slowest_restore_ms)
 *
 * The snapshots of this database; is_current is the one that testenv_restore()
 * without a name means.  A store of another version shows its name and size.
 *
 * Locks: AccessShareLock on each store.  Privileges: EXECUTE.
 */
Datum
testenv_snapshots(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	TestenvState *state = palloc(sizeof(TestenvState));
	ListCell   *cell;
	Oid			current;

	InitMaterializedSRF(fcinfo, 0);
	(void) testenv_state_read(state);
	current = testenv_current_store(state);
	foreach(cell, testenv_store_list())
	{
		Datum		values[SNAPSHOT_COLUMNS] = {0};
		bool		nulls[SNAPSHOT_COLUMNS];

		if (describe_store(lfirst_oid(cell), current, values, nulls))
			tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/*
 * testenv_is_clean(name text DEFAULT NULL) -> boolean
 *
 * Has nothing changed since the snapshot?  Changes of transactions that are
 * still open count, those of the calling one too.
 *
 * Locks: AccessShareLock on each table for a moment; one that cannot be had at
 * once counts as a change.  Privileges: EXECUTE.
 * Errors: unknown snapshot, or one of another version.
 */
Datum
testenv_is_clean(PG_FUNCTION_ARGS)
{
	char	   *name = PG_ARGISNULL(0) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(0));

	PG_RETURN_BOOL(testenv_compare(name));
}
