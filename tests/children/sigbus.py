"""tests/sigbus.c, compiled, as Python calls it; and mapped files to truncate."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from mappedfile import PAGE_SIZE, MappedFile, MappingFault


def load(path: str) -> ctypes.CDLL:
    """Load the library, and set the types of its functions."""
    library = ctypes.CDLL(path)
    library.map_file.restype = ctypes.c_void_p
    library.map_file.argtypes = [ctypes.c_int, ctypes.c_size_t]
    for function in (library.touch, library.try_touch, library.misalign):
        function.argtypes = [ctypes.c_void_p]
    for function in (library.blocked, library.blocks, library.read_once):
        function.restype = ctypes.c_long
    library.read_once.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t]
    return library


def seen(library: ctypes.CDLL) -> dict[str, int]:
    """Return the record of its last handler."""
    names = ("calls", "number", "code", "place", "blocked", "errno", "stack")
    return dict(zip(names, (ctypes.c_long * len(names)).in_dll(library, "seen"), strict=True))


class Helper:
    """tests/sigbus.c, compiled."""

    def __init__(self, path: str) -> None:
        self.library = library = load(path)
        self.take, self.touch = library.take, library.touch
        self.blocked, self.misalign = library.blocked, library.misalign
        self.read_once = library.read_once
        self.flags = {
            name: getattr(library, name)()
            for name in ("restarts", "once", "nests", "on_stack", "info")
        }

    def seen(self) -> dict[str, int]:
        """Return the record of its last handler."""
        return seen(self.library)

    def map(self, path: Path) -> int:
        """Map a file of two pages, and cut it to one. Return the address of the missing page."""
        path.write_bytes(b"f" * 2 * PAGE_SIZE)
        with path.open("r+b") as file:
            address: int = self.library.map_file(file.fileno(), 2 * PAGE_SIZE)
        os.truncate(path, PAGE_SIZE)
        return address + PAGE_SIZE


class Ours:
    """A mapped file of the library, which lose() cuts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(b"o" * 3 * PAGE_SIZE)
        self.file = MappedFile(path)
        assert self.file[0] == ord("o")

    def lose(self) -> None:
        os.truncate(self.path, PAGE_SIZE)
        for _ in range(2):
            try:
                self.file[PAGE_SIZE]
            except MappingFault:
                pass
            else:
                raise AssertionError("no MappingFault")
        assert self.file[PAGE_SIZE - 1] == ord("o")
