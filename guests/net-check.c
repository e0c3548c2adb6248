/*
 * A network card as its driver sees it (virtio 1.3, 5.1), with another of these guests at the wire's other end. role=
 *
 *     echo    sends every frame back as it came, and ends after the last one
 *     check   count=N (1000) frames of all lengths: each must come back as it was, in order; then the last one
 *     flood   sends, and takes what comes, without end; reset=N: until N were sent, and then
 *             it resets the machine
 *     stuck   fills its queue for a wire that takes nothing, and resets the card; times=N (5); then as reset=
 *     link    says "link up" and "link down" whenever that changes
 */
#include "guest.h"
#include "net.h"

enum { STATUS_DEVICE = 1, STATUS_FRAME, STATUS_TIME, STATUS_ROLE };
enum { QUEUE_SIZE = 128, SLOT_BYTES = 2048, WINDOW = 32, FRAME_MIN = 60, FRAME_MAX = 1514 };
enum { TYPE_EXPERIMENTAL = 0x88b5, CONFIG_STATUS = 6, SPINS = 2000000000, STUCK_US = 20000 };

struct frame {
	uint8_t to[NET_MAC_BYTES], from[NET_MAC_BYTES];
	uint8_t type[2], is_last, pad;
	uint32_t number;
	uint8_t data[];
};

static struct net net;
static uint8_t received[QUEUE_SIZE][SLOT_BYTES], sent[QUEUE_SIZE][SLOT_BYTES];
static unsigned next_slot, in_flight;

static void start(void)
{
	check(net_start(&net, net_features(false), QUEUE_SIZE), STATUS_DEVICE, "the network card starts");
	in_flight = 0;
	for (unsigned i = 0; i < QUEUE_SIZE; i++)
		net_give(&net, received[i], SLOT_BYTES);
	virtq_kick(&net.rx);
}

/* --- frames --- */

static bool send(const void *frame, uint32_t bytes)
{
	while (net_sent(&net))
		in_flight--;
	if (in_flight == QUEUE_SIZE)
		return false;
	uint8_t *slot = sent[next_slot++ % QUEUE_SIZE];
	struct virtio_buf buf = {slot, NET_HEADER_BYTES + bytes};

	memset(slot, 0, NET_HEADER_BYTES);
	memcpy(slot + NET_HEADER_BYTES, frame, bytes);
	if (!net_send(&net, &buf, 1))
		return false;
	in_flight++;
	virtq_kick(&net.tx);
	return true;
}

static void send_surely(const void *frame, uint32_t bytes)
{
	for (unsigned i = 0; !send(frame, bytes); i++) {
		if (i == SPINS)
			check(false, STATUS_TIME, "the card sends");
		cpu_pause();
	}
}

/* NULL: none has come. It goes back by give_back. */
static const struct frame *take(uint32_t *ret_bytes)
{
	uint8_t *packet = net_take(&net, ret_bytes);

	if (!packet)
		return NULL;
	if (*ret_bytes < NET_HEADER_BYTES + FRAME_MIN || *ret_bytes > NET_HEADER_BYTES + FRAME_MAX)
		check(false, STATUS_FRAME, "a packet of %u bytes", *ret_bytes);
	*ret_bytes -= NET_HEADER_BYTES;
	return (const struct frame *)(packet + NET_HEADER_BYTES);
}

static const struct frame *take_surely(uint32_t *ret_bytes)
{
	const struct frame *frame;

	for (unsigned i = 0; !(frame = take(ret_bytes)); i++) {
		if (i == SPINS)
			check(false, STATUS_TIME, "a frame comes");
		cpu_pause();
	}
	return frame;
}

static void give_back(const struct frame *frame)
{
	net_give(&net, (uint8_t *)(uintptr_t)frame - NET_HEADER_BYTES, SLOT_BYTES);
	virtq_kick(&net.rx);
}

static uint32_t make(uint8_t *bytes, uint32_t number, bool is_last)
{
	uint32_t size = FRAME_MIN + number * 37 % (FRAME_MAX - FRAME_MIN + 1);
	struct frame *frame = (struct frame *)bytes;

	for (uint32_t i = sizeof(*frame); i < size; i++)
		bytes[i] = (uint8_t)(number + i);
	memset(frame->to, 0xff, NET_MAC_BYTES);
	memcpy(frame->from, net.mac, NET_MAC_BYTES);
	frame->type[0] = TYPE_EXPERIMENTAL >> 8;
	frame->type[1] = TYPE_EXPERIMENTAL & 0xff;
	frame->is_last = is_last;
	frame->pad = 0;
	frame->number = number;
	return size;
}

/* --- roles --- */

static void echo(void)
{
	uint8_t copy[SLOT_BYTES];
	bool is_last;

	do {
		uint32_t bytes;
		const struct frame *frame = take_surely(&bytes);

		memcpy(copy, frame, bytes);
		is_last = frame->is_last;
		give_back(frame);
		send_surely(copy, bytes);
	} while (!is_last);
	while (in_flight)
		in_flight -= net_sent(&net);
}

static void expect(uint32_t number, bool is_last)
{
	uint8_t wanted[SLOT_BYTES];
	uint32_t bytes, size = make(wanted, number, is_last);
	const struct frame *frame = take_surely(&bytes);

	if (bytes != size || memcmp(frame, wanted, size) != 0)
		check(false, STATUS_FRAME, "frame %u of %u bytes, not %u of %u", frame->number, bytes, number, size);
	give_back(frame);
}

static void check_echoes(void)
{
	uint32_t count = (uint32_t)arg_u64("count", 1000), next = 0;
	uint8_t frame[SLOT_BYTES];

	for (uint32_t seen = 0; seen <= count; seen++) {
		for (; next <= count && next - seen < WINDOW; next++)
			send_surely(frame, make(frame, next, next == count));
		expect(seen, seen == count);
	}
	print("%u frames came back\n", count);
}

static _Noreturn void reset_machine(void)
{
	outb(0x64, 0xfe);
	for (;;)
		cpu_pause();
}

static void flood(void)
{
	uint64_t limit = arg_u64("reset", UINT64_MAX), count = 0;
	uint8_t bytes[SLOT_BYTES];
	const struct frame *frame;
	uint32_t size;

	while (count - in_flight < limit) { /* what is under way is lost in the reset */
		count += send(bytes, make(bytes, (uint32_t)count, false));
		while ((frame = take(&size)))
			give_back(frame);
		cpu_pause();
	}
	reset_machine();
}

static void stuck(void)
{
	uint8_t bytes[SLOT_BYTES];

	for (uint64_t times = arg_u64("times", 5); times; times--) {
		for (unsigned tries = 0; in_flight < QUEUE_SIZE && tries < 100000; tries++)
			send(bytes, make(bytes, tries, false));
		clock_delay_us(STUCK_US);
		print("stuck with %u\n", in_flight);
		start();
	}
	reset_machine();
}

static void watch_link(void)
{
	uint64_t was = UINT64_MAX;

	for (;;) {
		uint64_t is = virtio_config(&net.dev, CONFIG_STATUS, 2) & VIRTIO_NET_S_LINK_UP;

		if (is != was)
			print("link %s\n", is ? "up" : "down");
		was = is;
		clock_delay_us(1000);
	}
}

static void in_ring3(void)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} roles[] = {{"echo", echo}, {"check", check_echoes}, {"flood", flood}, {"stuck", stuck}, {"link", watch_link}};

	check(net_open(&net), STATUS_DEVICE, "there is a network card");
	start();
	for (unsigned i = 0; i < sizeof(roles) / sizeof(roles[0]); i++) {
		if (!arg_is("role", roles[i].name))
			continue;
		roles[i].run();
		guest_exit(0);
	}
	guest_exit(STATUS_ROLE);
}

/* Where a software-only KVM has the CPU run it. */
int guest_main(void)
{
	user_start(in_ring3, false);
}
