"""No module of its own, but what `test_runner.py` has ended: it passes one test, leaves all that can be left, and hangs."""

import os
import pathlib
import signal
import subprocess
import threading
import unittest

from kit import SCRATCH, run

ROOM = pathlib.Path(SCRATCH) / "hang"


class Hang(unittest.TestCase):
    def test_a_good_one(self):
        self.assertTrue(ROOM.is_dir())

    def test_that_hangs(self):
        run("mount", "-t", "tmpfs", "tmpfs", ROOM)
        subprocess.Popen(["sleep", "1000"], start_new_session=True)
        if os.environ["HANG"] == "stopped":
            os.kill(os.getpid(), signal.SIGSTOP)
        threading.Event().wait()
