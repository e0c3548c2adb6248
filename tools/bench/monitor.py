"""A guest of ours in a monitor: its console, and what it costs the host beside the guest's own CPU."""

import contextlib
import json
import os
import pathlib
import select
import subprocess

PATIENCE_SECONDS = 30
VCPU_NAMES = ("vmlet-cpu", "CPU ")  # of threads: what the guest itself burns is not the monitor's


class Failure(Exception):
    pass


class Priority:
    """
    A nice value for each measured program. With autogroups it would count inside a session only, so each gets a session
    of its own, and that one the value.
    """

    def __init__(self, nice):
        self.nice = nice

    def __call__(self):
        os.setsid()
        os.setpriority(os.PRIO_PROCESS, 0, self.nice)
        autogroup = pathlib.Path("/proc/self/autogroup")
        if autogroup.exists():
            autogroup.write_text(str(self.nice))


def threads(pid, vcpus):
    """The virtual CPUs' threads, or all others: helpers of io_uring, which come and go, included."""
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):
            if (task / "comm").read_text().startswith(VCPU_NAMES) == vcpus:
                yield task


def thread_seconds(pid):
    """CPU seconds, to the nanosecond, of every thread that is not a virtual CPU."""
    total = 0
    for task in threads(pid, False):
        with contextlib.suppress(FileNotFoundError):
            total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


class Console:
    """The guest's serial port: lines out, single bytes in."""

    def __init__(self, process):
        self.process = process
        self.text = b""

    def more(self):
        ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE_SECONDS)
        data = os.read(self.process.stdout.fileno(), 65536) if ready else b""
        if not data:
            raise Failure(f"the guest fell silent after: {self.text.decode(errors='replace')}")
        self.text += data

    def until(self, what):
        while what not in self.text:
            self.more()

    def go(self):
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()


def run_guest(command, expected_status, before_exec, during=lambda pid: contextlib.nullcontext()):
    """
    The guest prints `ready` and begins when it is told to. Returns what it reports, and the CPU seconds of everything
    but its own CPU until then. `during` is a context that spans the time from `ready` to the report.
    """
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          preexec_fn=before_exec) as process:
        try:
            console = Console(process)
            console.until(b"ready\n")
            with during(process.pid):
                before = thread_seconds(process.pid)
                console.go()
                console.until(b"{")  # the first byte of its report: the rest costs the monitor time on the serial port
                cpu = thread_seconds(process.pid) - before
            console.until(b"done\n")
            console.go()
            process.wait(PATIENCE_SECONDS)
        finally:
            process.kill()
    if process.returncode != expected_status:
        raise Failure(f"exit status {process.returncode} of {' '.join(command)}: {console.text.decode()}")
    return json.loads(next(line for line in console.text.decode().splitlines() if line.startswith("{"))), cpu
