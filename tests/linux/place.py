"""Where tests run: this host, when its KVM has hardware under it, or the test machine."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

HARDWARE = 0  # testmachine probe's exit status
TIMED_OUT = 124
GUEST_DIR = "/job"
TRIPLE_FAULT = "vmlet: the guest ended in a triple fault"


class Failure(Exception):
    """A test failed; says why in a sentence."""


def cache_dir():
    if "VMLET_CACHE" in os.environ:
        return pathlib.Path(os.environ["VMLET_CACHE"])
    if "XDG_CACHE_HOME" in os.environ:
        return pathlib.Path(os.environ["XDG_CACHE_HOME"], "vmlet")
    return pathlib.Path.home() / ".cache" / "vmlet"


def find_place(tools, programs):
    """A Place; programs has the paths of vmlet and of our own tools by their names."""
    testmachine = tools / "testmachine" / "testmachine"
    probe = subprocess.run([testmachine, "probe"], capture_output=True, text=True, check=False)
    if probe.returncode == HARDWARE:
        return Host(tools, programs)
    return TestMachine(tools, programs, testmachine, probe.stdout.strip())


class Job:
    """A directory of files, some of them guests by their names in the cache, and what to do in it."""

    def __init__(self, place):
        # In the cache, so that guests of many megabytes are linked and not copied.
        self._scratch = tempfile.TemporaryDirectory(dir=place.guests.parent, prefix=".linux-test-")
        self.directory = pathlib.Path(self._scratch.name)
        self._place = place
        self.tools = place.tools
        self.guest = place.guest
        self.image = None
        self.back = None  # a directory in the job's, whose files are wanted after run
        self.programs = set()
        self.add_program("vmlet")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._scratch.cleanup()

    def add(self, name, source):
        """The file's name in the job; the same may be added again."""
        if (self.directory / name).exists():
            return name
        try:
            os.link(os.path.realpath(source), self.directory / name)
        except OSError:
            shutil.copy(source, self.directory / name)
        return name

    def add_program(self, name):
        self.programs.add(self._place.programs[name])
        return self.add(name, self._place.programs[name])

    def add_guest(self, path):
        return self.add(path.replace("/", "-"), self._place.guest(path))

    def use_image(self, path):
        """Attaches one of the guests' disk images, which is not changed; its path for the commands that are run."""
        self.image = self._place.guest(path)
        return self._place.path_of_image(self.image)

    def write(self, name, data):
        (self.directory / name).write_bytes(data if isinstance(data, bytes) else data.encode())
        return name

    def run(self, command, timeout):
        """The exit status and all output, which is also passed on live."""
        return self._place.run(self, command, timeout)

    def converse(self, script, command, timeout):
        """Has dialog.c follow a script with the command; returns the output."""
        self.add_program("dialog")
        self.write("script", script)
        status, output = self.run(["./dialog", "script", *command], timeout)
        if status:
            raise Failure(f"the conversation went wrong (status {status})")
        return output


class Place:
    """What both places have in common."""

    where = ""

    def __init__(self, tools, programs):
        self.tools = tools
        self.programs = {name: shutil.which(path) or path for name, path in programs.items()}
        self.guests = cache_dir() / "guests"
        self.guests.mkdir(parents=True, exist_ok=True)

    def guest(self, path):
        """A file that tools/fetch-guests fetches."""
        item = path.split("/")[0]
        result = subprocess.run([self.tools / "fetch-guests", "--dir", self.guests, item], check=False)
        if result.returncode:
            raise Failure(f"the guest {item} could not be fetched")
        return self.guests / path


class Host(Place):
    where = "on this host's own KVM"
    fast = True

    @staticmethod
    def may_be_at_fault():
        return False

    @staticmethod
    def path_of_image(image):
        return str(image)

    @staticmethod
    def run(job, command, timeout):
        status, output = relay(["timeout", str(timeout), *command], job.directory)
        if status == TIMED_OUT:
            raise Failure(f"it did not end in {timeout} seconds")
        return status, output


class TestMachine(Place):
    """In QEMU's emulation of SVM something goes wrong where two of its threads run at a time, which testmachine avoids
    (host_cpu.py): the first instruction after VMRUN cannot be fetched, though it could a moment before. It was once in
    250000 entries of the inner guest, or in every second boot. KVM's trace shows an entry that ends in a shutdown at the
    RIP that it began at, with EXITINTINFO 0x80000b0e and error code 0x10; vmlet calls it a triple fault. Or the outer
    machine resets, with QEMU as the inner monitor just so.
    """

    fast = False

    def __init__(self, tools, programs, testmachine, kvm):
        super().__init__(tools, programs)
        self._suspect = False
        self.where = f"in the test machine (this host's KVM: {kvm})"
        self._testmachine = testmachine

    def may_be_at_fault(self):
        """Whether a failure looks like that fault, so that it is fair to try once more."""
        return self._suspect

    @staticmethod
    def path_of_image(_):
        return "/dev/vdc"

    def run(self, job, command, timeout):
        with tempfile.TemporaryDirectory() as scratch:
            report = pathlib.Path(scratch, "report")
            trees = ["--tree", f"{job.directory}:{GUEST_DIR}", *library_trees(job.programs, scratch)]
            if job.image:
                trees += ["--image", str(job.image)]
            if job.back:
                trees += ["--out", f"{job.directory / job.back}:{GUEST_DIR}/{job.back}"]
            status, output = relay(
                [self._testmachine, "run", "--timeout", str(timeout), "--status-file", report, *trees, "--", *command],
                job.directory)
            said = report.read_text(encoding="utf-8").strip() if report.exists() else "nothing"
        self._suspect = said.startswith("machine") or TRIPLE_FAULT in output
        if said == "timeout":
            raise Failure(f"it did not end in {timeout} seconds")
        if not said.startswith("command"):
            raise Failure(f"the test machine itself failed: {said}")
        return status, output


def relay(command, directory):
    """Runs a command without input and passes its output on while it comes."""
    output = bytearray()
    with subprocess.Popen(command, cwd=directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT) as process:
        while data := os.read(process.stdout.fileno(), 1 << 16):
            output += data
            sys.stdout.buffer.write(data)
            sys.stdout.flush()
    return process.returncode, output.decode(errors="replace").replace("\r\n", "\n")


def library_trees(programs, scratch):
    """Copies what dynamic programs need, to be at the same paths in the machine; a static one needs nothing."""
    needs = [subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout for program in programs]
    for path in set(re.findall(r"(/\S+) \(0x", "".join(needs))):
        target = pathlib.Path(scratch, "root", path.lstrip("/"))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return [word for tree in pathlib.Path(scratch).glob("root/*") for word in ("--tree", f"{tree}:/{tree.name}")]
