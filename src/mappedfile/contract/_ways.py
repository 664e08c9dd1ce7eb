"""B · Binary streams. A · Arrays."""

from __future__ import annotations

import errno
import io
import os
from typing import TYPE_CHECKING

from mappedfile import GRANULARITY, PAGE_SIZE, MappingFault, capabilities
from mappedfile.contract import _probe
from mappedfile.contract._children import in_child
from mappedfile.contract._clauses import (
    SHARED_WRITABLE,
    WRITABLE,
    NotHere,
    clause,
    equal,
    raises,
    true,
)
from mappedfile.contract._lifetime import pattern

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from mappedfile.contract._subjects import Subject

LINES = (
    b"".join(
        b"%d,%s\n" % (number, b"x" * (number % 90)) for number in range(400 + GRANULARITY // 20)
    )
    + b"the last"
)


@clause("B1")
def B1(subject: Subject, folder: Path) -> None:
    """A stream reads like a file: `read`, `readline` and iteration from its position on, `seek` and
    `tell`. At the end it gives no bytes."""
    with subject.create(folder / "file", LINES) as mapped:
        stream = mapped.stream()
        model = io.BytesIO(LINES)
        for size in (0, 1, 7, PAGE_SIZE, 3 * PAGE_SIZE + 1):
            equal(model.read(size), stream.read(size), f"read({size})")
            equal(model.readline(), stream.readline(), "readline()")
            equal(model.tell(), stream.tell(), "tell()")
        for offset, whence in (
            (3, 0),
            (GRANULARITY + 1, 0),
            (-2, 1),
            (5, 1),
            (-9, 2),
            (0, 2),
            (0, 0),
        ):
            model.seek(offset, whence)
            stream.seek(offset, whence)
            equal(model.tell(), stream.tell(), f"tell() after seek({offset}, {whence})")
            equal(model.read(10), stream.read(10), f"read(10) after seek({offset}, {whence})")
        stream.seek(0)
        true(
            list(model.getvalue().splitlines(keepends=True)) == list(iter(stream.readline, b"")),
            "its lines are the file's",
        )
        equal((b"", b""), (stream.read(), stream.readline()), "reading at the end")
        with raises(ValueError, "seek(-1)"):
            stream.seek(-1)


@clause("B2")
def B2(subject: Subject, folder: Path) -> None:
    """A stream is an `io.BufferedIOBase` with its own position, on all or a part of a mapped file
    or a view. Code that reads or writes binary files accepts it. It has no descriptor. Its
    `truncate` changes the size of a file only if the stream grows the file."""
    with subject.create(folder / "file", LINES) as mapped, mapped.view(3, PAGE_SIZE) as view:
        first, second, part = mapped.stream(), mapped.stream(), view.stream(5, 100)
        for stream in (first, second, part):
            true(isinstance(stream, io.BufferedIOBase), f"{stream!r} is an io.BufferedIOBase")
            equal(
                (True, subject.writable, True),
                (stream.readable(), stream.writable(), stream.seekable()),
                "what it can",
            )
            for refused in (stream.fileno, stream.truncate, stream.detach):
                with raises(io.UnsupportedOperation, f"{refused}"):
                    refused()
        first.read(10)
        equal((10, 0, 0), (first.tell(), second.tell(), part.tell()), "positions of three streams")
        equal(LINES[8:108], part.read(), "a stream on a part of a view")
        reader = io.TextIOWrapper(io.BufferedReader(second), "ascii", newline="")
        true(
            reader.read() == LINES.decode("ascii"),
            "what a TextIOWrapper on a BufferedReader on it reads is the file",
        )
        for wrong in ((len(LINES) + 1,), (-1,), (0, len(LINES) + 1), (3, len(LINES) - 2)):
            with raises(ValueError, f"stream{wrong}"):
                mapped.stream(*wrong)
        reader.detach().detach()
        for stream in (first, second, part):
            stream.close()
            stream.close()
            with raises(ValueError, "read() of a closed stream"):
                stream.read()
        equal(LINES[:5], mapped[:5], "the window, after its streams are closed")


@clause("B3", modes=WRITABLE)
def B3(subject: Subject, folder: Path) -> None:
    """A write to a stream changes the window at once, and the file if the window is shared. At the
    end of the window the part that fits is written, the position is at the end, and an
    `OSError(ENOSPC)`, as of a full device, says how much was written."""
    path = folder / "file"
    with subject.create(path, pattern(PAGE_SIZE)) as mapped:
        with mapped.stream(10, 20) as stream:
            equal(5, stream.write(b"01234"), "what write() returns")
            equal(b"01234", mapped[10:15], "the window")
            equal(
                b"01234" if subject.shared else pattern(PAGE_SIZE)[10:15],
                path.read_bytes()[10:15],
                "the file",
            )
            stream.seek(-2, 2)
            with raises(OSError, "write() of 5 bytes where 2 have room") as caught:
                stream.write(b"abcde")
            equal(
                (errno.ENOSPC, 2),
                (caught.error.errno, caught.error.characters_written),
                "the error",
            )
            equal(str(path), str(caught.error.filename), "the file name of the error")
            equal(20, stream.tell(), "the position")
            equal(b"ab" + pattern(PAGE_SIZE)[30:33], mapped[28:33], "the bytes around the end")
        equal(PAGE_SIZE, path.stat().st_size, "the size of the file")


@clause("B4", modes=SHARED_WRITABLE)
def B4(subject: Subject, folder: Path) -> None:
    """A write past the end of `stream(grow=True)` grows the file: after each write the file is
    exactly that long, and mapped. New bytes that were skipped are zero. Views, buffers and other
    streams are unchanged. Only a file that can be resized grows. After the file is closed, such a
    write is a `ValueError` and writes nothing. `truncate` sets the size both ways, where `resize`
    would."""
    path = folder / "file"
    mapped = subject.create(path, b"")
    model = bytearray()
    with mapped.stream(grow=True) as stream:
        for number in range(100):
            stream.write(b"%d\n" % number * number)
            model += b"%d\n" % number * number
            equal(
                (len(model), len(model)),
                (len(mapped), path.stat().st_size),
                "the length and the size of the file",
            )
        view, steady = mapped.view(5), mapped.stream()
        stream.seek(len(model) + PAGE_SIZE)
        stream.write(b"further")
        model += bytes(PAGE_SIZE) + b"further"
        true(model == mapped[:], "the window has what was written")
        true(model[5 : 5 + len(view)] == view[:], "a view has its bytes")
        true(steady.read() == model[: -PAGE_SIZE - 7], "another stream has its bytes")
        stream.seek(0)
        true(model == stream.read(), "the stream itself has all")
        with raises(BufferError, "truncate() with a view and a stream alive"):
            stream.truncate(10)
        steady.close()
        view.close()
        del model[-5:]
        equal(len(model), stream.truncate(len(model)), "what truncate() returns")
        equal(
            (len(model), len(model)),
            (len(mapped), path.stat().st_size),
            "the length and the size of a file that was cut",
        )
        stream.truncate(len(model) + 3)
        model += bytes(3)
        true(model == mapped[:], "the window has zeros where it was made longer")
        mapped.close()
        with raises(ValueError, "write() past the end of a file that is closed", says="clos"):
            stream.write(b"x")
    true(model == path.read_bytes(), "the file has what was written")


@clause("B5")
def B5(subject: Subject, folder: Path) -> None:
    """A stream keeps its memory like a buffer, and counts as one: `close(strict=True)` reports it
    as alive, it works after its owner is closed, and the memory is unmapped when the last stream is
    closed or gone."""
    mapped = subject.create(folder / "file", LINES)
    view = mapped.view(GRANULARITY // 2, PAGE_SIZE)
    first, second = mapped.stream(), view.stream()
    address = _probe.address_of(view.data)
    with raises(BufferError, "close(strict=True) with streams alive", says="2 buffers"):
        mapped.close(strict=True)
    view.close()
    mapped.close()
    true(view.mapped, "the view stays mapped for its stream")
    equal(LINES[GRANULARITY // 2 :][:PAGE_SIZE], second.read(), "the stream of a closed view")
    true(first.read() == LINES, "the stream of a closed file")
    if subject.writable:
        first.seek(1)
        first.write(b"written")
        first.seek(1)
        equal(b"written", first.read(7), "what is written through it then")
    second.close()
    equal(False, view.mapped, "view.mapped after its stream is closed")
    true(not _probe.is_mapped(address, PAGE_SIZE), "its memory is unmapped")
    del first
    equal(False, mapped.mapped, "mapped after its stream is gone")


@clause("B6")
def B6(subject: Subject, folder: Path) -> None:
    """A stream raises `MappingFault` when it meets bytes that are gone, and its position is
    unchanged."""
    if not capabilities().truncate_mapped:
        raise NotHere("this system does not truncate mapped files")
    in_child(read_what_is_gone, subject, folder)  # it may die


def read_what_is_gone(subject: Subject, folder: Path) -> None:
    """B6, in a separate process."""
    path = folder / "file"
    with (
        subject.create(path, pattern(3 * PAGE_SIZE).replace(b"\n", b"-")) as mapped,
        mapped.stream() as stream,
    ):
        os.truncate(path, PAGE_SIZE)
        equal(PAGE_SIZE, len(stream.read(PAGE_SIZE)), "bytes read of what is there")
        calls = [
            lambda: stream.read(5),
            lambda: stream.readinto(bytearray(5)),
            stream.readline,
            lambda: next(stream),
        ]
        if subject.writable:
            calls.append(lambda: stream.write(b"12345"))
        for call in calls:
            with raises(MappingFault, "a stream on bytes that are gone"):
                call()
            equal(PAGE_SIZE, stream.tell(), "the position after that")
        stream.seek(0)
        equal(3, len(stream.read(3)), "bytes read of what is there, after all that")


def numpy() -> ModuleType:
    """Return NumPy, if it is installed."""
    try:
        import numpy
    except ImportError:
        raise NotHere("NumPy is not installed") from None
    return numpy


@clause("A1")
def A1(subject: Subject, folder: Path) -> None:
    """`array()` is a NumPy array on the memory, at any byte offset: array and window see one
    another's writes. The array of a read-only window is read-only, and cannot be made writeable."""
    np = numpy()
    content = pattern(PAGE_SIZE)
    with subject.create(folder / "file", content) as mapped, mapped.view(1, 40) as view:
        for window, first in ((mapped, 0), (view, 1)):
            for dtype, shape, offset in (
                ("u1", None, 0),
                ("<u4", (2, 3), 3),
                ("<f8", -1, len(window) % 8),
                ([("a", "u1"), ("b", ">i8")], 2, 1),
            ):
                array = window.array(dtype, shape, offset)
                start = first + offset
                equal(
                    content[start : start + array.nbytes],
                    array.tobytes(),
                    f"the bytes of {dtype}, {shape}, {offset}",
                )
                equal(subject.writable, array.flags.writeable, "flags.writeable")
                if not subject.writable:
                    for one in (array, array[:1], np.asarray(array.base)):
                        with raises(ValueError, "flags.writeable = True"):
                            one.flags.writeable = True
                del array
        array = (
            mapped.array("<u2", (2, -1), 2, "F")
            if PAGE_SIZE % 4
            else mapped.array("<u2", (3, -1), PAGE_SIZE - 12, "F")
        )
        true(array.flags.f_contiguous, "an array in Fortran's order")
        if subject.writable:
            array[0, 0] = 0x4142
            equal(
                b"BA",
                mapped[PAGE_SIZE - 12 : PAGE_SIZE - 10],
                "the bytes of the window after a write to the array",
            )
            mapped[PAGE_SIZE - 12] = 0x43
            equal(0x4143, int(array[0, 0]), "what the array has of what was written to the window")
        del array


@clause("A2")
def A2(subject: Subject, folder: Path) -> None:
    """An array that reaches outside the window is a `ValueError`. So is one that reaches to the
    end, if the bytes are not a whole number of items. An array of Python objects is a `TypeError`.
    An empty file gives an empty array."""
    numpy()
    with subject.create(folder / "file", pattern(100)) as mapped:
        for wrong in (
            (101,),
            ("<f8",),
            ("<f8", 13),
            ("u1", 1, 100),
            ("u1", None, 101),
            ("u1", None, -1),
            ("u1", (-1, 3)),
            ("u1", (-1, -1)),
        ):
            with raises(
                (ValueError, TypeError) if wrong == (101,) else ValueError, f"array{wrong}"
            ):
                mapped.array(*wrong)
        for objects in (object, [("a", "u1"), ("b", "O")]):
            with raises(TypeError, f"array({objects})"):
                mapped.array(objects)
        equal((0,), mapped.array("<f8", None, 100).shape, "the shape of an array at the end")
    with subject.create(folder / "empty", b"") as mapped:
        equal(
            ((0,), (0, 3)),
            (mapped.array("<f8").shape, mapped.array("<f8", (-1, 3)).shape),
            "shapes of arrays on an empty file",
        )


@clause("A3")
def A3(subject: Subject, folder: Path) -> None:
    """An array keeps its memory like every buffer, whatever is closed meanwhile. So does everything
    made from the array."""
    numpy()
    content = pattern(2 * PAGE_SIZE)
    mapped = subject.create(folder / "file", content)
    view = mapped.view(7, PAGE_SIZE)
    array = view.array("u1", (2, -1))
    with raises(BufferError, "close(strict=True) with an array alive", says="1 buffer"):
        view.close(strict=True)
    if subject.shared:
        mapped.resize(4 * PAGE_SIZE)
    view.close()
    mapped.close()
    part = array[1, 3:]
    del array
    equal(True, view.mapped, "mapped while a slice of the array is alive")
    start = 7 + PAGE_SIZE // 2 + 3
    equal(content[start : 7 + PAGE_SIZE], part.tobytes(), "the bytes of the slice")
    del part
    equal(False, view.mapped, "mapped when it has gone")
