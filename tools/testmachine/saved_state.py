"""Builds the saved state that jobs start from, once, and finds it again.

A state is a directory in the cache named by a hash of everything that went into it.
"""

import contextlib
import fcntl
import hashlib
import os
import pathlib
import shutil
import subprocess
import tempfile
import time

from machine import Machine, MachineFailure, new_disk, receive

HERE = pathlib.Path(__file__).resolve().parent
TOOLS = HERE.parent
# What the initramfs has of the kernel's modules, each with what it depends on.
MODULES = """
    kvm-amd virtio_pci virtio_blk virtio_console tun tap vhost_net vhost_vsock loop
    virtio_net virtio_rng dummy veth bridge macvtap nbd fuse virtiofs overlay isofs squashfs vfat
""".split()
BOOT_SECONDS = 120
SAVE_SECONDS = 120
UNUSED_DAYS = 2
# The kernel draws from a new seed only when its last one is older than half the uptime, so a machine
# that rested this long takes up each job's own seed at once.
REST_SECONDS = 4


def cache_dir():
    if "VMLET_CACHE" in os.environ:
        return pathlib.Path(os.environ["VMLET_CACHE"])
    if "XDG_CACHE_HOME" in os.environ:
        return pathlib.Path(os.environ["XDG_CACHE_HOME"], "vmlet")
    return pathlib.Path.home() / ".cache" / "vmlet"


class SavedState:
    def __init__(self, directory):
        self.directory = directory
        self.ram = directory / "ram"
        self.devices = directory / "devices"
        self.initramfs = directory / "initramfs.cpio"
        self.qemu = find_qemu()
        self.kernel = guests() / "linux-6.1" / "vmlinux"

    def whole(self):
        return self.ram.exists() and self.devices.exists() and self.initramfs.exists()


def guests():
    return cache_dir() / "guests"


def find_qemu():
    """Not Debian 12's QEMU 7.2: its cmpxchg16b leaves wrong flags, which half of all Linux 6.12 guests die of."""
    return guests() / "qemu-10" / "usr" / "bin" / "qemu-system-x86_64"


def fetch_guests():
    result = subprocess.run([TOOLS / "fetch-guests", "--dir", guests(), "linux-6.1", "busybox", "qemu-10"], check=False)
    if result.returncode:
        raise MachineFailure("its kernel, busybox and QEMU could not be fetched")


def host_cpu():
    """The saved machine has measured its clock against the host's, so a state does not move to another CPU."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        return next((line for line in file if line.startswith("model name")), "")


def state_key(cpus):
    """Changes when anything changes that a state is made of. Large things are known by size and time."""
    key = hashlib.sha256(f"{cpus} {host_cpu()}".encode())
    for path in [*sorted(HERE.glob("*.py")), HERE / "init", TOOLS / "make-cpio"]:
        key.update(path.read_bytes())
    bios = pathlib.Path("/usr/share/seabios/bios-256k.bin")
    for path in (find_qemu(), bios, guests() / "linux-6.1" / "vmlinux", guests() / "busybox"):
        if os.path.exists(path):
            stat = os.stat(path)
            key.update(f"{path} {stat.st_size} {stat.st_mtime_ns}".encode())
    return key.hexdigest()[:16]


@contextlib.contextmanager
def locked(path):
    with open(path, "w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def saved_state(cpus):
    """The state for a machine with so many CPUs; builds it if need be."""
    fetch_guests()
    states = cache_dir() / "testmachine"
    state = SavedState(states / state_key(cpus))
    if not state.whole():
        states.mkdir(parents=True, exist_ok=True)
        with locked(states / ".lock"):
            if not state.whole():
                build(state.directory, cpus)
                forget_unused(states)
    os.utime(state.directory)  # "used today", see forget_unused
    return state


def forget_unused(states):
    for state in states.glob("[0-9a-f]*"):
        if time.time() - state.stat().st_mtime > UNUSED_DAYS * 86400:
            shutil.rmtree(state)


def build(directory, cpus):
    """In a directory of its own, so that a state is either there whole or not at all."""
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".new-", ignore_cleanup_errors=True) as scratch:
        state = SavedState(pathlib.Path(scratch, "state"))
        state.directory.mkdir()
        make_initramfs(state.initramfs)
        boot_and_save(state, cpus)
        shutil.rmtree(directory, ignore_errors=True)
        state.directory.rename(directory)


def boot_and_save(state, cpus):
    with contextlib.ExitStack() as stack:
        disks = [new_disk(), new_disk(), new_disk()]
        for disk in disks:
            stack.callback(os.close, disk)
        machine = stack.enter_context(
            Machine(state.qemu, state.kernel, state.initramfs, state.ram, ram_shared=True, cpus=cpus, disks=disks))
        machine.qmp.connect(BOOT_SECONDS)
        await_ready(machine)
        time.sleep(REST_SECONDS)
        save(machine, state)


def await_ready(machine):
    control = machine.ports["control"]
    control.settimeout(BOOT_SECONDS)
    try:
        said = receive(control, 100)
    except TimeoutError:
        end = "\n".join(machine.console().splitlines()[-10:])
        raise MachineFailure(f"it did not boot in {BOOT_SECONDS} seconds; its console ends:\n{end}") from None
    if not said:
        raise MachineFailure(machine.why_gone())
    if said != b"ready\n":
        raise MachineFailure(f"its init said {said!r} instead of 'ready'")


def save(machine, state):
    # A machine that is stopped first would be restored stopped.
    machine.qmp.ignore_shared_memory()
    machine.qmp.command("migrate", uri=f"exec:cat >'{state.devices}'")
    deadline = time.monotonic() + SAVE_SECONDS
    while time.monotonic() < deadline:
        status = machine.qmp.command("query-migrate").get("status")
        if status == "completed":
            return
        if status == "failed":
            break
        time.sleep(0.1)
    raise MachineFailure(f"QEMU could not save it: migration is '{status}'")


def make_initramfs(path):
    result = subprocess.run([TOOLS / "make-cpio", path], input="\n".join(initramfs_entries(path.parent)) + "\n",
                            text=True, check=False)
    if result.returncode:
        raise MachineFailure("its initramfs could not be made")


def initramfs_entries(scratch):
    for directory in "bin dev etc home lib lib/modules proc root run sbin sys tmp usr usr/bin var var/tmp".split():
        yield f"dir /{directory} 755 0 0"
    yield "dir /home/user 755 1000 1000"
    yield "nod /dev/console 600 0 0 c 5 1"
    yield f"file /init {HERE / 'init'} 755 0 0"
    yield from busybox_entries()
    yield from module_entries()
    for name, text in ETC.items():
        source = scratch / name
        source.write_text(text, encoding="utf-8")
        yield f"file /etc/{name} {source} 644 0 0"


ETC = {
    "passwd": "root:x:0:0:root:/root:/bin/sh\n"
              "user:x:1000:1000:user:/home/user:/bin/sh\n"
              "nobody:x:65534:65534:nobody:/:/bin/false\n",
    "group": "root:x:0:\ntty:x:5:\nuser:x:1000:\nnogroup:x:65534:\n",
    "hosts": "127.0.0.1 localhost testmachine\n::1 localhost\n",
}


def busybox_entries():
    busybox = guests() / "busybox"
    yield f"file /bin/busybox {busybox} 755 0 0"
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for applet in applets:
        if applet != "busybox":
            yield f"slink /bin/{applet} busybox 777 0 0"
    yield "slink /sbin/modprobe ../bin/busybox 777 0 0"  # where the kernel looks for it
    yield "slink /usr/bin/env ../../bin/busybox 777 0 0"


def module_entries():
    source = guests() / "linux-6.1" / "modules"
    release = (guests() / "linux-6.1" / "version").read_text(encoding="utf-8").strip()
    target = f"/lib/modules/{release}"
    yield f"dir {target} 755 0 0"
    for name in ("modules.dep", "modules.alias", "modules.builtin"):
        if (source / name).exists():
            yield f"file {target}/{name} {source / name} 644 0 0"
    files = module_closure(source)
    directories = {str(parent) for file in files for parent in pathlib.PurePath(file).parents if parent.name}
    for directory in sorted(directories):
        yield f"dir {target}/{directory} 755 0 0"
    for file in sorted(files):
        yield f"file {target}/{file} {source / file} 644 0 0"


def module_closure(source):
    """The files of MODULES and of all that they depend on."""
    needs = {}
    for line in (source / "modules.dep").read_text(encoding="utf-8").splitlines():
        file, dependencies = line.split(":")
        needs[file] = dependencies.split()
    wanted = {f"{name.replace('_', '-')}.ko" for name in MODULES}
    return {path for file in needs if pathlib.PurePath(file).name.replace("_", "-") in wanted
            for path in (file, *needs[file])}
