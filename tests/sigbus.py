"""tests/sigbus.c, compiled, as Python calls it. Not a test."""

from __future__ import annotations

import ctypes


def load(path: str) -> ctypes.CDLL:
    """Load the library; its functions know their types."""
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
    """What its handler saw last."""
    names = ("calls", "number", "code", "place", "blocked", "errno", "stack")
    return dict(zip(names, (ctypes.c_long * len(names)).in_dll(library, "seen"), strict=True))
