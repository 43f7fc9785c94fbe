/*-------------------------------------------------------------------------
 *
 * testenv.c
 *		Module entry: settings.
 *
 * Nothing is hooked and nothing needs shared_preload_libraries: the library is
 * loaded by the first call of one of its functions.  Until then a setting that
 * ALTER DATABASE or postgresql.conf made is a placeholder, which PostgreSQL
 * validates, privilege included, when the setting is defined here.
 *
 * testenv.testing_mode is one of the guards (guard.c), so only a superuser
 * sets it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "utils/guc.h"

#include "testenv.h"

PG_MODULE_MAGIC;

bool		testenv_testing_mode = false;
int			testenv_lock_timeout = 5000;
bool		testenv_check_detector = false;
int			testenv_new_tables = TESTENV_NEW_EMPTY;
int			testenv_detector = TESTENV_DETECT_AUTO;

static const struct config_enum_entry detector_options[] = {
	{"auto", TESTENV_DETECT_AUTO, false},
	{"wal", TESTENV_DETECT_WAL, false},
	{"look", TESTENV_DETECT_LOOK, false},
	{NULL, 0, false}
};

static const struct config_enum_entry new_tables_options[] = {
	{"empty", TESTENV_NEW_EMPTY, false},
	{"keep", TESTENV_NEW_KEEP, false},
	{"error", TESTENV_NEW_ERROR, false},
	{NULL, 0, false}
};

void		_PG_init(void);

void
_PG_init(void)
{
	DefineCustomBoolVariable("testenv.testing_mode",
							 "Allows testenv to overwrite the data of this database.",
							 "Off, as by default, every function that changes something refuses to.",
							 &testenv_testing_mode,
							 false,
							 PGC_SUSET,
							 0,
							 NULL, NULL, NULL);

	DefineCustomIntVariable("testenv.lock_timeout",
							"How long a snapshot or a restore waits for the locks of other sessions.",
							"Zero waits for ever.",
							&testenv_lock_timeout,
							5000, 0, INT_MAX,
							PGC_USERSET,
							GUC_UNIT_MS,
							NULL, NULL, NULL);

	DefineCustomBoolVariable("testenv.check_detector",
							 "Compares every page of every relation with its image after a restore.",
							 NULL,
							 &testenv_check_detector,
							 false,
							 PGC_SUSET,
							 0,
							 NULL, NULL, NULL);

	DefineCustomEnumVariable("testenv.new_tables",
							 "What a restore does with a table that was made since the snapshot.",
							 NULL,
							 &testenv_new_tables,
							 TESTENV_NEW_EMPTY,
							 new_tables_options,
							 PGC_USERSET,
							 0,
							 NULL, NULL, NULL);

	DefineCustomEnumVariable("testenv.detector",
							 "How a restore finds out what has changed.",
							 "\"wal\" reads the write-ahead log, \"look\" looks at every table, \"auto\" does what is estimated to be faster.",
							 &testenv_detector,
							 TESTENV_DETECT_AUTO,
							 detector_options,
							 PGC_SUSET,
							 GUC_NOT_IN_SAMPLE,
							 NULL, NULL, NULL);

	MarkGUCPrefixReserved("testenv");
}
