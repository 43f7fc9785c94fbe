/*-------------------------------------------------------------------------
 *
 * cut.c
 *		Cuts the files of relations that have grown.
 *
 * RelationTruncate() does this for one relation: it flushes the WAL, and goes
 * through all of shared buffers for pages that are to be forgotten.  A test that
 * inserts into a few tables lets each of them and their indexes grow, and then
 * those two were most of what a restore cost.  So here all files are cut
 * together: one flush, and only the buffers of the blocks in question.
 *
 * The latter is what the server does in recovery (DropRelationBuffers): it looks
 * the blocks up one by one if it knows how long each fork is.  Outside of
 * recovery it does not believe its own memory of that, because another backend
 * may make a file longer at any time.  Nobody can here: the caller holds
 * AccessExclusiveLock, and the lengths have just been asked for.  InRecovery is
 * this process's own variable, and while it is set nothing is called but
 * smgrtruncate().
 *
 * The order is RelationTruncate()'s: the cut is logged and the WAL flushed before
 * any file is cut; no checkpoint begins or completes meanwhile, because buffers
 * are dropped that it would otherwise have written.  All of that is in a
 * critical section: a failure in the middle would leave files with old contents
 * where newer ones have been forgotten.
 *
 * The maps of a heap need no preparation.  The caller has put them back before,
 * so that they say nothing of the blocks that are cut off (putback.c); recovery
 * prepares them by itself (smgr_redo).
 *
 * Locks: the caller holds AccessExclusiveLock on the tables.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "access/xloginsert.h"
#include "access/xlogutils.h"
#include "catalog/storage.h"
#include "catalog/storage_xlog.h"
#include "miscadmin.h"
#include "storage/freespace.h"
#include "storage/proc.h"
#include "storage/smgr.h"
#include "utils/rel.h"

#include "testenv.h"

/* Forks that a cut may touch: main, free space map, visibility map */
#define MAX_CUT_FORKS 3

typedef struct Cut
{
	Relation	rel;
	int			nforks;
	ForkNumber	forks[MAX_CUT_FORKS];
	BlockNumber old[MAX_CUT_FORKS];
	BlockNumber new[MAX_CUT_FORKS];
	bool		freespace;		/* the free space map of an index was prepared */
} Cut;

/* Add a fork, with its length of now, which also opens its file. */
static void
add_fork(Cut *cut, ForkNumber fork, BlockNumber nblocks)
{
	cut->forks[cut->nforks] = fork;
	cut->old[cut->nforks] = smgrnblocks(RelationGetSmgr(cut->rel), fork);
	cut->new[cut->nforks++] = nblocks;
}

/* What is done before a cut is logged, and may fail. */
static void
prepare_cut(Cut *cut, Relation rel, BlockNumber nblocks)
{
	memset(cut, 0, sizeof(*cut));
	cut->rel = rel;
	RelationGetSmgr(rel)->smgr_targblock = InvalidBlockNumber;
	if (rel->rd_rel->relkind != RELKIND_INDEX)
	{
		BlockNumber map = testenv_freespace_pages(nblocks);

		if (testenv_fork_length(rel, FSM_FORKNUM) > map)
			add_fork(cut, FSM_FORKNUM, map);
		map = TESTENV_VM_PAGES(nblocks);
		if (testenv_fork_length(rel, VISIBILITYMAP_FORKNUM) > map)
			add_fork(cut, VISIBILITYMAP_FORKNUM, map);
	}
	else if (testenv_fork_length(rel, FSM_FORKNUM) > 0)
	{
		BlockNumber map = FreeSpaceMapPrepareTruncateRel(rel, nblocks);

		cut->freespace = BlockNumberIsValid(map);
		if (cut->freespace)
			add_fork(cut, FSM_FORKNUM, map);
	}
	add_fork(cut, MAIN_FORKNUM, nblocks);
	RelationPreTruncate(rel);
}

static XLogRecPtr
log_cut(Relation rel, BlockNumber nblocks)
{
	xl_smgr_truncate record;

	memset(&record, 0, sizeof(record));
	record.blkno = nblocks;
	memcpy(&record.rlocator, &rel->rd_locator, sizeof(record.rlocator));
	record.flags = SMGR_TRUNCATE_ALL;
	XLogBeginInsert();
	XLogRegisterData((char *) &record, sizeof(record));
	return XLogInsert(RM_SMGR_ID, XLOG_SMGR_TRUNCATE | XLR_SPECIAL_REL_UPDATE);
}

/* Drop the buffers of what is cut off, and cut. */
static void
cut_file(Cut *cut)
{
	bool		was_in_recovery = InRecovery;

	InRecovery = true;
	testenv_smgrtruncate(RelationGetSmgr(cut->rel), cut->forks, cut->nforks,
						 cut->old, cut->new);
	InRecovery = was_in_recovery;
}

/*
 * Cut relations to a number of blocks each.  They are open, and longer than
 * that.
 */
void
testenv_cut_files(TestenvRestore *restore, Relation *rels,
				  const BlockNumber *nblocks, int n)
{
	Cut		   *cuts = palloc(sizeof(Cut) * (Size) n);
	XLogRecPtr	last = InvalidXLogRecPtr;
	int			i;

	for (i = 0; i < n; i++)
	{
		prepare_cut(&cuts[i], rels[i], nblocks[i]);
		testenv_own_wal_note(&restore->wal);
	}

	Assert((MyProc->delayChkptFlags & (DELAY_CHKPT_START | DELAY_CHKPT_COMPLETE)) == 0);
	MyProc->delayChkptFlags |= DELAY_CHKPT_START | DELAY_CHKPT_COMPLETE;
	START_CRIT_SECTION();
	for (i = 0; i < n; i++)
	{
		if (!RelationNeedsWAL(rels[i]))
			continue;
		last = log_cut(rels[i], nblocks[i]);
		testenv_own_wal_note(&restore->wal);
	}
	if (!XLogRecPtrIsInvalid(last))
		XLogFlush(last);
	for (i = 0; i < n; i++)
		cut_file(&cuts[i]);
	END_CRIT_SECTION();
	MyProc->delayChkptFlags &= ~(DELAY_CHKPT_START | DELAY_CHKPT_COMPLETE);

	for (i = 0; i < n; i++)
	{
		if (cuts[i].freespace)
			FreeSpaceMapVacuumRange(rels[i], nblocks[i], InvalidBlockNumber);
		testenv_own_wal_note(&restore->wal);
	}
	pfree(cuts);
}
