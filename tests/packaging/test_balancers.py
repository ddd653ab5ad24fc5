"""nginx and HAProxy with the files as they are shipped, before two replicas at the addresses of these files."""

import concurrent.futures
import re
import subprocess
import time
import unittest

from balancer import HAProxy, Nginx
from kit import SKILLS, Client, Load, Replicas, Stream, block, get, run, until

A, B = "10.0.0.11", "10.0.0.12"
BASE = "https://mcp.example.com"
URL = f"{BASE}/mcp"
CLIENTS = 6
FOLDER = str(SKILLS / "name-check")
FIGURES = []


class Balanced:
    """What holds behind any balancer; each one's own class below says which."""

    def setUp(self):
        self.replicas = Replicas(A, B)
        self.addCleanup(self.replicas.remove)
        for address in (A, B):
            self.replicas.start(address)
        self.replicas.start_instance()
        self.tool = self.replicas.tool(A)
        self.assertEqual(self.tool, self.replicas.tool(B))
        self.balancer = self.make_balancer()
        self.addCleanup(self.balancer.stop)
        until("the balancer serves", lambda: get(f"{BASE}/readyz")[0] == 200)
        self.name = f"{type(self).__name__}"

    def answered(self, address):
        """Requests to /mcp that this replica has answered."""
        metrics = get(f"http://{address}:9765/metrics")[1].decode()
        return sum(float(value) for value in re.findall(r'dcc_mcp_http_requests_total\{route="mcp",[^}]*\} (\S+)', metrics))

    def load(self):
        return Load(URL, self.tool, clients=CLIENTS, folder=FOLDER)

    def test_one_session_is_served_by_both(self):
        before = [self.answered(address) for address in (A, B)]
        client = Client(URL).open()
        for _ in range(40):
            client.call(self.tool, folder=FOLDER)
        served = [self.answered(address) - was for address, was in zip((A, B), before)]
        self.assertGreaterEqual(sum(served), 40)
        self.check_spread(served)

    def check_spread(self, served):
        self.assertGreater(min(served), 5, f"both replicas serve one session: {served}")

    def test_events_come_at_once(self):
        """A change is seen in a stream within seconds; a buffering proxy would hold it back."""
        stream = Stream(Client(URL).open())
        until("the stream has begun", lambda: stream.has("retry:"))
        changed = time.monotonic()
        self.replicas.start_instance("blender")
        until("the change is told", lambda: stream.has("list_changed"))
        self.assertLess(stream.has("list_changed") - changed, 5)
        comment = time.monotonic()
        until("a comment comes through", lambda: any(line.startswith(":") and at > comment for at, line in stream.lines), 25)

    def test_a_replica_is_killed_under_load(self):
        """kill -9: the calls that it had taken are lost, one for each client at most; a call that may have run is not sent twice."""
        with self.load() as load:
            load.during(2)
            self.replicas.kill(A)
            load.during(1)
            soon = len(load.failures)
            answered = load.during(5)
            self.assertGreater(answered, 20)
        self.assertLessEqual(len(load.failures), CLIENTS, load.failures)
        self.assertEqual(len(load.failures), soon, "nobody fails a second after the death")
        FIGURES.append(f"{self.name}: replica killed, {len(load.failures)} of {load.calls + len(load.failures)} calls failed ({CLIENTS} clients)")

    def test_a_replica_is_drained_under_load(self):
        with self.load() as load:
            load.during(1)
            self.assertEqual(self.replicas.drain(A), 0)
            self.assertGreater(load.during(3), 10)
            self.replicas.start(A)
            self.check_return(self.answered(A))
            load.during(1)
        self.assertEqual(load.failures, [])
        FIGURES.append(f"{self.name}: replica drained and back, 0 of {load.calls} calls failed")

    def check_return(self, before):
        until("the replica serves again", lambda: self.answered(A) > before + 5)

    def test_metrics_are_not_for_clients(self):
        self.assertEqual(get(f"{BASE}/metrics")[0], 404)


class NginxRoundRobin(Balanced, unittest.TestCase):
    def make_balancer(self):
        return Nginx()

    def test_the_commands_of_the_guide(self):
        self.assertIn("successful", run(block("nginx-check")))


class NginxHash(NginxRoundRobin):
    """With the line of the original guide: each session stays at one replica, and moves when that one is gone."""

    def make_balancer(self):
        return Nginx(extra="hash $http_mcp_session_id consistent;")

    def check_spread(self, served):
        self.assertLessEqual(min(served), 2, f"one replica serves a session: {served}")

    def check_return(self, before):
        """Sessions that moved stay where they are or come back, as the hash has it; new ones are served by both."""
        until("the replica serves again", lambda: Client(URL).open().tools() and self.answered(A) > before)


class HAProxyRoundRobin(Balanced, unittest.TestCase):
    def make_balancer(self):
        return HAProxy()

    def test_the_commands_of_the_guide(self):
        run(block("haproxy-check"))

    def test_a_replica_that_hangs_is_left_alone(self):
        """Stopped (SIGSTOP) it accepts connections and answers nothing: the active check takes it out."""
        process = self.replicas.running[A]
        with concurrent.futures.ThreadPoolExecutor() as pool:
            process.send_signal(subprocess.signal.SIGSTOP)
            try:
                time.sleep(4)
                client = pool.submit(lambda: Client(URL, timeout=10).open().tools())
                self.assertIn("list_dcc_instances", client.result())
            finally:
                process.send_signal(subprocess.signal.SIGCONT)

    def test_a_replica_that_is_not_ready_is_left_alone(self):
        """One that can no longer write to the registry says so by /readyz, and serves on what reaches it all the same."""
        inside = ["nsenter", "-t", self.replicas.running[A].pid, "-m"]
        with self.load() as load:
            run(*inside, "mount", "--bind", self.replicas.registry, self.replicas.registry)
            run(*inside, "mount", "-o", "remount,bind,ro", self.replicas.registry)
            until("it says so", lambda: get(f"http://{A}:9765/readyz")[0] == 503)
            load.during(3)
            before = self.answered(A)
            self.assertGreater(load.during(2), 10)
            self.assertEqual(self.answered(A), before, "it gets no more calls")
            run(*inside, "umount", self.replicas.registry)
            self.check_return(before)
        self.assertEqual(load.failures, [])
