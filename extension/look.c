/*-------------------------------------------------------------------------
 *
 * look.c
 *		The detector that looks: finds what changed by looking at each table.
 *
 * An all-frozen heap tells by itself what happened to it.  Whoever changes a
 * page, if only by locking a row, clears its bits in the visibility map; and
 * whoever sets a bit there again stamps the map's page with an LSN.  So a heap
 * is unchanged if it has the storage and the length that it had, its map says
 * all-frozen everywhere, and no page of the map is newer than the clean LSN:
 * the cost is one page for 32672 blocks.  Candidates of a changed heap are
 * the blocks that are not all-frozen, and below a newer page of the map those
 * with a newer LSN.
 *
 * An index has no map, so all of its pages are looked at: candidates have a
 * newer LSN.  Beside a heap without a trace too, because an index can change
 * while its heap ends as it was: rows are appended in a transaction that is
 * rolled back, and VACUUM takes out their entries and cuts the heap; or VACUUM
 * moves GIN's pending entries, summarizes BRIN ranges, cleans up in SP-GiST.
 * Where the heap shows a trace, pages that say that they hold dead items are
 * candidates as well.  Those marks are set without WAL and without LSN by
 * whoever meets an entry of a dead row, and the row may be one that the restore
 * brings back.
 *
 * Unlogged relations, and those with other storage than the state page speaks
 * of, give no hint; all of their pages are compared.
 *
 * Two passes use this.  The first decides whether a table has to be locked,
 * and compares candidates with their images, so that a table that somebody
 * changed and changed back, or that was restored last time, is not locked for
 * nothing.  The second, under AccessExclusiveLock, collects the candidates.
 *
 * Locks: the first pass takes AccessShareLock, if it can be had at once, and
 * releases it: it keeps the files from being dropped or cut while we look.  A
 * table that somebody holds AccessExclusiveLock on counts as changed: it is
 * about to be.  TOAST tables need a lock of their own, because autovacuum cuts
 * them without their table's.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/gist.h"
#include "access/hash.h"
#include "access/nbtree.h"
#include "access/relation.h"
#include "catalog/pg_am.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "storage/smgr.h"
#include "utils/rel.h"

#include "testenv.h"

/* One relation that is looked at. */
typedef struct Look
{
	TestenvRestore *restore;
	int			number;			/* of the entry */
	const TestenvEntry *entry;
	const TestenvTarget *target;
	bool		trusted;		/* its pages are those of the state page */
	BlockNumber nblocks;		/* of today, once measured */
	BufferAccessStrategy strategy;
	bool		collect;		/* second pass */
	bool		touched;		/* heap: shows any trace of a change */
	bool		map_differs;
	bool		differs;		/* first pass: a page does */
} Look;

static void
look_begin(Look *look, TestenvRestore *restore, int number, bool collect)
{
	memset(look, 0, sizeof(*look));
	look->restore = restore;
	look->number = number;
	look->entry = &restore->dir->entries[number];
	look->target = &restore->mapping->targets[number];
	look->trusted = testenv_trusted(restore, number);
	look->collect = collect;

	/* a scan of all of a large relation must not empty shared buffers */
	if (!look->trusted && look->entry->nblocks > (BlockNumber) NBuffers / 4)
		look->strategy = GetAccessStrategy(BAS_BULKREAD);
}

/*
 * How long is the relation today?  A file that was opened without a relcache
 * entry is closed at the end of the transaction, and to open it is most of the
 * cost of looking at a table.  So tables go through the relcache, and indexes
 * and sequences are asked only where it matters.
 */
static void
measure(Look *look, Relation rel)
{
	if (rel != NULL)
		look->nblocks = RelationGetNumberOfBlocks(rel);
	else
		look->nblocks = smgrnblocks(smgropen(look->target->locator, INVALID_PROC_NUMBER),
									MAIN_FORKNUM);
}

/*
 * How many pages has the visibility map of a heap?  None, where VACUUM has cut
 * an emptied heap to nothing, whatever the heap has grown to since.  The
 * storage manager's memory of it is as good as visibilitymap.c takes it to be:
 * whoever makes a map longer or shorter sends an invalidation, and the lock
 * that we have just taken made us read it.
 */
static BlockNumber
map_length(Look *look)
{
	SMgrRelation reln = smgropen(look->target->locator, INVALID_PROC_NUMBER);
	BlockNumber nblocks = reln->smgr_cached_nblocks[VISIBILITYMAP_FORKNUM];

	if (nblocks != InvalidBlockNumber)
		return nblocks;
	if (smgrexists(reln, VISIBILITYMAP_FORKNUM))
		return smgrnblocks(reln, VISIBILITYMAP_FORKNUM);
	reln->smgr_cached_nblocks[VISIBILITYMAP_FORKNUM] = 0;
	return 0;
}

static Buffer
look_read(Look *look, ForkNumber fork, BlockNumber block)
{
	Buffer		buffer;

	buffer = ReadBufferWithoutRelcache(look->target->locator, fork, block,
									   fork == MAIN_FORKNUM ? RBM_NORMAL : RBM_ZERO_ON_ERROR,
									   look->strategy,
									   look->entry->relpersistence == RELPERSISTENCE_PERMANENT);
	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	return buffer;
}

/*
 * Take note of a candidate: collect it, or compare it.  False ends the walk.
 */
static bool
candidate(Look *look, BlockNumber block)
{
	TestenvRestore *restore = look->restore;
	PGAlignedBlock room;
	const char *image;
	Buffer		image_buffer;
	Buffer		buffer;

	if (look->collect)
	{
		testenv_change_block(restore->changes, look->number, block);
		return true;
	}
	CHECK_FOR_INTERRUPTS();
	image = testenv_pin_image(restore, look->number, block, room.data,
							  look->strategy, &image_buffer);
	buffer = look_read(look, MAIN_FORKNUM, block);
	look->differs = !testenv_same_page(BufferGetPage(buffer), image,
									   testenv_standard_pages(look->entry));
	UnlockReleaseBuffer(buffer);
	if (BufferIsValid(image_buffer))
		ReleaseBuffer(image_buffer);
	if (look->differs)
		ereport(DEBUG2,
				(errmsg_internal("block %u of relation %s differs from the snapshot",
								 block, testenv_relation_name(look->target->relid))));
	return !look->differs;
}

static bool
is_newer(Look *look, Page page)
{
	return PageGetLSN(page) > look->restore->state.head.clean_lsn;
}

/*
 * Walk the blocks below one page of the visibility map.  "map" is what the
 * page says, two bits a block, or NULL if there is no such page.
 */
static bool
walk_heap_range(Look *look, BlockNumber first, BlockNumber end,
				const unsigned char *map, bool newer)
{
	BlockNumber block;

	for (block = first; block < end; block++)
	{
		BlockNumber offset = block - first;
		bool		frozen = map != NULL &&
			((map[offset / 4] >> (2 * (offset % 4))) & VISIBILITYMAP_VALID_BITS) ==
			VISIBILITYMAP_VALID_BITS;

		if (look->trusted && frozen)
		{
			Buffer		buffer;
			bool		skip;

			if (!newer)
				continue;
			buffer = look_read(look, MAIN_FORKNUM, block);
			skip = !is_newer(look, BufferGetPage(buffer));
			UnlockReleaseBuffer(buffer);
			if (skip)
				continue;
		}
		look->touched = true;
		if (!candidate(look, block))
			return false;
	}
	return true;
}

/* Walk the candidates of a heap; false if a page differs (first pass). */
static bool
walk_heap(Look *look)
{
	BlockNumber wanted = look->entry->nblocks;
	BlockNumber common = Min(wanted, look->nblocks);
	BlockNumber nmaps = TESTENV_VM_PAGES(wanted);
	BlockNumber have = nmaps > 0 ? map_length(look) : 0;
	BlockNumber vmblock;

	/* an empty heap has no map to leave a trace in */
	if (wanted == 0)
		look->touched = true;

	for (vmblock = 0; vmblock < nmaps; vmblock++)
	{
		BlockNumber first = vmblock * TESTENV_HEAP_BLOCKS_PER_VM_PAGE;
		BlockNumber end = Min(common, first + TESTENV_HEAP_BLOCKS_PER_VM_PAGE);
		PGAlignedBlock page;
		PGAlignedBlock expected;
		bool		newer = true;
		bool		same = false;

		if (vmblock < have)
		{
			Buffer		buffer = look_read(look, VISIBILITYMAP_FORKNUM, vmblock);

			memcpy(page.data, BufferGetPage(buffer), BLCKSZ);
			UnlockReleaseBuffer(buffer);
			newer = is_newer(look, (Page) page.data);
			testenv_vm_image(expected.data, wanted, vmblock);
			same = memcmp(PageGetContents((Page) page.data),
						  PageGetContents((Page) expected.data),
						  BLCKSZ - MAXALIGN(SizeOfPageHeaderData)) == 0;
		}
		if (!same)
			look->map_differs = true;
		if (newer || !same)
			look->touched = true;
		if (same && !newer && look->trusted)
			continue;
		if (!walk_heap_range(look, first, end,
							 vmblock < have ? (unsigned char *) PageGetContents((Page) page.data) : NULL,
							 newer))
			return false;
	}
	return true;
}

/* Does a page of an index say that it holds dead items, or cannot tell? */
static bool
may_hold_dead_items(Oid relam, Page page)
{
	if (PageIsNew(page))
		return true;
	switch (relam)
	{
		case BTREE_AM_OID:
			return P_HAS_GARBAGE(BTPageGetOpaque(page));
		case HASH_AM_OID:
			return H_HAS_DEAD_TUPLES(HashPageGetOpaque(page));
		case GIST_AM_OID:
			return GistPageHasGarbage(page);
		case GIN_AM_OID:
		case BRIN_AM_OID:
			return false;
		case SPGIST_AM_OID:
			return false;
		default:
			return true;
	}
}

/*
 * Walk the candidates of an index.  "touched": its heap shows a trace.
 *
 * In the first pass a trusted index need not be measured, which would open its
 * file: it cannot be shorter, and whoever makes it longer changes a page.
 */
static bool
walk_index(Look *look, bool touched)
{
	BlockNumber end = look->entry->nblocks;
	BlockNumber block;

	if (look->collect || !look->trusted)
	{
		measure(look, NULL);
		if (!look->collect && look->nblocks != end)
		{
			look->differs = true;
			return false;
		}
		end = Min(look->nblocks, end);
	}

	for (block = 0; block < end; block++)
	{
		if (look->trusted)
		{
			Buffer		buffer = look_read(look, MAIN_FORKNUM, block);
			Page		page = BufferGetPage(buffer);
			bool		skip = !is_newer(look, page) &&
				!(touched && may_hold_dead_items(look->entry->relam, page));

			/* SP-GiST's metapage caches where to insert, without WAL */
			if (block == 0 && look->entry->relam == SPGIST_AM_OID)
				skip = false;
			UnlockReleaseBuffer(buffer);
			if (skip)
				continue;
		}
		if (!candidate(look, block))
			return false;
	}
	return true;
}

/* Has any page of an index without an image changed since the clean LSN? */
static bool
index_is_newer(Look *heap, Oid indexid)
{
	Relation	index;
	BlockNumber nblocks;
	BlockNumber block;
	bool		newer;

	if (!ConditionalLockRelationOid(indexid, AccessShareLock))
		return true;
	index = relation_open(indexid, NoLock);
	nblocks = RelationGetNumberOfBlocks(index);
	newer = nblocks == 0;
	for (block = 0; block < nblocks && !newer; block++)
	{
		Buffer		buffer = ReadBuffer(index, block);

		LockBuffer(buffer, BUFFER_LOCK_SHARE);
		newer = is_newer(heap, BufferGetPage(buffer));
		UnlockReleaseBuffer(buffer);
	}
	relation_close(index, AccessShareLock);
	return newer;
}

/*
 * An index that the snapshot has no image of is right for the rows that its
 * heap has, unless a restore was cut short before it was rebuilt.  Then the
 * heap shows a trace, although its pages are back; where no page is left to
 * show one, the index does.  Of an unlogged heap nothing survives that could
 * have cut a restore short.
 */
static bool
new_index_is_doubtful(Look *heap)
{
	const TestenvMapping *mapping = heap->restore->mapping;
	int			i;

	for (i = 0; i < mapping->nnew_indexes; i++)
	{
		if (mapping->new_indexes[i].tableid != heap->target->relid)
			continue;
		if (heap->restore->redo)
			return true;
		if (heap->entry->relpersistence != RELPERSISTENCE_PERMANENT)
			continue;
		if (heap->entry->nblocks > 0 ? heap->touched :
			index_is_newer(heap, mapping->new_indexes[i].indexid))
			return true;
	}
	return false;
}

/*
 * Look at one heap with its indexes, entries first .. last.  True if anything
 * differs.  The caller holds at least AccessShareLock.
 */
static bool
heap_differs(TestenvRestore *restore, int first, int last)
{
	Relation	rel = relation_open(restore->mapping->targets[first].relid, NoLock);
	Look		heap;
	bool		differs;
	int			i;

	look_begin(&heap, restore, first, false);
	measure(&heap, rel);
	differs = heap.nblocks != heap.entry->nblocks ||
		heap.target->ispopulated != ((heap.entry->flags & TESTENV_POPULATED) != 0) ||
		!walk_heap(&heap) || heap.map_differs;
	/* changed and changed back, or put back by a restore that was cut short */
	if (!differs && heap.touched && heap.entry->nblocks > 0)
	{
		testenv_change(restore->changes, first)->freespace = true;
		restore->traces = true;
	}
	if (!differs && !restore->checking)
		differs = new_index_is_doubtful(&heap);

	for (i = first + 1; i <= last && !differs; i++)
	{
		Look		index;

		if (!OidIsValid(restore->mapping->targets[i].relid))
			continue;
		look_begin(&index, restore, i, false);
		differs = !walk_index(&index, heap.touched);
	}
	relation_close(rel, NoLock);
	return differs;
}

static int
toast_entry(TestenvDirectory *dir, int entry)
{
	int			last = entry + dir->entries[entry].nchildren;
	int			i;

	for (i = entry + 1; i <= last; i++)
		if (dir->entries[i].kind == TESTENV_TOAST)
			return i;
	return last + 1;
}

/*
 * Has a table changed since the snapshot, its indexes and TOAST table
 * included?  Takes and releases the locks it needs, unless the table is
 * already locked by the restore.
 */
static TestenvLook
look_table(TestenvRestore *restore, int entry)
{
	TestenvDirectory *dir = restore->dir;
	int			last = entry + dir->entries[entry].nchildren;
	int			toast = toast_entry(dir, entry);
	Oid			relid = restore->mapping->targets[entry].relid;
	Oid			toastid = toast <= last ? restore->mapping->targets[toast].relid : InvalidOid;
	TestenvLook result = TESTENV_CHANGED;

	if (!ConditionalLockRelationOid(relid, AccessShareLock))
		return TESTENV_CHANGED;
	if (!testenv_mapping_is_current(restore->mapping))
		result = TESTENV_STALE;
	else if (!heap_differs(restore, entry, toast - 1))
	{
		if (!OidIsValid(toastid))
			result = TESTENV_CLEAN;
		else if (ConditionalLockRelationOid(toastid, AccessShareLock))
		{
			if (!testenv_mapping_is_current(restore->mapping))
				result = TESTENV_STALE;
			else if (!heap_differs(restore, toast, last))
				result = TESTENV_CLEAN;
			UnlockRelationOid(toastid, AccessShareLock);
		}
	}
	UnlockRelationOid(relid, AccessShareLock);
	return result;
}

/*
 * Is one block of a relation equal to its image?  The same locks.
 */
TestenvLook
testenv_look_block(TestenvRestore *restore, int entry, BlockNumber block)
{
	int			root = restore->mapping->root_of[entry];
	Oid			relid = restore->mapping->targets[root].relid;
	TestenvLook result = TESTENV_CHANGED;
	Look		look;

	if (!ConditionalLockRelationOid(relid, AccessShareLock))
		return TESTENV_CHANGED;
	if (!testenv_mapping_is_current(restore->mapping))
		result = TESTENV_STALE;
	else
	{
		look_begin(&look, restore, entry, false);
		look.nblocks = 1;		/* of a sequence, always */
		if (look.entry->kind != TESTENV_SEQUENCE)
			measure(&look, NULL);
		if (block < look.nblocks && candidate(&look, block))
			result = TESTENV_CLEAN;
	}
	UnlockRelationOid(relid, AccessShareLock);
	return result;
}

/* Has a sequence changed?  It is one page. */
static TestenvLook
look_sequence(TestenvRestore *restore, int entry)
{
	TestenvLook result = testenv_look_block(restore, entry, 0);

	if (result == TESTENV_CLEAN && restore->redo &&
		(restore->dir->entries[entry].flags & TESTENV_CACHED_SEQ))
		result = TESTENV_CHANGED;
	return result;
}

/* Has a table or a sequence changed since the snapshot? */
TestenvLook
testenv_look_root(TestenvRestore *restore, int root)
{
	return restore->dir->entries[root].kind == TESTENV_SEQUENCE ?
		look_sequence(restore, root) : look_table(restore, root);
}

/*
 * Does any block that the WAL names of one relation differ?  What was not cut
 * is as long as its image at least, so that it need not be measured.
 */
static bool
named_block_differs(TestenvRestore *restore, int entry)
{
	TestenvChange *change = testenv_change_of(restore->changes, entry);
	Look		look;
	int			i;

	if (change == NULL)
		return false;
	if (change->all)
		return true;
	look_begin(&look, restore, entry, false);
	if (change->cut)
	{
		measure(&look, NULL);
		if (look.nblocks != look.entry->nblocks)
			return true;
	}
	for (i = 0; i < change->nblocks; i++)
		if (change->blocks[i] >= look.entry->nblocks ||
			!candidate(&look, change->blocks[i]))
			return true;
	return false;
}

/*
 * The WAL names blocks of a table, or of what belongs to it: does any of them
 * differ?  In a test that has written, the first one does.  Where none does,
 * the table was put back by somebody, and what is not in the WAL decides: the
 * whole table is looked at.
 */
TestenvLook
testenv_look_changes(TestenvRestore *restore, int root)
{
	TestenvDirectory *dir = restore->dir;
	Oid			relid = restore->mapping->targets[root].relid;
	int			last = root + dir->entries[root].nchildren;
	Oid			toastid = InvalidOid;
	TestenvLook result = TESTENV_CLEAN;
	int			i;

	if (dir->entries[root].kind == TESTENV_SEQUENCE)
		return look_sequence(restore, root);
	if (!ConditionalLockRelationOid(relid, AccessShareLock))
		return TESTENV_CHANGED;
	if (!testenv_mapping_is_current(restore->mapping))
		result = TESTENV_STALE;
	for (i = root; i <= last && result == TESTENV_CLEAN; i++)
	{
		if (!OidIsValid(restore->mapping->targets[i].relid))
			continue;
		if (dir->entries[i].kind == TESTENV_TOAST)
		{
			if (!ConditionalLockRelationOid(restore->mapping->targets[i].relid, AccessShareLock))
			{
				result = TESTENV_CHANGED;
				break;
			}
			toastid = restore->mapping->targets[i].relid;
			if (!testenv_mapping_is_current(restore->mapping))
				result = TESTENV_STALE;
		}
		if (result == TESTENV_CLEAN && named_block_differs(restore, i))
			result = TESTENV_CHANGED;
	}
	if (OidIsValid(toastid))
		UnlockRelationOid(toastid, AccessShareLock);
	UnlockRelationOid(relid, AccessShareLock);
	return result == TESTENV_CLEAN ? look_table(restore, root) : result;
}

/*
 * The table is locked because something of it differs, and that can be an index
 * beside an untouched heap: all pages of each index are looked at.
 */
static void
collect_relation(TestenvRestore *restore, int entry)
{
	TestenvChange *change = testenv_change(restore->changes, entry);
	Look		look;

	testenv_change_reset(change);
	look_begin(&look, restore, entry, true);
	if (!look.trusted)
	{
		change->all = true;
		change->map = true;
		return;
	}
	if (look.entry->kind == TESTENV_INDEX)
	{
		(void) walk_index(&look, true);
		return;
	}
	measure(&look, NULL);
	(void) walk_heap(&look);
	change->map = look.map_differs;
}

/*
 * Collect the candidates of a table that is locked, and of all that belongs to
 * it.
 */
void
testenv_look_blocks(TestenvRestore *restore, int entry)
{
	int			last = entry + restore->dir->entries[entry].nchildren;
	int			i;

	for (i = entry; i <= last; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (OidIsValid(restore->mapping->targets[i].relid))
			collect_relation(restore, i);
	}
}

/*
 * Add the blocks of an index that say that they hold dead items.  Those marks
 * are in no WAL; the index belongs to a heap that changed.
 */
void
testenv_look_marks(TestenvRestore *restore, int entry)
{
	TestenvChange *change = testenv_change(restore->changes, entry);
	BlockNumber block;
	BlockNumber end;
	Look		look;

	look_begin(&look, restore, entry, true);
	end = look.entry->nblocks;
	if (change->cut)
	{
		measure(&look, NULL);
		end = Min(look.nblocks, end);
	}
	for (block = 0; block < end; block++)
	{
		Buffer		buffer = look_read(&look, MAIN_FORKNUM, block);
		bool		marked = may_hold_dead_items(look.entry->relam, BufferGetPage(buffer));

		UnlockReleaseBuffer(buffer);
		if (marked)
			testenv_change_block_any(restore->changes, change, block);
	}
}
