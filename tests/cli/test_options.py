"""Everything that vmlet refuses before a VM starts: status 2, one sentence, nothing created."""

import os
import socket

from harness import Case, guest, main, run_guest, vmlet

EXIT = guest("exit")

# Arguments, and words that the sentence must have.
BAD = [
    ([], "vmlet run --kernel"),
    (["start"], "unknown command 'start'"),
    (["rum"], "did you mean run?"),
    (["-k", EXIT], "vmlet run -k"),
    (["--kernel", EXIT], "after a command"),
    (["run"], "--kernel"),
    (["run", "-k"], "--kernel needs a value"),
    (["run", "--kernel"], "--kernel needs a value"),
    (["run", "--kernel="], "--kernel"),
    (["run", "--kernle", EXIT], "did you mean --kernel?"),
    (["run", "-kernel", EXIT], "--kernel"),
    (["run", "-z"], "'-z'"),
    (["run", EXIT], f"unexpected argument '{EXIT}"[:40]),
    (["run", "-k", EXIT, "console=ttyS0"], "--"),
    (["run", "-k", EXIT, "-k", "/nonexistent"], "/nonexistent"),
    (["run", "-k", EXIT, "--cpus", "0"], "--cpus"),
    (["run", "-k", EXIT, "-c", "255"], "1 to 254"),
    (["run", "-k", EXIT, "-c", "two"], "'two'"),
    (["run", "-k", EXIT, "-c", "+1"], "'+1'"),
    (["run", "-k", EXIT, "-c", "99999999999999999999"], "--cpus"),
    (["run", "-k", EXIT, "-m", "1"], "--memory"),
    (["run", "-k", EXIT, "-m", "-1"], "--memory"),
    (["run", "-k", EXIT, "-m", "2050k1"], "--memory"),
    (["run", "-k", EXIT, "-m", "2049K"], "--memory"),
    (["run", "-k", EXIT, "-m", "99999999999999999T"], "--memory"),
    (["run", "-k", EXIT, "-m", ""], "--memory"),
    (["run", "-k", EXIT, "--cpu-features", "avx2"], "--cpu-features"),
    (["run", "-k", EXIT, "--cpu-features", "+no_such"], "'no_such'"),
    (["run", "-k", EXIT, "--serial", "tty"], "--serial"),
    (["run", "-k", EXIT, "--serial", "file="], "--serial"),
    (["run", "-k", EXIT, "--serial", "file=/nonexistent/log"], "/nonexistent/log"),
    (["run", "-k", EXIT, "--serial", "unix=/nonexistent/socket"], "/nonexistent/socket"),
    (["run", "-k", EXIT, "--serial", "unix=" + "x" * 200], "107"),
    (["run", "-k", EXIT, "--disk", ""], "--disk"),
    (["run", "-k", EXIT, "-d", "x.img,rw"], "did you mean 'ro'?"),
    (["run", "-k", EXIT, "-d", "x.img,queues=17"], "queues cannot be '17'"),
    (["run", "-k", EXIT, "-d", "x.img,ro,overlay"], "not both"),
    (["run", "-k", EXIT, "-d", "x.img,id=disk1", "-d", "y.img"], "its id 'disk1'"),
    (["run", "-k", EXIT, "-d", "nbd=localhost"], "HOST:PORT"),
    (["run", "-k", EXIT, "-d", "nbd=localhost:10809,direct"], "direct"),
    (["run", "-k", EXIT, *["-d", "x.img"] * 32], "at most 31"),
    (["run", "-k", EXIT, "--net", "user"], "passt[=SOCKET]"),
    (["run", "-k", EXIT, "--net", "tap=tap0", "--net", "none"], "beside another --net"),
    (["run", "-k", EXIT, "--net", "tap,mac=01:00:5e:00:00:01"], "multicast"),
    (["run", "-k", EXIT, "--net", "tap,mtu=67"], "68 to 65535"),
    (["run", "-k", EXIT, "--net", "tap,queues=9"], "1 to 8"),
    (["run", "-k", EXIT, "--net", "tap,id=net1", "--net", "tap"], "its id 'net1'"),
    (["run", "-k", EXIT, "--net", "passt,publish=80:65536"], "HOSTPORT[:GUESTPORT]"),
    (["run", "-k", EXIT, "--net", "tap=interface-too-long"], "up to 15 bytes"),
    (["run", "-k", EXIT, "--net", "fd=1"], "3 or more"),
    (["run", "-k", EXIT, "--net", "fd=77"], "descriptor 77 is not open"),
    (["run", "-k", EXIT, "--console", "tty"], "port=NAME:WHERE"),
    (["run", "-k", EXIT, "--console", "stdio", "--serial", "stdio"], "contradict each other"),
    (["run", "-k", EXIT, "--console", "stdio", "--console", "stdio"], "another console's already"),
    (["run", "-k", EXIT, "--console", "port=" + "x" * 64 + ":null"], "1 to 63 bytes"),
    (["run", "-k", EXIT, *["--console", "port=a:null"] * 2], "a port 'a' already"),
    (["run", "-k", EXIT, *["--console", "null"] * 15], "at most 14"),
    (["exec", "-k", EXIT, "--console", "stdio", "true"], "--console stdio"),
    (["run", "-k", EXIT, "--vsock", "/tmp/v,cid=2"], "3 to 4294967294"),
    (["run", "-k", EXIT, "--vsock", "/tmp/v,cid=4294967295"], "3 to 4294967294"),
    (["run", "-k", EXIT, "--balloon", "1K"], "multiple of 4K"),
    (["run", "-k", EXIT, "--balloon", "512M"], "balloon"),
    (["run", "-k", EXIT, "--rng", "bw=1M"], "--rng=bw=1M"),
    (["run", "-k", EXIT, "--rng=fast"], "unknown setting 'fast'"),
    (["run", "-k", EXIT, "--transport", "usb"], "pci or mmio"),
    (["run", "-k", EXIT, "--iothreads", "17"], "0 to 16"),
    (["run", "-k", EXIT, "--boot", "bios"], "--boot"),
    (["run", "-k", EXIT, "--on-reboot", "halt"], "--on-reboot"),
    (["run", "-k", EXIT, "--log-level", "loud"], "--log-level"),
    (["run", "-k", EXIT, "--log-file", "/nonexistent/log"], "/nonexistent/log"),
    (["run", "-k", EXIT, "--help=x"], "--help"),
    (["run", "-k", "/nonexistent/vmlinuz"], "/nonexistent/vmlinuz"),
    (["run", "-k", "/"], "directory"),
    (["run", "-k", "/dev/null"], "/dev/null"),
    (["run", "-k", "/etc/passwd"], "/etc/passwd"),
    (["run", "-k", EXIT, "-i", "/nonexistent/initrd"], "/nonexistent/initrd"),
    (["run", "-k", EXIT, "-i", "/"], "'/'"),
    (["run", "-k", EXIT, "-i", ""], "--initrd"),
    (["run", "-k", EXIT, "-k", "-m", "2G"], "--kernel"),
    (["run", "-k", EXIT, "-p", "--memory", "2G"], "--cmdline needs a value"),
]


class Options(Case):
    def test_refused(self):
        for args, word in BAD:
            with self.subTest(args=args):
                self.assert_complaint(vmlet(*args), 2, word)

    def test_refused_by_the_machine(self):
        initrd = self.path("initrd", b"x")
        os.truncate(initrd, 64 << 20)
        self.assert_complaint(vmlet("run", "-k", EXIT, "-m", "32M", "-i", initrd), 2, "initrd", "32 MiB")
        os.truncate(initrd, 0)
        self.assert_complaint(vmlet("run", "-k", EXIT, "-i", initrd), 2, "empty")
        self.assert_complaint(vmlet("run", "-k", EXIT, "-p", "x" * 70000), 2, "command line")
        self.assert_complaint(vmlet("run", "-k", EXIT, "--cpu-features", "+xop,+fma4,+svm"), 2, "CPU features")

    def test_a_kernel_cut_short(self):
        with open(guest("acpi"), "rb") as file:
            whole = file.read()
        for size in (1, 4, 63, 64, 200, 4096, len(whole) // 2):
            with self.subTest(size=size):
                result = vmlet("run", "-k", self.path("short", whole[:size]))
                self.assert_complaint(result, 2, "short")

    def test_nothing_is_created_by_a_mistake(self):
        path = self.path("there")
        for option in (f"--serial=file={path}", f"--serial=unix={path}", f"--console=file={path}",
                       f"--console=port=p:unix={path}", f"--vsock={path}", f"--net=listen={path}"):
            result = vmlet("run", "-k", EXIT, option, "-c", "0")
            self.assertEqual(result.returncode, 2)
            self.assertFalse(os.path.exists(path), option)

    def test_a_socket_that_is_there(self):
        path = self.path("socket")
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(path)
            self.assert_complaint(vmlet("run", "-k", EXIT, f"--serial=unix={path}"), 2, path, "remove it")
            self.assertTrue(os.path.exists(path), "somebody else's socket is still there")

    def test_control_characters_do_not_reach_the_terminal(self):
        result = vmlet("run", "-k", "/nonexistent/\x1b[31m\nvmlet: all is well")
        self.assertEqual(result.returncode, 2)
        self.assertNotIn(b"\x1b", result.stderr)
        self.assertEqual(result.stderr.count(b"\n"), 1)


class Accepted(Case):
    def expect(self, result, status, *lines):
        self.assertEqual(result.returncode, status, result.stderr)
        for line in lines:
            self.assertIn(line, result.stdout)

    def test_command_line(self):
        result = vmlet("run", "-k", guest("exit-status"), "-p", "a", "--append=b c", "-pd", "--", "status=3", "-k", "--")
        self.expect(result, 3, b"command line: 'a b c d status=3 -k --'")

    def test_spellings(self):
        ram = guest("high-ram")
        for args in (["-m", "64"], ["-m64M"], ["--memory=65536k"], ["--memory", "64m"], ["-m", "1G", "-m", "64"]):
            with self.subTest(args=args):
                result = vmlet("run", "-k", ram, *args, "--", "hole=0xc0000000", "total-mib=64")
                self.expect(result, 0)

    def test_machine(self):
        self.expect(run_guest("ipi cpus=3", "-c", "3"), 0)
        self.expect(run_guest("e820", "--boot", "linux64"), 0, b"entry: linux64")
        self.expect(run_guest("e820", "--boot", "pvh"), 0, b"entry: pvh")
        self.expect(run_guest("e820", "--boot", "auto"), 0, b"entry: pvh")
        self.expect(run_guest("cpuid absent=x2apic,cx16", "--cpu-features=-x2apic", "--cpu-features=-cx16"), 0)

    def test_initrds(self):
        one, two = self.path("one", b"\x01" * 10), self.path("two", b"\x02" * 20)
        self.expect(run_guest("initrd len=4116 sum=50", "-i", one, "-i", two), 0)
        self.expect(run_guest("initrd none"), 0)

    def test_names_that_look_odd(self):
        path = self.path("a kernel, with=signs", open(guest("exit"), "rb").read())
        self.expect(vmlet("run", "--kernel", path), 0)


if __name__ == "__main__":
    main()
