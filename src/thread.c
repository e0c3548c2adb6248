#include "thread.h"

#include <signal.h>

enum { STACK_SIZE_BYTES = 256 << 10 };

int thread_start(pthread_t *ret_thread, void *(*main)(void *), void *arg)
{
	pthread_attr_t attr;
	int r = pthread_attr_init(&attr);
	if (r)
		return -r;
	pthread_attr_setstacksize(&attr, STACK_SIZE_BYTES);

	/* A new thread inherits the mask. */
	sigset_t all, saved;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &saved);
	r = pthread_create(ret_thread, &attr, main, arg);
	pthread_sigmask(SIG_SETMASK, &saved, NULL);
	pthread_attr_destroy(&attr);
	return -r;
}
