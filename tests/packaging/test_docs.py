"""The guides: every command in them is run by a test, here or beside what it is about, or says why it is not."""

import os
import pathlib
import re
import shutil
import unittest

from kit import BLOCK, PROGRAM, ROOT, USED, Processes, block, cover, get, run, until

GUIDES = ["install", "deployment", "security", "monitoring", "upgrade", "troubleshooting"]
MARK = re.compile(r"<!-- (run|shown|needs a cloud): [^\n]+ -->\n$")


def guides():
    return {name: (ROOT / f"docs/{name}.md").read_text() for name in GUIDES}


class Guides(unittest.TestCase):
    def test_every_block_is_run_or_says_why_not(self):
        for name, text in guides().items():
            opening = True
            for fence in re.finditer(r"^ *```(\w*)$", text, re.M):
                if opening:
                    before = text[: fence.start()]
                    self.assertRegex(before[-200:], MARK, f"docs/{name}.md: a block without a mark, after {before[-80:]!r}")
                    if fence[1] == "sh":
                        self.assertNotRegex(before.splitlines()[-1], "shown:", f"docs/{name}.md: commands are run, or need a cloud")
                opening = not opening

    def test_every_named_block_is_asked_for_by_a_test(self):
        tests = "".join(path.read_text() for path in pathlib.Path(__file__).parent.glob("test_*.py"))
        for name, text in guides().items():
            for how, found, _, _ in BLOCK.findall(text):
                if how == "run":
                    self.assertTrue(f'"{found}"' in tests, f"docs/{name}.md: no test runs {found}")

    def test_names_are_unique(self):
        names = [found for text in guides().values() for how, found, _, _ in BLOCK.findall(text) if how == "run"]
        self.assertEqual(len(names), len(set(names)))

    def test_links_lead_somewhere(self):
        for file in [*(ROOT / f"docs/{name}.md" for name in GUIDES), ROOT / "README.md"]:
            for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", file.read_text()):
                self.assertTrue((file.parent / link).exists(), f"{file.name}: {link}")

    def test_files_that_are_named_exist(self):
        for name, text in guides().items():
            for path in re.findall(r"`(packaging/[\w./@-]+)`", text):
                self.assertTrue((ROOT / path).exists(), f"docs/{name}.md: {path}")

    def test_metrics_that_are_named_exist(self):
        source = "".join(path.read_text() for path in (ROOT / "src").rglob("*.rs"))
        for metric in re.findall(r"\b(?:dcc_mcp|process)_\w+", (ROOT / "docs/monitoring.md").read_text()):
            self.assertIn(metric, source)

    def test_flags_and_variables_that_are_named_exist(self):
        known = run(PROGRAM, "--help") + (ROOT / "docs/configuration.md").read_text()
        for name, text in guides().items():
            for variable in re.findall(r"\bDCC_MCP_[A-Z_]+\b", text):
                self.assertIn(variable, known, f"docs/{name}.md")


class Commands(unittest.TestCase):
    """Blocks that belong to no other test, with the program where the guides say that it is."""

    def setUp(self):
        cover("/usr/local/bin")
        self.addCleanup(run, "umount", "-l", "/usr/local/bin")
        shutil.copy(PROGRAM, "/usr/local/bin/dcc-mcp-server")
        cover("/tmp")
        self.addCleanup(run, "umount", "-l", "/tmp")
        self.env = {"PATH": f"/usr/local/bin:{os.environ['PATH']}"}

    def sh(self, name):
        return run("set -m\n" + block(name), env=self.env, cwd=ROOT, timeout=900)

    def serve(self):
        processes = Processes()
        self.addCleanup(processes.stop)
        processes.start("/usr/local/bin/dcc-mcp-server", "--dcc", "maya")
        until("it is ready", lambda: get("http://127.0.0.1:9765/readyz")[0] == 200)

    def test_first_steps(self):
        out = self.sh("first-steps")
        self.assertIn('{"ok":true}', out)
        self.assertRegex(out, r"generic +\w{8} +127\.0\.0\.1:18812")

    def test_bare_standby(self):
        self.assertIn("blender", self.sh("bare-standby"))

    def test_monitoring(self):
        self.serve()
        self.assertIn('"ready":true', self.sh("monitoring-health"))
        self.assertRegex(self.sh("monitoring-metrics"), r"dcc_mcp_gateway_leader 1\b")

    def test_logs(self):
        self.assertIn("event=instance", self.sh("monitoring-logs"))

    def test_troubleshooting(self):
        self.serve()
        self.assertIn("maya", self.sh("trouble-first"))
        self.assertIn(":9765", self.sh("trouble-port"))
        self.assertRegex(self.sh("trouble-registry"), r"[0-9a-f-]{36}\.json")

    def test_security_score(self):
        self.assertIn("exposure", self.sh("security-score"))

    def test_removing_files(self):
        """In a tree of its own: these are absolute paths of the system."""
        cover("/usr/local/share")
        self.addCleanup(run, "umount", "-l", "/usr/local/share")
        run(ROOT / "packaging/install.sh", PROGRAM, "/usr/local", "/usr/local")
        self.addCleanup(run, "rm -f /usr/local/lib/systemd/system/dcc-mcp-*")
        self.sh("remove-files")
        self.assertEqual(run("find /usr/local/bin /usr/local/share -type f"), "")

    def test_make_install(self):
        self.assertIn("/usr/local/bin/dcc-mcp-server", self.sh("install-make"))


class WhatWasRun(unittest.TestCase):
    """The last class of the last module, by its name: what all modules have noted."""

    def test_every_block_was_run(self):
        if not os.environ.get("DCC_MCP_PACKAGING_ALL"):
            return  # Some modules alone were asked for.
        used = set(pathlib.Path(USED).read_text().split())
        named = {found for text in guides().values() for how, found, _, _ in BLOCK.findall(text) if how == "run"}
        self.assertEqual(named - used, set())
