"""Opening, viewing, reading, searching and importing, against the standard library's mmap."""

from __future__ import annotations

import compileall
import importlib
import mmap
import os
import random
import statistics
import struct
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mappedfile
from mappedfile import MappedFile

from .harness import NotHere, Samples, Setting, child, frames, row, steps

if TYPE_CHECKING:
    from .harness import Steps

PAGE = 4096
MIB = 1 << 20

# Opening and viewing


@row("open", "MappedFile(path, 'r+'), first byte, close", "open(), mmap.mmap(), ...", 0.85)
def opening(at: Setting) -> Samples:
    names = {"path": str(at.file(MIB)), "MappedFile": MappedFile, "mmap": mmap.mmap}
    return at.compare(
        "f = open(path, 'r+b'); m = mmap(f.fileno(), 0); m[0]; m.close(); f.close()",
        "w = MappedFile(path, 'r+'); w[0]; w.close()",
        names,
    )


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise NotHere(f"{name} is not installed") from error


@row(
    "open-arrow",
    "MappedFile(path), first byte, close",
    "pyarrow.memory_map(path), read_buffer(1), close",
    1.0,
)
def opening_arrow(at: Setting) -> Samples:
    names = {
        "path": str(at.file(MIB)),
        "MappedFile": MappedFile,
        "memory_map": _module("pyarrow").memory_map,
    }
    return at.compare(
        "m = memory_map(path); m.read_buffer(1); m.close()",
        "w = MappedFile(path); w[0]; w.close()",
        names,
    )


@row(
    "open-buffer",
    "MappedFile(path), w.data, close: no page is touched",
    "pyarrow.memory_map(path), read_buffer(1), close: likewise",
    1.0,
)
def opening_buffer(at: Setting) -> Samples:
    arrow = _module("pyarrow").memory_map
    names = {"path": str(at.file(MIB)), "MappedFile": MappedFile, "memory_map": arrow}
    return at.compare(
        "m = memory_map(path); b = m.read_buffer(1); m.close(); del b",
        "w = MappedFile(path); b = w.data; w.close(); del b",
        names,
    )


@row("open-memmap", "MappedFile(path), first byte, close", "np.memmap(path), first byte, gone", 0.4)
def opening_memmap(at: Setting) -> Samples:
    names = {"path": str(at.file(MIB)), "MappedFile": MappedFile, "memmap": _module("numpy").memmap}
    return at.compare(
        "m = memmap(path, mode='r'); m[0]; del m", "w = MappedFile(path); w[0]; w.close()", names
    )


@opening.profile
def _(at: Setting) -> Steps:
    path = str(at.file(MIB))
    whole = MappedFile(path, "r+")
    whole[0]
    names = {"path": path, "MappedFile": MappedFile, "mmap": mmap.mmap, "os": os, "whole": whole}
    names["fd"] = os.open(path, os.O_RDWR)
    yield from steps(
        at,
        names,
        ("peer: all", "f = open(path, 'r+b'); m = mmap(f.fileno(), 0); m[0]; m.close(); f.close()"),
        ("peer: open(), close()", "f = open(path, 'r+b'); f.close()"),
        ("peer: mmap.mmap, first byte, close()", "m = mmap(fd, 0); m[0]; m.close()"),
        (
            "peer, lean: os.open, mmap.mmap, ..., os.close",
            "f = os.open(path, 2); m = mmap(f, 0); m[0]; m.close(); os.close(f)",
        ),
        ("ours: all", "w = MappedFile(path, 'r+'); w[0]; w.close()"),
        ("ours: without a first byte", "w = MappedFile(path, 'r+'); w.close()"),
        ("ours: first byte, when mapped", "whole[0]"),
        ("os.open, os.close: the system's part of opening", "f = os.open(path, 2); os.close(f)"),
    )
    yield from frames(lambda: _open_and_close(path))


def _open_and_close(path: str) -> None:
    w = MappedFile(path, "r+")
    w[0]
    w.close()


@row("view", "view(off, 4096), first byte, close", "mmap.mmap(fd, 4096, offset=off), ...", 1.0)
def viewing(at: Setting) -> Samples:
    with open(at.file(MIB), "r+b") as f, MappedFile(f, "r+") as file:
        names = {"fd": f.fileno(), "file": file, "off": 17 * PAGE, "mmap": mmap.mmap}
        return at.compare(
            "m = mmap(fd, 4096, offset=off); m[0]; m.close()",
            "w = file.view(off, 4096); w[0]; w.close()",
            names,
        )


@viewing.profile
def _(at: Setting) -> Steps:
    path = at.file(MIB)
    whole = MappedFile(path, "r+")
    names = {
        "fd": os.open(path, os.O_RDWR),
        "whole": whole,
        "off": 17 * PAGE,
        "odd": 17 * PAGE + 3,
        "mmap": mmap.mmap,
    }
    yield from steps(
        at,
        names,
        ("peer: all", "m = mmap(fd, 4096, offset=off); m[0]; m.close()"),
        ("peer: without first byte", "m = mmap(fd, 4096, offset=off); m.close()"),
        ("ours: all", "w = whole.view(off, 4096); w[0]; w.close()"),
        ("ours: without first byte", "w = whole.view(off, 4096); w.close()"),
        ("ours: at an odd offset", "w = whole.view(odd, 4096); w[0]; w.close()"),
    )

    def operation() -> None:
        w = whole.view(17 * PAGE, PAGE)
        w[0]
        w.close()

    yield from frames(operation)


# Reading


def _pair(at: Setting, size: int = 4 * MIB) -> dict[str, Any]:
    path = at.file(size, random.Random(1).randbytes(MIB))
    with open(path, "r+b") as f:
        m = mmap.mmap(f.fileno(), 0)
    w = MappedFile(path, "r+")
    assert m[:] == w[:]  # this also maps every page
    return {"m": m, "w": w, "d": w.data, "i": size // 2}


@row("item", "w[i]", "mmap[i]", 1.0)
def item(at: Setting) -> Samples:
    return at.compare("m[i]", "w[i]", _pair(at), loop=True)


@row("len", "len(w)", "len(mmap)", 1.1)
def length(at: Setting) -> Samples:
    return at.compare("len(m)", "len(w)", _pair(at), loop=True)


@row("memoryview", "memoryview(w)", "memoryview(mmap)", 1.3)
def view_of_it(at: Setting) -> Samples:
    return at.compare("memoryview(m)", "memoryview(w)", _pair(at), loop=True)


@row("data", "w.data", "memoryview(mmap)", 1.1)
def data(at: Setting) -> Samples:
    return at.compare("memoryview(m)", "w.data", _pair(at), loop=True)


@row("unpack", "struct.unpack_from('<I', w, 8)", "struct.unpack_from('<I', mmap, 8)", 1.15)
def unpack(at: Setting) -> Samples:
    return at.compare(
        "u('<I', m, 8)", "u('<I', w, 8)", _pair(at) | {"u": struct.unpack_from}, loop=True
    )


@row("slice-step", "w[a:b:2] of 4 KiB", "mmap[a:b:2]", 1.1)
def slice_step(at: Setting) -> Samples:
    return at.compare("m[0:4096:2]", "w[0:4096:2]", _pair(at), loop=True)


@row("flush", "w.flush(0, 4096) of a clean page", "mmap.flush(0, 4096)", 1.1)
def flush(at: Setting) -> Samples:
    return at.compare("m.flush(0, 4096)", "w.flush(0, 4096)", _pair(at), loop=True)


def _near(at: Setting) -> dict[str, Any]:
    """The end of a line, 43 bytes further."""
    names = _pair(at)
    at_, end = names["i"], names["i"] + 43
    names["m"][at_:end] = names["w"][at_:end] = b"." * 43
    names["m"][end] = names["w"][end] = 10
    return names


@row("find-near", r"w.find(b'\n', p), 43 bytes on", "mmap.find", 0.7)
def find_near(at: Setting) -> Samples:
    return at.compare(r"m.find(b'\n', i)", r"w.find(b'\n', i)", _near(at), loop=True)


@row("count-near", r"w.count(b'\n', p, p + 64)", "mmap.find of the same, twice", 0.7)
def count_near(at: Setting) -> Samples:
    peer = r"m.find(b'\n', i, i + 64); m.find(b'\n', i + 44, i + 64)"
    return at.compare(peer, r"w.count(b'\n', i, i + 64)", _near(at), loop=True)


@row("in-near", r"b'\n' in v, 43 bytes on", "mmap.find(...) >= 0", 0.7)
def in_near(at: Setting) -> Samples:
    names = _near(at)
    names["m"][:44] = names["w"][:44] = b"." * 43 + b"\n"
    return at.compare(r"m.find(b'\n') >= 0", r"b'\n' in w", names, loop=True)


@row("slice-64", "w[a:b], 64 bytes", "mmap[a:b]", 1.05)
def slice_64(at: Setting) -> Samples:
    return at.compare("m[a:b]", "w[a:b]", _pair(at) | {"a": 1000, "b": 1064}, loop=True)


@row("slice-1M", "w[a:b], 1 MiB", "mmap[a:b]", 1.05)
def slice_1m(at: Setting) -> Samples:
    return at.compare("m[a:b]", "w[a:b]", _pair(at) | {"a": 1000, "b": 1000 + MIB})


@slice_64.profile
@slice_1m.profile
def _(at: Setting) -> Steps:
    for size in (64, MIB):
        names = _pair(at) | {"a": 1000, "b": 1000 + size, "s": slice(1000, 1000 + size)}
        yield f"-- {size} bytes", 0.0
        yield from steps(
            at,
            names,
            ("mmap[a:b]", "m[a:b]"),
            ("w[a:b]", "w[a:b]"),
            ("w[s], the slice made before", "w[s]"),
            ("slice(a, b)", "slice(a, b)"),
            ("memoryview[a:b]", "d[a:b]"),
            ("bytes(memoryview[a:b])", "bytes(d[a:b])"),
        )
        yield from frames(partial(names["w"].__getitem__, names["s"]))


# Searching

_WORDS = (
    b"the of and to in that is was he for it with as his on be at by had not are but from or have"
).split()


def haystack(at: Setting, fill: str, size: int) -> Path:
    source = random.Random(2)
    path = at.folder / "haystack"
    with open(path, "wb") as file:
        for _ in range(size // (8 * MIB)):
            if fill == "random":
                chunk = source.randbytes(8 * MIB)
            elif fill == "text":
                chunk = b" ".join(source.choices(_WORDS, k=3 * MIB))[: 8 * MIB]
            else:
                chunk = bytes(8 * MIB)
            file.write(chunk)
    return path


def _search(at: Setting, fill: str, needle: bytes) -> Samples:
    size = at.pick(256, 64) * MIB
    path = haystack(at, fill, size)
    with open(path, "r+b") as f:
        m = mmap.mmap(f.fileno(), 0)
    w = MappedFile(path, "r+")
    assert m.find(needle) == w.find(needle) == -1
    samples = at.compare(
        "m.find(needle)", "w.find(needle)", {"m": m, "w": w, "needle": needle}, turns=at.pick(15, 5)
    )
    samples.remark = f"{size / statistics.median(samples.ours):.2f} GB/s"
    w.close()
    path.unlink()
    return samples


ABSENT = bytes(range(200, 216))
ABSENT_TEXT = b"the and his not."
ALMOST_ZEROS = b"\0" * 15 + b"\1"


@row("find-random", "find of 16 absent bytes, 256 MiB at random", "mmap.find", 0.45)
def find_random(at: Setting) -> Samples:
    return _search(at, "random", ABSENT)


@row("find-text", "the same in text, a needle of its words", "mmap.find", 0.6)
def find_text(at: Setting) -> Samples:
    return _search(at, "text", ABSENT_TEXT)


@row("find-zeros", "the same in zeros, another needle", "mmap.find", 0.45)
def find_zeros(at: Setting) -> Samples:
    return _search(at, "zeros", ABSENT)


@row("find-prefix", "the same in zeros, a needle of 15 zeros and a one", "mmap.find", 0.45)
def find_prefix(at: Setting) -> Samples:
    return _search(at, "zeros", ALMOST_ZEROS)


@find_random.profile
@find_text.profile
@find_zeros.profile
@find_prefix.profile
def _(at: Setting) -> Steps:
    size = 64 * MIB
    for fill, needle in (
        ("random", ABSENT),
        ("text", ABSENT_TEXT),
        ("zeros", ABSENT),
        ("zeros", ALMOST_ZEROS),
    ):
        w = MappedFile(haystack(at, fill, size))
        names = {"w": w, "needle": needle, "whole": w[:]}
        yield f"-- 64 MiB of {fill}, needle {needle!r}", 0.0
        yield from steps(
            at,
            names,
            ("w.find", "w.find(needle)"),
            ("bytes.find", "whole.find(needle)"),
            ("bytes.find of two bytes", "whole.find(b'\\xc8\\xc9')"),
        )


# Importing

_IMPORT = "import time; start = time.perf_counter_ns(); {}; print(time.perf_counter_ns() - start)"


@row("import", "import mappedfile", "import mmap, _cffi_backend", 2.5)
def importing(at: Setting) -> Samples:
    def side(code: str) -> float:
        return float(child(_IMPORT.format(code)))

    peer, ours = "import mmap, _cffi_backend", "import mappedfile"
    compileall.compile_dir(Path(mappedfile.__file__).parent, quiet=1)  # as an installation does
    side(peer), side(ours)
    samples = at.alternate(lambda: side(peer), lambda: side(ours), at.pick(61, 15))
    samples.remark = "in a new interpreter, without its start"
    return samples


@importing.profile
def _(at: Setting) -> Steps:
    code = "import sys; before = set(sys.modules); import mappedfile; "
    code += "print(*sorted(set(sys.modules) - before))"
    new = child(code).split()
    for name in new:
        if name.split(".")[0] != "mappedfile":
            times = [float(child(_IMPORT.format(f"import {name}"))) for _ in range(at.pick(15, 5))]
            yield f"{name}, alone and with what it needs", statistics.median(times)
    times = [float(child(_IMPORT.format("import mappedfile"))) for _ in range(at.pick(15, 5))]
    yield "all", statistics.median(times)
    yield "import order and self times: python -X importtime -c 'import mappedfile'", 0.0


# Many views

_MANY = """
import gc, os, sys
from time import perf_counter_ns as now
from mappedfile import MappedFile

path, count, collect = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "gc"
if not collect:
    gc.disable()
with MappedFile(path, "r+") as file:
    for number in range(1000):  # costs that only the first views have
        with file.view(number * 4096, 4096) as view:
            view[0]
    views, opened, closed, full = [], [], [], []
    for batch in range(0, count, 1000):
        passes = gc.get_stats()[2]["collections"]
        start = now()
        for number in range(batch, batch + 1000):
            views.append(file.view(number * 4096, 4096))
        opened.append(now() - start)
        full.append((gc.get_stats()[2]["collections"] - passes) * 1000)
    for batch in range(0, count, 1000):
        start = now()
        for number in range(batch, batch + 1000):
            views[number].close()
        closed.append(now() - start)
print(*opened)
print(*closed)
print(*full)
"""
VIEWS = 50_000


def _many(at: Setting, collect: bool) -> list[list[float]]:
    """Return costs of view() and close(), and numbers of full collections, by batches of 1,000."""
    path = at.sparse(VIEWS * PAGE)
    text = child(_MANY, path, VIEWS, "gc" if collect else "no gc")
    return [[float(number) / 1000 for number in line.split()] for line in text.splitlines()]


def _first_and_last(at: Setting, which: int) -> Samples:
    found = [_many(at, True) for _ in range(at.pick(15, 5))]
    runs = [run[which] for run in found]
    calm = [_many(at, False)[which] for _ in range(at.pick(15, 5))]
    samples = Samples([run[0] for run in runs], [run[-1] for run in runs])
    if which == 0:
        full = sorted({batch + 1 for run in found for batch, passes in enumerate(run[2]) if passes})
        samples.remark = (
            f"full garbage collections in these thousands: {', '.join(map(str, full)) or 'none'}"
        )
    samples.further["gc off"] = statistics.median(run[-1] / run[0] for run in calm)
    samples.further["last ten batches to first ten"] = statistics.median(
        statistics.median(run[-10:]) / statistics.median(run[:10]) for run in runs
    )
    return samples


@row("many", "50,000 live views: the last 1,000", "the first 1,000", 1.2)
def many(at: Setting) -> Samples:
    return _first_and_last(at, 0)


@row("many-close", "closing them: the last 1,000", "the first 1,000 closed", 1.2)
def many_close(at: Setting) -> Samples:
    return _first_and_last(at, 1)


_BYTES = """
import sys, tracemalloc
from mappedfile import MappedFile
with MappedFile(sys.argv[1], "r+") as file:
    views = [file.view(0, 4096) for _ in range(10)]
    views = [None] * 20_000
    tracemalloc.start()
    for number in range(20_000):
        views[number] = file.view(number % 100 * 4096, 4096)
    print(tracemalloc.get_traced_memory()[0] / 20_000)
"""


@row("view-bytes", "bytes of memory (as ns) of a live view, of 20,000", "400 bytes", 1.0)
def view_bytes(at: Setting) -> Samples:
    return Samples([400.0], [float(child(_BYTES, at.sparse(100 * PAGE)))])


@many.profile
@many_close.profile
def _(at: Setting) -> Steps:
    for collect in (True, False):
        for label, batches in zip(("view()", "close()"), _many(at, collect)[:2], strict=True):
            for batch in (0, 1, 10, 25, 48, 49):
                yield (
                    f"{label}, from number {batch * 1000} on, gc {'on' if collect else 'off'}",
                    batches[batch],
                )


# The profiles use POSIX descriptors and char paths, so Windows only has the rows.
if sys.platform == "win32":
    for explained in (opening, viewing, many, many_close):
        explained.explain = None
