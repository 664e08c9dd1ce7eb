"""Streams and arrays, against mmap, files and NumPy."""

from __future__ import annotations

import io
import mmap
import random
import time
import zipfile
from typing import TYPE_CHECKING, Any

from mappedfile import MappedFile

from .harness import NotHere, Samples, Setting, row, steps

if TYPE_CHECKING:
    from .harness import Steps

MIB = 1 << 20
LINE = b"x" * 44 + b"\n"


def numpy() -> Any:
    try:
        import numpy
    except ImportError:
        raise NotHere("NumPy is not installed") from None
    return numpy


def lines(at: Setting, peer: str) -> Samples:
    number = at.pick(200_000, 20_000)
    path = at.file(number * len(LINE), LINE)
    with (
        open(path, "rb") as f,
        mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as m,
        MappedFile(path) as w,
    ):

        def through(each: Any) -> float:
            start = time.perf_counter_ns()
            for _ in each:
                pass
            return float(time.perf_counter_ns() - start)

        def of_peer() -> float:
            if peer == "mmap":
                m.seek(0)
                return through(iter(m.readline, b""))
            with open(path, "rb") as file:
                return through(file)

        return at.alternate(of_peer, lambda: through(w.stream()), at.pick(40, 10))


@row(
    "lines-mmap", "for line in w.stream(), 200,000 lines of 45 bytes", "iter(m.readline, b'')", 1.0
)
def lines_mmap(at: Setting) -> Samples:
    return lines(at, "mmap")


@row(
    "lines-file",
    "for line in w.stream(), 200,000 lines of 45 bytes",
    "for line in open(path, 'rb')",
    1.0,
)
def lines_file(at: Setting) -> Samples:
    return lines(at, "file")


@row("stream-read", "s.read(64)", "m.read(64)", 1.1)
def reading(at: Setting) -> Samples:
    path = at.file(MIB)
    with (
        open(path, "rb") as f,
        mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as m,
        MappedFile(path) as w,
    ):
        names = {"m": m, "s": w.stream()}
        each = "for _ in range(1000): {}.read(64)\n{}.seek(0)"
        return at.compare(each.format("m", "m"), each.format("s", "s"), names)


@reading.profile
def _(at: Setting) -> Steps:
    with MappedFile(at.file(MIB)) as w:
        names = {"s": w.stream(), "w": w, "b": bytearray(64)}
        yield from steps(
            at,
            names,
            ("stream(), close()", "w.stream().close()"),
            ("seek(0)", "s.seek(0)"),
            ("read(64), at the start", "s.seek(0); s.read(64)"),
            ("read(0)", "s.read(0)"),
            ("tell()", "s.tell()"),
            ("a slice of 64 bytes", "w[0:64]"),
        )


@row("stream-readinto", "s.readinto(buffer of 64)", "BufferedReader.readinto", 1.1)
def reading_into(at: Setting) -> Samples:
    path = at.file(MIB)
    with open(path, "rb") as f, MappedFile(path) as w:
        names = {"f": f, "s": w.stream(), "b": bytearray(64)}
        each = "for _ in range(1000): {}.readinto(b)\n{}.seek(0)"
        return at.compare(each.format("f", "f"), each.format("s", "s"), names)


@row("zip", "zipfile on w.stream(), 1,000 members read", "zipfile on open(path, 'rb')", 1.0)
def reading_members(at: Setting) -> Samples:
    path = at.folder / "archive.zip"
    number = at.pick(1000, 100)
    content = random.Random(5)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for place in range(number):
            out.writestr(f"member {place}", bytes(content.choices(b"some text \n", k=3000)))

    def read(source: Any) -> float:
        start = time.perf_counter_ns()
        with zipfile.ZipFile(source) as archive:
            for name in archive.namelist():
                archive.read(name)
        return float(time.perf_counter_ns() - start)

    def of_peer() -> float:
        with open(path, "rb") as file:
            return read(file)

    def ours() -> float:
        with MappedFile(path) as file, file.stream() as stream:
            return read(stream)

    return at.alternate(of_peer, ours, at.pick(40, 10))


@row(
    "append-stream",
    "append 45 bytes: stream(grow=True).write",
    "open(path, 'ab', buffering=0).write",
    None,
)
def appending(at: Setting) -> Samples:
    other = open(at.folder / "other", "ab", buffering=0)  # noqa: SIM115
    with other, MappedFile(at.folder / "file", "w+", size=0) as w, w.stream(grow=True) as s:
        return at.compare(
            "f.write(line)",
            "s.write(line)",
            {"f": other, "s": s, "line": LINE},
            turns=at.pick(60, 12),
        )


@row("append-buffered", "the same with an io.BufferedWriter on it", "open(path, 'ab').write", None)
def appending_buffered(at: Setting) -> Samples:
    other = open(at.folder / "other", "ab")  # noqa: SIM115
    with (
        other,
        MappedFile(at.folder / "file", "w+", size=0) as w,
        io.BufferedWriter(w.stream(grow=True)) as s,
    ):
        return at.compare(
            "f.write(line)",
            "s.write(line)",
            {"f": other, "s": s, "line": LINE},
            turns=at.pick(60, 12),
        )


def arrays(at: Setting, peer: str) -> Samples:
    np = numpy()
    path = at.file(MIB)
    with open(path, "r+b") as f, mmap.mmap(f.fileno(), 0) as m, MappedFile(path, "r+") as w:
        names = {"m": m, "w": w, "np": np, "path": str(path)}
        return at.compare(peer, "w.array('<f4')", names)


@row("array", "w.array('<f4')", "np.frombuffer(m, '<f4')", 3.0)
def making_arrays(at: Setting) -> Samples:
    return arrays(at, "np.frombuffer(m, '<f4')")


@row("array-memmap", "w.array('<f4')", "np.memmap(path, '<f4', 'r+')", 0.2)
def making_memmaps(at: Setting) -> Samples:
    return arrays(at, "np.memmap(path, '<f4', 'r+')")
