"""Runs the tests of what `packaging/` ships, on real systems: `run.py [MODULE ...]`, all of them by default.

Installs by package name what they need, builds `make dist`, then runs each module in network and mount namespaces of its
own. A test that cannot run is a failure. A skip is printed last, with its reason.
"""

import importlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
import unittest

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
MODULES = ["dist", "systemd", "container", "balancers", "upgrade", "compose", "kubernetes", "docs"]
PACKAGES = {
    "dist": "zsh fish mandoc bash-completion file binutils iproute2 rustc-web cargo-web rust-web-src musl-tools libunwind-dev",
    "systemd": "systemd-container debootstrap dbus iproute2",
    "container": "podman buildah runc iproute2 netavark aardvark-dns catatonit",
    "balancers": "nginx haproxy openssl iproute2",
    "upgrade": "nginx openssl iproute2",
    "compose": "docker.io docker-compose busybox-static haproxy iproute2 iptables",
    "kubernetes": "kubectl podman buildah runc python3-venv iproute2 netavark aardvark-dns catatonit",
    "docs": "",
}


def install(modules):
    wanted = sorted({name for module in modules for name in PACKAGES[module].split()})
    known = subprocess.run(["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *wanted], capture_output=True, text=True)
    there = {line.split()[0] for line in known.stdout.splitlines() if line.endswith(" installed")}
    missing = [name for name in wanted if name not in there]
    if not missing:
        return
    print("installing", *missing, flush=True)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for attempt in range(3):
        update = subprocess.run(["apt-get", "update", "-qq"], env=environment)
        command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing]
        if update.returncode == 0 and subprocess.run(command, env=environment, stdout=subprocess.DEVNULL).returncode == 0:
            return
        time.sleep(5 * (attempt + 1))
    raise SystemExit("the packages cannot be installed")


def prepare(module):
    """What has to be fetched or built before the network is left."""
    sys.path.insert(0, str(HERE))
    getattr(importlib.import_module(f"test_{module}"), "prepare", lambda: None)()


def inside(module, out):
    """In the namespaces: one module, its outcome as JSON."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    sys.path.insert(0, str(HERE))
    suite = unittest.defaultTestLoader.loadTestsFromName(f"test_{module}")
    result = unittest.TextTestRunner(verbosity=2, stream=sys.stdout, warnings="ignore").run(suite)
    bad = len(result.failures) + len(result.errors) + len(result.unexpectedSuccesses)
    skips = [f"{case}: {reason}" for case, reason in result.skipped]
    figures = getattr(sys.modules.get(f"test_{module}"), "FIGURES", [])
    outcome = {"passed": result.testsRun - bad - len(skips), "failed": bad, "skips": skips, "figures": figures}
    pathlib.Path(out).write_text(json.dumps(outcome))


def main(modules):
    if os.geteuid() != 0:
        raise SystemExit("these tests need root: namespaces, a booted systemd, container engines")
    unknown = set(modules) - set(MODULES)
    if unknown:
        raise SystemExit(f"there are {', '.join(MODULES)}, not {', '.join(unknown)}")
    modules = modules or MODULES
    install(modules)
    subprocess.run(["make", "--no-print-directory", "dist"], cwd=ROOT, check=True)
    # Not in /tmp, which some tests cover.
    folder = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve() / "packaging/run"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.environ["DCC_MCP_PACKAGING_USED"] = str(folder / "used")
    os.environ["DCC_MCP_PACKAGING_ALL"] = "1" if modules == MODULES else ""
    total = {"passed": 0, "failed": 0, "skips": [], "figures": []}
    for module in modules:
        begun, out = time.monotonic(), folder / f"{module}.json"
        print(f"\n=== {module}", flush=True)
        prepare(module)
        command = ["unshare", "--mount", "--net", "--propagation", "private", sys.executable, __file__, "--inside", module, out]
        ended = subprocess.run(command).returncode
        outcome = json.loads(out.read_text()) if out.exists() else {"passed": 0, "failed": 1, "skips": [], "figures": []}
        if ended != 0:
            outcome["failed"] = max(outcome["failed"], 1)
        total = {key: total[key] + outcome[key] for key in total}
        print(f"=== {module}: {time.monotonic() - begun:.0f} s", flush=True)
    shutil.rmtree(folder)
    print()
    for figure in total["figures"]:
        print("figure:", figure)
    for skip in total["skips"]:
        print("SKIPPED:", skip)
    print(f"packaging: {total['passed']} passed, {total['failed']} failed")
    return 1 if total["failed"] or not total["passed"] else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        inside(sys.argv[2], sys.argv[3])
    else:
        sys.exit(main(sys.argv[1:]))
