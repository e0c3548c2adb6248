/* blk-check: resets, queue sizes, and chains that no driver should make. */
#include "blk-check.h"

enum { ROUNDS = 20, UNDER_WAY = 8, WRAP_REQUESTS = 70000, WRAP_DEPTH = 64, BAD_MS = 2000 };

/* --- reset in flight --- */

static uint8_t arena[UNDER_WAY][CHUNK] __attribute__((aligned(4096)));

static bool is_all(const uint8_t *data, uint8_t byte, uint32_t len)
{
	uint64_t want = byte * 0x0101010101010101;

	for (uint32_t i = 0; i < len / 8; i++)
		if (((const uint64_t *)data)[i] != want)
			return false;
	return true;
}

/* Once reset has read as 0, the device owns nothing: neither buffers nor rings may change (VIRTIO 1.2, 2.4). */
static void reset_round(unsigned round)
{
	uint32_t len = area_sectors < CHUNK_SECTORS ? (uint32_t)area_sectors * BLK_SECTOR : CHUNK;

	for (unsigned i = 0; i < UNDER_WAY; i++)
		blk_push(&blk, 1 + i, VIRTIO_BLK_T_IN, area_first, arena[i], len);
	blk_kick(&blk);
	clock_delay_us(round * 20);
	check(virtio_reset(&blk.dev), STATUS_RESET, "round %u: reset with reads under way", round);
	memset(arena, 0x5a, sizeof(arena));
	restart(0, VIRTIO_NO_VECTOR);
	check_alive(STATUS_RESET + 1, "after it");
	clock_delay_us(2000);
	for (unsigned i = 0; i < UNDER_WAY; i++)
		if (!is_all(arena[i], 0x5a, CHUNK))
			check(false, STATUS_RESET + 2, "buffer %u was written after the reset", i);
	if (blk.q.used->idx != 1)
		check(false, STATUS_RESET + 3, "the used index is %u after one request", blk.q.used->idx);
}

void check_reset(void)
{
	for (unsigned round = 0; round < ROUNDS; round++)
		reset_round(round);
	check(true, STATUS_RESET + 2, "nothing is written after a reset");
}

/* --- sizes and indices --- */

static void push_read(unsigned tag)
{
	if (!blk_push(&blk, tag, VIRTIO_BLK_T_IN, area_first, chunk + tag % 64 * BLK_SECTOR, BLK_SECTOR))
		check(false, STATUS_SIZES + 3, "a place in the ring for request %u", tag);
}

/* `count` reads of a sector, `depth` at a time; each ends before its tag is used again. */
static void read_many(unsigned count, unsigned depth, uint8_t status)
{
	uint64_t end = rdtsc() + 200000000000;
	unsigned tag, taken = 0;
	uint32_t len;

	for (tag = 0; tag < depth; tag++)
		push_read(tag);
	for (blk_kick(&blk); taken < count; blk_kick(&blk)) {
		while (blk_take(&blk, &tag, &len)) {
			taken++;
			if (blk_status(tag) != VIRTIO_BLK_S_OK || len != BLK_SECTOR + 1)
				check(false, status, "request %u: status %u, used length %u", taken, blk_status(tag),
				      len);
			if (taken + depth <= count)
				push_read(tag);
		}
		if (rdtsc() > end)
			check(false, status, "%u of %u requests have ended", taken, count);
	}
}

void check_sizes(void)
{
	unsigned max = blk.q.size;

	for (unsigned size = 1; size <= max; size *= 2) {
		restart(size, VIRTIO_NO_VECTOR);
		if (size < 4 && !blk.q.indirect)
			continue;
		check(blk.q.size == size, STATUS_SIZES, "a queue of %u", size);
		read_many(2 * size + 3, blk.q.indirect ? size : size / 3, STATUS_SIZES + 1);
	}
	restart(0, VIRTIO_NO_VECTOR);
	check_alive(STATUS_SIZES + 2, "at the end");
}

void check_wrap(void)
{
	restart(0, VIRTIO_NO_VECTOR);
	read_many(WRAP_REQUESTS, WRAP_DEPTH, STATUS_WRAP);
	check(blk.q.used->idx == (uint16_t)WRAP_REQUESTS, STATUS_WRAP + 1, "%u requests, used index %u", WRAP_REQUESTS,
	      blk.q.used->idx);
}

/* --- bad chains --- */

static struct virtio_blk_outhdr header;
static volatile uint8_t answer;

static void describe(struct vring_desc *d, const volatile void *addr, uint32_t len, unsigned flags, unsigned next)
{
	*d = (struct vring_desc){(uintptr_t)addr, len, (uint16_t)flags, (uint16_t)next};
}

/* A good read at descriptors 0 to 2; each case spoils it. */
static void good_chain(void)
{
	struct vring_desc *d = blk.q.desc;

	header = (struct virtio_blk_outhdr){.type = VIRTIO_BLK_T_IN, .sector = area_first};
	answer = BLK_NO_ANSWER;
	describe(&d[0], &header, sizeof(header), VRING_DESC_F_NEXT, 1);
	describe(&d[1], chunk, BLK_SECTOR, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 2);
	describe(&d[2], &answer, 1, VRING_DESC_F_WRITE, 0);
}

static void bad_loop(void)
{
	blk.q.desc[2].flags |= VRING_DESC_F_NEXT;
	blk.q.desc[2].next = 1;
}
static void bad_next(void)
{
	blk.q.desc[1].next = (uint16_t)blk.q.size;
}
static void bad_address(void)
{
	blk.q.desc[1].addr = (uint64_t)1 << 45;
}
static void bad_wrapping_address(void)
{
	blk.q.desc[1].addr = UINT64_MAX - 100;
}
static void bad_header_address(void)
{
	blk.q.desc[0].addr = (uint64_t)1 << 45;
}
static void bad_short_header(void)
{
	blk.q.desc[0].len = 8;
}
static void bad_no_status(void)
{
	blk.q.desc[0].flags = 0;
}
static void bad_order(void)
{
	blk.q.desc[0].flags |= VRING_DESC_F_WRITE;
	blk.q.desc[1].flags &= (uint16_t)~VRING_DESC_F_WRITE;
}
static void bad_head(void)
{
	blk.q.avail->ring[0] = (uint16_t)blk.q.size;
}
static uint16_t bad_avail_idx;

static void bad_index(void)
{
	bad_avail_idx = (uint16_t)(blk.q.size + 1);
}

/* Indirect: descriptor 0 says where the table is; the good chain is in it. */
static void make_indirect(uint32_t len)
{
	static struct vring_desc table[3];

	memcpy(table, blk.q.desc, sizeof(table));
	describe(&blk.q.desc[0], table, len, VRING_DESC_F_INDIRECT, 0);
}
static void bad_indirect_length(void)
{
	make_indirect(47);
}
static void bad_indirect_empty(void)
{
	make_indirect(0);
}
static void bad_indirect_next(void)
{
	make_indirect(48);
	blk.q.desc[0].flags |= VRING_DESC_F_NEXT;
}
static void bad_indirect_nested(void)
{
	make_indirect(48);
	((struct vring_desc *)blk.q.desc[0].addr)[1].flags |= VRING_DESC_F_INDIRECT;
}
static void bad_indirect_past_end(void)
{
	make_indirect(32);
}

static const struct bad {
	const char *name;
	void (*spoil)(void);
	bool indirect;
} bads[] = {
	{"a chain in a circle", bad_loop, false},
	{"next beyond the table", bad_next, false},
	{"data outside of memory", bad_address, false},
	{"data at the end of the address space", bad_wrapping_address, false},
	{"the header outside of memory", bad_header_address, false},
	{"a short header", bad_short_header, false},
	{"no room for the status", bad_no_status, false},
	{"readable after writable", bad_order, false},
	{"a head beyond the table", bad_head, false},
	{"an index too far ahead", bad_index, false},
	{"an indirect table of 47 bytes", bad_indirect_length, true},
	{"an indirect table of no bytes", bad_indirect_empty, true},
	{"indirect and next", bad_indirect_next, true},
	{"indirect in indirect", bad_indirect_nested, true},
	{"next beyond an indirect table", bad_indirect_past_end, true},
};

/*
 * The device may break itself or answer with an error; it may not fall silent, do it, or stay broken after a reset.
 * `lenient`: it may do it. QEMU's devices write to addresses that are nobody's without an error.
 */
static void check_one_bad(const struct bad *bad)
{
	bool broken = false, used = false, lenient = arg_has("lenient");

	restart(0, VIRTIO_NO_VECTOR);
	good_chain();
	blk.q.avail->ring[0] = 0;
	blk.q.next_avail = bad_avail_idx = 1;
	bad->spoil();
	/* Only now: a device may look without being told. */
	__atomic_store_n(&blk.q.avail->idx, bad_avail_idx, __ATOMIC_RELEASE);
	virtq_kick(&blk.q);
	for (unsigned ms = 0; ms < BAD_MS && !broken && !used; ms++) {
		clock_delay_us(1000);
		broken = virtio_status(&blk.dev) & VIRTIO_CONFIG_S_NEEDS_RESET;
		used = *(volatile uint16_t *)&blk.q.used->idx != 0;
	}
	check(broken || (used && (lenient || answer != VIRTIO_BLK_S_OK)), STATUS_BAD, "%s: %s, status %u", bad->name,
	      broken ? "needs a reset"
	      : used ? "answered"
		     : "silent",
	      answer);
	restart(0, VIRTIO_NO_VECTOR);
	check_alive(STATUS_BAD + 1, "after a reset");
}

void check_bad(void)
{
	for (unsigned i = 0; i < sizeof(bads) / sizeof(bads[0]); i++)
		if (!bads[i].indirect || blk.q.indirect)
			check_one_bad(&bads[i]);
}
