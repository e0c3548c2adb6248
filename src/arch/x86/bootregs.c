#include "arch/x86/bootregs.h"

#include <stdbool.h>

#include "arch/x86/layout.h"
#include "kvm.h"
#include "util.h"

/* Intel SDM volume 3: 2.5 control registers, 3.4.5 segment descriptors, 4.5 4-level paging. */
enum {
	CR0_PE = 1 << 0,
	CR0_ET = 1 << 4,
	CR4_PAE = 1 << 5,
	EFER_LME = 1 << 8,
	EFER_LMA = 1 << 10,
	RFLAGS_RESERVED = 1 << 1,

	PTE_PRESENT = 1 << 0,
	PTE_WRITE = 1 << 1,
	PDE_PAGE_SIZE = 1 << 7,

	TYPE_CODE = 0xb, /* execute, read, accessed */
	TYPE_DATA = 0x3, /* read, write, accessed */
	TYPE_TSS = 0xb,  /* 32- or 64-bit, busy */

	/* Selectors of the 64-bit boot protocol: __BOOT_CS, __BOOT_DS (boot.rst). */
	SELECTOR_CODE = 0x10,
	SELECTOR_DATA = 0x18,
	SELECTOR_TSS = 0x20,
	GDT_ENTRIES = 6, /* the TSS takes two in long mode */

	IDENTITY_GIB = 4,
	PD_ENTRIES = 512,
};
#define CR0_PG (1U << 31)

static const uint64_t LARGE_PAGE_BYTES = MIB(2);

/* A segment as the CPU holds it, and the descriptor that would load it: base 0, limit 4 GiB. */
static struct kvm_segment flat_segment(uint16_t selector, uint8_t type, bool long_mode)
{
	bool code = selector == SELECTOR_CODE;
	return (struct kvm_segment){
		.selector = selector,
		.type = type,
		.limit = UINT32_MAX,
		.present = 1,
		.s = 1,
		.g = 1,
		.l = code && long_mode,
		.db = !(code && long_mode),
	};
}

static uint64_t descriptor(const struct kvm_segment *segment)
{
	uint64_t limit = segment->g ? segment->limit >> 12 : segment->limit;
	uint64_t access = (uint64_t)segment->type | (uint64_t)segment->s << 4 | (uint64_t)segment->present << 7;
	uint64_t flags = (uint64_t)segment->l << 1 | (uint64_t)segment->db << 2 | (uint64_t)segment->g << 3;
	return (limit & 0xffff) | access << 40 | (limit >> 16 & 0xf) << 48 | flags << 52;
}

static int write_segments(struct kvm_sregs *sregs, struct gmem *gmem, bool long_mode)
{
	struct kvm_segment code = flat_segment(SELECTOR_CODE, TYPE_CODE, long_mode);
	struct kvm_segment data = flat_segment(SELECTOR_DATA, TYPE_DATA, long_mode);
	/* PVH wants the TR cache valid: base 0, limit 0x67. Intel's VM entry wants it too. */
	struct kvm_segment tss = {.selector = SELECTOR_TSS, .type = TYPE_TSS, .limit = 0x67, .present = 1};

	sregs->cs = code;
	sregs->ds = sregs->es = sregs->fs = sregs->gs = sregs->ss = data;
	sregs->tr = tss;

	uint8_t gdt[GDT_ENTRIES * 8] = {0};
	le64_store(&gdt[SELECTOR_CODE], descriptor(&code));
	le64_store(&gdt[SELECTOR_DATA], descriptor(&data));
	le64_store(&gdt[SELECTOR_TSS], descriptor(&tss));
	sregs->gdt = (struct kvm_dtable){.base = LAYOUT_GDT, .limit = sizeof(gdt) - 1};
	sregs->idt = (struct kvm_dtable){0};
	return gmem_write(gmem, LAYOUT_GDT, gdt, sizeof(gdt));
}

static int write_table(struct gmem *gmem, gpa_t table, uint64_t first_entry, uint64_t step, unsigned count)
{
	uint8_t entries[GMEM_PAGE_SIZE] = {0};
	for (unsigned i = 0; i < count; i++)
		le64_store(&entries[i * 8], first_entry + i * step);
	return gmem_write(gmem, table, entries, sizeof(entries));
}

/* The first 4 GiB, address for address, in 2 MiB pages. */
static int write_identity_map(struct gmem *gmem)
{
	gpa_t pml4 = LAYOUT_PAGE_TABLES, pdpt = pml4 + GMEM_PAGE_SIZE, pd = pdpt + GMEM_PAGE_SIZE;
	const uint64_t table = PTE_PRESENT | PTE_WRITE;
	int r = write_table(gmem, pml4, pdpt | table, 0, 1);
	if (r == 0)
		r = write_table(gmem, pdpt, pd | table, GMEM_PAGE_SIZE, IDENTITY_GIB);
	for (unsigned i = 0; r == 0 && i < IDENTITY_GIB; i++)
		r = write_table(gmem, pd + i * GMEM_PAGE_SIZE, GIB(i) | table | PDE_PAGE_SIZE, LARGE_PAGE_BYTES,
				PD_ENTRIES);
	return r;
}

static int set_long_mode(struct kvm_sregs *sregs, struct gmem *gmem)
{
	sregs->cr0 = CR0_PE | CR0_ET | CR0_PG;
	sregs->cr3 = LAYOUT_PAGE_TABLES;
	sregs->cr4 = CR4_PAE;
	sregs->efer = EFER_LME | EFER_LMA;
	return write_identity_map(gmem);
}

static void set_protected_mode(struct kvm_sregs *sregs)
{
	sregs->cr0 = CR0_PE | CR0_ET;
	sregs->cr3 = 0;
	sregs->cr4 = 0;
	sregs->efer = 0;
}

static int set_sregs(int vcpu_fd, struct gmem *gmem, bool long_mode, struct err *err)
{
	struct kvm_sregs sregs;
	int r = kvm_ioctl(vcpu_fd, KVM_GET_SREGS, &sregs);
	if (r < 0)
		return err_kvm(err, r, "KVM_GET_SREGS: %s", err_name(r));

	r = write_segments(&sregs, gmem, long_mode);
	if (r == 0 && long_mode)
		r = set_long_mode(&sregs, gmem);
	else if (r == 0)
		set_protected_mode(&sregs);
	if (r < 0)
		return err_config(err, r, "guest memory: too small for the boot tables");

	r = kvm_ioctl(vcpu_fd, KVM_SET_SREGS, &sregs);
	return r < 0 ? err_kvm(err, r, "KVM_SET_SREGS: %s", err_name(r)) : 0;
}

int bootregs_set(int vcpu_fd, struct gmem *gmem, const struct load_result *boot, struct err *err)
{
	bool long_mode = boot->protocol == BOOT_LINUX64;
	int r = set_sregs(vcpu_fd, gmem, long_mode, err);
	if (r < 0)
		return r;

	struct kvm_regs regs = {.rip = boot->entry, .rflags = RFLAGS_RESERVED};
	if (long_mode)
		regs.rsi = boot->info;
	else
		regs.rbx = boot->info;
	r = kvm_ioctl(vcpu_fd, KVM_SET_REGS, &regs);
	return r < 0 ? err_kvm(err, r, "KVM_SET_REGS: %s", err_name(r)) : 0;
}
