"""An initramfs of busybox, a script of ours as its init, and one of this host's programs with its libraries."""

import os
import pathlib
import shutil
import subprocess

import linux_boot
import programs


def libraries(program):
    for line in subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout.splitlines():
        yield from (word for word in line.split() if word.startswith("/"))


def make(path, init, name):
    program = shutil.which(name)
    if not program:
        raise programs.Missing(f"{name} is not installed (tools/install bench)")
    files = {"/init": programs.HERE / init, "/init-common": programs.HERE / "init-common",
             "/bin/busybox": linux_boot.guest_file("busybox"), f"/bin/{name}": program}
    files |= {library: os.path.realpath(library) for library in libraries(program)}
    directories = {str(parent) for file in files for parent in pathlib.PurePath(file).parents} - {"/"}
    spec = [f"dir {directory} 755 0 0" for directory in sorted(directories | {"/dev"})]
    spec += ["nod /dev/console 600 0 0 c 5 1"]
    spec += [f"file {file} {source} 755 0 0" for file, source in files.items()]
    subprocess.run([programs.TOP / "tools/make-cpio", path], input="\n".join(spec) + "\n", text=True, check=True)
