/*-------------------------------------------------------------------------
 *
 * password.c
 *		Asks for a password.
 *
 * On the terminal if there is one, even where stdin and stdout are something
 * else, and without echo; else from stdin.  This is what PostgreSQL's own
 * programs do.  Ctrl-C at the prompt has to leave the terminal as it was, so
 * the signal's pipe is watched beside the terminal.
 *
 *-------------------------------------------------------------------------
 */
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "cli.h"

/* One line from a file; NULL if Ctrl-C or the end of the file comes first. */
static char *
read_line(int fd)
{
	char		line[1024];
	size_t		length = 0;
	char	   *result = NULL;

	for (;;)
	{
		struct pollfd fds[2];
		ssize_t		got;

		memset(fds, 0, sizeof(fds));
		fds[0].fd = fd;
		fds[0].events = POLLIN;
		fds[1].fd = interrupt_fd();
		fds[1].events = POLLIN;
		if (poll(fds, 2, -1) < 0)
			continue;
		if (interrupted())
			break;
		if (fds[0].revents == 0)
			continue;
		got = read(fd, &line[length], 1);
		if (got <= 0 || line[length] == '\n' || length == sizeof(line) - 1)
		{
			if (got > 0 || length > 0)
			{
				line[length] = '\0';
				result = xstrdup(line);
			}
			break;
		}
		length++;
	}
	memset(line, 0, sizeof(line));
	return result;
}

/* The password, or NULL if none was given. */
char *
ask_password(const char *prompt)
{
	int			terminal = open("/dev/tty", O_RDWR | O_CLOEXEC);
	int			in = terminal >= 0 ? terminal : STDIN_FILENO;
	int			out = terminal >= 0 ? terminal : STDERR_FILENO;
	struct termios before;
	struct termios silent;
	bool		echo_off = false;
	char	   *password;

	progress_clear();
	if (tcgetattr(in, &before) == 0)
	{
		silent = before;
		silent.c_lflag &= ~(tcflag_t) ECHO;
		echo_off = tcsetattr(in, TCSAFLUSH, &silent) == 0;
	}
	if (write(out, prompt, strlen(prompt)) < 0)
		detail("could not write the prompt");
	password = read_line(in);
	if (echo_off)
	{
		tcsetattr(in, TCSAFLUSH, &before);
		if (write(out, "\n", 1) < 0)
			detail("could not write to the terminal");
	}
	if (terminal >= 0)
		close(terminal);
	return password;
}
