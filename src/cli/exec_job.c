#include "cli/exec_job.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/exec_init.h"
#include "cli/program_files.h"

static const char GUEST_PATH[] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

struct job {
	const char *const *environment;
	struct cli_error *error;
	size_t size_bytes;
	size_t words;
	char strings[EXEC_JOB_SIZE_MAX];
};

/* What does not fit is noticed at the end. */
static void put(struct job *job, char tag, const char *text)
{
	size_t size = strlen(text) + 2;

	job->words++;
	if (job->size_bytes + size <= sizeof(job->strings)) {
		job->strings[job->size_bytes] = tag;
		memcpy(job->strings + job->size_bytes + 1, text, size - 1);
	}
	job->size_bytes += size;
}

/* --- variables ------------------------------------------------------------------------------------------- */

/* "NAME=VALUE" of the host's environment, or NULL. */
static const char *host_variable(const struct job *job, const char *name)
{
	size_t length = strlen(name);

	for (const char *const *variable = job->environment; *variable; variable++)
		if (strncmp(*variable, name, length) == 0 && (*variable)[length] == '=')
			return *variable;
	return NULL;
}

/* Of a variable given twice the last counts, and one of the user's before one of ours. */
static bool is_given_later(const struct string_list *variables, size_t from, const char *text)
{
	size_t length = strcspn(text, "=");

	for (size_t i = from; i < variables->count; i++) {
		const char *name = variables->items[i];

		if (strcspn(name, "=") == length && strncmp(name, text, length) == 0)
			return true;
	}
	return false;
}

static void put_default(struct job *job, const struct options *options, const char *text)
{
	if (text && !is_given_later(&options->exec.variables, 0, text))
		put(job, 'e', text);
}

static void put_variables(struct job *job, const struct options *options, const struct exec_terminal *terminal)
{
	const struct string_list *variables = &options->exec.variables;

	put_default(job, options, GUEST_PATH);
	put_default(job, options, "HOME=/root");
	if (terminal->stdio)
		put_default(job, options, host_variable(job, "TERM"));
	for (size_t i = 0; i < variables->count; i++) {
		const char *text = variables->items[i];

		if (is_given_later(variables, i + 1, text))
			continue;
		if (!strchr(text, '='))
			text = host_variable(job, text);
		if (text)
			put(job, 'e', text);
	}
}

/* --- files ----------------------------------------------------------------------------------------------- */

/* The number keeps modules of one name apart. */
static void add_modules(struct job *job, const struct options *options, struct initrd_cpio *cpio)
{
	for (size_t i = 0; i < options->exec.modules.count; i++) {
		const char *host_path = options->exec.modules.items[i];
		const char *slash = strrchr(host_path, '/');
		char path[4096];

		snprintf(path, sizeof(path), "/.vmlet/modules/%zu-%s", i, slash ? slash + 1 : host_path);
		put(job, 'm', path);
		initrd_cpio_add_file(cpio, path, 0600, host_path);
	}
}

static int add_program(struct job *job, const struct options *options, struct initrd_cpio *cpio)
{
	const char *path = host_variable(job, "PATH");
	struct program_files files;
	int r = program_files_find(&files, options->exec.command[0], path ? path + strlen("PATH=") : "/usr/bin:/bin",
				   job->error);

	if (r == 0)
		put(job, 'p', files.items[0].guest_path);
	for (size_t i = 0; r == 0 && i < files.count; i++)
		initrd_cpio_add_file(cpio, files.items[i].guest_path, 0755, files.items[i].host_path);
	program_files_free(&files);
	return r;
}

static int fill(struct job *job, const struct options *options, const struct exec_terminal *terminal,
		struct initrd_cpio *cpio)
{
	int r = 0;

	initrd_cpio_add_bytes(cpio, EXEC_INIT_PATH, 0755, exec_init_elf, exec_init_elf_size);
	add_modules(job, options, cpio);
	if (options->initrd_count == 0)
		r = add_program(job, options, cpio);
	put_variables(job, options, terminal);
	for (const char *const *word = options->exec.command; *word; word++)
		put(job, 'a', *word);
	put(job, 'd', options->exec.directory ? options->exec.directory : "/");
	if (terminal->stdio)
		put(job, 't', "");
	if (terminal->stdio && terminal->error)
		put(job, 'T', "");
	return r;
}

static int finish(struct job *job, struct initrd_cpio *cpio)
{
	if (job->size_bytes > sizeof(job->strings) || job->words > EXEC_JOB_WORDS_MAX) {
		snprintf(job->error->text, sizeof(job->error->text),
			 "the command's arguments and variables are more than %d KiB or %d words",
			 EXEC_JOB_SIZE_MAX >> 10, EXEC_JOB_WORDS_MAX);
		return -E2BIG;
	}
	initrd_cpio_add_bytes(cpio, "/.vmlet/job", 0600, job->strings, job->size_bytes);
	return initrd_cpio_finish(cpio, job->error);
}

int exec_job_write(const struct options *options, const struct exec_terminal *terminal, const char *const *environment,
		   struct initrd_cpio *ret_cpio, struct cli_error *error)
{
	struct job *job = malloc(sizeof(*job));
	struct initrd_cpio cpio;
	int r = job ? initrd_cpio_init(&cpio) : -ENOMEM;

	if (r < 0) {
		snprintf(error->text, sizeof(error->text), "no initrd for the command: %s", strerror(-r));
		free(job);
		return r;
	}
	job->environment = environment;
	job->error = error;
	job->size_bytes = job->words = 0;
	r = fill(job, options, terminal, &cpio);
	if (r == 0)
		r = finish(job, &cpio);
	free(job);
	if (r != 0)
		initrd_cpio_fini(&cpio);
	else
		*ret_cpio = cpio;
	return r;
}
