"""``View``: a window on a part of a mapped file, with a lifetime of its own."""

from __future__ import annotations

from mappedfile._window import Window

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import SupportsIndex


class View(Window):
    """A range of a mapped file in memory; made by ``MappedFile.view``. It outlives its mapped file."""

    __slots__ = ()

    _what = "view"

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
        """Map a part of the view by itself: *length* bytes from *offset* in the view on, or all up
        to its end.

        It has a lifetime of its own, as every view. It is mapped from the file, which must be open:
        ``ValueError`` otherwise, as for a range outside the view. A slice of ``data`` needs no
        file.
        """
        return self._make_view(View, offset, length, populate)

    def close(self, *, strict: bool = False) -> None:
        """Unmap the view. Buffers taken from it keep their memory until the last of them goes.

        With ``strict=True`` raises ``BufferError``, and changes nothing, while such a buffer is
        alive. Closing twice is silent. Raises ``OSError`` when the system fails to unmap.
        """
        self._close(strict)

    def __repr__(self) -> str:
        state = "closed " if self.closed else ""
        return f"<{state}View of {self.name!r}, offset {self._offset}, length {self._length}>"


View.__module__ = "mappedfile"
