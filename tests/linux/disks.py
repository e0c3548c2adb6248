"""The tests of disks: TESTS and LONG map a name to a function that takes a place and raises Failure.

A guest does what a script in scripts/ says, some of them in a Debian system on its first disk.
"""

import functools
import random
import re
import subprocess

from guest import add_scripts, expect_ended, guest_command
from place import Job
from tests import BOOT_SECONDS, FAST, MIB, NO_PCI, POWEROFF, check_errors, expect, expect_status, info_lines, vmlet_command

MODULES = ["virtio_pci", "virtio_mmio", "virtio_blk"]
# Where vmlet runs, before it does: a file system that can O_DIRECT (the job's directory may be in memory).
SCRATCH = """
case $IMAGE in
/dev/*)
	mkdir -p /mnt scratch
	mount -t ext4 -o ro,noload $IMAGE /mnt && mount -o bind /dev /mnt/dev || exit
	chroot /mnt mke2fs -q -t ext4 -O ^has_journal /dev/vdb || exit
	umount /mnt/dev /mnt
	mount /dev/vdb scratch || exit ;;
*)	mkdir -p scratch ;;
esac
"""


# --- the guest ------------------------------------------------------------------------------------------

def disk_command(job, kernel, actions, disks, options=(), **more):
    options = [*options, *(word for disk in disks for word in ("-d", disk))]
    return guest_command(job, kernel, MODULES, actions, options, **more)


def run_script(job, script, timeout):
    """Runs a shell script in the job; it begins with $IMAGE, the Debian image, and the directory scratch."""
    image = job.use_image("debian-root/root.img")
    job.write("test.sh", f"IMAGE='{image}'\n{SCRATCH}\n{script}")
    return job.run(["sh", "test.sh"], timeout)


# --- a whole system -------------------------------------------------------------------------------------

def debian(place, kernel, transport="pci"):
    """Debian boots from its disk to a login; somebody installs a package, uses it, and powers the machine off."""
    with Job(place) as job:
        image = job.use_image("debian-root/root.img")
        command = vmlet_command(job, kernel, f"{FAST} vmlet.run=modules,init:/sbin/init",
                                [job.add_guest("initramfs/test.cpio"), add_scripts(job, kernel, MODULES)], 2, "512M",
                                ["-d", f"{image},overlay", "--transport", transport])
        # Not within BOOT_SECONDS: systemd starts a hundred processes.
        output = job.converse(f"""
within {5 * BOOT_SECONDS}
expect vmlet-guest login: 
send root\\r
expect root@vmlet-guest
expect # 
send dpkg -i /var/tmp/hello_*.deb && hello\\r
expect Hello, world!
expect # 
send dmesg -r | sed -n 's/^<[0-3]>/error: &/p'; echo errors: $?\\r
expect errors: 0
expect # 
send poweroff\\r
expect vmlet: the guest powered off
status {POWEROFF}
""", command, 10 * BOOT_SECONDS)
    # systemd writes to the kernel's log too; this kernel has not all modules that it likes to have.
    check_errors(output, r" systemd\[1\]: ")


def reboots(place, kernel, count):
    """Each boot checks what the earlier ones left on the disk; in the end so does fsck."""
    with Job(place) as job:
        command = disk_command(job, kernel, ["repeat:count", "fsck:vda", "errors", "poweroff"],
                               ["$IMAGE,overlay=scratch/root.overlay"], options=["--on-reboot", "restart"],
                               cmdline=f"BOOTS={count}")
        status, output = run_script(job, command, BOOT_SECONDS * count)
    expect_status(status, POWEROFF)
    expect(info_lines(output, "boot") == [str(number + 1) for number in range(count)], "not every boot left its mark")
    expect_ended(output, "fsck vda")
    check_errors(output)


# --- data -----------------------------------------------------------------------------------------------

# Name, settings. An overlay keeps its image; scratch is a file system that can O_DIRECT, elsewhere may be memory.
FIO_DISKS = {
    "pci": ["raw1.img", "raw2.img,queues=4", "scratch/raw3.img,direct,packed", "base1.img,overlay,queues=2,packed",
            "scratch/base2.img,direct,overlay=scratch/base2.overlay"],
    "mmio": ["raw1.img,queues=2,packed", "scratch/raw2.img,direct", "scratch/raw3.img,direct,queues=4,packed",
             "base1.img,overlay", "base2.img,overlay=base2.overlay,queues=4,packed"],
}


def fio(place, kernel, transport, options=(), mib=2):
    """fio's own checks of what it wrote, on disks of every kind at once; and the host sees what the guest sees."""
    disks = FIO_DISKS[transport]
    images = [disk.split(",")[0] for disk in disks]
    prepare = "".join(f"dd if=/dev/urandom of={image} bs=1M count={mib * 4} status=none\n" for image in images)
    sums = "".join(f'echo "host: $(md5sum <{image})"\n' for image in images)
    with Job(place) as job:
        command = disk_command(job, kernel, ["chroot:fio", "fsck:vda", "errors", "poweroff"], ["$IMAGE,overlay", *disks],
                               options=["--transport", transport, *options], cmdline=f"MIB={mib}")
        status, output = run_script(job, f"{prepare}{sums}{command}\nstatus=$?\n{sums}exit $status",
                                    5 * BOOT_SECONDS + 20 * mib)
    expect_status(status, POWEROFF)
    for script in ("fio", "fsck vda"):
        expect_ended(output, script)
    check_errors(output, NO_PCI if transport == "mmio" else None)
    check_fio_disks(output, disks)


def check_fio_disks(output, disks):
    """What the guest wrote is in the image that it wrote to, and no overlay's image was written to."""
    guest = [line.split() for line in info_lines(output, "disk")]
    host = [line.split()[0] for line in info_lines(output, "host")]
    expect(len(guest) == len(disks) and len(host) == 2 * len(disks), "the sums of some disks are missing")
    for disk, before, (_, queues, seen, *_), after in zip(disks, host, guest, host[len(disks):]):
        wanted = min(2, int((re.search(r"queues=(\d+)", disk) or [0, 1])[1]))
        expect(int(queues) == wanted, f"Linux uses {queues} queues of {disk}, not {wanted}")
        expect(seen != before, f"the guest wrote nothing to {disk}")
        expect(after == (before if "overlay" in disk else seen), f"the image of {disk} is not as it should be")


# --- what Linux sees, discard, other programs -----------------------------------------------------------

# vdb to vdf. In back is what the host looks at afterwards.
USE_DISKS = ["back/raw.img,serial=raw", "scratch/direct.img,direct,serial=twenty-characters--x", "base.img,overlay=back/named",
             "base.img,ro,serial=read-only", "back/pattern.img"]
USE_MIB = 16


def use(place, kernel):
    """Values, read-only, discard, write zeroes, trim; then QEMU's tools and e2fsck look at the same images."""
    with Job(place) as job:
        job.back = "back"
        command = disk_command(job, kernel, ["chroot:values", "chroot:discard", "fsck:vda", "errors", "poweroff"],
                               ["$IMAGE,overlay", *USE_DISKS])
        status, output = run_script(job, f"""
mkdir -p back
dd if=/dev/urandom of=base.img bs=1M count={USE_MIB} status=none
md5sum base.img
for image in back/raw.img scratch/direct.img back/pattern.img; do truncate -s {USE_MIB}M $image; done
{command}
status=$?
md5sum base.img
for image in back/raw.img scratch/direct.img back/named; do echo "used: $(du -k $image)"; done
exit $status
""", 5 * BOOT_SECONDS)
        expect_status(status, POWEROFF)
        for script in ("values", "discard", "fsck vda"):
            expect_ended(output, script)
        check_errors(output)
        check_values(output)
        check_used(output)
        look_from_outside(job.directory / "back")


def check_values(output):
    serials = dict((line.split() + [""])[:2] for line in info_lines(output, "serial"))
    expect([serials[f"vd{letter}"] for letter in "bce"] == ["raw", "twenty-characters--x", "read-only"],
           f"the serial numbers are {serials}")
    rows = [dict(re.findall(r'([A-Z-]+)="([^"]*)"', line)) for line in info_lines(output, "lsblk")]
    expect([row["NAME"] for row in rows] == [f"vd{letter}" for letter in "abcdef"], f"the disks are {rows}")
    for row in rows[1:]:
        expect(row["SIZE"] == str(USE_MIB * MIB), f"the size of {row} is wrong")
        expect(row["RO"] == ("1" if row["NAME"] == "vde" else "0"), f"{row} should be read-only, or should not")
        expect((row["NAME"] == "vde") == (row["DISC-GRAN"] == "0"), f"{row} can discard, or cannot")
    expect(info_lines(output, "cache") == [f"vd{letter} write back" for letter in "bcdef"],
           "the write caches are not as they should be")


def check_used(output):
    """A file system with a file of 3 MiB in it and nothing else takes that and its own tables and journal."""
    for line in info_lines(output, "used"):
        kib, name = line.split()
        expect(3 * 1024 <= int(kib) < 6 * 1024, f"{name} takes {kib} KiB on the host")


def look_from_outside(back):
    checks = [
        ["e2fsck", "-fn", "raw.img"],
        ["qemu-img", "compare", "-f", "raw", "-F", "raw", "pattern.img", "wanted.img"],
        ["qemu-io", "-f", "raw", "-c", "read -P 0x55 3M 4k", "-c", "read -P 0 3076k 8k", "-c", "read -P 0x55 3084k 1012k",
         "pattern.img"],
    ]
    wanted = bytearray(USE_MIB * MIB)
    wanted[3 * MIB:4 * MIB] = b"U" * MIB
    wanted[3 * MIB + 4096:3 * MIB + 4096 + 8192] = bytes(8192)
    (back / "wanted.img").write_bytes(wanted)
    for check in checks:
        result = subprocess.run(check, cwd=back, capture_output=True, text=True, check=False)
        # qemu-io's exit status does not tell of a pattern that is not there.
        expect(result.returncode == 0 and "failed" not in result.stdout, f"{check}: {result.stdout}{result.stderr}")


# --- away and back --------------------------------------------------------------------------------------

def rebind(place, kernel, transport, rounds=1):
    """A driver lets go of a disk, idle and busy, and takes it again."""
    with Job(place) as job:
        command = disk_command(job, kernel, ["chroot:rebind", "fsck:vda", "errors", "poweroff"],
                               ["$IMAGE,overlay", "victim.img,serial=victim,queues=2", "other.img,queues=2"],
                               options=["--transport", transport], cmdline=f"ROUNDS={rounds}")
        status, output = run_script(job, f"truncate -s 16M victim.img\ntruncate -s 16M other.img\n{command}",
                                    5 * BOOT_SECONDS * rounds)
    expect_status(status, POWEROFF)
    for script in ("rebind", "fsck vda"):
        expect_ended(output, script)
    check_errors(output, rf"\bvdb\b|{NO_PCI}")
    expect("blocked for more than" not in output, "a task hangs")


# --- killed ---------------------------------------------------------------------------------------------

# $1: how many lines, $2: how many tenths of a second; whichever comes first, and up to a quarter of a second more.
KILL = """
for image in raw.img base.img scratch/direct.img; do ./flushed fill $image 8388608; done
md5sum base.img

# start COMMAND-LINE-WORD: in the background, with its output in the file log.
start() {
	RUN >log 2>&1 </dev/null &
	pid=$!
}

# The last whole line of a disk; a line ends in CR LF.
last() {
	sed -n "s,^flushed /dev/$1 \\([0-9]*\\)\r$,\\1,p" log | tail -n 1
}

kill_after() {
	tenths=0
	while [ $(wc -l <log) -lt $1 ] && [ $tenths -lt $2 ] && kill -0 $pid; do
		usleep 100000
		tenths=$((tenths + 1))
	done
	usleep $((RANDOM * 8))
	kill -9 $pid
	wait $pid
	echo "killed after $(wc -l <log) lines, with status $?"
}

vda=0 vdb=0 vdc=0
RANDOM=SEED
for round in $(seq ROUNDS); do
	start
	case $((round % 5)) in
	4) kill_after 100000 $((RANDOM % 60)) ;;   # while it starts, perhaps
	*) kill_after $((20 + RANDOM % 200)) TENTHS ;;
	esac
	grep -v ^flushed log
	for disk in vda vdb vdc; do
		now=$(last $disk)
		[ -z "$now" ] || eval $disk=$now
	done
	echo "round $round: $vda $vdb $vdc"
	! grep -q "kill ended with" log || exit 1
done
check=1
start
wait $pid
status=$?
cat log
md5sum base.img
exit $status
"""


def kill(place, kernel, rounds):
    """A guest writes, flushes, and says so; vmlet is killed; what the guest said is true when it starts again."""
    disks = ["raw.img,queues=2", "base.img,overlay=scratch/named.overlay", "scratch/direct.img,direct,packed"]
    seed = random.randrange(1 << 15)
    with Job(place) as job:
        # These words become init's environment.
        command = disk_command(job, kernel, ["script:kill", "errors", "poweroff"], disks,
                               cmdline="LAST=$vda,$vdb,$vdc CHECK=$check", programs=[job.add_program("flushed")])
        script = KILL.replace("RUN", command, 1).replace("SEED", str(seed)).replace("ROUNDS", str(rounds))
        status, output = run_script(job, script.replace("TENTHS", str(10 * BOOT_SECONDS)), 3 * BOOT_SECONDS * (rounds + 1))
    expect_status(status, POWEROFF)
    expect_ended(output, "kill")
    check_errors(output)
    rounds_seen = re.findall(r"^round \d+: (\d+) (\d+) (\d+)$", output, re.MULTILINE)
    expect(len(rounds_seen) == rounds and all(int(number) > 20 for number in rounds_seen[-1]), "little was written")
    verified = re.findall(r"^verified /dev/vd(.) (\d+) wrong 0$", output, re.MULTILINE)
    expect([number for _, number in verified[-3:]] == list(rounds_seen[-1]), "the last check did not check all")
    sums = re.findall(r"^(\w{32})  base.img$", output, re.MULTILINE)
    expect(len(sums) == 2 and sums[0] == sums[1], "the overlay's image was changed")


TESTS = {
    "6.12-disk-debian": functools.partial(debian, kernel="linux-6.12/vmlinux"),
    "6.1-disk-fio-pci": functools.partial(fio, kernel="linux-6.1/vmlinux", transport="pci"),
    "6.12-disk-fio-mmio": functools.partial(fio, kernel="linux-6.12/vmlinux", transport="mmio", options=["--iothreads", "2"]),
    "6.12-disk-use": functools.partial(use, kernel="linux-6.12/vmlinux"),
    "6.12-disk-kill": functools.partial(kill, kernel="linux-6.12/vmlinux", rounds=3),
    "6.1-disk-rebind": functools.partial(rebind, kernel="linux-6.1/vmlinux", transport="pci"),
}
LONG = {
    "6.1-disk-reboot-50": functools.partial(reboots, kernel="linux-6.1/vmlinux", count=50),
    "6.1-disk-debian-mmio": functools.partial(debian, kernel="linux-6.1/vmlinux", transport="mmio"),
    "6.12-disk-fio-pci-long": functools.partial(fio, kernel="linux-6.12/vmlinux", transport="pci", mib=32),
    "6.1-disk-fio-mmio-long": functools.partial(fio, kernel="linux-6.1/vmlinux", transport="mmio", mib=32),
    "6.1-disk-kill-100": functools.partial(kill, kernel="linux-6.1/vmlinux", rounds=100),
    "6.1-disk-use": functools.partial(use, kernel="linux-6.1/vmlinux"),
    "6.12-disk-rebind-pci-long": functools.partial(rebind, kernel="linux-6.12/vmlinux", transport="pci", rounds=10),
    "6.12-disk-rebind-mmio-long": functools.partial(rebind, kernel="linux-6.12/vmlinux", transport="mmio", rounds=10),
}
