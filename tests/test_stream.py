"""A stream is a binary file. The model is io.BytesIO, and programs that read files are run on
it."""

import csv
import errno
import gc
import gzip
import hashlib
import io
import json
import lzma
import os
import pickle
import random
import shutil
import signal
import sys
import tarfile
import time
import weakref
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from children.crew import Crew, at_once
from hypothesis import given
from hypothesis import strategies as st
from support import LINUX, small_file_system

import mappedfile
from mappedfile import GRANULARITY, PAGE_SIZE, MappedFile

SIZE = GRANULARITY + 3 * PAGE_SIZE + 77
CONTENT = bytes(random.Random(2).choices(b"abc \n\0", k=SIZE))


@pytest.fixture
def file(path: Path) -> Iterator[MappedFile]:
    """Yield a mapped file of a few lines."""
    path.write_bytes(b"one\ntwo\n\nfour")
    with MappedFile(path, "r+") as file:
        yield file


# As a file


@pytest.mark.parametrize(
    "text",
    [
        "s.read(1, 2)",
        "s.read('a')",
        "s.read1('a')",
        "s.readline('a')",
        "s.readline(1, 2)",
        "s.readlines('a')",
        "s.readinto(5)",
        "s.readinto(b'abc')",
        "s.write(5)",
        "s.write('a')",
        "s.writelines(5)",
        "s.writelines(['a'])",
        "s.seek()",
        "s.seek(0, 0, 0)",
        "s.seek('a')",
        "s.seek(0, 'a')",
        "s.truncate('a')",
    ],
)
def test_wrong_arguments(file: MappedFile, text: str) -> None:
    """Wrong arguments raise the same exceptions as io.BytesIO, and the position does not change."""
    with file.stream() as stream:
        raised = []
        for s in (io.BytesIO(file[:]), stream):
            s.seek(3)
            with pytest.raises(TypeError) as caught:
                eval(text, {"s": s})
            raised.append((caught.type, s.tell()))
        assert raised[0] == raised[1]
    with pytest.raises(TypeError), file.stream() as stream:
        stream.peek("a")  # type: ignore[arg-type]
    again = weakref.ref(stream)
    del s, stream, caught
    assert again() is None


def test_is_a_binary_file(file: MappedFile) -> None:
    """A stream has the properties of a buffered binary file."""
    with file.stream() as s:
        assert isinstance(s, io.BufferedIOBase)
        assert isinstance(s, io.IOBase)
        assert isinstance(s, mappedfile.Stream)
        assert (True, True, True, False) == (s.readable(), s.writable(), s.seekable(), s.isatty())
        assert (file.name, "rb+", False) == (s.name, s.mode, s.closed)
        assert s.flush() is None
        assert weakref.ref(s)() is s
        assert "offset 0, length 13" in repr(s)
    assert "closed" in repr(s)
    for method in (s.fileno, s.detach):
        with pytest.raises(io.UnsupportedOperation):
            method()
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(s)
    with pytest.raises(TypeError):
        mappedfile.Stream()


def test_names_all_of_bufferediobase(file: MappedFile) -> None:
    """A stream has every name of BufferedIOBase, and of BufferedReader except ``raw``."""
    with file.stream() as s:
        names = {*dir(io.BufferedIOBase), *dir(io.BufferedReader)} - {"raw"}
        assert [] == sorted(name for name in names if name[0] != "_" and not hasattr(s, name))


def test_lines(file: MappedFile) -> None:
    """Lines end in the same places as in a file."""
    s = file.stream()
    assert [b"one\n", b"two\n", b"\n", b"four"] == list(s)
    assert b"" == s.readline()
    s.seek(0)
    assert [b"on", b"e\n", b"", b"two\n"] == [
        s.readline(2),
        s.readline(9),
        s.readline(0),
        s.readline(-1),
    ]
    s.seek(0)
    assert [b"one\n", b"two\n"] == s.readlines(5)
    assert [b"\n", b"four"] == s.readlines()
    assert [] == s.readlines()
    assert [b"wo\n"] == list(file.stream(5, 3))


def test_peek_and_read(file: MappedFile) -> None:
    """peek() does not change the position; every way to read does."""
    s = file.stream()
    assert (b"one", 0, b"one\ntwo\n\nfour") == (s.peek(3), s.tell(), s.peek())
    assert (b"on", b"e\n", 4) == (s.read(2), s.read1(2), s.tell())
    room = bytearray(4)
    assert (4, b"two\n", 4, b"\nfou", 1, b"rfou") == (
        s.readinto(room),
        bytes(room),
        s.readinto1(room),
        bytes(room),
        s.readinto(room),
        bytes(room),
    )
    assert (b"", b"", 0, b"") == (s.read(), s.read1(), s.readinto(room), s.peek(5))
    s.seek(-4, io.SEEK_END)
    assert b"four" == s.read(None)


def test_positions(file: MappedFile) -> None:
    """Any position from 0 on is possible."""
    s = file.stream(4)
    assert (3, 5, 8, 100) == (s.seek(3), s.seek(2, 1), s.seek(-1, 2), s.seek(100))
    assert (b"", b"", b"") == (s.read(), s.readline(), s.peek())
    assert 100 == s.tell()
    for wrong in ((0, 3), (0, -1)):
        with pytest.raises(ValueError):
            s.seek(*wrong)
    # The error is an OSError, as of files, and a ValueError, as of io.BytesIO.
    for wrong in ((-1,), (-101, 1), (-10, 2)):
        with pytest.raises(OSError) as caught:
            s.seek(*wrong)
        assert isinstance(caught.value, ValueError)
        assert errno.EINVAL == caught.value.errno
    for wrong in ((1.0,), ("1",), (0, "1"), (), (0, 0, 0)):
        with pytest.raises(TypeError):
            s.seek(*wrong)
    for wrong in ((2**63,), (2**63 - 1, 1)):
        with pytest.raises(OverflowError):
            s.seek(*wrong)
    assert 100 == s.tell()
    assert 2**63 - 1 == s.seek(2**63 - 1)
    assert b"" == s.read(10)


counts = st.none() | st.integers(-2, 40) | st.sampled_from([PAGE_SIZE, SIZE, sys.maxsize])
steps = st.one_of(
    st.tuples(
        st.sampled_from(["read", "read1", "readline", "readlines"]),
        counts.map(lambda n: (n,)) | st.just(()),
    ),
    st.tuples(st.just("seek"), st.tuples(st.integers(0, SIZE + 9))),
    st.tuples(st.just("seek"), st.tuples(st.integers(-9, 9), st.just(1))),
    st.tuples(st.just("seek"), st.tuples(st.integers(-SIZE, 9), st.just(2))),
    st.tuples(
        st.sampled_from(["readinto", "readinto1"]),
        st.integers(0, 50).map(lambda n: (bytearray(n),)),
    ),
    st.tuples(st.just("write"), st.binary(max_size=9).map(lambda data: (data,))),
    st.tuples(st.just("tell"), st.just(())),
)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, io.BytesIO]]:
    """Yield a stream on a part of a file, and its model."""
    path = tmp_path_factory.mktemp("stream") / "file"
    path.write_bytes(CONTENT)
    with MappedFile(path, "r+") as file, file.stream(5, SIZE - 9) as stream:
        yield stream, io.BytesIO(CONTENT[5:-4])


@given(todo=st.lists(steps, max_size=12))
def test_does_what_bytesio_does(
    pair: tuple[Any, io.BytesIO], todo: list[tuple[str, tuple[Any, ...]]]
) -> None:
    """A stream and BytesIO give the same results for any calls. Left out are writes past the end
    and positions before the start, which BytesIO handles differently."""
    stream, model = pair
    length = SIZE - 9
    for name, arguments in todo:
        if name == "seek" and len(arguments) == 2:
            start = model.tell() if arguments[1] == 1 else length
            if start + arguments[0] < 0:
                continue
        if name == "write" and model.tell() + len(arguments[0]) > length:
            continue
        given = [type(one)(one) if isinstance(one, bytearray) else one for one in arguments]
        expected = getattr(model, name)(*arguments)
        assert expected == getattr(stream, name)(*given), (name, arguments)
        assert list(arguments) == given
        assert model.tell() == stream.tell()
    model.seek(0)
    stream.seek(0)
    assert model.read() == stream.read()


@pytest.mark.parametrize("size", [65535, 65536, 65537, (1 << 20) + 65536, 3 << 20])
def test_long_lines(path: Path, size: int) -> None:
    """Lines of any length are read correctly."""
    path.write_bytes(b"x" * size + b"\n" + b"y" * size)
    with MappedFile(path) as file:
        s = file.stream()
        assert b"x" * size + b"\n" == s.readline()
        assert (b"y" * 9, size + 10) == (s.readline(9), s.tell())
        assert b"y" * (size - 9) == s.readline()


# Writing


def test_write(file: MappedFile) -> None:
    """Written bytes are in the window at once."""
    s = file.stream(4)
    other = file.stream()
    assert 2 == s.write(b"TW")
    assert s.writelines([bytearray(b"O"), memoryview(b"-x-x")[::2]]) is None
    assert b"one\nTWO--four" == file[:]
    assert (5, b"one\nTWO--four") == (s.tell(), other.read())
    for wrong in ("text", 3, None):
        with pytest.raises(TypeError):
            s.write(wrong)
    with pytest.raises(TypeError):
        s.readinto(b"read-only")
    with pytest.raises(TypeError):
        s.readinto(memoryview(bytearray(9))[::2])
    s.seek(0)
    s.write(file.data[1:5])  # overlaps its source
    assert b"one\nne\nT-four" == file[:]


def test_a_full_window(file: MappedFile) -> None:
    """A write that does not fit writes what fits, and raises ENOSPC with the count."""
    s = file.stream(0, 8)
    s.seek(-3, 2)
    with pytest.raises(OSError, match="3 of 5 bytes") as caught:
        s.write(b"12345")
    assert (errno.ENOSPC, 3) == (caught.value.errno, caught.value.characters_written)
    assert str(file.name) == str(caught.value.filename)
    assert (8, b"one\nt123\nfour") == (s.tell(), file[:])
    for position in (8, 9, 2**40):
        s.seek(position)
        assert 0 == s.write(b"")
        with pytest.raises(OSError, match="0 of 1 bytes") as caught:
            s.write(b"x")
        assert (errno.ENOSPC, 0) == (caught.value.errno, caught.value.characters_written)
        assert position == s.tell()
    assert b"one\nt123\nfour" == file[:]


def test_read_only(path: Path) -> None:
    """A stream on a read-only window is read-only. A stream on a private map can be written, and
    the file does not change."""
    path.write_bytes(b"12345")
    with MappedFile(path) as file, file.stream() as s:
        assert (False, "rb") == (s.writable(), s.mode)
        for write in (lambda: s.write(b"x"), lambda: s.writelines([b"x"]), lambda: s.truncate(0)):
            with pytest.raises(io.UnsupportedOperation):
                write()
    with MappedFile(path, "c") as file, file.stream() as s:
        assert s.writable()
        s.write(b"abc")
        assert (b"abc45", b"12345") == (file[:], path.read_bytes())
    for mode in ("r", "c"):
        with (
            MappedFile(path, mode) as file,
            pytest.raises(io.UnsupportedOperation, match=f"mode '{mode}'"),
        ):
            file.stream(grow=True)


def test_truncate(file: MappedFile) -> None:
    """truncate() is refused without grow=True, with advice to use resize()."""
    s = file.stream()
    s.seek(3)
    for size in ((), (None,), (3,), (0,), (13,), (100,)):
        with pytest.raises(io.UnsupportedOperation, match="resize"):
            s.truncate(*size)
    assert (3, 13) == (s.tell(), len(file))


# Growing


@pytest.mark.parametrize("mode", ["r+", "w+", "x+"])
@pytest.mark.parametrize("sparse", [False, True])
def test_grow(path: Path, mode: Any, sparse: bool) -> None:
    """With grow=True, the file always has the length of the written data."""
    rng = random.Random(3)
    model = bytearray()
    size: Any = {} if mode == "r+" else {"size": 0}
    if mode == "r+":
        path.touch()
    with MappedFile(path, mode, sparse=sparse, **size) as file, file.stream(grow=True) as s:
        early = file.data
        for _ in range(300):
            data = rng.randbytes(rng.choice((1, 45, 1000, PAGE_SIZE)))
            assert len(data) == s.write(data)
            model += data
            assert len(model) == s.tell() == len(file) == path.stat().st_size
        assert model == file[:]
        s.seek(10, 2)
        s.write(b"after a gap")
        model += bytes(10) + b"after a gap"
        s.seek(5)
        s.write(b"within")
        model[5:11] = b"within"
        s.seek(-2, 2)
        s.write(b"across")
        model[-2:] = b"across"
        assert model == file[:]
        s.seek(0)
        assert model == s.read()
        assert b"" == bytes(early)
    assert model == path.read_bytes()


def test_sees_the_file_grow(file: MappedFile) -> None:
    """A stream with grow=True sees bytes that others append. Any other keeps the range that it was
    made for."""
    growing, steady = file.stream(grow=True), file.stream()
    assert growing.read() == steady.read()
    file.resize(20)
    file[13:] = b"\nfive\n6"
    assert (b"\n", b"five\n", b"6", b"") == (
        growing.readline(),
        growing.readline(),
        growing.readline(),
        growing.read(),
    )
    assert (b"", 13) == (steady.read(), steady.seek(0, 2))
    with open(file.name, "ab") as other:
        other.write(b"789")
    assert b"" == growing.read()
    assert file.refresh()
    assert (b"789", 23) == (growing.read(), growing.seek(0, 2))
    with open(file.name, "ab") as other:
        other.write(b"another's")
    growing.write(b"ours")  # the write makes the appended bytes visible
    assert b"6789oursher's" == file[19:]
    assert (b"her's", 32) == (growing.read(), growing.tell())


def test_grow_with_an_offset(file: MappedFile) -> None:
    """Positions are relative to the start of the stream."""
    with file.stream(9, grow=True) as s:
        s.seek(0, 2)
        s.write(b"teen")
        assert (8, b"one\ntwo\n\nfourteen") == (s.tell(), file[:])
    with pytest.raises(ValueError, match="offset"):
        file.stream(100, grow=True)


def test_grow_is_for_whole_files(file: MappedFile) -> None:
    """grow=True with a part of a file raises ValueError."""
    with pytest.raises(ValueError, match="whole file"):
        file.stream(0, 3, grow=True)
    with file.view(0, 3) as view, pytest.raises(ValueError, match="whole file"):
        view.stream(grow=True)


def test_grow_after_close(path: Path) -> None:
    """After its file is closed, a stream can read and write the existing bytes, and cannot grow."""
    path.write_bytes(b"12345")
    file = MappedFile(path, "r+")
    s = file.stream(grow=True)
    s.seek(0, 2)
    s.write(b"6")
    file.close()
    with pytest.raises(ValueError, match="closed, and a stream needs it to grow"):
        s.write(b"7")
    s.seek(3)
    assert (6, 2, b"6", b"") == (s.tell() + 3, s.write(b"45"), s.read(1), s.read())
    s.close()
    assert b"123456" == path.read_bytes()


def test_truncate_with_grow(file: MappedFile) -> None:
    """With grow=True, truncate() sets the size of the file up and down, and the position does not
    change."""
    with file.stream(4, grow=True) as s:
        s.seek(3)
        assert (3, 3, b"one\ntwo") == (s.truncate(), s.tell(), file[:])
        assert (9, 3, b"one\ntwo" + bytes(6)) == (s.truncate(9), s.tell(), file[:])
        assert (bytes(6), 13) == (s.read(), os.path.getsize(file.name))
        assert (0, 4, b"") == (s.truncate(0), len(file), s.read())
        assert 5 == s.write(b"after")
        assert b"one\n" + bytes(9) + b"after" == file[:]
        with pytest.raises(OSError) as caught:
            s.truncate(-1)
        assert (errno.EINVAL, True) == (caught.value.errno, isinstance(caught.value, ValueError))
        assert 18 == len(file)


def test_truncate_in_use(file: MappedFile) -> None:
    """truncate() does not remove bytes that a view, a buffer or another stream uses. The stream
    stays usable."""
    with file.stream(grow=True) as s:
        for kept in (file.view, lambda: file.data, lambda: file.stream(grow=True)):
            with kept(), pytest.raises(BufferError, match=r"1 (view|buffer)"):
                s.truncate(3)
            assert (0, b"one\ntwo\n\nfour") == (s.seek(0), s.read())
        with open(file.name, "ab") as other:
            other.write(b"another's")
        with pytest.raises(ValueError, match="refresh"):
            s.truncate(3)
        assert file.refresh()
        assert (3, 3, 3) == (s.truncate(3), len(file), os.path.getsize(file.name))
        file.close()
        for size in (2, 4):
            with pytest.raises(ValueError, match="closed"):
                s.truncate(size)
        assert (0, b"one") == (s.seek(0), s.read())


def test_too_far(file: MappedFile) -> None:
    """A write past the largest file size raises an error."""
    with file.stream(grow=True) as s:
        s.seek(2**63 - 1)
        with pytest.raises((OverflowError, OSError)):
            s.write(b"xx")
        assert (2**63 - 1, 13) == (s.tell(), len(file))


@pytest.mark.skipif(not LINUX, reason="Linux only: mounts a small file system")
def test_grow_on_a_full_device(tmp_path: Path) -> None:
    """On a full disk, a write writes nothing, and the size of the file does not change."""
    with (
        small_file_system(tmp_path, "tmpfs", 1 << 20) as place,
        MappedFile(place / "file", "w+", size=10) as file,
        file.stream(grow=True) as s,
    ):
        s.seek(0, 2)
        with pytest.raises(OSError) as caught:
            s.write(bytes(2 << 20))
        assert (errno.ENOSPC, 10, 10) == (caught.value.errno, s.tell(), len(file))
        assert 5 == s.write(b"small")
        assert b"small" == file[10:]


def test_small_writes_can_be_buffered(path: Path) -> None:
    """An io.BufferedWriter combines small writes to a stream with grow=True."""
    with MappedFile(path, "w+", size=0) as file:
        with io.BufferedWriter(file.stream(grow=True)) as out:
            out.writelines(b"%d\n" % number for number in range(10_000))
        assert b"".join(b"%d\n" % number for number in range(10_000)) == file[:]


# Lifetime


def test_counts_as_a_buffer(path: Path) -> None:
    """A stream keeps the memory. It counts as a buffer for close(strict=True) and for shrinking."""
    path.write_bytes(CONTENT)
    file = MappedFile(path, "r+")
    view = file.view(3, 100)
    first, second = file.stream(), view.stream(1, 10)
    with pytest.raises(BufferError, match="1 view and 2 buffers"):
        file.close(strict=True)
    with pytest.raises(BufferError, match="1 buffer"):
        view.close(strict=True)
    with pytest.raises(BufferError, match="1 view and 2 buffers"):
        file.resize(10)
    file.resize(2 * SIZE)
    view.close()
    file.close()
    assert view.mapped
    assert (CONTENT, CONTENT[4:14]) == (first.read(), second.read())
    first.seek(0)
    first.write(b"written")
    first.close()
    del second
    gc.collect()
    assert (False, False) == (file.mapped, view.mapped)
    assert b"written" == path.read_bytes()[:7]


@pytest.mark.parametrize("grow", [False, True])
def test_shrink_after_close(file: MappedFile, grow: bool) -> None:
    """A closed stream does not prevent shrinking."""
    s = file.stream(grow=grow)
    with pytest.raises(BufferError):
        file.resize(3)
    s.close()
    s.close()
    file.resize(3)
    assert b"one" == file[:]
    file.close(strict=True)


def test_closed(file: MappedFile) -> None:
    """Every other use of a closed stream raises ValueError."""
    s = file.stream()
    with s as same:
        assert s is same
    assert s.closed
    calls = {
        "read": (),
        "read1": (),
        "readline": (),
        "readlines": (),
        "peek": (),
        "tell": (),
        "flush": (),
        "readable": (),
        "writable": (),
        "seekable": (),
        "isatty": (),
        "__iter__": (),
        "__next__": (),
        "__enter__": (),
        "truncate": (),
        "seek": (0,),
        "readinto": (bytearray(3),),
        "write": (b"x",),
        "writelines": ([],),
    }
    for name, arguments in calls.items():
        with pytest.raises(ValueError, match="closed") as caught:
            getattr(s, name)(*arguments)
        assert not isinstance(caught.value, io.UnsupportedOperation)
    assert (file.name, "rb+") == (s.name, s.mode)
    assert b"one" == file[:3]


def test_an_index_closes_it(file: MappedFile) -> None:
    """An argument that closes the stream in its __index__ makes the call raise ValueError."""

    class Closes:
        def __index__(self) -> int:
            s.close()
            return 3

    for name in ("read", "readline", "peek", "seek", "readlines"):
        s = file.stream()
        with pytest.raises(ValueError, match="closed"):
            getattr(s, name)(Closes())


def test_empty(path: Path) -> None:
    """A stream on an empty file or part is at its end."""
    path.touch()
    with MappedFile(path, "r+") as file:
        s = file.stream()
        assert (b"", b"", [], 0, b"") == (
            s.read(),
            s.readline(),
            list(s),
            s.readinto(bytearray(3)),
            s.peek(),
        )
        with pytest.raises(OSError, match="0 of 1"):
            s.write(b"x")
        file.resize(10)
        part = file.stream(10, 0)
        assert (b"", 0) == (part.read(), part.seek(0, 2))
        with pytest.raises(ValueError):
            file.stream(11)
        with pytest.raises(ValueError):
            file.stream(5, 6)
        for wrong in ("1", 1.0):
            with pytest.raises(TypeError):
                file.stream(wrong)
        with pytest.raises(ValueError):
            file.stream(-1)
        with pytest.raises(OverflowError):
            file.stream(0, 2**63)
    with pytest.raises(ValueError, match="closed"):
        file.stream()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not truncate mapped files")
def test_pages_that_are_gone(path: Path) -> None:
    """Reaching missing pages raises MappingFault, and the position does not change."""
    size = 4 * PAGE_SIZE
    path.write_bytes(b"x" * (PAGE_SIZE + 5) + b"\n" + b"y" * (size - PAGE_SIZE - 6))
    with MappedFile(path, "r+") as file:
        s = file.stream()
        with open(path, "r+b") as other:
            other.truncate(PAGE_SIZE)
        assert b"x" * PAGE_SIZE == s.read(PAGE_SIZE)
        for position in (PAGE_SIZE, 2 * PAGE_SIZE + 3):
            for call in (
                lambda: s.read(9),
                s.read,
                s.readline,
                lambda: next(s),
                lambda: s.readinto(bytearray(9)),
                lambda: s.write(b"123"),
                lambda: s.peek(9),
                s.readlines,
            ):
                s.seek(position)
                with pytest.raises(mappedfile.MappingFault) as caught:
                    call()
                assert position == s.tell()
                assert caught.value.offset >= PAGE_SIZE
                assert (
                    "refresh() of the mapped file maps the present bytes, for new views and streams"
                    in str(caught.value)
                )
                assert str(path) == str(caught.value.filename)
        s.seek(0)
        assert b"xxxx" == s.readline(4)
        growing = file.stream(grow=True)
        growing.seek(0, 2)
        with pytest.raises(mappedfile.MappingFault):
            growing.write(b"more")
        assert file.refresh()
        assert (b"x" * PAGE_SIZE, b"") == (growing.seek(0) or growing.read(), growing.read())
        growing.write(b"again")
        assert b"again" == file[PAGE_SIZE:]


@pytest.mark.skipif(sys.platform == "win32", reason="needs signal.setitimer")
def test_a_long_search_hears_signals(path: Path) -> None:
    """Reading an endless line releases the GIL, and Ctrl-C ends it."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    path.touch()
    with MappedFile(path, "r+", sparse=True) as file:
        file.resize(1 << 33)
        s = file.stream()
        before = signal.signal(signal.SIGALRM, interrupt)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with pytest.raises(KeyboardInterrupt):
                s.readline()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert 0 == s.tell()


def test_threads(path: Path) -> None:
    """Threads that share a stream share its position: each gets whole lines, and each line once."""
    lines = [b"%06d\n" % number for number in range(5000)]
    path.write_bytes(b"".join(lines))
    found: list[list[bytes]] = [[], [], [], []]
    with MappedFile(path) as file, file.stream() as s:
        raised = at_once(*(partial(out.extend, s) for out in found))
    assert [None] * 4 == raised
    assert lines == sorted(line for out in found for line in out)


def test_threads_that_append(path: Path) -> None:
    """Writes of several threads to one stream do not overlap."""
    with MappedFile(path, "w+", size=0, sparse=True) as file, file.stream(grow=True) as s:

        def append(number: int) -> None:
            for _ in range(200):
                s.write(b"%d" % number * 9 + b"\n")

        assert [None] * 4 == at_once(*(partial(append, number) for number in range(4)))
        assert len(file) == 4 * 200 * 10
        assert sorted(b"%d" % number * 9 for number in range(4) for _ in range(200)) == sorted(
            file[:].split()
        )


def test_threads_that_close(path: Path) -> None:
    """Closing a stream ends the reading of other threads without any other effect."""
    path.write_bytes(CONTENT)
    with MappedFile(path, "r+") as file:
        for _ in range(30):
            s = file.stream()

            def read(s: Any = s) -> None:
                with suppress(ValueError):
                    while True:
                        s.seek(0)
                        for line in s:
                            assert line

            with Crew() as crew:
                for _ in range(3):
                    crew.start(read)
                time.sleep(0.002)
                s.close()
        file.close(strict=True)


# Programs that read files


@pytest.fixture
def stream(path: Path) -> Iterator[Any]:
    """Yield a stream with grow=True on an empty file."""
    with MappedFile(path, "w+", size=0) as file, file.stream(grow=True) as stream:
        yield stream


def test_zipfile(stream: Any) -> None:
    """Zipfile writes, appends and reads."""
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("a.txt", CONTENT)
        out.writestr("b.txt", b"short")
    with zipfile.ZipFile(stream, "a") as out:
        out.writestr("c.txt", b"appended")
    with zipfile.ZipFile(stream) as archive:
        assert archive.testzip() is None
        assert [CONTENT, b"short", b"appended"] == [
            archive.read(name) for name in ("a.txt", "b.txt", "c.txt")
        ]
        with archive.open("a.txt") as member:
            assert CONTENT.splitlines(keepends=True)[0] == member.readline()
    assert not stream.closed


def test_zipfile_that_gets_shorter(stream: Any) -> None:
    """Zipfile truncates an archive that has become shorter."""
    with zipfile.ZipFile(stream, "w") as out:
        out.writestr("a.txt", b"a")
        out.comment = b"a long comment"
    length = stream.tell()
    with zipfile.ZipFile(stream, "a") as out:
        out.comment = b""
    assert length - 14 == stream.seek(0, 2)
    with zipfile.ZipFile(stream) as archive:
        assert (b"a", b"") == (archive.read("a.txt"), archive.comment)


def test_no_archive(file: MappedFile) -> None:
    """Modules that look at the end of a file report that this is not an archive."""
    with file.stream() as s:
        assert not zipfile.is_zipfile(s)
        s.seek(0)
        assert not tarfile.is_tarfile(s)
        with pytest.raises(zipfile.BadZipFile):
            zipfile.ZipFile(s)


@pytest.mark.parametrize("kind", ["", "gz", "bz2", "xz"])
def test_tarfile(stream: Any, kind: str) -> None:
    """Tarfile writes and reads, also with compression."""
    with tarfile.open(fileobj=stream, mode=f"w:{kind}") as out:
        member = tarfile.TarInfo("content")
        member.size = SIZE
        out.addfile(member, io.BytesIO(CONTENT))
    stream.seek(0)
    with tarfile.open(fileobj=stream) as archive:
        assert CONTENT == archive.extractfile("content").read()
    stream.seek(0)
    with tarfile.open(fileobj=stream, mode=f"r|{kind}") as archive:
        assert ["content"] == [one.name for one in archive]


def test_compressed(stream: Any) -> None:
    """Gzip and lzma write and read."""
    for module in (gzip, lzma):
        kind = {gzip: gzip.GzipFile, lzma: lzma.LZMAFile}[module]
        stream.seek(0)
        with module.open(stream, "wb") as out:
            out.write(CONTENT)
        stream.seek(0)
        with module.open(stream) as source:
            assert isinstance(source, kind)
            assert CONTENT == source.read()


def test_text(stream: Any) -> None:
    """TextIOWrapper and csv write and read."""
    rows = [["a", "b"], ["1", "zwei\nZeilen"], ["\u4e2d", ""]]
    text = io.TextIOWrapper(stream, "utf-8", newline="")
    csv.writer(text).writerows(rows)
    text.seek(0)
    assert rows == list(csv.reader(text))
    text.seek(0)
    first = text.readline()
    place = text.tell()
    rest = text.read()
    text.seek(place)
    assert ("a,b\r\n", rest) == (first, text.read())
    text.detach()
    assert not stream.closed


def test_json(stream: Any) -> None:
    """json.load reads bytes."""
    stream.write(b'{"a": [1, 2.5, null]}')
    stream.seek(0)
    assert {"a": [1, 2.5, None]} == json.load(stream)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickle(stream: Any, protocol: int) -> None:
    """Several pickles can be written and read one after the other, in each protocol."""
    objects = [CONTENT, list(range(1000)), {"a": ("b", None, 2.5)}]
    for one in objects:
        pickle.dump(one, stream, protocol)
    stream.seek(0)
    assert objects == [pickle.load(stream) for _ in objects]
    with pytest.raises(EOFError):
        pickle.load(stream)


def test_numpy(stream: Any) -> None:
    """numpy.save and numpy.load work with arrays and archives."""
    array = np.arange(50_000, dtype="<f4").reshape(50, -1)
    np.save(stream, array)
    np.save(stream, array[:3].T)
    stream.seek(0)
    assert np.array_equal(array, np.load(stream))
    assert np.array_equal(array[:3].T, np.load(stream))
    start = stream.tell()
    np.savez_compressed(stream, one=array, two=array[0])
    stream.seek(start)
    with np.load(stream) as archive:
        assert np.array_equal(array[0], archive["two"])


@pytest.mark.skipif(sys.version_info < (3, 11), reason="hashlib.file_digest is new in 3.11")
def test_hashlib(stream: Any) -> None:
    """hashlib.file_digest reads from the current position."""
    stream.write(CONTENT)
    stream.seek(7)
    assert hashlib.sha256(CONTENT[7:]).digest() == hashlib.file_digest(stream, "sha256").digest()


def test_copyfileobj(stream: Any) -> None:
    """shutil.copyfileobj copies from and to a stream. Without room it raises ENOSPC."""
    shutil.copyfileobj(io.BytesIO(CONTENT), stream)
    stream.seek(0)
    out = io.BytesIO()
    shutil.copyfileobj(stream, out)
    assert CONTENT == out.getvalue()
    with (
        MappedFile(stream.name, "r+") as file,
        file.stream(0, SIZE - 1) as small,
        pytest.raises(OSError) as caught,
    ):
        shutil.copyfileobj(io.BytesIO(CONTENT), small)
    assert errno.ENOSPC == caught.value.errno


def test_buffered(stream: Any) -> None:
    """BufferedReader and BufferedRandom accept a stream as a raw file."""
    stream.write(CONTENT)
    stream.seek(0)
    reader = io.BufferedReader(stream, 100)
    assert (CONTENT[:10], CONTENT[10:]) == (reader.read(10), reader.read())
    reader.seek(0)
    assert CONTENT.splitlines(keepends=True) == [
        line for part in reader for line in part.splitlines(keepends=True)
    ]
    reader.detach()
    both = io.BufferedRandom(stream)
    both.seek(0)
    both.write(b"start")
    both.seek(0)
    assert b"start" + CONTENT[5:] == both.read()
    both.detach()
