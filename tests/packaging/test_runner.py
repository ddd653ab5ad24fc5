"""How modules are run: one that hangs is ended in time, what it did before counts, and nothing of it stays."""

import json
import os
import pathlib
import subprocess
import time
import unittest

import apart
from kit import SCRATCH, bounded, run, until


class Deadlines(unittest.TestCase):
    def setUp(self):
        self.out = pathlib.Path(SCRATCH) / "hang.json"
        (pathlib.Path(SCRATCH) / "hang").mkdir(exist_ok=True)
        self.out.unlink(missing_ok=True)
        self.addCleanup(setattr, apart, "GRACE", apart.GRACE)

    def hang(self, how, seconds):
        os.environ["HANG"] = how
        begun, before = time.monotonic(), apart.surroundings()
        ended, left = apart.run("hang", self.out, seconds)
        self.assertLess(time.monotonic() - begun, seconds + apart.GRACE + 10)
        self.assertEqual(left, [])
        self.assertEqual(apart.surroundings(), before)
        self.assertEqual(json.loads(self.out.read_text())["passed"], 1)
        return ended

    def test_a_test_that_hangs_says_where_and_ends(self):
        self.assertEqual(self.hang("waiting", 3), 1)

    def test_one_that_cannot_even_say_so_is_killed(self):
        apart.GRACE = 2
        self.assertIsNone(self.hang("stopped", 3))

    def test_what_is_left_would_be_seen(self):
        before = apart.surroundings()
        process = subprocess.Popen(["sleep", "1000"])
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        until("it is seen", lambda: apart.surroundings() - before == {f"process {process.pid}: sleep 1000 "})

    def test_a_command_ends_with_its_children(self):
        before = apart.processes()
        self.assertRaises(subprocess.TimeoutExpired, bounded, ["sh", "-c", "sleep 1000 & wait"], 0.5)
        self.assertRaises(subprocess.TimeoutExpired, run, "sleep 1000 & sleep 1000 | cat", timeout=0.5)
        until("all are gone", lambda: apart.processes() == before)
