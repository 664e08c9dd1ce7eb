"""Flushing, as system calls and failing devices show it: F1, F3, F6, F7, F8."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import LINUX, need, only, small_file_system, traced

from mappedfile import GRANULARITY, PAGE_SIZE, MappedFile
from mappedfile._native import lib
from mappedfile.contract import NATIVE, Subject
from mappedfile.contract._flush import PAGE, counts_dirty_pages, dirty, kill_writers

STRESS = bool(os.environ.get("MAPPEDFILE_STRESS"))
SHARED = [subject for subject in NATIVE if subject.shared]

# What the program below does, between marks that strace sees.
STEPS = """
import os, sys
from mappedfile import MappedFile
from mappedfile.contract._probe import address_of

def mark(name, window=None):
    os.access(f"/mark/{name}/{address_of(window.data) if window is not None else 0}", 0)

path = sys.argv[1]
with MappedFile(path, "r+") as file, file.view(1_000_003, 20_000) as view, file.view(0, 0) as empty:
    mapped = file.view()  # where addresses are known
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
    mark("the whole file"); file.flush()
    mark("the whole file, not durable"); file.flush(durable=False)
    mark("a range of the file", file); file.flush(100_000, 1)
    file.resize(1_100_000)
    mark("the whole file, grown"); file.flush()
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


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, list[str]]]:
    """What the kernel was asked for at each step: where the window is in memory, and the system calls."""
    folder = tmp_path_factory.mktemp("traced")
    path = folder / "file"
    path.write_bytes(bytes(1_050_000))
    flushes = "msync,fsync,fdatasync,sync_file_range,sync,syncfs"
    lines = traced(STEPS, path, calls=f"{flushes},access,?faccessat,?faccessat2", folder=folder)
    steps: dict[str, tuple[int, list[str]]] = {}
    for line in lines:
        if found := re.search(r'access.*"/mark/(.*)/(\d+)"', line):
            seen: list[str] = []
            steps[found[1]] = int(found[2]), seen
        elif steps:
            assert line.endswith("= 0"), line
            seen.append(re.sub(rf"\d+<{re.escape(str(path))}>", "file", line.rpartition(")")[0] + ")"))
    assert "end" in steps
    return steps


def msync(address: int, offset: int, length: int, flags: str) -> str:
    """The call that flushes a range, rounded outwards to pages."""
    start, stop = address + offset, address + offset + length
    start -= start % PAGE_SIZE
    return f"msync({start:#x}, {-(-(stop - start) // PAGE_SIZE)} pages, {flags})"


def in_pages(calls: list[str]) -> list[str]:
    """The same calls, with lengths in pages: the last may be a part."""
    return [
        re.sub(r"(msync\(0x[0-9a-f]+), (\d+)", lambda m: f"{m[1]}, {-(-int(m[2]) // PAGE_SIZE)} pages", c)
        for c in calls
    ]


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
def test_range(calls: dict[str, tuple[int, list[str]]], step: str, offset: int, length: int) -> None:
    """A durable flush is one msync with MS_SYNC of the pages that the range touches, and nothing else: F1, F2."""
    address, seen = calls[step]
    assert [msync(address, offset, length, "MS_SYNC")] == in_pages(seen)


@pytest.mark.parametrize("step", ["the whole file", "the whole file, grown", "nothing was mapped"])
def test_whole_file(calls: dict[str, tuple[int, list[str]]], step: str) -> None:
    """Flushing the file is an fsync, which covers closed views and the size too: F6."""
    assert ["fsync(file)"] == calls[step][1]


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
def test_nothing(calls: dict[str, tuple[int, list[str]]], step: str) -> None:
    """Empty ranges, ranges outside, read-only and private maps ask nothing of the system: F2, F4, F5."""
    assert [] == calls[step][1]


def test_not_durable(calls: dict[str, tuple[int, list[str]]]) -> None:
    """A flush that is not durable starts write-back and waits for nothing: F3."""
    address, seen = calls["not durable"]
    first = 1_000_003 + 5 - (1_000_003 + 5) % PAGE_SIZE
    expected = [
        msync(address, 5, 10, "MS_ASYNC"),
        f"sync_file_range(file, {first}, {PAGE_SIZE}, SYNC_FILE_RANGE_WRITE)",
    ]
    assert expected == in_pages(seen)
    assert ["sync_file_range(file, 0, 0, SYNC_FILE_RANGE_WRITE)"] == calls["the whole file, not durable"][1]
    address, seen = calls["the file is closed, not durable"]
    assert [msync(address, 0, 20_000, "MS_ASYNC")] == in_pages(seen)


def test_not_durable_writes(folder: Path) -> None:
    """Write-back that was started comes to its end by itself, long before the system's timer: F3."""
    only(LINUX, "dirty pages are counted in /proc/self/smaps")
    only(counts_dirty_pages(folder), "dirty pages of this file system never become clean")
    path = folder / "file"
    path.write_bytes(bytes(8 * PAGE))
    for whole in (True, False):
        with MappedFile(path, "r+") as file:
            file[:] = b"\1" * len(file)
            assert dirty(file) == 8 * PAGE
            if whole:
                file.flush(durable=False)
            else:
                file.flush(0, 8 * PAGE, durable=False)
            until = time.monotonic() + 3
            while dirty(file) and time.monotonic() < until:
                time.sleep(0.01)
            assert 0 == dirty(file)


# Windows: FlushViewOfFile and FlushFileBuffers, seen by Wine


RELAYED = """
import sys
from mappedfile import MappedFile
def mark(name):
    print(f"mark {name}", file=sys.stderr, flush=True)
with MappedFile(sys.argv[1], "r+") as file, file.view(70_000, 9000) as view:
    view[:] = b"x" * len(view)
    file[0] = 1
    mark("whole view"); view.flush()
    mark("a range of a view"); view.flush(5000, 10)
    mark("not durable"); view.flush(5000, 10, durable=False)
    mark("the whole file"); file.flush()
    mark("nothing"); view.flush(0, 0); view.flush(9000)
with MappedFile(sys.argv[1], "r+") as file:
    with file.view(0, 10) as view:
        view[0] = 2
    mark("a closed view"); file.flush()
for mode in ("r", "c"):
    with MappedFile(sys.argv[1], mode) as file, file.view(0, 10) as view:
        file[0], view[0]
        mark(f"mode {mode}"); file.flush(); view.flush(); view.flush(durable=False)
mark("end")
"""


@pytest.fixture(scope="module")
def relayed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The flushing calls of kernel32 that Wine saw at each step."""
    only(sys.platform == "win32", "FlushViewOfFile is Windows'")
    import winreg

    key = r"Software\Wine\Debug"
    try:
        winreg.OpenKey(winreg.HKEY_CURRENT_USER, r"Software\Wine").Close()
    except OSError:
        pytest.skip("only Wine shows the calls of a program")
    names = "FlushViewOfFile;FlushFileBuffers"
    path = tmp_path_factory.mktemp("relayed") / "file"
    path.write_bytes(bytes(100_000))
    with winreg.CreateKey(winreg.HKEY_CURRENT_USER, key) as debug:
        winreg.SetValueEx(
            debug, "RelayInclude", 0, winreg.REG_SZ, ";".join(f"kernel32.{n};kernelbase.{n}" for n in names.split(";"))
        )
        try:
            done = subprocess.run([sys.executable, "-c", RELAYED, str(path)], env={**os.environ, "WINEDEBUG": "+relay"},
                                  stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False)  # fmt: skip
        finally:
            winreg.DeleteValue(debug, "RelayInclude")
    steps: dict[str, list[str]] = {}
    for line in done.stderr.splitlines():
        if line.startswith("mark "):
            seen: list[str] = []
            steps[line[5:]] = seen
        elif found := re.search(r"Call KERNEL32\.(Flush(?:ViewOfFile|FileBuffers))\((\w+)(?:,(\w+))?", line):
            seen.append(f"{found[1]} {int(found[3], 16)}" if found[3] else found[1])
    assert "end" in steps, done.stderr[-2000:]
    need(any(steps.values()), "Wine's relay of calls (WINEDEBUG=+relay)")
    return steps


def test_calls_on_windows(relayed: dict[str, list[str]]) -> None:
    """FlushViewOfFile of the pages, then FlushFileBuffers; the first alone if it need not be durable: F1-F4, F6."""
    first = 70_000 % GRANULARITY  # what the view has before it in its map
    whole = first + 9000 - first % PAGE_SIZE + first % PAGE_SIZE - first
    assert relayed["whole view"][1:] == ["FlushFileBuffers"]
    assert relayed["whole view"][0].startswith("FlushViewOfFile "), whole
    assert relayed["a range of a view"] == [f"FlushViewOfFile {PAGE_SIZE}", "FlushFileBuffers"]
    assert relayed["not durable"] == [f"FlushViewOfFile {PAGE_SIZE}"]
    assert relayed["the whole file"][-1] == "FlushFileBuffers"
    assert 2 == sum(call.startswith("FlushViewOfFile") for call in relayed["the whole file"])
    assert ["FlushFileBuffers"] == relayed["a closed view"]
    assert [[], [], []] == [relayed[step] for step in ("nothing", "mode r", "mode c")]


class Recorder:
    """The backend, and which of its functions flush when."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.code = 0

    def __getattr__(self, name: str) -> object:
        return getattr(lib, name)

    def mf_flush(self, file: object, base: object, length: int, offset: int, wait: bool) -> int:
        self.calls.append(("flush", offset, length, wait))
        return self.code

    def mf_sync(self, file: object, wait: bool) -> int:
        self.calls.append(("sync", wait))
        return self.code


@pytest.mark.parametrize("like", ["linux", "windows"])
def test_calls_of_the_backend(folder: Path, monkeypatch: pytest.MonkeyPatch, like: str) -> None:
    """Where a flush does not reach the device a sync follows it, and where a sync does not cover maps they are flushed
    before it: the order on Windows and macOS, seen on every system. F1, F6."""
    from mappedfile import _file, _pages, _window

    recorder = Recorder()
    for module in (_file, _pages, _window):
        monkeypatch.setattr(module, "lib", recorder)
    for module, name in ((_window, "FLUSH_REACHES_DEVICE"), (_file, "SYNC_COVERS_MAPS"), (_window, "SYNC_COVERS_MAPS"),
                         (_pages, "SYNC_COVERS_MAPS")):  # fmt: skip
        monkeypatch.setattr(module, name, like == "linux", raising=False)
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
                assert "sync" not in [call[0] for call in recorder.calls], "what failed is not followed by a sync"


# F7


@pytest.mark.parametrize("subject", SHARED, ids=str)
def test_killed(subject: Subject, folder: Path) -> None:
    """Whatever moment a writer is killed at, what it had written is in the file: F7."""
    kill_writers(subject, folder, times=200 if STRESS else 5)


# F8


@pytest.fixture
def full_device(tmp_path: Path) -> Iterator[Path]:
    """An ext4 whose device has no room left, though the file system does not know: a sparse image on a full tmpfs."""
    with (
        small_file_system(tmp_path, "tmpfs", 3 * 2**20) as outer,
        small_file_system(outer, "ext4", 16 * 2**20) as inner,
    ):
        file = inner / "file"
        with MappedFile(file, "x+", size=8 * 2**20):
            pass
        os.sync()
        with pytest.raises(OSError, match="No space left"), open(outer / "filler", "wb", buffering=0) as filler:
            while True:
                filler.write(bytes(2**16))
        yield file


@pytest.mark.parametrize("way", ["view", "range", "file", "file after closed view"])
def test_write_back_error(full_device: Path, way: str) -> None:
    """A device that fails to write is an OSError of the flush, with number and file name, and the map lives on: F8."""
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
