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
 *	4. pages, then cuts, then maps, caches and statistics, then sequences, then
 *	   indexes that the snapshot has no image of;
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
#include "storage/lmgr.h"
#include "storage/predicate.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "testenv.h"

/* Move the clean LSN of a database in which nothing changes when it lags so much. */
#define CLEAN_LSN_LAG (1024 * 1024)

typedef void (*RestoreStep) (TestenvRestore *restore, int entry);

/* Run a step for every table that is locked. */
static void
for_each_table(TestenvRestore *restore, RestoreStep step)
{
	TestenvDirectory *dir = restore->dir;
	uint32		entry;

	for (entry = 0; entry < dir->header.nentries; entry += 1 + dir->entries[entry].nchildren)
		if (restore->locked[entry] && dir->entries[entry].kind != TESTENV_SEQUENCE)
			step(restore, entry);
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
	TestenvDirectory *dir = restore->dir;
	uint32		entry;
	int			i;

	for (i = 0; i < restore->mapping->nnew_tables; i++)
	{
		Relation	rel;

		if (!restore->new_locked[i])
			continue;
		rel = table_open(restore->mapping->new_tables[i], AccessShareLock);
		testenv_guard_unused(rel, "restore");
		CheckTableForSerializableConflictIn(rel);
		table_close(rel, NoLock);
	}
	for (entry = 0; entry < dir->header.nentries; entry += 1 + dir->entries[entry].nchildren)
		if (restore->locked[entry] && dir->entries[entry].kind == TESTENV_SEQUENCE)
			testenv_sequence_prepare(restore, entry);
}

/* Put the pages of a table back, and count it if there was anything to do. */
static void
put_pages_of(TestenvRestore *restore, int entry)
{
	int			last = entry + restore->dir->entries[entry].nchildren;
	int64		before = restore->npages;
	bool		changed;
	int			i;

	testenv_putback_pages(restore, entry);
	changed = restore->npages > before ||
		restore->mapping->targets[entry].ispopulated !=
		((restore->dir->entries[entry].flags & TESTENV_POPULATED) != 0);
	for (i = entry; i <= last && !changed; i++)
	{
		const TestenvChange *change = restore->changes->by_entry[i];

		changed = change != NULL && OidIsValid(restore->mapping->targets[i].relid) &&
			(change->length != restore->dir->entries[i].nblocks ||
			 (change->map && !change->all));
	}
	if (changed && !(restore->dir->entries[entry].flags & TESTENV_CATALOG))
		restore->ntables++;
}

static void
put_sequences(TestenvRestore *restore)
{
	TestenvDirectory *dir = restore->dir;
	uint32		entry;

	for (entry = 0; entry < dir->header.nentries; entry += 1 + dir->entries[entry].nchildren)
	{
		if (dir->entries[entry].kind != TESTENV_SEQUENCE || !restore->locked[entry])
			continue;
		testenv_sequence_putback(restore, entry);
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

	for (i = 0; i < restore->mapping->nnew_indexes; i++)
	{
		const TestenvCatalogIndex *index = &restore->mapping->new_indexes[i];
		uint32		root;
		uint32		k;

		if (builds_in_one_go(index->relam) != in_one_go)
			continue;
		for (root = 0; root < dir->header.nentries; root += 1 + dir->entries[root].nchildren)
		{
			if (!restore->locked[root])
				continue;
			for (k = root; k <= root + dir->entries[root].nchildren; k++)
				if (dir->entries[k].kind != TESTENV_INDEX &&
					restore->mapping->targets[k].relid == index->tableid)
					testenv_rebuild_index(restore, index);
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
 * since the last look is our own, that is now; else it is now if a further
 * look finds the rest unchanged; else it was before the last look.
 */
static XLogRecPtr
new_clean_lsn(TestenvRestore *restore)
{
	XLogRecPtr	now = GetXLogInsertRecPtr();

	if (restore->wal.contiguous && restore->wal.end == now)
		return now;
	if (restore->any_locked && testenv_still_clean(restore))
		return now;
	return restore->look_lsn;
}

static void
write_state(TestenvRestore *restore, XLogRecPtr clean_lsn)
{
	TestenvDirectory *dir = restore->dir;
	TestenvState *state = MemoryContextAlloc(restore->context, sizeof(TestenvState));
	uint32		i;

	testenv_state_init(state, &restore->state);
	state->head.current = dir->storeid;
	state->head.current_id = dir->header.id;
	state->head.restore_number++;
	state->head.freespace_lsn = restore->freespace_lsn;
	if (restore->wrote_catalogs)
		state->head.full_xid = U64FromFullTransactionId(GetTopFullTransactionId());
	if (!restore->owner_lost)
	{
		state->head.owner = dir->storeid;
		state->head.owner_id = dir->header.id;
		state->head.clean_lsn = clean_lsn;
		for (i = 0; i < dir->header.nentries; i++)
		{
			RelFileNumber number = restore->mapping->targets[i].locator.relNumber;

			if (!OidIsValid(restore->mapping->targets[i].relid) ||
				number == dir->entries[i].relfilenumber ||
				state->head.noverrides >= TESTENV_MAX_OVERRIDES)
				continue;
			state->overrides[state->head.noverrides].entry = i;
			state->overrides[state->head.noverrides++].relfilenumber = number;
		}
	}
	testenv_state_write(state);
	pfree(state);
}

/* Is the catalog of large objects among what is put back? */
static bool
large_objects_locked(const TestenvRestore *restore)
{
	TestenvDirectory *dir = restore->dir;
	uint32		entry;

	for (entry = 0; entry < dir->header.nentries; entry += 1 + dir->entries[entry].nchildren)
		if (restore->locked[entry] &&
			restore->mapping->targets[entry].relid == LargeObjectMetadataRelationId)
			return true;
	return false;
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
	for_each_table(restore, put_pages_of);
	for_each_table(restore, testenv_putback_cut);
	for_each_table(restore, testenv_putback_finish);
	put_sequences(restore);
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
	bool		speaks;
	bool		work;
	int			i;

	testenv_guard("restore");
	refuse_written_transaction();
	wait.terminate = terminate;
	testenv_lock_extension(&wait, "restore");
	testenv_close_large_objects();
	testenv_open_snapshot(restore, name, "restore");
	restore->wait = wait;
	speaks = testenv_state_speaks_of(&restore->state, restore->dir);
	restore->verify_freespace = !speaks || testenv_freespace_is_doubtful(&restore->state);
	if (!restore->verify_freespace)
		restore->freespace_lsn = restore->state.head.freespace_lsn;

	testenv_find_changes(restore);
	for_each_table(restore, check_table_unused);
	warn_lost_indexes(restore);
	if (restore->any_locked)
		restore->room = testenv_batch_room();
	prepare_others(restore);
	for_each_table(restore, testenv_putback_grow);
	testenv_verify_freespace(restore);

	work = restore->any_locked;
	for (i = 0; i < restore->mapping->nnew_tables; i++)
		work = work || restore->new_locked[i];

	if (work)
		put_images_back(restore);
	put_rest_back(restore);
	if (work || !speaks || restore->redo || restore->verify_freespace ||
		restore->look_lsn - restore->state.head.clean_lsn > CLEAN_LSN_LAG)
		write_state(restore, new_clean_lsn(restore));
	testenv_store_count_restore(restore->store);

	if (testenv_check_detector)
		testenv_check_pages(restore);

	if (!restore->wrote_catalogs)
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
	TestenvRestore restore;
	TestenvLook look = TESTENV_STALE;

	testenv_open_snapshot(&restore, name, "compare with");
	while (look == TESTENV_STALE)
	{
		TestenvDirectory *dir = restore.dir;
		uint32		entry;
		int			i;

		CHECK_FOR_INTERRUPTS();
		restore.mapping = testenv_mapping(dir, &restore.state);
		look = restore.mapping->problems != NIL ? TESTENV_CHANGED : TESTENV_CLEAN;
		for (entry = 0;
			 look == TESTENV_CLEAN && entry < dir->header.nentries;
			 entry += 1 + dir->entries[entry].nchildren)
			look = dir->entries[entry].kind == TESTENV_SEQUENCE ?
				testenv_look_sequence(&restore, entry) :
				testenv_look_table(&restore, entry);
		if (testenv_new_tables != TESTENV_NEW_KEEP)
			for (i = 0; look == TESTENV_CLEAN && i < restore.mapping->nnew_tables; i++)
				if (testenv_new_table_filled(restore.mapping->new_tables[i]))
					look = TESTENV_CHANGED;
	}
	relation_close(restore.store, AccessShareLock);
	MemoryContextDelete(restore.scratch);
	return look == TESTENV_CLEAN;
}
