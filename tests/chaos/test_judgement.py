"""Invented histories: whatever the product could do wrong has to be noticed, and what a fault explains must not be held
against it. Run by `run.py` before anything else."""

import dataclasses
import unittest

import judgement
from judgement import Absence, Call, Death, Ending, Fault, History, Replica, excuse, judge

A, B = "aaaaaaaa-1", "bbbbbbbb-2"
BOTH = frozenset([A, B])
TOOLS = frozenset(["aaaaaaaa__echo", "bbbbbbbb__echo"])
FAILED, EXPLAINED = "it failed", "every failed call is explained by a fault"
SERVED = f"after a gateway went all clients are served in {judgement.FAILOVER_MAX} s"


def fault(kind, begins=100.0, ends=100.0, **more):
    return Fault(kind, begins, ends, **more)


def call(begins, ends=None, instance=A, failure="", **more):
    return Call(more.pop("client", 0), instance, begins, begins + 0.01 if ends is None else ends, failure, **more)


def history(*faults, absences=(), calls=(), deaths=()):
    """A run of 200 s with a call for A and one for the gateway in each of them, all answered, and what is added."""
    fine = [call(float(second), instance=name) for second in range(200) for name in (A, "")]
    return History(list(faults), list(absences), [*fine, *calls], list(deaths))


def replica(name="h1", ready=200, shown=BOTH, listing="[]", tools=TOOLS):
    return Replica(name, ready, shown, listing, tools)


def ending(*replicas, **more):
    files = {"instances": {f"{one}.json" for one in BOTH}, "tools": {f"{one}.json" for one in BOTH}}
    whole = Ending(BOTH, TOOLS, list(replicas) or [replica(), replica("h2")], files, 3.0, [call(300.0)])
    return dataclasses.replace(whole, **more)


LEADS = {"victims": frozenset([B]), "gateway": True, "covered": True}
KILLED = fault("kill -9 of a gateway", **LEADS)


class Judgement(unittest.TestCase):
    def wrong(self, past, end=None):
        """The names of what is found wrong."""
        return {name for name, found in judge(past, end or ending()).items() if found}

    def check(self, expected, *faults, end=None, **more):
        self.assertEqual(self.wrong(history(KILLED, *faults, **more), end), set(expected))

    def test_a_run_without_fail_passes(self):
        self.check([])

    def test_ghost(self):
        self.check(["no ghost is listed"], end=ending(replica(), replica("h2", shown=BOTH | {"cccccccc-3"})))

    def test_lost_instance(self):
        self.check(["nobody is missing"], end=ending(replica(shown=frozenset([A])), replica("h2")))

    def test_lost_tool(self):
        self.check(["no tool is missing"], end=ending(replica(tools=frozenset(["aaaaaaaa__echo"]))))

    def test_gateway_that_is_not_ready_or_silent(self):
        self.check(["all gateways are ready"], end=ending(replica(ready=503)))
        silent = replica(ready=0, shown=frozenset(), listing="timed out", tools=frozenset())
        found = {"all gateways are ready", "nobody is missing", "no tool is missing", "the gateways list the same"}
        self.check(found, end=ending(replica(), silent))

    def test_different_lists(self):
        self.check(["the gateways list the same"], end=ending(replica(), replica("h2", listing="[1]")))

    def test_files_left_over_or_lost(self):
        name = "the registry holds the files of those that live"
        whole = {f"{one}.json" for one in BOTH}
        for names, expected in (
            (whole | {".cccccccc-3.json.tmp"}, [name]),
            (whole | {"cccccccc-3.json"}, [name]),
            ({f"{A}.json", f".{B}.json.tmp"}, [name]),
            (whole | {f".{A}.json.tmp"}, []),
        ):
            for folder in ("instances", "tools"):
                self.check(expected, end=ending(files={"instances": whole, "tools": whole} | {folder: names}))

    def test_never_well(self):
        self.check(["all is well in time"], end=ending(after=None))

    def test_failure_in_the_calm(self):
        self.check(["no call fails in the calm at the end"], end=ending(calm=[call(300.0, failure=FAILED)]))
        self.check(["no call fails in the calm at the end"], end=ending(calm=[]))

    def test_wrong_answer_is_excused_by_nothing(self):
        self.check(["no answer is wrong"], calls=[call(100.1, instance=B, failure=FAILED, wrong=True)])

    def test_failed_call_without_a_fault(self):
        self.check([EXPLAINED], calls=[call(50.0, failure=FAILED)])
        self.check([EXPLAINED], calls=[call(99.0, 99.9, failure=FAILED)])

    def test_fault_of_one_instance_does_not_excuse_another(self):
        gone = fault("kill -9", victims=frozenset([B]))
        self.check([EXPLAINED], gone, calls=[call(101.0, failure=FAILED)])
        self.check([], gone, calls=[call(101.0, instance=B, failure=FAILED)])

    def test_excuse_ends(self):
        for kind, settled in (("pause", judgement.SETTLED), ("cut off", judgement.READ_AGAIN)):
            suffers = fault(kind, 50.0, 60.0, victims=frozenset([B]))
            self.assertEqual(excuse(history(suffers), call(60 + settled - 0.1, instance=B)), kind)
            self.assertIsNone(excuse(history(suffers), call(60 + settled + 0.1, instance=B)))
            self.assertIsNone(excuse(history(suffers), call(49.0, 49.9, instance=B)))

    def test_calls_in_flight_at_a_killed_gateway_and_no_other(self):
        self.check([], calls=[call(99.9, 103.0, failure=FAILED)])
        self.check([EXPLAINED], calls=[call(100.0 + judgement.IN_FLIGHT + 0.1, failure=FAILED)])

    def test_gateway_that_leaves_loses_nothing(self):
        leaves = fault("restart", 150.0, 150.0, **LEADS)
        self.check([EXPLAINED], leaves, calls=[call(149.9, 150.1, failure=FAILED)])

    def test_gateway_without_a_standby_is_missed_for_a_while(self):
        for kind in ("kill -9", "restart of a gateway", "host crash"):
            alone = fault(kind, 50.0, 57.0, gateway=True)
            self.check([], alone, calls=[call(52.0, failure=FAILED)])
            self.check([EXPLAINED], alone, calls=[call(60.0, failure=FAILED)])

    def test_host_that_is_off_is_missed_when_it_goes_and_when_it_comes(self):
        off = fault("link down", 50.0, 70.0, gateway=True)
        self.check([], off, calls=[call(52.0, failure=FAILED), call(71.0, failure=FAILED)])
        self.check([EXPLAINED], off, calls=[call(60.0, failure=FAILED)])

    def test_paused_gateway_keeps_its_port(self):
        self.check([], fault("pause", 50.0, 60.0, gateway=True), calls=[call(58.0, failure=FAILED)])

    def test_folder_explains_nothing_but_late_knowledge(self):
        back = fault("pause", 45.0, 50.0, victims=frozenset([A]))
        for kind, late in (("slow folder", [60.0, 66.0]), ("full disk", [53.0])):
            trouble = fault(kind, 50.0, 60.0, host="h1")
            self.check([EXPLAINED], trouble, calls=[call(55.0, failure=FAILED)])
            self.check([], trouble, back, calls=[call(at, failure=FAILED) for at in late])
            self.check([EXPLAINED], trouble, back, calls=[call(late[-1] + 2, failure=FAILED)])
        before, later = (fault("slow folder", at, at + 10, host="h1") for at in (20.0, 120.0))
        self.check([], before, later, back, calls=[call(53.0, failure=FAILED)])
        self.check([EXPLAINED], before, later, back, calls=[call(125.0, failure=FAILED)])

    def test_gateway_that_was_cut_off_knows_when_it_has_seen_the_folder_again(self):
        off = fault("cut off", 50.0, 60.0, host="h1", gateway=True)
        self.check([], off, calls=[call(66.0, failure=FAILED)])
        self.check([EXPLAINED], off, calls=[call(67.5, failure=FAILED)])
        slow = fault("slow folder", 65.0, 72.0, host="h1")
        self.check([], off, slow, calls=[call(78.0, failure=FAILED)])
        self.check([EXPLAINED], off, slow, calls=[call(80.0, failure=FAILED)])
        self.check([EXPLAINED], off, dataclasses.replace(slow, host="h2"), calls=[call(70.0, failure=FAILED)])

    def test_absence_excuses_until_it_is_over(self):
        late = call(140.0, failure=FAILED)
        self.check([], absences=[Absence(A, 130.0)], calls=[late])
        self.check([], absences=[Absence(A, 130.0, 138.0)], calls=[late])
        self.check([EXPLAINED], absences=[Absence(A, 130.0, 133.0)], calls=[late])
        self.check([EXPLAINED], absences=[Absence(B, 130.0)], calls=[late])

    def test_all_excused_shows_nothing(self):
        self.check(["enough calls had nothing to excuse them"], fault("pause", 0.0, 190.0, gateway=True))

    def test_failover_that_is_too_long(self):
        for lasts, expected in ((4.9, []), (5.1, [SERVED])):
            waited = call(100.0, 100.0 + lasts, instance="", client=1)
            self.check(expected, calls=[waited])

    def test_failover_counts_for_the_client_that_waited_longest(self):
        calls = [call(100.0, 103.0, instance="", client=1, failure=FAILED), call(103.1, 105.2, instance="", client=1)]
        self.check([SERVED], calls=calls)
        self.check([SERVED], calls=[call(99.0, 100.1, instance="", client=1)])

    def test_failover_is_asked_for_only_where_a_gateway_went(self):
        waited = call(50.0, 57.0, instance="", client=1)
        self.check([], fault("pause of a gateway", 50.0, 55.0, gateway=True), calls=[waited, call(100.0, instance="", client=1)])
        self.check([], fault("kill -9", 50.0, 50.0), calls=[waited, call(100.0, instance="", client=1)])

    def test_run_in_which_no_gateway_went(self):
        self.assertEqual(self.wrong(history()), {SERVED})

    def test_process_that_ends_by_itself(self):
        self.check(["no process ends by itself"], deaths=[Death(A, "h1", 5, 0, 50.0)])
        self.check(["no process ends by itself"], deaths=[Death(A, "h1", 101, 15, 50.0)])
        self.check(["no process ends by itself"], deaths=[Death(A, "h1", -15, 15, 50.0)])
        self.check(["no process ends by itself"], deaths=[Death(A, "h1", 3, 0, 50.0)])
        self.check([], deaths=[Death(A, "h1", -9, 9, 50.0), Death(A, "h1", 0, 15, 60.0), Death(A, "h1", 0, 9, 70.0)])

    def test_process_that_cannot_register_at_its_start(self):
        wrong = ["no process ends by itself"]
        for kind, host, expected in (("cut off", "h1", []), ("full disk", "h2", []), ("cut off", "h2", wrong)):
            trouble = fault(kind, 45.0, 55.0, host=host)
            for told in (0, 9):
                self.check(expected, trouble, deaths=[Death(A, "h1", 3, told, 50.0)])
            self.check(wrong, trouble, deaths=[Death(A, "h1", 5, 0, 50.0)])


def run():
    """(passed, failed), with the failures printed."""
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(Judgement).run(result)
    broken = result.failures + result.errors
    for test, text in broken:
        print(f"{test}:\n{text}")
    return result.testsRun - len(broken), len(broken)


if __name__ == "__main__":
    unittest.main()
