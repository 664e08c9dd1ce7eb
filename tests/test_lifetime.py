"""Lifetimes: operations that only the library has. The clauses of the contract are checked on mmap
too."""

import copy
import ctypes
import gc
import hashlib
import pickle
import re
import struct
import weakref
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from children import code, run_python
from hypothesis import given
from hypothesis import strategies as st

from mappedfile import GRANULARITY, PAGE_SIZE, MappedFile
from mappedfile.contract import _probe

CONTENT = bytes(range(256)) * ((3 * GRANULARITY) // 256)


@pytest.fixture
def file(path: Path) -> Any:
    """Return a mapped file."""
    path.write_bytes(CONTENT)
    with MappedFile(path, "r+") as file:
        yield file


@given(offset=st.integers(0, 2 * GRANULARITY), length=st.integers(1, GRANULARITY))
def test_slack(tmp_path_factory: pytest.TempPathFactory, offset: int, length: int) -> None:
    """Closing a view also unmaps the pages before its offset, which are mapped for alignment."""
    path = tmp_path_factory.getbasetemp() / "slack"
    if not path.exists():
        path.write_bytes(CONTENT)
    with MappedFile(path) as file:
        before = _probe.file_maps()
        view = file.view(offset, length)
        expected = CONTENT[offset : offset + length] == view[:]
        where = _probe.address_of(view.data)
        assert _probe.is_mapped(where, length)
        view.close()
        assert expected
        assert before == _probe.file_maps()


def test_view_of_a_view(file: MappedFile) -> None:
    """A view of a view is a view of the file, with its own map and its own lifetime."""
    outer = file.view(GRANULARITY - 5, 100)
    inner = outer.view(3, 10, populate=True)
    innermost = inner.view(2)
    assert (GRANULARITY - 2, 10, GRANULARITY, 8) == (
        inner.offset,
        len(inner),
        innermost.offset,
        len(innermost),
    )
    assert CONTENT[GRANULARITY : GRANULARITY + 8] == innermost[:]
    with outer.view(100) as none, outer.view(7, 0) as nothing, nothing.view() as neither:
        assert 0 == len(none) == len(nothing) == len(neither)
    innermost[0:3] = b"new"
    assert b"new" == outer[5:8] == inner[2:5] == file[GRANULARITY : GRANULARITY + 3]
    with pytest.raises(BufferError, match="views"):
        file.close(strict=True)
    outer.close(strict=True)
    assert not outer.mapped
    assert inner.mapped
    for offset, length in ((11, None), (0, 11), (3, 8), (10, 1)):
        with pytest.raises(ValueError, match="view, which has 10 bytes"):
            inner.view(offset, length)
    for wrong in (-1, 1.5, "0", 2**64):
        with pytest.raises((ValueError, TypeError, OverflowError)):
            inner.view(wrong)
    with pytest.raises(ValueError, match=r"view on .* is closed"):
        outer.view()
    file.resize(2 * len(CONTENT))
    with inner.view(2, 3) as part:
        assert b"new" == part[:]
    file.close()
    with pytest.raises(
        ValueError, match="make the view before closing it, or take a slice of data"
    ):
        inner.view()
    assert b"new" == innermost[:3] == bytes(inner.data[2:5])
    inner.close()
    innermost.close()


@pytest.mark.parametrize("mode", ["r", "c"])
def test_view_of_a_view_has_its_mode(path: Path, mode: Any) -> None:
    """A view of a view has the mode of the file. A private one shows the file's bytes, not those
    written to the first view."""
    path.write_bytes(CONTENT)
    with MappedFile(path, mode) as file, file.view(5, 100) as outer:
        if mode == "c":
            outer[0:3] = b"new"
        with outer.view(0, 3) as inner:
            assert (CONTENT[5:8], mode == "r") == (inner[:], inner.readonly)


def test_first_use(file: MappedFile) -> None:
    """The map of the whole file is made on first use. Views and flushes do not need it."""
    before = _probe.file_maps()
    assert not file.mapped
    file.view(5, 10).close()
    assert len(file) == len(CONTENT)
    file.flush()
    repr(file)
    assert before == _probe.file_maps()
    assert file[0] == 0
    assert file.mapped
    assert before != _probe.file_maps()


def test_views_need_no_handles(file: MappedFile) -> None:
    """A view has no handle, only memory."""
    before = _probe.handles()
    views = [file.view(number, 10) for number in range(50)]
    assert before == _probe.handles()
    for view in views:
        view.close()


@pytest.mark.parametrize("window", ["file", "view"])
def test_dropped_by_weak_reference(file: MappedFile, window: str) -> None:
    """Weak references to windows work. A window is deallocated with its last reference: it is in no
    cycle."""
    gc.disable()
    try:
        other = MappedFile(file.name, "r")
        target = other if window == "file" else other.view(7)
        target[0]
        target.data.release()
        with pytest.raises(TypeError):
            target["x"]
        with pytest.raises(ValueError, match="past the end"):
            target.flush(10**9)
        target.close()
        weak = weakref.ref(target)
        del target
        if window == "file":
            del other
        assert weak() is None
        if window == "view":
            other.close()
    finally:
        gc.enable()


@pytest.mark.parametrize("window", ["file", "view"])
def test_no_copies(file: MappedFile, window: str) -> None:
    """Pickling and copying a window raise an error that says what to do."""
    target = file if window == "file" else file.view()
    for function in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="open the file where it is needed"):
            function(target)
    if window == "view":
        target.close()


def test_strict_close_counts_at_once(file: MappedFile) -> None:
    """A strict close works as soon as the last derived object is deallocated: a slice, a cast, an
    array of an array."""
    view = file.view(3, 1000)
    array = np.frombuffer(view.data[8:][:160].cast("I"), "<u4").reshape(4, 10)[1:, ::2].T
    view.data.release()
    for window in (view, file):
        with pytest.raises(BufferError):
            window.close(strict=True)
    expected = array.tobytes()
    view.close()
    assert expected == array.tobytes()
    with pytest.raises(BufferError, match="1 buffer of it alive"):
        file.close(strict=True)
    del array
    file.close(strict=True)


def test_exception_keeps_nothing(path: Path) -> None:
    """A kept exception with its traceback does not keep the map: after close() it is unmapped."""
    path.write_bytes(CONTENT)
    kept = []
    before = _probe.file_maps()
    with MappedFile(path, "r") as file, file.view(9, 5000) as view:
        for window in (file, view):
            for wrong in (
                lambda window=window: window[10**9],
                lambda window=window: window.find("text"),
                lambda window=window: window.find(b"a", "1"),
                lambda window=window: window.__setitem__(0, 1),
                lambda window=window: window.flush(-1),
                lambda window=window: window["x"],
                lambda window=window: window[::0],
            ):
                try:
                    wrong()
                except (IndexError, TypeError, ValueError) as error:
                    kept.append(error)
    assert len(kept) == 14
    assert before == _probe.file_maps()


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_object_as_buffer(path: Path, mode: str) -> None:
    """The object itself is a buffer of its memory. The buffer is read-only if the object is, and is
    counted while it is alive."""
    path.write_bytes(CONTENT)
    with MappedFile(path, mode) as file, file.view(5, PAGE_SIZE) as view:
        for window, start in ((file, 0), (view, 5)):
            assert CONTENT[start : start + len(window)] == bytes(window)
            buffer = memoryview(window)
            assert (mode == "r") == buffer.readonly
            assert _probe.address_of(window.data) == _probe.address_of(buffer)
            with pytest.raises(BufferError, match="1 buffer of it alive"):
                view.close(strict=True) if window is view else file.view().close() or file.close(
                    strict=True
                )
            buffer.release()
        view.close(strict=True)
        file.close(strict=True)


def buffers_of(window: Any) -> Iterator[Any]:
    """Yield every object that gives access to the memory of a window."""
    for view in (window.data, memoryview(window)):
        yield view
        yield view[1:]
        yield view.cast("H" if len(view) % 2 == 0 else "B")
        owner = view
        while isinstance(owner, memoryview):
            owner = owner.obj
        yield owner
        yield memoryview(owner)
        yield memoryview(owner).obj


def test_no_door_to_write(path: Path) -> None:
    """Read-only memory cannot be written: through .obj, NumPy's flag, ctypes, the buffer protocol
    or a file's readinto: C5."""
    path.write_bytes(CONTENT)
    with MappedFile(path, "r") as file, file.view(3, 1000) as view:
        for window in (file, view):
            for each in buffers_of(window):
                with pytest.raises((TypeError, BufferError)):
                    (ctypes.c_char * 4).from_buffer(each)
                with pytest.raises((TypeError, BufferError)), open(path, "rb") as other:
                    other.readinto(each)
                for array in (
                    np.ndarray((4,), "u1", each),
                    np.frombuffer(each, "u1"),
                    np.asarray(memoryview(each)),
                ):
                    with pytest.raises(ValueError, match=r"WRITEABLE|read-only|writeable"):
                        array.flags.writeable = True
                    with pytest.raises(ValueError, match="read-only"):
                        array[0] = 1
                if isinstance(each, memoryview):
                    with pytest.raises(TypeError, match="read-only"):
                        each[0] = 1
            with pytest.raises((TypeError, BufferError)):
                struct.pack_into("<I", window, 0, 1)
            del each, array
    assert CONTENT == path.read_bytes()


def test_what_takes_bytes_takes_a_window(path: Path, tmp_path: Path) -> None:
    """Functions that accept a buffer accept a window."""
    path.write_bytes(CONTENT)
    for mode in ("r", "r+", "c"):
        with MappedFile(path, mode) as file, file.view(5, 10_000) as view:
            for window, content in ((file, CONTENT), (view, CONTENT[5:10_005])):
                assert content == bytes(window) == bytearray(window) == memoryview(window).tobytes()
                assert struct.unpack_from("<I", content, 8) == struct.unpack_from("<I", window, 8)
                assert (
                    re.search(rb"\x07.", content, re.DOTALL).span()
                    == re.search(rb"\x07.", window, re.DOTALL).span()
                )
                assert hashlib.sha256(content).digest() == hashlib.sha256(window).digest()
                assert zlib.crc32(content) == zlib.crc32(window)
                assert content == np.frombuffer(window, "u1").tobytes()
                assert content == b"".join([window])
                assert b"x" + content == b"x" + window
                target = tmp_path / "copy"
                with open(target, "wb") as copy:
                    assert len(content) == copy.write(window)
                assert content == target.read_bytes()
                if mode != "r":
                    struct.pack_into("<I", window, 8, *struct.unpack_from("<I", content, 8))
                    (ctypes.c_char * 4).from_buffer(window)
            gc.collect()  # ctypes makes cycles
            view.close(strict=True)
            file.close(strict=True)


def test_limit_of_ndarray(path: Path) -> None:
    """NumPy's ndarray(buffer=) releases the buffer, and keeps its owner. The owner of .data keeps
    the memory."""
    path.write_bytes(CONTENT)
    for mode in ("r", "r+", "c"):
        file = MappedFile(path, mode)
        array = np.ndarray((1000,), "u1", file.data, 3)
        file.close()
        assert file.mapped
        assert CONTENT[3:1003] == array.tobytes()
        del array
        assert not file.mapped


EXIT = """
import sys, threading, weakref
from mappedfile import MappedFile
path, how = sys.argv[1:]
file = MappedFile(path, "r+"); view = file.view(3); data = view.data[1:]; file[0]
if how == "cycle":
    class Cycle: pass
    one = Cycle(); one.me = one; one.file, one.view = file, view
    weakref.finalize(one, print, "end", file=sys.stderr)
    del one, file, view
elif how == "thread":
    began = threading.Event()
    def work():
        began.set()
        while True: view.find(b"absent" * 3)
    threading.Thread(target=work, daemon=True).start(); began.wait()
elif how == "excepthook":
    sys.excepthook = lambda *_: None
    raise RuntimeError(file, view, data)
elif how == "exit in with":
    with file, view:
        sys.exit(0)
elif how == "closed behind its back":
    import mappedfile.contract._lifetime as l
    l.close_behind_its_back(file.handle)
"""


@pytest.mark.parametrize("how", ["plain", "cycle", "thread", "excepthook", "exit in with"])
@pytest.mark.parametrize("warn", ["ignore", "always", "error"])
def test_exit(path: Path, how: str, warn: str) -> None:
    """The interpreter exits with objects alive, each kind alone: no crash, and no output except
    ResourceWarnings."""
    path.write_bytes(CONTENT)
    flags = ("-W", f"{warn}::ResourceWarning")
    done = run_python(*code(EXIT), path, how, flags=flags, check=False, timeout=60)
    assert done.returncode == (1 if how == "excepthook" else 0), done.stderr
    if warn == "ignore":
        assert done.stderr.strip() in ("", "end")
    lines = [
        line
        for line in done.stderr.splitlines()
        if "Error" in line and "ResourceWarning" not in line
    ]
    assert [] == lines
    if warn == "always":
        assert "Traceback" not in done.stderr


def test_exit_tells(path: Path) -> None:
    """An error of unmapping or closing at exit goes to standard error, and the exit status does not
    change."""
    path.write_bytes(CONTENT)
    what = (*code(EXIT), path, "closed behind its back")
    done = run_python(*what, flags=("-W", "ignore"), timeout=60)
    assert "OSError" in done.stderr
