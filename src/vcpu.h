/*
 * A vCPU: a KVM descriptor and the thread that runs it.
 *
 * Theory of operation. The thread blocks every signal but those that the C library keeps for itself.
 * KVM_SET_SIGNAL_MASK lets one more, the kick, through while the guest runs, and only there: a kick that is sent at
 * any moment ends the next KVM_RUN with EINTR, so none is lost, no handler is installed, and nothing of the host
 * program's signals is touched.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>

#include "err.h"
#include "kvm.h"

struct vm;

struct vcpu {
	struct vm *vm;
	unsigned index;
	int fd;
	struct kvm_run *run;
	pthread_t thread;
	bool has_thread;
};

/* Create the KVM vCPU, without a thread. [setup] */
int vcpu_init(struct vcpu *vcpu, struct vm *vm, unsigned index, struct err *err);
void vcpu_fini(struct vcpu *vcpu); /* the thread has been joined */

int vcpu_start(struct vcpu *vcpu, struct err *err);
void vcpu_kick(struct vcpu *vcpu); /* leave the guest and look at the VM's state. [loop] */
void vcpu_join(struct vcpu *vcpu);
