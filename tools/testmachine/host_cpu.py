"""One of the host's CPUs for each machine.

QEMU runs the CPUs that it emulates in threads. Where two of them run at the same time, entering an inner guest fails now
and then, so that the inner guest, or the whole machine, resets or hangs: 12 of 23 runs of tests/linux/run
6.12-bzimage-2cpu-stock, when nothing else was at work; none of 17 under taskset -c 1. (In one thread, thread=single,
6.1-balloon hung.)
"""

import contextlib
import fcntl
import os
import random


def is_ours(file):
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def one_cpu(directory):
    """The number of a CPU that no other machine has now; or of any, when all are taken. The locks are files in there."""
    cpus = sorted(os.sched_getaffinity(0))
    with contextlib.ExitStack() as stack:
        for cpu in cpus:
            file = stack.enter_context(open(directory / f".cpu-{cpu}", "w", encoding="utf-8"))
            if is_ours(file):
                yield cpu
                return
        yield random.choice(cpus)
