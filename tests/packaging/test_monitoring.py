"""A real Prometheus that scrapes two replicas as docs/monitoring.md says, and is asked what the guide would raise alarms for."""

import json
import pathlib
import re
import unittest
import urllib.parse

from kit import ROOT, Processes, Replicas, block, cover, get, run, until

A, B = "10.0.0.11", "10.0.0.12"
ETC = pathlib.Path("/etc/prometheus")
TOKEN = "d41d8cd98f00b204"


class Monitored(unittest.TestCase):
    def setUp(self):
        cover(ETC)
        self.addCleanup(run, "umount", "-l", ETC)
        (ETC / "dcc-mcp.auth-token").write_text(f"{TOKEN}\n")
        # The guide has a part of a file: how often is not in it.
        (ETC / "prometheus.yml").write_text("global: {scrape_interval: 1s}\n" + block("prometheus"))
        self.replicas = Replicas(A, B)
        self.addCleanup(self.replicas.remove)
        for address in (A, B):
            self.replicas.start(address, flags=["--auth-token-file", ETC / "dcc-mcp.auth-token"])

    def metrics(self):
        return get(f"http://{A}:9765/metrics", headers={"Authorization": f"Bearer {TOKEN}"})

    def start_prometheus(self):
        processes = Processes()
        self.addCleanup(processes.stop)
        flags = [f"--config.file={ETC}/prometheus.yml", f"--storage.tsdb.path={self.replicas.folder / 'prometheus'}"]
        processes.start("prometheus", *flags, "--web.listen-address=127.0.0.1:9090", log=self.replicas.folder / "prometheus.log")
        until("Prometheus is ready", lambda: get("http://127.0.0.1:9090/-/ready")[0] == 200)

    def ask(self, expression):
        """The series that the expression gives now."""
        status, body = get(f"http://127.0.0.1:9090/api/v1/query?{urllib.parse.urlencode({'query': expression})}")
        self.assertEqual(status, 200, f"{expression}: {body}")
        return json.loads(body)["data"]["result"]

    def test_what_is_exposed_is_well_formed(self):
        run("promtool", "check", "config", ETC / "prometheus.yml")
        (self.replicas.folder / "metrics").write_bytes(self.metrics()[1])
        run(f"promtool check metrics < {self.replicas.folder / 'metrics'}")
        self.assertEqual(get(f"http://{A}:9765/metrics")[0], 401, "with a token it wants that")

    def test_alarms(self):
        """Every expression of the guide's table is one, knows its metrics, and is silent while all is well."""
        self.start_prometheus()
        until("both are scraped", lambda: len(self.ask("up == 1")) == 2)
        table = (ROOT / "docs/monitoring.md").read_text().split("| Worth an alarm |")[1].split("\n\n")[0]
        alarms = re.findall(r"^\| `([^`]+)`", table, re.M)
        self.assertGreaterEqual(len(alarms), 6)
        for alarm in alarms:
            for name in re.findall(r"[a-z_]+_[a-z_]+", alarm):
                until(f"{name} is there", lambda: self.ask(name))
            if re.search("[<>=]", alarm):
                self.assertEqual(self.ask(alarm), [], alarm)
        self.replicas.kill(B)
        until("the alarm is raised", lambda: [series["metric"]["instance"] for series in self.ask("up == 0")] == [f"{B}:9765"])
