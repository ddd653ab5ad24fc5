"""podman and buildah with storage of their own, set up by a file so that commands of the guides run as they stand."""

from kit import DIST, ROOT, Folder, run

class Podman:
    def __init__(self):
        self.folder = Folder()
        (self.folder / "containers.conf").write_text(
            # crun refuses machines with both generations of cgroups; events and logs need no journal here.
            '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
            f'tmp_dir = "{self.folder / "tmp"}"\n'
            '[containers]\nlog_driver = "k8s-file"\n'
            # podman asks for more than this machine may give; that stops the start.
            'default_ulimits = ["nofile=20000:20000", "nproc=20000:20000"]\n[network]\nnetwork_backend = "netavark"\n'
        )
        (self.folder / "storage.conf").write_text(
            f'[storage]\ndriver = "vfs"\nrunroot = "{self.folder / "run"}"\ngraphroot = "{self.folder / "graph"}"\n'
        )
        self.env = {
            "CONTAINERS_CONF": str(self.folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(self.folder / "storage.conf"),
            "BUILDAH_ISOLATION": "chroot",
        }
        dist_into_the_context()

    def sh(self, script, timeout=300):
        return run(script, env=self.env, cwd=ROOT, timeout=timeout)

    def run(self, *words):
        return run("podman", *words, env=self.env, cwd=ROOT)

    def remove(self):
        self.sh("podman pod rm -af -t 0 2>/dev/null || true; podman rm -af -t 0 || true; podman volume prune -f || true")
        run(f"umount -l {self.folder.path}/graph/vfs 2>/dev/null || true; umount -l {self.folder.path}/graph 2>/dev/null || true")
        self.folder.remove()

def dist_into_the_context():
    """Where cargo's target folder is elsewhere, what was built is shown below target/ all the same, in this namespace."""
    there = ROOT / "target/dist"
    if DIST != there:
        there.mkdir(parents=True, exist_ok=True)
        run("mount", "--bind", DIST, there)
