"""Memory seen and steered: what ``advise`` can tell the system, and what ``residency`` learns from it."""

from __future__ import annotations

import errno
import io
import sys
from enum import Enum

from mappedfile._errors import mapping_fault, os_error
from mappedfile._memory import MF_COPY
from mappedfile._native import ffi, lib
from mappedfile._system import INTERRUPTED, NOT_SUPPORTED, PAGE_SIZE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Literal, SupportsIndex, TypeAlias

    from mappedfile._file import MappedFile
    from mappedfile._memory import Use
    from mappedfile._window import Window

    AdviceName: TypeAlias = Literal[
        "normal",
        "sequential",
        "random",
        "willneed",
        "dontneed",
        "cold",
        "pageout",
        "hugepage",
        "nohugepage",
        "populate_read",
        "populate_write",
    ]

#: Whether residency() tells what the system has in memory, not the process alone; and whether that
#: can be evicted.
FILE_RESIDENCY = EVICT = sys.platform != "win32"

#: Bytes for one call that takes a time in proportion: between calls Ctrl-C is heard.
_STEP = 1 << 30


class Advice(Enum):
    """How memory will be used, or what is to become of it: what ``advise`` takes, also by name.

    ==============  ===================================================================================================
    normal          Nothing special.
    sequential      From beginning to end: more is read ahead, and what was used may go soon.
    random          Here and there: nothing is read ahead.
    willneed        Soon: the system begins to read it now. Windows: ``PrefetchVirtualMemory``, from Windows 8 on.
    dontneed        Not soon: the pages leave the map, and come back when they are touched. Private maps refuse it:
                    there, what was written would be lost. Windows: they leave the working set, locked or not
                    (``VirtualUnlock``, Remarks).
    cold            Of all memory, take this first when some is wanted.
    pageout         The pages leave memory now.
    hugepage        Huge pages are worth it here, where the file system has them.
    nohugepage      They are not.
    populate_read   Now: the pages are in memory and in the map when ``advise`` returns. Where the system has no call
                    for it every page is touched.
    populate_write  The same for writing, with disk blocks and, in private maps, copies. Read-only maps refuse it. Where
                    the system has no call for it the pages are read alone, and ``advise`` returns False.
    ==============  ===================================================================================================

    Where not said otherwise these are POSIX's and Linux' ``madvise``: madvise(2).
    """

    NORMAL = "normal"
    SEQUENTIAL = "sequential"
    RANDOM = "random"
    WILLNEED = "willneed"
    DONTNEED = "dontneed"
    COLD = "cold"
    PAGEOUT = "pageout"
    HUGEPAGE = "hugepage"
    NOHUGEPAGE = "nohugepage"
    POPULATE_READ = "populate_read"
    POPULATE_WRITE = "populate_write"

    @property
    def known(self) -> bool:
        """Whether this system knows it."""
        return bool(_mf_advise(0, 0, self) == 0)


Advice.__module__ = "mappedfile"

#: These do away with pages, and so only with those that are in the range as a whole.
DROPS = frozenset({Advice.DONTNEED, Advice.COLD, Advice.PAGEOUT})

#: These are carried out before ``advise`` returns, and take their time.
POPULATES = frozenset({Advice.POPULATE_READ, Advice.POPULATE_WRITE})

_LOCKED = {errno.EINVAL: "its pages are locked: unlock() it first"}

#: What madvise has and this does not, and why.
REFUSED = {
    "remove": "would make a hole in the file: write zeros instead",
    "free": "would lose what was written: use 'cold' or 'pageout'",
    "dontfork": "would have a forked child crash when it uses the object",
    "wipeonfork": "would have a forked child read zeros",
    "hwpoison": "would destroy the pages",
}


class Residency(bytes):
    """Which pages are in memory: one byte a page, 1 for a page that is in memory and 0 for one that
    is not.

    It does what ``bytes`` do: ``r[7]``, ``r.find(0)`` for the first page that is missing,
    ``np.frombuffer(r, bool)``.
    """

    @property
    def pages(self) -> int:
        """How many pages the range has, those included that it has a part of."""
        return len(self)

    @property
    def resident(self) -> int:
        """How many of them are in memory."""
        return self.count(1)

    @property
    def fraction(self) -> float:
        """What part of them is in memory, from 0.0 to 1.0; 1.0 when there is none."""
        return self.resident / len(self) if self else 1.0

    def __repr__(self) -> str:
        return f"<Residency: {self.resident} of {self.pages} pages in memory>"

    __str__ = __repr__


Residency.__module__ = "mappedfile"


def advise(window: Window, kind: Any, offset: SupportsIndex, length: SupportsIndex | None) -> bool:
    """See ``Window.advise``."""
    advice = advice_of(kind)
    with window._use(offset, length, advice in DROPS) as pages:
        if advice is Advice.DONTNEED and window._access == MF_COPY:
            raise io.UnsupportedOperation(
                f"advise('dontneed') of a private {window._what} would lose what was written to it: use 'cold' or"
                " 'pageout'"
            )
        if advice is Advice.POPULATE_WRITE and window.readonly:
            raise io.UnsupportedOperation(
                f"the {window._what} on {window.name!r} is read-only: use 'populate_read'"
            )
        if advice in POPULATES and pages.size:
            code = _populate(pages, advice)
        else:
            code = _mf_advise(pages.address, pages.size, advice)
        if code == 0 and advice in POPULATES:
            pages.check()
    if code == NOT_SUPPORTED:
        return advice is Advice.POPULATE_READ  # the pages were touched
    if code == errno.EFAULT and advice in POPULATES:
        raise mapping_fault(window.name)
    if code:
        raise os_error(code, window.name, text=_LOCKED.get(code, "") if advice in DROPS else "")
    return True


def advice_of(kind: Advice | str) -> Advice:
    """Return the advice of this name."""
    if isinstance(kind, Advice):
        return kind
    if not isinstance(kind, str):
        raise TypeError(f"kind must be an Advice or the name of one, not {type(kind).__name__}")
    name = kind.lower()
    if name in REFUSED:
        raise ValueError(f"advise({kind!r}) {REFUSED[name]}")
    try:
        return Advice(name)
    except ValueError:
        raise ValueError(
            f"kind must be one of {', '.join(each.value for each in Advice)}, not {kind!r}"
        ) from None


def _mf_advise(address: int, size: int, advice: Advice) -> int:
    return call(lib.mf_advise, ffi.cast("char *", address), size, getattr(lib, f"MF_{advice.name}"))


def call(function: Callable[..., int], *arguments: Any) -> int:
    """Call the backend, again after a signal: Python's handlers run meanwhile (PEP 475). Return its code."""
    code = function(*arguments)
    while code == INTERRUPTED:
        code = function(*arguments)
    return code


def _populate(pages: Use, advice: Advice) -> int:
    """Have pages in the map, whatever the system can do for that; return its code."""
    code = 0
    for place, size in _steps(pages.size):
        address = pages.address + place
        code = _mf_advise(address, size, advice)
        if code == NOT_SUPPORTED:
            _mf_advise(address, size, Advice.WILLNEED)  # to read larger pieces, where it is known
            pages.touch(place, size)
        elif code:
            break
    return code


def _steps(count: int) -> Iterator[tuple[int, int]]:
    for place in range(0, count, _STEP):
        yield place, min(_STEP, count - place)


def residency(window: Window, offset: SupportsIndex, length: SupportsIndex | None) -> Residency:
    """See ``Window.residency``."""
    told = ffi.new("int *", 1)
    code = 0
    with window._use(offset, length, False) as pages:
        found = Residency(
            -(-pages.size // PAGE_SIZE)
        )  # zeros: filled in below, before anybody else has them
        out, file = ffi.from_buffer(found), ffi.cast("mf_file *", pages.handle)
        shared = pages.handle and window._access != MF_COPY  # private maps have pages of their own
        for place, size in _steps(pages.size):
            if shared and not _cached(file, pages.offset + place, size):
                continue
            code = lib.mf_residency(
                ffi.cast("char *", pages.address + place), size, out + place // PAGE_SIZE
            )
            if code:
                break
        else:
            if pages.handle and found and found.count(1) == len(found):
                code = lib.mf_tells_residency(file, told)
    if code:
        raise os_error(code, window.name)
    if not told[0]:
        raise os_error(errno.EPERM, window.name, text=_NOT_TOLD)
    return found


_NOT_TOLD = (
    "the system tells what of a file is in memory only to its owner, and to those who may write it"
)


def _cached(file: Any, offset: int, size: int) -> bool:
    """Whether a page of a range of the file may be in memory. Where none is, this is quick to tell."""
    number = ffi.new("int64_t *")
    return lib.mf_count_cached(file, offset, size, number) != 0 or number[0] != 0


def evict(file: MappedFile) -> None:
    """Write a file back, and have the system forget what it has of it in memory, but for pages that are mapped."""
    with file._use(0, None, False) as pages:
        handle = ffi.cast("mf_file *", pages.handle)
        code = call(lib.mf_sync, handle, True)
        if pages.size and not code:
            code = call(lib.mf_evict, handle, ffi.cast("char *", pages.address), pages.size)
    if code:
        raise os_error(code, file.name)
