/*-------------------------------------------------------------------------
 *
 * page.c
 *		The page writer: pages compared, overwritten, appended, and the maps.
 *
 * Everything that testenv writes into a relation of the user goes through
 * here, except for cuts (cut.c), free space maps (freespace.c) and sequences'
 * new files (sequence.c).
 * Every page is decided about first; then one short critical section changes
 * up to TESTENV_BATCH buffers, marks them dirty, logs them and sets their LSNs.
 * Two kinds of record that every standby and every crash recovery knows can make
 * one page of any access method into another: full-page images, and the server's
 * generic records, which carry what has to be changed (delta.c).  The latter are
 * a tenth of the size where a test changed a few rows, and are taken wherever
 * they can be.
 *
 * A relation that grows back is extended with empty pages first (putback.c):
 * a heap, and every index access method, takes a zeroed page for one that has
 * not been used yet, so running out of disk then has changed nothing.  Blocks
 * that did not exist before, and that nobody else can have read since, because
 * the caller holds AccessExclusiveLock, need not go through shared buffers.
 *
 * Locks: the caller holds AccessExclusiveLock on the table.  Content locks of
 * one batch are taken in block order and held for the critical section only;
 * no page is read from disk under them.
 *
 * The visibility map is never copied: of an all-frozen heap it is a function
 * of the number of blocks.  The server leaves pd_lower of its pages where
 * everything counts as a hole, and looks at it nowhere; we set it behind the last
 * bit that is used, so that the image of a small table's map is small.
 *
 * Not protected against: somebody who writes to a relation without a lock.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/nbtree.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xloginsert.h"
#include "catalog/pg_am.h"
#include "catalog/pg_control.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/proc.h"
#include "storage/smgr.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "testenv.h"

/* pd_lsn and pd_checksum come first in a page and tell where it lies, not what it says */
#define PAGE_CONTENT_OFFSET offsetof(PageHeaderData, pd_flags)

/*
 * Are the pages of this relation laid out with a hole between pd_lower and
 * pd_upper that a full-page image may leave out?  For GIN, GiST, SP-GiST, BRIN
 * and access methods of others we do not rely on it.
 */
bool
testenv_standard_pages(const TestenvEntry *entry)
{
	return entry->kind != TESTENV_INDEX ||
		entry->relam == BTREE_AM_OID || entry->relam == HASH_AM_OID;
}

/*
 * Are two pages equal, but for LSN and checksum, and but for the hole of a
 * standard page, which a replayed full-page image leaves zeroed?
 */
bool
testenv_same_page(const char *a, const char *b, bool standard)
{
	const PageHeaderData *pa = (const PageHeaderData *) a;
	const PageHeaderData *pb = (const PageHeaderData *) b;

	if (standard &&
		pa->pd_lower == pb->pd_lower && pa->pd_upper == pb->pd_upper &&
		pa->pd_lower >= SizeOfPageHeaderData &&
		pa->pd_lower <= pa->pd_upper && pa->pd_upper <= BLCKSZ)
		return memcmp(a + PAGE_CONTENT_OFFSET, b + PAGE_CONTENT_OFFSET,
					  pa->pd_lower - PAGE_CONTENT_OFFSET) == 0 &&
			memcmp(a + pa->pd_upper, b + pa->pd_upper, BLCKSZ - pa->pd_upper) == 0;

	return memcmp(a + PAGE_CONTENT_OFFSET, b + PAGE_CONTENT_OFFSET,
				  BLCKSZ - PAGE_CONTENT_OFFSET) == 0;
}

/* Clear what PostgreSQL sets without WAL and what changes no answer. */
static void
mask_neutral_hints(char *page, const TestenvEntry *entry)
{
	PageHeader	header = (PageHeader) page;

	if (PageIsNew((Page) page))
		return;
	header->pd_prune_xid = InvalidTransactionId;
	header->pd_flags &= ~(PD_PAGE_FULL | PD_HAS_FREE_LINES);

	if (entry->kind == TESTENV_HEAP || entry->kind == TESTENV_TOAST)
	{
		OffsetNumber max = PageGetMaxOffsetNumber((Page) page);
		OffsetNumber offset;

		for (offset = FirstOffsetNumber; offset <= max; offset++)
		{
			ItemId		item = PageGetItemId((Page) page, offset);
			HeapTupleHeader tuple;

			if (!ItemIdIsNormal(item))
				continue;
			tuple = (HeapTupleHeader) PageGetItem((Page) page, item);
			if (!(tuple->t_infomask & HEAP_XMAX_COMMITTED))
				tuple->t_infomask |= HEAP_XMAX_INVALID;
		}
	}
	else if (entry->relam == BTREE_AM_OID &&
			 PageGetSpecialSize((Page) page) == MAXALIGN(sizeof(BTPageOpaqueData)))
	{
		BTPageOpaque opaque = (BTPageOpaque) PageGetSpecialPointer((Page) page);

		opaque->btpo_cycleid = 0;
		opaque->btpo_flags &= ~(BTP_HAS_GARBAGE | BTP_SPLIT_END);
	}
}

/*
 * Do two pages say the same?  Weaker than testenv_same_page(): hint bits that
 * were set before the snapshot and lost in a crash are no difference.  Dead
 * index entries are: they hide rows.
 */
bool
testenv_same_meaning(const char *a, const char *b, const TestenvEntry *entry)
{
	PGAlignedBlock x;
	PGAlignedBlock y;

	if (testenv_same_page(a, b, testenv_standard_pages(entry)))
		return true;
	memcpy(x.data, a, BLCKSZ);
	memcpy(y.data, b, BLCKSZ);
	mask_neutral_hints(x.data, entry);
	mask_neutral_hints(y.data, entry);
	return testenv_same_page(x.data, y.data, testenv_standard_pages(entry));
}

/*
 * Page vmblock of the visibility map of a heap of nblocks all-frozen blocks.
 */
void
testenv_vm_image(char *page, BlockNumber nblocks, BlockNumber vmblock)
{
	BlockNumber first = vmblock * TESTENV_HEAP_BLOCKS_PER_VM_PAGE;
	BlockNumber n = nblocks > first ? nblocks - first : 0;
	unsigned char *map;

	n = Min(n, TESTENV_HEAP_BLOCKS_PER_VM_PAGE);
	PageInit((Page) page, BLCKSZ, 0);
	map = (unsigned char *) PageGetContents((Page) page);
	memset(map, 0xff, n / 4);
	if (n % 4 != 0)
		map[n / 4] = (1 << (2 * (n % 4))) - 1;
	((PageHeader) page)->pd_lower = MAXALIGN(SizeOfPageHeaderData) + (n + 3) / 4;
}

/*
 * The two forms of a WAL position: where a record ended, and where the next
 * one starts.  They differ at page boundaries, by the page's header.
 * GetXLogInsertRecPtr() gives the second; XLogFlush() and XactLastRecEnd take
 * the first.
 */
XLogRecPtr
testenv_lsn_end(XLogRecPtr lsn)
{
	if (XLogSegmentOffset(lsn, wal_segment_size) == SizeOfXLogLongPHD)
		return lsn - SizeOfXLogLongPHD;
	if (lsn % XLOG_BLCKSZ == SizeOfXLogShortPHD)
		return lsn - SizeOfXLogShortPHD;
	return lsn;
}

XLogRecPtr
testenv_lsn_start(XLogRecPtr lsn)
{
	if (XLogSegmentOffset(lsn, wal_segment_size) == 0)
		return lsn + SizeOfXLogLongPHD;
	if (lsn % XLOG_BLCKSZ == 0)
		return lsn + SizeOfXLogShortPHD;
	return lsn;
}

/*
 * Follow which WAL is our own.  As long as each of our records starts where the
 * one before ended, nobody else has written anything since, and the clean LSN
 * may move past all of it.
 */
void
testenv_own_wal_start(TestenvOwnWal *wal, XLogRecPtr end)
{
	wal->last = ProcLastRecPtr;
	wal->end = end;
	wal->contiguous = true;
}

void
testenv_own_wal_note(TestenvOwnWal *wal)
{
	if (wal == NULL || wal->last == ProcLastRecPtr)
		return;
	wal->last = ProcLastRecPtr;
	if (wal->contiguous && ProcLastRecPtr == wal->end)
		wal->end = testenv_lsn_start(XactLastRecEnd);
	else
		wal->contiguous = false;
}

/* Log what is registered as a record of our own, with the mark of this restore. */
static XLogRecPtr
log_own(TestenvOwnWal *wal, RmgrId rmid, uint8 info)
{
	XLogRecPtr	recptr;

	if (wal != NULL && wal->mark.magic == TESTENV_MARK_MAGIC)
		XLogRegisterData((char *) &wal->mark, sizeof(wal->mark));
	recptr = XLogInsert(rmid, info);
	testenv_own_wal_note(wal);
	return recptr;
}

/*
 * Room for the images and deltas of a batch, the images aligned for direct I/O.
 * One operation uses it for all its relations: a fresh 320 kB each would go back
 * to the kernel every time.
 */
char *
testenv_batch_room(void)
{
	char	   *raw = palloc(TESTENV_BATCH * BLCKSZ + TESTENV_DELTAS + TESTENV_IO_ALIGN);

	return (char *) TYPEALIGN(TESTENV_IO_ALIGN, raw);
}

/* A batch of pages of one relation's main fork. */
void
testenv_batch_begin(TestenvPageBatch *batch, Relation rel, TestenvOwnWal *wal,
					bool standard, char *room)
{
	memset(batch, 0, sizeof(*batch));
	batch->rel = rel;
	batch->wal = wal;
	batch->standard = standard;
	/* each page of a batch is pinned, and shared buffers can be few */
	batch->limit = Max(1, Min(TESTENV_BATCH, NBuffers / 8));
	batch->images = room;
	batch->deltas = room + TESTENV_BATCH * BLCKSZ;
}

bool
testenv_batch_full(const TestenvPageBatch *batch)
{
	return batch->npages >= batch->limit;
}

/* Room for the image of one more block; the caller fills it. */
char *
testenv_batch_add(TestenvPageBatch *batch, BlockNumber block)
{
	char	   *room = batch->images + (Size) batch->npages * BLCKSZ;

	testenv_batch_add_image(batch, block, room, InvalidBuffer);
	return room;
}

/* Add a block with its image, which lies in a buffer that the batch releases. */
void
testenv_batch_add_image(TestenvPageBatch *batch, BlockNumber block,
						const char *image, Buffer pin)
{
	Assert(!testenv_batch_full(batch));
	batch->blocks[batch->npages] = block;
	batch->sources[batch->npages] = image;
	batch->pins[batch->npages++] = pin;
}

/* Room for an image that testenv_batch_add_image() is about to be told of. */
char *
testenv_batch_next_room(TestenvPageBatch *batch)
{
	return batch->images + (Size) batch->npages * BLCKSZ;
}

/*
 * What is logged of a page that is about to be overwritten: a delta of so many
 * bytes, or the whole of it.
 */
typedef struct PageLog
{
	const char *delta;
	int			length;			/* -1: the whole of it */
} PageLog;

/* Decide what is logged of the pages of a batch; returns how many as a whole. */
static int
make_deltas(const TestenvPageBatch *batch, const Buffer *buffers,
			const char *const *images, int nbuffers, PageLog *logs)
{
	bool		heap = batch->rel->rd_rel->relkind != RELKIND_INDEX;
	char	   *room = batch->deltas;
	int			nimages = 0;
	int			i;

	for (i = 0; i < nbuffers; i++)
	{
		logs[i].delta = room;
		logs[i].length = !batch->standard ? -1 :
			testenv_delta(BufferGetPage(buffers[i]), images[i], heap, room,
						  batch->deltas + TESTENV_DELTAS - room);
		if (logs[i].length < 0)
			nimages++;
		else
			room += logs[i].length;
	}
	return nimages;
}

/* Log the deltas: a generic record has room for four pages. */
static void
log_deltas(TestenvPageBatch *batch, const Buffer *buffers, int nbuffers,
		   const PageLog *logs)
{
	int			i = 0;

	for (;;)
	{
		Page		pages[XLR_NORMAL_MAX_BLOCK_ID];
		XLogRecPtr	recptr;
		int			n = 0;

		for (; i < nbuffers && n < (int) lengthof(pages); i++)
		{
			if (logs[i].length < 0)
				continue;
			if (n == 0)
				XLogBeginInsert();
			XLogRegisterBuffer(n, buffers[i], REGBUF_STANDARD);
			XLogRegisterBufData(n, (char *) logs[i].delta, logs[i].length);
			pages[n++] = BufferGetPage(buffers[i]);
		}
		if (n == 0)
			break;
		recptr = log_own(batch->wal, RM_GENERIC_ID, 0);
		while (n-- > 0)
			PageSetLSN(pages[n], recptr);
	}
}

/* Log the other pages as full-page images, in one record. */
static void
log_images(TestenvPageBatch *batch, const Buffer *buffers, int nbuffers,
		   const PageLog *logs)
{
	XLogRecPtr	recptr;
	int			n = 0;
	int			i;

	XLogBeginInsert();
	for (i = 0; i < nbuffers; i++)
		if (logs[i].length < 0)
			XLogRegisterBuffer(n++, buffers[i],
							   REGBUF_FORCE_IMAGE |
							   (batch->standard ? REGBUF_STANDARD : 0));
	recptr = log_own(batch->wal, RM_XLOG_ID, XLOG_FPI);
	for (i = 0; i < nbuffers; i++)
	{
		Page		page = BufferGetPage(buffers[i]);

		/* an LSN would make an uninitialised page look like a broken one */
		if (logs[i].length < 0 && !PageIsNew(page))
			PageSetLSN(page, recptr);
	}
}

/* Overwrite buffers with their images, and log that. */
static void
overwrite(TestenvPageBatch *batch, const Buffer *buffers,
		  const char *const *images, int nbuffers)
{
	bool		needs_wal = RelationNeedsWAL(batch->rel);
	PageLog		logs[TESTENV_BATCH];
	int			nimages;
	int			i;

	if (nbuffers > XLR_NORMAL_MAX_BLOCK_ID + 1)
		XLogEnsureRecordSpace(nbuffers - 1, 0);
	for (i = 0; i < nbuffers; i++)
		LockBuffer(buffers[i], BUFFER_LOCK_EXCLUSIVE);
	nimages = make_deltas(batch, buffers, images, nbuffers, logs);

	START_CRIT_SECTION();

	for (i = 0; i < nbuffers; i++)
	{
		Page		page = BufferGetPage(buffers[i]);

		/* keeps the LSN, by which the server decides whether to log an image instead */
		if (logs[i].length >= 0)
			testenv_delta_apply(page, logs[i].delta, logs[i].length);
		else
			memcpy(page, images[i], BLCKSZ);
		MarkBufferDirty(buffers[i]);
	}
	if (needs_wal)
	{
		log_deltas(batch, buffers, nbuffers, logs);
		if (nimages > 0)
			log_images(batch, buffers, nbuffers, logs);
	}

	END_CRIT_SECTION();

	for (i = 0; i < nbuffers; i++)
		UnlockReleaseBuffer(buffers[i]);
}

/*
 * Overwrite the blocks of the batch, as far as they differ, through shared
 * buffers.
 */
void
testenv_batch_flush(TestenvPageBatch *batch)
{
	Relation	rel = batch->rel;
	Buffer		buffers[TESTENV_BATCH];
	const char *images[TESTENV_BATCH];
	int			nbuffers = 0;
	int			i;

	for (i = 0; i < batch->npages; i++)
	{
		const char *image = batch->sources[i];
		Buffer		buffer;
		bool		same;

		buffer = ReadBufferExtended(rel, MAIN_FORKNUM, batch->blocks[i],
									RBM_NORMAL, NULL);
		LockBuffer(buffer, BUFFER_LOCK_SHARE);
		same = testenv_same_page(BufferGetPage(buffer), image, batch->standard);
		LockBuffer(buffer, BUFFER_LOCK_UNLOCK);
		if (same)
		{
			ReleaseBuffer(buffer);
			continue;
		}
		if (batch->blocks[i] == 0)
			batch->first_block = true;
		buffers[nbuffers] = buffer;
		images[nbuffers++] = image;
	}
	if (nbuffers > 0)
	{
		overwrite(batch, buffers, images, nbuffers);
		batch->nwritten += nbuffers;
	}
	for (i = 0; i < batch->npages; i++)
		if (BufferIsValid(batch->pins[i]))
			ReleaseBuffer(batch->pins[i]);
	batch->npages = 0;
}

/*
 * Overwrite one page of the visibility map with what the caller has made.  It
 * holds the buffer locked exclusively.
 */
void
testenv_overwrite_page(Relation rel, Buffer buffer, const char *image,
					   TestenvOwnWal *wal)
{
	Page		page = BufferGetPage(buffer);

	START_CRIT_SECTION();
	memcpy(page, image, BLCKSZ);
	MarkBufferDirty(buffer);
	if (RelationNeedsWAL(rel))
	{
		XLogRecPtr	recptr;

		XLogBeginInsert();
		XLogRegisterBuffer(0, buffer, REGBUF_FORCE_IMAGE | REGBUF_STANDARD);
		recptr = log_own(wal, RM_XLOG_ID, XLOG_FPI);
		/* a macro in 15, which takes it twice */
		PageSetLSN(page, recptr);
	}
	END_CRIT_SECTION();
}

/* Log pages that are in no buffer, as they are to be, in one record. */
static void
log_pages(Relation rel, char *images, BlockNumber first, int npages,
		  bool standard, TestenvOwnWal *wal)
{
	uint8		flags = REGBUF_FORCE_IMAGE | (standard ? REGBUF_STANDARD : 0);
	XLogRecPtr	recptr;
	int			i;

	if (npages > XLR_NORMAL_MAX_BLOCK_ID + 1)
		XLogEnsureRecordSpace(npages - 1, 0);
	XLogBeginInsert();
	for (i = 0; i < npages; i++)
		XLogRegisterBlock(i, &rel->rd_locator, MAIN_FORKNUM, first + i,
						  images + (Size) i * BLCKSZ, flags);
	recptr = log_own(wal, RM_XLOG_ID, XLOG_FPI);
	for (i = 0; i < npages; i++)
	{
		Page		page = (Page) (images + (Size) i * BLCKSZ);

		if (!PageIsNew(page))
			PageSetLSN(page, recptr);
	}
}

/*
 * Log a batch of pages of a fork as they are to be, and write them past shared
 * buffers.  "extend": the blocks do not exist yet.
 *
 * The WAL comes first, and has to be on disk: a page that is ahead of its WAL
 * would make recovery skip changes.  Not so for a file that is new in this
 * transaction, because it is nobody's after a crash.
 *
 * DELAY_CHKPT_START keeps a checkpoint from placing its redo point between the
 * record and the write whose fsync it would then not know of.  It is cleared
 * on error by the end of the transaction.
 */
static void
log_and_write(Relation rel, char *images, BlockNumber first, int npages,
			  bool standard, bool extend, TestenvOwnWal *wal)
{
	SMgrRelation reln = RelationGetSmgr(rel);
	bool		needs_wal = RelationNeedsWAL(rel);
	bool		skip_fsync = !needs_wal &&
		rel->rd_rel->relpersistence == RELPERSISTENCE_PERMANENT;
	int			i;

	Assert((MyProc->delayChkptFlags & DELAY_CHKPT_START) == 0);
	MyProc->delayChkptFlags |= DELAY_CHKPT_START;
	for (i = 0; needs_wal && i < npages; i += TESTENV_BATCH)
		log_pages(rel, images + (Size) i * BLCKSZ, first + i,
				  Min(TESTENV_BATCH, npages - i), standard, wal);
	if (needs_wal && !extend)
		XLogFlush(XactLastRecEnd);

	for (i = 0; i < npages; i++)
	{
		char	   *page = images + (Size) i * BLCKSZ;

		PageSetChecksumInplace((Page) page, first + i);
		if (extend)
			smgrextend(reln, MAIN_FORKNUM, first + i, page, skip_fsync);
		else
			smgrwrite(reln, MAIN_FORKNUM, first + i, page, skip_fsync);
	}
	MyProc->delayChkptFlags &= ~DELAY_CHKPT_START;
}

/*
 * Append the pages of the batch to a relation that this transaction made, so
 * that a crash leaves nothing of it.
 */
void
testenv_batch_append(TestenvPageBatch *batch)
{
	if (batch->npages > 0)
		log_and_write(batch->rel, batch->images, batch->blocks[0], batch->npages,
					  batch->standard, true, batch->wal);
	batch->npages = 0;
}

/* Room for the pages of testenv_write_new_blocks(). */
char *
testenv_extent_room(BlockNumber npages)
{
	char	   *raw = palloc((Size) Min(npages, TESTENV_EXTENT) * BLCKSZ + TESTENV_IO_ALIGN);

	return (char *) TYPEALIGN(TESTENV_IO_ALIGN, raw);
}

/*
 * Write consecutive blocks that were added as empty pages while the relation
 * was locked, so that nobody else has read them.  At most TESTENV_EXTENT at a
 * time: the WAL is flushed once for each call.
 */
void
testenv_write_new_blocks(Relation rel, char *images, BlockNumber first,
						 int npages, bool standard, TestenvOwnWal *wal)
{
	log_and_write(rel, images, first, npages, standard, false, wal);
}
