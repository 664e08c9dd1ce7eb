"""A FUSE file system with pages that cannot be read. For tests/test_guard.py.

    python -m children.fuse PLACE PAGES CONTROL

This needs root on Linux. It mounts the file system at PLACE, prints "ready" or an error, and serves
requests until it is unmounted. The file system has one file named "file" of PAGES pages. CONTROL is
a file with numbers of pages: reading one of these fails with EIO.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import sys
from pathlib import Path

PAGE = os.sysconf("SC_PAGE_SIZE")
ROOT, FILE = 1, 2
# Requests of the kernel: fuse(4)
(
    LOOKUP,
    FORGET,
    GETATTR,
    SETATTR,
    OPEN,
    READ,
    RELEASE,
    FSYNC,
    FLUSH,
    INIT,
    OPENDIR,
    INTERRUPT,
    FORGETS,
) = (1, 2, 3, 4, 14, 15, 18, 20, 25, 26, 27, 36, 42)


def page(number: int) -> bytes:
    """Return the content of a page."""
    return bytes([number % 255 + 1]) * PAGE


class Server:
    """Answers the requests of the kernel."""

    def __init__(self, place: str, pages: int, control: Path) -> None:
        self.content = b"".join(map(page, range(pages)))
        self.control = control
        self.device = os.open("/dev/fuse", os.O_RDWR)
        options = f"fd={self.device},rootmode=40000,user_id=0,group_id=0".encode()
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mount(b"failing", os.fsencode(place), b"fuse", ctypes.c_ulong(0), options) != 0:
            raise OSError(ctypes.get_errno(), "mount")

    def serve(self) -> None:
        while True:
            try:
                request = os.read(self.device, 1 << 18)
            except OSError as error:
                if error.errno == errno.ENODEV:  # unmounted
                    return
                raise
            _, code, unique, node = struct.unpack_from("<IIQQ", request)
            if code in (FORGET, FORGETS, INTERRUPT):
                continue
            answer = self.answer(code, node, request[40:])
            error, data = (answer, b"") if isinstance(answer, int) else (0, answer)
            os.write(self.device, struct.pack("<IiQ", 16 + len(data), -error, unique) + data)

    def answer(self, code: int, node: int, rest: bytes) -> bytes | int:
        """Return the answer of a request, or an error number."""
        if code == INIT:
            # Version 7.31, without readahead, so that each page fails separately.
            return struct.pack("<IIIIHHIIHHI28x", 7, 31, 0, 0, 0, 0, 1 << 16, 1, 0, 0, 0)
        if code == LOOKUP:
            if rest != b"file\0":
                return errno.ENOENT
            return struct.pack("<QQQQII", FILE, 0, 3600, 3600, 0, 0) + self.attributes(FILE)
        if code in (GETATTR, SETATTR):
            return struct.pack("<QII", 3600, 0, 0) + self.attributes(node)
        if code in (OPEN, OPENDIR):
            return struct.pack("<QII", 0, 0, 0)
        if code == READ:
            _, offset, size = struct.unpack_from("<QQI", rest)
            failing = self.control.read_text().split()
            if any(
                str(number) in failing
                for number in range(offset // PAGE, (offset + size - 1) // PAGE + 1)
            ):
                return errno.EIO
            return self.content[offset : offset + size]
        return b"" if code in (RELEASE, FLUSH, FSYNC) else errno.ENOSYS

    def attributes(self, node: int) -> bytes:
        size, mode = (
            (0, stat.S_IFDIR | 0o755) if node == ROOT else (len(self.content), stat.S_IFREG | 0o644)
        )
        return struct.pack(
            "<6Q10I", node, size, size // 512, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, PAGE, 0
        )


if __name__ == "__main__":
    try:
        server = Server(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
    except OSError as error:
        sys.exit(print(error))
    print("ready", flush=True)
    server.serve()
