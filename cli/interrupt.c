/*-------------------------------------------------------------------------
 *
 * interrupt.c
 *		Ctrl-C, and what it does.
 *
 * The first SIGINT or SIGTERM is only noted: the event loop is woken through a
 * pipe, sends cancel requests to every server that is working for us, and waits
 * for their answers, so that the report says what was done and what was not.
 * The second ends the program where it is.  A caller that wants JSON then still
 * gets a whole document: the handler writes one that was made before.
 *
 * While the report is written signals wait, or the document could end up in the
 * middle of another.
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

static volatile sig_atomic_t signals_seen;
static volatile pid_t child;
static int	wake_pipe[2] = {-1, -1};
static const char *last_words;
static size_t last_words_length;

static void
on_signal(int signal_number)
{
	int			saved_errno = errno;
	ssize_t		written;

	if (child > 0)
	{
		/* a terminal's Ctrl-C goes to the command as well; a kill does not */
		if (signal_number == SIGTERM)
			kill(child, SIGTERM);
		errno = saved_errno;
		return;
	}
	if (signals_seen > 0)
	{
		if (last_words != NULL)
			written = write(STDOUT_FILENO, last_words, last_words_length);
		_exit(EXIT_INTERRUPTED);
	}
	signals_seen = 1;
	written = write(wake_pipe[1], "", 1);
	(void) written;
	errno = saved_errno;
}

void
interrupt_init(void)
{
	struct sigaction action;
	int			i;

	if (pipe(wake_pipe) != 0)
	{
		fprintf(stderr, PROGRAM_NAME ": error: could not create a pipe: %s\n", strerror(errno));
		exit(EXIT_SOME_FAILED);
	}
	for (i = 0; i < 2; i++)
	{
		fcntl(wake_pipe[i], F_SETFD, FD_CLOEXEC);
		fcntl(wake_pipe[i], F_SETFL, O_NONBLOCK);
	}
	memset(&action, 0, sizeof(action));
	action.sa_handler = on_signal;
	action.sa_flags = SA_RESTART;
	sigemptyset(&action.sa_mask);
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
}

bool
interrupted(void)
{
	return signals_seen > 0;
}

/* Readable when a signal has come. */
int
interrupt_fd(void)
{
	return wake_pipe[0];
}

void
interrupt_drain(void)
{
	char		bytes[16];
	ssize_t		got;

	do
		got = read(wake_pipe[0], bytes, sizeof(bytes));
	while (got > 0);
}

/* What a second signal writes to stdout before it ends the program. */
void
interrupt_set_last_words(const char *text)
{
	last_words = text;
	last_words_length = text == NULL ? 0 : strlen(text);
}

/* Have signals wait, or let them come again. */
void
interrupt_hold(bool hold)
{
	sigset_t	set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigprocmask(hold ? SIG_BLOCK : SIG_UNBLOCK, &set, NULL);
}

/* While "run" waits for its command, Ctrl-C is the command's business. */
void
interrupt_leave_to_child(pid_t pid)
{
	child = pid;
}

/*
 * Ask the server to stop what it does for us.  It may be past the point where
 * it can: the answer that comes is what counts.
 */
void
cancel_target(Target *target)
{
	PGcancel   *cancel;
	char		problem[256];

	if (target->conn == NULL || target->canceled)
		return;
	target->canceled = true;
	cancel = PQgetCancel(target->conn);
	if (cancel == NULL)
		return;
	if (!PQcancel(cancel, problem, sizeof(problem)))
		show_target(target, problem);
	PQfreeCancel(cancel);
}
