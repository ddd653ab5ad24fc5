"""`make chaos`: twenty instances on three hosts, a gateway and its standby on each, behind nginx, one shared folder; and
everything that can go wrong does, while clients call all along.

What goes wrong is drawn from SEED before it begins, so that a run can be had again. At the end all must be as if nothing
had been: nobody is missing, no ghost is listed, no file is left over, the three gateways list the same bytes. Every call
that failed has to be explained by what was wrong at the time with its instance or with a gateway, and after the death of
a gateway a client must be served again within 5 s.

Needs root, for mounts and namespaces; installs nginx and fusepy where they are missing. Standard library only.
"""

import collections
import contextlib
import dataclasses
import http.client
import os
import pathlib
import random
import shutil
import signal
import sys
import threading
import time
import uuid

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "faults"), str(HERE.parent)]
import beds  # noqa: E402
from beds import seconds_until  # noqa: E402
from studio import NGINX, STALE, Studio  # noqa: E402
from watch import Client, ask  # noqa: E402

SECONDS = int(os.environ.get("CHAOS_SECONDS", "100"))
HOSTS, INSTANCES, CLIENTS = 3, 20, 4
CALL_TIME = 3  # seconds a client waits
FAILOVER_MAX = 5  # seconds
# After a fault is over: heartbeats with back-off, a scan that was put off for 5 s, the catalogue.
SETTLED_AFTER = 9
END = 60  # seconds for all to be well again

# What goes wrong, how often in relation to the others, and the shortest and longest time it lasts.
KINDS = {
    "kill -9": (4, 0, 0),
    "kill -9 of a gateway": (3, 0, 0),
    "killed for good": (1, 0, 0),
    "pause": (3, 1, 12),
    "restart": (2, 0, 0),
    "link down": (2, 2, 12),
    "cut off": (2, 3, 14),
    "host crash": (1, 0, 0),
    "full disk": (2, 3, 14),
    "folder errors": (2, 3, 10),
    "slow folder": (2, 3, 10),
}
KILLED_FOR_GOOD_MAX = 2
ORDERS = {
    "cut off": ["* EIO"],
    "full disk": ["write ENOSPC", "create ENOSPC"],
    "folder errors": ["* EIO 0.05"],
    "slow folder": ["* delay 0.1"],
}


@dataclasses.dataclass
class Fault:
    kind: str
    begins: float
    lasts: float
    host: str = ""
    instance: int = -1
    ends: float = 0.0
    # Ids of instances that suffer from it, and whether a gateway does.
    victims: frozenset = frozenset()
    gateway: bool = False


@dataclasses.dataclass
class Outcome:
    instance: str
    begins: float
    ends: float
    failure: str


def schedule(seed):
    """The faults of a run, times from its beginning. No two at a time for one host, and one host at most is off."""
    source, faults, clock, busy, off_until, for_good = random.Random(seed), [], 2.0, {}, 0.0, 0
    while clock < SECONDS - 15:
        clock += source.uniform(0.6, 2.6)
        kind = source.choices(list(KINDS), [weight for weight, _, _ in KINDS.values()])[0]
        _, least, most = KINDS[kind]
        fault = Fault(kind, clock, source.uniform(least, most), f"h{source.randint(1, HOSTS)}", source.randrange(INSTANCES))
        is_off = kind in ("link down", "cut off", "host crash", "kill -9 of a gateway")
        place = fault.host if is_off or kind in ORDERS else fault.instance
        if busy.get(place, 0) > clock or (is_off and off_until > clock):
            continue
        if kind == "full disk" and any(until > clock for until in busy.values()):
            continue
        if kind == "killed for good":
            for_good += 1
            if for_good > KILLED_FOR_GOOD_MAX:
                continue
        busy[place] = clock + fault.lasts + 3
        if is_off:
            off_until = clock + fault.lasts + 6
        faults.append(fault)
    return faults


class Chaos:
    """Carries the schedule out; notes who suffered when."""

    def __init__(self, studio, faults):
        self.studio, self.faults, self.began, self.begun = studio, faults, time.monotonic(), []
        # Times in which an instance is not up, by id: (from, until it has registered again).
        self.down, self.orders = collections.defaultdict(list), {name: [] for name in studio.hosts.names}

    def run(self):
        waiting, active = list(self.faults), []
        while waiting or active or time.monotonic() < self.began + SECONDS:
            now = time.monotonic()
            while waiting and now >= self.began + waiting[0].begins:
                fault = waiting.pop(0)
                self.begin(fault)
                active.append(fault)
            for fault in [fault for fault in active if now >= fault.begins + fault.lasts]:
                active.remove(fault)
                self.end(fault)
            self.studio.supervise()
            self.note_who_is_down()
            time.sleep(0.05)

    def begin(self, fault):
        studio, fault.begins = self.studio, time.monotonic()
        process = studio.crew[fault.instance]
        if fault.kind == "kill -9 of a gateway":
            leaders = [one for one in studio.crew if one.host == fault.host and one.wanted and one.is_gateway()]
            process = leaders[0] if leaders else process
        here = frozenset(one.id for one in studio.crew if one.host == fault.host)
        alone, leads = frozenset([process.id]), process.is_gateway()
        match fault.kind:
            case "kill -9" | "kill -9 of a gateway" | "killed for good":
                process.wanted = fault.kind != "killed for good"
                fault.victims, fault.gateway = alone, leads
                process.signal(signal.SIGKILL)
            case "pause":
                fault.victims, fault.gateway = alone, leads
                process.signal(signal.SIGSTOP)
            case "restart":
                fault.victims, fault.gateway = alone, leads
                process.signal(signal.SIGTERM)
            case "link down" | "cut off":
                fault.victims, fault.gateway = here, True
                studio.hosts.link(fault.host, up=False)
            case "host crash":
                fault.victims, fault.gateway = here, True
                studio.crash(fault.host)
        self.order(fault, True)
        if fault.kind in ("kill -9", "kill -9 of a gateway", "killed for good", "restart", "host crash"):
            for victim in fault.victims:
                self.down[victim].append([fault.begins, None, self.pid_of(victim)])
        self.begun.append(fault)

    def end(self, fault):
        if fault.kind == "pause":
            self.studio.crew[fault.instance].signal(signal.SIGCONT)
        if fault.kind in ("link down", "cut off"):
            self.studio.hosts.link(fault.host, up=True)
        self.order(fault, False)
        fault.ends = time.monotonic()

    def order(self, fault, stands):
        """What the mounts of the hosts do wrong: all of them where the disk is full, as it is one disk."""
        lines = ORDERS.get(fault.kind, [])
        for host in self.studio.hosts.names if fault.kind == "full disk" else [fault.host]:
            for line in lines:
                (self.orders[host].append if stands else self.orders[host].remove)(line)
            if lines:
                self.studio.mounts[host].order(*self.orders[host])

    def pid_of(self, instance):
        entry = next(one.entry() for one in self.studio.crew if one.id == instance)
        return entry and (entry["pid"], entry["registered_at"])

    def note_who_is_down(self):
        for instance, times in self.down.items():
            if times[-1][1] is None:
                there = self.pid_of(instance)
                if there and there != times[-1][2]:
                    times[-1][1] = time.monotonic()

    def explains(self, outcome):
        """A fault that explains a failed call, or nothing."""
        folder = [(f.begins, f.ends + SETTLED_AFTER) for f in self.begun if f.kind in ORDERS]

        def seen(until):
            """A gateway that could not look at the folder learned of it later."""
            return max([until, *(end for begin, end in folder if begin < until < end)])

        for fault in self.begun:
            if fault.gateway and fault.begins - CALL_TIME <= outcome.ends and outcome.begins <= fault.ends + FAILOVER_MAX:
                return fault.kind
            hit = outcome.instance in fault.victims
            if hit and fault.begins <= outcome.ends and outcome.begins <= seen(fault.ends + SETTLED_AFTER):
                return fault.kind
        for begin, end, _ in self.down.get(outcome.instance, []):
            if begin <= outcome.ends and (end is None or outcome.begins <= seen(end + SETTLED_AFTER)):
                return "not up yet"
        return None


class Callers:
    """Clients that call tools of instances drawn by chance through nginx."""

    def __init__(self, studio, seed):
        self.studio, self.outcomes, self.ended = studio, [], threading.Event()
        sources = [random.Random(f"{seed}-{number}") for number in range(CLIENTS)]
        self.threads = [threading.Thread(target=self.call, args=[source]) for source in sources]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        for thread in self.threads:
            thread.join()

    def call(self, source):
        client = Client(NGINX)
        while not self.ended.wait(0.08):
            process = source.choice([process for process in self.studio.crew if process.wanted])
            text, begins, failure = uuid.uuid4().hex, time.monotonic(), ""
            try:
                result = client.call(f"{process.id[:8]}__probe_tools__echo", {"text": text}, CALL_TIME)
                if result["structuredContent"]["text"] != text:
                    failure = f"WRONG ANSWER {result}"
            except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
                failure = f"{error!r}"[:300]
            self.outcomes.append(Outcome(process.id, begins, time.monotonic(), failure))


def failovers(chaos, outcomes):
    """For each fault that took a gateway: until a call that began after it was answered."""
    times = {}
    for fault in chaos.begun:
        if fault.gateway and fault.kind in ("kill -9", "kill -9 of a gateway", "host crash", "link down", "cut off"):
            served = [one.ends for one in outcomes if not one.failure and one.begins >= fault.begins]
            times.setdefault(fault.kind, []).append(min(served, default=float("inf")) - fault.begins)
    return times


def at_the_end(studio):
    """Everything that is not as it should be when all faults are over."""
    wrong = []
    live = {process.id for process in studio.crew if process.wanted}

    def shown(gateway):
        try:
            return {instance["instance_id"] for instance in ask(gateway, "/instances")[1]["instances"]}
        except (OSError, http.client.HTTPException):
            return None

    def files(folder):
        with contextlib.suppress(FileNotFoundError):
            return {path.name for path in (studio.real / folder).iterdir()}
        return set()

    def all_well():
        studio.supervise()
        ready = all(answer(gateway, "/readyz") == 200 for gateway in studio.replicas.values())
        whole = all(files(folder) == {f"{one}.json" for one in live} for folder in ("instances", "tools"))
        return ready and whole and all(shown(gateway) == live for gateway in studio.replicas.values())

    well = seconds_until(all_well, END)
    if well is None:
        for name, gateway in studio.replicas.items():
            seen = shown(gateway)
            wrong.append(f"{name}: {answer(gateway, '/readyz')}, missing {live - (seen or set())}, ghosts {(seen or set()) - live}")
        for folder in ("instances", "tools"):
            wrong.append(f"{folder}: {files(folder) ^ {f'{one}.json' for one in live}}")
    time.sleep(2)
    lists = []
    for gateway in studio.replicas.values():
        try:
            lists.append(Client(gateway).request("tools/list", {}))
        except (OSError, ValueError, http.client.HTTPException) as error:
            lists.append(repr(error))
    if any(listed != lists[0] for listed in lists):
        wrong.append("the gateways list different tools")
    missing = [one[:8] for one in live if f"{one[:8]}__probe_tools__echo" not in str(lists[0])]
    if missing:
        wrong.append(f"tools are missing of {missing}")
    return well, wrong


def answer(gateway, path):
    try:
        return ask(gateway, path, timeout=2)[0]
    except (OSError, http.client.HTTPException):
        return None


def report(chaos, outcomes, well, calm):
    """Prints the tables; gives what is wrong."""
    failed = [one for one in outcomes if one.failure]
    why = [(one, chaos.explains(one)) for one in failed]
    print(f"\n{'fault':24}{'times':>8}{'failed calls that it explains':>32}")
    for kind in [*KINDS, "not up yet"]:
        times = sum(fault.kind == kind for fault in chaos.begun)
        print(f"{kind:24}{times or '-':>8}{sum(reason == kind for _, reason in why):>32}")
    wrong = [f"not explained: {one}" for one, reason in why if reason is None or one.failure.startswith("WRONG")]
    print(f"\n{'a gateway went by':24}{'times':>8}{'served again, median':>24}{'worst':>10}")
    for kind, times in failovers(chaos, outcomes).items():
        times.sort()
        print(f"{kind:24}{len(times):>8}{times[len(times) // 2]:>22.2f} s{times[-1]:>8.2f} s")
        if times[-1] > FAILOVER_MAX:
            wrong.append(f"{kind}: served again only after {times[-1]:.1f} s")
    print(f"\ncalls {len(outcomes)}, failed {len(failed)}, not explained {len(wrong)}; all well again after {well or END:.1f} s; "
          f"then {calm[0]} calls, {calm[1]} failed")  # fmt: skip
    return wrong


def main():
    reason = beds.why_no_hosts() or beds.why_no_mounts()
    python, why_no_fuse = beds.fuse_python()
    if reason or why_no_fuse:
        print(f"skipped: chaos: {reason or why_no_fuse}")
        print("chaos: 0 passed, 0 failed")
        return 0
    if not shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin"):
        beds.install("nginx-light")
    beds.apart(__file__)
    seed = os.environ.get("SEED") or str(random.SystemRandom().randrange(10**6))
    print(f"SEED={seed}")
    with Studio(python, HOSTS, INSTANCES, seed) as studio:
        studio.supervise()
        studio.wait_up()
        began, wrong = seconds_until(lambda: len(safe_tools()) >= INSTANCES, 30), []
        if began is None:
            print("the studio does not come up")
            return 1
        chaos = Chaos(studio, schedule(seed))
        with Callers(studio, seed) as callers:
            chaos.run()
        well, wrong = at_the_end(studio)
        with Callers(studio, seed + "-calm") as calm:
            time.sleep(5)
        failures = [one for one in calm.outcomes if one.failure]
        wrong += [f"in the calm at the end: {one}" for one in failures]
        wrong += report(chaos, callers.outcomes, well, (len(calm.outcomes), len(failures)))
        if wrong and os.environ.get("CHAOS_KEEP"):
            shutil.copytree(studio.folder, os.environ["CHAOS_KEEP"], dirs_exist_ok=True, ignore=shutil.ignore_patterns("h[0-9]"))
    for line in wrong[:40]:
        print(line)
    print(f"SEED={seed}")
    print(f"chaos: {0 if wrong else 1} passed, {1 if wrong else 0} failed")
    return 1 if wrong else 0


def safe_tools():
    with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
        return [name for name in Client(NGINX).tools() if name.endswith("__probe_tools__echo")]
    return []


if __name__ == "__main__":
    sys.exit(main())
