"""The properties of this system; and the connection of the C types with the backend."""

import os

from mappedfile import _errors, _memory
from mappedfile._native import ffi, lib

_table = ffi.new("mf_table *")
lib.mf_fill_table(_table)
_memory.connect(
    ffi.buffer(_table),
    _errors.os_error,
    _errors.mapping_fault,
    _errors.lock_error,
    _errors.alive_error,
    os.close,
)
_system = _table.system

#: The size of a page, in bytes. Memory is mapped and flushed in whole pages.
PAGE_SIZE: int = _system.page_size
#: The offset of a map is a multiple of this number of bytes: a page on POSIX, 64 KiB on Windows.
#: Views hide it.
GRANULARITY: int = _system.granularity

#: The system's error code for "not supported".
NOT_SUPPORTED: int = _system.not_supported
#: The error code of a call that a signal interrupted; it is called again (PEP 475). -1 on Windows,
#: where no call returns it.
INTERRUPTED: int = _system.interrupted
#: Whether address space can be reserved behind a map, to grow it in place: POSIX, and Windows from
#: 10 version 1803 on.
CAN_RESERVE: bool = bool(_system.can_reserve)
#: Whether buffers read zeros where a page is gone. On Windows the process ends there instead.
GUARD_COVERS_ALL: bool = bool(_system.guard_covers_all)
