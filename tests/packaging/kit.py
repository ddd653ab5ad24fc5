"""What the tests of packaging share: packages by name, blocks of the guides, clients that count what failed, beds.

Standard library only. Every test module runs as root in namespaces of its own (`apart.py`), so that well-known ports and the
addresses of the shipped files can be used as they are, and nothing is left behind.
"""

import contextlib
import http.client
import json
import os
import pathlib
import re
import select
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import textwrap
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
import world  # noqa: E402

TARGET = world.target().resolve()
DIST = TARGET / "dist"
PROGRAM = DIST / "dcc-mcp-server"
CACHE = TARGET / "packaging"
SCRATCH = os.environ.get("DCC_MCP_PACKAGING_FOLDER", "")  # of this module: what it writes is below it
VERSION = re.search(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.M)[1]
until = world.until


@contextlib.contextmanager
def group(command, **more):
    """A process that leads a group of its own, and is killed with it where it is left early."""
    process = subprocess.Popen(list(map(str, command)), start_new_session=True, **more)
    try:
        yield process
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        raise
    finally:
        process.wait(30)


def bounded(command, seconds, **more):
    """Runs a command that may take this long; gives its exit code."""
    with group(command, **more) as process:
        return process.wait(seconds)


def run(*command, check=True, timeout=300, env=None, cwd=None):
    """Runs a command; gives its output, both streams. With a list it is run as it is, a text by bash -e."""
    words = ["bash", "-euo", "pipefail", "-c", command[0]] if len(command) == 1 else list(map(str, command))
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with group(words, text=True, cwd=cwd, env=os.environ | (env or {}), **pipes) as process:
        told, _ = process.communicate(timeout=timeout)
    if check and process.returncode != 0:
        raise RuntimeError(f"{' '.join(words)[:300]} ended with {process.returncode}:\n{told[-3000:]}")
    return told


def free_address(address):
    """Gives the loopback device of this namespace one more address."""
    run("ip", "addr", "replace", f"{address}/32", "dev", "lo")


def cover(folder):
    """An empty folder in memory over one of the system, in this mount namespace; the sources and what is built from them
    are not hidden by it."""
    pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    kept = {path: os.open(path, os.O_PATH) for path in (ROOT, TARGET) if path.is_relative_to(folder)}
    run("mount", "-t", "tmpfs", "-o", "mode=1777" if folder == "/tmp" else "mode=755", "tmpfs", folder)
    for path, descriptor in kept.items():
        path.mkdir(parents=True, exist_ok=True)
        # As it is: the name behind it leads to what is empty now.
        run("mount", "--no-canonicalize", "--bind", f"/proc/{os.getpid()}/fd/{descriptor}", path)
        os.close(descriptor)


def lay_over(folder):
    """What is written to this folder from now on is seen in this mount namespace alone. Gives what takes it away again."""
    room = Folder()
    run("mount", "-t", "tmpfs", "tmpfs", room.path)
    for name in ["upper", "work"]:
        (room / name).mkdir()
    run("mount", "-t", "overlay", "overlay", "-o", f"lowerdir={folder},upperdir={room / 'upper'},workdir={room / 'work'}", folder)
    return lambda: (run("umount", "-l", folder), run("umount", "-l", room.path), room.remove())


# ---- guides ---------------------------------------------------------------------------------------------------------

GUIDES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"<!-- run: ([^\n]*?) -->\n *```\w+\n(.*?)^ *```", re.S | re.M)
USED = pathlib.Path(SCRATCH).parent / "used"  # the names of blocks that any module has run


def block(name):
    """The text of the fenced block with this name in the guides, and a note that it was run."""
    for guide in GUIDES:
        for found, text in BLOCK.findall(guide.read_text()):
            if found == name:
                with open(USED, "a") as notes:
                    notes.write(f"{name}\n")
                return textwrap.dedent(text)
    raise KeyError(f"no guide has a block named {name}")


# ---- processes ------------------------------------------------------------------------------------------------------


class Processes:
    """Children that end with the test, each by its own pid."""

    def __init__(self):
        self.all = []

    def start(self, *command, env=None, log=None, cwd=None):
        clean = {name: value for name, value in os.environ.items() if not name.startswith("DCC_MCP_")}
        out = open(log, "ab") if log else subprocess.DEVNULL
        process = subprocess.Popen(
            list(map(str, command)), stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=clean | (env or {}), cwd=cwd
        )
        if log:
            out.close()
        self.all.append(process)
        return process

    def stop(self):
        for process in reversed(self.all):
            if process.poll() is None:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(30)
            if process.poll() is None:
                process.kill()
                process.wait()
        self.all = []


class Folder:
    """A folder of its own that goes away."""

    def __init__(self):
        self.path = pathlib.Path(tempfile.mkdtemp(dir=SCRATCH))

    def __truediv__(self, name):
        return self.path / name

    def remove(self):
        shutil.rmtree(self.path, ignore_errors=True)


# ---- clients --------------------------------------------------------------------------------------------------------


class Client:
    """One MCP client of one URL, http or https; it raises whatever a real one would meet."""

    def __init__(self, url, source=None, token=None, timeout=30):
        scheme, rest = url.split("://")
        authority, _, path = rest.partition("/")
        self.path = "/" + path
        host, _, port = authority.partition(":")
        source = (source, 0) if source else None
        if scheme == "https":
            trust = ssl._create_unverified_context()
            self.wire = http.client.HTTPSConnection(host, int(port or 443), timeout=timeout, context=trust, source_address=source)
        else:
            self.wire = http.client.HTTPConnection(host, int(port or 80), timeout=timeout, source_address=source)
        self.headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
        if token:
            self.headers["Authorization"] = f"Bearer {token}"
        self.ids = 0

    def post(self, message):
        self.leave_a_closed_connection()
        self.wire.request("POST", self.path, json.dumps(message), self.headers)
        reply = self.wire.getresponse()
        body = reply.read()
        if reply.status not in (200, 202):
            raise RuntimeError(f"status {reply.status}: {body[:200]!r}")
        if reply.headers.get_content_type() == "text/event-stream":
            data = [line[6:] for line in body.decode().splitlines() if line.startswith("data: {")]
            body = data[-1].encode()
        return reply, json.loads(body) if body else None

    def leave_a_closed_connection(self):
        """As the HTTP clients of the official SDKs do before they use a connection again: closed meanwhile, open another."""
        if self.wire.sock and select.select([self.wire.sock], [], [], 0)[0]:
            self.wire.close()

    def request(self, method, params=None):
        self.ids += 1
        reply, answer = self.post({"jsonrpc": "2.0", "id": self.ids, "method": method, "params": params or {}})
        if "result" not in answer:
            raise RuntimeError(f"{method}: {answer}")
        return reply, answer["result"]

    def open(self):
        params = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "tests", "version": "1"}}
        reply, _ = self.request("initialize", params)
        self.headers["Mcp-Session-Id"] = reply.headers["Mcp-Session-Id"]
        self.headers["MCP-Protocol-Version"] = "2025-06-18"
        self.post({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return self

    def tools(self):
        return [tool["name"] for tool in self.request("tools/list")[1]["tools"]]

    def call(self, name, **arguments):
        result = self.request("tools/call", {"name": name, "arguments": arguments})[1]
        if result.get("isError"):
            raise RuntimeError(f"{name}: {result['content'][0]['text'][:300]}")
        return result

    def close(self):
        self.wire.close()


def get(url, source=None, timeout=5, headers=None):
    """Status and body of a GET, or (None, b"")."""
    client = Client(url, source, timeout=timeout)
    try:
        client.wire.request("GET", client.path, headers=headers or {})
        reply = client.wire.getresponse()
        return reply.status, reply.read()
    except OSError:
        return None, b""
    finally:
        client.close()


class Load:
    """Clients that call a tool without a pause, each in one session from start to end; every call that was not answered
    well counts. As real clients do, they never open a second session, and never ask twice."""

    def __init__(self, url, tool, clients=6, **arguments):
        self.url, self.tool, self.arguments = url, tool, arguments
        self.calls, self.failures, self.lock = 0, [], threading.Lock()
        self.ended = threading.Event()
        self.threads = [threading.Thread(target=self.work, args=(number,)) for number in range(clients)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        until("every client was answered", lambda: self.calls >= len(self.threads) or self.failures)
        return self

    def __exit__(self, *_):
        self.ended.set()
        for thread in self.threads:
            thread.join()

    def work(self, number):
        client = None
        while not self.ended.is_set():
            try:
                if client is None:
                    client = Client(self.url).open()
                if self.calls % 7 == number:
                    client.wire.close()  # the next request opens a new connection, in the same session
                client.call(self.tool, **self.arguments)
                with self.lock:
                    self.calls += 1
            except Exception as error:  # whatever it is, a client met it
                with self.lock:
                    self.failures.append(f"{time.strftime('%X')} {type(error).__name__}: {error}")
                if client:
                    client.wire.close()
                self.ended.wait(0.05)
        if client:
            client.close()

    def during(self, seconds):
        """Goes on for this long, and until a call was answered; gives how many were."""
        before = self.calls
        time.sleep(seconds)
        until("calls are answered", lambda: self.calls > before)
        return self.calls - before


class Stream:
    """A GET event stream, read line by line as it comes."""

    def __init__(self, client):
        self.client = client
        headers = {**client.headers, "Accept": "text/event-stream"}
        client.wire.request("GET", client.path, headers=headers)
        self.reply = client.wire.getresponse()
        self.lines = []
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
            for line in self.reply:
                self.lines.append((time.monotonic(), line.decode().rstrip()))

    def has(self, text):
        return next((at for at, line in self.lines if text in line), None)


# ---- replicas -------------------------------------------------------------------------------------------------------

SKILLS = ROOT / "docs/examples/skills"


class Replicas:
    """Gateways at addresses of their own, as on hosts of their own, with one registry, and one instance with real skills."""

    def __init__(self, *addresses):
        self.folder = Folder()
        self.registry = self.folder / "registry"
        self.processes = Processes()
        self.running = {}
        self.addresses = addresses
        for address in addresses:
            free_address(address)

    def start(self, address, program=PROGRAM, flags=()):
        log = self.folder / f"{address}.log"
        # What a test mounts in the namespace of this process, it sees alone.
        command = ["unshare", "--mount", program, "--host", address, "--registry-dir", self.registry, "--drain-timeout", "10", *flags]
        self.running[address] = self.processes.start(*command, log=log)
        self.wait_ready(address)
        return self.running[address]

    def wait_ready(self, address):
        def ready():
            assert self.running[address].poll() is None, (self.folder / f"{address}.log").read_text()
            return get(f"http://{address}:9765/readyz", timeout=2)[0] == 200

        until(f"{address} is ready", ready)

    def start_instance(self, name="maya", program=PROGRAM, host="127.0.0.1"):
        command = [program, "--host", host, "--registry-dir", self.registry, "--gateway-port", "0", "--dcc", name]
        command += ["--skill-paths", SKILLS, "--load-skills", "all"]
        process = self.processes.start(*command, log=self.folder / f"{name}.log")
        until(f"{name} is registered", lambda: self.entry_of(name))
        return process

    def entry_of(self, name):
        for file in (self.registry / "instances").glob("*.json"):
            with contextlib.suppress(ValueError, OSError):
                entry = json.loads(file.read_text())
                if entry["dcc_type"] == name:
                    return entry
        return None

    def tool(self, address, suffix="check_names"):
        """The published name of an instance's tool, once this replica shows it."""

        def find():
            return next((name for name in Client(f"http://{address}:9765/mcp").open().tools() if name.endswith(suffix)), None)

        return until(f"{suffix} is listed at {address}", find)

    def kill(self, address):
        process = self.running.pop(address)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def drain(self, address):
        """SIGTERM, and waits for the end; gives the exit code."""
        process = self.running.pop(address)
        process.terminate()
        return process.wait(30)

    def remove(self):
        self.processes.stop()
        self.folder.remove()
