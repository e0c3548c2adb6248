"""The tests: TESTS maps a name to a function that takes a place and raises Failure."""

import functools
import itertools
import lzma
import random
import re
import subprocess

from place import Failure, Job

# What makes a boot short; no test is about these.
FAST = "console=ttyS0 quiet cryptomgr.notests mitigations=off"
BOOT_SECONDS = 120   # ten times what it takes on an idle machine
MIB = 1 << 20
# What 6.12 says on a machine without PCI.
NO_PCI = "PCI: Fatal: No config space access function found"
# vmlet's exit statuses; see `vmlet help exit-status`.
POWEROFF, CONFIG, REBOOT, PANIC, TRIPLE_FAULT, LEFT = 0, 2, 80, 81, 82, 85


def expect(condition, complaint):
    if not condition:
        raise Failure(complaint)


def expect_status(status, wanted):
    expect(status == wanted, f"vmlet's exit status is {status}, not {wanted}")


# --- what every Linux guest tells through the action `info` of the test initramfs -----------------------

def info_lines(output, key):
    return re.findall(rf"^{key}: (.*)$", output, re.MULTILINE)


def check_info(output, kernel, cpus, memory_mib):
    release = info_lines(output, "release")
    expect(len(release) == 1 and release[0].startswith(kernel.split("/")[0].removeprefix("linux-")),
           f"the guest's release is {release}")
    expect(info_lines(output, "cpus") == [str(cpus)], f"the guest has {info_lines(output, 'cpus')} CPUs, not {cpus}")
    check_memory(output, memory_mib)
    check_serial_interrupts(output)
    check_errors(output)


def check_memory(output, memory_mib):
    """/proc/iomem has the memory map to the byte; MemTotal lacks what the kernel keeps for itself."""
    ram = sum(int(last, 16) + 1 - int(first, 16)
              for first, last in re.findall(r"^iomem: (\w+)-(\w+) : System RAM$", output, re.MULTILINE))
    # Linux never counts the first page, and from 639 KiB to 1 MiB there is none.
    wanted = memory_mib * MIB - 0x1000 - (0x100000 - 0x9fc00)
    expect(ram == wanted, f"the guest sees {ram} bytes of RAM, not {wanted}")
    total_mib = int(info_lines(output, "memory")[0].split()[0]) // 1024
    expect(memory_mib - 64 - memory_mib // 32 < total_mib < memory_mib, f"MemTotal is {total_mib} MiB of {memory_mib}")


def check_serial_interrupts(output):
    line = next((line for line in info_lines(output, "interrupts") if line.endswith("ttyS0")), "")
    count = sum(int(word) for word in line.split()[1:] if word.isdigit())
    expect(count > 0, f"ttyS0 had no interrupts: '{line}'")


def check_errors(output, allowed=None):
    """No error in the kernel's log, but for those that match the regular expression."""
    expect(len(info_lines(output, "errors")) == 1, "the guest did not tell its kernel's errors")
    errors = [line for line in info_lines(output, "error") if not (allowed and re.search(allowed, line))]
    expect(not errors, f"the kernel logged errors: {errors}")


# --- a boot and an end ----------------------------------------------------------------------------------

def vmlet_command(job, kernel, cmdline, initrds=(), cpus=1, memory="256M", options=()):
    command = ["./vmlet", "run", "-k", job.add_guest(kernel), "-c", str(cpus), "-m", memory, *options]
    for initrd in initrds:
        command += ["-i", initrd]
    return command + ["-p", cmdline]


def boot(place, kernel, end, status, cpus=1, memory_mib=256, protocol="auto", cmdline=FAST, modules=()):
    """Boots a kernel; the test initramfs tells what it sees and ends the machine in the way `end` says."""
    actions = ["info", *(f"insmod:{module}" for module in modules), end]
    with Job(place) as job:
        initrds = [job.add_guest("initramfs/test.cpio")]
        if modules:
            initrds.append(add_modules(job, kernel, modules))
        command = vmlet_command(job, kernel, f"{cmdline} vmlet.run={','.join(actions)}", initrds, cpus, f"{memory_mib}M",
                                ["--boot", protocol])
        found, output = job.run(command, BOOT_SECONDS)
    check_info(output, kernel, cpus, memory_mib)
    expect_status(found, status)


def add_modules(job, kernel, modules):
    """An initrd with the kernel's modules as /modules/NAME.ko."""
    directory = job.guest(f"{kernel.split('/')[0]}/modules")
    spec = "dir /modules 755 0 0\n"
    for module in modules:
        source = next(itertools.chain(directory.rglob(f"{module}.ko"), directory.rglob(f"{module}.ko.xz")))
        data = source.read_bytes()
        job.write(f"{module}.ko", lzma.decompress(data) if source.suffix == ".xz" else data)
        spec += f"file /modules/{module}.ko {job.directory / module}.ko 644 0 0\n"
    subprocess.run([job.tools / "make-cpio", job.directory / "modules.cpio"], input=spec, text=True, check=True)
    return "modules.cpio"


def panic_without_root(place):
    """No initrd, no root: the kernel panics, and panic=-1 makes that a reboot."""
    with Job(place) as job:
        status, output = job.run(vmlet_command(job, "linux-6.12/vmlinuz", f"{FAST} panic=-1"), BOOT_SECONDS)
    expect("VFS: Unable to mount root fs" in output, "there is no word of a missing root file system")
    expect_status(status, REBOOT)


# --- conversations --------------------------------------------------------------------------------------

def restart(place):
    """--on-reboot restart: the guest reboots and comes up again, until somebody leaves."""
    with Job(place) as job:
        command = vmlet_command(job, "linux-6.1/vmlinux", f"{FAST} reboot=k vmlet.run=reboot",
                                [job.add_guest("initramfs/test.cpio")], options=["--on-reboot", "restart"])
        job.converse(f"""
within {BOOT_SECONDS}
expect vmlet: guest is up
expect vmlet: guest is up
send \\x01x
expect vmlet: left with Ctrl-A x
status {LEFT}
""", command, 3 * BOOT_SECONDS)


def shell(place):
    """A shell on the serial line, as a person uses it."""
    with Job(place) as job:
        command = vmlet_command(job, "linux-6.12/vmlinuz", FAST, [job.add_guest("initramfs/shell.cpio")], cpus=2)
        job.converse(f"""
within {BOOT_SECONDS}
expect /root # 
send echo $((6 * 7)) of $(nproc)\\r
expect 42 of 2
expect /root # 
send sh -c "echo slee''ping; exec sleep 1000"\\r
expect sleeping
send \\x03
expect /root # 
send echo status $?\\r
expect status 130
send \\x01?
expect Ctrl-A x
send exit\\r
expect vmlet: the guest powered off
status {POWEROFF}
""", command, 2 * BOOT_SECONDS)


def paste(place):
    """Any bytes, as fast as the guest takes them, in and out again. In the test machine one takes half a millisecond."""
    size = MIB if place.fast else MIB // 64
    with Job(place) as job:
        # Ctrl-A is the one byte that vmlet keeps for itself.
        data = random.Random(1).randbytes(size).replace(b"\1", b"\2")
        job.write("data", data)
        command = vmlet_command(job, "linux-6.1/vmlinux", f"{FAST} vmlet.run=cat:{size},poweroff",
                                [job.add_guest("initramfs/test.cpio")])
        job.converse(f"""
within {BOOT_SECONDS}
expect vmlet: cat\\n
within 600
exchange data
expect vmlet: the guest powered off
status {POWEROFF}
""", command, 800)


def power_button(place):
    """Ctrl-A p: the guest's kernel reports the button to user space."""
    with Job(place) as job:
        kernel = "linux-6.12/vmlinuz"
        initrds = [job.add_guest("initramfs/test.cpio"), add_modules(job, kernel, ["button", "evdev"])]
        actions = "insmod:button,insmod:evdev,power-button,poweroff"
        job.converse(f"""
within {BOOT_SECONDS}
expect vmlet: press the power button
send \\x01p
expect vmlet: the power button was pressed
expect vmlet: the guest powered off
status {POWEROFF}
""", vmlet_command(job, kernel, f"{FAST} vmlet.run={actions}", initrds), 2 * BOOT_SECONDS)


def slow_reader(place, kib=64):
    """The guest writes as fast as it can, to somebody who reads 20 kB/s."""
    with Job(place) as job:
        command = vmlet_command(job, "linux-6.1/vmlinux", f"{FAST} vmlet.run=sleep:1,console-flood:{kib},poweroff",
                                [job.add_guest("initramfs/test.cpio")])
        job.converse(f"""
within {BOOT_SECONDS}
expect vmlet: guest is up
expect \\n
within 600
read 200
lines {kib * 16}
expect vmlet: the guest powered off
status {POWEROFF}
""", command, 900)


# --- other people's guests ------------------------------------------------------------------------------

def debian_installer(place):
    """Kernel and 40 MB initrd, to the first question."""
    with Job(place) as job:
        command = vmlet_command(job, "debian-installer/linux", f"{FAST} priority=low",
                                [job.add_guest("debian-installer/initrd.gz")], memory="1G")
        job.converse(f"""
within {3 * BOOT_SECONDS}
expect Choose language
send \\x01x
status {LEFT}
""", command, 3 * BOOT_SECONDS)


def memtest(place):
    """A second opinion on bzImage: memtest86+ has nothing of Linux but the file format."""
    with Job(place) as job:
        command = vmlet_command(job, "memtest86+/memtest86+x64.bin", "console=ttyS0,115200", memory="64M")
        job.converse(f"""
within 60
expect Memtest86+
send \\x01x
status {LEFT}
""", command, BOOT_SECONDS)


# --- files that cannot be ---------------------------------------------------------------------------------

def refuse(place, prepare, words):
    """vmlet says so in one sentence and ends with status 2."""
    with Job(place) as job:
        status, output = job.run(prepare(job), 30)
    lines = output.splitlines()
    expect(len(lines) == 1 and lines[0].startswith("vmlet: ") and words in lines[0], f"not one sentence with '{words}'")
    expect_status(status, CONFIG)


def truncated_bzimage(job):
    kernel = job.guest("linux-6.1/vmlinuz").read_bytes()
    return ["./vmlet", "run", "-k", job.write("short", kernel[:len(kernel) // 2])]


def truncated_elf(job):
    kernel = job.guest("linux-6.1/vmlinux").read_bytes()
    return ["./vmlet", "run", "-k", job.write("short", kernel[:len(kernel) // 2])]


def large_initrd(job):
    return vmlet_command(job, "linux-6.1/vmlinuz", FAST, [job.add_guest("debian-installer/initrd.gz")], memory="100M")


def initrd_as_kernel(job):
    return ["./vmlet", "run", "-k", job.add_guest("debian-installer/initrd.gz")]


# --- the tests ------------------------------------------------------------------------------------------

# Every way in and every way out, with both kernels; a boot takes long, so each way out rides on a way in.
BOOTS = {
    "6.1-bzimage-poweroff": dict(kernel="linux-6.1/vmlinuz", end="poweroff", status=POWEROFF),
    "6.1-bzimage-2cpu-6gib-reboot-acpi": dict(kernel="linux-6.1/vmlinuz", cpus=2, memory_mib=6144,
                                              cmdline=f"{FAST} reboot=a", end="reboot", status=REBOOT),
    "6.1-pvh-2cpu-reboot-triple": dict(kernel="linux-6.1/vmlinux", protocol="pvh", cpus=2,
                                       cmdline=f"{FAST} reboot=t", end="reboot", status=TRIPLE_FAULT),
    "6.1-linux64-reboot-keyboard": dict(kernel="linux-6.1/vmlinux", protocol="linux64",
                                        cmdline=f"{FAST} reboot=k", end="reboot", status=REBOOT),
    "6.1-linux64-reboot-pci": dict(kernel="linux-6.1/vmlinux", protocol="linux64",
                                   cmdline=f"{FAST} reboot=p", end="reboot", status=REBOOT),
    "6.1-pvpanic": dict(kernel="linux-6.1/vmlinux", modules=["pvpanic", "pvpanic-mmio"], end="panic", status=PANIC),
    "6.12-bzimage-2cpu-stock": dict(kernel="linux-6.12/vmlinuz", cpus=2, cmdline="console=ttyS0", end="poweroff",
                                    status=POWEROFF),
    "6.12-bzimage-exit-77": dict(kernel="linux-6.12/vmlinuz", end="exit:77", status=77),
    "6.12-pvh-6gib-exit-0": dict(kernel="linux-6.12/vmlinux", protocol="pvh", memory_mib=6144, end="exit:0", status=0),
    "6.12-linux64-2cpu-exit-1": dict(kernel="linux-6.12/vmlinux", protocol="linux64", cpus=2, end="exit:1", status=1),
    "6.12-pvpanic": dict(kernel="linux-6.12/vmlinux", modules=["pvpanic", "pvpanic-mmio"], end="panic", status=PANIC),
}

REFUSALS = {
    "truncated-bzimage": dict(prepare=truncated_bzimage, words="truncated"),
    "truncated-elf": dict(prepare=truncated_elf, words="truncated"),
    "large-initrd": dict(prepare=large_initrd, words="too big"),
    "initrd-as-kernel": dict(prepare=initrd_as_kernel, words="gzip"),
}

TESTS = {
    **{name: functools.partial(boot, **values) for name, values in BOOTS.items()},
    "6.12-panic-without-root": panic_without_root,
    "6.1-on-reboot-restart": restart,
    "6.12-shell": shell,
    "6.12-power-button": power_button,
    "6.1-paste": paste,
    "6.1-slow-reader": slow_reader,
    "debian-installer": debian_installer,
    "memtest86+": memtest,
    **{name: functools.partial(refuse, **values) for name, values in REFUSALS.items()},
}
