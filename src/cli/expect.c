#include "cli/expect.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/console_text.h"
#include "cli/pattern.h"

/* How many bytes of an unfinished line may be looked at again for each byte that came, and how much is saved up. */
enum { RESCAN_PER_BYTE = 8, RESCAN_SAVED_MAX_BYTES = 1 << 20 };

enum step_kind { STEP_PATTERN, STEP_SEND, STEP_SLEEP, STEP_FAIL_ON };

struct step {
	enum step_kind kind;
	struct pattern pattern; /* PATTERN, FAIL_ON */
	char *text;             /* SEND; allocated */
	size_t text_bytes;
	uint64_t ns;   /* SLEEP, and PATTERN's timeout */
	bool active;   /* FAIL_ON: it counts */
	size_t cursor; /* FAIL_ON: where in the line it began to count */
};

struct sequence {
	struct step *steps;
	size_t count;
	size_t at;              /* the step that is waited for; `count`: done */
	size_t cursor;          /* where in the line the next expectation begins to look */
	uint64_t not_before_ns; /* a sleep's end; 0: none */
	uint64_t late_ns;       /* when step `at` has failed; 0: never, or it has not begun */
	bool begun;             /* step `at` has its late_ns */
};

struct expect {
	struct expect_actions actions;
	/* The last holds the fail-ons that count from the beginning. */
	struct sequence sequences[EXPECT_SEQUENCES + 1];
	unsigned met, total;
	enum expect_verdict verdict;
	const char *decisive; /* the fail-on that was found, or the expectation that was late */
	char shown[EXPECT_SHOWN_MAX_BYTES + 1];

	struct console_text console;
	char line[EXPECT_LINE_MAX_BYTES + 1];
	size_t used;
	size_t scanned;    /* how much of the line has been looked at */
	bool cut;          /* its beginning is gone */
	bool quiet;        /* it has been looked at as a line that stands still */
	size_t saved;      /* rescans to spend, in bytes */
	uint64_t grown_ns; /* when the line last grew */
};

struct expect *expect_new(const struct expect_actions *actions)
{
	struct expect *expect = calloc(1, sizeof(*expect));

	if (expect) {
		expect->actions = *actions;
		expect->saved = RESCAN_SAVED_MAX_BYTES;
	}
	return expect;
}

static void free_step(struct step *step)
{
	if (step->kind == STEP_PATTERN || step->kind == STEP_FAIL_ON)
		pattern_fini(&step->pattern);
	free(step->text);
}

void expect_free(struct expect *expect)
{
	if (!expect)
		return;
	for (size_t s = 0; s <= EXPECT_SEQUENCES; s++) {
		for (size_t i = 0; i < expect->sequences[s].count; i++)
			free_step(&expect->sequences[s].steps[i]);
		free(expect->sequences[s].steps);
	}
	free(expect);
}

/* --- building -------------------------------------------------------------------------------------------- */

static int append(struct expect *expect, enum expect_sequence which, const struct step *step)
{
	struct sequence *sequence = &expect->sequences[which];
	struct step *grown = realloc(sequence->steps, (sequence->count + 1) * sizeof(*grown));

	if (!grown)
		return -ENOMEM;
	sequence->steps = grown;
	grown[sequence->count++] = *step;
	return 0;
}

static int append_pattern(struct expect *expect, enum expect_sequence which, struct step *step, const char *pattern,
			  char *ret_why, size_t why_size)
{
	int r = pattern_init(&step->pattern, pattern, ret_why, why_size);

	if (r < 0)
		return r;
	r = append(expect, which, step);
	if (r < 0)
		pattern_fini(&step->pattern);
	return r;
}

int expect_add_pattern(struct expect *expect, enum expect_sequence sequence, const char *pattern, uint64_t timeout_ns,
		       char *ret_why, size_t why_size)
{
	struct step step = {.kind = STEP_PATTERN, .ns = timeout_ns};
	int r = append_pattern(expect, sequence, &step, pattern, ret_why, why_size);

	if (r == 0 && sequence == EXPECT_DIALOGUE)
		expect->total++;
	return r;
}

int expect_add_fail_on(struct expect *expect, enum expect_sequence sequence, const char *pattern, char *ret_why,
		       size_t why_size)
{
	struct step step = {.kind = STEP_FAIL_ON, .active = sequence == EXPECT_SEQUENCES};

	return append_pattern(expect, sequence, &step, pattern, ret_why, why_size);
}

int expect_add_send(struct expect *expect, enum expect_sequence sequence, const char *text, size_t size_bytes)
{
	struct step step = {.kind = STEP_SEND, .text = malloc(size_bytes + 1), .text_bytes = size_bytes};
	int r;

	if (!step.text)
		return -ENOMEM;
	memcpy(step.text, text, size_bytes);
	r = append(expect, sequence, &step);
	if (r < 0)
		free(step.text);
	return r;
}

int expect_add_sleep(struct expect *expect, enum expect_sequence sequence, uint64_t ns)
{
	return append(expect, sequence, &(struct step){.kind = STEP_SLEEP, .ns = ns});
}

/* --- looking --------------------------------------------------------------------------------------------- */

/* A view of the line: from the beginning of it to `used`, with `flags` for its end. */
static bool find(const struct expect *expect, const struct pattern *pattern, size_t from, int flags, size_t *ret_end)
{
	size_t end = 0;

	if (from > 0 || expect->cut)
		flags |= REG_NOTBOL;
	if (!pattern_find(pattern, expect->line + from, flags, &end))
		return false;
	*ret_end = from + end;
	return true;
}

static uint64_t later(uint64_t base_ns, uint64_t ns)
{
	return ns > UINT64_MAX - base_ns ? UINT64_MAX : base_ns + ns;
}

static bool is_asleep(const struct sequence *sequence, uint64_t now_ns)
{
	return now_ns < sequence->not_before_ns;
}

/* Begin the time of an expectation, which a sleep before it does not use up. */
static void begin_pattern(struct sequence *sequence, uint64_t now_ns)
{
	const struct step *step = &sequence->steps[sequence->at];
	uint64_t base = now_ns > sequence->not_before_ns ? now_ns : sequence->not_before_ns;

	if (sequence->begun)
		return;
	sequence->begun = true;
	sequence->late_ns = step->ns != 0 ? later(base, step->ns) : 0;
}

/* True when the step is done without waiting for the console. */
static bool perform(struct expect *expect, struct sequence *sequence, uint64_t now_ns)
{
	struct step *step = &sequence->steps[sequence->at];

	switch (step->kind) {
	case STEP_SLEEP:
		if (is_asleep(sequence, now_ns))
			sequence->not_before_ns = later(sequence->not_before_ns, step->ns);
		else
			sequence->not_before_ns = later(now_ns, step->ns);
		return true;
	case STEP_SEND:
		if (is_asleep(sequence, now_ns))
			return false;
		if (sequence->not_before_ns != 0)
			sequence->cursor = expect->used; /* what was shown while it slept is past */
		sequence->not_before_ns = 0;
		expect->actions.send(expect->actions.ctx, step->text, step->text_bytes);
		return true;
	case STEP_FAIL_ON:
		step->active = true;
		step->cursor = sequence->cursor;
		return true;
	case STEP_PATTERN:
	default:
		begin_pattern(sequence, now_ns);
		return false;
	}
}

static void perform_all(struct expect *expect, struct sequence *sequence, uint64_t now_ns)
{
	while (sequence->at < sequence->count && perform(expect, sequence, now_ns))
		sequence->at++;
}

static bool is_waiting_for_pattern(const struct sequence *sequence)
{
	return sequence->at < sequence->count && sequence->steps[sequence->at].kind == STEP_PATTERN;
}

static void advance(struct expect *expect, enum expect_sequence which, int flags, uint64_t now_ns)
{
	struct sequence *sequence = &expect->sequences[which];

	perform_all(expect, sequence, now_ns);
	while (is_waiting_for_pattern(sequence)) {
		const struct pattern *pattern = &sequence->steps[sequence->at].pattern;

		if (!find(expect, pattern, sequence->cursor, flags, &sequence->cursor))
			return;
		sequence->at++;
		sequence->begun = false;
		sequence->late_ns = 0;
		if (which == EXPECT_DIALOGUE) {
			expect->met++;
			expect->actions.met(expect->actions.ctx, pattern->text);
		}
		perform_all(expect, sequence, now_ns);
	}
}

/* The fail-on that is found first in the line, or NULL. */
static const struct step *find_fail_on(const struct expect *expect, int flags, size_t *ret_end)
{
	const struct step *first = NULL;
	size_t end = 0;

	for (size_t s = 0; s <= EXPECT_SEQUENCES; s++) {
		const struct sequence *sequence = &expect->sequences[s];

		for (size_t i = 0; i < sequence->count; i++) {
			const struct step *step = &sequence->steps[i];

			if (step->kind != STEP_FAIL_ON || !step->active ||
			    !find(expect, &step->pattern, step->cursor, flags, &end))
				continue;
			if (!first || end < *ret_end) {
				first = step;
				*ret_end = end;
			}
		}
	}
	return first;
}

static void decide(struct expect *expect, enum expect_verdict verdict, const char *pattern)
{
	expect->verdict = verdict;
	expect->decisive = pattern;
}

static bool dialogue_is_over(const struct expect *expect, uint64_t now_ns)
{
	const struct sequence *dialogue = &expect->sequences[EXPECT_DIALOGUE];

	return expect->total > 0 && dialogue->at == dialogue->count && !is_asleep(dialogue, now_ns);
}

static void fail_on(struct expect *expect, const struct step *step, size_t end)
{
	size_t from = end > EXPECT_SHOWN_MAX_BYTES ? end - EXPECT_SHOWN_MAX_BYTES : 0;
	size_t size = expect->used - from;

	if (size > EXPECT_SHOWN_MAX_BYTES)
		size = EXPECT_SHOWN_MAX_BYTES;
	memcpy(expect->shown, expect->line + from, size);
	expect->shown[size] = '\0';
	decide(expect, EXPECT_FAILED, step->pattern.text);
}

/* Of an expectation and a fail-on in the same line the one that ends first counts. */
static void scan(struct expect *expect, int flags, uint64_t now_ns)
{
	const struct step *step;
	size_t end = 0;

	expect->line[expect->used] = '\0';
	expect->scanned = expect->used;
	advance(expect, EXPECT_REPLIES, flags, now_ns);
	advance(expect, EXPECT_DIALOGUE, flags, now_ns);
	step = find_fail_on(expect, flags, &end);
	if (dialogue_is_over(expect, now_ns) && !(step && end < expect->sequences[EXPECT_DIALOGUE].cursor))
		decide(expect, EXPECT_MET, NULL);
	else if (step)
		fail_on(expect, step, end);
}

/* --- the line -------------------------------------------------------------------------------------------- */

/* Forget the line's first bytes; what began to look in them looks at what is left. */
static void drop(struct expect *expect, size_t size)
{
	memmove(expect->line, expect->line + size, expect->used - size);
	expect->used -= size;
	expect->scanned -= expect->scanned < size ? expect->scanned : size;
	for (size_t s = 0; s <= EXPECT_SEQUENCES; s++) {
		struct sequence *sequence = &expect->sequences[s];

		sequence->cursor -= sequence->cursor < size ? sequence->cursor : size;
		for (size_t i = 0; i < sequence->count; i++)
			sequence->steps[i].cursor -=
				sequence->steps[i].cursor < size ? sequence->steps[i].cursor : size;
	}
}

static void end_line(struct expect *expect, uint64_t now_ns)
{
	scan(expect, 0, now_ns);
	drop(expect, expect->used);
	expect->cut = false;
}

static void add_byte(struct expect *expect, uint8_t byte, uint64_t now_ns)
{
	byte = console_text_next(&expect->console, byte);
	if (byte == '\n') {
		end_line(expect, now_ns);
	} else if (byte != 0) {
		expect->line[expect->used++] = (char)byte;
		if (expect->used < EXPECT_LINE_MAX_BYTES)
			return;
		scan(expect, REG_NOTEOL, now_ns);
		drop(expect, expect->used - EXPECT_OVERLAP_BYTES);
		expect->cut = true;
	}
}

/* Look at an unfinished line, but not so often that many short pieces would cost the square of its length. */
static void scan_unfinished(struct expect *expect, uint64_t now_ns)
{
	if (expect->verdict != EXPECT_OPEN || expect->used == expect->scanned || expect->saved < expect->used)
		return;
	expect->saved -= expect->used;
	scan(expect, REG_NOTEOL, now_ns);
}

void expect_feed(struct expect *expect, const uint8_t *data, size_t size_bytes, uint64_t now_ns)
{
	for (size_t i = 0; i < size_bytes && expect->verdict == EXPECT_OPEN; i++)
		add_byte(expect, data[i], now_ns);
	expect->saved += size_bytes > RESCAN_SAVED_MAX_BYTES ? RESCAN_SAVED_MAX_BYTES : size_bytes * RESCAN_PER_BYTE;
	if (expect->saved > RESCAN_SAVED_MAX_BYTES)
		expect->saved = RESCAN_SAVED_MAX_BYTES;
	expect->grown_ns = now_ns;
	expect->quiet = false;
	scan_unfinished(expect, now_ns);
}

/* --- time ------------------------------------------------------------------------------------------------ */

static void look_if_late(struct expect *expect, uint64_t now_ns)
{
	for (size_t s = 0; s < EXPECT_SEQUENCES; s++) {
		const struct sequence *sequence = &expect->sequences[s];

		if (expect->verdict == EXPECT_OPEN && sequence->late_ns != 0 && now_ns >= sequence->late_ns)
			decide(expect, EXPECT_LATE, sequence->steps[sequence->at].pattern.text);
	}
}

void expect_tick(struct expect *expect, uint64_t now_ns)
{
	if (expect->verdict != EXPECT_OPEN)
		return;
	if (expect->used > 0 && !expect->quiet && now_ns >= later(expect->grown_ns, EXPECT_QUIET_NS)) {
		expect->quiet = true;
		scan(expect, 0, now_ns);
	} else {
		scan(expect, REG_NOTEOL, now_ns);
	}
	look_if_late(expect, now_ns);
	for (size_t s = 0; s < EXPECT_SEQUENCES; s++)
		if (!is_asleep(&expect->sequences[s], now_ns))
			expect->sequences[s].not_before_ns = 0;
}

static uint64_t sooner(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

uint64_t expect_deadline(const struct expect *expect)
{
	uint64_t deadline = UINT64_MAX;

	if (expect->verdict != EXPECT_OPEN)
		return deadline;
	if (expect->used > 0 && !expect->quiet)
		deadline = later(expect->grown_ns, EXPECT_QUIET_NS);
	for (size_t s = 0; s < EXPECT_SEQUENCES; s++) {
		const struct sequence *sequence = &expect->sequences[s];

		if (sequence->late_ns != 0)
			deadline = sooner(deadline, sequence->late_ns);
		if (sequence->not_before_ns != 0 && !is_waiting_for_pattern(sequence))
			deadline = sooner(deadline, sequence->not_before_ns);
	}
	return deadline;
}

void expect_end(struct expect *expect, uint64_t now_ns)
{
	if (expect->verdict != EXPECT_OPEN)
		return;
	for (size_t s = 0; s < EXPECT_SEQUENCES; s++)
		expect->sequences[s].not_before_ns = 0;
	scan(expect, expect->used > 0 ? 0 : REG_NOTEOL, now_ns);
}

/* --- what came of it -------------------------------------------------------------------------------------- */

enum expect_verdict expect_verdict(const struct expect *expect)
{
	return expect->verdict;
}

void expect_summarize(const struct expect *expect, struct expect_summary *ret_summary)
{
	const struct sequence *dialogue = &expect->sequences[EXPECT_DIALOGUE];

	*ret_summary = (struct expect_summary){
		.met = expect->met, .total = expect->total, .pattern = expect->decisive, .line = expect->shown};
	if (expect->verdict != EXPECT_OPEN)
		return;
	for (size_t i = dialogue->at; i < dialogue->count && !ret_summary->pattern; i++)
		if (dialogue->steps[i].kind == STEP_PATTERN)
			ret_summary->pattern = dialogue->steps[i].pattern.text;
}
