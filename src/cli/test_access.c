#include "cli/test_access.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/disk_option.h"

/* Allocated: `path` as it is from here. */
static char *resolve(const char *file_path, const char *path)
{
	const char *slash = strrchr(file_path, '/');
	size_t prefix = slash && path[0] != '/' ? (size_t)(slash - file_path) + 1 : 0;
	char *resolved = malloc(prefix + strlen(path) + 1);

	if (!resolved)
		return NULL;
	memcpy(resolved, file_path, prefix);
	memcpy(resolved + prefix, path, strlen(path) + 1);
	return resolved;
}

static int check_path(const struct test_case *test, const struct test_value *value, const char *path,
		      struct cli_error *error)
{
	char *resolved = resolve(test->file->path, path);
	struct stat st;
	int r = resolved ? 0 : -ENOMEM;

	if (resolved && (access(resolved, R_OK) < 0 || stat(resolved, &st) < 0))
		r = -errno;
	else if (resolved && S_ISDIR(st.st_mode))
		r = -EISDIR;
	free(resolved);
	if (r == 0)
		return 0;
	return test_file_fail(test->file->path, value->line, error, "%s '%.200s' cannot be read: %s", value->key->name,
			      path, strerror(-r));
}

static int check_disk(const struct test_case *test, const struct test_value *value, struct cli_error *error)
{
	struct disk_option *disks = NULL;
	struct cli_error why;
	int r = disk_options_parse(&value->value, 1, &disks, &why);

	if (r < 0)
		return test_file_fail(test->file->path, value->line, error, "%s", why.text);
	if (disks->kind == VMLET_DISK_RAW)
		r = check_path(test, value, disks->path, error);
	disk_options_free(disks, 1);
	return r;
}

static bool names_a_file(const struct test_key *key)
{
	return key->id == TEST_KEY_KERNEL || key->id == TEST_KEY_MODULE || strcmp(key->name, "initrd") == 0 ||
	       strcmp(key->name, "script") == 0;
}

int test_access_check(const struct test_case *test, struct cli_error *error)
{
	for (size_t i = 0; i < test->value_count; i++) {
		const struct test_value *value = &test->values[i];
		int r = 0;

		if (names_a_file(value->key))
			r = check_path(test, value, value->value, error);
		else if (strcmp(value->key->name, "disk") == 0)
			r = check_disk(test, value, error);
		if (r < 0)
			return r;
	}
	return 0;
}
