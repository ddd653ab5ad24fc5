"""The checks of a Python client: the official SDK, version 1 or 2, or FastMCP, whichever this interpreter has.

`run.py` starts the servers and gives the plan (a JSON object) as the only argument. Every check is one line on standard
output: `ok NAME` or `not ok NAME: why`; what was seen is `fact NAME VALUE`.
"""

import contextlib
import importlib.util
import json
import sys
import warnings

warnings.simplefilter("ignore")  # those of the clients' own dependencies

import anyio  # noqa: E402
import mcp  # noqa: E402
import mcp.types  # noqa: E402

PATIENCE = 15  # seconds for what has no deadline of its own
CALLS_AT_ONCE = 10  # right after the gateway was killed


async def consent(*_):
    """The user says yes, whatever is asked."""
    return mcp.types.ElicitResult(action="accept", content={"yes": True})


class First:
    """The session of version 1 of the SDK."""

    @contextlib.asynccontextmanager
    async def open(self, url, on_message):
        from mcp.client.streamable_http import streamable_http_client

        async with streamable_http_client(url) as (read, write, _):
            asked = {"message_handler": on_message, "elicitation_callback": consent}
            async with mcp.ClientSession(read, write, **asked) as session:
                self.session = session
                result = await session.initialize()
                self.revision = result.protocolVersion
                yield result.serverInfo.name

    async def call(self, name, arguments, progress=None):
        result = await self.session.call_tool(name, arguments, progress_callback=progress)
        return result.isError, result.structuredContent, result.content

    async def tools(self):
        return [tool.name for tool in (await self.session.list_tools()).tools]


class Second:
    """The client of version 2 of the SDK, in its default mode, which probes `server/discover` first."""

    @contextlib.asynccontextmanager
    async def open(self, url, on_message):
        asked = {"message_handler": on_message, "elicitation_callback": consent}
        async with mcp.Client(url, **asked) as client, anyio.create_task_group() as tasks:
            self.client, self.revision = client, client.protocol_version
            tasks.start_soon(listen, client, on_message)
            yield client.server_info.name
            tasks.cancel_scope.cancel()

    async def call(self, name, arguments, progress=None):
        result = await self.client.call_tool(name, arguments, progress_callback=progress)
        return result.is_error, result.structured_content, result.content

    async def tools(self):
        return [tool.name for tool in (await self.client.list_tools()).tools]


class Fast:
    """FastMCP's client, in its default mode; version 4 probes `server/discover` first."""

    @contextlib.asynccontextmanager
    async def open(self, url, on_message):
        import fastmcp
        from fastmcp.client.elicitation import ElicitResult

        async def answer(*_):
            return ElicitResult(action="accept", content={"yes": True})

        client = fastmcp.Client(url, message_handler=on_message, elicitation_handler=answer)
        async with client, anyio.create_task_group() as tasks:
            self.client = client
            greeting = client.initialize_result
            self.revision = greeting.protocolVersion if greeting else client.protocol_version
            tasks.start_soon(listen, getattr(client, "session", None), on_message)
            yield greeting.serverInfo.name if greeting else client.server_info.name
            tasks.cancel_scope.cancel()

    async def call(self, name, arguments, progress=None):
        result = await self.client.call_tool(name, arguments, progress_handler=progress, raise_on_error=False)
        return result.is_error, result.structured_content, result.content

    async def tools(self):
        return [tool.name for tool in await self.client.list_tools()]


class Changed:
    """What a change is told by where there are no sessions."""

    method = "notifications/tools/list_changed"


async def listen(client, on_message):
    """Without a session changes are told on a stream that the application opens, and opens again when it is lost."""
    try:
        from mcp.client.subscriptions import ListenNotSupportedError, listen as open_stream
    except ImportError:
        return
    while True:
        try:
            session = getattr(client, "session", client)
            async with open_stream(session, tools_list_changed=True) as changes:
                async for _ in changes:
                    await on_message(Changed())
        except ListenNotSupportedError:
            return
        except Exception:  # noqa: BLE001 - whatever ended it, what was missed is told by looking again
            await anyio.sleep(0.05)
        await on_message(Changed())


def error_code(error):
    inner = getattr(error, "error", None)
    return getattr(inner, "code", getattr(error, "code", None))


async def check(name, step):
    try:
        with anyio.fail_after(PATIENCE):
            await step()
    except Exception as error:  # noqa: BLE001 - every failure is a line, and the next check goes on
        print(f"not ok {name}: {type(error).__name__}: {error}".replace("\n", " "), flush=True)
    else:
        print(f"ok {name}", flush=True)


def fact(name, value):
    print(f"fact {name} {value}".replace("\n", " "), flush=True)


class Checks:
    def __init__(self, client, plan):
        self.client = client
        self.plan = plan
        self.changed = anyio.Event()

    async def on_message(self, message):
        message = getattr(message, "root", message)
        if getattr(message, "method", None) == "notifications/tools/list_changed":
            self.changed.set()

    async def list_tools(self):
        names = await self.client.tools()
        for wanted in [self.plan["tool"], self.plan["render_tool"], "list_dcc_instances"]:
            assert wanted in names, f"{wanted} is not in {names}"

    async def structured(self):
        is_error, found, content = await self.client.call(self.plan["tool"], self.plan["arguments"])
        assert not is_error, content
        for key, value in self.plan["expected"].items():
            assert found[key] == value, f"{key} is {found[key]}, not {value}"
        assert json.loads(content[0].text) == found, "the text is the same JSON"

    async def render(self, arguments):
        steps = []

        async def note(step, total, message):
            steps.append((step, total))

        is_error, _, content = await self.client.call(self.plan["render_tool"], arguments, note)
        assert not is_error, content
        assert steps == [(1, 3), (2, 3), (3, 3)], steps

    async def progress(self):
        await self.render(self.plan["render"])

    async def elicitation(self):
        await self.render(self.plan["render_again"])

    async def failure(self):
        is_error, _, content = await self.client.call(self.plan["tool"], self.plan["bad_arguments"])
        assert is_error and content[0].text, content

    async def unknown(self):
        try:
            await self.client.call("no_such_tool", {})
        except Exception as error:  # noqa: BLE001 - its class differs between the versions
            assert error_code(error) == -32602, error
        else:
            raise AssertionError("no error")

    async def list_changed(self):
        assert self.plan["new_tool"] not in await self.client.tools()
        is_error, _, content = await self.client.call("load_skill", self.plan["load"])
        assert not is_error, content
        await self.changed.wait()
        assert self.plan["new_tool"] in await self.client.tools(), "listed when the notification arrives"

    async def takeover(self):
        self.changed = anyio.Event()
        print("waiting", flush=True)
        await anyio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)  # the gateway is dead now
        for _ in range(CALLS_AT_ONCE):
            is_error, _, content = await self.client.call("list_dcc_instances", {})
            assert not is_error, content
        # Without a session the loss of the stream is a reason to look again too, which may come before the change.
        await self.changed.wait()
        self.changed = anyio.Event()
        while self.plan["away_tool"] not in await self.client.tools():
            await self.changed.wait()
            self.changed = anyio.Event()
        fact("told", "list_changed")
        is_error, found, _ = await self.client.call(self.plan["away_tool"], {"still": "here"})
        assert not is_error and found == {"still": "here"}, found

    async def all(self):
        await check("tools/list", self.list_tools)
        await check("structured result", self.structured)
        await check("progress", self.progress)
        await check("elicitation", self.elicitation)
        await check("a failure is a result", self.failure)
        await check("an unknown tool is -32602", self.unknown)
        await check("list_changed", self.list_changed)
        await check("the gateway is killed and no call after it is lost", self.takeover)


async def lost(client, plan):
    """A call is under way when the gateway is killed: what becomes of it, and of the client."""
    print("waiting", flush=True)
    for name, tool in (("call", plan["slow_tool"]), ("next", "list_dcc_instances")):
        try:
            with anyio.fail_after(PATIENCE):
                await client.call(tool, {})
            fact(name, "answered")
        except Exception as error:  # noqa: BLE001 - that it fails is what is looked for
            fact(name, f"{type(error).__name__} {error}")


async def run(plan):
    client = Fast() if importlib.util.find_spec("fastmcp") else Second() if hasattr(mcp, "Client") else First()
    checks = Checks(client, plan)
    async with client.open(plan["url"], checks.on_message) as server_name:
        if plan["part"] == "pages":
            fact("pages", len(await client.tools()))
        elif plan["part"] == "lost":
            await lost(client, plan)
        else:

            async def initialize():
                fact("revision", client.revision)
                assert server_name == "dcc-mcp-server", server_name

            await check("initialize", initialize)
            await checks.all()
    print("ok close", flush=True)


anyio.run(run, json.loads(sys.argv[1]))
