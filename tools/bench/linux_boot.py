"""Linux from exec to a line that init prints, and to its end: on the bench kernel on this host, and with Debian's own
kernel in the test machine."""

import os
import pathlib
import shutil
import subprocess
import tempfile
import time

import programs

HOSTS = {
    "bench-kernel": "the bench kernel, on this host's KVM",
    "test-machine": "Debian's cloud kernel, in the test machine",
}
UP = b"vmlet: guest is up"
MEMORY_MIB = "512"
TIMEOUT_SECONDS = 60
MACHINES = {"QEMU microvm": "microvm", "QEMU pc": "pc"}
QEMU = ["-accel", "kvm", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio"]

# See softkvm-kernel/README.md beside the kernel.
SOFTKVM_CMDLINE = ("console=ttyS0 quiet panic=-1 reboot=t nokaslr mitigations=off clearcpuid=smep,smap,fsgsbase,xsave,"
                   "xsaveopt,xsavec,xsaves,invpcid,umip,pcid,rdpid,erms,fsrm,pku,ospke")
CLOUD_CMDLINE = "console=ttyS0 quiet panic=-1 cryptomgr.notests mitigations=off"


def guest_file(*path):
    file = programs.cache().joinpath("guests", *path)
    if not file.exists():
        raise programs.Missing(f"{file} is not there: run tools/fetch-guests")
    return file


def boots(vmlet, kernels, initrd, cmdline, qemu, cpu, ends):
    """Commands for vmlet with each kernel, and for both QEMU machines: pc with the bzImage where there is one."""
    elf = kernels["vmlinux"]
    commands = [programs.Command(f"vmlet {name}", [vmlet, "run", "-m", MEMORY_MIB, "-k", kernel, "-i", initrd,
                                                   *cpu["vmlet"], "-p", f"{cmdline} vmlet.run={ends['vmlet']}"])
                for name, kernel in kernels.items()]
    for name, machine in MACHINES.items():
        kernel = kernels.get("vmlinuz", elf) if machine == "pc" else elf
        options = ",acpi=off,rtc=off" if machine == "microvm" and ends["QEMU"] == "reboot" else ""
        commands.append(programs.Command(name, [*qemu, "-M", machine + options, *QEMU, "-m", MEMORY_MIB, *cpu["QEMU"],
                                                "-kernel", kernel, "-initrd", initrd,
                                                "-append", f"{cmdline} vmlet.run={ends['QEMU']}"]))
    return commands


# --- on this host ----------------------------------------------------------------------------------------


def softkvm_kernel():
    path = programs.cache() / "bench" / "softkvm-vmlinux"
    if path.exists():
        return path
    packed = os.environ.get("VMLET_SOFTKVM", "/work/shared/softkvm-kernel/vmlinux.xz")
    if not os.path.exists(packed):
        raise programs.Missing("no bench kernel: set VMLET_SOFTKVM to softkvm-kernel/vmlinux.xz")
    with open(path.with_suffix(".new"), "wb") as file:
        subprocess.run(["xz", "-dc", packed], stdout=file, check=True)
    path.with_suffix(".new").rename(path)
    return path


def bench_kernel_boots(tools):
    # Without ACPI, which its microvm needs off for a serial console, QEMU ends by a reset.
    return boots(str(tools.vmlet_path), {"vmlinux": str(softkvm_kernel())},
                 str(guest_file("initramfs", "test.cpio")), SOFTKVM_CMDLINE, [programs.find_qemu()],
                 {"vmlet": ["--cpu-features=-xsave"], "QEMU": ["-cpu", "host,-arch-capabilities,-xsave"]},
                 {"vmlet": "poweroff", "QEMU": "reboot"})


def boot(command):
    """Milliseconds from exec to init's line, and to the end of the process."""
    begin = time.perf_counter()
    up = None
    output = b""
    with subprocess.Popen(command.argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT) as process:
        while chunk := os.read(process.stdout.fileno(), 4096):
            output += chunk
            if up is None and UP in output:
                up = time.perf_counter() - begin
        status = process.wait(TIMEOUT_SECONDS)
    if up is None or status != command.status:
        raise programs.Missing(f"{command.name}: exit status {status}:\n{output.decode(errors='replace')[-2000:]}")
    return up * 1e3, (time.perf_counter() - begin) * 1e3


# --- in the test machine ---------------------------------------------------------------------------------


def copy_qemu(tree):
    """The host's QEMU with its libraries and firmware: what runs in there is busybox and no more."""
    qemu = programs.find_qemu()
    libraries = tree / "lib"
    libraries.mkdir()
    shutil.copy(qemu, tree / "qemu")
    for line in subprocess.run(["ldd", qemu], capture_output=True, text=True, check=True).stdout.splitlines():
        paths = [word for word in line.split() if word.startswith("/")]
        if paths:
            shutil.copy(paths[0], libraries)
    (tree / "firmware").mkdir()
    for name in ["bios-microvm.bin", "bios-256k.bin", "pvh.bin", "linuxboot_dma.bin", "kvmvapic.bin"]:
        for directory in ["/usr/share/qemu", "/usr/share/seabios"]:
            if os.path.exists(f"{directory}/{name}"):
                shutil.copy(f"{directory}/{name}", tree / "firmware")
                break
    return ["/bench/lib/ld-linux-x86-64.so.2", "--library-path", "/bench/lib", "/bench/qemu", "-L", "/bench/firmware"]


def test_machine_boots(tools):
    return boots("/bench/vmlet", {"vmlinux": "/bench/vmlinux", "vmlinuz": "/bench/vmlinuz"}, "/bench/test.cpio",
                 CLOUD_CMDLINE, ["QEMU"], {"vmlet": [], "QEMU": ["-cpu", "host"]},
                 {"vmlet": "poweroff", "QEMU": "poweroff"})


def quote(argv, qemu):
    argv = qemu + argv[1:] if argv[0] == "QEMU" else argv
    return " ".join(f"'{word}'" for word in argv)


# Prints "boot INDEX BEGIN LINE-SEEN END STATUS"; /proc/uptime has 10 ms, and a boot in there takes seconds.
JOB = f"""#!/bin/sh
now() {{ read -r up _ </proc/uptime; echo "$up"; }}
watch_console() {{
	seen=never
	while read -r line; do
		case $line in
		*"{UP.decode()}"*) seen=$(now) ;;
		"status "*) echo "boot $1 $2 $seen $(now) ${{line#status }}" ;;
		*) echo "$line" ;;
		esac
	done
}}"""


def write_job(tree, commands, qemu, rounds):
    lines = [JOB]
    for _ in range(rounds):
        for index, command in enumerate(commands):
            lines += ["begin=$(now)",
                      f"{{ {quote(command.argv, qemu)} </dev/null 2>&1; echo \"status $?\"; }} | watch_console {index} $begin"]
    job = tree / "job"
    job.write_text("\n".join(lines) + "\n")
    job.chmod(0o755)


def boot_in_test_machine(tools, commands, rounds):
    with tempfile.TemporaryDirectory(prefix="vmlet-bench-") as directory:
        tree = pathlib.Path(directory)
        shutil.copy(tools.vmlet_path, tree / "vmlet")
        for name in ["vmlinux", "vmlinuz"]:
            shutil.copy(guest_file("linux-6.1", name), tree)
        shutil.copy(guest_file("initramfs", "test.cpio"), tree)
        write_job(tree, commands, copy_qemu(tree), rounds)
        output = subprocess.run([programs.TOP / "tools/testmachine/testmachine", "run", "--tree", f"{tree}:/bench",
                                 "--timeout", str(TIMEOUT_SECONDS * rounds * len(commands)), "--", "/bench/job"],
                                capture_output=True, text=True, check=True).stdout
    results = {command.name: [] for command in commands}
    for line in output.splitlines():
        words = line.split()
        if words[:1] != ["boot"]:
            continue
        command = commands[int(words[1])]
        if words[3] == "never" or int(words[5]) != command.status:
            raise programs.Missing(f"{command.name} in the test machine:\n{output[-3000:]}")
        begin, seen, end = (float(word) * 1e3 for word in words[2:5])
        results[command.name].append((seen - begin, end - begin))
    return results
