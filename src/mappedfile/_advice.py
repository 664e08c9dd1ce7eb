"""``advise()``, ``residency()``, and the eviction of a file's pages."""

from __future__ import annotations

import errno
import io
import sys
from enum import Enum

from mappedfile._errors import mapping_fault, os_error
from mappedfile._memory import MF_COPY, Window
from mappedfile._native import ffi, lib
from mappedfile._system import INTERRUPTED, NOT_SUPPORTED, PAGE_SIZE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Literal, SupportsIndex, TypeAlias

    from mappedfile._memory import Use

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

#: Whether residency() is about the page cache, not about this process alone; and whether pages can
#: be evicted.
FILE_RESIDENCY = EVICT = sys.platform != "win32"

#: Bytes for one call whose time grows with the length: Ctrl-C works between two calls.
_STEP = 1 << 30


class Advice(Enum):
    """How memory will be used: the argument of ``advise``, which also takes the name.

    normal
        No special use: the system's default.
    sequential
        From beginning to end. The system reads more ahead, and may evict pages after their use.
    random
        In random order. The system reads nothing ahead.
    willneed
        Soon. The system begins to read the pages. Windows: ``PrefetchVirtualMemory``, from
        Windows 8 on.
    dontneed
        Not soon. The pages leave the map, and come back when they are used. Private windows
        refuse it, since it would discard what was written. Windows: the pages leave the working
        set, whether they are locked or not (``VirtualUnlock``, Remarks).
    cold
        Evict these pages first, when memory is short.
    pageout
        Evict these pages now.
    hugepage, nohugepage
        Use huge pages here if the file system has them; do not use them.
    populate_read
        Read all pages into memory and into the map before ``advise`` returns. On systems without
        such a call, the library reads one byte of each page.
    populate_write
        The same for writing: with disk blocks and, in private windows, copies. Read-only windows
        refuse it. On systems without such a call the pages are only read, and ``advise`` returns
        False.

    POSIX and Linux: ``madvise`` (madvise(2)).
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
        """Whether this system knows this advice."""
        return bool(_mf_advise(0, 0, self) == 0)


Advice.__module__ = "mappedfile"

#: These evict pages, so they only apply to pages that lie in the range as a whole.
EVICTING = frozenset({Advice.DONTNEED, Advice.COLD, Advice.PAGEOUT})

#: These are done when ``advise`` returns, and may take long.
POPULATES = frozenset({Advice.POPULATE_READ, Advice.POPULATE_WRITE})

_LOCKED = {errno.EINVAL: "its pages are locked: call unlock() first"}

#: The advice of madvise that is refused, and the reason.
REFUSED = {
    "remove": "would make a hole in the file: write zeros instead",
    "free": "would lose what was written: use 'cold' or 'pageout'",
    "dontfork": "would make a forked child crash when it uses the object",
    "wipeonfork": "would make a forked child read zeros",
    "hwpoison": "would destroy the pages",
}


class Residency(bytes):
    """Which pages are in memory: a byte for each page, 1 if the page is in memory and 0 if not.

    It is a ``bytes`` object: ``r[7]`` is the eighth page, ``r.find(0)`` the first page that is not
    in memory, ``np.frombuffer(r, bool)`` a mask.
    """

    @property
    def pages(self) -> int:
        """The number of pages, including those that are only partly in the range."""
        return len(self)

    @property
    def resident(self) -> int:
        """The number of pages in memory."""
        return self.count(1)

    @property
    def fraction(self) -> float:
        """The share of the pages that is in memory, from 0.0 to 1.0; 1.0 if there are no pages."""
        return self.resident / len(self) if self else 1.0

    def __repr__(self) -> str:
        return f"<Residency: {self.resident} of {self.pages} pages in memory>"

    __str__ = __repr__


Residency.__module__ = "mappedfile"


def advise(window: Window, kind: Any, offset: SupportsIndex, length: SupportsIndex | None) -> bool:
    """See ``Window.advise``."""
    advice = advice_of(kind)
    with Window._use(window, offset, length, advice in EVICTING) as pages:
        if advice is Advice.DONTNEED and window._access == MF_COPY:
            raise io.UnsupportedOperation(
                f"advise('dontneed') of a private {window._kind} would lose what was written to it:"
                " use 'cold' or 'pageout'"
            )
        if advice is Advice.POPULATE_WRITE and window.readonly:
            raise io.UnsupportedOperation(
                f"the {window._kind} on {window.name!r} is read-only: use 'populate_read'"
            )
        if advice in POPULATES and pages.size:
            code = _populate(pages, advice)
        else:
            code = _mf_advise(pages.address, pages.size, advice)
        if code == 0 and advice in POPULATES:
            pages.check()
    if code == NOT_SUPPORTED:
        return advice is Advice.POPULATE_READ  # every page was read instead
    if code == errno.EFAULT and advice in POPULATES:
        raise mapping_fault(window.name)
    if code:
        raise os_error(code, window.name, text=_LOCKED.get(code, "") if advice in EVICTING else "")
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
    """Call a function of the backend, again after each signal (PEP 475). Return its code."""
    code = function(*arguments)
    while code == INTERRUPTED:
        code = function(*arguments)
    return code


def _populate(pages: Use, advice: Advice) -> int:
    """Populate pages, in the best way that the system has. Return its code."""
    code = 0
    for place, size in _steps(pages.size):
        address = pages.address + place
        code = _mf_advise(address, size, advice)
        if code == NOT_SUPPORTED:
            _mf_advise(address, size, Advice.WILLNEED)  # to read ahead, where the system can
            pages.touch(place, size)
        elif code:
            break
    return code


def _steps(count: int) -> Iterator[tuple[int, int]]:
    for place in range(0, count, _STEP):
        yield place, min(_STEP, count - place)


def residency(window: Window, offset: SupportsIndex, length: SupportsIndex | None) -> Residency:
    """See ``Window.residency``."""
    reliable = ffi.new("int *", 1)
    code = 0
    with Window._use(window, offset, length, False) as pages:
        # Zeros, which are filled in below: no other code has the object yet.
        found = Residency(-(-pages.size // PAGE_SIZE))
        out, file = ffi.from_buffer(found), ffi.cast("mf_file *", pages.handle)
        shared = pages.handle and window._access != MF_COPY  # private maps have their own pages
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
                code = lib.mf_residency_is_reliable(file, reliable)
    if code:
        raise os_error(code, window.name)
    if not reliable[0]:
        raise os_error(errno.EPERM, window.name, text=_NOT_TOLD)
    return found


_NOT_TOLD = (
    "on Linux, only the owner of a file, and processes that may write to it, can see its residency"
)


def _cached(file: Any, offset: int, size: int) -> bool:
    """Whether any page of a range may be in memory. It is fast if the answer is no."""
    number = ffi.new("int64_t *")
    return lib.mf_count_cached(file, offset, size, number) != 0 or number[0] != 0


def evict(file: Window) -> None:
    """Write a file back, and evict its pages from memory, except pages that are mapped."""
    with Window._use(file, 0, None, False) as pages:
        handle = ffi.cast("mf_file *", pages.handle)
        code = call(lib.mf_sync, handle, True)
        if pages.size and not code:
            code = call(lib.mf_evict, handle, ffi.cast("char *", pages.address), pages.size)
    if code:
        raise os_error(code, file.name)
