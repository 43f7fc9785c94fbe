/*-------------------------------------------------------------------------
 *
 * freespace.c
 *		Free space maps: what VACUUM would write for the pages of the snapshot.
 *
 * The map decides where the next row goes, so it is part of what a restore puts
 * back.  The server writes it without WAL; VACUUM does even for a table of which
 * it changes nothing.  So that no unchanged table has to be looked at for that,
 * the map that a snapshot and a restore leave is the one that VACUUM leaves: for
 * each heap block the category of the space on its page, for each node above the
 * greater of the two below it, and fp_next_slot 0.  VACUUM of those pages finds
 * every value in place.
 *
 * The categories are computed while the pages are copied, and kept in the store:
 * for each heap one byte a block, then one byte for each leaf page of its map,
 * the greatest on it, so that the pages above are known without reading all of
 * the categories.
 *
 * Which pages of a map can be wrong?  The server sets the byte of a block to the
 * space that it has just seen on that block's page.  For a block that was not
 * changed that is the value that is there; for one that was, WAL names the
 * block.  It sets the bytes of blocks that it has just appended; what leads to
 * them lies on the path to the last block that stays.  And on each page through which it found a block it
 * sets fp_next_slot; the block is where a row is then written.  So what can be
 * wrong lies on the paths from the root to the leaves of changed blocks.  Where
 * heap or map have become shorter, or have another file, everything is compared.
 *
 * None of this survives a crash: the maps are not logged.  The state page says
 * in which life of the server they were right at the clean LSN: when the
 * postmaster started, and the random name of its control segment for dynamic
 * shared memory, which it makes anew when it starts over after the crash of a
 * backend (dsm_postmaster_startup).  In another life, which may have begun with
 * a recovery, the maps of all heaps are compared, once.  An unchanged table is
 * not locked for that.
 *
 * Like the server, a restore does not log the map.  A snapshot does: a crash
 * should not take away what it has just made.
 *
 * Maps of indexes, which list pages that can be used again, are emptied.
 *
 * Locks: the caller of each function holds one on the relation that keeps its
 * files; testenv_verify_freespace() takes AccessShareLock, if it can be had at
 * once.
 *
 * Not protected against: a serializable transaction's INSERT or UPDATE can fail
 * after it has searched the map and before it writes to the block that it found
 * (heap_insert, CheckForSerializableConflictIn): fp_next_slot, and the session's
 * own insertion target, have moved then, and nothing names the table.  And where
 * VACUUM has set fp_next_slot to 0, which it does in shared buffers only, the
 * old value comes back if it was on disk and the page is not written before it
 * is evicted.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/xloginsert.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/freespace.h"
#include "storage/fsm_internals.h"
#include "storage/lmgr.h"
#include "storage/pg_shmem.h"
#include "storage/smgr.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "testenv.h"

#define SLOTS ((BlockNumber) SlotsPerFSMPage)
#define NODES ((int) NodesPerPage)
#define FIRST_LEAF_NODE ((int) NonLeafNodesPerPage)

/* Levels of pages, the leaves being 0: enough for 2^32 - 1 heap blocks. */
#define ROOT_LEVEL (SlotsPerFSMPage >= 1626 ? 2 : 3)

#define CONTENTS_SIZE (BLCKSZ - MAXALIGN(SizeOfPageHeaderData))

/* What is done with a page that is not as it should be. */
typedef enum MapMode
{
	MAP_PUT,					/* overwrite it */
	MAP_LOG,					/* and log it */
	MAP_COMPARE					/* take note */
} MapMode;

/* The map of one heap. */
typedef struct Map
{
	Relation	rel;
	MapMode		mode;
	TestenvOwnWal *wal;
	bool		nodes_only;		/* MAP_COMPARE: without fp_next_slot */
	bool		differs;		/* MAP_COMPARE: a page does */
	BlockNumber nblocks;		/* of the heap */
	BlockNumber nleaves;
	uint8	   *maxima;			/* by leaf page */
	const uint8 *categories;	/* by block, or NULL: they are in the store */
	Relation	store;
	const TestenvDirectory *dir;
	const TestenvEntry *entry;
} Map;

/*
 * The category of the space on a heap page, as fsm_space_avail_to_cat() in the
 * server's freespace.c has it: steps of 1/256 of a page, rounded down; 255 is
 * for room for the largest row.  A page that was never initialised has the
 * space that lazy_scan_new_or_empty() in vacuumlazy.c takes it to have.
 */
uint8
testenv_freespace_category(Page page)
{
	Size		space = PageIsNew(page) ? BLCKSZ - SizeOfPageHeaderData :
		PageGetHeapFreeSpace(page);

	if (space >= MaxHeapTupleSize)
		return 255;
	return Min(space / (BLCKSZ / 256), 254);
}

/* How many leaf pages lie below one page of a level. */
static uint64
leaves_below(int level)
{
	uint64		n = 1;

	while (level-- > 0)
		n *= SLOTS;
	return n;
}

/*
 * Where is a page of the map?  They lie in the order of a walk through the tree
 * that visits a page before its children.  So before a leaf lie the leaves to
 * its left, and of each level above all pages up to its ancestor; and a page
 * lies as far before its leftmost leaf as it is high.
 */
static BlockNumber
map_block(int level, BlockNumber number)
{
	BlockNumber leaf = number * leaves_below(level);
	BlockNumber block = leaf;
	int			above;

	for (above = 1; above <= ROOT_LEVEL; above++)
		block += leaf / leaves_below(above) + 1;
	return block - level;
}

/* How many pages has a level? */
static BlockNumber
level_pages(const Map *map, int level)
{
	uint64		below = leaves_below(level);

	return (map->nleaves + below - 1) / below;
}

static BlockNumber
map_pages(const Map *map)
{
	return map->nblocks == 0 ? 0 : map_block(0, map->nleaves - 1) + 1;
}

static uint8
greatest(const uint8 *values, BlockNumber n)
{
	uint8		result = 0;
	BlockNumber i;

	for (i = 0; i < n; i++)
		result = Max(result, values[i]);
	return result;
}

/* Set the nodes above the first n leaf nodes of a page that is zero otherwise. */
static void
set_upper_nodes(uint8 *nodes, BlockNumber n)
{
	int			first = FIRST_LEAF_NODE;
	int			last = FIRST_LEAF_NODE + n - 1;

	while (first > 0)
	{
		int			node;

		first = (first - 1) / 2;
		last = (last - 1) / 2;
		for (node = first; node <= last; node++)
		{
			int			left = 2 * node + 1;
			uint8		right_value = left + 1 < NODES ? nodes[left + 1] : 0;

			nodes[node] = Max(nodes[left], right_value);
		}
	}
}

/* Compute what a page of the map has to hold. */
static void
expect_page(Map *map, int level, BlockNumber number, char *contents)
{
	FSMPage		expected = (FSMPage) contents;
	uint8	   *values = expected->fp_nodes + FIRST_LEAF_NODE;
	BlockNumber first = number * SLOTS;
	BlockNumber n;

	memset(contents, 0, CONTENTS_SIZE);
	if (level == 0)
	{
		n = Min(map->nblocks - first, SLOTS);
		if (map->categories != NULL)
			memcpy(values, map->categories + first, n);
		else
			testenv_store_bytes(map->store, map->dir->header.freespace,
								(uint64) map->entry->freespace + first,
								(char *) values, n);
	}
	else
	{
		BlockNumber below = leaves_below(level - 1);
		BlockNumber i;

		n = Min(level_pages(map, level - 1) - first, SLOTS);
		for (i = 0; i < n; i++)
		{
			BlockNumber leaf = (first + i) * below;

			values[i] = greatest(map->maxima + leaf, Min(below, map->nleaves - leaf));
		}
	}
	set_upper_nodes(expected->fp_nodes, n);

	/* a heap with one leaf page needs nothing else to know the pages above */
	if (level == 0)
		map->maxima[number] = expected->fp_nodes[0];
}

/* Bring one page to what it has to hold. */
static void
settle_page(Map *map, BlockNumber block, const char *contents)
{
	Buffer		buffer = ReadBufferExtended(map->rel, FSM_FORKNUM, block,
											RBM_ZERO_ON_ERROR, NULL);
	Page		page = BufferGetPage(buffer);
	Size		skip = map->nodes_only ? offsetof(FSMPageData, fp_nodes) : 0;
	bool		same;

	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	same = memcmp(PageGetContents(page) + skip, contents + skip, CONTENTS_SIZE - skip) == 0;
	LockBuffer(buffer, BUFFER_LOCK_UNLOCK);
	if (!same && map->mode == MAP_COMPARE)
		map->differs = true;
	else if (!same)
	{
		LockBuffer(buffer, BUFFER_LOCK_EXCLUSIVE);
		START_CRIT_SECTION();
		if (PageIsNew(page))
			PageInit(page, BLCKSZ, 0);
		memcpy(PageGetContents(page), contents, CONTENTS_SIZE);
		if (map->mode == MAP_PUT)
			MarkBufferDirtyHint(buffer, false);
		else
		{
			MarkBufferDirty(buffer);
			/* pd_lower calls all of it a hole */
			if (RelationNeedsWAL(map->rel))
				log_newpage_buffer(buffer, false);
		}
		END_CRIT_SECTION();
		LockBuffer(buffer, BUFFER_LOCK_UNLOCK);
		testenv_own_wal_note(map->wal);
	}
	ReleaseBuffer(buffer);
}

static void
settle_tree_page(Map *map, int level, BlockNumber number)
{
	PGAlignedBlock expected;

	expect_page(map, level, number, expected.data);
	settle_page(map, map_block(level, number), expected.data);
}

/*
 * How long is the map of a relation?  The storage manager's memory of it cannot
 * be too long: whoever cuts a map sends an invalidation; but others may have
 * made it longer.
 */
BlockNumber
testenv_fork_length(Relation rel, ForkNumber fork)
{
	SMgrRelation reln = RelationGetSmgr(rel);
	BlockNumber known = reln->smgr_cached_nblocks[fork];

	if ((known == InvalidBlockNumber || known == 0) && !smgrexists(reln, fork))
		return 0;
	return smgrnblocks(reln, fork);
}

/* Empty the pages of the map from a block on. */
static void
settle_rest(Map *map, BlockNumber block)
{
	static const PGAlignedBlock nothing;
	BlockNumber length = testenv_fork_length(map->rel, FSM_FORKNUM);

	for (; block < length; block++)
		settle_page(map, block, nothing.data);
}

static void
settle_all(Map *map)
{
	int			level;

	for (level = 0; map->nblocks > 0 && level <= ROOT_LEVEL; level++)
	{
		BlockNumber n = level_pages(map, level);
		BlockNumber number;

		for (number = 0; number < n; number++)
			settle_tree_page(map, level, number);
	}
	settle_rest(map, map_pages(map));
}

/*
 * Bring the pages between the root and the leaves of these blocks in order, and
 * of the last block of a heap that has grown.
 */
static void
settle_paths(Map *map, const BlockNumber *blocks, int nblocks, bool grown)
{
	int			level;

	for (level = 0; level <= ROOT_LEVEL; level++)
	{
		uint64		span = leaves_below(level) * SLOTS;
		uint64		done = 0;	/* blocks before this one are */
		int			i;

		for (i = 0; i < nblocks && blocks[i] < map->nblocks; i++)
		{
			if (blocks[i] < done)
				continue;
			settle_tree_page(map, level, blocks[i] / span);
			done = (blocks[i] / span + 1) * span;
		}
		if (grown && done < map->nblocks)
			settle_tree_page(map, level, (map->nblocks - 1) / span);
	}
}

static void
map_init(Map *map, Relation rel, BlockNumber nblocks, MapMode mode)
{
	memset(map, 0, sizeof(*map));
	map->rel = rel;
	map->mode = mode;
	map->nblocks = nblocks;
	map->nleaves = nblocks / SLOTS + (nblocks % SLOTS != 0);
}

/* The map of a heap of the snapshot. */
static void
map_open(Map *map, TestenvRestore *restore, Relation rel,
		 const TestenvEntry *entry, MapMode mode)
{
	map_init(map, rel, entry->nblocks, mode);
	map->wal = &restore->wal;
	map->store = restore->store;
	map->dir = restore->dir;
	map->entry = entry;
	map->maxima = palloc(map->nleaves + 1);
	if (map->nleaves > 1)
		testenv_store_bytes(map->store, map->dir->header.freespace,
							(uint64) entry->freespace + entry->nblocks,
							(char *) map->maxima, map->nleaves);
}

/* How many pages has the map of a heap of so many blocks? */
BlockNumber
testenv_freespace_pages(BlockNumber nblocks)
{
	Map			map;

	map_init(&map, NULL, nblocks, MAP_COMPARE);
	return map_pages(&map);
}

/*
 * Empty the free space map of a relation, in place and without WAL, as the
 * server maintains it.
 */
void
testenv_empty_fsm(Relation rel, TestenvOwnWal *wal)
{
	Map			map;

	map_init(&map, rel, 0, MAP_PUT);
	map.wal = wal;
	settle_all(&map);
}

/*
 * Make the map of a heap long enough for so many blocks; false if it was.
 */
bool
testenv_grow_freespace(Relation rel, BlockNumber nblocks)
{
	BlockNumber known = RelationGetSmgr(rel)->smgr_cached_nblocks[FSM_FORKNUM];
	Map			map;

	map_init(&map, rel, nblocks, MAP_PUT);
	if (nblocks == 0 ||
		(known != InvalidBlockNumber && known >= map_pages(&map)) ||
		testenv_fork_length(rel, FSM_FORKNUM) >= map_pages(&map))
		return false;
	RecordPageWithFreeSpace(rel, nblocks - 1, 0);
	return true;
}

/*
 * Set the map of a heap of which the pages have been copied.  The categories of
 * its blocks are the last in "bytes", from "offset" on; the greatest of each
 * leaf page is added.
 */
void
testenv_take_freespace(Relation rel, BlockNumber nblocks, StringInfo bytes, int offset)
{
	Map			map;
	BlockNumber leaf;

	Assert((BlockNumber) (bytes->len - offset) == nblocks);
	map_init(&map, rel, nblocks, MAP_LOG);
	for (leaf = 0; leaf < map.nleaves; leaf++)
	{
		BlockNumber first = leaf * SLOTS;

		appendStringInfoChar(bytes,
							 greatest((uint8 *) bytes->data + offset + first,
									  Min(SLOTS, nblocks - first)));
	}
	map.categories = (uint8 *) bytes->data + offset;
	map.maxima = (uint8 *) bytes->data + offset + nblocks;
	(void) testenv_grow_freespace(rel, nblocks);
	settle_all(&map);
}

/*
 * Put the map of a heap back: all of it, or what can be wrong if no other than
 * these blocks, ascending, were changed, and nothing has become shorter.
 * testenv_grow_freespace() has made it long enough.
 *
 * Of a heap that has grown, what leads to the appended blocks comes off as well:
 * on each level that is the last page that stays.  Pages behind it are cut off
 * next.
 */
void
testenv_put_freespace(TestenvRestore *restore, Relation rel, const TestenvEntry *entry,
					  const BlockNumber *blocks, int nblocks, bool all, bool grown)
{
	Map			map;

	map_open(&map, restore, rel, entry, MAP_PUT);
	if (all)
		settle_all(&map);
	else
		settle_paths(&map, blocks, nblocks, grown);
	pfree(map.maxima);
}

/*
 * Is the map of a heap what it has to be?  Of one that is not locked only the
 * nodes count: see above for who moves fp_next_slot and leaves no trace.
 */
bool
testenv_same_freespace(TestenvRestore *restore, Relation rel,
					   const TestenvEntry *entry, bool locked)
{
	Map			map;

	map_open(&map, restore, rel, entry, MAP_COMPARE);
	map.nodes_only = !locked;
	if (testenv_fork_length(rel, FSM_FORKNUM) < map_pages(&map))
		map.differs = true;
	else
		settle_all(&map);
	pfree(map.maxima);
	return !map.differs;
}

/* Mend the map of a heap that is not locked; false if nobody can tell. */
static bool
verify_heap(TestenvRestore *restore, int number)
{
	const TestenvEntry *entry = &restore->dir->entries[number];
	const TestenvTarget *target = &restore->mapping->targets[number];
	bool		done = false;
	Relation	rel;

	if (!OidIsValid(target->relid) ||
		!ConditionalLockRelationOid(target->relid, AccessShareLock))
		return false;
	rel = try_relation_open(target->relid, NoLock);
	if (rel != NULL)
	{
		if (RelFileLocatorEquals(rel->rd_locator, target->locator) &&
			RelationGetNumberOfBlocks(rel) >= entry->nblocks)
		{
			(void) testenv_grow_freespace(rel, entry->nblocks);
			testenv_own_wal_note(&restore->wal);
			testenv_put_freespace(restore, rel, entry, NULL, 0, true, false);
			done = true;
		}
		relation_close(rel, NoLock);
	}
	UnlockRelationOid(target->relid, AccessShareLock);
	return done;
}

static uint32
shared_memory_name(void)
{
	return ((PGShmemHeader *) UsedShmemSegAddr)->dsm_control;
}

/* Note in a state that is about to be written that all maps are right. */
void
testenv_freespace_known(TestenvStateHead *head)
{
	head->server_start = PgStartTime;
	head->shared_memory = shared_memory_name();
}

/* May a crash have taken from the maps what nothing names? */
static bool
freespace_is_doubtful(const TestenvRestore *restore)
{
	const TestenvStateHead *head = &restore->state.head;

	return !restore->speaks || head->server_start != PgStartTime ||
		head->shared_memory != shared_memory_name();
}

/*
 * Mend the maps of tables that are not locked, because nothing else of them
 * differs: of all tables, or of those that show a trace.  Called before
 * anything is put back: a map that has to grow can run out of disk.
 */
void
testenv_verify_freespace(TestenvRestore *restore)
{
	TestenvDirectory *dir = restore->dir;
	bool		complete = true;
	uint32		root;
	uint32		i;

	restore->verify_freespace = freespace_is_doubtful(restore);
	restore->freespace_known = true;
	if (!restore->verify_freespace && !restore->traces)
		return;
	for (root = 0; root < dir->header.nentries; root += 1 + dir->entries[root].nchildren)
	{
		if (restore->locked[root])
			continue;
		CHECK_FOR_INTERRUPTS();
		for (i = root; i <= root + dir->entries[root].nchildren; i++)
		{
			const TestenvChange *change = testenv_change_of(restore->changes, i);

			if (dir->entries[i].kind != TESTENV_HEAP && dir->entries[i].kind != TESTENV_TOAST)
				continue;
			if ((restore->verify_freespace || (change != NULL && change->freespace)) &&
				!verify_heap(restore, i))
				complete = false;
		}
	}
	restore->freespace_known = complete || !restore->verify_freespace;
}
