/*
 * The user's terminal and the process's signals, which belong together: however the process ends or stops, the
 * terminal is first put back as it was found.
 *
 * There is one terminal and one set of signal dispositions in a process, and a handler gets no context; so this is
 * the one module with static state.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* True when `fd` is a terminal and this process is in its foreground process group. */
bool terminal_is_ours(int fd);

/*
 * Handle signals from here on. SIGHUP, SIGINT and SIGTERM call `stop(ctx, signo)`, which must be async-signal-safe;
 * the second of them, and each after terminal_forget_stop, ends the process at once with 128 + signo. SIGTSTP and
 * SIGCONT leave and re-enter raw mode. Signals that kill restore the terminal and then kill. SIGPIPE and SIGXFSZ
 * are ignored: the write fails instead. Dispositions that are not the default (nohup) are respected. [main thread]
 */
void terminal_catch_signals(void (*stop)(void *ctx, int signo), void *ctx);
void terminal_forget_stop(void);

/* Raw mode for `fd`, every byte as it is typed. 0 or -errno. After terminal_catch_signals. [main thread] */
int terminal_enter_raw(int fd);

/* Put the terminal back; does nothing when it is not raw. [main thread] */
void terminal_leave_raw(void);

/* [any] */
bool terminal_is_raw(void);

/*
 * At `deadline_ns` (CLOCK_MONOTONIC; 0: never) put the terminal back, call `expired(ctx)`, which must be
 * async-signal-safe, and end the process with VMLET_EXIT_TIMEOUT, whatever it is doing: with SIGALRM. The last call
 * counts. [main thread]
 */
void terminal_set_deadline(uint64_t deadline_ns, void (*expired)(void *ctx), void *ctx);
