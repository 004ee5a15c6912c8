"""File systems of their own, in memory, that can be full or read-only. Only root may mount them, in a namespace of the
harness's own (`apart`): they are gone with it, however it ends."""

import os
import subprocess
import sys

ROOM = 4 * 1024**3  # bytes; what is not used costs nothing
_APART = "TORTURE_APART"


def apart():
    """Begin this program anew where its mounts are nobody else's; True once it is there, False where that cannot be."""
    if os.environ.get(_APART):
        return True
    command = ["unshare", "--mount", "--propagation", "private"]
    try:
        possible = (
            os.geteuid() == 0 and subprocess.run([*command, "true"], capture_output=True).returncode == 0
        )
    except FileNotFoundError:
        possible = False
    if possible:
        os.execvpe("unshare", [*command, sys.executable, *sys.orig_argv[1:]], {**os.environ, _APART: "1"})
    return False


class Disk:
    """One file system, mounted at `folder` until it is closed."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._mount("-t", "tmpfs", "-o", f"size={ROOM},mode=0711", "torture")

    def fill(self):
        """Leave no room for one more page until `make_room` (an empty one keeps one: no size would mean no limit)."""
        while True:
            there = os.statvfs(self.folder)
            used = max(1, there.f_blocks - there.f_bfree) * there.f_frsize
            try:
                return self._mount("-o", f"remount,size={used}")
            except subprocess.CalledProcessError:
                continue  # somebody wrote in between: it would be smaller than what it holds

    def make_room(self):
        self._mount("-o", f"remount,size={ROOM}")

    def read_only(self, on=True):
        self._mount("-o", f"remount,{'ro' if on else 'rw'}")

    def close(self):
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)

    def _mount(self, *options):
        subprocess.run(["mount", *options, str(self.folder)], check=True, capture_output=True)
