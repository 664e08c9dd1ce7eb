"""What is held of the system, and given back when its last user lets go.

An open file, its section and a map are each kept by reference counting: whoever works with one, a thread inside a call
included, holds a reference, and the last one to go gives it back. So an object can be closed at any moment, from any
thread, and nobody ever touches memory or a descriptor that has become somebody else's.
"""

from __future__ import annotations

from _weakref import ref
from sys import getrefcount

from mappedfile._errors import mapping_fault, os_error
from mappedfile._native import ffi, lib
from mappedfile._ranges import align, align_inwards
from mappedfile._system import HAS_SECTIONS, PAGE_SIZE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias

    from mappedfile._errors import Name

    #: What maps are made from: an ``mf_file`` and its ``mf_section``. Whoever has the pair keeps both open.
    Source: TypeAlias = tuple[Any, Any]

_new, _gc, _buffer = ffi.new, ffi.gc, ffi.buffer
_mf_close = lib.mf_close
_FILE = ffi.typeof("mf_file *")
_SECTION = ffi.typeof("mf_section *")
_BYTES = ffi.typeof("char[]")
_NUMBER = ffi.typeof("int64_t *")
_ABSENT = (-1, 0)

#: A file and a section that are none.
NO_FILE = _new(_FILE, _ABSENT)
NO_SECTION = _new(_SECTION, _ABSENT)


class Handle:
    """The fate of one handle of the system's: how giving it back failed, if it did."""

    error = 0
    settled = False

    def __init__(self, name: Name) -> None:
        self.name = name

    def give_back(self, thing: Any) -> None:
        """Called by cffi when the last reference to *thing* has gone."""
        raise NotImplementedError

    def fail(self, error: int) -> None:
        """Remember for ``settle`` what giving back failed with."""
        self.error = error
        if self.settled:
            raise os_error(error, self.name)  # nobody is left to catch it: sys.unraisablehook reports it

    def settle(self) -> None:
        """Called by the owner after it let go: raises what went wrong, if it was the last to."""
        self.settled = True
        if self.error:
            raise os_error(self.error, self.name)


class OpenFile(Handle):
    """The fate of an open file, and what is alive on it: its open views, and the maps that buffers were taken from.

    Both may outlive it.
    """

    #: Returns the ``mf_file`` while it is open, or None.
    opened: Callable[[], Any]

    def __init__(self, name: Name, raw: Any) -> None:
        self.name = name
        #: The ``mf_file``, closed or not: maps point to it.
        self.raw = raw
        #: Every open view holds a reference to this object, which is nothing else: they are counted by it.
        self.token = object()

    def note(self, pages: Pages) -> None:
        """Take a map for one of ``maps``: those with buffers and, where a sync does not cover maps, all others too."""
        key, noted = id(pages), self.__dict__.setdefault("noted", {})
        noted[key] = ref(pages, lambda _: noted.pop(key, None))

    def maps(self) -> list[Pages]:
        """Return the maps that are noted and alive."""
        noted: dict[int, ref[Pages]] = self.__dict__.get("noted", {})
        return [pages for known in list(noted.values()) if (pages := known()) is not None]

    def give_back(self, thing: Any) -> None:
        if error := _mf_close(thing):
            self.fail(error)

    def views(self) -> int:
        """Count the open views."""
        return getrefcount(self.token) - _NO_VIEWS

    def buffers(self) -> int:
        """Count the buffers on all maps, those of closed owners too."""
        return sum(len(pages.exports) for pages in self.maps())

    def flush_maps(self, file: Any, wait: bool) -> int:
        """Flush every map; return the first code of the system's that says it failed."""
        pinned = [(pages.pin(), pages) for pages in self.maps()]
        codes = [pages.flush(file, 0, pages.length, wait) for pin, pages in pinned if pin is not None]
        return next(filter(None, codes), 0)


def held_once(thing: Any) -> bool:
    """Tell whether the caller's variable is the only reference to *thing*."""
    return getrefcount(thing) == _HELD_ONCE


def _references_when_held_once() -> int:
    thing = object()
    return _count(thing)


def _count(thing: Any) -> int:
    return getrefcount(thing)


_HELD_ONCE = _references_when_held_once()
_NO_VIEWS = 0
_NO_VIEWS = OpenFile("", None).views()


class OpenSection(Handle):
    """The fate of a section."""

    def give_back(self, thing: Any) -> None:
        if error := lib.mf_close_section(thing):
            self.fail(error)


def hold_file(name: Name) -> tuple[OpenFile, Any]:
    """Return an ``mf_file`` for the backend to fill in, after the fate of what it will hold."""
    raw = _new(_FILE, _ABSENT)
    fate = OpenFile(name, raw)
    held = _gc(raw, fate.give_back)
    fate.opened = ref(held)
    return fate, held


def hold_section(name: Name) -> tuple[Any, OpenSection | None]:
    """Return an ``mf_section`` for the backend to fill in, and the fate of what it will hold, if it will."""
    if not HAS_SECTIONS:
        return _new(_SECTION, _ABSENT), None
    fate = OpenSection(name)
    return _gc(_new(_SECTION, _ABSENT), fate.give_back), fate


class Pages:
    """The fate of one map of the system's, the buffers that were taken from it, and what is done with its bytes.

    ::

        base            start                        base + slack + length
        |<--- slack --->|<--------- length --------->|
        multiple of     where the caller's
        the granularity range begins

    The map stays while somebody has its *pin*. Ranges are in bytes from the start on.
    """

    #: The buffers, by the id of their owner.
    exports: dict[int, ref[Any]] = {}  # noqa: RUF012 (nothing is put into this one)
    #: The pin, for maps that are flushed together with their file.
    pin: ref[Any]

    def __init__(self, file: OpenFile, mapping: Any, offset: int, slack: int, length: int) -> None:
        self.file = file
        self.mapping = mapping  # the backend's mf_mapping
        self.offset = offset
        self.slack = slack
        self.length = length

    def note(self, pin: Any) -> None:
        """Be flushed together with the file, where syncing it does not cover its maps."""
        self.pin = ref(pin)
        self.file.note(self)

    @property
    def held(self) -> bool:
        """Whether the map is there."""
        return bool(self.mapping.base != ffi.NULL)

    def settle(self) -> None:
        """Raise what the system said when the map was given back; called by whoever may have had the pin last."""
        if self.mapping.error:
            raise os_error(self.mapping.error, self.file.name)

    @property
    def room(self) -> int:
        """How long the map can become where it is."""
        reserved: int = self.mapping.reserved
        return max(self.length, reserved - self.slack)

    def extend(self, section: Any, length: int) -> int:
        """Make the map longer where it is, up to its room; return the system's code."""
        error: int = lib.mf_extend(self.mapping, section, self.offset - self.slack, self.slack + length)
        if not error:
            self.length = length
        return error

    def grow(self, length: int) -> bool:
        """Make the map longer, wherever it is then, if the system can. Nobody but the caller may hold its pin."""
        if lib.mf_remap(self.mapping, self.slack + length):
            return False
        self.length = length
        return True

    def at(self, offset: int) -> Any:
        """Return an address, to be used by who has the pin."""
        return self.mapping.base + (self.slack + offset)

    def export(self, pin: Any, length: int, readonly: bool) -> memoryview:
        """Return a buffer on the first *length* bytes, counted while it or anything made from it lives."""
        exporter = _buffer(_gc(self.at(0), Keeper(pin, self)), length)
        key, exports = id(exporter), self.__dict__.setdefault("exports", {})
        self.file.note(self)
        exports[key] = ref(exporter, lambda _: exports.pop(key, None))
        memory = memoryview(exporter)
        return memory.toreadonly() if readonly else memory

    # Whoever calls these has the pin.

    def read(self, first: int, step: int, count: int) -> bytes:
        """Return every *step*-th byte from *first* on, *count* of them."""
        out = _new(_BYTES, count)
        failed = lib.mf_copy(self.mapping, out, 1, self.at(first), step, count)
        self._judge(failed, first, step, count)
        return bytes(_buffer(out))

    def write(self, first: int, step: int, data: Any) -> None:
        """Set every *step*-th byte from *first* on."""
        count = len(data)
        failed = lib.mf_copy(self.mapping, self.at(first), step, data, 1, count)
        self._judge(failed, first, step, count)

    def search(self, function: Any, first: int, length: int, needle: bytes) -> int:
        """Search a range with one of the backend's functions."""
        found = _new(_NUMBER)
        failed = lib.mf_search(self.mapping, function, self.at(first), length, needle, len(needle), ffi.NULL, found)
        self._judge(failed, first, 1, length)
        return int(found[0])

    def flush(self, file: Any, offset: int, length: int, wait: bool) -> int:
        """Flush the pages under a range; return the system's code."""
        first, count = self.around(offset, length)
        return lib.mf_flush(file, self.at(first), count, self.offset + first, wait)

    def around(self, offset: int, length: int) -> tuple[int, int]:
        """Round a range outwards, to the pages that have a byte of it."""
        first, count = align(self.slack + offset, length, PAGE_SIZE, self.slack + self.length)
        return first - self.slack, count

    def within(self, offset: int, length: int, limit: int) -> tuple[int, int]:
        """Round a range inwards, to the pages that have no byte of the first *limit* beside it: maybe to none."""
        first, count = align_inwards(self.slack + offset, length, PAGE_SIZE, self.slack, self.slack + limit)
        return first - self.slack, count

    def touch(self, offset: int, length: int) -> None:
        """Read a byte of every page of a range that begins with one."""
        count = -(-length // PAGE_SIZE)
        failed = lib.mf_copy(self.mapping, _new(_BYTES, 1), 0, self.at(offset), PAGE_SIZE, count)
        self._judge(failed, offset, PAGE_SIZE, count)

    # Pages that are gone

    @property
    def faulted(self) -> bool:
        """Whether one is."""
        return bool(self.mapping.lost_to)

    def refuse_if_lost(self, offset: int, length: int) -> None:
        """Raise ``MappingFault`` if one of them may be in this range."""
        stop = self.mapping.lost_to - self.slack  # it is set last, so it is read first
        first = self.mapping.lost_from - self.slack
        if first < offset + length and offset < stop:
            raise mapping_fault(self.file.name, self.offset + max(first, offset))

    def _judge(self, failed: int, first: int, step: int, count: int) -> None:
        """Raise ``MappingFault`` if what was just done met one of them."""
        if self.mapping.lost_to:
            last = first + step * (count - 1)
            self.refuse_if_lost(min(first, last), abs(last - first) + 1)
        if failed:
            raise mapping_fault(self.file.name, self.offset + first)


class Keeper:
    """Keeps a map for a buffer. Called by cffi when the buffer, and whatever was made from it, has gone."""

    __slots__ = ("pages", "pin")

    def __init__(self, pin: Any, pages: Pages) -> None:
        self.pin = pin
        self.pages = pages

    def __call__(self, _: Any) -> None:
        del self.pin
        self.pages.settle()  # nobody is there to catch an error: sys.unraisablehook reports it


#: What is held by who has no map.
NO_PAGES = Pages(OpenFile("", None), _new("mf_mapping *"), 0, 0, 0)
