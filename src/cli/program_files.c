#include "cli/program_files.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/ld_cache.h"
#include "cli/program_elf.h"

enum { STATUS_NOT_EXECUTABLE = 126, STATUS_NOT_FOUND = 127 };
enum { FILES_MAX = 1024, SCRIPT_LINE_MAX = 256 };

struct search {
	struct program_files *files;
	const char *path;
	struct ld_cache cache;
	bool cache_is_needed; /* the guest's dynamic linker would not find something without */
	struct cli_error *error;
};

/* A file's bytes, as long as it is looked at. */
struct view {
	const unsigned char *data;
	size_t size_bytes;
};

static int fail(struct search *search, int status, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

static int fail(struct search *search, int status, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(search->error->text, sizeof(search->error->text), fmt, ap);
	va_end(ap);
	return status;
}

/* --- paths ----------------------------------------------------------------------------------------------- */

void program_path_clean(char *path)
{
	char *to = path;
	const char *from = path;

	while (*from) {
		size_t length;

		from += strspn(from, "/");
		length = strcspn(from, "/");
		if (length == 2 && from[0] == '.' && from[1] == '.') {
			while (to > path && *--to != '/')
				;
		} else if (length > 0 && !(length == 1 && from[0] == '.')) {
			*to++ = '/';
			memmove(to, from, length);
			to += length;
		}
		from += length;
	}
	if (to == path)
		*to++ = '/';
	*to = '\0';
}

static int add(struct search *search, const char *guest_path, const char *host_path)
{
	struct program_files *files = search->files;
	struct program_file file = {strdup(guest_path), strdup(host_path)};
	struct program_file *grown = NULL;

	if (file.guest_path)
		program_path_clean(file.guest_path);
	for (size_t i = 0; file.guest_path && i < files->count; i++) {
		if (strcmp(files->items[i].guest_path, file.guest_path) == 0) {
			free(file.guest_path);
			free(file.host_path);
			return 0;
		}
	}
	if (files->count < FILES_MAX)
		grown = realloc(files->items, (files->count + 1) * sizeof(*grown));
	if (grown)
		files->items = grown;
	if (!file.guest_path || !file.host_path || !grown) {
		free(file.guest_path);
		free(file.host_path);
		return files->count < FILES_MAX
			       ? fail(search, -ENOMEM, "out of memory")
			       : fail(search, STATUS_NOT_EXECUTABLE, "the program needs too many files");
	}
	grown[files->count++] = file;
	return 0;
}

static bool is_file(const char *path)
{
	struct stat stat_;

	return stat(path, &stat_) == 0 && S_ISREG(stat_.st_mode);
}

/* "directory/name" when that is a file. */
static bool find_in(const char *directory, size_t length, const char *name, char ret_path[PATH_MAX])
{
	int n = snprintf(ret_path, PATH_MAX, "%.*s/%s", (int)length, directory, name);

	return n > 0 && n < PATH_MAX && is_file(ret_path);
}

bool program_find_along(const char *list, const char *name, char ret_path[PATH_MAX])
{
	while (list) {
		size_t length = strcspn(list, ":");

		if (find_in(length > 0 ? list : ".", length > 0 ? length : 1, name, ret_path))
			return true;
		list = list[length] == ':' ? list + length + 1 : NULL;
	}
	return false;
}

/* --- the program ------------------------------------------------------------------------------------------ */

/* Where it really is: there it finds what lies beside it, in the guest too. */
static int find_program(struct search *search, const char *command, char ret_path[PATH_MAX])
{
	char found[PATH_MAX];

	if (strchr(command, '/')) {
		if (!realpath(command, ret_path))
			return fail(search, errno == EACCES ? STATUS_NOT_EXECUTABLE : STATUS_NOT_FOUND,
				    "%.200s: %s; without --initrd a command is this host's", command, strerror(errno));
	} else if (!program_find_along(search->path, command, found) || !realpath(found, ret_path)) {
		return fail(search, STATUS_NOT_FOUND,
			    "%.200s: not found on this host; a command of the guest's needs --initrd", command);
	}
	if (!is_file(ret_path) || access(ret_path, X_OK) < 0)
		return fail(search, STATUS_NOT_EXECUTABLE, "%.200s: this is no executable file", command);
	return 0;
}

/* --- scripts ---------------------------------------------------------------------------------------------- */

/* "#!/usr/bin/env NAME": env will look for NAME in the guest, where PATH need not be ours but has these names' files.
 */
static int add_env_word(struct search *search, const char *word)
{
	char path[PATH_MAX];

	if (!word || strchr(word, '/') || strchr(word, '='))
		return 0;
	if (!program_find_along(search->path, word, path))
		return fail(search, STATUS_NOT_EXECUTABLE, "%.200s: not found on this host; a script needs it", word);
	return add(search, path, path);
}

static int examine_script(struct search *search, const struct view *view)
{
	char line[SCRIPT_LINE_MAX + 1] = "";
	size_t size = view->size_bytes - 2 < SCRIPT_LINE_MAX ? view->size_bytes - 2 : SCRIPT_LINE_MAX;
	char *rest, *interpreter, *word;
	size_t length;
	int r;

	memcpy(line, view->data + 2, size);
	line[strcspn(line, "\n")] = '\0';
	interpreter = strtok_r(line, " \t", &rest);
	if (!interpreter || *interpreter != '/')
		return 0; /* the guest's kernel will say what it thinks of it */
	if (!is_file(interpreter))
		return fail(search, STATUS_NOT_EXECUTABLE, "%.200s: not found; a script needs it", interpreter);
	r = add(search, interpreter, interpreter);
	length = strlen(interpreter);
	if (r != 0 || length < 4 || strcmp(interpreter + length - 4, "/env") != 0)
		return r;
	word = strtok_r(NULL, " \t", &rest);
	if (word && strcmp(word, "-S") == 0)
		word = strtok_r(NULL, " \t", &rest);
	return add_env_word(search, word);
}

/* --- libraries -------------------------------------------------------------------------------------------- */

static const char GLIBC_DIRECTORIES[] =
	"/lib/x86_64-linux-gnu:/usr/lib/x86_64-linux-gnu:/lib64:/usr/lib64:/lib:/usr/lib";
static const char MUSL_DIRECTORIES[] = "/lib:/usr/local/lib:/usr/lib:/lib/x86_64-linux-musl:/usr/lib/x86_64-linux-musl";

static bool is_below_default(const char *path)
{
	const char *slash = strrchr(path, '/');

	for (const char *at = GLIBC_DIRECTORIES; at; at = strchr(at, ':') ? strchr(at, ':') + 1 : NULL)
		if (strcspn(at, ":") == (size_t)(slash - path) && strncmp(at, path, (size_t)(slash - path)) == 0)
			return true;
	return false;
}

/* $ORIGIN is the directory of the file that says so. An entry that becomes too long is not looked in. */
static void expand_origin(const char *entry, size_t length, const char *host_path, char ret_directory[PATH_MAX])
{
	static const char *const names[] = {"$ORIGIN", "${ORIGIN}"};
	size_t directory = (size_t)(strrchr(host_path, '/') - host_path);

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		size_t size = strlen(names[i]);

		if (length >= size && strncmp(entry, names[i], size) == 0) {
			snprintf(ret_directory, PATH_MAX, "%.*s%.*s", (int)directory, host_path, (int)(length - size),
				 entry + size);
			return;
		}
	}
	snprintf(ret_directory, PATH_MAX, "%.*s", (int)length, entry);
}

static bool find_by_runpath(const char *runpath, const char *host_path, const char *name, char ret_path[PATH_MAX])
{
	while (runpath) {
		size_t length = strcspn(runpath, ":");
		char directory[PATH_MAX];

		expand_origin(runpath, length, host_path, directory);
		if (length > 0 && find_in(directory, strlen(directory), name, ret_path))
			return true;
		runpath = runpath[length] == ':' ? runpath + length + 1 : NULL;
	}
	return false;
}

static bool find_by_cache(struct search *search, const char *name, char ret_path[PATH_MAX])
{
	const char *found = search->files->musl ? NULL : ld_cache_find(&search->cache, name);

	if (!found || *found != '/' || strlen(found) >= PATH_MAX || !is_file(found))
		return false;
	memcpy(ret_path, found, strlen(found) + 1);
	search->cache_is_needed |= !is_below_default(found);
	return true;
}

/* In the order of ld.so(8). */
static bool find_library(struct search *search, const struct program_elf *elf, const char *host_path, const char *name,
			 char ret_path[PATH_MAX])
{
	const struct program_files *files = search->files;

	if (strchr(name, '/'))
		return *name == '/' && find_in("", 0, name + 1, ret_path);
	return find_by_runpath(elf->runpath, host_path, name, ret_path) ||
	       find_by_runpath(files->program_runpath, files->items[0].host_path, name, ret_path) ||
	       find_by_cache(search, name, ret_path) ||
	       program_find_along(files->musl ? MUSL_DIRECTORIES : GLIBC_DIRECTORIES, name, ret_path);
}

/* musl's dynamic linker is its libc. */
static bool is_built_in(const struct program_files *files, const char *name)
{
	return files->musl && strncmp(name, "libc.", 5) == 0;
}

static int add_libraries(struct search *search, const struct program_elf *elf, const char *host_path)
{
	char path[PATH_MAX];
	int r = 0;

	for (size_t i = 0; r == 0 && i < elf->need_count; i++) {
		if (is_built_in(search->files, elf->needs[i]))
			continue;
		if (!find_library(search, elf, host_path, elf->needs[i], path))
			return fail(search, STATUS_NOT_EXECUTABLE, "%.200s needs %.100s, which is not on this host",
				    host_path, elf->needs[i]);
		r = add(search, path, path);
	}
	return r;
}

static int examine_elf(struct search *search, const struct view *view, size_t index)
{
	struct program_files *files = search->files;
	char host_path[PATH_MAX];
	struct program_elf elf;
	int r;

	/* `add` moves the items. */
	snprintf(host_path, sizeof(host_path), "%s", files->items[index].host_path);
	r = program_elf_read(&elf, view->data, view->size_bytes);
	if (r < 0)
		return fail(search, STATUS_NOT_EXECUTABLE, "%.200s: %s", host_path,
			    r == -ENOEXEC ? "this is no program for x86-64" : "the ELF file is broken");
	if (elf.interpreter && !is_file(elf.interpreter))
		return fail(search, STATUS_NOT_EXECUTABLE, "%.200s needs %.200s, which is not on this host", host_path,
			    elf.interpreter);
	if (elf.interpreter) {
		files->musl = strstr(elf.interpreter, "/ld-musl-") != NULL;
		free(files->program_runpath);
		files->program_runpath = elf.runpath ? strdup(elf.runpath) : NULL;
		r = add(search, elf.interpreter, elf.interpreter);
	}
	return r == 0 ? add_libraries(search, &elf, host_path) : r;
}

/* --- all of it -------------------------------------------------------------------------------------------- */

static int open_view(struct view *view, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat stat_;
	void *data;

	*view = (struct view){0};
	if (fd < 0)
		return -errno;
	if (fstat(fd, &stat_) < 0 || stat_.st_size == 0) {
		close(fd);
		return 0;
	}
	data = mmap(NULL, (size_t)stat_.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	close(fd);
	if (data == MAP_FAILED)
		return -errno;
	*view = (struct view){data, (size_t)stat_.st_size};
	return 0;
}

static int examine(struct search *search, size_t index)
{
	const char *host_path = search->files->items[index].host_path;
	struct view view;
	int r = open_view(&view, host_path);

	if (r < 0)
		return fail(search, STATUS_NOT_EXECUTABLE, "%.200s: %s", host_path, strerror(-r));
	if (program_elf_is(view.data, view.size_bytes))
		r = examine_elf(search, &view, index);
	else if (view.size_bytes > 2 && memcmp(view.data, "#!", 2) == 0)
		r = examine_script(search, &view);
	if (view.data)
		munmap((void *)(uintptr_t)view.data, view.size_bytes);
	return r;
}

int program_files_find(struct program_files *files, const char *command, const char *path, struct cli_error *error)
{
	struct search search = {.files = files, .path = path, .error = error};
	char program[PATH_MAX];
	int r;

	*files = (struct program_files){0};
	r = find_program(&search, command, program);
	if (r != 0)
		return r;
	ld_cache_open(&search.cache, "/etc/ld.so.cache");
	r = add(&search, program, program);
	for (size_t i = 0; r == 0 && i < files->count; i++)
		r = examine(&search, i);
	ld_cache_close(&search.cache);
	if (r == 0 && search.cache_is_needed)
		r = add(&search, "/etc/ld.so.cache", "/etc/ld.so.cache");
	return r;
}

void program_files_free(struct program_files *files)
{
	for (size_t i = 0; i < files->count; i++) {
		free(files->items[i].guest_path);
		free(files->items[i].host_path);
	}
	free(files->items);
	free(files->program_runpath);
	*files = (struct program_files){0};
}
