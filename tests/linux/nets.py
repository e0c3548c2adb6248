"""The tests of networks: TESTS and LONG map a name to a function that takes a place and raises Failure.

The host's side is a network namespace of the test's own, with the programs of the same Debian system that the guest has
on its disk.
"""

import functools
import re

from guest import expect_ended, guest_command
from place import Job
from tests import BOOT_SECONDS, NO_PCI, POWEROFF, check_errors, expect, expect_status

IPERFS = ["", " reverse", " 8", " 8 reverse", " udp", " udp reverse"]  # see scripts/net-lib
MODULES = ["virtio_pci", "virtio_mmio", "virtio_blk", "virtio_net", "af_packet", "ipv6"]
HOST = """
mkdir -p /mnt
modprobe -a dummy tun 2>/dev/null
case $IMAGE in
/dev/*)	mount -t ext4 -o ro,noload $IMAGE /mnt || exit ;;
*)	mount -t ext4 -o ro,noload,loop $IMAGE /mnt || exit ;;
esac
for directory in dev proc sys; do mount -o bind /$directory /mnt/$directory || exit; done
for directory in run tmp var/tmp; do mount -t tmpfs tmpfs /mnt/$directory || exit; done
mkdir /mnt/run/job
mount -o bind $PWD /mnt/run/job
# Not a mere chroot: who is in one may make no user namespace, and passt wants one.
cd /mnt
mount -o move . / || exit
exec chroot . /usr/bin/env PATH=/usr/sbin:/usr/bin:/sbin:/bin IMAGE=$IMAGE bash -c 'cd /run/job && exec bash ./host.sh'
"""


def run_on_host(job, script, timeout):
    """Runs a bash script in the Debian system, in namespaces of its own; $IMAGE is that system's image."""
    image = job.use_image("debian-root/root.img")
    job.write("root.sh", f"IMAGE='{image}'\n{HOST}")
    job.write("host.sh", f"ip link set lo up\n{script}")
    return job.run(["unshare", "-m", "-n", "sh", "root.sh"], timeout)


def net_command(job, kernel, script, nets, options=(), cmdline="", **more):
    options = [*options, "-d", "$IMAGE,overlay", *(word for net in nets for word in ("--net", net))]
    return guest_command(job, kernel, MODULES, [f"chroot:{script}", "errors", "poweroff"], options, cmdline=cmdline, **more)


def expect_said(output, *parts):
    said = re.findall(r"^net: (.*) ok$", output, re.MULTILINE)
    missing = [part for part in parts if part not in said]
    expect(not missing, f"the guest did not say that these went well: {missing}")


# --- passt ----------------------------------------------------------------------------------------------

# An uplink that leads nowhere; passt maps its gateway to this host's loopback.
UPLINK = """
ip link add up0 type dummy
ip link set up0 up
ip addr add 192.0.2.2/24 dev up0
ip -6 addr add 2001:db8::2/64 dev up0 nodad
# Somebody far away, who is here.
ip addr add 198.51.100.1/32 dev lo
ip -6 addr add 2001:db8:1::1/128 dev lo nodad
ip route add default via 192.0.2.1
ip -6 route add default via 2001:db8::1
echo nameserver 127.0.0.1 >/run/resolv.conf
mount -o bind /run/resolv.conf /etc/resolv.conf
echo 0 2147483647 >/proc/sys/net/ipv4/ping_group_range
dnsmasq --no-resolv --no-hosts --listen-address=127.0.0.1 --bind-interfaces --user=root --pid-file= \\
	--address=/server.test/192.0.2.1 --address=/server.test/2001:db8::1
iperf3 -s -D
head -c MIBM /dev/urandom >/run/file
sha256sum </run/file | sed 's/^/sum: /'
socat TCP-LISTEN:8002,fork,reuseaddr SYSTEM:'kill -9 $(sh /run/job/passts)' &
socat TCP6-LISTEN:8000,ipv6only=0,fork,reuseaddr EXEC:'sh /run/job/serve' &
"""
# What they were asked for they do not read: HTTP as far as curl wants it.
SERVE = r"printf 'HTTP/1.0 200 OK\r\n\r\n'; exec cat /run/file"

# The guest answers on its port 80 once it is up.
PUBLISHED = """
(
	until [ "$(socat -t 30 - TCP:127.0.0.1:8080 </dev/null 2>/dev/null)" = "here is the guest" ]; do sleep 0.2; done
	echo "published: ok"
) &
"""
# Prints the processes of passt in the test's own network.
PASSTS = """
here=$(readlink /proc/self/ns/net)
for process in /proc/[0-9]*; do
	[ "$(readlink $process/ns/net)" = "$here" ] && grep -qs '^passt' $process/comm && echo ${process#/proc/}
done 2>/dev/null
"""
PASST_SAID = ["dhcp", "dns", "ping", "ping6", "http", "http6", "after the kill", "dhcp after the kill", "names after the kill",
              *(f"passt {mtu}{kind}" for mtu in (9000, 1500) for kind in IPERFS)]


# Debian 13's passt, which brings its own loader: found before the one of the system that all this runs in, of 2023. That
# one answers every duplicate acknowledgement with the whole window, and drops what its socket does not take, so that a
# slow guest gets each byte several times; and when it is an ARP reply that the socket does not take, then its own filter
# of system calls kills it (strerror(-1) allocates memory for the first time, and getrandom is not allowed).
NEWER_PASST = """
mkdir bin
cat >bin/passt <<'END'
#!/bin/sh
touch /run/job/newer
exec /run/job/passt-ld-linux-x86-64.so.2 --argv0 passt --preload /run/job/passt-libc.so.6 /run/job/passt-passt "$@"
END
chmod 755 bin/passt passt-*
PATH=$PWD/bin:$PATH
"""


def passt(place, kernel, mib=4, newer=False):
    """DHCP, DNS, ping, IPv6, downloads and iperf3 through passt, by a user without rights; then passt is killed."""
    with Job(place) as job:
        job.write("passts", PASSTS)
        if newer:
            for file in ("ld-linux-x86-64.so.2", "libc.so.6", "passt"):
                job.add_guest(f"passt/{file}")
        job.write("serve", SERVE)
        command = net_command(job, kernel, "net-passt", ["passt,publish=8080:80,mtu=9000"],
                              cmdline=f"FILE_SECONDS={60 + mib}")
        status, output = run_on_host(job, UPLINK.replace("MIB", str(mib)) + PUBLISHED + (NEWER_PASST if newer else "") + f"""
chmod 777 . /dev/kvm
chmod 444 *.cpio
chmod 644 $IMAGE
setpriv --reuid 1000 --regid 1000 --clear-groups {command}
status=$?
[ ! -e newer ] || echo 'the newer passt was started'
sleep 0.2
[ -z "$(sh passts)" ] || echo 'passt is left'
exit $status
""", 5 * BOOT_SECONDS + 2 * mib)
    expect_status(status, POWEROFF)
    expect_ended(output, "net-passt")
    check_errors(output)
    expect_said(output, *PASST_SAID)
    expect("it is started again" in output, "vmlet did not say that passt has ended")
    expect(not newer or "the newer passt was started" in output, "that was not Debian 13's passt")
    expect("published: ok" in output, "nobody answered at the published port")
    sums = set(re.findall(r"^sum: (\w{64})", output, re.MULTILINE))
    expect(len(sums) == 1, f"what was downloaded is not what was there: {sums}")
    expect("passt is left" not in output, "passt is still there")


# --- tap ------------------------------------------------------------------------------------------------

# Sends and takes a file, and pulls the cable for a second when it is asked to. 10.0.2.1 is here, 10.0.2.2 the guest.
TAP = """
ip tuntap add tap0 mode tap vnet_hdr MULTI user 1000
ip addr add 10.0.2.1/24 dev tap0
ip link set tap0 up mtu MTU
for port in 5201 5202 5203 5204; do iperf3 -s -D -p $port; done
head -c MIBM /dev/urandom >/run/file
sha256sum </run/file | sed 's/^/sum: /'
socat -U TCP-LISTEN:8000,fork,reuseaddr OPEN:/run/file,rdonly 2>/dev/null &
socat -u TCP-LISTEN:8001,fork,reuseaddr SYSTEM:'echo "sum: $(sha256sum)" >/run/job/sums' &
socat -u TCP-LISTEN:8002,fork,reuseaddr SYSTEM:'ip link set tap0 down; sleep 1; ip link set tap0 up' &
"""


def tap(place, kernel, script, said, mtu=1500, mib=16, settings="", transport="pci", cmdline=""):
    """A tap of the test's own; what goes over it arrives as it was sent, whatever is switched and cut meanwhile."""
    multi = "multi_queue" if "queues" in settings else ""
    with Job(place) as job:
        job.write("sums", "")
        command = net_command(job, kernel, script, [f"tap=tap0,mtu={mtu}{settings}"], ["--transport", transport],
                              cmdline=f"MTU={mtu} FILE_SECONDS={60 + mib} {cmdline}")
        host = TAP.replace("MULTI", multi).replace("MTU", str(mtu)).replace("MIB", str(mib))
        status, output = run_on_host(job, f"""{host}
{command}
status=$?
sleep 0.2
cat sums
exit $status
""", 5 * BOOT_SECONDS + 5 * mib)
    expect_status(status, POWEROFF)
    expect_ended(output, script)
    check_errors(output, NO_PCI if transport == "mmio" else None)
    expect_said(output, *said)
    sums = re.findall(r"^sum: (\w{64})", output, re.MULTILINE)
    expect(len(sums) >= 3 and len(set(sums)) == 1, f"what arrived is not what was sent: {sums}")


# --- two machines ---------------------------------------------------------------------------------------

def pair(place, kernel):
    """Two machines on one cable."""
    with Job(place) as job:
        here = net_command(job, kernel, "net-peer", ["listen=/run/cable"], cmdline="ROLE=server", cpus=1, memory="256M")
        there = net_command(job, kernel, "net-peer", ["stream=/run/cable"], cmdline="ROLE=client", cpus=1, memory="256M")
        status, output = run_on_host(job, f"""
{here} >server.log 2>&1 &
until [ -S /run/cable ]; do sleep 0.1; done
server=$!
{there}
status=$?
[ $status = 0 ] || kill $server
wait $server
echo "server: $?"
cat server.log
exit $status
""", 5 * BOOT_SECONDS)
    expect_status(status, POWEROFF)
    expect("server: 0" in output, "the other machine did not end well")
    expect_said(output, "dialogue", "iperf", "iperf reverse", "file")
    sums = re.findall(r"^sum: (\w{64})", output, re.MULTILINE)
    expect(len(sums) == 2 and len(set(sums)) == 1, f"what arrived is not what was sent: {sums}")


OFFLOADS = ["tx off", "rx-gro-hw off", "tso off", "sg off", "gso off", "all on", "under load"]


def said_on_tap(mtu):
    return ["address", "file", *(f"tap {mtu}{kind}" for kind in IPERFS)]


TESTS = {
    "6.12-net-passt": functools.partial(passt, kernel="linux-6.12/vmlinux"),
    "6.1-net-passt-newer": functools.partial(passt, kernel="linux-6.1/vmlinux", newer=True),
    "6.1-net-tap": functools.partial(tap, kernel="linux-6.1/vmlinux", script="net-tap", said=said_on_tap(1500)),
    "6.12-net-tap-mmio-packed": functools.partial(tap, kernel="linux-6.12/vmlinux", script="net-tap",
                                                  said=said_on_tap(9000), mtu=9000, settings=",packed",
                                                  transport="mmio"),
    "6.12-net-offloads": functools.partial(tap, kernel="linux-6.12/vmlinux", script="net-offloads", mib=4,
                                           said=OFFLOADS),
    "6.1-net-queues": functools.partial(tap, kernel="linux-6.1/vmlinux", script="net-queues", settings=",queues=2", mib=4,
                                        said=["two queues", "one queue", "under load"]),
    "6.1-net-flaps": functools.partial(tap, kernel="linux-6.1/vmlinux", script="net-flaps", mib=4,
                                       said=["guest's flaps", "host's flap", "unbind idle", "unbind busy"]),
    "6.12-net-pair": functools.partial(pair, kernel="linux-6.12/vmlinux"),
}
LONG = {
    "6.1-net-passt-1g": functools.partial(passt, kernel="linux-6.1/vmlinux", mib=1024, newer=True),
    "6.1-net-tap-1g": functools.partial(tap, kernel="linux-6.1/vmlinux", script="net-tap", said=said_on_tap(1500), mib=1024),
    "6.12-net-offloads-128m": functools.partial(tap, kernel="linux-6.12/vmlinux", script="net-offloads", mib=128,
                                                said=OFFLOADS),
}
