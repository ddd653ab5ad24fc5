"""`make faults`: what goes wrong with a shared folder and needs rights to make, one world for each, all at the same time.

In each world: a gateway, a standby, an instance with a tool that is called all the time, an instance that is killed
while nothing can be written, and one of another host (a pid namespace), also killed. Meanwhile nobody alive may be
missing from one single answer of the gateway, `/readyz` has to tell, and all has to be well again by itself afterwards.

A case that cannot be run here is named with its reason. Needs root, for mounts and namespaces; installs fusepy and what
it needs. Standard library only.
"""

import concurrent.futures
import contextlib
import os
import pathlib
import signal
import sys
import threading
import time
import traceback

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
sys.path.insert(0, str(HERE))
import beds  # noqa: E402
from beds import Faulty, Hosts, run, seconds_until, tmpfs  # noqa: E402
from watch import Client, Watch  # noqa: E402
from world import PATIENCE, World, get, probe_tool, target, until, write_probe_skill  # noqa: E402

STALE, BEAT = 6, 1  # seconds
TIMES = ["--stale-timeout", str(STALE), "--heartbeat-interval", str(BEAT)]
NOBODY = 65534
LIMIT = 300  # seconds, for all cases


class Studio:
    """A world with the five processes; `remote` is of another host as far as pids tell. Those that do not compete for the
    gateway port see the registry at `far`, if that is given."""

    def __init__(self, stack, prefix=(), far=None):
        self.world = stack.enter_context(World(target() / "debug" / "dcc-mcp-server"))
        self.world.folder.chmod(0o755)
        # Not where the registry is: the program must still be found when that is gone.
        # By a process of its own: one that another thread forks meanwhile would keep the copy open for writing, and a file
        # that is open for writing cannot be run.
        run("cp", self.world.program, self.world.folder)
        self.world.program = self.world.folder / pathlib.Path(self.world.program).name
        write_probe_skill(self.world.folder / "skills")
        self.prefix, self.far = list(prefix), far

    def begin(self):
        skills = ["--skill-paths", str(self.world.folder / "skills"), "--load-skills", "all"]
        one_more = lambda *args, **more: self.world.start(*TIMES, *args, **({"prefix": self.prefix} | more))  # noqa: E731
        self.gateway, self.standby = one_more(), one_more()
        self.worker, self.victim = (one_more(*words, competes=False, registry=self.far) for words in (skills, []))
        apart = ["unshare", "--pid", "--fork", "--kill-child", *self.prefix]
        self.remote = one_more(competes=False, prefix=apart, registry=self.far)
        self.all = {self.gateway, self.standby, self.worker, self.victim, self.remote}
        self.world.wait_instances(len(self.all))
        self.tool = probe_tool(self.worker)
        until("the tool is listed", lambda: self.tool in Client(("127.0.0.1", self.world.gateway_port)).tools())
        until("the gateway is ready", lambda: self.readyz()[0] == 200)
        return self

    def readyz(self):
        return get(self.world.gateway_port, "/readyz")

    def tells(self):
        status, body = self.readyz()
        return status == 503 and (b'"registry":"ok"' not in body or b'"heartbeat":"ok"' not in body)

    def seq(self, instance):
        entry = self.world.entry(instance)
        return entry and entry["heartbeat"]["seq"]

    def kill(self):
        """kill -9 of the victim and of the remote one, whose parent, which made the pid namespace, does not take it along
        where the user was changed. Nobody waits for them: a file system that hangs does not let them go."""
        parent = self.world.by_id[self.remote].pid
        for pid in [beds.child_of(parent), self.world.by_id[self.victim].pid]:
            os.kill(pid, signal.SIGKILL)

    def beat(self):
        """Whether all that live write heartbeats now."""
        before = {instance: self.seq(instance) for instance in self.alive}
        return seconds_until(lambda: all((self.seq(one) or 0) > (before[one] or 0) for one in self.alive), PATIENCE)


@contextlib.contextmanager
def telling_logs(studio):
    """Adds what the gateway wrote last to a failure."""
    try:
        yield
    except AssertionError as error:
        raise AssertionError(f"{error}\ngateway {studio.gateway}:\n{studio.world.log(studio.gateway)[-3000:]}") from error


def expect(true, what):
    if not true:
        raise AssertionError(what)


def survive(studio, fault, mend, tells=True, scans=True, hold=STALE * 2):
    """The fault is there for twice the stale time-out. Gives the cells of the table."""
    world, cells = studio.world, {}
    studio.alive = set(studio.all)
    with telling_logs(studio), Watch(world.gateway_port, studio.all, studio.tool) as watch:
        time.sleep(0.5)
        fault()
        if tells:
            cells["told"] = seconds_until(studio.tells, 15)
            expect(cells["told"] is not None, "/readyz does not tell")
        time.sleep(hold)
        expect(not watch.lost, f"the living were not listed: {watch.lost[:5]}")
        watch.must -= {studio.victim, studio.remote}
        studio.alive -= {studio.victim, studio.remote}
        studio.kill()
        if scans:
            cells["dead gone"] = seconds_until(lambda: watch.shown == studio.alive, STALE + 15)
            expect(cells["dead gone"] is not None, f"the dead are still listed: {watch.shown - studio.alive}")
        mend()
        cells["well again"] = seconds_until(lambda: studio.readyz()[0] == 200, 20)
        expect(cells["well again"] is not None, f"not well again: {studio.readyz()}")
        expect(studio.beat() is not None, "not all beat again")
        expect(seconds_until(lambda: watch.shown == studio.alive, STALE + 10) is not None, "ghosts at the end")
        expect(seconds_until(lambda: world.entry(studio.remote) is None, STALE + 10) is not None, "files of the dead stay")
        newcomer = world.start(*TIMES, competes=False, prefix=studio.prefix)
        expect(seconds_until(lambda: newcomer in watch.shown, PATIENCE) is not None, "a newcomer is not listed")
    with telling_logs(studio):
        expect(not watch.lost, f"the living were not listed: {watch.lost[:5]}")
        expect(not watch.failed, f"requests failed: {watch.failed[:5]}")
        expect(watch.calls > hold, f"only {watch.calls} calls")
    return cells | {"looks": watch.looks, "calls": watch.calls}


class Filler:
    """Takes what is left of a file system, again and again, until it is told to give it back."""

    def __init__(self, folder, take):
        self.folder, self.take, self.ended = folder, take, threading.Event()
        self.thread = threading.Thread(target=self.fill)

    def fill(self):
        number = 0
        while not self.ended.is_set():
            number += 1
            try:
                self.take(self.folder / f"filler-{number}")
            except OSError:
                time.sleep(0.005)

    def give_back(self):
        self.ended.set()
        self.thread.join()
        for file in self.folder.glob("filler-*"):
            file.unlink()


def page(path):
    path.write_bytes(b"x" * 4096)


def full(options, take):
    with contextlib.ExitStack() as stack:
        studio = Studio(stack)
        stack.enter_context(tmpfs(studio.world.registry, options))
        studio.begin()
        filler = Filler(studio.world.registry, take)
        return survive(studio, filler.thread.start, filler.give_back)


def disk_full():
    return full("size=1m", page)


def inodes_used_up():
    return full("nr_inodes=200", lambda path: path.touch(exist_ok=False))


def remounted_read_only():
    with contextlib.ExitStack() as stack:
        studio = Studio(stack)
        folder = stack.enter_context(tmpfs(studio.world.registry, "size=4m"))
        studio.begin()
        mount = lambda how: until(how, lambda: run("mount", "-o", f"remount,{how}", folder, check=False).returncode == 0)  # noqa: E731
        return survive(studio, lambda: mount("ro"), lambda: mount("rw"))


def permission(mode, below=("instances", "tools")):
    with contextlib.ExitStack() as stack:
        drop = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"] if os.geteuid() == 0 else []
        studio = Studio(stack, prefix=drop)
        studio.world.registry.mkdir(mode=0o777)
        studio.world.registry.chmod(0o777)
        studio.begin()
        folders = [studio.world.registry / name for name in below]
        return survive(
            studio,
            lambda: [folder.chmod(mode) for folder in folders],
            lambda: [folder.chmod(0o755) for folder in folders],
        )


def may_not_write():
    return permission(0o555)


def may_not_list():
    return permission(0o000)


def may_list_and_not_open():
    return permission(0o444)


def faulty(*orders, tells=True, scans=True, hold=STALE * 2, before=()):
    with contextlib.ExitStack() as stack:
        studio = Studio(stack)
        bed = Faulty(FUSE, studio.world.folder / "real", studio.world.registry)
        stack.enter_context(bed)
        bed.order(*before)
        studio.begin()
        return survive(studio, lambda: bed.order(*orders), bed.order, tells, scans, hold)


def reading_fails():
    return faulty("open EIO", "read EIO")


def listing_fails():
    return faulty("readdir ESTALE")


def writing_fails():
    return faulty("write EIO")


def syncing_fails():
    return faulty("fsync EIO")


def renaming_fails():
    return faulty("rename EACCES")


def removing_fails():
    return faulty("unlink EPERM", tells=False)


def everything_fails_at_times():
    return faulty("* EIO 0.05", tells=False)


def everything_is_stale():
    return faulty("* ESTALE")


def everything_hangs():
    """From the next file on: one that is just being written would keep scripts from being started, as docs/troubleshooting.md
    says. The system closes for each what this process has open, and waits for the folder with it."""
    return faulty("* hang", scans=False)


def everything_takes_half_a_second():
    return faulty("* delay 0.5", tells=False, scans=False, hold=STALE * 4)


def directories_are_listed_late():
    """Two mounts of one folder, each of which shows what the other does up to three seconds late."""
    with contextlib.ExitStack() as stack:
        studio = Studio(stack)
        studio.far = studio.world.folder / "far"
        real = studio.world.folder / "real"
        mounts = [stack.enter_context(Faulty(FUSE, real, mount)) for mount in (studio.world.registry, studio.far)]
        studio.begin()
        order = lambda *orders: [bed.order(*orders) for bed in mounts]  # noqa: E731
        return survive(studio, lambda: order("readdir late 3", "getattr late 3"), order, tells=False)


def a_host_is_cut_off():
    """Its folder does not answer and its network is down: it is gone for the others, and comes back by itself."""
    with contextlib.ExitStack() as stack:
        studio = Studio(stack)
        hosts = stack.enter_context(Hosts(["far"]))
        bed = Faulty(FUSE, studio.world.registry, studio.world.folder / "far")
        stack.enter_context(bed)
        studio.begin()
        words = [*TIMES, "--host", hosts.address["far"]]
        far, _ = studio.world.launch(*words, competes=False, prefix=hosts.inside("far", own_pids=True), registry=bed.mount)
        gateway = studio.world.gateway_port
        with Watch(gateway, studio.all, studio.tool) as watch:
            expect(seconds_until(lambda: far in watch.shown, PATIENCE) is not None, "it is not listed")
            watch.must.add(far)
            time.sleep(2)
            watch.must.remove(far)
            bed.order("* EIO")
            hosts.link("far", up=False)
            gone = seconds_until(lambda: far not in watch.shown, STALE + BEAT + 2)
            expect(gone is not None, "it is still listed")
            expect(seconds_until(lambda: studio.world.entry(far) is None, PATIENCE) is not None, "its files stay")
            time.sleep(STALE)
            bed.order()
            hosts.link("far", up=True)
            back = seconds_until(lambda: far in watch.shown, 2 * BEAT + 8)
            expect(back is not None, "it does not come back")
        expect(not watch.lost, f"the living were not listed: {watch.lost[:5]}")
        expect(not watch.failed, f"requests failed: {watch.failed[:5]}")
        return {"dead gone": gone, "well again": back, "looks": watch.looks, "calls": watch.calls}


MOUNTS = [disk_full, inodes_used_up, remounted_read_only, may_not_write, may_not_list, may_list_and_not_open]
FAULTY = [
    reading_fails, listing_fails, writing_fails, syncing_fails, renaming_fails, removing_fails,
    everything_fails_at_times, everything_is_stale, everything_hangs, everything_takes_half_a_second,
    directories_are_listed_late,
]  # fmt: skip
HOSTS = [a_host_is_cut_off]
FUSE = None


def attempt(case):
    try:
        return case.__name__.replace("_", " "), case(), None
    except Exception as error:  # noqa: BLE001 - whatever goes wrong is this case's outcome
        return case.__name__.replace("_", " "), {}, "".join(traceback.format_exception(error)[-3:])


def print_table(outcomes):
    columns = ["told", "dead gone", "well again", "looks", "calls"]
    print(f"\n{'fault':32}" + "".join(f"{column:>12}" for column in columns))
    for name, cells, failure in outcomes:
        shown = [cells.get(column) for column in columns]
        words = ["-" if cell is None else f"{cell:.1f} s" if isinstance(cell, float) else str(cell) for cell in shown]
        print(f"{name:32}" + "".join(f"{word:>12}" for word in words) + ("   FAILED" if failure else ""))


def main():
    global FUSE
    reasons = {"mounts": beds.why_no_mounts(), "hosts": beds.why_no_hosts()}
    FUSE, reasons["fuse"] = beds.fuse_python()
    if not reasons["mounts"] and not reasons["hosts"]:
        beds.apart(__file__, LIMIT)
    cases = []
    for group, reason in ((MOUNTS, reasons["mounts"]), (FAULTY, reasons["fuse"]), (HOSTS, reasons["fuse"] or reasons["hosts"])):
        wanted = [case for case in group if not sys.argv[1:] or case.__name__ in sys.argv[1:]]
        cases += [] if reason else wanted
        for case in wanted if reason else []:
            print(f"skipped: {case.__name__.replace('_', ' ')}: {reason}")
    with concurrent.futures.ThreadPoolExecutor(len(cases) or 1) as pool:
        outcomes = list(pool.map(attempt, cases))
    print_table(outcomes)
    failures = [(name, failure) for name, _, failure in outcomes if failure]
    for name, failure in failures:
        print(f"\n{name}:\n{failure}")
    print(f"faults: {len(outcomes) - len(failures)} passed, {len(failures)} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
