"""``View``: a window on a part of a mapped file."""

from __future__ import annotations

from mappedfile._window import Window

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import SupportsIndex


class View(Window):
    """A part of a file in memory: ``MappedFile.view()``. It stays valid when the file is closed."""

    __slots__ = ()

    @property
    def offset(self) -> int:
        """Where in the file the view begins, in bytes."""
        return self._offset

    def view(
        self,
        offset: SupportsIndex = 0,
        length: SupportsIndex | None = None,
        *,
        populate: bool = False,
    ) -> View:
        """Map *length* bytes of the view from *offset* on, or all up to its end, as another view.

        *offset* and *length* are bytes in this view. Each view is closed separately. Raises
        ``ValueError`` for a range outside the view, and if the file is closed: a new view is mapped
        from the file. A slice of ``data`` needs no open file.
        """
        return self._make_view(View, offset, length, populate)

    def close(self, *, strict: bool = False) -> None:
        """Unmap the view; or, if buffers are alive, unmap it when the last of them is gone.

        With ``strict=True`` it raises ``BufferError`` while a buffer is alive, and changes nothing.
        Closing twice is silent. Raises ``OSError`` if the system fails to unmap.
        """
        self._close(strict)

    def __repr__(self) -> str:
        state = "closed " if self.closed else ""
        return f"<{state}View of {self.name!r}, offset {self._offset}, length {self._length}>"


View.__module__ = "mappedfile"
