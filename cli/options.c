/*-------------------------------------------------------------------------
 *
 * options.c
 *		The command line: what it says, and whether that makes sense.
 *
 * Options may stand before and after the command's name, as with git, and
 * between other arguments, as with PostgreSQL's own programs.  Only "run" ends
 * its options at the first argument that is none, because what follows belongs
 * to somebody else.
 *
 * An option that a command has no use for is an error: it was given in the
 * belief that it does something.
 *
 *-------------------------------------------------------------------------
 */
#include <ctype.h>
#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

#define SNAPSHOT 0x01
#define RESTORE 0x02
#define DROP 0x04
#define LIST 0x08
#define STATUS 0x10
#define CLONE 0x20
#define WAIT 0x40
#define RUN 0x80
#define ANY 0xff

#define DEFAULT_JOBS 16
#define DEFAULT_TIMEOUT 60
#define MAX_CLONES 1000

static const Command commands[] = {
	{"snapshot", command_snapshot, SNAPSHOT, 0, 1, true, "taking snapshots"},
	{"restore", command_restore, RESTORE, 0, 1, true, "restoring"},
	{"status", command_status, STATUS, 0, 0, true, "looking"},
	{"list", command_list, LIST, 0, 0, true, "listing"},
	{"drop", command_drop, DROP, 1, 1, true, "dropping"},
	{"clone", command_clone, CLONE, 0, 0, false, "cloning"},
	{"wait", command_wait, WAIT, 0, 1, true, "waiting"},
	{"run", command_run, RUN, 0, 0, true, "restoring"},
};

/* Options without a letter have numbers that are no character. */
enum
{
	OPT_MAINTENANCE_DB = 1000,
	OPT_JSON,
	OPT_LABEL,
	OPT_TERMINATE,
	OPT_COUNT,
	OPT_TIMEOUT,
	OPT_DROP_STALE,
	OPT_NO_RESTORE,
	OPT_STRATEGY,
	OPT_PREFIX,
	OPT_HELP
};

static const char short_options[] = "+:ad:h:p:U:wWj:qvV";

static const struct option long_options[] = {
	{"all", no_argument, NULL, 'a'},
	{"dbname", required_argument, NULL, 'd'},
	{"host", required_argument, NULL, 'h'},
	{"port", required_argument, NULL, 'p'},
	{"username", required_argument, NULL, 'U'},
	{"no-password", no_argument, NULL, 'w'},
	{"password", no_argument, NULL, 'W'},
	{"jobs", required_argument, NULL, 'j'},
	{"quiet", no_argument, NULL, 'q'},
	{"verbose", no_argument, NULL, 'v'},
	{"version", no_argument, NULL, 'V'},
	{"help", no_argument, NULL, OPT_HELP},
	{"maintenance-db", required_argument, NULL, OPT_MAINTENANCE_DB},
	{"json", no_argument, NULL, OPT_JSON},
	{"label", required_argument, NULL, OPT_LABEL},
	{"terminate", no_argument, NULL, OPT_TERMINATE},
	{"count", required_argument, NULL, OPT_COUNT},
	{"timeout", required_argument, NULL, OPT_TIMEOUT},
	{"drop-stale", no_argument, NULL, OPT_DROP_STALE},
	{"no-restore", no_argument, NULL, OPT_NO_RESTORE},
	{"strategy", required_argument, NULL, OPT_STRATEGY},
	{"prefix", required_argument, NULL, OPT_PREFIX},
	{NULL, 0, NULL, 0}
};

/* Which commands know an option; those that are not here all do. */
static const struct
{
	int			option;
	const char *name;
	unsigned	commands;
}			restricted[] =
{
	{'a', "--all", ANY & ~(unsigned) CLONE},
	{OPT_MAINTENANCE_DB, "--maintenance-db", ANY},
	{OPT_LABEL, "--label", SNAPSHOT},
	{OPT_TERMINATE, "--terminate", RESTORE | CLONE | RUN},
	{OPT_COUNT, "--count", CLONE},
	{OPT_TIMEOUT, "--timeout", WAIT},
	{OPT_DROP_STALE, "--drop-stale", CLONE},
	{OPT_NO_RESTORE, "--no-restore", CLONE},
	{OPT_STRATEGY, "--strategy", CLONE},
	{OPT_PREFIX, "--prefix", CLONE},
};

typedef struct Parser
{
	Options    *options;
	bool		given[lengthof(restricted)];
	bool		help;
	bool		version;
	List		names;
} Parser;

#define WRONG(options, ...) (usage_error(options, xformat(__VA_ARGS__)))

/* How it ends wherever the command line is wrong. */
static int
usage_error(const Options *options, char *text)
{
	char	   *hint = options->command == NULL ?
		xstrdup("Try \"" PROGRAM_NAME " --help\" for more information.") :
		xformat("Try \"" PROGRAM_NAME " %s --help\" for more information.", options->command->name);

	error_general(hint, "%s", text);
	free(hint);
	free(text);
	return EXIT_USAGE;
}

/* A whole number within bounds; false if it is none. */
static bool
parse_number(const char *text, int min, int max, int *value)
{
	char	   *end;
	long		number = strtol(text, &end, 10);

	if (end == text || *end != '\0' || number < min || number > max)
		return false;
	*value = (int) number;
	return true;
}

static bool
parse_seconds(const char *text, double *value)
{
	char	   *end;

	*value = strtod(text, &end);
	return isdigit((unsigned char) text[0]) && *end == '\0' && isfinite(*value) && *value <= 1e6;
}

/* Options with a value that has to be looked at; 0 or an exit code. */
static int
take_value(Options *options, int option, const char *value)
{
	if (option == 'j' && !parse_number(value, 1, 1000, &options->jobs))
		return WRONG(options, "invalid value \"%s\" for option --jobs: a number from 1 to 1000 is needed", value);
	if (option == OPT_COUNT && !parse_number(value, 1, MAX_CLONES, &options->count))
		return WRONG(options, "invalid value \"%s\" for option --count: a number from 1 to %d is needed", value, MAX_CLONES);
	if (option == OPT_TIMEOUT && !parse_seconds(value, &options->timeout))
		return WRONG(options, "invalid value \"%s\" for option --timeout: seconds are needed", value);
	if (option == OPT_STRATEGY)
	{
		if (strcmp(value, "auto") != 0 && strcmp(value, "file_copy") != 0 && strcmp(value, "wal_log") != 0)
			return WRONG(options, "invalid value \"%s\" for option --strategy: auto, file_copy or wal_log is needed", value);
		options->strategy = value;
	}
	return 0;
}

/* One option; 0 or an exit code. */
static int
take_option(Parser *parser, int option, const char *value)
{
	Options    *options = parser->options;
	int			i;

	for (i = 0; i < lengthof(restricted); i++)
		parser->given[i] = parser->given[i] || restricted[i].option == option;
	switch (option)
	{
		case 'a':
			options->all = true;
			break;
		case 'd':
			list_add(&options->dbnames, (void *) (intptr_t) value);
			break;
		case 'h':
			options->host = value;
			break;
		case 'p':
			options->port = value;
			break;
		case 'U':
			options->user = value;
			break;
		case 'w':
			options->no_password = true;
			break;
		case 'W':
			options->ask_password = true;
			break;
		case 'q':
			options->quiet = true;
			break;
		case 'v':
			options->verbose = true;
			break;
		case 'V':
			parser->version = true;
			break;
		case OPT_MAINTENANCE_DB:
			options->maintenance_db = value;
			break;
		case OPT_JSON:
			options->json = true;
			break;
		case OPT_LABEL:
			options->label = value;
			break;
		case OPT_TERMINATE:
			options->terminate = true;
			break;
		case OPT_DROP_STALE:
			options->drop_stale = true;
			break;
		case OPT_NO_RESTORE:
			options->no_restore = true;
			break;
		case OPT_PREFIX:
			options->prefix = value;
			break;
		default:
			return take_value(options, option, value);
	}
	return 0;
}

static const Command *
find_command(const char *name)
{
	int			i;

	for (i = 0; i < lengthof(commands); i++)
	{
		if (strcmp(commands[i].name, name) == 0)
			return &commands[i];
	}
	return NULL;
}

/* An argument that is no option: the command's name, or a snapshot's. */
static int
take_argument(Parser *parser, char *argument)
{
	Options    *options = parser->options;

	if (options->command == NULL)
	{
		options->command = find_command(argument);
		if (options->command == NULL)
			return WRONG(options, "unknown command \"%s\"", argument);
	}
	else
		list_add(&parser->names, argument);
	return 0;
}

/* What getopt did not accept, in words that name it. */
static int
refuse_option(const Options *options, int answer, const char *argument)
{
	if (answer == ':')
		return WRONG(options, "option \"%s\" needs a value", argument);
	if (optopt == 0)
		return WRONG(options, "unknown or ambiguous option \"%s\"", argument);
	if (strncmp(argument, "--", 2) == 0)
		return WRONG(options, "option \"%s\" takes no value", argument);
	return WRONG(options, "unknown option \"-%c\"", optopt);
}

/* Options and arguments, in any order. */
static int
read_arguments(Parser *parser, int argc, char **argv)
{
	Options    *options = parser->options;
	bool		only_arguments = false;
	int			code = 0;

	/* getopt's own words would not name what to do next */
	opterr = 0;
	optind = 1;
	while (code == 0 && optind < argc)
	{
		int			at = optind;
		int			option = only_arguments ? -1 : getopt_long(argc, argv, short_options, long_options, NULL);

		if (option == OPT_HELP || (option == '?' && optopt == '?'))
			parser->help = true;
		else if (option == '?' || option == ':')
			code = refuse_option(options, option, argv[at]);
		else if (option != -1)
			code = take_option(parser, option, optarg);
		else
		{
			only_arguments = only_arguments || (optind > at && strcmp(argv[optind - 1], "--") == 0);
			if (optind >= argc)
				break;
			if (options->command != NULL && options->command->run == command_run)
			{
				options->argv = &argv[optind];
				break;
			}
			code = take_argument(parser, argv[optind++]);
		}
	}
	return code;
}

/* Does it all fit together? */
static int
check_options(const Parser *parser)
{
	const Options *options = parser->options;
	const Command *command = options->command;
	int			i;

	if (command == NULL)
		return WRONG(options, "no command given");
	for (i = 0; i < lengthof(restricted); i++)
	{
		if (parser->given[i] && (restricted[i].commands & command->mask) == 0)
			return WRONG(options, "option %s cannot be used with \"%s\"", restricted[i].name, command->name);
	}
	if (parser->names.count < command->min_names)
		return WRONG(options, "\"%s\" needs the name of a snapshot", command->name);
	if (parser->names.count > command->max_names)
		return WRONG(options, "too many arguments: the first that is not expected is \"%s\"",
					 (const char *) parser->names.items[command->max_names]);
	if (options->quiet && options->verbose)
		return WRONG(options, "options --quiet and --verbose exclude each other");
	if (options->no_password && options->ask_password)
		return WRONG(options, "options --no-password and --password exclude each other");
	if (!command->database_list && options->dbnames.count > 1)
		return WRONG(options, "\"%s\" works on one database: give -d once", command->name);
	if (options->maintenance_db != NULL && !options->all && command->run != command_clone)
		return WRONG(options, "option --maintenance-db is for --all and \"clone\"");
	if (command->run == command_clone && options->count == 0)
		return WRONG(options, "\"clone\" needs --count");
	if (command->run == command_run && (options->argv == NULL || options->argv[0] == NULL))
		return WRONG(options, "\"run\" needs a command");
	return 0;
}

/* Is JSON asked for?  Wrong usage has to be reported as such, too. */
bool
wants_json(int argc, char **argv)
{
	int			i;

	for (i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
	{
		if (strcmp(argv[i], "--json") == 0)
			return true;
	}
	return false;
}

/*
 * Returns -1 if a command is to be run, else the exit code: help or version
 * were printed, or the usage is wrong.
 */
int
parse_options(int argc, char **argv, Options *options)
{
	Parser		parser;
	int			code;

	memset(&parser, 0, sizeof(parser));
	parser.options = options;
	options->jobs = DEFAULT_JOBS;
	options->timeout = DEFAULT_TIMEOUT;
	options->strategy = "auto";
	code = read_arguments(&parser, argc, argv);
	if (code == 0 && parser.help)
	{
		print_help(options->command);
		return EXIT_ALL_DONE;
	}
	if (code == 0 && parser.version)
	{
		print_version();
		return EXIT_ALL_DONE;
	}
	if (code == 0)
		code = check_options(&parser);
	if (code != 0)
		return code;
	if (parser.names.count > 0)
		options->name = parser.names.items[0];
	return -1;
}
