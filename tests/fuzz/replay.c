/* Run a fuzz target over every file of a corpus directory, without a fuzzer: a regression test. */
#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay_file(int dir_fd, const char *name)
{
	int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC);
	struct stat st;
	if (fd < 0 || fstat(fd, &st) < 0)
		return -1;

	/* Exactly as large as the file, so that a sanitizer sees a read beyond its end. */
	size_t size = (size_t)st.st_size;
	uint8_t *data = malloc(size ? size : 1);
	ssize_t got = data ? read(fd, data, size) : -1;
	close(fd);
	if (got == (ssize_t)size)
		LLVMFuzzerTestOneInput(data, size);
	free(data);
	return got == (ssize_t)size ? 0 : -1;
}

int main(int argc, char **argv)
{
	DIR *dir = argc == 2 ? opendir(argv[1]) : NULL;
	if (!dir) {
		fprintf(stderr, "usage: replay DIRECTORY\n");
		return 2;
	}
	int count = 0, failures = 0;
	for (struct dirent *entry; (entry = readdir(dir));) {
		if (entry->d_type == DT_DIR)
			continue;
		count++;
		if (replay_file(dirfd(dir), entry->d_name) < 0) {
			perror(entry->d_name);
			failures++;
		}
	}
	closedir(dir);
	printf("%d inputs\n", count);
	return failures || !count;
}
