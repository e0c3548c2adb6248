#include "guest.h"

bool acpi_sum_ok(uint64_t pa, uint32_t len)
{
	uint8_t sum = 0;

	for (uint32_t i = 0; i < len; i++)
		sum = (uint8_t)(sum + peek8(pa + i));
	return sum == 0;
}

static uint64_t rsdp_scan(uint64_t from, uint64_t to)
{
	for (uint64_t p = from; p < to; p += 16)
		if (peek64(p) == 0x2052545020445352 && acpi_sum_ok(p, 20)) /* "RSD PTR " */
			return p;
	return 0;
}

uint64_t acpi_rsdp(void)
{
	static uint64_t found;
	uint64_t p = boot_rsdp();

	if (p)
		return p;
	if (!found)
		found = rsdp_scan(0xe0000, 0x100000);
	return found;
}

static bool has_xsdt(uint64_t rsdp)
{
	return peek8(rsdp + 15) >= 2 && peek64(rsdp + 24);
}

uint64_t acpi_root(void)
{
	uint64_t rsdp = acpi_rsdp();

	if (!rsdp)
		return 0;
	return has_xsdt(rsdp) ? peek64(rsdp + 24) : peek32(rsdp + 16);
}

uint64_t acpi_table_at(unsigned index)
{
	uint64_t root = acpi_root();
	unsigned entry = root && has_xsdt(acpi_rsdp()) ? 8 : 4;

	if (!root || index >= (peek32(root + 4) - 36) / entry)
		return 0;
	root += 36 + (uint64_t)index * entry;
	return entry == 8 ? peek64(root) : peek32(root);
}

uint64_t acpi_table(const char *signature)
{
	uint64_t t;

	for (unsigned i = 0; (t = acpi_table_at(i)); i++)
		if (!memcmp((const void *)t, signature, 4))
			return t;
	return 0;
}

uint64_t acpi_dsdt(void)
{
	uint64_t fadt = acpi_table("FACP");

	if (!fadt)
		return 0;
	if (peek32(fadt + 4) >= 148 && peek64(fadt + 140)) /* X_DSDT */
		return peek64(fadt + 140);
	return peek32(fadt + 40);
}

uint64_t madt_next(uint64_t prev, uint8_t type)
{
	static uint64_t madt;
	uint64_t p, end;

	if (!madt && !(madt = acpi_table("APIC")))
		return 0;
	end = madt + peek32(madt + 4);
	for (p = prev ? prev + peek8(prev + 1) : madt + 44; p + 2 <= end && peek8(p + 1) >= 2; p += peek8(p + 1))
		if (peek8(p) == type)
			return p;
	return 0;
}

bool madt_cpu(unsigned index, uint32_t *ret_apic_id)
{
	uint64_t e;

	for (e = 0; (e = madt_next(e, MADT_LAPIC));)
		if ((peek32(e + 4) & 1) && index-- == 0) {
			*ret_apic_id = peek8(e + 3);
			return true;
		}
	for (e = 0; (e = madt_next(e, MADT_X2APIC));)
		if ((peek32(e + 8) & 1) && index-- == 0) {
			*ret_apic_id = peek32(e + 4);
			return true;
		}
	return false;
}
