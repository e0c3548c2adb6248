/*
 * What is to be done: the file /.vmlet/job, which src/cli/exec_job.c writes. It is a row of strings, each ended by a
 * NUL; the first letter tells what the rest of it is.
 */
#pragma once

#include <stdbool.h>

enum {
	JOB_SIZE_MAX = 256 << 10, /* all strings together; src/cli/exec_job.h has the same numbers */
	JOB_WORDS_MAX = 8192,     /* arguments, variables, modules: of each */
};

struct job {
	char *modules[JOB_WORDS_MAX + 1]; /* 'm': files, in the order of loading; NULL ends each list */
	char *argv[JOB_WORDS_MAX + 1];    /* 'a' */
	char *envp[JOB_WORDS_MAX + 1];    /* 'e': NAME=VALUE */
	char *path;                       /* 'p': the program's file; NULL: argv[0], along PATH */
	char *directory;                  /* 'd': to run in */
	bool terminal;                    /* 't': standard input and output are a terminal ... */
	bool error_is_terminal;           /* 'T': ... and standard error is it too */
	char strings[JOB_SIZE_MAX];
};

/* 0, or -errno: the file cannot be read, -EINVAL: makes no sense. */
long job_read(struct job *job);

/* The variable's value, or NULL. */
const char *job_variable(const struct job *job, const char *name);
