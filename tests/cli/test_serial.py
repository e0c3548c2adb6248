"""--serial null, file, pty and unix; --log-file and --log-level."""

import os
import re
import socket
import signal
import stat

from harness import TIMEOUT_S, Case, main, run_args, run_guest


class Serial(Case):
    def read(self, path):
        with open(path, "rb") as file:
            return file.read()

    def test_null(self):
        result = run_guest("exit-status status=2", "--serial=null")
        self.assertEqual((result.returncode, result.stdout), (2, b""))

    def test_file(self):
        path = self.path("serial", b"old" * 1000)
        result = run_guest("exit-status status=0", "--serial", f"file={path}")
        self.assertEqual((result.returncode, result.stdout, result.stderr), (0, b"", b""))
        self.assertTrue(self.read(path).startswith(b"ok: "))
        self.assertTrue(self.read(path).endswith(b"status=N\n"))

    def test_file_that_is_new(self):
        path = self.path("serial")
        os.umask(0o027)
        run_guest("exit-status status=0", f"--serial=file={path}")
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o640)

    def test_pty(self):
        child = self.popen(run_args("echo irq=pic", "--serial", "pty"))
        line = self.read_until(child.stderr.fileno(), b"\n").decode()
        path = re.fullmatch(r"vmlet: serial port is (/dev/pts/\d+)\n", line).group(1)
        for _ in range(2):
            fd = os.open(path, os.O_RDWR | os.O_NOCTTY)
            os.write(fd, b"hello\r\n")
            self.read_until(fd, b"hello\r\n")
            os.close(fd)
        fd = os.open(path, os.O_RDWR | os.O_NOCTTY)
        os.write(fd, b"\x04")
        self.assertEqual(child.wait(TIMEOUT_S), 0)
        os.close(fd)
        self.assertEqual(child.stdout.read(), b"")

    def connect(self, path):
        def attempt():
            client = socket.socket(socket.AF_UNIX)
            client.settimeout(TIMEOUT_S)
            try:
                client.connect(path)
                client.settimeout(None)
                return client
            except OSError:
                client.close()
                return None

        client = self.wait_for(attempt)
        self.addCleanup(client.close)
        return client

    def test_unix(self):
        path = self.path("socket")
        child = self.popen(run_args("echo irq=pic", f"--serial=unix={path}"))
        for i in range(3):
            client = self.connect(path)
            client.sendall(b"visit %d\n" % i)
            self.read_until(client.fileno(), b"visit %d\n" % i)
            client.close()
        self.connect(path).sendall(b"\x04")
        self.assertEqual(child.wait(TIMEOUT_S), 0)
        self.assertFalse(os.path.exists(path), "the socket is removed")

    def test_unix_is_removed_after_a_signal(self):
        path = self.path("socket")
        child = self.popen(run_args("hang", f"--serial=unix={path}"))
        self.connect(path)
        child.terminate()
        self.assertEqual(child.wait(TIMEOUT_S), 128 + signal.SIGTERM)
        self.assertFalse(os.path.exists(path))

    def test_a_relative_path(self):
        child = self.popen(run_args("hang", "--serial=unix=here"), cwd=self.dir)
        self.connect(self.path("here"))
        child.terminate()
        child.wait(TIMEOUT_S)
        self.assertFalse(os.path.exists(self.path("here")))


class Log(Case):
    def read(self, path):
        with open(path, "rb") as file:
            return file.read()

    def test_file(self):
        path = self.path("log", b"before\n")
        result = run_guest("triple-fault", "--log-file", path)
        self.assertEqual(result.returncode, 82)
        self.assertEqual(result.stderr, b"vmlet: the guest ended in a triple fault\n")
        log = self.read(path)
        self.assertTrue(log.startswith(b"before\n"), "it is appended to")
        self.assertIn(b"code at rip", log)

    def test_levels(self):
        sizes = []
        for level in ("error", "warn", "info", "debug"):
            path = self.path(level)
            run_guest("exit", "--log-level", level, "--log-file", path)
            sizes.append(len(self.read(path)))
        self.assertEqual(sizes[:2], [0, 0], "a good run says nothing")
        self.assertEqual(sizes, sorted(sizes))

    def test_a_full_log(self):
        self.assertEqual(run_guest("triple-fault", "--log-file=/dev/full").returncode, 82)


if __name__ == "__main__":
    main()
