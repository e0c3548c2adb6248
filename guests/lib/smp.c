#include "guest.h"

enum { TRAMPOLINE = 0x8000 }; /* any free page below 1 MiB */

extern const uint8_t smp_trampoline[], smp_trampoline_end[]; /* smp_trampoline.S */

uint32_t smp_arrivals;                                          /* counted by crt.S */
uint8_t smp_stacks[SMP_MAX][2048] __attribute__((aligned(16))); /* used by crt.S */
void (*smp_fn)(uint32_t arrival);                               /* called by crt.S */

void smp_start(uint32_t apic_id, void (*fn)(uint32_t arrival))
{
	memcpy((void *)TRAMPOLINE, smp_trampoline, (size_t)(smp_trampoline_end - smp_trampoline));
	smp_fn = fn;
	lapic_send(apic_id, ICR_INIT | ICR_ASSERT);
	clock_delay_us(200);
	for (int i = 0; i < 2; i++) {
		lapic_send(apic_id, ICR_STARTUP | ICR_ASSERT | TRAMPOLINE >> 12);
		clock_delay_us(100);
	}
}
