"""`vmlet exec` of /bin/true on the bench kernel, and QEMU's microvm with the same init, but for its port."""

import os
import re
import subprocess

import linux_boot
import programs

COMMAND = "/bin/true"
WORDS = "rdinit=/.vmlet/init quiet panic=-1 cryptomgr.notests"  # as src/cli/exec.c has them
INIT_SOURCES = ["command.c", "init.c", "job.c", "relay.c", "setup.c", "text.c"]
JOB = ["ePATH=/usr/sbin:/usr/bin:/sbin:/bin", "eHOME=/root", f"p{os.path.realpath(COMMAND)}", f"a{COMMAND}", "d/"]


def make_init(directory):
    source = programs.TOP / "guests" / "exec-init"
    programs.run_quietly("cc", "-Os", "-ffreestanding", "-fno-builtin", "-mgeneral-regs-only", "-fno-pic", "-no-pie",
                         "-fno-stack-protector", "-fcf-protection=none", "-fno-asynchronous-unwind-tables", "-I", source,
                         "-nostdlib", "-static", "-s", "-Wl,--build-id=none", "-Wl,-z,noexecstack", "-T",
                         source / "exec-init.ld", "-o", directory / "exec-init", programs.HERE / "exec_port.c",
                         *(source / name for name in INIT_SOURCES))
    return directory / "exec-init"


def needed_files():
    libraries = subprocess.run(["ldd", COMMAND], capture_output=True, text=True, check=True).stdout
    return [os.path.realpath(COMMAND), *re.findall(r"(/\S+) \(0x", libraries)]


def make_initrd(directory):
    (directory / "job").write_bytes(b"".join(line.encode() + b"\0" for line in JOB))
    files = [(path, path) for path in needed_files()]
    files += [("/.vmlet/init", make_init(directory)), ("/.vmlet/job", directory / "job")]
    parents = {str(parent) for path, _ in files for parent in list(programs.pathlib.Path(path).parents)[:-1]}
    spec = [f"dir {path} 755 0 0" for path in sorted(parents)] + [f"file {path} {file} 755 0 0" for path, file in files]
    subprocess.run([programs.TOP / "tools/make-cpio", directory / "exec.cpio"], input="\n".join(spec), text=True,
                   check=True)
    return directory / "exec.cpio"


def commands(tools):
    kernel = str(linux_boot.softkvm_kernel())
    cmdline = linux_boot.SOFTKVM_CMDLINE
    qemu = [programs.find_qemu(), "-M", "microvm,acpi=off,rtc=off", *linux_boot.QEMU, "-m", "256", "-cpu",
            "host,-arch-capabilities,-xsave", "-device", "isa-debug-exit,iobase=0xf4,iosize=1", "-kernel", kernel,
            "-initrd", str(make_initrd(tools.directory)), "-append", f"{cmdline} {WORDS}"]
    vmlet = [str(tools.vmlet_path), "exec", "-k", kernel, "--cpu-features=-xsave", "-p", cmdline, "--", COMMAND]
    return [programs.Command("vmlet exec", vmlet),
            programs.Command("QEMU microvm", qemu, programs.QEMU_DEBUG_EXIT_STATUS)]
