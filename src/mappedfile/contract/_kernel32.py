"""The kernel32 calls of the probes, through ctypes, independent of the backend."""

from __future__ import annotations

import sys

if sys.platform != "win32":
    raise ImportError("kernel32 is Windows'")

import ctypes
import os
from collections.abc import Iterator
from ctypes import byref, c_size_t, c_ulong, c_void_p, sizeof

_dll = ctypes.WinDLL("kernel32", use_last_error=True)
_MEM_MAPPED = 0x40000
_MEM_FREE = 0x10000
_MEM_RELEASE = 0x8000
_MEM_RESERVE = 0x2000
_MEM_RESERVE_PLACEHOLDER = 0x40000
_PAGE_NOACCESS = 1
_GRANULARITY = 65536
_PAGE = 4096
_GENERIC_READ = 0x80000000
_FILE_READ_ATTRIBUTES = 0x80
_FILE_SHARE_ALL = 7
_OPEN_EXISTING = 3
_FILE_STANDARD_INFO = 1
_JOB_OBJECT_EXTENDED_LIMIT_INFORMATION = 9
_JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE = 0x2000
_SYSTEM_EXTENDED_HANDLE_INFORMATION = 64
_STATUS_INFO_LENGTH_MISMATCH = 0xC0000004

#: A pseudo handle of this process.
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


class _JobLimits(ctypes.Structure):  # JOBOBJECT_EXTENDED_LIMIT_INFORMATION
    _fields_ = [
        ("times", ctypes.c_int64 * 2),
        ("flags", c_ulong),
        ("working_set", c_size_t * 2),
        ("processes", c_ulong),
        ("affinity", c_size_t),
        ("classes", c_ulong * 2),
        ("io", ctypes.c_uint64 * 6),
        ("memory", c_size_t * 4),
    ]


class _FileStandardInfo(ctypes.Structure):
    _fields_ = [
        ("allocated", ctypes.c_int64),
        ("size", ctypes.c_int64),
        ("links", c_ulong),
        ("flags", ctypes.c_ubyte * 2),
    ]


class _SystemHandle(ctypes.Structure):
    _fields_ = [
        ("object", c_void_p),
        ("process", c_size_t),
        ("value", c_size_t),
        ("rights", c_ulong),
        ("trace", ctypes.c_ushort),
        ("kind", ctypes.c_ushort),
        ("attributes", c_ulong),
        ("reserved", c_ulong),
    ]


class _WorkingSetInformation(ctypes.Structure):
    _fields_ = [("address", c_void_p), ("attributes", c_size_t)]


_GetProcessHandleCount = _dll.GetProcessHandleCount
_GetProcessHandleCount.argtypes = c_void_p, c_void_p
_NtQuerySystemInformation = ctypes.WinDLL("ntdll").NtQuerySystemInformation
_NtQuerySystemInformation.argtypes = ctypes.c_int, c_void_p, c_ulong, c_void_p
_NtQuerySystemInformation.restype = c_ulong
_VirtualQuery = _dll.VirtualQuery
_VirtualQuery.argtypes = c_void_p, c_void_p, c_size_t
_VirtualQuery.restype = c_size_t
_QueryWorkingSetEx = _dll.K32QueryWorkingSetEx
_QueryWorkingSetEx.argtypes = c_void_p, c_void_p, c_ulong
_CreateFile = _dll.CreateFileW
_CreateFile.argtypes = ctypes.c_wchar_p, c_ulong, c_ulong, c_void_p, c_ulong, c_ulong, c_void_p
_CreateFile.restype = c_void_p
_GetFileInformationByHandleEx = _dll.GetFileInformationByHandleEx
_GetFileInformationByHandleEx.argtypes = c_void_p, ctypes.c_int, c_void_p, c_ulong
_CreateJobObject = _dll.CreateJobObjectW
_CreateJobObject.argtypes = c_void_p, c_void_p
_CreateJobObject.restype = c_void_p
_SetInformationJobObject = _dll.SetInformationJobObject
_SetInformationJobObject.argtypes = c_void_p, ctypes.c_int, c_void_p, c_ulong
_AssignProcessToJobObject = _dll.AssignProcessToJobObject
_AssignProcessToJobObject.argtypes = c_void_p, c_void_p
_VirtualFree = _dll.VirtualFree
_VirtualFree.argtypes = c_void_p, c_size_t, c_ulong
_UnmapViewOfFile = _dll.UnmapViewOfFile
_UnmapViewOfFile.argtypes = (c_void_p,)
_CloseHandle = _dll.CloseHandle
_CloseHandle.argtypes = (c_void_p,)


def check(answer: int) -> None:
    """Raise ``OSError`` if a call failed."""
    if not answer:
        raise ctypes.WinError(ctypes.get_last_error())


def close_handle(handle: int) -> None:
    """Close a handle of this process."""
    check(_CloseHandle(handle))


def count_handles() -> int:
    """Count the handles of this process."""
    number = c_ulong()
    check(_GetProcessHandleCount(process, byref(number)))
    return number.value or _count_in_system()  # 0: Wine 8


def _count_in_system() -> int:
    """Count the handles of this process in the list of the whole system."""
    size, status = 1 << 16, _STATUS_INFO_LENGTH_MISMATCH
    while status == _STATUS_INFO_LENGTH_MISMATCH:
        size *= 2
        answer = ctypes.create_string_buffer(size)
        status = _NtQuerySystemInformation(_SYSTEM_EXTENDED_HANDLE_INFORMATION, answer, size, None)
    if status:
        raise OSError(f"NtQuerySystemInformation: {status:#x}")
    number = c_size_t.from_buffer(answer).value
    entries = (_SystemHandle * number).from_buffer(answer, 2 * sizeof(c_size_t))
    return sum(entry.process == os.getpid() for entry in entries)


def _regions() -> Iterator[_MemoryBasicInformation]:
    """Walk the address space: yield every region, in one reused struct."""
    info = _MemoryBasicInformation()
    address = 0
    while _VirtualQuery(address, byref(info), sizeof(info)):
        yield info
        stop = (info.base or 0) + info.size
        if stop <= address:
            break
        address = stop


def mapped_regions() -> Iterator[tuple[int, int]]:
    """Yield start and end of every view of a section."""
    last = None
    for info in _regions():
        start, stop = info.base or 0, (info.base or 0) + info.size
        if info.kind == _MEM_MAPPED:
            # One view has several regions if their protection differs.
            if last is not None and last[0] == info.allocation:
                last = last[0], last[1], stop
            else:
                if last is not None:
                    yield last[1:]
                last = info.allocation, start, stop
        elif last is not None:
            yield last[1:]
            last = None
    if last is not None:
        yield last[1:]


def address_space_taken() -> int:
    """Return the number of bytes of address space that are not free."""
    return sum(info.size for info in _regions() if info.state != _MEM_FREE)


def is_free(address: int) -> bool:
    """Whether the memory at an address is free, and not reserved either."""
    info = _MemoryBasicInformation()
    check(_VirtualQuery(address, byref(info), sizeof(info)))
    return bool(info.state == _MEM_FREE)


def has_placeholders() -> bool:
    """Whether address space can be reserved as a placeholder."""
    try:
        allocate = ctypes.WinDLL("kernelbase").VirtualAlloc2
    except AttributeError:
        return False
    allocate.argtypes = c_void_p, c_void_p, c_size_t, c_ulong, c_ulong, c_void_p, c_ulong
    allocate.restype = c_void_p
    address = allocate(
        process,
        None,
        _GRANULARITY,
        _MEM_RESERVE | _MEM_RESERVE_PLACEHOLDER,
        _PAGE_NOACCESS,
        None,
        0,
    )
    if address:
        check(_VirtualFree(address, 0, _MEM_RELEASE))
    return bool(address)


def unmap(address: int) -> None:
    """Unmap a view."""
    check(_UnmapViewOfFile(address))


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
    """Open a file for reading, without sharing; return the handle."""
    return _open(path, _GENERIC_READ, 0)


def count_allocated(path: str) -> int:
    """Return the allocated size of a file in bytes, also if others have it open."""
    handle = _open(path, _FILE_READ_ATTRIBUTES, _FILE_SHARE_ALL)
    try:
        info = _FileStandardInfo()
        check(_GetFileInformationByHandleEx(handle, _FILE_STANDARD_INFO, byref(info), sizeof(info)))
    finally:
        close_handle(handle)
    return int(info.allocated)


def _open(path: str, rights: int, sharing: int) -> int:
    handle = _CreateFile(path, rights, sharing, None, _OPEN_EXISTING, 0, None)
    if handle == c_void_p(-1).value:
        raise ctypes.WinError(ctypes.get_last_error())
    return int(handle)


def take_children_along() -> None:
    """Make the system end the children of this process when this process ends in any way."""
    job = _CreateJobObject(None, None)
    check(job)
    limits = _JobLimits(flags=_JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE)
    check(
        _SetInformationJobObject(
            job, _JOB_OBJECT_EXTENDED_LIMIT_INFORMATION, byref(limits), sizeof(limits)
        )
    )
    check(_AssignProcessToJobObject(job, process))
    # The handle stays open until this process ends.


def is_wine() -> bool:
    """Whether this is Wine."""
    return hasattr(ctypes.WinDLL("ntdll"), "wine_get_version")
