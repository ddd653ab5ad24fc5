"""`make bench`: what the gateway costs, side by side with nginx before the same stub server, in one run.

In the tables `ours` is the release build, `dist` what `make dist` hands out, built for size, `tiny_http` the other engine.
Rounds are interleaved and medians are shown, so that a machine that is busy now and then does not favour anybody.
A run in which one answer was not the right one is no result: it ends the benchmark. Standard library only.
"""

import contextlib
import http.client
import json
import os
import pathlib
import resource
import shutil
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
import streams  # noqa: E402
from world import ROOT, World, build, free_port, get, open_session, process_status, resident, target, until  # noqa: E402

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
SECONDS = int(os.environ.get("BENCH_SECONDS", "4"))
WARM_UP = 1  # seconds before the first round of each measurement
CONNECTIONS = (1, 16, 64)
STARTS = 20
HEADERS = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}

NGINX = """
worker_processes auto;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    keepalive_requests 1000000000;
    upstream stub {{ server 127.0.0.1:{upstream}; keepalive 128; keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass http://stub; proxy_http_version 1.1; proxy_set_header Connection ""; }}
    }}
}}
"""


class Target:
    """What is measured: a port, the body that is posted there, and the answer that must come."""

    def __init__(self, name, port, method, params, session=""):
        self.name, self.port, self.session = name, port, session
        self.body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        self.size = None

    def check(self):
        """One request whose answer is looked at; gives the result."""
        headers = dict(HEADERS)
        if self.session:
            headers |= {"Mcp-Session-Id": self.session, "MCP-Protocol-Version": "2025-06-18"}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("POST", "/mcp", self.body, headers)
        reply = connection.getresponse()
        text = reply.read()
        connection.close()
        assert reply.status == 200, f"{self.name}: {reply.status} {text[:300]}"
        message = json.loads(text)
        assert message.get("id") == 1 and "result" in message, f"{self.name}: {text[:300]}"
        assert message["result"].get("isError") is not True, f"{self.name}: {text[:300]}"
        self.size = len(text)
        return message["result"]

    def load(self, connections, seconds):
        """Requests/s, p50 and p99 (µs) of one run of wrk."""
        environment = os.environ | {"BENCH_BODY": self.body, "BENCH_SESSION": self.session}
        threads = min(2, connections)
        command = ["wrk", f"-t{threads}", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", HERE / "post.lua"]
        command = [str(part) for part in command] + [f"http://127.0.0.1:{self.port}/mcp"]
        output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        line = next(line for line in output.splitlines() if line.startswith("BENCH "))
        seen = json.loads(line.removeprefix("BENCH "))
        assert seen["errors"] == 0, f"{self.name}: {seen['errors']} errors\n{output}"
        assert seen["bytes"] > seen["requests"] * self.size, f"{self.name}: answers shorter than the right one"
        return seen["requests"] / seen["seconds"], seen["p50"], seen["p99"]


def measure(targets, connection_counts):
    """{(connections, name): (requests/s, p50, p99)}, medians over interleaved rounds."""
    samples = {}
    for one in targets:
        one.check()
        one.load(16, WARM_UP)
    for _ in range(ROUNDS):
        for connections in connection_counts:
            for one in targets:
                samples.setdefault((connections, one.name), []).append(one.load(connections, SECONDS))
    for one in targets:
        one.check()
    return {key: tuple(map(statistics.median, zip(*runs))) for key, runs in samples.items()}


def install():
    packages = [package for command, package in (("nginx", "nginx-light"), ("wrk", "wrk")) if not shutil.which(command)]
    if packages:
        print(f"installing {' '.join(packages)}", flush=True)
        sudo = [] if os.geteuid() == 0 else ["sudo"]
        subprocess.run([*sudo, "apt-get", "update", "-qq"], check=False)
        subprocess.run([*sudo, "apt-get", "install", "-y", "-qq", *packages], check=True, stdout=subprocess.DEVNULL)


def start_nginx(world, upstream):
    port, folder = free_port(), world.folder / "nginx"
    folder.mkdir()
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=port, upstream=upstream))
    command = ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]
    world.processes.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
    until("nginx answers", lambda: get(port, "/health")[0] == 200)
    return port


def calls(programs, stub):
    """Builds of the gateway by name, each with a stub of its own; nginx stands before that of the first."""
    tool, arguments = "geometry__create_00", {"name": "cube", "size": 2}
    plain = {"name": tool, "arguments": arguments}
    with contextlib.ExitStack() as worlds:
        targets = []
        for name, program in programs.items():
            world = worlds.enter_context(World(program))
            [(instance, stub_port)] = world.start_stub(stub, 1)
            if not targets:
                targets.append(Target("direct", stub_port, "tools/call", plain))
                targets.append(Target("nginx", start_nginx(world, stub_port), "tools/call", plain))
            world.start("--dcc", "generic")
            world.wait_instances(2)
            port = world.gateway_port
            through = plain | {"name": f"{instance[:8]}__{tool}"}
            targets.append(Target(name, port, "tools/call", through, open_session(port)))
            until("the stub's tool can be called", lambda: callable_now(targets[-1]))
        results = [one.check() for one in targets]
        assert all(result == results[0] for result in results), "all give the same result"
        figures = measure(targets, CONNECTIONS)
    print(f"\ntools/call, median of {ROUNDS} rounds of {SECONDS} s")
    print(f"{'connections':>11} {'':9} {'requests/s':>11} {'p50 µs':>8} {'p99 µs':>8} {'rate : nginx':>13} {'p50 : nginx':>12}")
    for connections in CONNECTIONS:
        base = figures[connections, "nginx"]
        for name in [one.name for one in targets]:
            rate, p50, p99 = figures[connections, name]
            ratios = f"{rate / base[0]:13.2f} {p50 / base[1]:12.2f}"
            print(f"{connections:11} {name:9} {rate:11,.0f} {p50:8.0f} {p99:8.0f} {ratios}")
    for connections in (16, 64):
        rate = figures[connections, "ours"][0] / figures[connections, "nginx"][0]
        mark(rate >= 1, f"at {connections} connections at least nginx's rate")
    mark(figures[1, "ours"][1] <= figures[1, "nginx"][1] + 10, "at 1 connection a p50 of at most nginx's and 10 µs")
    mark(figures[64, "ours"][2] < figures[64, "nginx"][2], "at 64 connections a p99 below nginx's")


def callable_now(one):
    try:
        return one.check()
    except AssertionError:
        return None


def lists(program, stub):
    print(f"\ntools/list through the gateway, median of {ROUNDS} rounds of {SECONDS} s, 16 connections")
    print(f"{'instances':>11} {'tools':>8} {'bytes':>9} {'requests/s':>11} {'p50 µs':>8} {'p99 µs':>8}")
    for instances in (1, 50):
        with World(program) as world:
            world.start_stub(stub, instances)
            world.start("--dcc", "generic")
            world.wait_instances(instances + 1)
            one = Target("tools/list", world.gateway_port, "tools/list", {}, open_session(world.gateway_port))
            wanted = instances * 10

            def complete():
                names = [tool["name"] for tool in one.check()["tools"]]
                return len([name for name in names if "__geometry__" in name]) == wanted and len(names)

            count = until("all tools are listed", complete)
            rate, p50, p99 = measure([one], (16,))[16, "tools/list"]
            print(f"{instances:11} {count:8} {one.size:9,} {rate:11,.0f} {p50:8.0f} {p99:8.0f}")
    mark(rate >= 100 * 130, "with 50 instances at least 100 times 130 requests/s")


def many(program, stub):
    print(f"\n{streams.COUNT} connections that do nothing")
    weight, first, spread = streams.told(program, stub)
    print(f"  memory of each idle connection      {streams.idle(program):8.1f} KiB")
    print(f"  memory of each event stream         {weight:8.1f} KiB")
    print(f"  a change until the first is told    {first * 1e3:8.1f} ms (median of {streams.CHANGES}; half a second of it is the registry's scan)")
    print(f"  from the first told to the last     {spread * 1e3:8.1f} ms (median of {streams.CHANGES})")
    mark(spread <= 0.2, "all streams told within 200 ms")


def process(program, dist):
    print("\nprocess")
    with World(program) as world:
        times = []
        for _ in range(STARTS):
            port = free_port()
            command = [str(program), "--mcp-port", str(port), "--gateway-port", "0", "--registry-dir", str(world.registry)]
            start = time.perf_counter()
            child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while get(port, "/health")[0] != 200:
                assert time.perf_counter() - start < 10, "it answers within 10 s"
            times.append(time.perf_counter() - start)
            child.terminate()
            child.wait(timeout=10)
        print(f"  start to the first 200 on /health   {statistics.median(times) * 1e3:8.1f} ms (median of {STARTS}, worst {max(times) * 1e3:.1f})")
        world.start("--dcc", "generic")
        world.wait_instances(1)
        time.sleep(1)
        pid = world.processes[-1].pid
        print(f"  resident memory, idle gateway       {resident(pid):8.1f} MiB")
        print(f"  threads, idle gateway               {process_status(pid)['Threads']:>8}")
    print(f"  release binary, stripped            {program.stat().st_size / 1e6:8.2f} MB")
    print(f"  what make dist hands out            {dist.stat().st_size / 1e6:8.2f} MB")
    command = ["cargo", "tree", "--locked", "-e", "normal", "--prefix", "none"]
    tree = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    crates = len(set(tree.splitlines()))
    print(f"  crates, with this one               {crates:8}")
    mark(crates <= 40, "at most 40 crates")


def mark(reached, what):
    print(f"  {'reached' if reached else 'MISSED '}  {what}")


def main():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    install()
    folder = build("stub")
    program, stub = folder / "dcc-mcp-server", folder / "examples" / "stub"
    tiny = build(features=["tiny-http"], folder=target() / "tiny-http") / "dcc-mcp-server"
    subprocess.run([ROOT / "packaging" / "dist.sh"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    dist = target() / "dist" / "dcc-mcp-server"
    print(f"on {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; figures are for comparison within this run only")
    calls({"ours": program, "dist": dist, "tiny_http": tiny}, stub)
    lists(program, stub)
    many(program, stub)
    process(program, dist)


main()
