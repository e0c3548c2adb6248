/* The life of a VM: who serves it, how it is stopped, paused and freed, and many in one process. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "machine.h"
#include "runner.h"

/* --- several in one process --- */

static void *run_on_thread(void *arg)
{
	struct machine *machine = arg;

	machine_start(machine);
	machine_run(machine);
	return NULL;
}

static void check_echo_of(struct machine *machine, const char *line)
{
	machine_end(machine);
	CHECK(machine->result.end == VMLET_END_DEBUG_EXIT && machine->result.value == 0, "%s",
	      end_name(machine->result.end));
	CHECK(strstr(machine_output(machine), line), "no '%s' in '%s'", line, machine_output(machine));
}

static void run_threads(const void *arg)
{
	struct machine machines[2];
	pthread_t threads[2];

	(void)arg;
	machine_init(&machines[0], "echo", NULL);
	machine_init(&machines[1], "echo", NULL);
	for (int i = 0; i < 2; i++)
		CHECK(pthread_create(&threads[i], NULL, run_on_thread, &machines[i]) == 0, "thread");
	write_all(machines[0].serial_in, "for the first\n\4", 15);
	write_all(machines[1].serial_in, "for the second\n\4", 16);
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	check_echo_of(&machines[0], "for the first\n");
	check_echo_of(&machines[1], "for the second\n");
	machine_free(&machines[0]);
	machine_free(&machines[1]);
}

/* Both from this thread, by poll; returns how many times poll woke. */
static unsigned serve_all(struct machine *machines, unsigned count)
{
	struct pollfd fds[8];
	unsigned left = count, wakes = 0;

	for (unsigned i = 0; i < count; i++)
		fds[i] = (struct pollfd){.fd = vmlet_get_fd(machines[i].vm), .events = POLLIN};
	/* A first dispatch, as there is no other word on when polling may begin. */
	for (unsigned i = 0; i < count; i++)
		fds[i].revents = POLLIN;
	while (left) {
		for (unsigned i = 0; i < count; i++) {
			int r = fds[i].fd >= 0 && fds[i].revents ? vmlet_dispatch(machines[i].vm) : 0;

			CHECK(r >= 0, "vmlet_dispatch: %s", strerror(-r));
			if (r != 1)
				continue;
			vmlet_get_result(machines[i].vm, &machines[i].result);
			CHECK(vmlet_dispatch(machines[i].vm) == 1, "an ended VM stays ended");
			fds[i].fd = -1;
			left--;
		}
		if (!left)
			break;
		CHECK(poll(fds, count, 10000) > 0, "nothing happens for 30 s");
		wakes++;
	}
	return wakes;
}

static void run_dispatch(const void *arg)
{
	struct machine machines[2];
	struct vmlet_result result;

	(void)arg;
	machine_init(&machines[0], "echo", "irq=pic");
	machine_init(&machines[1], "flood", "kib=16");
	for (int i = 0; i < 2; i++) {
		machine_start(&machines[i]);
		vmlet_get_result(machines[i].vm, &result);
		CHECK(result.end == VMLET_END_NONE, "it has not ended");
	}
	machine_serve_until(&machines[0], "\n");
	write_all(machines[0].serial_in, "hello\n\4", 7);
	CHECK(serve_all(machines, 2) < 200000, "it does not spin");
	check_echo_of(&machines[0], "hello\n");
	machine_end(&machines[1]);
	CHECK(strlen(machine_output(&machines[1])) == 16 << 10, "all of it came");
	machine_free(&machines[0]);
	machine_free(&machines[1]);
}

/* An idle VM must not wake its owner: the descriptor is quiet, also after dispatch. */
static void run_dispatch_quiet(const void *arg)
{
	struct machine machine;
	struct pollfd fd;
	unsigned wakes = 0;

	(void)arg;
	machine_init(&machine, "hang", "how=hlt");
	machine_start(&machine);
	machine_serve_until(&machine, "hanging: hlt\n");
	machine_serve_ms(&machine, 50);
	fd = (struct pollfd){.fd = vmlet_get_fd(machine.vm), .events = POLLIN};
	for (uint64_t end = now_ms() + 300; now_ms() < end;) {
		if (poll(&fd, 1, 50) > 0) {
			wakes++;
			CHECK(vmlet_dispatch(machine.vm) == 0, "it goes on");
		}
	}
	CHECK(wakes < 10, "%u wakes in 0.3 s", wakes);
	machine_free(&machine);
}

static void *stop_later(void *arg)
{
	sleep_ms(20);
	vmlet_stop(arg, 11);
	return NULL;
}

/* What wakes a poll that has no time-out: a stop, and the end of a slow reader's output. */
static void run_dispatch_wakes(const void *arg)
{
	struct machine machine;
	pthread_t thread;

	(void)arg;
	for (int i = 0; i < 10; i++) {
		machine_init(&machine, "hang", i % 2 ? "how=spin" : "how=hlt");
		machine_start(&machine);
		CHECK(pthread_create(&thread, NULL, stop_later, machine.vm) == 0, "thread");
		serve_all(&machine, 1);
		pthread_join(thread, NULL);
		CHECK(machine.result.value == 11, "%s", end_name(machine.result.end));
		machine_free(&machine);
	}
	machine_init(&machine, "flood", "kib=96");
	machine.pace = (struct pump_pace){.stall_ms = 100, .pause_us = 1000, .chunk = 4096};
	machine_start(&machine);
	serve_all(&machine, 1);
	machine_end(&machine);
	CHECK(strlen(machine_output(&machine)) == 96 << 10, "%zu bytes", strlen(machine_output(&machine)));
	machine_free(&machine);
}

static void run_eight(const void *arg)
{
	struct machine machines[8];
	char cmdlines[8][32];

	(void)arg;
	for (unsigned i = 0; i < 8; i++) {
		snprintf(cmdlines[i], sizeof(cmdlines[i]), "status=%u", 100 + i);
		machine_init(&machines[i], "exit-status", cmdlines[i]);
		machine_start(&machines[i]);
	}
	serve_all(machines, 8);
	for (unsigned i = 0; i < 8; i++) {
		machine_end(&machines[i]);
		CHECK(machines[i].result.value == 100 + i, "VM %u ended with %u", i, machines[i].result.value);
		CHECK(strstr(machine_output(&machines[i]), cmdlines[i]), "VM %u has its own console", i);
		machine_free(&machines[i]);
	}
}

/* --- stop --- */

static void run_stop_before_run(const void *arg)
{
	struct machine machine;

	(void)arg;
	machine_init(&machine, "hang", NULL);
	machine_start(&machine);
	vmlet_stop(machine.vm, 7);
	vmlet_stop(machine.vm, 8); /* the first counts */
	machine_run(&machine);
	CHECK(machine.result.end == VMLET_END_STOPPED && machine.result.value == 7, "%s, %u",
	      end_name(machine.result.end), machine.result.value);
	machine_run(&machine); /* again: the same */
	CHECK(machine.result.end == VMLET_END_STOPPED && machine.result.value == 7, "the result stays");
	machine_free(&machine);
}

static void run_stop_before_start(const void *arg)
{
	struct machine machine;
	struct vmlet *vm;
	struct vmlet_error error;
	struct vmlet_result result = {0};

	(void)arg;
	machine_init(&machine, "hang", NULL);
	vm = vmlet_new(&machine.config, &error);
	CHECK(vm, "%s", error.text);
	vmlet_stop(vm, 9);
	CHECK(vmlet_start(vm, &error) == 0, "%s", error.text);
	CHECK(vmlet_run(vm, &result) == 0 && result.end == VMLET_END_STOPPED && result.value == 9, "%s", result.text);
	vmlet_free(vm);
	machine_free(&machine);
}

/* A guest that ends by itself and a stop, one after the other: the first end counts. */
static void run_stop_after_end(const void *arg)
{
	struct machine machine;

	(void)arg;
	machine_init(&machine, "exit-status", "status=5");
	machine_start(&machine);
	machine_run(&machine);
	vmlet_stop(machine.vm, 1);
	machine_run(&machine);
	CHECK(machine.result.end == VMLET_END_DEBUG_EXIT && machine.result.value == 5, "%s, %u",
	      end_name(machine.result.end), machine.result.value);
	machine_free(&machine);
}

static void run_stop_by_thread(const void *arg)
{
	struct machine machine;
	pthread_t thread;
	uint64_t start;

	machine_init(&machine, "hang", arg);
	machine.config.cpus = 4;
	machine_start(&machine);
	start = now_ms();
	CHECK(pthread_create(&thread, NULL, stop_later, machine.vm) == 0, "thread");
	machine_run(&machine);
	CHECK(now_ms() - start < 1100, "%u ms", (unsigned)(now_ms() - start));
	pthread_join(thread, NULL);
	CHECK(machine.result.end == VMLET_END_STOPPED && machine.result.value == 11, "%s",
	      end_name(machine.result.end));
	machine_free(&machine);
}

static struct vmlet *signalled;

static void on_alarm(int signo)
{
	vmlet_stop(signalled, (uint32_t)signo);
}

static void run_stop_by_signal(const void *arg)
{
	struct sigaction action = {.sa_handler = on_alarm};
	struct itimerval soon = {.it_value.tv_usec = 100000};
	struct machine machine;

	(void)arg;
	machine_init(&machine, "hang", "how=spin");
	machine_start(&machine);
	signalled = machine.vm;
	sigaction(SIGVTALRM, &action, NULL);
	sigaction(SIGUSR1, &action, NULL);
	/* The timer of real time is the test's own time-out, so another clock: this thread waits in vmlet_run. */
	setitimer(ITIMER_VIRTUAL, &soon, NULL);
	kill(getpid(), SIGUSR1);
	machine_run(&machine);
	CHECK(machine.result.end == VMLET_END_STOPPED, "%s", end_name(machine.result.end));
	CHECK(machine.result.value == SIGUSR1 || machine.result.value == SIGVTALRM, "%u", machine.result.value);
	setitimer(ITIMER_VIRTUAL, &(struct itimerval){0}, NULL);
	machine_free(&machine);
}

/* The program's own signals end up on the program's own threads, and vmlet_run goes on. */
static volatile sig_atomic_t signals_seen;
static pthread_t owner;

static void count_signal(int signo)
{
	(void)signo;
	if (pthread_equal(pthread_self(), owner))
		signals_seen++;
}

static void *bother(void *arg)
{
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, NULL);
	for (int i = 0; i < 50; i++) {
		kill(getpid(), SIGUSR2);
		sleep_ms(4);
	}
	vmlet_stop(arg, 0);
	return NULL;
}

static void block_all(sigset_t *ret_old)
{
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, ret_old);
}

static void run_signals(const void *arg)
{
	struct sigaction action = {.sa_handler = count_signal}; /* without SA_RESTART */
	struct machine machine;
	pthread_t thread;
	sigset_t old;

	(void)arg;
	owner = pthread_self();
	sigaction(SIGUSR2, &action, NULL);
	machine_init(&machine, "hang", "how=spin");
	machine.config.cpus = 2;
	block_all(&old); /* the harness's threads take no signals */
	machine_start(&machine);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	CHECK(pthread_create(&thread, NULL, bother, machine.vm) == 0, "thread");
	machine_run(&machine);
	pthread_join(thread, NULL);
	CHECK(signals_seen >= 5, "%d signals came to this thread", (int)signals_seen);
	CHECK(machine.result.end == VMLET_END_STOPPED, "%s", end_name(machine.result.end));
	machine_free(&machine);
}

/* --- pause --- */

static void run_pause(const void *arg)
{
	struct machine machine;
	size_t before;

	(void)arg;
	machine_init(&machine, "flood", "kib=128");
	machine.config.cpus = 2;
	machine_start(&machine);
	CHECK(vmlet_resume(machine.vm) == 0, "resuming what runs is nothing");
	machine_serve_until(&machine, "00000010");
	for (int i = 0; i < 3; i++) {
		CHECK(vmlet_pause(machine.vm) == 0, "pause");
		CHECK(vmlet_pause(machine.vm) == 0, "a second pause is nothing");
		machine_serve_ms(&machine, 50); /* what is queued comes */
		before = pump_size(machine.serial);
		machine_serve_ms(&machine, 150);
		CHECK(pump_size(machine.serial) == before, "output of a paused guest");
		CHECK(vmlet_resume(machine.vm) == 0, "resume");
		for (uint64_t end = now_ms() + 10000; pump_size(machine.serial) == before;) {
			CHECK(now_ms() < end, "no output after resume");
			machine_serve_ms(&machine, 10);
		}
	}
	CHECK(vmlet_pause(machine.vm) == 0, "pause");
	vmlet_stop(machine.vm, 1); /* a paused VM can be stopped */
	machine_run(&machine);
	CHECK(machine.result.end == VMLET_END_STOPPED, "%s", end_name(machine.result.end));
	CHECK(vmlet_pause(machine.vm) == -EINVAL && vmlet_resume(machine.vm) == -EINVAL, "it has ended");
	machine_free(&machine);
}

/* A pause loses nothing: what the guest wrote is as without it. */
static void run_pause_whole(const void *arg)
{
	struct machine machine;

	(void)arg;
	machine_init(&machine, "flood", "kib=16");
	machine_start(&machine);
	machine_serve_until(&machine, "00000000");
	for (int i = 0; i < 20; i++) {
		struct pollfd fd = {.fd = vmlet_get_fd(machine.vm), .events = POLLIN};

		CHECK(vmlet_pause(machine.vm) == 0, "pause");
		CHECK(vmlet_resume(machine.vm) == 0, "resume");
		poll(&fd, 1, 5);
		if (vmlet_dispatch(machine.vm) == 1)
			break;
	}
	machine_run(&machine);
	machine_end(&machine);
	CHECK(strlen(machine_output(&machine)) == 16 << 10, "%zu bytes", strlen(machine_output(&machine)));
	machine_free(&machine);
}

/* --- free at each stage --- */

static void run_free(const void *arg)
{
	struct machine machine;
	unsigned fds, threads;

	(void)arg;
	vmlet_free(NULL);
	fds = count_fds();
	threads = count_threads();
	for (int stage = 0; stage < 6; stage++) {
		machine_init(&machine, "hang", "how=spin");
		machine.config.cpus = 3;
		if (stage == 0) { /* new, and no more */
			struct vmlet *vm = vmlet_new(&machine.config, NULL);

			CHECK(vm && !vmlet_serial_path(vm), "new");
			vmlet_free(vm);
		} else {
			machine_start(&machine);
		}
		if (stage == 2) /* running */
			machine_serve_until(&machine, "hanging");
		if (stage == 3) /* paused */
			CHECK(vmlet_pause(machine.vm) == 0, "pause");
		if (stage == 4) /* told to stop, not served */
			vmlet_stop(machine.vm, 0);
		if (stage == 5) { /* ended */
			vmlet_stop(machine.vm, 0);
			machine_run(&machine);
		}
		machine_free(&machine);
		CHECK(count_fds() == fds && count_threads() == threads, "stage %d: %u descriptors and %u threads",
		      stage, count_fds() - fds, count_threads() - threads);
	}
}

static void run_start_twice(const void *arg)
{
	struct machine machine;

	(void)arg;
	machine_init(&machine, "hang", NULL);
	machine_start(&machine);
	CHECK(vmlet_start(machine.vm, &machine.error) == -EALREADY, "%s", machine.error.text);
	/* The VM must have survived that. */
	machine_serve_until(&machine, "hanging");
	vmlet_stop(machine.vm, 1);
	machine_run(&machine);
	CHECK(machine.result.end == VMLET_END_STOPPED, "%s", end_name(machine.result.end));
	CHECK(vmlet_start(machine.vm, &machine.error) == -EALREADY, "%s", machine.error.text);
	machine_free(&machine);
}

static const struct test tests[] = {
	TEST("threads", run_threads, NULL),
	TEST("dispatch", run_dispatch, NULL),
	TEST("dispatch-quiet", run_dispatch_quiet, NULL),
	TEST("dispatch-wakes", run_dispatch_wakes, NULL),
	TEST("eight", run_eight, NULL),
	TEST("stop-before-run", run_stop_before_run, NULL),
	TEST("stop-before-start", run_stop_before_start, NULL),
	TEST("stop-after-end", run_stop_after_end, NULL),
	TEST("stop-by-thread-hlt", run_stop_by_thread, "how=hlt"),
	TEST("stop-by-thread-spin", run_stop_by_thread, "how=spin"),
	TEST("stop-by-signal", run_stop_by_signal, NULL),
	TEST("signals", run_signals, NULL),
	TEST("pause", run_pause, NULL),
	TEST("pause-whole", run_pause_whole, NULL),
	TEST("free", run_free, NULL),
	TEST("start-twice", run_start_twice, NULL),
	{0},
};

int main(int argc, char **argv)
{
	return runner_main(argc, argv, tests);
}
