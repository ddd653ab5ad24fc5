"""Beds for tests that need rights: file systems that are full, read-only or faulty, and hosts with addresses of their own.

All that is made here is removed when its value is left. Standard library only; `fuse_python` installs fusepy for the one
script that needs it.
"""

import contextlib
import ctypes.util
import faulthandler
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from world import PATIENCE, target, until  # noqa: E402

INSTALLING = 120  # seconds
# In the environment of a script that has been started again in namespaces of its own.
APART = "DCC_MCP_TEST_APART"


def run(*words, check=True):
    return subprocess.run([str(word) for word in words], check=check, capture_output=True, text=True, timeout=PATIENCE)


def works(*words):
    """Whether a command can be run here, and runs well."""
    try:
        return subprocess.run(words, capture_output=True, timeout=INSTALLING).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def install(*packages):
    """Installs packages of the system by name, where that is possible; three tries."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return
    for command in (["apt-get", "install", "-y", "-qq", *packages], ["apt-get", "update", "-qq"]) * 3:
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        with contextlib.suppress(subprocess.TimeoutExpired):
            done = subprocess.run(command, capture_output=True, env=environment, timeout=INSTALLING)
            if done.returncode == 0 and command[1] == "install":
                return


def why_no_mounts():
    """Nothing where file systems can be mounted; else why not."""
    if os.geteuid() != 0:
        return "mounting needs root"
    return None if works("unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt") else "mount is not allowed here"


def why_no_hosts():
    """Nothing where network and pid namespaces can be made; else why not."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if not shutil.which("ip"):
        install("iproute2")
    ok = works("unshare", "--net", "--pid", "--fork", "ip", "link", "add", "v0", "type", "veth", "peer", "name", "p0")
    return None if ok else "network namespaces are not allowed here"


def fuse_python():
    """The interpreter that has fusepy, and nothing; or nothing, and why there is none."""
    reason = why_no_mounts()
    if reason or not os.path.exists("/dev/fuse"):
        return None, reason or "there is no /dev/fuse"
    if not (shutil.which("fusermount") and ctypes.util.find_library("fuse")):
        install("fuse", "libfuse2")
    python = target() / "faults" / "venv" / "bin" / "python"
    if not works(str(python), "-c", "import fuse"):
        works(sys.executable, "-m", "venv", str(python.parents[1]))
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "fusepy==3.0.1"]
        any(works(*pip) for _ in range(3))
    return (python, None) if works(str(python), "-c", "import fuse") else (None, "fusepy or libfuse2 cannot be installed")


@contextlib.contextmanager
def tmpfs(folder, options):
    """A small file system of its own at a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    run("mount", "-t", "tmpfs", "-o", f"mode=0777,{options}", "faults", folder)
    try:
        yield folder
    finally:
        run("umount", "--lazy", folder, check=False)


class Faulty:
    """A faulty file system (`faulty.py`): `order` says what is to go wrong from now on, `order()` nothing."""

    def __init__(self, python, root, mount, seed=0, keep=0):
        self.root, self.mount, self.orders = root, mount, mount.with_name(f"{mount.name}.orders")
        self.python, self.environment, self.process = python, {"SEED": str(seed), "KEEP": str(keep)}, None

    def __enter__(self):
        self.root.mkdir(parents=True, exist_ok=True)
        self.mount.mkdir(parents=True, exist_ok=True)
        command = [self.python, HERE / "faulty.py", self.root, self.mount, self.orders]
        self.process = subprocess.Popen(command, env=os.environ | self.environment, stdin=subprocess.DEVNULL)
        until("the faulty file system is mounted", lambda: os.path.ismount(self.mount))
        return self

    def __exit__(self, *_):
        self.order()
        run("umount", "--lazy", self.mount, check=False)
        self.process.kill()
        self.process.wait(PATIENCE)

    def order(self, *lines):
        beside = self.orders.with_suffix(".new")
        beside.write_text("".join(f"{line}\n" for line in lines))
        beside.replace(self.orders)


def apart(script, limit):
    """Runs the script again, in mount, network and pid namespaces of its own: whatever it makes or starts ends with it, and
    it ends itself after `limit` seconds at the latest, which counts as failed. Where it was shortly before, is then told."""
    if os.environ.pop(APART, None):
        run("ip", "link", "set", "lo", "up")
        pathlib.Path("/run/netns").mkdir(exist_ok=True)
        run("mount", "-t", "tmpfs", "faults", "/run/netns")
        faulthandler.dump_traceback_later(limit * 0.95)
        return
    spaces = ["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    with tempfile.TemporaryDirectory(prefix="dcc-mcp-", ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o755)
        environment = os.environ | {APART: "yes", "TMPDIR": folder, "PYTHONUNBUFFERED": "1"}
        # With the death signal nothing is left over either when this process is killed.
        command = ["setpriv", "--pdeathsig", "KILL", "unshare", *spaces, sys.executable, script, *sys.argv[1:]]
        process = subprocess.Popen(command, env=environment)
        try:
            sys.exit(process.wait(limit))
        except subprocess.TimeoutExpired:
            name = pathlib.Path(script).resolve().parent.name
            print(f"not ended after {limit} s, and stopped by its watchdog\n{name}: 0 passed, 1 failed")
            sys.exit(1)
        finally:
            end_space(process)


def end_space(holder):
    """Ends a pid namespace with all that runs there. `holder` is the `unshare --fork` that made it: it ends once the first
    process has, which takes all others along."""
    first = child_of(holder.pid)
    with contextlib.suppress(ProcessLookupError):
        if first:
            os.kill(first, signal.SIGKILL)
        else:
            holder.kill()
    holder.wait(PATIENCE)


class Hosts:
    """Hosts with addresses of their own (10.99.0.1, 10.99.0.2 …), each a network namespace; we are 10.99.0.254."""

    def __init__(self, names):
        self.names = list(names)
        self.address = {name: f"10.99.0.{number}" for number, name in enumerate(names, 1)}

    def __enter__(self):
        run("ip", "link", "add", "br0", "type", "bridge")
        run("ip", "addr", "add", "10.99.0.254/24", "dev", "br0")
        run("ip", "link", "set", "br0", "up")
        for name in self.names:
            run("ip", "netns", "add", name)
            run("ip", "link", "add", f"p-{name}", "type", "veth", "peer", "name", "v0", "netns", name)
            run("ip", "link", "set", f"p-{name}", "master", "br0", "up")
            run("ip", "-n", name, "addr", "add", f"{self.address[name]}/24", "dev", "v0")
            run("ip", "-n", name, "link", "set", "v0", "up")
            run("ip", "-n", name, "link", "set", "lo", "up")
        return self

    def __exit__(self, *_):
        for name in self.names:
            run("ip", "netns", "del", name, check=False)
        run("ip", "link", "del", "br0", check=False)

    def inside(self, name, own_pids=False):
        """The words before a command that make it run on that host. With a pid namespace of its own it is killed with
        the process that is started."""
        words = ["ip", "netns", "exec", name]
        return words + (["unshare", "--pid", "--fork", "--kill-child"] if own_pids else [])

    @contextlib.contextmanager
    def machine(self, name, *words):
        """Runs this as the first process of a pid namespace on that host. All that runs there ends with it, and it has to end
        when its input does."""
        command = [*self.inside(name, own_pids=True), "--mount-proc", *map(str, words)]
        holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            yield holder
        finally:
            with contextlib.suppress(subprocess.TimeoutExpired, BrokenPipeError):
                holder.stdin.close()
                holder.wait(PATIENCE)
            end_space(holder)

    def link(self, name, up):
        run("ip", "link", "set", f"p-{name}", "up" if up else "down")


def child_of(pid):
    """The process that a process has started, or nothing while there is none."""
    try:
        children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(children[0]) if children else None


def seconds_until(condition, patience):
    """After how many seconds the condition came true; nothing where it did not in time."""
    started = time.monotonic()
    while time.monotonic() - started < patience:
        if condition():
            return time.monotonic() - started
        time.sleep(0.05)
    return None
