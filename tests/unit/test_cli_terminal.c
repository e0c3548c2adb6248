/*
 * The terminal and the signals, from outside: this program is the shell of a session on a pseudo-terminal and runs
 * the command line, linked with the fake libvmlet (its path is argv[1]), as a job.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

enum { PATIENCE_MS = 10000 };

static const char *program;
static int master, slave;
static struct termios before;
static char seen[4096]; /* what the job has written since its start */

static void job_exec(const char *kernel, const char *const *options, int foreground)
{
	const char *argv[32] = {"vmlet", "run", "-k", kernel, "--log-level=error"};
	size_t count;
	const struct rlimit none = {0, 0};

	setpgid(0, 0);
	signal(SIGTTOU, SIG_IGN);
	if (foreground)
		tcsetpgrp(slave, getpid());
	signal(SIGTTOU, SIG_DFL);
	setrlimit(RLIMIT_CORE, &none);
	/* A sanitizer handles these itself; the default is what is tested here. */
	setenv("ASAN_OPTIONS", "handle_segv=0:handle_sigbus=0:handle_abort=0", 1);
	dup2(slave, 0);
	dup2(slave, 1);
	dup2(slave, 2);
	close(master);
	for (count = 0; options[count]; count++)
		argv[5 + count] = options[count];
	execv(program, (char *const *)(uintptr_t)argv);
	_exit(127);
}

static pid_t job_start_with(const char *kernel, const char *const *options, int foreground)
{
	pid_t pid;

	memset(seen, 0, sizeof(seen));
	tcsetattr(slave, TCSANOW, &before);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		job_exec(kernel, options, foreground);
	setpgid(pid, pid);
	return pid;
}
#define JOB(kernel, ...) job_start_with(kernel, (const char *const[]){__VA_ARGS__, NULL}, 1)

static pid_t job_start(const char *kernel, int foreground)
{
	return job_start_with(kernel, (const char *const[]){NULL}, foreground);
}

/* Read what the job writes for up to `ms`; false when nothing came. */
static int job_read(int ms)
{
	struct pollfd pollfd = {.fd = master, .events = POLLIN};
	size_t have = strlen(seen);
	ssize_t n;

	if (poll(&pollfd, 1, ms) <= 0)
		return 0;
	n = read(master, seen + have, sizeof(seen) - 1 - have);
	return n > 0;
}

static void job_expect(const char *text)
{
	while (!strstr(seen, text))
		if (!job_read(PATIENCE_MS))
			fail_msg("no \"%s\" in \"%s\"", text, seen);
}

static void job_type(const char *keys)
{
	assert_int_equal(write(master, keys, strlen(keys)), strlen(keys));
}

static int job_wait(pid_t pid, int options)
{
	int status;

	for (int i = 0; i < PATIENCE_MS / 10; i++) {
		pid_t r = waitpid(pid, &status, options | WNOHANG);

		assert_true(r >= 0);
		if (r == pid) {
			while (job_read(0))
				;
			return status;
		}
		job_read(10);
	}
	kill(pid, SIGKILL);
	fail_msg("the job does not end; it wrote \"%s\"", seen);
	return 0;
}

/* Two signals that come close together may be one; so signal until it ends. */
static int job_end_by(pid_t pid, int signo)
{
	siginfo_t info = {0};

	for (int i = 0; i < PATIENCE_MS / 20 && info.si_pid == 0; i++) {
		kill(pid, signo);
		nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
		assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT), 0);
	}
	return job_wait(pid, 0);
}

static int is_raw(void)
{
	struct termios now;

	assert_int_equal(tcgetattr(slave, &now), 0);
	return !(now.c_lflag & (ICANON | ECHO | ISIG)) && !(now.c_oflag & OPOST);
}

static void wait_until_raw(void)
{
	for (int i = 0; i < PATIENCE_MS / 10 && !is_raw(); i++)
		nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
	assert_true(is_raw());
}

static void assert_restored(void)
{
	struct termios now;

	assert_int_equal(tcgetattr(slave, &now), 0);
	assert_int_equal(now.c_iflag, before.c_iflag);
	assert_int_equal(now.c_oflag, before.c_oflag);
	assert_int_equal(now.c_lflag, before.c_lflag);
	assert_int_equal(now.c_cflag, before.c_cflag);
	assert_memory_equal(now.c_cc, before.c_cc, sizeof(now.c_cc));
}

static void test_raw_and_back(void **state)
{
	pid_t pid = job_start("echo", 1);
	int status;

	(void)state;
	job_expect("OPEN");
	assert_true(is_raw());
	job_type("\003\032\034z");
	job_expect("\003\032\034z");
	job_type("q");
	status = job_wait(pid, 0);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	assert_restored();
	/* Written after the terminal was put back: the line discipline made the \r. */
	assert_non_null(strstr(seen, "vmlet: the guest powered off\r\n"));
}

static void test_keys(void **state)
{
	pid_t pid = job_start("echo", 1);
	int status;

	(void)state;
	job_expect("OPEN");
	job_type("\001");
	job_type("?");
	job_expect("press the power button");
	job_expect("send one Ctrl-A to the guest\r\n");
	job_type("\001\001k");
	job_expect("\001k");
	job_type("\001x");
	status = job_wait(pid, 0);
	assert_int_equal(WEXITSTATUS(status), 85);
	assert_non_null(strstr(seen, "\r\nvmlet: left with Ctrl-A x\r\n"));
	assert_restored();
}

static void test_power_button(void **state)
{
	pid_t pid = job_start("echo", 1);

	(void)state;
	job_expect("OPEN");
	job_type("\001p");
	assert_int_equal(WEXITSTATUS(job_wait(pid, 0)), 0);
	assert_restored();
}

static void test_stop_signals(void **state)
{
	static const int signals[] = {SIGTERM, SIGINT, SIGHUP};

	(void)state;
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
		pid_t pid = job_start("echo", 1);
		int status;

		job_expect("OPEN");
		assert_true(is_raw());
		kill(pid, signals[i]);
		status = job_wait(pid, 0);
		assert_true(WIFEXITED(status));
		assert_int_equal(WEXITSTATUS(status), 128 + signals[i]);
		assert_non_null(strstr(seen, "vmlet: ended by signal"));
		assert_restored();
	}
}

static void test_second_signal_does_not_wait(void **state)
{
	pid_t pid = job_start("hang", 1);
	int status;

	(void)state;
	job_expect("OPEN");
	kill(pid, SIGTERM);
	assert_int_equal(waitpid(pid, &status, WNOHANG), 0);
	status = job_end_by(pid, SIGTERM);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 128 + SIGTERM);
	assert_restored();
}

static void test_deadly_signals(void **state)
{
	static const int signals[] = {SIGQUIT, SIGSEGV, SIGBUS, SIGABRT, SIGUSR1, SIGALRM};

	(void)state;
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
		pid_t pid = job_start("echo", 1);
		int status;

		job_expect("OPEN");
		assert_true(is_raw());
		kill(pid, signals[i]);
		status = job_wait(pid, 0);
		assert_true(WIFSIGNALED(status));
		assert_int_equal(WTERMSIG(status), signals[i]);
		assert_restored();
	}
}

static void test_own_bugs(void **state)
{
	int status;

	(void)state;
	status = job_wait(job_start("abort", 1), 0);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	assert_restored();
	status = job_wait(job_start("segv", 1), 0);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
	assert_restored();
}

/* Stopped from outside, the terminal is the shell's again; in the foreground again it is raw again. */
static void test_suspend_and_continue(void **state)
{
	pid_t pid = job_start("echo", 1);
	int status;

	(void)state;
	job_expect("OPEN");
	for (int i = 0; i < 3; i++) {
		kill(pid, SIGTSTP);
		status = job_wait(pid, WUNTRACED);
		assert_true(WIFSTOPPED(status));
		assert_int_equal(WSTOPSIG(status), SIGTSTP);
		assert_restored();
		kill(pid, SIGCONT);
		wait_until_raw();
	}
	job_type("alive");
	job_expect("alive");
	kill(pid, SIGTERM);
	assert_int_equal(WEXITSTATUS(job_wait(pid, 0)), 143);
	assert_restored();
}

/* SIGSTOP cannot be caught: the shell puts its modes back itself, and SIGCONT makes ours again. */
static void test_stop_and_continue(void **state)
{
	pid_t pid = job_start("echo", 1);

	(void)state;
	job_expect("OPEN");
	kill(pid, SIGSTOP);
	assert_true(WIFSTOPPED(job_wait(pid, WUNTRACED)));
	tcsetattr(slave, TCSANOW, &before);
	kill(pid, SIGCONT);
	wait_until_raw();
	kill(pid, SIGTERM);
	assert_int_equal(WEXITSTATUS(job_wait(pid, 0)), 143);
	assert_restored();
}

/* Continued in the background it leaves the terminal alone, and also when it ends there. */
static void test_continue_in_background(void **state)
{
	pid_t pid = job_start("hang", 1);

	(void)state;
	job_expect("OPEN");
	kill(pid, SIGTSTP);
	assert_true(WIFSTOPPED(job_wait(pid, WUNTRACED)));
	tcsetpgrp(slave, getpgrp());
	kill(pid, SIGCONT);
	nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
	assert_restored();
	tcsetpgrp(slave, pid);
	kill(pid, SIGCONT);
	wait_until_raw();
	assert_int_equal(WEXITSTATUS(job_end_by(pid, SIGTERM)), 143);
	assert_restored();
}

/* A job that starts in the background gets no input and does not touch the terminal. */
static void test_background(void **state)
{
	pid_t pid;

	(void)state;
	tcsetpgrp(slave, getpgrp());
	pid = job_start("echo", 0);
	job_expect("OPEN");
	assert_restored();
	kill(pid, SIGTERM);
	assert_int_equal(WEXITSTATUS(job_wait(pid, 0)), 143);
	assert_restored();
}

/* What the options say reaches the library. */
static void test_disks(void **state)
{
	pid_t pid = JOB("disks", "--transport=mmio", "--iothreads=3", "-d", "a,,b,ro,id=x,queues=2,packed,iops=3:4",
			"-d", "nbd=h:1,overlay=o,serial=s,cache=unsafe,bw=5:6", "-d", "c,direct,overlay");

	(void)state;
	assert_int_equal(job_wait(pid, 0), 0);
	job_expect("transport 1 iothreads 3\r\n"
		   "0 a,b id=x serial=- ro1 direct0 overlay0=- cache0 queues2 packed1 3:4 0:0\r\n"
		   "1 h:1 id=- serial=s ro0 direct0 overlay1=o cache1 queues1 packed0 0:0 5:6\r\n"
		   "0 c id=- serial=- ro0 direct1 overlay1=- cache0 queues1 packed0 0:0 0:0\r\n");
}

static void test_nets(void **state)
{
	pid_t pid = JOB("nets", "--net", "tap", "--net",
			"tap=t0,mac=52:54:00:12:34:56,mtu=9000,queues=2,id=x,pps=3:4,bw=5:6,packed,link=down", "--net",
			"passt=/s,,t", "--net", "listen=/l", "--net", "tap,id=y");

	(void)state;
	assert_int_equal(job_wait(pid, 0), 0);
	job_expect("vmlet: network card net0 is tap-of-net0\r\nvmlet: network card y is tap-of-y\r\n");
	job_expect("5 cards\r\n"
		   "0 - fd-1 id=- mac..00 mtu0 queues1 down0 packed0 0:0 0:0\r\n"
		   "0 t0 fd-1 id=x mac..56 mtu9000 queues2 down1 packed1 3:4 5:6\r\n"
		   "2 /s,t fd-1 id=- mac..00 mtu0 queues1 down0 packed0 0:0 0:0\r\n"
		   "3 /l fd-1 id=- mac..00 mtu0 queues1 down0 packed0 0:0 0:0\r\n"
		   "0 - fd-1 id=y mac..00 mtu0 queues1 down0 packed0 0:0 0:0\r\n");
	assert_int_equal(job_wait(JOB("nets", "--net", "none"), 0), 0);
	job_expect("0 cards\r\n");
}

/* passt is looked for along PATH. */
static void test_passt(void **state)
{
	char directory[] = "/tmp/vmlet-unit-XXXXXX", path[64], want[256];

	(void)state;
	assert_non_null(mkdtemp(directory));
	snprintf(path, sizeof(path), "%s/passt", directory);
	close(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0700));
	snprintf(want, sizeof(want), "/nonexistent:%s", directory);
	setenv("PATH", want, 1);
	assert_int_equal(job_wait(JOB("nets", "--net", "passt,publish=8080:80,publish=::1/53/udp"), 0), 0);
	snprintf(want, sizeof(want), "1 %s fd-1 id=- mac..00 mtu0 queues1 down0 packed0 0:0 0:0 8080:80 ::1/53/udp\r\n",
		 path);
	job_expect(want);
	unlink(path);
	rmdir(directory);
}

/* A descriptor that we were handed, and one that we were not: our own log has the next free number. */
static void test_descriptor(void **state)
{
	int pair[2], status;
	char option[32], want[64];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	snprintf(option, sizeof(option), "fd=%d", pair[0]);
	assert_int_equal(job_wait(JOB("nets", "--net", option), 0), 0);
	snprintf(want, sizeof(want), "4 - fd%d id=-", pair[0]);
	job_expect(want);
	close(pair[0]);
	status = job_wait(JOB("nets", "--net", option, "--log-file=/dev/null", "--console-log=/dev/null"), 0);
	assert_int_equal(WEXITSTATUS(status), 2);
	snprintf(want, sizeof(want), "--net 'fd=%d': descriptor %d is not open", pair[0], pair[0]);
	job_expect(want);
	close(pair[1]);
}

static void test_consoles(void **state)
{
	pid_t pid =
		JOB("consoles", "--console=pty", "--console", "port=a.b:unix=/x,,y", "--console=status",
		    "--console=stdio", "--console=port=p:pty", "--console=null", "--console=file=/f,packed,bw=9:8",
		    "--balloon=64M,deflate-on-oom,reporting", "--vsock=/v,cid=7,packed,bw=5:6,pps=7:8", "--rng=bw=1M");

	(void)state;
	assert_int_equal(job_wait(pid, 0), 0);
	job_expect("vmlet: console hvc0 is /dev/pts/fake0\r\nvmlet: port p is /dev/pts/fake3\r\n");
	job_expect("serial 0 status1 balloon1:67108864:1:1 vsock /v:7:5:6:7:8 rng1:1048576 packed1010\r\n"
		   "- 3 - in-1 out-1 bw0:0\r\n"
		   "a.b 4 /x,y in-1 out-1 bw0:0\r\n"
		   "- 1 - in0 out1 bw0:0\r\n"
		   "p 3 - in-1 out-1 bw0:0\r\n"
		   "- 0 - in-1 out-1 bw0:0\r\n"
		   "- 2 /f in-1 out-1 bw9:8\r\n");
	assert_int_equal(job_wait(JOB("consoles", "--rng=packed", "--balloon=0,packed", "--console=null"), 0), 0);
	job_expect("serial 1 status0 balloon1:0:0:0 vsock -:0:0:0:0:0 rng1:0 packed0101\r\n- 0 - in-1 out-1 bw0:0\r\n");
}

/* A console that is the terminal: raw, with the keys, and of its size. */
static void test_console_on_the_terminal(void **state)
{
	struct winsize size = {.ws_row = 31, .ws_col = 97};
	pid_t pid;

	(void)state;
	assert_int_equal(ioctl(slave, TIOCSWINSZ, &size), 0);
	pid = JOB("hvc", "--console", "stdio");
	job_expect("OPEN 31x97\r\n");
	wait_until_raw();
	size.ws_row = 40;
	assert_int_equal(ioctl(slave, TIOCSWINSZ, &size), 0);
	job_expect("SIZE 40x97\r\n");
	job_type("\003\001\001k");
	job_expect("\003\001k");
	job_type("\001x");
	assert_int_equal(WEXITSTATUS(job_wait(pid, 0)), 85);
	assert_restored();
}

/* The contract is with the console on standard input and output, wherever the serial port goes. */
static void test_contract_of_a_console(void **state)
{
	pid_t pid = JOB("hvc", "--console=stdio", "--console=null", "--send=OPEN=>hello", "--expect=typed at 0: hello");

	(void)state;
	assert_int_equal(job_wait(pid, 0), 0);
	assert_restored();
	pid = JOB("hvc", "--console=stdio", "--fail-on=OPEN");
	assert_int_equal(WEXITSTATUS(job_wait(pid, 0)), 84);
}

static int run_session(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_raw_and_back),
		cmocka_unit_test(test_keys),
		cmocka_unit_test(test_power_button),
		cmocka_unit_test(test_stop_signals),
		cmocka_unit_test(test_second_signal_does_not_wait),
		cmocka_unit_test(test_deadly_signals),
		cmocka_unit_test(test_own_bugs),
		cmocka_unit_test(test_suspend_and_continue),
		cmocka_unit_test(test_stop_and_continue),
		cmocka_unit_test(test_continue_in_background),
		cmocka_unit_test(test_background),
		cmocka_unit_test(test_disks),
		cmocka_unit_test(test_nets),
		cmocka_unit_test(test_passt),
		cmocka_unit_test(test_descriptor),
		cmocka_unit_test(test_consoles),
		cmocka_unit_test(test_console_on_the_terminal),
		cmocka_unit_test(test_contract_of_a_console),
	};

	signal(SIGTTOU, SIG_IGN);
	if (setsid() < 0 || ioctl(slave, TIOCSCTTY, 0) < 0)
		return 99;
	return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(int argc, char **argv)
{
	int status;
	pid_t pid;

	if (argc < 2)
		return 2;
	/* A shell's background job begins with these ignored, and vmlet rightly leaves what it inherits alone. */
	signal(SIGHUP, SIG_DFL);
	signal(SIGINT, SIG_DFL);
	signal(SIGQUIT, SIG_DFL);
	program = argv[1];
	master = posix_openpt(O_RDWR | O_NOCTTY);
	if (master < 0 || grantpt(master) < 0 || unlockpt(master) < 0)
		return 77; /* no pseudo-terminals here */
	slave = open(ptsname(master), O_RDWR | O_NOCTTY);
	if (slave < 0 || tcgetattr(slave, &before) < 0)
		return 77;
	pid = fork();
	if (pid == 0)
		exit(run_session());
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return 1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
