/*
 * Holds a conversation with a command on a pseudo-terminal, as a person at a terminal would:
 *
 *	dialog SCRIPT COMMAND [ARGUMENT...]
 *
 * A script has one step a line:
 *
 *	within SECONDS      how long each later step may take (60)
 *	expect TEXT         wait until the command has written TEXT, after what an earlier step waited for
 *	send TEXT           type TEXT; the next step begins when it is typed
 *	exchange FILE       type FILE's bytes as fast as they are taken, and expect the same bytes back
 *	read BYTES          from here on read so many bytes in each hundredth of a second; 0: all there is
 *	size ROWS COLUMNS   give the terminal another size (it begins with 24 rows of 80)
 *	lines COUNT         expect the test initramfs's console-flood: COUNT lines that count up from 0
 *	status N            wait for the command's end; N is its exit status
 *
 * In TEXT, \r \n \\ and \xHH stand for bytes. What the command writes is copied to standard output, but for the bytes
 * of exchange and lines. The exit status is 0 when all went as the script says, 2 for a wrong script, else 1.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { LINE_SIZE = 4096, TICK_MS = 10, FLOOD_LINE_SIZE = 64, LAST_SIZE = 500 };

struct bytes {
	char *data;
	size_t size;
};

static struct {
	pid_t child;
	int pty;
	bool ended; /* the pseudo-terminal has no writer any more */
	struct bytes output;
	size_t matched;      /* of the output, by earlier steps */
	bool quiet;          /* output is not copied */
	struct bytes typing; /* not yet taken */
	size_t bytes_per_tick;
	double seconds;
	double deadline;
} dialog = {.seconds = 60};

static const char *script_name;
static unsigned script_line;

static void say(const char *fmt, va_list args)
{
	fflush(stdout);
	fprintf(stderr, "\ndialog: %s:%u: ", script_name, script_line);
	vfprintf(stderr, fmt, args);
	fputc('\n', stderr);
}

static _Noreturn void wrong_script(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	say(fmt, args);
	va_end(args);
	exit(2);
}

/* A conversation that goes wrong in the middle of many bytes is best explained by the last of them. */
static void show_last_output(void)
{
	size_t from = dialog.output.size > LAST_SIZE ? dialog.output.size - LAST_SIZE : 0;

	if (!dialog.quiet)
		return;
	printf("\ndialog: what came last:\n");
	fwrite(dialog.output.data + from, 1, dialog.output.size - from, stdout);
}

static _Noreturn void fail(const char *fmt, ...)
{
	va_list args;

	show_last_output();
	va_start(args, fmt);
	say(fmt, args);
	va_end(args);
	kill(dialog.child, SIGKILL);
	exit(1);
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* --- the pseudo-terminal ------------------------------------------------------------------------------- */

static void start(char **command)
{
	const struct winsize size = {.ws_row = 24, .ws_col = 80};

	dialog.child = forkpty(&dialog.pty, NULL, NULL, &size);
	if (dialog.child < 0)
		fail("no pseudo-terminal: %s", strerror(errno));
	if (dialog.child == 0) {
		execvp(command[0], command);
		fprintf(stderr, "dialog: %s: %s\n", command[0], strerror(errno));
		_exit(127);
	}
	fcntl(dialog.pty, F_SETFL, O_NONBLOCK);
}

static void take_output(const char *data, size_t size)
{
	dialog.output.data = realloc(dialog.output.data, dialog.output.size + size);
	if (!dialog.output.data)
		fail("no memory for %zu bytes of output", dialog.output.size + size);
	memcpy(dialog.output.data + dialog.output.size, data, size);
	dialog.output.size += size;
	if (!dialog.quiet)
		fwrite(data, 1, size, stdout);
	fflush(stdout);
}

static void read_some(void)
{
	char data[1 << 16];
	size_t size = dialog.bytes_per_tick ? dialog.bytes_per_tick : sizeof(data);
	ssize_t n = read(dialog.pty, data, size);

	if (n > 0)
		take_output(data, (size_t)n);
	else if (n == 0 || (errno != EAGAIN && errno != EINTR))
		dialog.ended = true; /* EIO: the last one who had it open is gone */
}

static void type_some(void)
{
	ssize_t n = write(dialog.pty, dialog.typing.data, dialog.typing.size);

	if (n < 0 && errno != EAGAIN && errno != EINTR)
		fail("cannot type: %s", strerror(errno));
	if (n > 0) {
		dialog.typing.data += n;
		dialog.typing.size -= (size_t)n;
	}
}

/* Lets the command go on a little; fails when the step's time is up. `what` completes "there was no ...". */
static void turn(const char *what)
{
	short events = (short)(POLLIN | (dialog.typing.size ? POLLOUT : 0));
	struct pollfd pollfd = {.fd = dialog.pty, .events = events};

	if (now() > dialog.deadline)
		fail("there was no %s in %g seconds", what, dialog.seconds);
	if (poll(&pollfd, 1, TICK_MS) <= 0)
		return;
	if (pollfd.revents & POLLOUT)
		type_some();
	if (pollfd.revents & ~POLLOUT)
		read_some();
	if (dialog.bytes_per_tick)
		poll(NULL, 0, TICK_MS);
}

/* --- steps --------------------------------------------------------------------------------------------- */

static int hex_digit(char c)
{
	const char *digits = "0123456789abcdef";
	const char *at = c ? strchr(digits, c) : NULL;

	return at ? (int)(at - digits) : -1;
}

/* In place. */
static struct bytes unescape(char *text)
{
	struct bytes bytes = {text, 0};

	for (const char *from = text; *from; from++) {
		char c = *from;

		if (c == '\\' && from[1] == 'x' && hex_digit(from[2]) >= 0 && hex_digit(from[3]) >= 0) {
			c = (char)(hex_digit(from[2]) << 4 | hex_digit(from[3]));
			from += 3;
		} else if (c == '\\' && from[1]) {
			from++;
			c = *from == 'r' ? '\r' : *from == 'n' ? '\n' : *from;
		}
		text[bytes.size++] = c;
	}
	return bytes;
}

static void step_within(char *argument)
{
	dialog.seconds = strtod(argument, NULL);
	if (dialog.seconds <= 0)
		wrong_script("'%s' is no number of seconds", argument);
}

static void step_read(char *argument)
{
	dialog.bytes_per_tick = strtoul(argument, NULL, 10);
}

/* The kernel tells the command by SIGWINCH. */
static void step_size(char *argument)
{
	struct winsize size = {0};

	if (sscanf(argument, "%hu %hu", &size.ws_row, &size.ws_col) != 2)
		wrong_script("'%s' is no size", argument);
	if (ioctl(dialog.pty, TIOCSWINSZ, &size) < 0)
		fail("the terminal's size: %s", strerror(errno));
}

static void step_expect(char *argument)
{
	char what[LINE_SIZE + 2];
	struct bytes text;

	snprintf(what, sizeof(what), "'%s'", argument);
	text = unescape(argument);
	for (;;) {
		char *at = memmem(dialog.output.data + dialog.matched, dialog.output.size - dialog.matched, text.data,
				  text.size);

		if (at) {
			dialog.matched = (size_t)(at - dialog.output.data) + text.size;
			return;
		}
		if (dialog.ended)
			fail("the command ended without %s", what);
		turn(what);
	}
}

static void step_send(char *argument)
{
	dialog.typing = unescape(argument);
	while (dialog.typing.size)
		turn("interest in what was typed");
}

/* Waits until there are so many more bytes of output, which are not shown, and takes them. */
static const char *await_bytes(size_t size, const char *what)
{
	char missing[128];
	const char *bytes;

	dialog.quiet = true;
	while (dialog.output.size - dialog.matched < size) {
		snprintf(missing, sizeof(missing), "end of %s: %zu of %zu bytes came, %zu are not yet taken", what,
			 dialog.output.size - dialog.matched, size, dialog.typing.size);
		if (dialog.ended)
			fail("the command ended, and there was no %s", missing);
		turn(missing);
	}
	dialog.quiet = false;
	bytes = dialog.output.data + dialog.matched;
	dialog.matched += size;
	fwrite(dialog.output.data + dialog.matched, 1, dialog.output.size - dialog.matched, stdout);
	return bytes;
}

static struct bytes read_file(const char *path)
{
	struct bytes bytes = {0};
	FILE *file = fopen(path, "rb");
	long size;

	if (!file || fseek(file, 0, SEEK_END) < 0 || (size = ftell(file)) < 0)
		wrong_script("%s: %s", path, strerror(errno));
	rewind(file);
	bytes = (struct bytes){malloc((size_t)size + 1), (size_t)size};
	if (!bytes.data || fread(bytes.data, 1, bytes.size, file) != bytes.size)
		wrong_script("%s: cannot be read", path);
	fclose(file);
	return bytes;
}

static void step_exchange(char *argument)
{
	struct bytes file = read_file(argument);
	double began = now();
	const char *came;

	dialog.typing = file;
	came = await_bytes(file.size, argument);
	for (size_t i = 0; i < file.size; i++)
		if (came[i] != file.data[i])
			fail("byte %zu of %zu came back as %#x, not %#x", i, file.size, (unsigned char)came[i],
			     (unsigned char)file.data[i]);
	printf("[%zu bytes went in and came back in %.1f s]\n", file.size, now() - began);
	free(file.data);
}

static void step_lines(char *argument)
{
	size_t count = strtoul(argument, NULL, 10);
	double began = now();
	const char *came = await_bytes(count * FLOOD_LINE_SIZE, "the lines");

	for (size_t i = 0; i < count; i++) {
		char line[FLOOD_LINE_SIZE + 1];

		snprintf(line, sizeof(line), "%063zu\n", i);
		if (memcmp(came + i * FLOOD_LINE_SIZE, line, FLOOD_LINE_SIZE) != 0)
			fail("line %zu of %zu came as '%.64s'", i, count, came + i * FLOOD_LINE_SIZE);
	}
	printf("[%zu lines came in %.1f s]\n", count, now() - began);
}

static void step_status(char *argument)
{
	int wanted = (int)strtol(argument, NULL, 10);
	int status = 0;

	while (!dialog.ended)
		turn("end of the command");
	waitpid(dialog.child, &status, 0);
	if (WIFSIGNALED(status))
		fail("the command was killed by signal %d", WTERMSIG(status));
	if (WEXITSTATUS(status) != wanted)
		fail("the command's status is %d, not %d", WEXITSTATUS(status), wanted);
}

static void step(char *line)
{
	static const struct {
		const char *name;
		void (*run)(char *argument);
	} steps[] = {
		{"within", step_within},     {"read", step_read},   {"expect", step_expect}, {"send", step_send},
		{"exchange", step_exchange}, {"lines", step_lines}, {"status", step_status}, {"size", step_size},
	};
	char *argument = strchr(line, ' ');

	if (!argument)
		wrong_script("'%s' is no step", line);
	*argument++ = '\0';
	dialog.deadline = now() + dialog.seconds;
	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		if (strcmp(steps[i].name, line) == 0) {
			steps[i].run(argument);
			return;
		}
	}
	wrong_script("there is no step '%s'", line);
}

int main(int argc, char **argv)
{
	char line[LINE_SIZE];
	FILE *script;

	if (argc < 3) {
		fputs("Usage: dialog SCRIPT COMMAND [ARGUMENT...]\n", stderr);
		return 2;
	}
	script_name = argv[1];
	script = fopen(script_name, "re");
	if (!script)
		wrong_script("%s", strerror(errno));
	start(argv + 2);
	while (fgets(line, sizeof(line), script)) {
		script_line++;
		line[strcspn(line, "\n")] = '\0';
		if (line[0] && line[0] != '#')
			step(line);
	}
	kill(dialog.child, SIGKILL);
	return 0;
}
