/*
 * Everything that a virtio-blk disk should do, section by section: what=a,b,c chooses (guests/README.md names them).
 * The disk's contents are overwritten: sectors first=N (0) to first + sectors=N (4096), and the last one. It runs in
 * ring 3 with interrupts on. Arguments of the driver: transport= mmio= pci= ecam= disk= event-idx= indirect=.
 */
#include "blk-check.h"

struct blk blk;
uint8_t chunk[CHUNK] __attribute__((aligned(4096)));
uint64_t area_first, area_sectors;

static uint64_t seed;
static char what[128];

void restart(unsigned queue_size, uint16_t vector)
{
	if (!blk_start(&blk, blk_features(), queue_size, vector))
		check(false, STATUS_INFO + 1, "the device refuses features 0x%lx, a queue of %u, vector %u",
		      blk.dev.features, queue_size, vector);
}

/* --- contents: each word tells its sector, its place and the seed --- */

static uint64_t pattern_word(uint64_t sector, uint32_t i)
{
	return (sector + 1) * 0x9e3779b97f4a7c15 + seed * 0xbf58476d1ce4e5b9 + i;
}

void pattern_fill(void *data, uint64_t sector, uint32_t len)
{
	uint64_t *words = data;

	for (uint32_t i = 0; i < len / 8; i++)
		words[i] = pattern_word(sector + i / (BLK_SECTOR / 8), i % (BLK_SECTOR / 8));
}

bool pattern_is(const void *data, uint64_t sector, uint32_t len)
{
	const uint64_t *words = data;

	for (uint32_t i = 0; i < len / 8; i++) {
		uint64_t want = pattern_word(sector + i / (BLK_SECTOR / 8), i % (BLK_SECTOR / 8));

		if (words[i] == want)
			continue;
		print("sector %lu, byte %u: 0x%lx instead of 0x%lx\n", sector + i / (BLK_SECTOR / 8),
		      i % (BLK_SECTOR / 8) * 8, words[i], want);
		return false;
	}
	return true;
}

void check_alive(uint8_t status, const char *when)
{
	uint8_t answer = blk_do(&blk, VIRTIO_BLK_T_IN, area_first, chunk, BLK_SECTOR);

	check(answer == VIRTIO_BLK_S_OK, status, "a read %s: status %u", when, answer);
}

/* --- what the device says of itself --- */

static void print_config(void)
{
	const struct virtio_dev *dev = &blk.dev;

	if (virtio_has(dev, VIRTIO_BLK_F_SEG_MAX) && virtio_has(dev, VIRTIO_BLK_F_BLK_SIZE))
		print("seg_max %lu, blk_size %lu\n", virtio_config(dev, offsetof(struct virtio_blk_config, seg_max), 4),
		      virtio_config(dev, offsetof(struct virtio_blk_config, blk_size), 4));
	if (virtio_has(dev, VIRTIO_BLK_F_TOPOLOGY))
		print("topology: exponent %lu, min_io %lu, opt_io %lu\n",
		      virtio_config(dev, offsetof(struct virtio_blk_config, physical_block_exp), 1),
		      virtio_config(dev, offsetof(struct virtio_blk_config, min_io_size), 2),
		      virtio_config(dev, offsetof(struct virtio_blk_config, opt_io_size), 4));
	if (virtio_has(dev, VIRTIO_BLK_F_MQ))
		print("num_queues %lu\n", virtio_config(dev, offsetof(struct virtio_blk_config, num_queues), 2));
	if (virtio_has(dev, VIRTIO_BLK_F_CONFIG_WCE))
		print("writeback %lu\n", virtio_config(dev, offsetof(struct virtio_blk_config, wce), 1));
	if (virtio_has(dev, VIRTIO_BLK_F_DISCARD))
		print("discard: %lu sectors, %lu segments, alignment %lu\n",
		      virtio_config(dev, offsetof(struct virtio_blk_config, max_discard_sectors), 4),
		      virtio_config(dev, offsetof(struct virtio_blk_config, max_discard_seg), 4),
		      virtio_config(dev, offsetof(struct virtio_blk_config, discard_sector_alignment), 4));
	if (virtio_has(dev, VIRTIO_BLK_F_WRITE_ZEROES))
		print("write zeroes: %lu sectors, %lu segments, may unmap %lu\n",
		      virtio_config(dev, offsetof(struct virtio_blk_config, max_write_zeroes_sectors), 4),
		      virtio_config(dev, offsetof(struct virtio_blk_config, max_write_zeroes_seg), 4),
		      virtio_config(dev, offsetof(struct virtio_blk_config, write_zeroes_may_unmap), 1));
}

static void check_info(void)
{
	uint64_t want = arg_u64("expect-sectors", blk.sectors);

	print("features offered 0x%lx, negotiated 0x%lx, queue of %u\n", blk.dev.offered, blk.dev.features, blk.q.size);
	print_config();
	check(blk.sectors == want && blk.sectors > 0, STATUS_INFO + 2, "capacity %lu sectors", blk.sectors);
	check(virtio_has(&blk.dev, VIRTIO_F_VERSION_1), STATUS_INFO + 3, "it is a modern device");
}

/* --- data --- */

/* Every chunk of the area by `type`; the last may be shorter. */
static void each_chunk(uint32_t type)
{
	for (uint64_t at = 0; at < area_sectors; at += CHUNK_SECTORS) {
		uint64_t n = area_sectors - at < CHUNK_SECTORS ? area_sectors - at : CHUNK_SECTORS;
		uint32_t len = (uint32_t)n * BLK_SECTOR;
		uint8_t answer;

		if (type == VIRTIO_BLK_T_OUT)
			pattern_fill(chunk, area_first + at, len);
		answer = blk_do(&blk, type, area_first + at, chunk, len);
		if (answer != VIRTIO_BLK_S_OK)
			check(false, STATUS_DATA, "status %u at sector %lu", answer, area_first + at);
		if (type == VIRTIO_BLK_T_IN && !pattern_is(chunk, area_first + at, len))
			check(false, STATUS_DATA + 1, "what was read is what was written");
	}
}

static void check_write(void)
{
	each_chunk(VIRTIO_BLK_T_OUT);
	check(true, STATUS_DATA, "%lu sectors written from %lu on", area_sectors, area_first);
}

static void check_verify(void)
{
	each_chunk(VIRTIO_BLK_T_IN);
	check(true, STATUS_DATA + 1, "and read back");
}

/* Pieces of sizes that have nothing to do with sectors (VIRTIO 1.2, 2.7.4: framing is the driver's business). */
static void check_pieces(void)
{
	static const uint32_t cuts[] = {1, 511, 513, 7, 4096, 4089, 3, 1024, 2, 2042};
	struct virtio_buf pieces[sizeof(cuts) / sizeof(cuts[0])];
	uint32_t len = 0, written;
	unsigned tag, count = sizeof(cuts) / sizeof(cuts[0]);

	for (unsigned i = 0; i < count; len += cuts[i++])
		pieces[i] = (struct virtio_buf){chunk + len, cuts[i]};
	for (unsigned i = 0; i < 2; i++) {
		bool reads = i == 1;

		memset(chunk, 0, sizeof(chunk));
		if (!reads)
			pattern_fill(chunk, area_first + 3, len);
		blk_push_pieces(&blk, i, reads ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT, area_first + 3, pieces, count);
		blk_kick(&blk);
		for (uint64_t end = rdtsc() + 20000000000; !blk_take(&blk, &tag, &written) && rdtsc() < end;)
			cpu_pause();
		check(blk_status(i) == VIRTIO_BLK_S_OK, STATUS_DATA + 2, "%s %u bytes in %u pieces: status %u",
		      reads ? "reads" : "writes", len, count, blk_status(i));
		check(written == (reads ? len + 1 : 1), STATUS_DATA + 3, "the used length is %u", written);
	}
	check(pattern_is(chunk, area_first + 3, len), STATUS_DATA + 1, "what was read is what was written");
}

/* Header and status in pieces too. */
static void check_framing(void)
{
	static struct virtio_blk_outhdr header;
	static volatile uint8_t status = BLK_NO_ANSWER;
	const struct virtio_buf bufs[] = {{&header, 3}, {(uint8_t *)&header + 3, 9}, {(uint8_t *)&header + 12, 4},
					  {chunk, 100}, {chunk + 100, 412},          {(const void *)&status, 1}};

	pattern_fill(chunk, area_first + 3, BLK_SECTOR);
	blk_do(&blk, VIRTIO_BLK_T_OUT, area_first + 3, chunk, BLK_SECTOR);
	memset(chunk, 0, BLK_SECTOR);
	header = (struct virtio_blk_outhdr){.type = VIRTIO_BLK_T_IN, .sector = area_first + 3};
	virtq_push(&blk.q, (uint16_t)virtq_add(&blk.q, bufs, 3, 3));
	blk_kick(&blk);
	blk_drain(&blk, 1);
	check(status == VIRTIO_BLK_S_OK && pattern_is(chunk, area_first + 3, BLK_SECTOR), STATUS_DATA + 4,
	      "a header in three pieces: status %u", status);
}

static void check_last(void)
{
	uint64_t last = blk.sectors - 1;
	uint8_t w, r;

	pattern_fill(chunk, last, BLK_SECTOR);
	w = blk_do(&blk, VIRTIO_BLK_T_OUT, last, chunk, BLK_SECTOR);
	memset(chunk, 0, BLK_SECTOR);
	r = blk_do(&blk, VIRTIO_BLK_T_IN, last, chunk, BLK_SECTOR);
	check(!w && !r && pattern_is(chunk, last, BLK_SECTOR), STATUS_DATA + 5, "the last sector: status %u, %u", w, r);
}

static void check_flush(void)
{
	uint8_t answer = blk_do(&blk, VIRTIO_BLK_T_FLUSH, 0, NULL, 0);

	check(answer == (virtio_has(&blk.dev, VIRTIO_BLK_F_FLUSH) ? VIRTIO_BLK_S_OK : answer), STATUS_FLUSH,
	      "flush: status %u", answer);
}

static void check_id(void)
{
	char id[VIRTIO_BLK_ID_BYTES + 1] = {0}, want[VIRTIO_BLK_ID_BYTES + 1];
	uint8_t answer = blk_do(&blk, VIRTIO_BLK_T_GET_ID, 0, id, VIRTIO_BLK_ID_BYTES);

	check(answer == VIRTIO_BLK_S_OK, STATUS_ID, "get id: status %u, '%s'", answer, id);
	if (arg_str("serial", want, sizeof(want)))
		check(str_equal(id, want), STATUS_ID + 1, "the serial number is '%s'", want);
}

/* --- discard and write zeroes --- */

static uint8_t do_range(uint32_t type, uint64_t sector, uint32_t count, uint32_t flags)
{
	struct virtio_blk_discard_write_zeroes range = {sector, count, flags};

	return blk_do(&blk, type, 0, &range, sizeof(range));
}

static void check_discard(void)
{
	uint32_t type = VIRTIO_BLK_T_DISCARD;
	uint8_t answer;

	if (!virtio_has(&blk.dev, VIRTIO_BLK_F_DISCARD)) {
		print("skip: no discard\n");
		return;
	}
	answer = do_range(type, area_first, 64, 0);
	check(answer == VIRTIO_BLK_S_OK, STATUS_DISCARD, "discard: status %u", answer);
	answer = do_range(type, blk.sectors - 1, 8, 0);
	check(answer == VIRTIO_BLK_S_IOERR, STATUS_DISCARD + 1, "discard past the end: status %u", answer);
	answer = do_range(type, area_first, 8, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP);
	check(answer == VIRTIO_BLK_S_UNSUPP, STATUS_DISCARD + 2, "discard with the flag unmap: status %u", answer);
	answer = do_range(type, area_first, 8, 0x80);
	check(answer == VIRTIO_BLK_S_UNSUPP, STATUS_DISCARD + 3, "discard with an unknown flag: status %u", answer);
}

static void check_zeroes(void)
{
	uint32_t type = VIRTIO_BLK_T_WRITE_ZEROES, zeroes = 0;
	uint8_t answer;

	if (!virtio_has(&blk.dev, VIRTIO_BLK_F_WRITE_ZEROES)) {
		print("skip: no write zeroes\n");
		return;
	}
	pattern_fill(chunk, area_first, 8 * BLK_SECTOR);
	blk_do(&blk, VIRTIO_BLK_T_OUT, area_first, chunk, 8 * BLK_SECTOR);
	for (uint32_t flags = 0; flags < 2; flags++) { /* the second with unmap */
		answer = do_range(type, area_first + 1 + 3 * flags, 3, flags);
		check(answer == VIRTIO_BLK_S_OK, STATUS_ZEROES, "write zeroes, flags %u: status %u", flags, answer);
	}
	blk_do(&blk, VIRTIO_BLK_T_IN, area_first, chunk, 8 * BLK_SECTOR);
	for (uint32_t i = BLK_SECTOR; i < 7 * BLK_SECTOR; i++)
		zeroes += chunk[i] == 0;
	check(zeroes == 6 * BLK_SECTOR, STATUS_ZEROES + 1, "they are zeroes: %u", zeroes);
	check(pattern_is(chunk, area_first, BLK_SECTOR) &&
		      pattern_is(chunk + 7 * BLK_SECTOR, area_first + 7, BLK_SECTOR),
	      STATUS_ZEROES + 2, "and their neighbours are as they were");
	answer = do_range(type, blk.sectors - 1, 8, 0);
	check(answer == VIRTIO_BLK_S_IOERR, STATUS_ZEROES + 3, "past the end: status %u", answer);
	answer = do_range(type, area_first, 8, 0x80);
	check(answer == VIRTIO_BLK_S_UNSUPP, STATUS_ZEROES + 4, "an unknown flag: status %u", answer);
}

/* --- errors --- */

static void check_refused(uint8_t status, uint32_t type, uint64_t sector, uint32_t len, uint8_t want)
{
	uint8_t answer = blk_do(&blk, type, sector, chunk, len);

	check(answer == want, status, "type %u, sector 0x%lx, %u bytes: status %u", type, sector, len, answer);
}

static void check_errors(void)
{
	uint64_t end = blk.sectors;

	check_refused(STATUS_ERRORS, VIRTIO_BLK_T_IN, end, BLK_SECTOR, VIRTIO_BLK_S_IOERR);
	check_refused(STATUS_ERRORS + 1, VIRTIO_BLK_T_IN, end - 1, 2 * BLK_SECTOR, VIRTIO_BLK_S_IOERR);
	check_refused(STATUS_ERRORS + 2, VIRTIO_BLK_T_OUT, end, BLK_SECTOR, VIRTIO_BLK_S_IOERR);
	check_refused(STATUS_ERRORS + 2, VIRTIO_BLK_T_OUT, end - 1, 2 * BLK_SECTOR, VIRTIO_BLK_S_IOERR);
	check_refused(STATUS_ERRORS + 3, VIRTIO_BLK_T_IN, UINT64_MAX, BLK_SECTOR, VIRTIO_BLK_S_IOERR);
	check_refused(STATUS_ERRORS + 3, VIRTIO_BLK_T_IN, UINT64_MAX / BLK_SECTOR, 2 * BLK_SECTOR, VIRTIO_BLK_S_IOERR);
	check_refused(STATUS_ERRORS + 3, VIRTIO_BLK_T_IN, (uint64_t)1 << 55, BLK_SECTOR, VIRTIO_BLK_S_IOERR);
	check_refused(STATUS_ERRORS + 4, VIRTIO_BLK_T_IN, area_first, BLK_SECTOR - 1, VIRTIO_BLK_S_IOERR);
	check_refused(STATUS_ERRORS + 5, 0x4e4f4e45, area_first, BLK_SECTOR, VIRTIO_BLK_S_UNSUPP);
	check_alive(STATUS_ERRORS + 6, "after all this");
}

static void check_readonly(void)
{
	check(virtio_has(&blk.dev, VIRTIO_BLK_F_RO), STATUS_READONLY, "the disk is read-only");
	check_refused(STATUS_READONLY + 1, VIRTIO_BLK_T_OUT, area_first, BLK_SECTOR, VIRTIO_BLK_S_IOERR);
	check_alive(STATUS_READONLY + 2, "after it");
}

/* --- which of them --- */

enum { WRITES = 1, ON_DEMAND = 2, ONLY_PCI = 4, ONLY_READONLY = 8 };
static const struct section {
	const char *name;
	void (*fn)(void);
	unsigned flags;
} sections[] = {
	{"info", check_info, 0},
	{"write", check_write, WRITES},
	{"verify", check_verify, WRITES},
	{"pieces", check_pieces, WRITES},
	{"framing", check_framing, WRITES},
	{"last", check_last, WRITES},
	{"flush", check_flush, 0},
	{"id", check_id, 0},
	{"discard", check_discard, WRITES},
	{"zeroes", check_zeroes, WRITES},
	{"errors", check_errors, WRITES},
	{"readonly", check_readonly, ONLY_READONLY},
	{"reset", check_reset, 0},
	{"sizes", check_sizes, 0},
	{"bad", check_bad, 0},
	{"msix", check_msix, ONLY_PCI},
	{"intx", check_intx, ON_DEMAND},
	{"bar", check_bar, ONLY_PCI},
	{"wrap", check_wrap, ON_DEMAND},
	{"resize", check_resize, ON_DEMAND},
	{"reboot", check_reboot, ON_DEMAND},
	{"storm", check_storm, ON_DEMAND},
};

static bool is_named(const char *name)
{
	for (const char *s = what; *s; s += *s == ',') {
		const char *n = name;

		for (; *n && *s == *n; s++, n++)
			;
		if (!*n && (*s == ',' || !*s))
			return true;
		while (*s && *s != ',')
			s++;
	}
	return false;
}

static bool is_wanted(const struct section *s)
{
	bool readonly = virtio_has(&blk.dev, VIRTIO_BLK_F_RO);

	if (what[0])
		return is_named(s->name);
	return !(s->flags & ON_DEMAND) && !(s->flags & WRITES && readonly) &&
	       !(s->flags & ONLY_READONLY && !readonly) && !(s->flags & ONLY_PCI && !blk.dev.is_pci);
}

static void in_ring3(void)
{
	unsigned done = 0;
	bool found;

	found = blk_open(&blk);
	check(found, STATUS_INFO, "a virtio-blk disk");
	if (blk.dev.is_pci)
		print("PCI function %x, reached by %s\n", blk.dev.devfn,
		      pci_access() == PCI_BY_ECAM ? "ECAM" : "ports");
	restart(0, VIRTIO_NO_VECTOR);
	area_first = arg_u64("first", 0);
	area_sectors = arg_u64("sectors", blk.sectors < 4096 ? blk.sectors : 4096);
	seed = arg_u64("seed", 0);
	arg_str("what", what, sizeof(what));
	for (unsigned i = 0; i < sizeof(sections) / sizeof(sections[0]); i++) {
		if (!is_wanted(&sections[i]))
			continue;
		print("-- %s\n", sections[i].name);
		sections[i].fn();
		done++;
	}
	check(done > 0, 0xe1, "%u sections", done);
	guest_exit(0);
}

int guest_main(void)
{
	irq_prepare();
	user_start(in_ring3, true);
}
