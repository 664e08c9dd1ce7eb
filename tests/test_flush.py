"""System calls of flushing, and devices that fail: F1, F3, F6, F8."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support import import_on, mounts, needs, small_file_system, strace, traced

from mappedfile import GRANULARITY, PAGE_SIZE, MappedFile
from mappedfile._native import ffi, lib
from mappedfile.contract import CLAUSES, NATIVE
from mappedfile.contract._flush import counts_dirty_pages
from mappedfile.contract._probe import address_of

WINDOWS = sys.platform == "win32"

sees_calls = needs(WINDOWS or strace(), "strace, and permission to trace")

# The steps. mark() begins a step.
STEPS = """
with MappedFile(path, "r+") as file, file.view(1_000_003, 20_000) as view, file.view(0, 0) as empty:
    mapped = file.view()  # a map with a known address
    view[:] = b"x" * len(view)
    mark("whole view", view); view.flush()
    mark("a range of a view", view); view.flush(5, 10)
    mark("a range over a page's end", view); view.flush(5000, 4096)
    mark("from an offset on", view); view.flush(19_000)
    mark("the last byte", view); view.flush(19_999, 1)
    mark("nothing at the start"); view.flush(0, 0)
    mark("nothing at the end"); view.flush(20_000)
    mark("an empty view"); empty.flush()
    mark("not durable", view); view.flush(5, 10, durable=False)
    file[100_000] = 1
    mark("the whole file", mapped, view, file); file.flush()
    mark("the whole file, not durable", mapped, view, file); file.flush(durable=False)
    mark("a range of the file", file); file.flush(100_000, 1)
    file.resize(1_100_000)
    file[1_050_000] = 1
    mark("the whole file, grown", mapped, view, file); file.flush()
    mark("out of range")
    for window, offset, length in ((view, 0, 20_001), (view, 20_001, 0), (file, 0, 1_100_001)):
        try: window.flush(offset, length)
        except ValueError: pass
    mapped.close()
    file.close()
    mark("the file is closed")
    try: view.flush()
    except ValueError: pass
    mark("the file is closed, not durable", view); view.flush(durable=False)
with MappedFile(path, "r+") as file:
    mark("nothing was mapped"); file.flush()
    with file.view(5, 10) as view:
        view[0] = 1
    mark("a closed view"); file.flush()
for mode in ("r", "c"):
    with MappedFile(path, mode) as file, file.view(5000, 5000) as view:
        file[0], view[0]
        if mode == "c":
            file[0] = view[0] = 1
        mark(f"mode {mode}")
        for window in (file, view):
            window.flush(); window.flush(7, 8); window.flush(durable=False)
mark("end")
"""

# Each mark is a system call that strace records.
TRACED = f"""
import os, sys
from mappedfile import MappedFile
from mappedfile.contract import CLAUSES, NATIVE
from mappedfile.contract._flush import counts_dirty_pages
from mappedfile.contract._probe import address_of

def mark(name, *windows):
    places = ",".join(f"{{address_of(one.data)}}+{{len(one)}}" for one in windows)
    os.access(f"/mark/{{name}}/{{places}}", 0)

path = sys.argv[1]
{STEPS}"""


class Step(NamedTuple):
    """A step: the addresses and lengths of its windows, and the system's calls."""

    windows: list[tuple[int, int]]
    seen: list[str]


def traced_steps(path: Path, folder: Path) -> Iterator[tuple[str, Step]]:
    """Linux: run the steps under strace."""
    step = None
    flushes = "msync,fsync,fdatasync,sync_file_range,sync,syncfs"
    for line in traced(
        TRACED, path, calls=f"{flushes},access,?faccessat,?faccessat2", folder=folder
    ):
        if found := re.search(r'access.*"/mark/(.*)/(.*)"', line):
            windows = [tuple(map(int, pair.split("+"))) for pair in found[2].split(",") if pair]
            step = Step(windows, [])
            yield found[1], step
        elif step is not None:
            assert line.endswith("= 0"), line
            call = re.sub(rf"\d+<{re.escape(str(path))}>", "file", line.rpartition(")")[0] + ")")
            # Lengths are rounded up to pages: the last page may be partial.
            step.seen.append(
                re.sub(
                    r"(msync\(0x[0-9a-f]+), (\d+)",
                    lambda m: f"{m[1]}, {pages(int(m[2]))} pages",
                    call,
                )
            )


def watched_steps(path: Path) -> Iterator[tuple[str, Step]]:
    """Windows: run the steps in this process, and record the calls to kernel32."""
    from kernel32_calls import watched

    steps: list[tuple[str, list[tuple[int, int]], list[Any]]] = []

    def mark(name: str, *windows: Any) -> None:
        where = [(address_of(one.data), len(one)) for one in windows]
        calls.made = []
        steps.append((name, where, calls.made))

    with watched() as calls:
        exec(STEPS, {"MappedFile": MappedFile, "path": path, "mark": mark})
    for name, where, made in steps:
        seen = [
            f"{call}(file)"
            if call == "FlushFileBuffers"
            else f"{call}({given[0]:#x}, {pages(given[1])} pages)"
            for call, given in made
            if call.startswith("Flush")
        ]
        yield name, Step(where, seen)


def pages(length: int) -> int:
    return -(-length // PAGE_SIZE)


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Step]:
    """Return the system's calls of each step."""
    folder = tmp_path_factory.mktemp("traced")
    path = folder / "file"
    path.write_bytes(bytes(1_050_000))
    steps = dict(watched_steps(path) if WINDOWS else traced_steps(path, folder))
    assert "end" in steps
    return steps


def flushed(window: tuple[int, int], offset: int, length: int, *, durable: bool = True) -> str:
    """Return the call that flushes a range of a window, rounded outwards to pages."""
    start, stop = window[0] + offset, window[0] + offset + length
    start -= start % PAGE_SIZE
    if WINDOWS:
        return f"FlushViewOfFile({start:#x}, {pages(stop - start)} pages)"
    return f"msync({start:#x}, {pages(stop - start)} pages, {'MS_SYNC' if durable else 'MS_ASYNC'})"


#: The call that makes a file durable. On Windows it follows each durable flush.
SYNC = "FlushFileBuffers(file)" if WINDOWS else "fsync(file)"


@sees_calls
@pytest.mark.parametrize(
    ("step", "offset", "length"),
    [
        ("whole view", 0, 20_000),
        ("a range of a view", 5, 10),
        ("a range over a page's end", 5000, 4096),
        ("from an offset on", 19_000, 1000),
        ("the last byte", 19_999, 1),
        ("a range of the file", 100_000, 1),
    ],
)
def test_range(calls: dict[str, Step], step: str, offset: int, length: int) -> None:
    """A durable flush is one msync with MS_SYNC of the pages that the range touches, and no other
    call. On Windows it is FlushViewOfFile, then FlushFileBuffers: F1, F2."""
    (window,), seen = calls[step]
    assert [flushed(window, offset, length), *[SYNC] * WINDOWS] == seen


@sees_calls
@pytest.mark.parametrize("step", ["the whole file", "the whole file, grown"])
def test_whole_file(calls: dict[str, Step], step: str) -> None:
    """Flushing the file is an fsync, which also writes the size. On Windows every map is flushed
    before it: F6."""
    windows, seen = calls[step]
    assert SYNC == seen[-1]
    assert_covered(windows, seen[:-1])


def assert_covered(windows: list[tuple[int, int]], seen: list[str]) -> None:
    """Check that the calls flushed all pages of these windows. Only Windows needs these calls."""
    if not WINDOWS:
        assert [] == seen
    asked = set()
    for call in seen:
        found = re.fullmatch(r"FlushViewOfFile\((0x[0-9a-f]+), (\d+) pages\)", call)
        assert found, call
        asked.update(
            range(int(found[1], 16), int(found[1], 16) + int(found[2]) * PAGE_SIZE, PAGE_SIZE)
        )
    if WINDOWS:
        for start, length in windows:
            assert asked.issuperset(range(start - start % PAGE_SIZE, start + length, PAGE_SIZE)), (
                seen
            )


@sees_calls
@pytest.mark.parametrize("step", ["nothing was mapped", "a closed view"])
def test_file_without_maps(calls: dict[str, Step], step: str) -> None:
    """If no map is left, flush() is only an fsync or FlushFileBuffers. It covers what closed views
    wrote: F6."""
    assert [SYNC] == calls[step].seen


@sees_calls
@pytest.mark.parametrize(
    "step",
    [
        "nothing at the start",
        "nothing at the end",
        "an empty view",
        "out of range",
        "the file is closed",
        "mode r",
        "mode c",
    ],
)
def test_nothing(calls: dict[str, Step], step: str) -> None:
    """Empty ranges, ranges outside, and read-only and private maps make no calls: F2, F4, F5."""
    assert [] == calls[step].seen


@sees_calls
def test_not_durable(calls: dict[str, Step]) -> None:
    """A flush that is not durable starts write-back and does not wait: F3."""
    (window,), seen = calls["not durable"]
    first = 1_000_003 + 5 - (1_000_003 + 5) % PAGE_SIZE
    start = (
        [] if WINDOWS else [f"sync_file_range(file, {first}, {PAGE_SIZE}, SYNC_FILE_RANGE_WRITE)"]
    )
    assert [flushed(window, 5, 10, durable=False), *start] == seen
    windows, seen = calls["the whole file, not durable"]
    if WINDOWS:
        assert_covered(windows, seen)
    else:
        assert ["sync_file_range(file, 0, 0, SYNC_FILE_RANGE_WRITE)"] == seen
    (window,), seen = calls["the file is closed, not durable"]
    assert [flushed(window, 0, 20_000, durable=False)] == seen


@needs(mounts(), "to mount file systems")
def test_write_back_on_overlay(tmp_path: Path) -> None:
    """A flush that is not durable starts write-back on overlayfs too, which containers use: F3."""
    with (
        small_file_system(tmp_path, "ext4", 16 * 2**20) as ext4,
        small_file_system(ext4, "overlay", 16 * 2**20) as overlay,
    ):
        assert counts_dirty_pages(overlay)
        for subject in NATIVE:
            if subject.shared:
                folder = overlay / subject.mode
                folder.mkdir()
                CLAUSES["F3"].check(subject, folder)


class Recorder:
    """A backend that records its flushes."""

    def __init__(self, like: str) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.code = 0
        self._like = like
        self._flush = ffi.callback("int(mf_file *, char *, size_t, int64_t, int)", self.flush)
        self._sync = ffi.callback("int(mf_file *, int)", self.sync)

    def __getattr__(self, name: str) -> object:
        return getattr(lib, name)

    def mf_fill_table(self, table: Any) -> None:
        lib.mf_fill_table(table)
        table.flush, table.sync = self._flush, self._sync
        table.system.flush_reaches_device = table.system.sync_covers_maps = self._like == "linux"

    def flush(self, file: object, base: object, length: int, offset: int, wait: int) -> int:
        self.calls.append(("flush", offset, length, bool(wait)))
        return self.code

    def sync(self, file: object, wait: int) -> int:
        self.calls.append(("sync", bool(wait)))
        return self.code


@pytest.mark.parametrize("like", ["linux", "windows"])
def test_calls_of_the_backend(folder: Path, like: str) -> None:
    """If a flush does not reach the device, a sync follows it. If a sync does not cover maps, they
    are flushed before it. This is the order on Windows and macOS, tested on every system: F1,
    F6."""
    recorder = Recorder(like)
    MappedFile = import_on(recorder).MappedFile  # noqa: N806
    path = folder / "file"
    path.write_bytes(bytes(GRANULARITY + 5 * PAGE_SIZE))
    with MappedFile(path, "r+") as file, file.view(GRANULARITY + 100, 3 * PAGE_SIZE) as view:
        sync = [] if like == "linux" else [("sync", True)]
        view.flush(PAGE_SIZE, 10)
        assert [("flush", GRANULARITY + PAGE_SIZE, PAGE_SIZE, True), *sync] == recorder.calls
        recorder.calls.clear()
        view.flush(PAGE_SIZE, 10, durable=False)
        assert [("flush", GRANULARITY + PAGE_SIZE, PAGE_SIZE, False)] == recorder.calls
        recorder.calls.clear()
        file[0] = 1
        file.flush()
        maps = (
            []
            if like == "linux"
            else [("flush", 0, len(file), True), ("flush", GRANULARITY, 3 * PAGE_SIZE + 100, True)]
        )
        assert ("sync", True) == recorder.calls.pop()
        assert maps == sorted(recorder.calls)
        recorder.code = 5 if sys.platform == "win32" else errno.EACCES  # ERROR_ACCESS_DENIED
        for flush in (file.flush, view.flush):
            recorder.calls.clear()
            with pytest.raises(PermissionError) as caught:
                flush()
            assert str(path) == str(caught.value.filename)
            if like == "windows":
                assert "sync" not in [call[0] for call in recorder.calls], (
                    "a failed flush is not followed by a sync"
                )


# F8


@pytest.fixture
def full_device(tmp_path: Path) -> Iterator[Path]:
    """Mount an ext4 whose device has no room, without the file system knowing it: a sparse image on
    a full tmpfs."""
    with (
        small_file_system(tmp_path, "tmpfs", 3 * 2**20) as outer,
        small_file_system(outer, "ext4", 16 * 2**20) as inner,
    ):
        file = inner / "file"
        with MappedFile(file, "x+", size=8 * 2**20):
            pass
        os.sync()
        with (
            pytest.raises(OSError, match="No space left"),
            open(outer / "filler", "wb", buffering=0) as filler,
        ):
            while True:
                filler.write(bytes(2**16))
        yield file


@needs(mounts(), "to mount file systems")
@pytest.mark.parametrize("way", ["view", "range", "file", "file after closed view"])
def test_write_back_error(full_device: Path, way: str) -> None:
    """If the device fails to write, the flush raises OSError with its number and the file's name.
    The map stays usable: F8."""
    with MappedFile(full_device, "r+") as file, file.view(2**20, 6 * 2**20) as view:
        view[:] = os.urandom(len(view))
        if way == "file after closed view":
            view.close()
        with pytest.raises(OSError) as caught:
            if way == "view":
                view.flush()
            elif way == "range":
                view.flush(2**20, 4 * 2**20)
            else:
                file.flush()
        assert caught.value.errno in (errno.EIO, errno.ENOSPC)
        assert str(full_device) == str(caught.value.filename)
        assert os.strerror(caught.value.errno) == caught.value.strerror
        assert 8 * 2**20 == len(file)
        file[0] = 7
        assert 7 == file[0]
