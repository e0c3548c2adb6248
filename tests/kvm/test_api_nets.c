/*
 * Network cards through the library: VMs of one process joined by socket pairs, each served by a thread of its own; and
 * what their owners do to them meanwhile.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "machine.h"
#include "runner.h"

#define MMIO_ARGS "transport=mmio mmio=0xe8000000 "

enum { PAIRS = 4 };

struct card {
	struct machine machine;
	struct vmlet_net net;
	const struct vmlet_net *list[1];
	struct vmlet_net_counters counters; /* at its end */
	pthread_t thread;
};

static void make_wire(int fds[2])
{
	CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0, "%s", strerror(errno));
}

static void card_init(struct card *card, const char *cmdline, int fd)
{
	machine_init(&card->machine, "net-check", cmdline);
	vmlet_net_init(&card->net);
	card->net.kind = VMLET_NET_FD;
	card->net.fd = fd;
	card->list[0] = &card->net;
	card->machine.config.nets = card->list;
	card->machine.config.net_count = 1;
	if (strstr(cmdline, "mmio"))
		card->machine.config.transport = VMLET_TRANSPORT_MMIO;
}

static void *card_main(void *arg)
{
	struct card *card = arg;

	machine_start(&card->machine);
	machine_run(&card->machine);
	CHECK(vmlet_get_net_counters(card->machine.vm, "net0", &card->counters) == 0, "counters");
	machine_end(&card->machine);
	return NULL;
}

/* On a thread: from its start to its end. */
static void card_go(struct card *card)
{
	CHECK(pthread_create(&card->thread, NULL, card_main, card) == 0, "thread");
}

static void card_expect(struct card *card, enum vmlet_end end, uint32_t value)
{
	pthread_join(card->thread, NULL);
	CHECK(card->machine.result.end == end && card->machine.result.value == value,
	      "'%s': expected %s with %u, it was %s with %u: %s", card->machine.config.cmdline, end_name(end), value,
	      end_name(card->machine.result.end), card->machine.result.value, machine_output(&card->machine));
}

/* --- two of them, and eight ------------------------------------------------------------------------------------ */

struct echo_test {
	const char *checks, *echoes; /* command lines */
	unsigned pairs, frames;
};

static void run_echo(const void *arg)
{
	const struct echo_test *test = arg;
	struct card cards[2 * PAIRS];
	int fds[PAIRS][2];

	for (unsigned i = 0; i < test->pairs; i++) {
		make_wire(fds[i]);
		card_init(&cards[2 * i], test->checks, fds[i][0]);
		card_init(&cards[2 * i + 1], test->echoes, fds[i][1]);
	}
	for (unsigned i = 0; i < 2 * test->pairs; i++)
		card_go(&cards[i]);
	for (unsigned i = 0; i < 2 * test->pairs; i++) {
		struct vmlet_net_counters *counters = &cards[i].counters;

		card_expect(&cards[i], VMLET_END_DEBUG_EXIT, 0);
		CHECK(counters->received == test->frames + 1, "%llu frames came",
		      (unsigned long long)counters->received);
		CHECK(counters->sent == test->frames + 1, "%llu frames went", (unsigned long long)counters->sent);
		CHECK(counters->sent_bytes == counters->received_bytes && counters->dropped == 0, "%llu lost",
		      (unsigned long long)counters->dropped);
		CHECK(counters->doorbells > 0, "a doorbell");
		machine_free(&cards[i].machine);
	}
	for (unsigned i = 0; i < test->pairs; i++) {
		close(fds[i][0]);
		close(fds[i][1]);
	}
}

/* A card that may send FRAMES_PER_S asks and is answered: it cannot be done sooner. */
static void run_rate(const void *arg)
{
	enum { FRAMES = 200, FRAMES_PER_S = 400, BURST = 40 };
	struct card asks, answers;
	int fds[2];

	(void)arg;
	make_wire(fds);
	card_init(&asks, "role=check count=200", fds[0]);
	card_init(&answers, "role=echo", fds[1]);
	asks.net.packets_per_s = FRAMES_PER_S;
	asks.net.packets_burst = BURST;
	uint64_t begin_ms = now_ms();
	card_go(&answers);
	card_go(&asks);
	card_expect(&asks, VMLET_END_DEBUG_EXIT, 0);
	card_expect(&answers, VMLET_END_DEBUG_EXIT, 0);
	uint64_t took_ms = now_ms() - begin_ms;
	CHECK(took_ms >= 1000 * (FRAMES - BURST) / FRAMES_PER_S, "%llu ms", (unsigned long long)took_ms);
	CHECK(asks.counters.received == FRAMES + 1 && asks.counters.dropped == 0, "%llu came, %llu lost",
	      (unsigned long long)asks.counters.received, (unsigned long long)asks.counters.dropped);
	machine_free(&asks.machine);
	machine_free(&answers.machine);
	close(fds[0]);
	close(fds[1]);
}

/* --- the link ---------------------------------------------------------------------------------------------------- */

static void run_link(const void *arg)
{
	struct card card;
	struct machine *machine = &card.machine;
	int fds[2];

	(void)arg;
	make_wire(fds);
	card_init(&card, "role=link", fds[0]);
	card.net.id = "lan";
	card.net.link_down = true;
	machine_start(machine);
	close(fds[0]);
	machine_serve_until_times(machine, "link down", 1);
	CHECK(vmlet_set_link(machine->vm, "net0", true) == -ENOENT, "there is no such card");
	CHECK(vmlet_set_link(machine->vm, "lan", true) == 0, "it is plugged in");
	machine_serve_until_times(machine, "link up", 1);
	CHECK(vmlet_set_link(machine->vm, "lan", false) == 0, "it is pulled");
	machine_serve_until_times(machine, "link down", 2);
	CHECK(vmlet_set_link(machine->vm, "lan", true) == 0, "and plugged in");
	machine_serve_until_times(machine, "link up", 2);
	close(fds[1]); /* the peer leaves: whatever the owner says */
	machine_serve_until_times(machine, "link down", 3);
	CHECK(vmlet_set_link(machine->vm, "lan", true) == 0, "it is plugged in all the same");
	machine_serve_ms(machine, 20);
	CHECK(!pump_wait(machine->serial, "link up", 3, 0), "without a peer there is no link");
	vmlet_stop(machine->vm, 3);
	machine_run(machine);
	machine_free(machine);
}

static void stop_both(struct card cards[2], const int fds[2])
{
	for (unsigned i = 0; i < 2; i++) {
		vmlet_stop(cards[i].machine.vm, i);
		machine_run(&cards[i].machine);
		CHECK(cards[i].machine.result.end == VMLET_END_STOPPED, "%s", end_name(cards[i].machine.result.end));
		machine_free(&cards[i].machine);
		close(fds[i]);
	}
}

static uint64_t received(const struct card *card)
{
	struct vmlet_net_counters counters;

	CHECK(vmlet_get_net_counters(card->machine.vm, "net0", &counters) == 0, "counters");
	return counters.received;
}

/* The cable of one is pulled and plugged in while both send as fast as they can. */
static void run_flaps(const void *arg)
{
	struct card cards[2];
	int fds[2];

	make_wire(fds);
	for (unsigned i = 0; i < 2; i++) {
		card_init(&cards[i], arg, fds[i]);
		machine_start(&cards[i].machine);
	}
	machine_serve_until(&cards[0].machine, "card starts");
	machine_serve_until(&cards[1].machine, "card starts");
	for (unsigned flap = 0; flap < 50; flap++) {
		CHECK(vmlet_set_link(cards[0].machine.vm, "net0", flap % 2) == 0, "the link");
		if (flap % 3 == 0) /* else the wire fills up */
			machine_serve_ms(&cards[1].machine, 1);
		machine_serve_ms(&cards[0].machine, 1);
	}
	for (unsigned i = 0; i < 2; i++) {
		uint64_t before = received(&cards[i]), end_ms = now_ms() + 20000;

		while (received(&cards[i]) < before + 100) {
			CHECK(now_ms() < end_ms, "card %u receives nothing more", i);
			machine_serve_ms(&cards[0].machine, 1);
			machine_serve_ms(&cards[1].machine, 1);
		}
	}
	stop_both(cards, fds);
}

/* --- restarts and stops under load ------------------------------------------------------------------------------- */

/* The back end outlives the guest, and so do its counters. The other one goes on, and is stopped. */
static void run_restart(const void *arg)
{
	struct card cards[2];
	int fds[2];
	uint64_t sent;
	struct vmlet_net_counters counters;

	make_wire(fds);
	card_init(&cards[0], arg, fds[0]);
	card_init(&cards[1], "role=flood", fds[1]);
	cards[0].machine.config.on_reboot = VMLET_ON_REBOOT_RESTART;
	machine_start(&cards[0].machine);
	machine_start(&cards[1].machine);
	for (unsigned boots = 1; boots <= 4; boots++) {
		for (uint64_t end = now_ms() + 20000; !pump_wait(cards[0].machine.serial, "card starts", boots, 0);) {
			CHECK(now_ms() < end, "boot %u", boots);
			machine_serve_ms(&cards[0].machine, 1);
			machine_serve_ms(&cards[1].machine, 1);
		}
	}
	CHECK(vmlet_get_net_counters(cards[0].machine.vm, "net0", &counters) == 0, "counters");
	sent = counters.sent + counters.dropped;
	CHECK(sent >= 3 * 200, "%llu went", (unsigned long long)sent);
	stop_both(cards, fds);
}

/* Whoever is stopped first leaves frames on the wire, and a peer that goes on sending. */
static void run_stop(const void *arg)
{
	unsigned fds_before = count_fds();

	(void)arg;
	for (unsigned round = 0; round < 6; round++) {
		struct card cards[2];
		int fds[2];

		make_wire(fds);
		for (unsigned i = 0; i < 2; i++) {
			card_init(&cards[i], "role=flood", fds[i]);
			machine_start(&cards[i].machine);
			close(fds[i]);
		}
		machine_serve_until(&cards[0].machine, "card starts");
		machine_serve_until(&cards[1].machine, "card starts");
		machine_serve_ms(&cards[round % 2].machine, round);
		if (round >= 4) { /* freed while it runs */
			machine_free(&cards[0].machine);
			machine_free(&cards[1].machine);
			continue;
		}
		for (unsigned i = 0; i < 2; i++) {
			struct machine *machine = &cards[i ^ (round & 1)].machine;

			vmlet_stop(machine->vm, round);
			machine_run(machine);
			CHECK(machine->result.end == VMLET_END_STOPPED, "%s", end_name(machine->result.end));
			machine_free(machine);
		}
	}
	CHECK(count_fds() == fds_before, "%u descriptors were %u", count_fds(), fds_before);
}

/* A peer that reads nothing: the card is reset, the machine is restarted, and it is stopped, all with a full wire. */
static void run_stuck(const void *arg)
{
	struct card card;
	struct machine *machine = &card.machine;
	int fds[2];

	make_wire(fds);
	card_init(&card, arg, fds[0]);
	machine->config.on_reboot = VMLET_ON_REBOOT_RESTART;
	machine_start(machine);
	machine_serve_until_times(machine, "stuck with", 8);
	vmlet_stop(machine->vm, 0);
	machine_run(machine);
	machine_end(machine);
	CHECK(strstr(machine_output(machine), "stuck with 128\n"), "it was never full: %s", machine_output(machine));
	machine_free(machine);
	close(fds[0]);
	close(fds[1]);
}

static const struct echo_test pci = {"role=check", "role=echo", .pairs = 1, .frames = 1000};
static const struct echo_test mmio = {MMIO_ARGS "role=check", MMIO_ARGS "role=echo", .pairs = 1, .frames = 1000};
static const struct echo_test single = {"role=check mrg=0", "role=echo mrg=0 event-idx=0 indirect=0", .pairs = 1,
					.frames = 1000};
static const struct echo_test eight = {"role=check count=200", "role=echo", .pairs = PAIRS, .frames = 200};

static const struct test tests[] = {
	TEST("pci", run_echo, &pci),
	TEST("mmio", run_echo, &mmio),
	TEST("single", run_echo, &single),
	TEST("eight", run_echo, &eight),
	TEST("rate", run_rate, NULL),
	TEST("link", run_link, NULL),
	TEST("flaps", run_flaps, "role=flood"),
	TEST("flaps-mmio", run_flaps, MMIO_ARGS "role=flood"),
	TEST("restart", run_restart, "role=flood reset=200"),
	TEST("restart-mmio", run_restart, MMIO_ARGS "role=flood reset=200"),
	TEST("stop", run_stop, NULL),
	TEST("stuck", run_stuck, "role=stuck times=3"),
	TEST("stuck-mmio", run_stuck, MMIO_ARGS "role=stuck times=3"),
	{0},
};

int main(int argc, char **argv)
{
	return runner_main(argc, argv, tests);
}
