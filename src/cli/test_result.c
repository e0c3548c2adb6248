#include "cli/test_result.h"

#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "cli/test_text.h"

enum { REASON_MAX_BYTES = 32, SENTENCE_MAX_BYTES = 384 };

/* What the status file of a run says; "" where it says nothing. */
struct said {
	char reason[REASON_MAX_BYTES];
	char text[SENTENCE_MAX_BYTES];
};

static void set_reason(struct test_result *result, const char *text)
{
	char clean[sizeof(result->reason)];

	test_text_clean(text, strnlen(text, sizeof(clean) - 1), clean);
	snprintf(result->reason, sizeof(result->reason), "%s", clean);
}

static void fail(struct test_result *result, const char *text)
{
	result->outcome = TEST_FAILED;
	set_reason(result, text);
}

static void fail_without_status_file(const struct test_end *end, struct test_result *result)
{
	char text[sizeof(result->reason)];
	const char *colon = *end->complaint ? ": " : "";

	if (end->was_killed)
		snprintf(text, sizeof(text), "vmlet did not end in time after its timeout and was killed%s%s", colon,
			 end->complaint);
	else if (WIFSIGNALED(end->wait_status))
		snprintf(text, sizeof(text), "vmlet was killed by signal %d%s%s", WTERMSIG(end->wait_status), colon,
			 end->complaint);
	else
		snprintf(text, sizeof(text), "vmlet ended with status %d and without a status file%s%s",
			 WEXITSTATUS(end->wait_status), colon, end->complaint);
	fail(result, text);
}

/* A status other than 0 must be the guest's own: 1 is also what a host without KVM gives. */
static bool is_guests_own(const struct said *said)
{
	return strcmp(said->reason, "debug-exit") == 0 || strcmp(said->reason, "exit") == 0;
}

static bool is_expected(const struct test_case *test, unsigned status, const struct said *said)
{
	if (test->expected_reason)
		return strcmp(said->reason, test->expected_reason) == 0;
	return status == test->expected_status && (status == 0 || is_guests_own(said));
}

static void fail_with(const struct test_case *test, unsigned status, const struct said *said,
		      struct test_result *result)
{
	const char *colon = *said->text ? ": " : "";
	char wanted[32], text[sizeof(result->reason)];

	if (test->expected_reason)
		snprintf(wanted, sizeof(wanted), "%s", test->expected_reason);
	else
		snprintf(wanted, sizeof(wanted), "%u", test->expected_status);
	snprintf(text, sizeof(text), "status %u (%s) instead of %s%s%s", status, said->reason, wanted, colon,
		 said->text);
	fail(result, text);
}

void test_judge(const struct test_case *test, const struct test_end *end, struct test_result *result)
{
	struct said said = {0};
	unsigned status;

	if (end->was_killed || !WIFEXITED(end->wait_status) || !end->status_file ||
	    !test_json_string(end->status_file, "reason", said.reason, sizeof(said.reason))) {
		fail_without_status_file(end, result);
		return;
	}
	test_json_string(end->status_file, "text", said.text, sizeof(said.text));
	status = (unsigned)WEXITSTATUS(end->wait_status);
	if (!is_expected(test, status, &said)) {
		fail_with(test, status, &said, result);
		return;
	}
	result->outcome = TEST_PASSED;
	result->reason[0] = '\0';
}

void test_skip(struct test_result *result, const char *why)
{
	result->outcome = TEST_SKIPPED;
	set_reason(result, why);
}
