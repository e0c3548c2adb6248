/* Bytes in scattered memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "iov.h"
#include "util.h"

static void spans_against_a_flat_copy(void **state)
{
	(void)state;
	uint8_t memory[64], data[80], flat[64];
	const struct iovec iov[] = {{memory + 40, 3}, {memory, 0}, {memory + 10, 20}, {memory + 60, 1}, {memory, 0}};
	const unsigned count = ARRAY_SIZE(iov);
	for (unsigned i = 0; i < sizeof(memory); i++)
		memory[i] = (uint8_t)(i + 1);
	memcpy(flat, memory + 40, 3);
	memcpy(flat + 3, memory + 10, 20);
	flat[23] = memory[60];

	for (size_t skip = 0; skip < 30; skip++) {
		for (size_t size = 0; size < 30; size++) {
			size_t expected = skip >= 24 ? 0 : min_u64(size, 24 - skip);
			memset(data, 0, sizeof(data));
			assert_int_equal(iov_read(iov, count, skip, data, size), expected);
			assert_memory_equal(data, flat + skip, expected);
			assert_int_equal(data[expected], 0);

			struct iovec slice[5];
			unsigned slices = iov_slice(iov, count, skip, size, slice, count);
			assert_true(slices <= count);
			struct iovec in_place[5];
			memcpy(in_place, iov, sizeof(iov));
			assert_int_equal(iov_slice(in_place, count, skip, size, in_place, count), slices);
			assert_memory_equal(in_place, slice, slices * sizeof(slice[0]));
			memset(data, 0, sizeof(data));
			assert_int_equal(iov_read(slice, slices, 0, data, sizeof(data)), expected);
			assert_memory_equal(data, flat + skip, expected);

			uint8_t saved[64];
			memcpy(saved, memory, sizeof(memory));
			uint8_t fresh[30];
			memset(fresh, 0xee, sizeof(fresh));
			assert_int_equal(iov_write(iov, count, skip, fresh, size), expected);
			unsigned changed = 0;
			for (unsigned i = 0; i < sizeof(memory); i++)
				changed += memory[i] != saved[i];
			assert_int_equal(changed, expected);
			memset(data, 0, sizeof(data));
			iov_read(iov, count, skip, data, expected);
			assert_memory_equal(data, fresh, expected);
			memcpy(memory, saved, sizeof(memory));
		}
	}
	assert_int_equal(iov_read(NULL, 0, 0, data, 4), 0);
	assert_int_equal(iov_slice(iov, count, SIZE_MAX, SIZE_MAX, NULL, count), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(spans_against_a_flat_copy),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
