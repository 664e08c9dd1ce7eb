"""What this system is like: its sizes, and what it can and cannot do."""

import sys
from dataclasses import dataclass, field

from mappedfile._native import ffi, lib

_system = ffi.new("mf_system *")
lib.mf_query_system(_system)

#: Bytes in a page: memory is mapped and flushed in whole ones.
PAGE_SIZE: int = _system.page_size
#: What the offset of a map is a multiple of, in bytes: a page on POSIX, 64 KiB on Windows. Views hide it.
GRANULARITY: int = _system.granularity

#: A flush that waits is durable by itself: Linux. Elsewhere the file must be synced after it.
FLUSH_REACHES_DEVICE: bool = bool(_system.flush_reaches_device)
#: Maps are made from a section of the file, which must be made first: Windows' "file mapping object".
HAS_SECTIONS: bool = bool(_system.has_sections)
#: Syncing the file writes what is dirty in maps of it too: Linux. Elsewhere they must be flushed before.
SYNC_COVERS_MAPS: bool = bool(_system.sync_covers_maps)


def _says(text: str) -> bool:
    return field(metadata={"says": text})  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Capabilities:
    """What one system can do and another cannot. Every field is a bool; ``says`` in its metadata tells the meaning."""

    truncate_mapped: bool = _says("others can cut a mapped file short")
    replace_mapped: bool = _says("others can replace a mapped file by renaming another one over it")
    delete_mapped: bool = _says("others can delete a mapped file, and its name is gone at once")
    allocate: bool = _says("disk blocks can be reserved when a file is created or grown")
    fork: bool = _says("a process can be forked, maps and all")


_POSIX = sys.platform != "win32"
_CAPABILITIES = Capabilities(
    truncate_mapped=_POSIX,
    replace_mapped=_POSIX,
    delete_mapped=_POSIX,
    allocate=True,
    fork=_POSIX,
)


def capabilities() -> Capabilities:
    """Tell what this system can do, for what only some systems can."""
    return _CAPABILITIES
