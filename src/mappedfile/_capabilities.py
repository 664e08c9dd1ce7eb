"""What one system can do and another cannot."""

import sys
from dataclasses import dataclass, field

from mappedfile._advice import EVICT, FILE_RESIDENCY, Advice
from mappedfile._system import CAN_RESERVE, GUARD_COVERS_ALL


def _says(text: str) -> bool:
    return field(metadata={"says": text})  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Capabilities:
    """What this system can do. Each field is a bool; ``says`` in its metadata is its meaning."""

    truncate_mapped: bool = _says("others can truncate a mapped file")
    replace_mapped: bool = _says(
        "others can replace a mapped file by renaming another file over it"
    )
    delete_mapped: bool = _says("others can delete a mapped file, and its name is gone at once")
    allocate: bool = _says("disk blocks can be reserved when a file is created or grown")
    reserve: bool = _says(
        "address space can be reserved, for growth that leaves the map where it is"
    )
    fork: bool = _says("a process can be forked together with its maps")
    guard_buffers: bool = _says(
        "the fault guard covers buffers and arrays: they read zeros where bytes of a map are gone"
    )
    advise_access: bool = _says("advise() takes 'normal', 'sequential' and 'random'")
    advise_willneed: bool = _says("advise() takes 'willneed': pages are read ahead")
    advise_dontneed: bool = _says("advise() takes 'dontneed': pages leave the map")
    advise_reclaim: bool = _says("advise() takes 'cold' and 'pageout'")
    advise_hugepage: bool = _says("advise() takes 'hugepage' and 'nohugepage'")
    advise_populate: bool = _says(
        "the system populates maps itself; elsewhere the library reads each page, and cannot"
        " populate for writing"
    )
    file_residency: bool = _says(
        "residency() is about the memory of the system, not about this process alone"
    )
    evict: bool = _says("the pages of a file can be evicted from memory")


Capabilities.__module__ = "mappedfile"

_POSIX = sys.platform != "win32"
_CAPABILITIES = Capabilities(
    truncate_mapped=_POSIX,
    replace_mapped=_POSIX,
    delete_mapped=_POSIX,
    allocate=True,
    reserve=CAN_RESERVE,
    fork=_POSIX,
    guard_buffers=GUARD_COVERS_ALL,
    advise_access=Advice.SEQUENTIAL.known,
    advise_willneed=Advice.WILLNEED.known,
    advise_dontneed=Advice.DONTNEED.known,
    advise_reclaim=Advice.PAGEOUT.known,
    advise_hugepage=Advice.HUGEPAGE.known,
    advise_populate=Advice.POPULATE_WRITE.known,
    file_residency=FILE_RESIDENCY,
    evict=EVICT,
)


def capabilities() -> Capabilities:
    """Return what this system can do, of the things that only some systems can do."""
    return _CAPABILITIES
