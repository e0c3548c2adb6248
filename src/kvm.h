/* /dev/kvm: opened and checked, with one VM created in it. */
#pragma once

#include <linux/kvm.h>
#include <stddef.h>

#include "err.h"

struct kvm {
	int system_fd; /* /dev/kvm */
	int vm_fd;
	size_t run_size_bytes; /* of a vCPU's mapped struct kvm_run */
};

/* Open /dev/kvm, check its API and create a VM. 0, or -errno with a sentence. [setup] */
int kvm_open(struct kvm *kvm, struct err *err);
void kvm_close(struct kvm *kvm);

/* ioctl with -errno as the result, repeated when a signal interrupts it. [any] */
int kvm_ioctl(int fd, unsigned long request, void *arg);
int kvm_ioctl_value(int fd, unsigned long request, unsigned long value);
