/* The NBD client's sending: headers, and the data of writes from where the guest has them. */
#include "block_nbd_impl.h"

#include <errno.h>

#include "util.h"

static const uint64_t RING_FULL_NS = 10000000;

static uint64_t total_bytes(const struct nbd_slot *slot)
{
	return NBD_REQUEST_SIZE + (uint64_t)slot->payload_bytes;
}

void nbd_send_reset(struct nbd *nbd)
{
	nbd->send.head = NULL;
	nbd->send.tail = &nbd->send.head;
}

void nbd_send_push(struct nbd *nbd, struct nbd_slot *slot)
{
	slot->in_list = true;
	slot->next = NULL;
	*nbd->send.tail = slot;
	nbd->send.tail = &slot->next;
}

static void unlink_slot(struct nbd_send *send, struct nbd_slot *slot)
{
	struct nbd_slot **at = &send->head;
	while (*at != slot)
		at = &(*at)->next;
	*at = slot->next;
	if (!*at)
		send->tail = at;
	slot->in_list = false;
}

/* What the slot still has to send, into the message from span `at` on; false when it did not all fit. */
static bool add_slot(struct nbd_send *send, struct nbd_slot *slot, unsigned *at)
{
	uint64_t sent = slot->sent_bytes, covered = 0;
	if (*at == NBD_IOV_MAX)
		return false;
	slot->offered = true;
	if (sent < NBD_REQUEST_SIZE) {
		send->iov[(*at)++] = (struct iovec){slot->header + sent, NBD_REQUEST_SIZE - sent};
		sent = NBD_REQUEST_SIZE;
	}
	uint64_t left = total_bytes(slot) - sent;
	if (left)
		*at += nbd_slot_spans(slot, sent - NBD_REQUEST_SIZE, left, send->iov + *at, NBD_IOV_MAX - *at,
				      &covered);
	return covered == left;
}

void nbd_send_start(struct nbd *nbd)
{
	struct nbd_send *send = &nbd->send;
	if (!send->head || send->op.state != LOOP_OP_IDLE)
		return;
	unsigned count = 0;
	for (struct nbd_slot *slot = send->head; slot && add_slot(send, slot, &count);)
		slot = slot->next;
	send->message = (struct msghdr){.msg_iov = send->iov, .msg_iovlen = count};
	if (loop_sendmsg(nbd->block.loop, &send->op, nbd->fd, &send->message) < 0)
		loop_timer_arm(nbd->block.loop, &nbd->full_timer, loop_now_ns() + RING_FULL_NS);
}

static void sent(struct nbd *nbd, uint64_t bytes)
{
	while (bytes) {
		struct nbd_slot *slot = nbd->send.head;
		uint64_t n = min_u64(total_bytes(slot) - slot->sent_bytes, bytes);
		slot->sent_bytes += n;
		bytes -= n;
		if (slot->sent_bytes < total_bytes(slot))
			break;
		unlink_slot(&nbd->send, slot);
		if (slot->answered)
			nbd_slot_finish(nbd, slot);
		else
			nbd_slot_let_go(nbd, slot);
	}
}

/* Slots of which nothing was sent are not with the kernel until the next message. */
static void withdraw_offers(struct nbd *nbd)
{
	for (struct nbd_slot *slot = nbd->send.head, *next; slot; slot = next) {
		next = slot->next;
		slot->offered = slot->sent_bytes > 0;
		nbd_slot_let_go(nbd, slot);
	}
}

bool nbd_send_cancel(struct nbd *nbd, struct nbd_slot *slot)
{
	if (slot->offered)
		return false;
	unlink_slot(&nbd->send, slot);
	nbd_end(nbd, slot->request, -ECANCELED);
	nbd_slot_free(nbd, slot);
	return true;
}

void nbd_send_done(struct loop_op *op, int res)
{
	struct nbd *nbd = container_of(op, struct nbd, send.op);
	if (nbd->link == NBD_LINK_CLOSING) {
		nbd_settle(nbd);
		return;
	}
	/* -ECANCELED: for the sake of one request; the others go on. */
	if (res == 0 || (res < 0 && res != -ECANCELED && res != -EAGAIN && res != -EINTR)) {
		nbd_lose(nbd, "the connection to the server broke");
		return;
	}
	sent(nbd, res > 0 ? (uint64_t)res : 0);
	withdraw_offers(nbd);
	nbd_send_start(nbd);
}
