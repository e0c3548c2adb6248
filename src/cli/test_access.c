#include "cli/test_access.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/console_option.h"
#include "cli/device_option.h"
#include "cli/disk_option.h"
#include "cli/net_option.h"

/* Allocated, with room for one character more: `path` as it is from here. */
static char *resolve(const char *file_path, const char *path)
{
	const char *slash = strrchr(file_path, '/');
	size_t prefix = slash && path[0] != '/' ? (size_t)(slash - file_path) + 1 : 0;
	char *resolved = malloc(prefix + strlen(path) + 2);

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

/* Something will be made there. */
static int check_directory(const struct test_case *test, const struct test_value *value, const char *path,
			   struct cli_error *error)
{
	char *resolved = resolve(test->file->path, path), *slash = resolved ? strrchr(resolved, '/') : NULL;
	int r = resolved ? 0 : -ENOMEM;

	if (slash)
		memcpy(slash + 1, ".", 2); /* so that it must be a directory */
	if (r == 0 && access(slash ? resolved : ".", W_OK | X_OK) < 0)
		r = -errno;
	free(resolved);
	if (r == 0)
		return 0;
	return test_file_fail(test->file->path, value->line, error, "%s '%.200s' cannot be made: %s", value->key->name,
			      path, strerror(-r));
}

/* What is in `items` is one device. */
static int check_item(const struct test_case *test, const struct test_value *value, enum device device,
		      const void *items, struct cli_error *error)
{
	const struct disk_option *disk = items;
	const struct net_option *net = items;
	const struct console_option *console = items;
	const struct vsock_option *vsock = items;

	switch (device) {
	case DEVICE_DISK:
		return disk->kind == VMLET_DISK_RAW ? check_path(test, value, disk->path, error) : 0;
	case DEVICE_NET:
		if (net->kind == VMLET_NET_STREAM)
			return check_path(test, value, net->path, error);
		return net->kind == VMLET_NET_LISTEN ? check_directory(test, value, net->path, error) : 0;
	case DEVICE_CONSOLE:
		return console->path ? check_directory(test, value, console->path, error) : 0;
	case DEVICE_VSOCK:
		return check_directory(test, value, vsock->path, error);
	case DEVICE_BALLOON:
	case DEVICE_RNG:
	case DEVICE_KINDS:
	default:
		return 0;
	}
}

static int check_device(const struct test_case *test, const struct test_value *value, enum device device,
			struct cli_error *error)
{
	struct cli_error why;
	void *items = NULL;
	int r = settings_parse(device_kinds[device], &value->value, 1, &items, &why);

	if (r < 0)
		return test_file_fail(test->file->path, value->line, error, "%s", why.text);
	r = check_item(test, value, device, items, error);
	settings_free(device_kinds[device], items, 1);
	return r;
}

/* DEVICE_KINDS: the key describes none. */
static enum device device_of(const struct test_key *key)
{
	enum device device = 0;

	while (device < DEVICE_KINDS && strcmp(device_kinds[device]->option + 2, key->name) != 0)
		device++;
	return device;
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
		enum device device = device_of(value->key);
		int r = 0;

		if (names_a_file(value->key))
			r = check_path(test, value, value->value, error);
		else if (device != DEVICE_KINDS)
			r = check_device(test, value, device, error);
		if (r < 0)
			return r;
	}
	return 0;
}
