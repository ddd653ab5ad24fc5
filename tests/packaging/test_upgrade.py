"""Another version of the program beside this one: rolling upgrade and rollback behind balancers, one registry for both.

The other version is this one with a higher number, and with a field in its registry entries that this one does not know.
"""

import json
import os
import pathlib
import re
import shutil
import unittest

from balancer import HAProxy, Nginx
from kit import CACHE, Client, Load, PROGRAM, ROOT, SKILLS, Replicas, TARGET, VERSION, block, cover, get, run, until

A, B = "10.0.0.11", "10.0.0.12"
BASE = "https://mcp.example.com"
URL = f"{BASE}/mcp"
NEWER = f"{VERSION.split('.')[0]}.{int(VERSION.split('.')[1]) + 1}.0"
INSTALLED = pathlib.Path("/usr/local/bin")
FIGURES = []


def prepare():
    """Built from a copy of the sources, without optimisation; dependencies are those that cargo has built already."""
    copy = CACHE / "newer"
    shutil.rmtree(copy, ignore_errors=True)
    for name in run("git", "-C", ROOT, "ls-files", "--cached", "--others", "--exclude-standard").splitlines():
        if (ROOT / name).is_file() and name.split("/")[0] in ("src", "docs", "tests", "Cargo.toml", "Cargo.lock"):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    for name in ["Cargo.toml", "Cargo.lock"]:
        text = (copy / name).read_text()
        ours = re.compile(r'(name = "dcc-mcp-server"\nversion = )"[^"]*"')
        assert ours.search(text)
        (copy / name).write_text(ours.sub(rf'\1"{NEWER}"', text))
    entry = copy / "src/registry/entry.rs"
    written = "        let mut bytes = serde_json::to_vec(self).map_err(|_| EntryError::Malformed)?;\n"
    text = entry.read_text()
    assert text.count(written) == 1, "entries are written another way: see to it that the newer version has a field of its own"
    more = '        bytes.truncate(bytes.len() - 1);\n        bytes.extend_from_slice(b",\\"colour\\":\\"blue\\"}");\n'
    text = text.replace(written, written + more)
    entry.write_text(text)
    run("cargo", "build", "--quiet", "--locked", "--bins", cwd=copy, env={"CARGO_TARGET_DIR": str(TARGET)}, timeout=900)
    shutil.copy(TARGET / "debug/dcc-mcp-server", CACHE / "newer-server")


class TwoVersions(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.newer = CACHE / "newer-server"
        assert run(cls.newer, "--version").split()[1] == NEWER

    def setUp(self):
        self.replicas = Replicas(A, B)
        self.addCleanup(self.replicas.remove)

    def test_each_reads_the_registry_of_the_other(self):
        self.replicas.start(A)
        self.replicas.start(B, self.newer)
        self.replicas.start_instance("maya")
        self.replicas.start_instance("blender", self.newer)
        self.assertEqual(self.replicas.entry_of("blender")["colour"], "blue", "the newer one writes what the older does not know")
        self.assertNotIn("colour", self.replicas.entry_of("maya"))

        def listed(address):
            told = json.loads(get(f"http://{address}:9765/instances")[1])["instances"]
            return {instance["dcc_type"]: instance["server_version"] for instance in told if instance["dcc_type"] in ("maya", "blender")}

        for address in (A, B):
            until(f"{address} lists both", lambda: listed(address) == {"maya": VERSION, "blender": NEWER})
        tools = [until("tools of both", lambda: self.tools_of_both(address)) for address in (A, B)]
        self.assertEqual(*tools)
        for address in (A, B):
            client = Client(f"http://{address}:9765/mcp").open()
            for tool in tools[0]:
                self.assertGreater(client.call(tool, folder="/etc")["structuredContent"]["files"], 1)

    def tools_of_both(self, address):
        found = [name for name in Client(f"http://{address}:9765/mcp").open().tools() if name.endswith("check_names")]
        return found if len(found) == 2 else None

    def test_rolling_upgrade_and_rollback_behind_nginx(self):
        self.roll_behind(Nginx)

    def test_rolling_upgrade_and_rollback_behind_haproxy(self):
        self.roll_behind(HAProxy)

    def roll_behind(self, make_balancer):
        """As docs/upgrade.md says, with its own commands; clients keep the session that they opened at the beginning, and
        no call is lost."""
        cover(INSTALLED)
        self.addCleanup(run, "umount", "-l", INSTALLED)
        shutil.copy(PROGRAM, INSTALLED / "dcc-mcp-server")
        for address in (A, B):
            self.replicas.start(address, INSTALLED / "dcc-mcp-server")
        self.replicas.start_instance()
        tool = self.replicas.tool(A)
        self.assertEqual(tool, self.replicas.tool(B))
        balancer = make_balancer()
        self.addCleanup(balancer.stop)
        until("the balancer serves", lambda: get(f"{BASE}/readyz")[0] == 200)
        with Load(URL, tool, folder=str(SKILLS / "name-check")) as load:
            load.during(1)
            self.assertIn(NEWER, run(block("upgrade-file"), cwd=self.folder_with(self.newer)))
            for address in (A, B):
                self.roll(address, load, NEWER)
            self.assertIn(VERSION, run(block("rollback-file")))
            for address in (A, B):
                self.roll(address, load, VERSION)
            self.assertGreater(load.during(2), 0)
        name = make_balancer.__name__
        FIGURES.append(f"{name}: upgrade and rollback of two replicas, {len(load.failures)} of {load.calls + len(load.failures)} calls failed")
        self.assertEqual(load.failures, [], balancer.errors())

    def folder_with(self, program):
        folder = self.replicas.folder / "new"
        folder.mkdir()
        shutil.copy(program, folder / "dcc-mcp-server")
        return folder

    def roll(self, address, load, version):
        self.assertEqual(self.replicas.drain(address), 0)
        self.replicas.start(address, INSTALLED / "dcc-mcp-server")
        run(block("upgrade-probe").replace(A, address), env={"PATH": f"{INSTALLED}:{os.environ['PATH']}"})
        told = json.loads(get(f"http://{address}:9765/instances")[1])["instances"]
        self.assertIn(version, {instance["server_version"] for instance in told if instance["host"] == address})
        self.assertGreater(load.during(2), 0)
