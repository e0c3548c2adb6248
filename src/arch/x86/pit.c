#include "arch/x86/pit.h"

#include <errno.h>
#include <stdlib.h>

#include "kvm.h"
#include "util.h"

/* Intel 8254 data sheet, "Control Word Format"; IBM PC AT Technical Reference, port 0x61. */
enum {
	CONTROL_WORD = 3,
	CONTROL_SELECT_SHIFT = 6,
	CONTROL_SELECT_READ_BACK = 3,
	CONTROL_ACCESS_SHIFT = 4,
	CONTROL_ACCESS_MASK = 3,
	CONTROL_ACCESS_LATCH = 0,
	CONTROL_MODE_SHIFT = 1,
	CONTROL_MODE_MASK = 7,
	CONTROL_MODE_LAST = 5, /* 6 and 7 are other names for 2 and 3 */
	CONTROL_BCD = 1 << 0,

	SPEAKER_GATE = 1 << 0,
	SPEAKER_DATA = 1 << 1,
	SPEAKER_CHANNEL = 2,
};

struct pit {
	struct device dev;
	struct vm *vm;
	bool created;
};

static void fail(struct pit *pit, const char *request, int code)
{
	vm_end(pit->vm, VM_END_KVM_ERROR, 0, "%s: %s", request, err_name(code));
}

/* The dummy speaker answers port 0x61, by which kernels calibrate their clocks. */
static bool create(struct pit *pit)
{
	if (pit->created)
		return true;
	struct kvm_pit_config config = {.flags = KVM_PIT_SPEAKER_DUMMY};
	int r = kvm_ioctl(pit->vm->kvm.vm_fd, KVM_CREATE_PIT2, &config);
	if (r < 0) {
		fail(pit, "KVM_CREATE_PIT2", r);
		return false;
	}
	pit->created = true;
	return true;
}

/* What a channel does when its control word is written: the count comes next, byte by byte, in KVM. */
static void write_control(struct kvm_pit_state2 *state, uint8_t value)
{
	unsigned select = value >> CONTROL_SELECT_SHIFT;
	unsigned access = value >> CONTROL_ACCESS_SHIFT & CONTROL_ACCESS_MASK;
	unsigned mode = value >> CONTROL_MODE_SHIFT & CONTROL_MODE_MASK;
	if (select == CONTROL_SELECT_READ_BACK || access == CONTROL_ACCESS_LATCH)
		return; /* a look at a counter that has not been started */

	struct kvm_pit_channel_state *channel = &state->channels[select];
	channel->rw_mode = channel->read_state = channel->write_state = (uint8_t)access;
	channel->mode = (uint8_t)(mode > CONTROL_MODE_LAST ? mode - 4 : mode);
	channel->bcd = value & CONTROL_BCD;
}

static void write_speaker(struct kvm_pit_state2 *state, uint8_t value)
{
	state->channels[SPEAKER_CHANNEL].gate = value & SPEAKER_GATE;
	state->flags &= ~(uint32_t)KVM_PIT_FLAGS_SPEAKER_DATA_ON;
	if (value & SPEAKER_DATA)
		state->flags |= KVM_PIT_FLAGS_SPEAKER_DATA_ON;
}

/* A count for a channel without a control word has no meaning, and is dropped. */
static void pit_write(struct device *dev, uint64_t offset, unsigned size_bytes, uint64_t value)
{
	(void)size_bytes;
	struct pit *pit = container_of(dev, struct pit, dev);
	if (!create(pit))
		return;

	struct kvm_pit_state2 state;
	int r = kvm_ioctl(pit->vm->kvm.vm_fd, KVM_GET_PIT2, &state);
	if (r < 0) {
		fail(pit, "KVM_GET_PIT2", r);
		return;
	}
	if (offset == CONTROL_WORD)
		write_control(&state, (uint8_t)value);
	else if (offset == PIT_SPEAKER_OFFSET)
		write_speaker(&state, (uint8_t)value);
	else
		return;
	r = kvm_ioctl(pit->vm->kvm.vm_fd, KVM_SET_PIT2, &state);
	if (r < 0)
		fail(pit, "KVM_SET_PIT2", r);
}

/* Counters that nobody started read as 0, and so does port 0x61 after a reset. */
static uint64_t pit_read(struct device *dev, uint64_t offset, unsigned size_bytes)
{
	(void)offset;
	(void)size_bytes;
	create(container_of(dev, struct pit, dev));
	return 0;
}

static void pit_destroy(struct device *dev)
{
	device_fini(dev);
	free(container_of(dev, struct pit, dev));
}

static const struct device_ops PIT_OPS = {
	.name = "pit8254",
	.access_sizes = 1,
	.read = pit_read,
	.write = pit_write,
	.destroy = pit_destroy,
};

struct device *pit_new(struct vm *vm, struct err *err)
{
	struct pit *pit = calloc(1, sizeof(*pit));
	if (!pit) {
		err_set(err, -ENOMEM, "PIT: %s", err_name(ENOMEM));
		return NULL;
	}
	device_init(&pit->dev, &PIT_OPS);
	pit->vm = vm;
	return &pit->dev;
}
