"""What one system can do and another cannot."""

import sys
from dataclasses import dataclass, field

from mappedfile._system import CAN_RESERVE, GUARD_COVERS_ALL


def _says(text: str) -> bool:
    return field(metadata={"says": text})  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Capabilities:
    """What one system can do and another cannot. Every field is a bool; ``says`` in its metadata tells the meaning."""

    truncate_mapped: bool = _says("others can cut a mapped file short")
    replace_mapped: bool = _says("others can replace a mapped file by renaming another one over it")
    delete_mapped: bool = _says("others can delete a mapped file, and its name is gone at once")
    allocate: bool = _says("disk blocks can be reserved when a file is created or grown")
    reserve: bool = _says("address space can be reserved, for growth that leaves the map where it is")
    fork: bool = _says("a process can be forked, maps and all")
    guard_buffers: bool = _says(
        "the fault guard covers buffers and arrays: they read zeros where bytes of a map are gone"
    )


_POSIX = sys.platform != "win32"
_CAPABILITIES = Capabilities(
    truncate_mapped=_POSIX,
    replace_mapped=_POSIX,
    delete_mapped=_POSIX,
    allocate=True,
    reserve=CAN_RESERVE,
    fork=_POSIX,
    guard_buffers=GUARD_COVERS_ALL,
)


def capabilities() -> Capabilities:
    """Tell what this system can do, for what only some systems can."""
    return _CAPABILITIES
