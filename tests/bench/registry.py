"""`make bench-registry`: what it costs to look at a folder of 100 to 1,000 live instances, and 200 that come at once.

For each size: one gateway and a stub that is so many instances, each with ten tools and a heartbeat every two seconds. The
marks: ten times the instances cost at most ten times the time and the processor, with a fifth for chance, and of 200 real
processes that were started together none is missing two scans after the last has registered. Standard library only.
"""

import contextlib
import os
import pathlib
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from world import World, build, get, resident, until  # noqa: E402

SIZES = [100, 300, 1000]
SECONDS = float(os.environ.get("BENCH_SECONDS", "10"))
GROWTH_MAX = 1.2
AT_ONCE = 200
TWO_SCANS = 1.0
PATIENCE = 120


def metric(port, name):
    _, body = get(port, "/metrics")
    return sum(float(line.split()[-1]) for line in body.decode().splitlines() if line.startswith(f"{name} "))


def processor(pid):
    """Seconds of processor time that a process has used."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def written(world):
    """How often the entries of a registry were written, as far as their heartbeats tell."""
    total = 0
    for file in (world.registry / "instances").glob("*.json"):
        entry = world.entry(file.stem)
        total += entry["heartbeat"]["seq"] if entry else 0
    return total


def measure(program, stub, size):
    with World(program) as world:
        world.start_stub(stub, size)
        gateway = world.start("--dcc", "generic")
        until(f"{size} are listed", lambda: len(world.instances()) == size + 1, PATIENCE)
        time.sleep(2)
        pid, port = world.by_id[gateway].pid, world.gateway_port
        names = ["dcc_mcp_registry_scan_seconds_sum", "dcc_mcp_registry_scan_seconds_count"]
        before, used, began = [metric(port, name) for name in names], processor(pid), time.monotonic()
        writes = written(world)
        time.sleep(SECONDS)
        took = time.monotonic() - began
        spent, scans = (metric(port, name) - old for name, old in zip(names, before))
        return {
            "instances": size,
            "scan": spent / scans * 1e3,
            "cpu": (processor(pid) - used) / took * 100,
            "scans": scans / took,
            "writes": (written(world) - writes) / took,
            "memory": resident(pid),
        }


def come_at_once(program):
    """Seconds from the first start to the last registration, and who is missing two scans later."""
    with World(program) as world:
        world.start()
        began = time.monotonic()
        ids = [world.launch(competes=False)[0] for _ in range(AT_ONCE)]
        until("all have registered", lambda: all(world.entry(one) for one in ids), PATIENCE)
        took = time.monotonic() - began
        time.sleep(TWO_SCANS)
        listed = {instance["instance_id"] for instance in world.instances()}
        times = [world.entry(one)["registered_at"] for one in ids]
        return took, max(times) - min(times), set(ids) - listed


def main():
    folder = build("stub")
    program, stub = folder / "dcc-mcp-server", folder / "examples" / "stub"
    rows = [measure(program, stub, size) for size in SIZES]
    print(f"\n{'instances':>10}{'one scan':>12}{'scans/s':>10}{'processor':>12}{'written/s':>12}{'memory':>12}")
    for row in rows:
        print(f"{row['instances']:>10}{row['scan']:>9.2f} ms{row['scans']:>10.2f}{row['cpu']:>10.1f} %"
              f"{row['writes']:>12.0f}{row['memory']:>8.1f} MiB")  # fmt: skip
    missed = []
    least, most = rows[0], rows[-1]
    for what in ("scan", "cpu"):
        growth = most[what] / least[what] / (most["instances"] / least["instances"])
        print(f"{what}: {most[what] / least[what]:.1f} times for {most['instances'] / least['instances']:.0f} times the instances")
        if growth > GROWTH_MAX:
            missed.append(f"{what} grows faster than the number of instances")
    took, spread, missing = come_at_once(program)
    print(f"{AT_ONCE} processes started at once: registered within {spread:.1f} s of each other, after {took:.1f} s in all; "
          f"{len(missing)} missing two scans later")  # fmt: skip
    if missing:
        missed.append(f"{len(missing)} of {AT_ONCE} are missing")
    for line in missed:
        print(f"missed: {line}")
    return 1 if missed else 0


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
