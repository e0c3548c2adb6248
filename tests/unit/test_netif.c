/* The door of a network back end: what passes, what is refused, what is counted, and that every packet ends once. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "netif.h"
#include "util.h"

static const uint64_t MS = 1000000;
enum { QUEUES = 2, SMALLEST = NETIF_HEADER_BYTES + NETIF_FRAME_MIN_BYTES };

/* --- a back end that only keeps what it is given ---------------------------------------------------------- */

struct fake {
	struct netif netif;
	struct netif_packet *has; /* the last packet that came through the door */
	unsigned sent, received, cancelled, destroyed;
	unsigned offloads, pairs;
};

static struct loop *loop;
static struct fake fake;

static void fake_send(struct netif *netif, struct netif_packet *packet)
{
	struct fake *f = container_of(netif, struct fake, netif);
	assert_false(packet->receiving);
	f->has = packet;
	f->sent++;
}

static void fake_receive(struct netif *netif, struct netif_packet *packet)
{
	struct fake *f = container_of(netif, struct fake, netif);
	assert_true(packet->receiving);
	f->has = packet;
	f->received++;
}

static void fake_cancel(struct netif *netif, struct netif_packet *packet)
{
	struct fake *f = container_of(netif, struct fake, netif);
	assert_true(packet->cancelled);
	f->has = packet;
	f->cancelled++;
}

static void fake_set_offloads(struct netif *netif, unsigned offloads)
{
	container_of(netif, struct fake, netif)->offloads = offloads;
}

static void fake_set_queues(struct netif *netif, unsigned pairs)
{
	container_of(netif, struct fake, netif)->pairs = pairs;
}

static void fake_destroy(struct netif *netif)
{
	container_of(netif, struct fake, netif)->destroyed++;
}

static const struct netif_ops FAKE_OPS = {
	.name = "fake",
	.send = fake_send,
	.receive = fake_receive,
	.cancel = fake_cancel,
	.set_offloads = fake_set_offloads,
	.set_queues = fake_set_queues,
	.destroy = fake_destroy,
};
static const struct netif_ops PLAIN_OPS = {
	.name = "plain",
	.send = fake_send,
	.receive = fake_receive,
	.cancel = fake_cancel,
	.destroy = fake_destroy,
};

static int setup(void **state)
{
	(void)state;
	alarm(20); /* a test that hangs has failed */
	loop = loop_new(NULL);
	fake = (struct fake){0};
	netif_init(&fake.netif, &FAKE_OPS, loop);
	fake.netif.info = (struct netif_info){
		.queues = QUEUES, .offloads = NETIF_OFFLOAD_CSUM | NETIF_OFFLOAD_TSO4, .link_up = true};
	return loop ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	if (!fake.destroyed)
		netif_free(&fake.netif);
	assert_int_equal(fake.destroyed, 1);
	loop_free(loop);
	return 0;
}

/* --- packets ---------------------------------------------------------------------------------------------- */

static uint8_t memory[NETIF_PACKET_MAX_BYTES];
static unsigned done_count;

struct packet {
	struct netif_packet packet;
	struct iovec iov[NETIF_IOV_MAX + 1];
	unsigned done, order;
	int res;
	bool again, frees; /* what `done` does */
};

static void count_done(struct netif_packet *netif_packet, int res)
{
	struct packet *p = container_of(netif_packet, struct packet, packet);
	assert_null(netif_packet->netif);
	p->done++;
	p->order = done_count++;
	p->res = res;
	if (p->again)
		netif_send(&fake.netif, netif_packet);
	if (p->frees)
		netif_free(&fake.netif);
}

static void settle(void)
{
	for (int i = 0; i < 4; i++)
		assert_int_equal(loop_wait(loop, MS / 2), 0);
}

/* One span, as long as the packet. */
static void make(struct packet *p, uint32_t size_bytes)
{
	*p = (struct packet){.packet = {.size_bytes = size_bytes, .done = count_done}};
	p->iov[0] = (struct iovec){memory, size_bytes};
	p->packet.iov = p->iov;
	p->packet.iov_count = 1;
}

static void submit(struct packet *p, bool receives)
{
	if (receives)
		netif_receive(&fake.netif, &p->packet);
	else
		netif_send(&fake.netif, &p->packet);
}

/* Both ways: the back end gets it, and its end is the device's. */
static void check_passes(struct packet *p)
{
	for (unsigned receives = 0; receives < 2; receives++) {
		fake.has = NULL;
		p->done = 0;
		submit(p, receives);
		assert_ptr_equal(fake.has, &p->packet);
		assert_int_equal(fake.netif.in_flight, 1);
		int res = receives ? (int)p->packet.size_bytes : 0;
		netif_complete(&p->packet, res);
		assert_int_equal(p->done, 1);
		assert_int_equal(p->res, res);
		assert_int_equal(fake.netif.in_flight, 0);
	}
}

/* Both ways: later, once, with EINVAL; and the back end never sees it. */
static void check_refused(struct packet *p)
{
	for (unsigned receives = 0; receives < 2; receives++) {
		fake.has = NULL;
		p->done = 0;
		submit(p, receives);
		assert_int_equal(p->done, 0);
		assert_int_equal(fake.netif.in_flight, 1);
		settle();
		assert_int_equal(p->done, 1);
		assert_int_equal(p->res, -EINVAL);
		assert_null(fake.has);
		assert_int_equal(fake.netif.in_flight, 0);
	}
}

/* --- what passes, and what does not ----------------------------------------------------------------------- */

static void packets_of_every_size_pass(void **state)
{
	(void)state;
	struct packet p;
	const uint32_t sizes[] = {SMALLEST, SMALLEST + 1, 1526, 65535, NETIF_PACKET_MAX_BYTES};
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		make(&p, sizes[i]);
		check_passes(&p);
	}
}

static void packets_of_other_sizes_are_refused(void **state)
{
	(void)state;
	struct packet p;
	const uint32_t sizes[] = {0, 1, NETIF_HEADER_BYTES, SMALLEST - 1, NETIF_PACKET_MAX_BYTES + 1, UINT32_MAX};
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		make(&p, sizes[i]);
		check_refused(&p);
	}
}

static void only_existing_queues_pass(void **state)
{
	(void)state;
	struct packet p;
	make(&p, 100);
	p.packet.queue = QUEUES - 1;
	check_passes(&p);
	p.packet.queue = QUEUES;
	check_refused(&p);
	p.packet.queue = UINT32_MAX;
	check_refused(&p);
}

static void spans_are_what_the_size_says(void **state)
{
	(void)state;
	struct packet p;
	const size_t good[][3] = {{100, 0, 0}, {0, 0, 100}, {1, 98, 1}};
	const size_t bad[][3] = {
		{100, 0, 1},        {99, 0, 0},
		{0, 0, 0},          {SIZE_MAX, 1, 100}, /* right, if it were to wrap */
		{SIZE_MAX, 0, 101}, {(size_t)UINT32_MAX + 1, 100, 0},
	};
	for (size_t i = 0; i < ARRAY_SIZE(good) + ARRAY_SIZE(bad); i++) {
		bool is_good = i < ARRAY_SIZE(good);
		const size_t *sizes = is_good ? good[i] : bad[i - ARRAY_SIZE(good)];
		make(&p, 100);
		p.packet.iov_count = 3;
		for (unsigned j = 0; j < 3; j++)
			p.iov[j] = (struct iovec){memory, sizes[j]};
		if (is_good)
			check_passes(&p);
		else
			check_refused(&p);
	}
	make(&p, 100);
	p.packet.iov_count = 0;
	check_refused(&p);
}

static void spans_are_so_many_at_most(void **state)
{
	(void)state;
	struct packet p;
	make(&p, NETIF_IOV_MAX);
	for (unsigned i = 0; i <= NETIF_IOV_MAX; i++)
		p.iov[i] = (struct iovec){memory, 1};
	p.packet.iov_count = NETIF_IOV_MAX;
	check_passes(&p);
	p.packet.iov_count++;
	p.packet.size_bytes++;
	check_refused(&p);
}

/* --- the link --------------------------------------------------------------------------------------------- */

static unsigned changes;
static bool last_up;

static void note_link(void *ctx, bool up)
{
	assert_ptr_equal(ctx, &fake);
	changes++;
	last_up = up;
}

static void a_change_of_the_link_is_told(void **state)
{
	(void)state;
	const struct netif_client client = {.link = note_link, .ctx = &fake};
	changes = 0;
	netif_set_link(&fake.netif, false); /* to nobody */
	netif_set_client(&fake.netif, &client);
	netif_set_link(&fake.netif, false);
	assert_int_equal(changes, 0);
	netif_set_link(&fake.netif, true);
	assert_int_equal(changes, 1);
	assert_true(last_up && fake.netif.info.link_up);
	netif_set_link(&fake.netif, false);
	assert_int_equal(changes, 2);
	assert_true(!last_up && !fake.netif.info.link_up);
	netif_set_client(&fake.netif, NULL);
	netif_set_link(&fake.netif, true);
	assert_int_equal(changes, 2);
}

static void what_is_sent_while_it_is_down_is_dropped(void **state)
{
	(void)state;
	struct packet p, q;
	make(&p, 100);
	make(&q, 100);
	netif_set_link(&fake.netif, false);
	submit(&p, false);
	assert_int_equal(p.done, 0);
	settle();
	assert_int_equal(p.done, 1);
	assert_int_equal(p.res, 0);
	assert_int_equal(fake.sent, 0);
	assert_int_equal(fake.netif.counters.dropped, 1);
	assert_int_equal(fake.netif.counters.sent, 0);

	submit(&q, true); /* a receive waits for better times */
	assert_int_equal(fake.received, 1);
	netif_complete(&q.packet, -ECANCELED);
}

/* --- counters --------------------------------------------------------------------------------------------- */

static void packets_are_counted(void **state)
{
	(void)state;
	struct packet p;
	const struct netif_counters *counters = &fake.netif.counters;
	make(&p, NETIF_HEADER_BYTES + 1000);
	for (unsigned i = 0; i < 3; i++) {
		submit(&p, false);
		netif_complete(&p.packet, 0);
		submit(&p, true);
		netif_complete(&p.packet, NETIF_HEADER_BYTES + 60);
	}
	submit(&p, true);
	netif_complete(&p.packet, -ECANCELED);
	submit(&p, false);
	netif_complete(&p.packet, -ECANCELED);
	assert_int_equal(counters->sent, 3);
	assert_int_equal(counters->sent_bytes, 3000);
	assert_int_equal(counters->received, 3);
	assert_int_equal(counters->received_bytes, 180);
	assert_int_equal(counters->dropped, 0);

	submit(&p, false);
	netif_drop(&p.packet);
	settle();
	assert_int_equal(p.res, 0);
	assert_int_equal(counters->sent, 3);
	assert_int_equal(counters->dropped, 1);
	submit(&p, false); /* dropped once is not dropped for ever */
	netif_complete(&p.packet, 0);
	assert_int_equal(counters->sent, 4);
	assert_int_equal(counters->dropped, 1);
}

/* --- ends ------------------------------------------------------------------------------------------------- */

static void those_that_end_later_end_in_order(void **state)
{
	(void)state;
	struct packet p[5];
	const unsigned order[] = {3, 0, 4, 2, 1};
	for (unsigned i = 0; i < ARRAY_SIZE(p); i++) {
		make(&p[i], 100);
		submit(&p[i], true);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(p); i++)
		netif_complete_later(&p[order[i]].packet, 100 - (int)i);
	for (unsigned i = 0; i < ARRAY_SIZE(p); i++)
		assert_int_equal(p[i].done, 0);
	done_count = 0;
	settle();
	for (unsigned i = 0; i < ARRAY_SIZE(p); i++) {
		assert_int_equal(p[order[i]].done, 1);
		assert_int_equal(p[order[i]].order, i);
		assert_int_equal(p[order[i]].res, 100 - (int)i);
	}
}

/* A guest that asks for the impossible again and again must not hold the loop. */
static void one_that_is_submitted_again_does_not_hold_the_loop(void **state)
{
	(void)state;
	struct packet p;
	make(&p, 1);
	p.again = true;
	submit(&p, false);
	settle();
	assert_in_range(p.done, 2, 1000);
	p.again = false;
	settle();
	assert_int_equal(fake.netif.in_flight, 0);
}

static void the_last_done_may_free(void **state)
{
	(void)state;
	struct packet first, last;
	make(&first, 1);
	make(&last, 1);
	last.frees = true;
	submit(&first, false);
	submit(&last, true);
	settle();
	assert_int_equal(first.done, 1);
	assert_int_equal(last.done, 1);
	assert_int_equal(fake.destroyed, 1);
}

static void only_what_the_back_end_has_is_cancelled_there(void **state)
{
	(void)state;
	struct packet p, refused;
	make(&p, 100);
	make(&refused, 1);
	netif_cancel(&fake.netif, &p.packet); /* not submitted */
	submit(&refused, false);
	netif_cancel(&fake.netif, &refused.packet);
	assert_int_equal(fake.cancelled, 0);
	settle();
	assert_int_equal(refused.res, -EINVAL);

	submit(&p, true);
	netif_cancel(&fake.netif, &p.packet);
	netif_cancel(&fake.netif, &p.packet); /* once is enough */
	assert_int_equal(fake.cancelled, 1);
	assert_ptr_equal(fake.has, &p.packet);
	assert_int_equal(p.done, 0);
	netif_complete_later(&p.packet, -ECANCELED);
	netif_cancel(&fake.netif, &p.packet); /* is over */
	settle();
	assert_int_equal(p.done, 1);
	assert_int_equal(p.res, -ECANCELED);
	netif_cancel(&fake.netif, &p.packet);
	assert_int_equal(fake.cancelled, 1);

	submit(&p, true);
	assert_false(p.packet.cancelled);
	netif_complete(&p.packet, 100);
}

/* --- what a device asks for ------------------------------------------------------------------------------- */

static void offloads_and_queues_are_the_back_ends(void **state)
{
	(void)state;
	netif_set_offloads(&fake.netif, NETIF_OFFLOAD_CSUM);
	assert_int_equal(fake.offloads, NETIF_OFFLOAD_CSUM);
	netif_set_queues(&fake.netif, QUEUES);
	assert_int_equal(fake.pairs, QUEUES);
	fake.netif.ops = &PLAIN_OPS; /* has neither */
	netif_set_offloads(&fake.netif, 0);
	netif_set_queues(&fake.netif, 1);
	assert_int_equal(fake.offloads, NETIF_OFFLOAD_CSUM);
	assert_int_equal(fake.pairs, QUEUES);
}

static void nothing_can_be_freed(void **state)
{
	(void)state;
	netif_free(NULL);
	assert_int_equal(fake.destroyed, 0);
}

/* --- bugs of ours: the process ends ----------------------------------------------------------------------- */

static void check_aborts(void (*bug)(void))
{
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		const struct rlimit no_core = {0};
		(void)setrlimit(RLIMIT_CORE, &no_core);
		(void)dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), STDERR_FILENO);
		signal(SIGABRT, SIG_DFL); /* not cmocka's */
		bug();
		_exit(0);
	}
	int status = 0;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

static void complete_twice(void)
{
	struct packet p;
	make(&p, 100);
	submit(&p, true);
	netif_complete(&p.packet, 100);
	netif_complete(&p.packet, 100);
}

static void end_twice(void)
{
	struct packet p;
	make(&p, 100);
	submit(&p, true);
	netif_complete_later(&p.packet, 100);
	netif_drop(&p.packet);
}

static void submit_twice(void)
{
	struct packet p;
	make(&p, 100);
	submit(&p, false);
	submit(&p, true);
}

static void free_in_flight(void)
{
	struct packet p;
	make(&p, 100);
	submit(&p, true);
	netif_free(&fake.netif);
}

static void ask_for_other_offloads(void)
{
	netif_set_offloads(&fake.netif, NETIF_OFFLOAD_USO);
}

static void ask_for_more_queues(void)
{
	netif_set_queues(&fake.netif, QUEUES + 1);
}

static void our_own_bugs_are_asserted(void **state)
{
	(void)state;
	check_aborts(complete_twice);
	check_aborts(end_twice);
	check_aborts(submit_twice);
	check_aborts(free_in_flight);
	check_aborts(ask_for_other_offloads);
	check_aborts(ask_for_more_queues);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(packets_of_every_size_pass),
		TEST(packets_of_other_sizes_are_refused),
		TEST(only_existing_queues_pass),
		TEST(spans_are_what_the_size_says),
		TEST(spans_are_so_many_at_most),
		TEST(a_change_of_the_link_is_told),
		TEST(what_is_sent_while_it_is_down_is_dropped),
		TEST(packets_are_counted),
		TEST(those_that_end_later_end_in_order),
		TEST(one_that_is_submitted_again_does_not_hold_the_loop),
		TEST(the_last_done_may_free),
		TEST(only_what_the_back_end_has_is_cancelled_there),
		TEST(offloads_and_queues_are_the_back_ends),
		TEST(nothing_can_be_freed),
		TEST(our_own_bugs_are_asserted),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
