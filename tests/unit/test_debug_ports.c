/* pvpanic, debug-exit and debug console. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "devices/debug_exit.h"
#include "devices/debugcon.h"
#include "devices/pvpanic.h"
#include "util.h"

struct chr {
	uint8_t out[8];
	size_t size_bytes;
};

size_t chr_write(struct chr *chr, const uint8_t *data, size_t size_bytes)
{
	size_t taken = min_u64(size_bytes, sizeof(chr->out) - chr->size_bytes);

	memcpy(chr->out + chr->size_bytes, data, taken);
	chr->size_bytes += taken;
	return taken;
}

/* Never called; here so that chr.c is not linked. */
void chr_set_client(struct chr *chr, const struct chr_client *client)
{
	(void)chr, (void)client;
	fail();
}

void chr_accept_input(struct chr *chr)
{
	(void)chr;
	fail();
}

struct seen {
	unsigned count;
	enum guest_event event;
	uint32_t value;
};

static void on_event(void *ctx, enum guest_event event, uint32_t value)
{
	struct seen *seen = ctx;

	seen->count++;
	seen->event = event;
	seen->value = value;
}

static void test_pvpanic(void **state)
{
	struct seen seen = {0};
	struct device *dev = pvpanic_new((struct guest_event_sink){on_event, &seen}, NULL);

	(void)state;
	assert_int_equal(device_read(dev, 0, 1), 3);
	assert_int_equal(device_read(dev, 0, 2), 0xffff);
	device_write(dev, 0, 1, 0);
	device_write(dev, 0, 1, 0xfe);
	device_write(dev, 0, 4, 1);
	assert_int_equal(seen.count, 0);
	device_write(dev, 0, 1, 1);
	assert_int_equal(seen.count, 1);
	assert_int_equal(seen.event, GUEST_EVENT_PANIC);
	device_write(dev, 0, 1, 3);
	assert_int_equal(seen.count, 2);
	device_free(dev);
}

static void test_debug_exit(void **state)
{
	struct seen seen = {0};
	struct device *dev = debug_exit_new((struct guest_event_sink){on_event, &seen}, NULL);
	const unsigned sizes[] = {1, 2, 4};

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
		assert_int_equal(device_read(dev, 0, sizes[i]), 0);
		device_write(dev, 0, sizes[i], 0xabcdef00 | (i + 40));
		assert_int_equal(seen.count, i + 1);
		assert_int_equal(seen.event, GUEST_EVENT_DEBUG_EXIT);
		assert_int_equal(seen.value, i + 40);
	}
	device_write(dev, 1, 1, 1);
	assert_int_equal(seen.count, 3);
	device_free(dev);
}

static void test_debugcon(void **state)
{
	struct chr chr = {0};
	struct device *dev = debugcon_new(&chr, NULL);

	(void)state;
	assert_int_equal(device_read(dev, 0, 1), 0xe9);
	for (const char *c = "0123456789"; *c; c++)
		device_write(dev, 0, 1, (uint8_t)*c);
	assert_int_equal(chr.size_bytes, sizeof(chr.out));
	assert_memory_equal(chr.out, "01234567", sizeof(chr.out)); /* what does not fit is dropped */
	device_free(dev);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pvpanic),
		cmocka_unit_test(test_debug_exit),
		cmocka_unit_test(test_debugcon),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
