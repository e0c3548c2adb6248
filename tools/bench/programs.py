"""What is measured: built from this tree if it is not given, and the command lines."""

import dataclasses
import os
import pathlib
import shutil
import subprocess
import sys
import zlib

HERE = pathlib.Path(__file__).resolve().parent
TOP = HERE.parent.parent

# kvm-pvm stops at these features of the host's CPU; elsewhere they cost nothing to hide.
QEMU_CPU = "host,-arch-capabilities,-cx16,-xsave"
QEMU_MACHINES = {
    "QEMU microvm": "microvm",
    "QEMU microvm, least devices": "microvm,x-option-roms=off,pit=off,pic=off,isa-serial=off,rtc=off",
}
QEMU_DEBUG_EXIT_STATUS = 1  # value << 1 | 1


class Missing(Exception):
    pass


@dataclasses.dataclass
class Command:
    name: str
    argv: list
    status: int = 0


def cache():
    base = os.environ.get("VMLET_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "vmlet")
    return pathlib.Path(base)


def run_quietly(*command):
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if result.returncode:
        print(result.stdout, file=sys.stderr)
        raise Missing(f"failed: {' '.join(map(str, command))}")


def meson_build(name, target, *options):
    directory = cache() / "bench" / f"{name}-{zlib.crc32(str(TOP).encode()):08x}"  # one for each checkout
    if not (directory / "build.ninja").exists():
        run_quietly("meson", "setup", directory, TOP, *options)
    run_quietly("ninja", "-C", directory, *target)
    return directory


class Programs:
    def __init__(self, vmlet, guests, needs_guests=True):
        self.directory = cache() / "bench"
        self.directory.mkdir(parents=True, exist_ok=True)
        self.helpers = set()  # that were built in this run
        self.vmlet_path = pathlib.Path(vmlet) if vmlet else meson_build(
            "release", ["src/vmlet"], "--native-file", TOP / "tools/build/release.ini") / "src/vmlet"
        if not needs_guests:
            return
        self.guests = pathlib.Path(guests) if guests else meson_build(
            "guests", ["guests/guest-exit", "guests/guest-idle", "guests/guest-blk-bench", "guests/guest-net-bench"]) / "guests"

    def guest(self, name):
        return str(self.guests / f"guest-{name}")

    def vmlet(self, name, kernel, *options):
        return Command(name, [str(self.vmlet_path), "run", "-k", str(kernel), *options])

    def big_kernel(self):
        path = self.directory / "big-kernel"
        run_quietly(HERE / "big-kernel", self.guest("exit"), path)
        return path

    def helper(self, name, *sources):
        """A program of this directory that a benchmark needs beside the monitors."""
        path = self.directory / name
        if name in self.helpers:
            return str(path)
        run_quietly("cc", "-O2", "-o", path, *(HERE / source for source in sources), "-luring", "-pthread")
        self.helpers.add(name)
        return str(path)

    def floors(self):
        floor = self.directory / "floor"
        includes = ["-idirafter", "/usr/include", "-idirafter", "/usr/include/x86_64-linux-gnu"]
        compiler = shutil.which("musl-gcc")
        run_quietly(compiler or "cc", "-O2", "-static", *(includes if compiler else []), "-o", floor, HERE / "floor.c")
        return [Command("floor", [str(floor)]), Command("PC floor", [str(floor), "--pc"])]

    def qemus(self, kernel, *options, machine=""):
        qemu = find_qemu()
        return [Command(name, [qemu, "-M", base + machine, "-accel", "kvm", "-cpu", QEMU_CPU, "-m", "256", "-nodefaults",
                               "-no-user-config", "-display", "none", "-no-reboot", "-device",
                               "isa-debug-exit,iobase=0xf4,iosize=1", "-kernel", kernel, *options],
                        QEMU_DEBUG_EXIT_STATUS)
                for name, base in QEMU_MACHINES.items()]


def find_qemu():
    qemu = shutil.which("qemu-system-x86_64")
    if not qemu:
        raise Missing("qemu-system-x86_64 is not installed")
    return qemu


def prepare(arguments, guests=True):
    return Programs(arguments.vmlet, arguments.guests if guests else None, guests)
