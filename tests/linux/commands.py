"""vmlet exec: commands in stock kernels. TESTS and LONG map a name to a function that takes a place and raises Failure."""

import functools

from place import Failure, Job

BOOT_SECONDS = 120
KERNELS = {"6.1": "linux-6.1/vmlinux", "6.12": "linux-6.12/vmlinuz"}
NO_STATUS, PANIC = 79, 81

# Functions for the scripts that run beside vmlet, whose stdout and stderr can only be told apart there.
PRELUDE = """#!/bin/sh
failed=0
fail() { echo "FAIL $*"; failed=1; }
exec_() { ./vmlet exec -k ./kernel -p mitigations=off --timeout 60 "$@"; }
initrd() { exec_ -i ./test.cpio "$@"; }
# status WANTED COMMAND...: runs it without input; its output is in out and err.
status() {
	wanted=$1; shift
	"$@" </dev/null >out 2>err
	found=$?
	[ "$found" = "$wanted" ] || { fail "status $found, not $wanted: $*"; cat out err; }
}
# is FILE TEXT...: the file has these bytes (printf) and no others.
is() { file=$1; shift; printf "$@" >wanted; cmp -s wanted "$file" || { fail "$file: not '$*' but"; cat "$file"; }; }
has() { grep -q -- "$2" "$1" || { fail "$1 without '$2':"; cat "$1"; }; }
"""


def run_script(place, kernel, script, prepare=None, timeout=6 * BOOT_SECONDS):
    with Job(place) as job:
        job.add("kernel", place.guest(KERNELS[kernel]))
        job.add("test.cpio", place.guest("initramfs/test.cpio"))
        job.add("busybox", place.guest("busybox"))
        if prepare:
            prepare(job, kernel)
        job.write("script", f"{PRELUDE}{script}\nexit $failed\n")
        (job.directory / "script").chmod(0o755)
        status, _ = job.run(["./script"], timeout)
    if status:
        raise Failure("see the lines above that begin with FAIL")


STATUS = """
status 0 initrd -- true
is out ''; is err ''
status 1 initrd -- false
status 77 initrd -- sh -c 'exit 77'
status 255 initrd -- sh -c 'exit 255'
status 143 initrd -- sh -c 'kill $$'
status 127 initrd -- nosuch
is out ''; is err 'vmlet: nosuch: not found\\n'
status 127 initrd -- /no/such
status 126 initrd -- /etc/guest-is-up
is err 'vmlet: /etc/guest-is-up: Permission denied\\n'
"""

ALONE = """
status 0 exec_ -- ./busybox true
status 3 exec_ -- /job/busybox sh -c 'exit 3'
printf '#!%s/busybox sh\\necho "$0 $1"; exit 4\\n' "$PWD" >hello; chmod +x hello
status 4 exec_ -- ./hello world
is out "$PWD/hello world\\n"; is err ''
status 127 exec_ -- nosuch
has err 'nosuch: not found on this host'
status 126 exec_ -- ./kernel
"""

STREAMS = """
head -c $KIB /dev/urandom >a
status 0 initrd -- sh -c 'echo out; echo err >&2'
is out 'out\\n'; is err 'err\\n'
initrd -- sh -c 'tee /dev/stderr' <a >out 2>err || fail "status $?"
cmp a out || fail 'standard output is not what went in'
cmp a err || fail 'standard error is not what went in'
printf 'one\\ntwo' | initrd -- sh -c 'cat; echo; cat; echo end' >out
is out 'one\\ntwo\\nend\\n'
initrd -- sh -c 'read a; echo $a' <&- >out || fail "closed input: $?"
is out '\\n'
{ initrd -- yes; echo $? >code; } | head -c 10 >/dev/null
is code '141\\n'
status 0 initrd -- sh -c 'sleep 1000 & echo done'
is out 'done\\n'
"""

WORLD = """
status 0 initrd --cwd /etc -e A=b -e 'C=d e' -e HOME=/etc -- sh -c 'pwd; echo $A,$C,$HOME,$PATH,$(id -u)'
is out '/etc\\nb,d e,/etc,/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin,0\\n'
status 126 initrd --cwd /no -- true
is err 'vmlet: /no: No such file or directory\\n'
status 0 initrd -- sh -c 'for d in proc sys dev/pts dev/shm; do grep -q " /$d " /proc/mounts || echo no $d; done
[ -d /tmp ] && [ -d /run ] && [ -c /dev/null ] && ping -c1 127.0.0.1 >/dev/null && echo all'
is out 'all\\n'
"""

ENDS = """
status 79 initrd -- poweroff -f
has err 'powered off before the command had a status'
status 81 initrd -- sh -c 'echo c >/proc/sysrq-trigger'
has err "the guest's kernel panicked: Kernel panic - not syncing: sysrq"
status 81 exec_ -p rdinit=/nonexistent -- ./busybox true
has err 'Unable to mount root fs'
status 124 initrd --timeout 20 -- sleep 1000
has err 'longer than --timeout'
status 0 initrd --status-file s.json -- true
has s.json '"reason": "exit"'
"""


def add_modules(job, kernel):
    directory = job.guest(f"{KERNELS[kernel].split('/')[0]}/modules")
    for name in ("evdev", "button"):
        source = next(path for suffix in (".ko", ".ko.xz") for path in directory.rglob(name + suffix))
        job.add(name + "".join(source.suffixes), source)


MODULES = """
m=$(ls evdev.ko*); b=$(ls button.ko*)
status 0 initrd --module $m --module=$b -- sh -c 'cut -d" " -f1 /proc/modules'
is out 'button\\nevdev\\n'
echo nonsense >bad.ko
status 79 initrd --module bad.ko -- true
has err 'module 0-bad.ko: Exec format error'
status 2 initrd --module none.ko -- true
has err 'none.ko: No such file'
"""


def terminal(place, kernel):
    """A command on a terminal, as a person uses it."""
    with Job(place) as job:
        command = ["./vmlet", "exec", "-k", job.add_guest(KERNELS[kernel]), "-i", job.add_guest("initramfs/test.cpio"),
                   "-p", "mitigations=off", "--", "sh"]
        job.converse(f"""
within {BOOT_SECONDS}
expect # 
send tty; stty size\\r
expect /dev/pts/0
expect 24 80
send sh -c "echo slee''ping; exec sleep 1000"\\r
expect sleeping
send \\x03
expect # 
send echo status $?\\r
expect status 130
send \\x01?
expect Ctrl-A x
send exit 5\\r
status 5
""", command, 2 * BOOT_SECONDS)


def script(text, prepare=None):
    return lambda place, kernel: run_script(place, kernel, text.replace("$KIB", str((1 << 20) if place.fast else 1 << 18)),
                                            prepare)


PARTS = {
    "status": script(STATUS),
    "alone": script(ALONE),
    "streams": script(STREAMS),
    "world": script(WORLD),
    "ends": script(ENDS),
    "modules": script(MODULES, add_modules),
    "terminal": terminal,
}
ALL = {f"{kernel}-exec-{name}": functools.partial(part, kernel=kernel) for kernel in KERNELS for name, part in PARTS.items()}
# What is our init's alone and not the kernel's, one kernel shows as well as two.
LONG = {name: ALL[name] for name in ("6.1-exec-alone", "6.1-exec-streams", "6.1-exec-world", "6.1-exec-ends")}
TESTS = {name: test for name, test in ALL.items() if name not in LONG}
