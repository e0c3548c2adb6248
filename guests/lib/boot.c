#include "guest.h"

enum { /* struct hvm_start_info (Xen public/arch-x86/hvm/start_info.h) */
       PVH_MAGIC = 0x00,
       PVH_VERSION = 0x04,
       PVH_NR_MODULES = 0x0c,
       PVH_MODLIST = 0x10,
       PVH_CMDLINE = 0x18,
       PVH_RSDP = 0x20,
       PVH_MEMMAP = 0x28,
       PVH_MEMMAP_ENTRIES = 0x30,
       PVH_MEMMAP_ENTRY_SIZE = 24,
};
enum { /* struct boot_params (Linux Documentation/arch/x86/zero-page.rst) */
       BP_RSDP = 0x070,
       BP_EXT_RAMDISK_IMAGE = 0x0c0,
       BP_EXT_RAMDISK_SIZE = 0x0c4,
       BP_EXT_CMDLINE = 0x0c8,
       BP_E820_ENTRIES = 0x1e8,
       BP_BOOT_FLAG = 0x1fe,
       BP_HEADER = 0x202,
       BP_LOADER_TYPE = 0x210,
       BP_RAMDISK_IMAGE = 0x218,
       BP_RAMDISK_SIZE = 0x21c,
       BP_CMDLINE = 0x228,
       BP_E820_TABLE = 0x2d0,
       BP_E820_ENTRY_SIZE = 20,
};

static bool is_pvh(void)
{
	return boot_protocol == BOOT_PVH;
}

void boot_check(void)
{
	uint64_t p = boot_info_addr;

	if (is_pvh()) {
		check(peek32(p + PVH_MAGIC) == 0x336ec578, 0xe0, "PVH start info at 0x%lx, version %u", p,
		      peek32(p + PVH_VERSION));
		return;
	}
	check(peek16(p + BP_BOOT_FLAG) == 0xaa55 && peek32(p + BP_HEADER) == 0x53726448, 0xe0,
	      "boot_params at 0x%lx, protocol %x, loader type %x", p, peek16(p + BP_HEADER + 4),
	      peek8(p + BP_LOADER_TYPE));
}

const char *boot_cmdline(void)
{
	uint64_t p = boot_info_addr;

	p = is_pvh() ? peek64(p + PVH_CMDLINE) : peek32(p + BP_CMDLINE) | (uint64_t)peek32(p + BP_EXT_CMDLINE) << 32;
	return p ? (const char *)p : "";
}

bool boot_memmap(unsigned index, struct boot_range *ret_r)
{
	uint64_t p = boot_info_addr;
	unsigned count = is_pvh() ? peek32(p + PVH_MEMMAP_ENTRIES) : peek8(p + BP_E820_ENTRIES);

	if (index >= count)
		return false;
	p = is_pvh() ? peek64(p + PVH_MEMMAP) + (uint64_t)index * PVH_MEMMAP_ENTRY_SIZE
		     : p + BP_E820_TABLE + (uint64_t)index * BP_E820_ENTRY_SIZE;
	*ret_r = (struct boot_range){peek64(p), peek64(p + 8), peek32(p + 16)};
	return true;
}

bool boot_module(struct boot_range *ret_r)
{
	uint64_t p = boot_info_addr, addr, size;

	if (is_pvh()) {
		if (!peek32(p + PVH_NR_MODULES))
			return false;
		p = peek64(p + PVH_MODLIST);
		addr = peek64(p);
		size = peek64(p + 8);
	} else {
		addr = peek32(p + BP_RAMDISK_IMAGE) | (uint64_t)peek32(p + BP_EXT_RAMDISK_IMAGE) << 32;
		size = peek32(p + BP_RAMDISK_SIZE) | (uint64_t)peek32(p + BP_EXT_RAMDISK_SIZE) << 32;
	}
	*ret_r = (struct boot_range){addr, size, RANGE_RAM};
	return addr != 0;
}

uint64_t boot_rsdp(void)
{
	return peek64(boot_info_addr + (is_pvh() ? (uint64_t)PVH_RSDP : (uint64_t)BP_RSDP));
}

/* The text after `name` in the word that is `name` or begins with `name=`; NULL if there is none. */
static const char *arg_find(const char *name)
{
	const char *s = boot_cmdline();

	while (*s) {
		const char *n = name;

		for (; *n && *s == *n; s++, n++)
			;
		if (!*n && (*s == '=' || *s == ' ' || !*s))
			return s;
		while (*s && *s != ' ')
			s++;
		while (*s == ' ')
			s++;
	}
	return NULL;
}

bool arg_has(const char *name)
{
	return arg_find(name) != NULL;
}

bool arg_str(const char *name, char *ret_value, size_t size)
{
	const char *s = arg_find(name);
	size_t n = 0;

	if (s && *s == '=')
		for (s++; *s && *s != ' ' && n + 1 < size; s++)
			ret_value[n++] = *s;
	ret_value[n] = 0;
	return s != NULL;
}

bool arg_is(const char *name, const char *value)
{
	char buf[64];

	return arg_str(name, buf, sizeof(buf)) && str_equal(buf, value);
}

uint64_t arg_u64(const char *name, uint64_t otherwise)
{
	char buf[32];

	return arg_str(name, buf, sizeof(buf)) && buf[0] ? str_to_u64(buf) : otherwise;
}
