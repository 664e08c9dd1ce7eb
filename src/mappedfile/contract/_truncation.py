"""T · Truncation by others, and device errors."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mappedfile
from mappedfile import GRANULARITY, PAGE_SIZE, MappingFault
from mappedfile.contract import _probe
from mappedfile.contract._children import Child, hear, in_child, say
from mappedfile.contract._clauses import NotHere, clause, equal, raises, true
from mappedfile.contract._lifetime import pattern

if TYPE_CHECKING:
    from collections.abc import Callable

    from mappedfile.contract._subjects import Subject

CONTENT = pattern(GRANULARITY + PAGE_SIZE + 100)


# T1

#: ABSENT occurs nowhere in the file. The file is truncated to SHORT; the rest of that page is zeros
#: then.
ABSENT = b"\xf1" * 3
WHOLE = (pattern(7 * PAGE_SIZE) + pattern(PAGE_SIZE)[:100]).replace(b"\xf1", b"\xf2")
SHORT = 3 * PAGE_SIZE + 50
GONE = 4 * PAGE_SIZE
#: Bytes that are written before the truncation, in private maps too: on a page that stays, and on a
#: page that will be gone.
KEPT, LOST = PAGE_SIZE + 5, 5 * PAGE_SIZE + 5


@clause("T1")
def T1(subject: Subject, folder: Path) -> None:
    """If a mapped file is truncated (POSIX), or its pages can no longer be read or written, the
    process survives. Reading and writing through the library raises `MappingFault` (an `OSError`),
    buffers and arrays read zeros, and `faulted` is true on every object concerned. Other mappings
    are not disturbed."""
    # tests/test_guard.py has pages that cannot be read, on devices that fail.
    if not mappedfile.capabilities().truncate_mapped:
        raise NotHere("this system does not truncate mapped files")
    with Child(lose_pages, subject, folder) as child:  # it may crash
        while (order := child.hear()) != "done":
            if order == "restore":
                with (folder / "file").open("r+b") as file:
                    file.seek(SHORT)
                    file.write(WHOLE[SHORT:])
            else:
                os.truncate(folder / "file", int(order))
            child.say()
        child.end()


def others(order: str | int) -> None:
    """T1: ask the parent, another process, to truncate the file, or to "restore" it."""
    say(str(order))
    hear()


def lose_pages(subject: Subject, folder: Path) -> None:
    """T1: meet bytes that are gone, in every way, in a separate process."""
    with suppress(ImportError):
        import numpy  # noqa: F401 (its libraries are mapped files too)
    survive(subject, folder)
    before = _probe.handles(), *_probe.file_maps()
    for name, operation in ways(subject).items():
        for whose in ("file", "view"):
            meet(subject, folder, whose, operation, f"{name} of a {whose}")
    meet_through_buffers(subject, folder)
    accept_the_shorter(subject, folder)
    equal(
        before,
        (_probe.handles(), *_probe.file_maps()),
        "handles, maps and their bytes after everything was closed",
    )
    say("done")


def survive(subject: Subject, folder: Path) -> None:
    """T1: the minimum, which a subject without views must pass too."""
    file = subject.create(folder / "file", WHOLE)
    equal(WHOLE[GONE], file[GONE], "a byte")
    others(SHORT)
    with raises(MappingFault, "an index"):
        file[GONE]
    file.close()


def ways(subject: Subject) -> dict[str, Callable[[Any, int], object]]:
    """Return the ways to read and write bytes, by name: functions of a window and the place of
    bytes that are gone."""
    every: dict[str, Callable[[Any, int], object]] = {
        "an index": lambda window, gone: window[gone],
        "a negative index": lambda window, gone: window[gone - len(window)],
        "a slice": lambda window, gone: window[gone - 10 : gone + 10],
        "a slice with a step": lambda window, gone: window[gone - 30 : gone + 30 : 7],
        "a slice backwards": lambda window, gone: window[gone + 10 : gone - 10 : -1],
        "iteration": lambda window, gone: list(window),
        "iteration from the end": lambda window, gone: list(reversed(window)),
        "find": lambda window, gone: window.find(ABSENT),
        "rfind": lambda window, gone: window.rfind(ABSENT),
        "count": lambda window, gone: window.count(ABSENT),
        "in": lambda window, gone: ABSENT in window,
        "startswith": lambda window, gone: window.startswith(b"x", gone),
        "endswith": lambda window, gone: window.endswith(b"x", 0, gone + 1),
        "read of a stream": lambda window, gone: window.stream(gone - 5).read(10),
        "lines of a stream": lambda window, gone: list(window.stream()),
    }
    if subject.writable:
        every["assignment to an index"] = lambda window, gone: window.__setitem__(gone, 7)
        every["assignment to a slice"] = lambda window, gone: window.__setitem__(
            slice(gone - 1, gone + 2), b"new"
        )
        every["assignment to a slice with a step"] = lambda window, gone: window.__setitem__(
            slice(gone, gone + 20, 10), memoryview(b"..")
        )
    if subject.shared:  # these touch no bytes: they report an earlier fault
        every["flush"] = lambda window, gone: (window.data[gone], window.flush(gone, 1))
        every["flush of everything"] = lambda window, gone: (window.data[gone], window.flush())
        every["a flush that does not wait"] = lambda window, gone: (
            window.data[gone],
            window.flush(durable=False),
        )
    return every


class Maps:
    """T1: a file with a view on bytes that will be gone, a view elsewhere, and another file."""

    def __init__(self, subject: Subject, folder: Path) -> None:
        self.path = folder / "file"
        self.path.unlink(missing_ok=True)
        (folder / "other").unlink(missing_ok=True)
        self.file = subject.create(self.path, WHOLE)
        self.other = subject.create(folder / "other", WHOLE)
        self.first = SHORT - 20
        self.view = self.file.view(self.first)
        self.elsewhere = self.file.view(7, 2 * PAGE_SIZE)
        self.whole = bytearray(WHOLE)  # bytes below SHORT, read through the file
        if subject.writable:
            for place in (KEPT, LOST):
                self.file[place] = self.whole[place] = WHOLE[place] ^ 0xFF
        self.seen = self.whole if subject.shared else WHOLE  # and read through views

    def check(self, gone: tuple[bool, bool], what: str) -> None:
        """Break the clause unless file and view are *gone* or not, and the other bytes are
        right."""
        equal(
            gone,
            (self.file.faulted, self.view.faulted),
            f"faulted of the file and the view after {what}",
        )
        equal(
            (False, False),
            (self.elsewhere.faulted, self.other.faulted),
            f"faulted of others after {what}",
        )
        equal(WHOLE[GONE:], self.other[GONE:], f"another file after {what}")
        equal(self.whole[:SHORT], self.file[:SHORT], f"what stays of the file, after {what}")
        equal(
            self.seen[7 : 7 + 2 * PAGE_SIZE],
            self.elsewhere[:],
            f"a view of what stays, after {what}",
        )
        equal(
            self.seen[self.first : SHORT],
            self.view[: SHORT - self.first],
            f"what stays of a view, after {what}",
        )

    def close(self) -> None:
        for window in (self.view, self.elsewhere, self.file, self.other):
            window.close()


def meet(
    subject: Subject, folder: Path, whose: str, operation: Callable[[Any, int], object], what: str
) -> None:
    """T1: meet bytes that are gone in one way, and go on when they are back."""
    maps = Maps(subject, folder)
    window, first = (maps.file, 0) if whose == "file" else (maps.view, maps.first)
    equal(WHOLE[GONE], window[GONE - first], f"a byte before {what}")
    others(SHORT)
    maps.check((False, False), f"the cut, and before {what}")
    for again in ("", ", again"):
        with raises(MappingFault, what + again, says="gone") as caught:
            operation(window, GONE - first)
        equal(errno.EIO, caught.error.errno, f"errno of {what}")
        equal(os.fspath(maps.path), os.fspath(caught.error.filename), f"the file name of {what}")
        if "everything" not in what and "does not wait" not in what:
            met = caught.error.offset
            end = len(WHOLE) if "from the end" in what else GONE + 21
            true(
                met is not None and GONE <= met < end,
                f"the offset of {what}, {met}, is where bytes are gone",
            )
    maps.check((True, whose == "view"), what)
    if subject.shared:
        with raises(MappingFault, f"resize() after {what}"):
            maps.file.resize(len(WHOLE) + PAGE_SIZE)
        with raises(MappingFault, f"flush() after {what}"):
            maps.file.flush()
        equal(
            SHORT,
            maps.path.stat().st_size,
            f"the size of the file after {what} and a refused resize()",
        )

    others("restore")
    with raises(MappingFault, f"{what}, before refresh()"):
        operation(window, GONE - first)
    maps.file.refresh()
    equal(False, maps.file.faulted, f"faulted after {what} and refresh()")
    equal(
        (WHOLE[GONE:], len(WHOLE)),
        (maps.file[GONE:], len(maps.file)),
        f"what is back after {what} and refresh()",
    )
    if subject.mode == "c":
        equal(
            maps.whole[KEPT],
            maps.file[KEPT],
            f"a private byte on a page that stayed, after {what} and refresh()",
        )
    if whose == "view":
        equal(
            True, maps.view.faulted, f"faulted of the view after {what} and refresh() of its file"
        )
        with raises(MappingFault, f"{what}, after refresh()"):
            operation(window, GONE - first)
        maps.view.close()
        maps.view = maps.file.view(maps.first)
        equal(
            (False, WHOLE[GONE:]),
            (maps.view.faulted, maps.view[GONE - maps.first :]),
            "a new view",
        )
    if subject.writable:
        maps.file[GONE : GONE + 4] = b"back"
        maps.file.flush()
        equal(b"back", maps.file[GONE : GONE + 4], f"what is written after {what} and refresh()")
        expected = b"back" if subject.shared else WHOLE[GONE : GONE + 4]
        equal(
            expected,
            maps.path.read_bytes()[GONE : GONE + 4],
            f"the file, written after {what} and refresh()",
        )
    maps.close()


def meet_through_buffers(subject: Subject, folder: Path) -> None:
    """T1: read zeros where the file is gone, and its bytes elsewhere; nothing raises."""
    maps = Maps(subject, folder)
    buffer = maps.file.data[3:][2:]
    others(SHORT)
    zeros = bytes(len(WHOLE) - SHORT)
    # POSIX: the rest of the last page of the file is zeros, and can be read without a fault:
    # mmap(2).
    equal(
        zeros[: GONE - SHORT], maps.file[SHORT:GONE], "the rest of the page in which the file ends"
    )
    equal(False, maps.file.faulted, "faulted after reading the rest of that page")
    expected = bytes(maps.whole[5:SHORT]) + zeros
    equal(expected, buffer.tobytes(), "a slice of a slice")
    equal(
        (True, False),
        (maps.file.faulted, maps.view.faulted),
        "faulted after reading a buffer of the file",
    )
    with suppress(ImportError):
        import numpy as np

        array = np.frombuffer(buffer, "u1")
        equal(sum(expected), int(array.sum(dtype=np.uint64)), "the sum of a NumPy array")
        equal(expected, array.tobytes(), "the bytes of a NumPy array")
        maps.check((True, False), "reading a NumPy array")
        del array
    window = maps.view.data
    equal(bytes(len(WHOLE) - GONE), window[GONE - maps.first :].tobytes(), "a buffer of a view")
    maps.check((True, True), "reading the buffer of a view")
    if subject.writable:
        buffer[GONE] = 7
        equal(
            7,
            buffer[GONE],
            "what is written where the file is gone: it is kept, and reaches nobody",
        )
        with raises(MappingFault, "reading what was written where the file is gone"):
            maps.file[GONE + 5]
    equal(SHORT, maps.path.stat().st_size, "the size of the file after writing where it is gone")
    others("restore")
    equal(
        WHOLE[SHORT:GONE],
        buffer[SHORT - 5 : GONE - 5].tobytes(),
        "the rest of that page once it is back",
    )
    maps.file.refresh()
    equal(WHOLE[GONE:], maps.file[GONE:], "what is back, while a buffer of the old map is alive")
    equal(bytes(10), buffer[GONE + 100 :][:10].tobytes(), "a buffer of the old map after refresh()")
    maps.close()
    equal(bytes(10), buffer[GONE + 100 :][:10].tobytes(), "a buffer of the old map after close()")


def accept_the_shorter(subject: Subject, folder: Path) -> None:
    """T1: go on with the rest of the file."""
    for met in (True, False):
        maps = Maps(subject, folder)
        others(SHORT)
        if met:
            with raises(MappingFault, "an index"):
                maps.file[GONE]
        maps.file.refresh()
        equal(
            (SHORT, False),
            (len(maps.file), maps.file.faulted),
            "length and faulted after refresh()",
        )
        equal(maps.whole[:SHORT], maps.file[:], "the bytes of the file after refresh()")
        with raises(IndexError, "an index past the shorter file"):
            maps.file[SHORT]
        if subject.writable:
            maps.file[9:12] = b"new"
            maps.file.flush()
            expected = b"new" if subject.shared else WHOLE[9:12]
            equal(expected, maps.path.read_bytes()[9:12], "what was written after refresh()")
        if subject.shared:
            maps.file.resize(len(WHOLE))
            equal(bytes(len(WHOLE) - SHORT), maps.file[SHORT:], "the bytes that resize() added")
            maps.file[GONE] = 9
            equal(9, maps.path.read_bytes()[GONE], "what was written into them")
        maps.close()


# T2


@clause("T2")
def T2(subject: Subject, folder: Path) -> None:
    """If the system refuses to truncate a mapped file (Windows), the other side gets the system's
    error and the mapping is complete."""
    if mappedfile.capabilities().truncate_mapped:
        raise NotHere("this system truncates mapped files")
    path = folder / "file"
    for closed in (False, True):
        file = subject.create(path, CONTENT)
        view = file.view(GRANULARITY, PAGE_SIZE + 50)
        buffer = view.data[1:]
        equal(CONTENT, file[:], "the bytes of the file")
        if closed:
            file.close()
        cut_short(subject, folder)
        in_child(cut_short, subject, folder)
        equal(CONTENT, path.read_bytes(), "the bytes of the file after others tried to truncate it")
        equal(CONTENT[GRANULARITY:][1 : PAGE_SIZE + 50], buffer.tobytes(), "the bytes of a buffer")
        if not closed:
            equal(CONTENT, file[:], "the bytes of the mapped file")
            equal(CONTENT[GRANULARITY:][: PAGE_SIZE + 50], view[:], "the bytes of a view")
            with path.open("ab") as other:  # growing is allowed
                other.write(b"more")
            equal(
                (len(CONTENT), CONTENT),
                (len(file), file[:]),
                "the mapped file after others let the file grow",
            )
        buffer.release()
        view.close()
        file.close()
        os.truncate(path, 10)
        equal(CONTENT[:10], path.read_bytes(), "the file, truncated after everything was closed")
        os.unlink(path)


def cut_short(_: Subject, folder: Path) -> None:
    """T2: try every way to truncate the file."""
    path = folder / "file"
    size = path.stat().st_size
    for wanted in (0, 10, GRANULARITY, size - 1):
        with suppress(OSError):  # os.truncate of CPython drops the error of Windows
            os.truncate(path, wanted)
        equal(
            size,
            path.stat().st_size,
            f"the size after os.truncate() of a mapped file to {wanted} bytes",
        )
    with open(path, "r+b") as file, raises(OSError, "truncate() of a file that is mapped"):
        file.truncate(5)
    with raises(OSError, "opening a mapped file in mode 'wb'"):
        path.open("wb").close()
    true(path.stat().st_size == size, "the size of the file is what it was")
