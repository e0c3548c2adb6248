#include "cli/status_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/json.h"

/* --- the object ------------------------------------------------------------------------------------------ */

static const char *end_name(enum vmlet_end end)
{
	static const char *const names[] = {
		[VMLET_END_NONE] = "none",
		[VMLET_END_POWEROFF] = "poweroff",
		[VMLET_END_REBOOT] = "reboot",
		[VMLET_END_PANIC] = "panic",
		[VMLET_END_TRIPLE_FAULT] = "triple-fault",
		[VMLET_END_DEBUG_EXIT] = "debug-exit",
		[VMLET_END_STOPPED] = "stopped",
		[VMLET_END_KVM_ERROR] = "kvm-error",
		[VMLET_END_HOST_ERROR] = "host-error",
		[VMLET_END_TIMEOUT] = "timeout",
	};

	return (size_t)end < sizeof(names) / sizeof(names[0]) ? names[end] : "unknown";
}

static void add_string(struct json *json, const char *key, const char *string)
{
	json_raw(json, key);
	json_string(json, string, 512);
}

static void add_number(struct json *json, const char *key, uint64_t number)
{
	json_raw(json, key);
	json_number(json, number);
}

static void add_maybe(struct json *json, const char *key, bool has, uint64_t number)
{
	json_raw(json, key);
	if (has)
		json_number(json, number);
	else
		json_raw(json, "null");
}

static void add_expect(struct json *json, const struct expect_summary *expect)
{
	bool has_line = expect->line && expect->line[0] != '\0';

	add_number(json, ",\n  \"expect\": {\"met\": ", expect->met);
	add_number(json, ", \"total\": ", expect->total);
	add_string(json, ", \"pattern\": ", expect->pattern);
	add_string(json, ", \"line\": ", has_line ? expect->line : NULL);
	json_raw(json, "}");
}

static void add_times(struct json *json, const struct vmlet_stats *stats, uint64_t started_ns)
{
	add_number(json, ",\n  \"times\": {\"started_ns\": ", started_ns);
	add_maybe(json, ", \"created_ns\": ", stats->created_ns != 0, stats->created_ns);
	add_maybe(json, ", \"loaded_ns\": ", stats->loaded_ns != 0, stats->loaded_ns);
	add_maybe(json, ", \"running_ns\": ", stats->running_ns != 0, stats->running_ns);
	add_maybe(json, ", \"console_ns\": ", stats->console_ns != 0, stats->console_ns);
	add_maybe(json, ", \"ended_ns\": ", stats->ended_ns != 0, stats->ended_ns);
	json_raw(json, "}");
}

size_t status_file_render(char *text, size_t size_bytes, const struct outcome *outcome, const struct vmlet_stats *stats,
			  uint64_t started_ns, uint64_t now_ns)
{
	struct vmlet_stats none = {0};
	struct json json;

	if (!stats)
		stats = &none;
	json_init(&json, text, size_bytes);
	json_raw(&json, "{\n  \"version\": 1");
	add_string(&json, ",\n  \"vmlet\": ", vmlet_version());
	add_number(&json, ",\n  \"status\": ", (uint64_t)outcome->status);
	add_string(&json, ",\n  \"reason\": ", outcome->reason);
	add_string(&json, ",\n  \"text\": ", outcome->text);
	add_string(&json, ",\n  \"end\": ", end_name(outcome->end));
	add_maybe(&json, ",\n  \"value\": ", outcome->has_value, outcome->value);
	add_maybe(&json, ",\n  \"signal\": ", outcome->has_signal, outcome->signal);
	add_expect(&json, &outcome->expect);
	add_times(&json, stats, started_ns);
	add_number(&json, ",\n  \"duration_ns\": ", now_ns - started_ns);
	add_number(&json, ",\n  \"counters\": {\"console_bytes\": ", stats->console_bytes);
	add_number(&json, ", \"restarts\": ", stats->restarts);
	json_raw(&json, "}\n}\n");
	return json.used;
}

/* --- the file -------------------------------------------------------------------------------------------- */

static int write_all(int fd, const char *text, size_t size)
{
	while (size > 0) {
		ssize_t n = write(fd, text, size);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		text += n;
		size -= (size_t)n;
	}
	return 0;
}

/* Path into directory and name. "": it ends in a slash. */
static int open_directory(struct status_file *file)
{
	const char *slash = strrchr(file->path, '/'), *name = slash ? slash + 1 : file->path;
	size_t size = slash ? (size_t)(slash - file->path) + 1 : 0;
	char directory[4096] = ".";

	if (*name == '\0')
		return -EISDIR;
	if (size >= sizeof(directory) || strlen(name) + 32 > sizeof(file->name))
		return -ENAMETOOLONG;
	if (size > 0) {
		memcpy(directory, file->path, size);
		directory[size] = '\0';
	}
	snprintf(file->name, sizeof(file->name), "%s", name);
	snprintf(file->temporary, sizeof(file->temporary), ".%.200s.%ld.tmp", name, (long)getpid());
	file->dir_fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return file->dir_fd < 0 ? -errno : 0;
}

static int create_temporary(const struct status_file *file)
{
	int fd = openat(file->dir_fd, file->temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);

	return fd < 0 ? -errno : fd;
}

/* Nobody reads an old one as ours, and what would fail at the end fails now. */
static int try_directory(struct status_file *file)
{
	int r = open_directory(file);

	if (r < 0)
		return r;
	r = create_temporary(file);
	if (r < 0)
		return r;
	close(r);
	if (unlinkat(file->dir_fd, file->temporary, 0) < 0)
		return -errno;
	if (unlinkat(file->dir_fd, file->name, 0) < 0 && errno != ENOENT)
		return -errno;
	return 0;
}

static int open_target(struct status_file *file)
{
	struct stat st;

	if (stat(file->path, &st) < 0 || S_ISREG(st.st_mode))
		return try_directory(file);
	file->fd = open(file->path, O_WRONLY | O_CLOEXEC | O_NOCTTY);
	return file->fd < 0 ? -errno : 0;
}

int status_file_open(struct status_file *file, const char *path, struct cli_error *error)
{
	int r;

	file->path = path;
	file->dir_fd = file->fd = -1;
	file->last_words_bytes = 0;
	if (!path)
		return 0;
	r = open_target(file);
	if (r == 0)
		return 0;
	snprintf(error->text, sizeof(error->text), "status file '%.400s': %s", path, strerror(-r));
	status_file_close(file);
	return r;
}

void status_file_close(struct status_file *file)
{
	if (file->dir_fd >= 0)
		close(file->dir_fd);
	if (file->fd >= 0)
		close(file->fd);
	file->path = NULL;
	file->dir_fd = file->fd = -1;
}

/*
 * Written before it has its name: a reader finds the whole text or nothing. It is not flushed to the disk, which took
 * longer than all else that the contract asks for; who loses the host's power loses the run as well.
 */
static int fill_temporary(const struct status_file *file, const char *text, size_t size_bytes)
{
	int fd = create_temporary(file);
	int r;

	if (fd < 0)
		return fd;
	r = write_all(fd, text, size_bytes);
	if (close(fd) < 0 && r == 0)
		r = -errno;
	return r;
}

int status_file_write(const struct status_file *file, const char *text, size_t size_bytes)
{
	int r;

	if (!file->path)
		return 0;
	if (file->fd >= 0)
		return write_all(file->fd, text, size_bytes);
	r = fill_temporary(file, text, size_bytes);
	if (r == 0 && renameat(file->dir_fd, file->temporary, file->dir_fd, file->name) < 0)
		r = -errno;
	if (r < 0)
		unlinkat(file->dir_fd, file->temporary, 0);
	return r;
}
