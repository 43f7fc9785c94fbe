/*-------------------------------------------------------------------------
 *
 * rebuild.c
 *		What the snapshot has no image of: indexes and tables made since.
 *
 * An index on a table of the snapshot is built anew for the rows that are back.
 * A table is emptied.  Both are done in place: like the pages of the tables of
 * the snapshot, they must survive a ROLLBACK, and other sessions are told at
 * once to forget what they know of the indexes.
 *
 * A kill -9 or an I/O error can come between any two records.  A new index is
 * built again by the next restore because its table still shows that something
 * happened to it (look.c).  A new table has no image to be compared with, so
 * what shows that it is not empty yet goes last: one page, emptied, stays in the
 * heap until all of its indexes have been built.
 *
 * Locks: the caller holds AccessExclusiveLock on the tables and their TOAST
 * tables, and those on indexes that detect.c says.
 *
 * Not protected against: an unlogged table's indexes lose what is done here in a
 * crash, but so does the table.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xloginsert.h"
#include "catalog/heap.h"
#include "catalog/index.h"
#include "catalog/indexing.h"
#include "catalog/pg_index.h"
#include "catalog/storage.h"
#include "miscadmin.h"
#include "nodes/execnodes.h"
#include "pgstat.h"
#include "storage/bufmgr.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/syscache.h"

#include "testenv.h"

/* Build an index in place, over what is in its file. */
static void
build_in_place(Oid tableid, Oid indexid)
{
	Relation	heap = table_open(tableid, AccessExclusiveLock);
	Relation	rel = index_open(indexid, AccessExclusiveLock);

	RelationTruncate(rel, 0);
	index_build(heap, rel, BuildIndexInfo(rel), true, false);
	testenv_empty_fsm(rel, NULL);
	testenv_forget_metapage(rel);
	index_close(rel, NoLock);
	table_close(heap, NoLock);
}

/* Take an index out of use: no query reads it, no insert maintains it. */
static void
disable_index(Oid indexid)
{
	Relation	pg_index = table_open(IndexRelationId, RowExclusiveLock);
	HeapTuple	tuple = SearchSysCacheCopy1(INDEXRELID, ObjectIdGetDatum(indexid));
	Form_pg_index form;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for index %u", indexid);
	form = (Form_pg_index) GETSTRUCT(tuple);
	form->indisvalid = false;
	form->indisready = false;
	CatalogTupleUpdate(pg_index, &tuple->t_self, tuple);
	heap_freetuple(tuple);
	table_close(pg_index, RowExclusiveLock);
	CommandCounterIncrement();
}

/*
 * Rebuild an index that the snapshot has no image of, in place: like the pages
 * of its table, it must survive a ROLLBACK.  The caller holds
 * AccessExclusiveLock on the table.
 *
 * index_build() runs the index's expressions as the table's owner, and fails
 * where the rows of the snapshot do not fit the index: two have the same value
 * of a unique one.  The rows are what was asked for, so it is the index that
 * gives way.  It is disabled, as CREATE INDEX CONCURRENTLY leaves one that it
 * could not finish, and a WARNING says so.
 */
void
testenv_rebuild_index(TestenvRestore *restore, const TestenvCatalogIndex *index)
{
	MemoryContext caller = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	uint32		holdoff = InterruptHoldoffCount;
	ErrorData  *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	PG_TRY();
	{
		build_in_place(index->tableid, index->indexid);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		/* an error lets interrupts in again */
		InterruptHoldoffCount = holdoff;
		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	CurrentResourceOwner = owner;

	/* not the rows' fault: the next restore tries again */
	if (error != NULL &&
		(error->sqlerrcode == ERRCODE_QUERY_CANCELED ||
		 ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_INSUFFICIENT_RESOURCES ||
		 ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_SYSTEM_ERROR))
		ReThrowError(error);
	if (error != NULL)
	{
		disable_index(index->indexid);
		restore->wrote_catalogs = true;
		ereport(WARNING,
				(errcode(error->sqlerrcode),
				 errmsg("disabled index %s, which does not fit the rows of the snapshot",
						testenv_relation_name(index->indexid)),
				 errdetail("It was made after the snapshot; to rebuild it failed: %s.", error->message),
				 errhint("Drop the index, or use REINDEX when the rows fit it.")));
	}
	testenv_own_wal_note(&restore->wal);
}

/*
 * Leave one page in a heap, and no row on it.  Marked all-visible, so that
 * whoever inserts into it, if we get no further, clears the map.
 */
static void
keep_empty_page(Relation rel)
{
	Buffer		buffer;
	Page		page;

	RelationTruncate(rel, 1);
	buffer = ReadBufferExtended(rel, MAIN_FORKNUM, 0, RBM_ZERO_AND_LOCK, NULL);
	page = BufferGetPage(buffer);

	START_CRIT_SECTION();
	PageInit(page, BLCKSZ, 0);
	PageSetAllVisible(page);
	MarkBufferDirty(buffer);
	if (RelationNeedsWAL(rel))
		log_newpage_buffer(buffer, true);
	END_CRIT_SECTION();

	UnlockReleaseBuffer(buffer);
}

/* Empty one heap with its indexes; false if it was empty. */
static bool
empty_heap(Relation rel)
{
	List	   *indexes;
	ListCell   *cell;

	if (RelationGetNumberOfBlocks(rel) == 0)
		return false;
	keep_empty_page(rel);
	indexes = RelationGetIndexList(rel);
	foreach(cell, indexes)
		build_in_place(RelationGetRelid(rel), lfirst_oid(cell));
	list_free(indexes);
	RelationTruncate(rel, 0);
	testenv_report_vacuum(RelationGetRelid(rel), 0);
	return true;
}

/*
 * Empty a table that was made after the snapshot.  False if it was empty.  The
 * caller holds AccessExclusiveLock, and interrupts.
 */
bool
testenv_empty_table(Oid relid)
{
	Relation	rel = table_open(relid, AccessExclusiveLock);
	bool		filled = false;

	if (OidIsValid(rel->rd_rel->reltoastrelid))
	{
		Relation	toast = table_open(rel->rd_rel->reltoastrelid, AccessExclusiveLock);

		filled = empty_heap(toast);
		table_close(toast, NoLock);
	}
	filled = empty_heap(rel) || filled;
	table_close(rel, NoLock);
	return filled;
}
