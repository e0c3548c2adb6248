/*
 * A driver and a device on two threads that sleep whenever they are allowed to: each chain arrives whole, and nobody
 * sleeps for ever because a doorbell or an interrupt was spared once too often.
 */
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <time.h>

#include "virtq_fixture.h"

enum { CHAINS = 20000, PATIENCE_SECONDS = 20 };

struct pair {
	struct fixture f;
	sem_t doorbell, interrupt;
	bool device_ok;
};

static bool sleep_on(sem_t *sem)
{
	struct timespec end;
	clock_gettime(CLOCK_REALTIME, &end);
	end.tv_sec += PATIENCE_SECONDS;
	int r;
	while ((r = sem_timedwait(sem, &end)) < 0 && errno == EINTR)
		;
	return r == 0;
}

/* Each chain carries its number, and comes back with it. */
static bool serve(struct pair *p, uint32_t *number)
{
	struct virtq_chain chain;
	int r;
	virtq_disable_doorbell(p->f.q);
	while ((r = virtq_pop(p->f.q, &chain)) == 1) {
		uint32_t seen = 0;
		if (iov_read(chain.iov, chain.out_count, 0, &seen, sizeof(seen)) != sizeof(seen) || seen != *number)
			return false;
		virtq_push(p->f.q, chain.id, chain.descriptors, (*number)++);
		if (*number % 3 == 0 && virtq_wants_interrupt(p->f.q))
			sem_post(&p->interrupt);
	}
	if (virtq_wants_interrupt(p->f.q))
		sem_post(&p->interrupt);
	return r == 0;
}

static void *run_device(void *arg)
{
	struct pair *p = arg;
	uint32_t number = 0;
	p->device_ok = true;
	while (p->device_ok && number < CHAINS) {
		p->device_ok = serve(p, &number);
		if (number < CHAINS && p->device_ok && !virtq_enable_doorbell(p->f.q))
			p->device_ok = sleep_on(&p->doorbell);
	}
	return NULL;
}

static uint32_t send_all(struct pair *p, uint32_t number)
{
	struct virtq_driver *d = &p->f.driver;
	for (; number < CHAINS && d->free_count > 0; number++) {
		struct virtq_buffer buffer = {FIXTURE_DATA + 8U * virtq_driver_next_id(d), 4, false};
		gmem_write(p->f.gmem, buffer.gpa, &number, 4);
		if (virtq_driver_add(d, &buffer, 1) < 0)
			break;
	}
	if (virtq_driver_rings(d))
		sem_post(&p->doorbell);
	return number;
}

static bool run_driver(struct pair *p)
{
	struct virtq_driver *d = &p->f.driver;
	uint32_t sent = 0, taken = 0, written;
	uint16_t id;
	while (taken < CHAINS) {
		sent = send_all(p, sent);
		virtq_driver_disable_interrupts(d);
		for (; virtq_driver_take(d, &id, &written); taken++) {
			if (written != taken)
				return false;
		}
		if (taken < sent && !virtq_driver_enable_interrupts(d) && !sleep_on(&p->interrupt))
			return false;
	}
	return true;
}

static void nobody_sleeps_for_ever(void **state)
{
	static struct pair pair;
	struct pair *p = &pair;
	fixture_init(&p->f, *state);
	sem_init(&p->doorbell, 0, 0);
	sem_init(&p->interrupt, 0, 0);

	pthread_t device;
	assert_int_equal(pthread_create(&device, NULL, run_device, p), 0);
	bool driver_ok = run_driver(p);
	pthread_join(device, NULL);
	assert_true(driver_ok);
	assert_true(p->device_ok);

	sem_destroy(&p->doorbell);
	sem_destroy(&p->interrupt);
	fixture_fini(&p->f);
}

/* --- what belongs together -------------------------------------------------------------------------------------- */

enum { TOGETHER = 3, GROUPS = 3000 };

static void *push_groups(void *arg)
{
	struct pair *p = arg;
	for (unsigned group = 0; group < GROUPS; group++) {
		struct virtq_used used[TOGETHER];
		for (unsigned i = 0; i < TOGETHER;) {
			struct virtq_chain chain;
			if (virtq_pop(p->f.q, &chain) == 1)
				used[i++] = (struct virtq_used){chain.id, chain.descriptors, group};
			else
				sched_yield();
		}
		virtq_push_many(p->f.q, used, TOGETHER);
	}
	return NULL;
}

/* With the first of a group all of it is there. */
static void groups_come_whole(void **state)
{
	static struct pair pair;
	struct pair *p = &pair;
	struct virtq_driver *d = &p->f.driver;
	fixture_init(&p->f, *state);
	pthread_t device;
	assert_int_equal(pthread_create(&device, NULL, push_groups, p), 0);
	unsigned sent = 0, torn = 0, wrong = 0;
	for (unsigned group = 0; group < GROUPS; group++) {
		for (; sent < GROUPS * TOGETHER && d->free_count > 0; sent++)
			assert_true(fixture_add(&p->f, 4) >= 0);
		while (!virtq_driver_has_used(d))
			sched_yield();
		for (unsigned i = 0; i < TOGETHER; i++) {
			uint16_t id;
			uint32_t written = 0;
			while (!virtq_driver_take(d, &id, &written))
				torn++;
			wrong += written != group;
		}
	}
	pthread_join(device, NULL);
	assert_int_equal(torn, 0);
	assert_int_equal(wrong, 0);
	fixture_fini(&p->f);
}

static struct virtq_config split_event = {.size = 8, .event_idx = true};
static struct virtq_config packed_event = {.size = 7, .event_idx = true, .packed = true};
static struct virtq_config split_flags = {.size = 2};
static struct virtq_config packed_flags = {.size = 3, .packed = true};

int main(void)
{
	const struct CMUnitTest tests[] = {
		{"split", nobody_sleeps_for_ever, NULL, NULL, &split_event},
		{"packed", nobody_sleeps_for_ever, NULL, NULL, &packed_event},
		{"split, flags", nobody_sleeps_for_ever, NULL, NULL, &split_flags},
		{"packed, flags", nobody_sleeps_for_ever, NULL, NULL, &packed_flags},
		{"groups, split", groups_come_whole, NULL, NULL, &split_event},
		{"groups, packed", groups_come_whole, NULL, NULL, &packed_event},
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
