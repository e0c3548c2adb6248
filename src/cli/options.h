/*
 * The command line: a table of options, and a parser that turns arguments into a `struct options`.
 *
 * Parsing is pure: it opens nothing, prints nothing and has no state, so that a mistake is found before anything
 * is created, and a fuzzer can drive it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vmlet.h>

enum command {
	COMMAND_RUN,
	COMMAND_EXEC,
	COMMAND_TEST,
	COMMAND_VERSION,
	COMMAND_HELP,
};

/* What --disk and the like describe, each by the values of one option. */
enum device {
	DEVICE_DISK,
	DEVICE_NET,
	DEVICE_CONSOLE,
	DEVICE_BALLOON, /* this and those after it: at most one of each */
	DEVICE_VSOCK,
	DEVICE_RNG,
	DEVICE_KINDS,
};

/* Borrowed strings in an allocated array, in the order given. */
struct string_list {
	const char **items;
	size_t count;
};

struct device_values {
	struct string_list values; /* what the option was given */
	void *items; /* the same parsed, by device_kinds (cli/device_option.h); NULL when there are none */
};

/*
 * What makes of a run a test: when it is over, and what it leaves behind (docs/vmlet.1, TESTS). cli/contract.h compiles
 * the expressions.
 */
struct contract_options {
	uint64_t timeout_ns; /* 0: none */
	struct string_list expects, fail_ons;
	struct string_list sends;     /* "REGEX=>TEXT" */
	const char *script_path;      /* NULL: none, like those below */
	const char *console_log_path; /* what the console prints, beside where the serial port goes */
	const char *status_path;      /* docs/status-file.md */
	const char *events_target;    /* a path, or "fd:N" */
};

/* The command that `vmlet exec` runs in the guest. */
struct exec_options {
	const char *const *command;   /* the rest of argv, ended by NULL */
	struct string_list modules;   /* files, in the order of loading */
	struct string_list variables; /* NAME=VALUE, or NAME for the host's value */
	const char *directory;        /* NULL: "/" */
};

/* Strings are borrowed from argv unless they are said to be allocated. */
struct options {
	enum command command;
	const char *help_topic;       /* NULL: the overview */
	const char *const *test_args; /* of COMMAND_TEST: what follows it (cli/test_options.h) */
	size_t test_arg_count;

	const char *kernel;
	const char **initrds; /* allocated array, in the order given */
	size_t initrd_count;
	struct device_values devices[DEVICE_KINDS];
	enum vmlet_transport transport;
	unsigned iothreads;
	char *cmdline;         /* allocated; NULL: none */
	uint64_t memory_bytes; /* 0: the library's default */
	unsigned cpus;         /* 0: the library's default */
	char *cpu_features;    /* allocated; NULL: none */
	enum vmlet_boot_protocol boot;
	enum vmlet_on_reboot on_reboot;
	enum vmlet_serial_kind serial; /* VMLET_SERIAL_FD: standard input and output */
	const char *serial_path;
	bool serial_is_given;
	enum vmlet_serial_kind debugcon; /* VMLET_SERIAL_FD: standard error */
	const char *debugcon_path;
	enum vmlet_log_level log_level;
	const char *log_path; /* NULL: standard error */
	struct contract_options contract;
	struct exec_options exec;
};

/* One sentence for the user, without "vmlet: " and newline. */
struct cli_error {
	char text[512];
};

/* What `run` and `exec` understand; help is made from it too. */
struct option_spec {
	const char *name;    /* after "--" */
	char letter;         /* after "-"; 0: none */
	const char *metavar; /* what the value is called; NULL: takes none */
	const char *help;    /* one line; NULL: another name of the option before, not listed */
	const char *accepts; /* which values there are, for the sentence that refuses one */
	int (*apply)(struct options *options, const char *value); /* 0, -EINVAL, -ENOMEM */
	const char *topic;   /* the topic of help that lists it; NULL: "run"; only "exec" has those of "exec" */
	bool may_lack_value; /* then it takes one after "=" only, and without one it is "on" */
};

/* Ends with a NULL name. */
extern const struct option_spec options_table[];

/*
 * Fill `options` from argv[1]..., which ends with NULL; argv[0] is not looked at. 0: options_free it when done. -EINVAL
 * with the sentence in `error`, or -ENOMEM likewise: nothing needs freeing.
 */
int options_parse(struct options *options, int argc, const char *const *argv, struct cli_error *error);
void options_free(struct options *options);
