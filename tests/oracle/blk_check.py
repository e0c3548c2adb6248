"""blk_check.py QEMU GUEST CASE: the guest blk-check on a disk of QEMU's."""

import os
import subprocess
import sys
import tempfile

DISK_BYTES = 16 << 20
PASSED = 1  # isa-debug-exit: 0 << 1 | 1

# microvm has its ECAM here, and no MCFG that says so; 24 virtio-mmio transports, of which the last is used first.
MICROVM = "ecam=0xe0000000"
MMIO = f"transport=mmio mmio=0xfeb00000:24 line-gsi=47 expect-sectors={DISK_BYTES // 512}"
ALL = ("info,write,verify,pieces,framing,last,flush,id,discard,zeroes,errors,reset,sizes,bad")
PCI_DISK = "virtio-blk-pci,drive=disk,serial=oracle"
MMIO_DISK = "virtio-blk-device,drive=disk,serial=oracle"

CASES = {  # machine, device, arguments, the disk is read-only
    "pci": ("microvm,pcie=on", PCI_DISK, f"{MICROVM} serial=oracle what={ALL},msix,bar,wrap", False),
    "pci-plain": ("microvm,pcie=on", PCI_DISK, f"{MICROVM} event-idx=0 indirect=0", False),
    "pci-ports": ("pc", PCI_DISK, "pci=ports what=info,write,verify,msix,intx,bar", False),
    "pci-readonly": ("microvm,pcie=on", PCI_DISK, f"{MICROVM} what=info,id,readonly,reset,sizes,msix", True),
    "mmio": ("microvm", MMIO_DISK, f"{MMIO} what={ALL},intx", False),
    "mmio-plain": ("microvm", MMIO_DISK, f"{MMIO} event-idx=0 indirect=0 what={ALL},intx", False),
}


def main(qemu, guest, case):
    machine, device, arguments, read_only = CASES[case]
    with tempfile.NamedTemporaryFile(prefix="vmlet-oracle-") as disk:
        os.truncate(disk.name, DISK_BYTES)
        result = subprocess.run(
            [qemu, "-M", machine, "-accel", "tcg", "-cpu", "max", "-m", "64", "-nodefaults", "-no-user-config",
             "-display", "none", "-no-reboot", "-device", "isa-debug-exit,iobase=0xf4,iosize=1", "-serial", "stdio",
             "-global", "virtio-mmio.force-legacy=false", "-device", device, "-kernel", guest, "-blockdev",
             f"driver=file,node-name=disk,filename={disk.name},discard=unmap,read-only={'on' if read_only else 'off'}",
             "-append", f"{arguments} lenient"],
            stdin=subprocess.DEVNULL, timeout=100, check=False)
    return 0 if result.returncode == PASSED else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
