"""Opening files without being led astray: plain names only, below one folder, regular files only, no links."""

import errno
import os
import re
import stat
import sys
from typing import List, Optional

_DEVICES = re.compile(
    r"(?:con|prn|aux|nul|conin\$|conout\$|clock\$|com[0-9¹²³]|lpt[0-9¹²³])(?:[ .:].*)?\Z", re.IGNORECASE
)
_WINDOWS = sys.platform == "win32"
_REPARSE_POINT = 0x400


class Refused(Exception):
    """Something that is not opened, whatever the rights; the text says why."""


def is_plain_name(name: str) -> bool:
    """Whether a name means a file directly in a folder, on Linux and on Windows alike."""
    if not name or len(name) > 255 or name in (".", "..") or name[-1] in ". ":
        return False
    if any(sign in '/\\:*?"<>|' or ord(sign) < 32 or ord(sign) == 127 for sign in name):
        return False
    return not _DEVICES.match(name)


class Folder:
    """A folder, held open: what is listed, examined and opened is in this folder and nowhere else."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._handle: Optional[int] = None

    def __enter__(self) -> "Folder":
        if os.open in os.supports_dir_fd:
            flags = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)
            self._handle = os.open(self._path, flags)
        return self

    def __exit__(self, *_: object) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def names(self) -> List[str]:
        return os.listdir(self._path if self._handle is None else self._handle)

    def examine(self, name: str) -> os.stat_result:
        """What lies under the name itself, links not followed."""
        if self._handle is None:
            return os.lstat(os.path.join(self._path, name))
        return os.stat(name, dir_fd=self._handle, follow_symlinks=False)

    def open(self, name: str) -> int:
        """A descriptor for reading a regular file; Refused for anything else, OSError as the system says."""
        refuse_unless_regular(self.examine(name))
        if _WINDOWS:
            descriptor = _open_on_windows(os.path.join(self._path, name))
        else:
            # O_NONBLOCK: were the file exchanged for a FIFO just now, opening must not hang.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            descriptor = self._open(name, flags)
        try:
            refuse_unless_regular(os.fstat(descriptor))
        except Refused:
            os.close(descriptor)
            raise
        return descriptor

    def _open(self, name: str, flags: int) -> int:
        try:
            if self._handle is None:
                return os.open(os.path.join(self._path, name), flags)
            return os.open(name, flags, dir_fd=self._handle)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise Refused("it is a link") from None
            raise


def refuse_unless_regular(found: os.stat_result) -> None:
    """Refused for links, FIFOs, sockets, devices and folders."""
    if stat.S_ISLNK(found.st_mode) or getattr(found, "st_file_attributes", 0) & _REPARSE_POINT:
        raise Refused("it is a link")
    if not stat.S_ISREG(found.st_mode):
        raise Refused("it is not a regular file")


def read_at(descriptor: int, offset: int, count: int) -> bytes:
    """Up to `count` bytes from `offset`; fewer only where the file ends."""
    os.lseek(descriptor, offset, os.SEEK_SET)
    blocks = []
    while count > 0:
        block = os.read(descriptor, count)
        if not block:
            break
        blocks.append(block)
        count -= len(block)
    return blocks[0] if len(blocks) == 1 else b"".join(blocks)


def _open_on_windows(path: str) -> int:
    """A descriptor that does not hinder the program that owns the file: it may rename and delete it meanwhile."""
    import ctypes
    import msvcrt

    read, share_all, existing, reparse_point = 0x80000000, 0x1 | 0x2 | 0x4, 3, 0x00200000
    kernel = getattr(ctypes, "WinDLL")("kernel32", use_last_error=True)  # noqa: B009 - unknown elsewhere
    kernel.CreateFileW.restype = ctypes.c_void_p
    kernel.CreateFileW.argtypes = (
        [ctypes.c_wchar_p]
        + [ctypes.c_uint32] * 2
        + [ctypes.c_void_p]
        + [ctypes.c_uint32] * 2
        + [ctypes.c_void_p]
    )
    handle = kernel.CreateFileW(path, read, share_all, None, existing, reparse_point, None)
    if handle is None or handle == ctypes.c_void_p(-1).value:
        raise getattr(ctypes, "WinError")(getattr(ctypes, "get_last_error")())  # noqa: B009 - unknown elsewhere
    return int(getattr(msvcrt, "open_osfhandle")(handle, os.O_RDONLY | getattr(os, "O_BINARY", 0)))  # noqa: B009
