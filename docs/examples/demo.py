"""`make demo`: several instances, one endpoint.

Starts a gateway and two example instances with real skills, shows what `/instances` and `tools/list` tell, and has a tool
call answered through the one endpoint. Then it stops everything, unless `--keep` is given. Standard library only.
"""

import argparse
import http.client
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import textwrap
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
SKILLS = ROOT / "docs" / "examples" / "skills"
MODEL = ROOT / "docs" / "examples" / "files" / "cube.obj"
PATIENCE = 15  # seconds
LOG = "demo.log"


def say(text=""):
    print(text, flush=True)


def start(program, registry, port, *args):
    """One process of the program; its log goes to a file beside the registry."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DCC_MCP_")}
    fixed = ["--registry-dir", str(registry), "--gateway-port", str(port), "--skill-paths", str(SKILLS)]
    with open(registry.parent / LOG, "ab") as log:
        return subprocess.Popen([str(program), *fixed, *args], stdout=log, stderr=log, env=clean)


def choose_port():
    """The well-known port, or any other where somebody has that one."""
    for port in (9765, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return probe.getsockname()[1]
    raise SystemExit("no free port on 127.0.0.1")


def instances(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/instances")
        reply = connection.getresponse()
        return json.loads(reply.read())["instances"] if reply.status == 200 else []
    except OSError:
        return []
    finally:
        connection.close()


def wait_for(count, port, processes, log):
    end = time.monotonic() + PATIENCE
    while len(listed := instances(port)) < count:
        ended = [process for process in processes if process.poll() is not None]
        if ended or time.monotonic() > end:
            raise SystemExit(f"only {len(listed)} of {count} instances are there:\n{log.read_text()}")
        time.sleep(0.05)
    return listed


def wait_for_tool(client, ending):
    """All tools, and the name of the first that ends so, as soon as there is one."""
    end = time.monotonic() + PATIENCE
    while True:
        tools = client.request("tools/list", {})["tools"]
        for tool in tools:
            if tool["name"].endswith(ending):
                return tools, tool["name"]
        if time.monotonic() > end:
            raise SystemExit(f"no tool *{ending} is listed")
        time.sleep(0.05)


class Client:
    """The smallest MCP client: one connection, answers as JSON or as a stream of events."""

    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self.session = None
        self.last_id = 0
        hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "demo", "version": "1"}}
        self.server = self.request("initialize", hello)["serverInfo"]
        self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def request(self, method, params):
        self.last_id += 1
        message = self.send({"jsonrpc": "2.0", "id": self.last_id, "method": method, "params": params})
        if "error" in message:
            raise SystemExit(f"{method}: {message['error']['message']}")
        return message["result"]

    def send(self, message):
        headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
        if self.session:
            headers |= {"Mcp-Session-Id": self.session, "MCP-Protocol-Version": "2025-06-18"}
        self.connection.request("POST", "/mcp", json.dumps(message), headers)
        reply = self.connection.getresponse()
        text = reply.read().decode()
        self.session = reply.headers.get("Mcp-Session-Id", self.session)
        if reply.headers.get("Content-Type", "").startswith("text/event-stream"):
            events = [line[5:].strip() for line in text.splitlines() if line.startswith("data:") and line[5:].strip()]
            return json.loads(events[-1])
        return json.loads(text) if text else {}


def show_instances(port, listed):
    say(f"\nGET http://127.0.0.1:{port}/instances")
    for entry in listed:
        gateway = "   <- serves the gateway port" if entry.get("gateway") else ""
        scene = entry.get("scene") or ""
        say(f"  {entry['instance_id'][:8]}  {entry['dcc_type']:8} {entry['mcp_url']:32} {scene}{gateway}")


def show_tools(tools):
    say(f"\ntools/list at http://…/mcp: {len(tools)} tools, those of the instances are")
    for tool in tools:
        if "__" in tool["name"]:
            say(f"  {tool['name']:42} {textwrap.shorten(tool.get('description', ''), 70, placeholder=' …')}")


def show_call(client, tool, arguments):
    say(f"\ntools/call {tool} {json.dumps(arguments)}")
    result = client.request("tools/call", {"name": tool, "arguments": arguments})
    shown = result.get("structuredContent") or result["content"]
    say("\n".join("  " + line for line in json.dumps(shown, indent=2).splitlines()))
    if result.get("isError"):
        raise SystemExit("the call failed")


def stop(processes):
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def main():
    parser = argparse.ArgumentParser(description="several instances, one endpoint")
    parser.add_argument("--keep", action="store_true", help="leave the servers running until Ctrl-C")
    parser.add_argument("--port", type=int, help="the gateway port (9765, or any free one when that is taken)")
    options = parser.parse_args()
    program = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug" / "dcc-mcp-server"

    with tempfile.TemporaryDirectory(prefix="dcc-mcp-demo-") as folder:
        folder = pathlib.Path(folder)
        registry, port = folder / "registry", options.port or choose_port()
        processes = []
        try:
            say("starting a gateway and two example instances")
            processes.append(start(program, registry, port, "--dcc", "generic", "--display-name", "gateway"))
            wait_for(1, port, processes, folder / LOG)
            processes.append(start(program, registry, port, "--dcc", "maya", "--scene", "/shots/010.ma", "--load-skills", "mesh-tools"))
            processes.append(start(program, registry, port, "--dcc", "blender", "--scene", "/shots/020.blend", "--load-skills", "all"))
            show_instances(port, wait_for(3, port, processes, folder / LOG))

            client = Client(port)
            tools, name = wait_for_tool(client, "__mesh_tools__inspect_obj")
            show_tools(tools)
            show_call(client, name, {"file": str(MODEL)})
            say(f"\nThe answer came from {name[:8]}, through the one endpoint http://127.0.0.1:{port}/mcp.")
            if options.keep:
                say("Running until Ctrl-C.")
                processes[0].wait()
        except KeyboardInterrupt:
            say()
        finally:
            stop(processes)
            say("stopped")


if __name__ == "__main__":
    sys.exit(main())
