/*
 * The files that a program of this host needs to run elsewhere: itself, the interpreter of a script, the dynamic
 * linker, and the libraries that it is linked with. What it opens later by itself (plugins, data) nobody can know.
 */
#pragma once

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

#include "cli/options.h"

/* Paths are absolute; the guest's is clean, with no symbolic links above it there. */
struct program_file {
	char *guest_path, *host_path; /* allocated */
};

struct program_files {
	struct program_file *items; /* allocated; the program itself is the first */
	size_t count;
	bool musl;             /* its dynamic linker is musl's */
	char *program_runpath; /* allocated; where the program says its libraries are, or NULL */
};

/*
 * Look for `command` as a shell does, along `path` (as of $PATH) when it has no slash, and for all that it needs.
 * 0; 127: it is not there, 126: it cannot run, both with a sentence; or -ENOMEM likewise. Always to be freed.
 */
int program_files_find(struct program_files *files, const char *command, const char *path, struct cli_error *error);
void program_files_free(struct program_files *files);

/*
 * Look for a file of that name along a list with colons, as of $PATH; an empty name in the list is the working
 * directory, as shells have it. False: it is in none of them.
 */
bool program_find_along(const char *list, const char *name, char ret_path[PATH_MAX]);

/* "/a/./b//../c" is "/a/c"; in place, `path` begins with a slash. */
void program_path_clean(char *path);
