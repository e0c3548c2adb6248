#include "guest.h"

extern uint64_t gdt[8];     /* crt.S */
extern uint8_t stack_top[]; /* crt.S */

enum { SEL_USER_DATA = 0x23, SEL_USER_CODE = 0x2b, SEL_TSS = 0x30, RFLAGS_IOPL3 = 0x3002, RFLAGS_IF = 0x200 };

static uint8_t user_stack[8192] __attribute__((aligned(16)));

/*
 * Every port is open twice over: by IOPL 3, and by a bitmap of zeros. A software-only KVM loses the IOPL on
 * the way to ring 3, and a monitor that emulates the bitmap wrongly still has the IOPL.
 */
static struct {
	uint32_t words[26]; /* rsp0 at byte 4: where a trap from ring 3 lands; the bitmap's offset at byte 102 */
	uint8_t bitmap[8192 + 1];
} tss;

_Noreturn void user_start(void (*fn)(void), bool interrupts)
{
	uint64_t base = (uintptr_t)&tss, rsp = (uintptr_t)user_stack + sizeof(user_stack) - 8, limit;

	tss.words[1] = (uint32_t)(uintptr_t)stack_top; /* this function's frame is dead once we are in ring 3 */
	tss.words[25] = (uint32_t)offsetof(__typeof__(tss), bitmap) << 16;
	tss.bitmap[8192] = 0xff; /* the byte after the last port's */
	limit = offsetof(__typeof__(tss), bitmap) + 8192;
	gdt[6] = limit | (base & 0xffffff) << 16 | 0x89ull << 40 | (base >> 24 & 0xff) << 56;
	gdt[7] = base >> 32;
	__asm__ volatile("ltr %w0" : : "r"(SEL_TSS) : "memory");
	__asm__ volatile("mov %w0, %%ds; mov %w0, %%es\n\t"
			 "pushq %q0; pushq %1; pushq %2; pushq %3; pushq %4; iretq"
			 :
			 : "r"(SEL_USER_DATA), "r"(rsp), "r"((uint64_t)(RFLAGS_IOPL3 | (interrupts ? RFLAGS_IF : 0))),
			   "i"(SEL_USER_CODE), "r"(fn)
			 : "memory");
	__builtin_unreachable();
}
