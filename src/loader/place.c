#include "loader/place.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>

#include "util.h"

static bool is_inside(gpa_t base, uint64_t size_bytes, const struct memory_range *range)
{
	return base >= range->base && base - range->base <= range->size_bytes &&
	       size_bytes <= range->size_bytes - (base - range->base);
}

static bool is_ram(const struct load_plan *plan, gpa_t base, uint64_t size_bytes)
{
	for (unsigned i = 0; i < plan->map_count; i++)
		if (plan->map[i].type == MEMORY_RAM && is_inside(base, size_bytes, &plan->map[i]))
			return true;
	return false;
}

/* Neither size is 0 and neither range wraps. */
static bool overlaps(const struct place_range *range, gpa_t base, uint64_t size_bytes)
{
	return base < range->base ? range->base - base < size_bytes : base - range->base < range->size_bytes;
}

static const struct place_range *find_overlap(const struct place *place, gpa_t base, uint64_t size_bytes)
{
	for (unsigned i = 0; i < place->count; i++)
		if (overlaps(&place->taken[i], base, size_bytes))
			return &place->taken[i];
	return NULL;
}

static void add(struct place *place, const char *what, gpa_t base, uint64_t size_bytes)
{
	if (size_bytes == 0)
		return;
	assert(place->count < ARRAY_SIZE(place->taken));
	place->taken[place->count++] = (struct place_range){base, size_bytes, what};
}

void place_init(struct place *place, const struct load_plan *plan)
{
	const struct load_area *area = &plan->area;
	place->plan = plan;
	place->count = 0;
	add(place, "vmlet's boot information", area->boot_params, GMEM_PAGE_SIZE);
	add(place, "the command line", area->cmdline, area->cmdline_size_bytes);
	add(place, "vmlet's page tables", area->reserved, area->reserved_size_bytes);
}

static int not_ram(const struct load_plan *plan, const char *what, gpa_t base, uint64_t size_bytes, struct err *err)
{
	uint64_t ram_bytes = gmem_size_bytes(plan->gmem);
	if (size_bytes > UINT64_MAX - base)
		return err_config(err, -ENOSPC, "%s at 0x%" PRIx64 " has the impossible size 0x%" PRIx64, what, base,
				  size_bytes);
	if (base + size_bytes > ram_bytes)
		return err_config(err, -ENOSPC,
				  "too big: %s needs memory from 0x%" PRIx64 " to 0x%" PRIx64 ", so %" PRIu64
				  " MiB of RAM, and the VM has %" PRIu64 " MiB",
				  what, base, base + size_bytes, mib_up(base + size_bytes), ram_bytes >> 20);
	return err_config(err, -ENOSPC,
			  "%s needs memory from 0x%" PRIx64 " to 0x%" PRIx64 ", which is not all RAM in this VM", what,
			  base, base + size_bytes);
}

int place_take(struct place *place, const char *what, gpa_t base, uint64_t size_bytes, struct err *err)
{
	if (!is_ram(place->plan, base, size_bytes))
		return not_ram(place->plan, what, base, size_bytes, err);
	const struct place_range *other = find_overlap(place, base, size_bytes);
	if (other)
		return err_config(err, -EINVAL, "%s at 0x%" PRIx64 " (0x%" PRIx64 " bytes) overlaps %s at 0x%" PRIx64,
				  what, base, size_bytes, other->what, other->base);
	add(place, what, base, size_bytes);
	return 0;
}

/* In [low, end), go down past whatever is in the way; each range is met once at most, since `end` only falls. */
static bool find_highest(const struct place *place, gpa_t low, gpa_t end, uint64_t size_bytes, gpa_t *ret_base)
{
	while (end > low && end - low >= size_bytes) {
		gpa_t base = align_down(end - size_bytes, GMEM_PAGE_SIZE);
		if (base < low)
			return false;
		const struct place_range *other = find_overlap(place, base, size_bytes);
		if (!other) {
			*ret_base = base;
			return true;
		}
		end = other->base;
	}
	return false;
}

int place_take_highest(struct place *place, const char *what, uint64_t size_bytes, gpa_t end, gpa_t *ret_base)
{
	for (unsigned i = place->plan->map_count; i-- > 0;) {
		const struct memory_range *range = &place->plan->map[i];
		if (range->type != MEMORY_RAM)
			continue;
		gpa_t range_end = range->base + range->size_bytes;
		if (!find_highest(place, max_u64(range->base, MIB(1)), min_u64(range_end, end), size_bytes, ret_base))
			continue;
		add(place, what, *ret_base, size_bytes);
		return 0;
	}
	return -ENOSPC;
}
