"""The contract for CI: every run ends, in time, and says how: --timeout, --expect, the status file, the events."""

import json
import os
import pty
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import unittest

from harness import TIMEOUT_S, VMLET, Case, guest, main, run, run_args, run_guest, vmlet

KEYS = ["version", "vmlet", "status", "reason", "text", "end", "value", "signal", "expect", "times", "duration_ns",
        "counters"]
GRACE_S = 5


class Contract(Case):
    def status(self, path=None):
        with open(path or self.path("status"), encoding="utf-8") as file:
            status = json.load(file)
        self.assertEqual(list(status), KEYS)
        self.assertEqual((status["version"], status["vmlet"]), (1, vmlet("version").stdout.decode().split()[1]))
        return status

    def events(self, path):
        with open(path, encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    def contract(self, guest_and_words, *options, **kwargs):
        """Runs it with a status file; returns the result and what is in the file."""
        result = run_guest(guest_and_words, f"--status-file={self.path('status')}", *options, **kwargs)
        status = self.status()
        self.assertEqual(status["status"], result.returncode, result.stderr)
        last = result.stderr.decode().splitlines()[-1:]
        self.assertEqual(last, [f"vmlet: {status['text']}"] if status["text"] else [])
        self.assertEqual([name for name in os.listdir(self.dir) if "tmp" in name], [])
        return result, status

    def expect(self, guest_and_words, *options, status, reason, **more):
        result, told = self.contract(guest_and_words, *options)
        self.assertEqual((told["status"], told["reason"]), (status, reason), result.stderr)
        for key, value in more.items():
            self.assertEqual(told[key], value, key)
        return told


class Ends(Contract):
    """Each status and reason, as the status file has it."""

    def test_the_guest_s_own(self):
        self.expect("poweroff", status=0, reason="poweroff", end="poweroff", value=None, signal=None)
        self.expect("exit", status=0, reason="debug-exit", end="debug-exit", value=0, text="")
        self.expect("exit-status status=77", status=77, reason="debug-exit", value=77)
        self.expect("exit-status status=124", status=124, reason="debug-exit", end="debug-exit", value=124)
        self.expect("reset", status=80, reason="reboot", end="reboot")
        self.expect("panic", status=81, reason="panic", end="panic")
        self.expect("triple-fault", status=82, reason="triple-fault", end="triple-fault")

    def test_timeout(self):
        for how in ("hlt", "spin"):
            start = time.monotonic()
            told = self.expect(f"hang how={how}", "--timeout=700ms", status=124, reason="timeout", end="timeout")
            self.assertLess(time.monotonic() - start, 5)
            self.assertGreaterEqual(told["times"]["ended_ns"] - told["times"]["started_ns"], 700_000_000)
        self.expect("exit-status status=3", "--timeout=30", status=3, reason="debug-exit")

    def test_expectations(self):
        told = self.expect("hang", "--expect=hanging", "--expect=h.t$", status=0, reason="expected", end="stopped")
        self.assertEqual(told["expect"], {"met": 2, "total": 2, "pattern": None, "line": None})
        told = self.expect("poweroff", "--expect=FADT", "--expect=never", status=84, reason="expect", end="poweroff")
        self.assertEqual(told["expect"], {"met": 1, "total": 2, "pattern": "never", "line": None})
        for name, end in (("exit", "debug-exit"), ("exit-status status=3", "debug-exit"), ("reset", "reboot"),
                          ("panic", "panic"), ("triple-fault", "triple-fault")):
            self.expect(name, "--expect=never", status=84, reason="expect", end=end)
        told = self.expect("hang", "--expect=never", "--timeout=600ms", status=124, reason="timeout")
        self.assertEqual(told["expect"]["pattern"], "never")

    def test_what_was_met_stays_met(self):
        """Whether the guest ends before it is stopped is a race that nobody sees."""
        for _ in range(5):
            self.expect("exit-status status=9", "--expect=command line", status=0, reason="expected")

    def test_fail_on(self):
        told = self.expect("hang", "--fail-on=h[aeiou]ng", status=84, reason="fail-on", end="stopped")
        self.assertEqual(told["expect"]["pattern"], "h[aeiou]ng")
        self.assertIn("hanging", told["expect"]["line"])
        self.expect("exit-status status=3", "--fail-on=command line", status=84, reason="fail-on")
        self.expect("exit-status status=3", "--fail-on=never", status=3, reason="debug-exit")

    def test_signals(self):
        for signo in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            child = self.popen(run_args("hang", "--expect=never", f"--status-file={self.path('status')}"))
            self.read_until(child.stdout.fileno(), b"hanging")
            child.send_signal(signo)
            self.assertEqual(child.wait(TIMEOUT_S), 128 + signo)
            told = self.status()
            self.assertEqual((told["status"], told["reason"], told["signal"]), (128 + signo, "signal", signo))

    def test_no_vm(self):
        path = self.path("status")
        result = vmlet("run", "-k", "/nonexistent", f"--status-file={path}")
        self.assert_complaint(result, 2, "/nonexistent")
        told = self.status()
        self.assertEqual((told["status"], told["reason"], told["end"]), (2, "config", "none"))
        self.assertIn("/nonexistent", told["text"])
        self.assertIsNone(told["times"]["created_ns"])
        result = vmlet("run", "-k", guest("exit"), "--log-file=/nonexistent/log", f"--status-file={path}")
        self.assertEqual(self.status()["reason"], "config")

    def test_no_kvm(self):
        if os.geteuid() != 0 or not shutil.which("unshare") or run(["unshare", "-m", "true"]).returncode != 0:
            self.skipTest("needs root, to hide /dev/kvm in a mount namespace")
        result = run(["unshare", "-m", "sh", "-ec", 'mount --bind /dev/null /dev/kvm; exec "$@"', "sh",
                      *run_args("exit", f"--status-file={self.path('status')}", f"--events={self.path('events')}")])
        self.assert_complaint(result, 1, "/dev/kvm")
        told = self.status()
        self.assertEqual((told["status"], told["reason"], told["end"]), (1, "host", "none"))
        self.assertEqual(self.events(self.path("events"))[-1]["reason"], "host")


class Dialogues(Contract):
    def test_send(self):
        result, told = self.contract("echo", "--send=polled=>one\\n", "--send=one=>two\\x04")
        self.assertEqual((told["status"], result.stdout), (0, b"echo: polled\none\ntwo"))

    def test_script(self):
        script = self.path("script", b"timeout 20s\nexpect ^echo: polled$\nsend abc\\n\nexpect ^abc$\nsleep 100ms\n"
                                     b"send def\nexpect def$\n")
        start = time.monotonic()
        result, told = self.contract("echo", f"--script={script}", "--timeout=25")
        self.assertEqual((told["reason"], told["expect"]["met"]), ("expected", 3))
        self.assertGreater(time.monotonic() - start, 0.1)
        self.assertEqual(result.stdout, b"echo: polled\nabc\ndef")

    def test_a_step_that_is_late(self):
        script = self.path("script", b"expect hanging\ntimeout 300ms\nexpect more\n")
        told = self.expect("hang", f"--script={script}", "--timeout=20", status=84, reason="expect", end="stopped")
        self.assertEqual(told["expect"], {"met": 1, "total": 2, "pattern": "more", "line": None})

    def test_a_long_text(self):
        """More than the library takes at once, to a guest that reads slowly."""
        text = "x" * 90000
        script = self.path("script", f"expect polled\nsend {text}\nexpect ^x+$\nsend \\x04\n".encode())
        child = self.popen(run_args("echo", f"--script={script}", "--serial=null", "--timeout=2"))
        self.assertIn(child.wait(TIMEOUT_S), (0, 84, 124))


class Events(Contract):
    def test_in_order(self):
        path = self.path("events")
        result, _ = self.contract("panic", f"--events={path}", "--send=x=>y")
        events = self.events(path)
        names = [event["event"] for event in events]
        self.assertEqual(names[:3], ["created", "kernel-loaded", "running"])
        self.assertEqual(names[-1], "ended")
        self.assertIn("panic", names)
        self.assertEqual(sorted(event["ns"] for event in events), [event["ns"] for event in events])
        self.assertEqual((events[-1]["status"], events[-1]["reason"]), (81, "panic"))

    def test_expectations(self):
        path = self.path("events")
        self.contract("hang", f"--events={path}", "--expect=hang", "--expect=h.t")
        names = [(event["event"], event["text"]) for event in self.events(path)]
        self.assertEqual(names[3:6], [("console-first-byte", ""), ("expectation-met", "hang"),
                                      ("expectation-met", "h.t")])

    def test_a_descriptor(self):
        reader, writer = os.pipe()
        result = run_guest("reset", f"--events=fd:{writer}", pass_fds=[writer])
        os.close(writer)
        with os.fdopen(reader, "rb") as file:
            names = [json.loads(line)["event"] for line in file]
        self.assertEqual(result.returncode, 80)
        self.assertIn("reset", names)

    def test_a_reader_that_left(self):
        reader, writer = os.pipe()
        os.close(reader)
        result = run_guest("exit-status status=0", f"--events=fd:{writer}", pass_fds=[writer])
        os.close(writer)
        self.assertEqual(result.returncode, 0, result.stderr)

    def test_a_reader_that_does_not_read(self):
        reader, writer = os.pipe()
        os.write(writer, b"x" * 65536)
        start = time.monotonic()
        result = run_guest("exit-status status=0", f"--events=fd:{writer}", pass_fds=[writer])
        self.assertLess(time.monotonic() - start, 10)
        self.assertEqual(result.returncode, 1)
        self.assertIn(b"events 'fd:", result.stderr)
        os.close(reader)
        os.close(writer)


class Files(Contract):
    def test_refused_before_anything_runs(self):
        log = self.path("console")
        for option, word in (("--status-file=/nonexistent/s", "/nonexistent/s"), ("--status-file=/", "'/'"),
                             ("--status-file=/proc/s", "/proc/s"), ("--events=/nonexistent/e", "/nonexistent/e"),
                             ("--events=fd:99", "fd:99"), ("--events=fd:x", "--events"), ("--events=fd:0", "fd:0"),
                             ("--console-log=/nonexistent/c", "/nonexistent/c"), ("--console-log=/", "'/'"),
                             ("--script=/nonexistent/x", "/nonexistent/x"), ("--script=/", "'/'"),
                             ("--expect=a(", "'a('"), ("--expect=", "--expect"), ("--fail-on=[", "'['"),
                             ("--send=x", "--send"), ("--send==>x", "--send"), ("--send=a(=>x", "'a('"),
                             ("--send=a=>\\q", "backslash"), ("--timeout=0", "--timeout"), ("--timeout=soon", "'soon'"),
                             ("--timeout=-1", "'-1'")):
            with self.subTest(option=option), open("/dev/null", "rb") as null:
                result = run_guest("exit-status status=0", f"--serial=file={log}", option, stdin=null)
                self.assert_complaint(result, 2, word)
                self.assertFalse(os.path.exists(log))

    def test_a_script_s_mistake_has_its_line(self):
        script = self.path("script", b"# two\nexpect a\nexpct b\n")
        self.assert_complaint(run_guest("exit", f"--script={script}"), 2, f"{script}:3: ", "did you mean expect?")

    def test_a_stale_status_is_removed(self):
        path = self.path("status", b'{"status": 0}')
        child = self.popen(run_args("hang", f"--status-file={path}"))
        self.read_until(child.stdout.fileno(), b"hanging")
        self.assertFalse(os.path.exists(path))
        child.kill()
        child.wait(TIMEOUT_S)
        self.assertEqual(os.listdir(self.dir), [])

    def test_never_half_a_status(self):
        path = self.path("status")
        seen, done = [], threading.Event()

        def look():
            while not done.is_set():
                try:
                    with open(path, "rb") as file:
                        seen.append(file.read())
                except FileNotFoundError:
                    pass

        thread = threading.Thread(target=look)
        thread.start()
        for _ in range(5):
            run_guest("exit", f"--status-file={path}")
        done.set()
        thread.join()
        for content in seen:
            self.assertEqual(json.loads(content)["status"], 0)

    def test_a_status_that_is_not_a_file(self):
        result = run_guest("exit", "--status-file=/dev/stdout")
        self.assertEqual(json.loads(result.stdout)["reason"], "debug-exit")

    def test_full_disk(self):
        for option in ("--status-file=/dev/full", "--events=/dev/full", "--console-log=/dev/full"):
            with self.subTest(option=option):
                result = run_guest("exit-status status=0", option)
                self.assertEqual(result.returncode, 1, result.stderr)
                self.assertIn(b"No space left on device", result.stderr)
                result = run_guest("exit-status status=3", option)
                self.assertEqual(result.returncode, 3, result.stderr)
        self.assertTrue(os.path.exists("/dev/full"))

    def test_console_log(self):
        path = self.path("log")
        result = run_guest("flood kib=8", f"--console-log={path}")
        with open(path, "rb") as file:
            self.assertEqual(file.read(), result.stdout)
        self.assertEqual(len(result.stdout), 8192)
        run_guest("flood kib=4", f"--console-log={path}", "--serial=null")
        self.assertEqual(os.path.getsize(path), 4096)

    def test_a_working_directory_that_vanishes(self):
        gone = self.path("gone")
        os.mkdir(gone)
        child = self.popen(run_args("hang", "--status-file=status"), cwd=gone)
        self.read_until(child.stdout.fileno(), b"hanging")
        os.rmdir(gone)
        child.terminate()
        self.assertEqual(child.wait(TIMEOUT_S), 128 + signal.SIGTERM)
        self.assertIn(b"status file 'status'", child.stderr.read())


class Surroundings(Contract):
    """Terminals, pipes, closed descriptors, sessions: the contract holds in all of them."""

    def check(self, args, **kwargs):
        result = run(args, **kwargs)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(self.status()["reason"], "expected")

    def args(self, *options):
        return run_args("hang", "--expect=hanging: hlt$", "--timeout=20", f"--status-file={self.path('status')}",
                        *options)

    def test_wrapped(self):
        for wrapper in (["setsid", "--wait"], ["nohup"], ["timeout", "-s", "KILL", "20"], ["nice"], ["env", "-i"]):
            with self.subTest(wrapper=wrapper):
                self.check([*wrapper, *self.args()], start_new_session=wrapper[0] == "setsid")

    def test_closed(self):
        for redirections in ("<&-", ">&-", "<&- >&-", "<&- >&- 2>&-", ">/dev/full", "| cat"):
            with self.subTest(redirections=redirections):
                self.check(["sh", "-c", f'set -e; exec 3>&1; "$@" {redirections}', "sh", *self.args()])

    def test_ignored_and_blocked_signals(self):
        def hostile():
            signal.signal(signal.SIGALRM, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})

        self.check(self.args(), preexec_fn=hostile)

    def test_pty(self):
        pid, fd = pty.fork()
        if pid == 0:
            os.execv(VMLET, self.args())
        got = b""
        try:
            while data := os.read(fd, 4096):
                got += data
        except OSError:
            pass
        os.close(fd)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0)
        self.assertIn(b"hanging: hlt", got)
        self.assertEqual(self.status()["reason"], "expected")

    def test_killed_by_timeout(self):
        result = run(["timeout", "-s", "KILL", "1", *run_args("hang", f"--status-file={self.path('status')}")])
        self.assertEqual(result.returncode, -signal.SIGKILL)
        self.assertEqual(os.listdir(self.dir), [])


class Backstop(Contract):
    """--timeout ends the process whatever it hangs in."""

    def full_pipe(self):
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        try:
            while os.write(writer, b"x" * 4096):
                pass
        except BlockingIOError:
            pass
        os.set_blocking(writer, True)
        self.addCleanup(os.close, reader)
        self.addCleanup(os.close, writer)
        return writer

    def ends(self, args, **kwargs):
        start = time.monotonic()
        result = run(args, **kwargs)
        self.assertEqual(result.returncode, 124, result.stderr)
        self.assertLess(time.monotonic() - start, 1 + GRACE_S + 3)
        return result

    def args(self, name, *options):
        return run_args(name, "--timeout=1", f"--status-file={self.path('status')}", *options)

    def test_messages_that_nobody_reads(self):
        self.ends(self.args("hang", "--log-level=debug"), stderr=self.full_pipe())
        self.assertEqual(self.status()["reason"], "timeout")

    def test_output_that_nobody_reads(self):
        self.ends(self.args("flood kib=300"), stdout=self.full_pipe())
        self.assertEqual(self.status()["reason"], "timeout")

    def test_a_console_log_that_nobody_reads(self):
        writer = self.full_pipe()
        self.ends(self.args("hang", f"--console-log=/dev/fd/{writer}"), pass_fds=[writer])
        self.assertEqual(self.status()["reason"], "timeout")

    def test_files_that_nobody_opens(self):
        for option in ("--events", "--console-log", "--script"):
            with self.subTest(option=option):
                fifo = self.path("fifo" + option)
                os.mkfifo(fifo)
                self.ends(self.args("hang", f"{option}={fifo}"))

    def test_a_status_that_nobody_reads(self):
        fifo = self.path("fifo")
        os.mkfifo(fifo)
        self.ends(run_args("exit", "--timeout=1", f"--status-file={fifo}"))


class Speed(Contract):
    def flood(self, kib, *options):
        start = time.monotonic()
        result = run_guest(f"flood kib={kib}", "--serial=null", *options, timeout=600)
        return result, time.monotonic() - start

    def check(self, kib):
        """Through an expectation and a fail-on the console loses nothing and is not slower by orders of magnitude."""
        bare, bare_s = self.flood(kib)
        last = "%08x abc" % (kib * 32 - 1)
        watched, watched_s = self.flood(kib, f"--expect=^{last}[a-z]+$", "--fail-on=(Oops|BUG):? [0-9]+",
                                        f"--console-log={self.path('log')}")
        self.assertEqual((bare.returncode, watched.returncode), (0, 0), watched.stderr)
        self.assertEqual(os.path.getsize(self.path("log")), kib * 1024)
        # Half of that is what a busy machine does by itself; quadratic time would be a hundred times as much.
        self.assertLess(watched_s, bare_s * 8 + 20)
        print(f"{kib} KiB: {bare_s:.2f} s bare, {watched_s:.2f} s watched", file=sys.stderr)

    def test_flood(self):
        _, seconds = self.flood(32)
        # About five seconds of what this machine's KVM can do, and at most 10 MiB.
        self.check(int(max(64, min(10240, 32 * 5 / seconds))))

    def test_pieces(self):
        self.expect("flood kib=4 burst=1", "--expect=^00000045 a[a-z]+$", status=0, reason="expected")


class Chaos(Contract):
    """Random runs with random misfortunes: each ends in time, and leaves no process and no file behind."""

    def one(self, rng, number):
        work = self.path(f"work{number}")
        os.mkdir(work)
        name = rng.choice(["hang", "hang how=spin", "exit", "exit-status status=7", "flood kib=64", "poweroff", "reset",
                           "panic", "triple-fault", "echo"])
        options = ["--timeout=1", f"--status-file={rng.choice(['status', '/dev/full', os.path.join(work, 'status')])}"]
        options += rng.sample([f"--console-log={rng.choice(['log', '/dev/full', '/dev/null'])}", "--expect=never",
                               "--events=events", "--events=/dev/full", "--fail-on=BUG", "--log-level=debug",
                               "--send=polled=>x\\x04", "--on-reboot=restart"], rng.randrange(5))
        start = time.monotonic()
        child = self.popen(run_args(name, *options), cwd=work, start_new_session=True)
        misfortune = rng.choice(["none", "TERM", "TERM", "KILL", "KILL", "stdout", "stderr", "stdin", "cwd", "slow"])
        time.sleep(rng.random() * 0.2)
        if misfortune in ("TERM", "KILL"):
            child.send_signal(getattr(signal, "SIG" + misfortune))
        elif misfortune in ("stdout", "stderr", "stdin"):
            getattr(child, misfortune).close()
        elif misfortune == "cwd":
            shutil.rmtree(work, ignore_errors=True)
        status = child.wait(1 + GRACE_S + 5)
        took = time.monotonic() - start
        what = f"{name} {options} {misfortune}: {status} after {took:.1f} s"
        self.assertLess(took, 1 + GRACE_S + 4, what)
        self.assertNotIn(-status, (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS), what)
        with self.assertRaises(ProcessLookupError, msg=what):
            os.killpg(child.pid, 0)
        if os.path.isdir(work):
            self.assertEqual(set(os.listdir(work)) - {"status", "log", "events"}, set(), what)
            path = os.path.join(work, "status")
            if os.path.exists(path):
                self.assertEqual(self.status(path)["status"], status, what)
        self.doCleanups_of(child)
        shutil.rmtree(work, ignore_errors=True)

    def doCleanups_of(self, child):
        for stream in (child.stdin, child.stdout, child.stderr):
            if not stream.closed:
                stream.close()

    def rounds(self, count, seed):
        rng = random.Random(seed)
        for number in range(count):
            with self.subTest(seed=seed, number=number):
                self.one(rng, number)

    def test_chaos(self):
        self.rounds(20, 5)


class Long(Chaos, Speed):
    def test_chaos(self):
        signal.alarm(3000)
        self.rounds(500, int(os.environ.get("VMLET_SEED", "1")))

    def test_flood(self):
        """100 MiB, or as much of it as ten minutes allow."""
        signal.alarm(3000)
        _, seconds = self.flood(64)
        self.check(int(min(102400, 64 * 250 / seconds)))

    def test_pieces(self):
        pass


if __name__ == "__main__":
    main()
