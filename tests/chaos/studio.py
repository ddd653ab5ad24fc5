"""The studio of `make chaos`: hosts, a shared folder that each sees through a faulty mount, processes, and nginx.

A host is a network namespace and a pid namespace with a service manager (`manager.py`), which starts a process again whenever
it has ended and nobody said that it shall not run.
"""

import contextlib
import json
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import uuid

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "faults"))
from beds import Faulty, Hosts  # noqa: E402
from judgement import Death  # noqa: E402
from world import PATIENCE, probe_tool, target, until, write_probe_skill  # noqa: E402

STALE, BEAT = 8, 2  # seconds
GATEWAY_PORT, NGINX = 9765, ("127.0.0.1", 8080)
STARTING = 60  # seconds
# A gateway that cannot be reached is found out in a second, and left alone for three.
CONF = """daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{ worker_connections 512; }}
http {{
  log_format who '$msec $upstream_addr $status $request_time';
  access_log {folder}/access.log who;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream gateways {{ {servers} }}
  server {{
    listen {listen};
    location / {{
      proxy_pass http://gateways; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host localhost;
      proxy_connect_timeout 1s; proxy_read_timeout 130s; proxy_buffering off;
      proxy_next_upstream error timeout;
    }}
  }}
}}
"""


class Process:
    """One instance on one host: the same id for all its lives."""

    def __init__(self, studio, host, competes):
        self.studio, self.host, self.competes, self.id = studio, host, competes, str(uuid.uuid4())
        self.wanted, self.tool = True, probe_tool(self.id)

    def order(self, **what):
        """Tells the service manager of its host; a host that is just ending need not hear it."""
        with contextlib.suppress(BrokenPipeError):
            self.studio.managers[self.host].stdin.write(json.dumps({"id": self.id} | what).encode() + b"\n")
            self.studio.managers[self.host].stdin.flush()

    def run(self):
        gateway = GATEWAY_PORT if self.competes else 0
        command = [
            self.studio.program, "--registry-dir", self.studio.mounts[self.host].mount,
            "--instance-id", self.id, "--host", self.studio.hosts.address[self.host], "--gateway-port", gateway,
            "--stale-timeout", STALE, "--heartbeat-interval", BEAT, "--dcc", "maya",
            "--skill-paths", self.studio.folder / "skills", "--load-skills", "all", "--drain-timeout", "3",
        ]  # fmt: skip
        self.order(command=[str(word) for word in command], log=str(self.studio.folder / f"{self.id}.log"))

    def signal(self, number):
        self.order(signal=number, again=self.wanted)

    def entry(self):
        try:
            return json.loads((self.studio.real / "instances" / f"{self.id}.json").read_text())
        except (FileNotFoundError, ValueError):
            return None

    def life(self):
        """What tells one life from the next, or nothing while it is not registered."""
        entry = self.entry()
        return entry and (entry["pid"], entry["registered_at"])

    def beat(self):
        """What tells one heartbeat from the next, or nothing while it is not registered."""
        entry = self.entry()
        return entry and (entry["pid"], entry["registered_at"], entry["heartbeat"]["seq"])

    def is_gateway(self):
        entry = self.entry()
        return bool(entry and entry["gateway"])


class Studio(contextlib.ExitStack):
    """All of it; `crew` are the processes, two of each host competing for its gateway port; `deaths` is who has ended."""

    def __init__(self, python, hosts, instances, seed):
        super().__init__()
        self.python, self.seed, self.count = python, seed, instances
        self.hosts = Hosts([f"h{number}" for number in range(1, hosts + 1)])
        self.managers, self.machines, self.deaths = {}, {}, []

    def __enter__(self):
        super().__enter__()
        try:
            self.build()
        except BaseException:
            self.close()
            raise
        return self

    def build(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="dcc-mcp-chaos-"))
        self.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self.program = shutil.copy(target() / "debug" / "dcc-mcp-server", self.folder)
        write_probe_skill(self.folder / "skills")
        self.real = self.folder / "real"
        self.enter_context(self.hosts)
        mount = lambda name: Faulty(self.python, self.real, self.folder / name, self.seed, keep=0.3)  # noqa: E731
        names = self.hosts.names
        self.mounts = {name: self.enter_context(mount(name)) for name in names}
        self.crew = [Process(self, names[number % len(names)], number < 2 * len(names)) for number in range(self.count)]
        self.replicas = {name: (self.hosts.address[name], GATEWAY_PORT) for name in names}
        self.callback(lambda: [machine.close() for machine in self.machines.values()])
        for name in names:
            self.boot(name)
        self.start_nginx()
        until("all have registered", lambda: all(process.entry() for process in self.crew), STARTING)

    def boot(self, name):
        """The host is there, and starts what shall run on it."""
        self.machines[name] = contextlib.ExitStack()
        manager = self.machines[name].enter_context(self.hosts.machine(name, sys.executable, HERE / "manager.py"))
        self.managers[name] = manager
        threading.Thread(target=self.read, args=[name, manager.stdout], daemon=True).start()
        for process in self.crew:
            if process.host == name and process.wanted:
                process.run()

    def crash(self, name):
        """The host ends with all that runs there, and is there again."""
        self.machines[name].close()
        self.boot(name)

    def read(self, host, lines):
        """Takes note of what a service manager says, until it ends."""
        for line in lines:
            told = json.loads(line)
            self.deaths.append(Death(told["id"], host, told["code"], told["told"], told["at"]))

    def start_nginx(self):
        servers = " ".join(f"server {ip}:{port} max_fails=1 fail_timeout=3s;" for ip, port in self.replicas.values())
        conf = self.folder / "nginx.conf"
        conf.write_text(CONF.format(folder=self.folder, servers=servers, listen="%s:%d" % NGINX))
        nginx = shutil.which("nginx") or "/usr/sbin/nginx"
        process = subprocess.Popen([nginx, "-c", conf, "-e", self.folder / "nginx.log"], stderr=subprocess.DEVNULL)
        self.callback(process.wait, PATIENCE)
        self.callback(process.send_signal, signal.SIGTERM)
