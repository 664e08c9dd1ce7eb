"""The vocabulary that a mapped file and a view share: a window on bytes in memory."""

from __future__ import annotations

from _operator import index
from _warnings import warn
from sys import modules

from mappedfile import _guard
from mappedfile._errors import NOT_MAPPABLE, call, os_error
from mappedfile._native import ffi, lib
from mappedfile._pages import NO_FILE, NO_PAGES, Pages
from mappedfile._ranges import check_range, clamp
from mappedfile._system import FLUSH_REACHES_DEVICE, GRANULARITY, SYNC_COVERS_MAPS

TYPE_CHECKING = False

try:
    from mappedfile._access import Access
except ImportError:  # where access.c is not built: everything takes the long way

    class Access:  # type: ignore[no-redef]
        """Window's quick ways to the bytes, where there are none."""

        __slots__ = ("_held", "_open")

        _held: Any
        _open: bool

        def __new__(cls, *_: Any, **__: Any) -> Any:
            self = super().__new__(cls)
            self._held, self._open = None, False
            return self

        def __del__(self) -> None:
            if self._open:
                self._drop()  # type: ignore[attr-defined]

        def __getitem__(self, key: Any, /) -> Any:
            return self._get(key)  # type: ignore[attr-defined]

        def __setitem__(self, key: Any, value: Any, /) -> None:
            self._set(key, value)  # type: ignore[attr-defined]

        def _point_at(self, held: Any, mapping: int, offset: int, length: int, writable: bool) -> None:
            self._held = held


if TYPE_CHECKING:
    import sys
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Any, SupportsIndex, overload

    from mappedfile._errors import Name
    from mappedfile._memory import Advice, AdviceName, Residency
    from mappedfile._pages import OpenFile, Source

    if sys.version_info >= (3, 12):
        from collections.abc import Buffer
        from typing import Self
    else:
        from typing_extensions import Buffer, Self

READ: int = lib.MF_READ
WRITE: int = lib.MF_WRITE
COPY: int = lib.MF_COPY

FIND = ffi.addressof(lib, "mf_find")
RFIND = ffi.addressof(lib, "mf_rfind")
COUNT = ffi.addressof(lib, "mf_count")

#: A window's _held is the pin of its map, and the map; or None: not mapped; or this, when it is empty.
NOTHING = None, NO_PAGES

_MAPPING = ffi.typeof("mf_mapping *")
# Looked up once: making a view is a matter of a few microseconds.
_new, _gc, _mf_map, _mf_unmap = ffi.new, ffi.gc, lib.mf_map, lib.mf_unmap


class Window(Access):
    """Bytes in memory. ``MappedFile`` and ``View`` are the two kinds."""

    __slots__ = (
        "__weakref__",
        "_access",
        "_fate",
        "_file_fate",
        "_length",
    )

    _access: int
    _fate: Pages | None  # of the map; it does not keep the map
    _file_fate: OpenFile  # of the file, and what is alive on it
    _length: int

    @property
    def _name(self) -> Name:
        return self._file_fate.name

    # What each kind has of its own.

    _what = "window"

    def _map(self) -> None:
        """Map the memory, if that is still to be done; called when it is first needed."""

    def _raw(self) -> Any:
        """Return the open ``mf_file`` or, when it is closed, None."""
        raise NotImplementedError

    # Bytes

    def __len__(self) -> int:
        if not self._open:
            raise self._refusal()
        return self._length

    if TYPE_CHECKING:

        @overload
        def __getitem__(self, key: SupportsIndex, /) -> int: ...
        @overload
        def __getitem__(self, key: slice, /) -> bytes: ...
        def __getitem__(self, key: Any, /) -> Any:
            """Return the byte at an index as an int, or the bytes of a slice."""

        def __setitem__(self, key: SupportsIndex | slice, value: SupportsIndex | Buffer, /) -> None:
            """Write a byte, or bytes of the same length as the slice."""

    def _get(self, key: Any) -> Any:
        """What indexing means: arguments are converted first, then memory is looked at."""
        key = _resolve(key) if isinstance(key, slice) else index(key)
        if self._held is None:
            self._refuse_if_closed()
            self._map()
            return self[key]  # the quick way
        pin, pages, length = self._pin()
        try:
            if not isinstance(key, slice):
                return pages.read(_place(key, length), 1, 1)[0]
            first, stop, step = key.indices(length)
            count = len(range(first, stop, step))
            return pages.read(first, step, count) if count else b""
        finally:
            del pin  # or an error's traceback would keep the map
            self._settle(pages)

    def _set(self, key: Any, value: Any) -> None:
        if self._access == READ:
            self._refuse_if_closed()
            raise TypeError(f"the {self._what} on {self._name!r} is read-only: open the file in mode 'r+' or 'c'")
        if isinstance(key, slice):
            key = _resolve(key)
            # Bytes that are in a map themselves, this one perhaps, are copied in one go as memmove does, or beforehand.
            with memoryview(value) as given:
                source = value if given.c_contiguous and key.step in (None, 1) else given.tobytes()
        else:
            key, source = index(key), _byte(value)
        pin, pages, length = self._pin()
        try:
            if not isinstance(key, slice):
                pages.write(_place(key, length), 1, source)
                return
            data = ffi.from_buffer(source)
            first, stop, step = key.indices(length)
            count = len(range(first, stop, step))
            if len(data) != count:
                raise ValueError(f"a slice of {count} bytes cannot be set to {len(data)} bytes")
            if count:
                pages.write(first, step, data)
        finally:
            del pin
            self._settle(pages)

    def _pin(self) -> tuple[Any, Pages, int]:
        """Return the pin that keeps the map, the map, and how many bytes of it are the window's; map it if need be."""
        held = self._held
        while held is None:  # once, unless another thread closes or resizes the file
            self._refuse_if_closed()
            self._map()
            held = self._held
        pin, pages = held
        return pin, pages, min(self._length, pages.length)  # a resize may be under way

    def _settle(self, pages: Pages) -> None:
        """Tell what became of a map whose pin was given up: it may have been the last one."""
        if not self._open:
            pages.settle()

    def __iter__(self) -> Iterator[int]:
        for position in range(len(self)):
            yield self[position]

    def __contains__(self, sub: SupportsIndex | Buffer, /) -> bool:
        return self.find(sub) >= 0

    def find(
        self, sub: SupportsIndex | Buffer, start: SupportsIndex | None = None, end: SupportsIndex | None = None, /
    ) -> int:
        """Return the lowest index where *sub* (bytes-like, or an int for one byte) begins, or -1: ``bytes.find``.

        The search runs without the GIL, in time linear in the length.
        """
        return self._search(FIND, sub, start, end)

    def rfind(
        self, sub: SupportsIndex | Buffer, start: SupportsIndex | None = None, end: SupportsIndex | None = None, /
    ) -> int:
        """Return the highest index where *sub* begins, or -1: ``bytes.rfind``."""
        return self._search(RFIND, sub, start, end)

    def count(
        self, sub: SupportsIndex | Buffer, start: SupportsIndex | None = None, end: SupportsIndex | None = None, /
    ) -> int:
        """Return how often *sub* occurs without overlaps: ``bytes.count``."""
        return self._search(COUNT, sub, start, end)

    def _search(self, function: Any, sub: Any, start: Any, end: Any) -> int:
        needle = sub if sub.__class__ is bytes else _needle(sub)
        start, end = (None if limit is None else index(limit) for limit in (start, end))
        pin, pages, length = self._pin()
        try:
            first, last = clamp(start, end, length)
            if last - first < len(needle):
                return 0 if function is COUNT else -1
            found = pages.search(function, first, last - first, needle)
            return found if found < 0 or function is COUNT else first + found
        finally:
            del pin
            self._settle(pages)

    # Buffers

    @property
    def data(self) -> memoryview:
        """A new memoryview of the memory, without a copy; read-only if the window is.

        It keeps the memory: closing its owner, or resizing the file, leaves it as it is. The memory is unmapped when
        the last buffer, and whatever was made from it, has gone.
        """
        self._refuse_if_closed()
        pin, pages, length = self._pin()
        if not length:
            return memoryview(b"" if self._access == READ else bytearray())
        return pages.export(pin, length, self._access == READ)

    def __buffer__(self, flags: int, /) -> memoryview:
        return self.data

    def __release_buffer__(self, buffer: memoryview, /) -> None:
        # NumPy keeps the buffer of an object that can release one, and of any other the bare address.
        buffer.release()

    # Flushing

    def flush(self, offset: SupportsIndex = 0, length: SupportsIndex | None = None, *, durable: bool = True) -> None:
        """Write what was changed back to the file.

        *offset* and *length* are bytes in the window; no *length* reaches to its end. When it returns the range is on
        stable storage; with ``durable=False`` write-back is only started. Read-only and private windows have
        nothing to write.

        Raises ``ValueError`` for a range outside the window, on a closed window, and for a durable flush of a view
        whose file is closed; ``OSError`` when the system could not write.

        Linux: ``msync(MS_SYNC)``, or ``sync_file_range``; macOS adds ``F_FULLFSYNC`` (fsync(2)); Windows:
        ``FlushViewOfFile``, then ``FlushFileBuffers`` (FlushViewOfFile, Remarks).
        """
        first, count = self._range(offset, length)
        if self._access != WRITE or count == 0:
            return
        if durable and self._raw() is None:
            raise ValueError(
                f"the file {self._name!r} is closed, and a durable flush needs it: flush before closing it, or use"
                " flush(durable=False)"
            )
        pin, pages = self._pin_range(first, count)
        code = call(pages.flush, self._raw() or ffi.NULL, first, count, durable)
        if code == 0 and durable and not FLUSH_REACHES_DEVICE:
            code = lib.mf_sync(self._raw() or NO_FILE, True)
        del pin  # or the error's traceback would keep the map
        self._settle(pages)
        if code:
            raise os_error(code, self._name)
        pages.refuse_if_lost(first, count)

    # Memory

    def advise(self, kind: Advice | AdviceName, offset: SupportsIndex = 0, length: SupportsIndex | None = None) -> bool:
        """Tell the system how the memory will be used, or what is to become of it: an ``Advice``, or its name.

        *offset* and *length* are bytes in the window; no *length* reaches to its end. The range is rounded outwards to
        whole pages; for ``dontneed``, ``cold`` and ``pageout`` inwards, to those that have no other byte of the window.
        An empty range does nothing. Nothing that can be asked for changes a byte.

        Returns whether the system was told; it is no error that it does not know a kind (``capabilities()`` tells which
        it does). It forgets what it was told of a file's map when ``resize()`` makes a new one.

        Raises ``ValueError`` for a kind that there is not, for a range outside the window, and on a closed window;
        ``io.UnsupportedOperation`` for ``dontneed`` on private windows and ``populate_write`` on read-only ones;
        ``OSError`` when the system fails, as when pages that are locked are not to be needed.
        """
        from mappedfile import _memory

        return _memory.advise(self, kind, offset, length)

    def residency(self, offset: SupportsIndex = 0, length: SupportsIndex | None = None) -> Residency:
        """Tell which pages of a range are in memory: all those that have a byte of it.

        *offset* and *length* are bytes in the window; no *length* reaches to its end. The first byte of the result is
        about the page that has the byte at *offset*; pages begin at multiples of ``PAGE_SIZE`` in the file.

        POSIX: in the memory of the system, whoever brought them there (mincore(2)). Windows: in the working set of this
        process (``QueryWorkingSetEx``), since nothing tells what the system keeps (``capabilities().file_residency``).

        Raises ``ValueError`` for a range outside the window and on a closed window; ``OSError`` when the system fails;
        ``PermissionError`` where it tells only the owner of the file, and those who may write it: Linux, from 5.2 on,
        says of every page that it is there. That cannot be found out for a view whose file is closed.
        """
        from mappedfile import _memory

        return _memory.residency(self, offset, length)

    def lock(self) -> None:
        """Bring all pages of the window into memory, and keep them there until ``unlock()`` or ``close()``.

        Locks do not nest, but every window has its own. A buffer that outlives its window keeps the lock. When the file
        is resized the lock goes over to the map of the new size. A forked child does not inherit it (mlock(2)).
        Locking a private window copies all of its pages, as if every one was written to.

        Raises ``ValueError`` on a closed window; ``OSError``, with nothing locked, when the system refuses: POSIX has a
        limit (``RLIMIT_MEMLOCK``); on Windows the minimum working set is raised by what is missing (``VirtualLock``,
        Remarks), as far as the system lets it.
        """
        from mappedfile import _memory

        _memory.lock(self)

    def unlock(self) -> None:
        """Let the system have the pages again. Does nothing if they are not locked.

        Raises ``ValueError`` on a closed window; ``OSError`` when the system fails.
        """
        from mappedfile import _memory

        _memory.unlock(self)

    # State

    @property
    def closed(self) -> bool:
        """Whether ``close()`` was called."""
        return not self._open

    @property
    def mapped(self) -> bool:
        """Whether the memory is mapped now. After ``close()``: whether a buffer still keeps it."""
        return self._fate is not None and self._fate.held

    @property
    def faulted(self) -> bool:
        """Whether bytes of the map are gone: the file was cut short under it, or its device failed.

        Buffers read zeros there; access through this object raises ``MappingFault``. ``refresh()`` maps a file anew.
        """
        return self._fate is not None and self._fate.faulted

    @property
    def readonly(self) -> bool:
        """Whether the bytes cannot be written (mode ``"r"``)."""
        return self._access == READ

    def __enter__(self) -> Self:
        self._refuse_if_closed()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self, *, strict: bool = False) -> None:
        raise NotImplementedError

    def _drop(self) -> None:
        """Be forgotten while open; called when nobody has the object any more."""
        try:
            # Given a source, warnings imports tracemalloc: it fails when the interpreter ends, or imports it already.
            source = self if hasattr(modules.get("tracemalloc"), "is_tracing") else None
            warn(f"unclosed {self!r}", ResourceWarning, source=source, stacklevel=2)
        finally:
            self.close()

    def __reduce__(self) -> Any:
        raise TypeError(f"a {self._what} cannot be pickled or copied: open the file where it is needed")

    # Inside

    def _refusal(self) -> ValueError:
        return ValueError(f"the {self._what} on {self._name!r} is closed")

    def _refuse_if_closed(self) -> None:
        if not self._open:
            raise self._refusal()

    def _range(self, offset: SupportsIndex, length: SupportsIndex | None) -> tuple[int, int]:
        """Return a range of the caller's as two ints, if it lies in the window and that is open."""
        first = index(offset)
        count = None if length is None else index(length)
        self._refuse_if_closed()
        return check_range(first, count, self._length, self._what)

    def _pin_range(self, first: int, count: int) -> tuple[Any, Pages]:
        """Return the pin that keeps the map, and the map, if the range is still in it."""
        pin, pages, there = self._pin()
        if first + count > there:  # another thread has cut the file short
            del pin  # or the error's traceback would keep the map
            check_range(first, count, there, self._what)
        return pin, pages

    def _hold(self, source: Source | None, offset: int, length: int, reserve: int = 0) -> None:
        """Map *length* bytes of the file, 1 or more, from *offset* on, and be their window."""
        if source is None:
            raise ValueError(f"the mapped file on {self._name!r} is closed")
        if _guard.pending:
            _guard.put_in_place(self._name)
        slack = offset % GRANULARITY
        mapping = _new(_MAPPING)
        if reserve:
            mapping.reserved = reserve
        access = self._access
        # The pin is there before the map is: an interrupt may come between any two steps. The map has a pointer into
        # what the fate of its file keeps, so that is let go after the pin: a frame clears its variables in their order.
        pin = _gc(mapping, _mf_unmap)
        file_fate = self._file_fate
        code = _mf_map(*source, access, offset - slack, length + slack, mapping)
        if code:
            del source  # or the error's traceback would keep the file open
            raise os_error(code, self._name, NOT_MAPPABLE)
        self._fate = pages = Pages(file_fate, mapping, offset, slack, length)
        if not SYNC_COVERS_MAPS:
            pages.note(pin)
        self._point_at((pin, pages), mapping.self, slack, length, access != READ)

    def _hold_more(self, pin: Any, pages: Pages, length: int) -> None:
        """Have *length* bytes of a map that is there as the memory of the window."""
        self._point_at((pin, pages), pages.mapping.self, pages.slack, length, self._access != READ)

    def _take_over(self, other: Window, length: int) -> None:
        """Be the window of *length* bytes of another's map, which loses it; or of more or less of one's own."""
        pin, pages = other._present()
        if other is not self:
            other._fate = None
            other._point_at(None, 0, 0, 0, False)
        self._fate = pages
        self._hold_more(pin, pages, length)

    def _present(self) -> tuple[Any, Pages]:
        """Return the pin and the map that are there."""
        held: tuple[Any, Pages] | None = self._held
        if held is None:  # closed by another thread
            raise self._refusal()
        return held

    def _another(self) -> Window:
        """Return a window on the same file that holds nothing yet."""
        other = Window()
        other._fate = None
        other._access, other._file_fate = self._access, self._file_fate
        return other

    def _hold_nothing(self) -> None:
        """Be an empty window: bytes, but no memory of the system's."""
        self._fate = None
        self._point_at(NOTHING, 0, 0, 0, False)

    def _let_go(self) -> None:
        """Unmap the memory, unless somebody else holds it. Raises what the system says."""
        self._point_at(None, 0, 0, 0, False)
        fate = self._fate
        if fate is not None and fate.mapping.error:
            fate.settle()


def _resolve(key: slice) -> slice:
    """Convert the numbers of a slice, so that nothing of the caller's runs later on."""
    convert = [None if number is None else index(number) for number in (key.start, key.stop, key.step)]
    return slice(*convert)


def _place(position: int, length: int) -> int:
    """Resolve an index, or raise ``IndexError``."""
    place = position + length if position < 0 else position
    if not 0 <= place < length:
        raise IndexError(f"index {position} is out of range for {length} bytes")
    return place


def _needle(sub: Any) -> bytes:
    """Return what to search for, given as anything that ``bytes.find`` takes."""
    try:
        return memoryview(sub).tobytes()
    except TypeError:
        if not hasattr(sub, "__index__"):
            kind = type(sub).__name__
            raise TypeError(f"what to search for must be bytes-like, or an int for one byte, not {kind}") from None
    return _byte(sub)


def _byte(value: SupportsIndex) -> bytes:
    """Return one byte that was given as an int."""
    number = index(value)
    if not 0 <= number <= 255:
        raise ValueError(f"a byte must be in range(0, 256), not {number}")
    return bytes([number])
