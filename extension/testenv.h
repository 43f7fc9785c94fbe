/*-------------------------------------------------------------------------
 *
 * testenv.h
 *		Types and functions that the files of testenv share.
 *
 * The externs are grouped by file, in the order in which data flows: SQL entry
 * points -> guard -> snapshot | restore -> detector -> set of changes -> put
 * back -> page writer | image store.  Nothing calls back up.
 *
 * Include it after postgres.h and the server's headers, before compat.h.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TESTENV_H
#define TESTENV_H

#include "access/visibilitymap.h"
#include "access/xlogdefs.h"
#include "access/xlogrecord.h"
#include "datatype/timestamp.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "nodes/pg_list.h"
#include "portability/instr_time.h"
#include "storage/block.h"
#include "storage/bufmgr.h"
#include "storage/lock.h"
#include "storage/smgr.h"
#include "storage/standbydefs.h"
#include "utils/rel.h"

#include "compat.h"

/* Where testenv keeps its own relations, out of the users' schemas. */
#define TESTENV_EXTENSION "testenv"
#define TESTENV_SCHEMA "testenv_store"
#define TESTENV_ACCESS_METHOD "testenv_image"
#define TESTENV_STATE_RELATION "state"
#define TESTENV_SNAPSHOT_PREFIX "snapshot_"

/* longest name of a snapshot, and longest label, in bytes */
#define TESTENV_NAME_LEN (NAMEDATALEN - (int) sizeof(TESTENV_SNAPSHOT_PREFIX))
#define TESTENV_LABEL_LEN 255

/* Heap blocks that one page of the visibility map covers; visibilitymap.c keeps its own. */
#define TESTENV_HEAP_BLOCKS_PER_VM_PAGE \
	((BLCKSZ - (int) MAXALIGN(SizeOfPageHeaderData)) * BITS_PER_BYTE / BITS_PER_HEAPBLOCK)

/* How many pages has the visibility map of a heap of so many blocks? */
#define TESTENV_VM_PAGES(nblocks) \
	((nblocks) / TESTENV_HEAP_BLOCKS_PER_VM_PAGE + \
	 ((nblocks) % TESTENV_HEAP_BLOCKS_PER_VM_PAGE != 0))

/* Pages in one WAL record: XLR_MAX_BLOCK_ID allows 33 */
#define TESTENV_BATCH 32

/* Bytes for the deltas of one batch */
#define TESTENV_DELTAS (TESTENV_BATCH * 2048)

/* Pages that are written past shared buffers after one flush of the WAL */
#define TESTENV_EXTENT 512

/* Alignment of buffers for direct I/O: PG_IO_ALIGN_SIZE, which 15 has not */
#define TESTENV_IO_ALIGN 4096

/*
 * What an entry of the directory is an image of.  A table's entry is followed
 * by those of its indexes, then its TOAST table, then the TOAST index.
 */
typedef enum TestenvKind
{
	TESTENV_HEAP = 'h',
	TESTENV_TOAST = 't',
	TESTENV_INDEX = 'i',
	TESTENV_SEQUENCE = 's'
} TestenvKind;

/* Flags of an entry */
#define TESTENV_POPULATED	0x0001	/* relispopulated: false for some materialized views */
#define TESTENV_CACHED_SEQ	0x0002	/* sequence of which sessions cache values */
#define TESTENV_CATALOG		0x0004	/* pg_largeobject, pg_largeobject_metadata */

/* One relation of a snapshot, as it lies in the store: fixed size, immutable. */
typedef struct TestenvEntry
{
	Oid			relid;
	Oid			relam;
	Oid			reltablespace;	/* as in pg_class: 0 is the database's own */
	RelFileNumber relfilenumber;
	BlockNumber nblocks;		/* main fork */
	BlockNumber image;			/* block of the store with the first of them */
	uint32		nchildren;		/* entries after a table's that belong to it */
	uint32		name;			/* offset of "schema.name" in the names */
	uint64		fingerprint;	/* of the definition, see catalog.c */
	uint64		ntuples;		/* live rows, heaps only */
	char		kind;			/* TestenvKind */
	char		relpersistence;
	uint16		flags;
	uint32		freespace;		/* heaps: offset of the first category */
} TestenvEntry;

/* First page of a store. */
typedef struct TestenvHeader
{
	uint32		magic;
	uint16		format;
	uint16		major;			/* of PostgreSQL */
	uint32		blcksz;
	uint32		nentries;
	uint64		id;				/* random: what the state page knows it by */
	BlockNumber nblocks;		/* of the whole store */
	BlockNumber directory;		/* block of the first entries */
	BlockNumber names;			/* block of the first names */
	uint32		nameslen;
	BlockNumber freespace;		/* block of the first categories, see freespace.c */
	uint32		ntables;
	uint32		nsequences;
	uint64		npages;			/* images */
	TimestampTz created_at;
	char		label[TESTENV_LABEL_LEN + 1];
} TestenvHeader;

/* Second page of a store: the only one that changes after the snapshot. */
typedef struct TestenvCounters
{
	uint64		restores;
	TimestampTz last_restored_at;	/* 0: never */
	double		last_ms;		/* what that restore took */
	double		slowest_ms;
} TestenvCounters;

/* A store's directory, read once per backend. */
typedef struct TestenvDirectory
{
	Oid			storeid;
	RelFileNumber storenumber;
	TestenvHeader header;
	TestenvEntry *entries;
	char	   *names;
	MemoryContext context;
} TestenvDirectory;

/*
 * The state of the database, on one page: at clean_lsn it was equal to the
 * snapshot owner_id.  See state.c for what makes it valid.
 */
typedef struct TestenvOverride
{
	uint32		entry;
	RelFileNumber relfilenumber;
} TestenvOverride;

typedef struct TestenvStateHead
{
	uint32		magic;
	uint16		format;
	uint16		major;
	Oid			database;
	Oid			owner;			/* store; InvalidOid: equal to none */
	uint64		owner_id;
	Oid			current;		/* store last taken or restored */
	TimeLineID	timeline;
	uint64		current_id;
	uint64		system_identifier;
	XLogRecPtr	clean_lsn;
	XLogRecPtr	previous_lsn;	/* clean_lsn before the last restore */
	XLogRecPtr	catalog_lsn;	/* room for the undoing of DDL */
	uint64		full_xid;		/* of the last restore, if it changed catalogs */
	uint64		restore_number;
	TimestampTz server_start;	/* free space maps were right at clean_lsn, in */
	uint32		shared_memory;	/* this life of the server; 0: not known */
	uint32		noverrides;
} TestenvStateHead;

#define TESTENV_MAX_OVERRIDES \
	((int) ((BLCKSZ - MAXALIGN(SizeOfPageHeaderData) - sizeof(TestenvStateHead)) / sizeof(TestenvOverride)))

typedef struct TestenvState
{
	TestenvStateHead head;
	TestenvOverride overrides[TESTENV_MAX_OVERRIDES];
} TestenvState;

/* What the catalogs say today of the relation of an entry. */
typedef struct TestenvTarget
{
	Oid			relid;			/* InvalidOid: an index that is gone */
	RelFileLocator locator;
	bool		ispopulated;
} TestenvTarget;

/* A relation as the cached view of the catalogs has it. */
typedef struct TestenvCatalogRel
{
	Oid			relid;
	Oid			relnamespace;
	Oid			relam;
	Oid			reltablespace;
	Oid			toastrelid;
	RelFileNumber relfilenumber;
	char		relkind;
	char		relpersistence;
	bool		ispopulated;
	bool		iscached;		/* sequence with CACHE > 1 */
	uint64		fingerprint;	/* tables and sequences */
} TestenvCatalogRel;

typedef struct TestenvCatalogIndex
{
	Oid			tableid;
	Oid			indexid;
	Oid			relam;
	bool		isready;		/* inserts maintain it */
	bool		isvalid;		/* queries use it */
} TestenvCatalogIndex;

typedef struct TestenvCatalog
{
	uint64		generation;
	int			nrels;
	TestenvCatalogRel *rels;	/* by relid: tables, sequences, TOAST, indexes */
	int			nindexes;
	TestenvCatalogIndex *indexes;	/* by tableid, indexid */
	MemoryContext context;
} TestenvCatalog;

/* The definition of something differs from the snapshot's: for the message. */
typedef struct TestenvMapping
{
	uint64		generation;		/* of the catalog view it was made from */
	Oid			storeid;
	uint64		id;				/* of the store */
	TestenvTarget *targets;		/* by entry */
	List	   *problems;		/* char *: why a restore is refused */
	List	   *lost_indexes;	/* char *: indexes that are gone */
	int			nnew_indexes;
	TestenvCatalogIndex *new_indexes;	/* on tables of the snapshot */
	int			nnew_tables;
	Oid		   *new_tables;

	int			nroots;
	int		   *roots;			/* tables and sequences, by relid */
	uint64		weight;			/* pages of all indexes, in the snapshot */
	int		   *root_of;		/* by entry: the table that it belongs to */
	int			nmoved;
	int		   *moved;			/* entries with other storage than in the snapshot */
	int			nlooked;
	int		   *looked;			/* roots of whose changes no WAL tells */
	int			nmetapages;
	int		   *metapages;		/* entries of SP-GiST indexes */
	struct numberhash_hash *numbers;	/* from storage to entry */
	MemoryContext context;
} TestenvMapping;

/* What may differ in one relation of the snapshot. */
typedef struct TestenvChange
{
	int			entry;
	bool		all;			/* any block may differ */
	bool		map;			/* the visibility map does */
	bool		cut;			/* the file was cut below its length, at cut_to */
	bool		imaged;			/* a block was replaced as a whole */
	bool		freespace;		/* heap: any page of the free space map may differ */
	bool		metapage;		/* block 0 was put back */
	bool		wrote;			/* something was put back */
	bool		sorted;			/* blocks are ascending, each once */
	BlockNumber cut_to;
	BlockNumber length;			/* before anything was put back */
	int			nblocks;
	int			maxblocks;
	BlockNumber *blocks;		/* unless all */
} TestenvChange;

/* The set of changes: what a detector fills and put back works off. */
typedef struct TestenvChanges TestenvChanges;

/*
 * Main data of the records that a restore puts pages back with: which restore
 * it was.  Redo of XLOG_FPI and of generic records does not look at main data.
 */
#define TESTENV_MARK_MAGIC UINT64CONST(0x7E57E4F0B14CE511)

typedef struct TestenvMark
{
	uint64		magic;
	uint64		owner_id;		/* of the snapshot */
	uint64		restore_number;
	Oid			database;
	uint32		unused;
} TestenvMark;

/* Which of the WAL since a position this backend wrote itself. */
typedef struct TestenvOwnWal
{
	XLogRecPtr	last;			/* start of the last record of our own */
	XLogRecPtr	end;			/* where the next record will start */
	bool		contiguous;
	TestenvMark mark;			/* for what is put back; no magic, no mark */
} TestenvOwnWal;

/* How long to wait for locks, and what to do about who holds them. */
typedef struct TestenvWait
{
	bool		terminate;
	bool		started;
	TimestampTz deadline;		/* valid once started */
	TestenvOwnWal *wal;			/* locks are logged; may be NULL */
} TestenvWait;

typedef struct TestenvLock
{
	Oid			relid;
	LOCKMODE	mode;
} TestenvLock;

/* How a restore found out what changed. */
typedef enum TestenvDetector
{
	TESTENV_DETECT_AUTO,
	TESTENV_DETECT_WAL,
	TESTENV_DETECT_LOOK
} TestenvDetector;

/* The steps of a restore, for the clock. */
typedef enum TestenvStep
{
	TESTENV_STEP_OPEN,
	TESTENV_STEP_FIND,
	TESTENV_STEP_LOCK,
	TESTENV_STEP_COLLECT,
	TESTENV_STEP_PREPARE,
	TESTENV_STEP_PAGES,
	TESTENV_STEP_CUT,
	TESTENV_STEP_SEQUENCES,
	TESTENV_STEP_REST,
	TESTENV_STEP_STATE,
	TESTENV_STEPS
} TestenvStep;

/* How far a table that was made since the snapshot is locked. */
#define TESTENV_NEW_UNLOCKED 0
#define TESTENV_NEW_LOCKED 1
#define TESTENV_NEW_ALL_LOCKED 2	/* with TOAST table and indexes */

/* One restore, or comparison, from its entry point down. */
typedef struct TestenvRestore
{
	char	   *name;			/* of the snapshot */
	Relation	store;
	TestenvDirectory *dir;
	TestenvState state;			/* as it was when we began */
	TestenvMapping *mapping;
	TestenvChanges *changes;
	TestenvWait wait;
	TestenvOwnWal wal;			/* since the last look */
	XLogRecPtr	look_lsn;		/* taken before the last look */
	bool		speaks;			/* the state page does of this snapshot */
	bool	   *locked;			/* by entry: table or sequence is locked */
	bool	   *noted;			/* by entry: locked, or in pending */
	bool	   *by_look;		/* by entry: table was found by looking */
	int			nroots;
	int		   *roots;			/* entries that are locked */
	int			maxroots;
	List	   *pending;		/* int: entries that the WAL names, not locked */
	List	   *exclusive;		/* int: entries that others may have locked exclusively */
	TestenvDetector detector;
	XLogRecPtr	read_to;		/* the WAL has been read up to here */
	int64		wal_bytes;		/* read */
	char	   *new_locked;		/* by position in mapping->new_tables */
	bool		any_new;		/* one of them is locked */
	uint64		new_generation;	/* of the mapping that is for */
	bool		traces;			/* of a table that is not locked; see freespace.c */
	bool		verify_freespace;	/* all maps may be wrong */
	bool		freespace_known;	/* all maps are right now */
	bool		redo;			/* the last restore's catalog changes were lost */
	bool		owner_lost;		/* a page was written without WAL */
	bool		wrote_catalogs;
	bool		rebuilt_index;
	bool		alone;			/* in the database: nobody to be told anything */
	bool		comparing;		/* the first difference is enough */
	bool		checking;		/* only pages count, for check_detector */
	instr_time	began;
	instr_time	clock;			/* when the step before ended */
	instr_time	steps[TESTENV_STEPS];
	MemoryContext context;
	MemoryContext scratch;		/* reset per relation */
	char	   *room;			/* for batches of pages */
	struct TestenvToastMove *move;	/* see image.c */
	int			ntables;
	int			nsequences;
	int64		npages;
} TestenvRestore;

/* Add the time since the step before ended to a step. */
static inline void
testenv_clock(TestenvRestore *restore, TestenvStep step)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	INSTR_TIME_ACCUM_DIFF(restore->steps[step], now, restore->clock);
	restore->clock = now;
}

/* testenv.c */
extern bool testenv_testing_mode;
extern int	testenv_lock_timeout;
extern bool testenv_check_detector;
extern int	testenv_new_tables;
extern int	testenv_detector;

typedef enum TestenvNewTables
{
	TESTENV_NEW_EMPTY,
	TESTENV_NEW_KEEP,
	TESTENV_NEW_ERROR
} TestenvNewTables;

/* guard.c */
extern void testenv_guard(const char *verb);
extern void testenv_guard_name(const char *name);
extern void testenv_close_large_objects(void);
extern void testenv_guard_unused(Relation rel, const char *verb);

/* locks.c */
extern void testenv_lock_extension(TestenvWait *wait, const char *verb);
extern void testenv_lock_relations(TestenvLock *locks, int nlocks,
								   TestenvWait *wait, const char *verb);
extern char *testenv_describe_sessions(VirtualTransactionId *vxids);

/* snapshot.c */
typedef struct TestenvTaken
{
	int			ntables;
	int			nsequences;
	int64		npages;
	int64		nbytes;
} TestenvTaken;

extern void testenv_take_snapshot(const char *name, const char *label,
								  TestenvTaken *result);

/* freeze.c */
extern void testenv_freeze_table(Oid relid);
extern bool testenv_all_frozen(Relation rel);
extern bool testenv_is_frozen(Relation rel);

/* restore.c */
extern void testenv_run_restore(const char *name, bool terminate,
								TestenvRestore *restore);
extern bool testenv_compare(const char *name);

/* detect.c */
extern void testenv_open_snapshot(TestenvRestore *restore, const char *name,
								  const char *verb);
extern void testenv_find_changes(TestenvRestore *restore);
extern bool testenv_differs(TestenvRestore *restore);
extern bool testenv_still_clean(TestenvRestore *restore);
extern bool testenv_new_table_filled(Oid relid);

/* look.c */
typedef enum TestenvLook
{
	TESTENV_CLEAN,
	TESTENV_CHANGED,
	TESTENV_STALE				/* the catalogs changed: map again */
} TestenvLook;

extern TestenvLook testenv_look_root(TestenvRestore *restore, int root);
extern TestenvLook testenv_look_block(TestenvRestore *restore, int entry,
									  BlockNumber block);
extern TestenvLook testenv_look_changes(TestenvRestore *restore, int root);
extern void testenv_look_blocks(TestenvRestore *restore, int entry);
extern void testenv_look_marks(TestenvRestore *restore, int entry);

/* marks.c */
extern void testenv_find_marks(TestenvRestore *restore, int heap, int first,
							   int last);

/* waldetect.c */
extern const char *testenv_wal_read(TestenvRestore *restore, XLogRecPtr from,
									XLogRecPtr to);
extern void testenv_wal_beside(TestenvRestore *restore);
extern void testenv_wal_collect(TestenvRestore *restore, int root);

/* walscan.c */
typedef struct TestenvWal TestenvWal;

typedef struct TestenvWalBlock
{
	RelFileLocator locator;
	ForkNumber	fork;
	BlockNumber block;
} TestenvWalBlock;

/* A record: of its blocks, those of this database. */
typedef struct TestenvWalRecord
{
	XLogRecPtr	lsn;
	uint32		length;
	uint32		datalen;
	uint8		rmid;
	uint8		info;
	int			nblocks;
	TestenvWalBlock blocks[XLR_MAX_BLOCK_ID + 1];
} TestenvWalRecord;

extern TestenvWal *testenv_wal_begin(XLogRecPtr from, XLogRecPtr to,
									 TimeLineID timeline);
extern bool testenv_wal_next(TestenvWal *wal, TestenvWalRecord *record);
extern const char *testenv_wal_data(TestenvWal *wal, const TestenvWalRecord *record);
extern const char *testenv_wal_end(TestenvWal *wal);
extern bool testenv_wal_removed(XLogRecPtr lsn);

/* check.c */
extern void testenv_check_pages(TestenvRestore *restore);

/* changes.c */
extern TestenvChanges *testenv_changes_create(MemoryContext context);
extern TestenvChange *testenv_change_of(TestenvChanges *changes, int entry);
extern TestenvChange *testenv_change(TestenvChanges *changes, int entry);
extern void testenv_change_reset(TestenvChange *change);
extern void testenv_change_block_any(TestenvChanges *changes, TestenvChange *change,
									 BlockNumber block);
extern void testenv_change_sort(TestenvChange *change);
extern void testenv_change_block(TestenvChanges *changes, int entry,
								 BlockNumber block);

/* putback.c */
extern void testenv_putback_grow(TestenvRestore *restore, int entry);
extern void testenv_putback_pages(TestenvRestore *restore, int entry);
extern void testenv_putback_cuts(TestenvRestore *restore);
extern void testenv_forget_metapage(Relation index);

/* rebuild.c */
extern void testenv_rebuild_index(TestenvRestore *restore,
								  const TestenvCatalogIndex *index);
extern bool testenv_empty_table(Oid relid);

/* cut.c */
extern void testenv_cut_files(TestenvRestore *restore, Relation *rels,
							  const BlockNumber *nblocks, int n);

/* sequence.c */
extern void testenv_sequence_copy(Relation rel, char *image);
extern void testenv_sequence_uncache(Oid relid);
extern void testenv_sequence_prepare(TestenvRestore *restore, int entry);
extern void testenv_sequence_putback(TestenvRestore *restore, int entry);

/* largeobject.c */
extern bool testenv_largeobject_dependencies(void);

/* delta.c */
extern int	testenv_delta(const char *page, const char *image, bool heap,
						  char *bytes, int room);
extern void testenv_delta_apply(char *page, const char *bytes, int length);

/* page.c */
extern bool testenv_same_page(const char *a, const char *b, bool standard);
extern bool testenv_same_meaning(const char *a, const char *b,
								 const TestenvEntry *entry);
extern bool testenv_standard_pages(const TestenvEntry *entry);
extern void testenv_vm_image(char *page, BlockNumber nblocks, BlockNumber vmblock);
extern void testenv_own_wal_start(TestenvOwnWal *wal, XLogRecPtr end);
extern void testenv_own_wal_note(TestenvOwnWal *wal);
extern XLogRecPtr testenv_lsn_end(XLogRecPtr lsn);
extern XLogRecPtr testenv_lsn_start(XLogRecPtr lsn);

typedef struct TestenvPageBatch
{
	Relation	rel;
	TestenvOwnWal *wal;
	bool		standard;
	bool		first_block;	/* block 0 was written */
	int			npages;
	int			limit;
	int64		nwritten;
	char	   *images;			/* TESTENV_BATCH pages, aligned */
	char	   *deltas;			/* TESTENV_DELTAS bytes */
	BlockNumber blocks[TESTENV_BATCH];
	const char *sources[TESTENV_BATCH];	/* images: there, or pinned */
	Buffer		pins[TESTENV_BATCH];
} TestenvPageBatch;

extern void testenv_batch_begin(TestenvPageBatch *batch, Relation rel,
								TestenvOwnWal *wal, bool standard, char *room);
extern char *testenv_batch_room(void);
extern bool testenv_batch_full(const TestenvPageBatch *batch);
extern char *testenv_batch_add(TestenvPageBatch *batch, BlockNumber block);
extern char *testenv_batch_next_room(TestenvPageBatch *batch);
extern void testenv_batch_add_image(TestenvPageBatch *batch, BlockNumber block,
									const char *image, Buffer pin);
extern void testenv_batch_flush(TestenvPageBatch *batch);
extern void testenv_batch_append(TestenvPageBatch *batch);
extern void testenv_overwrite_page(Relation rel, Buffer buffer, const char *image,
								   TestenvOwnWal *wal);
extern char *testenv_extent_room(BlockNumber npages);
extern void testenv_write_new_blocks(Relation rel, char *images,
									 BlockNumber first, int npages,
									 bool standard, TestenvOwnWal *wal);

/* freespace.c */
extern uint8 testenv_freespace_category(Page page);
extern BlockNumber testenv_fork_length(Relation rel, ForkNumber fork);
extern BlockNumber testenv_freespace_pages(BlockNumber nblocks);
extern void testenv_empty_fsm(Relation rel, TestenvOwnWal *wal);
extern bool testenv_grow_freespace(Relation rel, BlockNumber nblocks);
extern void testenv_take_freespace(Relation rel, BlockNumber nblocks,
								   StringInfo bytes, int offset);
extern void testenv_put_freespace(TestenvRestore *restore, Relation rel,
								  const TestenvEntry *entry,
								  const BlockNumber *blocks, int nblocks,
								  bool all, bool grown);
extern bool testenv_same_freespace(TestenvRestore *restore, Relation rel,
								   const TestenvEntry *entry, bool locked);
extern void testenv_freespace_known(TestenvStateHead *head);
extern void testenv_verify_freespace(TestenvRestore *restore);

/* image.c */
extern void testenv_read_image(TestenvRestore *restore, int entry,
							   BlockNumber block, char *page,
							   BufferAccessStrategy strategy);
extern const char *testenv_pin_image(TestenvRestore *restore, int entry,
									 BlockNumber block, char *room,
									 BufferAccessStrategy strategy, Buffer *buffer);

/* store.c */
extern Oid	testenv_schema_oid(void);
extern Oid	testenv_extension_oid(void);
extern Oid	testenv_access_method_oid(bool missing_ok);
extern Oid	testenv_store_oid(const char *name);
extern List *testenv_store_list(void);
extern const char *testenv_store_snapshot_name(Oid storeid);
extern Oid	testenv_image_create(const char *relname);
extern Oid	testenv_store_required(const char *name);
extern char *testenv_store_names(void);
extern void testenv_store_drop(Oid storeid, TestenvWait *wait, const char *verb);
extern TestenvDirectory *testenv_store_load(Relation store, const char *verb);
extern void testenv_store_header(Relation store, TestenvHeader *header);
extern bool testenv_store_header_valid(const TestenvHeader *header,
									   BlockNumber nblocks);
extern void testenv_store_counters(Relation store, TestenvCounters *counters);
extern void testenv_store_count_restore(Relation store, double ms);
extern void testenv_store_read(Relation store, BlockNumber block, char *page,
							   BufferAccessStrategy strategy);
extern void testenv_store_bytes(Relation store, BlockNumber first, uint64 offset,
								char *bytes, Size len);

typedef struct TestenvStoreWriter TestenvStoreWriter;
extern TestenvStoreWriter *testenv_writer_begin(Relation store);
extern BlockNumber testenv_writer_put(TestenvStoreWriter *writer,
									  const char *page, bool standard);
extern BlockNumber testenv_writer_put_bytes(TestenvStoreWriter *writer,
											const char *bytes, Size len, Size unit);
extern BlockNumber testenv_writer_end(TestenvStoreWriter *writer,
									  TestenvHeader *header);

/* state.c */
extern bool testenv_state_read(TestenvState *state);
extern bool testenv_state_speaks_of(const TestenvState *state,
									const TestenvDirectory *dir);
extern void testenv_state_write(const TestenvState *state);
extern void testenv_state_disown(TestenvState *state);
extern void testenv_state_init(TestenvState *state, const TestenvState *old);
extern bool testenv_state_lost_catalogs(const TestenvState *state);
extern Oid	testenv_current_store(const TestenvState *state);

/* catalog.c */
extern TestenvCatalog *testenv_catalog(void);
extern bool testenv_catalog_is_current(uint64 generation);
extern TestenvCatalogRel *testenv_catalog_rel(TestenvCatalog *catalog, Oid relid);
extern int	testenv_catalog_first_index(TestenvCatalog *catalog, Oid tableid);
extern bool testenv_catalog_is_table(const TestenvCatalogRel *rel);
extern uint64 testenv_index_fingerprint(Oid indexid);
extern char *testenv_uncovered_relations(void);
extern char *testenv_relation_name(Oid relid);

/* mapping.c */
extern TestenvMapping *testenv_mapping(TestenvDirectory *dir);
extern int	testenv_mapping_entry(const TestenvMapping *mapping,
								  const RelFileLocator *locator);
extern int	testenv_mapping_root(const TestenvMapping *mapping,
								 const TestenvDirectory *dir, Oid relid);
extern bool testenv_indexes_are_cached(const TestenvMapping *mapping);
extern XLogRecPtr testenv_mapping_seen(const TestenvState *state);
extern void testenv_mapping_see(uint64 owner_id, uint64 restore_number, XLogRecPtr lsn);
extern bool testenv_trusted(const TestenvRestore *restore, int entry);

extern bool testenv_mapping_is_current(const TestenvMapping *mapping);

/* image_am.c */
extern void testenv_image_allow_create(bool allow);

#endif							/* TESTENV_H */
