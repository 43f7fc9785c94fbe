/*-------------------------------------------------------------------------
 *
 * changes.c
 *		The set of changes: what a detector fills and put back works off.
 *
 * Per relation of the snapshot, the blocks that may differ from their images,
 * or "all of them", and whether the maps do.  A block that is named without
 * need costs a comparison; one that is missing is corruption.  Lengths are not
 * kept here: put back reads them under the lock.
 *
 * Locks: none.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "testenv.h"

TestenvChanges *
testenv_changes_create(MemoryContext context, int nentries)
{
	TestenvChanges *changes;

	changes = MemoryContextAllocZero(context, sizeof(TestenvChanges));
	changes->context = context;
	changes->nentries = nentries;
	changes->by_entry = MemoryContextAllocExtended(context,
												   sizeof(TestenvChange *) * (Size) (nentries + 1),
												   MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	return changes;
}

/* The change of one relation, made if it is the first mention of it. */
TestenvChange *
testenv_change(TestenvChanges *changes, int entry)
{
	TestenvChange *change = changes->by_entry[entry];

	if (change == NULL)
	{
		change = MemoryContextAllocZero(changes->context, sizeof(TestenvChange));
		change->entry = entry;
		changes->by_entry[entry] = change;
	}
	return change;
}

/* Add a block; a detector that looks adds them in ascending order. */
void
testenv_change_block(TestenvChanges *changes, int entry, BlockNumber block)
{
	TestenvChange *change = testenv_change(changes, entry);

	Assert(change->nblocks == 0 || change->blocks[change->nblocks - 1] < block);
	if (change->nblocks == change->maxblocks)
	{
		change->maxblocks = change->maxblocks ? change->maxblocks * 2 : 16;
		change->blocks = change->blocks ?
			repalloc_huge(change->blocks, sizeof(BlockNumber) * (Size) change->maxblocks) :
			MemoryContextAlloc(changes->context, sizeof(BlockNumber) * change->maxblocks);
	}
	change->blocks[change->nblocks++] = block;
}
