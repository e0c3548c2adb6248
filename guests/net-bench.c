/*
 * A network card at full speed, one way at a time or a request and its answer, for some seconds. It runs in ring 3 and
 * polls the used rings with interrupts off, so that what is measured is the way from the doorbell to the host's network
 * and back, and not this guest. Prints one line of JSON.
 *
 *   mode=tx|rx|ping   tx: frames as fast as the device takes them; rx: counts what comes; ping: ICMP echo requests to
 *                     10.0.2.1, one after the other, `gap-us=N` after each answer
 *   size=BYTES (of a frame)  tso: TCP segments of that size (tx), or such may come (rx)
 *   pieces=N (buffers of a frame, tx)  buffer=BYTES (of one to receive into)
 *   seconds=N  warm-ms=N  queue=N  transport=pci|mmio  mmio=...  pci=...  net=N  mrg=0  event-idx=0  indirect=0
 *   tsc-khz=N  hold: prints `ready` and waits for a byte on the serial port before it begins; and another at the end
 */
#include "net-bench.h"
#include "latency.h"

enum { FIRST_BUFFER = 0x2000000, BUFFER_ALIGN = 64, PING_LOST_SECONDS = 1 };
enum { EXIT_NO_CARD = 1, EXIT_ARGUMENTS, EXIT_REFUSED, EXIT_STALLED, EXIT_LOST, EXIT_FOREIGN };

struct counts {
	uint64_t ticks, packets, bytes, kick_ticks;
	uint32_t kicks;
};

static struct {
	uint32_t frame_bytes, buffer_bytes, stride;
	unsigned pieces;
	bool tso;
	uint64_t gap_ticks;
	uint64_t warm_end, end;
} job;

static struct net net;
static struct counts all, warm; /* warm: as it was when the warm-up was over */
static uint64_t foreign, lost;
static struct latency latency;

static void *buffer(unsigned index)
{
	return (void *)(FIRST_BUFFER + (uint64_t)index * job.stride);
}

static void kick(struct virtq *q)
{
	uint64_t start = rdtsc();

	if (virtq_kick(q)) {
		all.kick_ticks += rdtsc() - start;
		all.kicks++;
	}
}

/* Looks at the clock; false when the time is over. */
static bool running(void)
{
	uint64_t now = rdtsc();

	all.ticks = now;
	if (!warm.ticks && now >= job.warm_end)
		warm = all;
	return now < job.end;
}

static void set_clock(void)
{
	job.warm_end = rdtsc() + arg_u64("warm-ms", 300) * tsc_khz();
	job.end = job.warm_end + arg_u64("seconds", 2) * tsc_khz() * 1000;
}

/* --- tx --- */

static bool send(unsigned index)
{
	struct virtio_buf bufs[NET_PIECES_MAX];
	uint8_t *at = buffer(index);
	uint32_t left = NET_HEADER_BYTES + job.frame_bytes;

	for (unsigned i = 0; i < job.pieces; i++) {
		uint32_t bytes = left / (job.pieces - i);

		bufs[i] = (struct virtio_buf){at, bytes};
		at += bytes;
		left -= bytes;
	}
	return net_send(&net, bufs, job.pieces);
}

static void run_tx(void)
{
	unsigned next = 0;

	for (unsigned i = 0; i < net.tx.size; i++)
		job.tso ? frame_tcp(buffer(i), &net, job.frame_bytes) : frame_raw(buffer(i), &net, job.frame_bytes);
	set_clock();
	while (running()) {
		while (net_sent(&net)) {
			all.packets++;
			all.bytes += job.frame_bytes;
		}
		while (send(next))
			next = next + 1 < net.tx.size ? next + 1 : 0;
		kick(&net.tx);
	}
	check(all.packets > warm.packets, EXIT_STALLED, "%lu frames left", all.packets);
}

/* --- rx --- */

static void give_all(void)
{
	for (unsigned i = 0; net_give(&net, buffer(i), job.buffer_bytes); i++)
		;
	virtq_kick(&net.rx);
}

/* The buffers of a packet come to the used ring at once, or at least one soon after the other. */
static void take_rest(unsigned buffers)
{
	uint32_t bytes;

	while (buffers) {
		void *buf = net_take(&net, &bytes);

		if (!buf)
			continue;
		all.bytes += bytes;
		net_give(&net, buf, job.buffer_bytes);
		buffers--;
	}
}

/* Takes a packet and gives its buffers back; false: none. */
static bool take_packet(void)
{
	uint32_t bytes;
	struct virtio_net_hdr_v1 *header = net_take(&net, &bytes);
	unsigned buffers;

	if (!header)
		return false;
	buffers = virtio_has(&net.dev, VIRTIO_NET_F_MRG_RXBUF) ? header->num_buffers : 1;
	if (frame_is_flood(header, bytes)) {
		all.packets++;
		all.bytes += bytes - NET_HEADER_BYTES;
	} else {
		foreign++;
	}
	net_give(&net, header, job.buffer_bytes);
	if (buffers > 1)
		take_rest(buffers - 1);
	return true;
}

static void run_rx(void)
{
	give_all();
	set_clock();
	while (running()) {
		for (unsigned i = 0; i < 64 && take_packet(); i++)
			;
		kick(&net.rx);
	}
	check(all.packets > warm.packets, EXIT_STALLED, "%lu frames came", all.packets);
	check(foreign < 100, EXIT_FOREIGN, "%lu packets of others", foreign);
}

/* --- ping --- */

/* Waits for the answer; false: lost. Whatever else comes is passed over. */
static bool await_answer(uint16_t sequence, uint64_t end)
{
	for (;;) {
		uint32_t bytes;
		void *buf = net_take(&net, &bytes);
		bool answer;

		if (!buf) {
			if (rdtsc() > end)
				return false;
			continue;
		}
		answer = frame_is_answer(buf, bytes, sequence);
		net_give(&net, buf, job.buffer_bytes);
		if (answer)
			return true;
		foreign++;
	}
}

static void ping(void *request, uint16_t sequence)
{
	struct virtio_buf buf = {request, NET_HEADER_BYTES + job.frame_bytes};
	uint64_t start;

	frame_echo(request, &net, job.frame_bytes, sequence);
	while (net_sent(&net))
		;
	start = rdtsc();
	net_send(&net, &buf, 1);
	kick(&net.tx);
	if (!await_answer(sequence, start + PING_LOST_SECONDS * tsc_khz() * 1000)) {
		lost++;
		return;
	}
	all.packets++;
	all.bytes += job.frame_bytes;
	if (warm.ticks)
		latency_add(&latency, rdtsc() - start);
	virtq_kick(&net.rx);
}

static void run_ping(void)
{
	void *request = buffer(net.rx.size);

	give_all();
	set_clock();
	for (uint16_t sequence = 1; running(); sequence++) {
		uint64_t start;

		ping(request, sequence);
		start = rdtsc();
		while (rdtsc() - start < job.gap_ticks)
			;
	}
	check(all.packets > warm.packets, EXIT_STALLED, "%lu answers", all.packets);
	check(lost < 10, EXIT_LOST, "%lu lost", lost);
}

/* --- set-up and report --- */

static void report(void)
{
	uint64_t us = tsc_to_ns(all.ticks - warm.ticks) / 1000, packets = all.packets - warm.packets;
	uint32_t kicks = all.kicks - warm.kicks;

	print("{\"packets\": %lu, \"bytes\": %lu, \"us\": %lu, \"pps\": %lu, \"all_packets\": %lu, \"all_bytes\": "
	      "%lu, ",
	      packets, all.bytes - warm.bytes, us, packets * 1000000 / us, all.packets, all.bytes);
	print("\"median_ns\": %lu, \"p99_ns\": %lu, \"lost\": %lu, \"foreign\": %lu, ",
	      tsc_to_ns(latency_percentile(&latency, 500)), tsc_to_ns(latency_percentile(&latency, 990)), lost,
	      foreign);
	print("\"kicks\": %u, \"kick_ns\": %lu, ", kicks,
	      kicks ? tsc_to_ns((all.kick_ticks - warm.kick_ticks) / kicks) : 0);
	print("\"event_idx\": %u, \"mrg\": %u, \"queue\": %u, \"tsc_khz\": %lu}\n", net.tx.event_idx,
	      virtio_has(&net.dev, VIRTIO_NET_F_MRG_RXBUF), net.tx.size, tsc_khz());
}

static void read_arguments(void)
{
	uint32_t largest;

	job.tso = arg_has("tso");
	job.frame_bytes = (uint32_t)arg_u64("size", 64);
	job.pieces = (unsigned)arg_u64("pieces", 1);
	job.buffer_bytes = (uint32_t)arg_u64("buffer", 2048);
	job.gap_ticks = arg_u64("gap-us", 0) * tsc_khz() / 1000;
	largest = NET_HEADER_BYTES + job.frame_bytes;
	if (largest < job.buffer_bytes)
		largest = job.buffer_bytes;
	job.stride = (largest + BUFFER_ALIGN - 1) / BUFFER_ALIGN * BUFFER_ALIGN;
	check(job.frame_bytes >= (job.tso ? TCP_FRAME_MIN : ECHO_FRAME_MIN) && job.frame_bytes <= 65535 + 14 &&
		      job.pieces && job.pieces <= NET_PIECES_MAX && job.buffer_bytes > NET_HEADER_BYTES,
	      EXIT_ARGUMENTS, "frames of %u bytes in %u pieces, buffers of %u bytes, TSC %lu kHz", job.frame_bytes,
	      job.pieces, job.buffer_bytes, tsc_khz());
}

static void in_ring3(void)
{
	bool ok;

	check(net_open(&net), EXIT_NO_CARD, "a virtio-net card");
	read_arguments();
	ok = net_start(&net, net_features(job.tso), (unsigned)arg_u64("queue", 0));
	check(ok, EXIT_REFUSED, "features 0x%lx, queues of %u and %u", net.dev.features, net.rx.size, net.tx.size);
	hold("ready");
	if (arg_is("mode", "rx"))
		run_rx();
	else if (arg_is("mode", "ping"))
		run_ping();
	else
		run_tx();
	report();
	hold("done");
	guest_exit(0);
}

int guest_main(void)
{
	user_start(in_ring3, false);
}
