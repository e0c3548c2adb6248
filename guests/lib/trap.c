#include "guest.h"

static trap_fn *trap_fns[256];

void trap_dispatch(struct trap_frame *f); /* called by crt.S */

void trap_set(uint8_t vector, trap_fn *fn)
{
	trap_fns[vector] = fn;
}

void trap_dispatch(struct trap_frame *f)
{
	if (trap_fns[f->vector]) {
		trap_fns[f->vector](f);
		return;
	}
	print("\n%s %lu error 0x%lx rip 0x%lx cs 0x%lx rflags 0x%lx rsp 0x%lx cr2 0x%lx\n",
	      f->vector < 32 ? "exception" : "unexpected interrupt", f->vector, f->error, f->rip, f->cs, f->rflags,
	      f->rsp, read_cr2());
	guest_exit(STATUS_EXCEPTION);
}
