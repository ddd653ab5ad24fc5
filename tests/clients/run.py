"""Runs clients that nobody here wrote against a gateway with two instances, and prints one line for each check.

The last check of each is a takeover: when the client says `waiting`, its gateway is killed, a skill is loaded on an
instance while the client is away, and it must hear of that from the process that took over, in the session it has.

`make clients` builds the program, installs the clients (`install.sh`) and runs this. Standard library only.
"""

import functools
import http.client
import http.server
import json
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
import uuid

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from world import ROOT, World, target, until  # noqa: E402

CLIENTS = ROOT / "target" / "clients"
HERE = pathlib.Path(__file__).resolve().parent
SKILLS = ROOT / "docs" / "examples" / "skills"
MODEL = ROOT / "docs" / "examples" / "files" / "cube.obj"
CLIENT_PATIENCE = 180  # seconds for all checks of one client


class Counting(http.server.BaseHTTPRequestHandler):
    """An MCP server with one tool, `count`, that reports progress three times; no skill script can do that."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        method, ident = message.get("method"), message.get("id")
        if ident is None:
            return self.reply(202, b"", None)
        if method == "tools/call":
            return self.count(message)
        results = {
            "initialize": {
                "protocolVersion": message.get("params", {}).get("protocolVersion"),
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "counting", "version": "1"},
            },
            "tools/list": {"tools": [{"name": "count", "inputSchema": {"type": "object"}}]},
            "ping": {},
        }
        body = json.dumps({"jsonrpc": "2.0", "id": ident, "result": results.get(method, {})})
        return self.reply(200, body.encode(), "application/json")

    def do_GET(self):
        self.reply(405, b"", None)

    def count(self, message):
        token = message["params"].get("_meta", {}).get("progressToken")
        parts = [
            {"method": "notifications/progress", "params": {"progressToken": token, "progress": step, "total": 3}}
            for step in (1, 2, 3)
        ]
        parts = parts if token is not None else []
        parts.append({"id": message["id"], "result": {"content": [{"type": "text", "text": "counted"}]}})
        events = "".join("data: " + json.dumps({"jsonrpc": "2.0", **part}) + "\n\n" for part in parts)
        self.reply(200, events.encode(), "text/event-stream")

    def reply(self, status, body, kind):
        self.send_response(status)
        if kind:
            self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def register_counting(world):
    """Registers the counting server as an instance of another host; gives its id and the stop of its heartbeat."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Counting)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    instance, port = str(uuid.uuid4()), server.server_address[1]
    entry = {
        "schema": 1, "instance_id": instance, "dcc_type": "counting", "host": "127.0.0.1", "port": port,
        "mcp_url": f"http://127.0.0.1:{port}/mcp", "pid": 1, "host_id": "test/1", "registered_at": time.time(),
        "status": "available",
    }
    file = world.registry / "instances" / f"{instance}.json"
    stop = threading.Event()

    def beat():
        seq = 1
        while True:
            entry["heartbeat"] = {"seq": seq, "at": time.time()}
            part = file.with_name(f".{file.name}.tmp")
            part.write_text(json.dumps(entry))
            part.rename(file)
            seq += 1
            if stop.wait(1):
                return

    threading.Thread(target=beat, daemon=True).start()
    return instance, stop


def write_late_skill(folder, name):
    (folder / name / "scripts").mkdir(parents=True)
    (folder / name / "SKILL.md").write_text(f"---\nname: {name}\ndescription: loaded while a client listens\n---\n")
    (folder / name / "scripts" / "run.sh").write_text("cat\n")


def commands():
    """Each client: its name and the beginning of its command."""
    for name in ("python-1", "python-2"):
        yield (HERE / f"{name}.txt").read_text().strip(), [CLIENTS / name / "bin" / "python", HERE / "client.py"]
    pins = json.loads((HERE / "package.json").read_text())["dependencies"]
    for name in ("sdk", "client"):
        package = f"@modelcontextprotocol/{name}"
        yield f"{package}@{pins[package]}", ["node", HERE / "client.mjs", name]


def run_client(command, plan, on_waiting):
    """The lines of the checks of one client as they come; an end that was not in order is one more line."""
    command = [str(part) for part in command] + [json.dumps(plan)]
    with tempfile.TemporaryFile("w+") as errors:
        client = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        watchdog = threading.Timer(CLIENT_PATIENCE, client.kill)
        watchdog.start()
        closed = False
        for line in map(str.strip, client.stdout):
            if line == "waiting":
                on_waiting()
            elif line.startswith(("ok ", "not ok ")):
                closed = closed or line == "ok close"
                yield line
        status = client.wait()
        watchdog.cancel()
        if status != 0 or not closed:
            errors.seek(0)
            yield f"not ok end: exit {status}: {' | '.join(errors.read().strip().splitlines()[-6:])}"


def take_over(world, instance, skill):
    """Kills the gateway; once another process answers in its place, loads a skill on an instance directly."""
    world.kill(world.gateway())
    until("another process answers", world.instances)
    call_tool(world.entry(instance)["port"], "load_skill", {"skill_name": skill})


def call_tool(port, name, arguments):
    """One tools/call in a session of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "run", "version": "1"}}
    for method, params in (("initialize", hello), ("tools/call", {"name": name, "arguments": arguments})):
        message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        connection.request("POST", "/mcp", json.dumps(message), headers)
        reply = connection.getresponse()
        headers["Mcp-Session-Id"] = reply.headers.get("Mcp-Session-Id", headers.get("Mcp-Session-Id", ""))
        text = reply.read()
    assert not json.loads(text)["result"].get("isError"), text


def main():
    passed = failed = 0
    with World(target() / "debug" / "dcc-mcp-server") as world:
        late = world.folder / "late"
        names = [f"late{number}" for number, _ in enumerate(commands())]
        for name in names:
            write_late_skill(late, name)
            write_late_skill(late, f"{name}-away")
        world.start("--dcc", "generic")
        skills = ["--skill-paths", str(SKILLS), "--load-skills", "mesh-tools"]
        maya = world.start("--dcc", "maya", *skills, competes=False)
        blender = world.start("--dcc", "blender", "--skill-paths", str(late), competes=False)
        counting, stop = register_counting(world)
        for (client, command), skill in zip(commands(), names):
            world.start("--dcc", "generic")  # the standby of this round
            world.wait_instances(5)
            plan = {
                "url": f"http://127.0.0.1:{world.gateway_port}/mcp",
                "modules": str(CLIENTS / "node"),
                "tool": f"{maya[:8]}__mesh_tools__inspect_obj",
                "arguments": {"file": str(MODEL)},
                "bad_arguments": {"file": str(world.folder / "no-such-file.obj")},
                "expected": {"vertices": 8, "triangles": 12},
                "count_tool": f"{counting[:8]}__count",
                "load": {"skill_name": skill, "instance_id": blender},
                "new_tool": f"{blender[:8]}__{skill.replace('-', '_')}__run",
                "away_tool": f"{blender[:8]}__{skill.replace('-', '_')}_away__run",
            }
            away = functools.partial(take_over, world, blender, f"{skill}-away")
            for line in run_client(command, plan, away):
                print(f"{client}: {line}", flush=True)
                passed, failed = (passed + 1, failed) if line.startswith("ok ") else (passed, failed + 1)
        stop.set()
    print(f"clients: {passed} passed, {failed} failed")
    return 0 if failed == 0 and passed else 1


sys.exit(main())
