/*-------------------------------------------------------------------------
 *
 * largeobject.c
 *		Large objects: what the shared catalogs know of them.
 *
 * The objects themselves lie in two catalogs that are put back page by page
 * like any table.  But who owns them and who was granted rights is written in
 * pg_shdepend too, which is shared by all databases and is what DROP ROLE
 * looks at.  After pg_largeobject_metadata was put back, the entries there are
 * made to agree with it.  This is an ordinary change of a catalog: a ROLLBACK
 * takes it back, and the next restore makes it again (state.c).
 *
 * Locks: RowExclusiveLock on pg_shdepend; the caller holds AccessExclusiveLock
 * on pg_largeobject_metadata.
 *
 * Not put back: comments and security labels of a large object that a test
 * removed.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/catalog.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_largeobject.h"
#include "catalog/pg_largeobject_metadata.h"
#include "catalog/pg_shdepend.h"
#include "commands/comment.h"
#include "commands/seclabel.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "testenv.h"

/* One entry of pg_shdepend for a large object, there or wanted. */
typedef struct LargeObjectDependency
{
	Oid			loid;
	Oid			roleid;
	char		deptype;
} LargeObjectDependency;

static int
compare_dependencies(const ListCell *a, const ListCell *b)
{
	const LargeObjectDependency *x = lfirst(a);
	const LargeObjectDependency *y = lfirst(b);

	if (x->loid != y->loid)
		return x->loid < y->loid ? -1 : 1;
	if (x->roleid != y->roleid)
		return x->roleid < y->roleid ? -1 : 1;
	return x->deptype - y->deptype;
}

static List *
add_dependency(List *list, Oid loid, Oid roleid, char deptype)
{
	LargeObjectDependency *dependency = palloc(sizeof(LargeObjectDependency));

	dependency->loid = loid;
	dependency->roleid = roleid;
	dependency->deptype = deptype;
	return lappend(list, dependency);
}

/* What pg_shdepend has for large objects of this database. */
static List *
present_dependencies(void)
{
	Relation	pg_shdepend = table_open(SharedDependRelationId, AccessShareLock);
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;
	List	   *list = NIL;

	ScanKeyInit(&keys[0], Anum_pg_shdepend_dbid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(MyDatabaseId));
	ScanKeyInit(&keys[1], Anum_pg_shdepend_classid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(LargeObjectRelationId));
	scan = systable_beginscan(pg_shdepend, SharedDependDependerIndexId, true,
							  NULL, 2, keys);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_shdepend form = (Form_pg_shdepend) GETSTRUCT(tuple);

		list = add_dependency(list, form->objid, form->refobjid, form->deptype);
	}
	systable_endscan(scan);
	table_close(pg_shdepend, AccessShareLock);
	list_sort(list, compare_dependencies);
	return list;
}

/* What it should have of one large object. */
static List *
wanted_of(List *list, HeapTuple tuple, TupleDesc desc)
{
	Form_pg_largeobject_metadata form = (Form_pg_largeobject_metadata) GETSTRUCT(tuple);
	bool		isnull;
	Datum		value = heap_getattr(tuple, Anum_pg_largeobject_metadata_lomacl,
									 desc, &isnull);

	if (!IsPinnedObject(AuthIdRelationId, form->lomowner))
		list = add_dependency(list, form->oid, form->lomowner, SHARED_DEPENDENCY_OWNER);
	if (!isnull)
	{
		Oid		   *members;
		int			nmembers = aclmembers(DatumGetAclP(value), &members);
		int			i;

		for (i = 0; i < nmembers; i++)
			if (members[i] != form->lomowner &&
				!IsPinnedObject(AuthIdRelationId, members[i]))
				list = add_dependency(list, form->oid, members[i], SHARED_DEPENDENCY_ACL);
	}
	return list;
}

static List *
wanted_dependencies(Relation metadata)
{
	SysScanDesc scan = systable_beginscan(metadata, InvalidOid, false, NULL, 0, NULL);
	HeapTuple	tuple;
	List	   *list = NIL;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		list = wanted_of(list, tuple, RelationGetDescr(metadata));
	systable_endscan(scan);
	list_sort(list, compare_dependencies);
	return list;
}

static bool
large_object_exists(Relation metadata, Oid loid)
{
	ScanKeyData key;
	SysScanDesc scan;
	bool		result;

	ScanKeyInit(&key, Anum_pg_largeobject_metadata_oid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(loid));
	scan = systable_beginscan(metadata, LargeObjectMetadataOidIndexId, true,
							  NULL, 1, &key);
	result = HeapTupleIsValid(systable_getnext(scan));
	systable_endscan(scan);
	return result;
}

static void
insert_dependency(Relation pg_shdepend, const LargeObjectDependency *dependency)
{
	Datum		values[Natts_pg_shdepend];
	bool		nulls[Natts_pg_shdepend] = {0};
	HeapTuple	tuple;

	values[Anum_pg_shdepend_dbid - 1] = ObjectIdGetDatum(MyDatabaseId);
	values[Anum_pg_shdepend_classid - 1] = ObjectIdGetDatum(LargeObjectRelationId);
	values[Anum_pg_shdepend_objid - 1] = ObjectIdGetDatum(dependency->loid);
	values[Anum_pg_shdepend_objsubid - 1] = Int32GetDatum(0);
	values[Anum_pg_shdepend_refclassid - 1] = ObjectIdGetDatum(AuthIdRelationId);
	values[Anum_pg_shdepend_refobjid - 1] = ObjectIdGetDatum(dependency->roleid);
	values[Anum_pg_shdepend_deptype - 1] = CharGetDatum(dependency->deptype);
	tuple = heap_form_tuple(RelationGetDescr(pg_shdepend), values, nulls);
	CatalogTupleInsert(pg_shdepend, tuple);
	heap_freetuple(tuple);
}

/*
 * Make pg_shdepend agree with pg_largeobject_metadata, which was just put
 * back.  False if they agreed already.
 */
bool
testenv_largeobject_dependencies(void)
{
	Relation	metadata = table_open(LargeObjectMetadataRelationId, AccessShareLock);
	List	   *present = present_dependencies();
	List	   *wanted = wanted_dependencies(metadata);
	Oid			last = InvalidOid;
	Relation	pg_shdepend;
	ListCell   *cell;
	bool		same = list_length(present) == list_length(wanted);
	int			i;

	for (i = 0; same && i < list_length(wanted); i++)
		same = compare_dependencies(list_nth_cell(present, i),
									list_nth_cell(wanted, i)) == 0;
	if (same)
	{
		table_close(metadata, AccessShareLock);
		return false;
	}

	foreach(cell, present)
	{
		Oid			loid = ((LargeObjectDependency *) lfirst(cell))->loid;

		if (loid == last)
			continue;
		last = loid;
		deleteSharedDependencyRecordsFor(LargeObjectRelationId, loid, 0);
		if (!large_object_exists(metadata, loid))
		{
			ObjectAddress object;

			ObjectAddressSet(object, LargeObjectRelationId, loid);
			DeleteComments(loid, LargeObjectRelationId, 0);
			DeleteSecurityLabel(&object);
		}
	}
	CommandCounterIncrement();

	pg_shdepend = table_open(SharedDependRelationId, RowExclusiveLock);
	foreach(cell, wanted)
		insert_dependency(pg_shdepend, lfirst(cell));
	table_close(pg_shdepend, RowExclusiveLock);
	CommandCounterIncrement();
	table_close(metadata, AccessShareLock);
	return true;
}
