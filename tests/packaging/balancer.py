"""nginx and HAProxy, run with the files of `packaging/` as they are, at the places where they belong.

Their folders in /etc are covered by empty ones in memory, in the mount namespace of the test.
"""

import pathlib
import shutil

from kit import Folder, Processes, ROOT, cover, free_address, run, until

NAME = "mcp.example.com"


def certificate(folder):
    run(
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
        "-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}",
        "-keyout", folder / f"{NAME}.key", "-out", folder / f"{NAME}.crt",
    )
    (folder / f"{NAME}.pem").write_text((folder / f"{NAME}.crt").read_text() + (folder / f"{NAME}.key").read_text())


def name_the_balancer(scratch):
    """mcp.example.com is this host, in this namespace."""
    free_address("10.0.0.10")
    hosts = scratch / "hosts"
    hosts.write_text(f"127.0.0.1 localhost\n10.0.0.10 {NAME}\n")
    run("mount", "--bind", hosts, "/etc/hosts")


class Nginx:
    def __init__(self, extra=""):
        self.scratch, self.processes = Folder(), Processes()
        name_the_balancer(self.scratch)
        cover("/etc/nginx")
        etc = pathlib.Path("/etc/nginx")
        (etc / "tls").mkdir()
        (etc / "conf.d").mkdir()
        certificate(etc / "tls")
        cover("/run")
        (etc / "nginx.conf").write_text(
            "user root;\nworker_processes 2;\npid /run/nginx.pid;\nerror_log /run/nginx-error.log info;\n"
            "events { worker_connections 1024; }\nhttp {\n  access_log off;\n  include /etc/nginx/conf.d/*.conf;\n}\n"
        )
        self.file = etc / "conf.d/dcc-mcp.conf"
        text = (ROOT / "packaging/nginx/dcc-mcp.conf").read_text()
        if extra:
            text = text.replace("upstream dcc_mcp_gateways {\n", "upstream dcc_mcp_gateways {\n    " + extra + "\n")
        self.file.write_text(text)
        self.processes.start("nginx", "-g", "daemon off;", log=self.scratch / "log")
        until("nginx has its pid file", lambda: pathlib.Path("/run/nginx.pid").exists())

    def errors(self):
        lines = pathlib.Path("/run/nginx-error.log").read_text().splitlines()
        return "\n".join(line for line in lines if "[error]" in line)

    def stop(self):
        self.processes.stop()
        for folder in ["/run", "/etc/nginx", "/etc/hosts"]:
            run("umount", "-l", folder)
        self.scratch.remove()


class HAProxy:
    def __init__(self):
        self.scratch, self.processes = Folder(), Processes()
        name_the_balancer(self.scratch)
        cover("/etc/haproxy")
        etc = pathlib.Path("/etc/haproxy")
        (etc / "tls").mkdir()
        certificate(etc / "tls")
        shutil.copy(ROOT / "packaging/haproxy/haproxy.cfg", etc / "haproxy.cfg")
        self.processes.start("haproxy", "-db", "-f", etc / "haproxy.cfg", log=self.scratch / "log")

    def errors(self):
        return (self.scratch / "log").read_text()

    def stop(self):
        self.processes.stop()
        for folder in ["/etc/haproxy", "/etc/hosts"]:
            run("umount", "-l", folder)
        self.scratch.remove()
