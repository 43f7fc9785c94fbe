/*-------------------------------------------------------------------------
 *
 * waldetect.c
 *		The detector that reads the WAL: finds what changed by what was logged.
 *
 * At the clean LSN the database was equal to the snapshot.  Whatever has
 * changed since is named in the WAL, block by block, so what a restore costs
 * follows what was written and not what there is.  A block that is named may
 * be equal all the same; one that is not named is, but for what follows.
 *
 * Changes without a reference to their block:
 *	- the visibility map: records of a heap clear bits for the heap's block;
 *	- storage that is replaced: the view of the catalogs has the new
 *	  relfilenumber (mapping->moved), and the relation is compared whole;
 *	- files that are cut, and may have grown again by pages that nothing names:
 *	  XLOG_SMGR_TRUNCATE.
 *
 * Changes that are not logged at all, and who finds them:
 *	- dead-item marks of indexes, beside heaps that changed: marks.c;
 *	- SP-GiST's metapage, which caches where to insert: always compared;
 *	- unlogged relations: looked at;
 *	- pages that were added to a file and never used, and free space maps,
 *	  after a crash: the end of recovery is in the WAL (and so is a restart of
 *	  the server), and then everything is looked at, once;
 *	- files that a failed statement left longer: the lengths of everything that
 *	  belongs to a changed table are compared.
 *
 * The records by which a restore put pages back carry a mark.  Those of the
 * restore that the state page speaks of put them to where they still are, so they
 * are passed over: the clean LSN cannot always be moved past them, because others
 * write WAL meanwhile.
 *
 * The WAL may be gone, cut by a crash, from another timeline, or say something
 * that is not understood here.  Then this detector says so, and everything is
 * looked at.
 *
 * Locks: none of its own; detect.c holds the extension's lock.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/rmgr.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_am.h"
#include "catalog/pg_control.h"
#include "catalog/storage_xlog.h"
#include "commands/dbcommands_xlog.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#include "testenv.h"

/* One reading of the WAL. */
typedef struct Reading
{
	TestenvRestore *restore;
	TestenvWal *wal;
	const char *problem;		/* why everything has to be looked at */

	/* a relation is mostly named many times in a row */
	RelFileLocator last;
	int			last_entry;
} Reading;

/* The entry whose storage this is, or -1. */
static int
entry_of(Reading *reading, const RelFileLocator *locator)
{
	if (!RelFileLocatorEquals(*locator, reading->last))
	{
		reading->last = *locator;
		reading->last_entry = testenv_mapping_entry(reading->restore->mapping, locator);
	}
	return reading->last_entry;
}

/* The change of an entry; its table is one to be locked. */
static TestenvChange *
touch(TestenvRestore *restore, int entry)
{
	int			root = restore->mapping->root_of[entry];

	if (!restore->noted[root])
	{
		restore->noted[root] = true;
		restore->pending = lappend_int(restore->pending, root);
	}
	return testenv_change(restore->changes, entry);
}

/* Other storage, or something about it that is not known: compare all of it. */
static void
all_may_differ(Reading *reading, const RelFileLocator *locator)
{
	int			entry;

	if (locator->dbOid != MyDatabaseId)
		return;
	entry = entry_of(reading, locator);
	if (entry >= 0)
	{
		TestenvChange *change = touch(reading->restore, entry);

		change->all = true;
		change->map = true;
	}
}

/* Commits and aborts list the files that go with them. */
static void
read_xact(Reading *reading, const TestenvWalRecord *record)
{
	uint8		op = record->info & XLOG_XACT_OPMASK;
	const char *data;
	int			i;

	if (op == XLOG_XACT_COMMIT || op == XLOG_XACT_COMMIT_PREPARED)
	{
		xl_xact_parsed_commit parsed;

		data = testenv_wal_data(reading->wal, record);
		if (data == NULL)
			return;
		ParseCommitRecord(record->info, (xl_xact_commit *) data, &parsed);
		for (i = 0; i < parsed.nrels; i++)
			all_may_differ(reading, &parsed.xlocators[i]);
	}
	else if (op == XLOG_XACT_ABORT || op == XLOG_XACT_ABORT_PREPARED)
	{
		xl_xact_parsed_abort parsed;

		data = testenv_wal_data(reading->wal, record);
		if (data == NULL)
			return;
		ParseAbortRecord(record->info, (xl_xact_abort *) data, &parsed);
		for (i = 0; i < parsed.nrels; i++)
			all_may_differ(reading, &parsed.xlocators[i]);
	}
}

static void
read_smgr(Reading *reading, const TestenvWalRecord *record)
{
	const xl_smgr_truncate *truncate;
	RelFileLocator locator;
	int			entry;

	if ((record->info & ~XLR_INFO_MASK) != XLOG_SMGR_TRUNCATE)
		return;
	truncate = (const xl_smgr_truncate *) testenv_wal_data(reading->wal, record);
	if (truncate == NULL)
		return;
	memcpy(&locator, &truncate->rlocator, sizeof(locator));
	if (locator.dbOid != MyDatabaseId)
		return;
	entry = entry_of(reading, &locator);

	/*
	 * Where what was cut had been added since the clean LSN, the records that
	 * added it name the table; where not, it was a restore that cut it.
	 */
	if (entry >= 0 && truncate->blkno < reading->restore->dir->entries[entry].nblocks)
	{
		TestenvChange *change = touch(reading->restore, entry);

		change->cut_to = change->cut ? Min(change->cut_to, truncate->blkno) : truncate->blkno;
		change->cut = true;
		change->map = true;
	}
}

/* Note a table that somebody has locked exclusively. */
static void
note_lock(TestenvRestore *restore, const xl_standby_lock *lock)
{
	int			root = testenv_lock_database(lock) == MyDatabaseId ?
		testenv_mapping_root(restore->mapping, restore->dir, lock->relOid) : -1;

	if (root >= 0 && !restore->locked[root])
		restore->exclusive = lappend_int(restore->exclusive, root);
}

/*
 * Tables that somebody has locked exclusively: not changed yet, perhaps, but
 * about to be.  Own locks are among them.
 */
static void
read_locks(Reading *reading, const TestenvWalRecord *record)
{
	const char *data = testenv_wal_data(reading->wal, record);
	const xl_standby_locks *locks = (const xl_standby_locks *) data;
	int			i;

	for (i = 0; data != NULL && i < locks->nlocks; i++)
		note_lock(reading->restore, &locks->locks[i]);
}

/* The database's OID comes first in every record of this kind. */
static void
read_database(Reading *reading, const TestenvWalRecord *record)
{
	const char *data = testenv_wal_data(reading->wal, record);
	Oid			database;

	if (data == NULL)
		return;
	memcpy(&database, data, sizeof(database));
	if (database == MyDatabaseId)
		reading->problem = "the database was moved";
}

/* Was this record written by the restore that the state page speaks of? */
static bool
is_own_record(Reading *reading, const TestenvWalRecord *record)
{
	const TestenvStateHead *head = &reading->restore->state.head;
	TestenvMark mark;
	const char *data;

	if (record->datalen != sizeof(mark) || record->nblocks == 0)
		return false;
	data = testenv_wal_data(reading->wal, record);
	if (data == NULL)
		return false;
	memcpy(&mark, data, sizeof(mark));
	return mark.magic == TESTENV_MARK_MAGIC &&
		mark.database == MyDatabaseId &&
		mark.owner_id == head->owner_id &&
		mark.restore_number == head->restore_number;
}

static void
read_blocks(Reading *reading, const TestenvWalRecord *record)
{
	TestenvRestore *restore = reading->restore;
	int			i;

	for (i = 0; i < record->nblocks; i++)
	{
		const TestenvWalBlock *named = &record->blocks[i];
		int			entry = entry_of(reading, &named->locator);
		TestenvChange *change;

		if (entry < 0)
			continue;
		if (named->fork != MAIN_FORKNUM && named->fork != VISIBILITYMAP_FORKNUM)
			continue;
		change = touch(restore, entry);
		change->map = true;
		if (named->fork != MAIN_FORKNUM)
			continue;
		if (record->rmid == RM_GENERIC_ID ||
			(record->rmid == RM_XLOG_ID &&
			 (record->info & ~XLR_INFO_MASK) == XLOG_FPI))
			change->imaged = true;
		testenv_change_block_any(restore->changes, change, named->block);
	}
}

static void
read_record(Reading *reading, const TestenvWalRecord *record)
{
	uint8		op = record->info & ~XLR_INFO_MASK;

	switch (record->rmid)
	{
		case RM_XACT_ID:
			read_xact(reading, record);
			return;
		case RM_SMGR_ID:
			read_smgr(reading, record);
			return;
		case RM_DBASE_ID:
			read_database(reading, record);
			return;
		case RM_STANDBY_ID:
			read_locks(reading, record);
			return;
		case RM_XLOG_ID:
			if (op == XLOG_CHECKPOINT_SHUTDOWN || op == XLOG_END_OF_RECOVERY)
				reading->problem = "the server was started since";
			else if (op == XLOG_FPI && is_own_record(reading, record))
				return;
			break;
		case RM_GENERIC_ID:
			if (is_own_record(reading, record))
				return;
			break;
		default:
			if (record->info & XLR_SPECIAL_REL_UPDATE)
				reading->problem = "a record has effects that it does not name";
			break;
	}
	read_blocks(reading, record);
}

/*
 * Make the WAL readable up to a position: written out, not necessarily to the
 * disk.  A commit that waited for the disk has done that.
 */
static void
make_readable(XLogRecPtr upto)
{
	XLogRecPtr	end = testenv_lsn_end(upto);

	if (GetXLogWriteRecPtr() < end)
		XLogFlush(end);
}

/*
 * Read the WAL between two positions and note in the set of changes what it
 * names.  Returns NULL, or why the answer has to be found by looking; then what
 * was noted so far does no harm.
 */
const char *
testenv_wal_read(TestenvRestore *restore, XLogRecPtr from, XLogRecPtr to)
{
	Reading		reading = {0};
	TestenvWalRecord record;
	const char *problem;

	if (from >= to)
		return NULL;
	make_readable(to);
	if (testenv_wal_removed(from))
		return "the WAL has been removed";

	reading.restore = restore;
	reading.last_entry = -1;
	reading.wal = testenv_wal_begin(from, to, restore->state.head.timeline);
	while (reading.problem == NULL && testenv_wal_next(reading.wal, &record))
		read_record(&reading, &record);
	problem = testenv_wal_end(reading.wal);
	restore->wal_bytes += to - from;

	if (reading.problem != NULL)
		return reading.problem;
	if (problem == NULL && testenv_wal_removed(from))
		return "the WAL has been removed";
	return problem;
}

/* Note relations whose storage is not the one that the state page speaks of. */
static void
touch_moved(TestenvRestore *restore)
{
	const TestenvMapping *mapping = restore->mapping;
	const TestenvState *state = &restore->state;
	uint32		i;

	for (i = 0; i < (uint32) mapping->nmoved + state->head.noverrides; i++)
	{
		int			entry = i < (uint32) mapping->nmoved ? mapping->moved[i] :
			(int) state->overrides[i - mapping->nmoved].entry;
		TestenvChange *change;

		if (testenv_trusted(restore, entry) ||
			restore->dir->entries[entry].relpersistence != RELPERSISTENCE_PERMANENT)
			continue;
		change = touch(restore, entry);
		change->all = true;
		change->map = true;
	}
}

/* Exclusive locks, where they are not logged: those in the lock table. */
static void
note_unlogged_locks(TestenvRestore *restore)
{
	int			n;
	xl_standby_lock *locks = GetRunningTransactionLocks(&n);
	int			i;

	for (i = 0; i < n; i++)
		note_lock(restore, &locks[i]);
	pfree(locks);
}

/*
 * Note what is not in the WAL: new storage, metapages of SP-GiST, and where
 * wal_level is minimal, exclusive locks.
 */
void
testenv_wal_beside(TestenvRestore *restore)
{
	const TestenvMapping *mapping = restore->mapping;
	int			i;

	touch_moved(restore);
	if (!XLogStandbyInfoActive())
		note_unlogged_locks(restore);
	for (i = 0; i < mapping->nmetapages; i++)
	{
		int			entry = mapping->metapages[i];

		if (OidIsValid(mapping->targets[entry].relid) &&
			!restore->locked[mapping->root_of[entry]] &&
			testenv_look_block(restore, entry, 0) != TESTENV_CLEAN)
			testenv_change_block_any(restore->changes,
									 touch(restore, entry), 0);
	}
}

/*
 * Complete the changes of one heap and its indexes, entries heap .. last, with
 * what the WAL does not name: the marks of the indexes, and that whatever
 * belongs to a heap that changed may have another length.
 */
static void
collect_heap(TestenvRestore *restore, int heap, int last)
{
	bool		touched = testenv_change_of(restore->changes, heap) != NULL &&
		OidIsValid(restore->mapping->targets[heap].relid);
	int			i;

	for (i = heap + 1; i <= last; i++)
	{
		TestenvChange *change = testenv_change_of(restore->changes, i);

		if (change == NULL && touched)
			change = testenv_change(restore->changes, i);
		if (change != NULL && restore->dir->entries[i].relam == SPGIST_AM_OID)
			testenv_change_block_any(restore->changes, change, 0);
	}
	if (touched)
	{
		MemoryContext old = MemoryContextSwitchTo(restore->scratch);

		testenv_find_marks(restore, heap, heap + 1, last);
		MemoryContextSwitchTo(old);
		MemoryContextReset(restore->scratch);
	}
	for (i = heap; i <= last; i++)
	{
		TestenvChange *change = testenv_change_of(restore->changes, i);
		BlockNumber block;

		if (change == NULL)
			continue;
		/* it may have grown again by pages that are never used, nor logged */
		for (block = change->cut_to;
			 change->cut && block < restore->dir->entries[i].nblocks; block++)
			testenv_change_block_any(restore->changes, change, block);
		testenv_change_sort(change);
	}
}

/* Complete the changes of a locked table, and of its TOAST table. */
void
testenv_wal_collect(TestenvRestore *restore, int root)
{
	TestenvDirectory *dir = restore->dir;
	int			last = root + dir->entries[root].nchildren;
	int			toast = root + 1;

	while (toast <= last && dir->entries[toast].kind != TESTENV_TOAST)
		toast++;
	collect_heap(restore, root, toast - 1);
	if (toast <= last)
		collect_heap(restore, toast, last);
}
