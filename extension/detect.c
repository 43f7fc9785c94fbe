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
 * changes (changes.c) by asking a detector, today look.c.
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
#include "catalog/pg_am.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "testenv.h"

/*
 * Open a snapshot by name, or the one last taken or restored.  Sets up the
 * context for everything that follows.
 */
void
testenv_open_snapshot(TestenvRestore *restore, const char *name, const char *verb)
{
	Oid			storeid;

	memset(restore, 0, sizeof(*restore));
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
	restore->changes = testenv_changes_create(restore->context,
											  restore->dir->header.nentries);
	restore->locked = MemoryContextAllocExtended(restore->context,
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

		if (!restore->new_locked[i] || rel == NULL)
			continue;
		add_index_locks(list, catalog, relid);
		if (OidIsValid(rel->toastrelid))
		{
			add_lock(list, rel->toastrelid, AccessExclusiveLock);
			add_index_locks(list, catalog, rel->toastrelid);
		}
	}
}

/* Lock what belongs to the tables that are locked. */
static void
lock_children(TestenvRestore *restore)
{
	TestenvDirectory *dir = restore->dir;
	LockList	list = {0};
	uint32		root;
	uint32		i;

	for (root = 0; root < dir->header.nentries; root += 1 + dir->entries[root].nchildren)
	{
		if (!restore->locked[root])
			continue;
		for (i = root + 1; i <= root + dir->entries[root].nchildren; i++)
		{
			Oid			relid = restore->mapping->targets[i].relid;

			if (OidIsValid(relid))
				add_lock(&list, relid, dir->entries[i].kind == TESTENV_TOAST ?
						 AccessExclusiveLock : index_lock(dir->entries[i].relam));
		}
	}
	add_new_tables_locks(restore, &list);
	if (list.n == 0)
		return;
	testenv_lock_relations(list.locks, list.n, &restore->wait, "restore");
	pfree(list.locks);
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

/*
 * Look at everything that is not locked.  Adds what has to be locked to
 * "locks"; false if the catalogs changed meanwhile.
 */
static bool
look_once(TestenvRestore *restore, TestenvLock *locks, int *nlocks)
{
	TestenvDirectory *dir = restore->dir;
	TestenvMapping *mapping = restore->mapping;
	uint32		entry;
	int			i;

	for (entry = 0; entry < dir->header.nentries; entry += 1 + dir->entries[entry].nchildren)
	{
		const TestenvEntry *e = &dir->entries[entry];
		TestenvLook look;

		CHECK_FOR_INTERRUPTS();
		if (restore->locked[entry])
			continue;
		look = e->kind == TESTENV_SEQUENCE ?
			testenv_look_sequence(restore, entry) : testenv_look_table(restore, entry);
		if (look == TESTENV_STALE)
			return false;
		if (look == TESTENV_CLEAN)
			continue;
		restore->locked[entry] = true;
		locks[*nlocks].relid = mapping->targets[entry].relid;
		locks[(*nlocks)++].mode =
			e->kind == TESTENV_SEQUENCE && !(e->flags & TESTENV_CACHED_SEQ) ?
			RowExclusiveLock : AccessExclusiveLock;
	}

	if (testenv_new_tables == TESTENV_NEW_EMPTY)
	{
		for (i = 0; i < mapping->nnew_tables; i++)
		{
			if (restore->new_locked[i] || !testenv_new_table_filled(mapping->new_tables[i]))
				continue;
			restore->new_locked[i] = true;
			locks[*nlocks].relid = mapping->new_tables[i];
			locks[(*nlocks)++].mode = AccessExclusiveLock;
		}
	}
	return true;
}

static int
compare_locks(const void *a, const void *b)
{
	Oid			x = ((const TestenvLock *) a)->relid;
	Oid			y = ((const TestenvLock *) b)->relid;

	return x < y ? -1 : x > y;
}

/* Map again; what is kept by position in the mapping starts anew with it. */
static void
map_again(TestenvRestore *restore)
{
	TestenvMapping *mapping = testenv_mapping(restore->dir, &restore->state);

	if (restore->new_locked == NULL || restore->new_generation != mapping->generation)
	{
		/* a table that is locked already is locked once more, at no cost */
		restore->new_locked = MemoryContextAllocZero(restore->context,
													 mapping->nnew_tables + 1);
		restore->new_generation = mapping->generation;
	}
	restore->mapping = mapping;
}

/*
 * Lock every table and sequence that changed, until nothing new is found; then
 * collect the blocks that may differ.
 */
void
testenv_find_changes(TestenvRestore *restore)
{
	TestenvDirectory *dir = restore->dir;
	uint32		entry;

	for (;;)
	{
		TestenvLock *locks;
		int			nlocks = 0;
		bool		stable;

		map_again(restore);
		refuse_changed_schema(restore);
		if (restore->children_generation != restore->mapping->generation)
		{
			restore->children_generation = restore->mapping->generation;
			if (restore->any_locked)
			{
				lock_children(restore);
				if (!testenv_mapping_is_current(restore->mapping))
					continue;
			}
		}

		locks = MemoryContextAllocHuge(restore->context,
									   sizeof(TestenvLock) *
									   (Size) (dir->header.nentries + restore->mapping->nnew_tables + 1));
		restore->look_lsn = GetXLogInsertRecPtr();
		testenv_own_wal_start(&restore->wal);
		stable = look_once(restore, locks, &nlocks);
		if (nlocks > 0)
		{
			qsort(locks, nlocks, sizeof(TestenvLock), compare_locks);
			testenv_lock_relations(locks, nlocks, &restore->wait, "restore");
			restore->any_locked = true;
			/* their TOAST tables and indexes are next */
			restore->children_generation = 0;
		}
		pfree(locks);
		if (stable && nlocks == 0)
			break;
	}

	for (entry = 0; entry < dir->header.nentries; entry += 1 + dir->entries[entry].nchildren)
		if (restore->locked[entry] && dir->entries[entry].kind != TESTENV_SEQUENCE)
			testenv_look_blocks(restore, entry);
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

	restore->mapping = testenv_mapping(dir, &restore->state);
	if (restore->mapping->problems != NIL)
		return false;
	for (entry = 0; entry < dir->header.nentries; entry += 1 + dir->entries[entry].nchildren)
	{
		if (restore->locked[entry])
			continue;
		if ((dir->entries[entry].kind == TESTENV_SEQUENCE ?
			 testenv_look_sequence(restore, entry) :
			 testenv_look_table(restore, entry)) != TESTENV_CLEAN)
			return false;
	}
	return true;
}
