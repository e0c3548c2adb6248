#include "cli/terminal.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/time.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "cli/exit_status.h"

enum { SIGNAL_STACK_SIZE_BYTES = 64 << 10 };

/*
 * What the signal handlers need. `fd`, `saved` and `raw` are written before `wanted` is set and do not change
 * while it is; `stop` and `ctx` likewise while `stop` is set, and `expired` and its. The rest is atomic and lock-free,
 * as a handler may run on any thread.
 */
static struct {
	int fd;
	struct termios saved; /* as it was found */
	struct termios raw;
	atomic_bool wanted; /* between enter and leave */
	atomic_bool is_raw; /* not while stopped or in the background */
	_Atomic(void (*)(void *ctx, int signo)) stop;
	void *ctx;
	_Atomic(void (*)(void *ctx)) expired;
	void *expired_ctx;
	atomic_bool stopping;                             /* `stop` has been called */
	_Alignas(64) char stack[SIGNAL_STACK_SIZE_BYTES]; /* a stack overflow must not keep the terminal raw */
} terminal;

bool terminal_is_ours(int fd)
{
	return isatty(fd) && tcgetpgrp(fd) == getpgrp();
}

bool terminal_is_raw(void)
{
	return atomic_load(&terminal.is_raw);
}

/* Async-signal-safe. SIGTTOU is blocked, or a change from the background would stop us. */
static int set_modes(const struct termios *modes)
{
	sigset_t ttou, old;
	int r;

	sigemptyset(&ttou);
	sigaddset(&ttou, SIGTTOU);
	pthread_sigmask(SIG_BLOCK, &ttou, &old);
	do
		r = tcsetattr(terminal.fd, TCSANOW, modes) < 0 ? -errno : 0;
	while (r == -EINTR);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return r;
}

/* Async-signal-safe, as are the handlers below. */
static void put_back(void)
{
	if (atomic_exchange(&terminal.is_raw, false))
		set_modes(&terminal.saved);
}

/* Only in the foreground: the modes of a terminal that another job uses are not ours to change. */
static int make_raw_if_ours(void)
{
	if (!terminal_is_ours(terminal.fd)) {
		atomic_store(&terminal.is_raw, false);
		return 0;
	}
	atomic_store(&terminal.is_raw, true);
	return set_modes(&terminal.raw);
}

static void on_stop(int signo)
{
	void (*stop)(void *ctx, int signo) = atomic_load(&terminal.stop);
	int saved_errno = errno;

	if (!stop || atomic_exchange(&terminal.stopping, true)) {
		put_back();
		_exit(VMLET_EXIT_SIGNAL + signo);
	}
	stop(terminal.ctx, signo);
	errno = saved_errno;
}

/* SA_RESETHAND has made the default of the signal its disposition; it comes again when the handler returns. */
static void on_fatal(int signo)
{
	put_back();
	raise(signo);
}

static void on_continue(int signo)
{
	int saved_errno = errno;

	(void)signo;
	if (atomic_load(&terminal.wanted))
		make_raw_if_ours();
	errno = saved_errno;
}

/* Stop with the default action of SIGTSTP, inside the handler, and go on where SIGCONT lets us. */
static void on_suspend(int signo)
{
	struct sigaction fallback = {.sa_handler = SIG_DFL}, ours;
	int saved_errno = errno;
	sigset_t set;

	put_back();
	sigaction(signo, &fallback, &ours);
	raise(signo);
	sigemptyset(&set);
	sigaddset(&set, signo);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL); /* stops here */
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	sigaction(signo, &ours, NULL);
	on_continue(SIGCONT);
	errno = saved_errno;
}

/* What somebody chose before us stays: nohup ignores SIGHUP, a sanitizer handles SIGSEGV. */
static void catch_signal(int signo, void (*handler)(int signo), int flags)
{
	struct sigaction action = {.sa_handler = handler, .sa_flags = flags}, old;

	sigfillset(&action.sa_mask);
	if (sigaction(signo, NULL, &old) == 0 && old.sa_handler == SIG_DFL)
		sigaction(signo, &action, NULL);
}

static void use_signal_stack(void)
{
	stack_t stack = {.ss_sp = terminal.stack, .ss_size = sizeof(terminal.stack)}, old;

	if (sigaltstack(NULL, &old) == 0 && (old.ss_flags & SS_DISABLE))
		sigaltstack(&stack, NULL);
}

void terminal_catch_signals(void (*stop)(void *ctx, int signo), void *ctx)
{
	static const int stops[] = {SIGHUP, SIGINT, SIGTERM};
	static const int fatals[] = {SIGQUIT, SIGILL,  SIGTRAP, SIGABRT, SIGBUS,  SIGFPE,  SIGSEGV,
				     SIGSYS,  SIGXCPU, SIGALRM, SIGPROF, SIGUSR1, SIGUSR2, SIGVTALRM};

	terminal.ctx = ctx;
	atomic_store(&terminal.stop, stop);
	use_signal_stack();
	for (size_t i = 0; i < sizeof(stops) / sizeof(stops[0]); i++)
		catch_signal(stops[i], on_stop, SA_RESTART);
	for (size_t i = 0; i < sizeof(fatals) / sizeof(fatals[0]); i++)
		catch_signal(fatals[i], on_fatal, (int)(SA_RESETHAND | SA_ONSTACK));
	catch_signal(SIGTSTP, on_suspend, SA_RESTART);
	catch_signal(SIGCONT, on_continue, SA_RESTART);
	catch_signal(SIGPIPE, SIG_IGN, 0);
	catch_signal(SIGXFSZ, SIG_IGN, 0);
}

void terminal_forget_stop(void)
{
	atomic_store(&terminal.stop, NULL);
}

int terminal_enter_raw(int fd)
{
	int r;

	if (tcgetattr(fd, &terminal.saved) < 0)
		return -errno;
	terminal.fd = fd;
	terminal.raw = terminal.saved;
	cfmakeraw(&terminal.raw);
	terminal.raw.c_cc[VMIN] = 1;
	terminal.raw.c_cc[VTIME] = 0;
	atomic_store(&terminal.wanted, true);
	r = make_raw_if_ours();
	if (r < 0)
		terminal_leave_raw();
	return r;
}

void terminal_leave_raw(void)
{
	atomic_store(&terminal.wanted, false);
	put_back();
}

static void on_deadline(int signo)
{
	void (*expired)(void *ctx) = atomic_load(&terminal.expired);

	(void)signo;
	put_back();
	if (expired)
		expired(terminal.expired_ctx);
	_exit(VMLET_EXIT_TIMEOUT);
}

/* A blocked or ignored SIGALRM may have been inherited; this one is needed. */
static void handle_deadline(void)
{
	struct sigaction action = {.sa_handler = on_deadline, .sa_flags = SA_ONSTACK};
	sigset_t set;

	sigfillset(&action.sa_mask);
	sigaction(SIGALRM, &action, NULL);
	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

static struct itimerval timer_until(uint64_t deadline_ns)
{
	struct timespec now;
	uint64_t now_ns, us = 1; /* 0 would be never */

	clock_gettime(CLOCK_MONOTONIC, &now);
	now_ns = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
	if (deadline_ns > now_ns)
		us += (deadline_ns - now_ns) / 1000;
	return (struct itimerval){.it_value = {(time_t)(us / 1000000), (suseconds_t)(us % 1000000)}};
}

void terminal_set_deadline(uint64_t deadline_ns, void (*expired)(void *ctx), void *ctx)
{
	struct itimerval timer = {0};

	setitimer(ITIMER_REAL, &timer, NULL);
	if (deadline_ns == 0)
		return;
	atomic_store(&terminal.expired, NULL);
	terminal.expired_ctx = ctx;
	atomic_store(&terminal.expired, expired);
	handle_deadline();
	timer = timer_until(deadline_ns);
	setitimer(ITIMER_REAL, &timer, NULL);
}
