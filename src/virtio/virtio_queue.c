/*
 * The loop's side of the core: rings are served, started and stopped here.
 *
 * Theory of operation. All work on rings is done in rounds of the loop, by three kinds of callbacks:
 *
 *     doorbell_done   the driver rang: serve that queue
 *     control_task    a vCPU has changed what is to run (posted)
 *     interrupt_task  something was pushed or kicked in this round (deferred to its end)
 *
 * The two tasks are one function, run_round, that brings every queue to where it should be: it starts, stops and serves
 * queues, and then interrupts the driver at most once per queue for all that was pushed.
 *
 * Doorbells. A queue is always in one of five states:
 *
 *     kicked          it is served at the end of the round
 *     served          model->serve is being called, or the model has stopped popping and will call virtio_kick
 *     resting         the ring was empty; the loop looks at it until it sleeps, and the driver need not ring
 *     polled          the loop sleeps, POLL_IN_FLIGHT or more chains are in flight, the driver is not asked to ring
 *     asleep          the loop sleeps, the driver is asked to ring, and was asked before the last look at the ring
 *
 * A model that needs more chains to go on (virtio_need_more) has its queue asleep, not polled.
 *
 * A busy driver gets completions anyway, so a polled queue costs it no exits: it is served again whenever something
 * was pushed. Chains in flight end, so that something is pushed; and when that takes long (or, worse, waits for what
 * the driver would send next) poll_timer puts the queue to sleep after POLL_NS.
 *
 * Time. A driver that refills its ring as fast as the model empties it would keep us in `serve`. A queue's budget is
 * BATCH chains per round, or what the model says; when it is used up, virtio_pop says 0 and the queue is kicked: the
 * next round serves it. So few, because what completes at once (a read from the page cache) is given back at the end of
 * the round, and the driver can go on while we serve the rest.
 *
 * Stopping. A stopping queue is not popped any more, its doorbell read and the model's chains are cancelled, and when
 * all have come back the ring is unmapped. Each of them ends in a round that looks again.
 */
#include <assert.h>
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

#include "util.h"
#include "virtio/virtio_impl.h"

enum {
	POLL_IN_FLIGHT = 4,
	BATCH = 16,
	LOOK_US = 12,
};
static const uint64_t POLL_NS = 1000000;

static void request_round(struct virtio_device *dev)
{
	loop_defer(dev->loop, &dev->interrupt_task);
}

static unsigned batch_of(const struct virtio_device *dev)
{
	return dev->model->batch ? dev->model->batch : BATCH;
}

static bool is_running(const struct virtio_queue *queue)
{
	return queue->ring && !queue->stopping && queue->dev->started && !queue->dev->broken;
}

static struct virtio_queue *get_queue(struct virtio_device *dev, unsigned index)
{
	assert(index < dev->queue_count);
	return &dev->queues[index];
}

/* --- popping and pushing -------------------------------------------------------------------------------- */

static void kick(struct virtio_queue *queue)
{
	queue->kicked = true;
	request_round(queue->dev);
}

void virtio_kick(struct virtio_device *dev, unsigned queue)
{
	kick(get_queue(dev, queue));
}

void virtio_need_more(struct virtio_device *dev, unsigned queue)
{
	get_queue(dev, queue)->hungry = true;
}

static void poll_soon(struct virtio_queue *queue)
{
	struct virtio_device *dev = queue->dev;
	queue->polled = true;
	if (dev->poll_timer_armed)
		return;
	dev->poll_timer_armed = true;
	loop_timer_arm(dev->loop, &dev->poll_timer, loop_now_ns() + POLL_NS);
}

/* The ring was empty. */
static void rest(struct virtio_queue *queue)
{
	queue->resting = true;
	loop_start_polling(queue->dev->loop, &queue->dev->poller);
}

/* The loop sleeps. True: in the meantime there are chains. */
static bool sleep_now(struct virtio_queue *queue)
{
	queue->resting = false;
	if (!queue->hungry && queue->in_flight >= POLL_IN_FLIGHT) {
		poll_soon(queue);
		return false;
	}
	if (!virtq_enable_doorbell(queue->ring))
		return false;
	kick(queue);
	return true;
}

int virtio_pop(struct virtio_device *dev, unsigned index, struct virtq_chain *ret_chain)
{
	struct virtio_queue *queue = get_queue(dev, index);
	if (!is_running(queue))
		return 0;
	if (queue->budget == 0) {
		kick(queue);
		return 0;
	}
	int r = virtq_pop(queue->ring, ret_chain);
	if (r < 0)
		virtio_break(dev, "queue %u: %s", index, virtq_error(queue->ring));
	if (r == 0)
		rest(queue);
	if (r <= 0)
		return 0;
	queue->budget--;
	queue->in_flight++;
	queue->counters.chains++;
	return 1;
}

void virtio_unpop(struct virtio_device *dev, unsigned index, const struct virtq_chain *chain)
{
	struct virtio_queue *queue = get_queue(dev, index);
	assert(queue->in_flight > 0);
	queue->in_flight--;
	queue->budget++;
	queue->counters.chains--;
	virtq_unpop(queue->ring, chain);
	if (queue->stopping)
		request_round(dev);
}

/* What a broken device finishes, its driver does not learn. */
void virtio_push_many(struct virtio_device *dev, unsigned index, const struct virtq_used *used, unsigned count)
{
	struct virtio_queue *queue = get_queue(dev, index);
	assert(queue->in_flight >= count && queue->ring);
	queue->in_flight -= count;
	queue->pushed += count;
	if (!dev->broken)
		virtq_push_many(queue->ring, used, count);
	/* Within a round the interrupts are still to come; but who was told to wait for a push must be looked at again.
	 */
	if (!dev->in_round || queue->stopping || queue->polled)
		request_round(dev);
}

void virtio_push(struct virtio_device *dev, unsigned index, const struct virtq_chain *chain, uint32_t written_bytes)
{
	const struct virtq_used used = {chain->id, chain->descriptors, written_bytes};
	virtio_push_many(dev, index, &used, 1);
}

/* --- serving ----------------------------------------------------------------------------------------------- */

static void serve(struct virtio_queue *queue)
{
	queue->kicked = queue->polled = queue->resting = queue->hungry = false;
	queue->budget = batch_of(queue->dev);
	virtq_disable_doorbell(queue->ring);
	queue->dev->model->serve(queue->dev, queue->index);
}

static void listen_to_doorbell(struct virtio_queue *queue)
{
	struct virtio_device *dev = queue->dev;
	if (queue->doorbell_op.state != LOOP_OP_IDLE)
		return;
	int r = loop_read(dev->loop, &queue->doorbell_op, queue->doorbell_fd, &queue->doorbell_count,
			  sizeof(queue->doorbell_count), 0);
	if (r < 0)
		request_round(dev); /* the loop is full: try again */
}

static void doorbell_done(struct loop_op *op, int res)
{
	struct virtio_queue *queue = container_of(op, struct virtio_queue, doorbell_op);
	struct virtio_device *dev = queue->dev;
	virtio_lock(dev);
	if (res > 0)
		queue->counters.doorbells += queue->doorbell_count;
	else if (res != -ECANCELED && res != -EINTR)
		virtio_break(dev, "queue %u: doorbell: %s", queue->index, err_name(res));
	if (queue->stopping)
		request_round(dev);
	if (is_running(queue))
		serve(queue);
	if (is_running(queue))
		listen_to_doorbell(queue);
	virtio_unlock(dev);
}

/* --- looking, and sleeping ----------------------------------------------------------------------------------- */

static bool look(struct loop_poller *poller)
{
	struct virtio_device *dev = container_of(poller, struct virtio_device, poller);
	bool found = false;
	virtio_lock(dev);
	for (unsigned i = 0; i < dev->queue_count; i++) {
		struct virtio_queue *queue = &dev->queues[i];
		if (!queue->resting || !is_running(queue) || !virtq_has_chains(queue->ring))
			continue;
		kick(queue);
		found = true;
	}
	virtio_unlock(dev);
	return found;
}

static bool go_to_sleep(struct loop_poller *poller)
{
	struct virtio_device *dev = container_of(poller, struct virtio_device, poller);
	bool found = false;
	virtio_lock(dev);
	for (unsigned i = 0; i < dev->queue_count; i++) {
		struct virtio_queue *queue = &dev->queues[i];
		if (queue->resting && is_running(queue))
			found |= sleep_now(queue);
	}
	virtio_unlock(dev);
	return found;
}

static void poll_timer_fired(struct loop_timer *timer)
{
	struct virtio_device *dev = container_of(timer, struct virtio_device, poll_timer);
	virtio_lock(dev);
	dev->poll_timer_armed = false;
	for (unsigned i = 0; i < dev->queue_count; i++) {
		struct virtio_queue *queue = &dev->queues[i];
		if (!queue->polled || !is_running(queue))
			continue;
		queue->polled = false;
		if (virtq_enable_doorbell(queue->ring))
			kick(queue);
	}
	virtio_unlock(dev);
}

/* 2.7.7, 2.8.10: one interrupt for all that was pushed, if the driver wants one. */
static void interrupt(struct virtio_queue *queue)
{
	struct virtio_device *dev = queue->dev;
	unsigned pushed = queue->pushed;
	queue->pushed = 0;
	if (pushed == 0)
		return;
	if (!is_running(queue) || !virtq_wants_interrupt(queue->ring)) {
		queue->counters.interrupts_spared += pushed;
		return;
	}
	queue->counters.interrupts++;
	queue->counters.interrupts_spared += pushed - 1;
	dev->transport->interrupt_queue(dev->transport_ctx, queue->index);
}

/* --- starting and stopping ------------------------------------------------------------------------------------- */

int virtio_queue_start(struct virtio_queue *queue)
{
	struct virtio_device *dev = queue->dev;
	struct virtq_config config = {
		.packed = virtio_has_feature(dev, VIRTIO_F_RING_PACKED),
		.indirect = virtio_has_feature(dev, VIRTIO_RING_F_INDIRECT_DESC),
		.event_idx = virtio_has_feature(dev, VIRTIO_RING_F_EVENT_IDX),
		.size = queue->size,
		.desc = queue->desc,
		.driver = queue->driver,
		.device = queue->device,
	};
	struct err err = {0};
	queue->ring = virtq_new(dev->gmem, &config, &err);
	if (!queue->ring) {
		virtio_break(dev, "queue %u: %s", queue->index, err.text);
		return err.code;
	}
	queue->budget = batch_of(queue->dev);
	queue->kicked = true; /* for what the driver put there before */
	return 0;
}

void virtio_queue_release(struct virtio_queue *queue)
{
	virtq_free(queue->ring);
	queue->ring = NULL;
	queue->enabled = queue->stopping = queue->cancelled = queue->kicked = queue->polled = queue->resting = false;
	queue->counters.interrupts_spared += queue->pushed;
	queue->pushed = 0;
}

static void stop(struct virtio_queue *queue)
{
	struct virtio_device *dev = queue->dev;
	if (!queue->cancelled) {
		queue->cancelled = true;
		loop_cancel(dev->loop, &queue->doorbell_op);
		if (dev->model->cancel)
			dev->model->cancel(dev, queue->index);
	}
	if (queue->in_flight > 0 || queue->doorbell_op.state != LOOP_OP_IDLE)
		return;
	virtio_queue_release(queue);
	pthread_cond_broadcast(&dev->stopped);
}

static void bring_forward(struct virtio_queue *queue)
{
	if (queue->stopping)
		stop(queue);
	if (!is_running(queue))
		return;
	queue->budget = batch_of(queue->dev);
	listen_to_doorbell(queue);
	if (queue->kicked || queue->polled)
		serve(queue);
}

static bool has_rings(const struct virtio_device *dev)
{
	for (unsigned i = 0; i < dev->queue_count; i++) {
		if (dev->queues[i].ring)
			return true;
	}
	return false;
}

static void start_model(struct virtio_device *dev)
{
	if (dev->started || dev->state != VIRTIO_RUNNING || dev->broken)
		return;
	dev->started = true;
	if (dev->model->start)
		dev->model->start(dev);
}

static void run_round(struct virtio_device *dev)
{
	virtio_lock(dev);
	dev->in_round = true;
	start_model(dev);
	for (unsigned i = 0; i < dev->queue_count; i++)
		bring_forward(&dev->queues[i]);
	for (unsigned i = 0; i < dev->queue_count; i++)
		interrupt(&dev->queues[i]);
	dev->in_round = false;
	if (dev->state == VIRTIO_STOPPING && !has_rings(dev))
		virtio_finish_reset(dev);
	virtio_unlock(dev);
}

static void control(struct loop_task *task)
{
	run_round(container_of(task, struct virtio_device, control_task));
}

static void end_of_round(struct loop_task *task)
{
	run_round(container_of(task, struct virtio_device, interrupt_task));
}

void virtio_tell_loop(struct virtio_device *dev)
{
	loop_post(dev->loop, &dev->control_task);
}

void virtio_queue_init_tasks(struct virtio_device *dev)
{
	dev->control_task.fn = control;
	dev->interrupt_task.fn = end_of_round;
	dev->poll_timer.fn = poll_timer_fired;
	dev->poller.limit_ns = 1000 * (uint64_t)(dev->model->look_us ? dev->model->look_us : LOOK_US);
	dev->poller.look = look;
	dev->poller.sleep = go_to_sleep;
	for (unsigned i = 0; i < dev->queue_count; i++)
		dev->queues[i].doorbell_op.done = doorbell_done;
}
