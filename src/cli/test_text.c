#include "cli/test_text.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum { ESC = 0x1b };

/* The size of an escape sequence at the beginning of `text`; 1 for an ESC that begins none. */
static size_t escape_size(const char *text, size_t size)
{
	size_t at = 2;

	if (size < 2)
		return 1;
	if (text[1] != '[')
		return text[1] >= '0' && text[1] <= '~' ? 2 : 1;
	while (at < size && text[at] >= ' ' && text[at] <= '?')
		at++;
	return at < size && text[at] >= '@' && text[at] <= '~' ? at + 1 : at;
}

static size_t utf8_length(unsigned char first)
{
	if (first < 0x80)
		return 1;
	if (first >= 0xc2 && first <= 0xdf)
		return 2;
	if (first >= 0xe0 && first <= 0xef)
		return 3;
	return first >= 0xf0 && first <= 0xf4 ? 4 : 0;
}

/* Not overlong, not a surrogate, in Unicode's range, and (XML 1.0, 2.2 Char) none of U+FFFE, U+FFFF and the C1 set. */
static bool is_character(uint32_t c, size_t length)
{
	static const uint32_t least[] = {0, 0, 0xa0, 0x800, 0x10000};

	return c >= least[length] && c <= 0x10ffff && (c < 0xd800 || c > 0xdfff) && c != 0xfffe && c != 0xffff;
}

/* The size of the character at the beginning of `text`; 0: it is none. */
static size_t character_size(const char *text, size_t size)
{
	size_t length = utf8_length((unsigned char)text[0]);
	uint32_t c;

	if (length <= 1)
		return length;
	if (length > size)
		return 0;
	c = (unsigned char)text[0] & (0x7fu >> length);
	for (size_t i = 1; i < length; i++) {
		if (((unsigned char)text[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | ((unsigned char)text[i] & 0x3f);
	}
	return is_character(c, length) ? length : 0;
}

static bool is_control(char c)
{
	return ((unsigned char)c < ' ' && c != '\t' && c != '\n') || c == 0x7f;
}

void test_text_clean(const char *text, size_t size_bytes, char *ret_text)
{
	size_t at = 0;

	while (at < size_bytes) {
		size_t length = character_size(text + at, size_bytes - at);

		if (text[at] == ESC) {
			at += escape_size(text + at, size_bytes - at);
		} else if (text[at] == '\r') {
			at++;
		} else if (length == 0 || is_control(text[at])) {
			*ret_text++ = '?';
			at++;
		} else {
			memcpy(ret_text, text + at, length);
			ret_text += length;
			at += length;
		}
	}
	*ret_text = '\0';
}

const char *test_text_last_lines(const char *text, size_t lines)
{
	const char *at = text + strlen(text);

	if (at > text && at[-1] == '\n')
		at--;
	while (at > text) {
		if (at[-1] == '\n' && --lines == 0)
			break;
		at--;
	}
	return at;
}

void test_text_print_xml(FILE *out, const char *text)
{
	for (; *text; text++) {
		switch (*text) {
		case '&':
			fputs("&amp;", out);
			break;
		case '<':
			fputs("&lt;", out);
			break;
		case '>':
			fputs("&gt;", out);
			break;
		case '"':
			fputs("&quot;", out);
			break;
		case '\'':
			fputs("&apos;", out);
			break;
		default:
			fputc(*text, out);
		}
	}
}

void test_text_print_markdown(FILE *out, const char *text)
{
	for (; *text; text++) {
		if (*text == '\n' || *text == '\t') {
			fputc(' ', out);
			continue;
		}
		if (strchr("\\`*_[]<>|#&~", *text))
			fputc('\\', out);
		fputc(*text, out);
	}
}

void test_text_print_yaml(FILE *out, const char *text)
{
	fputc('"', out);
	for (; *text; text++) {
		if (*text == '\n' || *text == '\t') {
			fputs(*text == '\n' ? "\\n" : "\\t", out);
			continue;
		}
		if (*text == '"' || *text == '\\')
			fputc('\\', out);
		fputc(*text, out);
	}
	fputc('"', out);
}

void test_text_print_tap(FILE *out, const char *text)
{
	for (; *text; text++) {
		if (*text == '#' || *text == '\\')
			fputc('\\', out);
		fputc(*text, out);
	}
}
