"""Disks: vmlet, QEMU and the host's own fio on one file, by the same requests, in turn."""

import dataclasses
import json
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import time

import monitor
import programs

FILE_BYTES = 1 << 30
GUEST_MEMORY_MIB = 256

# QEMU's microvm has its PCI Express window and its 24 virtio-mmio transports at these places, and no MCFG table.
QEMU_PCI = "ecam=0xe0000000"
QEMU_MMIO = "transport=mmio mmio=0xfeb00000:24"
VMLET_MMIO = "transport=mmio mmio=0xe8000000:31:0x1000"


@dataclasses.dataclass(frozen=True)
class Row:
    op: str
    block: int
    depth: int

    @property
    def name(self):
        return f"{self.op} {self.block >> 10}k x{self.depth}"


ROWS = [Row(op, 4096, depth) for op in ("randread", "randwrite") for depth in (1, 32, 128)]
ROWS += [Row(op, 131072, 8) for op in ("read", "write")]


@dataclasses.dataclass
class Sample:
    requests: int
    seconds: float
    median_us: float
    p99_us: float
    cpu_seconds: float  # of everything but the guest's own CPU
    kicks: int = 0
    kick_us: float = 0

    @property
    def iops(self):
        return self.requests / self.seconds

    @property
    def cpu_us(self):
        return self.cpu_seconds * 1e6 / self.requests


# --- the file ----------------------------------------------------------------------------------------------


def prepare_file(path):
    """Written once, so that no block is a hole or yet to be initialised. What is there already is only completed."""
    with open(path, "ab") as file:
        while file.tell() < FILE_BYTES:
            file.write(os.urandom(1 << 20))
        os.fsync(file.fileno())


def warm(path, direct):
    """
    Reads it all, so that the disk behind this machine's disk (if it is a virtual one) has it at hand; leaves the page
    cache full for the cached rows, and empty for the direct ones.
    """
    flags = os.O_RDONLY | (os.O_DIRECT if direct else 0)
    subprocess.run(["dd", f"if={path}", "of=/dev/null", "bs=1M", *(["iflag=direct"] if flags & os.O_DIRECT else [])],
                   check=True, stderr=subprocess.DEVNULL)
    if direct:
        fd = os.open(path, os.O_RDONLY)
        os.fdatasync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


# --- a guest in a monitor ------------------------------------------------------------------------------------


def run_guest(command, expected_status, before_exec):
    figures, cpu = monitor.run_guest(command, expected_status, before_exec)
    return Sample(figures["requests"], figures["us"] / 1e6, figures["median_ns"] / 1e3, figures["p99_ns"] / 1e3, cpu,
                  figures["kicks"], figures["kick_ns"] / 1e3)


def job(row, seconds, extra):
    # The end waits as well, but a guest that runs for a time ends by itself.
    return f"op={row.op} bs={row.block} depth={row.depth} seconds={seconds} hold {extra}"


class Qemu:
    """microvm, an I/O thread of its own, io_uring: what is fastest in QEMU (docs/benchmarks.md says what else was tried)."""

    def __init__(self, tools, transport, aio="io_uring", poll=None):
        self.name = f"QEMU {transport}" + ("" if aio == "io_uring" else f" {aio}") + ("" if poll is None else f" poll {poll}")
        self.tools, self.transport, self.aio, self.poll = tools, transport, aio, poll

    def works(self, direct):
        return direct or self.aio != "native"  # Linux AIO is for O_DIRECT only

    def run(self, row, path, direct, seconds, before_exec):
        pci = self.transport == "pci"
        iothread = "iothread,id=io" + ("" if self.poll is None else f",poll-max-ns={self.poll}")
        command = [
            programs.find_qemu(), "-M", "microvm,pcie=on" if pci else "microvm", "-accel", "kvm", "-cpu",
            programs.QEMU_CPU, "-m", str(GUEST_MEMORY_MIB), "-nodefaults", "-no-user-config", "-display", "none",
            "-no-reboot", "-name", "bench,debug-threads=on", "-device", "isa-debug-exit,iobase=0xf4,iosize=1",
            "-serial", "stdio", "-global", "virtio-mmio.force-legacy=false", "-object", iothread, "-blockdev",
            f"driver=file,node-name=disk,filename={path},aio={self.aio},cache.direct={'on' if direct else 'off'}",
            "-device", f"{'virtio-blk-pci' if pci else 'virtio-blk-device'},drive=disk,iothread=io",
            "-kernel", self.tools.guest("blk-bench"), "-append", job(row, seconds, QEMU_PCI if pci else QEMU_MMIO)]
        return run_guest(command, programs.QEMU_DEBUG_EXIT_STATUS, before_exec)


class Vmlet:
    def __init__(self, tools, transport, iothreads):
        self.name = f"vmlet {transport}" + (", I/O thread" if iothreads else "")
        self.tools, self.transport, self.iothreads = tools, transport, iothreads

    def works(self, direct):
        return True

    def run(self, row, path, direct, seconds, before_exec):
        extra = "" if self.transport == "pci" else VMLET_MMIO
        command = [str(self.tools.vmlet_path), "run", "-k", self.tools.guest("blk-bench"), "-m", str(GUEST_MEMORY_MIB),
                   "-d", f"{path}{',direct' if direct else ''}", "--transport", self.transport, "--iothreads",
                   str(self.iothreads), "-p", job(row, seconds, extra)]
        return run_guest(command, 0, before_exec)


# --- the host itself -----------------------------------------------------------------------------------------


def children_seconds():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


class Fio:
    name = "fio"

    def works(self, direct):
        return True

    def run(self, row, path, direct, seconds, before_exec):
        fio = shutil.which("fio")
        if not fio:
            raise programs.Missing("fio is not installed (tools/install bench)")
        command = [fio, "--name=bench", f"--filename={path}", "--ioengine=io_uring", f"--direct={int(direct)}",
                   f"--rw={row.op}", f"--bs={row.block}", f"--iodepth={row.depth}", f"--size={FILE_BYTES}",
                   f"--runtime={seconds}", "--time_based", "--norandommap", "--output-format=json", "--thread",
                   "--fallocate=none", "--invalidate=0"]
        before = children_seconds()
        output = subprocess.run(command, check=True, capture_output=True, text=True, preexec_fn=before_exec).stdout
        cpu = children_seconds() - before  # its own figure leaves out the helpers of io_uring; this has its start in it
        report = json.loads(output)["jobs"][0]
        side = report["read" if "read" in row.op else "write"]
        run_seconds = side["runtime"] / 1e3
        percentiles = side["clat_ns"]["percentile"]
        return Sample(side["total_ios"], run_seconds, percentiles["50.000000"] / 1e3, percentiles["99.000000"] / 1e3,
                      cpu)


# --- the comparison ------------------------------------------------------------------------------------------


def vmlet_has_disks(tools):
    text = subprocess.run([tools.vmlet_path, "help", "run"], capture_output=True, text=True, check=False).stdout
    return "--disk" in text


def contenders(tools, names):
    known = [Vmlet(tools, "pci", 0), Vmlet(tools, "pci", 1), Vmlet(tools, "mmio", 0), Vmlet(tools, "mmio", 1),
             Qemu(tools, "pci"), Qemu(tools, "mmio"), Qemu(tools, "pci", poll=0), Qemu(tools, "pci", aio="native"), Fio()]
    usual = {"vmlet pci", "vmlet pci, I/O thread", "vmlet mmio", "QEMU pci", "QEMU mmio", "fio"}
    if names:
        unknown = set(names) - {each.name for each in known}
        if unknown:
            raise monitor.Failure(f"unknown: {', '.join(unknown)}; there are {', '.join(each.name for each in known)}")
    wanted = [each for each in known if each.name in (names or usual)]
    if any(each.name.startswith("vmlet") for each in wanted) and not vmlet_has_disks(tools):
        print("this vmlet has no disks: left out")
        wanted = [each for each in wanted if not each.name.startswith("vmlet")]
    return wanted


def best(medians, prefix):
    return max((sample.iops for name, sample in medians.items() if name.startswith(prefix)), default=None)


def median_sample(samples):
    return sorted(samples, key=lambda sample: sample.iops)[len(samples) // 2]


def measure_row(programs_, rounds, name, *job_):
    """In turn, as all benchmarks here. A program that fails is told of once and left out of the row."""
    samples = {each.name: [] for each in programs_}
    for _ in range(rounds):
        for each in list(programs_):
            try:
                samples[each.name].append(each.run(*job_))
            except (monitor.Failure, subprocess.SubprocessError, OSError) as error:
                print(f"  {name}: {each.name}: {error}")
                samples[each.name] = []
                programs_.remove(each)
    return {name: found for name, found in samples.items() if found}


def cells(row, name, samples, qemu, fio):
    sample = median_sample(samples)
    ratio = lambda base: f"{sample.iops / base:.2f}" if base else "-"  # noqa: E731
    return [row.name, name, f"{sample.iops:.0f}", f"{min(each.iops for each in samples):.0f}",
            f"{max(each.iops for each in samples):.0f}", f"{sample.median_us:.0f}", f"{sample.p99_us:.0f}",
            f"{statistics.median(each.cpu_us for each in samples):.1f}", ratio(qemu), ratio(fio),
            f"{sample.requests / sample.kicks:.1f}" if sample.kicks else "-",
            f"{sample.kick_us:.0f}" if sample.kicks else "-"]


def check_targets(report, row, medians, qemu, fio):
    vmlet = best(medians, "vmlet")
    if not vmlet:
        return
    if qemu:
        report.at_least(f"{row.name}: vmlet's IOPS, times QEMU's best", vmlet / qemu, 1.2 if row.depth == 1 else 2)
    if fio:
        report.at_least(f"{row.name}: vmlet's IOPS, of fio's", vmlet / fio, 0.9)


def bench(arguments, report):
    tools = programs.prepare(arguments)
    path = arguments.file
    prepare_file(path)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no guest is left behind, polling
    before_exec = None if arguments.nice is None else monitor.Priority(arguments.nice)
    wanted = contenders(tools, arguments.only.split(";") if arguments.only else None)
    rows = [row for row in ROWS if not arguments.rows or row.name in arguments.rows.split(",")]
    for cache in ("direct", "cached") if arguments.cache == "both" else [arguments.cache]:
        direct = cache == "direct"
        table, figures = [], []
        warm(path, True)
        warm(path, direct)
        for row in rows:
            begin = time.monotonic()
            found = measure_row([each for each in wanted if each.works(direct)], arguments.rounds, row.name, row, path,
                                direct, arguments.seconds, before_exec)
            medians = {name: median_sample(samples) for name, samples in found.items()}
            qemu, fio = best(medians, "QEMU"), best(medians, "fio")
            table += [cells(row, name, samples, qemu, fio) for name, samples in found.items()]
            figures.append({"row": dataclasses.asdict(row), "cache": cache,
                            "samples": {name: list(map(dataclasses.asdict, each)) for name, each in found.items()}})
            print(f"{row.name}, {cache}: {time.monotonic() - begin:.0f} s", flush=True)
            check_targets(report, row, medians, qemu, fio)
        report.table(f"disk: {path}, {cache}, {arguments.rounds} interleaved rounds of {arguments.seconds} s",
                     ["", "", "IOPS", "min", "max", "median us", "p99 us", "CPU us per I/O", "x QEMU", "x fio",
                      "I/O per kick", "kick us"], table)
        report.figures.append({"disk": figures})
