/*-------------------------------------------------------------------------
 *
 * run.c
 *		testenv run: restore, run a command, restore again if it succeeded.
 *
 * A command that fails leaves its data to be looked at; the next run restores
 * first, so nothing is lost by that.  No connection is open while the command
 * runs: it may want to drop or clone the databases.
 *
 * The exit code is the command's own, as with env and timeout, and 125 where
 * testenv's part failed, so that a test suite's code is not mistaken for it.
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli.h"

/* In the child: become the command. */
static void
become(char **argv, bool json)
{
	int			code;

	/* stdout carries the document */
	if (json && dup2(STDERR_FILENO, STDOUT_FILENO) < 0)
		_exit(EXIT_CANNOT_RUN);
	signal(SIGINT, SIG_DFL);
	signal(SIGTERM, SIG_DFL);
	interrupt_hold(false);
	execvp(argv[0], argv);
	code = errno == ENOENT ? EXIT_NO_COMMAND : EXIT_CANNOT_RUN;
	fprintf(stderr, PROGRAM_NAME ": error: could not run \"%s\": %s\n", argv[0], strerror(errno));
	_exit(code);
}

/* Runs the command and waits for it; its exit code. */
static int
run_command(char **argv, bool json)
{
	pid_t		pid;
	int			status = 0;

	fflush(stdout);
	interrupt_hold(true);
	pid = fork();
	if (pid < 0)
	{
		interrupt_hold(false);
		error_general(NULL, "could not start a process: %s", strerror(errno));
		return EXIT_RUN_FAILED;
	}
	if (pid == 0)
		become(argv, json);
	interrupt_leave_to_child(pid);
	interrupt_hold(false);
	while (waitpid(pid, &status, 0) < 0)
	{
		if (errno != EINTR)
			break;
	}
	interrupt_leave_to_child(0);
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* The databases' connections are made anew, from the first step on. */
static bool
restore_all(const List *targets)
{
	int			i;

	for (i = 0; i < targets->count; i++)
	{
		Target	   *target = targets->items[i];

		if (target->state == TARGET_DONE)
		{
			restart_target(target);
			target->started = 0;
		}
	}
	run_work(targets, &restore_work);
	return outcome(targets) == EXIT_ALL_DONE;
}

static void
report(const Options *options, const List *targets, bool ran, int status, bool restored_again, int code)
{
	Buffer		out;
	int			i;

	if (!options->json)
		return;
	json_begin(&out, code);
	json_restored_list(&out, targets);
	json_bool(&out, "restored_after", restored_again);
	json_bool(&out, "command_ran", ran);
	if (ran)
		json_integer(&out, "command_status", status);
	json_open(&out, "command_line", '[');
	for (i = 0; options->argv[i] != NULL; i++)
		json_text(&out, NULL, options->argv[i]);
	json_close(&out, ']');
	print_json(&out);
}

int
command_run(Options *options)
{
	List		targets = {0, NULL};
	bool		ran = false;
	bool		restored = false;
	int			status = 0;
	int			code;

	if (find_targets(options, &targets, 0))
		restore_all(&targets);
	refuse_nothing(options, &targets);
	code = outcome(&targets);
	if (code != EXIT_ALL_DONE)
		say("the command has not been run");
	else
	{
		ran = true;
		status = run_command(options->argv, options->json);
		code = status;
		if (status != 0)
			say("the command ended with %d: the databases are as it left them", status);
		else
		{
			restored = restore_all(&targets);
			code = outcome(&targets);
		}
	}
	if (code == EXIT_SOME_FAILED && (!ran || status == 0))
		code = EXIT_RUN_FAILED;
	interrupt_hold(true);
	report_interrupt(&targets);
	report(options, &targets, ran, status, restored, code);
	return code;
}
