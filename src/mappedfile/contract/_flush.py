"""F · Flush."""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import random
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from mappedfile.contract._children import Child, in_child, say
from mappedfile.contract._clauses import SHARED_WRITABLE, Broken, clause, equal, raises, true
from mappedfile.contract._lifetime import STRESS, close_behind_its_back
from mappedfile.contract._probe import address_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mappedfile.contract._subjects import Subject

PAGE = mmap.PAGESIZE
GRANULARITY = mmap.ALLOCATIONGRANULARITY
#: The number of writers that F7 kills.
KILLS = 200 if STRESS else 5


@clause("F1", modes=SHARED_WRITABLE)
def F1(subject: Subject, folder: Path) -> None:
    """`flush()` returns when the range is on stable storage: `msync(MS_SYNC)` on Linux; the same
    and `F_FULLFSYNC` on macOS; `FlushViewOfFile` and then `FlushFileBuffers` on Windows."""
    # Seen from a process: others read the flushed bytes, also past the cache, and Linux counts no
    # dirty page. tests/test_flush.py watches the system calls.
    counts = counts_dirty_pages(folder)
    path = folder / "file"
    mapped = subject.create(path, bytes(2 * GRANULARITY + 3 * PAGE))
    view = mapped.view(GRANULARITY, GRANULARITY + 2 * PAGE)
    for number, (window, start) in enumerate(
        [(mapped, 0), (view, GRANULARITY), (mapped, 0), (view, GRANULARITY)], 1
    ):
        content = bytes([number]) * (PAGE + 10)
        for _ in until_dirty(window, counts, "a page is dirty after it was written"):
            window[5 : 5 + len(content)] = content
        equal(
            None,
            window.flush() if number <= 2 else window.flush(0, 2 * PAGE),
            "what flush() returns",
        )
        if counts:
            equal(0, dirty(window), "dirty bytes after flush()")
        found = path.read_bytes()
        equal(
            content, found[start + 5 : start + 5 + len(content)], "what others read after flush()"
        )
        direct = read_past_cache(path, start)
        if direct is not None:
            equal(found[start : start + PAGE], direct, "what is read past the cache after flush()")
    view.close()
    mapped.close()


@clause("F2")
def F2(subject: Subject, folder: Path) -> None:
    """`flush()` takes any byte offset and length, and rounds the range outwards to pages. A range
    outside the view is a `ValueError`. An empty range does nothing."""
    size = GRANULARITY + 3 * PAGE + 100
    mapped = subject.create(folder / "file", bytes(size))
    view = mapped.view(GRANULARITY + 5, 3 * PAGE)
    counts = subject.shared and counts_dirty_pages(folder)
    for window in (mapped, view):
        length = len(window)
        edges = (0, 1, PAGE - 6, PAGE - 5, PAGE - 1, PAGE, PAGE + 1, length - 1, length)
        for first in edges:
            for stop in edges:
                if first > stop:
                    continue
                equal(
                    None,
                    window.flush(first, stop - first),
                    f"flush({first}, {stop - first}) of {length}",
                )
        for first in edges:
            equal(None, window.flush(first), f"flush({first}) of {length}")
        outside = [
            (length + 1, 0),
            (length, 1),
            (0, length + 1),
            (1, length),
            (PAGE, length),
            (length + PAGE, None),
        ]
        outside += [
            (-1, None),
            (-1, 1),
            (0, -1),
            (length, -1),
            (-PAGE, PAGE),
            (2**62, 2**62),
            (1, 2**63 - 1),
        ]
        for first, count in outside:
            with raises(ValueError, f"flush({first}, {count}) of {length} bytes"):
                window.flush(first, count)
        if counts:
            window.flush(0, length)
            for first, count in (
                (PAGE + 50, 3),
                (PAGE - 6, 2),
                (PAGE - 1, PAGE + 2),
                (length - 1, 1),
            ):
                for _ in until_dirty(window, counts, "an empty range flushes nothing"):
                    window[first] = window[first + count - 1] = 1
                    window.flush(first, 0)
                window.flush(first, count)
                equal(
                    0,
                    dirty(window),
                    f"dirty bytes after flush({first}, {count}) of what was written there",
                )
    view.close()
    mapped.close()


@clause("F3", modes=SHARED_WRITABLE)
def F3(subject: Subject, folder: Path) -> None:
    """`flush(durable=False)` starts write-back and does not wait for the device."""
    # Only system calls show that nothing waits: tests/test_flush.py watches them.
    path = folder / "file"
    mapped = subject.create(path, bytes(3 * PAGE))
    view = mapped.view(0, 2 * PAGE)
    counts = counts_dirty_pages(folder)
    for number, window in enumerate((mapped, view), 1):
        for arguments in ((), (PAGE - 2, 4)):
            # Write-back is not started again for pages that are being written.
            wait_for_write_back(path)
            window[PAGE - 2 : PAGE + 2] = bytes([number]) * 4
            equal(
                None,
                window.flush(*arguments, durable=False),
                f"what flush{(*arguments, False)} returns",
            )
            equal(
                bytes([number]) * 4,
                path.read_bytes()[PAGE - 2 : PAGE + 2],
                "what others read after it",
            )
            # The system's own timer is slower: vm.dirty_expire_centisecs.
            until = time.monotonic() + 20
            while counts and dirty(window):
                true(time.monotonic() < until, "what was written becomes clean by itself")
                time.sleep(0.001)
        for first, count in ((len(window) + 1, 0), (0, len(window) + 1), (-1, 1)):
            with raises(
                ValueError, f"flush({first}, {count}, durable=False) of {len(window)} bytes"
            ):
                window.flush(first, count, durable=False)
    mapped.close()
    view[0:3] = b"end"
    equal(None, view.flush(durable=False), "what it returns once the mapped file is closed")
    view.close()
    equal(b"end", path.read_bytes()[:3], "what others read after that")


@clause("F4", modes=("r", "c"))
def F4(subject: Subject, folder: Path) -> None:
    """On read-only and private maps `flush()` succeeds and writes nothing."""
    path = folder / "file"
    content = bytes(range(256)) * (2 * PAGE // 256)
    mapped = subject.create(path, content)
    view = mapped.view(0, PAGE)
    before = path.stat()
    for window in (mapped, view):
        if subject.writable:
            window[10:14] = b"mine"
        for arguments in ((), (0,), (0, PAGE), (PAGE // 2, 7), (11, 1), (len(window), 0)):
            for durable in (True, False):
                equal(
                    None,
                    window.flush(*arguments, durable=durable),
                    f"what flush{arguments} returns",
                )
    mapped[0], view[0]
    mapped.close()
    view.close()
    after = path.stat()
    equal(content, path.read_bytes(), "the content of the file")
    equal(
        (before.st_size, before.st_mtime_ns),
        (after.st_size, after.st_mtime_ns),
        "its size and time of modification",
    )


@clause("F5", modes=SHARED_WRITABLE)
def F5(subject: Subject, folder: Path) -> None:
    """A durable flush needs the file handle: on a view whose mapped file is closed, `flush()`
    raises `ValueError`, and the message says what to do instead."""
    path = folder / "file"
    mapped = subject.create(path, bytes(2 * PAGE))
    with mapped.view(0, PAGE) as view:
        view[0:4] = b"open"
        equal(None, view.flush(), "what flush() returns while the mapped file is open")
        mapped.close()
        view[0:4] = b"gone"
        for arguments in ((), (0, 1), (PAGE - 1,)):
            with raises(
                ValueError, f"flush{arguments} once the mapped file is closed", says="durable=False"
            ):
                view.flush(*arguments)
        equal(None, view.flush(durable=False), "what flush(durable=False) returns then")
        equal(b"gone", view[0:4], "the bytes of the view")
    equal(b"gone", path.read_bytes()[:4], "the bytes of the file")


@clause("F6", modes=SHARED_WRITABLE)
def F6(subject: Subject, folder: Path) -> None:
    """`MappedFile.flush()` without a range covers everything written through it and its views,
    including closed views, and the file's size."""
    counts = counts_dirty_pages(folder)
    path = folder / "file"
    mapped = subject.create(path, bytes(3 * GRANULARITY))
    mapped[0:5] = b"whole"
    view = mapped.view(GRANULARITY, PAGE)
    view[0:4] = b"view"
    with mapped.view(2 * GRANULARITY, PAGE) as closed:
        closed[0:6] = b"closed"
    # Where the dirty pages of the closed view can still be seen.
    foreign = mapped.view(2 * GRANULARITY, PAGE)
    foreign[0]
    equal(None, mapped.flush(), "what flush() returns")
    if counts:
        for what, window in (
            ("the mapped file", mapped),
            ("a view", view),
            ("where a closed view was", foreign),
        ):
            equal(0, dirty(window), f"dirty bytes in {what} after flush()")
    found = path.read_bytes()
    equal(
        b"whole view closed".split(),
        [found[:5], found[GRANULARITY:][:4], found[2 * GRANULARITY :][:6]],
        "the file",
    )
    mapped.resize(4 * GRANULARITY)
    mapped[4 * GRANULARITY - 3 :] = b"end"
    equal(None, mapped.flush(), "what flush() returns after resize()")
    if counts:
        equal(0, dirty(mapped), "dirty bytes after that")
    equal(
        (4 * GRANULARITY, b"end"),
        (path.stat().st_size, path.read_bytes()[-3:]),
        "the file's size and its last bytes",
    )
    # Written through a view only: nothing maps the whole of this file.
    with subject.open(path, "r+") as other, other.view(GRANULARITY, PAGE) as part:
        for _ in until_dirty(part, counts, "a page is dirty after it was written through a view"):
            part[0:5] = b"other"
        equal(None, other.flush(), "what flush() returns when only a view was used")
        if counts:
            equal(0, dirty(part), "dirty bytes after that")
    for window in (foreign, view, mapped):
        window.close()


@clause("F7", modes=SHARED_WRITABLE)
def F7(subject: Subject, folder: Path) -> None:
    """Bytes that were written and not flushed are still there for others after the writing process
    is killed with SIGKILL."""
    path = folder / "file"
    for _ in range(KILLS):
        said = []
        with Child(write_until_killed, subject, folder) as writer:
            said.append(writer.hear())
            time.sleep(random.random() * 0.03)
        try:
            while True:
                said.append(writer.hear())
        except Broken as end:
            if "ended with status" not in str(end):
                raise
        done = len(said)
        equal(str(done - 1), said[-1], "the last that the writer said, of all that it said")
        model = bytearray(_SIZE)
        for index in range(done):
            at, record = _record(index)
            model[at : at + len(record)] = record
        found = bytearray(path.read_bytes())
        at, record = _record(done)  # may not have arrived yet
        found[at : at + len(record)] = model[at : at + len(record)]
        equal(_SIZE, len(found), "the size of the file")
        true(
            found == model, f"all {done} records that were written before the kill are in the file"
        )
        path.unlink()


@clause("F8", modes=SHARED_WRITABLE)
def F8(subject: Subject, folder: Path) -> None:
    """A write-back error of the system (`EIO`, `ENOSPC`) is an `OSError` with error number and file
    name."""
    # No device fails on demand. The errors here come through the same calls. tests/test_flush.py
    # has a full device.
    in_child(flush_what_is_gone, subject, folder)


# F1, F2, F6: dirty pages, as Linux counts them


def dirty(window: Any) -> int:
    """Count the dirty bytes of the map that the window is in: proc_pid_smaps(5)."""
    address = address_of(window.data)
    inside = False
    total = 0
    with open("/proc/self/smaps", encoding="ascii", errors="replace") as lines:
        for line in lines:
            field, _, rest = line.partition(" ")
            if not field.endswith(":"):
                start, _, stop = field.partition("-")
                inside = int(start, 16) <= address < int(stop, 16)
            elif inside and field in ("Shared_Dirty:", "Private_Dirty:"):
                total += int(rest.split()[0]) * 1024
    return total


def until_dirty(window: Any, counts: bool, what: str) -> Iterator[None]:
    """Write until a map has dirty pages: a sync of another process may come in between."""
    for _ in range(20):
        yield
        if not counts or dirty(window):
            return
    raise Broken(f"expected: {what}")


def wait_for_write_back(path: Path) -> None:
    """Wait until everything that was written to a file is on its device."""
    with open(path, "r+b") as file:
        os.fsync(file.fileno())


class _Plain:
    def __init__(self, data: Any) -> None:
        self.data = data


def counts_dirty_pages(folder: Path) -> bool:
    """Whether dirty pages of this file system can be counted, and become clean after write-back:
    not on tmpfs."""
    if not os.path.exists("/proc/self/smaps"):
        return False
    path = folder / "probe-of-dirty-pages"
    counts = False
    with open(path, "w+b") as file, suppress(Broken):
        file.truncate(2 * PAGE)
        with mmap.mmap(file.fileno(), 0) as plain:
            for _ in until_dirty(_Plain(plain), True, "a page is dirty after it was written"):
                plain[PAGE] = 1
            os.fsync(file.fileno())
            counts = dirty(_Plain(plain)) == 0
    path.unlink()
    return counts


def read_past_cache(path: Path, offset: int) -> bytes | None:
    """Read a page of the file from the device; None if that is not possible."""
    if not hasattr(os, "O_DIRECT") or not hasattr(os, "preadv"):
        return None
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)
        try:
            with mmap.mmap(-1, PAGE) as aligned:
                count = os.preadv(descriptor, [aligned], offset)
                return aligned[:count] if count == PAGE else None
        finally:
            os.close(descriptor)
    return None


# F7: the writer that is killed

_SIZE = 64 * PAGE


def _record(index: int) -> tuple[int, bytes]:
    """Return the place and the bytes of a record: no two records are equal."""
    return index * 7919 % (_SIZE - 512), (b"%07x " % index) * (1 + index % 63)


def write_until_killed(subject: Subject, folder: Path) -> None:
    """Write record after record, in every way there is, and report each one that is written."""
    mapped = subject.create(folder / "file", bytes(_SIZE))
    view = mapped.view()
    data = view.data
    index = 0
    while True:
        at, record = _record(index)
        stop = at + len(record)
        if index % 4 == 0:
            mapped[at:stop] = record
        elif index % 4 == 1:
            view[at:stop] = record
        elif index % 4 == 2:
            data[at:stop] = record
        else:
            with mapped.view() as closed:
                closed[at:stop] = record
        say(str(index))
        index += 1


# F8: flushes that the system refuses


def flush_what_is_gone(subject: Subject, folder: Path) -> None:
    """Unmap the memory, then close the file, without the library's knowledge, and flush."""
    path = folder / "file"
    mapped = subject.create(path, bytes(4 * PAGE))
    view = mapped.view()
    view[PAGE] = 1
    address = address_of(view.data)
    # Nothing else happens in between: what Python allocates there could lie where the view was.
    flush = view.flush
    if sys.platform == "win32":
        unmap, given = ctypes.windll.kernel32.UnmapViewOfFile, (ctypes.c_void_p(address),)
    else:
        unmap = ctypes.CDLL(None, use_errno=True).munmap
        unmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
        given = (address + PAGE, PAGE)
    with raises(OSError, "flush() of memory that is gone") as caught:
        done = unmap(*given)
        flush()
    true(done if sys.platform == "win32" else done == 0, "the check's own unmapping works")
    _check_error(caught.error, errno.ENOMEM, {87, 487}, path)  # Wine, Windows
    path = folder / "other"
    mapped = subject.create(path, bytes(PAGE))
    mapped[0] = 1
    close_behind_its_back(mapped.handle)
    with raises(OSError, "flush() of a file that is gone") as caught:
        mapped.flush()
    _check_error(caught.error, errno.EBADF, {6}, path)
    say(json.dumps({"holds": ""}))
    os._exit(0)  # nothing here can be released


def _check_error(error: OSError, code: int, windows: set[int], path: Path) -> None:
    if sys.platform == "win32":
        true(error.winerror in windows, f"winerror is one of {windows}, not {error.winerror}")
    else:
        equal(code, error.errno, "errno")
    equal(str(path), str(error.filename), "the file name of the error")
