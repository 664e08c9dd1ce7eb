"""The vocabulary that a mapped file and a view share: a window on bytes in memory."""

from __future__ import annotations

from _operator import index
from _warnings import warn
from sys import modules

from mappedfile._errors import INTERRUPTED, NOT_MAPPABLE, os_error
from mappedfile._native import ffi, lib
from mappedfile._pages import NO_FILE, Pages
from mappedfile._ranges import check_range, clamp
from mappedfile._system import FLUSH_REACHES_DEVICE, GRANULARITY, SYNC_COVERS_MAPS

TYPE_CHECKING = False
if TYPE_CHECKING:
    import sys
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import Any, SupportsIndex, overload

    from mappedfile._errors import Name
    from mappedfile._pages import OpenFile, Source

    if sys.version_info >= (3, 12):
        from collections.abc import Buffer
        from typing import Self
    else:
        from typing_extensions import Buffer, Self

READ: int = lib.MF_READ
WRITE: int = lib.MF_WRITE
COPY: int = lib.MF_COPY

#: Stands for the memory of a window that has none at present, closed or not mapped yet: every access raises
#: ValueError, and finding out costs an access that works nothing.
NOWHERE = memoryview(b"")
NOWHERE.release()

_NOTHING = ffi.new("char[]", 0)
_MAPPING = ffi.typeof("mf_mapping *")
# Looked up once: making a view is a matter of a few microseconds.
_new, _gc, _buffer, _mf_map = ffi.new, ffi.gc, ffi.buffer, lib.mf_map


class Window:
    """Bytes in memory. ``MappedFile`` and ``View`` are the two kinds."""

    __slots__ = (
        "__weakref__",
        "_access",
        "_buffer",
        "_closed",
        "_fate",
        "_file_fate",
        "_held",
        "_length",
        "_memory",
        "_name",
    )

    _access: int
    _buffer: Any  # the memory, indexed by slices: gives bytes
    _closed: bool
    _fate: Pages | None  # of the map; it does not keep the map
    _file_fate: OpenFile  # of the file, and what is alive on it
    _held: tuple[Any, Pages] | None  # the address, which keeps the map; None: not mapped, or empty
    _length: int
    _memory: memoryview  # the memory, indexed by numbers: gives ints
    _name: Name

    # What each kind has of its own.

    _what = "window"

    def _map(self) -> None:
        """Map the memory, if that is still to be done; called when it is first needed."""

    def _raw(self) -> Any:
        """Return the open ``mf_file`` or, when it is closed, None."""
        raise NotImplementedError

    # Bytes

    def __len__(self) -> int:
        if self._closed:
            raise self._refusal()
        return self._length

    if TYPE_CHECKING:

        @overload
        def __getitem__(self, key: SupportsIndex, /) -> int: ...
        @overload
        def __getitem__(self, key: slice, /) -> bytes: ...
        def __getitem__(self, key: Any, /) -> Any: ...

    else:

        def __getitem__(self, key, /):
            """Return the byte at an index as an int, or the bytes of a slice."""
            try:
                if key.__class__ is int:
                    return self._memory[key]
                if key.__class__ is slice:
                    data = self._buffer[key]
                    if self._closed:  # by an __index__ inside the slice
                        raise self._refusal()
                    return data
            except (TypeError, ValueError):
                pass  # closed, not mapped yet, or a slice with a step
            return self._get(key)

    def _get(self, key: Any) -> int | bytes:
        """The same for everything out of the ordinary: arguments are converted first, then memory is looked at."""
        if isinstance(key, slice):
            span = self._resolve(key)
            return self._mapped_memory()[span].tobytes()
        position = index(key)
        return self._mapped_memory()[position]

    def __setitem__(self, key: SupportsIndex | slice, value: SupportsIndex | Buffer, /) -> None:
        """Write a byte, or bytes of the same length as the slice."""
        if key.__class__ is int and value.__class__ is int:
            try:
                self._memory[key] = value
                return
            except (TypeError, ValueError):
                pass  # closed, not mapped yet, read-only, or no byte
        self._set(key, value)

    def _set(self, key: Any, value: Any) -> None:
        if self._access == READ:
            self._refuse_if_closed()
            raise TypeError(f"the {self._what} on {self._name!r} is read-only: open the file in mode 'r+' or 'c'")
        if not isinstance(key, slice):
            position = index(key)
            number = index(value)
            if not 0 <= number <= 255:
                raise ValueError(f"a byte must be in range(0, 256), not {number}")
            self._mapped_memory()[position] = number
            return
        span = self._resolve(key)
        with memoryview(value) as given, self._mapped_memory()[span] as target:
            source = given if given.format == "B" and given.ndim == 1 else given.tobytes()
            if len(target) != len(source):
                raise ValueError(f"a slice of {len(target)} bytes cannot be set to {len(source)} bytes")
            target[:] = source

    def _resolve(self, key: slice) -> slice:
        """Convert the numbers of a slice, so that nothing of the caller's runs later on."""
        convert = [None if number is None else index(number) for number in (key.start, key.stop, key.step)]
        return slice(*convert)

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
        return self._search(lib.mf_find, sub, start, end, -1)

    def rfind(
        self, sub: SupportsIndex | Buffer, start: SupportsIndex | None = None, end: SupportsIndex | None = None, /
    ) -> int:
        """Return the highest index where *sub* begins, or -1: ``bytes.rfind``."""
        return self._search(lib.mf_rfind, sub, start, end, -1)

    def count(
        self, sub: SupportsIndex | Buffer, start: SupportsIndex | None = None, end: SupportsIndex | None = None, /
    ) -> int:
        """Return how often *sub* occurs without overlaps: ``bytes.count``."""
        return self._search(lib.mf_count, sub, start, end, 0)

    def _search(self, function: Callable[..., int], sub: Any, start: Any, end: Any, absent: int) -> int:
        needle = sub if sub.__class__ is bytes else _needle(sub)
        start, end = (None if limit is None else index(limit) for limit in (start, end))
        memory = self._mapped_buffer()  # kept here: a close meanwhile leaves the map until the search is through
        first, last = clamp(start, end, len(memory))
        if last - first < len(needle):
            return absent
        found = function(ffi.from_buffer(memory) + first, last - first, needle, len(needle))
        return found if found < 0 or function is lib.mf_count else first + found

    # Buffers

    @property
    def data(self) -> memoryview:
        """A new memoryview of the memory, without a copy; read-only if the window is.

        It keeps the memory: closing its owner, or resizing the file, leaves it as it is. The memory is unmapped when
        the last buffer, and whatever was made from it, has gone.
        """
        self._refuse_if_closed()
        self._map()
        held = self._held
        if held is None:
            self._refuse_if_closed()
            return memoryview(b"" if self._access == READ else bytearray())
        start, pages = held
        return pages.export(start, self._length, self._access == READ)

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
        first = index(offset)
        count = None if length is None else index(length)
        self._refuse_if_closed()
        first, count = check_range(first, count, self._length, self._what)
        if self._access != WRITE or count == 0:
            return
        if durable and self._raw() is None:
            raise ValueError(
                f"the file {self._name!r} is closed, and a durable flush needs it: flush before closing it, or use"
                " flush(durable=False)"
            )
        self._map()
        held = self._held
        if held is None:
            raise self._refusal()
        start, pages = held  # start keeps the map until we are through
        code = INTERRUPTED
        while code == INTERRUPTED:
            code = pages.flush(self._raw() or ffi.NULL, start, first, count, durable)
        if code == 0 and durable and not FLUSH_REACHES_DEVICE:
            code = lib.mf_sync(self._raw() or NO_FILE, True)
        del start, held  # or the error's traceback would keep them
        if code:
            raise os_error(code, self._name)

    # State

    @property
    def closed(self) -> bool:
        """Whether ``close()`` was called."""
        return self._closed

    @property
    def mapped(self) -> bool:
        """Whether the memory is mapped now. After ``close()``: whether a buffer still keeps it."""
        return self._fate is not None and self._fate.held

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

    def __del__(self) -> None:
        if getattr(self, "_closed", True):  # __init__ may have been called wrongly, and never begun
            return
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
        if self._closed:
            raise self._refusal()

    def _mapped_memory(self) -> memoryview:
        if self._memory is NOWHERE:
            self._refuse_if_closed()
            self._map()
        return self._memory

    def _mapped_buffer(self) -> Any:
        self._refuse_if_closed()
        self._map()
        return self._buffer

    def _hold(self, source: Source | None, offset: int, length: int, mapped: int) -> None:
        """Map *mapped* bytes of the file from *offset* on; the first *length*, 1 or more, are the window's memory."""
        if source is None:
            raise ValueError(f"the mapped file on {self._name!r} is closed")
        slack = offset % GRANULARITY
        mapping = _new(_MAPPING)
        access = self._access
        code = _mf_map(*source, access, offset - slack, mapped + slack, mapping)
        if code:
            del source  # or the error's traceback would keep the file open
            raise os_error(code, self._name, NOT_MAPPABLE)
        self._fate = pages = Pages(self._file_fate, mapping, offset, slack, mapped)
        start = _gc(mapping.base + slack, pages.give_back)
        if not SYNC_COVERS_MAPS:
            pages.register(start)
        self._buffer = buffer = _buffer(start, length)
        self._memory = memoryview(buffer) if access != READ else memoryview(buffer).toreadonly()
        self._held = start, pages

    def _hold_more(self, start: Any, pages: Pages, length: int) -> None:
        """Have *length* bytes of a map that is there as the memory of the window."""
        self._buffer = buffer = _buffer(start, length)
        self._memory = memoryview(buffer) if self._access != READ else memoryview(buffer).toreadonly()
        self._held = start, pages

    def _hold_nothing(self) -> None:
        """Be an empty window: bytes, but no memory of the system's."""
        self._fate = self._held = None
        self._buffer = ffi.buffer(_NOTHING)
        self._memory = memoryview(self._buffer)

    def _let_go(self) -> None:
        """Unmap the memory, unless somebody else holds it. Raises what the system says."""
        self._memory = self._buffer = NOWHERE
        self._held = None
        fate = self._fate
        if fate is not None:
            fate.settled = True
            if fate.error:
                fate.settle()


def _needle(sub: Any) -> bytes:
    """Return what to search for, given as anything that ``bytes.find`` takes."""
    try:
        return memoryview(sub).tobytes()
    except TypeError:
        if not hasattr(sub, "__index__"):
            kind = type(sub).__name__
            raise TypeError(f"what to search for must be bytes-like, or an int for one byte, not {kind}") from None
    number = index(sub)
    if not 0 <= number <= 255:
        raise ValueError(f"a byte must be in range(0, 256), not {number}")
    return bytes([number])
