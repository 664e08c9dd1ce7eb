"""``View``: a window on a part of a mapped file, with a lifetime of its own."""

from mappedfile._window import Window


class View(Window):
    """A range of a mapped file in memory; made by ``MappedFile.view``. It outlives its mapped file."""

    __slots__ = ()

    _what = "view"

    @property
    def offset(self) -> int:
        """Where in the file the view begins, in bytes."""
        return self._offset

    def close(self, *, strict: bool = False) -> None:
        """Unmap the view. Buffers taken from it keep their memory until the last of them goes.

        With ``strict=True`` raises ``BufferError``, and changes nothing, while such a buffer is alive. Closing twice is
        silent. Raises ``OSError`` when the system fails to unmap.
        """
        self._close(strict)

    def __repr__(self) -> str:
        state = "closed " if self.closed else ""
        return f"<{state}View of {self.name!r}, offset {self._offset}, length {self._length}>"


View.__module__ = "mappedfile"
