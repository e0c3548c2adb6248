#include "pio_ring.h"

#include <stdbool.h>
#include <string.h>
#include <unistd.h>

void pio_ring_init(struct pio_ring *ring, struct bus *pio)
{
	*ring = (struct pio_ring){.pio = pio};
	pthread_mutex_init(&ring->mutex, NULL);
}

void pio_ring_fini(struct pio_ring *ring)
{
	pthread_mutex_destroy(&ring->mutex);
}

void pio_ring_add(struct pio_ring *ring, const struct kvm *kvm, uint16_t port, unsigned count)
{
	struct kvm_coalesced_mmio_zone zone = {.addr = port, .size = count, .pio = 1};
	if (kvm_ioctl_value(kvm->vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_COALESCED_PIO) <= 0)
		return;
	int page = kvm_ioctl_value(kvm->vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_COALESCED_MMIO);
	size_t page_size = (size_t)sysconf(_SC_PAGESIZE);
	if (page <= 0 || ((size_t)page + 1) * page_size > kvm->run_size_bytes)
		return;
	if (kvm_ioctl(kvm->vm_fd, KVM_REGISTER_COALESCED_MMIO, &zone) < 0)
		return;
	ring->offset_bytes = (size_t)page * page_size;
	/* KVM_COALESCED_MMIO_MAX */
	ring->size =
		(unsigned)((page_size - sizeof(struct kvm_coalesced_mmio_ring)) / sizeof(struct kvm_coalesced_mmio));
}

static void write_entry(struct pio_ring *ring, const struct kvm_coalesced_mmio *entry)
{
	uint64_t value;
	memcpy(&value, entry->data, sizeof(value));
	bus_write(ring->pio, entry->phys_addr, entry->len, value);
}

/*
 * `first` moves when an entry was handed over: whoever finds the ring empty knows that all of it was. Not further than
 * what was there at the beginning, as another vCPU may write on and on.
 */
static void take_all(struct pio_ring *ring, struct kvm_coalesced_mmio_ring *shared)
{
	uint32_t last = __atomic_load_n(&shared->last, __ATOMIC_ACQUIRE) % ring->size;
	uint32_t first = shared->first % ring->size;
	while (first != last) {
		write_entry(ring, &shared->coalesced_mmio[first]);
		first = (first + 1) % ring->size;
		__atomic_store_n(&shared->first, first, __ATOMIC_RELEASE);
	}
}

void pio_ring_take(struct pio_ring *ring, struct kvm_run *run)
{
	if (!ring->offset_bytes)
		return;
	struct kvm_coalesced_mmio_ring *shared = (void *)((uint8_t *)run + ring->offset_bytes);
	if (__atomic_load_n(&shared->first, __ATOMIC_ACQUIRE) == __atomic_load_n(&shared->last, __ATOMIC_ACQUIRE))
		return;
	pthread_mutex_lock(&ring->mutex);
	take_all(ring, shared);
	pthread_mutex_unlock(&ring->mutex);
}
