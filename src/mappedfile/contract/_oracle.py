"""The clauses that the standard library's mmap breaks, with reasons. The tests check every line,
and docs/tables.py makes a list of them."""

from __future__ import annotations

import sys

#: The reason why it breaks a clause, in every mode of the clause except those in ``HOLDS_IN``.
ORACLE_BREAKS: dict[str, str] = {
    "L1": "`close()` raises `BufferError` while a buffer is alive, and the descriptor stays open",
    "L4": "a map with a buffer on it cannot be closed",
    "L5": (
        "`close()` does not say what is alive or how many, and does not count other maps of the"
        " file"
    ),
    "L6": "`flush()` uses the map after an `__index__` has closed it",
    "L7": "a map cannot be closed before its buffers",
    "L8": "no `ResourceWarning`",
    "L10": "errors of `munmap` and `close` are ignored, and errors do not name the file",
    "F2": "the offset of a flush must be a multiple of the page size",
    "F3": "every flush waits for the device",
    "F5": "no error says that a flush needs the file",
    "F8": "errors do not name the file",
    "S1": "an empty file cannot be mapped",
    "S2": "`resize()` raises `BufferError` while a buffer is alive",
    "S3": "`resize()` shrinks the file under other maps of it",
    "S4": "a `resize()` that fails leaves the file at the new size",
    "S5": "no disk blocks are reserved: a full disk is a fault later",
    "S6": "the offset of a map must be a multiple of the granularity",
    "S7": "the offset of a map must be a multiple of the granularity",
    "S8": "a map does not learn that its file has grown",
    "T1": "the process dies: SIGBUS",
    "M1": (
        "advice must begin at a page, unknown advice is an error, and Windows has no `madvise()`"
    ),
    "M2": (
        "`madvise()` takes advice that discards bytes: `MADV_DONTNEED` of a private map,"
        " `MADV_REMOVE` of any map"
    ),
    "M3": "advice must begin at a page, and Windows has no `madvise()`",
    "M4": "it does not tell which pages are in memory",
    "M5": ("it has no `populate`; `MAP_POPULATE` of Linux is only for a new map, and hides errors"),
    "M6": "it cannot be locked",
    "M7": "it cannot be locked",
    "M8": "it cannot be locked",
    "M9": "it cannot be locked",
    "I2": "errors do not name the file, nor say what cannot be mapped",
    "I3": "`in` accepts objects of any type, and is false for them",
    "B2": "a map is no `io.BufferedIOBase`, and has one position",
    "B3": "a map has one position, and `write()` past its end writes nothing: `ValueError`",
    "B4": "`write()` past the end is a `ValueError`: a map does not grow by writing",
    "B5": "a map is its own stream, and is closed with it",
    "B6": "the process dies: SIGBUS",
    "A1": "the offset of a map must be a multiple of the granularity",
    "A2": "an empty file cannot be mapped; an array of Python objects is a `ValueError`",
    "A3": "a map with an array on it cannot be closed",
    "P1": (
        "names of flags and hints are missing on some systems and in some versions:"
        " `MAP_SHARED` on Windows, `MS_SYNC` before 3.15"
    ),
    "P2": "the signature differs between systems",
    "P4": "it has these traps",
    "P5": "before 3.15 `size()` of memory without a file is an error; Windows has no flags",
    "P6": "before 3.13, on Windows before 3.15, there is no `trackfd`",
}

#: The version of Python from which on the clause holds, except on Windows.
HOLDS_FROM: dict[str, tuple[int, int]] = {"P1": (3, 15), "P5": (3, 15), "P6": (3, 13)}

#: The clauses that ``mappedfile.mmap`` breaks, since it behaves like ``mmap``.
LAYER_BREAKS: dict[str, str] = {
    "L1": "each map keeps a descriptor of its own, until it is closed",
    "L5": "`close()` is not strict, and takes no argument",
    "L8": "no `ResourceWarning`",
    "L10": "it has no `handle`",
    "F5": "each map keeps the descriptor that its flush needs",
    "F8": "errors name the descriptor, not the path",
    "S1": "it has no `refresh()`",
    "S3": "`resize()` shrinks the file under other maps of it, if the system allows it",
    "S5": "`resize()` leaves holes, as `ftruncate` does: a full disk is a `MappingFault` later",
    "S6": "it has no `offset`",
    "S7": "it has no `refresh()`",
    "S8": "it has no `refresh()`",
    "T1": "errors name the descriptor, not the path",
    "M1": "`madvise()` passes its arguments on, and returns None",
    "M2": "`madvise()` passes its arguments on",
    "M3": "`madvise()` passes its arguments on",
    "M4": "it does not tell which pages are in memory",
    "M5": "it has no `populate`",
    "M6": "it cannot be locked",
    "M7": "it cannot be locked",
    "M8": "it cannot be locked",
    "M9": "it cannot be locked",
    "I2": "errors name the descriptor, not the path",
    "I3": "a needle that is a number is a `TypeError`",
    "B2": "it has one position, and no `stream()`",
    "B3": "it has one position, and no `stream()`",
    "B4": "it has one position, and no `stream()`",
    "B5": "`close()` is not strict, and takes no argument",
    "B6": "errors name the descriptor, not the path",
    "A1": "it has no `array()`",
    "A2": "it has no `array()`",
    "A3": "`close()` is not strict, and takes no argument",
}

#: The modes in which it keeps such a clause.
LAYER_HOLDS_IN: dict[str, tuple[str, ...]] = {"S1": ("r+", "w+", "x+"), "I2": ("x+",)}

#: The modes in which a clause holds.
HOLDS_IN: dict[str, tuple[str, ...]] = {
    "S4": ("r", "c"),  # no resize in this mode
    "I2": ("x+",),  # this mode opens no existing file
}

#: The clauses that it also breaks on Windows, or breaks in other modes there.
BREAKS_ON_WINDOWS: dict[str, str] = {
    "L9": "the descriptor that it keeps does not share the file for deleting",
    "N1": "the descriptor that it keeps does not share the file for deleting",
    "I1": "the position in the caller's file moves to its beginning",
    "I2": ORACLE_BREAKS["I2"],
}

#: The modes in which such a clause holds on Windows.
HOLDS_IN_ON_WINDOWS: dict[str, tuple[str, ...]] = {
    "I1": ("x+",),  # this mode takes no descriptor
}

#: The clauses that it breaks only on other systems.
HOLDS_ON_WINDOWS = ("F3", "S4", "S5", "T1", "B6")


def reason(id: str, mode: str, *, windows: bool) -> str | None:
    """Return the reason why the oracle breaks a clause in a mode; None if the clause holds."""
    if not windows and sys.version_info >= HOLDS_FROM.get(id, (4, 0)):
        return None
    breaks, holds = ORACLE_BREAKS, HOLDS_IN
    if windows and id in BREAKS_ON_WINDOWS:
        breaks, holds = BREAKS_ON_WINDOWS, HOLDS_IN_ON_WINDOWS
    elif windows and id in HOLDS_ON_WINDOWS:
        return None
    return None if mode in holds.get(id, ()) else breaks.get(id)
