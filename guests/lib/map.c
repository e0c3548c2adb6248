#include "guest.h"

extern uint64_t page_pml4[512]; /* crt.S */

enum { POOL_TABLES = 66 };
static uint64_t pool[POOL_TABLES][512] __attribute__((aligned(4096))); /* bss: not touched until used */
static unsigned pool_used;

static uint64_t *table_below(uint64_t *entry)
{
	if (!*entry) {
		if (pool_used == POOL_TABLES)
			check(false, STATUS_EXCEPTION, "out of page tables");
		*entry = (uintptr_t)pool[pool_used++] | 7;
	}
	return (uint64_t *)(*entry & 0x000ffffffffff000);
}

void *map_phys(uint64_t pa)
{
	uint64_t *pdpt = table_below(&page_pml4[pa >> 39 & 511]);
	uint64_t *pd = table_below(&pdpt[pa >> 30 & 511]);

	if (!pd[pa >> 21 & 511]) /* was not present, so there is nothing stale to flush */
		pd[pa >> 21 & 511] = (pa & ~(uint64_t)0x1fffff) | 0x87;
	return (void *)pa;
}
