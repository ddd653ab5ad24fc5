"""A proxy before the gateway's common endpoint that gives the tools, prompts and resources of one instance the names
they have there, since the suite asks for fixed names. Everything else passes as it is, streams event by event.

Standard library only.
"""

import http.client
import http.server
import json
import threading

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}
SILENCE = 60  # seconds; the server comments on its streams every 15


class NameMap:
    """The names of one instance as the gateway publishes them: `<short>__<name>` and `dcc://<instance>/<uri>`.

    The gateway's own tools have the names they have.
    """

    def __init__(self, instance, own_tools):
        self.own_tools = own_tools
        self.name_prefix = instance.replace("-", "")[:8] + "__"
        self.uri_prefix = f"dcc://{instance}/"

    def request(self, message):
        """A request of the suite as the gateway knows it."""
        params = message.get("params")
        if not isinstance(params, dict):
            return
        method = message.get("method")
        if method in ("tools/call", "prompts/get"):
            self._publish(params)
        elif method in ("resources/read", "resources/subscribe", "resources/unsubscribe"):
            self._publish(params)
        elif method == "completion/complete" and isinstance(params.get("ref"), dict):
            self._publish(params["ref"])
        elif method == "subscriptions/listen" and isinstance(params.get("notifications"), dict):
            uris = params["notifications"].get("resourceSubscriptions")
            if isinstance(uris, list):
                uris[:] = [self.uri_prefix + uri for uri in uris]

    def header(self, method, value):
        """The Mcp-Name header of a request; what says nothing sensible stays."""
        value = value.strip()
        if method in ("tools/call", "prompts/get") and value not in self.own_tools:
            return self.name_prefix + value
        return self.uri_prefix + value if method == "resources/read" else value

    def back(self, value):
        """What the gateway says, with the names of the instance."""
        if isinstance(value, str):
            for prefix in (self.name_prefix, self.uri_prefix):
                value = value.removeprefix(prefix)
            return value
        if isinstance(value, list):
            return [self.back(item) for item in value]
        if isinstance(value, dict):
            return {key: self.back(item) for key, item in value.items()}
        return value

    def _publish(self, holder):
        for member, prefix in (("name", self.name_prefix), ("uri", self.uri_prefix)):
            if isinstance(holder.get(member), str) and holder[member] not in self.own_tools:
                holder[member] = prefix + holder[member]


def own_tools(gateway_port):
    """The names of the gateway's own tools: those that no `<short>__` begins."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": meta}}
    headers = {
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": "tools/list",
    }
    gateway = http.client.HTTPConnection("127.0.0.1", gateway_port, timeout=SILENCE)
    gateway.request("POST", "/mcp", json.dumps(message), headers)
    tools = json.loads(gateway.getresponse().read())["result"]["tools"]
    gateway.close()
    return {tool["name"] for tool in tools if tool["name"][8:10] != "__"}


def start(gateway_port, instance):
    """Starts the proxy; gives its port."""
    names = NameMap(instance, own_tools(gateway_port))

    class Proxy(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            try:
                message = json.loads(body)
            except ValueError:
                message = None
            method = None
            if isinstance(message, dict):
                method = message.get("method")
                names.request(message)
                body = json.dumps(message).encode()
            self.forward(body, method)

        def do_GET(self):
            self.forward(None, None)

        do_DELETE = do_GET

        def forward(self, body, method):
            upstream = http.client.HTTPConnection("127.0.0.1", gateway_port, timeout=SILENCE)
            try:
                upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    if name.lower() == "mcp-name":
                        value = names.header(method, value)
                    if name.lower() not in HOP_BY_HOP:
                        upstream.putheader(name, value)
                if body is not None:
                    upstream.putheader("Content-Length", str(len(body)))
                upstream.endheaders(body)
                self.answer(upstream.getresponse())
            except OSError:
                self.close_connection = True
            finally:
                upstream.close()

        def answer(self, reply):
            streams = (reply.getheader("Content-Type") or "").startswith("text/event-stream")
            self.send_response(reply.status)
            for name, value in reply.getheaders():
                if name.lower() not in HOP_BY_HOP:
                    self.send_header(name, value)
            if streams:
                self.send_header("Connection", "close")
                self.end_headers()
                return self.stream(reply)
            body = reply.read()
            body = self.mapped(body) if body else body
            if reply.status != 204:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def stream(self, reply):
            while line := reply.readline():
                field, _, data = line.rstrip(b"\r\n").partition(b":")
                if field == b"data" and data.strip():
                    line = b"data: " + self.mapped(data) + b"\n"
                self.wfile.write(line)
                self.wfile.flush()

        def mapped(self, text):
            try:
                return json.dumps(names.back(json.loads(text))).encode()
            except ValueError:
                return text

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]
