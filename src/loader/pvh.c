#include "loader/pvh.h"

#include <assert.h>

#include "util.h"

enum { PVH_VERSION_1 = 1, MEMMAP_ENTRY_BYTES = 24 };

static void render_module(uint8_t *page, gpa_t page_gpa, const struct initrd *initrd)
{
	le32_store(page + PVH_NR_MODULES, 1);
	le64_store(page + PVH_MODLIST_PADDR, page_gpa + PVH_MODLIST);
	le64_store(page + PVH_MODLIST, initrd->base);
	le64_store(page + PVH_MODLIST + 8, initrd->size_bytes);
}

/* The types are those of E820. */
static void render_memmap(uint8_t *page, gpa_t page_gpa, const struct memory_range *map, unsigned count)
{
	assert(count <= MEMORY_MAP_MAX);
	le64_store(page + PVH_MEMMAP_PADDR, page_gpa + PVH_MEMMAP);
	le32_store(page + PVH_MEMMAP_ENTRIES, count);
	for (unsigned i = 0; i < count; i++) {
		uint8_t *entry = page + PVH_MEMMAP + i * MEMMAP_ENTRY_BYTES;
		le64_store(entry, map[i].base);
		le64_store(entry + 8, map[i].size_bytes);
		le32_store(entry + 16, (uint32_t)map[i].type);
	}
}

void pvh_write(const struct load_plan *plan, const struct initrd *initrd)
{
	uint8_t page[GMEM_PAGE_SIZE] = {0};
	gpa_t gpa = plan->area.boot_params;

	le32_store(page + PVH_MAGIC, PVH_MAGIC_VALUE);
	le32_store(page + PVH_VERSION, PVH_VERSION_1);
	le64_store(page + PVH_CMDLINE_PADDR, plan->area.cmdline);
	le64_store(page + PVH_RSDP_PADDR, plan->acpi_rsdp);
	if (initrd->size_bytes)
		render_module(page, gpa, initrd);
	render_memmap(page, gpa, plan->map, plan->map_count);

	int rc = gmem_write(plan->gmem, gpa, page, sizeof(page));
	assert(rc == 0); /* load_area is the board's, and in RAM */
}
