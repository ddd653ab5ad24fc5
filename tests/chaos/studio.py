"""The studio of `make chaos`: hosts, a shared folder that each sees through a faulty mount, processes, and nginx.

A host is a network and a pid namespace. A process is started again whenever it has ended and nobody said that it shall
not run, as a service manager does.
"""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import uuid

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "faults"))
from beds import Faulty, Hosts, child_of  # noqa: E402
from world import target, until  # noqa: E402

STALE, BEAT = 8, 2  # seconds
GATEWAY_PORT, NGINX = 9765, ("127.0.0.1", 8080)
SKILL = """---
name: probe-tools
description: A tool for tests
tools:
  - name: echo
    description: Gives its arguments back
    source_file: scripts/echo.sh
---
"""
# A gateway that cannot be reached is found out in a second, and left alone for three.
CONF = """daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{ worker_connections 512; }}
http {{
  access_log off;
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
        self.wanted, self.popen, self.lives = True, None, 0

    def pid(self):
        """The process itself; its parent only entered the namespace for it."""
        return self.popen and child_of(self.popen.pid)

    def keep_alive(self):
        """Starts it where it shall run and does not."""
        if self.wanted and (self.popen is None or self.popen.poll() is not None):
            self.start()

    def start(self):
        self.lives += 1
        gateway = GATEWAY_PORT if self.competes else 0
        command = [
            *self.studio.inside[self.host], self.studio.program, "--registry-dir", self.studio.mounts[self.host].mount,
            "--instance-id", self.id, "--host", self.studio.hosts.address[self.host], "--gateway-port", gateway,
            "--stale-timeout", STALE, "--heartbeat-interval", BEAT, "--dcc", "maya",
            "--skill-paths", self.studio.folder / "skills", "--load-skills", "all", "--drain-timeout", "3",
        ]  # fmt: skip
        with open(self.studio.folder / f"{self.id}.log", "ab") as log:
            words = [str(word) for word in command]
            self.popen = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def signal(self, number):
        pid = self.pid()
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
                # Its parent stops itself with it, and would not see its end.
                if number != signal.SIGSTOP:
                    self.popen.send_signal(signal.SIGCONT)

    def entry(self):
        try:
            return json.loads((self.studio.real / "instances" / f"{self.id}.json").read_text())
        except (FileNotFoundError, ValueError):
            return None

    def is_gateway(self):
        entry = self.entry()
        return bool(entry and entry["gateway"])


class Studio(contextlib.ExitStack):
    """All of it; `crew` are the processes, those of the first three hosts that compete first."""

    def __init__(self, python, hosts, instances, seed):
        super().__init__()
        self.python, self.seed = python, seed
        self.hosts = Hosts([f"h{number}" for number in range(1, hosts + 1)])
        self.count = instances

    def __enter__(self):
        super().__enter__()
        try:
            self.build()
        except BaseException:
            self.close()
            raise
        return self

    def build(self):
        self.folder = pathlib.Path(f"/tmp/dcc-mcp-chaos-{os.getpid()}-{uuid.uuid4().hex[:8]}")
        self.folder.mkdir()
        self.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self.program = shutil.copy(target() / "debug" / "dcc-mcp-server", self.folder)
        scripts = self.folder / "skills" / "probe-tools" / "scripts"
        scripts.mkdir(parents=True)
        (scripts.parent / "SKILL.md").write_text(SKILL)
        (scripts / "echo.sh").write_text("#!/bin/sh\ncat\n")
        (scripts / "echo.sh").chmod(0o755)
        self.real = self.folder / "real"
        self.enter_context(self.hosts)
        mount = lambda name: Faulty(self.python, self.real, self.folder / name, self.seed, keep=0.3)  # noqa: E731
        self.mounts = {name: self.enter_context(mount(name)) for name in self.hosts.names}
        self.inside, self.machines = {}, {}
        for name in self.hosts.names:
            self.boot(name)
        self.callback(lambda: [machine.close() for machine in self.machines.values()])
        names, replicas = self.hosts.names, self.hosts.names[:3]
        self.crew = [Process(self, names[number % len(names)], False) for number in range(self.count)]
        for name in replicas:
            for process in [process for process in self.crew if process.host == name][:2]:
                process.competes = True
        self.replicas = {name: (self.hosts.address[name], GATEWAY_PORT) for name in replicas}
        self.start_nginx()

    def boot(self, name):
        self.machines[name] = contextlib.ExitStack()
        self.inside[name] = self.machines[name].enter_context(self.hosts.processes(name))

    def crash(self, name):
        """The host ends with all that runs there, and is there again, empty."""
        self.machines[name].close()
        for process in self.crew:
            if process.host == name and process.popen:
                process.popen.wait()
        self.boot(name)

    def start_nginx(self):
        servers = " ".join(f"server {ip}:{port} max_fails=1 fail_timeout=3s;" for ip, port in self.replicas.values())
        conf = self.folder / "nginx.conf"
        conf.write_text(CONF.format(folder=self.folder, servers=servers, listen="%s:%d" % NGINX))
        nginx = shutil.which("nginx") or "/usr/sbin/nginx"
        process = subprocess.Popen([nginx, "-c", conf, "-e", self.folder / "nginx.log"], stderr=subprocess.DEVNULL)
        self.callback(process.wait)
        self.callback(process.send_signal, signal.SIGTERM)

    def supervise(self):
        for process in self.crew:
            process.keep_alive()

    def wait_up(self, patience=40):
        def all_up():
            self.supervise()
            return all(process.entry() for process in self.crew if process.wanted)

        until("all have registered", all_up, patience)
