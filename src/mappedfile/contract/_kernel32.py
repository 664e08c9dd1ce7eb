"""The few calls of kernel32 that the probes make, through ctypes: a witness that is not the backend's own."""

from __future__ import annotations

import sys

if sys.platform != "win32":
    raise ImportError("kernel32 is Windows'")

import ctypes
from collections.abc import Iterator
from ctypes import byref, c_size_t, c_ulong, c_void_p, sizeof

_dll = ctypes.WinDLL("kernel32", use_last_error=True)
_MEM_MAPPED = 0x40000
_PAGE = 4096
_GENERIC_READ = 0x80000000
_OPEN_EXISTING = 3

#: A pseudo handle: this process.
process = c_void_p(-1)


class _MemoryBasicInformation(ctypes.Structure):
    _fields_ = [
        ("base", c_void_p),
        ("allocation", c_void_p),
        ("allocation_protection", c_ulong),
        ("partition", ctypes.c_ushort),
        ("size", c_size_t),
        ("state", c_ulong),
        ("protection", c_ulong),
        ("kind", c_ulong),
    ]


class _WorkingSetInformation(ctypes.Structure):
    _fields_ = [("address", c_void_p), ("attributes", c_size_t)]


_GetProcessHandleCount = _dll.GetProcessHandleCount
_GetProcessHandleCount.argtypes = c_void_p, c_void_p
_GetHandleInformation = _dll.GetHandleInformation
_GetHandleInformation.argtypes = c_void_p, c_void_p
_VirtualQuery = _dll.VirtualQuery
_VirtualQuery.argtypes = c_void_p, c_void_p, c_size_t
_VirtualQuery.restype = c_size_t
_QueryWorkingSetEx = _dll.K32QueryWorkingSetEx
_QueryWorkingSetEx.argtypes = c_void_p, c_void_p, c_ulong
_CreateFile = _dll.CreateFileW
_CreateFile.argtypes = ctypes.c_wchar_p, c_ulong, c_ulong, c_void_p, c_ulong, c_ulong, c_void_p
_CreateFile.restype = c_void_p
_CloseHandle = _dll.CloseHandle
_CloseHandle.argtypes = (c_void_p,)


def check(answer: int) -> None:
    """Raise ``OSError`` when a call said no."""
    if not answer:
        raise ctypes.WinError(ctypes.get_last_error())


def close_handle(handle: int) -> None:
    """Close a handle of this process."""
    check(_CloseHandle(handle))


def count_handles() -> int:
    """Count the handles of this process."""
    number = c_ulong()
    check(_GetProcessHandleCount(process, byref(number)))
    # Wine 8 says 0: there each number that may be one is tried.
    return number.value or sum(_GetHandleInformation(value, byref(c_ulong())) != 0 for value in range(4, 8192, 4))


def mapped_regions() -> Iterator[tuple[int, int]]:
    """Walk the address space; give start and stop of every view of a section."""
    info = _MemoryBasicInformation()
    address = 0
    last = None
    while _VirtualQuery(address, byref(info), sizeof(info)):
        start, stop = info.base or 0, (info.base or 0) + info.size
        if info.kind == _MEM_MAPPED:
            if last is not None and last[0] == info.allocation:  # one view, in parts of different protection
                last = last[0], last[1], stop
            else:
                if last is not None:
                    yield last[1:]
                last = info.allocation, start, stop
        elif last is not None:
            yield last[1:]
            last = None
        if stop <= address:
            break
        address = stop
    if last is not None:
        yield last[1:]


def count_valid(address: int, length: int) -> int:
    """Count the pages of a range that are in the working set."""
    first = address - address % _PAGE
    number = (address + length - first + _PAGE - 1) // _PAGE
    pages = (_WorkingSetInformation * number)()
    for place, page in enumerate(pages):
        page.address = first + place * _PAGE
    check(_QueryWorkingSetEx(process, pages, sizeof(pages)))
    return sum(page.attributes & 1 for page in pages)


def open_exclusively(path: str) -> int:
    """Open a file for reading and share it with nobody; return the handle."""
    handle = _CreateFile(path, _GENERIC_READ, 0, None, _OPEN_EXISTING, 0, None)
    if handle == c_void_p(-1).value:
        raise ctypes.WinError(ctypes.get_last_error())
    return int(handle)


def is_wine() -> bool:
    """Whether this is Wine."""
    return hasattr(ctypes.WinDLL("ntdll"), "wine_get_version")
