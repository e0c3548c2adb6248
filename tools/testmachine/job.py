"""Runs one command in a machine restored from the saved state."""

import contextlib
import io
import os
import secrets
import select
import selectors
import shlex
import signal
import subprocess
import sys
import tarfile
import termios
import time
import tty

from host_cpu import one_cpu
from machine import Machine, MachineFailure, new_disk, receive

RESTORE_SECONDS = 30   # it takes a fifth of one; this is for a host that is busy with other things
UNPACK_SECONDS = 300
ORDINARY_USER = 1000
TAR_END = b"\0" * 512


class RestoreFailure(MachineFailure):
    """The machine failed before the command started, so that another try does no harm."""


class OutOfTime(Exception):
    """The command did not end in its time."""


class Job:
    """What to run: see `testmachine run --help` for the fields."""

    def __init__(self, command, trees, out, stdin, as_user, timeout, console=None, tty=False, image=None):
        self.command = command
        self.trees = trees
        self.out = out
        self.stdin = stdin
        self.as_user = as_user
        self.timeout = timeout
        self.console = console
        self.tty = tty
        self.image = image
        # Ends both streams, with the status after it. Output that holds its first byte is held back
        # until the next byte tells, so that byte is one that few programs end a write with.
        self.marker = b"\x1d" + secrets.token_hex(16).encode()


def run(job, state, cpus):
    """The command's exit status."""
    try:
        return attempt(job, state, cpus)
    except RestoreFailure as failure:
        print(f"testmachine: {failure}; trying once more", file=sys.stderr)
    try:
        return attempt(job, state, cpus)
    except RestoreFailure as failure:
        raise MachineFailure(f"{failure}; if that persists, remove {state.directory} to have it built anew") from None


def attempt(job, state, cpus):
    with contextlib.ExitStack() as stack:
        disks = [new_disk(), new_disk(), os.open(job.image, os.O_RDONLY) if job.image else new_disk()]
        for disk in disks:
            stack.callback(os.close, disk)
        host_cpu = stack.enter_context(one_cpu(state.directory.parent))
        machine = stack.enter_context(
            Machine(state.qemu, state.kernel, state.initramfs, state.ram, ram_shared=False, cpus=cpus, disks=disks,
                    incoming=True, host_cpu=host_cpu))
        if job.console:
            stack.callback(lambda: write_text(job.console, machine.console()))
        tar_bytes = pack(job, disks[0])
        restore(machine, state)
        start(machine, tar_bytes)
        with time_limit(job.timeout):
            with terminal(machine.ports["tty"]) if job.tty else contextlib.nullcontext() as joined:
                status = relay(machine, job.marker, joined)
        if job.out:
            status = unpack(job, disks[1], status)
        return status


def write_text(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def restore(machine, state):
    try:
        machine.qmp.connect(RESTORE_SECONDS)
        machine.qmp.ignore_shared_memory()
        machine.qmp.command("migrate-incoming", uri=f"exec:cat '{state.devices}'")
    except MachineFailure as failure:
        raise RestoreFailure(f"the saved state could not be restored: {failure}") from None


def start(machine, tar_bytes):
    control = machine.ports["control"]
    with contextlib.suppress(ConnectionError):  # await_word tells why
        control.sendall(f"{secrets.token_hex(32)} {int(time.time())} {tar_bytes}\n".encode())
    await_word(machine, "unpacking", RESTORE_SECONDS)
    await_word(machine, "started", UNPACK_SECONDS)


def await_word(machine, word, seconds):
    control = machine.ports["control"]
    control.settimeout(seconds)
    said = b""
    try:
        while not said.endswith(b"\n"):
            data = receive(control, 1)
            if not data:
                raise RestoreFailure(f"the machine went away before the command started: {machine.why_gone()}")
            said += data
    except TimeoutError:
        raise RestoreFailure(f"the restored machine did not say '{word}' in {seconds} seconds") from None
    if said != f"{word}\n".encode():
        raise RestoreFailure(f"the restored machine said {said!r} instead of '{word}'")


# --- files in and out ---------------------------------------------------------------------------

def pack(job, disk):
    """Writes the tar with the job's files to the disk and tells its length."""
    with os.fdopen(os.dup(disk), "r+b") as file, tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for source, target in job.trees:
            tar.add(source, arcname=target.lstrip("/"), filter=lambda info: owned(info, job))
        add_text(tar, ".job/settings", settings(job))
        add_text(tar, ".job/command", script(job))
        add_stdin(tar, job)
        return file.tell() + len(TAR_END) * 2


def owned(info, job):
    info.uid = info.gid = ORDINARY_USER if job.as_user else 0
    info.uname = info.gname = ""
    return info


def add_text(tar, name, text):
    data = os.fsencode(text)
    info = tarfile.TarInfo(name)
    info.size = len(data)
    info.mode = 0o644
    tar.addfile(info, io.BytesIO(data))


def add_stdin(tar, job):
    if job.stdin:
        tar.add(os.path.realpath(job.stdin), arcname=".job/stdin", filter=lambda info: owned(info, job))
        return
    link = tarfile.TarInfo(".job/stdin")
    link.type = tarfile.SYMTYPE
    link.linkname = "/dev/null"
    tar.addfile(link)


def settings(job):
    values = {
        "user": "user" if job.as_user else "root",
        "marker": job.marker.decode(),
        "out_dir": job.out[1] if job.out else "",
        "has_image": "yes" if job.image else "",
        "tty_size": "{1} {0}".format(*os.get_terminal_size(0)) if job.tty else "",
    }
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())


def script(job):
    where = job.trees[0][1] if job.trees else "~"
    if where != "~":
        where = shlex.quote(where)
    return f"cd {where} || exit\nexec {shlex.join(job.command)}\n"


def unpack(job, disk, status):
    directory, source = job.out
    if os.pread(disk, len(TAR_END), 0) == TAR_END:
        if status:
            return status
        raise MachineFailure(f"the command ended well but left no directory {source} to copy out")
    os.makedirs(directory, exist_ok=True)
    os.lseek(disk, 0, os.SEEK_SET)
    result = subprocess.run(["tar", "--extract", "--no-same-owner", "-C", directory], stdin=disk, check=False)
    if result.returncode:
        raise MachineFailure(f"{source} could not be unpacked into {directory}")
    return status


# --- output -------------------------------------------------------------------------------------

class Stream:
    """One of the command's outputs on its way to ours, until its end marker."""

    def __init__(self, sock, target, marker):
        self.socket = sock
        self.status = None
        self._target = target
        self._marker = marker
        self._held = b""

    def receive(self):
        """Passes on what there is; False at the end of the wire."""
        data = receive(self.socket, 1 << 16)
        self._held += data
        at = self._held.find(self._marker)
        if at >= 0:
            tail = self._held[at + len(self._marker):]
            self._pass_on(at)
            if len(tail) >= 3:
                self.status = int(tail[:3])
        else:
            self._pass_on(len(self._held) - self._marker_begun())
        return bool(data)

    def _pass_on(self, count):
        write_all(self._target, self._held[:count])
        self._held = self._held[count:]

    def _marker_begun(self):
        """How many of the last bytes may be the marker's first."""
        for count in range(min(len(self._held), len(self._marker) - 1), 0, -1):
            if self._held.endswith(self._marker[:count]):
                return count
        return 0


def write_all(fd, data):
    while data:
        data = data[os.write(fd, data):]


class Terminal:
    """Our terminal, joined to the machine's: keys one way, the screen the other."""

    QUIET_SECONDS = 0.1  # after this long without output, there is no more to come

    def __init__(self, sock):
        self.socket = sock

    def send_keys(self):
        self.socket.sendall(os.read(0, 1 << 10))

    def show(self):
        write_all(1, receive(self.socket, 1 << 16))

    def show_rest(self):
        while select.select([self.socket], [], [], self.QUIET_SECONDS)[0]:
            self.show()


@contextlib.contextmanager
def terminal(sock):
    """Keys go to the machine as they are typed; our terminal is as it was afterwards."""
    before = termios.tcgetattr(0)
    tty.setraw(0)
    try:
        yield Terminal(sock)
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


def relay(machine, marker, joined=None):
    """Passes on both of the command's outputs, live; returns its status when both have ended."""
    with selectors.DefaultSelector() as selector:
        streams = [Stream(machine.ports[name], target, marker) for name, target in (("out", 1), ("err", 2))]
        for stream in streams:
            selector.register(stream.socket, selectors.EVENT_READ, stream.receive)
        if joined:
            selector.register(0, selectors.EVENT_READ, joined.send_keys)
            selector.register(joined.socket, selectors.EVENT_READ, joined.show)
        while any(stream.status is None for stream in streams):
            for key, _ in selector.select():
                if key.data() is False:
                    raise MachineFailure(machine.why_gone())
            for stream in streams:
                if stream.status is not None and stream.socket in selector.get_map():
                    selector.unregister(stream.socket)
        if joined:
            joined.show_rest()
        return streams[0].status


@contextlib.contextmanager
def time_limit(seconds):
    """Raises OutOfTime in what it encloses, also there where it waits for a slow reader of our output."""
    def out_of_time(*_):
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, out_of_time)
    signal.setitimer(signal.ITIMER_REAL, seconds or 0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
