"""Runs the tests of what `packaging/` ships, on real systems: `run.py [MODULE ...]`, all of them by default.

Installs by package name what they need, builds `make dist`, then runs the modules, each apart (`apart.py`), two at a time.
Every step has its deadline; what could not be installed, built or ended in time counts as a failure, and so does what a
module leaves behind. A skip is printed last, with its reason.
"""

import contextlib
import importlib
import json
import multiprocessing
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))
import apart  # noqa: E402
import kit  # noqa: E402
from kit import bounded  # noqa: E402

TOOLCHAIN = "rustc-web cargo-web rust-web-src musl-tools"
PODMAN = "podman buildah runc netavark aardvark-dns catatonit iproute2 curl"
# The packages that each needs, and how many seconds it may take: several times what it takes on two cores.
MODULES = {
    "runner": ("iproute2", 60),
    "dist": (f"{TOOLCHAIN} zsh fish mandoc bash-completion binutils iproute2 git make gcc libc6-dev", 1200),
    "musl": (f"{TOOLCHAIN} binutils iproute2 git", 1200),
    "systemd": ("systemd-container debootstrap dbus iproute2", 300),
    "container": (f"{PODMAN} busybox-static", 300),
    "balancers": ("nginx haproxy openssl iproute2", 600),
    "upgrade": ("nginx openssl iproute2 git", 300),
    "compose": ("docker.io docker-compose busybox-static haproxy iproute2 iptables curl", 450),
    "kubernetes": (f"{PODMAN} python3-venv", 300),
    "monitoring": ("prometheus iproute2", 150),
    "docs": ("systemd iproute2 curl make", 450),
}
# Those of one lane run one after the other. Both container engines are in one, as they share control groups.
LANES = [["dist", "upgrade", "balancers"], ["runner", "systemd", "container", "compose", "kubernetes", "monitoring", "musl"]]
LAST = ["docs"]  # sees to it that every block was run by somebody
FAILURE = {"passed": 0, "failed": 1, "skips": [], "figures": []}
UPDATE_SECONDS, INSTALL_SECONDS, BUILD_SECONDS = 180, 600, 900
ALL_SECONDS = 2700  # for the whole, whatever happens


class Late(Exception):
    pass


def be_late(*_):
    raise Late(f"the whole was ended after {ALL_SECONDS} s")


def install(modules):
    wanted = sorted({name for module in modules for name in MODULES[module][0].split()})
    known = subprocess.run(["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *wanted], capture_output=True, text=True, timeout=60)
    there = {line.split()[0] for line in known.stdout.splitlines() if line.endswith(" installed")}
    missing = [name for name in wanted if name not in there]
    if not missing:
        return
    print("installing", *missing, flush=True)
    # The run level of a machine that starts no services: packages ask for it.
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    apt = ["apt-get", "-qq", "-o", "Acquire::http::Timeout=30", "-o", "DPkg::Lock::Timeout=60"]
    for turn in range(3):
        with contextlib.suppress(subprocess.TimeoutExpired):
            update = bounded([*apt, "update"], UPDATE_SECONDS, env=environment)
            command = [*apt, "install", "-y", "--no-install-recommends", *missing]
            if update == 0 and bounded(command, INSTALL_SECONDS, env=environment, stdout=subprocess.DEVNULL) == 0:
                return
        time.sleep(5 * (turn + 1))
    raise RuntimeError("the packages cannot be installed")


def build():
    if bounded(["make", "--no-print-directory", "dist"], BUILD_SECONDS, cwd=ROOT) != 0:
        raise RuntimeError("make dist failed")


def attempt(step, *words):
    """Whether it went well; says why not."""
    try:
        step(*words)
        return True
    except Exception:  # whatever it is, it counts as a failure
        traceback.print_exc()
        return False


def run_module(module):
    """Its outcome, as `apart.inside` writes it."""
    # What has to be fetched or built before the network is left.
    prepare = getattr(importlib.import_module(f"test_{module}"), "prepare", lambda: None)
    if not attempt(prepare):
        return FAILURE
    out, seconds = pathlib.Path(kit.SCRATCH) / "outcome.json", MODULES[module][1]
    ended, left = apart.run(module, out, seconds)
    outcome = json.loads(out.read_text()) if out.exists() else FAILURE | {"failed": 0}
    if ended is None:
        print(f"{module} was ended after {seconds} s", file=sys.stderr)
        outcome["failed"] += 1
    elif ended != 0 and outcome["failed"] == 0:
        print(f"{module} ended with {ended}", file=sys.stderr)
        outcome["failed"] = 1
    for thing in left:
        print(f"{module} left behind: {thing}", file=sys.stderr)
        outcome["failed"] += 1
    return outcome


def run_lane(modules, folder):
    """In a process of its own. What a module says is shown as a whole when it has ended."""
    says = os.dup(1)
    for module in modules:
        begun, room = time.monotonic(), folder / module
        room.mkdir()
        os.environ["DCC_MCP_PACKAGING_FOLDER"] = kit.SCRATCH = str(room)
        with open(room / "log", "w+b") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            outcome = FAILURE
            try:
                outcome = run_module(module)
            finally:
                told = f"{outcome['passed']} passed, {outcome['failed']} failed, {time.monotonic() - begun:.0f} s"
                log.seek(0)
                os.write(says, f"\n=== {module}\n".encode() + log.read() + f"=== {module}: {told}\n".encode())
        shutil.rmtree(room)
        (folder / f"{module}.json").write_text(json.dumps(outcome))


def run_all(modules, folder):
    for lanes in (LANES, [LAST]):
        run_lanes([[module for module in lane if module in modules] for lane in lanes], folder)


def run_lanes(lanes, folder):
    running = [multiprocessing.Process(target=run_lane, args=(lane, folder)) for lane in lanes if lane]
    try:
        for lane in running:
            lane.start()
        for lane in running:
            lane.join()
    finally:
        for lane in running:
            lane.terminate()
        for lane in running:
            lane.join()


def report(outcomes):
    total = {key: sum((outcome[key] for outcome in outcomes), type(outcomes[0][key])()) for key in outcomes[0]}
    print()
    for figure in total["figures"]:
        print("figure:", figure)
    for skip in total["skips"]:
        print("SKIPPED:", skip)
    print(f"packaging: {total['passed']} passed, {total['failed']} failed")
    return 1 if total["failed"] or not total["passed"] else 0


def main(modules):
    if os.geteuid() != 0:
        raise SystemExit("these tests need root: namespaces, a booted systemd, container engines")
    unknown = set(modules) - set(MODULES)
    if unknown:
        raise SystemExit(f"there are {', '.join(MODULES)}, not {', '.join(unknown)}")
    os.environ["DCC_MCP_PACKAGING_ALL"] = "" if modules else "1"
    modules = modules or list(MODULES)
    # So that all is taken down when this is ended from outside, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    signal.signal(signal.SIGALRM, be_late)
    signal.alarm(ALL_SECONDS)
    if not (attempt(install, modules) and attempt(build)):
        return report([FAILURE])
    # Not in /tmp, which some tests cover; and not far down: there are sockets below it, whose paths have to be short.
    folder = pathlib.Path(tempfile.mkdtemp(dir="/var/tmp", prefix="dcc-mcp-packaging-"))
    before = apart.cgroups()
    try:
        attempt(run_all, modules, folder)
        results = [folder / f"{module}.json" for module in modules]
        outcomes = [json.loads(result.read_text()) if result.exists() else FAILURE for result in results]
    finally:
        left = apart.remove_cgroups(before)
        shutil.rmtree(folder, ignore_errors=True)
    for group in left:
        print(f"left behind: {group}")
    return report([*outcomes, *(FAILURE for _ in left)])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
