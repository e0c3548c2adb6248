/* What a person needs when a vCPU cannot go on: registers, the instruction, a next step. */
#include <stdio.h>
#include <sys/mman.h>

#include "arch/cpu.h"
#include "util.h"

enum { CODE_BYTES = 15 }; /* the longest instruction */

static void dump_registers(const struct kvm_regs *r, const struct log *log)
{
	log_error(log, "  rip %016llx  rflags %08llx", r->rip, r->rflags);
	log_error(log, "  rax %016llx  rbx %016llx  rcx %016llx  rdx %016llx", r->rax, r->rbx, r->rcx, r->rdx);
	log_error(log, "  rsi %016llx  rdi %016llx  rbp %016llx  rsp %016llx", r->rsi, r->rdi, r->rbp, r->rsp);
	log_error(log, "  r8  %016llx  r9  %016llx  r10 %016llx  r11 %016llx", r->r8, r->r9, r->r10, r->r11);
	log_error(log, "  r12 %016llx  r13 %016llx  r14 %016llx  r15 %016llx", r->r12, r->r13, r->r14, r->r15);
}

static void dump_system_registers(const struct kvm_sregs *s, const struct log *log)
{
	log_error(log, "  cr0 %08llx  cr2 %016llx  cr3 %08llx  cr4 %08llx  efer %llx", s->cr0, s->cr2, s->cr3, s->cr4,
		  s->efer);
	log_error(log, "  cs %04x base %llx  ss %04x  tr %04x  gdt %llx/%x  idt %llx/%x", s->cs.selector, s->cs.base,
		  s->ss.selector, s->tr.selector, s->gdt.base, s->gdt.limit, s->idt.base, s->idt.limit);
}

/* The bytes at RIP, through the guest's own page tables; 0 when they cannot be had. */
static size_t read_code(int vcpu_fd, const struct gmem *gmem, uint8_t ret_code[CODE_BYTES])
{
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	if (kvm_ioctl(vcpu_fd, KVM_GET_REGS, &regs) < 0 || kvm_ioctl(vcpu_fd, KVM_GET_SREGS, &sregs) < 0)
		return 0;
	struct kvm_translation address = {.linear_address = sregs.cs.base + regs.rip};
	if (kvm_ioctl(vcpu_fd, KVM_TRANSLATE, &address) < 0 || !address.valid)
		return 0;

	/* No further than the page: the next one may be elsewhere. */
	size_t size = (size_t)min_u64(CODE_BYTES, GMEM_PAGE_SIZE - address.physical_address % GMEM_PAGE_SIZE);
	return gmem_peek(gmem, address.physical_address, ret_code, size) == 0 ? size : 0;
}

static void dump_code(int vcpu_fd, const struct gmem *gmem, const struct log *log)
{
	uint8_t code[CODE_BYTES] = {0};
	size_t size = read_code(vcpu_fd, gmem, code);
	char text[CODE_BYTES * 3 + 1] = "";
	for (size_t i = 0; i < size; i++)
		(void)snprintf(text + i * 3, 4, " %02x", code[i]);
	log_error(log, "  code at rip:%s", size ? text : " not readable");
}

void cpu_dump(int vcpu_fd, unsigned index, const struct gmem *gmem, const struct log *log)
{
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	log_error(log, "vCPU %u stopped here:", index);
	if (kvm_ioctl(vcpu_fd, KVM_GET_REGS, &regs) == 0)
		dump_registers(&regs, log);
	if (kvm_ioctl(vcpu_fd, KVM_GET_SREGS, &sregs) == 0)
		dump_system_registers(&sregs, log);
	dump_code(vcpu_fd, gmem, log);
}

const char *cpu_internal_error_name(unsigned suberror)
{
	switch (suberror) {
	case KVM_INTERNAL_ERROR_EMULATION:
		return "it cannot emulate the instruction at rip";
	case KVM_INTERNAL_ERROR_SIMUL_EX:
		return "an exception came while it delivered another";
	case KVM_INTERNAL_ERROR_DELIVERY_EV:
		return "an exit came while it delivered an event";
	case KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON:
		return "the CPU left the guest for a reason that it does not know";
	default:
		return "an error of a kind that vmlet does not know";
	}
}

/*
 * Where KVM has no hardware under it, it emulates what the guest's kernel does, and it does not know every
 * instruction. The kernel uses these only because CPUID offers them.
 */
static const char *feature_hint(const uint8_t *code, size_t size)
{
	size_t i = 0;
	while (i < size && (code[i] == 0x66 || code[i] == 0xf0 || code[i] == 0xf2 || code[i] == 0xf3))
		i++;
	if (i < size && (code[i] & 0xf0) == 0x40) /* REX */
		i++;
	if (i >= size)
		return NULL;
	if (code[i] == 0xc4 || code[i] == 0xc5)
		return "this host's KVM may be software-only: try --cpu-features -avx,-avx2,-bmi1,-bmi2, or another "
		       "host";
	if (i + 2 >= size || code[i] != 0x0f)
		return NULL;

	unsigned extension = code[i + 2] >> 3 & 7;
	if (code[i + 1] == 0xc7 && extension == 1)
		return "this host's KVM may be software-only: try --cpu-features -cx16, or another host";
	if ((code[i + 1] == 0xae && extension >= 4) || (code[i + 1] == 0xc7 && extension >= 3 && extension <= 5))
		return "this host's KVM may be software-only: try --cpu-features -xsave, or another host";
	return NULL;
}

const char *cpu_internal_error_hint(int vcpu_fd, const struct gmem *gmem)
{
	uint8_t code[CODE_BYTES] = {0};
	const char *hint = feature_hint(code, read_code(vcpu_fd, gmem, code));
	return hint ? hint
		    : "if this host's KVM is software-only (no VMX or SVM), try a host with hardware virtualization";
}
