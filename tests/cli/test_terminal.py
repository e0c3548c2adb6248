"""vmlet at a terminal: raw mode, which always ends, and the keys after Ctrl-A."""

import fcntl
import os
import select
import signal
import termios
import threading
import time

from harness import TIMEOUT_S, Case, before_exec, main, run_args

CTRL_A = b"\x01"
CTRL_D = b"\x04"


def modes(fd):
    return termios.tcgetattr(fd)[:4] + [termios.tcgetattr(fd)[6]]


class Terminal(Case):
    """One vmlet in the foreground of a pseudo-terminal; `master` is the user's side of it."""

    def start(self, guest, *options, wait=b"\n"):
        self.master, slave = os.openpty()
        self.addCleanup(os.close, self.master)
        self.before = modes(self.master)

        def attach():
            before_exec()
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.child = self.popen(run_args(guest, *options), stdin=slave, stdout=slave, stderr=slave, preexec_fn=attach)
        os.close(slave)
        self.got = b""
        self.wait_for(self.is_raw)
        self.read(wait)

    def is_raw(self):
        self.assertIsNone(self.child.poll(), "it has ended")
        return not termios.tcgetattr(self.master)[3] & termios.ICANON

    def read(self, text):
        end = time.monotonic() + TIMEOUT_S
        while text not in self.got:
            self.assertLess(time.monotonic(), end, f"no {text!r} in {self.got!r}")
            if select.select([self.master], [], [], 0.1)[0]:
                self.got += os.read(self.master, 65536)

    def read_rest(self):
        while select.select([self.master], [], [], 0.05)[0]:
            try:
                data = os.read(self.master, 65536)
            except OSError:  # EIO: nobody has the other side open
                break
            if not data:
                break
            self.got += data

    def type(self, data):
        os.write(self.master, data)

    def expect_end(self, status):
        self.assertEqual(self.child.wait(TIMEOUT_S), status)
        self.read_rest()
        self.assertEqual(modes(self.master), self.before, "the terminal is as it was")

    def test_end_by_the_guest(self):
        self.start("echo irq=pic")
        self.type(b"hello\r")
        self.read(b"hello\r")
        self.assertNotIn(b"hello\r\n", self.got, "no echo by the terminal, no translation")
        self.type(CTRL_D)
        self.expect_end(0)

    def test_every_key_is_the_guest_s(self):
        self.start("echo irq=ioapic")
        keys = bytes(i for i in range(256) if i not in (1, 4))
        self.type(keys)
        self.read(keys)
        self.type(CTRL_D)
        self.expect_end(0)

    def test_leave(self):
        for guest in ("hang how=hlt", "hang how=spin", "echo irq=pic"):
            with self.subTest(guest=guest):
                self.start(guest)
                start = time.monotonic()
                self.type(CTRL_A + b"x")
                self.expect_end(85)
                self.assertLess(time.monotonic() - start, 2)
                self.assertTrue(self.got.endswith(b"\r\nvmlet: left with Ctrl-A x\r\n"), self.got)

    def test_leave_key_by_key(self):
        self.start("hang")
        self.type(CTRL_A)
        time.sleep(0.05)
        self.type(b"x")
        self.expect_end(85)

    def test_help(self):
        self.start("echo irq=pic")
        self.type(CTRL_A + b"?")
        self.read(b"Ctrl-A Ctrl-A")
        self.read(b"send one Ctrl-A to the guest\r\n")
        self.assertIn(b"Ctrl-A x", self.got)
        self.type(b"still here")
        self.read(b"still here")
        self.type(CTRL_D)
        self.expect_end(0)

    def test_literal(self):
        self.start("echo irq=pic")
        self.type(b"<" + CTRL_A + CTRL_A + b"|" + CTRL_A + b"z>")
        self.read(b"<" + CTRL_A + b"|>")
        self.type(CTRL_D)
        self.expect_end(0)

    def test_power_button(self):
        self.start("power-button irq", wait=b"press\n")
        self.type(CTRL_A + b"p")
        self.expect_end(0)
        self.assertIn(b"its status is clear again", self.got)

    def test_signals(self):
        for signo in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            with self.subTest(signal=signo.name):
                self.start("hang how=spin")
                self.child.send_signal(signo)
                self.expect_end(128 + signo)

    def test_fatal_signals(self):
        for signo in (signal.SIGABRT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGALRM, signal.SIGXCPU):
            with self.subTest(signal=signo.name):
                self.start("hang")
                self.child.send_signal(signo)
                self.expect_end(-signo)

    def test_ends_of_all_kinds(self):
        for guest, status in (("poweroff", 0), ("reset", 80), ("panic", 81), ("triple-fault", 82)):
            with self.subTest(guest=guest):
                self.master, slave = os.openpty()
                self.before = modes(self.master)
                self.child = self.popen(run_args(guest), stdin=slave, stdout=slave, stderr=slave)
                os.close(slave)
                self.got = b""
                self.expect_end(status)
                os.close(self.master)

    def test_a_mistake_does_not_touch_the_terminal(self):
        self.master, slave = os.openpty()
        self.addCleanup(os.close, self.master)
        self.before = modes(self.master)
        self.child = self.popen(run_args("exit", "-c", "0"), stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)
        self.got = b""
        self.expect_end(2)
        self.assertEqual(self.got.count(b"\n"), 1)

    def test_the_terminal_goes_away(self):
        self.start("hang")
        os.dup2(os.open("/dev/null", os.O_RDWR), self.master)  # closes it: the kernel sends SIGHUP
        self.assertEqual(self.child.wait(TIMEOUT_S), 128 + signal.SIGHUP)

    def test_not_the_terminal_s_foreground(self):
        """In the background a VM writes, gets no input, changes no modes, and is not stopped."""
        self.master, slave = os.openpty()
        self.addCleanup(os.close, self.master)
        self.before = modes(self.master)
        script = 'set -m; "$@" & wait $!; echo "status $?"'

        def attach():
            before_exec()
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        args = ["bash", "-c", script, "bash", *run_args("flood kib=2")]
        self.child = self.popen(args, stdin=slave, stdout=slave, stderr=slave, preexec_fn=attach)
        os.close(slave)
        self.got = b""
        self.read(b"status ")
        self.expect_end(0)
        self.assertIn(b"0000003f abc", self.got)
        self.assertIn(b"status 0", self.got)

    def test_suspend(self):
        """SIGTSTP puts the terminal back and stops; SIGCONT makes it raw again."""
        self.master, slave = os.openpty()
        self.addCleanup(os.close, self.master)
        self.before = modes(self.master)

        def attach():
            before_exec()
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        # A shell above it: the group of a session's leader cannot be stopped.
        script = 'set -m; "$@"; echo "stopped $?"; fg >/dev/null; echo "status $?"'
        args = ["bash", "-c", script, "bash", *run_args("echo irq=pic")]
        self.child = self.popen(args, stdin=slave, stdout=slave, stderr=slave, preexec_fn=attach)
        os.close(slave)
        self.got = b""
        self.wait_for(self.is_raw)
        self.read(b"PIC\n")
        os.killpg(os.tcgetpgrp(self.master), signal.SIGTSTP)
        self.read(b"stopped 148")
        self.wait_for(self.is_raw)  # fg has let it go on
        self.type(b"again")
        self.read(b"again")
        self.type(CTRL_D)
        self.expect_end(0)
        self.assertIn(b"status 0", self.got)

    def transfer(self, size):
        """Through the echo guest both ways, typed as fast as the terminal takes it, without loss."""
        self.start("echo irq=pic")
        data = os.urandom(size).replace(CTRL_D, b"\x05")
        typed = data.replace(CTRL_A, CTRL_A + CTRL_A)

        def type_all():
            at = 0
            while at < len(typed):
                at += os.write(self.master, typed[at:at + 4096])

        typist = threading.Thread(target=type_all, daemon=True)
        typist.start()
        got = bytearray(self.got.split(b"\n", 1)[1])
        while len(got) < len(data):
            self.assertTrue(select.select([self.master], [], [], TIMEOUT_S)[0], f"{len(got)} bytes, then nothing")
            got += os.read(self.master, 65536)
        typist.join(TIMEOUT_S)
        self.assertTrue(bytes(got) == data, "the bytes differ")
        self.type(CTRL_D)
        self.expect_end(0)

    def test_both_ways(self):
        self.transfer(24 << 10)


class Long(Terminal):
    def setUp(self):
        super().setUp()
        signal.alarm(580)

    def test_megabyte(self):
        self.transfer(1 << 20)


if __name__ == "__main__":
    main()
