/* One-instruction helpers. Everything here is inline and has no state. */
#ifndef GUEST_CPU_H
#define GUEST_CPU_H

#include <stdint.h>

static inline uint8_t inb(uint16_t port)
{
	uint8_t v;
	__asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port) : "memory");
	return v;
}

static inline uint16_t inw(uint16_t port)
{
	uint16_t v;
	__asm__ volatile("inw %1, %0" : "=a"(v) : "Nd"(port) : "memory");
	return v;
}

static inline uint32_t inl(uint16_t port)
{
	uint32_t v;
	__asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(port) : "memory");
	return v;
}

static inline void outb(uint16_t port, uint8_t v)
{
	__asm__ volatile("outb %0, %1" : : "a"(v), "Nd"(port) : "memory");
}

static inline void outw(uint16_t port, uint16_t v)
{
	__asm__ volatile("outw %0, %1" : : "a"(v), "Nd"(port) : "memory");
}

static inline void outl(uint16_t port, uint32_t v)
{
	__asm__ volatile("outl %0, %1" : : "a"(v), "Nd"(port) : "memory");
}

static inline void rep_outsb(uint16_t port, const void *src, uint64_t count)
{
	__asm__ volatile("cld; rep outsb" : "+S"(src), "+c"(count) : "d"(port) : "memory");
}

static inline void rep_outsl(uint16_t port, const void *src, uint64_t count)
{
	__asm__ volatile("cld; rep outsl" : "+S"(src), "+c"(count) : "d"(port) : "memory");
}

static inline void rep_insb(uint16_t port, void *dst, uint64_t count)
{
	__asm__ volatile("cld; rep insb" : "+D"(dst), "+c"(count) : "d"(port) : "memory");
}

/* Device memory: exactly one access of exactly this size. */
static inline uint8_t mmio_read8(uint64_t pa)
{
	uint8_t v;
	__asm__ volatile("movb (%1), %0" : "=q"(v) : "r"(pa) : "memory");
	return v;
}

static inline uint16_t mmio_read16(uint64_t pa)
{
	uint16_t v;
	__asm__ volatile("movw (%1), %0" : "=r"(v) : "r"(pa) : "memory");
	return v;
}

static inline uint32_t mmio_read32(uint64_t pa)
{
	uint32_t v;
	__asm__ volatile("movl (%1), %0" : "=r"(v) : "r"(pa) : "memory");
	return v;
}

static inline uint64_t mmio_read64(uint64_t pa)
{
	uint64_t v;
	__asm__ volatile("movq (%1), %0" : "=r"(v) : "r"(pa) : "memory");
	return v;
}

static inline void mmio_write8(uint64_t pa, uint8_t v)
{
	__asm__ volatile("movb %0, (%1)" : : "q"(v), "r"(pa) : "memory");
}

static inline void mmio_write16(uint64_t pa, uint16_t v)
{
	__asm__ volatile("movw %0, (%1)" : : "r"(v), "r"(pa) : "memory");
}

static inline void mmio_write32(uint64_t pa, uint32_t v)
{
	__asm__ volatile("movl %0, (%1)" : : "r"(v), "r"(pa) : "memory");
}

static inline void mmio_write64(uint64_t pa, uint64_t v)
{
	__asm__ volatile("movq %0, (%1)" : : "r"(v), "r"(pa) : "memory");
}

static inline uint64_t rdmsr(uint32_t msr)
{
	uint32_t lo, hi;
	__asm__ volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(msr) : "memory");
	return lo | (uint64_t)hi << 32;
}

static inline void wrmsr(uint32_t msr, uint64_t v)
{
	__asm__ volatile("wrmsr" : : "c"(msr), "a"((uint32_t)v), "d"((uint32_t)(v >> 32)) : "memory");
}

static inline uint64_t rdtsc(void)
{
	uint32_t lo, hi;
	__asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi) : : "memory");
	return lo | (uint64_t)hi << 32;
}

struct cpuid {
	uint32_t a, b, c, d;
};

static inline struct cpuid cpuid(uint32_t leaf, uint32_t sub)
{
	struct cpuid r;
	__asm__ volatile("cpuid" : "=a"(r.a), "=b"(r.b), "=c"(r.c), "=d"(r.d) : "a"(leaf), "c"(sub));
	return r;
}

static inline uint64_t read_cr2(void)
{
	uint64_t v;
	__asm__ volatile("mov %%cr2, %0" : "=r"(v));
	return v;
}

static inline unsigned read_cpl(void)
{
	uint64_t cs;
	__asm__ volatile("mov %%cs, %0" : "=r"(cs));
	return cs & 3;
}

static inline void cpu_pause(void)
{
	__asm__ volatile("pause" : : : "memory");
}

static inline void irq_on(void)
{
	__asm__ volatile("sti; nop" : : : "memory"); /* the nop ends sti's shadow */
}

static inline void irq_off(void)
{
	__asm__ volatile("cli" : : : "memory");
}

/* Interrupts on and halt, with no window between the two. */
static inline void irq_on_and_halt(void)
{
	__asm__ volatile("sti; hlt" : : : "memory");
}

#endif
