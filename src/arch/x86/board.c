/* The PC board: which devices it has, where they are, and how it is brought up. */
#include "arch/board.h"

#include <errno.h>
#include <stdlib.h>

#include "arch/cpu.h"
#include "arch/x86/board_models.h"
#include "arch/x86/board_virtio.h"
#include "arch/x86/irqchip.h"
#include "arch/x86/layout.h"
#include "arch/x86/pit.h"
#include "devices/debug_exit.h"
#include "devices/debugcon.h"
#include "devices/i8042.h"
#include "devices/pm_acpi.h"
#include "devices/pvpanic.h"
#include "devices/rtc_cmos.h"
#include "devices/stream_port.h"
#include "devices/uart16550.h"
#include "loader/acpi.h"
#include "loader/mptable.h"
#include "util.h"

enum {
	CPUS_MAX = ACPI_CPUS_MAX,
	DEVICES_MAX = 16,
	IOAPIC_ID = 0,
};

struct board {
	struct vm *vm;
	struct device *devices[DEVICES_MAX]; /* freed in reverse order */
	unsigned device_count;
	struct device *pm_acpi;
	struct device *stream_port; /* NULL: none */
	uint64_t loaded_ns;
	struct board_virtio *virtio;
	struct board_models models;
};

unsigned board_max_cpus(void)
{
	return CPUS_MAX;
}

int board_memory_layout(uint64_t memory_bytes, struct gmem_region *ret_regions, unsigned *ret_count, struct err *err)
{
	/* KVM_MEM_MAX_NR_PAGES: a slot has fewer than 2^31 pages. */
	const uint64_t max_bytes = GIB(8191);
	if (memory_bytes > max_bytes)
		return err_config(err, -EINVAL, "%llu MiB of memory: a machine has at most %llu GiB",
				  (unsigned long long)(memory_bytes >> 20), (unsigned long long)(max_bytes >> 30));
	uint64_t low = min_u64(memory_bytes, LAYOUT_HOLE_START);
	ret_regions[0] = (struct gmem_region){.base = 0, .size_bytes = low};
	ret_regions[1] = (struct gmem_region){.base = LAYOUT_HOLE_END, .size_bytes = memory_bytes - low};
	*ret_count = memory_bytes > low ? 2 : 1;
	return 0;
}

/* --- devices ------------------------------------------------------------------------------------------- */

/* Takes the device over; `dev` may be NULL, with `err` set by its constructor. */
static int add_device(struct board *board, struct device *dev, struct err *err)
{
	if (!dev)
		return err->code;
	if (board->device_count == DEVICES_MAX) {
		device_free(dev);
		return err_set(err, -ENOSPC, "board: more than %d devices", DEVICES_MAX);
	}
	board->devices[board->device_count++] = dev;
	return 0;
}

static int add_pio_device(struct board *board, uint16_t port, unsigned count, struct device *dev, struct err *err)
{
	int r = add_device(board, dev, err);
	return r < 0 ? r : bus_map(&board->vm->pio, port, port + count - 1, dev, 0, err);
}

static uint64_t low_ram_end(const struct gmem *gmem)
{
	return gmem->regions[0].size_bytes;
}

static int add_rtc(struct board *board, struct err *err)
{
	const struct gmem *gmem = board->vm->gmem;
	struct rtc_cmos_config config = {
		.low_memory_end_bytes = low_ram_end(gmem),
		.high_memory_bytes = gmem_size_bytes(gmem) - low_ram_end(gmem),
	};
	struct device *rtc = rtc_cmos_new(vm_irq_line(board->vm, GSI_RTC), board->vm->loop, &config, err);
	return add_pio_device(board, PORT_RTC, RTC_CMOS_SIZE, rtc, err);
}

static int add_pit(struct board *board, struct err *err)
{
	struct device *pit = pit_new(board->vm, err);
	int r = add_pio_device(board, PORT_PIT, PIT_SIZE, pit, err);
	return r < 0 ? r : bus_map(&board->vm->pio, PORT_SPEAKER, PORT_SPEAKER, pit, PIT_SPEAKER_OFFSET, err);
}

static int add_i8042(struct board *board, struct err *err)
{
	struct device *i8042 = i8042_new(vm_irq_line(board->vm, GSI_I8042), vm_guest_event_sink(board->vm), err);
	int r = add_pio_device(board, PORT_I8042_DATA, 1, i8042, err);
	if (r < 0)
		return r;
	return bus_map(&board->vm->pio, PORT_I8042_COMMAND, PORT_I8042_COMMAND, i8042, I8042_COMMAND_OFFSET, err);
}

static int add_debugcon(struct board *board, struct chr *chr, struct err *err)
{
	struct device *debugcon = debugcon_new(chr, err);
	int r = add_pio_device(board, PORT_DEBUGCON_BOCHS, 1, debugcon, err);
	return r < 0 ? r : bus_map(&board->vm->pio, PORT_DEBUGCON, PORT_DEBUGCON, debugcon, 0, err);
}

static int add_stream_port(struct board *board, const struct board_streams *streams, struct err *err)
{
	if (!streams->in)
		return 0;
	struct stream_port_config config = {
		.in = streams->in,
		.out = streams->out,
		.err = streams->err,
		.rows = streams->rows,
		.columns = streams->columns,
	};
	board->stream_port = stream_port_new(&config, err);
	int r = add_pio_device(board, PORT_STREAM, STREAM_PORT_SIZE, board->stream_port, err);
	if (r == 0)
		pio_ring_add(&board->vm->pio_ring, &board->vm->kvm, PORT_STREAM, STREAM_PORT_COLLECTED);
	return r;
}

static int add_devices(struct board *board, const struct board_config *config, struct err *err)
{
	struct vm *vm = board->vm;
	struct guest_event_sink events = vm_guest_event_sink(vm);

	int r = add_pio_device(board, PORT_COM1, UART16550_SIZE,
			       uart16550_new(vm_irq_line(vm, GSI_COM1), config->serial, err), err);
	if (r == 0)
		r = add_rtc(board, err);
	if (r == 0)
		r = add_pit(board, err);
	if (r == 0)
		r = add_i8042(board, err);
	if (r == 0)
		r = add_pio_device(board, PORT_PVPANIC, PVPANIC_SIZE, pvpanic_new(events, err), err);
	if (r == 0)
		r = add_pio_device(board, PORT_DEBUG_EXIT, DEBUG_EXIT_SIZE, debug_exit_new(events, err), err);
	if (r == 0)
		r = add_debugcon(board, config->debugcon, err);
	if (r == 0)
		r = add_stream_port(board, &config->streams, err);
	if (r == 0) {
		board->pm_acpi = pm_acpi_new(vm_irq_line(vm, GSI_SCI), events, err);
		r = add_pio_device(board, PORT_PM_ACPI, PM_ACPI_SIZE, board->pm_acpi, err);
	}
	return r;
}

static int add_virtio(struct board *board, const struct board_config *config, struct err *err)
{
	board->virtio = board_virtio_new(board->vm, config->transport, err);
	if (!board->virtio)
		return err->code;
	return board_models_add(&board->models, board->vm, config, board->virtio, err);
}

struct virtio_device *board_get_disk(struct board *board, unsigned index)
{
	return board->models.disks[index];
}

struct virtio_device *board_get_net(struct board *board, unsigned index)
{
	return board->models.nets[index];
}

struct virtio_device *board_get_console(struct board *board)
{
	return board->models.console;
}

struct virtio_device *board_get_balloon(struct board *board)
{
	return board->models.balloon;
}

uint64_t board_loaded_ns(const struct board *board)
{
	return board->loaded_ns;
}

void board_press_power_button(struct board *board)
{
	pm_acpi_press_power_button(board->pm_acpi);
}

void board_set_window_size(struct board *board, uint16_t rows, uint16_t columns)
{
	if (board->stream_port)
		stream_port_set_size(board->stream_port, rows, columns);
}

/* --- what the guest is told ------------------------------------------------------------------------------ */

static int write_acpi(struct board *board, unsigned cpu_count, unsigned address_bits, struct err *err)
{
	struct acpi_config config = {
		.cpus = cpu_count,
		.lapic_base = LAYOUT_LAPIC,
		.ioapic_base = LAYOUT_IOAPIC,
		.ioapic_id = IOAPIC_ID,
		.sci_irq = GSI_SCI,
		.pm1_event_port = PORT_PM_ACPI + PM_ACPI_PM1_EVT_OFFSET,
		.pm1_control_port = PORT_PM_ACPI + PM_ACPI_PM1_CNT_OFFSET,
		.pm_timer_port = PORT_PM_ACPI + PM_ACPI_PM_TMR_OFFSET,
		.slp_typ_s5 = PM_ACPI_SLP_TYP_S5,
		.reset_port = PORT_PM_ACPI + PM_ACPI_RESET_OFFSET,
		.reset_value = PM_ACPI_RESET_VALUE,
		.com1_port = PORT_COM1,
		.com1_irq = GSI_COM1,
		.rtc_port = PORT_RTC,
		.rtc_irq = GSI_RTC,
		.pvpanic_port = PORT_PVPANIC,
		.i8042_keyboard = false,
		.io_reserved = {{PORT_DEBUGCON_BOCHS, 1}, {PORT_DEBUG_EXIT, DEBUG_EXIT_SIZE}, {PORT_DEBUGCON, 1}},
		.io_reserved_count = 3,
	};
	if (board->stream_port)
		config.io_reserved[config.io_reserved_count++] = (struct acpi_io_range){PORT_STREAM, STREAM_PORT_SIZE};
	board_virtio_describe(board->virtio, address_bits, &config);

	uint8_t blob[ACPI_BLOB_SIZE_MAX];
	size_t size;
	int r = acpi_render(&config, LAYOUT_ACPI, blob, sizeof(blob), &size);
	if (r == 0)
		r = gmem_write(board->vm->gmem, LAYOUT_ACPI, blob, size);
	return r < 0 ? err_set(err, r, "ACPI tables: %s", err_name(r)) : 0;
}

static int write_mptable(struct board *board, unsigned cpu_count, struct err *err)
{
	struct mptable_config config = {
		.cpus = cpu_count,
		.lapic_base = LAYOUT_LAPIC,
		.ioapic_base = LAYOUT_IOAPIC,
		.ioapic_id = IOAPIC_ID,
		.sci_irq = GSI_SCI,
	};
	board_virtio_describe_mptable(board->virtio, &config);

	uint8_t blob[MPTABLE_BLOB_SIZE_MAX];
	size_t size;
	int r = mptable_render(&config, LAYOUT_MPTABLE, blob, sizeof(blob), &size);
	if (r == 0)
		r = gmem_write(board->vm->gmem, LAYOUT_MPTABLE, blob, size);
	return r < 0 ? err_set(err, r, "MP table: %s", err_name(r)) : 0;
}

static unsigned fill_memory_map(const struct gmem *gmem, struct memory_range map[MEMORY_MAP_MAX])
{
	unsigned count = 0;
	map[count++] = (struct memory_range){0, LAYOUT_EBDA, MEMORY_RAM};
	map[count++] = (struct memory_range){LAYOUT_EBDA, LAYOUT_HIGH_RAM - LAYOUT_EBDA, MEMORY_RESERVED};
	map[count++] = (struct memory_range){LAYOUT_HIGH_RAM, low_ram_end(gmem) - LAYOUT_HIGH_RAM, MEMORY_RAM};
	for (unsigned i = 1; i < gmem->region_count; i++)
		map[count++] = (struct memory_range){gmem->regions[i].base, gmem->regions[i].size_bytes, MEMORY_RAM};
	return count;
}

static int load(struct board *board, const struct board_config *config, struct load_result *ret_boot, struct err *err)
{
	struct memory_range map[MEMORY_MAP_MAX];
	struct load_plan plan = {
		.gmem = board->vm->gmem,
		.map = map,
		.map_count = fill_memory_map(board->vm->gmem, map),
		.low_ram_end = low_ram_end(board->vm->gmem),
		.area =
			{
				.boot_params = LAYOUT_BOOT_PARAMS,
				.cmdline = LAYOUT_CMDLINE,
				.cmdline_size_bytes = LAYOUT_CMDLINE_SIZE,
				.reserved = LAYOUT_GDT,
				.reserved_size_bytes = LAYOUT_PAGE_TABLES_END - LAYOUT_GDT,
			},
		.acpi_rsdp = LAYOUT_ACPI,
		.kernel = config->kernel,
		.initrds = config->initrds,
		.initrd_count = config->initrd_count,
		.cmdline = config->cmdline,
		.protocol = config->protocol,
	};
	return kernel_load(&plan, ret_boot, err);
}

/* --- life ---------------------------------------------------------------------------------------------- */

static int check_memory_is_addressable(const struct gmem *gmem, const struct cpu_model *model, struct err *err)
{
	const struct gmem_region *last = &gmem->regions[gmem->region_count - 1];
	unsigned bits = cpu_model_address_bits(model);
	if ((last->base + last->size_bytes - 1) >> bits == 0)
		return 0;
	return err_config(err, -EINVAL, "%llu MiB of memory: more than this CPU's %u address bits reach",
			  (unsigned long long)(gmem_size_bytes(gmem) >> 20), bits);
}

static int add_cpus(struct board *board, const struct cpu_model *model, unsigned count, struct err *err)
{
	struct vm *vm = board->vm;
	/* A slot that comes after the interrupt controllers waits for their grace period, not only for its own. */
	int r = vm_finish_memory(vm, err);
	if (r == 0)
		r = irqchip_create(&vm->kvm, err);
	if (r == 0)
		r = vm_create_vcpus(vm, count, err);
	for (unsigned i = 0; r == 0 && i < count; i++)
		r = cpu_init(model, vm->vcpus[i].fd, i, vm->log, err);
	return r;
}

static int bring_up(struct board *board, const struct board_config *config, const struct cpu_model *model,
		    struct err *err)
{
	struct load_result boot;
	int r = check_memory_is_addressable(board->vm->gmem, model, err);
	if (r == 0)
		r = add_devices(board, config, err);
	if (r == 0)
		r = add_virtio(board, config, err);
	if (r == 0)
		r = write_acpi(board, config->cpu_count, cpu_model_address_bits(model), err);
	if (r == 0)
		r = write_mptable(board, config->cpu_count, err);
	if (r == 0)
		r = load(board, config, &boot, err);
	board->loaded_ns = loop_now_ns();
	if (r == 0)
		r = add_cpus(board, model, config->cpu_count, err);
	if (r == 0)
		r = cpu_set_boot_state(board->vm->vcpus[0].fd, board->vm->gmem, &boot, err);
	return r;
}

struct board *board_new(const struct board_config *config, struct vm *vm, struct err *err)
{
	struct board *board = calloc(1, sizeof(*board));
	if (!board) {
		err_set(err, -ENOMEM, "board: %s", err_name(ENOMEM));
		return NULL;
	}
	board->vm = vm;
	struct cpu_model *model = cpu_model_new(&vm->kvm, config->cpu_count, config->cpu_features, err);
	int r = model ? bring_up(board, config, model, err) : err->code;
	cpu_model_free(model);
	if (r < 0) {
		board_free(board);
		return NULL;
	}
	return board;
}

void board_free(struct board *board)
{
	if (!board)
		return;
	board_virtio_free(board->virtio);
	board_models_free(&board->models);
	while (board->device_count) {
		struct device *dev = board->devices[--board->device_count];
		bus_unmap(&board->vm->pio, dev);
		bus_unmap(&board->vm->mmio, dev);
		device_free(dev);
	}
	free(board);
}
