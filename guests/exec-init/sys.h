/* The kernel and the machine, without a libc: system calls, ports, and the few string functions that are needed. */
#pragma once

#include <asm/unistd.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Each returns what the kernel does: -errno on failure. */
static inline long sys_5(long number, long a, long b, long c, long d, long e)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	long result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
			 : "rcx", "r11", "memory");
	return result;
}

#define SYS_0(name)                sys_5(__NR_##name, 0, 0, 0, 0, 0)
#define SYS_1(name, a)             sys_5(__NR_##name, (long)(a), 0, 0, 0, 0)
#define SYS_2(name, a, b)          sys_5(__NR_##name, (long)(a), (long)(b), 0, 0, 0)
#define SYS_3(name, a, b, c)       sys_5(__NR_##name, (long)(a), (long)(b), (long)(c), 0, 0)
#define SYS_4(name, a, b, c, d)    sys_5(__NR_##name, (long)(a), (long)(b), (long)(c), (long)(d), 0)
#define SYS_5(name, a, b, c, d, e) sys_5(__NR_##name, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e))

static inline uint8_t inb(uint16_t port)
{
	uint8_t value;

	__asm__ volatile("inb %1, %0" : "=a"(value) : "d"(port));
	return value;
}

static inline uint32_t inl(uint16_t port)
{
	uint32_t value;

	__asm__ volatile("inl %1, %0" : "=a"(value) : "d"(port));
	return value;
}

static inline void outb(uint16_t port, uint8_t value)
{
	__asm__ volatile("outb %0, %1" : : "a"(value), "d"(port));
}

static inline void rep_outsl(uint16_t port, const void *data, size_t count)
{
	__asm__ volatile("rep outsl" : "+S"(data), "+c"(count) : "d"(port) : "memory");
}

static inline void rep_outsb(uint16_t port, const void *data, size_t count)
{
	__asm__ volatile("rep outsb" : "+S"(data), "+c"(count) : "d"(port) : "memory");
}

static inline void rep_insl(uint16_t port, void *data, size_t count)
{
	__asm__ volatile("rep insl" : "+D"(data), "+c"(count) : "d"(port) : "memory");
}

static inline void rep_insb(uint16_t port, void *data, size_t count)
{
	__asm__ volatile("rep insb" : "+D"(data), "+c"(count) : "d"(port) : "memory");
}

/* The compiler calls these by itself. */
void *memcpy(void *to, const void *from, size_t size_bytes);
void *memset(void *to, int byte, size_t size_bytes);

size_t text_length(const char *text);
bool text_has_prefix(const char *text, const char *prefix);
bool text_has_suffix(const char *text, const char *suffix);
/* Where `byte` is in `text`, or NULL. */
const char *text_find(const char *text, char byte);

/* A sentence that is put together; what does not fit is cut off. */
struct sentence {
	size_t length;
	char text[512];
};
void sentence_add(struct sentence *sentence, const char *text);
void sentence_add_number(struct sentence *sentence, unsigned long number);
/* ": " and what the error means; a number where it is none of the few that are expected here. */
void sentence_add_error(struct sentence *sentence, long error);
