/*
 * The floor of start-up time: what no VMM on this host can do without, and nothing else. One VM, one memory slot,
 * one vCPU, and a guest that writes 0 to the debug-exit port with its first instructions (guests/exit.c's, entered in
 * the same flat 32-bit state). No interrupt controller, no timer, no CPUID, no threads, no files, no clean-up: the
 * kernel takes everything down at exit, as it does for every process.
 *
 *   --pc      also makes KVM's interrupt controllers and timer, as every PC has them
 *   --steps   tells how long each step took
 */
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { MEMORY_BYTES = 256 << 20, ENTRY = 0x100000, PORT_DEBUG_EXIT = 0xf4 };

static const unsigned char GUEST[] = {
	0xb0, 0x00,            /* mov $0, %al */
	0xe6, PORT_DEBUG_EXIT, /* out %al, $0xf4 */
	0xf4,                  /* hlt */
};

static bool show_steps;

static void step(const char *name)
{
	static struct timespec last;
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	if (show_steps && last.tv_sec)
		fprintf(stderr, "%8.3f ms  %s\n",
			(double)(now.tv_sec - last.tv_sec) * 1e3 + (double)(now.tv_nsec - last.tv_nsec) / 1e6, name);
	clock_gettime(CLOCK_MONOTONIC, &last);
}

static int check(int result, const char *name)
{
	if (result < 0) {
		perror(name);
		exit(1);
	}
	step(name);
	return result;
}

static void set_flat_segment(struct kvm_segment *segment, unsigned type, unsigned selector)
{
	*segment = (struct kvm_segment){.limit = 0xffffffff,
					.selector = (unsigned short)selector,
					.type = (unsigned char)type,
					.present = 1,
					.db = 1,
					.s = 1,
					.g = 1};
}

static void set_registers(int vcpu)
{
	struct kvm_sregs sregs;
	check(ioctl(vcpu, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
	set_flat_segment(&sregs.cs, 11, 16);
	set_flat_segment(&sregs.ds, 3, 24);
	sregs.es = sregs.fs = sregs.gs = sregs.ss = sregs.ds;
	sregs.cr0 = 0x11; /* PE, ET */
	check(ioctl(vcpu, KVM_SET_SREGS, &sregs), "KVM_SET_SREGS");
	struct kvm_regs regs = {.rip = ENTRY, .rflags = 2};
	check(ioctl(vcpu, KVM_SET_REGS, &regs), "KVM_SET_REGS");
}

static void create_irqchip(int vm)
{
	struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};
	check(ioctl(vm, KVM_SET_TSS_ADDR, 0xfffbd000), "KVM_SET_TSS_ADDR");
	check(ioctl(vm, KVM_CREATE_IRQCHIP, 0), "KVM_CREATE_IRQCHIP");
	check(ioctl(vm, KVM_CREATE_PIT2, &pit), "KVM_CREATE_PIT2");
}

int main(int argc, char **argv)
{
	bool pc = false;
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--pc"))
			pc = true;
		else if (!strcmp(argv[i], "--steps"))
			show_steps = true;
		else
			return fprintf(stderr, "usage: floor [--pc] [--steps]\n"), 2;
	}

	step("start");
	int kvm = check(open("/dev/kvm", O_RDWR | O_CLOEXEC), "open /dev/kvm");
	int run_bytes = check(ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), "KVM_GET_VCPU_MMAP_SIZE");
	int vm = check(ioctl(kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
	void *memory =
		mmap(NULL, MEMORY_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (memory == MAP_FAILED)
		return perror("mmap"), 1;
	memcpy((char *)memory + ENTRY, GUEST, sizeof(GUEST));
	struct kvm_userspace_memory_region slot = {.memory_size = MEMORY_BYTES, .userspace_addr = (__u64)memory};
	step("guest memory");
	check(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot), "KVM_SET_USER_MEMORY_REGION");
	if (pc)
		create_irqchip(vm);
	int vcpu = check(ioctl(vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
	struct kvm_run *run = mmap(NULL, (size_t)run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	if (run == MAP_FAILED)
		return perror("mmap"), 1;
	set_registers(vcpu);
	check(ioctl(vcpu, KVM_RUN, 0), "KVM_RUN");
	bool ended = run->exit_reason == KVM_EXIT_IO && run->io.port == PORT_DEBUG_EXIT;
	if (!ended)
		fprintf(stderr, "floor: unexpected exit reason %u\n", run->exit_reason);
	if (show_steps) {
		munmap(run, (size_t)run_bytes);
		close(vcpu);
		step("close the vCPU");
		close(vm);
		step("close the VM");
	}
	return ended ? 0 : 1;
}
