/*
 * Ring 3 with every port open: computes (loops=N, 1000000), prints and ends from there. This runs at full speed
 * on a software-only KVM. irq: also takes interrupts there. iopl: also checks that IOPL is 3, and sti and cli.
 */
#include "guest.h"

enum { HZ = 100 };

static volatile uint32_t ticks;

static void on_tick(struct trap_frame *f)
{
	ticks += (f->cs & 3) == 3;
	irq_ack(0, IRQ_VIA_PIC);
}

static void check_iopl(void)
{
	uint64_t flags;

	__asm__ volatile("pushfq; pop %0" : "=r"(flags));
	check((flags >> 12 & 3) == 3, 5, "flags in ring 3: 0x%lx", flags);
	irq_on();
	irq_off();
	check(true, 5, "sti and cli");
}

static void in_ring3(void)
{
	uint64_t n = arg_u64("loops", 1000000), sum = 0, start = rdtsc();

	for (uint64_t i = 1; i <= n; i++) {
		sum += i;
		__asm__ volatile("" : "+r"(sum));
	}
	start = rdtsc() - start;
	check(read_cpl() == 3, 1, "this is ring %u", read_cpl());
	check(sum == n * (n + 1) / 2, 2, "%lu rounds add up to %lu (%lu TSC ticks)", n, sum, start);
	check(inb(0x5000) == 0xff, 3, "port input");
	if (arg_has("irq")) {
		clock_wait(&ticks, 3, 2000);
		check(ticks >= 3, 4, "interrupts from here and back: %u", ticks);
	}
	if (arg_has("iopl"))
		check_iopl();
	guest_exit(0);
}

int guest_main(void)
{
	bool irq = arg_has("irq");

	if (irq) {
		irq_attach(0, IRQ_VIA_PIC, on_tick);
		pit_start(HZ);
	}
	user_start(in_ring3, irq);
}
