"""Every error of the system is built here."""

from __future__ import annotations

import errno
import os
import sys

from mappedfile._native import ffi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TypeAlias

    #: What a file was opened by, as errors name it: a path, or a descriptor.
    Name: TypeAlias = str | bytes | int

# ENODEV means two things, and its text ("No such device") neither. ERROR_NOT_SUPPORTED is windows.c's for the first.
_NOT_SUPPORTED = 50 if sys.platform == "win32" else errno.ENODEV
NO_NOTES: Mapping[int, str] = {}
NOT_A_FILE = {_NOT_SUPPORTED: "not a regular file, and nothing else can be mapped"}
NOT_MAPPABLE = {_NOT_SUPPORTED: "its file system cannot map it like this"}


#: A signal came in between: the call is to be made again (PEP 475). The same number means something else to Windows.
INTERRUPTED = -1 if sys.platform == "win32" else errno.EINTR


def call(function: Callable[..., int], *arguments: Any) -> int:
    """Call the backend, again after a signal: Python's handlers run meanwhile (PEP 475). Return its code."""
    code = function(*arguments)
    while code == INTERRUPTED:
        code = function(*arguments)
    return code


def os_error(code: int, name: Name | None, notes: Mapping[int, str] = NO_NOTES) -> OSError:
    """Build the ``OSError`` subclass that fits *code*, errno's or (on Windows) ``GetLastError``'s, about file *name*.

    *notes* has better words for some codes than the system's.
    """
    if sys.platform == "win32":
        return OSError(0, notes.get(code) or ffi.getwinerror(code)[1], name, code)
    return OSError(code, notes.get(code) or os.strerror(code), name)


class MappingFault(OSError):  # noqa: N818 (a fault is what it is)
    """Bytes of a map are gone: the file was cut short under it, the disk behind a hole is full, or its device failed.

    ``errno`` is ``EIO`` and ``filename`` the file. Raised by access through the library; buffers read zeros there.
    """

    #: Where in the file the first byte was that was asked for and is gone; None when that is not known.
    offset: int | None = None


def mapping_fault(name: Name, offset: int | None = None) -> MappingFault:
    """Build the error for bytes of file *name* that are gone."""
    where = "" if offset is None else f" at offset {offset}"
    why = "the file was cut short, or its device failed"
    fault = MappingFault(errno.EIO, f"bytes mapped{where} are gone ({why}): refresh() maps what there is", name)
    fault.offset = offset
    return fault


def refuse_alive(views: int, buffers: int, what: str) -> None:
    """Raise ``BufferError`` if anything is alive, saying what and how many."""
    parts = [
        f"{number} {kind}{'s'[: number != 1]}" for number, kind in ((views, "view"), (buffers, "buffer")) if number
    ]
    if parts:
        raise BufferError(
            f"cannot {what}: {' and '.join(parts)} of it alive; close the views, and drop the memoryviews and arrays"
            " made from them"
        )
