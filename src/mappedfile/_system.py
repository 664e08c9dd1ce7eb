"""What this system is like, as far as maps are concerned; and the C types, connected with the backend."""

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

#: Bytes in a page: memory is mapped and flushed in whole ones.
PAGE_SIZE: int = _system.page_size
#: What the offset of a map is a multiple of, in bytes: a page on POSIX, 64 KiB on Windows. Views
#: hide it.
GRANULARITY: int = _system.granularity

#: The system's code for what it cannot do.
NOT_SUPPORTED: int = _system.not_supported
#: The code for a call that a signal came to, which is to be made again (PEP 475); -1 where no call
#: says so.
INTERRUPTED: int = _system.interrupted
#: Maps can have address space behind them, to be made longer where they are: POSIX, Windows from 10
#: version 1803 on.
CAN_RESERVE: bool = bool(_system.can_reserve)
#: Who meets a page that is gone through a buffer reads zeros; elsewhere the process ends: Windows.
GUARD_COVERS_ALL: bool = bool(_system.guard_covers_all)
