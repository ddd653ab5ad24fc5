"""The checks of the official Python SDK, version 1 or 2, whichever this interpreter has.

`run.py` starts the servers and gives the plan (a JSON object) as the only argument. Every check is one line on standard
output: `ok NAME` or `not ok NAME: why`.
"""

import contextlib
import json
import sys

import anyio
import mcp

try:
    from mcp.client.subscriptions import ListenNotSupportedError
except ImportError:
    ListenNotSupportedError = None

PATIENCE = 15  # seconds for what has no deadline of its own


class First:
    """The session of version 1 of the SDK."""

    @contextlib.asynccontextmanager
    async def open(self, url, on_message):
        from mcp.client.streamable_http import streamable_http_client

        async with streamable_http_client(url) as (read, write, _):
            async with mcp.ClientSession(read, write, message_handler=on_message) as session:
                self.session = session
                result = await session.initialize()
                yield result.serverInfo.name

    async def call(self, name, arguments, progress=None):
        result = await self.session.call_tool(name, arguments, progress_callback=progress)
        return result.isError, result.structuredContent, result.content

    async def tools(self):
        return [tool.name for tool in (await self.session.list_tools()).tools]

    @staticmethod
    def method(message):
        return getattr(getattr(message, "root", None), "method", None)


class Second:
    """The client of version 2 of the SDK, in its default mode, which probes `server/discover` first."""

    @contextlib.asynccontextmanager
    async def open(self, url, on_message):
        async with mcp.Client(url, message_handler=on_message) as client, anyio.create_task_group() as tasks:
            self.client = client
            tasks.start_soon(self.listen, on_message)
            yield client.server_info.name
            tasks.cancel_scope.cancel()

    async def listen(self, on_message):
        """Without a session changes are told on a stream that the application opens, and opens again when it is lost."""
        while True:
            try:
                async with self.client.listen(tools_list_changed=True) as changes:
                    async for _ in changes:
                        await on_message(self.Changed())
            except ListenNotSupportedError:
                return
            except Exception:  # noqa: BLE001 - whatever ended it, what was missed is told by looking again
                await anyio.sleep(0.05)
            await on_message(self.Changed())

    class Changed:
        method = "notifications/tools/list_changed"

    async def call(self, name, arguments, progress=None):
        result = await self.client.call_tool(name, arguments, progress_callback=progress)
        return result.is_error, result.structured_content, result.content

    async def tools(self):
        return [tool.name for tool in (await self.client.list_tools()).tools]

    @staticmethod
    def method(message):
        return getattr(message, "method", None)


def error_code(error):
    inner = getattr(error, "error", None)
    return getattr(inner, "code", getattr(error, "code", None))


async def check(name, step):
    try:
        with anyio.fail_after(PATIENCE):
            await step()
    except Exception as error:  # noqa: BLE001 - every failure is a line, and the next check goes on
        print(f"not ok {name}: {type(error).__name__}: {error}", flush=True)
    else:
        print(f"ok {name}", flush=True)


async def run(plan):
    client = Second() if hasattr(mcp, "Client") else First()
    changed = anyio.Event()

    async def on_message(message):
        if client.method(message) == "notifications/tools/list_changed":
            changed.set()

    async with client.open(plan["url"], on_message) as server_name:

        async def initialize():
            assert server_name == "dcc-mcp-server", server_name

        async def list_tools():
            names = await client.tools()
            for wanted in [plan["tool"], plan["count_tool"], "list_dcc_instances"]:
                assert wanted in names, f"{wanted} is not in {names}"

        async def call():
            is_error, _, content = await client.call(plan["tool"], plan["arguments"])
            assert not is_error and content[0].text, content

        async def structured():
            _, found, content = await client.call(plan["tool"], plan["arguments"])
            for key, value in plan["expected"].items():
                assert found[key] == value, f"{key} is {found[key]}, not {value}"
            assert json.loads(content[0].text) == found, "the text is the same JSON"

        async def progress():
            steps = []

            async def note(step, total, message):
                steps.append((step, total))

            await client.call(plan["count_tool"], {}, note)
            assert steps == [(1, 3), (2, 3), (3, 3)], steps

        async def failure():
            is_error, _, content = await client.call(plan["tool"], plan["bad_arguments"])
            assert is_error and content[0].text, content

        async def unknown():
            try:
                await client.call("no_such_tool", {})
            except Exception as error:  # noqa: BLE001 - its class differs between the versions
                assert error_code(error) == -32602, error
            else:
                raise AssertionError("no error")

        async def list_changed():
            assert plan["new_tool"] not in await client.tools()
            is_error, _, content = await client.call("load_skill", plan["load"])
            assert not is_error, content
            await changed.wait()
            assert plan["new_tool"] in await client.tools(), "listed when the notification arrives"

        async def takeover():
            nonlocal changed
            changed = anyio.Event()
            print("waiting", flush=True)
            await changed.wait()
            # Without a session the loss of the stream is a reason to look again too, which may come before the change.
            changed = anyio.Event()
            while plan["away_tool"] not in await client.tools():
                await changed.wait()
                changed = anyio.Event()
            is_error, found, _ = await client.call(plan["away_tool"], {"still": "here"})
            assert not is_error and found == {"still": "here"}, found

        await check("initialize", initialize)
        await check("tools/list", list_tools)
        await check("tools/call", call)
        await check("structured result", structured)
        await check("progress callback", progress)
        await check("a failure is a result", failure)
        await check("an unknown tool is -32602", unknown)
        await check("list_changed", list_changed)
        await check("the gateway is killed and the session goes on", takeover)
    print("ok close", flush=True)


anyio.run(run, json.loads(sys.argv[1]))
