/*
 * The NBD client's requests: the queue, the slots, cancelling; opening and closing.
 *
 * After a reconnect, what was not answered is sent again. What the old server had answered and not been asked to flush
 * may be lost if that server crashed (not if only the connection broke); a flush to the new one cannot bring it back.
 * QEMU's client is the same there. And a server that lives but does not answer is waited for, without end: its
 * requests may yet be carried out, after others that were sent again on a second connection. A dead host is found by
 * TCP's own time-outs.
 */
#include "block_nbd_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "fd.h"
#include "iov.h"
#include "util.h"

enum {
	DEFAULT_PATIENCE_S = 60,
	BLOCK_SIZE_MAX = 4096,
	TRANSFER_MAX = 32 << 20, /* what a server takes that does not say */
	BIG_RANGE_MAX = 1 << 30, /* TRIM, WRITE_ZEROES */
};
static const uint64_t NS_PER_S = 1000000000;
static const uint64_t STALL_NS = 1000000000;

static struct nbd *nbd_of(struct block *block)
{
	return container_of(block, struct nbd, block);
}

/* --- ending ------------------------------------------------------------------------------------------------ */

void nbd_end(struct nbd *nbd, struct block_request *request, int res)
{
	request->progress_bytes = (uint64_t)-res;
	request->next = NULL;
	*nbd->ended_tail = request;
	nbd->ended_tail = &request->next;
	loop_defer(nbd->block.loop, &nbd->ending_task);
}

/* The last `done` may free us. */
static void end_requests(struct loop_task *task)
{
	struct nbd *nbd = container_of(task, struct nbd, ending_task);
	struct block_request *request = nbd->ended_head;
	nbd->ended_head = NULL;
	nbd->ended_tail = &nbd->ended_head;
	while (request) {
		struct block_request *next = request->next;
		block_complete(request, -(int)request->progress_bytes);
		request = next;
	}
}

/* --- the queue --------------------------------------------------------------------------------------------- */

static void queue_push(struct nbd *nbd, struct block_request *request)
{
	request->next = NULL;
	*nbd->queue_tail = request;
	nbd->queue_tail = &request->next;
}

void nbd_requeue(struct nbd *nbd, struct block_request *request)
{
	request->next = nbd->queue_head;
	if (!nbd->queue_head)
		nbd->queue_tail = &request->next;
	nbd->queue_head = request;
	loop_defer(nbd->block.loop, &nbd->work_task);
}

static void queue_unlink(struct nbd *nbd, struct block_request **at)
{
	*at = (*at)->next;
	if (!*at)
		nbd->queue_tail = at;
}

void nbd_expire(struct nbd *nbd)
{
	uint64_t now = loop_now_ns(), next = UINT64_MAX;
	for (struct block_request **at = &nbd->queue_head; *at;) {
		struct block_request *request = *at;
		if (*nbd_deadline(request) == 0)
			*nbd_deadline(request) = now + nbd->patience_ns;
		if (*nbd_deadline(request) <= now) {
			queue_unlink(nbd, at);
			nbd_end(nbd, request, -EIO);
			continue;
		}
		next = min_u64(next, *nbd_deadline(request));
		at = &request->next;
	}
	if (next != UINT64_MAX)
		loop_timer_arm(nbd->block.loop, &nbd->patience_timer, next);
}

static void patience_ended(struct loop_timer *timer)
{
	struct nbd *nbd = container_of(timer, struct nbd, patience_timer);
	if (nbd->link == NBD_LINK_UP || nbd->link == NBD_LINK_CLOSING)
		return;
	struct block_request *first = nbd->queue_head;
	nbd_expire(nbd);
	if (first != nbd->queue_head)
		log_guest(nbd->log, &nbd->limit, "disk 'nbd=%s': the server did not come back in time; I/O fails",
			  nbd->text);
}

/* --- slots --------------------------------------------------------------------------------------------------- */

static struct nbd_slot *slot_alloc(struct nbd *nbd)
{
	for (unsigned i = 0; i < NBD_SLOTS; i++) {
		struct nbd_slot *slot = &nbd->slots[i];
		if (slot->cookie)
			continue;
		*slot = (struct nbd_slot){.cookie = ++nbd->commands * NBD_SLOTS + i};
		nbd->busy_slots++;
		return slot;
	}
	return NULL;
}

void nbd_slot_free(struct nbd *nbd, struct nbd_slot *slot)
{
	slot->cookie = 0;
	slot->request = NULL;
	nbd->busy_slots--;
	if (nbd->queue_head)
		loop_defer(nbd->block.loop, &nbd->work_task);
}

static uint16_t command_of(const struct nbd *nbd, const struct block_request *request, uint32_t *ret_max_bytes)
{
	switch (request->op) {
	case BLOCK_READ:
	case BLOCK_WRITE:
		*ret_max_bytes = nbd->transfer_max_bytes;
		return request->op == BLOCK_READ ? NBD_CMD_READ : NBD_CMD_WRITE;
	case BLOCK_DISCARD:
		*ret_max_bytes = BIG_RANGE_MAX;
		return NBD_CMD_TRIM;
	case BLOCK_WRITE_ZEROES:
		*ret_max_bytes = nbd->zeroes_max_bytes;
		return NBD_CMD_WRITE_ZEROES;
	case BLOCK_FLUSH:
		break;
	}
	*ret_max_bytes = 0;
	return NBD_CMD_FLUSH;
}

/* The next part of the request, as a command. */
static void slot_begin(struct nbd *nbd, struct nbd_slot *slot, struct block_request *request)
{
	uint32_t max_bytes;
	slot->request = request;
	slot->command = command_of(nbd, request, &max_bytes);
	slot->offset_bytes = request->offset_bytes + request->progress_bytes;
	slot->size_bytes = (uint32_t)min_u64(request->size_bytes - request->progress_bytes, max_bytes);
	slot->payload_bytes = slot->command == NBD_CMD_WRITE ? slot->size_bytes : 0;
	bool keep_allocated = slot->command == NBD_CMD_WRITE_ZEROES && !request->may_unmap;

	uint8_t *p = nbd_put32(slot->header, NBD_REQUEST_MAGIC);
	p = nbd_put16(p, keep_allocated ? NBD_CMD_FLAG_NO_HOLE : 0);
	p = nbd_put16(p, slot->command);
	p = nbd_put64(p, slot->cookie);
	p = nbd_put64(p, slot->offset_bytes);
	nbd_put32(p, slot->size_bytes);
	nbd_send_push(nbd, slot);
}

void nbd_slot_finish(struct nbd *nbd, struct nbd_slot *slot)
{
	struct block_request *request = slot->request;
	int error = slot->error;
	uint32_t size = slot->size_bytes;
	bool cancelled = slot->cancelled;
	nbd_slot_free(nbd, slot);
	if (!request)
		return;
	if (error == 0 && size < request->size_bytes - request->progress_bytes && cancelled)
		error = -ECANCELED;
	request->progress_bytes += size;
	*nbd_deadline(request) = 0;
	if (error || request->progress_bytes == request->size_bytes)
		nbd_end(nbd, request, error);
	else
		nbd_requeue(nbd, request);
}

unsigned nbd_slot_spans(const struct nbd_slot *slot, uint64_t skip_bytes, uint64_t bytes, struct iovec *iov,
			unsigned iov_max, uint64_t *ret_bytes)
{
	const struct block_request *request = slot->request;
	skip_bytes += slot->offset_bytes - request->offset_bytes;
	unsigned count = iov_slice(request->iov, request->iov_count, skip_bytes, bytes, iov, iov_max);
	*ret_bytes = 0;
	for (unsigned i = 0; i < count; i++)
		*ret_bytes += iov[i].iov_len;
	return count;
}

/* --- silence --------------------------------------------------------------------------------------------------- */

/* It is told, and nothing more is done about it; the top of this file says why. */
static void silence_lasted(struct loop_timer *timer)
{
	struct nbd *nbd = container_of(timer, struct nbd, silence_timer);
	uint64_t now = loop_now_ns(), quiet_ns = now - nbd->heard_ns;
	nbd->silence_watched = nbd->busy_slots > 0;
	if (!nbd->silence_watched)
		return;
	if (quiet_ns >= nbd->patience_ns && nbd->link == NBD_LINK_UP)
		log_guest(nbd->log, &nbd->limit, "disk 'nbd=%s': the server has not answered for %u seconds; waiting",
			  nbd->text, (unsigned)(quiet_ns / NS_PER_S));
	uint64_t rest_ns = quiet_ns < nbd->patience_ns ? nbd->patience_ns - quiet_ns : nbd->patience_ns;
	loop_timer_arm(nbd->block.loop, timer, now + rest_ns);
}

/* The timer is left to run when answers come, so that it costs nothing per request. */
static void watch_silence(struct nbd *nbd)
{
	if (nbd->busy_slots == 0)
		nbd->heard_ns = loop_now_ns(); /* nothing was owed until now */
	if (nbd->silence_watched)
		return;
	nbd->silence_watched = true;
	loop_timer_arm(nbd->block.loop, &nbd->silence_timer, nbd->heard_ns + nbd->patience_ns);
}

/* --- the door's calls ------------------------------------------------------------------------------------------ */

static void work(struct loop_task *task)
{
	struct nbd *nbd = container_of(task, struct nbd, work_task);
	if (nbd->link != NBD_LINK_UP) {
		if (nbd->queue_head && nbd->link == NBD_LINK_DOWN)
			nbd_reconnect(nbd);
		return;
	}
	if (nbd->queue_head)
		watch_silence(nbd);
	struct nbd_slot *slot;
	while (nbd->queue_head && (slot = slot_alloc(nbd))) {
		struct block_request *request = nbd->queue_head;
		queue_unlink(nbd, &nbd->queue_head);
		slot_begin(nbd, slot, request);
	}
	nbd_send_start(nbd);
	nbd_receive_start(nbd);
}

static void ring_may_have_room(struct loop_timer *timer)
{
	work(&container_of(timer, struct nbd, full_timer)->work_task);
}

static void nbd_submit(struct block *block, struct block_request *request)
{
	struct nbd *nbd = nbd_of(block);
	if (request->op == BLOCK_FLUSH && !(nbd->export.flags & NBD_FLAG_SEND_FLUSH)) {
		nbd_end(nbd, request, 0); /* a server that has no flush has nothing to be flushed */
		return;
	}
	*nbd_deadline(request) = 0;
	queue_push(nbd, request);
	loop_defer(block->loop, &nbd->work_task);
}

/* --- cancelling -------------------------------------------------------------------------------------------------- */

void nbd_slot_let_go(struct nbd *nbd, struct nbd_slot *slot)
{
	if (!slot->cancelled || !slot->request || (slot->in_list && nbd_send_cancel(nbd, slot)))
		return;
	if ((slot->in_list && slot->payload_bytes) || nbd_receive_touches(nbd, slot))
		return;
	nbd_end(nbd, slot->request, -ECANCELED);
	slot->request = NULL;
}

/* A server that does not take the rest of a write, and the guest wants its memory back. */
static void stalled(struct loop_timer *timer)
{
	struct nbd *nbd = container_of(timer, struct nbd, stall_timer);
	for (unsigned i = 0; i < NBD_SLOTS; i++) {
		if (nbd->slots[i].cookie && nbd->slots[i].cancelled && nbd->slots[i].request) {
			nbd_lose(nbd, "the server does not take what a cancelled request had begun to send");
			return;
		}
	}
}

static void cancel_slot(struct nbd *nbd, struct nbd_slot *slot)
{
	if (slot->cancelled)
		return;
	slot->cancelled = true;
	nbd_slot_let_go(nbd, slot);
	if (!slot->request)
		return;
	/* Neither loses a byte: an op that has moved some ends with their number. */
	if (nbd_receive_touches(nbd, slot))
		loop_cancel(nbd->block.loop, &nbd->receive.op);
	if (slot->in_list && slot->offered)
		loop_cancel(nbd->block.loop, &nbd->send.op);
	loop_timer_arm(nbd->block.loop, &nbd->stall_timer, loop_now_ns() + STALL_NS);
}

/* What is in neither has ended already, and its `done` is on its way. */
static void nbd_cancel(struct block *block, struct block_request *request)
{
	struct nbd *nbd = nbd_of(block);
	for (struct block_request **at = &nbd->queue_head; *at; at = &(*at)->next) {
		if (*at != request)
			continue;
		queue_unlink(nbd, at);
		nbd_end(nbd, request, -ECANCELED);
		return;
	}
	for (unsigned i = 0; i < NBD_SLOTS; i++) {
		if (nbd->slots[i].cookie && nbd->slots[i].request == request) {
			cancel_slot(nbd, &nbd->slots[i]);
			return;
		}
	}
}

/* --- closing and opening --------------------------------------------------------------------------------------------
 */

/* A server that is told closes in good order; with half a command sent there is no way to tell it. */
static void say_goodbye(const struct nbd *nbd)
{
	uint8_t header[NBD_REQUEST_SIZE] = {0};
	if (nbd->link != NBD_LINK_UP || nbd->send.head || nbd->send.op.state != LOOP_OP_IDLE)
		return;
	nbd_put16(nbd_put32(header, NBD_REQUEST_MAGIC) + 2, NBD_CMD_DISC);
	(void)!send(nbd->fd, header, sizeof(header), MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void end_op(struct nbd *nbd, struct loop_op *op)
{
	if (op->state == LOOP_OP_IDLE)
		return;
	loop_cancel(nbd->block.loop, op);
	loop_drain(nbd->block.loop, op);
}

static void nbd_destroy(struct block *block)
{
	struct nbd *nbd = nbd_of(block);
	say_goodbye(nbd);
	nbd->freeing = true;
	nbd->link = NBD_LINK_CLOSING;
	end_op(nbd, &nbd->setup_op);
	end_op(nbd, &nbd->send.op);
	end_op(nbd, &nbd->receive.op);

	struct loop_timer *timers[] = {&nbd->link_timer, &nbd->patience_timer, &nbd->silence_timer, &nbd->stall_timer,
				       &nbd->full_timer};
	for (unsigned i = 0; i < ARRAY_SIZE(timers); i++)
		loop_timer_disarm(block->loop, timers[i]);
	loop_unpost(block->loop, &nbd->work_task);
	loop_unpost(block->loop, &nbd->ending_task);
	fd_close(&nbd->fd);
	free(nbd->text);
	free(nbd);
}

static const struct block_ops NBD_OPS = {
	.name = "nbd",
	.submit = nbd_submit,
	.cancel = nbd_cancel,
	.destroy = nbd_destroy,
};

void nbd_set_limits(struct nbd *nbd)
{
	uint32_t max = nbd->export.max_block;
	uint32_t block = nbd->block.info.block_size_bytes;
	nbd->transfer_max_bytes = (uint32_t)align_down(min_u64(max, TRANSFER_MAX), block);
	nbd->zeroes_max_bytes = (uint32_t)align_down(min_u64(max, BIG_RANGE_MAX), block);
}

static int set_info(struct nbd *nbd, bool read_only, struct err *err)
{
	struct block_info *info = &nbd->block.info;
	const struct nbd_export *export = &nbd->export;
	uint32_t block = (uint32_t)max_u64(export->min_block, BLOCK_SECTOR_BYTES);
	if (block > BLOCK_SIZE_MAX)
		return err_config(err, -ENOTSUP, "the server wants blocks of %u bytes; at most %u are supported", block,
				  BLOCK_SIZE_MAX);
	if (export->max_block < block)
		return err_config(err, -ENOTSUP, "the server takes %u bytes at once; at least %u are needed",
				  export->max_block, block);
	info->read_only = read_only || (export->flags & NBD_FLAG_READ_ONLY);
	info->block_size_bytes = block;
	info->physical_block_bytes = (uint32_t)max_u64(block, min_u64(export->preferred_block, BLOCK_SIZE_MAX));
	info->optimal_io_bytes = export->preferred_block > BLOCK_SIZE_MAX ? export->preferred_block : 0;
	info->size_bytes = align_down(export->size_bytes, block);
	if (info->size_bytes == 0)
		return err_config(err, -EINVAL, "the export is empty");
	info->can_write_zeroes = !info->read_only && (export->flags & NBD_FLAG_SEND_WRITE_ZEROES);
	if (!info->read_only && (export->flags & NBD_FLAG_SEND_TRIM))
		info->discard_granularity_bytes = info->physical_block_bytes;
	if (info->size_bytes != export->size_bytes)
		log_warn(nbd->log, "disk 'nbd=%s': the last %u bytes are no whole block and cannot be used", nbd->text,
			 (unsigned)(export->size_bytes - info->size_bytes));
	nbd_set_limits(nbd);
	return 0;
}

static struct nbd *nbd_alloc(struct loop *loop, const struct log *log, const struct block_nbd_config *config)
{
	struct nbd *nbd = calloc(1, sizeof(*nbd));
	char *text = strdup(config->address);
	if (!nbd || !text) {
		free(nbd);
		free(text);
		return NULL;
	}
	block_init(&nbd->block, &NBD_OPS, loop);
	nbd->log = log;
	nbd->text = text;
	nbd->fd = -1;
	nbd->patience_ns = (config->reconnect_seconds ? config->reconnect_seconds : DEFAULT_PATIENCE_S) * NS_PER_S;
	nbd->queue_tail = &nbd->queue_head;
	nbd->ended_tail = &nbd->ended_head;
	nbd->setup_op.done = nbd_setup_done;
	nbd->send.op.done = nbd_send_done;
	nbd->receive.op.done = nbd_receive_done;
	nbd->link_timer.fn = nbd_link_timer;
	nbd->patience_timer.fn = patience_ended;
	nbd->silence_timer.fn = silence_lasted;
	nbd->stall_timer.fn = stalled;
	nbd->full_timer.fn = ring_may_have_room;
	nbd->work_task.fn = work;
	nbd->ending_task.fn = end_requests;
	nbd_send_reset(nbd);
	nbd_receive_reset(nbd);
	return nbd;
}

struct block *block_nbd_open(struct loop *loop, const struct log *log, const struct block_nbd_config *config,
			     struct err *err)
{
	struct nbd *nbd = nbd_alloc(loop, log, config);
	if (!nbd) {
		err_set(err, -ENOMEM, "disk 'nbd=%s': %s", config->address, err_name(ENOMEM));
		return NULL;
	}
	if (nbd_address_resolve(nbd->text, &nbd->address, err) < 0 || nbd_connect_now(nbd, err) < 0 ||
	    set_info(nbd, config->read_only, err) < 0) {
		err_wrap(err, "disk 'nbd=%s'", config->address);
		nbd_destroy(&nbd->block);
		return NULL;
	}
	return &nbd->block;
}
