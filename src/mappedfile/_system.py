"""What this system is like, as far as maps are concerned."""

from mappedfile._native import ffi, lib

_system = ffi.new("mf_system *")
lib.mf_query_system(_system)

#: Bytes in a page: memory is mapped and flushed in whole ones.
PAGE_SIZE: int = _system.page_size
#: What the offset of a map is a multiple of, in bytes: a page on POSIX, 64 KiB on Windows. Views hide it.
GRANULARITY: int = _system.granularity

#: A flush that waits is durable by itself: Linux. Elsewhere the file must be synced after it.
FLUSH_REACHES_DEVICE: bool = bool(_system.flush_reaches_device)
#: Maps can have address space behind them, to be made longer where they are: POSIX, Windows from 10 version 1803 on.
CAN_RESERVE: bool = bool(_system.can_reserve)
#: Maps are made from a section of the file, which must be made first: Windows' "file mapping object".
HAS_SECTIONS: bool = bool(_system.has_sections)
#: Syncing the file writes what is dirty in maps of it too: Linux. Elsewhere they must be flushed before.
SYNC_COVERS_MAPS: bool = bool(_system.sync_covers_maps)
#: Who meets a page that is gone through a buffer reads zeros; elsewhere the process ends: Windows.
GUARD_COVERS_ALL: bool = bool(_system.guard_covers_all)
