/* What a guest tells the machine through a device register: the wire to whoever decides what it means. */
#pragma once

#include <stdint.h>

enum guest_event {
	GUEST_EVENT_POWEROFF,
	GUEST_EVENT_RESET,
	GUEST_EVENT_PANIC,      /* pvpanic */
	GUEST_EVENT_DEBUG_EXIT, /* value: what was written, 0 to 255 */
};

struct guest_event_sink {
	void (*fn)(void *ctx, enum guest_event event, uint32_t value); /* [vcpu, loop], with the device's lock held */
	void *ctx;
};

static inline void guest_event_raise(struct guest_event_sink sink, enum guest_event event, uint32_t value)
{
	if (sink.fn)
		sink.fn(sink.ctx, event, value);
}
