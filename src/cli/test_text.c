#include "cli/test_text.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "cli/console_text.h"
#include "cli/utf8.h"

/* What is text of a console, and its NULs, in order; returns how many bytes that are. */
static size_t strip(const char *text, size_t size_bytes, char *ret_text)
{
	struct console_text console = {0};
	size_t size = 0;

	for (size_t at = 0; at < size_bytes; at++) {
		uint8_t byte = console_text_next(&console, (uint8_t)text[at]);

		if (byte != 0 || text[at] == '\0')
			ret_text[size++] = (char)byte;
	}
	return size;
}

/* A character that reports may have: what XML 1.0 (2.2, Char) has, without the C1 controls. */
static bool is_clean(uint32_t c)
{
	if (c < ' ')
		return c == '\t' || c == '\n';
	return c != 0x7f && (c < 0x80 || c > 0x9f) && c != 0xfffe && c != 0xffff;
}

void test_text_clean(const char *text, size_t size_bytes, char *ret_text)
{
	size_t size = strip(text, size_bytes, ret_text);
	char *to = ret_text;

	for (size_t at = 0, length; at < size; at += length) {
		uint32_t c;

		length = utf8_decode(ret_text + at, size - at, &c);
		if (length == 0 || !is_clean(c)) {
			*to++ = '?';
			length = 1;
		} else {
			memmove(to, ret_text + at, length);
			to += length;
		}
	}
	*to = '\0';
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
