/* Inside the loop: its timers, in the order of their deadlines, and the timerfd that tells of the first. */
#pragma once

#include <pthread.h>

#include "loop.h"

struct loop_timers {
	int fd; /* timerfd, not O_NONBLOCK */
	pthread_mutex_t mutex;
	struct loop_timer *armed;   /* ascending deadlines */
	struct loop_timer *expired; /* to be called in this round */
};

int loop_timers_init(struct loop_timers *timers); /* 0 or -errno; fini is due either way. [setup] */
void loop_timers_fini(struct loop_timers *timers);

void loop_timers_arm(struct loop_timers *timers, struct loop_timer *timer, uint64_t deadline_ns); /* [any] */
void loop_timers_disarm(struct loop_timers *timers, struct loop_timer *timer);                    /* [any] */

/* Call those whose time has come by now. [loop] */
void loop_timers_run(struct loop_timers *timers);
