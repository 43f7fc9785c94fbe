/*-------------------------------------------------------------------------
 *
 * image.c
 *		Reads the image of a block as it has to lie in the relation of today.
 *
 * An image is a copy of a page, to be put back as it is, but for one thing: a
 * value that was moved out of a row names the TOAST table by OID, and a table
 * can get another TOAST table (REFRESH MATERIALIZED VIEW gives a view a new
 * one each time).  Then every such pointer in the image is made to name the
 * TOAST table of today, wherever the image is compared or put back.
 *
 * Locks: the caller holds a lock on the table.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "storage/bufpage.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "testenv.h"

/* How the pointers of one table have to be changed. */
typedef struct TestenvToastMove
{
	int			entry;
	Oid			from;
	Oid			to;
	TupleDesc	desc;
} TestenvToastMove;

/*
 * How the TOAST pointers of a table have to be changed, or NULL if they are
 * right.  The answer for the table asked about last is kept.
 */
static TestenvToastMove *
find_move(TestenvRestore *restore, int entry)
{
	TestenvDirectory *dir = restore->dir;
	TestenvToastMove *move = restore->move;
	int			last = entry + dir->entries[entry].nchildren;
	int			toast = entry + 1;
	MemoryContext old;
	Relation	rel;

	while (toast <= last && dir->entries[toast].kind != TESTENV_TOAST)
		toast++;
	if (toast > last || !OidIsValid(restore->mapping->targets[toast].relid) ||
		restore->mapping->targets[toast].relid == dir->entries[toast].relid)
		return NULL;
	if (move != NULL && move->entry == entry &&
		move->to == restore->mapping->targets[toast].relid)
		return move;

	old = MemoryContextSwitchTo(restore->context);
	move = palloc(sizeof(TestenvToastMove));
	move->entry = entry;
	move->from = dir->entries[toast].relid;
	move->to = restore->mapping->targets[toast].relid;
	rel = relation_open(restore->mapping->targets[entry].relid, NoLock);
	move->desc = CreateTupleDescCopy(RelationGetDescr(rel));
	relation_close(rel, NoLock);
	MemoryContextSwitchTo(old);
	restore->move = move;
	return move;
}

static void
move_pointers(HeapTupleHeader header, ItemId item, const TestenvToastMove *move,
			  Datum *values, bool *nulls)
{
	HeapTupleData tuple;
	int			i;

	tuple.t_data = header;
	tuple.t_len = ItemIdGetLength(item);
	tuple.t_tableOid = InvalidOid;
	ItemPointerSetInvalid(&tuple.t_self);
	heap_deform_tuple(&tuple, move->desc, values, nulls);

	for (i = 0; i < move->desc->natts; i++)
	{
		struct varlena *value;
		struct varatt_external pointer;

		if (nulls[i] || TupleDescAttr(move->desc, i)->attlen != -1)
			continue;
		value = (struct varlena *) DatumGetPointer(values[i]);
		if (!VARATT_IS_EXTERNAL_ONDISK(value))
			continue;
		VARATT_EXTERNAL_GET_POINTER(pointer, value);
		if (pointer.va_toastrelid != move->from)
			continue;
		pointer.va_toastrelid = move->to;
		memcpy(VARDATA_EXTERNAL(value), &pointer, sizeof(pointer));
	}
}

static void
move_page(Page page, const TestenvToastMove *move)
{
	OffsetNumber max = PageIsNew(page) ? 0 : PageGetMaxOffsetNumber(page);
	Datum	   *values = palloc(sizeof(Datum) * move->desc->natts);
	bool	   *nulls = palloc(sizeof(bool) * move->desc->natts);
	OffsetNumber offset;

	for (offset = FirstOffsetNumber; offset <= max; offset++)
	{
		ItemId		item = PageGetItemId(page, offset);
		HeapTupleHeader header;

		if (!ItemIdIsNormal(item))
			continue;
		header = (HeapTupleHeader) PageGetItem(page, item);
		if (header->t_infomask & HEAP_HASEXTERNAL)
			move_pointers(header, item, move, values, nulls);
	}
	pfree(values);
	pfree(nulls);
}

/*
 * Read the image of a block of an entry.
 */
void
testenv_read_image(TestenvRestore *restore, int entry, BlockNumber block,
				   char *page, BufferAccessStrategy strategy)
{
	const TestenvEntry *e = &restore->dir->entries[entry];

	testenv_store_read(restore->store, e->image + block, page, strategy);
	if (e->kind == TESTENV_HEAP)
	{
		const TestenvToastMove *move = find_move(restore, entry);

		if (move != NULL)
			move_page((Page) page, move);
	}
}

/*
 * The same without a copy, where the store has it as it is to be: pinned, to be
 * released by the caller; images do not change.  Else in "room".
 */
const char *
testenv_pin_image(TestenvRestore *restore, int entry, BlockNumber block,
				  char *room, BufferAccessStrategy strategy, Buffer *buffer)
{
	const TestenvEntry *e = &restore->dir->entries[entry];

	if (e->kind == TESTENV_HEAP && find_move(restore, entry) != NULL)
	{
		*buffer = InvalidBuffer;
		testenv_read_image(restore, entry, block, room, strategy);
		return room;
	}
	*buffer = ReadBufferExtended(restore->store, MAIN_FORKNUM, e->image + block,
								 RBM_NORMAL, strategy);
	return BufferGetPage(*buffer);
}
