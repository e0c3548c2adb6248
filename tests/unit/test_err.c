/* Errors: a code for the program, a sentence for the person. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "err.h"

static void filled_once_and_returned(void **state)
{
	(void)state;
	struct err err = {0};
	assert_int_equal(err_set(&err, -ENOENT, "open '%s': %d", "x", 7), -ENOENT);
	assert_int_equal(err.code, -ENOENT);
	assert_int_equal(err.kind, ERR_HOST);
	assert_string_equal(err.text, "open 'x': 7");

	assert_int_equal(err_config(&err, -EINVAL, "bad"), -EINVAL);
	assert_int_equal(err.kind, ERR_CONFIG);
	assert_int_equal(err_kvm(&err, -ENOTSUP, "worse"), -ENOTSUP);
	assert_int_equal(err.kind, ERR_KVM);
	assert_string_equal(err.text, "worse");
}

static void null_is_accepted(void **state)
{
	(void)state;
	assert_int_equal(err_set(NULL, -ENOENT, "x"), -ENOENT);
	assert_int_equal(err_config(NULL, -EINVAL, "x"), -EINVAL);
	assert_int_equal(err_kvm(NULL, -EIO, "x"), -EIO);
	assert_int_equal(err_wrap(NULL, "x"), -EIO);
}

static void a_long_sentence_is_cut(void **state)
{
	(void)state;
	char words[1000];
	memset(words, 'w', sizeof(words));
	words[sizeof(words) - 1] = 0;
	struct err err;
	err_set(&err, -EIO, "%s", words);
	assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
}

static void wrap_puts_context_in_front(void **state)
{
	(void)state;
	struct err err;
	err_config(&err, -ENOEXEC, "not a kernel");
	assert_int_equal(err_wrap(&err, "kernel '%s'", "/boot/x"), -ENOEXEC);
	assert_string_equal(err.text, "kernel '/boot/x': not a kernel");
	assert_int_equal(err.kind, ERR_CONFIG);
	assert_int_equal(err.code, -ENOEXEC);

	/* The context may quote the sentence itself. */
	err_set(&err, -EIO, "inner");
	err_wrap(&err, "<%s>", err.text);
	assert_string_equal(err.text, "<inner>: inner");
}

/* Whatever the lengths: terminated, within bounds, and never less than one of the two parts. */
static void wrap_at_every_length(void **state)
{
	(void)state;
	char context[600];
	for (size_t length = 0; length < sizeof(context); length++) {
		memset(context, 'c', length);
		context[length] = 0;
		struct {
			struct err err;
			uint64_t canary;
		} guarded = {.canary = 0x5a5a5a5a5a5a5a5a};
		err_set(&guarded.err, -EIO, "reason");
		assert_int_equal(err_wrap(&guarded.err, "%s", context), -EIO);
		assert_true(guarded.canary == 0x5a5a5a5a5a5a5a5a);
		assert_non_null(memchr(guarded.err.text, 0, sizeof(guarded.err.text)));
		if (length < sizeof(guarded.err.text))
			assert_memory_equal(guarded.err.text, context, length);
		else
			assert_string_equal(guarded.err.text, "reason");
		if (length + strlen(": reason") < sizeof(guarded.err.text))
			assert_string_equal(guarded.err.text + length, ": reason");
	}
}

static void names_have_either_sign(void **state)
{
	(void)state;
	assert_string_equal(err_name(-ENOENT), strerror(ENOENT));
	assert_string_equal(err_name(ENOENT), "No such file or directory");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(filled_once_and_returned), cmocka_unit_test(null_is_accepted),
		cmocka_unit_test(a_long_sentence_is_cut),   cmocka_unit_test(wrap_puts_context_in_front),
		cmocka_unit_test(wrap_at_every_length),     cmocka_unit_test(names_have_either_sign),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
