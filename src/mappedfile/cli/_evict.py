"""``mappedfile evict``: evict the pages of files from memory."""

from __future__ import annotations

import os

from mappedfile import PAGE_SIZE, MappedFile
from mappedfile._advice import evict
from mappedfile.cli._files import SummedCommand, pages_of, part, resident
from mappedfile.cli._numbers import count

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from mappedfile.cli._files import Facts, Found
    from mappedfile.cli._terminal import Progress


#: The advice for ranges of files. macOS and Windows do not have it.
FADVISE: Any = getattr(os, "posix_fadvise", None)
DONTNEED: Any = getattr(os, "POSIX_FADV_DONTNEED", None)


class EvictCommand(SummedCommand):
    """Evicts the pages of files from memory."""

    name = "evict"
    summed = ("size", "length", "resident", "evicted")
    help = "evict the pages of files from memory"
    description = (
        "Write files back to their disks, and evict their pages from memory. Pages that a process\n"
        "has mapped stay. No data is lost."
    )

    def impossible(self, given: argparse.Namespace) -> str:
        from mappedfile import capabilities

        if not capabilities().evict:
            return "this system cannot evict the pages of a file (capabilities().evict is false)"
        if given.range != (0, None) and FADVISE is None:
            return "this system can only evict whole files: omit --range"
        return ""

    def process(self, file: Found, given: argparse.Namespace, progress: Progress) -> Facts:
        with MappedFile(file.name) as mapped:
            size = len(mapped)
            offset, length = part(given.range, size)
            before = resident(mapped, offset, length)
            if length == size:
                evict(mapped)
            elif length:
                evict_range(mapped, offset, length)
            after = resident(mapped, offset, length)
        return {
            "file": file.name,
            "size": size,
            "offset": offset,
            "length": length,
            "pages": pages_of(offset, length),
            "resident": after,
            "evicted": None if before is None or after is None else max(before - after, 0),
        }

    def describe(self, result: Facts) -> str:
        return describe(result)


def evict_range(mapped: MappedFile, offset: int, length: int) -> None:
    """Evict the pages of a range, rounded outwards: the system evicts whole pages only."""
    offset, stop = offset - offset % PAGE_SIZE, offset + length
    stop += -stop % PAGE_SIZE
    os.fsync(mapped.fileno())
    FADVISE(mapped.fileno(), offset, stop - offset, DONTNEED)


def part_of(result: Facts) -> bool:
    """Whether the result is about a part of a file."""
    return bool(result["length"] < result["size"])


def describe(result: Facts) -> str:
    """Describe which pages were evicted, and which stay."""
    evicted, stays = result["evicted"], result["resident"]
    if evicted is None:
        who = "the owner of the file, and processes that may write to it"
        return f"evicted; only {who}, can see how many pages remain"
    said = f"{count(evicted)} of {count(evicted + stays)} pages evicted"
    if stays:
        # Linux caches files in larger pieces (folios), and evicts a piece only as a whole.
        piece = ", in one piece with pages outside the range" if part_of(result) else ""
        said += f"; {count(stays)} remain: they are mapped{piece}, or the file system is in memory"
    return said
