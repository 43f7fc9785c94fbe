/*-------------------------------------------------------------------------
 *
 * putback.c
 *		Puts the relations of a locked table back to their images.
 *
 * Works off the set of changes, in steps that the caller (restore.c) runs for
 * all tables before the next: grow the files, which alone can run out of disk;
 * pages; cuts; then maps, caches and statistics.  Up to the first page a
 * restore may fail and has changed nothing that anybody can see: an appended
 * empty page means nothing to any access method.
 *
 * Other sessions keep copies: of the metapages of btree, hash and SP-GiST
 * indexes in their relation caches, of the block where they inserted last in
 * their storage manager's.  Both are told at once and not at commit, because a
 * ROLLBACK of the restore's transaction would lose the message and not the
 * restore.  Standbys are told through WAL.
 *
 * Whether a materialized view may be read is in pg_class.  It is set there as
 * any catalog is, so a ROLLBACK takes it back; the next restore finds that.
 *
 * The statistics are told that the table has its old number of rows and none
 * dead, so that autovacuum does not chase a table that is fine.
 *
 * Locks: the caller holds AccessExclusiveLock on the table and its TOAST table,
 * and has locked every index that somebody can write without those.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/visibilitymap.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_am.h"
#include "commands/matview.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/bufmgr.h"
#include "storage/sinval.h"
#include "storage/smgr.h"
#include "storage/standby.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "testenv.h"

/* What a step does with one relation. */
typedef void (*PutbackStep) (TestenvRestore *restore, Relation rel,
							 const TestenvEntry *entry, TestenvChange *change);

/* Run a step for a table and everything that belongs to it. */
static void
for_each_relation(TestenvRestore *restore, int entry, PutbackStep step)
{
	int			last = entry + restore->dir->entries[entry].nchildren;
	int			i;

	for (i = entry; i <= last; i++)
	{
		TestenvChange *change = testenv_change_of(restore->changes, i);
		Oid			relid = restore->mapping->targets[i].relid;
		MemoryContext old;
		Relation	rel;

		if (change == NULL || !OidIsValid(relid))
			continue;
		old = MemoryContextSwitchTo(restore->scratch);
		rel = relation_open(relid, AccessShareLock);
		step(restore, rel, &restore->dir->entries[i], change);
		relation_close(rel, NoLock);
		MemoryContextSwitchTo(old);
		MemoryContextReset(restore->scratch);
	}
}

/* Append empty pages, so that whatever comes later cannot run out of disk. */
static void
grow_relation(TestenvRestore *restore, Relation rel, const TestenvEntry *entry,
			  TestenvChange *change)
{
	SMgrRelation reln = RelationGetSmgr(rel);

	change->length = RelationGetNumberOfBlocks(rel);
	if (change->length < entry->nblocks)
	{
#ifdef TESTENV_NO_ZEROEXTEND
		PGAlignedBlock zero;
		BlockNumber block;

		memset(zero.data, 0, BLCKSZ);
		for (block = change->length; block < entry->nblocks; block++)
		{
			CHECK_FOR_INTERRUPTS();
			smgrextend(reln, MAIN_FORKNUM, block, zero.data, false);
		}
#else
		BlockNumber block = change->length;

		while (block < entry->nblocks)
		{
			int			n = Min(entry->nblocks - block, RELSEG_SIZE / 8);

			CHECK_FOR_INTERRUPTS();
			smgrzeroextend(reln, MAIN_FORKNUM, block, n, false);
			block += n;
		}
#endif
	}

	if ((entry->kind == TESTENV_HEAP || entry->kind == TESTENV_TOAST) && entry->nblocks > 0)
	{
		Buffer		vmbuffer = InvalidBuffer;

		visibilitymap_pin(rel, entry->nblocks - 1, &vmbuffer);
		ReleaseBuffer(vmbuffer);
		if (testenv_grow_freespace(rel, entry->nblocks))
			change->freespace = true;
		testenv_own_wal_note(&restore->wal);
	}
}

void
testenv_putback_grow(TestenvRestore *restore, int entry)
{
	for_each_relation(restore, entry, grow_relation);
}

static void
add_image(TestenvRestore *restore, TestenvPageBatch *batch,
		  int entry, BlockNumber block, BufferAccessStrategy strategy)
{
	Buffer		pin;
	const char *image = testenv_pin_image(restore, entry, block,
										  testenv_batch_next_room(batch),
										  strategy, &pin);

	testenv_batch_add_image(batch, block, image, pin);
}

/*
 * Put back the blocks that did not exist when we locked the table.
 */
static void
put_new_blocks(TestenvRestore *restore, Relation rel, const TestenvEntry *entry,
			   TestenvChange *change, BufferAccessStrategy strategy)
{
	char	   *room = testenv_extent_room(entry->nblocks - change->length);
	BlockNumber block = change->length;

	while (block < entry->nblocks)
	{
		int			n = Min(entry->nblocks - block, TESTENV_EXTENT);
		int			i;

		for (i = 0; i < n; i++)
			testenv_read_image(restore, change->entry, block + i,
							   room + (Size) i * BLCKSZ, strategy);
		testenv_write_new_blocks(rel, room, block, n,
								 testenv_standard_pages(entry), &restore->wal);
		restore->npages += n;
		block += n;
	}
}

static void
put_pages(TestenvRestore *restore, Relation rel, const TestenvEntry *entry,
		  TestenvChange *change)
{
	BlockNumber common = Min(change->length, entry->nblocks);
	BlockNumber n = change->all ? common : (BlockNumber) change->nblocks;
	BufferAccessStrategy strategy = NULL;
	TestenvPageBatch batch;
	BlockNumber block;
	BlockNumber i;

	if (n == 0 && entry->nblocks <= common)
		return;
	if (entry->nblocks > (BlockNumber) NBuffers / 4)
		strategy = GetAccessStrategy(BAS_BULKREAD);
	testenv_batch_begin(&batch, rel, &restore->wal, testenv_standard_pages(entry),
						restore->room);

	for (i = 0; i < n; i++)
	{
		block = change->all ? i : change->blocks[i];
		if (block >= common)
			break;
		if (testenv_batch_full(&batch))
			testenv_batch_flush(&batch);
		add_image(restore, &batch, change->entry, block, strategy);
	}
	testenv_batch_flush(&batch);

	if (entry->nblocks > common)
		put_new_blocks(restore, rel, entry, change, strategy);

	change->metapage = batch.first_block || change->length == 0;
	if (batch.nwritten > 0 || entry->nblocks > common)
		change->wrote = true;
	restore->npages += batch.nwritten;
	if (!RelationNeedsWAL(rel) && entry->relpersistence == RELPERSISTENCE_PERMANENT)
		restore->owner_lost = true;
}

/* Make the visibility map say all-frozen, as it must for these pages. */
static void
put_map(TestenvRestore *restore, Relation rel, const TestenvEntry *entry,
		TestenvChange *change)
{
	BlockNumber vmblock;

	for (vmblock = 0; vmblock < TESTENV_VM_PAGES(entry->nblocks); vmblock++)
	{
		PGAlignedBlock image;
		Buffer		buffer;
		Page		page;

		testenv_vm_image(image.data, entry->nblocks, vmblock);
		buffer = ReadBufferExtended(rel, VISIBILITYMAP_FORKNUM, vmblock,
									RBM_ZERO_ON_ERROR, NULL);
		LockBuffer(buffer, BUFFER_LOCK_EXCLUSIVE);
		page = BufferGetPage(buffer);
		if (PageIsNew(page) ||
			memcmp(PageGetContents(page), PageGetContents((Page) image.data),
				   BLCKSZ - MAXALIGN(SizeOfPageHeaderData)) != 0)
		{
			testenv_overwrite_page(rel, buffer, image.data, &restore->wal);
			change->wrote = true;
		}
		UnlockReleaseBuffer(buffer);
	}
}

/* Tell every session, here and on standbys, to forget what it has of an index. */
void
testenv_forget_metapage(Relation index)
{
	SharedInvalidationMessage message;

	if (index->rd_amcache != NULL)
	{
		pfree(index->rd_amcache);
		index->rd_amcache = NULL;
	}
	memset(&message, 0, sizeof(message));
	message.rc.id = SHAREDINVALRELCACHE_ID;
	message.rc.dbId = MyDatabaseId;
	message.rc.relId = RelationGetRelid(index);
	SendSharedInvalidMessages(&message, 1);
	if (XLogStandbyInfoActive() && RelationNeedsWAL(index))
		LogStandbyInvalidations(1, &message, false);
}

/*
 * May the free space map of an index say what the access method would act on?
 * Hash has none, and btree looks at each page that its map names: after the
 * restore it is in use again, so the map is told so.  A cut empties the map of
 * what is no longer there.
 */
static bool
index_map_matters(Oid relam)
{
	return relam != BTREE_AM_OID && relam != HASH_AM_OID;
}

/*
 * Sessions keep the block that they inserted into last, and would go on there.
 * The message to others makes everybody close and open the files of the table.
 */
static void
forget_target_block(const TestenvRestore *restore, Relation rel)
{
	if (restore->alone)
		RelationSetTargetBlock(rel, InvalidBlockNumber);
	else
		CacheInvalidateSmgr(RelationGetSmgr(rel)->smgr_rlocator);
}

/* Both maps of a heap; of one that has grown before it is cut. */
static void
put_maps(TestenvRestore *restore, Relation rel, const TestenvEntry *entry,
		 TestenvChange *change)
{
	if (entry->kind != TESTENV_HEAP && entry->kind != TESTENV_TOAST)
		return;
	testenv_put_freespace(restore, rel, entry, change->blocks, change->nblocks,
						  change->all || change->freespace ||
						  change->length < entry->nblocks || restore->verify_freespace,
						  change->length > entry->nblocks);
	if (change->map || change->all || change->length != entry->nblocks)
		put_map(restore, rel, entry, change);
}

static void
finish_relation(TestenvRestore *restore, Relation rel, const TestenvEntry *entry,
				TestenvChange *change)
{
	if (entry->kind == TESTENV_INDEX)
	{
		if (index_map_matters(entry->relam))
			testenv_empty_fsm(rel, &restore->wal);
		if (change->metapage || change->length != entry->nblocks)
		{
			testenv_forget_metapage(rel);
			testenv_own_wal_note(&restore->wal);
		}
		return;
	}

	forget_target_block(restore, rel);
	testenv_report_vacuum(RelationGetRelid(rel), (int64) entry->ntuples);
	if (entry->kind == TESTENV_HEAP)
	{
		testenv_report_analyze(rel, (int64) entry->ntuples);
		if (rel->rd_rel->relkind == RELKIND_MATVIEW &&
			RelationIsPopulated(rel) != ((entry->flags & TESTENV_POPULATED) != 0))
		{
			SetMatViewPopulatedState(rel, (entry->flags & TESTENV_POPULATED) != 0);
			CommandCounterIncrement();
			restore->wrote_catalogs = true;
		}
	}
}

/* Pages and maps, and what goes with them where nothing has to be cut first. */
static void
put_relation(TestenvRestore *restore, Relation rel, const TestenvEntry *entry,
			 TestenvChange *change)
{
	put_pages(restore, rel, entry, change);
	put_maps(restore, rel, entry, change);
	if (change->length <= entry->nblocks)
		finish_relation(restore, rel, entry, change);
}

void
testenv_putback_pages(TestenvRestore *restore, int entry)
{
	for_each_relation(restore, entry, put_relation);
}

/*
 * Cut what has grown, all of it together, and do then what goes with its pages.
 */
void
testenv_putback_cuts(TestenvRestore *restore)
{
	List	   *grown = NIL;
	Relation   *rels;
	BlockNumber *nblocks;
	int			n;
	int			r;
	int			i;

	for (r = 0; r < restore->nroots; r++)
	{
		int			root = restore->roots[r];

		for (i = root; i <= root + (int) restore->dir->entries[root].nchildren; i++)
		{
			TestenvChange *change = testenv_change_of(restore->changes, i);

			if (change != NULL && restore->dir->entries[i].kind != TESTENV_SEQUENCE &&
				OidIsValid(restore->mapping->targets[i].relid) &&
				change->length > restore->dir->entries[i].nblocks)
				grown = lappend(grown, change);
		}
	}
	n = list_length(grown);
	if (n == 0)
		return;

	rels = palloc(sizeof(Relation) * n);
	nblocks = palloc(sizeof(BlockNumber) * n);
	for (i = 0; i < n; i++)
	{
		int			entry = ((TestenvChange *) list_nth(grown, i))->entry;

		rels[i] = relation_open(restore->mapping->targets[entry].relid, AccessShareLock);
		nblocks[i] = restore->dir->entries[entry].nblocks;
	}
	testenv_cut_files(restore, rels, nblocks, n);
	for (i = 0; i < n; i++)
	{
		TestenvChange *change = list_nth(grown, i);

		change->wrote = true;
		finish_relation(restore, rels[i], &restore->dir->entries[change->entry], change);
		relation_close(rels[i], NoLock);
	}
	list_free(grown);
	pfree(rels);
	pfree(nblocks);
}
