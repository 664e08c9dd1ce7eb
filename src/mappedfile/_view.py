"""``View``: a window on a part of a mapped file, with a lifetime of its own."""

from __future__ import annotations

from mappedfile._errors import refuse_alive
from mappedfile._ranges import check_range
from mappedfile._system import HAS_SECTIONS
from mappedfile._window import Window

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from mappedfile._file import MappedFile


class View(Window):
    """A range of a mapped file in memory; made by ``MappedFile.view``. It outlives its mapped file."""

    __slots__ = ("_offset", "_token")

    _what = "view"

    _token: object  # see OpenFile

    def __init__(self, file: MappedFile, offset: int, length: int) -> None:
        self._access = file._access
        self._file_fate = file_fate = file._file_fate
        self._offset = offset
        self._length = length
        # Counted before the range is checked: a shrink sets the new length before it counts.
        self._token = file_fate.token
        try:
            if offset + length > file._length:
                check_range(offset, length, file._length, file._what)
            if length:
                self._hold(file._with_section() if HAS_SECTIONS else file._source, offset, length)
            else:
                file._refuse_if_closed()
                self._hold_nothing()
        except BaseException:
            self._token = None  # or the error's traceback would keep a view
            raise
        self._open = True

    @property
    def offset(self) -> int:
        """Where in the file the view begins, in bytes."""
        return self._offset

    def _raw(self) -> Any:
        return self._file_fate.opened()

    def close(self, *, strict: bool = False) -> None:
        """Unmap the view. Buffers taken from it keep their memory until the last of them goes.

        With ``strict=True`` raises ``BufferError``, and changes nothing, while such a buffer is alive. Closing twice is
        silent. Raises ``OSError`` when the system fails to unmap.
        """
        if not self._open:
            return
        fate = self._fate
        if strict and fate is not None:
            refuse_alive(0, len(fate.exports), f"close {self!r}")
        self._open = False
        self._token = None
        self._let_go()

    def __repr__(self) -> str:
        state = "" if self._open else "closed "
        return f"<{state}View of {self._name!r}, offset {self._offset}, length {self._length}>"
