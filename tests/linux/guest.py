"""A guest that does what scripts in scripts/ say, some of them in a Debian system on its first disk."""

import lzma
import pathlib
import re
import subprocess

from tests import FAST, expect, vmlet_command

SCRIPTS = pathlib.Path(__file__).resolve().parent / "scripts"


def module_order(directory, modules):
    """The files of the modules and what they need, each after what it needs. What is built in has no file."""
    needs = {}
    for line in (directory / "modules.dep").read_text(encoding="utf-8").splitlines():
        file, dependencies = line.split(":")
        needs[file] = dependencies.split()
    order = []
    for name in modules:
        for file in needs:
            if pathlib.PurePath(file).name.split(".")[0].replace("-", "_") == name:
                order += [each for each in [*reversed(needs[file]), file] if each not in order]
    return [directory / file for file in order]


def add_scripts(job, kernel, modules, programs=(), later=()):
    """An initrd with modules of the kernel's (`later` are for a script to load), the scripts, and programs of the host."""
    spec = "dir /modules 755 0 0\ndir /scripts 755 0 0\n"
    names = []
    for source in module_order(job.guest(f"{kernel.split('/')[0]}/modules"), [*modules, *later]):
        names.append(source.name.split(".")[0])
        data = source.read_bytes()
        module = job.write(f"{names[-1]}.ko", lzma.decompress(data) if source.suffix == ".xz" else data)
        spec += f"file /modules/{module} {job.directory / module} 644 0 0\n"
    job.write("order", "".join(f"{name}\n" for name in names if name.replace("-", "_") not in later))
    spec += f"file /modules/order {job.directory}/order 644 0 0\n"
    spec += "".join(f"file /scripts/{path.name} {path} 755 0 0\n" for path in SCRIPTS.iterdir())
    spec += "".join(f"file /bin/{name} {job.directory / name} 755 0 0\n" for name in programs)
    subprocess.run([job.tools / "make-cpio", job.directory / "scripts.cpio"], input=spec, text=True, check=True)
    return "scripts.cpio"


def guest_command(job, kernel, modules, actions, options=(), cpus=2, memory="512M", cmdline="", programs=(), later=()):
    """Quoted words of a shell command; $IMAGE in an option stands for the Debian image."""
    initrds = [job.add_guest("initramfs/test.cpio"), add_scripts(job, kernel, modules, programs, later)]
    command = vmlet_command(job, kernel, f"{FAST} vmlet.run={','.join(['modules', *actions])} {cmdline}", initrds, cpus,
                            memory, options)
    return " ".join(f'"{word}"' for word in command)


def expect_ended(output, script, status=0):
    found = re.findall(rf"^vmlet: {script} ended with (\d+)$", output, re.MULTILINE)
    said = [line for line in output.splitlines() if re.match(r"(net|vsock|rebind|everything): .*(?<! ok)$", line)]
    expect(found == [str(status)], f"the guest's script {script} ended with {found}, not {status}: {said}")
