"""``MappedFile``: a file, open, and the window on the whole of it."""

from __future__ import annotations

import os
import sys

from mappedfile import _memory
from mappedfile._view import View
from mappedfile._window import Window

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal, SupportsIndex, overload

    from mappedfile._errors import Name
    from mappedfile._types import File, Mode

if sys.platform == "win32":
    import _winapi
    from msvcrt import get_osfhandle, open_osfhandle

    def handle_of(descriptor: int) -> int:
        """Return the handle behind a descriptor; 0, which is no handle, when the descriptor is not open."""
        try:
            return get_osfhandle(descriptor)
        except OSError:
            return 0

    def open_descriptor(handle: int, readonly: bool) -> int:
        """Return a new descriptor on a handle, duplicated. It is not inherited by child programs."""
        process = _winapi.GetCurrentProcess()
        same = _winapi.DuplicateHandle(
            process, handle, process, 0, False, _winapi.DUPLICATE_SAME_ACCESS
        )
        try:
            return open_osfhandle(
                same, os.O_BINARY | os.O_NOINHERIT | (os.O_RDONLY if readonly else os.O_RDWR)
            )
        except BaseException:
            _winapi.CloseHandle(same)
            raise

else:

    def handle_of(descriptor: int) -> int:
        """Return what the backend knows a descriptor by."""
        return descriptor


LARGEST_DESCRIPTOR = 2**31 - 1

_MODES = {
    "r": (_memory.MF_READ, _memory.MF_EXISTING),
    "r+": (_memory.MF_WRITE, _memory.MF_EXISTING),
    "w+": (_memory.MF_WRITE, _memory.MF_EMPTIED),
    "x+": (_memory.MF_WRITE, _memory.MF_NEW),
    "c": (_memory.MF_COPY, _memory.MF_EXISTING),
}


#: What to write instead of another's modes, their letters sorted.
_OPENS = {
    "r": "'r'",
    "+r": "'r+'",
    "rw": "'r+'",
    "+rw": "'r+'",
    "w": "'w+', with size=",
    "+w": "'w+', with size=",
    "x": "'x+', with size=",
    "+x": "'x+', with size=",
    "a": "'r+', and append to stream(grow=True), or resize()",
    "+a": "'r+', and append to stream(grow=True), or resize()",
    "+c": "'c'",
}


class MappedFile(Window):
    """A file mapped into memory: a window on all its bytes, and the maker of views on parts of it.

    *file* is a path (str, bytes, ``PathLike``), a descriptor, or an object with ``fileno()``, which
    is duplicated, never used later and never closed. What is still in the buffers of a file object
    is not in the file yet: flush it first.

    ======  ==========================  =========================  ========
    mode    file                        memory                     *size*
    ======  ==========================  =========================  ========
    "r"     must exist                  read-only, shared          -
    "r+"    must exist                  read and write, shared     -
    "w+"    created or emptied          read and write, shared     required
    "x+"    created, must not exist     read and write, shared     required
    "c"     must exist                  copy-on-write, private     -
    ======  ==========================  =========================  ========

    *size*, in bytes, from 0 to 2**63 - 1, is what a created file gets. Disk blocks are reserved for
    it, so that a full disk is an error here and not a fault later; *sparse* leaves holes instead,
    also when the file is resized.

    *reserve*, in bytes, sets address space aside with the map of the whole file: until the file is
    longer than that, growing leaves that map where it is. It costs no memory. Raises
    ``io.UnsupportedOperation`` where the system cannot (``capabilities().reserve``: Windows before
    10 version 1803, VirtualAlloc2, Requirements).

    The map of the whole file is made on first use: to open a large file and look at one view costs
    one view. With *populate* it is made at once, and every page of it is in memory when the object
    is there.

    Raises ``TypeError``, ``ValueError`` or ``OverflowError`` for arguments that cannot be, and the
    ``OSError`` subclass that fits what the system refused. Once closed, an object raises
    ``ValueError`` for all but ``close()``, ``closed`` and the like; access to bytes that are gone
    raises ``MappingFault``.
    """

    __slots__ = ()

    _what = "mapped file"

    if TYPE_CHECKING:

        @overload
        def __init__(
            self,
            file: File,
            mode: Literal["r", "r+", "c"] = "r",
            *,
            size: None = None,
            sparse: bool = False,
            reserve: SupportsIndex = 0,
            populate: bool = False,
        ) -> None: ...
        @overload
        def __init__(
            self,
            file: File,
            mode: Literal["w+", "x+"],
            *,
            size: SupportsIndex,
            sparse: bool = False,
            reserve: SupportsIndex = 0,
            populate: bool = False,
        ) -> None: ...

    def __init__(
        self,
        file: File,
        mode: Mode = "r",
        *,
        size: SupportsIndex | None = None,
        sparse: bool = False,
        reserve: SupportsIndex = 0,
        populate: bool = False,
    ) -> None:
        try:
            access, disposition = _MODES[mode]
        except (KeyError, TypeError):
            raise _bad_mode(mode) from None
        if disposition == _memory.MF_EXISTING:
            if size is not None:
                raise ValueError(
                    f"size is for the modes 'w+' and 'x+', which create a file, not for {mode!r}"
                )
        elif size is None:
            raise ValueError(f"mode {mode!r} creates a file and needs size=, in bytes")
        if file.__class__ is str and "\0" not in file:  # the common case
            path: Any = file
            name: Name = path
            descriptor = -1
        else:
            path, descriptor, name = _resolve(file)
            if path is None and disposition == _memory.MF_NEW:
                raise ValueError(f"mode 'x+' creates a file and needs a path, not {file!r}")
        self._open(path, descriptor, name, mode, access, disposition, size, sparse, reserve)
        if populate:
            try:
                self.advise("populate_read")
            except BaseException:
                self._abandon(disposition == _memory.MF_NEW)
                raise

    def view(
        self,
        offset: SupportsIndex = 0,
        length: SupportsIndex | None = None,
        *,
        populate: bool = False,
    ) -> View:
        """Map a range of the file by itself: *length* bytes from *offset* on, or all up to the end.

        Any offset and length inside the file will do. The view has a lifetime of its own and
        outlives the file. With *populate* its pages are in memory, and in its map, when it returns.

        Raises ``ValueError`` for a range outside the file, and the ``OSError`` that fits what the
        system refused.
        """
        return self._make_view(View, offset, length, populate)

    def resize(self, size: SupportsIndex) -> None:
        """Set the size of the file, in bytes, from 0 to 2**63 - 1.

        Growing works while views and buffers are alive: they keep their addresses and content, and
        see what is written through the grown map. New bytes are zero, and have their disk blocks
        unless the file was opened ``sparse``.

        Shrinking raises ``BufferError``, and changes nothing, while a view or a buffer is alive, or
        a call in another thread uses the memory. A resize that fails leaves all as it was; but a
        locked file that cannot be locked again once it is shorter stays shorter, and raises that
        ``OSError`` until ``unlock()``.

        Raises ``io.UnsupportedOperation`` in the modes ``"r"`` and ``"c"``, ``ValueError`` on a
        closed file, ``MappingFault`` after one, until ``refresh()``, and ``OSError`` when the
        system refuses: ``ENOSPC`` for a full disk.
        """
        self._resize(size)

    def refresh(self) -> bool:
        """Take note of the size that the file has now, after others changed it. Views and buffers
        stay as they are.

        Returns whether anything has changed.

        After a ``MappingFault`` the file is mapped anew: what it has can be read and written again.
        What was written to bytes that were gone is lost; in mode ``"c"`` so is what had been
        written there before.

        Raises ``ValueError`` on a closed file; ``OSError`` when the system fails.
        """
        return self._refresh()

    @property
    def mode(self) -> Mode:
        """The mode it was opened in."""
        return self._mode

    @property
    def replaced(self) -> bool:
        """Whether the name leads to another file now, or to none: it was renamed, deleted, or
        replaced by another.

        It compares what identifies a file: device and inode, on Windows volume and file index. A
        relative name is looked up from the folder that is current now.

        Raises ``ValueError`` on a closed file, and for one that was not opened by a path;
        ``OSError`` when the system does not tell.
        """
        if isinstance(self.name, int):
            raise ValueError(
                f"the mapped file on descriptor {self.name} has no name that could lead elsewhere"
            )
        ours = os.fstat(self.fileno())
        try:
            there = os.stat(self.name)
            if (
                sys.platform == "win32" and not there.st_ino
            ):  # Wine 8, from Python 3.12 on: it tells who opens the file
                descriptor = os.open(self.name, os.O_RDONLY | os.O_NOINHERIT)
                try:
                    there = os.fstat(descriptor)
                finally:
                    os.close(descriptor)
        except FileNotFoundError:
            return True
        if 0 in (
            there.st_dev,
            ours.st_dev,
        ):  # Wine does not tell the volume of a file that was renamed while it is open
            return there.st_ino != ours.st_ino
        return not os.path.samestat(there, ours)

    def fileno(self) -> int:
        """Return the descriptor of the mapped file. It stays the mapped file's, which closes it.

        On Windows it is made when it is first asked for; what Win32 takes is ``handle``.

        Raises ``ValueError`` on a closed file; ``OSError`` when there can be no more descriptors.
        """
        if sys.platform == "win32":
            return self._descriptor(open_descriptor)
        return self._handle

    @property
    def handle(self) -> int:
        """What the system knows the open file by: on Windows the ``HANDLE``, elsewhere the descriptor."""
        return self._handle

    def close(self, *, strict: bool = False) -> None:
        """Give back the file: descriptor, handles and, unless buffers keep it, the map of the whole
        file.

        Views and buffers go on working. With ``strict=True`` raises ``BufferError``, and changes
        nothing, while one is alive. Closing twice is silent. Raises ``OSError`` when the system
        fails to unmap or close.
        """
        self._close(strict)

    def __repr__(self) -> str:
        state = "closed " if self.closed else ""
        return f"<{state}MappedFile {self.name!r}, mode {self._mode!r}, length {self._length}>"


MappedFile.__module__ = "mappedfile"


def _bad_mode(mode: object) -> Exception:
    if not isinstance(mode, str):
        return TypeError(f"mode must be one of {', '.join(map(repr, _MODES))}, not {mode!r}")
    # What open() calls it, without its "b" and "t": every file is bytes here.
    instead = _OPENS.get("".join(sorted(set(mode.lower()) - set("btu"))))
    hint = f": write {instead}" if instead else ""
    return ValueError(f"mode must be one of {', '.join(map(repr, _MODES))}, not {mode!r}{hint}")


def _resolve(file: Any) -> tuple[str | bytes | None, int, Name]:
    """Return the path that *file* is, or None and the handle that it is or has; and its name."""
    if isinstance(file, (str, bytes)) or hasattr(file, "__fspath__"):
        path = os.fspath(file)
        if (b"\0" if isinstance(path, bytes) else "\0") in path:
            raise ValueError(f"a path cannot have a NUL character in it: {path!r}")
        return path, -1, path
    descriptor, name = _descriptor(file)
    return None, handle_of(descriptor), name


def _descriptor(file: Any) -> tuple[int, Name]:
    """Return the descriptor that *file* is or has, and its name."""
    if isinstance(file, bool) or not (isinstance(file, int) or hasattr(file, "fileno")):
        raise TypeError(
            f"file must be a path, a descriptor or an object with fileno(), not {type(file).__name__}"
        )
    descriptor = file if isinstance(file, int) else file.fileno()
    if not isinstance(descriptor, int):
        raise TypeError(f"fileno() must return an int, not {descriptor!r}")
    if descriptor < 0:
        raise ValueError(f"a descriptor must be 0 or more, not {descriptor}")
    if descriptor > LARGEST_DESCRIPTOR:
        raise OverflowError(f"a descriptor must be at most {LARGEST_DESCRIPTOR}, not {descriptor}")
    name = getattr(file, "name", descriptor)
    return descriptor, name if isinstance(name, (str, bytes, int)) else descriptor
