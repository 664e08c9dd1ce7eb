"""M · Memory: advice, residency, locks."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from mappedfile import GRANULARITY, PAGE_SIZE, Advice, capabilities
from mappedfile.contract import _probe
from mappedfile.contract._children import in_child
from mappedfile.contract._clauses import SHARED_WRITABLE, NotHere, clause, equal, raises, true
from mappedfile.contract._lifetime import pattern

if TYPE_CHECKING:
    from pathlib import Path

    from mappedfile.contract._subjects import Subject

#: The capability for each kind of advice.
CAPABILITY = {
    "normal": "advise_access",
    "sequential": "advise_access",
    "random": "advise_access",
    "willneed": "advise_willneed",
    "dontneed": "advise_dontneed",
    "cold": "advise_reclaim",
    "pageout": "advise_reclaim",
    "hugepage": "advise_hugepage",
    "nohugepage": "advise_hugepage",
    "populate_read": "advise_populate",
    "populate_write": "advise_populate",
}
INSIDE = ((0, 1), (1, 1), (PAGE_SIZE - 6, 2), (PAGE_SIZE, PAGE_SIZE), (7, None))
SPARSE = 2**26  # far more than read-ahead reads


@clause("M1")
def M1(subject: Subject, folder: Path) -> None:
    """`advise()` takes every kind, by member or by name, on any byte range of a mapped file or a
    view. It returns whether the system was advised, as `capabilities()` says: a hint that the
    system does not know is no error. A range outside and an unknown kind are a `ValueError`. An
    empty range does nothing."""
    mapped = subject.create(folder / "file", pattern(GRANULARITY + 3 * PAGE_SIZE + 100))
    view = mapped.view(GRANULARITY + 5, 2 * PAGE_SIZE)
    kinds = [kind for kind in Advice if not refused(subject, kind.value)]
    equal(list(CAPABILITY), [kind.value for kind in Advice], "the kinds that there are")
    for window in (mapped, view):
        length = len(window)
        for kind in kinds:
            # The library does this itself if the system cannot.
            told = kind is Advice.POPULATE_READ or getattr(capabilities(), CAPABILITY[kind.value])
            for given in (kind, kind.value, kind.name):
                equal(told, window.advise(given), f"what advise({given!r}) returns")
            for first, count in INSIDE:
                equal(
                    told,
                    window.advise(kind, first, count),
                    f"what advise({kind}, {first}, {count}) returns",
                )
            for first, count in ((0, 0), (3, 0), (length, 0), (length, None), (length - 1, 1)):
                equal(
                    told,
                    window.advise(kind, first, count),
                    f"what advise({kind}, {first}, {count}) returns",
                )
            for first, count in outside(length):
                with raises(ValueError, f"advise({kind}, {first}, {count}) of {length} bytes"):
                    window.advise(kind, first, count)
        for wrong in ("", "sequentially", "mf_normal"):
            with raises(ValueError, f"advise({wrong!r})", says="sequential"):
                window.advise(wrong)
        for wrong in (3, None, b"normal"):
            with raises(TypeError, f"advise({wrong!r})"):
                window.advise(wrong)
    for window in (view, mapped):
        window.close()
        with raises(ValueError, "advise() of a closed object"):
            window.advise("normal")


@clause("M2")
def M2(subject: Subject, folder: Path) -> None:
    """No advice changes a byte of the object or of the file. Advice that would is refused:
    `dontneed` of a private map, since its changes are nowhere else; and `remove`, `free` and
    similar advice of `madvise`."""
    path = folder / "file"
    content = bytearray(pattern(GRANULARITY + 3 * PAGE_SIZE + 100))
    mapped = subject.create(path, bytes(content))
    view = mapped.view(GRANULARITY, 2 * PAGE_SIZE)
    before = path.read_bytes()
    ours, theirs = bytearray(before), bytearray(before)
    if subject.writable:
        last = GRANULARITY + 2 * PAGE_SIZE
        for window, start, place in (
            (mapped, 0, 5),
            (mapped, 0, last),
            (view, GRANULARITY, PAGE_SIZE),
        ):
            window[place : place + 7] = b"written"
            for each in (ours, theirs) if subject.shared else ():
                each[start + place : start + place + 7] = b"written"
    private = [bytes(mapped[:]), bytes(view[:])]
    for window, is_now in zip((mapped, view), private, strict=True):
        for kind in Advice:
            if refused(subject, kind.value):
                with raises(OSError, f"advise({kind}) in mode {subject.mode!r}") as caught:
                    window.advise(kind)
                true(
                    isinstance(caught.error, ValueError),
                    "it is refused as unsupported: io.UnsupportedOperation",
                )
            else:
                window.advise(kind)
            true(window[:] == is_now, f"the bytes after advise({kind}) are what they were")
        for name in ("remove", "free", "dontfork", "wipeonfork", "hwpoison", "REMOVE"):
            with raises(ValueError, f"advise({name!r})", says="would"):
                window.advise(name)
            true(window[:] == is_now, f"the bytes after advise({name!r}) are what they were")
    true(
        path.read_bytes() == theirs,
        "the file has what was written to shared maps, and nothing else",
    )
    if subject.shared:
        true(mapped[:] == ours, "and so has the map")
    view.close()
    mapped.close()


@clause("M3")
def M3(subject: Subject, folder: Path) -> None:
    """A hint is rounded outwards, to every page that has a byte of the range. Advice that evicts
    pages (`dontneed`, `cold`, `pageout`) is rounded inwards, to pages that have no other byte of
    the window."""
    mapped = subject.create(folder / "file", pattern(GRANULARITY + 8 * PAGE_SIZE))
    with mapped.view(GRANULARITY, 3 * PAGE_SIZE) as view:
        equal(0, in_map(view), "bytes of a fresh view that are in its map")
        view.advise("populate_read", PAGE_SIZE - 1, 2)
        true(
            in_map(view) >= 2 * PAGE_SIZE, "both pages that have a byte of the range are in the map"
        )
    if subject.mode != "c":  # private maps refuse 'dontneed'
        # The window begins and ends inside a page, and has only a part of these pages.
        with mapped.view(GRANULARITY + PAGE_SIZE + 100, 4 * PAGE_SIZE) as view:
            size = len(view)
            for first, count, left in (
                (0, 1, 5), (PAGE_SIZE - 100, PAGE_SIZE - 1, 5), (1, PAGE_SIZE, 5),
                (size - 1, 1, 5), (2 * PAGE_SIZE, PAGE_SIZE, 5), (PAGE_SIZE - 100, PAGE_SIZE, 4),
                (0, PAGE_SIZE - 100, 4), (size - 100, 100, 4), (1, size - 1, 1), (0, size, 0),
            ):  # fmt: skip
                view[:]
                equal(5 * PAGE_SIZE, in_map(view), "bytes in the map after every byte was read")
                view.advise("dontneed", first, count)
                there = in_map(view) // PAGE_SIZE
                if drops():
                    equal(
                        left, there, f"pages in the map after advise('dontneed', {first}, {count})"
                    )
                else:
                    true(
                        there >= left,
                        f"no page too many is gone after advise('dontneed', {first}, {count})",
                    )
    mapped.close()
    if subject.mode != "c" and not drops():
        raise NotHere("this system keeps pages after 'dontneed'")


@clause("M4")
def M4(subject: Subject, folder: Path) -> None:
    """`residency()` says for every page that has a byte of the range whether it is in memory, as
    `bytes` of 1 and 0, with `pages`, `resident` and `fraction`. A page that was just used is in
    memory; a page that nobody has ever read is not. A range outside is a `ValueError`. An empty
    range has no pages."""
    mapped = create_sparse(subject, folder / "file", SPARSE)
    view = mapped.view(GRANULARITY + 100, SPARSE // 2)
    start = GRANULARITY + 100
    view[0], view[3 * PAGE_SIZE], mapped[5]
    for window, begins, used in ((mapped, 0, 0), (view, start, 0), (view, start, 3 * PAGE_SIZE)):
        found = window.residency()
        pages = (begins + len(window) - 1) // PAGE_SIZE - begins // PAGE_SIZE + 1
        true(isinstance(found, bytes), "it is bytes")
        equal((pages, pages), (len(found), found.pages), "the number of pages")
        equal(pages, found.count(0) + found.count(1), "pages that are in memory or not")
        equal(found.count(1), found.resident, "the number of pages in memory")
        equal(found.resident / pages, found.fraction, "the part of the pages that is in memory")
        equal(
            1,
            found[(begins + used) // PAGE_SIZE - begins // PAGE_SIZE],
            "a page that was just used",
        )
        equal(0, found[-1], "a page that nobody has read")
        true(0 < found.resident < pages // 2, "few pages are in memory")
        repr(found), str(found)
    for first, count in (*INSIDE, (PAGE_SIZE - 101, 1), (PAGE_SIZE - 101, 2), (5, 3 * PAGE_SIZE)):
        stop = len(view) if count is None else first + count
        pages = (start + stop - 1) // PAGE_SIZE - (start + first) // PAGE_SIZE + 1
        equal(
            pages, view.residency(first, count).pages, f"the pages of residency({first}, {count})"
        )
    equal(b"\1", view.residency(3 * PAGE_SIZE, 1), "the page of a byte that was just used")
    for first in (0, 1, len(view)):
        found = view.residency(first, 0)
        equal(
            (b"", 0, 0, 1.0),
            (found, found.pages, found.resident, found.fraction),
            "residency of an empty range",
        )
    for first, count in outside(len(view)):
        with raises(ValueError, f"residency({first}, {count})"):
            view.residency(first, count)
    mapped.close()
    equal(1, view.residency()[0], "a page that was just used, of a view whose file is closed")
    view.close()
    for window in (mapped, view):
        with raises(ValueError, "residency() of a closed object"):
            window.residency()
    with subject.create(folder / "empty", b"") as mapped:
        equal(b"", mapped.residency(), "residency() of an empty file")


@clause("M5")
def M5(subject: Subject, folder: Path) -> None:
    """With `populate=True`, for a file or for a view, and after `advise("populate_read")`, every
    page is in memory and in the map. This writes nothing."""
    path = folder / "file"
    content = pattern(GRANULARITY + 40 * PAGE_SIZE + 100)
    with subject.create(path, content) as mapped:
        mapped.flush()
        before = path.stat()
        with mapped.view(GRANULARITY, 33 * PAGE_SIZE, populate=True) as view:
            populated(view)
        with mapped.view(GRANULARITY + 5, 33 * PAGE_SIZE) as view:
            view.advise("populate_read", PAGE_SIZE + 3, 20 * PAGE_SIZE)
            equal(
                21,
                view.residency(PAGE_SIZE + 3, 20 * PAGE_SIZE).resident,
                "pages in memory of the range",
            )
            true(in_map(view) >= 21 * PAGE_SIZE, "the range is in the map")
        mapped.view(3, 0, populate=True).close()
    if subject.mode in ("w+", "x+"):
        path = folder / "created"
        mapped = subject.open(path, subject.mode, size=len(content), populate=True)
        content = bytes(len(content))
    else:
        mapped = subject.open(path, subject.mode, populate=True)
        equal(before.st_mtime_ns, path.stat().st_mtime_ns, "when the file was written")
    equal(True, mapped.mapped, "mapped at once")
    populated(mapped)
    true(mapped[:] == content, "the bytes are the file's")
    mapped.close()
    path = folder / "empty"
    with subject.open(path, subject.mode, **create_empty(subject, path), populate=True) as mapped:
        equal(0, len(mapped), "the length of an empty file")


@clause("M6")
def M6(subject: Subject, folder: Path) -> None:
    """`lock()` reads every page of the window into memory and keeps it there, until `unlock()` or
    `close()`; or, while a buffer keeps the map, until the buffer is gone. Locks do not nest,
    unlocking pages that are not locked is no error, and each window has its own lock."""
    # On Windows this is more than a process may lock by default.
    size = GRANULARITY + (250 if sys.platform == "win32" else 5) * PAGE_SIZE + 100
    mapped = subject.create(folder / "file", pattern(size))
    base = locked_now()
    whole = -(-size // PAGE_SIZE)
    lock_or_not_here(mapped)
    expect_locked(base, whole, "after lock()")
    found = mapped.residency()
    equal((whole, whole), (found.pages, found.resident), "the pages, and those in memory")
    equal(None, mapped.lock(), "what lock() returns once more")
    expect_locked(base, whole, "after another lock()")
    with mapped.view(GRANULARITY + 5, 2 * PAGE_SIZE) as view:
        view.lock()
        expect_locked(base, whole + 3, "after lock() of a view of 2 pages and 5 bytes")
        mapped.unlock()
        expect_locked(base, 3, "after unlock() of the file")
        equal(None, mapped.unlock(), "what unlock() returns once more")
        expect_locked(base, 3, "after another unlock()")
        equal(3, view.residency().resident, "pages in memory of the view")
    expect_locked(base, 0, "after close() of the view")
    with mapped.view(0, 5) as view:
        equal(None, view.unlock(), "what unlock() returns of what was never locked")
        view.lock()
        buffer = view.data
    expect_locked(base, 1, "after close() of a view with a buffer on it")
    equal(pattern(5), bytes(buffer), "the buffer")
    buffer.release()
    expect_locked(base, 0, "after the buffer has gone")
    mapped.lock()
    true(mapped[:] == pattern(size), "the bytes are the file's")
    mapped.close()
    expect_locked(base, 0, "after close()")
    for function in (mapped.lock, mapped.unlock, view.lock, view.unlock):
        with raises(ValueError, f"{function.__name__}() of a closed object"):
            function()
    with subject.create(folder / "empty", b"") as mapped:
        equal((None, None), (mapped.lock(), mapped.unlock()), "what they return of an empty file")


@clause("M7")
def M7(subject: Subject, folder: Path) -> None:
    """At the limit on locked memory `lock()` raises an `OSError` with error number and file name,
    and the message states the limit. Pages that were locked stay locked, no others are, and the
    object goes on working."""
    if sys.platform == "win32":
        raise NotHere("Windows raises the limit as far as there is memory")
    in_child(reach_the_limit, subject, folder)


@clause("M8", modes=SHARED_WRITABLE)
def M8(subject: Subject, folder: Path) -> None:
    """A locked file stays locked when it is resized, with its new bytes. If buffers keep the old
    map, that map is not locked any more."""
    mapped = subject.create(folder / "file", pattern(2 * PAGE_SIZE))
    base = locked_now()
    lock_or_not_here(mapped)
    mapped.resize(4 * PAGE_SIZE + 1)
    expect_locked(base, 5, "after it grew to 5 pages")
    buffer = mapped.data
    mapped.resize(GRANULARITY + 8 * PAGE_SIZE)
    grown = GRANULARITY // PAGE_SIZE + 8
    expect_locked(base, grown, "after it grew while a buffer was alive")
    equal(grown, mapped.residency().resident, "pages in memory")
    equal(pattern(2 * PAGE_SIZE), bytes(buffer[: 2 * PAGE_SIZE]), "the buffer")
    buffer.release()
    expect_locked(base, grown, "after the buffer has gone")
    mapped.resize(PAGE_SIZE + 1)
    expect_locked(base, 2, "after it shrank")
    mapped.unlock()
    mapped.resize(3 * PAGE_SIZE)
    expect_locked(base, 0, "after it was unlocked and grew")
    mapped.close()


@clause("M9")
def M9(subject: Subject, folder: Path) -> None:
    """After `fork` the child has nothing locked, and the parent's locked pages stay locked."""
    if not capabilities().fork:
        raise NotHere("this system does not fork")
    in_child(fork_and_lock, subject, folder)


# M1, M2


def outside(length: int) -> tuple[tuple[int, int], ...]:
    """Return ranges that lie outside of *length* bytes."""
    return (
        (length + 1, 0),
        (length, 1),
        (0, length + 1),
        (1, length),
        (-1, 1),
        (0, -1),
        (2**62, 2**62),
    )


def refused(subject: Subject, kind: str) -> bool:
    """Whether the subject's mode refuses an advice."""
    return kind == {"c": "dontneed", "r": "populate_write"}.get(subject.mode)


# M3, M5: the pages of a map, as the system reports them


def in_map(window: Any) -> int:
    """Return the number of bytes of the window's map that are in the working set."""
    return _probe.resident(_probe.address_of(window.data), len(window))


def populated(window: Any) -> None:
    """Break the clause unless every page of the window is in memory and in its map."""
    found = window.residency()
    equal((found.pages, 1.0), (found.resident, found.fraction), "pages in memory, and their part")
    equal(found.pages * PAGE_SIZE, in_map(window), "bytes of it in its map")


def drops() -> bool:
    """Whether 'dontneed' removes pages from a map of a file on this system: not on Wine 8."""
    if sys.platform == "win32":
        from mappedfile.contract import _kernel32

        return not _kernel32.is_wine()
    return True


# M4, M5


def create_sparse(subject: Subject, path: Path, size: int) -> Any:
    """Open a file of zeros that nobody has read, with holes if the file system has holes."""
    if subject.mode in ("w+", "x+"):
        return subject.open(path, subject.mode, size=size, sparse=True)
    with open(path, "wb") as file:
        file.truncate(size)
    return subject.open(path, subject.mode)


def create_empty(subject: Subject, path: Path) -> dict[str, int]:
    """Create an empty file unless the mode does; return the options to open it with."""
    if subject.mode in ("w+", "x+"):
        return {"size": 0}
    path.touch()
    return {}


# M6 to M9: the locked pages, as the system reports them


def locked_now() -> int | None:
    """Return the number of pages that this process has locked: proc_pid_status(5), Linux only."""
    if sys.platform != "linux":  # Wine has this file, but of another process
        return None
    with suppress(OSError), open("/proc/self/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("VmLck:"):
                return int(line.split()[1]) * 1024 // PAGE_SIZE
    return None


def expect_locked(base: int | None, pages: int, when: str) -> None:
    """Break the clause unless this many pages are locked, beyond those that were before."""
    if base is not None:
        equal(base + pages, locked_now(), f"pages locked {when}")


def lock_or_not_here(window: Any) -> None:
    """Lock a window of few pages. Some systems allow no locks at all."""
    try:
        window.lock()
    except OSError as error:
        raise NotHere(f"this process may not lock {len(window)} bytes: {error}") from error


def give_up_privileges() -> None:
    """Become a user to whom limits apply."""
    if os.geteuid() == 0:
        os.setgid(65534)
        os.setuid(65534)


def reach_the_limit(subject: Subject, folder: Path) -> None:
    """M7: lock more than the limit allows, in a separate process."""
    import resource

    path = folder / "file"
    mapped = subject.create(path, pattern(6 * PAGE_SIZE))
    view = mapped.view(0, 2 * PAGE_SIZE)
    base = locked_now()
    # Everything is imported and mapped before the change of user.
    for window in (
        mapped,
        view,
    ):
        lock_or_not_here(window)
        window.unlock()
    give_up_privileges()
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (4 * PAGE_SIZE, 4 * PAGE_SIZE))
    lock_or_not_here(view)
    with raises(OSError, "lock() of 6 pages, with 2 of 4 locked", says="RLIMIT_MEMLOCK") as caught:
        mapped.lock()
    true(
        caught.error.errno in (errno.ENOMEM, errno.EAGAIN),
        f"the number of {caught.error!r} is mlock's",
    )
    equal(str(path), str(caught.error.filename), "the file name of the error")
    expect_locked(base, 2, "after a lock() that failed")
    true(mapped[:] == pattern(6 * PAGE_SIZE), "the bytes are the file's")
    if subject.shared:
        with mapped.view(0, PAGE_SIZE) as grown:
            equal(pattern(PAGE_SIZE), grown[:], "the bytes of another view")
        buffer = mapped.data  # so that another map is made
        mapped.resize(7 * PAGE_SIZE)
        expect_locked(base, 2, "after the file grew, which is not locked")
        buffer.release()
    view.unlock()
    with mapped.view(PAGE_SIZE, 4 * PAGE_SIZE) as more:
        equal(None, more.lock(), "what lock() returns when there is room again")
        expect_locked(base, 4, "at the limit")
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
    with raises(OSError, "lock() with a limit of 0", says="RLIMIT_MEMLOCK") as caught:
        view.lock()
    equal(str(path), str(caught.error.filename), "the file name of the error")
    expect_locked(base, 0, "after that")
    view.close()
    mapped.close()


def fork_and_lock(subject: Subject, folder: Path) -> None:
    """M9: fork with everything locked, in a separate process."""
    mapped = subject.create(folder / "file", pattern(4 * PAGE_SIZE))
    view = mapped.view(0, 2 * PAGE_SIZE)
    for window in (mapped, view):
        lock_or_not_here(window)
    base = locked_now()
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        with os.fdopen(write, "w") as out:
            try:
                child_of_a_locked_one(subject, mapped, view)
                out.write("fine")
            except BaseException as error:
                out.write(f"{type(error).__name__}: {error}")
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        equal("fine", answer.read(), "the result of the child")
    os.waitpid(pid, 0)
    equal(base, locked_now(), "pages that the parent has locked")
    equal(4, mapped.residency().resident, "pages in memory")
    view.close()
    mapped.close()
    expect_locked(base, -6, "after close()")


def child_of_a_locked_one(subject: Subject, mapped: Any, view: Any) -> None:
    """M9: the checks in the child."""
    equal(0, locked_now() or 0, "pages that the child has locked")
    true(mapped[:] == pattern(4 * PAGE_SIZE), "the bytes are the file's")
    if subject.shared:
        buffer = mapped.data  # so that another map is made
        mapped.resize(8 * PAGE_SIZE)
        equal(0, locked_now() or 0, "pages locked after the child has let the file grow")
        buffer.release()
    view.unlock()
    view.lock()
    expect_locked(0 if locked_now() is not None else None, 2, "after lock() in the child")
    view.close()
    mapped.close()
