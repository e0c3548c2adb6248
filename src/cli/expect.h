/*
 * Watching a console for regular expressions, and answering it.
 *
 * Expressions are POSIX extended ones. They are matched against each line (without its newline, and as console_text.h
 * leaves it), and against the last line before it is finished: there '$' matches only once the line has stood still
 * for EXPECT_QUIET_NS, so that what is found does not depend on how the stream was cut into pieces. Of a line longer
 * than EXPECT_LINE_MAX_BYTES the beginning is forgotten; EXPECT_OVERLAP_BYTES of it are seen twice.
 *
 * There are two sequences of steps, the dialogue (--script and --expect) and the replies (--send). An expectation looks
 * at what comes after the match of the one before in its sequence. A sleep delays what is done next (a send, or the
 * success at the end), not what is looked for. The time of matching is linear in the stream, but for the expressions'
 * own. Pure: time is given, nothing is read or written.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { EXPECT_LINE_MAX_BYTES = 16384, EXPECT_OVERLAP_BYTES = 4096, EXPECT_SHOWN_MAX_BYTES = 256 };
enum { EXPECT_QUIET_NS = 100000000 };

enum expect_sequence { EXPECT_DIALOGUE, EXPECT_REPLIES, EXPECT_SEQUENCES };

enum expect_verdict {
	EXPECT_OPEN,
	EXPECT_MET,    /* the dialogue has an expectation, and has come to its end */
	EXPECT_FAILED, /* a fail-on was found */
	EXPECT_LATE,   /* an expectation was not met in its own time */
};

struct expect_actions {
	void (*send)(void *ctx, const char *text, size_t size_bytes);
	void (*met)(void *ctx, const char *pattern); /* an expectation of the dialogue */
	void *ctx;
};

struct expect;

/* NULL: no memory. `actions` are called from feed, tick and end. */
struct expect *expect_new(const struct expect_actions *actions);
void expect_free(struct expect *expect); /* NULL is accepted */

/*
 * Add a step. `timeout_ns` begins when the step does, 0: none. Everything is copied. 0, -ENOMEM, or -EINVAL with why
 * the expression cannot be in `ret_why`.
 */
int expect_add_pattern(struct expect *expect, enum expect_sequence sequence, const char *pattern, uint64_t timeout_ns,
		       char *ret_why, size_t why_size);
int expect_add_send(struct expect *expect, enum expect_sequence sequence, const char *text, size_t size_bytes);
int expect_add_sleep(struct expect *expect, enum expect_sequence sequence, uint64_t ns);
/* A fail-on as a step: it counts from then on. Without a sequence (EXPECT_SEQUENCES) it counts from the beginning. */
int expect_add_fail_on(struct expect *expect, enum expect_sequence sequence, const char *pattern, char *ret_why,
		       size_t why_size);

/* The console has printed this. Nothing is done once there is a verdict. */
void expect_feed(struct expect *expect, const uint8_t *data, size_t size_bytes, uint64_t now_ns);
/* To be called when the VM begins to run, and whenever expect_deadline is over. */
void expect_tick(struct expect *expect, uint64_t now_ns);
uint64_t expect_deadline(const struct expect *expect); /* UINT64_MAX: none */
/* Nothing more will be printed: the last line is as finished as it gets. */
void expect_end(struct expect *expect, uint64_t now_ns);

enum expect_verdict expect_verdict(const struct expect *expect);

struct expect_summary {
	unsigned met, total;
	const char *pattern; /* that was found but must not be, or that is waited for; NULL: none. Valid until free */
	const char *line;    /* where a fail-on was found, at most EXPECT_SHOWN_MAX_BYTES; "" */
};
void expect_summarize(const struct expect *expect, struct expect_summary *ret_summary);
