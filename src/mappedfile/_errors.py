"""Every error of the system is built here."""

import errno
import os
import sys
from typing import TypeAlias

from mappedfile._native import ffi

#: What a file was opened by, as errors name it: a path, or a descriptor.
Name: TypeAlias = "str | bytes | int"

# What the two backends say of something that is not a regular file: ENODEV, ERROR_NOT_SUPPORTED.
_NOT_A_FILE = 50 if sys.platform == "win32" else errno.ENODEV


def os_error(code: int, name: Name, *, note: str = "") -> OSError:
    """Build the ``OSError`` subclass that fits *code*, errno's or (on Windows) ``GetLastError``'s, about file *name*."""
    if code == _NOT_A_FILE and not note:
        note = "not a regular file, and nothing else can be mapped"
    if sys.platform == "win32":
        text = ffi.getwinerror(code)[1]
        return OSError(0, f"{note}: {text}" if note else text, name, code)
    text = os.strerror(code)
    return OSError(code, f"{note}: {text}" if note else text, name)


def refuse_alive(views: int, buffers: int, what: str) -> None:
    """Raise ``BufferError`` if anything is alive, saying what and how many."""
    parts = [f"{number} {kind}{'s'[: number != 1]}" for number, kind in ((views, "view"), (buffers, "buffer")) if number]
    if parts:
        raise BufferError(
            f"cannot {what}: {' and '.join(parts)} of it alive; close the views, and drop the memoryviews and arrays made"
            " from them"
        )
