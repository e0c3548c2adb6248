/*
 * kvmprobe: can this host's KVM run stock guests?
 *
 * Prints one word and exits with its number:
 *   hardware (0)  ring 0 runs at speed and knows the instructions that kernels use
 *   software (1)  KVM answers, but emulates ring 0 slowly or incompletely
 *   none     (2)  there is no usable /dev/kvm
 *
 * A software-only KVM claims every capability, so the probe asks for work instead: a guest in 64-bit
 * ring 0 that counts down around a cmpxchg16b, and then says so on a port.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { HARDWARE, SOFTWARE, NONE };

/*
 * Each turn of the loop is four instructions. Hardware needs a millisecond for it, SVM emulated by
 * QEMU's TCG tens of them, and a KVM that emulates ring 0 (about 1.2 million instructions a second)
 * nearly two seconds.
 */
enum { TURNS = 500000, TRIES = 3, LIMIT_MS = 300 };

/* The guest's memory, and where its parts are. */
enum { RAM_BYTES = 0x10000, PML4 = 0x1000, PDPT = 0x2000, PD = 0x3000, CODE = 0x4000, DATA = 0x5000 };
enum { DONE_PORT = 0xf4, DONE_BYTE = 0x42 };

static const uint8_t code[] = {
	0xb9,        TURNS & 0xff, TURNS >> 8 & 0xff,
	TURNS >> 16, 0x00, /* mov ecx, TURNS */
	0xbf,        0x00,         0x50,
	0x00,        0x00, /* mov edi, DATA */
	0xf0,        0x48,         0x0f,
	0xc7,        0x0f,               /* again: lock cmpxchg16b [rdi] */
	0x48,        0xff,         0xc3, /* inc rbx */
	0xff,        0xc9,               /* dec ecx */
	0x75,        0xf4,               /* jnz again */
	0xb0,        DONE_BYTE,          /* mov al, DONE_BYTE */
	0xe6,        DONE_PORT,          /* out DONE_PORT, al */
	0xf4,                            /* hlt */
};

struct guest {
	uint8_t *ram;
	int vm, vcpu;
	struct kvm_run *run;
	int run_bytes;
};

static bool set_cpuid(int kvm, int vcpu)
{
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entries[256];
	} cpuid = {.head.nent = 256};

	return ioctl(kvm, KVM_GET_SUPPORTED_CPUID, &cpuid) == 0 && ioctl(vcpu, KVM_SET_CPUID2, &cpuid) == 0;
}

static void map_first_2mib(uint8_t *ram)
{
	const uint64_t present_writable = 3, huge_page = 0x80;

	*(uint64_t *)(ram + PML4) = PDPT | present_writable;
	*(uint64_t *)(ram + PDPT) = PD | present_writable;
	*(uint64_t *)(ram + PD) = 0 | present_writable | huge_page;
}

static bool enter_long_mode(int vcpu)
{
	struct kvm_segment text = {.limit = ~0u, .selector = 8, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1};
	struct kvm_segment data = {.limit = ~0u, .selector = 16, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1};
	struct kvm_sregs sregs;

	if (ioctl(vcpu, KVM_GET_SREGS, &sregs) < 0)
		return false;
	sregs.cs = text;
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
	sregs.cr3 = PML4;
	sregs.cr4 = 0x20;       /* PAE */
	sregs.cr0 = 0x80000011; /* PG, ET, PE */
	sregs.efer = 0x500;     /* LMA, LME */
	return ioctl(vcpu, KVM_SET_SREGS, &sregs) == 0;
}

static bool guest_init(struct guest *g, int kvm)
{
	struct kvm_userspace_memory_region region = {.memory_size = RAM_BYTES};
	struct kvm_regs regs = {.rip = CODE, .rflags = 2, .rsp = RAM_BYTES};

	g->ram = mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (g->ram == MAP_FAILED)
		return false;
	memcpy(g->ram + CODE, code, sizeof code);
	map_first_2mib(g->ram);
	region.userspace_addr = (uintptr_t)g->ram;

	g->vm = ioctl(kvm, KVM_CREATE_VM, 0);
	if (g->vm < 0 || ioctl(g->vm, KVM_SET_USER_MEMORY_REGION, &region) < 0)
		return false;
	g->vcpu = ioctl(g->vm, KVM_CREATE_VCPU, 0);
	g->run_bytes = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (g->vcpu < 0 || g->run_bytes < 0)
		return false;
	g->run = mmap(NULL, g->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, g->vcpu, 0);
	return g->run != MAP_FAILED && set_cpuid(kvm, g->vcpu) && enter_long_mode(g->vcpu) &&
	       ioctl(g->vcpu, KVM_SET_REGS, &regs) == 0;
}

static void guest_fini(struct guest *g)
{
	if (g->run && g->run != MAP_FAILED)
		munmap(g->run, g->run_bytes);
	if (g->vcpu >= 0)
		close(g->vcpu);
	if (g->vm >= 0)
		close(g->vm);
	if (g->ram && g->ram != MAP_FAILED)
		munmap(g->ram, RAM_BYTES);
}

static bool guest_says_done(const struct guest *g)
{
	return ioctl(g->vcpu, KVM_RUN, 0) == 0 && g->run->exit_reason == KVM_EXIT_IO && g->run->io.port == DONE_PORT &&
	       *((uint8_t *)g->run + g->run->io.data_offset) == DONE_BYTE;
}

static long now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000L + t.tv_nsec / 1000000;
}

/* How long the guest ran, or -1 if it did not get to its end. */
static long guest_run_ms(int kvm)
{
	struct guest g = {.vm = -1, .vcpu = -1};
	long start, ms = -1;

	if (guest_init(&g, kvm)) {
		start = now_ms();
		if (guest_says_done(&g))
			ms = now_ms() - start;
	}
	guest_fini(&g);
	return ms;
}

static int probe(void)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	int verdict = SOFTWARE;

	if (kvm < 0 || ioctl(kvm, KVM_GET_API_VERSION, 0) != KVM_API_VERSION)
		return NONE;
	/* The best of several, because a busy host can delay any one of them. */
	for (int i = 0; i < TRIES && verdict == SOFTWARE; i++) {
		long ms = guest_run_ms(kvm);

		if (ms < 0)
			break;
		if (ms < LIMIT_MS)
			verdict = HARDWARE;
	}
	close(kvm);
	return verdict;
}

int main(void)
{
	static const char *const words[] = {"hardware", "software", "none"};
	int verdict = probe();

	puts(words[verdict]);
	return verdict;
}
