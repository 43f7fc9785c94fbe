/*-------------------------------------------------------------------------
 *
 * detect.c
 *		Finds out which tables changed since a snapshot, and locks them.
 *
 * A restore has to be one point in time although it locks changed tables only:
 * look at every table, lock those that changed, look again at the others, and
 * so on until a pass finds nothing new.  At the start of that pass every table
 * that is not locked was equal to the snapshot, and every other one cannot be
 * written by anybody else.
 *
 * Everything that can refuse the restore is found here, before a page is
 * touched.
 *
 * This file is the seam between detectors and the rest: it fills the set of
 * changes (changes.c) by asking one of them.  One reads the WAL since the clean
 * LSN (waldetect.c), the other looks at every table (look.c).  The first costs
 * what was written, by whomever in the cluster, the second what there is; the
 * one that is estimated to be cheaper is asked.  Where the WAL has no answer,
 * everything is looked at.
 *
 * Locks: in each round, changed tables (AccessExclusiveLock) and sequences
 * (RowExclusiveLock; AccessExclusiveLock where sessions cache values) in the
 * order of OIDs; then TOAST tables, which autovacuum visits without their
 * table, and indexes, with ShareLock those whose access method writes to them
 * without the table's lock (gin_clean_pending_list).  All stay until the end
 * of the transaction.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "catalog/pg_am.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "testenv.h"

/* What the detectors cost: nanoseconds for what they go through. */
#define READ_NS_PER_BYTE 0.18
#define LOOK_NS_PER_TABLE 15000.0
#define LOOK_NS_PER_INDEX_PAGE 300.0
#define LOOK_NS_PER_INDEX_PAGE_READ 2500.0	/* more of them than shared buffers keep */
#define FLUSH_NS 1000000.0

/* How often the detectors may disagree because somebody else writes */
#define MAX_TRIES 20

/*
 * Open a snapshot by name, or the one last taken or restored.  Sets up what
 * everything that follows needs, in a struct that is all zero.
 */
void
testenv_open_snapshot(TestenvRestore *restore, const char *name, const char *verb)
{
	Oid			storeid;

	restore->context = CurrentMemoryContext;
	restore->scratch = AllocSetContextCreate(CurrentMemoryContext, "testenv relation",
											 ALLOCSET_DEFAULT_SIZES);
	(void) testenv_state_read(&restore->state);

	if (name == NULL)
	{
		storeid = testenv_current_store(&restore->state);
		if (!OidIsValid(storeid))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("there is no snapshot to %s", verb),
					 errdetail("%s", testenv_store_names()),
					 errhint("Use testenv_snapshot() once the database is seeded.")));
	}
	else
	{
		testenv_guard_name(name);
		storeid = testenv_store_required(name);
	}
	restore->store = relation_open(storeid, AccessShareLock);
	restore->name = pstrdup(testenv_store_snapshot_name(storeid));
	restore->dir = testenv_store_load(restore->store, verb);
	restore->redo = testenv_state_lost_catalogs(&restore->state);
	restore->speaks = testenv_state_speaks_of(&restore->state, restore->dir);
	restore->changes = testenv_changes_create(restore->context);
	restore->locked = MemoryContextAllocExtended(restore->context,
												 (Size) restore->dir->header.nentries + 1,
												 MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	restore->by_look = MemoryContextAllocExtended(restore->context,
												  (Size) restore->dir->header.nentries + 1,
												  MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	restore->noted = MemoryContextAllocExtended(restore->context,
												(Size) restore->dir->header.nentries + 1,
												MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
}

/* Refuse what cannot be put back. */
static void
refuse_changed_schema(const TestenvRestore *restore)
{
	const TestenvMapping *mapping = restore->mapping;
	StringInfoData list;
	ListCell   *cell;
	int			i;

	if (mapping->problems == NIL &&
		(testenv_new_tables != TESTENV_NEW_ERROR || mapping->nnew_tables == 0))
		return;

	initStringInfo(&list);
	foreach(cell, mapping->problems)
		appendStringInfo(&list, "%s%s", list.len > 0 ? "\n" : "", (char *) lfirst(cell));
	if (testenv_new_tables == TESTENV_NEW_ERROR)
		for (i = 0; i < mapping->nnew_tables; i++)
			appendStringInfo(&list, "%s%s was created", list.len > 0 ? "\n" : "",
							 testenv_relation_name(mapping->new_tables[i]));
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("cannot restore snapshot \"%s\": the schema has changed since",
					restore->name),
			 errdetail("%s", list.data),
			 errhint("Undo those changes, or bring the database to the wanted state and take the snapshot again.")));
}

static LOCKMODE
index_lock(Oid relam)
{
	switch (relam)
	{
		case BTREE_AM_OID:
		case HASH_AM_OID:
		case GIST_AM_OID:
		case SPGIST_AM_OID:
		case BRIN_AM_OID:
			return AccessShareLock;
		default:
			return ShareLock;
	}
}

/* A list of locks that grows. */
typedef struct LockList
{
	int			n;
	int			max;
	TestenvLock *locks;
} LockList;

static void
add_lock(LockList *list, Oid relid, LOCKMODE mode)
{
	if (list->n >= list->max)
	{
		list->max = Max(64, 2 * list->max);
		list->locks = list->locks == NULL ?
			MemoryContextAllocHuge(CurrentMemoryContext, sizeof(TestenvLock) * (Size) list->max) :
			repalloc_huge(list->locks, sizeof(TestenvLock) * (Size) list->max);
	}
	list->locks[list->n].relid = relid;
	list->locks[list->n++].mode = mode;
}

/* The indexes of a table that will be built anew. */
static void
add_index_locks(LockList *list, TestenvCatalog *catalog, Oid tableid)
{
	int			i;

	for (i = testenv_catalog_first_index(catalog, tableid);
		 i < catalog->nindexes && catalog->indexes[i].tableid == tableid; i++)
		add_lock(list, catalog->indexes[i].indexid, AccessExclusiveLock);
}

/* What belongs to tables that were made since, and to be emptied. */
static void
add_new_tables_locks(TestenvRestore *restore, LockList *list)
{
	TestenvCatalog *catalog = testenv_catalog();
	int			i;

	for (i = 0; i < restore->mapping->nnew_tables; i++)
	{
		Oid			relid = restore->mapping->new_tables[i];
		const TestenvCatalogRel *rel = testenv_catalog_rel(catalog, relid);

		if (restore->new_locked[i] != TESTENV_NEW_LOCKED || rel == NULL)
			continue;
		restore->new_locked[i] = TESTENV_NEW_ALL_LOCKED;
		add_index_locks(list, catalog, relid);
		if (OidIsValid(rel->toastrelid))
		{
			add_lock(list, rel->toastrelid, AccessExclusiveLock);
			add_index_locks(list, catalog, rel->toastrelid);
		}
	}
}

/*
 * What belongs to one table that is locked.  A TOAST table that the WAL does
 * not name is as it was, and autovacuum cannot change that without a record.
 */
static void
add_children_locks(TestenvRestore *restore, int root, LockList *list)
{
	TestenvDirectory *dir = restore->dir;
	bool		all = restore->detector == TESTENV_DETECT_LOOK || restore->by_look[root];
	int			last = root + dir->entries[root].nchildren;
	int			i;
	int			k;

	for (i = root + 1; i <= last; i++)
	{
		const TestenvEntry *entry = &dir->entries[i];
		Oid			relid = restore->mapping->targets[i].relid;

		if (entry->kind == TESTENV_TOAST && !all)
		{
			for (k = i; k <= last && testenv_change_of(restore->changes, k) == NULL; k++)
				;
			if (k > last)
				return;
		}
		if (restore->locked[i] || !OidIsValid(relid))
			continue;
		restore->locked[i] = true;
		add_lock(list, relid, entry->kind == TESTENV_TOAST ?
				 AccessExclusiveLock : index_lock(entry->relam));
	}
}

/*
 * Lock what belongs to the tables that are locked, if it is not yet.  True if
 * there was anything to lock.
 */
static bool
lock_children(TestenvRestore *restore)
{
	LockList	list = {0};
	int			i;

	/* a TOAST table may have been exchanged while the table was waited for */
	if (!testenv_mapping_is_current(restore->mapping))
		return true;
	for (i = 0; i < restore->nroots; i++)
		add_children_locks(restore, restore->roots[i], &list);
	add_new_tables_locks(restore, &list);
	if (list.n == 0)
		return false;
	testenv_lock_relations(list.locks, list.n, &restore->wait, "restore");
	pfree(list.locks);
	return true;
}

/* Does a heap have any page?  Nobody can tell of one that somebody locks. */
static bool
heap_has_pages(Oid relid, Oid *toastid)
{
	bool		filled;
	Relation	rel;

	if (!ConditionalLockRelationOid(relid, AccessShareLock))
		return true;
	rel = try_relation_open(relid, NoLock);
	filled = rel != NULL && RelationGetNumberOfBlocks(rel) > 0;
	*toastid = rel != NULL ? rel->rd_rel->reltoastrelid : InvalidOid;
	if (rel != NULL)
		relation_close(rel, NoLock);
	UnlockRelationOid(relid, AccessShareLock);
	return filled;
}

/*
 * Does a table that is not in the snapshot hold anything?  Its TOAST table may,
 * if VACUUM has been at one of the two only.
 */
bool
testenv_new_table_filled(Oid relid)
{
	Oid			toastid = InvalidOid;
	Oid			none;

	return heap_has_pages(relid, &toastid) ||
		(OidIsValid(toastid) && heap_has_pages(toastid, &none));
}

/* A table or sequence that changed: it is locked next. */
static void
add_root(TestenvRestore *restore, int entry, bool by_look, LockList *list)
{
	const TestenvEntry *e = &restore->dir->entries[entry];

	restore->locked[entry] = true;
	restore->noted[entry] = true;
	restore->by_look[entry] = by_look;
	if (restore->nroots == restore->maxroots)
	{
		restore->maxroots = Max(64, 2 * restore->maxroots);
		restore->roots = restore->roots == NULL ?
			MemoryContextAlloc(restore->context, sizeof(int) * restore->maxroots) :
			repalloc_huge(restore->roots, sizeof(int) * (Size) restore->maxroots);
	}
	restore->roots[restore->nroots++] = entry;
	add_lock(list, restore->mapping->targets[entry].relid,
			 e->kind == TESTENV_SEQUENCE && !(e->flags & TESTENV_CACHED_SEQ) ?
			 RowExclusiveLock : AccessExclusiveLock);
}

/* Look at one table or sequence; false if the catalogs changed meanwhile. */
static bool
look_root(TestenvRestore *restore, int entry, LockList *list)
{
	TestenvLook look;

	CHECK_FOR_INTERRUPTS();
	if (restore->locked[entry])
		return true;
	/* a standby has no file of it */
	if (RecoveryInProgress() &&
		restore->dir->entries[entry].relpersistence == RELPERSISTENCE_UNLOGGED)
		return true;
	look = testenv_look_root(restore, entry);
	if (look == TESTENV_CHANGED)
		add_root(restore, entry, true, list);
	return look != TESTENV_STALE;
}

/* Tables that were made since, and hold something, are emptied. */
static void
look_new_tables(TestenvRestore *restore, LockList *list)
{
	TestenvMapping *mapping = restore->mapping;
	int			i;

	if (testenv_new_tables == TESTENV_NEW_KEEP)
		return;
	for (i = 0; i < mapping->nnew_tables; i++)
	{
		if (restore->new_locked[i] != TESTENV_NEW_UNLOCKED ||
			!testenv_new_table_filled(mapping->new_tables[i]))
			continue;
		restore->new_locked[i] = TESTENV_NEW_LOCKED;
		restore->any_new = true;
		add_lock(list, mapping->new_tables[i], AccessExclusiveLock);
	}
}

/*
 * Look at everything that is not locked.  Adds what has to be locked to the
 * list; false if the catalogs changed meanwhile.
 */
static bool
look_once(TestenvRestore *restore, LockList *list)
{
	TestenvDirectory *dir = restore->dir;
	uint32		entry;

	for (entry = 0; entry < dir->header.nentries; entry += 1 + dir->entries[entry].nchildren)
	{
		if (!look_root(restore, entry, list))
			return false;
		if (restore->comparing && list->n > 0)
			return true;
	}
	look_new_tables(restore, list);
	return true;
}

/*
 * Whoever holds AccessExclusiveLock on a table is about to change it, and
 * nothing may have been written yet: TRUNCATE and ALTER TABLE make new files,
 * DROP waits for the commit.  It is waited for, or it would land in the next
 * test.  (What has no transaction id has changed nothing.)
 */
static void
find_exclusive_locks(TestenvRestore *restore, LockList *list)
{
	ListCell   *cell;

	foreach(cell, restore->exclusive)
	{
		int			root = lfirst_int(cell);
		Oid			relid = restore->mapping->targets[root].relid;

		if (restore->locked[root])
			continue;
		if (ConditionalLockRelationOid(relid, AccessShareLock))
			UnlockRelationOid(relid, AccessShareLock);
		else
			add_root(restore, root, true, list);
	}
	list_free(restore->exclusive);
	restore->exclusive = NIL;
}

/*
 * Read on in the WAL.  A table that it names may be equal to the snapshot all
 * the same: it is locked only if it is not.
 */
static bool
read_once(TestenvRestore *restore, LockList *list)
{
	TestenvMapping *mapping = restore->mapping;
	int			i;

	testenv_wal_beside(restore);
	find_exclusive_locks(restore, list);
	for (i = 0; i < mapping->nlooked; i++)
		if (!look_root(restore, mapping->looked[i], list))
			return false;
	while (restore->pending != NIL)
	{
		int			root = llast_int(restore->pending);
		TestenvLook look = TESTENV_CHANGED;

		CHECK_FOR_INTERRUPTS();
		if (!restore->locked[root])
		{
			look = testenv_look_changes(restore, root);
			if (look == TESTENV_STALE)
				return false;
			if (look == TESTENV_CHANGED)
				add_root(restore, root, false, list);
			else
				restore->noted[root] = false;
		}
		restore->pending = list_delete_last(restore->pending);
	}
	look_new_tables(restore, list);
	return true;
}

/* Ask the detector what has changed besides what is locked. */
static bool
find_once(TestenvRestore *restore, LockList *list)
{
	const char *problem;

	if (restore->detector == TESTENV_DETECT_LOOK)
		return look_once(restore, list);

	problem = testenv_wal_read(restore, restore->read_to, restore->look_lsn);
	restore->read_to = restore->look_lsn;
	if (problem == NULL)
		return read_once(restore, list);
	ereport(DEBUG1,
			(errmsg_internal("looking at every table: %s", problem)));
	restore->detector = TESTENV_DETECT_LOOK;
	return look_once(restore, list);
}

static int
compare_locks(const void *a, const void *b)
{
	Oid			x = ((const TestenvLock *) a)->relid;
	Oid			y = ((const TestenvLock *) b)->relid;

	return x < y ? -1 : x > y;
}

static int
compare_entries(const void *a, const void *b)
{
	return *(const int *) a - *(const int *) b;
}

/*
 * Map again; what is kept by position in the mapping starts anew with it, and
 * what belongs to a table may be something else.
 */
static void
map_again(TestenvRestore *restore)
{
	TestenvMapping *mapping = testenv_mapping(restore->dir);
	int			i;
	uint32		k;

	if (restore->new_locked == NULL || restore->new_generation != mapping->generation)
	{
		/* a table that is locked already is locked once more, at no cost */
		restore->new_locked = MemoryContextAllocZero(restore->context,
													 mapping->nnew_tables + 1);
		restore->new_generation = mapping->generation;
		for (i = 0; i < restore->nroots; i++)
			for (k = 1; k <= restore->dir->entries[restore->roots[i]].nchildren; k++)
				restore->locked[restore->roots[i] + k] = false;
	}
	restore->mapping = mapping;
}

static XLogRecPtr
wal_position(void)
{
	return RecoveryInProgress() ? GetXLogReplayRecPtr(NULL) : GetXLogInsertRecPtr();
}

/*
 * Where the WAL ends, before looking.  If nobody else has written since the
 * last time, there is nothing to read: our locks are logged too.
 */
static void
take_position(TestenvRestore *restore)
{
	XLogRecPtr	now = wal_position();

	if (restore->wal.contiguous && restore->wal.end == now)
		restore->read_to = now;
	else
		testenv_own_wal_start(&restore->wal, now);
	restore->look_lsn = now;
}

/*
 * Which detector is cheaper?  The figures are those of doc/performance.md,
 * rounded; a wrong guess costs time only.
 */
static void
choose_detector(TestenvRestore *restore)
{
	const TestenvMapping *mapping = restore->mapping;
	XLogRecPtr	from = testenv_mapping_seen(&restore->state);
	XLogRecPtr	now = wal_position();
	double		read = now > from ? (double) (now - from) * READ_NS_PER_BYTE : 0;
	double		look = (double) mapping->nroots * LOOK_NS_PER_TABLE +
		(double) mapping->weight * (testenv_indexes_are_cached(mapping) ?
									LOOK_NS_PER_INDEX_PAGE : LOOK_NS_PER_INDEX_PAGE_READ);

	/* looking needs no WAL on the disk */
	if (now > from && enableFsync && GetXLogWriteRecPtr() < testenv_lsn_end(now))
		read += FLUSH_NS;
	if (!restore->speaks || restore->redo || RecoveryInProgress())
		restore->detector = TESTENV_DETECT_LOOK;
	else if (testenv_detector != TESTENV_DETECT_AUTO)
		restore->detector = testenv_detector;
	else
		restore->detector = read <= look ? TESTENV_DETECT_WAL : TESTENV_DETECT_LOOK;
	restore->read_to = from;
}

/* Collect the blocks that may differ, of everything that is locked. */
static void
collect(TestenvRestore *restore)
{
	int			i;

	if (restore->nroots > 1)
		qsort(restore->roots, restore->nroots, sizeof(int), compare_entries);
	for (i = 0; i < restore->nroots; i++)
	{
		int			root = restore->roots[i];

		if (restore->dir->entries[root].kind == TESTENV_SEQUENCE)
			continue;
		if (restore->detector == TESTENV_DETECT_LOOK || restore->by_look[root])
			testenv_look_blocks(restore, root);
		else
			testenv_wal_collect(restore, root);
	}
}

/*
 * For testenv.check_detector: does looking find a change that the WAL did not
 * name?  Somebody else's change is in the WAL by the next time.
 */
static bool
detectors_agree(TestenvRestore *restore, int tries)
{
	TestenvDirectory *dir = restore->dir;
	bool		agree = true;
	uint32		entry;

	restore->checking = true;
	for (entry = 0; agree && entry < dir->header.nentries; entry += 1 + dir->entries[entry].nchildren)
	{
		Oid			relid = restore->mapping->targets[entry].relid;

		if (restore->locked[entry] || !ConditionalLockRelationOid(relid, AccessShareLock))
			continue;
		agree = testenv_look_root(restore, entry) == TESTENV_CLEAN;
		UnlockRelationOid(relid, AccessShareLock);
		if (!agree && tries >= MAX_TRIES)
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("the write-ahead log does not name what changed in %s",
							testenv_relation_name(relid)),
					 errdetail("Looking at the table finds a difference to snapshot \"%s\"; nothing was put back.",
							   restore->name),
					 errhint("This is a bug in testenv: please report it. With testenv.detector = look the restore works.")));
	}
	restore->checking = false;
	if (!agree)
		pg_usleep(10000L);
	return agree;
}

/*
 * Lock every table and sequence that changed, until nothing new is found; then
 * collect the blocks that may differ.
 */
void
testenv_find_changes(TestenvRestore *restore)
{
	int			tries = 0;

	map_again(restore);
	choose_detector(restore);
	for (;;)
	{
		LockList	list = {0};
		bool		stable;
		bool		children;

		map_again(restore);
		refuse_changed_schema(restore);
		take_position(restore);
		stable = find_once(restore, &list);
		testenv_clock(restore, TESTENV_STEP_FIND);
		if (list.n > 0)
		{
			qsort(list.locks, list.n, sizeof(TestenvLock), compare_locks);
			testenv_lock_relations(list.locks, list.n, &restore->wait, "restore");
			pfree(list.locks);
		}
		children = lock_children(restore);
		testenv_clock(restore, TESTENV_STEP_LOCK);
		if (!stable || list.n > 0 || children)
			continue;
		if (!testenv_check_detector || restore->detector != TESTENV_DETECT_WAL ||
			detectors_agree(restore, ++tries))
			break;
	}
	collect(restore);
	testenv_clock(restore, TESTENV_STEP_COLLECT);
}

/*
 * Does anything differ from the snapshot?  For a comparison: locks nothing for
 * longer than it looks at it.
 */
bool
testenv_differs(TestenvRestore *restore)
{
	LockList	list = {0};
	bool		stable = false;

	restore->comparing = true;
	map_again(restore);
	choose_detector(restore);
	while (!stable && list.n == 0)
	{
		CHECK_FOR_INTERRUPTS();
		map_again(restore);
		if (restore->mapping->problems != NIL)
			return true;
		take_position(restore);
		stable = find_once(restore, &list);
	}
	return list.n > 0;
}

/*
 * Is everything that we did not lock still equal to the snapshot?  Asked after
 * a restore, when others wrote WAL meanwhile.  The restore itself may have
 * changed catalogs, by rebuilding an index for instance, so map again.
 */
bool
testenv_still_clean(TestenvRestore *restore)
{
	TestenvDirectory *dir = restore->dir;
	uint32		entry;

	restore->mapping = testenv_mapping(dir);
	if (restore->mapping->problems != NIL)
		return false;
	for (entry = 0; entry < dir->header.nentries; entry += 1 + dir->entries[entry].nchildren)
	{
		if (restore->locked[entry])
			continue;
		if (testenv_look_root(restore, entry) != TESTENV_CLEAN)
			return false;
	}
	return true;
}
