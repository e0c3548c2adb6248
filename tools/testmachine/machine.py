"""A QEMU process that emulates a machine with SVM, and the wires to it."""

import json
import os
import socket
import subprocess

RAM = "3G"
DISK_BYTES = 4 << 30
PORTS = ("control", "out", "err")
KERNEL_ARGUMENTS = "console=ttyS0 panic=-1 quiet cryptomgr.notests mitigations=off"


class MachineFailure(Exception):
    """The test machine itself failed; says why in a sentence."""


def new_disk():
    """An empty disk that has no name to clean up. Every disk has one size, because the saved machine knows it."""
    disk = os.memfd_create("testmachine-disk")
    os.ftruncate(disk, DISK_BYTES)
    return disk


def receive(sock, count):
    """What the machine sent, nothing when it went away: a QEMU that dies resets what it has not read."""
    try:
        return sock.recv(count)
    except ConnectionError:
        return b""


class Machine:
    """A running QEMU. Use it in a with statement: however that ends, QEMU is gone after it.

    qemu        the program
    ram         path of the file that is its memory
    ram_shared  whether it changes the file, or a private copy
    disks       two file descriptors, see new_disk(), and a third of an image that is only read
    host_cpu    the only CPU of the host that it may run on; None: all
    """

    def __init__(self, qemu, kernel, initramfs, ram, ram_shared, cpus, disks, incoming=False, host_cpu=None):
        self.cpus = cpus
        self._console = os.memfd_create("testmachine-console")
        self._stderr = os.memfd_create("testmachine-stderr")
        self.ports = {}
        far_ends = {}
        for name in (*PORTS, "tty", "qmp"):
            self.ports[name], far_ends[name] = socket.socketpair()
        self.qmp = Qmp(self.ports.pop("qmp"), self)
        arguments = [str(qemu), *self._board(), *self._memory(ram, ram_shared), *self._boot(kernel, initramfs)]
        arguments += self._disks(disks) + self._wires(far_ends)
        if incoming:
            arguments += ["-incoming", "defer"]
        inherited = [*disks, self._console, *(end.fileno() for end in far_ends.values())]
        pinned = [] if host_cpu is None else ["taskset", "-c", str(host_cpu)]
        # Whatever ends us, even SIGKILL, ends QEMU too.
        self._process = subprocess.Popen(
            [*pinned, "setpriv", "--pdeathsig", "KILL", *arguments],
            stdin=subprocess.DEVNULL, stdout=self._stderr, stderr=self._stderr, pass_fds=inherited)
        for end in far_ends.values():
            end.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()
        self.qmp.socket.close()
        for port in self.ports.values():
            port.close()
        os.close(self._console)
        os.close(self._stderr)

    def _board(self):
        # Other CPU models, and the board microvm, hang now and then with guests inside them.
        return ["-M", "pc,memory-backend=ram", "-accel", "tcg,thread=multi", "-cpu", "EPYC,+svm,+npt",
                "-smp", str(self.cpus), "-nodefaults", "-no-reboot", "-display", "none", "-no-user-config"]

    @staticmethod
    def _memory(ram, shared):
        share = "on" if shared else "off"
        return ["-m", RAM, "-object", f"memory-backend-file,id=ram,size={RAM},mem-path={ram},share={share}"]

    @staticmethod
    def _boot(kernel, initramfs):
        return ["-kernel", str(kernel), "-initrd", str(initramfs), "-append", KERNEL_ARGUMENTS]

    @staticmethod
    def _disks(disks):
        arguments = []
        for name, mode, disk in zip(("job", "back", "image"), ("off", "off", "on"), disks):
            arguments += ["-drive", f"if=none,id={name},format=raw,file.locking=off,cache=unsafe,readonly={mode},"
                                    f"file=/proc/self/fd/{disk}",
                          "-device", f"virtio-blk-pci,drive={name}"]
        return arguments

    def _wires(self, far_ends):
        arguments = ["-chardev", f"file,id=console,path=/proc/self/fd/{self._console}", "-serial", "chardev:console",
                     "-device", "virtio-serial-pci"]
        for name, end in far_ends.items():
            arguments += ["-chardev", f"socket,id={name},fd={end.fileno()}"]
        arguments += ["-device", "virtconsole,chardev=tty"]  # /dev/hvc0: a terminal, for run --tty
        for number, name in enumerate(PORTS, 1):
            arguments += ["-device", f"virtserialport,nr={number},chardev={name},name={name}"]
        return arguments + ["-mon", "chardev=qmp,mode=control"]

    def console(self):
        """What the outer kernel has printed."""
        return os.pread(self._console, 1 << 20, 0).decode(errors="replace")

    def _complaints(self):
        # QEMU also warns of each feature of this CPU model that it does not emulate.
        lines = os.pread(self._stderr, 1 << 16, 0).decode(errors="replace").splitlines()
        return "; ".join(line for line in lines if "warning: " not in line)

    def why_gone(self):
        """A sentence for a QEMU that went away by itself."""
        try:
            status = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "QEMU closed its ports but goes on running"
        for line in self.console().splitlines():
            if "Kernel panic" in line:
                return f"the outer kernel panicked: {line.strip()}"
        if status < 0:
            return f"QEMU was killed by signal {-status}"
        if status:
            return f"QEMU failed with status {status}: {self._complaints()}"
        return "the outer machine was reset or powered off"


class Qmp:
    """QEMU's control protocol, as far as saving and restoring need it."""

    def __init__(self, sock, machine):
        self.socket = sock
        self._machine = machine
        self._stream = None

    def connect(self, timeout):
        self.socket.settimeout(timeout)
        self._stream = self.socket.makefile("rw", encoding="utf-8")
        self._receive()
        self.command("qmp_capabilities")

    def _receive(self):
        try:
            line = self._stream.readline()
        except (TimeoutError, ConnectionError):
            line = ""
        if not line:
            raise MachineFailure(self._machine.why_gone())
        return json.loads(line)

    def command(self, name, **arguments):
        try:
            self._stream.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
            self._stream.flush()
        except (TimeoutError, ConnectionError):
            raise MachineFailure(self._machine.why_gone()) from None
        while True:
            message = self._receive()
            if "error" in message:
                raise MachineFailure(f"QEMU refused {name}: {message['error']['desc']}")
            if "return" in message:
                return message["return"]

    def ignore_shared_memory(self):
        """Keeps the memory, which has a file of its own, out of the stream of saved state."""
        self.command("migrate-set-capabilities", capabilities=[{"capability": "x-ignore-shared", "state": True}])
