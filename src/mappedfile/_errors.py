"""Every error of the system is built here. The C types call these functions, and raise what they return."""

from __future__ import annotations

import errno
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    #: What a file was opened by, as errors name it: a path, or a descriptor.
    Name: TypeAlias = str | bytes | int

# ENODEV means two things, and its text ("No such device") neither. On Windows the code is ERROR_NOT_SUPPORTED.
_CANNOT_MAP = 50 if sys.platform == "win32" else errno.ENODEV
_NOTES = {
    (_CANNOT_MAP, "open"): "not a regular file, and nothing else can be mapped",
    (_CANNOT_MAP, "map"): "its file system cannot map it like this",
}


def os_error(code: int, name: Name | None, doing: str = "", text: str = "") -> OSError:
    """Build the ``OSError`` subclass that fits *code*, errno's or (on Windows) ``GetLastError``'s, about file *name*.

    *doing* is what the system refused to do; *text* is there when better words are known than the system's.
    """
    text = text or _NOTES.get((code, doing), "")
    if sys.platform == "win32":
        if not text:
            from mappedfile._native import ffi

            text = ffi.getwinerror(code)[1]
        return OSError(0, text, name, code)
    return OSError(code, text or os.strerror(code), name)


class MappingFault(OSError):  # noqa: N818 (a fault is what it is)
    """Bytes of a map are gone: the file was cut short under it, the disk behind a hole is full, or its device failed.

    ``errno`` is ``EIO`` and ``filename`` the file. Raised by access through the library; buffers read zeros there.
    """

    #: Where in the file the first byte was that was asked for and is gone; None when that is not known.
    offset: int | None = None


MappingFault.__module__ = "mappedfile"


def mapping_fault(name: Name, offset: int | None = None) -> MappingFault:
    """Build the error for bytes of file *name* that are gone."""
    where = "" if offset is None else f" at offset {offset}"
    why = "the file was cut short, or its device failed"
    fault = MappingFault(errno.EIO, f"bytes mapped{where} are gone ({why}): refresh() maps what there is", name)
    fault.offset = offset
    return fault


def lock_error(code: int, name: Name, size: int) -> OSError | None:
    """Build the error for *size* bytes that a limit keeps from being locked; None if it was no limit."""
    from mappedfile import _advice

    limit = _advice.lock_limit(code, size)
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
