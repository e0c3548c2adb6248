/* Between api.c (what a VM is made of), api_devices.c (its devices while it runs) and api_run.c (serving it, until its
 * end). */
#pragma once

#include "vmlet.h"

#include <stdatomic.h>

#include "arch/board.h"
#include "disks.h"
#include "err.h"
#include "events.h"
#include "loader/loader.h"
#include "log.h"
#include "loop.h"
#include "nets.h"
#include "street.h"
#include "vm.h"
#include "vsock_host.h"

/* What a guest's restart makes anew; everything else of a struct vmlet outlives it. */
struct machine {
	struct gmem *gmem;
	struct vm vm;
	bool has_vm;
	struct board *board;
};

struct vmlet {
	struct vmlet_config config; /* owned: config.h */

	struct log log;
	struct loop *loop;
	struct events events;
	struct street street;
	struct image kernel;
	struct image *initrds;
	unsigned initrd_count; /* open */
	struct disks disks;
	struct nets nets;
	struct vsock_host *vsock_host; /* NULL: no vsock */

	struct machine machine;
	bool started;
	struct loop_timer timeout_timer;
	bool timed_out;

	/* vmlet_stop may run in a signal handler: one word, no lock. */
	_Atomic uint64_t stop; /* 0, or STOP_REQUESTED and the first caller's value */

	struct vmlet_result result;
	struct loop_timer drain_timer;
	size_t drain_pending; /* at the last look */
	bool drained;
	bool end_told;

	struct vmlet_stats stats; /* console_bytes and restarts: see vmlet_get_stats */
};

/* api.c: a fresh machine from the configuration; also after a failure api_machine_free is due. [owner] */
int api_machine_create(struct vmlet *vm, struct err *err);
void api_machine_free(struct machine *machine);
void api_copy_error(struct vmlet_error *to, const struct err *from); /* `to` may be NULL */

/* api_run.c. An event, and for the first of its kind the time; `first_ns` may be NULL. [owner] */
void api_tell(struct vmlet *vm, enum vmlet_event_kind kind, uint64_t *first_ns, uint64_t ns, const char *text);
/* There is output: when the loop comes by, or before that, when the VM ends. `ctx` is the struct vmlet. [owner] */
void api_tell_console(void *ctx);

bool api_is_running(const struct vmlet *vm);

/* Of the two timers. [loop] */
void api_time_is_over(struct loop_timer *timer);
void api_drain_timeout(struct loop_timer *timer);
