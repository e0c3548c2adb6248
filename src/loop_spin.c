/*
 * Looking before sleeping.
 *
 * Theory of operation. To sleep and be woken costs microseconds on both sides: the guest leaves its CPU to ring a
 * doorbell, and our thread has to be scheduled. A busy disk's next request or completion often comes sooner than that.
 * So while a poller is active the loop looks at its memory and at the completion queue for up to `spin_ns` before it
 * sleeps; a guest is not asked to ring meanwhile.
 *
 * How long pays off is learnt: an event for which we slept, but which came within the pollers' limit, would have been
 * seen; one that came later halves the time that we look, down to nothing. It is halved and not dropped, because a
 * thread that sleeps on a busy machine is woken late, and would never come out of that again. An idle disk costs
 * nothing: nobody looks before the first event; a slow one is soon slept for at once.
 *
 * The limit is the poller's, because to see everything at once has a price: what would have come together is done
 * one by one, and the CPU is not there for others. A disk's request is waited for; a stream of packets is not, and its
 * receiver wants the CPU (docs/benchmarks.md, "How long to look").
 */
#include "loop.h"

#include <sched.h>

#include "loop_ring.h"
#include "util.h"

static const uint64_t SPIN_MIN_NS = 4000;

void loop_start_polling(struct loop *loop, struct loop_poller *poller)
{
	if (poller->active)
		return;
	poller->active = true;
	poller->next = loop->pollers;
	loop->pollers = poller;
}

void loop_stop_polling(struct loop *loop, struct loop_poller *poller)
{
	if (!poller->active)
		return;
	poller->active = false;
	struct loop_poller **at = &loop->pollers;
	while (*at != poller)
		at = &(*at)->next;
	*at = poller->next;
}

/* With DEFER_TASKRUN a completion is in the queue only when we have asked for it; until then there is a flag. */
static bool has_completions(struct loop *loop)
{
	return io_uring_cq_ready(&loop->ring) || IO_URING_READ_ONCE(*loop->ring.sq.kflags) & IORING_SQ_TASKRUN;
}

static bool look(struct loop *loop)
{
	bool found = has_completions(loop);
	struct loop_poller *next;
	for (struct loop_poller *poller = loop->pollers; poller; poller = next) {
		next = poller->next;
		found |= poller->look(poller);
	}
	return found;
}

static uint64_t longest_limit_ns(const struct loop *loop)
{
	uint64_t limit_ns = 0;
	for (const struct loop_poller *poller = loop->pollers; poller; poller = poller->next)
		limit_ns = max_u64(limit_ns, poller->limit_ns);
	return limit_ns;
}

static bool look_for_a_while(struct loop *loop)
{
	uint64_t deadline_ns = loop_now_ns() + min_u64(loop->spin_ns, loop->spin_limit_ns);
	do {
		if (look(loop))
			return true;
		sched_yield(); /* the guest may have been put on this CPU, and what we wait for is its work */
	} while (loop_now_ns() < deadline_ns);
	return false;
}

static bool tell_pollers(struct loop *loop)
{
	bool found = false;
	while (loop->pollers) {
		struct loop_poller *poller = loop->pollers;
		loop_stop_polling(loop, poller);
		found |= poller->sleep(poller);
	}
	return found;
}

bool loop_spin(struct loop *loop, bool may_look)
{
	if (!loop->pollers)
		return false;
	bool nested = loop->calling;
	loop->calling = true; /* what they defer or submit, our caller sees to */
	bool found = false;
	loop->spin_limit_ns = longest_limit_ns(loop);
	if (may_look && loop->spin_ns) {
		io_uring_submit(&loop->ring); /* what is to complete meanwhile has to be on its way */
		found = look_for_a_while(loop);
	}
	if (!found)
		found = tell_pollers(loop);
	loop->calling = nested;
	return found;
}

void loop_glance(struct loop *loop)
{
	bool nested = loop->calling;
	loop->calling = true;
	(void)look(loop);
	loop->calling = nested;
}

void loop_spin_slept(struct loop *loop, uint64_t since_ns)
{
	uint64_t waited_ns = loop_now_ns() - since_ns;
	if (waited_ns <= loop->spin_limit_ns)
		loop->spin_ns = loop->spin_limit_ns;
	else
		loop->spin_ns = loop->spin_ns > SPIN_MIN_NS ? loop->spin_ns / 2 : 0;
}
