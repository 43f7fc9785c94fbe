/*-------------------------------------------------------------------------
 *
 * state.c
 *		The state page: which snapshot the database equals, and since when.
 *
 * One page per database says: at WAL position clean_lsn this database was equal
 * to the snapshot owner_id.  That stays true whatever happens later, so a
 * clean LSN that is too old is merely slow; one that is too new is corruption.
 * Hence the protocol:
 *
 *	- a restore takes the new clean LSN before its last look at the tables that
 *	  it does not lock, and writes it after the last page was put back; the
 *	  page's LSN keeps it off the disk until the WAL of those pages is there;
 *	- a restore that is cut short, by an ERROR or by kill -9, has not written
 *	  it: the next one looks from the old position, and finds all that changed;
 *	- a restore of another snapshot than the owner first writes "equal to none",
 *	  logged before the first page: states per snapshot would be wrong, because
 *	  pages put back for one of them are changes for every other.
 *
 * The page speaks of a store only if all of this holds: it was written in this
 * database (a clone has another OID), by this system, on this timeline, for a
 * store with that OID and that random id (a snapshot that was rolled back is
 * gone), at a position that the WAL has reached (pg_resetwal can set it back).
 * Otherwise every page of every relation is compared, once.
 *
 * A relation that has another relfilenumber than the snapshot's, because a
 * test rewrote it, and was compared since, is listed as an override; what does
 * not fit on the page is compared each time.
 *
 * Some of a restore is not pages: relfilenumbers of sequences whose values
 * sessions cache, who owns large objects, whether a materialized view may be
 * read, whether an index that the rows do not fit is maintained.  That is in
 * catalogs and goes with a ROLLBACK.  So the page names the transaction of a
 * restore that changed catalogs, and if it did not commit, the next restore
 * does that part again.
 *
 * The page is not transactional: ROLLBACK takes back neither a restore nor the
 * page.  It lies in testenv_store.state, made by the first snapshot.
 *
 * Locks: the extension's lock (locks.c) for writing; the buffer's for reading.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/table.h"
#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "access/xloginsert.h"
#include "access/xlogrecovery.h"
#include "catalog/pg_control.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "testenv.h"

#define STATE_MAGIC 0x7E575747
#define STATE_FORMAT 3

static Oid
state_relation_oid(void)
{
	return get_relname_relid(TESTENV_STATE_RELATION, testenv_schema_oid());
}

/* Where WAL is inserted, or replayed up to, and on which timeline. */
static XLogRecPtr
current_position(TimeLineID *timeline)
{
	if (RecoveryInProgress())
		return GetXLogReplayRecPtr(timeline);
	*timeline = GetWALInsertionTimeLine();
	return GetXLogInsertRecPtr();
}

/*
 * Read the state.  False, and all zero, if there is none yet.
 */
bool
testenv_state_read(TestenvState *state)
{
	Oid			relid = state_relation_oid();
	Relation	rel;

	memset(state, 0, sizeof(*state));
	if (!OidIsValid(relid))
		return false;

	rel = relation_open(relid, AccessShareLock);
	if (RelationGetNumberOfBlocks(rel) > 0)
	{
		Buffer		buffer = ReadBuffer(rel, 0);
		char	   *contents;

		LockBuffer(buffer, BUFFER_LOCK_SHARE);
		contents = PageGetContents(BufferGetPage(buffer));
		memcpy(&state->head, contents, sizeof(state->head));
		if (state->head.magic == STATE_MAGIC &&
			state->head.format == STATE_FORMAT &&
			state->head.noverrides <= TESTENV_MAX_OVERRIDES)
			memcpy(state->overrides, contents + sizeof(state->head),
				   sizeof(TestenvOverride) * state->head.noverrides);
		else
			memset(&state->head, 0, sizeof(state->head));
		UnlockReleaseBuffer(buffer);
	}
	relation_close(rel, AccessShareLock);
	return state->head.magic == STATE_MAGIC;
}

bool
testenv_state_speaks_of(const TestenvState *state, const TestenvDirectory *dir)
{
	TimeLineID	timeline;
	XLogRecPtr	position = current_position(&timeline);

	return state->head.magic == STATE_MAGIC &&
		state->head.major == PG_MAJORVERSION_NUM &&
		state->head.database == MyDatabaseId &&
		state->head.system_identifier == GetSystemIdentifier() &&
		state->head.timeline == timeline &&
		state->head.owner == dir->storeid &&
		state->head.owner_id == dir->header.id &&
		!XLogRecPtrIsInvalid(state->head.clean_lsn) &&
		state->head.clean_lsn <= position;
}

/*
 * Begin a new state of this database: what the old one counts goes on.
 */
void
testenv_state_init(TestenvState *state, const TestenvState *old)
{
	uint64		restore_number = old->head.restore_number;
	XLogRecPtr	previous = old->head.clean_lsn;

	memset(state, 0, sizeof(*state));
	state->head.magic = STATE_MAGIC;
	state->head.format = STATE_FORMAT;
	state->head.major = PG_MAJORVERSION_NUM;
	state->head.database = MyDatabaseId;
	state->head.system_identifier = GetSystemIdentifier();
	(void) current_position(&state->head.timeline);
	state->head.previous_lsn = previous;
	state->head.restore_number = restore_number;
}

/*
 * Write the state, logged, at once.
 */
void
testenv_state_write(const TestenvState *state)
{
	Oid			relid = state_relation_oid();
	Size		len = sizeof(state->head) +
		sizeof(TestenvOverride) * state->head.noverrides;
	Relation	rel;
	Buffer		buffer;
	Page		page;

	if (!OidIsValid(relid))
		relid = testenv_image_create(TESTENV_STATE_RELATION);
	rel = relation_open(relid, RowExclusiveLock);
	if (RelationGetNumberOfBlocks(rel) == 0)
		buffer = ReadBufferExtended(rel, MAIN_FORKNUM, P_NEW, RBM_NORMAL, NULL);
	else
		buffer = ReadBuffer(rel, 0);
	LockBuffer(buffer, BUFFER_LOCK_EXCLUSIVE);
	page = BufferGetPage(buffer);

	START_CRIT_SECTION();
	PageInit(page, BLCKSZ, 0);
	memcpy(PageGetContents(page), &state->head, sizeof(state->head));
	memcpy(PageGetContents(page) + sizeof(state->head), state->overrides,
		   sizeof(TestenvOverride) * state->head.noverrides);
	((PageHeader) page)->pd_lower = MAXALIGN(SizeOfPageHeaderData) + len;
	MarkBufferDirty(buffer);
	if (RelationNeedsWAL(rel))
		log_newpage_buffer(buffer, true);
	END_CRIT_SECTION();

	UnlockReleaseBuffer(buffer);
	relation_close(rel, RowExclusiveLock);
}

/*
 * Did the last restore change catalogs in a transaction that did not commit?
 * If too long ago to tell, say yes: to do it again does no harm.
 */
bool
testenv_state_lost_catalogs(const TestenvState *state)
{
	FullTransactionId full = FullTransactionIdFromU64(state->head.full_xid);
	TransactionId xid = XidFromFullTransactionId(full);

	if (state->head.full_xid == 0)
		return false;
	return TransactionIdPrecedes(xid, testenv_oldest_clog_xid) ||
		!TransactionIdDidCommit(xid);
}

/*
 * Say that the database equals no snapshot, before the first page is put back.
 */
void
testenv_state_disown(TestenvState *state)
{
	state->head.owner = InvalidOid;
	state->head.owner_id = 0;
	state->head.clean_lsn = InvalidXLogRecPtr;
	state->head.noverrides = 0;
	testenv_state_write(state);
}

/*
 * The store last taken or restored, or InvalidOid if there is none.  Where the
 * state names one that is gone (dropped, or its snapshot rolled back), the
 * stores themselves know when they were made and last restored.
 */
Oid
testenv_current_store(const TestenvState *state)
{
	List	   *stores;
	ListCell   *cell;
	Oid			best = InvalidOid;
	TimestampTz best_time = 0;

	if (OidIsValid(state->head.current) &&
		testenv_store_snapshot_name(state->head.current) != NULL)
	{
		Relation	store = try_relation_open(state->head.current, AccessShareLock);

		if (store != NULL)
		{
			TestenvHeader header;

			testenv_store_header(store, &header);
			relation_close(store, AccessShareLock);
			if (header.id == state->head.current_id)
				return state->head.current;
		}
	}

	stores = testenv_store_list();
	foreach(cell, stores)
	{
		Relation	store = try_relation_open(lfirst_oid(cell), AccessShareLock);
		TestenvHeader header;
		TestenvCounters counters;
		TimestampTz time;

		if (store == NULL)
			continue;
		testenv_store_header(store, &header);
		if (testenv_store_header_valid(&header, RelationGetNumberOfBlocks(store)))
		{
			testenv_store_counters(store, &counters);
			time = Max(header.created_at, counters.last_restored_at);
			if (!OidIsValid(best) || time > best_time)
			{
				best = lfirst_oid(cell);
				best_time = time;
			}
		}
		relation_close(store, AccessShareLock);
	}
	list_free(stores);
	return best;
}
