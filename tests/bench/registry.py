"""`make bench-registry`: what it costs to look at a folder of 100 to 1,000 live instances, and 200 that come at once.

For each size: one gateway and a stub that is so many instances, each with ten tools and a heartbeat every two seconds. The
work of a scan is the time that its thread is on a processor, with what follows from the scan; growth is judged by that, as the
time of a scan depends on who else wants the processors.

Then 200 real processes that wait at a gate are let go together, and a stub writes 200 entries at once: two scans after the
last has registered the gateway lists them all, and all their tools.

After `LIMIT` seconds it ends itself with all that it started, and has failed. Standard library only.
"""

import collections
import contextlib
import fcntl
import os
import pathlib
import signal
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "faults")]
from watch import Client  # noqa: E402
from world import World, build, get, probe_tool, resident, until, write_probe_skill  # noqa: E402

SIZES = [100, 300, 1000]
SECONDS = float(os.environ.get("BENCH_SECONDS", "10"))
LIMIT = 360 + len(SIZES) * SECONDS
# Per instance; a fifth more is chance.
GROWTH_MAX = 1.2
AT_ONCE = 200
PATIENCE = 60
# Of the stub, each instance.
TOOLS = 10


def metric(world, name):
    _, body = get(world.gateway_port, "/metrics")
    return sum(float(line.split()[-1]) for line in body.decode().splitlines() if line.startswith(f"{name} "))


def scans(world):
    return metric(world, "dcc_mcp_registry_scan_seconds_count")


def worked(pid, name=None):
    """Seconds that its threads, or those of this name, were on a processor; /proc/<pid>/stat counts hundredths only."""
    total = 0
    for thread in pathlib.Path(f"/proc/{pid}/task").iterdir():
        # A thread may just have ended.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if name in (None, (thread / "comm").read_text().strip()):
                total += int((thread / "schedstat").read_text().split()[0])
    return total / 1e9


def written(world):
    """How often the entries of a registry were written, as far as their heartbeats tell."""
    entries = [world.entry(file.stem) for file in (world.registry / "instances").glob("*.json")]
    return sum(entry["heartbeat"]["seq"] for entry in entries if entry)


def measure(program, stub, size):
    with World(program) as world:
        world.start_stub(stub, size)
        gateway = world.start("--dcc", "generic")
        until(f"{size} are listed", lambda: len(world.instances()) == size + 1, PATIENCE)
        time.sleep(2)
        pid = world.by_id[gateway].pid

        def look():
            spent = metric(world, "dcc_mcp_registry_scan_seconds_sum")
            return spent, worked(pid, "scanner"), scans(world), written(world), worked(pid)

        before, began = look(), time.monotonic()
        time.sleep(SECONDS)
        spent, work, count, writes, used = (now - old for now, old in zip(look(), before))
        took = time.monotonic() - began
        return {
            "instances": size,
            "scan": spent / count * 1e3,
            "work": work / count * 1e3,
            "scans": count / took,
            "processor": used / took * 100,
            "writes": writes / took,
            "memory": resident(pid),
        }


def print_growth(rows):
    """Gives the marks."""
    print(f"\n{'instances':>10}{'one scan':>12}{'its work':>12}{'scans/s':>10}{'processor':>12}{'written/s':>12}{'memory':>12}")
    for row in rows:
        print(f"{row['instances']:>10}{row['scan']:>9.2f} ms{row['work']:>9.2f} ms{row['scans']:>10.2f}"
              f"{row['processor']:>10.2f} %{row['writes']:>12.0f}{row['memory']:>8.1f} MiB")  # fmt: skip
    least, most = rows[0], rows[-1]
    larger = most["instances"] / least["instances"]
    for what, name in (("work", "work of a scan"), ("processor", "processor in all")):
        growth = most[what] / least[what]
        yield growth <= larger * GROWTH_MAX, f"{name}: {growth:.1f} times for {larger:.0f} times the instances, linear or better"


class Gate:
    """A lock that many wait for; those that were let through share it."""

    def __init__(self, file):
        self.file = open(file, "w")
        fcntl.flock(self.file, fcntl.LOCK_EX)
        self.words = ["flock", "--shared", "--no-fork", str(file)]

    def waiting(self):
        inode = os.fstat(self.file.fileno()).st_ino
        lines = pathlib.Path("/proc/locks").read_text().splitlines()
        return sum("->" in line and f":{inode} " in line for line in lines)

    def open(self):
        self.file.close()


def processes_at_once(program):
    """Real processes, each with a skill that has one tool."""
    with World(program) as world:
        write_probe_skill(world.folder / "skills")
        skills = ["--skill-paths", str(world.folder / "skills"), "--load-skills", "all"]
        world.start()
        gate = Gate(world.folder / "gate")
        ids = [world.launch(*skills, competes=False, prefix=gate.words)[0] for _ in range(AT_ONCE)]
        until("all wait at the gate", lambda: gate.waiting() == AT_ONCE, PATIENCE)
        began = time.monotonic()
        gate.open()
        until("all have registered", lambda: all(world.entry(one) for one in ids), PATIENCE)
        took = time.monotonic() - began
        times = [world.entry(one)["registered_at"] for one in ids]
        return ["processes", took, max(times) - min(times), *two_scans_later(world, ids, 1)]


def entries_at_once(program, stub):
    """Entries that a stub writes one after the other."""
    with World(program) as world:
        world.start()
        began = time.monotonic()
        ids = [instance for instance, _ in world.start_stub(stub, AT_ONCE)]
        took = time.monotonic() - began
        times = [(world.registry / "instances" / f"{one}.json").stat().st_mtime for one in ids]
        return ["entries", took, max(times) - min(times), *two_scans_later(world, ids, TOOLS)]


def two_scans_later(world, ids, tools):
    """How many of these are listed, and how many of them with so many tools."""
    # One more, as that which is under way may have begun before.
    due = scans(world) + 3
    until("two more scans have ended", lambda: scans(world) >= due, PATIENCE)
    instances = {instance["instance_id"] for instance in world.instances()}
    listed = collections.Counter(name.split("__")[0] for name in Client(("127.0.0.1", world.gateway_port)).tools(PATIENCE))
    return len(instances & set(ids)), sum(listed[one[:8]] >= tools for one in ids)


def print_at_once(rows):
    """Gives the marks."""
    print(f"\n{'at once':>20}{'all registered':>18}{'apart':>10}{'listed':>10}{'with tools':>12}   two scans later")
    for what, took, apart, listed, whole in rows:
        print(f"{AT_ONCE:>10}{what:>10}{took:>15.2f} s{apart:>9.2f} s{listed:>10}{whole:>12}")
        yield apart <= 1, f"{AT_ONCE} {what} register in the same second"
        yield listed == whole == AT_ONCE, f"none of {AT_ONCE} {what} is missing two scans later, nor any of their tools"


def stop(*_):
    sys.exit(f"bench-registry: not ended after {LIMIT:.0f} s")


def main():
    folder = build("stub")
    program, stub = folder / "dcc-mcp-server", folder / "examples" / "stub"
    signal.signal(signal.SIGALRM, stop)
    signal.alarm(int(LIMIT))
    print(f"on {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    marks = list(print_growth([measure(program, stub, size) for size in SIZES]))
    marks += print_at_once([processes_at_once(program), entries_at_once(program, stub)])
    print()
    for reached, what in marks:
        print(f"  {'reached' if reached else 'MISSED '}  {what}")
    return 0 if all(reached for reached, _ in marks) else 1


if __name__ == "__main__":
    sys.exit(main())
