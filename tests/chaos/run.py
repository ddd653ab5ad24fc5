"""`make chaos`: twenty instances on three hosts, a gateway and its standby on each, behind nginx, one shared folder; and
everything that can go wrong does, while clients call all along.

What goes wrong, and when, is drawn from SEED before it begins, so that it can be had again. At the end all must be as if nothing
had been; `judgement.py` says what that is, which failed calls a fault explains, and how soon clients have to be served again
when a gateway goes. It is checked itself before anything is judged by it.

Every run ends: after `LIMIT` seconds a watchdog ends it with all that it made, and it has failed. CHAOS_KEEP=folder keeps
logs and registry of a run that failed. Needs root, for mounts and namespaces; installs nginx and fusepy where they are
missing. Standard library only.
"""

import dataclasses
import json
import os
import pathlib
import random
import shutil
import signal
import sys
import time
import uuid

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "faults"), str(HERE.parent)]
import beds  # noqa: E402
import judgement  # noqa: E402
import test_judgement  # noqa: E402
from beds import seconds_until  # noqa: E402
from judgement import Absence, Call, Ending, Fault, History, Replica  # noqa: E402
from studio import NGINX, Studio  # noqa: E402
from watch import TROUBLES, Client, Repeating, ask  # noqa: E402

SECONDS = int(os.environ.get("CHAOS_SECONDS", "120"))
LIMIT = SECONDS + 140  # seconds, for all of it
HOSTS, INSTANCES, CALLERS, WATCHERS = 3, 20, 4, 2
CALL_TIME = 3  # seconds a client waits
WELL_WITHIN, CALM = 45, 5  # seconds, after the last fault

# What goes wrong, how often in relation to the others, and the shortest and longest time it lasts: with one that may serve a
# gateway, or with a whole host; with other instances; with the folder.
KINDS = {
    "gateways": {
        "kill -9 of a gateway": (3, 0, 0),
        "restart of a gateway": (2, 0, 0),
        "pause of a gateway": (1, 1, 6),
        "link down": (2, 2, 8),
        "cut off": (1, 3, 12),
        "host crash": (1, 0, 0),
    },
    "instances": {
        "kill -9": (4, 0, 0),
        "killed for good": (1, 0, 0),
        "pause": (3, 1, 11),
        "restart": (2, 0, 0),
    },
    "folder": {
        "full disk": (1, 3, 14),
        "folder errors": (1, 3, 10),
        "slow folder": (1, 3, 10),
    },
}  # fmt: skip
# Pauses between two of a kind. Those of the first begin when it is over: it has to be seen how soon clients are served.
PAUSES = {"gateways": (judgement.FAILOVER_MAX, 7), "instances": (0.8, 3), "folder": (1, 5)}
KILLED_FOR_GOOD_MAX = 2
ORDERS = {
    "cut off": ["* EIO"],
    "full disk": ["write ENOSPC", "create ENOSPC"],
    "folder errors": ["* EIO 0.05"],
    "slow folder": ["* delay 0.1"],
}
SIGNALS = {
    "kill -9": signal.SIGKILL,
    "killed for good": signal.SIGKILL,
    "pause": signal.SIGSTOP,
    "restart": signal.SIGTERM,
    "kill -9 of a gateway": signal.SIGKILL,
    "pause of a gateway": signal.SIGSTOP,
    "restart of a gateway": signal.SIGTERM,
}


@dataclasses.dataclass(order=True)
class Planned:
    """A fault to come: when and for how long, in seconds from the start; the host, and which of its instances by number."""

    begins: float
    kind: str
    lasts: float
    host: str
    number: int


def schedule(seed):
    """The faults of a run. None is of an instance or a folder that still suffers from the one before."""
    plan = []
    for group, kinds in KINDS.items():
        source, clock, deck, busy = random.Random(f"{seed} {group}"), 2.0, [], {}
        while clock < SECONDS - 15:
            if not deck:
                deck = [kind for kind, (times, *_) in kinds.items() for _ in range(times)]
                source.shuffle(deck)
            kind = deck.pop()
            lasts = source.uniform(*kinds[kind][1:])
            free = [number for number in range(2 * HOSTS, INSTANCES) if busy.get(number, 0) <= clock]
            number = source.choice(free)
            planned = Planned(clock, kind, lasts, f"h{source.randint(1, HOSTS)}", number)
            clock += source.uniform(*PAUSES[group]) + (lasts if group != "instances" else 0)
            if kind == "killed for good":
                if sum(one.kind == kind for one in plan) == KILLED_FOR_GOOD_MAX:
                    continue
                busy[number] = float("inf")
            busy[number] = max(busy.get(number, 0), planned.begins + lasts + 3)
            plan.append(planned)
    return sorted(plan)


class Chaos:
    """Carries the plan out; notes who suffered when."""

    def __init__(self, studio, plan):
        self.studio, self.plan, self.began = studio, plan, time.monotonic()
        self.faults, self.orders = [], {name: [] for name in studio.hosts.names}
        # Of the absences those that are not over, with what shows the end, and what that has shown at the beginning.
        self.absences, self.away = [], []

    def run(self):
        waiting, active = list(self.plan), []
        while waiting or active or time.monotonic() < self.began + SECONDS:
            now = time.monotonic()
            while waiting and now >= self.began + waiting[0].begins:
                planned = waiting.pop(0)
                process = self.choose(planned)
                fault = self.begin(planned.kind, planned.host, process)
                active.append((now + planned.lasts, fault, process))
            for over in [one for one in active if now >= one[0]]:
                active.remove(over)
                self.end(*over[1:])
            self.note_who_is_back()
            time.sleep(0.05)

    def choose(self, planned):
        """Whoever serves the gateway port of the host, where it is to be a gateway."""
        if not planned.kind.endswith("of a gateway"):
            return self.studio.crew[planned.number]
        here = [one for one in self.studio.crew if one.host == planned.host and one.competes]
        return next((one for one in here if one.is_gateway()), here[0])

    def begin(self, kind, host, process):
        """Makes it go wrong. Who suffers is found out before."""
        studio = self.studio
        if kind in SIGNALS:
            host, hit, (leads, covered) = process.host, [process], self.leads(process)
        else:
            whole = kind in judgement.OFF or kind == "host crash"
            hit, leads, covered = [one for one in studio.crew if one.host == host and whole], whole, False
        lives = [(one.id, one.life, one.life()) for one in hit]
        fault = Fault(kind, time.monotonic(), float("inf"), host, frozenset(one.id for one in hit), leads, covered)
        self.faults.append(fault)
        if kind in judgement.OFF:
            studio.hosts.link(host, up=False)
        if kind == "host crash":
            studio.crash(host)
        if kind in SIGNALS:
            process.wanted &= kind != "killed for good"
            process.signal(SIGNALS[kind])
        self.order(fault, True)
        if kind in judgement.ENDINGS or kind == "host crash":
            self.miss(fault.begins, lives)
        return fault

    def leads(self, process):
        """Whether it serves the gateway port of its host as far as the registry tells, and whether another one could."""
        mates = [one for one in self.studio.crew if one.host == process.host and one.competes and one is not process]
        leads = process.competes and (process.is_gateway() or not any(one.is_gateway() for one in mates))
        away = {absence.instance for absence, *_ in self.away}
        return leads, any(one.wanted and one.entry() and one.id not in away for one in mates)

    def end(self, fault, process):
        if SIGNALS.get(fault.kind) == signal.SIGSTOP:
            process.signal(signal.SIGCONT)
        if fault.kind in judgement.OFF:
            self.studio.hosts.link(fault.host, up=True)
        self.order(fault, False)
        fault.ends = time.monotonic()
        if fault.kind in judgement.PAUSES or fault.kind in judgement.OFF:
            # It may have been taken for dead, and come back only when it can write again.
            self.miss(fault.ends, [(one.id, one.beat, one.beat()) for one in self.studio.crew if one.id in fault.victims])

    def order(self, fault, stands):
        """What the mounts of the hosts do wrong: all of them where the disk is full, as it is one disk."""
        lines = ORDERS.get(fault.kind, [])
        for host in self.studio.hosts.names if fault.kind == "full disk" else [fault.host]:
            for line in lines:
                (self.orders[host].append if stands else self.orders[host].remove)(line)
            if lines:
                self.studio.mounts[host].order(*self.orders[host])

    def miss(self, since, signs):
        for instance, sign, before in signs:
            absence = Absence(instance, since)
            self.absences.append(absence)
            self.away.append((absence, sign, before))

    def note_who_is_back(self):
        for one in list(self.away):
            absence, sign, before = one
            if sign() not in (None, before):
                absence.ends = time.monotonic()
                self.away.remove(one)


class Clients(Repeating):
    """Clients that call through nginx: tools of instances drawn by chance, and a tool of the gateway itself."""

    def __init__(self, studio, seed):
        super().__init__()
        self.studio, self.calls = studio, []
        for number in range(CALLERS + WATCHERS):
            source = random.Random(f"{seed}-{number}") if number < CALLERS else None
            self.repeat(0.08, self.call, number, Client(NGINX), source)

    def call(self, number, client, source):
        process = source and source.choice([process for process in self.studio.crew if process.wanted])
        call = Call(number, process.id if process else "", time.monotonic(), 0)
        text = uuid.uuid4().hex
        try:
            if process:
                answer = client.call(process.tool, {"text": text}, CALL_TIME)["structuredContent"]
                call.wrong = answer != {"text": text}
            else:
                answer = client.call("list_dcc_instances", {}, CALL_TIME)["structuredContent"]
                call.wrong = answer["total"] != len(answer["instances"])
            call.failure = f"wrong answer {answer}"[:300] if call.wrong else ""
        except TROUBLES as error:
            call.failure = f"{error!r}"[:300]
        call.ends = time.monotonic()
        self.calls.append(call)


def look(studio):
    """What the gateways show now."""
    replicas = []
    for name, address in studio.replicas.items():
        try:
            ready, _ = ask(address, "/readyz", timeout=2)
            shown = {instance["instance_id"] for instance in ask(address, "/instances", timeout=2)[1]["instances"]}
            tools = Client(address).request("tools/list", {})["tools"]
            names = {tool["name"] for tool in tools}
            replicas.append(Replica(name, ready, frozenset(shown), json.dumps(tools), frozenset(names)))
        except TROUBLES as error:
            replicas.append(Replica(name, 0, frozenset(), repr(error), frozenset()))
    return replicas


def see_the_end(studio, seed):
    """Waits until all is well, then lets clients call for a while, then looks again."""
    live = [process for process in studio.crew if process.wanted]
    well = Ending(frozenset(one.id for one in live), frozenset(one.tool for one in live), [], {}, 0, [])

    def look_again():
        well.replicas = look(studio)
        well.files = {folder: {path.name for path in (studio.real / folder).iterdir()} for folder in ("instances", "tools")}
        return not any(judgement.judge_end(well).values())

    well.after = seconds_until(look_again, WELL_WITHIN)
    with Clients(studio, seed + "-calm") as clients:
        time.sleep(CALM)
    well.calm = clients.calls
    look_again()
    return well


def print_tables(history, ending):
    reasons = [judgement.excuse(history, call) for call in history.calls if call.failure]
    print(f"\n{'fault':24}{'times':>8}{'failed calls that it explains':>32}")
    for kind in [*(kind for kinds in KINDS.values() for kind in kinds), "not back yet"]:
        times = sum(fault.kind == kind for fault in history.faults)
        print(f"{kind:24}{times or '-':>8}{reasons.count(kind):>32}")
    print(f"\n{'a gateway went by':24}{'times':>8}{'all clients served, median':>30}{'worst':>10}")
    failovers = judgement.failovers(history)
    for kind in dict.fromkeys(kind for kind, _ in failovers):
        times = sorted(seconds for one, seconds in failovers if one == kind)
        print(f"{kind:24}{len(times):>8}{times[len(times) // 2]:>28.2f} s{times[-1]:>8.2f} s")
    after = "never" if ending.after is None else f"after {ending.after:.1f} s"
    print(f"\ncalls {len(history.calls)}, failed {len(reasons)}, had to succeed {judgement.held(history)}; "
          f"all well again {after}; then {len(ending.calm)} calls")  # fmt: skip


def play(python, seed):
    """One run; what is wrong, by what was looked at."""
    with Studio(python, HOSTS, INSTANCES, seed) as studio:
        tools = {process.tool for process in studio.crew}
        if seconds_until(lambda: all(one.tools >= tools for one in look(studio)), 30) is None:
            return {"the studio comes up": [f"{one.name}: {one.ready} {one.listing[:200]}" for one in look(studio)]}
        chaos = Chaos(studio, schedule(seed))
        with Clients(studio, seed) as clients:
            chaos.run()
        ending = see_the_end(studio, seed)
        history = History(chaos.faults, chaos.absences, clients.calls, list(studio.deaths))
        print_tables(history, ending)
        wrong = judgement.judge(history, ending)
        if any(wrong.values()) and os.environ.get("CHAOS_KEEP"):
            keep(studio, history, chaos.began)
        return wrong


def keep(studio, history, began):
    """Logs, registry, and what was done when, in seconds from the start; a log line's own time is beside that of the start."""
    folder = pathlib.Path(os.environ["CHAOS_KEEP"])
    shutil.copytree(studio.folder, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("h[0-9]", "dcc-mcp-server"))
    start = time.time() - (time.monotonic() - began)
    times = [f"start {time.strftime('%H:%M:%S', time.gmtime(start))} UTC, monotonic {began:.1f}"]
    for fault in history.faults:
        times.append(f"{fault.begins - began:7.2f} to {fault.ends - began:7.2f} {fault}")
    (folder / "times.txt").write_text("\n".join([*times, *map(str, history.absences), *map(str, history.deaths)]) + "\n")


def main():
    reason = beds.why_no_hosts() or beds.why_no_mounts()
    python, why_no_fuse = beds.fuse_python()
    reason = reason or why_no_fuse
    if not reason:
        if not shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin"):
            beds.install("nginx-light")
        beds.apart(__file__, LIMIT)
    passed, failed = test_judgement.run()
    if reason:
        print(f"skipped: chaos, but for the checks of its judgement: {reason}")
    elif not failed:
        seed = os.environ.get("SEED") or str(random.SystemRandom().randrange(10**6))
        print(f"SEED={seed}")
        wrong = play(python, seed)
        for what, found in wrong.items():
            print(f"{'FAILED' if found else 'passed'}: {what}")
            for line in found[:20]:
                print(f"    {line}")
            passed, failed = passed + (not found), failed + bool(found)
        print(f"SEED={seed}")
    print(f"chaos: {passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
