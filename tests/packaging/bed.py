"""A systemd that has really booted, in a container of its own (systemd-nspawn), with what `make install` installs.

Real inside: DynamicUser, state folders, capabilities, seccomp, ProtectSystem, restarts, LimitNOFILE, Type=notify with its
watchdog. Not enforced there: MemoryMax, TasksMax, IPAddressDeny, since the container may not set up its cgroups.
"""

import contextlib
import hashlib
import json
import pathlib
import shutil
import subprocess
import sys
import time

from kit import CACHE, DIST, Folder, ROOT, VERSION, run, until

PACKAGES = "systemd,systemd-sysv,dbus,iproute2,curl,procps"


def debian_root():
    """A Debian to boot, made once and kept below cargo's target folder."""
    root = CACHE / f"debian-{hashlib.sha256(PACKAGES.encode()).hexdigest()[:8]}"
    if not (root / "complete").exists():
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        release = run(". /etc/os-release; echo $VERSION_CODENAME").strip()
        known = run("apt-get", "indextargets", "--format", "$(CODENAME) $(ORIGIN) $(REPO_URI)").splitlines()
        mirror = next((line.split()[2] for line in known if line.startswith(f"{release} Debian ")), "http://deb.debian.org/debian")
        run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", release, root, mirror, timeout=400)
        (root / "complete").touch()
    return root


class Bed:
    """Booted once; `sh` runs a script in it."""

    def __init__(self):
        self.folder = Folder()
        self.root = self.folder / "root"
        # What is written goes into memory; the cached tree stays as it was made.
        run("mount", "-t", "tmpfs", "tmpfs", self.folder.path)
        for name in ["root", "upper", "work"]:
            (self.folder / name).mkdir(exist_ok=True)
        layers = f"lowerdir={debian_root()},upperdir={self.folder / 'upper'},workdir={self.folder / 'work'}"
        run("mount", "-t", "overlay", "overlay", "-o", layers, self.root)
        run("umount /sys/fs/cgroup/unified 2>/dev/null || true")
        for name in [f"dcc-mcp-server-{VERSION}-x86_64-linux.tar.gz", "SHA256SUMS"]:
            shutil.copy2(DIST / name, self.root / "root" / name)
        shutil.copytree(ROOT / "docs/examples/skills", self.root / "root/skills")
        self.boot()

    def boot(self):
        command = ["systemd-nspawn", "-D", self.root, "-M", "bed", "--register=no", "--keep-unit", "--private-network", "-b"]
        with open(self.folder / "boot.log", "wb") as log:
            self.nspawn = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            until("systemd is up", self.is_up)
        except BaseException:
            print((self.folder / "boot.log").read_text(errors="replace"))
            self.off()
            raise

    def is_up(self):
        assert self.nspawn.poll() is None, "the container has ended"
        # The first child is gone again soon; the one that stays is process 1 of the container.
        children = pathlib.Path(f"/proc/{self.nspawn.pid}/task/{self.nspawn.pid}/children").read_text().split()
        self.init = children[0] if children else None
        return children and self.sh("systemctl is-system-running || true", check=False).strip() in ("running", "degraded")

    def sh(self, script, check=True, timeout=120):
        command = ["nsenter", "-t", self.init, "-a", "--", "/bin/bash", "-euo", "pipefail", "-c", f"cd /root; {script}"]
        return run(*command, check=check, timeout=timeout)

    def ask(self, tool, token="", **arguments):
        """The result of a tool call through the gateway, from a process in the container's network; raises if there is none."""
        script = [sys.executable, ROOT / "tests/packaging/ask.py", "http://127.0.0.1:9765/mcp", tool, json.dumps(arguments), token]
        done = run("nsenter", "-t", self.init, "-n", "--", *script, check=False)
        return json.loads(done) if done.startswith(("{", "[")) else None

    def show(self, unit, name):
        return self.sh(f"systemctl show -P {name} {unit}").strip()

    def off(self):
        with contextlib.suppress(subprocess.TimeoutExpired):
            run("nsenter", "-t", self.init, "-a", "--", "systemctl", "poweroff", check=False, timeout=30)
        try:
            self.nspawn.wait(30)
        except subprocess.TimeoutExpired:
            self.nspawn.terminate()
            self.nspawn.wait(10)
        time.sleep(0.2)
        run("umount", "-l", self.root)
        run("umount", "-l", self.folder.path)
        self.folder.remove()
