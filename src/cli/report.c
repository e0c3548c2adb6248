#include "cli/report.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/terminal.h"

enum { LINE_MAX_BYTES = 1024 };

static void write_all(int fd, const char *data, size_t size)
{
	while (size > 0) {
		ssize_t n = write(fd, data, size);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return; /* there is nobody left to tell */
		data += n;
		size -= (size_t)n;
	}
}

static void write_line(int fd, const char *prefix, const char *text)
{
	char line[LINE_MAX_BYTES];
	/* Room for "\r\n". */
	int printed = snprintf(line, sizeof(line) - 2, "%s%s", prefix, text);
	size_t size = printed < 0 ? 0 : strlen(line);

	for (size_t i = 0; i < size; i++)
		if ((unsigned char)line[i] < ' ' || line[i] == 0x7f)
			line[i] = '?';
	if (terminal_is_raw() && isatty(fd))
		line[size++] = '\r';
	line[size++] = '\n';
	write_all(fd, line, size);
}

void report_to(int fd, const char *text)
{
	write_line(fd, "vmlet: ", text);
}

void report_plain(const char *text)
{
	write_line(STDERR_FILENO, "", text);
}

void report(const char *fmt, ...)
{
	char text[LINE_MAX_BYTES];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	report_to(STDERR_FILENO, text);
}
