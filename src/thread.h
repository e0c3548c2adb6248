/* A thread of ours in a program that is not. */
#pragma once

#include <pthread.h>

/*
 * Start `main(arg)` on a small stack with every signal blocked: the program's own signals and their handlers never
 * land on it. 0 or -errno; pthread_join is due. [any]
 */
int thread_start(pthread_t *ret_thread, void *(*main)(void *), void *arg);
