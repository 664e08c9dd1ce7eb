"""Every error of the system is built here. The C types call these functions, and raise what they return."""

from __future__ import annotations

import errno
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TypeAlias

    #: What a file was opened by, as errors name it: a path, or a descriptor.
    Name: TypeAlias = str | bytes | int

# ENODEV means two things, and its text ("No such device") neither. On Windows the code is ERROR_NOT_SUPPORTED.
_CANNOT_MAP = 50 if sys.platform == "win32" else errno.ENODEV
_NOTES = {
    (_CANNOT_MAP, "open"): "not a regular file that can be mapped, nor a disk in mode 'r', 'r+' or 'c'",
    (_CANNOT_MAP, "map"): "its file system cannot map it like this",
}


def os_error(code: int, name: Name | None, doing: str = "", text: str = "") -> OSError:
    """Build the ``OSError`` subclass that fits *code*, errno's or (on Windows) ``GetLastError``'s, about file *name*.

    *doing* is what the system refused to do; *text* is there when better words are known than the system's.
    """
    text = text or _NOTES.get((code, doing), "") or (doing in ("map", "resize", "refresh") and _map_limit(code)) or ""
    if sys.platform == "win32":
        if not text:
            from mappedfile._native import ffi

            text = ffi.getwinerror(code)[1]
        return OSError(0, text, name, code)
    return OSError(code, text or os.strerror(code), name)


class MappingFault(OSError):  # noqa: N818 (a fault is what it is)
    """Bytes of a map are gone: the file was cut short under it, the disk behind a hole is full, or its device failed.

    ``errno`` is ``EIO``, or ``ENOSPC`` where it is sure that the disk is full; ``filename`` is the file. Raised by
    access through the library; buffers read zeros there.
    """

    #: Where in the file the first byte was that was asked for and is gone; None when that is not known.
    offset: int | None = None


MappingFault.__module__ = "mappedfile"

#: What to do after one.
_ANEW = "refresh() of the mapped file maps what there is, for new views and streams"


def mapping_fault(name: Name, offset: int | None = None, handle: int = -1, layer: int = 0) -> MappingFault:
    """Build the error for bytes of file *name* that are gone. *handle* is the open file, or -1.

    *layer* says whether it was mapped with ``mappedfile.mmap``.
    """
    where = "" if offset is None else f" at offset {offset}"
    code, why = errno.EIO, "the file was cut short, or its device failed"
    if sys.platform != "win32" and handle >= 0 and offset is not None:
        try:
            full = os.fstatvfs(handle).f_bavail == 0
            inside = offset < os.fstat(handle).st_size
        except OSError:  # what is told is the fault
            full = inside = False
        if full and inside:
            code, why = errno.ENOSPC, "the disk is full: there is no block for them"
        elif full:
            why = "the file was cut short, its disk is full, or its device failed"
    what = "another map has what there is" if layer else _ANEW
    fault = MappingFault(code, f"bytes mapped{where} are gone ({why}): {what}", name)
    fault.offset = offset
    return fault


def _pieces(path: str) -> Iterator[bytes]:
    """Read a file in small pieces: there may be no memory for a large one."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        while piece := os.read(descriptor, 4096):
            yield piece
    finally:
        os.close(descriptor)


def _map_limit(code: int) -> str:
    """Say so if it was the number of maps: mmap(2), ENOMEM. Linux alone has such a limit."""
    if code != errno.ENOMEM or sys.platform != "linux":
        return ""
    try:
        most = int(b"".join(_pieces("/proc/sys/vm/max_map_count")))
        there = sum(piece.count(b"\n") for piece in _pieces("/proc/self/maps"))
    except (OSError, MemoryError):  # what is told is the error that led here
        return ""
    if there < most - 1:
        return ""
    return (
        f"the process has {there} maps, and may have {most} (vm.max_map_count): close views and drop buffers, map"
        " larger parts, or raise the limit (sysctl vm.max_map_count)"
    )


def lock_error(code: int, name: Name, size: int) -> OSError | None:
    """Build the error for *size* bytes that a limit keeps from being locked; None if it was no limit."""
    from mappedfile import _limits

    limit = _limits.lock_limit(code, size)
    return os_error(code, name, text=limit) if limit else None


def alive_error(views: int, buffers: int, what: str) -> BufferError:
    """Build the error that says what and how many are alive."""
    parts = [
        f"{number} {kind}{'s'[: number != 1]}" for number, kind in ((views, "view"), (buffers, "buffer")) if number
    ]
    return BufferError(
        f"cannot {what}: {' and '.join(parts)} of it alive; close the views, and drop the memoryviews and arrays made"
        " from them"
    )
