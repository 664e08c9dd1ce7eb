"""``MappedFile``: a file, open, and the window on the whole of it."""

from __future__ import annotations

import io
import os
import sys
from _operator import index
from _thread import RLock

from mappedfile import _guard
from mappedfile._errors import INTERRUPTED, NO_NOTES, NOT_A_FILE, MappingFault, mapping_fault, os_error, refuse_alive
from mappedfile._native import ffi, lib
from mappedfile._pages import NO_FILE, NO_SECTION, held_once, hold_file, hold_section
from mappedfile._ranges import check_size
from mappedfile._system import CAN_RESERVE, HAS_SECTIONS, PAGE_SIZE, SYNC_COVERS_MAPS
from mappedfile._view import View
from mappedfile._window import COPY, NOTHING, READ, WRITE, Window

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Literal, Protocol, SupportsIndex, TypeAlias

    from mappedfile._errors import Name
    from mappedfile._pages import OpenSection, Pages, Source

    class HasFileno(Protocol):
        def fileno(self) -> int: ...

    Mode: TypeAlias = Literal["r", "r+", "w+", "x+", "c"]
    File: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes] | int | HasFileno

if sys.platform == "win32":
    from msvcrt import get_osfhandle
    from os import fsdecode as native

    def handle_of(descriptor: int) -> int:
        """Return the handle behind a descriptor; 0, which is no handle, when the descriptor is not open."""
        try:
            return get_osfhandle(descriptor)
        except OSError:
            return 0

else:
    from os import fsencode as native

    def handle_of(descriptor: int) -> int:
        return descriptor


LARGEST_DESCRIPTOR = 2**31 - 1

EXISTING: int = lib.MF_EXISTING
EMPTIED: int = lib.MF_EMPTIED
NEW: int = lib.MF_NEW

_MODES = {
    "r": (READ, EXISTING),
    "r+": (WRITE, EXISTING),
    "w+": (WRITE, EMPTIED),
    "x+": (WRITE, NEW),
    "c": (COPY, EXISTING),
}

# Both kinds of lock can be taken again by who has them: a signal handler may come in between, and use the file.
_making_locks = RLock()
_process = object()


def _forget_locks() -> None:
    """Start anew in a forked child, where those who have locks are no more."""
    global _making_locks, _process
    _making_locks, _process = RLock(), object()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_locks)


class MappedFile(Window):
    """A file mapped into memory: a window on all its bytes, and the maker of views on parts of it.

    *file* is a path (str, bytes, ``PathLike``), a descriptor, or an object with ``fileno()``, which is duplicated,
    never used later and never closed. What is still in the buffers of a file object is not in the file yet: flush it
    first.

    ======  ==========================  =========================  ========
    mode    file                        memory                     *size*
    ======  ==========================  =========================  ========
    "r"     must exist                  read-only, shared          -
    "r+"    must exist                  read and write, shared     -
    "w+"    created or emptied          read and write, shared     required
    "x+"    created, must not exist     read and write, shared     required
    "c"     must exist                  copy-on-write, private     -
    ======  ==========================  =========================  ========

    *size*, in bytes, from 0 to 2**63 - 1, is what a created file gets. Disk blocks are reserved for it, so that a full
    disk is an error here and not a fault later; *sparse* leaves holes instead, also when the file is resized.

    *reserve*, in bytes, sets address space aside with the map of the whole file: until the file is longer than that,
    growing leaves that map where it is. It costs no memory. Raises ``io.UnsupportedOperation`` where the system cannot
    (``capabilities().reserve``: Windows before 10 version 1803, VirtualAlloc2, Requirements).

    The map of the whole file is made on first use: to open a large file and look at one view costs one view. With
    *populate* it is made at once, and every page of it is in memory when the object is there.

    Raises ``TypeError``, ``ValueError`` or ``OverflowError`` for arguments that cannot be, and the ``OSError`` subclass
    that fits what the system refused. Once closed, an object raises ``ValueError`` for all but ``close()``, ``closed``
    and the like; access to bytes that are gone raises ``MappingFault``.
    """

    __slots__ = ("_lock", "_locked", "_mode", "_reserve", "_section_fate", "_source", "_sparse")

    _what = "mapped file"

    #: With the process that it is good for. Made when it is needed: on Windows, before Python 3.13, it is a handle.
    _lock: tuple[RLock, object] | None
    _locked: int  # the process that locked it; 0: none. A forked child does not inherit locks
    _section_fate: OpenSection | None
    _source: Source | None  # None: closed

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
            access, found = _MODES[mode]
        except (KeyError, TypeError):
            kind = ValueError if isinstance(mode, str) else TypeError
            raise kind(f"mode must be one of {', '.join(map(repr, _MODES))}, not {mode!r}") from None
        if found == EXISTING:
            if size is not None:
                raise ValueError(f"size is for the modes 'w+' and 'x+', which create a file, not for {mode!r}")
        elif size is None:
            raise ValueError(f"mode {mode!r} creates a file and needs size=, in bytes")
        else:
            size = check_size(size)
        self._access = access
        self._mode = mode
        self._sparse = bool(sparse)
        self._reserve = check_size(reserve, "reserve") if reserve.__class__ is not int or reserve else 0
        if self._reserve and not CAN_RESERVE:
            raise io.UnsupportedOperation("this system cannot reserve address space: capabilities().reserve is false")
        self._fate = self._section_fate = None
        self._lock = None
        self._locked = 0
        try:
            self._take_file(file, access, found)
            self._open = True
            if size:
                self._create(size, populate)
            elif HAS_SECTIONS:
                self._take_section(lib.mf_open_section, access)
            else:
                self._length = self._open_raw().size
            if populate and not size:
                self.advise("populate_read")
        except BaseException:
            self._source = None
            self._open = False
            self._let_go()
            raise

    # Opening

    def _take_file(self, file: Any, access: int, found: int) -> None:
        """Open a path, or duplicate a descriptor."""
        if isinstance(file, (str, bytes)) or hasattr(file, "__fspath__"):
            path = os.fspath(file)
            if (b"\0" if isinstance(path, bytes) else "\0") in path:
                raise ValueError(f"a path cannot have a NUL character in it: {path!r}")
            self._file_fate, raw = hold_file(path)
            self._call(lib.mf_open, native(path), access, found, raw, notes=NOT_A_FILE)
        else:
            descriptor, name = _descriptor(file)
            if found == NEW:
                raise ValueError(f"mode 'x+' creates a file and needs a path, not {file!r}")
            self._file_fate, raw = hold_file(name)
            self._call(lib.mf_adopt, handle_of(descriptor), access, found, raw, notes=NOT_A_FILE)
        self._source = raw, NO_SECTION

    def _take_section(self, function: Callable[..., int], *arguments: Any, spare: Window | None = None) -> None:
        """Have the backend make the section that maps are made from, and fit the map of the whole file to its size.

        *spare* is a window whose map has room for that, where there must be one before.
        """
        section, fate = hold_section(self._name)
        self._call(function, self._open_raw(), *arguments, section)
        map_before, section_before = self._fate, self._section_fate
        try:
            self._adapt(section, spare)
        except BaseException as error:
            cut = function is not lib.mf_grow or lib.mf_set_size(self._raw() or NO_FILE, arguments[0]) == 0
            refused = isinstance(error, OSError)
            if not cut or not refused:
                self._let_go()  # it may be too long for the file, or too short: the next use makes another
            if cut or not refused:
                ffi.release(section)  # or the traceback would keep it, and nobody can cut the file meanwhile
                raise
            # Windows cuts no file short that is mapped: so it has grown, and the map of the whole file must wait.
        self._section_fate = fate
        self._source = self._open_raw(), section
        self._length = section.size
        del section  # or an error's traceback would keep it
        if map_before is not None and map_before is not self._fate:
            map_before.settle()
        if section_before is not None:
            section_before.settle()
        if not self._open:  # closed by another thread, meanwhile
            self._source = None
            self._let_go()
            raise self._refusal()

    def _adapt(self, section: Any, spare: Window | None) -> None:
        """Have the map of the whole file, if there is one, cover what the section does; or fail and change nothing."""
        length = section.size
        held = self._held
        if held is None or held is NOTHING or length == 0:
            self._let_go()
            if self._locked and length:
                self._hold((self._open_raw(), section), 0, length, self._reserve)
                self._lock_new(length)
            return
        faulted, room = held[1].faulted, held[1].room
        del held
        if spare is None and (faulted or (length > room and not self._move(length))):
            spare = self._another()
            spare._hold((self._open_raw(), section), 0, length, self._reserve)
        window = self if spare is None else spare
        try:
            pages = window._present()[1]
            if length > pages.length and (code := pages.extend(section, length)):
                raise os_error(code, self._name)
            if self._locked:
                self._lock_next(pages, length)
            if self._access == COPY:
                if spare is None:
                    self._show_appended(pages, section)
                else:
                    self._carry_over(pages, min(self._length, length))
            self._take_over(window, length)
        finally:
            if spare is not None:  # or the error's traceback would keep the map that is not taken over
                spare._let_go()

    def _move(self, length: int) -> bool:
        """Make the map longer, wherever it is then, if the system can and nobody else holds it; or change nothing."""
        pin, pages = self._present()
        self._point_at(None, 0, 0, 0, False)
        moved = held_once(pin) and pages.grow(length)
        self._hold_more(pin, pages, self._length)
        return moved

    def _show_appended(self, pages: Pages, section: Any) -> None:
        """Write into the page where the file ended what others appended: a private copy of it does not show that."""
        count = min(-self._length % PAGE_SIZE, section.size - self._length)
        if count > 0:
            window = self._another()
            window._hold((self._open_raw(), section), self._length, count)
            try:
                _copy_changed(window._held[1], 0, pages, self._length, count)
            finally:
                window._let_go()

    def _carry_over(self, fresh: Pages, size: int) -> None:
        """Write into a new private map what was written into the old one, and is nowhere else."""
        pages = self._present()[1]
        for place in range(0, size, PAGE_SIZE):
            _copy_changed(pages, place, fresh, place, min(PAGE_SIZE, size - place))

    def _create(self, size: int, populate: bool) -> None:
        """Give the empty file its size, and populate it; take a new file away again if that fails."""
        try:
            self._take_section(lib.mf_grow, 0, size, not self._sparse)
            if populate:
                self.advise("populate_read")
        except BaseException:
            self._source = None
            if self._mode == "x+":
                os.unlink(self._name)  # type: ignore[arg-type]  # a path: the mode takes nothing else
            raise

    # The window on the whole file

    def _raw(self) -> Any:
        source = self._source
        return None if source is None else source[0]

    def _with_section(self) -> Source | None:
        """Return what maps are made from, with a new section if a shrink left none; None when the file is closed."""
        source = self._source
        if source is None or source[1] is not NO_SECTION:
            return source
        with self._size_lock():
            source = self._source
            if source is not None and source[1] is NO_SECTION:
                del source
                length = self._length
                self._take_section(lib.mf_open_section, self._access)
                self._length = min(length, self._length)  # what others did shows after refresh()
            return self._source

    def _open_raw(self) -> Any:
        """Return the open ``mf_file``. Not to be kept in a variable: a traceback would keep the file open."""
        source = self._source
        if source is None:
            raise self._refusal()
        return source[0]

    def _call(self, function: Callable[..., int], *arguments: Any, notes: Mapping[int, str] = NO_NOTES) -> None:
        """Call the backend, or raise ``OSError``.

        After a signal it is called again: Python's handlers run meanwhile (PEP 475).
        """
        code = function(*arguments)
        while code == INTERRUPTED:
            code = function(*arguments)
        if code:
            del arguments  # or the error's traceback would keep the file open
            raise os_error(code, self._name, notes)

    def _map(self) -> None:
        if self._locked:
            self._size_lock()  # to lock pages takes its time: others shall not wait for it
        with _making_locks:  # from here on nobody begins to change the size
            lock = self._own_lock()
            if lock is None:
                self._map_as_it_is()
        if lock is not None:
            with lock:
                self._map_as_it_is()
        if not self._open:  # closed by another thread, meanwhile
            self._let_go()
            raise self._refusal()

    def _map_as_it_is(self) -> None:
        if self._held is not None:
            return
        _guard.renew()
        if HAS_SECTIONS and self._length:
            self._with_section()  # others may have emptied the file while it had none
        if self._length:
            self._hold(self._source, 0, self._length, self._reserve)
            if self._locked:
                self._lock_new(self._length)
        else:
            self._hold_nothing()

    def view(self, offset: SupportsIndex = 0, length: SupportsIndex | None = None, *, populate: bool = False) -> View:
        """Map a range of the file by itself: *length* bytes from *offset* on, or all up to the end.

        Any offset and length inside the file will do. The view has a lifetime of its own and outlives the file. With
        *populate* its pages are in memory, and in its map, when it returns.

        Raises ``ValueError`` for a range outside the file, and the ``OSError`` that fits what the system refused.
        """
        if offset.__class__ is not int or offset < 0:
            offset = check_size(offset, "offset")
        if length is None:
            length = max(self._length - offset, 0)
        elif length.__class__ is not int or length < 0:
            length = check_size(length, "length")
        if not populate:
            return View(self, offset, length)
        view = View(self, offset, length)
        try:
            view.advise("populate_read")
        except BaseException:
            view.close()
            raise
        return view

    def flush(self, offset: SupportsIndex = 0, length: SupportsIndex | None = None, *, durable: bool = True) -> None:
        """Write what was changed back to the file: see ``View.flush``.

        Without a range it covers everything that was written through this object and its views, closed ones too, and
        the size of the file.
        """
        if length is not None or index(offset) != 0 or self._access != WRITE or not self._open:
            super().flush(offset, length, durable=durable)
            return
        if not SYNC_COVERS_MAPS:
            self._call(self._file_fate.flush_maps, self._open_raw(), durable)
        self._call(lib.mf_sync, self._open_raw(), durable)
        self._refuse_if_faulted()

    # Locks, which go over to the next map

    def lock(self) -> None:
        self._refuse_if_closed()
        self._locked = os.getpid()  # first: a map that is made meanwhile is locked too
        try:
            super().lock()
        except BaseException:
            self._locked = 0
            raise

    def unlock(self) -> None:
        self._refuse_if_closed()
        self._locked = 0
        super().unlock()

    def _lock_new(self, length: int) -> None:
        """Lock the map that was just made, or let it go."""
        if self._locked == os.getpid() and self._fate is not None:
            from mappedfile import _memory

            try:
                _memory.lock_pages(self._fate, length)
            except OSError:
                self._let_go()
                raise

    def _lock_next(self, pages: Pages, length: int) -> None:
        """Lock a map instead of the present one, or more of that; or fail and leave the lock as it is."""
        if self._locked == os.getpid() and self._fate is not None:
            from mappedfile import _memory

            _memory.unlock_pages(self._fate, self._length)  # there may be no room for two locked maps
            try:
                _memory.lock_pages(pages, length)
            except OSError:
                _memory.lock_pages(self._fate, self._length)
                raise

    # Size

    def resize(self, size: SupportsIndex) -> None:
        """Set the size of the file, in bytes, from 0 to 2**63 - 1.

        Growing works while views and buffers are alive: they keep their addresses and content, and see what is written
        through the grown map. New bytes are zero, and have their disk blocks unless the file was opened ``sparse``.

        Shrinking raises ``BufferError``, and changes nothing, while a view or a buffer is alive, or a call in another
        thread uses the memory. A resize that fails leaves all as it was; but a locked file that cannot be locked again
        once it is shorter stays shorter, and raises that ``OSError`` until ``unlock()``.

        Raises ``io.UnsupportedOperation`` in the modes ``"r"`` and ``"c"``, ``ValueError`` on a closed file,
        ``MappingFault`` after one, until ``refresh()``, and ``OSError`` when the system refuses: ``ENOSPC`` for a full
        disk.
        """
        new = check_size(size)
        self._refuse_if_closed()
        if self._access != WRITE:
            raise io.UnsupportedOperation(
                f"a file opened in mode {self._mode!r} cannot be resized: open it in mode 'r+', 'w+' or 'x+'"
            )
        with self._size_lock():
            self._refuse_if_faulted()
            old = self._size_now()
            if new < old:
                self._shrink(new)
                if self._locked and new:
                    self._pin()  # which locks it
            elif new > old:
                self._grow(old, new)
            elif new != self._length:
                self._take_section(lib.mf_open_section, self._access)

    def _grow(self, old: int, new: int) -> None:
        spare, pages = None, self._fate
        try:
            # Windows cuts no file short that is mapped: once it has grown there is no way back, so room comes first.
            if HAS_SECTIONS and CAN_RESERVE and self._held is not None and pages is not None and new > pages.room:
                spare = self._another()
                spare._hold(self._source, 0, self._length, max(new, self._reserve))
            self._take_section(lib.mf_grow, old, new, not self._sparse, spare=spare)
        finally:
            if spare is not None:
                spare._let_go()

    def _shrink(self, new: int) -> None:
        before, source, what = self._length, self._source, f"shrink {self!r} to {new} bytes"
        self._length = min(new, before)  # from here on no view is made of what goes
        try:
            self._refuse_if_alive(what)
            self._let_go()
            # Windows cuts no file that has a section: who wants to map it now waits for another.
            self._put_source((self._open_raw(), NO_SECTION))
            self._refuse_if_alive(what)
            if self._file_fate.raw.maps:
                raise BufferError(f"cannot {what}: a call in another thread is using its memory")
        except BaseException:
            self._length = before
            self._put_source(source)
            del source  # or the error's traceback would keep the file open
            raise
        del source
        section, self._section_fate = self._section_fate, None
        try:
            if section is not None:
                section.settle()
            self._call(lib.mf_set_size, self._open_raw(), new)
            self._length = new
        except BaseException:
            self._length = before
            raise

    def _put_source(self, source: Source | None) -> None:
        """Have other things to make maps from; unless another thread has closed the file, which has none."""
        self._source = source
        if not self._open:
            self._source = None

    def refresh(self) -> None:
        """Take note of the size that the file has now, after others changed it. Views and buffers stay as they are.

        After a ``MappingFault`` the file is mapped anew: what it has can be read and written again. What was written to
        bytes that were gone is lost; in mode ``"c"`` so is what had been written there before.

        Raises ``ValueError`` on a closed file; ``OSError`` when the system fails.
        """
        self._refuse_if_closed()
        with self._size_lock():
            raw = self._file_fate.raw
            faults, raw.faults = raw.faults, 0
            try:
                if self._size_now() != self._length or super().faulted:
                    self._take_section(lib.mf_open_section, self._access)
            except BaseException:
                raw.faults += faults
                raise

    def _own_lock(self) -> RLock | None:
        """Return the lock on the size, if there is one; called with the lock on making them."""
        lock = self._lock
        return None if lock is None or lock[1] is not _process else lock[0]

    def _size_lock(self) -> RLock:
        """Return what only one thread at a time may hold: who changes the size."""
        with _making_locks:
            lock = self._own_lock()
            if lock is None:
                lock = RLock()
                self._lock = lock, _process
        if not self._open:  # closed by another thread, meanwhile
            self._lock = None
            raise self._refusal()
        return lock

    def _size_now(self) -> int:
        size = ffi.new("int64_t *")
        self._call(lib.mf_get_size, self._open_raw(), size)
        return int(size[0])

    def _refuse_if_faulted(self) -> None:
        if self._file_fate.raw.faults:
            fate = self._fate
            offset = fate.mapping.lost_from if fate is not None and fate.faulted else None
            raise mapping_fault(self._name, offset)

    # State

    @property
    def faulted(self) -> bool:
        """Whether bytes were found gone since the last ``refresh()``, in any map of this object or its views."""
        return bool(self._file_fate.raw.faults)

    @property
    def name(self) -> Name:
        """What the file was opened by: the path as it was given, the name of the file object, or the descriptor."""
        return self._name

    @property
    def mode(self) -> Mode:
        """The mode it was opened in."""
        return self._mode

    def fileno(self) -> int:
        """Return the descriptor that the mapped file holds; on Windows, the handle. It stays the mapped file's.

        Raises ``ValueError`` on a closed file.
        """
        return int(self._open_raw().handle)

    def close(self, *, strict: bool = False) -> None:
        """Give back the file: descriptor, handles and, unless buffers keep it, the map of the whole file.

        Views and buffers go on working. With ``strict=True`` raises ``BufferError``, and changes nothing, while one is
        alive. Closing twice is silent. Raises ``OSError`` when the system fails to unmap or close.
        """
        if not self._open:
            return
        if strict:
            self._refuse_if_alive(f"close {self!r}")
        self._open = False
        self._source = self._lock = None
        try:
            self._let_go()
        finally:
            try:
                if self._section_fate is not None:
                    self._section_fate.settle()
            finally:
                self._file_fate.settle()

    def _refuse_if_alive(self, what: str) -> None:
        refuse_alive(self._file_fate.views(), self._file_fate.buffers(), what)

    def __repr__(self) -> str:
        state = "" if self._open else "closed "
        return f"<{state}MappedFile {self._name!r}, mode {self._mode!r}, length {self._length}>"


def _descriptor(file: Any) -> tuple[int, Name]:
    """Return the descriptor that *file* is or has, and its name."""
    if isinstance(file, bool) or not (isinstance(file, int) or hasattr(file, "fileno")):
        raise TypeError(f"file must be a path, a descriptor or an object with fileno(), not {type(file).__name__}")
    descriptor = file if isinstance(file, int) else file.fileno()
    if not isinstance(descriptor, int):
        raise TypeError(f"fileno() must return an int, not {descriptor!r}")
    if descriptor < 0:
        raise ValueError(f"a descriptor must be 0 or more, not {descriptor}")
    if descriptor > LARGEST_DESCRIPTOR:
        raise OverflowError(f"a descriptor must be at most {LARGEST_DESCRIPTOR}, not {descriptor}")
    name = getattr(file, "name", descriptor)
    return descriptor, name if isinstance(name, (str, bytes, int)) else descriptor


def _copy_changed(source: Pages, first: int, target: Pages, place: int, count: int) -> None:
    """Copy bytes unless they are there already: a private page that is not written to stays the file's."""
    try:
        data = source.read(first, 1, count)
        if target.read(place, 1, count) != data:
            target.write(place, 1, data)
    except MappingFault:
        pass  # others have cut the file short: the map whose pages are gone has its mark
