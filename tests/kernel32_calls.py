"""Records the calls that the Windows backend makes to kernel32, and makes some of them fail. Not a
test.

The import address table of a module has a pointer for each function that it calls. This module
replaces these pointers by its own functions.
"""

from __future__ import annotations

import sys

if sys.platform != "win32":
    raise ImportError("kernel32 exists only on Windows")

import ctypes
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import mappedfile._native

# The number of arguments, and the return value of a failure.
FUNCTIONS = {
    "CloseHandle": (1, 0),
    "CreateFileMappingW": (6, 0),
    "CreateFileW": (7, -1),
    "DeleteFileW": (1, 0),
    "DeviceIoControl": (8, 0),
    "DuplicateHandle": (7, 0),
    "FlushFileBuffers": (1, 0),
    "FlushViewOfFile": (2, 0),
    "GetFileSizeEx": (2, 0),
    "GetProcAddress": (2, 0),  # finds the functions that are not imported
    "GetProcessWorkingSetSize": (3, 0),
    "K32QueryWorkingSetEx": (3, 0),
    "MapViewOfFile": (5, 0),
    "MapViewOfFile3": (9, 0),
    "SetFileInformationByHandle": (4, 0),
    "SetProcessWorkingSetSize": (3, 0),
    "Sleep": (1, None),
    "UnmapViewOfFile": (1, 0),
    "VirtualAlloc2": (7, 0),
    "VirtualFree": (3, 0),
    "VirtualLock": (2, 0),
    "VirtualUnlock": (2, 0),
}
RELEASING = ("CloseHandle", "UnmapViewOfFile", "VirtualFree")
PAGE_READWRITE = 4
MEM_RELEASE = 0x8000


class Calls:
    """The recorded calls of the backend."""

    def __init__(self) -> None:
        #: The name and the arguments of every call.
        self.made: list[tuple[str, tuple[int, ...]]] = []
        #: The calls that fail, and their error codes. The key is the name and the number of the
        #: call of that name; None stands for every call.
        self.failing: dict[tuple[str, int | None], int] = {}
        self.failed: list[str] = []
        #: What to do just before the next call of a name.
        self.before: dict[str, Callable[[], object]] = {}
        self.last = 0
        self.kept: list[ctypes._CFuncPtr] = []
        #: Calls that release something and were made to fail. settle() makes them.
        self.owed: list[tuple[ctypes._CFuncPtr, tuple[int, ...]]] = []

    def names(self) -> list[str]:
        return [name for name, _ in self.made]

    def hook(self, name: str, address: int) -> ctypes._CFuncPtr:
        count, failure = FUNCTIONS[name]
        make = ctypes.WINFUNCTYPE(ctypes.c_size_t, *[ctypes.c_size_t] * count, use_last_error=True)
        original = make(address)

        def instead(*arguments: int) -> int:
            self.made.append((name, arguments))
            if (event := self.before.pop(name, None)) is not None:
                event()
            number = self.names().count(name)
            code = self.failing.get((name, number), self.failing.get((name, None)))
            if code is not None:
                self.failed.append(name)
                self.last = code
                if name in RELEASING and arguments[2:] in ((), (MEM_RELEASE,)):
                    self.owed.append((original, arguments))
                return (failure or 0) % 2**64
            result: int = original(*arguments)
            self.last = ctypes.get_last_error()
            if (
                name == "GetProcAddress"
                and result
                and (found := ctypes.string_at(arguments[1]).decode()) in FUNCTIONS
            ):
                return address_of(self.hook(found, result))
            return result

        self.kept.append(make(instead))
        return self.kept[-1]

    def settle(self) -> None:
        """Make the release calls that were made to fail."""
        for function, arguments in self.owed:
            assert function(*arguments), ctypes.WinError(ctypes.get_last_error())
        self.owed.clear()

    def last_error(self) -> int:
        return self.last


def address_of(function: ctypes._CFuncPtr) -> int:
    """Return the address of a function."""
    return int(ctypes.cast(function, ctypes.c_void_p).value or 0)


def imports(base: int) -> dict[str, int]:
    """Return the addresses of a loaded module's pointers to imported functions.

    See the PE format, "The .idata Section".
    """

    def read(form: str, address: int) -> tuple[int, ...]:
        return struct.unpack(form, ctypes.string_at(address, struct.calcsize(form)))

    (header,) = read("<I", base + 0x3C)
    (magic,) = read("<H", base + header + 24)
    assert magic == 0x20B, "not a 64-bit module"
    (directory,) = read("<I", base + header + 24 + 120)
    found = {}
    entry = base + directory
    while True:
        names, _, _, name, slots = read("<5I", entry)
        if not name:
            return found
        place = 0
        while True:
            (pointer,) = read("<Q", base + (names or slots) + 8 * place)
            if not pointer:
                break
            if not pointer >> 63:
                found[ctypes.string_at(base + pointer + 2).decode("ascii")] = (
                    base + slots + 8 * place
                )
            place += 1
        entry += 20


@contextmanager
def watched() -> Iterator[Calls]:
    """Record the calls for the time of the block."""
    calls = Calls()
    slots = imports(ctypes.WinDLL(mappedfile._native.__file__)._handle)
    kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
    before = {}
    last_error = ctypes.WINFUNCTYPE(ctypes.c_uint)(calls.last_error)
    for name in (*FUNCTIONS, "GetLastError"):
        if name not in slots:
            continue
        pointer = ctypes.c_void_p.from_address(slots[name])
        before[name] = pointer.value
        ours = calls.hook(name, pointer.value) if name in FUNCTIONS else last_error
        protection = ctypes.c_ulong()
        place = ctypes.c_void_p(slots[name])
        assert kernel32.VirtualProtect(
            place, ctypes.c_size_t(8), PAGE_READWRITE, ctypes.byref(protection)
        )
        pointer.value = address_of(ours)
    try:
        yield calls
    finally:
        for name, value in before.items():
            ctypes.c_void_p.from_address(slots[name]).value = value
