"""One module of tests in mount, network and process namespaces of its own, with a deadline.

**Invariant**: whatever it starts, mounts or listens on is gone with the first process of the namespaces, however that ends;
`surroundings` is compared before and after all the same. What namespaces do not hold, the control groups, is removed when
all modules have ended.

`apart.py MODULE OUT SECONDS` is that first process.
"""

import contextlib
import faulthandler
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import kit  # noqa: E402
GRACE = 20  # seconds more, in which a module that is late says where it hangs
CGROUPS = "/sys/fs/cgroup"
ENGINES = {"docker", "libpod_parent", "payload", "supervisor"}  # what they call their control groups


def run(module, out, seconds):
    """Its exit code, None if it had to be ended, and what it has left behind."""
    spaces = ["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private"]
    first = [sys.executable, "-u", __file__, module, str(out), str(seconds)]
    before = surroundings()
    # The whole is killed by the kernel if this process is.
    process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "unshare", *spaces, *first], start_new_session=True)
    ended = None
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            ended = process.wait(seconds + GRACE)
    finally:
        end(process)
    return ended, sorted(surroundings() - before)


def end(process):
    """The first process of the namespaces is killed, and with it all others; only when they are gone `unshare` ends."""
    for child in children(process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(GRACE)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)


def children(pid):
    with contextlib.suppress(FileNotFoundError):
        return [int(child) for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def surroundings():
    """What a module could leave on this machine; compared before and after it."""
    return mounts() | processes()


def cgroups():
    """Control groups of container engines and of systemd-nspawn, which do not tell whose they are."""
    return {folder for folder, _, _ in os.walk(CGROUPS) if ENGINES & set(folder.split("/"))}


def remove_cgroups(before):
    """All but those that were there before; gives those that are still in use."""
    for group in sorted(cgroups() - before, reverse=True):  # the innermost first
        with contextlib.suppress(OSError):
            os.rmdir(group)
    return sorted(cgroups() - before)


def mounts():
    return {line.split()[1] for line in pathlib.Path("/proc/self/mounts").read_text().splitlines() if kit.SCRATCH in line}


def processes():
    """Those that tests have started, which have the folder of this run in their environment or as an argument."""
    found = set()
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes()
            if kit.SCRATCH.encode() in words + (folder / "environ").read_bytes():
                found.add(f"process {folder.name}: {words.replace(bytes(1), b' ').decode(errors='replace')}")
    return found


# ---- inside ---------------------------------------------------------------------------------------------------------


class Result(unittest.TextTestResult):
    """Writes the outcome after every test, so that one that hangs takes none with it."""

    def __init__(self, *words, **more):
        super().__init__(*words, **more)
        self.succeeded = 0

    def addSuccess(self, test):
        super().addSuccess(test)
        self.succeeded += 1

    def stopTest(self, test):
        super().stopTest(test)
        self.write()

    def write(self):
        bad = len(self.failures) + len(self.errors) + len(self.unexpectedSuccesses)
        skips = [f"{case}: {reason}" for case, reason in self.skipped]
        outcome = {"passed": self.succeeded, "failed": bad, "skips": skips, "figures": self.figures()}
        written = self.out.with_suffix(".new")
        written.write_text(json.dumps(outcome))
        written.replace(self.out)

    def figures(self):
        return getattr(sys.modules.get(f"test_{self.module}"), "FIGURES", [])


def inside(module, out, seconds):
    Result.module, Result.out = module, pathlib.Path(out)
    # Says where each thread is, and ends.
    faulthandler.dump_traceback_later(seconds, exit=True, file=sys.stdout)
    kit.run("ip", "link", "set", "lo", "up")
    kit.cover("/run")
    have_dist_alone()
    suite = unittest.defaultTestLoader.loadTestsFromName(f"test_{module}")
    result = unittest.TextTestRunner(verbosity=2, stream=sys.stdout, warnings="ignore", resultclass=Result).run(suite)
    result.write()
    faulthandler.cancel_dump_traceback_later()


def have_dist_alone():
    """Guides have it made anew, while other modules use theirs."""
    own = pathlib.Path(kit.SCRATCH) / "dist"
    if not own.exists():
        shutil.copytree(kit.DIST, own)
    kit.run("mount", "--bind", own, kit.DIST)


def first_process(module, out, seconds):
    """The first process of a namespace has to see off those that nobody else does, so the tests run in another one."""
    tests = os.fork()
    if tests == 0:
        inside(module, out, seconds)
        return 0
    while True:
        pid, status = os.wait()
        if pid == tests:
            return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(first_process(sys.argv[1], sys.argv[2], int(sys.argv[3])))
