"""The image from scratch: built by a real engine, run read-only and without capabilities, as process 1."""

import json
import pathlib
import re
import shutil
import tempfile
import unittest

from kit import PROGRAM, ROOT, VERSION, Client, block, get, until
from podman import Podman

FIGURES = []
RUN = ["run", "-d", "--read-only", "--cap-drop=all", "--security-opt=no-new-privileges", "--network=host"]
RUST = re.search(r"^FROM (\S+/rust:\S+) AS builder$", (ROOT / "packaging/container/Containerfile").read_text(), re.M)[1]
STAND_IN = {
    "make": """#!/bin/sh -e
[ "$*" = dist ]
for file in Cargo.toml Cargo.lock Makefile src/main.rs packaging/dist.sh packaging/install.sh; do [ -f "$file" ]; done
mkdir -p "$CARGO_TARGET_DIR/dist"
cp /dcc-mcp-server "$CARGO_TARGET_DIR/dist/"
""",
    "apt-get": "#!/bin/sh\n",
    "Containerfile": """FROM scratch
COPY busybox make apt-get /bin/
COPY dcc-mcp-server /
ENV PATH=/bin
RUN ["/bin/busybox", "--install", "/bin"]
""",
}


class Image(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.podman = Podman()
        cls.addClassCleanup(cls.podman.remove)
        cls.podman.sh(block("container-build"))

    def setUp(self):
        self.addCleanup(self.podman.sh, "podman rm -af -t 0; podman volume prune -f")

    def inspect(self, name, form):
        return json.loads(self.podman.sh(f"podman inspect {name} --format '{{{{json {form}}}}}'"))

    def start(self, *flags):
        self.podman.run(*RUN, "--name", "gateway", "dcc-mcp-server", *flags)
        until("it answers", lambda: get("http://127.0.0.1:9765/readyz")[0] == 200)

    def files(self, image):
        """Those of the image; the engine adds mount points of its own."""
        files = self.podman.sh(f"(c=$(podman create {image}); podman export $c | tar -t; podman rm $c >/dev/null) 2>/dev/null").split()
        return {name for name in files if not re.match(r"(\.dockerenv|dev|etc|proc|run|sys|tmp)(/|$)", name) and not name.endswith("/")}

    def test_what_is_in_it(self):
        self.assertEqual(self.files("dcc-mcp-server"), {"usr/local/bin/dcc-mcp-server", "var/lib/dcc-mcp/registry/README"})
        size = int(self.inspect("dcc-mcp-server", ".Size"))
        FIGURES.append(f"image {size / 1e6:.2f} MB")
        self.assertLess(size, 4_000_000)
        self.assertEqual(self.inspect("dcc-mcp-server", ".Config.User"), "65532:65532")

    def test_the_first_stage_hands_the_program_on(self):
        """The Rust image cannot be fetched here, so one of the same name stands in for it, whose `make dist` looks for what
        the real one builds from, and hands out the program that is there."""
        self.addCleanup(self.podman.sh, f"podman rmi -f built {RUST}")
        with tempfile.TemporaryDirectory(dir=self.podman.folder.path) as folder:
            for name, text in STAND_IN.items():
                (pathlib.Path(folder) / name).write_text(text)
                (pathlib.Path(folder) / name).chmod(0o755)
            shutil.copy("/bin/busybox", folder)
            shutil.copy(PROGRAM, folder)
            self.podman.sh(f"podman build -q -t {RUST} {folder}")
        out = self.podman.sh("podman build --format docker -f packaging/container/Containerfile -t built .")
        self.assertNotIn("COPY target/dist/dcc-mcp-server", out, "nothing is taken from the host")
        self.assertEqual(self.files("built"), self.files("dcc-mcp-server"))
        self.assertEqual(self.inspect("built", ".Config"), self.inspect("dcc-mcp-server", ".Config"))
        self.assertIn(VERSION, self.podman.run("run", "--rm", "--network=none", "built", "--version"))

    def test_the_commands_of_the_guide(self):
        self.podman.sh(block("container-run"))
        self.assertEqual(json.loads(get("http://127.0.0.1:9765/instances")[1])["total"], 1)
        self.assertIn("event=stopped drained=true", self.podman.sh("podman logs -f gateway & " + block("container-stop") + "wait"))

    def test_it_is_nobody_on_a_read_only_root(self):
        self.start()
        pid = self.inspect("gateway", ".State.Pid")
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
        self.assertRegex(status, r"Uid:\s+65532\s+65532")
        self.assertRegex(status, r"NSpid:.*\b1\n")
        self.assertEqual(set(re.findall(r"^Cap\w+:\s+(\w+)$", status, re.M)), {"0" * 16})
        mounts = pathlib.Path(f"/proc/{pid}/mounts").read_text()
        self.assertRegex(mounts, r"(?m)^\S+ / \S+ ro\b")

    def test_health(self):
        self.start()
        self.podman.sh("podman healthcheck run gateway")
        self.assertIn("dcc-mcp-server", self.podman.sh("podman exec gateway /usr/local/bin/dcc-mcp-server --version"))
        self.podman.sh("podman kill -s STOP gateway")
        self.assertIn("rc=1", self.podman.sh("timeout 20 podman healthcheck run gateway && echo rc=0 || echo rc=1"))

    def test_sigterm_reaches_process_1(self):
        self.start("--drain-timeout", "5")
        client = Client("http://127.0.0.1:9765/mcp").open()
        self.assertIn("list_dcc_instances", client.tools())
        client.close()
        self.podman.sh("podman stop -t 10 gateway")
        self.assertEqual(self.inspect("gateway", ".State.ExitCode"), 0)
        self.assertIn("drained=true", self.podman.sh("podman logs gateway 2>&1"))

    def test_one_container_sees_another_over_the_volume(self):
        self.podman.run(*RUN, "-v", "registry:/var/lib/dcc-mcp/registry", "--name", "a", "dcc-mcp-server")
        self.podman.run(*RUN, "-v", "registry:/var/lib/dcc-mcp/registry", "--name", "b", "dcc-mcp-server", "--dcc", "maya")
        until("both are listed", lambda: b'"total":2' in get("http://127.0.0.1:9765/instances")[1])
        self.podman.sh("podman kill a")
        until("the other one serves", lambda: b'"maya"' in get("http://127.0.0.1:9765/instances")[1])
