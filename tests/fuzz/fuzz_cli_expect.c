/*
 * A console of any bytes, watched: what is found does not depend on the pieces it came in, and a script of any bytes is
 * refused with a sentence or taken. The first byte: 0 is a script; else how large the pieces are.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cli/expect.h"
#include "cli/script.h"

enum { LOG_MAX_BYTES = 256 };

struct log {
	size_t used, sent; /* the two sequences of steps do not wait for each other, so each has its own order */
	char text[LOG_MAX_BYTES];
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes);

static void add_log(struct log *log, char c)
{
	if (log->used < LOG_MAX_BYTES)
		log->text[log->used++] = c;
}

static void on_send(void *ctx, const char *text, size_t size)
{
	struct log *log = ctx;

	(void)text;
	log->sent += size;
}

static void on_met(void *ctx, const char *pattern)
{
	add_log(ctx, pattern[0]);
}

static struct expect *make(struct log *log)
{
	/* None whose longest match could be longer once there is more of the line. */
	static const char *const patterns[] = {"ab", "c[0-9]d", "(x|y)z", "^ef", "g$", "a"};
	struct expect *expect = expect_new(&(struct expect_actions){.send = on_send, .met = on_met, .ctx = log});
	char why[64];

	if (!expect)
		abort();
	for (size_t i = 0; i < sizeof(patterns) / sizeof(patterns[0]); i++)
		if (expect_add_pattern(expect, EXPECT_DIALOGUE, patterns[i], 0, why, sizeof(why)) < 0)
			abort();
	if (expect_add_pattern(expect, EXPECT_REPLIES, "yz", 0, why, sizeof(why)) < 0 ||
	    expect_add_send(expect, EXPECT_REPLIES, "!", 1) < 0 ||
	    expect_add_fail_on(expect, EXPECT_SEQUENCES, "Q[0-9]R", why, sizeof(why)) < 0)
		abort();
	return expect;
}

static enum expect_verdict watch(struct log *log, const uint8_t *data, size_t size, size_t piece)
{
	struct expect *expect = make(log);
	struct expect_summary summary;
	enum expect_verdict verdict;

	for (size_t at = 0; at < size; at += piece)
		expect_feed(expect, data + at, size - at < piece ? size - at : piece, 0);
	expect_end(expect, 0);
	verdict = expect_verdict(expect);
	expect_summarize(expect, &summary);
	if (summary.met > summary.total || strlen(summary.line) > EXPECT_SHOWN_MAX_BYTES)
		abort();
	if (verdict == EXPECT_MET && (summary.met != summary.total || expect_deadline(expect) != UINT64_MAX))
		abort();
	expect_free(expect);
	return verdict;
}

static void watch_twice(const uint8_t *data, size_t size, size_t piece)
{
	struct log whole = {0}, pieces = {0};
	enum expect_verdict verdict = watch(&whole, data, size, SIZE_MAX / 2);

	if (watch(&pieces, data, size, piece) != verdict)
		abort();
	/* Once it has failed, what else was in the line does not matter. */
	if (verdict != EXPECT_FAILED && (whole.sent != pieces.sent || whole.used != pieces.used ||
					 memcmp(whole.text, pieces.text, whole.used) != 0))
		abort();
}

static void parse(const uint8_t *data, size_t size)
{
	struct log log = {0};
	struct expect *expect = expect_new(&(struct expect_actions){.send = on_send, .met = on_met, .ctx = &log});
	struct cli_error error = {0};

	if (!expect)
		abort();
	if (script_parse("script", (const char *)data, size, expect, &error) < 0) {
		if (error.text[0] == '\0')
			abort();
	} else {
		expect_tick(expect, 0);
		expect_feed(expect, (const uint8_t *)"login: ", 7, 0);
		expect_end(expect, 1);
	}
	expect_free(expect);
}

/* libc's compiler of expressions is not what is tested: a{999}{999}{999} is its user's own fault. */
static int has_braces(const uint8_t *data, size_t size)
{
	return memchr(data, '{', size) || size > 512;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
	if (size_bytes == 0)
		return 0;
	if (data[0] != 0)
		watch_twice(data + 1, size_bytes - 1, data[0]);
	else if (!has_braces(data + 1, size_bytes - 1))
		parse(data + 1, size_bytes - 1);
	return 0;
}
