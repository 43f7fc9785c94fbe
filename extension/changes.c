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
 * A hash table, so that a restore of a database with thousands of relations
 * costs nothing for those that nobody mentions.
 *
 * Locks: none.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "utils/memutils.h"

#include "testenv.h"

typedef struct ChangeSlot
{
	int			entry;
	char		status;
	TestenvChange *change;
} ChangeSlot;

#define SH_PREFIX changehash
#define SH_ELEMENT_TYPE ChangeSlot
#define SH_KEY_TYPE int
#define SH_KEY entry
#define SH_HASH_KEY(tb, key) murmurhash32((uint32) (key))
#define SH_EQUAL(tb, a, b) ((a) == (b))
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

struct TestenvChanges
{
	MemoryContext context;
	changehash_hash *slots;
};

TestenvChanges *
testenv_changes_create(MemoryContext context)
{
	TestenvChanges *changes = MemoryContextAllocZero(context, sizeof(TestenvChanges));

	changes->context = context;
	changes->slots = changehash_create(context, 64, NULL);
	return changes;
}

/* The change of one relation, or NULL if there is none. */
TestenvChange *
testenv_change_of(TestenvChanges *changes, int entry)
{
	ChangeSlot *slot = changehash_lookup(changes->slots, entry);

	return slot != NULL ? slot->change : NULL;
}

/* The change of one relation, made if it is the first mention of it. */
TestenvChange *
testenv_change(TestenvChanges *changes, int entry)
{
	bool		found;
	ChangeSlot *slot = changehash_insert(changes->slots, entry, &found);

	if (!found)
	{
		slot->change = MemoryContextAllocZero(changes->context, sizeof(TestenvChange));
		slot->change->entry = entry;
	}
	return slot->change;
}

/* Forget what was noted of one relation. */
void
testenv_change_reset(TestenvChange *change)
{
	change->all = false;
	change->map = false;
	change->cut = false;
	change->imaged = false;
	change->sorted = true;
	change->nblocks = 0;
}

/* Add a block, in any order; the one added last may be added again. */
void
testenv_change_block_any(TestenvChanges *changes, TestenvChange *change,
						 BlockNumber block)
{
	if (change->nblocks > 0)
	{
		if (change->blocks[change->nblocks - 1] == block)
			return;
		change->sorted = change->sorted && change->blocks[change->nblocks - 1] < block;
	}
	else
		change->sorted = true;
	if (change->nblocks == change->maxblocks)
	{
		change->maxblocks = change->maxblocks ? change->maxblocks * 2 : 16;
		change->blocks = change->blocks ?
			repalloc_huge(change->blocks, sizeof(BlockNumber) * (Size) change->maxblocks) :
			MemoryContextAlloc(changes->context, sizeof(BlockNumber) * change->maxblocks);
	}
	change->blocks[change->nblocks++] = block;
}

/* Add a block; a detector that looks adds them in ascending order. */
void
testenv_change_block(TestenvChanges *changes, int entry, BlockNumber block)
{
	testenv_change_block_any(changes, testenv_change(changes, entry), block);
}

static int
compare_blocks(const void *a, const void *b)
{
	BlockNumber x = *(const BlockNumber *) a;
	BlockNumber y = *(const BlockNumber *) b;

	return x < y ? -1 : x > y;
}

/* Bring the blocks into ascending order, each once. */
void
testenv_change_sort(TestenvChange *change)
{
	int			n = 0;
	int			i;

	if (change->nblocks < 2 || change->sorted)
		return;
	qsort(change->blocks, change->nblocks, sizeof(BlockNumber), compare_blocks);
	for (i = 0; i < change->nblocks; i++)
		if (n == 0 || change->blocks[n - 1] != change->blocks[i])
			change->blocks[n++] = change->blocks[i];
	change->nblocks = n;
	change->sorted = true;
}
