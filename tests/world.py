"""Servers for the scripts of `tests/` and the demonstration: started, waited for, ended by their own process ids.

Standard library only. Used by the scripts in the folders beside it and by the demonstration.
"""

import contextlib
import http.client
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid

PATIENCE = 20  # seconds

ROOT = pathlib.Path(__file__).resolve().parents[1]

PROBE_SKILL = """---
name: probe-tools
description: A tool for tests
tools:
  - name: echo
    description: Gives its arguments back
    source_file: scripts/echo.sh
---
"""


def target():
    """The build folder of cargo."""
    return pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))


def free_port():
    """A port that nobody has now, below those that the system gives out itself: it must not become the own port of an
    instance before the gateway has it."""
    while True:
        port = random.randrange(12_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def get(port, path, timeout=2):
    """Status and body of a GET, or (None, b"") when nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", path)
        reply = connection.getresponse()
        return reply.status, reply.read()
    except OSError:
        return None, b""
    finally:
        connection.close()


def until(what, condition, patience=PATIENCE):
    """Waits until `condition` gives something true, and gives that."""
    end = time.monotonic() + patience
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise TimeoutError(f"after {patience} s still not: {what}")
        time.sleep(0.02)


def build(*examples, features=(), folder=None):
    """Builds the program and these examples for release; gives the folder they are in, by default cargo's own."""
    folder = folder or target()
    command = ["cargo", "build", "--quiet", "--release", "--locked", "--bins", "--target-dir", str(folder)]
    command += [word for example in examples for word in ("--example", example)]
    command += [word for feature in features for word in ("--features", feature)]
    subprocess.run(command, cwd=ROOT, check=True)
    return folder / "release"


def open_session(port, host="127.0.0.1", timeout=10):
    """The session id that `initialize` gives, or nothing where it gives none."""
    params = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "tests", "version": "1"}}
    body = json.dumps({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params})
    headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request("POST", "/mcp", body, headers)
        reply = connection.getresponse()
        reply.read()
        return reply.headers["Mcp-Session-Id"]
    finally:
        connection.close()


def write_probe_skill(skills):
    """Puts a skill into this folder whose one tool gives its arguments back."""
    scripts = skills / "probe-tools" / "scripts"
    scripts.mkdir(parents=True)
    (scripts.parent / "SKILL.md").write_text(PROBE_SKILL)
    (scripts / "echo.sh").write_text("#!/bin/sh\ncat\n")
    (scripts / "echo.sh").chmod(0o755)


def probe_tool(instance):
    """The name under which the gateway lists the tool of that skill of this instance."""
    return f"{instance[:8]}__probe_tools__echo"


def process_status(pid):
    """The fields of /proc/<pid>/status, such as VmRSS and Threads, as text."""
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, value in (line.split(":", 1) for line in lines)}


def resident(pid, field="VmRSS"):
    """Resident memory in MiB; with VmHWM its highest value. A process that is ending has none."""
    return int(process_status(pid).get(field, "0").split()[0]) / 1024


class World:
    """A fresh registry folder and a free gateway port; all that was started in it ends with it."""

    def __init__(self, program):
        self.program = str(program)
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="dcc-mcp-"))
        self.registry = self.folder / "registry"
        self.gateway_port = free_port()
        self.processes = []
        self.by_id = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(PATIENCE)
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self, *args, competes=True, **environment):
        """Starts one process of the program and gives its instance id once it is registered."""
        instance, process = self.launch(*args, competes=competes, **environment)

        def registered():
            if process.poll() is not None:
                raise RuntimeError(f"the program ended at its start:\n{self.log(instance)}")
            return self.entry(instance)

        until("the instance is registered", registered)
        return instance

    def launch(self, *args, competes=True, prefix=(), registry=None, instance=None, **environment):
        """Starts one process, with these words before its own, and waits for nothing; gives its instance id and itself."""
        instance = instance or str(uuid.uuid4())
        gateway_port = self.gateway_port if competes else 0
        fixed = ["--registry-dir", str(registry or self.registry), "--gateway-port", str(gateway_port)]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("DCC_MCP_")}
        log = open(self.folder / f"{instance}.log", "ab")
        with log:
            command = [*prefix, self.program, *fixed, "--instance-id", instance, *args]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=clean | environment)
        self.processes.append(process)
        self.by_id[instance] = process
        return instance, process

    def entry(self, instance):
        """The registry entry of an instance, or nothing where there is none."""
        try:
            return json.loads((self.registry / "instances" / f"{instance}.json").read_text())
        except FileNotFoundError:
            return None

    def gateway(self):
        """The instance that serves the gateway port, by its own entry; waits until there is one."""

        def leader():
            entries = {instance: self.entry(instance) for instance in self.by_id}
            return next((instance for instance, entry in entries.items() if entry and entry["gateway"]), None)

        return until("somebody serves the gateway port", leader)

    def kill(self, instance):
        """kill -9."""
        process = self.by_id.pop(instance)
        process.kill()
        process.wait(PATIENCE)

    def log(self, instance):
        return (self.folder / f"{instance}.log").read_text(errors="replace")

    def instances(self):
        status, body = get(self.gateway_port, "/instances")
        return json.loads(body)["instances"] if status == 200 else []

    def start_stub(self, stub, instances):
        """Starts the stub back end of the benchmark; gives (instance id, port) of each of its instances."""
        command = [str(stub), "--registry", str(self.registry), "--instances", str(instances), "--tools", "10"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.processes.append(process)
        lines = [process.stdout.readline().split() for _ in range(instances)]
        return [(instance, int(port)) for instance, port in lines]

    def wait_instances(self, count):
        return until(f"{count} instances are listed", lambda: len(self.instances()) == count and self.instances())
