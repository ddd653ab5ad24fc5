"""What a run of `make chaos` is judged by. Pure: a history goes in, what is wrong in it comes out.

A call may fail only while something is wrong with the instance it is for, or at the moment in which a gateway goes; how long
after a fault is over it may still fail, is said here. `test_judgement.py` shows that each fault of the product is noticed.
"""

import dataclasses

FAILOVER_MAX = 5  # seconds, the customer's figure
# A gateway that is killed while its standby is well: the calls in flight at that time are lost, none that begins after it.
IN_FLIGHT = 0.5  # seconds, for the time between our looking at the clock and the end of the process
# After a process is well again: a scan and the catalogue. After a folder is: a scan that was put off for 5 s, and the same.
SETTLED, READ_AGAIN = 4, 7  # seconds
# A run in which hardly a call had to succeed shows nothing.
HELD_MIN = 0.2

HARD_TO_READ = ("folder errors", "slow folder", "cut off")
HARD_TO_WRITE = ("full disk", *HARD_TO_READ)
LEAVES = ("restart", "restart of a gateway")
ENDINGS = ("kill -9", "kill -9 of a gateway", "killed for good", *LEAVES)
PAUSES = ("pause", "pause of a gateway")
OFF = ("link down", "cut off")
# After these a client has to be served again in FAILOVER_MAX. A gateway that is paused keeps its port: a known limit.
GATEWAY_GOES = (*ENDINGS, *OFF, "host crash")


@dataclasses.dataclass
class Fault:
    kind: str
    begins: float
    ends: float
    host: str = ""
    # Ids of the instances that suffer from it.
    victims: frozenset = frozenset()
    # Whether a gateway does, and whether another process of its host was there to take over.
    gateway: bool = False
    covered: bool = False


@dataclasses.dataclass
class Absence:
    """An instance may not be registered: from its end until its next life, or from the end of what kept it from writing
    until its next heartbeat."""

    instance: str
    begins: float
    ends: float = float("inf")


@dataclasses.dataclass
class Call:
    """A call for an instance, or for the gateway itself (none); `wrong` is an answer that cannot be."""

    client: int
    instance: str
    begins: float
    ends: float
    failure: str = ""
    wrong: bool = False


@dataclasses.dataclass
class Death:
    """A process has ended; `told` is the signal that was sent to end it, or 0."""

    instance: str
    host: str
    code: int
    told: int
    at: float


@dataclasses.dataclass
class Replica:
    """What a gateway shows when all is over: who is listed, `/readyz`, the answer to `tools/list` and the names in it."""

    name: str
    ready: int
    shown: frozenset
    listing: str
    tools: frozenset


@dataclasses.dataclass
class Ending:
    # Ids of those that live, and the names that their tools must have.
    live: frozenset
    tools: frozenset
    replicas: list
    # Names of files, by folder of the registry.
    files: dict
    # After how many seconds all was well, or nothing.
    after: float | None
    # The calls after that.
    calm: list


@dataclasses.dataclass
class History:
    faults: list
    absences: list
    calls: list
    deaths: list


def excuse(history, call):
    """The kind of a fault because of which this call may fail, or nothing."""
    for fault in history.faults:
        if any(meets(call, *times) for times in hard_times(history, fault)):
            return fault.kind
        if call.instance in fault.victims and meets(call, fault.begins, learned(history, fault)):
            return fault.kind
    if any(one.instance == call.instance and meets(call, one.begins, learned(history, one)) for one in history.absences):
        return "not back yet"
    return None


def meets(call, begins, ends):
    return begins <= call.ends and call.begins <= ends


def hard_times(history, fault):
    """The times in which a call for anybody may fail because of a gateway."""
    if not fault.gateway:
        return []
    if fault.kind in LEAVES and fault.covered:
        # A gateway that leaves hands over first, and ends the calls under way.
        return []
    if fault.kind in ENDINGS and fault.covered:
        return [(fault.begins, fault.begins + IN_FLIGHT)]
    if fault.kind in PAUSES:
        return [(fault.begins, fault.ends + FAILOVER_MAX)]
    times = [(fault.begins, fault.begins + FAILOVER_MAX)]
    if fault.kind == "cut off":
        # Until it has seen the folder again, it goes by what it knew before, and by whom it could not reach meanwhile.
        times.append((fault.ends, learned_by(fault.host, history, fault)))
    if fault.kind == "link down":
        times.append((fault.ends, fault.ends + FAILOVER_MAX))
    return times


def learned(history, trouble):
    """By when the gateways of all hosts know that a trouble is over."""
    return max(learned_by(host, history, trouble) for host in {"", *(fault.host for fault in history.faults)})


def learned_by(host, history, trouble):
    """A host that could not look at the folder just then learns it later."""
    known = trouble.ends + SETTLED
    for fault in sorted(history.faults, key=lambda fault: fault.begins):
        if fault.host == host and fault.kind in HARD_TO_READ and fault.begins < known:
            known = max(known, fault.ends + READ_AGAIN)
    return known


def failovers(history):
    """(kind, seconds) for each gateway that went: until the last client had a call of the gateway itself answered that it
    began after that."""
    asked = [call for call in history.calls if not call.instance]
    times = []
    for fault in history.faults:
        if fault.gateway and fault.kind in GATEWAY_GOES:
            ends = {call.client: float("inf") for call in asked}
            for call in asked:
                if not call.failure and call.begins >= fault.begins:
                    ends[call.client] = min(ends[call.client], call.ends)
            times.append((fault.kind, max(ends.values(), default=float("inf")) - fault.begins))
    return times


def judge(history, ending):
    """What was looked at, and what is wrong with it: {name: [sentence]}."""
    return judge_course(history, ending) | judge_end(ending)


def judge_course(history, ending):
    return {
        "every failed call is explained by a fault": unexplained(history),
        "no answer is wrong": [f"{call}" for call in [*history.calls, *ending.calm] if call.wrong],
        "enough calls had nothing to excuse them": too_few(history),
        f"after a gateway went all clients are served in {FAILOVER_MAX} s": too_late(history),
        "no process ends by itself": [f"{death}" for death in history.deaths if not was_to_be(history, death)],
        "all is well in time": ["it never was"] if ending.after is None else [],
        "no call fails in the calm at the end": calm(ending),
    }


def judge_end(ending):
    return {
        "all gateways are ready": [f"{one.name}: {one.ready}" for one in ending.replicas if one.ready != 200],
        "nobody is missing": listed(ending, lambda one: ending.live - one.shown),
        "no ghost is listed": listed(ending, lambda one: one.shown - ending.live),
        "no tool is missing": listed(ending, lambda one: ending.tools - one.tools),
        "the gateways list the same": the_same(ending),
        "the registry holds the files of those that live": files(ending),
    }


def unexplained(history):
    return [f"{call}" for call in history.calls if call.failure and excuse(history, call) is None]


def held(history):
    """How many calls had to succeed."""
    return sum(excuse(history, call) is None for call in history.calls)


def too_few(history):
    count = held(history)
    return [] if count > HELD_MIN * len(history.calls) else [f"{count} of {len(history.calls)}"]


def too_late(history):
    times = failovers(history)
    late = [f"{kind}: after {seconds:.1f} s" for kind, seconds in times if seconds > FAILOVER_MAX]
    return late or ([] if times else ["no gateway went"])


def was_to_be(history, death):
    """Killed, stopped when told to, or not come up since the folder could not be written."""
    if death.code == 3:
        return any(
            fault.begins <= death.at <= fault.ends + SETTLED
            for fault in history.faults
            if fault.kind in HARD_TO_WRITE and (fault.host == death.host or fault.kind == "full disk")
        )
    return (death.told, death.code) in ((9, -9), (9, 0), (15, 0))


def listed(ending, wrong):
    return [f"{one.name}: {sorted(wrong(one))}" for one in ending.replicas if wrong(one)]


def the_same(ending):
    first = ending.replicas[0]
    return [f"{one.name} and {first.name} differ" for one in ending.replicas if one.listing != first.listing]


def files(ending):
    """Beside each file of one that lives there may be the next, which it is about to write."""
    expected = {f"{one}.json" for one in ending.live}
    beside = {f".{name}.tmp" for name in expected}
    wrong = {folder: expected - names | names - expected - beside for folder, names in ending.files.items()}
    return [f"{folder}: {sorted(names)}" for folder, names in wrong.items() if names]


def calm(ending):
    failed = [f"{call}" for call in ending.calm if call.failure]
    return failed or ([] if ending.calm else ["nobody called"])
