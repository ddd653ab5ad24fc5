"""The compose file, brought up and broken by a real Docker engine, which runs in the namespaces of the test."""

import json
import os
import re
import shutil
import time
import unittest

from kit import Client, Folder, Load, Processes, ROOT, block, get, run, until
from podman import dist_into_the_context

URL = "http://127.0.0.1:9765/mcp"
FIGURES = []


class Engine:
    """dockerd with folders and a socket of its own."""

    def __init__(self):
        self.folder, self.processes = Folder(), Processes()
        run("umount /sys/fs/cgroup/unified 2>/dev/null || true")
        socket = f"unix://{self.folder.path}/docker.sock"
        command = ["/usr/sbin/dockerd", "--data-root", self.folder / "data", "--exec-root", self.folder / "exec", "-H", socket]
        command += ["--pidfile", self.folder / "pid", "--bip", "10.200.0.1/24"]
        # Debian's clients before older ones of the same names, but nothing else of its folder before what is in the path.
        (self.folder / "bin").mkdir()
        for name in ["docker", "docker-compose"]:
            (self.folder / "bin" / name).symlink_to(f"/usr/bin/{name}")
        self.env = {"DOCKER_HOST": socket, "DOCKER_API_VERSION": "1.41", "DOCKER_BUILDKIT": "0", "COMPOSE_PROJECT_NAME": "dcc-mcp"}
        self.env["PATH"] = f"{self.folder.path}/bin:{os.environ['PATH']}"
        self.processes.start(*command, log=self.folder / "log", env={"PATH": f"/usr/bin:/usr/sbin:{os.environ['PATH']}"})
        try:
            until("the engine answers", lambda: "Server Version" in run("docker info 2>&1 || true", env=self.env), 60)
        except TimeoutError:
            print((self.folder / "log").read_text()[-3000:])
            self.stop()
            raise
        dist_into_the_context()

    def sh(self, script, timeout=300):
        return run(script, env=self.env, cwd=ROOT, timeout=timeout)

    def image(self, name, programs, links=(), user=None):
        """An image from scratch of some programs of this machine with their libraries: nothing can be pulled here."""
        context = self.folder / "context"
        shutil.rmtree(context, ignore_errors=True)
        for program, to in programs:
            self.copy(program, context / to.lstrip("/"))
            for library in re.findall(r"(/\S+) \(0x", run(f"ldd {program} || true")):
                self.copy(library, context / library.lstrip("/"))
        for path in links:
            link = context / path.lstrip("/")
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to("/bin/busybox")
        (context / "tmp").mkdir(exist_ok=True)
        (context / "tmp/.keep").touch()
        entry = f'ENTRYPOINT ["{programs[0][1]}", "-W", "-db", "-f", "/usr/local/etc/haproxy/haproxy.cfg"]\n' if user else ""
        (context / "Dockerfile").write_text(f"FROM scratch\nCOPY . /\nENV PATH=/bin:/usr/local/bin\n{entry}{user or ''}\n")
        self.sh(f"docker build -q -t {name} {context}")

    @staticmethod
    def copy(source, to):
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, to)

    def stop(self):
        self.processes.stop()
        run(f"grep -o ' {self.folder.path}[^ ]*' /proc/self/mounts | sort -r | xargs -r -n1 umount -l || true")
        self.folder.remove()


COMMANDS = "sh cat tr sed printf find awk sort du wc ls basename dirname sleep head test expr env mktemp rm".split()


class Compose(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.engine = Engine()
        cls.addClassCleanup(cls.engine.stop)
        # Under the names that the shipped files have, so that these are used as they are.
        cls.engine.image("busybox:1.36.1-musl", [("/bin/busybox", "/bin/busybox")], [f"/bin/{name}" for name in COMMANDS])
        cls.engine.image("haproxy:2.8-alpine", [("/usr/sbin/haproxy", "/usr/local/sbin/haproxy")], user="USER 99:99")
        begun = time.monotonic()
        try:
            cls.engine.sh(block("compose-up"))
        except Exception:
            print(cls.engine.sh(f"{COMPOSE} logs --tail 30 || true"))
            raise
        FIGURES.append(f"compose: images built and up in {time.monotonic() - begun:.1f} s")
        size = int(cls.engine.sh("docker image inspect dcc-mcp-server --format '{{.Size}}'"))
        FIGURES.append(f"image (docker): {size / 1e6:.2f} MB")

    @classmethod
    def tearDownClass(cls):
        cls.engine.sh(block("compose-down"))

    def setUp(self):
        self.engine.sh(f"{COMPOSE} up -d 2>&1")
        until("all four are listed", lambda: self.listed() == ["blender", "maya"] and self.total() == 4, 30)
        until("both gateways are in", lambda: self.replicas_in() == 2, 20)

    def instances(self):
        status, body = get("http://127.0.0.1:9765/instances")
        return json.loads(body)["instances"] if status == 200 else []

    def listed(self):
        return sorted(instance["dcc_type"] for instance in self.instances() if instance["dcc_type"] in ("maya", "blender"))

    def total(self):
        return len(self.instances())

    def replicas_in(self):
        """Gateways that pass the engine's health check."""
        out = self.engine.sh(f"for g in gateway-a gateway-b; do docker inspect -f '{{{{.State.Health.Status}}}}' $({COMPOSE} ps -q $g); done")
        return out.split().count("healthy")

    def test_skills_run_in_both_instances(self):
        client = Client(URL).open()
        names = client.tools()
        for prefix in ("6d617961__", "626c656e__"):  # of the ids that the compose file pins
            check, usage = (next(name for name in names if name.startswith(prefix) and name.endswith(tool)) for tool in ("check_names", "disk_usage"))
            self.assertEqual(client.call(check, folder="/skills/name-check")["structuredContent"]["files"], 1)
            self.assertIn("md", str(client.call(usage, folder="/skills")))

    def load(self):
        client = Client(URL).open()
        name = next(name for name in client.tools() if name.endswith("check_names"))
        return Load(URL, name, clients=4, folder="/skills/name-check")

    def test_failover_of_the_guide(self):
        """The gateway that is killed is started again by the guide's own command; no client needs a new session."""
        with self.load() as load:
            load.during(1)
            self.assertIn('"total"', self.engine.sh(block("compose-break")))
            load.during(4)
            before = len(load.failures)
            self.assertGreater(load.during(3), 5)
        self.assertLessEqual(len(load.failures), 4, load.failures)
        self.assertEqual(len(load.failures), before)
        FIGURES.append(f"compose: gateway killed, {len(load.failures)} of {load.calls + len(load.failures)} calls failed (4 clients)")

    def test_stopping_a_gateway_loses_no_call(self):
        with self.load() as load:
            load.during(1)
            self.engine.sh(f"{COMPOSE} stop gateway-b")
            self.assertGreater(load.during(3), 5)
        self.assertEqual(load.failures, [])
        FIGURES.append(f"compose: gateway stopped, 0 of {load.calls} calls failed")

    def test_a_gateway_without_network_is_left(self):
        identity = self.engine.sh(f"{COMPOSE} ps -q gateway-a").strip()
        self.engine.sh(f"docker network disconnect dcc-mcp_default {identity}")
        time.sleep(4)
        with self.load() as load:
            self.assertGreater(load.during(3), 5)
        self.engine.sh(f"docker network connect --alias gateway-a dcc-mcp_default {identity}")
        self.assertEqual(load.failures, [])

    def test_a_killed_instance_is_gone_soon_and_comes_back_with_its_names(self):
        self.engine.sh(f"{COMPOSE} kill -s KILL blender")
        until("it is gone", lambda: self.listed() == ["maya"], 15)
        self.engine.sh(f"{COMPOSE} start blender")
        until("it is back", lambda: self.listed() == ["blender", "maya"], 20)
        until("its tool has its name", lambda: any(name.startswith("626c656e__") for name in Client(URL).open().tools()))


COMPOSE = "docker-compose -f packaging/compose/compose.yaml"
