/*-------------------------------------------------------------------------
 *
 * catalog.c
 *		What the catalogs say of the relations that a snapshot covers.
 *
 * A restore needs, of every relation: which storage it has now, which TOAST
 * table and indexes belong to it, and whether its definition is still the
 * snapshot's.  Asking the syscache per relation costs more than a scan of
 * pg_class when there are thousands, so one view of it all is built by four
 * sequential scans and kept in the backend, until an invalidation message
 * about pg_class, pg_attribute, pg_index or pg_sequence arrives.  Those are
 * the messages that the server's own relcache depends on, so the view is as
 * good as the relcache; like it, it is only reliable for a relation once a
 * lock on that relation has been taken and the messages been read.
 *
 * Covered are tables and materialized views of the heap access method, and
 * sequences, permanent or unlogged, of all schemas but pg_catalog's, of
 * information_schema and temporary ones; and of pg_catalog the two that hold
 * large objects.
 *
 * The fingerprint of a definition is a sum over the columns of hashes, so that
 * the order in which a scan finds the rows of pg_attribute does not matter. It
 * covers what decides how a page is read (type, length, alignment, dropped
 * columns and missing values, persistence); not names, constraints or defaults,
 * which may change without harm to the pages.
 *
 * Locks: AccessShareLock on the catalogs while they are scanned.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/catalog.h"
#include "catalog/namespace.h"
#include "catalog/pg_am.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "catalog/pg_largeobject.h"
#include "catalog/pg_largeobject_metadata.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_sequence.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "nodes/nodes.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "testenv.h"

/* Grows with each message that may make the view stale. */
static uint64 catalog_generation = 1;
static bool callbacks_registered = false;
static TestenvCatalog *cached_catalog = NULL;

static void
catalog_changed(Datum arg, int cacheid, uint32 hashvalue)
{
	catalog_generation++;
}

static void
register_callbacks(void)
{
	if (callbacks_registered)
		return;
	CacheRegisterSyscacheCallback(RELOID, catalog_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(ATTNUM, catalog_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(INDEXRELID, catalog_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(SEQRELID, catalog_changed, (Datum) 0);
	callbacks_registered = true;
}

static uint64
hash_bytes64(const void *bytes, Size len, uint64 seed)
{
	return hash_bytes_extended((const unsigned char *) bytes, (int) len, seed);
}

/* The large objects' own relations, of all of pg_catalog. */
static bool
holds_large_objects(Oid relid)
{
	return relid == LargeObjectRelationId ||
		relid == LargeObjectMetadataRelationId ||
		relid == LargeObjectLOidPNIndexId ||
		relid == LargeObjectMetadataOidIndexId;
}

/* Does an access method's handler make ordinary heaps? */
static bool
is_heap_am(Oid amoid)
{
	HeapTuple	tuple;
	bool		result;

	if (amoid == HEAP_TABLE_AM_OID)
		return true;
	tuple = SearchSysCache1(AMOID, ObjectIdGetDatum(amoid));
	if (!HeapTupleIsValid(tuple))
		return false;
	result = ((Form_pg_am) GETSTRUCT(tuple))->amhandler == F_HEAP_TABLEAM_HANDLER;
	ReleaseSysCache(tuple);
	return result;
}

/* Is this row of pg_class part of what a snapshot can cover? */
static bool
is_covered(Form_pg_class form)
{
	if (form->relpersistence == RELPERSISTENCE_TEMP)
		return false;
	if (form->oid < FirstNormalObjectId)
		return holds_large_objects(form->oid);
	if (form->relnamespace == PG_CATALOG_NAMESPACE)
		return false;

	switch (form->relkind)
	{
		case RELKIND_RELATION:
		case RELKIND_MATVIEW:
		case RELKIND_TOASTVALUE:
			return is_heap_am(form->relam);
		case RELKIND_SEQUENCE:
		case RELKIND_INDEX:
			return true;
		default:
			return false;
	}
}

static int
compare_rels(const void *a, const void *b)
{
	Oid			x = ((const TestenvCatalogRel *) a)->relid;
	Oid			y = ((const TestenvCatalogRel *) b)->relid;

	return x < y ? -1 : x > y;
}

static int
compare_indexes(const void *a, const void *b)
{
	const TestenvCatalogIndex *x = a;
	const TestenvCatalogIndex *y = b;

	if (x->tableid != y->tableid)
		return x->tableid < y->tableid ? -1 : 1;
	return x->indexid < y->indexid ? -1 : x->indexid > y->indexid;
}

/* One relation of the view, or NULL. */
TestenvCatalogRel *
testenv_catalog_rel(TestenvCatalog *catalog, Oid relid)
{
	TestenvCatalogRel key;

	key.relid = relid;
	return bsearch(&key, catalog->rels, catalog->nrels,
				   sizeof(TestenvCatalogRel), compare_rels);
}

/* The position of the first index of a table, or of where it would stand. */
int
testenv_catalog_first_index(TestenvCatalog *catalog, Oid tableid)
{
	int			low = 0;
	int			high = catalog->nindexes;

	while (low < high)
	{
		int			mid = low + (high - low) / 2;

		if (catalog->indexes[mid].tableid < tableid)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

/* Does a relation of the view hold rows of users, or a sequence? */
bool
testenv_catalog_is_table(const TestenvCatalogRel *rel)
{
	return rel->relkind == RELKIND_RELATION || rel->relkind == RELKIND_MATVIEW;
}

static void
scan_pg_class(TestenvCatalog *catalog)
{
	Relation	pg_class = table_open(RelationRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(pg_class, InvalidOid, false, NULL, 0, NULL);
	int			max = 256;
	HeapTuple	tuple;

	catalog->rels = MemoryContextAllocHuge(catalog->context,
										   sizeof(TestenvCatalogRel) * max);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_class form = (Form_pg_class) GETSTRUCT(tuple);
		TestenvCatalogRel *rel;

		if (!is_covered(form))
			continue;
		if (catalog->nrels == max)
		{
			max *= 2;
			catalog->rels = repalloc_huge(catalog->rels,
										  sizeof(TestenvCatalogRel) * max);
		}
		rel = &catalog->rels[catalog->nrels++];
		memset(rel, 0, sizeof(*rel));
		rel->relid = form->oid;
		rel->relnamespace = form->relnamespace;
		rel->relam = form->relam;
		rel->reltablespace = form->reltablespace;
		rel->toastrelid = form->reltoastrelid;
		rel->relfilenumber = form->relfilenode;
		rel->relkind = form->relkind;
		rel->relpersistence = form->relpersistence;
		rel->ispopulated = form->relispopulated;
		rel->fingerprint = hash_bytes64(&form->relpersistence, 1, form->relkind);
	}
	systable_endscan(scan);
	table_close(pg_class, AccessShareLock);
	qsort(catalog->rels, catalog->nrels, sizeof(TestenvCatalogRel), compare_rels);
}

static void
scan_pg_attribute(TestenvCatalog *catalog)
{
	Relation	pg_attribute = table_open(AttributeRelationId, AccessShareLock);
	TupleDesc	desc = RelationGetDescr(pg_attribute);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_attribute_attnum, BTGreaterStrategyNumber,
				F_INT2GT, Int16GetDatum(0));
	scan = systable_beginscan(pg_attribute, InvalidOid, false, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_attribute form = (Form_pg_attribute) GETSTRUCT(tuple);
		TestenvCatalogRel *rel;
		int32		column[7];
		uint64		hash;

		if (form->attrelid < FirstNormalObjectId)
			continue;
		rel = testenv_catalog_rel(catalog, form->attrelid);
		if (rel == NULL || !testenv_catalog_is_table(rel))
			continue;

		/* the type of a dropped column is forgotten; its length is not */
		column[0] = form->attnum;
		column[1] = (int32) form->atttypid;
		column[2] = form->atttypmod;
		column[3] = form->attlen;
		column[4] = form->attalign;
		column[5] = form->attisdropped;
		column[6] = form->attbyval;
		hash = hash_bytes64(column, sizeof(column), 0);
		if (form->atthasmissing)
		{
			bool		isnull;
			Datum		missing = heap_getattr(tuple, Anum_pg_attribute_attmissingval,
											   desc, &isnull);

			if (!isnull)
			{
				struct varlena *value = PG_DETOAST_DATUM(missing);

				hash = hash_bytes64(value, VARSIZE(value), hash);
				if ((Pointer) value != DatumGetPointer(missing))
					pfree(value);
			}
		}
		rel->fingerprint += hash;
	}
	systable_endscan(scan);
	table_close(pg_attribute, AccessShareLock);
}

static void
scan_pg_index(TestenvCatalog *catalog)
{
	Relation	pg_index = table_open(IndexRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(pg_index, InvalidOid, false, NULL, 0, NULL);
	int			max = 256;
	HeapTuple	tuple;

	catalog->indexes = MemoryContextAllocHuge(catalog->context,
											  sizeof(TestenvCatalogIndex) * max);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_index form = (Form_pg_index) GETSTRUCT(tuple);

		if (form->indexrelid < FirstNormalObjectId &&
			!holds_large_objects(form->indexrelid))
			continue;
		/* an index that is being dropped is no longer written to */
		if (!form->indislive)
			continue;
		/* partitioned indexes, and those of temporary tables, are not in rels */
		if (testenv_catalog_rel(catalog, form->indexrelid) == NULL ||
			testenv_catalog_rel(catalog, form->indrelid) == NULL)
			continue;
		if (catalog->nindexes == max)
		{
			max *= 2;
			catalog->indexes = repalloc_huge(catalog->indexes,
											 sizeof(TestenvCatalogIndex) * max);
		}
		catalog->indexes[catalog->nindexes].tableid = form->indrelid;
		catalog->indexes[catalog->nindexes].relam =
			testenv_catalog_rel(catalog, form->indexrelid)->relam;
		catalog->indexes[catalog->nindexes].isready = form->indisready;
		catalog->indexes[catalog->nindexes].isvalid = form->indisvalid;
		catalog->indexes[catalog->nindexes++].indexid = form->indexrelid;
	}
	systable_endscan(scan);
	table_close(pg_index, AccessShareLock);
	qsort(catalog->indexes, catalog->nindexes, sizeof(TestenvCatalogIndex),
		  compare_indexes);
}

static void
scan_pg_sequence(TestenvCatalog *catalog)
{
	Relation	pg_sequence = table_open(SequenceRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(pg_sequence, InvalidOid, false, NULL, 0, NULL);
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_sequence form = (Form_pg_sequence) GETSTRUCT(tuple);
		TestenvCatalogRel *rel = testenv_catalog_rel(catalog, form->seqrelid);
		int64		values[7];

		if (rel == NULL)
			continue;
		values[0] = form->seqtypid;
		values[1] = form->seqstart;
		values[2] = form->seqincrement;
		values[3] = form->seqmax;
		values[4] = form->seqmin;
		values[5] = form->seqcache;
		values[6] = form->seqcycle;
		rel->fingerprint += hash_bytes64(values, sizeof(values), 0);
		rel->iscached = form->seqcache > 1;
	}
	systable_endscan(scan);
	table_close(pg_sequence, AccessShareLock);
}

/* Has no message arrived that makes a view of that generation stale? */
bool
testenv_catalog_is_current(uint64 generation)
{
	return generation == catalog_generation;
}

/*
 * The view of the catalogs: the cached one if nothing has changed since.  It
 * stays valid until the next call.
 */
TestenvCatalog *
testenv_catalog(void)
{
	register_callbacks();
	AcceptInvalidationMessages();

	while (cached_catalog == NULL ||
		   cached_catalog->generation != catalog_generation)
	{
		TestenvCatalog *catalog;
		MemoryContext context;

		if (cached_catalog != NULL)
		{
			context = cached_catalog->context;
			cached_catalog = NULL;
			MemoryContextDelete(context);
		}
		context = AllocSetContextCreate(CurrentMemoryContext, "testenv catalog",
										ALLOCSET_DEFAULT_SIZES);
		catalog = MemoryContextAllocZero(context, sizeof(TestenvCatalog));
		catalog->context = context;
		catalog->generation = catalog_generation;

		scan_pg_class(catalog);
		scan_pg_attribute(catalog);
		scan_pg_index(catalog);
		scan_pg_sequence(catalog);

		MemoryContextSetParent(context, CacheMemoryContext);
		cached_catalog = catalog;
	}
	return cached_catalog;
}

/* Hash a value of pg_index; trees without the places they were parsed from. */
static uint64
hash_index_value(Datum value, bool is_tree, uint64 hash)
{
	struct varlena *bytes;

	if (is_tree)
	{
		char	   *tree = nodeToString(stringToNode(TextDatumGetCString(value)));

		return hash_bytes64(tree, strlen(tree), hash);
	}
	bytes = PG_DETOAST_DATUM(value);
	return hash_bytes64(bytes, VARSIZE(bytes), hash);
}

/*
 * The fingerprint of an index: two indexes of a table with the same one hold
 * the same entries in the same way, as REINDEX CONCURRENTLY's two do.
 */
uint64
testenv_index_fingerprint(Oid indexid)
{
	static const struct
	{
		AttrNumber	attnum;
		bool		is_tree;
	}			columns[] = {
		{Anum_pg_index_indkey, false},
		{Anum_pg_index_indcollation, false},
		{Anum_pg_index_indclass, false},
		{Anum_pg_index_indoption, false},
		{Anum_pg_index_indexprs, true},
		{Anum_pg_index_indpred, true}
	};
	HeapTuple	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(indexid));
	HeapTuple	class_tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(indexid));
	Form_pg_index form;
	uint64		hash = 0;
	Datum		value;
	bool		isnull;
	int			i;

	if (!HeapTupleIsValid(tuple) || !HeapTupleIsValid(class_tuple))
		elog(ERROR, "cache lookup failed for index %u", indexid);
	form = (Form_pg_index) GETSTRUCT(tuple);
	hash = hash_combine64(hash, ((Form_pg_class) GETSTRUCT(class_tuple))->relam);
	hash = hash_combine64(hash, form->indnatts);
	hash = hash_combine64(hash, form->indnkeyatts);
	hash = hash_combine64(hash, form->indisunique);
	hash = hash_combine64(hash, form->indisexclusion);

	for (i = 0; i < (int) lengthof(columns); i++)
	{
		value = SysCacheGetAttr(INDEXRELID, tuple, columns[i].attnum, &isnull);
		if (!isnull)
			hash = hash_index_value(value, columns[i].is_tree, hash);
	}
	value = SysCacheGetAttr(RELOID, class_tuple, Anum_pg_class_reloptions, &isnull);
	if (!isnull)
		hash = hash_index_value(value, false, hash);
	for (i = 1; i <= form->indnkeyatts; i++)
	{
		/* parameters of operator classes, which lay entries out differently */
		value = get_attoptions(indexid, i);
		if (value != (Datum) 0)
			hash = hash_index_value(value, false, hash_combine64(hash, i));
	}
	ReleaseSysCache(class_tuple);
	ReleaseSysCache(tuple);
	return hash;
}

/* "schema.name", quoted, or the OID where there is nothing by that OID. */
char *
testenv_relation_name(Oid relid)
{
	char	   *relname = get_rel_name(relid);
	char	   *nspname = relname ? get_namespace_name(get_rel_namespace(relid)) : NULL;

	if (relname == NULL || nspname == NULL)
		return psprintf("relation %u", relid);
	return quote_qualified_identifier(nspname, relname);
}

/*
 * One line that names what a snapshot does not cover, or NULL if it covers
 * everything.
 */
char *
testenv_uncovered_relations(void)
{
	Relation	pg_class = table_open(RelationRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(pg_class, InvalidOid, false, NULL, 0, NULL);
	Oid			own_am = testenv_access_method_oid(true);
	StringInfoData list;
	int			count = 0;
	HeapTuple	tuple;

	initStringInfo(&list);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_class form = (Form_pg_class) GETSTRUCT(tuple);
		const char *what;

		if (form->oid < FirstNormalObjectId || form->relam == own_am)
			continue;
		if (form->relkind == RELKIND_FOREIGN_TABLE)
			what = "foreign table";
		else if (form->relkind != RELKIND_RELATION && form->relkind != RELKIND_MATVIEW)
			continue;
		else if (form->relpersistence == RELPERSISTENCE_TEMP)
			what = "temporary table";
		else if (!is_heap_am(form->relam))
			what = "table of a foreign access method";
		else
			continue;

		if (count++ < 20)
			appendStringInfo(&list, "%s%s %s", list.len > 0 ? ", " : "", what,
							 quote_qualified_identifier(get_namespace_name(form->relnamespace),
														NameStr(form->relname)));
	}
	systable_endscan(scan);
	table_close(pg_class, AccessShareLock);
	if (count == 0)
		return NULL;
	if (count > 20)
		appendStringInfo(&list, ", and %d more", count - 20);
	return list.data;
}
