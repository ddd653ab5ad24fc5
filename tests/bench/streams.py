"""The part of `make bench` about many connections that do nothing: what they weigh, and how fast all hear of a change."""

import json
import os
import selectors
import socket
import statistics
import time
import uuid

from world import World, open_session, resident, until

COUNT = 2000
CHANGES = 5
PATIENCE = 20  # seconds


class Listeners:
    """Event streams of as many sessions, read by one thread."""

    def __init__(self, port):
        self.selector = selectors.DefaultSelector()
        for _ in range(COUNT):
            session = open_session(port)
            stream = socket.create_connection(("127.0.0.1", port))
            head = f"GET /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\nMcp-Session-Id: {session}\r\n\r\n"
            stream.sendall(head.encode())
            stream.setblocking(False)
            self.selector.register(stream, selectors.EVENT_READ, bytearray())

    def all_told(self, what):
        """Waits until each stream has brought `what`; gives the times of the first and the last."""
        waiting, times, end = COUNT, [], time.monotonic() + PATIENCE
        while waiting:
            assert time.monotonic() < end, f"{waiting} of {COUNT} streams were not told within {PATIENCE} s"
            for key, _ in self.selector.select(1):
                piece = key.fileobj.recv(65536)
                assert piece, "the gateway ended a stream"
                key.data.extend(piece)
                if what in key.data:
                    key.data.clear()
                    waiting -= 1
                    times.append(time.monotonic())
        return times[0], times[-1]

    def close(self):
        for key in list(self.selector.get_map().values()):
            key.fileobj.close()


class Guest:
    """An instance that comes and goes in the registry, as a copy of another one's entry."""

    def __init__(self, world, instance):
        entry = world.entry(instance)
        entry["instance_id"] = str(uuid.uuid4())
        entry["registered_at"] = time.time()
        self.file = world.registry / "instances" / f"{entry['instance_id']}.json"
        self.tools = world.registry / "tools" / self.file.name
        self.tools.write_text((world.registry / "tools" / f"{instance}.json").read_text())
        self.entry = entry

    def change(self):
        """Comes, or goes; gives the time."""
        if self.file.exists():
            self.file.unlink()
        else:
            self.entry["heartbeat"] = {"seq": 1, "at": time.time()}
            draft = self.file.with_suffix(".draft")
            draft.write_text(json.dumps(self.entry))
            os.replace(draft, self.file)
        return time.monotonic()


def idle(program):
    """KiB of resident memory for each connection that has sent nothing."""
    with World(program) as world:
        gateway = world.start("--dcc", "generic")
        world.wait_instances(1)
        pid = world.by_id[gateway].pid
        before = resident(pid)
        held = [socket.create_connection(("127.0.0.1", world.gateway_port)) for _ in range(COUNT)]
        time.sleep(2)
        weight = (resident(pid) - before) * 1024 / COUNT
        for connection in held:
            connection.close()
        return weight


def told(program, stub):
    """KiB for each stream; seconds from a change to the first told stream, and from that to the last one, medians."""
    with World(program) as world:
        [(instance, _)] = world.start_stub(stub, 1)
        gateway = world.start("--dcc", "generic")
        world.wait_instances(2)
        pid = world.by_id[gateway].pid
        before = resident(pid)
        listeners = Listeners(world.gateway_port)
        listeners.all_told(b"id:")
        weight = (resident(pid) - before) * 1024 / COUNT
        guest, firsts, spreads = Guest(world, instance), [], []
        for _ in range(CHANGES):
            count = len(world.instances())
            changed = guest.change()
            first, last = listeners.all_told(b"notifications/tools/list_changed")
            firsts.append(first - changed)
            spreads.append(last - first)
            until("the instances follow", lambda: len(world.instances()) != count)
        listeners.close()
        return weight, statistics.median(firsts), statistics.median(spreads)
