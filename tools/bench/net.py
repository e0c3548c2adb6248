"""A network card on a tap: vmlet, QEMU and a bare program, with the same frames, in turn."""

import contextlib
import ctypes
import dataclasses
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import time

import monitor
import programs
from disk import GUEST_MEMORY_MIB, QEMU_MMIO, QEMU_PCI, VMLET_MMIO

INTERFACE = "tap0"
GUEST_MAC = "52:54:00:12:34:56"
MONITOR_CPU, VCPU_CPU = 0, 1  # the other end of the tap is on the latter
RT_PRIORITY = 10  # of the other end: it naps; what it leaves is the virtual CPU's
CLONE_NEWNET = 0x40000000
TARGET = 1.5  # times QEMU's


@dataclasses.dataclass(frozen=True)
class Row:
    name: str
    mode: str  # tx, rx, ping
    size: int
    options: str = ""  # for the guest
    queue_length: int = 4000  # of the interface: what the host holds for the guest

    @property
    def tso(self):
        return ["tso"] if "tso" in self.options.split() else []


TSO_BYTES = 54 + 45 * 1448
ROWS = [
    Row("tx 64", "tx", 64),
    Row("tx 1514", "tx", 1514),
    Row("tx 64k TSO", "tx", TSO_BYTES, "tso pieces=4"),
    Row("rx 64", "rx", 64),
    Row("rx 1514", "rx", 1514),
    Row("rx 64k TSO", "rx", TSO_BYTES, "tso buffer=4096", 256),
    Row("ping 64", "ping", 64),
    Row("ping 1414", "ping", 1414),
    Row("ping 64 each ms", "ping", 64, "gap-us=1000"),
]


@dataclasses.dataclass
class Sample:
    packets: int
    bytes: int
    seconds: float
    median_us: float
    p99_us: float
    cpu_us: float  # of each packet, of everything but the guest's own CPU
    kicks: int = 0
    kick_us: float = 0

    @property
    def rate(self):
        return self.packets / self.seconds

    @property
    def cpu_per_gb(self):
        return self.cpu_us * self.packets / (self.bytes / 1e9) / 1e6


# --- the network -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def network_namespace():
    """What happens here leaves nothing behind, and no packet leaves the machine."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/self/ns/net", os.O_RDONLY)
    if libc.unshare(CLONE_NEWNET):
        raise programs.Missing(f"no network namespace: {os.strerror(ctypes.get_errno())} (root is needed)")
    try:
        for name in "all", "default":
            with contextlib.suppress(FileNotFoundError):  # a kernel without IPv6
                pathlib.Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("1")
        yield
    finally:
        libc.setns(before, CLONE_NEWNET)
        os.close(before)


@contextlib.contextmanager
def tap(row):
    """A new one for each run: the kernel may hold the last user's for a while after its end."""
    subprocess.run(["ip", "-batch", "-"], check=True, text=True, input=f"""
        tuntap add {INTERFACE} mode tap vnet_hdr
        link set {INTERFACE} address 02:00:00:00:00:01 txqueuelen {row.queue_length} up
        addr add 10.0.2.1/24 dev {INTERFACE}
        neigh add 10.0.2.2 lladdr {GUEST_MAC} dev {INTERFACE} nud permanent
    """)
    try:
        subprocess.run(["tc", "qdisc", "replace", "dev", INTERFACE, "root", "noqueue"], check=True)
        yield
    finally:
        subprocess.run(["ip", "link", "del", INTERFACE], check=False)


def frames_from_tap():
    """As the host's kernel counts them."""
    for line in pathlib.Path("/proc/net/dev").read_text().splitlines():
        name, _, fields = line.partition(":")
        if name.strip() == INTERFACE:
            return int(fields.split()[1])
    raise monitor.Failure(f"{INTERFACE} is gone")


@contextlib.contextmanager
def peer(tools, row):
    """The other end, while frames are to be received."""
    if row.mode != "rx":
        yield
        return

    def before_exec():
        os.sched_setaffinity(0, {VCPU_CPU})
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(RT_PRIORITY))

    with subprocess.Popen([tools.helper("net-peer", "net-peer.c", "net-frames.c"), INTERFACE, GUEST_MAC, str(row.size),
                           *row.tso], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                          preexec_fn=before_exec) as process:
        try:
            yield
        finally:
            process.stdin.close()
            process.wait()


def tsc_argument():
    """Linux counts a BogoMIPS as half a tick of the TSC. On a busy machine the guest, by its PIT, is wrong now and then."""
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("bogomips"):
            return f" tsc-khz={int(float(line.split(':')[1]) * 500)}"
    return ""


# --- who is measured -------------------------------------------------------------------------------------------


class Monitor:
    """The process is on one CPU, its virtual CPU, which polls, on the other."""

    expected_status = 0

    def __init__(self, tools):
        self.tools = tools

    def works(self, row):
        return True

    def run(self, row, seconds, nice):
        def before_exec():
            os.sched_setaffinity(0, {MONITOR_CPU})
            if nice is not None:
                monitor.Priority(nice)()

        @contextlib.contextmanager
        def during(pid):
            for thread in monitor.threads(pid, True):
                os.sched_setaffinity(int(thread.name), {VCPU_CPU})
            with peer(self.tools, row):
                yield

        job = f"mode={row.mode} size={row.size} {row.options} seconds={seconds} hold{tsc_argument()}"
        with tap(row):
            figures, cpu = monitor.run_guest(self.command(job), self.expected_status, before_exec, during)
            if row.mode == "tx" and frames_from_tap() < 0.99 * figures["all_packets"]:
                raise monitor.Failure(f"{frames_from_tap()} of {figures['all_packets']} frames arrived")
        return Sample(figures["packets"], figures["bytes"], figures["us"] / 1e6, figures["median_ns"] / 1e3,
                      figures["p99_ns"] / 1e3, cpu * 1e6 / figures["all_packets"], figures["kicks"],
                      figures["kick_ns"] / 1e3)


class Qemu(Monitor):
    expected_status = programs.QEMU_DEBUG_EXIT_STATUS

    def __init__(self, tools, transport, options=""):
        super().__init__(tools)
        self.name = f"QEMU {transport}{options and ' '}{options}"
        self.transport, self.options = transport, options

    def command(self, job):
        pci = self.transport == "pci"
        card = f"virtio-net-{'pci' if pci else 'device'},netdev=net,mac={GUEST_MAC}"
        return [programs.find_qemu(), "-M", "microvm,pcie=on" if pci else "microvm", "-accel", "kvm", "-cpu",
                programs.QEMU_CPU, "-m", str(GUEST_MEMORY_MIB), "-nodefaults", "-no-user-config", "-display", "none",
                "-no-reboot", "-name", "bench,debug-threads=on", "-device", "isa-debug-exit,iobase=0xf4,iosize=1",
                "-serial", "stdio", "-global", "virtio-mmio.force-legacy=false",
                "-netdev", f"tap,id=net,ifname={INTERFACE},script=no,downscript=no,vhost=off",
                "-device", card + (f",{self.options}" if self.options else ""),
                "-kernel", self.tools.guest("net-bench"), "-append", f"{job} {QEMU_PCI if pci else QEMU_MMIO}"]


class Vmlet(Monitor):
    def __init__(self, tools, transport):
        super().__init__(tools)
        self.name = f"vmlet {transport}"
        self.transport = transport

    def command(self, job):
        extra = "" if self.transport == "pci" else VMLET_MMIO
        return [str(self.tools.vmlet_path), "run", "-k", self.tools.guest("net-bench"), "-m", str(GUEST_MEMORY_MIB),
                "--net", f"tap={INTERFACE},mac={GUEST_MAC}", "--transport", self.transport, "-p", f"{job} {extra}"]


class Floor:
    """A program that does nothing but read and write the tap, 32 at a time."""

    name = "floor"

    def __init__(self, tools):
        self.tools = tools

    def works(self, row):
        return "gap-us" not in row.options

    def run(self, row, seconds, nice):
        command = [self.tools.helper("net-floor", "net-floor.c", "net-frames.c"), INTERFACE, row.mode, str(row.size),
                   str(seconds), *row.tso]
        before_exec = None if nice is None else monitor.Priority(nice)
        with tap(row), peer(self.tools, row):
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, preexec_fn=before_exec,
                                    timeout=seconds + monitor.PATIENCE_SECONDS).stdout
        figures = json.loads(output)
        return Sample(figures["packets"], figures["bytes"], figures["us"] / 1e6, figures["median_ns"] / 1e3,
                      figures["p99_ns"] / 1e3, figures["cpu_ns"] / 1e3 / figures["packets"])


# --- the comparison --------------------------------------------------------------------------------------------


def vmlet_has_networks(tools):
    text = subprocess.run([tools.vmlet_path, "help", "run"], capture_output=True, text=True, check=False).stdout
    return "--net" in text


def contenders(tools, names):
    known = [Vmlet(tools, "pci"), Vmlet(tools, "mmio"), Qemu(tools, "pci"), Qemu(tools, "mmio"),
             Qemu(tools, "pci", "rx_queue_size=1024"), Qemu(tools, "pci", "tx=timer"), Floor(tools)]
    usual = {"vmlet pci", "vmlet mmio", "QEMU pci", "QEMU pci rx_queue_size=1024", "QEMU mmio", "floor"}
    unknown = set(names or []) - {each.name for each in known}
    if unknown:
        raise monitor.Failure(f"unknown: {', '.join(unknown)}; there are {', '.join(each.name for each in known)}")
    wanted = [each for each in known if each.name in (names or usual)]
    if any(isinstance(each, Vmlet) for each in wanted) and not vmlet_has_networks(tools):
        print("this vmlet has no networks: left out")
        wanted = [each for each in wanted if not isinstance(each, Vmlet)]
    return wanted


def measure_row(wanted, row, arguments):
    """In turn, as all benchmarks here. A program that fails is told of once and left out of the row."""
    samples = {each.name: [] for each in wanted}
    for _ in range(arguments.rounds):
        for each in list(wanted):
            try:
                samples[each.name].append(each.run(row, arguments.seconds, arguments.nice))
            except (monitor.Failure, subprocess.SubprocessError, OSError) as error:
                print(f"  {row.name}: {each.name}: {error}")
                samples[each.name] = []
                wanted.remove(each)
    return {name: found for name, found in samples.items() if found}


def goodness(row, samples):
    """More is better: packets a second; round trips by their median time."""
    if row.mode == "ping":
        return 1e6 / statistics.median(sample.median_us for sample in samples)
    return statistics.median(sample.rate for sample in samples)


def best(row, found, prefix):
    """The samples of the best variant of a program, or None."""
    return max((samples for name, samples in found.items() if name.startswith(prefix)),
               key=lambda samples: goodness(row, samples), default=None)


def cells(row, name, samples, bases):
    median = lambda get: statistics.median(map(get, samples))  # noqa: E731
    rates = [sample.rate for sample in samples]
    ping, kicks = row.mode == "ping", median(lambda sample: sample.kicks)
    ratios = [f"{goodness(row, samples) / goodness(row, base):.2f}" if base else "-" for base in bases]
    return [row.name, name, f"{statistics.median(rates):.0f}", f"{min(rates):.0f}", f"{max(rates):.0f}",
            "-" if ping else f"{median(lambda sample: sample.bytes / sample.seconds) * 8 / 1e9:.2f}",
            f"{median(lambda sample: sample.median_us):.1f}" if ping else "-",
            f"{median(lambda sample: sample.p99_us):.1f}" if ping else "-",
            f"{median(lambda sample: sample.cpu_us):.2f}", f"{median(lambda sample: sample.cpu_per_gb):.2f}", *ratios,
            f"{median(lambda sample: sample.packets) / kicks:.1f}" if kicks else "-",
            f"{median(lambda sample: sample.kick_us):.0f}" if kicks else "-"]


def check_targets(report, row, vmlet, qemu):
    if not vmlet or not qemu:
        return
    if row.mode != "ping":
        report.at_least(f"{row.name}: vmlet's packets a second, times QEMU's best",
                        goodness(row, vmlet) / goodness(row, qemu), TARGET)
        return
    for what, get in ("median", lambda sample: sample.median_us), ("p99", lambda sample: sample.p99_us):
        ratio = statistics.median(map(get, vmlet)) / statistics.median(map(get, qemu))
        report.at_most(f"{row.name}: vmlet's {what}, of QEMU's best", ratio, 1)


def bench(arguments, report):
    tools = programs.prepare(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no guest is left behind, polling
    wanted = contenders(tools, arguments.only.split(";") if arguments.only else None)
    rows = [row for row in ROWS if not arguments.rows or row.name in arguments.rows.split(",")]
    table, figures = [], []
    with network_namespace():
        for row in rows:
            begin = time.monotonic()
            found = measure_row([each for each in wanted if each.works(row)], row, arguments)
            vmlet, qemu, floor = (best(row, found, prefix) for prefix in ("vmlet", "QEMU", "floor"))
            table += [cells(row, name, samples, (qemu, floor)) for name, samples in found.items()]
            figures.append({"row": dataclasses.asdict(row),
                            "samples": {name: list(map(dataclasses.asdict, each)) for name, each in found.items()}})
            print(f"{row.name}: {time.monotonic() - begin:.0f} s", flush=True)
            check_targets(report, row, vmlet, qemu)
    report.table(f"net: on a tap, {arguments.rounds} interleaved rounds of {arguments.seconds} s",
                 ["", "", "per second", "min", "max", "Gbit/s", "median us", "p99 us", "CPU us per packet",
                  "CPU s per GB", "x QEMU", "x floor", "per kick", "kick us"], table)
    report.figures.append({"net": figures})
