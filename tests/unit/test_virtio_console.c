/* virtio-console: what a driver is told in which order, where bytes go, what waits, and what is refused. */
#include "console_rig.h"
#include "virtio/console_status.h"

/* --- what it is ------------------------------------------------------------------------------------------------- */

static uint32_t read_config(struct cr *c, unsigned offset, unsigned size)
{
	uint32_t value = 0;
	virtio_lock(c->dev);
	virtio_read_config(c->dev, offset, &value, size);
	virtio_unlock(c->dev);
	return value;
}

static bool offers(const struct cr *c, unsigned feature)
{
	return c->dev->features & 1ULL << feature;
}

static void it_says_what_it_is(void **state)
{
	struct cr *c = *state;
	assert_int_equal(c->dev->queue_count, CR_QUEUES);
	assert_true(offers(c, VIRTIO_CONSOLE_F_MULTIPORT) && offers(c, VIRTIO_CONSOLE_F_SIZE) &&
		    offers(c, VIRTIO_CONSOLE_F_EMERG_WRITE));
	assert_int_equal(read_config(c, 0, 2), 80);
	assert_int_equal(read_config(c, 2, 2), 25);
	assert_int_equal(read_config(c, 4, 4), CR_PORTS);

	c->port_count = 0;
	cr_renew_device(c);
	assert_int_equal(c->dev->queue_count, 4);
	assert_true(offers(c, VIRTIO_CONSOLE_F_MULTIPORT) && !offers(c, VIRTIO_CONSOLE_F_SIZE) &&
		    !offers(c, VIRTIO_CONSOLE_F_EMERG_WRITE));
	assert_int_equal(read_config(c, 4, 4), 1);
}

static void names_that_cannot_be(void **state)
{
	static const char *const names[] = {"", "org.vmlet.status",
					    "0123456789012345678901234567890123456789012345678901234567890123"};
	struct cr *c = *state;
	for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
		struct err err = {0};
		c->ports[CR_NAMED].name = names[i];
		assert_null(cr_try_new(c, &err));
		assert_int_equal(err.code, -EINVAL);
		assert_int_equal(err.kind, ERR_CONFIG);
	}
	c->ports[CR_NAMED].name = names[2] + 1;
	cr_renew_device(c);
}

/* 16 ports' queues are all that a device may have. */
static void as_many_ports_as_there_may_be(void **state)
{
	struct cr *c = *state;
	struct virtio_console_port ports[VIRTIO_CONSOLE_PORTS_MAX];
	struct virtio_console_init init = {.ports = ports, .port_count = ARRAY_SIZE(ports), .events = {cr_event, c}};
	struct chr *chr = chr_null_new(c->loop, &c->log, NULL);
	for (unsigned i = 0; i < ARRAY_SIZE(ports); i++)
		ports[i] = (struct virtio_console_port){.name = i < 3 ? NULL : "same", .chr = chr};
	struct virtio_device *dev = virtio_console_new(c->loop, c->gmem, &c->log, &init, NULL);
	assert_non_null(dev);
	assert_int_equal(dev->queue_count, VIRTIO_QUEUES_MAX);
	virtio_free(dev);
	chr_free(chr);
}

/* --- control messages ------------------------------------------------------------------------------------------- */

static void a_driver_is_told_of_its_ports(void **state)
{
	struct cr *c = *state;
	cr_start_linux(c);
	for (unsigned i = 0; i < CR_PORTS; i++)
		cr_port_ready(c, i);
	cr_expect_silence(c);
	cr_say(c, VIRTIO_CONSOLE_BAD_ID, VIRTIO_CONSOLE_DEVICE_READY, 1); /* as after a sleep */
	for (unsigned i = 0; i < CR_PORTS; i++)
		cr_expect(c, i, VIRTIO_CONSOLE_PORT_ADD, 1);
	assert_int_equal(c->log_lines, 0);
}

static void messages_wait_for_buffers(void **state)
{
	struct cr *c = *state;
	cr_start(c, true);
	cr_say(c, VIRTIO_CONSOLE_BAD_ID, VIRTIO_CONSOLE_DEVICE_READY, 1);
	cr_settle(c);
	for (unsigned i = 0; i < CR_PORTS; i++) {
		cr_give(c, CR_CONTROL_IN, 1, CR_BUFFER_BYTES);
		cr_expect(c, i, VIRTIO_CONSOLE_PORT_ADD, 1);
	}
	cr_expect_silence(c);
}

/* Its name is cut; the next message is whole. */
static void a_buffer_too_small_for_a_name(void **state)
{
	struct cr *c = *state;
	const uint8_t *data;
	uint32_t size;
	cr_start(c, true);
	cr_say(c, CR_NAMED, VIRTIO_CONSOLE_PORT_READY, 1);
	cr_give(c, CR_CONTROL_IN, 2, 12);
	while (!cr_take(c, CR_CONTROL_IN, &data, &size))
		cr_pump(c);
	assert_int_equal(size, 12);
	assert_memory_equal(data + 8, "org.", 4);
	cr_expect(c, CR_NAMED, VIRTIO_CONSOLE_PORT_OPEN, 1);
}

static void a_peer_that_comes_and_goes_is_told(void **state)
{
	struct cr *c = *state;
	cr_start_all(c);
	close(c->peer[CR_NAMED]);
	cr_send(c, CR_NAMED, "nobody reads this"); /* which shows that nobody does */
	cr_expect(c, CR_NAMED, VIRTIO_CONSOLE_PORT_OPEN, 0);
	close(c->peer[CR_CONSOLE]); /* a console has no such state */
	cr_send(c, CR_CONSOLE, "nor this");
	cr_expect_silence(c);
	cr_send(c, CR_NAMED, "and what is written to nobody is taken");
	c->peer[CR_CONSOLE] = c->peer[CR_NAMED] = -1;
}

/* Else Linux would have its writer wait for a peer. */
static void a_port_whose_output_is_discarded_is_open(void **state)
{
	struct cr *c = *state;
	const char *const paths[] = {NULL, "/dev/full"};
	for (unsigned i = 0; i < ARRAY_SIZE(paths); i++) {
		struct chr *was = c->chr[CR_NAMED];
		cr_free_device(c);
		c->chr[CR_NAMED] = paths[i] ? chr_file_new(c->loop, &c->log, paths[i], NULL)
					    : chr_null_new(c->loop, &c->log, NULL);
		c->ports[CR_NAMED].chr = c->chr[CR_NAMED];
		chr_free(was);
		cr_new_device(c);
		cr_start_linux(c);
		cr_port_ready(c, CR_NAMED); /* and open */
		for (unsigned line = 0; line < 3; line++)
			cr_send(c, CR_NAMED, "for nobody");
		cr_expect_silence(c);
		assert_int_equal(c->log_lines, i);
	}
}

/* The driver sees that it was closed, not how often: one bit each. */
static void a_peer_that_comes_and_goes_while_nobody_listens(void **state)
{
	struct cr *c = *state;
	struct chr *chr = c->chr[CR_NAMED];
	char path[] = "/tmp/vmlet-test-console-XXXXXX";
	close(mkstemp(path));
	unlink(path);
	cr_free_device(c);
	c->chr[CR_NAMED] = c->ports[CR_NAMED].chr = chr_unix_new(c->loop, &c->log, path, NULL);
	assert_non_null(c->chr[CR_NAMED]);
	chr_free(chr);
	cr_new_device(c);

	cr_start(c, true);
	cr_say(c, CR_NAMED, VIRTIO_CONSOLE_PORT_READY, 1);
	struct sockaddr_un {
		sa_family_t family;
		char path[108];
	} addr = {.family = AF_UNIX};
	memcpy(addr.path, path, sizeof(path));
	for (unsigned i = 0; i < 3; i++) {
		int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		assert_int_equal(connect(fd, (const struct sockaddr *)&addr, sizeof(addr)), 0);
		while (!chr_has_peer(c->chr[CR_NAMED]))
			cr_pump(c);
		if (i == 2) {
			cr_give(c, CR_CONTROL_IN, 8, CR_BUFFER_BYTES);
			cr_expect_with(c, CR_NAMED, VIRTIO_CONSOLE_PORT_NAME, 1, "org.test.port", 13);
			cr_expect(c, CR_NAMED, VIRTIO_CONSOLE_PORT_OPEN, 0);
			cr_expect(c, CR_NAMED, VIRTIO_CONSOLE_PORT_OPEN, 1);
		}
		close(fd);
		while (chr_has_peer(c->chr[CR_NAMED]))
			cr_pump(c);
	}
	cr_expect(c, CR_NAMED, VIRTIO_CONSOLE_PORT_OPEN, 0);
	cr_expect_silence(c);
}

static void set_size(struct cr *c, uint16_t rows, uint16_t columns)
{
	virtio_console_set_size(c->dev, CR_CONSOLE, rows, columns);
}

static void a_console_that_changes_its_size(void **state)
{
	static const uint16_t last[] = {132, 999}, one_more[] = {40, 10};
	struct cr *c = *state;
	cr_start_all(c);
	while (virtq_driver_has_used(&c->drivers[CR_CONTROL_IN]))
		cr_pump(c);
	set_size(c, 10, 40);
	cr_expect_with(c, CR_CONSOLE, VIRTIO_CONSOLE_RESIZE, 1, one_more, sizeof(one_more));
	set_size(c, 10, 40); /* is none */
	cr_expect_silence(c);

	cr_start(c, true); /* without buffers for messages */
	cr_say(c, CR_CONSOLE, VIRTIO_CONSOLE_PORT_READY, 1);
	for (uint16_t i = 0; i < 1000; i++)
		set_size(c, i, 132);
	cr_give(c, CR_CONTROL_IN, 8, CR_BUFFER_BYTES);
	cr_expect(c, CR_CONSOLE, VIRTIO_CONSOLE_CONSOLE_PORT, 1);
	cr_expect_with(c, CR_CONSOLE, VIRTIO_CONSOLE_RESIZE, 1, last, sizeof(last));
	cr_expect(c, CR_CONSOLE, VIRTIO_CONSOLE_PORT_OPEN, 1);
	cr_expect_silence(c);
}

static void its_size_is_in_the_configuration_too(void **state)
{
	struct cr *c = *state;
	cr_start(c, false);
	cr_settle(c);
	uint8_t generation = c->dev->config_generation;
	set_size(c, 50, 160);
	assert_int_equal(c->config_interrupts, 1);
	assert_int_equal(read_config(c, 0, 2), 160);
	assert_int_equal(read_config(c, 2, 2), 50);
	assert_int_equal(read_config(c, 4, 4), CR_PORTS);
	set_size(c, 51, 160);
	assert_int_not_equal(c->dev->config_generation, generation);
	assert_int_equal(c->config_interrupts, 2);
}

/* --- output ------------------------------------------------------------------------------------------------------- */

static void output_goes_where_it_should(void **state)
{
	struct cr *c = *state;
	cr_start_all(c);
	cr_send(c, CR_CONSOLE, "to the console");
	cr_send(c, CR_NAMED, "to the port");
	cr_expect_output(c, CR_CONSOLE, "to the console");
	cr_expect_output(c, CR_NAMED, "to the port");
	assert_int_equal(c->events, 0);
}

static uint8_t pattern(size_t i)
{
	return (uint8_t)(i * 31 + (i >> 8) * 17 + (i >> 16));
}

/* Read what there is; returns how much is wrong. */
static size_t read_pattern(struct cr *c, unsigned port, size_t *from, size_t max)
{
	uint8_t block[65536];
	size_t wrong = 0;
	ssize_t got = read(c->peer[port], block, min_u64(sizeof(block), max));
	for (ssize_t i = 0; i < got; i++)
		wrong += block[i] != pattern(*from + (size_t)i);
	*from += got > 0 ? (size_t)got : 0;
	return wrong;
}

/* A few chains of many spans, 4 MiB: more than the back end holds. */
static size_t send_pattern(struct cr *c, unsigned port)
{
	struct virtq_buffer buffers[61];
	size_t sent = 0;
	for (size_t i = 0; i < CR_DATA_BYTES; i++)
		c->ram[CR_DATA + i] = pattern(i);
	for (unsigned chain = 0; chain < 3; chain++) {
		for (unsigned i = 0; i < ARRAY_SIZE(buffers); i++) {
			uint32_t size = 10007 + i * 7;
			buffers[i] = (struct virtq_buffer){CR_DATA + sent, size, false};
			sent += size;
		}
		assert_true(sent <= CR_DATA_BYTES);
		assert_true(virtq_driver_add_indirect(&c->drivers[cr_out(port)], buffers, ARRAY_SIZE(buffers)) >= 0);
	}
	cr_ring(c, cr_out(port));
	return sent;
}

static void a_slow_reader_holds_its_guest_up(void **state)
{
	struct cr *c = *state;
	cr_start_all(c);
	size_t sent = send_pattern(c, CR_NAMED), got = 0, wrong = 0;
	cr_settle(c);
	cr_settle(c);
	assert_true(cr_take_all(c, cr_out(CR_NAMED)) < 3); /* nobody reads: it must wait */
	cr_send(c, CR_CONSOLE, "others need not");
	cr_expect_output(c, CR_CONSOLE, "others need not");
	for (unsigned i = 0; got < sent; i++) {
		wrong += read_pattern(c, CR_NAMED, &got, i % 7 * 9973 + 1);
		cr_pump(c);
	}
	assert_int_equal(wrong, 0);
	cr_settle(c);
	assert_int_equal(got, sent);
	assert_int_equal(read(c->peer[CR_NAMED], c->ram, 1), -1); /* and no byte more */
	assert_false(virtq_driver_has_used(&c->drivers[CR_CONTROL_IN]));
}

/* Its driver spins until the device has taken each piece: for a while what is printed waits, then it is dropped. */
static void a_console_that_nobody_reads(void **state)
{
	struct cr *c = *state;
	uint8_t block[65536], last = 0;
	cr_start_all(c);
	(void)send_pattern(c, CR_CONSOLE);
	cr_settle(c);
	unsigned taken = cr_take_all(c, cr_out(CR_CONSOLE));
	assert_true(taken < 3);
	while (taken < 3) {
		cr_pump(c);
		taken += cr_take_all(c, cr_out(CR_CONSOLE));
	}
	assert_int_equal(c->log_lines, 1);
	cr_send(c, CR_CONSOLE, "lost");

	/* Somebody reads again: all that was kept, and what comes from now on. */
	while (read(c->peer[CR_CONSOLE], block, sizeof(block)) > 0 || chr_pending(c->chr[CR_CONSOLE]))
		cr_pump(c);
	cr_send(c, CR_CONSOLE, "!");
	while (read(c->peer[CR_CONSOLE], &last, 1) < 0)
		cr_pump(c);
	assert_int_equal(last, '!');
	assert_int_equal(c->log_lines, 1);
}

/* It is not its reader's fault that the loop does not run: nothing is lost. */
static void a_console_while_the_loop_is_away(void **state)
{
	struct cr *c = *state;
	cr_start_all(c);
	size_t sent = send_pattern(c, CR_CONSOLE), got = 0, wrong = 0;
	while (chr_room(c->chr[CR_CONSOLE])) /* until it waits for its reader */
		cr_pump(c);
	assert_int_equal(usleep(1300000), 0);
	while (got < sent) {
		cr_pump(c);
		assert_int_equal(c->log_lines, 0);
		wrong += read_pattern(c, CR_CONSOLE, &got, sent);
	}
	assert_int_equal(wrong, 0);
}

/* A reset in the middle of a chain: the next driver's first chain begins at its beginning. */
static void a_reset_forgets_what_was_half_sent(void **state)
{
	struct cr *c = *state;
	for (unsigned i = 0; i < 2; i++) {
		size_t got = 0;
		cr_start_all(c);
		uint64_t before = chr_output_bytes(c->chr[CR_NAMED]);
		send_pattern(c, CR_NAMED);
		cr_settle(c);
		if (i == 0) {
			cr_write_status(c, 0);
		} else {
			virtio_lock(c->dev);
			virtio_reset_queue(c->dev, virtio_get_queue(c->dev, cr_out(CR_NAMED)));
			virtio_unlock(c->dev);
			cr_set_up_queue(c, cr_out(CR_NAMED));
		}
		while (chr_pending(c->chr[CR_NAMED])) {
			assert_int_equal(read_pattern(c, CR_NAMED, &got, 65536), 0);
			cr_pump(c);
		}
		while (got < chr_output_bytes(c->chr[CR_NAMED]) - before)
			assert_int_equal(read_pattern(c, CR_NAMED, &got, 65536), 0);
		if (i == 0)
			cr_start_all(c);
		cr_send(c, CR_NAMED, "begins here");
		cr_expect_output(c, CR_NAMED, "begins here");
	}
}

/* However long chains are, others get their turn: in a round each queue moves a bounded number of bytes. */
static void a_chain_that_is_enormous(void **state)
{
	enum { CHAINS = 4, ROUND_BYTES_MAX = 2 * 65536 };
	struct cr *c = *state;
	struct virtq_buffer buffers[64];
	unsigned queue = cr_out(CR_NAMED), done = 0;
	close(c->peer[CR_NAMED]);
	c->peer[CR_NAMED] = -1;
	cr_start_linux(c);
	for (unsigned i = 0; i < ARRAY_SIZE(buffers); i++)
		buffers[i] = (struct virtq_buffer){CR_DATA, CR_DATA_BYTES / 2, false};
	for (unsigned i = 0; i < CHAINS; i++)
		assert_true(virtq_driver_add_indirect(&c->drivers[queue], buffers, ARRAY_SIZE(buffers)) >= 0);
	virtio_ring(c->dev, queue);
	cr_send(c, CR_CONSOLE, "x");
	done += cr_take_all(c, queue);
	assert_true(done < CHAINS);
	while (done < CHAINS) {
		uint64_t before = chr_output_bytes(c->chr[CR_NAMED]);
		assert_int_equal(loop_wait(c->loop, CR_MS), 0);
		assert_true(chr_output_bytes(c->chr[CR_NAMED]) - before <= ROUND_BYTES_MAX);
		done += cr_take_all(c, queue);
	}
	assert_int_equal(chr_output_bytes(c->chr[CR_NAMED]),
			 (uint64_t)CHAINS * ARRAY_SIZE(buffers) * CR_DATA_BYTES / 2);
}

/* --- input ------------------------------------------------------------------------------------------------------- */

static void input_waits_until_the_port_is_open(void **state)
{
	struct cr *c = *state;
	cr_start_linux(c);
	for (unsigned port = CR_CONSOLE; port <= CR_NAMED; port++) {
		cr_give(c, cr_in(port), 4, CR_BUFFER_BYTES);
		cr_type(c, port, "early");
		cr_port_ready(c, port);
		cr_settle(c);
		assert_false(virtq_driver_has_used(&c->drivers[cr_in(port)]));
		cr_say(c, port, VIRTIO_CONSOLE_PORT_OPEN, 1);
		cr_expect_input(c, port, "early");
		cr_type(c, port, "late");
		cr_expect_input(c, port, "late");
		cr_say(c, port, VIRTIO_CONSOLE_PORT_OPEN, 0);
		cr_type(c, port, "again");
		cr_settle(c);
		assert_false(virtq_driver_has_used(&c->drivers[cr_in(port)]));
		cr_say(c, port, VIRTIO_CONSOLE_PORT_OPEN, 1);
		cr_expect_input(c, port, "again");
	}
}

static void input_waits_for_buffers(void **state)
{
	struct cr *c = *state;
	cr_start_all(c);
	cr_type(c, CR_CONSOLE, "in small pieces");
	cr_settle(c);
	cr_give(c, cr_in(CR_CONSOLE), 2, 4);
	cr_expect_input(c, CR_CONSOLE, "in small");
	cr_settle(c);
	cr_give(c, cr_in(CR_CONSOLE), 2, 4);
	cr_expect_input(c, CR_CONSOLE, " pieces");
}

/* More than the ring and the back end hold together. */
static void a_long_input(void **state)
{
	struct cr *c = *state;
	size_t size = 1 << 20, sent = 0, got = 0, wrong = 0;
	cr_start_all(c);
	cr_give(c, cr_in(CR_NAMED), 20, 1000);
	while (got < size) {
		uint8_t block[8191];
		size_t count = min_u64(sizeof(block), size - sent);
		for (size_t i = 0; i < count; i++)
			block[i] = pattern(sent + i);
		ssize_t n = write(c->peer[CR_NAMED], block, count);
		sent += n > 0 ? (size_t)n : 0;
		cr_pump(c);
		const uint8_t *data;
		uint32_t taken;
		while (cr_take(c, cr_in(CR_NAMED), &data, &taken)) {
			for (uint32_t i = 0; i < taken; i++)
				wrong += data[i] != pattern(got + i);
			got += taken;
			cr_give(c, cr_in(CR_NAMED), 1, 1000);
		}
	}
	assert_int_equal(wrong, 0);
	assert_int_equal(got, size);
}

static void input_outlives_a_reset(void **state)
{
	struct cr *c = *state;
	cr_start_all(c);
	cr_type(c, CR_NAMED, "kept");
	cr_settle(c);
	cr_write_status(c, 0);
	cr_settle(c);
	cr_start_all(c);
	cr_give(c, cr_in(CR_NAMED), 1, 100);
	cr_expect_input(c, CR_NAMED, "kept");
}

/* --- rates -------------------------------------------------------------------------------------------------------- */

static void limit(struct cr *c, uint64_t bytes_per_s, uint64_t burst)
{
	for (unsigned i = 0; i < c->port_count; i++)
		c->ports[i].limit = (struct rate_limit_config){.bytes_per_s = bytes_per_s, .bytes_burst = burst};
	cr_renew_device(c);
	cr_start_all(c);
}

/* The first is more than there may be at once, and passes; the second pays for it. Nobody takes that for a slow reader.
 */
static void output_at_a_rate(void **state)
{
	struct cr *c = *state;
	uint8_t block[4000];
	limit(c, 2000, 100);
	memset(block, 'x', sizeof(block));
	uint64_t before = chr_output_bytes(c->chr[CR_CONSOLE]), start_ns = loop_now_ns();
	cr_send_bytes(c, cr_out(CR_CONSOLE), block, 3000);
	cr_send_bytes(c, cr_out(CR_CONSOLE), block, 10);
	cr_send(c, CR_NAMED, "another has a rate of its own");
	cr_expect_output(c, CR_NAMED, "another has a rate of its own");
	while (chr_output_bytes(c->chr[CR_CONSOLE]) < before + 3010)
		cr_pump(c);
	assert_true(loop_now_ns() - start_ns > 1400 * CR_MS);
	assert_int_equal(c->log_lines, 0);
}

static void at_the_end_no_rate_holds_output_back(void **state)
{
	struct cr *c = *state;
	limit(c, 1, 1);
	cr_send(c, CR_CONSOLE, "long ");
	cr_send_bytes(c, cr_out(CR_CONSOLE), "last words", 10);
	cr_send(c, CR_STATUS, "3\n");
	assert_int_equal(c->value, 3);
	cr_expect_output(c, CR_CONSOLE, "long last words");
}

static void input_at_a_rate(void **state)
{
	struct cr *c = *state;
	char text[251];
	limit(c, 2000, 50);
	for (unsigned i = 0; i < sizeof(text) - 1; i++)
		text[i] = (char)('a' + i % 23);
	text[sizeof(text) - 1] = '\0';
	uint64_t start_ns = loop_now_ns();
	cr_give(c, cr_in(CR_NAMED), 6, 50);
	cr_type(c, CR_NAMED, text);
	cr_expect_input(c, CR_NAMED, text);
	assert_true(loop_now_ns() - start_ns > 95 * CR_MS);
}

static void an_emergency_at_a_rate(void **state)
{
	struct cr *c = *state;
	uint32_t value = 'x';
	limit(c, 1, 2);
	uint64_t before = chr_output_bytes(c->chr[CR_CONSOLE]);
	virtio_lock(c->dev);
	for (unsigned i = 0; i < 1000; i++)
		virtio_write_config(c->dev, 8, &value, sizeof(value));
	virtio_unlock(c->dev);
	assert_in_range(chr_output_bytes(c->chr[CR_CONSOLE]) - before, 2, 900);
}

/* --- a driver that knows one port --------------------------------------------------------------------------------- */

static void a_driver_without_multiport_has_a_console(void **state)
{
	struct cr *c = *state;
	cr_start(c, false);
	cr_type(c, CR_CONSOLE, "in");
	cr_give(c, 0, 1, 100);
	cr_expect_input(c, CR_CONSOLE, "in");
	cr_send(c, CR_CONSOLE, "out");
	cr_expect_output(c, CR_CONSOLE, "out");
	for (unsigned i = CR_CONTROL_IN; i < CR_QUEUES; i++)
		virtio_ring(c->dev, i);
	cr_settle(c);
	assert_int_equal(c->log_lines, 0);
}

/* The kernel's lines on what it takes for a console must not end the VM, nor get into a protocol. */
static void without_a_console_it_prints_for_nobody(void **state)
{
	struct cr *c = *state;
	c->ports[0] = c->ports[CR_NAMED];
	for (c->port_count = 0; c->port_count < 2; c->port_count++) {
		cr_renew_device(c);
		cr_start(c, false);
		cr_send(c, 0, "7\n");
		cr_settle(c);
		char byte;
		assert_int_equal(read(c->peer[CR_NAMED], &byte, 1), -1);
		assert_int_equal(c->events, 0);
		cr_type(c, CR_NAMED, "x");
		cr_give(c, 0, 1, 100);
		cr_settle(c);
		assert_false(virtq_driver_has_used(&c->drivers[0]));
	}
	c->port_count = 1;
}

/* --- the status port -----------------------------------------------------------------------------------------------
 */

static const struct status_line {
	const char *text;
	int value; /* -1: none */
} STATUS_LINES[] = {
	{"0\n", 0},           {"7\n", 7},
	{"255\n", 255},       {"  42\t\n", 42},
	{"13\r\n", 13},       {"0000000000000000000000000000000000000000099\n", 99},
	{"256\n", -1},        {"25600000000000000000000000000000000000000\n", -1},
	{"4294967296\n", -1}, {"-1\n", -1},
	{"1 2\n", -1},        {"7x\n", -1},
	{"x7\n", -1},         {"\n", -1},
	{" \n", -1},          {"0x10\n", -1},
	{"\xff\n", -1},
};

static void what_the_status_lines_mean(void **state)
{
	(void)state;
	struct console_status status = {0};
	for (unsigned i = 0; i < ARRAY_SIZE(STATUS_LINES); i++) {
		const struct status_line *line = &STATUS_LINES[i];
		for (const char *at = line->text; at[1]; at++)
			assert_int_equal(console_status_next(&status, (uint8_t)*at), CONSOLE_STATUS_NO_LINE);
		enum console_status_line end = console_status_next(&status, '\n');
		assert_int_equal(end, line->value < 0 ? CONSOLE_STATUS_IS_WRONG : CONSOLE_STATUS_IS_VALUE);
		if (line->value >= 0)
			assert_int_equal(status.value, line->value);
	}
}

static void a_status_ends_the_vm(void **state)
{
	struct cr *c = *state;
	cr_start_all(c);
	cr_send(c, CR_STATUS, "nonsense\n4");
	assert_int_equal(c->log_lines, 1);
	assert_int_equal(c->events, 0);
	cr_send(c, CR_STATUS, "2");
	assert_int_equal(c->events, 0);
	cr_send(c, CR_STATUS, "\n");
	assert_int_equal(c->events, 1);
	assert_int_equal(c->value, 42);
	cr_send(c, CR_STATUS, "1\n2\n3\n"); /* the first one counts */
	assert_int_equal(c->events, 1);
}

/* What was written before it comes out, though the doorbells are seen in another order. */
static void a_status_comes_after_the_output(void **state)
{
	struct cr *c = *state;
	cr_start_all(c);
	cr_send_bytes(c, cr_out(CR_STATUS), "3\n", 2);
	gpa_t at = CR_DATA + 0x10000;
	const struct virtq_buffer buffer = {at, 5, false};
	memcpy(c->ram + at, "words", 5);
	assert_true(virtq_driver_add(&c->drivers[cr_out(CR_NAMED)], &buffer, 1) >= 0);
	while (!c->events)
		cr_pump(c);
	assert_int_equal(chr_output_bytes(c->chr[CR_NAMED]), 5);
}

static void half_a_status_is_forgotten(void **state)
{
	struct cr *c = *state;
	cr_start_all(c);
	cr_send(c, CR_STATUS, "1");
	cr_say(c, CR_STATUS, VIRTIO_CONSOLE_PORT_OPEN, 0);
	cr_say(c, CR_STATUS, VIRTIO_CONSOLE_PORT_OPEN, 1);
	cr_send(c, CR_STATUS, "2\n");
	assert_int_equal(c->value, 2);
	cr_start_all(c);
	cr_send(c, CR_STATUS, "1");
	cr_start_all(c);
	cr_send(c, CR_STATUS, "3\n");
	assert_int_equal(c->value, 3);
}

static void a_line_without_an_end(void **state)
{
	struct cr *c = *state;
	cr_start_all(c);
	memset(c->ram + CR_DATA, '1', CR_DATA_BYTES);
	for (unsigned i = 0; i < 4; i++)
		cr_add(c, cr_out(CR_STATUS), CR_DATA, CR_DATA_BYTES, false);
	for (unsigned done = 0; done < 4; done += cr_take_all(c, cr_out(CR_STATUS)))
		cr_pump(c);
	memset(c->ram + CR_DATA, '\n', 65536);
	cr_add(c, cr_out(CR_STATUS), CR_DATA, 65536, false);
	while (!cr_take_all(c, cr_out(CR_STATUS)))
		cr_pump(c);
	assert_true(c->log_lines > 0 && c->log_lines < 40); /* of 65536 */
	cr_send(c, CR_STATUS, "5\n");
	assert_int_equal(c->value, 5);
}

/* --- emergency ------------------------------------------------------------------------------------------------------
 */

static void a_character_in_an_emergency(void **state)
{
	struct cr *c = *state;
	static const char text[] = "help";
	for (unsigned i = 0; i < 4; i++) {
		uint32_t value = (uint32_t)text[i] | 0xabcd00;
		virtio_lock(c->dev); /* before anything is negotiated */
		virtio_write_config(c->dev, 8, &value, sizeof(value));
		virtio_write_config(c->dev, 4, &value, sizeof(value));
		virtio_write_config(c->dev, 9, &value, 1);
		virtio_unlock(c->dev);
	}
	cr_expect_output(c, CR_CONSOLE, "help");
	assert_int_equal(read_config(c, 4, 4), CR_PORTS);
}

/* --- hostile drivers
 * --------------------------------------------------------------------------------------------------
 */

static void messages_that_make_no_sense(void **state)
{
	struct cr *c = *state;
	static const uint8_t bytes[64] = {0xff};
	cr_start_all(c);
	for (uint32_t size = 1; size < 8; size++) {
		cr_send_bytes(c, CR_CONTROL_OUT, bytes, size);
		while (!cr_take_all(c, CR_CONTROL_OUT))
			cr_pump(c);
	}
	cr_send_bytes(c, CR_CONTROL_OUT, bytes, sizeof(bytes));
	cr_settle(c);
	assert_int_equal(cr_take_all(c, CR_CONTROL_OUT), 1);
	for (uint16_t event = 0; event < 10; event++) {
		cr_say(c, CR_PORTS, event == VIRTIO_CONSOLE_DEVICE_READY ? 99 : event, 1);
		cr_say(c, UINT32_MAX, VIRTIO_CONSOLE_PORT_OPEN, 1);
		cr_say(c, 0x80000001, VIRTIO_CONSOLE_PORT_READY, 1);
	}
	cr_say(c, 0, VIRTIO_CONSOLE_DEVICE_READY, 0);
	cr_expect_silence(c);
	assert_true(c->log_lines > 0 && c->log_lines < 20);
	cr_send(c, CR_CONSOLE, "still there");
	cr_expect_output(c, CR_CONSOLE, "still there");
}

/* PORT_READY 0: the port is no longer spoken of. */
static void a_port_that_the_driver_could_not_take(void **state)
{
	struct cr *c = *state;
	cr_start_all(c);
	cr_say(c, CR_NAMED, VIRTIO_CONSOLE_PORT_READY, 0);
	cr_say(c, CR_CONSOLE, VIRTIO_CONSOLE_PORT_READY, 0);
	cr_give(c, cr_in(CR_NAMED), 1, 100);
	cr_type(c, CR_NAMED, "x");
	cr_settle(c);
	assert_false(virtq_driver_has_used(&c->drivers[cr_in(CR_NAMED)]));
	close(c->peer[CR_NAMED]);
	c->peer[CR_NAMED] = -1;
	set_size(c, 1, 2);
	cr_expect_silence(c);
	cr_say(c, CR_CONSOLE, VIRTIO_CONSOLE_PORT_READY, 1);
	cr_expect(c, CR_CONSOLE, VIRTIO_CONSOLE_CONSOLE_PORT, 1);
}

/* What is written goes in, what is read comes out, whatever else is in a chain. */
static void chains_of_wrong_directions(void **state)
{
	struct cr *c = *state;
	const struct virtq_buffer both[] = {{CR_DATA, 4, false}, {CR_DATA + 64, 8, true}};
	cr_start_all(c);
	memcpy(c->ram + CR_DATA, "data", 4);
	cr_add(c, cr_out(CR_CONSOLE), CR_DATA, 100, true);
	assert_true(virtq_driver_add(&c->drivers[cr_out(CR_CONSOLE)], both, 2) >= 0);
	cr_ring(c, cr_out(CR_CONSOLE));
	cr_expect_output(c, CR_CONSOLE, "data");
	while (!cr_take_all(c, cr_out(CR_CONSOLE)))
		cr_pump(c);

	cr_add(c, cr_in(CR_CONSOLE), CR_DATA, 100, false);
	assert_true(virtq_driver_add(&c->drivers[cr_in(CR_CONSOLE)], both, 2) >= 0);
	cr_type(c, CR_CONSOLE, "typed");
	while (c->ram[CR_DATA + 64] != 't')
		cr_pump(c);
	assert_memory_equal(c->ram + CR_DATA, "data", 4);
	assert_memory_equal(c->ram + CR_DATA + 64, "typed", 5);

	cr_add(c, CR_CONTROL_OUT, CR_DATA, 8, true); /* no message */
	cr_settle(c);
	assert_int_equal(c->log_lines, 1);
	assert_false(cr_status(c) & VIRTIO_CONFIG_S_NEEDS_RESET);
}

static void a_buffer_without_room_for_a_message(void **state)
{
	struct cr *c = *state;
	cr_start(c, true);
	cr_give(c, CR_CONTROL_IN, 1, 7);
	cr_settle(c);
	assert_false(cr_status(c) & VIRTIO_CONFIG_S_NEEDS_RESET);
	cr_say(c, 0, VIRTIO_CONSOLE_PORT_READY, 1);
	cr_settle(c);
	assert_true(cr_status(c) & VIRTIO_CONFIG_S_NEEDS_RESET);
	cr_start_all(c); /* and a reset makes it whole */
}

static void freed_with_everything_pending(void **state)
{
	struct cr *c = *state;
	cr_start_all(c);
	cr_type(c, CR_NAMED, "nobody takes this");
	send_pattern(c, CR_CONSOLE);
	cr_say(c, CR_CONSOLE, VIRTIO_CONSOLE_PORT_READY, 1);
	cr_settle(c);
	cr_renew_device(c);
	cr_settle(c);
}

/* --- all of it over each kind of ring --------------------------------------------------------------------------------
 */

static int setup_split(void **state)
{
	return cr_setup(state);
}

static int setup_event_idx(void **state)
{
	int r = cr_setup(state);
	((struct cr *)*state)->event_idx = true;
	return r;
}

static int setup_packed(void **state)
{
	int r = cr_setup(state);
	((struct cr *)*state)->packed = true;
	return r;
}

static int setup_packed_event_idx(void **state)
{
	int r = setup_packed(state);
	((struct cr *)*state)->event_idx = true;
	return r;
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup_event_idx, cr_teardown)
#define RING_TEST(fn)                                                                                                  \
	{#fn " (split)", fn, setup_split, cr_teardown, NULL},                                                          \
		{#fn " (split, EVENT_IDX)", fn, setup_event_idx, cr_teardown, NULL},                                   \
		{#fn " (packed)", fn, setup_packed, cr_teardown, NULL},                                                \
	{                                                                                                              \
#fn " (packed, EVENT_IDX)", fn, setup_packed_event_idx, cr_teardown, NULL                              \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(it_says_what_it_is),
		TEST(names_that_cannot_be),
		TEST(as_many_ports_as_there_may_be),
		RING_TEST(a_driver_is_told_of_its_ports),
		RING_TEST(messages_wait_for_buffers),
		TEST(a_buffer_too_small_for_a_name),
		TEST(a_peer_that_comes_and_goes_is_told),
		TEST(a_peer_that_comes_and_goes_while_nobody_listens),
		TEST(a_console_that_changes_its_size),
		TEST(its_size_is_in_the_configuration_too),
		RING_TEST(output_goes_where_it_should),
		RING_TEST(a_slow_reader_holds_its_guest_up),
		TEST(a_console_that_nobody_reads),
		TEST(a_console_while_the_loop_is_away),
		TEST(a_port_whose_output_is_discarded_is_open),
		RING_TEST(a_reset_forgets_what_was_half_sent),
		RING_TEST(a_chain_that_is_enormous),
		RING_TEST(input_waits_until_the_port_is_open),
		RING_TEST(input_waits_for_buffers),
		RING_TEST(a_long_input),
		RING_TEST(input_outlives_a_reset),
		TEST(output_at_a_rate),
		TEST(at_the_end_no_rate_holds_output_back),
		RING_TEST(input_at_a_rate),
		TEST(an_emergency_at_a_rate),
		TEST(a_driver_without_multiport_has_a_console),
		TEST(without_a_console_it_prints_for_nobody),
		TEST(what_the_status_lines_mean),
		TEST(a_status_ends_the_vm),
		TEST(a_status_comes_after_the_output),
		TEST(half_a_status_is_forgotten),
		TEST(a_line_without_an_end),
		TEST(a_character_in_an_emergency),
		TEST(messages_that_make_no_sense),
		TEST(a_port_that_the_driver_could_not_take),
		RING_TEST(chains_of_wrong_directions),
		TEST(a_buffer_without_room_for_a_message),
		RING_TEST(freed_with_everything_pending),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
