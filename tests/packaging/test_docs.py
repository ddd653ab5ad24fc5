"""The guides: every command in them is run by a test, here or beside what it is about, or says why it is not."""

import os
import pathlib
import re
import shutil
import unittest

from kit import BLOCK, GUIDES, PROGRAM, ROOT, USED, Processes, block, cover, get, lay_over, run, until

MARK = re.compile(r"^ *<!-- (run|shown|needs [a-z ]+): [^\n]+ -->$")
# In docs/skills.md: a test in src/skills/examples.rs writes these files, loads them and calls their tools.
SKILL_FILE = re.compile(r"^`[\w.-]+/[\w./-]+`$")
PROGRAMS = "aws cargo curl docker docker-compose haproxy journalctl kill kubectl make man mount nginx npm podman python3 rustup ss systemctl systemd-analyze"
# Commands in running text that are no part of a block that is run, and why.
ELSEWHERE = {
    "cargo tree -e normal --prefix none \\| sort -u \\| wc -l": "for who counts crates",
    "docker compose": "needs a newer engine; the same commands",
    "docker-compose logs -f gateway-a": "follows for ever",
    "journalctl -u dcc-mcp-gateway -f": "follows for ever",
    "kill -9": "no command but a word for it",
    "kubectl logs -f deploy/dcc-mcp-gateway": "needs a cluster",
    "kubectl set image": "needs a cluster",
    "man dcc-mcp-server": "test_dist.py has mandoc show the page",
    "podman logs -f gateway": "test_container.py follows it until the container stops",
    "python3 tests/clients/run.py --table": "make clients runs it",
    "python3 tests/conformance/run.py --table": "make conformance runs it",
    "rustup component add rust-src": "needs a toolchain that can be added to",
    "rustup target add x86_64-unknown-linux-musl": "needs a toolchain that can be added to",
}


def guides():
    return {str(path.relative_to(ROOT)): path.read_text() for path in GUIDES}


def blocks(text):
    """Language, text, and the line before of each fenced block."""
    lines = text.splitlines()
    fences = [at for at, line in enumerate(lines) if line.lstrip().startswith("```")]
    for begin, end in zip(fences[::2], fences[1::2], strict=True):
        yield lines[begin].strip(" `"), "\n".join(lines[begin + 1 : end]), lines[begin - 1]


def run_blocks():
    return dict(found for guide in guides().values() for found in BLOCK.findall(guide))


class Guides(unittest.TestCase):
    def test_every_block_is_run_or_says_why_not(self):
        for name, text in guides().items():
            for language, commands, before in blocks(text):
                if name == "docs/skills.md" and SKILL_FILE.match(before):
                    continue
                self.assertRegex(before, MARK, f"{name}: a block without a mark:\n{commands}")
                if language == "sh":
                    self.assertNotRegex(before, "shown:", f"{name}: commands are run, or say what they need")
                else:
                    self.assertTrue(language, f"{name}: commands are marked as sh, others as what they are:\n{commands}")

    def test_every_named_block_is_asked_for_by_a_test(self):
        tests = "".join(path.read_text() for path in pathlib.Path(__file__).parent.glob("test_*.py"))
        for name in run_blocks():
            self.assertTrue(f'"{name}"' in tests, f"no test runs {name}")

    def test_names_are_unique(self):
        names = [found for text in guides().values() for found, _ in BLOCK.findall(text)]
        self.assertEqual(len(names), len(set(names)))

    def test_commands_in_the_text_are_run_too(self):
        """Those in a sentence or a table: part of a block that is run, a target of make, a form that --help has, or above."""
        told, run_here = run(PROGRAM, "--help"), "\n".join(run_blocks().values())
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
        seen = {}
        for name, text in guides().items():
            for span in re.findall(r"`([^`\n]+)`", re.sub(r"^ *```.*?^ *```", "", text, flags=re.S | re.M)):
                program, *words = span.split()
                if program == "make" and words:
                    self.assertIn(words[0], targets, f"{name}: {span}")
                elif program == "dcc-mcp-server":
                    for word in words:
                        self.assertIn(word.strip("[]"), told, f"{name}: {span}")
                elif program in PROGRAMS.split() and words and span not in run_here:
                    seen[span] = name
        self.assertEqual({span: name for span, name in seen.items() if span not in ELSEWHERE}, {}, "nothing runs these")
        self.assertEqual(set(ELSEWHERE) - set(seen), set(), "no guide has these any more")

    def test_links_lead_somewhere(self):
        for file in [*GUIDES, *(ROOT / "docs/decisions").glob("*.md")]:
            for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", file.read_text()):
                self.assertTrue((file.parent / link).exists(), f"{file.name}: {link}")

    def test_files_that_are_named_exist(self):
        for name, text in guides().items():
            for path in re.findall(r"`(packaging/[\w./@-]+)`", text):
                self.assertTrue((ROOT / path).exists(), f"{name}: {path}")

    def test_metrics_that_are_named_exist(self):
        source = "".join(path.read_text() for path in (ROOT / "src").rglob("*.rs"))
        for metric in re.findall(r"\b(?:dcc_mcp|process)_\w+", (ROOT / "docs/monitoring.md").read_text()):
            self.assertIn(metric, source)

    def test_flags_and_variables_that_are_named_exist(self):
        known = "".join(path.read_text() for path in (ROOT / "src").rglob("*.rs"))
        for name, text in guides().items():
            for variable in re.findall(r"\bDCC_MCP_[A-Z_]+\b", text):
                self.assertIn(variable, known, name)


class Commands(unittest.TestCase):
    """Blocks that belong to no other test, with the program where the guides say that it is."""

    def setUp(self):
        self.addCleanup(lay_over("/usr/local"))
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
        before = set(self.files())
        run(ROOT / "packaging/install.sh", PROGRAM, "/usr/local", "/usr/local")
        self.assertEqual(len(set(self.files()) - before), 11, "the program was there")
        self.sh("remove-files")
        units = {name for name in self.files() if name.startswith("/usr/local/lib/systemd/system/dcc-mcp-")}
        self.assertEqual(set(self.files()) - units, before - {"/usr/local/bin/dcc-mcp-server"})
        self.assertEqual(len(units), 3, "docs/deployment.md removes these")

    def files(self):
        return run("find /usr/local/bin /usr/local/lib/systemd /usr/local/share -type f 2>/dev/null || true").splitlines()

    def test_by_hand(self):
        """A person waits between the lines; nobody is there yet for the first ones here."""
        commands = block("by-hand")
        out = run(
            f"set -m +e\n{commands}\nset -e\nuntil curl -s http://127.0.0.1:9765/instances | grep '\"total\":2'; do sleep 0.2; done\n"
            "kill %1 %2; wait", env=self.env, cwd=ROOT, timeout=60,
        )
        self.assertIn('"blender"', out)

    def test_skills(self):
        """In the guide it runs in the foreground."""
        start = block("skills-start").rstrip()
        run(f"set -m\n{start} &\nuntil curl -s http://127.0.0.1:9765/instances | grep blender; do sleep 0.2; done\nkill %1; wait", env=self.env, cwd=ROOT, timeout=60)

    def test_demo(self):
        self.assertIn("through the one endpoint", self.sh("demo"))

    def test_make_install(self):
        self.assertIn("/usr/local/bin/dcc-mcp-server", self.sh("install-make"))


class WhatWasRun(unittest.TestCase):
    """The last class of the last module, by its name: what all modules have noted."""

    def test_every_block_was_run(self):
        if not os.environ.get("DCC_MCP_PACKAGING_ALL"):
            self.skipTest("some modules alone were asked for")
        used = set(USED.read_text().split())
        self.assertEqual(set(run_blocks()) - used, set())
