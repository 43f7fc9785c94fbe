/*-------------------------------------------------------------------------
 *
 * util.c
 *		Memory, lists, text, time, and words for sizes and durations.
 *
 * Running out of memory ends the program: there is nothing that a small client
 * could still do, and no caller has to ask.  Memory is given back where a loop
 * would pile it up; the rest goes when the program ends.
 *
 *-------------------------------------------------------------------------
 */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli.h"

static void
out_of_memory(void)
{
	fputs(PROGRAM_NAME ": error: out of memory\n", stderr);
	exit(EXIT_SOME_FAILED);
}

void *
xmalloc(size_t size)
{
	void	   *memory = calloc(1, size > 0 ? size : 1);

	if (memory == NULL)
		out_of_memory();
	return memory;
}

/* A copy; NULL of NULL. */
char *
xstrdup(const char *string)
{
	char	   *copy;

	if (string == NULL)
		return NULL;
	copy = strdup(string);
	if (copy == NULL)
		out_of_memory();
	return copy;
}

char *
xvformat(const char *format, va_list args)
{
	va_list		again;
	int			length;
	char	   *result;

	va_copy(again, args);
	length = vsnprintf(NULL, 0, format, again);
	va_end(again);
	result = xmalloc((size_t) (length < 0 ? 0 : length) + 1);
	if (length > 0)
		vsnprintf(result, (size_t) length + 1, format, args);
	return result;
}

char *
xformat(const char *format,...)
{
	va_list		args;
	char	   *result;

	va_start(args, format);
	result = xvformat(format, args);
	va_end(args);
	return result;
}

/* Grows by doubling, from 8. */
void
list_add(List *list, void *item)
{
	bool		full = list->count == 0 ||
		(list->count >= 8 && (list->count & (list->count - 1)) == 0);

	if (full)
	{
		size_t		size = list->count == 0 ? 8 : (size_t) list->count * 2;

		list->items = realloc(list->items, size * sizeof(void *));
		if (list->items == NULL)
			out_of_memory();
	}
	list->items[list->count++] = item;
}

/* Of a clock that nobody sets. */
int64_t
now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t) now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

char *
format_bytes(double bytes)
{
	static const char *const units[] = {"bytes", "kB", "MB", "GB", "TB"};
	int			unit = 0;

	while (bytes >= 1024 && unit < lengthof(units) - 1)
	{
		bytes /= 1024;
		unit++;
	}
	return xformat(unit == 0 || bytes >= 99.95 ? "%.0f %s" : "%.1f %s", bytes, units[unit]);
}

/* In the one unit that fits best. */
char *
format_duration(double seconds)
{
	if (seconds < 0)
		seconds = 0;
	if (seconds < 120)
		return xformat("%.0f s", seconds);
	if (seconds < 120 * 60)
		return xformat("%.0f min", seconds / 60);
	if (seconds < 48 * 3600)
		return xformat("%.0f h", seconds / 3600);
	return xformat("%.0f days", seconds / 86400);
}

/* A value of an answer by its column's name; NULL if null or not there. */
const char *
cell(const PGresult *answer, int row, const char *column)
{
	int			number;

	if (answer == NULL || PQresultStatus(answer) != PGRES_TUPLES_OK || row >= PQntuples(answer))
		return NULL;
	number = PQfnumber(answer, column);
	if (number < 0 || PQgetisnull(answer, row, number))
		return NULL;
	return PQgetvalue(answer, row, number);
}

bool
cell_is_true(const PGresult *answer, int row, const char *column)
{
	const char *value = cell(answer, row, column);

	return value != NULL && value[0] == 't';
}

/* A text that grows; always ended by a zero. */
void
buffer_init(Buffer *buffer)
{
	buffer->length = 0;
	buffer->size = 256;
	buffer->data = xmalloc(buffer->size);
}

void
buffer_free(Buffer *buffer)
{
	free(buffer->data);
	buffer->data = NULL;
}

void
buffer_bytes(Buffer *buffer, const char *bytes, size_t count)
{
	if (buffer->length + count + 1 > buffer->size)
	{
		buffer->size = (buffer->length + count + 1) * 2;
		buffer->data = realloc(buffer->data, buffer->size);
		if (buffer->data == NULL)
			out_of_memory();
	}
	memcpy(buffer->data + buffer->length, bytes, count);
	buffer->length += count;
	buffer->data[buffer->length] = '\0';
}

void
buffer_text(Buffer *buffer, const char *text)
{
	buffer_bytes(buffer, text, strlen(text));
}

void
buffer_char(Buffer *buffer, char character)
{
	buffer_bytes(buffer, &character, 1);
}

void
buffer_format(Buffer *buffer, const char *format,...)
{
	va_list		args;
	char	   *text;

	va_start(args, format);
	text = xvformat(format, args);
	va_end(args);
	buffer_text(buffer, text);
	free(text);
}
