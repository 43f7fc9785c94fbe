/*-------------------------------------------------------------------------
 *
 * sequence.c
 *		Sequences: one page, overwritten in place.
 *
 * nextval logs only every 32nd value; but with log_cnt = 0 the next call is
 * always logged.  So a snapshot sets log_cnt to 0, and a restore that
 * overwrites the page keeps it so.  Overwriting takes RowExclusiveLock, as
 * nextval does: a session that idles in a transaction after nextval is not in
 * the way.
 *
 * A sequence with CACHE > 1 is another matter, because sessions hold values
 * that they have fetched already, and drop them only when the sequence gets
 * another relfilenumber.  It gets one, at the snapshot and at each restore
 * that finds it changed, under AccessExclusiveLock; and the old file is
 * overwritten too, since ROLLBACK brings that one back.  (After a ROLLBACK the
 * next restore makes the new file again; see state.c.)
 *
 * Not protected against: currval() and lastval() of sessions, which are theirs.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/xact.h"
#include "access/xloginsert.h"
#include "catalog/storage_xlog.h"
#include "commands/sequence.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/smgr.h"
#include "utils/rel.h"

#include "testenv.h"

/* Write a page as the only one of a fork that is empty yet. */
static void
write_first_page(Relation rel, ForkNumber fork, const char *image)
{
	Buffer		buffer = ReadBufferExtended(rel, fork, P_NEW, RBM_ZERO_AND_LOCK, NULL);

	START_CRIT_SECTION();
	memcpy(BufferGetPage(buffer), image, BLCKSZ);
	MarkBufferDirty(buffer);
	if (RelationNeedsWAL(rel) || fork == INIT_FORKNUM)
		log_newpage_buffer(buffer, true);
	END_CRIT_SECTION();
	UnlockReleaseBuffer(buffer);
}

/*
 * Give a sequence another file with this page, so that sessions drop the
 * values that they have cached.  Transactional.
 */
static void
move_to_new_file(Relation rel, const char *image)
{
	RelationSetNewRelfilenumber(rel, rel->rd_rel->relpersistence);
	write_first_page(rel, MAIN_FORKNUM, image);
	if (rel->rd_rel->relpersistence == RELPERSISTENCE_UNLOGGED)
	{
		smgrcreate(RelationGetSmgr(rel), INIT_FORKNUM, false);
		log_smgrcreate(&rel->rd_locator, INIT_FORKNUM);
		write_first_page(rel, INIT_FORKNUM, image);
		FlushRelationBuffers(rel);
	}
	CommandCounterIncrement();
}

/* Overwrite the page of a sequence's file, which may no longer be the current one. */
static void
overwrite(Relation rel, RelFileLocator locator, const char *image, TestenvOwnWal *wal)
{
	bool		permanent = rel->rd_rel->relpersistence == RELPERSISTENCE_PERMANENT;
	Buffer		buffer = ReadBufferWithoutRelcache(locator, MAIN_FORKNUM, 0,
												   RBM_NORMAL, NULL, permanent);

	LockBuffer(buffer, BUFFER_LOCK_EXCLUSIVE);
	START_CRIT_SECTION();
	memcpy(BufferGetPage(buffer), image, BLCKSZ);
	MarkBufferDirty(buffer);
	if (permanent)
		log_newpage_buffer(buffer, true);
	END_CRIT_SECTION();
	UnlockReleaseBuffer(buffer);
	testenv_own_wal_note(wal);
}

/*
 * Bring a sequence to the state in which its page can be an image, log_cnt 0,
 * and copy the page.  The caller holds AccessShareLock.
 */
void
testenv_sequence_copy(Relation rel, char *image)
{
	Buffer		buffer = ReadBuffer(rel, 0);
	Page		page = (Page) image;
	Form_pg_sequence_data data;
	HeapTupleHeader tuple;

	/* between the two, under one lock, nobody can log ahead again */
	LockBuffer(buffer, BUFFER_LOCK_EXCLUSIVE);
	memcpy(image, BufferGetPage(buffer), BLCKSZ);
	tuple = (HeapTupleHeader) PageGetItem(page, PageGetItemId(page, FirstOffsetNumber));
	data = (Form_pg_sequence_data) ((char *) tuple + tuple->t_hoff);
	if (data->log_cnt != 0)
	{
		data->log_cnt = 0;
		START_CRIT_SECTION();
		memcpy(BufferGetPage(buffer), image, BLCKSZ);
		MarkBufferDirty(buffer);
		if (RelationNeedsWAL(rel))
			log_newpage_buffer(buffer, true);
		END_CRIT_SECTION();
	}
	UnlockReleaseBuffer(buffer);
}

/*
 * Make sessions drop the values that they have cached of a sequence, before
 * its page is copied.  The caller holds AccessExclusiveLock.
 */
void
testenv_sequence_uncache(Oid relid)
{
	Relation	rel = relation_open(relid, AccessExclusiveLock);
	PGAlignedBlock image;

	testenv_guard_unused(rel, "take");
	testenv_sequence_copy(rel, image.data);
	move_to_new_file(rel, image.data);
	relation_close(rel, NoLock);
}

/*
 * Give a sequence of which sessions cache values its new file, with the image
 * in it already.  Nothing has been put back yet: if the disk is full, the
 * transaction's end takes the file away.  The caller holds AccessExclusiveLock.
 */
void
testenv_sequence_prepare(TestenvRestore *restore, int entry)
{
	Relation	rel;
	PGAlignedBlock image;

	if (!(restore->dir->entries[entry].flags & TESTENV_CACHED_SEQ))
		return;
	rel = relation_open(restore->mapping->targets[entry].relid, AccessExclusiveLock);
	testenv_guard_unused(rel, "restore");
	testenv_read_image(restore, entry, 0, image.data, NULL);
	move_to_new_file(rel, image.data);
	restore->wrote_catalogs = true;
	relation_close(rel, NoLock);
}

/*
 * Put a sequence back: the file it had when it was looked at.  The caller holds
 * RowExclusiveLock.
 */
void
testenv_sequence_putback(TestenvRestore *restore, int entry)
{
	Relation	rel = relation_open(restore->mapping->targets[entry].relid,
									RowExclusiveLock);
	PGAlignedBlock image;

	testenv_read_image(restore, entry, 0, image.data, NULL);
	overwrite(rel, restore->mapping->targets[entry].locator, image.data, &restore->wal);
	relation_close(rel, NoLock);
}
