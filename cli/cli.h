/*-------------------------------------------------------------------------
 *
 * cli.h
 *		What the files of the program "testenv" share.
 *
 * Plain C and libpq: nothing of the server's ports or front-end utilities is
 * used, so the program builds against whatever libpq is installed.  The
 * declarations are grouped by the file that defines them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TESTENV_CLI_H
#define TESTENV_CLI_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "libpq-fe.h"

#define PROGRAM_NAME "testenv"

#define lengthof(array) ((int) (sizeof(array) / sizeof((array)[0])))

/* Exit codes, documented in testenv.1 and doc/cli.md. */
#define EXIT_ALL_DONE 0
#define EXIT_SOME_FAILED 1
#define EXIT_USAGE 2
#define EXIT_DEGRADED 3			/* status only */
#define EXIT_TIMED_OUT 4		/* wait only */
#define EXIT_RUN_FAILED 125		/* run only: testenv's part failed */
#define EXIT_CANNOT_RUN 126
#define EXIT_NO_COMMAND 127
#define EXIT_INTERRUPTED 130

typedef struct List
{
	int			count;
	void	  **items;
} List;

typedef struct Buffer
{
	char	   *data;
	size_t		length;
	size_t		size;
} Buffer;

typedef struct Options Options;
typedef struct Target Target;
typedef struct Work Work;

typedef struct Command
{
	const char *name;
	int			(*run) (Options *options);
	unsigned	mask;			/* its bit in the table of options */
	int			min_names;		/* how many names may follow */
	int			max_names;
	bool		database_list;	/* several databases, or just one? */
	const char *doing;			/* for the progress line */
} Command;

struct Options
{
	const Command *command;
	List		dbnames;		/* values of -d */
	const char *host;
	const char *port;
	const char *user;
	const char *maintenance_db;
	bool		all;
	bool		no_password;
	bool		ask_password;
	int			jobs;
	bool		json;
	bool		quiet;
	bool		verbose;
	const char *name;			/* of the snapshot */
	const char *label;
	bool		terminate;
	int			count;
	double		timeout;		/* seconds; 0 is for ever */
	bool		drop_stale;
	bool		no_restore;
	const char *strategy;
	const char *prefix;			/* of the clones' names */
	char	  **argv;			/* what "run" runs */
};

/* What went wrong, in the server's words where it was the server. */
typedef struct Failure
{
	char	   *whole;			/* as it was shown, DETAIL and HINT included */
	char	   *severity;
	char	   *sqlstate;
	char	   *message;
	char	   *detail;
	char	   *hint;
} Failure;

typedef enum TargetState
{
	TARGET_NEW,					/* no connection has been tried */
	TARGET_CONNECTING,
	TARGET_BUSY,				/* a query is running */
	TARGET_RETRY,				/* failed, to be tried again at retry_at */
	TARGET_DONE,
	TARGET_FAILED,
	TARGET_CANCELLED,			/* by Ctrl-C */
	TARGET_SKIPPED				/* --all found no extension here */
} TargetState;

#define MAX_STEPS 8				/* status has the most */

/* One database, and all that became of it. */
struct Target
{
	const Options *options;
	const char *conninfo;		/* value of -d, or NULL */
	const char *dbname;			/* overrides the one in conninfo */
	bool		optional;		/* no extension, no failure */
	bool		keep_open;		/* the connection outlives the work */
	char	   *name;			/* as people see it */
	bool		name_guessed;	/* until libpq says which database it is */
	char	   *database;		/* these four as libpq sees them */
	char	   *host;
	char	   *port;
	char	   *user;
	char	   *password;		/* typed in */

	TargetState state;
	PGconn	   *conn;
	PostgresPollingStatusType polling;
	int			step;
	PGresult   *pending;		/* of the step that is running */
	PGresult   *answers[MAX_STEPS];
	int64_t		started;		/* microseconds */
	int64_t		ended;
	int64_t		connect_by;
	int64_t		retry_at;
	bool		canceled;		/* a cancel request was sent */

	char	   *schema;			/* of the extension, quoted */
	char	   *extversion;
	Failure		failure;
	char	   *shown;			/* the last failure that was shown */
	List		warnings;		/* char *, as shown */
	List		notices;
};

/*
 * One step of a command's work at one database.  "send" starts a query and
 * returns false if the step is not needed or could not be sent; "check" judges
 * the answer.  Where an ERROR is an answer too, it is "tolerant".
 */
typedef struct Step
{
	bool		(*send) (Target *target);
	bool		(*check) (Target *target, PGresult *answer);
	bool		tolerant;
} Step;

struct Work
{
	const char *doing;			/* "restoring" */
	const Step *const *steps;
	int			nsteps;
	int64_t		retry_until;	/* try again what fails, until then */
	bool		single;			/* one of a row of queries, see run_query() */
};

/* util.c */
extern void *xmalloc(size_t size);
extern char *xstrdup(const char *string);
extern char *xvformat(const char *format, va_list args) __attribute__((format(printf, 1, 0)));
extern char *xformat(const char *format,...) __attribute__((format(printf, 1, 2)));
extern void list_add(List *list, void *item);
extern int64_t now_us(void);
extern char *format_bytes(double bytes);
extern char *format_duration(double seconds);
extern const char *cell(const PGresult *answer, int row, const char *column);
extern bool cell_is_true(const PGresult *answer, int row, const char *column);
extern void buffer_init(Buffer *buffer);
extern void buffer_free(Buffer *buffer);
extern void buffer_bytes(Buffer *buffer, const char *bytes, size_t count);
extern void buffer_text(Buffer *buffer, const char *text);
extern void buffer_char(Buffer *buffer, char character);
extern void buffer_format(Buffer *buffer, const char *format,...) __attribute__((format(printf, 2, 3)));

/* message.c */
extern void message_init(const Options *options);
extern bool colours_on(FILE *stream);
extern void error_general(const char *hint, const char *format,...) __attribute__((format(printf, 2, 3)));
extern void say(const char *format,...) __attribute__((format(printf, 1, 2)));
extern void detail(const char *format,...) __attribute__((format(printf, 1, 2)));
extern void warn_target(Target *target, const char *hint, const char *format,...) __attribute__((format(printf, 3, 4)));
extern void show_target(const Target *target, const char *text);
extern void notice_receiver(void *target, const PGresult *notice);
extern void progress(const char *text);
extern void progress_clear(void);
extern bool progress_wanted(void);
extern const List *general_errors(void);

/* interrupt.c */
extern void interrupt_init(void);
extern bool interrupted(void);
extern int	interrupt_fd(void);
extern void interrupt_drain(void);
extern void interrupt_set_last_words(const char *text);
extern void interrupt_hold(bool hold);
extern void interrupt_leave_to_child(pid_t pid);
extern void cancel_target(Target *target);

/* options.c */
extern int	parse_options(int argc, char **argv, Options *options);
extern bool wants_json(int argc, char **argv);

/* help.c */
extern void print_help(const Command *command);
extern void print_version(void);

/* targets.c */
extern Target *make_target(const Options *options, const char *conninfo, const char *dbname);
extern bool find_targets(const Options *options, List *targets, int64_t retry_until);
extern void restart_target(Target *target);
extern void refuse_nothing(const Options *options, const List *targets);

/* password.c */
extern char *ask_password(const char *prompt);

/* connect.c */
extern void start_connection(Target *target);
extern bool connection_step(Target *target);
extern void close_connection(Target *target);

/* failure.c */
extern void fail_own(Target *target, const char *sqlstate, const char *hint, const char *format,...) __attribute__((format(printf, 4, 5)));
extern void fail_connection(Target *target, const char *text);
extern void fail_server(Target *target, const PGresult *answer);
extern void clear_failure(Failure *failure);
extern const char *failure_line(const Target *target);

/* parallel.c */
extern void run_work(const List *targets, const Work *work);
extern PGresult *run_query(Target *target, const char *doing, const char *sql, bool even_if_interrupted);

/* extension.c */
extern const Step find_extension;
extern const Step read_snapshots;
extern bool send_plain(Target *target, const char *format, int nparams, const char *const *params);
extern bool send_secure(Target *target, const char *sql);
extern char *quote_name(PGconn *conn, const char *name);
extern char *quote_text(PGconn *conn, const char *text);

/* table.c */
typedef struct Table Table;
typedef enum Colour
{
	COLOUR_NONE, COLOUR_GOOD, COLOUR_DOUBTFUL, COLOUR_BAD
} Colour;
extern Table *table_new(int ncolumns, const char *const *headers, const char *right);
extern void table_cell(Table *table, const char *text, Colour colour);
extern void table_print(Table *table);
extern char *printable(const char *text);

/* json.c */
extern int	utf8_length(const unsigned char *text);
extern void json_open(Buffer *out, const char *key, char bracket);
extern void json_close(Buffer *out, char bracket);
extern void json_text(Buffer *out, const char *key, const char *value);
extern void json_raw(Buffer *out, const char *key, const char *value);
extern void json_number(Buffer *out, const char *key, double value);
extern void json_bool(Buffer *out, const char *key, bool value);
extern void json_integer(Buffer *out, const char *key, long value);

/* report.c */
extern int	outcome(const List *targets);
extern const char *state_word(const Target *target);
extern Colour state_colour(const Target *target);
extern void report_init(const Options *options);
extern void json_begin(Buffer *out, int code);
extern void json_target(Buffer *out, const Target *target);
extern void print_json(Buffer *out);
extern void report_interrupt(const List *targets);
extern int	finish_output(int code);
extern void leave(int code);
extern double target_ms(const Target *target);

/* the commands: snapshot.c, list.c, status.c, clone.c, wait.c, run.c */
extern int	command_snapshot(Options *options);
extern int	command_restore(Options *options);
extern int	command_drop(Options *options);
extern int	command_list(Options *options);
extern int	command_status(Options *options);
extern int	command_clone(Options *options);
extern int	command_wait(Options *options);
extern int	command_run(Options *options);
extern const Work restore_work;
extern void json_restored(Buffer *out, const Target *target);
extern void json_restored_list(Buffer *out, const List *targets);
extern void json_snapshot(Buffer *out, const char *key, const PGresult *snapshots, int row);

#endif							/* TESTENV_CLI_H */
