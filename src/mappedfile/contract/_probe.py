"""Probes: the handles, maps and pages of this process, as the system reports them.

They use /proc/self on Linux, and kernel32 on Windows. On other systems they raise ``NotHere``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

from mappedfile import PAGE_SIZE
from mappedfile._native import ffi
from mappedfile.contract._clauses import NotHere

_PROC = Path("/proc/self")


class Region(NamedTuple):
    """A range of address space that maps a file."""

    start: int
    stop: int


def handles() -> int:
    """Count the open descriptors of this process; on Windows its handles."""
    if sys.platform == "win32":
        return _kernel32.count_handles()
    for folder in (_PROC / "fd", Path("/dev/fd")):
        if folder.is_dir():
            return len(os.listdir(folder)) - 1  # except the one that lists the directory
    raise NotHere("this system does not tell which descriptors are open (/proc/self/fd, /dev/fd)")


def file_maps() -> tuple[int, int]:
    """Return the number of file maps of this process, and their address space in bytes.

    Adjacent maps may count as one.
    """
    regions = _regions()
    return len(regions), sum(region.stop - region.start for region in regions)


def is_mapped(address: int, length: int) -> bool:
    """Whether a file is mapped anywhere in this range. Other memory may be mapped there at any
    time."""
    return any(region.start < address + length and address < region.stop for region in _regions())


def resident(address: int, length: int) -> int:
    """Return how many bytes of the maps in this range are at least in the working set."""
    if sys.platform == "win32":
        return PAGE_SIZE * _kernel32.count_valid(address, length)
    try:
        lines = (_PROC / "smaps").read_text("utf-8", "surrogateescape").splitlines()
    except OSError as error:
        raise NotHere(f"this system does not tell which pages are in memory ({error})") from None
    total = 0
    inside = False
    for line in lines:
        word = line.split(None, 1)[0]
        if not word.endswith(":"):
            start, stop = (int(number, 16) for number in word.split("-"))
            inside = start < address + length and address < stop
        elif inside and word == "Rss:":
            total += int(line.split()[1]) * 1024
    return total


def address_of(buffer: Any) -> int:
    """Return the address of a buffer."""
    return int(ffi.cast("uintptr_t", ffi.from_buffer(buffer)))


def _regions() -> list[Region]:
    if sys.platform == "win32":
        return [Region(*pair) for pair in _kernel32.mapped_regions()]
    try:
        lines = (_PROC / "maps").read_text("utf-8", "surrogateescape").splitlines()
    except OSError as error:
        raise NotHere(f"this system does not tell what is mapped ({error})") from None
    regions = []
    for line in lines:  # fields: start-stop rights offset device inode name, proc_pid_maps(5)
        fields = line.split(None, 5)
        if len(fields) == 6 and fields[5].startswith("/"):
            regions.append(Region(*(int(number, 16) for number in fields[0].split("-"))))
    return regions


if sys.platform == "win32":
    from mappedfile.contract import _kernel32
