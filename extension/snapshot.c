/*-------------------------------------------------------------------------
 *
 * snapshot.c
 *		Takes a snapshot: freezes every table and copies every page.
 *
 * In two passes.  The first locks all tables and brings them to the state that
 * an image is taken of: heaps all-frozen, no values of sequences cached.  Then the
 * clean LSN is taken: what is logged later, a restore will look at.  The second
 * pass copies, and makes the free space maps say what the copied pages do, so
 * that where the next rows go depends on the pages alone (freespace.c).
 *
 * A snapshot of the same name is dropped in the same transaction, so that
 * ROLLBACK, or an error, leaves the old one.  The state page is written last;
 * if the transaction is rolled back it names a store that is gone, and the next
 * restore compares everything.
 *
 * Locks: the extension's (locks.c); then, in the order of OIDs, ShareLock on
 * tables that are all-frozen already and AccessExclusiveLock on those that
 * have to be frozen; all until the end of the transaction.  An index is under
 * its table's lock.  TOAST tables are locked with ShareUpdateExclusiveLock
 * while they are copied, against autovacuum; what it does to them later has a
 * later LSN.  Sequences are one page, copied in one go.  So a snapshot needs
 * one entry of the lock table for each table, and where it has to copy a table
 * to freeze it, some for the new files.
 *
 * Not protected against: writes to tables that a snapshot does not cover; see
 * testenv_uncovered_relations().
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/catalog.h"
#include "catalog/index.h"
#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "storage/smgr.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/timestamp.h"

#include "testenv.h"

/* A snapshot that is being taken. */
typedef struct Snapshotting
{
	TestenvWait wait;
	int			nentries;
	int			maxentries;
	TestenvEntry *entries;
	StringInfoData names;
	StringInfoData freespace;	/* categories, see freespace.c */
	TestenvStoreWriter *writer;
	TestenvTaken *result;
	bool		skipped_wal;	/* a relation's changes were not logged */
	MemoryContext scratch;
} Snapshotting;

/* A table or sequence that the snapshot covers. */
typedef struct Covered
{
	Oid			relid;
	char		relkind;
	bool		cached;
	uint64		fingerprint;
} Covered;

/* Copy what we need of the view of the catalogs, which will change meanwhile. */
static Covered *
list_covered(int *count)
{
	TestenvCatalog *catalog = testenv_catalog();
	Covered    *list = MemoryContextAllocHuge(CurrentMemoryContext,
											  sizeof(Covered) * (Size) (catalog->nrels + 1));
	int			n = 0;
	int			i;

	for (i = 0; i < catalog->nrels; i++)
	{
		TestenvCatalogRel *rel = &catalog->rels[i];

		if (!testenv_catalog_is_table(rel) && rel->relkind != RELKIND_SEQUENCE)
			continue;
		list[n].relid = rel->relid;
		list[n].relkind = rel->relkind;
		list[n].cached = rel->iscached;
		list[n].fingerprint = rel->fingerprint;
		n++;
	}
	*count = n;
	return list;
}

/*
 * Which lock does a table need?  Found out under a lock that is given back: one
 * that is not all-frozen now will be frozen, which takes AccessExclusiveLock.
 * One that stops to be all-frozen before it is locked is found again in
 * prepare_table().
 */
static LOCKMODE
lock_needed(const Covered *covered)
{
	LOCKMODE	mode = AccessExclusiveLock;
	Relation	rel;

	if (covered->relkind == RELKIND_SEQUENCE)
		return covered->cached ? AccessExclusiveLock : NoLock;
	if (!ConditionalLockRelationOid(covered->relid, AccessShareLock))
		return AccessExclusiveLock;
	rel = try_relation_open(covered->relid, NoLock);
	if (rel != NULL)
	{
		if (testenv_is_frozen(rel))
			mode = ShareLock;
		relation_close(rel, NoLock);
	}
	UnlockRelationOid(covered->relid, AccessShareLock);
	return mode;
}

/*
 * Lock every table, and every sequence of which values are cached.  Tables can
 * come and go until all are locked, so the list is made again until it does not
 * grow any more.
 */
static Covered *
lock_covered(Snapshotting *snap, int *count)
{
	Covered    *known = NULL;
	int			nknown = 0;

	for (;;)
	{
		int			n;
		Covered    *list = list_covered(&n);
		TestenvLock *locks = MemoryContextAllocHuge(CurrentMemoryContext,
													sizeof(TestenvLock) * (Size) (n + 1));
		int			nlocks = 0;
		int			k = 0;
		int			i;

		for (i = 0; i < n; i++)
		{
			LOCKMODE	mode;

			CHECK_FOR_INTERRUPTS();
			while (k < nknown && known[k].relid < list[i].relid)
				k++;
			if (k < nknown && known[k].relid == list[i].relid)
				continue;
			mode = lock_needed(&list[i]);
			if (mode == NoLock)
				continue;
			locks[nlocks].relid = list[i].relid;
			locks[nlocks++].mode = mode;
		}
		if (nlocks == 0)
		{
			*count = n;
			return list;
		}
		testenv_lock_relations(locks, nlocks, &snap->wait, "take");
		pfree(locks);
		known = list;
		nknown = n;
	}
}

/* Drop what sessions know of the space in a heap; empty its indexes' maps. */
static void
forget_free_space(Relation rel)
{
	List	   *indexes = RelationGetIndexList(rel);
	ListCell   *cell;

	CacheInvalidateSmgr(RelationGetSmgr(rel)->smgr_rlocator);
	foreach(cell, indexes)
	{
		Relation	index = index_open(lfirst_oid(cell), AccessShareLock);

		testenv_empty_fsm(index, NULL);
		index_close(index, AccessShareLock);
	}
	list_free(indexes);
}

/* First pass: bring a table to the state that an image is taken of. */
static void
prepare_table(Snapshotting *snap, Covered *covered)
{
	Relation	rel = table_open(covered->relid, AccessShareLock);
	bool		frozen = testenv_is_frozen(rel);
	bool		exclusive = CheckRelationLockedByMe(rel, AccessExclusiveLock, false);

	table_close(rel, NoLock);
	if (!frozen)
	{
		if (!exclusive)
		{
			TestenvLock lock = {covered->relid, AccessExclusiveLock};

			testenv_lock_relations(&lock, 1, &snap->wait, "take");
		}
		testenv_freeze_table(covered->relid);
	}

	rel = table_open(covered->relid, AccessShareLock);
	forget_free_space(rel);
	if (OidIsValid(rel->rd_rel->reltoastrelid))
	{
		Relation	toast = table_open(rel->rd_rel->reltoastrelid, AccessShareLock);

		forget_free_space(toast);
		table_close(toast, AccessShareLock);
	}
	table_close(rel, NoLock);
}

static TestenvEntry *
add_entry(Snapshotting *snap, Relation rel, TestenvKind kind)
{
	TestenvEntry *entry;
	char	   *name = testenv_relation_name(RelationGetRelid(rel));

	if (snap->nentries == snap->maxentries)
	{
		snap->maxentries *= 2;
		snap->entries = repalloc_huge(snap->entries,
									  sizeof(TestenvEntry) * (Size) snap->maxentries);
	}
	entry = &snap->entries[snap->nentries++];
	memset(entry, 0, sizeof(*entry));
	entry->relid = RelationGetRelid(rel);
	entry->relam = rel->rd_rel->relam;
	entry->reltablespace = rel->rd_rel->reltablespace;
	entry->relfilenumber = rel->rd_locator.relNumber;
	entry->kind = kind;
	entry->relpersistence = rel->rd_rel->relpersistence;
	entry->nblocks = RelationGetNumberOfBlocks(rel);
	if (IsCatalogRelation(rel))
		entry->flags |= TESTENV_CATALOG;
	if (RelationIsPopulated(rel))
		entry->flags |= TESTENV_POPULATED;

	entry->name = snap->names.len;
	appendBinaryStringInfo(&snap->names, name, strlen(name) + 1);
	pfree(name);

	if (rel->rd_rel->relpersistence == RELPERSISTENCE_PERMANENT && !RelationNeedsWAL(rel))
		snap->skipped_wal = true;
	return entry;
}

static uint64
count_rows(Page page)
{
	OffsetNumber max = PageGetMaxOffsetNumber(page);
	OffsetNumber offset;
	uint64		n = 0;

	for (offset = FirstOffsetNumber; offset <= max; offset++)
		if (ItemIdIsNormal(PageGetItemId(page, offset)))
			n++;
	return n;
}

/* Copy the pages of a relation into the store; set a heap's free space map. */
static void
copy_pages(Snapshotting *snap, Relation rel, TestenvEntry *entry)
{
	bool		heap = entry->kind == TESTENV_HEAP || entry->kind == TESTENV_TOAST;
	bool		standard = testenv_standard_pages(entry);
	BufferAccessStrategy strategy = entry->nblocks > (BlockNumber) NBuffers / 8 ?
		GetAccessStrategy(BAS_BULKREAD) : NULL;
	BlockNumber block;

	entry->freespace = heap ? snap->freespace.len : 0;
	if (heap && !testenv_all_frozen(rel))
		elog(ERROR, "table \"%s\" is not all-frozen any more", RelationGetRelationName(rel));

	for (block = 0; block < entry->nblocks; block++)
	{
		PGAlignedBlock copy;
		Buffer		buffer = ReadBufferExtended(rel, MAIN_FORKNUM, block,
												RBM_NORMAL, strategy);
		BlockNumber stored;

		LockBuffer(buffer, BUFFER_LOCK_SHARE);
		memcpy(copy.data, BufferGetPage(buffer), BLCKSZ);
		UnlockReleaseBuffer(buffer);
		if (heap)
		{
			entry->ntuples += count_rows((Page) copy.data);
			appendStringInfoChar(&snap->freespace,
								 testenv_freespace_category((Page) copy.data));
		}
		stored = testenv_writer_put(snap->writer, copy.data,
									standard && !PageIsNew((Page) copy.data));
		if (block == 0)
			entry->image = stored;
	}
	if (heap)
		testenv_take_freespace(rel, entry->nblocks, &snap->freespace, entry->freespace);
	snap->result->npages += entry->nblocks;
	if (strategy != NULL)
		FreeAccessStrategy(strategy);
}

static void
copy_indexes(Snapshotting *snap, Relation rel)
{
	List	   *indexes = RelationGetIndexList(rel);
	ListCell   *cell;

	foreach(cell, indexes)
	{
		Relation	index = index_open(lfirst_oid(cell), AccessShareLock);
		TestenvEntry *entry = add_entry(snap, index, TESTENV_INDEX);

		entry->fingerprint = testenv_index_fingerprint(RelationGetRelid(index));
		copy_pages(snap, index, entry);
		index_close(index, AccessShareLock);
	}
	list_free(indexes);
}

/* Second pass: a table with everything that belongs to it. */
static void
copy_table(Snapshotting *snap, const Covered *covered)
{
	int			number = snap->nentries;
	Relation	rel = table_open(covered->relid, AccessShareLock);
	TestenvEntry *entry = add_entry(snap, rel, TESTENV_HEAP);

	entry->fingerprint = covered->fingerprint;
	copy_pages(snap, rel, entry);
	copy_indexes(snap, rel);
	if (OidIsValid(rel->rd_rel->reltoastrelid))
	{
		Relation	toast = table_open(rel->rd_rel->reltoastrelid,
									   ShareUpdateExclusiveLock);

		copy_pages(snap, toast, add_entry(snap, toast, TESTENV_TOAST));
		copy_indexes(snap, toast);
		table_close(toast, ShareUpdateExclusiveLock);
	}
	snap->entries[number].nchildren = snap->nentries - number - 1;
	if (!(snap->entries[number].flags & TESTENV_CATALOG))
		snap->result->ntables++;
	table_close(rel, NoLock);
}

static void
copy_sequence(Snapshotting *snap, const Covered *covered)
{
	Relation	rel = relation_open(covered->relid, AccessShareLock);
	TestenvEntry *entry = add_entry(snap, rel, TESTENV_SEQUENCE);
	PGAlignedBlock image;

	entry->fingerprint = covered->fingerprint;
	if (covered->cached)
		entry->flags |= TESTENV_CACHED_SEQ;
	testenv_sequence_copy(rel, image.data);
	entry->image = testenv_writer_put(snap->writer, image.data, true);
	snap->result->npages++;
	snap->result->nsequences++;
	relation_close(rel, AccessShareLock);
}

/* Make the store, dropping an older one of the name. */
static Relation
create_store(const char *name, TestenvWait *wait)
{
	Oid			old = testenv_store_oid(name);

	if (OidIsValid(old))
		testenv_store_drop(old, wait, "take");
	return relation_open(testenv_image_create(psprintf(TESTENV_SNAPSHOT_PREFIX "%s", name)),
						 AccessExclusiveLock);
}

static void
finish_store(Snapshotting *snap, const char *label, TestenvHeader *header)
{
	memset(header, 0, sizeof(*header));
	if (!pg_strong_random(&header->id, sizeof(header->id)))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate a random number")));
	header->nentries = snap->nentries;
	header->nameslen = snap->names.len;
	header->freespace = testenv_writer_put_bytes(snap->writer, snap->freespace.data,
												 snap->freespace.len, 1);
	header->directory = testenv_writer_put_bytes(snap->writer, (char *) snap->entries,
												 sizeof(TestenvEntry) * (Size) snap->nentries,
												 sizeof(TestenvEntry));
	header->names = testenv_writer_put_bytes(snap->writer, snap->names.data,
											 snap->names.len, 1);
	header->ntables = snap->result->ntables;
	header->nsequences = snap->result->nsequences;
	header->npages = snap->result->npages;
	header->created_at = GetCurrentTimestamp();
	if (label != NULL)
		strlcpy(header->label, label, sizeof(header->label));
	snap->result->nbytes = (int64) testenv_writer_end(snap->writer, header) * BLCKSZ;
}

/* Say in one NOTICE what the snapshot leaves out. */
static void
notice_uncovered(void)
{
	char	   *list = testenv_uncovered_relations();

	if (list != NULL)
		ereport(NOTICE,
				(errmsg("some relations are not part of the snapshot"),
				 errdetail("A restore leaves these as they are: %s.", list),
				 errhint("Foreign tables, temporary tables and tables of foreign access methods are not covered.")));
}

/*
 * Take a snapshot of this database under a name.  The caller has checked the
 * guards and the name.
 *
 * Privileges: none but EXECUTE on the SQL function; tables are read and frozen
 * whoever owns them.
 */
void
testenv_take_snapshot(const char *name, const char *label, TestenvTaken *result)
{
	Snapshotting snap;
	TestenvState old_state;
	TestenvState *state = palloc(sizeof(TestenvState));
	TestenvHeader header;
	Covered    *list;
	Relation	store;
	XLogRecPtr	clean_lsn;
	int			n;
	int			i;

	memset(result, 0, sizeof(*result));
	memset(&snap, 0, sizeof(snap));
	snap.result = result;
	snap.maxentries = 256;
	snap.entries = palloc(sizeof(TestenvEntry) * snap.maxentries);
	initStringInfo(&snap.names);
	initStringInfo(&snap.freespace);
	snap.scratch = AllocSetContextCreate(CurrentMemoryContext, "testenv snapshot",
										 ALLOCSET_DEFAULT_SIZES);

	testenv_lock_extension(&snap.wait, "take");
	testenv_close_large_objects();
	list = lock_covered(&snap, &n);
	for (i = 0; i < n; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(snap.scratch);

		CHECK_FOR_INTERRUPTS();
		if (list[i].relkind != RELKIND_SEQUENCE)
			prepare_table(&snap, &list[i]);
		else if (list[i].cached)
			testenv_sequence_uncache(list[i].relid);
		MemoryContextSwitchTo(old);
		MemoryContextReset(snap.scratch);
	}

	/* freezing may have written out values that the catalog had */
	for (i = 0; i < n; i++)
		list[i].fingerprint = testenv_catalog_rel(testenv_catalog(),
												  list[i].relid)->fingerprint;

	clean_lsn = GetXLogInsertRecPtr();
	(void) testenv_state_read(&old_state);
	store = create_store(name, &snap.wait);
	snap.writer = testenv_writer_begin(store);
	for (i = 0; i < n; i++)
	{
		if (list[i].relkind == RELKIND_SEQUENCE)
			copy_sequence(&snap, &list[i]);
		else
			copy_table(&snap, &list[i]);
	}
	finish_store(&snap, label, &header);

	/* what was not logged has no LSN to be compared with */
	testenv_state_init(state, &old_state);
	state->head.current = RelationGetRelid(store);
	state->head.current_id = header.id;
	state->head.full_xid = old_state.head.full_xid;
	if (!snap.skipped_wal)
	{
		state->head.owner = RelationGetRelid(store);
		state->head.owner_id = header.id;
		state->head.clean_lsn = clean_lsn;
		testenv_freespace_known(&state->head);
	}
	testenv_state_write(state);
	notice_uncovered();
	relation_close(store, NoLock);
	MemoryContextDelete(snap.scratch);
	pfree(state);
}
