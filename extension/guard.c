/*-------------------------------------------------------------------------
 *
 * guard.c
 *		What must hold before testenv changes anything.
 *
 * testenv overwrites data, so it works in databases that are meant for it and
 * nowhere else.  Three guards, each of which somebody has to have set up on
 * purpose: the name of the database contains "test"; a superuser has turned
 * testenv.testing_mode on; and EXECUTE has been granted, which PostgreSQL
 * checks before a function here is called.
 *
 * Locks: none.
 *
 * Not protected against: a superuser who calls production "latest".
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/parallel.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_class.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "storage/large_object.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "testenv.h"

static bool
contains_test(const char *name)
{
	for (; *name != '\0'; name++)
		if (pg_strncasecmp(name, "test", 4) == 0)
			return true;
	return false;
}

static bool
is_template_database(void)
{
	HeapTuple	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(MyDatabaseId));
	bool		result;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for database %u", MyDatabaseId);
	result = ((Form_pg_database) GETSTRUCT(tuple))->datistemplate;
	ReleaseSysCache(tuple);
	return result;
}

/*
 * Refuse unless this is a test database that may be changed now.  "verb" is
 * what the caller wants: "restore", "take", "drop".
 */
void
testenv_guard(const char *verb)
{
	char	   *database = get_database_name(MyDatabaseId);

	if (!contains_test(database))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot %s a snapshot in database \"%s\": it is not a test database",
						verb, database),
				 errdetail("testenv overwrites data, so it only works in databases whose name contains \"test\"."),
				 errhint("Connect to a test database, or create one with CREATE DATABASE.")));
	if (is_template_database())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot %s a snapshot in database \"%s\": it is a template database",
						verb, database),
				 errdetail("Databases are created as copies of a template database."),
				 errhint("Connect to another database, or use ALTER DATABASE ... IS_TEMPLATE false.")));
	if (!testenv_testing_mode)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot %s a snapshot while testenv.testing_mode is off", verb),
				 errdetail("testenv overwrites data, so a superuser has to allow it for each database or server."),
				 errhint("As a superuser, run ALTER DATABASE \"%s\" SET testenv.testing_mode = on, and reconnect.",
						 database)));
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("cannot %s a snapshot during recovery", verb),
				 errdetail("This server is a standby."),
				 errhint("Connect to the primary server.")));
	if (XactReadOnly)
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("cannot %s a snapshot in a read-only transaction", verb),
				 errdetail("testenv writes to the tables of the database."),
				 errhint("Use SET TRANSACTION READ WRITE, or look at default_transaction_read_only.")));
	if (IsInParallelMode())
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_STATE),
				 errmsg("cannot %s a snapshot during a parallel operation", verb),
				 errdetail("The calling query runs in parallel mode."),
				 errhint("Call the function in a query of its own.")));
}

/* Refuse a name that cannot be that of a snapshot. */
void
testenv_guard_name(const char *name)
{
	if (name[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("name of a snapshot must not be empty"),
				 errdetail("An empty name was given."),
				 errhint("Leave the argument out to use the default.")));
	if (strlen(name) > TESTENV_NAME_LEN)
		ereport(ERROR,
				(errcode(ERRCODE_NAME_TOO_LONG),
				 errmsg("name of a snapshot is too long"),
				 errdetail("The name has %zu bytes; at most %d fit.",
						   strlen(name), TESTENV_NAME_LEN),
				 errhint("Use a shorter name, and the label for a description.")));
}

/*
 * The server keeps the relations of large objects open until the end of a
 * transaction that used one; nothing depends on it, the next use opens them
 * again.
 */
void
testenv_close_large_objects(void)
{
	close_lo_relation(true);
}

/*
 * Refuse a relation that this session itself is using: its cursors hold pins
 * and positions on pages that are about to change, its pending triggers row
 * addresses.  The caller has the relation open once, and locked.
 */
void
testenv_guard_unused(Relation rel, const char *verb)
{
	int			expected = rel->rd_isnailed ? 2 : 1;

	if (rel->rd_refcnt != expected)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("cannot %s a snapshot: table \"%s\" is being used by this session",
						verb, RelationGetRelationName(rel)),
				 errdetail("A cursor or an active query of this session has the table open."),
				 errhint("Close the cursor, and call the function in a query of its own.")));
	if (rel->rd_rel->relkind != RELKIND_INDEX &&
		AfterTriggerPendingOnRel(RelationGetRelid(rel)))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("cannot %s a snapshot: table \"%s\" has pending trigger events",
						verb, RelationGetRelationName(rel)),
				 errdetail("Deferred triggers or constraints of this transaction wait for its end."),
				 errhint("Use SET CONSTRAINTS ALL IMMEDIATE, or COMMIT first.")));
}
