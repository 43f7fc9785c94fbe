/*-------------------------------------------------------------------------
 *
 * json.c
 *		Writes JSON that is valid whatever it is made of.
 *
 * Text from a server that could not tell its encoding, and libpq's words in the
 * system's, may not be UTF-8; JSON must be.  Bytes that are not become U+FFFD.
 * A number that JSON cannot write (NaN, infinity) becomes null.
 *
 *-------------------------------------------------------------------------
 */
#include <math.h>
#include <string.h>

#include "cli.h"

/* The length of the well-formed UTF-8 character here; 0 if there is none. */
int
utf8_length(const unsigned char *text)
{
	unsigned char first = text[0];
	int			length = first < 0x80 ? 1 : first >= 0xc2 && first <= 0xdf ? 2 :
		(first & 0xf0) == 0xe0 ? 3 : first >= 0xf0 && first <= 0xf4 ? 4 : 0;
	int			i;

	for (i = 1; i < length; i++)
	{
		if ((text[i] & 0xc0) != 0x80)
			return 0;
	}
	/* overlong forms, surrogates, beyond the last code point */
	if ((first == 0xe0 && text[1] < 0xa0) || (first == 0xed && text[1] > 0x9f) ||
		(first == 0xf0 && text[1] < 0x90) || (first == 0xf4 && text[1] > 0x8f))
		return 0;
	return length;
}

static void
append_string(Buffer *out, const char *value)
{
	const unsigned char *text = (const unsigned char *) value;

	buffer_char(out, '"');
	while (*text != '\0')
	{
		int			length = utf8_length(text);

		if (length == 0)
		{
			buffer_text(out, "\\ufffd");
			text++;
			continue;
		}
		if (*text == '"' || *text == '\\')
			buffer_format(out, "\\%c", *text);
		else if (*text == '\n')
			buffer_text(out, "\\n");
		else if (*text == '\t')
			buffer_text(out, "\\t");
		else if (*text < 0x20 || *text == 0x7f)
			buffer_format(out, "\\u%04x", *text);
		else
			buffer_bytes(out, (const char *) text, (size_t) length);
		text += length;
	}
	buffer_char(out, '"');
}

/* What comes before a value: a comma unless it is the first, and its key. */
static void
begin_value(Buffer *out, const char *key)
{
	char		before = out->length > 0 ? out->data[out->length - 1] : '[';

	if (before != '[' && before != '{')
		buffer_char(out, ',');
	if (key != NULL)
	{
		append_string(out, key);
		buffer_char(out, ':');
	}
}

void
json_open(Buffer *out, const char *key, char bracket)
{
	begin_value(out, key);
	buffer_char(out, bracket);
}

void
json_close(Buffer *out, char bracket)
{
	buffer_char(out, bracket);
}

/* NULL is null. */
void
json_text(Buffer *out, const char *key, const char *value)
{
	begin_value(out, key);
	if (value == NULL)
		buffer_text(out, "null");
	else
		append_string(out, value);
}

/* A number in the server's words, which are JSON's but for NaN and infinity. */
void
json_raw(Buffer *out, const char *key, const char *value)
{
	begin_value(out, key);
	if (value == NULL || value[0] == '\0' || value[strspn(value, "+-.0123456789eE")] != '\0')
		buffer_text(out, "null");
	else
		buffer_text(out, value);
}

void
json_number(Buffer *out, const char *key, double value)
{
	begin_value(out, key);
	if (isfinite(value))
		buffer_format(out, "%.3f", value);
	else
		buffer_text(out, "null");
}

void
json_bool(Buffer *out, const char *key, bool value)
{
	begin_value(out, key);
	buffer_text(out, value ? "true" : "false");
}

void
json_integer(Buffer *out, const char *key, long value)
{
	begin_value(out, key);
	buffer_format(out, "%ld", value);
}
