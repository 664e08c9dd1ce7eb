"""The vocabulary that a mapped file and a view share: a window on bytes in memory."""

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

#: _stream.py, and _array.py's function, once they have been asked for.
_stream: ModuleType | None = None
_array: Callable[..., Any] | None = None


class Window(_memory.Window):
    """Bytes in memory. ``MappedFile`` and ``View`` are the two kinds."""

    __slots__ = ()

    _what = "window"

    def stream(
        self, offset: SupportsIndex = 0, length: SupportsIndex | None = None, *, grow: bool = False
    ) -> Stream:
        """Return a binary stream on *length* bytes from *offset* on, or on all up to the end.

        It is an ``io.BufferedIOBase`` with a position of its own: what reads a file reads it.
        Nothing is buffered: what is written is in the memory of the window at once. It keeps the
        memory as a buffer does: it counts as one, survives ``close()`` and ``resize()``, and goes
        on with the bytes that it was made for.

        Where the window ends, writing raises ``OSError`` (``ENOSPC``), as on a full device. With
        *grow*, on a mapped file that can be resized, and without *length*, the file grows by what
        is written past its end, and the stream sees the file at the size that it has. Each such
        write sets the size, which takes some microseconds: put an ``io.BufferedWriter`` on the
        stream for many small ones.

        Raises ``ValueError`` for a range outside the window and on a closed window;
        ``io.UnsupportedOperation`` for *grow* in the modes ``"r"`` and ``"c"``.
        """
        global _stream
        if _stream is None:
            from mappedfile import _stream as module  # has it be an io.BufferedIOBase

            _stream = module
        return self._stream(offset, length, grow)

    def array(
        self,
        dtype: DTypeLike = "u1",
        shape: SupportsIndex | tuple[SupportsIndex, ...] | None = None,
        offset: SupportsIndex = 0,
        order: Literal["C", "F"] = "C",
    ) -> np.ndarray[Any, Any]:
        """Return a NumPy array on the memory, without a copy: of *dtype*, from byte *offset* on.

        Without *shape* it has one dimension, to the end of the window; one number in *shape* may be
        -1, for as many as there are. *offset* need not be aligned. The array cannot be written
        where the window cannot, nor be made to. It keeps the memory, whatever is closed or resized
        meanwhile; to see a file that has grown, make another.

        Raises ``ValueError`` for what lies outside the window, or does not fill it to the end where
        it is to, and on a closed window; ``TypeError`` for Python objects, which no file has;
        ``ImportError`` without NumPy (``pip install 'mappedfile[numpy]'``).
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
        """Tell the system how the memory will be used, or what is to become of it: an ``Advice``,
        or its name.

        *offset* and *length* are bytes in the window; no *length* reaches to its end. The range is
        rounded outwards to whole pages; for ``dontneed``, ``cold`` and ``pageout`` inwards, to
        those that have no other byte of the window. An empty range does nothing. Nothing that can
        be asked for changes a byte.

        Returns whether the system was told; it is no error that it does not know a kind
        (``capabilities()`` tells which it does). It forgets what it was told of a file's map when
        ``resize()`` makes a new one.

        Raises ``ValueError`` for a kind that there is not, for a range outside the window, and on a
        closed window; ``io.UnsupportedOperation`` for ``dontneed`` on private windows and
        ``populate_write`` on read-only ones; ``OSError`` when the system fails, for example when
        pages of ``dontneed`` are locked.
        """
        from mappedfile import _advice

        return _advice.advise(self, kind, offset, length)

    def residency(
        self, offset: SupportsIndex = 0, length: SupportsIndex | None = None
    ) -> Residency:
        """Tell which pages of a range are in memory: all those that have a byte of it.

        *offset* and *length* are bytes in the window; no *length* reaches to its end. The first
        byte of the result is about the page that has the byte at *offset*; pages begin at multiples
        of ``PAGE_SIZE`` in the file.

        POSIX: in the memory of the system, whoever brought them there (mincore(2)). Windows: in the
        working set of this process (``QueryWorkingSetEx``), since nothing tells what the system
        keeps (``capabilities().file_residency``).

        Raises ``ValueError`` for a range outside the window and on a closed window; ``OSError``
        when the system fails; ``PermissionError`` where it tells only the owner of the file, and
        those who may write it: Linux, from 5.2 on, says of every page that it is there. That cannot
        be found out for a view whose file is closed.
        """
        from mappedfile import _advice

        return _advice.residency(self, offset, length)

    def lock(self) -> None:
        """Bring all pages of the window into memory, and keep them there until ``unlock()`` or
        ``close()``.

        Locks do not nest, but every window has its own. A buffer that outlives its window keeps the
        lock. When the file is resized the lock goes over to the map of the new size. A forked child
        does not inherit it (mlock(2)). Locking a private window copies all of its pages, as if
        every one was written to.

        Raises ``ValueError`` on a closed window; ``OSError``, with nothing locked, when the system
        refuses: POSIX has a limit (``RLIMIT_MEMLOCK``); on Windows the minimum working set is
        raised by what is missing (``VirtualLock``, Remarks), as far as the system lets it.
        """
        from mappedfile import (
            _limits as _limits,
        )  # what tells of a limit is there before one is met

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
        """Let the system have the pages again. Does nothing if they are not locked.

        Raises ``ValueError`` on a closed window; ``OSError`` when the system fails.
        """
        self._unlock()

    def close(self, *, strict: bool = False) -> None:
        """Give back what the window has; see ``MappedFile.close`` and ``View.close``."""
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
            f"a {self._what} cannot be pickled or copied: open the file where it is needed"
        )
