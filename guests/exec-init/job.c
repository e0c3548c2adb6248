#include "job.h"

#include <asm/errno.h>
#include <asm/fcntl.h>

#include "sys.h"

static long read_file(const char *path, char *data, size_t size_bytes)
{
	long fd = SYS_3(open, path, O_RDONLY | O_CLOEXEC, 0);
	size_t length = 0;
	long n = 1;

	if (fd < 0)
		return fd;
	while (n > 0 && length < size_bytes) {
		n = SYS_3(read, fd, data + length, size_bytes - length);
		length += n > 0 ? (size_t)n : 0;
	}
	SYS_1(close, fd);
	return n < 0 ? n : (long)length;
}

static long append(char **list, char *text)
{
	for (unsigned i = 0; i < JOB_WORDS_MAX; i++) {
		if (!list[i]) {
			list[i] = text;
			return 0;
		}
	}
	return -E2BIG;
}

static long take(struct job *job, char *text)
{
	switch (*text++) {
	case 'm':
		return append(job->modules, text);
	case 'a':
		return append(job->argv, text);
	case 'e':
		return append(job->envp, text);
	case 'p':
		job->path = text;
		return 0;
	case 'd':
		job->directory = text;
		return 0;
	case 't':
		job->terminal = true;
		return 0;
	case 'T':
		job->error_is_terminal = true;
		return 0;
	default:
		return -EINVAL;
	}
}

long job_read(struct job *job)
{
	long size = read_file("/.vmlet/job", job->strings, sizeof(job->strings));
	char *end = job->strings + size;

	if (size < 0)
		return size;
	if (size == 0 || end[-1] != '\0')
		return -EINVAL;
	for (char *text = job->strings; text < end; text += text_length(text) + 1) {
		long r = take(job, text);

		if (r < 0)
			return r;
	}
	return job->argv[0] ? 0 : -EINVAL;
}

const char *job_variable(const struct job *job, const char *name)
{
	for (char *const *variable = job->envp; *variable; variable++) {
		size_t length = text_length(name);

		if (text_has_prefix(*variable, name) && (*variable)[length] == '=')
			return *variable + length + 1;
	}
	return NULL;
}
