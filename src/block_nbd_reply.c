/*
 * The NBD client's receiving: simple replies, and structured replies chunk by chunk, in any order.
 *
 * Headers and small payloads come through a buffer; the data of a read that is not in it yet is received where the
 * guest wants it. Nothing that a server sends makes this allocate, wait or loop: lengths are held against what was
 * asked before a byte of payload is taken, and whatever does not fit ends the connection.
 */
#include "block_nbd_impl.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "util.h"

enum {
	ERROR_LENGTH_MAX = 8192, /* of an error chunk: the specification's longest string, and some */
	ERROR_CHUNKS_MAX = 1024, /* of one reply */
	DATA_FIXED_SIZE = 8,
	HOLE_FIXED_SIZE = 12,
	ERROR_FIXED_SIZE = 6,
	ERROR_OFFSET_MIN = 14,
	IN_CHAOS = -EPROTO,
	NEED_MORE = 0,
	GO_ON = 1,
};
static const uint64_t RING_FULL_NS = 10000000;

static int complain(struct nbd_receive *in, const char *what)
{
	in->complaint = what;
	return IN_CHAOS;
}

void nbd_receive_reset(struct nbd *nbd)
{
	struct nbd_receive *in = &nbd->receive;
	in->state = NBD_IN_HEADER;
	in->slot = NULL;
	in->begin = in->end = 0;
	in->direct_bytes = 0;
}

/* --- slots ---------------------------------------------------------------------------------------------------- */

static struct nbd_slot *find_slot(struct nbd *nbd, uint64_t cookie)
{
	struct nbd_slot *slot = &nbd->slots[cookie % NBD_SLOTS];
	bool asked = cookie && slot->cookie == cookie && slot->offered && !slot->answered;
	return asked ? slot : NULL;
}

/* Does somebody want its data? */
static bool is_wanted(const struct nbd_slot *slot)
{
	return slot->request && !slot->cancelled;
}

bool nbd_receive_touches(const struct nbd *nbd, const struct nbd_slot *slot)
{
	return nbd->receive.slot == slot && nbd->receive.direct_bytes && nbd->receive.op.state != LOOP_OP_IDLE;
}

static int errno_of(uint32_t error)
{
	switch (error) {
	case NBD_EPERM:
		return -EPERM;
	case NBD_ENOMEM:
		return -ENOMEM;
	case NBD_EINVAL:
		return -EINVAL;
	case NBD_ENOSPC:
		return -ENOSPC;
	case NBD_EOVERFLOW:
		return -EOVERFLOW;
	case NBD_ENOTSUP:
		return -EOPNOTSUPP;
	case NBD_ESHUTDOWN:
		return -ESHUTDOWN;
	default:
		return -EIO;
	}
}

static bool is_whole(const struct nbd_slot *slot)
{
	return slot->island_count == 1 && slot->islands[0].begin == 0 && slot->islands[0].end == slot->size_bytes;
}

/* The range [begin, end) arrives: note it, joined with its neighbours. False: some of it had been there. */
static bool claim(struct nbd_slot *slot, uint32_t begin, uint32_t end)
{
	struct nbd_island *islands = slot->islands;
	unsigned i = 0, count = slot->island_count;
	while (i < count && islands[i].end < begin)
		i++;
	if (i < count && islands[i].end == begin) {
		if (i + 1 < count && islands[i + 1].begin < end)
			return false;
		islands[i].end = end;
		if (i + 1 < count && islands[i + 1].begin == end) {
			islands[i].end = islands[i + 1].end;
			memmove(&islands[i + 1], &islands[i + 2], (count - i - 2) * sizeof(*islands));
			slot->island_count--;
		}
		return true;
	}
	if (i < count && islands[i].begin < end)
		return false;
	if (i < count && islands[i].begin == end) {
		islands[i].begin = begin;
		return true;
	}
	if (count == NBD_ISLANDS_MAX)
		return false;
	memmove(&islands[i + 1], &islands[i], (count - i) * sizeof(*islands));
	islands[i] = (struct nbd_island){begin, end};
	slot->island_count++;
	return true;
}

/* --- the end of chunks and replies ------------------------------------------------------------------------------ */

static int end_reply(struct nbd *nbd, struct nbd_slot *slot)
{
	static const char *const NAMES[] = {"read", "write", "", "flush", "trim", "", "write zeroes"};
	if (slot->error == -ESHUTDOWN)
		return complain(&nbd->receive, "the server is shutting down");
	if (slot->command == NBD_CMD_READ && slot->error == 0 && !is_whole(slot))
		return complain(&nbd->receive, "the server's answer to a read has gaps");
	if (slot->error && is_wanted(slot))
		log_guest(nbd->log, &nbd->limit, "disk 'nbd=%s': the server could not %s %u bytes at %llu: %s",
			  nbd->text, NAMES[slot->command], slot->size_bytes, (unsigned long long)slot->offset_bytes,
			  err_name(slot->error));
	slot->answered = nbd->has_answered = true;
	if (!slot->in_list)
		nbd_slot_finish(nbd, slot);
	return GO_ON;
}

static int end_chunk(struct nbd *nbd)
{
	struct nbd_receive *in = &nbd->receive;
	struct nbd_slot *slot = in->slot;
	in->state = NBD_IN_HEADER;
	in->slot = NULL;
	return in->last ? end_reply(nbd, slot) : GO_ON;
}

/* --- steps: each takes what it needs from the buffer, or asks for more -------------------------------------------- */

static int begin_data(struct nbd_receive *in, uint32_t at_bytes, uint32_t size_bytes)
{
	if (!claim(in->slot, at_bytes, at_bytes + size_bytes))
		return complain(in, "the server sent the same data twice, or in too many pieces");
	in->at_bytes = at_bytes;
	in->left_bytes = size_bytes;
	in->state = NBD_IN_DATA;
	return GO_ON;
}

static int take_simple(struct nbd *nbd, const uint8_t *p)
{
	struct nbd_receive *in = &nbd->receive;
	struct nbd_slot *slot = find_slot(nbd, nbd_load64(p + 8));
	uint32_t error = nbd_load32(p + 4);
	if (!slot)
		return complain(in, "the server answered what was not asked");
	if (slot->error_chunks || slot->island_count)
		return complain(in, "the server mixed two kinds of answer");
	in->slot = slot;
	in->last = true;
	if (error)
		slot->error = errno_of(error);
	if (error || slot->command != NBD_CMD_READ)
		return end_chunk(nbd);
	if (nbd->export.structured)
		return complain(in, "the server answered a read without the structure it had promised");
	return begin_data(in, 0, slot->size_bytes);
}

/* The chunk's length against its type and the request: then its fixed part is waited for. */
static int check_chunk(struct nbd_receive *in)
{
	const struct nbd_slot *slot = in->slot;
	bool is_read = slot->command == NBD_CMD_READ;
	uint32_t length = in->left_bytes;
	bool fits = false;
	if (in->type == NBD_REPLY_TYPE_NONE)
		fits = length == 0 && in->last;
	else if (in->type == NBD_REPLY_TYPE_OFFSET_DATA)
		fits = is_read && length > DATA_FIXED_SIZE && length - DATA_FIXED_SIZE <= slot->size_bytes;
	else if (in->type == NBD_REPLY_TYPE_OFFSET_HOLE)
		fits = is_read && length == HOLE_FIXED_SIZE;
	else if (in->type == NBD_REPLY_TYPE_ERROR_OFFSET)
		fits = length >= ERROR_OFFSET_MIN && length <= ERROR_LENGTH_MAX;
	else if (in->type & NBD_REPLY_FLAG_ERROR)
		fits = length >= ERROR_FIXED_SIZE && length <= ERROR_LENGTH_MAX;
	return fits ? GO_ON : complain(in, "a chunk of the server's answer has a wrong type or length");
}

static int take_chunk_header(struct nbd *nbd, const uint8_t *p)
{
	struct nbd_receive *in = &nbd->receive;
	if (!nbd->export.structured)
		return complain(in, "the server sent a structured answer, which was not agreed on");
	in->slot = find_slot(nbd, nbd_load64(p + 8));
	if (!in->slot)
		return complain(in, "the server answered what was not asked");
	in->last = nbd_load16(p + 4) & NBD_REPLY_FLAG_DONE;
	in->type = nbd_load16(p + 6);
	in->left_bytes = nbd_load32(p + 16);
	int r = check_chunk(in);
	if (r < 0)
		return r;
	if (in->type == NBD_REPLY_TYPE_NONE)
		return end_chunk(nbd);
	in->state = NBD_IN_CHUNK;
	return GO_ON;
}

static int step_header(struct nbd *nbd)
{
	struct nbd_receive *in = &nbd->receive;
	const uint8_t *p = in->buffer + in->begin;
	size_t have = in->end - in->begin;
	if (have < sizeof(uint32_t))
		return NEED_MORE;
	uint32_t magic = nbd_load32(p);
	if (magic != NBD_SIMPLE_REPLY_MAGIC && magic != NBD_STRUCTURED_REPLY_MAGIC)
		return complain(in, "what the server sent is no answer");
	size_t need = magic == NBD_SIMPLE_REPLY_MAGIC ? NBD_SIMPLE_REPLY_SIZE : NBD_CHUNK_SIZE;
	if (have < need)
		return NEED_MORE;
	in->begin += need;
	return magic == NBD_SIMPLE_REPLY_MAGIC ? take_simple(nbd, p) : take_chunk_header(nbd, p);
}

/* Where in the slot's range a chunk lies; false: it does not. */
static bool place_chunk(const struct nbd_slot *slot, uint64_t offset_bytes, uint32_t size_bytes, uint32_t *ret_at_bytes)
{
	uint64_t at = offset_bytes - slot->offset_bytes;
	if (offset_bytes < slot->offset_bytes || size_bytes == 0 || size_bytes > slot->size_bytes ||
	    at > slot->size_bytes - size_bytes)
		return false;
	*ret_at_bytes = (uint32_t)at;
	return true;
}

static int take_data(struct nbd_receive *in, const uint8_t *p)
{
	uint32_t at, size = in->left_bytes - DATA_FIXED_SIZE;
	if (!place_chunk(in->slot, nbd_load64(p), size, &at))
		return complain(in, "the server sent data from outside the range that was read");
	return begin_data(in, at, size);
}

/* From `data` into the request's memory; NULL: zeroes. */
static void fill(const struct nbd_slot *slot, uint32_t at_bytes, const uint8_t *data, uint64_t size_bytes)
{
	while (size_bytes) {
		struct iovec iov[16];
		uint64_t covered;
		unsigned count = nbd_slot_spans(slot, at_bytes, size_bytes, iov, ARRAY_SIZE(iov), &covered);
		for (unsigned i = 0; i < count; i++) {
			if (data)
				memcpy(iov[i].iov_base, data, iov[i].iov_len);
			else
				memset(iov[i].iov_base, 0, iov[i].iov_len);
			data = data ? data + iov[i].iov_len : NULL;
		}
		at_bytes += (uint32_t)covered;
		size_bytes -= covered;
	}
}

static int take_hole(struct nbd *nbd, const uint8_t *p)
{
	struct nbd_receive *in = &nbd->receive;
	uint32_t at, size = nbd_load32(p + 8);
	if (!place_chunk(in->slot, nbd_load64(p), size, &at))
		return complain(in, "the server sent a hole outside the range that was read");
	if (!claim(in->slot, at, at + size))
		return complain(in, "the server sent the same data twice, or in too many pieces");
	if (is_wanted(in->slot))
		fill(in->slot, at, NULL, size);
	return end_chunk(nbd);
}

static int take_error(struct nbd_receive *in, const uint8_t *p)
{
	struct nbd_slot *slot = in->slot;
	uint32_t error = nbd_load32(p),
		 min = in->type == NBD_REPLY_TYPE_ERROR_OFFSET ? ERROR_OFFSET_MIN : ERROR_FIXED_SIZE;
	if (nbd_load16(p + 4) > in->left_bytes - min || ++slot->error_chunks > ERROR_CHUNKS_MAX)
		return complain(in, "the server's error messages are malformed");
	if (slot->error == 0)
		slot->error = errno_of(error);
	in->left_bytes -= ERROR_FIXED_SIZE;
	in->state = NBD_IN_SKIP;
	return GO_ON;
}

static int step_chunk(struct nbd *nbd)
{
	struct nbd_receive *in = &nbd->receive;
	const uint8_t *p = in->buffer + in->begin;
	size_t need = in->type == NBD_REPLY_TYPE_OFFSET_DATA   ? DATA_FIXED_SIZE
		      : in->type == NBD_REPLY_TYPE_OFFSET_HOLE ? HOLE_FIXED_SIZE
							       : ERROR_FIXED_SIZE;
	if (in->end - in->begin < need)
		return NEED_MORE;
	in->begin += need;
	if (in->type == NBD_REPLY_TYPE_OFFSET_DATA)
		return take_data(in, p);
	if (in->type == NBD_REPLY_TYPE_OFFSET_HOLE)
		return take_hole(nbd, p);
	return take_error(in, p);
}

static int step_payload(struct nbd *nbd)
{
	struct nbd_receive *in = &nbd->receive;
	uint32_t n = (uint32_t)min_u64(in->end - in->begin, in->left_bytes);
	if (in->state == NBD_IN_DATA && is_wanted(in->slot))
		fill(in->slot, in->at_bytes, in->buffer + in->begin, n);
	in->begin += n;
	in->at_bytes += n;
	in->left_bytes -= n;
	return in->left_bytes ? NEED_MORE : end_chunk(nbd);
}

static int step(struct nbd *nbd)
{
	assert(nbd->receive.state == NBD_IN_HEADER || nbd->receive.slot);
	switch (nbd->receive.state) {
	case NBD_IN_HEADER:
		return step_header(nbd);
	case NBD_IN_CHUNK:
		return step_chunk(nbd);
	case NBD_IN_DATA:
	case NBD_IN_SKIP:
		break;
	}
	return step_payload(nbd);
}

/* --- the socket ------------------------------------------------------------------------------------------------- */

/* The rest of a read's data goes to the request's memory, and what comes behind it to the buffer. */
static unsigned prepare_spans(struct nbd_receive *in)
{
	unsigned count = 0;
	bool all = true;
	in->direct_bytes = 0;
	if (in->state == NBD_IN_DATA && is_wanted(in->slot)) {
		count = nbd_slot_spans(in->slot, in->at_bytes, in->left_bytes, in->iov, NBD_IOV_MAX, &in->direct_bytes);
		all = in->direct_bytes == in->left_bytes;
	}
	if (all)
		in->iov[count++] = (struct iovec){in->buffer + in->end, sizeof(in->buffer) - in->end};
	return count;
}

void nbd_receive_start(struct nbd *nbd)
{
	struct nbd_receive *in = &nbd->receive;
	if (nbd->link != NBD_LINK_UP || in->op.state != LOOP_OP_IDLE || !nbd->busy_slots)
		return;
	memmove(in->buffer, in->buffer + in->begin, in->end - in->begin);
	in->end -= in->begin;
	in->begin = 0;
	in->message = (struct msghdr){.msg_iov = in->iov, .msg_iovlen = prepare_spans(in)};
	if (loop_recvmsg(nbd->block.loop, &in->op, nbd->fd, &in->message) < 0)
		loop_timer_arm(nbd->block.loop, &nbd->full_timer, loop_now_ns() + RING_FULL_NS);
}

static void received(struct nbd_receive *in, size_t bytes)
{
	uint32_t direct = (uint32_t)min_u64(bytes, in->direct_bytes);
	in->at_bytes += direct;
	in->left_bytes -= direct;
	in->end += bytes - direct;
	in->direct_bytes = 0;
}

void nbd_receive_done(struct loop_op *op, int res)
{
	struct nbd *nbd = container_of(op, struct nbd, receive.op);
	struct nbd_receive *in = &nbd->receive;
	if (nbd->link == NBD_LINK_CLOSING) {
		nbd_settle(nbd);
		return;
	}
	if (res == 0 || (res < 0 && res != -ECANCELED && res != -EAGAIN && res != -EINTR)) {
		nbd_lose(nbd, res ? "the connection to the server broke" : "the server closed the connection");
		return;
	}
	received(in, res > 0 ? (size_t)res : 0);
	nbd->heard_ns = loop_now_ns();
	if (in->slot)
		nbd_slot_let_go(nbd, in->slot);
	int r;
	do
		r = step(nbd);
	while (r == GO_ON);
	if (r == IN_CHAOS)
		nbd_lose(nbd, in->complaint);
	else
		nbd_receive_start(nbd);
}
