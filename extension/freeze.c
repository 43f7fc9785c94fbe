/*-------------------------------------------------------------------------
 *
 * freeze.c
 *		Brings a table to the state that an image is taken of: all-frozen.
 *
 * The pages of an all-frozen heap hold no transaction id, so an image of them
 * stays right however far the counter moves, and the visibility map tells by
 * itself what was changed since.
 *
 * Vacuum does it, called through the table access method, because VACUUM the
 * command does not run in a transaction and a snapshot may be taken in the
 * transaction that seeded.  What keeps it from freezing, and what we do:
 *
 *	- pages that were never initialised stay out of the map: initialise them;
 *	- an asynchronous commit that is not flushed yet: flush first;
 *	- a few dead items, which vacuum likes to leave: INDEX_CLEANUP on;
 *	- rows of our own transaction, or rows that our own snapshot is too old for
 *	  (some other database's long transaction suffices): the table is copied
 *	  frozen into a new heap and its indexes are rebuilt, as CLUSTER does; one
 *	  more vacuum sets the map;
 *	- values that rows lack, because ALTER TABLE ... ADD COLUMN ... DEFAULT left
 *	  them to the catalog: VACUUM FULL would write them out and forget them
 *	  there, and an image without them be read wrongly.  Copied out as well;
 *	- rows newer than a snapshot that another session of this database holds:
 *	  copying them would make that session see the future.  This is an error
 *	  that names the session.
 *
 * Locks: the caller holds AccessExclusiveLock on the table.  The TOAST table
 * is locked with ShareUpdateExclusiveLock while it is vacuumed, so that
 * autovacuum is out of it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/multixact.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "access/visibilitymap.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "access/xloginsert.h"
#include "catalog/catalog.h"
#include "commands/cluster.h"
#include "commands/vacuum.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "testenv.h"

/*
 * Does the visibility map say all-frozen for every block, and for no more?
 */
bool
testenv_all_frozen(Relation rel)
{
	SMgrRelation reln = RelationGetSmgr(rel);
	BlockNumber nblocks = RelationGetNumberOfBlocks(rel);
	BlockNumber have = smgrexists(reln, VISIBILITYMAP_FORKNUM) ?
		smgrnblocks(reln, VISIBILITYMAP_FORKNUM) : 0;
	BlockNumber vmblock;

	for (vmblock = 0; vmblock < TESTENV_VM_PAGES(nblocks); vmblock++)
	{
		PGAlignedBlock expected;
		Buffer		buffer;
		bool		same;

		if (vmblock >= have)
			return false;
		testenv_vm_image(expected.data, nblocks, vmblock);
		buffer = ReadBufferExtended(rel, VISIBILITYMAP_FORKNUM, vmblock,
									RBM_ZERO_ON_ERROR, NULL);
		LockBuffer(buffer, BUFFER_LOCK_SHARE);
		same = memcmp(PageGetContents(BufferGetPage(buffer)),
					  PageGetContents((Page) expected.data),
					  BLCKSZ - MAXALIGN(SizeOfPageHeaderData)) == 0;
		UnlockReleaseBuffer(buffer);
		if (!same)
			return false;
	}
	return true;
}

/* Do rows of a table lack values that the catalog has? */
static bool
has_missing_values(Relation rel)
{
	TupleConstr *constr = RelationGetDescr(rel)->constr;

	return constr != NULL && constr->missing != NULL;
}

/* Are a table and its TOAST table as a snapshot needs them? */
bool
testenv_is_frozen(Relation rel)
{
	bool		frozen = testenv_all_frozen(rel) && !has_missing_values(rel);

	if (frozen && OidIsValid(rel->rd_rel->reltoastrelid))
	{
		Relation	toast = table_open(rel->rd_rel->reltoastrelid, AccessShareLock);

		frozen = testenv_all_frozen(toast);
		table_close(toast, AccessShareLock);
	}
	return frozen;
}

/* Call a function for each block that is not all-frozen yet. */
static void
for_each_unfrozen(Relation rel, void (*visit) (Relation rel, Buffer buffer, void *arg),
				  void *arg)
{
	BlockNumber nblocks = RelationGetNumberOfBlocks(rel);
	BufferAccessStrategy strategy = GetAccessStrategy(BAS_VACUUM);
	Buffer		vmbuffer = InvalidBuffer;
	BlockNumber block;

	for (block = 0; block < nblocks; block++)
	{
		Buffer		buffer;

		CHECK_FOR_INTERRUPTS();
		if (visibilitymap_get_status(rel, block, &vmbuffer) & VISIBILITYMAP_ALL_FROZEN)
			continue;
		buffer = ReadBufferExtended(rel, MAIN_FORKNUM, block, RBM_NORMAL, strategy);
		LockBuffer(buffer, BUFFER_LOCK_EXCLUSIVE);
		visit(rel, buffer, arg);
		UnlockReleaseBuffer(buffer);
	}
	if (BufferIsValid(vmbuffer))
		ReleaseBuffer(vmbuffer);
	FreeAccessStrategy(strategy);
}

static void
initialise_page(Relation rel, Buffer buffer, void *arg)
{
	Page		page = BufferGetPage(buffer);

	if (!PageIsNew(page))
		return;
	START_CRIT_SECTION();
	PageInit(page, BLCKSZ, 0);
	MarkBufferDirty(buffer);
	if (RelationNeedsWAL(rel))
		log_newpage_buffer(buffer, true);
	END_CRIT_SECTION();
}

/* The newest transaction id in tuples that could not be frozen. */
static void
newest_xid(Relation rel, Buffer buffer, void *arg)
{
	TransactionId *newest = arg;
	Page		page = BufferGetPage(buffer);
	OffsetNumber max = PageIsNew(page) ? 0 : PageGetMaxOffsetNumber(page);
	OffsetNumber offset;

	for (offset = FirstOffsetNumber; offset <= max; offset++)
	{
		ItemId		item = PageGetItemId(page, offset);
		HeapTupleHeader tuple;
		TransactionId xids[2];
		int			i;

		if (!ItemIdIsNormal(item))
			continue;
		tuple = (HeapTupleHeader) PageGetItem(page, item);
		xids[0] = HeapTupleHeaderGetXmin(tuple);
		xids[1] = tuple->t_infomask & HEAP_XMAX_INVALID ? InvalidTransactionId :
			tuple->t_infomask & HEAP_XMAX_IS_MULTI ? RecentXmin :
			HeapTupleHeaderGetRawXmax(tuple);
		for (i = 0; i < 2; i++)
			if (TransactionIdIsNormal(xids[i]) &&
				(!TransactionIdIsValid(*newest) || TransactionIdFollows(xids[i], *newest)))
				*newest = xids[i];
	}
}

/*
 * Vacuum keeps its locks on indexes until the end of the transaction, as if it
 * were one of its own.  With thousands of tables they would fill the lock
 * table; the table's own lock keeps everybody out.
 */
static void
release_index_locks(Relation rel)
{
	List	   *indexes = RelationGetIndexList(rel);
	ListCell   *cell;

	foreach(cell, indexes)
	{
		Relation	index = index_open(lfirst_oid(cell), AccessShareLock);
		bool		taken = index->rd_index->indisready;

		index_close(index, AccessShareLock);
		if (taken)
			UnlockRelationOid(lfirst_oid(cell), RowExclusiveLock);
	}
	list_free(indexes);
}

static void
vacuum_freeze(Relation rel)
{
	VacuumParams params;
	Oid			save_userid;
	int			save_sec_context;

	if (testenv_all_frozen(rel))
		return;
	for_each_unfrozen(rel, initialise_page, NULL);

	memset(&params, 0, sizeof(params));
	params.options = VACOPT_VACUUM | VACOPT_FREEZE;
	params.index_cleanup = VACOPTVALUE_ENABLED;
	/* else autovacuum cuts empty pages at the end, and each restore adds them */
	params.truncate = VACOPTVALUE_ENABLED;
	params.log_min_duration = -1;
	params.nworkers = -1;

	/* an operator class may run code of the table's owner */
	GetUserIdAndSecContext(&save_userid, &save_sec_context);
	SetUserIdAndSecContext(rel->rd_rel->relowner,
						   save_sec_context | SECURITY_RESTRICTED_OPERATION);
	table_relation_vacuum(rel, &params, GetAccessStrategy(BAS_VACUUM));
	SetUserIdAndSecContext(save_userid, save_sec_context);
	release_index_locks(rel);
}

/* Vacuum a table with its TOAST table; true if that was enough. */
static bool
vacuum_group(Relation rel)
{
	vacuum_freeze(rel);
	if (OidIsValid(rel->rd_rel->reltoastrelid))
	{
		Relation	toast = table_open(rel->rd_rel->reltoastrelid,
									   ShareUpdateExclusiveLock);

		vacuum_freeze(toast);
		table_close(toast, ShareUpdateExclusiveLock);
	}
	return testenv_is_frozen(rel);
}

/* Refuse if a session of this database has a snapshot older than some row. */
static void
refuse_old_snapshots(Relation rel)
{
	TransactionId newest = InvalidTransactionId;
	VirtualTransactionId *vxids;
	int			nvxids = 0;

	for_each_unfrozen(rel, newest_xid, &newest);
	if (OidIsValid(rel->rd_rel->reltoastrelid))
	{
		Relation	toast = table_open(rel->rd_rel->reltoastrelid, AccessShareLock);

		for_each_unfrozen(toast, newest_xid, &newest);
		table_close(toast, NoLock);
	}
	if (!TransactionIdIsValid(newest))
		return;

	/* a vacuum's or autovacuum worker's snapshot reads no rows for anybody */
	vxids = GetCurrentVirtualXIDs(newest, true, false,
								  PROC_IS_AUTOVACUUM | PROC_IN_VACUUM, &nvxids);
	if (nvxids == 0)
		return;
	vxids = repalloc(vxids, sizeof(VirtualTransactionId) * (nvxids + 1));
	SetInvalidVirtualTransactionId(vxids[nvxids]);
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_IN_USE),
			 errmsg("cannot take a snapshot: table \"%s\" has rows that another session must not see yet",
					RelationGetRelationName(rel)),
			 errdetail("These sessions hold older snapshots of the database:\n%s",
					   testenv_describe_sessions(vxids)),
			 errhint("End those transactions and take the snapshot again.")));
}

/*
 * Copy a table's live rows, frozen, into a new heap, and swap it in.  The
 * caller's reference to the table is closed before.
 */
static void
rewrite_frozen(Oid relid)
{
	Relation	rel = table_open(relid, AccessExclusiveLock);
	char		persistence = rel->rd_rel->relpersistence;
	bool		is_catalog = IsCatalogRelation(rel);
	TupleDesc	desc = RelationGetDescr(rel);
	int			options = TABLE_INSERT_SKIP_FSM | TABLE_INSERT_FROZEN;
	Oid			newid;
	Relation	target;
	TupleTableSlot *slot;
	TupleTableSlot *copy;
	TableScanDesc scan;
	BulkInsertState bistate;
	int			i;

	testenv_guard_unused(rel, "take");
	newid = make_new_heap(relid, rel->rd_rel->reltablespace, rel->rd_rel->relam,
						  persistence, AccessExclusiveLock);
	target = table_open(newid, AccessExclusiveLock);
	slot = table_slot_create(rel, NULL);
	copy = MakeSingleTupleTableSlot(desc, &TTSOpsVirtual);
	bistate = GetBulkInsertState();

	PushActiveSnapshot(GetLatestSnapshot());
	scan = table_beginscan(rel, GetActiveSnapshot(), 0, NULL);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		slot_getallattrs(slot);
		ExecClearTuple(copy);
		for (i = 0; i < desc->natts; i++)
		{
			copy->tts_values[i] = slot->tts_values[i];
			/* what a dropped column held, TOAST values too, stays behind */
			copy->tts_isnull[i] = slot->tts_isnull[i] ||
				TupleDescAttr(desc, i)->attisdropped;
		}
		ExecStoreVirtualTuple(copy);
		table_tuple_insert(target, copy, GetCurrentCommandId(true), options, bistate);
	}
	table_endscan(scan);
	PopActiveSnapshot();

	FreeBulkInsertState(bistate);
	table_finish_bulk_insert(target, options);
	ExecDropSingleTupleTableSlot(copy);
	ExecDropSingleTupleTableSlot(slot);
	table_close(target, NoLock);
	table_close(rel, NoLock);

	finish_heap_swap(relid, newid, is_catalog, false, false, true,
					 RecentXmin, ReadNextMultiXactId(), persistence);
	CommandCounterIncrement();
}

/*
 * Freeze a table with its TOAST table.  The caller holds AccessExclusiveLock.
 * Errors: another session's snapshot is in the way; the table is in use here.
 */
void
testenv_freeze_table(Oid relid)
{
	Relation	rel = table_open(relid, AccessExclusiveLock);
	bool		frozen;

	testenv_guard_unused(rel, "take");

	/* rows of a commit that is not on disk yet cannot be frozen */
	XLogFlush(testenv_lsn_end(GetXLogInsertRecPtr()));
	frozen = vacuum_group(rel);
	if (!frozen)
	{
		refuse_old_snapshots(rel);
		table_close(rel, NoLock);
		rewrite_frozen(relid);
		rel = table_open(relid, AccessExclusiveLock);
		frozen = vacuum_group(rel);
	}
	if (!frozen)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot take a snapshot: table \"%s\" could not be frozen",
						RelationGetRelationName(rel)),
				 errdetail("VACUUM (FREEZE) left pages that are not all-frozen, and so did a rewrite."),
				 errhint("Look for long transactions and replication slots, and try again.")));
	table_close(rel, NoLock);
}
