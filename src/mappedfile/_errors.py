"""The exceptions for errors of the system. The C types call these functions."""

from __future__ import annotations

import errno
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TypeAlias

    #: The name of a file in errors: a path or a descriptor.
    Name: TypeAlias = str | bytes | int

# ENODEV has two meanings here, and its text ("No such device") fits neither. On Windows the code is
# ERROR_NOT_SUPPORTED.
_CANNOT_MAP = 50 if sys.platform == "win32" else errno.ENODEV
_BETTER_TEXTS = {
    (_CANNOT_MAP, "open"): (
        "not a regular file that can be mapped, nor a disk in mode 'r', 'r+' or 'c'"
    ),
    (_CANNOT_MAP, "map"): "its file system cannot map it in this mode",
}


def os_error(code: int, name: Name | None, doing: str = "", text: str = "") -> OSError:
    """Build the ``OSError`` subclass for *code*, of errno or ``GetLastError``, and file *name*.

    *doing* is the operation that failed. *text* replaces the text of the system, if it is given.
    """
    text = (
        text
        or _BETTER_TEXTS.get((code, doing), "")
        or (doing in ("map", "resize", "refresh") and _map_limit(code))
        or ""
    )
    if sys.platform == "win32":
        if not text:
            from mappedfile._native import ffi

            text = ffi.getwinerror(code)[1]
        return OSError(0, text, name, code)
    return OSError(code, text or os.strerror(code), name)


class MappingFault(OSError):  # noqa: N818 (it is called a fault)
    """Bytes of a map are gone: the file was truncated, its disk is full, or its device failed.

    ``errno`` is ``EIO``, or ``ENOSPC`` if the disk behind a hole is certainly full. ``filename`` is
    the file. Reading or writing such bytes through the library raises this error. Buffers read
    zeros there.
    """

    #: The offset in the file of the first requested byte that is gone; None if it is unknown.
    offset: int | None = None


MappingFault.__module__ = "mappedfile"

#: The advice in the message of a MappingFault.
_WHAT_TO_DO = "refresh() of the mapped file maps the present bytes, for new views and streams"


def mapping_fault(
    name: Name, offset: int | None = None, handle: int = -1, layer: int = 0
) -> MappingFault:
    """Build the error for bytes of file *name* that are gone. *handle* is the open file, or -1.

    *layer* is 1 for a map of ``mappedfile.mmap``.
    """
    where = "" if offset is None else f" at offset {offset}"
    code, why = errno.EIO, "the file was truncated, or its device failed"
    if sys.platform != "win32" and handle >= 0 and offset is not None:
        try:
            disk = os.fstatvfs(handle)
            # Blocks may be smaller than pages: a few of them are no room for a page.
            full = disk.f_bavail * disk.f_frsize < os.sysconf("SC_PAGESIZE")
            inside = offset < os.fstat(handle).st_size
        except OSError:  # the fault itself is reported
            full = inside = False
        if full and inside:
            code, why = errno.ENOSPC, "the disk is full: it has no room for them"
        elif full:
            why = "the file was truncated, its disk is full, or its device failed"
    what = "map the file again" if layer else _WHAT_TO_DO
    fault = MappingFault(code, f"bytes mapped{where} are gone ({why}): {what}", name)
    fault.offset = offset
    return fault


def _pieces(path: str) -> Iterator[bytes]:
    """Read a file in small pieces, since memory may be short."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        while piece := os.read(descriptor, 4096):
            yield piece
    finally:
        os.close(descriptor)


#: Memory for _map_limit, which frees it first. At the limit of maps the heap cannot grow: Linux,
#: do_brk_flags.
_spare_memory: bytes | None = bytes(1 << 15) if sys.platform == "linux" else None


def _map_limit(code: int) -> str:
    """Return a text if the number of maps was at its limit: mmap(2), ENOMEM. Only Linux has one."""
    global _spare_memory
    if code != errno.ENOMEM or sys.platform != "linux":
        return ""
    _spare_memory = None
    try:
        most = int(b"".join(_pieces("/proc/sys/vm/max_map_count")))
        there = sum(piece.count(b"\n") for piece in _pieces("/proc/self/maps"))
    except (OSError, MemoryError):  # the first error is reported
        return ""
    finally:
        try:  # noqa: SIM105 (contextlib is not imported: it takes as long as all of mappedfile)
            _spare_memory = bytes(1 << 15)
        except MemoryError:
            pass
    if there < most - 1:
        return ""
    return (
        f"the process has {there} maps, and may have {most} (vm.max_map_count): close views and"
        " drop buffers, map larger parts, or raise the limit (sysctl vm.max_map_count)"
    )


def lock_error(code: int, name: Name, size: int) -> OSError | None:
    """Build the error for a limit on locked memory that *size* bytes exceed; None without one."""
    from mappedfile import _limits

    limit = _limits.lock_limit(code, size)
    return os_error(code, name, text=limit) if limit else None


def alive_error(views: int, buffers: int, what: str) -> BufferError:
    """Build the error for an operation that views and buffers prevent."""
    parts = [
        f"{number} {kind}{'s'[: number != 1]}"
        for number, kind in ((views, "view"), (buffers, "buffer"))
        if number
    ]
    return BufferError(
        f"cannot {what}: {' and '.join(parts)} of it alive; close the views, and drop the"
        " memoryviews and arrays made from them"
    )
