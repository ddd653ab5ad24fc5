"""A file system that is another folder, and fails when it is told to: `faulty.py ROOT MOUNT ORDERS` (FUSE; needs fusepy).

The file ORDERS holds one order a line, and is read at each operation:

    rename EIO            this operation fails so
    write ENOSPC 0.3      in three of ten cases (`SEED` in the environment makes them the same ones again)
    * delay 0.5           every operation takes half a second longer
    * hang                no operation comes back while the order stands, but those on files that were open before
    readdir late 3        a listing may be three seconds old, as in the attribute cache of a network file system; getattr too

An order that is no such order is ignored. Several mounts of one ROOT are several hosts with one shared folder.
"""

import errno
import os
import random
import sys
import threading
import time

from fuse import FUSE, FuseOSError, Operations

STAT = ("st_atime", "st_ctime", "st_gid", "st_ino", "st_mode", "st_mtime", "st_nlink", "st_size", "st_uid")

# Their last argument is the handle.
ON_OPEN_FILES = {"read", "write", "fsync", "flush", "release"}
CHANGES = {"create", "write", "truncate", "rename", "unlink", "mkdir", "rmdir", "symlink", "chmod", "utimens"}


class Faulty(Operations):
    def __init__(self, root, orders):
        self.root, self.orders = os.path.realpath(root), orders
        self.random = random.Random(int(os.environ.get("SEED", "0")))
        self.guard, self.remembered = threading.Lock(), {}
        self.standing, self.standing_since = (None, []), 0
        self.opened = {}

    def __call__(self, operation, path, *rest):
        """Every operation comes through here."""
        late = self.obey(operation, rest)
        if late is None or operation not in ("getattr", "readdir"):
            try:
                return self.really(operation, path, *rest)
            finally:
                self.forget(operation, path, *rest)
        with self.guard:
            seen, outcome = self.remembered.get((operation, path), (None, None))
        if seen is None or time.monotonic() - seen > late:
            try:
                outcome = self.really(operation, path, *rest)
            except OSError as error:
                outcome = error
            with self.guard:
                self.remembered[operation, path] = (time.monotonic(), outcome)
        if isinstance(outcome, OSError):
            raise FuseOSError(outcome.errno)
        return outcome

    def forget(self, operation, path, *rest):
        """What this host has changed itself it does not see late."""
        if operation in CHANGES:
            paths = [path, *(other for other in rest if isinstance(other, str))]
            with self.guard:
                for changed in paths:
                    self.remembered.pop(("getattr", changed), None)
                    self.remembered.pop(("readdir", os.path.dirname(changed)), None)

    def really(self, operation, path, *rest):
        if not hasattr(self, operation):
            raise FuseOSError(errno.EFAULT)
        outcome = getattr(self, operation)(path, *rest)
        if operation in ("open", "create"):
            self.opened[outcome] = time.monotonic()
        return outcome

    def was_open(self, operation, arguments):
        """Whether it is for a file that was open before the orders that stand; the kernel asks for an attribute at each write."""
        if operation == "getxattr":
            return True
        return operation in ON_OPEN_FILES and self.opened.get(arguments[-1], 0) < self.standing_since

    def obey(self, operation, arguments):
        """Waits or fails as ordered; gives the age that an answer may have, if one is ordered."""
        late = None
        for name, what, *rest in self.ordered():
            if name not in (operation, "*"):
                continue
            if what == "delay":
                self.wait([name, what, *rest], float(rest[0]))
            elif what == "hang" and not self.was_open(operation, arguments):
                self.wait([name, what], float("inf"))
            elif what == "late":
                late = float(rest[0])
            elif hasattr(errno, what):
                with self.guard:
                    happens = not rest or self.random.random() < float(rest[0])
                if happens:
                    raise FuseOSError(getattr(errno, what))
        return late

    def ordered(self):
        try:
            found = os.stat(self.orders)
            version = (found.st_ino, found.st_mtime_ns)
            if self.standing[0] != version:
                self.standing_since = time.monotonic()
                with open(self.orders) as file:
                    self.standing = (version, [words for words in map(str.split, file) if len(words) >= 2])
            return self.standing[1]
        except FileNotFoundError:
            return []

    def wait(self, order, seconds):
        """No longer than the order stands."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(min(0.1, max(0, end - time.monotonic())))
            if seconds > 1 and order not in self.ordered():
                return

    def place(self, path):
        return self.root + path

    def getattr(self, path, handle=None):
        found = os.lstat(self.place(path))
        return {name: getattr(found, name) for name in STAT}

    def readdir(self, path, handle):
        return [".", "..", *os.listdir(self.place(path))]

    def create(self, path, mode, info=None):
        return os.open(self.place(path), os.O_RDWR | os.O_CREAT | os.O_TRUNC, mode)

    def open(self, path, flags):
        return os.open(self.place(path), flags)

    def read(self, path, size, offset, handle):
        return os.pread(handle, size, offset)

    def write(self, path, data, offset, handle):
        return os.pwrite(handle, data, offset)

    def truncate(self, path, length, handle=None):
        os.truncate(self.place(path), length)

    def fsync(self, path, data_only, handle):
        os.fsync(handle)

    def release(self, path, handle):
        os.close(handle)

    def rename(self, old, new):
        os.rename(self.place(old), self.place(new))

    def unlink(self, path):
        os.unlink(self.place(path))

    def mkdir(self, path, mode):
        os.mkdir(self.place(path), mode)

    def rmdir(self, path):
        os.rmdir(self.place(path))

    def symlink(self, new, target):
        os.symlink(target, self.place(new))

    def readlink(self, path):
        return os.readlink(self.place(path))

    def chmod(self, path, mode):
        os.chmod(self.place(path), mode)

    def utimens(self, path, times=None):
        os.utime(self.place(path), times)


if __name__ == "__main__":
    # Nothing is kept by the kernel unless KEEP says how many seconds: what is late is late by order.
    keep = os.environ.get("KEEP", "0")
    kept = {"attr_timeout": keep, "entry_timeout": keep, "negative_timeout": 0, "hard_remove": True}
    FUSE(Faulty(sys.argv[1], sys.argv[3]), sys.argv[2], foreground=True, use_ino=True, **kept)
