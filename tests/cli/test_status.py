"""Each documented exit status, provoked; and the sentence that goes with it."""

import os
import shutil
import signal
import subprocess
import time
import unittest

from harness import TIMEOUT_S, VMLET, Case, guest, main, run, run_args, run_guest

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
IS_ROOT = os.geteuid() == 0


def can_unshare():
    return IS_ROOT and shutil.which("unshare") and run(["unshare", "-m", "true"]).returncode == 0


class Status(Case):
    def expect(self, result, status, sentence):
        self.assertEqual(result.returncode, status, result.stderr)
        last = result.stderr.decode().splitlines()[-1:]
        self.assertEqual(last, [f"vmlet: {sentence}"] if sentence else [])

    def test_0(self):
        self.expect(run_guest("poweroff"), 0, "the guest powered off")
        self.expect(run_guest("exit"), 0, None)

    def test_debug_exit(self):
        for status in (1, 2, 77, 80, 127, 128, 255):
            self.expect(run_guest(f"exit-status status={status}"), status,
                        f"the guest wrote {status} to its debug-exit port")

    def test_80(self):
        self.expect(run_guest("reset how=i8042"), 80, "the guest asked for a reset")
        self.expect(run_guest("reset how=acpi", "--on-reboot=exit"), 80, "the guest asked for a reset")

    def test_81(self):
        self.expect(run_guest("panic"), 81, "the guest's kernel panicked")

    def test_82(self):
        result = run_guest("triple-fault")
        self.expect(result, 82, "the guest ended in a triple fault")
        self.assertIn(b"code at rip: 0f 0b", result.stderr)

    def test_83(self):
        result = run_guest("internal-error")
        if result.returncode == 0:
            return  # this host has hardware virtualization
        self.assertEqual(result.returncode, 83)
        self.assertIn("--cpu-features -cx16", result.stderr.decode().splitlines()[-1])

    def test_signals(self):
        for how in ("hlt", "spin"):
            for signo in SIGNALS:
                with self.subTest(how=how, signal=signo.name):
                    child = self.popen(run_args(f"hang how={how}"))
                    self.read_until(child.stdout.fileno(), b"hanging")
                    start = time.monotonic()
                    child.send_signal(signo)
                    _, err = child.communicate(timeout=TIMEOUT_S)
                    self.assertEqual(child.returncode, 128 + signo)
                    self.assertEqual(err.decode(), f"vmlet: ended by signal {signo.value} ({signo.name})\n")
                    self.assertLess(time.monotonic() - start, 2)

    def test_a_signal_at_once(self):
        for delay in (0, 0.002, 0.005, 0.01, 0.02, 0.03):
            child = self.popen(run_args("hang"))
            time.sleep(delay)
            child.terminate()
            child.communicate(timeout=TIMEOUT_S)
            self.assertIn(child.returncode, (-signal.SIGTERM, 128 + signal.SIGTERM))

    def test_nohup(self):
        def ignore():
            signal.signal(signal.SIGHUP, signal.SIG_IGN)

        child = self.popen(run_args("hang"), preexec_fn=ignore)
        self.read_until(child.stdout.fileno(), b"hanging")
        child.send_signal(signal.SIGHUP)
        time.sleep(0.1)
        self.assertIsNone(child.poll())
        child.terminate()
        self.assertEqual(child.wait(TIMEOUT_S), 128 + signal.SIGTERM)

    def test_restart(self):
        child = self.popen(run_args("reset", "--on-reboot", "restart"))
        got = b""
        while got.count(b"reset by i8042") < 3:
            got = self.read_until(child.stdout.fileno(), b"reset by i8042\n", got[:0]) + got
        child.terminate()
        self.assertEqual(child.wait(TIMEOUT_S), 128 + signal.SIGTERM)

    def test_abort(self):
        child = self.popen(run_args("hang"))
        self.read_until(child.stdout.fileno(), b"hanging")
        child.send_signal(signal.SIGABRT)
        self.assertEqual(child.wait(TIMEOUT_S), -signal.SIGABRT)  # a shell says 134

    def test_killed_leaves_nothing(self):
        path = self.path("log")
        child = self.popen(run_args("hang how=spin", f"--serial=file={path}"))
        self.wait_for(lambda: os.path.exists(path) and b"hanging" in open(path, "rb").read())
        child.kill()
        self.assertEqual(child.wait(TIMEOUT_S), -signal.SIGKILL)


class NoKvm(Case):
    """Status 1: the host lacks something. In mount namespaces of their own, so that nobody else sees it."""

    def setUp(self):
        super().setUp()
        if not can_unshare():
            self.skipTest("needs root, to hide /dev/kvm in a mount namespace")

    def run_in_namespace(self, script, *args):
        return run(["unshare", "-m", "sh", "-ec", script, "sh", *args, VMLET, "run", "-k", guest("exit")])

    def expect_status_1(self, result, *words):
        self.assert_complaint(result, 1, "/dev/kvm", *words)

    def test_not_kvm(self):
        self.expect_status_1(self.run_in_namespace('mount --bind /dev/null /dev/kvm; exec "$@"'))

    def test_missing(self):
        self.expect_status_1(self.run_in_namespace('mount -t tmpfs none /dev; exec "$@"'), "modprobe")

    def test_no_device_behind_it(self):
        result = self.run_in_namespace(
            'mount -t tmpfs none "$1"; mknod "$1/kvm" c 10 251; mount --bind "$1/kvm" /dev/kvm; shift; exec "$@"',
            self.dir)
        self.expect_status_1(result)

    def as_nobody(self, mode):
        """The program, a guest and the device in a file system that nobody can reach."""
        if not shutil.which("setpriv"):
            self.skipTest("no setpriv")
        os.chmod(self.dir, 0o755)
        return self.run_in_namespace(
            f'mount -t tmpfs none "$1"; mknod -m {mode} "$1/kvm" c 10 232; chgrp 61234 "$1/kvm";'
            'mount --bind "$1/kvm" /dev/kvm; cp "$2" "$1/vmlet"; cp "$5" "$1/guest"; chmod 755 "$1" "$1"/[vg]*; cd "$1";'
            "exec setpriv --reuid 65534 --regid 65534 --groups 61234 ./vmlet run -k ./guest", self.dir)

    def test_no_permission(self):
        self.expect_status_1(self.as_nobody("0600"), "Permission denied", "usermod -aG kvm")

    def test_member_of_the_group(self):
        result = self.as_nobody("0660")
        self.assertEqual((result.returncode, result.stdout, result.stderr), (0, b"", b""))


class NoResources(Case):
    def test_descriptors(self):
        for limit in range(3, 16):
            result = run(["sh", "-c", f'ulimit -n {limit}; exec "$@"', "sh", *run_args("exit")])
            with self.subTest(limit=limit):
                if result.returncode == 0:
                    return
                if limit > 5:  # below, the program itself may not load
                    self.assertRegex(result.stderr, rb"\Avmlet: [^\n]+\n\Z")
                    self.assertEqual(result.returncode, 1, result.stderr)

    @unittest.skipIf(b"asan" in open(VMLET, "rb").read(), "the address sanitizer needs the address space")
    def test_address_space(self):
        result = run(["sh", "-c", 'ulimit -v 300000; exec "$@"', "sh", *run_args("exit", "-m", "1G")])
        self.assert_complaint(result, 1, "guest memory", "1024 MiB")


if __name__ == "__main__":
    main()
