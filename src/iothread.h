/* A thread that runs a loop of its own, for devices that are placed on it. */
#pragma once

#include "err.h"
#include "loop.h"

struct iothread;

/* Start it. `name` is the thread's name, up to 15 characters. NULL with `err` set. [setup] */
struct iothread *iothread_new(const char *name, struct err *err);

/* Nothing is in flight on its loop any more. Stops and joins; NULL is accepted. [owner] */
void iothread_free(struct iothread *iothread);

struct loop *iothread_loop(struct iothread *iothread);

/*
 * Run fn(ctx) on the thread of `loop`, and wait until it has returned: directly when that is the caller's thread, or
 * when nobody runs the loop yet. Never from a vCPU thread that holds a lock which `fn` takes. [owner]
 */
void loop_call(struct loop *loop, void (*fn)(void *ctx), void *ctx);
