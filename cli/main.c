/*-------------------------------------------------------------------------
 *
 * main.c
 *		testenv, the command: every database of a test environment at once.
 *
 * Reads the command line, runs one command, and sees to it that whoever asked
 * for JSON gets it, whatever happened.
 *
 *-------------------------------------------------------------------------
 */
#include <stdlib.h>
#include <string.h>

#include "cli.h"

int
main(int argc, char **argv)
{
	Options		options;
	int			code;

	memset(&options, 0, sizeof(options));
	interrupt_init();
	code = parse_options(argc, argv, &options);
	if (code == EXIT_ALL_DONE)
		return finish_output(code);
	/* where the usage is wrong, --json may stand behind what is wrong */
	if (code > 0 && wants_json(argc, argv))
		options.json = true;
	report_init(&options);
	if (code > 0)
		leave(code);
	message_init(&options);
	code = options.command->run(&options);
	return finish_output(code);
}
