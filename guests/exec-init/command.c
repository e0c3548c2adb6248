#include "command.h"

#include <asm/errno.h>
#include <asm/fcntl.h>
#include <asm/ioctls.h>
#include <asm/signal.h>
#include <asm/termios.h>
#include <linux/sched.h>
#include <linux/wait.h>

#include "port.h"

/* The child's side: its standard descriptors, and what became of the attempt. */
struct start {
	struct job *job;
	int fds[3];
	bool terminal;
	char path[4096]; /* of the file that was tried last */
	long error;
	bool in_directory;
};

enum { CHILD_STACK_BYTES = 64 << 10 };

/* --- in the child, which shares our memory ---------------------------------------------------------------- */

static void prepare_process(struct start *start)
{
	static const uint64_t no_signals;

	SYS_0(setsid);
	for (int fd = 0; fd < 3; fd++)
		SYS_2(dup2, start->fds[fd], fd);
	if (start->terminal)
		SYS_3(ioctl, 0, TIOCSCTTY, 0);
	port_renounce();
	SYS_1(umask, 022);
	SYS_4(rt_sigprocmask, SIG_SETMASK, &no_signals, NULL, sizeof(no_signals));
}

/* Does not return when it succeeds; what stands in our memory then is what the parent sees. */
static void try_file(struct start *start)
{
	start->error = 0;
	start->error = SYS_3(execve, start->path, start->job->argv, start->job->envp);
}

/* False when it is too long to be a path. */
static bool join_path(struct start *start, const char *directory, size_t length, const char *name)
{
	size_t name_length = text_length(name);

	if (length + name_length + 2 > sizeof(start->path))
		return false;
	memcpy(start->path, directory, length);
	if (length > 0)
		start->path[length++] = '/';
	memcpy(start->path + length, name, name_length + 1);
	return true;
}

/* As execvp: what may not be executed is remembered, but another directory may have one that may. */
static void try_along_path(struct start *start, const char *name, const char *directories)
{
	long error = -ENOENT;

	while (directories) {
		const char *end = text_find(directories, ':');
		size_t length = end ? (size_t)(end - directories) : text_length(directories);

		start->error = -ENOENT;
		if (join_path(start, directories, length, name))
			try_file(start);
		if (start->error == -EACCES)
			error = -EACCES;
		else if (start->error != -ENOENT && start->error != -ENOTDIR)
			return;
		directories = end ? end + 1 : NULL;
	}
	start->error = error;
	(void)join_path(start, "", 0, name);
}

/* Returns only when it cannot be executed. */
static int run_child(void *arg)
{
	struct start *start = arg;
	const char *name = start->job->path ? start->job->path : start->job->argv[0];

	prepare_process(start);
	start->error = start->job->directory ? SYS_1(chdir, start->job->directory) : 0;
	start->in_directory = start->error == 0;
	if (!start->in_directory)
		return STATUS_NOT_EXECUTABLE;
	if (text_find(name, '/')) {
		start->error = -ENAMETOOLONG;
		if (join_path(start, "", 0, name))
			try_file(start);
	} else {
		try_along_path(start, name, job_variable(start->job, "PATH"));
	}
	return STATUS_NOT_EXECUTABLE;
}

/* --- spawning --------------------------------------------------------------------------------------------- */

/*
 * vfork, with a stack of its own for the child: there are no page tables to copy, and what the child finds out it
 * writes where we read it, because we sleep until it has executed the command or is gone.
 */
static long spawn(int (*run)(void *arg), void *arg, void *stack_top)
{
	register void *r12 __asm__("r12") = arg;
	register long r10 __asm__("r10") = 0;
	register long r8 __asm__("r8") = 0;
	long pid;

	__asm__ volatile("syscall\n\t"
			 "test %%rax, %%rax\n\t"
			 "jnz 1f\n\t"
			 "xor %%ebp, %%ebp\n\t"
			 "mov %%r12, %%rdi\n\t"
			 "call *%%rbx\n\t"
			 "mov %%eax, %%edi\n\t"
			 "mov %[exit], %%eax\n\t"
			 "syscall\n\t"
			 "hlt\n"
			 "1:"
			 : "=a"(pid)
			 : "a"(__NR_clone), "D"(CLONE_VM | CLONE_VFORK | SIGCHLD), "S"(stack_top), "d"(0), "r"(r10),
			   "r"(r8), "b"(run), "r"(r12), [exit] "i"(__NR_exit)
			 : "rcx", "r11", "memory", "cc");
	return pid;
}

static long describe_failure(const struct start *start, struct sentence *why)
{
	const char *name = start->job->argv[0];
	bool missing = start->error == -ENOENT || start->error == -ENOTDIR;

	sentence_add(why, start->in_directory ? name : start->job->directory);
	if (!start->in_directory) {
		sentence_add_error(why, start->error);
		return STATUS_NOT_EXECUTABLE;
	}
	if (missing && SYS_2(access, start->path, 0) >= 0 && text_find(start->path, '/')) {
		sentence_add(why, ": its interpreter or dynamic linker is not there");
		return STATUS_NOT_EXECUTABLE;
	}
	if (missing)
		sentence_add(why, ": not found");
	else
		sentence_add_error(why, start->error);
	return missing ? STATUS_NOT_FOUND : STATUS_NOT_EXECUTABLE;
}

static long start_child(struct command *command, struct start *start, struct sentence *why)
{
	static char stack[CHILD_STACK_BYTES] __attribute__((aligned(16)));

	command->pid = spawn(run_child, start, stack + sizeof(stack));
	if (command->pid < 0)
		return command->pid;
	return start->error < 0 ? describe_failure(start, why) : 0;
}

/* --- its descriptors -------------------------------------------------------------------------------------- */

static void close_fd(int fd)
{
	if (fd >= 0)
		SYS_1(close, fd);
}

/* Ours does not block; the command's does, as it expects. */
static long make_pipe(int *ret_ours, int *ret_its, bool we_write)
{
	int pair[2];
	long r = SYS_2(pipe2, pair, O_CLOEXEC);

	if (r < 0)
		return r;
	*ret_ours = pair[we_write ? 1 : 0];
	*ret_its = pair[we_write ? 0 : 1];
	return SYS_3(fcntl, *ret_ours, F_SETFL, (we_write ? O_WRONLY : O_RDONLY) | O_NONBLOCK);
}

static long make_pipes(struct command *command, struct start *start)
{
	long r = make_pipe(&command->in, &start->fds[0], true);

	return r < 0 ? r : make_pipe(&command->out, &start->fds[1], false);
}

static long make_terminal(struct command *command, struct start *start)
{
	int unlock = 0;
	long fd = SYS_3(open, "/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC, 0);
	long peer;

	if (fd < 0)
		return fd;
	command->in = command->out = (int)fd;
	SYS_3(ioctl, fd, TIOCSPTLCK, &unlock);
	peer = SYS_3(ioctl, fd, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (peer < 0)
		return peer;
	start->fds[0] = start->fds[1] = (int)peer;
	command_set_size(command, port_size());
	return 0;
}

static long make_descriptors(struct command *command, struct start *start)
{
	long r = start->terminal ? make_terminal(command, start) : make_pipes(command, start);

	if (r < 0)
		return r;
	if (start->terminal && start->job->error_is_terminal) {
		start->fds[2] = start->fds[0];
		return 0;
	}
	return make_pipe(&command->err, &start->fds[2], false);
}

long command_start(struct command *command, struct job *job, struct sentence *why)
{
	static struct start start;
	long r;

	*command = (struct command){.pid = -1, .in = -1, .out = -1, .err = -1};
	start.job = job;
	start.terminal = job->terminal;
	r = make_descriptors(command, &start);
	if (r == 0)
		r = start_child(command, &start, why);
	close_fd(start.fds[0]);
	if (start.fds[1] != start.fds[0])
		close_fd(start.fds[1]);
	if (start.fds[2] != start.fds[0])
		close_fd(start.fds[2]);
	return r;
}

void command_set_size(const struct command *command, uint32_t size)
{
	struct winsize window = {.ws_row = (unsigned short)(size >> 16), .ws_col = (unsigned short)size};

	SYS_3(ioctl, command->out, TIOCSWINSZ, &window);
}

bool command_reap(const struct command *command, int *ret_status)
{
	bool ended = false;
	int status;
	long pid;

	while ((pid = SYS_4(wait4, -1, &status, WNOHANG, NULL)) > 0) {
		if (pid != command->pid)
			continue;
		ended = true;
		*ret_status = (status & 0x7f) ? 128 + (status & 0x7f) : status >> 8 & 0xff;
	}
	return ended;
}
