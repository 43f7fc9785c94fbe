/*-------------------------------------------------------------------------
 *
 * mapping.c
 *		Which relation of today is which entry of a snapshot.
 *
 * Tables and sequences are found by OID.  Their TOAST tables are taken from
 * the table as it is now, because VACUUM FULL, CLUSTER and REFRESH can give a
 * table another one; indexes by OID, else by fingerprint, because REINDEX
 * CONCURRENTLY makes new ones.  What cannot be found, or is no longer laid out
 * as the pages of the snapshot are, is a problem: the restore is refused
 * before anything is touched.
 *
 * The mapping is kept as long as the view of the catalogs (catalog.c) that it
 * was made from, since in a run of tests neither changes.
 *
 * Locks: none.  What is found here is reliable for a relation once it is
 * locked and the mapping asked for again (see restore.c).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "testenv.h"

static TestenvMapping *cached_mapping = NULL;

/* What testenv_mapping_see() was told last, with what makes it valid. */
static struct
{
	uint64		owner_id;
	uint64		restore_number;
	XLogRecPtr	lsn;
}			seen;

/* From storage to entry; file numbers are unique in a tablespace only. */
typedef struct NumberSlot
{
	uint64		key;
	int			entry;
	char		status;
} NumberSlot;

static inline uint64
number_key(const RelFileLocator *locator)
{
	return (uint64) locator->spcOid << 32 | locator->relNumber;
}

#define SH_PREFIX numberhash
#define SH_ELEMENT_TYPE NumberSlot
#define SH_KEY_TYPE uint64
#define SH_KEY key
#define SH_HASH_KEY(tb, key) murmurhash32((uint32) (key))
#define SH_EQUAL(tb, a, b) ((a) == (b))
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

static void
set_target(TestenvTarget *target, const TestenvCatalogRel *rel)
{
	target->relid = rel->relid;
	target->locator.spcOid = OidIsValid(rel->reltablespace) ?
		rel->reltablespace : MyDatabaseTableSpace;
	target->locator.dbOid = MyDatabaseId;
	target->locator.relNumber = rel->relfilenumber;
	target->ispopulated = rel->ispopulated;
}

static void pg_attribute_printf(2, 3)
add_problem(TestenvMapping *mapping, const char *format,...)
{
	StringInfoData line;

	initStringInfo(&line);
	for (;;)
	{
		va_list		args;
		int			needed;

		va_start(args, format);
		needed = appendStringInfoVA(&line, format, args);
		va_end(args);
		if (needed == 0)
			break;
		enlargeStringInfo(&line, needed);
	}
	mapping->problems = lappend(mapping->problems, line.data);
}

static void
add_new_index(TestenvMapping *mapping, const TestenvCatalogIndex *index)
{
	Size		size = sizeof(TestenvCatalogIndex) * (mapping->nnew_indexes + 1);

	mapping->new_indexes = mapping->new_indexes ?
		repalloc(mapping->new_indexes, size) : palloc(size);
	mapping->new_indexes[mapping->nnew_indexes++] = *index;
}

/* How today's index of an entry may be found, in the order of preference. */
static const struct
{
	bool		by_oid;			/* else by fingerprint */
	bool		valid_only;
}			index_matches[] = {
	{true, true},
	{false, true},
	{true, false},
	{false, false}
};

/*
 * Find today's indexes of one heap (a table or its TOAST table) among the
 * entries first .. first + n - 1.  With n = 0 all of them are new.
 *
 * REINDEX CONCURRENTLY makes another index and gives it the name; if it fails
 * late, the old one stays beside it, no longer valid.  The image belongs to the
 * one that queries use.
 */
static void
map_indexes(TestenvMapping *mapping, TestenvCatalog *catalog,
			TestenvDirectory *dir, Oid tableid, int first, int n)
{
	int			start = testenv_catalog_first_index(catalog, tableid);
	int			end = start;
	bool	   *taken;
	int			match;
	int			i;
	int			k;

	while (end < catalog->nindexes && catalog->indexes[end].tableid == tableid)
		end++;
	taken = palloc0(sizeof(bool) * (end - start + 1));

	for (match = 0; match < (int) lengthof(index_matches); match++)
	{
		for (i = first; i < first + n; i++)
		{
			const TestenvEntry *entry = &dir->entries[i];

			if (OidIsValid(mapping->targets[i].relid))
				continue;
			for (k = start; k < end; k++)
			{
				const TestenvCatalogIndex *index = &catalog->indexes[k];

				if (taken[k - start] ||
					(index_matches[match].valid_only && !index->isvalid))
					continue;
				if (index_matches[match].by_oid ?
					index->indexid != entry->relid :
					testenv_index_fingerprint(index->indexid) != entry->fingerprint)
					continue;
				set_target(&mapping->targets[i],
						   testenv_catalog_rel(catalog, index->indexid));
				taken[k - start] = true;
				break;
			}
		}
	}

	for (i = first; i < first + n; i++)
		if (!OidIsValid(mapping->targets[i].relid))
			mapping->lost_indexes = lappend(mapping->lost_indexes,
											pstrdup(dir->names + dir->entries[i].name));

	/* one that is not maintained (see putback.c) need not be rebuilt either */
	for (k = start; k < end; k++)
		if (!taken[k - start] && catalog->indexes[k].isready)
			add_new_index(mapping, &catalog->indexes[k]);
	pfree(taken);
}

/* Map a table with its indexes, TOAST table and the TOAST table's indexes. */
static void
map_table(TestenvMapping *mapping, TestenvCatalog *catalog,
		  TestenvDirectory *dir, int entry)
{
	const TestenvEntry *table = &dir->entries[entry];
	const TestenvCatalogRel *rel = testenv_catalog_rel(catalog, table->relid);
	const TestenvCatalogRel *toast_rel;
	int			last = entry + table->nchildren;
	int			toast = entry + 1;

	while (toast <= last && dir->entries[toast].kind != TESTENV_TOAST)
		toast++;

	if (rel == NULL)
	{
		add_problem(mapping, "%s was dropped", dir->names + table->name);
		return;
	}
	if (rel->relpersistence != table->relpersistence)
	{
		add_problem(mapping, "%s is %s now", testenv_relation_name(rel->relid),
					rel->relpersistence == RELPERSISTENCE_UNLOGGED ? "unlogged" : "logged");
		return;
	}
	if (rel->fingerprint != table->fingerprint || rel->relam != table->relam)
	{
		add_problem(mapping, "%s has other columns, or columns of other types",
					testenv_relation_name(rel->relid));
		return;
	}
	set_target(&mapping->targets[entry], rel);
	map_indexes(mapping, catalog, dir, rel->relid, entry + 1, toast - entry - 1);

	toast_rel = OidIsValid(rel->toastrelid) ?
		testenv_catalog_rel(catalog, rel->toastrelid) : NULL;
	/* VACUUM FULL drops a TOAST table that no column needs any more */
	if (toast_rel == NULL && toast <= last && dir->entries[toast].nblocks == 0)
		return;
	if ((toast_rel != NULL) != (toast <= last))
	{
		add_problem(mapping, "%s has %s TOAST table",
					testenv_relation_name(rel->relid),
					toast_rel != NULL ? "got a" : "lost its");
		return;
	}
	if (toast_rel != NULL)
	{
		set_target(&mapping->targets[toast], toast_rel);
		map_indexes(mapping, catalog, dir, toast_rel->relid, toast + 1, last - toast);
	}
}

static void
map_sequence(TestenvMapping *mapping, TestenvCatalog *catalog,
			 TestenvDirectory *dir, int entry)
{
	const TestenvEntry *sequence = &dir->entries[entry];
	const TestenvCatalogRel *rel = testenv_catalog_rel(catalog, sequence->relid);

	if (rel == NULL)
		add_problem(mapping, "%s was dropped", dir->names + sequence->name);
	else if (rel->fingerprint != sequence->fingerprint ||
			 rel->relpersistence != sequence->relpersistence)
		add_problem(mapping, "sequence %s was altered",
					testenv_relation_name(rel->relid));
	else
		set_target(&mapping->targets[entry], rel);
}

/* Tables of today that the snapshot does not know. */
static void
find_new_tables(TestenvMapping *mapping, TestenvCatalog *catalog,
				TestenvDirectory *dir)
{
	uint32		entry = 0;
	int			i;

	/* both are in the order of OIDs */
	for (i = 0; i < catalog->nrels; i++)
	{
		const TestenvCatalogRel *rel = &catalog->rels[i];
		Size		size = sizeof(Oid) * (mapping->nnew_tables + 1);

		if (!testenv_catalog_is_table(rel))
			continue;
		while (entry < dir->header.nentries && dir->entries[entry].relid < rel->relid)
			entry += 1 + dir->entries[entry].nchildren;
		if (entry < dir->header.nentries && dir->entries[entry].relid == rel->relid)
			continue;
		mapping->new_tables = mapping->new_tables ?
			repalloc(mapping->new_tables, size) : palloc(size);
		mapping->new_tables[mapping->nnew_tables++] = rel->relid;
	}
}

/*
 * What a detector needs to know of all entries, so that it need not go through
 * them each time.
 */
static void
index_targets(TestenvMapping *mapping, const TestenvDirectory *dir)
{
	int			n = (int) dir->header.nentries;
	int			root = 0;
	int			i;

	mapping->root_of = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(int) * (Size) (n + 1));
	mapping->roots = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(int) * (Size) (n + 1));
	mapping->moved = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(int) * (Size) (n + 1));
	mapping->looked = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(int) * (Size) (n + 1));
	mapping->metapages = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(int) * (Size) (n + 1));
	mapping->numbers = numberhash_create(CurrentMemoryContext, Max(n, 16), NULL);
	for (i = 0; i < n; i++)
	{
		const TestenvEntry *entry = &dir->entries[i];
		const TestenvTarget *target = &mapping->targets[i];
		bool		found;

		if (i > root + (int) dir->entries[root].nchildren)
			root = i;
		mapping->root_of[i] = root;
		mapping->weight += entry->kind == TESTENV_INDEX ? entry->nblocks : 0;
		if (i == root)
			mapping->roots[mapping->nroots++] = i;
		if (i == root &&
			(entry->relpersistence != RELPERSISTENCE_PERMANENT ||
			 target->ispopulated != ((entry->flags & TESTENV_POPULATED) != 0)))
			mapping->looked[mapping->nlooked++] = i;
		if (!OidIsValid(target->relid))
			continue;
		numberhash_insert(mapping->numbers, number_key(&target->locator), &found)->entry = i;
		if (target->locator.relNumber != entry->relfilenumber)
			mapping->moved[mapping->nmoved++] = i;
		if (entry->relam == SPGIST_AM_OID &&
			entry->relpersistence == RELPERSISTENCE_PERMANENT && entry->nblocks > 0)
			mapping->metapages[mapping->nmetapages++] = i;
	}
}

/*
 * Would shared buffers keep all indexes, so that to look at a page of theirs
 * costs no read?  A guess: only the time of a restore depends on it.
 */
bool
testenv_indexes_are_cached(const TestenvMapping *mapping)
{
	return mapping->weight <= (uint64) NBuffers / 4;
}

/* The entry whose storage this is today, or -1. */
int
testenv_mapping_entry(const TestenvMapping *mapping, const RelFileLocator *locator)
{
	NumberSlot *slot = numberhash_lookup(mapping->numbers, number_key(locator));

	return slot != NULL ? slot->entry : -1;
}

/* The entry of a table or sequence, or -1. */
int
testenv_mapping_root(const TestenvMapping *mapping, const TestenvDirectory *dir,
					 Oid relid)
{
	int			low = 0;
	int			high = mapping->nroots;

	while (low < high)
	{
		int			mid = low + (high - low) / 2;

		if (dir->entries[mapping->roots[mid]].relid < relid)
			low = mid + 1;
		else
			high = mid;
	}
	return low < mapping->nroots && dir->entries[mapping->roots[low]].relid == relid ?
		mapping->roots[low] : -1;
}

/*
 * Are the pages of this relation those that the state page speaks of?  Unlogged
 * relations' never are: nothing in them tells when they changed.
 */
bool
testenv_trusted(const TestenvRestore *restore, int entry)
{
	const TestenvState *state = &restore->state;
	RelFileNumber number = restore->mapping->targets[entry].locator.relNumber;
	uint32		low = 0;
	uint32		high = state->head.noverrides;

	if (!restore->speaks ||
		restore->dir->entries[entry].relpersistence != RELPERSISTENCE_PERMANENT)
		return false;
	while (low < high)
	{
		uint32		mid = low + (high - low) / 2;

		if (state->overrides[mid].entry < (uint32) entry)
			low = mid + 1;
		else
			high = mid;
	}
	if (low < state->head.noverrides && state->overrides[low].entry == (uint32) entry)
		return number == state->overrides[low].relfilenumber;
	return number == restore->dir->entries[entry].relfilenumber;
}

/*
 * From where on the WAL has to be read: the clean LSN, or where this session has
 * found the database equal to the snapshot since.  That lasts until the state
 * page is written again.
 *
 * If nothing has been written since but the commit of this session's last
 * transaction, that need not be read either.
 */
XLogRecPtr
testenv_mapping_seen(const TestenvState *state)
{
	if (seen.owner_id != state->head.owner_id ||
		seen.restore_number != state->head.restore_number ||
		seen.lsn < state->head.clean_lsn)
		return state->head.clean_lsn;
	if (ProcLastRecPtr == seen.lsn && !XLogRecPtrIsInvalid(XactLastCommitEnd) &&
		testenv_lsn_start(XactLastCommitEnd) == GetXLogInsertRecPtr())
		return GetXLogInsertRecPtr();
	return seen.lsn;
}

/* The database is equal to the snapshot at a position. */
void
testenv_mapping_see(uint64 owner_id, uint64 restore_number, XLogRecPtr lsn)
{
	seen.owner_id = owner_id;
	seen.restore_number = restore_number;
	seen.lsn = lsn;
}

/*
 * Have the catalogs changed since the mapping was made?  The caller has read
 * the invalidation messages, for instance by taking a lock.
 */
bool
testenv_mapping_is_current(const TestenvMapping *mapping)
{
	return testenv_catalog_is_current(mapping->generation);
}

/*
 * The mapping of a snapshot, made anew if the catalogs have changed.  It stays
 * valid until the next call.
 */
TestenvMapping *
testenv_mapping(TestenvDirectory *dir)
{
	TestenvCatalog *catalog = testenv_catalog();
	TestenvMapping *mapping = cached_mapping;
	MemoryContext context;
	MemoryContext old;
	uint32		i;

	if (mapping == NULL || mapping->generation != catalog->generation ||
		mapping->storeid != dir->storeid || mapping->id != dir->header.id)
	{
		if (mapping != NULL)
		{
			cached_mapping = NULL;
			MemoryContextDelete(mapping->context);
		}
		context = AllocSetContextCreate(CurrentMemoryContext, "testenv mapping",
										ALLOCSET_DEFAULT_SIZES);
		old = MemoryContextSwitchTo(context);
		mapping = palloc0(sizeof(TestenvMapping));
		mapping->context = context;
		mapping->generation = catalog->generation;
		mapping->storeid = dir->storeid;
		mapping->id = dir->header.id;
		mapping->targets = MemoryContextAllocExtended(context,
													  sizeof(TestenvTarget) * (Size) (dir->header.nentries + 1),
													  MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
		for (i = 0; i < dir->header.nentries; i += 1 + dir->entries[i].nchildren)
		{
			if (dir->entries[i].kind == TESTENV_SEQUENCE)
				map_sequence(mapping, catalog, dir, i);
			else
				map_table(mapping, catalog, dir, i);
		}
		find_new_tables(mapping, catalog, dir);
		index_targets(mapping, dir);
		MemoryContextSwitchTo(old);
		MemoryContextSetParent(context, CacheMemoryContext);
		cached_mapping = mapping;
	}
	return mapping;
}
