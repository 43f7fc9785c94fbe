/*-------------------------------------------------------------------------
 *
 * table.c
 *		A table of text on stdout, its columns as wide as they need to be.
 *
 * Names and labels come from servers: what could move a terminal's cursor, and
 * line ends, are shown as escapes.  Widths are those of UTF-8.
 *
 *-------------------------------------------------------------------------
 */
#include <stdlib.h>
#include <string.h>

#include "cli.h"

struct Table
{
	int			ncolumns;
	const char *const *headers;
	const char *right;			/* 'r' for a column that is set to the right */
	List		cells;			/* char *, row after row */
	List		colours;		/* (Colour) of each cell, as a pointer */
};

static const char *const escapes[] = {"", "\033[32m", "\033[33m", "\033[31m"};

Table *
table_new(int ncolumns, const char *const *headers, const char *right)
{
	Table	   *table = xmalloc(sizeof(Table));

	table->ncolumns = ncolumns;
	table->headers = headers;
	table->right = right;
	return table;
}

static int
utf8(void)
{
	static int	encoding = -2;

	if (encoding == -2)
		encoding = pg_char_to_encoding("UTF8");
	return encoding;
}

/* Of a text that printable() has made: all of it is well-formed. */
static int
width_of(const char *text)
{
	int			width = 0;

	while (*text != '\0')
	{
		int			columns = PQdsplen(text, utf8());

		width += columns > 0 ? columns : 0;
		text += utf8_length((const unsigned char *) text);
	}
	return width;
}

/* A copy in which control characters, and bytes that are no UTF-8, are shown. */
char *
printable(const char *text)
{
	char	   *copy = xmalloc(strlen(text) * 4 + 1);
	char	   *out = copy;

	while (*text != '\0')
	{
		unsigned char c = (unsigned char) *text;
		int			length = utf8_length((const unsigned char *) text);

		if (length == 0)
			out += sprintf(out, "\\x%02x", (unsigned char) *text++);
		else if (c < 0x20 || c == 0x7f || (c == 0xc2 && (unsigned char) text[1] < 0xa0))
		{
			for (; length > 0; length--)
				out += sprintf(out, "\\x%02x", (unsigned char) *text++);
		}
		else
		{
			memcpy(out, text, (size_t) length);
			out += length;
			text += length;
		}
	}
	return copy;
}

/* The next cell of the row.  NULL is shown as a dash. */
void
table_cell(Table *table, const char *text, Colour colour)
{
	list_add(&table->cells, text == NULL ? xstrdup("-") : printable(text));
	list_add(&table->colours, (void *) (intptr_t) colour);
}

static void
print_cell(const char *text, int width, bool right, bool last, const char *escape)
{
	int			padding = width - width_of(text);

	if (right)
		printf("%*s", padding, "");
	printf("%s%s%s", escape, text, escape[0] != '\0' ? "\033[0m" : "");
	if (!right && !last)
		printf("%*s", padding, "");
	fputs(last ? "\n" : "  ", stdout);
}

void
table_print(Table *table)
{
	int			n = table->ncolumns;
	int		   *widths = xmalloc(sizeof(int) * (size_t) n);
	bool		colours = colours_on(stdout);
	int			i;

	for (i = 0; i < n; i++)
		widths[i] = width_of(table->headers[i]);
	for (i = 0; i < table->cells.count; i++)
	{
		int			width = width_of(table->cells.items[i]);

		if (width > widths[i % n])
			widths[i % n] = width;
	}
	for (i = 0; i < n; i++)
		print_cell(table->headers[i], widths[i], table->right[i] == 'r', i == n - 1, colours ? "\033[1m" : "");
	for (i = 0; i < table->cells.count; i++)
	{
		intptr_t	colour = (intptr_t) table->colours.items[i];

		print_cell(table->cells.items[i], widths[i % n], table->right[i % n] == 'r', i % n == n - 1,
				   colours ? escapes[colour] : "");
	}
	free(widths);
}
