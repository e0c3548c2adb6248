/*
 * The runtime that the bare-metal guests share. A guest is one file with guest_main(); what it returns
 * is the exit status. Nothing is set up before it is asked for: at guest_main() the CPU is in long mode,
 * ring 0, interrupts off, the first 4 GiB mapped one to one, and the IDT reports exceptions. That is all.
 */
#ifndef GUEST_H
#define GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cpu.h"

enum {
	PORT_DEBUG_EXIT = 0xf4,
	PORT_DEBUG_CON = 0xe9,
	PORT_DEBUG_CON2 = 0x402,
	PORT_PVPANIC = 0x505,
	PORT_COM1 = 0x3f8,
	STATUS_EXCEPTION = 0xee, /* an exception or an interrupt that nobody asked for */
};

int guest_main(void);

/* --- print.c: output, ending, checks --- */
void serial_putc(char c); /* polled; no CR is added */
void print(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void hold(const char *say); /* with the argument `hold`: prints the line and waits for a byte on the serial port */
_Noreturn void guest_exit(uint8_t status);
/* Prints "ok: text"; or "FAIL status: text" and ends the guest with that status. */
void check(bool ok, uint8_t status, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* --- string.c --- */
void *memcpy(void *dst, const void *src, size_t len);
void *memmove(void *dst, const void *src, size_t len);
void *memset(void *dst, int c, size_t len);
int memcmp(const void *a, const void *b, size_t len);
bool str_equal(const char *a, const char *b);
uint64_t str_to_u64(const char *s); /* decimal or 0x hexadecimal; ends at the first other character */

/* Unaligned loads from guest-physical memory. */
static inline uint16_t peek16(uint64_t pa)
{
	uint16_t v;
	__builtin_memcpy(&v, (const void *)pa, 2);
	return v;
}
static inline uint32_t peek32(uint64_t pa)
{
	uint32_t v;
	__builtin_memcpy(&v, (const void *)pa, 4);
	return v;
}
static inline uint64_t peek64(uint64_t pa)
{
	uint64_t v;
	__builtin_memcpy(&v, (const void *)pa, 8);
	return v;
}
static inline uint8_t peek8(uint64_t pa)
{
	return *(const volatile uint8_t *)pa;
}

/* --- boot.c: what the loader told us, by either protocol --- */
enum boot_protocol { BOOT_PVH = 1, BOOT_LINUX64 = 2 };
extern uint32_t boot_protocol;  /* set by crt.S: which entry was used */
extern uint64_t boot_info_addr; /* hvm_start_info or boot_params */

enum { RANGE_RAM = 1, RANGE_RESERVED = 2, RANGE_ACPI = 3, RANGE_NVS = 4 };
struct boot_range {
	uint64_t addr, size;
	uint32_t type;
};

void boot_check(void);                                      /* the header's magic numbers; ends with 0xe0 if wrong */
const char *boot_cmdline(void);                             /* "" if none */
bool boot_memmap(unsigned index, struct boot_range *ret_r); /* false: no such entry */
bool boot_module(struct boot_range *ret_r);                 /* the first module, or the initrd */
uint64_t boot_rsdp(void);                                   /* 0 if the loader gave none */
/* Words of the command line: `name` alone, or `name=value`. */
bool arg_has(const char *name);
bool arg_str(const char *name, char *ret_value, size_t size); /* ret_value is "" when absent */
bool arg_is(const char *name, const char *value);
uint64_t arg_u64(const char *name, uint64_t otherwise);

/* --- trap.c --- */
struct trap_frame {
	uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rbp, rdi, rsi, rdx, rcx, rbx, rax;
	uint64_t vector, error, rip, cs, rflags, rsp, ss;
};
typedef void trap_fn(struct trap_frame *f);
void trap_set(uint8_t vector, trap_fn *fn);

/* --- map.c: page tables above 4 GiB --- */
void *map_phys(uint64_t pa); /* maps the 2 MiB page of pa one to one; no more than 64 GiB in all */

/* --- clock.c: time from PIT channel 1, which nothing else uses and which raises no interrupt --- */
void clock_delay_us(uint32_t us);
/* Waits until *word >= want; false after `ms`. Interrupts stay as they are. */
bool clock_wait(const volatile uint32_t *word, uint32_t want, uint32_t ms);
void pit_start(uint32_t hz); /* channel 0, periodic: IRQ 0 */
void pit_stop(void);
uint64_t tsc_khz(void); /* the argument `tsc-khz=N`; without it, measured once by the PIT, 50 ms */
uint64_t tsc_to_ns(uint64_t ticks);

/* --- irq.c: the two ways from an ISA interrupt line to the CPU --- */
enum irq_via { IRQ_VIA_PIC, IRQ_VIA_IOAPIC };
void irq_attach(unsigned irq, enum irq_via via, trap_fn *fn);
void irq_detach(unsigned irq, enum irq_via via);
void irq_ack(unsigned irq, enum irq_via via);
/* A level-triggered, active-high line of an IOAPIC, by its number in ACPI; the local APIC is enabled. Any ring. */
void irq_attach_level(unsigned gsi, uint8_t vector);
void irq_detach_level(unsigned gsi);
void irq_quiet(void); /* masks every ISA line: firmware may have left the timer running */
unsigned irq_to_gsi(unsigned irq, uint16_t *ret_flags); /* through the MADT's overrides, if there is a MADT */

/* --- lapic.c --- */
enum {
	LAPIC_ID = 0x20,
	LAPIC_VERSION = 0x30,
	LAPIC_TPR = 0x80,
	LAPIC_EOI = 0xb0,
	LAPIC_SVR = 0xf0,
	LAPIC_ICR = 0x300,
	LAPIC_ICR_HIGH = 0x310,
	LAPIC_LVT_TIMER = 0x320,
	LAPIC_LVT_LINT0 = 0x350,
	LAPIC_TIMER_INITIAL = 0x380,
	LAPIC_TIMER_CURRENT = 0x390,
	LAPIC_TIMER_DIVIDE = 0x3e0,
};
enum { ICR_FIXED = 0, ICR_INIT = 5 << 8, ICR_STARTUP = 6 << 8, ICR_ASSERT = 1 << 14 };
void lapic_enable(bool x2apic); /* this CPU; spurious vector 0xff */
uint32_t lapic_read(unsigned reg);
void lapic_write(unsigned reg, uint32_t v);
uint32_t lapic_id(void);
void lapic_send(uint32_t apic_id, uint32_t icr);
void lapic_eoi(void);

/* --- smp.c --- */
enum { SMP_MAX = 256 };
/* Sends INIT-SIPI-SIPI; the CPU then calls fn(number of its arrival, from 0) on a 2 KiB stack, interrupts off. */
void smp_start(uint32_t apic_id, void (*fn)(uint32_t arrival));

/* --- acpi.c --- */
bool acpi_sum_ok(uint64_t pa, uint32_t len);
uint64_t acpi_rsdp(void);                   /* the loader's, or found by scanning; 0 if none */
uint64_t acpi_table(const char *signature); /* physical address of the first such table, or 0 */
uint64_t acpi_table_at(unsigned index);     /* the index-th entry of XSDT (or RSDT); 0 past the end */
uint64_t acpi_root(void);                   /* XSDT or RSDT, 0 if none */
uint64_t acpi_dsdt(void);
/* Walks the MADT: the next entry of this type after `prev` (0: from the start), or 0. */
uint64_t madt_next(uint64_t prev, uint8_t type);
enum { MADT_LAPIC = 0, MADT_IOAPIC = 1, MADT_OVERRIDE = 2, MADT_X2APIC = 9 };
/* The i-th usable CPU of the MADT; false past the end. */
bool madt_cpu(unsigned index, uint32_t *ret_apic_id);

/* --- user.c --- */
/* Goes to ring 3 with all ports open and calls fn there; the first 4 GiB are user memory. fn ends the guest. */
_Noreturn void user_start(void (*fn)(void), bool interrupts);

#endif
