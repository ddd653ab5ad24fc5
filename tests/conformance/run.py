"""Runs the official MCP conformance suite, its stable release and its newest alpha, against an instance, against the
same kind of instance through the gateway's `/mcp/dcc/<type>`, and against the gateway's common `/mcp`.

A check that fails or warns must be in `expected.txt` with its reason, and what is there must still fail: anything else
is a failure of this test. `make conformance` builds the program and runs this; `--table` ends with the results as a
Markdown table, `--keep FOLDER` keeps what the suite wrote. Words given select targets (`instance`, `dcc`, `mcp`).

Standard library only; installs the suite by npm once, below `target/conformance`.
"""

import argparse
import collections
import concurrent.futures
import fnmatch
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
sys.path.insert(0, str(HERE))
import namemap  # noqa: E402
from world import ROOT, World, target, until  # noqa: E402

STABLE, ALPHA = "0.1.16", "0.2.0-alpha.12"
SUITES = {
    "stable": (STABLE, ["--suite", "active"]),
    "2025-11-25": (ALPHA, ["--requirements", "2025-11-25"]),
    "2026-07-28": (ALPHA, ["--requirements", "2026-07-28"]),
}
TARGETS = ("instance", "dcc", "mcp")
SUITE_PATIENCE = 400  # seconds
DCC = "conformance"

# The worst of the outcomes of a check that is made several times.
SEVERITY = ["SKIPPED", "INFO", "SUCCESS", "WARNING", "FAILURE"]
WRONG = ("FAILURE", "WARNING")


class Expected:
    """A line of `expected.txt`: where a check is expected to fail, which, and why."""

    def __init__(self, line):
        self.where, self.check, self.why = line.split(None, 2)

    def covers_run(self, suite, place):
        return any(fnmatch.fnmatch(f"{suite}/{place}", pattern) for pattern in self.where.split(","))

    def covers(self, check):
        return fnmatch.fnmatch(check, self.check)


def read_expected():
    lines = (HERE / "expected.txt").read_text().splitlines()
    return [Expected(line) for line in lines if line.strip() and not line.startswith("#")]


def install(version):
    """The program of the suite."""
    folder = ROOT / "target" / "conformance" / version
    program = folder / "node_modules" / "@modelcontextprotocol" / "conformance" / "dist" / "index.js"
    if not program.exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text('{"private": true}\n')
        package = f"@modelcontextprotocol/conformance@{version}"
        subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund", package], cwd=folder, check=True)
    return program


def node():
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
    return ["node"] if int(version.strip("v\n").split(".")[0]) >= 22 else ["node", "--import", str(HERE / "node20.mjs")]


def run_suite(suite, url, folder):
    """Runs one suite; gives {scenario: {check: (outcome, message)}}."""
    version, arguments = SUITES[suite]
    command = [*node(), str(install(version)), "server", "--url", url, "-o", str(folder), *arguments]
    with open(folder.with_suffix(".log"), "w") as log:
        subprocess.run(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=folder.parent, timeout=SUITE_PATIENCE)
    results = {}
    for file in sorted(folder.glob("server-*/checks.json")):
        scenario = re.fullmatch(r"server-(.+)-\d{4}-\d\d-\d\dT[-\d]+Z", file.parent.name)[1]
        checks = results.setdefault(scenario, {})
        for check in json.loads(file.read_text()):
            outcome = (check["status"], check.get("errorMessage") or "")
            checks[check["id"]] = max(checks.get(check["id"], outcome), outcome, key=lambda pair: SEVERITY.index(pair[0]))
    if not results:
        log = folder.with_suffix(".log").read_text()[-2000:]
        raise RuntimeError(f"the suite {suite} said nothing about {url}:\n{log}")
    return results


def run_target(place, folder):
    """Runs all suites against one target, in a world of its own; gives {suite: results}."""
    with World(target() / "debug" / "dcc-mcp-server") as world:
        # A copy, since some tools change what is in the folder.
        skills = shutil.copytree(HERE / "skills", world.folder / "skills")
        world.start("--dcc", "generic")
        instance = world.start(
            "--dcc", DCC, "--skill-paths", str(skills), "--load-skills", "all", competes=False,
        )
        world.wait_instances(2)
        until("the instance is listed with its tools", lambda: has_tools(world, instance))
        if place == "instance":
            url = f"http://127.0.0.1:{world.entry(instance)['port']}/mcp"
        elif place == "dcc":
            url = f"http://127.0.0.1:{world.gateway_port}/mcp/dcc/{DCC}"
        else:
            url = f"http://127.0.0.1:{namemap.start(world.gateway_port, instance)}/mcp"
        results = {}
        for suite in SUITES:
            output = folder / f"{suite}-{place}"
            output.mkdir(parents=True)
            results[suite] = run_suite(suite, url, output)
        for log in world.folder.glob("*.log"):
            shutil.copy(log, folder / f"{place}-{log.name}")
        return results


def has_tools(world, instance):
    listed = [found for found in world.instances() if found["instance_id"] == instance]
    return listed and listed[0].get("tools", 1)


def judge(results, expected):
    """Compares with what is expected: prints what differs; gives {target: Counter}."""
    counts = {place: collections.Counter() for place in results}
    used = collections.defaultdict(set)
    for place, suites in results.items():
        for suite, scenarios in suites.items():
            for scenario, checks in scenarios.items():
                for check, (outcome, message) in checks.items():
                    known = [line for line in expected if line.covers_run(suite, place) and line.covers(f"{scenario}:{check}")]
                    if outcome not in WRONG:
                        counts[place]["passed"] += outcome == "SUCCESS"
                        continue
                    for line in known:
                        used[line].add((suite, place))
                    counts[place]["expected" if known else "failed"] += 1
                    if not known:
                        print(f"not ok {suite}/{place} {scenario}:{check}: {outcome.lower()}: {message}")
    for line in expected:
        for place, suites in results.items():
            for suite, scenarios in suites.items():
                ran = any(fnmatch.fnmatch(scenario, line.check.split(":")[0]) for scenario in scenarios)
                if ran and line.covers_run(suite, place) and (suite, place) not in used[line]:
                    counts[place]["failed"] += 1
                    print(f"not ok {suite}/{place} {line.check} passes: take it out of expected.txt")
    return counts


def table(results):
    """The results as Markdown: a row for each suite and scenario, in each target passed checks of all."""
    places = list(results)
    yield "| Suite | Scenario | " + " | ".join(places) + " |"
    yield "|---|---|" + "---|" * len(places)
    for suite in SUITES:
        for scenario in sorted({name for place in places for name in results[place][suite]}):
            cells = []
            for place in places:
                outcomes = [outcome for outcome, _ in results[place][suite].get(scenario, {}).values()]
                made = [outcome for outcome in outcomes if outcome not in ("SKIPPED", "INFO")]
                passed = made.count("SUCCESS")
                cells.append("not applicable" if not made else "passes" if passed == len(made) else f"{passed} of {len(made)}")
            yield f"| {suite} | {scenario} | " + " | ".join(cells) + " |"


def main():
    options = argparse.ArgumentParser()
    options.add_argument("targets", nargs="*", choices=[*TARGETS, []])
    options.add_argument("--table", action="store_true")
    options.add_argument("--keep", type=pathlib.Path)
    options = options.parse_args()
    places = options.targets or TARGETS
    for version in (STABLE, ALPHA):
        install(version)
    with tempfile.TemporaryDirectory(prefix="dcc-mcp-conformance-") as folder:
        folder = options.keep.resolve() if options.keep else pathlib.Path(folder)
        # Most of the time of a suite is waiting.
        with concurrent.futures.ThreadPoolExecutor(len(places)) as pool:
            results = dict(zip(places, pool.map(lambda place: run_target(place, folder), places)))
    counts = judge(results, read_expected())
    if options.table:
        print("\n".join(table(results)))
    for place, count in counts.items():
        print(f"{place}: {count['passed']} checks passed, {count['expected']} failed as expected.txt says, {count['failed']} failed")
    passed, failed = (sum(count[key] for count in counts.values()) for key in ("passed", "failed"))
    print(f"conformance: {passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
