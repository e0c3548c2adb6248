/* Text of guests and users on its way into reports: cleaned, then escaped for the format. Pure. */
#pragma once

#include <stddef.h>
#include <stdio.h>

/*
 * Into `ret_text`, of at least size_bytes + 1 bytes, and a NUL: without escape sequences (console_text.h) and
 * carriage returns; other control characters but tab and newline, and what is not UTF-8 or not a character of XML,
 * become '?'.
 */
void test_text_clean(const char *text, size_t size_bytes, char *ret_text);

/* The last `lines` lines of `text`. */
const char *test_text_last_lines(const char *text, size_t lines);

/* Clean text with XML's five characters escaped. */
void test_text_print_xml(FILE *out, const char *text);

/* Clean text on one line of Markdown, with what has a meaning there (also in a table) escaped. */
void test_text_print_markdown(FILE *out, const char *text);

/* Clean text as a quoted YAML scalar on one line. */
void test_text_print_yaml(FILE *out, const char *text);

/* As a TAP description: '#' and '\' escaped. */
void test_text_print_tap(FILE *out, const char *text);
