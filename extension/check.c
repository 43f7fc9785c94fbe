/*-------------------------------------------------------------------------
 *
 * check.c
 *		testenv.check_detector: is the database what it should be?
 *
 * After a restore, compares every page of every relation of the snapshot with
 * its image, whatever the detector said, and reports the first differences.
 * Hint bits that no answer depends on are left out; dead index entries are
 * not.  A table that the restore did not lock may be changed by somebody else
 * meanwhile: a difference there counts only if looking finds none.
 *
 * Slow, as slow as reading everything: for tests of testenv itself.
 *
 * Locks: AccessShareLock on each relation that is not locked already.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "storage/smgr.h"

#include "testenv.h"

#define MAX_REPORTED 10

typedef struct Check
{
	TestenvRestore *restore;
	bool		locked;			/* the table is */
	StringInfoData list;
	int			count;
} Check;

static void pg_attribute_printf(3, 4)
report(Check *check, Oid relid, const char *format,...)
{
	va_list		args;
	char		line[128];

	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	if (check->count++ < MAX_REPORTED)
		appendStringInfo(&check->list, "%s%s: %s", check->list.len > 0 ? "\n" : "",
						 testenv_relation_name(relid), line);
}

static Buffer
read_shared(const TestenvTarget *target, const TestenvEntry *entry,
			ForkNumber fork, BlockNumber block)
{
	Buffer		buffer;

	buffer = ReadBufferWithoutRelcache(target->locator, fork, block, RBM_NORMAL, NULL,
									   entry->relpersistence == RELPERSISTENCE_PERMANENT);
	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	return buffer;
}

static void
check_map(Check *check, const TestenvTarget *target, const TestenvEntry *entry,
		  SMgrRelation reln)
{
	BlockNumber have = smgrexists(reln, VISIBILITYMAP_FORKNUM) ?
		smgrnblocks(reln, VISIBILITYMAP_FORKNUM) : 0;
	BlockNumber vmblock;

	for (vmblock = 0; vmblock < TESTENV_VM_PAGES(entry->nblocks); vmblock++)
	{
		PGAlignedBlock expected;
		bool		same = false;

		testenv_vm_image(expected.data, entry->nblocks, vmblock);
		if (vmblock < have)
		{
			Buffer		buffer = read_shared(target, entry, VISIBILITYMAP_FORKNUM, vmblock);

			same = memcmp(PageGetContents(BufferGetPage(buffer)),
						  PageGetContents((Page) expected.data),
						  BLCKSZ - MAXALIGN(SizeOfPageHeaderData)) == 0;
			UnlockReleaseBuffer(buffer);
		}
		if (!same)
			report(check, target->relid, "page %u of the visibility map differs", vmblock);
	}
}

static void
check_freespace(Check *check, const TestenvTarget *target, const TestenvEntry *entry)
{
	Relation	rel = relation_open(target->relid, AccessShareLock);

	if (!testenv_same_freespace(check->restore, rel, entry, check->locked))
		report(check, target->relid, "the free space map differs");
	relation_close(rel, AccessShareLock);
}

static void
check_relation(Check *check, int number)
{
	TestenvRestore *restore = check->restore;
	const TestenvEntry *entry = &restore->dir->entries[number];
	const TestenvTarget *target = &restore->mapping->targets[number];
	SMgrRelation reln;
	BlockNumber nblocks;
	BlockNumber block;

	if (!OidIsValid(target->relid))
		return;
	reln = smgropen(target->locator, INVALID_PROC_NUMBER);
	nblocks = smgrnblocks(reln, MAIN_FORKNUM);
	if (nblocks != entry->nblocks)
		report(check, target->relid, "%u blocks, %u in the snapshot", nblocks, entry->nblocks);

	for (block = 0; block < Min(nblocks, entry->nblocks); block++)
	{
		PGAlignedBlock image;
		Buffer		buffer;

		CHECK_FOR_INTERRUPTS();
		testenv_read_image(restore, number, block, image.data, NULL);
		buffer = read_shared(target, entry, MAIN_FORKNUM, block);
		if (!testenv_same_meaning(BufferGetPage(buffer), image.data, entry))
			report(check, target->relid, "block %u differs", block);
		UnlockReleaseBuffer(buffer);
	}
	if (entry->kind == TESTENV_HEAP || entry->kind == TESTENV_TOAST)
	{
		check_map(check, target, entry, reln);
		check_freespace(check, target, entry);
	}
}

/* Check one table with all that belongs to it, or one sequence. */
static void
check_group(Check *check, int number)
{
	TestenvRestore *restore = check->restore;
	int			last = number + restore->dir->entries[number].nchildren;
	Oid			relid = restore->mapping->targets[number].relid;
	int			count = check->count;
	int			len = check->list.len;
	int			i;

	if (!ConditionalLockRelationOid(relid, AccessShareLock))
		return;
	check->locked = restore->locked[number];
	if (testenv_mapping_is_current(restore->mapping))
	{
		for (i = number; i <= last; i++)
			check_relation(check, i);
	}
	UnlockRelationOid(relid, AccessShareLock);

	/* somebody else's work since? */
	if (check->count > count && !restore->locked[number] &&
		testenv_look_root(restore, number) != TESTENV_CLEAN)
	{
		check->count = count;
		check->list.len = len;
		check->list.data[len] = '\0';
	}
}

/*
 * Compare everything with the snapshot; an ERROR names what differs.
 */
void
testenv_check_pages(TestenvRestore *restore)
{
	Check		check;
	uint32		i;

	check.restore = restore;
	check.count = 0;
	initStringInfo(&check.list);
	for (i = 0; i < restore->dir->header.nentries;
		 i += 1 + restore->dir->entries[i].nchildren)
		check_group(&check, i);

	if (check.count > 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("restored database differs from the snapshot in %d places", check.count),
				 errdetail("%s", check.list.data),
				 errhint("This is a bug in testenv: please report it. Take a new snapshot before you go on.")));
}
