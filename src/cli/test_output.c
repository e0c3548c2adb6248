#include "cli/test_output.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DIRECTORY_MAX_BYTES = 120 };

static bool is_plain(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || strchr("._=,+-[]", c);
}

/* FNV-1a. */
static uint32_t hash(const char *text)
{
	uint32_t sum = 0x811c9dc5;

	for (; *text; text++)
		sum = (sum ^ (unsigned char)*text) * 0x01000193;
	return sum;
}

/*
 * The test's name in characters that every file system and artifact store takes. Where that changes it, the hash of
 * the name keeps it apart from others, and the same from run to run.
 */
static char *directory_name(const char *test_name)
{
	char plain[DIRECTORY_MAX_BYTES + 1];
	bool is_same = *test_name != '.' && strlen(test_name) <= DIRECTORY_MAX_BYTES;
	size_t length = 0;
	char *name;

	for (const char *at = test_name; *at && length < DIRECTORY_MAX_BYTES; at++) {
		is_same = is_same && is_plain(*at);
		plain[length++] = '_';
		if (is_plain(*at))
			plain[length - 1] = *at;
	}
	plain[length] = '\0';
	if (is_same)
		return strdup(plain);
	if (plain[0] == '.')
		plain[0] = '_';
	return asprintf(&name, "%s~%08x", plain, hash(test_name)) < 0 ? NULL : name;
}

static int fill_names(struct test_output *output, const struct test_plan *plan)
{
	output->names = calloc(plan->count + 1, sizeof(char *));
	if (!output->names)
		return -ENOMEM;
	output->count = plan->count;
	for (size_t i = 0; i < plan->count; i++) {
		output->names[i] = directory_name(plan->cases[i].name);
		if (!output->names[i])
			return -ENOMEM;
	}
	return 0;
}

static int make_fresh(struct test_output *output)
{
	const char *parent = getenv("TMPDIR");

	if (!parent || parent[0] != '/')
		parent = "/tmp";
	if (asprintf(&output->base, "%s/vmlet-test-XXXXXX", parent) < 0) {
		output->base = NULL;
		return -ENOMEM;
	}
	if (!mkdtemp(output->base))
		return -errno;
	output->is_fresh = true;
	return 0;
}

static int make_named(struct test_output *output, const char *path)
{
	if (mkdir(path, 0777) < 0 && errno != EEXIST)
		return -errno;
	output->base = realpath(path, NULL);
	if (!output->base || access(output->base, W_OK | X_OK) < 0)
		return -errno;
	return 0;
}

int test_output_open(struct test_output *output, const char *path, const struct test_plan *plan,
		     struct cli_error *error)
{
	int r;

	*output = (struct test_output){0};
	r = path ? make_named(output, path) : make_fresh(output);
	if (r == 0)
		r = fill_names(output, plan);
	if (r == 0)
		return 0;
	snprintf(error->text, sizeof(error->text), "the directory '%.200s' for the tests' output cannot be used: %s",
		 path           ? path
		 : output->base ? output->base
				: "",
		 strerror(-r));
	test_output_close(output);
	return r;
}

void test_output_close(struct test_output *output)
{
	if (output->is_fresh)
		rmdir(output->base); /* fails when something is in it */
	for (size_t i = 0; i < output->count; i++)
		free(output->names[i]);
	free(output->names);
	free(output->base);
	*output = (struct test_output){0};
}

static char *file_in(const char *directory, const char *name)
{
	char *path;

	return asprintf(&path, "%s/%s", directory, name) < 0 ? NULL : path;
}

static int name_files(struct test_attempt *attempt)
{
	attempt->status = file_in(attempt->directory, "status.json");
	attempt->events = file_in(attempt->directory, "events.jsonl");
	attempt->console = file_in(attempt->directory, "console.log");
	attempt->out = file_in(attempt->directory, "stdout");
	attempt->err = file_in(attempt->directory, "stderr");
	if (!attempt->status || !attempt->events || !attempt->console || !attempt->out || !attempt->err)
		return -ENOMEM;
	return 0;
}

static void remove_files(const struct test_attempt *attempt)
{
	unlink(attempt->status);
	unlink(attempt->events);
	unlink(attempt->console);
	unlink(attempt->out);
	unlink(attempt->err);
}

int test_output_begin(const struct test_output *output, size_t index, unsigned attempt,
		      struct test_attempt *ret_attempt)
{
	int r;

	*ret_attempt = (struct test_attempt){0};
	if (attempt == 1)
		ret_attempt->directory = file_in(output->base, output->names[index]);
	else if (asprintf(&ret_attempt->directory, "%s/%s~attempt%u", output->base, output->names[index], attempt) < 0)
		ret_attempt->directory = NULL;
	if (!ret_attempt->directory)
		return -ENOMEM;
	r = name_files(ret_attempt);
	if (r < 0)
		return r;
	if (mkdir(ret_attempt->directory, 0777) == 0)
		return 0;
	if (errno != EEXIST)
		return -errno;
	remove_files(ret_attempt);
	return 0;
}

void test_attempt_remove(const struct test_attempt *attempt)
{
	remove_files(attempt);
	rmdir(attempt->directory);
}

void test_attempt_free(struct test_attempt *attempt)
{
	free(attempt->directory);
	free(attempt->status);
	free(attempt->events);
	free(attempt->console);
	free(attempt->out);
	free(attempt->err);
	*attempt = (struct test_attempt){0};
}
