"""The standard library's ``mmap``, on this library: ``from mappedfile import mmap``.

The names and signatures are the same on every system. ``docs/mmap.md`` says what differs from the
standard library.
"""

from __future__ import annotations

from mappedfile import _system
from mappedfile._memory import mmap
from mappedfile._native import ffi, lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    # These exist on every system. The system decides about the others.
    MADV_DODUMP: int
    MADV_DONTDUMP: int
    MADV_DONTNEED: int
    MADV_FREE: int
    MADV_HUGEPAGE: int
    MADV_MERGEABLE: int
    MADV_NOHUGEPAGE: int
    MADV_NORMAL: int
    MADV_RANDOM: int
    MADV_SEQUENTIAL: int
    MADV_UNMERGEABLE: int
    MADV_WILLNEED: int
    MAP_ANON: int
    MAP_ANONYMOUS: int
    MAP_DENYWRITE: int
    MAP_EXECUTABLE: int
    MAP_NORESERVE: int
    MAP_POPULATE: int
    MAP_PRIVATE: int
    MAP_SHARED: int
    MAP_STACK: int
    MS_ASYNC: int
    MS_INVALIDATE: int
    MS_SYNC: int
    PROT_EXEC: int
    PROT_READ: int
    PROT_WRITE: int

ACCESS_DEFAULT = 0
ACCESS_READ = 1
ACCESS_WRITE = 2
ACCESS_COPY = 3

ALLOCATIONGRANULARITY = _system.GRANULARITY
PAGESIZE = _system.PAGE_SIZE

error = OSError

#: Constants that a system may lack. There, such hints do nothing, and such flags are 0.
_HINTS = (
    "MADV_NORMAL",
    "MADV_RANDOM",
    "MADV_SEQUENTIAL",
    "MADV_WILLNEED",
    "MADV_DONTNEED",
    "MADV_FREE",
    "MADV_HUGEPAGE",
    "MADV_NOHUGEPAGE",
    "MADV_MERGEABLE",
    "MADV_UNMERGEABLE",
    "MADV_DONTDUMP",
    "MADV_DODUMP",
)
_FLAGS = ("MAP_DENYWRITE", "MAP_EXECUTABLE", "MAP_NORESERVE", "MAP_POPULATE", "MAP_STACK")


def _constants() -> dict[str, Any]:
    found: dict[str, Any] = dict.fromkeys(_HINTS, lib.MF_NO_ADVICE) | dict.fromkeys(_FLAGS, 0)
    name, value = ffi.new("const char **"), ffi.new("int *")
    number = 0
    while lib.mf_constant(number, name, value):
        found[ffi.string(name[0]).decode()] = value[0]
        number += 1
    return found


_found = _constants()
globals().update(_found)

__all__ = [  # noqa: PLE0604 (the constants are the system's)
    "ACCESS_COPY",
    "ACCESS_DEFAULT",
    "ACCESS_READ",
    "ACCESS_WRITE",
    "ALLOCATIONGRANULARITY",
    "PAGESIZE",
    "error",
    "mmap",
    *_found,
]
del _found
