"""L · Lifetime: closing while mapped."""

from __future__ import annotations

import atexit
import builtins
import ctypes
import errno
import gc
import os
import random
import re
import struct
import sys
import threading
import time
import warnings
from contextlib import suppress
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mappedfile
from mappedfile import GRANULARITY, PAGE_SIZE
from mappedfile.contract import _probe
from mappedfile.contract._children import in_child
from mappedfile.contract._clauses import NotHere, clause, equal, raises, true

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mappedfile.contract._subjects import Subject

#: The long runs: MAPPEDFILE_STRESS=1.
STRESS = bool(os.environ.get("MAPPEDFILE_STRESS"))
#: The number of cycles of L7. A short run does as many as it can in its seconds.
CYCLES = 100_000 if STRESS else 10_000
CYCLE_SECONDS = 600 if STRESS else 1.5
#: The time, in seconds, in which threads of L6 close objects that others use.
SECONDS = 20 if STRESS else 0.4
#: The time limit for a thread, in seconds. It is long, since the machine may be slow.
HUNG = 300

#: Whether Python classes can export buffers: PEP 688.
EXPORTS = sys.version_info >= (3, 12)


def pattern(length: int) -> bytes:
    """Return bytes in which adjacent places differ."""
    return (
        b"".join(
            struct.pack("<I", number * 2654435761 & 0xFFFFFFFF) for number in range(length // 4 + 1)
        )
    )[:length]


def own_buffers(window: Any) -> bool:
    """Whether the object itself supports the buffer protocol."""
    try:
        memoryview(window).release()
    except TypeError:
        return False
    return True


def buffers_of(window: Any) -> dict[str, Callable[[Any], Any]]:
    """Return the kinds of buffers and objects made from them: a name, and a function of a
    window."""
    kinds: dict[str, Callable[[Any], Any]] = {
        "a memoryview": lambda window: window.data,
        "a slice": lambda window: window.data[1:100],
        "a slice of a slice": lambda window: window.data[3:][4:60],
        "a slice with a step": lambda window: window.data[::3][1:],
        "a cast": lambda window: window.data[:64].cast("H"),
        "a slice of a cast of a slice": lambda window: window.data[8:72].cast("I")[1:5],
        "a read-only memoryview": lambda window: window.data.toreadonly(),
        "a memoryview of a memoryview": lambda window: memoryview(memoryview(window.data)),
    }
    if not window.readonly:
        kinds["a ctypes array"] = lambda window: (ctypes.c_ubyte * 50).from_buffer(window.data, 6)
    if own_buffers(window):
        kinds["a memoryview of the object"] = memoryview
        kinds["a slice of a memoryview of the object"] = lambda window: memoryview(window)[2:][:20]
    with suppress(ImportError):
        import numpy as np

        kinds["a NumPy array"] = lambda window: np.frombuffer(window.data, "u1")
        # NumPy keeps .obj of this memoryview, not the memoryview
        kinds["an ndarray"] = lambda window: np.ndarray((64,), "u1", window.data, 3)
        kinds["a slice of a reshaped NumPy array"] = lambda window: np.frombuffer(
            window.data, "<u2", 64
        ).reshape(8, 8)[1:3]
        if own_buffers(window):
            kinds["a NumPy array on the object"] = lambda window: np.frombuffer(window, "u1", 30, 7)
    return kinds


@clause("L1")
def L1(subject: Subject, folder: Path) -> None:
    """`MappedFile.close()` succeeds while views and buffers are alive, and closes every OS handle
    of the mapped file before it returns (descriptor and handle counts are back where they were).
    Closing twice is silent."""
    content = pattern(2 * GRANULARITY)
    for number in range(3):
        before = _probe.handles()
        file = subject.create(folder / f"file{number}", content)
        first, second = file.view(0, 100), file.view(GRANULARITY, PAGE_SIZE)
        whole, part = file.data, first.data[10:20][1:]
        true(_probe.handles() > before, "an open mapped file has a handle")
        file.close()
        after = _probe.handles()
        if number:  # in the first round libraries may still open their own handles
            equal(before, after, "handles after close(), with 2 views and 2 buffers alive")
        equal(True, file.closed, "closed")
        equal(None, file.close(), "what closing again returns")
        equal(content, whole.tobytes(), "a buffer of the closed file")
        equal(content[11:20], part.tobytes(), "a slice of a view's buffer")
        for window in (first, first, second, file):
            window.close()
        del whole, part
        equal(after, _probe.handles(), "handles after everything was closed")

        # never mapped: closed by a with statement, or inside one
        for closes in (True, False):
            with subject.create(folder / f"file{number}{closes}", content) as unmapped:
                if closes:
                    unmapped.close()
            equal(True, unmapped.closed, "closed after the with statement")
            equal(after, _probe.handles(), "handles after a with statement")
        del file, first, second, window, unmapped


@clause("L2")
def L2(subject: Subject, folder: Path) -> None:
    """A view outlives its mapped file: reading, writing and `flush(durable=False)` go on working,
    and its writes reach the file."""
    for dropped in (False, True):
        path = folder / f"file{dropped}"
        content = bytearray(pattern(GRANULARITY + 2 * PAGE_SIZE))
        file = subject.create(path, bytes(content))
        view = file.view(GRANULARITY, PAGE_SIZE + 100)
        untouched = file.view(GRANULARITY, 50)
        file.close()
        if dropped:
            del file
        equal(PAGE_SIZE + 100, len(view), "the length of the view")
        equal(bytes(content[GRANULARITY:][: PAGE_SIZE + 100]), view[:], "the bytes of the view")
        equal(content[GRANULARITY + 7], view[7], "a byte of the view")
        equal(
            PAGE_SIZE,
            view.find(content[GRANULARITY + PAGE_SIZE :][:16]),
            "where the view finds its bytes",
        )
        equal(True, view.mapped, "mapped")
        if subject.writable:
            view[5] = content[GRANULARITY + 5] = content[GRANULARITY + 5] ^ 0xFF
            late = GRANULARITY + PAGE_SIZE
            view[PAGE_SIZE : PAGE_SIZE + 4] = content[late : late + 4] = b"late"
            with view.data as data:
                data[9:12] = content[GRANULARITY + 9 : GRANULARITY + 12] = b"new"
            equal(
                bytes(content[GRANULARITY:][: PAGE_SIZE + 100]),
                view[:],
                "the bytes of the view after writing",
            )
        equal(None, view.flush(durable=False), "what flush(durable=False) returns")
        equal(None, view.flush(0, 100, durable=False), "what flush(0, 100, durable=False) returns")
        expected = (
            bytes(content) if subject.shared or not subject.writable else pattern(len(content))
        )
        equal(expected, path.read_bytes(), "the file while the view is open")
        if subject.shared:
            equal(bytes(content[GRANULARITY:][:50]), untouched[:], "the bytes of another view")
        view.close()
        untouched.close()
        equal(expected, path.read_bytes(), "the file after the view was closed")


@clause("L3")
def L3(subject: Subject, folder: Path) -> None:
    """`View.close()` unmaps before it returns when no buffer taken from it is alive: the address
    range is free again (`/proc/self/maps`, `VirtualQuery`), and the working set gives its pages
    up."""
    size = 64 * PAGE_SIZE
    content = pattern(GRANULARITY + size)
    file = subject.create(folder / "file", content)
    for offset, by in ((0, "close"), (GRANULARITY, "close"), (0, "with"), (0, "strict")):
        view = file.view(offset, size)
        where = _probe.address_of(view.data)
        equal(content[offset : offset + size], view[:], "the bytes of the view")
        with view.data as data:  # a buffer that is gone again
            equal(content[offset + 1], data[1:][0], "a byte through a buffer")
        equal(True, view.mapped, "mapped")
        true(_probe.is_mapped(where, size), "the range of an open view is mapped")
        true(
            _probe.resident(where, size) >= size // 2, "pages that were read are in the working set"
        )
        if by == "with":
            with view:
                pass
        else:
            view.close(strict=by == "strict")
        equal(False, view.mapped, "mapped after close()")
        true(
            not _probe.is_mapped(where, size),
            f"the range of a view is free after it was closed ({by})",
        )
        equal(0, _probe.resident(where, size), "bytes of it in the working set")
    file.close()


@clause("L4")
def L4(subject: Subject, folder: Path) -> None:
    """A buffer keeps its pages. Closing its owner leaves it readable and writable. The range is
    unmapped the moment the last buffer on it is gone. `mapped` says whether the range is still
    mapped."""
    size = GRANULARITY
    content = pattern(2 * size)
    with subject.create(folder / "probe", content) as file:
        kinds = buffers_of(file)
    for number, (kind, make) in enumerate(kinds.items()):
        for owned_by in ("file", "view"):
            path = folder / f"{owned_by}{number}"
            file = subject.create(path, content)
            owner = file if owned_by == "file" else file.view(size, size)
            offset = 0 if owned_by == "file" else size
            what = f"{kind} of the {owned_by}"
            where = _probe.address_of(owner.data)
            buffer = make(owner)
            expected = bytes(memoryview(buffer))
            start = _probe.address_of(
                memoryview(buffer).cast("B") if memoryview(buffer).c_contiguous else buffer[:1]
            )
            owner.close()
            file.close()
            equal(
                (True, True), (owner.closed, owner.mapped), f"closed and mapped, with {what} alive"
            )
            true(_probe.is_mapped(where, size), f"the range is mapped, with {what} alive")
            equal(
                expected, bytes(memoryview(buffer)), f"what {what} reads after its owner was closed"
            )
            true(expected[0] in content[offset:], "a byte of the content")
            with memoryview(buffer) as again:
                if not again.readonly and again.c_contiguous:
                    with again.cast("B") as flat:
                        flat[0] ^= 0xFF
            expected = bytes(memoryview(buffer))
            place = offset + start - where
            if subject.shared and expected[0] != content[place]:
                equal(
                    expected[0],
                    path.read_bytes()[place],
                    f"what {what} wrote after its owner was closed",
                )
            del buffer
            equal(False, owner.mapped, f"mapped, after {what} has gone")
            true(not _probe.is_mapped(where, size), f"the range is free after {what} has gone")

    # iterators keep buffers too
    for kind, make in {
        "an iterator": lambda window: iter(window.data),
        "an iterator of struct": lambda window: struct.iter_unpack("B", window.data),
        "a reversed": lambda window: reversed(window.data),
    }.items():
        file = subject.create(folder / kind, content)
        where = _probe.address_of(file.data)
        iterator = make(file)
        next(iterator)
        file.close()
        equal(True, file.mapped, f"mapped, with {kind} on a buffer alive")
        next(iterator)
        del iterator
        equal(False, file.mapped, f"mapped, after {kind} has gone")

    # the last of many, in any order; release() counts as being gone
    file = subject.create(folder / "many", content)
    where = _probe.address_of(file.data)
    buffers = [
        file.data,
        file.data[5:],
        file.data[6:][7:],
        file.data.cast("I"),
        file.data.toreadonly(),
    ]
    file.close()
    random.Random(4).shuffle(buffers)
    while len(buffers) > 1:
        buffers.pop().release()
        true(
            file.mapped and _probe.is_mapped(where, size),
            f"the range is mapped with {len(buffers)} buffers alive",
        )
    buffers[0].release()
    equal(False, file.mapped, "mapped after every buffer was released")
    true(not _probe.is_mapped(where, size), "the range is free after every buffer was released")


@clause("L5")
def L5(subject: Subject, folder: Path) -> None:
    """`close(strict=True)` raises `BufferError` while a buffer (for a `MappedFile`: a view or a
    buffer) is alive, and changes nothing. The message says what is alive, and how many."""
    content = pattern(2 * GRANULARITY)
    file = subject.create(folder / "file", content)
    view, other = file.view(0, GRANULARITY), file.view(GRANULARITY, 100)
    kinds = buffers_of(file)

    def refuses(window: Any, *counts: str) -> None:
        """Close strictly; expect BufferError with these counts and no others."""
        with raises(BufferError, f"close(strict=True) with {' and '.join(counts)} alive") as caught:
            window.close(strict=True)
        found = re.findall(r"\d+ (?:view|buffer)s?\b", str(caught.error))
        equal(sorted(counts), sorted(found), "what the message counts")
        start = 0 if window is file else window.offset
        equal(
            (False, content[start : start + 64]),
            (window.closed, window[:64]),
            "its state after a strict close",
        )
        if subject.writable:
            window[0] = content[start]
        window.view(0, 1).close() if window is file else window.flush(durable=False)

    before = _probe.handles()
    refuses(file, "2 views")
    other.close()
    refuses(file, "1 view")
    for make in kinds.values():
        buffer = make(view)
        refuses(view, "1 buffer")
        refuses(file, "1 view", "1 buffer")
        del buffer
        buffer = make(file)
        refuses(file, "1 view", "1 buffer")
        del buffer
    buffers = [view.data, view.data[3:][4:], file.data]
    refuses(view, "2 buffers")
    refuses(file, "1 view", "3 buffers")
    equal(before, _probe.handles(), "the number of handles after many a strict close")
    view.close()  # its buffers still use the file
    refuses(file, "3 buffers")
    buffers.pop()
    refuses(file, "2 buffers")
    buffers.clear()
    file.close(strict=True)
    equal(True, file.closed, "closed, when nothing was alive any more")
    file.close(strict=True)
    view.close(strict=True)


# L6


@clause("L6")
def L6(subject: Subject, folder: Path) -> None:
    """Every other use of a closed object raises `ValueError`. It never crashes and never gives
    another mapping's bytes, also when an argument's `__index__` closes the object during a call,
    and when another thread closes it."""
    file = subject.create(folder / "file", pattern(GRANULARITY))
    view = file.view(0, PAGE_SIZE)
    view[0], file[0]
    calls = {window: uses(window, subject) for window in (view, file)}
    for window, its in calls.items():
        window.close()
        for what, call in its.items():
            with raises(ValueError, f"{what} of a closed {type(window).__name__}"):
                call()
        window.close()
        repr(window)
        equal(
            (True, False, not subject.writable),
            (window.closed, window.mapped, window.readonly),
            "the state of a closed object",
        )
    equal(
        (os.fspath(folder / "file"), subject.mode),
        (os.fspath(file.name), file.mode),
        "name and mode of the closed file",
    )
    # These may crash, so they run in their own process.
    in_child(close_half_way, subject, folder)
    in_child(close_from_a_thread, subject, folder)


def uses(window: Any, subject: Subject) -> dict[str, Callable[[], Any]]:
    """Return every operation that must raise on a closed object, by name."""
    every: dict[str, Callable[[], Any]] = {
        "len()": lambda: len(window),
        "[0]": lambda: window[0],
        "[-1]": lambda: window[-1],
        "[2:5]": lambda: window[2:5],
        "[:]": lambda: window[:],
        "[::2]": lambda: window[::2],
        "iteration": lambda: list(window),
        "in": lambda: b"x" in window,
        "find()": lambda: window.find(b"x"),
        "find() with limits": lambda: window.find(b"", 1, 2),
        "rfind()": lambda: window.rfind(b"x"),
        "count()": lambda: window.count(b"x"),
        "data": lambda: window.data,
        "flush()": window.flush,
        "flush(0, 0)": lambda: window.flush(0, 0),
        "flush(durable=False)": lambda: window.flush(durable=False),
        "with": window.__enter__,
    }
    if subject.writable:  # on other systems TypeError may come first
        every["[0] = 1"] = lambda: window.__setitem__(0, 1)
        every["[0:2] = b'..'"] = lambda: window.__setitem__(slice(0, 2), b"..")
        every["[::2] = b'..'"] = lambda: window.__setitem__(slice(0, 4, 2), b"..")
    if own_buffers(window):
        every["memoryview()"] = lambda: memoryview(window)
        every["bytes()"] = lambda: bytes(window)
        every["struct.unpack_from()"] = lambda: struct.unpack_from("B", window)
    if hasattr(window, "view"):
        every["view()"] = window.view
        every["view(0, 10)"] = lambda: window.view(0, 10)
    if hasattr(window, "startswith"):  # mmap has none of these
        every["index()"] = lambda: window.index(b"x")
        every["rindex()"] = lambda: window.rindex(b"x")
        every["startswith()"] = lambda: window.startswith(b"x")
        every["endswith()"] = lambda: window.endswith((b"x", b""))
        every["stream()"] = window.stream
    if hasattr(window, "fileno"):
        every["fileno()"] = window.fileno
        every["resize()"] = lambda: window.resize(PAGE_SIZE)
    for name in ("count", "refresh"):  # mmap has neither
        if not hasattr(window, name):
            every.pop(f"{name}()", None)
        elif name == "refresh":
            every["refresh()"] = window.refresh
    return every


class Closing:
    """A number whose ``__index__`` closes an object."""

    def __init__(self, window: Any, number: int) -> None:
        self.window = window
        self.number = number

    def __index__(self) -> int:
        self.window.close()
        return self.number


class ClosingBytes:
    """Bytes whose ``__buffer__`` closes an object."""

    def __init__(self, window: Any, content: bytes) -> None:
        self.window = window
        self.content = content

    def __buffer__(self, flags: int) -> memoryview:
        self.window.close()
        return memoryview(self.content)


def close_half_way(subject: Subject, folder: Path) -> None:
    """L6: an argument of every method closes the object."""

    def half_way(window: Any) -> dict[str, Callable[[], Any]]:
        number = Closing(window, 1)
        every: dict[str, Callable[[], Any]] = {
            "[i]": lambda: window[number],
            "[i:]": lambda: window[number:],
            "[:i]": lambda: window[:number],
            "[0:i]": lambda: window[0:number],
            "[i:5:2]": lambda: window[number:5:2],
            "[0:9:i]": lambda: window[0:9:number],
            "find(, i)": lambda: window.find(b"a", number),
            "find(, 0, i)": lambda: window.find(b"a", 0, number),
            "rfind(, i)": lambda: window.rfind(b"a", number),
            "rfind(, 0, i)": lambda: window.rfind(b"a", 0, number),
            "flush(i)": lambda: window.flush(number),
            "flush(0, i)": lambda: window.flush(0, number),
            "flush(0, i, durable=False)": lambda: window.flush(0, number, durable=False),
        }
        if hasattr(window, "count"):
            every["count(, i)"] = lambda: window.count(b"a", number)
            every["find(i)"] = lambda: window.find(number)
            every["rfind(i)"] = lambda: window.rfind(number)
            every["count(i)"] = lambda: window.count(number)
            every["i in"] = lambda: number in window
        if subject.writable:
            every["[i] = 1"] = lambda: window.__setitem__(number, 1)
            every["[1] = i"] = lambda: window.__setitem__(1, number)
            every["[i:2] = b'.'"] = lambda: window.__setitem__(slice(number, 2), b".")
            every["[:i] = b'.'"] = lambda: window.__setitem__(slice(None, number), b".")
            every["[i:2] = bytearray(b'.')"] = lambda: window.__setitem__(
                slice(number, 2), bytearray(b".")
            )
            every["[i:5:2] = b'..'"] = lambda: window.__setitem__(slice(number, 5, 2), b"..")
            every["[0:2:i] = b'..'"] = lambda: window.__setitem__(slice(0, 2, number), b"..")
        if EXPORTS:
            content = ClosingBytes(window, b"ab")
            every["find(bytes-like)"] = lambda: window.find(content)
            every["rfind(bytes-like)"] = lambda: window.rfind(content)
            if subject.writable:
                every["[0:2] = bytes-like"] = lambda: window.__setitem__(slice(0, 2), content)
                every["[0:4:2] = bytes-like"] = lambda: window.__setitem__(slice(0, 4, 2), content)
        if hasattr(window, "startswith"):
            every["index(, i)"] = lambda: window.index(b"a", number)
            every["startswith(, i)"] = lambda: window.startswith(b"a", number)
            every["endswith(, , i)"] = lambda: window.endswith(b"a", 0, number)
            every["stream(i)"] = lambda: window.stream(number)
        if hasattr(window, "view"):
            every["view(i)"] = lambda: window.view(number)
            every["view(0, i)"] = lambda: window.view(0, number)
            if subject.shared and hasattr(window, "resize"):
                every["resize(i)"] = lambda: window.resize(Closing(window, 2 * PAGE_SIZE))
        return every

    def opened(name: str) -> dict[str, Any]:
        file = subject.create(folder / name, b"a" * 2 * GRANULARITY)
        return {"file": file, "view": file.view(0, GRANULARITY)}

    number = 0
    for kind in ("file", "view"):
        sample = opened(f"sample-{kind}")
        names = list(half_way(sample[kind]))
        for window in sample.values():
            window.close()
        for what in names:
            # The first use maps the whole file: one object is closed before that.
            for used in (
                True,
                False,
            ):
                number += 1
                path = folder / f"half{number}"
                windows = opened(path.name)
                window = windows[kind]
                if used:
                    window[0]
                with raises(ValueError, f"{what} of a {kind}, where i closes it"):
                    half_way(window)[what]()
                equal(True, window.closed, "closed")
                for window in windows.values():
                    window.close()
                equal({ord("a")}, set(path.read_bytes()), f"the bytes of the file after {what}")
                path.unlink()


def close_from_a_thread(subject: Subject, folder: Path) -> None:
    """L6: one thread closes objects that others use, and maps other bytes there at once."""
    sys.setswitchinterval(1e-6)
    size = 16 * GRANULARITY
    mine, theirs = 0x11, 0xEE
    # other bytes, ready to be mapped where an object was closed
    stranger = subject.create(folder / "theirs", bytes([theirs]) * size)
    path = folder / "mine"

    def search(window: Any) -> None:
        equal(-1, window.find(bytes([theirs])), "where find() finds another mapping's bytes")
        equal(-1, window.rfind(bytes([theirs, theirs])), "where rfind() finds them")

    def slices(window: Any) -> None:
        equal(b"", window[:].strip(bytes([mine])), "bytes of another mapping in a slice")
        equal(b"", window[5:-5:3].strip(bytes([mine])), "what a slice with a step has of them")

    def items(window: Any) -> None:
        for place in range(0, size, PAGE_SIZE // 4):
            equal(mine, window[place], "a byte")

    def flushes(window: Any) -> None:
        window.flush(7, 3 * PAGE_SIZE, durable=False)
        window.flush(durable=False)

    def copies(window: Any) -> None:
        with window.data as data:
            equal(
                b"",
                data.tobytes().strip(bytes([mine])),
                "what a buffer has of another mapping's bytes",
            )

    def writes(window: Any) -> None:
        if subject.writable:
            window[0:size] = bytes([mine]) * size
            window[0:size:2] = bytearray([mine]) * (size // 2)
            window[9] = mine
        else:
            items(window)

    def views(window: Any) -> None:
        with window.view(0, size) if hasattr(window, "view") else window.data as part:
            equal(mine, part[size - 1], "a byte of a view")

    wrong: list[BaseException] = []

    def use(window: Any, work: Callable[[Any], None], began: threading.Event) -> None:
        try:
            while True:
                began.set()
                work(window)
        except ValueError:
            pass  # closed, as the clause says
        except BaseException as error:
            error.__traceback__ = None
            wrong.append(error)

    chance = random.Random(6)
    works = [search, slices, items, flushes, copies, writes, views]
    rounds = 0
    until = time.monotonic() + SECONDS
    while time.monotonic() < until or rounds < 2 * len(works):
        path.unlink(missing_ok=True)
        file = subject.create(path, bytes([mine]) * size)
        view = file.view(0, size)
        window = (view, file)[rounds // len(works) % 2]
        work = works[rounds % len(works)]
        begun = [threading.Event(), threading.Event()]
        threads = [threading.Thread(target=use, args=(window, work, began)) for began in begun]
        for thread, began in zip(threads, begun, strict=True):
            thread.start()
            began.wait()
        time.sleep(chance.random() * 0.002)
        window.close()
        substitutes = [stranger.view(0, size) for _ in range(3)]
        for thread in threads:
            thread.join(HUNG)
            true(not thread.is_alive(), f"{work.__name__} of a closed object came to an end")
        if wrong:
            raise wrong[0]
        for one in (file, view, *substitutes):
            one.close()
        rounds += 1
    stranger.close()
    equal({theirs}, set((folder / "theirs").read_bytes()), "the bytes of the other file")


# L7


@clause("L7")
def L7(subject: Subject, folder: Path) -> None:
    """File, views and buffers can be closed in every order, and leave nothing behind: handles,
    mappings and address space return to where they were, over 10,000 cycles."""
    path = folder / "file"
    content = pattern(2 * GRANULARITY + 100)
    names = ("file", "view", "buffer of the file", "buffer of the view", "slice")
    orders = list(permutations(names))
    # sparse: allocating blocks would take longer than everything else.
    options: dict[str, Any] = (
        {"size": len(content), "sparse": True} if subject.mode in ("w+", "x+") else {}
    )
    path.write_bytes(content)

    def cycle(order: tuple[str, ...]) -> None:
        if subject.mode == "x+":
            path.unlink(missing_ok=True)
        file = subject.open(path, subject.mode, **options)
        view = file.view(GRANULARITY, GRANULARITY + 50)
        alive = {
            "file": file,
            "view": view,
            "buffer of the file": file.data,
            "buffer of the view": view.data,
            "slice": view.data[1:][5:50],
        }
        del file, view
        for name in order:
            thing = alive.pop(name)
            if name in ("file", "view"):
                thing.close()
            elif name == "slice":
                del thing
            else:
                thing.release()

    cycle(orders[0])
    before = _probe.handles(), *_probe.file_maps()
    for order in orders:
        cycle(order)
        equal(
            before,
            (_probe.handles(), *_probe.file_maps()),
            f"handles, maps and their bytes after closing {', '.join(order)}",
        )
    gc.collect()
    blocks = sys.getallocatedblocks()
    cycles = 0
    until = time.monotonic() + CYCLE_SECONDS
    while cycles < CYCLES and time.monotonic() < until:
        for order in orders:
            cycle(order)
        cycles += len(orders)
    equal(
        before,
        (_probe.handles(), *_probe.file_maps()),
        f"handles, maps and their bytes after {cycles} cycles",
    )
    more = sys.getallocatedblocks() - blocks
    # Some memory is always kept. It does not grow with the cycles.
    true(
        more < cycles // 2 + 500,
        f"no memory is left behind: {more} more objects after {cycles} cycles",
    )
    if subject.shared:
        equal(len(content), path.stat().st_size, "the size of the file")


# L8


@clause("L8")
def L8(subject: Subject, folder: Path) -> None:
    """An object dropped without `close()` is released at once by reference counting, with a
    `ResourceWarning` that names the file. Finalisers never raise, also at interpreter exit."""
    content = pattern(2 * GRANULARITY)
    for first in ("file", "view"):
        path = folder / f"dropped-{first}"
        before = _probe.handles(), *_probe.file_maps()
        alive = {"file": subject.create(path, content)}
        alive["view"] = alive["file"].view(GRANULARITY, PAGE_SIZE)
        alive["view"][0], alive["file"][0]
        where = {name: _probe.address_of(window.data) for name, window in alive.items()}
        for name in (first, "view" if first == "file" else "file"):
            with heard_warnings(ResourceWarning) as heard:
                del alive[name]
            equal(1, len(heard), f"the number of ResourceWarnings when a {name} is dropped")
            true(path.name in heard[0], f"the warning names the file: {heard[0]}")
            true(
                not _probe.is_mapped(where[name], PAGE_SIZE),
                f"the memory of a {name} is free once it is dropped",
            )
        equal(
            before,
            (_probe.handles(), *_probe.file_maps()),
            "handles, maps and their bytes after the objects were dropped",
        )

    # A buffer keeps the memory of a dropped object.
    with heard_warnings(ResourceWarning) as heard:
        file = subject.create(folder / "buffer", content)
        buffer = file.data[1:]
        del file
        equal(content[1:], buffer.tobytes(), "a buffer of a file that was dropped")
        del buffer
    equal(
        before,
        (_probe.handles(), *_probe.file_maps()),
        "handles, maps and their bytes after its buffer has gone",
    )

    with heard_warnings(ResourceWarning) as heard:
        file = subject.create(folder / "closed", content)
        view = file.view()
        file.close()
        view.close()
        del file, view
        options = {"size": 1} if subject.mode in ("w+", "x+") else {}
        with suppress(OSError):
            subject.open(folder / "missing" / "file", subject.mode, **options)
        with suppress(TypeError, ValueError):
            subject.open(None, subject.mode, **options)
    equal([], heard, "warnings about objects that were closed, or never opened")

    # If warnings are errors, a dropped object is released as well. The error goes to the hook for
    # unraisable exceptions.
    unraisable = []
    hook, sys.unraisablehook = sys.unraisablehook, lambda args: unraisable.append(args.exc_type)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            file = subject.create(folder / "error", content)
            view = file.view(GRANULARITY)
            view[0]
            del view
            file.close(strict=True)
            file = subject.create(folder / "error2", content)
            del file
    finally:
        sys.unraisablehook = hook
    equal([ResourceWarning] * 2, unraisable, "what was reported where warnings are errors")
    equal(
        before,
        (_probe.handles(), *_probe.file_maps()),
        "handles, maps and their bytes where warnings are errors",
    )

    left = in_child(leave_alive, subject, folder)
    true(
        "left-alive" in left,
        f"the interpreter warns of objects that are alive when it ends: {left!r}",
    )
    wrong = [
        line
        for line in left.splitlines()
        if re.search(r"Traceback|ignored|Error|Fatal|Current thread", line)
    ]
    equal([], wrong, "what finalisers complain of when the interpreter ends")


class heard_warnings:  # noqa: N801 (it reads as a function)
    """Collects the texts of warnings of one category; other warnings are dropped."""

    def __init__(self, category: type[Warning]) -> None:
        self._category = category
        self._catcher = warnings.catch_warnings(record=True)

    def __enter__(self) -> list[str]:
        heard: list[str] = []
        self._catcher.__enter__()
        warnings.simplefilter("always")

        def show(message: Any, category: type[Warning], *_: object) -> None:
            if issubclass(category, self._category):
                heard.append(str(message))  # not the warning itself, which refers to the object

        warnings.showwarning = show  # type: ignore[assignment]
        return heard

    def __exit__(self, *_: object) -> None:
        self._catcher.__exit__(None, None, None)


def leave_alive(subject: Subject, folder: Path) -> None:
    """L8: leave objects alive in places that interpreter shutdown reaches at different times."""
    number = 0

    def make() -> tuple[Any, Any, memoryview]:
        nonlocal number
        number += 1
        file = subject.create(folder / f"left-alive{number}", pattern(GRANULARITY))
        view = file.view(0, 100)
        return file, view, view.data[1:]

    class Cycle:
        def __init__(self) -> None:
            self.me = self
            self.files = make()

    def suspended() -> Iterator[None]:
        with make()[0] as file:
            file[0]
            yield

    def busy() -> None:
        file, _, _ = make()
        began.set()
        while True:
            file.find(b"absent" * 5)

    globals()["_left"] = make()
    sys.modules["__main__"].left = make()  # type: ignore[attr-defined]
    sys.left = make()  # type: ignore[attr-defined]
    builtins.left = make()  # type: ignore[attr-defined]
    os.environ.left = make()  # type: ignore[attr-defined]
    sys.modules["left"] = make()  # type: ignore[assignment]
    Cycle.left = make()  # type: ignore[attr-defined]
    Cycle()
    sys.cycle = Cycle()  # type: ignore[attr-defined]
    sys.generator = suspended()  # type: ignore[attr-defined]
    next(sys.generator)  # type: ignore[attr-defined]
    local = threading.local()
    local.left = make()
    sys.local = local  # type: ignore[attr-defined]
    began = threading.Event()
    threading.Thread(target=busy, daemon=True).start()
    began.wait()
    atexit.register(lambda *_: None, *make())


# L9 to L11


@clause("L9")
def L9(subject: Subject, folder: Path) -> None:
    """After `MappedFile.close()` only its views keep the file in use, without sharing restrictions:
    others can open it for reading, writing and deleting."""
    content = pattern(GRANULARITY + 100)
    path = folder / "file"
    file = subject.create(path, content)
    view = file.view(GRANULARITY, 100)
    file[0]
    file.close()
    open_as_others(subject, folder)
    equal(content[GRANULARITY:-1], view[:-1], "the bytes of the view")
    in_child(open_as_others, subject, folder)
    equal(content[GRANULARITY:-1], view[:-1], "the bytes of the view")
    if subject.mode == "c":
        view[0] ^= 0xFF
    view.close()
    os.unlink(path)


def open_as_others(subject: Subject, folder: Path) -> None:
    """L9: open the file for reading, writing and deleting. Renaming opens it for deleting."""
    path, elsewhere = folder / "file", folder / "elsewhere"
    with open(path, "rb") as reader:
        content = reader.read()
    with open(path, "r+b") as writer:
        writer.seek(-1, os.SEEK_END)
        writer.write(bytes([content[-1] ^ 0xFF]))
    with open(path, "ab") as appender:
        appender.write(b"more")
    with subject.open(path, "r+") as mapped:
        equal(
            content[:-1] + bytes([content[-1] ^ 0xFF]) + b"more",
            mapped[:],
            "what another mapped file reads",
        )
        mapped[len(content) - 1] = content[-1]
    os.rename(path, elsewhere)
    os.rename(elsewhere, path)


@clause("L10")
def L10(subject: Subject, folder: Path) -> None:
    """An unmap, flush or close that fails in the system is never swallowed: it is an `OSError` with
    the system's code (`UnmapViewOfFile` of an address that `MapViewOfFile` did not return: winerror
    487; `CloseHandle` twice: winerror 6; `munmap` of an unaligned address: `EINVAL`)."""
    # The handle is closed without the library's knowledge. Errors of unmapping:
    # tests/test_posix.py, tests/test_windows.py.
    before = _probe.handles(), *_probe.file_maps()

    def is_wrong_handle(error: OSError, what: str) -> None:
        if sys.platform == "win32":
            equal(6, error.winerror, f"winerror of {what}")
        equal(errno.EBADF, error.errno, f"errno of {what}")
        equal(
            os.fspath(path),
            error.filename and os.fspath(error.filename),
            f"the file name of {what}",
        )

    for number, way in enumerate(("close", "close with views", "with", "strict", "flush")):
        path = folder / f"file{number}"
        file = subject.create(path, pattern(GRANULARITY))
        view = file.view(0, 100) if way in ("close with views", "flush") else None
        file[0]
        close_behind_its_back(file.handle)
        if way == "flush" and subject.shared:
            with raises(OSError, "flush() without a descriptor") as caught:
                file.flush()
            is_wrong_handle(caught.error, "flush() without a descriptor")
            equal(False, file.closed, "closed after a failing flush()")
        with raises(OSError, f"close() without a descriptor ({way})") as caught:
            if way == "with":
                with file:
                    pass
            else:
                file.close(strict=way == "strict")
        is_wrong_handle(caught.error, "close() without a descriptor")
        equal(
            (True, False), (file.closed, file.mapped), "closed and mapped after a failing close()"
        )
        equal(None, file.close(), "what closing again returns")
        if view is not None:
            equal(pattern(100), view[:], "the bytes of a view")
            view.close()
    del file, view
    equal(
        before,
        (_probe.handles(), *_probe.file_maps()),
        "handles, maps and their bytes after failing closes",
    )


def close_behind_its_back(handle: int) -> None:
    """Close the handle of another object."""
    if sys.platform == "win32":
        from mappedfile.contract._kernel32 import close_handle

        close_handle(handle)
    else:
        os.close(handle)


@clause("L11")
def L11(subject: Subject, folder: Path) -> None:
    """After `fork`, parent and child each close their own files and maps; neither disturbs the
    other."""
    if not mappedfile.capabilities().fork:
        raise NotHere("this system does not fork")
    in_child(fork_and_close, subject, folder)  # in a process without threads


def fork_and_close(subject: Subject, folder: Path) -> None:
    """L11: fork with everything open. Either side closes first, or just ends."""
    content = pattern(2 * GRANULARITY)
    for first in ("child", "parent", "child just ends"):
        path = folder / first
        file = subject.create(path, content)
        view = file.view(GRANULARITY, 100)
        buffer = file.data[5:]
        to_child, from_parent = os.pipe()
        to_parent, from_child = os.pipe()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                equal(content[5:], buffer.tobytes(), "a buffer in the child")
                equal(content[GRANULARITY:][:100], view[:], "a view in the child")
                if first == "parent":
                    os.read(to_child, 1)
                if subject.writable:
                    view[50] ^= 0xFF
                if first != "child just ends":
                    buffer.release()
                    file.close()
                    equal(
                        content[GRANULARITY:][:50], view[:50], "a view in the child, after close()"
                    )
                    view.close()
                    equal((False, False), (file.mapped, view.mapped), "mapped in the child")
                    status = 0
                else:  # finalisers run, as at any exit
                    warnings.simplefilter("ignore")
                    os.write(from_child, b"c")
                    sys.exit(0)
            except Exception as error:
                print(error, file=sys.stderr)
            os.write(from_child, b"c")
            os._exit(status)
        if first == "parent":
            buffer.release()
            file.close()
            view.close()
            os.write(from_parent, b"p")
        os.read(to_parent, 1)
        equal(
            0,
            os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]),
            f"the status of the child ({first} first)",
        )
        if first != "parent":
            os.fstat(file.fileno())
            equal(content[5:10], buffer[:5].tobytes(), "a buffer in the parent")
            wanted = content[GRANULARITY + 50] ^ (0xFF if subject.shared else 0)
            equal(wanted, view[50], "what the parent reads where the child wrote")
            if subject.writable:
                view[0] ^= 0xFF
            with file.view(0, 10) as another:
                equal(content[:10], another[:], "a view that the parent makes afterwards")
            file.flush()
            buffer.release()
            file.close()
            view.close()
            equal((False, False), (file.mapped, view.mapped), "mapped in the parent")
        if subject.shared:
            equal(
                content[GRANULARITY + 50] ^ 0xFF,
                path.read_bytes()[GRANULARITY + 50],
                "what the child wrote",
            )
        for descriptor in (to_child, from_parent, to_parent, from_child):
            os.close(descriptor)
