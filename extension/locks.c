/*-------------------------------------------------------------------------
 *
 * locks.c
 *		Locks that are waited for with a limit, and who is in the way.
 *
 * The order of locks in testenv: first ShareUpdateExclusiveLock on the
 * extension itself, which makes snapshots, restores and drops of a database
 * exclude each other (and DROP EXTENSION); then tables and sequences in the
 * order of their OIDs; then TOAST tables and indexes of those.  The extension
 * and not a store is locked so that the first snapshot needs no other rule.
 *
 * A session that sits idle in a transaction on a table would make a test suite
 * hang without a word.  So a lock is waited for until testenv.lock_timeout has
 * passed since the first wait of the operation; then one ERROR names each
 * session in the way.  Autovacuum workers are cancelled at once rather than
 * after deadlock_timeout.  With "terminate", blocking client sessions are
 * ended; never the own one, and never a superuser's unless the caller is one.
 *
 * Not protected against: a session that takes locks faster than they can be
 * waited for; it is waited for like any other.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "access/htup_details.h"
#include "access/transam.h"
#include "access/twophase.h"
#include "access/xact.h"
#include "catalog/pg_extension.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/autovacuum.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "storage/sinvaladt.h"
#include "utils/acl.h"
#include "utils/backend_status.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "testenv.h"

#define MAX_QUERY_SHOWN 80

static PgBackendStatus *
backend_of_pid(int pid)
{
	int			n = pgstat_fetch_stat_numbackends();
	int			i;

	for (i = 1; i <= n; i++)
	{
		LocalPgBackendStatus *local = pgstat_get_local_beentry_by_index(i);

		if (local != NULL && local->backendStatus.st_procpid == pid)
			return &local->backendStatus;
	}
	return NULL;
}

static const char *
state_name(BackendState state)
{
	switch (state)
	{
		case STATE_IDLE:
			return "idle";
		case STATE_RUNNING:
			return "active";
		case STATE_IDLEINTRANSACTION:
			return "idle in transaction";
		case STATE_IDLEINTRANSACTION_ABORTED:
			return "idle in transaction (aborted)";
		case STATE_FASTPATH:
			return "fastpath function call";
		default:
			return "unknown";
	}
}

static void
describe_backend(StringInfo list, int pid)
{
	PgBackendStatus *status = backend_of_pid(pid);
	char	   *query;

	if (status == NULL || status->st_backendType != B_BACKEND)
	{
		appendStringInfo(list, "process %d (%s)", pid,
						 status ? GetBackendTypeDesc(status->st_backendType) : "ended");
		return;
	}
	query = pgstat_clip_activity(status->st_activity_raw);
	if (strlen(query) > MAX_QUERY_SHOWN)
		strcpy(query + pg_mbcliplen(query, strlen(query), MAX_QUERY_SHOWN - 3), "...");
	appendStringInfo(list, "process %d: user \"%s\", application \"%s\", %s, query: %s",
					 pid, GetUserNameFromId(status->st_userid, true),
					 status->st_appname ? status->st_appname : "",
					 state_name(status->st_state), query);
}

/* The gid of a prepared transaction, through the view that shows it. */
static char *
prepared_gid(TransactionId xid)
{
	char	   *gid = NULL;
	MemoryContext caller = CurrentMemoryContext;

	if (SPI_connect() != SPI_OK_CONNECT)
		return NULL;
	if (SPI_execute(psprintf("SELECT gid FROM pg_catalog.pg_prepared_xacts WHERE transaction = '%u'::pg_catalog.xid",
							 xid), true, 1) == SPI_OK_SELECT && SPI_processed == 1)
	{
		char	   *value = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);

		if (value != NULL)
			gid = MemoryContextStrdup(caller, value);
	}
	SPI_finish();
	return gid;
}

/*
 * The process that runs a virtual transaction, or NULL.  A prepared
 * transaction keeps the id of the session that prepared it, which by now runs
 * another transaction, or belongs to somebody else.
 */
static PGPROC *
running_proc(VirtualTransactionId vxid)
{
	PGPROC	   *proc;

	if (VirtualTransactionIdIsRecoveredPreparedXact(vxid))
		return NULL;
	proc = testenv_vxid_proc(vxid);
	if (proc == NULL || proc->pid == 0 ||
		testenv_proc_lxid(proc) != vxid.localTransactionId)
		return NULL;
	return proc;
}

static void
describe_prepared(StringInfo list, VirtualTransactionId vxid, List **seen)
{
	bool		have_more;
	TransactionId xid = VirtualTransactionIdIsRecoveredPreparedXact(vxid) ?
		vxid.localTransactionId : TwoPhaseGetXidByVirtualXID(vxid, &have_more);
	char	   *gid;

	if (!TransactionIdIsValid(xid) || list_member_oid(*seen, xid))
		return;
	*seen = lappend_oid(*seen, xid);
	gid = prepared_gid(xid);
	if (list->len > 0)
		appendStringInfoChar(list, '\n');
	appendStringInfo(list, "prepared transaction \"%s\"", gid ? gid : "?");
}

/* Who is in the way and has been described already. */
typedef struct Seen
{
	List	   *pids;
	List	   *prepared;		/* transaction ids, kept as OIDs are */
} Seen;

/* Add whoever is in an array of virtual transactions, each once. */
static void
describe_vxids(StringInfo list, VirtualTransactionId *vxids, Seen *seen)
{
	for (; VirtualTransactionIdIsValid(*vxids); vxids++)
	{
		PGPROC	   *proc = running_proc(*vxids);

		if (proc == NULL)
		{
			describe_prepared(list, *vxids, &seen->prepared);
			continue;
		}
		if (proc->pid == MyProcPid || list_member_int(seen->pids, proc->pid))
			continue;
		seen->pids = lappend_int(seen->pids, proc->pid);
		if (list->len > 0)
			appendStringInfoChar(list, '\n');
		describe_backend(list, proc->pid);
	}
}

/* The sessions of an array of virtual transactions, a line each. */
char *
testenv_describe_sessions(VirtualTransactionId *vxids)
{
	StringInfoData list;
	Seen		seen = {NIL, NIL};

	initStringInfo(&list);
	describe_vxids(&list, vxids, &seen);
	return list.data;
}

/* May the caller end this session? */
static bool
may_terminate(PGPROC *proc)
{
	PgBackendStatus *status = backend_of_pid(proc->pid);

	return proc->pid != MyProcPid &&
		status != NULL && status->st_backendType == B_BACKEND &&
		(superuser() || !superuser_arg(proc->roleId));
}

/* Deal with those who hold a lock that conflicts with the one we want. */
static void
clear_the_way(const LOCKTAG *tag, LOCKMODE mode, const TestenvWait *wait)
{
	VirtualTransactionId *vxids = GetLockConflicts(tag, mode, NULL);

	for (; VirtualTransactionIdIsValid(*vxids); vxids++)
	{
		PGPROC	   *proc = running_proc(*vxids);
		uint8		flags;

		if (proc == NULL)
			continue;
		flags = proc->statusFlags;
		if (flags & PROC_IS_AUTOVACUUM)
		{
			/* like the deadlock checker, leave one that prevents wraparound */
			if (!(flags & PROC_VACUUM_FOR_WRAPAROUND))
				(void) kill(proc->pid, SIGINT);
		}
		else if (wait->terminate && may_terminate(proc))
			(void) kill(proc->pid, SIGTERM);
	}
}

/* Every session that holds one of these locks' conflicts, for the message. */
static char *
describe_blockers(const LOCKTAG *tags, const LOCKMODE *modes, int ntags)
{
	StringInfoData list;
	Seen		seen = {NIL, NIL};
	int			i;

	initStringInfo(&list);
	for (i = 0; i < ntags; i++)
		describe_vxids(&list, GetLockConflicts(&tags[i], modes[i], NULL), &seen);
	if (list.len == 0)
		appendStringInfoString(&list, "whoever it was has released the lock just now");
	return list.data;
}

/* Wait for one lock within what is left of the time. */
static void
wait_for_lock(const LOCKTAG *tag, LOCKMODE mode, TestenvWait *wait)
{
	int			nest_level = NewGUCNestLevel();
	char		value[32];

	if (testenv_lock_timeout > 0)
	{
		TimestampTz now = GetCurrentTimestamp();
		long		left;

		if (!wait->started)
		{
			wait->started = true;
			wait->deadline = TimestampTzPlusMilliseconds(now, testenv_lock_timeout);
		}
		left = TimestampDifferenceMilliseconds(now, wait->deadline);
		snprintf(value, sizeof(value), "%ldms", Max(left, 1));
	}
	else
		snprintf(value, sizeof(value), "0");
	(void) set_config_option("lock_timeout", value, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	(void) LockAcquire(tag, mode, false, false);
	AtEOXact_GUC(true, nest_level);
}

/* Turn what the lock manager says into what the caller can act on. */
static void
report_failure(ErrorData *error, const LOCKTAG *tags, const LOCKMODE *modes,
			   int ntags, const char *verb)
{
	if (error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE)
	{
		char	   *blockers = describe_blockers(tags, modes, ntags);

		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("cannot %s a snapshot: other sessions hold locks on %s",
						verb, tags[0].locktag_type == LOCKTAG_RELATION ?
						testenv_relation_name(tags[0].locktag_field2) : "testenv itself"),
				 errdetail("Waited %d ms for:\n%s", testenv_lock_timeout, blockers),
				 strcmp(verb, "restore") == 0 ?
				 errhint("End those transactions, raise testenv.lock_timeout, or use testenv_restore(terminate => true).") :
				 errhint("End those transactions, or raise testenv.lock_timeout.")));
	}
	if (error->sqlerrcode == ERRCODE_OUT_OF_MEMORY)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("cannot %s a snapshot: the lock table is full", verb),
				 errdetail("%d more locks are needed: %s.", ntags, error->message),
				 errhint("Raise max_locks_per_transaction and restart the server.")));
	ReThrowError(error);
}

/*
 * Take locks in the order given, waiting as testenv.lock_timeout and "wait"
 * say.
 */
static void
take_locks(const LOCKTAG *tags, const LOCKMODE *modes, int ntags,
		   TestenvWait *wait, const char *verb)
{
	MemoryContext caller = CurrentMemoryContext;
	volatile int i = 0;
	ErrorData  *volatile error = NULL;

	PG_TRY();
	{
		for (i = 0; i < ntags; i++)
		{
			if (LockAcquire(&tags[i], modes[i], false, true) == LOCKACQUIRE_NOT_AVAIL)
			{
				clear_the_way(&tags[i], modes[i], wait);
				wait_for_lock(&tags[i], modes[i], wait);
			}
			testenv_own_wal_note(wait->wal);
		}
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		FlushErrorState();
	}
	PG_END_TRY();

	/* every way out of here is an ERROR, so the transaction cleans up */
	if (error != NULL)
		report_failure(error, &tags[i], &modes[i], ntags - i, verb);

	AcceptInvalidationMessages();
}

/*
 * One snapshot, restore or drop of a database at a time.
 */
void
testenv_lock_extension(TestenvWait *wait, const char *verb)
{
	LOCKTAG		tag;
	LOCKMODE	mode = ShareUpdateExclusiveLock;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, ExtensionRelationId,
					   testenv_extension_oid(), 0);
	take_locks(&tag, &mode, 1, wait, verb);
}

/*
 * Lock relations; the caller has them in the order of OIDs.
 */
void
testenv_lock_relations(TestenvLock *locks, int nlocks, TestenvWait *wait,
					   const char *verb)
{
	LOCKTAG    *tags = palloc(sizeof(LOCKTAG) * (nlocks + 1));
	LOCKMODE   *modes = palloc(sizeof(LOCKMODE) * (nlocks + 1));
	int			i;

	for (i = 0; i < nlocks; i++)
	{
		SET_LOCKTAG_RELATION(tags[i], MyDatabaseId, locks[i].relid);
		modes[i] = locks[i].mode;
	}
	take_locks(tags, modes, nlocks, wait, verb);
	pfree(tags);
	pfree(modes);
}
