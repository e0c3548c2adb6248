"""The tests of the small virtio devices: TESTS maps a name to a function that takes a place and raises Failure."""

import functools
import re

from guest import add_scripts, expect_ended, guest_command
from nets import run_on_host
from place import Job
from tests import BOOT_SECONDS, FAST, NO_PCI, POWEROFF, check_errors, expect, expect_status, info_lines, vmlet_command

VIRTIO = ["virtio_pci", "virtio_mmio", "virtio_blk"]
CONSOLE_STATUS = 7


# --- vsock ----------------------------------------------------------------------------------------------

VSOCK = """
head -c MIBM /dev/urandom >/run/file
sha256sum </run/file | sed 's/^/sum: /'
socat UNIX-LISTEN:/run/v_1000,fork SYSTEM:'while read line; do echo "back: $line"; done' &
socat -U UNIX-LISTEN:/run/v_1001,fork OPEN:/run/file,rdonly &
socat -u UNIX-LISTEN:/run/v_1002,fork SYSTEM:'echo "sum: $(sha256sum)" >>/run/job/sums' &
socat -u UNIX-LISTEN:/run/v_1003,fork SYSTEM:'sleep 3; echo "slow sum: $(sha256sum)" >>/run/job/sums' &
# Both from the host's side, once the guest listens.
(
	until printf 'CONNECT 2000\\nhow are you\\n' | socat -t 30 - UNIX-CONNECT:/run/v >/run/said 2>/dev/null &&
		grep -q "how are you" /run/said; do sleep 0.2; done
	sed 's/^/host: /' /run/said
	(printf 'CONNECT 2001\\n'; cat /run/file) | socat -u - UNIX-CONNECT:/run/v
	printf 'CONNECT 4999\\n' | socat -t 5 - UNIX-CONNECT:/run/v | sed 's/^/refused: /'
	echo "refused: end"
) &
"""


def vsock(place, kernel, mib=16, settings="", options=()):
    """An echo and a file each way, from the guest to the host and from the host to the guest, slow readers on both
    sides, refusals.
    """
    with Job(place) as job:
        job.write("sums", "")
        command = guest_command(job, kernel, [*VIRTIO, "vmw_vsock_virtio_transport"],
                                ["chroot:vsock", "errors", "poweroff"],
                                ["-d", "$IMAGE,overlay", "--vsock", f"/run/v{settings}", *options])
        status, output = run_on_host(job, VSOCK.replace("MIB", str(mib)) + f"""
{command}
status=$?
cat sums
ls /run/v && echo "the socket is still there"
exit $status
""", 5 * BOOT_SECONDS + 8 * mib)
    expect_status(status, POWEROFF)
    expect_ended(output, "vsock")
    check_errors(output, NO_PCI if options else None)
    sums = re.findall(r"^(?:slow )?sum: (\w{64})", output, re.MULTILINE)
    expect(len(sums) == 7 and len(set(sums)) == 1, f"what arrived is not what was sent: {sums}")
    expect(re.search(r"^host: OK \d+\nhost: guest: how are you$", output, re.MULTILINE), "the guest did not answer the host")
    expect("vsock: back: hello" in output, "the host did not answer the guest")
    expect("vsock: refused" in output and "refused: end" in output and "refused: OK" not in output,
           "a port that nobody listens at was connected")
    expect("the socket is still there" not in output, "the socket is left behind")


# --- memory ---------------------------------------------------------------------------------------------

# What the process has of its own, each tenth of a second, until it ends: at most and at last.
WATCH = """
COMMAND &
pid=$!
most=0
while kill -0 $pid 2>/dev/null; do
	now=$(awk '/^Pss:/ { print int($2 / 1024) }' /proc/$pid/smaps_rollup 2>/dev/null)
	[ -z "$now" ] || { last=$now; [ $now -le $most ] || most=$now; }
	sleep 0.1
done
wait $pid
status=$?
echo "pss: most $most last $last"
exit $status
"""


def balloon(place, kernel, settings, script):
    """Memory that the guest has used and needs no more is the host's again."""
    with Job(place) as job:
        command = guest_command(job, kernel, VIRTIO, ["script:" + script, "errors", "poweroff"], ["--balloon", settings],
                                memory="512M", later=["virtio_balloon"])
        status, output = run_on_host(job, WATCH.replace("COMMAND", command), 3 * BOOT_SECONDS)
    expect_status(status, POWEROFF)
    expect_ended(output, script)
    check_errors(output)
    most, last = map(int, re.search(r"^pss: most (\d+) last (\d+)$", output, re.MULTILINE).groups())
    expect(most > 330, f"the guest used only {most} MiB")
    expect(last < most - 200, f"of {most} MiB {last} are still in use")


def balloon_by_owner(place, kernel):
    """A program with libvmlet fills the balloon to half of the memory, empties it, and reads what the guest says."""
    with Job(place) as job:
        initrds = [job.add_guest("initramfs/test.cpio"), add_scripts(job, kernel, VIRTIO, later=["virtio_balloon"])]
        cmdline = f"{FAST} vmlet.run=modules,script:ballooner,errors,poweroff"
        status, output = job.run([f"./{job.add_program('ballooner')}", job.add_guest(kernel), cmdline, *initrds],
                                 3 * BOOT_SECONDS)
    expect_status(status, 0)
    expect_ended(output, "ballooner")
    check_errors(output)
    numbers = {name: [int(number) for number in info_lines(output, name)[0].split()] for name in ("pss", "total", "free")}
    before, after = numbers["pss"]
    expect(before - after > 200, f"of {before} MiB {after} are still in use")
    expect(numbers["total"][0] - numbers["total"][1] == 256, f"the guest's total memory is {numbers['total']} MiB")
    expect(numbers["free"][0] - numbers["free"][1] > 200, f"the guest's free memory is {numbers['free']} MiB")


# --- all of them ----------------------------------------------------------------------------------------

EVERYTHING = """
for number in 0 1; do
	ip tuntap add tap$number mode tap vnet_hdr
	ip addr add 10.0.$((number * 2 + 2)).1/24 dev tap$number
	ip link set tap$number up
done
socat UNIX-LISTEN:/run/v_1000,fork SYSTEM:'while read line; do echo "back: $line"; done' &
"""


def everything(place, kernel, transport, packed=""):
    """A machine with every device at once, each in use, and no error in the kernel's log. rngtest has its say here."""
    modules = [*VIRTIO, "virtio_net", "af_packet", "virtio_console", "virtio_rng", "virtio_balloon",
               "vmw_vsock_virtio_transport"]
    with Job(place) as job:
        options = ["-d", f"$IMAGE,overlay{packed}", "--net", f"tap=tap0{packed}", "--net", f"tap=tap1{packed}",
                   f"--rng=on{packed}", "--balloon", f"64M{packed}", "--vsock", f"/run/v{packed}",
                   "--console", f"port=org.example.text:file=text{packed},bw=64K", "--transport", transport]
        command = guest_command(job, kernel, modules, ["chroot:everything", "errors", "poweroff"], options)
        status, output = run_on_host(job, f"{EVERYTHING}{command}\nstatus=$?\nsed 's/^/text: /' text\nexit $status",
                                     3 * BOOT_SECONDS)
    expect_status(status, POWEROFF)
    expect_ended(output, "everything")
    expect(info_lines(output, "packed") == ["7" if packed else "0"], "rings are not packed as asked")
    expect(info_lines(output, "text") == ["what the guest has to say"], "the console's text did not come")
    check_errors(output, NO_PCI if transport == "mmio" else None)


# --- console --------------------------------------------------------------------------------------------

def login(place, kernel):
    """Debian boots on hvc0 alone; somebody logs in, asks for the terminal's size, and powers the machine off."""
    with Job(place) as job:
        image = job.use_image("debian-root/root.img")
        command = vmlet_command(job, kernel, "console=hvc0 quiet mitigations=off vmlet.run=modules,init:/sbin/init",
                                [job.add_guest("initramfs/test.cpio"), add_scripts(job, kernel, VIRTIO)], 2, "512M",
                                ["-d", f"{image},overlay", "--console", "stdio"])
        output = job.converse(f"""
within {5 * BOOT_SECONDS}
expect vmlet-guest login: 
send root\\r
expect root@vmlet-guest
expect # 
send echo on $(tty)\\r
expect on /dev/hvc0
expect # 
send stty size\\r
expect 24 80
expect # 
size 31 97
send until [ "$(stty size)" = "31 "97 ]; do sleep 0.1; done; stty size\\r
expect 31 97
expect # 
send yes 0123456789 | head -n 20000 | md5sum\\r
expect # 
send poweroff\\r
expect vmlet: the guest powered off
status {POWEROFF}
""", command, 10 * BOOT_SECONDS)
    expect("ttyS0" not in output, "there is talk of a serial port")


UNREAD = """
mkfifo console
exec 3<>console
COMMAND >console 2>log &
pid=$!
for i in $(seq 1200); do
	grep -qs 'has to say' text && echo "text: $(cat text)" && break
	sleep 0.2
done
cat <&3 >kept &
reader=$!
wait $pid
status=$?
sleep 1
kill $reader
echo "kept: $(tr -cd x <kept | wc -c)"
cat log
exit $status
"""


def unread(place, kernel):
    """A console that nobody reads: its guest waits for a while, and then goes on without it."""
    with Job(place) as job:
        options = ["--console", "stdio", "--console", "port=org.example.text:file=text"]
        command = guest_command(job, kernel, [*VIRTIO, "virtio_console"], ["script:unread", "poweroff"], options,
                                cmdline="console=hvc0")
        status, output = run_on_host(job, UNREAD.replace("COMMAND", command), 3 * BOOT_SECONDS)
    expect_status(status, POWEROFF)
    expect(info_lines(output, "text") == ["what the guest has to say"], "the guest did not go on")
    expect("nobody reads console 0" in output, "vmlet did not say that nobody reads")
    kept = int(info_lines(output, "kept")[0])
    expect(1 << 20 < kept < 1300000, f"of 1300000 bytes {kept} were kept")


def status_port(place, kernel):
    """The guest's status through its port; and text to and from another port."""
    with Job(place) as job:
        command = guest_command(job, kernel, [*VIRTIO, "virtio_console"], ["script:status"],
                                ["--console", "port=org.example.text:file=text"])
        status, output = run_on_host(job, f"{command}\nstatus=$?\nsed 's/^/text: /' text\nexit $status", 2 * BOOT_SECONDS)
    expect_status(status, CONSOLE_STATUS)
    expect(info_lines(output, "text") == ["what the guest has to say"], "the other port's text did not come")


TESTS = {
    "6.12-vsock-mmio": functools.partial(vsock, kernel="linux-6.12/vmlinux", mib=4, settings=",bw=8M,pps=20000",
                                         options=["--transport", "mmio"]),
    "6.1-balloon": functools.partial(balloon, kernel="linux-6.1/vmlinux", settings="256M", script="balloon"),
    "6.1-balloon-by-owner": functools.partial(balloon_by_owner, kernel="linux-6.1/vmlinux"),
    "6.12-balloon-reporting": functools.partial(balloon, kernel="linux-6.12/vmlinux", settings="0,reporting",
                                                script="reporting"),
    "6.1-everything-pci": functools.partial(everything, kernel="linux-6.1/vmlinux", transport="pci"),
    "6.12-everything-mmio-packed": functools.partial(everything, kernel="linux-6.12/vmlinux", transport="mmio",
                                                     packed=",packed"),
    "6.12-console-login": functools.partial(login, kernel="linux-6.12/vmlinux"),
    "6.1-console-unread": functools.partial(unread, kernel="linux-6.1/vmlinux"),
    "6.1-status-port": functools.partial(status_port, kernel="linux-6.1/vmlinux"),
}
LONG = {
    "6.1-everything-mmio": functools.partial(everything, kernel="linux-6.1/vmlinux", transport="mmio"),
    "6.12-everything-pci-packed": functools.partial(everything, kernel="linux-6.12/vmlinux", transport="pci",
                                                    packed=",packed"),
    # Half an hour in the test machine.
    "6.1-vsock-1g": functools.partial(vsock, kernel="linux-6.1/vmlinux", mib=1024),
}
