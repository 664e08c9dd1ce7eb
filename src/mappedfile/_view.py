"""``View``: a window on a part of a mapped file, with a lifetime of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mappedfile._errors import refuse_alive
from mappedfile._pages import map_range
from mappedfile._ranges import check_range
from mappedfile._window import Window

if TYPE_CHECKING:
    from mappedfile._file import MappedFile
    from mappedfile._pages import Source


class View(Window):
    """A range of a mapped file in memory; made by ``MappedFile.view``. It outlives its mapped file."""

    __slots__ = ("_file", "_offset")

    _what = "view"

    def __init__(self, file: MappedFile, offset: int, length: int) -> None:
        self._closed = True  # until there is something to close
        self._file = file._self
        self._access = file._access
        self._name = name = file._name
        self._alive = alive = file._alive
        self._offset = offset
        self._length = length
        source = file._opened
        if source is None:
            file._refuse()
        # Counted before the range is checked: a shrink sets the new size before it counts.
        alive.views.add(id(self))
        try:
            if offset + length > file._length:
                check_range(offset, length, file._length, file._what)
            if length:
                self._hold(*map_range(source, self._access, offset, length, name, alive))
            else:
                self._hold_nothing()
        except BaseException:
            alive.views.discard(id(self))
            raise
        self._closed = False

    @property
    def offset(self) -> int:
        """Where in the file the view begins, in bytes."""
        return self._offset

    def _source(self) -> Source | None:
        file = self._file()
        return None if file is None else file._opened

    def close(self, *, strict: bool = False) -> None:
        """Unmap the view. Buffers taken from it keep their memory until the last of them goes.

        With ``strict=True`` raises ``BufferError``, and changes nothing, while such a buffer is alive. Closing twice is
        silent. Raises ``OSError`` when the system fails to unmap.
        """
        if self._closed:
            return
        if strict and self._fate is not None:
            refuse_alive(0, len(self._fate.exports), f"close {self!r}")
        self._closed = True
        self._alive.views.discard(id(self))
        self._let_go()

    def __repr__(self) -> str:
        state = "closed " if self._closed else ""
        return f"<{state}View of {self._name!r}, offset {self._offset}, length {self._length}>"
