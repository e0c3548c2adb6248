/*
 * A virtqueue of either kind against a driver that does anything to its memory, at any time.
 *
 * Byte 0 chooses kind and features, byte 1 the size, bytes 2 and 3 where the driver and device areas lie (also over
 * each other). Then steps: an op and what it needs.
 */
#include <assert.h>
#include <errno.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>

#include "util.h"
#include "virtio/virtq.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes);

/* [0, 16K) and [16K, 24K) touch; a hole; [64K, 68K). Descriptors at 0, the rest where the input says. */
enum { SIZE_LOG_MAX = 5, SIZE_MAX_DESC = 1 << SIZE_LOG_MAX, SEAM = 0x4000, HOLE = 0x6000, HIGH = 0x10000 };

enum { PACKED = 1, INDIRECT = 2, EVENT_IDX = 4 };

struct input {
	const uint8_t *data;
	size_t left;
};

static uint8_t next_u8(struct input *in)
{
	if (in->left == 0)
		return 0;
	in->left--;
	return *in->data++;
}

static uint16_t next_u16(struct input *in)
{
	uint16_t low = next_u8(in);
	return (uint16_t)(low | next_u8(in) << 8);
}

struct machine {
	struct gmem *gmem;
	struct virtq_config config;
	struct virtq *q;
	struct virtq_chain in_flight[SIZE_MAX_DESC];
	unsigned count, descriptors;
	bool overlap, broken, pushed, can_unpop;
};

static struct gmem *make_ram(void)
{
	const struct gmem_region regions[] = {{0, SEAM, NULL}, {SEAM, HOLE - SEAM, NULL}, {HIGH, 0x1000, NULL}};
	struct gmem *gmem = gmem_new(regions, ARRAY_SIZE(regions), NULL);
	if (!gmem)
		abort();
	return gmem;
}

static bool make_queue(struct machine *m, struct input *in)
{
	uint8_t kind = next_u8(in), size = next_u8(in), driver = next_u8(in), device = next_u8(in);
	m->config = (struct virtq_config){
		.packed = kind & PACKED,
		.indirect = kind & INDIRECT,
		.event_idx = kind & EVENT_IDX,
		.size = (uint16_t)(kind & PACKED ? 1 + size % SIZE_MAX_DESC : 1 << size % (SIZE_LOG_MAX + 1)),
		.driver = driver * 16ULL,
		.device = device * 16ULL,
	};
	/* A split used ring takes 16 of these units at most, an available ring 5. */
	m->overlap = driver < 32 || device < 32 || (driver < device + 17 && device < driver + 6);
	m->q = virtq_new(m->gmem, &m->config, NULL);
	return m->q;
}

/* --- what must hold ---------------------------------------------------------------------------------------- */

static bool in_ram(const struct gmem *gmem, const struct iovec *span)
{
	const uint8_t *host = span->iov_base;
	for (unsigned i = 0; i < gmem->region_count; i++) {
		const struct gmem_region *r = &gmem->regions[i];
		if (host >= r->host && host < r->host + r->size_bytes)
			return span->iov_len && span->iov_len <= (size_t)(r->host + r->size_bytes - host);
	}
	return false;
}

static uint64_t check_spans(const struct gmem *gmem, const struct iovec *iov, unsigned count)
{
	uint64_t sum = 0;
	for (unsigned i = 0; i < count; i++) {
		assert(in_ram(gmem, &iov[i]));
		sum += iov[i].iov_len;
	}
	return sum;
}

static void check_chain(const struct machine *m, const struct virtq_chain *chain)
{
	assert(chain->out_count + chain->in_count > 0);
	assert(check_spans(m->gmem, chain->iov, chain->out_count) == chain->out_bytes);
	assert(check_spans(m->gmem, chain->iov + chain->out_count, chain->in_count) == chain->in_bytes);
	assert(chain->descriptors > 0 && (m->config.packed || chain->descriptors == 1));
	assert(m->config.packed || chain->id < m->config.size);
}

static bool is_same(const struct virtq_chain *a, const struct virtq_chain *b)
{
	return a->id == b->id && a->descriptors == b->descriptors && a->out_count == b->out_count &&
	       a->in_count == b->in_count && a->out_bytes == b->out_bytes && a->in_bytes == b->in_bytes;
}

static void break_for_good(struct machine *m)
{
	m->broken = true;
	assert(virtq_error(m->q)[0]);
}

/* --- steps ------------------------------------------------------------------------------------------------- */

static void step_pop(struct machine *m)
{
	struct virtq_chain chain;
	int r = virtq_pop(m->q, &chain);
	assert(!m->broken || r == -EPROTO);
	m->can_unpop = r == 1;
	if (r < 0) {
		assert(r == -EPROTO);
		break_for_good(m);
		return;
	}
	if (r == 0) {
		/* Nobody has touched the ring since. */
		assert(m->overlap || !virtq_enable_doorbell(m->q));
		return;
	}
	assert(r == 1);
	check_chain(m, &chain);
	assert(m->count < m->config.size);
	m->in_flight[m->count++] = chain;
	m->descriptors += chain.descriptors;
	assert(m->descriptors <= m->config.size);
}

static void push_one(struct machine *m, unsigned which, uint32_t written_bytes)
{
	struct virtq_chain chain = m->in_flight[which];
	m->in_flight[which] = m->in_flight[--m->count];
	m->descriptors -= chain.descriptors;
	virtq_push(m->q, chain.id, chain.descriptors, written_bytes);
	m->pushed = true;
	m->can_unpop = false;
}

static void step_push(struct machine *m, uint8_t arg)
{
	if (m->count)
		push_one(m, arg % m->count, arg);
}

static void step_unpop(struct machine *m, bool again)
{
	if (!m->can_unpop)
		return;
	struct virtq_chain chain = m->in_flight[--m->count];
	m->descriptors -= chain.descriptors;
	m->can_unpop = false;
	virtq_unpop(m->q, &chain);
	assert(m->overlap || virtq_enable_doorbell(m->q));
	if (again) {
		struct virtq_chain same;
		assert(m->overlap || virtq_pop(m->q, &same) == 1);
		assert(m->overlap || is_same(&same, &chain));
		if (m->overlap)
			return;
		m->in_flight[m->count++] = same;
		m->descriptors += same.descriptors;
	}
}

/* The device answers: into buffers which may be the ring itself. */
static void step_fill(struct machine *m, uint8_t byte)
{
	if (!m->can_unpop) /* the spans are those of the last pop */
		return;
	const struct virtq_chain *chain = &m->in_flight[m->count - 1];
	uint8_t bytes[256];
	memset(bytes, byte, sizeof(bytes));
	size_t written = iov_write(chain->iov + chain->out_count, chain->in_count, byte, bytes, sizeof(bytes));
	assert(written <= sizeof(bytes) && written <= chain->in_bytes);
	assert(iov_read(chain->iov, chain->out_count, 0, bytes, sizeof(bytes)) ==
	       min_u64(chain->out_bytes, sizeof(bytes)));
	m->can_unpop = false; /* what was popped may be another chain now */
}

static void step_interrupt(struct machine *m)
{
	bool wants = virtq_wants_interrupt(m->q);
	assert(!wants || m->pushed);
	m->pushed = false;
	assert(!virtq_wants_interrupt(m->q));
}

/* The driver writes a few bytes anywhere. */
static void step_poke(struct machine *m, struct input *in)
{
	gpa_t gpa = next_u16(in);
	uint8_t bytes[16], count = next_u8(in) % sizeof(bytes) + 1;
	for (unsigned i = 0; i < count; i++)
		bytes[i] = next_u8(in);
	gmem_write(m->gmem, gpa, bytes, count);
	m->can_unpop = false;
}

/* A descriptor, mostly plausible: in the ring, or in memory further up where tables may be. */
static void step_describe(struct machine *m, struct input *in)
{
	unsigned index = next_u8(in);
	uint64_t addr = next_u16(in) * 4ULL;
	uint32_t len = next_u8(in);
	uint16_t flags = next_u8(in), other = next_u8(in);
	if (flags & 0x40)
		len *= 16;
	struct vring_desc split = {addr, len, flags, other};
	uint16_t packed_flags = (uint16_t)((flags & 0x87) | (flags & 8) << 12);
	struct vring_packed_desc packed = {addr, len, other, packed_flags};
	gmem_write(m->gmem, index * 16ULL, m->config.packed ? (void *)&packed : (void *)&split, sizeof(split));
	m->can_unpop = false;
}

/* The next entry of an available ring. */
static void step_offer(struct machine *m, uint8_t head)
{
	uint16_t idx = 0, entry = head;
	if (m->config.packed)
		return;
	gmem_read(m->gmem, m->config.driver + 2, &idx, sizeof(idx));
	gmem_write(m->gmem, m->config.driver + 4 + 2U * (idx & (m->config.size - 1U)), &entry, sizeof(entry));
	idx++;
	gmem_write(m->gmem, m->config.driver + 2, &idx, sizeof(idx));
	m->can_unpop = false;
}

static void step(struct machine *m, struct input *in)
{
	switch (next_u8(in) % 10) {
	case 0:
		step_pop(m);
		break;
	case 1:
		step_push(m, next_u8(in));
		break;
	case 2:
		step_unpop(m, next_u8(in) & 1);
		break;
	case 3:
		step_fill(m, next_u8(in));
		break;
	case 4:
		step_interrupt(m);
		break;
	case 5:
		assert(!virtq_enable_doorbell(m->q) || !m->broken);
		break;
	case 6:
		virtq_disable_doorbell(m->q);
		break;
	case 7:
		step_poke(m, in);
		break;
	case 8:
		step_describe(m, in);
		break;
	default:
		step_offer(m, next_u8(in));
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
	struct input in = {data, size_bytes};
	struct machine m = {.gmem = make_ram()};

	if (make_queue(&m, &in)) {
		while (in.left)
			step(&m, &in);
		step_interrupt(&m);
		while (m.count)
			push_one(&m, 0, 0);
	}
	virtq_free(m.q);
	gmem_free(m.gmem);
	return 0;
}
