"""Clients that go on by themselves until they are left, and one that notes whenever somebody who must be listed is not."""

import http.client
import json
import threading
import time

from world import PATIENCE, open_session

# What a request can end with when a server is gone, in trouble, or answers nonsense.
TROUBLES = (OSError, http.client.HTTPException, ValueError, KeyError)


def ask(address, path, body=None, headers=None, timeout=5):
    """Status and JSON of one request on a connection of its own."""
    connection = http.client.HTTPConnection(*address, timeout=timeout)
    try:
        connection.request("POST" if body else "GET", path, json.dumps(body) if body else None, headers or {})
        reply = connection.getresponse()
        text = reply.read()
        return reply.status, json.loads(text) if text else None
    finally:
        connection.close()


class Client:
    """An MCP client that opens a connection for each request, and keeps its session whoever answers."""

    def __init__(self, address):
        self.address, self.session = address, None

    def request(self, method, params, timeout=5):
        if self.session is None:
            host, port = self.address
            self.session = open_session(port, host, timeout)
        if self.session is None:
            raise ValueError("initialize gives no session")
        headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
        headers["Mcp-Session-Id"] = self.session
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        status, answer = ask(self.address, "/mcp", body, headers, timeout)
        if status != 200 or "result" not in answer:
            raise ValueError(f"{method}: {status} {answer}")
        return answer["result"]

    def call(self, tool, arguments, timeout=5):
        result = self.request("tools/call", {"name": tool, "arguments": arguments}, timeout)
        if result.get("isError"):
            raise ValueError(f"{tool}: {result['content']}")
        return result

    def tools(self, timeout=5):
        return [tool["name"] for tool in self.request("tools/list", {}, timeout)["tools"]]


class Repeating:
    """Does things again and again, each in a thread of its own, until it is left.

    One that fails in a way nobody thought of, or does not end in time, makes leaving fail: it must not fall silent."""

    def __init__(self):
        self.ended, self.threads, self.broken = threading.Event(), [], []

    def repeat(self, pause, deed, *words):
        self.threads.append(threading.Thread(target=self.go_on, args=[pause, deed, words], daemon=True))

    def go_on(self, pause, deed, words):
        try:
            while not self.ended.wait(pause):
                deed(*words)
        except Exception as error:  # noqa: BLE001 - told by the one who leaves
            self.broken.append(error)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        end = time.monotonic() + PATIENCE
        for thread in self.threads:
            thread.join(max(0, end - time.monotonic()))
        if self.broken:
            raise self.broken[0]
        if any(thread.is_alive() for thread in self.threads):
            raise TimeoutError(f"a client does not end in {PATIENCE} s")


class Watch(Repeating):
    """Asks `/instances` and calls `tool` again and again until it is left."""

    def __init__(self, port, must, tool=None):
        super().__init__()
        self.address, self.must, self.tool = ("127.0.0.1", port), set(must), tool
        self.lost, self.failed, self.looks, self.calls, self.shown = [], [], 0, 0, set()
        self.client = Client(self.address)
        self.repeat(0.05, self.look)
        if tool:
            self.repeat(0.1, self.use)

    def look(self):
        must = set(self.must)
        try:
            _, answer = ask(self.address, "/instances")
        except (OSError, http.client.HTTPException) as error:
            self.failed.append(f"/instances: {error!r}")
            return
        self.shown = {instance["instance_id"] for instance in answer["instances"]}
        self.looks += 1
        self.lost += [(round(time.monotonic(), 1), missing[:8]) for missing in must - self.shown]

    def use(self):
        try:
            self.client.call(self.tool, {"text": "x"})
            self.calls += 1
        except TROUBLES as error:
            self.failed.append(f"call: {error!r}")
