"""vmlet help, version, and the manual page's agreement with them."""

import os
import re

from harness import VMLET, Case, main, run, vmlet


class Help(Case):
    def test_overview(self):
        for args in (["help"], ["--help"], ["-h"]):
            result = vmlet(*args)
            self.assertEqual((result.returncode, result.stderr), (0, b""))
            for word in (b"vmlet run", b"vmlet version", b"exit-status", b"kernels", b"Ctrl-A"):
                self.assertIn(word, result.stdout)

    def test_topics(self):
        words = {
            "run": [b"--kernel", b"--initrd", b"--memory", b"--cpus", b"--disk", b"--net", b"--console", b"--serial", b"--on-reboot", b"--log-file"],
            "disk": [b"nbd=", b"overlay", b"serial=", b"iops="],
            "net": [b"passt", b"tap[=NAME]", b"publish=", b"mac="],
            "console": [b"stdio", b"port=NAME:WHERE", b"status", b"console=hvc0"],
            "devices": [b"--balloon SIZE", b"--vsock PATH", b"--rng[=bw=SIZE]", b"--transport", b"cid=N"],
            "keys": [b"Ctrl-A x", b"Ctrl-A p", b"Ctrl-A ?", b"Ctrl-A Ctrl-A"],
            "exit-status": [b"80", b"81", b"82", b"83", b"85", b"128+N", b"134"],
            "kernels": [b"bzImage", b"vmlinux", b"PVH", b"console=ttyS0"],
        }
        for topic, expected in words.items():
            with self.subTest(topic=topic):
                result = vmlet("help", topic)
                self.assertEqual((result.returncode, result.stderr), (0, b""))
                for word in expected:
                    self.assertIn(word, result.stdout)

    def test_run_help(self):
        for args in (["run", "--help"], ["run", "-h"], ["run", "-k", "/nonexistent", "--help"]):
            result = vmlet(*args)
            self.assertEqual(result.returncode, 0)
            self.assertEqual(result.stdout, vmlet("help", "run").stdout)

    def test_fits_a_terminal(self):
        for topic in ([], ["run"], ["disk"], ["net"], ["console"], ["devices"], ["keys"], ["exit-status"], ["kernels"]):
            for line in vmlet("help", *topic).stdout.decode().splitlines():
                self.assertLessEqual(len(line), 88, line)

    def test_version(self):
        for args in (["version"], ["--version"]):
            result = vmlet(*args)
            self.assertEqual((result.returncode, result.stderr), (0, b""))
            self.assertRegex(result.stdout, rb"\Avmlet \d+\.\d+\.\d+\S*\n\Z")

    def test_unknown(self):
        self.assert_complaint(vmlet("help", "kernel"), 2, "did you mean kernels?")
        self.assert_complaint(vmlet("help", "everything"), 2, "no help about 'everything'")
        self.assert_complaint(vmlet("version", "x"), 2, "'x'")

    def test_output_that_cannot_be_written(self):
        for args in (["help"], ["help", "run"], ["version"]):
            with open("/dev/full", "wb") as full:
                result = vmlet(*args, stdout=full)
            self.assertEqual(result.returncode, 1)
            self.assertIn(b"standard output", result.stderr)
        result = run(["sh", "-c", '"$0" help >&-', VMLET])
        self.assertEqual(result.returncode, 1)

    def test_manual_page(self):
        with open(os.environ["VMLET_MAN"], encoding="utf-8") as file:
            page = file.read()
        section = page[page.index(".Sh EXIT STATUS"):page.index(".Sh EXAMPLES")].replace("\\-", "-")
        for line in vmlet("help", "exit-status").stdout.decode().splitlines()[2:]:
            label, meaning = line.split(None, 1)
            self.assertIn(f".It {label}\n{meaning}\n", section)
        options = page[page.index(".Sh DESCRIPTION"):page.index(".Sh TERMINAL")]
        for topic in ("run", "devices"):
            for name in re.findall(r"--([a-z-]+)", vmlet("help", topic).stdout.decode()):
                self.assertIn(f"Fl Fl {name}", options)


if __name__ == "__main__":
    main()
