"""Looks at a gateway all the time, and notes whenever one that must be listed is not, or nobody answers."""

import http.client
import json
import threading
import time


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
        headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
        if self.session is None:
            self.session = self.open(headers, timeout)
        headers["Mcp-Session-Id"] = self.session
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        status, answer = ask(self.address, "/mcp", body, headers, timeout)
        if status != 200 or "result" not in answer:
            raise ValueError(f"{method}: {status} {answer}")
        return answer["result"]

    def open(self, headers, timeout):
        params = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "watch", "version": "1"}}
        connection = http.client.HTTPConnection(*self.address, timeout=timeout)
        try:
            body = json.dumps({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params})
            connection.request("POST", "/mcp", body, headers)
            reply = connection.getresponse()
            reply.read()
            return reply.headers["Mcp-Session-Id"]
        finally:
            connection.close()

    def call(self, tool, arguments, timeout=5):
        result = self.request("tools/call", {"name": tool, "arguments": arguments}, timeout)
        if result.get("isError"):
            raise ValueError(f"{tool}: {result['content']}")
        return result

    def tools(self, timeout=5):
        return [tool["name"] for tool in self.request("tools/list", {}, timeout)["tools"]]


class Watch:
    """Asks `/instances` and calls `tool` again and again until it is left."""

    def __init__(self, port, must, tool=None):
        self.address, self.must, self.tool = ("127.0.0.1", port), set(must), tool
        self.lost, self.failed, self.looks, self.calls, self.shown = [], [], 0, 0, set()
        self.ended = threading.Event()
        self.threads = [threading.Thread(target=self.look), threading.Thread(target=self.use)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        for thread in self.threads:
            thread.join()

    def look(self):
        while not self.ended.wait(0.05):
            must = set(self.must)
            try:
                _, answer = ask(self.address, "/instances")
            except (OSError, http.client.HTTPException) as error:
                self.failed.append(f"/instances: {error!r}")
                continue
            self.shown = {instance["instance_id"] for instance in answer["instances"]}
            self.looks += 1
            self.lost += [(round(time.monotonic(), 1), missing[:8]) for missing in must - self.shown]

    def use(self):
        client = Client(self.address)
        while self.tool and not self.ended.wait(0.1):
            try:
                client.call(self.tool, {"text": "x"})
                self.calls += 1
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.failed.append(f"call: {error!r}")
