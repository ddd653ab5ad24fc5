"""Runs clients that nobody here wrote against a gateway with two instances, and prints one line for each check.

The last check of each is a takeover: when the client says `waiting`, its gateway is killed, and it calls at once, in the
session it has; no call may be lost. A skill is loaded on an instance meanwhile, and the client must hear of that from the
process that took over. Then it calls a tool whose gateway is killed while it runs, which is lost, and calls again. What
was seen is the table of `docs/clients.md`: `--table` prints it, and a client, version or revision that differs from that
page is a failure. Names given as arguments select clients.

`make clients` builds the program, installs the clients (`install.sh`) and runs this. Standard library only.
"""

import contextlib
import functools
import http.client
import http.server
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from world import ROOT, World, target, until  # noqa: E402

CLIENTS = ROOT / "target" / "clients"
HERE = pathlib.Path(__file__).resolve().parent
SKILLS = ROOT / "docs" / "examples" / "skills"
MODEL = ROOT / "docs" / "examples" / "files" / "cube.obj"
CLIENT_PATIENCE = 180  # seconds for all checks of one client
INSPECTOR = "@modelcontextprotocol/inspector"
COLUMNS = {
    "client": "Client",
    "version": "Version",
    "revision": "Revision",
    "elicitation": "Is asked",
    "told": "Told again after",
    "call": "Call under way at the kill",
    "next": "Next call",
    "pages": "Follows pages",
}


class Paged(http.server.BaseHTTPRequestHandler):
    """A server of old that lists its four tools on two pages; notes the revision that its last client spoke."""

    protocol_version = "HTTP/1.1"
    spoken = None

    def log_message(self, *_):
        pass

    def do_POST(self):
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        ident, params = message.get("id"), message.get("params") or {}
        Paged.spoken = self.headers.get("MCP-Protocol-Version", Paged.spoken)
        results = {
            "initialize": {
                # A revision that has no handshake is answered with the newest that has one.
                "protocolVersion": min(params.get("protocolVersion", ""), "2025-11-25"),
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "paged", "version": "1"},
            },
            "tools/list": self.page(params.get("cursor")),
            "ping": {},
        }
        answer = {"jsonrpc": "2.0", "id": ident, "error": {"code": -32601, "message": "method not found"}}
        if message["method"] in results:
            answer = {"jsonrpc": "2.0", "id": ident, "result": results[message["method"]]}
        self.reply(*((202, b"") if ident is None else (200, json.dumps(answer).encode())))

    def do_GET(self):
        self.reply(405, b"")

    @staticmethod
    def page(cursor):
        first = 0 if cursor is None else 2
        tools = [{"name": f"tool{first + number}", "inputSchema": {"type": "object"}} for number in (0, 1)]
        return {"tools": tools} | ({"nextCursor": "2"} if cursor is None else {})

    def reply(self, status, body):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Client:
    """One client at the version that is pinned here, as a command that takes a plan."""

    def __init__(self, name, version, *command):
        self.name, self.version = name, version
        self.command = [str(part) for part in command]
        self.facts = {"client": name, "version": version}

    def run(self, plan, part, on_waiting=None):
        """The lines of one part as they come; an end that was not in order is one more line."""
        command = [*self.command, json.dumps(plan | {"part": part})]
        with tempfile.TemporaryFile("w+") as errors:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True)

            def tell():
                with contextlib.suppress(BrokenPipeError):
                    print("the gateway is dead", file=process.stdin, flush=True)

            watchdog = threading.Timer(CLIENT_PATIENCE, process.kill)
            watchdog.start()
            closed = False
            for line in map(str.strip, process.stdout):
                if line == "waiting":
                    on_waiting(tell)
                elif line.startswith(("ok ", "not ok ", "fact ")):
                    closed = closed or line == "ok close"
                    yield line
            status = process.wait()
            watchdog.cancel()
            if status != 0 or not closed:
                errors.seek(0)
                yield f"not ok end: exit {status}: {' | '.join(errors.read().strip().splitlines()[-6:])}"


class Inspector:
    """The command-line mode of the Inspector: each call is a connection of its own."""

    def __init__(self, version):
        self.name, self.version = INSPECTOR, version
        self.facts = {"client": INSPECTOR, "version": version}

    def ask(self, url, method, *words):
        """What it prints, as JSON."""
        program = CLIENTS / "inspector" / "node_modules" / INSPECTOR / "clients" / "launcher" / "build" / "index.js"
        command = [*node(), str(program), "--cli", url, "--transport", "http", "--format", "json", "--method", method]
        done = subprocess.run([*command, *words], capture_output=True, text=True, timeout=60)
        if done.returncode not in (0, 5):  # 5: the tool says that it failed
            raise RuntimeError(f"exit {done.returncode}: {done.stdout} {done.stderr}")
        answer = json.loads(done.stdout)
        return answer.get("result", answer)

    def call(self, url, tool, arguments, *words):
        return self.ask(url, "tools/call", "--tool-name", tool, "--tool-args-json", json.dumps(arguments), *words)

    def run(self, plan, part, on_waiting=None):
        url = plan["url"]
        if part == "pages":
            yield f"fact pages {len(self.ask(url, 'tools/list')['tools'])}"
        elif part == "checks":
            yield f"fact revision {Paged.spoken}"
            yield from self.checks(plan, url, on_waiting)
        else:
            yield from self.lost(plan, url, on_waiting)

    def checks(self, plan, url, on_waiting):
        def listed(*words):
            names = [tool["name"] for tool in self.ask(url, "tools/list", *words)["tools"]]
            assert plan["tool"] in names, f"{plan['tool']} is not in {names}"

        def structured():
            found = self.call(url, plan["tool"], plan["arguments"])["structuredContent"]
            assert found.items() >= plan["expected"].items(), found

        def long_call():
            result = self.call(url, plan["render_tool"], plan["render"])
            assert not result.get("isError"), result

        def failure():
            assert self.call(url, plan["tool"], plan["bad_arguments"])["isError"] is True

        def takeover():
            on_waiting(lambda: None)
            found = self.call(url, plan["away_tool"], {"still": "here"})["structuredContent"]
            assert found == {"still": "here"}, found

        yield check("tools/list", listed)
        yield check("tools/list without a session", listed, "--protocol-era", "modern")
        yield check("structured result", structured)
        yield check("a call that tells of its progress", long_call)
        yield check("a failure is a result", failure)
        yield check("a call before the gateway is killed and one after", takeover)

    def lost(self, plan, url, on_waiting):
        killed = threading.Thread(target=on_waiting, args=[lambda: None])
        killed.start()
        for name, tool in (("call", plan["slow_tool"]), ("next", "list_dcc_instances")):
            try:
                self.call(url, tool, {})
                yield f"fact {name} answered"
            except RuntimeError as error:
                yield f"fact {name} {error}"
            killed.join()


def check(name, step, *arguments):
    try:
        step(*arguments)
    except Exception as error:  # noqa: BLE001 - every failure is a line, and the next check goes on
        return f"not ok {name}: {type(error).__name__}: {error}"
    return f"ok {name}"


def node():
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
    shim = ROOT / "tests" / "conformance" / "node20.mjs"
    return ["node"] if int(version.strip("v\n").split(".")[0]) >= 22 else ["node", "--import", str(shim)]


def clients():
    for name in ("python-1", "python-2", "fastmcp-2", "fastmcp-4"):
        package, version = (HERE / f"{name}.txt").read_text().strip().split("==")
        yield Client(package, version, CLIENTS / name / "bin" / "python", HERE / "client.py")
    pins = json.loads((HERE / "node.json").read_text())["dependencies"]
    for name in ("sdk", "client"):
        package = f"@modelcontextprotocol/{name}"
        yield Client(package, pins[package], "node", HERE / "client.mjs", name)
    pin = re.search(r'rmcp = \{ version = "=([^"]+)"', (HERE / "rmcp" / "Cargo.toml").read_text())
    yield Client("rmcp", pin[1], target() / "debug" / "dcc-mcp-rmcp-client")
    yield Inspector(json.loads((HERE / "inspector.json").read_text())["dependencies"][INSPECTOR])


def write_skill(folder, name, script):
    (folder / name / "scripts").mkdir(parents=True)
    (folder / name / "SKILL.md").write_text(f"---\nname: {name}\ndescription: for a test of clients\n---\n")
    (folder / name / "scripts" / "run.sh").write_text(script)


def take_over(world, instance, skill, clock, tell):
    """Kills the gateway and tells; once another process answers in its place, loads a skill on an instance directly."""
    world.kill(world.gateway())
    clock.append(time.monotonic())
    tell()
    until("another process answers", world.instances)
    call_tool(world.entry(instance)["port"], "load_skill", {"skill_name": skill})


def kill_while_it_runs(world, note, _tell):
    """Kills the gateway once the slow tool says that it runs."""
    until("the slow tool runs", note.exists)
    world.kill(world.gateway())
    until("another process answers", world.instances)


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


class Bench:
    """The servers that all clients meet, one after the other."""

    def __init__(self, world, count):
        self.world = world
        self.paged = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Paged)
        threading.Thread(target=self.paged.serve_forever, daemon=True).start()
        late, self.note = world.folder / "late", world.folder / "running"
        for number in range(count):
            for name in (f"late{number}", f"late{number}-away"):
                write_skill(late, name, "cat\n")
        write_skill(late, "slow", f"touch {self.note}\nsleep 5\n")
        world.start("--dcc", "generic")
        loaded = ["--skill-paths", str(SKILLS), "--load-skills", "mesh-tools,render-preview"]
        self.maya = world.start("--dcc", "maya", *loaded, competes=False)
        self.blender = world.start(
            "--dcc", "blender", "--skill-paths", str(late), "--load-skills", "slow", competes=False
        )

    def run(self, client, number):
        """The lines of all parts of one client; what it was seen to do is in its facts."""
        skill, clock = f"late{number}", []
        plan = self.plan(skill)
        paged = plan | {"url": f"http://127.0.0.1:{self.paged.server_address[1]}/mcp"}
        away = functools.partial(take_over, self.world, self.blender, f"{skill}-away", clock)
        killed = functools.partial(kill_while_it_runs, self.world, self.note)
        self.note.unlink(missing_ok=True)
        for part, its_plan, on_waiting in (("pages", paged, None), ("checks", plan, away), ("lost", plan, killed)):
            if on_waiting:
                self.world.start("--dcc", "generic")  # the standby of this part
                self.world.wait_instances(4)
            for line in client.run(its_plan, part, on_waiting):
                if line.startswith("fact "):
                    self.note_fact(client, *line.split(" ", 2)[1:], clock)
                elif part != "lost":
                    client.facts |= {"elicitation": "yes"} if line == "ok elicitation" else {}
                    yield line
                elif line.startswith("not ok end"):
                    client.facts = {"call": "lost"} | client.facts | {"next": "the client has ended"}

    def plan(self, skill):
        frames = self.world.folder / skill
        render = {"file": str(MODEL), "folder": str(frames), "frames": 3, "size": 16}
        return {
            "url": f"http://127.0.0.1:{self.world.gateway_port}/mcp",
            "modules": str(CLIENTS / "node"),
            "tool": f"{self.maya[:8]}__mesh_tools__inspect_obj",
            "arguments": {"file": str(MODEL)},
            "bad_arguments": {"file": str(self.world.folder / "no-such-file.obj")},
            "expected": {"vertices": 8, "triangles": 12},
            "render_tool": f"{self.maya[:8]}__render_preview__turntable",
            "render": render | {"overwrite": True},
            "render_again": render,
            "load": {"skill_name": skill, "instance_id": self.blender},
            "new_tool": f"{self.blender[:8]}__{skill}__run",
            "away_tool": f"{self.blender[:8]}__{skill}_away__run",
            "slow_tool": f"{self.blender[:8]}__slow__run",
        }

    @staticmethod
    def note_fact(client, name, value, clock):
        if name == "told":
            value = f"{time.monotonic() - clock[0]:.1f} s"
        elif name == "pages":
            value = {"2": "no", "4": "yes"}.get(value, value)
        elif name in ("call", "next") and value != "answered":
            value = f"lost ({re.split('[:{]', value)[0].strip()})"
        client.facts[name] = value


def table(all_facts):
    rows = [list(COLUMNS.values()), ["---"] * len(COLUMNS)]
    rows += [[cell(facts.get(name, "–")) for name in COLUMNS] for facts in all_facts]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def cell(text):
    text = re.sub(r"\s+", " ", text).replace("|", "\\|")
    return text if len(text) <= 50 else text[:49] + "…"


def disagreements(all_facts):
    """Clients whose row of the page says another version or revision, or that have none."""
    page = (ROOT / "docs" / "clients.md").read_text()
    rows = {tuple(words.strip() for words in line.split("|")[1:4]) for line in page.splitlines() if line.startswith("|")}
    seen = [tuple(facts.get(name, "–") for name in ("client", "version", "revision")) for facts in all_facts]
    return [f"{' '.join(row)} was seen, which the page does not say" for row in seen if row not in rows]


def main():
    options = {word for word in sys.argv[1:] if word.startswith("--")}
    chosen = [client for client in clients() if not (set(sys.argv[1:]) - options) or client.name in sys.argv[1:]]
    passed = failed = 0
    with World(target() / "debug" / "dcc-mcp-server") as world:
        bench = Bench(world, len(chosen))
        for number, client in enumerate(chosen):
            for line in bench.run(client, number):
                print(f"{client.name} {client.version}: {line}", flush=True)
                passed, failed = (passed + 1, failed) if line.startswith("ok ") else (passed, failed + 1)
    all_facts = [client.facts for client in chosen]
    if "--table" in options:
        print(table(all_facts))
    else:
        for fault in disagreements(all_facts):
            print(f"not ok docs/clients.md: {fault}")
            failed += 1
    print(f"clients: {passed} passed, {failed} failed")
    return 0 if failed == 0 and passed else 1


sys.exit(main())
