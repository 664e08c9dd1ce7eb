"""Opening, viewing, reading, searching and importing, against the standard library's mmap."""

from __future__ import annotations

import compileall
import mmap
import os
import random
import statistics
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mappedfile
from mappedfile import MappedFile
from mappedfile._native import ffi, lib

from .harness import Samples, Setting, child, frames, row, steps

if TYPE_CHECKING:
    from .harness import Steps

PAGE = 4096
MIB = 1 << 20
NATIVE: dict[str, Any] = {"ffi": ffi, "lib": lib}

# Opening and viewing


@row("open", "MappedFile(path, 'r+'), first byte, close", "open(), mmap.mmap(), ...", 1.0)
def opening(at: Setting) -> Samples:
    names = {"path": str(at.file(MIB)), "MappedFile": MappedFile, "mmap": mmap.mmap}
    return at.compare(
        "f = open(path, 'r+b'); m = mmap(f.fileno(), 0); m[0]; m.close(); f.close()",
        "w = MappedFile(path, 'r+'); w[0]; w.close()",
        names,
    )


@opening.profile
def _(at: Setting) -> Steps:
    path = str(at.file(MIB))
    names = NATIVE | {
        "path": path,
        "raw_path": os.fsencode(path),
        "MappedFile": MappedFile,
        "mmap": mmap.mmap,
        "os": os,
    }
    names |= _map_names(path)
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
        ("backend: mf_open, mf_close", "r = ffi.new(mf_file); lib.mf_open(raw_path, 1, 0, r); lib.mf_close(r)"),
        *_MAP_STEPS,
        ("os.fsencode(path)", "os.fsencode(path)"),
    )
    yield from frames(lambda: _open_and_close(path))


def _open_and_close(path: str) -> None:
    w = MappedFile(path, "r+")
    w[0]
    w.close()


@row("view", "view(off, 4096), first byte, close", "mmap.mmap(fd, 4096, offset=off), ...", 1.3)
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
    names = NATIVE | _map_names(at.file(MIB)) | {"off": 17 * PAGE, "odd": 17 * PAGE + 3, "mmap": mmap.mmap}
    whole = names["whole"]
    yield from steps(
        at,
        names,
        ("peer: all", "m = mmap(fd, 4096, offset=off); m[0]; m.close()"),
        ("peer: without first byte", "m = mmap(fd, 4096, offset=off); m.close()"),
        ("ours: all", "w = whole.view(off, 4096); w[0]; w.close()"),
        ("ours: without first byte", "w = whole.view(off, 4096); w.close()"),
        ("ours: at an odd offset", "w = whole.view(odd, 4096); w[0]; w.close()"),
        *_MAP_STEPS,
    )

    def operation() -> None:
        w = whole.view(17 * PAGE, PAGE)
        w[0]
        w.close()

    yield from frames(operation)


def _map_names(path: Any) -> dict[str, Any]:
    """What the steps of a map work on: an open file, its whole map, and a map by hand."""
    fd = os.open(path, os.O_RDWR)
    raw = ffi.new("mf_file *")
    lib.mf_adopt(fd, 1, 0, raw)
    section = ffi.new("mf_section *")
    lib.mf_open_section(raw, 1, section)
    # Until it is unmapped it is on the guard's list, and counted in its file: both must be there.
    kept = ffi.gc(ffi.new("mf_mapping *"), lambda mapping, _raw=raw: lib.mf_unmap(mapping))
    lib.mf_map(raw, section, 1, 0, PAGE, kept)
    return {
        "fd": fd,
        "raw": raw,
        "section": section,
        "kept": kept,
        "out": ffi.new("mf_mapping *"),
        "address": kept.base,
        "buffer": ffi.buffer(kept.base, PAGE),
        "whole": MappedFile(path, "r+"),
        "mf_file": ffi.typeof("mf_file *"),
        "mapping": ffi.typeof("mf_mapping *"),
        "nothing": lambda _: None,
        "python": _python,
        "mmap": mmap.mmap,
    }


def _python() -> None:
    """Stand for what a wrapper does: some frames and objects."""
    for number in range(3):
        _Thing(number).work()


class _Thing:
    def __init__(self, number: int) -> None:
        self.number = number
        self.seen: dict[int, int] = {}
        self.ids: set[int] = set()

    def work(self) -> list[object]:
        self.seen[self.number] = self.number
        self.ids.add(id(self))
        self.ids.discard(id(self))
        return [self.number + 1, (self.number, self.seen), memoryview(b"abc").toreadonly()]


_MAP_STEPS = (
    ("backend: mf_map, mf_unmap", "lib.mf_map(raw, section, 1, 0, 4096, out); lib.mf_unmap(out)"),
    ("the same and a first byte", "lib.mf_map(raw, section, 1, 0, 4096, out); out.base[0]; lib.mf_unmap(out)"),
    ("ffi.new(mf_mapping *)", "ffi.new(mapping)"),
    ("ffi.gc(address, f), and the call of f", "ffi.gc(address, nothing)"),
    ("address + n", "address + 1"),
    ("ffi.buffer(address, 4096)", "ffi.buffer(address, 4096)"),
    ("memoryview(buffer)", "memoryview(buffer)"),
    ("memoryview(buffer).toreadonly()", "memoryview(buffer).toreadonly()"),
    ("a Python function", "nothing(0)"),
    # A page fault leaves caches and TLB cold: the same Python costs more after one.
    ("some Python", "python()"),
    ("mmap.mmap, close()", "m = mmap(fd, 4096); m.close()"),
    ("mmap.mmap, close(), some Python", "m = mmap(fd, 4096); m.close(); python()"),
    ("mmap.mmap, first byte, close()", "m = mmap(fd, 4096); m[0]; m.close()"),
    ("mmap.mmap, first byte, close(), some Python", "m = mmap(fd, 4096); m[0]; m.close(); python()"),
)

# Reading


def _pair(at: Setting, size: int = 4 * MIB) -> dict[str, Any]:
    path = at.file(size, random.Random(1).randbytes(MIB))
    with open(path, "r+b") as f:
        m = mmap.mmap(f.fileno(), 0)
    w = MappedFile(path, "r+")
    assert m[:] == w[:]  # and every page is there
    return {"m": m, "w": w, "d": w.data, "i": size // 2}


@row("item", "w[i]", "mmap[i]", 2.0)
def item(at: Setting) -> Samples:
    return at.compare("m[i]", "w[i]", _pair(at), loop=True)


@row("data-item", "d[i] with d = w.data", "mmap[i]", 1.0)
def data_item(at: Setting) -> Samples:
    return at.compare("m[i]", "d[i]", _pair(at), loop=True)


@row("data", "w.data[i], the property each time", "mmap[i]", 1.0)
def data(at: Setting) -> Samples:
    return at.compare("m[i]", "w.data[i]", _pair(at), loop=True)


@item.profile
def _(at: Setting) -> Steps:
    class Plain:
        __slots__ = ("memory",)

        def __init__(self, memory: memoryview) -> None:
            self.memory = memory

        def __getitem__(self, key: int) -> int:
            return self.memory[key]

    class Empty:
        def __getitem__(self, key: int) -> int:
            return 7

    names = _pair(at)
    names |= {"plain": Plain(names["d"]), "empty": Empty()}
    yield from steps(
        at,
        names,
        ("mmap[i]", "m[i]"),
        ("w[i]", "w[i]"),
        ("memoryview[i]", "d[i]"),
        ("a class whose __getitem__ returns 7: the frame alone", "empty[i]"),
        ("a class whose __getitem__ is self.memory[key]", "plain[i]"),
        ("the type test: i.__class__ is int", "i.__class__ is int"),
    )
    w = names["w"]
    yield from frames(lambda: w[5])


@data.profile
def _(at: Setting) -> Steps:
    names = _pair(at) | NATIVE
    names["buffer"] = ffi.buffer(ffi.from_buffer(names["d"]), 4 * MIB)
    names["address"] = ffi.from_buffer(names["d"])
    yield from steps(
        at,
        names,
        ("mmap[i]", "m[i]"),
        ("w.data[i]", "w.data[i]"),
        ("w.data", "w.data"),
        ("memoryview[i]", "d[i]"),
        ("ffi.buffer(address, n)", "ffi.buffer(address, 4096)"),
        ("memoryview(buffer)", "memoryview(buffer)"),
        ("w.closed: a property", "w.closed"),
    )
    w = names["w"]
    yield from frames(lambda: w.data)


@row("slice-64", "w[a:b], 64 bytes", "mmap[a:b]", 1.6)
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
        names["buffer"] = ffi.buffer(ffi.from_buffer(names["d"]), len(names["d"]))
        yield f"-- {size} bytes", 0.0
        yield from steps(
            at,
            names,
            ("mmap[a:b]", "m[a:b]"),
            ("w[a:b]", "w[a:b]"),
            ("w[s], the slice made before", "w[s]"),
            ("slice(a, b)", "slice(a, b)"),
            ("ffi.buffer[a:b]", "buffer[a:b]"),
            ("memoryview[a:b]", "d[a:b]"),
            ("bytes(memoryview[a:b])", "bytes(d[a:b])"),
        )
        yield from frames(partial(names["w"].__getitem__, names["s"]))


# Searching

_WORDS = b"the of and to in that is was he for it with as his on be at by had not are but from or have".split()


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
    samples = at.compare("m.find(needle)", "w.find(needle)", {"m": m, "w": w, "needle": needle}, turns=at.pick(15, 5))
    samples.note = f"{size / statistics.median(samples.ours):.2f} GB/s"
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
    for fill, needle in (("random", ABSENT), ("text", ABSENT_TEXT), ("zeros", ABSENT), ("zeros", ALMOST_ZEROS)):
        w = MappedFile(haystack(at, fill, size))
        names = NATIVE | {"w": w, "needle": needle, "size": size, "memory": ffi.from_buffer(w.data), "whole": w[:]}
        yield f"-- 64 MiB of {fill}, needle {needle!r}", 0.0
        yield from steps(
            at,
            names,
            ("w.find", "w.find(needle)"),
            ("backend: mf_find", "lib.mf_find(memory, size, needle, 16, ffi.NULL)"),
            ("bytes.find", "whole.find(needle)"),
            ("bytes.find of two bytes", "whole.find(b'\\xc8\\xc9')"),
        )


# Importing

_IMPORT = "import time; start = time.perf_counter_ns(); {}; print(time.perf_counter_ns() - start)"


@row("import", "import mappedfile", "import mmap, _cffi_backend", 2.0)
def importing(at: Setting) -> Samples:
    def side(code: str) -> float:
        return float(child(_IMPORT.format(code)))

    peer, ours = "import mmap, _cffi_backend", "import mappedfile"
    compileall.compile_dir(Path(mappedfile.__file__).parent, quiet=1)  # as whoever installs does
    side(peer), side(ours)
    samples = at.alternate(lambda: side(peer), lambda: side(ours), at.pick(61, 15))
    samples.note = "in a fresh interpreter, its start not counted"
    return samples


@importing.profile
def _(at: Setting) -> Steps:
    code = "import sys; before = set(sys.modules); import mappedfile; print(*sorted(set(sys.modules) - before))"
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
    for number in range(1000):  # nothing that only the first have to pay
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
    """Return, by batches of 1,000, what a view() costs, what a close() costs, and how many full collections there were."""
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
        samples.note = f"full garbage collections in these thousands: {', '.join(map(str, full)) or 'none'}"
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


_MANY_NATIVE = """
import sys
from time import perf_counter_ns as now
from mappedfile._native import ffi, lib
raw, section = ffi.new("mf_file *"), ffi.new("mf_section *")
assert lib.mf_open(sys.argv[1].encode(), 1, 0, raw) == 0
lib.mf_open_section(raw, 1, section)
maps = []
for step in ("map", "unmap"):
    for batch in range(0, 50000, 1000):
        start = now()
        for number in range(batch, batch + 1000):
            if step == "map":
                maps.append(ffi.new("mf_mapping *"))
                assert lib.mf_map(raw, section, 1, number * 4096, 4096, maps[number]) == 0
            else:
                lib.mf_unmap(maps[number])
        if batch in (0, 1000, 10000, 25000, 48000, 49000):
            print(f"backend: mf_{step}, from number {batch} on:{(now() - start) / 1000}")
"""


@many.profile
@many_close.profile
def _(at: Setting) -> Steps:
    for collect in (True, False):
        for label, batches in zip(("view()", "close()"), _many(at, collect)[:2], strict=True):
            for batch in (0, 1, 10, 25, 48, 49):
                yield f"{label}, from number {batch * 1000} on, gc {'on' if collect else 'off'}", batches[batch]
    for line in child(_MANY_NATIVE, at.sparse(VIEWS * PAGE)).splitlines():
        label, value = line.rsplit(":", 1)
        yield label, float(value)


if (
    sys.platform == "win32"
):  # the peers' descriptors and the C compiler's wchar_t differ: only the rows, not the profiles
    for explained in (opening, viewing, many, many_close):
        explained.explain = None
