/*
 * The virtio core (virtio 1.3, chapters 2 and 3): what all devices and both transports share. Status machine, feature
 * negotiation, queue set-up, configuration space with its generation, stop-drain-reset, and breaking a device.
 *
 *     transport (virtio_pci, virtio_mmio)   decodes registers, sends interrupts
 *     core (this)                           rules
 *     device model (blk, net, ...)          does its own work: pops chains, pushes them back
 *
 * Threads and the lock. One mutex, that of the transport's `struct device`, guards all of a device. vCPU threads come
 * through the transport's door with it held; the loop takes it here, so that every function of a model runs with it
 * held. A model's own callbacks from the street (block requests, timers) take it with virtio_lock. Rings are touched on
 * the loop thread only. A reset is asked for on a vCPU thread, done on the loop, and waited for: when the register
 * write returns, nothing of the guest's memory is in use any more.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "device.h"
#include "gmem.h"
#include "log.h"
#include "loop.h"
#include "virtio/virtq.h"

enum {
	VIRTIO_QUEUES_MAX = 32,
	VIRTIO_CONFIG_SIZE_MAX = 256,
	VIRTIO_NO_VECTOR = 0xffff,
};

struct virtio_device;

/* A device model. Everything [loop] with the lock held unless it says otherwise. */
struct virtio_model {
	uint16_t id; /* VIRTIO_ID_* */
	const char *name;
	uint32_t pci_class; /* for virtio_pci */

	/* The driver said DRIVER_OK: the enabled queues can be popped. NULL: nothing to do. */
	void (*start)(struct virtio_device *dev);

	/* There may be chains: pop until virtio_pop says 0, or until it can take no more (then call virtio_kick later).
	 */
	void (*serve)(struct virtio_device *dev, unsigned queue);

	/*
	 * Finish everything popped from this queue soon (cancel what can be cancelled) and push it; nothing more will
	 * be popped. When the last chain has come back the core goes on with the reset. NULL: nothing waits that long.
	 */
	void (*cancel)(struct virtio_device *dev, unsigned queue);

	/*
	 * All queues are drained and the driver is gone: back to the state after creation. NULL: nothing to do. [loop];
	 * on a vCPU thread when `start` was not called since the last reset: it touches the model's own data only.
	 */
	void (*reset)(struct virtio_device *dev);

	/* The driver wrote bytes of the configuration space (already checked to lie inside). NULL: read-only. [vcpu] */
	void (*write_config)(struct virtio_device *dev, unsigned offset, const uint8_t *data, unsigned size_bytes);

	/* Free the model; virtio_fini is done. [owner] */
	void (*destroy)(struct virtio_device *dev);

	/* How long the loop may look at the rings before it sleeps, when that has paid off lately (loop_spin.c). 0: the
	 * core's choice (virtio_queue.c), which suits streams; more where the driver waits for each answer. */
	unsigned look_us;

	unsigned batch; /* chains that a queue may pop in a round; 0: the core's choice (virtio_queue.c) */
};

/* How a transport tells the driver. The lock is held. [any] */
struct virtio_transport {
	void (*interrupt_queue)(void *ctx, unsigned queue);
	void (*interrupt_config)(void *ctx);
	/* The device goes live (DRIVER_OK; queue n's doorbell is queues[n].doorbell_fd), or is reset. */
	void (*set_doorbells)(void *ctx, bool on);
};

/* A chain that was given back is counted in one of the last two. */
struct virtio_counters {
	uint64_t doorbells; /* as the driver rang */
	uint64_t chains;    /* popped */
	uint64_t interrupts;
	uint64_t interrupts_spared; /* chains without one of their own */
};

struct virtio_queue {
	struct virtio_device *dev;
	unsigned index;
	uint16_t size_max;

	/* Registers, as the driver sets them. */
	uint16_t size;
	bool enabled;
	gpa_t desc, driver, device;

	/* While it runs. */
	struct virtq *ring; /* NULL: not running */
	unsigned in_flight; /* popped and not pushed */
	bool stopping;      /* nothing more is popped; it ends when nothing is in flight */
	bool cancelled;     /* the model knows that it is stopping */
	bool kicked;        /* to be served at the end of the round */
	bool resting;       /* was found empty; the driver is asked to ring when the loop sleeps */
	bool hungry;        /* what is in flight does not end before the driver gives more */
	bool polled;        /* so busy that the driver is told not to ring: served after pushes */
	unsigned budget;    /* chains that may still be popped in this round */
	unsigned pushed;    /* since the driver was last interrupted, or spared that */
	int doorbell_fd;    /* eventfd */
	uint64_t doorbell_count;
	struct loop_op doorbell_op;
	struct virtio_counters counters;
};

/* Told when the driver breaks a rule; `text` names the device and the rule. The lock is held: it must not wait. [any]
 */
struct virtio_sink {
	void (*broken)(void *ctx, const char *text); /* NULL: nobody is told */
	void *ctx;
};

struct virtio_device {
	const struct virtio_model *model;
	const char *name; /* which of its kind it is, for people; borrowed, NULL: none */
	struct virtio_sink sink;
	struct loop *loop;
	const struct gmem *gmem;
	const struct log *log;
	struct log_limit log_limit;

	struct device *door; /* the transport's: its lock is the device's */
	const struct virtio_transport *transport;
	void *transport_ctx;

	uint64_t features;        /* offered */
	uint64_t driver_features; /* accepted */
	uint8_t status;
	uint8_t config_generation;
	uint8_t config[VIRTIO_CONFIG_SIZE_MAX];
	unsigned config_size_bytes;
	bool config_was_read; /* since the generation last changed */

	unsigned queue_count;
	struct virtio_queue queues[VIRTIO_QUEUES_MAX];
	bool broken;

	enum { VIRTIO_IDLE, VIRTIO_RUNNING, VIRTIO_STOPPING } state;
	bool started;                    /* the loop knows that it runs */
	pthread_cond_t stopped;          /* the device, or a queue */
	struct loop_task control_task;   /* a vCPU asks the loop to start or stop */
	struct loop_task interrupt_task; /* end of a round: one interrupt per queue */
	bool in_round;
	struct loop_poller poller;    /* see virtio_queue.c */
	struct loop_timer poll_timer; /* the same */
	bool poll_timer_armed;
};

/* --- for models ------------------------------------------------------------------------------------------------- */

struct virtio_init {
	const struct virtio_model *model;
	struct loop *loop;
	const struct gmem *gmem;
	const struct log *log;
	uint64_t features; /* the model's own; the core adds VERSION_1, INDIRECT_DESC, EVENT_IDX and RING_RESET */
	bool packed;       /* offer packed rings too */
	unsigned queue_count;
	uint16_t queue_size_max; /* a power of two */
	unsigned config_size_bytes;
};

/* `dev` is all zero. 0, or -errno with `err` set (then virtio_fini is not due). [setup] */
int virtio_init(struct virtio_device *dev, const struct virtio_init *init, struct err *err);

/* Resets it (cancel and reset of the model included); nothing is in flight then. No vCPU runs. virtio_free does it.
 * [owner] */
void virtio_fini(struct virtio_device *dev);

/* For callbacks from the street. */
void virtio_lock(struct virtio_device *dev);
void virtio_unlock(struct virtio_device *dev);

bool virtio_has_feature(const struct virtio_device *dev, unsigned bit); /* negotiated */

/*
 * The next chain of a queue: 1, or 0 when there is none now, when the queue is stopping, or when its ring is broken
 * (the core has then set NEEDS_RESET). On 0 the core sees to it that model->serve is called when there are more. After
 * a virtio_unpop it does not: the chain stays until the model pops again (virtio_kick).
 */
int virtio_pop(struct virtio_device *dev, unsigned queue, struct virtq_chain *ret_chain);
void virtio_unpop(struct virtio_device *dev, unsigned queue, const struct virtq_chain *chain);

/* Give a chain back. The driver is interrupted once at the end of the loop's round. Every popped chain is pushed once.
 */
void virtio_push(struct virtio_device *dev, unsigned queue, const struct virtq_chain *chain, uint32_t written_bytes);

/* The same for several that make one answer: the driver sees either none of them or all. */
void virtio_push_many(struct virtio_device *dev, unsigned queue, const struct virtq_used *used, unsigned count);

/* Call model->serve for the queue at the end of this round: there is room again. [loop] */
void virtio_kick(struct virtio_device *dev, unsigned queue);

/*
 * From model->serve, which has found the ring empty: what is in flight does not end before the driver gives more. So it
 * is asked to ring at once, however much that is.
 */
void virtio_need_more(struct virtio_device *dev, unsigned queue);

/* The driver broke a rule: NEEDS_RESET, a line in the log (rate-limited), and silence until it resets. */
void virtio_break(struct virtio_device *dev, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* dev->config was changed: new generation, and a configuration interrupt when the driver runs. Lock held. [any] */
void virtio_config_changed(struct virtio_device *dev);

/* The sum over the queues, since the device was made. Takes the lock. [any] */
struct virtio_counters virtio_get_counters(struct virtio_device *dev);

/* Which one it is, and who is told when it breaks. [setup] */
void virtio_set_owner(struct virtio_device *dev, const char *name, struct virtio_sink sink);

/* --- for transports: decoded registers; the lock is held [vcpu] --------------------------------------------------- */

/* Connect the transport: `door` is its struct device. [setup] */
void virtio_attach(struct virtio_device *dev, struct device *door, const struct virtio_transport *transport, void *ctx);

uint32_t virtio_read_features(const struct virtio_device *dev, uint32_t select);
uint32_t virtio_read_driver_features(const struct virtio_device *dev, uint32_t select);
void virtio_write_driver_features(struct virtio_device *dev, uint32_t select, uint32_t value);

uint8_t virtio_read_status(const struct virtio_device *dev);
/* 0 resets, and returns when nothing is in flight any more. */
void virtio_write_status(struct virtio_device *dev, uint8_t status);

/* A queue for its registers; NULL when `index` is not one. */
struct virtio_queue *virtio_get_queue(struct virtio_device *dev, uint32_t index);
/* Set size, or addresses, of a queue that is not enabled; what cannot be is refused (the register keeps its value). */
void virtio_set_queue_size(struct virtio_device *dev, struct virtio_queue *queue, uint32_t size);
/* `area` is one of the queue's desc, driver and device; half 0: its low 32 bits, 1: the high ones. */
void virtio_set_queue_area(struct virtio_queue *queue, gpa_t *area, unsigned half, uint32_t value);
void virtio_enable_queue(struct virtio_device *dev, struct virtio_queue *queue);
/* RING_RESET: returns when nothing of the queue is in flight and it is disabled. */
void virtio_reset_queue(struct virtio_device *dev, struct virtio_queue *queue);

/* The same without the feature, for transports that have a way to disable a queue; its registers keep their values. */
void virtio_disable_queue(struct virtio_device *dev, struct virtio_queue *queue);

/* The driver rang by a register write that the machine did not take for us: the same as the eventfd. */
void virtio_ring(struct virtio_device *dev, uint32_t queue);

/* Configuration space; bytes outside read as 0 and are dropped when written. */
void virtio_read_config(struct virtio_device *dev, uint32_t offset, void *ret_data, unsigned size_bytes);
void virtio_write_config(struct virtio_device *dev, uint32_t offset, const void *data, unsigned size_bytes);

/* virtio_fini, then model->destroy. The transport still has its lock. NULL is accepted. [owner] */
void virtio_free(struct virtio_device *dev);
