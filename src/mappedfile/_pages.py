"""What is held of the system, and given back when its last user lets go.

Both an open file and a map are kept by reference counting: whoever works with one, a thread inside a call included,
holds a reference, and the last one to go gives it back. So an object can be closed at any moment, from any thread,
and nobody ever touches memory or a descriptor that has become somebody else's.
"""

import sys
from typing import Any, TypeAlias
from weakref import ref

from mappedfile._errors import Name, os_error
from mappedfile._native import ffi, lib
from mappedfile._ranges import align
from mappedfile._system import GRANULARITY, PAGE_SIZE

_CHAR_POINTER_OUT = ffi.typeof("char **")
_FILE = ffi.typeof("mf_file *")
_SECTION = ffi.typeof("mf_section *")
_INT64 = ffi.typeof("int64_t *")
_ABSENT = (-1,)


#: What maps are made from: an ``mf_file`` and its ``mf_section``. Whoever has the pair keeps both open.
Source: TypeAlias = "tuple[Any, Any]"


class Held:
    """The fate of one thing of the system's: whether it is still held and, if giving it back failed, how."""

    __slots__ = ("error", "held", "name", "settled")

    def __init__(self, name: Name) -> None:
        self.name = name
        self.held = True
        self.error = 0
        self.settled = False

    def give_back(self, thing: Any) -> None:
        """Called by cffi when the last reference to *thing* has gone."""
        self.error = self.release(thing)
        self.held = False
        if self.error and self.settled:
            raise os_error(self.error, self.name)  # nobody is left to catch it: sys.unraisablehook reports it

    def release(self, thing: Any) -> int:
        raise NotImplementedError

    def settle(self) -> None:
        """Called by the owner after it let go: raises what went wrong, if it was the last to."""
        self.settled = True
        if self.error:
            raise os_error(self.error, self.name)


class OpenFile(Held):
    """The fate of an open file: a descriptor or a handle."""

    __slots__ = ()

    def release(self, thing: Any) -> int:
        return lib.mf_close(thing)


class OpenSection(Held):
    """The fate of a section."""

    __slots__ = ()

    def release(self, thing: Any) -> int:
        return lib.mf_close_section(thing)


def hold_file(name: Name) -> tuple[Any, OpenFile]:
    """Return an ``mf_file`` for the backend to fill in, and the fate of what it will hold."""
    fate = OpenFile(name)
    return ffi.gc(ffi.new(_FILE, _ABSENT), fate.give_back), fate


def hold_section(file: Any, access: int, name: Name) -> tuple[Any, OpenSection, int]:
    """Make a section of the whole file; return it, its fate and its size in bytes."""
    fate = OpenSection(name)
    section = ffi.gc(ffi.new(_SECTION, _ABSENT), fate.give_back)
    size = ffi.new(_INT64)
    code = lib.mf_open_section(file, access, section, size)
    if code:
        raise os_error(code, name)
    return section, fate, size[0]


class Alive:
    """What is alive on one file: its open views, and its maps, which buffers may keep beyond their owner."""

    __slots__ = ("maps", "views")

    def __init__(self) -> None:
        self.views: set[int] = set()
        self.maps: set[Pages] = set()

    def buffers(self) -> int:
        """Count the buffers on all maps, those of closed owners too."""
        return sum(len(pages.exports) for pages in list(self.maps))

    def flush(self, file: Any, wait: bool) -> int:
        """Flush all maps; return the first code of the system's that says it failed."""
        codes = [pages.flush(file, 0, pages.length, wait) for pages in list(self.maps) if (kept := pages.address())]
        return next(filter(None, codes), 0)


if sys.version_info >= (3, 12):

    class Exporter:
        """The owner of a read-only buffer. cffi's own is writable, and a memoryview's ``obj`` would hand it out."""

        __slots__ = ("__weakref__", "_buffer")

        def __init__(self, start: Any, length: int) -> None:
            self._buffer = ffi.buffer(start, length)

        def __buffer__(self, flags: int) -> memoryview:
            return memoryview(self._buffer).toreadonly()

else:
    Exporter = ffi.buffer  # classes cannot export buffers yet: PEP 688


class Pages(Held):
    """The fate of one map of the system's, and the buffers that were taken from it.

    ::

        base            start                        base + whole
        |<--- slack --->|<--------- length --------->|
        multiple of     where the caller's
        the granularity range begins
    """

    __slots__ = ("_alive", "address", "base", "exports", "length", "offset", "slack", "whole")

    def __init__(self, name: Name, alive: Alive) -> None:
        super().__init__(name)
        self._alive = alive
        self.exports: dict[int, ref[Any]] = {}

    def release(self, thing: Any) -> int:
        self._alive.maps.discard(self)
        return lib.mf_unmap(self.base, self.whole)

    def export(self, start: Any, readonly: bool) -> memoryview:
        """Return a buffer on the map, counted while it or anything made from it lives."""
        exporter = Exporter(start, self.length) if readonly else ffi.buffer(start, self.length)
        key = id(exporter)
        exports = self.exports
        exports[key] = ref(exporter, lambda _: exports.pop(key, None))
        memory = memoryview(exporter)
        return memory.toreadonly() if readonly else memory

    def flush(self, file: Any, offset: int, length: int, wait: bool) -> int:
        """Flush the pages under a range of the caller's; return the system's code."""
        first, count = align(self.slack + offset, length, PAGE_SIZE, self.whole)
        return lib.mf_flush(file, self.base + first, count, self.offset + first, wait)


def map_range(
    source: Source, access: int, offset: int, length: int, name: Name, alive: Alive
) -> tuple[Any, Pages]:
    """Map *length* bytes (1 or more) of *source* from *offset* on; return their address and the fate of the map.

    The map lasts as long as the address object does. Raises ``OSError``.
    """
    pages = Pages(name, alive)
    slack = offset % GRANULARITY
    pages.slack = slack
    pages.length = length
    pages.offset = offset - slack
    pages.whole = length + slack
    out = ffi.new(_CHAR_POINTER_OUT)
    code = lib.mf_map(*source, access, offset - slack, length + slack, out)
    if code:
        raise os_error(code, name)
    base = pages.base = out[0]
    start = ffi.gc(base + slack, pages.give_back)
    pages.address = ref(start)
    alive.maps.add(pages)
    return start, pages
