/*-------------------------------------------------------------------------
 *
 * store.c
 *		The image store: one relation per snapshot.
 *
 * A snapshot "x" is the relation testenv_store.snapshot_x, of the access
 * method testenv_image (image_am.c):
 *
 *		block 0		header: magic, format, PostgreSQL major, sizes
 *		block 1		counters, the only page that changes later
 *		2 ...		images: the blocks of one relation after another
 *		then		categories of free space, one byte a heap block (freespace.c)
 *		then		directory: fixed-size entries, then names
 *
 * The header is written last, over an empty page: a store without a header is
 * one that was never finished.  Since the relation is made, and an older one
 * of that name dropped, in the caller's transaction, ROLLBACK leaves the old
 * snapshot and a crash leaves at most an orphan file, as with CREATE TABLE.
 *
 * Images are read through shared buffers, never through the storage manager:
 * after recovery, or in a clone, they may exist in buffers only.  The
 * directory is immutable, so each backend reads it once per store; the cache
 * is keyed by OID, relfilenumber and the random id in the header, and dropped
 * when another store is loaded.
 *
 * Every page is well-formed, with pd_lower behind its content: whoever looks
 * at it as at a page of a relation (pg_basebackup's checksums, pageinspect)
 * finds nothing wrong.
 *
 * Locks: the extension's lock (locks.c) comes first; then AccessShareLock on a
 * store that is read, AccessExclusiveLock on one that is made or dropped.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xloginsert.h"
#include "catalog/dependency.h"
#include "catalog/heap.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_class.h"
#include "catalog/pg_extension.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/smgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "testenv.h"

#define STORE_MAGIC 0x7E57E4B1
#define STORE_FORMAT 2

#define HEADER_BLOCK 0
#define COUNTERS_BLOCK 1

#define PAGE_ROOM (BLCKSZ - (int) MAXALIGN(SizeOfPageHeaderData))

struct TestenvStoreWriter
{
	Relation	rel;
	TestenvPageBatch batch;
	BlockNumber next;
};

/* The directory that was read last; see testenv_store_load(). */
static TestenvDirectory *cached_directory = NULL;

Oid
testenv_extension_oid(void)
{
	return get_extension_oid(TESTENV_EXTENSION, false);
}

Oid
testenv_schema_oid(void)
{
	return get_namespace_oid(TESTENV_SCHEMA, false);
}

Oid
testenv_access_method_oid(bool missing_ok)
{
	return get_table_am_oid(TESTENV_ACCESS_METHOD, missing_ok);
}

/* The store of a snapshot, or InvalidOid. */
Oid
testenv_store_oid(const char *name)
{
	char	   *relname = psprintf(TESTENV_SNAPSHOT_PREFIX "%s", name);

	return get_relname_relid(relname, testenv_schema_oid());
}

/* The name of the snapshot in a store, or NULL if it is no store (any more). */
const char *
testenv_store_snapshot_name(Oid storeid)
{
	const char *relname = get_rel_name(storeid);

	if (relname == NULL || get_rel_namespace(storeid) != testenv_schema_oid() ||
		strncmp(relname, TESTENV_SNAPSHOT_PREFIX,
				sizeof(TESTENV_SNAPSHOT_PREFIX) - 1) != 0)
		return NULL;
	return relname + sizeof(TESTENV_SNAPSHOT_PREFIX) - 1;
}

/* The OIDs of all stores, ascending. */
List *
testenv_store_list(void)
{
	Relation	pg_class = table_open(RelationRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	List	   *result = NIL;

	ScanKeyInit(&key, Anum_pg_class_relnamespace, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(testenv_schema_oid()));
	scan = systable_beginscan(pg_class, InvalidOid, false, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_class form = (Form_pg_class) GETSTRUCT(tuple);

		if (form->relkind == RELKIND_RELATION &&
			strncmp(NameStr(form->relname), TESTENV_SNAPSHOT_PREFIX,
					sizeof(TESTENV_SNAPSHOT_PREFIX) - 1) == 0)
			result = lappend_oid(result, form->oid);
	}
	systable_endscan(scan);
	table_close(pg_class, AccessShareLock);
	list_sort(result, list_oid_cmp);
	return result;
}

/*
 * Make an empty relation for images.  It has no columns, belongs to the
 * bootstrap superuser and goes with the extension.
 */
Oid
testenv_image_create(const char *relname)
{
	volatile Oid relid = InvalidOid;
	ObjectAddress self;
	ObjectAddress extension;

	testenv_image_allow_create(true);
	PG_TRY();
	{
		relid = heap_create_with_catalog(relname, testenv_schema_oid(),
										 InvalidOid, InvalidOid, InvalidOid,
										 InvalidOid, BOOTSTRAP_SUPERUSERID,
										 testenv_access_method_oid(false),
										 CreateTemplateTupleDesc(0), NIL,
										 RELKIND_RELATION,
										 RELPERSISTENCE_PERMANENT,
										 false, false, ONCOMMIT_NOOP,
										 (Datum) 0, false, false, true,
										 InvalidOid, NULL);
	}
	PG_FINALLY();
	{
		testenv_image_allow_create(false);
	}
	PG_END_TRY();

	CommandCounterIncrement();
	ObjectAddressSet(self, RelationRelationId, relid);
	ObjectAddressSet(extension, ExtensionRelationId, testenv_extension_oid());
	recordDependencyOn(&self, &extension, DEPENDENCY_EXTENSION);
	CommandCounterIncrement();
	return relid;
}

/* One line that names the snapshots there are. */
char *
testenv_store_names(void)
{
	StringInfoData list;
	ListCell   *cell;

	initStringInfo(&list);
	foreach(cell, testenv_store_list())
	{
		const char *name = testenv_store_snapshot_name(lfirst_oid(cell));

		if (name != NULL)
			appendStringInfo(&list, "%s\"%s\"", list.len > 0 ? ", " : "", name);
	}
	return list.len > 0 ? psprintf("Snapshots of this database: %s.", list.data) :
		pstrdup("This database has no snapshot.");
}

/* The store of a snapshot that has to exist. */
Oid
testenv_store_required(const char *name)
{
	Oid			storeid = testenv_store_oid(name);

	if (!OidIsValid(storeid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("snapshot \"%s\" does not exist", name),
				 errdetail("%s", testenv_store_names()),
				 errhint("Use testenv_snapshot() to take a snapshot.")));
	return storeid;
}

/* Remove a store, waiting for whoever reads it as for any lock. */
void
testenv_store_drop(Oid storeid, TestenvWait *wait, const char *verb)
{
	TestenvLock lock = {storeid, AccessExclusiveLock};
	ObjectAddress self;

	testenv_lock_relations(&lock, 1, wait, verb);
	ObjectAddressSet(self, RelationRelationId, storeid);
	performDeletion(&self, DROP_RESTRICT,
					PERFORM_DELETION_INTERNAL | PERFORM_DELETION_SKIP_EXTENSIONS);
	CommandCounterIncrement();
}

/* Copy one page of a store. */
void
testenv_store_read(Relation store, BlockNumber block, char *page,
				   BufferAccessStrategy strategy)
{
	Buffer		buffer = ReadBufferExtended(store, MAIN_FORKNUM, block,
											RBM_NORMAL, strategy);

	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	memcpy(page, BufferGetPage(buffer), BLCKSZ);
	UnlockReleaseBuffer(buffer);
}

/* Read a header as it lies there; testenv_store_header_valid() judges it. */
void
testenv_store_header(Relation store, TestenvHeader *header)
{
	PGAlignedBlock page;

	memset(header, 0, sizeof(*header));
	if (RelationGetNumberOfBlocks(store) == 0)
		return;
	testenv_store_read(store, HEADER_BLOCK, page.data, NULL);
	memcpy(header, PageGetContents((Page) page.data), sizeof(*header));
}

bool
testenv_store_header_valid(const TestenvHeader *header, BlockNumber nblocks)
{
	return header->magic == STORE_MAGIC &&
		header->format == STORE_FORMAT &&
		header->major == PG_MAJORVERSION_NUM &&
		header->blcksz == BLCKSZ &&
		header->nblocks <= nblocks;
}

/* Copy len bytes that lie in units from block on; a unit never spans pages. */
static void
read_bytes(Relation store, BlockNumber block, char *bytes, Size len, Size unit)
{
	Size		per_page = PAGE_ROOM / unit * unit;

	while (len > 0)
	{
		PGAlignedBlock page;
		Size		n = Min(len, per_page);

		CHECK_FOR_INTERRUPTS();
		testenv_store_read(store, block++, page.data, NULL);
		memcpy(bytes, PageGetContents((Page) page.data), n);
		bytes += n;
		len -= n;
	}
}

/*
 * Copy len bytes at an offset into those that testenv_writer_put_bytes() laid
 * down from block "first" on, in units of one byte.
 */
void
testenv_store_bytes(Relation store, BlockNumber first, uint64 offset,
					char *bytes, Size len)
{
	while (len > 0)
	{
		Size		skip = offset % PAGE_ROOM;
		Size		n = Min(len, PAGE_ROOM - skip);
		Buffer		buffer = ReadBuffer(store, first + offset / PAGE_ROOM);

		LockBuffer(buffer, BUFFER_LOCK_SHARE);
		memcpy(bytes, PageGetContents(BufferGetPage(buffer)) + skip, n);
		UnlockReleaseBuffer(buffer);
		bytes += n;
		offset += n;
		len -= n;
	}
}

/*
 * The directory of a store, from the cache of this backend or read anew.
 * Errors: the store is of another format or release, or damaged.
 */
TestenvDirectory *
testenv_store_load(Relation store, const char *verb)
{
	TestenvHeader header;
	TestenvDirectory *dir;
	MemoryContext context;

	testenv_store_header(store, &header);
	if (!testenv_store_header_valid(&header, RelationGetNumberOfBlocks(store)))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot %s snapshot \"%s\": it was written by another version, or is damaged",
						verb, testenv_store_snapshot_name(RelationGetRelid(store))),
				 errdetail("The store has magic %08X, format %u, PostgreSQL major %u and %u blocks; expected %08X, %u, %u and %u.",
						   header.magic, header.format, header.major, header.nblocks,
						   STORE_MAGIC, STORE_FORMAT, PG_MAJORVERSION_NUM,
						   RelationGetNumberOfBlocks(store)),
				 errhint("Bring the database to the wanted state and take the snapshot again.")));

	dir = cached_directory;
	if (dir != NULL &&
		dir->storeid == RelationGetRelid(store) &&
		dir->storenumber == store->rd_locator.relNumber &&
		dir->header.id == header.id)
		return dir;

	if (dir != NULL)
	{
		cached_directory = NULL;
		MemoryContextDelete(dir->context);
	}

	/* under the caller's context until it is complete: an error loses nothing */
	context = AllocSetContextCreate(CurrentMemoryContext, "testenv directory",
									ALLOCSET_DEFAULT_SIZES);
	dir = MemoryContextAllocZero(context, sizeof(TestenvDirectory));
	dir->context = context;
	dir->storeid = RelationGetRelid(store);
	dir->storenumber = store->rd_locator.relNumber;
	dir->header = header;
	dir->entries = MemoryContextAllocHuge(context,
										  sizeof(TestenvEntry) * (Size) (header.nentries + 1));
	dir->names = MemoryContextAllocHuge(context, header.nameslen + 1);
	read_bytes(store, header.directory, (char *) dir->entries,
			   sizeof(TestenvEntry) * (Size) header.nentries, sizeof(TestenvEntry));
	read_bytes(store, header.names, dir->names, header.nameslen, 1);
	dir->names[header.nameslen] = '\0';

	MemoryContextSetParent(context, CacheMemoryContext);
	cached_directory = dir;
	return dir;
}

void
testenv_store_counters(Relation store, TestenvCounters *counters)
{
	PGAlignedBlock page;

	testenv_store_read(store, COUNTERS_BLOCK, page.data, NULL);
	memcpy(counters, PageGetContents((Page) page.data), sizeof(*counters));
}

/*
 * Count a restore.  Statistics only, so like other hints they are not logged
 * (a crash may lose some) and a restore that changes nothing writes no WAL.
 */
void
testenv_store_count_restore(Relation store, double ms)
{
	TestenvCounters counters;
	Buffer		buffer = ReadBuffer(store, COUNTERS_BLOCK);
	char	   *contents;

	LockBuffer(buffer, BUFFER_LOCK_EXCLUSIVE);
	contents = PageGetContents(BufferGetPage(buffer));
	memcpy(&counters, contents, sizeof(counters));
	counters.restores++;
	counters.last_restored_at = GetCurrentTimestamp();
	counters.last_ms = ms;
	counters.slowest_ms = Max(counters.slowest_ms, ms);
	memcpy(contents, &counters, sizeof(counters));
	MarkBufferDirtyHint(buffer, true);
	UnlockReleaseBuffer(buffer);
}

/* ---- writing ---- */

/* Lay len bytes on an empty page. */
static void
fill_page(char *page, const void *bytes, Size len)
{
	PageInit((Page) page, BLCKSZ, 0);
	memcpy(PageGetContents((Page) page), bytes, len);
	((PageHeader) page)->pd_lower = MAXALIGN(SizeOfPageHeaderData) + len;
}

/*
 * Start to fill a new, empty store.  The caller holds AccessExclusiveLock on
 * it from having made it.
 */
TestenvStoreWriter *
testenv_writer_begin(Relation store)
{
	TestenvStoreWriter *writer = palloc0(sizeof(TestenvStoreWriter));
	TestenvCounters counters = {0};
	PGAlignedBlock page;

	writer->rel = store;
	testenv_batch_begin(&writer->batch, store, NULL, true, testenv_batch_room());

	/* header, to come; counters */
	fill_page(page.data, "", 0);
	testenv_writer_put(writer, page.data, true);
	fill_page(page.data, &counters, sizeof(counters));
	testenv_writer_put(writer, page.data, true);
	return writer;
}

/* Append a page; returns its block. */
BlockNumber
testenv_writer_put(TestenvStoreWriter *writer, const char *page, bool standard)
{
	TestenvPageBatch *batch = &writer->batch;
	BlockNumber block = writer->next;

	if (block == MaxBlockNumber)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("cannot take a snapshot of more than %u pages", MaxBlockNumber)));
	if (testenv_batch_full(batch) || (batch->npages > 0 && batch->standard != standard))
	{
		CHECK_FOR_INTERRUPTS();
		testenv_batch_append(batch);
	}
	batch->standard = standard;
	memcpy(testenv_batch_add(batch, block), page, BLCKSZ);
	writer->next++;
	return block;
}

/* Append bytes; returns the first block.  A unit never spans pages. */
BlockNumber
testenv_writer_put_bytes(TestenvStoreWriter *writer, const char *bytes,
						 Size len, Size unit)
{
	BlockNumber first = writer->next;
	Size		per_page = PAGE_ROOM / unit * unit;

	while (len > 0)
	{
		PGAlignedBlock page;
		Size		n = Min(len, per_page);

		fill_page(page.data, bytes, n);
		testenv_writer_put(writer, page.data, true);
		bytes += n;
		len -= n;
	}
	return first;
}

/*
 * Write what is left, then the header, which makes the store a valid one.
 * The caller has filled in what the header says of the snapshot.
 */
BlockNumber
testenv_writer_end(TestenvStoreWriter *writer, TestenvHeader *header)
{
	Relation	rel = writer->rel;
	PGAlignedBlock image;
	Buffer		buffer;

	testenv_batch_append(&writer->batch);

	header->magic = STORE_MAGIC;
	header->format = STORE_FORMAT;
	header->major = PG_MAJORVERSION_NUM;
	header->blcksz = BLCKSZ;
	header->nblocks = writer->next;
	fill_page(image.data, header, sizeof(*header));

	buffer = ReadBuffer(rel, HEADER_BLOCK);
	LockBuffer(buffer, BUFFER_LOCK_EXCLUSIVE);
	START_CRIT_SECTION();
	memcpy(BufferGetPage(buffer), image.data, BLCKSZ);
	MarkBufferDirty(buffer);
	if (RelationNeedsWAL(rel))
		log_newpage_buffer(buffer, true);
	END_CRIT_SECTION();
	UnlockReleaseBuffer(buffer);
	return writer->next;
}
