/*
 * The init of `vmlet exec`: a static program without a libc that needs nothing of the root file system that it finds.
 * It makes the file systems that programs expect, loads modules, runs one command, carries its standard streams over
 * the stream port, and gives its status to the debug-exit port. Without these ports it says so and powers off.
 */
#include <asm/errno.h>
#include <asm/fcntl.h>
#include <linux/reboot.h>

#include "command.h"
#include "job.h"
#include "port.h"
#include "relay.h"
#include "setup.h"
#include "sys.h"

__asm__(".globl _start\n"
	"_start:\n\t"
	"xor %ebp, %ebp\n\t"
	"and $-16, %rsp\n\t"
	"call init_main\n\t"
	"hlt");

void init_main(void) __attribute__((noreturn));

static void power_off(void) __attribute__((noreturn));

/* A kernel that cannot power off takes the end of init for a reason to panic, which ends the VM as well. */
static void power_off(void)
{
	SYS_4(reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_POWER_OFF, NULL);
	for (;;)
		SYS_1(exit, 1);
}

/* In the kernel's log, with a level that "quiet" lets through to the console. */
static void tell_kernel(struct sentence *sentence)
{
	long fd = SYS_3(open, "/dev/kmsg", O_WRONLY | O_CLOEXEC, 0);
	struct sentence line = {0};

	sentence_add(&line, "<2>vmlet exec: ");
	sentence_add(&line, sentence->text);
	sentence_add(&line, "\n");
	if (fd < 0)
		fd = 2;
	SYS_3(write, fd, line.text, line.length);
}

static void tell_user(struct sentence *sentence)
{
	struct sentence line = {0};

	sentence_add(&line, "vmlet: ");
	sentence_add(&line, sentence->text);
	sentence_add(&line, "\n");
	port_write_all(PORT_ERR, line.text, line.length);
}

static void need_ports(void)
{
	struct sentence why = {0};
	long r = port_open();

	if (r == 0)
		return;
	if (r == -ENODEV) {
		sentence_add(&why, "this machine has no stream port; is it vmlet's?");
	} else {
		sentence_add(&why, "the kernel refuses the use of I/O ports");
		sentence_add_error(&why, r);
		sentence_add(&why, "; it needs CONFIG_X86_IOPL_IOPERM or CONFIG_DEVPORT, and no lockdown");
	}
	tell_kernel(&why);
	power_off();
}

static void read_job(struct job *job)
{
	struct sentence why = {0};
	long r = job_read(job);

	if (r == 0)
		return;
	sentence_add(&why, "/.vmlet/job");
	sentence_add_error(&why, r);
	tell_user(&why);
	power_off();
}

static void load_modules(const struct job *job)
{
	for (char *const *module = job->modules; *module; module++) {
		struct sentence why = {0};

		sentence_add(&why, "module ");
		sentence_add(&why, *module + text_length("/.vmlet/modules/"));
		if (setup_module(*module, &why) == 0)
			continue;
		tell_user(&why);
		power_off();
	}
}

static int run_command(struct job *job)
{
	struct sentence why = {0};
	struct command command;
	long r = command_start(&command, job, &why);

	if (r == 0)
		return relay_run(&command);
	if (r < 0) {
		sentence_add(&why, job->terminal ? "no terminal for the command" : "no process for the command");
		sentence_add_error(&why, r);
	}
	tell_user(&why);
	if (r < 0)
		power_off();
	return (int)r;
}

void init_main(void)
{
	static struct job job;
	int status;

	SYS_1(umask, 0);
	setup_mounts();
	need_ports();
	read_job(&job);
	load_modules(&job);
	setup_loopback();
	status = run_command(&job);
	port_exit((uint8_t)status);
	power_off();
}
