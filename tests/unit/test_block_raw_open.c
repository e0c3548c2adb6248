/* What can be a raw disk, and what is refused with which sentence: kinds of files, locks, permissions, other formats.
 */
#include "test_block_raw_disk.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>

enum { SECTOR = BLOCK_SECTOR_BYTES, DISK_BYTES = 64 << 10, NOBODY = 65534 };

static void check_refused_as(const struct block_raw_config *config, int code, const char *words)
{
	struct block *block = open_with(config);
	if (block) {
		block_free(block);
		fail_msg("opened: %s", config->path);
	}
	assert_int_equal(err.code, code);
	assert_true(strncmp(err.text, "disk '", 6) == 0);
	assert_non_null(strstr(err.text, config->path));
	if (!strstr(err.text, words))
		fail_msg("\"%s\" is not in: %s", words, err.text);
}

static void check_refused(const char *name, int code, const char *words)
{
	check_refused_as(&(struct block_raw_config){.path = name}, code, words);
	check_refused_as(&(struct block_raw_config){.path = name, .read_only = true}, code, words);
}

static void what_is_no_file_is_refused(void **state)
{
	(void)state;
	make_file(DISK_BYTES);
	check_refused("/nonexistent/x.img", -ENOENT, "No such file");
	check_refused("", -ENOENT, "No such file");
	check_refused(dir, -EISDIR, "a directory");
	check_refused("/dev/null", -EINVAL, "neither a regular file nor a block device");
	unlink(path);
	assert_int_equal(mkfifo(path, 0600), 0);
	check_refused(path, -EINVAL, "neither a regular file nor a block device"); /* and does not wait for a peer */
}

/* Root may write everything: be somebody else for a while. */
static bool become_nobody(void)
{
	return geteuid() != 0 || (chmod(dir, 0755) == 0 && seteuid(NOBODY) == 0);
}

static void what_cannot_be_written_can_be_read(void **state)
{
	(void)state;
	make_file(DISK_BYTES);
	assert_int_equal(fchmod(file, 0444), 0);
	assert_true(become_nobody());
	check_refused_as(&(struct block_raw_config){.path = path}, -EACCES, "use ,ro, or ,overlay");
	struct block *block = open_with(&(struct block_raw_config){.path = path, .read_only = true});
	assert_int_equal(seteuid(getuid()), 0);
	assert_non_null(block);
	block_free(block);
}

static void what_cannot_be_read_either_has_no_such_advice(void **state)
{
	(void)state;
	make_file(DISK_BYTES);
	assert_int_equal(fchmod(file, 0), 0);
	assert_true(become_nobody());
	check_refused(path, -EACCES, strerror(EACCES));
	assert_null(strstr(err.text, ",ro"));
	assert_int_equal(seteuid(getuid()), 0);
}

/* --- locks ---------------------------------------------------------------------------------------------------- */

static void one_writer_or_many_readers(void **state)
{
	(void)state;
	make_file(DISK_BYTES);
	const struct block_raw_config writer = {.path = path}, reader = {.path = path, .read_only = true};
	open_disk();
	check_refused_as(&writer, -EBUSY, "somebody writes to it");
	check_refused_as(&reader, -EBUSY, "somebody writes to it");
	assert_non_null(strstr(err.text, "use ,ro or ,overlay"));
	close_disk(); /* gives the lock back */

	disk = open_with(&reader);
	assert_non_null(disk);
	struct block *second = open_with(&reader);
	assert_non_null(second);
	check_refused_as(&writer, -EBUSY, "somebody reads it");
	close_disk();
	check_refused_as(&writer, -EBUSY, "somebody reads it");
	block_free(second);
	open_disk();
}

/* What is refused for another reason leaves no lock. */
static void a_refusal_leaves_no_lock(void **state)
{
	(void)state;
	make_file(DISK_BYTES);
	assert_int_equal(pwrite(file, "QFI\xfb", 4, 0), 4);
	check_refused(path, -EINVAL, "qcow2");
	assert_int_equal(pwrite(file, "\0", 1, 0), 1);
	open_disk();
}

/* In a child: take a lock of `type` on the file, say whether it was granted, and keep it until told to end. */
static pid_t start_locker(short type, bool *ret_granted, int *ret_end_fd)
{
	int answer[2], end[2];
	assert_int_equal(pipe2(answer, O_CLOEXEC), 0);
	assert_int_equal(pipe2(end, O_CLOEXEC), 0);
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		close(end[1]);
		struct flock lock = {.l_type = type, .l_whence = SEEK_SET};
		int fd = open(path, O_RDWR | O_CLOEXEC);
		char granted = fd >= 0 && fcntl(fd, F_OFD_SETLK, &lock) == 0;
		(void)!write(answer[1], &granted, 1);
		(void)!read(end[0], &granted, 1);
		_exit(0);
	}
	char granted;
	assert_int_equal(read(answer[0], &granted, 1), 1);
	close(answer[0]);
	close(answer[1]);
	close(end[0]);
	*ret_granted = granted;
	*ret_end_fd = end[1];
	return pid;
}

static void end_locker(pid_t pid, int end_fd)
{
	close(end_fd);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void processes_see_each_others_locks(void **state)
{
	(void)state;
	make_file(DISK_BYTES);
	bool granted;
	int end_fd;
	pid_t pid = start_locker(F_WRLCK, &granted, &end_fd);
	assert_true(granted);
	check_refused(path, -EBUSY, "somebody writes to it");
	end_locker(pid, end_fd);

	pid = start_locker(F_RDLCK, &granted, &end_fd);
	assert_true(granted);
	check_refused_as(&(struct block_raw_config){.path = path}, -EBUSY, "somebody reads it");
	end_locker(pid, end_fd);

	disk = open_with(&(struct block_raw_config){.path = path, .read_only = true});
	assert_non_null(disk);
	pid = start_locker(F_WRLCK, &granted, &end_fd);
	assert_false(granted);
	end_locker(pid, end_fd);
	pid = start_locker(F_RDLCK, &granted, &end_fd);
	assert_true(granted);
	end_locker(pid, end_fd);
}

/* --- other formats ---------------------------------------------------------------------------------------------- */

struct format {
	size_t offset, size;
	const char *bytes, *name, *command;
};

static const struct format FORMATS[] = {
	{0, 4, "QFI\xfb", "a qcow2 image", "--format=qcow2"},
	{0, 4, "KDMV", "a VMDK image", "--format=vmdk"},
	{0, 21, "# Disk DescriptorFile", "a VMDK image", "--format=vmdk"},
	{0, 8, "vhdxfile", "a VHDX image", "--format=vhdx"},
	{0, 8, "conectix", "a VHD image", "--format=vpc"},
	{0x40, 4, "\x7f\x10\xda\xbe", "a VDI image", "--format=vdi"},
};

static void other_formats_are_refused_with_the_command(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(FORMATS); i++) {
		const struct format *f = &FORMATS[i];
		make_file(DISK_BYTES);
		assert_int_equal(pwrite(file, f->bytes, f->size, (off_t)f->offset), f->size);
		check_refused(path, -EINVAL, f->name);
		check_refused(path, -EINVAL, "qemu-nbd --socket=");
		check_refused(path, -EINVAL, f->command);
		check_refused(path, -EINVAL, "--disk nbd=unix:");
		check_refused_as(&(struct block_raw_config){.path = path, .direct = true}, -EINVAL, "");
		/* Somewhere else it is data. */
		make_file(DISK_BYTES);
		assert_int_equal(pwrite(file, f->bytes, f->size, (off_t)f->offset + 1), f->size);
		assert_int_equal(pwrite(file, f->bytes, f->size - 1, SECTOR + (off_t)f->offset), f->size - 1);
		open_disk();
		close_disk();
		/* As is most of it. */
		make_file(DISK_BYTES);
		assert_int_equal(pwrite(file, f->bytes, f->size - 1, (off_t)f->offset), f->size - 1);
		open_disk();
		close_disk();
	}
}

/* A file of one sector is shorter than what the guard reads. */
static void a_small_file_is_looked_at_too(void **state)
{
	(void)state;
	make_file(SECTOR);
	open_disk();
	close_disk();
	assert_int_equal(pwrite(file, "QFI\xfb", 4, 0), 4);
	check_refused(path, -EINVAL, "qcow2");
}

/* The longest of names fits no sentence; it is cut, and nothing else is. */
static void a_long_path_cuts_the_sentence(void **state)
{
	(void)state;
	make_file(DISK_BYTES);
	char name[3000];
	memset(name, '/', sizeof(name));
	(void)snprintf(name + sizeof(name) - sizeof(path), sizeof(path), "%s", path);
	assert_int_equal(pwrite(file, "QFI\xfb", 4, 0), 4);
	assert_null(open_with(&(struct block_raw_config){.path = name}));
	assert_int_equal(err.code, -EINVAL);
	assert_true(strlen(err.text) < sizeof(err.text));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(what_is_no_file_is_refused),
		TEST(what_cannot_be_written_can_be_read),
		TEST(what_cannot_be_read_either_has_no_such_advice),
		TEST(one_writer_or_many_readers),
		TEST(a_refusal_leaves_no_lock),
		TEST(processes_see_each_others_locks),
		TEST(other_formats_are_refused_with_the_command),
		TEST(a_small_file_is_looked_at_too),
		TEST(a_long_path_cuts_the_sentence),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
