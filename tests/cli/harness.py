"""Runs vmlet as a user does: with arguments, descriptors and terminals. Everything has a time-out and leaves nothing."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

VMLET = os.environ.get("VMLET", "vmlet")
GUESTS = os.environ.get("VMLET_GUESTS", ".")
TIMEOUT_S = 30


def guest(name):
    return os.path.join(GUESTS, "guest-" + name)


def run_args(name, *options):
    """`name` is a guest with its command line: "exit-status status=3"."""
    words = name.split()
    args = [VMLET, "run", "-k", guest(words[0]), *options]
    return args + ["--", *words[1:]] if words[1:] else args


def before_exec():
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # A shell's background job begins with some of these ignored, and vmlet rightly leaves what it inherits alone.
    for signo in (signal.SIGPIPE, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(signo, signal.SIG_DFL)


def vmlet(*args, **kwargs):
    """Runs `vmlet args...` to its end; output as bytes."""
    return run([VMLET, *args], **kwargs)


def run(args, **kwargs):
    kwargs.setdefault("stdin", subprocess.DEVNULL)
    kwargs.setdefault("stdout", subprocess.PIPE)
    kwargs.setdefault("stderr", subprocess.PIPE)
    kwargs.setdefault("timeout", TIMEOUT_S)
    if "input" in kwargs:
        del kwargs["stdin"]
    return subprocess.run(args, preexec_fn=kwargs.pop("preexec_fn", before_exec), **kwargs)


def run_guest(name, *options, **kwargs):
    return run(run_args(name, *options), **kwargs)


class Case(unittest.TestCase):
    """A test with a directory of its own and children that do not outlive it."""

    def setUp(self):
        signal.alarm(120)
        self.dir = tempfile.mkdtemp(prefix="vmlet-cli-")
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)

    def path(self, name, content=None):
        path = os.path.join(self.dir, name)
        if content is not None:
            with open(path, "wb") as file:
                file.write(content)
        return path

    def popen(self, args, **kwargs):
        kwargs.setdefault("stdin", subprocess.PIPE)
        kwargs.setdefault("stdout", subprocess.PIPE)
        kwargs.setdefault("stderr", subprocess.PIPE)
        child = subprocess.Popen(args, preexec_fn=kwargs.pop("preexec_fn", before_exec), **kwargs)
        self.addCleanup(self._end, child)
        return child

    def _end(self, child):
        if child.poll() is None:
            child.kill()
        child.wait(TIMEOUT_S)
        for stream in (child.stdin, child.stdout, child.stderr):
            if stream:
                try:
                    stream.close()
                except OSError:
                    pass

    def wait_for(self, what, seconds=TIMEOUT_S):
        """Polls `what` until it is true; returns it."""
        end = time.monotonic() + seconds
        while True:
            value = what()
            if value:
                return value
            self.assertLess(time.monotonic(), end, "waited for too long")
            time.sleep(0.005)

    def read_until(self, fd, text, got=b""):
        """Reads from the descriptor until `text` has come; returns everything."""
        end = time.monotonic() + TIMEOUT_S
        while text not in got:
            self.assertLess(time.monotonic(), end, f"no {text!r} in {got!r}")
            data = os.read(fd, 65536)
            self.assertTrue(data, f"end of file before {text!r}: {got!r}")
            got += data
        return got

    def assert_complaint(self, result, status, *words):
        """It ended with this status and one sentence on standard error that has these words."""
        message = result.stderr.decode()
        self.assertEqual(result.returncode, status, message)
        self.assertEqual(result.stdout, b"")
        self.assertRegex(message, r"\Avmlet: [^\n]+\n\Z")
        for word in words:
            self.assertIn(word, message)


def main():
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        print(f"skipped: /dev/kvm: {error.strerror}")
        sys.exit(77)
    # Without a word, everything but the class Long; with one, that class.
    if len(sys.argv) > 1:
        unittest.main(verbosity=2)
    names = [name for name, value in vars(sys.modules["__main__"]).items()
             if isinstance(value, type) and issubclass(value, Case) and value is not Case and name != "Long"]
    unittest.main(argv=[sys.argv[0], *names], verbosity=2)
