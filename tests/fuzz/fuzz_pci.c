/*
 * Two PCI functions on one interrupt line, under any configuration and BAR accesses and any interrupts. After each
 * step the bus, the doorbells, the line and the messages are what configuration space and the MSI-X table say.
 *
 * Input: steps of 8 bytes: what, where (3 bytes), a value.
 */
#include <assert.h>
#include <linux/pci_regs.h>
#include <stdlib.h>

#include "devices/pci_host.h"
#include "util.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes);

enum {
	STEP_SIZE = 8,
	FUNCTIONS = 2,
	FILLERS = 3, /* slots 2 to 4: so that the functions, in slots 1 and 5, share a line */
	SHARED_LINE = 1,
	BAR0_SIZE = 0x1000,
	BAR2_SIZE = 0x2000,
	TABLE = 0x10,
	VECTORS = 3,
	TABLE_SIZE = 16 * VECTORS,
	PBA = 0x80,
	PBA_SIZE = 8,
	ECAM = 0x40000000,
	WINDOW = 0x50000000,
	BELLS = 4,
	SENT_MAX = FUNCTIONS * VECTORS,
};
static const uint64_t BUS_LAST = (1ULL << 40) - 1;

struct message {
	uint64_t address;
	uint32_t data;
};

struct messages {
	unsigned count;
	struct message list[SENT_MAX];
};

struct function {
	struct pci_function pci;
	unsigned slot, touches;
	uint8_t first_config[PCI_CONFIG_SIZE];
	/* The model. */
	uint8_t table[TABLE_SIZE];
	bool pending[VECTORS];
	bool intx;
};

struct fuzz {
	struct bus pio, mmio;
	struct pci_host *host;
	struct pci_function fillers[FILLERS];
	struct function fns[FUNCTIONS];
	bool line;
	struct messages sent, expected;
	unsigned bells;
};

/* --- the machine around it --- */

static uint64_t bar_read(struct pci_function *pci, unsigned bar, uint64_t offset, unsigned size_bytes)
{
	struct function *fn = container_of(pci, struct function, pci);
	uint64_t end = offset + size_bytes;

	assert(size_bytes <= 4);
	assert((bar == 0 && end <= BAR0_SIZE) || (bar == 2 && end <= BAR2_SIZE));
	assert(bar == 0 || end <= TABLE || offset >= TABLE + TABLE_SIZE);
	assert(bar == 0 || end <= PBA || offset >= PBA + PBA_SIZE);
	fn->touches++;
	return UINT64_MAX;
}

static void bar_write(struct pci_function *pci, unsigned bar, uint64_t offset, unsigned size_bytes, uint64_t value)
{
	(void)value;
	bar_read(pci, bar, offset, size_bytes);
}

static const struct pci_function_ops function_ops = {
	.name = "fuzz",
	.access_sizes = 1 | 2 | 4,
	.bar_read = bar_read,
	.bar_write = bar_write,
};
static const struct pci_function_ops filler_ops = {.name = "filler"};

static void on_line(void *ctx, unsigned line, bool level)
{
	struct fuzz *f = ctx;

	assert(line == SHARED_LINE && level != f->line);
	f->line = level;
}

static void push(struct messages *m, uint64_t address, uint32_t data)
{
	assert(m->count < SENT_MAX);
	m->list[m->count++] = (struct message){address, data};
}

static void on_message(void *ctx, uint64_t address, uint32_t data)
{
	struct fuzz *f = ctx;

	push(&f->sent, address, data);
}

/* Doorbells are added and removed in pairs, and only inside a BAR that is mapped: the number is enough. */
static int bell_add(void *ctx, const struct bus_doorbell *doorbell)
{
	struct fuzz *f = ctx;

	assert(doorbell->addr <= BUS_LAST);
	f->bells++;
	return 0;
}

static void bell_remove(void *ctx, const struct bus_doorbell *doorbell)
{
	struct fuzz *f = ctx;

	(void)doorbell;
	assert(f->bells > 0);
	f->bells--;
}

static const struct bus_doorbell_ops bell_ops = {bell_add, bell_remove};

/* --- model --- */

static uint32_t config(struct function *fn, unsigned offset, unsigned size_bytes)
{
	return pci_config_read(&fn->pci, offset, size_bytes);
}

static unsigned msix_flags(struct function *fn)
{
	return config(fn, fn->pci.msix.cap + PCI_MSIX_FLAGS, 2);
}

static void model_send(struct fuzz *f)
{
	for (unsigned i = 0; i < FUNCTIONS; i++) {
		struct function *fn = &f->fns[i];
		bool sends =
			(msix_flags(fn) & (PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL)) == PCI_MSIX_FLAGS_ENABLE;
		for (unsigned v = 0; v < VECTORS; v++) {
			const uint8_t *entry = &fn->table[16 * v];
			if (!sends || !fn->pending[v] || (entry[PCI_MSIX_ENTRY_VECTOR_CTRL] & 1))
				continue;
			push(&f->expected, le64_load(entry), le32_load(entry + PCI_MSIX_ENTRY_DATA));
			fn->pending[v] = false;
		}
	}
}

static bool is_msix_access(unsigned bar, uint64_t offset, unsigned size_bytes, uint64_t area, uint64_t area_size)
{
	return bar == 2 && size_bytes >= 4 && offset % size_bytes == 0 && offset >= area &&
	       offset + size_bytes <= area + area_size;
}

static void model_table_write(struct function *fn, uint64_t at, unsigned size_bytes, uint64_t value)
{
	for (unsigned i = 0; i < size_bytes; i++)
		fn->table[at + i] = (uint8_t)(value >> (8 * i));
	for (unsigned v = 0; v < VECTORS; v++) {
		uint8_t *entry = &fn->table[16 * v];
		entry[PCI_MSIX_ENTRY_LOWER_ADDR] &= 0xfc;
		le32_store(entry + PCI_MSIX_ENTRY_VECTOR_CTRL, entry[PCI_MSIX_ENTRY_VECTOR_CTRL] & 1);
	}
}

static bool model_line(struct function *fn)
{
	return fn->intx && !(msix_flags(fn) & PCI_MSIX_FLAGS_ENABLE) &&
	       !(config(fn, PCI_COMMAND, 2) & PCI_COMMAND_INTX_DISABLE);
}

/* --- checks --- */

static bool is_free(const struct bus *bus, uint64_t first, uint64_t last)
{
	for (unsigned i = 0; i < bus->count; i++) {
		if (bus->ranges[i].first <= last && first <= bus->ranges[i].last)
			return false;
	}
	return true;
}

static bool is_mapped_at(const struct bus *bus, uint64_t first, uint64_t last, const struct pci_function *pci)
{
	for (unsigned i = 0; i < bus->count; i++) {
		if (bus->ranges[i].dev == &pci->dev && bus->ranges[i].first == first && bus->ranges[i].last == last)
			return true;
	}
	return false;
}

/* Where the registers say, or, with somebody else there, nowhere. */
static unsigned check_bar(struct fuzz *f, struct function *fn, unsigned bar)
{
	uint64_t size_bytes = bar == 0 ? BAR0_SIZE : BAR2_SIZE;
	uint64_t low = config(fn, PCI_BASE_ADDRESS_0 + 4 * bar, 4);
	uint64_t first = low & ~(size_bytes - 1);
	first |= (uint64_t)config(fn, PCI_BASE_ADDRESS_0 + 4 * bar + 4, 4) << 32;
	uint64_t last = first + size_bytes - 1;
	bool decodes = config(fn, PCI_COMMAND, 2) & PCI_COMMAND_MEMORY;

	assert((low & (size_bytes - 1)) == PCI_BASE_ADDRESS_MEM_TYPE_64);
	if (fn->pci.bars[bar].is_mapped)
		assert(decodes && fn->pci.bars[bar].mapped == first && is_mapped_at(&f->mmio, first, last, &fn->pci));
	else
		assert(!decodes || last > BUS_LAST || !is_free(&f->mmio, first, last));
	return fn->pci.bars[bar].is_mapped;
}

static unsigned bells_of(const struct function *fn)
{
	unsigned count = 0;

	for (unsigned i = 0; i < fn->pci.doorbell_count; i++)
		count += fn->pci.bars[fn->pci.doorbells[i].bar].is_mapped;
	return count;
}

static void check_function(struct function *fn)
{
	unsigned status = config(fn, PCI_STATUS, 2);
	bool wants = fn->intx && !(msix_flags(fn) & PCI_MSIX_FLAGS_ENABLE);

	assert(status == (PCI_STATUS_CAP_LIST | (wants ? PCI_STATUS_INTERRUPT : 0)));
	assert(config(fn, PCI_VENDOR_ID, 4) == 0x10411af4);
}

/* Nothing got written that the guest cannot write. */
static void check_read_only(struct function *fn)
{
	for (unsigned i = PCI_BASE_ADDRESS_4; i < PCI_CONFIG_SIZE; i++) {
		if (i != PCI_INTERRUPT_LINE && i != fn->pci.msix.cap + PCI_MSIX_FLAGS + 1U)
			assert(config(fn, i, 1) == fn->first_config[i]);
	}
}

static void check(struct fuzz *f)
{
	unsigned mapped = 1, bells = 0; /* one: ECAM */
	bool line = false;

	for (unsigned i = 0; i < FUNCTIONS; i++) {
		struct function *fn = &f->fns[i];
		check_function(fn);
		mapped += check_bar(f, fn, 0) + check_bar(f, fn, 2);
		bells += bells_of(fn);
		line |= model_line(fn);
	}
	assert(f->mmio.count == mapped && f->bells == bells && f->line == line);

	model_send(f);
	assert(f->sent.count == f->expected.count);
	for (unsigned i = 0; i < f->sent.count; i++)
		assert(f->sent.list[i].address == f->expected.list[i].address &&
		       f->sent.list[i].data == f->expected.list[i].data);
	f->sent.count = f->expected.count = 0;
}

/* --- steps --- */

struct step {
	unsigned op, which, offset, size_bytes;
	uint32_t value;
};

/* Addresses at which it gets interesting, more often than chance would have it. */
static uint32_t value_of(const uint8_t *step)
{
	static const uint32_t often[] = {0,
					 0xffffffff,
					 WINDOW,
					 WINDOW + 0x1000,
					 WINDOW + 0x2000,
					 WINDOW + 0x3000,
					 ECAM,
					 ECAM - 0x1000,
					 ECAM + PCI_HOST_ECAM_SIZE,
					 0x80000000 | 1 << 11,
					 0x80000000 | 5 << 11,
					 0xff,
					 0x100,
					 6,
					 7,
					 0xc000};

	return step[3] & 0x80 ? often[step[4] % ARRAY_SIZE(often)] : le32_load(&step[4]);
}

static void config_step(struct fuzz *f, const struct step *s, bool by_ecam)
{
	static const unsigned slots[] = {1, 5, 0, 2};
	unsigned slot = slots[s->which % ARRAY_SIZE(slots)], data_port = 0xcfc + s->offset % 4;
	uint64_t ecam_at = ECAM + (slot << 15) + s->offset;

	bus_write(&f->pio, 0xcf8, 4, 0x80000000 | slot << 11 | s->offset);
	if (by_ecam)
		bus_write(&f->mmio, ecam_at, s->size_bytes, s->value);
	else
		bus_write(&f->pio, data_port, s->size_bytes, s->value);
	if (data_port + s->size_bytes <= 0xd00) /* both ways lead to the same registers */
		assert(bus_read(&f->mmio, ecam_at, s->size_bytes) == bus_read(&f->pio, data_port, s->size_bytes));
}

static void raw_step(struct fuzz *f, const struct step *s)
{
	uint64_t ecam_at = ECAM + (s->value & (PCI_HOST_ECAM_SIZE - 1));

	if (s->which & 2)
		bus_write(&f->mmio, ecam_at, s->size_bytes, s->value >> 8);
	else
		bus_write(&f->pio, 0xcf8 + s->offset % 8, s->size_bytes, s->value);
	bus_read(&f->pio, 0xcf8 + s->offset % 8, s->size_bytes);
	bus_read(&f->mmio, ecam_at, s->size_bytes);
}

static void bar_write_step(struct fuzz *f, struct function *fn, const struct step *s)
{
	unsigned bar = s->which & 2, touches = fn->touches;
	uint64_t value = (uint64_t)s->value << 32 | s->value;

	if (!fn->pci.bars[bar].is_mapped)
		return;
	bus_write(&f->mmio, fn->pci.bars[bar].mapped + s->offset, s->size_bytes, value);
	if (!is_msix_access(bar, s->offset, s->size_bytes, TABLE, TABLE_SIZE))
		return;
	assert(fn->touches == touches);
	model_table_write(fn, s->offset - TABLE, s->size_bytes, value);
}

static uint64_t model_pba(const struct function *fn, unsigned offset)
{
	return offset == PBA ? (uint64_t)(fn->pending[0] | fn->pending[1] << 1 | fn->pending[2] << 2) : 0;
}

static void bar_read_step(struct fuzz *f, struct function *fn, const struct step *s)
{
	unsigned bar = s->which & 2;

	if (!fn->pci.bars[bar].is_mapped)
		return;
	uint64_t value = bus_read(&f->mmio, fn->pci.bars[bar].mapped + s->offset, s->size_bytes);
	if (is_msix_access(bar, s->offset, s->size_bytes, TABLE, TABLE_SIZE)) {
		const uint8_t *expected = &fn->table[s->offset - TABLE];
		assert(value == (s->size_bytes == 8 ? le64_load(expected) : le32_load(expected)));
	} else if (is_msix_access(bar, s->offset, s->size_bytes, PBA, PBA_SIZE))
		assert(value == model_pba(fn, s->offset));
	else
		assert(value == UINT64_MAX >> (64 - 8 * s->size_bytes));
}

/* What the device itself does, under its lock. */
static void device_step(struct function *fn, const struct step *s)
{
	unsigned vector = s->offset % (VECTORS + 1);

	device_lock(&fn->pci.dev);
	switch (s->value % 4) {
	case 0:
		pci_msix_raise(&fn->pci, vector);
		if (vector < VECTORS && pci_msix_is_enabled(&fn->pci))
			fn->pending[vector] = true;
		break;
	case 1:
		fn->intx = s->offset & 1;
		pci_set_intx(&fn->pci, fn->intx);
		break;
	case 2:
		if (fn->pci.doorbell_count < BELLS)
			pci_add_doorbell(&fn->pci, s->which & 2, s->offset * 4, 7);
		break;
	default:
		pci_remove_doorbells(&fn->pci);
		break;
	}
	device_unlock(&fn->pci.dev);
}

static void step(struct fuzz *f, const uint8_t *bytes)
{
	struct step s = {
		.op = bytes[0] % 8,
		.which = bytes[1],
		.offset = bytes[2],
		.size_bytes = 1U << bytes[3] % 4,
		.value = value_of(bytes),
	};
	struct function *fn = &f->fns[s.which & 1];

	switch (s.op) {
	case 0:
	case 1:
		s.size_bytes = s.size_bytes == 8 ? 4 : s.size_bytes;
		config_step(f, &s, s.op);
		break;
	case 2:
		raw_step(f, &s);
		break;
	case 3:
	case 4:
		bar_write_step(f, fn, &s);
		break;
	case 5:
		bar_read_step(f, fn, &s);
		break;
	default:
		device_step(fn, &s);
		break;
	}
	check(f);
}

/* --- set-up --- */

static void add_function(struct fuzz *f, struct function *fn, unsigned slot)
{
	static const struct pci_ids ids = {.vendor = 0x1af4, .device = 0x1041};

	pci_function_init(&fn->pci, &function_ops, &ids);
	pci_add_bar(&fn->pci, 0, BAR0_SIZE);
	pci_add_bar(&fn->pci, 2, BAR2_SIZE);
	pci_add_msix(&fn->pci, VECTORS, 2, TABLE, PBA);
	pci_add_intx(&fn->pci);
	for (unsigned v = 0; v < VECTORS; v++)
		fn->table[16 * v + PCI_MSIX_ENTRY_VECTOR_CTRL] = 1;
	if (pci_host_add(f->host, &fn->pci, NULL) != (int)slot)
		abort();
	for (unsigned i = 0; i < PCI_CONFIG_SIZE; i++)
		fn->first_config[i] = (uint8_t)config(fn, i, 1);
}

static void start(struct fuzz *f)
{
	struct pci_host_config host_config = {
		.mmio = &f->mmio,
		.window_base = WINDOW,
		.window_size_bytes = MIB(1),
		.intx[SHARED_LINE] = {on_line, f, SHARED_LINE},
		.msi = {on_message, f},
	};

	bus_init(&f->pio, "pio", UINT16_MAX);
	bus_init(&f->mmio, "mmio", BUS_LAST);
	f->mmio.doorbell_ops = &bell_ops;
	f->mmio.doorbell_ctx = f;
	f->host = pci_host_new(&host_config, NULL);
	if (!f->host || bus_map(&f->pio, 0xcf8, 0xcff, pci_host_pio(f->host), 0, NULL) ||
	    bus_map(&f->mmio, ECAM, ECAM + PCI_HOST_ECAM_SIZE - 1, pci_host_ecam(f->host), 0, NULL))
		abort();

	add_function(f, &f->fns[0], 1);
	for (unsigned i = 0; i < FILLERS; i++) {
		pci_function_init(&f->fillers[i], &filler_ops, &(struct pci_ids){0});
		if (pci_host_add(f->host, &f->fillers[i], NULL) < 0)
			abort();
	}
	add_function(f, &f->fns[1], 5);
	check(f);
}

/* One leaves by the bridge's door, one as it is; neither leaves anything behind. */
static void finish(struct fuzz *f)
{
	for (unsigned i = 0; i < FUNCTIONS; i++)
		check_read_only(&f->fns[i]);
	pci_host_remove(f->host, &f->fns[0].pci);
	for (unsigned i = 0; i < FUNCTIONS; i++)
		pci_function_fini(&f->fns[i].pci);
	for (unsigned i = 0; i < FILLERS; i++)
		pci_function_fini(&f->fillers[i]);
	assert(f->mmio.count == 1 && f->bells == 0 && !f->line);
	pci_host_free(f->host);
	bus_fini(&f->mmio);
	bus_fini(&f->pio);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
	static struct fuzz f;

	memset(&f, 0, sizeof(f));
	start(&f);
	for (size_t i = 0; i + STEP_SIZE <= size_bytes; i += STEP_SIZE)
		step(&f, &data[i]);
	finish(&f);
	return 0;
}
