#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/exec_init.h"
#include "cli/exec_job.h"
#include "cli/initrd_cpio.h"
#include "cli/ld_cache.h"
#include "cli/program_elf.h"
#include "cli/program_files.h"

/* --- a reader of archives, by the rules of the kernel's initramfs.c ------------------------------------------ */

enum { HEADER_BYTES = 110 };

struct entry {
	unsigned ino, mode, nlink;
	const char *name;
	const unsigned char *data;
	size_t size_bytes;
};

struct archive {
	unsigned char *bytes;
	size_t size_bytes, at;
};

static struct archive read_archive(int fd)
{
	struct archive archive = {0};
	struct stat stat_;

	assert_int_equal(fstat(fd, &stat_), 0);
	archive.size_bytes = (size_t)stat_.st_size;
	archive.bytes = malloc(archive.size_bytes);
	assert_non_null(archive.bytes);
	assert_int_equal(pread(fd, archive.bytes, archive.size_bytes, 0), stat_.st_size);
	return archive;
}

static unsigned field(const struct archive *archive, unsigned index)
{
	char digits[9] = "";

	memcpy(digits, archive->bytes + archive->at + 6 + 8 * index, 8);
	assert_int_equal(strspn(digits, "0123456789ABCDEF"), 8);
	return (unsigned)strtoul(digits, NULL, 16);
}

/* 0: that was the trailer, and nothing follows it. */
static int next_entry(struct archive *archive, struct entry *ret)
{
	unsigned name_size, size;

	assert_int_equal(archive->at % 4, 0);
	assert_true(archive->size_bytes - archive->at >= HEADER_BYTES);
	assert_memory_equal(archive->bytes + archive->at, "070701", 6);
	name_size = field(archive, 11);
	size = field(archive, 6);
	*ret = (struct entry){field(archive, 0),
			      field(archive, 1),
			      field(archive, 4),
			      (const char *)archive->bytes + archive->at + HEADER_BYTES,
			      NULL,
			      size};
	assert_int_equal(strlen(ret->name) + 1, name_size);
	archive->at = (archive->at + HEADER_BYTES + name_size + 3) & ~3UL;
	ret->data = archive->bytes + archive->at;
	archive->at = (archive->at + size + 3) & ~3UL;
	assert_true(archive->at <= archive->size_bytes);
	if (strcmp(ret->name, "TRAILER!!!") != 0)
		return 1;
	assert_int_equal(archive->at, archive->size_bytes);
	return 0;
}

static struct entry find_entry(struct archive *archive, const char *name)
{
	struct entry entry;

	archive->at = 0;
	while (next_entry(archive, &entry))
		if (strcmp(entry.name, name) == 0)
			return entry;
	fail_msg("no %s in the archive", name);
	return entry;
}

static void assert_bytes(const struct entry *entry, const void *bytes, size_t size_bytes)
{
	assert_int_equal(entry->size_bytes, size_bytes);
	assert_memory_equal(entry->data, bytes, size_bytes);
}

/* --- archives ------------------------------------------------------------------------------------------------ */

static void test_archive(void **state)
{
	static const char *const names[] = {"a", "a/b", "a/b/one", "a/b/two", "d", "e"};
	struct initrd_cpio cpio;
	struct cli_error error;
	struct archive archive;
	struct entry entry;
	unsigned seen = 0;

	(void)state;
	assert_int_equal(initrd_cpio_init(&cpio), 0);
	initrd_cpio_add_bytes(&cpio, "/a/b/one", 0755, "x", 1);
	initrd_cpio_add_bytes(&cpio, "/a/b/two", 0600, "12345", 5);
	initrd_cpio_add_bytes(&cpio, "/a/b/two", 0600, "other", 5); /* once is enough */
	initrd_cpio_add_directory(&cpio, "/d", 01777);
	initrd_cpio_add_directory(&cpio, "/a", 0700);
	initrd_cpio_add_bytes(&cpio, "/e", 0644, "", 0);
	assert_int_equal(initrd_cpio_finish(&cpio, &error), 0);

	archive = read_archive(cpio.fd);
	while (next_entry(&archive, &entry)) {
		assert_true(seen < sizeof(names) / sizeof(names[0]));
		assert_string_equal(entry.name, names[seen]);
		assert_int_equal(entry.ino, seen++);
		assert_int_equal(entry.nlink, 1);
	}
	assert_int_equal(seen, sizeof(names) / sizeof(names[0]));
	assert_int_equal(find_entry(&archive, "a").mode, S_IFDIR | 0755);
	assert_int_equal(find_entry(&archive, "d").mode, S_IFDIR | 01777);
	entry = find_entry(&archive, "a/b/two");
	assert_int_equal(entry.mode, S_IFREG | 0600);
	assert_bytes(&entry, "12345", 5);
	free(archive.bytes);
	initrd_cpio_fini(&cpio);
}

static void test_archive_of_files(void **state)
{
	struct initrd_cpio cpio;
	struct cli_error error = {0};
	struct archive archive, self;
	struct entry entry;
	int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

	(void)state;
	assert_int_equal(initrd_cpio_init(&cpio), 0);
	initrd_cpio_add_file(&cpio, "/self", 0755, "/proc/self/exe");
	assert_int_equal(initrd_cpio_finish(&cpio, &error), 0);
	archive = read_archive(cpio.fd);
	self = read_archive(fd);
	entry = find_entry(&archive, "self");
	assert_bytes(&entry, self.bytes, self.size_bytes);
	free(archive.bytes);
	free(self.bytes);
	close(fd);
	initrd_cpio_fini(&cpio);
}

static void assert_file_refused(const char *path, int code)
{
	struct initrd_cpio cpio;
	struct cli_error error = {0};

	assert_int_equal(initrd_cpio_init(&cpio), 0);
	initrd_cpio_add_file(&cpio, "/x", 0755, path);
	initrd_cpio_add_file(&cpio, "/y", 0755, "/proc/self/exe");
	assert_int_equal(initrd_cpio_finish(&cpio, &error), code);
	assert_non_null(strstr(error.text, path));
	initrd_cpio_fini(&cpio);
}

static void test_archive_of_no_file(void **state)
{
	(void)state;
	assert_file_refused("/nonexistent/file", -ENOENT);
	assert_file_refused("/proc", -EISDIR);
	assert_file_refused("/dev/null", -EINVAL);
}

/* --- ELF files ------------------------------------------------------------------------------------------------ */

/* A program with an interpreter and these dynamic entries, laid out as simply as can be: address is offset. */
struct fake_elf {
	Elf64_Ehdr header;
	Elf64_Phdr segments[3];
	char interpreter[32];
	Elf64_Dyn dynamic[6];
	char strings[64];
};

static struct fake_elf fake_elf(void)
{
	struct fake_elf elf = {
		.header = {.e_machine = EM_X86_64,
			   .e_phoff = offsetof(struct fake_elf, segments),
			   .e_phentsize = sizeof(Elf64_Phdr),
			   .e_phnum = 3},
		.segments = {{.p_type = PT_LOAD, .p_filesz = sizeof(elf)},
			     {.p_type = PT_INTERP, .p_offset = offsetof(struct fake_elf, interpreter), .p_filesz = 32},
			     {.p_type = PT_DYNAMIC,
			      .p_offset = offsetof(struct fake_elf, dynamic),
			      .p_filesz = sizeof(elf.dynamic)}},
		.interpreter = "/lib/ld.so",
		.dynamic = {{DT_NEEDED, {1}},
			    {DT_STRTAB, {offsetof(struct fake_elf, strings)}},
			    {DT_RPATH, {20}},
			    {DT_RUNPATH, {30}},
			    {DT_NEEDED, {10}},
			    {DT_NULL, {0}}},
		.strings = "\0liba.so\0\0libb.so\0\0\0old\0\0\0\0\0\0\0$ORIGIN/lib",
	};

	memcpy(elf.header.e_ident, ELFMAG, SELFMAG);
	elf.header.e_ident[EI_CLASS] = ELFCLASS64;
	return elf;
}

static int read_fake(struct program_elf *elf, const struct fake_elf *fake)
{
	return program_elf_read(elf, (const unsigned char *)fake, sizeof(*fake));
}

static void test_elf(void **state)
{
	struct fake_elf fake = fake_elf();
	struct program_elf elf;

	(void)state;
	assert_true(program_elf_is((const unsigned char *)&fake, sizeof(fake)));
	assert_int_equal(read_fake(&elf, &fake), 0);
	assert_string_equal(elf.interpreter, "/lib/ld.so");
	assert_int_equal(elf.need_count, 2);
	assert_string_equal(elf.needs[0], "liba.so");
	assert_string_equal(elf.needs[1], "libb.so");
	assert_string_equal(elf.runpath, "$ORIGIN/lib");
}

static void test_elf_of_others(void **state)
{
	struct fake_elf fake = fake_elf();
	struct program_elf elf;

	(void)state;
	fake.header.e_machine = EM_AARCH64;
	assert_int_equal(read_fake(&elf, &fake), -ENOEXEC);
	fake = fake_elf();
	fake.header.e_ident[EI_CLASS] = ELFCLASS32;
	assert_int_equal(read_fake(&elf, &fake), -ENOEXEC);
}

/* However it is cut off or spoilt, nothing is read outside: the copy is as large as the file (see the sanitizer). */
static void test_elf_broken(void **state)
{
	struct fake_elf fake = fake_elf();
	struct program_elf elf;

	(void)state;
	for (size_t size = 0; size < sizeof(fake); size++) {
		unsigned char *copy = malloc(size + 1);

		assert_non_null(copy);
		memcpy(copy, &fake, size);
		copy = realloc(copy, size ? size : 1);
		(void)program_elf_read(&elf, copy, size);
		free(copy);
	}
	for (size_t at = SELFMAG; at < sizeof(fake); at++) {
		fake = fake_elf();
		((unsigned char *)&fake)[at] = 0xff;
		(void)read_fake(&elf, &fake);
	}
	fake = fake_elf();
	fake.dynamic[0].d_un.d_val = UINT64_MAX;
	assert_int_equal(read_fake(&elf, &fake), -EINVAL);
	fake = fake_elf();
	fake.segments[2].p_offset = UINT64_MAX - 8;
	assert_int_equal(read_fake(&elf, &fake), -EINVAL);
	fake = fake_elf();
	memset(fake.strings, 'x', sizeof(fake.strings)); /* no string ends */
	assert_int_equal(read_fake(&elf, &fake), -EINVAL);
}

/* --- programs ------------------------------------------------------------------------------------------------- */

static void assert_clean(const char *path, const char *clean)
{
	char text[64];

	snprintf(text, sizeof(text), "%s", path);
	program_path_clean(text);
	assert_string_equal(text, clean);
}

static void test_path_clean(void **state)
{
	(void)state;
	assert_clean("/a/b", "/a/b");
	assert_clean("//a/.//b/", "/a/b");
	assert_clean("/a/../b", "/b");
	assert_clean("/a/b/c/../../d", "/a/d");
	assert_clean("/../..", "/");
	assert_clean("/a/..", "/");
	assert_clean("/a/...b/..c", "/a/...b/..c");
}

static bool has_file(const struct program_files *files, const char *part)
{
	for (size_t i = 0; i < files->count; i++)
		if (strstr(files->items[i].guest_path, part))
			return true;
	return false;
}

/* This test is linked with cmocka and libc; ldd would say the same. */
static void test_program(void **state)
{
	struct program_files files;
	struct cli_error error = {0};
	char self[4096] = "";

	(void)state;
	assert_true(readlink("/proc/self/exe", self, sizeof(self) - 1) > 0);
	assert_int_equal(program_files_find(&files, "/proc/self/exe", "", &error), 0);
	assert_string_equal(files.items[0].guest_path, self);
	assert_true(has_file(&files, "/libcmocka.so"));
	assert_true(has_file(&files, "/libc.so") || has_file(&files, "/ld-musl"));
	assert_true(has_file(&files, "/ld-"));
	for (size_t i = 0; i < files.count; i++)
		for (size_t j = 0; j < i; j++)
			assert_string_not_equal(files.items[i].guest_path, files.items[j].guest_path);
	program_files_free(&files);
}

static void assert_not_found(const char *command, const char *path, int status, const char *word)
{
	struct program_files files;
	struct cli_error error = {0};

	assert_int_equal(program_files_find(&files, command, path, &error), status);
	if (!strstr(error.text, word))
		fail_msg("no \"%s\" in \"%s\"", word, error.text);
	program_files_free(&files);
}

static void test_no_program(void **state)
{
	(void)state;
	assert_not_found("no-such-command", "/usr/bin:/bin", 127, "no-such-command");
	assert_not_found("sh", "/nonexistent", 127, "sh");
	assert_not_found("/nonexistent/sh", "/bin", 127, "/nonexistent/sh");
	assert_not_found("/etc/passwd", "/bin", 126, "no executable");
	assert_not_found("/proc", "/bin", 126, "no executable");
}

static void write_script(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
}

static void test_script(void **state)
{
	char directory[] = "/tmp/vmlet-test-XXXXXX", script[64], middle[64], text[256];
	struct program_files files;
	struct cli_error error = {0};

	(void)state;
	assert_non_null(mkdtemp(directory));
	snprintf(script, sizeof(script), "%s/script", directory);
	snprintf(middle, sizeof(middle), "%s/middle", directory);
	snprintf(text, sizeof(text), "#! %s -x\nhello\n", middle);
	write_script(script, text);
	write_script(middle, "#!/usr/bin/env sh\n");
	assert_int_equal(program_files_find(&files, script, "/usr/bin:/bin", &error), 0);
	assert_string_equal(files.items[0].host_path, script);
	assert_true(has_file(&files, "/middle"));
	assert_true(has_file(&files, "/usr/bin/env"));
	assert_true(has_file(&files, "/bin/sh"));
	assert_true(has_file(&files, "/ld-"));
	program_files_free(&files);

	write_script(middle, "#!/nonexistent/interpreter\n");
	assert_not_found(script, "/bin", 126, "/nonexistent/interpreter");
	write_script(middle, "#!/usr/bin/env no-such-command\n");
	assert_not_found(script, "/bin", 126, "no-such-command");
	unlink(script);
	unlink(middle);
	rmdir(directory);
}

/* --- the linker's cache ----------------------------------------------------------------------------------------- */

static void test_ld_cache(void **state)
{
	unsigned char bytes[48 + 2 * 24 + 64] = "glibc-ld.so.cache1.1";
	const uint32_t count = 2, entries[2][6] = {{0x0303, 96, 105, 0, 1, 0}, {0x0303, 96, 120, 0, 0, 0}};
	char path[] = "/tmp/vmlet-test-XXXXXX";
	struct ld_cache cache;
	int fd = mkstemp(path);

	(void)state;
	memcpy(bytes + 20, &count, 4);
	memcpy(bytes + 48, entries, sizeof(entries));
	memcpy(bytes + 96, "libx.so\0", 8);
	memcpy(bytes + 105, "/fast/libx.so", 14);
	memcpy(bytes + 120, "/lib/libx.so", 13);
	assert_int_equal(write(fd, bytes, sizeof(bytes)), sizeof(bytes));
	ld_cache_open(&cache, path);
	assert_non_null(cache.file);
	assert_string_equal(ld_cache_find(&cache, "libx.so"), "/lib/libx.so"); /* for every CPU */
	assert_null(ld_cache_find(&cache, "liby.so"));
	ld_cache_close(&cache);

	bytes[23] = 0xff; /* more libraries than bytes */
	assert_int_equal(pwrite(fd, bytes, sizeof(bytes), 0), sizeof(bytes));
	ld_cache_open(&cache, path);
	assert_null(ld_cache_find(&cache, "libx.so"));
	ld_cache_close(&cache);
	close(fd);
	unlink(path);
	ld_cache_open(&cache, path);
	assert_null(ld_cache_find(&cache, "libx.so"));
	ld_cache_close(&cache);
}

/* --- the job ------------------------------------------------------------------------------------------------------ */

static const char *const host_environment[] = {"PATH=/usr/bin:/bin", "TERM=vt100", "SECRET=1", "LANG=C", NULL};

/* With an initrd, so that no program is looked for; the strings are joined by newlines. */
static void assert_job(const struct options *options, struct exec_terminal terminal, const char *expected)
{
	struct initrd_cpio cpio;
	struct cli_error error = {0};
	struct archive archive;
	struct entry entry;
	char text[1024];

	assert_int_equal(exec_job_write(options, &terminal, host_environment, &cpio, &error), 0);
	archive = read_archive(cpio.fd);
	entry = find_entry(&archive, ".vmlet/init");
	assert_bytes(&entry, exec_init_elf, exec_init_elf_size);
	assert_int_equal(entry.mode, S_IFREG | 0755);
	entry = find_entry(&archive, ".vmlet/job");
	assert_true(entry.size_bytes < sizeof(text));
	for (size_t i = 0; i < entry.size_bytes; i++)
		text[i] = entry.data[i] ? (char)entry.data[i] : '\n';
	text[entry.size_bytes] = '\0';
	assert_string_equal(text, expected);
	free(archive.bytes);
	initrd_cpio_fini(&cpio);
}

static void test_job(void **state)
{
	static const char *const command[] = {"sh", "-c", "", NULL};
	static const char *initrds[] = {"initrd"};
	static const char *variables[] = {"A=1", "HOME=/x", "LANG", "NOT_SET", "A=2=3"};
	struct options options = {.initrds = initrds, .initrd_count = 1, .exec.command = command};
	struct exec_terminal none = {0}, terminal = {.stdio = true, .error = true};

	(void)state;
	assert_job(
		&options, none,
		"ePATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\neHOME=/root\nash\na-c\na\nd/\n");
	options.exec.variables = (struct string_list){variables, 5};
	options.exec.directory = "/tmp";
	assert_job(&options, terminal,
		   "ePATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\neTERM=vt100\neHOME=/x\n"
		   "eLANG=C\neA=2=3\nash\na-c\na\nd/tmp\nt\nT\n");
}

static void test_job_too_large(void **state)
{
	static char word[EXEC_JOB_SIZE_MAX];
	const char *const command[] = {"sh", word, NULL};
	static const char *initrds[] = {"initrd"};
	struct options options = {.initrds = initrds, .initrd_count = 1, .exec.command = command};
	struct exec_terminal none = {0};
	struct initrd_cpio cpio;
	struct cli_error error = {0};

	(void)state;
	memset(word, 'x', sizeof(word) - 1);
	assert_int_equal(exec_job_write(&options, &none, host_environment, &cpio, &error), -E2BIG);
	assert_non_null(strstr(error.text, "256 KiB"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_archive),
		cmocka_unit_test(test_archive_of_files),
		cmocka_unit_test(test_archive_of_no_file),
		cmocka_unit_test(test_elf),
		cmocka_unit_test(test_elf_of_others),
		cmocka_unit_test(test_elf_broken),
		cmocka_unit_test(test_path_clean),
		cmocka_unit_test(test_program),
		cmocka_unit_test(test_no_program),
		cmocka_unit_test(test_script),
		cmocka_unit_test(test_ld_cache),
		cmocka_unit_test(test_job),
		cmocka_unit_test(test_job_too_large),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
