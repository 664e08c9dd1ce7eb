"""C · Coherence."""

from __future__ import annotations

import ctypes
import io
import os
import pickle
import random
import struct
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mappedfile import GRANULARITY, PAGE_SIZE
from mappedfile.contract._children import SECONDS, Child, say
from mappedfile.contract._clauses import Broken, clause, equal, raises, true
from mappedfile.contract._lifetime import own_buffers, pattern

if TYPE_CHECKING:
    from collections.abc import Callable

    from mappedfile.contract._subjects import Subject

SHARED = ("r", "r+", "w+", "x+")
SIZE = GRANULARITY + 3 * PAGE_SIZE + 100


@clause("C1", modes=SHARED)
def C1(subject: Subject, folder: Path) -> None:
    """Shared views, of one mapped file or of several on the same file, see one another's writes at
    once."""
    model = bytearray(pattern(SIZE))
    path = folder / "file"
    with ExitStack() as stack:
        first = stack.enter_context(subject.create(path, bytes(model)))
        second = stack.enter_context(subject.open(path, "r+"))
        reader = stack.enter_context(subject.open(path, "r"))
        files = {
            "the file": (first, 0),
            "another mapped file": (second, 0),
            "a read-only mapped file": (reader, 0),
        }
        windows = dict(files)
        for name, (file, _) in files.items():
            windows[f"a view of {name}"] = stack.enter_context(file.view(GRANULARITY)), GRANULARITY
            windows[f"a view of a part of {name}"] = (
                stack.enter_context(file.view(0, GRANULARITY + 5)),
                0,
            )
        buffers = {
            name: (stack.enter_context(window.data), start)
            for name, (window, start) in windows.items()
        }
        everybody = {**windows, **{f"a buffer of {name}": pair for name, pair in buffers.items()}}
        writers = {name: pair for name, pair in everybody.items() if not is_readonly(pair[0])}
        true(len(writers) >= 6, "there is somebody to write")

        chance = random.Random(1)
        for number in range(3 * len(writers)):
            name, (writer, start) = list(writers.items())[number % len(writers)]
            at = chance.choice(
                [
                    start,
                    start + len(writer) - 9,
                    GRANULARITY - 4,
                    chance.randrange(start, start + len(writer) - 9),
                ]
            )
            at = max(at, start)
            new = chance.randbytes(9)[: start + len(writer) - at]
            writer[at - start : at - start + len(new)] = model[at : at + len(new)] = new
            for seer, (window, begin) in everybody.items():
                low, high = max(at, begin), min(at + len(new), begin + len(window))
                if low < high:
                    equal(
                        bytes(model[low:high]),
                        bytes(window[low - begin : high - begin]),
                        f"what {seer} sees of {name}'s write",
                    )
        for seer, (window, begin) in everybody.items():
            equal(
                bytes(model[begin : begin + len(window)]),
                bytes(window[:]),
                f"everything that {seer} sees",
            )
        del buffers, everybody, writers, writer, window
    equal(bytes(model), path.read_bytes(), "the bytes of the file")


def is_readonly(window: Any) -> bool:
    """Whether a window or a buffer is read-only."""
    return bool(window.readonly)


# C2: both processes take turns, through the map alone. Byte 0 is the last turn that the parent has
# written, byte 1 that of the child.

_TURNS = 40


@clause("C2", modes=SHARED)
def C2(subject: Subject, folder: Path) -> None:
    """Shared views in different processes see one another's writes at once."""
    path = folder / "file"
    with ExitStack() as stack:
        mine = stack.enter_context(subject.create(path, bytes(SIZE)))
        writer = stack.enter_context(subject.open(path, "r+"))
        view = stack.enter_context(mine.view(GRANULARITY, 100))
        child = stack.enter_context(Child(take_turns, subject, folder))
        equal("ready", child.hear(), "what the child says first")
        hand = mine if subject.writable else writer
        for turn in range(1, _TURNS + 1):
            hand[GRANULARITY + 10 : GRANULARITY + 18] = b"parent%2d" % turn
            hand[0] = turn
            until = time.monotonic() + SECONDS
            while mine[1] != turn:  # no sleep: a write is visible at once
                if time.monotonic() > until:
                    raise Broken(
                        f"the write of another process was not seen within {SECONDS} seconds"
                        f" (turn {turn})"
                    )
            equal(
                b"child %2d" % turn,
                view[20:28],
                f"what a view sees of another process in turn {turn}",
            )
            equal(
                b"child %2d" % turn,
                mine[GRANULARITY + 20 : GRANULARITY + 28],
                f"what the file sees in turn {turn}",
            )
        child.end()


def take_turns(subject: Subject, folder: Path) -> None:
    """C2: the other process."""
    with subject.open(folder / "file", "r+") as mine, mine.view(GRANULARITY, 100) as view:
        say("ready")
        for turn in range(1, _TURNS + 1):
            until = time.monotonic() + SECONDS
            while mine[0] != turn:
                if time.monotonic() > until:
                    raise Broken(
                        f"the parent's write was not seen within {SECONDS} seconds (turn {turn})"
                    )
            equal(b"parent%2d" % turn, view[10:18], f"what a child's view sees in turn {turn}")
            view[20:28] = b"child %2d" % turn
            mine[1] = turn


@clause("C3", modes=SHARED)
def C3(subject: Subject, folder: Path) -> None:
    """Shared views and `read()` and `write()` on the file see one another's writes at once (local
    file systems)."""
    model = bytearray(pattern(SIZE))
    path = folder / "file"
    chance = random.Random(3)
    with (
        subject.create(path, bytes(model)) as mapped,
        mapped.view(GRANULARITY) as view,
        open(path, "r+b", buffering=0) as file,
    ):
        mapped[0], view[0]
        for number in range(40):
            at = chance.choice(
                [0, GRANULARITY - 4, GRANULARITY, SIZE - 8, chance.randrange(SIZE - 8)]
            )
            new = b"%8d" % number
            if number % 2 or not subject.writable:
                file.seek(at)
                equal(8, file.write(new), "what write() returns")
            elif at >= GRANULARITY:
                view[at - GRANULARITY : at - GRANULARITY + 8] = new
            else:
                mapped[at : at + 8] = new
            model[at : at + 8] = new
            equal(new, mapped[at : at + 8], "what the mapped file sees of a write")
            if at >= GRANULARITY:
                equal(
                    new,
                    view[at - GRANULARITY : at - GRANULARITY + 8],
                    "what a view sees of a write",
                )
            file.seek(at)
            equal(new, file.read(8), "what read() sees of a write")
        file.seek(0)
        equal(bytes(model), file.read(), "everything that read() sees")
        equal(bytes(model), mapped[:], "everything that the mapped file sees")
        equal(bytes(model[GRANULARITY:]), view[:], "everything that a view sees")


@clause("C4", modes=("c",))
def C4(subject: Subject, folder: Path) -> None:
    """Mode `"c"` is private: a write reaches neither the file nor any other view, flushed or
    not."""
    content = pattern(SIZE)
    for writer in ("file", "view"):
        path = folder / writer
        with ExitStack() as stack:
            file = stack.enter_context(subject.create(path, content))
            windows = {
                "file": (file, 0),
                "view": (stack.enter_context(file.view(GRANULARITY)), GRANULARITY),
            }
            window, start = windows.pop(writer)
            others = {
                **windows,
                "other private file": (stack.enter_context(subject.open(path, "c")), 0),
                "other shared file": (stack.enter_context(subject.open(path, "r")), 0),
            }
            window[0] = content[start] ^ 0xFF
            window[10:20] = b"my own ten"
            with window.data as data:
                data[PAGE_SIZE : PAGE_SIZE + 4] = b"mine"
            own = window[:]
            for when in ("before flush()", "after flush(durable=False)", "after flush()"):
                if when != "before flush()":
                    equal(
                        None, window.flush(durable=when == "after flush()"), "what flush() returns"
                    )
                equal(
                    (content[start] ^ 0xFF, b"my own ten"), (own[0], own[10:20]), "what was written"
                )
                equal(b"mine", own[PAGE_SIZE : PAGE_SIZE + 4], "what was written through a buffer")
                equal(own, window[:], f"what the writer reads {when}")
                equal(content, path.read_bytes(), f"the file {when}")
                for name, (other, begin) in others.items():
                    equal(content[begin:], other[:], f"what the {name} sees {when}")
                with file.view(0, GRANULARITY) as new:
                    equal(content[:GRANULARITY], new[:], f"what a new view sees {when}")
        equal(content, path.read_bytes(), "the file after everything was closed")


@clause("C5", modes=("r",))
def C5(subject: Subject, folder: Path) -> None:
    """In mode `"r"` the bytes cannot be written in any way: item and slice assignment raise
    `TypeError`, buffers are read-only, and NumPy arrays on them are not writeable."""
    content = pattern(SIZE)
    path = folder / "file"
    source = folder / "source"
    source.write_bytes(b"\xff" * 100)
    with subject.create(path, content) as file, file.view(GRANULARITY, PAGE_SIZE) as view:
        for window in (file, view):
            equal(True, window.readonly, "readonly")
            kind = type(window).__name__
            for key, value in (
                (0, 1),
                (-1, 1),
                (slice(0, 2), b".."),
                (slice(0, 4, 2), b".."),
                (slice(0, 0), b""),
            ):
                with raises(TypeError, f"[{key}] = {value!r} of a read-only {kind}"):
                    window[key] = value
            # No with statements around buffers: if a check fails, their end would raise another
            # error, about buffers that are alive.
            data = window.data
            for name, buffer in derived(data).items():
                what = f"{name} of a read-only {kind}"
                equal(True, buffer.readonly, f"readonly of {what}")
                for door, push in doors(buffer, source).items():
                    with raises((TypeError, ValueError, BufferError), f"{door} into {what}"):
                        push()
                    del push
            through_numpy(data, kind)
            del buffer, data
            if own_buffers(window):
                for door, push in doors(window, source).items():
                    with raises(
                        (TypeError, ValueError, BufferError),
                        f"{door} into a read-only {kind} itself",
                    ):
                        push()
                    del push
                data = memoryview(window)
                equal(True, data.readonly, f"readonly of memoryview() of a {kind}")
                for link in owners(data):
                    equal(True, link.readonly, "readonly of what .obj leads to")
                    del link
                through_numpy(window, kind)
                del data
        equal(content, file[:], "the bytes of the mapped file")
    equal(content, path.read_bytes(), "the bytes of the file")


def derived(data: memoryview) -> dict[str, memoryview]:
    """Return objects made from a buffer that might be writable, by name."""
    return {
        "the buffer": data,
        "a slice": data[4:40],
        "a slice of a slice": data[4:][:60],
        "a cast": data[:64].cast("H"),
        "a cast in two dimensions": data[:64].cast("B", (8, 8)),
        "a cast of a cast": data[:64].cast("I").cast("B"),
        "toreadonly()": data.toreadonly(),
        "a memoryview of it": memoryview(data),
        "a PickleBuffer of it": pickle.PickleBuffer(data).raw(),
    }


def doors(buffer: Any, source: Path) -> dict[str, Callable[[], Any]]:
    """Return calls that write into a given buffer, by name."""

    def read_into() -> None:
        with open(source, "rb", buffering=0) as file:
            file.readinto(buffer)

    def read_vector() -> None:
        with open(source, "rb", buffering=0) as file:
            os.readv(file.fileno(), [buffer])

    every: dict[str, Callable[[], Any]] = {
        "struct.pack_into": lambda: struct.pack_into("B", buffer, 0, 255),
        "ctypes from_buffer": lambda: (ctypes.c_char * 4).from_buffer(buffer),
        "readinto of a file": read_into,
        "readinto of BytesIO": lambda: io.BytesIO(b"\xff" * 4).readinto(buffer),
    }
    if isinstance(buffer, memoryview):
        every["item assignment"] = lambda: buffer.__setitem__(
            0 if buffer.ndim == 1 else (0, 0), 255
        )
        every["slice assignment"] = lambda: buffer.__setitem__(slice(0, 2), buffer[2:4])
    if hasattr(os, "readv"):
        every["os.readv"] = read_vector
    return every


def through_numpy(buffer: Any, kind: str) -> None:
    """C5: NumPy arrays on a read-only buffer."""
    with suppress(ImportError):
        import numpy as np

        for name, array in {
            "frombuffer": np.frombuffer(buffer, "u1"),
            "asarray": np.asarray(memoryview(buffer)),
            "a view of frombuffer": np.frombuffer(buffer, "u1")[3:].view(),
            "ndarray": np.ndarray((10,), "u1", buffer),
        }.items():
            what = f"{name} of a read-only {kind}"
            equal(False, array.flags.writeable, f"writeable of {what}")
            with raises(ValueError, f"an assignment to {what}"):
                array[0] = 1
            with raises(ValueError, f"flags.writeable = True of {what}"):
                array.flags.writeable = True
            with raises(ValueError, f"setflags(write=True) of {what}"):
                array.setflags(write=True)
            with raises((TypeError, ValueError), f"from_buffer() of {what}"):
                (ctypes.c_char * 4).from_buffer(array)
        del array


def owners(data: memoryview) -> list[memoryview]:
    """Follow .obj while it exports a buffer."""
    found: list[memoryview] = []
    owner = data.obj
    while owner is not None and len(found) < 10:
        try:
            link = memoryview(owner)
        except TypeError:
            break
        found.append(link)
        owner = link.obj if link.obj is not owner else None
    return found
