/*-------------------------------------------------------------------------
 *
 * restore.c
 *		A restore, from the guards to the state page.
 *
 * The order is what makes it safe:
 *
 *	1. refuse what can be refused, find and lock what changed (detect.c);
 *	2. grow files, which is what can run out of disk; make the new files of
 *	   sequences whose values sessions cache;
 *	3. if the database belonged to another snapshot, say in the state page that
 *	   it belongs to none; if catalogs go with the pages, name the transaction;
 *	4. pages, then cuts, each with maps, caches and statistics, then sequences,
 *	   then indexes that the snapshot has no image of;
 *	5. what else it has no image of: new tables, catalogs;
 *	6. the state page: the new clean LSN.
 *
 * In 3 and 4 no interrupt is served: a cancel would release the locks and show
 * other sessions indexes that are ahead of their heaps.  New SP-GiST
 * indexes, and those of unknown access methods, are rebuilt in 5, because they
 * need interrupts to be served; a cancel there leaves them unusable.  Wherever a restore is
 * cut short, by a cancel, kill -9 or an I/O error, the state page still has the
 * old clean LSN, and the next restore finds and repairs everything.
 *
 * A restore is immediate: like TRUNCATE it is not undone by looking at it from
 * an older snapshot, and like setval not by ROLLBACK.  So its commit need not
 * wait for the disk: nothing durable depends on it.
 *
 * Locks: see detect.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_am.h"
#include "catalog/pg_largeobject_metadata.h"
#include "miscadmin.h"
#include "replication/syncrep.h"
#include "storage/lmgr.h"
#include "storage/predicate.h"
#include "storage/procarray.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "testenv.h"

/* Move the clean LSN of a database in which nothing changes when it lags so much. */
#define CLEAN_LSN_LAG (256 * 1024)

typedef void (*RestoreStep) (TestenvRestore *restore, int entry);

/* Run a step for every table that is locked. */
static void
for_each_table(TestenvRestore *restore, RestoreStep step)
{
	int			i;

	for (i = 0; i < restore->nroots; i++)
		if (restore->dir->entries[restore->roots[i]].kind != TESTENV_SEQUENCE)
			step(restore, restore->roots[i]);
}

/*
 * The changes of our own transaction are in no commit record yet, and a
 * rollback would undo them on pages that we have replaced.
 */
static void
refuse_written_transaction(void)
{
	if (TransactionIdIsValid(GetTopTransactionIdIfAny()))
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("cannot restore a snapshot in a transaction that has already written"),
				 errdetail("This transaction has been assigned an id, by a change of its own or by an earlier restore."),
				 errhint("Call testenv_restore() first in a transaction, or outside of one.")));
}

/* Refuse tables that this session uses; tell serializable transactions. */
static void
check_table_unused(TestenvRestore *restore, int entry)
{
	Relation	rel = table_open(restore->mapping->targets[entry].relid, AccessShareLock);

	testenv_guard_unused(rel, "restore");
	CheckTableForSerializableConflictIn(rel);
	table_close(rel, NoLock);
}

/*
 * The same for tables that were made since and will be emptied, and the one
 * part of putting sequences back that can run out of disk.
 */
static void
prepare_others(TestenvRestore *restore)
{
	int			i;

	for (i = 0; restore->any_new && i < restore->mapping->nnew_tables; i++)
	{
		Relation	rel;

		if (!restore->new_locked[i])
			continue;
		rel = table_open(restore->mapping->new_tables[i], AccessShareLock);
		testenv_guard_unused(rel, "restore");
		CheckTableForSerializableConflictIn(rel);
		table_close(rel, NoLock);
	}
	for (i = 0; i < restore->nroots; i++)
		if (restore->dir->entries[restore->roots[i]].kind == TESTENV_SEQUENCE)
			testenv_sequence_prepare(restore, restore->roots[i]);
}

/* Count a table of which anything was put back. */
static void
count_table(TestenvRestore *restore, int entry)
{
	TestenvDirectory *dir = restore->dir;
	int			last = entry + dir->entries[entry].nchildren;
	bool		wrote = restore->mapping->targets[entry].ispopulated !=
		((dir->entries[entry].flags & TESTENV_POPULATED) != 0);
	int			i;

	for (i = entry; i <= last && !wrote; i++)
	{
		const TestenvChange *change = testenv_change_of(restore->changes, i);

		wrote = change != NULL && change->wrote;
	}
	if (wrote && !(dir->entries[entry].flags & TESTENV_CATALOG))
		restore->ntables++;
}

static void
put_sequences(TestenvRestore *restore)
{
	int			i;

	for (i = 0; i < restore->nroots; i++)
	{
		if (restore->dir->entries[restore->roots[i]].kind != TESTENV_SEQUENCE)
			continue;
		testenv_sequence_putback(restore, restore->roots[i]);
		restore->nsequences++;
		restore->npages++;
	}
}

/* Can an index be built while interrupts are held?  SP-GiST needs them served. */
static bool
builds_in_one_go(Oid relam)
{
	return relam == BTREE_AM_OID || relam == HASH_AM_OID || relam == GIN_AM_OID ||
		relam == GIST_AM_OID || relam == BRIN_AM_OID;
}

/* Rebuild the indexes that the snapshot has no image of: of one sort or the other. */
static void
rebuild_new_indexes(TestenvRestore *restore, bool in_one_go)
{
	TestenvDirectory *dir = restore->dir;
	int			i;
	int			r;

	for (i = 0; i < restore->mapping->nnew_indexes; i++)
	{
		const TestenvCatalogIndex *index = &restore->mapping->new_indexes[i];

		if (builds_in_one_go(index->relam) != in_one_go)
			continue;
		for (r = 0; r < restore->nroots; r++)
		{
			int			root = restore->roots[r];
			uint32		k;

			for (k = root; k <= root + dir->entries[root].nchildren; k++)
				if (dir->entries[k].kind != TESTENV_INDEX &&
					restore->mapping->targets[k].relid == index->tableid)
				{
					testenv_rebuild_index(restore, index);
					restore->rebuilt_index = true;
				}
		}
	}
}

/* Empty the tables that were made since, and say so. */
static void
empty_new_tables(TestenvRestore *restore)
{
	StringInfoData list;
	int			count = 0;
	int			i;

	if (!restore->any_new)
		return;
	initStringInfo(&list);
	for (i = 0; i < restore->mapping->nnew_tables; i++)
	{
		Oid			relid = restore->mapping->new_tables[i];
		bool		emptied;

		if (!restore->new_locked[i])
			continue;
		HOLD_INTERRUPTS();
		emptied = testenv_empty_table(relid);
		RESUME_INTERRUPTS();
		if (!emptied)
			continue;
		restore->wal.contiguous = false;
		appendStringInfo(&list, "%s%s", count++ > 0 ? ", " : "",
						 testenv_relation_name(relid));
	}
	if (count > 0)
		ereport(NOTICE,
				(errmsg_plural("emptied %d table that was made after the snapshot",
							   "emptied %d tables that were made after the snapshot",
							   count, count),
				 errdetail("%s", list.data),
				 errhint("testenv.new_tables decides what happens to such tables.")));
}

static void
warn_lost_indexes(const TestenvRestore *restore)
{
	ListCell   *cell;

	foreach(cell, restore->mapping->lost_indexes)
		ereport(WARNING,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("index %s of snapshot \"%s\" is gone", (char *) lfirst(cell), restore->name),
				 errdetail("A restore puts data back, but does not undo DROP INDEX."),
				 errhint("Create the index again, or take the snapshot again.")));
}

/*
 * The position at which the database was equal to the snapshot.  If all WAL
 * since the last look is our own, that is now; else it was before the last look.
 * The next restore then meets our own pages, which the detector that reads knows
 * by their mark; the one that looks would have to compare them, and take a new
 * index for one that was not rebuilt.  So there it is looked once more whether
 * the rest is still unchanged.
 */
static XLogRecPtr
new_clean_lsn(TestenvRestore *restore)
{
	XLogRecPtr	now = GetXLogInsertRecPtr();

	if (restore->wal.contiguous && restore->wal.end == now)
		return now;
	if ((restore->detector == TESTENV_DETECT_LOOK || restore->rebuilt_index) &&
		restore->nroots > 0 && testenv_still_clean(restore))
		return now;
	return restore->look_lsn;
}

/* List what has another relfilenumber than in the snapshot. */
static void
add_overrides(const TestenvRestore *restore, TestenvState *state)
{
	const TestenvMapping *mapping = restore->mapping;
	int			i;

	for (i = 0; i < mapping->nmoved && i < TESTENV_MAX_OVERRIDES; i++)
	{
		TestenvOverride *override = &state->overrides[state->head.noverrides++];

		override->entry = mapping->moved[i];
		override->relfilenumber = mapping->targets[mapping->moved[i]].locator.relNumber;
	}
}

static void
write_state(TestenvRestore *restore, XLogRecPtr clean_lsn)
{
	TestenvDirectory *dir = restore->dir;
	TestenvState *state = MemoryContextAlloc(restore->context, sizeof(TestenvState));

	testenv_state_init(state, &restore->state);
	state->head.current = dir->storeid;
	state->head.current_id = dir->header.id;
	state->head.restore_number++;
	if (restore->freespace_known)
		testenv_freespace_known(&state->head);
	if (restore->wrote_catalogs)
		state->head.full_xid = U64FromFullTransactionId(GetTopFullTransactionId());
	if (!restore->owner_lost)
	{
		state->head.owner = dir->storeid;
		state->head.owner_id = dir->header.id;
		state->head.clean_lsn = clean_lsn;
		add_overrides(restore, state);
	}
	testenv_state_write(state);
	testenv_own_wal_note(&restore->wal);
	if (restore->wal.contiguous && clean_lsn > restore->look_lsn && !restore->owner_lost)
		testenv_mapping_see(state->head.owner_id, state->head.restore_number, restore->wal.end);
	pfree(state);
}

/* Is the catalog of large objects among what is put back? */
static bool
large_objects_locked(const TestenvRestore *restore)
{
	int			i;

	for (i = 0; i < restore->nroots; i++)
		if (restore->mapping->targets[restore->roots[i]].relid == LargeObjectMetadataRelationId)
			return true;
	return false;
}

/*
 * Would a commit wait, for the disk or for a standby?  Where it would not, it
 * only writes the WAL out, which costs less than to wake the WAL writer for it.
 */
static bool
commit_would_wait(void)
{
	return enableFsync || (SyncRepStandbyNames != NULL && SyncRepStandbyNames[0] != '\0');
}

/*
 * What the next restore must know if this one is cut short among the pages:
 * that the database belongs to no snapshot, and that catalogs may lack what
 * goes with pages that are back.
 */
static void
announce(TestenvRestore *restore)
{
	TestenvStateHead *head = &restore->state.head;
	bool		other_owner = head->owner_id != 0 &&
		head->owner_id != restore->dir->header.id;

	if (restore->wrote_catalogs || large_objects_locked(restore))
		head->full_xid = U64FromFullTransactionId(GetTopFullTransactionId());
	else if (!other_owner)
		return;
	if (other_owner)
		testenv_state_disown(&restore->state);
	else
		testenv_state_write(&restore->state);
}

/*
 * What the snapshot has images of, and the indexes that go with it: until it is
 * all back, nothing may stop us.
 */
static void
put_images_back(TestenvRestore *restore)
{
	HOLD_INTERRUPTS();
	announce(restore);
	testenv_own_wal_note(&restore->wal);
	for_each_table(restore, testenv_putback_pages);
	testenv_clock(restore, TESTENV_STEP_PAGES);
	testenv_putback_cuts(restore);
	for_each_table(restore, count_table);
	testenv_clock(restore, TESTENV_STEP_CUT);
	put_sequences(restore);
	testenv_clock(restore, TESTENV_STEP_SEQUENCES);
	rebuild_new_indexes(restore, true);
	RESUME_INTERRUPTS();
}

/* What it has none of, and what is in catalogs. */
static void
put_rest_back(TestenvRestore *restore)
{
	rebuild_new_indexes(restore, false);
	empty_new_tables(restore);
	if ((restore->redo || large_objects_locked(restore)) &&
		testenv_largeobject_dependencies())
		restore->wrote_catalogs = true;
}

/* At DEBUG1: where the time went. */
static void
report_steps(const TestenvRestore *restore)
{
	static const char *const names[TESTENV_STEPS] = {
		"open", "find", "lock", "collect", "prepare", "pages", "cut",
		"sequences", "rest", "state"
	};
	StringInfoData line;
	int			i;

	if (!message_level_is_interesting(DEBUG1))
		return;
	initStringInfo(&line);
	for (i = 0; i < TESTENV_STEPS; i++)
		appendStringInfo(&line, "%s%s %.0f", i > 0 ? ", " : "", names[i],
						 INSTR_TIME_GET_DOUBLE(restore->steps[i]) * 1e6);
	ereport(DEBUG1,
			(errmsg_internal("microseconds of the restore: %s", line.data)));
	pfree(line.data);
}

/*
 * Put the database back to a snapshot; name NULL is the one last taken or
 * restored.  What was done is left in *restore.
 *
 * Privileges: none but EXECUTE on the SQL function.
 * Errors: see doc/reference.md.  A refusal comes before a page is touched; what
 * can fail later is the disk itself, and an index that is rebuilt (putback.c).
 */
void
testenv_run_restore(const char *name, bool terminate, TestenvRestore *restore)
{
	TestenvWait wait = {0};
	instr_time	took;
	bool		work;

	memset(restore, 0, sizeof(*restore));
	INSTR_TIME_SET_CURRENT(restore->began);
	restore->clock = restore->began;
	testenv_guard("restore");
	refuse_written_transaction();
	wait.terminate = terminate;
	testenv_lock_extension(&wait, "restore");
	testenv_close_large_objects();
	testenv_open_snapshot(restore, name, "restore");
	restore->wait = wait;
	restore->wait.wal = &restore->wal;
	restore->wal.mark.magic = TESTENV_MARK_MAGIC;
	restore->wal.mark.owner_id = restore->dir->header.id;
	restore->wal.mark.restore_number = restore->state.head.restore_number + 1;
	restore->wal.mark.database = MyDatabaseId;

	testenv_clock(restore, TESTENV_STEP_OPEN);
	testenv_find_changes(restore);
	for_each_table(restore, check_table_unused);
	warn_lost_indexes(restore);
	if (restore->nroots > 0)
		restore->room = testenv_batch_room();
	restore->alone = CountDBBackends(MyDatabaseId) <= 1;
	prepare_others(restore);
	for_each_table(restore, testenv_putback_grow);
	testenv_clock(restore, TESTENV_STEP_PREPARE);
	testenv_verify_freespace(restore);

	work = restore->nroots > 0 || restore->any_new;
	if (work)
		put_images_back(restore);
	put_rest_back(restore);
	testenv_clock(restore, TESTENV_STEP_REST);
	if (work || !restore->speaks || restore->redo || restore->verify_freespace ||
		restore->look_lsn - restore->state.head.clean_lsn > CLEAN_LSN_LAG)
		write_state(restore, new_clean_lsn(restore));
	else
		testenv_mapping_see(restore->state.head.owner_id,
							restore->state.head.restore_number, restore->look_lsn);
	testenv_clock(restore, TESTENV_STEP_STATE);
	took = restore->clock;
	INSTR_TIME_SUBTRACT(took, restore->began);
	testenv_store_count_restore(restore->store, INSTR_TIME_GET_MILLISEC(took));
	report_steps(restore);

	if (testenv_check_detector)
		testenv_check_pages(restore);

	if (!restore->wrote_catalogs && commit_would_wait())
		XactLastRecEnd = InvalidXLogRecPtr;
	relation_close(restore->store, NoLock);
}

/*
 * Is the database equal to a snapshot?  Reads only; needs neither the guards
 * nor the extension's lock.
 */
bool
testenv_compare(const char *name)
{
	TestenvRestore restore = {0};
	bool		differs;

	testenv_open_snapshot(&restore, name, "compare with");
	differs = testenv_differs(&restore);
	relation_close(restore.store, AccessShareLock);
	MemoryContextDelete(restore.scratch);
	return !differs;
}
