"""``MappedFile``: an open file, and the window on all of its bytes."""

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
        """Return the handle of a descriptor; 0, an invalid handle, if the descriptor is closed."""
        try:
            return get_osfhandle(descriptor)
        except OSError:
            return 0

    def open_descriptor(handle: int, readonly: bool) -> int:
        """Return a new descriptor on a duplicate of a handle. Child programs do not inherit it."""
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
        """Return the handle of a descriptor: on POSIX the descriptor itself."""
        return descriptor


LARGEST_DESCRIPTOR = 2**31 - 1

_MODES = {
    "r": (_memory.MF_READ, _memory.MF_EXISTING),
    "r+": (_memory.MF_WRITE, _memory.MF_EXISTING),
    "w+": (_memory.MF_WRITE, _memory.MF_EMPTIED),
    "x+": (_memory.MF_WRITE, _memory.MF_NEW),
    "c": (_memory.MF_COPY, _memory.MF_EXISTING),
}


#: What to write instead of a mode of open(), by its sorted letters.
_SUGGESTED_MODES = {
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
    """A file mapped into memory, with all of its bytes. ``view()`` maps parts of it.

    *file* is a path (str, bytes, ``PathLike``), a descriptor, or an object with ``fileno()``. A
    descriptor is duplicated: the original is never used later and never closed. Flush a file object
    first: bytes in its buffer are not in the file yet.

    ======  ==========================  =========================  ========
    mode    file                        memory                     *size*
    ======  ==========================  =========================  ========
    "r"     must exist                  read-only, shared          -
    "r+"    must exist                  read and write, shared     -
    "w+"    created or emptied          read and write, shared     required
    "x+"    created, must not exist     read and write, shared     required
    "c"     must exist                  copy-on-write, private     -
    ======  ==========================  =========================  ========

    *size* is the size of a created file, in bytes, from 0 to 2**63 - 1. Its disk blocks are
    allocated, so a full disk is an error here and not a fault later. *sparse* leaves holes instead,
    also when the file grows.

    *reserve* bytes of address space are reserved for the map of the whole file. Until the file is
    longer than that, growth leaves the map at its address. The reservation uses no memory. Raises
    ``io.UnsupportedOperation`` if the system cannot reserve: Windows before 10 version 1803
    (VirtualAlloc2, Requirements). ``capabilities().reserve`` says whether it can.

    The first use of the bytes maps the whole file. So a program that only makes one view of a large
    file maps only that view. *populate* maps the file at once, and reads every page into memory.

    Raises ``TypeError``, ``ValueError`` or ``OverflowError`` for invalid arguments, and the
    ``OSError`` subclass for an error of the system. A closed object raises ``ValueError`` for
    everything except ``close()`` and the properties of its state. Reading or writing bytes that are
    gone raises ``MappingFault``.
    """

    __slots__ = ()

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
        @overload  # The mode is a variable: whether it needs a size is checked at run time.
        def __init__(
            self,
            file: File,
            mode: Mode,
            *,
            size: SupportsIndex | None,
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
        """Map *length* bytes of the file from *offset* on, or all up to the end, as a view.

        *offset* and *length* are bytes; any range inside the file is allowed. The view stays valid
        when the file is closed. *populate* reads every page of the view into memory.

        Raises ``ValueError`` for a range outside the file and for a closed file; ``OSError`` if the
        system refuses.
        """
        return self._make_view(View, offset, length, populate)

    def resize(self, size: SupportsIndex) -> None:
        """Set the size of the file, in bytes, from 0 to 2**63 - 1.

        Growing works while views and buffers are alive. They keep their addresses and content, and
        stay coherent with the grown map. New bytes are zero. Their disk blocks are allocated,
        unless the file was opened with *sparse*.

        Shrinking raises ``BufferError``, and changes nothing, while a view or a buffer is alive or
        a call in another thread uses the memory. A resize that fails changes nothing, with one
        exception: a locked file may shrink and then fail to lock its new map. It stays shorter, and
        raises that ``OSError`` until ``unlock()``.

        Raises ``io.UnsupportedOperation`` in the modes ``"r"`` and ``"c"``; ``ValueError`` on a
        closed file; ``MappingFault`` after a fault, until ``refresh()``; ``OSError`` if the system
        refuses, with ``ENOSPC`` for a full disk.
        """
        self._resize(size)

    def refresh(self) -> bool:
        """Update the size of the file, after others changed it. Return whether anything changed.

        Views and buffers are unchanged. After a ``MappingFault`` the file is mapped again, so that
        its present bytes can be read and written. Bytes that were written where the file was gone
        are lost. In mode ``"c"`` earlier changes to these pages are lost too.

        Raises ``ValueError`` on a closed file; ``OSError`` if the system fails.
        """
        return self._refresh()

    @property
    def mode(self) -> Mode:
        """The mode in which the file was opened."""
        return self._mode

    @property
    def replaced(self) -> bool:
        """Whether the file's name no longer leads to this file: renamed, deleted or replaced.

        It compares device and inode, or on Windows volume and file index. A relative name is looked
        up in the current directory of this moment.

        Raises ``ValueError`` on a closed file, and for a file that was not opened by a path;
        ``OSError`` if the name cannot be looked up.
        """
        if isinstance(self.name, int):
            raise ValueError(
                f"the mapped file on descriptor {self.name} has no name that could be replaced:"
                " open it by a path"
            )
        ours = os.fstat(self.fileno())
        try:
            there = os.stat(self.name)
            # Wine 8, with Python 3.12 or later: os.stat() gives no file index, os.fstat() does.
            if sys.platform == "win32" and not there.st_ino:
                descriptor = os.open(self.name, os.O_RDONLY | os.O_NOINHERIT)
                try:
                    there = os.fstat(descriptor)
                finally:
                    os.close(descriptor)
        except FileNotFoundError:
            return True
        # Wine gives no volume for a file that was renamed while it is open.
        if 0 in (there.st_dev, ours.st_dev):
            return there.st_ino != ours.st_ino
        return not os.path.samestat(there, ours)

    def fileno(self) -> int:
        """Return the descriptor of the mapped file. The mapped file owns and closes it.

        On Windows the first call makes the descriptor. Win32 functions take ``handle`` instead.

        Raises ``ValueError`` on a closed file; ``OSError`` if there are too many descriptors.
        """
        if sys.platform == "win32":
            return self._descriptor(open_descriptor)
        return self._handle

    @property
    def handle(self) -> int:
        """The system's handle of the open file: a ``HANDLE`` on Windows, otherwise a descriptor."""
        return self._handle

    def close(self, *, strict: bool = False) -> None:
        """Close the file: its handles, and the map of the whole file unless a buffer keeps it.

        Views and buffers stay valid. With ``strict=True`` it raises ``BufferError`` while one is
        alive, and changes nothing. Closing twice is silent. Raises ``OSError`` if the system fails
        to unmap or close.
        """
        self._close(strict)

    def __repr__(self) -> str:
        state = "closed " if self.closed else ""
        return f"<{state}MappedFile {self.name!r}, mode {self._mode!r}, length {self._length}>"


MappedFile.__module__ = "mappedfile"


def _bad_mode(mode: object) -> Exception:
    if not isinstance(mode, str):
        return TypeError(f"mode must be one of {', '.join(map(repr, _MODES))}, not {mode!r}")
    # The mode as open() has it, without "b" and "t": a mapped file is always binary.
    instead = _SUGGESTED_MODES.get("".join(sorted(set(mode.lower()) - set("btu"))))
    hint = f": write {instead}" if instead else ""
    return ValueError(f"mode must be one of {', '.join(map(repr, _MODES))}, not {mode!r}{hint}")


def _resolve(file: Any) -> tuple[str | bytes | None, int, Name]:
    """Return the path, or None and the handle, of the argument *file*; and its name in errors."""
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
            "file must be a path, a descriptor or an object with fileno(), not"
            f" {type(file).__name__}"
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
