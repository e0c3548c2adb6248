#include "loop_timers.h"

#include <errno.h>
#include <sys/timerfd.h>
#include <time.h>

#include "fd.h"
#include "util.h"

static const uint64_t NS_PER_S = 1000000000;

uint64_t loop_now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

int loop_timers_init(struct loop_timers *timers)
{
	*timers = (struct loop_timers){0};
	pthread_mutex_init(&timers->mutex, NULL);
	timers->fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	return timers->fd < 0 ? -errno : 0;
}

void loop_timers_fini(struct loop_timers *timers)
{
	fd_close(&timers->fd);
	pthread_mutex_destroy(&timers->mutex);
}

/* Deadlines are absolute, so one that has passed fires at once. Called with the mutex held. */
static void set_timerfd(struct loop_timers *timers)
{
	uint64_t deadline = timers->armed ? timers->armed->deadline_ns : 0;
	struct itimerspec spec = {
		.it_value = {.tv_sec = (time_t)(deadline / NS_PER_S), .tv_nsec = (long)(deadline % NS_PER_S)}};
	timerfd_settime(timers->fd, TFD_TIMER_ABSTIME, &spec, NULL);
}

static bool unlink_from(struct loop_timer **list, const struct loop_timer *timer)
{
	while (*list && *list != timer)
		list = &(*list)->next;
	if (!*list)
		return false;
	*list = timer->next;
	return true;
}

static void unlink_timer(struct loop_timers *timers, struct loop_timer *timer)
{
	if (!unlink_from(&timers->armed, timer))
		(void)unlink_from(&timers->expired, timer);
	timer->deadline_ns = 0;
}

void loop_timers_arm(struct loop_timers *timers, struct loop_timer *timer, uint64_t deadline_ns)
{
	pthread_mutex_lock(&timers->mutex);
	if (timer->deadline_ns)
		unlink_timer(timers, timer);
	timer->deadline_ns = max_u64(deadline_ns, 1);
	struct loop_timer **at = &timers->armed;
	while (*at && (*at)->deadline_ns <= timer->deadline_ns)
		at = &(*at)->next;
	timer->next = *at;
	*at = timer;
	if (timers->armed == timer)
		set_timerfd(timers);
	pthread_mutex_unlock(&timers->mutex);
}

void loop_timers_disarm(struct loop_timers *timers, struct loop_timer *timer)
{
	pthread_mutex_lock(&timers->mutex);
	if (timer->deadline_ns) {
		unlink_timer(timers, timer);
		set_timerfd(timers);
	}
	pthread_mutex_unlock(&timers->mutex);
}

/* Set those apart whose time has come: what a callback arms, however early, waits for the next round. */
static void collect_expired(struct loop_timers *timers)
{
	pthread_mutex_lock(&timers->mutex);
	uint64_t now_ns = loop_now_ns();
	struct loop_timer **tail = &timers->expired, *timer;
	while (*tail)
		tail = &(*tail)->next;
	while ((timer = timers->armed) && timer->deadline_ns <= now_ns) {
		timers->armed = timer->next;
		timer->next = NULL;
		*tail = timer;
		tail = &timer->next;
	}
	set_timerfd(timers);
	pthread_mutex_unlock(&timers->mutex);
}

static struct loop_timer *pop_expired(struct loop_timers *timers)
{
	pthread_mutex_lock(&timers->mutex);
	struct loop_timer *timer = timers->expired;
	if (timer) {
		timers->expired = timer->next;
		timer->deadline_ns = 0;
	}
	pthread_mutex_unlock(&timers->mutex);
	return timer;
}

void loop_timers_run(struct loop_timers *timers)
{
	collect_expired(timers);
	struct loop_timer *timer;
	while ((timer = pop_expired(timers)))
		timer->fn(timer);
}
