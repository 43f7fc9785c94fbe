/*-------------------------------------------------------------------------
 *
 * marks.c
 *		Finds the pages of indexes that carry marks which no WAL names.
 *
 * Whoever meets an index entry of a row that is dead for everybody marks the
 * entry: without WAL, without LSN.  If the row belongs to the snapshot it comes
 * back, and the entry would still hide it.  So for each index of a heap that
 * changed, the pages with such marks are candidates.
 *
 * There are two ways to find them.  The header of a page says whether it holds
 * marked entries, so all of them can be looked at: about 0.2 us a page in cache
 * (look.c).  Or the rows are found that were in the snapshot and are gone now,
 * by comparing the heap's candidate blocks with their images, and each is looked
 * up in the btree by its key and address: that costs a descent for each row,
 * however large the index is.  The index is searched as the test left it.  If the
 * entry has been moved or removed since, then the WAL names the page where it
 * was, and there is nothing else to find.
 *
 * The second way needs to know every row that is gone, and how to compute its
 * key without running an expression or reading a TOAST table.  Where it does
 * not, headers are looked at.
 *
 * Of GIN, BRIN and SP-GiST there is nothing to find: they have no such marks.
 *
 * Locks: the caller holds AccessExclusiveLock on the table.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/itup.h"
#include "access/nbtree.h"
#include "access/relation.h"
#include "catalog/index.h"
#include "catalog/pg_am.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "nodes/execnodes.h"
#include "storage/bufmgr.h"
#include "utils/rel.h"

#include "testenv.h"

/*
 * What a descent costs, in pages whose header is looked at: in shared buffers,
 * and where each of them has to be read, which is most of it then.  A server
 * with assertions descends in small indexes too, because tests have no others.
 */
#ifdef USE_ASSERT_CHECKING
#define PAGES_PER_DESCENT 1
#define PAGES_READ_PER_DESCENT 1
#else
#define PAGES_PER_DESCENT 12
#define PAGES_READ_PER_DESCENT 2
#endif

/* Rows that are looked up, blocks that are compared: no more */
#define MAX_GONE 4096
#define MAX_BLOCKS 4096

/* A row of the snapshot that is not there now: its image, and where its entries point. */
typedef struct Gone
{
	HeapTuple	tuple;
	ItemPointerData tid;
} Gone;

typedef struct GoneRows
{
	bool		known;			/* these are all */
	int			n;
	Gone		rows[MAX_GONE];
} GoneRows;

/* Note the rows of one image that are not on the page; false if they are too many. */
static bool
compare_rows(GoneRows *gone, Page image, Page page, BlockNumber block)
{
	OffsetNumber roots[MaxHeapTuplesPerPage];
	OffsetNumber max = PageIsNew(image) ? 0 : PageGetMaxOffsetNumber(image);
	OffsetNumber have = PageIsNew(page) ? 0 : PageGetMaxOffsetNumber(page);
	bool		have_roots = false;
	OffsetNumber offset;

	for (offset = FirstOffsetNumber; offset <= max; offset++)
	{
		ItemId		item = PageGetItemId(image, offset);
		OffsetNumber root = offset;
		HeapTupleHeader header;
		HeapTuple	tuple;

		if (!ItemIdIsNormal(item))
			continue;
		header = (HeapTupleHeader) PageGetItem(image, item);
		if (offset <= have)
		{
			ItemId		now = PageGetItemId(page, offset);

			if (ItemIdIsNormal(now) && ItemIdGetLength(now) == ItemIdGetLength(item) &&
				memcmp(PageGetItem(page, now), header, ItemIdGetLength(item)) == 0)
				continue;
		}
		if (HeapTupleHeaderIsHeapOnly(header))
		{
			if (!have_roots)
				heap_get_root_tuples(image, roots);
			have_roots = true;
			root = roots[offset - 1];
			if (root == InvalidOffsetNumber)
				continue;
		}
		if (gone->n >= MAX_GONE)
			return false;
		tuple = palloc(HEAPTUPLESIZE + ItemIdGetLength(item));
		tuple->t_len = ItemIdGetLength(item);
		tuple->t_data = (HeapTupleHeader) ((char *) tuple + HEAPTUPLESIZE);
		memcpy(tuple->t_data, header, tuple->t_len);
		tuple->t_tableOid = InvalidOid;
		ItemPointerSet(&tuple->t_self, block, offset);
		gone->rows[gone->n].tuple = tuple;
		ItemPointerSet(&gone->rows[gone->n].tid, block, root);
		gone->n++;
	}
	return true;
}

/*
 * Which rows of a heap are gone?  Only blocks that the WAL names can have lost
 * any.  Not known where a block was replaced as a whole: a restore that was cut
 * short may have brought rows back already, and not reached the index.
 */
static GoneRows *
find_gone_rows(TestenvRestore *restore, int heap)
{
	const TestenvEntry *entry = &restore->dir->entries[heap];
	TestenvChange *change = testenv_change_of(restore->changes, heap);
	GoneRows   *gone = palloc(sizeof(GoneRows));
	Relation	rel;
	int			i;

	gone->n = 0;
	gone->known = !change->all && !change->cut && !change->imaged &&
		change->nblocks <= MAX_BLOCKS;
	if (!gone->known)
		return gone;
	testenv_change_sort(change);
	rel = relation_open(restore->mapping->targets[heap].relid, NoLock);
	for (i = 0; i < change->nblocks && gone->known; i++)
	{
		PGAlignedBlock room;
		BlockNumber block = change->blocks[i];
		const char *image;
		Buffer		image_buffer;
		Buffer		buffer;

		if (block >= entry->nblocks)
			break;
		image = testenv_pin_image(restore, heap, block, room.data, NULL, &image_buffer);
		buffer = ReadBuffer(rel, block);
		LockBuffer(buffer, BUFFER_LOCK_SHARE);
		gone->known = compare_rows(gone, (Page) image, BufferGetPage(buffer), block);
		UnlockReleaseBuffer(buffer);
		if (BufferIsValid(image_buffer))
			ReleaseBuffer(image_buffer);
	}
	relation_close(rel, NoLock);
	return gone;
}

/*
 * Look a row up in a btree; true if the page where its entry belongs, *block,
 * holds marked entries.  Sets *unknown where the key cannot be computed here.
 */
static bool
descend(Relation heap, Relation index, IndexInfo *info, TupleTableSlot *slot,
		const Gone *row, BlockNumber *block, bool *unknown)
{
	Datum		values[INDEX_MAX_KEYS];
	bool		nulls[INDEX_MAX_KEYS];
	bool		marked = false;
	TupleDesc	desc = RelationGetDescr(index);
	IndexTuple	entry;
	BTScanInsert key;
	BTStack		stack;
	Buffer		buffer;
	int			i;

	ExecStoreHeapTuple(row->tuple, slot, false);
	FormIndexDatum(info, slot, NULL, values, nulls);
	for (i = 0; i < desc->natts; i++)
		if (!nulls[i] && TupleDescAttr(desc, i)->attlen == -1 &&
			VARATT_IS_EXTERNAL(DatumGetPointer(values[i])))
			*unknown = true;
	if (*unknown)
		return false;
	entry = index_form_tuple(desc, values, nulls);
	entry->t_tid = row->tid;
	key = _bt_mkscankey(index, entry);

	/* an index of before version 4 does not tell duplicates apart */
	*unknown = !key->heapkeyspace;
	if (key->heapkeyspace)
	{
		stack = testenv_bt_search(index, heap, key, &buffer);
		if (BufferIsValid(buffer))
		{
			*block = BufferGetBlockNumber(buffer);
			marked = P_HAS_GARBAGE(BTPageGetOpaque(BufferGetPage(buffer)));
			_bt_relbuf(index, buffer);
		}
		_bt_freestack(stack);
	}
	pfree(key);
	pfree(entry);
	return marked;
}

/* Add the pages of a btree that hold entries of these rows; false if it cannot tell. */
static bool
look_rows_up(TestenvRestore *restore, int heap, int number, const GoneRows *gone)
{
	TestenvChange *change = testenv_change(restore->changes, number);
	Relation	rel = relation_open(restore->mapping->targets[heap].relid, NoLock);
	Relation	index = index_open(restore->mapping->targets[number].relid, AccessShareLock);
	IndexInfo  *info = BuildIndexInfo(index);
	bool		unknown = info->ii_Expressions != NIL;
	TupleTableSlot *slot = MakeSingleTupleTableSlot(RelationGetDescr(rel), &TTSOpsHeapTuple);
	int			i;

	for (i = 0; i < gone->n && !unknown; i++)
	{
		BlockNumber block;

		CHECK_FOR_INTERRUPTS();
		if (descend(rel, index, info, slot, &gone->rows[i], &block, &unknown) &&
			block < restore->dir->entries[number].nblocks)
			testenv_change_block_any(restore->changes, change, block);
	}
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, NoLock);
	relation_close(rel, NoLock);
	return !unknown;
}

/*
 * Add to the changes the pages with marks of all indexes of one heap, the
 * entries first .. last, that are compared page by page.
 */
void
testenv_find_marks(TestenvRestore *restore, int heap, int first, int last)
{
	BlockNumber per_descent = testenv_indexes_are_cached(restore->mapping) ?
		PAGES_PER_DESCENT : PAGES_READ_PER_DESCENT;
	GoneRows   *gone = NULL;
	int			i;

	for (i = first; i <= last; i++)
	{
		const TestenvEntry *entry = &restore->dir->entries[i];

		if (!OidIsValid(restore->mapping->targets[i].relid) ||
			testenv_change(restore->changes, i)->all ||
			entry->relam == GIN_AM_OID || entry->relam == BRIN_AM_OID ||
			entry->relam == SPGIST_AM_OID)
			continue;
		CHECK_FOR_INTERRUPTS();
		if (entry->relam == BTREE_AM_OID && entry->nblocks > per_descent)
		{
			if (gone == NULL)
				gone = find_gone_rows(restore, heap);
			if (gone->known &&
				(BlockNumber) gone->n * per_descent < entry->nblocks &&
				look_rows_up(restore, heap, i, gone))
				continue;
		}
		testenv_look_marks(restore, i);
	}
}
