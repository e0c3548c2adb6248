"""vmlet test: fleets of real bare-metal guests, their reports, and what is left of them (nothing)."""

import json
import os
import pty
import re
import signal
import subprocess
import time
import xml.etree.ElementTree

from harness import TIMEOUT_S, VMLET, Case, before_exec, guest, main, vmlet

GOOD = """
[defaults]
timeout = 20s
[exits]
kernel = {exit}
[status]
kernel = {exit-status}
cmdline = status=7
status = 7
[panics]
kernel = {panic}
status = panic
[hangs]
kernel = {hang}
timeout = 300ms
status = timeout
[expects]
kernel = {hang}
expect = hang
expect = ing: hlt
"""
BAD = """
[wrong-status]
kernel = {exit-status}
cmdline = status=3
[hangs]
kernel = {hang}
timeout = 300ms
[panics]
kernel = {panic}
[not-shown]
kernel = {exit-status}
cmdline = status=0
expect = something else
[shown]
kernel = {hang}
fail-on = hanging
"""


def fill(text):
    return re.sub(r"\{([a-z-]+)\}", lambda match: guest(match[1]), text).encode()


def vmlets_in(directory):
    """Processes of vmlet that have this directory on their command line."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                words = file.read().split(b"\0")
        except OSError:
            continue
        if b"run" in words[:2] and any(directory.encode() in word for word in words):
            found.append(int(pid))
    return found


def shows(path, text):
    """The file is there and has this text."""
    try:
        with open(path, "rb") as file:
            return text in file.read()
    except FileNotFoundError:
        return False


class Fleet(Case):
    def setUp(self):
        super().setUp()
        self.out = self.path("out")

    def ini(self, text, name="t.ini"):
        return self.path(name, fill(text))

    def fleet(self, text, *options, status=0, **kwargs):
        """Runs the tests; TAP's lines of results, without their diagnostics."""
        result = vmlet("test", self.ini(text), "--output", self.out, *options, **kwargs)
        self.assertEqual(result.returncode, status, result.stderr)
        self.err = result.stderr.decode()
        self.tap = result.stdout.decode()
        return re.findall(r"^(?:not )?ok .*$", self.tap, re.M)

    def test_all_pass(self):
        points = self.fleet(GOOD, "-j4")
        self.assertEqual(points, ["ok 1 - exits", "ok 2 - status", "ok 3 - panics", "ok 4 - hangs", "ok 5 - expects"])
        self.assertTrue(self.tap.startswith("TAP version 14\n1..5\n"))
        self.assertRegex(self.err, r"\Avmlet: 5 tests in [0-9.]+ s: 5 passed, 0 failed, 0 skipped\n\Z")
        with open(f"{self.out}/expects/console.log", "rb") as file:
            self.assertIn(b"hanging: hlt", file.read())
        with open(f"{self.out}/status/status.json", encoding="utf-8") as file:
            self.assertEqual(json.load(file)["value"], 7)
        with open(f"{self.out}/panics/events.jsonl", encoding="utf-8") as file:
            self.assertEqual(json.loads(file.readlines()[-1])["reason"], "panic")

    def test_failures(self):
        points = self.fleet(BAD, "-j4", status=1)
        self.assertTrue(all(point.startswith("not ok") for point in points), points)
        self.assertEqual(len(points), 5)
        for reason in ("status 3 (debug-exit) instead of 0", "status 124 (timeout) instead of 0",
                       "status 81 (panic) instead of 0", "status 84 (expect) instead of 0",
                       "status 84 (fail-on) instead of 0"):
            self.assertIn(reason, self.tap)
            self.assertIn(reason, self.err)
        self.assertIn('    - "hanging: hlt', self.tap)

    def test_reports(self):
        text = BAD + "[<&\"'`|odd>]\nkernel = {exit}\n"
        self.fleet(text, "--junit", self.path("junit.xml"), "--markdown", self.path("summary.md"),
                  "--tap", self.path("tap"), status=1)
        self.assertEqual(self.tap, "")
        with open(self.path("tap"), encoding="utf-8") as file:
            self.assertIn("1..6\n", file.read())
        top = xml.etree.ElementTree.parse(self.path("junit.xml")).getroot()
        self.assertEqual((top.tag, top.get("tests"), top.get("failures")), ("testsuites", "6", "5"))
        names = [case.get("name") for case in top.iter("testcase")]
        self.assertEqual(names[0], "wrong-status")
        self.assertEqual(names[5], "<&\"'`|odd>")
        self.assertIn("hanging: hlt", top.find(".//testcase[@name='hangs']/failure").text)
        with open(self.path("summary.md"), encoding="utf-8") as file:
            self.assertIn("| wrong-status | **failed** |", file.read())

    def test_control_characters_in_reports(self):
        """A guest's console may hold anything; the XML stays well-formed."""
        text = "[echo]\nkernel = {exit-status}\ncmdline = status=3 \xff\xfe\xef\xbf\xbf<]]>&\n"
        ini = self.path("t.ini", fill(text).decode("utf-8").encode("latin-1"))
        result = vmlet("test", ini, "--junit", self.path("junit.xml"), "--output", self.out)
        self.assertEqual(result.returncode, 1, result.stderr)
        top = xml.etree.ElementTree.parse(self.path("junit.xml")).getroot()
        self.assertIn("<]]>&", top.find(".//failure").text)
        result.stdout.decode("utf-8")

    def test_matrix_filter_list(self):
        text = "[defaults]\nkernel = {exit}\n[a]\nmatrix.cpus = 1 2\nmatrix.memory = 32M 64M\n[b]\n"
        names = ["a[cpus=1,memory=32M]", "a[cpus=1,memory=64M]", "a[cpus=2,memory=32M]", "a[cpus=2,memory=64M]", "b"]
        self.assertEqual(self.fleet(text), [f"ok {i + 1} - {name}" for i, name in enumerate(names)])
        self.assertEqual(self.fleet(text, "--filter", "cpus=2.*64|b"), ["ok 1 - a[cpus=2,memory=64M]", "ok 2 - b"])
        self.assertEqual(vmlet("test", "--list", self.ini(text)).stdout.decode().splitlines(), names)
        result = vmlet("test", "--filter", "nothing", self.ini(text))
        self.assert_complaint(result, 2, "no test's name matches 'nothing'")

    def test_retry_of_a_flaky_one(self):
        """The kernel is replaced while its first attempt runs; the second finds a better one."""
        kernel = self.path("kernel")
        with open(guest("hang"), "rb") as file:
            self.path("kernel", file.read())
        child = self.popen([VMLET, "test", self.ini("[flaky]\nkernel = kernel\ntimeout = 700ms\n"), "--retry=1",
                            "--output", self.out])
        self.wait_for(lambda: shows(f"{self.out}/flaky/console.log", b"hanging"))
        with open(guest("exit"), "rb") as file:
            self.path("new", file.read())
        os.rename(self.path("new"), kernel)
        out, err = child.communicate(timeout=TIMEOUT_S)
        self.assertEqual(child.returncode, 0, err)
        self.assertIn(b"ok 1 - flaky\n# passed at attempt 2\n", out)

    def test_fail_fast(self):
        points = self.fleet(BAD, "-j1", "--fail-fast", status=1)
        self.assertTrue(points[0].startswith("not ok 1"))
        self.assertEqual(points[1:], [f"ok {i} - {name} # SKIP not run after the failure of wrong-status"
                                      for i, name in enumerate(["hangs", "panics", "not-shown", "shown"], 2)])

    def test_paths_are_relative_to_the_file(self):
        os.mkdir(self.path("sub"))
        os.symlink(guest("exit"), self.path("sub/kernel"))
        self.assertEqual(vmlet("test", self.ini("[a]\nkernel = kernel\n", "sub/t.ini"), cwd="/").returncode, 0)

    def test_fresh_directory(self):
        result = vmlet("test", self.ini(GOOD), env={"TMPDIR": self.dir})
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(os.listdir(self.dir), ["t.ini"])
        result = vmlet("test", self.ini("[a]\nkernel = {exit}\n[b]\nkernel = {panic}\n"), env={"TMPDIR": self.dir})
        self.assertEqual(result.returncode, 1)
        said = re.search(r"the output of what failed is in (\S+)\n", result.stderr.decode())
        self.assertEqual(os.listdir(said[1]), ["b"])


class Mistakes(Case):
    def refuse(self, text, *words, options=()):
        path = self.path("t.ini", fill(text))
        result = vmlet("test", path, *options, env={"TMPDIR": self.dir})
        self.assert_complaint(result, 2, *words)
        self.assertEqual([name for name in os.listdir(self.dir) if name.startswith("vmlet-test")], [])

    def test_files(self):
        good = "[a]\nkernel = {exit}\n"
        self.refuse("[a]\nkernel = /nonexistent\n", "t.ini:2: kernel '/nonexistent' cannot be read: No such file")
        self.refuse(good + "initrd = nothing\n", "t.ini:3: initrd 'nothing' cannot be read")
        self.refuse(good + "disk = nothing.img,ro\n", "t.ini:3: disk 'nothing.img' cannot be read")
        self.refuse(good + "disk = x,colour=red\n", "t.ini:3: ")
        self.refuse(good + "net = stream=nothing.sock\n", "t.ini:3: net 'nothing.sock' cannot be read: No such file")
        self.refuse(good + "net = listen=no/wire\n", "t.ini:3: net 'no/wire' cannot be made: No such file")
        self.refuse(good + "console = port=p:unix=no/p\n", "t.ini:3: console 'no/p' cannot be made: No such file")
        self.refuse(good + "vsock = /proc/version/v,cid=4\n", "t.ini:3: vsock '/proc/version/v' cannot be made: ")
        self.refuse(good + "net = tap,mtu=1\n", "t.ini:3: --net 'tap,mtu=1': mtu cannot be '1'")
        self.refuse(good + "rng = yes\n", "t.ini:3: --rng 'yes': unknown setting 'yes'")
        self.refuse("[a]\nkernel = /\n", "t.ini:2: kernel '/' cannot be read: Is a directory")
        self.refuse(good + "[a]\n", "t.ini:3: there is a section [a] already, in line 1")
        self.refuse(good + "matrix.cpus =\n", "t.ini:3: the matrix matrix.cpus has no values")
        self.refuse(good + "colour = red\n", "t.ini:3: unknown key 'colour'")
        self.refuse("[a]\n", "t.ini:1: the test 'a' has no kernel")
        self.refuse(good, "'/nonexistent/j.xml' cannot be written", options=["--junit=/nonexistent/j.xml"])
        self.refuse(good, "'/proc/version/x'", options=["--output=/proc/version/x"])

    def test_same_name_in_two_files(self):
        one, two = (self.path(name, fill("[a]\nkernel = {exit}\n")) for name in ("1.ini", "2.ini"))
        self.assert_complaint(vmlet("test", one, two), 2, "2.ini:1: there is a test 'a' already, in", "1.ini:1")

    def test_command_line(self):
        self.assert_complaint(vmlet("test"), 2, "test needs a file")
        self.assert_complaint(vmlet("test", "/nonexistent.ini"), 2, "'/nonexistent.ini' cannot be read")
        self.assert_complaint(vmlet("test", "--junk", "x"), 2, "did you mean --junit?")
        self.assert_complaint(vmlet("test", "-j0", "x"), 2, "--jobs cannot be '0'")
        self.assert_complaint(vmlet("test", "--filter", "a(", "x"), 2, "--filter cannot be 'a('")
        self.assertEqual(vmlet("test", "--help").stdout, vmlet("help", "test").stdout)


class Interrupted(Case):
    TESTS = "[defaults]\nkernel = {hang}\n[a]\ncmdline = how=spin\n[b]\n[c]\n[d]\n"

    def start(self, *options):
        child = self.popen([VMLET, "test", "-j2", "--output", self.path("out"), "--junit", self.path("junit.xml"),
                            *options, self.path("t.ini", fill(self.TESTS))], stdin=subprocess.DEVNULL)
        for name in "ab":
            self.wait_for(lambda name=name: shows(self.path(f"out/{name}/console.log"), b"hanging"))
        self.assertEqual(len(vmlets_in(self.dir)), 2)
        return child

    def test_signals(self):
        for signo in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            with self.subTest(signal=signo.name):
                child = self.start()
                begin = time.monotonic()
                child.send_signal(signo)
                out, _ = child.communicate(timeout=TIMEOUT_S)
                self.assertLess(time.monotonic() - begin, 5)
                self.assertEqual(child.returncode, 128 + signo)
                self.assertEqual(out.decode().count("# SKIP interrupted\n"), 4)
                self.assertIn(f"Bail out! interrupted by signal {signo.value}\n", out.decode())
                top = xml.etree.ElementTree.parse(self.path("junit.xml")).getroot()
                self.assertEqual(top.get("skipped"), "4")
                self.assertEqual(vmlets_in(self.dir), [])
                subprocess.run(["rm", "-rf", self.path("out")], check=True)

    def test_killed(self):
        child = self.start()
        child.kill()
        child.wait(TIMEOUT_S)
        self.wait_for(lambda: not vmlets_in(self.dir), 5)

    def test_a_closed_pipe(self):
        child = self.popen([VMLET, "test", self.path("t.ini", fill(GOOD)), "--output", self.path("out")])
        child.stdout.close()
        child.stdout = None
        _, err = child.communicate(timeout=TIMEOUT_S)
        self.assertEqual(child.returncode, 3)
        self.assertIn(b"the TAP report could not be written in full", err)

    def test_progress_on_a_terminal(self):
        terminal, child_side = pty.openpty()
        self.addCleanup(os.close, terminal)
        text = "[a]\nkernel = {hang}\ntimeout = 1500ms\nstatus = timeout\n"
        child = subprocess.Popen([VMLET, "test", self.path("t.ini", fill(text))], stderr=child_side,
                                 stdout=subprocess.DEVNULL, env={"TERM": "xterm"}, preexec_fn=before_exec)
        os.close(child_side)
        self.read_until(terminal, b"[0/1] 0 failed, 1 running")
        self.read_until(terminal, b"\r\x1b[Kvmlet: 1 test in")
        self.assertEqual(child.wait(TIMEOUT_S), 0)


class Pages(Case):
    def test_manual_page(self):
        """Every key and option is in the manual, and in the help."""
        with open(os.environ["VMLET_MAN"], encoding="utf-8") as file:
            page = file.read()
        with open(os.path.join(os.path.dirname(os.environ["VMLET_MAN"]), "vmlet-test.5"), encoding="utf-8") as file:
            keys_page = file.read()
        text = vmlet("help", "test").stdout.decode()
        for name in re.findall(r"--([a-z-]+) ", text):
            if name != "help":
                self.assertTrue(f"Fl Fl {name}" in page, name)
        keys = re.search(r"Keys: (.*), and matrix.KEY", text, re.S)[1].split()
        self.assertIn("kernel", keys)
        for key in keys:
            self.assertIn(f".It Li {key} =", keys_page)
            refused = vmlet("test", self.path("t.ini", f"[a]\nmatrix.{key} =\n".encode())).stderr
            self.assertNotIn(b"unknown key", refused)

    def test_the_guide_s_example(self):
        """The test file of docs/ci.md is one."""
        with open(os.path.join(os.path.dirname(os.environ["VMLET_MAN"]), "ci.md"), encoding="utf-8") as file:
            text = re.search(r"```ini\n(.*?)```", file.read(), re.S)[1]
        for name in ("vmlinuz", "test.cpio", "exit3.cpio"):
            self.path(name, b"")
        result = vmlet("test", "--list", self.path("t.ini", text.encode()))
        self.assertEqual(result.stdout.decode().splitlines(),
                         ["boots[cpus=1]", "boots[cpus=4]", "exits with the status of its init"], result.stderr)


if __name__ == "__main__":
    main()
