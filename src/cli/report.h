/*
 * Lines for the user on standard error, and for the log. One line is one write, so that lines of several threads
 * do not mix; control characters in it become '?', so that no file name or guest can play with the terminal.
 */
#pragma once

/* "vmlet: text", on standard error. [any] */
void report(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* The same to `fd`, with "\r\n" when that is a terminal and ours is in raw mode. [any] */
void report_to(int fd, const char *text);

/* Text as it is, without "vmlet: ". [any] */
void report_plain(const char *text);
