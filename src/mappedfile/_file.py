"""``MappedFile``: a file, open, and the window on the whole of it."""

from __future__ import annotations

import errno
import io
import os
import sys
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from mappedfile._errors import os_error, refuse_alive
from mappedfile._native import ffi, lib
from mappedfile._pages import hold_file, hold_section, map_range
from mappedfile._ranges import check_size
from mappedfile._system import HAS_SECTIONS, SYNC_COVERS_MAPS
from mappedfile._view import View
from mappedfile._window import COPY, NOWHERE, READ, WRITE, Window

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol, SupportsIndex

    from mappedfile._errors import Name
    from mappedfile._pages import Held, OpenFile, Source

    class HasFileno(Protocol):
        def fileno(self) -> int: ...

    File: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes] | int | HasFileno

if sys.platform == "win32":
    from msvcrt import get_osfhandle

Mode: TypeAlias = Literal["r", "r+", "w+", "x+", "c"]

_MODES = {
    "r": (READ, lib.MF_EXISTING),
    "r+": (WRITE, lib.MF_EXISTING),
    "w+": (WRITE, lib.MF_EMPTIED),
    "x+": (WRITE, lib.MF_NEW),
    "c": (COPY, lib.MF_EXISTING),
}


class MappedFile(Window):
    """A file mapped into memory: a window on all its bytes, and the maker of views on parts of it.

    *file* is a path (str, bytes, ``PathLike``), a descriptor, or an object with ``fileno()``, which is duplicated, never used
    later and never closed. What is still in the buffers of a file object is not in the file yet: flush it first.

    ======  ==========================  =========================  ========
    mode    file                        memory                     *size*
    ======  ==========================  =========================  ========
    "r"     must exist                  read-only, shared          -
    "r+"    must exist                  read and write, shared     -
    "w+"    created or emptied          read and write, shared     required
    "x+"    created, must not exist     read and write, shared     required
    "c"     must exist                  copy-on-write, private     -
    ======  ==========================  =========================  ========

    *size*, in bytes, from 0 to 2**63 - 1, is what a created file gets. Disk blocks are reserved for it, so that a full disk
    is an error here and not a fault later; *sparse* leaves holes instead, also when the file is resized.

    The map of the whole file is made on first use: to open a large file and look at one view costs one view.

    Raises ``TypeError``, ``ValueError`` or ``OverflowError`` for arguments that cannot be, and the ``OSError`` subclass that fits
    what the system refused.
    """

    __slots__ = ("_lock", "_mode", "_section_fate", "_source", "_sparse")

    _what = "mapped file"

    _section_fate: Held | None  # None: the system has no sections
    _source: Source | None  # None: closed

    def __init__(
        self, file: File, mode: Mode = "r", *, size: SupportsIndex | None = None, sparse: bool = False
    ) -> None:
        self._closed = True  # until there is something to close
        try:
            access, found = _MODES[mode]
        except (KeyError, TypeError):
            kind = ValueError if isinstance(mode, str) else TypeError
            raise kind(f"mode must be one of {', '.join(map(repr, _MODES))}, not {mode!r}") from None
        if found == lib.MF_EXISTING:
            if size is not None:
                raise ValueError(f"size is for the modes 'w+' and 'x+', which create a file, not for {mode!r}")
        elif size is None:
            raise ValueError(f"mode {mode!r} creates a file and needs size=, in bytes")
        else:
            size = check_size(size)
        self._access = access
        self._mode = mode
        self._sparse = bool(sparse)
        raw, self._file_fate = self._open(file, access, found)
        if size is not None:
            self._create(raw, size)
        self._fate = self._held = self._source = None
        self._memory = self._buffer = NOWHERE
        self._lock = Lock()
        self._take_source(raw, raw.size if size is None else size)
        self._closed = False

    def _take_source(self, raw: Any, size: int) -> None:
        """Make maps from *raw*, which has *size* bytes, from now on."""
        if HAS_SECTIONS:
            section, self._section_fate = hold_section(raw, self._access, self._name)
            size = section.size
        else:
            section, self._section_fate = ffi.NULL, None
        self._source = raw, section
        self._length = size

    # Opening

    def _open(self, file: Any, access: int, found: int) -> tuple[Any, OpenFile]:
        """Open a path, or duplicate a descriptor."""
        if isinstance(file, (str, bytes)) or hasattr(file, "__fspath__"):
            path: str | bytes = os.fspath(file)
            self._name = path
            if (b"\0" if isinstance(path, bytes) else "\0") in path:
                raise ValueError(f"a path cannot have a NUL character in it: {path!r}")
            raw, fate = hold_file(path)
            _call(path, lib.mf_open, _native(path), access, found, raw)
            return raw, fate
        if found == lib.MF_NEW:
            raise ValueError(f"mode 'x+' creates a file and needs a path, not {file!r}")
        if isinstance(file, bool):
            raise TypeError("file must be a path, a descriptor or an object with fileno(), not a bool")
        if isinstance(file, int):
            descriptor = self._name = file
        elif hasattr(file, "fileno"):
            descriptor = file.fileno()
            if not isinstance(descriptor, int):
                raise TypeError(f"fileno() must return an int, not {descriptor!r}")
            name = getattr(file, "name", descriptor)
            self._name = name if isinstance(name, (str, bytes, int)) else descriptor
        else:
            raise TypeError(
                f"file must be a path, a descriptor or an object with fileno(), not {type(file).__name__}"
            )
        if descriptor < 0:
            raise ValueError(f"a descriptor must be 0 or more, not {descriptor}")
        if descriptor > 2**31 - 1:
            raise OverflowError(f"a descriptor must be at most {2**31 - 1}, not {descriptor}")
        raw, fate = hold_file(self._name)
        handle = get_osfhandle(descriptor) if sys.platform == "win32" else descriptor
        _call(self._name, lib.mf_adopt, handle, access, raw)
        if found == lib.MF_EMPTIED:
            _call(self._name, lib.mf_set_size, raw, 0)
        return raw, fate

    def _create(self, raw: Any, size: int) -> None:
        """Give the empty file its size; take a new file away again if that fails."""
        try:
            if self._sparse:
                _call(self._name, lib.mf_make_sparse, raw)
            self._extend(raw, 0, size)
        except BaseException:
            if self._mode == "x+":
                os.unlink(self._name)
            raise

    def _extend(self, raw: Any, old: int, new: int) -> None:
        """Move the end of the file from *old* to *new*, further out; leave it where it was if that fails."""
        if old == new:
            return
        if self._sparse:
            _call(self._name, lib.mf_set_size, raw, new)
            return
        try:
            _call(self._name, lib.mf_allocate, raw, old, new - old)
        except BaseException:
            lib.mf_set_size(raw, old)
            raise

    # The window on the whole file

    def _open_source(self) -> Source | None:
        return self._source

    def _map(self) -> None:
        if self._memory is not NOWHERE:
            return
        source = self._source
        if source is None:
            self._refuse()
        if self._length:
            self._hold(*map_range(source, self._access, 0, self._length, self._file_fate))
        else:
            self._hold_nothing()
        if self._closed:  # by another thread, meanwhile
            self._let_go()
            self._refuse()

    def view(self, offset: SupportsIndex = 0, length: SupportsIndex | None = None) -> View:
        """Map a range of the file by itself: *length* bytes from *offset* on, or all up to the end.

        Any offset and length inside the file will do. The view has a lifetime of its own and outlives the file.
        Raises ``ValueError`` for a range outside the file.
        """
        if offset.__class__ is not int or offset < 0:
            offset = check_size(offset, "offset")
        if length is None:
            length = max(self._length - offset, 0)
        elif length.__class__ is not int or length < 0:
            length = check_size(length, "length")
        return View(self, offset, length)

    def flush(
        self, offset: SupportsIndex = 0, length: SupportsIndex | None = None, *, durable: bool = True
    ) -> None:
        """Write what was changed back to the file: see ``View.flush``.

        Without a range it covers everything that was written through this object and its views, closed ones too, and
        the size of the file.
        """
        source = self._source
        if source is None or length is not None or offset != 0 or self._access != WRITE:
            super().flush(offset, length, durable=durable)
            return
        file = source[0]
        if not SYNC_COVERS_MAPS:
            _call(self._name, self._file_fate.flush_maps, file, durable)
        _call(self._name, lib.mf_sync, file, durable)

    # Size

    def resize(self, size: SupportsIndex) -> None:
        """Set the size of the file, in bytes.

        Growing works while views and buffers are alive: they keep their addresses and content, and see what is written through
        the grown map. New bytes are zero, and have their disk blocks unless the file was opened ``sparse``.

        Shrinking raises ``BufferError``, and changes nothing, while a view or a buffer is alive. A resize that fails leaves all as
        it was. Raises ``io.UnsupportedOperation`` in the modes ``"r"`` and ``"c"``.
        """
        new = check_size(size)
        self._refuse_if_closed()
        if self._access != WRITE:
            raise io.UnsupportedOperation(
                f"a file opened in mode {self._mode!r} cannot be resized: open it in mode 'r+', 'w+' or 'x+'"
            )
        with self._lock:
            source = self._source
            if source is None:
                self._refuse()
            raw = source[0]
            old = _size_of(raw, self._name)
            if new < old:
                self._shrink(raw, new)
            else:
                self._extend(raw, old, new)
            self._look_again(raw, new)

    def _shrink(self, raw: Any, new: int) -> None:
        before, what = self._length, f"shrink {self!r} to {new} bytes"
        self._length = min(new, before)  # from here on no view is made of what goes
        try:
            self._refuse_if_alive(what)
            self._let_go()
            self._refuse_if_alive(what)
            _call(self._name, lib.mf_set_size, raw, new)
        except BaseException:
            self._length = before
            raise

    def refresh(self) -> None:
        """Take note of the size that the file has now, after others changed it. Views and buffers stay as they are."""
        self._refuse_if_closed()
        with self._lock:
            source = self._source
            if source is None:
                self._refuse()
            size = _size_of(source[0], self._name)
            if size != self._length:
                self._look_again(source[0], size)

    def _look_again(self, raw: Any, size: int) -> None:
        """Map the file anew, at the size it has now, when it is next used."""
        before = self._section_fate
        self._take_source(raw, size)
        self._let_go()
        if before is not None:
            before.settle()

    # State

    @property
    def name(self) -> Name:
        """What the file was opened by: the path as it was given, the name of the file object, or the descriptor."""
        return self._name

    @property
    def mode(self) -> Mode:
        """The mode it was opened in."""
        return self._mode

    def fileno(self) -> int:
        """Return the descriptor that the mapped file holds; on Windows, the handle. It stays the mapped file's."""
        source = self._source
        if source is None:
            self._refuse()
        return int(source[0].handle)

    def close(self, *, strict: bool = False) -> None:
        """Give back the file: descriptor, handles and, unless buffers keep it, the map of the whole file.

        Views and buffers go on working. With ``strict=True`` raises ``BufferError``, and changes nothing, while one is alive.
        Closing twice is silent. Raises ``OSError`` when the system fails to unmap or close.
        """
        if self._closed:
            return
        if strict:
            self._refuse_if_alive(f"close {self!r}")
        self._closed = True
        self._source = None
        try:
            self._let_go()
        finally:
            try:
                if self._section_fate is not None:
                    self._section_fate.settle()
            finally:
                self._file_fate.settle()

    def _refuse_if_alive(self, what: str) -> None:
        refuse_alive(len(self._file_fate.views), self._file_fate.buffers(), what)

    def __repr__(self) -> str:
        state = "closed " if self._closed else ""
        return f"<{state}MappedFile {self._name!r}, mode {self._mode!r}, length {self._length}>"


def _native(path: str | bytes) -> str | bytes:
    """Return the path as ``mf_char`` has it."""
    return os.fsdecode(path) if sys.platform == "win32" else os.fsencode(path)


def _call(name: Name, function: Callable[..., int], *arguments: Any) -> None:
    """Call the backend, or raise ``OSError``. Call again when a signal came in between: Python's handlers run meanwhile, PEP 475."""
    code = function(*arguments)
    while code == errno.EINTR:
        code = function(*arguments)
    if code:
        raise os_error(code, name)


def _size_of(raw: Any, name: Name) -> int:
    size = ffi.new("int64_t *")
    _call(name, lib.mf_get_size, raw, size)
    return int(size[0])
