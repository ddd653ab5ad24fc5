"""The program with musl: one static file, reproducible, that knows names of hosts in an empty root as that with glibc does."""

import test_dist
from kit import Folder, ROOT, TARGET, run

BYTES_MAX = 1_500_000  # docs/decisions/0006-dist-size.md
TRIPLE = "x86_64-unknown-linux-musl"
MUSL = TARGET / "musl"  # another target folder, as dist.sh empties its own `dist`
FIGURES = []


def prepare():
    run("packaging/dist.sh", TRIPLE, cwd=ROOT, env={"CARGO_TARGET_DIR": str(MUSL)}, timeout=900)


class EmptyRoot(test_dist.EmptyRoot):
    def program(self):
        return MUSL / "dist/dcc-mcp-server"

    def test_it_is_one_small_static_file(self):
        self.assertNotIn("INTERP", run("readelf", "--program-headers", "--wide", self.program()))
        self.assertNotIn(b"GNU C Library", self.program().read_bytes())
        size = self.program().stat().st_size
        FIGURES.append(f"program with musl {size / 1e6:.2f} MB")
        self.assertLessEqual(size, BYTES_MAX)

    def test_a_second_build_gives_the_same_bytes(self):
        folder = Folder()
        self.addCleanup(folder.remove)
        environment = {"CARGO_TARGET_DIR": str(folder / "other target")}
        run("packaging/dist.sh", TRIPLE, cwd=ROOT, env=environment, timeout=900)
        self.assertEqual((folder / "other target/dist/SHA256SUMS").read_text(), (MUSL / "dist/SHA256SUMS").read_text())
