/*
 * Port writes that KVM collects in a ring instead of leaving the guest for each (KVM_CAP_COALESCED_PIO).
 *
 * Of a string output KVM reports one element an exit; collected, 170 of them cost one. They wait in the ring until a
 * vCPU leaves the guest for whatever else, so this is only for ports whose guest looks at another register in the end.
 */
#pragma once

#include <pthread.h>
#include <stdint.h>

#include "bus.h"
#include "kvm.h"

struct pio_ring {
	size_t offset_bytes; /* of the ring in every vCPU's mapping; 0: nothing is collected */
	unsigned size;       /* entries */
	struct bus *pio;
	pthread_mutex_t mutex; /* of those who take */
};

void pio_ring_init(struct pio_ring *ring, struct bus *pio);
void pio_ring_fini(struct pio_ring *ring);

/* Collect what is written to these ports. Where KVM cannot, every write is an exit as before. [setup] */
void pio_ring_add(struct pio_ring *ring, const struct kvm *kvm, uint16_t port, unsigned count);

/* Hand to the bus what was collected up to now. `run` is the vCPU's mapping. [vcpu] */
void pio_ring_take(struct pio_ring *ring, struct kvm_run *run);
