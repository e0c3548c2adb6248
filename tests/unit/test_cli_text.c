/* What people read: the exit statuses, the help and the manual page say the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/device_option.h"
#include "cli/escape.h"
#include "cli/exit_status.h"
#include "cli/help.h"
#include "cli/options.h"

#ifndef MAN_PAGE
#define MAN_PAGE "docs/vmlet.1"
#endif

static char *read_file(FILE *file)
{
	char *text = calloc(1, 65536);

	assert_non_null(file);
	assert_non_null(text);
	assert_true(fread(text, 1, 65535, file) > 0);
	fclose(file);
	return text;
}

static char *read_help(const char *topic)
{
	FILE *file = tmpfile();
	struct cli_error error;

	assert_non_null(file);
	assert_int_equal(help_print(file, topic, &error), 0);
	rewind(file);
	return read_file(file);
}

static void drop_backslashes(char *text)
{
	char *to = text;

	for (; *text; text++)
		if (*text != '\\')
			*to++ = *text;
	*to = '\0';
}

static void test_man_page_has_the_exit_statuses(void **state)
{
	char *page = read_file(fopen(MAN_PAGE, "r"));
	char *section = strstr(page, ".Sh EXIT STATUS\n"), *at, *end;

	(void)state;
	assert_non_null(section);
	end = strstr(section, "\n.El\n");
	assert_non_null(end);
	*end = '\0';
	drop_backslashes(section);
	at = strstr(section, "\n.It ");
	for (const struct exit_status_entry *e = exit_status_table; e->label; e++) {
		char want[256];

		snprintf(want, sizeof(want), "\n.It %s\n%s", e->label, e->meaning);
		assert_non_null(at);
		assert_memory_equal(at, want, strlen(want));
		at = strstr(at + 1, "\n.It ");
	}
	assert_null(at);
	free(page);
}

static void test_man_page_has_the_options_and_keys(void **state)
{
	char *page = read_file(fopen(MAN_PAGE, "r"));

	(void)state;
	for (const struct option_spec *o = options_table; o->name; o++) {
		char want[128];

		snprintf(want, sizeof(want), "Fl Fl %s", o->name);
		assert_non_null(strstr(page, want));
		snprintf(want, sizeof(want), ".It Fl %c , Fl Fl %s", o->letter, o->name);
		if (o->letter)
			assert_non_null(strstr(page, want));
	}
	for (const struct escape_key *k = escape_keys; k->keys; k++) {
		assert_non_null(strstr(page, k->keys));
		assert_non_null(strstr(page, k->meaning));
	}
	assert_non_null(strstr(page, escape_literal_meaning));
	free(page);
}

static void test_man_page_has_the_settings(void **state)
{
	char *page = read_file(fopen(MAN_PAGE, "r"));

	(void)state;
	for (size_t i = 0; i < DEVICE_KINDS; i++) {
		const struct settings_kind *kind = device_kinds[i];
		char *help = read_help(kind->topic), *section, *end, want[128];

		/* Of each option the settings are described behind its name, and before another's. */
		snprintf(want, sizeof(want), "\nThe value of\n.Fl Fl %s\n", kind->option + 2);
		section = strstr(page, want);
		if (!section)
			fail_msg("the man page does not describe the value of %s", kind->option);
		section = strdup(section + 1);
		end = strstr(section, "\nThe value of\n.Fl Fl ");
		if (end)
			*end = '\0';
		for (const struct setting *s = kind->settings; s->name; s++) {
			snprintf(want, sizeof(want), "\n.It Cm %s", s->name);
			if (!strstr(section, want))
				fail_msg("the man page does not describe %s's %s", kind->option, s->name);
			assert_memory_equal(s->label, s->name, strlen(s->name));
			snprintf(want, sizeof(want), "\n  %s ", s->label);
			assert_non_null(strstr(help, want));
			assert_int_equal(s->accepts != NULL, s->value != SETTING_NONE);
		}
		free(section);
		free(help);
	}
	free(page);
}

static void test_labels_are_the_statuses(void **state)
{
	int last = -1;

	(void)state;
	for (const struct exit_status_entry *e = exit_status_table; e->label; e++) {
		if (e->status < 0)
			continue;
		assert_int_equal(atoi(e->label), e->status);
		assert_true(e->status > last);
		last = e->status;
	}
}

static void check_end(enum vmlet_end end, uint32_t value, const char *text, int status, const char *sentence)
{
	struct vmlet_result result = {.end = end, .value = value};
	char said[512];

	strcpy(result.text, text);
	assert_int_equal(exit_status_of_result(&result), status);
	assert_int_equal(exit_status_sentence(&result, said, sizeof(said)), sentence != NULL);
	if (sentence)
		assert_string_equal(said, sentence);
}

static void test_every_end(void **state)
{
	(void)state;
	check_end(VMLET_END_POWEROFF, 0, "", 0, "the guest powered off");
	check_end(VMLET_END_REBOOT, 0, "", 80, "the guest asked for a reset");
	check_end(VMLET_END_PANIC, 0, "", 81, "the guest's kernel panicked");
	check_end(VMLET_END_TRIPLE_FAULT, 0, "", 82, "the guest ended in a triple fault");
	check_end(VMLET_END_DEBUG_EXIT, 0, "", 0, NULL);
	check_end(VMLET_END_DEBUG_EXIT, 255, "", 255, "the guest wrote 255 to its debug-exit port");
	check_end(VMLET_END_STOPPED, 0, "", 85, "left with Ctrl-A x");
	check_end(VMLET_END_STOPPED, 15, "", 143, "ended by signal 15 (SIGTERM)");
	check_end(VMLET_END_STOPPED, 40, "", 168, "ended by signal 40");
	check_end(VMLET_END_KVM_ERROR, 0, "KVM: why", 83, "KVM: why");
	check_end(VMLET_END_HOST_ERROR, 0, "host: why", 1, "host: why");
	check_end(VMLET_END_HOST_ERROR, 0, "", 1, "the host failed under the VM");
	check_end(VMLET_END_TIMEOUT, 0, "it had not ended", 124, "it took longer than --timeout allows");
	check_end((enum vmlet_end)99, 0, "", 1, "the VM ended without saying how");
	check_end(VMLET_END_NONE, 0, "", 1, "the VM ended without saying how");
}

static void test_every_error_kind(void **state)
{
	(void)state;
	assert_int_equal(exit_status_of_error(&(struct vmlet_error){.kind = VMLET_ERROR_HOST}), 1);
	assert_int_equal(exit_status_of_error(&(struct vmlet_error){.kind = VMLET_ERROR_CONFIG}), 2);
	assert_int_equal(exit_status_of_error(&(struct vmlet_error){.kind = VMLET_ERROR_KVM}), 83);
}

static void test_help_fits_a_screen(void **state)
{
	static const char *const topics[] = {NULL,      "run",     "exec", "ci",          "disk",   "net",
					     "console", "devices", "keys", "exit-status", "kernels"};

	(void)state;
	for (size_t i = 0; i < sizeof(topics) / sizeof(topics[0]); i++) {
		char *text = read_help(topics[i]);
		unsigned lines = 0;

		for (char *line = text, *end; (end = strchr(line, '\n')); line = end + 1, lines++) {
			assert_in_range(end - line, 0, 80);
			assert_true(end == line || !isspace((unsigned char)end[-1]));
		}
		assert_in_range(lines, 3, 24);
		free(text);
	}
}

static void test_unknown_topic(void **state)
{
	struct cli_error error;

	(void)state;
	assert_int_equal(help_print(stdout, "key", &error), -EINVAL);
	assert_non_null(strstr(error.text, "did you mean keys?"));
	assert_int_equal(help_print(stdout, "nonsense", &error), -EINVAL);
	assert_non_null(strstr(error.text, "exit-status"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_man_page_has_the_exit_statuses),
		cmocka_unit_test(test_man_page_has_the_options_and_keys),
		cmocka_unit_test(test_man_page_has_the_settings),
		cmocka_unit_test(test_labels_are_the_statuses),
		cmocka_unit_test(test_every_end),
		cmocka_unit_test(test_every_error_kind),
		cmocka_unit_test(test_help_fits_a_screen),
		cmocka_unit_test(test_unknown_topic),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
