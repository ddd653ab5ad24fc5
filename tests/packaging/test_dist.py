"""`make dist` and `make install`: one static, reproducible file that runs in an empty root, and its papers."""

import pathlib
import re
import shutil
import socket
import struct
import threading
import unittest

from kit import DIST, Folder, PROGRAM, Processes, ROOT, TARGET, VERSION, free_address, run, until

BYTES_MAX = 2_500_000  # docs/decisions/0006-dist-size.md
FIGURES = []
NAME = f"dcc-mcp-server-{VERSION}-x86_64-linux"


class Program(unittest.TestCase):
    def test_it_is_one_static_stripped_file(self):
        self.assertNotIn("INTERP", run("readelf", "--program-headers", "--wide", PROGRAM))
        self.assertNotIn("NEEDED", run("readelf", "--dynamic", "--wide", PROGRAM))
        self.assertNotIn(".symtab", run("readelf", "--sections", "--wide", PROGRAM))
        size = PROGRAM.stat().st_size
        FIGURES.append(f"program {size / 1e6:.2f} MB, tar ball {(DIST / (NAME + '.tar.gz')).stat().st_size / 1e6:.2f} MB")
        self.assertLessEqual(size, BYTES_MAX)

    def test_no_path_of_the_build_is_in_it(self):
        program = PROGRAM.read_bytes()
        for path in [ROOT, TARGET, pathlib.Path.home() / ".cargo", run("rustc", "--print", "sysroot").strip() + "/lib/rustlib"]:
            self.assertNotIn(str(path).encode(), program)

    def test_another_folder_gives_the_same_bytes(self):
        """The second build has other folders for the sources and for cargo's target, with a blank in both names; and it
        gets only what the builder stage of the image gets, without git."""
        folder = Folder()
        self.addCleanup(folder.remove)
        files = run("git", "-C", ROOT, "ls-files", "--cached", "--others", "--exclude-standard").splitlines()
        allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
        for name in files:
            if (ROOT / name).is_file() and (name in allowed or name.split("/")[0] in allowed):
                (folder / "else where" / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / "else where" / name)
        epoch = run("git", "-C", ROOT, "log", "-1", "--format=%ct").strip()
        environment = {"CARGO_TARGET_DIR": str(folder / "other target"), "SOURCE_DATE_EPOCH": epoch}
        run("packaging/dist.sh", cwd=folder / "else where", env=environment, timeout=900)
        self.assertEqual((folder / "other target/dist/SHA256SUMS").read_text(), (DIST / "SHA256SUMS").read_text())

    def test_checksums_and_tar_ball(self):
        run("sha256sum", "--check", "--strict", "SHA256SUMS", cwd=DIST)
        lines = run("tar", "-tvzf", DIST / f"{NAME}.tar.gz").splitlines()
        names = [line.split()[-1] for line in lines]
        self.assertEqual(names, sorted(names))
        self.assertEqual({line.split()[1] for line in lines}, {"0/0"})
        self.assertEqual(len({tuple(line.split()[3:5]) for line in lines}), 1, "one time for all")

    def test_install_has_what_the_tar_ball_has(self):
        folder = Folder()
        self.addCleanup(folder.remove)
        run("make", "install", "PREFIX=/opt/dcc", f"DESTDIR={folder.path}", cwd=ROOT, timeout=900)
        installed = {str(path.relative_to(folder / "opt/dcc")) for path in (folder / "opt/dcc").rglob("*") if path.is_file()}
        packed = {line[len(NAME) + 1 :] for line in run("tar", "-tzf", DIST / f"{NAME}.tar.gz").split() if not line.endswith("/")}
        self.assertEqual(installed, packed)
        self.assertEqual(len(installed), 12)
        for unit in (folder / "opt/dcc/lib/systemd/system").glob("*.service"):
            self.assertIn("ExecStart=/opt/dcc/bin/dcc-mcp-server\n", unit.read_text())
        self.assertEqual(run(folder / "opt/dcc/bin/dcc-mcp-server", "--version"), f"dcc-mcp-server {VERSION}\n")


class EmptyRoot(unittest.TestCase):
    """chroot into a folder that holds the program alone."""

    def setUp(self):
        self.folder, self.processes = Folder(), Processes()
        self.addCleanup(self.folder.remove)
        self.addCleanup(self.processes.stop)
        shutil.copy2(self.program(), self.folder / "server")

    def program(self):
        return PROGRAM

    def server(self, *flags):
        flags = ["--host", "127.0.0.1", "--registry-dir", "/registry", *flags]
        self.processes.start("chroot", self.folder.path, "/server", *flags, log=self.folder / "log")
        until("it is healthy", lambda: "rc=0" in self.health("http://127.0.0.1:9765"))

    def health(self, url):
        return run(f"chroot {self.folder.path} /server healthcheck {url} 2>&1 && echo rc=0 || echo rc=$?")

    def test_it_serves_and_stops(self):
        self.server()
        self.assertIn("unknown", run("chroot", self.folder.path, "/server", "status"))
        process = self.processes.all[0]
        process.terminate()
        self.assertEqual(process.wait(30), 0)
        self.assertEqual(list((self.folder / "registry/instances").iterdir()), [])

    def test_localhost_is_known_without_a_hosts_file(self):
        self.server()
        self.assertIn("rc=0", self.health("http://localhost:9765/readyz"))

    def test_names_come_from_the_hosts_file_and_from_dns(self):
        self.server("--allowed-hosts", "gateway-a,gateway-b")
        (self.folder / "etc").mkdir()
        (self.folder / "etc/hosts").write_text("127.0.0.1 gateway-a\n")
        self.assertIn("rc=0", self.health("http://gateway-a:9765/health"))
        self.assertIn("rc=1", self.health("http://gateway-b:9765/health"))
        free_address("127.0.0.53")
        dns = NameServer({"gateway-b.studio.example": "127.0.0.1"})
        self.addCleanup(dns.stop)
        (self.folder / "etc/resolv.conf").write_text("nameserver 127.0.0.53\nsearch studio.example\noptions timeout:1 attempts:1\n")
        self.assertIn("rc=0", self.health("http://gateway-b:9765/health"))
        self.assertIn("rc=1", self.health("http://gateway-c:9765/health"))
        self.assertGreater(dns.asked, 0)


class NameServer:
    """Answers A questions for some names at 127.0.0.53, and that there is none for all others."""

    def __init__(self, names):
        self.names, self.asked = names, 0
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.53", 53))
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        while True:
            query, peer = self.socket.recvfrom(512)
            if not query:
                return
            self.asked += 1
            labels, at = [], 12
            while query[at]:
                labels.append(query[at + 1 : at + 1 + query[at]].decode())
                at += 1 + query[at]
            kind = struct.unpack(">H", query[at + 1 : at + 3])[0]
            address = self.names.get(".".join(labels).lower())
            found = bool(address) and kind == 1
            head = query[:2] + struct.pack(">HHHHH", 0x8580 if address else 0x8583, 1, int(found), 0, 0)
            answer = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + socket.inet_aton(address) if found else b""
            self.socket.sendto(head + query[12 : at + 5] + answer, peer)

    def stop(self):
        """While a thread waits at a socket, closing that gives back no address: it is told first."""
        self.socket.sendto(b"", self.socket.getsockname())
        self.thread.join(20)
        self.socket.close()


class Papers(unittest.TestCase):
    def test_the_man_page_is_well_formed(self):
        self.assertEqual(run("mandoc", "-T", "lint", "-W", "warning", ROOT / "packaging/man/dcc-mcp-server.1"), "")
        page = re.sub(".\b", "", run("mandoc", "-T", "utf8", ROOT / "packaging/man/dcc-mcp-server.1"))
        for text in ["--gateway-port PORT", "[DCC_MCP_GATEWAY_PORT, default: 9765]", "EXIT CODES", "healthcheck [URL]"]:
            self.assertIn(text, page)

    def complete_bash(self, *words):
        line = " ".join(words)
        script = f"""source {ROOT}/packaging/completions/dcc-mcp-server.bash
COMP_WORDS=({' '.join(word or "''" for word in words)}); COMP_CWORD={len(words) - 1}; COMP_LINE='{line}'
_dcc_mcp_server 2>/dev/null; printf '%s\\n' "${{COMPREPLY[@]}}" """
        return run("bash", "-c", script).split()

    def test_bash_completes(self):
        self.assertIn("--gateway-port", self.complete_bash("dcc-mcp-server", "--ga"))
        self.assertEqual(self.complete_bash("dcc-mcp-server", "hea"), ["healthcheck"])
        self.assertEqual(self.complete_bash("dcc-mcp-server", "--log-level", "de"), ["debug"])
        self.assertEqual(self.complete_bash("dcc-mcp-server", "--log-level", "=", "de"), ["debug"])
        self.assertEqual(self.complete_bash("dcc-mcp-server", "status", "--js"), ["--json"])
        self.assertEqual(self.complete_bash("dcc-mcp-server", "status", "--dr"), [])
        self.assertIn("--drain-timeout", self.complete_bash("dcc-mcp-server", "--dcc", "maya", "--dr"))

    def test_fish_completes(self):
        def complete(line):
            source = f"source {ROOT}/packaging/completions/dcc-mcp-server.fish; complete -C {line!r}"
            return [found.split("\t")[0] for found in run("fish", "--no-config", "-c", source).splitlines()]

        self.assertEqual(complete("dcc-mcp-server --gateway-p"), ["--gateway-port"])
        self.assertEqual(complete("dcc-mcp-server --log-level de"), ["debug"])
        self.assertEqual(complete("dcc-mcp-server hea"), ["healthcheck"])
        self.assertEqual(complete("dcc-mcp-server status --js"), ["--json"])
        self.assertEqual(complete("dcc-mcp-server status --dr"), [])

    def test_zsh_completes(self):
        folder = Folder()
        self.addCleanup(folder.remove)
        shutil.copy(ROOT / "packaging/completions/_dcc-mcp-server", folder / "_dcc-mcp-server")

        def complete(line):
            """A real zsh on a terminal of its own, asked by the tab key."""
            script = f"""zmodload zsh/zpty; zpty -b z zsh -f -i
zpty -w z "PS1=; fpath=({folder.path} \\$fpath); autoload -U compinit; compinit -u -D; zstyle ':completion:*' list-prompt ''; LISTMAX=10000; stty columns 200; print REA''DY"
zpty -r z out '*READY*'
zpty -n -w z {line!r}$'\\t'$'\\t'
sleep 1; while zpty -r -t z more; do out+=$more; done; print -r -- $out; zpty -d z"""
            return run("zsh", "-f", "-c", script)

        self.assertIn("--gateway-port", complete("dcc-mcp-server --gate"))
        self.assertIn("healthcheck", complete("dcc-mcp-server hea"))
        self.assertIn("--json", complete("dcc-mcp-server status --js"))
