/*-------------------------------------------------------------------------
 *
 * image_am.c
 *		The table access method testenv_image.
 *
 * A relation of this access method holds page images and no rows: a block of
 * it is a copy of a block of some other relation, or a page of the directory
 * or the state (store.c, state.c).  Keeping them in a relation means that the
 * server itself takes them through crashes, standbys, CREATE DATABASE ...
 * TEMPLATE, pg_upgrade and DROP DATABASE.
 *
 * The price is that the rest of the server sees a table.  So every callback
 * is set (a release build calls a missing one through a null pointer), none
 * of them ever hands a page to code that expects a heap page (such code sets
 * hint bits in what it takes for line pointers, outside of the page), and the
 * callbacks fall in three groups:
 *
 *	- what maintenance of a whole database does must pass: VACUUM and ANALYZE
 *	  do nothing, VACUUM FULL, CLUSTER and SET TABLESPACE copy the blocks, a
 *	  scan finds no row, CREATE INDEX makes an empty index;
 *	- what would write rows is refused: INSERT, COPY, TRUNCATE (UPDATE, DELETE
 *	  and SELECT FOR UPDATE find no row to work on);
 *	- what would make storage that testenv_snapshot() did not fill is refused:
 *	  CREATE TABLE ... USING testenv_image, SET UNLOGGED, and an ALTER TABLE
 *	  that rewrites.  The last one shows as a scan under the session's own
 *	  AccessExclusiveLock; it would silently leave an empty store.
 *
 * Locks: none of its own.
 *
 * Not protected against: a superuser who writes to the files, or who sets
 * allow_in_place_tablespaces and the like to get behind the server.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/multixact.h"
#include "access/relscan.h"
#include "access/tableam.h"
#include "catalog/pg_class.h"
#include "catalog/storage.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "nodes/execnodes.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "storage/smgr.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "testenv.h"
#include "compat.h"

PG_FUNCTION_INFO_V1(testenv_image_handler);

pg_noreturn static void refuse(Relation rel, const char *verb);

/* Set while testenv_image_create() makes a relation: see image_set_new(). */
static bool creating_image = false;

static void
refuse(Relation rel, const char *verb)
{
	ereport(ERROR,
			(errcode(ERRCODE_WRONG_OBJECT_TYPE),
			 errmsg("cannot %s \"%s\": it holds page images of testenv",
					verb, RelationGetRelationName(rel)),
			 errdetail("A relation of the access method \"testenv_image\" has no rows; only testenv_snapshot() writes it."),
			 errhint("Use testenv_snapshot() to take a snapshot and testenv_drop() to remove one.")));
}

/* Refuse to make storage that no snapshot fills. */
pg_noreturn static void refuse_storage(Relation rel);

static void
refuse_storage(Relation rel)
{
	const char *name = RelationGetRelationName(rel);
	const char *store = strncmp(name, "pg_temp_", 8) == 0 ?
		get_rel_name(atooid(name + 8)) : NULL;

	/* the transient heap of an ALTER TABLE that rewrites a store */
	if (store != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("cannot rewrite \"%s\": it holds page images of testenv", store),
				 errdetail("A relation of the access method \"testenv_image\" has no rows; only testenv_snapshot() writes it."),
				 errhint("Use testenv_snapshot() to take a snapshot and testenv_drop() to remove one.")));
	ereport(ERROR,
			(errcode(ERRCODE_WRONG_OBJECT_TYPE),
			 errmsg("cannot make a relation of the access method \"testenv_image\""),
			 errdetail("Such relations hold page images of testenv, and only testenv_snapshot() makes them; they are never unlogged or temporary."),
			 errhint("Use another access method for \"%s\".", name)));
}

/*
 * The creation of an image relation is allowed between these two calls.  The
 * flag is process-local and is cleared on error by the caller's PG_FINALLY.
 */
void
testenv_image_allow_create(bool allow)
{
	creating_image = allow;
}

static const TupleTableSlotOps *
image_slot_callbacks(Relation rel)
{
	return &TTSOpsVirtual;
}

static TableScanDesc
image_scan_begin(Relation rel, Snapshot snapshot, int nkeys,
				 struct ScanKeyData *key, ParallelTableScanDesc pscan,
				 uint32 flags)
{
	TableScanDesc scan;

	if (CheckRelationLockedByMe(rel, AccessExclusiveLock, true))
		refuse(rel, "rewrite");

	scan = (TableScanDesc) palloc0(sizeof(TableScanDescData));
	RelationIncrementReferenceCount(rel);
	scan->rs_rd = rel;
	scan->rs_snapshot = snapshot;
	scan->rs_nkeys = nkeys;
	scan->rs_flags = flags;
	scan->rs_parallel = pscan;
	return scan;
}

static void
image_scan_end(TableScanDesc scan)
{
	RelationDecrementReferenceCount(scan->rs_rd);
	if (scan->rs_flags & SO_TEMP_SNAPSHOT)
		UnregisterSnapshot(scan->rs_snapshot);
	pfree(scan);
}

static void
image_scan_rescan(TableScanDesc scan, struct ScanKeyData *key, bool set_params,
				  bool allow_strat, bool allow_sync, bool allow_pagemode)
{
}

static bool
image_getnextslot(TableScanDesc scan, ScanDirection direction,
				  TupleTableSlot *slot)
{
	ExecClearTuple(slot);
	return false;
}

static void
image_set_tidrange(TableScanDesc scan, ItemPointer mintid, ItemPointer maxtid)
{
}

static struct IndexFetchTableData *
image_index_fetch_begin(Relation rel)
{
	IndexFetchTableData *data = palloc0(sizeof(IndexFetchTableData));

	data->rel = rel;
	return data;
}

static void
image_index_fetch_reset(struct IndexFetchTableData *data)
{
}

static void
image_index_fetch_end(struct IndexFetchTableData *data)
{
	pfree(data);
}

static bool
image_index_fetch_tuple(struct IndexFetchTableData *scan, ItemPointer tid,
						Snapshot snapshot, TupleTableSlot *slot,
						bool *call_again, bool *all_dead)
{
	*call_again = false;
	if (all_dead)
		*all_dead = false;
	return false;
}

static bool
image_fetch_row_version(Relation rel, ItemPointer tid, Snapshot snapshot,
						TupleTableSlot *slot)
{
	ExecClearTuple(slot);
	return false;
}

static bool
image_tid_valid(TableScanDesc scan, ItemPointer tid)
{
	return false;
}

static void
image_get_latest_tid(TableScanDesc scan, ItemPointer tid)
{
	ItemPointerSetInvalid(tid);
}

static bool
image_satisfies_snapshot(Relation rel, TupleTableSlot *slot, Snapshot snapshot)
{
	return false;
}

static TransactionId
image_index_delete_tuples(Relation rel, TM_IndexDeleteOp *delstate)
{
	refuse(rel, "delete from");
}

static void
image_insert(Relation rel, TupleTableSlot *slot, CommandId cid, int options,
			 struct BulkInsertStateData *bistate)
{
	refuse(rel, "insert into");
}

static void
image_insert_speculative(Relation rel, TupleTableSlot *slot, CommandId cid,
						 int options, struct BulkInsertStateData *bistate,
						 uint32 token)
{
	refuse(rel, "insert into");
}

static void
image_complete_speculative(Relation rel, TupleTableSlot *slot, uint32 token,
						   bool succeeded)
{
	refuse(rel, "insert into");
}

static void
image_multi_insert(Relation rel, TupleTableSlot **slots, int nslots,
				   CommandId cid, int options,
				   struct BulkInsertStateData *bistate)
{
	refuse(rel, "insert into");
}

static TM_Result
image_delete(Relation rel, ItemPointer tid, CommandId cid, Snapshot snapshot,
			 Snapshot crosscheck, bool wait, TM_FailureData *tmfd,
			 bool changing_part)
{
	refuse(rel, "delete from");
}

static TM_Result
image_update(Relation rel, ItemPointer otid, TupleTableSlot *slot,
			 CommandId cid, Snapshot snapshot, Snapshot crosscheck, bool wait,
			 TM_FailureData *tmfd, LockTupleMode *lockmode,
			 TU_UpdateIndexes *update_indexes)
{
	refuse(rel, "update");
}

static TM_Result
image_lock(Relation rel, ItemPointer tid, Snapshot snapshot,
		   TupleTableSlot *slot, CommandId cid, LockTupleMode mode,
		   LockWaitPolicy wait_policy, uint8 flags, TM_FailureData *tmfd)
{
	refuse(rel, "lock rows of");
}

/* Is this the transient copy that VACUUM FULL or CLUSTER makes of a store? */
static bool
is_rewrite_of_image(Relation rel)
{
	const char *name = RelationGetRelationName(rel);
	HeapTuple	tuple;
	bool		result = false;

	if (strncmp(name, "pg_temp_", 8) != 0 || RelationGetNumberOfAttributes(rel) != 0)
		return false;
	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(atooid(name + 8)));
	if (HeapTupleIsValid(tuple))
	{
		Form_pg_class form = (Form_pg_class) GETSTRUCT(tuple);

		result = form->relam == rel->rd_rel->relam &&
			form->relnamespace == rel->rd_rel->relnamespace;
		ReleaseSysCache(tuple);
	}
	return result;
}

/*
 * New storage.  A new relation comes with the number that rd_locator already
 * has; TRUNCATE and its like come with another.
 */
static void
image_set_new(Relation rel, const RelFileLocator *newrlocator,
			  char persistence, TransactionId *freeze_xid,
			  MultiXactId *minmulti)
{
	SMgrRelation srel;

	*freeze_xid = InvalidTransactionId;
	*minmulti = InvalidMultiXactId;

	if (rel->rd_locator.relNumber != newrlocator->relNumber)
		refuse(rel, "truncate");
	if (persistence != RELPERSISTENCE_PERMANENT ||
		(!creating_image && !IsBinaryUpgrade && !is_rewrite_of_image(rel)))
		refuse_storage(rel);

	srel = RelationCreateStorage(*newrlocator, persistence, true);
	testenv_smgrclose(srel);
}

static void
image_nontransactional_truncate(Relation rel)
{
	refuse(rel, "truncate");
}

static void
copy_blocks(Relation rel, const RelFileLocator *target, bool create)
{
	SMgrRelation dst = smgropen(*target, INVALID_PROC_NUMBER);

	if (create)
		RelationCreateStorage(*target, rel->rd_rel->relpersistence, true);

	/* RelationCopyStorage reads through the storage manager only */
	FlushRelationBuffers(rel);
	RelationCopyStorage(RelationGetSmgr(rel), dst, MAIN_FORKNUM,
						rel->rd_rel->relpersistence);
	testenv_smgrclose(dst);
}

static void
image_copy_data(Relation rel, const RelFileLocator *newrlocator)
{
	copy_blocks(rel, newrlocator, true);
	RelationDropStorage(rel);
}

static void
image_copy_for_cluster(Relation old_table, Relation new_table,
					   Relation old_index, bool use_sort,
					   TransactionId oldest_xmin, TransactionId *xid_cutoff,
					   MultiXactId *multi_cutoff, double *num_tuples,
					   double *tups_vacuumed, double *tups_recently_dead)
{
	RelFileLocator target = new_table->rd_locator;

	copy_blocks(old_table, &target, false);
	*xid_cutoff = InvalidTransactionId;
	*multi_cutoff = InvalidMultiXactId;
	*num_tuples = *tups_vacuumed = *tups_recently_dead = 0;
}

static void
image_vacuum(Relation rel, struct VacuumParams *params,
			 BufferAccessStrategy bstrategy)
{
}

static bool
image_analyze_next_block(TableScanDesc scan, TESTENV_ANALYZE_ARGS)
{
	return false;
}

static bool
image_analyze_next_tuple(TableScanDesc scan, TransactionId oldest_xmin,
						 double *liverows, double *deadrows,
						 TupleTableSlot *slot)
{
	return false;
}

static double
image_index_build(Relation table_rel, Relation index_rel,
				  struct IndexInfo *index_info, bool allow_sync,
				  bool anyvisible, bool progress, BlockNumber start_blockno,
				  BlockNumber numblocks, IndexBuildCallback callback,
				  void *callback_state, TableScanDesc scan)
{
	return 0;
}

static void
image_index_validate(Relation table_rel, Relation index_rel,
					 struct IndexInfo *index_info, Snapshot snapshot,
					 struct ValidateIndexState *state)
{
}

static bool
image_needs_toast(Relation rel)
{
	return false;
}

static Oid
image_toast_am(Relation rel)
{
	return rel->rd_rel->relam;
}

static void
image_fetch_toast_slice(Relation toastrel, Oid valueid, int32 attrsize,
						int32 sliceoffset, int32 slicelength,
						struct varlena *result)
{
	refuse(toastrel, "read values of");
}

static void
image_estimate_size(Relation rel, int32 *attr_widths, BlockNumber *pages,
					double *tuples, double *allvisfrac)
{
	*pages = 0;
	*tuples = 0;
	*allvisfrac = 0;
}

#ifdef TESTENV_HAS_BITMAP_NEXT_BLOCK
static bool
image_bitmap_next_block(TableScanDesc scan, struct TBMIterateResult *tbmres)
{
	return false;
}
#endif

static bool
image_bitmap_next_tuple(TESTENV_BITMAP_ARGS)
{
	return false;
}

static bool
image_sample_next_block(TableScanDesc scan, struct SampleScanState *scanstate)
{
	return false;
}

static bool
image_sample_next_tuple(TableScanDesc scan, struct SampleScanState *scanstate,
						TupleTableSlot *slot)
{
	return false;
}

static void
image_finish_bulk_insert(Relation rel, int options)
{
}

static const TableAmRoutine image_methods = {
	.type = T_TableAmRoutine,

	.slot_callbacks = image_slot_callbacks,

	.scan_begin = image_scan_begin,
	.scan_end = image_scan_end,
	.scan_rescan = image_scan_rescan,
	.scan_getnextslot = image_getnextslot,
	.scan_set_tidrange = image_set_tidrange,
	.scan_getnextslot_tidrange = image_getnextslot,

	.parallelscan_estimate = table_block_parallelscan_estimate,
	.parallelscan_initialize = table_block_parallelscan_initialize,
	.parallelscan_reinitialize = table_block_parallelscan_reinitialize,

	.index_fetch_begin = image_index_fetch_begin,
	.index_fetch_reset = image_index_fetch_reset,
	.index_fetch_end = image_index_fetch_end,
	.index_fetch_tuple = image_index_fetch_tuple,

	.tuple_fetch_row_version = image_fetch_row_version,
	.tuple_tid_valid = image_tid_valid,
	.tuple_get_latest_tid = image_get_latest_tid,
	.tuple_satisfies_snapshot = image_satisfies_snapshot,
	.index_delete_tuples = image_index_delete_tuples,

	.tuple_insert = image_insert,
	.tuple_insert_speculative = image_insert_speculative,
	.tuple_complete_speculative = image_complete_speculative,
	.multi_insert = image_multi_insert,
	.tuple_delete = image_delete,
	.tuple_update = image_update,
	.tuple_lock = image_lock,
	.finish_bulk_insert = image_finish_bulk_insert,

	.relation_set_new_filelocator = image_set_new,
	.relation_nontransactional_truncate = image_nontransactional_truncate,
	.relation_copy_data = image_copy_data,
	.relation_copy_for_cluster = image_copy_for_cluster,
	.relation_vacuum = image_vacuum,
	.scan_analyze_next_block = image_analyze_next_block,
	.scan_analyze_next_tuple = image_analyze_next_tuple,
	.index_build_range_scan = image_index_build,
	.index_validate_scan = image_index_validate,

	.relation_size = table_block_relation_size,
	.relation_needs_toast_table = image_needs_toast,
	.relation_toast_am = image_toast_am,
	.relation_fetch_toast_slice = image_fetch_toast_slice,

	.relation_estimate_size = image_estimate_size,

#ifdef TESTENV_HAS_BITMAP_NEXT_BLOCK
	.scan_bitmap_next_block = image_bitmap_next_block,
#endif
	.scan_bitmap_next_tuple = image_bitmap_next_tuple,
	.scan_sample_next_block = image_sample_next_block,
	.scan_sample_next_tuple = image_sample_next_tuple,
};

/*
 * testenv_image_handler(internal) RETURNS table_am_handler
 *
 * The handler that CREATE ACCESS METHOD names; never called by a user.
 */
Datum
testenv_image_handler(PG_FUNCTION_ARGS)
{
	PG_RETURN_POINTER(&image_methods);
}
