"""vmlet test with stock kernels: TESTS maps a name to a function that takes a place and raises Failure."""

import functools

from commands import run_script

# What passes, and what must not; a console that is not the serial port.
FLEET = """
cat >tests.ini <<'end'
[defaults]
kernel = kernel
cmdline = mitigations=off
timeout = 100s

[runs a command]
initrd = test.cpio
exec = sh -c 'echo "out  put"; echo error >&2; exit 3'
status = 3

[a command of this host]
exec = /job/busybox test -e /job/busybox

[two commands]
initrd = test.cpio
matrix.cpus = 1 2
exec = sh -c 'exit $(($(nproc) - 1))'

[no status]
initrd = test.cpio
exec = poweroff -f
status = no-status

[a panic]
initrd = test.cpio
exec = sh -c 'echo c >/proc/sysrq-trigger'
status = panic
end
status 1 ./vmlet test -j1 --output=kept tests.ini
sed -i '/^[# ]/d' out # without the diagnostics
is out 'TAP version 14\\n1..6\\nok 1 - runs a command\\nok 2 - a command of this host\\nok 3 - two commands[cpus=1]
not ok 4 - two commands[cpus=2]\\nok 5 - no status\\nok 6 - a panic\\n'
cat kept/runs*/stdout >o; is o 'out  put\\n'
cat kept/runs*/stderr >e; is e 'error\\n'
has kept/a_panic*/console.log 'Kernel panic - not syncing'
has "$(echo kept/two_commands*cpus=2*/status.json)" '"reason": "exit"'
"""

# A console that is not the serial port: what it shows counts, is kept, and is typed at.
HVC0 = """
cat >tests.ini <<'end'
[defaults]
kernel = kernel
initrd = test.cpio
console = stdio
timeout = 100s

[hvc0]
cmdline = quiet mitigations=off console=hvc0 vmlet.run=cat:6,poweroff
send = vmlet: cat=>hello\\n
expect = hello
end
status 0 ./vmlet test -j1 --output=kept tests.ini
has kept/hvc0*/console.log hello
"""

TESTS = {
    "6.1-fleet-exec": functools.partial(run_script, kernel="6.1", script=FLEET),
    "6.12-fleet-hvc0": functools.partial(run_script, kernel="6.12", script=HVC0),
}
