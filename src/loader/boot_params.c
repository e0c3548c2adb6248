#include "loader/boot_params.h"

#include <assert.h>

#include "util.h"

enum { E820_ENTRY_BYTES = 20 };

static void render_e820(uint8_t *page, const struct memory_range *map, unsigned count)
{
	assert(count <= MEMORY_MAP_MAX);
	page[BOOT_PARAMS_E820_ENTRIES] = (uint8_t)count;
	for (unsigned i = 0; i < count; i++) {
		uint8_t *entry = page + BOOT_PARAMS_E820_TABLE + i * E820_ENTRY_BYTES;
		le64_store(entry, map[i].base);
		le64_store(entry + 8, map[i].size_bytes);
		le32_store(entry + 16, (uint32_t)map[i].type);
	}
}

/* A vmlinux has no setup header: say what one of its bzImage would, as far as a 64-bit kernel looks. */
static void render_plain_header(uint8_t *page)
{
	le16_store(page + SETUP_VID_MODE, SETUP_VID_MODE_NORMAL);
	le16_store(page + SETUP_BOOT_FLAG, SETUP_BOOT_FLAG_MAGIC);
	le32_store(page + SETUP_HEADER, SETUP_HEADER_MAGIC);
	le16_store(page + SETUP_VERSION, SETUP_VERSION_2_12);
	page[SETUP_LOADFLAGS] = SETUP_LOADED_HIGH;
	le32_store(page + SETUP_CMDLINE_SIZE, KERNEL_CMDLINE_MAX);
}

static void render_bzimage_header(uint8_t *page, const struct kernel_file *kernel)
{
	memcpy(page + SETUP_SECTS, kernel->setup_header, kernel->setup_header_bytes);
	le32_store(page + SETUP_CODE32_START, (uint32_t)kernel->segments[0].paddr);
	le64_store(page + SETUP_SETUP_DATA, 0);
}

void boot_params_write(const struct load_plan *plan, const struct kernel_file *kernel, const struct initrd *initrd)
{
	uint8_t page[GMEM_PAGE_SIZE] = {0};

	if (kernel->setup_header_bytes)
		render_bzimage_header(page, kernel);
	else
		render_plain_header(page);
	page[SETUP_TYPE_OF_LOADER] = SETUP_TYPE_UNDEFINED;
	le32_store(page + SETUP_CMD_LINE_PTR, (uint32_t)plan->area.cmdline);
	le32_store(page + SETUP_RAMDISK_IMAGE, (uint32_t)initrd->base);
	le32_store(page + SETUP_RAMDISK_SIZE, (uint32_t)initrd->size_bytes);
	le32_store(page + BOOT_PARAMS_EXT_RAMDISK_IMAGE, (uint32_t)(initrd->base >> 32));
	le32_store(page + BOOT_PARAMS_EXT_RAMDISK_SIZE, (uint32_t)(initrd->size_bytes >> 32));
	le64_store(page + BOOT_PARAMS_ACPI_RSDP_ADDR, plan->acpi_rsdp);
	render_e820(page, plan->map, plan->map_count);

	int rc = gmem_write(plan->gmem, plan->area.boot_params, page, sizeof(page));
	assert(rc == 0); /* load_area is the board's, and in RAM */
}
