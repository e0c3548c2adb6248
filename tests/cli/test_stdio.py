"""Standard input, output and error that are closed, full, slow, or not a terminal."""

import os
import subprocess
import threading
import time

from harness import TIMEOUT_S, VMLET, Case, main, run, run_args, run_guest

LINE = b"abcdefghijklmnopqrstuv\n"


def flood(lines):
    return b"".join(b"%08x %s" % (n, LINE) for n in range(lines))


class Stdio(Case):
    def sh(self, redirections, guest, *options, **kwargs):
        return run(["sh", "-c", f'exec "$@" {redirections}', "sh", *run_args(guest, *options)], **kwargs)

    def test_input_closed(self):
        result = self.sh("<&-", "exit-status status=3")
        self.assertEqual(result.returncode, 3)
        self.assertIn(b"command line: 'status=3'", result.stdout)

    def test_output_closed(self):
        result = self.sh(">&-", "flood kib=4")
        self.assertEqual((result.returncode, result.stdout), (0, b""))

    def test_error_closed(self):
        result = self.sh("2>&-", "triple-fault")
        self.assertEqual(result.returncode, 82)
        self.assertEqual(result.stdout, b"triple fault\n", "nothing of the log is in the guest's output")

    def test_all_closed(self):
        self.assertEqual(self.sh("<&- >&- 2>&-", "exit-status status=4").returncode, 4)
        path = self.path("serial")
        self.assertEqual(self.sh("<&- >&- 2>&-", "exit-status status=5", f"--serial=file={path}").returncode, 5)
        with open(path, "rb") as file:
            self.assertTrue(file.read().endswith(b"ok: the command line has status=N\n"))

    def test_the_wrong_way_round(self):
        self.assertEqual(self.sh("0>/dev/null 1</dev/null", "exit-status status=6").returncode, 6)

    def test_full_output(self):
        with open("/dev/full", "wb") as full:
            result = run_guest("flood kib=4", stdout=full)
        self.assertEqual(result.returncode, 0)
        self.assertIn(b"No space left on device", result.stderr)
        self.assertLessEqual(len(result.stderr.splitlines()), 20)

    def test_full_error(self):
        with open("/dev/full", "wb") as full:
            self.assertEqual(run_guest("triple-fault", stderr=full).returncode, 82)

    def test_the_reader_leaves(self):
        """`vmlet run ... | head -1`: the guest's status counts, not SIGPIPE's."""
        result = run(["sh", "-c", '{ "$@"; echo "status $?" >&2; } | head -1', "sh", *run_args("flood kib=16")])
        self.assertEqual(result.stdout, b"00000000 " + LINE)
        self.assertIn(b"status 0\n", result.stderr)

    def test_no_terminal(self):
        result = run(["setsid", "--wait", *run_args("exit-status status=7")], start_new_session=True)
        self.assertEqual(result.returncode, 7)

    def test_from_a_file_to_a_file(self):
        data = bytes(i for i in range(256) if i != 4) * 2
        path = self.path("in", data + b"\x04")
        with open(path, "rb") as stdin, open(self.path("out"), "w+b") as stdout:
            result = run_guest("echo", stdin=stdin, stdout=stdout)
            stdout.seek(0)
            got = stdout.read()
        self.assertEqual(result.returncode, 0)
        self.assertEqual(got, b"echo: polled\n" + data)

    def test_bytes_of_a_pipe_are_all_the_guest_s(self):
        """No terminal, no escape keys: Ctrl-A x is data."""
        result = run_guest("echo", input=b"\x01x\x01\x01?\x03\x1a\x1c\r\n\x04")
        self.assertEqual((result.returncode, result.stdout), (0, b"echo: polled\n\x01x\x01\x01?\x03\x1a\x1c\r\n"))

    def test_the_end_of_input_is_not_the_end(self):
        self.assertEqual(run_guest("flood kib=8", input=b"").stdout, flood(256))

    def test_slow_reader(self):
        child = self.popen(run_args("flood kib=72"))
        time.sleep(1)
        got = b""
        while data := os.read(child.stdout.fileno(), 1000):
            got += data
            time.sleep(0.001)
        self.assertEqual(child.wait(TIMEOUT_S), 0)
        self.assertEqual(got, flood(2304))

    def test_both_ways(self):
        data = os.urandom(12000).replace(b"\x04", b"\x05")
        child = self.popen(run_args("echo irq=pic"))
        got = self.read_until(child.stdout.fileno(), b"\n")
        threading.Thread(target=lambda: (child.stdin.write(data + b"\x04"), child.stdin.flush())).start()
        while chunk := os.read(child.stdout.fileno(), 65536):
            got += chunk
        self.assertEqual(child.wait(TIMEOUT_S), 0)
        self.assertEqual(got.split(b"\n", 1)[1], data)

    def test_nonblocking_descriptors_stay_as_they_are(self):
        """The descriptors are shared with whoever gave them: a VM must not change their flags."""
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        with open("/dev/null", "rb") as stdin:
            child = self.popen(run_args("flood kib=72"), stdin=stdin, stdout=writer)
            got = b""
            time.sleep(0.2)
            self.assertFalse(os.get_blocking(writer))
            os.close(writer)
            while data := os.read(reader, 65536):
                got += data
        os.close(reader)
        self.assertEqual(child.wait(TIMEOUT_S), 0)
        self.assertEqual(got, flood(2304))

    def test_output_that_nobody_reads_delays_the_end_a_little(self):
        reader, writer = os.pipe()
        os.write(writer, b"x" * 65536)  # full
        start = time.monotonic()
        result = run_guest("exit-status status=9", stdout=writer)
        self.assertEqual(result.returncode, 9)
        self.assertLess(time.monotonic() - start, 10)
        os.close(reader)
        os.close(writer)


if __name__ == "__main__":
    main()
