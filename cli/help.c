/*-------------------------------------------------------------------------
 *
 * help.c
 *		--help and --version.
 *
 * The version is the program's own, made from testenv.control when it is built;
 * libpq's is told as well, because connections behave as it decides.
 *
 *-------------------------------------------------------------------------
 */
#include <string.h>

#include "cli.h"

static const char overview[] =
"testenv resets seeded PostgreSQL test databases, all of them at once.\n"
"\n"
"Usage:\n"
"  testenv snapshot [OPTION]... [NAME] [--label=TEXT]\n"
"  testenv restore  [OPTION]... [NAME] [--terminate]\n"
"  testenv status   [OPTION]...\n"
"  testenv list     [OPTION]...\n"
"  testenv drop     [OPTION]... NAME\n"
"  testenv clone    [OPTION]... --count=N\n"
"  testenv wait     [OPTION]... [NAME] [--timeout=SECONDS]\n"
"  testenv run      [OPTION]... -- COMMAND [ARGUMENT]...\n"
"\n"
"\"testenv COMMAND --help\" tells about one command.\n"
"\n";

static const char common[] =
"Which databases:\n"
"  -d, --dbname=CONNINFO     database name, URI or connection string; may be repeated\n"
"  -a, --all                 every database of the server whose name contains \"test\"\n"
"                            and that has the extension\n"
"      --maintenance-db=NAME database to connect to for --all and clone (default:\n"
"                            that of -d for --all, else postgres)\n"
"  Without -d and --all: those in TESTENV_DATABASES, else libpq's default.\n"
"\n"
"Connection options:\n"
"  -h, --host=HOSTNAME       database server host or socket directory\n"
"  -p, --port=PORT           database server port\n"
"  -U, --username=USERNAME   user name to connect as\n"
"  -w, --no-password         never prompt for a password\n"
"  -W, --password            prompt for a password before connecting\n"
"\n"
"Other options:\n"
"  -j, --jobs=N              connections open at the same time (default: 16)\n"
"      --json                report as JSON, on errors too\n"
"  -q, --quiet               no table, no notices, no progress: only warnings and errors\n"
"  -v, --verbose             say what is done, and errors with their SQLSTATE\n"
"  -V, --version             output version information, then exit\n"
"  -?, --help                show this help, then exit\n"
"\n"
"Exit status: 0 all succeeded, 1 something failed, 2 wrong usage, 3 degraded (status),\n"
"4 time is up (wait), 125 testenv's part of run failed, 126 and 127 the command of run\n"
"could not be started, 130 interrupted.  Else run exits as its command did.\n";

typedef struct CommandHelp
{
	const char *name;
	const char *text;
} CommandHelp;

static const CommandHelp command_help[] = {
	{"snapshot",
		"testenv snapshot takes a snapshot of each database.\n"
		"\n"
		"Usage:\n"
		"  testenv snapshot [OPTION]... [NAME]\n"
		"\n"
		"NAME is that of the snapshot (default: \"default\"); an older one of that name is\n"
		"replaced.\n"
		"\n"
		"Options of this command:\n"
		"      --label=TEXT          free text that list and status show\n"
		"\n"},
	{"restore",
		"testenv restore puts each database back to a snapshot.\n"
		"\n"
		"Usage:\n"
		"  testenv restore [OPTION]... [NAME]\n"
		"\n"
		"NAME is that of the snapshot (default: the one last taken or restored).  This\n"
		"overwrites data at once.\n"
		"\n"
		"Options of this command:\n"
		"      --terminate           end the sessions that hold a lock in the way\n"
		"\n"},
	{"status",
		"testenv status says how each database is: healthy, degraded or unhealthy, and why.\n"
		"\n"
		"Usage:\n"
		"  testenv status [OPTION]...\n"
		"\n"},
	{"list",
		"testenv list lists the snapshots of each database.\n"
		"\n"
		"Usage:\n"
		"  testenv list [OPTION]...\n"
		"\n"},
	{"drop",
		"testenv drop removes a snapshot from each database.\n"
		"\n"
		"Usage:\n"
		"  testenv drop [OPTION]... NAME\n"
		"\n"},
	{"clone",
		"testenv clone makes copies of a database for parallel workers, snapshots included.\n"
		"\n"
		"Usage:\n"
		"  testenv clone [OPTION]... --count=N\n"
		"\n"
		"The copies of NAME are NAME_1 to NAME_N.  Copies that are there and still fit are\n"
		"kept.  Each new copy is restored once, so that the worker's first restore is fast.\n"
		"\n"
		"Options of this command:\n"
		"      --count=N             how many\n"
		"      --prefix=PREFIX       names PREFIX_1 to PREFIX_N; must contain \"test\"\n"
		"      --drop-stale          drop copies whose original has other snapshots now\n"
		"      --strategy=STRATEGY   auto, file_copy or wal_log (default: auto)\n"
		"      --no-restore          leave the first restore to the worker\n"
		"      --terminate           end the sessions that are connected to the original,\n"
		"                            or to a copy that is dropped\n"
		"\n"},
	{"wait",
		"testenv wait waits until every database answers and has its snapshot.\n"
		"\n"
		"Usage:\n"
		"  testenv wait [OPTION]... [NAME]\n"
		"\n"
		"NAME is that of the snapshot (default: any).\n"
		"\n"
		"Options of this command:\n"
		"      --timeout=SECONDS     how long (default: 60; 0: for ever)\n"
		"\n"},
	{"run",
		"testenv run restores, runs a command, and restores again if it succeeds.\n"
		"\n"
		"Usage:\n"
		"  testenv run [OPTION]... -- COMMAND [ARGUMENT]...\n"
		"\n"
		"If the command fails, what it left in the databases stays there to be looked at.\n"
		"With --json the command's standard output goes to standard error.\n"
		"\n"
		"Options of this command:\n"
		"      --terminate           end the sessions that hold a lock in the way\n"
		"\n"},
};

/* Of one command, or of the program. */
void
print_help(const Command *command)
{
	const char *text = overview;
	int			i;

	for (i = 0; command != NULL && i < lengthof(command_help); i++)
	{
		if (strcmp(command_help[i].name, command->name) == 0)
			text = command_help[i].text;
	}
	fputs(text, stdout);
	if (command == NULL)
		fputs("Options of single commands:\n"
			  "      --label=TEXT          snapshot: free text\n"
			  "      --terminate           restore, run, clone: end sessions in the way\n"
			  "      --timeout=SECONDS     wait: how long (default: 60)\n"
			  "      --count, --prefix, --drop-stale, --strategy, --no-restore: clone\n"
			  "\n", stdout);
	fputs(common, stdout);
}

void
print_version(void)
{
	int			libpq = PQlibVersion();

	printf(PROGRAM_NAME " " TESTENV_VERSION " (libpq %d.%d)\n", libpq / 10000, libpq % 10000);
}
