/*
 * What makes of a run a test (struct contract_options): it ends in time, its console is watched and answered, and it
 * leaves a record of how it ended. In the order of the calls:
 *
 *	contract_open -> contract_fill -> vmlet_new -> contract_set_vm -> vmlet_start -> contract_serve
 *	-> vmlet_free -> contract_close
 */
#pragma once

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include <vmlet.h>

#include "cli/event_stream.h"
#include "cli/expect.h"
#include "cli/options.h"
#include "cli/outcome.h"
#include "cli/status_file.h"

enum { TYPED_MAX_BYTES = 256 << 10 };

struct contract {
	const struct contract_options *options;
	uint64_t started_ns;   /* when vmlet began; --timeout counts from there */
	struct vmlet *vm;      /* NULL: there is none yet */
	struct expect *expect; /* NULL: nothing watches */
	int console;           /* where it is typed, for vmlet_type */
	struct status_file status;
	struct event_stream events;
	int console_log;        /* -1: none, or it failed */
	int console_log_failed; /* -errno */
	struct vmlet_stats stats;
	void (*also_tap)(void *ctx, const uint8_t *data, size_t size_bytes); /* who watches too, or NULL */
	void *also_tap_ctx;
	int also_fd; /* -1: none */
	void (*also)(void *ctx);
	void *also_ctx;
	bool ran;    /* `stats` are a VM's */
	char *typed; /* allocated; sent, and not yet taken by the guest */
	size_t typed_bytes;
	volatile sig_atomic_t closing; /* the status file is being written */
};

/*
 * Begin: open and compile everything, so that a mistake is found before there is a VM, and set the deadline. 0, or
 * -errno with a sentence; contract_close is due in both cases.
 */
int contract_open(struct contract *contract, const struct contract_options *options, struct cli_error *error);

/*
 * The library's side of it. `watched` is what the guest's user looks and types at: a back end in `config`, of which
 * vmlet_type knows as `console`. It is filled already; a tap that it has goes on seeing all output.
 */
void contract_fill(struct contract *contract, struct vmlet_config *config, struct vmlet_serial *watched, int console);

/* From here on the VM is watched and typed to; NULL before it is freed. */
void contract_set_vm(struct contract *contract, struct vmlet *vm);

/* Call `act` whenever `fd` can be read, while the VM is served; borrowed. */
void contract_serve_also(struct contract *contract, int fd, void (*act)(void *ctx), void *ctx);

/* vmlet_run, with answers. 0 with both filled, or -errno. */
int contract_serve(struct contract *contract, struct outcome *ret_outcome);

/*
 * Write down how it ended, as the last thing that is done: `outcome` may become worse, when the record is not complete.
 * Returns the exit status.
 */
int contract_close(struct contract *contract, struct outcome *outcome);
