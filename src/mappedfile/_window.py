"""``Window``: the methods that mapped files and views have in common."""

from __future__ import annotations

from mappedfile import _memory
from mappedfile import _system as _system  # connects the C types with the backend

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType, TracebackType
    from typing import Any, Literal, Self, SupportsIndex, TypeVar

    import numpy as np
    from numpy.typing import DTypeLike

    from mappedfile._advice import Advice, AdviceName, Residency
    from mappedfile._memory import Stream

    _V = TypeVar("_V", bound="Window")

#: The module _stream.py and the function of _array.py, after their first use.
_stream: ModuleType | None = None
_array: Callable[..., Any] | None = None


class Window(_memory.Window):
    """Bytes of a file in memory: the base of ``MappedFile`` and ``View``."""

    __slots__ = ()

    def stream(
        self, offset: SupportsIndex = 0, length: SupportsIndex | None = None, *, grow: bool = False
    ) -> Stream:
        """Return a binary stream on *length* bytes from *offset* on, or on all up to the end.

        *offset* and *length* are bytes. The stream is an ``io.BufferedIOBase`` with its own
        position, for code that reads or writes a file object. It has no buffer: a write changes the
        memory of the window at once. It keeps the memory and counts as a buffer: it stays valid, on
        the same bytes, after ``close()`` and ``resize()``.

        Writing past the end of the window raises ``OSError`` (``ENOSPC``), as on a full device.
        With *grow* the file grows instead, and the stream always ends where the file ends. *grow*
        needs a mapped file that can be resized, and no *length*. Each write past the end sets the
        size of the file, which takes some microseconds. For many small writes, put an
        ``io.BufferedWriter`` on the stream.

        Raises ``ValueError`` for a range outside the window and on a closed window;
        ``io.UnsupportedOperation`` for *grow* in the modes ``"r"`` and ``"c"``.
        """
        global _stream
        if _stream is None:
            from mappedfile import _stream as module  # registers it as an io.BufferedIOBase

            _stream = module
        return self._stream(offset, length, grow)

    def array(
        self,
        dtype: DTypeLike = "u1",
        shape: SupportsIndex | tuple[SupportsIndex, ...] | None = None,
        offset: SupportsIndex = 0,
        order: Literal["C", "F"] = "C",
    ) -> np.ndarray[Any, Any]:
        """Return a NumPy array of *dtype* on the memory from byte *offset* on, without a copy.

        Without *shape* the array has one dimension and reaches to the end of the window. One number
        in *shape* may be -1: it is computed from the end of the window. *offset* need not be
        aligned. The array of a read-only window is read-only, and no flag makes it writeable. The
        array keeps the memory when the window is closed or the file is resized. Make another array
        to see bytes that were added.

        Raises ``ValueError`` for an array that reaches outside the window, for bytes up to the end
        that are not a whole number of items, and on a closed window; ``TypeError`` for a *dtype*
        with Python objects; ``ImportError`` without NumPy (``pip install 'mappedfile[numpy]'``).
        """
        global _array
        if _array is None:
            from mappedfile import _array as module

            _array = module.array
        made: np.ndarray[Any, Any] = _array(self, dtype, shape, offset, order)
        return made

    def advise(
        self,
        kind: Advice | AdviceName,
        offset: SupportsIndex = 0,
        length: SupportsIndex | None = None,
    ) -> bool:
        """Advise the system how the memory will be used. *kind* is an ``Advice`` or its name.

        *offset* and *length* are bytes in the window; without *length* the range reaches to its
        end. The range is rounded outwards to whole pages. For ``dontneed``, ``cold`` and
        ``pageout`` it is rounded inwards, to pages without any other byte of the window. An empty
        range does nothing. No advice changes the content.

        Returns whether the system was advised. A *kind* that the system does not know is no error;
        ``capabilities()`` tells which kinds it knows. When ``resize()`` makes a new map, the advice
        for the old map is lost.

        Raises ``ValueError`` for an unknown name, for a range outside the window, and on a closed
        window; ``io.UnsupportedOperation`` for ``dontneed`` on private windows and
        ``populate_write`` on read-only windows; ``OSError`` if the system fails, for example if
        pages of ``dontneed`` are locked.
        """
        from mappedfile import _advice

        return _advice.advise(self, kind, offset, length)

    def residency(
        self, offset: SupportsIndex = 0, length: SupportsIndex | None = None
    ) -> Residency:
        """Return which pages of a range are in memory, one byte for each page.

        *offset* and *length* are bytes in the window; without *length* the range reaches to its
        end. The first byte of the result stands for the page with the byte at *offset*. Pages begin
        at multiples of ``PAGE_SIZE`` in the file.

        POSIX: pages in memory, whichever process read them (mincore(2)). Windows: pages in
        the working set of this process (``QueryWorkingSetEx``), since Windows does not tell which
        pages its cache has. ``capabilities().file_residency`` is true for the former.

        Raises ``ValueError`` for a range outside the window and on a closed window; ``OSError`` if
        the system fails. Linux from 5.2 on answers only the owner of a file, and processes that may
        write to it. For other processes it reports every page as being in memory (can_do_mincore in
        mm/mincore.c): this is a ``PermissionError``, except on a view whose file is closed, where
        it cannot be detected.
        """
        from mappedfile import _advice

        return _advice.residency(self, offset, length)

    def lock(self) -> None:
        """Read all pages into memory, and lock them there until ``unlock()`` or ``close()``.

        Locks do not nest, but each window has its own lock. A buffer that outlives its window keeps
        the lock. When a locked file is resized, its new map is locked. A forked child does not
        inherit the lock (mlock(2)). Locking a private window copies all of its pages, as writing to
        each of them does.

        Raises ``ValueError`` on a closed window; ``OSError``, with nothing locked, if the system
        refuses. POSIX limits locked memory (``RLIMIT_MEMLOCK``). On Windows the minimum working set
        is the limit (``VirtualLock``, Remarks): the library raises it as far as the system allows.
        """
        # Imported now: when a limit is met there may be no memory for an import.
        from mappedfile import _limits as _limits

        self._lock()

    def _make_view(
        self, kind: type[_V], offset: SupportsIndex, length: SupportsIndex | None, populate: bool
    ) -> _V:
        view = self._view(kind, offset, length)
        if populate:
            try:
                view.advise("populate_read")
            except BaseException:
                view.close()
                raise
        return view

    def unlock(self) -> None:
        """Unlock the pages, so that the system may evict them. Does nothing if they are not locked.

        Raises ``ValueError`` on a closed window; ``OSError`` if the system fails.
        """
        self._unlock()

    def close(self, *, strict: bool = False) -> None:
        """Close the window: see ``MappedFile.close`` and ``View.close``."""
        self._close(strict)

    def __enter__(self) -> Self:
        if self.closed:
            len(self)  # raises
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> Any:
        raise TypeError(
            f"a {self._kind} cannot be pickled or copied: open the file where it is needed"
        )
