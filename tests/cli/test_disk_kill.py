#!/usr/bin/python3
"""A guest writes records and says when they are flushed; vmlet is killed; the next run finds them, on every kind of disk."""

import fcntl
import glob
import os
import random
import re
import signal
import struct
import subprocess

from harness import Case, TIMEOUT_S, main, run, run_args

FLUSHED = os.environ.get("VMLET_FLUSHED", "flushed")
DISK_BYTES = 2 << 20
KINDS = {
    "raw": "{0}",
    "direct": "{0},direct",
    "overlay": "{0},overlay={0}.overlay",
    "overlay-direct": "{0},direct,overlay={0}.overlay,packed",
}


def is_free(path):
    """A killed process's io_uring keeps its files locked until their last fsync has ended: for long on a busy disk."""
    with open(path, "rb+") as file:
        try:
            fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        except BlockingIOError:
            return False
    return True


class Kill(Case):
    rounds = 4

    def kill_rounds(self, kind, *options):
        image = self.path("disk.img")
        subprocess.run([FLUSHED, "fill", image, str(DISK_BYTES)], check=True, timeout=TIMEOUT_S)
        before = self.read_image(image)
        seed = random.randrange(1 << 30)
        print(f"{kind}: seed {seed}", flush=True)
        chance = random.Random(seed)
        disk = ["-d", KINDS[kind].format(image), *options]
        last = 0
        for _ in range(self.rounds):
            last = self.kill_once(disk, last, chance)
        self.assertGreater(last, self.rounds)
        result = run(run_args(f"blk-flushed last={last} records=1", *disk))
        self.assertEqual(result.returncode, 0, result.stdout)
        if "overlay" in kind:
            self.assertEqual(before, self.read_image(image), "the overlay's image was written to")

    @staticmethod
    def read_image(image):
        with open(image, "rb") as file:
            return file.read()

    def kill_once(self, disk, last, chance):
        """Kills vmlet after some records and a moment; returns the last record that it said was flushed."""
        child = self.popen(run_args(f"blk-flushed last={last}", *disk), stdin=subprocess.DEVNULL)
        lines = [child.stdout.readline() for _ in range(chance.randrange(1, 40))]
        try:
            child.wait(chance.random() * 0.02)
        except subprocess.TimeoutExpired:
            pass
        child.kill()
        got = b"".join(lines) + child.stdout.read()
        self.assertEqual(child.wait(TIMEOUT_S), -signal.SIGKILL, child.stderr.read() + got)
        self.wait_for(lambda: all(is_free(path) for path in glob.glob(self.path("disk.img*"))))
        said = re.findall(rb"^flushed (\d+)\r?\n", got, re.MULTILINE)
        return int(said[-1]) if said else last

    def test_raw(self):
        self.kill_rounds("raw")

    def test_direct(self):
        self.kill_rounds("direct", "--iothreads", "1")

    def test_overlay(self):
        self.kill_rounds("overlay")

    def test_overlay_direct(self):
        self.kill_rounds("overlay-direct", "--iothreads", "2")


class Long(Kill):
    rounds = 100

    def setUp(self):
        super().setUp()
        signal.alarm(600)


if __name__ == "__main__":
    main()
