/*-------------------------------------------------------------------------
 *
 * compat.h
 *		The differences between PostgreSQL 15 and 18 that testenv meets.
 *
 * The only place with PG_VERSION_NUM.  The code is written in the words of
 * the newest release; older ones are brought up to it here.  Include it after
 * every header of the server, because for 15 it renames struct members.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TESTENV_COMPAT_H
#define TESTENV_COMPAT_H

#if PG_VERSION_NUM < 150000 || PG_VERSION_NUM >= 190000
#error "testenv supports PostgreSQL 15 to 18"
#endif

/* The database of a lock; a function, as 15's renaming below would hit the member. */
static inline Oid
testenv_lock_database(const xl_standby_lock *lock)
{
	return lock->dbOid;
}

/* 16 renamed relfilenode to relfilenumber, and what belongs to it */
#if PG_VERSION_NUM < 160000
typedef RelFileNode RelFileLocator;
typedef Oid RelFileNumber;
#define rd_locator rd_node
#define smgr_rlocator smgr_rnode
#define rlocator rnode
#define xlocators xnodes
#define relNumber relNode
#define spcOid spcNode
#define dbOid dbNode
#define relation_set_new_filelocator relation_set_new_filenode
#define RelationSetNewRelfilenumber RelationSetNewRelfilenode
#define RelFileLocatorEquals RelFileNodeEquals
typedef bool TU_UpdateIndexes;
#define pgstat_get_local_beentry_by_index(i) pgstat_fetch_stat_local_beentry(i)
#endif

/* 17 replaced backend ids by process numbers, and renamed shared variables */
#if PG_VERSION_NUM < 170000
#define INVALID_PROC_NUMBER InvalidBackendId
#define ProcNumberGetProc(n) BackendIdGetProc(n)
#define testenv_vxid_proc(vxid) BackendIdGetProc((vxid).backendId)
#define testenv_proc_lxid(proc) ((proc)->lxid)
#define testenv_oldest_clog_xid (ShmemVariableCache->oldestClogXid)
#else
#define testenv_vxid_proc(vxid) ProcNumberGetProc((vxid).procNumber)
#define testenv_proc_lxid(proc) ((proc)->vxid.lxid)
#define testenv_oldest_clog_xid (TransamVariables->oldestClogXid)
#endif

/* 18: another word for noreturn, and vacuums know when they began */
#if PG_VERSION_NUM < 180000
#define pg_noreturn pg_attribute_noreturn()
#define testenv_report_vacuum(relid, live) \
	pgstat_report_vacuum((relid), false, (live), 0)
#define testenv_report_analyze(rel, live) \
	pgstat_report_analyze((rel), (live), 0, true)
#else
#define testenv_report_vacuum(relid, live) \
	pgstat_report_vacuum((relid), false, (live), 0, GetCurrentTimestamp())
#define testenv_report_analyze(rel, live) \
	pgstat_report_analyze((rel), (live), 0, true, GetCurrentTimestamp())
#endif

/*
 * 17 keeps an SMgrRelation valid until the end of the transaction by itself;
 * before, whoever opened one without a Relation had to close it.
 */
#if PG_VERSION_NUM < 170000
#define testenv_smgrclose(reln) smgrclose(reln)
#else
#define testenv_smgrclose(reln) ((void) (reln))
#endif

/* 18 wants to know how long files are that are cut */
#if PG_VERSION_NUM < 180000
#define testenv_smgrtruncate(reln, forks, nforks, old, new) \
	((void) (old), smgrtruncate((reln), (forks), (nforks), (new)))
#else
#define testenv_smgrtruncate(reln, forks, nforks, old, new) \
	smgrtruncate((reln), (forks), (nforks), (old), (new))
#endif

/* 16 learned to extend a file without writing zeroes through the kernel */
#if PG_VERSION_NUM < 160000
#define TESTENV_NO_ZEROEXTEND
#endif

/* Ways to descend a btree to a leaf page */
#if PG_VERSION_NUM < 160000
#define testenv_bt_search(index, heap, key, buffer) \
	_bt_search((index), (key), (buffer), BT_READ, NULL)
#elif PG_VERSION_NUM < 170000
#define testenv_bt_search(index, heap, key, buffer) \
	_bt_search((index), (heap), (key), (buffer), BT_READ, NULL)
#else
#define testenv_bt_search(index, heap, key, buffer) \
	_bt_search((index), (heap), (key), (buffer), BT_READ)
#endif

/* 17 reads the blocks of an ANALYZE from a stream */
#if PG_VERSION_NUM < 170000
#define TESTENV_ANALYZE_ARGS BlockNumber blockno, BufferAccessStrategy bstrategy
#else
#define TESTENV_ANALYZE_ARGS ReadStream *stream
#endif

/* 18 scans bitmaps through one callback instead of two */
#if PG_VERSION_NUM >= 180000
#define TESTENV_BITMAP_ARGS \
	TableScanDesc scan, TupleTableSlot *slot, bool *recheck, \
	uint64 *lossy_pages, uint64 *exact_pages
#else
#define TESTENV_HAS_BITMAP_NEXT_BLOCK
#define TESTENV_BITMAP_ARGS \
	TableScanDesc scan, struct TBMIterateResult *tbmres, TupleTableSlot *slot
#endif

#endif							/* TESTENV_COMPAT_H */
