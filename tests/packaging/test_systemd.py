"""The units: checked by systemd's own tools, then started by a systemd that has really booted."""

import concurrent.futures
import json
import re
import time
import unittest

from bed import Bed, debian_root
from kit import ROOT, block, run, until

FIGURES = []
prepare = debian_root
UNITS = ["dcc-mcp-gateway.service", "dcc-mcp-gateway.socket", "dcc-mcp-instance@.service"]
EXPOSURE_MAX = 1.0


class Offline(unittest.TestCase):
    def test_exposure(self):
        for unit in UNITS:
            if unit.endswith(".service"):
                out = run("systemd-analyze", "security", "--offline=true", f"--threshold={int(EXPOSURE_MAX * 10)}", ROOT / "packaging/systemd" / unit)
                exposure = re.search(r"exposure level for .*: ([\d.]+)", out)[1]
                FIGURES.append(f"exposure of {unit}: {exposure}")
                self.assertLessEqual(float(exposure), EXPOSURE_MAX)

    def test_limits_follow_from_the_sums(self):
        """The sums in the comments, done again."""
        text = (ROOT / "packaging/systemd/dcc-mcp-gateway.service").read_text()
        connections = 4096
        descriptors, tasks = 5 * connections + 2560 + 512, 2 * connections + 160
        self.assertIn(f"= {descriptors}\n", text)
        self.assertIn(f"=  {tasks}\n", text)
        given = dict(re.findall(r"^(LimitNOFILE|TasksMax)=(\d+)", text, re.M))
        self.assertTrue(descriptors <= int(given["LimitNOFILE"]) <= descriptors * 1.1, given)
        self.assertTrue(tasks <= int(given["TasksMax"]) <= tasks * 1.1, given)
        stop = int(re.search(r"^TimeoutStopSec=(\d+)", text, re.M)[1])
        self.assertGreaterEqual(stop, 20 + 5, "longer than the drain timeout")


class Booted(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.bed = Bed()
        cls.addClassCleanup(cls.bed.off)
        cls.sh, cls.show = cls.bed.sh, cls.bed.show
        cls.sh(block("install-tar"))
        cls.sh(block("systemd-install"))

    def setUp(self):
        self.sh("systemctl stop 'dcc-mcp-*' 2>/dev/null || true; systemctl reset-failed; rm -rf /etc/dcc-mcp /etc/credstore/dcc-mcp.auth-token")
        self.sh("rm -rf /etc/systemd/system/dcc-mcp-*.service.d; systemctl daemon-reload")

    def start(self, *units):
        self.sh(f"systemctl start {' '.join(units)}")

    def healthy(self, code="200", path="/readyz"):
        probe = f"curl -s -o /dev/null -m 2 -w '%{{http_code}}' http://127.0.0.1:9765{path} || true"
        until(f"{path} says {code}", lambda: self.sh(probe).strip() == code)

    def pid(self, unit="dcc-mcp-gateway"):
        return int(self.show(unit, "MainPID"))

    def journal(self, unit="dcc-mcp-gateway"):
        return self.sh(f"journalctl -u {unit} --no-pager -o cat")

    def test_verify_is_silent(self):
        units = " ".join(f"/usr/local/lib/systemd/system/{unit}" for unit in UNITS)
        self.assertEqual(self.sh(f"systemd-analyze verify --man=no {units}"), "")

    def test_it_is_ready_when_systemd_says_so(self):
        self.start("dcc-mcp-gateway")
        self.assertEqual(self.show("dcc-mcp-gateway", "ActiveState"), "active")
        self.assertEqual(self.sh("curl -s -m 2 http://127.0.0.1:9765/health"), '{"ok":true}')

    def test_it_is_nobody_and_can_write_nothing_but_its_own(self):
        self.start("dcc-mcp-gateway")
        pid = self.pid()
        status = self.sh(f"cat /proc/{pid}/status")
        uid = int(re.search(r"^Uid:\s+(\d+)", status, re.M)[1])
        self.assertTrue(61184 <= uid <= 65519, f"{uid} is none of the dynamic ones")
        self.assertEqual(set(re.findall(r"^Cap\w+:\s+(\w+)$", status, re.M)), {"0" * 16})
        self.assertRegex(status, r"NoNewPrivs:\s+1\b")
        self.assertRegex(status, r"Seccomp:\s+2\b")
        for folder in ["/var/lib/dcc-mcp/registry", "/var/log/dcc-mcp", "/run/dcc-mcp-gateway"]:
            self.assertEqual(self.sh(f"stat -Lc %u {folder}").strip(), str(uid), folder)
        inside = f"nsenter -t {pid} -m -- setpriv --reuid {uid} --regid {uid} --clear-groups"
        self.assertIn("Read-only", self.sh(f"{inside} touch /usr/local/bin/x 2>&1 || true"))
        self.sh(f"{inside} touch /var/lib/dcc-mcp/registry/x && rm /var/lib/dcc-mcp/registry/x")

    def test_its_threads_let_others_finish(self):
        """SCHED_BATCH is 3; the program itself may not ask for it."""
        self.start("dcc-mcp-gateway")
        policies = self.sh(f"cut -d ' ' -f 41 /proc/{self.pid()}/task/*/stat").split()
        self.assertEqual(set(policies), {"3"})

    def test_kill_9_costs_half_a_second(self):
        self.start("dcc-mcp-gateway")
        before = self.pid()
        self.sh(f"kill -9 {before}")
        until("another process serves", lambda: self.pid() not in (0, before))
        self.healthy()
        self.assertEqual(self.show("dcc-mcp-gateway", "NRestarts"), "1")

    def test_the_watchdog_ends_a_process_that_hangs(self):
        """Stopped by a signal it can neither beat nor answer; with the shipped 30 s the same takes longer."""
        self.assertEqual(self.show("dcc-mcp-gateway", "WatchdogUSec"), "30s")
        self.sh("mkdir -p /etc/systemd/system/dcc-mcp-gateway.service.d")
        self.sh("printf '[Service]\\nWatchdogSec=2\\nTimeoutAbortSec=1\\n' > /etc/systemd/system/dcc-mcp-gateway.service.d/watchdog.conf; systemctl daemon-reload")
        self.start("dcc-mcp-gateway")
        before = self.pid()
        time.sleep(5)
        self.assertEqual(self.pid(), before, "it beats in time")
        self.sh(f"kill -STOP {before}")
        until("another process serves", lambda: self.pid() not in (0, before))
        self.healthy()
        self.assertIn("Watchdog timeout", self.journal())

    def test_the_socket_holds_the_port(self):
        """systemd listens; the first connection starts the gateway, and while it is started anew none is refused."""
        self.sh(block("systemd-socket"))
        self.addCleanup(self.sh, "systemctl disable --now dcc-mcp-gateway.socket 2>&1; systemctl stop dcc-mcp-gateway")
        self.assertEqual(self.show("dcc-mcp-gateway", "ActiveState"), "inactive")
        self.assertEqual(self.sh("curl -s -m 10 http://127.0.0.1:9765/health"), '{"ok":true}', "the first one starts it")
        self.healthy()
        self.assertEqual(self.show("dcc-mcp-gateway", "ActiveState"), "active")
        ask = "curl -s -o /dev/null -m 10 http://127.0.0.1:9765/health && echo 0 || echo $?"
        with concurrent.futures.ThreadPoolExecutor() as pool:
            asked = pool.submit(self.sh, f"for i in $(seq 150); do {ask}; sleep 0.02; done")
            for _ in range(2):
                time.sleep(0.5)
                self.sh(f"kill -9 {self.pid()}")
                until("another process serves", lambda: self.show("dcc-mcp-gateway", "ActiveState") == "active")
            codes = asked.result().split()
        self.assertEqual(len(codes), 150)
        self.assertNotIn("7", codes, "none was refused")
        self.assertGreaterEqual(codes.count("0"), 146, codes)
        self.sh("systemctl stop dcc-mcp-gateway")
        self.assertIn("0", self.sh(ask), "a stopped one is started again by who connects")

    def test_a_wrong_flag_is_not_tried_again(self):
        self.sh("mkdir -p /etc/dcc-mcp; echo DCC_MCP_GATEWAY_PORT=many > /etc/dcc-mcp/gateway.env")
        self.sh("systemctl start dcc-mcp-gateway 2>&1 || true")
        self.assertEqual(self.show("dcc-mcp-gateway", "ActiveState"), "failed")
        self.assertEqual(self.show("dcc-mcp-gateway", "ExecMainStatus"), "2")
        self.assertIn("DCC_MCP_GATEWAY_PORT does not take", self.journal())

    def test_an_instance_serves_its_skills_through_the_gateway(self):
        self.sh(block("systemd-instance"))
        self.healthy()
        called = until("a tool is called", lambda: self.bed.ask("check_names", folder="/etc"))
        self.assertGreater(called["structuredContent"]["files"], 5)
        users = {self.sh(f"stat -c %u /proc/{self.pid(unit)}") for unit in ["dcc-mcp-gateway", "dcc-mcp-instance@maya"]}
        self.assertEqual(len(users), 1, "one user, so that one can take over from the other")

    def test_an_instance_takes_over_from_a_stopped_gateway(self):
        self.sh(block("systemd-instance"))
        self.healthy()
        self.sh("systemctl stop dcc-mcp-gateway")
        self.healthy()
        listed = json.loads(self.sh("curl -s http://127.0.0.1:9765/instances"))
        self.assertEqual([instance["dcc_type"] for instance in listed["instances"]], ["maya"])

    def test_a_token_comes_by_credential(self):
        self.sh(block("systemd-token"))
        self.start("dcc-mcp-gateway")
        self.healthy()
        self.healthy("401", "/instances")
        self.assertIn('"total":1', self.sh(block("token-curl")))
        self.assertNotIn(self.sh("cat /etc/credstore/dcc-mcp.auth-token").strip(), self.sh(f"tr '\\0' '\\n' < /proc/{self.pid()}/environ"))

    def test_a_missing_token_fails_closed(self):
        self.sh("mkdir -p /etc/dcc-mcp")
        self.sh("echo DCC_MCP_AUTH_TOKEN_FILE=/run/credentials/dcc-mcp-gateway.service/dcc-mcp.auth-token > /etc/dcc-mcp/gateway.env")
        self.sh("systemctl start dcc-mcp-gateway 2>&1 || true")
        self.assertEqual(self.show("dcc-mcp-gateway", "ExecMainStatus"), "2")

    def test_reload_reads_the_token_again(self):
        self.sh(block("systemd-token"))
        self.start("dcc-mcp-gateway")
        self.sh(block("reload"))
        until("it says that it has reloaded", lambda: "event=reload" in self.journal())
        self.healthy()

    def test_stop_drains(self):
        """A call that is under way when the unit is stopped is answered, and the unit stops after it, not before."""
        self.sh("mkdir -p /etc/dcc-mcp/skills/slow/scripts; printf -- '---\\nname: slow\\ndescription: Takes its time.\\n---\\n' > /etc/dcc-mcp/skills/slow/SKILL.md; "
                "printf '#!/bin/sh\\nsleep 4\\necho \"{\\\\\"slept\\\\\":true}\"\\n' > /etc/dcc-mcp/skills/slow/scripts/doze.sh; chmod 755 /etc/dcc-mcp/skills/slow/scripts/doze.sh")
        self.start("dcc-mcp-instance@maya", "dcc-mcp-gateway")
        self.healthy()
        until("the tool is listed", lambda: "doze" in str(self.bed.ask("-")))
        with concurrent.futures.ThreadPoolExecutor() as pool:
            answer = pool.submit(self.bed.ask, "doze")
            until("the script runs", lambda: self.sh("pgrep -xf 'sleep 4' || true"))
            begun = time.monotonic()
            self.sh("systemctl stop dcc-mcp-gateway dcc-mcp-instance@maya")
            took = time.monotonic() - begun
            self.assertIn("slept", str(answer.result()))
        self.assertTrue(1 <= took <= 12, f"stopping took {took:.1f} s")
        for unit in ["dcc-mcp-gateway", "dcc-mcp-instance@maya"]:
            self.assertEqual(self.show(unit, "Result"), "success")
            self.assertIn("drained=true", self.journal(unit))
        self.assertEqual(self.sh("ls /var/lib/dcc-mcp/registry/instances").strip(), "")

    def test_the_drop_in_of_the_guide_opens_it_to_the_network(self):
        self.sh(block("systemd-network"))
        self.start("dcc-mcp-gateway")
        self.healthy()
        self.assertIn("0.0.0.0:9765", self.sh("ss -Hltn"))

    def test_commands_to_look_at_it(self):
        self.start("dcc-mcp-gateway")
        self.assertIn("active (running)", self.sh(block("systemd-look")))

    def test_removing_it(self):
        self.start("dcc-mcp-gateway")
        self.sh(block("systemd-remove"))
        self.assertEqual(self.show("dcc-mcp-gateway", "LoadState"), "not-found")
        self.sh(block("install-tar"))
        self.sh(block("systemd-install"))
