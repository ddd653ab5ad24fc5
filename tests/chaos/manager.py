"""The service manager of a host of `make chaos`: the first process of its pid namespace.

Orders are JSON lines on standard input: `{"id", "command", "log"}` starts a service and starts it again whenever it has
ended; `{"id", "signal", "again"}` sends its process a signal, and without `again` it is not started again once it has ended.
Each ending is a JSON line on standard output: `{"id", "code", "told", "at"}`, where `told` is the last signal that was to end
it, 0 if it was told nothing. When the input ends so does the host.

It never waits for a process: a stopped one costs nothing.
"""

import json
import os
import select
import signal
import sys
import time

RESTART_AFTER, LOOK_EVERY = 0.1, 0.02  # seconds
ENDING = (signal.SIGKILL, signal.SIGTERM)


class Service:
    def __init__(self, command, log):
        self.command, self.log = command, log
        self.pid, self.told, self.wanted, self.due = None, 0, True, 0.0

    def keep_alive(self):
        if self.pid is None and self.wanted and time.monotonic() >= self.due:
            files = [
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ]
            self.told = 0
            # Python ignores this one, and a process would inherit it.
            default = [signal.SIGPIPE]
            self.pid = os.posix_spawn(self.command[0], self.command, os.environ, file_actions=files, setsigdef=default)

    def signal(self, number, again):
        self.wanted = again
        if self.pid is not None:
            self.told = number if number in ENDING else self.told
            os.kill(self.pid, number)

    def has_ended(self):
        self.pid, self.due = None, time.monotonic() + RESTART_AFTER


def obey(services, order):
    service = services.get(order["id"])
    if "command" in order:
        services[order["id"]] = Service(order["command"], order["log"])
    elif service:
        service.signal(order["signal"], order["again"])


def reap(services):
    """Takes note of all that have ended, those without a parent of their own among them."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        for name, service in services.items():
            if service.pid == pid:
                code = os.waitstatus_to_exitcode(status)
                print(json.dumps({"id": name, "code": code, "told": service.told, "at": time.monotonic()}), flush=True)
                service.has_ended()


def main():
    services, text = {}, b""
    while True:
        if select.select([0], [], [], LOOK_EVERY)[0]:
            more = os.read(0, 65536)
            if not more:
                return
            *lines, text = (text + more).split(b"\n")
            for line in lines:
                obey(services, json.loads(line))
        reap(services)
        for service in services.values():
            service.keep_alive()


if __name__ == "__main__":
    sys.exit(main())
